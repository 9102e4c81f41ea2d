//! MaxMind DB files: read once into prefixes, never asked by a query.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;
use maxminddb::{MaxMindDbError, Reader, WithinOptions};
use serde::Deserialize;

use super::{Coordinates, Spot};

/// Networks of one database. The largest ones that are sold have some millions; a broken search tree may seem to have
/// any number.
pub const MAX_NETWORKS: usize = 20_000_000;

/// What a database says of a network, as far as it is used.
#[derive(Debug, Clone, PartialEq)]
pub struct Known<'a> {
    pub coordinates: Option<Coordinates>,
    /// ISO 3166-1.
    pub country: Option<&'a str>,
    /// AF, AN, AS, EU, NA, OC or SA.
    pub continent: Option<&'a str>,
    pub autonomous_system: Option<u32>,
}

#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    #[error("this is no MaxMind DB, or it is damaged: {0}")]
    Broken(MaxMindDbError),
    #[error("the database has more than {MAX_NETWORKS} networks, or its search tree is damaged")]
    TooMany,
}

/// The shape of the City, Country and ASN databases of MaxMind and of those that follow them.
#[derive(Deserialize)]
struct Record<'a> {
    #[serde(default)]
    location: Location,
    #[serde(borrow, default)]
    country: Country<'a>,
    /// Where the network is registered, which says more than nothing.
    #[serde(borrow, default)]
    registered_country: Country<'a>,
    #[serde(borrow, default)]
    continent: Continent<'a>,
    autonomous_system_number: Option<u32>,
}

#[derive(Deserialize, Default)]
struct Location {
    latitude: Option<f64>,
    longitude: Option<f64>,
}

#[derive(Deserialize, Default)]
struct Country<'a> {
    iso_code: Option<&'a str>,
}

#[derive(Deserialize, Default)]
struct Continent<'a> {
    code: Option<&'a str>,
}

/// The networks of a database whose place `place` knows. IPv4 networks come as such, and once.
pub fn read_database(
    octets: &[u8],
    place: impl Fn(Known<'_>) -> Option<Spot>,
) -> Result<Vec<(IpNet, Spot)>, DatabaseError> {
    let reader = Reader::from_source(octets).map_err(DatabaseError::Broken)?;
    let networks = reader.networks(WithinOptions::default().skip_empty_values()).map_err(DatabaseError::Broken)?;
    let mut places = Vec::new();
    // Many networks share a record.
    let mut spots: HashMap<usize, Option<Spot>> = HashMap::new();
    for (n, found) in networks.enumerate() {
        if n >= MAX_NETWORKS {
            return Err(DatabaseError::TooMany);
        }
        let found = found.map_err(DatabaseError::Broken)?;
        let Some(offset) = found.offset() else { continue };
        let spot = match spots.get(&offset) {
            Some(spot) => spot,
            None => {
                let record: Option<Record<'_>> = found.decode().map_err(DatabaseError::Broken)?;
                spots.entry(offset).or_insert(record.and_then(|record| place(record.into())))
            }
        };
        if let Some(spot) = spot {
            let network = found.network().map_err(DatabaseError::Broken)?;
            // A prefix is never longer than its family's address.
            places.extend(IpNet::new(network.ip(), network.prefix()).ok().map(|net| (net.trunc(), spot.clone())));
        }
    }
    Ok(places)
}

/// The network of one address, and its place, if `place` knows it.
pub fn find_in_database(
    octets: &[u8],
    address: IpAddr,
    place: impl Fn(Known<'_>) -> Option<Spot>,
) -> Result<Option<(IpNet, Spot)>, DatabaseError> {
    let reader = Reader::from_source(octets).map_err(DatabaseError::Broken)?;
    if address.is_ipv6() && reader.metadata().ip_version == 4 {
        return Ok(None);
    }
    let found = reader.lookup(address).map_err(DatabaseError::Broken)?;
    let record: Option<Record<'_>> = found.decode().map_err(DatabaseError::Broken)?;
    let Some(spot) = record.and_then(|record| place(record.into())) else { return Ok(None) };
    let network = found.network().map_err(DatabaseError::Broken)?;
    Ok(IpNet::new(network.ip(), network.prefix()).ok().map(|net| (net.trunc(), spot)))
}

impl<'a> From<Record<'a>> for Known<'a> {
    fn from(record: Record<'a>) -> Known<'a> {
        let Location { latitude, longitude } = record.location;
        Known {
            coordinates: latitude.zip(longitude).and_then(|(n, e)| Coordinates::new(n, e).ok()),
            country: record.country.iso_code.or(record.registered_country.iso_code),
            continent: record.continent.code,
            autonomous_system: record.autonomous_system_number,
        }
    }
}

#[cfg(test)]
#[path = "../../tests/support/mmdb.rs"]
mod file;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::file::{Value, city, write};
    use super::*;
    use crate::model::Region;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn small() -> Vec<u8> {
        let values = [
            city(40.71, -74.01, "US", "NA"),
            city(35.68, 139.69, "JP", "AS"),
            Value::Map(vec![("autonomous_system_number", Value::Number(64_500))]),
            Value::Map(vec![("registered_country", Value::Map(vec![("iso_code", Value::Text("DE"))]))]),
            city(900.0, 0.0, "XX", "EU"),
        ];
        let networks = [
            ("192.0.2.0/24", 0),
            ("198.51.100.0/23", 1),
            ("198.51.101.0/24", 0),
            ("2001:db8::/32", 1),
            ("10.0.0.0/8", 2),
            ("11.0.0.0/8", 3),
            ("12.0.0.0/8", 4),
        ];
        write(&values, &networks.map(|(text, value)| (net(text), value)))
    }

    /// One word for each thing that is known.
    fn spot(known: Known<'_>) -> Option<Spot> {
        let text = format!("{:?} {:?} {:?}", known.country, known.continent, known.autonomous_system);
        Some(Spot { region: Some(Region(Arc::from(text))), coordinates: known.coordinates, ..Spot::default() })
    }

    #[test]
    fn networks_and_what_is_known() {
        let mut places = read_database(&small(), spot).unwrap();
        places.sort_by_key(|(net, _)| *net);
        let text = |(net, spot): &(IpNet, Spot)| {
            let degrees = spot.coordinates.map(|c| (c.latitude(), c.longitude()));
            format!("{net} {} {degrees:?}", spot.region.as_ref().unwrap().0)
        };
        assert_eq!(
            places.iter().map(text).collect::<Vec<_>>(),
            [
                "10.0.0.0/8 None None Some(64500) None",
                "11.0.0.0/8 Some(\"DE\") None None None",
                "12.0.0.0/8 Some(\"XX\") Some(\"EU\") None None",
                "192.0.2.0/24 Some(\"US\") Some(\"NA\") None Some((40.71, -74.01))",
                "198.51.100.0/24 Some(\"JP\") Some(\"AS\") None Some((35.68, 139.69))",
                "198.51.101.0/24 Some(\"US\") Some(\"NA\") None Some((40.71, -74.01))",
                "2001:db8::/32 Some(\"JP\") Some(\"AS\") None Some((35.68, 139.69))",
            ]
        );
        assert_eq!(read_database(&small(), |_| None).unwrap(), []);
    }

    /// The file that `config/reference.yaml` names.
    #[test]
    fn the_example() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/config/example.mmdb");
        let values = [
            city(40.71, -74.01, "US", "NA"),
            city(35.68, 139.69, "JP", "AS"),
            Value::Map(vec![("country", Value::Map(vec![("iso_code", Value::Text("CA"))]))]),
        ];
        let networks = [("203.0.113.0/25", 0), ("203.0.113.128/26", 1), ("2001:db8:200::/40", 2)];
        let written = write(&values, &networks.map(|(text, value)| (net(text), value)));
        assert!(std::fs::read(path).unwrap() == written, "it is not what this test writes");
    }

    /// Cut off or changed anywhere, it is refused or says something else, and nothing more.
    #[test]
    fn damaged_files() {
        let good = small();
        for text in [&b""[..], b"not a database", &good[..good.len() / 2]] {
            assert!(read_database(text, spot).is_err());
        }
        for cut in (0..good.len()).step_by(7) {
            let _ = read_database(&good[..cut], spot);
        }
        for at in (0..good.len()).rev().take(3_000) {
            for flip in [0x01, 0x80, 0xFF] {
                let mut bad = good.clone();
                bad[at] ^= flip;
                let _ = read_database(&bad, spot);
            }
        }
    }
}
