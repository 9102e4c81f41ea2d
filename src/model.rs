//! The nouns that every part shares. Values are checked when they are made and not again.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::ops::{Add, Sub};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

pub mod check;
pub mod directive;
pub(crate) mod text;
pub mod votes;

use check::Check;

/// A monotonic point in time, counted from the start of the process. The core gets it as an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment(pub Duration);

impl Add<Duration> for Moment {
    type Output = Moment;
    fn add(self, rhs: Duration) -> Moment {
        Moment(self.0.saturating_add(rhs))
    }
}

impl Sub for Moment {
    type Output = Duration;
    fn sub(self, rhs: Moment) -> Duration {
        self.0.saturating_sub(rhs.0)
    }
}

/// A member cluster: its position in `Config::clusters`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub u16);

impl ClusterId {
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// One lower-case LDH label of 1 to 63 octets (RFC 9499), which is also what Kubernetes calls an RFC 1123 label.
#[derive(Clone)]
pub struct Label(Held);

/// A list of a million Services has some million labels: nearly all fit into the space of a pointer and a length.
#[derive(Clone)]
enum Held {
    Short { length: u8, octets: [u8; Label::SHORT] },
    Long(Arc<str>),
}

/// Why a text is no [`Label`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a DNS label (1 to 63 lower-case letters, digits and inner hyphens)")]
pub struct LabelError {
    pub text: String,
}

impl Label {
    pub fn parse(text: &str) -> Result<Label, LabelError> {
        if !is_label(text.as_bytes()) {
            // A hostile object must not fill the log: 80 octets show what is wrong with any label.
            return Err(LabelError { text: text.chars().take(80).collect() });
        }
        Ok(Label::again(text.as_bytes()))
    }

    /// From the octets of a label: they are not checked again.
    pub fn again(label: &[u8]) -> Label {
        debug_assert!(is_label(label));
        if label.len() > Label::SHORT {
            return Label(Held::Long(std::str::from_utf8(label).expect("a label is ASCII").into()));
        }
        let mut octets = [0; Label::SHORT];
        octets[..label.len()].copy_from_slice(label);
        Label(Held::Short { length: label.len() as u8, octets })
    }

    /// Octets that are held in place.
    const SHORT: usize = 22;

    pub fn as_str(&self) -> &str {
        match &self.0 {
            Held::Short { .. } => std::str::from_utf8(self.as_bytes()).expect("a label is ASCII"),
            Held::Long(text) => text,
        }
    }

    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Held::Short { length, octets } => &octets[..usize::from(*length)],
            Held::Long(text) => text.as_bytes(),
        }
    }
}

impl PartialEq for Label {
    fn eq(&self, other: &Label) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Label {}

impl PartialOrd for Label {
    fn partial_cmp(&self, other: &Label) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Label {
    fn cmp(&self, other: &Label) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl Hash for Label {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Label").field(&self.as_str()).finish()
    }
}

/// Whether these octets are what [`Label`] holds.
pub fn is_label(octets: &[u8]) -> bool {
    let inner = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-';
    let edges = octets.first() != Some(&b'-') && octets.last() != Some(&b'-');
    (1..=63).contains(&octets.len()) && edges && octets.iter().all(inner)
}

/// Labels with dots between them.
pub fn are_labels(text: &str) -> bool {
    text.split('.').all(|label| is_label(label.as_bytes()))
}

/// A name that can be asked for: labels of letters, digits and hyphens, the last one no number (RFC 1123 section 2.1), and no
/// more than 253 octets without the final dot (RFC 1035 section 2.3.4).
pub fn is_host_name(text: &str) -> bool {
    const MOST: usize = 253;
    let number = text.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
    text.len() <= MOST && !number && are_labels(text)
}

/// `500ms`, `10s`, `5m`, `1h`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let number: u64 = digits.parse().ok()?;
    match unit {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs),
        "h" => number.checked_mul(3600).map(Duration::from_secs),
        _ => None,
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Label {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Label {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Label, D::Error> {
        let text = <std::borrow::Cow<'_, str>>::deserialize(deserializer)?;
        Label::parse(&text).map_err(de::Error::custom)
    }
}

/// A service of the federation. Namespace sameness: equal names in two clusters are one service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey {
    pub namespace: Label,
    pub name: Label,
}

/// Why a text is no [`ServiceKey`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not NAMESPACE/SERVICE")]
pub struct ServiceKeyError;

impl FromStr for ServiceKey {
    type Err = ServiceKeyError;

    fn from_str(text: &str) -> Result<ServiceKey, ServiceKeyError> {
        let label = |text| Label::parse(text).map_err(|_| ServiceKeyError);
        let (namespace, name) = text.split_once('/').ok_or(ServiceKeyError)?;
        Ok(ServiceKey { namespace: label(namespace)?, name: label(name)? })
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl Serialize for ServiceKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ServiceKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ServiceKey, D::Error> {
        let text = <std::borrow::Cow<'_, str>>::deserialize(deserializer)?;
        text.parse().map_err(|error| de::Error::custom(format_args!("{text:?} {error}")))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// In the order of their discriminants, so that `ALL[n]` is what `as u8` made `n`.
    pub const ALL: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

    /// The label of RFC 2782, with its underscore.
    pub fn label(self) -> &'static str {
        match self {
            Protocol::Tcp => "_tcp",
            Protocol::Udp => "_udp",
            Protocol::Sctp => "_sctp",
        }
    }

    /// Whose label this is, in lower case.
    pub fn of_label(label: &[u8]) -> Option<Protocol> {
        Protocol::ALL.into_iter().find(|protocol| protocol.label().as_bytes() == label)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Port {
    /// `None`: the only port of a Service may have no name.
    pub name: Option<Label>,
    pub protocol: Protocol,
    pub number: NonZeroU16,
}

/// How a Service of one cluster can be reached from the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Exposure {
    /// `ClusterIP` and `NodePort`: from its own cluster only.
    ClusterOnly,
    /// `LoadBalancer`: at the addresses of `status.loadBalancer.ingress[]`, which may not be known yet.
    LoadBalancer,
}

/// A Service's address inside its own cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ClusterAddress {
    /// `spec.clusterIPs`; empty while the API server has not given any.
    Virtual(Vec<IpAddr>),
    /// `clusterIP: None`: the addresses of the ready pods.
    Headless,
}

/// How much of its capacity something uses, in ten-thousandths: 0 to 10,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(from = "u16", into = "u16")]
pub struct Load(u16);

/// Why a text is no [`Load`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a load is a number from 0 to 1")]
pub struct LoadError;

impl Load {
    pub const FULL: Load = Load(10_000);

    /// A part of the capacity, from 0 to 1.
    pub fn new(part: f64) -> Result<Load, LoadError> {
        // A NaN is in no range.
        if (0.0..=1.0).contains(&part) { Ok(Load((part * 10_000.0).round() as u16)) } else { Err(LoadError) }
    }

    pub fn parse(text: &str) -> Result<Load, LoadError> {
        text.trim().parse().map_err(|_| LoadError).and_then(Load::new)
    }

    /// 0 to 1.
    pub fn part(self) -> f64 {
        f64::from(self.0) / 10_000.0
    }

    /// 0 to 10,000.
    pub fn ten_thousandths(self) -> u16 {
        self.0
    }

    /// What [`ten_thousandths`](Load::ten_thousandths) gave.
    pub fn again(ten_thousandths: u16) -> Load {
        Load(ten_thousandths.min(Load::FULL.0))
    }
}

impl From<u16> for Load {
    fn from(ten_thousandths: u16) -> Load {
        Load::again(ten_thousandths)
    }
}

impl From<Load> for u16 {
    fn from(load: Load) -> u16 {
        load.ten_thousandths()
    }
}

/// A ServiceExport of one cluster (MCS API): it offers the Service of its name to all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceExport {
    pub key: ServiceKey,
    /// When it was created, in the digits `yyyymmddhhmmss` of UTC; [`ServiceExport::UNDATED`]: not said.
    pub since: u64,
}

impl ServiceExport {
    pub const UNDATED: u64 = u64::MAX;
}

/// A ServiceImport of one cluster (MCS API), cut to what is answered with: at which addresses the cluster's own clients
/// reach a service of all clusters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceImport {
    pub key: ServiceKey,
    /// `spec.ips`; none for a headless service.
    pub addresses: Vec<IpAddr>,
    pub ports: Vec<Port>,
}

/// What an object of a cluster says of the load of one of its services, or of the cluster as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadReport {
    /// `None`: of all that is in the cluster.
    pub service: Option<ServiceKey>,
    /// `None`: what it says is no load.
    pub load: Option<Load>,
    /// From when it is first seen.
    pub valid: Duration,
    /// Two reports with one stamp are one, seen twice.
    pub stamp: u64,
}

/// What a cluster asks for its share of one service, by annotations of its Service object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Wishes {
    /// Instead of the cluster's own; 0: drained.
    pub weight: Option<u16>,
    /// Seconds.
    pub ttl: Option<u32>,
    pub load: Option<Load>,
}

/// A Service object of one cluster, cut to what is answered with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Service {
    pub key: ServiceKey,
    pub exposure: Exposure,
    pub cluster_address: ClusterAddress,
    /// `status.loadBalancer.ingress[].ip`, in the object's order, or what is to be given instead.
    pub ingress: Vec<IpAddr>,
    /// `status.loadBalancer.ingress[].hostname` of those without an address: lower case, no final dot.
    #[serde(with = "text::list")]
    pub hostnames: Vec<Arc<str>>,
    pub ports: Vec<Port>,
    /// Whether a controller makes EndpointSlices for it.
    pub has_selector: bool,
    /// By the cluster's rule in the configuration. If not, a ServiceExport may still do it.
    pub exported: bool,
    /// `sessionAffinity: ClientIP`: a client is to stay with what it was sent to.
    pub sticky: bool,
    /// `ipMode: Proxy` in all entries of the load balancer: the cluster's own clients go all the way to it, too.
    pub proxied: bool,
    pub wishes: Wishes,
    /// How its external addresses are to be probed; `None`: as those of all others. Nobody can read it without the ports.
    #[serde(skip)]
    pub check: Option<Arc<Check>>,
}

/// An EndpointSlice object of one cluster, cut to what is answered with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Slice {
    pub namespace: Label,
    /// The object's own name, a DNS subdomain name.
    #[serde(with = "text")]
    pub name: Arc<str>,
    /// The value of `kubernetes.io/service-name`.
    pub service: Label,
    pub endpoints: Vec<Endpoint>,
    pub ports: Vec<Port>,
}

/// One endpoint of a slice. The conditions are as published; `null` counts as written in each field's comment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    pub addresses: Vec<IpAddr>,
    pub hostname: Option<Label>,
    /// `conditions.ready`; `null` is true.
    pub ready: bool,
    /// `conditions.serving`; `null` is the value of `ready`.
    pub serving: bool,
}

/// A ready endpoint of a headless Service: what `H.C.S.N.Z` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// The endpoint's hostname, or its address with dashes.
    pub hostname: Label,
    pub addresses: Vec<IpAddr>,
    pub ports: Vec<Port>,
}

/// What one cluster contributes to a service: its Service object with the slices joined in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    pub cluster: ClusterId,
    pub exposure: Exposure,
    pub cluster_address: ClusterAddress,
    /// The load balancer's addresses, in the object's order.
    pub ingress: Vec<IpAddr>,
    /// Names of load balancers whose addresses are not among these.
    pub hostnames: Vec<Arc<str>>,
    /// Seconds for which `ingress` is known, where some of it was asked for by name: no answer is kept for longer.
    pub most_ttl: Option<u32>,
    pub ports: Vec<Port>,
    /// At least one endpoint is ready and serving.
    pub ready: bool,
    /// Only for a headless share: its ready endpoints, ordered by hostname, then by address.
    pub pods: Vec<Pod>,
    /// It is in the zones of the schema `federation`.
    pub exported: bool,
    /// Since when it has a ServiceExport, as [`ServiceExport::since`].
    pub offered: Option<u64>,
    /// See [`Service::sticky`].
    pub sticky: bool,
    /// See [`Service::proxied`].
    pub proxied: bool,
    pub wishes: Wishes,
    /// See [`Service::check`].
    pub check: Option<Arc<Check>>,
}

/// A service of the federation with the shares of every cluster that has it, ordered by cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Federated {
    pub key: ServiceKey,
    pub shares: Vec<Share>,
    /// At which addresses of their own the clients of clusters reach it, in zones of the schema `mcs`; ordered by cluster.
    pub imports: Vec<(ClusterId, Arc<ServiceImport>)>,
}

/// Whose answers a client gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum View {
    External,
    /// The client is inside this cluster.
    Internal(ClusterId),
}

/// How a listening socket chooses the view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ViewRule {
    Fixed(View),
    /// By the client's address: internal to the cluster whose client CIDRs hold it, else external.
    BySource,
}

/// Whom a listening socket serves, and what it believes of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Audience {
    pub view: ViewRule,
    /// The client subnet (RFC 7871) of a query for the external view says where its client is.
    pub client_subnet: bool,
}

impl From<ViewRule> for Audience {
    /// Whoever speaks for others at most changes which of the addresses that everybody may see comes first.
    fn from(view: ViewRule) -> Audience {
        Audience { view, client_subnet: !matches!(view, ViewRule::Fixed(View::Internal(_))) }
    }
}

/// A cloud's region, or whatever the operator calls one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Region(pub Arc<str>);

/// A part of a region that fails as one. (Kubernetes says "zone"; here a zone is a DNS zone.)
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AvailabilityZone(pub Arc<str>);

/// Where a cluster is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Place {
    pub region: Option<Region>,
    pub availability_zones: Vec<AvailabilityZone>,
}

/// A set of clusters whose pods reach each other without translation.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Network(pub Arc<str>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let seconds = |n| Some(Duration::from_secs(n));
        let cases = [("500ms", Some(Duration::from_millis(500))), ("10s", seconds(10)), ("5m", seconds(300))];
        for (text, expected) in cases.into_iter().chain([("1h", seconds(3600)), ("0s", seconds(0))]) {
            assert_eq!(parse_duration(text), expected, "{text}");
        }
        for bad in ["", "10", "s", "-1s", "+1s", "1.5s", "1 s", "1S", "99999999999999999999s", "9999999999999999999h"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn labels() {
        let long: Vec<String> = [21, 22, 23, 63].iter().map(|length| "x".repeat(*length)).collect();
        let good = ["a", "my-service", "0", "1a"].into_iter().chain(long.iter().map(String::as_str));
        let labels: Vec<Label> = good.clone().map(|text| Label::parse(text).unwrap()).collect();
        for (label, text) in labels.iter().zip(good) {
            assert_eq!((label.as_str(), label.as_bytes()), (text, text.as_bytes()));
            assert_eq!((label.to_string(), format!("{label:?}")), (text.to_owned(), format!("Label({text:?})")));
            for other in &labels {
                assert_eq!(label.cmp(other), text.cmp(other.as_str()));
                assert_eq!(label == other, text == other.as_str());
            }
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", "ä", "a b", &"x".repeat(64)] {
            assert!(Label::parse(bad).is_err(), "{bad:?}");
        }
    }
}
