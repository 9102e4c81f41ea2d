//! The one task that writes: updates of all clusters → index → table.

mod backlog;
mod checks;
mod hostnames;
mod inquiries;
mod keeping;
mod notes;
mod reports;
mod silence;
mod steering;
mod votes;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::app::keeper::Unsaved;
use crate::app::prober::{self, Heard};
use crate::config::{Cluster, Config, Export, Quorum, Source};
use crate::courtesy::give_way;
use crate::health::Health;
use crate::index::{Changes, Held, Index, Kind, Object, ObjectKey, Policy, Refused, SlicePolicy, Update};
use crate::load::{Counts, Loads, Origin, Rules, Shedding, Subject};
use crate::metrics::{
    ClusterSample, DirectiveSample, FederationGauges, HealthSample, Histogram, LoadSample, SecretsSample,
    SnapshotSample, VoterSample, WritesSample,
};
use crate::model::{ClusterId, Federated, Label, Moment, ServiceKey, Share};
use crate::overview::{About, Recent};
use crate::snapshot::Rules as SnapshotRules;
use crate::source::registrations::{self, Registrations};
use crate::source::status::{self, ErrorReason, Reason};
use crate::source::{self, Message, Number};
use crate::table::{Atlas, Cartographer, Note, Outlook, Publisher, Retired};
use crate::zonefile::ZoneData;

use backlog::Backlog;
use checks::{Checks, Happened};
use hostnames::Hostnames;
pub use hostnames::{Ask, resolver};
pub use inquiries::{Inquiry, asked, directory, inquire, overview, status};
use notes::Notes;
use reports::{Reports, Taken};
use silence::Silence;
use steering::{Moved, Sight, Steered, Steering};

/// Updates that wait for the publisher; a source that is faster than it waits.
pub const UPDATE_QUEUE: usize = 1_024;
/// Updates taken from the queue before the services that they change are compiled, each once.
const BATCH: usize = 256;
/// Services compiled before other updates, and other tasks of the runtime, get a turn.
const PUBLISH_TURN: usize = 256;

/// Most warnings about clusters and services that are full.
const MOST_FULL: usize = 100;
/// From one list that did not release held deletions to the next.
const ASK_AGAIN: Duration = Duration::from_secs(30);

/// What one cluster's source and the publisher share.
#[derive(Clone)]
pub struct Member {
    pub number: Number,
    pub status: Arc<status::Status>,
    pub relist: Arc<Notify>,
}

impl Member {
    pub fn new(id: ClusterId, started: Instant) -> Member {
        Member {
            number: Number::new(id),
            status: Arc::new(status::Status::new(started)),
            relist: Arc::new(Notify::new()),
        }
    }
}

/// The index, the publisher, and what was said about them.
pub struct Federation {
    started: Instant,
    /// Of the index's hash.
    seed: u64,
    index: Index,
    publisher: Publisher,
    loads: Loads,
    reports: Reports,
    steering: Steering,
    hostnames: Hostnames,
    /// `None`: nothing is probed.
    checks: Option<Checks>,
    members: Vec<Member>,
    notes: Notes,
    backlog: Backlog,
    /// The clusters of which it was said that they are full, and their services.
    full: BTreeSet<(ClusterId, Option<ServiceKey>)>,
    /// When a list that may release held deletions was last asked for.
    asked: BTreeMap<(ClusterId, Kind), Moment>,
    /// The held deletions that `seen` shows.
    shown: Vec<Held>,
    seen: Arc<Seen>,
    /// What people are told of it.
    recent: Arc<Recent>,
    inquiries: Option<mpsc::Receiver<Inquiry>>,
    /// For whoever keeps snapshots.
    unsaved: Arc<Unsaved>,
    /// Registered while answers were given: that they were not heard yet spoils no answer.
    not_awaited: BTreeSet<Label>,
    /// Clusters as their snapshots have them: which kinds they did not say themselves yet, and when they were written.
    restored: BTreeMap<ClusterId, (Vec<Kind>, Timestamp)>,
    silence: Silence,
}

/// What /metrics and /readyz see of the federation. Written after each batch where that changed it, never by a query.
#[derive(Default)]
pub struct Seen {
    state: Mutex<SeenState>,
    /// A cluster has synced.
    pub synced: Notify,
    /// Updates in the queue.
    waiting: AtomicU64,
    changes: Arc<Histogram>,
}

#[derive(Default)]
struct SeenState {
    names: u64,
    loads: LoadSample,
    health: Option<(HealthSample, Arc<prober::Counts>)>,
    /// Heard at moments since the start of the process.
    votes: Option<(Vec<VoterSample>, WritesSample)>,
    clusters: Vec<SeenCluster>,
    notes: Vec<(&'static str, u64)>,
    directives: Vec<DirectiveSample>,
    /// `None`: no snapshots are kept.
    unsaved: Option<Arc<Unsaved>>,
}

struct SeenCluster {
    name: String,
    synced: bool,
    restored: bool,
    silent: bool,
    status: Arc<status::Status>,
    held: Vec<(&'static str, u64)>,
}

impl Seen {
    fn lock(&self) -> std::sync::MutexGuard<'_, SeenState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The names of the clusters that were not heard in full yet.
    pub fn missing(&self) -> Vec<String> {
        self.lock().clusters.iter().filter(|c| !c.synced).map(|c| c.name.clone()).collect()
    }
}

/// [`Seen`] as metrics ask for it.
pub struct Gauges(pub Arc<Seen>, pub Arc<Registrations>);

impl FederationGauges for Gauges {
    fn names(&self) -> u64 {
        self.0.lock().names
    }

    fn waiting(&self) -> u64 {
        self.0.waiting.load(Relaxed)
    }

    fn changes(&self) -> Arc<Histogram> {
        self.0.changes.clone()
    }

    fn notes(&self) -> Vec<(&'static str, u64)> {
        self.0.lock().notes.clone()
    }

    fn loads(&self) -> LoadSample {
        self.0.lock().loads
    }

    fn directives(&self) -> Vec<DirectiveSample> {
        self.0.lock().directives.clone()
    }

    fn snapshots(&self) -> Option<SnapshotSample> {
        let unsaved = self.0.lock().unsaved.clone()?;
        let (written, failed) = unsaved.counts();
        let last = unsaved.last().into_iter().map(|(cluster, at)| (cluster.to_string(), at)).collect();
        Some(SnapshotSample { written, failed, last })
    }

    fn secrets(&self) -> Option<SecretsSample> {
        let registrations::Counts { registered, refused, held } = self.1.counts()?;
        let status = &self.1.status;
        let now = status.now();
        Some(SecretsSample {
            registered: registered as u64,
            refused: refused.into_iter().map(|(reason, count)| (reason, count as u64)).collect(),
            held: held as u64,
            last_heard: status.last_heard().map(|at| now - at),
            errors: ErrorReason::ALL.iter().map(|&reason| (reason.label(), status.errors(reason))).collect(),
        })
    }

    fn health(&self) -> Option<HealthSample> {
        let state = self.0.lock();
        let (sample, counts) = state.health.as_ref()?;
        Some(counts.added_to(sample.clone()))
    }

    fn votes(&self) -> Option<(Vec<VoterSample>, WritesSample)> {
        let state = self.0.lock();
        let (mut voters, writes) = state.votes.clone()?;
        let now = state.clusters.first()?.status.now();
        for voter in &mut voters {
            voter.heard = voter.heard.map(|at| now - Moment(at));
        }
        Some((voters, writes))
    }

    fn clusters(&self) -> Vec<ClusterSample> {
        let sample = |cluster: &SeenCluster| {
            let status = &cluster.status;
            let now = status.now();
            ClusterSample {
                cluster: cluster.name.clone(),
                synced: cluster.synced,
                restored: cluster.restored,
                silent: cluster.silent,
                last_heard: status.last_heard().map(|at| now - at),
                source_errors: ErrorReason::ALL.iter().map(|&r| (r.label(), status.errors(r))).collect(),
                objects_skipped: Reason::ALL.iter().map(|&r| (r.label(), status.skips(r))).collect(),
                held_deletions: cluster.held.clone(),
                missing: Kind::ALL.iter().map(|&kind| (kind.label(), status.is_missing(kind))).collect(),
            }
        };
        self.0.lock().clusters.iter().map(sample).collect()
    }
}

/// What a cluster's services without slices mean, by where they come from.
fn slice_policy(source: &Source) -> SlicePolicy {
    match source {
        Source::Manifests { .. } => SlicePolicy::Optional,
        Source::Kubeconfig { .. } | Source::InCluster | Source::Registered(_) => SlicePolicy::Expected,
    }
}

/// How a cluster's index is to understand what its source says.
fn policy(cluster: &Cluster) -> Policy {
    let kinds = source::kinds(cluster);
    Policy {
        slices: slice_policy(&cluster.source),
        services: cluster.export != Export::Nothing,
        by_export: cluster.export == Export::ServiceExport,
        exports: kinds.contains(&Kind::ServiceExport),
        imports: kinds.contains(&Kind::ServiceImport),
    }
}

/// Whether a source can go on unchanged.
pub fn same_source(old: &Cluster, new: &Cluster) -> bool {
    old.name == new.name
        && old.source == new.source
        && old.export == new.export
        && old.namespaces == new.namespaces
        && old.mcs == new.mcs
        && old.placed_by_nodes == new.placed_by_nodes
        && old.voter == new.voter
}

/// Whether everything that `old` was allowed to say, `new` is allowed to say too. Where its objects come from may have
/// changed, from one API server's address to another; the first list sets right what is different there.
fn may_say_all_of(new: &Cluster, old: &Cluster) -> bool {
    SnapshotRules::of(old).fit(&SnapshotRules::of(new))
}

pub fn new_index(config: &Config) -> Index {
    Index::new(config.clusters.iter().map(policy).collect())
        .limited(config.limits.objects_per_cluster)
        .with_most_endpoints(config.limits.endpoints_per_service)
}

impl Federation {
    /// `seed`: random, so that nobody can make names that collide in the index.
    /// `ask`: for the names of load balancers.
    pub fn new(
        started: Instant,
        publisher: Publisher,
        members: Vec<Member>,
        seen: Arc<Seen>,
        ask: Ask,
        seed: u64,
    ) -> Federation {
        let hostnames = Hostnames::new(publisher.config(), ask);
        let index = new_index(publisher.config()).seeded(seed);
        let checks = checks(publisher.config(), seed);
        let loads = Loads::new(rules(publisher.config()));
        let steering = Steering::new(rules(publisher.config()).ttl);
        let mut federation = Federation {
            started,
            seed,
            index,
            publisher,
            loads,
            reports: Reports::default(),
            steering,
            hostnames,
            checks,
            members,
            notes: Notes::default(),
            backlog: Backlog::default(),
            full: BTreeSet::new(),
            asked: BTreeMap::new(),
            shown: Vec::new(),
            seen,
            recent: Arc::default(),
            inquiries: None,
            unsaved: Arc::default(),
            not_awaited: BTreeSet::new(),
            restored: BTreeMap::new(),
            silence: Silence::default(),
        };
        // Of whoever only votes, nothing has to be known.
        for (id, _) in federation.publisher.config().clone().numbered() {
            if federation.index.is_synced(id) {
                federation.publisher.set_synced(id);
            }
        }
        federation.show_clusters();
        federation
    }

    fn now(&self) -> Moment {
        Moment(self.started.elapsed())
    }

    /// Answers these, too.
    pub fn with_inquiries(self, inquiries: mpsc::Receiver<Inquiry>) -> Federation {
        Federation { inquiries: Some(inquiries), ..self }
    }

    /// Tells what happens.
    pub fn with_recent(self, recent: Arc<Recent>) -> Federation {
        Federation { recent, ..self }
    }

    /// Tells what there is to be kept.
    pub fn with_unsaved(self, unsaved: Arc<Unsaved>) -> Federation {
        Federation { unsaved, ..self }
    }

    /// What each cluster's source is started with.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Goes over to another configuration. A cluster keeps all that was heard of it while it may still say it.
    pub fn reconfigure(&mut self, config: Arc<Config>, zones: &[ZoneData], atlas: Atlas, ask: Ask) -> Cartographer {
        // It would name clusters by their old numbers.
        debug_assert!(self.backlog.is_empty(), "`run` ends with nothing left to compile");
        let mut index = new_index(&config).seeded(self.seed);
        let mut members = Vec::with_capacity(config.clusters.len());
        let mut asked = BTreeMap::new();
        let old = self.publisher.config().clone();
        for (id, cluster) in config.numbered() {
            let before = old.numbered().find(|(_, old)| old.name == cluster.name);
            members.push(match before {
                Some((before, _)) => self.members[before.index()].clone(),
                None => Member::new(id, self.started),
            });
            if let Some((before, _)) = before.filter(|(_, old)| may_say_all_of(cluster, old)) {
                index.adopt(id, &mut self.index, before);
                let kinds = Kind::ALL.into_iter();
                asked.extend(kinds.filter_map(|kind| Some(((id, kind), *self.asked.get(&(before, kind))?))));
            }
        }
        // What nobody knew of a moment ago is not missing. Those of the first list are: they were answered for before this
        // process began, perhaps.
        if old.cluster_secrets.as_ref().is_some_and(|secrets| secrets.listed) {
            let new = config.clusters.iter().filter(|cluster| cluster.is_registered());
            let new = new.filter(|cluster| old.named(&cluster.name).is_none());
            self.not_awaited.extend(new.map(|cluster| cluster.name.clone()));
        }
        self.not_awaited.retain(|name| config.named(name).is_some_and(|(_, cluster)| cluster.is_registered()));
        self.index = index;
        self.members = members;
        self.members.iter().zip(config.numbered()).for_each(|(member, (id, _))| member.number.set(id));
        self.asked = asked;
        self.full.clear();
        let new_id = |old_id: ClusterId| {
            let name = &old.cluster(old_id).name;
            config.numbered().find(|(_, cluster)| cluster.name == *name).map(|(id, _)| id)
        };
        let loads = std::mem::replace(&mut self.loads, Loads::new(rules(&config)));
        self.loads = loads.renumbered(rules(&config), new_id);
        self.reports = std::mem::take(&mut self.reports).renumbered(new_id);
        let now = self.now();
        self.steering = std::mem::take(&mut self.steering).renumbered(rules(&config).ttl, new_id, now);
        let restored = std::mem::take(&mut self.restored).into_iter();
        self.restored = restored.filter_map(|(id, waits)| Some((new_id(id)?, waits))).collect();
        self.restored.retain(|id, _| self.index.is_synced(*id));
        self.silence.renumber(new_id);
        // Their numbers are others, or their rules.
        self.unsaved.add(config.numbered().map(|(id, _)| id));
        self.hostnames.reconfigure(&config, ask);
        self.checks = match (self.checks.take(), &config.health) {
            (Some(checks), Some(rules)) => Some(checks.reconfigured(&config, rules, fresh(self.seed), now)),
            (_, None) => None,
            (None, Some(_)) => checks(&config, self.seed),
        };
        let Federation { index, loads, steering, hostnames, checks, restored, silence, .. } = self;
        let mut beside = Beside { loads, steering, hostnames, checks };
        let keys = index.keys();
        let before = std::mem::take(&mut self.notes);
        let notes = &mut self.notes;
        let fill = |table: &mut Publisher| {
            table.set_atlas(atlas);
            table.reserve(keys.len());
            restored.keys().for_each(|cluster| table.set_remembered(*cluster, true));
            silence.tell(table);
            for (cluster, _) in table.config().clone().numbered() {
                table.set_shedding(cluster, shedding(beside.loads, beside.steering, cluster));
            }
            index.services(&keys, |key, service| {
                let said = beside.publish(table, key, service, now);
                if !said.is_empty() && before.get(key) != Some(&said) {
                    say(table.config(), key, &said);
                }
                notes.set(key, said);
            });
        };
        let named = config.clone();
        let not_awaited = &self.not_awaited;
        let is_synced = |id| index.is_synced(id) || not_awaited.contains(&named.cluster(id).name);
        retire(self.publisher.replace(config, zones, fill, is_synced));
        let mut changed = self.checks.as_mut().map(|checks| checks.forget_unused(now)).unwrap_or_default();
        changed.extend(self.release());
        self.compile(&changed);
        self.show_clusters();
        self.recent.add(About::Configuration, None, None, "a new configuration is in use");
        self.publisher.cartographer()
    }

    /// Publishes until `stop`; gives itself back, so that another configuration can go on with what it knows.
    pub async fn run(
        mut self,
        mut updates: mpsc::Receiver<Message>,
        stop: CancellationToken,
    ) -> (Federation, mpsc::Receiver<Message>) {
        loop {
            let deadline = self.next_deadline();
            let wait = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until((self.started + at.0).into()).await,
                    None => std::future::pending().await,
                }
            };
            let mut taken = None;
            let changes = tokio::select! {
                biased;
                () = stop.cancelled() => {
                    // What was said in the numbers of this configuration must not wait for another one.
                    while let Ok(message) = updates.try_recv() {
                        let changes = self.take(message, &mut updates);
                        self.publish(changes).await;
                    }
                    while !self.backlog.is_empty() {
                        self.publish(Vec::new()).await;
                        tokio::task::yield_now().await;
                    }
                    return (self, updates);
                }
                // There is at most one for each change of what can be reached: clusters with much to say do not keep it waiting.
                heard = next_heard(&mut self.checks) => vec![self.take_heard(heard)],
                Some(message) = updates.recv() => {
                    taken = Some(Instant::now());
                    self.take(message, &mut updates)
                }
                (name, answer) = self.hostnames.next() => {
                    let services = self.hostnames.take(&name, answer, self.now());
                    vec![Changes { services, ..Changes::default() }]
                }
                Some(inquiry) = next_inquiry(&mut self.inquiries) => {
                    self.answer(inquiry);
                    continue;
                }
                () = wait => {
                    let now = self.now();
                    let services = self.checks.as_mut().map_or_else(Vec::new, |checks| checks.tick(now));
                    let checked = Changes { services, ..Changes::default() };
                    vec![self.index.tick(now), self.tick_loads(now), self.tick_steering(now), checked]
                }
                // A change of one service does not wait for a list of a million.
                () = tokio::task::yield_now(), if !self.backlog.is_empty() => Vec::new(),
            };
            let count = changes.len() as u64;
            self.publish(changes).await;
            // What a long list changes is compiled in turns, of which this one may be no more than the first.
            if let Some(taken) = taken.filter(|_| self.backlog.is_empty()) {
                self.seen.changes.add(count, taken.elapsed());
            }
            self.seen.waiting.store(updates.len() as u64, Relaxed);
            self.tell_health();
            self.hostnames.tick(self.now());
            self.look_for_silence();
            self.ask_for_lists();
        }
    }

    fn next_deadline(&self) -> Option<Moment> {
        let release = self.index.held().into_iter().map(|held| self.ask_at(&held)).min();
        let checks = self.checks.as_ref().and_then(Checks::next_deadline);
        let steering = self.steering.next_deadline();
        let own = [self.index.next_deadline(), self.loads.next_deadline(), self.hostnames.next_deadline()];
        own.into_iter().chain([checks, steering, self.next_look()]).flatten().chain(release).min()
    }

    /// As if all that the clusters say of their load had been so for long.
    pub fn settle(&mut self) {
        let changed = self.loads.settle(self.now());
        let changes = self.shed(changed);
        self.compile(&changes.services);
    }

    /// All of them, as the index has them.
    pub fn services(&self) -> Vec<Federated> {
        let mut all = Vec::new();
        self.index.services(&self.index.keys(), |_, service| all.extend(service.cloned()));
        all
    }

    fn take_load(&mut self, cluster: ClusterId, update: Update, now: Moment) -> Changes {
        let limit = self.publisher.config().limits.objects_per_cluster as usize;
        let Taken { changed, refused } = self.reports.take(cluster, update, &mut self.loads, limit, now);
        Changes { refused: refused.then_some((cluster, Refused::Object)), ..self.shed(changed) }
    }

    fn take_directive(&mut self, cluster: ClusterId, update: Update, now: Moment) -> Changes {
        let moved = self.steering.take(cluster, update, now, Timestamp::now());
        Changes { refused: moved.refused.then_some((cluster, Refused::Object)), ..self.steered(moved) }
    }

    fn tick_steering(&mut self, now: Moment) -> Changes {
        let moved = self.steering.tick(now);
        self.steered(moved)
    }

    /// Something else is to be done about these. Of a large federation they are compiled in turns.
    fn steered(&mut self, moved: Moved) -> Changes {
        let Moved { changed: subjects, shifted, .. } = moved;
        for cluster in shifted {
            self.publisher.set_shedding(cluster, shedding(&self.loads, &self.steering, cluster));
        }
        if subjects.is_empty() {
            return Changes::default();
        }
        let (mut clusters, mut named) = (BTreeSet::new(), BTreeSet::new());
        for subject in subjects {
            // Each step of a shift would be much.
            if self.steering.effect(&subject).shifted == 0 {
                self.say_steered(&subject);
            }
            match subject {
                Subject::Service(_, key) => drop(named.insert(key)),
                Subject::Cluster(cluster) => drop(clusters.insert(cluster)),
            }
        }
        let keys = if clusters.is_empty() { named.iter().cloned().collect() } else { self.index.keys() };
        let (mut services, mut without) = (Vec::new(), Vec::new());
        self.index.services(&keys, |key, service| {
            let Some(service) = service else { return };
            if named.contains(key) || service.shares.iter().any(|share| clusters.contains(&share.cluster)) {
                if self.steering.leaves_nobody(service) {
                    without.push(key.clone());
                }
                services.push(key.clone());
            }
        });
        if let Some(first) = without.first() {
            warn!(
                service = %first,
                services = without.len(),
                "no cluster is left that is not drained: they are answered with all the same, for a short time"
            );
        }
        services.extend(self.release());
        Changes { services, ..Changes::default() }
    }

    /// Whoever is in a cluster may say so to the instances in it; whoever decides alone hears all.
    fn release(&mut self) -> Vec<ServiceKey> {
        let config = self.publisher.config();
        let own = config.health.as_ref().and_then(|health| match &health.quorum {
            Quorum::Local => None,
            Quorum::Majority(majority) => Some(majority.own),
        });
        let hears = |id: &ClusterId| own.is_none_or(|own| own == Some(*id));
        let clusters = config.numbered().map(|(id, _)| id).filter(hears);
        let (released, now) = (self.steering.is_released(clusters), self.now());
        self.checks.as_mut().map(|checks| checks.release(released, now)).unwrap_or_default()
    }

    fn say_steered(&self, subject: &Subject) {
        let (cluster, service) = match subject {
            Subject::Cluster(cluster) => (*cluster, None),
            Subject::Service(cluster, key) => (*cluster, Some(key)),
        };
        let Steered { drained, forced, is_brief, released, .. } = self.steering.effect(subject);
        let what = match (forced, drained, is_brief) {
            _ if released => "releases the breaker: whatever its instances find Down is removed".to_owned(),
            (Some(Health::Down), ..) => "is Down by a directive".to_owned(),
            (Some(_), ..) => "is Up by a directive".to_owned(),
            (None, true, _) => "is drained".to_owned(),
            (None, false, true) => "will be taken out: answers are kept for the shortest time".to_owned(),
            (None, false, false) => "is answered with as before: no directive is about it any more".to_owned(),
        };
        let name = &self.publisher.config().cluster(cluster).name;
        self.recent.add(About::Directive, Some(name.as_str()), service, &*what);
        let service = service.map_or_else(|| "all".to_owned(), ToString::to_string);
        info!(cluster = %name, %service, "{what}");
    }

    fn take_vote(&mut self, cluster: ClusterId, update: Update, now: Moment) -> Changes {
        let services = self.checks.as_mut().map(|checks| checks.hear(cluster, update, now)).unwrap_or_default();
        Changes { services, ..Changes::default() }
    }

    fn take_heard(&mut self, first: Heard) -> Changes {
        let now = self.now();
        let Some(checks) = &mut self.checks else { return Changes::default() };
        let mut services = checks.take(first, now);
        for _ in 1..BATCH {
            let Some(heard) = checks.waiting() else { break };
            services.extend(checks.take(heard, now));
        }
        Changes { services, ..Changes::default() }
    }

    fn tick_loads(&mut self, now: Moment) -> Changes {
        let changed = self.loads.tick(now);
        self.shed(changed)
    }

    /// Other shares of their traffic are to go elsewhere now.
    fn shed(&mut self, subjects: Vec<Subject>) -> Changes {
        let mut services = Vec::new();
        for subject in subjects {
            match subject {
                Subject::Cluster(cluster) => {
                    self.publisher.set_shedding(cluster, shedding(&self.loads, &self.steering, cluster));
                }
                Subject::Service(_, key) => services.push(key),
            }
        }
        Changes { services, ..Changes::default() }
    }

    /// One list at the moment from which it may release, and another one every so often while it does not.
    fn ask_at(&self, held: &Held) -> Moment {
        match self.asked.get(&(held.cluster, held.kind)) {
            Some(&asked) if asked >= held.release_from => asked + ASK_AGAIN,
            Some(_) | None => held.release_from,
        }
    }

    fn take(&mut self, first: Message, updates: &mut mpsc::Receiver<Message>) -> Vec<Changes> {
        let now = self.now();
        let mut changes = Vec::new();
        let mut unsaved = BTreeSet::new();
        let mut next = Some(first);
        while let Some((number, update)) = next {
            let cluster = number.get();
            if !update.kind().is_load() && !update.kind().is_vote() {
                unsaved.insert(cluster);
            }
            if let Update::Reset { kind, .. } = &update {
                self.listed(cluster, *kind);
            }
            self.tell_service(cluster, &update);
            changes.push(match update.kind() {
                kind if kind.is_load() => self.take_load(cluster, update, now),
                kind if kind.is_vote() => self.take_vote(cluster, update, now),
                Kind::Directive => self.take_directive(cluster, update, now),
                _ => self.index.apply(cluster, update, now),
            });
            give_way();
            next = if changes.len() < BATCH { updates.try_recv().ok() } else { None };
        }
        if !unsaved.is_empty() {
            self.unsaved.add(unsaved);
        }
        changes
    }

    /// Compiles what these updates changed, but of long lists only what there is a turn for.
    async fn publish(&mut self, changes: Vec<Changes>) {
        let mut services = Vec::new();
        let mut synced = Vec::new();
        for change in changes {
            if change.services.len() > PUBLISH_TURN {
                self.publisher.reserve(change.services.len());
                self.backlog.add(change.services, change.synced);
            } else {
                services.extend(change.services);
                synced.extend(change.synced);
            }
            if let Some((cluster, what)) = change.refused {
                self.refused(cluster, what);
            }
        }
        services.sort();
        services.dedup();
        for (n, services) in services.chunks(PUBLISH_TURN).enumerate() {
            if n > 0 {
                tokio::task::yield_now().await;
            }
            self.compile(services);
        }
        synced.extend(self.compile_backlog());
        self.synced(&synced);
    }

    /// One turn. Gives the clusters that are synced with it.
    fn compile_backlog(&mut self) -> Vec<ClusterId> {
        let services = self.backlog.take(PUBLISH_TURN).to_vec();
        self.compile(&services);
        self.backlog.finished()
    }

    /// Puts services into the table as the index has them now.
    fn compile(&mut self, services: &[ServiceKey]) {
        let now = self.now();
        let Federation { index, publisher, loads, steering, hostnames, checks, notes, .. } = self;
        let mut beside = Beside { loads, steering, hostnames, checks };
        index.services(services, |key, service| {
            let said = beside.publish(publisher, key, service, now);
            let new = notes.set(key, said);
            say(publisher.config(), key, &new);
            give_way();
        });
    }

    /// To be called when their names are in the table: until then, a cluster is one that could hold more of them.
    fn synced(&mut self, clusters: &[ClusterId]) {
        for &cluster in clusters {
            self.publisher.set_synced(cluster);
            let name = &self.publisher.config().cluster(cluster).name;
            let (services, slices) = self.index.counts(cluster);
            let text = format!("is heard in full: {services} services, {slices} EndpointSlices");
            self.recent.add(About::Cluster, Some(name.as_str()), None, text);
            info!(cluster = %name, services, slices, "synced");
        }
        self.show(clusters);
    }

    /// What the prober and the votes came to.
    fn tell_health(&mut self) {
        let Some(checks) = &mut self.checks else { return };
        for Happened { cluster, text } in checks.happened() {
            self.recent.add(About::Health, cluster.as_ref().map(Label::as_str), None, text);
        }
    }

    /// What a cluster that was heard in full says of its services.
    fn tell_service(&self, cluster: ClusterId, update: &Update) {
        if !self.index.is_synced(cluster) {
            return;
        }
        let name = self.publisher.config().cluster(cluster).name.as_str();
        let key = |key: &ObjectKey| {
            Some(ServiceKey { namespace: Label::parse(&key.namespace).ok()?, name: Label::parse(&key.name).ok()? })
        };
        match update {
            Update::Apply(Object::Service(service)) => {
                self.recent.add(About::Service, Some(name), Some(&service.key), "was added or changed");
            }
            Update::Delete(Kind::Service, object) => {
                self.recent.add(About::Service, Some(name), key(object).as_ref(), "was deleted");
            }
            _ => {}
        }
    }

    fn refused(&mut self, cluster: ClusterId, what: Refused) {
        self.members[cluster.index()].status.skipped(Reason::Limit);
        let service = match what {
            Refused::Object => None,
            Refused::Endpoints(service) => Some(service),
        };
        // Of so many services it is said; a cluster that has more of them has been noticed.
        if self.full.len() >= MOST_FULL || !self.full.insert((cluster, service.clone())) {
            return;
        }
        let config = self.publisher.config();
        let (name, limits) = (&config.cluster(cluster).name, &config.limits);
        match service {
            None => warn!(
                cluster = %name,
                limit = limits.objects_per_cluster,
                "the cluster has as many objects as limits.objectsPerCluster allows; new ones are left out"
            ),
            Some(service) => warn!(
                cluster = %name,
                %service,
                limit = limits.endpoints_per_service,
                "the service has as many endpoints as limits.endpointsPerService allows; EndpointSlices with more are \
                 left out"
            ),
        }
    }

    fn ask_for_lists(&mut self) {
        let now = self.now();
        let held = self.index.held();
        self.asked.retain(|key, _| held.iter().any(|h| (h.cluster, h.kind) == *key));
        for held in held {
            let key = (held.cluster, held.kind);
            let name = &self.publisher.config().cluster(held.cluster).name;
            if let Entry::Vacant(new) = self.asked.entry(key) {
                new.insert(now);
                let text = format!("{} deletions of {} at once are not believed yet", held.count, held.kind.name());
                self.recent.add(About::Cluster, Some(name.as_str()), None, text);
                warn!(
                    cluster = %name,
                    kind = held.kind.label(),
                    held = held.count,
                    "more than half of the objects went within 60 s: their last state stays until a list confirms it"
                );
            }
            if now >= self.ask_at(&held) {
                self.asked.insert(key, now);
                self.members[held.cluster.index()].relist.notify_one();
            }
        }
    }

    /// Shows the clusters of a configuration that was not shown yet.
    fn show_clusters(&mut self) {
        let clusters = self.publisher.config().numbered().map(|(id, cluster)| SeenCluster {
            name: cluster.name.to_string(),
            synced: self.index.is_synced(id),
            restored: self.restored.contains_key(&id),
            silent: self.silence.is_silent(id),
            status: self.members[id.index()].status.clone(),
            held: Vec::new(),
        });
        let mut state = self.seen.lock();
        state.clusters = clusters.collect();
        state.unsaved = self.publisher.config().state.as_ref().map(|_| self.unsaved.clone());
        drop(state);
        self.shown.clear();
        self.show(&[]);
    }

    /// How many of each there are.
    fn directives(&self) -> Vec<DirectiveSample> {
        let mut counts = BTreeMap::new();
        for Sight { cluster, directive, phase } in self.steering.sights(self.now()) {
            *counts.entry((cluster, directive.action.word(), phase.word())).or_insert(0) += 1;
        }
        let sample = |((cluster, action, phase), count): ((ClusterId, _, _), u64)| DirectiveSample {
            cluster: self.publisher.config().cluster(cluster).name.to_string(),
            action,
            phase,
            count,
        };
        counts.into_iter().map(sample).collect()
    }

    /// Shows what a batch changed, with the clusters that have synced in it.
    fn show(&mut self, synced: &[ClusterId]) {
        let held = self.index.held();
        let directives = self.directives();
        let mut state = self.seen.lock();
        state.names = self.publisher.name_count() as u64;
        let Counts { shedding, overloaded } = self.loads.counts();
        state.loads = LoadSample {
            shedding: shedding as u64,
            overloaded: overloaded as u64,
            unresolved: self.hostnames.failing() as u64,
        };
        state.health = self.checks.as_ref().map(|checks| (checks.sample(), checks.counts()));
        state.votes = self.checks.as_ref().and_then(Checks::votes);
        state.notes = self.notes.counts();
        state.directives = directives;
        for cluster in synced {
            state.clusters[cluster.index()].synced = true;
        }
        if held != self.shown {
            for old in &self.shown {
                state.clusters[old.cluster.index()].held.clear();
            }
            for new in &held {
                state.clusters[new.cluster.index()].held.push((new.kind.label(), new.count as u64));
            }
            self.shown = held;
        }
        drop(state);
        if !synced.is_empty() {
            self.seen.synced.notify_waiters();
        }
    }
}

/// What of a cluster as a whole goes elsewhere, by its load and by its operators.
fn shedding(loads: &Loads, steering: &Steering, cluster: ClusterId) -> Shedding {
    let subject = Subject::Cluster(cluster);
    loads.of(&subject).most(steering.effect(&subject).shedding())
}

/// Nothing is probed where nobody asked for it.
fn checks(config: &Config, seed: u64) -> Option<Checks> {
    let rules = config.health.as_ref()?;
    Some(Checks::start(config, rules, fresh(seed)))
}

/// Another one each time: others read it, and the index's own stays a secret.
fn fresh(seed: u64) -> u64 {
    getrandom::u64().unwrap_or(seed)
}

async fn next_inquiry(inquiries: &mut Option<mpsc::Receiver<Inquiry>>) -> Option<Inquiry> {
    match inquiries {
        Some(inquiries) => inquiries.recv().await,
        None => std::future::pending().await,
    }
}

async fn next_heard(checks: &mut Option<Checks>) -> Heard {
    match checks {
        Some(checks) => checks.next().await,
        None => std::future::pending().await,
    }
}

/// What is known of services beside the index.
struct Beside<'a> {
    loads: &'a mut Loads,
    steering: &'a Steering,
    hostnames: &'a mut Hostnames,
    checks: &'a mut Option<Checks>,
}

impl Beside<'_> {
    /// Puts a service into the table, with what its load balancers' names lead to, what its annotations say of its load, what operators
    /// say, and which of its addresses work.
    fn publish(
        &mut self,
        publisher: &mut Publisher,
        key: &ServiceKey,
        service: Option<&Federated>,
        now: Moment,
    ) -> Vec<Note> {
        let Beside { loads, steering, hostnames, checks } = self;
        hostnames.need(key, service.map_or(&[], |service| &service.shares), now);
        let filled =
            service.filter(|service| service.shares.iter().any(|share| !share.hostnames.is_empty())).map(|service| {
                let mut service = service.clone();
                hostnames.fill(&mut service.shares);
                service
            });
        let service = filled.as_ref().or(service);
        let steered = service.and_then(|service| steering.steered(service));
        let service = steered.as_ref().or(service);
        let shares = service.map_or(&[][..], |service| &service.shares);
        let named = |share: &Share, address| hostnames.name_of(share, address);
        if let Some(checks) = checks {
            checks.need(key, shares, &publisher.config().clusters, &named);
        }
        let checks = checks.as_ref();
        let seen =
            |share: &Share, address| checks.map_or(Health::Fine, |checks| checks.of(key, share, address, &named));
        let health =
            |share: &Share, address| steering.of(share.cluster, key).forced.unwrap_or_else(|| seen(share, address));
        let is_loaded = !loads.is_silent_about(key) || shares.iter().any(|share| share.wishes.load.is_some());
        if steered.is_none() && !is_loaded {
            return publisher.publish_with(key, service, &Outlook { health: &health, ..Outlook::FAIR });
        }
        if is_loaded {
            for (cluster, _) in publisher.config().numbered() {
                let load = shares.iter().find(|share| share.cluster == cluster).and_then(|share| share.wishes.load);
                loads.tell(&Subject::Service(cluster, key.clone()), load, Origin::Annotation, now);
            }
        }
        let shedding = |cluster| loads.of_service(cluster, key).most(steering.of(cluster, key).shedding());
        publisher.publish_with(key, service, &Outlook { shedding: &shedding, health: &health })
    }
}

/// Drops it when nobody reads it any more, aside.
pub fn retire(retired: Retired) {
    tokio::task::spawn_blocking(move || {
        while !retired.is_unused() {
            std::thread::sleep(Duration::from_millis(1));
        }
    });
}

/// Clients hold answers for as long as the longest TTL.
fn rules(config: &Config) -> Rules {
    let ttl = config.zones.iter().filter(|zone| zone.schema.has_services()).map(|zone| zone.ttl).max();
    Rules::new(Duration::from_secs(ttl.unwrap_or(1).into()))
}

fn say(config: &Config, key: &ServiceKey, notes: &[Note]) {
    for note in notes {
        warn!(reason = note.kind().label(), "{}", note.sentence(key, config));
    }
}

#[cfg(test)]
mod tests;
