//! DNS messages: queries in, answers out. Slices in, slices out; nothing is allocated.

pub mod query;
pub mod response;

pub use query::{Drop, Edns, Fault, Query, Request, Subnet, parse};
pub use response::Writer;

/// RFC 1035 section 4.1.1.
pub const HEADER: usize = 12;
/// A pointer (RFC 1035 section 4.1.4) to the name of the question, which always stands right after the header.
pub const QUESTION_POINTER: [u8; 2] = [0xC0, HEADER as u8];
/// The largest UDP answer: 1280, the least IPv6 MTU, less the headers (DNS flag day 2020).
pub const MAX_UDP: usize = 1232;
/// RFC 1035 section 4.2.1.
pub const MIN_UDP: usize = 512;
/// RFC 1035 section 4.2.2.
pub const MAX_STREAM: usize = 65_535;

/// Resource record types by the names of the IANA registry.
pub mod rtype {
    pub const A: u16 = 1;
    pub const NS: u16 = 2;
    pub const CNAME: u16 = 5;
    pub const SOA: u16 = 6;
    pub const AAAA: u16 = 28;
    pub const SRV: u16 = 33;
    pub const DNAME: u16 = 39;
    pub const OPT: u16 = 41;
    pub const DS: u16 = 43;
    pub const TXT: u16 = 16;
    pub const NXNAME: u16 = 128;
    pub const TKEY: u16 = 249;
    pub const TSIG: u16 = 250;
    pub const IXFR: u16 = 251;
    pub const AXFR: u16 = 252;
    pub const MAILB: u16 = 253;
    pub const MAILA: u16 = 254;
    pub const ANY: u16 = 255;
}

pub mod class {
    pub const IN: u16 = 1;
    pub const CH: u16 = 3;
    pub const ANY: u16 = 255;
}

/// EDNS option codes.
pub mod option {
    pub const NSID: u16 = 3;
    pub const CLIENT_SUBNET: u16 = 8;
    pub const COOKIE: u16 = 10;
    pub const TCP_KEEPALIVE: u16 = 11;
    pub const EXTENDED_ERROR: u16 = 15;
}

/// Response codes; from 16 on they need an OPT record (RFC 6891 section 6.1.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rcode {
    NoError = 0,
    FormErr = 1,
    ServFail = 2,
    NxDomain = 3,
    NotImp = 4,
    Refused = 5,
    YxDomain = 6,
    BadVers = 16,
}

/// Extended errors (RFC 8914) that this server gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExtendedError {
    /// A cluster that has the service was not heard yet: it is answered for as an earlier process heard it.
    StaleAnswer = 3,
    /// A cluster that could hold the name has not been heard yet.
    NotReady = 14,
    Prohibited = 18,
    /// The name is in none of our zones.
    NotAuthoritative = 20,
    InvalidQueryType = 30,
}

pub fn read_u16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// RFC 1035 section 4.1.4. All names that are pointed to stand in the first 16,384 octets.
pub fn pointer_to(offset: usize) -> [u8; 2] {
    debug_assert!(offset < 0x4000);
    (0xC000 | offset as u16).to_be_bytes()
}
