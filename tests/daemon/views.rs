//! What a listener says while a reload gives its cluster another position.

use std::collections::BTreeSet;
use std::fs;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hickory_proto::op::Message;
use hickory_proto::rr::RecordType;

use super::server::{DEADLINE, Demo, SERVICE, Server, addresses, query};
use super::signals::{APPLIED, reload};
use crate::common::{local, wait_for};

const RELOADS: usize = 20;
/// Queries on their way to each listener: some are always being answered, whatever moment a reload chooses.
const IN_FLIGHT: u16 = 32;
/// What was sent while a listener was away gets no answer; after this long, all is asked anew.
const ANSWER: Duration = Duration::from_millis(100);
/// Answers from each listener after a reload, all sent after it was counted.
const ANSWERS: usize = 500;
/// The clusters' own addresses of the service, as the demo's manifests have them.
const OWN: [&str; 2] = ["10.0.153.185", "10.8.14.62"];

const CLUSTERS: [&str; 2] = [
    "  - {name: cluster-1, manifests: demo/cluster-1, region: r}\n",
    "  - {name: cluster-2, manifests: demo/cluster-2, region: r}\n",
];

fn demo() -> Demo {
    let demo = Demo::new();
    demo.write_config(&format!(
        "zones:
  - name: my-federation.my-domain.com
    schema: federation
    file: ../zones/my-federation.my-domain.com.zone
clusters:
{}{}listeners:
  - {{addresses: [\"127.0.0.1:8053\"], view: {{internal: cluster-1}}}}
  - {{addresses: [\"127.0.0.1:8054\"], view: {{internal: cluster-2}}}}
admin: {{address: \"127.0.0.1:8055\"}}
",
        CLUSTERS[0], CLUSTERS[1],
    ));
    demo
}

/// Asks one listener until told to stop; gives the different answers that it had.
fn poll(port: u16, stop: &AtomicBool, answers: &AtomicUsize) -> BTreeSet<Vec<String>> {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("an ephemeral port");
    socket.set_read_timeout(Some(ANSWER)).expect("not zero");
    let ask = |id| {
        socket.send_to(&query(id, SERVICE, RecordType::A), local(port)).expect("loopback takes it");
    };
    let mut seen = BTreeSet::new();
    let mut buffer = [0; 1500];
    (0..IN_FLIGHT).for_each(ask);
    while !stop.load(Ordering::Relaxed) {
        match socket.recv(&mut buffer) {
            Ok(length) => {
                let answer = Message::from_vec(&buffer[..length]).expect("an answer that parses");
                seen.insert(addresses(&answer));
                answers.fetch_add(1, Ordering::Relaxed);
                ask(answer.metadata.id);
            }
            Err(_) => (0..IN_FLIGHT).for_each(ask),
        }
    }
    seen
}

/// A view names its cluster by position: a listener that outlived its table would tell one cluster's clients the
/// clusterIPs of another.
#[test]
fn no_listener_ever_tells_another_clusters_address() {
    let server = Server::start(demo(), &[]);
    let ports = [server.ports.external, server.ports.internal];
    let stop = AtomicBool::new(false);
    let answers = [AtomicUsize::new(0), AtomicUsize::new(0)];
    let (one_two, two_one) = (CLUSTERS.concat(), format!("{}{}", CLUSTERS[1], CLUSTERS[0]));
    let mut seen = Vec::new();
    thread::scope(|scope| {
        let (stop, answers) = (&stop, &answers);
        let pollers = [0, 1].map(|i| scope.spawn(move || poll(ports[i], stop, &answers[i])));
        // Ends the pollers also when what follows panics.
        let ended = StopOnDrop(stop);
        let both_answer = |what: &str| {
            let before = answers.each_ref().map(|n| n.load(Ordering::Relaxed));
            wait_for(what, DEADLINE, || {
                let more: Vec<usize> = (0..2).map(|i| answers[i].load(Ordering::Relaxed) - before[i]).collect();
                let all = more.iter().all(|&n| n >= ANSWERS + usize::from(IN_FLIGHT));
                if all { Ok(()) } else { Err(format!("{more:?} answers")) }
            });
        };
        both_answer("both listeners answer before the first reload");
        let since = Instant::now();
        for n in 0..RELOADS {
            let (from, to) = if n % 2 == 0 { (&one_two, &two_one) } else { (&two_one, &one_two) };
            server.demo.edit_config(from, to);
            reload(&server, APPLIED);
            both_answer(&format!("both listeners answer after reload {n}"));
        }
        println!("{RELOADS} reloads in {} ms", since.elapsed().as_millis());
        drop(ended);
        seen = pollers.into_iter().map(|poller| poller.join().expect("its own message says it")).collect();
    });
    println!("answers {answers:?}");
    let log = fs::read_to_string(server.process.log_file()).expect("the log is there");
    assert!(!log.contains("ERROR"), "{log}");
    for (i, seen) in seen.iter().enumerate() {
        let own = |answer: &Vec<String>| answer.iter().any(|a| a == OWN[i]);
        let other = |answer: &Vec<String>| answer.iter().any(|a| a == OWN[1 - i]);
        assert!(seen.iter().all(|answer| own(answer) && !other(answer)), "cluster-{}: {seen:?}", i + 1);
    }
    assert!(server.process.terminate(DEADLINE).success());
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
