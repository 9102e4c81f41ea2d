//! A cluster with many services goes while queries are asked: how long until all answers are right, and what the clients
//! notice. Beside it what they notice of many loads that change at once, and of long lists of loads.
//!
//! The daemon's own task that writes, its queue and one UDP worker, in this process; what the cluster's API says is made
//! before the clock starts. All of these share one core, which is the worst that can happen to the worker; who asks has another.
//! `cargo bench --bench cluster_loss`; `-- --help` lists the options.

#[path = "support/addresses.rs"]
mod addresses;
#[path = "support/load.rs"]
mod load;
#[path = "support/options.rs"]
mod options;
#[path = "../tests/support/mod.rs"]
mod support;
#[path = "support/trains.rs"]
mod trains;
#[path = "support/usage.rs"]
#[allow(dead_code, reason = "each benchmark uses its own part of this")]
mod usage;
#[path = "support/world.rs"]
mod world;

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use signpost::answer::{Client, Reply, Responder, Transport};
use signpost::app::{Federation, Member, Seen, UPDATE_QUEUE};
use signpost::config::{Listener, Source};
use signpost::courtesy::give_way;
use signpost::index::{Kind, Object, Update};
use signpost::metrics::Metrics;
use signpost::model::{ClusterId, Load, LoadReport, View, ViewRule};
use signpost::net::connections::Connections;
use signpost::net::{self, udp};
use signpost::source::{Message, Number};
use signpost::table::{Publisher, Random, Reader};
use signpost::zonefile;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use load::{Plan, Questions, Tally};
use support::{ZONE, ZONE_FILE};
use usage::percentile;
use world::World;

/// The cluster that goes.
const LOST: u16 = 0;
const ENDPOINTS: u8 = 3;
/// That change in the same moment.
const LOADS_AT_ONCE: u32 = 1_000;
/// In a list: what is read again when a watch was cut off.
const LISTED_LOADS: u32 = 20_000;
/// Twice what the publisher takes from its queue before it compiles: once the last so many are right, all are.
const LAST: usize = 512;
/// Between two looks whether the last answer is right: what the times are exact to.
const LOOK: Duration = Duration::from_millis(1);
/// A change that is not in all answers by then never will be.
const DEADLINE: Duration = Duration::from_secs(60);
/// The runtime's threads, on which the publisher runs.
const WRITERS: &str = "publisher";

const HELP: &str = "\
  --quick        10000 services, one round of 1 s, no loss of Services
  --services N   of each cluster; 100000, at most 1000000
  --clusters N   2 to 8; 3
  --rate N       queries a second; 20000
  --seconds N    of the quiet phase in each round; 5, at most 60
  --rounds N     in which the endpoints go and come back; 3";

#[derive(Debug, Clone, Copy)]
struct Options {
    world: World,
    rate: u32,
    time: Duration,
    rounds: u32,
    /// Whether the Services go too, which the mass-loss rule makes a matter of 30 s.
    services: bool,
}

impl Options {
    fn read(mut words: impl Iterator<Item = String>) -> Result<Options, String> {
        let world = World { services: 100_000, clusters: 3, endpoints: ENDPOINTS };
        let mut options = Options { world, rate: 20_000, time: Duration::from_secs(5), rounds: 3, services: true };
        while let Some(word) = words.next() {
            let mut number = |least, most| options::number(&word, words.next(), least, most);
            match word.as_str() {
                // cargo says so to every benchmark.
                "--bench" => {}
                "--quick" => {
                    (options.world.services, options.rounds, options.services) = (10_000, 1, false);
                    options.time = Duration::from_secs(1);
                }
                "--services" => options.world.services = number(1, 1_000_000)?,
                "--clusters" => options.world.clusters = number(2, 8)? as u16,
                "--rate" => options.rate = number(1, 1_000_000)?,
                "--seconds" => options.time = Duration::from_secs(number(1, 60)?.into()),
                "--rounds" => options.rounds = number(1, 1_000)?,
                other => return Err(format!("{other} is no option; there are:\n{HELP}")),
            }
        }
        Ok(options)
    }
}

fn main() -> ExitCode {
    let outcome = Options::read(std::env::args().skip(1)).map_err(Into::into).and_then(|options| bench(&options));
    options::finish("cluster_loss", outcome)
}

fn bench(options: &Options) -> Result<(), Box<dyn Error>> {
    let world = options.world;
    println!(
        "{}\n{} services in each of {} clusters, {ENDPOINTS} endpoints a slice; {} queries/s, from a core of their own. One \
         UDP worker and all that writes share another core.\n\
         Latency from the moment at which a query was to be sent.",
        usage::machine(),
        world.services,
        world.clusters,
        options.rate,
    );
    let rig = Rig::start(world)?;
    let start = Instant::now();
    for cluster in 0..world.clusters {
        for kind in Kind::CORE {
            rig.tell(cluster, world.list(cluster, kind, 0..world.services))?;
        }
    }
    rig.wait_until_right(start, true)?;

    println!(
        "{:46} {:>9} {:>7} {:>8} {:>8} {:>8} {:>8} {:>6} {:>7} {:>8}",
        "", "right, ms", "CPU, ms", "q/s", "p50 ms", "p99 ms", "max ms", "lost", "÷ quiet", "÷ beside"
    );
    let (mut ratios, mut of_loads) = (Vec::new(), Vec::new());
    for round in 0..options.rounds {
        let quiet = rig.load(options, || thread::sleep(options.time))?;
        let beside = rig.load(options, || burn(options.time))?;
        let seconds = options.time.as_secs() as u32;
        let batches = (0..seconds).map(|second| rig.loads(round * seconds + second)).collect();
        let (cpu, loads) = rig.load_with(options, || rig.tell_each_second(batches))?;
        let loads_cpu = Change { right: None, cpu: cpu? };
        of_loads.push(percentile(&loads.latencies, 0.99) / percentile(&quiet.latencies, 0.99));
        let lists = (0..seconds).map(|second| rig.list_of_loads(round * seconds + second)).collect();
        let (cpu, lists) = rig.load_with(options, || rig.tell_each_second(lists))?;
        let lists_cpu = Change { right: None, cpu: cpu? };
        let slices: Vec<Update> = rig.slices(false);
        let (change, tally) = rig.measure(options, slices, false)?;
        let row = Row { quiet: &quiet, beside: &beside };
        row.print("quiet", None, &quiet);
        row.print("beside a thread that only computes", None, &beside);
        row.print("1,000 loads change at once, once a second", Some(loads_cpu), &loads);
        row.print("a list of 20,000 loads, once a second", Some(lists_cpu), &lists);
        row.print("all endpoints go, one by one", Some(change), &tally);
        ratios.push(percentile(&tally.latencies, 0.99) / percentile(&quiet.latencies, 0.99));
        let (change, tally) = rig.measure(options, rig.slices(true), true)?;
        row.print("all endpoints are ready again, one by one", Some(change), &tally);
        if options.services && ratios.len() == options.rounds as usize {
            let (change, tally) = rig.lose_services(options)?;
            row.print("all Services go, by a list that confirms it", Some(change), &tally);
        }
    }
    for (what, ratios) in [("the endpoints go", &mut ratios), ("1,000 loads change", &mut of_loads)] {
        ratios.sort_by(f64::total_cmp);
        let median = ratios[ratios.len() / 2];
        println!("Query p99 while {what} / quiet: {median:.2} (median; target 2 at most).");
    }
    println!("Target for all answers: 1000 ms.");
    Ok(())
}

struct Row<'a> {
    quiet: &'a Tally,
    beside: &'a Tally,
}

impl Row<'_> {
    fn print(&self, what: &str, change: Option<Change>, tally: &Tally) {
        let [p50, p99, max] = [0.5, 0.99, 1.0].map(|share| percentile(&tally.latencies, share));
        let milliseconds = |time: Duration| format!("{:.0}", time.as_secs_f64() * 1000.0);
        let right = change.and_then(|change| change.right).map(milliseconds).unwrap_or_default();
        let cpu = change.map(|change| milliseconds(change.cpu)).unwrap_or_default();
        let [quiet, beside] = [self.quiet, self.beside].map(|other| p99 / percentile(&other.latencies, 0.99));
        let (rate, lost) = (tally.rate(), tally.lost);
        println!(
            "{what:46} {right:>9} {cpu:>7} {rate:8.0} {p50:8.3} {p99:8.3} {max:8.3} {lost:6} {quiet:7.2} {beside:8.2}"
        );
    }
}

/// What a change took.
#[derive(Debug, Clone, Copy)]
struct Change {
    /// From the first word of it until all answers were right.
    right: Option<Duration>,
    /// Of the threads that the publisher runs on, meanwhile.
    cpu: Duration,
}

/// Takes a core, as the task that writes does, and touches nothing that it touches.
fn burn(time: Duration) {
    let (end, mut random) = (Instant::now() + time, Random::new(3));
    while Instant::now() < end {
        (0..1_000).for_each(|_| {
            std::hint::black_box(random.draw());
        });
    }
}

/// CPU time of those that write, so far.
fn writers() -> Result<Duration, String> {
    usage::cpu_of_threads(std::process::id(), WRITERS).map_err(|error| error.to_string())
}

/// The daemon without its sources.
struct Rig {
    world: World,
    runtime: Runtime,
    updates: mpsc::Sender<Message>,
    lost: Member,
    /// The services that are answered last after a change of all, whichever way that is told. Found before the clock starts: to sort
    /// names takes the core that the worker shares.
    last: Vec<u32>,
    reader: Reader,
    server: SocketAddr,
    /// Of whoever asks.
    core: usize,
    stop: CancellationToken,
}

impl Rig {
    fn start(world: World) -> Result<Rig, Box<dyn Error>> {
        let clusters = (0..world.clusters).map(|i| {
            let source = Source::Kubeconfig { file: "kubeconfig".into(), context: None };
            let cluster = support::cluster(&format!("cluster-{i}"), &format!("region-{i}"));
            signpost::config::Cluster { source, ..cluster }
        });
        let mut config = support::config(clusters.collect());
        config.listeners.truncate(1);
        // What is shed moves with each TTL: the loads of a second are to be all that changes in it.
        config.zones[0].ttl = 86_400;
        config.limits.objects_per_cluster = world.services;
        config.limits.udp_receive_buffer = 4 << 20;
        let listener = Listener { address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), ..config.listeners[0] };
        let config = Arc::new(config);
        let zone = zonefile::parse(ZONE_FILE, &config.zones[0].name, "loss.zone".as_ref())
            .map_err(|problem| problem.to_string())?;

        let cores = udp::allowed_cores();
        let (Some(&first), Some(&core)) = (cores.first(), cores.last()) else {
            return Err("there is no core to run on".into());
        };
        udp::pin_to(first);
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.thread_name(WRITERS).on_thread_start(move || udp::pin_to(first)).enable_all().build()?;
        let (started, stop) = (Instant::now(), CancellationToken::new());
        let (publisher, reader) = Publisher::new(config.clone(), &[zone], 1);
        let members: Vec<Member> = (0..world.clusters).map(|id| Member::new(ClusterId(id), started)).collect();
        let lost = members[usize::from(LOST)].clone();
        let ask = signpost::app::resolver(&config);
        let federation = Federation::new(started, publisher, members, Arc::new(Seen::default()), ask, 1);
        let (updates, queue) = mpsc::channel(UPDATE_QUEUE);
        runtime.spawn(federation.run(queue, stop.clone()));
        let server = runtime.block_on(async {
            let bound = net::bind(&listener, &config.limits, "listeners")?;
            let address = bound.address();
            let mut serving = bound.serve(reader.clone(), Connections::new(1, 1), Metrics::new(), stop.clone());
            // Ends with the listener.
            tokio::spawn(async move { while serving.ended().await.is_some() {} });
            Ok::<_, net::BindError>(address)
        })?;
        let last = Rig::last_of(world);
        Ok(Rig { world, runtime, updates, lost, last, reader, server, core, stop })
    }

    /// In the order in which the publisher comes to them: one by one as said, a list by name.
    fn last_of(world: World) -> Vec<u32> {
        let as_said: Vec<u32> = (0..world.services).collect();
        let mut by_name = as_said.clone();
        by_name.sort_by_cached_key(|number| world.key(*number));
        [&as_said, &by_name].into_iter().flat_map(|order| order.iter().rev().take(LAST).copied()).collect()
    }

    fn tell(&self, cluster: u16, update: Update) -> Result<(), Box<dyn Error>> {
        self.runtime
            .block_on(self.updates.send((Number::new(ClusterId(cluster)), update)))
            .map_err(|_| "the publisher has ended".into())
    }

    /// What the watch says when all endpoints of the lost cluster change.
    fn slices(&self, ready: bool) -> Vec<Update> {
        let slice = |number| Update::Apply(Object::Slice(self.world.slice(LOST, number, ready, 0)));
        (0..self.world.services).map(slice).collect()
    }

    /// The first that is said of it: what follows within its TTL changes no answer.
    fn load_of(&self, number: u32) -> Object {
        Object::Load(LoadReport {
            service: Some(self.world.key(number % self.world.services)),
            load: Some(Load::FULL),
            valid: Duration::from_secs(3600),
            stamp: 1,
        })
    }

    /// What the watch says when another thousand services have a full load.
    fn loads(&self, round: u32) -> Vec<Update> {
        let numbers = round * LOADS_AT_ONCE..(round + 1) * LOADS_AT_ONCE;
        numbers.map(|number| Update::Apply(self.load_of(number))).collect()
    }

    /// In each another thousand are new, and as many are no longer there. Others than the watch tells of.
    fn list_of_loads(&self, round: u32) -> Vec<Update> {
        let first = self.world.services / 2 + round * LOADS_AT_ONCE;
        let numbers = first..first + LISTED_LOADS.min(self.world.services / 4);
        let objects = numbers.map(|number| self.load_of(number)).collect();
        vec![Update::Reset { kind: Kind::ServiceLoad, objects, keep: Vec::new() }]
    }

    /// One batch a second. Returns what it took of the writers' time.
    fn tell_each_second(&self, batches: Vec<Vec<Update>>) -> Result<Duration, String> {
        let (before, start) = (writers()?, Instant::now());
        for (second, batch) in (1..).zip(batches) {
            self.tell_all(batch);
            thread::sleep(Duration::from_secs(second).saturating_sub(start.elapsed()));
        }
        Ok(writers()?.saturating_sub(before))
    }

    /// Without waiting. Whoever waits for the answers sees it if these do not come.
    fn tell_all(&self, said: Vec<Update>) {
        let updates = self.updates.clone();
        self.runtime.spawn(async move {
            for update in said {
                let _ = updates.send((Number::new(ClusterId(LOST)), update)).await;
                // As a source does.
                give_way();
            }
        });
    }

    /// Asks while `during` runs. Its end is the end of the load.
    fn load<T>(&self, options: &Options, during: impl FnOnce() -> T) -> Result<Tally, Box<dyn Error>> {
        self.load_with(options, during).map(|(_, tally)| tally)
    }

    fn load_with<T>(&self, options: &Options, during: impl FnOnce() -> T) -> Result<(T, Tally), Box<dyn Error>> {
        let plan = Plan { rate: Some(options.rate.into()), train: 1, time: DEADLINE, rests: false };
        let ask = |done: &AtomicBool| {
            udp::pin_to(self.core);
            load::run(self.server, plan, &mut Asked::new(self.world), done)
        };
        load::beside(ask, during)
    }

    /// Says all of this, one by one, and waits until all answers are right; returns what that took.
    fn measure(&self, options: &Options, said: Vec<Update>, is_there: bool) -> Result<(Change, Tally), Box<dyn Error>> {
        let (change, tally) = self.load_with(options, || {
            let (before, start) = (writers()?, Instant::now());
            self.tell_all(said);
            let right = self.wait_until_right(start, is_there).map_err(|error| error.to_string())?;
            Ok::<_, String>(Change { right: Some(right), cpu: writers()?.saturating_sub(before) })
        })?;
        Ok((change?, tally))
    }

    /// A list without Services is held until another one, 30 s later, confirms it. Measured from there.
    fn lose_services(&self, options: &Options) -> Result<(Change, Tally), Box<dyn Error>> {
        let empty = || Update::Reset { kind: Kind::Service, objects: Vec::new(), keep: Vec::new() };
        self.tell(LOST, empty())?;
        let asked = self.runtime.block_on(async { tokio::time::timeout(DEADLINE, self.lost.relist.notified()).await });
        asked.map_err(|_| "nobody asked for a list that confirms the loss")?;
        if let Some(number) = (0..self.world.services).find(|&number| !self.checker().is_right(number, true)) {
            return Err(format!("service {number} went without confirmation").into());
        }
        self.measure(options, vec![empty()], false)
    }

    fn checker(&self) -> Checker {
        Checker {
            world: self.world,
            reader: self.reader.clone(),
            responder: Responder::new(2),
            query: Vec::new(),
            buffer: vec![0; 2048],
        }
    }

    /// Waits until each service is answered with or without the lost cluster; returns the time since `start`.
    fn wait_until_right(&self, start: Instant, is_there: bool) -> Result<Duration, Box<dyn Error>> {
        let mut checker = self.checker();
        loop {
            let mut is_right = |number: &u32| {
                give_way();
                checker.is_right(*number, is_there)
            };
            if self.last.iter().all(&mut is_right) {
                let time = start.elapsed();
                // Else the last ones were not the last.
                if (0..self.world.services).all(|number| is_right(&number)) {
                    return Ok(time);
                }
            }
            if start.elapsed() > DEADLINE {
                return Err(format!("some answers are still not right {DEADLINE:?} after the change").into());
            }
            thread::sleep(LOOK);
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Asks the table itself.
struct Checker {
    world: World,
    reader: Reader,
    responder: Responder,
    query: Vec<u8>,
    buffer: Vec<u8>,
}

impl Checker {
    /// Whether the answer is the addresses of all clusters, with or without the lost one.
    fn is_right(&mut self, number: u32, is_there: bool) -> bool {
        self.query.clear();
        write_query(self.world, number, 0, &mut self.query);
        let length = self.query.len();
        self.buffer[..length].copy_from_slice(&self.query);
        let view = ViewRule::Fixed(View::External);
        let client = Client {
            address: IpAddr::from(Ipv4Addr::LOCALHOST),
            audience: view.into(),
            transport: Transport::Udp,
            keepalive: 0,
        };
        let Checker { reader, responder, buffer, .. } = self;
        let Reply::Send { length, .. } = reader.with(|table| responder.answer(table, client, buffer, length)) else {
            return false;
        };
        let expected = usize::from(self.world.clusters) - usize::from(!is_there);
        match addresses::of(&self.query, &self.buffer[..usize::from(length)]) {
            None => false,
            Some(addresses) => {
                let addresses: Vec<Ipv4Addr> = addresses.collect();
                let of_lost = self.world.ingress(LOST, number);
                addresses.len() == expected && addresses.contains(&of_lost) == is_there
            }
        }
    }
}

fn write_query(world: World, number: u32, id: u16, out: &mut Vec<u8>) {
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in [world.name(number).as_str(), &world.namespace(number)].into_iter().chain(ZONE.split('.')) {
        out.push(label.len() as u8);
        out.extend_from_slice(label.as_bytes());
    }
    out.extend_from_slice(&[0, 0, 1, 0, 1]);
}

/// Queries for A of services drawn by chance. An answer has the addresses of all clusters, or lacks the lost one's.
struct Asked {
    world: World,
    random: Random,
    /// The query that was sent last with each id.
    queries: Vec<(u32, Vec<u8>)>,
}

impl Asked {
    fn new(world: World) -> Asked {
        Asked { world, random: Random::new(1), queries: vec![(0, Vec::new()); 1 << 16] }
    }
}

impl Questions for Asked {
    fn write(&mut self, id: u16, train: &mut Vec<u8>) {
        let (number, query) = &mut self.queries[usize::from(id)];
        *number = self.random.below(self.world.services);
        query.clear();
        write_query(self.world, *number, id, query);
        train.extend_from_slice(query);
    }

    fn check(&mut self, answer: &[u8]) -> Result<(), String> {
        let (number, query) = &self.queries[usize::from(u16::from_be_bytes([answer[0], answer[1]]))];
        let world = self.world;
        let wrong = || format!("{:x?} to the query for service {number}", &answer[..answer.len().min(12)]);
        let got: Vec<Ipv4Addr> = addresses::of(query, answer).ok_or_else(wrong)?.collect();
        let others = (0..world.clusters).filter(|cluster| *cluster != LOST);
        let others_are_there = others.clone().all(|cluster| got.contains(&world.ingress(cluster, *number)));
        let rest = got.len() - others.count().min(got.len());
        let right = others_are_there && (rest == 0 || rest == 1 && got.contains(&world.ingress(LOST, *number)));
        if right { Ok(()) } else { Err(format!("{got:?} for service {number}")) }
    }
}
