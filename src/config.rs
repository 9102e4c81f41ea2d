//! Configuration: [`RawConfig`] as written → [`Config`] as run.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use crate::model::{AvailabilityZone, ClusterId, Label, Network, Region, ViewRule};
use crate::names::Name;

/// What will be run. Nothing in here is undecided: every default is filled in, every name resolved.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The file it was read from; relative paths in it are relative to its directory.
    pub path: PathBuf,
    pub zones: Vec<Zone>,
    /// A [`ClusterId`] is the position in here.
    pub clusters: Vec<Cluster>,
    pub listeners: Vec<Listener>,
    /// Where /metrics, /livez and /readyz are; `None` when switched off.
    pub admin: Option<SocketAddr>,
    pub identity: Identity,
    pub limits: Limits,
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
    pub families: Families,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schema {
    /// `<service>.<namespace>.<zone>`
    Federation,
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

#[derive(Debug, Clone, PartialEq)]
pub struct Cluster {
    pub name: Label,
    pub source: Source,
    pub region: Option<Region>,
    pub availability_zones: Vec<AvailabilityZone>,
    pub network: Option<Network>,
    /// Where this cluster's own clients come from, for listeners with the view `bySource`.
    pub client_cidrs: Vec<IpNet>,
    /// Special-purpose ranges (RFC 6890) in which this cluster's load balancers live.
    pub ingress_cidrs: Vec<IpNet>,
    pub export: Export,
    pub namespaces: Namespaces,
}

#[derive(Debug, Clone, PartialEq, Eq)]
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
}

/// Which of a cluster's Services are federated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Export {
    /// Every Service of type LoadBalancer (the 2015 text).
    LoadBalancer,
    /// Those with the annotation `signpost.dev/export: "true"`.
    Annotated,
    All,
}

/// The namespaces that a cluster may export.
#[derive(Debug, Clone, PartialEq, Eq)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listener {
    pub address: SocketAddr,
    pub view: ViewRule,
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
    pub tcp_idle: Duration,
    /// Until every cluster has synced or this has passed, no socket answers.
    pub sync_wait: Duration,
    /// Largest manifest file, in octets.
    pub manifest_size: u64,
    /// Most manifest files of one cluster.
    pub manifest_files: u32,
    /// Most objects of one kind in one cluster.
    pub objects_per_cluster: u32,
}

impl Config {
    pub fn cluster(&self, id: ClusterId) -> &Cluster {
        &self.clusters[id.index()]
    }
}
