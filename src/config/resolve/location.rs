//! Places: regions, distances, and where clients are.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ipnet::IpNet;

use super::clusters::cidr;
use super::{Resolver, shortened};
use crate::config::error::{Fault, Words};
use crate::config::location::{Database, Location, Places};
use crate::config::raw::{At, RawDatabase, RawDistance, RawLocation, RawPlace, RawRegion};
use crate::config::{Cluster, MAX_DATABASES, MAX_DISTANCES, MAX_PLACE_CIDRS, MAX_PLACES, MAX_REGIONS};
use crate::location::{Coordinates, coordinates};
use crate::model::{AvailabilityZone, Region};

const CONTINENTS: [&str; 7] = ["AF", "AN", "AS", "EU", "NA", "OC", "SA"];
/// Half of the Earth's circumference is 20,037 km; a detour may be longer.
const MAX_KILOMETERS: u64 = 100_000;

impl Resolver<'_> {
    pub(super) fn location(&mut self, raw: Option<RawLocation>, clusters: &[Cluster]) -> Location {
        let Some(raw) = raw else { return Location::default() };
        let regions = self.regions(raw.regions);
        let distances = self.distances(raw.distances);
        // A region that nothing is known of tells no cluster from another one.
        let mut known: BTreeSet<Region> = regions.keys().cloned().collect();
        known.extend(clusters.iter().filter_map(|cluster| cluster.region.clone()));
        known.extend(distances.keys().flat_map(|(one, other)| [one.clone(), other.clone()]));

        let list = self.list(raw.places, "location.places", "places", MAX_PLACES);
        let mut given = HashMap::new();
        let mut places = Vec::with_capacity(list.len());
        for (i, place) in list.into_iter().enumerate() {
            places.extend(self.places(place, &format!("location.places[{i}]"), &known, &mut given));
        }
        let list = self.list(raw.databases, "location.databases", "databases", MAX_DATABASES);
        let mut databases = Vec::with_capacity(list.len());
        for (i, database) in list.into_iter().enumerate() {
            databases.push(self.database(database, &format!("location.databases[{i}]"), &known));
        }
        Location { regions, distances, places, databases }
    }

    fn regions(&mut self, raw: Option<At<Vec<RawRegion>>>) -> BTreeMap<Region, Coordinates> {
        let mut regions = BTreeMap::new();
        for (i, raw) in self.list(raw, "location.regions", "regions", MAX_REGIONS).into_iter().enumerate() {
            let key = format!("location.regions[{i}]");
            let coordinates = Coordinates::new(raw.latitude.value, raw.longitude.value);
            let coordinates = coordinates.map_err(|error| {
                self.fault(&raw.latitude, format!("{key}.latitude"), Fault::Coordinates(error));
            });
            let text = shortened(&raw.name.value);
            let at = raw.name.clone();
            let name_key = format!("{key}.name");
            let name = self.topology(Some(raw.name), &name_key).map(Region);
            if let (Some(name), Ok(coordinates)) = (name, coordinates)
                && regions.insert(name, coordinates).is_some()
            {
                self.fault(&at, name_key, Fault::Repeated { text });
            }
        }
        regions
    }

    fn distances(&mut self, raw: Option<At<Vec<RawDistance>>>) -> BTreeMap<(Region, Region), u32> {
        let mut distances = BTreeMap::new();
        for (i, raw) in self.list(raw, "location.distances", "distances", MAX_DISTANCES).into_iter().enumerate() {
            let key = format!("location.distances[{i}]");
            let kilometers =
                self.number(Some(raw.kilometers), &format!("{key}.kilometers"), 0..=MAX_KILOMETERS, "km", 0);
            let between_key = format!("{key}.between");
            let ends: Vec<Region> = (raw.between.value.iter().enumerate())
                .filter_map(|(j, end)| self.topology(Some(end.clone()), &format!("{between_key}[{j}]")).map(Region))
                .collect();
            let (one, other) = match &ends[..] {
                [a, b] if a < b => (a.clone(), b.clone()),
                [a, b] if a > b => (b.clone(), a.clone()),
                _ if ends.len() < raw.between.value.len() => continue,
                _ => {
                    self.fault(&raw.between, between_key, Fault::Between);
                    continue;
                }
            };
            let text = format!("{} and {}", one.0, other.0);
            if distances.insert((one, other), kilometers).is_some() {
                self.fault(&raw.between, between_key, Fault::Repeated { text });
            }
        }
        distances
    }

    /// `given`: which CIDR stands where.
    fn places(
        &mut self,
        raw: RawPlace,
        key: &str,
        known: &BTreeSet<Region>,
        given: &mut HashMap<IpNet, String>,
    ) -> Option<Places> {
        match (raw.region, raw.cidrs, &raw.file) {
            (Some(region), Some(cidrs), None) => {
                let region = self.known_region(&region, &format!("{key}.region"), known);
                let availability_zone = self.topology(raw.availability_zone, &format!("{key}.availabilityZone"));
                let list = self.list(Some(cidrs), &format!("{key}.cidrs"), "CIDRs", MAX_PLACE_CIDRS);
                let mut cidrs = Vec::with_capacity(list.len());
                for (j, raw) in list.into_iter().enumerate() {
                    let key = format!("{key}.cidrs[{j}]");
                    match cidr(&raw.value) {
                        Err(fault) => self.fault(&raw, key, fault),
                        Ok(cidr) => match given.get(&cidr) {
                            Some(other) => {
                                let fault = Fault::Overlap { cidr, other: cidr, key: other.clone() };
                                self.fault(&raw, key, fault);
                            }
                            None => {
                                given.insert(cidr, key);
                                cidrs.push(cidr);
                            }
                        },
                    }
                }
                let availability_zone = availability_zone.map(AvailabilityZone);
                Some(Places::Inline { region: region?, availability_zone, cidrs })
            }
            (None, None, Some(file)) => {
                if let Some(zone) = &raw.availability_zone {
                    self.fault(zone, format!("{key}.availabilityZone"), Fault::PlaceShape);
                }
                Some(Places::File(self.file(file, &format!("{key}.file"), "the places' file")))
            }
            (region, cidrs, file) => {
                let place = region.map(|r| r.referenced).or(cidrs.map(|c| c.referenced));
                let place = place.or(file.as_ref().map(|f| f.referenced)).and_then(crate::config::raw::place);
                self.fault_at(place, key, Fault::PlaceShape);
                None
            }
        }
    }

    fn database(&mut self, raw: RawDatabase, key: &str, known: &BTreeSet<Region>) -> Database {
        let file = self.file(&raw.file, &format!("{key}.file"), "the database");
        let mut autonomous_systems = BTreeMap::new();
        for (number, region) in raw.autonomous_systems.unwrap_or_default() {
            let key = format!("{key}.autonomousSystems.{number}");
            autonomous_systems.extend(self.known_region(&region, &key, known).map(|region| (number, region)));
        }
        let mut codes = |raw: Option<BTreeMap<String, At<String>>>, name: &str, is: fn(&str) -> bool| {
            let mut regions = BTreeMap::new();
            for (code, region) in raw.unwrap_or_default() {
                let key = format!("{key}.{name}.{}", shortened(&code));
                if !is(&code) {
                    self.fault(&region, key, Fault::Code(shortened(&code)));
                } else if let Some(region) = self.known_region(&region, &key, known) {
                    regions.insert(code, region);
                }
            }
            regions
        };
        let country = |code: &str| code.len() == 2 && code.bytes().all(|b| b.is_ascii_uppercase());
        let countries = codes(raw.countries, "countries", country);
        let continents = codes(raw.continents, "continents", |code| CONTINENTS.contains(&code));
        Database { file, autonomous_systems, countries, continents }
    }

    fn known_region(&mut self, raw: &At<String>, key: &str, known: &BTreeSet<Region>) -> Option<Region> {
        let region = self.topology(Some(raw.clone()), key).map(Region)?;
        if !known.contains(&region) && coordinates(&region.0).is_none() {
            let names: Vec<&str> = known.iter().map(|region| &*region.0).collect();
            let known = Words::new(&raw.value, &names);
            self.fault(raw, key, Fault::UnknownRegion { name: shortened(&raw.value), known });
        }
        Some(region)
    }
}
