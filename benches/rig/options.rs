//! What is asked for on the command line.

use std::path::PathBuf;
use std::time::Duration;

use super::questions::Mix;
use super::{places, servers};

/// Fewer rounds show no spread.
const ROUNDS: usize = 5;
/// One measurement. The kernel accounts a running thread at least once in 4 ms.
const TIME: Duration = Duration::from_millis(500);
pub const QUICK: Duration = Duration::from_millis(100);
/// Queries a second of the witness: what all but the slowest can answer on one core.
const WITNESS_RATE: u32 = 50_000;

pub const HELP: &str = "Options:
  --quick              one round of 100 ms
  --help               this list
  --rounds N           rounds; 5
  --time MILLISECONDS  of one measurement; 500
  --mix A,B            of: A, NXDOMAIN (a new name each time), SRV, mix (80 % A, 10 % SRV, 10 % NXDOMAIN), EDNS (A with
                       an OPT record), cookie (the same with a cookie), subnet (the same with a client subnet),
                       mix+subnet (mix, each with a client subnet), case (A with letters of mixed case)
  --servers A,B        of: signpost, gdnsd, nsd, knot, bind, pdns, coredns
  --before FILE        the program of another build of Signpost is measured, too: what a change has done
  --places N           Signpost orders its answers by place, of which it knows N prefixes and each client's; none. gdnsd
                       answers by the same places, with the nearest cluster's address only; the others know none
  --load               one cluster of Signpost's is loaded, so that each answer is weighed and in some it is not first
  --write FILE         also writes the tables there, as Markdown
  --witness dnsperf    has each server asked by dnsperf too, at a fixed rate
  --witness-rate N     queries a second; 50000
  --workers N          instead: CPU per query of N workers on N cores at a low rate, beside that of one worker";

pub struct Options {
    pub rounds: usize,
    pub time: Duration,
    pub mixes: Vec<Mix>,
    pub servers: Vec<String>,
    pub write: Option<PathBuf>,
    /// The program of another build of Signpost.
    pub before: Option<PathBuf>,
    pub witness: bool,
    pub witness_rate: u32,
    /// Prefixes whose place is known to those servers that answer by place; 0: place plays no part.
    pub places: u32,
    /// One cluster is loaded.
    pub load: bool,
    /// Of Signpost, on as many cores. None compares servers on one core.
    pub workers: Option<u16>,
    pub help: bool,
    /// As it was given, for the report.
    pub words: Vec<String>,
}

impl Options {
    pub fn read(words: &[String], servers: &[&str], mixes: &[Mix]) -> Result<Options, String> {
        let mut options = Options {
            rounds: ROUNDS,
            time: TIME,
            mixes: mixes.to_vec(),
            servers: servers.iter().map(ToString::to_string).collect(),
            write: None,
            before: None,
            witness: false,
            witness_rate: WITNESS_RATE,
            places: 0,
            load: false,
            workers: None,
            help: false,
            // cargo says --bench to every benchmark.
            words: words.iter().filter(|word| *word != "--bench").cloned().collect(),
        };
        let all = options.words.clone();
        let mut words = all.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
            match word.as_str() {
                "--quick" => (options.rounds, options.time) = (1, QUICK),
                "--rounds" => options.rounds = number(value()?)? as usize,
                "--time" => options.time = Duration::from_millis(number(value()?)?.into()),
                "--mix" => options.mixes = value()?.split(',').map(mix).collect::<Result<_, _>>()?,
                "--servers" => options.servers = value()?.split(',').map(server).collect::<Result<_, _>>()?,
                "--before" => options.before = Some(program(value()?)?),
                "--write" => options.write = Some(value()?.into()),
                "--witness" => match value()?.as_str() {
                    "dnsperf" => options.witness = true,
                    other => return Err(format!("{other} is no witness; there is dnsperf")),
                },
                "--witness-rate" => options.witness_rate = number(value()?)?,
                "--places" => options.places = known_places(value()?)?,
                "--load" => options.load = true,
                "--workers" => options.workers = Some(workers(value()?)?),
                "--help" => options.help = true,
                other => return Err(format!("{other} is no option. {HELP}")),
            }
        }
        let compares = |word: &&String| ["--servers", "--before", "--witness"].iter().any(|all| word.starts_with(all));
        if let (Some(_), Some(word)) = (options.workers, all.iter().find(compares)) {
            return Err(format!("--workers measures Signpost alone, without {word}"));
        }
        // What it answers decides how long the floor's answers are.
        options.servers.sort_by_key(|name| name != servers::SIGNPOST);
        Ok(options)
    }
}

fn number(text: &str) -> Result<u32, String> {
    text.parse().ok().filter(|number| *number > 0).ok_or_else(|| format!("{text} is no number above 0"))
}

fn known_places(text: &str) -> Result<u32, String> {
    let few = number(text).ok().filter(|number| *number <= places::MOST);
    few.ok_or_else(|| format!("{text} is no number of places above 0, up to {}", places::MOST))
}

/// Servers run in folders of their own.
fn program(text: &str) -> Result<PathBuf, String> {
    std::fs::canonicalize(text).map_err(|error| format!("--before {text}: {error}"))
}

fn mix(text: &str) -> Result<Mix, String> {
    let named = |mix: &Mix| mix.name().eq_ignore_ascii_case(text);
    let known = || Mix::ALL.map(Mix::name).join(", ");
    Mix::ALL.into_iter().find(named).ok_or_else(|| format!("{text} is no mix; there are: {}", known()))
}

fn server(text: &str) -> Result<String, String> {
    let name = text.to_lowercase();
    let known: Vec<&str> = servers::names().collect();
    if known.contains(&name.as_str()) {
        Ok(name)
    } else {
        Err(format!("{text} is no server; there are: {}", known.join(", ")))
    }
}

fn workers(text: &str) -> Result<u16, String> {
    text.parse().ok().filter(|workers| *workers > 1).ok_or_else(|| format!("{text} is no number of workers above 1"))
}
