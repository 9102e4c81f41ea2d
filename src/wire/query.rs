//! A query's octets → what was asked. Work and memory are bounded by the length of the message.

use std::hint::cold_path;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{HEADER, option, read_u16, rtype};
use crate::names::{Labels, MAX_NAME, block};

/// A name of 255 octets has at most 127 labels before the root; a power of two costs no check.
const OFFSETS: usize = 128;

/// Octets of an EDNS option's code and length, and of a client-subnet option in front of its address.
const OPTION: usize = 4;
const SUBNET_FIXED: usize = 4;

/// Octets that are lowered at once.
const LOWER: usize = 16;
/// A name, with what follows it, of at least so many is lowered in four such blocks, as far as so many go.
const TWICE: usize = 2 * LOWER;
const FOUR_TIMES: usize = 4 * LOWER;
const NAME_ROOM: usize = MAX_NAME.next_multiple_of(LOWER);

/// Reasons to say nothing at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Drop {
    /// Shorter than a header.
    Short,
    /// An answer: answering it could start a loop.
    Response,
}

/// Why a message is FORMERR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// There is not exactly one whole question: nothing can be echoed.
    Question,
    /// What follows the question is broken.
    Records,
}

/// The OPT record of a query (RFC 6891), cut to what is acted upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Edns {
    pub version: u8,
    pub payload: u16,
    pub dnssec_ok: bool,
    /// The query has an empty NSID option (RFC 5001).
    pub nsid: bool,
    /// The query has an edns-tcp-keepalive option (RFC 7828).
    pub keepalive: bool,
    /// The option has a value, which only a server's may have.
    pub keepalive_value: bool,
    pub subnet: Option<Subnet>,
}

/// A client-subnet option (RFC 7871): where the client is for whom a resolver asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnet {
    /// FAMILY: 1 for IPv4, 2 for IPv6, or 0.
    family: u8,
    /// SOURCE PREFIX-LENGTH: bits of the address that are given.
    source: u8,
    /// With zeros behind that prefix.
    address: [u8; 16],
}

impl Subnet {
    /// The first address of the subnet; `None`: the client does not want to say (RFC 7871 section 7.1.2).
    #[inline]
    pub fn address(&self) -> Option<IpAddr> {
        match (self.source, self.family) {
            (0, _) | (_, 0) => None,
            (_, 1) => Some(Ipv4Addr::from(*self.address.first_chunk().expect("4 of 16")).into()),
            _ => Some(Ipv6Addr::from(self.address).into()),
        }
    }

    /// Octets of the option in an answer.
    #[inline]
    pub fn octet_count(&self) -> usize {
        OPTION + SUBNET_FIXED + usize::from(self.source).div_ceil(8)
    }

    /// Writes the option as an answer has it: the same with SCOPE PREFIX-LENGTH. `target` is [`octet_count`] octets long.
    ///
    /// [`octet_count`]: Subnet::octet_count
    #[inline(always)]
    pub fn write(&self, target: &mut [u8], scope: u8) {
        let (head, address) = target.split_at_mut(OPTION + SUBNET_FIXED);
        let length = (SUBNET_FIXED + address.len()) as u8;
        head.copy_from_slice(&[0, option::CLIENT_SUBNET as u8, 0, length, 0, self.family, self.source, scope]);
        // Most are of 24 bits: a known length is two moves and no call.
        match address.as_mut_array::<3>() {
            Some(address) => *address = *self.address.first_chunk().expect("3 of 16"),
            None => address.copy_from_slice(&self.address[..address.len()]),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Request {
    pub opcode: u8,
    pub edns: Option<Edns>,
    pub fault: Option<Fault>,
}

/// The question, with its name in lower case. One instance is used again for every query of a worker. In this order, few cache
/// lines of it are touched, as most names are short.
#[repr(C)]
pub struct Query {
    pub qtype: u16,
    pub qclass: u16,
    /// Where the question ends in the message.
    pub end: usize,
    length: usize,
    labels: usize,
    offsets: [u8; OFFSETS],
    /// Behind the name stands anything.
    name: [u8; NAME_ROOM],
}

impl Query {
    pub fn new() -> Query {
        Query { name: [0; NAME_ROOM], length: 1, offsets: [0; OFFSETS], labels: 0, qtype: 0, qclass: 0, end: HEADER }
    }

    /// Wire form, lower case, with the root's octet.
    #[inline]
    pub fn name(&self) -> &[u8] {
        &self.name[..self.length]
    }

    /// Labels before the root.
    #[inline]
    pub fn label_count(&self) -> usize {
        self.labels
    }

    /// Where the name's last `count` labels (and the root) begin.
    #[inline]
    pub fn suffix_at(&self, count: usize) -> usize {
        debug_assert!(count <= self.labels);
        if count == 0 { self.length - 1 } else { usize::from(self.offsets[(self.labels - count) % OFFSETS]) }
    }

    /// The last `count` labels and the root.
    #[inline]
    pub fn suffix(&self, count: usize) -> &[u8] {
        &self.name[self.suffix_at(count)..self.length]
    }

    /// The last `count` labels without the last `without` of them.
    #[inline]
    pub fn part(&self, count: usize, without: usize) -> &[u8] {
        &self.name[self.suffix_at(count)..self.suffix_at(without)]
    }

    /// The octets of the name from `start` to before `end`.
    #[inline]
    pub fn between(&self, [start, end]: [u8; 2]) -> &[u8] {
        &self.name[usize::from(start)..usize::from(end)]
    }

    /// What stands in front of the last `count` labels.
    #[inline]
    pub fn prefix(&self, count: usize) -> &[u8] {
        &self.name[..self.suffix_at(count)]
    }

    /// The first two labels, without their lengths; empty where there is none.
    pub fn first_labels(&self) -> [&[u8]; 2] {
        let mut labels = Labels::new(self.name());
        std::array::from_fn(|_| labels.next().unwrap_or_default())
    }

    /// Reads a name that stands uncompressed at `at`; returns where it ends. `None`: it is broken.
    #[inline(always)]
    pub fn read_name(&mut self, message: &[u8], at: usize) -> Option<usize> {
        let message = message.get(at..)?;
        // No name goes on beyond that; 64 and more is a compression pointer, which a question must not have, or a type of
        // label that nobody uses.
        let room = &message[..message.len().min(MAX_NAME)];
        // Before the labels are walked, which takes as long, and both go on side by side then. It would be waited for behind.
        let early = room.len().min(FOUR_TIMES);
        if early >= TWICE {
            copy_ends_lowered(&room[..early], &mut self.name);
        }
        let (labels, length) = 'name: {
            let mut here = 0;
            for labels in 0..OFFSETS {
                let length = *room.get(here)?;
                // Of one to 63 octets, in one comparison.
                if length.wrapping_sub(1) > 62 {
                    match length {
                        0 => break 'name (labels, here + 1),
                        _ => return None,
                    }
                }
                // Below 255.
                self.offsets[labels] = here as u8;
                here += 1 + usize::from(length);
            }
            return None;
        };
        (self.labels, self.length) = (labels, length);
        if length > early || early < TWICE {
            copy_any_lowered(&room[..length], &mut self.name);
        }
        Some(at + length)
    }
}

/// Of [`TWICE`] to [`FOUR_TIMES`] octets: blocks from both ends, which may overlap. No loop, of which the processor would have to
/// guess the end.
#[inline(always)]
fn copy_ends_lowered(from: &[u8], to: &mut [u8; NAME_ROOM]) {
    // Cut so that nobody has to check that it is below 64.
    let at = |end: usize| (from.len() - end) % FOUR_TIMES;
    for at in [0, LOWER, at(TWICE), at(LOWER)] {
        to[at..at + LOWER].copy_from_slice(&lowered(block(from, at)));
    }
}

/// Length octets are at most 63 and no letters, so they stay as they are. `to` is at least as long as `from`, and gets
/// anything behind it.
#[cold]
#[inline(never)]
fn copy_any_lowered(from: &[u8], to: &mut [u8; NAME_ROOM]) {
    // Whole blocks take few instructions; the last one overlaps the one before.
    let Some(last) = from.last_chunk::<LOWER>() else {
        for (to, from) in to.iter_mut().zip(from) {
            *to = from.to_ascii_lowercase();
        }
        return;
    };
    for (to, from) in to.as_chunks_mut::<LOWER>().0.iter_mut().zip(from.as_chunks::<LOWER>().0) {
        *to = lowered(from);
    }
    if let Some(to) = to[..from.len()].last_chunk_mut() {
        *to = lowered(last);
    }
}

#[inline(always)]
fn lowered(block: &[u8; LOWER]) -> [u8; LOWER] {
    // What `map` is made of is functions, and whether they are inlined is not for us to say.
    let mut lowered = *block;
    for octet in &mut lowered {
        // Whether it is an upper-case letter, in one comparison: the 26 of them are the lowest signed numbers then.
        let is_upper = (octet.wrapping_add(0x80 - b'A') as i8) < i8::MIN + 26;
        *octet |= u8::from(is_upper) << 5;
    }
    lowered
}

impl Default for Query {
    fn default() -> Self {
        Query::new()
    }
}

/// Reads one message, in the place of what `query` and `request` hold. `Err`: say nothing; they hold what they did. After
/// [`Fault::Question`] nothing of the query's name holds.
#[inline(always)]
pub fn parse(message: &[u8], query: &mut Query, request: &mut Request) -> Result<(), Drop> {
    if message.len() < HEADER {
        return Err(Drop::Short);
    }
    if message[2] & 0x80 != 0 {
        return Err(Drop::Response);
    }
    (request.opcode, request.edns, request.fault) = (message[2] >> 3 & 0x0F, None, None);
    query.end = HEADER;
    if read_u16(message, 4) != 1 || read_question(message, query).is_none() {
        cold_path();
        request.fault = Some(Fault::Question);
        return Ok(());
    }
    if message[6..HEADER] != [0; 6] && !read_usual_opt(message, query.end, &mut request.edns) {
        cold_path();
        if read_records(message, query.end, &mut request.edns).is_none() {
            request.fault = Some(Fault::Records);
        }
    }
    Ok(())
}

#[inline(always)]
fn read_question(message: &[u8], query: &mut Query) -> Option<()> {
    let end = query.read_name(message, HEADER)?;
    if message.len() < end + 4 {
        return None;
    }
    query.qtype = read_u16(message, end);
    query.qclass = read_u16(message, end + 2);
    query.end = end + 4;
    Some(())
}

/// What [`read_records`] does where nothing follows the question but an OPT record as most are: of version 0, without options,
/// with a client's cookie (RFC 7873, which nothing is done with), or with a client subnet of an IPv4 /24. False: it is to be asked.
#[inline(always)]
fn read_usual_opt(message: &[u8], at: usize, edns: &mut Option<Edns>) -> bool {
    // Whole words are compared, as octets one by one would be: what may differ is masked out.
    const ADDITIONAL: [u8; 6] = [0, 0, 0, 0, 0, 1];
    const HEAD: u64 = u64::from_be_bytes([0, 0, rtype::OPT as u8, 0, 0, 0, 0, 0]);
    const HEAD_MASK: u64 = u64::from_be_bytes([0xFF, 0xFF, 0xFF, 0, 0, 0, 0xFF, 0]);
    const COOKIE: u8 = option::COOKIE as u8;
    const SUBNET: u64 = u64::from_be_bytes([0, 11, 0, option::CLIENT_SUBNET as u8, 0, 7, 0, 1]);
    let Some((head, rest)) = message.get(at..).and_then(<[u8]>::split_first_chunk::<8>) else { return false };
    if message[6..HEADER] != ADDITIONAL || u64::from_be_bytes(*head) & HEAD_MASK != HEAD {
        return false;
    }
    let [_, _, _, high, low, _, version, flags] = *head;
    let payload = u16::from_be_bytes([high, low]);
    let said = Edns { version, payload, dnssec_ok: flags & 0x80 != 0, ..Edns::default() };
    // Stored in each case by itself: what is put together first has to be copied.
    match *rest {
        [_, 0, 0] | [_, 0, 12, 0, COOKIE, 0, 8, _, _, _, _, _, _, _, _] => *edns = Some(said),
        [_, a0, a1, a2, a3, a4, a5, a6, a7, 24, 0, a, b, c]
            if u64::from_be_bytes([a0, a1, a2, a3, a4, a5, a6, a7]) == SUBNET =>
        {
            // What is written in other pieces than it is read again has to be waited for.
            let address = u128::from(u32::from_le_bytes([a, b, c, 0])).to_le_bytes();
            *edns = Some(Edns { subnet: Some(Subnet { family: 1, source: 24, address }), ..said });
        }
        _ => return false,
    }
    true
}

/// Walks the records after the question and picks the OPT. What follows the last record is ignored.
fn read_records(message: &[u8], at: usize, edns: &mut Option<Edns>) -> Option<()> {
    // At most 3 × 65,535 by the header, but each record takes at least 11 octets of the message.
    let others = u32::from(read_u16(message, 6)) + u32::from(read_u16(message, 8));
    let additional = u32::from(read_u16(message, 10));
    let mut at = at;
    for n in 0..others + additional {
        let owner = at;
        at = skip_name(message, at)?;
        let fixed = message.get(at..at + 10)?;
        let rdata_at = at + 10;
        let rdata = message.get(rdata_at..rdata_at + usize::from(read_u16(fixed, 8)))?;
        if read_u16(fixed, 0) == rtype::OPT {
            // RFC 6891 section 6.1.1: in the additional section, once, owned by the root.
            if n < others || edns.is_some() || message[owner] != 0 {
                return None;
            }
            let seen = edns.insert(Edns {
                version: fixed[5],
                payload: read_u16(fixed, 2),
                dnssec_ok: fixed[6] & 0x80 != 0,
                ..Edns::default()
            });
            // The options of another version may mean anything (RFC 6891 section 6.1.3).
            if seen.version == 0 {
                read_options(rdata, seen)?;
            }
        }
        at = rdata_at + rdata.len();
    }
    Some(())
}

fn read_options(rdata: &[u8], edns: &mut Edns) -> Option<()> {
    let mut rest = rdata;
    while !rest.is_empty() {
        let head = rest.get(..4)?;
        let value = rest.get(4..4 + usize::from(read_u16(head, 2)))?;
        match read_u16(head, 0) {
            option::NSID => edns.nsid = true,
            option::TCP_KEEPALIVE => {
                edns.keepalive = true;
                edns.keepalive_value |= !value.is_empty();
            }
            // Two of them could say two things of one client.
            option::CLIENT_SUBNET if edns.subnet.is_some() => return None,
            option::CLIENT_SUBNET => edns.subnet = Some(read_subnet(value)?),
            _ => {}
        }
        rest = &rest[4 + value.len()..];
    }
    Some(())
}

/// RFC 7871 section 6 and 7.1.2: the shape of an option in a query.
fn read_subnet(value: &[u8]) -> Option<Subnet> {
    let head = value.get(..SUBNET_FIXED)?;
    let (family, source, scope) = (read_u16(head, 0), head[2], head[3]);
    let widest = match family {
        0 => 0,
        1 => 32,
        2 => 128,
        _ => return None,
    };
    let given = &value[SUBNET_FIXED..];
    if source > widest || scope != 0 || given.len() != usize::from(source).div_ceil(8) {
        return None;
    }
    let mut address = [0; 16];
    address[..given.len()].copy_from_slice(given);
    // Bits beyond SOURCE PREFIX-LENGTH are zero.
    let spare = (8 - source % 8) % 8;
    match given.last() {
        Some(last) if last & ((1u16 << spare) - 1) as u8 != 0 => None,
        _ => Some(Subnet { family: family as u8, source, address }),
    }
}

fn skip_name(message: &[u8], at: usize) -> Option<usize> {
    let mut at = at;
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            n @ 1..=63 => at += 1 + usize::from(n),
            0xC0..=0xFF => return Some(at + 2),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Where the short way has something to say, it is what the long way says.
    fn assert_usual_is_as_long(message: &[u8], end: usize) {
        let (mut usual, mut long) = (None, None);
        let (is_usual, read) = (read_usual_opt(message, end, &mut usual), read_records(message, end, &mut long));
        assert!(!is_usual || read.is_some() && usual == long, "{message:?}");
    }

    #[test]
    fn the_usual_records() {
        let subnet = [0, 8, 0, 7, 0, 1, 24, 0, 192, 0, 2];
        let end = with_opt(&[]).len() - 11;
        let cookie = [0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8];
        let usual = [&[][..], &subnet, &cookie];
        let others = [&[0, 3, 0, 0][..], &[0, 8, 0, 4, 0, 0, 0, 0], &[0; 11], &[0; 12]];
        for options in usual.into_iter().chain(others) {
            let message = with_opt(options);
            assert_eq!(read_usual_opt(&message, end, &mut None), usual.contains(&options), "{options:?}");
            // One octet of another value, and more or fewer of them.
            for at in 0..message.len() {
                for value in 0..=255 {
                    let mut other = message.clone();
                    other[at] = value;
                    assert_usual_is_as_long(&other, end);
                }
                let at = at.max(end);
                assert_usual_is_as_long(&[&message[..at], &[0], &message[at..]].concat(), end);
                assert_usual_is_as_long(&message[..at], end);
            }
            assert_usual_is_as_long(&[&message[..], &[0]].concat(), end);
        }
    }

    fn parse(message: &[u8], query: &mut Query) -> Result<Request, Drop> {
        // What another message left does not stay.
        let edns = Some(Edns { nsid: true, ..Edns::default() });
        let mut request = Request { opcode: 7, edns, fault: Some(Fault::Records) };
        super::parse(message, query, &mut request).map(|()| request)
    }

    fn question(name: &[u8]) -> Vec<u8> {
        let mut m = vec![0x12, 0x34, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        m.extend_from_slice(name);
        m.extend_from_slice(&[0, 1, 0, 1]);
        m
    }

    fn with_opt(options: &[u8]) -> Vec<u8> {
        let mut m = question(b"\x01a\x00");
        m[11] = 1;
        m.extend_from_slice(&[0, 0, 41, 0x04, 0xD0, 0, 0, 0x80, 0]);
        m.extend_from_slice(&(options.len() as u16).to_be_bytes());
        m.extend_from_slice(options);
        m
    }

    #[test]
    fn names_are_lowered_and_cut_by_label() {
        let mut q = Query::new();
        let m = question(b"\x03WwW\x07ExAmPle\x03cOm\x00");
        let r = parse(&m, &mut q).unwrap();
        assert_eq!(r, Request { opcode: 0, edns: None, fault: None });
        assert_eq!(q.name(), b"\x03www\x07example\x03com\x00");
        assert_eq!(q.label_count(), 3);
        assert_eq!(q.suffix(2), b"\x07example\x03com\x00");
        assert_eq!(q.prefix(2), b"\x03www");
        assert_eq!((q.part(3, 1), q.part(2, 2)), (&b"\x03www\x07example"[..], &b""[..]));
        assert_eq!((q.suffix(0), q.prefix(3)), (&b"\x00"[..], &b""[..]));
        assert_eq!(q.end, m.len());
    }

    #[test]
    fn names_of_every_length() {
        // Letters of both cases, and what stands beside them in ASCII and, with the highest bit, beyond.
        let octets: Vec<u8> = (b'?'..=b'{').chain(0xBF..=0xFB).chain([0, 0x20, 0x7F, 0xFF]).collect();
        let label = |from: usize, length: usize| {
            let octets = octets.iter().cycle().skip(from).take(length);
            [length as u8].into_iter().chain(octets.copied())
        };
        let mut lengths = HashSet::new();
        for (labels, each) in (0..=127).flat_map(|labels| (1..=63).map(move |each| (labels, each))) {
            // The last label makes the difference.
            for last in 1..=each {
                let mut name: Vec<u8> = (1..labels).flat_map(|n| label(n * each, each)).collect();
                name.extend(label(last, last).take(if labels > 0 { 64 } else { 0 }));
                name.push(0);
                if name.len() > MAX_NAME {
                    break;
                }
                for behind in [0, 3, 70] {
                    let (mut q, mut m) = (Query::new(), question(&name));
                    m.resize(m.len() + behind, b'Z');
                    assert_eq!(parse(&m, &mut q).unwrap().fault, None, "{name:?}");
                    assert_eq!(q.name(), name.to_ascii_lowercase(), "{name:?}");
                }
                lengths.insert(name.len());
            }
        }
        assert_eq!(lengths.len(), MAX_NAME - 1, "all but 2");
    }

    #[test]
    fn broken_questions() {
        let mut long = Vec::new();
        for _ in 0..4 {
            long.push(63);
            long.extend_from_slice(&[b'x'; 63]);
        }
        long.push(0);
        let cases: [&[u8]; 5] = [b"\xC0\x0C", b"\x40a", b"\x05a", b"", &long];
        for name in cases {
            let mut m = question(name);
            if name == b"\x05a" || name.is_empty() {
                m.truncate(12 + name.len());
            }
            assert_eq!(parse(&m, &mut Query::new()).unwrap().fault, Some(Fault::Question), "{name:?}");
        }
        let mut many = [b"\x01a".repeat(127), vec![0]].concat();
        assert_eq!(parse(&question(&many), &mut Query::new()).unwrap().fault, None);
        many.splice(0..0, *b"\x01a");
        assert_eq!(parse(&question(&many), &mut Query::new()).unwrap().fault, Some(Fault::Question));
    }

    #[test]
    fn dropped() {
        assert_eq!(parse(&[0; 11], &mut Query::new()), Err(Drop::Short));
        let mut m = question(b"\x00");
        m[2] |= 0x80;
        assert_eq!(parse(&m, &mut Query::new()), Err(Drop::Response));
    }

    #[test]
    fn edns() {
        let seen = |m: &[u8]| parse(m, &mut Query::new()).unwrap();
        let plain = Edns { payload: 1232, dnssec_ok: true, ..Edns::default() };
        assert_eq!(seen(&with_opt(&[])).edns, Some(plain));
        assert_eq!(seen(&with_opt(&[0, 3, 0, 0])).edns, Some(Edns { nsid: true, ..plain }));
        let subnet = [0, 8, 0, 7, 0, 1, 24, 0, 192, 0, 2];
        assert_eq!(seen(&with_opt(&subnet)).edns, Some(Edns { subnet: read_subnet(&subnet[4..]), ..plain }));
        assert_eq!(seen(&with_opt(&[0xFF, 0xFE, 0, 1, 7])).edns, Some(plain));
        let faults: [&[u8]; 6] = [
            &[0, 3, 0],                                        // half an option
            &[0, 3, 0, 9, 1],                                  // longer than the record
            &[0, 8, 0, 4, 0, 0, 0, 0, 0, 8, 0, 4, 0, 0, 0, 0], // two client subnets
            &[0, 8, 0, 7, 0, 1, 24, 1, 192, 0, 2],             // a scope in a query
            &[0, 8, 0, 8, 0, 1, 24, 0, 192, 0, 2, 0],          // too many octets
            &[0, 8, 0, 7, 0, 1, 23, 0, 192, 0, 3],             // a bit beyond the prefix
        ];
        for options in faults {
            assert_eq!(seen(&with_opt(options)).fault, Some(Fault::Records), "{options:?}");
            assert!(seen(&with_opt(options)).edns.is_some(), "a FORMERR after the OPT carries an OPT");
        }
        let mut twice = with_opt(&[]);
        twice[11] = 2;
        twice.extend_from_slice(&[0, 0, 41, 4, 0xD0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(seen(&twice).fault, Some(Fault::Records));
        let mut lying = question(b"\x00");
        lying[6..12].copy_from_slice(&[0xFF; 6]);
        assert_eq!(seen(&lying).fault, Some(Fault::Records));
    }
}
