//! What services come to: families, readiness, order, sizes, ports, pods.

mod support;

use hickory_proto::rr::RecordType;
use signpost::config::{Families, Schema, Zone};
use signpost::model::{AvailabilityZone, ClusterId, Federated, Label, Port, Protocol, Share, View, Wishes};
use signpost::table::NoteKind;
use support::ask::{Ask, render};
use support::small::*;
use support::*;

#[test]
fn no_address_yet() {
    let mut world = world("");
    world.publish(key("ns", "new"), vec![load_balancer(0, "10.0.0.1", &[])]);
    let mut check = |view, asked: &str, answer: &str| {
        let seen = render(&question(asked).edns(1232).send(&mut world, view)).to_ascii_lowercase();
        assert_eq!(seen, expected(answer).to_ascii_lowercase(), "{asked}");
    };
    for asked in [
        "new.ns A",
        "new.ns AAAA",
        "new.ns SRV",
        "_client._tcp.new.ns SRV",
        "c0.new.ns A",
        "new.ns TYPE0",
        "new.ns ANY",
    ] {
        check(EXTERNAL, asked, "NOERROR aa\n@negative");
    }
    check(EXTERNAL, "_tcp.new.ns SRV", "NOERROR aa\n@nodata");
    check(C0, "new.ns A", "NOERROR aa\nnew.ns.@ 30 A 10.0.0.1");
    check(C0, "new.ns AAAA", "NOERROR aa\n@nodata");
}

/// A service is in every federation zone, under each zone's own rules.
#[test]
fn zones_are_apart() {
    let mut config = config(vec![cluster("c0", "r")]);
    let mut other = zone("Other.Example.com");
    (other.ttl, other.negative_ttl) = (60, 7);
    config.zones.push(other);
    let mut world = World::new(config, ZONE_FILE).synced();
    world.publish(key("ns", "s"), vec![load_balancer(0, "10.0.0.1", &["104.0.0.1"])]);
    let mut ask = |name: &str, rtype: u16| {
        let answer = Ask::new(name, rtype).send(&mut world, EXTERNAL);
        let records = answer.answers.iter().chain(&answer.authorities);
        let records = records.map(|r| (r.name.to_string().to_ascii_lowercase(), r.ttl, r.data.to_string()));
        (answer.metadata.response_code.to_string(), records.collect::<Vec<_>>())
    };
    for (zone, ttl, negative) in [("example.com", 30, 5), ("other.example.com", 60, 7)] {
        let name = format!("s.ns.{zone}.");
        assert_eq!(ask(&name, 1).1, [(name.clone(), ttl, "104.0.0.1".to_owned())]);
        let port = format!("_client._tcp.{name}");
        assert_eq!(ask(&port, 33).1, [(port.clone(), ttl, format!("0 100 2379 c0.{name}"))]);
        let (rcode, soa) = ask(&format!("gone.ns.{zone}."), 1);
        assert_eq!((&*rcode, &*soa[0].0, soa[0].1), ("Non-Existent Domain", &*format!("{zone}."), negative));
        assert_eq!(ask(&format!("ns.{zone}."), 1).0, "No Error");
        assert_eq!(ask(&format!("n.{zone}."), 1).0, "Non-Existent Domain");
    }
}

/// Which families are answered, by what each cluster has. The last column: which clusters are ready.
#[test]
fn families() {
    const V4: &[&str] = &["104.0.0.1"];
    const V6: &[&str] = &["2600::1"];
    const BOTH: &[&str] = &["104.0.0.2", "2600::2"];
    const NONE: &[&str] = &[];
    let rows: [(&[&[&str]], Families, bool, bool); 9] = [
        (&[V4, BOTH], Families::Common, true, false),
        (&[V6, BOTH], Families::Common, false, true),
        (&[BOTH, BOTH], Families::Common, true, true),
        (&[V4, V6], Families::Common, true, true),
        (&[V4, V6, BOTH], Families::Common, true, true),
        (&[V4, BOTH], Families::Any, true, true),
        (&[V4, V4], Families::Any, true, false),
        // A cluster that has no address yet has no say.
        (&[V4, NONE, BOTH], Families::Common, true, false),
        (&[NONE], Families::Common, false, false),
    ];
    for (lists, families, v4, v6) in rows {
        for ready in 0..1u8 << lists.len() {
            let mut config = clusters();
            config.zones[0].families = families;
            let mut world = World::new(config, ZONE_FILE).synced();
            let share = |(i, list): (usize, &&[&str])| Share {
                ready: ready >> i & 1 == 1,
                ..load_balancer(i as u16, "10.0.0.1", list)
            };
            world.publish(key("ns", "svc"), lists.iter().enumerate().map(share).collect());
            for (rtype, expected) in [("A", v4), ("AAAA", v6)] {
                let answer = question(&format!("svc.ns {rtype}")).send(&mut world, EXTERNAL);
                assert_eq!(!answer.answers.is_empty(), expected, "{lists:?} {families:?} {rtype}, ready {ready:03b}");
            }
        }
    }
}

/// NODATA never depends on readiness, for ports as for families.
#[test]
fn a_port_of_a_cluster_that_is_not_ready() {
    for ready in [[true, false], [false, true], [true, true], [false, false]] {
        let mut world = world("");
        let share = |i: u16, name: &str| Share {
            ports: vec![port(name, 1000 + i)],
            ready: ready[usize::from(i)],
            ..load_balancer(i, "10.0.0.1", &[&format!("104.0.{i}.1")])
        };
        world.publish(key("ns", "two"), vec![share(0, "left"), share(1, "right")]);
        for (i, name) in ["left", "right"].into_iter().enumerate() {
            let answer = question(&format!("_{name}._tcp.two.ns SRV")).send(&mut world, EXTERNAL);
            assert_eq!(answer.answers.len(), 1, "{name}, ready {ready:?}");
            assert!(answer.answers[0].data.to_string().ends_with(&format!("c{i}.two.ns.example.com.")));
        }
    }
}

#[test]
fn readiness() {
    let mut world = world("");
    let share = |c: u16, ready| Share { ready, ..load_balancer(c, &format!("10.{c}.0.1"), &[&format!("104.0.{c}.1")]) };
    let mut check = |ready: [bool; 3], view, list: &[&str]| {
        world.publish(key("ns", "svc"), ready.into_iter().enumerate().map(|(c, r)| share(c as u16, r)).collect());
        let answer = question("svc.ns A").send(&mut world, view);
        let seen: Vec<String> = answer.answers.iter().map(|r| r.data.to_string()).collect();
        assert_eq!(seen, list, "{ready:?} {view:?}");
        // A pin is never emptied.
        for c in 0..3 {
            assert_eq!(question(&format!("c{c}.svc.ns A")).send(&mut world, view).answers.len(), 1);
        }
    };
    check([true, true, true], C0, &["10.0.0.1", "104.0.1.1", "104.0.2.1"]);
    check([false, true, true], C0, &["104.0.1.1", "104.0.2.1"]);
    check([false, false, true], C0, &["104.0.2.1"]);
    check([false, false, false], C0, &["10.0.0.1", "104.0.1.1", "104.0.2.1"]);
    check([false, false, true], EXTERNAL, &["104.0.2.1"]);
}

#[test]
fn first_addresses_come_before_second_ones() {
    let mut world = world("");
    let shares = |n: u16| {
        (0..3).map(move |c| load_balancer(c, "10.0.0.1", &[&format!("104.{n}.{c}.1"), &format!("104.{n}.{c}.2")]))
    };
    world.publish(key("ns", "many"), shares(1).collect());
    let mut leaders = std::collections::BTreeSet::new();
    for _ in 0..100 {
        let answer = question("many.ns A").send(&mut world, EXTERNAL);
        let seen: Vec<String> = answer.answers.iter().map(|r| r.data.to_string()).collect();
        assert_eq!(seen.len(), 6);
        assert!(seen[..3].iter().all(|a| a.ends_with(".1")) && seen[3..].iter().all(|a| a.ends_with(".2")), "{seen:?}");
        leaders.insert(seen[0].clone());
    }
    assert_eq!(leaders.len(), 3);
    // Inside c0: own cluster, then its region's other cluster with both addresses, then the rest.
    let answer = question("many.ns A").send(&mut world, C0);
    let seen: Vec<String> = answer.answers.iter().map(|r| r.data.to_string()).collect();
    assert_eq!(seen, ["10.0.0.1", "104.1.1.1", "104.1.1.2", "104.1.2.1", "104.1.2.2"]);
}

#[test]
fn an_address_of_two_clusters_is_one_record() {
    let mut world = world("");
    let share = |c| load_balancer(c, &format!("10.{c}.0.1"), &["104.0.9.9"]);
    world.publish(key("ns", "shared"), vec![share(0), share(1), load_balancer(2, "10.2.0.1", &["104.0.2.1"])]);
    let mut first = 0;
    for _ in 0..3000 {
        let answer = question("shared.ns A").send(&mut world, EXTERNAL);
        assert_eq!(answer.answers.len(), 2);
        first += usize::from(answer.answers[0].data.to_string() == "104.0.9.9");
    }
    // Its weights are added: 2 of 3. Five standard deviations are 129.
    assert!(first.abs_diff(2000) < 129, "{first}");
    let answer = question("_client._tcp.shared.ns SRV").edns(1232).send(&mut world, EXTERNAL);
    assert_eq!((answer.answers.len(), answer.additionals.len()), (3, 3));
}

#[test]
fn a_set_is_cut_and_every_cluster_comes_up() {
    let names: Vec<String> = (0..20).map(|i| format!("c{i}")).collect();
    let mut world = World::new(config(names.iter().map(|n| cluster(n, "r")).collect()), ZONE_FILE).synced();
    let share = |c: u16| load_balancer(c, "10.0.0.1", &[&format!("104.0.{c}.1"), &format!("2600::{c}")]);
    world.publish(key("ns", "wide"), (0..20).map(share).collect());
    for rtype in ["A", "AAAA"] {
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..200 {
            let ask = question(&format!("wide.ns {rtype}"));
            let answer = ask.send(&mut world, EXTERNAL);
            // The same over every transport: no TC.
            assert_eq!((answer.answers.len(), answer.metadata.truncation), (8, false));
            let list: std::collections::BTreeSet<_> = answer.answers.iter().map(|r| r.data.to_string()).collect();
            assert_eq!(list.len(), 8, "no record comes twice");
            seen.extend(list);
            assert_eq!(ask.tcp().send(&mut world, EXTERNAL).answers.len(), 8);
        }
        assert_eq!(seen.len(), 20);
    }
    // Bands are cut from the bottom: the own cluster's address is always there, and first.
    for _ in 0..50 {
        let answer = question("wide.ns A").send(&mut world, C1);
        assert_eq!(answer.answers[0].data.to_string(), "10.0.0.1");
    }
}

#[test]
fn a_large_headless_set_goes_over_tcp() {
    let mut world = world("");
    let list: Vec<(String, String)> =
        (0..300).map(|i| (format!("pod-{i}"), format!("10.10.{}.{}", i / 200, i % 200))).collect();
    let pods: Vec<(&str, Vec<&str>)> = list.iter().map(|(h, a)| (h.as_str(), vec![a.as_str()])).collect();
    let pods: Vec<(&str, &[&str])> = pods.iter().map(|(h, a)| (*h, &a[..])).collect();
    world.publish(key("ns", "db"), vec![headless(0, &pods)]);
    for asked in ["_client._tcp.db.ns SRV", "db.ns SRV", "db.ns A", "c0.db.ns A"] {
        for ask in [question(asked), question(asked).edns(1232)] {
            let answer = ask.send(&mut world, C0);
            assert!(answer.metadata.truncation && answer.metadata.authoritative, "{asked}");
            let answer = ask.tcp().send(&mut world, C0);
            assert!(!answer.metadata.truncation);
            assert_eq!(answer.answers.len(), 300, "{asked}");
            let extra = if asked.ends_with("SRV") { 300 } else { 0 };
            assert_eq!(answer.additionals.len(), extra, "{asked}");
        }
    }
    assert_eq!(question("pod-299.c0.db.ns A").send(&mut world, C0).answers.len(), 1);
}

/// The addresses of pods that share a hostname are one set (RFC 2181 section 5).
#[test]
fn pods_of_one_hostname() {
    let mut world = world("");
    world.publish(
        key("ns", "db"),
        vec![headless(0, &[("db", &["10.10.0.1"]), ("db", &["10.10.0.2"]), ("db", &["fd00::2"])])],
    );
    let mut check = |asked: &str, answer: &str| {
        let seen = render(&question(asked).edns(1232).send(&mut world, C0)).to_ascii_lowercase();
        assert_eq!(seen, expected(answer).to_ascii_lowercase(), "{asked}");
    };
    check("db.c0.db.ns A", "NOERROR aa\ndb.c0.db.ns.@ 30 A 10.10.0.1\ndb.c0.db.ns.@ 30 A 10.10.0.2");
    check("db.c0.db.ns AAAA", "NOERROR aa\ndb.c0.db.ns.@ 30 AAAA fd00::2");
    check(
        "_client._tcp.db.ns SRV",
        "NOERROR aa\n_client._tcp.db.ns.@ 30 SRV 0 100 2379 db.c0.db.ns.@\nextra db.c0.db.ns.@ 30 A 10.10.0.1\n\
         extra db.c0.db.ns.@ 30 A 10.10.0.2\nextra db.c0.db.ns.@ 30 AAAA fd00::2",
    );
}

#[test]
fn names_at_the_limit() {
    // A port's name of 63 octets has no label with its underscore.
    let (long, fits) = ("p".repeat(63), "q".repeat(62));
    let mut world = world("");
    let share = Share {
        ports: vec![port(&long, 1), port(&fits, 2), port("", 3)],
        ..load_balancer(0, "10.0.0.1", &["104.0.0.1"])
    };
    world.publish(key("ns", "ports"), vec![share]);
    let bare = question("ports.ns SRV").send(&mut world, EXTERNAL);
    assert_eq!(bare.answers.len(), 3);
    let named = question(&format!("_{fits}._tcp.ports.ns SRV")).send(&mut world, EXTERNAL);
    assert_eq!(named.answers.len(), 1);
    assert_eq!(render(&question("_tcp.ports.ns SRV").send(&mut world, EXTERNAL)), expected("NOERROR aa\n@nodata"));

    // A zone in which S.N.Z has up to 255 octets: what is derived from it has no room and is left out.
    let apex = [&"z".repeat(63), &"y".repeat(63), &"x".repeat(50)].map(String::as_str).join(".");
    for (service, cluster_fits) in [("s".repeat(10), true), ("s".repeat(11), false), ("s".repeat(13), false)] {
        let mut config = clusters();
        config.zones = vec![zone(&apex)];
        let mut world = World::new(config, ZONE_FILE).synced();
        let namespace = "n".repeat(63 - 3);
        let key = key(&namespace, &service);
        world.publish(key, vec![load_balancer(0, "10.0.0.1", &["104.0.0.1"])]);
        let owner = format!("{service}.{namespace}.{apex}");
        assert_eq!(Ask::new(&owner, 1).send(&mut world, EXTERNAL).answers.len(), 1, "{}", owner.len());
        if owner.len() + 3 <= 253 {
            let pin = Ask::new(&format!("c0.{owner}"), 1).send(&mut world, EXTERNAL);
            assert_eq!(pin.answers.len(), usize::from(cluster_fits), "{}", owner.len());
        }
        let srv = Ask::new(&owner, 33).tcp().send(&mut world, EXTERNAL);
        assert_eq!(srv.answers.len(), if owner.len() + 3 <= 253 { 2 } else { 0 }, "{}", owner.len());
        assert_eq!(srv.authorities.len(), usize::from(srv.answers.is_empty()));
    }
    let ask = Ask::new(&longest_name(), 1);
    assert_eq!(ask.name.len(), 255);
    assert_eq!(ask.send(&mut world, EXTERNAL).authorities.len(), 1);
}

#[test]
fn a_name_that_is_too_long_is_told_where_the_service_is_exported() {
    let apex = [&"z".repeat(63), &"y".repeat(63), &"x".repeat(50)].map(String::as_str).join(".");
    let mut config = clusters();
    config.zones = vec![zone(&apex), Zone { schema: Schema::Mcs, ..zone(&format!("m.{apex}")) }];
    let mut world = World::new(config, ZONE_FILE).synced();
    let key = key(&"n".repeat(63), &"s".repeat(63));
    for (exported, offered, expected) in
        [(true, None, 1), (false, Some(1), 1), (true, Some(1), 2), (false, None, 0), (true, None, 1)]
    {
        let share = Share { exported, offered, ..load_balancer(0, "10.0.0.1", &["104.0.0.1"]) };
        let service = Federated { key: key.clone(), shares: vec![share], imports: vec![] };
        let notes = world.publisher.publish(&key, Some(&service));
        assert!(notes.iter().all(|note| note.kind() == NoteKind::LongName), "{notes:?}");
        assert_eq!(notes.len(), expected, "{exported} {offered:?}");
    }
    assert_eq!(world.publisher.publish(&key, None), []);
}

/// Clusters of one network see each other's pods, and nothing else of each other's inside.
#[test]
fn flat_networks() {
    let mut config = clusters();
    for i in [0, 1] {
        config.clusters[i].network = Some(signpost::model::Network("flat".into()));
    }
    config.clusters[0].availability_zones = vec![AvailabilityZone("a".into())];
    let mut world = World::new(config, ZONE_FILE).synced();
    world.publish(
        key("ns", "db"),
        vec![
            headless(0, &[("db-0", &["10.10.0.1"])]),
            headless(1, &[("db-0", &["10.11.0.1"])]),
            headless(2, &[("db-0", &["10.12.0.1"])]),
        ],
    );
    world.publish(key("ns", "svc"), vec![cluster_only(0, "10.0.0.1"), cluster_only(1, "10.1.0.1")]);
    let mut check = |view, asked: &str, answer: &str| {
        let seen = render(&question(asked).edns(1232).send(&mut world, view)).to_ascii_lowercase();
        assert_eq!(seen, expected(answer).to_ascii_lowercase(), "{view:?} {asked}");
    };
    check(C0, "db.ns A", "NOERROR aa\ndb.ns.@ 30 A 10.10.0.1\ndb.ns.@ 30 A 10.11.0.1");
    check(C1, "db-0.c0.db.ns A", "NOERROR aa\ndb-0.c0.db.ns.@ 30 A 10.10.0.1");
    check(C0, "db-0.c2.db.ns A", "NXDOMAIN aa\n@negative");
    check(View::Internal(ClusterId(2)), "db.ns A", "NOERROR aa\ndb.ns.@ 30 A 10.12.0.1");
    check(EXTERNAL, "db.ns A", "NXDOMAIN aa\n@negative");
    check(C0, "svc.ns A", "NOERROR aa\nsvc.ns.@ 30 A 10.0.0.1");
    check(C0, "c1.svc.ns A", "NXDOMAIN aa\n@negative");
}

/// One name for TCP and UDP, several numbers for one name, and numbers that differ by cluster.
#[test]
fn ports() {
    let mut world = world("");
    let port = |name: &str, protocol, number: u16| Port {
        name: (!name.is_empty()).then(|| Label::parse(name).expect("a label")),
        protocol,
        number: number.try_into().expect("not 0"),
    };
    let share = |c: u16, ports| Share { ports, ..load_balancer(c, "10.0.0.1", &[&format!("104.0.{c}.1")]) };
    world.publish(
        key("ns", "dns"),
        vec![
            share(0, vec![port("dns", Protocol::Tcp, 53), port("dns", Protocol::Udp, 53)]),
            share(1, vec![port("dns", Protocol::Tcp, 5353), port("sig", Protocol::Sctp, 99)]),
            share(2, vec![port("", Protocol::Tcp, 7)]),
        ],
    );
    let mut check = |asked: &str, records: &[&str]| {
        let answer = question(asked).edns(1232).send(&mut world, EXTERNAL);
        let mut seen: Vec<String> = answer.answers.iter().map(|r| r.data.to_string()).collect();
        seen.sort();
        let expected: Vec<String> = records.iter().map(|r| format!("0 100 {r}.dns.ns.example.com.")).collect();
        assert_eq!(seen, expected, "{asked}");
    };
    check("dns.ns SRV", &["53 c0", "5353 c1", "7 c2", "99 c1"]);
    check("_dns._tcp.dns.ns SRV", &["53 c0", "5353 c1"]);
    check("_dns._udp.dns.ns SRV", &["53 c0"]);
    check("_sig._sctp.dns.ns SRV", &["99 c1"]);
    check("_sig._tcp.dns.ns SRV", &[]);
}

/// More endpoints than run numbers of 16 bits: every pod is found at its own name, and a miss costs no walk over all.
#[test]
fn a_headless_service_of_66_000_pods() {
    use signpost::model::{ClusterAddress, Exposure, Pod, Share};
    let pod = |i: u32| Pod {
        hostname: label(&format!("p{i}")),
        addresses: vec![std::net::Ipv4Addr::from(0x0A00_0000 + i).into()],
        ports: vec![port("web", 80)],
    };
    let mut pods: Vec<Pod> = (0..66_000).map(pod).collect();
    pods.sort_by(|a, b| a.hostname.cmp(&b.hostname));
    let share = Share {
        cluster: ClusterId(0),
        exposure: Exposure::ClusterOnly,
        cluster_address: ClusterAddress::Headless,
        ingress: vec![],
        ports: vec![],
        ready: true,
        pods,
        exported: true,
        offered: None,
        sticky: false,
        proxied: false,
        wishes: Wishes::default(),
        check: None,
        hostnames: vec![],
        most_ttl: None,
    };
    let mut world = World::new(config(vec![cluster("c1", "r")]), ZONE_FILE).synced();
    world.publish(key("n", "s"), vec![share]);
    let inside = View::Internal(ClusterId(0));
    for i in [0, 1, 65_534, 65_535, 65_536, 65_999] {
        let name = format!("p{i}.c1.s.n.{ZONE}");
        let answer = world.ask(inside, &name, RecordType::A);
        let address = std::net::Ipv4Addr::from(0x0A00_0000 + i);
        assert_eq!(texts(&answer.answers), [format!("{name}. 30 A {address}")]);
    }
    let missing = world.ask(inside, &format!("p66000.c1.s.n.{ZONE}"), RecordType::A);
    assert_eq!(missing.metadata.response_code, hickory_proto::op::ResponseCode::NXDomain);
    for rtype in [RecordType::A, RecordType::SRV] {
        let answer = world.ask(inside, &format!("s.n.{ZONE}"), rtype);
        assert!(answer.metadata.truncation, "{rtype}");
    }
}
