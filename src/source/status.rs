//! How one cluster's source is doing: counters that the source writes and /metrics reads, and what is remembered of its API.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::index::Kind;
use crate::model::{Label, Moment};

/// The state of one cluster's source. Whether the cluster has synced is the index's to say.
#[derive(Debug)]
pub struct Status {
    started: Instant,
    /// Milliseconds since `started`, plus one; 0 is never.
    heard: AtomicU64,
    lists: AtomicU64,
    relists: AtomicU64,
    watch_restarts: AtomicU64,
    errors: [AtomicU64; ErrorReason::ALL.len()],
    skipped: [AtomicU64; Reason::ALL.len()],
    missing: [AtomicBool; Kind::ALL.len()],
    past: Mutex<Past>,
    /// What an earlier process knew, until a source begins with it.
    earlier: Mutex<Option<Past>>,
}

/// Which cluster it was, and how far it was heard.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Past {
    /// Of its namespace kube-system.
    pub uid: Option<String>,
    /// The highest resourceVersion of each kind, and of the namespace that was asked for.
    pub versions: BTreeMap<(Kind, Option<Label>), String>,
}

/// A closed set that is a metric's label: one place for the variants, their order and their words.
macro_rules! labels {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident => $label:literal,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$doc])* $variant,)* }

        impl $name {
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];

            /// The metric's label.
            pub fn label(self) -> &'static str {
                match self { $($name::$variant => $label,)* }
            }

            fn index(self) -> usize {
                self as usize
            }
        }
    };
}

labels! {
    /// Why a source could not get at what it wanted. The objects last heard stay in every one of these cases.
    ErrorReason {
        /// The directory is not there, or may not be read.
        Directory => "directory",
        /// No connection: refused, reset, no route, no such host.
        Connect => "connect",
        /// The TLS handshake failed, or a certificate is not (or no longer) good.
        Tls => "tls",
        Timeout => "timeout",
        /// 401
        Unauthorized => "unauthorized",
        /// 403
        Forbidden => "forbidden",
        /// 404 on something that was there.
        NotFound => "not_found",
        /// 410: the version asked for is compacted.
        Gone => "gone",
        /// 429
        Throttled => "throttled",
        /// 5xx
        Server => "server",
        /// Any other status.
        Status => "status",
        /// The answer is not what the API promises.
        Protocol => "protocol",
        /// A watch that ended with neither an event nor a bookmark.
        Silent => "silent",
        /// The list is older than what was seen before.
        TimeTravel => "time_travel",
        /// The name now leads to another cluster, or two names lead to one.
        Identity => "identity",
        /// More objects than the limit.
        Limit => "limit",
        /// Credentials could not be read or made.
        Credentials => "credentials",
    }
}

labels! {
    /// Why an object, or a part of one, was left out.
    Reason {
        /// Not YAML or JSON.
        Syntax => "syntax",
        /// A field of the wrong type.
        Type => "type",
        /// A name that is no DNS label (or no subdomain name, for slices).
        Name => "name",
        Port => "port",
        Address => "address",
        /// A required list that is null or empty.
        List => "list",
        /// A word out of its closed set (type, protocol, address type).
        Word => "word",
        /// More entries than an object may have, or more objects or octets than the configuration allows.
        Limit => "limit",
        /// A load balancer's entry that has no address, and no host name that can be asked for.
        IngressHostname => "ingress_hostname",
        /// A load balancer's entry that no client could ever reach.
        IngressAddress => "ingress_address",
        /// An annotation of ours that is unknown or has no good value.
        Annotation => "annotation",
        /// A load that is none, which counts as unknown.
        Load => "load",
        /// What an operator says cannot be understood, and is not done.
        Directive => "directive",
        /// What a voter says cannot be understood, and it abstains.
        Vote => "vote",
        /// Of another version of Signpost.
        Version => "version",
        UnknownKind => "unknown_kind",
        /// The same object twice in one directory.
        Duplicate => "duplicate",
        /// A file or directory that cannot be read.
        Unreadable => "unreadable",
    }
}

impl Status {
    /// `started` is the start of the process, from which every [`Moment`] counts.
    pub fn new(started: Instant) -> Status {
        Status {
            started,
            heard: AtomicU64::new(0),
            lists: AtomicU64::new(0),
            relists: AtomicU64::new(0),
            watch_restarts: AtomicU64::new(0),
            errors: Default::default(),
            skipped: Default::default(),
            missing: Default::default(),
            past: Mutex::default(),
            earlier: Mutex::default(),
        }
    }

    fn past_now(&self) -> MutexGuard<'_, Past> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For whoever keeps it.
    pub fn past(&self) -> Past {
        self.past_now().clone()
    }

    /// The source that begins next goes on from there.
    pub fn set_earlier(&self, past: Past) {
        *self.past_now() = past.clone();
        *self.earlier.lock().unwrap_or_else(PoisonError::into_inner) = Some(past);
    }

    /// Only for the first source: to start another one says that what was before does not bind it.
    pub fn take_earlier(&self) -> Past {
        let earlier = self.earlier.lock().unwrap_or_else(PoisonError::into_inner).take();
        if earlier.is_none() {
            *self.past_now() = Past::default();
        }
        earlier.unwrap_or_default()
    }

    /// It is this cluster.
    pub fn is_cluster(&self, uid: &str) {
        let mut past = self.past_now();
        if past.uid.as_deref() != Some(uid) {
            past.uid = Some(uid.to_owned());
        }
    }

    /// A kind of it was heard up to there.
    pub fn heard_to(&self, kind: Kind, namespace: Option<&Label>, version: &str) {
        let mut past = self.past_now();
        let known = past.versions.entry((kind, namespace.cloned())).or_default();
        version.clone_into(known);
    }

    pub fn now(&self) -> Moment {
        Moment(self.started.elapsed())
    }

    /// The source said something that proves it is alive: an event, a bookmark, a list, a directory read.
    pub fn heard(&self, now: Moment) {
        let millis = u64::try_from(now.0.as_millis()).unwrap_or(u64::MAX - 1);
        self.heard.fetch_max(millis + 1, Ordering::Relaxed);
    }

    pub fn last_heard(&self) -> Option<Moment> {
        let stored = self.heard.load(Ordering::Relaxed);
        stored.checked_sub(1).map(|millis| Moment(Duration::from_millis(millis)))
    }

    /// A whole list was read to its end.
    pub fn listed(&self) {
        self.lists.fetch_add(1, Ordering::Relaxed);
    }

    /// A list that replaces an earlier one was begun.
    pub fn relisting(&self) {
        self.relists.fetch_add(1, Ordering::Relaxed);
    }

    /// A watch was begun anew from where the last one ended.
    pub fn watch_restarted(&self) {
        self.watch_restarts.fetch_add(1, Ordering::Relaxed);
    }

    pub fn error(&self, reason: ErrorReason) {
        self.errors[reason.index()].fetch_add(1, Ordering::Relaxed);
    }

    pub fn skipped(&self, reason: Reason) {
        self.skipped[reason.index()].fetch_add(1, Ordering::Relaxed);
    }

    /// The API does not have this kind, or does not show it.
    pub fn missing(&self, kind: Kind, missing: bool) {
        self.missing[kind as usize].store(missing, Ordering::Relaxed);
    }

    pub fn is_missing(&self, kind: Kind) -> bool {
        self.missing[kind as usize].load(Ordering::Relaxed)
    }

    pub fn lists(&self) -> u64 {
        self.lists.load(Ordering::Relaxed)
    }

    pub fn relists(&self) -> u64 {
        self.relists.load(Ordering::Relaxed)
    }

    pub fn watch_restarts(&self) -> u64 {
        self.watch_restarts.load(Ordering::Relaxed)
    }

    pub fn errors(&self, reason: ErrorReason) -> u64 {
        self.errors[reason.index()].load(Ordering::Relaxed)
    }

    pub fn skips(&self, reason: Reason) -> u64 {
        self.skipped[reason.index()].load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn counts_and_moments() {
        let status = Status::new(Instant::now());
        assert_eq!(status.last_heard(), None);
        status.heard(Moment(Duration::ZERO));
        assert_eq!(status.last_heard(), Some(Moment(Duration::ZERO)));
        status.heard(Moment(Duration::from_secs(5)));
        status.heard(Moment(Duration::from_secs(3)));
        assert_eq!(status.last_heard(), Some(Moment(Duration::from_secs(5))), "time never goes back");
        for (i, &reason) in Reason::ALL.iter().enumerate() {
            (0..=i).for_each(|_| status.skipped(reason));
        }
        for (i, &reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(status.skips(reason), i as u64 + 1, "{reason:?}");
        }
        status.error(ErrorReason::Gone);
        assert_eq!(ErrorReason::ALL.iter().map(|&r| status.errors(r)).sum::<u64>(), 1);
    }

    #[test]
    fn labels_are_distinct_and_fit_prometheus() {
        let reasons = Reason::ALL.iter().map(|r| r.label());
        let errors = ErrorReason::ALL.iter().map(|r| r.label());
        assert_eq!(reasons.clone().collect::<BTreeSet<_>>().len(), Reason::ALL.len());
        assert_eq!(errors.clone().collect::<BTreeSet<_>>().len(), ErrorReason::ALL.len());
        for label in reasons.chain(errors) {
            assert!(label.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{label}");
        }
    }
}
