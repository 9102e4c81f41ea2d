//! What is asked: the mixes, the queries, and what a right answer to each looks like.

use std::net::{IpAddr, Ipv4Addr};

use hickory_proto::op::Message;
use hickory_proto::rr::RData;
use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};
use signpost::table::Random;

use super::places::nearest;

pub const ZONE: &str = "my-federation.my-domain.com";
/// In each of the clusters.
pub const SERVICES: u32 = 10_000;
pub const CLUSTERS: u32 = 3;
/// Of `_client._tcp`, which the SRV records lead to.
pub const PORT: u16 = 2379;
/// What is before the two random octets of a client subnet.
pub const SUBNETS: u32 = 198;
/// Services of one namespace.
const PER_NAMESPACE: u32 = 100;
/// As many octets as `_client._tcp.` has, so that questions for A and SRV are equally long and fit into one train.
const LONG: &str = "-backend-pool";

/// The part of a message's id that the sender chooses; what is above tells the kind of the question.
pub const TAG_MASK: u16 = 0x1FFF;
/// Above it: the query has an OPT record.
const WITH_EDNS: u16 = TAG_MASK + 1;

/// Answers decoded as a whole: one in so many. Of all others, the header is checked.
const SAMPLE: u64 = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mix {
    A,
    NxDomain,
    Srv,
    /// 80 % A, 10 % SRV, 10 % NXDOMAIN.
    Mixed,
    /// A, with an OPT record that has no option.
    Edns,
    /// A, with the OPT record and the cookie that BIND and dig send.
    Cookie,
    /// A, with the client subnet that public resolvers send (RFC 7871).
    Subnet,
    /// As [`Mixed`](Mix::Mixed), each with a client subnet.
    MixedSubnet,
    /// A, each letter large or small by chance, as some resolvers ask.
    Case,
}

/// Which of a service's addresses a right answer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Addresses {
    /// Each cluster's, in any order.
    All,
    /// Each cluster's, the nearest one's first.
    NearestFirst,
    /// The nearest cluster's alone.
    Nearest,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    A = 0,
    NxDomain = 1,
    Srv = 2,
}

impl Mix {
    pub const ALL: [Mix; 9] =
        [Mix::A, Mix::NxDomain, Mix::Srv, Mix::Mixed, Mix::Edns, Mix::Cookie, Mix::Subnet, Mix::MixedSubnet, Mix::Case];

    pub fn name(self) -> &'static str {
        match self {
            Mix::A => "A",
            Mix::NxDomain => "NXDOMAIN",
            Mix::Srv => "SRV",
            Mix::Mixed => "mix",
            Mix::Edns => "EDNS",
            Mix::Cookie => "cookie",
            Mix::Subnet => "subnet",
            Mix::MixedSubnet => "mix+subnet",
            Mix::Case => "case",
        }
    }

    fn kind(self, random: &mut Random) -> Kind {
        match self {
            Mix::A | Mix::Edns | Mix::Cookie | Mix::Subnet | Mix::Case => Kind::A,
            Mix::NxDomain => Kind::NxDomain,
            Mix::Srv => Kind::Srv,
            Mix::Mixed | Mix::MixedSubnet => match random.below(10) {
                0 => Kind::Srv,
                1 => Kind::NxDomain,
                _ => Kind::A,
            },
        }
    }

    fn has_edns(self) -> bool {
        matches!(self, Mix::Edns | Mix::Cookie | Mix::Subnet | Mix::MixedSubnet)
    }
}

impl Kind {
    /// The top bits of the message's id.
    fn of(id: u16) -> Kind {
        match id >> 14 {
            0 => Kind::A,
            1 => Kind::NxDomain,
            _ => Kind::Srv,
        }
    }
}

/// Half of the names are long.
pub fn service(number: u32) -> String {
    let tail = if number % 2 == 1 { LONG } else { "" };
    format!("svc-{number:05}{tail}")
}

pub fn namespace(number: u32) -> String {
    format!("ns-{:03}", number / PER_NAMESPACE)
}

/// Of a service in one of its clusters, relative to the zone: the target of SRV records.
pub fn in_cluster(cluster: u32, number: u32) -> String {
    format!("cluster-{cluster}.{}.{}", service(number), namespace(number))
}

/// The load balancer's address in one of the clusters: globally routable, and a different one for each service.
pub fn ingress(cluster: u32, number: u32) -> Ipv4Addr {
    let [.., high, low] = number.to_be_bytes();
    Ipv4Addr::new(104, 197 + cluster as u8, high, low)
}

/// Puts `count` equally long queries into `train`, all with this tag in their ids; returns the length of one.
pub fn write_train(mix: Mix, count: usize, tag: u16, train: &mut Vec<u8>, random: &mut Random) {
    train.clear();
    // Those of the other mixes are long, so that lengths are equal.
    let long = match mix {
        Mix::A | Mix::Edns | Mix::Cookie | Mix::Subnet | Mix::Case => random.below(2) == 1,
        Mix::NxDomain | Mix::Srv | Mix::Mixed | Mix::MixedSubnet => true,
    };
    for _ in 0..count {
        let start = train.len() + 12;
        write_query(mix, long, tag, train, random);
        if mix == Mix::Case {
            mix_case(&mut train[start..], random);
        }
    }
}

/// Of a question: neither a label's length nor the type nor the class is a letter.
fn mix_case(question: &mut [u8], random: &mut Random) {
    let mut bits = 0;
    for (place, octet) in question.iter_mut().enumerate() {
        if place % 64 == 0 {
            bits = random.draw();
        }
        if octet.is_ascii_lowercase() && bits >> (place % 64) & 1 == 1 {
            octet.make_ascii_uppercase();
        }
    }
}

fn write_query(mix: Mix, long: bool, tag: u16, out: &mut Vec<u8>, random: &mut Random) {
    let kind = mix.kind(random);
    let edns = mix.has_edns();
    let id = (kind as u16) << 14 | if edns { WITH_EDNS } else { 0 } | tag & TAG_MASK;
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(edns)]);
    let even = random.below(SERVICES / 2) * 2;
    let number = match kind {
        Kind::A | Kind::NxDomain => even + u32::from(long),
        Kind::Srv => even,
    };
    match kind {
        Kind::A => label(out, service(number).as_bytes()),
        Kind::NxDomain => {
            // A new one each time: nobody may remember it.
            let mut name = *b"nx-xxxxxxxxxxxxxxxxxxx";
            let (left, right) = (random.draw(), random.draw());
            let bits = u128::from(left) << 64 | u128::from(right);
            for (place, octet) in name[3..].iter_mut().enumerate() {
                *octet = b"abcdefghijklmnopqrstuvwxyz234567"[(bits >> (5 * place)) as usize & 31];
            }
            label(out, &name);
        }
        Kind::Srv => {
            label(out, b"_client");
            label(out, b"_tcp");
            label(out, service(number).as_bytes());
        }
    }
    label(out, namespace(number).as_bytes());
    ZONE.split('.').for_each(|part| label(out, part.as_bytes()));
    out.push(0);
    let qtype = if kind == Kind::Srv { 33 } else { 1 };
    out.extend_from_slice(&[0, qtype, 0, 1]);
    if edns {
        // Payload size 1232.
        out.extend_from_slice(&[0, 0, 41, 0x04, 0xD0, 0, 0, 0, 0, 0]);
        write_option(mix, out, random);
    }
}

/// The length of the OPT record's options, and the one that this mix has.
fn write_option(mix: Mix, out: &mut Vec<u8>, random: &mut Random) {
    let [a, b, ..] = random.draw().to_be_bytes();
    match mix {
        // 10, of 8 octets.
        Mix::Cookie => {
            out.extend_from_slice(&[12, 0, 10, 0, 8]);
            out.extend_from_slice(&random.draw().to_be_bytes());
        }
        // 8, of 7 octets: an IPv4 prefix of 24 bits.
        Mix::Subnet | Mix::MixedSubnet => out.extend_from_slice(&[11, 0, 8, 0, 7, 0, 1, 24, 0, SUBNETS as u8, a, b]),
        _ => out.push(0),
    }
}

fn label(out: &mut Vec<u8>, text: &[u8]) {
    out.push(text.len() as u8);
    out.extend_from_slice(text);
}

/// Whether this is a right answer, with these addresses. `count` tells which ones are decoded as a whole.
pub fn check(answer: &[u8], addresses: Addresses, count: u64) -> Result<(), String> {
    let header: [u8; 12] = answer.get(..12).and_then(|h| h.try_into().ok()).ok_or("shorter than a header")?;
    let field = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let kind = Kind::of(field(0));
    let edns = u16::from(field(0) & WITH_EDNS != 0);
    // QR and AA; RCODE; answers, authority, additional.
    let got = [field(2), field(6), field(8), field(10)];
    let some = if addresses == Addresses::Nearest { 1 } else { 3 };
    let want = match kind {
        Kind::A => [0x8400, some, 0, edns],
        Kind::NxDomain => [0x8403, 0, 1, edns],
        Kind::Srv => [0x8400, 3, 0, 3 + edns],
    };
    // The targets' addresses are a courtesy (RFC 2782) that the smallest answers leave out.
    let bare = kind == Kind::Srv && got == [0x8400, 3, 0, edns];
    if got != want && !bare {
        return Err(format!("{kind:?}: flags and counts are {got:x?}, not {want:x?}"));
    }
    if count.is_multiple_of(SAMPLE) && kind != Kind::NxDomain {
        return check_addresses(answer, addresses, kind);
    }
    Ok(())
}

fn check_addresses(answer: &[u8], addresses: Addresses, kind: Kind) -> Result<(), String> {
    let message = Message::from_vec(answer).map_err(|error| error.to_string())?;
    let name = message.queries.first().ok_or("no question")?.name().to_string().to_lowercase();
    let number = name.split("svc-").nth(1).and_then(|rest| rest.get(..5)).and_then(|digits| digits.parse().ok());
    let number: u32 = number.ok_or_else(|| format!("the question is {name}"))?;
    if kind == Kind::Srv {
        let got = sorted(message.answers.iter().filter_map(|record| match &record.data {
            RData::SRV(srv) => Some((srv.port, srv.target.to_string().to_lowercase())),
            _ => None,
        }));
        let want = (0..CLUSTERS).map(|cluster| (PORT, format!("{}.{ZONE}.", in_cluster(cluster, number))));
        same(&name, &got, &sorted(want))?;
        if message.additionals.is_empty() {
            return Ok(());
        }
    }
    let records = if kind == Kind::Srv { &message.additionals } else { &message.answers };
    let got: Vec<Ipv4Addr> = records
        .iter()
        .filter_map(|record| match record.data {
            RData::A(address) => Some(address.0),
            _ => None,
        })
        .collect();
    let all = sorted((0..CLUSTERS).map(|cluster| ingress(cluster, number)));
    if kind == Kind::Srv || addresses == Addresses::All {
        return same(&name, &sorted(got.into_iter()), &all);
    }
    let first = ingress(nearest(client_subnet(&message)?), number);
    same(&name, &got.first(), &Some(&first))?;
    let want = if addresses == Addresses::Nearest { vec![first] } else { all };
    same(&name, &sorted(got.into_iter()), &want)
}

/// The one that the answer repeats. It is an error if it is said to have played no part.
fn client_subnet(message: &Message) -> Result<Option<Ipv4Addr>, String> {
    let Some(EdnsOption::Subnet(subnet)) = message.edns.as_ref().and_then(|edns| edns.option(EdnsCode::Subnet)) else {
        return Ok(None);
    };
    match subnet.addr() {
        IpAddr::V4(address) if subnet.scope_prefix() > 0 => Ok(Some(address)),
        address => Err(format!("the answer is for {address} with the scope /{}", subnet.scope_prefix())),
    }
}

fn sorted<T: Ord>(items: impl Iterator<Item = T>) -> Vec<T> {
    let mut items: Vec<T> = items.collect();
    items.sort();
    items
}

fn same<T: PartialEq + std::fmt::Debug>(name: &str, got: &T, want: &T) -> Result<(), String> {
    if got == want { Ok(()) } else { Err(format!("{name}: {got:?}, not {want:?}")) }
}

/// What dnsperf reads: a line with name and type for each query.
pub fn lines(mix: Mix, count: usize, random: &mut Random) -> String {
    let (mut text, mut query) = (String::new(), Vec::new());
    for _ in 0..count {
        write_train(mix, 1, 0, &mut query, random);
        let mut at = 12;
        while let Some(&length) = query.get(at).filter(|length| **length > 0) {
            let end = at + 1 + usize::from(length);
            text.push_str(&String::from_utf8_lossy(&query[at + 1..end]));
            text.push('.');
            at = end;
        }
        text.push_str(if query[at + 2] == 33 { " SRV\n" } else { " A\n" });
    }
    text
}
