//! What to say to a query: RFC 1034 section 4.3.2, RFC 2308, RFC 8020. One function for every transport.

mod short;

use std::hint::cold_path;
use std::net::{IpAddr, Ipv4Addr};

use crate::model::{Audience, View, ViewRule, is_label};
use crate::names::{Labels, MAX_NAME};
use crate::table::{
    Begun, Chance, EXPLAIN, Extra, Found, NameHash, Node, Origin, Random, Ready, Record, RrSets, Scratch, Set,
    Snapshot, Vantage, Walk, Zone, ZoneIndex, client_number,
};
use crate::wire::response::{Options, Section};
use crate::wire::{self, Edns, ExtendedError, Fault, HEADER, Query, Request, Writer, class, pointer_to, rtype};
use short::Short;

const _: () = assert!(wire::MAX_STREAM <= u16::MAX as usize && size_of::<Reply>() <= size_of::<u64>());

/// Most CNAME and DNAME records that one answer follows. Chains in a zone file are short, loops are not.
const MAX_CHAIN: usize = 8;

/// Who asks, and over what.
#[derive(Debug, Clone, Copy)]
pub struct Client {
    pub address: IpAddr,
    /// Of the listening socket.
    pub audience: Audience,
    pub transport: Transport,
    /// How long a connection may be idle, in units of 100 ms (RFC 7828); nothing to do with UDP.
    pub keepalive: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    Udp,
    Tcp,
}

/// What to do with the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// Send its first `length` octets. As short as it is, a reply fits into one register: given by memory, its parts would be
    /// waited for, as they are not written in the pieces in which they are read.
    Send {
        length: u16,
        outcome: Outcome,
    },
    Drop(DropCause),
}

pub use crate::wire::Drop as DropCause;

/// An answer by what counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    pub rcode: Rcode,
    pub view: ViewClass,
    pub truncated: bool,
    /// It has addresses that are Down, for there are no others.
    pub fails_open: bool,
}

/// RCODEs, with NOERROR in two parts (RFC 2308 section 2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rcode {
    /// With an answer, or a referral.
    NoError,
    NoData,
    NxDomain,
    Refused,
    FormErr,
    NotImp,
    ServFail,
    BadVers,
    YxDomain,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ViewClass {
    External,
    Internal,
}

/// Answers queries, one at a time. A worker's own.
pub struct Responder {
    places: Box<[Place]>,
    scratch: Scratch,
    random: Random,
    long_way: bool,
}

/// A query that was read and not answered yet. In this order, what most queries need stands in four or five cache lines.
#[repr(C, align(64))]
struct Place {
    /// The closest above the name.
    zone: Option<ZoneIndex>,
    /// Of the service's name in the question, if there is one.
    hash: Option<NameHash>,
    /// How far the look-up of the client's place got.
    begun: Option<Begun>,
    /// Where the subnet begins that it asks for, if `by_subnet`.
    subnet: IpAddr,
    /// The client is looked for there, and not at its address.
    by_subnet: bool,
    /// It asks for a subnet, whether or not that counts.
    for_others: bool,
    /// From where to where that name (`S.N`) stands in the question's.
    service: [u8; 2],
    /// It may go the short way.
    short: bool,
    /// See [`Responder::zone_label`].
    label: u8,
    /// Of what was read: whether it is to be answered at all.
    parsed: Result<(), DropCause>,
    client: Client,
    request: Request,
    query: Query,
}

impl Responder {
    /// `seed` starts the generator behind the order of equal candidates.
    pub fn new(seed: u64) -> Responder {
        Responder::for_batches(seed, 1)
    }

    /// `places`: how many queries are read before the first of them is answered.
    pub fn for_batches(seed: u64, places: usize) -> Responder {
        let nobody = Client {
            address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            audience: ViewRule::Fixed(View::External).into(),
            transport: Transport::Udp,
            keepalive: 0,
        };
        let place = || Place {
            client: nobody,
            query: Query::new(),
            request: Request::default(),
            parsed: Err(DropCause::Short),
            zone: None,
            hash: None,
            subnet: nobody.address,
            by_subnet: false,
            begun: None,
            for_others: false,
            service: [0; 2],
            short: false,
            label: 0,
        };
        Responder {
            places: (0..places).map(|_| place()).collect(),
            scratch: Scratch::new(),
            random: Random::new(seed),
            long_way: false,
        }
    }

    /// Never takes the short way of plain queries: for the test that both say the same.
    #[doc(hidden)]
    pub fn by_the_long_way(mut self) -> Responder {
        self.long_way = true;
        self
    }

    /// `buffer[..length]` holds the query; the answer is written over it. No allocation, no lock, no system call.
    ///
    /// The buffer has at least [`wire::MAX_UDP`] octets, or [`wire::MAX_STREAM`] on streams: what does not fit into it is
    /// truncated as if the client had asked for no more.
    // Not inlined, as its halves are.
    #[inline(never)]
    pub fn answer(&mut self, table: &Snapshot<'_>, client: Client, buffer: &mut [u8], length: usize) -> Reply {
        self.read(0, table, client, &buffer[..length]);
        self.answer_read(0, table, buffer)
    }

    /// The first half of [`answer`](Responder::answer), for the queries of a batch one after the other: what each will
    /// look up is on its way from memory while the next one is read.
    #[inline(always)]
    pub fn read(&mut self, place: usize, table: &Snapshot<'_>, client: Client, message: &[u8]) {
        self.set_client(place, client);
        self.read_message(place, table, message);
    }

    /// Whose query is [read](Responder::read_message) into `place` next. By itself, so that it is stored where its parts are at hand: put
    /// together elsewhere and copied, it would have to be waited for.
    #[inline(always)]
    pub fn set_client(&mut self, place: usize, client: Client) {
        self.places[place].client = client;
    }

    /// See [`read`](Responder::read).
    #[inline(always)]
    pub fn read_message(&mut self, place: usize, table: &Snapshot<'_>, message: &[u8]) {
        let at = &mut self.places[place];
        let Place { query, request, zone, hash, .. } = at;
        (*zone, *hash, at.begun) = (None, None, None);
        (at.short, at.label) = (false, 0);
        at.parsed = wire::parse(message, query, request);
        if at.parsed.is_err() {
            cold_path();
            return;
        }
        (at.for_others, at.by_subnet) = (false, false);
        if let Some(Edns { subnet: Some(subnet), .. }) = &request.edns
            && let Some(address) = subnet.address()
        {
            (at.for_others, at.by_subnet) = (true, at.client.audience.client_subnet);
            at.subnet = address;
        }
        if request.fault.is_some() {
            cold_path();
            return;
        }
        let Some((index, closest)) = table.find_zone(query) else {
            cold_path();
            return;
        };
        *zone = Some(index);
        at.label = closest.label();
        let Some(part) = service_part(closest, query) else { return };
        at.service = part;
        let found = table.hash(closest, query.between(part));
        *hash = Some(found);
        at.short = short::is_short(request, query, closest) && !table.remembers_any();
        table.prefetch_place(at.origin());
        table.prefetch_slot(found);
    }

    /// How the zone of what was read into `place` is labelled in the table, for whoever counts; 0: its name is in none.
    #[inline]
    pub fn zone_label(&self, place: usize) -> u8 {
        self.places[place].label
    }

    /// Between the halves, when the first is done for the whole batch; with the same snapshot.
    #[inline(always)]
    pub fn prefetch(&mut self, place: usize, table: &Snapshot<'_>) {
        let at = &mut self.places[place];
        if let Some(hash) = at.hash {
            table.prefetch_entry(hash, at.query.qtype == rtype::SRV);
            at.begun = table.prefetch_order(at.origin());
        }
    }

    /// The second half of [`answer`](Responder::answer): what was [`read`](Responder::read) into `place` from this buffer, with
    /// the same snapshot.
    #[inline(always)]
    pub fn answer_read(&mut self, place: usize, table: &Snapshot<'_>, buffer: &mut [u8]) -> Reply {
        let at = &self.places[place];
        if let Err(cause) = at.parsed {
            cold_path();
            return Reply::Drop(cause);
        }
        let Place { client, query, request, zone, hash, .. } = at;
        let view = table.view(client.audience.view, &client.address, at.for_others);
        let vantage = table.vantage(view, at.origin());
        let class = match view {
            View::External => ViewClass::External,
            View::Internal(_) => ViewClass::Internal,
        };
        let mut record = None;
        if let (true, Transport::Udp, Some(zone), Some(hash)) =
            (at.short && !self.long_way, client.transport, *zone, *hash)
        {
            let name = query.between(at.service);
            let (edns, subnet_counts) = (request.edns.as_ref(), client.audience.client_subnet);
            let short = Short { query, edns, subnet_counts, zone: table.zone_at(zone), vantage };
            // To be asked before the names are looked at: what is missing now may be in a cluster that was not heard yet.
            let all_heard = !table.awaits_any();
            record = table.service(hash, short.zone, name);
            if let Some((length, rcode)) = short.answer(table, record, all_heard, buffer, &mut self.random) {
                return Reply::Send {
                    length: length as u16,
                    outcome: Outcome { rcode, view: class, truncated: false, fails_open: false },
                };
            }
        }
        cold_path();
        self.answer_at_length(place, table, Seen { vantage, class, record }, buffer)
    }

    /// Not inlined, so that the short way has the registers and a small stack frame for itself.
    #[inline(never)]
    fn answer_at_length(&mut self, place: usize, table: &Snapshot<'_>, seen: Seen<'_>, buffer: &mut [u8]) -> Reply {
        let at = &mut self.places[place];
        debug_assert!(at.parsed.is_ok());
        let origin = at.origin().address();
        let Place { client, query, request, zone, hash, .. } = at;
        let Seen { vantage, class, record } = seen;
        let mut edns = request.edns;
        if !client.audience.client_subnet {
            edns.iter_mut().for_each(|edns| edns.subnet = None);
        }
        let (stream, keepalive) = match client.transport {
            Transport::Udp => (false, None),
            Transport::Tcp => (true, Some(client.keepalive)),
        };
        let options = Options { edns, server: table.server(), keepalive };
        let mut answering = Answering {
            table,
            vantage,
            address: client.address,
            origin,
            writer: Writer::new(buffer, query.end, stream, options),
            scratch: &mut self.scratch,
            random: &mut self.random,
            zone: *zone,
            hash: hash.take(),
            record,
            stream,
            fails_open: false,
        };
        let rcode = answering.reply(request, query);
        let (truncated, fails_open) = (answering.writer.is_truncated(), answering.fails_open);
        let outcome = Outcome { rcode, view: class, truncated, fails_open };
        // Any answer is at most MAX_STREAM octets long.
        Reply::Send { length: answering.writer.finish() as u16, outcome }
    }
}

impl Place {
    #[inline]
    fn origin(&self) -> Origin<'_> {
        let address = if self.by_subnet { &self.subnet } else { &self.client.address };
        Origin::new(address, self.by_subnet).with(self.begun)
    }
}

/// What the short way found out already.
struct Seen<'a> {
    vantage: Vantage<'a>,
    class: ViewClass,
    record: Option<Record<'a>>,
}

/// One answer in the making.
struct Answering<'a, 't> {
    table: &'a Snapshot<'t>,
    vantage: Vantage<'a>,
    /// The client's.
    address: IpAddr,
    /// The same, or that for which it asks.
    origin: IpAddr,
    writer: Writer<'a>,
    scratch: &'a mut Scratch,
    random: &'a mut Random,
    zone: Option<ZoneIndex>,
    /// Of the service's name in the question; not of what an alias leads to.
    hash: Option<NameHash>,
    /// What was found there already.
    record: Option<Record<'a>>,
    stream: bool,
    /// See [`Outcome::fails_open`].
    fails_open: bool,
}

/// What a name and a type come to in a zone.
enum Step<'a> {
    /// A set of the zone file; its additional records belong to the question as it stands.
    Static(&'a RrSets, &'a Ready),
    /// A set of a service whose name has this many labels.
    Service {
        record: Record<'a>,
        set: Set,
        labels: usize,
    },
    /// Why the answers of this service are as they are.
    Why {
        record: Record<'a>,
    },
    NoData {
        pending: bool,
    },
    NxDomain,
    Referral {
        node: &'a Node,
        labels: usize,
        mandatory_glue: bool,
    },
    Dname {
        node: &'a Node,
        labels: usize,
    },
    NotReady,
}

impl<'t> Answering<'_, 't> {
    /// The checks that come before any name is looked at.
    fn reply(&mut self, request: &Request, query: &mut Query) -> Rcode {
        if request.opcode != 0 {
            return self.refuse(wire::Rcode::NotImp, None);
        }
        if request.edns.is_some_and(|edns| edns.version > 0) {
            return self.refuse(wire::Rcode::BadVers, None);
        }
        match request.fault {
            Some(Fault::Question | Fault::Records) => return self.refuse(wire::Rcode::FormErr, None),
            None => {}
        }
        // RFC 7828 section 3.2.1: no time-out from a client; over UDP the option means nothing.
        if self.stream && request.edns.is_some_and(|edns| edns.keepalive_value) {
            return self.refuse(wire::Rcode::FormErr, None);
        }
        match query.qclass {
            class::IN | class::ANY => {}
            class::CH => return self.chaos(query),
            _ => return self.refuse(wire::Rcode::Refused, None),
        }
        let mut qtype = query.qtype;
        match qtype {
            rtype::NXNAME => return self.refuse(wire::Rcode::FormErr, Some(ExtendedError::InvalidQueryType)),
            rtype::OPT | rtype::TSIG => return self.refuse(wire::Rcode::FormErr, None),
            rtype::TKEY | rtype::MAILA | rtype::MAILB => return self.refuse(wire::Rcode::NotImp, None),
            rtype::AXFR if !self.stream => return self.refuse(wire::Rcode::FormErr, None),
            rtype::AXFR => return self.refuse(wire::Rcode::Refused, Some(ExtendedError::Prohibited)),
            rtype::IXFR if self.stream => {
                return self.refuse(wire::Rcode::Refused, Some(ExtendedError::Prohibited));
            }
            // RFC 1995 section 2: a server that does not transfer by UDP answers with its SOA.
            rtype::IXFR => qtype = rtype::SOA,
            _ => {}
        }
        let zone = if qtype == rtype::DS { self.table.zone_of_ds(query) } else { self.zone };
        match zone {
            Some(zone) if self.table.refuses(self.table.zone_at(zone), self.vantage) => {
                self.refuse(wire::Rcode::Refused, Some(ExtendedError::Prohibited))
            }
            Some(zone) => self.resolve(self.table.zone_at(zone), query, qtype),
            None => self.refuse(wire::Rcode::Refused, Some(ExtendedError::NotAuthoritative)),
        }
    }

    fn refuse(&mut self, rcode: wire::Rcode, why: Option<ExtendedError>) -> Rcode {
        self.writer.set_rcode(rcode);
        if let Some(why) = why {
            self.writer.set_extended_error(why);
        }
        match rcode {
            wire::Rcode::NoError => Rcode::NoError,
            wire::Rcode::FormErr => Rcode::FormErr,
            wire::Rcode::ServFail => Rcode::ServFail,
            wire::Rcode::NxDomain => Rcode::NxDomain,
            wire::Rcode::NotImp => Rcode::NotImp,
            wire::Rcode::Refused => Rcode::Refused,
            wire::Rcode::YxDomain => Rcode::YxDomain,
            wire::Rcode::BadVers => Rcode::BadVers,
        }
    }

    /// RFC 1034 section 4.3.2 from step 3 on, once for each name of a chain.
    fn resolve<'q>(&mut self, zone: &'q Zone, query: &mut Query, qtype: u16) -> Rcode
    where
        Self: 'q,
    {
        let table = self.table;
        let mut zone = zone;
        // Where the name that is looked up stands in the message.
        let mut owner = HEADER;
        let mut owners = [HEADER; MAX_CHAIN];
        self.writer.set_authoritative(true);
        for link in 0..MAX_CHAIN {
            owners[link] = owner;
            let before = self.writer.position();
            let (hash, record) = (self.hash.take(), self.record.take());
            let (vantage, address) = (self.vantage, self.address);
            let lookup = Lookup { table, zone, vantage, address, query, qtype, hash, record };
            let mut chance = Chance { random: &mut *self.random, origin: self.origin };
            match lookup.step(self.scratch, &mut chance) {
                Step::Service { record, set, labels } => {
                    let sight = table.sight(record, zone, self.vantage);
                    if table.remembers(record) {
                        self.writer.set_extended_error(ExtendedError::StaleAnswer);
                    }
                    if set.goes_by_place() {
                        self.writer.narrow_scope(self.vantage.scope());
                    }
                    self.fails_open = set.fails_open(self.scratch);
                    let client = sight.is_sticky().then(|| client_number(self.origin, record));
                    let mut own = Random::new(client.unwrap_or_default());
                    let random = if client.is_some() { &mut own } else { &mut *self.random };
                    if !sight.write(set, &mut self.writer, owner, self.scratch, random, client) {
                        self.writer.truncate();
                    } else if owner == HEADER {
                        sight.write_extra(set, &mut self.writer, HEADER + query.suffix_at(labels), self.scratch);
                    }
                    return Rcode::NoError;
                }
                Step::Why { record } => {
                    let sight = table.sight(record, zone, self.vantage);
                    if !sight.write_why(&mut self.writer, owner, self.scratch) {
                        self.writer.truncate();
                    }
                    return Rcode::NoError;
                }
                Step::Static(sets, set) => {
                    if !sets.write(set, &mut self.writer, Section::Answer, owner) {
                        self.writer.truncate();
                        return Rcode::NoError;
                    }
                    let alias = set.rtype() == rtype::CNAME && qtype != rtype::CNAME && qtype != rtype::ANY;
                    if !alias {
                        if owner == HEADER {
                            // What does not fit of these is left out without TC.
                            let _ = sets.write_extra(set, &mut self.writer);
                        }
                        return Rcode::NoError;
                    }
                    owner = before + 12;
                }
                Step::Dname { node, labels } => match self.dname(node, labels, owner, query) {
                    Ok(_) if qtype == rtype::CNAME => return Rcode::NoError,
                    Ok(target) => owner = target,
                    Err(rcode) => return rcode,
                },
                Step::Referral { node, labels, mandatory_glue } => {
                    return self.referral(node, owner + query.suffix_at(labels), owner, mandatory_glue);
                }
                Step::NoData { pending } => {
                    let ttl = if pending { zone.nxdomain_ttl() } else { zone.nodata_ttl() };
                    self.negative(zone, query, owner, ttl);
                    return Rcode::NoData;
                }
                Step::NxDomain => {
                    self.writer.set_rcode(wire::Rcode::NxDomain);
                    self.negative(zone, query, owner, zone.nxdomain_ttl());
                    return Rcode::NxDomain;
                }
                Step::NotReady => {
                    // Also of an alias that led here: a failure is about the whole answer.
                    self.writer.clear();
                    self.writer.set_authoritative(false);
                    return self.refuse(wire::Rcode::ServFail, Some(ExtendedError::NotReady));
                }
            }
            // An alias: on with its target, if that is ours.
            if query.read_name(self.writer.message(), owner).is_none() {
                return Rcode::NoError;
            }
            // A loop is told once: no record comes twice in an answer (RFC 2181 section 5).
            let message = self.writer.message();
            let is_query = |at: &usize| {
                message.get(*at..at + query.name().len()).is_some_and(|name| name.eq_ignore_ascii_case(query.name()))
            };
            if owners[..=link].iter().any(is_query) {
                return Rcode::NoError;
            }
            let next = if qtype == rtype::DS { table.zone_of_ds(query) } else { table.zone(query) };
            match next {
                Some(next) if !table.refuses(table.zone_at(next), self.vantage) => zone = table.zone_at(next),
                Some(_) | None => return Rcode::NoError,
            }
        }
        Rcode::NoError
    }

    /// RFC 2308: the SOA, with the time for which the negative answer holds as its TTL.
    fn negative(&mut self, zone: &Zone, query: &Query, owner: usize, ttl: u32) {
        let soa = zone.soa();
        let pointer = pointer_to(owner + query.suffix_at(zone.soa_label_count()));
        match self.writer.reserve_records(Section::Authority, soa.octet_count(), 1) {
            Some(target) => soa.write(target, pointer, ttl),
            None => self.writer.truncate(),
        }
    }

    /// RFC 1034 section 4.3.2 step 3b.
    fn referral(&mut self, node: &Node, cut: usize, owner: usize, mandatory_glue: bool) -> Rcode {
        if owner == HEADER {
            self.writer.set_authoritative(false);
        }
        let Some(set) = node.sets.find(rtype::NS, false) else { return Rcode::NoError };
        if !node.sets.write(set, &mut self.writer, Section::Authority, cut) {
            self.writer.truncate();
            return Rcode::NoError;
        }
        // RFC 9471: a referral without the glue that it needs is truncated.
        if node.sets.write_extra(set, &mut self.writer) == Extra::Incomplete && mandatory_glue {
            self.writer.truncate();
        }
        Rcode::NoError
    }

    /// RFC 6672: the DNAME and the CNAME made from it. Returns where the CNAME's target stands.
    fn dname(&mut self, node: &Node, labels: usize, owner: usize, query: &Query) -> Result<usize, Rcode> {
        let Some(set) = node.sets.find(rtype::DNAME, false) else { return Err(Rcode::NoError) };
        let dname = owner + query.suffix_at(labels);
        if !node.sets.write(set, &mut self.writer, Section::Answer, dname) {
            self.writer.truncate();
            return Err(Rcode::NoError);
        }
        let prefix = query.prefix(labels);
        let target = node.sets.first_rdata(set);
        let length = prefix.len() + target.len();
        if length > MAX_NAME {
            return Err(self.refuse(wire::Rcode::YxDomain, None));
        }
        let at = self.writer.position();
        let Some(record) = self.writer.reserve_records(Section::Answer, 12 + length, 1) else {
            self.writer.truncate();
            return Err(Rcode::NoError);
        };
        record[..2].copy_from_slice(&pointer_to(owner));
        record[2..6].copy_from_slice(&[0, rtype::CNAME as u8, 0, class::IN as u8]);
        record[6..10].copy_from_slice(&node.sets.first_ttl(set).to_be_bytes());
        record[10..12].copy_from_slice(&(length as u16).to_be_bytes());
        record[12..12 + prefix.len()].copy_from_slice(prefix);
        record[12 + prefix.len()..].copy_from_slice(target);
        Ok(at + 12)
    }

    /// Who we are, in the class CHAOS (RFC 4892).
    fn chaos(&mut self, query: &Query) -> Rcode {
        let text = match query.name() {
            b"\x07version\x04bind\0" | b"\x07version\x06server\0" => self.table.version(),
            b"\x02id\x06server\0" | b"\x08hostname\x04bind\0" => self.table.server(),
            _ => None,
        };
        let Some(text) = text else { return self.refuse(wire::Rcode::Refused, None) };
        self.writer.set_authoritative(true);
        if query.qtype != rtype::TXT && query.qtype != rtype::ANY {
            return Rcode::NoData;
        }
        // Config::load keeps the texts within one character-string.
        let length = text.len().min(255);
        match self.writer.reserve_records(Section::Answer, 13 + length, 1) {
            Some(record) => {
                record[..2].copy_from_slice(&wire::QUESTION_POINTER);
                record[2..10].copy_from_slice(&[0, rtype::TXT as u8, 0, class::CH as u8, 0, 0, 0, 0]);
                record[10..12].copy_from_slice(&(length as u16 + 1).to_be_bytes());
                record[12] = length as u8;
                record[13..].copy_from_slice(&text[..length]);
            }
            None => self.writer.truncate(),
        }
        Rcode::NoError
    }
}

/// One name and type in one zone, for one view.
#[derive(Clone, Copy)]
struct Lookup<'a, 't, 'q> {
    table: &'a Snapshot<'t>,
    zone: &'a Zone,
    vantage: Vantage<'a>,
    /// The client's.
    address: IpAddr,
    query: &'q Query,
    qtype: u16,
    /// Of the service's name, where it is known already.
    hash: Option<NameHash>,
    /// What stands there, where that is known already.
    record: Option<Record<'a>>,
}

impl<'a> Lookup<'a, '_, '_> {
    fn step(self, scratch: &mut Scratch, chance: &mut Chance<'_>) -> Step<'a> {
        let Lookup { table, zone, query, qtype, .. } = self;
        let relative = query.label_count() - zone.label_count();
        let mut exists = false;
        let mut encloser = None;
        // Static data that can stand at or above the name comes first (RFC 1034 section 4.3.2 step 3).
        if relative < 2 || zone.is_deep() || !zone.is_federation() {
            match zone.walk(query, qtype == rtype::DS) {
                Walk::Exact(node) if node.has_sets() => return from_node(node, qtype),
                Walk::Exact(_) => exists = true,
                Walk::Cut { node, labels, mandatory_glue } => return Step::Referral { node, labels, mandatory_glue },
                Walk::Dname { node, labels } => return Step::Dname { node, labels },
                Walk::Encloser { labels } => encloser = Some(labels),
            }
        }
        if zone.is_federation() && relative >= 1 {
            let awaits = table.awaits_any() && table.awaits(label(query, zone.label_count() + 1));
            match self.federated(scratch, chance) {
                Federated::Is(step) => return step,
                Federated::Namespace if awaits => {}
                Federated::Namespace => return if exists { Step::NoData { pending: false } } else { Step::NxDomain },
                Federated::Nothing => {}
            }
            if awaits && relative == 1 {
                return Step::NoData { pending: false };
            }
            if awaits && is_label(label(query, zone.label_count() + 2)) {
                return Step::NotReady;
            }
        }
        if exists {
            return Step::NoData { pending: false };
        }
        if zone.has_wildcards() {
            let labels = encloser.unwrap_or_else(|| match zone.walk(query, false) {
                Walk::Encloser { labels } => labels,
                Walk::Exact(_) | Walk::Cut { .. } | Walk::Dname { .. } => zone.label_count(),
            });
            if let Some(node) = zone.wildcard(query, labels) {
                return from_node(node, qtype);
            }
        }
        Step::NxDomain
    }

    /// The part of a federation's zone that the clusters fill.
    fn federated(self, scratch: &mut Scratch, chance: &mut Chance<'_>) -> Federated<'a> {
        let Lookup { table, zone, vantage, query, qtype, hash, record, .. } = self;
        let depth = zone.label_count();
        let hashed = || Some(table.hash(zone, query.between(service_part(zone, query)?)));
        let Some(hash) = hash.or_else(hashed) else {
            let namespace = table.has_namespace(zone, query.prefix(depth), vantage);
            return if namespace { Federated::Is(Step::NoData { pending: false }) } else { Federated::Nothing };
        };
        let labels = depth + 2;
        if let Some(record) = record.or_else(|| table.service(hash, zone, query.part(labels, depth)))
            && let Some(found) = table.sight(record, zone, vantage).look_up(
                query.prefix(labels),
                qtype,
                qtype == rtype::ANY,
                scratch,
                chance,
            )
        {
            match found {
                Found::Set(set) => return Federated::Is(Step::Service { record, set, labels }),
                Found::NoData { pending } => return Federated::Is(Step::NoData { pending }),
                Found::Missing if query.prefix(labels) == EXPLAIN && table.explains_to(self.address) => {
                    return Federated::Is(match qtype {
                        rtype::TXT | rtype::ANY => Step::Why { record },
                        _ => Step::NoData { pending: false },
                    });
                }
                Found::Missing => {}
            }
        }
        // Only a wildcard needs to know whether the namespace is there.
        let namespace = zone.has_wildcards() && table.has_namespace(zone, query.part(depth + 1, depth), vantage);
        if namespace { Federated::Namespace } else { Federated::Nothing }
    }
}

fn from_node(node: &Node, qtype: u16) -> Step<'_> {
    match node.sets.find(qtype, qtype == rtype::ANY).or_else(|| node.sets.find(rtype::CNAME, false)) {
        Some(set) => Step::Static(&node.sets, set),
        None => Step::NoData { pending: false },
    }
}

enum Federated<'a> {
    Is(Step<'a>),
    /// Not there, in a namespace that is: no wildcard applies.
    Namespace,
    Nothing,
}

/// From where to where `S.N` stands in the name. `None`: it is no service's, nor below one's.
#[inline]
fn service_part(zone: &Zone, query: &Query) -> Option<[u8; 2]> {
    let depth = zone.label_count();
    let has = zone.is_federation() && query.label_count().saturating_sub(depth) >= 2;
    // No octet of a name is beyond 255.
    has.then(|| [query.suffix_at(depth + 2) as u8, query.suffix_at(depth) as u8])
}

/// The first of the name's last `count` labels.
fn label(query: &Query, count: usize) -> &[u8] {
    Labels::new(query.suffix(count)).next().unwrap_or_default()
}
