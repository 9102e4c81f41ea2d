//! Prefix → number, for whole routing tables: a look-up is a step into an index and a short search.

use std::net::IpAddr;

use ipnet::IpNet;

/// Slots of the index for each range, as a power of two; and the most of them.
const SLOTS_PER_RANGE: u32 = 1;
const MOST_INDEX_BITS: u32 = 20;

/// The longest prefixes of client subnets that resolvers send (RFC 7871 section 11.1): longer ones don't count.
pub const SUBNET_BITS: (u8, u8) = (24, 56);

/// Every address has a number: that of the longest prefix that holds it, or 0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PrefixMap {
    v4: Ranges<u32>,
    v6: Ranges<u128>,
}

impl PrefixMap {
    /// Of equal prefixes the last one counts. Prefixes of more than `most` bits, for IPv4 and IPv6, are left out.
    /// IPv4-mapped prefixes are taken as IPv4.
    pub fn new(prefixes: impl IntoIterator<Item = (IpNet, u16)>, most: (u8, u8)) -> PrefixMap {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (net, value) in prefixes {
            match super::unmapped(net) {
                IpNet::V4(n) if n.prefix_len() <= most.0 => {
                    v4.push(Prefix { first: n.network().to_bits(), last: n.broadcast().to_bits(), value });
                }
                IpNet::V6(n) if n.prefix_len() <= most.1 => {
                    v6.push(Prefix { first: n.network().to_bits(), last: n.broadcast().to_bits(), value });
                }
                IpNet::V4(_) | IpNet::V6(_) => {}
            }
        }
        // Nearly all of IPv6 that is in use is in 2000::/3.
        PrefixMap { v4: Ranges::new(v4, 0, 0), v6: Ranges::new(v6, 3, 0b001) }
    }

    /// The number of an address, and the length of the largest prefix around it in which every address has this number.
    #[inline]
    pub fn look_up(&self, address: IpAddr) -> (u16, u8) {
        match address.to_canonical() {
            IpAddr::V4(address) => self.v4.look_up(address.to_bits()),
            IpAddr::V6(address) => self.v6.look_up(address.to_bits()),
        }
    }

    /// Octets that it takes.
    pub fn octets(&self) -> usize {
        self.v4.octets() + self.v6.octets()
    }
}

#[derive(Debug, Clone, Copy)]
struct Prefix<W> {
    first: W,
    last: W,
    value: u16,
}

/// Addresses from `first` to before the next one's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range<W> {
    first: W,
    value: u16,
}

/// All addresses of a family, cut where the number changes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Ranges<W> {
    /// Sorted; the first begins at 0, and no two neighbours have one number.
    all: Box<[Range<W>]>,
    /// For addresses that begin with the `skip` bits `expected`: by their next `bits`, which range holds the first of them;
    /// and the last range of all.
    index: Box<[u32]>,
    skip: u32,
    expected: usize,
    bits: u32,
}

impl<W: Word> Default for Ranges<W> {
    fn default() -> Self {
        Ranges::new(Vec::new(), 0, 0)
    }
}

impl<W: Word> Ranges<W> {
    fn new(prefixes: Vec<Prefix<W>>, skip: u32, expected: usize) -> Ranges<W> {
        let all = cut(prefixes);
        // Where there is little to search, an index would only take room.
        let bits = if all.len() < 16 { 0 } else { (all.len().ilog2() + SLOTS_PER_RANGE).min(MOST_INDEX_BITS) };
        let mut index = Vec::with_capacity((1 << bits) + 1);
        let mut range = 0;
        for slot in 0..1 << bits {
            let first = W::from_top(expected << bits | slot, skip + bits);
            while all.get(range + 1).is_some_and(|next| next.first <= first) {
                range += 1;
            }
            index.push(range as u32);
        }
        // What follows the last slot may be outside of the index.
        let end = W::from_top(expected + 1, skip);
        let last = if end == W::ZERO { all.len() } else { all.partition_point(|range| range.first < end) };
        index.push(last as u32 - 1);
        Ranges { all: all.into(), index: index.into(), skip, expected, bits }
    }

    #[inline]
    fn look_up(&self, address: W) -> (u16, u8) {
        let (from, to) = if address.top(self.skip) == self.expected {
            let slot = address.top(self.skip + self.bits) & ((1 << self.bits) - 1);
            (self.index[slot] as usize, self.index[slot + 1] as usize)
        } else {
            (0, self.all.len() - 1)
        };
        // The range at `from` begins at the address or before.
        let found = from + self.all[from + 1..to + 1].partition_point(|range| range.first <= address);
        let Range { first, value } = self.all[found];
        // A block around the address stays inside if it is shorter than what it shares with either neighbour.
        let below = first.before().map_or(0, |below| address.shared(below) + 1);
        let above = self.all.get(found + 1).map_or(0, |above| address.shared(above.first) + 1);
        (value, below.max(above) as u8)
    }

    fn octets(&self) -> usize {
        size_of_val(&*self.all) + size_of_val(&*self.index)
    }
}

/// Nested prefixes → ranges side by side.
fn cut<W: Word>(mut prefixes: Vec<Prefix<W>>) -> Vec<Range<W>> {
    // Stable, so that of equal ones the last comes last; the wider one comes before those in it.
    prefixes.sort_by(|a, b| a.first.cmp(&b.first).then(b.last.cmp(&a.last)));
    let mut all = vec![Range { first: W::ZERO, value: 0 }];
    // Those that hold the place where we are, each inside the one before.
    let mut open: Vec<Prefix<W>> = Vec::new();
    for prefix in prefixes {
        close(&mut open, Some(prefix.first), &mut all);
        begin(&mut all, prefix.first, prefix.value);
        open.push(prefix);
    }
    close(&mut open, None, &mut all);
    all
}

/// Ends the open prefixes that end before `next`.
fn close<W: Word>(open: &mut Vec<Prefix<W>>, next: Option<W>, all: &mut Vec<Range<W>>) {
    while let Some(inner) = open.pop_if(|inner| next.is_none_or(|next| inner.last < next)) {
        if let Some(behind) = inner.last.after() {
            begin(all, behind, open.last().map_or(0, |outer| outer.value));
        }
    }
}

/// From `first` on it is `value`.
fn begin<W: Word>(all: &mut Vec<Range<W>>, first: W, value: u16) {
    // Of several that begin at one place the last is the innermost.
    if all.last().is_some_and(|last| last.first == first) {
        all.pop();
    }
    if all.last().is_none_or(|last| last.value != value) {
        all.push(Range { first, value });
    }
}

/// An address as a number.
trait Word: Copy + Ord {
    const ZERO: Self;
    /// The first `bits` bits.
    fn top(self, bits: u32) -> usize;
    /// An address that begins with these bits, of which there are `bits`; what is beyond is cut off.
    fn from_top(top: usize, bits: u32) -> Self;
    /// How many bits both begin with.
    fn shared(self, other: Self) -> u32;
    fn before(self) -> Option<Self>;
    fn after(self) -> Option<Self>;
}

macro_rules! word {
    ($type:ty) => {
        impl Word for $type {
            const ZERO: $type = 0;

            #[inline]
            fn top(self, bits: u32) -> usize {
                self.checked_shr(<$type>::BITS - bits).unwrap_or(0) as usize
            }

            fn from_top(top: usize, bits: u32) -> $type {
                (top as $type).checked_shl(<$type>::BITS - bits).unwrap_or(0)
            }

            #[inline]
            fn shared(self, other: $type) -> u32 {
                (self ^ other).leading_zeros()
            }

            #[inline]
            fn before(self) -> Option<$type> {
                self.checked_sub(1)
            }

            fn after(self) -> Option<$type> {
                self.checked_add(1)
            }
        }
    };
}

word!(u32);
word!(u128);

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    const ALL: (u8, u8) = (32, 128);

    fn map(list: &[(&str, u16)], most: (u8, u8)) -> PrefixMap {
        PrefixMap::new(list.iter().map(|(net, value)| (net.parse().unwrap(), *value)), most)
    }

    #[test]
    fn numbers_and_depths() {
        let list = [
            ("0.0.0.0/1", 1),
            ("10.0.0.0/8", 2),
            ("10.1.0.0/16", 1),
            ("10.1.0.0/16", 3),
            ("10.1.2.128/25", 4),
            ("192.0.2.0/24", 5),
            ("192.0.3.0/24", 5),
            ("255.255.255.255/32", 6),
            ("2001:db8::/32", 7),
            ("::ffff:198.51.100.0/120", 8),
            ("fe80::/10", 9),
        ];
        for (address, exact, clamped) in [
            ("0.0.0.0", (1, 5), (1, 5)),
            ("127.255.255.255", (1, 2), (1, 2)),
            ("10.2.0.0", (2, 15), (2, 15)),
            ("10.0.0.0", (2, 16), (2, 16)),
            ("10.255.255.255", (2, 9), (2, 9)),
            ("10.1.2.3", (3, 25), (3, 16)),
            ("10.1.2.200", (4, 25), (3, 16)),
            ("10.1.128.0", (3, 17), (3, 16)),
            ("192.0.2.1", (5, 23), (5, 23)),
            ("::ffff:192.0.3.1", (5, 23), (5, 23)),
            ("198.51.100.1", (8, 24), (8, 24)),
            ("255.255.255.255", (6, 32), (0, 3)),
            ("255.255.255.254", (0, 32), (0, 3)),
            ("128.0.0.0", (0, 2), (0, 2)),
            ("2001:db8:ffff::", (7, 32), (7, 32)),
            ("::", (0, 3), (0, 3)),
            ("2001:db9::", (0, 32), (0, 32)),
            ("fe80::1", (9, 10), (9, 10)),
            ("ffff::", (0, 8), (0, 8)),
        ] {
            let look_up = |most| map(&list, most).look_up(address.parse().unwrap());
            assert_eq!((look_up(ALL), look_up(SUBNET_BITS)), (exact, clamped), "{address}");
        }
        assert_eq!(map(&[("::/0", 3), ("0.0.0.0/0", 2)], ALL).look_up("1.2.3.4".parse().unwrap()), (2, 0));
        assert_eq!(PrefixMap::default().look_up("::1".parse().unwrap()), (0, 0));
    }

    /// Prefixes in small spaces, so that they meet.
    fn prefixes() -> impl Strategy<Value = Vec<(IpNet, u16)>> {
        let v4 = (0u32..256, 22u8..=32)
            .prop_map(|(host, bits)| IpNet::new(Ipv4Addr::from_bits(0x0a00_0000 + host).into(), bits).unwrap());
        let v6 = (0u128..256, 54u8..=62).prop_map(|(host, bits)| {
            IpNet::new(Ipv6Addr::from_bits((0x2001 << 112) + (host << 66)).into(), bits).unwrap()
        });
        prop::collection::vec((prop_oneof![v4, v6].prop_map(|net| net.trunc()), 0u16..4), 0..40)
    }

    fn naive(list: &[(IpNet, u16)], most: (u8, u8), address: IpAddr) -> u16 {
        let counts = |net: &IpNet| net.prefix_len() <= if net.addr().is_ipv4() { most.0 } else { most.1 };
        let matching = list.iter().filter(|(net, _)| counts(net) && net.contains(&address));
        matching.max_by_key(|(net, _)| net.prefix_len()).map_or(0, |(_, value)| *value)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn the_map_says_what_the_longest_match_says(list in prefixes(), clamp in any::<bool>()) {
            let most = if clamp { SUBNET_BITS } else { ALL };
            let map = PrefixMap::new(list.clone(), most);
            let v4 = |n: u32| IpAddr::from(Ipv4Addr::from_bits(0x0a00_0000 - 8 + n));
            let v6 = |n: u32| IpAddr::from(Ipv6Addr::from_bits((0x2001 << 112) - (8 << 66) + (u128::from(n) << 66)));
            for address in (0..272).flat_map(|n| [v4(n), v6(n)]) {
                let (value, depth) = map.look_up(address);
                prop_assert_eq!(value, naive(&list, most, address), "{}", address);
                let deepest = if address.is_ipv4() { 24 } else { 56 };
                prop_assert!(!clamp || depth <= deepest, "{} {}", address, depth);
                // All that is inside the block says the same; what is one bit wider does not.
                let block = IpNet::new(address, depth).unwrap().trunc();
                let near: Vec<IpAddr> = (0..272).flat_map(|n| [v4(n), v6(n)]).collect();
                for other in near.iter().filter(|other| block.contains(*other)) {
                    prop_assert_eq!(map.look_up(*other), (value, depth), "{} {}", address, other);
                }
                if let Some(wider) = block.supernet() {
                    let ends = list.iter().flat_map(|(net, _)| {
                        let (first, last) = (net.network(), net.broadcast());
                        [Some(first), Some(last), next(last)].into_iter().flatten()
                    });
                    let mut others = ends.chain([wider.network(), wider.broadcast()]).filter(|a| wider.contains(a));
                    prop_assert!(others.any(|other| naive(&list, most, other) != value), "{} is too deep", address);
                }
            }
        }
    }

    fn next(address: IpAddr) -> Option<IpAddr> {
        Some(match address {
            IpAddr::V4(a) => Ipv4Addr::from_bits(a.to_bits().checked_add(1)?).into(),
            IpAddr::V6(a) => Ipv6Addr::from_bits(a.to_bits().checked_add(1)?).into(),
        })
    }
}
