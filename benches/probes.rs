//! What probing costs: many distinct addresses and ports, each connected to every five seconds, beside the same program that
//! probes nothing.
//!
//! `cargo bench --bench probes`; `-- --quick` for fewer of them. In a network of its own, where everything listens on one socket.

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "support/usage.rs"]
#[allow(dead_code, reason = "each benchmark uses its own part of this")]
mod usage;

use std::fmt::Write as _;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::thread;
use std::time::{Duration, Instant};

use common::namespace::Namespace;
use common::process::{Process, Run};
use common::signpost::{MemberSource, Ports, Setup, Signpost};
use common::wait_for;

const ENDPOINTS: usize = 50_000;
const QUICK: usize = 5_000;
/// Addresses of one service in one cluster, of three.
const EACH: usize = 50;
const INTERVAL: Duration = Duration::from_secs(5);
/// Until each was probed more than once.
const WARM: Duration = Duration::from_secs(15);
const MEASURED: Duration = Duration::from_secs(20);
const DEADLINE: Duration = Duration::from_secs(120);
const PORT: u16 = 8080;
/// Nobody takes what comes to it: the kernel takes the first hundred, and is silent to all others.
const DEAD: u16 = 8081;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["listen"] => listen(),
        [] => compare(ENDPOINTS),
        ["--quick"] => compare(QUICK),
        _ => {
            eprintln!("cargo bench --bench probes [-- --quick]");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// The other end of all probes.
fn listen() {
    let listener = TcpListener::bind(SocketAddr::from(([0, 0, 0, 0], PORT))).expect("a namespace of our own");
    let _never_asked = TcpListener::bind(SocketAddr::from(([0, 0, 0, 0], DEAD))).expect("a namespace of our own");
    println!("listening");
    for connection in listener.incoming() {
        drop(connection);
    }
}

fn compare(endpoints: usize) {
    println!("{endpoints} endpoints, every {} s, seen for {} s", INTERVAL.as_secs(), MEASURED.as_secs());
    println!("{:<14} {:>10} {:>12} {:>12} {:>10} {:>8}", "", "CPU", "resident", "probes/s", "latency", "failed");
    for (name, sections, dead) in [
        ("quiet", "", false),
        ("probing", "health: {quorum: local}\n", false),
        ("a third dead", "health: {quorum: local}\n", true),
    ] {
        run(endpoints, name, sections, dead);
    }
}

/// What the program says of itself, in its own network.
fn metric(namespace: &Namespace, admin: SocketAddr, name: &str) -> Option<f64> {
    let words = [namespace.enter(), vec!["curl".into(), "-s".into(), format!("http://{admin}/metrics")]].concat();
    let output = Command::new(&words[0]).args(&words[1..]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

/// `dead`: nobody answers in the third cluster.
fn run(endpoints: usize, name: &str, sections: &str, dead: bool) {
    let namespace = Namespace::new();
    let directory = tempfile::tempdir().expect("a temporary folder");
    let command = "ip route add local 104.0.0.0/8 dev lo";
    let words = [namespace.enter(), command.split(' ').map(str::to_owned).collect()].concat();
    assert!(Command::new(&words[0]).args(&words[1..]).status().is_ok_and(|s| s.success()), "{command}");
    let exe = std::env::current_exe().expect("the benchmark is a program");
    let listener = Process::start(Run {
        name: "listener",
        program: &exe,
        arguments: vec!["listen".to_owned()],
        directory: directory.path(),
        namespace: Some(&namespace),
    });
    wait_for("the listener", DEADLINE, || match listener.log() {
        log if log.contains("listening") => Ok(()),
        log => listener.check().and(Err(log)),
    });
    let mut setup =
        Setup::new([0, 1, 2].map(|cluster| source(directory.path(), cluster, endpoints, dead && cluster == 2)).into());
    setup.sections = sections.to_owned();
    let ports = Ports::inside();
    let signpost = Signpost::spawn(&setup, ports, Some(&namespace));
    wait_for("the program", DEADLINE, || match metric(&namespace, ports.admin, "signpost_names ") {
        Some(names) if names as usize >= endpoints.div_ceil(3 * EACH) => Ok(()),
        names => signpost.check().and(Err(format!("{names:?}"))),
    });
    thread::sleep(WARM);
    let probes = |result| metric(&namespace, ports.admin, &format!("signpost_probes_total{{result=\"{result}\"}} "));
    // What is not there refuses, or does not answer.
    let failed = || Some(probes("unreachable").unwrap_or(0.0) + probes("late").unwrap_or(0.0));
    let seconds = || metric(&namespace, ports.admin, "signpost_probe_good_seconds_total ").unwrap_or(0.0);
    let (begun, cpu, good, failed_before, took) =
        (Instant::now(), usage::cpu(signpost.id()).expect("it runs"), probes("good"), failed(), seconds());
    thread::sleep(MEASURED);
    let time = begun.elapsed().as_secs_f64();
    let after = usage::cpu(signpost.id()).expect("it runs");
    let resident = usage::memory(signpost.id()).expect("it runs").now;
    let more = |now: Option<f64>, before: Option<f64>| now.unwrap_or(0.0) - before.unwrap_or(0.0);
    let (good, failed) = (more(probes("good"), good), more(failed(), failed_before));
    println!(
        "{:<14} {:>6.1} % {:>9.1} MB {:>12.0} {:>7.2} ms {:>8.0}",
        name,
        (after - cpu).as_secs_f64() / time * 100.0,
        resident as f64 / 1e6,
        good / time,
        if good > 0.0 { (seconds() - took) / good * 1e3 } else { 0.0 },
        failed,
    );
}

/// The manifests of one cluster, with a third of the endpoints.
fn source(directory: &Path, cluster: usize, endpoints: usize, dead: bool) -> MemberSource {
    let folder = directory.join(format!("cluster-{}", cluster + 1));
    fs::create_dir(&folder).expect("the folder is ours");
    let mut text = String::new();
    let count = (endpoints + 2 - cluster) / 3;
    for service in 0..count.div_ceil(EACH) {
        let addresses = (service * EACH..count.min((service + 1) * EACH))
            .map(|n| format!("{{ip: 104.{cluster}.{}.{}}}", n / 250, n % 250 + 1));
        let addresses: Vec<String> = addresses.collect();
        writeln!(
            text,
            "---\n{{apiVersion: v1, kind: Service, metadata: {{name: s{service}, namespace: n}}, spec: {{type: LoadBalancer, \
             clusterIP: 10.{cluster}.{}.{}, ports: [{{port: {}}}]}}, status: {{loadBalancer: {{ingress: [{}]}}}}}}",
            service / 250,
            service % 250 + 1,
            if dead { DEAD } else { PORT },
            addresses.join(", ")
        )
        .expect("a String takes everything");
    }
    fs::write(folder.join("all.yaml"), text).expect("the folder is ours");
    MemberSource::Manifests(folder)
}
