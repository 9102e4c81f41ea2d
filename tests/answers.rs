//! The 2015 example and the shapes of answers, through the answer function.

mod support;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use signpost::model::{AvailabilityZone, ClusterId, View};
use support::*;

const SERVICE: &str = "my-service.my-namespace.example.com";
const CLUSTER_1: View = View::Internal(ClusterId(0));

/// The 2015 text's three clusters: the second in another availability zone of the first one's region.
fn world() -> World {
    let mut clusters = vec![cluster("cluster-1", "us"), cluster("cluster-2", "us"), cluster("cluster-3", "europe")];
    clusters[0].availability_zones = vec![AvailabilityZone("a".into())];
    clusters[1].availability_zones = vec![AvailabilityZone("b".into())];
    let mut world = World::new(config(clusters), ZONE_FILE).synced();
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
