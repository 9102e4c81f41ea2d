//! The configuration as written. Every key that may be left out is an `Option`, and `null` is the same as leaving it
//! out; every value knows its place in the file. Nothing in here has a default or has been checked.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Unexpected, Visitor, value::MapAccessDeserializer};
use serde_path_to_error::{Path as KeyPath, Segment, Track};
use serde_saphyr::{Error as YamlError, Location, MessageFormatter, Spanned, UserMessageFormatter};

use super::error::{Fault, Place, Problem, Words};

/// A value with its place in the file.
pub(super) type At<T> = Spanned<T>;

#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawConfig {
    pub zones: Option<At<Vec<RawZone>>>,
    pub clusters: Option<At<Vec<At<RawCluster>>>>,
    pub listeners: Option<At<Vec<RawListener>>>,
    pub admin: Option<RawAdmin>,
    pub identity: Option<RawIdentity>,
    pub limits: Option<RawLimits>,
    pub location: Option<RawLocation>,
    pub resolvers: Option<At<Vec<At<String>>>>,
    pub explain_to: Option<At<Vec<At<String>>>>,
    pub health: Option<RawHealth>,
    pub directives: Option<RawDirectives>,
    pub state: Option<RawState>,
    pub query_log: Option<RawQueryLog>,
    pub cluster_secrets: Option<At<RawClusterSecrets>>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawQueryLog {
    pub one_in: Option<At<u64>>,
    pub per_second: Option<At<u64>>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawState {
    pub directory: Option<At<String>>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawClusterSecrets {
    pub namespace: At<String>,
    pub kubeconfig: Option<At<RawKubeconfig>>,
    pub in_cluster: Option<At<bool>>,
    pub local_servers: Option<At<bool>>,
    pub ingress_cidrs: Option<At<Vec<At<String>>>>,
    pub inside_ingress_cidrs: Option<At<Vec<At<String>>>>,
    pub global_ingress_cidrs: Option<At<Vec<At<String>>>>,
    pub export: Option<At<RawExport>>,
    pub namespaces: Option<At<Vec<At<String>>>>,
    pub weight: Option<At<u64>>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawDirectives {
    pub namespace: At<String>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawHealth {
    pub quorum: At<RawQuorum>,
    pub cluster: Option<At<String>>,
    pub namespace: Option<At<String>>,
    pub replica: Option<At<String>>,
    pub allow_single_voter: Option<At<bool>>,
    pub interval: Option<At<String>>,
    pub timeout: Option<At<String>>,
    pub fall: Option<At<u64>>,
    pub rise: Option<At<u64>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum RawQuorum {
    Local,
    Majority,
}

#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawLocation {
    pub regions: Option<At<Vec<RawRegion>>>,
    pub distances: Option<At<Vec<RawDistance>>>,
    pub places: Option<At<Vec<RawPlace>>>,
    pub databases: Option<At<Vec<RawDatabase>>>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawRegion {
    pub name: At<String>,
    pub latitude: At<f64>,
    pub longitude: At<f64>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawDistance {
    pub between: At<Vec<At<String>>>,
    pub kilometers: At<u64>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawPlace {
    pub region: Option<At<String>>,
    pub availability_zone: Option<At<String>>,
    pub cidrs: Option<At<Vec<At<String>>>>,
    pub file: Option<At<String>>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawDatabase {
    pub file: At<String>,
    pub countries: Option<BTreeMap<String, At<String>>>,
    pub continents: Option<BTreeMap<String, At<String>>>,
    pub autonomous_systems: Option<BTreeMap<u32, At<String>>>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawZone {
    pub name: At<String>,
    pub schema: Option<RawSchema>,
    pub file: At<String>,
    pub ttl: Option<At<u64>>,
    pub negative_ttl: Option<At<u64>>,
    pub max_answers: Option<At<u64>>,
    pub external_mode: Option<RawMode>,
    pub internal_mode: Option<RawMode>,
    pub spare: Option<At<u64>>,
    pub families: Option<RawFamilies>,
    pub hostnames: Option<At<RawHostnames>>,
    pub services: Option<At<Vec<RawService>>>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawService {
    pub name: At<String>,
    pub namespace: At<String>,
    pub ttl: Option<At<u64>>,
    pub max_answers: Option<At<u64>>,
    pub external_mode: Option<RawMode>,
    pub internal_mode: Option<RawMode>,
    pub spare: Option<At<u64>>,
    pub hostnames: Option<At<RawHostnames>>,
    pub addresses: Option<At<Vec<At<String>>>>,
}

#[derive(Debug, Clone, Copy, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum RawSchema {
    Federation,
    Mcs,
    Static,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum RawMode {
    Ordered,
    Nearest,
    Single,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum RawHostnames {
    Addresses,
    Cname,
}

#[derive(Debug, Clone, Copy, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum RawFamilies {
    Common,
    Any,
}

#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawCluster {
    pub name: At<String>,
    pub manifests: Option<At<String>>,
    pub kubeconfig: Option<At<RawKubeconfig>>,
    pub in_cluster: Option<At<bool>>,
    pub region: Option<At<String>>,
    pub availability_zones: Option<At<Vec<At<String>>>>,
    pub network: Option<At<String>>,
    pub client_cidrs: Option<At<Vec<At<String>>>>,
    pub ingress_cidrs: Option<At<Vec<At<String>>>>,
    pub inside_ingress_cidrs: Option<At<Vec<At<String>>>>,
    pub global_ingress_cidrs: Option<At<Vec<At<String>>>>,
    pub export: Option<At<RawExport>>,
    pub namespaces: Option<At<Vec<At<String>>>>,
    pub weight: Option<At<u64>>,
    pub voter: Option<At<bool>>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawKubeconfig {
    pub file: At<String>,
    pub context: Option<At<String>>,
}

#[derive(Debug, Clone, Copy, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum RawExport {
    LoadBalancer,
    ServiceExport,
    Annotated,
    All,
    None,
}

#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawListener {
    pub addresses: At<Vec<At<String>>>,
    pub view: Option<At<RawView>>,
    pub client_subnet: Option<At<bool>>,
}

/// `external`, `bySource`, or `{internal: CLUSTER}`.
#[derive(Debug)]
pub(super) enum RawView {
    External,
    BySource,
    Internal(At<String>),
}

/// `off`, or `{address: ADDRESS}`.
#[derive(Debug)]
pub(super) enum RawAdmin {
    Off,
    At(At<String>),
}

#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawIdentity {
    pub version: Option<At<String>>,
    pub server: Option<At<String>>,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawLimits {
    pub udp_workers: Option<At<RawWorkers>>,
    pub udp_receive_buffer: Option<At<u64>>,
    pub tcp_connections: Option<At<u64>>,
    pub tcp_connections_per_client: Option<At<u64>>,
    pub tcp_idle: Option<At<String>>,
    pub tcp_idle_internal: Option<At<String>>,
    pub sync_wait: Option<At<String>>,
    pub lame_duck: Option<At<String>>,
    pub manifest_size: Option<At<u64>>,
    pub manifest_files: Option<At<u64>>,
    pub objects_per_cluster: Option<At<u64>>,
    pub endpoints_per_service: Option<At<u64>>,
}

/// `auto`, or a number.
#[derive(Debug, Clone, Copy)]
pub(super) enum RawWorkers {
    Auto,
    Number(u64),
}

impl<'de> Deserialize<'de> for RawView {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RawView, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        struct Internal {
            internal: At<String>,
        }
        struct Words;
        impl<'de> Visitor<'de> for Words {
            type Value = RawView;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("`external`, `bySource` or `{internal: CLUSTER}`")
            }
            fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<RawView, E> {
                match word {
                    "external" => Ok(RawView::External),
                    "bySource" => Ok(RawView::BySource),
                    "internal" => Err(E::invalid_value(Unexpected::Str(word), &"`{internal: CLUSTER}`")),
                    _ => Err(E::unknown_variant(word, &["external", "bySource", "{internal: CLUSTER}"])),
                }
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RawView, A::Error> {
                Internal::deserialize(MapAccessDeserializer::new(map)).map(|view| RawView::Internal(view.internal))
            }
        }
        deserializer.deserialize_any(Words)
    }
}

impl<'de> Deserialize<'de> for RawAdmin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RawAdmin, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        struct Address {
            address: At<String>,
        }
        struct Words;
        impl<'de> Visitor<'de> for Words {
            type Value = RawAdmin;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("`off` or `{address: ADDRESS}`")
            }
            fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<RawAdmin, E> {
                match word {
                    "off" => Ok(RawAdmin::Off),
                    _ => Err(E::unknown_variant(word, &["off", "{address: ADDRESS}"])),
                }
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RawAdmin, A::Error> {
                Address::deserialize(MapAccessDeserializer::new(map)).map(|admin| RawAdmin::At(admin.address))
            }
        }
        deserializer.deserialize_any(Words)
    }
}

impl<'de> Deserialize<'de> for RawWorkers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RawWorkers, D::Error> {
        struct Words;
        impl Visitor<'_> for Words {
            type Value = RawWorkers;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("`auto` or a whole number")
            }
            fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<RawWorkers, E> {
                match word {
                    "auto" => Ok(RawWorkers::Auto),
                    _ => Err(E::unknown_variant(word, &["auto", "NUMBER"])),
                }
            }
            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<RawWorkers, E> {
                Ok(RawWorkers::Number(number))
            }
            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<RawWorkers, E> {
                u64::try_from(number).map(RawWorkers::Number).map_err(|_| {
                    let expected = "`auto` or a whole number";
                    E::invalid_value(Unexpected::Signed(number), &expected)
                })
            }
        }
        deserializer.deserialize_any(Words)
    }
}

/// The whole file, or the first thing in it that does not fit the shape above.
pub(super) fn parse(text: &str) -> Result<RawConfig, Vec<Problem>> {
    // YAML 1.2 booleans only, so that `off` is a word. The parser's default budget (a million events, and bounds on
    // aliases) is far above what a file of MAX_FILE octets needs.
    let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
    let mut track = Track::new();
    let parsed = serde_saphyr::with_deserializer_from_str_with_options(text, options, |yaml| {
        RawConfig::deserialize(serde_path_to_error::Deserializer::new(yaml, &mut track))
    });
    parsed.map_err(|error| vec![problem(&error, &track.path())])
}

fn problem(error: &YamlError, path: &KeyPath) -> Problem {
    let place = error.location().and_then(place);
    let mut key = key_of(path);
    let fault = match error.without_snippet() {
        YamlError::AliasError { error, .. } => fault(error, &mut key),
        error => fault(error, &mut key),
    };
    Problem { place, key, fault }
}

fn fault(error: &YamlError, key: &mut String) -> Fault {
    let shape = |expected: &str| Fault::WrongType(expected.to_owned());
    match error {
        YamlError::MultipleDocuments { .. } => {
            key.clear();
            Fault::SeveralDocuments
        }
        YamlError::DuplicateMappingKey { key: Some(name), .. } => {
            push_key(key, name);
            Fault::DuplicateKey
        }
        YamlError::DuplicateMappingKey { key: None, .. } => Fault::DuplicateKey,
        YamlError::SerdeUnknownField { field, expected, .. } => {
            if field == "value" {
                push_key(key, field);
            }
            Fault::UnknownKey(Words::new(field, expected))
        }
        YamlError::SerdeUnknownVariant { variant, expected, .. } => Fault::UnknownWord {
            word: printable(variant).chars().take(80).collect(),
            words: Words::new(variant, expected),
        },
        YamlError::SerdeMissingField { field, .. } => Fault::MissingKey((*field).to_owned()),
        YamlError::SerdeInvalidType { unexpected, expected, .. }
        | YamlError::SerdeInvalidValue { unexpected, expected, .. } => {
            Fault::WrongType(format!("{expected}, found {unexpected}"))
        }
        YamlError::InvalidScalar { ty: "u64", .. } => shape("a whole number, 0 or more"),
        YamlError::InvalidBooleanStrict { .. } => shape("true or false"),
        YamlError::NullIntoString { .. } => shape("a text, found nothing"),
        YamlError::Unexpected { expected: "sequence start", .. } => shape("a list"),
        YamlError::Unexpected { expected: "mapping start", .. } => shape("keys with values"),
        YamlError::Unexpected { expected: "string scalar", .. } => {
            shape("a text (one that begins with [ or { needs quotes)")
        }
        YamlError::ExternallyTaggedEnumExpectedScalarOrMapping { .. } => shape("one word"),
        // Open set: the parser's own words. Control characters of the file must not reach a terminal.
        other => Fault::Syntax(printable(&UserMessageFormatter.format_message(other))),
    }
}

/// `clusters[1].name`. A [`Spanned`] value shows in the path as a map with the key `value`, which no struct here has.
fn key_of(path: &KeyPath) -> String {
    let mut key = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => key.push_str(&format!("[{index}]")),
            Segment::Map { key: name } if name == "value" => {}
            Segment::Map { key: name } | Segment::Enum { variant: name } => push_key(&mut key, name),
            Segment::Unknown => {}
        }
    }
    key
}

fn push_key(key: &mut String, name: &str) {
    if !key.is_empty() {
        key.push('.');
    }
    // A key is at most 1,024 characters in YAML; 80 of them show which one is meant.
    key.extend(printable(name).chars().take(80));
}

fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { printable.extend(c.escape_default()) } else { printable.push(c) }
    }
    printable
}

/// `None` when the parser does not know.
pub(super) fn place(location: Location) -> Option<Place> {
    (location.line() > 0).then(|| Place { line: location.line(), column: location.column() })
}
