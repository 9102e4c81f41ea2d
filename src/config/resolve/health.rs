//! How external addresses are probed: defaults and ranges.

use std::num::NonZeroU8;
use std::time::Duration;

use super::{Resolver, shortened};
use crate::config::error::{Fault, Words};
use crate::config::raw::{At, RawDirectives, RawHealth, RawQuorum};
use crate::config::{Cluster, Health, Majority, Quorum, Source};
use crate::health::Failures;
use crate::model::check::INTERVALS;
use crate::model::{ClusterId, Label, are_labels};

/// HEALTH: every 5 s, 2 s, three failures, two successes.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(5);
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(2);
const DEFAULT_FALL: NonZeroU8 = NonZeroU8::new(3).unwrap();
const DEFAULT_RISE: NonZeroU8 = NonZeroU8::new(2).unwrap();

const DEFAULT_NAMESPACE: &str = "signpost";
/// Of an object's name of 253 octets, the rest is for the number of a shard.
const MAX_REPLICA: usize = 200;

impl Resolver<'_> {
    /// The namespace of what voters say; `None`: nobody votes.
    pub(super) fn votes(&mut self, raw: &RawHealth) -> Option<Label> {
        let default = || Label::parse(DEFAULT_NAMESPACE).ok();
        let namespace = match &raw.namespace {
            Some(namespace) => self.label(namespace, "health.namespace").or_else(default),
            None => default(),
        };
        match raw.quorum.value {
            RawQuorum::Local => None,
            RawQuorum::Majority => namespace,
        }
    }

    /// The namespace in which operators say what they want; `None`: they say it in files only.
    pub(super) fn directives(&mut self, raw: Option<RawDirectives>, votes: Option<&Label>) -> Option<Label> {
        match raw {
            Some(raw) => self.label(&raw.namespace, "directives.namespace"),
            None => votes.cloned(),
        }
    }

    /// `None`: nothing is probed. `votes`: what [`votes`](Resolver::votes) gave.
    pub(super) fn health(
        &mut self,
        raw: Option<RawHealth>,
        votes: Option<Label>,
        clusters: &[Cluster],
    ) -> Option<Health> {
        let RawHealth { quorum, cluster, namespace: _, replica, allow_single_voter, interval, timeout, fall, rise } =
            raw?;
        let interval = self.duration(interval, "health.interval", INTERVALS, DEFAULT_INTERVAL);
        // One probe of an endpoint at a time.
        let least = Duration::from_secs(1);
        let timeout = self.duration(timeout, "health.timeout", least..=interval, DEFAULT_TIMEOUT.min(interval));
        let mut count = |raw: Option<At<u64>>, key, default: NonZeroU8| {
            let number = self.number(raw, key, 1..=100, "probes", default.get());
            NonZeroU8::new(number).unwrap_or(default)
        };
        let fall = count(fall, "health.fall", DEFAULT_FALL);
        let rise = count(rise, "health.rise", DEFAULT_RISE);
        let replica = self.replica(replica);
        let own = self.own_cluster(cluster, clusters, votes.is_some());
        let quorum = match votes {
            None => Quorum::Local,
            Some(namespace) => {
                if clusters.iter().all(|cluster| cluster.voter.is_none()) {
                    self.fault(&quorum, "health.quorum", Fault::NoVoters);
                }
                let alone = allow_single_voter.is_some_and(|allow| allow.value);
                Quorum::Majority(Majority { own, namespace, replica, alone })
            }
        };
        Some(Health { interval, timeout, failures: Failures { fall, rise }, quorum })
    }

    /// The one that is named, else the one that this process is in.
    fn own_cluster(&mut self, raw: Option<At<String>>, clusters: &[Cluster], votes: bool) -> Option<ClusterId> {
        let numbered = || (0..).map(ClusterId).zip(clusters);
        let Some(raw) = raw else {
            let mut own = numbered().filter(|(_, c)| c.source == Source::InCluster && c.voter.is_some());
            return own.next().map(|(id, _)| id);
        };
        let Some((id, cluster)) = numbered().find(|(_, cluster)| cluster.name.as_str() == raw.value) else {
            let known: Vec<&str> = clusters.iter().map(|cluster| cluster.name.as_str()).collect();
            let fault = Fault::UnknownCluster { name: shortened(&raw.value), known: Words::new(&raw.value, &known) };
            self.fault(&raw, "health.cluster", fault);
            return None;
        };
        if votes && cluster.voter.is_none() {
            self.fault(&raw, "health.cluster", Fault::NotAVoter(shortened(&raw.value)));
        }
        Some(id)
    }

    /// A name for objects: a pod's.
    fn replica(&mut self, raw: Option<At<String>>) -> Option<String> {
        let raw = raw?;
        if is_replica(&raw.value) {
            return Some(raw.value);
        }
        self.fault(&raw, "health.replica", Fault::NotAReplica(shortened(&raw.value)));
        None
    }
}

fn is_replica(text: &str) -> bool {
    text.len() <= MAX_REPLICA && are_labels(text)
}
