//! What the table knows of a name, for people: why an answer is as it is. Never on a query's way.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::compose::Seen;
use super::record::{Addresses, flag};
use super::{EXTERNAL, Record, Scratch, Snapshot, Vantage, Walk, Zone, record};
use crate::load::Shedding;
use crate::model::ClusterId;
use crate::names::{Labels, Name};
use crate::ranking::{Band, Tier};
use crate::wire::Query;

/// A service's share in one cluster, from one vantage point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    pub cluster: ClusterId,
    /// By name; the configuration may be another one by now.
    pub name: String,
    /// Others than its own clients may know of it.
    pub exposed: bool,
    pub headless: bool,
    /// A ServiceImport of this cluster.
    pub import: bool,
    pub ready: bool,
    /// 0: drained.
    pub weight: u16,
    pub shedding: Shedding,
    pub tier: Tier,
    /// `None`: from here it cannot be seen.
    pub sight: Option<CandidateSight>,
}

/// What a candidate that can be seen gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CandidateSight {
    pub band: Band,
    /// Beside the others of its band.
    pub weight: u16,
    /// IPv4 first, then IPv6, in their order.
    pub addresses: Vec<IpAddr>,
    /// Names that are answered with instead of the addresses.
    pub aliases: Vec<String>,
    /// Of IPv4 and IPv6: all addresses are Down. If only some are, these are not among them.
    pub down: [bool; 2],
    /// All are suspected to be Down: behind the others of its band.
    pub suspect: bool,
    /// The cluster's API says nothing any more: behind the others of its band, too.
    pub silent: bool,
    /// Answered with, for IPv4 and for IPv6, if there is room for it.
    pub taken: [bool; 2],
}

/// A service as one vantage point sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceSight {
    /// `S.N`, as text.
    pub name: String,
    /// Seconds.
    pub ttl: u32,
    /// Which families the service has at its own name: IPv4, IPv6.
    pub families: [bool; 2],
    /// The zone file says what stands at the name, or above it.
    pub is_static: bool,
    /// By cluster.
    pub candidates: Vec<Candidate>,
}

impl Snapshot<'_> {
    /// The service at or above the name that is asked for, with all its candidates; `None`: there is none in the table.
    pub fn explain(&self, query: &Query, zone: &Zone, vantage: Vantage<'_>) -> Option<ServiceSight> {
        let depth = zone.label_count();
        if !zone.is_federation() || self.refuses(zone, vantage) || query.label_count() < depth + 2 {
            return None;
        }
        let name = query.part(depth + 2, depth);
        let record = self.service(self.hash(zone, name), zone, name)?;
        let sight = self.sight(record, zone, vantage);
        let mut scratch = Scratch::new();
        sight.gather_all(&mut scratch);
        let families = scratch.summary().families(zone.policy.families);
        let choices = [true, false].map(|v4| scratch.summary().choice(v4));
        let candidate = |candidate: record::Candidate| {
            let cluster = candidate.cluster();
            let member = &self.table.members[cluster.index()];
            let import = candidate.has(flag::IMPORT);
            let is_it = |seen: &&Seen| seen.cluster() == cluster && seen.is_import() == import;
            let seen = scratch.seen().iter().find(is_it);
            Candidate {
                cluster,
                name: member.name.to_string(),
                exposed: candidate.has(flag::EXPOSED),
                headless: candidate.has(flag::HEADLESS),
                import,
                ready: candidate.has(flag::READY),
                weight: candidate.weight(),
                shedding: candidate.shedding().most(member.shedding()),
                tier: vantage.reach[cluster.index()].tier,
                sight: seen.map(|seen| CandidateSight {
                    band: seen.standing().band,
                    weight: seen.weight(),
                    addresses: addresses(record, seen),
                    aliases: aliases(record, seen),
                    down: [seen.standing().down.ipv4, seen.standing().down.ipv6],
                    suspect: seen.is_suspect(),
                    silent: seen.is_silent(),
                    taken: [0, 1].map(|n| seen.standing().has_family(n == 0) && choices[n].takes(seen.standing())),
                }),
            }
        };
        let text = |label: &[u8]| String::from_utf8_lossy(label).into_owned();
        let is_static = match zone.walk(query, false) {
            Walk::Exact(node) => node.has_sets(),
            Walk::Cut { .. } | Walk::Dname { .. } => true,
            Walk::Encloser { .. } => false,
        };
        Some(ServiceSight {
            is_static,
            name: Labels::new(name).map(text).collect::<Vec<_>>().join("."),
            ttl: sight.ttl(),
            families: [families.0, families.1],
            candidates: record.candidates().filter(|c| c.is_for(vantage.view != EXTERNAL)).map(candidate).collect(),
        })
    }
}

/// With a final dot.
fn aliases(record: Record<'_>, seen: &Seen) -> Vec<String> {
    let names = seen.aliases().into_iter().flat_map(|end| record.aliases(end));
    names.filter_map(|name| Some(Name::from_wire(name).ok()?.to_string())).collect()
}

fn addresses(record: Record<'_>, seen: &Seen) -> Vec<IpAddr> {
    let octets = record.octets();
    let Addresses { v4, v6 } = seen.addresses();
    let v4 = v4.addresses(true).map(|at| {
        let octets: &[u8; 4] = octets[at as usize..].first_chunk().expect("the record says that it is there");
        IpAddr::from(Ipv4Addr::from(*octets))
    });
    let v6 = v6.addresses(false).map(|at| {
        let octets: &[u8; 16] = octets[at as usize..].first_chunk().expect("the record says that it is there");
        IpAddr::from(Ipv6Addr::from(*octets))
    });
    v4.chain(v6).collect()
}
