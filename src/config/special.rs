//! Which address ranges load balancers may be declared to live in (the IANA special-purpose address registries, RFC 6890).

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::error::Fault;
use crate::location::is_special_purpose;

/// Addresses that are never published, whatever is declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Never {
    /// "This network" and the unspecified address.
    Unspecified,
    Multicast,
    Broadcast,
    /// `::ffff:0:0/96` never stands in an AAAA record.
    Mapped,
}

impl Never {
    pub fn name(self) -> &'static str {
        match self {
            Never::Unspecified => "unspecified",
            Never::Multicast => "multicast",
            Never::Broadcast => "broadcast",
            Never::Mapped => "IPv4-mapped",
        }
    }
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(std::net::Ipv4Addr::new(a, b, c, d), prefix))
}

const fn v6(s: [u16; 8], prefix: u8) -> IpNet {
    let address = std::net::Ipv6Addr::new(s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7]);
    IpNet::V6(Ipv6Net::new_assert(address, prefix))
}

const NEVER: [(IpNet, Never); 6] = [
    (v4(0, 0, 0, 0, 8), Never::Unspecified),
    (v4(224, 0, 0, 0, 4), Never::Multicast),
    (v4(255, 255, 255, 255, 32), Never::Broadcast),
    (v6([0; 8], 128), Never::Unspecified),
    (v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8), Never::Multicast),
    (v6([0, 0, 0, 0, 0, 0xffff, 0, 0], 96), Never::Mapped),
];

/// Whether `cidr` may be declared as a home of load balancers.
///
/// A range with globally routable addresses in it is refused because it would look like a restriction: those are published
/// whether they are declared or not.
pub(super) fn declarable(cidr: IpNet) -> Result<(), Fault> {
    let overlaps = |range: &IpNet| range.contains(&cidr) || cidr.contains(range);
    if let Some(&(range, never)) = NEVER.iter().find(|(range, _)| overlaps(range)) {
        return Err(Fault::NeverPublished { cidr, never, range });
    }
    // No special-purpose range is a part of a longer one's gap, so that the ends tell of what lies between.
    let special = is_special_purpose(cidr.network()) && is_special_purpose(cidr.broadcast());
    if special { Ok(()) } else { Err(Fault::Global(cidr)) }
}

/// Whether `cidr` may be declared as a home of load balancers with globally routable addresses. It may have others in it, of which
/// that says nothing.
pub(super) fn routable(cidr: IpNet) -> Result<(), Fault> {
    match declarable(cidr) {
        Ok(()) => Err(Fault::NotGlobal(cidr)),
        Err(Fault::NeverPublished { never, range, .. }) if range.contains(&cidr) => {
            Err(Fault::NeverPublished { cidr, never, range })
        }
        Err(_) => Ok(()),
    }
}

/// Whether the operator may have `address` published as a service's.
pub(super) fn publishable(address: IpAddr) -> Result<IpAddr, Fault> {
    match NEVER.iter().find(|(range, _)| range.contains(&address)) {
        Some(&(_, never)) => Err(Fault::NeverAddress { address, never }),
        None => Ok(address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_special_range_can_be_declared_and_no_other() {
        for range in ["10.0.0.0/8", "100.64.0.0/10", "192.0.2.0/24", "240.0.0.0/5", "2001:db8::/32", "fc00::/7"] {
            let range: IpNet = range.parse().unwrap();
            assert!(declarable(range).is_ok(), "{range}");
            // What is one bit wider holds the addresses next to the range.
            let wider = range.supernet().expect("no range is everything");
            assert!(declarable(wider).is_err(), "{wider}");
        }
        for (range, _) in NEVER {
            assert!(matches!(declarable(range), Err(Fault::NeverPublished { .. })), "{range}");
        }
        for global in ["1.0.0.0/8", "8.8.8.8/32", "2001:4860::/32", "2600::/12"] {
            let cidr = global.parse().expect("a CIDR");
            assert!(matches!(declarable(cidr), Err(Fault::Global(_))), "{global}");
            assert!(routable(cidr).is_ok(), "{global}");
        }
        for special in ["10.0.0.0/8", "fd00::/8", "192.168.1.0/24"] {
            assert!(matches!(routable(special.parse().expect("a CIDR")), Err(Fault::NotGlobal(_))), "{special}");
        }
        assert!(matches!(routable(v4(239, 0, 0, 0, 8)), Err(Fault::NeverPublished { .. })));
        assert!(routable("0.0.0.0/0".parse().expect("a CIDR")).is_ok());
    }
}
