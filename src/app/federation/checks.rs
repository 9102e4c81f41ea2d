//! Which external addresses services have, what the prober says of them, and what follows from that.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::app::prober::{self, Counts, Heard, Order, Prober};
use crate::config::{Cluster, Config, Health as Rules};
use crate::health::{
    Breaker, Case, Endpoint, Health, Isolation, Probe, Quorum, Standings, Tally, Verdict, Vote, may_be_probed,
};
use crate::location::is_special_purpose;
use crate::metrics::HealthSample;
use crate::model::{ClusterId, Exposure, Moment, Protocol, ServiceKey, Share};
use crate::ranking::Ingress;

/// This instance alone decides.
const LOCAL: Quorum = Quorum::LOCAL;

/// What the configuration asks for, or nothing.
pub struct Checks {
    rules: Rules,
    prober: Link,
    endpoints: BTreeMap<Endpoint, State>,
    probes: HashMap<Probe, Seen>,
    /// What each service needs, where it needs any.
    services: HashMap<ServiceKey, Vec<Endpoint>>,
    due: BTreeSet<(Moment, Endpoint)>,
    /// Of each cluster's endpoints: how many, and how many of them are Down, or failed when they were probed last.
    down: Standings,
    failing: Standings,
    breaker: Breaker,
    isolation: Isolation,
    isolated: bool,
    frozen: bool,
    refused: BTreeSet<(ClusterId, IpAddr)>,
    /// How many endpoints are what, in the order of [`State::kind`].
    sums: [u64; 4],
}

/// The way to the prober and back.
pub struct Link {
    orders: mpsc::UnboundedSender<Order>,
    heard: mpsc::UnboundedReceiver<Heard>,
    counts: Arc<Counts>,
    task: JoinHandle<()>,
}

impl Link {
    /// Starts one.
    pub fn start(rules: &Rules, seed: u64) -> Link {
        let (orders, taken) = mpsc::unbounded_channel();
        let (tell, heard) = mpsc::unbounded_channel();
        let counts = Arc::new(Counts::default());
        let prober = Prober::new(rules.clone(), prober::connect, counts.clone(), prober::room(), seed);
        let task = tokio::spawn(prober.run(taken, tell));
        Link { orders, heard, counts, task }
    }

    fn order(&self, order: Order) {
        // It ends with us and not before.
        let _ = self.orders.send(order);
    }
}

#[derive(Default)]
struct State {
    users: BTreeSet<ServiceKey>,
    case: Case,
    health: Health,
    due: Option<Moment>,
}

impl State {
    /// Up, unknown, Suspect, Down.
    fn kind(&self) -> usize {
        match (self.health, self.case.verdict()) {
            (Health::Down, _) => 3,
            (Health::Suspect, _) => 2,
            (Health::Fine, Verdict::Unknown) => 1,
            (Health::Fine, Verdict::Up | Verdict::Down) => 0,
        }
    }
}

/// What the prober said last.
struct Seen {
    vote: Vote,
    failing: bool,
    /// It was Up once. Only then does it mean anything that a special-purpose address is not reached from here.
    reached: bool,
    endpoints: BTreeSet<Endpoint>,
}

/// The first port that speaks TCP.
fn port(share: &Share) -> Option<NonZeroU16> {
    share.ports.iter().find(|port| port.protocol == Protocol::Tcp).map(|port| port.number)
}

impl Checks {
    pub fn new(config: &Config, rules: &Rules, prober: Link) -> Checks {
        let clusters = vec![(0, 0); config.clusters.len()];
        Checks {
            rules: rules.clone(),
            prober,
            endpoints: BTreeMap::new(),
            probes: HashMap::new(),
            services: HashMap::new(),
            due: BTreeSet::new(),
            down: Standings(clusters.clone()),
            failing: Standings(clusters),
            breaker: Breaker::default(),
            isolation: Isolation::default(),
            isolated: false,
            frozen: false,
            refused: BTreeSet::new(),
            sums: [0; 4],
        }
    }

    /// The same for other numbers of the clusters; `None`: that cluster is gone. What services need is to be told anew.
    pub fn renumbered(self, config: &Config, rules: &Rules, new: impl Fn(ClusterId) -> Option<ClusterId>) -> Checks {
        let Checks { rules: before, prober, endpoints, probes, breaker, isolation, isolated, frozen, .. } = self;
        if before != *rules {
            prober.order(Order::Rules(rules.clone()));
        }
        let mut checks = Checks::new(config, rules, prober);
        (checks.breaker, checks.isolation) = (breaker.renumbered(config.clusters.len(), &new), isolation);
        (checks.isolated, checks.frozen) = (isolated, frozen);
        checks.probes = probes;
        checks.probes.values_mut().for_each(|seen| seen.endpoints.clear());
        for (Endpoint { cluster, probe }, state) in endpoints {
            let Some(cluster) = new(cluster) else { continue };
            let endpoint = Endpoint { cluster, probe };
            checks.enter(endpoint, State { users: BTreeSet::new(), ..state });
        }
        checks
    }

    /// To be called after [`renumbered`](Checks::renumbered), when all services were told.
    pub fn forget_unused(&mut self) {
        let unused = self.endpoints.iter().filter(|(_, state)| state.users.is_empty());
        for endpoint in unused.map(|(endpoint, _)| *endpoint).collect::<Vec<_>>() {
            self.leave(endpoint);
        }
        self.probes.retain(|probe, seen| {
            let used = !seen.endpoints.is_empty();
            if !used {
                self.prober.order(Order::End(*probe));
            }
            used
        });
    }

    /// Enters which endpoints a service has now. What nobody exports has none.
    pub fn need(&mut self, key: &ServiceKey, shares: &[Share], clusters: &[Cluster]) {
        let mut needed = Vec::new();
        let exported = shares.iter().filter(|share| share.exported || share.offered.is_some());
        for share in exported.filter(|share| share.exposure == Exposure::LoadBalancer) {
            let Some(port) = port(share) else { continue };
            for address in Ingress::of(share, &clusters[share.cluster.index()]).published {
                if may_be_probed(address) {
                    needed.push(Endpoint { cluster: share.cluster, probe: Probe { address, port } });
                } else if self.refused.len() < 100 && self.refused.insert((share.cluster, address)) {
                    let cluster = &clusters[share.cluster.index()].name;
                    warn!(%cluster, service = %key, %address, "this address is never probed, and served as it is");
                }
            }
        }
        if needed.is_empty() && !self.services.contains_key(key) {
            return;
        }
        needed.sort();
        needed.dedup();
        let before = match needed.is_empty() {
            true => self.services.remove(key),
            false => self.services.insert(key.clone(), needed.clone()),
        };
        for endpoint in &needed {
            if !self.endpoints.contains_key(endpoint) {
                self.enter(*endpoint, State::default());
            }
            if let Some(state) = self.endpoints.get_mut(endpoint) {
                state.users.insert(key.clone());
            }
        }
        for endpoint in before.unwrap_or_default().iter().filter(|endpoint| !needed.contains(endpoint)) {
            let Some(state) = self.endpoints.get_mut(endpoint) else { continue };
            state.users.remove(key);
            if state.users.is_empty() {
                self.leave(*endpoint);
                if self.probes.get(&endpoint.probe).is_some_and(|seen| seen.endpoints.is_empty()) {
                    self.probes.remove(&endpoint.probe);
                    self.prober.order(Order::End(endpoint.probe));
                }
            }
        }
    }

    fn enter(&mut self, endpoint: Endpoint, state: State) {
        let seen = self.probes.entry(endpoint.probe).or_insert_with(|| {
            self.prober.order(Order::Begin(endpoint.probe));
            Seen { vote: Vote::Abstain, failing: false, reached: false, endpoints: BTreeSet::new() }
        });
        seen.endpoints.insert(endpoint);
        let cluster = endpoint.cluster.index();
        self.down.0[cluster].0 += 1;
        self.failing.0[cluster].0 += 1;
        self.failing.0[cluster].1 += usize::from(seen.failing);
        self.down.0[cluster].1 += usize::from(state.health == Health::Down);
        self.due.extend(state.due.map(|at| (at, endpoint)));
        self.sums[state.kind()] += 1;
        self.endpoints.insert(endpoint, state);
    }

    fn leave(&mut self, endpoint: Endpoint) {
        let Some(state) = self.endpoints.remove(&endpoint) else { return };
        self.sums[state.kind()] -= 1;
        let cluster = endpoint.cluster.index();
        self.down.0[cluster].0 -= 1;
        self.failing.0[cluster].0 -= 1;
        self.down.0[cluster].1 -= usize::from(state.health == Health::Down);
        if let Some(at) = state.due {
            self.due.remove(&(at, endpoint));
        }
        if let Some(seen) = self.probes.get_mut(&endpoint.probe) {
            self.failing.0[cluster].1 -= usize::from(seen.failing);
            seen.endpoints.remove(&endpoint);
        }
    }

    /// What answers are made of.
    pub fn of(&self, share: &Share, address: IpAddr) -> Health {
        let endpoint = |port| Endpoint { cluster: share.cluster, probe: Probe { address, port } };
        port(share).and_then(|port| self.endpoints.get(&endpoint(port))).map_or(Health::Fine, |state| state.health)
    }

    /// What the prober says next. Nothing is lost if it is not waited for to the end.
    pub async fn next(&mut self) -> Heard {
        match self.prober.heard.recv().await {
            Some(heard) => heard,
            // It goes on for as long as it gets orders: without it, verdicts would stay as they are for ever.
            None => match (&mut self.prober.task).await {
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                Ok(()) | Err(_) => std::future::pending().await,
            },
        }
    }

    /// The same, if it is there already.
    pub fn waiting(&mut self) -> Option<Heard> {
        self.prober.heard.try_recv().ok()
    }

    /// Enters it. Gives the services that it changes.
    pub fn take(&mut self, heard: Heard, now: Moment) -> Vec<ServiceKey> {
        let Heard { probe, vote, failing } = heard;
        // Nobody may need it any more.
        let Some(seen) = self.probes.get_mut(&probe) else { return Vec::new() };
        let endpoints: Vec<Endpoint> = seen.endpoints.iter().copied().collect();
        let (was, is) = (usize::from(seen.failing), usize::from(failing));
        seen.reached |= vote == Vote::Up;
        (seen.vote, seen.failing) = (vote, failing);
        for endpoint in &endpoints {
            let count = &mut self.failing.0[endpoint.cluster.index()].1;
            *count = *count + is - was;
        }
        let mut changed = BTreeSet::new();
        if self.look_around(now) {
            self.judge_all(now, &mut changed);
        }
        for endpoint in endpoints {
            self.judge(endpoint, now, &mut changed);
        }
        changed.into_iter().collect()
    }

    /// Judges what is due. Gives the services that change.
    pub fn tick(&mut self, now: Moment) -> Vec<ServiceKey> {
        let mut changed = BTreeSet::new();
        if self.look_around(now) {
            self.judge_all(now, &mut changed);
        }
        while let Some(&(at, endpoint)) = self.due.first()
            && at <= now
        {
            self.due.pop_first();
            if let Some(state) = self.endpoints.get_mut(&endpoint) {
                state.due = None;
            }
            self.judge(endpoint, now, &mut changed);
        }
        changed.into_iter().collect()
    }

    /// When [`tick`](Checks::tick) has something to do next.
    pub fn next_deadline(&self) -> Option<Moment> {
        let thaw = self.breaker.frozen_until().filter(|_| self.frozen);
        let own = self.due.first().map(|(at, _)| *at);
        own.into_iter().chain(thaw).chain(self.isolation.next_deadline(self.patience())).min()
    }

    fn patience(&self) -> Duration {
        self.rules.interval * u32::from(self.rules.failures.rise.get())
    }

    /// Whether this instance is cut off, and whether removals are frozen; true: all are to be judged anew.
    fn look_around(&mut self, now: Moment) -> bool {
        self.isolation.step(&self.failing, self.failing.0.len(), self.patience(), now);
        let isolated = self.isolation.is_isolated();
        let mut changed = false;
        if isolated != self.isolated {
            self.isolated = isolated;
            changed = true;
            match isolated {
                true => warn!("half of the endpoints of too many clusters fail at once: this instance abstains"),
                false => info!("this instance votes again"),
            }
        }
        if self.frozen && !self.breaker.is_frozen(now) {
            self.frozen = false;
            changed = true;
            info!("endpoints may be removed again");
        }
        changed
    }

    fn judge_all(&mut self, now: Moment, changed: &mut BTreeSet<ServiceKey>) {
        for endpoint in self.endpoints.keys().copied().collect::<Vec<_>>() {
            self.judge(endpoint, now, changed);
        }
    }

    fn judge(&mut self, endpoint: Endpoint, now: Moment, changed: &mut BTreeSet<ServiceKey>) {
        let Endpoint { cluster, probe } = endpoint;
        let (Some(state), Some(seen)) = (self.endpoints.get_mut(&endpoint), self.probes.get(&probe)) else { return };
        let reachable = seen.reached || !is_special_purpose(probe.address);
        let said = if reachable { seen.vote } else { Vote::Abstain };
        let vote = if self.isolated { Vote::Abstain } else { said };
        let tally = Tally {
            down: usize::from(vote == Vote::Down),
            up: usize::from(vote == Vote::Up),
            fresh: usize::from(!self.isolated),
        };
        let mut held = false;
        if state.case.verdict() != Verdict::Down && tally.down >= LOCAL.removal() {
            let mut then = self.down.clone();
            then.0[cluster.index()].1 += 1;
            held = !self.breaker.allows(&then, now);
            if held && !std::mem::replace(&mut self.frozen, true) {
                warn!("so many endpoints are Down at once that none is removed for ten minutes");
            }
        }
        self.sums[state.kind()] -= 1;
        state.case.step(tally, LOCAL, held, now);
        let health = state.case.health(said == Vote::Down);
        let before = std::mem::replace(&mut state.health, health);
        self.sums[state.kind()] += 1;
        let due = state.case.next_deadline();
        if due != state.due {
            if let Some(old) = std::mem::replace(&mut state.due, due) {
                self.due.remove(&(old, endpoint));
            }
            self.due.extend(due.map(|at| (at, endpoint)));
        }
        if health == before {
            return;
        }
        let down = &mut self.down.0[cluster.index()].1;
        *down = *down + usize::from(health == Health::Down) - usize::from(before == Health::Down);
        changed.extend(state.users.iter().cloned());
        self.breaker.see(&self.down, now);
    }

    /// What is counted while nothing changes.
    pub fn counts(&self) -> Arc<Counts> {
        self.prober.counts.clone()
    }

    /// For metrics, but what [`counts`](Checks::counts) has.
    pub fn sample(&self) -> HealthSample {
        let [up, unknown, suspect, down] = self.sums;
        HealthSample {
            up,
            unknown,
            suspect,
            down,
            isolated: self.isolated,
            frozen: self.frozen,
            ..HealthSample::default()
        }
    }
}

#[cfg(test)]
mod tests;
