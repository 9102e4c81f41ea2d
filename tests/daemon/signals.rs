//! SIGTERM and SIGHUP.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hickory_proto::rr::RecordType;
use rustix::process::Signal;

use super::server::{DEADLINE, EXTERNAL, INTERNAL, SERVICE, Server, ZONE, ask, query};
use crate::common::dig::{Dig, addresses};
use crate::common::{free_port, local, same, stays, wait_for};

/// Queries in flight when the signal comes: well below what a socket's buffer holds.
const IN_FLIGHT: u16 = 100;

#[test]
fn sigterm_answers_what_is_in_flight() {
    let server = Server::demo();
    let udp = UdpSocket::bind("127.0.0.1:0").expect("an ephemeral port");
    udp.set_read_timeout(Some(Duration::from_secs(10))).expect("not zero");
    let mut tcp = TcpStream::connect(local(server.ports.internal)).expect("the server accepts");
    tcp.set_read_timeout(Some(Duration::from_secs(10))).expect("not zero");
    let frame = |id: u16| {
        let message = query(id, SERVICE, RecordType::A);
        [&(message.len() as u16).to_be_bytes()[..], &message].concat()
    };
    // The connection is known to be served, not only accepted by the kernel.
    tcp.write_all(&frame(0)).expect("the server reads");
    read_frame(&mut tcp);

    for id in 0..IN_FLIGHT {
        udp.send_to(&query(id, SERVICE, RecordType::A), local(server.ports.external)).expect("loopback takes it");
    }
    let pipelined: Vec<u8> = (0..IN_FLIGHT).flat_map(frame).collect();
    tcp.write_all(&pipelined).expect("the server reads");
    server.process.signal(Signal::TERM);

    let mut ids: Vec<u16> = (0..IN_FLIGHT)
        .map(|n| {
            let mut buffer = [0; 1500];
            udp.recv(&mut buffer).unwrap_or_else(|e| panic!("after {n} of {IN_FLIGHT} answers over UDP: {e}"));
            u16::from_be_bytes([buffer[0], buffer[1]])
        })
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..IN_FLIGHT).collect::<Vec<_>>());
    for id in 0..IN_FLIGHT {
        let answer = read_frame(&mut tcp);
        assert_eq!(u16::from_be_bytes([answer[0], answer[1]]), id);
    }
    wait_for("not ready, or no longer there", DEADLINE, || match server.admin("/readyz") {
        Ok((status, _)) if status == "200" => Err("still ready".to_owned()),
        Ok(_) | Err(_) => Ok(()),
    });
    let status = server.process.terminate(DEADLINE);
    assert_eq!(status.code(), Some(0), "{:?}", server.log());
    server.log_has(&["INFO", "stopped"]).expect("the end is logged");
}

fn read_frame(stream: &mut TcpStream) -> Vec<u8> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).expect("an answer's length");
    let mut answer = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut answer).expect("a whole answer");
    answer
}

#[test]
fn sigterm_does_not_wait_for_slow_clients() {
    let server = Server::demo();
    let mut slow = Vec::new();
    for port in [server.ports.external, server.ports.internal] {
        for begun in [&[][..], &[0, 40, 1]] {
            let mut tcp = TcpStream::connect(local(port)).expect("the server accepts");
            let message = query(1, SERVICE, RecordType::A);
            tcp.write_all(&(message.len() as u16).to_be_bytes()).expect("the server reads");
            tcp.write_all(&message).expect("the server reads");
            read_frame(&mut tcp);
            tcp.write_all(begun).expect("the server reads");
            slow.push(tcp);
        }
    }
    let since = Instant::now();
    assert_eq!(server.process.terminate(DEADLINE).code(), Some(0));
    println!("ended after {} ms", since.elapsed().as_millis());
    assert!(!server.log().iter().any(|line| line.contains("WARN")), "{:?}", server.log());
}

#[test]
fn sigint_is_an_end_too() {
    let server = Server::demo();
    server.process.signal(Signal::INT);
    let status = wait_for("the end", DEADLINE, || server.process.ended().ok_or_else(String::new));
    assert_eq!(status.code(), Some(0));
}

pub const APPLIED: &str = r#"signpost_reload_total{result="applied"}"#;
const REJECTED: &str = r#"signpost_reload_total{result="rejected"}"#;

pub fn reload(server: &Server, counter: &str) {
    let before = server.metric(counter);
    server.process.signal(Signal::HUP);
    wait_for("the reload is counted", DEADLINE, || {
        server.process.check()?;
        same(server.metric(counter), before + 1.0)
    });
}

#[test]
fn sighup_with_a_good_configuration() {
    let server = Server::demo();
    let demo = &server.demo;
    // Another TTL.
    demo.edit_config("ttl: 180", "ttl: 60");
    reload(&server, APPLIED);
    let answer = server.internal().ask(SERVICE, "A").expect("an answer").answer;
    assert_eq!(answer, INTERNAL.map(|a| format!("{SERVICE}. 60 IN A {a}")));
    // Another zone.
    fs::write(
        demo.path().join("zones/static.zone"),
        "$TTL 60\n@ SOA ns1 hostmaster 1 60 60 60 60\n@ NS ns1\nns1 A 127.0.0.1\nwww A 192.0.2.7\n",
    )
    .expect("the folder is ours");
    demo.edit_config(
        "\nclusters:",
        "  - {name: static.example, schema: static, file: ../zones/static.zone}\n\nclusters:",
    );
    // Before it, the zone is nobody's.
    assert_eq!(server.external().ask("www.static.example", "A").expect("an answer").status, "REFUSED");
    reload(&server, APPLIED);
    assert_eq!(server.external().address_set("www.static.example", "A"), Ok(addresses(&["192.0.2.7"])));
    // Another cluster, before the others: every id is another.
    fs::create_dir(demo.path().join("config/demo/cluster-0")).expect("the folder is ours");
    fs::copy(demo.manifest(2, "my-service.yaml"), demo.manifest(0, "my-service.yaml")).expect("the folder is ours");
    let manifest = fs::read_to_string(demo.manifest(0, "my-service.yaml")).expect("it was copied");
    fs::write(demo.manifest(0, "my-service.yaml"), manifest.replace(EXTERNAL[1], "104.199.0.1")).expect("it is ours");
    demo.edit_config("\nclusters:\n", "\nclusters:\n  - {name: cluster-0, manifests: demo/cluster-0}\n");
    reload(&server, APPLIED);
    wait_for("the new cluster shows", DEADLINE, || {
        let want = [EXTERNAL[0], EXTERNAL[1], EXTERNAL[2], "104.199.0.1"];
        same(server.external().address_set(SERVICE, "A")?, addresses(&want))
    });
    assert_eq!(
        server.internal().addresses(SERVICE, "A").map(|a| a[..2].to_vec()),
        Ok(vec!["10.0.153.185".parse().expect("an address"), "104.197.74.77".parse().expect("an address")])
    );
    // And gone again.
    demo.edit_config("  - {name: cluster-0, manifests: demo/cluster-0}\n", "");
    reload(&server, APPLIED);
    assert_eq!(server.external().address_set(SERVICE, "A"), Ok(addresses(&EXTERNAL)));
    // Manifests are followed as before.
    let path = demo.manifest(3, "my-service.yaml");
    let text = fs::read_to_string(&path).expect("it is there");
    fs::write(&path, text.replace(EXTERNAL[2], "104.199.0.3")).expect("the folder is ours");
    wait_for("an edit after reloads shows", DEADLINE, || {
        same(server.external().address_set(SERVICE, "A")?, addresses(&[EXTERNAL[0], EXTERNAL[1], "104.199.0.3"]))
    });
    assert!(server.process.terminate(DEADLINE).success());
}

#[test]
fn sighup_adds_changes_and_removes_listeners() {
    let server = Server::demo();
    let demo = &server.demo;
    let third = free_port();
    let line = format!("\nlisteners:\n  - addresses: [\"127.0.0.1:{third}\"]\n    view: {{internal: cluster-2}}\n");
    demo.edit_config("\nlisteners:\n", &line);
    reload(&server, APPLIED);
    let dig = Dig::at(local(third));
    for dig in [dig.clone(), dig.clone().with("+tcp")] {
        let want = ["10.8.14.62", EXTERNAL[0], EXTERNAL[2]].map(|a| a.parse().expect("an address"));
        assert_eq!(dig.addresses(SERVICE, "A"), Ok(want.to_vec()));
    }
    // The same address with another view.
    demo.edit_config("{internal: cluster-2}", "external");
    reload(&server, APPLIED);
    for dig in [dig.clone(), dig.clone().with("+tcp")] {
        assert_eq!(dig.address_set(SERVICE, "A"), Ok(addresses(&EXTERNAL)));
    }
    demo.edit_config(&line.replace("{internal: cluster-2}", "external"), "\nlisteners:\n");
    reload(&server, APPLIED);
    UdpSocket::bind(local(third)).expect("the UDP port is free again");
    std::net::TcpListener::bind(local(third)).expect("the TCP port is free again");
    assert_eq!(server.external().address_set(SERVICE, "A"), Ok(addresses(&EXTERNAL)));
}

/// The wildcard needs the port that the old configuration's own listener still holds.
#[test]
fn sighup_from_one_address_to_all_and_back() {
    let server = Server::demo();
    let (port, demo) = (server.ports.internal, &server.demo);
    let (one, all) = (format!("\"127.0.0.1:{port}\""), format!("\"0.0.0.0:{port}\""));
    for (from, to) in [(&one, &all), (&all, &one)] {
        demo.edit_config(from, to);
        reload(&server, APPLIED);
        for dig in [server.internal(), server.internal().with("+tcp")] {
            let want = INTERNAL.map(|a| a.parse().expect("an address")).to_vec();
            assert_eq!(dig.addresses(SERVICE, "A"), Ok(want), "{to}");
        }
    }
}

/// Sources start anew with a reload, and must not forget what a file said before it broke.
#[test]
fn sighup_while_a_manifest_is_broken() {
    let server = Server::demo();
    let path = server.demo.manifest(2, "my-service.yaml");
    let good = fs::read_to_string(&path).expect("the demo is there");
    fs::write(&path, "metadata: [\n").expect("the folder is ours");
    let skipped = r#"signpost_objects_skipped_total{cluster="cluster-2",reason="syntax"}"#;
    wait_for("the broken file is counted", DEADLINE, || same(server.metric(skipped), 1.0));
    assert_eq!(server.external().address_set(SERVICE, "A"), Ok(addresses(&EXTERNAL)));
    // With other rules, the source has to start anew.
    server.demo.edit_config("name: cluster-2", "name: cluster-2\n    export: all");
    reload(&server, APPLIED);
    // Told again by the source that was started anew: so it has read the directory. The count goes on.
    wait_for("the directory is read again", DEADLINE, || same(server.metric(skipped), 2.0));
    stays("the last good state", Duration::from_millis(500), || {
        same(server.external().address_set(SERVICE, "A")?, addresses(&EXTERNAL))
    });
    // What is in no file any more goes all the same.
    fs::remove_file(&path).expect("the folder is ours");
    wait_for("a deletion after that", DEADLINE, || {
        same(server.external().address_set(SERVICE, "A")?, addresses(&[EXTERNAL[0], EXTERNAL[2]]))
    });
    fs::write(&path, good).expect("the folder is ours");
    wait_for("all is well again", DEADLINE, || {
        same(server.external().address_set(SERVICE, "A")?, addresses(&EXTERNAL))
    });
}

#[test]
fn sighup_tells_what_needs_a_start() {
    let server = Server::demo();
    server.demo.write_config(&format!("{}\nlimits: {{tcpConnections: 100}}\n", server.demo.read_config()));
    reload(&server, APPLIED);
    server.log_has(&["WARN", "limits of TCP connections", "next start"]).expect("it is told");
    server.demo.edit_config(&format!("127.0.0.1:{}", server.ports.admin), &format!("127.0.0.1:{}", free_port()));
    reload(&server, APPLIED);
    server.log_has(&["WARN", "admin address", "next start"]).expect("it is told");
}

#[test]
fn many_sighups() {
    let server = Server::demo();
    for _ in 0..20 {
        server.process.signal(Signal::HUP);
    }
    wait_for("a reload", DEADLINE, || if server.metric(APPLIED) >= 1.0 { Ok(()) } else { Err("none yet".to_owned()) });
    reload_settled(&server);
    assert_eq!(server.external().address_set(SERVICE, "A"), Ok(addresses(&EXTERNAL)));
    assert!(server.process.terminate(DEADLINE).success());
}

/// Signals that came while a reload went on are one more reload.
fn reload_settled(server: &Server) {
    let mut last = -1.0;
    wait_for("no more reloads", DEADLINE, || {
        let now = server.metric(APPLIED);
        let same = same(now, last);
        last = now;
        same
    });
}

#[test]
fn sighup_with_a_broken_configuration() {
    let server = Server::demo();
    let good = server.demo.read_config();
    let taken = UdpSocket::bind("127.0.0.1:0").expect("an ephemeral port");
    let taken = taken.local_addr().map(|a| (a, taken)).expect("it is bound");
    let zone = server.demo.path().join("zones/my-federation.my-domain.com.zone");
    let zone_text = fs::read_to_string(&zone).expect("the demo is there");
    let broken = [
        (good.replace("ttl: 180", "ttl: 1"), "ttl"),
        (good.replace("schema: federation", "schemas: federation"), "schemas"),
        (good.replace("manifests: demo/cluster-2", "manifests: demo/cluster-9"), "cluster-9"),
        (good.replace("my-domain.com.zone", "my-domain.org.zone"), "my-domain.org.zone"),
        (
            good.replace("\nlisteners:\n", &format!("\nlisteners:\n  - addresses: [\"{}\"]\n", taken.0)),
            "another process listens on",
        ),
        ("- not\n- this\n".to_owned(), "demo.yaml"),
    ];
    let unchanged = |what: &str| {
        let answer = server.internal().ask(SERVICE, "A").expect("an answer").answer;
        assert_eq!(answer, INTERNAL.map(|a| format!("{SERVICE}. 180 IN A {a}")), "{what}");
        assert_eq!(server.external().address_set(SERVICE, "A"), Ok(addresses(&EXTERNAL)), "{what}");
        let nothing = server.external().ask(&format!("x.my-namespace.{ZONE}"), "A").expect("an answer");
        assert_eq!(nothing.status, "NXDOMAIN", "{what}");
    };
    for (n, (text, word)) in broken.iter().enumerate() {
        assert_ne!(*text, good, "{word}: this case breaks nothing");
        server.demo.write_config(text);
        reload(&server, REJECTED);
        let errors = |line: &&String| line.contains("ERROR") && line.contains("the configuration stays as it was");
        let log = server.log();
        let said: Vec<&String> = log.iter().filter(errors).collect();
        assert_eq!(said.len(), n + 1, "{log:?}");
        let at = log.iter().position(|line| line == said[n]).expect("it was found in there");
        assert!(log[at..].iter().any(|line| line.contains(word)), "{word}: {said:?}");
        unchanged(word);
    }
    server.demo.write_config(&good);
    fs::write(&zone, zone_text.replace("ns1     IN A     127.0.0.1", "ns1     IN A     127.0.0")).expect("it is ours");
    reload(&server, REJECTED);
    unchanged("the zone file");
    fs::write(&zone, zone_text).expect("the folder is ours");
    reload(&server, APPLIED);
    unchanged("all is well again");
    assert_eq!(server.metric(APPLIED), 1.0);
    assert!(server.process.terminate(DEADLINE).success());
}

#[test]
fn sighup_under_load_loses_nothing() {
    const RELOADS: usize = 5;
    let server = Server::demo();
    let (stop, asked) = (AtomicBool::new(false), AtomicU32::new(0));
    let reader = |port: u16, want: &'static [&'static str]| {
        let mut want: Vec<String> = want.iter().map(ToString::to_string).collect();
        want.sort();
        while !stop.load(Ordering::Relaxed) {
            let answer = ask(local(port), SERVICE, RecordType::A).expect("no query is lost");
            assert_eq!(super::server::addresses(&answer), want);
            asked.fetch_add(1, Ordering::Relaxed);
        }
    };
    thread::scope(|scope| {
        let (external, internal) = (server.ports.external, server.ports.internal);
        let reader = &reader;
        let readers =
            [scope.spawn(move || reader(external, &EXTERNAL)), scope.spawn(move || reader(internal, &INTERNAL))];
        let third = free_port();
        for n in 0..RELOADS {
            let before = asked.load(Ordering::Relaxed);
            // A listener comes and goes beside the two that stay, and the TTL changes.
            if n % 2 == 0 {
                let line = format!("\nlisteners:\n  - addresses: [\"127.0.0.1:{third}\"]\n");
                server.demo.edit_config("\nlisteners:\n", &line);
            } else {
                server.demo.edit_config(&format!("  - addresses: [\"127.0.0.1:{third}\"]\n"), "");
            }
            server.demo.edit_config(&format!("ttl: {}", 180 + n), &format!("ttl: {}", 181 + n));
            reload(&server, APPLIED);
            wait_for("queries go on", DEADLINE, || match asked.load(Ordering::Relaxed) {
                now if now >= before + 20 || readers.iter().any(thread::ScopedJoinHandle::is_finished) => Ok(()),
                now => Err(now.to_string()),
            });
        }
        stop.store(true, Ordering::Relaxed);
        for reader in readers {
            reader.join().expect("the reader's own message says it");
        }
    });
    println!("{} queries over {RELOADS} reloads", asked.load(Ordering::Relaxed));
}
