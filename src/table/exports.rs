//! What of a service is in which zones: by the clusters' rules in those of the schema `federation`, by ServiceExports in those of
//! the schema `mcs`, where the clusters may contradict each other.

use std::borrow::Cow;

use super::compile::{Conflict, Note};
use crate::config::Config;
use crate::model::{ClusterAddress, Federated, Port, Share};

pub(super) struct Exports<'a> {
    service: Option<&'a Federated>,
    config: &'a Config,
    federation: Option<Option<Cow<'a, Federated>>>,
    mcs: Option<Option<Federated>>,
}

impl<'a> Exports<'a> {
    pub fn of(service: Option<&'a Federated>, config: &'a Config) -> Exports<'a> {
        Exports { service, config, federation: None, mcs: None }
    }

    pub fn in_federation(&mut self) -> Option<&Federated> {
        let service = self.service;
        self.federation.get_or_insert_with(|| exported(service?)).as_deref()
    }

    /// `notes` get what the clusters contradict each other in.
    pub fn in_mcs(&mut self, notes: &mut Vec<Note>) -> Option<&Federated> {
        let (service, config) = (self.service, self.config);
        self.mcs.get_or_insert_with(|| offered(service?, config, notes)).as_ref()
    }
}

fn exported(service: &Federated) -> Option<Cow<'_, Federated>> {
    if service.imports.is_empty() && service.shares.iter().all(|share| share.exported) {
        return Some(Cow::Borrowed(service));
    }
    let shares: Vec<Share> = service.shares.iter().filter(|share| share.exported).cloned().collect();
    let service = Federated { key: service.key.clone(), shares, imports: Vec::new() };
    (!service.shares.is_empty()).then_some(Cow::Owned(service))
}

/// MCS API, "Constraints and Conflict Resolution": the oldest export says whether the service is headless, and what a port is
/// that two clusters give different numbers; the ports are those of all.
fn offered(service: &Federated, config: &Config, notes: &mut Vec<Note>) -> Option<Federated> {
    let mut shares: Vec<Share> = service.shares.iter().filter(|share| share.offered.is_some()).cloned().collect();
    // All instances have to agree, whatever the order of their configurations.
    shares.sort_by_key(|share| (share.offered, config.cluster(share.cluster).name.clone()));
    if let Some(oldest) = shares.first() {
        let headless = oldest.cluster_address == ClusterAddress::Headless;
        shares.retain(|share| {
            let agrees = (share.cluster_address == ClusterAddress::Headless) == headless;
            if !agrees {
                notes.push(Note::ExportConflict { cluster: share.cluster, what: Conflict::Type });
            }
            agrees
        });
        let mut union: Vec<Port> = Vec::new();
        for share in &shares {
            for port in &share.ports {
                match union.iter().find(|known| known.name == port.name && known.protocol == port.protocol) {
                    None => union.push(port.clone()),
                    Some(known) if known.number == port.number => {}
                    Some(_) => {
                        let what = Conflict::Port(port.name.as_ref().map(ToString::to_string).unwrap_or_default());
                        notes.push(Note::ExportConflict { cluster: share.cluster, what });
                    }
                }
            }
        }
        shares.iter_mut().for_each(|share| share.ports.clone_from(&union));
    }
    shares.sort_by_key(|share| share.cluster);
    let imports: Vec<_> = service.imports.iter().filter(|(_, import)| !import.addresses.is_empty()).cloned().collect();
    let is_there = !shares.is_empty() || !imports.is_empty();
    is_there.then(|| Federated { key: service.key.clone(), shares, imports })
}
