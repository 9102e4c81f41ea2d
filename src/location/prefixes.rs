//! Prefix → number, for whole routing tables. A look-up is few reads, most of them of one cache line each, and few branches
//! that are hard to foresee: these cost more than what it computes.

use std::net::IpAddr;

use ipnet::IpNet;

use super::blocks::Blocks;
use super::runs::Runs;

/// The longest prefixes of client subnets that resolvers send (RFC 7871 section 11.1): longer ones don't count.
pub const SUBNET_BITS: (u8, u8) = (24, 56);

/// Every address has a number: that of the longest prefix that holds it, or 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrefixMap {
    v4: Blocks,
    /// By the upper halves of addresses; what it says of the halves that are in `lower` doesn't count.
    upper: Runs,
    /// The ranges in those /64 that have several numbers: few, if any.
    lower: Box<[Range<u128>]>,
}

/// How far a look-up has come.
#[derive(Debug, Clone, Copy)]
pub struct Begun(At);

#[derive(Debug, Clone, Copy)]
enum At {
    /// The position of a word of IPv4.
    V4(u32),
    /// A word of IPv6.
    V6(u32),
}

impl Default for PrefixMap {
    fn default() -> Self {
        PrefixMap::new([], (0, 0))
    }
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
        let (upper, lower) = halves(&cut(v6));
        PrefixMap { v4: Blocks::new(&cut(v4)), upper: Runs::new(&upper), lower: lower.into() }
    }

    /// The number of an address, and the length of the largest prefix around it in which every address has this number.
    // Called, it would read the address from where it was just written in other pieces, and wait for these.
    #[inline(always)]
    pub fn look_up(&self, address: IpAddr) -> (u16, u8) {
        match address.to_canonical() {
            IpAddr::V4(address) => self.v4.look_up(address.to_bits()),
            IpAddr::V6(address) => {
                let address = address.to_bits();
                self.with_lower(address, self.upper.look_up(upper_half(address)))
            }
        }
    }

    /// `found`: of the address's upper half.
    #[inline]
    fn with_lower(&self, address: u128, found: (u16, u8)) -> (u16, u8) {
        // A /64 with several numbers is no part of a larger block with one.
        let lower = if !self.lower.is_empty() && found.1 == 64 { self.in_lower(address) } else { None };
        lower.unwrap_or(found)
    }

    /// What [`look_up`](PrefixMap::look_up) reads first of what is in no cache if the table is large, for who wants to have it
    /// fetched ahead.
    #[inline]
    pub fn first_read(&self, address: IpAddr) -> *const u8 {
        match address.to_canonical() {
            IpAddr::V4(address) => self.v4.first_read(address.to_bits()),
            IpAddr::V6(address) => self.upper.first_read(upper_half(address.to_bits())),
        }
    }

    /// What it reads then, and most often last; to know this, the first is read. With what was found by that for
    /// [`look_up_from`](PrefixMap::look_up_from).
    #[inline]
    pub fn second_read(&self, address: IpAddr) -> (*const u8, Begun) {
        match address.to_canonical() {
            IpAddr::V4(address) => {
                let position = self.v4.second_read(address.to_bits());
                (self.v4.word(position), Begun(At::V4(position)))
            }
            IpAddr::V6(address) => {
                let (read, word) = self.upper.second_read(upper_half(address.to_bits()));
                (read, Begun(At::V6(word)))
            }
        }
    }

    /// As [`look_up`](PrefixMap::look_up), going on from what [`second_read`](PrefixMap::second_read) of this map found for this
    /// address.
    #[inline(always)]
    pub fn look_up_from(&self, begun: Option<Begun>, address: &IpAddr) -> (u16, u8) {
        // What most of IPv4 need is that word alone, and not the address, which it would take long to read.
        let found = match begun {
            Some(Begun(At::V4(position))) => self.v4.said_at(position),
            _ => None,
        };
        found.unwrap_or_else(|| self.look_up_further(begun, address))
    }

    /// Not inlined, so that who needs no more has the registers for himself.
    #[inline(never)]
    fn look_up_further(&self, begun: Option<Begun>, address: &IpAddr) -> (u16, u8) {
        match (begun, address.to_canonical()) {
            (Some(Begun(At::V4(position))), IpAddr::V4(address)) => self.v4.look_up_from(position, address.to_bits()),
            (Some(Begun(At::V6(word))), IpAddr::V6(address)) => {
                let address = address.to_bits();
                self.with_lower(address, self.upper.look_up_from(word, upper_half(address)))
            }
            _ => self.look_up(*address),
        }
    }

    /// `None`: it is in a /64 with one number.
    #[cold]
    fn in_lower(&self, address: u128) -> Option<(u16, u8)> {
        let found = self.lower.partition_point(|range| range.first <= address).checked_sub(1)?;
        let Range { first, value } = self.lower[found];
        let next = self.lower.get(found + 1).map(|next| next.first);
        (first >> 64 == address >> 64).then(|| (value, depth(address, first.checked_sub(1), next)))
    }

    /// Octets that it takes.
    pub fn octets(&self) -> usize {
        self.v4.octets() + self.upper.octets() + size_of_val(&*self.lower)
    }
}

/// The first 64 bits.
fn upper_half(address: u128) -> u64 {
    (address >> 64) as u64
}

#[derive(Debug, Clone, Copy)]
struct Prefix<W> {
    first: W,
    last: W,
    value: u16,
}

/// Addresses from `first` to before the next one's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range<W> {
    pub first: W,
    pub value: u16,
}

/// Nested prefixes → ranges side by side: sorted, the first begins at 0, and no two neighbours have one number.
fn cut<W: Word>(mut prefixes: Vec<Prefix<W>>) -> Vec<Range<W>> {
    // Stable, so that of equal ones the last comes last; the wider one comes before those in it.
    prefixes.sort_by(|a, b| a.first.cmp(&b.first).then(b.last.cmp(&a.last)));
    let mut all = vec![Range { first: W::default(), value: 0 }];
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

/// Ranges of /64, and those in each /64 that has several numbers, which is a range of its own among the former.
fn halves(all: &[Range<u128>]) -> (Vec<Range<u64>>, Vec<Range<u128>>) {
    let (mut upper, mut lower) = (Vec::new(), Vec::<Range<u128>>::new());
    let mut before = 0;
    for (n, &Range { first, value }) in all.iter().enumerate() {
        let half = upper_half(first);
        let begin = u128::from(half) << 64;
        if first > begin {
            if lower.last().is_none_or(|last| last.first < begin) {
                push(&mut upper, half, before);
                lower.push(Range { first: begin, value: before });
            }
            lower.push(Range { first, value });
        } else {
            push(&mut upper, half, value);
        }
        // What goes on behind the /64 in which it begins.
        let goes_on = |behind: &u64| all.get(n + 1).is_none_or(|next| next.first > u128::from(*behind) << 64);
        if first > begin
            && let Some(behind) = half.checked_add(1).filter(goes_on)
        {
            push(&mut upper, behind, value);
        }
        before = value;
    }
    (upper, lower)
}

fn push(upper: &mut Vec<Range<u64>>, first: u64, value: u16) {
    if upper.last().is_none_or(|last| last.first < first) {
        upper.push(Range { first, value });
    }
}

/// How long the largest prefix around an address is that has neither the address before its range, nor the one behind.
#[inline]
pub(super) fn depth<W: Word>(address: W, before: Option<W>, behind: Option<W>) -> u8 {
    // A block around the address stays inside if it is longer than what it shares with either.
    let longer = |other| address.shared(other) as u8 + 1;
    before.map_or(0, longer).max(behind.map_or(0, longer))
}

/// An address as a number, or its upper half; the default is the first one.
pub(super) trait Word: Copy + Ord + Default {
    /// How many bits both begin with.
    fn shared(self, other: Self) -> u32;
    fn after(self) -> Option<Self>;
}

macro_rules! word {
    ($type:ty) => {
        impl Word for $type {
            #[inline]
            fn shared(self, other: $type) -> u32 {
                (self ^ other).leading_zeros()
            }

            fn after(self) -> Option<$type> {
                self.checked_add(1)
            }
        }
    };
}

word!(u32);
word!(u64);
word!(u128);

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    const ALL: (u8, u8) = (32, 128);

    /// What is read of an address is what is said to be read.
    fn assert_reads(map: &PrefixMap, address: IpAddr) {
        let foretold = match address.to_canonical() {
            IpAddr::V4(address) => map.v4.is_foretold(address.to_bits()),
            IpAddr::V6(address) => map.upper.is_foretold(upper_half(address.to_bits())),
        };
        assert!(foretold, "{address}");
        let (_, begun) = map.second_read(address);
        assert_eq!(map.look_up_from(Some(begun), &address), map.look_up(address), "{address}");
    }

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

    /// Both halves of an IPv6 address.
    #[test]
    fn longer_than_64() {
        let list = [
            ("2001:db8::/32", 1),
            ("2001:db8:0:1::5/128", 2),
            ("2001:db8:0:1:8000::/65", 3),
            ("2001:db8:0:2::/65", 3),
            ("2001:db8:0:4::/65", 4),
            ("2001:db8:0:4:8000::/65", 4),
            ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128", 5),
            ("::/128", 6),
        ];
        let map = map(&list, ALL);
        for (address, expected) in [
            ("2001:db8::", (1, 64)),
            ("2001:db8:0:1::4", (1, 128)),
            ("2001:db8:0:1::5", (2, 128)),
            ("2001:db8:0:1::6", (1, 127)),
            ("2001:db8:0:1:7fff::", (1, 66)),
            ("2001:db8:0:1:8000::1", (3, 65)),
            ("2001:db8:0:2::1", (3, 65)),
            ("2001:db8:0:2:8000::1", (1, 65)),
            ("2001:db8:0:3::1", (1, 64)),
            ("2001:db8:0:4:8000::1", (4, 64)),
            ("2001:db8:0:5::", (1, 64)),
            ("2001:db8:0:6::", (1, 63)),
            ("::", (6, 128)),
            ("::1", (0, 128)),
            ("0:0:0:1::", (0, 64)),
            ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", (5, 128)),
            ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe", (0, 128)),
            ("ffff:ffff:ffff:fffe::", (0, 64)),
        ] {
            assert_eq!(map.look_up(address.parse().unwrap()), expected, "{address}");
        }
    }

    /// As many as make all sizes of roots, the largest only of IPv4; and close together, so that there are cells and tables within.
    #[test]
    fn many_prefixes() {
        for (count, kinds) in [(1, 4), (20, 4), (400, 4), (6_000, 4), (70_000, 2)] {
            let mut state = 1u64;
            let mut draw = |below: u64| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                ((state >> 32) * below) >> 32
            };
            let mut list: Vec<(IpNet, u16)> = Vec::new();
            for n in 0..count {
                let value = draw(5) as u16;
                let (near, far) = (u128::from(draw(1 << 16)), u128::from(draw(1 << 32)));
                let (top, length) = match n % kinds {
                    0 => (far, 22 + draw(3)),
                    1 => (0x0a00_0000 | near, 22 + draw(11)),
                    2 => (0x2400 << 16 | far >> 8, 29 + draw(36)),
                    _ => (0x2400_0001 << 16 | near, 40 + draw(25)),
                };
                let net = match n % kinds {
                    0 | 1 => IpNet::new(Ipv4Addr::from_bits(top as u32).into(), length as u8),
                    2 => IpNet::new(Ipv6Addr::from_bits(top << 96 | near << 64).into(), length as u8),
                    _ => IpNet::new(Ipv6Addr::from_bits(top << 80 | far << 48).into(), length as u8 + n as u8 % 8 * 9),
                };
                list.push((net.unwrap().trunc(), value));
            }
            check_all(&list, PrefixMap::new(list.iter().copied(), ALL));
        }
    }

    /// At the ends of every prefix and on both sides of them: the number, and that the block has one and the next larger has not.
    fn check_all(list: &[(IpNet, u16)], map: PrefixMap) {
        let numbers: HashMap<IpNet, u16> = list.iter().copied().collect();
        let longest = |address: IpAddr| {
            let most = if address.is_ipv4() { 32 } else { 128 };
            let mut nets = (0..=most).rev().map(|bits| IpNet::new(address, bits).unwrap().trunc());
            nets.find_map(|net| numbers.get(&net)).copied().unwrap_or(0)
        };
        let ends = list.iter().flat_map(|(net, _)| [Some(net.network()), Some(net.broadcast()), next(net.broadcast())]);
        let ends: BTreeMap<IpAddr, u16> = ends.flatten().map(|address| (address, longest(address))).collect();
        let differs = |block: IpNet, value| {
            let within = ends.range(block.network()..=block.broadcast());
            longest(block.network()) != value || within.into_iter().any(|(_, other)| *other != value)
        };
        for (&address, &number) in ends.iter().step_by(1 + ends.len() / 2_000) {
            let (value, depth) = map.look_up(address);
            assert_reads(&map, address);
            assert_eq!(value, number, "{address}");
            let block = IpNet::new(address, depth).unwrap().trunc();
            assert!(!differs(block, value), "{block} around {address} is too wide");
            assert!(
                block.supernet().is_none_or(|wider| differs(wider, value)),
                "{block} around {address} is too narrow"
            );
        }
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
                assert_reads(&map, address);
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
