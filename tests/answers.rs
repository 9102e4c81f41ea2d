//! The 2015 example and the shapes of answers, through the answer function.

mod support;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use signpost::answer::{Client, Reply, Responder, Transport};
use signpost::config::{Config, Location, Places};
use signpost::model::{Audience, AvailabilityZone, ClusterId, Region, View, ViewRule};
use signpost::table::Atlas;
use support::small::question;
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
    let config = Config { explain_to, ..config(clusters) };
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

/// A worker's batches use the same places again and again: whatever became of a query, the next one is answered as if it were the
/// first.
#[test]
fn a_place_keeps_nothing_of_an_earlier_query() {
    let of = |region: &str, cidr: &str| Places::Inline {
        region: Region(region.into()),
        availability_zone: None,
        cidrs: vec![cidr.parse().unwrap()],
    };
    let mut clusters = vec![cluster("c0", "us-east-1"), cluster("c1", "ap-northeast-1")];
    clusters[0].client_cidrs = vec!["192.0.2.0/24".parse().unwrap()];
    let places = vec![of("us-east-1", "198.51.100.0/24"), of("ap-northeast-1", "203.0.113.0/24")];
    let base = config(clusters);
    let location = Location { places, ..base.location.clone() };
    let mut world = World::new(Config { location, ..base }, ZONE_FILE).synced();
    world.publisher.set_atlas(Atlas::new(&world.config, Vec::new(), Vec::new()));
    let shares = vec![load_balancer(0, "10.0.0.1", &["104.0.0.1"]), load_balancer(1, "10.0.0.2", &["104.0.0.2"])];
    world.publish(key("ns", "svc"), shares);

    const SUBNET: u16 = 8;
    let (america, asia) = ([0, 1, 24, 0, 198, 51, 100], [0, 1, 24, 0, 203, 0, 113]);
    let with = |subnet: &[u8]| question("svc.ns A").edns(1232).option(SUBNET, subnet);
    let mut response = with(&asia).to_vec();
    response[2] |= 0x80;
    let mut no_question = with(&asia).to_vec();
    no_question[5] = 0;
    let queries = [
        question("svc.ns A").to_vec(),
        with(&asia).to_vec(),
        with(&america).to_vec(),
        with(&asia).option(SUBNET, &asia).to_vec(),
        question("svc.ns A").edns(1232).option(3, &[]).to_vec(),
        question("_client._tcp.svc.ns SRV").edns(1232).option(SUBNET, &asia).to_vec(),
        question("nothing.ns A").to_vec(),
        question("ns A").to_vec(),
        question("www.example.net. A").edns(1232).option(SUBNET, &asia).to_vec(),
        question("@ SOA").to_vec(),
        no_question,
        response,
        vec![0; 5],
    ];
    let reader = &world.reader;
    let answer = |responder: &mut Responder, audience: Audience, query: &[u8]| {
        let address = "192.0.2.1".parse().unwrap();
        let client = Client { address, audience, transport: Transport::Udp, keepalive: 0 };
        let mut buffer = vec![0; 2048];
        buffer[..query.len()].copy_from_slice(query);
        let reply = reader.with(|table| {
            responder.read(0, table, client, &buffer[..query.len()]);
            responder.prefetch(0, table);
            responder.answer_read(0, table, &mut buffer)
        });
        match reply {
            Reply::Send { length, outcome } => Ok((buffer[..usize::from(length)].to_vec(), outcome)),
            Reply::Drop(cause) => Err(cause),
        }
    };
    let mut different = std::collections::BTreeSet::new();
    for client_subnet in [true, false] {
        for view in [ViewRule::BySource, ViewRule::Fixed(View::External)] {
            let audience = Audience { view, client_subnet };
            for query in &queries {
                let alone = answer(&mut Responder::new(1), audience, query);
                different.insert(format!("{alone:?}"));
                for earlier in &queries {
                    let mut responder = Responder::new(1);
                    let _ = answer(&mut responder, audience, earlier);
                    let after = answer(&mut responder, audience, query);
                    assert_eq!(after, alone, "{query:?} after {earlier:?}, {audience:?}");
                }
            }
        }
    }
    // Places, views and subnets do make a difference.
    assert!(different.len() > queries.len() + 6, "{}", different.len());
}
