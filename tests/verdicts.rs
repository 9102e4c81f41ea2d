//! What verdicts do to answers, whatever they are: nobody is left without an answer, and a suspicion removes nothing.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use hickory_proto::op::Message;
use hickory_proto::rr::{RData, RecordType};
use proptest::prelude::*;
use proptest::test_runner::Config as Cases;
use signpost::answer::Transport;
use signpost::config::{Hostnames, Mode};
use signpost::health::Health;
use signpost::model::{Federated, Share, View};
use signpost::table::Outlook;
use support::small::C0;
use support::*;

type Verdicts = BTreeMap<IpAddr, Health>;

fn address(cluster: usize, n: usize, v4: bool) -> IpAddr {
    let text = if v4 { format!("104.0.{cluster}.{n}") } else { format!("2600::{cluster}:{n}") };
    text.parse().expect("an address")
}

/// A service in three clusters of one region and one of another; so many addresses of each.
fn world(mode: Mode, counts: &[usize; 4], verdicts: &Verdicts) -> World {
    let clusters = [("c0", "r0"), ("c1", "r0"), ("c2", "r0"), ("c3", "r1")];
    let mut config = config(clusters.map(|(name, region)| cluster(name, region)).into());
    config.zones[0].external_mode = mode;
    config.zones[0].internal_mode = mode;
    config.zones[0].max_answers = 255;
    let mut world = World::new(config, ZONE_FILE).synced();
    let share = |(n, count): (usize, &usize)| {
        let families = [true, false];
        let ingress = families.iter().flat_map(|v4| (0..*count).map(move |address| self::address(n, address, *v4)));
        Share { ingress: ingress.collect(), ..load_balancer(n as u16, &format!("10.{n}.0.1"), &[]) }
    };
    let service =
        Federated { key: key("ns", "svc"), shares: counts.iter().enumerate().map(share).collect(), imports: vec![] };
    let health = |_: &Share, address| verdicts.get(&address).copied().unwrap_or_default();
    world.publisher.publish_with(&service.key, Some(&service), &Outlook { health: &health, ..Outlook::FAIR });
    world
}

struct Answer {
    /// In their order, with their TTLs.
    addresses: Vec<(IpAddr, u32)>,
}

impl Answer {
    fn set(&self) -> BTreeSet<IpAddr> {
        self.addresses.iter().map(|(address, _)| *address).collect()
    }
}

fn ask(world: &mut World, view: View, v4: bool) -> Answer {
    let rtype = if v4 { RecordType::A } else { RecordType::AAAA };
    let message = world.ask(view, &format!("svc.ns.{ZONE}"), rtype);
    let address = |data: &RData| data.ip_addr().expect("an address");
    Answer { addresses: message.answers.iter().map(|record| (address(&record.data), record.ttl)).collect() }
}

/// By chance, and never better than `worst`.
fn verdicts(worst: Health) -> impl Strategy<Value = Verdicts> {
    let one = prop_oneof![Just(Health::Fine), Just(Health::Suspect), Just(worst), Just(worst)];
    let pairs = (0..4usize).flat_map(|c| (0..3usize).flat_map(move |n| [true, false].map(|v4| address(c, n, v4))));
    let all: Vec<IpAddr> = pairs.collect();
    prop::collection::vec(one, all.len()).prop_map(move |list| all.iter().copied().zip(list).collect())
}

fn modes() -> impl Strategy<Value = Mode> {
    prop_oneof![Just(Mode::Ordered), (0..3u8).prop_map(|spare| Mode::Nearest { spare }), Just(Mode::Single)]
}

fn counts() -> impl Strategy<Value = [usize; 4]> {
    prop::array::uniform4(0..=3usize)
}

proptest! {
    #![proptest_config(Cases { failure_persistence: None, ..Cases::with_cases(300) })]

    #[test]
    fn nobody_is_left_without_an_answer(mode in modes(), counts in counts(), verdicts in verdicts(Health::Down)) {
        let (mut judged, mut fair) = (world(mode, &counts, &verdicts), world(mode, &counts, &Verdicts::new()));
        for view in [View::External, C0] {
            for v4 in [true, false] {
                let (judged, fair) = (ask(&mut judged, view, v4), ask(&mut fair, view, v4));
                prop_assert_eq!(judged.addresses.is_empty(), fair.addresses.is_empty());
                let is_down = |address: &IpAddr| verdicts.get(address) == Some(&Health::Down);
                if judged.set().iter().any(is_down) {
                    prop_assert!(view == View::External || !v4, "the own clusterIP is never Down");
                    let all = (0..4).flat_map(|c| (0..counts[c]).map(move |n| address(c, n, v4)));
                    // A client inside of a cluster does not see its own.
                    let mut seen = all.filter(|a| view == View::External || !(0..3).any(|n| *a == address(0, n, v4)));
                    prop_assert!(seen.all(|a| is_down(&a)), "{:?}", judged.set());
                    prop_assert!(judged.addresses.iter().all(|(_, ttl)| *ttl == 5));
                } else {
                    prop_assert!(judged.addresses.iter().all(|(_, ttl)| *ttl == 30));
                }
            }
        }
    }

    #[test]
    fn a_suspicion_removes_nothing(mode in modes(), counts in counts(), verdicts in verdicts(Health::Suspect)) {
        let (mut judged, mut fair) = (world(mode, &counts, &verdicts), world(mode, &counts, &Verdicts::new()));
        for v4 in [true, false] {
            let (judged, fair) = (ask(&mut judged, View::External, v4), ask(&mut fair, View::External, v4));
            match mode {
                Mode::Ordered => prop_assert_eq!(judged.set(), fair.set()),
                // All are in one band here, of which those that come first are by chance.
                Mode::Nearest { .. } | Mode::Single => prop_assert_eq!(judged.addresses.len(), fair.addresses.len()),
            }
            let suspects: Vec<bool> =
                judged.addresses.iter().map(|(a, _)| verdicts.get(a) == Some(&Health::Suspect)).collect();
            prop_assert!(suspects.is_sorted(), "{:?}", judged.addresses);
            let inside = ask(&mut world(mode, &counts, &verdicts), C0, v4).set();
            let before = ask(&mut world(mode, &counts, &Verdicts::new()), C0, v4).set();
            match mode {
                Mode::Ordered | Mode::Nearest { spare: 0 } => prop_assert!(inside.is_superset(&before)),
                Mode::Nearest { .. } | Mode::Single => prop_assert!(inside.len() >= before.len()),
            }
        }
    }
}

/// Beside an alias one cluster is answered with at a time; that it is Down, and nothing else is there, is told all the same.
#[test]
fn an_answer_of_one_cluster_fails_open_too() {
    let mut config = config(vec![cluster("c0", "r0"), cluster("c1", "r0")]);
    config.zones[0].hostnames = Hostnames::Cname;
    let mut world = World::new(config, ZONE_FILE).synced();
    let named = Share { hostnames: vec!["lb.cloud.test".into()], ..load_balancer(0, "10.0.0.1", &["104.0.0.1"]) };
    let shares = vec![named, load_balancer(1, "10.1.0.1", &["104.0.1.1"])];
    let service = Federated { key: key("ns", "svc"), shares, imports: vec![] };
    for (health, ttl, open) in [(Health::Fine, 30, false), (Health::Suspect, 30, false), (Health::Down, 5, true)] {
        let health = |_: &Share, _| health;
        world.publisher.publish_with(&service.key, Some(&service), &Outlook { health: &health, ..Outlook::FAIR });
        let mut types = BTreeSet::new();
        for _ in 0..100 {
            let query = query(&format!("svc.ns.{ZONE}"), RecordType::A, true);
            let (answer, outcome) = world.exchange(View::External, Transport::Udp, &query).expect("an answer");
            let message = Message::from_vec(&answer).expect("an answer that parses");
            let [record] = &message.answers[..] else { panic!("{message}") };
            assert_eq!((record.ttl, outcome.fails_open), (ttl, open), "{record}");
            types.insert(record.record_type().to_string());
        }
        assert_eq!(types, ["A", "CNAME"].map(str::to_owned).into());
    }
}
