//! What this instance says of endpoints, written into its own cluster's API: a Lease that shows that it is there, and ConfigMaps with
//! what it sees. They are all that it writes anywhere.
//!
//! A ConfigMap is written when it changes, and no more than once a second; the Lease every five seconds, and after the ConfigMaps, whose
//! generations it names. Whatever goes wrong is tried again; meanwhile this instance abstains, as nobody can read it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::client::{Api, Failure};
use crate::config;
use crate::health::{Ballot, FRESH};
use crate::model::Label;
use crate::model::votes::{Endpoint, Report, Said, Sheet};
use crate::source::report;
use crate::source::status::ErrorReason;

/// From one heartbeat to the next one.
const BEAT: Duration = Duration::from_secs(5);
/// From one write of ConfigMaps to the next one.
const SPACING: Duration = Duration::from_secs(1);
/// For each write: the next heartbeat does not wait.
const PATIENCE: Duration = Duration::from_secs(4);
/// From a failure to the next try; doubled with each one more.
const AGAIN: Duration = Duration::from_secs(1);
const MOST_AGAIN: Duration = Duration::from_secs(15);

/// Who speaks, and where.
pub struct Speech {
    /// The cluster that this instance votes for.
    pub cluster: config::Cluster,
    pub namespace: Label,
    /// Its name among those of its cluster.
    pub replica: String,
    /// The UID of the Pod of that name: what is written goes when it goes.
    pub pod: Option<String>,
    pub electorate: u64,
    /// Another one with each start.
    pub incarnation: u64,
    pub writes: Arc<Writes>,
}

/// How many writes came through, and how many did not.
#[derive(Debug, Default)]
pub struct Writes {
    pub leases: AtomicU64,
    pub reports: AtomicU64,
    pub failed: AtomicU64,
}

/// What is to be said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Saying {
    /// Whether it is up; `None`: nothing is said of it any more.
    Vote(Endpoint, Option<bool>),
    /// All that was said before: it is not there any more.
    Again,
}

/// Says what comes, until nothing more can come.
pub async fn speak(speech: Speech, sayings: mpsc::UnboundedReceiver<Saying>) {
    let mut voice = Voice { ballot: Ballot::default(), beat: 0, trouble: None, is_full: false, speech };
    voice.run(sayings).await;
}

struct Voice {
    speech: Speech,
    ballot: Ballot,
    beat: u64,
    /// What was said to be wrong.
    trouble: Option<ErrorReason>,
    is_full: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Object<'a> {
    api_version: &'static str,
    kind: &'static str,
    metadata: Meta<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    spec: Option<LeaseSpec<'a>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    data: BTreeMap<&'static str, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Meta<'a> {
    name: &'a str,
    labels: BTreeMap<&'static str, &'static str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<&'static str, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    owner_references: Vec<Owner<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Owner<'a> {
    api_version: &'static str,
    kind: &'static str,
    name: &'a str,
    uid: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LeaseSpec<'a> {
    holder_identity: &'a str,
    lease_duration_seconds: u64,
    /// For people: nobody compares it with another clock.
    renew_time: String,
}

impl Voice {
    async fn run(&mut self, mut sayings: mpsc::UnboundedReceiver<Saying>) {
        let mut api = None;
        let (mut due, mut next_write) = (Instant::now(), Instant::now());
        let mut failures = 0;
        loop {
            let at = if self.ballot.is_dirty() && failures == 0 { due.min(next_write) } else { due };
            tokio::select! {
                saying = sayings.recv() => match saying {
                    Some(saying) => {
                        self.say(saying);
                        continue;
                    }
                    None => return,
                },
                () = sleep_until(at) => {}
            }
            // All that is there by now, in one write.
            while let Ok(saying) = sayings.try_recv() {
                self.say(saying);
            }
            let now = Instant::now();
            next_write = now + SPACING;
            due = match self.write(&mut api).await {
                Ok(()) => {
                    failures = 0;
                    self.well();
                    now + BEAT
                }
                Err(failure) => {
                    failures += 1;
                    self.speech.writes.failed.fetch_add(1, Relaxed);
                    self.failed(&failure);
                    let wait = AGAIN * 2u32.saturating_pow(failures - 1);
                    Instant::now() + wait.min(MOST_AGAIN).max(failure.retry_after().unwrap_or_default().min(MOST_AGAIN))
                }
            };
        }
    }

    fn say(&mut self, saying: Saying) {
        let Saying::Vote(endpoint, up) = saying else { return self.ballot.again() };
        if !self.ballot.say(endpoint, up) && !std::mem::replace(&mut self.is_full, true) {
            tracing::warn!(
                cluster = %self.speech.cluster.name,
                "so many endpoints are probed that not all of them fit into the reports: of some, this instance says nothing"
            );
        }
    }

    /// The ConfigMaps first, then the Lease that names them.
    async fn write(&mut self, api: &mut Option<Api>) -> Result<(), Failure> {
        let api = match api {
            Some(api) => api,
            None => api.insert(Api::begun(&self.speech.cluster).await?),
        };
        for (shard, generation, votes) in self.ballot.to_write() {
            let (name, body) = self.report(shard, generation, votes);
            self.put(api, "/api/v1", "configmaps", &name, &body).await?;
            self.ballot.written(shard);
            self.speech.writes.reports.fetch_add(1, Relaxed);
        }
        self.beat += 1;
        let body = self.lease();
        self.put(api, "/apis/coordination.k8s.io/v1", "leases", &self.speech.replica, &body).await?;
        self.speech.writes.leases.fetch_add(1, Relaxed);
        Ok(())
    }

    async fn put(&self, api: &Api, group: &str, plural: &str, name: &str, body: &[u8]) -> Result<(), Failure> {
        let collection = format!("{group}/namespaces/{}/{plural}", self.speech.namespace);
        let generation = api.generation();
        let done = api.put(&collection, name, body, body, PATIENCE).await;
        if let Err(failure) = &done {
            api.renew(generation, failure).await;
        }
        done
    }

    fn report(&self, shard: u8, generation: u64, votes: Arc<[Said]>) -> (String, Vec<u8>) {
        let Speech { incarnation, electorate, .. } = self.speech;
        let sheet = Sheet { incarnation, generation, electorate, votes };
        let name = Report::name(&self.speech.replica, shard);
        let data = BTreeMap::from([(report::KEY, report::write(&sheet))]);
        let metadata = self.metadata(&name, BTreeMap::new());
        let body = octets(&Object { api_version: "v1", kind: "ConfigMap", metadata, spec: None, data });
        (name, body)
    }

    fn lease(&self) -> Vec<u8> {
        let generations: Vec<String> = self.ballot.generations().iter().map(u64::to_string).collect();
        let annotations = BTreeMap::from([
            ("signpost.dev/incarnation", report::hex(self.speech.incarnation)),
            ("signpost.dev/beat", report::hex(self.beat)),
            ("signpost.dev/generations", generations.join(",")),
        ]);
        let spec = LeaseSpec {
            holder_identity: &self.speech.replica,
            lease_duration_seconds: FRESH.as_secs(),
            renew_time: format!("{:.6}", Timestamp::now()),
        };
        octets(&Object {
            api_version: "coordination.k8s.io/v1",
            kind: "Lease",
            metadata: self.metadata(&self.speech.replica, annotations),
            spec: Some(spec),
            data: BTreeMap::new(),
        })
    }

    fn metadata<'a>(&'a self, name: &'a str, annotations: BTreeMap<&'static str, String>) -> Meta<'a> {
        let Speech { replica, pod, .. } = &self.speech;
        let owner = |uid: &'a String| Owner { api_version: "v1", kind: "Pod", name: replica, uid };
        let labels = BTreeMap::from([("app.kubernetes.io/managed-by", "signpost"), ("signpost.dev/health", "")]);
        Meta { name, labels, annotations, owner_references: pod.iter().map(owner).collect() }
    }

    fn failed(&mut self, failure: &Failure) {
        let reason = failure.reason();
        if self.trouble.replace(reason) != Some(reason) {
            let Speech { cluster, namespace, .. } = &self.speech;
            tracing::warn!(
                cluster = %cluster.name,
                reason = reason.label(),
                "{failure}: this instance cannot write what it sees into the namespace {namespace}, and abstains; it is tried again"
            );
        }
    }

    fn well(&mut self) {
        if self.trouble.take().is_some() {
            tracing::info!(cluster = %self.speech.cluster.name, "what this instance sees is written again");
        }
    }
}

fn octets(object: &Object<'_>) -> Vec<u8> {
    serde_json::to_vec(object).expect("texts and numbers can be written")
}
