//! Kubernetes objects as written, cut to the fields that are read. Everything else (managedFields, pod references,
//! foreign annotations, node names) is passed over while decoding and never allocated.
//!
//! Null is what it is to the API server, which is written in Go: the empty value of its type. So `endpoints: null`,
//! which Kubernetes itself prints for an empty list, is an empty list.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::de::{DeserializeOwned, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_path_to_error::Segment;

use super::problem::Problem;
use crate::index::ObjectKey;

/// A Service of `v1`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Service {
    #[serde(default, deserialize_with = "nullable")]
    pub metadata: Meta,
    #[serde(default, deserialize_with = "nullable")]
    pub spec: ServiceSpec,
    #[serde(default, deserialize_with = "nullable")]
    pub status: ServiceStatus,
}

/// An EndpointSlice of `discovery.k8s.io/v1`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointSlice {
    #[serde(default, deserialize_with = "nullable")]
    pub metadata: Meta,
    #[serde(default, deserialize_with = "nullable")]
    pub address_type: String,
    #[serde(default, deserialize_with = "nullable")]
    pub endpoints: Vec<Endpoint>,
    #[serde(default, deserialize_with = "nullable")]
    pub ports: Vec<EndpointPort>,
}

/// A ServiceExport of `multicluster.x-k8s.io`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct ServiceExport {
    #[serde(default, deserialize_with = "nullable")]
    pub metadata: Meta,
}

/// A ServiceImport of `multicluster.x-k8s.io`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct ServiceImport {
    #[serde(default, deserialize_with = "nullable")]
    pub metadata: Meta,
    #[serde(default, deserialize_with = "nullable")]
    pub spec: ImportSpec,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct ImportSpec {
    #[serde(default, deserialize_with = "nullable")]
    pub ips: Vec<String>,
    #[serde(default)]
    pub ports: List<ServicePort>,
}

/// A ServiceLoad or ClusterLoad of `signpost.dev/v1alpha1`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct LoadObject {
    #[serde(default, deserialize_with = "nullable")]
    pub metadata: Meta,
    #[serde(default, deserialize_with = "nullable")]
    pub spec: LoadSpec,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadSpec {
    #[serde(default)]
    pub load: Option<Amount>,
    #[serde(default)]
    pub valid_for_seconds: Option<i64>,
    /// Not read as a time: each writer has a clock of its own. Another text is another measurement.
    #[serde(default, deserialize_with = "nullable")]
    pub measured_at: String,
}

/// A Lease of `coordination.k8s.io/v1` by which a voter's replica shows that it is there. What it says is in annotations; its own
/// times are those of another clock.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Lease {
    #[serde(default, deserialize_with = "nullable")]
    pub metadata: Meta,
}

/// A ConfigMap of `v1` in which a voter's replica says what it sees.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct ConfigMap {
    #[serde(default, deserialize_with = "nullable")]
    pub metadata: Meta,
    #[serde(default, deserialize_with = "nullable")]
    pub data: ReportData,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct ReportData {
    #[serde(default, rename = "report.json", deserialize_with = "nullable")]
    pub report: String,
}

/// A ConfigMap of `v1` in which an operator says something of the cluster or of one of its services.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct DirectiveMap {
    #[serde(default, deserialize_with = "nullable")]
    pub metadata: Meta,
    #[serde(default, deserialize_with = "nullable")]
    pub data: BTreeMap<String, String>,
}

/// The label of such a ConfigMap.
pub const DIRECTIVE: &str = "signpost.dev/directive";

/// A number, or the text of one, as it was written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Amount(pub String);

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Meta {
    #[serde(default, deserialize_with = "nullable")]
    pub name: String,
    #[serde(default, deserialize_with = "nullable")]
    pub namespace: String,
    #[serde(default, deserialize_with = "nullable")]
    pub uid: String,
    #[serde(default, deserialize_with = "nullable")]
    pub resource_version: String,
    /// Counts the changes of `spec`.
    #[serde(default, deserialize_with = "nullable")]
    pub generation: i64,
    /// The digits of `creationTimestamp`, `yyyymmddhhmmss`; `None`: there is none.
    #[serde(default, rename = "creationTimestamp", deserialize_with = "digits_of_time")]
    pub created: Option<u64>,
    /// `deletionTimestamp` is set.
    #[serde(default, rename = "deletionTimestamp", deserialize_with = "present")]
    pub deleting: bool,
    #[serde(default, deserialize_with = "nullable")]
    pub annotations: Annotations,
    #[serde(default, deserialize_with = "nullable")]
    pub labels: Labels,
}

/// The annotations that are read: those below `signpost.dev/`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Annotations {
    /// `signpost.dev/export`
    pub export: Option<String>,
    /// The others, by what stands behind the slash.
    pub ours: BTreeMap<String, String>,
}

/// The labels that are read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels {
    /// `kubernetes.io/service-name`
    pub service_name: Option<String>,
    /// `endpointslice.kubernetes.io/managed-by`
    pub managed_by: Option<String>,
    /// There is a `multicluster.kubernetes.io/*`.
    pub multicluster: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceSpec {
    #[serde(default, rename = "type", deserialize_with = "nullable")]
    pub kind: String,
    #[serde(default, rename = "clusterIP", deserialize_with = "nullable")]
    pub cluster_ip: String,
    #[serde(default, rename = "clusterIPs", deserialize_with = "nullable")]
    pub cluster_ips: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    pub session_affinity: String,
    #[serde(default)]
    pub ports: List<ServicePort>,
    /// `selector` has an entry.
    #[serde(default, rename = "selector", deserialize_with = "has_entries")]
    pub has_selector: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct ServicePort {
    #[serde(default, deserialize_with = "nullable")]
    pub name: String,
    #[serde(default, deserialize_with = "nullable")]
    pub protocol: String,
    /// Wider than a port, so that 70000 and -1 are told as what they are.
    #[serde(default, deserialize_with = "nullable")]
    pub port: i64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceStatus {
    #[serde(default, deserialize_with = "nullable")]
    pub load_balancer: LoadBalancer,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct LoadBalancer {
    #[serde(default, deserialize_with = "nullable")]
    pub ingress: Vec<Ingress>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ingress {
    #[serde(default, deserialize_with = "nullable")]
    pub ip: String,
    #[serde(default, deserialize_with = "nullable")]
    pub hostname: String,
    #[serde(default, deserialize_with = "nullable")]
    pub ip_mode: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Endpoint {
    #[serde(default, deserialize_with = "nullable")]
    pub addresses: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    pub conditions: Conditions,
    #[serde(default, deserialize_with = "nullable")]
    pub hostname: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Conditions {
    #[serde(default)]
    pub ready: Option<bool>,
    #[serde(default)]
    pub serving: Option<bool>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct EndpointPort {
    #[serde(default, deserialize_with = "nullable")]
    pub name: String,
    #[serde(default, deserialize_with = "nullable")]
    pub protocol: String,
    /// `None` is every port.
    #[serde(default)]
    pub port: Option<i64>,
}

/// A list that tells null from absent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum List<T> {
    #[default]
    Absent,
    Null,
    Items(Vec<T>),
}

/// An object that could not be decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undecodable {
    /// Whose last good state stays; `None` when not even that can be read.
    pub key: Option<ObjectKey>,
    pub problem: Problem,
}

impl Meta {
    pub fn key(&self) -> ObjectKey {
        ObjectKey { namespace: self.namespace.as_str().into(), name: self.name.as_str().into() }
    }
}

/// Decodes one JSON object. Where it fails, it is decoded once more to tell the path: following paths costs an
/// allocation for every key, which the 100,000 good objects of a list should not pay.
pub fn from_json<T: DeserializeOwned>(raw: &[u8]) -> Result<T, Box<Undecodable>> {
    serde_json::from_slice(raw).map_err(|error| {
        let problem = if error.is_data() {
            type_problem::<T, _>(&mut serde_json::Deserializer::from_slice(raw))
        } else {
            Problem::syntax(&error.to_string())
        };
        let key = key_of(&mut serde_json::Deserializer::from_slice(raw));
        Box::new(Undecodable { key, problem })
    })
}

/// Decodes one object of a document that was parsed before.
pub fn from_value<T: DeserializeOwned>(raw: &serde_json::Value) -> Result<T, Box<Undecodable>> {
    T::deserialize(raw).map_err(|_| Box::new(Undecodable { key: key_of(raw), problem: type_problem::<T, _>(raw) }))
}

/// The identity of an object, whatever else is wrong with it. A name or namespace that is no text is none.
pub fn key_of<'de, D: Deserializer<'de>>(raw: D) -> Option<ObjectKey> {
    #[derive(Deserialize)]
    struct Identity {
        metadata: IdentityMeta,
    }
    #[derive(Deserialize)]
    struct IdentityMeta {
        name: Text,
        #[serde(default = "no_text")]
        namespace: Text,
    }
    /// Of what is in no namespace.
    fn no_text() -> Text {
        Text(Some("".into()))
    }
    let Identity { metadata } = Identity::deserialize(raw).ok()?;
    match (metadata.namespace, metadata.name) {
        (Text(Some(namespace)), Text(Some(name))) if !name.is_empty() => Some(ObjectKey { namespace, name }),
        _ => None,
    }
}

fn type_problem<'de, T: Deserialize<'de>, D>(raw: D) -> Problem
where
    D: Deserializer<'de, Error = serde_json::Error>,
{
    match serde_path_to_error::deserialize::<D, T>(raw) {
        Ok(_) => Problem::syntax("decoding gave different results"),
        Err(error) => {
            let what = error.inner().to_string();
            // The line and column of an API server's answer help nobody; the path does.
            let what = what.rsplit_once(" at line ").map_or(what.as_str(), |(what, _)| what);
            Problem::wrong_type(path_text(error.path()), what)
        }
    }
}

/// `metadata.annotations[signpost.dev/export]`: a key with a dot in it gets brackets.
fn path_text(path: &serde_path_to_error::Path) -> String {
    let mut text = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => text.push_str(&format!("[{index}]")),
            Segment::Map { key } if key.contains('.') => text.push_str(&format!("[{key}]")),
            Segment::Map { key: name } | Segment::Enum { variant: name } => {
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(name);
            }
            Segment::Unknown => text.push('?'),
        }
    }
    text
}

fn nullable<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(raw: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(raw)?.unwrap_or_default())
}

fn present<'de, D: Deserializer<'de>>(raw: D) -> Result<bool, D::Error> {
    Ok(Option::<IgnoredAny>::deserialize(raw)?.is_some())
}

/// Of `2026-01-31T23:59:59Z`, which is how the API server writes every time.
fn digits_of_time<'de, D: Deserializer<'de>>(raw: D) -> Result<Option<u64>, D::Error> {
    struct Time;
    impl<'de> Visitor<'de> for Time {
        type Value = Option<u64>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a time")
        }
        fn visit_str<E>(self, text: &str) -> Result<Option<u64>, E> {
            let mut digits = 0;
            for (byte, pattern) in text.bytes().zip(*b"0000-00-00T00:00:00Z") {
                match (byte, pattern) {
                    (b'0'..=b'9', b'0') => digits = digits * 10 + u64::from(byte - b'0'),
                    _ if byte == pattern => {}
                    _ => return Ok(None),
                }
            }
            Ok((text.len() == 20).then_some(digits))
        }
        fn visit_unit<E>(self) -> Result<Option<u64>, E> {
            Ok(None)
        }
    }
    raw.deserialize_any(Time)
}

fn has_entries<'de, D: Deserializer<'de>>(raw: D) -> Result<bool, D::Error> {
    struct Entries(bool);
    impl<'de> Deserialize<'de> for Entries {
        fn deserialize<D: Deserializer<'de>>(raw: D) -> Result<Self, D::Error> {
            struct Counter;
            impl<'de> Visitor<'de> for Counter {
                type Value = bool;
                fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str("a map")
                }
                fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
                    let mut any = false;
                    while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
                        any = true;
                    }
                    Ok(any)
                }
            }
            raw.deserialize_map(Counter).map(Entries)
        }
    }
    Ok(Option::<Entries>::deserialize(raw)?.is_some_and(|entries| entries.0))
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(raw: D) -> Result<Self, D::Error> {
        struct Number;
        impl Visitor<'_> for Number {
            type Value = Amount;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number")
            }
            fn visit_u64<E>(self, number: u64) -> Result<Amount, E> {
                Ok(Amount(number.to_string()))
            }
            fn visit_i64<E>(self, number: i64) -> Result<Amount, E> {
                Ok(Amount(number.to_string()))
            }
            fn visit_f64<E>(self, number: f64) -> Result<Amount, E> {
                Ok(Amount(number.to_string()))
            }
            fn visit_str<E>(self, text: &str) -> Result<Amount, E> {
                Ok(Amount(text.to_owned()))
            }
        }
        raw.deserialize_any(Number)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(raw: D) -> Result<Self, D::Error> {
        Ok(Option::deserialize(raw)?.map_or(List::Null, List::Items))
    }
}

/// The prefix of our own annotations.
pub const ANNOTATIONS: &str = "signpost.dev/";

impl<'de> Deserialize<'de> for Annotations {
    fn deserialize<D: Deserializer<'de>>(raw: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Annotations;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of annotations")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Annotations, A::Error> {
                let mut annotations = Annotations::default();
                while let Some(OwnKey(key)) = map.next_key()? {
                    match key {
                        None => {
                            map.next_value::<IgnoredAny>()?;
                        }
                        Some(key) if key == "export" => annotations.export = map.next_value()?,
                        Some(key) => {
                            // More than an object could ever use are not kept.
                            let value: Option<String> = map.next_value()?;
                            if annotations.ours.len() < MAX_ANNOTATIONS {
                                annotations.ours.extend(value.map(|value| (key, value)));
                            }
                        }
                    }
                }
                Ok(annotations)
            }
        }
        raw.deserialize_map(Keys)
    }
}

const MAX_ANNOTATIONS: usize = 32;

/// What stands behind [`ANNOTATIONS`]; `None` of a key of somebody else's.
struct OwnKey(Option<String>);

impl<'de> Deserialize<'de> for OwnKey {
    fn deserialize<D: Deserializer<'de>>(raw: D) -> Result<Self, D::Error> {
        struct Key;
        impl Visitor<'_> for Key {
            type Value = OwnKey;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the key of an annotation")
            }
            fn visit_str<E>(self, key: &str) -> Result<OwnKey, E> {
                Ok(OwnKey(key.strip_prefix(ANNOTATIONS).map(str::to_owned)))
            }
        }
        raw.deserialize_str(Key)
    }
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(raw: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Labels;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of labels")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Labels, A::Error> {
                let mut labels = Labels::default();
                while let Some(key) = map.next_key()? {
                    match key {
                        LabelKey::ServiceName => labels.service_name = map.next_value()?,
                        LabelKey::ManagedBy => labels.managed_by = map.next_value()?,
                        LabelKey::Multicluster => {
                            labels.multicluster = true;
                            map.next_value::<IgnoredAny>()?;
                        }
                        LabelKey::Other => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(labels)
            }
        }
        raw.deserialize_map(Keys)
    }
}

enum LabelKey {
    ServiceName,
    ManagedBy,
    Multicluster,
    Other,
}

impl<'de> Deserialize<'de> for LabelKey {
    fn deserialize<D: Deserializer<'de>>(raw: D) -> Result<Self, D::Error> {
        struct Key;
        impl Visitor<'_> for Key {
            type Value = LabelKey;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the key of a label")
            }
            fn visit_str<E>(self, key: &str) -> Result<LabelKey, E> {
                Ok(match key {
                    "kubernetes.io/service-name" => LabelKey::ServiceName,
                    "endpointslice.kubernetes.io/managed-by" => LabelKey::ManagedBy,
                    _ if key.starts_with("multicluster.kubernetes.io/") => LabelKey::Multicluster,
                    _ => LabelKey::Other,
                })
            }
        }
        raw.deserialize_identifier(Key)
    }
}

/// A text, or whatever else stands where one should.
struct Text(Option<Arc<str>>);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(raw: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Text;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("anything")
            }
            fn visit_str<E>(self, text: &str) -> Result<Text, E> {
                Ok(Text(Some(text.into())))
            }
            fn visit_bool<E>(self, _: bool) -> Result<Text, E> {
                Ok(Text(None))
            }
            fn visit_i64<E>(self, _: i64) -> Result<Text, E> {
                Ok(Text(None))
            }
            fn visit_u64<E>(self, _: u64) -> Result<Text, E> {
                Ok(Text(None))
            }
            fn visit_f64<E>(self, _: f64) -> Result<Text, E> {
                Ok(Text(None))
            }
            fn visit_unit<E>(self) -> Result<Text, E> {
                Ok(Text(None))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Text, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Text(None))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Text, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Text(None))
            }
        }
        raw.deserialize_any(Any)
    }
}
