//! The federation as last heard: what each cluster said, object by object, and what an update changes.

use std::cmp::Ordering;
use std::fmt;
use std::mem;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::directive::Directive;
use crate::model::votes::{Heartbeat, Report};
use crate::model::{
    ClusterId, Federated, LoadReport, Moment, Service, ServiceExport, ServiceImport, ServiceKey, Slice, text,
};

mod beside;
mod cluster;
pub use losses::LossGuard;

mod losses;
mod packed;
mod share;
#[cfg(test)]
mod tests;

use cluster::{Applied, Cluster};
use packed::{Entry, Key};
use share::Shares;

/// Services whose entries are found before the first of them is read: an entry is a cache miss or two.
const LOOKED_UP_AT_ONCE: usize = 16;

/// What every cluster said last, held per cluster and joined on demand.
///
/// A cluster is *synced* when every kind of it that is kept here has been listed once. Until then its objects are kept but not
/// shown: half a cluster (Services without their slices) would answer wrongly.
pub struct Index {
    /// Of the hash of every cluster's entries.
    seed: u64,
    /// By [`ClusterId`]. Ids come from the configuration that this index was made for; another one is a bug.
    clusters: Vec<Cluster>,
    /// Most objects of one kind in one cluster.
    limit: usize,
}

/// Deletions of one kind in one cluster that are not believed yet: see [`losses`](self::losses).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    pub cluster: ClusterId,
    pub kind: Kind,
    /// The objects that stay although they were said to be gone.
    pub count: usize,
    /// When to ask the source for a list. Usually the first moment at which a list can release all of them; while
    /// deletions go on, that of the older ones.
    pub release_from: Moment,
}

impl Index {
    /// One policy per cluster, in the order of their ids.
    pub fn new<P: Into<Policy>>(policies: Vec<P>) -> Index {
        let clusters = policies.into_iter().map(|policy| Cluster::new(policy.into(), 0)).collect();
        Index { seed: 0, clusters, limit: usize::MAX }
    }

    /// An empty index whose hash nobody can make names collide in. `seed`: random.
    pub fn seeded(self, seed: u64) -> Index {
        let renew = |cluster: &Cluster| {
            let mut renewed = Cluster::new(cluster.policy, seed);
            renewed.most_endpoints = cluster.most_endpoints;
            renewed
        };
        let clusters = self.clusters.iter().map(renew).collect();
        Index { seed, clusters, ..self }
    }

    /// Takes no more than `limit` objects of one kind from one cluster: the sources bound their lists, this bounds what
    /// comes one by one.
    pub fn limited(self, limit: u32) -> Index {
        Index { limit: limit as usize, ..self }
    }

    /// Takes no more than `limit` endpoints of one service from one cluster.
    pub fn with_most_endpoints(mut self, limit: u32) -> Index {
        self.clusters.iter_mut().for_each(|cluster| cluster.most_endpoints = limit as usize);
        self
    }

    /// Takes over a cluster's objects, sync state, timers and held deletions from another index, which forgets them:
    /// a new configuration must not unlearn what the clusters said. The policy is this index's own. The caller
    /// rebuilds the cluster's services: an id or the policy may differ.
    pub fn adopt(&mut self, id: ClusterId, from: &mut Index, old: ClusterId) {
        let policy = self.clusters[id.index()].policy;
        let source = &mut from.clusters[old.index()];
        let emptied = Cluster::new(source.policy, from.seed);
        let mut adopted = mem::replace(source, emptied);
        adopted.take_policy(policy);
        adopted.most_endpoints = self.clusters[id.index()].most_endpoints;
        self.clusters[id.index()] = adopted;
    }

    /// Enters what a source says of its cluster. Costs the object and its service's slices, for a list the sum.
    pub fn apply(&mut self, cluster: ClusterId, update: Update, now: Moment) -> Changes {
        let state = &mut self.clusters[cluster.index()];
        if let Update::Apply(object) = &update
            && state.is_new_beyond(object, self.limit)
        {
            return Changes { refused: Some((cluster, Refused::Object)), ..Changes::default() };
        }
        let was_synced = state.is_synced();
        let Applied { services, refused } = state.apply(update, now);
        let refused = refused.map(|refused| (cluster, refused));
        if !was_synced && state.is_synced() {
            Changes { services: state.keys(), synced: Some(cluster), refused }
        } else {
            Changes { services, synced: None, refused }
        }
    }

    /// Lets time pass: ends the graces that are over at `now`.
    pub fn tick(&mut self, now: Moment) -> Changes {
        let services = self.clusters.iter_mut().flat_map(|cluster| cluster.tick(now)).collect();
        Changes { services: each_once(services), ..Changes::default() }
    }

    /// When [`Index::tick`] has something to do next.
    pub fn next_deadline(&self) -> Option<Moment> {
        self.clusters.iter().filter_map(Cluster::next_deadline).min()
    }

    pub fn held(&self) -> Vec<Held> {
        let mut all = Vec::new();
        for (cluster, state) in self.numbered() {
            for kind in Kind::ALL {
                if let Some((count, release_from)) = state.held(kind) {
                    all.push(Held { cluster, kind, count, release_from });
                }
            }
        }
        all
    }

    pub fn is_synced(&self, cluster: ClusterId) -> bool {
        self.clusters[cluster.index()].is_synced()
    }

    /// The service with the shares of all synced clusters that have it; `None` if none has.
    pub fn service(&self, key: &ServiceKey) -> Option<Federated> {
        let mut found = None;
        self.services(std::slice::from_ref(key), |_, service| found = service.cloned());
        found
    }

    /// [`Index::service`] of each of the keys, one after the other. For many of them this is much faster: what it works with
    /// is used again, and so many look-ups at a time are under way as memory can answer.
    pub fn services<'k>(&self, keys: &'k [ServiceKey], mut each: impl FnMut(&'k ServiceKey, Option<&Federated>)) {
        let Some(first) = keys.first() else { return };
        let visible: Vec<(ClusterId, &Cluster)> = self.numbered().filter(|(_, state)| state.is_synced()).collect();
        let mut service = Federated { key: first.clone(), shares: Vec::new(), imports: Vec::new() };
        let offers = visible.iter().any(|(_, state)| state.has_exports());
        let imports = visible.iter().any(|(_, state)| state.has_imports());
        let mut shares = Shares::default();
        let mut octets: Vec<Key> = Vec::new();
        let mut entries: Vec<Option<&Entry>> = Vec::new();
        for keys in keys.chunks(LOOKED_UP_AT_ONCE) {
            // First all keys: what is between two look-ups keeps the processor from beginning the second one.
            octets.clear();
            octets.extend(keys.iter().map(Key::of));
            entries.clear();
            for key in &octets {
                entries.extend(visible.iter().map(|(_, state)| state.entry(key)));
            }
            let mut entries = entries.iter();
            for key in keys {
                shares.clear();
                for ((id, state), entry) in visible.iter().zip(entries.by_ref()) {
                    if let Some(entry) = entry {
                        let offered = if offers { state.offered(key) } else { None };
                        shares.push(*id, entry, state.sliceless_ready(), offered);
                        if let (Some(share), true) = (shares.all.last_mut(), state.policy.by_export) {
                            share.exported |= offered.is_some();
                        }
                    }
                }
                if imports {
                    let of = |(id, state): &(ClusterId, &Cluster)| Some((*id, state.import(key)?.clone()));
                    service.imports.clear();
                    service.imports.extend(visible.iter().filter_map(of));
                }
                service.key.clone_from(key);
                mem::swap(&mut service.shares, &mut shares.all);
                let is_there = !service.shares.is_empty() || !service.imports.is_empty();
                each(key, is_there.then_some(&service));
                mem::swap(&mut service.shares, &mut shares.all);
            }
        }
    }

    /// The services of all synced clusters, in order, each once.
    pub fn keys(&self) -> Vec<ServiceKey> {
        let visible = self.clusters.iter().filter(|state| state.is_synced());
        visible.map(Cluster::keys).reduce(merged).unwrap_or_default()
    }

    /// Under which names one cluster said something of a Service or of its slices, in no order.
    pub fn names(&self, cluster: ClusterId) -> Vec<ServiceKey> {
        self.clusters[cluster.index()].names().collect()
    }

    /// What a cluster said under a service's name.
    pub fn kept(&self, cluster: ClusterId, key: &ServiceKey) -> Option<Kept> {
        self.clusters[cluster.index()].kept(key)
    }

    /// Its ServiceExports, in no order.
    pub fn exports(&self, cluster: ClusterId) -> impl Iterator<Item = ServiceExport> {
        self.clusters[cluster.index()].exports()
    }

    /// Its ServiceImports, in no order.
    pub fn imports(&self, cluster: ClusterId) -> impl Iterator<Item = ServiceImport> {
        self.clusters[cluster.index()].imports()
    }

    /// Enters what was [`kept`](Index::kept) of a cluster of which nothing was heard yet: it is synced then. `overdue`: see
    /// [`Kept::overdue`].
    pub fn restore(
        &mut self,
        cluster: ClusterId,
        objects: Vec<Object>,
        overdue: &[ServiceKey],
        now: Moment,
    ) -> Vec<Changes> {
        let mut lists: [(Kind, Vec<Object>); 4] = [
            (Kind::ServiceExport, Vec::new()),
            (Kind::ServiceImport, Vec::new()),
            (Kind::Service, Vec::new()),
            // The last one, with which the cluster is seen.
            (Kind::EndpointSlice, Vec::new()),
        ];
        for object in objects {
            let kind = object.kind();
            if let Some((_, list)) = lists.iter_mut().find(|(listed, list)| *listed == kind && list.len() < self.limit)
            {
                list.push(object);
            }
        }
        let apply = |(kind, objects)| self.apply(cluster, Update::Reset { kind, objects, keep: Vec::new() }, now);
        let changes = lists.into_iter().map(apply).collect();
        self.clusters[cluster.index()].end_waits(overdue);
        changes
    }

    /// How many Services and EndpointSlices of a cluster are held, synced or not.
    pub fn counts(&self, cluster: ClusterId) -> (usize, usize) {
        self.clusters[cluster.index()].counts()
    }

    fn numbered(&self) -> impl Iterator<Item = (ClusterId, &Cluster)> {
        // Positions fit: a ClusterId is 16 bits, and the configuration gave one to each cluster.
        (0..=u16::MAX).map(ClusterId).zip(&self.clusters)
    }
}

/// The kinds of objects that a source lists and watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Service,
    EndpointSlice,
    /// Of the MCS API, as the next one.
    ServiceExport,
    ServiceImport,
    /// `ServiceLoad` of `signpost.dev`.
    ServiceLoad,
    /// `ClusterLoad` of `signpost.dev`.
    ClusterLoad,
    /// The heartbeat of a voter's replica.
    Lease,
    /// What a voter's replica says of endpoints: a ConfigMap.
    HealthReport,
    /// What an operator says of the cluster or of one of its services: a ConfigMap.
    Directive,
}

impl Kind {
    pub const ALL: [Kind; 9] = [
        Kind::Service,
        Kind::EndpointSlice,
        Kind::ServiceExport,
        Kind::ServiceImport,
        Kind::ServiceLoad,
        Kind::ClusterLoad,
        Kind::Lease,
        Kind::HealthReport,
        Kind::Directive,
    ];
    /// Without these nothing is known of a cluster.
    pub const CORE: [Kind; 2] = [Kind::Service, Kind::EndpointSlice];

    /// As it is called in Kubernetes.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Service => "Service",
            Kind::EndpointSlice => "EndpointSlice",
            Kind::ServiceExport => "ServiceExport",
            Kind::ServiceImport => "ServiceImport",
            Kind::ServiceLoad => "ServiceLoad",
            Kind::ClusterLoad => "ClusterLoad",
            Kind::Lease => "Lease",
            Kind::HealthReport | Kind::Directive => "ConfigMap",
        }
    }

    /// A metric's label.
    pub fn label(self) -> &'static str {
        match self {
            Kind::Service => "service",
            Kind::EndpointSlice => "endpointslice",
            Kind::ServiceExport => "serviceexport",
            Kind::ServiceImport => "serviceimport",
            Kind::ServiceLoad => "serviceload",
            Kind::ClusterLoad => "clusterload",
            Kind::Lease => "lease",
            Kind::HealthReport => "healthreport",
            Kind::Directive => "directive",
        }
    }

    /// Load comes and goes by itself; it is not for the index to keep.
    pub fn is_load(self) -> bool {
        matches!(self, Kind::ServiceLoad | Kind::ClusterLoad)
    }

    /// Votes count while their voter is heard; they are not for the index to keep either.
    pub fn is_vote(self) -> bool {
        matches!(self, Kind::Lease | Kind::HealthReport)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Object {
    Service(Service),
    Slice(Slice),
    Export(ServiceExport),
    Import(ServiceImport),
    Load(LoadReport),
    Heartbeat(Heartbeat),
    Report(Report),
    Directive(ObjectKey, Directive),
}

/// An object's identity within its cluster, valid or not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectKey {
    #[serde(with = "text")]
    pub namespace: Arc<str>,
    #[serde(with = "text")]
    pub name: Arc<str>,
}

/// What a cluster said under the name of a service, as objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// `None`: only slices came.
    pub service: Option<Service>,
    /// It has a selector and no slice, for so long that it is not ready.
    pub overdue: bool,
    pub slices: Vec<Slice>,
}

/// What a source tells of one cluster. Both kinds of sources say the same things in the same words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Update {
    /// The object is as given.
    Apply(Object),
    /// The object is gone, or no longer exported.
    Delete(Kind, ObjectKey),
    /// A whole list of one kind: what is not in it is gone.
    Reset {
        kind: Kind,
        objects: Vec<Object>,
        /// Objects that are in the list but could not be understood: their last good state stays.
        keep: Vec<ObjectKey>,
    },
}

impl Object {
    pub fn kind(&self) -> Kind {
        match self {
            Object::Service(_) => Kind::Service,
            Object::Slice(_) => Kind::EndpointSlice,
            Object::Export(_) => Kind::ServiceExport,
            Object::Import(_) => Kind::ServiceImport,
            Object::Load(LoadReport { service: Some(_), .. }) => Kind::ServiceLoad,
            Object::Load(LoadReport { service: None, .. }) => Kind::ClusterLoad,
            Object::Heartbeat(_) => Kind::Lease,
            Object::Report(_) => Kind::HealthReport,
            Object::Directive(..) => Kind::Directive,
        }
    }

    pub fn key(&self) -> ObjectKey {
        match self {
            Object::Service(service) => ObjectKey::of(&service.key),
            Object::Slice(slice) => ObjectKey { namespace: slice.namespace.as_str().into(), name: slice.name.clone() },
            Object::Export(export) => ObjectKey::of(&export.key),
            Object::Import(import) => ObjectKey::of(&import.key),
            Object::Load(LoadReport { service: Some(key), .. }) => ObjectKey::of(key),
            Object::Load(LoadReport { service: None, .. }) => {
                ObjectKey { namespace: "".into(), name: CLUSTER_LOAD.into() }
            }
            Object::Directive(key, _) => key.clone(),
            // Of one namespace, which the configuration names.
            Object::Heartbeat(beat) => ObjectKey { namespace: "".into(), name: beat.replica.clone() },
            Object::Report(report) => {
                ObjectKey { namespace: "".into(), name: Report::name(&report.replica, report.shard).into() }
            }
        }
    }
}

/// The only name of a `ClusterLoad`, which is in no namespace.
pub const CLUSTER_LOAD: &str = "cluster";

impl ObjectKey {
    fn of(key: &ServiceKey) -> ObjectKey {
        ObjectKey { namespace: key.namespace.as_str().into(), name: key.name.as_str().into() }
    }
}

impl Update {
    pub fn kind(&self) -> Kind {
        match self {
            Update::Apply(object) => object.kind(),
            Update::Delete(kind, _) | Update::Reset { kind, .. } => *kind,
        }
    }
}

/// With its namespace, if it is in one.
impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.namespace {
            "" => f.write_str(&self.name),
            namespace => write!(f, "{namespace}/{}", self.name),
        }
    }
}

/// How a cluster's services without any EndpointSlice are judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlicePolicy {
    /// A controller makes slices: a Service with a selector and none is not ready after 30 s.
    Expected,
    /// Manifests: ready, if the cluster has no EndpointSlice for any service.
    Optional,
}

/// What is to be known of a cluster to understand what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    pub slices: SlicePolicy,
    /// It has services. If not, nothing need be known of it.
    pub services: bool,
    /// What has a ServiceExport is exported.
    pub by_export: bool,
    /// Whether ServiceExports, or ServiceImports, are listed before the cluster is synced.
    pub exports: bool,
    pub imports: bool,
}

impl From<SlicePolicy> for Policy {
    fn from(slices: SlicePolicy) -> Policy {
        Policy { slices, services: true, by_export: false, exports: false, imports: false }
    }
}

impl Policy {
    fn needs(self, kind: Kind) -> bool {
        match kind {
            Kind::Service | Kind::EndpointSlice => self.services,
            Kind::ServiceExport => self.exports,
            Kind::ServiceImport => self.imports,
            Kind::ServiceLoad | Kind::ClusterLoad | Kind::Lease | Kind::HealthReport | Kind::Directive => false,
        }
    }
}

/// What an update or the passing of time changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The services whose [`Federated`] may have changed, in order, each once.
    pub services: Vec<ServiceKey>,
    /// The cluster has synced with this update: all its kinds were listed once.
    pub synced: Option<ClusterId>,
    /// Something was not taken, as the cluster would have more than it may have.
    pub refused: Option<(ClusterId, Refused)>,
}

/// What is not taken.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refused {
    /// An object: there are as many of its kind as may be.
    Object,
    /// A slice of this service, which would have more endpoints than may be.
    Endpoints(ServiceKey),
}

/// Both are in order, each key once in each; so is what they are together.
fn merged(one: Vec<ServiceKey>, other: Vec<ServiceKey>) -> Vec<ServiceKey> {
    let mut all = Vec::with_capacity(one.len().max(other.len()));
    let (mut one, mut other) = (one.into_iter().peekable(), other.into_iter().peekable());
    while let (Some(a), Some(b)) = (one.peek(), other.peek()) {
        let next = match a.cmp(b) {
            Ordering::Less => one.next(),
            Ordering::Greater => other.next(),
            Ordering::Equal => other.next().and(one.next()),
        };
        all.extend(next);
    }
    all.extend(one);
    all.extend(other);
    all
}

fn each_once(mut keys: Vec<ServiceKey>) -> Vec<ServiceKey> {
    keys.sort();
    keys.dedup();
    keys
}
