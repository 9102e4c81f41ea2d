//! What a large federation costs: memory, the time to build it, and the time from an update to the last answer it changes.
//!
//! `cargo bench --bench scale`; after `--`: `--services N` (several times, for several sizes), `--clusters N`,
//! `--endpoints N` (of each slice), `--queries` for CPU per query too. Each size runs in a process of its own, so that no memory
//! of another one is counted.

#[path = "../tests/support/mod.rs"]
mod support;
#[path = "support/world.rs"]
mod world;

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use signpost::answer::{Client, Outcome, Rcode, Reply, Responder, Transport};
use signpost::index::{Changes, Index, Kind, Object, ObjectKey, SlicePolicy, Update};
use signpost::model::{ClusterId, Moment, ServiceKey, View, ViewRule};
use signpost::table::{Publisher, Random, Reader};
use signpost::zonefile;
use support::{ZONE, ZONE_FILE};
use world::World;

const QUICK: [u32; 2] = [10_000, 100_000];
/// The services of the cluster that is lost.
const LOST: u32 = 100_000;
/// Single updates, each of a service drawn anew.
const UPDATES: u32 = 2_000;
/// Updates that the daemon takes from its queue before it publishes what they change.
const BATCH: u32 = 256;
/// Above the 30 s after which a list confirms a mass loss.
const CONFIRMED: Duration = Duration::from_secs(31);
/// Queries that one system call of a UDP worker brings.
const QUERY_BATCH: usize = 32;
const QUERIES: usize = 1 << 20;
/// Tells the program that it is the one that measures.
const CHILD: &str = "--measure";

/// Counts what is allocated: what is resident besides is the allocator's.
struct Counting;

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged; counting neither allocates nor fails.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: `pointer` came from `alloc` above, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATED.fetch_add(size.wrapping_sub(layout.size()), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `GlobalAlloc::realloc`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Options {
    sizes: Vec<u32>,
    clusters: u16,
    endpoints: u8,
    queries: bool,
    is_child: bool,
}

fn main() -> ExitCode {
    let outcome = options().and_then(|options| match options.is_child {
        true => measure(&options),
        false => bench(&options),
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("scale: {error}");
            ExitCode::FAILURE
        }
    }
}

fn options() -> Result<Options, Box<dyn Error>> {
    let mut options = Options { sizes: Vec::new(), clusters: 3, endpoints: 3, queries: false, is_child: false };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        match word.as_str() {
            // cargo says so to every benchmark.
            // The default sizes are the quick ones.
            "--bench" | "--quick" => {}
            CHILD => options.is_child = true,
            "--services" => options.sizes.push(number(&word, value()?)?),
            "--clusters" => options.clusters = number(&word, value()?)?,
            "--endpoints" => options.endpoints = number(&word, value()?)?,
            "--queries" => options.queries = true,
            other => {
                let known = "--services, --clusters, --endpoints, --queries";
                return Err(format!("{other} is no option; there are {known}").into());
            }
        }
    }
    if options.sizes.is_empty() {
        options.sizes = QUICK.to_vec();
    }
    if options.sizes.iter().any(|&size| !(1..1 << 24).contains(&size)) || !(1..=100).contains(&options.clusters) {
        return Err("1 to 16,777,215 services, for each has an address of its own, and 1 to 100 clusters".into());
    }
    Ok(options)
}

fn number<T: std::str::FromStr<Err: std::fmt::Display>>(word: &str, value: String) -> Result<T, Box<dyn Error>> {
    value.parse().map_err(|error| format!("{word} {value}: {error}").into())
}

/// One figure: what it is called and in what unit, in the order in which they are measured.
type Figure = (String, f64);

fn bench(options: &Options) -> Result<(), Box<dyn Error>> {
    print_machine(options);
    let mut rows: Vec<String> = Vec::new();
    let mut columns: Vec<BTreeMap<String, f64>> = Vec::new();
    for size in &options.sizes {
        let mut command = Command::new(std::env::current_exe()?);
        command.args([CHILD, "--services", &size.to_string(), "--clusters", &options.clusters.to_string()]);
        command.args(["--endpoints", &options.endpoints.to_string()]).args(options.queries.then_some("--queries"));
        let output = command.stderr(Stdio::inherit()).output()?;
        if !output.status.success() {
            return Err(format!("with {size} services: {}", output.status).into());
        }
        let mut column = BTreeMap::new();
        for line in String::from_utf8(output.stdout)?.lines() {
            let (name, value) = line.split_once('\t').ok_or("a figure has a name and a value")?;
            if !rows.iter().any(|row| row == name) {
                rows.push(name.to_owned());
            }
            column.insert(name.to_owned(), value.parse()?);
        }
        columns.push(column);
    }
    print!("{:54}", "services");
    options.sizes.iter().for_each(|size| print!(" {size:>11}"));
    println!(" {:>11}", "last ÷ first");
    for row in rows {
        let values: Vec<f64> = columns.iter().map(|column| column.get(&row).copied().unwrap_or(f64::NAN)).collect();
        print!("{row:54}");
        values.iter().for_each(|value| print!(" {value:11.2}"));
        println!(" {:12.2}", values[values.len() - 1] / values[0]);
    }
    Ok(())
}

fn print_machine(options: &Options) {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    println!(
        "Linux {}; {} × {}; load average {}; {} clusters, {} endpoints a slice; views: external, and of each cluster",
        read("/proc/sys/kernel/osrelease").trim(),
        cpus.lines().filter(|line| line.starts_with("processor")).count(),
        model.unwrap_or("unknown processor"),
        read("/proc/loadavg").split(' ').next().unwrap_or_default(),
        options.clusters,
        options.endpoints,
    );
}

/// In the child: one size, its figures to standard output.
fn measure(options: &Options) -> Result<(), Box<dyn Error>> {
    let [services] = options.sizes[..] else { return Err("one size in a process".into()) };
    let world = World { services, clusters: options.clusters, endpoints: options.endpoints };
    let mut bench = Bench::new(world)?;
    bench.build()?;
    bench.updates();
    if options.queries {
        bench.queries()?;
    }
    bench.losses();
    for (name, value) in bench.figures {
        println!("{name}\t{value}");
    }
    Ok(())
}

/// Time that this thread was on a core.
struct Cpu(Duration);

impl Cpu {
    fn now() -> Cpu {
        Cpu(support::cpu_time())
    }

    fn elapsed(&self) -> Duration {
        support::cpu_time() - self.0
    }
}

/// The writing half of the daemon, driven as `app` drives it but with a clock of its own.
struct Bench {
    world: World,
    index: Index,
    publisher: Publisher,
    reader: Reader,
    now: Moment,
    random: Random,
    figures: Vec<Figure>,
}

/// What the process holds.
#[derive(Clone, Copy)]
struct Memory {
    resident: usize,
    peak: usize,
    allocated: usize,
}

impl Memory {
    fn now() -> Result<Memory, Box<dyn Error>> {
        let status = fs::read_to_string("/proc/self/status")?;
        let kilobytes = |field: &str| -> Result<usize, Box<dyn Error>> {
            let line = status.lines().find_map(|line| line.strip_prefix(field)).ok_or("Linux tells its memory")?;
            Ok(line.trim().trim_end_matches(" kB").parse::<usize>()? * 1024)
        };
        let allocated = ALLOCATED.load(Ordering::Relaxed);
        Ok(Memory { resident: kilobytes("VmRSS:")?, peak: kilobytes("VmHWM:")?, allocated })
    }
}

impl Bench {
    fn new(world: World) -> Result<Bench, Box<dyn Error>> {
        let clusters = (0..world.clusters).map(|i| support::cluster(&format!("cluster-{i}"), &format!("region-{i}")));
        let config = Arc::new(support::config(clusters.collect()));
        let zone = zonefile::parse(ZONE_FILE, &config.zones[0].name, "scale.zone".as_ref())
            .map_err(|problem| problem.to_string())?;
        let (publisher, reader) = Publisher::new(config, &[zone], 1);
        let index = Index::new(vec![SlicePolicy::Expected; world.clusters.into()]);
        let (now, random, figures) = (Moment::default(), Random::new(1), Vec::new());
        Ok(Bench { world, index, publisher, reader, now, random, figures })
    }

    fn figure(&mut self, name: &str, value: f64) {
        self.figures.push((name.to_owned(), value));
    }

    fn apply(&mut self, cluster: u16, update: Update) -> Changes {
        self.index.apply(ClusterId(cluster), update, self.now)
    }

    /// Compiles each of the services once.
    fn publish(&mut self, mut keys: Vec<ServiceKey>) -> usize {
        keys.sort();
        keys.dedup();
        self.index.services(&keys, |key, service| drop(self.publisher.publish(key, service)));
        keys.len()
    }

    fn build(&mut self) -> Result<(), Box<dyn Error>> {
        let world = self.world;
        let shares = f64::from(world.services) * f64::from(world.clusters);
        let start = Memory::now()?;
        let mut apply = Duration::ZERO;
        for cluster in 0..world.clusters {
            for kind in [Kind::Service, Kind::EndpointSlice] {
                let list = world.list(cluster, kind, 0..world.services);
                let from = Cpu::now();
                let changes = self.apply(cluster, list);
                apply += from.elapsed();
                drop(changes);
            }
        }
        let index = Memory::now()?;
        let from = Cpu::now();
        let keys = self.index.keys();
        self.publisher.reserve(keys.len());
        let mut published = 0;
        self.index.services(&keys, |key, service| {
            self.publisher.publish(key, service);
            published += 1;
        });
        drop(keys);
        let publish = from.elapsed();
        assert_eq!(published, world.services, "every service is published");
        for cluster in 0..world.clusters {
            self.publisher.set_synced(ClusterId(cluster));
        }
        let table = Memory::now()?;
        let each = |after: usize, before: usize| (after as f64 - before as f64) / shares;
        self.figure("build: lists into the index, CPU s", apply.as_secs_f64());
        self.figure("build: index into the table, CPU s", publish.as_secs_f64());
        self.figure("build: both, CPU s", (apply + publish).as_secs_f64());
        self.figure("resident: index, B a service a cluster", each(index.resident, start.resident));
        self.figure("resident: table, B a service a cluster", each(table.resident, index.resident));
        self.figure("resident: both, B a service a cluster", each(table.resident, start.resident));
        self.figure("allocated: index, B a service a cluster", each(index.allocated, start.allocated));
        self.figure("allocated: table, B a service a cluster", each(table.allocated, index.allocated));
        self.figure("resident at most, with one list in memory, MiB", table.peak as f64 / f64::from(1 << 20));
        let from = Cpu::now();
        // SAFETY: it has no arguments to get wrong, and takes the allocator's locks itself.
        unsafe { libc::malloc_trim(0) };
        let trimmed = from.elapsed();
        let left = Memory::now()?;
        self.figure("resident: both, without what lists left free, B", each(left.resident, start.resident));
        self.figure("giving that back (malloc_trim), CPU s", trimmed.as_secs_f64());
        Ok(())
    }

    fn updates(&mut self) {
        let world = self.world;
        self.now = self.now + CONFIRMED;
        // A pod is replaced; a cluster's last pod fails; and comes back.
        let kinds = [("one pod replaced", true, 1), ("no pod ready", false, 1), ("all ready again", true, 0)];
        let numbers: Vec<u32> = (0..UPDATES).map(|_| self.random.below(world.services)).collect();
        for (name, ready, generation) in kinds {
            let mut times = Vec::new();
            for &number in &numbers {
                let slice = world.slice(0, number, ready, generation);
                let from = Cpu::now();
                let changes = self.apply(0, Update::Apply(Object::Slice(slice)));
                self.publish(changes.services.into_iter().collect());
                times.push(from.elapsed());
            }
            times.sort();
            let median = times[times.len() / 2].as_secs_f64() * 1e6;
            self.figure(&format!("one update to its answer: {name}, CPU µs (median)"), median);
        }
    }

    fn losses(&mut self) {
        let world = self.world;
        let lost = LOST.min(world.services);

        let slices: Vec<_> = (0..lost).map(|number| world.slice(0, number, false, 0)).collect();
        let from = Cpu::now();
        let mut published = 0;
        let mut changed = Vec::new();
        for (n, slice) in (1..).zip(slices) {
            changed.extend(self.apply(0, Update::Apply(Object::Slice(slice))).services);
            if n % BATCH == 0 || n == lost {
                published += self.publish(std::mem::take(&mut changed));
            }
        }
        self.figure("loss of all endpoints, one by one, CPU s", from.elapsed().as_secs_f64());
        assert_eq!(published, lost as usize, "every service lost a candidate");

        let list = world.list(0, Kind::EndpointSlice, 0..world.services);
        let from = Cpu::now();
        let changes = self.apply(0, list);
        published = self.publish(changes.services.into_iter().collect());
        self.figure("all ready again, by a list, CPU s", from.elapsed().as_secs_f64());
        assert_eq!(published, lost as usize, "every service has its candidate again");

        // The first list holds more than a half, the second one confirms it.
        self.now = self.now + CONFIRMED;
        let list = world.list(0, Kind::Service, lost..world.services);
        let from = Cpu::now();
        let changes = self.apply(0, list);
        published = self.publish(changes.services.into_iter().collect());
        let mut slowest = from.elapsed();
        self.now = self.now + CONFIRMED;
        if published == 0 {
            let list = world.list(0, Kind::Service, lost..world.services);
            let from = Cpu::now();
            let changes = self.apply(0, list);
            published = self.publish(changes.services.into_iter().collect());
            slowest = slowest.max(from.elapsed());
        }
        self.figure("loss of all Services, by a list, CPU s", slowest.as_secs_f64());
        assert_eq!(published, lost as usize, "every service lost a share");

        // Deletions one by one, of what is left: of another cluster, up to the half that is not held.
        let gone: Vec<ObjectKey> = (0..lost / 2).map(|number| object_key(&world.key(number))).collect();
        let from = Cpu::now();
        let mut changed = Vec::new();
        let count = gone.len() as u32;
        for (n, key) in (1..).zip(gone) {
            changed.extend(self.apply(1 % world.clusters, Update::Delete(Kind::Service, key)).services);
            if n % BATCH == 0 || n == count {
                self.publish(std::mem::take(&mut changed));
            }
        }
        self.figure("loss of half of all Services, one by one, CPU s", from.elapsed().as_secs_f64());
    }

    /// CPU per query without any socket: the time on this thread, of batches as a worker has them.
    fn queries(&mut self) -> Result<(), Box<dyn Error>> {
        let world = self.world;
        let largest = f64::from(world.services);
        // Of rank r with probability 1/r; ranks are scattered over the names by a prime.
        let zipf = |random: &mut Random| {
            let rank = largest.powf(random.draw() as f64 / u64::MAX as f64) as u64 - 1;
            (rank * 7_919 % u64::from(world.services)) as u32
        };
        let uniform = |random: &mut Random| random.below(world.services);
        type Draw<'a> = &'a dyn Fn(&mut Random) -> u32;
        let choices: [(&str, Draw<'_>); 2] = [("uniform", &uniform), ("Zipf", &zipf)];
        for (name, draw) in choices {
            for (rtype, label) in [(1, "A"), (33, "SRV")] {
                let nanoseconds = self.ask(draw, rtype)?;
                self.figure(&format!("one query: {label}, names {name}, ns"), nanoseconds);
            }
        }
        Ok(())
    }

    fn ask(&mut self, draw: &dyn Fn(&mut Random) -> u32, rtype: u16) -> Result<f64, Box<dyn Error>> {
        let world = self.world;
        let mut responder = Responder::for_batches(1, QUERY_BATCH);
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let view = ViewRule::Fixed(View::External);
        let client = Client { address, audience: view.into(), transport: Transport::Udp, keepalive: 0 };
        let mut buffers = vec![[0_u8; 2048]; QUERY_BATCH];
        let mut lengths = [0; QUERY_BATCH];
        let mut spent = Duration::ZERO;
        for batch in 0..QUERIES / QUERY_BATCH {
            for (buffer, length) in buffers.iter_mut().zip(&mut lengths) {
                *length = write_query(world, draw(&mut self.random), rtype, buffer);
            }
            let from = Cpu::now();
            let unexpected = self.reader.with(|table| {
                for (place, (buffer, &length)) in buffers.iter().zip(&lengths).enumerate() {
                    responder.read(place, table, client, &buffer[..length]);
                }
                (0..QUERY_BATCH).for_each(|place| responder.prefetch(place, table));
                let mut replies =
                    buffers.iter_mut().enumerate().map(|(place, buffer)| responder.answer_read(place, table, buffer));
                replies
                    .find(|reply| !matches!(reply, Reply::Send { outcome: Outcome { rcode: Rcode::NoError, .. }, .. }))
            });
            if let Some(reply) = unexpected {
                return Err(format!("{reply:?} to a service that is there").into());
            }
            // The first quarter warms the caches up.
            if batch >= QUERIES / QUERY_BATCH / 4 {
                spent += from.elapsed();
            }
        }
        Ok(spent.as_nanos() as f64 / (QUERIES - QUERIES / 4) as f64)
    }
}

fn object_key(key: &ServiceKey) -> ObjectKey {
    ObjectKey { namespace: key.namespace.as_str().into(), name: key.name.as_str().into() }
}

fn write_query(world: World, number: u32, rtype: u16, buffer: &mut [u8]) -> usize {
    let mut query = Vec::with_capacity(128);
    query.extend_from_slice(&[0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in [world.name(number).as_str(), &world.namespace(number)].into_iter().chain(ZONE.split('.')) {
        query.push(label.len() as u8);
        query.extend_from_slice(label.as_bytes());
    }
    query.push(0);
    query.extend_from_slice(&rtype.to_be_bytes());
    query.extend_from_slice(&[0, 1]);
    buffer[..query.len()].copy_from_slice(&query);
    query.len()
}
