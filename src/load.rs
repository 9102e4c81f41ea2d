//! Load that clusters publish → how much of their traffic is to go elsewhere. State machines without a clock.
//!
//! From [`SHED_FROM`] to [`SHED_ALL`] of its capacity, a rising share of answers puts what is next in order before a
//! candidate. The share follows the load slowly: for each TTL by an eighth of what is left of its way, and at most by a tenth of
//! all answers. Clients hold answers that long, so that what a step does is seen only later; a region whose clients all left
//! at once would be empty, and full again when they came back. A candidate that is still at [`SHED_ALL`] when all of its share goes
//! elsewhere is overloaded: it is behind all that are not, until it is at [`CALM_AT`] or below. It stays in the answers.
//! `tests/load_simulation.rs` shows what that comes to.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use foldhash::quality::FixedState;

use crate::courtesy::give_way;
use crate::model::{ClusterId, Load, Moment, ServiceKey};

/// Ten-thousandths of the capacity.
const SHED_FROM: u16 = 7_000;
const SHED_ALL: u16 = 9_500;
const CALM_AT: u16 = 8_500;
/// Ten-thousandths of the answers.
const ALL: u16 = 10_000;
/// Of the share, for each TTL: at most and at least. The rest is a part of the way to where it should be.
const STEP: u16 = 1_000;
const LEAST_STEP: u16 = 100;
const PART: u16 = 8;

/// What is to be done about a candidate's load. Without load: nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shedding {
    /// Of 255 answers, in how many others go first.
    pub share: u8,
    /// Behind all that are not.
    pub overloaded: bool,
}

impl Shedding {
    /// Of [its bits](Shedding::to_bits); the share is the octet below.
    pub const OVERLOADED: u16 = 1 << 8;

    /// Share and overload in one word.
    #[inline]
    pub fn to_bits(self) -> u16 {
        u16::from(self.share) | if self.overloaded { Shedding::OVERLOADED } else { 0 }
    }

    /// Other bits than those two say nothing.
    #[inline]
    pub fn from_bits(bits: u16) -> Shedding {
        Shedding { share: bits as u8, overloaded: bits & Shedding::OVERLOADED != 0 }
    }

    /// What a weight becomes.
    pub fn left_of(self, weight: u32) -> u32 {
        weight * u32::from(u8::MAX - self.share) / u32::from(u8::MAX)
    }

    /// A service's and its cluster's together.
    pub fn most(self, other: Shedding) -> Shedding {
        Shedding { share: self.share.max(other.share), overloaded: self.overloaded || other.overloaded }
    }
}

/// Whose load it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Subject {
    /// Of everything in it.
    Cluster(ClusterId),
    Service(ClusterId, ServiceKey),
}

/// How a load is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// By an annotation, until it says something else.
    Annotation,
    /// By an object of its own, which counts for more, until that moment.
    Object { until: Moment },
}

/// All that is known of load.
#[derive(Debug)]
pub struct Loads {
    rules: Rules,
    states: States,
    /// When a state moves by itself.
    due: BTreeSet<(Moment, Subject)>,
    counts: Counts,
}

/// How many subjects there are of which something is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    pub shedding: usize,
    pub overloaded: usize,
}

impl Counts {
    fn add(&mut self, shedding: Shedding) {
        self.shedding += usize::from(shedding.share > 0);
        self.overloaded += usize::from(shedding.overloaded);
    }

    fn remove(&mut self, shedding: Shedding) {
        self.shedding -= usize::from(shedding.share > 0);
        self.overloaded -= usize::from(shedding.overloaded);
    }
}

/// Told apart from the state, so that a simulation can leave them out.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// For how long clients hold an answer.
    pub ttl: Duration,
    /// Ten-thousandths of the answers by which the share changes for each TTL.
    pub step: u16,
    /// At most this part of what is left of the way.
    pub part: u16,
    /// Ten-thousandths of the capacity at or below which a candidate is no longer overloaded.
    pub calm_at: u16,
}

impl Rules {
    pub fn new(ttl: Duration) -> Rules {
        Rules { ttl, step: STEP, part: PART, calm_at: CALM_AT }
    }
}

#[derive(Debug, Default)]
struct State {
    annotated: Option<Load>,
    object: Option<(Load, Moment)>,
    /// Ten-thousandths.
    share: u16,
    /// At [`SHED_ALL`] or above, and since then not at or below the rule's `calm_at`.
    full: bool,
    /// Before this the share stays as it is.
    rests_until: Moment,
    due: Option<Moment>,
}

/// By subject. Of most services nothing is told, which one look shows for all clusters.
#[derive(Debug, Default)]
struct States {
    clusters: BTreeMap<ClusterId, State>,
    /// In no order.
    services: HashMap<ServiceKey, Vec<(ClusterId, State)>, FixedState>,
}

impl States {
    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.clusters.is_empty() && self.services.is_empty()
    }

    fn subjects(&self) -> impl Iterator<Item = Subject> {
        let of_service = |(key, all): (&ServiceKey, &Vec<(ClusterId, State)>)| {
            let subjects = all.iter().map(|(id, _)| Subject::Service(*id, key.clone()));
            subjects.collect::<Vec<_>>()
        };
        self.clusters.keys().map(|id| Subject::Cluster(*id)).chain(self.services.iter().flat_map(of_service))
    }

    fn of_service(&self, cluster: ClusterId, key: &ServiceKey) -> Option<&State> {
        self.services.get(key)?.iter().find(|(id, _)| *id == cluster).map(|(_, state)| state)
    }

    fn get(&self, subject: &Subject) -> Option<&State> {
        match subject {
            Subject::Cluster(id) => self.clusters.get(id),
            Subject::Service(id, key) => self.of_service(*id, key),
        }
    }

    fn get_mut(&mut self, subject: &Subject) -> Option<&mut State> {
        match subject {
            Subject::Cluster(id) => self.clusters.get_mut(id),
            Subject::Service(id, key) => {
                let all = self.services.get_mut(key)?;
                all.iter_mut().find(|(other, _)| other == id).map(|(_, state)| state)
            }
        }
    }

    /// It is there after that.
    fn entry(&mut self, subject: &Subject) -> &mut State {
        match subject {
            Subject::Cluster(id) => self.clusters.entry(*id).or_default(),
            Subject::Service(id, key) => {
                let all = self.services.entry(key.clone()).or_default();
                let at = all.iter().position(|(other, _)| other == id).unwrap_or_else(|| {
                    all.push((*id, State::default()));
                    all.len() - 1
                });
                &mut all[at].1
            }
        }
    }

    fn remove(&mut self, subject: &Subject) {
        match subject {
            Subject::Cluster(id) => drop(self.clusters.remove(id)),
            Subject::Service(id, key) => {
                let Some(all) = self.services.get_mut(key) else { return };
                all.retain(|(other, _)| other != id);
                if all.is_empty() {
                    self.services.remove(key);
                }
            }
        }
    }

    fn into_all(self) -> impl Iterator<Item = (Subject, State)> {
        let of_service = |(key, all): (ServiceKey, Vec<(ClusterId, State)>)| {
            all.into_iter().map(move |(id, state)| (Subject::Service(id, key.clone()), state))
        };
        let clusters = self.clusters.into_iter().map(|(id, state)| (Subject::Cluster(id), state));
        clusters.chain(self.services.into_iter().flat_map(of_service))
    }
}

impl Loads {
    pub fn new(rules: Rules) -> Loads {
        Loads { rules, states: States::default(), due: BTreeSet::new(), counts: Counts::default() }
    }

    /// The same for other rules and other numbers of the clusters; `None`: that cluster is gone.
    pub fn renumbered(self, rules: Rules, new: impl Fn(ClusterId) -> Option<ClusterId>) -> Loads {
        let mut loads = Loads::new(rules);
        for (subject, state) in self.states.into_all() {
            let subject = match subject {
                Subject::Cluster(id) => new(id).map(Subject::Cluster),
                Subject::Service(id, key) => new(id).map(|id| Subject::Service(id, key)),
            };
            let Some(subject) = subject else { continue };
            loads.due.extend(state.due.map(|at| (at, subject.clone())));
            loads.counts.add(state.shedding());
            *loads.states.entry(&subject) = state;
        }
        loads
    }

    /// Whether nothing was told of the service that could still have an effect, in any cluster.
    pub fn is_silent_about(&self, service: &ServiceKey) -> bool {
        !self.states.services.contains_key(service)
    }

    /// Enters what was told, or that nothing is told any more by an annotation. Returns whether that changes what is to be
    /// done now.
    pub fn tell(&mut self, subject: &Subject, load: Option<Load>, origin: Origin, now: Moment) -> bool {
        if load.is_none() && self.states.get(subject).is_none() {
            return false;
        }
        let state = self.states.entry(subject);
        let before = state.shedding();
        match origin {
            Origin::Annotation => state.annotated = load,
            Origin::Object { until } => state.object = load.map(|load| (load, until)),
        }
        self.advance(subject, now);
        before != self.of(subject)
    }

    /// Lets time pass: whose shedding is another one now.
    pub fn tick(&mut self, now: Moment) -> Vec<Subject> {
        let mut changed = Vec::new();
        while let Some((at, subject)) = self.due.first().filter(|(at, _)| *at <= now).cloned() {
            self.due.remove(&(at, subject.clone()));
            if let Some(state) = self.states.get_mut(&subject) {
                state.due = None;
            }
            let before = self.of(&subject);
            self.advance(&subject, now);
            if self.of(&subject) != before {
                changed.push(subject);
            }
            give_way();
        }
        changed
    }

    /// When [`tick`](Loads::tick) has something to do next.
    pub fn next_deadline(&self) -> Option<Moment> {
        self.due.first().map(|(at, _)| *at)
    }

    pub fn of(&self, subject: &Subject) -> Shedding {
        self.states.get(subject).map(State::shedding).unwrap_or_default()
    }

    /// The same of a cluster's share of a service.
    pub fn of_service(&self, cluster: ClusterId, service: &ServiceKey) -> Shedding {
        self.states.of_service(cluster, service).map(State::shedding).unwrap_or_default()
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// What was told last and still counts.
    pub fn load(&self, subject: &Subject, now: Moment) -> Option<Load> {
        self.states.get(subject)?.load(now)
    }

    /// The same, and how it was told.
    pub fn told(&self, subject: &Subject, now: Moment) -> Option<(Load, Origin)> {
        self.states.get(subject)?.told(now)
    }

    /// As if all that was told had been so for long. Returns whose shedding is another one now.
    pub fn settle(&mut self, now: Moment) -> Vec<Subject> {
        let usual = self.rules;
        self.rules = Rules { step: ALL, part: 1, ..usual };
        let mut subjects: Vec<Subject> = self.states.subjects().collect();
        subjects.sort();
        subjects.retain(|subject| {
            let before = self.of(subject);
            if let Some(state) = self.states.get_mut(subject) {
                state.rests_until = now;
            }
            self.advance(subject, now);
            self.of(subject) != before
        });
        self.rules = usual;
        subjects
    }

    fn advance(&mut self, subject: &Subject, now: Moment) {
        let Some(state) = self.states.get_mut(subject) else { return };
        if let Some(at) = state.due.take() {
            self.due.remove(&(at, subject.clone()));
        }
        self.counts.remove(state.shedding());
        state.advance(&self.rules, now);
        self.counts.add(state.shedding());
        if state.is_at_rest() {
            self.states.remove(subject);
            return;
        }
        state.due = state.next(now);
        if let Some(at) = state.due {
            self.due.insert((at, subject.clone()));
        }
    }
}

impl State {
    fn load(&self, now: Moment) -> Option<Load> {
        self.told(now).map(|(load, _)| load)
    }

    fn told(&self, now: Moment) -> Option<(Load, Origin)> {
        let object = self.object.filter(|(_, until)| *until > now);
        let object = object.map(|(load, until)| (load, Origin::Object { until }));
        object.or(self.annotated.map(|load| (load, Origin::Annotation)))
    }

    fn shedding(&self) -> Shedding {
        let share = u32::from(self.share) * 255 / u32::from(ALL);
        Shedding { share: share as u8, overloaded: self.full && self.share == ALL }
    }

    fn advance(&mut self, rules: &Rules, now: Moment) {
        if self.object.is_some_and(|(_, until)| until <= now) {
            self.object = None;
        }
        let load = self.load(now).map_or(0, Load::ten_thousandths);
        self.full = load >= SHED_ALL || self.full && load > rules.calm_at;
        let target = target(load);
        if self.share != target && self.rests_until <= now {
            let way = self.share.abs_diff(target);
            let step = (way / rules.part).clamp(LEAST_STEP.min(way), rules.step.max(1));
            self.share = target.clamp(self.share.saturating_sub(step), self.share.saturating_add(step));
            self.rests_until = now + rules.ttl;
        }
    }

    fn next(&self, now: Moment) -> Option<Moment> {
        let load = self.load(now).map_or(0, Load::ten_thousandths);
        let moves = (self.share != target(load)).then(|| self.rests_until.max(now + Duration::from_millis(1)));
        moves.into_iter().chain(self.object.map(|(_, until)| until)).min()
    }

    fn is_at_rest(&self) -> bool {
        self.annotated.is_none() && self.object.is_none() && self.share == 0 && !self.full
    }
}

/// The share at a load that stays: 0 at [`SHED_FROM`] and below, all at [`SHED_ALL`] and above.
fn target(load: u16) -> u16 {
    let above = u32::from(load.clamp(SHED_FROM, SHED_ALL) - SHED_FROM);
    (above * u32::from(ALL) / u32::from(SHED_ALL - SHED_FROM)) as u16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Label;

    const TTL: Duration = Duration::from_secs(30);

    fn at(seconds: u64) -> Moment {
        Moment(Duration::from_secs(seconds))
    }

    fn load(part: f64) -> Option<Load> {
        Some(Load::new(part).unwrap())
    }

    /// Each step is as large as it may be.
    fn steep() -> Rules {
        Rules { part: 1, ..Rules::new(TTL) }
    }

    fn subject(n: u16) -> Subject {
        let label = |text| Label::parse(text).unwrap();
        Subject::Service(ClusterId(n), ServiceKey { namespace: label("ns"), name: label("svc") })
    }

    /// `share` in hundredths.
    fn shedding(share: u32, overloaded: bool) -> Shedding {
        Shedding { share: (share * 255 / 100) as u8, overloaded }
    }

    #[test]
    fn bits_are_what_they_were_made_from() {
        for shedding in [(0, false), (7, false), (255, true)].map(|(share, overloaded)| Shedding { share, overloaded })
        {
            assert_eq!(Shedding::from_bits(shedding.to_bits()), shedding);
        }
    }

    #[test]
    fn the_share_follows_the_load_step_by_step() {
        let one = subject(0);
        let mut loads = Loads::new(steep());
        assert!(!loads.tell(&one, load(0.70), Origin::Annotation, at(0)));
        assert_eq!((loads.of(&one), loads.next_deadline()), (Shedding::default(), None));
        // Its target is a quarter.
        assert!(loads.tell(&one, load(0.7625), Origin::Annotation, at(10)));
        assert_eq!(loads.of(&one), shedding(10, false));
        // What comes before the TTL is over changes nothing by itself.
        assert!(!loads.tell(&one, load(0.80), Origin::Annotation, at(20)));
        assert!(!loads.tell(&one, load(0.7625), Origin::Annotation, at(25)));
        assert_eq!(loads.next_deadline(), Some(at(40)));
        assert_eq!(loads.tick(at(39)), []);
        assert_eq!(loads.tick(at(40)), vec![one.clone()]);
        assert_eq!(loads.of(&one), shedding(20, false));
        loads.tick(at(70));
        assert_eq!(loads.of(&one), shedding(25, false));
        assert_eq!(loads.next_deadline(), None);
        // And back.
        assert!(loads.tell(&one, load(0.1), Origin::Annotation, at(200)));
        assert_eq!(loads.of(&one), shedding(15, false));
        // Whoever says nothing any more is not loaded.
        assert!(!loads.tell(&one, None, Origin::Annotation, at(210)));
        for (second, share) in [(230, 5), (260, 0)] {
            assert_eq!(loads.tick(at(second)), vec![one.clone()]);
            assert_eq!(loads.of(&one), shedding(share, false));
        }
        assert!(loads.states.is_empty() && loads.due.is_empty(), "{loads:?}");
    }

    /// Until nothing moves by itself.
    fn settle(loads: &mut Loads) -> Moment {
        let mut now = Moment::default();
        while let Some(next) = loads.next_deadline() {
            now = next;
            loads.tick(next);
        }
        now
    }

    #[test]
    fn the_nearer_the_shorter_the_steps() {
        let one = subject(0);
        let mut loads = Loads::new(Rules::new(TTL));
        loads.tell(&one, load(0.95), Origin::Annotation, at(0));
        let mut shares = vec![loads.of(&one).share];
        while let Some(next) = loads.next_deadline() {
            loads.tick(next);
            shares.push(loads.of(&one).share);
        }
        let steps: Vec<u8> = shares.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(steps.is_sorted_by(|a, b| b <= &(a + 1)), "{steps:?}");
        assert_eq!((shares[0], shares.last()), (25, Some(&255)));
        assert!((20..40).contains(&steps.len()), "{steps:?}");
    }

    #[test]
    fn overloaded_when_shedding_does_not_help_until_it_is_calm() {
        let one = Subject::Cluster(ClusterId(0));
        let mut loads = Loads::new(steep());
        loads.tell(&one, load(1.0), Origin::Annotation, at(0));
        for second in (30..300).step_by(30) {
            assert!(!loads.of(&one).overloaded, "{second}");
            assert_eq!(loads.tick(at(second)), vec![one.clone()]);
        }
        assert_eq!(loads.of(&one), shedding(100, true));
        for (part, expected) in [(0.95, true), (0.86, false), (0.95, false), (0.90, false)] {
            loads.tell(&one, load(part), Origin::Annotation, at(1_000));
            assert_eq!(loads.of(&one).overloaded, expected, "{part}");
        }
        // Below that its share is not all.
        settle(&mut loads);
        assert!(!loads.of(&one).overloaded);
        loads.tell(&one, load(0.96), Origin::Annotation, at(5_000));
        settle(&mut loads);
        assert!(loads.of(&one).overloaded);
        loads.tell(&one, load(0.85), Origin::Annotation, at(9_000));
        assert!(!loads.of(&one).overloaded);
    }

    #[test]
    fn what_is_not_told_again_expires() {
        let one = subject(0);
        let mut loads = Loads::new(Rules { step: ALL, ..steep() });
        loads.tell(&one, load(0.5), Origin::Annotation, at(0));
        loads.tell(&one, load(1.0), Origin::Object { until: at(60) }, at(0));
        assert_eq!((loads.load(&one, at(0)), loads.of(&one)), (load(1.0), shedding(100, true)));
        // Told again, it holds for longer.
        loads.tell(&one, load(0.99), Origin::Object { until: at(90) }, at(50));
        loads.tick(at(89));
        assert!(loads.of(&one).overloaded);
        assert_eq!(loads.tick(at(90)), vec![one.clone()]);
        assert!(!loads.of(&one).overloaded);
        assert_eq!(loads.load(&one, at(90)), load(0.5), "the annotation still counts");
        settle(&mut loads);
        assert_eq!(loads.of(&one), Shedding::default());
    }

    #[test]
    fn in_the_end_it_is_as_if_it_had_been_so_for_long() {
        for part in [0.5, 0.75, 0.95, 1.0] {
            let (mut slowly, mut at_once) = (Loads::new(Rules::new(TTL)), Loads::new(Rules::new(TTL)));
            for loads in [&mut slowly, &mut at_once] {
                loads.tell(&subject(0), load(part), Origin::Annotation, at(0));
                loads.tell(&Subject::Cluster(ClusterId(0)), load(0.9), Origin::Annotation, at(0));
            }
            settle(&mut slowly);
            let moved = at_once.settle(at(0));
            assert_eq!(moved.contains(&subject(0)), part > 0.7);
            for subject in [subject(0), Subject::Cluster(ClusterId(0))] {
                assert_eq!(at_once.of(&subject), slowly.of(&subject), "{part}");
            }
            assert_eq!(at_once.counts(), slowly.counts());
            assert_eq!(at_once.next_deadline(), None);
        }
    }

    #[test]
    fn clusters_get_other_numbers() {
        let mut loads = Loads::new(steep());
        for n in 0..3 {
            loads.tell(&subject(n), load(0.9), Origin::Annotation, at(0));
        }
        loads.tick(at(30));
        let mut loads = loads.renumbered(steep(), |id| [Some(1), None, Some(0)][id.index()].map(ClusterId));
        assert_eq!(
            [0, 1, 2].map(|n| loads.of(&subject(n))),
            [shedding(20, false), shedding(20, false), Shedding::default()]
        );
        let mut changed = loads.tick(at(60));
        changed.sort();
        assert_eq!(changed, [subject(0), subject(1)]);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Tell { subject: u16, part: Option<f64>, valid: Option<u64> },
        Pass,
    }

    fn steps() -> impl Strategy<Value = Vec<(u64, Step)>> {
        let part = prop::option::weighted(0.9, 0.0..=1.0f64);
        let tell = (0u16..3, part, prop::option::of(1u64..200));
        let step = prop_oneof![
            3 => tell.prop_map(|(subject, part, valid)| Step::Tell { subject, part, valid }),
            1 => Just(Step::Pass),
        ];
        prop::collection::vec((0u64..100, step), 1..60)
    }

    proptest! {
        /// Never faster than a step for each TTL, whatever is said; and all is over soon after nobody says anything.
        #[test]
        fn slowly_and_not_for_ever(steps in steps()) {
            let mut loads = Loads::new(Rules::new(TTL));
            let mut now = 0;
            let mut moved: HashMap<u16, (u8, u64)> = HashMap::new();
            for (wait, step) in steps {
                now += wait;
                // The daemon wakes at each deadline.
                while let Some(next) = loads.next_deadline().filter(|next| *next <= at(now)) {
                    loads.tick(next);
                }
                let counted = (0..3).map(|n| loads.of(&subject(n))).fold(Counts::default(), |mut all, shedding| {
                    all.add(shedding);
                    all
                });
                prop_assert_eq!(loads.counts(), counted);
                if let Step::Tell { subject: n, part, valid } = step {
                    let origin = valid.map_or(Origin::Annotation, |s| Origin::Object { until: at(now + s) });
                    loads.tell(&subject(n), part.and_then(load), origin, at(now));
                }
                for n in 0..3 {
                    let share = loads.of(&subject(n)).share;
                    let (before, since) = moved.get(&n).copied().unwrap_or_default();
                    // Each TTL that has begun allows for a step of 25.5.
                    let steps = (now - since) / 30 + 1;
                    prop_assert!(u64::from(share.abs_diff(before)) <= 26 * steps, "{} to {} in {}", before, share, now - since);
                    if share != before {
                        moved.insert(n, (share, now));
                    }
                }
            }
            for n in 0..3 {
                loads.tell(&subject(n), None, Origin::Annotation, at(now));
            }
            let mut last = at(now);
            while let Some(next) = loads.next_deadline() {
                prop_assert!(next > last);
                last = next;
                loads.tick(next);
            }
            prop_assert!(last <= at(now + 200 + 50 * 30));
            prop_assert_eq!(loads.counts(), Counts::default());
            prop_assert!(loads.states.is_empty(), "{:?}", loads);
        }
    }
}
