//! A record and a view → the records of one answer. Nothing is allocated: what is counted on the way stands in a
//! [`Scratch`], which each worker has once.

mod alias;
mod sticky;
mod targets;
mod uniform;
mod why;

use std::num::NonZero;

use super::random::{Draws, Random};
use super::ready::fixed;
use super::record::{Addresses, Health, Host, PortEntry, Ports, Record, address_size, flag};
use super::{FIXED, MIN_TTL, Member, most_addresses};
use crate::config::{Families, MAX_CLUSTERS};
use crate::load::Shedding;
use crate::model::{ClusterId, Protocol};
use crate::names::Labels;
use crate::ranking::{Band, Choice, Cut, Reach, Standing, Summary, Tier};
use crate::wire::response::Section;
use crate::wire::{Writer, pointer_to, rtype};
pub use alias::Chance;
pub use sticky::client_number;
use targets::{PortsAt, Wanted};
pub use why::EXPLAIN;

/// Most records of a run that is drawn by weight; a longer one is drawn as if all weighed the same.
const MAX_WEIGHED: usize = 255;

/// Whose answers, by the rules of which zone.
#[derive(Clone, Copy)]
pub struct Perspective<'a> {
    /// By cluster.
    pub(super) reach: &'a [Reach],
    /// By cluster.
    pub(super) members: &'a [Member],
    /// No cluster as a whole sheds traffic or is silent.
    pub(super) calm: bool,
    pub(super) families: Families,
    /// Seconds.
    pub(super) ttl: u32,
    pub(super) cut: Cut,
    /// For clients inside of a cluster.
    pub(super) inside: bool,
    /// The names are those of the MCS DNS specification.
    pub(super) mcs: bool,
    /// The zone's name in wire form.
    pub(super) apex: &'a [u8],
}

/// A candidate that the view can see.
#[derive(Clone, Copy)]
pub(super) struct Seen {
    standing: Standing,
    cluster: ClusterId,
    weight: u16,
    shedding: Shedding,
    flags: u8,
    /// Where its port list stands.
    ports: u32,
    /// Where its pods stand: its addresses are theirs, and they have names of their own.
    pods: Option<NonZero<u32>>,
    addresses: Addresses,
    /// How many of the last addresses of each family are Suspect.
    suspect: [u8; 2],
    /// Its cluster's API says nothing any more.
    silent: bool,
    /// Where its aliases end, which stand for it instead of its addresses.
    aliases: Option<NonZero<u32>>,
}

impl Seen {
    fn suspect(&self, v4: bool) -> u32 {
        u32::from(self.suspect[usize::from(!v4)])
    }

    /// The first so many of its addresses are not Suspect.
    fn firm(&self, v4: bool) -> u32 {
        self.addresses.of(v4).count - self.suspect(v4)
    }

    /// This family is Down, and the other one is there and not.
    fn is_worse(&self, v4: bool) -> bool {
        let Standing { ipv4, ipv6, down, .. } = self.standing;
        if v4 { down.ipv4 && ipv6 && !down.ipv6 } else { down.ipv6 && ipv4 && !down.ipv4 }
    }

    /// All its addresses are Suspect.
    pub fn is_suspect(&self) -> bool {
        self.suspect != [0; 2] && [true, false].into_iter().all(|v4| self.firm(v4) == 0)
    }

    pub fn is_silent(&self) -> bool {
        self.silent
    }

    /// How far behind the others of its band: what is Suspect, then what is of a silent cluster, then what is both.
    fn step(&self) -> u8 {
        (u8::from(self.is_suspect()) * SUSPECT_STEP) | (u8::from(self.silent) * SILENT_STEP)
    }

    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    pub fn is_import(&self) -> bool {
        self.has(flag::IMPORT)
    }

    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    pub fn weight(&self) -> u16 {
        self.weight
    }

    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    pub fn aliases(&self) -> Option<NonZero<u32>> {
        self.aliases
    }
}

/// In a band, candidates come step by step. The steps are the sums of these.
const SUSPECT_STEP: u8 = 1;
const SILENT_STEP: u8 = 2;

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
    summary: Summary,
    /// At most one address of a family from each candidate, none from two, no pods, and one [step](Seen::step) in each band.
    plain: bool,
    /// No address is on a later one. Almost always the first one, 0.
    last_step: u8,
    /// A candidate has aliases.
    aliased: bool,
    items: Vec<Item>,
}

impl Scratch {
    pub fn new() -> Scratch {
        Scratch {
            seen: Vec::with_capacity(MAX_CLUSTERS),
            summary: Summary::default(),
            plain: false,
            last_step: 0,
            aliased: false,
            items: Vec::with_capacity(most_addresses(true)),
        }
    }
}

impl Scratch {
    pub(super) fn seen(&self) -> &[Seen] {
        &self.seen
    }

    pub(super) fn summary(&self) -> Summary {
        self.summary
    }

    /// Puts the second band before the best one, in that share of the answers in which the load of the best one asks for it.
    /// As long as one of its candidates is not loaded, it goes there first. `takes`: who is in the answer.
    #[inline]
    fn exchange_bands(&mut self, random: &mut Random, takes: impl Fn(&Seen) -> bool) {
        if self.summary.is_loaded() {
            let Scratch { seen, summary, .. } = self;
            let takes = &takes;
            let inside = |band: Band| seen.iter().filter(move |s| s.standing.band == band && takes(s));
            let mut bands = summary.bands().filter(|band| inside(*band).next().is_some());
            if let (Some(best), Some(next)) = (bands.next(), bands.next()) {
                let share = inside(best).map(|s| s.shedding.share).min().unwrap_or(0);
                if random.below(255) < u32::from(share) {
                    summary.exchange(best, next);
                }
            }
        }
    }
}

/// Bands and weights by load, which is ignored where all are overloaded. For some services only.
#[cold]
fn shed(seen: &mut [Seen], summary: &mut Summary) {
    let with_address = || seen.iter().filter(|s| s.standing.has_address());
    if with_address().all(|s| s.shedding.overloaded) {
        seen.iter_mut().for_each(|s| s.shedding = Shedding::default());
        return;
    }
    summary.clear_bands();
    for s in seen {
        s.standing.band = s.standing.band.overloaded(s.shedding.overloaded);
        s.weight = s.shedding.left_of(s.weight.into()) as u16;
        if s.standing.has_address() {
            summary.add_band(s.standing.band);
        }
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

impl Set {
    /// Whether there is nothing in it that is not Down. `scratch`: as it was looked up.
    pub fn fails_open(self, scratch: &Scratch) -> bool {
        match self.0 {
            Kind::Addresses { v4, of } if of.is_service() => scratch.summary.choice(v4).fails_open(),
            Kind::Targets { choice, .. } => choice.fails_open(),
            Kind::Alias { choice, .. } => choice.is_some_and(Choice::fails_open),
            // A pin is asked for as it is.
            Kind::Addresses { .. } => false,
        }
    }

    /// Whether its order, or what is in it, goes by where the client is.
    pub fn goes_by_place(self) -> bool {
        match self.0 {
            Kind::Addresses { of, .. } => of.is_service(),
            Kind::Targets { .. } => true,
            Kind::Alias { choice, .. } => choice.is_some(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Addresses {
        v4: bool,
        of: Owner,
    },
    /// SRV, of the candidates of this choice.
    Targets {
        ports: PortsAt,
        choice: Choice,
    },
    /// CNAME, to one of the names of the candidate at this position in `Scratch::seen`.
    Alias {
        at: u16,
        /// What it was chosen by; of `C.S.N.Z` nothing.
        choice: Option<Choice>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Service,
    /// The service's name, of which this one candidate is all: a position in `Scratch::seen`.
    Best(u16),
    /// `C.S.N.Z`: the same.
    Cluster(u16),
    /// `H.C.S.N.Z`: where the host stands in the record.
    Host(u32),
}

impl Owner {
    /// The service's own name, and no pin.
    fn is_service(self) -> bool {
        matches!(self, Owner::Service | Owner::Best(_))
    }
}

/// A record as one view sees it. What is seen stands in the scratch, so that there is one at a time.
pub struct Sight<'a> {
    record: Record<'a>,
    perspective: Perspective<'a>,
}

impl<'a> Sight<'a> {
    pub(super) fn new(record: Record<'a>, perspective: Perspective<'a>) -> Sight<'a> {
        Sight { record, perspective }
    }

    /// What the view sees at the name with the labels `prefix` in front of `S.N.Z`; `None`: for this view the service does
    /// not exist. `any`: the first set will do (RFC 8482). [`write`](Sight::write) goes on from what the scratch then holds.
    /// `chance`: which of several candidates the name stands for, where it stands for one.
    pub fn look_up(
        &self,
        prefix: &[u8],
        qtype: u16,
        any: bool,
        scratch: &mut Scratch,
        chance: &mut Chance<'_>,
    ) -> Option<Found> {
        self.gather(scratch).then(|| self.find(prefix, qtype, any, scratch, chance))
    }

    /// What [`look_up`](Sight::look_up) looks at, whatever is asked for.
    pub(super) fn gather_all(&self, scratch: &mut Scratch) {
        self.gather(scratch);
    }

    /// Seconds.
    pub(super) fn ttl(&self) -> u32 {
        self.perspective.ttl
    }

    /// Puts what the view can see into the scratch; false: there is nothing, so that the service does not exist.
    fn gather(&self, scratch: &mut Scratch) -> bool {
        let seen = &mut scratch.seen;
        seen.clear();
        let mut summary = Summary::default();
        let mut plain = !self.record.shares_addresses();
        let (mut last_step, mut aliased) = (0, false);
        let mut loaded = Shedding::default();
        for candidate in self.record.candidates() {
            let cluster = candidate.cluster();
            let reach = self.perspective.reach[cluster.index()];
            if !candidate.is_seen_from(reach) || !candidate.is_for(self.perspective.inside) {
                continue;
            }
            let pods = reach.pods && candidate.has(flag::PODS);
            let pods = if pods { NonZero::new(candidate.pods_at()) } else { None };
            // Of what is not reached from outside, readiness alone speaks.
            let (mut health, mut aliases) = (Health::default(), None);
            let addresses = if let Some(at) = pods {
                self.record.pods(at.get()).addresses()
            } else if reach.pods && candidate.has(flag::HEADLESS) {
                Addresses::default()
            } else if reach.tier == Tier::OWN_CLUSTER {
                candidate.cluster_ips()
            } else {
                (health, aliases) = (candidate.health(), candidate.aliases_at());
                candidate.ingress()
            };
            let standing = Standing {
                band: Band::new(reach.tier, false),
                ready: pods.is_some() || candidate.has(flag::READY),
                drained: candidate.weight() == 0,
                // Whoever asks for an alias asks for both.
                ipv4: addresses.v4.count > 0 || aliases.is_some(),
                ipv6: addresses.v6.count > 0 || aliases.is_some(),
                down: health.down,
            };
            summary.add(&standing);
            plain &= pods.is_none() && addresses.v4.count <= 1 && addresses.v6.count <= 1;
            let suspect = health.suspect;
            last_step |= u8::from(suspect != [0; 2]) * SUSPECT_STEP;
            aliased |= aliases.is_some();
            // Where drained ones are answered with, they are equals.
            let weight = candidate.weight().max(1);
            let (flags, ports) = (candidate.flags(), candidate.ports_at());
            let (mut shedding, mut silent) = (candidate.shedding(), false);
            if !self.perspective.calm {
                let member = &self.perspective.members[cluster.index()];
                (shedding, silent) = (shedding.most(member.shedding()), member.is_silent());
                last_step |= u8::from(silent) * SILENT_STEP;
            }
            loaded = loaded.most(shedding);
            seen.push(Seen {
                standing,
                cluster,
                weight,
                shedding,
                flags,
                ports,
                pods,
                addresses,
                suspect,
                silent,
                aliases,
            });
            if flags & flag::IMPORT != 0 {
                break;
            }
        }
        if loaded != Shedding::default() {
            shed(seen, &mut summary);
        }
        scratch.summary = summary;
        scratch.plain = plain && last_step == 0;
        scratch.last_step = last_step;
        scratch.aliased = aliased;
        !scratch.seen.is_empty()
    }

    fn cluster_name(&self, cluster: ClusterId) -> &'a [u8] {
        self.perspective.members[cluster.index()].name.as_bytes()
    }

    /// As a label in wire form.
    fn cluster_label(&self, cluster: ClusterId) -> &'a [u8] {
        &self.perspective.members[cluster.index()].wire
    }

    /// The port lists behind a candidate: its pods' where it is pods, else that of the Service.
    fn port_lists(&self, seen: &Seen) -> impl Iterator<Item = (Option<Host<'a>>, Ports<'a>)> + use<'a> {
        let record = self.record;
        let hosts = seen.pods.map(|at| record.pods(at.get()).hosts()).into_iter().flatten();
        let own = seen.pods.is_none().then(|| (None, record.ports(seen.ports)));
        own.into_iter().chain(hosts.map(|host| (Some(host), host.ports())))
    }

    /// `prefix`: the labels in front of `S.N.Z`. `any`: the first set will do (RFC 8482).
    fn find(&self, prefix: &[u8], qtype: u16, any: bool, scratch: &mut Scratch, chance: &mut Chance<'_>) -> Found {
        let mut labels = Labels::new(prefix);
        match (labels.next(), labels.next(), labels.next()) {
            (None, _, _) => match scratch.aliased {
                true => self.find_one(qtype, any, scratch, chance),
                false => self.find_service(qtype, any, scratch),
            },
            (Some(only), None, _) => match Protocol::of_label(only) {
                Some(protocol) => {
                    let named = |port: &PortEntry<'_>| port.has_label() && port.protocol() == protocol;
                    match self.find_port(named, scratch) {
                        Some(_) => Found::NoData { pending: false },
                        None => Found::Missing,
                    }
                }
                // A cluster has no name there, but its pods do (MCS DNS specification, section 2.3.4).
                None if self.perspective.mcs => match self.find_cluster(only, scratch) {
                    Some(at) if scratch.seen[at].pods.is_some() => Found::NoData { pending: false },
                    Some(_) | None => Found::Missing,
                },
                None => match self.find_cluster(only, scratch) {
                    Some(at) if scratch.seen[at].aliases.is_some() => {
                        Found::Set(Set(Kind::Alias { at: at as u16, choice: None }))
                    }
                    Some(at) => addresses(scratch.seen[at].addresses, Owner::Cluster(at as u16), qtype, any),
                    None => Found::Missing,
                },
            },
            (Some(first), Some(last), None) => match Protocol::of_label(last) {
                Some(protocol) => self.find_named_port(first, protocol, qtype, any, scratch),
                None => {
                    let pods = self.find_cluster(last, scratch).and_then(|at| scratch.seen[at].pods);
                    let host = pods.and_then(|at| self.record.pods(at.get()).host(first));
                    match host.filter(|host| !host.has(flag::LONG)) {
                        Some(host) => addresses(host.addresses(), Owner::Host(host.at as u32), qtype, any),
                        None => Found::Missing,
                    }
                }
            },
            (Some(_), Some(_), Some(_)) => Found::Missing,
        }
    }

    fn find_service(&self, qtype: u16, any: bool, scratch: &Scratch) -> Found {
        let (ipv4, ipv6) = scratch.summary.families(self.perspective.families);
        let of = Owner::Service;
        if ipv4 && (qtype == rtype::A || any) {
            return Found::Set(Set(Kind::Addresses { v4: true, of }));
        }
        if ipv6 && (qtype == rtype::AAAA || any) {
            return Found::Set(Set(Kind::Addresses { v4: false, of }));
        }
        // Where a port without a name has a record, it is at the service's own name.
        let unnamed = (qtype == rtype::SRV || any) && !self.perspective.mcs;
        let targets = if unnamed { self.find_targets(Wanted::All, scratch) } else { None };
        targets.map_or(Found::NoData { pending: !ipv4 && !ipv6 }, Found::Set)
    }

    fn find_port(&self, is: impl Fn(&PortEntry<'_>) -> bool, scratch: &Scratch) -> Option<(Ports<'a>, PortEntry<'a>)> {
        let mut lists = scratch.seen.iter().flat_map(|seen| self.port_lists(seen));
        lists.find_map(|(_, list)| Some((list, list.into_iter().find(&is)?)))
    }

    fn find_cluster(&self, name: &[u8], scratch: &Scratch) -> Option<usize> {
        scratch.seen.iter().position(|seen| self.cluster_name(seen.cluster) == name && !seen.has(flag::LONG))
    }

    /// Whether the order is to be that of the client, and not by chance.
    pub fn is_sticky(&self) -> bool {
        self.record.settings().is_some_and(|settings| settings.sticky)
    }

    /// Writes a set that [`find`](Sight::find) gave into the answer section, owned by the name at `owner` of the message;
    /// false: no room, and the message is to be [truncated](Writer::truncate). `client`: what the order of a
    /// [sticky](Sight::is_sticky) service goes by.
    #[must_use]
    pub fn write(
        &self,
        set: Set,
        writer: &mut Writer<'_>,
        owner: usize,
        scratch: &mut Scratch,
        random: &mut Random,
        client: Option<u64>,
    ) -> bool {
        match set.0 {
            Kind::Addresses { v4, of: Owner::Service } => {
                let choice = scratch.summary.choice(v4);
                scratch.exchange_bands(random, |s| choice.takes(&s.standing) && s.standing.has_family(v4));
            }
            Kind::Targets { choice, .. } => scratch.exchange_bands(random, |s| choice.takes(&s.standing)),
            Kind::Addresses { .. } | Kind::Alias { .. } => {}
        }
        match set.0 {
            Kind::Addresses { v4, of } => {
                let limit = self.collect(v4, of, scratch);
                if let Some(client) = client {
                    sticky::arrange(&mut scratch.items, self.record.octets(), address_size(v4), client);
                }
                let ttl = match of.is_service() {
                    true => self.ttl_of(scratch.summary.choice(v4)),
                    false => self.perspective.ttl,
                };
                let items = &mut scratch.items[..];
                let count = items.len().min(limit);
                let size = FIXED + address_size(v4);
                let room = writer.reserve_records(Section::Answer, count * size, count as u16);
                let Some(target) = room else { return false };
                let (owner, octets) = (pointer_to(owner), self.record.octets());
                let head = |rtype| fixed(owner, rtype, ttl, address_size(v4) as u16);
                match v4 {
                    true => put_runs::<{ FIXED + 4 }, 4>(target, &head(rtype::A), octets, items, random),
                    false => put_runs::<{ FIXED + 16 }, 16>(target, &head(rtype::AAAA), octets, items, random),
                }
                true
            }
            Kind::Targets { ports, choice } => self.write_targets(self.wanted(ports), choice, writer, owner, scratch),
            Kind::Alias { at, choice } => {
                let ttl = choice.map_or(self.perspective.ttl, |choice| self.ttl_of(choice));
                self.write_alias(&scratch.seen[usize::from(at)], ttl, writer, owner, random)
            }
        }
    }

    /// Puts the addresses of a set into `items`, run by run; returns how many of them may be in an answer.
    fn collect(&self, v4: bool, of: Owner, scratch: &mut Scratch) -> usize {
        scratch.items.clear();
        let cut = self.perspective.cut;
        let (span, whole) = match of {
            Owner::Service if scratch.plain => return Sight::collect_plain(v4, cut, scratch),
            Owner::Service => return self.collect_bands(v4, cut, scratch),
            Owner::Cluster(at) | Owner::Best(at) => {
                let seen = &scratch.seen[usize::from(at)];
                (seen.addresses.of(v4), seen.pods.is_some())
            }
            Owner::Host(at) => (self.record.host(at as usize).addresses().of(v4), true),
        };
        let most = most_addresses(v4);
        scratch.items.extend(span.addresses(v4).take(most).map(|at| Item { at, weight: 1, run: 0 }));
        // There is one band.
        cut.addresses(scratch.items.len(), whole)
    }

    /// What [`collect_bands`](Sight::collect_bands) comes to where each band is one run, for a tenth fewer instructions.
    fn collect_plain(v4: bool, cut: Cut, scratch: &mut Scratch) -> usize {
        let Scratch { seen, summary, items, .. } = scratch;
        let choice = summary.choice(v4);
        let mut best = 0;
        for band in summary.bands() {
            for s in in_band(seen, band, choice).filter(|s| s.standing.has_family(v4)) {
                items.push(Item { at: s.addresses.of(v4).at, weight: s.weight, run: u16::from(band.number()) });
            }
            if best == 0 {
                best = items.len();
            }
        }
        cut.addresses(best, false)
    }

    /// Band by band, in a band step by step, and of a step all first addresses before all second ones. An address that several
    /// clusters give is one record at its best rank, with the weights added.
    fn collect_bands(&self, v4: bool, cut: Cut, scratch: &mut Scratch) -> usize {
        let Scratch { seen, summary, items, last_step, .. } = scratch;
        let choice = summary.choice(v4);
        let most = most_addresses(v4);
        let whole = seen.iter().any(|s| s.pods.is_some() && choice.takes(&s.standing));
        let merge = self.record.shares_addresses();
        // In every mode. An address of a later row may still add its weight to one that is in the answer.
        let enough = if whole { most } else { usize::from(cut.most) };
        let (mut run, mut best) = (0, 0);
        for band in summary.bands() {
            let band = || in_band(seen, band, choice);
            // The pods of a headless share are one run: none of them is a cluster's second choice.
            let one_run = band().any(|s| s.pods.is_some());
            let mut firm = false;
            for step in 0..=*last_step {
                let (suspect, silent) = (step & SUSPECT_STEP != 0, step & SILENT_STEP != 0);
                // Where its addresses of this step begin, and how many there are.
                let part = |s: &Seen| match (suspect, s.silent == silent) {
                    (_, false) => (0, 0),
                    (false, true) => (0, s.firm(v4)),
                    (true, true) => (s.firm(v4), s.suspect(v4)),
                };
                let depth = band().map(|s| part(s).1).max().unwrap_or(0);
                let before = items.len();
                for row in 0..depth {
                    if !merge && items.len() >= enough {
                        break;
                    }
                    for s in band() {
                        let (first, count) = part(s);
                        if row >= count {
                            continue;
                        }
                        let at = s.addresses.of(v4).address(first + row, v4);
                        let weight = s.weight;
                        if merge && let Some(known) = self.same_address(items, at, v4) {
                            known.weight = known.weight.saturating_add(weight);
                        } else if items.len() < most {
                            items.push(Item { at, weight, run });
                        }
                    }
                    run += u16::from(!one_run);
                }
                run += 1;
                firm |= !suspect && items.len() > before;
            }
            // Behind a band of which all are Suspect, the next one is in the answer too.
            if best == 0 && firm {
                best = items.len();
            }
            // No later band is in the answer.
            if !merge && best > 0 && items.len() >= cut.addresses(best, whole) {
                break;
            }
        }
        let best = if best == 0 { items.len() } else { best };
        cut.addresses(best, whole)
    }

    /// Whoever gets what may not work is to ask again soon.
    #[inline]
    fn ttl_of(&self, choice: Choice) -> u32 {
        let ttl = self.perspective.ttl;
        if choice.fails_open() { ttl.min(MIN_TTL) } else { ttl }
    }

    fn same_address<'i>(&self, items: &'i mut [Item], at: u32, v4: bool) -> Option<&'i mut Item> {
        let size = address_size(v4);
        let octets = self.record.octets();
        let same = |item: &Item| octets[item.at as usize..][..size] == octets[at as usize..][..size];
        items.iter_mut().find(|item| same(item))
    }
}

fn in_band(seen: &[Seen], band: Band, choice: Choice) -> impl Iterator<Item = &Seen> + Clone {
    seen.iter().filter(move |s| s.standing.band == band && choice.takes(&s.standing))
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

/// Writes as many records as `target` has room for, each run in an order that is drawn on the way. `SIZE` is that of a
/// record, `ADDRESS` that of its address: two lengths that are known, so that a copy is one move.
fn put_runs<const SIZE: usize, const ADDRESS: usize>(
    target: &mut [u8],
    fixed: &[u8; FIXED],
    octets: &[u8],
    items: &mut [Item],
    random: &mut Random,
) {
    let mut draws = Draws::new(random);
    let mut out = target.as_chunks_mut::<SIZE>().0.iter_mut();
    let mut rest = items;
    while let Some(first) = rest.first().copied() {
        let (mut count, mut by_weight) = (1, false);
        while let Some(item) = rest.get(count).filter(|item| item.run == first.run) {
            by_weight |= item.weight != first.weight;
            count += 1;
        }
        by_weight &= count <= MAX_WEIGHED;
        let (mut run, others) = std::mem::take(&mut rest).split_at_mut(count);
        rest = others;
        while !run.is_empty() {
            let Some(block) = out.next() else { return };
            let drawn = match run.len() {
                1 => 0,
                _ if by_weight => draw(run.iter().map(|item| item.weight), &mut draws),
                count => draws.below(count as u32) as usize,
            };
            let Item { at, .. } = run[drawn];
            block[..FIXED].copy_from_slice(fixed);
            block[FIXED..].copy_from_slice(&octets[at as usize..][..ADDRESS]);
            // The first takes the place of the one that was drawn.
            run[drawn] = run[0];
            run = &mut run[1..];
        }
    }
}

/// The position of a weight, with a probability in proportion to it.
fn draw(weights: impl Iterator<Item = u16> + Clone, draws: &mut Draws<'_>) -> usize {
    let total: u32 = weights.clone().map(u32::from).sum();
    let mut ticket = draws.below(total.max(1));
    for (i, weight) in weights.enumerate() {
        match ticket.checked_sub(u32::from(weight)) {
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
        let mut draws = Draws::new(&mut random);
        let mut hits = [0u32; 3];
        for _ in 0..60_000 {
            hits[draw([100, 200, 300].into_iter(), &mut draws)] += 1;
        }
        // Five standard deviations of a binomial with n = 60,000 are below 620.
        for (hit, expected) in hits.iter().zip([10_000u32, 20_000, 30_000]) {
            assert!(hit.abs_diff(expected) < 620, "{hits:?}");
        }
    }
}
