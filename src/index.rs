//! The federation as last heard: what each cluster said, object by object, and what an update changes.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::model::{ClusterId, Service, ServiceKey, Slice};

/// The kinds of objects that a source lists and watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Service,
    EndpointSlice,
}

impl Kind {
    pub const ALL: [Kind; 2] = [Kind::Service, Kind::EndpointSlice];
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Object {
    Service(Service),
    Slice(Slice),
}

/// An object's identity within its cluster, valid or not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

/// What a source tells of one cluster. Both kinds of sources say the same things in the same words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Update {
    /// The object is as given.
    Apply(Object),
    /// The object is gone, or no longer exported.
    Delete(Kind, ObjectKey),
    /// A whole list of one kind: what is not in it is gone.
    Reset {
        kind: Kind,
        objects: Vec<Object>,
        /// Objects that are in the list but could not be understood: their last good state stays.
        keep: Vec<ObjectKey>,
    },
}

impl Object {
    pub fn kind(&self) -> Kind {
        match self {
            Object::Service(_) => Kind::Service,
            Object::Slice(_) => Kind::EndpointSlice,
        }
    }
}

/// How a cluster's services without any EndpointSlice are judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlicePolicy {
    /// A controller makes slices: a Service with a selector and none is not ready after 30 s.
    Expected,
    /// Manifests: ready, if the cluster has no EndpointSlice for any service.
    Optional,
}

/// What an update or the passing of time changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The services whose [`Federated`] may have changed.
    pub services: BTreeSet<ServiceKey>,
    /// The cluster has synced with this update: all its kinds were listed once.
    pub synced: Option<ClusterId>,
}
