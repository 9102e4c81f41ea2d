//! Places → the order of the clusters as seen from there.
//!
//! What an answer depends on is not the place but the order. There are few of these, whatever the number of places, and
//! places with one order are one to everything that follows, client-subnet scopes among them.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;

use super::distance::Coordinates;
use super::prefixes::{Begun, PrefixMap, SUBNET_BITS};
use super::regions::coordinates;
use crate::model::{AvailabilityZone, Region};

/// Tiers that a client in a region can tell apart; see [`tiers`].
pub const SAME_AVAILABILITY_ZONE: u8 = 1;
pub const SAME_REGION: u8 = 2;
pub const ELSEWHERE: u8 = 3;
/// The last but one that is given by distance: what is farther is one tier, and an unknown distance the one behind.
const FARTHEST: u8 = 62;

/// Where something is, as far as that is known.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Spot {
    pub region: Option<Region>,
    pub availability_zones: Vec<AvailabilityZone>,
    /// Instead of the region's.
    pub coordinates: Option<Coordinates>,
}

/// Where a cluster is.
#[derive(Debug, Clone, Copy)]
pub struct Site<'a> {
    pub region: Option<&'a Region>,
    pub availability_zones: &'a [AvailabilityZone],
}

/// What the operator says of regions, over what is built in.
#[derive(Debug, Clone, Copy)]
pub struct World<'a> {
    pub coordinates: &'a BTreeMap<Region, Coordinates>,
    /// Kilometres, by two regions in order.
    pub distances: &'a BTreeMap<(Region, Region), u32>,
}

impl World<'_> {
    fn coordinates(&self, region: &Region) -> Option<Coordinates> {
        self.coordinates.get(region).copied().or_else(|| coordinates(&region.0))
    }

    /// Kilometres; `None`: nobody knows.
    pub fn distance(&self, spot: &Spot, region: &Region) -> Option<u32> {
        let said = spot.region.as_ref().and_then(|here| {
            let (one, other) = if here < region { (here, region) } else { (region, here) };
            self.distances.get(&(one.clone(), other.clone())).copied()
        });
        said.or_else(|| {
            let here = spot.coordinates.or_else(|| self.coordinates(spot.region.as_ref()?))?;
            Some(here.kilometers_to(self.coordinates(region)?))
        })
    }
}

/// How near each site is to a spot, the lower the nearer: [`SAME_AVAILABILITY_ZONE`], [`SAME_REGION`], and from
/// [`ELSEWHERE`] on other regions by distance; those whose distance is unknown are one tier behind them. Equally far is one tier.
pub fn tiers(spot: &Spot, sites: &[Site<'_>], world: &World<'_>) -> Box<[u8]> {
    #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    enum Near {
        Tier(u8),
        Kilometers(u32),
        Unknown,
    }
    let near = |site: &Site<'_>| match site.region {
        Some(region) if spot.region.as_ref() == Some(region) => {
            let shared = spot.availability_zones.iter().any(|zone| site.availability_zones.contains(zone));
            Near::Tier(if shared { SAME_AVAILABILITY_ZONE } else { SAME_REGION })
        }
        Some(region) => world.distance(spot, region).map_or(Near::Unknown, Near::Kilometers),
        None => Near::Unknown,
    };
    let near: Vec<Near> = sites.iter().map(near).collect();
    let mut steps: Vec<Near> = near.iter().filter(|near| matches!(near, Near::Kilometers(_))).copied().collect();
    steps.sort_unstable();
    steps.dedup();
    let step = |n: usize| u8::try_from(n).unwrap_or(u8::MAX).saturating_add(ELSEWHERE).min(FARTHEST);
    let tier = |near: &Near| match near {
        Near::Tier(tier) => *tier,
        Near::Kilometers(_) => step(steps.partition_point(|step| step < near)),
        Near::Unknown if steps.is_empty() => ELSEWHERE,
        Near::Unknown => step(steps.len() - 1) + 1,
    };
    near.iter().map(tier).collect()
}

/// A position in [`Geography::orderings`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct OrderingId(pub u16);

/// Of a client whose place is unknown: all clusters are equal.
pub const UNKNOWN: OrderingId = OrderingId(0);

/// Where clients are → in which order they want the clusters.
#[derive(Debug, Clone, PartialEq)]
pub struct Geography {
    /// Tier by cluster, from [`ELSEWHERE`] on and without gaps: only the order counts.
    orderings: Vec<Box<[u8]>>,
    /// By the client's own address.
    exact: PrefixMap,
    /// By its subnet; `None`: it is the same.
    subnets: Option<PrefixMap>,
    prefix_count: usize,
    /// Prefixes that were left out, because there are more orderings than numbers.
    left_out: usize,
}

impl Geography {
    /// `places`: of the prefixes that hold an address the longest counts, and of equal ones the last.
    pub fn build(sites: &[Site<'_>], world: &World<'_>, places: impl IntoIterator<Item = (IpNet, Spot)>) -> Geography {
        let mut interner = Interner::new(sites.len());
        let mut numbered = Vec::new();
        let mut left_out = 0;
        for (net, spot) in places {
            match interner.ordering(&spot, sites, world) {
                Some(ordering) => numbered.push((net, ordering)),
                None => left_out += 1,
            }
        }
        let longer = |(net, _): &(IpNet, u16)| match net {
            IpNet::V4(net) => net.prefix_len() > SUBNET_BITS.0,
            IpNet::V6(net) => net.prefix_len() > SUBNET_BITS.1,
        };
        let clamped = numbered.iter().any(longer).then(|| PrefixMap::new(numbered.iter().copied(), SUBNET_BITS));
        let prefix_count = numbered.len();
        let exact = PrefixMap::new(numbered, (32, 128));
        Geography { orderings: interner.orderings, exact, subnets: clamped, prefix_count, left_out }
    }

    /// For each, the tier of each site.
    pub fn orderings(&self) -> impl Iterator<Item = &[u8]> {
        self.orderings.iter().map(|tiers| &**tiers)
    }

    /// Whether there are places that are told apart.
    #[inline]
    pub fn depends_on_place(&self) -> bool {
        self.orderings.len() > 1
    }

    /// What [`look_up`](Geography::look_up) looks at.
    #[inline]
    pub fn prefixes(&self, subnet: bool) -> &PrefixMap {
        match &self.subnets {
            Some(subnets) if subnet => subnets,
            _ => &self.exact,
        }
    }

    /// For the client at `address`, or for one whose subnet begins there; and for how many bits of the subnet it is the same, the
    /// SCOPE PREFIX-LENGTH of RFC 7871. The blocks of that length around all subnets never overlap: two are equal or apart.
    /// `begun`: what [`PrefixMap::second_read`] found there for this address.
    #[inline(always)]
    pub fn look_up(&self, address: &IpAddr, subnet: bool, begun: Option<Begun>) -> (OrderingId, u8) {
        let (ordering, depth) = self.prefixes(subnet).look_up_from(begun, address);
        (OrderingId(ordering), if subnet { depth } else { 0 })
    }

    /// How many prefixes it was built from.
    pub fn prefix_count(&self) -> usize {
        self.prefix_count
    }

    /// Prefixes whose place counts as unknown, because they make more orderings than can be numbered.
    pub fn left_out(&self) -> usize {
        self.left_out
    }

    /// Octets that it takes.
    pub fn octets(&self) -> usize {
        let orderings: usize = self.orderings.iter().map(|tiers| tiers.len() + size_of::<Box<[u8]>>()).sum();
        orderings + self.exact.octets() + self.subnets.as_ref().map_or(0, PrefixMap::octets)
    }
}

/// Gives each ordering a number, and finds each spot's once.
struct Interner {
    orderings: Vec<Box<[u8]>>,
    numbers: HashMap<Box<[u8]>, Option<u16>>,
    spots: HashMap<Key, Option<u16>>,
}

/// A [`Spot`], its coordinates in bits.
#[derive(PartialEq, Eq, Hash)]
struct Key(Option<Region>, Vec<AvailabilityZone>, Option<(u64, u64)>);

impl Interner {
    fn new(sites: usize) -> Interner {
        let unknown: Box<[u8]> = vec![ELSEWHERE; sites].into();
        let numbers = HashMap::from([(unknown.clone(), Some(UNKNOWN.0))]);
        Interner { orderings: vec![unknown], numbers, spots: HashMap::new() }
    }

    fn ordering(&mut self, spot: &Spot, sites: &[Site<'_>], world: &World<'_>) -> Option<u16> {
        let bits = |at: Coordinates| (at.latitude().to_bits(), at.longitude().to_bits());
        let key = Key(spot.region.clone(), spot.availability_zones.clone(), spot.coordinates.map(bits));
        if let Some(known) = self.spots.get(&key) {
            return *known;
        }
        let order = ranks(&tiers(spot, sites, world));
        let orderings = &mut self.orderings;
        let number = *self.numbers.entry(order).or_insert_with_key(|order| {
            let number = u16::try_from(orderings.len()).ok()?;
            orderings.push(order.clone());
            Some(number)
        });
        self.spots.insert(key, number);
        number
    }
}

/// The same order without gaps.
fn ranks(tiers: &[u8]) -> Box<[u8]> {
    let mut steps = tiers.to_vec();
    steps.sort_unstable();
    steps.dedup();
    let rank = |tier: &u8| ELSEWHERE + steps.partition_point(|step| step < tier) as u8;
    tiers.iter().map(rank).collect()
}
