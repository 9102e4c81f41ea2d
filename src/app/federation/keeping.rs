//! What of the federation is kept on disk, and to begin with it.

use jiff::Timestamp;
use tracing::info;

use super::Federation;
use crate::app::keeper::Begun;
use crate::config::Export;
use crate::index::{Kind, Update};
use crate::model::{ClusterId, ServiceKey};
use crate::snapshot::{self, Head, Rules, Snapshot};
use crate::source;

impl Federation {
    pub(super) fn lines(&self, cluster: ClusterId, keys: &[ServiceKey]) -> Vec<u8> {
        let mut lines = Vec::new();
        let kept = keys.iter().filter_map(|key| self.index.kept(cluster, key));
        kept.for_each(|kept| snapshot::put_service(&mut lines, kept));
        lines
    }

    pub(super) fn begin_snapshot(&self, cluster: ClusterId) -> Option<Begun> {
        let config = self.publisher.config();
        if !config.has(cluster) || !self.index.is_synced(cluster) {
            return None;
        }
        let past = self.members[cluster.index()].status.past();
        let head = Head::new(config.cluster(cluster), Timestamp::now(), past);
        let mut lines = Vec::new();
        self.index.exports(cluster).for_each(|export| snapshot::put_export(&mut lines, export));
        self.index.imports(cluster).for_each(|import| snapshot::put_import(&mut lines, import));
        for (key, directive) in self.steering.directives(cluster) {
            snapshot::put_directive(&mut lines, key.clone(), directive.clone());
        }
        Some(Begun { head, lines, services: self.index.names(cluster) })
    }

    /// Begins with what an earlier process heard of a cluster. Whether it was used: it may say no more than it may say now.
    pub fn restore(&mut self, cluster: ClusterId, snapshot: Snapshot) -> bool {
        let Snapshot { head, objects, overdue } = snapshot;
        let config = self.publisher.config().clone();
        let member = config.cluster(cluster);
        if !head.rules.fit(&Rules::of(member)) || member.export == Export::Nothing {
            return false;
        }
        self.members[cluster.index()].status.set_earlier(head.past());
        self.unsaved.found(&head);
        let waits = source::kinds(member).into_iter().filter(|kind| !kind.is_load() && !kind.is_vote()).collect();
        self.restored.insert(cluster, (waits, head.written));
        self.publisher.set_remembered(cluster, true);
        let (directives, objects) = objects.into_iter().partition(|object| object.kind() == Kind::Directive);
        let now = self.now();
        let update = Update::Reset { kind: Kind::Directive, objects: directives, keep: Vec::new() };
        let directed = self.take_directive(cluster, update, now);
        let listed = self.index.restore(cluster, objects, &overdue, now);
        for change in listed.into_iter().chain([directed]) {
            self.publisher.reserve(change.services.len());
            self.compile(&change.services);
            if let Some((cluster, what)) = change.refused {
                self.refused(cluster, what);
            }
        }
        if self.index.is_synced(cluster) {
            self.publisher.set_synced(cluster);
        }
        let (services, slices) = self.index.counts(cluster);
        info!(cluster = %member.name, services, slices, written = %head.written, "restored from its snapshot, until it is heard");
        self.show_clusters();
        true
    }

    /// The cluster said all of that kind itself.
    pub(super) fn listed(&mut self, cluster: ClusterId, kind: Kind) {
        let Some((waits, _)) = self.restored.get_mut(&cluster) else { return };
        waits.retain(|waiting| *waiting != kind);
        if waits.is_empty() {
            self.restored.remove(&cluster);
            self.publisher.set_remembered(cluster, false);
            self.seen.lock().clusters[cluster.index()].restored = false;
            info!(cluster = %self.publisher.config().cluster(cluster).name, "heard: its snapshot is not needed any more");
        }
    }
}
