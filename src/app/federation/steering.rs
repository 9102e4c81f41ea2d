//! What operators say of clusters and services → what is to be done about them. A state machine without a clock.
//!
//! A drain takes the weight away, as `weight: 0` does, after its share was shifted step by step if it says so; a force goes over what
//! probes and votes say. For one TTL before something is taken out, answers are kept for the shortest time only, so that nobody is sent
//! there by an old one.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use jiff::Timestamp;

use crate::health::Health;
use crate::index::{Object, ObjectKey, Update};
use crate::load::{Shedding, Subject};
use crate::model::directive::{Action, Directive};
use crate::model::{ClusterId, Federated, Moment, ServiceKey};
use crate::table::MIN_TTL;

/// Of each cluster; more of them are refused.
const MOST: usize = 1_000;
/// A gradual drain moves so often, and no oftener than [`LEAST_STEP`].
const STEPS: u32 = 50;
const LEAST_STEP: Duration = Duration::from_secs(1);

/// What is to be done about a share. Without a directive: nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Steered {
    /// Others go first in all answers, or there are no others.
    pub drained: bool,
    /// Of 255 answers, in how many others go first.
    pub shifted: u8,
    /// Instead of what probes and votes say.
    pub forced: Option<Health>,
    /// Nobody is to keep answers for long.
    pub is_brief: bool,
    /// Of a cluster: however much is Down at once, its instances remove it.
    pub released: bool,
}

impl Steered {
    /// As load would have it.
    pub fn shedding(self) -> Shedding {
        Shedding { share: self.shifted, overloaded: false }
    }

    /// A service's and its cluster's together.
    fn and(self, cluster: Steered) -> Steered {
        Steered {
            drained: self.drained || cluster.drained,
            shifted: self.shifted.max(cluster.shifted),
            forced: self.forced.or(cluster.forced),
            is_brief: self.is_brief || cluster.is_brief,
            released: self.released || cluster.released,
        }
    }
}

/// Where a directive stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Its time has not come.
    Scheduled,
    /// It drains, and so many of 255 answers go elsewhere.
    Shifting(u8),
    Active,
    Over,
}

impl Phase {
    pub fn word(self) -> &'static str {
        match self {
            Phase::Scheduled => "scheduled",
            Phase::Shifting(_) => "shifting",
            Phase::Active => "active",
            Phase::Over => "over",
        }
    }
}

/// Seconds since the start of the process; before it, too.
type Time = f64;

/// A directive, in our own time.
#[derive(Debug, Clone, PartialEq)]
struct Order {
    directive: Directive,
    from: Time,
    until: Option<Time>,
}

/// A directive, for people.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sight<'a> {
    pub cluster: ClusterId,
    pub directive: &'a Directive,
    pub phase: Phase,
}

#[derive(Debug, Default)]
pub struct Steering {
    /// Before something is taken out.
    ahead: Duration,
    orders: HashMap<ClusterId, BTreeMap<ObjectKey, Order>>,
    effects: HashMap<Subject, Steered>,
    next: Option<Time>,
}

/// What has moved.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Of these, something else is to be answered.
    pub changed: Vec<Subject>,
    /// Of these clusters, another share of all answers goes elsewhere: that is one value, and no service's.
    pub shifted: Vec<ClusterId>,
    /// The cluster said more than it may.
    pub refused: bool,
}

impl Order {
    fn new(directive: Directive, now: Moment, clock: Timestamp) -> Order {
        let now = now.0.as_secs_f64();
        let of = |time: Timestamp| now + time.duration_since(clock).as_secs_f64();
        // Without a beginning it is there since ever: a drain that is to take its time says when it began.
        let from = directive.from.map_or(f64::NEG_INFINITY, of);
        Order { from, until: directive.until.map(of), directive }
    }

    fn subject(&self, cluster: ClusterId) -> Subject {
        match &self.directive.service {
            None => Subject::Cluster(cluster),
            Some(service) => Subject::Service(cluster, service.clone()),
        }
    }

    /// With when it is the next one.
    fn phase(&self, now: Time) -> (Phase, Option<Time>) {
        if self.until.is_some_and(|until| until <= now) {
            return (Phase::Over, None);
        }
        if now < self.from {
            return (Phase::Scheduled, Some(self.from));
        }
        if let Action::Drain { over } = self.directive.action {
            let over = over.as_secs_f64();
            let gone = now - self.from;
            if gone < over {
                let step = (over / f64::from(STEPS)).max(LEAST_STEP.as_secs_f64());
                let next = (now + step).min(self.from + over).min(self.until.unwrap_or(f64::INFINITY));
                return (Phase::Shifting((gone / over * 255.0) as u8), Some(next));
            }
        }
        (Phase::Active, self.until)
    }

    fn effect(&self, now: Time, ahead: Duration) -> (Steered, Option<Time>) {
        let (phase, next) = self.phase(now);
        let takes_out = match self.directive.action {
            Action::Drain { .. } | Action::ForceDown => true,
            Action::ForceUp | Action::Release => false,
        };
        let nothing = Steered::default();
        match (phase, self.directive.action) {
            (Phase::Over, _) => (nothing, None),
            (Phase::Scheduled, _) => {
                let ahead = self.from - ahead.as_secs_f64();
                let is_brief = takes_out && now >= ahead;
                (Steered { is_brief, ..nothing }, if takes_out && !is_brief { Some(ahead) } else { next })
            }
            (Phase::Shifting(shifted), _) => (Steered { shifted, is_brief: true, ..nothing }, next),
            (Phase::Active, Action::Drain { .. }) => (Steered { drained: true, ..nothing }, next),
            (Phase::Active, Action::Release) => (Steered { released: true, ..nothing }, next),
            (Phase::Active, Action::ForceUp) => (Steered { forced: Some(Health::Fine), ..nothing }, next),
            (Phase::Active, Action::ForceDown) => (Steered { forced: Some(Health::Down), ..nothing }, next),
        }
    }
}

impl Steering {
    /// `ahead`: for how long clients hold an answer.
    pub fn new(ahead: Duration) -> Steering {
        Steering { ahead, ..Steering::default() }
    }

    /// The same for other numbers of the clusters; `None`: that cluster is gone.
    pub fn renumbered(self, ahead: Duration, new: impl Fn(ClusterId) -> Option<ClusterId>, now: Moment) -> Steering {
        let of_cluster = |(id, orders)| Some((new(id)?, orders));
        let mut steering = Steering::new(ahead);
        steering.orders = self.orders.into_iter().filter_map(of_cluster).collect();
        steering.review(now);
        steering
    }

    /// Enters an update of directives. `clock`: what the time of day is now.
    pub fn take(&mut self, cluster: ClusterId, update: Update, now: Moment, clock: Timestamp) -> Moved {
        let orders = self.orders.entry(cluster).or_default();
        let mut refused = false;
        let mut enter = |orders: &mut BTreeMap<ObjectKey, Order>, object: Object| {
            let key = object.key();
            let Object::Directive(_, directive) = object else { return };
            if orders.len() >= MOST && !orders.contains_key(&key) {
                refused = true;
                return;
            }
            // What is only read again goes on as it is, whatever became of the clock.
            if orders.get(&key).is_none_or(|order| order.directive != directive) {
                orders.insert(key, Order::new(directive, now, clock));
            }
        };
        match update {
            Update::Apply(object) => enter(orders, object),
            Update::Delete(_, key) => drop(orders.remove(&key)),
            Update::Reset { objects, keep, .. } => {
                let listed: HashSet<ObjectKey> = objects.iter().map(Object::key).chain(keep).collect();
                orders.retain(|key, _| listed.contains(key));
                objects.into_iter().for_each(|object| enter(orders, object));
            }
        }
        Moved { refused, ..self.review(now) }
    }

    /// Lets time pass: of whom something else is to be done now.
    pub fn tick(&mut self, now: Moment) -> Moved {
        match self.next {
            Some(at) if at <= now.0.as_secs_f64() => self.review(now),
            Some(_) | None => Moved::default(),
        }
    }

    /// When [`tick`](Steering::tick) has something to do next.
    pub fn next_deadline(&self) -> Option<Moment> {
        // A moment later rather than a moment before.
        self.next.map(|at| Moment(Duration::from_secs_f64(at.max(0.0)) + Duration::from_millis(1)))
    }

    /// But for the share that a whole cluster shifts.
    pub fn of(&self, cluster: ClusterId, service: &ServiceKey) -> Steered {
        if self.effects.is_empty() {
            return Steered::default();
        }
        let own = self.effect(&Subject::Service(cluster, service.clone()));
        Steered { shifted: own.shifted, ..own.and(self.effect(&Subject::Cluster(cluster))) }
    }

    /// What is to be done about one of them, whatever is to be done about what it is a part of.
    pub fn effect(&self, subject: &Subject) -> Steered {
        self.effects.get(subject).copied().unwrap_or_default()
    }

    /// Somebody said so, in any of these clusters.
    pub fn is_released(&self, mut clusters: impl Iterator<Item = ClusterId>) -> bool {
        clusters.any(|cluster| self.effect(&Subject::Cluster(cluster)).released)
    }

    /// The service as it is to be answered for; `None`: as it is.
    pub fn steered(&self, service: &Federated) -> Option<Federated> {
        if self.effects.is_empty() {
            return None;
        }
        let all: Vec<Steered> = service.shares.iter().map(|share| self.of(share.cluster, &service.key)).collect();
        if all.iter().all(|steered| *steered == Steered::default()) {
            return None;
        }
        // If there is nobody else, they are answered with all the same, and for a short time: it will not stay so.
        let is_last = self.leaves_nobody(service);
        let mut service = service.clone();
        for (share, steered) in service.shares.iter_mut().zip(all) {
            if steered.drained {
                share.wishes.weight = Some(0);
            }
            if steered.is_brief || is_last {
                share.most_ttl = Some(share.most_ttl.map_or(MIN_TTL, |most| most.min(MIN_TTL)));
            }
        }
        Some(service)
    }

    /// All clusters that have the service are drained.
    pub fn leaves_nobody(&self, service: &Federated) -> bool {
        let mut ready = service.shares.iter().filter(|share| share.ready).peekable();
        ready.peek().is_some() && ready.all(|share| self.of(share.cluster, &service.key).drained)
    }

    /// Those of one cluster.
    pub fn directives(&self, cluster: ClusterId) -> impl Iterator<Item = (&ObjectKey, &Directive)> {
        self.orders.get(&cluster).into_iter().flatten().map(|(key, order)| (key, &order.directive))
    }

    /// All that there are, by cluster and name.
    pub fn sights(&self, now: Moment) -> Vec<Sight<'_>> {
        let now = now.0.as_secs_f64();
        let mut clusters: Vec<_> = self.orders.iter().collect();
        clusters.sort_by_key(|(cluster, _)| **cluster);
        let mut sights = Vec::new();
        for (cluster, orders) in clusters {
            for order in orders.values() {
                sights.push(Sight { cluster: *cluster, directive: &order.directive, phase: order.phase(now).0 });
            }
        }
        sights
    }

    /// What is to be done now, and of whom that is something else than before.
    fn review(&mut self, now: Moment) -> Moved {
        let now = now.0.as_secs_f64();
        let mut effects: HashMap<Subject, Steered> = HashMap::new();
        self.next = None;
        for (cluster, orders) in &self.orders {
            for order in orders.values() {
                let (steered, next) = order.effect(now, self.ahead);
                self.next = [self.next, next].into_iter().flatten().reduce(f64::min);
                if steered != Steered::default() {
                    let known = effects.entry(order.subject(*cluster)).or_default();
                    *known = known.and(steered);
                }
            }
        }
        let before = std::mem::replace(&mut self.effects, effects);
        let subjects: BTreeSet<&Subject> = before.keys().chain(self.effects.keys()).collect();
        let mut moved = Moved::default();
        for subject in subjects {
            let [before, after] = [&before, &self.effects].map(|all| all.get(subject).copied().unwrap_or_default());
            match subject {
                Subject::Cluster(cluster) => {
                    if before.shifted != after.shifted {
                        moved.shifted.push(*cluster);
                    }
                    if before != (Steered { shifted: before.shifted, ..after }) {
                        moved.changed.push(subject.clone());
                    }
                }
                Subject::Service(..) if before != after => moved.changed.push(subject.clone()),
                Subject::Service(..) => {}
            }
        }
        moved
    }
}

#[cfg(test)]
mod tests;
