//! Counters against what was sent, and logs that machines read.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use hickory_proto::rr::RecordType;

use super::server::{DEADLINE, Demo, SERVICE, Server, ZONE, addresses, ask, query};
use crate::common::{local, same, wait_for};
use rustix::process::Signal;

/// Questions with the counter that each must go to.
fn mix() -> [(String, RecordType, &'static str); 6] {
    [
        (SERVICE.to_owned(), RecordType::A, "NOERROR"),
        (format!("_client._tcp.{SERVICE}"), RecordType::SRV, "NOERROR"),
        (SERVICE.to_owned(), RecordType::AAAA, "NODATA"),
        (format!("nothing.my-namespace.{ZONE}"), RecordType::A, "NXDOMAIN"),
        ("www.example.net".to_owned(), RecordType::A, "REFUSED"),
        // NXNAME (RFC 9824) is no type to ask for.
        (SERVICE.to_owned(), RecordType::from(128), "FORMERR"),
    ]
}

fn ask_tcp(stream: &mut TcpStream, name: &str, rtype: RecordType) {
    let message = query(7, name, rtype);
    let mut frame = (message.len() as u16).to_be_bytes().to_vec();
    frame.extend(message);
    stream.write_all(&frame).expect("the server reads");
    let mut length = [0; 2];
    stream.read_exact(&mut length).expect("the server answers");
    let mut answer = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut answer).expect("the whole answer comes");
}

#[test]
fn counters_are_what_was_sent() {
    let server = Server::demo();
    let mut want = std::collections::BTreeMap::new();
    let views = [("external", server.ports.external), ("internal", server.ports.internal)];
    for (view, port) in views {
        for (n, (name, rtype, rcode)) in mix().iter().enumerate() {
            // Another number of each, so that no two counters can be mixed up unseen.
            for _ in 0..=n {
                ask(local(port), name, *rtype).expect("an answer");
            }
            let mut stream = TcpStream::connect(local(port)).expect("the server accepts");
            stream.set_read_timeout(Some(Duration::from_secs(5))).expect("not zero");
            for _ in 0..n + 3 {
                ask_tcp(&mut stream, name, *rtype);
            }
            for (transport, count) in [("udp", n + 1), ("tcp", n + 3)] {
                let zone = if *rcode == "REFUSED" { "none".to_owned() } else { format!("{ZONE}.") };
                let labels = format!(r#"rcode="{rcode}",transport="{transport}",view="{view}",zone="{zone}""#);
                let key = format!("signpost_queries_total{{{labels}}}");
                *want.entry(key).or_insert(0.0) += count as f64;
            }
        }
    }
    // A counter is written after the answer was sent.
    wait_for("the counters are what was sent", DEADLINE, || {
        let metrics = server.metrics();
        let got = metrics.into_iter().filter(|(k, v)| k.starts_with("signpost_queries_total") && *v > 0.0);
        same(got.collect::<std::collections::BTreeMap<_, _>>(), want.clone())
    });
    let dropped = || -> f64 {
        server.metrics().iter().filter(|(k, _)| k.starts_with("signpost_queries_dropped_total")).map(|(_, v)| v).sum()
    };
    assert_eq!(dropped(), 0.0);
    // A response and a stump are dropped and counted.
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("an ephemeral port");
    let mut response = query(1, SERVICE, RecordType::A);
    response[2] |= 0x80;
    for datagram in [&response[..], &response[..11]] {
        socket.send_to(datagram, local(server.ports.external)).expect("loopback takes it");
    }
    wait_for("two drops", DEADLINE, || same(dropped(), 2.0));
    assert_eq!(server.metric(r#"signpost_queries_dropped_total{cause="response"}"#), 1.0);
    assert_eq!(server.metric(r#"signpost_queries_dropped_total{cause="short"}"#), 1.0);
    for cluster in 1..4 {
        assert_eq!(server.metric(&format!(r#"signpost_cluster_synced{{cluster="cluster-{cluster}"}}"#)), 1.0);
    }
}

#[test]
fn json_logs_and_nothing_per_query() {
    let server = Server::start(Demo::new(), &["--log-format", "json"]);
    let before = server.log();
    for line in &before {
        let value: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        for field in ["timestamp", "level", "message"] {
            assert!(value.get(field).is_some_and(serde_json::Value::is_string), "{field} in {line}");
        }
    }
    assert!(before.iter().any(|line| line.contains("\"ready\"")), "{before:?}");
    for (name, rtype, _) in mix() {
        for port in [server.ports.external, server.ports.internal] {
            ask(local(port), &name, rtype).expect("an answer");
        }
    }
    let total = |server: &Server| -> f64 {
        server.metrics().iter().filter(|(k, _)| k.starts_with("signpost_queries_total")).map(|(_, v)| v).sum()
    };
    wait_for("all are counted", DEADLINE, || same(total(&server), 12.0));
    assert_eq!(server.log(), before);
}

/// What is logged is what was answered; what is too much is lost and counted, and answered all the same.
#[test]
fn some_queries_are_logged() {
    let demo = Demo::new();
    demo.write_config(&(demo.read_config() + "\nqueryLog: {oneIn: 1, perSecond: 20}\n"));
    let server = Server::start(demo, &["--log-format", "json"]);
    let logged = || -> Vec<serde_json::Value> {
        let lines = server.log().into_iter().filter(|line| line.contains("signpost::query"));
        lines.map(|line| serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
    };
    let answer = ask(local(server.ports.external), SERVICE, RecordType::A).expect("an answer");
    let mut stream = TcpStream::connect(local(server.ports.internal)).expect("the server accepts");
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("not zero");
    ask_tcp(&mut stream, "nothing.example", RecordType::AAAA);
    let seen = |entry: &serde_json::Value| {
        ["transport", "view", "name", "type", "rcode"].map(|field| entry[field].as_str().unwrap_or("-").to_owned())
    };
    let service = format!("{SERVICE}.");
    let expected = vec![
        ["udp", "external", &*service, "A", "NOERROR"].map(str::to_owned),
        ["tcp", "internal", "nothing.example.", "AAAA", "REFUSED"].map(str::to_owned),
    ];
    wait_for("both are logged", DEADLINE, || same(logged().iter().map(seen).collect::<Vec<_>>(), expected.clone()));
    let entry = &logged()[0];
    assert!(entry["client"].as_str().is_some_and(|client| client.starts_with("127.0.0.1:")), "{entry}");
    for address in addresses(&answer) {
        assert!(entry["answers"].as_str().is_some_and(|text| text.contains(&address)), "{address}: {entry}");
    }
    for _ in 0..600 {
        ask(local(server.ports.external), SERVICE, RecordType::A).expect("an answer, logged or not");
    }
    let count = |result: &str| server.metric(&format!("signpost_query_log_total{{result=\"{result}\"}}"));
    wait_for("all are counted", DEADLINE, || same(count("written") + count("lost"), 602.0));
    assert!(count("lost") > 0.0, "600 queries came within much less than 30 s");
    wait_for("the log has as many", DEADLINE, || same(logged().len() as f64, count("written")));
    // Without a restart, none.
    server.demo.edit_config("queryLog: {oneIn: 1, perSecond: 20}", "");
    server.process.signal(Signal::HUP);
    wait_for("the reload", DEADLINE, || same(server.metric("signpost_reload_total{result=\"applied\"}"), 1.0));
    let before = logged().len();
    for _ in 0..10 {
        ask(local(server.ports.external), SERVICE, RecordType::A).expect("an answer");
    }
    let answered = || -> f64 {
        let counters = server.metrics().into_iter();
        counters.filter(|(k, _)| k.starts_with("signpost_queries_total") && k.contains("udp")).map(|(_, v)| v).sum()
    };
    wait_for("they are answered", DEADLINE, || same(answered(), 611.0));
    assert_eq!((logged().len(), count("written") + count("lost")), (before, 602.0));
}
