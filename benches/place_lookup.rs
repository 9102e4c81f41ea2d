//! What it costs to know where clients are: reading a database of 500,000 networks, and finding an address in it.
//!
//! `cargo bench --bench place_lookup`; after `--`: `--quick` for 50,000 networks.

#[path = "../tests/support/mmdb.rs"]
mod mmdb;
#[path = "../tests/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use signpost::location::{self, Geography, Known, Site, Spot, read_database};
use signpost::model::{Region, View};
use signpost::table::{Atlas, Origin, Random, Reader};
use support::World;

const NETWORKS: usize = 500_000;
const QUICK: usize = 50_000;
/// Different places: about as many as a city database has.
const CITIES: usize = 20_000;
const REGIONS: [&str; 8] = [
    "us-east-1",
    "us-west-2",
    "sa-east-1",
    "eu-west-1",
    "eu-central-1",
    "ap-south-1",
    "ap-northeast-1",
    "ap-southeast-2",
];
/// Look-ups that a worker has under way at once: a batch's.
const BATCH: usize = 32;
/// Addresses that are looked up in one round, and rounds, of which the fastest counts.
const LOOKUPS: usize = 1 << 20;
const ROUNDS: usize = 7;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let count = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => NETWORKS,
        ["--quick"] => QUICK,
        _ => {
            eprintln!("place_lookup: --quick, or nothing");
            return ExitCode::FAILURE;
        }
    };
    let mut random = Random::new(1);
    let networks = networks(count, &mut random);
    let cities: Vec<mmdb::Value> = (0..CITIES).map(|_| city(&mut random)).collect();
    let file = mmdb::write(&cities, &networks);

    let regions: Vec<Region> = REGIONS.iter().map(|name| Region((*name).into())).collect();
    let sites: Vec<Site> =
        regions.iter().map(|region| Site { region: Some(region), availability_zones: &[] }).collect();
    let (coordinates, distances) = (BTreeMap::new(), BTreeMap::new());
    let world = location::World { coordinates: &coordinates, distances: &distances };
    let place = |known: Known| Some(Spot { coordinates: known.coordinates, ..Spot::default() });

    let start = Instant::now();
    let places = match read_database(&file, place) {
        Ok(places) => places,
        Err(error) => {
            eprintln!("place_lookup: {error}");
            return ExitCode::FAILURE;
        }
    };
    let read = start.elapsed();
    let found = places.len();
    let layer = places.clone();
    let start = Instant::now();
    let geography = Geography::build(&sites, &world, places);
    let built = start.elapsed();
    println!("{count} networks ({found} leaves in a file of {:.1} MB), {CITIES} places", file.len() as f64 / 1e6);
    println!("read the file:                {:>7.0} ms", milliseconds(read));
    println!("build:                        {:>7.0} ms", milliseconds(built));
    println!("orders of 8 clusters:         {:>7}", geography.orderings().count());
    println!("memory:                       {:>7.1} MB", geography.octets() as f64 / 1e6);

    // The same as a worker has it.
    let clusters = REGIONS.iter().map(|region| support::cluster(region, region)).collect();
    let mut world = World::new(support::config(clusters), "@ SOA ns1 hostmaster 1 3600 600 86400 180\n@ NS ns1\n");
    world.publisher.set_atlas(Atlas::new(&world.config, Vec::new(), vec![layer]));

    let of_networks: Vec<IpAddr> = (0..LOOKUPS).map(|_| inside(&networks, &mut random)).collect();
    let v4: Vec<IpAddr> = of_networks.iter().copied().filter(IpAddr::is_ipv4).collect();
    let v6: Vec<IpAddr> = of_networks.iter().copied().filter(IpAddr::is_ipv6).collect();
    println!("ns a look-up                    one by one      {BATCH} under way, as a worker has them");
    println!("                         by address  subnet  by address  subnet");
    for (what, addresses) in [("all", &of_networks), ("IPv4", &v4), ("IPv6", &v6)] {
        let [exact, subnet] =
            [false, true].map(|subnet| fastest(addresses, |round| one_by_one(&geography, round, subnet)));
        let [exact_in_batches, subnet_in_batches] =
            [false, true].map(|subnet| fastest(addresses, |round| in_batches(&world.reader, round, subnet)));
        println!("look-up, {what:<17} {exact:>9.1} {subnet:>7.1} {exact_in_batches:>11.1} {subnet_in_batches:>7.1}");
    }
    ExitCode::SUCCESS
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Nanoseconds of a look-up. `look_up`: of all addresses; gives what cannot be had without that.
fn fastest(addresses: &[IpAddr], look_up: impl Fn(&[IpAddr]) -> u64) -> f64 {
    let round = |_| {
        let start = Instant::now();
        black_box(look_up(black_box(addresses)));
        start.elapsed().as_nanos() as f64 / addresses.len() as f64
    };
    (0..ROUNDS).map(round).fold(f64::INFINITY, f64::min)
}

fn one_by_one(geography: &Geography, addresses: &[IpAddr], subnet: bool) -> u64 {
    let one = |address| {
        let (ordering, scope) = geography.look_up(address, subnet, None);
        u64::from(ordering.0) + u64::from(scope)
    };
    addresses.iter().map(one).sum()
}

/// In the three steps of a worker, each for all addresses of a batch: what a look-up reads is on its way while others are
/// looked at.
fn in_batches(reader: &Reader, addresses: &[IpAddr], subnet: bool) -> u64 {
    let mut begun = [None; BATCH];
    let mut sum = 0;
    for batch in addresses.chunks(BATCH) {
        reader.with(|table| {
            for address in batch {
                table.prefetch_place(Origin::new(address, subnet));
            }
            for (begun, address) in begun.iter_mut().zip(batch) {
                *begun = table.prefetch_order(Origin::new(address, subnet));
            }
            for (begun, address) in begun.iter().zip(batch) {
                let vantage = table.vantage(View::External, Origin::new(address, subnet).with(*begun));
                let found = vantage.reach().as_ptr().addr() as u64;
                sum = u64::wrapping_add(sum, found + u64::from(vantage.scope()));
            }
        });
    }
    sum
}

/// Four of five are IPv4, nearly half of these /24 as in the Internet's routing table. IPv6 ones are of the five registries'
/// blocks.
fn networks(count: usize, random: &mut Random) -> Vec<(IpNet, usize)> {
    let mut networks = BTreeMap::new();
    while networks.len() < count {
        let net = if random.below(5) < 4 {
            let length = match random.below(10) {
                0..4 => 24,
                4..6 => 23,
                6..8 => 22,
                _ => 12 + random.below(10) as u8,
            };
            let first = (1 << 24) + random.below(0xDF00_0000);
            IpNet::new(Ipv4Addr::from_bits(first).into(), length)
        } else {
            let block = [0x240_u128, 0x260, 0x280, 0x2a0, 0x2c0][random.below(5) as usize];
            let rest = u128::from(random.draw()) << 52;
            IpNet::new(Ipv6Addr::from_bits(block << 116 | rest).into(), 29 + random.below(20) as u8)
        };
        if let Ok(net) = net {
            networks.insert(net.trunc(), random.below(CITIES as u32) as usize);
        }
    }
    networks.into_iter().collect()
}

fn inside(networks: &[(IpNet, usize)], random: &mut Random) -> IpAddr {
    let (net, _) = networks[random.below(networks.len() as u32) as usize];
    match (net.network(), net.broadcast()) {
        (IpAddr::V4(first), IpAddr::V4(last)) => {
            let mask = last.to_bits() ^ first.to_bits();
            Ipv4Addr::from_bits(first.to_bits() | random.draw() as u32 & mask).into()
        }
        (IpAddr::V6(first), IpAddr::V6(last)) => {
            let mask = last.to_bits() ^ first.to_bits();
            let bits = u128::from(random.draw()) << 64 | u128::from(random.draw());
            Ipv6Addr::from_bits(first.to_bits() | bits & mask).into()
        }
        _ => net.addr(),
    }
}

fn city(random: &mut Random) -> mmdb::Value {
    let degrees = |random: &mut Random, most: u32| f64::from(random.below(2 * most * 100)) / 100.0 - f64::from(most);
    // Where people live.
    let latitude = degrees(random, 50) + 10.0;
    mmdb::city(latitude, degrees(random, 180), "XX", "EU")
}
