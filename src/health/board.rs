//! All that one instance knows of external addresses: what it sees, what it says, what others said, and what follows.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::{
    Affected, Breaker, Case, Council, Health, Isolation, Probe, Quorum, Silence, Standings, Tally, Verdict, Vote,
};
use crate::location::is_special_purpose;
use crate::model::votes::Endpoint;
use crate::model::{Label, Moment};

/// How an endpoint is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// What is connected to, in order. Of a name, some of the addresses that it leads to from here.
    pub probes: Vec<Probe>,
    /// The cluster's own clients go all the way to the load balancer (`ipMode: Proxy`).
    pub is_proxied: bool,
}

/// What a step comes to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Effects {
    /// Something else is to be answered with.
    pub changed: BTreeSet<Endpoint>,
    /// What is to be told to all others of these.
    pub said: Vec<(Endpoint, Vote)>,
    /// All that this instance says is to be written once more: what is read of it is something else.
    pub again: bool,
    /// What is to be connected to, again and again, or not any more.
    pub begun: Vec<Probe>,
    pub ended: Vec<Probe>,
}

/// Who this instance is among the voters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Own {
    pub cluster: Label,
    pub replica: Arc<str>,
}

/// From one time that all is to be written once more to the next.
const AGAIN: Duration = Duration::from_secs(10);

/// How an endpoint is, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    Up,
    Unknown,
    Suspect,
    Down,
}

impl Condition {
    pub fn word(self) -> &'static str {
        match self {
            Condition::Up => "up",
            Condition::Unknown => "unknown",
            Condition::Suspect => "suspect",
            Condition::Down => "down",
        }
    }
}

/// How it looks on the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sums {
    pub up: usize,
    pub unknown: usize,
    pub suspect: usize,
    pub down: usize,
}

#[derive(Debug, Clone)]
pub struct Board {
    /// `None`: this instance decides alone.
    council: Option<Council>,
    own: Option<Own>,
    /// When this instance was last told to write all once more.
    asked_again: Option<Moment>,
    /// For how long it must have been over that this instance seemed to be cut off.
    patience: Duration,
    /// In the order of the standings.
    clusters: Vec<Label>,
    endpoints: BTreeMap<Endpoint, State>,
    probes: HashMap<Probe, Seen>,
    due: BTreeSet<(Moment, Endpoint)>,
    /// Of each cluster's endpoints: how many, and how many of them are Down, or failed when they were probed last.
    down: Standings,
    failing: Standings,
    breaker: Breaker,
    isolation: Isolation,
    isolated: bool,
    frozen: bool,
    /// How many endpoints are what, by [`Condition`].
    sums: [usize; 4],
    /// What all others were told last, by [`Vote`].
    said: [usize; 3],
    /// How often an endpoint became what, by [`Health`].
    transitions: [u64; 3],
    /// Votes on endpoints that no cluster has.
    strangers: u64,
}

#[derive(Debug, Clone)]
struct State {
    /// The position of its cluster.
    cluster: usize,
    way: Way,
    case: Case,
    health: Health,
    due: Option<Moment>,
    /// All of its probes failed when they were tried last.
    failing: bool,
    /// What all others were told last.
    told: Vote,
}

impl State {
    fn condition(&self) -> Condition {
        match (self.health, self.case.verdict()) {
            (Health::Fine, Verdict::Up | Verdict::Down) => Condition::Up,
            (Health::Fine, Verdict::Unknown) => Condition::Unknown,
            (Health::Suspect, _) => Condition::Suspect,
            (Health::Down, _) => Condition::Down,
        }
    }
}

/// What the prober said last.
#[derive(Debug, Clone)]
struct Seen {
    vote: Vote,
    failing: bool,
    /// It was Up once. Only then does it mean anything that a special-purpose address is not reached from here.
    reached: bool,
    endpoints: BTreeSet<Endpoint>,
}

impl Seen {
    fn vote(&self, probe: &Probe) -> Vote {
        if self.reached || !is_special_purpose(probe.address) { self.vote } else { Vote::Abstain }
    }
}

impl Board {
    /// `own`: who this instance is, if it votes. `council`: those who decide; `None`: this instance alone.
    /// `patience`: see [`Isolation::step`].
    pub fn new(clusters: Vec<Label>, own: Option<Own>, council: Option<Council>, patience: Duration) -> Board {
        let standings = Standings(vec![(0, 0); clusters.len()]);
        Board {
            council,
            own,
            asked_again: None,
            patience,
            clusters,
            endpoints: BTreeMap::new(),
            probes: HashMap::new(),
            due: BTreeSet::new(),
            down: standings.clone(),
            failing: standings,
            breaker: Breaker::default(),
            isolation: Isolation::default(),
            isolated: false,
            frozen: false,
            sums: [0; 4],
            said: [0; 3],
            transitions: [0; 3],
            strangers: 0,
        }
    }

    /// With other clusters, of which some were there before. Endpoints of those that are gone are gone.
    /// `is_heard_anew`: whoever reads what this instance says knows nothing of it.
    pub fn reformed(
        self,
        clusters: Vec<Label>,
        own: Option<Own>,
        council: Option<Council>,
        patience: Duration,
        is_heard_anew: bool,
    ) -> (Board, Effects) {
        let mut effects = Effects::default();
        let mut board = Board::new(clusters, own, council, patience);
        let position = |old: usize| board.clusters.iter().position(|name| *name == self.clusters[old]);
        board.breaker = self.breaker.renumbered(board.clusters.len(), position);
        (board.isolation, board.isolated, board.frozen) = (self.isolation, self.isolated, self.frozen);
        board.strangers = self.strangers;
        board.transitions = self.transitions;
        board.probes = self.probes;
        board.probes.values_mut().for_each(|seen| seen.endpoints.clear());
        for (endpoint, state) in self.endpoints {
            let Some(cluster) = board.clusters.iter().position(|name| *name == endpoint.cluster) else { continue };
            let told = if is_heard_anew { Vote::Abstain } else { state.told };
            board.put(endpoint, State { cluster, told, ..state }, &mut effects);
        }
        board.probes.retain(|probe, seen| {
            let is_used = !seen.endpoints.is_empty();
            if !is_used {
                effects.ended.push(probe.clone());
            }
            is_used
        });
        (board, effects)
    }

    /// There is an endpoint, or it is reached in another way.
    pub fn enter(&mut self, endpoint: &Endpoint, mut way: Way) -> Effects {
        /// Addresses of one name that are tried.
        const MOST_OF_A_NAME: usize = 3;
        let mut effects = Effects::default();
        let known = self.endpoints.get(endpoint).map(|state| state.way.probes.as_slice()).unwrap_or_default();
        // Of a name that leads to now these and now those, what is probed already goes on.
        way.probes.sort_by_cached_key(|probe| (!known.contains(probe), probe.clone()));
        way.probes.truncate(MOST_OF_A_NAME);
        way.probes.sort();
        match self.endpoints.get_mut(endpoint) {
            Some(state) if state.way == way => {}
            Some(_) => {
                let Some(state) = self.take(endpoint) else { return effects };
                let before = state.way.probes.clone();
                self.put(endpoint.clone(), State { way, ..state }, &mut effects);
                self.forget_probes(&before, &mut effects);
                self.speak(endpoint, &mut effects);
            }
            None => {
                let Some(cluster) = self.clusters.iter().position(|name| *name == endpoint.cluster) else {
                    return effects;
                };
                let state = State {
                    cluster,
                    way,
                    case: Case::default(),
                    health: Health::default(),
                    due: None,
                    failing: false,
                    told: Vote::Abstain,
                };
                self.put(endpoint.clone(), state, &mut effects);
            }
        }
        effects
    }

    /// Nobody needs it any more.
    pub fn leave(&mut self, endpoint: &Endpoint) -> Effects {
        let mut effects = Effects::default();
        if let Some(state) = self.take(endpoint) {
            self.forget_probes(&state.way.probes, &mut effects);
            if state.told != Vote::Abstain {
                effects.said.push((endpoint.clone(), Vote::Abstain));
            }
        }
        effects
    }

    fn put(&mut self, endpoint: Endpoint, mut state: State, effects: &mut Effects) {
        for probe in &state.way.probes {
            let seen = self.probes.entry(probe.clone()).or_insert_with(|| {
                effects.begun.push(probe.clone());
                Seen { vote: Vote::Abstain, failing: false, reached: false, endpoints: BTreeSet::new() }
            });
            seen.endpoints.insert(endpoint.clone());
        }
        state.failing = self.are_failing(&state.way.probes);
        let cluster = state.cluster;
        self.down.0[cluster].0 += 1;
        self.failing.0[cluster].0 += 1;
        self.failing.0[cluster].1 += usize::from(state.failing);
        self.down.0[cluster].1 += usize::from(state.health == Health::Down);
        self.due.extend(state.due.map(|at| (at, endpoint.clone())));
        self.sums[state.condition() as usize] += 1;
        self.said[state.told as usize] += 1;
        self.endpoints.insert(endpoint, state);
    }

    fn take(&mut self, endpoint: &Endpoint) -> Option<State> {
        let state = self.endpoints.remove(endpoint)?;
        self.sums[state.condition() as usize] -= 1;
        self.said[state.told as usize] -= 1;
        let cluster = state.cluster;
        self.down.0[cluster].0 -= 1;
        self.failing.0[cluster].0 -= 1;
        self.down.0[cluster].1 -= usize::from(state.health == Health::Down);
        self.failing.0[cluster].1 -= usize::from(state.failing);
        if let Some(at) = state.due {
            self.due.remove(&(at, endpoint.clone()));
        }
        for probe in &state.way.probes {
            if let Some(seen) = self.probes.get_mut(probe) {
                seen.endpoints.remove(endpoint);
            }
        }
        Some(state)
    }

    fn forget_probes(&mut self, probes: &[Probe], effects: &mut Effects) {
        for probe in probes {
            if self.probes.get(probe).is_some_and(|seen| seen.endpoints.is_empty()) {
                self.probes.remove(probe);
                effects.ended.push(probe.clone());
            }
        }
    }

    fn are_failing(&self, probes: &[Probe]) -> bool {
        probes.iter().all(|probe| self.probes.get(probe).is_some_and(|seen| seen.failing))
    }

    /// Up if one of the addresses is.
    fn seen(&self, probes: &[Probe]) -> Vote {
        let vote = |probe| self.probes.get(probe).map_or(Vote::Abstain, |seen| seen.vote(probe));
        let mut all = probes.iter().map(vote);
        if all.clone().any(|vote| vote == Vote::Up) {
            Vote::Up
        } else if all.all(|vote| vote == Vote::Down) {
            Vote::Down
        } else {
            Vote::Abstain
        }
    }

    /// What this instance sees of an endpoint, and what it says of it.
    fn own(&self, endpoint: &Endpoint, state: &State) -> (Vote, Vote) {
        let is_own = self.own.as_ref().is_some_and(|own| own.cluster == endpoint.cluster);
        // From inside, connections to the cluster's own load balancer may never leave it.
        let seen = if is_own && !state.way.is_proxied { Vote::Abstain } else { self.seen(&state.way.probes) };
        (seen, if self.isolated && !is_own { Vote::Abstain } else { seen })
    }

    /// Tells the others, if it is something else than before. Gives what [`own`](Board::own) does.
    fn speak(&mut self, endpoint: &Endpoint, effects: &mut Effects) -> Option<(Vote, Vote)> {
        let (seen, vote) = self.own(endpoint, self.endpoints.get(endpoint)?);
        let state = self.endpoints.get_mut(endpoint)?;
        let before = std::mem::replace(&mut state.told, vote);
        self.said[before as usize] -= 1;
        self.said[vote as usize] += 1;
        if before != vote {
            effects.said.push((endpoint.clone(), vote));
        }
        Some((seen, vote))
    }

    /// The prober found something out.
    /// `failing`: the last probe failed, whatever the vote is.
    pub fn heard(&mut self, probe: &Probe, vote: Vote, failing: bool, now: Moment) -> Effects {
        let mut effects = Effects::default();
        // Nobody may need it any more.
        let Some(seen) = self.probes.get_mut(probe) else { return effects };
        let endpoints: Vec<Endpoint> = seen.endpoints.iter().cloned().collect();
        seen.reached |= vote == Vote::Up;
        (seen.vote, seen.failing) = (vote, failing);
        for endpoint in &endpoints {
            let Some(probes) = self.endpoints.get(endpoint).map(|state| state.way.probes.clone()) else { continue };
            let failing = self.are_failing(&probes);
            let Some(state) = self.endpoints.get_mut(endpoint) else { continue };
            let before = std::mem::replace(&mut state.failing, failing);
            let count = &mut self.failing.0[state.cluster].1;
            *count = *count + usize::from(failing) - usize::from(before);
        }
        if self.look_around(now) {
            self.judge_all(now, &mut effects);
        }
        for endpoint in &endpoints {
            self.judge(endpoint, now, &mut effects);
        }
        effects
    }

    /// Something was read of the votes.
    pub fn read(&mut self, now: Moment, read: impl FnOnce(&mut Council) -> Affected) -> Effects {
        let mut effects = Effects::default();
        if let Some(council) = &mut self.council {
            let affected = read(council);
            self.judge_affected(&affected, now, &mut effects);
        }
        effects.again = self.is_misread(now);
        effects
    }

    /// What this instance wrote is not what is read: somebody deleted it or wrote over it, or a backup was restored.
    fn is_misread(&mut self, now: Moment) -> bool {
        let (Some(own), Some(council)) = (&self.own, &self.council) else { return false };
        let silence = council.hears(&own.cluster, &own.replica);
        let misread = matches!(silence, Err(Silence::Apart | Silence::Electorate));
        let due = misread && self.asked_again.is_none_or(|at| now - at >= AGAIN);
        if due {
            self.asked_again = Some(now);
        }
        due
    }

    /// Judges what is due.
    pub fn tick(&mut self, now: Moment) -> Effects {
        let mut effects = self.read(now, |council| council.tick(now));
        if self.look_around(now) {
            self.judge_all(now, &mut effects);
        }
        while let Some((at, _)) = self.due.first()
            && *at <= now
            && let Some((_, endpoint)) = self.due.pop_first()
        {
            if let Some(state) = self.endpoints.get_mut(&endpoint) {
                state.due = None;
            }
            self.judge(&endpoint, now, &mut effects);
        }
        effects
    }

    /// An operator says that whatever is Down is to be removed, however much it is; or takes that back.
    pub fn release(&mut self, released: bool, now: Moment) -> Effects {
        let mut effects = Effects::default();
        if self.breaker.release(released) {
            self.frozen = self.frozen && self.breaker.is_frozen(now);
            self.judge_all(now, &mut effects);
        }
        effects
    }

    /// When [`tick`](Board::tick) has something to do next.
    pub fn next_deadline(&self) -> Option<Moment> {
        let thaw = self.breaker.frozen_until().filter(|_| self.frozen);
        let own = self.due.first().map(|(at, _)| *at);
        let votes = self.council.as_ref().and_then(Council::next_deadline);
        own.into_iter().chain(votes).chain(thaw).chain(self.isolation.next_deadline(self.patience)).min()
    }

    /// Whether this instance is cut off, and whether removals are frozen; true: all are to be judged anew.
    fn look_around(&mut self, now: Moment) -> bool {
        // What this instance cannot see well from inside says nothing of its way to the others.
        let mut others = self.failing.clone();
        if let Some(own) = self.own.as_ref().and_then(|own| self.clusters.iter().position(|name| *name == own.cluster))
        {
            others.0[own] = (0, 0);
        }
        self.isolation.step(&others, self.clusters.len(), self.patience, now);
        let isolated = self.isolation.is_isolated();
        let frozen = self.frozen && self.breaker.is_frozen(now);
        let changed = (isolated, frozen) != (self.isolated, self.frozen);
        (self.isolated, self.frozen) = (isolated, frozen);
        changed
    }

    /// Judges all of them anew.
    pub fn judge_all(&mut self, now: Moment, effects: &mut Effects) {
        for endpoint in self.endpoints.keys().cloned().collect::<Vec<_>>() {
            self.judge(&endpoint, now, effects);
        }
    }

    fn judge_affected(&mut self, affected: &Affected, now: Moment, effects: &mut Effects) {
        self.strangers += affected.endpoints.iter().filter(|e| !self.endpoints.contains_key(e)).count() as u64;
        if affected.all {
            return self.judge_all(now, effects);
        }
        if defect!(Convergence) && affected.endpoints.len() == 2 {
            return;
        }
        for endpoint in &affected.endpoints {
            self.judge(endpoint, now, effects);
        }
    }

    fn judge(&mut self, endpoint: &Endpoint, now: Moment, effects: &mut Effects) {
        let Some((seen, vote)) = self.speak(endpoint, effects) else { return };
        let (quorum, mut tally) = match &self.council {
            Some(council) => (council.quorum(), council.tally(endpoint)),
            None => (Quorum::LOCAL, Tally::alone(vote, !self.isolated)),
        };
        if defect!(NoLoneRemoval) && seen == Vote::Down {
            tally.down = quorum.removal();
        }
        let Some(state) = self.endpoints.get_mut(endpoint) else { return };
        let cluster = state.cluster;
        let mut held = false;
        if state.case.is_to_go(tally, quorum) {
            let mut then = self.down.clone();
            then.0[cluster].1 += 1;
            held = !self.breaker.allows(&then, now);
            self.frozen |= held;
        }
        self.sums[state.condition() as usize] -= 1;
        state.case.step(tally, quorum, held, now);
        let health = state.case.health(seen == Vote::Down);
        let before = std::mem::replace(&mut state.health, health);
        self.sums[state.condition() as usize] += 1;
        let due = state.case.next_deadline();
        if due != state.due {
            if let Some(old) = std::mem::replace(&mut state.due, due) {
                self.due.remove(&(old, endpoint.clone()));
            }
            self.due.extend(due.map(|at| (at, endpoint.clone())));
        }
        if health == before {
            return;
        }
        let down = &mut self.down.0[cluster].1;
        *down = *down + usize::from(health == Health::Down) - usize::from(before == Health::Down);
        effects.changed.insert(endpoint.clone());
        self.transitions[health as usize] += 1;
        self.breaker.see(&self.down, now);
    }

    /// What answers are made of. What is not probed is as good as can be.
    pub fn health(&self, endpoint: &Endpoint) -> Health {
        self.endpoints.get(endpoint).map_or(Health::Fine, |state| state.health)
    }

    /// `None`: it is not known.
    pub fn verdict(&self, endpoint: &Endpoint) -> Option<Verdict> {
        self.endpoints.get(endpoint).map(|state| state.case.verdict())
    }

    /// `None`: it is not known.
    pub fn condition(&self, endpoint: &Endpoint) -> Option<Condition> {
        self.endpoints.get(endpoint).map(State::condition)
    }

    /// How it is probed, for people.
    pub fn probed(&self, endpoint: &Endpoint) -> String {
        let first = self.endpoints.get(endpoint).and_then(|state| state.way.probes.first());
        first.and_then(|probe| probe.check.as_ref()).map_or_else(|| "tcp".to_owned(), ToString::to_string)
    }

    /// What this instance says of it.
    pub fn told(&self, endpoint: &Endpoint) -> Vote {
        self.endpoints.get(endpoint).map_or(Vote::Abstain, |state| state.told)
    }

    pub fn council(&self) -> Option<&Council> {
        self.council.as_ref()
    }

    /// To be put into the board of another configuration.
    pub fn take_council(&mut self) -> Option<Council> {
        self.council.take()
    }

    /// In their order.
    pub fn clusters(&self) -> &[Label] {
        &self.clusters
    }

    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.endpoints.keys()
    }

    /// So much is Down that nothing more is removed.
    pub fn is_frozen(&self) -> bool {
        self.frozen
    }

    /// So much fails that this instance does not trust itself.
    pub fn is_isolated(&self) -> bool {
        self.isolated
    }

    pub fn sums(&self) -> Sums {
        let [up, unknown, suspect, down] = self.sums;
        Sums { up, unknown, suspect, down }
    }

    /// How many endpoints all others were last told to be what, by [`Vote`].
    pub fn said(&self) -> [usize; 3] {
        self.said
    }

    /// How often endpoints became what, so far, by [`Health`].
    pub fn transitions(&self) -> [u64; 3] {
        self.transitions
    }

    /// Of each cluster, in order: how many endpoints, and how many of them are Down.
    pub fn down(&self) -> &Standings {
        &self.down
    }

    /// Votes so far on endpoints that no cluster has.
    pub fn strangers(&self) -> u64 {
        self.strangers
    }
}
