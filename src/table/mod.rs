//! The table: names → what answers are made from. One [`Publisher`] writes, any number of [`Reader`]s read; a reader takes
//! no lock, allocates nothing, and sees a service either as it was or as it is.
//!
//! A service is one entry under its zone and `S.N` (`record.rs`); what stands to the left of that is found inside the entry
//! (`compose.rs`). A namespace is an entry under its zone and `N` that lists nothing. What concerns a whole cluster or view
//! stands beside the entries, once. A new configuration makes a new table, which is filled aside and then swapped in.

mod arena;
mod atlas;
mod compile;
mod compose;
mod explain;
mod exports;
mod map;
mod random;
mod ready;
mod record;
mod statics;

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use foldhash::quality::FixedState;
use ipnet::IpNet;

pub use crate::location::Begun;
pub use atlas::{Atlas, Cartographer, Layer, Origin, clients, inline_places};
pub use compile::{Note, NoteKind, Outlook};
pub use compose::{Chance, EXPLAIN, Found, Scratch, Set, Sight, client_number};
pub use explain::{Candidate, CandidateSight, ServiceSight};
pub use random::Random;
pub use ready::{Extra, Ready, RrSets};
pub use record::Record;
pub use statics::{NegativeSoa, Node, Policy, Walk, Zone};

use compile::Compiler;
use compose::Perspective;
use exports::Exports;
use map::Key;
use record::{NAMESPACE, Settings};

use crate::config::{Config, Namespaces};
use crate::load::Shedding;
use crate::location::ClientTable;
use crate::model::{ClusterId, Federated, Label, ServiceKey, View, ViewRule, is_label};
use crate::names::write_service_name;
use crate::ranking::{Reach, reach};
use crate::wire::Query;
use crate::zonefile::ZoneData;

/// Most octets of one set: with header, question and OPT it fits into a stream's 65,535.
const MAX_SET: usize = 64_000;
/// Octets of a record before its RDATA, with a pointer as owner: 2 + 2 + 2 + 4 + 2.
const FIXED: usize = 12;
/// Seconds: less is not worth an answer.
pub const MIN_TTL: u32 = 5;
/// Most addresses of one target among the additional records.
const MAX_EXTRA: usize = 255;

/// Most addresses of a family in one set.
const fn most_addresses(v4: bool) -> usize {
    MAX_SET / (FIXED + if v4 { 4 } else { 16 })
}

/// All that answers are made of. Everything but `names` and the sync states is fixed for the table's life.
pub struct Table {
    /// Those with more labels first, so that the first match is the longest.
    zones: Box<[Zone]>,
    names: map::Map,
    /// Seeded at random, so that nobody can make names that collide.
    hash: FixedState,
    seed: u64,
    views: Box<[View]>,
    /// By cluster; the external view of one whose view nobody has.
    internal: Box<[ViewIndex]>,
    /// For each view, what each cluster is to it.
    reach: Box<[Box<[Reach]>]>,
    clients: ClientTable,
    /// Who may ask why.
    explain_to: Box<[IpNet]>,
    /// Of clients outside. Replaced as a whole when what is known of places changes.
    atlas: ArcSwap<Atlas>,
    members: Box<[Member]>,
    unsynced: AtomicUsize,
    /// Which clusters are registered is not known yet, but what they may hold.
    unlisted: Option<Namespaces>,
    /// Clusters of which some traffic is to go elsewhere, or that are silent.
    swayed: AtomicUsize,
    /// Clusters that are answered for as they were remembered.
    remembered: AtomicUsize,
    version: Option<Box<[u8]>>,
    server: Option<Box<[u8]>>,
}

/// What a table knows of a cluster.
struct Member {
    name: Label,
    /// The name in wire form, without the root.
    wire: Box<[u8]>,
    synced: AtomicBool,
    remembered: AtomicBool,
    namespaces: Namespaces,
    /// The bits of a [`Shedding`] and [`SILENT`] in one word. 0: nothing is the matter with it.
    sway: AtomicU16,
}

/// In a [`Member`]'s word: its API says nothing any more.
const SILENT: u16 = 1 << 9;

impl Member {
    #[inline]
    fn shedding(&self) -> Shedding {
        Shedding::from_bits(self.sway.load(Ordering::Relaxed))
    }

    #[inline]
    fn is_silent(&self) -> bool {
        self.sway.load(Ordering::Relaxed) & SILENT != 0
    }
}

/// The zones of one name differ in every bit of it.
#[inline]
fn hash(state: &FixedState, key: Key<'_>) -> u64 {
    let mut hasher = state.build_hasher();
    hasher.write(key.name);
    hasher.finish() ^ u64::from(key.zone).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// The entry of a namespace: which views see a service in it.
fn namespace_entry(key: Key<'_>, views: &ViewSet) -> Vec<u8> {
    let mut octets = Vec::new();
    map::put_head(&mut octets, key, NAMESPACE, [0; 2]);
    octets.extend(views.0.iter().flat_map(|word| word.to_le_bytes()));
    octets
}

/// `None`: the entry is no namespace.
fn namespace_views(octets: &[u8]) -> Option<ViewSet> {
    if octets[1] != NAMESPACE {
        return None;
    }
    let words = octets[map::name_end(octets)..].chunks_exact(8);
    let mut set = ViewSet::default();
    for (word, octets) in set.0.iter_mut().zip(words) {
        *word = u64::from_le_bytes(octets.try_into().expect("chunks of eight"));
    }
    Some(set)
}

/// A set of positions in `Table::views`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct ViewSet([u64; 4]);

impl ViewSet {
    fn insert(&mut self, view: usize) {
        self.0[view / 64] |= 1 << (view % 64);
    }

    fn contains(&self, view: usize) -> bool {
        self.0[view / 64] >> (view % 64) & 1 == 1
    }

    fn is_empty(&self) -> bool {
        self.0 == [0; 4]
    }

    fn is_subset(&self, of: &ViewSet) -> bool {
        self.0.iter().zip(of.0).all(|(these, those)| these & !those == 0)
    }
}

/// Where answers are looked at from: a view, and for clients outside their place.
#[derive(Debug, Clone, Copy)]
pub struct Vantage<'a> {
    view: ViewIndex,
    /// By cluster.
    reach: &'a [Reach],
    scope: u8,
}

impl<'a> Vantage<'a> {
    /// By cluster, what each is to it.
    pub fn reach(&self) -> &'a [Reach] {
        self.reach
    }

    /// For how many bits of the client's subnet what is ordered by place is the same (RFC 7871 section 7.2.1).
    #[inline]
    pub fn scope(&self) -> u8 {
        self.scope
    }
}

/// The position of a view in the table's views.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ViewIndex(usize);

/// It is always there, and the first in order.
const EXTERNAL: ViewIndex = ViewIndex(0);

impl Table {
    fn new(config: &Config, zones: &[ZoneData], seed: u64) -> (Table, map::Writer) {
        debug_assert_eq!(config.zones.len(), zones.len());
        let mut compiled: Vec<Zone> = (0..)
            .zip(&config.zones)
            .zip(zones)
            .flat_map(|((n, zone), data)| Zone::all_of(n, zone, data, seed))
            .collect();
        compiled.sort_by_key(|zone| std::cmp::Reverse(zone.label_count()));
        for (number, zone) in (0..=u8::MAX).zip(&mut compiled) {
            zone.number = number;
        }
        let clients = config.clusters.iter().enumerate();
        let clients = clients.map(|(i, cluster)| (ClusterId(i as u16), &cluster.client_cidrs[..]));
        let members = config.clusters.iter().map(|cluster| Member {
            name: cluster.name.clone(),
            wire: [&[cluster.name.as_bytes().len() as u8], cluster.name.as_bytes()].concat().into(),
            synced: AtomicBool::new(false),
            remembered: AtomicBool::new(false),
            namespaces: cluster.namespaces.clone(),
            sway: AtomicU16::new(0),
        });
        let views = config.views();
        let internal = |n| views.binary_search(&View::Internal(ClusterId(n as u16))).map_or(EXTERNAL, ViewIndex);
        let state = FixedState::with_seed(seed);
        let (names, writer) = map::new(Box::new({
            let state = state.clone();
            move |key| hash(&state, key)
        }));
        let unlisted = config.cluster_secrets.as_ref().filter(|secrets| !secrets.listed);
        let unlisted = unlisted.map(|secrets| secrets.namespaces.clone());
        let table = Table {
            zones: compiled.into(),
            names,
            hash: state,
            seed,
            reach: views.iter().map(|&view| reach(view, config)).collect(),
            atlas: ArcSwap::from_pointee(Atlas::new(config, Layer::new(), Vec::new())),
            internal: (0..config.clusters.len()).map(internal).collect(),
            views: views.into(),
            clients: ClientTable::new(clients).expect("Config::load refuses overlapping client CIDRs"),
            explain_to: config.explain_to.as_slice().into(),
            members: members.collect(),
            unsynced: AtomicUsize::new(config.clusters.len() + usize::from(unlisted.is_some())),
            unlisted,
            swayed: AtomicUsize::new(0),
            remembered: AtomicUsize::new(0),
            version: config.identity.version.as_deref().map(|text| text.as_bytes().into()),
            server: config.identity.server.as_deref().map(|text| text.as_bytes().into()),
        };
        (table, writer)
    }
}

/// The only writer.
pub struct Publisher {
    config: Arc<Config>,
    table: Arc<Table>,
    entries: Entries,
    shared: Arc<ArcSwap<Table>>,
    compiler: Compiler,
    /// The name that is being published, in wire form.
    name: Vec<u8>,
    label: Option<Box<Labels>>,
}

/// See [`Publisher::label_zones`].
type Labels = dyn Fn(&str) -> u8 + Send + Sync;

impl Publisher {
    /// `zones`: the data of `config.zones`, in their order. `seed`: random, so that nobody can make names that collide.
    pub fn new(config: Arc<Config>, zones: &[ZoneData], seed: u64) -> (Publisher, Reader) {
        let (table, names) = Table::new(&config, zones, seed);
        let table = Arc::new(table);
        let shared = Arc::new(ArcSwap::from(table.clone()));
        let reader = Reader { shared: shared.clone() };
        (Publisher::of(config, table, names, shared), reader)
    }

    fn of(config: Arc<Config>, table: Arc<Table>, names: map::Writer, shared: Arc<ArcSwap<Table>>) -> Publisher {
        let namespaces = table.zones.iter().map(|_| HashMap::with_hasher(table.hash.clone())).collect();
        let entries = Entries { names, namespaces };
        Publisher { config, table, entries, shared, compiler: Compiler::default(), name: Vec::new(), label: None }
    }

    /// Replaces everything at once: a table for `config`, which `fill` publishes all services in, is swapped in when it is
    /// full. `synced` says which of the new clusters need not be waited for. Gives the old table.
    pub fn replace(
        &mut self,
        config: Arc<Config>,
        zones: &[ZoneData],
        fill: impl FnOnce(&mut Publisher),
        synced: impl Fn(ClusterId) -> bool,
    ) -> Retired {
        let (table, names) = Table::new(&config, zones, self.table.seed);
        let mut next = Publisher::of(config, Arc::new(table), names, self.shared.clone());
        next.label = self.label.take();
        next.put_labels();
        fill(&mut next);
        for i in 0..next.config.clusters.len() {
            let id = ClusterId(i as u16);
            if synced(id) {
                next.set_synced(id);
            }
        }
        let old = next.shared.swap(next.table.clone());
        *self = next;
        Retired(old)
    }

    /// Makes a service's answers what `service` says, in every zone; `None`: it is gone. Nothing else is known of it.
    pub fn publish(&mut self, key: &ServiceKey, service: Option<&Federated>) -> Vec<Note> {
        self.publish_with(key, service, &Outlook::FAIR)
    }

    /// The same, with what is known of its load and health.
    pub fn publish_with(&mut self, key: &ServiceKey, service: Option<&Federated>, outlook: &Outlook<'_>) -> Vec<Note> {
        let Publisher { config, table, entries, compiler, name, .. } = self;
        let mut notes = Vec::new();
        let mut exports = Exports::of(service, config);
        for zone in table.zones.iter().filter(|zone| zone.is_federation()) {
            let service = match zone.is_mcs() {
                true => exports.in_mcs(&mut notes),
                false => exports.in_federation(),
            };
            if write_service_name(name, &key.name, &key.namespace, &zone.apex).is_err() {
                // It was never put in.
                notes.extend(service.map(|_| Note::LongName { zone: zone.apex.clone(), what: key.to_string() }));
                continue;
            }
            let key = zone.key(name);
            let hash = hash(&table.hash, key);
            entries.names.prefetch(hash);
            match service.map(|service| compiler.compile(service, name, zone, config, outlook)) {
                Some(Ok(compiled)) => {
                    let views = table.views_of(compiled.record);
                    if views.is_empty() {
                        entries.remove(table, hash, key);
                    } else {
                        notes.extend(compiled.notes);
                        entries.put(table, hash, compiled.record, &views);
                    }
                }
                Some(Err(note)) => {
                    notes.push(note);
                    entries.remove(table, hash, key);
                }
                None => entries.remove(table, hash, key),
            }
        }
        notes.sort();
        notes.dedup();
        notes
    }

    /// The cluster was heard in full: what it does not have does not exist.
    pub fn set_synced(&mut self, cluster: ClusterId) {
        let member = &self.table.members[cluster.index()];
        if !member.synced.swap(true, Ordering::AcqRel) {
            self.table.unsynced.fetch_sub(1, Ordering::Release);
        }
    }

    /// Whether the cluster is answered for as an earlier process heard it: its answers say so (RFC 8914, Stale Answer).
    pub fn set_remembered(&mut self, cluster: ClusterId, remembered: bool) {
        let before = self.table.members[cluster.index()].remembered.swap(remembered, Ordering::AcqRel);
        match (before, remembered) {
            (false, true) => self.table.remembered.fetch_add(1, Ordering::Release),
            (true, false) => self.table.remembered.fetch_sub(1, Ordering::Release),
            _ => 0,
        };
    }

    /// What is to be done about the load of a cluster as a whole. No record is made anew.
    pub fn set_shedding(&mut self, cluster: ClusterId, shedding: Shedding) {
        self.set_sway(cluster, !SILENT, shedding.to_bits());
    }

    /// Whether the cluster's API says nothing any more: what it said last may not be so, and in each band others come first. No
    /// record is made anew.
    pub fn set_silent(&mut self, cluster: ClusterId, silent: bool) {
        self.set_sway(cluster, SILENT, if silent { SILENT } else { 0 });
    }

    /// Sets these bits of the cluster's word.
    fn set_sway(&mut self, cluster: ClusterId, mask: u16, bits: u16) {
        let word = &self.table.members[cluster.index()].sway;
        let before = word.load(Ordering::Relaxed);
        let after = before & !mask | bits;
        word.store(after, Ordering::Release);
        match (before, after) {
            (0, 1..) => self.table.swayed.fetch_add(1, Ordering::Release),
            (1.., 0) => self.table.swayed.fetch_sub(1, Ordering::Release),
            _ => 0,
        };
    }

    /// Makes room for so many services in all, which are about to be published: growing is slow and better done once.
    pub fn reserve(&mut self, services: usize) {
        let zones = self.table.zones.iter().filter(|zone| zone.is_federation()).count();
        self.entries.names.reserve(services * zones);
    }

    /// What counts a zone's answers, by its name in the configuration: from now on, and for the zones of later configurations.
    pub fn label_zones(&mut self, label: impl Fn(&str) -> u8 + Send + Sync + 'static) {
        self.label = Some(Box::new(label));
        self.put_labels();
    }

    fn put_labels(&self) {
        let Some(label) = &self.label else { return };
        for zone in &self.table.zones {
            zone.set_label(label(&self.config.zones[zone.place].name.to_string()));
        }
    }

    /// Sets what is known of places, before anybody reads it. `atlas` is for the clusters of this publisher's configuration.
    pub fn set_atlas(&mut self, atlas: Atlas) {
        self.table.atlas.store(Arc::new(atlas));
    }

    /// For whoever learns of new places later, until [`replace`](Publisher::replace).
    pub fn cartographer(&self) -> Cartographer {
        Cartographer(self.shared.clone())
    }

    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }

    /// Names in the table: services and namespaces of all zones.
    pub fn name_count(&self) -> usize {
        self.entries.names.len()
    }
}

/// What was replaced, and may still be read for a moment. To free it takes milliseconds: whoever drops it waits until nobody else
/// has it, or it would be freed by the worker that leaves it last, in the midst of its queries.
#[must_use = "a worker would have to free it"]
pub struct Retired(Arc<dyn Send + Sync>);

impl Retired {
    /// Nobody reads it any more, and nobody can again.
    pub fn is_unused(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

/// What is written to, with what the writer alone has to know of it.
struct Entries {
    names: map::Writer,
    /// For each zone, N → for each view, how many services it sees there.
    namespaces: Vec<HashMap<Box<[u8]>, Vec<u32>, FixedState>>,
}

impl Entries {
    /// `after`: the views that see the service of this record.
    fn put(&mut self, table: &Table, hash: u64, record: &[u8], after: &ViewSet) {
        let key = map::key_of(record);
        let before = match self.names.get(hash, key) {
            // A cluster that is listed again mostly says what it said before.
            Some(entry) if entry == record => return,
            Some(entry) => table.views_of(entry),
            None => ViewSet::default(),
        };
        let namespace = parent(key);
        // The namespace is there before its first service, and until after its last.
        self.count(table, namespace, after, &before, 1);
        self.names.insert(hash, record);
        self.count(table, namespace, &before, after, -1);
    }

    fn remove(&mut self, table: &Table, hash: u64, key: Key<'_>) {
        let Some(entry) = self.names.get(hash, key).filter(|entry| Record::new(entry).is_some()) else { return };
        let before = table.views_of(entry);
        self.names.remove(hash, key);
        self.count(table, parent(key), &before, &ViewSet::default(), -1);
    }

    /// Adds `by` to the namespace's count in the views that are in `these` and not in `but`.
    fn count(&mut self, table: &Table, namespace: Key<'_>, these: &ViewSet, but: &ViewSet, by: i32) {
        if these.is_subset(but) {
            return;
        }
        let zone = &mut self.namespaces[usize::from(namespace.zone)];
        if !zone.contains_key(namespace.name) {
            zone.insert(namespace.name.into(), vec![0; table.views.len()]);
        }
        let counts = zone.get_mut(namespace.name).expect("it was put in if it was not there");
        let mut set = ViewSet::default();
        let mut changed = false;
        for (view, count) in counts.iter_mut().enumerate() {
            if these.contains(view) && !but.contains(view) {
                let was = *count > 0;
                *count = count.saturating_add_signed(by);
                changed |= was != (*count > 0);
            }
            if *count > 0 {
                set.insert(view);
            }
        }
        if set.is_empty() {
            zone.remove(namespace.name);
            if changed {
                self.names.remove(hash(&table.hash, namespace), namespace);
            }
        } else if changed {
            self.names.insert(hash(&table.hash, namespace), &namespace_entry(namespace, &set));
        }
    }
}

/// The namespace of a service.
fn parent(service: Key<'_>) -> Key<'_> {
    Key { name: &service.name[1 + usize::from(service.name[0])..], ..service }
}

impl Table {
    /// The views that a service exists for: if any cluster publishes it to others, all; else those of its own clusters,
    /// and those that reach its pods. An entry that is no service is seen by none.
    fn views_of(&self, entry: &[u8]) -> ViewSet {
        let mut set = ViewSet::default();
        let Some(record) = Record::new(entry) else { return set };
        let exposed = record.candidates().any(|candidate| candidate.has(record::flag::EXPOSED));
        for (view, reach) in self.reach.iter().enumerate() {
            let mut candidates = record.candidates();
            if exposed || candidates.any(|candidate| candidate.is_seen_from(reach[candidate.cluster().index()])) {
                set.insert(view);
            }
        }
        set
    }
}

/// A way to read the table; each worker has its own.
#[derive(Clone)]
pub struct Reader {
    shared: Arc<ArcSwap<Table>>,
}

impl Reader {
    /// Calls `read` with what is published, for a batch of queries. Replaced entries stay alive meanwhile, so `read` must
    /// not wait for anything.
    pub fn with<T>(&self, read: impl FnOnce(&Snapshot<'_>) -> T) -> T {
        let table = self.shared.load();
        let atlas = table.atlas.load();
        let anywhere = atlas.anywhere();
        read(&Snapshot { names: table.names.enter(), table: &table, atlas: &atlas, anywhere })
    }
}

/// What is published now: a service that changes while this is read is seen as it was or as it is.
pub struct Snapshot<'a> {
    table: &'a Table,
    atlas: &'a Atlas,
    /// What each cluster is to any client outside, if that does not go by place.
    anywhere: Option<&'a [Reach]>,
    names: map::Pinned<'a>,
}

/// The position of a zone in the table's zones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ZoneIndex(usize);

/// The hash of a name, for [`Snapshot::service`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NameHash(u64);

impl Snapshot<'_> {
    /// The zone that is closest above the name.
    pub fn zone(&self, query: &Query) -> Option<ZoneIndex> {
        self.find_zone(query).map(|(index, _)| index)
    }

    /// The same, with the zone itself.
    #[inline(always)]
    pub fn find_zone(&self, query: &Query) -> Option<(ZoneIndex, &Zone)> {
        for (n, zone) in self.table.zones.iter().enumerate() {
            if zone.holds(query) {
                return Some((ZoneIndex(n), zone));
            }
        }
        None
    }

    /// The same, but for a zone's own apex the zone above it, if that is ours: who answers for DS.
    pub fn zone_of_ds(&self, query: &Query) -> Option<ZoneIndex> {
        let closest = self.zone(query)?;
        let zones = &self.table.zones[closest.0..];
        let is_apex = zones[0].label_count() == query.label_count();
        let parent = zones[1..].iter().position(|zone| is_apex && zone.holds(query));
        Some(parent.map_or(closest, |n| ZoneIndex(closest.0 + 1 + n)))
    }

    #[inline]
    pub fn zone_at(&self, index: ZoneIndex) -> &Zone {
        &self.table.zones[index.0]
    }

    /// Of a name in this zone: the labels in front of the zone's own.
    #[inline]
    pub fn hash(&self, zone: &Zone, name: &[u8]) -> NameHash {
        NameHash(hash(&self.table.hash, Key { zone: zone.number, name }))
    }

    /// A hint that a name will be looked up, to be given some queries ahead.
    #[inline]
    pub fn prefetch_slot(&self, hash: NameHash) {
        self.names.prefetch_slot(hash.0);
    }

    /// The same again, some queries after [`prefetch_slot`](Snapshot::prefetch_slot) and some before the lookup. `ports`: these are
    /// looked at, too.
    #[inline]
    pub fn prefetch_entry(&self, hash: NameHash, ports: bool) {
        self.names.prefetch_entry(hash.0, ports);
    }

    /// A hint that a [`vantage`](Snapshot::vantage) will be asked for, to be given some queries ahead.
    #[inline]
    pub fn prefetch_place(&self, origin: Origin<'_>) {
        if self.anywhere.is_none() {
            self.atlas.prefetch_first(origin);
        }
    }

    /// The same again, some queries after [`prefetch_place`](Snapshot::prefetch_place) and some before the vantage. What it
    /// gives says the vantage how far it got: see [`Origin::with`].
    #[inline]
    pub fn prefetch_order(&self, origin: Origin<'_>) -> Option<Begun> {
        self.anywhere.is_none().then(|| self.atlas.prefetch_second(origin))
    }

    /// The service `name`, which is `S.N` in wire form; see [`Sight`].
    #[inline]
    pub fn service(&self, hash: NameHash, zone: &Zone, name: &[u8]) -> Option<Record<'_>> {
        self.names.get(hash.0, Key { zone: zone.number, name }).and_then(Record::new)
    }

    /// A record as it is seen from there.
    #[inline(always)]
    pub fn sight<'s>(&'s self, record: Record<'s>, zone: &'s Zone, vantage: Vantage<'s>) -> Sight<'s> {
        let policy = &zone.policy;
        let of_view = |external, internal| if vantage.view == EXTERNAL { external } else { internal };
        let (ttl, cut) = match record.settings() {
            None => (policy.ttl, of_view(policy.external, policy.internal)),
            Some(Settings { ttl, external, internal, .. }) => (ttl, of_view(external, internal)),
        };
        let (reach, members, apex) = (vantage.reach, &self.table.members, zone.apex.as_wire());
        let calm = self.table.swayed.load(Ordering::Relaxed) == 0;
        let (families, inside, mcs) = (policy.families, vantage.view != EXTERNAL, zone.is_mcs());
        let perspective = Perspective { reach, members, calm, families, ttl, cut, inside, mcs, apex };
        Sight::new(record, perspective)
    }

    /// Whether the client at `address` may ask for [`EXPLAIN`].
    pub fn explains_to(&self, address: IpAddr) -> bool {
        self.table.explain_to.iter().any(|cidr| cidr.contains(&address.to_canonical()))
    }

    /// Whether clients with this vantage are refused whatever is in the zone.
    #[inline]
    pub fn refuses(&self, zone: &Zone, vantage: Vantage<'_>) -> bool {
        zone.is_for_insiders() && vantage.view == EXTERNAL
    }

    /// Whether the view sees a service in the namespace `name`, which is a label with its length.
    pub fn has_namespace(&self, zone: &Zone, name: &[u8], vantage: Vantage<'_>) -> bool {
        let entry = self.names.get(self.hash(zone, name).0, Key { zone: zone.number, name });
        entry.and_then(namespace_views).is_some_and(|views| views.contains(vantage.view.0))
    }

    /// Whether there is a cluster that is [`remembered`](Publisher::set_remembered).
    #[inline]
    pub fn remembers_any(&self) -> bool {
        self.table.remembered.load(Ordering::Relaxed) != 0
    }

    /// Whether such a cluster has this service.
    #[inline]
    pub fn remembers(&self, record: Record<'_>) -> bool {
        self.remembers_any() && self.is_remembered(record)
    }

    #[cold]
    #[inline(never)]
    fn is_remembered(&self, record: Record<'_>) -> bool {
        let is_so = |cluster: ClusterId| self.table.members[cluster.index()].remembered.load(Ordering::Relaxed);
        record.candidates().any(|candidate| is_so(candidate.cluster()))
    }

    /// Whether there is a cluster that was not heard yet; see [`awaits`](Snapshot::awaits).
    #[inline]
    pub fn awaits_any(&self) -> bool {
        self.table.unsynced.load(Ordering::Acquire) != 0
    }

    /// Whether a cluster that was not heard yet may hold services in this namespace. To be asked before the names are
    /// looked at: a cluster's names are there before it counts as heard.
    pub fn awaits(&self, namespace: &[u8]) -> bool {
        if !is_label(namespace) {
            return false;
        }
        let Ok(namespace) = std::str::from_utf8(namespace) else { return false };
        let missing = |member: &&Member| !member.synced.load(Ordering::Acquire);
        let unlisted = self.table.unlisted.as_ref().is_some_and(|namespaces| namespaces.allow(namespace));
        unlisted || self.table.members.iter().filter(missing).any(|member| member.namespaces.allow(namespace))
    }

    /// The view of a client. A query that speaks for others, by a client subnet, is external where the address decides.
    #[inline(always)]
    pub fn view(&self, rule: ViewRule, client: &IpAddr, speaks_for_others: bool) -> View {
        match rule {
            ViewRule::Fixed(view) => view,
            ViewRule::BySource if speaks_for_others => View::External,
            ViewRule::BySource => self.table.clients.cluster_of(*client).map_or(View::External, View::Internal),
        }
    }

    /// Where a client looks at answers from. The views of all listeners are in the table.
    #[inline(always)]
    pub fn vantage(&self, view: View, origin: Origin<'_>) -> Vantage<'_> {
        let (view, reach, scope) = match view {
            View::External => {
                let (reach, scope) = match self.anywhere {
                    Some(reach) => (reach, 0),
                    None => self.atlas.look_up(origin),
                };
                (EXTERNAL, reach, scope)
            }
            View::Internal(cluster) => {
                let view = self.table.internal.get(cluster.index()).copied().unwrap_or(EXTERNAL);
                (view, &*self.table.reach[view.0], 0)
            }
        };
        Vantage { view, reach, scope }
    }

    pub fn version(&self) -> Option<&[u8]> {
        self.table.version.as_deref()
    }

    pub fn server(&self) -> Option<&[u8]> {
        self.table.server.as_deref()
    }
}
