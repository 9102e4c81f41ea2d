//! The 2015 example and the shapes of answers, through the answer function.

mod support;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use signpost::answer::Transport;
use signpost::model::{AvailabilityZone, ClusterId, View};
use support::*;

const SERVICE: &str = "my-service.my-namespace.example.com";
const CLUSTER_1: View = View::Internal(ClusterId(0));

/// The 2015 text's three clusters: the second in another availability zone of the first one's region.
fn world() -> World {
    world_for(vec![])
}

/// `explain_to`: who may ask why.
fn world_for(explain_to: Vec<ipnet::IpNet>) -> World {
    let mut clusters = vec![cluster("cluster-1", "us"), cluster("cluster-2", "us"), cluster("cluster-3", "europe")];
    clusters[0].availability_zones = vec![AvailabilityZone("a".into())];
    clusters[1].availability_zones = vec![AvailabilityZone("b".into())];
    let config = signpost::config::Config { explain_to, ..config(clusters) };
    let mut world = World::new(config, ZONE_FILE).synced();
    world.publish(
        key("my-namespace", "my-service"),
        vec![
            load_balancer(0, "10.0.153.185", &["104.197.117.10"]),
            load_balancer(1, "10.0.0.2", &["104.197.74.77"]),
            load_balancer(2, "10.0.0.3", &["104.197.38.157"]),
        ],
    );
    world
}

#[test]
fn external() {
    let mut world = world();
    let answer = world.ask(View::External, SERVICE, RecordType::A);
    let mut seen = texts(&answer.answers);
    seen.sort();
    assert_eq!(seen, ["104.197.117.10", "104.197.38.157", "104.197.74.77"].map(|a| format!("{SERVICE}. 30 A {a}")));
    assert!(answer.metadata.authoritative);
    assert!(answer.authorities.is_empty() && answer.additionals.is_empty());
}

#[test]
fn internal_is_ordered() {
    let mut world = world();
    for _ in 0..50 {
        let answer = world.ask(CLUSTER_1, SERVICE, RecordType::A);
        let expected = ["10.0.153.185", "104.197.74.77", "104.197.38.157"].map(|a| format!("{SERVICE}. 30 A {a}"));
        assert_eq!(texts(&answer.answers), expected);
    }
}

#[test]
fn srv() {
    let mut world = world();
    let name = format!("_client._tcp.{SERVICE}");
    let answer = world.ask(CLUSTER_1, &name, RecordType::SRV);
    assert_eq!(
        texts(&answer.answers),
        [(0, 1), (10, 2), (20, 3)].map(|(p, c)| format!("{name}. 30 SRV {p} 100 2379 cluster-{c}.{SERVICE}."))
    );
    assert_eq!(
        texts(&answer.additionals),
        [(1, "10.0.153.185"), (2, "104.197.74.77"), (3, "104.197.38.157")]
            .map(|(c, a)| format!("cluster-{c}.{SERVICE}. 30 A {a}"))
    );
}

#[test]
fn negatives() {
    let mut world = world();
    let soa =
        |ttl: u32| format!("example.com. {ttl} SOA ns1.example.com. hostmaster.example.com. 1 7200 900 1209600 30");
    let cases = [
        (SERVICE.to_owned(), RecordType::AAAA, ResponseCode::NoError, 30),
        ("my-namespace.example.com".to_owned(), RecordType::A, ResponseCode::NoError, 30),
        (format!("_tcp.{SERVICE}"), RecordType::SRV, ResponseCode::NoError, 30),
        (format!("_x._tcp.{SERVICE}"), RecordType::SRV, ResponseCode::NXDomain, 5),
        (format!("cluster-9.{SERVICE}"), RecordType::A, ResponseCode::NXDomain, 5),
        ("other.my-namespace.example.com".to_owned(), RecordType::A, ResponseCode::NXDomain, 5),
        ("nowhere.example.com".to_owned(), RecordType::A, ResponseCode::NXDomain, 5),
        ("example.com".to_owned(), RecordType::A, ResponseCode::NoError, 30),
    ];
    for (name, rtype, code, ttl) in cases {
        let answer = world.ask(View::External, &name, rtype);
        assert_eq!(answer.metadata.response_code, code, "{name}");
        assert!(answer.answers.is_empty(), "{name}");
        assert_eq!(texts(&answer.authorities), [soa(ttl)], "{name}");
    }
    let answer = world.ask(View::External, "www.example.net", RecordType::A);
    assert_eq!(answer.metadata.response_code, ResponseCode::Refused);
}

/// `_explain` for clients on the allow-list; for all others there is no such name.
#[test]
fn explained_by_txt() {
    let mut world = world_for(vec!["192.0.2.0/30".parse().unwrap(), "2001:db8::/64".parse().unwrap()]);
    let name = format!("_explain.{SERVICE}");
    let mut ask = |from: &str, view, name: &str, rtype| {
        let (answer, _) =
            world.exchange_with(from.parse().unwrap(), view, Transport::Udp, &query(name, rtype, true)).unwrap();
        Message::from_vec(&answer).unwrap()
    };
    let line = |text: &str| format!("{name}. 0 TXT {text}");
    let inside = [
        line("band=1 cluster=cluster-1 tier=own-cluster weight=100 shed=0% ready answers=A 10.0.153.185"),
        line("band=2 cluster=cluster-2 tier=same-region weight=100 shed=0% ready answers=A 104.197.74.77"),
        line("band=3 cluster=cluster-3 tier=region weight=100 shed=0% ready answers=A 104.197.38.157"),
    ];
    for from in ["192.0.2.3", "::ffff:192.0.2.3", "2001:db8::1"] {
        assert_eq!(texts(&ask(from, CLUSTER_1, &name, RecordType::TXT).answers), inside, "{from}");
    }
    let outside = texts(&ask("192.0.2.1", View::External, &name, RecordType::TXT).answers);
    assert_eq!(outside.len(), 3);
    assert!(outside.iter().all(|text| text.contains("band=1 ") && !text.contains("10.0.153.185")), "{outside:?}");
    let other_type = ask("192.0.2.1", CLUSTER_1, &name, RecordType::A);
    assert_eq!((other_type.metadata.response_code, other_type.answers.len()), (ResponseCode::NoError, 0));
    for (from, asked) in [
        ("192.0.2.4", name.as_str()),
        ("192.0.2.1", &format!("_explain.nothing.{ZONE}")),
        ("192.0.2.1", &format!("_explain.cluster-1.{SERVICE}")),
        ("192.0.2.1", &format!("x.{name}")),
    ] {
        let answer = ask(from, CLUSTER_1, asked, RecordType::TXT);
        assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain, "{from} {asked}");
    }
}
