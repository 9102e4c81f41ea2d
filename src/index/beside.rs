//! Objects that stand beside the services, of which only some have one.

use std::collections::{HashMap, HashSet};

use foldhash::quality::FixedState;

use super::ObjectKey;
use super::cluster::service_key;
use super::losses::LossGuard;
use crate::model::{Moment, ServiceKey};

#[derive(Debug)]
pub(super) struct Beside<T> {
    objects: HashMap<ServiceKey, T, FixedState>,
    losses: LossGuard<ServiceKey>,
}

impl<T: PartialEq> Beside<T> {
    pub fn new(seed: u64) -> Beside<T> {
        Beside { objects: HashMap::with_hasher(FixedState::with_seed(seed)), losses: LossGuard::new() }
    }

    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    pub fn len(&self) -> usize {
        self.objects.len()
    }

    pub fn get(&self, key: &ServiceKey) -> Option<&T> {
        self.objects.get(key)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&ServiceKey, &T)> {
        self.objects.iter()
    }

    pub fn keys(&self) -> impl Iterator<Item = &ServiceKey> {
        self.objects.keys()
    }

    /// Whether that changes anything.
    pub fn put(&mut self, key: ServiceKey, object: T) -> bool {
        self.losses.found(&key);
        if self.objects.get(&key) == Some(&object) {
            return false;
        }
        self.objects.insert(key, object);
        true
    }

    /// Gives what is gone.
    pub fn delete(&mut self, key: &ObjectKey, now: Moment) -> Option<ServiceKey> {
        // What is no label was never stored.
        let key = service_key(key).filter(|key| self.objects.contains_key(key))?;
        self.losses.delete(&key, self.objects.len(), now).then(|| {
            self.objects.remove(&key);
            key
        })
    }

    /// A whole list; `keep`: what is in it too, and could not be understood. Gives what has changed.
    pub fn reset(
        &mut self,
        listed: impl Iterator<Item = (ServiceKey, T)>,
        keep: &[ObjectKey],
        now: Moment,
    ) -> Vec<ServiceKey> {
        let listed: Vec<(ServiceKey, T)> = listed.collect();
        let keep: Vec<ServiceKey> = keep.iter().filter_map(service_key).collect();
        let known: HashSet<&ServiceKey, FixedState> = listed.iter().map(|(key, _)| key).chain(&keep).collect();
        let mut missing: Vec<ServiceKey> = self.keys().filter(|key| !known.contains(key)).cloned().collect();
        missing.sort();
        let mut changed = self.losses.list(missing, self.objects.len(), now);
        for key in &changed {
            self.objects.remove(key);
        }
        keep.iter().for_each(|key| self.losses.found(key));
        for (key, object) in listed {
            if self.put(key.clone(), object) {
                changed.push(key);
            }
        }
        changed
    }

    pub fn held(&self) -> Option<(usize, Moment)> {
        self.losses.held()
    }

    pub fn expire(&mut self, now: Moment) {
        self.losses.expire(now);
    }
}
