//! Queries octet by octet, and what must hold of the octets of every answer.

use std::fmt::Write;

use hickory_proto::op::{Message, MessageType};
use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};
use hickory_proto::rr::{RData, Record};
use signpost::answer::Transport;
use signpost::model::View;
use signpost::names::{Labels, Name};
use signpost::wire::{class, rtype};

use super::World;

pub const TCP: Transport = Transport::Tcp;

/// Types that the tests name as people do.
const TYPES: [(&str, u16); 22] = [
    ("A", 1),
    ("NS", 2),
    ("CNAME", 5),
    ("SOA", 6),
    ("MX", 15),
    ("TXT", 16),
    ("AAAA", 28),
    ("SRV", 33),
    ("DNAME", 39),
    ("OPT", 41),
    ("DS", 43),
    ("HTTPS", 65),
    ("NXNAME", 128),
    ("TKEY", 249),
    ("TSIG", 250),
    ("IXFR", 251),
    ("AXFR", 252),
    ("MAILB", 253),
    ("MAILA", 254),
    ("ANY", 255),
    ("CAA", 257),
    ("TYPE0", 0),
];

pub fn type_number(name: &str) -> u16 {
    TYPES.iter().find(|(known, _)| *known == name).unwrap_or_else(|| panic!("no type {name}")).1
}

/// A query as it goes over the wire.
#[derive(Debug, Clone)]
pub struct Ask {
    /// Wire form, in any case.
    pub name: Vec<u8>,
    pub qtype: u16,
    pub qclass: u16,
    pub opcode: u8,
    pub opt: Option<Opt>,
    pub transport: Transport,
}

#[derive(Debug, Clone, Default)]
pub struct Opt {
    pub payload: u16,
    pub version: u8,
    pub dnssec_ok: bool,
    pub options: Vec<u8>,
}

impl Ask {
    /// `name` in presentation form without escapes, its case kept.
    pub fn new(name: &str, qtype: u16) -> Ask {
        let mut wire = Vec::new();
        for label in name.trim_end_matches('.').split('.').filter(|label| !label.is_empty()) {
            wire.push(label.len() as u8);
            wire.extend_from_slice(label.as_bytes());
        }
        wire.push(0);
        Ask { name: wire, qtype, qclass: class::IN, opcode: 0, opt: None, transport: Transport::Udp }
    }

    pub fn edns(mut self, payload: u16) -> Ask {
        self.opt.get_or_insert_default().payload = payload;
        self
    }

    pub fn option(mut self, code: u16, value: &[u8]) -> Ask {
        let opt = self.opt.get_or_insert_default();
        opt.options.extend_from_slice(&code.to_be_bytes());
        opt.options.extend_from_slice(&(value.len() as u16).to_be_bytes());
        opt.options.extend_from_slice(value);
        self
    }

    pub fn tcp(mut self) -> Ask {
        self.transport = TCP;
        self
    }

    /// Turns letters to upper case where `bits` has a one (0x20, draft-vixie-dnsext-dns0x20).
    pub fn mixed_case(mut self, bits: u64) -> Ask {
        for (i, octet) in self.name.iter_mut().enumerate() {
            if octet.is_ascii_lowercase() && bits >> (i % 64) & 1 == 1 {
                octet.make_ascii_uppercase();
            }
        }
        self
    }

    pub fn to_vec(&self) -> Vec<u8> {
        let mut wire = vec![0xBE, 0xEF, self.opcode << 3 | 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(self.opt.is_some())];
        wire.extend_from_slice(&self.name);
        wire.extend_from_slice(&self.qtype.to_be_bytes());
        wire.extend_from_slice(&self.qclass.to_be_bytes());
        if let Some(opt) = &self.opt {
            wire.extend_from_slice(&[0, 0, rtype::OPT as u8]);
            wire.extend_from_slice(&opt.payload.to_be_bytes());
            wire.extend_from_slice(&[0, opt.version, if opt.dnssec_ok { 0x80 } else { 0 }, 0]);
            wire.extend_from_slice(&(opt.options.len() as u16).to_be_bytes());
            wire.extend_from_slice(&opt.options);
        }
        wire
    }

    /// Most octets of an answer (RFC 6891 section 6.2.3 and 6.2.5; DNS flag day 2020).
    pub fn limit(&self) -> usize {
        match (self.transport, &self.opt) {
            (Transport::Tcp, _) => 65_535,
            (Transport::Udp, Some(opt)) => usize::from(opt.payload).clamp(512, 1232),
            (Transport::Udp, None) => 512,
        }
    }

    /// Asks and checks what holds of every answer to a well-formed query.
    pub fn send(&self, world: &mut World, view: View) -> Message {
        let query = self.to_vec();
        let (answer, _) = world.exchange(view, self.transport, &query).expect("a query gets an answer");
        assert!(answer.len() <= self.limit(), "{} octets for {self:?}", answer.len());
        assert_eq!(answer[..2], query[..2], "id of {self:?}");
        assert_eq!(answer[4..6], [0, 1], "one question back for {self:?}");
        let question = 12..12 + self.name.len() + 4;
        assert_eq!(answer[question.clone()], query[question], "question of {self:?}");
        let message = Message::from_vec(&answer).unwrap_or_else(|e| panic!("{e} in the answer to {self:?}"));
        let counts = [6, 8, 10].map(|at| usize::from(u16::from_be_bytes([answer[at], answer[at + 1]])));
        let additional = message.additionals.len() + usize::from(message.edns.is_some());
        assert_eq!(counts, [message.answers.len(), message.authorities.len(), additional], "counts of {self:?}");
        let header = &message.metadata;
        assert_eq!(header.message_type, MessageType::Response);
        assert_eq!(u8::from(header.op_code), self.opcode);
        assert!(header.recursion_desired, "RD is echoed");
        assert!(!header.recursion_available && !header.authentic_data && !header.checking_disabled, "{self:?}");
        assert_eq!(answer[3] & 0x40, 0, "Z is 0 (RFC 1035 section 4.1.1)");
        assert_eq!(message.edns.is_some(), self.opt.is_some(), "OPT for OPT: {self:?}");
        if let (Some(edns), Some(opt)) = (&message.edns, &self.opt) {
            assert_eq!((edns.version(), edns.flags().dnssec_ok), (0, opt.dnssec_ok));
        }
        if header.truncation {
            let records = [&message.answers, &message.authorities, &message.additionals];
            assert!(records.iter().all(|section| section.is_empty()), "records beside TC: {self:?}");
        }
        message
    }
}

/// A whole answer: RCODE and flags, then the sections as in a zone file. The order of equal candidates is drawn, so
/// the records of one RRset are sorted.
pub fn render(message: &Message) -> String {
    let mut out = format!("{:?}", message.metadata.response_code).to_ascii_uppercase();
    for (set, flag) in [(message.metadata.authoritative, " aa"), (message.metadata.truncation, " tc")] {
        out.push_str(if set { flag } else { "" });
    }
    if let Some(edns) = &message.edns {
        if let Some(EdnsOption::Unknown(_, value)) = edns.option(EdnsCode::from(15)) {
            write!(out, " ede={}", u16::from_be_bytes([value[0], value[1]])).unwrap();
        }
        if let Some(EdnsOption::NSID(id)) = edns.option(EdnsCode::NSID) {
            write!(out, " nsid={}", String::from_utf8_lossy(id.as_ref())).unwrap();
        }
        if let Some(EdnsOption::Unknown(_, value)) = edns.option(EdnsCode::Keepalive) {
            write!(out, " keepalive={}", u16::from_be_bytes([value[0], value[1]])).unwrap();
        }
    }
    let sections = [("", &message.answers), ("authority ", &message.authorities), ("extra ", &message.additionals)];
    for (section, records) in sections {
        for set in records.chunk_by(|a, b| a.name == b.name && a.record_type() == b.record_type()) {
            let mut lines: Vec<String> = set.iter().map(text).collect();
            lines.sort();
            for line in lines {
                write!(out, "\n{section}{line}").unwrap();
            }
        }
    }
    out
}

/// A record as in a zone file, without the class IN.
pub fn text(record: &Record) -> String {
    let class = match record.dns_class {
        hickory_proto::rr::DNSClass::IN => String::new(),
        other => format!("{other} "),
    };
    match &record.data {
        // hickory takes DNAME, and without its DNSSEC features DS, for unknown.
        RData::Unknown { code, rdata } if u16::from(*code) == rtype::DNAME => {
            let target = Name::from_wire(&rdata.anything).expect("a DNAME's data is a name");
            format!("{} {class}{} DNAME {target}", record.name, record.ttl)
        }
        RData::Unknown { code, rdata } if u16::from(*code) == rtype::DS => {
            let (head, digest) = rdata.anything.split_at(4);
            let digest: String = digest.iter().map(|octet| format!("{octet:02x}")).collect();
            let tag = u16::from_be_bytes([head[0], head[1]]);
            format!("{} {class}{} DS {tag} {} {} {digest}", record.name, record.ttl, head[2], head[3])
        }
        data => format!("{} {class}{} {} {data}", record.name, record.ttl, record.record_type()),
    }
}

/// The labels of a name as text.
pub fn labels(name: &hickory_proto::rr::Name) -> Vec<String> {
    name.iter().map(|label| String::from_utf8_lossy(label).to_ascii_lowercase()).collect()
}

/// How many labels a name in wire form has.
pub fn label_count(wire: &[u8]) -> usize {
    Labels::new(wire).count()
}
