//! The Secrets by which clusters are registered: listed and watched in their namespace, by their label.
//!
//! Whatever goes wrong with the API, what was registered stays. Of what Secrets hold, nothing goes into a message.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::Timing;
use super::backoff::Backoff;
use super::client::{Api, Failure, SourceError, escape, refusal};
use super::list::ListDecoder;
use super::session::{RESTORE, Version};
use super::watch::{Event, EventKind, Lines};
use crate::config::{ClusterSecrets, MAX_CLUSTERS, Registration, Source};
use crate::index::LossGuard;
use crate::model::{Label, Moment};
use crate::source::registration::{self, LABEL, Unfit};
use crate::source::registrations::Registrations;
use crate::source::status::ErrorReason;

/// How the API that holds them is called in messages about its credentials.
const WHO: &str = "of clusterSecrets";
/// Secrets of which notice is taken: some may be wrong.
const MOST: usize = 2 * MAX_CLUSTERS;

/// What one Secret comes to.
pub type Read = Result<(Label, Registration), Unfit>;

/// Whose credentials are in order. Whether the API answers is not known yet.
pub struct Prepared {
    api: Api,
    place: ClusterSecrets,
}

/// An error needs the operator.
pub async fn prepare(place: &ClusterSecrets) -> Result<Prepared, SourceError> {
    prepare_with(place, Timing::default()).await
}

/// [`prepare`] with other times, for tests.
pub async fn prepare_with(place: &ClusterSecrets, timing: Timing) -> Result<Prepared, SourceError> {
    Ok(Prepared { api: Api::prepare_from(WHO, &place.source, timing).await?, place: place.clone() })
}

/// The Secrets as they are now, for people.
pub async fn look(place: &ClusterSecrets) -> Result<Vec<(String, Read)>, Failure> {
    let prepared = prepare(place).await.map_err(|error| Failure::Credentials(error.to_string()))?;
    prepared.api.begin().await;
    Ok(prepared.list().await?.1.into_iter().collect())
}

/// Follows them until `stop`.
pub async fn follow(prepared: Prepared, registrations: Arc<Registrations>, stop: CancellationToken) {
    registrations.begin();
    let follower = Follower::new(prepared, registrations);
    tokio::select! {
        () = stop.cancelled() => {}
        () = follower.run() => {}
    }
}

struct Follower {
    prepared: Prepared,
    registrations: Arc<Registrations>,
    secrets: BTreeMap<String, Secret>,
    losses: LossGuard<String>,
    /// The highest that was heard.
    version: Version,
    /// Lists in a row that were older.
    older: u32,
    backoff: Backoff,
    /// The trouble that was last logged.
    trouble: Option<ErrorReason>,
    begun: Instant,
}

/// What is known of one.
#[derive(Default)]
struct Secret {
    /// The last good one.
    registration: Option<(Label, Registration)>,
    problem: Option<Unfit>,
}

impl Prepared {
    fn path(&self) -> String {
        format!("/api/v1/namespaces/{}/secrets?labelSelector={}", self.place.namespace, escape(LABEL))
    }

    fn read(&self, name: &str, raw: &[u8]) -> Read {
        registration::read(name, raw, self.place.local_servers)
    }

    /// The rest that can be wrong with it: what is in the certificates.
    async fn tried(&self, read: Read) -> Read {
        let (name, registration) = read?;
        let source = Source::Registered(registration.credentials.clone());
        match Api::prepare_from(name.as_str(), &source, *self.api.timing()).await {
            Ok(_) => Ok((name, registration)),
            Err(_) => Err(Unfit::Credentials),
        }
    }

    /// The version, and all Secrets by their names.
    async fn list(&self) -> Result<(String, BTreeMap<String, Read>), Failure> {
        const EXPECTED: &str = "SecretList of v1";
        let timing = self.api.timing();
        let end = Instant::now() + timing.list;
        let mut chunks = self.api.get(&self.path(), "a list", timing.read).await?;
        let mut decoder = ListDecoder::default();
        let mut found: Vec<(String, Read)> = Vec::new();
        let mut gather = |raw: &[u8]| {
            let name = registration::name_of(raw).ok_or("an object without a name")?;
            if found.len() <= MOST {
                let read = self.read(&name, raw);
                found.push((name, read));
            }
            Ok(())
        };
        while let Some(chunk) = chunks.next(end.min(Instant::now() + timing.read)).await? {
            decoder.feed(&chunk, &mut gather)?;
        }
        let head = decoder.finish()?;
        if (head.kind.as_str(), head.api_version.as_str()) != ("SecretList", "v1") || head.continue_token.is_some() {
            return Err(Failure::Unexpected { expected: EXPECTED, got: "something else".to_owned() });
        }
        if found.len() > MOST {
            return Err(Failure::TooMany { limit: MOST as u32 });
        }
        let mut secrets = BTreeMap::new();
        for (name, read) in found {
            secrets.insert(name, self.tried(read).await);
        }
        Ok((head.resource_version, secrets))
    }
}

impl Follower {
    fn new(prepared: Prepared, registrations: Arc<Registrations>) -> Follower {
        Follower {
            secrets: BTreeMap::new(),
            losses: LossGuard::new(),
            version: Version::default(),
            older: 0,
            backoff: Backoff::new(prepared.api.timing().pace),
            trouble: None,
            begun: Instant::now(),
            prepared,
            registrations,
        }
    }

    async fn run(mut self) {
        self.prepared.api.begin().await;
        loop {
            let gate = self.backoff.gate(std::time::Instant::now());
            sleep(gate).await;
            let generation = self.prepared.api.generation();
            let failure = match self.prepared.list().await {
                Ok((version, secrets)) => match self.take_list(version, secrets) {
                    Ok(()) => match self.watch().await {
                        Ok(()) => continue,
                        Err(failure) => failure,
                    },
                    Err(failure) => failure,
                },
                Err(failure) => failure,
            };
            self.failed(&failure, generation).await;
        }
    }

    fn now(&self) -> Moment {
        Moment(self.begun.elapsed())
    }

    /// A list is due then, even if all is well: by the clock, or since deletions wait for it.
    fn list_at(&self) -> Instant {
        let relist = Instant::now() + self.prepared.api.timing().relist;
        self.losses.held().map_or(relist, |(_, at)| relist.min(self.begun + at.0))
    }

    /// Watches from there, again and again, until a list is due (`Ok`) or something went wrong.
    async fn watch(&mut self) -> Result<(), Failure> {
        let timing = *self.prepared.api.timing();
        let mut list_at = self.list_at();
        loop {
            let begun = Instant::now();
            if begun >= list_at {
                return Ok(());
            }
            let target = format!(
                "{}&watch=true&allowWatchBookmarks=true&timeoutSeconds={}&resourceVersion={}",
                self.prepared.path(),
                timing.watch.as_secs().max(1),
                escape(&self.version.0),
            );
            let mut chunks = self.prepared.api.get(&target, "a watch", timing.small).await?;
            let deadline = begun + timing.read;
            let (mut lines, mut heard) = (Lines::default(), false);
            loop {
                let chunk = tokio::select! {
                    chunk = chunks.next(deadline) => chunk?,
                    () = tokio::time::sleep_until(list_at) => return Ok(()),
                };
                let Some(chunk) = chunk else { break };
                lines.push(&chunk);
                while let Some(line) = lines.next_line()? {
                    self.take_event(&Event::parse(line)?).await?;
                    heard = true;
                }
                list_at = list_at.min(self.list_at());
            }
            if !heard {
                return Err(Failure::Silent);
            }
            tokio::time::sleep_until(begun + timing.watch_spacing).await;
        }
    }

    async fn take_event(&mut self, event: &Event<'_>) -> Result<(), Failure> {
        let raw = event.object.get().as_bytes();
        if event.kind == EventKind::Error {
            return Err(Failure::Status(refusal(0, None, raw)));
        }
        // Never the object itself: there are credentials in it.
        let unexpected = |expected| Failure::Unexpected { expected, got: "an object without it".to_owned() };
        let version = event.resource_version().map(Version).ok_or_else(|| unexpected("a resourceVersion"))?;
        if version.is_older_than(&self.version) {
            return Err(Failure::TimeTravel { seen: self.version.0.clone(), got: version.0 });
        }
        let name = || registration::name_of(raw).ok_or_else(|| unexpected("a name"));
        match event.kind {
            EventKind::Error | EventKind::Bookmark => {}
            EventKind::Added | EventKind::Modified => {
                let name = name()?;
                let read = self.prepared.tried(self.prepared.read(&name, raw)).await;
                self.take(name, read);
                self.publish();
            }
            EventKind::Deleted => {
                let (name, now) = (name()?, self.now());
                if self.secrets.contains_key(&name) {
                    match self.losses.delete(&name, self.secrets.len(), now) {
                        true => drop(self.secrets.remove(&name)),
                        false => self.hold(),
                    }
                }
                self.publish();
            }
        }
        self.version = version;
        self.well();
        Ok(())
    }

    /// One that is older than what was heard comes from a server that lags, or, if it stays so, from a backup.
    fn take_list(&mut self, version: String, secrets: BTreeMap<String, Read>) -> Result<(), Failure> {
        let version = Version(version);
        if version.is_older_than(&self.version) && self.older + 1 < RESTORE {
            self.older += 1;
            return Err(Failure::TimeTravel { seen: self.version.0.clone(), got: version.0 });
        }
        (self.version, self.older) = (version, 0);
        let missing: Vec<String> = self.secrets.keys().filter(|name| !secrets.contains_key(*name)).cloned().collect();
        for gone in self.losses.list(missing, self.secrets.len(), self.now()) {
            self.secrets.remove(&gone);
        }
        if self.losses.held().is_some() {
            self.hold();
        }
        for (name, read) in secrets {
            self.take(name, read);
        }
        self.registrations.status.listed();
        self.publish();
        self.well();
        Ok(())
    }

    fn hold(&self) {
        tracing::warn!(
            namespace = %self.prepared.place.namespace,
            held = self.losses.held().map_or(0, |(count, _)| count),
            "more than half of the Secrets that register clusters went within 60 s: their clusters stay until a list confirms it"
        );
    }

    fn take(&mut self, name: String, read: Read) {
        if !self.secrets.contains_key(&name) && self.secrets.len() >= MOST {
            return;
        }
        self.losses.found(&name);
        let namespace = &self.prepared.place.namespace;
        let known = self.secrets.entry(name.clone()).or_default();
        match read {
            Ok(registration) => {
                known.registration = Some(registration);
                known.problem = None;
            }
            Err(problem) if known.problem.as_ref() == Some(&problem) => {}
            Err(problem) => {
                let effect = match known.registration {
                    Some(_) => "what it said before stays in use",
                    None => "it registers nothing",
                };
                tracing::warn!(%namespace, secret = name, reason = problem.reason(), "{problem}; {effect}");
                known.problem = Some(problem);
            }
        }
    }

    fn publish(&self) {
        let registered = self.secrets.values().filter_map(|secret| secret.registration.clone()).collect();
        let problems = self.secrets.iter().filter_map(|(name, secret)| Some((name.clone(), secret.problem.clone()?)));
        let held = self.losses.held().map_or(0, |(count, _)| count);
        self.registrations.set(registered, problems.collect(), held);
    }

    fn well(&mut self) {
        let status = &self.registrations.status;
        status.heard(status.now());
        self.backoff.heard(0);
        if self.trouble.take().is_some() {
            tracing::info!(namespace = %self.prepared.place.namespace, "the Secrets that register clusters are heard again");
        }
    }

    async fn failed(&mut self, failure: &Failure, generation: u64) {
        let reason = failure.reason();
        self.registrations.status.error(reason);
        if self.trouble.replace(reason) != Some(reason) {
            tracing::warn!(
                namespace = %self.prepared.place.namespace,
                reason = reason.label(),
                "the Secrets that register clusters: {failure}; what is registered stays, and it is tried again"
            );
        }
        let random = getrandom::u64().unwrap_or(u64::MAX / 2);
        let wait: Duration = self.backoff.failed(0, std::time::Instant::now(), failure.retry_after(), random);
        self.prepared.api.renew(generation, failure).await;
        sleep(wait).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Credentials, Export, IngressRanges, Namespaces};

    fn label(text: &str) -> Label {
        Label::parse(text).unwrap()
    }

    /// Nobody answers at its address.
    async fn follower() -> Follower {
        let text = r#"{"clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
            "contexts": [{"name": "x", "context": {"cluster": "c"}}], "current-context": "x"}"#;
        let place = ClusterSecrets {
            source: Source::Registered(Some(Credentials::new(text))),
            namespace: label("signpost-clusters"),
            local_servers: false,
            export: Export::LoadBalancer,
            namespaces: Namespaces::All,
            ingress: IngressRanges::default(),
            weight: 1,
            directives: None,
            mcs: false,
            listed: true,
        };
        let prepared = prepare(&place).await.unwrap();
        let registrations = Arc::new(Registrations::new(std::time::Instant::now()));
        registrations.begin();
        Follower::new(prepared, registrations)
    }

    fn good(name: &str, token: &str) -> Read {
        Ok((label(name), Registration { credentials: Some(Credentials::new(token)), region: None }))
    }

    fn all(names: impl Iterator<Item = usize>) -> BTreeMap<String, Read> {
        names.map(|number| format!("c{number}")).map(|name| (name.clone(), good(&name, "t"))).collect()
    }

    fn event(kind: &str, name: &str) -> String {
        format!(r#"{{"type": "{kind}", "object": {{"metadata": {{"name": "{name}", "resourceVersion": "7"}}}}}}"#)
    }

    async fn take(follower: &mut Follower, line: &str) -> Result<(), Failure> {
        follower.take_event(&Event::parse(line.as_bytes()).unwrap()).await
    }

    #[tokio::test]
    async fn the_last_good_one_stays() {
        let mut follower = follower().await;
        let list = [("a".to_owned(), good("a", "1")), ("b".to_owned(), Err(Unfit::NoKubeconfig))];
        follower.take_list("5".to_owned(), list.into()).unwrap();
        let counts = |follower: &Follower| {
            let counts = follower.registrations.counts().unwrap();
            (counts.registered, counts.refused.iter().map(|(_, count)| count).sum::<usize>())
        };
        assert_eq!(counts(&follower), (1, 1));
        // There is no data in it.
        take(&mut follower, &event("MODIFIED", "a")).await.unwrap();
        assert_eq!(counts(&follower), (1, 2));
        follower.take_list("7".to_owned(), [("a".to_owned(), good("a", "2"))].into()).unwrap();
        assert_eq!(counts(&follower), (1, 0));
        take(&mut follower, &event("DELETED", "a")).await.unwrap();
        assert_eq!(counts(&follower), (0, 0));
        let nameless = r#"{"type": "DELETED", "object": {"metadata": {"resourceVersion": "7"}, "data": {"kubeconfig": "c2VjcmV0"}}}"#;
        let failure = take(&mut follower, nameless).await.unwrap_err();
        assert!(!failure.to_string().contains("c2VjcmV0"), "{failure}");
    }

    #[tokio::test]
    async fn time_goes_back_after_three_lists() {
        let mut follower = follower().await;
        follower.take_list("9".to_owned(), all(0..3)).unwrap();
        let older = take(&mut follower, &event("DELETED", "c0")).await;
        assert!(matches!(older, Err(Failure::TimeTravel { .. })), "{older:?}");
        for _ in 0..2 {
            let older = follower.take_list("8".to_owned(), all(0..1));
            assert!(matches!(older, Err(Failure::TimeTravel { .. })), "{older:?}");
            assert_eq!(follower.secrets.len(), 3);
        }
        follower.take_list("8".to_owned(), all(0..1)).unwrap();
        assert_eq!(follower.secrets.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_mass_loss_is_confirmed_by_a_list() {
        let mut follower = follower().await;
        follower.take_list("5".to_owned(), all(0..20)).unwrap();
        let counts = |follower: &Follower| {
            let counts = follower.registrations.counts().unwrap();
            (counts.registered, counts.held)
        };
        assert_eq!(counts(&follower), (20, 0));
        follower.take_list("6".to_owned(), all(0..5)).unwrap();
        assert_eq!(counts(&follower), (20, 15));
        let due = follower.list_at() - Instant::now();
        assert!(due <= Duration::from_secs(31), "{due:?}");
        tokio::time::advance(due).await;
        follower.take_list("6".to_owned(), all(0..5)).unwrap();
        assert_eq!(counts(&follower), (5, 0));
        // A few may go at any time.
        for name in ["c0", "c1", "c2", "c3"] {
            take(&mut follower, &event("DELETED", name)).await.unwrap();
        }
        assert_eq!(counts(&follower), (1, 0));
    }
}
