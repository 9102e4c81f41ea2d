//! What holds for every federation, every view and every question.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{RData, Record, RecordType};
use proptest::prelude::*;
use proptest::test_runner::Config as Cases;
use signpost::answer::Transport;
use signpost::config::{Cluster, Families, Hostnames, Mode, Schema, Zone};
use signpost::model::{ClusterAddress, ClusterId, Exposure, Federated, ServiceImport, ServiceKey, Share, View, Wishes};
use signpost::table::Publisher;
use signpost::zonefile;
use support::ask::{Ask, render, text};
use support::federations::*;
use support::*;

/// A, AAAA, SRV, TXT, NS, DS, HTTPS, ANY, and 0, which is no type.
const TYPES: [u16; 9] = [1, 28, 33, 16, 2, 43, 65, 255, 0];

fn world(federation: &Federation) -> World {
    let mut world = World::new(federation.config(), &federation.zone_file()).synced();
    for (key, shares) in &federation.services {
        world.publish(key.clone(), shares.clone());
    }
    world
}

/// Another way to ask for each `n`: with and without EDNS, over both transports, in any case.
fn ask(name: &str, qtype: u16, n: u64) -> Ask {
    let ask = Ask::new(&format!("{name}.{ZONE}"), qtype).mixed_case(n.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    match n % 6 {
        0 => ask,
        1 => ask.edns(1232).option(3, &[]),
        2 => ask.edns((n % 1500) as u16),
        3 => ask.edns(u16::MAX),
        4 => ask.tcp(),
        _ => ask.edns(0).tcp(),
    }
}

fn address(record: &Record) -> Option<IpAddr> {
    match &record.data {
        RData::A(a) => Some(IpAddr::V4(a.0)),
        RData::AAAA(a) => Some(IpAddr::V6(a.0)),
        _ => None,
    }
}

/// The security property: what belongs to the inside of a cluster is told to nobody outside.
fn origins(message: &Message, view: View, clusters: &[Cluster]) -> Result<(), TestCaseError> {
    let sections = [&message.answers, &message.authorities, &message.additionals];
    for record in sections.into_iter().flatten() {
        if let Some(address) = address(record) {
            prop_assert!(may_see(view, address, clusters), "{view:?} is told {}", text(record));
        }
    }
    Ok(())
}

/// One answer against what the oracle says of its name.
fn check(
    message: &Message,
    ask: &Ask,
    exists: Option<&Expected>,
    below: bool,
    all: &BTreeMap<String, Expected>,
) -> Result<(), TestCaseError> {
    let seen = render(message);
    let soa_ttl = message.authorities.first().map(|soa| soa.ttl);
    let Some(expected) = exists.cloned().or(below.then(Expected::default)) else {
        prop_assert_eq!(message.metadata.response_code, ResponseCode::NXDomain, "{}", seen);
        prop_assert_eq!((message.answers.len(), soa_ttl), (0, Some(5)), "{}", seen);
        return Ok(());
    };
    prop_assert_eq!(message.metadata.response_code, ResponseCode::NoError, "{}", seen);
    prop_assert!(message.metadata.authoritative, "{}", seen);
    if message.metadata.truncation {
        prop_assert!(ask.transport == Transport::Udp, "{seen}");
        prop_assert!(message.answers.is_empty(), "{seen}");
        return Ok(());
    }
    let rtypes: BTreeSet<u16> = message.answers.iter().map(|r| u16::from(r.record_type())).collect();
    let rtype = match (ask.qtype, rtypes.first()) {
        (255, Some(&rtype)) => rtype,
        (qtype, _) => qtype,
    };
    let Some(set) = expected.sets.get(&rtype) else {
        prop_assert!(ask.qtype != 255 || expected.sets.is_empty(), "ANY finds what there is: {seen}");
        let ttl = if expected.pending { 5 } else { 30 };
        prop_assert_eq!((message.answers.len(), soa_ttl), (0, Some(ttl)), "{}", seen);
        return Ok(());
    };
    let list: Vec<String> = message.answers.iter().map(|r| r.data.to_string()).collect();
    let distinct: BTreeSet<&String> = list.iter().collect();
    prop_assert_eq!(distinct.len(), list.len(), "no record twice: {}", seen);
    prop_assert_eq!(&rtypes, &BTreeSet::from([rtype]), "{}", seen);
    let limit = expected.limits.get(&rtype).copied().unwrap_or(usize::MAX);
    prop_assert_eq!(list.len(), set.len().min(limit), "{} of {:?}", seen, set);
    prop_assert!(message.authorities.is_empty(), "{seen}");
    prop_assert!(
        expected.ttl == 0 || message.answers.iter().all(|r| r.ttl == expected.ttl),
        "not {}: {seen}",
        expected.ttl
    );
    // Bands in order, and of those that are left out none is better than one that is not.
    let mut bands = Vec::new();
    for data in &list {
        prop_assert!(set.contains_key(data), "{data} is not in {set:?}");
        bands.push(set[data]);
    }
    let mut best: Vec<usize> = set.values().copied().collect();
    best.sort();
    best.truncate(limit);
    prop_assert_eq!(bands, best, "{} of {:?}", seen, set);
    // Additional records are the targets' own.
    for record in &message.additionals {
        let owner = record.name.to_string().to_ascii_lowercase();
        let relative = owner.strip_suffix(&format!(".{ZONE}.")).expect("a name of the zone");
        let own = all.get(relative).and_then(|e| e.sets.get(&u16::from(record.record_type())));
        prop_assert!(own.is_some_and(|set| set.contains_key(&record.data.to_string())), "{seen}");
        prop_assert!(list.iter().any(|srv| srv.ends_with(&format!(" {owner}"))), "{seen}");
    }
    if ask.transport != Transport::Udp && rtype == 33 {
        for target in list.iter().filter_map(|srv| srv.rsplit(' ').next()) {
            let given = message.additionals.iter().any(|r| r.name.to_string().eq_ignore_ascii_case(target));
            prop_assert!(given, "no address for {target}: {seen}");
        }
    }
    Ok(())
}

/// Membership, order, existence, sizes, echoes and origins, for every name, type and view.
fn every_answer(federation: &Federation, salt: u32) -> Result<(), TestCaseError> {
    let mut world = world(federation);
    let mut n = u64::from(salt);
    for view in federation.views() {
        let all = oracle(federation, view);
        for name in names(federation.clusters.len()) {
            let suffix = format!(".{name}");
            // RFC 8020: a name exists if one below it does.
            let below = all.keys().any(|other| other.ends_with(&suffix));
            for qtype in TYPES {
                n += 1;
                let ask = ask(&name, qtype, n);
                let message = ask.send(&mut world, view);
                origins(&message, view, &federation.clusters)?;
                check(&message, &ask, all.get(&name), below, &all)?;
                if message.metadata.truncation {
                    let ask = ask.tcp();
                    let message = ask.send(&mut world, view);
                    origins(&message, view, &federation.clusters)?;
                    check(&message, &ask, all.get(&name), below, &all)?;
                }
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(Cases { cases: 48, max_shrink_time: 15_000, ..Cases::default() })]

    #[test]
    fn every_answer_is_what_the_oracle_says(federation in federations(), salt in any::<u32>()) {
        every_answer(&federation, salt)?;
    }
}

proptest! {
    // Each is large.
    #![proptest_config(Cases { cases: 12, max_shrink_time: 15_000, ..Cases::default() })]

    /// Services for which there is a short way, and such as just miss it.
    #[test]
    fn so_is_every_answer_of_services_that_are_like_most(federation in plain_federations(), salt in any::<u32>()) {
        every_answer(&federation, salt)?;
    }
}

/// For this view; of what has no clusterIP it may be its pods.
fn is_alias(share: &Share, view: View) -> bool {
    let has_pods = share.cluster_address == ClusterAddress::Headless;
    !share.hostnames.is_empty() && View::Internal(share.cluster) != view && !has_pods
}

proptest! {
    #![proptest_config(Cases { cases: 256, max_shrink_time: 15_000, ..Cases::default() })]

    /// Where clients are told the names of load balancers, a service's name is an alias and nothing else, or has addresses of one
    /// cluster; of an own clusterIP it is never an alias.
    #[test]
    fn an_alias_stands_alone(mut federation in federations(), named in prop::collection::vec(any::<bool>(), 5)) {
        (federation.statics, federation.mode) = (false, Mode::Ordered);
        federation.special.clear();
        for share in federation.services.values_mut().flatten() {
            if named[share.cluster.index()] && share.exposure == Exposure::LoadBalancer {
                share.hostnames = vec![format!("h{}.cloud.test", share.cluster.0).as_str().into()];
                // One that leads to nothing that may be published is not told.
                share.ingress.clear();
            }
        }
        let mut config = federation.config();
        config.zones[0].hostnames = Hostnames::Cname;
        let mut world = World::new(config, &federation.zone_file()).synced();
        for (key, shares) in &federation.services {
            world.publish(key.clone(), shares.clone());
        }
        for view in federation.views() {
            // Of each cluster's share what it would have if nobody had a name.
            let all = oracle(&federation, view);
            for ((key, shares), qtype) in federation.services.iter().flat_map(|s| [1, 28, 16, 255].map(|t| (s, t))) {
                let name = format!("{}.{}", key.name, key.namespace);
                let message = Ask::new(&format!("{name}.{ZONE}"), qtype).tcp().send(&mut world, view);
                origins(&message, view, &federation.clusters)?;
                let records: Vec<String> = message.answers.iter().map(|r| r.data.to_string()).collect();
                let aliases = message.answers.iter().filter(|r| r.record_type() == RecordType::CNAME).count();
                let own = shares.iter().find(|share| View::Internal(share.cluster) == view);
                if aliases > 0 {
                    prop_assert_eq!((aliases, records.len()), (1, 1), "{}", render(&message));
                    let is_it = |share: &&Share| share.hostnames.iter().any(|n| format!("{n}.") == records[0]);
                    let share = shares.iter().find(is_it);
                    prop_assert!(share.is_some_and(|share| View::Internal(share.cluster) != view), "{}", records[0]);
                    let has_own = own.is_some_and(|own| {
                        let inside = matches!(&own.cluster_address, ClusterAddress::Virtual(list) if !list.is_empty());
                        let weight = own.wishes.weight.unwrap_or(federation.clusters[own.cluster.index()].weight);
                        inside && own.ready && weight > 0
                    });
                    prop_assert!(!has_own, "{view:?} is sent to {}", records[0]);
                } else if shares.iter().any(|share| is_alias(share, view)) {
                    let sets = shares.iter().filter_map(|share| {
                        let cluster = federation.clusters[share.cluster.index()].name.as_str();
                        all.get(&format!("{cluster}.{name}"))
                    });
                    let rtype = message.answers.first().map_or(0, |r| u16::from(r.record_type()));
                    let holds = |e: &Expected| e.sets.get(&rtype).is_some_and(|s| records.iter().all(|r| s.contains_key(r)));
                    prop_assert!(records.is_empty() || rtype == 33 || sets.into_iter().any(holds), "{}", render(&message));
                }
                if qtype == 255 && message.metadata.response_code == ResponseCode::NoError {
                    let has = all.get(&name).is_some_and(|e| e.sets.contains_key(&1) || e.sets.contains_key(&28));
                    prop_assert!(!has || !records.is_empty(), "nothing is left of {name} for {view:?}");
                }
            }
        }
    }
}

/// Of answers with several candidates in a band, how often each comes first follows the weights.
#[test]
fn shares_within_a_band_follow_the_weights() {
    const ASKED: u32 = 100_000;
    let weights = [50u16, 100, 150, 0, 700];
    for plain in [true, false] {
        let clusters = (0..weights.len()).map(|n| cluster(&format!("c{n}"), "r"));
        let mut world = World::new(config(clusters.collect()), ZONE_FILE).synced();
        let share = |(n, weight): (usize, &u16)| {
            let first = format!("104.0.0.{n}");
            // With a second address a share is not plain.
            let ingress: &[&str] = if plain { &[&first] } else { &[&first, &format!("104.0.1.{n}")] };
            let wishes = Wishes { weight: Some(*weight), ..Wishes::default() };
            Share { wishes, ..load_balancer(n as u16, "10.0.0.1", ingress) }
        };
        world.publish(key("ns", "svc"), weights.iter().enumerate().map(share).collect());
        let query = Ask::new(&format!("svc.ns.{ZONE}"), 1).edns(1232).to_vec();
        let mut first = [0u32; 5];
        for _ in 0..ASKED {
            let (answer, _) = world.exchange(View::External, Transport::Udp, &query).expect("an answer");
            // The last number of the first address, whose record follows the question.
            first[usize::from(answer[query.len() - 11 + 15])] += 1;
        }
        assert_eq!(first[3], 0, "drained");
        let total: f64 = weights.iter().copied().map(f64::from).sum();
        let chi = |(seen, weight): (&u32, &u16)| {
            let expected = f64::from(ASKED) * f64::from(*weight) / total;
            if *weight == 0 { 0.0 } else { (f64::from(*seen) - expected).powi(2) / expected }
        };
        let chi_squared: f64 = first.iter().zip(&weights).map(chi).sum();
        // Three degrees of freedom: one of a million is above 30.7.
        assert!(chi_squared < 30.7, "{first:?} by {weights:?}: {chi_squared}");
    }
}

/// What a question comes to, whatever is drawn.
fn outcome(world: &mut World, view: View, name: &str, qtype: u16) -> String {
    let message = Ask::new(&format!("{name}.{ZONE}"), qtype).tcp().send(world, view);
    let mut lines: Vec<String> = render(&message).lines().map(str::to_owned).collect();
    lines[1..].sort();
    lines.join("\n")
}

#[derive(Debug, Clone)]
enum Step {
    Publish(usize, Vec<Share>),
    Withdraw(usize),
    Replace,
}

fn steps(clusters: usize) -> impl Strategy<Value = Vec<Step>> {
    let service = 0..SERVICES.len();
    let publish =
        service.clone().prop_flat_map(move |s| shares(s, clusters).prop_map(move |list| Step::Publish(s, list)));
    prop::collection::vec(
        prop_oneof![6 => publish, 3 => service.prop_map(Step::Withdraw), 1 => Just(Step::Replace)],
        1..14,
    )
}

proptest! {
    #![proptest_config(Cases { cases: 32, max_shrink_time: 15_000, ..Cases::default() })]

    /// A table that was changed step by step says what one says that was filled at once.
    #[test]
    fn incremental_is_rebuilt(
        (mut federation, steps) in federations().prop_flat_map(|f| (Just(f.clone()), steps(f.clusters.len())))
    ) {
        // All of a set comes back, so that the draw does not show.
        federation.max_answers = 255;
        federation.mode = Mode::Ordered;
        let mut world = world(&federation);
        let mut state: BTreeMap<ServiceKey, Vec<Share>> = federation.services.clone();
        let file = zonefile::parse(&federation.zone_file(), &world.config.zones[0].name, "z".as_ref()).expect("it is right");
        for step in steps {
            match step {
                Step::Publish(s, list) => {
                    state.insert(service_key(s), list.clone());
                    world.publish(service_key(s), list);
                }
                Step::Withdraw(s) => {
                    state.remove(&service_key(s));
                    world.publisher.publish(&service_key(s), None);
                }
                Step::Replace => {
                    let config = world.config.clone();
                    let fill = |table: &mut Publisher| {
                        for (key, shares) in &state {
                            let service = Federated { key: key.clone(), shares: shares.clone(), imports: vec![] };
                            table.publish(key, Some(&service));
                        }
                    };
                    drop(world.publisher.replace(config, std::slice::from_ref(&file), fill, |_| true));
                }
            }
        }
        let fresh = Federation { services: state.clone(), ..federation.clone() };
        let mut fresh_world = self::world(&fresh);
        prop_assert_eq!(world.publisher.name_count(), fresh_world.publisher.name_count());
        for view in federation.views() {
            for name in names(federation.clusters.len()) {
                for qtype in [1, 28, 33, 255] {
                    let (changed, filled) =
                        (outcome(&mut world, view, &name, qtype), outcome(&mut fresh_world, view, &name, qtype));
                    prop_assert_eq!(changed, filled, "{:?} {} {}", view, name, qtype);
                }
            }
        }
        // Nothing stays behind.
        for key in state.into_keys() {
            world.publisher.publish(&key, None);
        }
        prop_assert_eq!(world.publisher.name_count(), 0);
    }

    /// Readiness chooses between candidates; whether there is an answer does not depend on it.
    #[test]
    fn what_is_empty_does_not_depend_on_readiness(federation in federations(), ready in any::<u64>()) {
        let mut other = federation.clone();
        for (i, share) in other.services.values_mut().flatten().enumerate() {
            share.ready = ready >> (i % 64) & 1 == 1;
        }
        let (mut one, mut two) = (world(&federation), world(&other));
        for view in federation.views() {
            for name in names(federation.clusters.len()) {
                for qtype in [1, 28, 33] {
                    let [a, b] = [&mut one, &mut two].map(|world| {
                        let message = Ask::new(&format!("{name}.{ZONE}"), qtype).tcp().send(world, view);
                        let soa = message.authorities.first().map(text);
                        (message.metadata.response_code, message.answers.is_empty(), soa)
                    });
                    prop_assert_eq!(a, b, "{:?} {} {}", view, name, qtype);
                }
            }
        }
    }
}

/// Pearson's statistic of counts that should be equal.
fn chi_squared(counts: &[u32]) -> f64 {
    let expected = f64::from(counts.iter().sum::<u32>()) / counts.len() as f64;
    counts.iter().map(|&count| (f64::from(count) - expected).powi(2) / expected).sum()
}

/// Equal candidates come in every order equally often, and those that are cut are equally often cut.
#[test]
fn equal_candidates_are_drawn_equally() {
    const DRAWS: u32 = 24_000;
    let names: Vec<String> = (0..12).map(|i| format!("c{i}")).collect();
    let mut world = World::new(config(names.iter().map(|n| cluster(n, "r")).collect()), ZONE_FILE).synced();
    let share = |c: u16| load_balancer(c, "10.0.0.1", &[&format!("104.0.0.{c}")]);
    world.publish(key("ns", "three"), (0..3).map(share).collect());
    world.publish(key("ns", "twelve"), (0..12).map(share).collect());
    // The records of these answers are 16 octets, and the last octet of each is the cluster.
    let mut draw = |service: &str| -> Vec<u8> {
        let query = Ask::new(&format!("{service}.ns.{ZONE}"), 1).to_vec();
        let (answer, _) = world.exchange(View::External, Transport::Udp, &query).expect("an answer");
        answer[query.len()..].chunks_exact(16).map(|record| record[15]).collect()
    };
    let mut orders: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
    let (mut first, mut last, mut within) = ([0u32; 12], [0u32; 12], [0u32; 12]);
    for _ in 0..DRAWS {
        *orders.entry(draw("three")).or_default() += 1;
        let list = draw("twelve");
        assert_eq!(list.len(), 8);
        first[usize::from(list[0])] += 1;
        last[usize::from(list[7])] += 1;
        for cluster in list {
            within[usize::from(cluster)] += 1;
        }
    }
    let orders: Vec<u32> = orders.into_values().collect();
    assert_eq!(orders.len(), 6);
    // The seed is fixed, so this holds always or never; the limits are those of p = 0.0001.
    assert!(chi_squared(&orders) < 25.7, "5 degrees of freedom: {orders:?}");
    for counts in [first, last, within] {
        assert!(chi_squared(&counts) < 37.4, "11 degrees of freedom: {counts:?}");
    }
}

/// For each service and each of up to five clusters: by which rule its share is exported, since when a ServiceExport offers
/// it, and whether there is a ServiceImport.
type Choices = Vec<Vec<(bool, Option<u64>, bool)>>;

fn choices() -> impl Strategy<Value = Choices> {
    let choice = (any::<bool>(), prop::option::of(1u64..4), prop::bool::weighted(0.2));
    prop::collection::vec(prop::collection::vec(choice, 5), SERVICES.len())
}

/// The address of a ServiceImport, which tells by its second number whose clients it is for.
fn import_of(s: usize, c: usize, key: &ServiceKey) -> ServiceImport {
    let address = std::net::Ipv6Addr::new(0xfd10, c as u16, 0, 0, 0, 0, s as u16, 0x100);
    ServiceImport { key: key.clone(), addresses: vec![address.into()], ports: vec![port("import", 7)] }
}

fn exports_decide(federation: &Federation, choices: &Choices) -> Result<(), TestCaseError> {
    let mut config = federation.config();
    config.zones.push(Zone { schema: Schema::Mcs, families: Families::Any, ..zone("clusterset.local") });
    let mut world = World::new(config, &federation.zone_file()).synced();
    // What the zone of the schema `federation` should not be told apart from.
    let mut plain = World::new(federation.config(), &federation.zone_file()).synced();
    let mut services = Vec::new();
    for (s, of_service) in choices.iter().enumerate() {
        let key = service_key(s);
        let shares = federation.services.get(&key).cloned().unwrap_or_default();
        let chosen = |share: Share| {
            let (exported, offered, _) = of_service[share.cluster.index()];
            Share { exported, offered, ..share }
        };
        let shares: Vec<Share> = shares.into_iter().map(chosen).collect();
        let clusters = 0..federation.clusters.len();
        let imports = clusters.filter(|&c| of_service[c].2);
        let imports = imports.map(|c| (ClusterId(c as u16), Arc::new(import_of(s, c, &key)))).collect();
        let exported: Vec<Share> = shares.iter().filter(|share| share.exported).cloned().collect();
        if !exported.is_empty() {
            plain.publish(key.clone(), exported);
        }
        let service = Federated { key: key.clone(), shares, imports };
        world.publisher.publish(&key, Some(&service));
        services.push(service);
    }
    // Both are asked the same from the start, so that both draw the same where less than all is answered.
    for view in federation.views() {
        for name in names(federation.clusters.len()) {
            for qtype in [1, 28, 33] {
                let ask = Ask::new(&format!("{name}.{ZONE}"), qtype).tcp();
                let [seen, expected] = [&mut world, &mut plain].map(|world| ask.send(world, view));
                let sets = |message: &Message| {
                    let all = message.answers.iter().chain(&message.authorities).chain(&message.additionals);
                    (message.metadata.response_code, all.map(text).collect::<BTreeSet<_>>())
                };
                prop_assert_eq!(sets(&seen), sets(&expected), "{} {}", name, qtype);
            }
        }
    }
    for view in federation.views() {
        for (s, service) in services.iter().enumerate() {
            let own = |c: usize| view == View::Internal(ClusterId(c as u16));
            let name = format!("{}.{}.svc.clusterset.local", service.key.name, service.key.namespace);
            let labels: Vec<&str> = PORTS.iter().copied().filter(|port| !port.is_empty()).collect();
            let ports = labels.iter().flat_map(|port| ["_tcp", "_udp"].map(|p| (format!("_{port}.{p}.{name}"), 33)));
            let clusters = federation.clusters.iter().map(|c| (format!("{}.{name}", c.name), 1));
            let hosts = federation.clusters.iter().map(|c| (format!("{}.{}.{name}", HOSTS[0], c.name), 1));
            let asked =
                [(name.clone(), 1), (name.clone(), 28), (name.clone(), 33), (format!("_import._tcp.{name}"), 33)];
            for (asked, qtype) in asked.into_iter().chain(ports).chain(clusters.clone()).chain(hosts) {
                let message = Ask::new(&asked, qtype).tcp().send(&mut world, view);
                origins(&message, view, &federation.clusters)?;
                let seen = render(&message);
                if view == View::External {
                    prop_assert_eq!(message.metadata.response_code, ResponseCode::Refused, "{}", seen);
                    prop_assert!(message.answers.is_empty() && message.authorities.is_empty(), "{}", seen);
                    continue;
                }
                let import = service.imports.iter().find(|(c, _)| own(c.index()));
                if let (Some((_, import)), true) = (import, asked == name) {
                    let got: Vec<IpAddr> = message.answers.iter().filter_map(address).collect();
                    prop_assert_eq!(&got, if qtype == 28 { &import.addresses[..] } else { &[] }, "{}", seen);
                }
                if qtype != 33 && import.is_none() {
                    // From shares that are offered, of which none is lost where all are of one type.
                    for got in message.answers.iter().filter_map(address) {
                        let offered = service.shares.iter().filter(|share| share.offered.is_some());
                        let from = |share: &Share| {
                            let inner = match &share.cluster_address {
                                ClusterAddress::Virtual(list) => list.contains(&got),
                                ClusterAddress::Headless => false,
                            };
                            let pods = share.pods.iter().any(|pod| pod.addresses.contains(&got));
                            inner || pods || share.ingress.contains(&got)
                        };
                        prop_assert!(offered.clone().any(from), "{got} of {s}: {seen}");
                    }
                }
                if clusters.clone().any(|(cluster, _)| cluster == asked) {
                    prop_assert!(message.answers.is_empty(), "{}", seen);
                }
                for srv in message.answers.iter().filter(|_| qtype == 33) {
                    let target = srv.data.to_string().rsplit(' ').next().unwrap_or_default().to_ascii_lowercase();
                    prop_assert!(target.ends_with(&format!("{name}.")), "{}", seen);
                    prop_assert!(asked != name, "{}", seen);
                }
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(Cases { cases: 24, max_shrink_time: 15_000, ..Cases::default() })]

    #[test]
    fn exports_decide_what_is_in_which_zone(federation in federations(), choices in choices()) {
        exports_decide(&federation, &choices)?;
    }
}
