//! `sessionAffinity: ClientIP`: which of equal addresses a client gets first does not go by chance.

mod support;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use hickory_proto::op::Message;
use hickory_proto::rr::RecordType;
use signpost::answer::Transport;
use signpost::model::{Share, View, Wishes};
use support::ask::Ask;
use support::*;

const SERVICE: &str = "svc.ns.example.com";

/// A service in clusters of one region; `weights` of those that have it.
fn world(weights: &[Option<u16>], seed: u64) -> World {
    let config = config((0..weights.len()).map(|i| cluster(&format!("c{i}"), "r")).collect());
    let mut world = World::new(config, ZONE_FILE).synced();
    world.responder = signpost::answer::Responder::new(seed);
    world.long_way = signpost::answer::Responder::new(seed).by_the_long_way();
    let share = |(i, weight): (usize, &Option<u16>)| {
        let wishes = Wishes { weight: *weight, ..Wishes::default() };
        // One cluster that asks for it is enough.
        let share = load_balancer(i as u16, &format!("10.0.0.{i}"), &[&format!("104.0.0.{i}")]);
        Some(Share { sticky: i == 1, wishes, ..share }).filter(|_| weight.is_some())
    };
    world.publish(key("ns", "svc"), weights.iter().enumerate().filter_map(share).collect());
    world
}

/// The last numbers of the addresses, in order.
fn order(world: &mut World, client: IpAddr) -> Vec<u8> {
    let query = query(SERVICE, RecordType::A, true);
    let (answer, _) = world.exchange_with(client, View::External, Transport::Udp, &query).expect("an answer");
    numbers(&Message::from_vec(&answer).expect("it parses"))
}

fn numbers(message: &Message) -> Vec<u8> {
    let address =
        |record: &hickory_proto::rr::Record| record.data.to_string().rsplit('.').next().unwrap().parse().unwrap();
    message.answers.iter().map(address).collect()
}

fn client(n: u32) -> IpAddr {
    Ipv4Addr::from_bits(0xC600_0000 | n << 8 | (n % 250)).into()
}

#[test]
fn a_client_stays_with_what_it_was_sent_to() {
    let all = [Some(100); 5];
    let (mut one, mut other) = (world(&all, 1), world(&all, 2));
    let mut without = world(&[Some(100), Some(100), Some(100), None, Some(100)], 3);
    let mut firsts = BTreeMap::new();
    for n in 0..1_000 {
        let first = order(&mut one, client(n));
        assert_eq!(first.len(), 5);
        // Again, from another instance, and from elsewhere in the same network.
        assert_eq!(order(&mut one, client(n)), first);
        assert_eq!(order(&mut other, client(n)), first);
        let IpAddr::V4(address) = client(n) else { unreachable!() };
        assert_eq!(order(&mut one, Ipv4Addr::from_bits(address.to_bits() ^ 1).into()), first);
        assert_eq!(order(&mut one, address.to_ipv6_mapped().into()), first);
        // Whoever goes moves nobody else.
        let rest: Vec<u8> = first.iter().copied().filter(|n| *n != 3).collect();
        assert_eq!(order(&mut without, client(n)), rest);
        *firsts.entry(first[0]).or_insert(0) += 1;
    }
    // Five standard deviations of a binomial with n = 1,000 and p = 1/5 are 63.
    assert!(firsts.len() == 5 && firsts.values().all(|count| (137..263).contains(count)), "{firsts:?}");
}

#[test]
fn by_weight_and_by_client_subnet() {
    let weights = [Some(100), Some(200), Some(300)];
    let mut world = world(&weights, 1);
    let mut firsts = [0; 3];
    for n in 0..3_000 {
        firsts[usize::from(order(&mut world, client(n))[0])] += 1;
    }
    // Five standard deviations are at most 137.
    for (count, expected) in firsts.iter().zip([500, 1_000, 1_500]) {
        assert!(i32::abs(*count - expected) < 137, "{firsts:?}");
    }
    // A resolver that tells whom it asks for.
    for n in 0..20 {
        let IpAddr::V4(address) = client(n) else { unreachable!() };
        let [a, b, c, _] = address.octets();
        let ask = Ask::new(SERVICE, 1).edns(1232).option(8, &[0, 1, 24, 0, a, b, c]);
        assert_eq!(numbers(&ask.send(&mut world, View::External)), order(&mut world, client(n)));
    }
}
