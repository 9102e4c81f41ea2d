//! What voters say, as their clusters' sources read it; and this instance's own word, on its way to all of them.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::config::{self, Cluster, Config, Health as Rules, Majority};
use crate::health::{Affected, Council, Own, Vote};
use crate::index::{Kind, Object, Update};
use crate::metrics::WritesSample;
use crate::model::votes::{Endpoint, Heartbeat, Report};
use crate::model::{Label, Moment};
use crate::source::kube::{Saying, Speech, Writes, speak};

/// The way to whoever writes what this instance says.
pub struct Voice {
    cluster: Cluster,
    majority: Majority,
    electorate: u64,
    replica: Arc<str>,
    incarnation: u64,
    said: mpsc::UnboundedSender<Saying>,
    task: Option<JoinHandle<()>>,
    writes: Arc<Writes>,
    /// Its own heartbeat was read back once, or that of another one under its name.
    was_heard: bool,
    is_doubled: bool,
}

impl Voice {
    /// `None`: this instance is in no cluster that votes.
    /// `seed`: random, another one for each start.
    pub fn start(config: &Config, rules: &Rules, council: Option<&Council>, seed: u64) -> Option<Voice> {
        let (cluster, majority) = place(config, rules)?;
        let electorate = council?.electorate();
        let (mut voice, sayings) = Voice::of(cluster, majority, electorate, seed);
        info!(cluster = %cluster.name, replica = %voice.replica, namespace = %majority.namespace, "votes");
        let (replica, pod) = name(majority);
        let speech = Speech {
            cluster: cluster.clone(),
            namespace: majority.namespace.clone(),
            replica,
            pod,
            electorate,
            incarnation: seed,
            writes: voice.writes.clone(),
        };
        voice.task = Some(tokio::spawn(speak(speech, sayings)));
        Some(voice)
    }

    /// With nobody yet who writes what it says.
    fn of(
        cluster: &Cluster,
        majority: &Majority,
        electorate: u64,
        incarnation: u64,
    ) -> (Voice, mpsc::UnboundedReceiver<Saying>) {
        let (said, sayings) = mpsc::unbounded_channel();
        let voice = Voice {
            cluster: cluster.clone(),
            majority: majority.clone(),
            electorate,
            replica: name(majority).0.into(),
            incarnation,
            said,
            task: None,
            writes: Arc::default(),
            was_heard: false,
            is_doubled: false,
        };
        (voice, sayings)
    }

    /// Whether it can go on as it is.
    pub fn serves(&self, config: &Config, rules: &Rules, council: Option<&Council>) -> bool {
        place(config, rules) == Some((&self.cluster, &self.majority))
            && council.is_some_and(|council| council.electorate() == self.electorate)
    }

    /// Tells all others.
    pub fn say(&self, endpoint: &Endpoint, vote: Vote) {
        let up = match vote {
            Vote::Up => Some(true),
            Vote::Down => Some(false),
            Vote::Abstain => None,
        };
        // It ends with us and not before.
        let _ = self.said.send(Saying::Vote(endpoint.clone(), up));
    }

    /// All of it once more.
    pub fn again(&self) {
        info!(cluster = %self.cluster.name, "what this instance wrote is not what is read: it is written once more");
        let _ = self.said.send(Saying::Again);
    }

    /// Waits for the end of whoever writes, which does not come unless it is for a panic. That goes on here: without it, this
    /// instance would say for ever what it said last.
    pub async fn ended<T>(&mut self) -> T {
        outlived(&mut self.task).await
    }

    /// For metrics.
    pub fn sample(&self, council: &Council) -> WritesSample {
        WritesSample {
            counts: council.hears(&self.cluster.name, &self.replica).is_ok(),
            leases: self.writes.leases.load(Relaxed),
            reports: self.writes.reports.load(Relaxed),
            failed: self.writes.failed.load(Relaxed),
            refused: 0,
        }
    }

    /// Two instances with one name would take each other's word away.
    pub fn notice(&mut self, cluster: &Label, beat: &Heartbeat) {
        if *cluster != self.cluster.name || beat.replica != self.replica {
            return;
        }
        let Some(pulse) = &beat.content else { return };
        if pulse.incarnation == self.incarnation {
            self.was_heard = true;
        } else if self.was_heard && !std::mem::replace(&mut self.is_doubled, true) {
            warn!(
                %cluster,
                replica = %self.replica,
                "another instance writes under this one's name, so that neither counts: give each its own health.replica"
            );
        }
    }
}

/// Waits for the end of a task that ends with whoever waits; if it panics before, that goes on here.
pub async fn outlived<T>(task: &mut Option<JoinHandle<()>>) -> T {
    if let Some(running) = task {
        let ended = running.await;
        *task = None;
        if let Err(error) = ended
            && error.is_panic()
        {
            std::panic::resume_unwind(error.into_panic());
        }
    }
    std::future::pending().await
}

/// The name of this instance's objects, and the UID of its Pod if that has the same name.
fn name(majority: &Majority) -> (String, Option<String>) {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let pod = set("POD_NAME");
    let host = || rustix::system::uname().nodename().to_string_lossy().into_owned();
    let name = majority.replica.clone().or_else(|| pod.clone()).unwrap_or_else(host);
    // Host names may have capitals and more; names of objects may not.
    let allowed = |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.' { c } else { '-' };
    let cleaned: String = name.to_ascii_lowercase().chars().map(allowed).take(200).collect();
    let cleaned = cleaned.trim_matches(['-', '.']);
    let owner = set("POD_UID").filter(|_| pod.as_ref() == Some(&name));
    (if cleaned.is_empty() { "signpost".to_owned() } else { cleaned.to_owned() }, owner)
}

/// Who this instance is, if it votes.
pub fn own(config: &Config, rules: &Rules) -> Option<Own> {
    let (cluster, majority) = place(config, rules)?;
    Some(Own { cluster: cluster.name.clone(), replica: name(majority).0.into() })
}

/// Where this instance writes, and how.
fn place<'c>(config: &'c Config, rules: &'c Rules) -> Option<(&'c Cluster, &'c Majority)> {
    match &rules.quorum {
        config::Quorum::Local => None,
        config::Quorum::Majority(majority) => majority.own.map(|id| (config.cluster(id), majority)),
    }
}

/// What an update tells of one object.
pub enum Change {
    Is(Object),
    Gone(Kind, Arc<str>),
}

/// Of a whole list, what is not in it any more comes first.
pub fn changes(council: &Council, cluster: &Label, update: Update) -> Vec<Change> {
    let (kind, objects, keep) = match update {
        Update::Apply(object) => return vec![Change::Is(object)],
        Update::Delete(kind, key) => return vec![Change::Gone(kind, key.name)],
        Update::Reset { kind, objects, keep } => (kind, objects, keep),
    };
    let listed: HashSet<Arc<str>> =
        objects.iter().map(|object| object.key().name).chain(keep.into_iter().map(|key| key.name)).collect();
    let known = council.known(cluster).flat_map(|(replica, has_pulse, shards)| match kind {
        Kind::Lease if has_pulse => vec![replica.clone()],
        Kind::HealthReport => shards.iter().map(|n| Report::name(replica, *n).into()).collect(),
        _ => Vec::new(),
    });
    let gone = known.filter(|name| !listed.contains(name)).map(|name| Change::Gone(kind, name));
    gone.chain(objects.into_iter().map(Change::Is)).collect()
}

/// Enters a change; whatever is in it, it is this cluster's word.
pub fn enter(council: &mut Council, cluster: &Label, change: Change, now: Moment) -> Affected {
    match change {
        Change::Is(Object::Heartbeat(beat)) => council.beat(cluster, beat, now),
        Change::Is(Object::Report(report)) => council.report(cluster, report, now),
        Change::Gone(Kind::Lease, name) => council.no_beat(cluster, &name, now),
        Change::Gone(Kind::HealthReport, name) => match Report::parse_name(&name) {
            Some((replica, shard)) => council.no_report(cluster, replica, shard, now),
            None => Affected::default(),
        },
        Change::Is(_) | Change::Gone(..) => Affected::default(),
    }
}

#[cfg(test)]
impl Voice {
    /// One that writes nothing; what it says is seen.
    pub fn silent(config: &Config, rules: &Rules, electorate: u64) -> Option<(Voice, mpsc::UnboundedReceiver<Saying>)> {
        let (cluster, majority) = place(config, rules)?;
        Some(Voice::of(cluster, majority, electorate, 1))
    }
}
