//! What stands on disk, answered for as a server would that had been told all of it for long.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::federation::{Ask, Federation, Member, Seen};
use super::{AppError, Loaded};
use crate::config::{Config, Source};
use crate::index::{Kind, Object, Update};
use crate::model::ClusterId;
use crate::source::{self, Message};
use crate::table::{Publisher, Reader};
use crate::zonefile::ZoneData;

/// Nobody is asked for the names of load balancers.
fn nobody() -> Ask {
    Arc::new(|_| Box::pin(async { Err("nobody is asked for names without a server".to_owned()) }))
}

/// A federation of manifests; clusters behind an API server are as if they had nothing.
pub struct Offline {
    pub config: Arc<Config>,
    pub zones: Arc<Vec<ZoneData>>,
    pub federation: Federation,
    pub reader: Reader,
}

impl Offline {
    /// Reads all that the configuration at `path` names. What is wrong with a manifest costs that alone.
    pub fn read(path: &Path) -> Result<Offline, AppError> {
        let Loaded { mut config, zones, atlas, .. } = Loaded::load(path)?;
        let own = Arc::make_mut(&mut config);
        if let Some(secrets) = &mut own.cluster_secrets {
            secrets.listed = true;
        }
        // Nothing is probed.
        own.health = None;
        let started = Instant::now();
        let members: Vec<Member> = config.numbered().map(|(id, _)| Member::new(id, started)).collect();
        let (mut publisher, reader) = Publisher::new(config.clone(), &zones, 0);
        publisher.set_atlas(atlas);
        let said: Vec<Message> =
            config.numbered().flat_map(|(id, _)| said(&config, id, &members[id.index()])).collect();
        let (updates, queue) = mpsc::channel(said.len().max(1));
        said.into_iter().for_each(|message| updates.try_send(message).expect("there is room for all of them"));
        // All that waits is entered before the end.
        let stop = CancellationToken::new();
        stop.cancel();
        let federation = Federation::new(started, publisher, members, Arc::new(Seen::default()), nobody(), 0);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(AppError::Runtime)?;
        let (mut federation, _) = runtime.block_on(federation.run(queue, stop));
        federation.settle();
        Ok(Offline { config, zones, federation, reader })
    }
}

/// All that the cluster has to say.
fn said(config: &Config, id: ClusterId, member: &Member) -> Vec<Message> {
    let cluster = config.cluster(id);
    let mut objects = match &cluster.source {
        Source::Manifests { directory } => source::manifests::read(directory, cluster, &config.limits).by_kind(),
        Source::Kubeconfig { .. } | Source::InCluster | Source::Registered(_) => Default::default(),
    };
    let mut kinds: Vec<Kind> = source::kinds(cluster).into_iter().filter(|kind| !kind.is_vote()).collect();
    // Slices before the Services that would wait for them.
    kinds.sort_by_key(|kind| *kind != Kind::EndpointSlice);
    let list = |kind| {
        let objects: Vec<Object> = objects.remove(&kind).unwrap_or_default();
        (member.number.clone(), Update::Reset { kind, objects, keep: Vec::new() })
    };
    kinds.into_iter().map(list).collect()
}
