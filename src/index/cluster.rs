//! One cluster as last heard.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use foldhash::quality::FixedState;

use super::beside::Beside;
use super::losses::LossGuard;
use super::packed::{Addresses, Entries, Entry, Key, Written, service_keys};
use super::share::{Joined, SliceWait, Stored, StoredSlice};
use super::{Kept, Kind, Object, ObjectKey, Policy, Refused, SlicePolicy, Update, each_once, merged};
use crate::courtesy::give_way;
use crate::model::{Exposure, Label, Moment, Service, ServiceExport, ServiceImport, ServiceKey, Slice};

/// How long a share that was ready stays so without the slice that its controller should make. The controller takes
/// well below a second when it is healthy; a minute of a service without endpoints would be too long.
const SLICE_GRACE: Duration = Duration::from_secs(30);
/// How long the last ingress addresses of a LoadBalancer stay after the object lost them: cloud controllers empty
/// the status while they replace a balancer, and the old one mostly still works.
const INGRESS_GRACE: Duration = Duration::from_secs(300);

/// Objects of a list whose entries are looked for before the first of them is entered.
const WARMED_AT_ONCE: usize = 16;

#[derive(Debug)]
pub(super) struct Cluster {
    pub policy: Policy,
    /// Of one service.
    pub most_endpoints: usize,
    /// By [`Kind`]: has it been listed?
    listed: [bool; Kind::ALL.len()],
    entries: Entries,
    /// Where entries are put together.
    buffer: Vec<u8>,
    /// Of `entries`, those with a Service.
    service_count: usize,
    /// Slices in all entries.
    slice_count: usize,
    /// The slices whose names do not say what service they are joined to (see [`stem`]), with that service's name.
    strays: BTreeMap<SliceKey, Label>,
    /// One for each `SliceWait::Until` and each `ingress_until`, and no other.
    deadlines: BTreeSet<(Moment, ServiceKey, Timer)>,
    service_losses: LossGuard<ServiceKey>,
    slice_losses: LossGuard<SliceKey>,
    /// When each was made.
    exports: Beside<u64>,
    imports: Beside<Arc<ServiceImport>>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct SliceKey {
    namespace: Label,
    name: Arc<str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Slices,
    Ingress,
}

/// What one update does while it is entered.
struct Edit {
    now: Moment,
    /// [`Cluster::sliceless_ready`] before the update.
    sliceless_ready: bool,
    /// Whether the cluster had any slice before the update, which names each slice once.
    had_slices: bool,
    /// Whether anybody sees the cluster's services.
    visible: bool,
    changed: Vec<ServiceKey>,
    /// Visible services whose slices are edited, with their readiness before the update: a list may edit several slices
    /// of one service, and what it looks like in between is nobody's business.
    was_ready: HashMap<ServiceKey, bool, FixedState>,
    /// The last thing that was not taken.
    refused: Option<Refused>,
}

/// What an update came to.
pub(super) struct Applied {
    /// The visible ones that changed.
    pub services: Vec<ServiceKey>,
    pub refused: Option<Refused>,
}

impl Edit {
    fn mark(&mut self, key: &ServiceKey) {
        if self.visible {
            self.changed.push(key.clone());
        }
    }

    fn mark_all(&mut self, keys: impl IntoIterator<Item = ServiceKey>) {
        keys.into_iter().for_each(|key| self.mark(&key));
    }

    /// The readiness before the update, of which `ready` is the readiness before this step.
    fn was_ready(&mut self, key: &ServiceKey, ready: bool) -> bool {
        if !self.visible {
            return ready;
        }
        *self.was_ready.entry(key.clone()).or_insert(ready)
    }
}

impl Cluster {
    /// `seed`: of the hash of the entries.
    pub fn new(policy: Policy, seed: u64) -> Cluster {
        Cluster {
            policy,
            most_endpoints: usize::MAX,
            listed: [false; Kind::ALL.len()],
            entries: Entries::new(seed),
            buffer: Vec::new(),
            service_count: 0,
            slice_count: 0,
            strays: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            service_losses: LossGuard::new(),
            slice_losses: LossGuard::new(),
            exports: Beside::new(seed),
            imports: Beside::new(seed),
        }
    }

    pub fn is_synced(&self) -> bool {
        Kind::ALL.into_iter().all(|kind| self.listed[kind as usize] || !self.policy.needs(kind))
    }

    /// For a configuration that wants more of it, it stays as synced as it was: what it did not say before comes with the
    /// next lists.
    pub fn take_policy(&mut self, policy: Policy) {
        if self.is_synced() {
            for kind in Kind::ALL {
                self.listed[kind as usize] |= policy.needs(kind);
            }
        }
        self.policy = policy;
    }

    pub fn has_exports(&self) -> bool {
        !self.exports.is_empty()
    }

    pub fn has_imports(&self) -> bool {
        !self.imports.is_empty()
    }

    pub fn offered(&self, key: &ServiceKey) -> Option<u64> {
        self.exports.get(key).copied()
    }

    pub fn import(&self, key: &ServiceKey) -> Option<&Arc<ServiceImport>> {
        self.imports.get(key)
    }

    /// Of all entries, in no order.
    pub fn names(&self) -> impl Iterator<Item = ServiceKey> {
        self.entries.iter().map(Entry::service_key)
    }

    pub fn kept(&self, key: &ServiceKey) -> Option<Kept> {
        let Joined { service, slices } = self.entries.get(&Key::of(key))?.read();
        Some(Kept {
            overdue: service.as_ref().is_some_and(|service| service.slice_wait == SliceWait::Over),
            service: service.map(|service| service.to_service(key)),
            slices: slices.iter().map(|slice| slice.to_slice(key)).collect(),
        })
    }

    pub fn exports(&self) -> impl Iterator<Item = ServiceExport> {
        self.exports.iter().map(|(key, since)| ServiceExport { key: key.clone(), since: *since })
    }

    pub fn imports(&self) -> impl Iterator<Item = ServiceImport> {
        self.imports.iter().map(|(_, import)| (**import).clone())
    }

    /// The slices of these are not waited for any more.
    pub fn end_waits(&mut self, keys: &[ServiceKey]) {
        for key in keys {
            let octets = Key::of(key);
            let mut joined = self.entries.read(&octets);
            let Some(service) = &mut joined.service else { continue };
            let SliceWait::Until(at) = service.slice_wait else { continue };
            service.slice_wait = SliceWait::Over;
            self.deadlines.remove(&(at, key.clone(), Timer::Slices));
            let entry = Entry::write(&octets, &joined, &mut self.buffer);
            self.entries.put(&octets, entry);
        }
    }

    /// The services that it has, in order.
    pub fn keys(&self) -> Vec<ServiceKey> {
        let services = service_keys(self.entries.iter(), self.service_count);
        if self.imports.is_empty() {
            return services;
        }
        let mut imported: Vec<ServiceKey> = self.imports.keys().cloned().collect();
        imported.sort();
        merged(services, imported)
    }

    pub fn counts(&self) -> (usize, usize) {
        (self.service_count, self.slice_count)
    }

    pub fn entry(&self, key: &Key) -> Option<&Entry> {
        self.entries.get(key)
    }

    pub fn next_deadline(&self) -> Option<Moment> {
        self.deadlines.first().map(|(at, _, _)| *at)
    }

    pub fn held(&self, kind: Kind) -> Option<(usize, Moment)> {
        match kind {
            Kind::Service => self.service_losses.held(),
            Kind::EndpointSlice => self.slice_losses.held(),
            Kind::ServiceExport => self.exports.held(),
            Kind::ServiceImport => self.imports.held(),
            Kind::ServiceLoad | Kind::ClusterLoad | Kind::Lease | Kind::HealthReport | Kind::Directive => None,
        }
    }

    /// Whether the object is not known and there are `limit` of its kind already.
    pub fn is_new_beyond(&self, object: &Object, limit: usize) -> bool {
        match object {
            Object::Service(service) => self.service_count >= limit && !self.has_service(&service.key),
            Object::Slice(slice) => {
                let key = SliceKey { namespace: slice.namespace.clone(), name: slice.name.clone() };
                self.slice_count >= limit && self.owner(&key).is_none()
            }
            Object::Export(export) => self.exports.len() >= limit && self.exports.get(&export.key).is_none(),
            Object::Import(import) => self.imports.len() >= limit && self.imports.get(&import.key).is_none(),
            Object::Load(_) | Object::Heartbeat(_) | Object::Report(_) | Object::Directive(..) => false,
        }
    }

    pub fn apply(&mut self, update: Update, now: Moment) -> Applied {
        let mut edit = self.edit(now);
        match update {
            Update::Apply(Object::Service(service)) => self.apply_service(&service, &mut edit),
            Update::Apply(Object::Slice(slice)) => self.apply_slice(slice, &mut edit),
            Update::Delete(Kind::Service, key) => self.delete_service(&key, &mut edit),
            Update::Delete(Kind::EndpointSlice, key) => self.delete_slice(&key, &mut edit),
            Update::Apply(Object::Export(ServiceExport { key, since })) => {
                if self.exports.put(key.clone(), since) {
                    edit.mark(&key);
                }
            }
            Update::Apply(Object::Import(import)) => {
                let key = import.key.clone();
                if self.imports.put(key.clone(), Arc::new(import)) {
                    edit.mark(&key);
                }
            }
            Update::Delete(Kind::ServiceExport, key) => edit.mark_all(self.exports.delete(&key, now)),
            Update::Delete(Kind::ServiceImport, key) => edit.mark_all(self.imports.delete(&key, now)),
            Update::Reset { kind: Kind::ServiceExport, objects, keep } => {
                let objects = objects.into_iter().filter_map(export);
                edit.mark_all(self.exports.reset(objects, &keep, now));
                self.listed[Kind::ServiceExport as usize] = true;
            }
            Update::Reset { kind: Kind::ServiceImport, objects, keep } => {
                let objects = objects.into_iter().filter_map(import);
                edit.mark_all(self.imports.reset(objects, &keep, now));
                self.listed[Kind::ServiceImport as usize] = true;
            }
            // These are for others to keep.
            Update::Apply(Object::Load(_) | Object::Heartbeat(_) | Object::Report(_) | Object::Directive(..))
            | Update::Delete(
                Kind::ServiceLoad | Kind::ClusterLoad | Kind::Lease | Kind::HealthReport | Kind::Directive,
                _,
            )
            | Update::Reset {
                kind: Kind::ServiceLoad | Kind::ClusterLoad | Kind::Lease | Kind::HealthReport | Kind::Directive,
                ..
            } => {}
            Update::Reset { kind: Kind::Service, objects, keep } => {
                self.reset_services(objects, keep, &mut edit);
                self.listed[Kind::Service as usize] = true;
            }
            Update::Reset { kind: Kind::EndpointSlice, objects, keep } => {
                self.reset_slices(objects, keep, &mut edit);
                if !mem::replace(&mut self.listed[Kind::EndpointSlice as usize], true) {
                    self.start_waiting(now);
                }
            }
        }
        let sliceless_ready = self.sliceless_ready();
        for (key, was_ready) in mem::take(&mut edit.was_ready) {
            let joined = self.entries.get(&Key::of(&key));
            if joined.is_some_and(|joined| joined.read().ready(sliceless_ready) != was_ready) {
                edit.mark(&key);
            }
            give_way();
        }
        if edit.sliceless_ready != sliceless_ready {
            self.mark_sliceless(&mut edit);
        }
        Applied { services: each_once(edit.changed), refused: edit.refused }
    }

    pub fn tick(&mut self, now: Moment) -> Vec<ServiceKey> {
        let mut edit = self.edit(now);
        while self.deadlines.first().is_some_and(|(at, _, _)| *at <= now) {
            let (_, key, timer) = self.deadlines.pop_first().expect("it has a first one");
            let octets = Key::of(&key);
            let mut joined = self.entries.read(&octets);
            let service = joined.service.as_mut().expect("a deadline ends with its service");
            match timer {
                Timer::Slices => {
                    service.slice_wait = SliceWait::Over;
                    if !edit.sliceless_ready {
                        edit.mark(&key);
                    }
                }
                Timer::Ingress => {
                    service.ingress = Addresses::default();
                    service.ingress_until = None;
                    edit.mark(&key);
                }
            }
            let entry = Entry::write(&octets, &joined, &mut self.buffer);
            self.entries.put(&octets, entry);
            give_way();
        }
        self.service_losses.expire(now);
        self.slice_losses.expire(now);
        self.exports.expire(now);
        self.imports.expire(now);
        each_once(edit.changed)
    }

    fn edit(&self, now: Moment) -> Edit {
        let sliceless_ready = self.sliceless_ready();
        let (changed, was_ready) = (Vec::new(), HashMap::default());
        let (had_slices, visible) = (self.slice_count > 0, self.is_synced());
        Edit { now, sliceless_ready, had_slices, visible, changed, was_ready, refused: None }
    }

    /// Whether a Service with a selector and no slice is ready for good: nobody makes slices here.
    pub fn sliceless_ready(&self) -> bool {
        match self.policy.slices {
            SlicePolicy::Expected => false,
            SlicePolicy::Optional => self.slice_count == 0,
        }
    }

    /// The first slice of the cluster came, or its last one went: the readiness of all that have none turns, except
    /// where it is granted anyway. This looks at every service of the cluster; it happens to manifests only.
    fn mark_sliceless(&self, edit: &mut Edit) {
        for entry in self.entries.iter() {
            if entry.read().service.is_some_and(|service| service.slice_wait == SliceWait::Over) {
                edit.mark(&entry.service_key());
            }
        }
    }

    /// The first list of slices shows who has none. Before it nobody's slices are missing, however long it takes.
    fn start_waiting(&mut self, now: Moment) {
        let without: Vec<ServiceKey> =
            self.entries.iter().filter(|entry| entry.read().lacks_slices()).map(Entry::service_key).collect();
        for key in without {
            let octets = Key::of(&key);
            let mut joined = self.entries.read(&octets);
            settle(&mut joined, &key, true, true, now, &mut self.deadlines);
            let entry = Entry::write(&octets, &joined, &mut self.buffer);
            self.entries.put(&octets, entry);
        }
    }

    fn has_service(&self, key: &ServiceKey) -> bool {
        self.entries.get(&Key::of(key)).is_some_and(Entry::has_service)
    }

    fn apply_service(&mut self, service: &Service, edit: &mut Edit) {
        let key = &service.key;
        self.service_losses.found(key);
        let octets = Key::of(key);
        let written = Written::service(service);
        let mut joined = self.entries.read(&octets);
        let heard = written.as_service();
        if joined.service.as_ref().is_some_and(|old| old.is_from(&heard)) {
            return;
        }
        let was_ready = joined.service.is_none() || joined.ready(edit.sliceless_ready);
        joined.service = Some(match joined.service.take() {
            None => {
                self.service_count += 1;
                heard
            }
            Some(old) => replaced(&old, heard, key, edit.now, &mut self.deadlines),
        });
        let slices_listed = self.listed[Kind::EndpointSlice as usize];
        settle(&mut joined, key, slices_listed, was_ready, edit.now, &mut self.deadlines);
        let entry = Entry::write(&octets, &joined, &mut self.buffer);
        self.entries.put(&octets, entry);
        edit.mark(key);
    }

    fn delete_service(&mut self, key: &ObjectKey, edit: &mut Edit) {
        // What is no label was never stored.
        let Some(key) = service_key(key) else { return };
        if self.has_service(&key) && self.service_losses.delete(&key, self.service_count, edit.now) {
            self.remove_service(&key, edit);
        }
    }

    /// The Service is gone at once, graces and all; its slices stay until they are deleted themselves.
    fn remove_service(&mut self, key: &ServiceKey, edit: &mut Edit) {
        let octets = Key::of(key);
        let mut joined = self.entries.read(&octets);
        let Some(service) = joined.service.take() else { return };
        if let SliceWait::Until(at) = service.slice_wait {
            self.deadlines.remove(&(at, key.clone(), Timer::Slices));
        }
        if let Some(at) = service.ingress_until {
            self.deadlines.remove(&(at, key.clone(), Timer::Ingress));
        }
        let entry = Entry::write(&octets, &joined, &mut self.buffer);
        self.entries.put(&octets, entry);
        self.service_count -= 1;
        edit.mark(key);
    }

    fn reset_services(&mut self, objects: Vec<Object>, keep: Vec<ObjectKey>, edit: &mut Edit) {
        let services = objects.into_iter().filter_map(|object| match object {
            Object::Service(service) => Some(service),
            _ => None,
        });
        let services = last_of_each(services.collect(), |a, b| a.key.cmp(&b.key));
        let missing = if self.service_count == 0 {
            Vec::new()
        } else {
            let mut listed: HashSet<(&[u8], &[u8]), FixedState> = services
                .iter()
                .map(|service| (service.key.namespace.as_bytes(), service.key.name.as_bytes()))
                .collect();
            listed.extend(keep.iter().map(|key| (key.namespace.as_bytes(), key.name.as_bytes())));
            service_keys(self.entries.iter().filter(|entry| !listed.contains(&entry.labels())), 0)
        };
        let gone = self.service_losses.list(missing, self.service_count, edit.now);
        let key = |service: &Service| Key::of(&service.key);
        self.apply_all(services, key, |cluster, service| cluster.apply_service(&service, edit));
        for key in gone {
            self.remove_service(&key, edit);
            give_way();
        }
    }

    /// Applies a list's objects, each to the entry with its key.
    fn apply_all<T>(&mut self, objects: Vec<T>, key: impl Fn(&T) -> Key, mut apply: impl FnMut(&mut Cluster, T)) {
        self.entries.reserve(objects.len().saturating_sub(self.entries.len()));
        let (mut objects, mut keys) = (objects.into_iter(), Vec::new());
        while !objects.as_slice().is_empty() {
            keys.clear();
            keys.extend(objects.as_slice().iter().take(WARMED_AT_ONCE).map(&key));
            self.entries.warm(&keys);
            objects.by_ref().take(WARMED_AT_ONCE).for_each(|object| apply(self, object));
            give_way();
        }
    }

    /// The name of the service that a slice is joined to.
    fn owner<'a>(&'a self, key: &'a SliceKey) -> Option<&'a str> {
        if let Some(owner) = self.strays.get(key) {
            return Some(owner.as_str());
        }
        let stem = stem(&key.name)?;
        let entry = self.entries.get(&Key::from_octets(key.namespace.as_bytes(), stem.as_bytes())?)?;
        entry.slices().any(|slice| slice.name == &*key.name).then_some(stem)
    }

    fn apply_slice(&mut self, slice: Slice, edit: &mut Edit) {
        let written = Written::slice(&slice);
        let Slice { namespace, name, service, .. } = slice;
        let key = SliceKey { namespace, name };
        self.slice_losses.found(&key);
        if self.are_too_many(&Key::of_labels(&key.namespace, &service), &written.as_slice()) {
            edit.refused = Some(Refused::Endpoints(ServiceKey { namespace: key.namespace, name: service }));
            return;
        }
        // The first list has a million slices of which none is known.
        match edit.had_slices.then(|| self.owner(&key)).flatten() {
            Some(owner) if owner == service.as_str() => {}
            None => {
                self.slice_count += 1;
                self.note_stray(&key, &service);
            }
            Some(left) => {
                let left = Label::again(left.as_bytes());
                self.take_slice(&key, left, edit);
                self.strays.remove(&key);
                self.note_stray(&key, &service);
            }
        }
        let owner = ServiceKey { namespace: key.namespace, name: service };
        self.edit_slices(&owner, SliceChange::Put(written.as_slice()), edit);
    }

    /// Whether a service would have more endpoints than it may have, with this slice in the place of what it was.
    fn are_too_many(&self, owner: &Key, slice: &StoredSlice<'_>) -> bool {
        let others = || self.entries.get(owner).into_iter().flat_map(Entry::slices).filter(|s| s.name != slice.name);
        let most = || others().map(|slice| slice.endpoints.most()).sum::<usize>() + slice.endpoints.most();
        // Nearly always that is enough, and it looks at no endpoint.
        most() > self.most_endpoints
            && others().map(|slice| slice.endpoints.iter().count()).sum::<usize>() + slice.endpoints.iter().count()
                > self.most_endpoints
    }

    fn note_stray(&mut self, key: &SliceKey, owner: &Label) {
        if stem(&key.name) != Some(owner.as_str()) {
            self.strays.insert(key.clone(), owner.clone());
        }
    }

    fn delete_slice(&mut self, key: &ObjectKey, edit: &mut Edit) {
        let Some(key) = slice_key(key) else { return };
        if self.owner(&key).is_some() && self.slice_losses.delete(&key, self.slice_count, edit.now) {
            self.remove_slice(&key, edit);
        }
    }

    fn remove_slice(&mut self, key: &SliceKey, edit: &mut Edit) {
        let Some(owner) = self.owner(key) else { return };
        let owner = Label::again(owner.as_bytes());
        self.strays.remove(key);
        self.slice_count -= 1;
        self.take_slice(key, owner, edit);
    }

    /// Out of the entry of the service that it is joined to.
    fn take_slice(&mut self, key: &SliceKey, owner: Label, edit: &mut Edit) {
        let owner = ServiceKey { namespace: key.namespace.clone(), name: owner };
        self.edit_slices(&owner, SliceChange::Take(&key.name), edit);
    }

    fn reset_slices(&mut self, objects: Vec<Object>, keep: Vec<ObjectKey>, edit: &mut Edit) {
        let slices = objects.into_iter().filter_map(|object| match object {
            Object::Slice(slice) => Some(slice),
            _ => None,
        });
        let slices = last_of_each(slices.collect(), |a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        let missing = if self.slice_count == 0 {
            Vec::new()
        } else {
            let mut listed: HashSet<(&[u8], &str), FixedState> =
                slices.iter().map(|slice| (slice.namespace.as_bytes(), &*slice.name)).collect();
            listed.extend(keep.iter().map(|key| (key.namespace.as_bytes(), &*key.name)));
            self.slices_without(&listed)
        };
        let gone = self.slice_losses.list(missing, self.slice_count, edit.now);
        let key = |slice: &Slice| Key::of_labels(&slice.namespace, &slice.service);
        self.apply_all(slices, key, |cluster, slice| cluster.apply_slice(slice, edit));
        for key in gone {
            self.remove_slice(&key, edit);
            give_way();
        }
    }

    /// The slices that were not listed, in order.
    fn slices_without(&self, listed: &HashSet<(&[u8], &str), FixedState>) -> Vec<SliceKey> {
        let mut missing = Vec::new();
        for entry in self.entries.iter() {
            let (namespace, _) = entry.labels();
            for slice in entry.read().slices {
                if !listed.contains(&(namespace, slice.name)) {
                    missing.push(SliceKey { namespace: Label::again(namespace), name: slice.name.into() });
                }
            }
        }
        missing.sort();
        missing
    }

    /// Changes the slices under one service name. Behind a virtual address only readiness shows, which is compared when
    /// the update is done: that spares a rebuild for nearly every pod that comes and goes.
    fn edit_slices(&mut self, key: &ServiceKey, change: SliceChange<'_>, edit: &mut Edit) {
        let octets = Key::of(key);
        let mut joined = self.entries.read(&octets);
        let ready = joined.ready(edit.sliceless_ready);
        match change {
            SliceChange::Put(slice) => match joined.position(slice.name) {
                Ok(at) if joined.slices[at] == slice => return,
                Ok(at) => joined.slices[at] = slice,
                Err(at) => joined.slices.insert(at, slice),
            },
            SliceChange::Take(name) => joined.slices.retain(|slice| slice.name != name),
        }
        let was_ready = edit.was_ready(key, ready);
        let slices_listed = self.listed[Kind::EndpointSlice as usize];
        settle(&mut joined, key, slices_listed, was_ready, edit.now, &mut self.deadlines);
        if joined.is_headless() {
            edit.mark(key);
        }
        let entry = Entry::write(&octets, &joined, &mut self.buffer);
        self.entries.put(&octets, entry);
    }
}

enum SliceChange<'a> {
    Put(StoredSlice<'a>),
    Take(&'a str),
}

/// Brings `slice_wait` and its deadline in line with the selector and the slices.
///
/// Whoever comes to have a selector and no slice (a new Service, the last slice deleted, a selector added) and was ready
/// stays so for [`SLICE_GRACE`]: controllers replace slices, and ours is only a view of their work. Who was not
/// ready does not become so by losing a slice. A new Service counts as having been ready.
fn settle(
    joined: &mut Joined<'_>,
    key: &ServiceKey,
    slices_listed: bool,
    was_ready: bool,
    now: Moment,
    deadlines: &mut BTreeSet<(Moment, ServiceKey, Timer)>,
) {
    let lacks_slices = slices_listed && joined.lacks_slices();
    let Some(service) = &mut joined.service else { return };
    match (service.slice_wait, lacks_slices) {
        (SliceWait::NotNeeded, false) | (SliceWait::Until(_) | SliceWait::Over, true) => {}
        (SliceWait::NotNeeded, true) if was_ready => {
            let until = now + SLICE_GRACE;
            service.slice_wait = SliceWait::Until(until);
            deadlines.insert((until, key.clone(), Timer::Slices));
        }
        (SliceWait::NotNeeded, true) => service.slice_wait = SliceWait::Over,
        (SliceWait::Until(at), false) => {
            service.slice_wait = SliceWait::NotNeeded;
            deadlines.remove(&(at, key.clone(), Timer::Slices));
        }
        (SliceWait::Over, false) => service.slice_wait = SliceWait::NotNeeded,
    }
}

/// The new object in the place of the old one: an emptied ingress keeps its last addresses for [`INGRESS_GRACE`], from
/// when it was emptied, as long as the Service is a LoadBalancer.
fn replaced<'a>(
    old: &Stored<'a>,
    new: Stored<'a>,
    key: &ServiceKey,
    now: Moment,
    deadlines: &mut BTreeSet<(Moment, ServiceKey, Timer)>,
) -> Stored<'a> {
    let mut new = Stored { slice_wait: old.slice_wait, ..new };
    let both = [old.exposure, new.exposure] == [Exposure::LoadBalancer; 2];
    let is_empty = |service: &Stored<'_>| service.ingress.is_empty() && service.hostnames.is_empty();
    if both && is_empty(&new) && !is_empty(old) {
        (new.ingress, new.hostnames) = (old.ingress, old.hostnames);
        let until = old.ingress_until.unwrap_or(now + INGRESS_GRACE);
        new.ingress_until = Some(until);
        deadlines.insert((until, key.clone(), Timer::Ingress));
    } else if let Some(until) = old.ingress_until {
        deadlines.remove(&(until, key.clone(), Timer::Ingress));
    }
    new
}

/// What Kubernetes makes the names of a service's slices from: `orders-x7k2p` is one of `orders`. That spares a map from
/// a million slices to their services; a slice that is named otherwise is one of [`Cluster::strays`].
fn stem(slice: &str) -> Option<&str> {
    slice.rsplit_once('-').map(|(stem, _)| stem)
}

pub(super) fn service_key(key: &ObjectKey) -> Option<ServiceKey> {
    Some(ServiceKey { namespace: Label::parse(&key.namespace).ok()?, name: Label::parse(&key.name).ok()? })
}

fn export(object: Object) -> Option<(ServiceKey, u64)> {
    match object {
        Object::Export(ServiceExport { key, since }) => Some((key, since)),
        _ => None,
    }
}

fn import(object: Object) -> Option<(ServiceKey, Arc<ServiceImport>)> {
    match object {
        Object::Import(import) => Some((import.key.clone(), Arc::new(import))),
        _ => None,
    }
}

fn slice_key(key: &ObjectKey) -> Option<SliceKey> {
    Some(SliceKey { namespace: Label::parse(&key.namespace).ok()?, name: key.name.clone() })
}

/// In order. A list that names an object twice means its later state.
fn last_of_each<T>(mut objects: Vec<T>, order: impl Fn(&T, &T) -> Ordering) -> Vec<T> {
    // As an API server lists them.
    if objects.is_sorted_by(|a, b| order(a, b).is_lt()) {
        return objects;
    }
    // Stable, so that the last of equals comes first after the reversal.
    objects.reverse();
    objects.sort_by(&order);
    objects.dedup_by(|later, first| order(later, first).is_eq());
    objects
}
