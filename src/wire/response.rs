//! Answers, written over the query in the same buffer.

use super::{Edns, ExtendedError, HEADER, MAX_STREAM, MAX_UDP, MIN_UDP, Rcode, option, rtype};

/// The fixed part of an OPT record.
const OPT_FIXED: usize = 11;
/// An extended error without text.
const EXTENDED_ERROR: usize = 6;
/// An edns-tcp-keepalive option with its time-out.
const KEEPALIVE: usize = 6;

/// What an answer says of itself besides records.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    /// A client subnet in it is given back.
    pub edns: Option<Edns>,
    /// The NSID to give when asked.
    pub server: Option<&'a [u8]>,
    /// Units of 100 ms (RFC 7828), on streams.
    pub keepalive: Option<u16>,
}

impl Options<'_> {
    /// The room that the OPT record takes, whatever else is left out.
    fn reserve(&self) -> usize {
        let Some(edns) = self.edns else { return 0 };
        let nsid = match self.server {
            Some(server) if edns.nsid => 4 + server.len(),
            _ => 0,
        };
        let keepalive = if edns.keepalive && self.keepalive.is_some() { KEEPALIVE } else { 0 };
        let subnet = edns.subnet.map_or(0, |subnet| subnet.octet_count());
        OPT_FIXED + nsid + keepalive + subnet
    }
}

/// Appends records behind the question and knows how much room is left.
///
/// Records come as ready octets with their count. A set that does not fit is not written: the caller decides between
/// leaving it out and [`Writer::truncate`].
pub struct Writer<'a> {
    buffer: &'a mut [u8],
    question_end: usize,
    at: usize,
    limit: usize,
    counts: [u16; 3],
    authoritative: bool,
    truncated: bool,
    rcode: Rcode,
    extended: Option<ExtendedError>,
    /// SCOPE PREFIX-LENGTH of the client subnet.
    scope: u8,
    options: Options<'a>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    Answer = 0,
    Authority = 1,
    Additional = 2,
}

impl<'a> Writer<'a> {
    /// `buffer` begins with the query, `question_end` is where its question ends.
    pub fn new(buffer: &'a mut [u8], question_end: usize, stream: bool, options: Options<'a>) -> Writer<'a> {
        let most = match (stream, options.edns) {
            (true, _) => MAX_STREAM,
            (false, Some(edns)) => usize::from(edns.payload).clamp(MIN_UDP, MAX_UDP),
            (false, None) => MIN_UDP,
        };
        let most = most.min(buffer.len());
        let mut options = options;
        let mut reserve = options.reserve();
        // A long identity beside a long name is more than 512 octets: the limit counts for more.
        if question_end + reserve > most
            && let Some(edns) = &mut options.edns
        {
            edns.nsid = false;
            reserve = options.reserve();
        }
        Writer {
            limit: most.saturating_sub(reserve),
            buffer,
            question_end,
            at: question_end,
            counts: [0; 3],
            authoritative: false,
            truncated: false,
            rcode: Rcode::NoError,
            extended: None,
            scope: 0,
            options,
        }
    }

    pub fn set_authoritative(&mut self, aa: bool) {
        self.authoritative = aa;
    }

    pub fn set_rcode(&mut self, rcode: Rcode) {
        self.rcode = rcode;
    }

    pub fn set_extended_error(&mut self, error: ExtendedError) {
        self.extended = Some(error);
    }

    /// What was written holds for this many bits of the client subnet. Of several parts, the longest counts.
    pub fn narrow_scope(&mut self, scope: u8) {
        self.scope = self.scope.max(scope);
    }

    pub fn room(&self) -> usize {
        self.limit.saturating_sub(self.at)
    }

    /// Where the next octet will stand.
    pub fn position(&self) -> usize {
        self.at
    }

    /// Takes `length` octets for `count` records of a section and hands them out to be filled; `None`: no room.
    pub fn reserve_records(&mut self, section: Section, length: usize, count: u16) -> Option<&mut [u8]> {
        if length > self.room() {
            return None;
        }
        let at = self.at;
        self.at += length;
        self.counts[section as usize] += count;
        Some(&mut self.buffer[at..at + length])
    }

    /// Appends ready records; false: no room, nothing was written.
    #[must_use]
    pub fn append(&mut self, section: Section, records: &[u8], count: u16) -> bool {
        match self.reserve_records(section, records.len(), count) {
            Some(target) => {
                target.copy_from_slice(records);
                true
            }
            None => false,
        }
    }

    /// What was written so far, for reading a name in it.
    pub fn message(&self) -> &[u8] {
        &self.buffer[..self.at]
    }

    /// RFC 2181 section 9: TC, and nothing that could be taken for the whole.
    pub fn truncate(&mut self) {
        self.clear();
        self.truncated = true;
    }

    /// Takes back all records.
    pub fn clear(&mut self) {
        self.at = self.question_end;
        self.counts = [0; 3];
    }

    pub fn is_truncated(&self) -> bool {
        self.truncated
    }

    /// Writes OPT and header; returns the length of the message.
    pub fn finish(mut self) -> usize {
        self.write_opt();
        let [answers, authority, additional] = self.counts;
        let questions = u16::from(self.question_end > HEADER);
        let header = &mut self.buffer[..HEADER];
        // Opcode and RD as they came (RFC 1035 section 4.1.1); AD, CD and Z are cleared (RFC 4035 section 3.1.6).
        header[2] = 0x80 | header[2] & 0x79 | u8::from(self.authoritative) << 2 | u8::from(self.truncated) << 1;
        header[3] = self.rcode as u8 & 0x0F;
        header[4..6].copy_from_slice(&questions.to_be_bytes());
        header[6..8].copy_from_slice(&answers.to_be_bytes());
        header[8..10].copy_from_slice(&authority.to_be_bytes());
        header[10..12].copy_from_slice(&additional.to_be_bytes());
        self.at
    }

    fn write_opt(&mut self) {
        let Some(edns) = self.options.edns else { return };
        let start = self.at;
        let spare = self.room();
        let extended_rcode = (self.rcode as u16 >> 4) as u8;
        let dnssec_ok = if edns.dnssec_ok { 0x80 } else { 0 };
        let payload = (MAX_UDP as u16).to_be_bytes();
        let fixed = [0, 0, rtype::OPT as u8, payload[0], payload[1], extended_rcode, 0, dnssec_ok, 0, 0, 0];
        self.put(&fixed);
        if let (true, Some(server)) = (edns.nsid, self.options.server) {
            self.put(&option::NSID.to_be_bytes());
            self.put(&(server.len() as u16).to_be_bytes());
            self.put(server);
        }
        if let (true, Some(timeout)) = (edns.keepalive, self.options.keepalive) {
            self.put(&option::TCP_KEEPALIVE.to_be_bytes());
            self.put(&2u16.to_be_bytes());
            self.put(&timeout.to_be_bytes());
        }
        if let Some(subnet) = edns.subnet {
            let length = subnet.octet_count();
            subnet.write(&mut self.buffer[self.at..self.at + length], self.scope);
            self.at += length;
        }
        if let Some(error) = self.extended
            && spare >= EXTENDED_ERROR
        {
            self.put(&option::EXTENDED_ERROR.to_be_bytes());
            self.put(&2u16.to_be_bytes());
            self.put(&(error as u16).to_be_bytes());
        }
        let rdata = (self.at - start - OPT_FIXED) as u16;
        self.buffer[start + 9..start + 11].copy_from_slice(&rdata.to_be_bytes());
        self.counts[Section::Additional as usize] += 1;
    }

    fn put(&mut self, bytes: &[u8]) {
        self.buffer[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }
}
