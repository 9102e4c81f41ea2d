//! One cluster as last heard.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use super::losses::LossGuard;
use super::share::{Joined, SliceWait, Stored, StoredSlice};
use super::{Kind, Object, ObjectKey, SlicePolicy, Update};
use crate::model::{ClusterId, Exposure, Label, Moment, Service, ServiceKey, Share, Slice};

/// How long a share that was ready stays so without the slice that its controller should make. The controller takes
/// well below a second when it is healthy; a minute of a service without endpoints would be too long.
const SLICE_GRACE: Duration = Duration::from_secs(30);
/// How long the last ingress addresses of a LoadBalancer stay after the object lost them: cloud controllers empty
/// the status while they replace a balancer, and the old one mostly still works.
const INGRESS_GRACE: Duration = Duration::from_secs(300);

#[derive(Debug)]
pub(super) struct Cluster {
    pub policy: SlicePolicy,
    /// By [`Kind`]: has it been listed?
    listed: [bool; Kind::ALL.len()],
    joined: BTreeMap<ServiceKey, Joined>,
    /// Of `joined`, those with a Service.
    service_count: usize,
    /// Every slice with the name of the service that it is joined to.
    slice_owners: BTreeMap<SliceKey, Label>,
    /// One for each `SliceWait::Until` and each `ingress_until`, and no other.
    deadlines: BTreeSet<(Moment, ServiceKey, Timer)>,
    service_losses: LossGuard<ServiceKey>,
    slice_losses: LossGuard<SliceKey>,
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
    /// Whether anybody sees the cluster's services.
    visible: bool,
    changed: BTreeSet<ServiceKey>,
    /// Visible services whose slices are edited, with their readiness before the update: a list may edit several slices
    /// of one service, and what it looks like in between is nobody's business.
    was_ready: BTreeMap<ServiceKey, bool>,
}

impl Edit {
    fn mark(&mut self, key: &ServiceKey) {
        if self.visible {
            self.changed.insert(key.clone());
        }
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
    pub fn new(policy: SlicePolicy) -> Cluster {
        Cluster {
            policy,
            listed: [false; Kind::ALL.len()],
            joined: BTreeMap::new(),
            service_count: 0,
            slice_owners: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            service_losses: LossGuard::new(),
            slice_losses: LossGuard::new(),
        }
    }

    pub fn is_synced(&self) -> bool {
        self.listed.iter().all(|listed| *listed)
    }

    pub fn keys(&self) -> impl Iterator<Item = &ServiceKey> {
        self.joined.iter().filter(|(_, joined)| joined.service.is_some()).map(|(key, _)| key)
    }

    pub fn counts(&self) -> (usize, usize) {
        (self.service_count, self.slice_owners.len())
    }

    pub fn share(&self, id: ClusterId, key: &ServiceKey) -> Option<Share> {
        self.joined.get(key)?.share(id, self.sliceless_ready())
    }

    pub fn next_deadline(&self) -> Option<Moment> {
        self.deadlines.first().map(|(at, _, _)| *at)
    }

    pub fn held(&self, kind: Kind) -> Option<(usize, Moment)> {
        match kind {
            Kind::Service => self.service_losses.held(),
            Kind::EndpointSlice => self.slice_losses.held(),
        }
    }

    /// Whether the object is not known and there are `limit` of its kind already.
    pub fn is_new_beyond(&self, object: &Object, limit: usize) -> bool {
        match object {
            Object::Service(service) => {
                let known = |key| self.joined.get(key).is_some_and(|joined| joined.service.is_some());
                self.service_count >= limit && !known(&service.key)
            }
            Object::Slice(slice) => {
                let key = SliceKey { namespace: slice.namespace.clone(), name: slice.name.clone() };
                self.slice_owners.len() >= limit && !self.slice_owners.contains_key(&key)
            }
        }
    }

    /// Gives the visible services that changed.
    pub fn apply(&mut self, update: Update, now: Moment) -> BTreeSet<ServiceKey> {
        let mut edit = self.edit(now);
        match update {
            Update::Apply(Object::Service(service)) => self.apply_service(service, &mut edit),
            Update::Apply(Object::Slice(slice)) => self.apply_slice(slice, &mut edit),
            Update::Delete(Kind::Service, key) => self.delete_service(&key, &mut edit),
            Update::Delete(Kind::EndpointSlice, key) => self.delete_slice(&key, &mut edit),
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
            let joined = self.joined.get(&key);
            if joined.is_some_and(|joined| joined.ready(sliceless_ready) != was_ready) {
                edit.mark(&key);
            }
        }
        if edit.sliceless_ready != sliceless_ready {
            self.mark_sliceless(&mut edit);
        }
        edit.changed
    }

    pub fn tick(&mut self, now: Moment) -> BTreeSet<ServiceKey> {
        let mut edit = self.edit(now);
        while self.deadlines.first().is_some_and(|(at, _, _)| *at <= now) {
            let (_, key, timer) = self.deadlines.pop_first().expect("it has a first one");
            let joined = self.joined.get_mut(&key).expect("a deadline ends with its service");
            let service = joined.service.as_mut().expect("a deadline ends with its service");
            match timer {
                Timer::Slices => {
                    service.slice_wait = SliceWait::Over;
                    if !edit.sliceless_ready {
                        edit.mark(&key);
                    }
                }
                Timer::Ingress => {
                    service.ingress = Vec::new();
                    service.ingress_until = None;
                    edit.mark(&key);
                }
            }
        }
        self.service_losses.expire(now);
        self.slice_losses.expire(now);
        edit.changed
    }

    fn edit(&self, now: Moment) -> Edit {
        let sliceless_ready = self.sliceless_ready();
        let (changed, was_ready) = (BTreeSet::new(), BTreeMap::new());
        Edit { now, sliceless_ready, visible: self.is_synced(), changed, was_ready }
    }

    /// Whether a Service with a selector and no slice is ready for good: nobody makes slices here.
    fn sliceless_ready(&self) -> bool {
        match self.policy {
            SlicePolicy::Expected => false,
            SlicePolicy::Optional => self.slice_owners.is_empty(),
        }
    }

    /// The first slice of the cluster came, or its last one went: the readiness of all that have none turns, except
    /// where it is granted anyway. This looks at every service of the cluster; it happens to manifests only.
    fn mark_sliceless(&self, edit: &mut Edit) {
        for (key, joined) in &self.joined {
            let over = joined.service.as_ref().is_some_and(|service| service.slice_wait == SliceWait::Over);
            if over {
                edit.mark(key);
            }
        }
    }

    /// The first list of slices shows who has none. Before it nobody's slices are missing, however long it takes.
    fn start_waiting(&mut self, now: Moment) {
        for (key, joined) in &mut self.joined {
            settle(joined, key, true, true, now, &mut self.deadlines);
        }
    }

    fn apply_service(&mut self, service: Service, edit: &mut Edit) {
        self.service_losses.found(&service.key);
        let key = service.key.clone();
        let slices_listed = self.listed[Kind::EndpointSlice as usize];
        let joined = self.joined.entry(key.clone()).or_default();
        if joined.service.as_ref().is_some_and(|old| old.is_from(&service)) {
            return;
        }
        let was_ready = joined.service.is_none() || joined.ready(edit.sliceless_ready);
        let stored = match joined.service.take() {
            None => {
                self.service_count += 1;
                fresh(service)
            }
            Some(old) => replaced(old, service, edit.now, &mut self.deadlines),
        };
        joined.service = Some(stored);
        settle(joined, &key, slices_listed, was_ready, edit.now, &mut self.deadlines);
        edit.mark(&key);
    }

    fn delete_service(&mut self, key: &ObjectKey, edit: &mut Edit) {
        // What is no label was never stored.
        let Some(key) = service_key(key) else { return };
        let known = self.joined.get(&key).is_some_and(|joined| joined.service.is_some());
        if known && self.service_losses.delete(&key, self.service_count, edit.now) {
            self.remove_service(&key, edit);
        }
    }

    /// The Service is gone at once, graces and all; its slices stay until they are deleted themselves.
    fn remove_service(&mut self, key: &ServiceKey, edit: &mut Edit) {
        let Some(joined) = self.joined.get_mut(key) else { return };
        let Some(service) = joined.service.take() else { return };
        if let SliceWait::Until(at) = service.slice_wait {
            self.deadlines.remove(&(at, key.clone(), Timer::Slices));
        }
        if let Some(at) = service.ingress_until {
            self.deadlines.remove(&(at, key.clone(), Timer::Ingress));
        }
        if joined.is_empty() {
            self.joined.remove(key);
        }
        self.service_count -= 1;
        edit.mark(key);
    }

    fn reset_services(&mut self, objects: Vec<Object>, keep: Vec<ObjectKey>, edit: &mut Edit) {
        let services = objects.into_iter().filter_map(|object| match object {
            Object::Service(service) => Some(service),
            Object::Slice(_) => None,
        });
        let services = last_of_each(services.collect(), |service| &service.key);
        let keep = sorted(keep.iter().filter_map(service_key));
        let is_listed = |key: &ServiceKey| {
            services.binary_search_by(|service| service.key.cmp(key)).is_ok() || keep.binary_search(key).is_ok()
        };
        let missing = self.keys().filter(|key| !is_listed(key)).cloned().collect();
        let gone = self.service_losses.list(missing, self.service_count, edit.now);
        for service in services {
            self.apply_service(service, edit);
        }
        for key in gone {
            self.remove_service(&key, edit);
        }
    }

    fn apply_slice(&mut self, slice: Slice, edit: &mut Edit) {
        let Slice { namespace, name, service, endpoints, ports } = slice;
        let mut key = SliceKey { namespace: namespace.clone(), name };
        self.slice_losses.found(&key);
        let mut owner = ServiceKey { namespace, name: service };
        match self.slice_owners.get(&key) {
            Some(label) if *label == owner.name => {}
            moved => {
                let left = moved.map(|label| ServiceKey { namespace: key.namespace.clone(), name: label.clone() });
                if let Some(left) = left {
                    self.edit_slices(&left, edit, |slices| slices.retain(|slice| slice.name != key.name));
                }
                // The names of a million slices are shared with their services.
                if let Some((shared, _)) = self.joined.get_key_value(&owner) {
                    owner = shared.clone();
                    key.namespace = shared.namespace.clone();
                }
                self.slice_owners.insert(key.clone(), owner.name.clone());
            }
        }
        let slice = StoredSlice { name: key.name, endpoints, ports };
        let old = self.joined.get(&owner).and_then(|joined| {
            let at = joined.slices.binary_search_by(|old| old.name.cmp(&slice.name)).ok()?;
            Some(&joined.slices[at])
        });
        if old == Some(&slice) {
            return;
        }
        self.edit_slices(&owner, edit, |slices| match slices.binary_search_by(|old| old.name.cmp(&slice.name)) {
            Ok(at) => slices[at] = slice,
            Err(at) => slices.insert(at, slice),
        });
    }

    fn delete_slice(&mut self, key: &ObjectKey, edit: &mut Edit) {
        let Some(key) = slice_key(key) else { return };
        let known = self.slice_owners.contains_key(&key);
        if known && self.slice_losses.delete(&key, self.slice_owners.len(), edit.now) {
            self.remove_slice(&key, edit);
        }
    }

    fn remove_slice(&mut self, key: &SliceKey, edit: &mut Edit) {
        let Some(name) = self.slice_owners.remove(key) else { return };
        let owner = ServiceKey { namespace: key.namespace.clone(), name };
        self.edit_slices(&owner, edit, |slices| slices.retain(|slice| slice.name != key.name));
    }

    fn reset_slices(&mut self, objects: Vec<Object>, keep: Vec<ObjectKey>, edit: &mut Edit) {
        let slices = objects.into_iter().filter_map(|object| match object {
            Object::Slice(slice) => {
                Some((SliceKey { namespace: slice.namespace.clone(), name: slice.name.clone() }, slice))
            }
            Object::Service(_) => None,
        });
        let slices = last_of_each(slices.collect(), |(key, _)| key);
        let keep = sorted(keep.iter().filter_map(slice_key));
        let is_listed = |key: &SliceKey| {
            slices.binary_search_by(|(listed, _)| listed.cmp(key)).is_ok() || keep.binary_search(key).is_ok()
        };
        let missing = self.slice_owners.keys().filter(|key| !is_listed(key)).cloned().collect();
        let gone = self.slice_losses.list(missing, self.slice_owners.len(), edit.now);
        for (_, slice) in slices {
            self.apply_slice(slice, edit);
        }
        for key in gone {
            self.remove_slice(&key, edit);
        }
    }

    /// Changes the slices under one service name. Behind a virtual address only readiness shows, which is compared when
    /// the update is done: that spares a rebuild for nearly every pod that comes and goes.
    fn edit_slices(&mut self, key: &ServiceKey, edit: &mut Edit, change: impl FnOnce(&mut Vec<StoredSlice>)) {
        let slices_listed = self.listed[Kind::EndpointSlice as usize];
        let joined = self.joined.entry(key.clone()).or_default();
        let was_ready = edit.was_ready(key, joined.ready(edit.sliceless_ready));
        change(&mut joined.slices);
        settle(joined, key, slices_listed, was_ready, edit.now, &mut self.deadlines);
        if joined.is_headless() {
            edit.mark(key);
        }
        if joined.is_empty() {
            self.joined.remove(key);
        }
    }
}

/// Brings `slice_wait` and its deadline in line with the selector and the slices.
///
/// Whoever comes to have a selector and no slice (a new Service, the last slice deleted, a selector added) and was ready
/// stays so for [`SLICE_GRACE`]: controllers replace slices, and ours is only a view of their work. Who was not
/// ready does not become so by losing a slice. A new Service counts as having been ready.
fn settle(
    joined: &mut Joined,
    key: &ServiceKey,
    slices_listed: bool,
    was_ready: bool,
    now: Moment,
    deadlines: &mut BTreeSet<(Moment, ServiceKey, Timer)>,
) {
    let Some(service) = &mut joined.service else { return };
    let lacks_slices = slices_listed && service.has_selector && joined.slices.is_empty();
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

fn fresh(service: Service) -> Stored {
    let Service { key: _, exposure, cluster_address, ingress, ports, has_selector } = service;
    let slice_wait = SliceWait::NotNeeded;
    Stored { exposure, cluster_address, ingress, ingress_until: None, ports, has_selector, slice_wait }
}

/// The new object in the place of the old one: an emptied ingress keeps its last addresses for [`INGRESS_GRACE`], from
/// when it was emptied, as long as the Service is a LoadBalancer.
fn replaced(
    old: Stored,
    service: Service,
    now: Moment,
    deadlines: &mut BTreeSet<(Moment, ServiceKey, Timer)>,
) -> Stored {
    let key = service.key.clone();
    let mut new = Stored { slice_wait: old.slice_wait, ..fresh(service) };
    let both = [old.exposure, new.exposure] == [Exposure::LoadBalancer; 2];
    if both && new.ingress.is_empty() && !old.ingress.is_empty() {
        new.ingress = old.ingress;
        let until = old.ingress_until.unwrap_or(now + INGRESS_GRACE);
        new.ingress_until = Some(until);
        deadlines.insert((until, key, Timer::Ingress));
    } else if let Some(until) = old.ingress_until {
        deadlines.remove(&(until, key, Timer::Ingress));
    }
    new
}

fn service_key(key: &ObjectKey) -> Option<ServiceKey> {
    Some(ServiceKey { namespace: Label::parse(&key.namespace).ok()?, name: Label::parse(&key.name).ok()? })
}

fn slice_key(key: &ObjectKey) -> Option<SliceKey> {
    Some(SliceKey { namespace: Label::parse(&key.namespace).ok()?, name: key.name.clone() })
}

fn sorted<K: Ord>(keys: impl Iterator<Item = K>) -> Vec<K> {
    let mut keys: Vec<K> = keys.collect();
    keys.sort();
    keys
}

/// In the order of their keys. A list that names an object twice means its later state.
fn last_of_each<T, K: Ord>(mut objects: Vec<T>, key: impl Fn(&T) -> &K) -> Vec<T> {
    // Stable, so that the last of equals comes first after the reversal.
    objects.reverse();
    objects.sort_by(|a, b| key(a).cmp(key(b)));
    objects.dedup_by(|later, first| key(later) == key(first));
    objects
}
