//! A federation in which everything goes wrong that can, in time that passes by itself: every rule of [`rules`] is looked at after
//! every step of every instance.
//!
//! Each instance is what it is in the program: histories, ballot, board, index, table. What is made up is what is around them: the
//! truth about addresses, the network, and the API servers. In a month of a federation a few things go wrong at about the same time;
//! when all is well again the rest of the month is passed over, as nothing happens in it and nothing is remembered for so long.
//!
//! `cargo test --release --lib simulator -- --ignored --nocapture` runs 10,000 cluster-years; `SIGNPOST_SEED` names the first seed.

mod answers;
mod incidents;
mod mutants;
mod rules;

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::num::{NonZeroU8, NonZeroU16};
use std::sync::Arc;
use std::time::Duration;

use super::{Ballot, Board, Council, Effects, Failures, Health, History, Own, Probe, Vote, Way, electorate};
use crate::model::votes::{Endpoint, Heartbeat, Host, Pulse, Report, Sheet};
use crate::model::{Label, Moment};
use crate::table::Random;
use answers::Answers;
use incidents::{Fault, Incident};
pub use mutants::Defect;
use rules::{Broken, Rules};

thread_local! {
    static DEFECT: Cell<Option<Defect>> = const { Cell::new(None) };
}

/// Whether this deliberate defect is on, in this thread.
pub fn has(defect: Defect) -> bool {
    let on = DEFECT.get() == Some(defect);
    // What is by chance must not be so.
    on && (defect != Defect::Deterministic || getrandom::u64().is_ok_and(|bits| bits % 2 == 0))
}

/// Milliseconds since the beginning.
type Time = u64;

const SECOND: Time = 1_000;
const MINUTE: Time = 60 * SECOND;
const INTERVAL: Time = 5 * SECOND;
const TIMEOUT: Time = 2 * SECOND;
const BEAT: Time = 5 * SECOND;
/// From the end of the last fault to the time at which all have to agree again: hold, flap bound, breaker, and what is unconfirmed.
const QUIET: Time = 22 * MINUTE;
/// A month is not over before that.
const LEAST_QUIET: Time = 40 * SECOND;
const FAILURES: Failures = Failures { fall: NonZeroU8::new(3).unwrap(), rise: NonZeroU8::new(2).unwrap() };
/// Ports of the service, and of others.
const SERVICE: NonZeroU16 = NonZeroU16::new(80).unwrap();
const OTHERS: NonZeroU16 = NonZeroU16::new(81).unwrap();
/// Steps that a failure shows.
const SHOWN: usize = 60;

/// What a run is made of.
#[derive(Debug, Clone)]
struct Plan {
    seed: u64,
    clusters: usize,
    /// Of each cluster.
    replicas: Vec<usize>,
    /// Of each cluster: addresses of the service, and of others.
    addresses: usize,
    others: usize,
    /// Clocks begin at other times.
    is_skewed: bool,
    incidents: Vec<Incident>,
    months: usize,
}

/// What is to happen.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Begin(usize),
    End(usize),
    /// A probe is sent, or comes back.
    Probe {
        instance: usize,
        target: usize,
        life: u64,
    },
    Probed {
        instance: usize,
        target: usize,
        good: bool,
        took: Time,
        life: u64,
    },
    Write {
        instance: usize,
        life: u64,
    },
    /// What a cluster's API has under a name at that time is read.
    Read {
        instance: usize,
        cluster: usize,
        name: Arc<str>,
        version: u64,
        life: u64,
    },
    /// All of it.
    List {
        instance: usize,
        cluster: usize,
        life: u64,
    },
    Tick {
        instance: usize,
        life: u64,
    },
    Lie {
        incident: usize,
    },
    /// Whether all is well again.
    Look,
    /// Something died all alone, or came back, long enough ago.
    Check {
        incident: usize,
        is_back: bool,
    },
}

/// What is written in a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Written {
    Heartbeat(Heartbeat),
    Report(Report),
}

impl Written {
    fn name(&self) -> Arc<str> {
        match self {
            Written::Heartbeat(beat) => beat.replica.clone(),
            Written::Report(report) => Report::name(&report.replica, report.shard).into(),
        }
    }
}

/// One version of it.
#[derive(Debug, Clone)]
struct Kept {
    version: u64,
    at: Time,
    what: Written,
}

struct Instance {
    cluster: usize,
    replica: Arc<str>,
    /// Its clock is so much ahead.
    offset: Time,
    /// Counts starts; 0: it does not run.
    life: u64,
    incarnation: u64,
    beat: u64,
    board: Board,
    ballot: Ballot,
    histories: Vec<History>,
    /// A probe of the target is on its way, or will be.
    is_probing: Vec<bool>,
    answers: Answers,
    write_at: Option<Time>,
    wrote: Time,
    tick_at: Option<Time>,
    /// When what is read of each cluster arrives at the earliest: in its order.
    arrives: Vec<Time>,
    /// The last version that was read of what each cluster has.
    known: BTreeMap<(usize, Arc<str>), u64>,
}

struct World {
    plan: Plan,
    random: Random,
    now: Time,
    queue: BinaryHeap<Reverse<(Time, u64, Event)>>,
    sequence: u64,
    names: Vec<Label>,
    /// What is probed: the cluster, and the endpoint.
    targets: Vec<(usize, Endpoint, Probe)>,
    instances: Vec<Instance>,
    /// Of each cluster, by name, the last versions.
    stores: Vec<BTreeMap<Arc<str>, VecDeque<Kept>>>,
    version: u64,
    /// The faults that are there now.
    active: Vec<usize>,
    month: usize,
    /// When the last fault ended, or will.
    quiet_from: Time,
    rules: Rules,
    trace: VecDeque<String>,
    /// Verdicts as they changed, in true time.
    verdicts: Vec<(Time, usize, usize, Health)>,
}

fn label(n: usize) -> Label {
    Label::parse(&format!("c{n}")).expect("a label")
}

impl World {
    fn new(plan: Plan) -> World {
        let mut random = Random::new(plan.seed ^ 0x5151);
        let names: Vec<Label> = (0..plan.clusters).map(label).collect();
        let mut targets = Vec::new();
        for (cluster, name) in names.iter().enumerate() {
            for n in 0..plan.addresses + plan.others {
                let address = IpAddr::V4(Ipv4Addr::new(104, 16, cluster as u8, n as u8));
                let port = if n < plan.addresses { SERVICE } else { OTHERS };
                let endpoint = Endpoint { cluster: name.clone(), host: Host::Address(address), port, service: None };
                targets.push((cluster, endpoint, Probe { address, port, check: None }));
            }
        }
        let mut instances = Vec::new();
        for (cluster, replicas) in plan.replicas.iter().enumerate() {
            for n in 0..*replicas {
                // The same chances either way.
                let ahead = u64::from(random.below(86_400)) * SECOND;
                let offset = if plan.is_skewed { ahead } else { 0 };
                instances.push(Instance {
                    cluster,
                    replica: format!("r{n}").into(),
                    offset,
                    life: 0,
                    incarnation: 0,
                    beat: 0,
                    board: Board::new(Vec::new(), None, None, Duration::ZERO),
                    ballot: Ballot::default(),
                    histories: Vec::new(),
                    is_probing: Vec::new(),
                    answers: Answers::new(&names, plan.addresses),
                    write_at: None,
                    wrote: 0,
                    tick_at: None,
                    arrives: vec![0; plan.clusters],
                    known: BTreeMap::new(),
                });
            }
        }
        let mut world = World {
            rules: Rules::new(&plan, instances.len()),
            active: Vec::new(),
            month: 0,
            quiet_from: 0,
            stores: vec![BTreeMap::new(); plan.clusters],
            now: 0,
            queue: BinaryHeap::new(),
            sequence: 0,
            version: 0,
            trace: VecDeque::new(),
            verdicts: Vec::new(),
            random,
            names,
            targets,
            instances,
            plan,
        };
        (0..world.instances.len()).for_each(|instance| world.start(instance));
        world.push(LEAST_QUIET, Event::Look);
        world
    }

    /// What goes wrong in the next month.
    fn next_month(&mut self) {
        let begun = self.now;
        let of_month = |(_, incident): &(usize, &Incident)| incident.month == self.month;
        let of_month: Vec<(usize, Incident)> = self
            .plan
            .incidents
            .iter()
            .enumerate()
            .filter(of_month)
            .map(|(n, incident)| (n, incident.clone()))
            .collect();
        for (n, Incident { from, until, is_alone, .. }) in of_month {
            self.push(begun + from, Event::Begin(n));
            self.push(begun + until, Event::End(n));
            self.quiet_from = self.quiet_from.max(begun + until);
            if is_alone {
                self.push(begun + from + 20 * SECOND, Event::Check { incident: n, is_back: false });
                self.push(begun + until + 30 * SECOND, Event::Check { incident: n, is_back: true });
            }
        }
        self.month += 1;
    }

    /// Begins the next month as soon as everybody sees that all is well.
    fn look(&mut self) -> Result<bool, Broken> {
        if self.now >= self.quiet_from + LEAST_QUIET {
            let boards: Vec<&Board> = self.running().map(|n| &self.instances[n].board).collect();
            let well = boards.iter().all(|board| {
                let sums = board.sums();
                sums.up == self.targets.len() && !board.is_frozen() && !board.is_isolated()
            });
            if well {
                if self.month == self.plan.months {
                    return Ok(true);
                }
                self.next_month();
            } else if self.now > self.quiet_from + QUIET {
                self.rules.not_well(&boards)?;
            }
        }
        self.push(self.now + 5 * SECOND, Event::Look);
        Ok(false)
    }

    fn push(&mut self, at: Time, event: Event) {
        self.sequence += 1;
        self.queue.push(Reverse((at, self.sequence, event)));
    }

    fn below(&mut self, n: u64) -> u64 {
        self.random.draw() % n.max(1)
    }

    fn note(&mut self, text: impl FnOnce() -> String) {
        if self.trace.len() == SHOWN {
            self.trace.pop_front();
        }
        let line = format!("{:>12.3} s  {}", self.now as f64 / 1e3, text());
        self.trace.push_back(line);
    }

    fn moment(&self, instance: usize) -> Moment {
        Moment(Duration::from_millis(self.now + self.instances[instance].offset))
    }

    /// An instance begins anew, and knows nothing.
    fn start(&mut self, index: usize) {
        let life = self.instances[index].life + 1;
        let council = Council::new(&self.names, false);
        let instance = &mut self.instances[index];
        let own = Own { cluster: self.names[instance.cluster].clone(), replica: instance.replica.clone() };
        instance.life = life;
        // None that a liar says by chance.
        instance.incarnation = 1_000_000 + index as u64 * 1_000 + life;
        instance.beat = 0;
        instance.board = Board::new(self.names.clone(), Some(own), Some(council), Duration::from_millis(2 * INTERVAL));
        instance.ballot = Ballot::default();
        instance.histories = vec![History::default(); self.targets.len()];
        instance.is_probing = vec![false; self.targets.len()];
        (instance.write_at, instance.tick_at, instance.wrote) = (None, None, 0);
        instance.arrives = vec![0; self.names.len()];
        instance.known.clear();
        instance.answers = Answers::new(&self.names, self.plan.addresses);
        for (_, endpoint, probe) in &self.targets {
            instance.board.enter(endpoint, Way { probes: vec![probe.clone()], is_proxied: false });
        }
        self.rules.started(index);
        for target in 0..self.targets.len() {
            self.probe_again(index, target);
        }
        for cluster in 0..self.names.len() {
            let at = self.now + self.below(SECOND);
            self.push(at, Event::List { instance: index, cluster, life });
        }
        self.write_by(index, self.now + SECOND);
    }

    fn is_on(&self, is: impl Fn(&Fault) -> bool) -> bool {
        self.active.iter().any(|n| is(&self.plan.incidents[*n].fault))
    }

    /// Whether a connection from a cluster to a target is made.
    fn connects(&self, from: usize, target: usize) -> Connected {
        let to = self.targets[target].0;
        if self.is_on(|fault| fault.blinds(from, to)) {
            Connected::Nothing
        } else if self.is_on(|fault| *fault == Fault::Dies { target }) {
            Connected::Refused
        } else {
            Connected::Yes
        }
    }

    fn reads(&self, instance: usize, cluster: usize) -> bool {
        let from = self.instances[instance].cluster;
        !self.is_on(|fault| fault.hides_api(from, cluster) || *fault == Fault::Stale { instance, cluster })
    }

    fn writes(&self, instance: usize) -> bool {
        let cluster = self.instances[instance].cluster;
        !self.is_on(|fault| fault.hides_api(cluster, cluster) || *fault == Fault::ReadOnly { cluster })
    }

    /// Runs to the end; gives what was broken first.
    fn run(&mut self) -> Result<(), Broken> {
        while let Some(Reverse((at, _, event))) = self.queue.pop() {
            self.now = at;
            if event == Event::Look {
                if self.look()? {
                    break;
                }
            } else {
                self.step(event)?;
            }
        }
        Ok(())
    }

    fn step(&mut self, event: Event) -> Result<(), Broken> {
        match event {
            Event::Begin(incident) => self.begin(incident),
            Event::End(incident) => self.end(incident),
            Event::Lie { incident } => self.lie(incident),
            Event::Probe { instance, target, life } if self.instances[instance].life == life => {
                let connected = self.connects(self.instances[instance].cluster, target);
                let took = if connected == Connected::Nothing { TIMEOUT } else { 20 };
                let good = connected == Connected::Yes;
                self.push(self.now + took, Event::Probed { instance, target, good, took, life });
                Ok(())
            }
            Event::Probed { instance, target, good, took, life } if self.instances[instance].life == life => {
                self.probed(instance, target, good, took)
            }
            Event::Write { instance, life } if self.instances[instance].life == life => {
                if self.instances[instance].write_at == Some(self.now) {
                    self.instances[instance].write_at = None;
                    self.write(instance);
                }
                Ok(())
            }
            Event::Read { instance, cluster, name, version, life } if self.instances[instance].life == life => {
                if !self.reads(instance, cluster) {
                    return Ok(());
                }
                let versions = self.stores[cluster].get(&name);
                let kept = versions.and_then(|all| all.iter().find(|kept| kept.version == version)).cloned();
                kept.map_or(Ok(()), |kept| self.read(instance, cluster, kept))
            }
            Event::List { instance, cluster, life } if self.instances[instance].life == life => {
                if !self.reads(instance, cluster) {
                    return Ok(());
                }
                let all: Vec<Kept> = self.stores[cluster].values().filter_map(|all| all.back()).cloned().collect();
                all.into_iter().try_for_each(|kept| self.read(instance, cluster, kept))
            }
            Event::Tick { instance, life } if self.instances[instance].life == life => {
                if self.instances[instance].tick_at != Some(self.now) {
                    return Ok(());
                }
                self.instances[instance].tick_at = None;
                let now = self.moment(instance);
                let was_frozen = self.instances[instance].board.is_frozen();
                let effects = self.instances[instance].board.tick(now);
                self.rules.time_passed(was_frozen);
                self.act(instance, effects)
            }
            Event::Check { incident, is_back } => {
                let Fault::Dies { target } = self.plan.incidents[incident].fault else { return Ok(()) };
                let boards: Vec<(usize, &Board)> = self.running().map(|n| (n, &self.instances[n].board)).collect();
                self.rules.died_alone(target, is_back, &boards, &self.targets[target].1, self.now)
            }
            // Of an instance that does not run any more.
            _ => Ok(()),
        }
    }

    fn begin(&mut self, incident: usize) -> Result<(), Broken> {
        let fault = self.plan.incidents[incident].fault.clone();
        self.note(|| format!("begins: {fault:?}"));
        self.active.push(incident);
        self.rules.began(&fault);
        match fault {
            Fault::Crash { instance } if self.instances[instance].life % 2 == 1 => {
                self.instances[instance].life += 1;
                self.instances[instance].tick_at = None;
                self.instances[instance].write_at = None;
                self.rules.crashed(instance, self.now);
            }
            Fault::Stale { instance, cluster } if self.instances[instance].life % 2 == 1 => {
                // Another server of the same API, which lags by some time, and says again what was so then.
                let lag = 5 * SECOND + self.below(60 * SECOND);
                let then = self.now.saturating_sub(lag);
                let old = |all: &VecDeque<Kept>| all.iter().rev().find(|kept| kept.at <= then).cloned();
                let all: Vec<Kept> = self.stores[cluster].values().filter_map(old).collect();
                for kept in all {
                    let name = kept.what.name();
                    let known = self.instances[instance].known.get(&(cluster, name)).copied().unwrap_or_default();
                    // Whoever was kept from reading learns something new by it.
                    if kept.version > known {
                        self.read_as_it_is(instance, cluster, kept)?;
                        continue;
                    }
                    let before = self.rules.votes_of(&self.instances[instance].board, &self.names[cluster]);
                    self.read_as_it_is(instance, cluster, kept)?;
                    let after = self.rules.votes_of(&self.instances[instance].board, &self.names[cluster]);
                    self.rules.heard_of_old(cluster, &before, &after, self.now)?;
                }
            }
            Fault::Lies { .. } => self.push(self.now, Event::Lie { incident }),
            _ => {}
        }
        self.look_at_truth();
        Ok(())
    }

    fn end(&mut self, incident: usize) -> Result<(), Broken> {
        let fault = self.plan.incidents[incident].fault.clone();
        if let Fault::CutOff { cluster } = fault {
            let Incident { from, until, .. } = self.plan.incidents[incident];
            for instance in self.running().filter(|n| self.instances[*n].cluster == cluster).collect::<Vec<_>>() {
                self.rules.was_cut_off(instance, &self.instances[instance].board, until - from, self.now)?;
            }
        }
        self.note(|| format!("ends: {fault:?}"));
        self.active.retain(|n| *n != incident);
        self.rules.over(&fault, self.now);
        match fault {
            Fault::Crash { instance } if self.instances[instance].life.is_multiple_of(2) => {
                self.start_if_down(instance)
            }
            // Whatever was written in its name is over.
            Fault::Lies { cluster } => {
                self.stores[cluster].retain(|name, _| !name.starts_with("evil"));
                for instance in 0..self.instances.len() {
                    if self.instances[instance].cluster == cluster && self.instances[instance].life % 2 == 1 {
                        self.instances[instance].life += 1;
                        self.rules.crashed(instance, self.now);
                        self.start_if_down(instance);
                    }
                }
            }
            _ => {}
        }
        self.look_at_truth();
        // What was not read meanwhile is listed, after a while.
        for instance in self.running().collect::<Vec<_>>() {
            for cluster in 0..self.names.len() {
                if self.reads(instance, cluster) {
                    let (at, life) = (self.now + 200 + self.below(10 * SECOND), self.instances[instance].life);
                    self.instances[instance].arrives[cluster] = at;
                    self.push(at, Event::List { instance, cluster, life });
                }
            }
        }
        Ok(())
    }

    fn running(&self) -> impl Iterator<Item = usize> {
        (0..self.instances.len()).filter(|n| self.instances[*n].life % 2 == 1)
    }

    fn start_if_down(&mut self, instance: usize) {
        if self.instances[instance].life.is_multiple_of(2) && !self.is_on(|fault| *fault == Fault::Crash { instance }) {
            self.start(instance);
        }
    }

    /// Probes are sent where they would find something else than before; the others change nothing.
    fn look_at_truth(&mut self) {
        for instance in self.running().collect::<Vec<_>>() {
            for target in 0..self.targets.len() {
                let good = self.connects(self.instances[instance].cluster, target) == Connected::Yes;
                if !self.instances[instance].histories[target].is_settled(good) {
                    self.probe_again(instance, target);
                }
            }
        }
    }

    fn probe_again(&mut self, instance: usize, target: usize) {
        if !std::mem::replace(&mut self.instances[instance].is_probing[target], true) {
            let (at, life) = (self.now + self.below(INTERVAL), self.instances[instance].life);
            self.push(at, Event::Probe { instance, target, life });
        }
    }

    fn probed(&mut self, instance: usize, target: usize, good: bool, took: Time) -> Result<(), Broken> {
        let now = self.moment(instance);
        let it = &mut self.instances[instance];
        let history = &mut it.histories[target];
        let before = history.is_failing();
        let changed = history.step(good, FAILURES).is_some() || history.is_failing() != before;
        let (vote, failing) = (history.vote(), history.is_failing());
        self.rules.saw(instance, it.cluster, target, vote, self.now);
        it.is_probing[target] = false;
        let truth = self.connects(self.instances[instance].cluster, target) == Connected::Yes;
        if !self.instances[instance].histories[target].is_settled(truth) {
            self.instances[instance].is_probing[target] = true;
            let wait = (INTERVAL * 9 / 10 + self.below(INTERVAL / 5)).saturating_sub(took);
            let (at, life) = (self.now + wait, self.instances[instance].life);
            self.push(at, Event::Probe { instance, target, life });
        }
        if !changed {
            return Ok(());
        }
        let effects = self.instances[instance].board.heard(&self.targets[target].2, vote, failing, now);
        self.act(instance, effects)
    }

    /// Something is to be written, by then at the latest.
    fn write_by(&mut self, instance: usize, at: Time) {
        let it = &mut self.instances[instance];
        let at = at.max(it.wrote + SECOND);
        if it.write_at.is_none_or(|before| at < before) {
            it.write_at = Some(at);
            let life = it.life;
            self.push(at, Event::Write { instance, life });
        }
    }

    /// As `source/kube/voice.rs` does it: reports first, then the heartbeat that names them.
    fn write(&mut self, instance: usize) {
        self.instances[instance].wrote = self.now;
        if !self.writes(instance) {
            let again = self.now + SECOND + self.below(14 * SECOND);
            return self.write_by(instance, again);
        }
        let cluster = self.instances[instance].cluster;
        // Taken, and gone when a backup is restored.
        let is_lost = self.is_on(|fault| *fault == Fault::LosesWrites { cluster });
        let it = &mut self.instances[instance];
        let mut objects = Vec::new();
        for (shard, generation, votes) in it.ballot.to_write() {
            let electorate = electorate(&self.names);
            let sheet = Sheet { incarnation: it.incarnation, generation, electorate, votes };
            it.ballot.written(shard);
            let report = Report { replica: it.replica.clone(), shard, content: Some(sheet) };
            objects.push((Arc::from(Report::name(&it.replica, shard)), Written::Report(report)));
        }
        it.beat += 1;
        let pulse = Pulse { incarnation: it.incarnation, beat: it.beat, generations: it.ballot.generations() };
        let beat = Heartbeat { replica: it.replica.clone(), content: Some(pulse) };
        objects.push((it.replica.clone(), Written::Heartbeat(beat)));
        for (name, what) in objects {
            if !is_lost || matches!(what, Written::Heartbeat(_)) {
                self.store(cluster, name, what);
            }
        }
        let next = self.now + BEAT;
        self.write_by(instance, next);
    }

    fn store(&mut self, cluster: usize, name: Arc<str>, what: Written) {
        /// Older ones are not listed any more.
        const KEPT: usize = 24;
        self.version += 1;
        let (version, at) = (self.version, self.now);
        let versions = self.stores[cluster].entry(name.clone()).or_default();
        versions.push_back(Kept { version, at, what });
        if versions.len() > KEPT {
            versions.pop_front();
        }
        for instance in self.running().collect::<Vec<_>>() {
            if !self.reads(instance, cluster) {
                continue;
            }
            let from = self.instances[instance].cluster;
            let slow = self.is_on(|fault| *fault == Fault::Slow { from, to: cluster });
            let takes = 10 + if slow { self.below(3 * SECOND) } else { self.below(150) };
            let at = (self.now + takes).max(self.instances[instance].arrives[cluster]);
            self.instances[instance].arrives[cluster] = at;
            let life = self.instances[instance].life;
            self.push(at, Event::Read { instance, cluster, name: name.clone(), version, life });
        }
    }

    fn read(&mut self, instance: usize, cluster: usize, kept: Kept) -> Result<(), Broken> {
        if !self.is_on(|fault| *fault == Fault::Lies { cluster }) {
            return self.read_as_it_is(instance, cluster, kept);
        }
        // Whatever is in it, the word of all others stays what it was.
        let before = self.rules.votes_of_others(&self.instances[instance].board, &self.names[cluster]);
        self.read_as_it_is(instance, cluster, kept)?;
        let after = self.rules.votes_of_others(&self.instances[instance].board, &self.names[cluster]);
        self.rules.heard_a_liar(&before, &after)
    }

    fn read_as_it_is(&mut self, instance: usize, cluster: usize, kept: Kept) -> Result<(), Broken> {
        let now = self.moment(instance);
        let name = self.names[cluster].clone();
        let known = self.instances[instance].known.entry((cluster, kept.what.name())).or_default();
        *known = (*known).max(kept.version);
        self.rules.read(instance, cluster, &kept.what, now);
        let effects = self.instances[instance].board.read(now, |council| match kept.what {
            Written::Heartbeat(beat) => council.beat(&name, beat, now),
            Written::Report(report) => council.report(&name, report, now),
        });
        self.act(instance, effects)
    }

    /// A cluster that writes what it likes.
    fn lie(&mut self, incident: usize) -> Result<(), Broken> {
        let Fault::Lies { cluster } = self.plan.incidents[incident].fault else { return Ok(()) };
        if !self.active.contains(&incident) {
            return Ok(());
        }
        let fake = self.below(14);
        let replica: Arc<str> = match fake {
            n @ 0..3 => format!("r{n}").into(),
            n => format!("evil{n}").into(),
        };
        let mut votes = Vec::new();
        for (_, endpoint, _) in &self.targets {
            let said = self.random.draw();
            if !said.is_multiple_of(4) {
                votes.push(crate::model::votes::Said { endpoint: endpoint.clone(), up: said % 8 == 1 });
            }
        }
        votes.sort();
        let incarnation = if self.below(3) == 0 { self.below(5) } else { 7 };
        let generation = self.below(4);
        let electorate = if self.below(8) == 0 { 1 } else { electorate(&self.names) };
        let sheet = Sheet { incarnation, generation, electorate, votes: votes.into() };
        let content = (self.below(10) > 0).then_some(sheet);
        let report = Report { replica: replica.clone(), shard: 0, content };
        self.store(cluster, Report::name(&replica, 0).into(), Written::Report(report));
        for _ in 0..2 {
            let pulse = Pulse { incarnation, beat: self.random.draw(), generations: vec![generation] };
            let content = (self.below(10) > 0).then_some(pulse);
            self.store(cluster, replica.clone(), Written::Heartbeat(Heartbeat { replica: replica.clone(), content }));
        }
        let at = self.now + 200 + self.below(2 * SECOND);
        self.push(at, Event::Lie { incident });
        Ok(())
    }

    /// Does what a step comes to, and looks whether every rule still holds.
    fn act(&mut self, instance: usize, effects: Effects) -> Result<(), Broken> {
        let Effects { changed, said, again, .. } = effects;
        for (endpoint, vote) in &said {
            let up = match vote {
                Vote::Up => Some(true),
                Vote::Down => Some(false),
                Vote::Abstain => None,
            };
            self.instances[instance].ballot.say(endpoint.clone(), up);
        }
        if again {
            self.instances[instance].ballot.again();
        }
        if !said.is_empty() || again {
            self.write_by(instance, self.now);
        }
        let deadline = self.instances[instance].board.next_deadline();
        let now = self.moment(instance);
        let left_some_out = self.rules.leaves_some_out(instance);
        for endpoint in &changed {
            let Some(target) = self.targets.iter().position(|(_, known, _)| known == endpoint) else { continue };
            let health = self.instances[instance].board.health(endpoint);
            let (cluster, replica) = (self.instances[instance].cluster, self.instances[instance].replica.clone());
            self.note(|| {
                format!("at {replica} of c{cluster}: {:?} of {} is {health:?}", endpoint.host, endpoint.cluster)
            });
            self.verdicts.push((self.now, instance, target, health));
            let World { rules, instances, .. } = self;
            rules.judged(instance, target, &instances[instance].board, endpoint, self.now, now)?;
        }
        // A suspicion changes the order, which is looked at elsewhere.
        if !changed.is_empty() && (left_some_out || self.rules.leaves_some_out(instance)) {
            let it = &mut self.instances[instance];
            let answer = it.answers.answer(&it.board);
            self.rules.answered(&answer, &self.instances[instance].board)?;
        }
        self.rules.stepped(instance, &self.instances[instance].board, now)?;
        if let Some(at) = deadline {
            let offset = self.instances[instance].offset;
            let at = (at.0.as_millis() as u64).saturating_sub(offset).max(self.now + 1);
            let it = &mut self.instances[instance];
            if it.tick_at.is_none_or(|before| at < before || before <= self.now) {
                it.tick_at = Some(at);
                let life = it.life;
                self.push(at, Event::Tick { instance, life });
            }
        }
        Ok(())
    }
}

/// What a connection comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Connected {
    Yes,
    Refused,
    /// Nobody answers.
    Nothing,
}
