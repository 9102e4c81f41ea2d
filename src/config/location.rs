//! Where clusters and clients are, as far as the configuration says.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ipnet::IpNet;

use crate::location::{self, Coordinates};
use crate::model::{AvailabilityZone, Region};

/// What is known of places besides the clusters' own.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Location {
    /// Where regions are, over what is built in.
    pub regions: BTreeMap<Region, Coordinates>,
    /// Kilometres between two regions, over what their coordinates say. In order, and never of one region.
    pub distances: BTreeMap<(Region, Region), u32>,
    /// Where clients outside are. The longest match of all of them counts.
    pub places: Vec<Places>,
    /// Asked where no place and no cluster holds the client, in their order.
    pub databases: Vec<Database>,
}

impl Location {
    /// Where a region is: as it is configured, or as it is known.
    pub fn coordinates(&self, region: &Region) -> Option<Coordinates> {
        self.regions.get(region).copied().or_else(|| location::coordinates(&region.0))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Places {
    Inline {
        region: Region,
        availability_zone: Option<AvailabilityZone>,
        cidrs: Vec<IpNet>,
    },
    /// Lines of CIDR, region and perhaps availability zone; read again when it changes.
    File(PathBuf),
}

/// A MaxMind DB file, read again when it changes. What it says of an address: the first of these that applies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    pub file: PathBuf,
    /// By number of the autonomous system.
    pub autonomous_systems: BTreeMap<u32, Region>,
    /// By ISO 3166-1 code, in upper case.
    pub countries: BTreeMap<String, Region>,
    // Then the coordinates that the database gives; then:
    /// AF, AN, AS, EU, NA, OC, SA.
    pub continents: BTreeMap<String, Region>,
}
