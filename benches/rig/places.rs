//! Where clients are: prefixes and their regions, for servers that answer by place.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use signpost::table::Random;

use super::questions::{CLUSTERS, SUBNETS};

const EACH: usize = CLUSTERS as usize;
/// Of the clusters, one for each.
pub const REGIONS: [&str; EACH] = ["us-east-1", "eu-west-1", "ap-northeast-1"];
/// Of each region, all clusters as Signpost orders them by distance.
const ORDERS: [[u32; EACH]; EACH] = [[0, 1, 2], [1, 0, 2], [2, 1, 0]];
/// Where this machine is, and its region.
const HERE: (&str, usize) = ("127.0.0.0/8", 0);
/// Other prefixes are drawn from so many, of which the first begins with 0.1.
const OTHERS: u32 = 100 << 16;
/// Prefixes that are drawn soon, since most draws are new ones.
pub const MOST: u32 = 1_000_000;

/// What it is to a server that clients are somewhere.
pub struct Place {
    pub prefix: String,
    pub region: &'static str,
    /// All clusters, the nearest first.
    pub order: [u32; EACH],
}

/// This machine, each client subnet of the mix and, to have `count` of them, prefixes of others.
pub fn places(count: u32) -> impl Iterator<Item = Place> {
    let mut random = Random::new(5);
    let mut prefixes: BTreeSet<u32> = (0..1 << 16).map(|n| SUBNETS << 16 | n).collect();
    while prefixes.len() < count.min(MOST) as usize {
        prefixes.insert((1 << 16) + random.below(OTHERS));
    }
    let place = |prefix, region: usize| Place { prefix, region: REGIONS[region], order: ORDERS[region] };
    let each = move |prefix: u32| place(format!("{}/24", Ipv4Addr::from_bits(prefix << 8)), region(prefix));
    [place(HERE.0.to_owned(), HERE.1)].into_iter().chain(prefixes.into_iter().map(each))
}

/// The cluster that is nearest to this machine, or to a client subnet.
pub fn nearest(subnet: Option<Ipv4Addr>) -> u32 {
    ORDERS[subnet.map_or(HERE.1, |subnet| region(subnet.to_bits() >> 8))][0]
}

/// Of a prefix of 24 bits: by chance, and always the same.
fn region(prefix: u32) -> usize {
    Random::new(prefix.into()).below(CLUSTERS) as usize
}
