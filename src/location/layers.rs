//! Several sources of prefixes, of which the earlier ones count for more.

use std::net::IpAddr;

use ipnet::IpNet;

/// First and last address, in the numbers of their family.
type Range = (u128, u128);

/// What the layers together say of prefixes, so that the longest match among them is the longest match of the first layer that
/// has any: prefixes that an earlier layer covers are left out. Of equal prefixes in one layer the last one counts.
pub fn overlaid<T>(layers: impl IntoIterator<Item = Vec<(IpNet, T)>>) -> Vec<(IpNet, T)> {
    let mut all: Vec<(IpNet, T)> = Vec::new();
    let mut covered = [Vec::new(), Vec::new()];
    for layer in layers {
        let before = all.len();
        all.extend(layer.into_iter().filter(|(net, _)| !holds(&covered[family(net)], range(net))));
        for (net, _) in &all[before..] {
            covered[family(net)].push(range(net));
        }
        covered.iter_mut().for_each(merge);
    }
    all
}

fn family(net: &IpNet) -> usize {
    usize::from(matches!(net, IpNet::V6(_)))
}

fn range(net: &IpNet) -> Range {
    (number(net.network()), number(net.broadcast()))
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// Sorts, and makes one of those that touch.
fn merge(ranges: &mut Vec<Range>) {
    ranges.sort_unstable();
    ranges.dedup_by(|next, kept| {
        let touches = kept.1.checked_add(1).is_none_or(|behind| next.0 <= behind);
        if touches {
            kept.1 = kept.1.max(next.1);
        }
        touches
    });
}

fn holds(ranges: &[Range], (first, last): Range) -> bool {
    let behind = ranges.partition_point(|range| range.0 <= first);
    behind.checked_sub(1).is_some_and(|n| last <= ranges[n].1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nets(list: &[&str]) -> Vec<(IpNet, usize)> {
        list.iter().enumerate().map(|(n, net)| (net.parse().unwrap(), n)).collect()
    }

    #[test]
    fn what_an_earlier_layer_covers_is_left_out() {
        let all = overlaid([
            nets(&["10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16", "fd00::/16"]),
            nets(&["10.0.0.0/8", "10.1.7.0/24", "10.2.0.0/15", "10.1.0.0/16", "::/0", "fd00:1::/32", "0.0.0.0/0"]),
            nets(&["10.200.0.0/16", "11.0.0.0/8", "255.255.255.255/32", "2001:db8::/32"]),
        ]);
        let kept: Vec<String> = all.iter().map(|(net, _)| net.to_string()).collect();
        let expected = ["10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16", "fd00::/16", "10.0.0.0/8", "::/0", "0.0.0.0/0"];
        assert_eq!(kept, expected);
    }

    fn layers() -> impl Strategy<Value = Vec<Vec<(IpNet, u8)>>> {
        let net = (0u32..64, 26u8..=32, any::<u8>()).prop_map(|(host, bits, value)| {
            (IpNet::new(std::net::Ipv4Addr::from_bits(0x0a00_0000 + host).into(), bits).unwrap().trunc(), value)
        });
        prop::collection::vec(prop::collection::vec(net, 0..6), 0..4)
    }

    fn longest(list: &[(IpNet, u8)], address: IpAddr) -> Option<u8> {
        let matching = list.iter().filter(|(net, _)| net.contains(&address));
        matching.max_by_key(|(net, _)| net.prefix_len()).map(|(_, value)| *value)
    }

    proptest! {
        #[test]
        fn the_first_layer_that_knows_counts(layers in layers()) {
            let all = overlaid(layers.clone());
            for host in 0..66 {
                let address = std::net::Ipv4Addr::from_bits(0x0a00_0000 - 1 + host).into();
                let naive = layers.iter().find_map(|layer| longest(layer, address));
                prop_assert_eq!(longest(&all, address), naive);
            }
        }
    }
}
