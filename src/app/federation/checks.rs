//! Which external addresses services have, what the prober says of them, and what follows from that.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::votes::{Change, Voice, changes, enter, outlived, own};
use crate::app::prober::{self, Counts, Heard, Order, Prober};
use crate::config::{self, Cluster, Config, Health as Rules};
use crate::explain::{Judged, Voted};
use crate::health::{
    Affected, Board, Condition, Council, Effects, Health, Probe, Silence, Sums, Vote, VoterSight, Way, may_be_probed,
};
use crate::index::{Object, Update};
use crate::metrics::{HealthSample, VoterSample, WritesSample};
use crate::model::check::{Check, How};
use crate::model::votes::{Endpoint, Host};
use crate::model::{ClusterId, Exposure, Label, Moment, Protocol, ServiceKey, Share};
use crate::ranking::Ingress;

/// Refused addresses that are told.
const MOST_REFUSED: usize = 100;

/// What the configuration asks for, or nothing.
pub struct Checks {
    rules: Rules,
    prober: Link,
    board: Board,
    /// The way to all others; `None`: this instance says nothing to anybody.
    voice: Option<Voice>,
    /// What each service needs, where it needs any, and who needs what.
    services: HashMap<ServiceKey, Vec<Endpoint>>,
    users: HashMap<Endpoint, BTreeSet<ServiceKey>>,
    refused: BTreeSet<(Label, IpAddr)>,
    /// Objects of clusters that are no voters, or have too many of them.
    unheard: u64,
    /// What was said of it last.
    isolated: bool,
    frozen: bool,
    /// What happened, for people, until somebody takes it.
    happened: Vec<Happened>,
}

/// Something that people want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happened {
    /// Of which cluster; `None`: of this instance.
    pub cluster: Option<Label>,
    pub text: String,
}

/// Endpoints of one step that are told by name.
const MOST_TOLD: usize = 10;

/// The way to the prober and back.
pub struct Link {
    orders: mpsc::UnboundedSender<Order>,
    heard: mpsc::UnboundedReceiver<Heard>,
    counts: Arc<Counts>,
    task: Option<JoinHandle<()>>,
}

impl Link {
    /// Starts one.
    pub fn start(rules: &Rules, seed: u64) -> Link {
        let (orders, taken) = mpsc::unbounded_channel();
        let (tell, heard) = mpsc::unbounded_channel();
        let counts = Arc::new(Counts::default());
        let prober = Prober::new(rules.clone(), prober::attempts(), counts.clone(), prober::room(), seed);
        let task = Some(tokio::spawn(prober.run(taken, tell)));
        Link { orders, heard, counts, task }
    }

    fn order(&self, order: Order) {
        // It ends with us and not before.
        let _ = self.orders.send(order);
    }
}

/// The name behind which an address of a share was found; `None`: it is the share's own.
pub type Named<'a> = dyn Fn(&Share, IpAddr) -> Option<Arc<str>> + 'a;

/// What is probed of its ports: what it asks for, or the first that speaks TCP. `None`: nothing of it.
fn port(share: &Share) -> Option<NonZeroU16> {
    let asked = match share.check.as_deref() {
        Some(Check { how: How::Nothing, .. }) => return None,
        Some(check) => check.port,
        None => None,
    };
    asked.or_else(|| share.ports.iter().find(|port| port.protocol == Protocol::Tcp).map(|port| port.number))
}

/// Those who decide; `None`: this instance alone.
fn council(config: &Config, rules: &Rules) -> Option<Council> {
    match &rules.quorum {
        config::Quorum::Local => None,
        config::Quorum::Majority(majority) => Some(Council::new(&config.voters(), majority.alone)),
    }
}

/// For how long it must have been over that this instance seemed to be cut off.
fn patience(rules: &Rules) -> Duration {
    rules.interval * u32::from(rules.failures.rise.get())
}

/// A service that has a check of its own has verdicts of its own.
fn judged_alone(key: &ServiceKey, share: &Share) -> Option<ServiceKey> {
    share.check.is_some().then(|| key.clone())
}

fn names(config: &Config) -> Vec<Label> {
    config.clusters.iter().map(|cluster| cluster.name.clone()).collect()
}

impl Checks {
    /// `seed`: random, another one for each start.
    pub fn start(config: &Config, rules: &Rules, seed: u64) -> Checks {
        let prober = Link::start(rules, seed);
        let mut checks = Checks::new(config, rules, prober, None);
        checks.announce(rules);
        checks.voice = Voice::start(config, rules, checks.board.council(), seed);
        checks
    }

    fn new(config: &Config, rules: &Rules, prober: Link, voice: Option<Voice>) -> Checks {
        Checks {
            rules: rules.clone(),
            prober,
            board: Board::new(names(config), own(config, rules), council(config, rules), patience(rules)),
            voice,
            services: HashMap::new(),
            users: HashMap::new(),
            refused: BTreeSet::new(),
            unheard: 0,
            isolated: false,
            frozen: false,
            happened: Vec::new(),
        }
    }

    fn announce(&self, rules: &Rules) {
        let Some(council) = self.board.council() else { return };
        let (voters, needed) = (council.voters().count(), council.quorum().removal());
        if needed > voters {
            warn!(voters, needed, "with so few voters nothing can be removed: votes change the order of answers only");
        }
        if let config::Quorum::Majority(config::Majority { own: None, .. }) = &rules.quorum {
            info!("this instance counts votes and has none: health.cluster does not say where it is");
        }
    }

    /// The same for other clusters. What services need is to be told anew.
    /// `seed`: random, another one for each start.
    pub fn reconfigured(self, config: &Config, rules: &Rules, seed: u64, now: Moment) -> Checks {
        let Checks { rules: before, prober, mut board, voice, isolated, frozen, .. } = self;
        if before != *rules {
            prober.order(Order::Rules(rules.clone()));
        }
        let old = board.take_council();
        let new = council(config, rules);
        let same = |old: &Council, new: &Council| (old.electorate(), old.quorum()) == (new.electorate(), new.quorum());
        let new = match (old, new, &rules.quorum) {
            (Some(old), Some(new), _) if same(&old, &new) => Some(old),
            (Some(old), Some(_), config::Quorum::Majority(majority)) => {
                Some(old.reformed(&config.voters(), majority.alone, now))
            }
            (_, new, _) => new,
        };
        let voice = match voice {
            Some(voice) if voice.serves(config, rules, new.as_ref()) => (Some(voice), false),
            _ => (Voice::start(config, rules, new.as_ref(), seed), true),
        };
        let (voice, is_heard_anew) = voice;
        let (board, effects) = board.reformed(names(config), own(config, rules), new, patience(rules), is_heard_anew);
        let mut checks = Checks::new(config, rules, prober, voice);
        (checks.board, checks.isolated, checks.frozen) = (board, isolated, frozen);
        checks.unheard = self.unheard;
        checks.users = checks.board.endpoints().map(|endpoint| (endpoint.clone(), BTreeSet::new())).collect();
        checks.act(effects);
        checks
    }

    /// To be called after [`reconfigured`](Checks::reconfigured), when all services were told. Gives the services that change.
    pub fn forget_unused(&mut self, now: Moment) -> Vec<ServiceKey> {
        let unused = self.users.iter().filter(|(_, users)| users.is_empty());
        for endpoint in unused.map(|(endpoint, _)| endpoint.clone()).collect::<Vec<_>>() {
            self.users.remove(&endpoint);
            let effects = self.board.leave(&endpoint);
            self.act(effects);
        }
        // Others may vote now, and this instance may have to say again what it says.
        let mut effects = Effects::default();
        self.board.judge_all(now, &mut effects);
        self.act(effects)
    }

    /// Enters which endpoints a service has now. What nobody exports has none.
    pub fn need(&mut self, key: &ServiceKey, shares: &[Share], clusters: &[Cluster], named: &Named<'_>) {
        let mut needed: BTreeMap<Endpoint, Way> = BTreeMap::new();
        let exported = shares.iter().filter(|share| share.exported || share.offered.is_some());
        for share in exported.filter(|share| share.exposure == Exposure::LoadBalancer) {
            let Some(port) = port(share) else { continue };
            let cluster = &clusters[share.cluster.index()];
            for address in Ingress::of(share, cluster).inside {
                if !may_be_probed(address) || is_of_another(address, share.cluster, clusters) {
                    if self.refused.len() < MOST_REFUSED && self.refused.insert((cluster.name.clone(), address)) {
                        let cluster = &cluster.name;
                        warn!(%cluster, service = %key, %address, "this address is never probed, and served as it is");
                    }
                    continue;
                }
                let host = named(share, address).map_or(Host::Address(address), Host::Name);
                let service = judged_alone(key, share);
                let endpoint = Endpoint { cluster: cluster.name.clone(), host, port, service };
                let new = || Way { probes: Vec::new(), is_proxied: share.proxied };
                needed.entry(endpoint).or_insert_with(new).probes.push(Probe {
                    address,
                    port,
                    check: share.check.clone(),
                });
            }
        }
        if needed.is_empty() && !self.services.contains_key(key) {
            return;
        }
        let before = match needed.is_empty() {
            true => self.services.remove(key),
            false => self.services.insert(key.clone(), needed.keys().cloned().collect()),
        };
        for endpoint in before.unwrap_or_default().iter().filter(|endpoint| !needed.contains_key(endpoint)) {
            let Some(users) = self.users.get_mut(endpoint) else { continue };
            users.remove(key);
            if users.is_empty() {
                self.users.remove(endpoint);
                let effects = self.board.leave(endpoint);
                self.act(effects);
            }
        }
        for (endpoint, way) in needed {
            let effects = self.board.enter(&endpoint, way);
            self.users.entry(endpoint).or_default().insert(key.clone());
            self.act(effects);
        }
    }

    /// Does what a step comes to. Gives the services that it changes.
    fn act(&mut self, effects: Effects) -> Vec<ServiceKey> {
        let Effects { changed, said, again, begun, ended } = effects;
        begun.into_iter().for_each(|probe| self.prober.order(Order::Begin(probe)));
        ended.into_iter().for_each(|probe| self.prober.order(Order::End(probe)));
        if let Some(voice) = &self.voice {
            said.iter().for_each(|(endpoint, vote)| voice.say(endpoint, *vote));
            if again {
                voice.again();
            }
        }
        self.tell(&changed);
        let (isolated, frozen) = (self.board.is_isolated(), self.board.is_frozen());
        match (std::mem::replace(&mut self.isolated, isolated), isolated) {
            (false, true) => {
                self.trouble("half of the endpoints of too many clusters fail at once: this instance abstains")
            }
            (true, false) => self.relief("this instance votes again"),
            (false, false) | (true, true) => {}
        }
        match (std::mem::replace(&mut self.frozen, frozen), frozen) {
            (false, true) => self.trouble("so many endpoints are Down at once that none is removed for ten minutes"),
            (true, false) => self.relief("endpoints may be removed again"),
            (false, false) | (true, true) => {}
        }
        let services: BTreeSet<&ServiceKey> = changed.iter().filter_map(|e| self.users.get(e)).flatten().collect();
        services.into_iter().cloned().collect()
    }

    fn trouble(&mut self, text: &str) {
        warn!("{text}");
        self.happened.push(Happened { cluster: None, text: text.to_owned() });
    }

    fn relief(&mut self, text: &str) {
        info!("{text}");
        self.happened.push(Happened { cluster: None, text: text.to_owned() });
    }

    fn tell(&mut self, changed: &BTreeSet<Endpoint>) {
        for endpoint in changed.iter().take(MOST_TOLD) {
            // What is gone was told with its service.
            let Some(condition) = self.board.condition(endpoint) else { continue };
            let text = format!("{} is {}", endpoint.way(), condition.word());
            self.happened.push(Happened { cluster: Some(endpoint.cluster.clone()), text });
        }
        if let Some(more) = changed.len().checked_sub(MOST_TOLD).filter(|more| *more > 0) {
            self.happened.push(Happened { cluster: None, text: format!("and {more} more endpoints at once") });
        }
    }

    /// What happened since this was asked last.
    pub fn happened(&mut self) -> Vec<Happened> {
        std::mem::take(&mut self.happened)
    }

    /// However much is Down at once, it is removed, until that is taken back. Gives the services that change.
    pub fn release(&mut self, released: bool, now: Moment) -> Vec<ServiceKey> {
        let effects = self.board.release(released, now);
        self.act(effects)
    }

    /// What answers are made of.
    pub fn of(&self, key: &ServiceKey, share: &Share, address: IpAddr, named: &Named<'_>) -> Health {
        let Some(port) = port(share) else { return Health::Fine };
        let host = named(share, address).map_or(Host::Address(address), Host::Name);
        let cluster = self.board.clusters()[share.cluster.index()].clone();
        self.board.health(&Endpoint { cluster, host, port, service: judged_alone(key, share) })
    }

    /// What the prober says next. Nothing is lost if it is not waited for to the end.
    pub async fn next(&mut self) -> Heard {
        let Checks { prober, voice, .. } = self;
        let ended = async {
            match voice {
                Some(voice) => voice.ended().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            heard = prober.heard.recv() => match heard {
                Some(heard) => heard,
                // It goes on for as long as it gets orders: without it, verdicts would stay as they are for ever.
                None => outlived(&mut prober.task).await,
            },
            ended = ended => ended,
        }
    }

    /// The same, if it is there already.
    pub fn waiting(&mut self) -> Option<Heard> {
        self.prober.heard.try_recv().ok()
    }

    /// Enters it. Gives the services that it changes.
    pub fn take(&mut self, heard: Heard, now: Moment) -> Vec<ServiceKey> {
        let effects = self.board.heard(&heard.probe, heard.vote, heard.failing, now);
        self.act(effects)
    }

    /// Enters what a cluster's source read of its votes: whatever is in it, it is that cluster's word and nobody else's. Gives the
    /// services that it changes.
    pub fn hear(&mut self, cluster: ClusterId, update: Update, now: Moment) -> Vec<ServiceKey> {
        let cluster = &self.board.clusters()[cluster.index()].clone();
        let (voice, unheard) = (&mut self.voice, &mut self.unheard);
        let effects = self.board.read(now, |council| {
            let mut all = Affected::default();
            for change in changes(council, cluster, update) {
                if let (Change::Is(Object::Heartbeat(beat)), Some(voice)) = (&change, voice.as_mut()) {
                    voice.notice(cluster, beat);
                }
                let Affected { endpoints, all: concerns_all, refused } = enter(council, cluster, change, now);
                *unheard += u64::from(refused);
                all.all |= concerns_all;
                all.endpoints.extend(endpoints);
            }
            all
        });
        self.act(effects)
    }

    /// Judges what is due. Gives the services that change.
    pub fn tick(&mut self, now: Moment) -> Vec<ServiceKey> {
        let effects = self.board.tick(now);
        self.act(effects)
    }

    /// When [`tick`](Checks::tick) has something to do next.
    pub fn next_deadline(&self) -> Option<Moment> {
        self.board.next_deadline()
    }

    /// What is counted while nothing changes.
    pub fn counts(&self) -> Arc<Counts> {
        self.prober.counts.clone()
    }

    /// For metrics, but what [`counts`](Checks::counts) has.
    pub fn sample(&self) -> HealthSample {
        let Sums { up, unknown, suspect, down } = self.board.sums();
        let named = |words: [&'static str; 3], counts: [u64; 3]| words.into_iter().zip(counts).collect();
        HealthSample {
            votes: named(["up", "down", "abstain"], self.board.said().map(|count| count as u64)),
            transitions: named(["fine", "suspect", "down"], self.board.transitions()),
            up: up as u64,
            unknown: unknown as u64,
            suspect: suspect as u64,
            down: down as u64,
            isolated: self.board.is_isolated(),
            frozen: self.board.is_frozen(),
            refused: self.refused.len() as u64,
            strangers: self.board.strangers(),
            ..HealthSample::default()
        }
    }

    /// How many of a service's endpoints are what, by cluster.
    pub fn sums_of(&self, service: &ServiceKey) -> BTreeMap<Label, Sums> {
        let mut sums = BTreeMap::<Label, Sums>::new();
        for endpoint in self.services.get(service).into_iter().flatten() {
            let sums = sums.entry(endpoint.cluster.clone()).or_default();
            match self.board.condition(endpoint) {
                Some(Condition::Up) => sums.up += 1,
                Some(Condition::Suspect) => sums.suspect += 1,
                Some(Condition::Down) => sums.down += 1,
                Some(Condition::Unknown) | None => sums.unknown += 1,
            }
        }
        sums
    }

    /// For people: how the endpoints of a service are judged, and by whom.
    pub fn judged(&self, service: &ServiceKey, now: Moment) -> Vec<Judged> {
        let word = |vote| match vote {
            Vote::Up => "up",
            Vote::Down => "down",
            Vote::Abstain => "abstains",
        };
        let judged = |endpoint: &Endpoint| {
            let votes = match self.board.council() {
                Some(council) => council
                    .votes(endpoint)
                    .map(|(cluster, vote, heard)| Voted {
                        cluster: Some(cluster.to_string()),
                        vote: word(vote).to_owned(),
                        heard_seconds: heard.map(|at| (now - at).as_secs_f64()),
                    })
                    .collect(),
                None => {
                    let vote = word(self.board.told(endpoint)).to_owned();
                    vec![Voted { cluster: None, vote, heard_seconds: None }]
                }
            };
            Some(Judged {
                cluster: endpoint.cluster.to_string(),
                endpoint: endpoint.way().to_string(),
                probe: self.board.probed(endpoint),
                health: self.board.condition(endpoint)?.word().to_owned(),
                votes,
            })
        };
        self.services.get(service).into_iter().flatten().filter_map(judged).collect()
    }

    /// For metrics: who votes, and how this instance's own word gets there. `None`: it decides alone.
    /// What was heard counts from the start of the process.
    pub fn votes(&self) -> Option<(Vec<VoterSample>, WritesSample)> {
        let council = self.board.council()?;
        let sample = |voter: VoterSight| VoterSample {
            cluster: voter.cluster.to_string(),
            counting: voter.counting as u64,
            heard: voter.heard.map(|at| at.0),
            silent: Silence::ALL.iter().zip(voter.silent).map(|(s, count)| (s.label(), count as u64)).collect(),
        };
        let writes = self.voice.as_ref().map(|voice| voice.sample(council)).unwrap_or_default();
        Some((council.voters().map(sample).collect(), WritesSample { refused: self.unheard, ..writes }))
    }
}

/// Another cluster's load balancers are in a range that holds the address, and this one's are not.
fn is_of_another(address: IpAddr, cluster: ClusterId, clusters: &[Cluster]) -> bool {
    let claims = |cluster: &Cluster| cluster.ingress.claim(address);
    !claims(&clusters[cluster.index()]) && clusters.iter().any(claims)
}

#[cfg(test)]
mod tests;
