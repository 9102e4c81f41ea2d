//! The table: names → ready-made answers. One [`Publisher`] writes, any number of [`Reader`]s read; a reader takes no
//! lock, allocates nothing, and sees a service either as it was or as it is.
//!
//! A service is one entry under `S.N.Z`; what stands to the left of that is found inside the entry. A namespace `N.Z` is
//! an entry that lists nothing. A new configuration makes a new table, which is filled aside and then swapped in.

mod build;
mod compile;
mod random;
mod record;
mod statics;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use foldhash::quality::FixedState;
use papaya::LocalGuard;

pub use compile::{Note, NoteKind};
pub use random::Random;
pub use record::{Extra, Found, Set, Variant, pointer_to};
pub use statics::{Node, Walk, Zone};

use crate::config::{Config, Namespaces};
use crate::location::ClientTable;
use crate::model::{ClusterId, Federated, ServiceKey, View, ViewRule, is_label};
use crate::names::Name;
use crate::wire::Query;
use crate::zonefile::ZoneData;

/// All that answers are made of. Everything but `names` and the sync states is fixed for the table's life.
pub struct Table {
    /// Those with more labels first, so that the first match is the longest.
    zones: Box<[Zone]>,
    names: papaya::HashMap<Box<[u8]>, Entry, FixedState>,
    views: Box<[View]>,
    clients: ClientTable,
    members: Box<[Member]>,
    unsynced: AtomicUsize,
    version: Option<Box<[u8]>>,
    server: Option<Box<[u8]>>,
}

/// What a table knows of a cluster.
struct Member {
    synced: AtomicBool,
    namespaces: Namespaces,
}

enum Entry {
    Service(Record),
    Namespace(ViewSet),
}

/// A service in one zone: which view sees which variant.
struct Record {
    by_view: Box<[u8]>,
    variants: Box<[Variant]>,
}

impl Record {
    /// One octet says which variant a view sees, and this value is taken.
    const INVISIBLE: u8 = u8::MAX;

    fn variant(&self, view: ViewIndex) -> Option<&Variant> {
        match self.by_view[view.0] {
            Record::INVISIBLE => None,
            at => Some(&self.variants[usize::from(at)]),
        }
    }

    fn visible(&self) -> ViewSet {
        let mut set = ViewSet::default();
        for (view, &variant) in self.by_view.iter().enumerate() {
            if variant != Record::INVISIBLE {
                set.insert(view);
            }
        }
        set
    }
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
}

/// The position of a view in the table's views.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ViewIndex(usize);

impl Table {
    fn new(config: &Config, zones: &[ZoneData], seed: u64) -> Table {
        debug_assert_eq!(config.zones.len(), zones.len());
        let mut compiled: Vec<Zone> =
            config.zones.iter().zip(zones).map(|(zone, data)| Zone::new(zone, data, seed)).collect();
        compiled.sort_by_key(|zone| std::cmp::Reverse(zone.label_count()));
        let clients = config.clusters.iter().enumerate();
        let clients = clients.map(|(i, cluster)| (ClusterId(i as u16), &cluster.client_cidrs[..]));
        let members = config
            .clusters
            .iter()
            .map(|cluster| Member { synced: AtomicBool::new(false), namespaces: cluster.namespaces.clone() });
        Table {
            zones: compiled.into(),
            names: papaya::HashMap::with_hasher(FixedState::with_seed(seed)),
            views: config.views().into(),
            clients: ClientTable::new(clients).expect("Config::load refuses overlapping client CIDRs"),
            members: members.collect(),
            unsynced: AtomicUsize::new(config.clusters.len()),
            version: config.identity.version.as_deref().map(|text| text.as_bytes().into()),
            server: config.identity.server.as_deref().map(|text| text.as_bytes().into()),
        }
    }
}

/// The only writer.
pub struct Publisher {
    config: Arc<Config>,
    table: Arc<Table>,
    shared: Arc<ArcSwap<Table>>,
    /// `N.Z` → for each view, how many services it sees there.
    namespaces: HashMap<Name, Vec<u32>>,
    seed: u64,
}

impl Publisher {
    /// `zones`: the data of `config.zones`, in their order. `seed`: random, so that nobody can make names that collide.
    pub fn new(config: Arc<Config>, zones: &[ZoneData], seed: u64) -> (Publisher, Reader) {
        let table = Arc::new(Table::new(&config, zones, seed));
        let shared = Arc::new(ArcSwap::from(table.clone()));
        let reader = Reader { cache: arc_swap::Cache::new(shared.clone()) };
        (Publisher { config, table, shared, namespaces: HashMap::new(), seed }, reader)
    }

    /// Replaces everything at once: a table for `config` is filled with `services`, then swapped in. `synced` says
    /// which of the new clusters need not be waited for.
    pub fn replace(
        &mut self,
        config: Arc<Config>,
        zones: &[ZoneData],
        services: impl Iterator<Item = Federated>,
        synced: impl Fn(ClusterId) -> bool,
    ) -> Vec<(ServiceKey, Vec<Note>)> {
        let table = Arc::new(Table::new(&config, zones, self.seed));
        let shared = self.shared.clone();
        let mut next = Publisher { config, table, shared, namespaces: HashMap::new(), seed: self.seed };
        let mut notes = Vec::new();
        for service in services {
            let said = next.publish(&service.key, Some(&service));
            if !said.is_empty() {
                notes.push((service.key, said));
            }
        }
        for i in 0..next.config.clusters.len() {
            let id = ClusterId(i as u16);
            if synced(id) {
                next.set_synced(id);
            }
        }
        next.shared.store(next.table.clone());
        *self = next;
        notes
    }

    /// Makes a service's answers what `service` says, in every zone; `None`: it is gone.
    pub fn publish(&mut self, key: &ServiceKey, service: Option<&Federated>) -> Vec<Note> {
        let table = self.table.clone();
        let mut notes = Vec::new();
        for zone in table.zones.iter().filter(|zone| zone.is_federation()) {
            let compiled = service.map(|service| compile::compile(service, zone, &self.config, &table.views));
            let record = match compiled {
                Some(Ok(compiled)) => {
                    notes.extend(compiled.notes);
                    compiled.record.map(|record| (compiled.name, record))
                }
                Some(Err(note)) => {
                    notes.push(note);
                    None
                }
                None => None,
            };
            match record {
                Some((name, record)) => self.put(name, record),
                None => self.remove(key, zone),
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

    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }

    /// Names in the table: services and namespaces of all zones.
    pub fn name_count(&self) -> usize {
        self.table.names.len()
    }

    fn put(&mut self, name: Name, record: Record) {
        let table = self.table.clone();
        let names = table.names.pin();
        let before = visible(names.get(name.as_wire()));
        let after = record.visible();
        let namespace = name.parent().expect("a service's name is below its namespace's");
        // The namespace is there before its first service, and until after its last.
        self.count(&namespace, &after, &before, 1);
        names.insert(name.as_wire().into(), Entry::Service(record));
        self.count(&namespace, &before, &after, -1);
    }

    fn remove(&mut self, key: &ServiceKey, zone: &Zone) {
        let Ok(name) = crate::names::service_name(&key.name, &key.namespace, &zone.apex) else { return };
        let table = self.table.clone();
        let names = table.names.pin();
        let before = match names.get(name.as_wire()) {
            entry @ Some(Entry::Service(_)) => visible(entry),
            Some(Entry::Namespace(_)) | None => return,
        };
        names.remove(name.as_wire());
        let namespace = name.parent().expect("a service's name is below its namespace's");
        self.count(&namespace, &before, &ViewSet::default(), -1);
    }

    /// Adds `by` to the namespace's count in the views that are in `these` and not in `but`.
    fn count(&mut self, namespace: &Name, these: &ViewSet, but: &ViewSet, by: i32) {
        let views = self.table.views.len();
        let counts = self.namespaces.entry(namespace.clone()).or_insert_with(|| vec![0; views]);
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
        let names = self.table.names.pin();
        if set.is_empty() {
            self.namespaces.remove(namespace);
            if changed {
                names.remove(namespace.as_wire());
            }
        } else if changed {
            names.insert(namespace.as_wire().into(), Entry::Namespace(set));
        }
    }
}

fn visible(entry: Option<&Entry>) -> ViewSet {
    match entry {
        Some(Entry::Service(record)) => record.visible(),
        Some(Entry::Namespace(_)) | None => ViewSet::default(),
    }
}

/// A way to read the table; each worker has its own.
#[derive(Clone)]
pub struct Reader {
    cache: arc_swap::Cache<Arc<ArcSwap<Table>>, Arc<Table>>,
}

impl Reader {
    /// What is published now, for a batch of queries. It keeps replaced entries alive, so it must not be held while
    /// waiting for anything.
    pub fn enter(&mut self) -> Snapshot<'_> {
        let table: &Table = self.cache.load();
        Snapshot { table, guard: table.names.guard() }
    }
}

pub struct Snapshot<'a> {
    table: &'a Table,
    guard: LocalGuard<'a>,
}

impl Snapshot<'_> {
    /// The zone that is closest above the name. `at_parent`: for a zone's own apex, the zone above it (DS).
    pub fn zone(&self, query: &Query, at_parent: bool) -> Option<&Zone> {
        let count = query.label_count();
        let holds = |zone: &&Zone| {
            let labels = zone.label_count();
            labels <= count && query.suffix(labels) == zone.apex.as_wire()
        };
        let mut zones = self.table.zones.iter().filter(holds);
        let closest = zones.next()?;
        if at_parent && closest.label_count() == count { zones.next().or(Some(closest)) } else { Some(closest) }
    }

    /// The view's variant of the service `name`, which is `S.N.Z` in wire form.
    pub fn service(&self, name: &[u8], view: ViewIndex) -> Option<&Variant> {
        match self.table.names.get(name, &self.guard)? {
            Entry::Service(record) => record.variant(view),
            Entry::Namespace(_) => None,
        }
    }

    /// Whether the view sees a service in the namespace `name`, which is `N.Z` in wire form.
    pub fn has_namespace(&self, name: &[u8], view: ViewIndex) -> bool {
        match self.table.names.get(name, &self.guard) {
            Some(Entry::Namespace(set)) => set.contains(view.0),
            Some(Entry::Service(_)) | None => false,
        }
    }

    /// Whether a cluster that was not heard yet may hold services in this namespace. To be asked before the names are
    /// looked at: a cluster's names are there before it counts as heard.
    pub fn awaits(&self, namespace: &[u8]) -> bool {
        if self.table.unsynced.load(Ordering::Acquire) == 0 || !is_label(namespace) {
            return false;
        }
        let Ok(namespace) = std::str::from_utf8(namespace) else { return false };
        let missing = |member: &&Member| !member.synced.load(Ordering::Acquire);
        self.table.members.iter().filter(missing).any(|member| member.namespaces.allow(namespace))
    }

    /// The view of a client. A query that speaks for others, by a client subnet, is external where the address decides.
    pub fn view(&self, rule: ViewRule, client: std::net::IpAddr, speaks_for_others: bool) -> View {
        match rule {
            ViewRule::Fixed(view) => view,
            ViewRule::BySource if speaks_for_others => View::External,
            ViewRule::BySource => self.table.clients.cluster_of(client).map_or(View::External, View::Internal),
        }
    }

    /// The views of all listeners are in the table, the external one first.
    pub fn view_index(&self, view: View) -> ViewIndex {
        ViewIndex(self.table.views.binary_search(&view).unwrap_or(0))
    }

    pub fn version(&self) -> Option<&[u8]> {
        self.table.version.as_deref()
    }

    pub fn server(&self) -> Option<&[u8]> {
        self.table.server.as_deref()
    }
}
