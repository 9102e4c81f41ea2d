//! Where the clusters are of which the configuration does not say it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

use crate::config::Cluster;
use crate::model::{Label, Place};

/// What the clusters' sources have found, by the cluster's name.
#[derive(Debug, Default)]
pub struct Discovered {
    places: Mutex<BTreeMap<Label, Place>>,
    /// Something else was found.
    pub changed: Notify,
}

impl Discovered {
    /// Whether that is news.
    pub fn set(&self, cluster: &Label, place: Place) -> bool {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = places.get(cluster) != Some(&place);
        if is_news {
            places.insert(cluster.clone(), place);
            self.changed.notify_one();
        }
        is_news
    }

    /// Puts the clusters where their nodes are. Whether that changes anything.
    pub fn fill(&self, clusters: &mut [Cluster]) -> bool {
        let places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = false;
        for cluster in clusters.iter_mut().filter(|cluster| cluster.placed_by_nodes) {
            let Some(Place { region, availability_zones }) = places.get(&cluster.name) else { continue };
            if (&cluster.region, &cluster.availability_zones) != (region, availability_zones) {
                cluster.region.clone_from(region);
                cluster.availability_zones.clone_from(availability_zones);
                changed = true;
            }
        }
        changed
    }
}
