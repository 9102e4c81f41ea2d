//! The only merge point: a service with its shares → the record that its answers are made from.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::IpAddr;

use super::record::{Audience, CandidateParts, Encoder, Health, HostParts, MAX_ADDRESSES, Settings, flag};
use super::statics::{Policy, Zone};
use super::{FIXED, MAX_SET, MIN_TTL, most_addresses};
use crate::config::{self, Cluster, Config, Published};
use crate::health;
use crate::load::Shedding;
use crate::location::is_special_purpose;
use crate::model::{ClusterAddress, ClusterId, Exposure, Federated, Label, Pod, ServiceKey, Share};
use crate::names::{MAX_NAME, Name};
use crate::ranking::{BothFamilies, Cut, Ingress};

/// Why a part of what the clusters said is not in the answers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Note {
    /// A derived name is over 255 octets, or a label over 63.
    LongName { zone: Name, what: String },
    /// The zone file has records of its own at this name, and they win.
    StaticWins { name: Name },
    /// A delegation or DNAME of the zone file stands above this name.
    Occluded { name: Name },
    /// A load balancer's address is in none of the cluster's ranges.
    UndeclaredAddress { cluster: ClusterId, address: IpAddr },
    /// The set is larger than a message.
    TooMany { left_out: usize },
    /// A ServiceExport contradicts an older one of another cluster.
    ExportConflict { cluster: ClusterId, what: Conflict },
}

/// In what two ServiceExports contradict each other.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Conflict {
    /// Headless or not.
    Type,
    /// The number of the port with this name; without one, of the port without a name.
    Port(String),
}

/// Every [`Note`] in one word each, for counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NoteKind {
    LongName,
    StaticWins,
    Occluded,
    UndeclaredAddress,
    TooMany,
    ExportConflict,
}

impl NoteKind {
    pub const ALL: [NoteKind; 6] = [
        NoteKind::LongName,
        NoteKind::StaticWins,
        NoteKind::Occluded,
        NoteKind::UndeclaredAddress,
        NoteKind::TooMany,
        NoteKind::ExportConflict,
    ];

    pub fn label(self) -> &'static str {
        match self {
            NoteKind::LongName => "long_name",
            NoteKind::StaticWins => "static_wins",
            NoteKind::Occluded => "occluded",
            NoteKind::UndeclaredAddress => "undeclared_address",
            NoteKind::TooMany => "too_many",
            NoteKind::ExportConflict => "export_conflict",
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
            Note::ExportConflict { .. } => NoteKind::ExportConflict,
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
                let why = match is_special_purpose(*address) {
                    true => "special-purpose (RFC 6890) and not in the cluster's ingressCidrs",
                    false => "not in the cluster's globalIngressCidrs",
                };
                format!("{cluster} {key}: load balancer address {address} is {why}; it is not published")
            }
            Note::TooMany { left_out } => {
                format!("{key}: {left_out} records are more than fit into a message; they are left out")
            }
            Note::ExportConflict { cluster, what } => {
                let cluster = &config.cluster(*cluster).name;
                match what {
                    Conflict::Type => format!(
                        "{cluster} {key}: an older ServiceExport of another cluster is headless and this one is not, or the \
                         other way round; this cluster's is left out"
                    ),
                    Conflict::Port(name) => format!(
                        "{cluster} {key}: port {name:?} has another number in an older ServiceExport of another cluster, \
                         which is used"
                    ),
                }
            }
        }
    }
}

/// What is known of a service beside what its clusters say.
pub struct Outlook<'a> {
    /// What is to be done about its load in each cluster.
    pub shedding: &'a dyn Fn(ClusterId) -> Shedding,
    /// Of each external address of a share.
    pub health: &'a dyn Fn(&Share, IpAddr) -> health::Health,
}

impl Outlook<'_> {
    /// Nothing is known.
    pub const FAIR: Outlook<'static> =
        Outlook { shedding: &|_| Shedding { share: 0, overloaded: false }, health: &|_, _| health::Health::Fine };
}

/// A service in one zone.
pub(super) struct Compiled<'a> {
    /// An entry of the map, see `record.rs`.
    pub record: &'a [u8],
    pub notes: Vec<Note>,
}

/// What a compilation works with, kept for the next one: a large federation is a million of them.
#[derive(Default)]
pub(super) struct Compiler {
    encoder: Encoder,
    ingress: Ingress,
    cluster_ips: Vec<IpAddr>,
    /// Addresses that views may see side by side, of all shares; and those that only a cluster's own view sees.
    anywhere: Vec<IpAddr>,
    local: Vec<IpAddr>,
}

impl Compiler {
    /// `owner`: the service's name in the zone, in wire form. `Err`: it has no place in this zone.
    pub fn compile(
        &mut self,
        service: &Federated,
        owner: &[u8],
        zone: &Zone,
        config: &Config,
        outlook: &Outlook<'_>,
    ) -> Result<Compiled<'_>, Note> {
        let mut names = Names { zone, owner, zones: &config.zones, notes: Vec::new() };
        if zone.is_deep() && zone.is_occluded(&names.name(&[])) {
            return Err(Note::Occluded { name: names.name(&[]) });
        }
        let special = config.zones[zone.place].services.get(&service.key);
        self.encode(service, &mut names, special, &config.clusters, outlook);
        let shared = self.shares_addresses();
        let mut notes = names.notes;
        notes.sort();
        notes.dedup();
        Ok(Compiled { record: self.encoder.end(shared), notes })
    }

    /// `special`: what the configuration says of this service.
    fn encode(
        &mut self,
        service: &Federated,
        names: &mut Names<'_>,
        special: Option<&config::Service>,
        clusters: &[Cluster],
        outlook: &Outlook<'_>,
    ) {
        names.check_static(&[]);
        names.check_ports(service);
        let hostnames = special.map_or(names.zone.policy.hostnames, |special| special.hostnames);
        let settings = settings(service, &names.zone.policy, special, hostnames);
        let instead = special.map_or(&[][..], |special| &special.addresses);
        // Of these, clients outside and inside are told different addresses.
        let is_split = |share: &Share| {
            let ranges = &clusters[share.cluster.index()].ingress;
            let is_told_inside = |address: &IpAddr| ranges.published(*address) == Published::Inside;
            let exposed = share.exposure == Exposure::LoadBalancer && instead.is_empty();
            exposed && !ranges.inside.is_empty() && share.ingress.iter().any(is_told_inside)
        };
        let split = service.shares.iter().filter(|share| is_split(share)).count();
        let candidates = service.shares.len() + split + service.imports.len();
        self.encoder.begin(names.zone.key(names.owner), candidates, settings);
        self.anywhere.clear();
        self.local.clear();
        let mut totals = Totals::default();
        // Before all others, so that whoever sees one need not look at these.
        for (cluster, import) in &service.imports {
            self.local.extend(&import.addresses);
            self.encoder.push(&CandidateParts {
                cluster: *cluster,
                audience: Audience::Everybody,
                weight: clusters[cluster.index()].weight,
                flags: flag::READY | flag::IMPORT,
                shedding: Shedding::default(),
                health: Health::default(),
                aliases: &[],
                ingress: &[],
                cluster_ips: &import.addresses,
                ports: &import.ports,
                hosts: &[],
                pod_addresses: &[],
            });
        }
        for share in &service.shares {
            let cluster = &clusters[share.cluster.index()];
            self.ingress.set(share, cluster);
            let undeclared = self.ingress.undeclared.iter();
            names.notes.extend(undeclared.map(|&address| Note::UndeclaredAddress { cluster: share.cluster, address }));
            // One load balancer in front of all reaches each of them, whatever their own Services are.
            let exposed = share.exposure == Exposure::LoadBalancer || !instead.is_empty();
            let (outside, inside) = match (instead.is_empty(), exposed) {
                (false, _) => (instead, instead),
                (true, true) => (&self.ingress.outside[..], &self.ingress.inside[..]),
                (true, false) => (&[][..], &[][..]),
            };
            self.cluster_ips.clear();
            if let ClusterAddress::Virtual(addresses) = &share.cluster_address {
                for address in addresses {
                    if !self.cluster_ips.contains(address) {
                        self.cluster_ips.push(*address);
                    }
                }
            }
            let headless = share.cluster_address == ClusterAddress::Headless;
            let mut flags = names.flags(&[cluster.name.as_bytes()]);
            let mut set = |bit: u8, on: bool| flags |= if on { bit } else { 0 };
            set(flag::READY, share.ready);
            set(flag::EXPOSED, exposed);
            set(flag::HEADLESS, headless);
            let hosts = if headless { names.hosts(share, cluster) } else { Vec::new() };
            let pod_addresses = in_order(hosts.iter().flat_map(|host| &host.addresses));
            self.anywhere.extend(inside.iter().chain(&pod_addresses));
            self.local.extend(&self.cluster_ips);
            totals.add(inside, &pod_addresses, names.owner, &hosts, share);
            let by_name = hostnames == config::Hostnames::Cname && exposed && instead.is_empty();
            // Behind a name that leads to nothing that may be published there is nothing to be had.
            let refused = inside.is_empty() && !self.ingress.undeclared.is_empty();
            let aliases = if by_name && !refused { names.aliases(share) } else { Vec::new() };
            let judged = |addresses| {
                let (addresses, mut health) = by_health(addresses, |address| (outlook.health)(share, address));
                if !aliases.is_empty() {
                    // Nobody knows which family is asked for behind it.
                    let is_down = |v4: bool| if v4 { health.down.ipv4 } else { health.down.ipv6 };
                    let down = !addresses.is_empty() && addresses.iter().all(|address| is_down(address.is_ipv4()));
                    health.down = BothFamilies { ipv4: down, ipv6: down };
                }
                (addresses, health)
            };
            let (ingress, health) = judged(inside);
            let parts = CandidateParts {
                cluster: share.cluster,
                audience: Audience::Everybody,
                weight: share.wishes.weight.unwrap_or(cluster.weight),
                flags,
                shedding: (outlook.shedding)(share.cluster),
                health,
                aliases: &aliases,
                ingress: &ingress,
                cluster_ips: &self.cluster_ips,
                ports: &share.ports,
                hosts: &hosts,
                pod_addresses: &pod_addresses,
            };
            if is_split(share) {
                // Whoever is outside has nothing to do with the cluster's own addresses.
                let (ingress, health) = judged(outside);
                let (cluster_ips, hosts, pod_addresses) = (&[], &[], &[]);
                let (audience, ingress) = (Audience::Outside, &ingress[..]);
                // Nor is it told a name of which nothing is known but addresses that it is not told.
                let aliases = if ingress.is_empty() { &[] } else { &aliases[..] };
                self.encoder.push(&CandidateParts {
                    audience,
                    ingress,
                    health,
                    aliases,
                    cluster_ips,
                    hosts,
                    pod_addresses,
                    ..parts
                });
                self.encoder.push(&CandidateParts { audience: Audience::Inside, ..parts });
            } else {
                self.encoder.push(&parts);
            }
        }
        let left_out = totals.left_out();
        if left_out > 0 {
            names.notes.push(Note::TooMany { left_out });
        }
    }

    /// Two clusters may well give out the same clusterIP: no view sees both.
    fn shares_addresses(&mut self) -> bool {
        let (anywhere, local) = (&mut self.anywhere, &self.local);
        anywhere.sort_unstable();
        anywhere.windows(2).any(|pair| pair[0] == pair[1])
            || local.iter().any(|address| anywhere.binary_search(address).is_ok())
    }
}

/// In each family those that are Suspect come last, and those that are Down are left out, unless all are.
fn by_health(addresses: &[IpAddr], health: impl Fn(IpAddr) -> health::Health) -> (Cow<'_, [IpAddr]>, Health) {
    let of: Vec<health::Health> = addresses.iter().map(|&address| health(address)).collect();
    if of.iter().all(|&health| health == health::Health::Fine) {
        return (Cow::Borrowed(addresses), Health::default());
    }
    let (mut kept, mut sum) = (Vec::with_capacity(addresses.len()), Health::default());
    for v4 in [true, false] {
        let family = || addresses.iter().zip(&of).filter(move |(address, _)| address.is_ipv4() == v4);
        let mut take = |wanted| {
            let before = kept.len();
            kept.extend(family().filter(|(_, health)| **health == wanted).map(|(address, _)| *address));
            kept.len() - before
        };
        let fine = take(health::Health::Fine).min(MAX_ADDRESSES);
        let suspect = take(health::Health::Suspect).min(MAX_ADDRESSES - fine);
        sum.suspect[usize::from(!v4)] = suspect as u8;
        if fine + suspect == 0 && !health::defect!(NonEmpty) && take(health::Health::Down) > 0 {
            *(if v4 { &mut sum.down.ipv4 } else { &mut sum.down.ipv6 }) = true;
        }
    }
    (Cow::Owned(kept), sum)
}

/// How a service is answered for, where that is not how its zone's others are.
fn settings(
    service: &Federated,
    policy: &Policy,
    special: Option<&config::Service>,
    hostnames: config::Hostnames,
) -> Option<Settings> {
    // Each cluster may ask for less than the others, so that its own changes show soon enough.
    let wish = service.shares.iter().filter_map(|share| share.wishes.ttl).min();
    let ttl = special.and_then(|special| special.ttl).or(wish).unwrap_or(policy.ttl);
    // An address that was asked for by name may be another one after that.
    let most = match hostnames {
        config::Hostnames::Addresses => service.shares.iter().filter_map(|share| share.most_ttl).min(),
        config::Hostnames::Cname => None,
    };
    let ttl = most.map_or(ttl, |most| ttl.min(most.max(MIN_TTL)));
    let cut = |mode, most| Cut { mode, most };
    let (external, internal) = match special {
        Some(special) => {
            let most = special.max_answers;
            (cut(special.external_mode, most), cut(special.internal_mode, most))
        }
        None => (policy.external, policy.internal),
    };
    let sticky = service.shares.iter().any(|share| share.sticky);
    let usual = Settings { ttl: policy.ttl, external: policy.external, internal: policy.internal, sticky: false };
    let settings = Settings { ttl, external, internal, sticky };
    (settings != usual).then_some(settings)
}

/// The names of one service, and what is unusual about them.
struct Names<'a> {
    zone: &'a Zone,
    /// `S.N.Z` in wire form.
    owner: &'a [u8],
    /// All of ours.
    zones: &'a [config::Zone],
    notes: Vec<Note>,
}

impl Names<'_> {
    /// Pods of one hostname are one name: those of a Deployment whose template gives one, or one pod in the slices of
    /// two families. They come ordered by hostname.
    fn hosts<'s>(&mut self, share: &'s Share, cluster: &Cluster) -> Vec<HostParts<'s>> {
        let same = |a: &Pod, b: &Pod| a.hostname == b.hostname;
        let host = |pods: &'s [Pod]| {
            let addresses = in_order(pods.iter().flat_map(|pod| &pod.addresses));
            let label = &pods[0].hostname;
            let flags = self.flags(&[label.as_bytes(), cluster.name.as_bytes()]);
            HostParts { label, flags, addresses, ports: pods.iter().flat_map(|pod| &pod.ports).collect() }
        };
        share.pods.chunk_by(same).map(host).collect()
    }

    /// The names of a share's load balancers, but for those that would lead back to us.
    fn aliases(&self, share: &Share) -> Vec<Name> {
        let names = share.hostnames.iter().filter_map(|name| Name::parse(name).ok());
        names.filter(|name| !self.zones.iter().any(|zone| name.is_at_or_below(&zone.name))).collect()
    }

    /// Notes of the names `_port._proto.S.N.Z`.
    fn check_ports(&mut self, service: &Federated) {
        // `_port` and `_proto` take at most 70 octets: without static data there is nothing to say of most names.
        let may_be_long = self.owner.len() + 70 > MAX_NAME;
        let unusual = |name: &Label| self.zone.is_deep() || may_be_long || name.as_bytes().len() > 62;
        let mut names: BTreeSet<(&Label, &'static str)> = BTreeSet::new();
        for share in &service.shares {
            let ports = share.ports.iter().chain(share.pods.iter().flat_map(|pod| &pod.ports));
            let named = ports.filter_map(|port| Some((port.name.as_ref()?, port.protocol.label())));
            names.extend(named.filter(|(name, _)| unusual(name)));
        }
        for (name, protocol) in names {
            self.flags(&[format!("_{name}").as_bytes(), protocol.as_bytes()]);
        }
    }

    /// What is to be known of a name below the service's, with a note if it is anything unusual.
    fn flags(&mut self, labels: &[&[u8]]) -> u8 {
        let length: usize = labels.iter().map(|label| 1 + label.len()).sum();
        if labels.iter().any(|label| label.len() > 63) || length + self.owner.len() > MAX_NAME {
            let what = labels.iter().map(|l| String::from_utf8_lossy(l)).collect::<Vec<_>>().join(".");
            self.notes.push(Note::LongName { zone: self.zone.apex.clone(), what });
            return flag::LONG;
        }
        if self.check_static(labels) { flag::STATIC } else { 0 }
    }

    /// Whether the zone file, and not this service, says what stands at the name.
    fn check_static(&mut self, labels: &[&[u8]]) -> bool {
        if !self.zone.is_deep() {
            return false;
        }
        let name = self.name(labels);
        if self.zone.is_occluded(&name) {
            self.notes.push(Note::Occluded { name });
        } else if self.zone.has_sets(&name) {
            self.notes.push(Note::StaticWins { name });
        } else {
            return false;
        }
        true
    }

    /// The name that has these labels in front of the service's.
    fn name(&self, labels: &[&[u8]]) -> Name {
        let owner = Name::from_wire(self.owner).expect("it was written as a name");
        let child = |name: Name, label: &&[u8]| name.child(label).expect("labels and a name that fit together");
        labels.iter().rev().fold(owner, child)
    }
}

/// Each once.
fn in_order<'a>(addresses: impl Iterator<Item = &'a IpAddr>) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = addresses.copied().collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

/// What a service has in all, against what fits into a message.
#[derive(Default)]
struct Totals {
    left_out: usize,
    pods: [usize; 2],
    srv: usize,
    srv_octets: usize,
}

impl Totals {
    fn add(&mut self, published: &[IpAddr], pods: &[IpAddr], owner: &[u8], hosts: &[HostParts<'_>], share: &Share) {
        for (n, v4) in [true, false].into_iter().enumerate() {
            let of_family = |a: &&IpAddr| a.is_ipv4() == v4;
            self.left_out += published.iter().filter(of_family).count().saturating_sub(MAX_ADDRESSES);
            self.pods[n] += pods.iter().filter(of_family).count();
        }
        // SRV has 6 octets before the target; the cluster's own label is not counted.
        let one = FIXED + 6 + owner.len();
        let ports = match hosts.is_empty() {
            true => share.ports.len(),
            false => hosts.iter().map(|host| host.ports.len()).sum(),
        };
        self.srv += ports;
        self.srv_octets += ports * one;
    }

    fn left_out(&self) -> usize {
        let most = [true, false].map(most_addresses);
        let pods: usize = self.pods.iter().zip(most).map(|(n, most)| n.saturating_sub(most)).sum();
        let srv = match self.srv_octets.saturating_sub(MAX_SET) {
            0 => 0,
            beyond => beyond.div_ceil(self.srv_octets / self.srv),
        };
        self.left_out + pods + srv
    }
}
