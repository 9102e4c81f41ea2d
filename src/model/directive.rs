//! What an operator says of a cluster, or of one of its services: an object in the cluster's own API, or a file among its manifests. It is
//! about what that cluster has, and about nothing else.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ServiceKey;

/// Over how long a drain may shift.
pub const MOST_OVER: Duration = Duration::from_secs(24 * 3_600);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Directive {
    /// `None`: all that is in the cluster.
    pub service: Option<ServiceKey>,
    pub action: Action,
    /// `None`: at once.
    pub from: Option<Timestamp>,
    /// `None`: until it is taken back.
    pub until: Option<Timestamp>,
    /// For people; may be empty.
    #[serde(with = "super::text")]
    pub reason: Arc<str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Action {
    /// Its share of the answers goes elsewhere, within this time. Where nobody else is, it is answered with.
    Drain {
        over: Duration,
    },
    /// Whatever probes and votes say.
    ForceUp,
    ForceDown,
    /// However much is Down at once, it is removed: of the instances in this cluster.
    Release,
}

impl Action {
    /// As it is written.
    pub fn word(self) -> &'static str {
        match self {
            Action::Drain { .. } => "drain",
            Action::ForceUp => "force-up",
            Action::ForceDown => "force-down",
            Action::Release => "release",
        }
    }
}
