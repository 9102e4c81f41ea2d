//! What is asked of the federation: by people, and by whoever keeps it on disk.

use tokio::sync::{mpsc, oneshot};

use super::Federation;
use super::checks::Checks;
use super::silence::is_watched;
use super::steering::Sight;
use crate::app::keeper::Begun;
use crate::app::view_text;
use crate::config::{Cluster, Listener, Schema, Zone};
use crate::dump::Directory;
use crate::explain::{Directed, Freshness, Inquire, Known, Told};
use crate::health::Health;
use crate::index::Kind;
use crate::load::{Origin, Subject};
use crate::metrics::{HealthSample, VoterSample};
use crate::model::{ClusterAddress, ClusterId, Exposure, Federated, Moment, ServiceKey, Share};
use crate::overview::{self, List, Overview};
use crate::ranking::Ingress;
use crate::source::status::{ErrorReason, Reason};
use crate::status::{self as shown, Status};

/// Addresses of pods that are shown of a share.
const MOST_INSIDE: usize = 16;

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
    /// How are these doing?
    Look {
        keys: Vec<ServiceKey>,
        reply: oneshot::Sender<Vec<overview::Service>>,
    },
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
            Inquiry::Look { keys, reply } => {
                let (mut found, now) = (Vec::with_capacity(keys.len()), self.now());
                self.index.services(&keys, |_, service| {
                    found.extend(service.filter(|service| !service.shares.is_empty()).map(|s| self.look(s, now)));
                });
                drop(reply.send(found));
            }
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
            let place = cluster.region.as_ref().and_then(|region| config.location.coordinates(region));
            shown::Cluster {
                name: cluster.name.to_string(),
                state: match (restored, self.index.is_synced(id)) {
                    (Some(_), _) => shown::State::Stale,
                    (None, true) => shown::State::Synced,
                    (None, false) => shown::State::NotSynced,
                },
                snapshot: restored.map(|(_, written)| written.to_string()),
                heard_seconds: self.heard_seconds(id, now),
                silent: self.silence.is_silent(id),
                region: cluster.region.as_ref().map(|region| region.0.to_string()),
                availability_zones: cluster.availability_zones.iter().map(|zone| zone.0.to_string()).collect(),
                latitude: place.map(|place| place.latitude()),
                longitude: place.map(|place| place.longitude()),
                drained: self.steering.effect(&Subject::Cluster(id)).drained,
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

    /// A service at a glance.
    fn look(&self, service: &Federated, now: Moment) -> overview::Service {
        let key = &service.key;
        let health = self.checks.as_ref().map(|checks| checks.sums_of(key)).unwrap_or_default();
        let mut shares = service.shares.clone();
        self.hostnames.fill(&mut shares);
        let look = |share: &Share| {
            let config = self.publisher.config();
            let cluster = config.cluster(share.cluster);
            let (own, whole) = (Subject::Service(share.cluster, key.clone()), Subject::Cluster(share.cluster));
            let steered = self.steering.of(share.cluster, key);
            let by_load = self.loads.of(&own).most(self.loads.of(&whole));
            let shed = by_load.most(steered.shedding()).most(self.steering.effect(&whole).shedding());
            let sums = health.get(&cluster.name).copied().unwrap_or_default();
            let addresses = match share.exposure {
                Exposure::LoadBalancer => Ingress::of(share, cluster).inside,
                Exposure::ClusterOnly => Vec::new(),
            };
            let (pods, inside) = match &share.cluster_address {
                ClusterAddress::Virtual(addresses) => (None, addresses.clone()),
                ClusterAddress::Headless => {
                    let addresses = share.pods.iter().flat_map(|pod| pod.addresses.iter().copied());
                    (Some(share.pods.len()), addresses.take(MOST_INSIDE).collect())
                }
            };
            let works = sums.up + sums.unknown + sums.suspect;
            let state = match steered.forced {
                _ if !share.exported && share.offered.is_none() => overview::State::NotExported,
                Some(Health::Down) => overview::State::Down,
                None if sums.down > 0 && works == 0 => overview::State::Down,
                _ if !share.ready || (addresses.is_empty() && inside.is_empty()) => overview::State::Empty,
                None if sums.down + sums.suspect > 0 => overview::State::Suspect,
                _ if shed.overloaded => overview::State::Overloaded,
                _ if steered.drained => overview::State::Drained,
                _ if shed.share > 0 => overview::State::Shifting,
                _ => overview::State::Fine,
            };
            overview::Share {
                cluster: cluster.name.to_string(),
                state,
                exposure: match share.exposure {
                    Exposure::LoadBalancer => "loadBalancer",
                    Exposure::ClusterOnly => "clusterOnly",
                }
                .to_owned(),
                pods,
                ready: share.ready,
                addresses,
                inside,
                up: sums.up,
                suspect: sums.suspect,
                down: sums.down,
                unknown: sums.unknown,
                load: self.loads.load(&own, now).or_else(|| self.loads.load(&whole, now)).map(|load| load.part()),
                shifted: f64::from(shed.share) / 255.0,
            }
        };
        let clusters: Vec<overview::Share> = shares.iter().map(look).collect();
        overview::Service {
            namespace: key.namespace.to_string(),
            name: key.name.to_string(),
            state: clusters.iter().map(|share| share.state).min().unwrap_or(overview::State::Empty),
            clusters,
        }
    }

    /// What is known of it beside what its answers are made from.
    pub fn known(&self, service: &ServiceKey) -> Known {
        let now = self.now();
        let health = self.checks.as_ref().map(|checks| checks.judged(service, now)).unwrap_or_default();
        let concerns = |sight: &Sight<'_>| sight.directive.service.as_ref().is_none_or(|key| key == service);
        let directives = self.steering.sights(now).into_iter().filter(concerns).map(|sight| self.directed(&sight));
        let config = self.publisher.config();
        let watched = config.numbered().filter(|(_, cluster)| is_watched(cluster));
        let freshness = watched.map(|(id, cluster)| Freshness {
            cluster: cluster.name.to_string(),
            heard_seconds: self.heard_seconds(id, now),
            silent: self.silence.is_silent(id),
            snapshot: self.restored.get(&id).map(|(_, written)| written.to_string()),
        });
        let loads = config.numbered().flat_map(|(id, _)| self.told(id, service, now));
        Known { health, directives: directives.collect(), loads: loads.collect(), freshness: freshness.collect() }
    }

    /// What counts of what the cluster says of the service's load and of its own.
    fn told(&self, cluster: ClusterId, service: &ServiceKey, now: Moment) -> impl Iterator<Item = Told> {
        let told = |subject: Subject| {
            let (load, origin) = self.loads.told(&subject, now)?;
            Some(Told {
                cluster: self.publisher.config().cluster(cluster).name.to_string(),
                load: load.part(),
                by: match (subject, origin) {
                    (Subject::Service(_, key), Origin::Annotation) => format!("annotation of {key}"),
                    (Subject::Service(_, key), Origin::Object { .. }) => format!("ServiceLoad {key}"),
                    (Subject::Cluster(_), _) => "ClusterLoad".to_owned(),
                },
                expires_seconds: match origin {
                    Origin::Annotation => None,
                    Origin::Object { until } => Some(until.0.saturating_sub(now.0).as_secs_f64()),
                },
            })
        };
        [told(Subject::Service(cluster, service.clone())), told(Subject::Cluster(cluster))].into_iter().flatten()
    }

    fn heard_seconds(&self, cluster: ClusterId, now: Moment) -> Option<f64> {
        let heard = self.members[cluster.index()].status.last_heard()?;
        Some(now.0.saturating_sub(heard.0).as_secs_f64())
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

/// All services by their keys.
fn list(inquiries: mpsc::Sender<Inquiry>) -> Box<dyn Fn() -> List + Send + Sync> {
    Box::new(move || {
        let inquiries = inquiries.clone();
        Box::pin(async move { asked(&inquiries, Inquiry::List).await.unwrap_or_default() })
    })
}

/// For whoever looks at all services.
pub fn overview(inquiries: mpsc::Sender<Inquiry>) -> Overview {
    Overview {
        list: list(inquiries.clone()),
        look: Box::new(move |keys| {
            let inquiries = inquiries.clone();
            Box::pin(async move { asked(&inquiries, |reply| Inquiry::Look { keys, reply }).await.unwrap_or_default() })
        }),
    }
}

/// For whoever dumps zones.
pub fn directory(inquiries: mpsc::Sender<Inquiry>) -> Directory {
    Directory {
        list: list(inquiries.clone()),
        fetch: Box::new(move |keys| {
            let inquiries = inquiries.clone();
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
