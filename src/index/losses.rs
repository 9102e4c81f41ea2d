//! Mass loss: an API server that lost its data, a store restored from an old backup or an emptied directory looks just
//! like an operator who deleted everything. So a loss of most objects is believed only when it is said twice.
//!
//! The rule, for the objects of one kind in one cluster:
//!
//! * An object is *taken* when a deletion names it, or a list lacks it, and it has not come back. Taken objects count
//!   for [`WINDOW`], those that are held for as long as they are held.
//! * The *base* is the number of objects just before the oldest loss that counts.
//! * A loss is *held* (the object stays as it is) if with it at least [`LEAST`] objects and more than half of
//!   the base are taken. A list is judged as a whole: all that it lacks goes, or nothing of it. A deletion is judged
//!   by itself, so that of creeping deletions those up to the half are through and those after it are held.
//! * With a base below [`LEAST`] nothing is ever held: where a handful of objects live, half of them come and
//!   go in ordinary work.
//! * A held loss is *released* by a list that comes [`CONFIRM`] or more after it and still lacks the object. Such a
//!   list settles what was lost so far: what it lacks besides, and what goes later, counts anew.
//! * A held object that is applied, listed, or listed but not understood is not lost any more.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::Moment;

/// Losses within this time are seen as one event.
const WINDOW: Duration = Duration::from_secs(60);
/// Fewer losses than this are never a mass loss.
const LEAST: usize = 10;
/// How much later a list must be to confirm a loss: longer than an API server's restart from an empty cache.
const CONFIRM: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub struct LossGuard<K> {
    /// Losses of the last [`WINDOW`] that went through. At most half of the base, or [`LEAST`].
    recent: Log<K>,
    /// At most all objects.
    held: Log<K>,
    next: u64,
}

impl<K: Ord + Clone> Default for LossGuard<K> {
    fn default() -> Self {
        LossGuard::new()
    }
}

impl<K: Ord + Clone> LossGuard<K> {
    pub fn new() -> Self {
        LossGuard { recent: Log::new(), held: Log::new(), next: 0 }
    }

    /// A deletion of an object that is one of `present`. Whether it may go now.
    pub fn delete(&mut self, key: &K, present: usize, now: Moment) -> bool {
        self.expire(now);
        if self.held.contains(key) {
            return false;
        }
        self.judge(vec![key.clone()], present, now).is_some()
    }

    /// A list that lacks `missing`, all of them among the `present`, in ascending order. Gives those that go now.
    pub fn list(&mut self, missing: Vec<K>, present: usize, now: Moment) -> Vec<K> {
        debug_assert!(missing.is_sorted());
        self.expire(now);
        self.held.retain(|key| missing.binary_search(key).is_ok());
        let fresh: Vec<K> = missing.into_iter().filter(|key| !self.held.contains(key)).collect();
        let mut gone = self.held.take_until(|loss| loss.at + CONFIRM <= now);
        if !gone.is_empty() {
            self.recent = Log::new();
        }
        let present = present - gone.len();
        gone.extend(self.judge(fresh, present, now).unwrap_or_default());
        gone
    }

    /// The object exists.
    pub fn found(&mut self, key: &K) {
        self.recent.remove(key);
        self.held.remove(key);
    }

    /// Forgets the losses that do not count any more.
    pub fn expire(&mut self, now: Moment) {
        self.recent.take_until(|loss| loss.at + WINDOW <= now);
    }

    /// How many losses are held, and when to ask for a list.
    ///
    /// That is when the youngest can be released, so that one list settles an ordinary case; but while deletions
    /// go on, not later than when the oldest is twice as old as it must be. So such lists are at least
    /// [`CONFIRM`] apart: what is left after one is younger than that.
    pub fn held(&self) -> Option<(usize, Moment)> {
        let oldest = self.held.oldest()?.at;
        let youngest = self.held.youngest()?.at;
        Some((self.held.len(), (youngest + CONFIRM).min(oldest + CONFIRM + CONFIRM)))
    }

    /// Enters new losses, and gives them back if they may go.
    fn judge(&mut self, fresh: Vec<K>, present: usize, now: Moment) -> Option<Vec<K>> {
        let taken = self.recent.len() + self.held.len() + fresh.len();
        let oldest = self.recent.first().into_iter().chain(self.held.first()).min_by_key(|(number, _)| *number);
        let base = oldest.map_or(present, |(_, loss)| loss.before);
        let hold = base >= LEAST && taken >= LEAST && taken > base / 2;
        for key in &fresh {
            let loss = Loss { key: key.clone(), at: now, before: present };
            if hold { &mut self.held } else { &mut self.recent }.insert(self.next, loss);
            self.next += 1;
        }
        (!hold).then_some(fresh)
    }
}

#[derive(Debug)]
struct Loss<K> {
    key: K,
    at: Moment,
    /// The number of objects when this was still one of them.
    before: usize,
}

/// Losses by age, each object at most once.
#[derive(Debug)]
struct Log<K> {
    /// By running number: several losses may share a moment, and the first of them knows the base.
    by_age: BTreeMap<u64, Loss<K>>,
    by_key: BTreeMap<K, u64>,
}

impl<K: Ord + Clone> Log<K> {
    fn new() -> Self {
        Log { by_age: BTreeMap::new(), by_key: BTreeMap::new() }
    }

    fn len(&self) -> usize {
        self.by_age.len()
    }

    fn contains(&self, key: &K) -> bool {
        self.by_key.contains_key(key)
    }

    fn first(&self) -> Option<(u64, &Loss<K>)> {
        self.by_age.first_key_value().map(|(number, loss)| (*number, loss))
    }

    fn oldest(&self) -> Option<&Loss<K>> {
        self.by_age.values().next()
    }

    fn youngest(&self) -> Option<&Loss<K>> {
        self.by_age.values().next_back()
    }

    fn insert(&mut self, number: u64, loss: Loss<K>) {
        if let Some(earlier) = self.by_key.insert(loss.key.clone(), number) {
            self.by_age.remove(&earlier);
        }
        self.by_age.insert(number, loss);
    }

    fn remove(&mut self, key: &K) {
        if let Some(number) = self.by_key.remove(key) {
            self.by_age.remove(&number);
        }
    }

    fn retain(&mut self, keep: impl Fn(&K) -> bool) {
        self.by_age.retain(|_, loss| keep(&loss.key));
        self.by_key.retain(|key, _| keep(key));
    }

    /// Removes from the oldest on while `old` holds.
    fn take_until(&mut self, old: impl Fn(&Loss<K>) -> bool) -> Vec<K> {
        let mut taken = Vec::new();
        while let Some(entry) = self.by_age.first_entry().filter(|entry| old(entry.get())) {
            let loss = entry.remove();
            self.by_key.remove(&loss.key);
            taken.push(loss.key);
        }
        taken
    }
}
