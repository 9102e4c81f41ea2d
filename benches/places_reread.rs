//! A file of 500,000 prefixes is read again while queries are asked: what the clients notice.
//!
//! The daemon itself, on all cores, with what `peers` asks about; from a socket beside it come queries for A with client subnets, each
//! of another place. In each round first a quiet phase, then one in which the file is replaced again and again.
//! `cargo bench --bench places_reread`; `-- --help` lists the options.

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "support/load.rs"]
mod load;
#[path = "support/options.rs"]
mod options;
#[path = "rig/places.rs"]
#[allow(dead_code, reason = "each benchmark uses its own part of this")]
mod places;
#[path = "rig/questions.rs"]
#[allow(dead_code, reason = "each benchmark uses its own part of this")]
mod questions;
#[path = "support/trains.rs"]
mod trains;
#[path = "support/usage.rs"]
#[allow(dead_code, reason = "each benchmark uses its own part of this")]
mod usage;
#[path = "rig/world.rs"]
#[allow(dead_code, reason = "each benchmark uses its own part of this")]
mod world;

use std::error::Error;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use signpost::net::udp;
use signpost::table::Random;

use common::process::{Process, Run};
use common::{free_port, local, try_wait_for};
use load::{Plan, Questions, Tally};
use questions::{CLUSTERS, Mix, write_train};
use usage::percentile;

const PLACES: u32 = 500_000;
/// Between two replacements. What has changed is read when it has been the same for a second.
const EVERY: Duration = Duration::from_secs(3);
/// From the start to the first answer, and from a replacement to its reading.
const PATIENCE: Duration = Duration::from_secs(120);
/// What the daemon logs when it has read the file again.
const AGAIN: &str = "places read again";

const HELP: &str = "\
  --quick      two rounds of 6 s
  --rate N     queries a second; 10000
  --seconds N  of each phase; 12, from 6 to 60
  --rounds N   5";

struct Options {
    rate: u32,
    time: Duration,
    rounds: u32,
}

impl Options {
    fn read(mut words: impl Iterator<Item = String>) -> Result<Options, String> {
        let mut options = Options { rate: 10_000, time: Duration::from_secs(12), rounds: 5 };
        while let Some(word) = words.next() {
            let mut number = |least, most| options::number(&word, words.next(), least, most);
            match word.as_str() {
                // cargo says so to every benchmark.
                "--bench" => {}
                "--quick" => (options.time, options.rounds) = (Duration::from_secs(6), 2),
                "--rate" => options.rate = number(1, 1_000_000)?,
                "--seconds" => options.time = Duration::from_secs(number(6, 60)?.into()),
                "--rounds" => options.rounds = number(1, 1_000)?,
                other => return Err(format!("{other} is no option; there are:\n{HELP}")),
            }
        }
        Ok(options)
    }
}

fn main() -> ExitCode {
    if std::env::args().any(|word| word == "--help") {
        println!("{HELP}");
        return ExitCode::SUCCESS;
    }
    let outcome = Options::read(std::env::args().skip(1)).map_err(Into::into).and_then(|options| bench(&options));
    options::finish("places_reread", outcome)
}

fn bench(options: &Options) -> Result<(), Box<dyn Error>> {
    let cores = udp::allowed_cores();
    println!(
        "{}\n{PLACES} prefixes; {} queries/s with client subnets. The daemon has all {} cores, and who asks gives its own away while \
         nothing is due.\nLatency from the moment at which a query was to be sent.",
        usage::machine(),
        options.rate,
        cores.len(),
    );
    let rig = Rig::start(cores.len())?;
    println!(
        "{:28} {:>8} {:>8} {:>8} {:>8} {:>6} {:>7} {:>8}",
        "", "q/s", "p50 ms", "p99 ms", "max ms", "lost", "÷ quiet", "readings"
    );
    let mut ratios = Vec::new();
    for _ in 0..options.rounds {
        let ((), quiet) = rig.load(options, || thread::sleep(options.time))?;
        let (readings, meanwhile) =
            rig.load(options, || rig.replace(options.time).map_err(|error| error.to_string()))?;
        print_row("quiet", &quiet, 1.0, None);
        let ratio = percentile(&meanwhile.latencies, 0.99) / percentile(&quiet.latencies, 0.99);
        print_row("the file is read again", &meanwhile, ratio, Some(readings?));
        ratios.push(ratio);
    }
    ratios.sort_by(f64::total_cmp);
    let median = ratios[ratios.len() / 2];
    println!("Query p99 while the file is read again / quiet: {median:.2} (median; target 2 at most).");
    Ok(())
}

fn print_row(what: &str, tally: &Tally, ratio: f64, readings: Option<usize>) {
    let [p50, p99, max] = [0.5, 0.99, 1.0].map(|share| percentile(&tally.latencies, share));
    let readings = readings.map(|readings| readings.to_string()).unwrap_or_default();
    let (rate, lost) = (tally.rate(), tally.lost);
    println!("{what:28} {rate:8.0} {p50:8.3} {p99:8.3} {max:8.3} {lost:6} {ratio:7.2} {readings:>8}");
}

/// The daemon, and the folder that it works in.
struct Rig {
    server: SocketAddr,
    places: PathBuf,
    process: Process,
    _directory: tempfile::TempDir,
}

impl Rig {
    /// Returns when it gives right answers.
    fn start(workers: usize) -> Result<Rig, Box<dyn Error>> {
        let directory = tempfile::tempdir()?;
        let server = local(free_port());
        let config = world::write_signpost(directory.path(), server, local(free_port()), workers, PLACES, false)?;
        let process = Process::start(Run {
            name: "signpost",
            program: Path::new(env!("CARGO_BIN_EXE_signpost")),
            arguments: ["serve".into(), "--config".into(), config.display().to_string()].into(),
            directory: directory.path(),
            namespace: None,
        });
        let rig = Rig { server, places: directory.path().join("places"), process, _directory: directory };
        let once = Plan { rate: Some(100.0), train: 1, time: Duration::from_millis(50), rests: true };
        try_wait_for(PATIENCE, || {
            rig.process.check()?;
            let tally = load::run(rig.server, once, &mut Asked::new(), &AtomicBool::new(false));
            match tally {
                Ok(tally) if tally.answered > 0 && tally.wrong == 0 => Ok(()),
                Ok(tally) => Err(tally.complaint.unwrap_or_else(|| "no answer".to_owned())),
                Err(error) => Err(error.to_string()),
            }
        })
        .map_err(|last| format!("{last}; the daemon has printed:\n{}", rig.process.log()))?;
        Ok(rig)
    }

    /// Asks while `during` runs. Its end is the end of the load.
    fn load<T>(&self, options: &Options, during: impl FnOnce() -> T) -> Result<(T, Tally), Box<dyn Error>> {
        let plan = Plan { rate: Some(options.rate.into()), train: 1, time: PATIENCE * 2, rests: true };
        load::beside(|done| load::run(self.server, plan, &mut Asked::new(), done), during)
    }

    /// Replaces the file by one that says the same, for so long, and returns when all that was to be read is read; says how often it was.
    fn replace(&self, time: Duration) -> Result<usize, Box<dyn Error>> {
        let (before, start) = (self.readings()?, Instant::now());
        let mut replaced = 0;
        while start.elapsed() + EVERY <= time {
            let next = self.places.with_extension("next");
            fs::copy(&self.places, &next)?;
            fs::rename(&next, &self.places)?;
            replaced += 1;
            try_wait_for(PATIENCE, || {
                let read = self.readings().map_err(|error| error.to_string())? - before;
                if read >= replaced { Ok(()) } else { Err("the file was not read again".to_owned()) }
            })?;
            thread::sleep((EVERY * replaced as u32).saturating_sub(start.elapsed()));
        }
        Ok(self.readings()? - before)
    }

    fn readings(&self) -> std::io::Result<usize> {
        Ok(fs::read_to_string(self.process.log_file())?.lines().filter(|line| line.contains(AGAIN)).count())
    }
}

/// Queries for A with client subnets, as `peers` asks them.
struct Asked {
    random: Random,
    query: Vec<u8>,
}

impl Asked {
    fn new() -> Asked {
        Asked { random: Random::new(1), query: Vec::new() }
    }
}

impl Questions for Asked {
    fn write(&mut self, id: u16, train: &mut Vec<u8>) {
        write_train(Mix::Subnet, 1, 0, &mut self.query, &mut self.random);
        self.query[..2].copy_from_slice(&id.to_be_bytes());
        train.extend_from_slice(&self.query);
    }

    fn check(&mut self, answer: &[u8]) -> Result<(), String> {
        let header = answer.get(..12).ok_or("shorter than a header")?;
        let (rcode, answers) = (header[3] & 0x0F, u16::from_be_bytes([header[6], header[7]]));
        let right = rcode == 0 && u32::from(answers) == CLUSTERS;
        if right { Ok(()) } else { Err(format!("RCODE {rcode}, {answers} records of {CLUSTERS}")) }
    }
}
