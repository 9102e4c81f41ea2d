//! What a UDP worker asks of the kernel, seen by strace.

use std::collections::BTreeMap;
use std::fs;
use std::net::UdpSocket;
use std::path::Path;
use std::time::Duration;

use hickory_proto::op::{Edns, Message};
use hickory_proto::rr::RecordType;

use super::server::{DEADLINE, Demo, SERVICE, Server, ZONE, query};
use crate::common::local;
use crate::common::process::command_in;

/// Queries in a round. Fewer than a worker's batch, so that none is lost.
const ROUND: u16 = 16;
const WARM_UP: usize = 20;
const ROUNDS: usize = 250;

/// One worker, whose thread is then the only one that receives datagrams.
fn demo() -> Demo {
    let demo = Demo::new();
    let (head, _) =
        demo.read_config().split_once("\nlisteners:").map(|(a, b)| (a.to_owned(), b.to_owned())).expect("demo");
    demo.write_config(&format!(
        "{head}
listeners:
  - {{addresses: [\"127.0.0.1:8053\"], view: external}}
admin: {{address: \"127.0.0.1:8055\"}}
limits: {{udpWorkers: 1}}
"
    ));
    demo
}

/// Whether strace can be used here. Where the whole suite is run on a machine of its own, it has to be.
fn can_trace() -> bool {
    let probe =
        command_in(None, Path::new("strace"), &["-o", "/dev/null", "true"]).output().expect("setpriv can be run");
    let said = String::from_utf8_lossy(&probe.stderr);
    assert!(
        !said.contains("failed to execute strace"),
        "strace is missing: install the packages of tests/apt-packages.txt"
    );
    if probe.status.success() {
        return true;
    }
    assert!(std::env::var_os("CI").is_none(), "strace may not trace here: {said}");
    eprintln!("NOT TESTED: strace may not trace on this machine: {said}");
    false
}

/// Answers with addresses, SRV records, nothing, and NXDOMAIN, each without and with EDNS.
fn queries() -> Vec<Vec<u8>> {
    let asks = [
        (SERVICE.to_owned(), RecordType::A),
        (format!("_client._tcp.{SERVICE}"), RecordType::SRV),
        (SERVICE.to_owned(), RecordType::TXT),
        (format!("x.my-namespace.{ZONE}"), RecordType::A),
    ];
    let with_edns = |plain: &Vec<u8>| {
        let mut message = Message::from_vec(plain).expect("it was made a line above");
        message.edns = Some(Edns::new());
        message.to_vec().expect("a query")
    };
    let plain: Vec<_> = asks.iter().map(|(name, rtype)| query(0, name, *rtype)).collect();
    plain.iter().cloned().chain(plain.iter().map(with_edns)).collect()
}

fn exchange(client: &UdpSocket, queries: &[Vec<u8>], rounds: usize) {
    let mut buffer = [0; 2048];
    for _ in 0..rounds {
        for (id, query) in (0..ROUND).zip(queries.iter().cycle()) {
            client.send(&[&id.to_be_bytes()[..], &query[2..]].concat()).expect("loopback takes it");
        }
        for answered in 0..ROUND {
            client.recv(&mut buffer).unwrap_or_else(|e| panic!("after {answered} of {ROUND} answers: {e}"));
        }
    }
}

/// Thread and system call of a line of `strace -f`; `None` for lines about signals and ends.
fn call(line: &str) -> Option<(u32, &str)> {
    let (thread, rest) = line.split_once(' ')?;
    let rest = rest.trim_start();
    let name = match rest.strip_prefix("<... ") {
        Some(resumed) => resumed.split_once(" resumed")?.0,
        None => rest.split_once('(')?.0,
    };
    name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_').then_some(())?;
    Some((thread.parse().ok()?, name))
}

#[test]
fn a_udp_worker_only_receives_and_sends() {
    if !can_trace() {
        return;
    }
    let demo = demo();
    let trace = demo.path().join("strace");
    let server = Server::start_under(&["strace", "-f", "-o", trace.to_str().expect("a UTF-8 path")], demo, &[]);
    let client = UdpSocket::bind("127.0.0.1:0").expect("an ephemeral port");
    client.connect(local(server.ports.external)).expect("loopback");
    client.set_read_timeout(Some(Duration::from_secs(10))).expect("not zero");
    let queries = queries();
    exchange(&client, &queries, WARM_UP);
    let before = fs::metadata(&trace).expect("strace writes it").len() as usize;
    exchange(&client, &queries, ROUNDS);
    let text = fs::read(&trace).expect("strace writes it");
    let text = String::from_utf8_lossy(&text);

    let mut receivers: Vec<u32> = text.lines().filter_map(call).filter(|c| c.1 == "recvmmsg").map(|c| c.0).collect();
    receivers.dedup();
    receivers.sort_unstable();
    receivers.dedup();
    let [worker] = receivers[..] else { panic!("one thread receives datagrams: {receivers:?}") };
    // From one whole line to another.
    let end = text.rfind('\n').expect("there are lines");
    let start = before + text[before..].find('\n').expect("lines were added");
    let mut calls: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, name) in text[start..end].lines().filter_map(call).filter(|c| c.0 == worker) {
        *calls.entry(name).or_default() += 1;
    }
    println!("{} answers: {calls:?}", ROUNDS * usize::from(ROUND));
    let names: Vec<&str> = calls.keys().copied().collect();
    assert_eq!(names, ["recvmmsg", "sendmmsg"], "{calls:?}");
    // A batch takes 32 at most: this many calls are those that the answers came from.
    assert!(calls.values().all(|&n| n >= ROUNDS * usize::from(ROUND) / 32), "{calls:?}");
    assert!(server.process.terminate(DEADLINE).success());
}
