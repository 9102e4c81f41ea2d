//! What a query over UDP costs: CPU time of the server process for each answer, beside the echo floor in the same minute.
//!
//! `cargo bench --bench query_cost`; after `--`: `--quick` for one short round, `--rounds N`, `--mix NAME`.

#[path = "../../tests/common/mod.rs"]
mod common;
mod generator;
mod questions;
mod servers;

use std::env;
use std::fs;
use std::io;
use std::process::{Command, ExitCode};
use std::time::Duration;

use signpost::net::udp;

use generator::{Expect, Generator, Load, Tally};
use questions::{CLUSTERS, Mix, SERVICES};
use servers::{ECHO, Server};

/// Fewer rounds show no spread.
const ROUNDS: usize = 5;
/// One measurement. The kernel accounts a running thread at least once in 4 ms.
const TIME: Duration = Duration::from_millis(500);
const QUICK: Duration = Duration::from_millis(100);

struct Options {
    rounds: usize,
    time: Duration,
    mix: Option<String>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let outcome = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [ECHO, address, length] => servers::serve_echo(address, length).map(|()| true),
        _ => options(&arguments).and_then(|options| bench(&options)),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("query_cost: {error}");
            ExitCode::FAILURE
        }
    }
}

fn options(arguments: &[String]) -> io::Result<Options> {
    let mut options = Options { rounds: ROUNDS, time: TIME, mix: None };
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| io::Error::other(format!("{word} needs a value")));
        match word.as_str() {
            // cargo says so to every benchmark.
            "--bench" => {}
            "--quick" => (options.rounds, options.time) = (1, QUICK),
            "--rounds" => options.rounds = value()?.parse::<usize>().map_err(io::Error::other)?.max(1),
            "--mix" => options.mix = Some(value()?.clone()),
            other => return Err(io::Error::other(format!("{other} is no option; there are --quick, --rounds, --mix"))),
        }
    }
    Ok(options)
}

/// Whether every answer was right.
fn bench(options: &Options) -> io::Result<bool> {
    let cores = udp::allowed_cores();
    let (Some(&servers), Some(&own)) = (cores.first(), cores.last()) else {
        return Err(io::Error::other("the kernel does not tell the cores of this process"));
    };
    if servers == own {
        return Err(io::Error::other("two cores are needed: one for the servers, one for the load"));
    }
    print_machine(servers, own);
    // Whoever is started from here inherits the core.
    udp::pin_to(servers);
    let signpost = Server::signpost();
    udp::pin_to(own);
    let mut generator = Generator::new()?;
    println!(
        "{:9} {:9} {:>6} {:>10} {:>10} {:>9} {:>11} {:>6} {:>12} {:>5} {:>5}",
        "mix", "load", "octets", "floor q/s", "our q/s", "floor ns", "signpost ns", "ratio", "spread", "lost", "wrong"
    );
    let mut right = true;
    for mix in Mix::ALL.into_iter().filter(|mix| options.mix.as_deref().is_none_or(|name| name == mix.name())) {
        right &= measure(mix, options, &signpost, servers, own, &mut generator)?;
    }
    Ok(right)
}

fn print_machine(servers: usize, own: usize) {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let rustc = Command::new("rustc").arg("--version").output().ok();
    let rustc = rustc.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    println!(
        "Linux {}; {} × {}; {}; load average {}",
        read("/proc/sys/kernel/osrelease").trim(),
        cpus.lines().filter(|line| line.starts_with("processor")).count(),
        model.unwrap_or("unknown processor"),
        rustc.unwrap_or_else(|| "rustc unknown".into()),
        read("/proc/loadavg").split(' ').next().unwrap_or_default(),
    );
    println!(
        "servers on core {servers}, load on core {own}; {SERVICES} services × {CLUSTERS} clusters; one UDP worker; loopback"
    );
}

/// One mix at both loads.
fn measure(
    mix: Mix,
    options: &Options,
    signpost: &Server,
    servers: usize,
    own: usize,
    generator: &mut Generator,
) -> io::Result<bool> {
    let warm = generator.run(signpost.address, mix, Load::Saturated, options.time, Expect::Answers)?;
    if warm.answers == 0 {
        return Err(io::Error::other(format!("no answer to {}", mix.name())));
    }
    let length = (warm.octets / warm.answers) as usize;
    udp::pin_to(servers);
    let echo = Server::echo(length);
    udp::pin_to(own);
    generator.run(echo.address, mix, Load::Saturated, QUICK, Expect::Octets(length))?;

    let mut saturated = Rounds::default();
    saturated.measure(mix, Load::Saturated, options, &echo, signpost, length, generator)?;
    let [floor, ours] = saturated.rates();
    let right = saturated.print(mix, "saturated", length);
    let mut half = Rounds::default();
    half.measure(mix, Load::Rate(floor.min(ours) / 2.0), options, &echo, signpost, length, generator)?;
    Ok(half.print(mix, "half", length) && right)
}

/// A measurement of one server.
struct Sample {
    nanoseconds: f64,
    tally: Tally,
}

/// Pairs of the floor and Signpost, one right after the other.
#[derive(Default)]
struct Rounds(Vec<[Sample; 2]>);

impl Rounds {
    #[expect(
        clippy::too_many_arguments,
        reason = "what is measured, how, and with what; the one caller has them apart"
    )]
    fn measure(
        &mut self,
        mix: Mix,
        load: Load,
        options: &Options,
        echo: &Server,
        signpost: &Server,
        length: usize,
        generator: &mut Generator,
    ) -> io::Result<()> {
        let mut one = |server: &Server, expect| -> io::Result<Sample> {
            let before = server.cpu()?;
            let tally = generator.run(server.address, mix, load, options.time, expect)?;
            let spent = server.cpu()?.saturating_sub(before);
            Ok(Sample { nanoseconds: spent.as_nanos() as f64 / tally.answers.max(1) as f64, tally })
        };
        for _ in 0..options.rounds {
            let floor = one(echo, Expect::Octets(length))?;
            let ours = one(signpost, Expect::Answers)?;
            self.0.push([floor, ours]);
        }
        Ok(())
    }

    fn rates(&self) -> [f64; 2] {
        [0, 1].map(|of| self.median(|pair| pair[of].tally.answers as f64 / pair[of].tally.elapsed.as_secs_f64()))
    }

    /// Whether every answer was right.
    fn print(&self, mix: Mix, load: &str, length: usize) -> bool {
        let [floor_rate, our_rate] = self.rates();
        let ratio = |pair: &[Sample; 2]| pair[1].nanoseconds / pair[0].nanoseconds;
        let (low, high) = self.0.iter().map(ratio).fold((f64::MAX, 0_f64), |(l, h), r| (l.min(r), h.max(r)));
        let sum = |of: fn(&Tally) -> u64| self.0.iter().flatten().map(|sample| of(&sample.tally)).sum::<u64>();
        let wrong = sum(|tally| tally.wrong);
        println!(
            "{:9} {load:9} {length:6} {floor_rate:10.0} {our_rate:10.0} {:9.0} {:11.0} {:6.3} {:>12} {:5} {wrong:5}",
            mix.name(),
            self.median(|pair| pair[0].nanoseconds),
            self.median(|pair| pair[1].nanoseconds),
            self.median(ratio),
            format!("{low:.2} – {high:.2}"),
            sum(|tally| tally.lost),
        );
        if let Some(complaint) = self.0.iter().flatten().find_map(|sample| sample.tally.complaint.as_ref()) {
            println!("  the first wrong answer: {complaint}");
        }
        wrong == 0
    }

    fn median(&self, of: impl Fn(&[Sample; 2]) -> f64) -> f64 {
        let mut values: Vec<f64> = self.0.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    }
}
