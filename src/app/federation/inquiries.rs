//! What is asked of the federation: by people, and by whoever keeps it on disk.

use tokio::sync::{mpsc, oneshot};

use super::Federation;
use super::checks::Checks;
use super::steering::Sight;
use crate::app::keeper::Begun;
use crate::app::view_text;
use crate::config::{Cluster, Listener, Schema, Zone};
use crate::dump::Directory;
use crate::explain::{Directed, Inquire, Known, Restored};
use crate::index::Kind;
use crate::metrics::{HealthSample, VoterSample};
use crate::model::{ClusterId, Federated, Moment, ServiceKey};
use crate::source::status::{ErrorReason, Reason};
use crate::status::{self as shown, Status};

/// A question, and where the answer goes.
pub enum Inquiry {
    /// What is known of it beside what its answers are made from?
    Known {
        service: ServiceKey,
        reply: oneshot::Sender<Known>,
    },
    /// Which services are there?
    List(oneshot::Sender<Vec<ServiceKey>>),
    Status(oneshot::Sender<Status>),
    Fetch {
        keys: Vec<ServiceKey>,
        reply: oneshot::Sender<Vec<Federated>>,
    },
    /// With what does the cluster's snapshot begin? Nothing, if it is not synced.
    Begin {
        cluster: ClusterId,
        reply: oneshot::Sender<Option<Begun>>,
    },
    /// The lines of these services in the cluster's snapshot.
    Lines {
        cluster: ClusterId,
        keys: Vec<ServiceKey>,
        reply: oneshot::Sender<Vec<u8>>,
    },
}

impl Federation {
    pub(super) fn answer(&self, inquiry: Inquiry) {
        // Whoever asked may not wait any more.
        match inquiry {
            Inquiry::Known { service, reply } => drop(reply.send(self.known(&service))),
            Inquiry::Status(reply) => drop(reply.send(self.status())),
            Inquiry::List(reply) => drop(reply.send(self.index.keys())),
            Inquiry::Fetch { keys, reply } => {
                let mut found = Vec::with_capacity(keys.len());
                self.index.services(&keys, |_, service| found.extend(service.cloned()));
                drop(reply.send(found));
            }
            Inquiry::Begin { cluster, reply } => drop(reply.send(self.begin_snapshot(cluster))),
            Inquiry::Lines { cluster, keys, reply } => drop(reply.send(self.lines(cluster, &keys))),
        }
    }

    fn status(&self) -> Status {
        let (config, now) = (self.publisher.config(), self.now());
        let votes = self.checks.as_ref().and_then(Checks::votes);
        let voter = |name: &str| {
            let (voters, _) = votes.as_ref()?;
            let VoterSample { counting, heard, silent, .. } = voters.iter().find(|voter| voter.cluster == name)?;
            Some(shown::Voter {
                counting: *counting,
                silent: silent.iter().map(|(_, count)| count).sum(),
                heard_seconds: heard.map(|at| (now - Moment(at)).as_secs_f64()),
            })
        };
        let held = self.index.held();
        let cluster = |(id, cluster): (ClusterId, &Cluster)| {
            let told = &self.members[id.index()].status;
            let (services, slices) = self.index.counts(id);
            let restored = self.restored.get(&id);
            shown::Cluster {
                name: cluster.name.to_string(),
                state: match (restored, self.index.is_synced(id)) {
                    (Some(_), _) => shown::State::Stale,
                    (None, true) => shown::State::Synced,
                    (None, false) => shown::State::NotSynced,
                },
                snapshot: restored.map(|(_, written)| written.to_string()),
                heard_seconds: told.last_heard().map(|at| (now - at).as_secs_f64()),
                region: cluster.region.as_ref().map(|region| region.0.to_string()),
                availability_zones: cluster.availability_zones.iter().map(|zone| zone.0.to_string()).collect(),
                services: services as u64,
                endpoint_slices: slices as u64,
                errors: ErrorReason::ALL.iter().map(|&reason| told.errors(reason)).sum(),
                objects_skipped: Reason::ALL.iter().map(|&reason| told.skips(reason)).sum(),
                held_deletions: held.iter().filter(|held| held.cluster == id).map(|held| held.count as u64).sum(),
                missing_kinds: Kind::ALL
                    .iter()
                    .filter(|kind| told.is_missing(**kind))
                    .map(|kind| kind.label().to_owned())
                    .collect(),
                voter: voter(cluster.name.as_str()),
            }
        };
        let health = self.checks.as_ref().map(|checks| {
            let HealthSample { up, unknown, suspect, down, isolated, frozen, .. } = checks.sample();
            let quorum = if votes.is_some() { "majority" } else { "local" }.to_owned();
            let own_vote = votes.as_ref().map(|(_, writes)| writes.counts);
            shown::Health { quorum, up, unknown, suspect, down, isolated, frozen, own_vote }
        });
        let schema = |schema| match schema {
            Schema::Federation => "federation",
            Schema::Mcs => "mcs",
            Schema::Static => "static",
        };
        let zone = |zone: &Zone| shown::Zone { name: zone.name.to_string(), schema: schema(zone.schema).to_owned() };
        let listening = |listener: &Listener| shown::Listening {
            address: listener.address.to_string(),
            view: view_text(listener.audience.view, config),
        };
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: now.0.as_secs(),
            not_ready: Vec::new(),
            zones: config.zones.iter().map(zone).collect(),
            listeners: config.listeners.iter().map(listening).collect(),
            names: self.publisher.name_count() as u64,
            clusters: config.numbered().map(cluster).collect(),
            health,
            directives: self.steering.sights(now).iter().map(|sight| self.directed(sight)).collect(),
        }
    }

    fn known(&self, service: &ServiceKey) -> Known {
        let now = self.now();
        let health = self.checks.as_ref().map(|checks| checks.judged(service, now)).unwrap_or_default();
        let concerns = |sight: &Sight<'_>| sight.directive.service.as_ref().is_none_or(|key| key == service);
        let directives = self.steering.sights(now).into_iter().filter(concerns).map(|sight| self.directed(&sight));
        let restored = self.restored.iter().map(|(cluster, (_, written))| Restored {
            cluster: self.publisher.config().cluster(*cluster).name.to_string(),
            written: written.to_string(),
        });
        Known { health, directives: directives.collect(), restored: restored.collect() }
    }

    /// For people.
    fn directed(&self, sight: &Sight<'_>) -> Directed {
        let directive = sight.directive;
        Directed {
            cluster: self.publisher.config().cluster(sight.cluster).name.to_string(),
            service: directive.service.as_ref().map(ToString::to_string),
            action: directive.action.word().to_owned(),
            phase: sight.phase.word().to_owned(),
            from: directive.from.as_ref().map(ToString::to_string),
            until: directive.until.as_ref().map(ToString::to_string),
            reason: directive.reason.to_string(),
        }
    }
}

/// For whoever explains answers.
pub fn inquire(inquiries: mpsc::Sender<Inquiry>) -> Inquire {
    Box::new(move |service| {
        let inquiries = inquiries.clone();
        Box::pin(async move { asked(&inquiries, |reply| Inquiry::Known { service, reply }).await.unwrap_or_default() })
    })
}

/// For whoever wants to know how all of it is doing.
pub fn status(inquiries: mpsc::Sender<Inquiry>) -> shown::Ask {
    Box::new(move || {
        let inquiries = inquiries.clone();
        Box::pin(async move { asked(&inquiries, Inquiry::Status).await.unwrap_or_default() })
    })
}

/// For whoever dumps zones.
pub fn directory(inquiries: mpsc::Sender<Inquiry>) -> Directory {
    let (to_list, to_fetch) = (inquiries.clone(), inquiries);
    Directory {
        list: Box::new(move || {
            let inquiries = to_list.clone();
            Box::pin(async move { asked(&inquiries, Inquiry::List).await.unwrap_or_default() })
        }),
        fetch: Box::new(move |keys| {
            let inquiries = to_fetch.clone();
            Box::pin(async move { asked(&inquiries, |reply| Inquiry::Fetch { keys, reply }).await.unwrap_or_default() })
        }),
    }
}

/// `None`: whoever answers has gone, and the process is about to end.
pub async fn asked<T>(
    inquiries: &mpsc::Sender<Inquiry>,
    inquiry: impl FnOnce(oneshot::Sender<T>) -> Inquiry,
) -> Option<T> {
    let (reply, answer) = oneshot::channel();
    inquiries.send(inquiry(reply)).await.ok()?;
    answer.await.ok()
}
