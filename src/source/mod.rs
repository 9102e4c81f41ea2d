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
//! | [`status`] | how a source is doing, for metrics |

use std::sync::Arc;

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
pub mod report;
pub mod slim;
pub mod status;

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
pub type Message = (ClusterId, Update);

/// What every source is started with.
pub struct Feed {
    pub cluster: ClusterId,
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
