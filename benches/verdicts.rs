//! What verdicts that change cost those who ask: CPU time of the thread that answers, for each answer, while addresses go Down and come
//! back, beside the same when nothing changes.
//!
//! `cargo bench --bench verdicts`; `-- --quick` for a shorter one.

#[path = "support/load.rs"]
mod load;
#[path = "../tests/support/mod.rs"]
mod support;
#[path = "support/trains.rs"]
mod trains;
#[path = "support/usage.rs"]
#[allow(dead_code, reason = "each benchmark uses its own part of this")]
mod usage;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use load::{Plan, Questions};
use signpost::health::Health;
use signpost::metrics::Metrics;
use signpost::model::{Federated, Share, View, ViewRule};
use signpost::net::udp;
use signpost::table::{Outlook, Publisher, Random};
use support::ask::Ask;
use support::{ZONE_FILE, cluster, config, cpu_time, key, load_balancer};

const SERVICES: u32 = 10_000;
/// Of each service.
const CLUSTERS: u16 = 3;
/// Queries a second.
const LOAD: f64 = 50_000.0;
/// Verdicts a second.
const RATES: [u32; 3] = [0, 1_000, 10_000];
/// Of the thread that answers.
const NAME: &str = "answers";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let (rounds, time) = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => (5, Duration::from_secs(4)),
        ["--quick"] => (2, Duration::from_secs(1)),
        _ => {
            eprintln!("cargo bench --bench verdicts [-- --quick]");
            return ExitCode::FAILURE;
        }
    };
    match bench(rounds, time) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("verdicts: {error}");
            ExitCode::FAILURE
        }
    }
}

fn name(number: u32) -> String {
    format!("svc-{number:05}")
}

fn service(number: u32) -> Federated {
    let [_, _, high, low] = number.to_be_bytes();
    let share = |cluster: u16| load_balancer(cluster, "10.0.0.1", &[&format!("104.{cluster}.{high}.{low}")]);
    Federated { key: key("ns", &name(number)), shares: (0..CLUSTERS).map(share).collect(), imports: vec![] }
}

/// Any service, drawn anew each time; an answer has addresses of it.
struct Any(Random);

impl Questions for Any {
    fn write(&mut self, id: u16, train: &mut Vec<u8>) {
        let name = format!("{}.ns.{}", name(self.0.below(SERVICES)), support::ZONE.trim_end_matches('.'));
        let mut query = Ask::new(&name, 1).to_vec();
        query[..2].copy_from_slice(&id.to_be_bytes());
        train.extend_from_slice(&query);
    }

    fn check(&mut self, answer: &[u8]) -> Result<(), String> {
        match answer {
            [_, _, _, flags, _, _, 0, 2..=3, ..] if flags & 0xF == 0 => Ok(()),
            _ => Err(format!("not two or three addresses: {:?}", &answer[..answer.len().min(12)])),
        }
    }
}

struct Figures {
    /// Of the thread that answers, for each answer.
    answer: Duration,
    /// Of the thread that publishes, for each verdict.
    verdict: Duration,
    /// Verdicts a second.
    rate: f64,
}

fn bench(rounds: usize, time: Duration) -> Result<(), Box<dyn std::error::Error>> {
    println!("{}; {SERVICES} services in {CLUSTERS} clusters, {LOAD} queries a second", usage::machine());
    let clusters = (0..CLUSTERS).map(|n| cluster(&format!("c{n}"), "r")).collect();
    let mut world = support::World::new(config(clusters), ZONE_FILE);
    let services: Vec<Federated> = (0..SERVICES).map(service).collect();
    for service in &services {
        world.publisher.publish(&service.key, Some(service));
    }
    let (address, mut sockets) = udp::bind("127.0.0.1:0".parse()?, 1, 4 << 20)?;
    let metrics = Metrics::new();
    let audience = ViewRule::Fixed(View::External).into();
    let socket = sockets.pop().ok_or("a socket")?;
    let (worker, stopper) = udp::Worker::new(socket, audience, world.reader.clone(), 1, metrics.udp_worker());
    let thread = thread::Builder::new().name(NAME.to_owned()).spawn(move || worker.run())?;
    let mut figures: Vec<Vec<Figures>> = RATES.iter().map(|_| Vec::new()).collect();
    for _ in 0..rounds {
        for (rate, figures) in RATES.iter().zip(&mut figures) {
            figures.push(measure(address, &mut world.publisher, &services, *rate, time)?);
        }
    }
    stopper.stop();
    thread.join().map_err(|_| "the worker panicked")??;
    let quiet = median(&figures[0], |figures| figures.answer);
    println!("{:>12} {:>14} {:>8} {:>16}", "verdicts/s", "CPU an answer", "× quiet", "CPU a verdict");
    for figures in &figures {
        let answer = median(figures, |figures| figures.answer);
        println!(
            "{:>12.0} {:>11.0} ns {:>8.3} {:>13.1} µs",
            figures.iter().map(|figures| figures.rate).sum::<f64>() / figures.len() as f64,
            answer * 1e9,
            answer / quiet,
            median(figures, |figures| figures.verdict) * 1e6,
        );
    }
    Ok(())
}

fn median(figures: &[Figures], of: impl Fn(&Figures) -> Duration) -> f64 {
    let mut all: Vec<Duration> = figures.iter().map(of).collect();
    all.sort();
    all[all.len() / 2].as_secs_f64()
}

/// Asks for some time, while the verdict on one address of one service after the other changes.
fn measure(
    server: SocketAddr,
    publisher: &mut Publisher,
    services: &[Federated],
    rate: u32,
    time: Duration,
) -> Result<Figures, Box<dyn std::error::Error>> {
    let (process, stop) = (std::process::id(), AtomicBool::new(false));
    let cpu = |name: &str| usage::cpu_of_threads(process, name);
    let before = cpu(NAME)?;
    let (tally, changed, spent, took) = thread::scope(|scope| {
        let asking = thread::Builder::new().name("asks".to_owned()).spawn_scoped(scope, || {
            let plan = Plan { rate: Some(LOAD), train: 16, time, rests: true };
            load::run(server, plan, &mut Any(Random::new(7)), &stop)
        })?;
        let (begun, mut changed, mut spent) = (Instant::now(), 0u32, Duration::ZERO);
        while begun.elapsed() < time {
            let due = (begun.elapsed().as_secs_f64() * f64::from(rate)) as u32;
            let started = cpu_time();
            while changed < due {
                let service = &services[(changed / 2 % SERVICES) as usize];
                // Down, and Fine again with the next one.
                let health = |share: &Share, _| match (changed % 2, share.cluster.0) {
                    (0, 0) => Health::Down,
                    _ => Health::Fine,
                };
                publisher.publish_with(&service.key, Some(service), &Outlook { health: &health, ..Outlook::FAIR });
                changed += 1;
            }
            spent += cpu_time() - started;
            thread::sleep(Duration::from_millis(1));
        }
        let took = begun.elapsed();
        stop.store(true, Ordering::Relaxed);
        let tally = asking.join().map_err(|_| "the generator panicked")??;
        Ok::<_, Box<dyn std::error::Error>>((tally, changed, spent, took))
    })?;
    if let Some(complaint) = tally.complaint {
        return Err(complaint.into());
    }
    if tally.answered == 0 || tally.lost > tally.sent / 100 {
        return Err(format!("{} of {} queries were lost", tally.lost, tally.sent).into());
    }
    Ok(Figures {
        answer: (cpu(NAME)? - before) / u32::try_from(tally.answered)?,
        verdict: spent.checked_div(changed).unwrap_or_default(),
        rate: f64::from(changed) / took.as_secs_f64(),
    })
}
