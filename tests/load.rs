//! Load in answers: who goes behind, how often, and that nobody is lost.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use hickory_proto::rr::{RData, RecordType};
use proptest::prelude::*;
use proptest::test_runner::Config as Cases;
use signpost::config::Mode;
use signpost::load::Shedding;
use signpost::model::{ClusterId, Federated, Share, View, Wishes};
use support::federations::*;
use support::small::C0;
use support::*;

const CALM: Shedding = Shedding { share: 0, overloaded: false };
const OVER: Shedding = Shedding { share: 255, overloaded: true };

fn share_of(share: u8) -> Shedding {
    Shedding { share, overloaded: false }
}

/// A service in three clusters of one region and in one of another; `plain`: as most services are.
fn world(mode: Mode, plain: bool) -> World {
    let clusters = [("c0", "r0"), ("c1", "r0"), ("c2", "r0"), ("c3", "r1")];
    let mut config = config(clusters.map(|(name, region)| cluster(name, region)).into());
    config.zones[0].external_mode = mode;
    config.zones[0].internal_mode = mode;
    let mut world = World::new(config, ZONE_FILE).synced();
    load(&mut world, plain, [CALM; 4]);
    world
}

fn load(world: &mut World, plain: bool, shedding: [Shedding; 4]) {
    let share = |n: usize| {
        let weight = if plain { None } else { Some([100, 100, 100, 50][n]) };
        let wishes = Wishes { weight, ..Wishes::default() };
        Share { wishes, ..load_balancer(n as u16, &format!("10.{n}.0.1"), &[&format!("104.0.0.{n}")]) }
    };
    let service = Federated { key: key("ns", "svc"), shares: (0..4).map(share).collect(), imports: vec![] };
    world.publisher.publish_with(
        &service.key,
        Some(&service),
        &signpost::table::Outlook { shedding: &|id| shedding[id.index()], ..signpost::table::Outlook::FAIR },
    );
}

/// The clusters whose addresses the answer has, in its order; for SRV by priority.
fn order(world: &mut World, view: View, rtype: RecordType) -> Vec<(u16, usize)> {
    let name = if rtype == RecordType::SRV { format!("_client._tcp.svc.ns.{ZONE}") } else { format!("svc.ns.{ZONE}") };
    let message = world.ask(view, &name, rtype);
    let cluster = |data: &RData| match data {
        RData::A(a) if a.octets()[0] == 10 => (0, usize::from(a.octets()[1])),
        RData::A(a) => (0, usize::from(a.octets()[3])),
        RData::SRV(srv) => (srv.priority, usize::from(srv.target.to_string().as_bytes()[1] - b'0')),
        other => panic!("{other}"),
    };
    message.answers.iter().map(|record| cluster(&record.data)).collect()
}

fn clusters(order: &[(u16, usize)]) -> Vec<usize> {
    order.iter().map(|(_, cluster)| *cluster).collect()
}

/// How often of `asked` answers each cluster comes first.
fn firsts(world: &mut World, view: View, asked: u32) -> [u32; 4] {
    let mut firsts = [0; 4];
    for _ in 0..asked {
        firsts[clusters(&order(world, view, RecordType::A))[0]] += 1;
    }
    firsts
}

#[test]
fn an_overloaded_candidate_goes_behind() {
    for plain in [true, false] {
        let mut world = world(Mode::Ordered, plain);
        load(&mut world, plain, [OVER, CALM, CALM, CALM]);
        for _ in 0..20 {
            let seen = clusters(&order(&mut world, C0, RecordType::A));
            assert_eq!((seen.len(), seen[2..].to_vec()), (4, vec![3, 0]), "the own cluster is the last one");
            let srv = order(&mut world, C0, RecordType::SRV);
            let priorities: BTreeMap<usize, u16> =
                srv.iter().map(|(priority, cluster)| (*cluster, *priority)).collect();
            assert_eq!(priorities, BTreeMap::from([(0, 20), (1, 0), (2, 0), (3, 10)]));
        }
        // Nearest is the nearest that is not overloaded.
        let mut world = self::world(Mode::Nearest { spare: 0 }, plain);
        load(&mut world, plain, [OVER, CALM, OVER, CALM]);
        assert_eq!(clusters(&order(&mut world, C0, RecordType::A)), [1]);
        load(&mut world, plain, [OVER, OVER, OVER, CALM]);
        assert_eq!(clusters(&order(&mut world, C0, RecordType::A)), [3]);
        // A pin is a pin.
        let message = world.ask(C0, &format!("c0.svc.ns.{ZONE}"), RecordType::A);
        assert_eq!(message.answers.len(), 1);
    }
}

#[test]
fn all_overloaded_changes_nothing() {
    for plain in [true, false] {
        let (mut calm, mut loaded) = (world(Mode::Ordered, plain), world(Mode::Ordered, plain));
        load(&mut loaded, plain, [OVER; 4]);
        for view in [View::External, C0] {
            for rtype in [RecordType::A, RecordType::SRV] {
                for _ in 0..20 {
                    let sorted = |world: &mut World| {
                        let mut order = order(world, view, rtype);
                        // Inside a band the order is by chance.
                        order.sort();
                        order
                    };
                    assert_eq!(sorted(&mut loaded), sorted(&mut calm));
                }
            }
        }
        assert_eq!(clusters(&order(&mut loaded, C0, RecordType::A))[0], 0);
        assert_eq!(clusters(&order(&mut loaded, C0, RecordType::A))[3], 3);
    }
}

#[test]
fn the_next_band_goes_first_in_that_share_of_the_answers() {
    const ASKED: u32 = 20_000;
    for (mode, size) in [(Mode::Ordered, 4), (Mode::Nearest { spare: 0 }, 1), (Mode::Single, 1)] {
        for plain in [true, false] {
            let mut world = world(mode, plain);
            load(&mut world, plain, [share_of(102), CALM, CALM, CALM]);
            let firsts = firsts(&mut world, C0, ASKED);
            // Two of five; six standard deviations are 416. In the next band there are two that are equal.
            assert!(firsts[0].abs_diff(ASKED * 3 / 5) < 416, "{firsts:?}");
            assert!(firsts[1].abs_diff(ASKED / 5) < 416 && firsts[2].abs_diff(ASKED / 5) < 416, "{firsts:?}");
            assert_eq!(firsts[3], 0);
            let sizes: Vec<usize> = (0..200).map(|_| order(&mut world, C0, RecordType::A).len()).collect();
            if matches!(mode, Mode::Nearest { .. }) {
                // One of the own cluster, or two of the next band.
                assert!(sizes.contains(&1) && sizes.contains(&2) && sizes.iter().all(|n| *n <= 2), "{sizes:?}");
            } else {
                assert!(sizes.iter().all(|n| *n == size), "{sizes:?}");
            }
            // By SRV in as many.
            let own_first = (0..ASKED / 4).filter(|_| {
                let srv = order(&mut world, C0, RecordType::SRV);
                srv.contains(&(0, 0))
            });
            let own_first = own_first.count() as u32;
            assert!(own_first.abs_diff(ASKED / 4 * 3 / 5) < 208, "{own_first}");
        }
    }
}

#[test]
fn inside_a_band_the_loaded_one_weighs_less() {
    const ASKED: u32 = 30_000;
    for plain in [true, false] {
        let mut world = world(Mode::Ordered, plain);
        // In the external view all are one band, and as one of it is not loaded it stays first.
        load(&mut world, plain, [share_of(128), CALM, share_of(255), CALM]);
        let seen = firsts(&mut world, View::External, ASKED);
        assert_eq!(seen[2], 0, "{seen:?}");
        // Weights of 100 and 50, or all equal; the first has half of its own.
        let expected = if plain { [1.0, 2.0, 0.0, 2.0] } else { [50.0, 100.0, 0.0, 50.0] };
        let total: f64 = expected.iter().sum();
        for (seen, expected) in seen.iter().zip(expected) {
            let expected = f64::from(ASKED) * expected / total;
            assert!((f64::from(*seen) - expected).abs() < 520.0, "{seen} instead of {expected}");
        }
    }
}

#[test]
fn a_clusters_own_load_changes_one_value() {
    for plain in [true, false] {
        let mut world = world(Mode::Ordered, plain);
        world.publisher.set_shedding(ClusterId(0), OVER);
        assert_eq!(clusters(&order(&mut world, C0, RecordType::A))[3], 0);
        // The higher of the two counts.
        load(&mut world, plain, [share_of(10), CALM, CALM, OVER]);
        assert_eq!(clusters(&order(&mut world, C0, RecordType::A))[2..], [0, 3]);
        world.publisher.set_shedding(ClusterId(1), OVER);
        world.publisher.set_shedding(ClusterId(0), CALM);
        load(&mut world, plain, [CALM; 4]);
        assert_eq!(clusters(&order(&mut world, C0, RecordType::A)), [0, 2, 3, 1]);
        world.publisher.set_shedding(ClusterId(1), CALM);
        assert_eq!(clusters(&order(&mut world, C0, RecordType::A))[3], 3);
    }
}

/// Clusters whose APIs say nothing any more come behind others that are as near, and behind nobody else.
#[test]
fn a_silent_cluster_comes_behind_its_equals() {
    for plain in [true, false] {
        let mut world = world(Mode::Ordered, plain);
        world.publisher.set_silent(ClusterId(1), true);
        for _ in 0..20 {
            assert_eq!(clusters(&order(&mut world, C0, RecordType::A)), [0, 2, 1, 3]);
            let srv = order(&mut world, C0, RecordType::SRV);
            assert_eq!(srv, [(0, 0), (10, 2), (12, 1), (20, 3)]);
            assert_eq!(clusters(&order(&mut world, View::External, RecordType::A))[3], 1);
        }
        // With load: the one that sheds nothing is in front, and what is overloaded is behind what is silent.
        load(&mut world, plain, [CALM, CALM, OVER, CALM]);
        assert_eq!(clusters(&order(&mut world, C0, RecordType::A)), [0, 1, 3, 2]);
        load(&mut world, plain, [OVER; 4]);
        assert_eq!(clusters(&order(&mut world, C0, RecordType::A)), [0, 2, 1, 3]);
        // Two that are silent are equals, and both are there.
        world.publisher.set_silent(ClusterId(2), true);
        load(&mut world, plain, [CALM; 4]);
        let seen: BTreeSet<usize> = (0..50).map(|_| clusters(&order(&mut world, C0, RecordType::A))[1]).collect();
        assert_eq!(seen, BTreeSet::from([1, 2]));
        assert!(order(&mut world, C0, RecordType::SRV).iter().all(|(priority, _)| [0, 12, 20].contains(priority)));
        for cluster in [1, 2] {
            world.publisher.set_silent(ClusterId(cluster), false);
        }
        let seen: BTreeSet<usize> = (0..50).map(|_| clusters(&order(&mut world, C0, RecordType::A))[1]).collect();
        assert_eq!(seen, BTreeSet::from([1, 2]));
        let srv: BTreeSet<u16> = order(&mut world, C0, RecordType::SRV).into_iter().map(|(at, _)| at).collect();
        assert_eq!(srv, BTreeSet::from([0, 10, 20]));
        // A membership that goes by the best band does not change.
        let mut world = self::world(Mode::Nearest { spare: 0 }, plain);
        world.publisher.set_silent(ClusterId(1), true);
        let of = |world: &mut World| clusters(&order(world, View::Internal(ClusterId(3)), RecordType::A)).len();
        assert_eq!(of(&mut world), 1);
        assert_eq!(clusters(&order(&mut world, View::External, RecordType::A)).len(), 4);
    }
}

fn shedding() -> impl Strategy<Value = Shedding> {
    (prop_oneof![Just(0u8), Just(255), any::<u8>()], any::<bool>())
        .prop_map(|(share, overloaded)| Shedding { share, overloaded })
}

proptest! {
    #![proptest_config(Cases { cases: 64, max_shrink_time: 15_000, ..Cases::default() })]

    /// Whatever the load, and whoever is silent: no candidate is lost, none comes that was not there, and what is NODATA stays so.
    #[test]
    fn neither_load_nor_silence_takes_anybody_away(
        mut federation in federations(),
        all in prop::collection::vec(prop::collection::vec(shedding(), 5), 4),
        whole in prop::collection::vec(shedding(), 5),
        silent in prop::collection::vec(any::<bool>(), 5),
    ) {
        federation.mode = Mode::Ordered;
        federation.max_answers = 255;
        federation.special.clear();
        let build = |loaded: bool| {
            let mut world = World::new(federation.config(), &federation.zone_file()).synced();
            for (n, (key, shares)) in federation.services.iter().enumerate() {
                let service = Federated { key: key.clone(), shares: shares.clone(), imports: vec![] };
                let shedding = |id: ClusterId| if loaded { all[n][id.index()] } else { CALM };
                world.publisher.publish_with(key, Some(&service), &signpost::table::Outlook { shedding: &shedding, ..signpost::table::Outlook::FAIR });
            }
            if loaded {
                for (id, whole) in (0..).map(ClusterId).zip(&whole[..federation.clusters.len()]) {
                    world.publisher.set_shedding(id, *whole);
                    world.publisher.set_silent(id, silent[id.index()]);
                }
            }
            world
        };
        let (mut calm, mut loaded) = (build(false), build(true));
        for view in federation.views() {
            for name in names(federation.clusters.len()) {
                for rtype in [RecordType::A, RecordType::AAAA] {
                    let set = |world: &mut World| {
                        let message = world.ask(view, &format!("{name}.{ZONE}"), rtype);
                        let address = |data: &RData| match data {
                            RData::A(a) => IpAddr::V4(a.0),
                            RData::AAAA(a) => IpAddr::V6(a.0),
                            other => panic!("{other}"),
                        };
                        let mut set: Vec<IpAddr> = message.answers.iter().map(|r| address(&r.data)).collect();
                        set.sort();
                        (message.metadata.response_code, message.metadata.truncation, set)
                    };
                    prop_assert_eq!(set(&mut loaded), set(&mut calm), "{} {} as {:?}", name, rtype, view);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(Cases { cases: 64, max_shrink_time: 15_000, ..Cases::default() })]

    /// Services that are like most are answered by a shorter way, which `World::ask` compares with the other one.
    #[test]
    fn the_short_way_weighs_loads_as_the_other_one(
        federation in plain_federations(),
        all in prop::collection::vec(prop::collection::vec(prop_oneof![Just(CALM), shedding()], 20), 4),
        whole in prop::collection::vec(prop_oneof![3 => Just(CALM), 1 => shedding()], 20),
        silent in prop_oneof![Just(vec![false; 20]), prop::collection::vec(any::<bool>(), 20)],
    ) {
        let mut world = World::new(federation.config(), &federation.zone_file()).synced();
        for (n, (key, shares)) in federation.services.iter().enumerate() {
            let service = Federated { key: key.clone(), shares: shares.clone(), imports: vec![] };
            let shedding = |id: ClusterId| all[n][id.index()];
            let outlook = signpost::table::Outlook { shedding: &shedding, ..signpost::table::Outlook::FAIR };
            world.publisher.publish_with(key, Some(&service), &outlook);
        }
        for (id, whole) in (0..).map(ClusterId).zip(&whole[..federation.clusters.len()]) {
            world.publisher.set_shedding(id, *whole);
            world.publisher.set_silent(id, silent[id.index()]);
        }
        let mut answered = 0;
        for view in federation.views() {
            for key in federation.services.keys() {
                let name = format!("{}.{}.{ZONE}", key.name, key.namespace);
                for _ in 0..4 {
                    answered += world.ask(view, &name, RecordType::A).answers.len();
                    world.ask(view, &format!("_client._tcp.{name}"), RecordType::SRV);
                    world.ask(view, &name, RecordType::AAAA);
                }
            }
        }
        prop_assert!(answered > 0 || federation.services.is_empty(), "nothing was answered");
    }
}
