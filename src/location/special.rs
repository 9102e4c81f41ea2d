//! Which addresses are not globally reachable: the IANA IPv4 and IPv6 Special-Purpose Address Registries (RFC 6890,
//! RFC 8190 and what was registered since), and multicast.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A range by its first address and its length in bits.
struct Range4(Ipv4Addr, u32);
struct Range6(Ipv6Addr, u32);

const fn v4(a: u8, b: u8, c: u8, d: u8, bits: u32) -> Range4 {
    Range4(Ipv4Addr::new(a, b, c, d), bits)
}

const fn v6(a: u16, b: u16, c: u16, d: u16, bits: u32) -> Range6 {
    Range6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0), bits)
}

const SPECIAL_V4: [Range4; 17] = [
    // This network, RFC 791
    v4(0, 0, 0, 0, 8),
    // Private use, RFC 1918
    v4(10, 0, 0, 0, 8),
    // Shared address space of carriers, RFC 6598
    v4(100, 64, 0, 0, 10),
    // Loopback, RFC 1122
    v4(127, 0, 0, 0, 8),
    // Link local, RFC 3927
    v4(169, 254, 0, 0, 16),
    // Private use, RFC 1918
    v4(172, 16, 0, 0, 12),
    // IETF protocol assignments, RFC 6890
    v4(192, 0, 0, 0, 24),
    // Documentation, RFC 5737
    v4(192, 0, 2, 0, 24),
    // Deprecated 6to4 relay anycast, RFC 7526; the registry leaves its reachability open, and no load balancer is there
    v4(192, 88, 99, 0, 24),
    // Private use, RFC 1918
    v4(192, 168, 0, 0, 16),
    // Benchmarking, RFC 2544
    v4(198, 18, 0, 0, 15),
    // Documentation, RFC 5737
    v4(198, 51, 100, 0, 24),
    v4(203, 0, 113, 0, 24),
    // Multicast, RFC 5771
    v4(224, 0, 0, 0, 4),
    // Reserved, RFC 1112
    v4(240, 0, 0, 0, 4),
    // Limited broadcast, RFC 919; inside 240/4, listed because the registry does
    v4(255, 255, 255, 255, 32),
    // Dummy address, RFC 7600; inside 192.0.0.0/24, listed because the registry does
    v4(192, 0, 0, 8, 32),
];

/// Globally reachable parts of the ranges above.
const GLOBAL_V4: [Range4; 2] = [
    // Port Control Protocol anycast, RFC 7723
    v4(192, 0, 0, 9, 32),
    // TURN anycast, RFC 8155
    v4(192, 0, 0, 10, 32),
];

/// What is neither in here nor in [`GLOBAL_V6`] is special, since IANA has assigned global unicast addresses
/// from 2000::/3 only: so ::/128, ::1, ::ffff:0:0/96, 64:ff9b:1::/48, 100::/64, 100:0:0:1::/64, 5f00::/16, fc00::/7,
/// fe80::/10 and ff00::/8 need no line.
const UNICAST_V6: Range6 = v6(0x2000, 0, 0, 0, 3);

/// The special parts of 2000::/3.
const SPECIAL_V6: [Range6; 4] = [
    // IETF protocol assignments, RFC 2928; with Teredo, benchmarking and ORCHID
    v6(0x2001, 0, 0, 0, 23),
    // Documentation, RFC 3849
    v6(0x2001, 0xdb8, 0, 0, 32),
    // 6to4, RFC 3056: as reachable as the IPv4 address in it, and deprecated by RFC 7526
    v6(0x2002, 0, 0, 0, 16),
    // Documentation, RFC 9637
    v6(0x3fff, 0, 0, 0, 20),
];

/// Globally reachable parts of the special ranges, and 64:ff9b::/96 outside 2000::/3.
const GLOBAL_V6: [Range6; 8] = [
    // IPv4 and IPv6 translation by the well-known prefix, RFC 6052
    v6(0x64, 0xff9b, 0, 0, 96),
    // Port Control Protocol anycast, RFC 7723; TURN anycast, RFC 8155; DNS-SD SRP anycast, RFC 9665
    Range6(Ipv6Addr::new(0x2001, 1, 0, 0, 0, 0, 0, 1), 128),
    Range6(Ipv6Addr::new(0x2001, 1, 0, 0, 0, 0, 0, 2), 128),
    Range6(Ipv6Addr::new(0x2001, 1, 0, 0, 0, 0, 0, 3), 128),
    // AMT, RFC 7450
    v6(0x2001, 3, 0, 0, 32),
    // AS112, RFC 7535
    v6(0x2001, 4, 0x112, 0, 48),
    // ORCHIDv2, RFC 7343
    v6(0x2001, 0x20, 0, 0, 28),
    // Drone remote ID, RFC 9374
    v6(0x2001, 0x30, 0, 0, 28),
];

/// Whether `addr` is not globally reachable: private, loopback, link local, multicast, documentation, reserved and so
/// on. IPv4 addresses in IPv6 clothes count as what they carry: `::ffff:a.b.c.d` is special whatever it maps, since
/// no packet on the Internet bears it, and `64:ff9b::a.b.c.d` is special if `a.b.c.d` is (RFC 6052 section 3.1).
pub fn is_special_purpose(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(addr) => special_v4(addr),
        IpAddr::V6(addr) => special_v6(addr),
    }
}

fn special_v4(addr: Ipv4Addr) -> bool {
    let within = |range: &Range4| (addr.to_bits() ^ range.0.to_bits()) >> (32 - range.1) == 0;
    SPECIAL_V4.iter().any(within) && !GLOBAL_V4.iter().any(within)
}

fn special_v6(addr: Ipv6Addr) -> bool {
    let within = |range: &Range6| (addr.to_bits() ^ range.0.to_bits()) >> (128 - range.1) == 0;
    if within(&GLOBAL_V6[0]) {
        return special_v4(Ipv4Addr::from_bits(addr.to_bits() as u32));
    }
    (!within(&UNICAST_V6) || SPECIAL_V6.iter().any(within)) && !GLOBAL_V6.iter().any(within)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn special(addr: &str) -> bool {
        is_special_purpose(addr.parse().unwrap())
    }

    /// Both ends of each special range, and the addresses just outside where they are global.
    #[test]
    fn special_ranges() {
        for (first, last, before, after) in [
            ("0.0.0.0", "0.255.255.255", None, Some("1.0.0.0")),
            ("10.0.0.0", "10.255.255.255", Some("9.255.255.255"), Some("11.0.0.0")),
            ("100.64.0.0", "100.127.255.255", Some("100.63.255.255"), Some("100.128.0.0")),
            ("127.0.0.0", "127.255.255.255", Some("126.255.255.255"), Some("128.0.0.0")),
            ("169.254.0.0", "169.254.255.255", Some("169.253.255.255"), Some("169.255.0.0")),
            ("172.16.0.0", "172.31.255.255", Some("172.15.255.255"), Some("172.32.0.0")),
            ("192.0.0.0", "192.0.0.8", Some("191.255.255.255"), Some("192.0.0.9")),
            ("192.0.0.11", "192.0.0.255", Some("192.0.0.10"), Some("192.0.1.0")),
            ("192.0.2.0", "192.0.2.255", Some("192.0.1.255"), Some("192.0.3.0")),
            ("192.88.99.0", "192.88.99.255", Some("192.88.98.255"), Some("192.88.100.0")),
            ("192.168.0.0", "192.168.255.255", Some("192.167.255.255"), Some("192.169.0.0")),
            ("198.18.0.0", "198.19.255.255", Some("198.17.255.255"), Some("198.20.0.0")),
            ("198.51.100.0", "198.51.100.255", Some("198.51.99.255"), Some("198.51.101.0")),
            ("203.0.113.0", "203.0.113.255", Some("203.0.112.255"), Some("203.0.114.0")),
            ("224.0.0.0", "255.255.255.255", Some("223.255.255.255"), None),
            ("::", "64:ff9a:ffff:ffff:ffff:ffff:ffff:ffff", None, None),
            ("::1", "::1", None, None),
            ("::ffff:0.0.0.0", "::ffff:255.255.255.255", None, None),
            ("::ffff:8.8.8.8", "::8.8.8.8", None, None),
            ("64:ff9b::1:0:0", "64:ff9b:1:ffff:ffff:ffff:ffff:ffff", Some("64:ff9b::223.255.255.255"), None),
            ("100::", "100::ffff:ffff:ffff:ffff", None, None),
            ("100:0:0:1::", "1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", None, Some("2000::")),
            ("2001::", "2001:1::", Some("2000:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), Some("2001:1::1")),
            ("2001:1::4", "2001:2:ffff:ffff:ffff:ffff:ffff:ffff", Some("2001:1::3"), Some("2001:3::")),
            ("2001:4::", "2001:4:111:ffff:ffff:ffff:ffff:ffff", Some("2001:3:ffff::"), Some("2001:4:112::")),
            ("2001:4:113::", "2001:1f:ffff:ffff:ffff:ffff:ffff:ffff", Some("2001:4:112:ffff::"), Some("2001:20::")),
            ("2001:40::", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff", Some("2001:3f:ffff::"), Some("2001:200::")),
            ("2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", Some("2001:db7:ffff::"), Some("2001:db9::")),
            ("2002::", "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Some("2001:ffff::"), Some("2003::")),
            ("3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff", Some("3ffe:ffff::"), Some("3fff:1000::")),
            ("4000::", "5eff:ffff::", Some("3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), None),
            ("5f00::", "5f00:ffff:ffff:ffff:ffff:ffff:ffff:ffff", None, None),
            ("fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", None, None),
            ("fe80::", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff", None, None),
            ("fec0::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", None, None),
        ] {
            assert!(special(first), "{first}");
            assert!(special(last), "{last}");
            for outside in [before, after].into_iter().flatten() {
                assert!(!special(outside), "{outside}");
            }
        }
    }

    #[test]
    fn translated_addresses_are_what_they_carry() {
        assert!(special("64:ff9b::10.0.0.1"));
        assert!(!special("64:ff9b::8.8.8.8"));
    }

    #[test]
    fn global_addresses() {
        for addr in ["104.197.117.10", "8.8.8.8", "192.31.196.1", "192.52.193.1", "192.175.48.1"] {
            assert!(!special(addr), "{addr}");
        }
        for addr in ["2001:4860:4860::8888", "2620:4f:8000::1", "2a00::1", "2001:30::1"] {
            assert!(!special(addr), "{addr}");
        }
    }
}
