//! A record and a view → the records of one answer. Nothing is allocated: what is counted on the way stands in a
//! [`Scratch`], which each worker has once.

use super::random::Random;
use super::record::{Addresses, Candidate, Host, PortEntry, Ports, Record, Span, flag};
use super::{MAX_SET, Member, Policy};
use crate::config::MAX_CLUSTERS;
use crate::model::Protocol;
use crate::names::Labels;
use crate::ranking::{Choice, Reach, Standing, Tier, families};
use crate::wire::response::Section;
use crate::wire::{Writer, class, pointer_to, rtype};

/// Octets of a record before its RDATA, with a pointer as owner: 2 + 2 + 2 + 4 + 2.
const FIXED: usize = 12;
/// Most records of a run that is drawn by weight; a longer one is drawn as if all weighed the same.
const MAX_WEIGHED: usize = 255;
/// Most addresses of one target among the additional records.
const MAX_EXTRA: usize = 255;

/// Whose answers, by the rules of which zone.
#[derive(Clone, Copy)]
pub struct Perspective<'a> {
    /// By cluster.
    pub(super) reach: &'a [Reach],
    /// By cluster.
    pub(super) members: &'a [Member],
    pub(super) policy: &'a Policy,
}

/// A candidate that the view can see.
#[derive(Clone, Copy)]
struct Seen {
    standing: Standing,
    number: u16,
    /// Its addresses are those of its pods, which have names of their own.
    pods: bool,
    addresses: Addresses,
}

impl AsRef<Standing> for Seen {
    fn as_ref(&self) -> &Standing {
        &self.standing
    }
}

/// An address of an answer before it is written.
#[derive(Clone, Copy)]
struct Item {
    /// Where its octets stand in the record.
    at: u32,
    weight: u16,
    run: u16,
}

/// Room for what one answer is made from.
pub struct Scratch {
    seen: Vec<Seen>,
    items: Vec<Item>,
}

/// More addresses than these are in no set.
const MAX_ITEMS: usize = MAX_SET / (FIXED + 4);

impl Scratch {
    pub fn new() -> Scratch {
        Scratch { seen: Vec::with_capacity(MAX_CLUSTERS), items: Vec::with_capacity(MAX_ITEMS) }
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Scratch::new()
    }
}

/// What a service has at a name, for a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    Set(Set),
    /// The name exists, without this type. `pending`: it will get an address.
    NoData {
        pending: bool,
    },
    /// Neither the name nor anything below it.
    Missing,
}

/// An RRset that can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Set(Kind);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Addresses {
        v4: bool,
        of: Owner,
    },
    /// SRV; where a port of this name stands in the record, `None`: every port.
    Targets {
        port: Option<usize>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Service,
    /// `C.S.N.Z`: a position in `Scratch::seen`.
    Cluster(usize),
    /// `H.C.S.N.Z`: where the host stands in the record.
    Host(usize),
}

/// A record as one view sees it. What is seen stands in the scratch, so that there is one at a time.
pub struct Sight<'a> {
    record: Record<'a>,
    perspective: Perspective<'a>,
}

/// One SRV record.
struct Target<'a, 's> {
    seen: &'s Seen,
    host: Option<Host<'a>>,
    cluster: &'a [u8],
    priority: u16,
    weight: u16,
    port: u16,
}

impl Target<'_, '_> {
    /// Octets of the labels in front of `S.N.Z`.
    fn prefix_length(&self) -> usize {
        self.host.map_or(0, |host| 1 + host.label().len()) + 1 + self.cluster.len()
    }

    fn put_prefix<'o>(&self, mut out: &'o mut [u8]) -> &'o mut [u8] {
        for label in self.host.map(Host::label).into_iter().chain([self.cluster]) {
            out[0] = label.len() as u8;
            out[1..=label.len()].copy_from_slice(label);
            out = &mut out[1 + label.len()..];
        }
        out
    }
}

/// The record as the view sees it; `None`: for this view the service does not exist.
pub(super) fn look<'a>(record: Record<'a>, perspective: Perspective<'a>, scratch: &mut Scratch) -> Option<Sight<'a>> {
    scratch.seen.clear();
    for (number, candidate) in record.candidates().enumerate() {
        let reach = perspective.reach[candidate.cluster().index()];
        if !candidate.is_seen_from(reach) {
            continue;
        }
        let pods = reach.pods && candidate.has(flag::PODS);
        let addresses = if pods {
            candidate.pods().addresses()
        } else if reach.pods && candidate.has(flag::HEADLESS) {
            Addresses::default()
        } else if reach.tier == Tier::OwnCluster {
            candidate.cluster_ips()
        } else {
            candidate.ingress()
        };
        scratch.seen.push(Seen {
            standing: Standing {
                tier: reach.tier,
                ready: pods || candidate.has(flag::READY),
                ipv4: addresses.v4.count > 0,
                ipv6: addresses.v6.count > 0,
            },
            number: number as u16,
            pods,
            addresses,
        });
    }
    (!scratch.seen.is_empty()).then_some(Sight { record, perspective })
}

impl<'a> Sight<'a> {
    fn candidate(&self, seen: &Seen) -> Candidate<'a> {
        self.record.candidate(usize::from(seen.number))
    }

    fn cluster_name(&self, candidate: Candidate<'_>) -> &'a [u8] {
        self.perspective.members[candidate.cluster().index()].name.as_bytes()
    }

    /// The port lists behind a candidate: its pods' where it is pods, else that of the Service.
    fn port_lists(&self, seen: &Seen) -> impl Iterator<Item = (Option<Host<'a>>, Ports<'a>)> + use<'a> {
        let candidate = self.candidate(seen);
        let hosts = seen.pods.then(|| candidate.pods().hosts()).into_iter().flatten();
        let own = (!seen.pods).then(|| (None, candidate.ports()));
        own.into_iter().chain(hosts.map(|host| (Some(host), host.ports())))
    }

    /// `prefix`: the labels in front of `S.N.Z`. `any`: the first set will do (RFC 8482).
    pub fn find(&self, prefix: &[u8], qtype: u16, any: bool, scratch: &Scratch) -> Found {
        let mut labels = Labels::new(prefix);
        match (labels.next(), labels.next(), labels.next()) {
            (None, _, _) => self.find_service(qtype, any, scratch),
            (Some(only), None, _) => match protocol(only) {
                Some(protocol) => {
                    let named = |port: &PortEntry<'_>| port.has_name() && port.protocol() == protocol;
                    match self.find_port(named, scratch) {
                        Some(_) => Found::NoData { pending: false },
                        None => Found::Missing,
                    }
                }
                None => match self.find_cluster(only, scratch) {
                    Some(at) => addresses(scratch.seen[at].addresses, Owner::Cluster(at), qtype, any),
                    None => Found::Missing,
                },
            },
            (Some(first), Some(last), None) => match protocol(last) {
                Some(protocol) => self.find_named_port(first, protocol, qtype, any, scratch),
                None => {
                    let host = self.find_cluster(last, scratch).and_then(|at| {
                        let seen = &scratch.seen[at];
                        if seen.pods { self.candidate(seen).pods().host(first) } else { None }
                    });
                    match host.filter(|host| !host.has(flag::LONG)) {
                        Some(host) => addresses(host.addresses(), Owner::Host(host.at), qtype, any),
                        None => Found::Missing,
                    }
                }
            },
            (Some(_), Some(_), Some(_)) => Found::Missing,
        }
    }

    fn find_service(&self, qtype: u16, any: bool, scratch: &Scratch) -> Found {
        let (ipv4, ipv6) = families(&scratch.seen, self.perspective.policy.families);
        let of = Owner::Service;
        let targets = Kind::Targets { port: None };
        if ipv4 && (qtype == rtype::A || any) {
            Found::Set(Set(Kind::Addresses { v4: true, of }))
        } else if ipv6 && (qtype == rtype::AAAA || any) {
            Found::Set(Set(Kind::Addresses { v4: false, of }))
        } else if (qtype == rtype::SRV || any) && self.has_target(None, scratch) {
            Found::Set(Set(targets))
        } else {
            Found::NoData { pending: !ipv4 && !ipv6 }
        }
    }

    fn find_named_port(&self, label: &[u8], protocol: Protocol, qtype: u16, any: bool, scratch: &Scratch) -> Found {
        let Some(name) = label.strip_prefix(b"_").filter(|name| !name.is_empty()) else { return Found::Missing };
        let named = |port: &PortEntry<'_>| port.name == name && port.protocol() == protocol;
        let Some(port) = self.find_port(named, scratch) else { return Found::Missing };
        match self.has_target(Some(port), scratch) {
            true if qtype == rtype::SRV || any => Found::Set(Set(Kind::Targets { port: Some(port.at) })),
            targets => Found::NoData { pending: !targets },
        }
    }

    fn find_port(&self, is: impl Fn(&PortEntry<'_>) -> bool, scratch: &Scratch) -> Option<PortEntry<'a>> {
        let mut lists = scratch.seen.iter().flat_map(|seen| self.port_lists(seen));
        lists.find_map(|(_, list)| list.into_iter().find(&is))
    }

    fn find_cluster(&self, name: &[u8], scratch: &Scratch) -> Option<usize> {
        scratch.seen.iter().position(|seen| {
            let candidate = self.candidate(seen);
            self.cluster_name(candidate) == name && !candidate.has(flag::LONG)
        })
    }

    fn has_target(&self, port: Option<PortEntry<'_>>, scratch: &Scratch) -> bool {
        let mut has = false;
        self.targets(port, scratch, |_| {
            has = true;
            false
        });
        has
    }

    /// Calls `each` for the SRV records of the chosen candidates for that port, the best first, until it says false.
    fn targets(&self, port: Option<PortEntry<'_>>, scratch: &Scratch, mut each: impl FnMut(&Target<'a, '_>) -> bool) {
        let wanted = |candidate: &PortEntry<'_>| match &port {
            None => !candidate.repeats_number(),
            Some(port) => candidate.is_named_like(port) && !candidate.repeats(),
        };
        let has = |seen: &Seen| self.port_lists(seen).any(|(_, list)| list.into_iter().any(|p| wanted(&p)));
        let choice = Choice::among(&scratch.seen, has);
        let mut priority = 0;
        for tier in Tier::ALL {
            let mut empty = true;
            for seen in in_tier(&scratch.seen, tier, choice) {
                empty = false;
                let candidate = self.candidate(seen);
                // A name that is too long for a cluster is too long for its hosts.
                if candidate.has(flag::LONG) {
                    continue;
                }
                let (cluster, weight) = (self.cluster_name(candidate), candidate.weight());
                for (host, list) in self.port_lists(seen) {
                    if host.is_some_and(|host| host.has(flag::LONG)) {
                        continue;
                    }
                    for port in list.into_iter().filter(wanted) {
                        if !each(&Target { seen, host, cluster, priority, weight, port: port.number }) {
                            return;
                        }
                    }
                }
            }
            if !empty {
                priority += 10;
            }
        }
    }

    /// Writes a set that [`find`](Sight::find) gave into the answer section, owned by the name at `owner` of the message;
    /// false: no room, nothing was written.
    #[must_use]
    pub fn write(
        &self,
        set: Set,
        writer: &mut Writer<'_>,
        owner: usize,
        scratch: &mut Scratch,
        random: &mut Random,
    ) -> bool {
        match set.0 {
            Kind::Addresses { v4, of } => {
                let limit = self.collect(v4, of, scratch);
                self.write_addresses(v4, limit, writer, owner, scratch, random)
            }
            Kind::Targets { port } => self.write_targets(port, writer, owner, scratch),
        }
    }

    /// Puts the addresses of a set into `items`, run by run; returns how many of them may be in an answer.
    fn collect(&self, v4: bool, of: Owner, scratch: &mut Scratch) -> usize {
        let Scratch { seen, items } = scratch;
        items.clear();
        let limit = usize::from(self.perspective.policy.max_answers);
        let most = if v4 { MAX_SET / (FIXED + 4) } else { MAX_SET / (FIXED + 16) };
        let mut push_all = |span: Span| {
            items.extend(span.addresses(v4).take(most).map(|at| Item { at: at as u32, weight: 1, run: 0 }));
        };
        match of {
            Owner::Service => self.collect_bands(v4, seen, items, limit, most),
            Owner::Cluster(at) => {
                push_all(seen[at].addresses.of(v4));
                if seen[at].pods { most } else { limit }
            }
            // Pods are not cut: every one of them may hold a part of the data.
            Owner::Host(at) => {
                push_all(self.record.host(at).addresses().of(v4));
                most
            }
        }
    }

    /// Band by band, in a band all first addresses before all second ones. An address that several clusters give is one
    /// record at its best rank, with the weights added.
    fn collect_bands(&self, v4: bool, seen: &[Seen], items: &mut Vec<Item>, limit: usize, most: usize) -> usize {
        let choice = Choice::among(seen, |s| s.standing.has_family(v4));
        let headless = seen.iter().any(|s| s.pods && choice.takes(&s.standing));
        let limit = if headless { most } else { limit };
        let merge = self.record.shares_addresses();
        let mut run = 0;
        for tier in Tier::ALL {
            let band = || in_tier(seen, tier, choice);
            let depth = band().map(|s| s.addresses.of(v4).count).max().unwrap_or(0);
            // The pods of a headless share are one run: none of them is a cluster's second choice.
            let one_run = band().any(|s| s.pods);
            for row in 0..depth {
                for s in band() {
                    let span = s.addresses.of(v4);
                    if row >= span.count {
                        continue;
                    }
                    let at = span.address(row, v4);
                    let weight = self.candidate(s).weight();
                    if merge && let Some(known) = self.same_address(items, at, v4) {
                        known.weight = known.weight.saturating_add(weight);
                    } else if items.len() < most {
                        items.push(Item { at: at as u32, weight, run });
                    }
                }
                run += u16::from(!one_run);
                // No later run is in the answer.
                if items.len() >= limit && !merge && !one_run {
                    return limit;
                }
            }
            run += 1;
        }
        limit
    }

    fn same_address<'i>(&self, items: &'i mut [Item], at: usize, v4: bool) -> Option<&'i mut Item> {
        let size = if v4 { 4 } else { 16 };
        let octets = self.record.octets();
        items.iter_mut().find(|item| octets[item.at as usize..][..size] == octets[at..at + size])
    }

    /// Draws the order inside each run while it writes.
    fn write_addresses(
        &self,
        v4: bool,
        limit: usize,
        writer: &mut Writer<'_>,
        owner: usize,
        scratch: &mut Scratch,
        random: &mut Random,
    ) -> bool {
        let items = &mut scratch.items;
        let count = items.len().min(limit);
        let size = if v4 { FIXED + 4 } else { FIXED + 16 };
        let Some(target) = writer.reserve_records(Section::Answer, count * size, count as u16) else { return false };
        let fixed = fixed(
            pointer_to(owner),
            if v4 { rtype::A } else { rtype::AAAA },
            self.perspective.policy.ttl,
            (size - FIXED) as u16,
        );
        let octets = self.record.octets();
        let mut out = target.chunks_exact_mut(size);
        for run in items.chunk_by_mut(|a, b| a.run == b.run) {
            let by_weight = run.len() <= MAX_WEIGHED && run.iter().any(|item| item.weight != run[0].weight);
            for i in 0..run.len() {
                let left = run.len() - i;
                if left > 1 {
                    let j = match by_weight {
                        true => draw_weighted(&run[i..], random),
                        false => random.below(left as u32) as usize,
                    };
                    run.swap(i, i + j);
                }
                let Some(block) = out.next() else { return true };
                let at = run[i].at as usize;
                // Two lengths that are known: a copy is one move.
                match v4 {
                    true => put_block::<4>(block, &fixed, &octets[at..at + 4]),
                    false => put_block::<16>(block, &fixed, &octets[at..at + 16]),
                }
            }
        }
        true
    }

    fn write_targets(&self, port: Option<usize>, writer: &mut Writer<'_>, owner: usize, scratch: &Scratch) -> bool {
        let port = port.map(|at| self.record.port(at));
        let name = self.record.name();
        let (mut length, mut count) = (0, 0);
        self.targets(port, scratch, |target| {
            let more = FIXED + 6 + target.prefix_length() + name.len();
            if length + more > MAX_SET {
                return false;
            }
            length += more;
            count += 1;
            true
        });
        let Some(mut out) = writer.reserve_records(Section::Answer, length, count) else { return false };
        let ttl = self.perspective.policy.ttl;
        let owner = pointer_to(owner);
        self.targets(port, scratch, |target| {
            if count == 0 {
                return false;
            }
            count -= 1;
            let rdata = 6 + target.prefix_length() + name.len();
            let (record, rest) = std::mem::take(&mut out).split_at_mut(FIXED + rdata);
            out = rest;
            record[..FIXED].copy_from_slice(&fixed(owner, rtype::SRV, ttl, rdata as u16));
            record[12..14].copy_from_slice(&target.priority.to_be_bytes());
            record[14..16].copy_from_slice(&target.weight.to_be_bytes());
            record[16..18].copy_from_slice(&target.port.to_be_bytes());
            // A target is not compressed (RFC 2782).
            target.put_prefix(&mut record[18..]).copy_from_slice(name);
            true
        });
        true
    }

    /// The addresses of an SRV set's targets, set by set while there is room (RFC 2782); what does not fit is left out.
    /// Only behind a question whose name has `S.N.Z` at `service` of the message.
    pub fn write_extra(&self, set: Set, writer: &mut Writer<'_>, service: usize, scratch: &Scratch) {
        let Kind::Targets { port } = set.0 else { return };
        let port = port.map(|at| self.record.port(at));
        let name = pointer_to(service);
        let ttl = self.perspective.policy.ttl;
        let octets = self.record.octets();
        // The targets of one host or cluster come one after the other.
        let mut before = None;
        self.targets(port, scratch, |target| {
            let here = (target.seen.number, target.host.map(|host| host.at));
            if before.replace(here) == Some(here) {
                return true;
            }
            let (addresses, is_static) = match target.host {
                Some(host) => (host.addresses(), host.has(flag::STATIC)),
                None => (target.seen.addresses, self.candidate(target.seen).has(flag::STATIC)),
            };
            if is_static {
                return true;
            }
            let prefix = target.prefix_length();
            for v4 in [true, false] {
                let (size, rtype) = if v4 { (4, rtype::A) } else { (16, rtype::AAAA) };
                let span = addresses.of(v4);
                let count = span.count.min(MAX_EXTRA);
                if count == 0 {
                    continue;
                }
                let length = count * (prefix + FIXED + size);
                let Some(mut out) = writer.reserve_records(Section::Additional, length, count as u16) else {
                    return false;
                };
                let fixed = fixed(name, rtype, ttl, size as u16);
                for at in span.addresses(v4).take(count) {
                    out = target.put_prefix(out);
                    let (block, rest) = out.split_at_mut(FIXED + size);
                    block[..FIXED].copy_from_slice(&fixed);
                    block[FIXED..].copy_from_slice(&octets[at..at + size]);
                    out = rest;
                }
            }
            true
        });
    }
}

fn in_tier(seen: &[Seen], tier: Tier, choice: Choice) -> impl Iterator<Item = &Seen> {
    seen.iter().filter(move |s| s.standing.tier == tier && choice.takes(&s.standing))
}

/// The set of one type among the addresses of a cluster or a host.
fn addresses(addresses: Addresses, of: Owner, qtype: u16, any: bool) -> Found {
    for (v4, rtype) in [(true, rtype::A), (false, rtype::AAAA)] {
        if addresses.of(v4).count > 0 && (qtype == rtype || any) {
            return Found::Set(Set(Kind::Addresses { v4, of }));
        }
    }
    Found::NoData { pending: addresses.is_empty() }
}

fn protocol(label: &[u8]) -> Option<Protocol> {
    [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].into_iter().find(|p| p.label().as_bytes() == label)
}

/// What stands in front of a record's RDATA; `owner` is a pointer.
fn fixed(owner: [u8; 2], rtype: u16, ttl: u32, rdata: u16) -> [u8; FIXED] {
    let mut fixed = [0; FIXED];
    fixed[..2].copy_from_slice(&owner);
    fixed[2..4].copy_from_slice(&rtype.to_be_bytes());
    fixed[4..6].copy_from_slice(&class::IN.to_be_bytes());
    fixed[6..10].copy_from_slice(&ttl.to_be_bytes());
    fixed[10..].copy_from_slice(&rdata.to_be_bytes());
    fixed
}

fn put_block<const N: usize>(block: &mut [u8], fixed: &[u8; FIXED], address: &[u8]) {
    let (head, rdata) = block.split_at_mut(FIXED);
    head.copy_from_slice(fixed);
    rdata[..N].copy_from_slice(&address[..N]);
}

/// An index into `items`, with a probability in proportion to the weight.
fn draw_weighted(items: &[Item], random: &mut Random) -> usize {
    let total: u32 = items.iter().map(|item| u32::from(item.weight)).sum();
    let mut ticket = random.below(total.max(1));
    for (i, item) in items.iter().enumerate() {
        match ticket.checked_sub(u32::from(item.weight)) {
            Some(rest) => ticket = rest,
            None => return i,
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weighted_draws_follow_the_weights() {
        let mut random = Random::new(7);
        let mut hits = [0u32; 3];
        let items = [100, 200, 300].map(|weight| Item { at: 0, weight, run: 0 });
        for _ in 0..60_000 {
            hits[draw_weighted(&items, &mut random)] += 1;
        }
        // Five standard deviations of a binomial with n = 60,000 are below 620.
        for (hit, expected) in hits.iter().zip([10_000u32, 20_000, 30_000]) {
            assert!(hit.abs_diff(expected) < 620, "{hits:?}");
        }
    }
}
