//! Clusters whose APIs say nothing any more. What they said last stays; where others are as near, these come first.

use std::collections::BTreeSet;
use std::time::Duration;

use tracing::{info, warn};

use super::Federation;
use crate::config::{Cluster, Source};
use crate::model::{ClusterId, Moment};
use crate::overview::About;
use crate::source::{self, status::Status};
use crate::table::Publisher;

/// A watch says something every 25 s at least, and is taken for lost after 35 s. This long there was time to begin another one.
pub const SILENT_AFTER: Duration = Duration::from_secs(60);
/// From one look at all clusters to the next.
const LOOK: Duration = Duration::from_secs(1);

/// Which clusters are silent, and when to look again.
#[derive(Debug, Default)]
pub struct Silence {
    silent: BTreeSet<ClusterId>,
    next: Moment,
}

impl Silence {
    pub fn is_silent(&self, cluster: ClusterId) -> bool {
        self.silent.contains(&cluster)
    }

    /// Says so to a table that does not know it.
    pub fn tell(&self, table: &mut Publisher) {
        self.silent.iter().for_each(|cluster| table.set_silent(*cluster, true));
    }

    /// The same for other numbers of the clusters; `None`: that cluster is gone.
    pub fn renumber(&mut self, new: impl Fn(ClusterId) -> Option<ClusterId>) {
        self.silent = self.silent.iter().filter_map(|id| new(*id)).collect();
    }

    #[cfg(test)]
    pub fn look_at_once(&mut self) {
        self.next = Moment::default();
    }
}

/// Of files, nobody expects a word.
pub fn is_watched(cluster: &Cluster) -> bool {
    !matches!(cluster.source, Source::Manifests { .. }) && !source::kinds(cluster).is_empty()
}

/// Whether nothing was heard of what is known of the cluster, since the start of the process at least.
fn is_silent(cluster: &Cluster, status: &Status, now: Moment) -> bool {
    // What was heard while it was looked up is younger than `now`.
    let age = now.0.saturating_sub(status.last_heard().unwrap_or_default().0);
    is_watched(cluster) && age >= SILENT_AFTER
}

impl Federation {
    /// `None`: nobody is watched.
    pub(super) fn next_look(&self) -> Option<Moment> {
        self.publisher.config().clusters.iter().any(is_watched).then_some(self.silence.next)
    }

    /// Of those of which something is known.
    fn silent(&self, now: Moment) -> BTreeSet<ClusterId> {
        let all = self.publisher.config().numbered();
        let silent = all.filter(|(id, cluster)| {
            self.index.is_synced(*id) && is_silent(cluster, &self.members[id.index()].status, now)
        });
        silent.map(|(id, _)| id).collect()
    }

    /// To be called when [`next_look`](Federation::next_look) has come.
    pub(super) fn look_for_silence(&mut self) {
        let now = self.now();
        if now < self.silence.next {
            return;
        }
        self.silence.next = now + LOOK;
        let silent = self.silent(now);
        let before = std::mem::replace(&mut self.silence.silent, silent);
        if before == self.silence.silent {
            return;
        }
        for &cluster in before.symmetric_difference(&self.silence.silent) {
            let is_silent = self.silence.is_silent(cluster);
            self.publisher.set_silent(cluster, is_silent);
            let name = self.publisher.config().cluster(cluster).name.clone();
            let said = if is_silent {
                warn!(cluster = %name, "its API says nothing any more: of what is equally near, others come first");
                "is not heard any more: of what is equally near, others come first"
            } else {
                info!(cluster = %name, "its API is heard again");
                "is heard again"
            };
            self.recent.add(About::Cluster, Some(name.as_str()), None, said);
        }
        let mut state = self.seen.lock();
        for (id, cluster) in (0..).map(ClusterId).zip(&mut state.clusters) {
            cluster.silent = self.silence.is_silent(id);
        }
    }
}
