//! `config/demo.yaml` in dig, as README shows it, and what a change to its manifests does.

use std::fs;
use std::time::{Duration, Instant};

use hickory_proto::rr::RecordType;

use super::server::{DEADLINE, EXTERNAL, INTERNAL, SERVICE, Server, ZONE, addresses, ask, service};
use crate::common::dig::{Dig, Reply};
use crate::common::{local, same, wait_for};

/// From a manifest's change to the answer.
const SHOWN: Duration = Duration::from_secs(1);

fn ask_dig(dig: &Dig<'_>, name: &str, kind: &str) -> Reply {
    dig.ask(name, kind).unwrap_or_else(|error| panic!("{error}"))
}

fn records(ttl: u32, kind: &str, name: &str, data: &[&str]) -> Vec<String> {
    data.iter().map(|d| format!("{name}. {ttl} IN {kind} {d}")).collect()
}

fn sorted(mut list: Vec<String>) -> Vec<String> {
    list.sort();
    list
}

fn soa(ttl: u32) -> Vec<String> {
    vec![format!("{ZONE}. {ttl} IN SOA ns1.{ZONE}. hostmaster.my-domain.com. 1 7200 900 1209600 180")]
}

/// Each way to ask: UDP and TCP, IPv4 and IPv6, with and without EDNS.
fn ways(port: u16) -> Vec<Dig<'static>> {
    let v6 = std::net::SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, port));
    let servers = [Dig::at(local(port)), Dig::at(v6)];
    servers.iter().flat_map(|s| [s.clone(), s.clone().with("+tcp"), s.clone().with("+noedns")]).collect()
}

#[test]
fn as_written_in_the_readme() {
    let server = Server::demo();
    for dig in ways(server.ports.external) {
        let reply = ask_dig(&dig, SERVICE, "A");
        assert_eq!(reply.status, "NOERROR");
        assert_eq!(reply.flags.first().map(String::as_str), Some("qr"));
        assert!(reply.flags.contains(&"aa".to_owned()) && !reply.flags.contains(&"ra".to_owned()), "{reply:?}");
        assert_eq!(sorted(reply.answer), sorted(records(180, "A", SERVICE, &EXTERNAL)));
        assert_eq!((reply.authority, reply.additional), (vec![], vec![]));
    }
    for dig in ways(server.ports.internal) {
        for _ in 0..4 {
            assert_eq!(ask_dig(&dig, SERVICE, "A").answer, records(180, "A", SERVICE, &INTERNAL));
        }
    }
    let printed = ask_dig(&server.internal().with("+noall").with("+answer").with("+comments"), SERVICE, "A");
    assert_eq!(printed.answer, records(180, "A", SERVICE, &INTERNAL));
    let explained = ask_dig(&server.internal(), &format!("_explain.{SERVICE}"), "TXT").data();
    let readme = [(1, "own-cluster"), (2, "same-region"), (3, "region")].map(|(n, tier)| {
        let address = INTERNAL[n - 1];
        format!("\"band={n} cluster=cluster-{n} tier={tier} weight=100 shed=0% ready answers=A {address}\"")
    });
    assert_eq!(explained, readme);
    // 0x20: the question comes back as it was asked, and the answer's owner is the question.
    let mixed = "mY-sErViCe.My-NaMeSpAcE.mY-fEdErAtIoN.mY-dOmAiN.cOm";
    assert_eq!(ask_dig(&server.internal(), mixed, "A").answer, records(180, "A", mixed, &INTERNAL));
}

#[test]
fn srv() {
    let server = Server::demo();
    let targets = |answer: &[String]| -> Vec<(u16, String)> {
        let fields = |record: &String| {
            let fields: Vec<&str> = record.split(' ').collect();
            assert_eq!((fields[1], fields[3]), ("180", "SRV"), "{record}");
            assert_eq!(fields[6], "2379", "{record}");
            (fields[4].parse().expect("a priority"), fields[7].to_owned())
        };
        answer.iter().map(fields).collect()
    };
    let cluster = |n: usize| format!("cluster-{n}.{SERVICE}.");
    let name = format!("_client._tcp.{SERVICE}");
    for dig in ways(server.ports.external) {
        let reply = ask_dig(&dig, &name, "SRV");
        let mut seen = targets(&reply.answer);
        seen.sort();
        assert_eq!(seen, [1, 2, 3].map(|n| (0, cluster(n))));
        if !reply.flags.contains(&"tc".to_owned()) && !reply.additional.is_empty() {
            let address = |n: usize| format!("{} 180 IN A {}", cluster(n), EXTERNAL[n - 1]);
            assert_eq!(sorted(reply.additional), sorted([1, 2, 3].map(address).to_vec()));
        }
    }
    for dig in ways(server.ports.internal) {
        let reply = ask_dig(&dig, &name, "SRV");
        let seen = targets(&reply.answer);
        assert_eq!(seen.iter().map(|(_, t)| t.clone()).collect::<Vec<_>>(), [1, 2, 3].map(cluster));
        assert!(seen[0].0 < seen[1].0 && seen[1].0 < seen[2].0, "{seen:?}");
    }
    // With EDNS there is room for all the addresses.
    for (dig, wanted) in [(server.external(), EXTERNAL), (server.internal(), INTERNAL)] {
        let address = |n: usize| format!("{} 180 IN A {}", cluster(n), wanted[n - 1]);
        assert_eq!(sorted(ask_dig(&dig, &name, "SRV").additional), sorted([1, 2, 3].map(address).to_vec()));
    }
    // At the bare name: all ports.
    assert_eq!(ask_dig(&server.internal(), SERVICE, "SRV").answer.len(), 6);
}

#[test]
fn negative_answers() {
    let server = Server::demo();
    for port in [server.ports.external, server.ports.internal] {
        for dig in ways(port) {
            for name in
                [format!("other.my-namespace.{ZONE}"), format!("my-service.other.{ZONE}"), format!("a.b.c.{ZONE}")]
            {
                let reply = ask_dig(&dig, &name, "A");
                assert_eq!((reply.status.as_str(), reply.authority), ("NXDOMAIN", soa(5)), "{name}");
                assert!(reply.answer.is_empty(), "{name}");
            }
            let existing = [SERVICE.to_owned(), format!("my-namespace.{ZONE}"), format!("_tcp.{SERVICE}")];
            for name in existing {
                let reply = ask_dig(&dig, &name, "MX");
                assert_eq!((reply.status.as_str(), reply.authority), ("NOERROR", soa(180)), "{name}");
                assert!(reply.answer.is_empty(), "{name}");
            }
            let elsewhere = ask_dig(&dig, "www.example.net", "A");
            assert_eq!((elsewhere.status.as_str(), elsewhere.authority), ("REFUSED", vec![]));
        }
    }
}

/// Waits for the external addresses of a service and tells how long it took.
fn shown(server: &Server, name: &str, want: &[&str]) -> Duration {
    let since = Instant::now();
    let mut want: Vec<String> = want.iter().map(ToString::to_string).collect();
    want.sort();
    wait_for(&format!("{name} is {want:?}"), DEADLINE, || {
        let answer = ask(local(server.ports.external), name, RecordType::A).ok_or("no answer")?;
        same(addresses(&answer), want.clone())
    });
    since.elapsed()
}

#[test]
fn changes_of_manifests() {
    let server = Server::demo();
    let path = server.demo.manifest(2, "my-service.yaml");
    let original = fs::read_to_string(&path).expect("the demo is there");
    let added = server.demo.manifest(2, "other.yaml");
    let other = format!("other.my-namespace.{ZONE}");
    let mut times = Vec::new();
    for round in 1..4 {
        let [changed, second] = [format!("104.198.0.{round}"), format!("104.198.1.{round}")];
        fs::write(&path, original.replace(EXTERNAL[1], &changed)).expect("the folder is ours");
        times.push(("edit", shown(&server, SERVICE, &[EXTERNAL[0], &changed, EXTERNAL[2]])));
        fs::write(&added, service("other", "my-namespace", &second)).expect("the folder is ours");
        times.push(("add", shown(&server, &other, &[&second])));

        // Broken: the last good state stays, of that file and of all others.
        let skipped = r#"signpost_objects_skipped_total{cluster="cluster-2",reason="syntax"}"#;
        let before = server.metric(skipped);
        fs::write(&path, "apiVersion: v1\nkind: Service\nmetadata: {name: [\n").expect("the folder is ours");
        wait_for("the broken file is counted", DEADLINE, || same(server.metric(skipped), before + 1.0));
        shown(&server, SERVICE, &[EXTERNAL[0], &changed, EXTERNAL[2]]);
        shown(&server, &other, &[&second]);
        // While it is broken, the others can be changed.
        fs::write(&added, service("other", "my-namespace", "104.198.2.1")).expect("the folder is ours");
        times.push(("edit beside a broken one", shown(&server, &other, &["104.198.2.1"])));
        shown(&server, SERVICE, &[EXTERNAL[0], &changed, EXTERNAL[2]]);

        fs::write(&path, &original).expect("the folder is ours");
        times.push(("repair", shown(&server, SERVICE, &EXTERNAL)));
        fs::remove_file(&added).expect("the folder is ours");
        times.push(("delete", shown(&server, &other, &[])));
        let gone = ask_dig(&server.external(), &other, "A");
        assert_eq!((gone.status.as_str(), gone.authority), ("NXDOMAIN", soa(5)));
    }
    for (what, time) in &times {
        println!("{what}: shown after {} ms", time.as_millis());
    }
    let mut sorted: Vec<Duration> = times.iter().map(|(_, time)| *time).collect();
    sorted.sort();
    let median = sorted[sorted.len() / 2];
    println!("median of {} changes: {} ms", sorted.len(), median.as_millis());
    assert!(median < SHOWN, "{times:?}");
}

/// Replaced as an editor, `kubectl` and a ConfigMap do it: another file renamed over it, and a directory that goes and
/// comes back.
#[test]
fn renames_and_a_vanishing_directory() {
    let server = Server::demo();
    let path = server.demo.manifest(3, "my-service.yaml");
    let changed = fs::read_to_string(&path).expect("the demo is there").replace(EXTERNAL[2], "104.198.9.9");
    let beside = server.demo.manifest(3, ".my-service.yaml.swp");
    fs::write(&beside, changed).expect("the folder is ours");
    fs::rename(&beside, &path).expect("the folder is ours");
    shown(&server, SERVICE, &[EXTERNAL[0], EXTERNAL[1], "104.198.9.9"]);

    let directory = path.parent().expect("a file has a folder");
    let away = directory.with_extension("away");
    fs::rename(directory, &away).expect("the folder is ours");
    let errors = r#"signpost_source_errors_total{cluster="cluster-3",reason="directory"}"#;
    wait_for("the loss is counted", DEADLINE, || {
        if server.metric(errors) >= 1.0 { Ok(()) } else { Err("not yet".to_owned()) }
    });
    server.log_has(&["WARN", "cluster-3", "demo/cluster-3"]).expect("the loss is told once");
    shown(&server, SERVICE, &[EXTERNAL[0], EXTERNAL[1], "104.198.9.9"]);
    fs::rename(&away, directory).expect("the folder is ours");
    let path = server.demo.manifest(3, "my-service.yaml");
    let back = fs::read_to_string(&path).expect("it is back").replace("104.198.9.9", "104.198.9.10");
    fs::write(&path, back).expect("the folder is ours");
    shown(&server, SERVICE, &[EXTERNAL[0], EXTERNAL[1], "104.198.9.10"]);
}
