//! The files that say where clients are: read at the start and with each configuration, and again when they change.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::federation::retire;
use crate::config::{Config, Database, Places};
use crate::explain::{Matched, Whereabouts};
use crate::location::{
    DatabaseError, Known, PlaceLine, Spot, coordinates, find_in_database, parse_places, read_database,
};
use crate::metrics::{Metrics, PlacesSample, Reload};
use crate::model::Region;
use crate::source::Stamp;
use crate::table::{Atlas, Cartographer, Layer, clients, inline_places};

/// How often it is looked whether a file has changed. What has changed is read when it has been the same for as long.
const GLANCE: Duration = Duration::from_secs(1);
/// Octets of a file with places: 20 million lines.
const MAX_PLACES_FILE: u64 = 1 << 30;
/// Octets of a database: the largest ones that are sold have some hundred million.
const MAX_DATABASE: u64 = 4 << 30;
/// Of the thread that reads, on top of the process's own.
const NICENESS: i32 = 10;
/// Addresses of which it is remembered what says where they are.
const MOST_KEPT: usize = 64;
/// Most lines of a file of which it is told what is wrong with them.
const MAX_TOLD: usize = 20;

/// What reading all files came to.
pub struct Reading {
    pub problems: Vec<PlacesProblem>,
    /// What each file was when it was read; in the order of [`files`].
    stamps: Vec<Option<Stamp>>,
    /// Those of them that said nothing.
    broken: Vec<bool>,
    sample: PlacesSample,
}

/// Why a file, or a line of it, is not used.
#[derive(Debug, thiserror::Error)]
pub enum PlacesProblem {
    #[error("{}: cannot be read: {error}; nothing is known from it", path.display())]
    Unreadable { path: PathBuf, error: io::Error },
    #[error("{}: {error}; nothing is known from it", path.display())]
    Database { path: PathBuf, error: DatabaseError },
    #[error("{}:{}: {}; the line is left out", path.display(), line.line, line.fault)]
    Line { path: PathBuf, line: PlaceLine },
    #[error("{}: and {more} more lines are left out", path.display())]
    MoreLines { path: PathBuf, more: usize },
    #[error("location: {0} prefixes are left out: there are more than 65535 different orders of the clusters")]
    Orders(usize),
}

/// Those with places, one prefix a line.
fn place_files(config: &Config) -> impl Iterator<Item = &Path> {
    config.location.places.iter().filter_map(|place| match place {
        Places::File(path) => Some(path.as_path()),
        Places::Inline { .. } => None,
    })
}

/// The files that `config` names, those with places first.
fn files(config: &Config) -> Vec<&Path> {
    place_files(config).chain(config.location.databases.iter().map(|database| database.file.as_path())).collect()
}

/// Reads all files. What is wrong with one costs itself only.
pub fn read(config: &Config) -> (Atlas, Reading) {
    let stamps = files(config).into_iter().map(Stamp::of).collect();
    let mut problems = Vec::new();
    let (mut broken, mut left_out) = (Vec::new(), 0);
    let mut places = Layer::new();
    for path in place_files(config) {
        match read_text(path) {
            Ok(text) => {
                let (layer, lines) = parse_places(&text, |region| is_known(config, region));
                places.extend(layer);
                left_out += lines.len();
                let more = lines.len().saturating_sub(MAX_TOLD);
                let told = lines.into_iter().take(MAX_TOLD);
                problems.extend(told.map(|line| PlacesProblem::Line { path: path.to_owned(), line }));
                if more > 0 {
                    problems.push(PlacesProblem::MoreLines { path: path.to_owned(), more });
                }
                broken.push(false);
            }
            Err(error) => {
                problems.push(PlacesProblem::Unreadable { path: path.to_owned(), error });
                broken.push(true);
            }
        }
    }
    let mut databases = Vec::new();
    for database in &config.location.databases {
        let path = &database.file;
        let layer = match read_limited(path, MAX_DATABASE) {
            Ok(octets) => read_database(&octets, |known| spot(known, database))
                .map_err(|error| PlacesProblem::Database { path: path.clone(), error }),
            Err(error) => Err(PlacesProblem::Unreadable { path: path.clone(), error }),
        };
        broken.push(layer.is_err());
        match layer {
            Ok(layer) => databases.push(layer),
            Err(problem) => problems.push(problem),
        }
    }
    let atlas = Atlas::new(config, places, databases);
    let geography = atlas.geography();
    if geography.left_out() > 0 {
        problems.push(PlacesProblem::Orders(geography.left_out()));
    }
    let sample = PlacesSample {
        prefixes: geography.prefix_count() as u64,
        orders: geography.orderings().count() as u64,
        octets: geography.octets() as u64,
        left_out: (left_out + geography.left_out()) as u64,
        broken_files: broken.iter().filter(|broken| **broken).count() as u64,
    };
    (atlas, Reading { problems, stamps, broken, sample })
}

/// [`find`], which remembers what it found for as long as configuration and files stay the same: a page asks again and again.
pub fn finder() -> Whereabouts {
    let kept = Mutex::new(Kept::default());
    Arc::new(move |config, address| {
        let stamps = files(config).into_iter().map(Stamp::of).collect();
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = kept.config.as_ref().is_some_and(|known| Arc::ptr_eq(known, config)) && kept.stamps == stamps;
        if !is_same || kept.found.len() == MOST_KEPT {
            *kept = Kept { config: Some(config.clone()), stamps, found: HashMap::new() };
        }
        kept.found.entry(address).or_insert_with(|| find(config, address)).clone()
    })
}

#[derive(Default)]
struct Kept {
    config: Option<Arc<Config>>,
    stamps: Vec<Option<Stamp>>,
    found: HashMap<IpAddr, Option<Matched>>,
}

/// What says where the client at `address` is, by the configuration and the files as they are now; `None`: nothing does. For
/// people who ask why: it reads the files.
fn find(config: &Config, address: IpAddr) -> Option<Matched> {
    let address = address.to_canonical();
    let (prefix, Spot { region, coordinates, .. }, by) = longest(operators(config), address)
        .or_else(|| {
            longest(clients(config).map(|(cidr, spot, name)| (cidr, spot, format!("clientCidrs of {name}"))), address)
        })
        .or_else(|| in_databases(config, address))?;
    let at = coordinates.or_else(|| config.location.coordinates(region.as_ref()?));
    let region = region.map(|region| region.0.to_string());
    Some(Matched { prefix, region, by, latitude: at.map(|at| at.latitude()), longitude: at.map(|at| at.longitude()) })
}

/// A prefix, what is there, and who says so.
type Said = (IpNet, Spot, String);

/// Of equal ones the last one counts, as for the answers.
fn longest(all: impl Iterator<Item = Said>, address: IpAddr) -> Option<Said> {
    all.filter(|(prefix, ..)| prefix.contains(&address)).max_by_key(|(prefix, ..)| prefix.prefix_len())
}

fn operators(config: &Config) -> impl Iterator<Item = Said> {
    let files = place_files(config).flat_map(|path| {
        // That a file cannot be read was told when it was read for the answers.
        let text = read_text(path).unwrap_or_default();
        let (list, _) = parse_places(&text, |region| is_known(config, region));
        list.into_iter().map(|(cidr, spot)| (cidr, spot, path.display().to_string()))
    });
    files.chain(inline_places(config).map(|(cidr, spot)| (cidr, spot, "location.places".to_owned())))
}

fn in_databases(config: &Config, address: IpAddr) -> Option<Said> {
    config.location.databases.iter().find_map(|database| {
        let octets = read_limited(&database.file, MAX_DATABASE).ok()?;
        let (prefix, spot) = find_in_database(&octets, address, |known| spot(known, database)).ok()??;
        Some((prefix, spot, database.file.display().to_string()))
    })
}

impl Reading {
    pub fn warn(&self) {
        for problem in &self.problems {
            warn!("{problem}");
        }
    }

    /// The first file that says nothing at all.
    pub fn broken(&mut self) -> Option<PlacesProblem> {
        let is = |problem: &PlacesProblem| {
            matches!(problem, PlacesProblem::Unreadable { .. } | PlacesProblem::Database { .. })
        };
        let at = self.problems.iter().position(is)?;
        Some(self.problems.swap_remove(at))
    }
}

/// Something is known of the region, so that it tells clusters apart.
fn is_known(config: &Config, region: &Region) -> bool {
    let location = &config.location;
    let is_clusters = || config.clusters.iter().any(|cluster| cluster.region.as_ref() == Some(region));
    let has_distance = || location.distances.keys().any(|(one, other)| one == region || other == region);
    location.regions.contains_key(region) || coordinates(&region.0).is_some() || is_clusters() || has_distance()
}

/// What is known of a network, as a place.
fn spot(known: Known<'_>, database: &Database) -> Option<Spot> {
    let region = |region: &Region| Spot { region: Some(region.clone()), ..Spot::default() };
    let system = known.autonomous_system.and_then(|number| database.autonomous_systems.get(&number));
    if let Some(system) = system {
        return Some(region(system));
    }
    // What the operator says of a country goes before what the database knows of a city in it.
    let country = known.country.and_then(|code| database.countries.get(code));
    if let Some(country) = country {
        return Some(region(country));
    }
    if known.coordinates.is_some() {
        return Some(Spot { coordinates: known.coordinates, ..Spot::default() });
    }
    known.continent.and_then(|code| database.continents.get(code)).map(region)
}

fn read_text(path: &Path) -> io::Result<String> {
    let octets = read_limited(path, MAX_PLACES_FILE)?;
    String::from_utf8(octets).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "this is not UTF-8"))
}

fn read_limited(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut octets = Vec::with_capacity(metadata.len().min(limit) as usize);
    file.take(limit + 1).read_to_end(&mut octets)?;
    if octets.len() as u64 > limit {
        return Err(io::Error::other(format!("it has more than {limit} octets")));
    }
    Ok(octets)
}

/// Reads in a thread of its own, which gives way to those that answer. `None`: the system has no thread left, and says so.
fn read_aside(config: Arc<Config>) -> Option<oneshot::Receiver<(Atlas, Reading)>> {
    let (done, reading) = oneshot::channel();
    let work = move || {
        // Not fatal: it only takes more of the workers' time.
        let _ = rustix::process::nice(NICENESS);
        // Nobody waits for it any more when the configuration is another one.
        let _ = done.send(read(&config));
    };
    match std::thread::Builder::new().name("places".to_owned()).spawn(work) {
        Ok(_) => Some(reading),
        Err(error) => {
            warn!("the files with places are not read again: {error}");
            None
        }
    }
}

/// Looks after the files that `config` names until `stop`.
pub struct Follower {
    config: Arc<Config>,
    cartographer: Cartographer,
    metrics: Arc<Metrics>,
    /// As they were when they were read.
    stamps: Vec<Option<Stamp>>,
    broken: Vec<bool>,
}

impl Follower {
    /// Goes on from what was read and published. Nobody else may publish an atlas or replace the table meanwhile.
    pub fn new(config: Arc<Config>, reading: Reading, cartographer: Cartographer, metrics: Arc<Metrics>) -> Follower {
        let Reading { stamps, broken, sample, .. } = reading;
        metrics.set_places(sample);
        Follower { config, cartographer, metrics, stamps, broken }
    }

    pub async fn run(mut self, stop: CancellationToken) {
        if self.stamps.is_empty() {
            return stop.cancelled().await;
        }
        let mut glance = tokio::time::interval(GLANCE);
        glance.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut before = self.stamps.clone();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = glance.tick() => {}
            }
            let now: Vec<Option<Stamp>> = files(&self.config).into_iter().map(Stamp::of).collect();
            // A file that is being written changes from one glance to the next.
            let settled = now == before;
            before.clone_from(&now);
            if settled && now != self.stamps {
                let Some(reading) = read_aside(self.config.clone()) else { continue };
                tokio::select! {
                    () = stop.cancelled() => return,
                    Ok((atlas, reading)) = reading => self.take(atlas, reading),
                    // A thread that panics has said why; the next glance begins anew.
                    else => {}
                }
            }
        }
    }

    fn take(&mut self, atlas: Atlas, reading: Reading) {
        reading.warn();
        self.stamps = reading.stamps;
        // What a file said that is now broken is worth more than nothing.
        if reading.broken.iter().zip(&self.broken).any(|(now, before)| *now && !before) {
            warn!("what was known of places before stays, until all files can be read");
            self.metrics.places_reloaded(Reload::Rejected);
            return;
        }
        self.broken = reading.broken;
        retire(self.cartographer.publish(atlas));
        self.metrics.set_places(reading.sample);
        self.metrics.places_reloaded(Reload::Applied);
        info!(prefixes = reading.sample.prefixes, orders = reading.sample.orders, "places read again");
    }
}
