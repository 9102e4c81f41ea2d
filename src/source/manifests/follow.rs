//! Follows a directory: reads it whenever something in it may have changed, and tells what it holds.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior};
use tracing::{info, warn};

use super::{Digests, Reading, Trouble};
use crate::index::{Kind, ObjectKey, Update};
use crate::source::status::ErrorReason;
use crate::source::{Feed, kinds};

/// After an event, so long must pass without another before the directory is read: an editor's save is 3 to 6 events
/// within some milliseconds, and what is half written should not be read.
const QUIET: Duration = Duration::from_millis(75);
/// A directory in which something is always happening is read after this. Together with the reading itself a
/// change shows within a second.
const MOST_UNREST: Duration = Duration::from_millis(400);
/// How often it is looked whether the path still leads to the directory that is watched: it was replaced, or has come back.
const GLANCE: Duration = Duration::from_secs(1);
/// Every so many glances the files are read even though nothing was heard: network file systems and
/// the targets of symbolic links send no events.
const GLANCES_PER_RESCAN: u32 = 10;
/// Most problems logged for one reading.
const MAX_LOGGED: usize = 50;

/// What each file last said, its last good objects included. It outlives the source: with a reload, the next one of
/// the same cluster and directory goes on with it, and keeps what stood in a file that is broken by then.
#[derive(Debug, Default, Clone)]
pub struct Memory(Arc<Mutex<Known>>);

type Known = BTreeMap<OsString, BTreeSet<(Kind, ObjectKey)>>;

/// Reads `directory` now and whenever it changes, until `feed.stop`. One source at a time has the memory.
pub async fn run(directory: PathBuf, feed: Feed, memory: Memory) {
    let stop = feed.stop.clone();
    // Whatever it waits for, a file or the receiver, the end comes first.
    tokio::select! {
        () = stop.cancelled() => {}
        () = Follower::new(directory, feed, memory).follow() => stop.cancelled().await,
    }
}

/// The receiver of the updates is gone, which happens only when the process ends.
struct Closed;

struct Follower {
    directory: PathBuf,
    feed: Feed,
    watch: Watch,
    /// What was sent last; `None` before the first.
    sent: Option<u64>,
    /// What a look at the files came to.
    known: Digests,
    memory: Memory,
    /// The problems told so far that are still there, without their lines, which move with every edit above them.
    told: BTreeSet<Trouble>,
    /// The directory could not be listed the last time.
    missing: bool,
}

impl Follower {
    fn new(directory: PathBuf, feed: Feed, memory: Memory) -> Follower {
        Follower {
            directory,
            feed,
            watch: Watch::new(),
            sent: None,
            known: Digests::new(),
            memory,
            told: BTreeSet::new(),
            missing: false,
        }
    }

    async fn follow(mut self) {
        // Watched before it is read: what changes in between is an event.
        self.arm().await;
        if self.read(false).await.is_err() {
            return;
        }
        let mut glance = tokio::time::interval(GLANCE);
        glance.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut glances = 0;
        loop {
            let result = tokio::select! {
                () = self.feed.relist.notified() => {
                    self.feed.status.relisting();
                    self.read(true).await
                }
                () = self.watch.changed.notified() => {
                    self.settle().await;
                    self.arm().await;
                    self.read(false).await
                }
                _ = glance.tick() => {
                    glances += 1;
                    let replaced = self.arm().await;
                    if replaced || self.watch.is_deaf() || glances >= GLANCES_PER_RESCAN {
                        glances = 0;
                        self.rescan().await
                    } else {
                        Ok(())
                    }
                }
            };
            if result.is_err() {
                return;
            }
        }
    }

    /// Waits until nothing has happened for a while.
    async fn settle(&self) {
        let deadline = Instant::now() + MOST_UNREST;
        loop {
            let quiet = (Instant::now() + QUIET).min(deadline);
            match tokio::time::timeout_at(quiet, self.watch.changed.notified()).await {
                Ok(()) if Instant::now() < deadline => {}
                Ok(()) | Err(_) => return,
            }
        }
    }

    /// Watches what the path leads to now. Tells whether that has changed.
    async fn arm(&mut self) -> bool {
        // As a file's metadata, a watch may wait for a slow disk.
        let identity = tokio::fs::metadata(&self.directory).await.ok().map(|meta| (meta.dev(), meta.ino()));
        match self.watch.arm(&self.directory, identity) {
            Ok(changed) => changed,
            Err(error) => {
                warn!(
                    cluster = %self.feed.config.name,
                    "{}: changes are not reported by the system ({error}); looking every second instead",
                    self.directory.display(),
                );
                true
            }
        }
    }

    /// Reads it only when the octets of its files are not those that were read last.
    async fn rescan(&mut self) -> Result<(), Closed> {
        let (directory, limits) = (self.directory.clone(), self.feed.limits.clone());
        let mut known = std::mem::take(&mut self.known);
        let digest;
        (digest, self.known) =
            blocking(move || (super::digest(&directory, &limits, &mut known, SystemTime::now()), known)).await;
        if digest.is_some() && digest == self.sent && !self.missing {
            self.feed.status.heard(self.feed.status.now());
            return Ok(());
        }
        self.read(false).await
    }

    /// Reads the directory and sends what it holds, if that is news or `always`.
    async fn read(&mut self, always: bool) -> Result<(), Closed> {
        let (directory, feed) = (self.directory.clone(), (self.feed.config.clone(), self.feed.limits.clone()));
        let reading = blocking(move || super::read(&directory, &feed.0, &feed.1)).await;
        if !reading.listed {
            self.tell(&reading);
            self.feed.status.error(ErrorReason::Directory);
            self.missing = true;
            return Ok(());
        }
        self.missing = false;
        self.tell(&reading);
        self.feed.status.heard(self.feed.status.now());
        if !always && self.sent == Some(reading.digest) {
            return Ok(());
        }
        let keep = self.keep(&reading);
        self.send(reading, keep).await
    }

    /// The objects that are there but cannot be understood, and those of files of which it is not known what is
    /// there, unless somebody else has them.
    fn keep(&self, reading: &Reading) -> BTreeSet<(Kind, ObjectKey)> {
        let good: BTreeSet<_> = reading.files.values().flat_map(|said| &said.good).collect();
        let mut keep = BTreeSet::new();
        let mut before = self.memory.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut known = BTreeMap::new();
        for (name, said) in &reading.files {
            let mut of_file = said.malformed.clone();
            if said.broken {
                of_file.extend(before.remove(name).unwrap_or_default());
            }
            of_file.retain(|key| !good.contains(key));
            keep.extend(of_file.iter().cloned());
            of_file.extend(said.good.iter().cloned());
            known.insert(name.clone(), of_file);
        }
        *before = known;
        keep
    }

    async fn send(&mut self, reading: Reading, keep: BTreeSet<(Kind, ObjectKey)>) -> Result<(), Closed> {
        let of = |kind: Kind| keep.iter().filter(|(k, _)| *k == kind).map(|(_, key)| key.clone()).collect();
        let digest = reading.digest;
        let mut objects = reading.by_kind();
        for kind in kinds(&self.feed.config) {
            let objects = objects.remove(&kind).unwrap_or_default();
            let update = Update::Reset { kind, objects, keep: of(kind) };
            self.feed.updates.send((self.feed.cluster.clone(), update)).await.map_err(|_| Closed)?;
        }
        self.feed.status.listed();
        self.sent = Some(digest);
        Ok(())
    }

    /// Logs and counts every problem once, when it comes, and logs it once when it goes.
    fn tell(&mut self, reading: &Reading) {
        let cluster = &self.feed.config.name;
        let without_line = |trouble: &Trouble| Trouble { line: None, ..trouble.clone() };
        let now: BTreeSet<Trouble> = reading.problems.iter().map(without_line).collect();
        let fresh = reading.problems.iter().filter(|trouble| !self.told.contains(&without_line(trouble)));
        let mut count = 0;
        for trouble in fresh {
            self.feed.status.skipped(trouble.problem.reason());
            count += 1;
            if count <= MAX_LOGGED {
                warn!(cluster = %cluster, "{trouble}");
            }
        }
        let unlogged = count.saturating_sub(MAX_LOGGED) as u64 + reading.more_problems;
        if count > 0 && unlogged > 0 {
            warn!(cluster = %cluster, "{}: {unlogged} more problems", self.directory.display());
        }
        // What is wrong with the directory hides what is wrong in it.
        let hidden = !reading.listed;
        if !hidden {
            for trouble in self.told.difference(&now).take(MAX_LOGGED) {
                info!(cluster = %cluster, "no longer: {trouble}");
            }
            self.told.clear();
        }
        self.told.extend(now);
    }
}

/// File system work, beside the runtime's threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down, and this task with it.
            Err(_) => std::future::pending().await,
        },
    }
}

/// What the system reports of a directory.
struct Watch {
    changed: Arc<Notify>,
    /// Of what is watched; `None` while the path leads nowhere.
    identity: Option<(u64, u64)>,
    /// `None`: nothing is reported.
    watcher: Option<RecommendedWatcher>,
    /// The watched directory itself was removed or moved away. Its successor may have the same inode.
    gone: Arc<AtomicBool>,
}

impl Watch {
    fn new() -> Watch {
        Watch { changed: Arc::default(), identity: None, watcher: None, gone: Arc::default() }
    }

    /// There is a directory, and the system does not report its changes.
    fn is_deaf(&self) -> bool {
        self.identity.is_some() && self.watcher.is_none()
    }

    /// Watches the directory if it is another than before. Tells whether it is.
    fn arm(&mut self, directory: &Path, identity: Option<(u64, u64)>) -> notify::Result<bool> {
        if self.identity == identity && !self.gone.load(Ordering::Acquire) {
            return Ok(false);
        }
        self.identity = identity;
        self.watcher = None;
        self.gone = Arc::default();
        if identity.is_some() {
            let (changed, gone, watched) = (self.changed.clone(), self.gone.clone(), directory.to_owned());
            let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
                // An error is a queue that ran over: something has changed.
                if event.as_ref().is_ok_and(|event| !is_change(event.kind)) {
                    return;
                }
                let of_itself = |event: &notify::Event| {
                    matches!(event.kind, EventKind::Remove(_) | EventKind::Modify(notify::event::ModifyKind::Name(_)))
                        && event.paths.contains(&watched)
                };
                if event.as_ref().is_ok_and(of_itself) {
                    gone.store(true, Ordering::Release);
                }
                changed.notify_one();
            })?;
            watcher.watch(directory, RecursiveMode::NonRecursive)?;
            self.watcher = Some(watcher);
        }
        Ok(true)
    }
}

/// Our own reading is an event too: files opened, and closed without having been written to.
fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        EventKind::Any | EventKind::Create(_) | EventKind::Modify(_) | EventKind::Remove(_) | EventKind::Other => true,
    }
}
