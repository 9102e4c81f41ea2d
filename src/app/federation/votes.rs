//! What the voters say, as their clusters' sources read it; and this instance's own word, on its way to them.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::config::{Cluster, Config, Majority};
use crate::health::{Affected, Council, Quorum, Tally, Vote};
use crate::index::{Kind, Object, Update};
use crate::metrics::{VoterSample, WritesSample};
use crate::model::votes::{Endpoint, Heartbeat, Report};
use crate::model::{Label, Moment};
use crate::source::kube::{Speech, Writes, speak};

/// A majority decides: who they are, and what they said.
pub struct Votes {
    council: Council,
    voice: Option<Voice>,
    /// Objects of clusters that are no voters, or have too many of them.
    refused: u64,
}

/// The way to whoever writes what this instance says.
struct Voice {
    cluster: Cluster,
    majority: Majority,
    replica: Arc<str>,
    incarnation: u64,
    said: mpsc::UnboundedSender<(Endpoint, Option<bool>)>,
    task: Option<JoinHandle<()>>,
    writes: Arc<Writes>,
    /// Its own heartbeat was read back once, or that of another one under its name.
    was_heard: bool,
    is_doubled: bool,
}

impl Voice {
    /// `seed`: random, another one for each start.
    fn start(cluster: &Cluster, majority: &Majority, electorate: u64, seed: u64) -> Voice {
        let (replica, pod) = name(majority);
        let writes = Arc::<Writes>::default();
        let (said, votes) = mpsc::unbounded_channel();
        info!(cluster = %cluster.name, replica, namespace = %majority.namespace, "votes");
        let speech = Speech {
            cluster: cluster.clone(),
            namespace: majority.namespace.clone(),
            replica: replica.clone(),
            pod,
            electorate,
            incarnation: seed,
            writes: writes.clone(),
        };
        Voice {
            cluster: cluster.clone(),
            majority: majority.clone(),
            replica: replica.into(),
            incarnation: seed,
            said,
            task: Some(tokio::spawn(speak(speech, votes))),
            writes,
            was_heard: false,
            is_doubled: false,
        }
    }

    /// Two instances with one name would take each other's word away.
    fn notice(&mut self, cluster: &Label, beat: &Heartbeat) {
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

/// The cluster that this instance votes for.
fn own<'c>(config: &'c Config, majority: &Majority) -> Option<&'c Cluster> {
    majority.own.map(|id| config.cluster(id))
}

impl Votes {
    /// `seed`: random, another one for each start.
    pub fn new(config: &Config, majority: &Majority, seed: u64) -> Votes {
        let voters = config.voters();
        let council = Council::new(&voters, majority.alone);
        if council.quorum().removal() > voters.len() {
            warn!(
                voters = voters.len(),
                needed = council.quorum().removal(),
                "with so few voters nothing can ever be removed: votes change the order of answers only"
            );
        }
        let voice = own(config, majority).map(|cluster| Voice::start(cluster, majority, council.electorate(), seed));
        if voice.is_none() {
            info!("this instance counts votes and has none: health.cluster does not say where it is");
        }
        Votes { council, voice, refused: 0 }
    }

    /// With another configuration. True: this instance has to say anew all that it says.
    pub fn reconfigure(&mut self, config: &Config, majority: &Majority, seed: u64, now: Moment) -> bool {
        let before = (self.council.electorate(), self.council.quorum());
        let council = Council::new(&config.voters(), majority.alone);
        let after = (council.electorate(), council.quorum());
        if before != after {
            let council = std::mem::replace(&mut self.council, council);
            self.council = council.reformed(&config.voters(), majority.alone, now);
        }
        let cluster = own(config, majority);
        let same = |voice: &Voice| cluster == Some(&voice.cluster) && voice.majority == *majority;
        if before.0 == after.0 && (self.voice.as_ref().is_some_and(same) || self.voice.is_none() && cluster.is_none()) {
            return false;
        }
        let electorate = self.council.electorate();
        self.voice = cluster.map(|cluster| Voice::start(cluster, majority, electorate, seed));
        true
    }

    /// The cluster that this instance votes for.
    pub fn own(&self) -> Option<&Label> {
        self.voice.as_ref().map(|voice| &voice.cluster.name)
    }

    pub fn quorum(&self) -> Quorum {
        self.council.quorum()
    }

    pub fn tally(&self, endpoint: &Endpoint) -> Tally {
        self.council.tally(endpoint)
    }

    /// Tells all others.
    pub fn say(&self, endpoint: &Endpoint, vote: Vote) {
        let up = match vote {
            Vote::Up => Some(true),
            Vote::Down => Some(false),
            Vote::Abstain => None,
        };
        if let Some(voice) = &self.voice {
            // It ends with us and not before.
            let _ = voice.said.send((endpoint.clone(), up));
        }
    }

    /// Waits for the end of whoever writes, which does not come unless it is for a panic. That goes on here: without it, this
    /// instance would say for ever what it said last.
    pub async fn ended(&mut self) {
        let Some(task) = self.voice.as_mut().and_then(|voice| voice.task.as_mut()) else {
            return std::future::pending().await;
        };
        let ended = task.await;
        if let Some(voice) = &mut self.voice {
            voice.task = None;
        }
        match ended {
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Ok(()) | Err(_) => std::future::pending().await,
        }
    }

    /// Enters what a cluster's source read. Whatever is in it, it is that cluster's word and nobody else's.
    pub fn hear(&mut self, cluster: &Label, update: Update, now: Moment) -> Affected {
        let mut affected = Affected::default();
        let mut changes = Vec::new();
        match update {
            Update::Apply(object) => changes.push(Change::Is(object)),
            Update::Delete(kind, key) => changes.push(Change::Gone(kind, key.name)),
            Update::Reset { kind, objects, keep } => {
                let listed = |name: &str| {
                    let is = |object: &Object| *object.key().name == *name;
                    objects.iter().any(is) || keep.iter().any(|key| *key.name == *name)
                };
                for (replica, has_pulse, shards) in self.council.known(cluster) {
                    let names = match kind {
                        Kind::Lease if has_pulse => vec![replica.clone()],
                        Kind::HealthReport => shards.iter().map(|n| Report::name(replica, *n).into()).collect(),
                        _ => Vec::new(),
                    };
                    let gone = names.into_iter().filter(|name| !listed(name));
                    changes.extend(gone.map(|name| Change::Gone(kind, name)));
                }
                changes.extend(objects.into_iter().map(Change::Is));
            }
        }
        for change in changes {
            let one = self.enter(cluster, change, now);
            self.refused += u64::from(one.refused);
            affected.all |= one.all;
            affected.endpoints.extend(one.endpoints);
        }
        affected
    }

    fn enter(&mut self, cluster: &Label, change: Change, now: Moment) -> Affected {
        match change {
            Change::Is(Object::Heartbeat(beat)) => {
                if let Some(voice) = &mut self.voice {
                    voice.notice(cluster, &beat);
                }
                self.council.beat(cluster, beat, now)
            }
            Change::Is(Object::Report(report)) => self.council.report(cluster, report, now),
            Change::Gone(Kind::Lease, name) => self.council.no_beat(cluster, &name, now),
            Change::Gone(Kind::HealthReport, name) => match Report::parse_name(&name) {
                Some((replica, shard)) => self.council.no_report(cluster, replica, shard, now),
                None => Affected::default(),
            },
            Change::Is(_) | Change::Gone(..) => Affected::default(),
        }
    }

    pub fn tick(&mut self, now: Moment) -> Affected {
        self.council.tick(now)
    }

    pub fn next_deadline(&self) -> Option<Moment> {
        self.council.next_deadline()
    }

    /// Each voter's vote, for people.
    pub fn of<T>(&self, endpoint: &Endpoint, show: impl Fn(&Label, Vote, Option<Moment>) -> T) -> Vec<T> {
        self.council.votes(endpoint).map(|(cluster, vote, heard)| show(cluster, vote, heard)).collect()
    }

    /// For metrics. What was heard counts from the start of the process.
    pub fn sample(&self) -> Vec<VoterSample> {
        let sample = |voter: crate::health::VoterSight| VoterSample {
            cluster: voter.cluster.to_string(),
            counting: voter.counting as u64,
            heard: voter.heard.map(|at| at.0),
            silent: crate::health::Silence::ALL
                .iter()
                .zip(voter.silent)
                .map(|(silence, count)| (silence.label(), count as u64))
                .collect(),
        };
        self.council.voters().map(sample).collect()
    }

    /// For metrics.
    pub fn writes(&self) -> WritesSample {
        let voice = self.voice.as_ref();
        let counts = voice.is_some_and(|voice| self.council.hears(&voice.cluster.name, &voice.replica).is_ok());
        let read =
            |of: fn(&Writes) -> &std::sync::atomic::AtomicU64| voice.map_or(0, |voice| of(&voice.writes).load(Relaxed));
        WritesSample {
            counts,
            leases: read(|writes| &writes.leases),
            reports: read(|writes| &writes.reports),
            failed: read(|writes| &writes.failed),
            refused: self.refused,
        }
    }
}

enum Change {
    Is(Object),
    Gone(Kind, Arc<str>),
}

#[cfg(test)]
impl Votes {
    /// One that writes nothing; what it says is seen.
    pub fn silent(config: &Config, majority: &Majority) -> (Votes, mpsc::UnboundedReceiver<(Endpoint, Option<bool>)>) {
        let (said, taken) = mpsc::unbounded_channel();
        let voice = own(config, majority).map(|cluster| Voice {
            cluster: cluster.clone(),
            majority: majority.clone(),
            replica: "r".into(),
            incarnation: 1,
            said,
            task: None,
            writes: Arc::default(),
            was_heard: false,
            is_doubled: false,
        });
        let council = Council::new(&config.voters(), majority.alone);
        (Votes { council, voice, refused: 0 }, taken)
    }
}
