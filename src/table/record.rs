//! A service in one zone, as the octets of one map entry: what its clusters give, once, whoever asks.
//!
//! Order and choice are not in here: they depend on the client and are made for each answer (`compose.rs`). So a record
//! holds each address once, 100 to 150 octets for three clusters, and what concerns a whole cluster changes no record.
//!
//! ```text
//! head        name length (1), kind (1), candidates (2), zone (1), name
//! settings    (only if the kind says so) TTL (4); for clients outside and inside (3 each): mode, spare, most addresses; whether it is sticky (1)
//! candidate   cluster (2), weight (2), flags (1), share of answers in which others go first (1), counts (1 each): ingress IPv4, IPv6, clusterIP IPv4, IPv6;
//!             where its port list begins (4), where its addresses begin (4); which families are Down, and whom it is for (1); how
//!             many of the ingress addresses are Suspect, the last of their family: IPv4, IPv6 (1 each)
//! aliases     (only if the candidate is marked so) names in wire form, their octets (2)
//! addresses   ingress IPv4, clusterIPs IPv4, ingress IPv6, clusterIPs IPv6; then, of a headless share with pods, Pods
//! pods        counts (4 each): IPv4, IPv6, hosts; addresses IPv4, IPv6; where each host begins (4 each); hosts
//! host        label length (1), label, flags (1), counts (2 each): IPv4, IPv6; port list (4), addresses IPv4, IPv6
//! port list   count (2; the highest bit says that no two have one name), ports
//! port        flags and protocol (1), number (2), name length (1), name
//! ```
//!
//! A service as most are ([`Record::is_uniform`]) is shorter, so that an answer needs a cache line or two of it:
//!
//! ```text
//! head        as above
//! weight      (2), of each candidate
//! clusters    (2 each)
//! addresses   ingress (4) and clusterIP (4) of each
//! load        (only if the kind says so) of each the share of answers in which others go first (1), whether it is overloaded (1)
//! port list   of all
//! ```
//!
//! Numbers are little endian, offsets count from the start of the entry.

use std::net::IpAddr;
use std::num::NonZero;

use super::map::{Key, name_end, name_of, put_head};
use crate::config::Mode;
use crate::load::Shedding;
use crate::model::{ClusterId, Label, Port, Protocol};
use crate::names::{Name, is_same, split_name};
use crate::ranking::{BothFamilies, Cut, Reach, Tier};

/// Octets of a candidate.
const CANDIDATE: usize = 21;
/// Where in a candidate it stands where its port list and its addresses begin.
const PORTS_AT: usize = 10;
const ADDRESSES_AT: usize = 14;
const HEALTH_AT: usize = 18;
/// Most candidates of a uniform service.
pub(super) const MOST_UNIFORM: usize = 8;
/// Octets of a port without its name.
const PORT: usize = 4;

/// `kind` of the head.
const SERVICE: u8 = 0;
/// A service some of whose addresses are given by more than one candidate.
const SERVICE_WITH_SHARED_ADDRESSES: u8 = 1;
/// A service as most are, see [`Record::is_uniform`].
const UNIFORM_SERVICE: u8 = 2;
pub(super) const NAMESPACE: u8 = 3;
/// Added to the kind of a uniform service some of whose candidates shed load.
const WITH_LOAD: u8 = 1 << 5;
/// Added to the kind of a service that is not answered for as the others of its zone are.
const WITH_SETTINGS: u8 = 1 << 4;
/// Octets of these settings.
const SETTINGS: usize = 11;

/// What is known of a candidate or of a host in one bit each.
pub(super) mod flag {
    /// At least one endpoint is ready and serving.
    pub const READY: u8 = 1;
    /// Other clusters may see it, at its ingress addresses.
    pub const EXPOSED: u8 = 1 << 1;
    /// `clusterIP: None`, with ready pods; [`HEADLESS`] is set too.
    pub const PODS: u8 = 1 << 2;
    /// The zone file says what stands at this name: its addresses are not ours to give beside an SRV record.
    pub const STATIC: u8 = 1 << 3;
    /// The name would be too long, so that it does not exist.
    pub const LONG: u8 = 1 << 4;
    /// `clusterIP: None`.
    pub const HEADLESS: u8 = 1 << 5;
    /// By the load that was published for it.
    pub const OVERLOADED: u8 = 1 << 6;
    /// For its own cluster's clients it is all that there is; nobody else sees it.
    pub const IMPORT: u8 = 1 << 7;
}

/// Beside which families are Down.
mod mark {
    pub const DOWN: u8 = 0b11;
    /// The same cluster has another candidate for clients inside, or outside.
    pub const OUTSIDE: u8 = 1 << 2;
    pub const INSIDE: u8 = 1 << 3;
    /// From other clusters and from outside, its service is an alias of other names.
    pub const ALIASES: u8 = 1 << 4;
}

/// Which clients a candidate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Audience {
    Everybody,
    /// Those outside of all clusters, or those inside of one: the other ones are told other addresses.
    Outside,
    Inside,
}

/// Of a list of ports: no name and protocol is in it twice.
const DISTINCT: u16 = 1 << 15;
/// Of a port: its number was in the list before, or all of it was.
const SAME_NUMBER: u8 = 1 << 6;
const SAME: u8 = 1 << 7;

#[inline]
fn u16_at(octets: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([octets[at], octets[at + 1]])
}

#[inline]
fn u32_at(octets: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([octets[at], octets[at + 1], octets[at + 2], octets[at + 3]])
}

fn offset_at(octets: &[u8], at: usize) -> usize {
    u32_at(octets, at) as usize
}

/// A view of the octets.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a>(&'a [u8]);

#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    fields: [u8; CANDIDATE],
}

/// What is known of a candidate's ingress addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Health {
    /// All of the family are Down. If only some are, these are not among them.
    pub down: BothFamilies,
    /// How many of the last ones of IPv4 and of IPv6 are Suspect.
    pub suspect: [u8; 2],
}

/// The ready pods of a headless share.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pods<'a> {
    octets: &'a [u8],
    at: usize,
}

/// What one `H.C.S.N.Z` stands for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Host<'a> {
    octets: &'a [u8],
    pub at: usize,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Ports<'a> {
    octets: &'a [u8],
    at: usize,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct PortEntry<'a> {
    flags: u8,
    pub number: u16,
    pub name: &'a [u8],
    /// Where it stands in the record.
    pub at: usize,
}

/// Octets of an address.
#[inline]
pub(super) fn address_size(v4: bool) -> usize {
    if v4 { 4 } else { 16 }
}

/// A place and a number of addresses of one family in a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Span {
    pub at: u32,
    pub count: u32,
}

impl Span {
    /// Where the `n`th address stands.
    #[inline]
    pub fn address(self, n: u32, v4: bool) -> u32 {
        self.at + n * address_size(v4) as u32
    }

    /// Where each address stands.
    pub fn addresses(self, v4: bool) -> impl Iterator<Item = u32> {
        (0..self.count).map(move |n| self.address(n, v4))
    }
}

/// How a service is answered for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Settings {
    /// Seconds.
    pub ttl: u32,
    /// Of answers to clients outside, and inside a cluster.
    pub external: Cut,
    pub internal: Cut,
    /// A client is to get the same order again.
    pub sticky: bool,
}

fn cut_octets(cut: Cut) -> [u8; 3] {
    let (mode, spare) = match cut.mode {
        Mode::Ordered => (0, 0),
        Mode::Nearest { spare } => (1, spare),
        Mode::Single => (2, 0),
    };
    [mode, spare, cut.most]
}

fn cut_of([mode, spare, most]: [u8; 3]) -> Cut {
    let mode = match mode {
        0 => Mode::Ordered,
        1 => Mode::Nearest { spare },
        _ => Mode::Single,
    };
    Cut { mode, most }
}

/// Both families' addresses of one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Addresses {
    pub v4: Span,
    pub v6: Span,
}

impl Addresses {
    #[inline]
    pub fn of(&self, v4: bool) -> Span {
        if v4 { self.v4 } else { self.v6 }
    }

    pub fn is_empty(&self) -> bool {
        self.v4.count + self.v6.count == 0
    }
}

impl<'a> Record<'a> {
    /// `None`: the entry is no service.
    pub(super) fn new(octets: &'a [u8]) -> Option<Record<'a>> {
        (octets[1] != NAMESPACE).then_some(Record(octets))
    }

    #[inline]
    pub(super) fn octets(self) -> &'a [u8] {
        self.0
    }

    /// `S.N`, the labels with their lengths.
    pub(super) fn name(self) -> &'a [u8] {
        name_of(self.0)
    }

    /// Whether an address may be in it twice.
    #[inline]
    pub(super) fn shares_addresses(self) -> bool {
        self.0[1] & !WITH_SETTINGS == SERVICE_WITH_SHARED_ADDRESSES
    }

    /// What holds for it instead of what holds for its zone. Not of a uniform service.
    #[inline]
    pub(super) fn settings(self) -> Option<Settings> {
        (self.0[1] & WITH_SETTINGS != 0).then(|| self.read_settings())
    }

    #[cold]
    fn read_settings(self) -> Settings {
        let octets: &[u8; SETTINGS] =
            self.0[name_end(self.0)..].first_chunk().expect("the head says that they are there");
        let [a, b, c, d, external @ .., i1, i2, i3, sticky] = *octets;
        Settings {
            ttl: u32::from_le_bytes([a, b, c, d]),
            external: cut_of(external),
            internal: cut_of([i1, i2, i3]),
            sticky: sticky != 0,
        }
    }

    /// Where its candidates begin, if it is not uniform.
    #[inline]
    fn candidates_at(self) -> usize {
        name_end(self.0) + if self.0[1] & WITH_SETTINGS == 0 { 0 } else { SETTINGS }
    }

    /// There are at most [`MOST_UNIFORM`] candidates, every one of which is ready, exposed and not headless, has one IPv4
    /// ingress address and one IPv4 clusterIP and nothing else, and weighs as much and has the ports of the others; no
    /// address is in it twice. So every view sees every candidate with one address, and only their order is left to find.
    #[inline]
    pub fn is_uniform(self) -> bool {
        self.0[1] & !WITH_LOAD == UNIFORM_SERVICE
    }

    /// It is uniform, and none of its candidates sheds any of the load that was published for the service.
    #[inline]
    pub(super) fn is_calm_and_uniform(self) -> bool {
        self.0[1] == UNIFORM_SERVICE
    }

    /// What each candidate of a uniform record weighs. Where all are drained, they are equals.
    #[inline]
    pub(super) fn uniform_weight(self) -> u32 {
        u32::from(u16_at(self.0, name_end(self.0)).max(1))
    }

    /// What each candidate of a uniform record sheds, in their order; nothing at all if none sheds anything. In
    /// [bits](Shedding::to_bits), as an answer looks at all of them together.
    #[inline(always)]
    pub(super) fn uniform_loads(self) -> impl Iterator<Item = u16> + use<'a> {
        let at = name_end(self.0) + 2 + (2 + 8) * self.len();
        let count = if self.is_calm_and_uniform() { 0 } else { self.len().min(MOST_UNIFORM) };
        self.0[at..at + 2 * count].as_chunks().0.iter().map(|&load| u16::from_le_bytes(load))
    }

    /// The clusters of a uniform record, as they stand in it.
    #[inline(always)]
    pub(super) fn uniform_clusters(self) -> &'a [[u8; 2]] {
        let at = name_end(self.0) + 2;
        self.0[at..at + 2 * self.len()].as_chunks().0
    }

    /// The clusters of a uniform record, and what each gives: the octets of its ingress address and then of its clusterIP,
    /// as one number.
    #[inline(always)]
    pub(super) fn uniform(self) -> impl Iterator<Item = (ClusterId, u64)> {
        debug_assert!(self.is_uniform());
        let (clusters, rest) = self.0[name_end(self.0) + 2..].split_at(2 * self.len());
        let clusters = clusters.as_chunks().0.iter().map(|&id| ClusterId(u16::from_le_bytes(id)));
        clusters.zip(rest.as_chunks().0.iter().map(|&pair| u64::from_le_bytes(pair)))
    }

    /// The ports of all candidates of a uniform record.
    #[inline(always)]
    pub(super) fn uniform_ports(self) -> Ports<'a> {
        let each = 2 + 8 + if self.is_calm_and_uniform() { 0 } else { 2 };
        Ports { octets: self.0, at: name_end(self.0) + 2 + each * self.len() }
    }

    /// The number of the port `_port._proto` of a uniform service. `None`: there is none, or more than one, or the labels are of
    /// another kind.
    pub fn uniform_port(self, port: &[u8], protocol: &[u8]) -> Option<u16> {
        let ports = self.uniform_ports();
        let protocol = Protocol::of_label(protocol)?;
        let name = port.strip_prefix(b"_").filter(|name| !name.is_empty())?;
        let found = ports.into_iter().find(|port| is_same(port.name, name) && port.protocol() == protocol)?;
        ports.has_distinct_names().then_some(found.number)
    }

    #[inline]
    pub(super) fn len(self) -> usize {
        usize::from(u16_at(self.0, 2))
    }

    #[inline]
    pub(super) fn candidates(self) -> impl Iterator<Item = Candidate> + use<'a> {
        (0..self.len()).map(move |n| self.candidate(n))
    }

    #[inline]
    fn candidate(self, n: usize) -> Candidate {
        if self.is_uniform() {
            return self.uniform_candidate(n);
        }
        let fields = self.0[self.candidates_at() + n * CANDIDATE..]
            .first_chunk()
            .expect("an entry has as many as its head says");
        Candidate { fields: *fields }
    }

    /// Not inlined, so that the loops over other records stay small.
    #[inline(never)]
    fn uniform_candidate(self, n: usize) -> Candidate {
        let (at, count) = (name_end(self.0), self.len());
        let addresses = at + 2 + 2 * count;
        let load = Shedding::from_bits(self.uniform_loads().nth(n).unwrap_or_default());
        let overloaded = if load.overloaded { flag::OVERLOADED } else { 0 };
        let mut fields = [0; CANDIDATE];
        fields[..2].copy_from_slice(&self.0[at + 2 + 2 * n..][..2]);
        fields[2..4].copy_from_slice(&self.0[at..at + 2]);
        fields[4..PORTS_AT].copy_from_slice(&[flag::READY | flag::EXPOSED | overloaded, load.share, 1, 0, 1, 0]);
        fields[PORTS_AT..ADDRESSES_AT].copy_from_slice(&(self.uniform_ports().at as u32).to_le_bytes());
        fields[ADDRESSES_AT..HEALTH_AT].copy_from_slice(&((addresses + 8 * n) as u32).to_le_bytes());
        Candidate { fields }
    }

    pub(super) fn ports(self, at: u32) -> Ports<'a> {
        Ports { octets: self.0, at: at as usize }
    }

    /// Names in wire form. `end`: see [`Candidate::aliases_at`].
    pub(super) fn aliases(self, end: NonZero<u32>) -> impl Iterator<Item = &'a [u8]> + Clone {
        let end = end.get() as usize - 2;
        let mut rest = &self.0[end - usize::from(u16_at(self.0, end))..end];
        std::iter::from_fn(move || {
            let (name, others) = split_name(rest)?;
            rest = others;
            Some(name)
        })
    }

    pub(super) fn pods(self, at: u32) -> Pods<'a> {
        Pods { octets: self.0, at: at as usize }
    }

    pub(super) fn host(self, at: usize) -> Host<'a> {
        Host { octets: self.0, at }
    }

    pub(super) fn port(self, at: usize) -> PortEntry<'a> {
        port_at(self.0, at)
    }
}

impl Candidate {
    #[inline]
    pub fn cluster(self) -> ClusterId {
        ClusterId(u16_at(&self.fields, 0))
    }

    #[inline]
    pub fn weight(self) -> u16 {
        u16_at(&self.fields, 2)
    }

    /// Whether it exists for a view that has this to do with its cluster.
    #[inline]
    pub fn is_seen_from(self, reach: Reach) -> bool {
        reach.tier == Tier::OWN_CLUSTER || reach.pods && self.has(flag::HEADLESS) || self.has(flag::EXPOSED)
    }

    /// Whether it is for clients inside of a cluster, or for those outside.
    #[inline]
    pub fn is_for(self, inside: bool) -> bool {
        self.fields[HEALTH_AT] & (if inside { mark::OUTSIDE } else { mark::INSIDE }) == 0
    }

    #[inline]
    pub fn has(self, flag: u8) -> bool {
        self.flags() & flag != 0
    }

    #[inline]
    pub fn flags(self) -> u8 {
        self.fields[4]
    }

    /// What is to be done about the load that was published for it.
    #[inline]
    pub fn shedding(self) -> Shedding {
        Shedding { share: self.fields[5], overloaded: self.has(flag::OVERLOADED) }
    }

    /// What is known of its ingress addresses.
    #[inline]
    pub fn health(self) -> Health {
        if self.fields[HEALTH_AT..] == [0; 3] { Health::default() } else { self.read_health() }
    }

    #[cold]
    fn read_health(self) -> Health {
        let [down, ipv4, ipv6] = [self.fields[HEALTH_AT], self.fields[HEALTH_AT + 1], self.fields[HEALTH_AT + 2]];
        Health { down: BothFamilies { ipv4: down & 1 != 0, ipv6: down & 2 != 0 }, suspect: [ipv4, ipv6] }
    }

    /// Where its addresses begin.
    #[inline]
    pub fn addresses_at(self) -> u32 {
        u32_at(&self.fields, ADDRESSES_AT)
    }

    /// Where its aliases [end](Record::aliases), if it has any.
    #[inline]
    pub fn aliases_at(self) -> Option<NonZero<u32>> {
        if self.fields[HEALTH_AT] & mark::ALIASES == 0 { None } else { NonZero::new(self.addresses_at()) }
    }

    /// Where its port list stands.
    #[inline]
    pub fn ports_at(self) -> u32 {
        u32_at(&self.fields, PORTS_AT)
    }

    /// Counts of ingress IPv4, clusterIPs IPv4, ingress IPv6, clusterIPs IPv6, in the order in which they stand.
    #[inline]
    fn counts(self) -> [u32; 4] {
        let f = self.fields;
        [f[6], f[8], f[7], f[9]].map(u32::from)
    }

    #[inline]
    pub fn ingress(self) -> Addresses {
        let [i4, c4, i6, _] = self.counts();
        let at = self.addresses_at();
        Addresses { v4: Span { at, count: i4 }, v6: Span { at: at + 4 * (i4 + c4), count: i6 } }
    }

    #[inline]
    pub fn cluster_ips(self) -> Addresses {
        let [i4, c4, i6, c6] = self.counts();
        let at = self.addresses_at();
        Addresses { v4: Span { at: at + 4 * i4, count: c4 }, v6: Span { at: at + 4 * (i4 + c4) + 16 * i6, count: c6 } }
    }

    /// Where its pods stand, if [`flag::PODS`] says that there are any.
    pub fn pods_at(self) -> u32 {
        let [i4, c4, i6, c6] = self.counts();
        self.addresses_at() + 4 * (i4 + c4) + 16 * (i6 + c6)
    }
}

impl<'a> Pods<'a> {
    pub fn addresses(self) -> Addresses {
        let (v4, v6) = (u32_at(self.octets, self.at), u32_at(self.octets, self.at + 4));
        let at = self.at as u32 + 12;
        Addresses { v4: Span { at, count: v4 }, v6: Span { at: at + 4 * v4, count: v6 } }
    }

    fn hosts_at(self) -> (usize, usize) {
        let addresses = self.addresses();
        let at = addresses.v6.at + 16 * addresses.v6.count;
        (at as usize, offset_at(self.octets, self.at + 8))
    }

    /// Ordered by their labels.
    pub fn hosts(self) -> impl Iterator<Item = Host<'a>> {
        let (at, count) = self.hosts_at();
        (0..count).map(move |n| Host { octets: self.octets, at: offset_at(self.octets, at + 4 * n) })
    }

    pub fn host(self, label: &[u8]) -> Option<Host<'a>> {
        let (at, count) = self.hosts_at();
        let host = |n: usize| Host { octets: self.octets, at: offset_at(self.octets, at + 4 * n) };
        let (mut low, mut high) = (0, count);
        while low < high {
            let middle = low.midpoint(high);
            match host(middle).label().cmp(label) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Equal => return Some(host(middle)),
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }
}

impl<'a> Host<'a> {
    pub fn label(self) -> &'a [u8] {
        &self.octets[self.at + 1..][..usize::from(self.octets[self.at])]
    }

    fn rest(self) -> usize {
        self.at + 1 + usize::from(self.octets[self.at])
    }

    pub fn has(self, flag: u8) -> bool {
        self.octets[self.rest()] & flag != 0
    }

    pub fn addresses(self) -> Addresses {
        let at = self.rest();
        let [v4, v6] = [1, 3].map(|n| u32::from(u16_at(self.octets, at + n)));
        let at = at as u32 + 9;
        Addresses { v4: Span { at, count: v4 }, v6: Span { at: at + 4 * v4, count: v6 } }
    }

    pub fn ports(self) -> Ports<'a> {
        Ports { octets: self.octets, at: offset_at(self.octets, self.rest() + 5) }
    }
}

fn port_at(octets: &[u8], at: usize) -> PortEntry<'_> {
    PortEntry {
        flags: octets[at],
        number: u16_at(octets, at + 1),
        name: &octets[at + PORT..][..usize::from(octets[at + 3])],
        at,
    }
}

impl<'a> Iterator for PortsIter<'a> {
    type Item = PortEntry<'a>;

    fn next(&mut self) -> Option<PortEntry<'a>> {
        self.left = self.left.checked_sub(1)?;
        let port = port_at(self.octets, self.at);
        self.at += PORT + port.name.len();
        Some(port)
    }
}

pub(super) struct PortsIter<'a> {
    octets: &'a [u8],
    at: usize,
    left: u16,
}

impl<'a> IntoIterator for Ports<'a> {
    type Item = PortEntry<'a>;
    type IntoIter = PortsIter<'a>;

    fn into_iter(self) -> PortsIter<'a> {
        PortsIter { octets: self.octets, at: self.at + 2, left: u16_at(self.octets, self.at) & !DISTINCT }
    }
}

impl Ports<'_> {
    /// No two ports have one name and protocol, so that there is one record of each `_port._proto`.
    pub fn has_distinct_names(self) -> bool {
        u16_at(self.octets, self.at) & DISTINCT != 0
    }

    pub fn at(self) -> u32 {
        self.at as u32
    }
}

impl PortEntry<'_> {
    pub fn protocol(&self) -> Protocol {
        Protocol::ALL[usize::from(self.flags & 3)]
    }

    /// Whether `_port` is a label: not without a name, nor with one of 63 octets.
    pub fn has_label(&self) -> bool {
        (1..63).contains(&self.name.len())
    }

    /// A port of this number was in the list before: at the bare name they are one record.
    pub fn repeats_number(&self) -> bool {
        self.flags & SAME_NUMBER != 0
    }

    /// The very same port was in the list before.
    pub fn repeats(&self) -> bool {
        self.flags & SAME != 0
    }

    /// Whether both have the name `_port._proto.S.N.Z`.
    pub fn is_named_like(&self, other: &PortEntry<'_>) -> bool {
        self.name == other.name && self.flags & 3 == other.flags & 3
    }
}

/// What a candidate is made of.
pub(super) struct CandidateParts<'a> {
    pub cluster: ClusterId,
    pub audience: Audience,
    pub weight: u16,
    /// All but [`flag::PODS`] and [`flag::OVERLOADED`].
    pub flags: u8,
    pub shedding: Shedding,
    pub health: Health,
    /// What clients other than its own cluster's are sent to instead of its ingress addresses.
    pub aliases: &'a [Name],
    pub ingress: &'a [IpAddr],
    pub cluster_ips: &'a [IpAddr],
    pub ports: &'a [Port],
    /// Of a headless share with ready pods: what they are called, ordered by label.
    pub hosts: &'a [HostParts<'a>],
    /// All addresses of the hosts, in order, each once.
    pub pod_addresses: &'a [IpAddr],
}

pub(super) struct HostParts<'a> {
    pub label: &'a Label,
    pub flags: u8,
    pub addresses: Vec<IpAddr>,
    pub ports: Vec<&'a Port>,
}

/// Most addresses of a family that a candidate gives beside its pods: their number is one octet.
pub(super) const MAX_ADDRESSES: usize = 255;

/// Lists of ports that a new one is compared with.
const PORT_LISTS: usize = 16;

/// Lays out one record after the other, in the same buffer.
#[derive(Default)]
pub(super) struct Encoder {
    octets: Vec<u8>,
    candidates: usize,
    next: usize,
    /// Where the first few lists of ports stand: equal ones are stored once, and most are equal.
    port_lists: Vec<(usize, usize)>,
    /// A record in its shorter form.
    uniform: Vec<u8>,
}

impl Encoder {
    /// `settings`: where they are not those of the zone.
    pub fn begin(&mut self, key: Key<'_>, candidates: usize, settings: Option<Settings>) {
        let count = u16::try_from(candidates).expect("Config::load limits clusters to 1,024");
        self.octets.clear();
        let kind = SERVICE | if settings.is_some() { WITH_SETTINGS } else { 0 };
        put_head(&mut self.octets, key, kind, count.to_le_bytes());
        if let Some(Settings { ttl, external, internal, sticky }) = settings {
            self.octets.extend_from_slice(&ttl.to_le_bytes());
            self.octets.extend_from_slice(&cut_octets(external));
            self.octets.extend_from_slice(&cut_octets(internal));
            self.octets.push(sticky.into());
        }
        self.octets.resize(self.octets.len() + candidates * CANDIDATE, 0);
        self.candidates = candidates;
        self.next = 0;
        self.port_lists.clear();
    }

    /// The candidates come in the order of their clusters, imports before all others. Addresses beyond [`MAX_ADDRESSES`] are left out.
    pub fn push(&mut self, parts: &CandidateParts<'_>) {
        debug_assert!(self.next < self.candidates);
        let ports = self.ports(parts.ports.iter());
        // Hosts refer to lists of ports, which have to stand somewhere before: addresses and pods are one piece.
        let host_ports: Vec<u32> = parts.hosts.iter().map(|host| self.ports(host.ports.iter().copied())).collect();
        if !parts.aliases.is_empty() {
            let before = self.octets.len();
            parts.aliases.iter().for_each(|name| self.octets.extend_from_slice(name.as_wire()));
            let length = (self.octets.len() - before) as u16;
            self.octets.extend_from_slice(&length.to_le_bytes());
        }
        let at = self.octets.len() as u32;
        // In the order of `Candidate::counts`.
        let counts = [true, false].map(|v4| [parts.ingress, parts.cluster_ips].map(|list| self.family(list, v4)));
        let [[i4, c4], [i6, c6]] = counts;
        let mut flags = parts.flags;
        if !parts.hosts.is_empty() {
            flags |= flag::PODS;
            self.pods(parts, &host_ports);
        }
        let place = Record(&self.octets).candidates_at() + self.next * CANDIDATE;
        let fields = &mut self.octets[place..place + CANDIDATE];
        fields[..2].copy_from_slice(&parts.cluster.0.to_le_bytes());
        fields[2..4].copy_from_slice(&parts.weight.to_le_bytes());
        let Shedding { share, overloaded } = parts.shedding;
        flags |= if overloaded { flag::OVERLOADED } else { 0 };
        fields[4..PORTS_AT].copy_from_slice(&[flags, share, i4, i6, c4, c6]);
        fields[PORTS_AT..ADDRESSES_AT].copy_from_slice(&ports.to_le_bytes());
        fields[ADDRESSES_AT..HEALTH_AT].copy_from_slice(&at.to_le_bytes());
        let Health { down, suspect: [suspect4, suspect6] } = parts.health;
        let down = u8::from(down.ipv4) | u8::from(down.ipv6) << 1;
        let audience = match parts.audience {
            Audience::Everybody => 0,
            Audience::Outside => mark::OUTSIDE,
            Audience::Inside => mark::INSIDE,
        };
        let aliases = if parts.aliases.is_empty() { 0 } else { mark::ALIASES };
        fields[HEALTH_AT..].copy_from_slice(&[down | audience | aliases, suspect4.min(i4), suspect6.min(i6)]);
        self.next += 1;
    }

    /// Appends the addresses of a family; gives their number.
    fn family(&mut self, list: &[IpAddr], v4: bool) -> u8 {
        let addresses = list.iter().filter(|a| a.is_ipv4() == v4).take(MAX_ADDRESSES);
        let mut count = 0;
        for address in addresses {
            put(&mut self.octets, address);
            count += 1;
        }
        count
    }

    fn pods(&mut self, parts: &CandidateParts<'_>, host_ports: &[u32]) {
        let (hosts, all) = (parts.hosts, parts.pod_addresses);
        let v4 = all.iter().filter(|a| a.is_ipv4()).count();
        for count in [v4, all.len() - v4, hosts.len()] {
            self.octets.extend_from_slice(&(count as u32).to_le_bytes());
        }
        // IPv4 addresses order before IPv6 ones.
        all.iter().for_each(|address| put(&mut self.octets, address));
        let index = self.octets.len();
        self.octets.resize(index + 4 * hosts.len(), 0);
        for (n, (host, ports)) in hosts.iter().zip(host_ports).enumerate() {
            let at = self.octets.len() as u32;
            self.octets[index + 4 * n..][..4].copy_from_slice(&at.to_le_bytes());
            self.octets.push(host.label.as_bytes().len() as u8);
            self.octets.extend_from_slice(host.label.as_bytes());
            self.octets.push(host.flags);
            let most = usize::from(u16::MAX);
            let families = [true, false].map(|v4| host.addresses.iter().filter(move |a| a.is_ipv4() == v4).take(most));
            for family in families.clone() {
                self.octets.extend_from_slice(&(family.count() as u16).to_le_bytes());
            }
            self.octets.extend_from_slice(&ports.to_le_bytes());
            families.into_iter().flatten().for_each(|address| put(&mut self.octets, address));
        }
    }

    /// Where the list stands; a new one is appended.
    fn ports<'p>(&mut self, ports: impl ExactSizeIterator<Item = &'p Port> + Clone) -> u32 {
        let count = ports.len().min(usize::from(!DISTINCT));
        let at = self.octets.len();
        let mut head = count as u16 | DISTINCT;
        self.octets.extend_from_slice(&head.to_le_bytes());
        for (n, port) in ports.clone().take(count).enumerate() {
            let mut flags = port.protocol as u8;
            for before in ports.clone().take(n) {
                if before.name == port.name && before.protocol == port.protocol {
                    head &= !DISTINCT;
                }
                if before.number == port.number {
                    flags |= SAME_NUMBER;
                    if before == port {
                        flags |= SAME;
                    }
                }
            }
            let name = port.name.as_ref().map_or(&[][..], Label::as_bytes);
            self.octets.push(flags);
            self.octets.extend_from_slice(&port.number.get().to_le_bytes());
            self.octets.push(name.len() as u8);
            self.octets.extend_from_slice(name);
        }
        self.octets[at..at + 2].copy_from_slice(&head.to_le_bytes());
        let (before, list) = self.octets.split_at(at);
        let known = self.port_lists.iter().find(|&&(at, length)| before[at..at + length] == *list);
        if let Some(&(known, _)) = known {
            self.octets.truncate(at);
            return known as u32;
        }
        if self.port_lists.len() < PORT_LISTS {
            self.port_lists.push((at, list.len()));
        }
        at as u32
    }

    /// An entry of the map. `shares_addresses`: an address is given by more than one candidate.
    pub fn end(&mut self, shares_addresses: bool) -> &[u8] {
        debug_assert_eq!(self.next, self.candidates);
        let record = Record(&self.octets);
        let first = record.candidates().next().map(|c| (c.weight(), c.ports_at()));
        let uniform = |c: Candidate| {
            let marked = c.fields[HEALTH_AT] & !mark::DOWN != 0;
            let flags = c.flags() & !flag::OVERLOADED;
            let healthy = c.health() == Health::default() && !marked;
            let plain = healthy && flags == flag::READY | flag::EXPOSED && c.counts() == [1, 1, 0, 0];
            plain && first == Some((c.weight(), c.ports_at()))
        };
        if shares_addresses {
            self.octets[1] |= SERVICE_WITH_SHARED_ADDRESSES;
        } else if self.octets[1] == SERVICE
            && (1..=MOST_UNIFORM).contains(&self.candidates)
            && record.candidates().all(uniform)
        {
            return self.uniform();
        }
        &self.octets
    }

    /// The shorter form of what was laid out.
    fn uniform(&mut self) -> &[u8] {
        let Encoder { octets, uniform: short, .. } = self;
        let record = Record(octets);
        let (start, count) = (name_end(octets), record.len());
        let first = record.candidate(0);
        // There is one port list, and nothing between the addresses.
        let (ports, addresses) = (first.ports_at() as usize, first.addresses_at() as usize);
        short.clear();
        short.extend_from_slice(&octets[..start]);
        short[1] = UNIFORM_SERVICE;
        short.extend_from_slice(&first.weight().to_le_bytes());
        record.candidates().for_each(|c| short.extend_from_slice(&c.cluster().0.to_le_bytes()));
        short.extend_from_slice(&octets[addresses..addresses + 8 * count]);
        if record.candidates().any(|c| c.shedding() != Shedding::default()) {
            short[1] |= WITH_LOAD;
            record.candidates().for_each(|c| short.extend_from_slice(&c.shedding().to_bits().to_le_bytes()));
        }
        short.extend_from_slice(&octets[ports..addresses]);
        short
    }
}

fn put(octets: &mut Vec<u8>, address: &IpAddr) {
    match address {
        IpAddr::V4(a) => octets.extend_from_slice(&a.octets()),
        IpAddr::V6(a) => octets.extend_from_slice(&a.octets()),
    }
}
