//! A zone's static data, laid out like everything else that is answered with.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU8, Ordering};

use foldhash::quality::FixedState;

use super::FIXED;
use super::map::Key;
use super::ready::{Builder, Group, RrSets, put_record};
use crate::config::{self, Families, Hostnames, Schema};
use crate::names::{Name, is_same, split_name};
use crate::ranking::Cut;
use crate::wire::{Query, rtype};
use crate::zonefile::{RrSet, ZoneData};

/// What the configuration says of a zone's services.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    pub ttl: u32,
    /// Of answers to clients outside, and inside a cluster.
    pub external: Cut,
    pub internal: Cut,
    pub families: Families,
    pub hostnames: Hostnames,
}

pub struct Zone {
    /// Its position in the table's zones, of which there are at most 256.
    pub(super) number: u8,
    /// Its position in the configuration's zones.
    pub(super) place: usize,
    /// What counts its answers: see [`Publisher::label_zones`](super::Publisher::label_zones).
    label: AtomicU8,
    pub(super) apex: Name,
    labels: usize,
    /// As the configuration names it; [`apex`](Zone::apex) may be below that.
    name: Name,
    names: Names,
    pub(super) policy: Policy,
    nodes: HashMap<Box<[u8]>, Node, FixedState>,
    /// For negative answers.
    soa: NegativeSoa,
    nodata_ttl: u32,
    nxdomain_ttl: u32,
    deep: bool,
    wildcards: bool,
}

/// Which names of services are below a zone's apex.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Names {
    None,
    Federation,
    /// None here; a part of the MCS schema that is not for clients outside either.
    McsTop,
    /// What is below `svc` in a zone of the schema `mcs`. The table has it as a zone of its own, whose
    /// negative answers are those of the zone that it is a part of.
    Mcs,
}

/// The label above all services in a zone of the schema `mcs`.
const SVC: &[u8] = b"svc";
/// MCS DNS specification, section 2.2.
const DNS_VERSION: &[u8] = b"dns-version";
const SCHEMA_VERSION: &[u8] = b"\x051.0.0";
const SCHEMA_VERSION_TTL: u32 = 28_800;

/// A zone's SOA record as negative answers carry it: its names end in pointers to the zone's name in the question, as its
/// owner is one (RFC 1035 section 4.1.4).
pub struct NegativeSoa {
    octets: Box<[u8]>,
    /// Where pointers stand, the owner first; one that is not needed is the owner once more.
    pointers: [usize; 3],
}

impl NegativeSoa {
    /// Where the TTL stands: behind owner, type and class.
    const TTL: usize = 6;

    fn new(apex: &Name, rdata: &[u8]) -> NegativeSoa {
        let mut short = Vec::with_capacity(rdata.len());
        let mut pointers = [0; 3];
        let mut rest = rdata;
        for pointer in &mut pointers[1..] {
            let (name, others) = split_name(rest).expect("the data of an SOA record begins with two names");
            rest = others;
            // A pointer to the root would be longer than the root.
            if apex.label_count() > 0 && Name::from_wire(name).is_ok_and(|name| name.is_at_or_below(apex)) {
                short.extend_from_slice(&name[..name.len() - apex.as_wire().len()]);
                *pointer = FIXED + short.len();
                short.extend_from_slice(&[0; 2]);
            } else {
                short.extend_from_slice(name);
            }
        }
        short.extend_from_slice(rest);
        let mut octets = vec![0; 2];
        put_record(&mut octets, rtype::SOA, 0, &short);
        NegativeSoa { octets: octets.into(), pointers }
    }

    #[inline]
    pub fn octet_count(&self) -> usize {
        self.octets.len()
    }

    /// `target` has room for the record, `zone` points to the zone's name.
    pub fn write(&self, target: &mut [u8], zone: [u8; 2], ttl: u32) {
        target.copy_from_slice(&self.octets);
        for at in self.pointers {
            target[at..at + 2].copy_from_slice(&zone);
        }
        target[NegativeSoa::TTL..NegativeSoa::TTL + 4].copy_from_slice(&ttl.to_be_bytes());
    }
}

/// A name of the zone file, or an empty non-terminal above one.
#[derive(Default)]
pub struct Node {
    pub sets: RrSets,
    kind: Kind,
    /// A child `*` exists.
    wildcard: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Kind {
    #[default]
    Plain,
    /// An NS set below the apex: what is below belongs to somebody else.
    Cut { mandatory_glue: bool },
    /// RFC 6672: what is below is elsewhere.
    Dname,
}

/// Where a walk from the apex towards a name ends (RFC 1034 section 4.3.2 step 3).
pub enum Walk<'a> {
    /// At the name itself.
    Exact(&'a Node),
    /// At a delegation, which has this many labels.
    Cut { node: &'a Node, labels: usize, mandatory_glue: bool },
    /// At a DNAME above the name.
    Dname { node: &'a Node, labels: usize },
    /// At the closest encloser among the static names.
    Encloser { labels: usize },
}

impl Node {
    pub fn has_sets(&self) -> bool {
        !self.sets.is_empty()
    }
}

impl Zone {
    pub fn label(&self) -> u8 {
        self.label.load(Ordering::Relaxed)
    }

    pub(super) fn set_label(&self, label: u8) {
        self.label.store(label, Ordering::Relaxed);
    }

    /// What the table has of a zone, one or two of them. `place`: its position in the configuration.
    pub(super) fn all_of(place: usize, config: &config::Zone, data: &ZoneData, seed: u64) -> Vec<Zone> {
        let new = |names, apex: &Name| Zone::new(place, config, data, seed, names, apex);
        match config.schema {
            Schema::Federation => vec![new(Names::Federation, &config.name)],
            Schema::Static => vec![new(Names::None, &config.name)],
            Schema::Mcs => {
                let mut top = new(Names::McsTop, &config.name);
                // Config::load leaves room for these labels.
                let child =
                    |label| config.name.child(label).expect("a short label in front of a name that is not too long");
                let services = child(SVC);
                top.nodes.entry(services.as_wire().into()).or_default();
                let version = child(DNS_VERSION);
                if !top.has_sets(&version) {
                    let rdatas = vec![SCHEMA_VERSION.to_vec()];
                    let set = RrSet { rtype: rtype::TXT, ttl: SCHEMA_VERSION_TTL, rdatas };
                    top.add(&version, &[set], data, &[]);
                }
                vec![top, new(Names::Mcs, &services)]
            }
        }
    }

    fn new(place: usize, config: &config::Zone, data: &ZoneData, seed: u64, names: Names, apex: &Name) -> Zone {
        let (nodata_ttl, nxdomain_ttl, minimum) = match config.schema {
            // RFC 2308 section 5: a resolver takes the lower of the SOA's TTL and its MINIMUM, so that MINIMUM must
            // not be below either of the two.
            Schema::Federation | Schema::Mcs => (config.ttl, config.negative_ttl, config.ttl.max(config.negative_ttl)),
            Schema::Static => {
                let lower = data.soa.ttl.min(data.soa.minimum);
                (lower, lower, data.soa.minimum)
            }
        };
        let mut soa_rdata = data.soa.rdata.clone();
        let minimum_at = soa_rdata.len() - 4;
        soa_rdata[minimum_at..].copy_from_slice(&minimum.to_be_bytes());
        let soa = NegativeSoa::new(&config.name, &soa_rdata);

        let labels = apex.label_count();
        let mut zone = Zone {
            number: 0,
            place,
            label: AtomicU8::new(0),
            apex: apex.clone(),
            labels,
            name: config.name.clone(),
            names,
            policy: Policy {
                ttl: config.ttl,
                external: Cut { mode: config.external_mode, most: config.max_answers },
                internal: Cut { mode: config.internal_mode, most: config.max_answers },
                families: config.families,
                hostnames: config.hostnames,
            },
            nodes: HashMap::with_hasher(FixedState::with_seed(seed)),
            soa,
            nodata_ttl,
            nxdomain_ttl,
            deep: false,
            wildcards: false,
        };
        // It is there whatever is below it.
        zone.nodes.entry(apex.as_wire().into()).or_default();
        for (owner, sets) in data.sets.iter().filter(|(owner, _)| owner.is_at_or_below(apex)) {
            zone.add(owner, sets, data, &soa_rdata);
        }
        zone
    }

    fn add(&mut self, owner: &Name, sets: &[RrSet], data: &ZoneData, soa_rdata: &[u8]) {
        let mut builder = Builder::default();
        let mut kind = Kind::Plain;
        for set in sets {
            let soa = [soa_rdata.to_vec()];
            let rdatas = if set.rtype == rtype::SOA { &soa[..] } else { &set.rdatas[..] };
            let extra = glue(set, data);
            let left_out = builder.add(set.rtype, set.ttl, rdatas, &extra);
            debug_assert_eq!(left_out, 0, "zonefile refuses sets that fit no message");
            if set.rtype == rtype::NS && *owner != self.name {
                let below = |target: &Name| target.is_at_or_below(owner);
                kind = Kind::Cut { mandatory_glue: targets(set).iter().any(below) };
            } else if set.rtype == rtype::DNAME {
                kind = Kind::Dname;
            }
        }
        let depth = owner.label_count() - self.labels;
        let wildcard = owner.labels().next() == Some(b"*") && depth > 0;
        self.wildcards |= wildcard;
        self.deep |= depth >= 2 || kind != Kind::Plain;
        let node = self.nodes.entry(owner.as_wire().into()).or_default();
        node.sets = builder.finish();
        node.kind = kind;
        // Names above it exist (RFC 8020).
        let mut name = owner.clone();
        let mut first = true;
        while name != self.apex {
            name = name.parent().expect("an owner is at or below the apex");
            let node = self.nodes.entry(name.as_wire().into()).or_default();
            node.wildcard |= first && wildcard;
            first = false;
        }
    }

    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Labels of the name that owns the SOA record.
    pub fn soa_label_count(&self) -> usize {
        self.name.label_count()
    }

    /// Whether clients outside are refused.
    pub fn is_for_insiders(&self) -> bool {
        matches!(self.names, Names::McsTop | Names::Mcs)
    }

    #[inline]
    pub(super) fn is_mcs(&self) -> bool {
        self.names == Names::Mcs
    }

    #[inline]
    pub fn label_count(&self) -> usize {
        self.labels
    }

    /// Of a name in wire form that is below the apex.
    pub(super) fn key<'n>(&self, name: &'n [u8]) -> Key<'n> {
        Key { zone: self.number, name: &name[..name.len() - self.apex.as_wire().len()] }
    }

    /// Whether the name is the zone's apex or below it.
    #[inline]
    pub(super) fn holds(&self, query: &Query) -> bool {
        self.labels <= query.label_count() && is_same(query.suffix(self.labels), self.apex.as_wire())
    }

    pub fn apex(&self) -> &Name {
        &self.apex
    }

    /// Whether services have names in this zone.
    #[inline]
    pub fn is_federation(&self) -> bool {
        matches!(self.names, Names::Federation | Names::Mcs)
    }

    /// Whether nothing but a service's entry decides about `S.N.Z` where there is one.
    #[inline]
    pub fn has_service_names_alone(&self) -> bool {
        self.names == Names::Federation && !self.deep
    }

    /// Whether static data can stand at or above a service's name.
    pub fn is_deep(&self) -> bool {
        self.deep
    }

    #[inline]
    pub fn has_wildcards(&self) -> bool {
        self.wildcards
    }

    #[inline]
    pub fn nodata_ttl(&self) -> u32 {
        self.nodata_ttl
    }

    #[inline]
    pub fn nxdomain_ttl(&self) -> u32 {
        self.nxdomain_ttl
    }

    #[inline]
    pub fn soa(&self) -> &NegativeSoa {
        &self.soa
    }

    /// Walks down from the apex. `at_parent`: the type belongs to the parent's side of a cut (DS).
    pub fn walk(&self, query: &Query, at_parent: bool) -> Walk<'_> {
        let count = query.label_count();
        let mut found = None;
        for labels in self.labels..=count {
            let Some(node) = self.nodes.get(query.suffix(labels)) else {
                return Walk::Encloser { labels: labels.saturating_sub(1).max(self.labels) };
            };
            match node.kind {
                Kind::Cut { mandatory_glue } if !(at_parent && labels == count) => {
                    return Walk::Cut { node, labels, mandatory_glue };
                }
                Kind::Dname if labels < count => return Walk::Dname { node, labels },
                Kind::Plain | Kind::Cut { .. } | Kind::Dname => {}
            }
            found = Some(node);
        }
        found.map_or(Walk::Encloser { labels: self.labels }, Walk::Exact)
    }

    /// The wildcard right below the closest encloser (RFC 4592 section 3.3.1).
    pub fn wildcard(&self, query: &Query, encloser_labels: usize) -> Option<&Node> {
        let encloser = query.suffix(encloser_labels);
        if !self.nodes.get(encloser)?.wildcard {
            return None;
        }
        let mut name = [0u8; crate::names::MAX_NAME];
        name[..2].copy_from_slice(b"\x01*");
        let target = name.get_mut(2..2 + encloser.len())?;
        target.copy_from_slice(encloser);
        self.nodes.get(&name[..2 + encloser.len()])
    }

    /// Whether a cut stands at or above `name`, or a DNAME above it.
    pub(super) fn is_occluded(&self, name: &Name) -> bool {
        if !self.deep {
            return false;
        }
        let mut above = Some(name.clone());
        while let Some(here) = above.filter(|n| n.is_at_or_below(&self.apex)) {
            let kind = self.nodes.get(here.as_wire()).map_or(Kind::Plain, |node| node.kind);
            match kind {
                Kind::Cut { .. } => return true,
                Kind::Dname if here != *name => return true,
                Kind::Dname | Kind::Plain => {}
            }
            above = here.parent();
        }
        false
    }

    pub(super) fn has_sets(&self, name: &Name) -> bool {
        self.nodes.get(name.as_wire()).is_some_and(Node::has_sets)
    }
}

/// The names that NS or SRV records point to.
fn targets(set: &RrSet) -> Vec<Name> {
    let skip = match set.rtype {
        rtype::NS => 0,
        rtype::SRV => 6,
        _ => return Vec::new(),
    };
    set.rdatas.iter().filter_map(|rdata| Name::from_wire(rdata.get(skip..)?).ok()).collect()
}

/// The addresses that the zone itself has for a set's targets.
fn glue(set: &RrSet, data: &ZoneData) -> Vec<Group> {
    let mut groups = Vec::new();
    for target in targets(set) {
        for (rtype, v4) in [(rtype::A, true), (rtype::AAAA, false)] {
            let Some(set) = data.set(&target, rtype) else { continue };
            let addresses: Vec<IpAddr> = set.rdatas.iter().filter_map(|rdata| address(rdata)).collect();
            groups.extend(Group::addresses(target.as_wire(), &addresses, v4, set.ttl));
        }
    }
    groups
}

fn address(rdata: &[u8]) -> Option<IpAddr> {
    match rdata.len() {
        4 => <[u8; 4]>::try_from(rdata).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(rdata).ok().map(IpAddr::from),
        _ => None,
    }
}
