//! Several workers beside one: what a query costs when the workers share nothing but the table.
//!
//! At the same low rate, so that neither the servers nor the load's own core is busy. Each core has a server with one
//! worker; one server has a worker on each of them. A core on which the load runs too has other costs than one that is
//! asleep between two trains, so the several are compared with the mean of the single ones.

use std::io;
use std::time::Duration;

use super::generator::{Expect, Generator, Load};
use super::options::{Options, QUICK};
use super::questions::{Addresses, Mix};
use super::report::{Section, Table, list};
use super::servers::Server;
use super::{WARM_UP, median};

/// Sockets of the load: the kernel chooses the worker by the source port, and of few ports one worker may get all.
const LANES: usize = 64;
/// Queries a second: trains that a worker has answered, and gone to sleep, long before the next.
const RATE: f64 = 20_000.0;
/// A worker with more than this of its fair share is one that the others do not relieve.
const UNEVEN: f64 = 1.5;
/// What is aimed at.
const TARGET: f64 = 1.10;

const COLUMNS: &[&str] =
    &["mix", "server", "workers", "q/s", "ns/query", "ratio", "spread", "busiest %", "lost", "wrong"];

struct Sample {
    nanoseconds: f64,
    /// Of all CPU time, what the busiest thread has had.
    busiest: f64,
    rate: f64,
    lost: u64,
    wrong: u64,
    complaint: Option<String>,
}

pub fn measure(options: &Options, cores: &[usize]) -> io::Result<Section> {
    let mut generator = Generator::new(LANES)?;
    let mut table = Table::new(COLUMNS, 3);
    let mut notes = Vec::new();
    let mut right = true;
    let signpost = start(cores, &|cores| Server::signpost(None, cores, 0, false))?;
    for &mix in &options.mixes {
        let mut length = 0;
        for server in &signpost {
            let warm = generator.run(
                server.address,
                mix,
                Load::Gentle(RATE),
                QUICK * WARM_UP,
                Expect::Answers(Addresses::All),
            )?;
            length = (warm.octets / warm.answers.max(1)) as usize;
        }
        let floor = start(cores, &|cores| Server::echo(length, cores))?;
        for server in &floor {
            generator.run(server.address, mix, Load::Gentle(RATE), QUICK, Expect::Octets(length))?;
        }
        for (servers, expect) in [(&floor, Expect::Octets(length)), (&signpost, Expect::Answers(Addresses::All))] {
            let mut measured: Vec<Vec<Sample>> = servers.iter().map(|_| Vec::new()).collect();
            for _ in 0..options.rounds {
                for (samples, server) in measured.iter_mut().zip(servers) {
                    samples.push(sample(&mut generator, server, mix, options.time, expect)?);
                }
            }
            right &= measured.iter().flatten().all(|sample| sample.lost + sample.wrong == 0);
            notes.extend(print(mix, servers[0].name, cores, &measured, &mut table));
        }
    }
    notes.push(format!(
        "{RATE:.0} queries a second in trains from {LANES} ports. The ratio is of all workers together to the mean of the \
         single ones; aimed at: {TARGET:.2} or less."
    ));
    Ok(Section { title: "", table, notes, right })
}

/// One with a worker on each core, and before it one on each core alone.
fn start(cores: &[usize], with: &dyn Fn(&[usize]) -> Result<Server, String>) -> io::Result<Vec<Server>> {
    let each = cores.chunks(1).chain([cores]);
    each.map(|cores| with(cores).map_err(io::Error::other)).collect()
}

fn sample(generator: &mut Generator, server: &Server, mix: Mix, time: Duration, expect: Expect) -> io::Result<Sample> {
    let before = server.cpu_of_threads()?;
    let tally = generator.run(server.address, mix, Load::Gentle(RATE), time, expect)?;
    let after = server.cpu_of_threads()?;
    let spent = |(thread, now): (&String, &u64)| now - before.get(thread).copied().unwrap_or(0);
    let each: Vec<u64> = after.iter().map(spent).collect();
    let all = each.iter().sum::<u64>() as f64;
    let busiest = each.iter().max().copied().unwrap_or(0) as f64 / all.max(1.0);
    let (lost, wrong, complaint) = (tally.lost, tally.wrong, tally.complaint);
    let rate = tally.answers as f64 / tally.elapsed.as_secs_f64();
    Ok(Sample { nanoseconds: all / tally.answers.max(1) as f64, busiest, rate, lost, wrong, complaint })
}

/// The last of the servers is the one with a worker on each core.
fn print(mix: Mix, name: &str, cores: &[usize], measured: &[Vec<Sample>], table: &mut Table) -> Vec<String> {
    let (several, single) = measured.split_last().expect("one server for each core, and one for all");
    let mean = |round: usize| {
        let sum: f64 = single.iter().map(|samples| samples[round].nanoseconds).sum();
        sum / single.len() as f64
    };
    let ratios: Vec<f64> = several.iter().enumerate().map(|(round, sample)| sample.nanoseconds / mean(round)).collect();
    let (low, high) = ratios.iter().fold((f64::MAX, 0_f64), |(low, high), &ratio| (low.min(ratio), high.max(ratio)));
    for (place, samples) in measured.iter().enumerate() {
        let is_last = place == single.len();
        let [ratio, spread] = match is_last {
            true => [format!("{:.2}", median(&ratios, |ratio| *ratio)), format!("{low:.2}–{high:.2}")],
            false => [String::new(), String::new()],
        };
        let workers = match cores.get(place) {
            Some(core) => format!("1 on core {core}"),
            None => format!("{} on cores {}", cores.len(), list(cores)),
        };
        table.push(vec![
            mix.name().into(),
            name.into(),
            workers,
            format!("{:.0}", median(samples, |sample| sample.rate)),
            format!("{:.0}", median(samples, |sample| sample.nanoseconds)),
            ratio,
            spread,
            format!("{:.0}", median(samples, |sample| sample.busiest) * 100.0),
            samples.iter().map(|sample| sample.lost).sum::<u64>().to_string(),
            samples.iter().map(|sample| sample.wrong).sum::<u64>().to_string(),
        ]);
    }
    let mut notes = Vec::new();
    if median(several, |sample| sample.busiest) * cores.len() as f64 > UNEVEN {
        notes.push(format!("{name}, {}: the load is not spread over the workers.", mix.name()));
    }
    let complaint = measured.iter().flatten().find_map(|sample| sample.complaint.as_ref());
    notes.extend(complaint.map(|complaint| format!("{name}, {}: the first wrong answer: {complaint}", mix.name())));
    notes
}
