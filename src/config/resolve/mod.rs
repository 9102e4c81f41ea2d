//! As written → as run: every default, every range, and everything in which two keys can contradict each other.

mod clusters;
mod health;
mod limits;
mod listeners;
mod location;
mod zones;

pub use clusters::is_topology;

use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use super::error::{Fault, Place, Problem};
use super::raw::{At, RawAdmin, RawConfig, RawIdentity, place};
use super::{Config, Identity, MAX_CLUSTERS, MAX_VIEWS, QueryLog, Schema};
use crate::model::{Label, LabelError};

const DEFAULT_ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8055);
/// One character-string of a TXT record (RFC 1035 section 3.3).
const MAX_IDENTITY: usize = 255;

/// `path` is the configuration file; `cores` is how many UDP workers `auto` means.
pub(super) fn resolve(path: &Path, raw: RawConfig, cores: usize) -> Result<Config, Vec<Problem>> {
    let directory = path.parent().unwrap_or(Path::new(""));
    let mut resolver = Resolver { directory, problems: Vec::new() };
    let RawConfig {
        zones,
        clusters,
        listeners,
        admin,
        identity,
        limits,
        location,
        resolvers,
        explain_to,
        health,
        directives,
        state,
        query_log,
        cluster_secrets,
    } = raw;

    let raw_clusters = resolver.list(clusters, "clusters", "clusters", MAX_CLUSTERS);
    let names: Vec<String> = raw_clusters.iter().map(|cluster| cluster.value.name.value.clone()).collect();
    let client_cidrs = raw_clusters.iter().any(|c| c.value.client_cidrs.as_ref().is_some_and(|l| !l.value.is_empty()));
    let listeners_place = listeners.as_ref().and_then(|list| place(list.referenced));

    let zones = resolver.zones(zones, names.is_empty() && cluster_secrets.is_none());
    let votes = health.as_ref().and_then(|health| resolver.votes(health));
    let directives = resolver.directives(directives, votes.as_ref());
    let mut clusters = resolver.clusters(raw_clusters, votes.as_ref(), directives.as_ref());
    let mcs = zones.iter().any(|zone| zone.schema == Schema::Mcs);
    clusters.iter_mut().for_each(|cluster| cluster.mcs = mcs);
    let cluster_secrets = cluster_secrets.and_then(|raw| resolver.cluster_secrets(raw, directives, mcs));
    let (listeners, bound) = resolver.listeners(listeners, &names, client_cidrs);
    let admin = resolver.admin(admin, &bound);
    let identity = resolver.identity(identity);
    let limits = resolver.limits(limits.unwrap_or_default(), cores);
    let location = resolver.location(location, &clusters);
    let resolvers = resolver.resolvers(resolvers);
    let explain_to = resolver.cidrs(explain_to, "explainTo", |_| Ok(()));
    let explain_to = explain_to.into_iter().map(|client| client.cidr).collect();
    let health = resolver.health(health, votes, &clusters);
    let state = state.and_then(|state| state.directory);
    let state = state.map(|directory| resolver.new_directory(&directory, "state.directory", "the state's directory"));
    let query_log = query_log.map(|log| QueryLog {
        one_in: resolver.number(log.one_in, "queryLog.oneIn", 1..=1_000_000_000, "queries", 1_000),
        per_second: resolver.number(log.per_second, "queryLog.perSecond", 1..=10_000, "queries", 100),
    });
    let config = Config {
        path: path.to_owned(),
        zones,
        clusters,
        listeners,
        admin,
        identity,
        limits,
        location,
        resolvers,
        explain_to,
        health,
        state,
        query_log,
        cluster_secrets,
    };

    let views = config.views().len();
    if views > MAX_VIEWS {
        resolver.fault_at(listeners_place, "listeners", Fault::too_many("views in use", views, MAX_VIEWS));
    }
    let mut problems = resolver.problems;
    if problems.is_empty() {
        return Ok(config);
    }
    // What is missing altogether has no place and comes first.
    problems.sort_by_key(|problem| problem.place);
    Err(problems)
}

/// Collects problems. After one, its methods go on with what is left: the result is thrown away, and whoever repairs the
/// file wants to hear everything at once.
struct Resolver<'a> {
    /// Where relative paths begin.
    directory: &'a Path,
    problems: Vec<Problem>,
}

impl Resolver<'_> {
    fn fault<T>(&mut self, at: &At<T>, key: impl Into<String>, fault: Fault) {
        self.fault_at(place(at.referenced), key, fault);
    }

    fn fault_at(&mut self, place: Option<Place>, key: impl Into<String>, fault: Fault) {
        self.problems.push(Problem { place, key: key.into(), fault });
    }

    fn identity(&mut self, raw: Option<RawIdentity>) -> Identity {
        let Some(raw) = raw else { return Identity::default() };
        let mut text = |raw: Option<At<String>>, key: &str| {
            let raw = raw?;
            let good = (1..=MAX_IDENTITY).contains(&raw.value.len()) && !raw.value.contains(char::is_control);
            if !good {
                self.fault(&raw, key, Fault::Text { text: shortened(&raw.value), limit: MAX_IDENTITY });
            }
            good.then_some(raw.value)
        };
        Identity { version: text(raw.version, "identity.version"), server: text(raw.server, "identity.server") }
    }

    // What several of them need.

    /// The list's items, cut to the limit.
    fn list<T>(&mut self, list: Option<At<Vec<T>>>, key: &str, what: &'static str, limit: usize) -> Vec<T> {
        let Some(mut list) = list else { return Vec::new() };
        let count = list.value.len();
        if count > limit {
            self.fault(&list, key, Fault::too_many(what, count, limit));
            list.value.truncate(limit);
        }
        list.value
    }

    /// A number within `range`, whose ends `N` can hold.
    fn number<N: TryFrom<u64>>(
        &mut self,
        raw: Option<At<u64>>,
        key: &str,
        range: RangeInclusive<u64>,
        unit: &'static str,
        default: N,
    ) -> N {
        let Some(raw) = raw else { return default };
        if range.contains(&raw.value)
            && let Ok(number) = N::try_from(raw.value)
        {
            return number;
        }
        let (min, max) = range.into_inner();
        self.fault(&raw, key, Fault::OutOfRange { got: raw.value, min, max, unit });
        default
    }

    fn label(&mut self, raw: &At<String>, key: &str) -> Option<Label> {
        Label::parse(&raw.value)
            .map_err(|LabelError { text }| {
                self.fault(raw, key, Fault::Label(LabelError { text }));
            })
            .ok()
    }

    /// The path of a file that can be opened.
    fn file(&mut self, raw: &At<String>, key: &str, what: &'static str) -> PathBuf {
        let path = self.directory.join(&raw.value);
        let fault = match fs::metadata(&path) {
            // Only a regular file is opened: to open a named pipe would wait for its writer.
            Ok(metadata) if metadata.is_file() => match File::open(&path) {
                Ok(_) => return path,
                Err(error) => Fault::Path { what, path: path.clone(), error },
            },
            Ok(_) => Fault::PathKind { what, path: path.clone(), expected: "a regular file" },
            Err(error) => Fault::Path { what, path: path.clone(), error },
        };
        self.fault(raw, key, fault);
        path
    }

    /// The path of a directory that can be listed.
    fn directory(&mut self, raw: &At<String>, key: &str, what: &'static str) -> PathBuf {
        let path = self.directory.join(&raw.value);
        let fault = match fs::read_dir(&path) {
            Ok(_) => return path,
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                Fault::PathKind { what, path: path.clone(), expected: "a directory" }
            }
            Err(error) => Fault::Path { what, path: path.clone(), error },
        };
        self.fault(raw, key, fault);
        path
    }

    /// The path of a directory that is there, or is still to be made.
    fn new_directory(&mut self, raw: &At<String>, key: &str, what: &'static str) -> PathBuf {
        let path = self.directory.join(&raw.value);
        let fault = match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => return path,
            Ok(_) => Fault::PathKind { what, path: path.clone(), expected: "a directory" },
            Err(error) if error.kind() == io::ErrorKind::NotFound => return path,
            Err(error) => Fault::Path { what, path: path.clone(), error },
        };
        self.fault(raw, key, fault);
        path
    }
}

/// 80 characters show what is wrong with any value.
fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}
