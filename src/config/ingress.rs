//! Which addresses of a cluster's load balancers are published, and to whom.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::location::is_special_purpose;

/// Where a cluster's load balancers live. What is never published (unspecified, multicast and the like) is in none of these.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IngressRanges {
    /// Special-purpose ranges (RFC 6890) whose addresses everybody is told, and those that are told inside of clusters only. The
    /// longest prefix counts.
    pub everywhere: Vec<IpNet>,
    pub inside: Vec<IpNet>,
    /// The globally routable ranges; `None`: all.
    pub global: Option<Vec<IpNet>>,
}

/// Who is told an address of a load balancer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    Everywhere,
    /// To clients inside of clusters, whichever it is.
    Inside,
    Nowhere,
}

impl IngressRanges {
    pub fn published(&self, address: IpAddr) -> Published {
        if !is_special_purpose(address) {
            return match &self.global {
                Some(ranges) if longest(ranges, address).is_none() => Published::Nowhere,
                Some(_) | None => Published::Everywhere,
            };
        }
        match (longest(&self.everywhere, address), longest(&self.inside, address)) {
            (None, None) => Published::Nowhere,
            (everywhere, inside) if everywhere > inside => Published::Everywhere,
            _ => Published::Inside,
        }
    }

    /// Whether a range of this cluster holds the address, so that no other one's load balancers should have it.
    pub fn claim(&self, address: IpAddr) -> bool {
        let lists = [Some(&self.everywhere), Some(&self.inside), self.global.as_ref()];
        lists.into_iter().flatten().any(|ranges| longest(ranges, address).is_some())
    }
}

/// The length of the longest prefix that holds the address.
fn longest(ranges: &[IpNet], address: IpAddr) -> Option<u8> {
    ranges.iter().filter(|range| range.contains(&address)).map(IpNet::prefix_len).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_says_who_is_told() {
        let list = |list: &[&str]| list.iter().map(|cidr| cidr.parse().unwrap()).collect::<Vec<IpNet>>();
        let ranges = IngressRanges {
            everywhere: list(&["10.0.0.0/8", "10.1.2.0/24", "fd00:1::/32"]),
            inside: list(&["10.1.0.0/16", "172.16.0.0/12"]),
            global: None,
        };
        let some = IngressRanges { global: Some(list(&["104.16.0.0/13", "2600::/32"])), ..ranges.clone() };
        let none = IngressRanges { global: Some(Vec::new()), ..IngressRanges::default() };
        use Published::{Everywhere, Inside, Nowhere};
        for (address, expected) in [
            ("10.2.0.1", [Everywhere, Everywhere, Nowhere]),
            ("10.1.0.1", [Inside, Inside, Nowhere]),
            ("10.1.2.1", [Everywhere, Everywhere, Nowhere]),
            ("172.16.0.1", [Inside, Inside, Nowhere]),
            ("192.168.0.1", [Nowhere, Nowhere, Nowhere]),
            ("fd00:1::1", [Everywhere, Everywhere, Nowhere]),
            ("fd00:2::1", [Nowhere, Nowhere, Nowhere]),
            ("104.17.0.1", [Everywhere, Everywhere, Nowhere]),
            ("8.8.8.8", [Everywhere, Nowhere, Nowhere]),
            ("2600::1", [Everywhere, Everywhere, Nowhere]),
            ("2601::1", [Everywhere, Nowhere, Nowhere]),
        ] {
            let address = address.parse().unwrap();
            assert_eq!([&ranges, &some, &none].map(|ranges| ranges.published(address)), expected, "{address}");
        }
        assert!(some.claim("104.17.0.1".parse().unwrap()) && !ranges.claim("104.17.0.1".parse().unwrap()));
    }
}
