//! Probes what is to be probed, again and again, and tells when something else is to be said of it.

mod attempt;

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::num::NonZeroU8;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

pub use attempt::Failure;
use attempt::{Means, attempt};
use futures::stream::{FuturesUnordered, StreamExt};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::mpsc;
use tracing::warn;

use crate::config::Health as Rules;
use crate::health::{Failures, History, Probe, Vote, may_be_probed};
use crate::metrics::HealthSample;
use crate::model::check::{Check, How};
use crate::table::Random;

/// Most connections that are being opened at one time. Those to what is dead take the whole time-out.
const AT_ONCE: usize = 16_384;
/// Open files that are asked for, where fewer are allowed; half of them are for probes.
const FILES: u64 = 2 * AT_ONCE as u64;
/// Of these, such that ask something: each may hold what a server sent, and the state of TLS, of some 60 KiB together.
const ASKING_AT_ONCE: usize = 1_024;
/// Of all to one /24 of IPv4 or /56 of IPv6.
const AT_ONCE_PER_NETWORK: usize = 256;
/// Probes in a second; with more endpoints than that allows, the interval is longer.
const MOST_PER_SECOND: usize = 20_000;
/// Until a probe for which there is no room is looked at again.
const LATER: Duration = Duration::from_millis(50);

/// What the prober is told.
#[derive(Debug)]
pub enum Order {
    Begin(Probe),
    End(Probe),
    Rules(Rules),
}

/// What the prober tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    pub probe: Probe,
    pub vote: Vote,
    /// The last probe failed.
    pub failing: bool,
}

/// What is counted, for metrics.
#[derive(Debug, Default)]
pub struct Counts {
    pub good: AtomicU64,
    /// By [`Failure`].
    pub failed: [AtomicU64; Failure::ALL.len()],
    /// Microseconds of all that were good.
    pub latency: AtomicU64,
    /// Milliseconds from one probe of an endpoint to its next one.
    pub interval: AtomicU64,
}

impl Counts {
    pub fn added_to(&self, sample: HealthSample) -> HealthSample {
        HealthSample {
            good: self.good.load(Relaxed),
            failed: Failure::ALL.map(|failure| (failure.word(), self.failed[failure as usize].load(Relaxed))).to_vec(),
            latency: Duration::from_micros(self.latency.load(Relaxed)),
            interval: Duration::from_millis(self.interval.load(Relaxed)),
            ..sample
        }
    }
}

/// Probes once, within that time.
pub type Attempt = Box<dyn Fn(Probe, Duration) -> Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>> + Send>;

/// In earnest.
pub fn attempts() -> Attempt {
    let means = Means::new();
    Box::new(move |probe, timeout| Box::pin(attempt(means.clone(), probe, timeout)))
}

/// For how many connections at one time there is room. Asks for as many open files as this process may ask for.
pub fn room() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let most = maximum.unwrap_or(FILES).min(FILES);
    if current.is_some_and(|current| current < most)
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum })
    {
        warn!(%error, "no more files may be open at one time");
    }
    let files = getrlimit(Resource::Nofile).current.unwrap_or(FILES).min(FILES);
    (files / 2).max(1) as usize
}

type Flying = Pin<Box<dyn Future<Output = (Probe, Result<(), Failure>, Duration)> + Send>>;

struct State {
    history: History,
    /// `None`: it is on its way.
    due: Option<Instant>,
}

pub struct Prober {
    rules: Rules,
    attempt: Attempt,
    counts: Arc<Counts>,
    random: Random,
    /// Most connections at one time.
    at_once: usize,
    known: HashMap<Probe, State>,
    due: BTreeSet<(Instant, Probe)>,
    flying: FuturesUnordered<Flying>,
    networks: HashMap<[u8; 8], usize>,
    /// How many of the flying ones ask something.
    asking: usize,
}

/// It is more than a connection.
fn asks(probe: &Probe) -> bool {
    probe.check.as_ref().is_some_and(|check| matches!(check.how, How::Ask(_)))
}

/// What shares a bound on probes at one time.
fn network(address: IpAddr) -> [u8; 8] {
    match address {
        IpAddr::V4(a) => {
            let [a, b, c, _] = a.octets();
            [a, b, c, 0, 0, 0, 0, 4]
        }
        IpAddr::V6(a) => {
            let o = a.octets();
            [o[0], o[1], o[2], o[3], o[4], o[5], o[6], 6]
        }
    }
}

impl Prober {
    /// `at_once`: most connections at one time. `seed`: of the moments at which it probes.
    pub fn new(rules: Rules, attempt: Attempt, counts: Arc<Counts>, at_once: usize, seed: u64) -> Prober {
        Prober {
            rules,
            attempt,
            counts,
            random: Random::new(seed),
            at_once,
            known: HashMap::new(),
            due: BTreeSet::new(),
            flying: FuturesUnordered::new(),
            networks: HashMap::new(),
            asking: 0,
        }
    }

    /// Probes until nobody gives orders, or listens, any more.
    pub async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>, heard: mpsc::UnboundedSender<Heard>) {
        loop {
            self.start();
            let next = match self.flying.len() < self.at_once {
                true => self.due.first().map(|(at, _)| *at),
                false => None,
            };
            let wait = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                order = orders.recv() => match order {
                    Some(order) => self.obey(order),
                    None => return,
                },
                Some((probe, outcome, took)) = self.flying.next() => {
                    if let Some(news) = self.landed(probe, outcome, took) && heard.send(news).is_err() {
                        return;
                    }
                }
                () = wait => {}
            }
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            // Whoever gives the orders knows this too; what must never be done is looked at where it is done.
            Order::Begin(probe) if !may_be_probed(probe.address) => {}
            Order::Begin(probe) => {
                let at = Instant::now() + self.part_of(self.interval(&probe));
                if let Entry::Vacant(new) = self.known.entry(probe.clone()) {
                    new.insert(State { history: History::default(), due: Some(at) });
                    self.due.insert((at, probe));
                }
            }
            Order::End(probe) => {
                if let Some(State { due: Some(at), .. }) = self.known.remove(&probe) {
                    self.due.remove(&(at, probe));
                }
            }
            Order::Rules(rules) => self.rules = rules,
        }
        self.counts.interval.store(self.rules.interval.max(self.least_interval()).as_millis() as u64, Relaxed);
    }

    fn least_interval(&self) -> Duration {
        Duration::from_secs_f64(self.known.len() as f64 / MOST_PER_SECOND as f64)
    }

    fn interval(&self, probe: &Probe) -> Duration {
        let own = probe.check.as_ref().and_then(|check| check.interval);
        own.unwrap_or(self.rules.interval).max(self.least_interval())
    }

    /// Never longer than from one probe to the next one.
    fn timeout(&self, probe: &Probe) -> Duration {
        let own = probe.check.as_ref().and_then(|check| check.timeout);
        own.unwrap_or(self.rules.timeout).min(self.interval(probe))
    }

    fn failures(&self, probe: &Probe) -> Failures {
        let Failures { fall, rise } = self.rules.failures;
        let own = |of: fn(&Check) -> Option<NonZeroU8>| probe.check.as_deref().and_then(of);
        Failures { fall: own(|check| check.fall).unwrap_or(fall), rise: own(|check| check.rise).unwrap_or(rise) }
    }

    /// A random part of it.
    fn part_of(&mut self, whole: Duration) -> Duration {
        whole * self.random.below(1024) / 1024
    }

    /// Begins what is due, as far as there is room.
    fn start(&mut self) {
        let now = Instant::now();
        while self.flying.len() < self.at_once && self.due.first().is_some_and(|(at, _)| *at <= now) {
            let Some((_, probe)) = self.due.pop_first() else { return };
            let (asks, timeout) = (asks(&probe), self.timeout(&probe));
            let Some(state) = self.known.get_mut(&probe) else { continue };
            let flying = self.networks.entry(network(probe.address)).or_default();
            if *flying >= AT_ONCE_PER_NETWORK || asks && self.asking >= ASKING_AT_ONCE {
                state.due = Some(now + LATER);
                self.due.insert((now + LATER, probe));
                continue;
            }
            *flying += 1;
            self.asking += usize::from(asks);
            state.due = None;
            let attempt = (self.attempt)(probe.clone(), timeout);
            self.flying.push(Box::pin(async move { (probe, attempt.await, now.elapsed()) }));
        }
    }

    fn landed(&mut self, probe: Probe, outcome: Result<(), Failure>, took: Duration) -> Option<Heard> {
        self.asking -= usize::from(asks(&probe));
        if let Entry::Occupied(mut flying) = self.networks.entry(network(probe.address)) {
            *flying.get_mut() -= 1;
            if *flying.get() == 0 {
                flying.remove();
            }
        }
        match outcome {
            Ok(()) => {
                self.counts.good.fetch_add(1, Relaxed);
                self.counts.latency.fetch_add(took.as_micros() as u64, Relaxed);
            }
            Err(failure) => drop(self.counts.failed[failure as usize].fetch_add(1, Relaxed)),
        }
        // From its beginning to the next one: a tenth less to a tenth more.
        let interval = self.interval(&probe);
        let wait = (interval * 9 / 10 + self.part_of(interval / 5)).saturating_sub(took);
        let rules = self.failures(&probe);
        // Nobody may need it any more.
        let state = self.known.get_mut(&probe)?;
        // It was ended and begun again while it was on its way.
        if state.due.is_some() {
            return None;
        }
        let at = Instant::now() + wait;
        state.due = Some(at);
        self.due.insert((at, probe.clone()));
        let before = state.history.is_failing();
        let news = state.history.step(outcome.is_ok(), rules).is_some() || state.history.is_failing() != before;
        news.then(|| Heard { probe, vote: state.history.vote(), failing: state.history.is_failing() })
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use super::*;

    const RULES: Rules = Rules {
        interval: Duration::from_millis(20),
        timeout: Duration::from_millis(500),
        failures: Failures { fall: NonZeroU8::new(3).unwrap(), rise: NonZeroU8::new(2).unwrap() },
        quorum: crate::config::Quorum::Local,
    };

    /// Those whose last octet is even are there.
    fn even(probe: Probe, _: Duration) -> Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>> {
        let last = match probe.address {
            IpAddr::V4(a) => a.octets()[3],
            IpAddr::V6(a) => a.octets()[15],
        };
        let outcome = if last % 2 == 0 { Ok(()) } else { Err(Failure::Unreachable) };
        Box::pin(std::future::ready(outcome))
    }

    fn probe(address: &str) -> Probe {
        Probe { address: address.parse().unwrap(), port: NonZeroU16::new(80).unwrap(), check: None }
    }

    struct World {
        orders: mpsc::UnboundedSender<Order>,
        heard: mpsc::UnboundedReceiver<Heard>,
        counts: Arc<Counts>,
    }

    fn world() -> World {
        let (orders, taken) = mpsc::unbounded_channel();
        let (tell, heard) = mpsc::unbounded_channel();
        let counts = Arc::new(Counts::default());
        tokio::spawn(Prober::new(RULES, Box::new(even), counts.clone(), 100, 1).run(taken, tell));
        World { orders, heard, counts }
    }

    async fn next(heard: &mut mpsc::UnboundedReceiver<Heard>) -> Heard {
        tokio::time::timeout(Duration::from_secs(20), heard.recv()).await.expect("in time").expect("it goes on")
    }

    #[tokio::test]
    async fn what_is_there_is_up_and_what_is_not_is_down() {
        let World { orders, mut heard, counts } = world();
        let (good, bad) = (probe("192.0.2.2"), probe("2001:db8::1"));
        for probe in [good.clone(), bad.clone(), probe("127.0.0.1"), probe("169.254.169.254")] {
            orders.send(Order::Begin(probe)).unwrap();
        }
        let mut said = HashMap::new();
        while said.len() < 2 {
            let Heard { probe, vote, failing } = next(&mut heard).await;
            if vote == Vote::Abstain {
                // The first failure is told: whoever sees many at once trusts himself less.
                assert_eq!((probe, failing), (bad.clone(), true));
            } else {
                said.insert(probe, vote);
            }
        }
        assert_eq!(said, HashMap::from([(good, Vote::Up), (bad, Vote::Down)]));
        assert!(counts.good.load(Relaxed) >= 2 && counts.failed[Failure::Unreachable as usize].load(Relaxed) >= 3);
    }

    #[tokio::test]
    async fn a_check_has_a_pace_of_its_own() {
        let World { orders, mut heard, .. } = world();
        let port = crate::model::Port { name: None, protocol: crate::model::Protocol::Tcp, number: probe("::").port };
        let check = Check::parse("tcp fall=1 interval=300s", &[port]).unwrap();
        let hasty = Probe { check: Some(Arc::new(check)), ..probe("192.0.2.3") };
        // The same address without is another probe.
        let usual = probe("192.0.2.3");
        let prober = Prober::new(RULES, Box::new(even), Arc::default(), 1, 1);
        assert_eq!(prober.interval(&hasty), Duration::from_secs(300));
        assert_eq!(prober.timeout(&hasty), RULES.timeout);
        assert_eq!(prober.timeout(&usual), RULES.interval, "never longer than that");
        assert_eq!(prober.failures(&hasty), Failures { fall: NonZeroU8::MIN, ..RULES.failures });
        orders.send(Order::Begin(usual.clone())).unwrap();
        let told = [next(&mut heard).await, next(&mut heard).await].map(|heard| (heard.probe, heard.vote));
        assert_eq!(told, [(usual.clone(), Vote::Abstain), (usual, Vote::Down)]);
    }

    #[tokio::test]
    async fn what_is_not_needed_any_more_is_left_alone() {
        let World { orders, mut heard, counts } = world();
        orders.send(Order::Begin(probe("192.0.2.2"))).unwrap();
        next(&mut heard).await;
        orders.send(Order::End(probe("192.0.2.2"))).unwrap();
        orders.send(Order::Begin(probe("192.0.2.3"))).unwrap();
        next(&mut heard).await;
        let before = counts.good.load(Relaxed);
        next(&mut heard).await;
        assert_eq!(counts.good.load(Relaxed), before);
        drop(orders);
        let ended = tokio::time::timeout(Duration::from_secs(20), async { while heard.recv().await.is_some() {} });
        ended.await.expect("without orders it ends");
    }
}
