//! The rig: servers on one core, one generator on another, the echo floor beside every measurement.

mod buffers;
mod generator;
mod options;
mod peers;
mod places;
mod questions;
mod report;
mod servers;
#[path = "../support/trains.rs"]
mod trains;
mod witness;
mod workers;
mod world;

use std::env;
use std::fs;
use std::io;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::thread;

use signpost::net::udp;

use generator::{Expect, Generator, INTERRUPTED, Load, Tally, interrupted};
use options::{HELP, Options, QUICK};
pub use questions::Mix;
use report::{Section, Table};
use servers::{ECHO, SIGNPOST, Server};
use witness::Seen;

/// Sockets of the load: with the trains of one call each, 256 queries are on their way.
const LANES: usize = 8;
/// Measurements that a server is asked for before the first: those that keep whole answers then have them.
const WARM_UP: u32 = 4;
/// Measurements that dnsperf's one is as long as.
const WITNESS_TIME: u32 = 8;
/// Of the rate at which a server answers when saturated: what it still takes without a queue.
const COMFORTABLE: f64 = 0.8;

const COLUMNS: &[&str] = &[
    "mix",
    "load",
    "server",
    "q/s",
    "octets",
    "ns/query",
    "ratio",
    "spread",
    "lost",
    "wrong",
    "p50 µs",
    "p99 µs",
    "p99.9 µs",
];
const WITNESS_COLUMNS: &[&str] =
    &["mix", "server", "RCODE", "q/s", "sent", "answered", "lost", "octets", "ns/query", "ratio"];

/// With the servers and mixes that are measured when the options name no others.
pub fn main(name: &str, servers: &[&str], mixes: &[Mix]) -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let outcome = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [ECHO, address, length] => servers::serve_echo(address, length).map(|()| true),
        _ => Options::read(&words, servers, mixes)
            .map_err(io::Error::other)
            .and_then(|options| watch_signals().and_then(|()| bench(name, &options))),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// An interrupted run ends its servers and removes their folders, as every other does.
fn watch_signals() -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    thread::spawn(move || {
        runtime.block_on(async {
            let (Ok(mut interrupt), Ok(mut terminate)) =
                (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
            else {
                return;
            };
            tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
            INTERRUPTED.store(true, Ordering::Relaxed);
        });
    });
    Ok(())
}

/// Whether every answer of Signpost and of the floor came and was right.
fn bench(name: &str, options: &Options) -> io::Result<bool> {
    if options.help {
        println!("{HELP}");
        return Ok(true);
    }
    let cores = udp::allowed_cores();
    let (Some(&core), Some(&own)) = (cores.first(), cores.last()) else {
        return Err(io::Error::other("the kernel does not tell the cores of this process"));
    };
    if core == own {
        return Err(io::Error::other("two cores are needed: one for the servers, one for the load"));
    }
    udp::pin_to(own);
    let of_servers = match options.workers {
        None => &cores[..1],
        Some(workers) => cores
            .get(..workers.into())
            .ok_or_else(|| io::Error::other(format!("--workers {workers}: there are only {} cores", cores.len())))?,
    };
    let mut about = report::machine(of_servers, own);
    println!("{about}");
    let sections = match options.workers {
        None => compare(options, core, &mut about)?,
        Some(_) => {
            let section = workers::measure(options, of_servers)?;
            println!("{}", section.text());
            vec![section]
        }
    };
    let load = format!("Load average after: {}.\n", report::load_average());
    println!("{load}");
    if let Some(file) = &options.write {
        let words: String = options.words.iter().map(|word| format!(" {word}")).collect();
        let words = if words.is_empty() { words } else { format!(" --{words}") };
        let mut text = format!("`cargo bench --bench {name}{words}`, {} rounds\n\n{about}\n", options.rounds);
        sections.iter().for_each(|section| text += &section.markdown());
        fs::write(file, text + &load)?;
    }
    Ok(sections.iter().all(|section| section.right))
}

/// All servers on one core, one after the other. Says in `about` what they are.
fn compare(options: &Options, core: usize, about: &mut String) -> io::Result<Vec<Section>> {
    let zone_file = world::zone_file();
    let mut servers = Vec::new();
    for server in &options.servers {
        let started = match server.as_str() {
            SIGNPOST => Server::signpost(None, &[core], options.places, options.load),
            peer => peers::start(peer, &zone_file, options.places, core),
        };
        interrupted()?;
        match started {
            Ok(server) => servers.push(server),
            Err(why) => {
                let note = format!("Without {server}: {why}.\n");
                print!("{note}");
                *about += &note;
            }
        }
    }
    if let Some(before) = &options.before {
        let started = Server::signpost(Some(before), &[core], options.places, options.load);
        servers.push(started.map_err(|why| io::Error::other(format!("{}: {why}", before.display())))?);
    }
    let versions = report::versions(&servers);
    println!("{versions}");
    *about += &versions;

    // Others may be missing.
    let right = servers.iter().any(|server| server.name == SIGNPOST) || !options.servers.iter().any(|s| s == SIGNPOST);
    let mut rig = Rig { options, servers: &servers, core, generator: Generator::new(LANES)?, right };
    let mut table = Table::new(COLUMNS, 3);
    let mut notes = Vec::new();
    for &mix in &options.mixes {
        notes.extend(rig.measure(mix, &mut table)?);
    }
    let mut sections = vec![Section { title: "", table, notes, right: rig.right }];
    // Before the witness, which may fail.
    println!("{}", sections[0].text());
    if options.witness {
        let mut table = Table::new(WITNESS_COLUMNS, 3);
        let notes = rig.witness(&mut table)?;
        let section = Section { title: "dnsperf", table, notes, right: true };
        println!("{}", section.text());
        sections.push(section);
    }
    Ok(sections)
}

struct Rig<'a> {
    options: &'a Options,
    servers: &'a [Server],
    core: usize,
    generator: Generator,
    right: bool,
}

/// A measurement of one server.
struct Sample {
    nanoseconds: f64,
    tally: Tally,
}

/// Of one server: the floor and itself, one right after the other, again and again.
type Pairs = Vec<[Sample; 2]>;

impl Rig<'_> {
    /// One mix at both loads. Returns what there is to say beside the table.
    fn measure(&mut self, mix: Mix, table: &mut Table) -> io::Result<Vec<String>> {
        let mut notes = Vec::new();
        let mut length = None;
        let mut taking_part = Vec::new();
        for server in self.servers {
            let time = self.options.time * WARM_UP;
            let warm =
                self.generator.run(server.address, mix, Load::Saturated, time, Expect::Answers(server.addresses))?;
            if warm.answers == 0 {
                notes.push(format!("{}: no answer to {}.", server.name, mix.name()));
                continue;
            }
            // Signpost's, which is the first.
            length.get_or_insert((warm.octets / warm.answers) as usize);
            taking_part.push(server);
        }
        let Some(length) = length else { return Ok(notes) };
        let echo = Server::echo(length, &[self.core]).map_err(io::Error::other)?;
        self.generator.run(echo.address, mix, Load::Saturated, QUICK, Expect::Octets(length))?;

        let saturated = self.rounds(mix, &echo, length, &taking_part, &|_| Load::Saturated)?;
        let floor = median(saturated.iter().flatten(), |[floor, _]| floor.rate());
        let rates: Vec<f64> = saturated
            .iter()
            .map(|pairs| {
                let own = median(pairs, |[_, server]| server.rate());
                if floor / 2.0 <= own * COMFORTABLE { floor / 2.0 } else { own / 2.0 }
            })
            .collect();
        let half = self.rounds(mix, &echo, length, &taking_part, &|server| Load::Rate(rates[server]))?;
        for (load, measured) in [("saturated", saturated), ("half", half)] {
            print_floor(mix, load, measured.iter().flatten().map(|[floor, _]| floor).collect(), table);
            for (server, pairs) in taking_part.iter().zip(&measured) {
                notes.extend(print_server(mix, load, server.name, pairs, table));
                let good = pairs.iter().flatten().all(|sample| sample.tally.lost + sample.tally.wrong == 0);
                self.right &= good || server.name != SIGNPOST;
            }
            notes.extend(below_all(mix, load, &taking_part, &measured));
        }
        Ok(notes)
    }

    /// A B A C A B A C …: floor, server, floor, next server.
    fn rounds(
        &mut self,
        mix: Mix,
        echo: &Server,
        length: usize,
        servers: &[&Server],
        load: &dyn Fn(usize) -> Load,
    ) -> io::Result<Vec<Pairs>> {
        let mut measured: Vec<Pairs> = servers.iter().map(|_| Vec::new()).collect();
        for _ in 0..self.options.rounds {
            for (place, server) in servers.iter().enumerate() {
                let floor = self.sample(echo, mix, load(place), Expect::Octets(length))?;
                let own = self.sample(server, mix, load(place), Expect::Answers(server.addresses))?;
                measured[place].push([floor, own]);
            }
        }
        Ok(measured)
    }

    /// The server is asked for a moment before it is measured: another one had the core's caches, and to fill them again is the rig's
    /// doing and no server's own cost.
    fn sample(&mut self, server: &Server, mix: Mix, load: Load, expect: Expect) -> io::Result<Sample> {
        self.generator.run(server.address, mix, load, options::QUICK, expect)?;
        let before = server.cpu()?;
        let tally = self.generator.run(server.address, mix, load, self.options.time, expect)?;
        let spent = server.cpu()?.saturating_sub(before);
        Ok(Sample { nanoseconds: spent.as_nanos() as f64 / tally.answers.max(1) as f64, tally })
    }

    /// Each server and the floor asked once by dnsperf, in each mix.
    fn witness(&mut self, table: &mut Table) -> io::Result<Vec<String>> {
        let mut notes = Vec::new();
        let directory = tempfile::tempdir()?;
        let queries = directory.path().join("queries");
        let time = self.options.time * WITNESS_TIME;
        for &mix in &self.options.mixes {
            witness::write_queries(mix, &queries)?;
            let ask = |server: &Server| witness::ask(server, mix, &queries, self.options.witness_rate, time);
            let mut floor = None;
            for server in self.servers {
                interrupted()?;
                let seen = match ask(server) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        return Ok(vec!["No witness: dnsperf is not there (package dnsperf).".into()]);
                    }
                    Err(error) => {
                        notes.push(format!("{}, {}: no witness: {error}", server.name, mix.name()));
                        continue;
                    }
                    Ok(seen) => seen,
                };
                if floor.is_none() && seen.answered > 0 {
                    // As long as Signpost's, which is the first.
                    let echo = Server::echo(seen.octets, &[self.core]).map_err(io::Error::other)?;
                    let seen = ask(&echo)?;
                    floor = Some(seen.nanoseconds);
                    table.push(witness_row(mix, echo.name, &seen, seen.nanoseconds));
                }
                table.push(witness_row(mix, server.name, &seen, floor.unwrap_or(f64::NAN)));
            }
        }
        Ok(notes)
    }
}

fn witness_row(mix: Mix, name: &str, seen: &Seen, floor: f64) -> Vec<String> {
    vec![
        mix.name().into(),
        name.into(),
        seen.rcodes.clone(),
        format!("{:.0}", seen.rate),
        seen.sent.to_string(),
        seen.answered.to_string(),
        seen.lost.to_string(),
        seen.octets.to_string(),
        format!("{:.0}", seen.nanoseconds),
        format!("{:.2}", seen.nanoseconds / floor),
    ]
}

impl Sample {
    /// Answers a second.
    fn rate(&self) -> f64 {
        self.tally.answers as f64 / self.tally.elapsed.as_secs_f64()
    }
}

fn print_floor(mix: Mix, load: &str, samples: Vec<&Sample>, table: &mut Table) {
    let columns = ["1".to_owned(), String::new()];
    print_row([mix.name(), load, "floor"], &samples, columns, table);
}

/// Returns what it failed in.
fn print_server(mix: Mix, load: &str, name: &str, pairs: &Pairs, table: &mut Table) -> Vec<String> {
    let (low, high) = pairs.iter().map(ratio).fold((f64::MAX, 0_f64), |(l, h), r| (l.min(r), h.max(r)));
    let samples: Vec<&Sample> = pairs.iter().map(|[_, server]| server).collect();
    let columns = [format!("{:.2}", median(pairs, ratio)), format!("{low:.2}–{high:.2}")];
    print_row([mix.name(), load, name], &samples, columns, table);
    let sum = |of: fn(&Tally) -> u64| samples.iter().map(|sample| of(&sample.tally)).sum::<u64>();
    let (lost, answers) = (sum(|tally| tally.lost), sum(|tally| tally.answers));
    let mut notes = Vec::new();
    if lost > 0 {
        let percent = lost as f64 * 100.0 / (lost + answers) as f64;
        notes
            .push(format!("{name}, {}, {load}: {lost} queries ({percent:.2} %) failed without an answer.", mix.name()));
    }
    let complaint = samples.iter().find_map(|sample| sample.tally.complaint.as_ref());
    notes.extend(
        complaint.map(|complaint| format!("{name}, {}, {load}: the first wrong answer: {complaint}", mix.name())),
    );
    notes
}

/// In how many rounds Signpost's ratio was the lowest, if it was there and had company.
fn below_all(mix: Mix, load: &str, servers: &[&Server], measured: &[Pairs]) -> Option<String> {
    let place = servers.iter().position(|server| server.name == SIGNPOST).filter(|_| servers.len() > 1)?;
    let below = |round: &usize| {
        let own = ratio(&measured[place][*round]);
        measured.iter().enumerate().all(|(other, pairs)| other == place || own < ratio(&pairs[*round]))
    };
    let rounds = measured[place].len();
    let count = (0..rounds).filter(below).count();
    Some(format!("{}, {load}: {SIGNPOST} was below every other server in {count} of {rounds} rounds.", mix.name()))
}

fn ratio([floor, server]: &[Sample; 2]) -> f64 {
    server.nanoseconds / floor.nanoseconds
}

fn print_row(words: [&str; 3], samples: &[&Sample], [ratio, spread]: [String; 2], table: &mut Table) {
    let sum = |of: fn(&Tally) -> u64| samples.iter().map(|sample| of(&sample.tally)).sum::<u64>();
    let mut latencies: Vec<u32> = samples.iter().flat_map(|sample| &sample.tally.latencies).copied().collect();
    latencies.sort_unstable();
    // When saturated, a query waits for those of its own train and of the other lanes: a property of the load.
    let timed = words[1] != "saturated" && !latencies.is_empty();
    let percentile = |of: f64| {
        let place = ((latencies.len() as f64 * of) as usize).min(latencies.len().saturating_sub(1));
        if timed { format!("{:.0}", f64::from(latencies[place]) / 1e3) } else { String::new() }
    };
    let mut row: Vec<String> = words.map(str::to_owned).into();
    row.extend([
        format!("{:.0}", median(samples, |sample| sample.rate())),
        (sum(|tally| tally.octets) / sum(|tally| tally.answers).max(1)).to_string(),
        format!("{:.0}", median(samples, |sample| sample.nanoseconds)),
        ratio,
        spread,
        sum(|tally| tally.lost).to_string(),
        sum(|tally| tally.wrong).to_string(),
        percentile(0.5),
        percentile(0.99),
        percentile(0.999),
    ]);
    table.push(row);
}

fn median<'a, T: 'a>(samples: impl IntoIterator<Item = &'a T>, of: impl Fn(&T) -> f64) -> f64 {
    let mut values: Vec<f64> = samples.into_iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
