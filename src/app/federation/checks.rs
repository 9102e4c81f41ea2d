//! Which external addresses services have, what the prober says of them, and what follows from that.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::votes::Votes;
use crate::app::prober::{self, Counts, Heard, Order, Prober};
use crate::config::{self, Cluster, Config, Health as Rules};
use crate::explain::{Judged, Voted};
use crate::health::{
    Affected, Breaker, Case, Health, Isolation, Probe, Quorum, Standings, Tally, Verdict, Vote, may_be_probed,
};
use crate::index::Update;
use crate::location::is_special_purpose;
use crate::metrics::{HealthSample, VoterSample, WritesSample};
use crate::model::votes::{Endpoint, Host, HostPort};
use crate::model::{ClusterId, Exposure, Label, Moment, Protocol, ServiceKey, Share};
use crate::ranking::Ingress;

/// Addresses of one name that are tried.
const MOST_OF_A_NAME: usize = 3;
/// Refused addresses that are told.
const MOST_REFUSED: usize = 100;

/// What the configuration asks for, or nothing.
pub struct Checks {
    rules: Rules,
    prober: Link,
    /// `None`: this instance alone decides.
    votes: Option<Votes>,
    /// Of the clusters, in their order.
    names: Vec<Label>,
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
    refused: BTreeSet<(Label, IpAddr)>,
    /// How many endpoints are what, in the order of [`State::kind`].
    sums: [u64; 4],
    /// Votes on endpoints that no cluster has.
    strangers: u64,
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

struct State {
    /// Its number.
    cluster: ClusterId,
    users: BTreeSet<ServiceKey>,
    /// What is connected to. Of a name, some of the addresses that it leads to from here.
    probes: Vec<Probe>,
    /// The cluster's own clients go all the way to the load balancer (`ipMode: Proxy`).
    is_proxied: bool,
    case: Case,
    health: Health,
    due: Option<Moment>,
    /// All of its probes failed when they were tried last.
    failing: bool,
    /// What all others were told last.
    told: Vote,
}

/// What a service needs of an endpoint.
struct Need {
    cluster: ClusterId,
    probes: Vec<Probe>,
    is_proxied: bool,
}

impl State {
    fn new(Need { cluster, probes, is_proxied }: Need) -> State {
        State {
            cluster,
            users: BTreeSet::new(),
            probes,
            is_proxied,
            case: Case::default(),
            health: Health::default(),
            due: None,
            failing: false,
            told: Vote::Abstain,
        }
    }

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

impl Seen {
    fn vote(&self, probe: &Probe) -> Vote {
        if self.reached || !is_special_purpose(probe.address) { self.vote } else { Vote::Abstain }
    }
}

/// The name behind which an address of a share was found; `None`: it is the share's own.
pub type Named<'a> = dyn Fn(&Share, IpAddr) -> Option<Arc<str>> + 'a;

/// The first port that speaks TCP.
fn port(share: &Share) -> Option<NonZeroU16> {
    share.ports.iter().find(|port| port.protocol == Protocol::Tcp).map(|port| port.number)
}

impl Checks {
    /// `votes`: those of the majority that decides; `None`: this instance alone does.
    pub fn new(config: &Config, rules: &Rules, prober: Link, votes: Option<Votes>) -> Checks {
        let clusters = vec![(0, 0); config.clusters.len()];
        Checks {
            rules: rules.clone(),
            prober,
            votes,
            names: config.clusters.iter().map(|cluster| cluster.name.clone()).collect(),
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
            strangers: 0,
        }
    }

    /// The same for other clusters. What services need is to be told anew.
    /// `new`: the new number of a cluster; `None`: it is gone. `seed`: random.
    pub fn renumbered(
        self,
        config: &Config,
        rules: &Rules,
        new: impl Fn(ClusterId) -> Option<ClusterId>,
        seed: u64,
        now: Moment,
    ) -> Checks {
        let Checks { rules: before, prober, votes, endpoints, probes, breaker, isolation, isolated, frozen, .. } = self;
        if before != *rules {
            prober.order(Order::Rules(rules.clone()));
        }
        let (votes, anew) = match (votes, &rules.quorum) {
            (_, config::Quorum::Local) => (None, false),
            (None, config::Quorum::Majority(majority)) => (Some(Votes::new(config, majority, seed)), true),
            (Some(mut votes), config::Quorum::Majority(majority)) => {
                let anew = votes.reconfigure(config, majority, seed, now);
                (Some(votes), anew)
            }
        };
        let mut checks = Checks::new(config, rules, prober, votes);
        checks.strangers = self.strangers;
        (checks.breaker, checks.isolation) = (breaker.renumbered(config.clusters.len(), &new), isolation);
        (checks.isolated, checks.frozen) = (isolated, frozen);
        checks.probes = probes;
        checks.probes.values_mut().for_each(|seen| seen.endpoints.clear());
        for (endpoint, state) in endpoints {
            let Some(cluster) = new(state.cluster) else { continue };
            let told = if anew { Vote::Abstain } else { state.told };
            checks.enter(endpoint, State { cluster, users: BTreeSet::new(), told, ..state });
        }
        checks
    }

    /// To be called after [`renumbered`](Checks::renumbered), when all services were told. Gives the services that change.
    pub fn forget_unused(&mut self, now: Moment) -> Vec<ServiceKey> {
        let unused = self.endpoints.iter().filter(|(_, state)| state.users.is_empty());
        for endpoint in unused.map(|(endpoint, _)| endpoint.clone()).collect::<Vec<_>>() {
            self.leave(&endpoint);
        }
        self.probes.retain(|probe, seen| {
            let used = !seen.endpoints.is_empty();
            if !used {
                self.prober.order(Order::End(*probe));
            }
            used
        });
        // Others may vote now, and this instance may have to say again what it says.
        let mut changed = BTreeSet::new();
        self.judge_all(now, &mut changed);
        changed.into_iter().collect()
    }

    /// Enters which endpoints a service has now. What nobody exports has none.
    pub fn need(&mut self, key: &ServiceKey, shares: &[Share], clusters: &[Cluster], named: &Named<'_>) {
        let mut needed: BTreeMap<Endpoint, Need> = BTreeMap::new();
        let exported = shares.iter().filter(|share| share.exported || share.offered.is_some());
        for share in exported.filter(|share| share.exposure == Exposure::LoadBalancer) {
            let Some(port) = port(share) else { continue };
            let cluster = &clusters[share.cluster.index()];
            for address in Ingress::of(share, cluster).published {
                if !may_be_probed(address) || is_of_another(address, share.cluster, clusters) {
                    if self.refused.len() < MOST_REFUSED && self.refused.insert((cluster.name.clone(), address)) {
                        let cluster = &cluster.name;
                        warn!(%cluster, service = %key, %address, "this address is never probed, and served as it is");
                    }
                    continue;
                }
                let host = named(share, address).map_or(Host::Address(address), Host::Name);
                let endpoint = Endpoint { cluster: cluster.name.clone(), host, port };
                let new = || Need { cluster: share.cluster, probes: Vec::new(), is_proxied: share.proxied };
                needed.entry(endpoint).or_insert_with(new).probes.push(Probe { address, port });
            }
        }
        if needed.is_empty() && !self.services.contains_key(key) {
            return;
        }
        let before = match needed.is_empty() {
            true => self.services.remove(key),
            false => self.services.insert(key.clone(), needed.keys().cloned().collect()),
        };
        let ended: Vec<Endpoint> =
            before.unwrap_or_default().into_iter().filter(|endpoint| !needed.contains_key(endpoint)).collect();
        for (endpoint, mut need) in needed {
            let known = self.endpoints.get(&endpoint).map(|state| state.probes.as_slice()).unwrap_or_default();
            // Of a name that leads to now these and now those, what is probed already goes on.
            need.probes.sort_by_key(|probe| (!known.contains(probe), *probe));
            need.probes.truncate(MOST_OF_A_NAME);
            need.probes.sort();
            match self.endpoints.get_mut(&endpoint) {
                Some(state) if state.probes == need.probes => state.is_proxied = need.is_proxied,
                // A name leads to other addresses now.
                Some(_) => {
                    let Some(state) = self.leave(&endpoint) else { continue };
                    let Need { probes, is_proxied, .. } = need;
                    let before = state.probes.clone();
                    self.enter(endpoint.clone(), State { probes, is_proxied, ..state });
                    self.forget_probes(&before);
                    self.speak(&endpoint);
                }
                None => self.enter(endpoint.clone(), State::new(need)),
            }
            if let Some(state) = self.endpoints.get_mut(&endpoint) {
                state.users.insert(key.clone());
            }
        }
        for endpoint in ended {
            let Some(state) = self.endpoints.get_mut(&endpoint) else { continue };
            state.users.remove(key);
            if state.users.is_empty()
                && let Some(state) = self.leave(&endpoint)
            {
                self.forget_probes(&state.probes);
                self.say(&endpoint, state.told, Vote::Abstain);
            }
        }
    }

    /// Those that nobody needs any more.
    fn forget_probes(&mut self, probes: &[Probe]) {
        for probe in probes {
            if self.probes.get(probe).is_some_and(|seen| seen.endpoints.is_empty()) {
                self.probes.remove(probe);
                self.prober.order(Order::End(*probe));
            }
        }
    }

    fn enter(&mut self, endpoint: Endpoint, mut state: State) {
        for probe in &state.probes {
            let seen = self.probes.entry(*probe).or_insert_with(|| {
                self.prober.order(Order::Begin(*probe));
                Seen { vote: Vote::Abstain, failing: false, reached: false, endpoints: BTreeSet::new() }
            });
            seen.endpoints.insert(endpoint.clone());
        }
        state.failing = self.are_failing(&state.probes);
        let cluster = state.cluster.index();
        self.down.0[cluster].0 += 1;
        self.failing.0[cluster].0 += 1;
        self.failing.0[cluster].1 += usize::from(state.failing);
        self.down.0[cluster].1 += usize::from(state.health == Health::Down);
        self.due.extend(state.due.map(|at| (at, endpoint.clone())));
        self.sums[state.kind()] += 1;
        self.endpoints.insert(endpoint, state);
    }

    fn leave(&mut self, endpoint: &Endpoint) -> Option<State> {
        let state = self.endpoints.remove(endpoint)?;
        self.sums[state.kind()] -= 1;
        let cluster = state.cluster.index();
        self.down.0[cluster].0 -= 1;
        self.failing.0[cluster].0 -= 1;
        self.down.0[cluster].1 -= usize::from(state.health == Health::Down);
        self.failing.0[cluster].1 -= usize::from(state.failing);
        if let Some(at) = state.due {
            self.due.remove(&(at, endpoint.clone()));
        }
        for probe in &state.probes {
            if let Some(seen) = self.probes.get_mut(probe) {
                seen.endpoints.remove(endpoint);
            }
        }
        Some(state)
    }

    fn are_failing(&self, probes: &[Probe]) -> bool {
        probes.iter().all(|probe| self.probes.get(probe).is_some_and(|seen| seen.failing))
    }

    /// What this instance says of an endpoint, whatever else is the case: Up if one of its addresses is.
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
        let is_own = self.votes.as_ref().and_then(Votes::own) == Some(&endpoint.cluster);
        // From inside, connections to the cluster's own load balancer may never leave it.
        let seen = if is_own && !state.is_proxied { Vote::Abstain } else { self.seen(&state.probes) };
        (seen, if self.isolated && !is_own { Vote::Abstain } else { seen })
    }

    /// Tells the others, if it is something else than before.
    fn speak(&mut self, endpoint: &Endpoint) {
        let Some(state) = self.endpoints.get(endpoint) else { return };
        let (_, vote) = self.own(endpoint, state);
        self.say(endpoint, state.told, vote);
        if let Some(state) = self.endpoints.get_mut(endpoint) {
            state.told = vote;
        }
    }

    fn say(&self, endpoint: &Endpoint, before: Vote, vote: Vote) {
        if let Some(votes) = self.votes.as_ref().filter(|_| vote != before) {
            votes.say(endpoint, vote);
        }
    }

    /// What answers are made of.
    pub fn of(&self, share: &Share, address: IpAddr, named: &Named<'_>) -> Health {
        let Some(port) = port(share) else { return Health::Fine };
        let host = named(share, address).map_or(Host::Address(address), Host::Name);
        let endpoint = Endpoint { cluster: self.names[share.cluster.index()].clone(), host, port };
        self.endpoints.get(&endpoint).map_or(Health::Fine, |state| state.health)
    }

    /// What the prober says next. Nothing is lost if it is not waited for to the end.
    pub async fn next(&mut self) -> Heard {
        let Checks { prober, votes, .. } = self;
        let ended = async {
            match votes {
                Some(votes) => votes.ended().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            heard = prober.heard.recv() => match heard {
                Some(heard) => heard,
                // It goes on for as long as it gets orders: without it, verdicts would stay as they are for ever.
                None => match (&mut prober.task).await {
                    Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                    Ok(()) | Err(_) => std::future::pending().await,
                },
            },
            () = ended => std::future::pending().await,
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
        let endpoints: Vec<Endpoint> = seen.endpoints.iter().cloned().collect();
        seen.reached |= vote == Vote::Up;
        (seen.vote, seen.failing) = (vote, failing);
        for endpoint in &endpoints {
            let Some(probes) = self.endpoints.get(endpoint).map(|state| state.probes.clone()) else { continue };
            let failing = self.are_failing(&probes);
            let Some(state) = self.endpoints.get_mut(endpoint) else { continue };
            let before = std::mem::replace(&mut state.failing, failing);
            let count = &mut self.failing.0[state.cluster.index()].1;
            *count = *count + usize::from(failing) - usize::from(before);
        }
        let mut changed = BTreeSet::new();
        if self.look_around(now) {
            self.judge_all(now, &mut changed);
        }
        for endpoint in &endpoints {
            self.judge(endpoint, now, &mut changed);
        }
        changed.into_iter().collect()
    }

    /// Enters what a cluster's source read of its votes. Gives the services that it changes.
    pub fn hear(&mut self, cluster: ClusterId, update: Update, now: Moment) -> Vec<ServiceKey> {
        let Some(votes) = &mut self.votes else { return Vec::new() };
        let affected = votes.hear(&self.names[cluster.index()], update, now);
        let mut changed = BTreeSet::new();
        self.judge_affected(affected, now, &mut changed);
        changed.into_iter().collect()
    }

    /// Judges what is due. Gives the services that change.
    pub fn tick(&mut self, now: Moment) -> Vec<ServiceKey> {
        let mut changed = BTreeSet::new();
        let affected = self.votes.as_mut().map(|votes| votes.tick(now)).unwrap_or_default();
        self.judge_affected(affected, now, &mut changed);
        if self.look_around(now) {
            self.judge_all(now, &mut changed);
        }
        while let Some((at, _)) = self.due.first()
            && *at <= now
            && let Some((_, endpoint)) = self.due.pop_first()
        {
            if let Some(state) = self.endpoints.get_mut(&endpoint) {
                state.due = None;
            }
            self.judge(&endpoint, now, &mut changed);
        }
        changed.into_iter().collect()
    }

    /// When [`tick`](Checks::tick) has something to do next.
    pub fn next_deadline(&self) -> Option<Moment> {
        let thaw = self.breaker.frozen_until().filter(|_| self.frozen);
        let own = self.due.first().map(|(at, _)| *at);
        let votes = self.votes.as_ref().and_then(Votes::next_deadline);
        own.into_iter().chain(votes).chain(thaw).chain(self.isolation.next_deadline(self.patience())).min()
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
        for endpoint in self.endpoints.keys().cloned().collect::<Vec<_>>() {
            self.judge(&endpoint, now, changed);
        }
    }

    fn judge_affected(&mut self, affected: Affected, now: Moment, changed: &mut BTreeSet<ServiceKey>) {
        self.strangers += affected.endpoints.iter().filter(|e| !self.endpoints.contains_key(e)).count() as u64;
        if affected.all {
            return self.judge_all(now, changed);
        }
        for endpoint in &affected.endpoints {
            self.judge(endpoint, now, changed);
        }
    }

    fn judge(&mut self, endpoint: &Endpoint, now: Moment, changed: &mut BTreeSet<ServiceKey>) {
        let Some(state) = self.endpoints.get(endpoint) else { return };
        let (seen, vote) = self.own(endpoint, state);
        self.say(endpoint, state.told, vote);
        let (quorum, tally) = match &self.votes {
            Some(votes) => (votes.quorum(), votes.tally(endpoint)),
            None => (Quorum::LOCAL, Tally::alone(vote, !self.isolated)),
        };
        let Some(state) = self.endpoints.get_mut(endpoint) else { return };
        state.told = vote;
        let cluster = state.cluster.index();
        let mut held = false;
        if state.case.is_to_go(tally, quorum) {
            let mut then = self.down.clone();
            then.0[cluster].1 += 1;
            held = !self.breaker.allows(&then, now);
            if held && !std::mem::replace(&mut self.frozen, true) {
                warn!("so many endpoints are Down at once that none is removed for ten minutes");
            }
        }
        self.sums[state.kind()] -= 1;
        state.case.step(tally, quorum, held, now);
        let health = state.case.health(seen == Vote::Down);
        let before = std::mem::replace(&mut state.health, health);
        self.sums[state.kind()] += 1;
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
            refused: self.refused.len() as u64,
            strangers: self.strangers,
            ..HealthSample::default()
        }
    }

    /// For people: how the endpoints of a service are judged, and by whom.
    pub fn judged(&self, service: &ServiceKey, now: Moment) -> Vec<Judged> {
        let word = |vote| match vote {
            Vote::Up => "up",
            Vote::Down => "down",
            Vote::Abstain => "abstains",
        };
        let judged = |endpoint: &Endpoint| {
            let state = self.endpoints.get(endpoint)?;
            let votes = match &self.votes {
                Some(votes) => votes.of(endpoint, |cluster, vote, heard| Voted {
                    cluster: Some(cluster.to_string()),
                    vote: word(vote).to_owned(),
                    heard_seconds: heard.map(|at| (now - at).as_secs_f64()),
                }),
                None => vec![Voted { cluster: None, vote: word(state.told).to_owned(), heard_seconds: None }],
            };
            Some(Judged {
                cluster: endpoint.cluster.to_string(),
                endpoint: HostPort { host: endpoint.host.clone(), port: endpoint.port }.to_string(),
                health: ["up", "unknown", "suspect", "down"][state.kind()].to_owned(),
                votes,
            })
        };
        self.services.get(service).into_iter().flatten().filter_map(judged).collect()
    }

    /// For metrics: who votes, and how this instance's own word gets there. `None`: it decides alone.
    pub fn votes(&self) -> Option<(Vec<VoterSample>, WritesSample)> {
        self.votes.as_ref().map(|votes| (votes.sample(), votes.writes()))
    }
}

/// Another cluster's load balancers are in a range that holds the address, and this one's are not.
fn is_of_another(address: IpAddr, cluster: ClusterId, clusters: &[Cluster]) -> bool {
    let declares = |cluster: &Cluster| cluster.ingress_cidrs.iter().any(|cidr| cidr.contains(&address));
    !declares(&clusters[cluster.index()]) && clusters.iter().any(declares)
}

#[cfg(test)]
mod tests;
