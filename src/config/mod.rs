//! Configuration: `raw::RawConfig` as written → [`Config`] as run (`resolve`, where every default and range stands).
//!
//! `config/reference.yaml` shows every key. A problem is told with file, line, column, key and what was expected
//! ([`ConfigErrors`]): the first one that keeps the file from being understood, else all of them.

mod error;
mod ingress;
mod location;
mod raw;
mod registered;
mod resolve;
mod special;

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use self::error::{ConfigErrors, Fault, Place, Problem, Words};
pub use self::ingress::{IngressRanges, Published};
pub use self::location::{Database, Location, Places};
pub use self::registered::{ClusterSecrets, Credentials, LeftOut, Registration};
pub use self::resolve::is_topology;
pub use self::special::Never;
use crate::health::Failures;
use crate::model::{Audience, AvailabilityZone, ClusterId, Label, Network, Region, ServiceKey, View, ViewRule};
use crate::names::Name;

/// Octets of a configuration file: 1,024 clusters with 20 lines each are 600 kB.
pub const MAX_FILE: u64 = 1 << 20;
pub const MAX_ZONES: usize = 256;
/// A [`ClusterId`] has 16 bits, and each cluster costs a source with its connections.
pub const MAX_CLUSTERS: usize = 1024;
/// Listening addresses of all listeners; each has its own sockets and UDP workers.
pub const MAX_ADDRESSES: usize = 512;
/// The external view and the internal ones in use: answers are compiled once for each, and numbered with an octet.
pub const MAX_VIEWS: usize = 255;
/// CIDRs in one list.
pub const MAX_CIDRS: usize = 256;
/// Availability zones of one cluster.
pub const MAX_AVAILABILITY_ZONES: usize = 64;
/// Namespaces in one list.
pub const MAX_NAMESPACES: usize = 1024;
/// Regions with coordinates of their own: more than all clouds have together.
pub const MAX_REGIONS: usize = 4096;
/// Each pair of a hundred regions.
pub const MAX_DISTANCES: usize = 10_000;
/// Lists of CIDRs, and CIDRs in one that stands in the configuration; a file may have more.
pub const MAX_PLACES: usize = 1024;
pub const MAX_PLACE_CIDRS: usize = 4096;
pub const MAX_DATABASES: usize = 16;
pub const MAX_RESOLVERS: usize = 8;
/// Services of a zone that differ from the others; addresses of one.
pub const MAX_SERVICES: usize = 10_000;
pub const MAX_SERVICE_ADDRESSES: usize = 100;

/// The weight of a cluster of which nothing is said. Only ratios count.
pub const DEFAULT_WEIGHT: u16 = 100;

/// What will be run. Nothing in here is undecided: every default is filled in, every name resolved.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The file it was read from; relative paths in it are relative to its directory.
    pub path: PathBuf,
    pub zones: Vec<Zone>,
    /// A [`ClusterId`] is the position in here: first those that are configured, then those that are registered.
    pub clusters: Vec<Cluster>,
    pub listeners: Vec<Listener>,
    /// Where /metrics, /livez and /readyz are; `None` when switched off.
    pub admin: Option<SocketAddr>,
    pub identity: Identity,
    pub limits: Limits,
    pub location: Location,
    /// Who is asked for the names of load balancers; nobody: those of the system.
    pub resolvers: Vec<SocketAddr>,
    /// Which clients `TXT _explain.<service>.<namespace>.<zone>` is for.
    pub explain_to: Vec<IpNet>,
    /// How external addresses are probed; `None`: not at all, and readiness alone decides.
    pub health: Option<Health>,
    /// The directory of what was last heard of each cluster, for the next start; `None`: it is not kept.
    pub state: Option<PathBuf>,
    /// `None`: no queries are logged.
    pub query_log: Option<QueryLog>,
    /// Whether more clusters can be registered at run time, and what they may do.
    pub cluster_secrets: Option<ClusterSecrets>,
}

/// Which queries are logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueryLog {
    /// One in so many; 1 is all.
    pub one_in: u32,
    /// Not more than so many.
    pub per_second: u32,
}

/// How it is found out which external addresses work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// From one probe of an address to the next one, give or take a tenth.
    pub interval: Duration,
    /// Until a probe without an answer has failed; not above the interval.
    pub timeout: Duration,
    pub failures: Failures,
    pub quorum: Quorum,
}

/// Who decides that an address is Down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Quorum {
    /// This instance alone.
    Local,
    Majority(Majority),
}

/// More than half of the clusters that are voters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Majority {
    /// The cluster that this instance votes for, in whose API it writes. `None`: it only counts what others say.
    pub own: Option<ClusterId>,
    /// Where the objects of voters are, in each of them.
    pub namespace: Label,
    /// This instance's name among those of its cluster; `None`: what the environment says.
    pub replica: Option<String>,
    /// If there is one voter, it decides.
    pub alone: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    pub name: Name,
    pub schema: Schema,
    /// The static data: SOA, NS and whatever else stands at fixed names.
    pub file: PathBuf,
    /// Seconds, of the records of services, and of NODATA.
    pub ttl: u32,
    /// Seconds, of NXDOMAIN and of a service that has no address yet.
    pub negative_ttl: u32,
    /// Most addresses in one answer; headless sets are not cut.
    pub max_answers: u8,
    /// Of answers to clients outside, and inside a cluster.
    pub external_mode: Mode,
    pub internal_mode: Mode,
    pub families: Families,
    pub hostnames: Hostnames,
    /// What is different for some of its services.
    pub services: HashMap<ServiceKey, Service>,
}

/// What is different for one service of a zone; `None`: nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Seconds, whatever the clusters ask for.
    pub ttl: Option<u32>,
    pub max_answers: u8,
    pub external_mode: Mode,
    pub internal_mode: Mode,
    pub hostnames: Hostnames,
    /// Of a load balancer in front of all clusters: instead of each cluster's external addresses.
    pub addresses: Vec<IpAddr>,
}

/// How much of what is known of a service is in an answer. SRV has all of it in every mode: it tells the order itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// All, the best first.
    Ordered,
    /// The best band, and so many addresses of the next ones.
    Nearest { spare: u8 },
    /// One address.
    Single,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schema {
    /// `<service>.<namespace>.<zone>`
    Federation,
    /// `<service>.<namespace>.svc.<zone>`, as the MCS DNS specification has it; for clients inside clusters only.
    Mcs,
    /// Static data only.
    Static,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Families {
    /// A family is answered if every exporting cluster has it; without a common one, all that any has.
    Common,
    /// Every family that any exporting cluster has.
    Any,
}

/// What a load balancer that has a host name is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hostnames {
    /// The addresses that the name leads to, beside all others.
    Addresses,
    /// A CNAME record: at one time, the service is one cluster's.
    Cname,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Cluster {
    pub name: Label,
    pub source: Source,
    pub region: Option<Region>,
    pub availability_zones: Vec<AvailabilityZone>,
    /// Neither is given, so that the labels of its nodes say them.
    pub placed_by_nodes: bool,
    pub network: Option<Network>,
    /// Where this cluster's own clients come from, for listeners with the view `bySource`.
    pub client_cidrs: Vec<IpNet>,
    /// Where this cluster's load balancers live.
    pub ingress: IngressRanges,
    pub export: Export,
    pub namespaces: Namespaces,
    /// Of its addresses beside those of others that are as near; 0: drained, unless all are.
    pub weight: u16,
    /// It votes on what is Down, by objects in this namespace.
    pub voter: Option<Label>,
    /// Operators' directives are read from this namespace; of manifests, all are read.
    pub directives: Option<Label>,
    /// There is a zone of the schema `mcs`, for which its ServiceExports and ServiceImports are read.
    pub mcs: bool,
}

impl Cluster {
    /// Whether its ServiceExports mean something.
    pub fn reads_exports(&self) -> bool {
        self.mcs || self.export == Export::ServiceExport
    }
}

impl Schema {
    /// Whether services have names in the zone.
    pub fn has_services(self) -> bool {
        match self {
            Schema::Federation | Schema::Mcs => true,
            Schema::Static => false,
        }
    }
}

#[cfg(test)]
impl Config {
    /// These clusters, and nothing else.
    pub fn of(clusters: Vec<Cluster>) -> Config {
        Config {
            path: PathBuf::new(),
            zones: Vec::new(),
            clusters,
            listeners: Vec::new(),
            admin: None,
            identity: Identity::default(),
            location: Location::default(),
            resolvers: Vec::new(),
            explain_to: Vec::new(),
            health: None,
            state: None,
            query_log: None,
            cluster_secrets: None,
            limits: Limits {
                udp_workers: 1,
                udp_receive_buffer: 0,
                tcp_connections: 1,
                tcp_connections_per_client: 1,
                tcp_idle: Duration::ZERO,
                tcp_idle_internal: Duration::ZERO,
                sync_wait: Duration::ZERO,
                lame_duck: Duration::ZERO,
                manifest_size: 0,
                manifest_files: 0,
                objects_per_cluster: 1000,
                endpoints_per_service: 1000,
            },
        }
    }
}

#[cfg(test)]
impl Cluster {
    /// One of that name, which may export everything, with nothing else said of it.
    pub fn named(name: &str) -> Cluster {
        Cluster {
            name: Label::parse(name).unwrap(),
            source: Source::InCluster,
            region: None,
            availability_zones: Vec::new(),
            placed_by_nodes: false,
            network: None,
            client_cidrs: Vec::new(),
            ingress: IngressRanges::default(),
            export: Export::All,
            namespaces: Namespaces::All,
            weight: DEFAULT_WEIGHT,
            voter: None,
            directives: None,
            mcs: false,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Source {
    Manifests {
        directory: PathBuf,
    },
    Kubeconfig {
        file: PathBuf,
        context: Option<String>,
    },
    /// The service account of the pod that this process runs in.
    InCluster,
    /// By a Secret. `None`: that there was one is known from an earlier process.
    Registered(Option<Credentials>),
}

/// Which of a cluster's Services are federated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Export {
    /// Every Service of type LoadBalancer (the 2015 text).
    LoadBalancer,
    /// Those with the annotation `signpost.dev/export: "true"`.
    Annotated,
    /// Those with a ServiceExport of their name (MCS API).
    ServiceExport,
    All,
    /// It is there to vote, and its Services are not read.
    Nothing,
}

/// The namespaces that a cluster may export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Namespaces {
    All,
    /// Sorted, without duplicates.
    Only(Vec<Label>),
}

impl Namespaces {
    pub fn allow(&self, namespace: &str) -> bool {
        match self {
            Namespaces::All => true,
            Namespaces::Only(list) => list.binary_search_by(|l| l.as_str().cmp(namespace)).is_ok(),
        }
    }
}

/// One address on which UDP and TCP are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Listener {
    pub address: SocketAddr,
    pub audience: Audience,
}

/// What the CHAOS class tells; `None` is REFUSED.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    /// version.bind, version.server
    pub version: Option<String>,
    /// hostname.bind, id.server, and NSID (RFC 5001)
    pub server: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// UDP worker threads for each listener.
    pub udp_workers: u16,
    /// Octets of a UDP socket's receive buffer.
    pub udp_receive_buffer: u32,
    pub tcp_connections: u32,
    /// Per client /24 or /56 on external listeners, per address on internal ones.
    pub tcp_connections_per_client: u32,
    /// Until an idle connection to a listener with the view `external` or `bySource` is closed.
    pub tcp_idle: Duration,
    /// The same on listeners with an internal view: resolvers reuse connections.
    pub tcp_idle_internal: Duration,
    /// Until every cluster has synced or this has passed, no socket answers.
    pub sync_wait: Duration,
    /// From SIGTERM, with which it is not ready any more, to the end of answering.
    pub lame_duck: Duration,
    /// Largest manifest file, in octets.
    pub manifest_size: u64,
    /// Most manifest files of one cluster.
    pub manifest_files: u32,
    /// Most objects of one kind in one cluster.
    pub objects_per_cluster: u32,
    /// Most endpoints of one service in one cluster.
    pub endpoints_per_service: u32,
}

impl Config {
    /// Reads, checks and resolves the file at `path`, and looks whether the files that it names are there.
    pub fn load(path: &Path) -> Result<Config, ConfigErrors> {
        Config::read(path).map_err(|problems| ConfigErrors { path: path.to_owned(), problems })
    }

    fn read(path: &Path) -> Result<Config, Vec<Problem>> {
        let whole = |fault| vec![Problem { place: None, key: String::new(), fault }];
        let octets = read_limited(path).map_err(|error| whole(Fault::Unreadable(error)))?;
        let octets = octets.ok_or_else(|| whole(Fault::TooLarge))?;
        let text = str::from_utf8(&octets).map_err(|error| {
            let place = end_of(&octets[..error.valid_up_to()]);
            vec![Problem { place: Some(place), key: String::new(), fault: Fault::NotUtf8 }]
        })?;
        let raw = raw::parse(text)?;
        // The only default that depends on the machine: as many UDP workers as there are cores to run on.
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        resolve::resolve(path, raw, cores)
    }

    /// Every view that answers are compiled for: the external one first, then the internal ones that any listener can
    /// give, by cluster.
    pub fn views(&self) -> Vec<View> {
        let mut views = BTreeSet::from([View::External]);
        for listener in &self.listeners {
            match listener.audience.view {
                ViewRule::Fixed(view) => {
                    views.insert(view);
                }
                ViewRule::BySource => views.extend(
                    (0..)
                        .zip(&self.clusters)
                        .filter(|(_, cluster)| !cluster.client_cidrs.is_empty())
                        .map(|(id, _)| View::Internal(ClusterId(id))),
                ),
            }
        }
        views.into_iter().collect()
    }

    /// The clusters with their ids.
    pub fn numbered(&self) -> impl Iterator<Item = (ClusterId, &Cluster)> {
        (0..).map(ClusterId).zip(&self.clusters)
    }

    pub fn named(&self, name: &Label) -> Option<(ClusterId, &Cluster)> {
        self.numbered().find(|(_, cluster)| cluster.name == *name)
    }

    /// The clusters that vote, in their order.
    pub fn voters(&self) -> Vec<Label> {
        self.clusters.iter().filter(|cluster| cluster.voter.is_some()).map(|cluster| cluster.name.clone()).collect()
    }

    pub fn has(&self, id: ClusterId) -> bool {
        id.index() < self.clusters.len()
    }

    pub fn cluster(&self, id: ClusterId) -> &Cluster {
        &self.clusters[id.index()]
    }
}

/// The file's octets; `None` if there are more than [`MAX_FILE`].
fn read_limited(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let mut octets = Vec::new();
    File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut octets)?;
    Ok((octets.len() as u64 <= MAX_FILE).then_some(octets))
}

/// The place behind `octets`, which are UTF-8.
fn end_of(octets: &[u8]) -> Place {
    let text = String::from_utf8_lossy(octets);
    let line = text.matches('\n').count() as u64 + 1;
    let column = text.rsplit('\n').next().unwrap_or_default().chars().count() as u64 + 1;
    Place { line, column }
}
