//! What is wrong with a configuration: facts first, the sentence when it is shown.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;

use super::MAX_FILE;
use super::special::Never;
use crate::location::CoordinatesError;
use crate::model::LabelError;
use crate::names::NameError;

/// More than anybody repairs in one go; the rest is counted.
const MAX_SHOWN: usize = 100;

/// Every problem of one configuration file, in the file's order; at least one.
#[derive(Debug)]
pub struct ConfigErrors {
    pub path: PathBuf,
    pub problems: Vec<Problem>,
}

#[derive(Debug)]
pub struct Problem {
    pub place: Option<Place>,
    /// As in `clusters[1].name`; empty for the file as a whole.
    pub key: String,
    pub fault: Fault,
}

/// Line and column, both from 1; the column counts characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub line: u64,
    pub column: u64,
}

impl fmt::Display for ConfigErrors {
    /// One line per problem: `config/demo.yaml:12:9: clusters[1].name: ...`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().take(MAX_SHOWN).enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}:", self.path.display())?;
            if let Some(Place { line, column }) = problem.place {
                write!(f, "{line}:{column}:")?;
            }
            if !problem.key.is_empty() {
                write!(f, " {}:", problem.key)?;
            }
            write!(f, " {}", problem.fault)?;
        }
        match self.problems.len().saturating_sub(MAX_SHOWN) {
            0 => Ok(()),
            more => write!(f, "\n{}: and {more} more problems", self.path.display()),
        }
    }
}

impl std::error::Error for ConfigErrors {}

#[derive(Debug, thiserror::Error)]
pub enum Fault {
    // The file.
    #[error("cannot be read: {0}")]
    Unreadable(io::Error),
    #[error("is larger than {} octets, which no configuration needs", MAX_FILE)]
    TooLarge,
    #[error("this is not UTF-8")]
    NotUtf8,
    #[error("a second YAML document begins here; a configuration is one document")]
    SeveralDocuments,

    // YAML and its shape.
    #[error("{0}")]
    Syntax(String),
    #[error("the key stands here a second time")]
    DuplicateKey,
    #[error("unknown key; {}", expected_words(.0))]
    UnknownKey(Words),
    #[error("`{word}` is not possible here; {}", expected_words(.words))]
    UnknownWord { word: String, words: Words },
    #[error("the key `{0}` is missing")]
    MissingKey(String),
    #[error("expected {0}")]
    WrongType(String),

    // Values.
    #[error("{got} is out of range: {min} to {max} {unit}")]
    OutOfRange { got: u64, min: u64, max: u64, unit: &'static str },
    #[error("{got} is out of range: {min}s to {max}s")]
    DurationOutOfRange { got: String, min: u64, max: u64 },
    #[error("{0:?} is not a duration: a whole number with the unit ms, s, m or h, as in 500ms or 10s")]
    Duration(String),
    #[error("{count} {what} are too many: the limit is {limit}")]
    TooMany { what: &'static str, count: usize, limit: usize },
    #[error("{text:?} is not 1 to {limit} octets of printable text")]
    Text { text: String, limit: usize },
    #[error("{0:?} is not a topology name: 1 to 63 letters, digits and inner `-`, `_`, `.` (a Kubernetes label value)")]
    Topology(String),
    #[error("{text:?} stands in the list twice")]
    Repeated { text: String },
    #[error("{0}")]
    Label(LabelError),
    #[error("{what} {path:?}: {error}")]
    Path { what: &'static str, path: PathBuf, error: io::Error },
    #[error("{what} {path:?} is not {expected}")]
    PathKind { what: &'static str, path: PathBuf, expected: &'static str },

    // Zones.
    #[error("at least one zone is needed")]
    NoZones,
    #[error("{name:?} is not a zone name: {error}")]
    ZoneName { name: String, error: NameError },
    #[error(
        "{0:?} is not a zone name: each label is 1 to 63 letters, digits and inner hyphens (an internationalised \
         name is written as its A-label, xn--...)"
    )]
    ZoneLabels(String),
    #[error("the zone {name} is already zones[{first}]")]
    DuplicateZone { name: String, first: usize },
    #[error("a zone whose schema is not `static` needs at least one cluster, or clusterSecrets")]
    NoClusters,
    #[error("only the mode nearest has spare addresses, and neither externalMode nor internalMode is that")]
    SpareOfNone,

    #[error("`cname` is for zones with the schema `federation`: a name that `mcs` asks for is no alias")]
    AliasesInSchema,
    #[error("a zone with the schema `static` has no services")]
    ServicesOfStatic,
    #[error("the service {service} stands in services[{first}] already")]
    DuplicateService { service: String, first: usize },
    #[error("{0:?} is not an IP address")]
    IpAddress(String),
    #[error("{address} is {} and never published", never.name())]
    NeverAddress { address: IpAddr, never: Never },

    // Clusters.
    #[error("the cluster {name:?} is already clusters[{first}]")]
    DuplicateCluster { name: String, first: usize },
    #[error("clusters[{first}] already reads this source; one cluster has one name")]
    DuplicateSource { first: usize },
    #[error("exactly one of `manifests`, `kubeconfig` and `inCluster: true` is needed, found {}", found(.0))]
    Sources(Vec<&'static str>),
    #[error("an empty list would export nothing; leave the key out to export all namespaces")]
    NoNamespaces,
    #[error("exactly one of `kubeconfig` and `inCluster: true` is needed, found {}", found(.0))]
    SecretsSources(Vec<&'static str>),
    #[error("`none` is for witnesses, and a registered cluster does not vote")]
    RegisteredWitness,

    // Health.
    #[error("there is no API server of this cluster in which it could vote: it is read from manifests")]
    VoterWithoutApi,
    #[error("no cluster is a voter: with `majority`, at least one with an API server has to be (`voter: true`)")]
    NoVoters,
    #[error("{0:?} is no voter: it is read from manifests, or has `voter: false`")]
    NotAVoter(String),
    #[error("{0:?} is not a name that a pod could have: DNS labels with dots between them, up to 200 octets")]
    NotAReplica(String),

    // CIDRs.
    #[error("{0:?} is not a CIDR, as in 10.0.0.0/8 or fd00::/8")]
    Cidr(String),
    #[error("{cidr} has bits set behind its prefix; the network is {network}")]
    HostBits { cidr: IpNet, network: IpNet },
    #[error("{0} is IPv4 written as IPv6: write it as IPv4")]
    Mapped(String),
    #[error(
        "{0} holds every client there is; for a listener whose clients are all of one cluster, use `view: {{internal: ...}}`"
    )]
    EveryClient(IpNet),
    #[error("{cidr} overlaps {other} of {key}")]
    Overlap { cidr: IpNet, other: IpNet, key: String },
    #[error("{cidr} overlaps {range} ({}), which no load balancer has and which is never published", never.name())]
    NeverPublished { cidr: IpNet, never: Never, range: IpNet },
    #[error(
        "{0} holds globally routable addresses, which are published without being declared: declare only \
         special-purpose ranges (RFC 6890) such as 10.0.0.0/8"
    )]
    Global(IpNet),
    #[error(
        "{0} holds special-purpose addresses only (RFC 6890): they are published where ingressCidrs or insideIngressCidrs \
         declare them"
    )]
    NotGlobal(IpNet),

    // Places.
    #[error("{0}")]
    Coordinates(CoordinatesError),
    #[error("two different regions are needed")]
    Between,
    #[error("`region` with `cidrs`, or `file` alone is needed")]
    PlaceShape,
    #[error("nobody says where the region {name:?} is: give it coordinates in location.regions; {}", expected_words(.known))]
    UnknownRegion { name: String, known: Words },
    #[error(
        "{0:?} is no code: two capital letters, of ISO 3166-1 for countries, AF, AN, AS, EU, NA, OC or SA for continents"
    )]
    Code(String),

    // Listeners.
    #[error("at least one listener is needed")]
    NoListeners,
    #[error("at least one address is needed")]
    NoAddresses,
    #[error("{0:?} is not an address with a port, as in 127.0.0.1:53 or [::1]:53")]
    Address(String),
    #[error("{0}: nothing can listen on a multicast or broadcast address")]
    NotUnicast(SocketAddr),
    #[error("{0}: a port from 1 to 65535 is needed")]
    PortZero(SocketAddr),
    #[error("{address} overlaps {other} of {key}")]
    AddressOverlap { address: SocketAddr, other: SocketAddr, key: String },
    #[error("there is no cluster {name:?}; {}", expected_words(.known))]
    UnknownCluster { name: String, known: Words },
    #[error("a client subnet says nothing of clients that are all inside one cluster")]
    SubnetInside,
    #[error("`bySource` needs `clientCidrs` at one cluster or more; without them, write `external`")]
    NoClientCidrs,
}

impl Fault {
    pub(super) fn too_many(what: &'static str, count: usize, limit: usize) -> Fault {
        Fault::TooMany { what, count, limit }
    }
}

/// Words that are possible, and the one of them that was perhaps meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words {
    pub possible: Vec<String>,
    pub nearest: Option<String>,
}

impl Words {
    pub(super) fn new<S: AsRef<str>>(written: &str, possible: &[S]) -> Words {
        let lower = written.to_ascii_lowercase();
        let nearest = possible
            .iter()
            .map(|word| (strsim::osa_distance(&lower, &word.as_ref().to_ascii_lowercase()), word.as_ref()))
            // A third of the letters wrong is a typing error; more is another word.
            .filter(|(distance, word)| *distance <= word.len() / 3)
            .min_by_key(|(distance, _)| *distance)
            .map(|(_, word)| word.to_owned());
        Words { possible: possible.iter().map(|word| word.as_ref().to_owned()).collect(), nearest }
    }
}

fn expected_words(words: &Words) -> String {
    /// A federation of a thousand clusters is not listed.
    const MAX_LISTED: usize = 20;
    if let Some(nearest) = &words.nearest {
        return format!("did you mean `{}`?", nearest.escape_debug());
    }
    let listed: Vec<String> =
        words.possible.iter().take(MAX_LISTED).map(|word| format!("`{}`", word.escape_debug())).collect();
    let more = if words.possible.len() > MAX_LISTED { ", ..." } else { "" };
    match listed.len() {
        0 => "none is configured".to_owned(),
        1 => format!("expected {}", listed[0]),
        _ => format!("expected one of {}{more}", listed.join(", ")),
    }
}

fn found(sources: &[&'static str]) -> String {
    match sources {
        [] => "none".to_owned(),
        some => format!("`{}`", some.join("` and `")),
    }
}
