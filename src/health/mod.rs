//! Which external addresses work: from probes to votes, from votes to verdicts. Pure: no clock, no socket, no chance.
//!
//! Removal needs a quorum; a suspicion changes the order inside a band and nothing else. What cannot be known is served.

/// A deliberate defect, for the simulator to find; in the program there are none.
#[cfg(test)]
macro_rules! defect {
    ($name:ident) => {
        $crate::health::simulator::has($crate::health::simulator::Defect::$name)
    };
}
#[cfg(not(test))]
macro_rules! defect {
    ($name:ident) => {
        false
    };
}
pub(crate) use defect;

mod ballot;
mod board;
mod breaker;
mod council;
mod history;
#[cfg(test)]
pub mod simulator;
mod verdict;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;
use std::sync::Arc;

pub use ballot::Ballot;
pub use board::{Board, Condition, Effects, Own, Sums, Way};
pub use breaker::{Breaker, Isolation, Standings};
pub use council::{Affected, Council, FRESH, Silence, VoterSight, electorate};
pub use history::{Failures, History};
pub use verdict::{Case, Quorum, Tally, Verdict};

use crate::model::check::Check;

/// What answers are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Health {
    /// Or unknown.
    #[default]
    Fine,
    /// Somebody says that it is Down, and no quorum does: behind the others of its band.
    Suspect,
    /// Left out, unless nobody else is there.
    Down,
}

/// What is connected to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Probe {
    pub address: IpAddr,
    /// TCP.
    pub port: NonZeroU16,
    /// `None`: whether a connection can be opened.
    pub check: Option<Arc<Check>>,
}

/// What one voter says of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Vote {
    Up,
    Down,
    Abstain,
}

/// How many clusters may be lost at once, of so many, before it is likelier that the observer is: floor((m - 1) / 2).
pub fn tolerated(clusters: usize) -> usize {
    clusters.saturating_sub(1) / 2
}

/// What nobody may make us connect to: ourselves, our links, and what clouds tell their machines about themselves.
pub fn may_be_probed(address: IpAddr) -> bool {
    /// Of clouds that do not use a link-local one.
    const METADATA: [IpAddr; 3] = [
        IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
        IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
        IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    ];
    let v4 = |a: Ipv4Addr| {
        !(a.is_loopback() || a.is_link_local() || a.is_multicast() || a.octets()[0] == 0 || a.octets()[0] >= 240)
    };
    let address = address.to_canonical();
    let allowed = match address {
        IpAddr::V4(a) => v4(a),
        // Of ::/8 nothing is an address of a host, and 64:ff9b::/96 leads to the IPv4 address in it.
        IpAddr::V6(a) => {
            let embedded = a.segments()[..6] == [0x64, 0xff9b, 0, 0, 0, 0];
            let last = a.octets();
            let inner = Ipv4Addr::new(last[12], last[13], last[14], last[15]);
            !a.is_multicast()
                && !a.is_unicast_link_local()
                && (if embedded { v4(inner) && !METADATA.contains(&inner.into()) } else { a.octets()[0] != 0 })
        }
    };
    allowed && !METADATA.contains(&address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_must_not_be_probed() {
        for address in [
            "127.0.0.1",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "169.254.1.1",
            "224.0.0.1",
            "255.255.255.255",
            "240.0.0.1",
            "100.100.100.200",
            "192.0.0.192",
            "::",
            "::1",
            "fe80::1",
            "ff02::1",
            "fd00:ec2::254",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::7f00:1",
            "64:ff9b::6464:64c8",
            "::7f00:1",
        ] {
            assert!(!may_be_probed(address.parse().unwrap()), "{address}");
        }
        for address in ["192.0.2.1", "10.0.0.1", "100.64.0.1", "8.8.8.8", "2001:db8::1", "fd00::1", "64:ff9b::808:808"]
        {
            assert!(may_be_probed(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn so_many_clusters_may_be_lost() {
        assert_eq!([0, 1, 2, 3, 4, 5, 7].map(tolerated), [0, 0, 0, 1, 1, 2, 3]);
    }
}
