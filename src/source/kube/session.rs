//! One kind of one cluster: list it, watch it, and decide what each failure means.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::select_all;
use tokio::sync::watch as asks;
use tokio::time::{Instant, sleep, sleep_until};

use super::Timing;
use super::backoff::Backoff;
use super::client::{Api, Failure, escape, refusal, shorten};
use super::identity::{Identities, Identity};
use super::list::{ListDecoder, ListHead};
use super::nodes;
use super::resource::{Presence, Resource};
use super::watch::{Event, EventKind, Lines};
use crate::config::Namespaces;
use crate::courtesy::give_way;
use crate::index::{Kind, Object, ObjectKey, Update};
use crate::model::{Label, Place};
use crate::source::convert::{self, Converted, Problem};
use crate::source::status::ErrorReason;
use crate::source::{Feed, slim};

/// Up to this many namespaces are listed and watched one by one, with rights in them alone; more are picked from
/// what all of the cluster says.
const MAX_SCOPES: usize = 16;
/// Lists in a row that are older than what was seen before one is taken for a restored backup.
pub(super) const RESTORE: u32 = 3;
/// Problems of one kind's objects that are remembered, so that each is told once and not with every list.
const MAX_TOLD: usize = 1_000;

/// What the sessions of one cluster share.
pub struct Link {
    api: Api,
    feed: Feed,
    identity: Identity,
    /// How far an earlier process had heard.
    earlier: BTreeMap<(Kind, Option<Label>), String>,
    backoff: Mutex<Backoff>,
    /// That the identity may not be read has been said.
    nameless: AtomicBool,
}

impl Link {
    pub fn new(api: Api, feed: Feed, identities: Arc<Identities>) -> Link {
        let earlier = feed.status.take_earlier();
        Link {
            identity: Identity::new(feed.config.name.clone(), feed.config.is_registered(), identities, earlier.uid),
            earlier: earlier.versions,
            backoff: Mutex::new(Backoff::new(api.timing().pace)),
            nameless: AtomicBool::new(false),
            api,
            feed,
        }
    }

    fn name(&self) -> &str {
        self.feed.config.name.as_str()
    }

    fn timing(&self) -> &Timing {
        self.api.timing()
    }

    fn backoff(&self) -> MutexGuard<'_, Backoff> {
        self.backoff.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the server's last `Retry-After` has passed.
    async fn gate(&self) {
        let wait = self.backoff().gate(std::time::Instant::now());
        sleep(wait).await;
    }

    /// Nothing is used before it is known whose it is: a name can come to mean another cluster at any time.
    async fn confirm(&self) -> Result<(), Failure> {
        match self.api.uid().await {
            Ok(uid) => {
                self.identity.confirm(&uid)?;
                self.feed.status.is_cluster(&uid);
                Ok(())
            }
            Err(Failure::Status(refusal)) if refusal.code == 403 => {
                self.feed.status.error(ErrorReason::Forbidden);
                if !self.nameless.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        cluster = self.name(),
                        "the right to get the namespace kube-system is missing: a cluster that is exchanged \
                         for another will not be noticed ({refusal})"
                    );
                }
                Ok(())
            }
            Err(failure) => Err(failure),
        }
    }

    /// Never ends. What goes wrong here is told once, and concerns nothing but the order of answers.
    pub async fn follow_places(&self) {
        if !self.feed.config.placed_by_nodes {
            return std::future::pending().await;
        }
        let mut told = false;
        loop {
            self.gate().await;
            // A name that comes to mean another cluster is somewhere else, too.
            let found = match self.confirm().await {
                Ok(()) => nodes::place(&self.api).await,
                Err(failure) => Err(failure),
            };
            let wait = match found {
                Ok(place) => {
                    told = false;
                    self.place(place);
                    self.timing().places
                }
                Err(failure) => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::warn!(
                            cluster = self.name(),
                            "the labels of the nodes are not read ({failure}): the cluster's region and availability \
                             zones are not known from them"
                        );
                    }
                    self.timing().missing
                }
            };
            sleep(wait).await;
        }
    }

    fn place(&self, place: Place) {
        let region = place.region.as_ref().map_or("unknown".to_owned(), |region| region.0.to_string());
        let zones = place.availability_zones.iter().map(|zone| &*zone.0).collect::<Vec<_>>().join(", ");
        if self.feed.discovered.set(&self.feed.config.name, place) {
            tracing::info!(cluster = self.name(), region, zones, "placed by its nodes");
        }
    }

    /// Waits while the publisher is busy. When it is gone, the process ends, and so will we.
    async fn tell(&self, update: Update) {
        if self.feed.updates.send((self.feed.cluster.clone(), update)).await.is_err() {
            self.feed.stop.cancelled().await;
        }
    }
}

/// What the watches of one kind share.
struct Subject<'l> {
    link: &'l Link,
    kind: Kind,
    resource: &'static Resource,
    /// Which of its versions the API has.
    version: AtomicUsize,
    /// It was listed once. What the API does not have after that is not gone: the API is not what it should be.
    known: AtomicBool,
    /// The trouble that was last logged, so that an outage is one line and not one for each try.
    trouble: Mutex<Option<ErrorReason>>,
    /// Problems of objects that were logged.
    told: Mutex<BTreeSet<(Option<ObjectKey>, Problem)>>,
}

/// Lists and watches one kind.
pub struct Session<'l> {
    subject: Subject<'l>,
    scopes: Vec<Scope>,
    asked: asks::Receiver<u64>,
    /// Objects in a page; `None` after a page's token expired, until a list succeeds.
    page: Option<u32>,
    /// Lists in a row that were older than what had been seen.
    older: u32,
    relist_at: Instant,
    /// The versions at hand are good to watch from.
    listed: bool,
    /// The API does not have it, which was said.
    missing: bool,
}

/// All namespaces, or one.
struct Scope {
    /// Its number in the cluster's back-off.
    number: usize,
    namespace: Option<Label>,
    /// The highest version that was heard.
    version: Version,
    heard: Instant,
}

/// A resourceVersion as it was written. Since Kubernetes 1.35 they are promised to be numbers; one that is none cannot be
/// compared, and never counts as older.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Version(pub(super) String);

impl Version {
    pub(super) fn is_older_than(&self, other: &Version) -> bool {
        match (self.0.parse::<u64>(), other.0.parse::<u64>()) {
            (Ok(this), Ok(other)) => this < other,
            _ => false,
        }
    }
}

/// How far a watch came.
#[derive(Debug, Default)]
struct Progress {
    opened: bool,
    /// An event or a bookmark came.
    heard: bool,
}

/// Why a watch cannot be resumed.
struct Lost {
    number: usize,
    failure: Failure,
    /// The client that it happened to.
    generation: u64,
}

/// A list that is being received.
#[derive(Default)]
struct Gathered {
    objects: Vec<Object>,
    keep: Vec<ObjectKey>,
}

impl<'l> Session<'l> {
    pub fn new(link: &'l Link, kind: Kind, asked: asks::Receiver<u64>) -> Session<'l> {
        let resource = Resource::of(kind);
        let namespaces = match &link.feed.config.namespaces {
            _ if kind.is_vote() => vec![link.feed.config.voter.clone()],
            _ if kind == Kind::Directive => vec![link.feed.config.directives.clone()],
            Namespaces::Only(list) if resource.is_namespaced && (1..=MAX_SCOPES).contains(&list.len()) => {
                list.iter().cloned().map(Some).collect()
            }
            Namespaces::Only(_) | Namespaces::All => vec![None],
        };
        let first = kind as usize * MAX_SCOPES;
        let now = Instant::now();
        let scopes = namespaces.into_iter().enumerate().map(|(i, namespace)| Scope {
            number: first + i,
            version: Version(link.earlier.get(&(kind, namespace.clone())).cloned().unwrap_or_default()),
            namespace,
            heard: now,
        });
        Session {
            scopes: scopes.collect(),
            subject: Subject {
                link,
                kind,
                resource,
                version: AtomicUsize::new(0),
                known: AtomicBool::new(false),
                trouble: Mutex::default(),
                told: Mutex::default(),
            },
            asked,
            page: Some(link.timing().page),
            older: 0,
            relist_at: now,
            listed: false,
            missing: false,
        }
    }

    pub async fn run(mut self) {
        let link = self.subject.link;
        let mut begun = false;
        loop {
            if begun {
                link.feed.status.relisting();
            }
            begun = true;
            self.asked.borrow_and_update();
            link.gate().await;
            let generation = link.api.generation();
            if let Err(failure) = self.list().await {
                if self.subject.lacks(&failure) {
                    self.wait_for_it(&failure).await;
                    continue;
                }
                // A list that is only due can wait while the watch goes on; not when it told that time went back.
                self.listed &= !matches!(failure, Failure::TimeTravel { .. });
                let wait = self.subject.failed(self.scopes[0].number, &failure, generation).await;
                if !self.listed {
                    sleep(wait).await;
                    continue;
                }
                self.relist_at = Instant::now() + wait.max(link.timing().relist_again);
            }
            if let Some(lost) = self.follow().await {
                self.listed = false;
                let wait = self.subject.failed(lost.number, &lost.failure, lost.generation).await;
                sleep(wait).await;
            }
        }
    }

    /// Nobody has installed it; who does is not kept waiting for long.
    async fn wait_for_it(&mut self, failure: &Failure) {
        let Subject { link, kind, .. } = self.subject;
        link.backoff().heard(self.scopes[0].number);
        link.feed.status.heard(link.feed.status.now());
        if !self.missing {
            self.missing = true;
            link.feed.status.missing(kind, true);
            let (cluster, plural) = (link.name(), self.subject.plural());
            match self.subject.resource.presence {
                Presence::Optional => {
                    tracing::info!(cluster, kind = plural, "not read ({failure}); looked for now and then");
                }
                Presence::Voted => tracing::warn!(
                    cluster,
                    kind = plural,
                    "the right to read it in the namespace of voters is missing ({failure}): the cluster abstains"
                ),
                Presence::Steered => tracing::warn!(
                    cluster,
                    kind = plural,
                    "the right to read it in the namespace of directives is missing ({failure}): nothing is drained or forced from here"
                ),
                Presence::Asked | Presence::Always => tracing::warn!(
                    cluster,
                    kind = plural,
                    "the API does not have this kind ({failure}): there are none of them until it is installed"
                ),
            }
            link.tell(Update::Reset { kind, objects: Vec::new(), keep: Vec::new() }).await;
        }
        tokio::select! {
            () = sleep(link.timing().missing) => {}
            Ok(()) = self.asked.changed() => {}
        }
    }

    /// Lists all scopes, and only then tells anybody.
    async fn list(&mut self) -> Result<(), Failure> {
        let link = self.subject.link;
        // Once before, because it is cheap and finds a silent server sooner; once after, for what was listed.
        link.confirm().await?;
        let mut gathered = Gathered::default();
        let mut versions = Vec::with_capacity(self.scopes.len());
        for scope in &self.scopes {
            let listed = self.subject.list_any_version(scope.namespace.as_ref(), self.page, &mut gathered).await;
            versions.push(listed.inspect_err(|failure| {
                if failure.is_gone() {
                    self.page = None;
                }
            })?);
        }
        link.confirm().await?;
        self.check_time(&versions)?;
        let (objects, kept) = (gathered.objects.len(), gathered.keep.len());
        link.tell(Update::Reset { kind: self.subject.kind, objects: gathered.objects, keep: gathered.keep }).await;
        let now = Instant::now();
        for (scope, version) in self.scopes.iter_mut().zip(versions) {
            link.feed.status.heard_to(self.subject.kind, scope.namespace.as_ref(), &version.0);
            scope.version = version;
            scope.heard = now;
        }
        self.page = Some(link.timing().page);
        self.relist_at = now + link.timing().relist.mul_f64(0.9 + 0.2 * random_share());
        self.subject.listed(!self.listed, objects, kept);
        self.listed = true;
        self.subject.known.store(true, Ordering::Relaxed);
        if std::mem::take(&mut self.missing) {
            link.feed.status.missing(self.subject.kind, false);
        }
        Ok(())
    }

    /// A list that is older than what was heard comes from a server that lags, or from a backup.
    fn check_time(&mut self, versions: &[Version]) -> Result<(), Failure> {
        let older = self.scopes.iter().zip(versions).find(|(scope, version)| version.is_older_than(&scope.version));
        let Some((scope, version)) = older else {
            self.older = 0;
            return Ok(());
        };
        self.older += 1;
        if self.older < RESTORE {
            return Err(Failure::TimeTravel { seen: scope.version.0.clone(), got: version.0.clone() });
        }
        self.older = 0;
        tracing::warn!(
            cluster = self.subject.link.name(),
            kind = self.subject.plural(),
            "{RESTORE} lists in a row are older (version {}) than what was seen (version {}): \
             taken for a restored backup, and used",
            version.0,
            scope.version.0,
        );
        Ok(())
    }

    /// Watches all scopes. Ends with `None` when a list is due or asked for, else with what only a list can mend.
    async fn follow(&mut self) -> Option<Lost> {
        let Session { subject, scopes, asked, relist_at, .. } = self;
        let subject = &*subject;
        let watches = scopes.iter_mut().map(|scope| Box::pin(scope.follow(subject)));
        tokio::select! {
            (lost, _, _) = select_all(watches) => Some(lost),
            () = sleep_until(*relist_at) => None,
            Ok(()) = asked.changed() => None,
        }
    }
}

impl Scope {
    /// Watches, again and again, until the version at hand is of no use.
    async fn follow(&mut self, subject: &Subject<'_>) -> Lost {
        let link = subject.link;
        loop {
            link.gate().await;
            let begun = Instant::now();
            let generation = link.api.generation();
            let mut progress = Progress::default();
            let failure = match self.watch(subject, &mut progress).await {
                Ok(()) if progress.heard => {
                    link.feed.status.watch_restarted();
                    sleep_until(begun + link.timing().watch_spacing).await;
                    continue;
                }
                Ok(()) => Failure::Silent,
                Err(failure) => failure,
            };
            if is_lost(&failure, &progress, self.heard.elapsed(), link.timing()) {
                return Lost { number: self.number, failure, generation };
            }
            link.feed.status.watch_restarted();
            let wait = subject.failed(self.number, &failure, generation).await;
            sleep(wait).await;
        }
    }

    /// One watch, to its end.
    async fn watch(&mut self, subject: &Subject<'_>, progress: &mut Progress) -> Result<(), Failure> {
        let link = subject.link;
        let timing = link.timing();
        let target = format!(
            "{}?watch=true&allowWatchBookmarks=true&timeoutSeconds={}&resourceVersion={}{}",
            subject.path(self.namespace.as_ref()),
            timing.watch.as_secs().max(1),
            escape(&self.version.0),
            subject.resource.selector,
        );
        let mut chunks = link.api.get(&target, "a watch", timing.small).await?;
        link.confirm().await?;
        progress.opened = true;
        // Of the whole watch, not of one read: the server ends it, so drops that make no event are no life.
        let mut deadline = Instant::now() + timing.read;
        let mut lines = Lines::default();
        while let Some(chunk) = chunks.next(deadline).await? {
            lines.push(&chunk);
            while let Some(line) = lines.next_line()? {
                let event = Event::parse(line)?;
                let (version, update) = self.understand(subject, &event)?;
                if let Some(update) = update {
                    let before = Instant::now();
                    link.tell(update).await;
                    // That we were busy is not the server's fault.
                    deadline += before.elapsed();
                }
                link.feed.status.heard_to(subject.kind, self.namespace.as_ref(), &version.0);
                self.version = version;
                self.heard = Instant::now();
                progress.heard = true;
                subject.heard(self.number);
                give_way();
            }
        }
        Ok(())
    }

    /// What an event comes to: the version that it brings, and what to tell.
    fn understand(&self, subject: &Subject<'_>, event: &Event<'_>) -> Result<(Version, Option<Update>), Failure> {
        let raw = event.object.get().as_bytes();
        if event.kind == EventKind::Error {
            return Err(Failure::Status(refusal(0, None, raw)));
        }
        let unexpected = |expected| Failure::Unexpected { expected, got: shorten(event.object.get()) };
        let version = event.resource_version().map(Version).ok_or_else(|| unexpected("a resourceVersion"))?;
        if version.is_older_than(&self.version) {
            return Err(Failure::TimeTravel { seen: self.version.0.clone(), got: version.0 });
        }
        let update = match event.kind {
            EventKind::Error | EventKind::Bookmark => None,
            EventKind::Deleted => {
                let key = slim::key_of(&mut serde_json::Deserializer::from_slice(raw));
                Some(Update::Delete(subject.kind, key.ok_or_else(|| unexpected("the name of what was deleted"))?))
            }
            EventKind::Added | EventKind::Modified => match subject.convert(raw) {
                Converted::Object { object, .. } => Some(Update::Apply(object)),
                Converted::NotExported(key) | Converted::Ignored(key) => Some(Update::Delete(subject.kind, key)),
                // Counted and told; its last good state stays.
                Converted::Malformed { .. } => None,
            },
        };
        Ok((version, update))
    }
}

/// Whether only a list can mend it; else the watch is resumed from where it was. `quiet` is how long ago the last word was.
fn is_lost(failure: &Failure, progress: &Progress, quiet: Duration, timing: &Timing) -> bool {
    // A watch that ended with neither an event nor a bookmark, or too much may have happened meanwhile.
    let doubtful = (progress.opened && !progress.heard) || quiet >= timing.resume;
    match failure {
        Failure::Credentials(_)
        | Failure::Connect(_)
        | Failure::Tls(_)
        | Failure::Timeout { .. }
        | Failure::Cut(_)
        | Failure::OtherCluster { .. }
        | Failure::SameCluster { .. } => doubtful,
        // 410 above all, but also whatever else the server has against this version.
        Failure::Status(refusal) => doubtful || !matches!(refusal.code, 401 | 403 | 408 | 429 | 500..=599),
        Failure::Silent
        | Failure::TimeTravel { .. }
        | Failure::List(_)
        | Failure::Event(_)
        | Failure::Unexpected { .. }
        | Failure::TooMany { .. } => true,
    }
}

impl Subject<'_> {
    fn plural(&self) -> &'static str {
        self.resource.plural
    }

    fn version(&self) -> usize {
        self.version.load(Ordering::Relaxed)
    }

    fn path(&self, namespace: Option<&Label>) -> String {
        self.resource.path(self.version(), namespace.map(Label::as_str))
    }

    /// Nobody need know of its trouble: it is a kind that nobody has to have, and has not been there yet.
    fn is_quiet(&self) -> bool {
        self.resource.presence == Presence::Optional && !self.known.load(Ordering::Relaxed)
    }

    /// Whether the failure says that there is no such kind for us, and it need not be.
    fn lacks(&self, failure: &Failure) -> bool {
        if self.known.load(Ordering::Relaxed) {
            return false;
        }
        match (failure, self.resource.presence) {
            (Failure::Status(refusal), Presence::Asked) => refusal.code == 404,
            (Failure::Status(refusal), Presence::Optional | Presence::Voted | Presence::Steered) => {
                matches!(refusal.code, 403 | 404)
            }
            _ => false,
        }
    }

    /// Lists one scope, in the version of the group that the API has.
    async fn list_any_version(
        &self,
        namespace: Option<&Label>,
        page: Option<u32>,
        gathered: &mut Gathered,
    ) -> Result<Version, Failure> {
        let versions = self.resource.versions.len();
        for _ in 1..versions {
            match self.list(namespace, page, gathered).await {
                Err(Failure::Status(refusal)) if refusal.code == 404 => {
                    self.version.store((self.version() + 1) % versions, Ordering::Relaxed);
                }
                other => return other,
            }
        }
        self.list(namespace, page, gathered).await
    }

    /// Lists one scope to its last page.
    async fn list(
        &self,
        namespace: Option<&Label>,
        page: Option<u32>,
        gathered: &mut Gathered,
    ) -> Result<Version, Failure> {
        let api = &self.link.api;
        let timing = api.timing();
        let end = Instant::now() + timing.list;
        let path = self.path(namespace);
        let limit = page.map(|page| format!("&limit={page}")).unwrap_or_default();
        let mut token: Option<String> = None;
        let mut version: Option<String> = None;
        loop {
            let from = token.as_deref().map(|token| format!("&continue={}", escape(token))).unwrap_or_default();
            // No resourceVersion: the list is what the cluster holds now, not what a cache remembers.
            let query = format!("{from}{limit}{}", self.resource.selector);
            let target = format!("{path}?{}", query.trim_start_matches('&'));
            let mut chunks = api.get(&target, "a list", timing.read).await?;
            let mut decoder = ListDecoder::default();
            while let Some(chunk) = chunks.next(end.min(Instant::now() + timing.read)).await? {
                decoder.feed(&chunk, &mut |raw| {
                    give_way();
                    self.gather(raw, gathered)
                })?;
                let limit = self.link.feed.limits.objects_per_cluster;
                if gathered.objects.len() + gathered.keep.len() > limit as usize {
                    return Err(Failure::TooMany { limit });
                }
            }
            let head = decoder.finish()?;
            self.check(&head)?;
            if version.get_or_insert_with(|| head.resource_version.clone()) != &head.resource_version {
                return Err(Failure::Unexpected { expected: "pages of one version", got: head.resource_version });
            }
            match head.continue_token {
                None => return Ok(Version(head.resource_version)),
                Some(next) if token.as_ref() == Some(&next) => {
                    return Err(Failure::Unexpected { expected: "another page", got: "the same page".to_owned() });
                }
                next => token = next,
            }
        }
    }

    /// A proxy can answer 200 with a list of something else.
    fn check(&self, head: &ListHead) -> Result<(), Failure> {
        let expected = self.resource.lists[self.version()];
        let got = format!("{} of {}", head.kind, head.api_version);
        if got == expected { Ok(()) } else { Err(Failure::Unexpected { expected, got: shorten(&got) }) }
    }

    /// One object of a list. Only what is no JSON at all is the list's fault.
    fn gather(&self, raw: &[u8], gathered: &mut Gathered) -> Result<(), String> {
        match self.convert(raw) {
            Converted::Object { object, .. } => gathered.objects.push(object),
            Converted::NotExported(_) | Converted::Ignored(_) => {}
            Converted::Malformed { problem: Problem::Syntax { what }, .. } => return Err(what),
            Converted::Malformed { key, .. } => gathered.keep.extend(key),
        }
        Ok(())
    }

    fn convert(&self, raw: &[u8]) -> Converted {
        let config = &self.link.feed.config;
        let converted = match self.kind {
            Kind::Service => slim::from_json(raw).map(|raw| convert::service(raw, config)),
            Kind::EndpointSlice => slim::from_json(raw).map(|raw| convert::slice(raw, config)),
            Kind::ServiceExport => slim::from_json(raw).map(|raw| convert::service_export(raw, config)),
            Kind::ServiceImport => slim::from_json(raw).map(|raw| convert::service_import(raw, config)),
            Kind::ServiceLoad => slim::from_json(raw).map(|raw| convert::service_load(raw, config)),
            Kind::ClusterLoad => slim::from_json(raw).map(|raw| convert::cluster_load(raw, config)),
            Kind::Lease => slim::from_json(raw).map(|raw| convert::heartbeat(raw, config)),
            Kind::HealthReport => slim::from_json(raw).map(|raw| convert::health_report(raw, config)),
            Kind::Directive => slim::from_json(raw).map(|raw| convert::directive(raw, config)),
        };
        let converted = converted.unwrap_or_else(|error| convert::undecodable(*error, config));
        match &converted {
            Converted::Object { object, left_out } => {
                for problem in left_out {
                    self.skipped(Some(object.key()), problem, "is left out of");
                }
            }
            Converted::NotExported(_) | Converted::Ignored(_) => {}
            Converted::Malformed { key, problem } => self.skipped(key.clone(), problem, "spoils"),
        }
        converted
    }

    fn skipped(&self, key: Option<ObjectKey>, problem: &Problem, does: &str) {
        self.link.feed.status.skipped(problem.reason());
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() >= MAX_TOLD {
            told.clear();
        }
        if told.insert((key.clone(), problem.clone())) {
            let object = key.map_or("an object without a name".to_owned(), |key| key.to_string());
            tracing::warn!(cluster = self.link.name(), kind = self.plural(), object, "{problem}: {does} the object");
        }
    }

    /// Counts and tells a failure; returns how long to wait.
    async fn failed(&self, number: usize, failure: &Failure, generation: u64) -> Duration {
        let reason = failure.reason();
        self.link.feed.status.error(reason);
        let before = self.trouble.lock().unwrap_or_else(PoisonError::into_inner).replace(reason);
        if before != Some(reason) {
            let (cluster, kind, reason) = (self.link.name(), self.plural(), reason.label());
            match failure.reason() {
                _ if self.is_quiet() => tracing::debug!(cluster, kind, reason, "{failure}; it is tried again"),
                // Nothing is wrong: a version grows old, or an API server begins a kind anew, and clients have to list again
                // (Kubernetes API Concepts, "410 Gone" responses).
                ErrorReason::Gone => tracing::info!(cluster, kind, reason, "{failure}; it is listed again"),
                _ => {
                    tracing::warn!(cluster, kind, reason, "{failure}; what was heard last stays, and it is tried again")
                }
            }
        }
        let random = getrandom::u64().unwrap_or(u64::MAX / 2);
        let wait = self.link.backoff().failed(number, std::time::Instant::now(), failure.retry_after(), random);
        self.link.api.renew(generation, failure).await;
        wait
    }

    /// An event or a bookmark came.
    fn heard(&self, number: usize) {
        let status = &self.link.feed.status;
        status.heard(status.now());
        self.link.backoff().heard(number);
        self.well();
    }

    fn listed(&self, anew: bool, objects: usize, kept: usize) {
        let status = &self.link.feed.status;
        status.listed();
        status.heard(status.now());
        if anew {
            tracing::info!(cluster = self.link.name(), kind = self.plural(), objects, kept, "listed");
        }
        // Lists come through even where watches do not: that stays said until the watch is heard.
        let silent = *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) == Some(ErrorReason::Silent);
        if !silent {
            self.well();
        }
    }

    fn well(&self) {
        let had_trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner).take().is_some();
        if had_trouble && !self.is_quiet() {
            tracing::info!(cluster = self.link.name(), kind = self.plural(), "heard again");
        }
    }
}

/// Uniform in 0..=1.
fn random_share() -> f64 {
    getrandom::u64().unwrap_or(u64::MAX / 2) as f64 / u64::MAX as f64
}
