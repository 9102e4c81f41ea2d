//! Where a client is: its address → the cluster it is in, or the order in which it wants the clusters; and which addresses are
//! only good in some places.

mod blocks;
mod distance;
mod geography;
mod layers;
mod mmdb;
mod places;
mod prefixes;
mod regions;
mod runs;
mod special;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

pub use distance::{Coordinates, CoordinatesError};
pub use geography::{Geography, OrderingId, Site, Spot, UNKNOWN, World, tiers};
pub use layers::overlaid;
pub use mmdb::{DatabaseError, Known, find_in_database, read_database};
pub use places::{PlaceFault, PlaceLine, parse_places};
pub use prefixes::{Begun, PrefixMap, SUBNET_BITS};
pub use regions::coordinates;
pub use special::is_special_purpose;

use crate::model::ClusterId;

/// The clients' ranges of all clusters. A look-up is a binary search, and allocates nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientTable {
    /// Sorted by first address; no two ranges share an address.
    v4: Box<[Range<Ipv4Addr>]>,
    v6: Box<[Range<Ipv6Addr>]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range<A> {
    first: A,
    last: A,
    cluster: ClusterId,
}

/// Two ranges that share addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the client ranges {} and {} overlap; give each address to one cluster", one.1, other.1)]
pub struct Overlap {
    /// In the order of the clusters.
    pub one: (ClusterId, IpNet),
    pub other: (ClusterId, IpNet),
}

impl ClientTable {
    /// Each range belongs to one cluster; the same cluster may name a range inside another of its own, or twice.
    /// IPv4-mapped ranges (`::ffff:10.0.0.0/104`) are taken as IPv4.
    pub fn new<'a>(clusters: impl IntoIterator<Item = (ClusterId, &'a [IpNet])>) -> Result<ClientTable, Box<Overlap>> {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (cluster, nets) in clusters {
            for &net in nets {
                match unmapped(net) {
                    IpNet::V4(n) => v4.push((Range { first: n.network(), last: n.broadcast(), cluster }, net)),
                    IpNet::V6(n) => v6.push((Range { first: n.network(), last: n.broadcast(), cluster }, net)),
                }
            }
        }
        Ok(ClientTable { v4: disjoint(v4)?, v6: disjoint(v6)? })
    }

    /// The cluster that the client at `addr` is in. IPv4-mapped addresses, which a socket for both families shows,
    /// are looked up as IPv4.
    pub fn cluster_of(&self, addr: IpAddr) -> Option<ClusterId> {
        match addr.to_canonical() {
            IpAddr::V4(addr) => find(&self.v4, addr),
            IpAddr::V6(addr) => find(&self.v6, addr),
        }
    }
}

/// A range of IPv4-mapped addresses as IPv4.
fn unmapped(net: IpNet) -> IpNet {
    match (net, net.network()) {
        (IpNet::V6(v6), IpAddr::V6(first)) if v6.prefix_len() >= 96 => match first.to_ipv4_mapped() {
            Some(first) => ipnet::Ipv4Net::new(first, v6.prefix_len() - 96)
                .map(IpNet::V4)
                .expect("a prefix of 96 to 128 bits less 96 is one of 0 to 32"),
            None => net,
        },
        _ => net,
    }
}

/// Sorted, and without the ranges that lie inside another of the same cluster.
fn disjoint<A: Ord + Copy>(mut ranges: Vec<(Range<A>, IpNet)>) -> Result<Box<[Range<A>]>, Box<Overlap>> {
    // Of two that begin at one address the larger comes first. CIDRs are nested or apart, so that each one needs
    // comparison with the last one kept only.
    ranges.sort_by(|(a, _), (b, _)| a.first.cmp(&b.first).then(b.last.cmp(&a.last)).then(a.cluster.cmp(&b.cluster)));
    let mut kept: Vec<(Range<A>, IpNet)> = Vec::with_capacity(ranges.len());
    for (range, net) in ranges {
        match kept.last() {
            Some((last, outer)) if range.first <= last.last => {
                if last.cluster != range.cluster {
                    let mut both = [(last.cluster, *outer), (range.cluster, net)];
                    both.sort_by_key(|(cluster, _)| *cluster);
                    return Err(Box::new(Overlap { one: both[0], other: both[1] }));
                }
            }
            Some(_) | None => kept.push((range, net)),
        }
    }
    Ok(kept.into_iter().map(|(range, _)| range).collect())
}

fn find<A: Ord + Copy>(ranges: &[Range<A>], addr: A) -> Option<ClusterId> {
    let behind = ranges.partition_point(|range| range.first <= addr);
    let range = ranges.get(behind.checked_sub(1)?)?;
    (addr <= range.last).then_some(range.cluster)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nets(list: &[&str]) -> Vec<IpNet> {
        list.iter().map(|net| net.parse().unwrap()).collect()
    }

    fn table(clusters: &[&[&str]]) -> Result<ClientTable, Box<Overlap>> {
        let nets: Vec<Vec<IpNet>> = clusters.iter().map(|list| self::nets(list)).collect();
        ClientTable::new(nets.iter().enumerate().map(|(i, list)| (ClusterId(i as u16), &list[..])))
    }

    #[test]
    fn clients() {
        let table = table(&[
            &["10.0.0.0/16", "10.0.7.0/24", "fd00:0:0:1::/64"],
            &["10.1.0.0/16", "::ffff:192.0.2.0/120", "fd00:0:0:2::/64"],
            &["10.2.3.4/32", "255.255.255.255/32", "0.0.0.0/32", "ffff::/16"],
        ])
        .unwrap();
        for (addr, cluster) in [
            ("10.0.0.0", Some(0)),
            ("10.0.7.9", Some(0)),
            ("10.0.8.0", Some(0)),
            ("10.0.255.255", Some(0)),
            ("9.255.255.255", None),
            ("10.1.0.0", Some(1)),
            ("10.1.255.255", Some(1)),
            ("10.2.0.0", None),
            ("10.2.3.4", Some(2)),
            ("10.2.3.5", None),
            ("0.0.0.0", Some(2)),
            ("0.0.0.1", None),
            ("255.255.255.255", Some(2)),
            ("192.0.2.1", Some(1)),
            ("::ffff:192.0.2.1", Some(1)),
            ("::ffff:10.0.0.1", Some(0)),
            ("::10.0.0.1", None),
            ("fd00:0:0:1::", Some(0)),
            ("fd00:0:0:1:ffff:ffff:ffff:ffff", Some(0)),
            ("fd00:0:0:2::1", Some(1)),
            ("fd00:0:0:3::", None),
            ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Some(2)),
        ] {
            assert_eq!(table.cluster_of(addr.parse().unwrap()), cluster.map(ClusterId), "{addr}");
        }
        assert_eq!(ClientTable::default().cluster_of("10.0.0.1".parse().unwrap()), None);
    }

    #[test]
    fn overlaps() {
        for (clusters, one, other) in [
            ([&["10.0.0.0/8"][..], &["10.1.0.0/16"]], "10.0.0.0/8", "10.1.0.0/16"),
            ([&["10.1.0.0/16"], &["11.0.0.0/8", "10.0.0.0/8"]], "10.1.0.0/16", "10.0.0.0/8"),
            ([&["10.0.0.0/8", "10.2.0.0/16"], &["10.2.1.0/24"]], "10.0.0.0/8", "10.2.1.0/24"),
            ([&["fd00::/64"], &["fd00::/64"]], "fd00::/64", "fd00::/64"),
            ([&["10.0.0.0/8"], &["::ffff:10.0.0.0/112"]], "10.0.0.0/8", "::ffff:10.0.0.0/112"),
        ] {
            let overlap = table(&clusters).unwrap_err();
            assert_eq!(overlap.one, (ClusterId(0), one.parse().unwrap()));
            assert_eq!(overlap.other, (ClusterId(1), other.parse().unwrap()));
        }
    }

    /// Ranges in a small space, so that they meet.
    fn ranges() -> impl Strategy<Value = Vec<(u16, IpNet)>> {
        let v4 = (0u32..64, 26u8..=32)
            .prop_map(|(host, bits)| IpNet::new(Ipv4Addr::from_bits(0x0a00_0000 + host).into(), bits).unwrap());
        let v6 = (0u128..64, 122u8..=128)
            .prop_map(|(host, bits)| IpNet::new(Ipv6Addr::from_bits((0xfd << 120) + host).into(), bits).unwrap());
        prop::collection::vec((0u16..3, prop_oneof![v4, v6]), 0..8)
    }

    proptest! {
        #[test]
        fn the_table_says_what_the_ranges_say(ranges in ranges(), extra in any::<u32>()) {
            let lists = ranges.iter().map(|(c, net)| (ClusterId(*c), std::slice::from_ref(net)));
            let overlap = ranges.iter().any(|(c, net)| {
                ranges.iter().any(|(d, other)| c != d && (net.contains(other) || other.contains(net)))
            });
            let table = ClientTable::new(lists);
            prop_assert_eq!(table.is_err(), overlap);
            if let Ok(table) = table {
                let near = (0..=66).flat_map(|i| [
                    IpAddr::from(Ipv4Addr::from_bits(0x0a00_0000 - 1 + i)),
                    Ipv6Addr::from_bits((0xfd << 120) - 1 + u128::from(i)).into(),
                ]);
                for addr in near.chain([Ipv4Addr::from_bits(extra).into()]) {
                    let naive = ranges.iter().find(|(_, net)| net.contains(&addr)).map(|(c, _)| ClusterId(*c));
                    prop_assert_eq!(table.cluster_of(addr), naive, "{}", addr);
                    if let IpAddr::V4(v4) = addr {
                        prop_assert_eq!(table.cluster_of(v4.to_ipv6_mapped().into()), naive);
                    }
                }
            }
        }
    }
}
