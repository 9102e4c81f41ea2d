//! Keeps what was last heard of each cluster on disk: a little at a time, as whoever writes the table has time for it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::{Notify, mpsc};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::app::federation::{Federation, Inquiry, asked};
use crate::config::{Cluster, Config, Export};
use crate::model::{ClusterId, Label, ServiceKey};
use crate::snapshot::{self, Draft, Head};

/// From one snapshot of a cluster to the next.
const PACE: Duration = Duration::from_secs(10);
/// After one that could not be written.
const AGAIN: Duration = Duration::from_secs(60);
/// A snapshot that takes long is followed by a rest of so many times as long: a million services are no small matter.
const REST: u32 = 20;
/// Services that are asked for at once.
const PIECE: usize = 256;

/// Of which clusters more was heard than is on disk, and what became of the snapshots.
#[derive(Debug, Default)]
pub struct Unsaved {
    clusters: Mutex<BTreeSet<ClusterId>>,
    more: Notify,
    written: AtomicU64,
    failed: AtomicU64,
    /// When that of each cluster was written. Seconds since 1970.
    last: Mutex<BTreeMap<Label, i64>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Unsaved {
    pub fn add(&self, clusters: impl IntoIterator<Item = ClusterId>) {
        locked(&self.clusters).extend(clusters);
        self.more.notify_one();
    }

    /// How many were written, and how many could not be.
    pub fn counts(&self) -> (u64, u64) {
        (self.written.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }

    pub fn last(&self) -> BTreeMap<Label, i64> {
        locked(&self.last).clone()
    }

    /// From an earlier process.
    pub fn found(&self, head: &Head) {
        locked(&self.last).insert(head.cluster.clone(), head.written.as_second());
    }
}

/// With what a snapshot begins.
pub struct Begun {
    pub head: Head,
    /// All lines but those of services.
    pub lines: Vec<u8>,
    pub services: Vec<ServiceKey>,
}

/// The task.
struct Keeper {
    directory: PathBuf,
    unsaved: Arc<Unsaved>,
    inquiries: mpsc::Sender<Inquiry>,
}

/// When which cluster is next.
struct Pace {
    due: BTreeMap<ClusterId, Instant>,
    rest: Instant,
}

impl Pace {
    fn next(&self, unsaved: &BTreeSet<ClusterId>) -> Option<(Instant, ClusterId)> {
        let due = |cluster: &ClusterId| self.due.get(cluster).copied().unwrap_or(self.rest).max(self.rest);
        unsaved.iter().map(|cluster| (due(cluster), *cluster)).min()
    }
}

impl Keeper {
    /// Until `stop`; what is not on disk by then is written first.
    async fn run(self, stop: CancellationToken) {
        let mut pace = Pace { due: BTreeMap::new(), rest: Instant::now() };
        // An outage of the disk is one line, and not one for each try.
        let mut failing = BTreeSet::new();
        loop {
            let next = pace.next(&locked(&self.unsaved.clusters));
            let wait = async {
                match next {
                    Some((at, cluster)) => {
                        tokio::time::sleep_until(at).await;
                        cluster
                    }
                    None => std::future::pending().await,
                }
            };
            let cluster = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                cluster = wait => cluster,
                () = self.unsaved.more.notified() => continue,
            };
            let begun = Instant::now();
            let well = self.save(cluster, &mut failing).await;
            let now = Instant::now();
            pace.due.insert(cluster, if well { begun + PACE } else { now + AGAIN });
            pace.rest = now + (now - begun) * REST;
        }
        let left = std::mem::take(&mut *locked(&self.unsaved.clusters));
        for cluster in left {
            self.save(cluster, &mut failing).await;
        }
    }

    /// Whether there is nothing more to be done about it now.
    async fn save(&self, cluster: ClusterId, failing: &mut BTreeSet<ClusterId>) -> bool {
        // What is heard from here on is not in this one, or may not be.
        locked(&self.unsaved.clusters).remove(&cluster);
        let Some(begun) = asked(&self.inquiries, |reply| Inquiry::Begin { cluster, reply }).await.flatten() else {
            return true;
        };
        let (name, written) = (begun.head.cluster.clone(), begun.head.written);
        match self.write(cluster, begun).await {
            Ok(()) => {
                self.unsaved.written.fetch_add(1, Ordering::Relaxed);
                locked(&self.unsaved.last).insert(name.clone(), written.as_second());
                if failing.remove(&cluster) {
                    info!(cluster = %name, "its snapshot is written again");
                }
                true
            }
            Err(error) => {
                self.unsaved.failed.fetch_add(1, Ordering::Relaxed);
                locked(&self.unsaved.clusters).insert(cluster);
                if failing.insert(cluster) {
                    let directory = self.directory.display();
                    warn!(
                        cluster = %name,
                        "its snapshot cannot be written to {directory} ({error}); the one before stays, and it is tried again"
                    );
                }
                false
            }
        }
    }

    async fn write(&self, cluster: ClusterId, begun: Begun) -> io::Result<()> {
        let Begun { head, lines, services } = begun;
        let directory = self.directory.clone();
        let mut draft = aside(move || {
            let mut draft = Draft::begin(&directory, &head)?;
            draft.append(&lines)?;
            Ok(draft)
        })
        .await?;
        for keys in services.chunks(PIECE) {
            let keys = keys.to_vec();
            let lines = asked(&self.inquiries, |reply| Inquiry::Lines { cluster, keys, reply }).await;
            // Whoever has the index is about to end, and so is all of this.
            let lines = lines.ok_or(io::ErrorKind::Interrupted)?;
            draft = aside(move || draft.append(&lines).map(|()| draft)).await?;
        }
        aside(move || draft.finish()).await
    }
}

/// The disk may be slow.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    spawn_blocking(work).await.unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))
}

/// Begins with what an earlier process kept. What is in the way of it is said, and the clusters are waited for as if it were not there.
/// `wanted`: of which clusters.
pub async fn restore(config: &Config, federation: &mut Federation, wanted: impl Fn(&Cluster) -> bool) {
    let Some(directory) = config.state.clone() else { return };
    snapshot::clean(&directory, SystemTime::now());
    for (id, cluster) in config.numbered().filter(|(_, cluster)| cluster.export != Export::Nothing && wanted(cluster)) {
        let (place, name) = (directory.clone(), cluster.name.clone());
        let read = spawn_blocking(move || snapshot::read(&place, &name)).await;
        let problem = match read {
            Ok(Ok(None)) => continue,
            Ok(Ok(Some(snapshot))) => match federation.restore(id, snapshot) {
                true => continue,
                false => "holds what the cluster may not say any more (export, namespaces, source)".to_owned(),
            },
            Ok(Err(unusable)) => unusable.to_string(),
            Err(panic) => panic.to_string(),
        };
        let aside = match snapshot::put_aside(&directory, &cluster.name) {
            Ok(path) => format!("it is {} now", path.display()),
            Err(error) => format!("it stays where it is ({error})"),
        };
        let file = snapshot::file(&directory, &cluster.name);
        warn!(cluster = %cluster.name, "{}: {problem}; it is not used, and {aside}", file.display());
    }
}

/// The task that keeps what was heard.
pub struct Keeping {
    inquiries: mpsc::Sender<Inquiry>,
    pub unsaved: Arc<Unsaved>,
    running: Option<(CancellationToken, JoinHandle<()>)>,
}

impl Keeping {
    pub fn new(inquiries: mpsc::Sender<Inquiry>) -> Keeping {
        Keeping { inquiries, unsaved: Arc::default(), running: None }
    }

    pub fn start(&mut self, config: &Config) {
        let Some(directory) = config.state.clone() else { return };
        let keeper = Keeper { directory, unsaved: self.unsaved.clone(), inquiries: self.inquiries.clone() };
        let stop = CancellationToken::new();
        self.running = Some((stop.clone(), tokio::spawn(keeper.run(stop))));
    }

    /// They are not clusters any more: who gets their names later is somebody else. Only while nothing is kept.
    pub fn forget<'n>(&self, config: &Config, names: impl Iterator<Item = &'n Label>) {
        let Some(directory) = &config.state else { return };
        for name in names {
            locked(&self.unsaved.last).remove(name);
            let file = snapshot::file(directory, name);
            match std::fs::remove_file(&file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    warn!(cluster = %name, "{}: cannot be deleted ({error})", file.display());
                }
                _ => {}
            }
        }
    }

    pub async fn ended(&mut self) {
        match &mut self.running {
            Some((_, task)) => drop(task.await),
            None => std::future::pending().await,
        }
    }

    /// What it is at is not finished.
    pub async fn abandon(&mut self) {
        if let Some((_, task)) = self.running.take() {
            task.abort();
            let _ = task.await;
        }
    }

    /// What is not on disk yet is written.
    pub async fn finish(&mut self) {
        if let Some((stop, task)) = &mut self.running {
            stop.cancel();
            let _ = task.await;
        }
        self.running = None;
    }
}
