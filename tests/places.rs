//! What holds of answers by place, whatever the places: scopes of client subnets (RFC 7871), and the order of clusters.

mod support;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::op::Message;
use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};
use hickory_proto::rr::{RData, RecordType};
use ipnet::IpNet;
use proptest::prelude::*;
use proptest::test_runner::Config as Cases;
use signpost::answer::Transport;
use signpost::config::{Cluster, Config, Location, Mode, Places};
use signpost::location::{Coordinates, Site, Spot, World as Earth, tiers};
use signpost::model::{AvailabilityZone, Region, View};
use signpost::table::Atlas;
use signpost::zonefile;
use support::ask::Ask;
use support::*;

/// Those of clusters and of clients; of two of them nothing is known.
const REGIONS: [&str; 6] = ["us-east-1", "us-west-2", "eu-west-1", "ap-northeast-1", "rack-1", "rack-2"];

fn region(n: usize) -> Region {
    Region(REGIONS[n].into())
}

/// Prefixes in a small space, so that they meet.
fn prefix() -> impl Strategy<Value = IpNet> {
    let v4 = (any::<u16>(), 14u8..=27)
        .prop_map(|(host, bits)| IpNet::new(Ipv4Addr::from_bits(0x0a00_0000 | u32::from(host) << 2).into(), bits));
    let v6 = (any::<u16>(), 38u8..=60).prop_map(|(host, bits)| {
        IpNet::new(Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(host) << 68).into(), bits)
    });
    prop_oneof![v4, v6].prop_map(|net| net.expect("a prefix").trunc())
}

/// As resolvers send them, from the same space.
fn subnet() -> impl Strategy<Value = IpNet> {
    let v4 = (any::<u16>(), 12u8..=32)
        .prop_map(|(host, bits)| IpNet::new(Ipv4Addr::from_bits(0x0a00_0000 | u32::from(host) << 2).into(), bits));
    let v6 = (any::<u16>(), 32u8..=64).prop_map(|(host, bits)| {
        IpNet::new(Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(host) << 68).into(), bits)
    });
    prop_oneof![4 => v4, 2 => v6].prop_map(|net| net.expect("a prefix").trunc())
}

#[derive(Debug, Clone)]
struct Given {
    /// Region and availability zone of each cluster.
    clusters: Vec<(usize, usize)>,
    places: Vec<(IpNet, usize, usize)>,
    client_cidr: IpNet,
    nearest: bool,
}

fn given() -> impl Strategy<Value = Given> {
    let clusters = prop::collection::vec((0..REGIONS.len(), 0..3usize), 1..6);
    let places = prop::collection::vec((prefix(), 0..REGIONS.len(), 0..3usize), 0..12);
    (clusters, places, prefix(), any::<bool>()).prop_map(|(clusters, places, client_cidr, nearest)| Given {
        clusters,
        places,
        client_cidr,
        nearest,
    })
}

impl Given {
    fn config(&self) -> Config {
        let zone = |n: usize| AvailabilityZone(format!("az-{n}").into());
        let clusters = self.clusters.iter().enumerate().map(|(n, (region, az))| Cluster {
            availability_zones: vec![zone(*az)],
            client_cidrs: if n == 0 { vec![self.client_cidr] } else { vec![] },
            ..cluster(&format!("c{n}"), REGIONS[*region])
        });
        let places = self.places.iter().map(|(net, at, az)| Places::Inline {
            region: region(*at),
            availability_zone: Some(zone(*az)),
            cidrs: vec![*net],
        });
        let location = Location { places: places.collect(), ..Location::default() };
        let mut config = Config { location, ..config(clusters.collect()) };
        config.zones[0].external_mode = if self.nearest { Mode::Nearest { spare: 0 } } else { Mode::Ordered };
        config
    }

    fn world(&self) -> World {
        let mut world = World::new(self.config(), ZONE_FILE).synced();
        let share = |n: usize| load_balancer(n as u16, &format!("10.{n}.0.1"), &[&format!("104.0.0.{n}")]);
        world.publish(key("ns", "svc"), (0..self.clusters.len()).map(share).collect());
        world
    }
}

fn with_subnet(ask: Ask, subnet: IpNet) -> Ask {
    let (family, octets) = match subnet.network() {
        IpAddr::V4(a) => (1, a.octets().to_vec()),
        IpAddr::V6(a) => (2, a.octets().to_vec()),
    };
    let bits = subnet.prefix_len();
    let option = [&[0, family, bits, 0], &octets[..usize::from(bits).div_ceil(8)]].concat();
    ask.edns(1232).option(8, &option)
}

/// The scope, and what does not depend on chance: the order of the clusters by SRV, and which addresses there are.
fn asked(world: &mut World, subnet: IpNet) -> (u8, Vec<String>) {
    let mut parts = Vec::new();
    let mut scopes = Vec::new();
    for (name, rtype) in [("_client._tcp.svc.ns", 33), ("svc.ns", 1)] {
        let ask = with_subnet(Ask::new(&format!("{name}.{ZONE}"), rtype), subnet);
        let message = ask.send(world, View::External);
        scopes.push(scope(&message, subnet));
        let mut texts = texts(&message.answers);
        texts.sort();
        parts.extend(texts);
    }
    assert_eq!(scopes[0], scopes[1], "the scopes of A and SRV");
    (scopes[0], parts)
}

/// Of the option in the answer, which repeats the subnet.
fn scope(message: &Message, subnet: IpNet) -> u8 {
    match message.edns.as_ref().and_then(|opt| opt.option(EdnsCode::Subnet)) {
        Some(EdnsOption::Subnet(given)) => {
            assert_eq!((given.addr(), given.source_prefix()), (subnet.network(), subnet.prefix_len()));
            given.scope_prefix()
        }
        other => panic!("no client subnet but {other:?}"),
    }
}

fn random_address(net: IpNet, bits: u128) -> IpAddr {
    match (net.network(), net.broadcast()) {
        (IpAddr::V4(first), IpAddr::V4(last)) => {
            let size = u64::from(last.to_bits() - first.to_bits()) + 1;
            Ipv4Addr::from_bits(first.to_bits() + (bits as u64 % size) as u32).into()
        }
        (IpAddr::V6(first), IpAddr::V6(last)) => {
            let mask = last.to_bits() ^ first.to_bits();
            Ipv6Addr::from_bits(first.to_bits() | bits & mask).into()
        }
        _ => unreachable!("both are of one family"),
    }
}

proptest! {
    // Twelve subnets each: more than 10,000.
    #![proptest_config(Cases::with_cases(900))]
    #[test]
    fn scopes_never_overlap_and_all_in_a_scope_get_the_same(
        given in given(),
        subnets in prop::collection::vec((subnet(), any::<[u128; 3]>()), 12),
    ) {
        let mut world = given.world();
        let mut scopes: BTreeMap<IpNet, Vec<String>> = BTreeMap::new();
        for (subnet, random) in subnets {
            let (scope, said) = asked(&mut world, subnet);
            let block = IpNet::new(subnet.network(), scope).unwrap().trunc();
            let (longest, widest) = if block.addr().is_ipv4() { (24, 32) } else { (56, 128) };
            prop_assert!(scope <= longest, "{}", block);
            for (other, others) in &scopes {
                let apart = !block.contains(other) && !other.contains(&block);
                prop_assert!(apart || block == *other && said == *others, "{} and {}", block, other);
            }
            for bits in random {
                let inside = IpNet::new(random_address(block, bits), widest).unwrap();
                prop_assert_eq!(asked(&mut world, inside), (scope, said.clone()), "{} in {}", inside, block);
            }
            scopes.insert(block, said);
        }
    }

    /// Who asks for itself gets the order of the longest prefix that it is in, to the last bit.
    #[test]
    fn a_client_gets_the_order_of_its_place(given in given(), clients in prop::collection::vec(subnet(), 4)) {
        let mut world = given.world();
        let config = given.config();
        let clusters = &config.clusters;
        let sites: Vec<Site> = clusters.iter().map(|c| Site {
            region: c.region.as_ref(),
            availability_zones: &c.availability_zones,
        }).collect();
        let earth = Earth { coordinates: &BTreeMap::new(), distances: &BTreeMap::new() };
        for client in clients.iter().map(|net| net.network()) {
            let matching = given.places.iter().filter(|(net, ..)| net.contains(&client));
            // Of equal prefixes the last one counts.
            let place = matching.max_by_key(|(net, ..)| net.prefix_len());
            let spot = match place {
                Some((_, at, az)) => Spot {
                    region: Some(region(*at)),
                    availability_zones: vec![AvailabilityZone(format!("az-{az}").into())],
                    coordinates: None,
                },
                None if given.client_cidr.contains(&client) => Spot {
                    region: clusters[0].region.clone(),
                    availability_zones: clusters[0].availability_zones.clone(),
                    coordinates: None,
                },
                None => Spot::default(),
            };
            let tiers = tiers(&spot, &sites, &earth);
            let ask = Ask::new(&format!("_client._tcp.svc.ns.{ZONE}"), 33).edns(1232).to_vec();
            let (answer, _) = world.exchange_with(client, View::External, Transport::Udp, &ask).unwrap();
            let message = Message::from_vec(&answer).unwrap();
            prop_assert!(message.edns.as_ref().unwrap().option(EdnsCode::Subnet).is_none());
            let priorities: BTreeMap<String, u16> = message.answers.iter().map(|record| match &record.data {
                RData::SRV(srv) => (srv.target.to_string(), srv.priority),
                other => panic!("{other}"),
            }).collect();
            prop_assert_eq!(priorities.len(), tiers.len());
            let priority = |n: usize| priorities[&format!("c{n}.svc.ns.{ZONE}.")];
            for (one, other) in (0..tiers.len()).flat_map(|a| (0..tiers.len()).map(move |b| (a, b))) {
                prop_assert_eq!(priority(one).cmp(&priority(other)), tiers[one].cmp(&tiers[other]));
            }
        }
    }

    #[test]
    fn a_cluster_that_goes_changes_no_order_among_the_others(
        given in given(),
        from in (0..REGIONS.len(), any::<bool>(), -90.0..90.0f64, -180.0..180.0f64),
        gone in any::<prop::sample::Index>(),
    ) {
        let config = given.config();
        let sites: Vec<Site> = config.clusters.iter().map(|c| Site {
            region: c.region.as_ref(),
            availability_zones: &c.availability_zones,
        }).collect();
        let earth = Earth { coordinates: &BTreeMap::new(), distances: &BTreeMap::new() };
        let (at, has_region, latitude, longitude) = from;
        let spot = Spot {
            region: has_region.then(|| region(at)),
            availability_zones: vec![AvailabilityZone("az-1".into())],
            coordinates: (!has_region).then(|| Coordinates::new(latitude, longitude).unwrap()),
        };
        let all = tiers(&spot, &sites, &earth);
        let gone = gone.index(sites.len());
        let without = |list: &[u8]| -> Vec<u8> { [&list[..gone], &list[gone + 1..]].concat() };
        let mut others = sites.clone();
        others.remove(gone);
        let (before, after) = (without(&all), tiers(&spot, &others, &earth));
        for (one, other) in (0..after.len()).flat_map(|a| (0..after.len()).map(move |b| (a, b))) {
            prop_assert_eq!(before[one].cmp(&before[other]), after[one].cmp(&after[other]));
        }
        // One region is one band but for its availability zones, and never behind another one.
        if let Some(here) = &spot.region {
            for (site, tier) in sites.iter().zip(&all) {
                prop_assert_eq!(site.region == Some(here), *tier < 3);
            }
        }
    }
}

/// An answer that is nobody's in particular holds for everybody (RFC 7871 section 7.2.1).
#[test]
fn what_does_not_go_by_place_has_scope_zero() {
    let place =
        Places::Inline { region: region(0), availability_zone: None, cidrs: vec!["10.0.0.0/16".parse().unwrap()] };
    let location = Location { places: vec![place], ..Location::default() };
    let clusters = vec![cluster("c0", REGIONS[0]), cluster("c1", REGIONS[2])];
    let mut world = World::new(Config { location, ..config(clusters) }, ZONE_FILE).synced();
    let shares = vec![load_balancer(0, "10.0.0.1", &["104.0.0.1"]), load_balancer(1, "10.1.0.1", &["104.0.1.1"])];
    world.publish(key("ns", "svc"), shares);
    let subnet: IpNet = "10.0.3.0/24".parse().unwrap();
    for (name, rtype, expected) in [
        ("svc.ns", RecordType::A, 16),
        ("svc.ns", RecordType::SRV, 16),
        ("svc.ns", RecordType::ANY, 16),
        ("_client._tcp.svc.ns", RecordType::SRV, 16),
        ("svc.ns", RecordType::AAAA, 0),
        ("svc.ns", RecordType::TXT, 0),
        ("_client._tcp.svc.ns", RecordType::A, 0),
        ("c0.svc.ns", RecordType::A, 0),
        ("none.ns", RecordType::A, 0),
        ("ns", RecordType::A, 0),
        ("ns1", RecordType::A, 0),
        ("", RecordType::SOA, 0),
    ] {
        let name = format!("{name}.{ZONE}");
        let ask = with_subnet(Ask::new(name.trim_start_matches('.'), rtype.into()), subnet);
        for ask in [ask.clone(), ask.tcp()] {
            let message = ask.send(&mut world, View::External);
            assert_eq!(scope(&message, subnet), expected, "{name} {rtype}");
        }
    }
}

/// Who is in the midst of a batch goes on with what it has, and no worker has to free it.
#[test]
fn what_is_replaced_is_kept_while_it_is_read() {
    let mut world = World::new(config(vec![cluster("c0", REGIONS[0])]), ZONE_FILE).synced();
    let atlas = |world: &World| Atlas::new(&world.config, Vec::new(), Vec::new());
    let cartographer = world.publisher.cartographer();
    let retired = world.reader.with(|_| {
        let retired = cartographer.publish(atlas(&world));
        assert!(!retired.is_unused());
        retired
    });
    assert!(retired.is_unused());

    let (config, reader) = (world.config.clone(), world.reader.clone());
    let zones = [zonefile::parse(ZONE_FILE, &config.zones[0].name, "test.zone".as_ref()).unwrap()];
    let retired = reader.with(|_| {
        let retired = world.publisher.replace(config, &zones, |_| {}, |_| true);
        assert!(!retired.is_unused());
        retired
    });
    assert!(retired.is_unused());
}
