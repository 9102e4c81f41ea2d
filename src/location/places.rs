//! Files of the operator that say where clients are, one prefix a line: `CIDR REGION [AVAILABILITY-ZONE]`.

use std::collections::HashMap;
use std::sync::Arc;

use ipnet::IpNet;

use super::Spot;
use crate::model::{AvailabilityZone, Region};

/// What is wrong with a line, which is left out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlaceFault {
    #[error("expected a CIDR, a region and perhaps an availability zone, found {0} words")]
    Words(usize),
    #[error("{0:?} is not a CIDR, as in 192.0.2.0/24 or 2001:db8::/32")]
    Cidr(String),
    #[error("{cidr} has bits set behind its prefix; the network is {network}")]
    HostBits { cidr: IpNet, network: IpNet },
    #[error("{cidr} stands in line {line} already, with another place")]
    Overlap { cidr: IpNet, line: usize },
    #[error("nobody says where the region {0:?} is: give it coordinates in location.regions")]
    UnknownRegion(String),
}

/// A line that is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlaceLine {
    /// From 1.
    pub line: usize,
    pub fault: PlaceFault,
}

/// Lines may be empty and end in a comment behind `#`. Prefixes may be nested. `is_known`: a region of which something is known;
/// another one would tell no cluster from another.
pub fn parse_places(text: &str, is_known: impl Fn(&Region) -> bool) -> (Vec<(IpNet, Spot)>, Vec<PlaceLine>) {
    let mut places: Vec<(IpNet, Spot)> = Vec::new();
    let mut faults = Vec::new();
    let mut seen: HashMap<IpNet, (usize, usize)> = HashMap::new();
    let mut regions: HashMap<&str, (Region, bool)> = HashMap::new();
    for (line, text) in (1..).zip(text.lines()) {
        let words: Vec<&str> = text.split('#').next().unwrap_or_default().split_whitespace().collect();
        let mut fault = |fault| faults.push(PlaceLine { line, fault });
        let (cidr, region, zone) = match words[..] {
            [] => continue,
            [cidr, region] => (cidr, region, None),
            [cidr, region, zone] => (cidr, region, Some(zone)),
            _ => {
                fault(PlaceFault::Words(words.len()));
                continue;
            }
        };
        let cidr = match parse_cidr(cidr) {
            Ok(cidr) => cidr,
            Err(problem) => {
                fault(problem);
                continue;
            }
        };
        let (known, is_known) = regions.entry(region).or_insert_with(|| {
            let region = Region(Arc::from(region));
            let is_known = is_known(&region);
            (region, is_known)
        });
        if !*is_known {
            fault(PlaceFault::UnknownRegion(shortened(region)));
            continue;
        }
        let availability_zones = zone.map(|zone| AvailabilityZone(Arc::from(zone))).into_iter().collect();
        let spot = Spot { region: Some(known.clone()), availability_zones, coordinates: None };
        match seen.get(&cidr) {
            Some(&(_, at)) if places[at].1 == spot => {}
            Some(&(first, _)) => fault(PlaceFault::Overlap { cidr, line: first }),
            None => {
                seen.insert(cidr, (line, places.len()));
                places.push((cidr, spot));
            }
        }
    }
    (places, faults)
}

fn parse_cidr(text: &str) -> Result<IpNet, PlaceFault> {
    let cidr: IpNet = text.parse().map_err(|_| PlaceFault::Cidr(shortened(text)))?;
    let network = cidr.trunc();
    if cidr == network { Ok(cidr) } else { Err(PlaceFault::HostBits { cidr, network }) }
}

/// 80 characters show what is wrong with any word.
fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_line_costs_itself_alone() {
        let text = "\
            # offices\n\
            192.0.2.0/24 fra   # Frankfurt\n\
            192.0.2.128/25\tnyc nyc-a\n\
            \n\
            2001:db8::/32 nyc\n\
            192.0.2.1/24 nyc\n\
            192.0.2.0 nyc\n\
            192.0.2.0/24\n\
            a b c d\n\
            192.0.2.0/24 nyc\n\
            192.0.2.0/24 fra\n\
            10.0.0.0/8 moon\n";
        let (places, faults) = parse_places(text, |region| &*region.0 != "moon");
        let place = |(net, spot): &(IpNet, Spot)| {
            let zones: Vec<&str> = spot.availability_zones.iter().map(|zone| &*zone.0).collect();
            format!("{net} {} {}", spot.region.as_ref().unwrap().0, zones.join(","))
        };
        let places: Vec<String> = places.iter().map(place).collect();
        assert_eq!(places, ["192.0.2.0/24 fra ", "192.0.2.128/25 nyc nyc-a", "2001:db8::/32 nyc "]);
        let faults: Vec<String> = faults.iter().map(|line| format!("{}: {}", line.line, line.fault)).collect();
        assert_eq!(
            faults,
            [
                "6: 192.0.2.1/24 has bits set behind its prefix; the network is 192.0.2.0/24",
                "7: \"192.0.2.0\" is not a CIDR, as in 192.0.2.0/24 or 2001:db8::/32",
                "8: expected a CIDR, a region and perhaps an availability zone, found 1 words",
                "9: expected a CIDR, a region and perhaps an availability zone, found 4 words",
                "10: 192.0.2.0/24 stands in line 2 already, with another place",
                "12: nobody says where the region \"moon\" is: give it coordinates in location.regions",
            ]
        );
    }
}
