//! Where a cluster's objects come from: Kubernetes API servers and manifest directories. Both say the same things in
//! the same words ([`Update`]), and Kubernetes' own shapes end in here.
//!
//! | module | what it is |
//! |---|---|
//! | [`slim`] | an object as written: only the fields that are read, lenient about the rest |
//! | [`convert`] | a slim object → the model's, or why not |
//! | [`problem`] | what can be wrong with an object or a file |
//! | [`manifests`] | a directory, re-read on change |
//! | [`kube`] | list and watch |
//! | [`places`] | where clusters are by their nodes |
//! | [`report`] | what instances say of endpoints, as written |
//! | [`directive`] | what operators say of clusters, as written |
//! | [`registration`] | a Secret that registers a cluster |
//! | [`registrations`] | the clusters that are registered |
//! | [`status`] | how a source is doing, for metrics |

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::config;
use crate::index::{Kind, Update};
use crate::model::ClusterId;

pub mod convert;
pub mod directive;
pub mod kube;
pub mod manifests;
pub mod places;
pub mod problem;
pub mod registration;
pub mod registrations;
pub mod report;
pub mod slim;
mod stamp;
pub mod status;

pub use stamp::Stamp;

/// The kinds that a cluster's source reads.
pub fn kinds(cluster: &config::Cluster) -> Vec<Kind> {
    let wants = |kind: &Kind| match kind {
        Kind::Lease | Kind::HealthReport => cluster.voter.is_some(),
        Kind::Directive => {
            cluster.export != config::Export::Nothing
                && (cluster.directives.is_some() || matches!(cluster.source, config::Source::Manifests { .. }))
        }
        _ if cluster.export == config::Export::Nothing => false,
        Kind::ServiceExport => cluster.reads_exports(),
        Kind::ServiceImport => cluster.mcs,
        Kind::Service | Kind::EndpointSlice | Kind::ServiceLoad | Kind::ClusterLoad => true,
    };
    Kind::ALL.into_iter().filter(wants).collect()
}

/// What a source sends to the app's publisher task. The cluster is the connection's, never the object's word.
pub type Message = (Number, Update);

/// Which cluster it is. Clusters that come and go before it move its position, and its source goes on: so a message is
/// about the cluster that has the number when it is taken, and not when it is sent.
#[derive(Debug, Clone)]
pub struct Number(Arc<AtomicU16>);

impl Number {
    pub fn new(id: ClusterId) -> Number {
        Number(Arc::new(AtomicU16::new(id.0)))
    }

    pub fn get(&self) -> ClusterId {
        ClusterId(self.0.load(Ordering::Acquire))
    }

    /// Only while nobody takes messages.
    pub fn set(&self, id: ClusterId) {
        self.0.store(id.0, Ordering::Release);
    }
}

/// What every source is started with.
pub struct Feed {
    pub cluster: Number,
    /// Its name, and what it may export.
    pub config: Arc<config::Cluster>,
    pub updates: mpsc::Sender<Message>,
    pub status: Arc<status::Status>,
    /// The app asks for a fresh consistent list.
    pub relist: Arc<Notify>,
    /// For what is found out of where it is.
    pub discovered: Arc<places::Discovered>,
    pub stop: CancellationToken,
    pub limits: Arc<config::Limits>,
}
