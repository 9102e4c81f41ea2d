//! The only merge point: a service with its shares, ranked for every view in use → the octets of its answers.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::Record;
use super::build::{Builder, Group, Weighted};
use super::record::{Variant, pointer_to};
use super::statics::Zone;
use crate::config::{Cluster, Config, MAX_VIEWS};
use crate::model::{ClusterAddress, ClusterId, Federated, Label, Pod, Port, ServiceKey, View};
use crate::names::{MAX_NAME, Name, service_name};
use crate::ranking::{Candidate, Ranking, rank};
use crate::wire::{HEADER, rtype};

/// Why a part of what the clusters said is not in the answers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Note {
    /// A derived name is over 255 octets, or a label over 63.
    LongName { zone: Name, what: String },
    /// The zone file has records of its own at this name, and they win.
    StaticWins { name: Name },
    /// A delegation or DNAME of the zone file stands above this name.
    Occluded { name: Name },
    /// A load balancer's address is special-purpose and not among the cluster's ingress CIDRs.
    UndeclaredAddress { cluster: ClusterId, address: IpAddr },
    /// The set is larger than a message.
    TooMany { left_out: usize },
}

/// Every [`Note`] in one word each, for counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NoteKind {
    LongName,
    StaticWins,
    Occluded,
    UndeclaredAddress,
    TooMany,
}

impl NoteKind {
    pub const ALL: [NoteKind; 5] =
        [NoteKind::LongName, NoteKind::StaticWins, NoteKind::Occluded, NoteKind::UndeclaredAddress, NoteKind::TooMany];

    pub fn label(self) -> &'static str {
        match self {
            NoteKind::LongName => "long_name",
            NoteKind::StaticWins => "static_wins",
            NoteKind::Occluded => "occluded",
            NoteKind::UndeclaredAddress => "undeclared_address",
            NoteKind::TooMany => "too_many",
        }
    }
}

impl Note {
    pub fn kind(&self) -> NoteKind {
        match self {
            Note::LongName { .. } => NoteKind::LongName,
            Note::StaticWins { .. } => NoteKind::StaticWins,
            Note::Occluded { .. } => NoteKind::Occluded,
            Note::UndeclaredAddress { .. } => NoteKind::UndeclaredAddress,
            Note::TooMany { .. } => NoteKind::TooMany,
        }
    }

    /// One sentence for people; cluster names come from the configuration.
    pub fn sentence(&self, key: &ServiceKey, config: &Config) -> String {
        match self {
            Note::LongName { zone, what } => {
                format!("{key}: {what} makes a name in {zone} that is too long; it is left out")
            }
            Note::StaticWins { name } => {
                format!("{key}: the zone file has records at {name}, which are served instead of the service's")
            }
            Note::Occluded { name } => {
                format!("{key}: {name} is below a delegation or DNAME of the zone file and is not served")
            }
            Note::UndeclaredAddress { cluster, address } => {
                let cluster = &config.cluster(*cluster).name;
                format!(
                    "{cluster} {key}: load balancer address {address} is special-purpose (RFC 6890) and not in the \
                     cluster's ingressCidrs; it is not published"
                )
            }
            Note::TooMany { left_out } => {
                format!("{key}: {left_out} records are more than fit into a message; they are left out")
            }
        }
    }
}

/// A service's answers in one zone.
pub(super) struct Compiled {
    pub name: Name,
    /// `None`: no view may see the service.
    pub record: Option<Record>,
    pub notes: Vec<Note>,
}

/// `Err`: the service has no name in this zone.
pub(super) fn compile(service: &Federated, zone: &Zone, config: &Config, views: &[View]) -> Result<Compiled, Note> {
    let ServiceKey { namespace, name } = &service.key;
    let long = || Note::LongName { zone: zone.apex.clone(), what: service.key.to_string() };
    let owner = service_name(name, namespace, &zone.apex).map_err(|_| long())?;
    if zone.is_occluded(&owner) {
        return Err(Note::Occluded { name: owner });
    }
    let mut notes = Vec::new();
    let mut variants: Vec<Variant> = Vec::new();
    let mut by_view = vec![Record::INVISIBLE; views.len()];
    debug_assert!(views.len() <= MAX_VIEWS);
    for (slot, &view) in by_view.iter_mut().zip(views) {
        let Some(ranking) = rank(service, view, &config.clusters, zone.policy.families) else { continue };
        let variant = Compiler { zone, clusters: &config.clusters, owner: &owner, notes: &mut notes }.variant(&ranking);
        notes.extend(ranking.undeclared.iter().map(|&(cluster, address)| Note::UndeclaredAddress { cluster, address }));
        let at = variants.iter().position(|v| *v == variant).unwrap_or_else(|| {
            variants.push(variant);
            variants.len() - 1
        });
        *slot = at as u8;
    }
    notes.sort();
    notes.dedup();
    let record = (!variants.is_empty()).then(|| Record { by_view: by_view.into(), variants: variants.into() });
    Ok(Compiled { name: owner, record, notes })
}

struct Compiler<'a> {
    zone: &'a Zone,
    clusters: &'a [Cluster],
    owner: &'a Name,
    notes: &'a mut Vec<Note>,
}

/// One SRV record before it is laid out.
struct Target {
    prefix: Vec<u8>,
    addresses: Vec<IpAddr>,
    priority: u16,
    weight: u16,
    port: u16,
}

impl Compiler<'_> {
    fn variant(mut self, ranking: &Ranking<'_>) -> Variant {
        let mut builder = Builder::default();
        self.service(ranking, &mut builder);
        self.ports(ranking, &mut builder);
        for candidate in &ranking.visible {
            self.cluster(candidate, &mut builder);
        }
        builder.finish()
    }

    /// `S.N.Z`: the addresses of all chosen candidates, and SRV for all their ports.
    fn service(&mut self, ranking: &Ranking<'_>, builder: &mut Builder) {
        self.check_static(&[]);
        let ttl = self.zone.policy.ttl;
        for (v4, answered) in [(true, ranking.ipv4), (false, ranking.ipv6)] {
            if answered {
                let bands = ranking.bands_with(|c| c.addresses.iter().any(|a| a.is_ipv4() == v4));
                // A headless set is not cut: every pod of it may hold a part of the data.
                let headless = bands.iter().flatten().any(|&i| !ranking.visible[i].pods.is_empty());
                let limit = (!headless).then_some(self.zone.policy.max_answers);
                let left_out = builder.addresses(&[], v4, &runs(&bands, ranking, v4), ttl, limit);
                self.left_out(left_out);
            }
        }
        let targets = self.targets(ranking, |_| true);
        if !targets.is_empty() {
            self.srv(&[], &targets, builder);
        }
        if !builder.has(&[]) {
            builder.nothing(&[], true);
        }
    }

    /// `_port._proto.S.N.Z` for every named port of any visible share.
    fn ports(&mut self, ranking: &Ranking<'_>, builder: &mut Builder) {
        let mut names: BTreeMap<(&Label, &'static str), &Port> = BTreeMap::new();
        for port in ranking.visible.iter().flat_map(|c| candidate_ports(c)) {
            if let Some(name) = &port.name {
                names.entry((name, port.protocol.label())).or_insert(port);
            }
        }
        for ((name, protocol), port) in names {
            let label = format!("_{name}");
            let Some(prefix) = self.prefix(&[label.as_bytes(), protocol.as_bytes()]) else { continue };
            self.check_static(&prefix);
            let same = |p: &Port| p.name == port.name && p.protocol == port.protocol;
            let targets = self.targets(ranking, same);
            if targets.is_empty() {
                builder.nothing(&prefix, true);
            } else {
                self.srv(&prefix, &targets, builder);
            }
        }
    }

    /// `C.S.N.Z`, ready or not, and `H.C.S.N.Z`.
    fn cluster(&mut self, candidate: &Candidate<'_>, builder: &mut Builder) {
        let ttl = self.zone.policy.ttl;
        let cluster = self.clusters[candidate.cluster().index()].name.clone();
        let Some(prefix) = self.prefix(&[cluster.as_bytes()]) else { return };
        self.check_static(&prefix);
        let all = |v4: bool| -> Vec<Weighted> {
            candidate.addresses.iter().filter(|a| a.is_ipv4() == v4).map(|&a| (a, 1)).collect()
        };
        let limit = candidate.pods.is_empty().then_some(self.zone.policy.max_answers);
        for v4 in [true, false] {
            let left_out = builder.addresses(&prefix, v4, &[all(v4)], ttl, limit);
            self.left_out(left_out);
        }
        if candidate.addresses.is_empty() {
            builder.nothing(&prefix, true);
        }
        for host in hosts(candidate.pods) {
            let Some(prefix) = self.prefix(&[host.hostname.as_bytes(), cluster.as_bytes()]) else { continue };
            self.check_static(&prefix);
            for v4 in [true, false] {
                let family = |a: &&IpAddr| a.is_ipv4() == v4;
                let run: Vec<Weighted> = host.addresses.iter().filter(family).map(|&a| (a, 1)).collect();
                let left_out = builder.addresses(&prefix, v4, &[run], ttl, None);
                self.left_out(left_out);
            }
        }
    }

    /// The SRV records of the chosen candidates for those ports that `wanted` picks.
    fn targets(&mut self, ranking: &Ranking<'_>, wanted: impl Fn(&Port) -> bool) -> Vec<Target> {
        let mut targets = Vec::new();
        let bands = ranking.bands_with(|candidate| candidate_ports(candidate).any(&wanted));
        for (rank, band) in bands.iter().enumerate() {
            let priority = 10 * rank as u16;
            for &i in band {
                let candidate = &ranking.visible[i];
                let cluster = self.clusters[candidate.cluster().index()].name.clone();
                if candidate.pods.is_empty() {
                    let ports = candidate.share.ports.iter().filter(|p| wanted(p));
                    let Some(prefix) = self.prefix(&[cluster.as_bytes()]) else { continue };
                    targets.extend(ports.map(|port| Target {
                        prefix: prefix.clone(),
                        addresses: candidate.addresses.clone(),
                        priority,
                        weight: candidate.weight,
                        port: port.number.get(),
                    }));
                }
                for host in hosts(candidate.pods) {
                    let ports = host.pods.iter().flat_map(|pod| &pod.ports).filter(|p| wanted(p));
                    let Some(prefix) = self.prefix(&[host.hostname.as_bytes(), cluster.as_bytes()]) else { continue };
                    targets.extend(ports.map(|port| Target {
                        prefix: prefix.clone(),
                        addresses: host.addresses.clone(),
                        priority,
                        weight: candidate.weight,
                        port: port.number.get(),
                    }));
                }
            }
        }
        targets
    }

    fn srv(&mut self, prefix: &[u8], targets: &[Target], builder: &mut Builder) {
        let ttl = self.zone.policy.ttl;
        let mut rdatas: Vec<Vec<u8>> = Vec::with_capacity(targets.len());
        let mut told: BTreeSet<Vec<u8>> = BTreeSet::new();
        let mut extra: Vec<Group> = Vec::new();
        let mut done: BTreeSet<&[u8]> = BTreeSet::new();
        for target in targets {
            let mut rdata = Vec::with_capacity(6 + target.prefix.len() + self.owner.as_wire().len());
            for field in [target.priority, target.weight, target.port] {
                rdata.extend_from_slice(&field.to_be_bytes());
            }
            rdata.extend_from_slice(&target.prefix);
            rdata.extend_from_slice(self.owner.as_wire());
            // The same number for TCP and UDP is one record at the bare name.
            if told.insert(rdata.clone()) {
                rdatas.push(rdata);
            }
            if done.insert(&target.prefix) && !self.is_static(&target.prefix) {
                let owner = [&target.prefix[..], &pointer_to(HEADER + prefix.len())].concat();
                extra.extend(
                    [true, false].into_iter().filter_map(|v4| Group::addresses(&owner, &target.addresses, v4, ttl)),
                );
            }
        }
        let left_out = builder.fixed(prefix, rtype::SRV, ttl, &rdatas, &extra);
        self.left_out(left_out);
    }

    fn left_out(&mut self, left_out: usize) {
        if left_out > 0 {
            self.notes.push(Note::TooMany { left_out });
        }
    }

    /// Labels in wire form; `None`, and a note, if the name would be too long.
    fn prefix(&mut self, labels: &[&[u8]]) -> Option<Vec<u8>> {
        let mut wire = Vec::new();
        let mut fits = true;
        for label in labels {
            fits &= label.len() <= 63;
            wire.push(label.len() as u8);
            wire.extend_from_slice(label);
        }
        if fits && wire.len() + self.owner.as_wire().len() <= MAX_NAME {
            return Some(wire);
        }
        let what = labels.iter().map(|l| String::from_utf8_lossy(l)).collect::<Vec<_>>().join(".");
        self.notes.push(Note::LongName { zone: self.zone.apex.clone(), what });
        None
    }

    /// Whether the zone file, and not this service, says what stands at the name.
    fn is_static(&self, prefix: &[u8]) -> bool {
        self.zone.is_deep()
            && Name::from_wire(&[prefix, self.owner.as_wire()].concat())
                .is_ok_and(|name| self.zone.is_occluded(&name) || self.zone.has_sets(&name))
    }

    fn check_static(&mut self, prefix: &[u8]) {
        if !self.zone.is_deep() {
            return;
        }
        let wire = [prefix, self.owner.as_wire()].concat();
        let name = Name::from_wire(&wire).expect("a prefix and a name that fit together are a name");
        if self.zone.is_occluded(&name) {
            self.notes.push(Note::Occluded { name });
        } else if self.zone.has_sets(&name) {
            self.notes.push(Note::StaticWins { name });
        }
    }
}

/// What one `H.C.S.N.Z` stands for.
struct Host<'a> {
    hostname: &'a Label,
    pods: &'a [Pod],
    addresses: Vec<IpAddr>,
}

/// Pods of one hostname are one name: those of a Deployment whose template gives one, or one pod in the slices of two
/// families. They come ordered by hostname.
fn hosts(pods: &[Pod]) -> impl Iterator<Item = Host<'_>> {
    pods.chunk_by(|a, b| a.hostname == b.hostname).map(|pods| {
        let mut addresses: Vec<IpAddr> = pods.iter().flat_map(|pod| pod.addresses.iter().copied()).collect();
        addresses.sort();
        addresses.dedup();
        Host { hostname: &pods[0].hostname, pods, addresses }
    })
}

/// Headless shares publish the ports of their slices, the others those of the Service.
fn candidate_ports<'a>(candidate: &'a Candidate<'_>) -> impl Iterator<Item = &'a Port> {
    let own: &[Port] = match candidate.share.cluster_address {
        ClusterAddress::Headless if !candidate.pods.is_empty() => &[],
        ClusterAddress::Headless | ClusterAddress::Virtual(_) => &candidate.share.ports,
    };
    own.iter().chain(candidate.pods.iter().flat_map(|pod: &Pod| pod.ports.iter()))
}

/// One family's addresses: band by band, in a band all first addresses before all second ones. An address that several
/// clusters give is one record at its best rank, with the weights added.
fn runs(bands: &[Vec<usize>], ranking: &Ranking<'_>, v4: bool) -> Vec<Vec<Weighted>> {
    let mut runs: Vec<Vec<Weighted>> = Vec::new();
    let mut places: BTreeMap<IpAddr, (usize, usize)> = BTreeMap::new();
    for band in bands {
        let lists: Vec<(Vec<IpAddr>, u16)> = band
            .iter()
            .map(|&i| &ranking.visible[i])
            .map(|c| (c.addresses.iter().copied().filter(|a| a.is_ipv4() == v4).collect(), c.weight))
            .collect();
        // The pods of a headless share are one run: none of them is a cluster's second choice.
        let headless = band.iter().any(|&i| !ranking.visible[i].pods.is_empty());
        let depth = lists.iter().map(|(list, _)| list.len()).max().unwrap_or(0);
        for row in 0..depth {
            if row == 0 || !headless {
                runs.push(Vec::new());
            }
            for (list, weight) in &lists {
                let Some(&address) = list.get(row) else { continue };
                let run = runs.len() - 1;
                match places.entry(address) {
                    Entry::Occupied(known) => {
                        let &(run, at) = known.get();
                        let sum = &mut runs[run][at].1;
                        *sum = sum.saturating_add(*weight);
                    }
                    Entry::Vacant(new) => {
                        new.insert((run, runs[run].len()));
                        runs[run].push((address, *weight));
                    }
                }
            }
        }
    }
    runs
}
