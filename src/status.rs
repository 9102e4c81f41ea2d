//! How a running server is doing: for people as a table, for programs as JSON.

use std::fmt;
use std::pin::Pin;

use serde::{Deserialize, Serialize};

use crate::explain::{Directed, age, columns};

/// The whole of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    pub version: String,
    pub uptime_seconds: u64,
    /// Why it is not ready; none: it is.
    pub not_ready: Vec<String>,
    pub zones: Vec<Zone>,
    pub listeners: Vec<Listening>,
    /// Names of services and namespaces that the table can answer, in all zones.
    pub names: u64,
    pub clusters: Vec<Cluster>,
    /// `None`: nothing is probed.
    pub health: Option<Health>,
    pub directives: Vec<Directed>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Zone {
    /// With a final dot.
    pub name: String,
    /// As the configuration has it.
    pub schema: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Listening {
    pub address: String,
    pub view: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cluster {
    pub name: String,
    pub state: State,
    /// RFC 3339: when its snapshot was written, while it is answered for as that has it.
    pub snapshot: Option<String>,
    /// Since the last word of it; `None`: it was not heard.
    pub heard_seconds: Option<f64>,
    pub region: Option<String>,
    pub availability_zones: Vec<String>,
    /// Degrees north and east, where it is known where the region is.
    pub latitude: Option<f64>,
    pub longitude: Option<f64>,
    /// All of it, by a directive.
    pub drained: bool,
    /// Its API says nothing any more, so that others as near come first.
    #[serde(default)]
    pub silent: bool,
    pub services: u64,
    pub endpoint_slices: u64,
    /// Failed lists and watches, and unreadable files, since the start.
    pub errors: u64,
    /// Objects that could not be understood, since the start.
    pub objects_skipped: u64,
    /// Deletions that are not believed yet.
    pub held_deletions: u64,
    /// Kinds that its API does not have, or does not show.
    pub missing_kinds: Vec<String>,
    /// `None`: it does not vote.
    pub voter: Option<Voter>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum State {
    Synced,
    /// As its snapshot has it: it was not heard in full since the start.
    Stale,
    /// What only it could hold is SERVFAIL.
    NotSynced,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Voter {
    /// Instances in it whose word counts.
    pub counting: u64,
    /// Those whose word does not.
    pub silent: u64,
    pub heard_seconds: Option<f64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    /// `local` or `majority`.
    pub quorum: String,
    pub up: u64,
    pub unknown: u64,
    pub suspect: u64,
    pub down: u64,
    /// This instance trusts its own probes no more.
    pub isolated: bool,
    /// Nothing is removed.
    pub frozen: bool,
    /// Whether its own word is read by others; `None`: it decides alone.
    pub own_vote: Option<bool>,
}

/// Who knows.
pub type Ask = Box<dyn Fn() -> Pin<Box<dyn Future<Output = Status> + Send>> + Send + Sync>;

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ready = if self.not_ready.is_empty() { "ready".to_owned() } else { self.not_ready.join(", ") };
        writeln!(f, "signpost {}, up for {}: {ready}", self.version, age(self.uptime_seconds as f64))?;
        let list = |all: Vec<String>| if all.is_empty() { "none".to_owned() } else { all.join(", ") };
        let zones = self.zones.iter().map(|zone| format!("{} ({})", zone.name, zone.schema));
        writeln!(f, "zones      {}; {} names of services and namespaces", list(zones.collect()), self.names)?;
        let listeners = self.listeners.iter().map(|listener| format!("{} {}", listener.address, listener.view));
        writeln!(f, "listeners  {}", list(listeners.collect()))?;
        if let Some(health) = &self.health {
            writeln!(f, "health     {health}")?;
        }
        for directed in &self.directives {
            writeln!(f, "directive  {directed}")?;
        }
        writeln!(f)?;
        let head = ["CLUSTER", "STATE", "HEARD", "PLACE", "SERVICES", "SLICES", "VOTERS", "TROUBLE"];
        let mut rows = vec![head.map(str::to_owned)];
        rows.extend(self.clusters.iter().map(Cluster::row));
        columns(f, "", &rows)
    }
}

impl Cluster {
    fn row(&self) -> [String; 8] {
        let dash = || "-".to_owned();
        let mut state = match (self.state, &self.snapshot) {
            (State::Stale, Some(written)) => format!("stale, of {written}"),
            (State::Stale, None) => "stale".to_owned(),
            (State::Synced, _) => "synced".to_owned(),
            (State::NotSynced, _) => "not synced".to_owned(),
        };
        for (_, word) in [(self.silent, ", silent"), (self.drained, ", drained")].iter().filter(|(is, _)| *is) {
            state += word;
        }
        let counts = [
            (self.errors, "errors"),
            (self.objects_skipped, "objects skipped"),
            (self.held_deletions, "deletions held"),
        ];
        let mut trouble: Vec<String> =
            counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
        trouble.extend(self.missing_kinds.iter().map(|kind| format!("no {kind}")));
        let place = self.region.iter().chain(&self.availability_zones).cloned().collect::<Vec<_>>();
        let voters = self.voter.as_ref().map(|voter| match voter.silent {
            0 => voter.counting.to_string(),
            silent => format!("{} ({silent} silent)", voter.counting),
        });
        [
            self.name.clone(),
            state,
            self.heard_seconds.map_or_else(|| "never".to_owned(), |seconds| format!("{} ago", age(seconds))),
            if place.is_empty() { dash() } else { place.join(" ") },
            self.services.to_string(),
            self.endpoint_slices.to_string(),
            voters.unwrap_or_else(dash),
            if trouble.is_empty() { dash() } else { trouble.join(", ") },
        ]
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Health { quorum, up, unknown, suspect, down, .. } = self;
        write!(f, "{quorum}: {up} endpoints up, {suspect} suspect, {down} down, {unknown} not known yet")?;
        let notes = [
            (self.isolated, "this instance is isolated and removes nothing"),
            (self.frozen, "the breaker holds, and nothing is removed"),
            (self.own_vote == Some(false), "the own word is not read by others"),
        ];
        notes.iter().filter(|(is_so, _)| *is_so).try_for_each(|(_, note)| write!(f, "; {note}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table() {
        assert_eq!([0.4, 59.0, 60.0, 7_199.0, 100_000.0].map(age), ["0 s", "59 s", "1 min", "1 h", "1 d"]);
        let cluster = |name: &str, state, snapshot: Option<&str>| Cluster {
            name: name.to_owned(),
            state,
            snapshot: snapshot.map(str::to_owned),
            heard_seconds: (state == State::Synced).then_some(2.0),
            region: Some("us-east".to_owned()),
            availability_zones: vec![],
            latitude: Some(38.9),
            longitude: Some(-77.4),
            drained: state == State::Stale,
            silent: false,
            services: 3,
            endpoint_slices: 40,
            errors: u64::from(state == State::Stale) * 7,
            objects_skipped: 0,
            held_deletions: 12,
            missing_kinds: vec!["serviceexport".to_owned()],
            voter: (state == State::Synced).then_some(Voter { counting: 2, silent: 1, heard_seconds: Some(1.0) }),
        };
        let status = Status {
            version: "1".to_owned(),
            uptime_seconds: 7_200,
            not_ready: vec![],
            zones: vec![Zone { name: "z.".to_owned(), schema: "federation".to_owned() }],
            listeners: vec![Listening { address: "127.0.0.1:53".to_owned(), view: "external".to_owned() }],
            names: 4,
            clusters: vec![
                cluster("a", State::Synced, None),
                cluster("bb", State::Stale, Some("2026-01-01T00:00:00Z")),
            ],
            health: Some(Health {
                quorum: "majority".to_owned(),
                up: 1,
                unknown: 2,
                suspect: 3,
                down: 4,
                isolated: false,
                frozen: true,
                own_vote: Some(false),
            }),
            directives: vec![],
        };
        let expected = "\
signpost 1, up for 2 h: ready
zones      z. (federation); 4 names of services and namespaces
listeners  127.0.0.1:53 external
health     majority: 1 endpoints up, 3 suspect, 4 down, 2 not known yet; the breaker holds, and nothing is removed; the own word is not \
                        read by others

CLUSTER  STATE                                    HEARD    PLACE    SERVICES  SLICES  VOTERS        TROUBLE
a        synced                                   2 s ago  us-east  3         40      2 (1 silent)  12 deletions held, no serviceexport
bb       stale, of 2026-01-01T00:00:00Z, drained  never    us-east  3         40      -             7 errors, 12 deletions held, no serviceexport
";
        assert_eq!(status.to_string(), expected);
        let json = serde_json::to_string(&status).unwrap();
        assert_eq!(serde_json::from_str::<Status>(&json).unwrap(), status);
    }
}
