//! Readers beside a writer: every answer is one of the states that were published, never a mix of two.

mod support;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use signpost::answer::{Client, Reply, Responder, Transport};
use signpost::model::{ClusterId, Federated, Share, View, ViewRule};
use signpost::table::{Publisher, Reader};
use signpost::zonefile;
use support::ask::Ask;
use support::small::question;
use support::*;

/// How long readers and writer run beside each other.
const RUN: Duration = Duration::from_secs(10);
/// What the writer and the readers do at least, however slow the machine is.
const LEAST: u64 = 2000;
const CHURNED: u16 = 1000;

/// The three states of the watched service: how many clusters have it, and every number in it, differ by state.
fn state(n: u16) -> Vec<Share> {
    (0..=n)
        .map(|c| Share {
            ports: vec![port("client", 1000 + n)],
            ..load_balancer(c, &format!("10.{c}.{n}.1"), &[&format!("104.{n}.{c}.1"), &format!("104.{n}.{c}.2")])
        })
        .collect()
}

fn federated(name: &str, shares: Vec<Share>) -> Federated {
    Federated { key: key("ns", name), shares, imports: vec![] }
}

/// A reader's view of the world: answers as sorted octets of their records.
struct Watcher {
    reader: Reader,
    responder: Responder,
    buffer: Vec<u8>,
}

impl Watcher {
    /// The answer, its records in one order whatever was drawn.
    fn answer(&mut self, ask: &Ask) -> Vec<Vec<u8>> {
        let query = ask.to_vec();
        self.buffer[..query.len()].copy_from_slice(&query);
        let client = Client {
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            audience: ViewRule::Fixed(View::External).into(),
            transport: Transport::Udp,
            keepalive: 0,
        };
        match self.reader.with(|table| self.responder.answer(table, client, &mut self.buffer, query.len())) {
            Reply::Send { length, .. } => {
                let (head, mut rest) = self.buffer[..usize::from(length)].split_at(query.len());
                let mut parts = vec![head.to_vec()];
                while !rest.is_empty() {
                    // Owners are pointers, or labels up to one.
                    let mut at = 0;
                    while rest[at] < 0xC0 {
                        at += 1 + usize::from(rest[at]);
                    }
                    let end = at + 12 + usize::from(u16::from_be_bytes([rest[at + 10], rest[at + 11]]));
                    parts.push(rest[..end].to_vec());
                    rest = &rest[end..];
                }
                parts.sort();
                parts
            }
            Reply::Drop(cause) => panic!("{cause:?}"),
        }
    }
}

#[test]
fn an_answer_is_one_state_and_never_a_mix() {
    let World { config, mut publisher, reader, .. } =
        World::new(config(vec![cluster("c0", "r"), cluster("c1", "r"), cluster("c2", "r")]), ZONE_FILE).synced();
    let zones = [zonefile::parse(ZONE_FILE, &config.zones[0].name, "z".as_ref()).expect("the file is right")];
    let fixed = federated("fixed", vec![load_balancer(0, "10.0.0.1", &["104.9.9.9"])]);
    let publish = |publisher: &mut Publisher, service: &Federated| drop(publisher.publish(&service.key, Some(service)));
    publish(&mut publisher, &fixed);

    let watched = [question("watched.ns A"), question("_client._tcp.watched.ns SRV"), question("watched.ns SRV")];
    let undisturbed = [question("fixed.ns A"), question("ns A"), question("never.ns A"), question("ns1 A")];
    let mut watcher = Watcher { reader: reader.clone(), responder: Responder::new(3), buffer: vec![0; 2048] };
    let mut allowed: Vec<BTreeSet<Vec<Vec<u8>>>> = vec![BTreeSet::new(); watched.len()];
    for n in 0..3 {
        publish(&mut publisher, &federated("watched", state(n)));
        for (ask, set) in watched.iter().zip(&mut allowed) {
            assert!(set.insert(watcher.answer(ask)), "the states differ");
        }
    }
    let expected: Vec<_> = undisturbed.iter().map(|ask| watcher.answer(ask)).collect();

    let stop = AtomicBool::new(false);
    let (writes, reads) = (AtomicU64::new(0), [AtomicU64::new(0), AtomicU64::new(0)]);
    std::thread::scope(|scope| {
        // A panic of either side ends the other.
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        for (n, count) in reads.iter().enumerate() {
            let (reader, stop, allowed, watched) = (reader.clone(), &stop, &allowed, &watched);
            let (undisturbed, expected) = (&undisturbed, &expected);
            scope.spawn(move || {
                let _stop = Stop(stop);
                let mut watcher = Watcher { reader, responder: Responder::new(n as u64), buffer: vec![0; 2048] };
                let mut seen: BTreeSet<Vec<Vec<u8>>> = BTreeSet::new();
                while !stop.load(Ordering::Relaxed) {
                    for (ask, allowed) in watched.iter().zip(allowed) {
                        let answer = watcher.answer(ask);
                        assert!(allowed.contains(&answer), "no state of {ask:?}: {answer:?}");
                        seen.insert(answer);
                    }
                    for (ask, expected) in undisturbed.iter().zip(expected) {
                        assert_eq!(watcher.answer(ask), *expected, "{ask:?}");
                    }
                    count.fetch_add(1, Ordering::Relaxed);
                }
                assert_eq!(seen.len(), 9, "every state of every question was seen");
            });
        }
        let _stop = Stop(&stop);
        let (start, deadline) = (Instant::now(), Instant::now() + Duration::from_secs(120));
        let slowest = || reads.iter().map(|count| count.load(Ordering::Relaxed)).min().expect("two readers");
        let mut n = 0u16;
        while start.elapsed() < RUN || writes.load(Ordering::Relaxed) < LEAST || slowest() < LEAST {
            assert!(Instant::now() < deadline, "{writes:?} writes, {reads:?} reads");
            assert!(!stop.load(Ordering::Relaxed), "a reader has failed");
            n = (n + 1) % CHURNED;
            publish(&mut publisher, &federated("watched", state(n % 3)));
            let name = format!("churn-{n}");
            let other = Federated {
                key: key(if n.is_multiple_of(2) { "ns" } else { "other" }, &name),
                shares: vec![load_balancer(n % 3, "10.0.0.1", &[&format!("104.7.{}.{}", n / 250, n % 250)])],
                imports: vec![],
            };
            publisher.publish(&other.key, (!n.is_multiple_of(5)).then_some(&other));
            // What was published some time ago goes.
            let old = Federated {
                key: key("other", &format!("churn-{}", (n + 501) % CHURNED)),
                shares: vec![],
                imports: vec![],
            };
            publisher.publish(&old.key, n.is_multiple_of(3).then_some(&old));
            if n.is_multiple_of(100) {
                let services = [federated("watched", state(n / 100 % 3)), fixed.clone(), other];
                let fill = |table: &mut Publisher| services.iter().for_each(|service| publish(table, service));
                drop(publisher.replace(config.clone(), &zones, fill, |_: ClusterId| true));
            }
            writes.fetch_add(1, Ordering::Relaxed);
        }
    });
}
