//! Zone files: the static data of a zone, parsed and checked. What is wrong is told with its line.

mod check;
mod rdata;
mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

pub use check::{Problem, check_delegations};

use crate::names::Name;
use text::{Entries, Entry, Token, clip};

/// Largest zone file, in octets. Static data is what people write by hand; 100,000 records are about 5 MB.
pub const MAX_FILE: u64 = 16 << 20;
/// Most records of one zone file.
pub const MAX_RECORDS: usize = 100_000;
/// Most octets of one RRset with 12 octets of header for each record: what fits in a TCP message of 65,535 octets
/// beside header, question, OPT and the SOA or glue that goes with it.
pub const MAX_SET_OCTETS: usize = 60_000;
/// Most warnings that are kept of one file; the rest is counted.
pub const MAX_WARNINGS: usize = 100;
/// RFC 2181 section 8.
pub const MAX_TTL: u32 = 0x7fff_ffff;

/// The static data of a zone, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZoneData {
    pub apex: Name,
    /// The SOA record once more, for negative answers.
    pub soa: Soa,
    /// Every RRset of the zone by owner, the apex's SOA included; ordered by type. Owners may be wildcards.
    /// An NS set at another owner than the apex is a delegation.
    pub sets: BTreeMap<Name, Vec<RrSet>>,
    /// What an operator should look at, in the order of the file.
    pub warnings: Vec<ZoneWarning>,
}

/// All numbers in seconds but the serial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Soa {
    /// Uncompressed wire form, names lower-cased.
    pub rdata: Vec<u8>,
    pub ttl: u32,
    pub minimum: u32,
    pub serial: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RrSet {
    pub rtype: u16,
    /// Seconds; the lowest that a record of the set has.
    pub ttl: u32,
    /// Uncompressed wire form, names in it lower-cased; sorted, without duplicates, at least one.
    pub rdatas: Vec<Vec<u8>>,
}

impl ZoneData {
    pub fn set(&self, owner: &Name, rtype: u16) -> Option<&RrSet> {
        self.sets.get(owner)?.iter().find(|set| set.rtype == rtype)
    }

    /// Whether the zone ends at `owner`, and a child zone begins.
    pub fn is_delegation(&self, owner: &Name) -> bool {
        *owner != self.apex && self.set(owner, rdata::NS).is_some()
    }
}

/// Why a zone file can't be used: one sentence, with the place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZoneFileError {
    pub file: PathBuf,
    /// Counted from 1; `None` if it is about the file as a whole.
    pub line: Option<u32>,
    pub reason: Reason,
}

impl std::error::Error for ZoneFileError {}

impl fmt::Display for ZoneFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.file.display(), self.reason),
            None => write!(f, "{}: {}", self.file.display(), self.reason),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    #[error("the zone file can't be read ({why}); name an existing, readable file")]
    Unopened { why: String },
    #[error("this is no regular file; a zone file is expected")]
    NotAFile,
    #[error("the zone file is larger than {MAX_FILE} octets; split the zone")]
    LongFile,
    #[error("this line is not UTF-8; write other octets as \\DDD")]
    NotUtf8,
    #[error("the zone file has more than {MAX_RECORDS} records; split the zone")]
    ManyRecords,
    #[error("a ')' without a '(' before it; remove it")]
    StrayParenthesis,
    #[error("the '(' opened here is never closed; add a ')'")]
    OpenParenthesis,
    #[error("a quote is not closed on its line; add a '\"'")]
    OpenQuote,
    #[error("a backslash is followed by a character, or by three digits from 000 to 255")]
    BadEscape,
    #[error("the control character \\{octet:03} can't stand here; remove it or write it as an escape")]
    ControlCharacter { octet: u8 },
    #[error("$INCLUDE is not supported; put the records into this file")]
    Include,
    #[error("{found:?} is no directive; only $ORIGIN and $TTL are possible")]
    UnknownDirective { found: String },
    #[error("{directive} takes one value: {expected}")]
    BadDirective { directive: &'static str, expected: &'static str },
    #[error("{text:?} is no name: {why}")]
    BadName { text: String, why: String },
    #[error("the first record has no owner; begin its line with a name, or with @ for the zone itself")]
    NoOwner,
    #[error("{owner} is not in the zone {zone}; remove the record, or add a final dot or take one away")]
    OutsideZone { owner: Name, zone: Name },
    #[error("{found:?} stands where a TTL, IN or a type is expected (a line without an owner begins with a space)")]
    NoType { found: String },
    #[error("the record ends before its type; expected: owner, TTL, type, data")]
    EndBeforeType,
    #[error("the class {found:?} is not served; only IN is possible")]
    WrongClass { found: String },
    #[error("{found:?} is a second TTL or class; give each once")]
    Twice { found: String },
    #[error("the TTL {found:?} is not a time from 0 to 2147483647 s, like 300 or 5m")]
    BadTtl { found: String },
    #[error("the record has no TTL; put \"$TTL 1h\" at the top of the file, or a TTL before the type")]
    NoTtl,
    #[error("{rtype} belongs to signed zones, which are not served from zone files; remove it")]
    SignedZone { rtype: String },
    #[error("{rtype} is not a type of data; remove it")]
    NoData { rtype: String },
    #[error("the data of {rtype} can only be written in the form of RFC 3597: \\# length hexadecimal-digits")]
    UnknownData { rtype: String },
    #[error("{rtype} needs a {field}, and the record ends before it")]
    MissingField { rtype: String, field: &'static str },
    #[error("the {field} {found:?} is wrong: expected {expected}")]
    BadField { field: &'static str, found: String, expected: &'static str },
    #[error("{found:?} stands behind the end of the {rtype} record; remove it (a text with spaces needs quotes)")]
    ExtraField { rtype: String, found: String },
    #[error(
        "{found:?} can't be read in {rtype}; write the data in the form of RFC 3597: \\# length hexadecimal-digits"
    )]
    Unreadable { rtype: String, found: String },
    #[error("after \\# the data of {rtype} is its length in octets and as many pairs of hexadecimal digits")]
    BadGeneric { rtype: String },
    #[error("the data of {rtype} is longer than 65535 octets; shorten it")]
    LongData { rtype: String },
    #[error("the data of {rtype} is wrong: {why}")]
    Refused { rtype: String, why: String },
    #[error(
        "the {rtype} records of {owner} need more than {MAX_SET_OCTETS} octets, which no message holds; remove some"
    )]
    LongSet { owner: Name, rtype: String },
    #[error("the zone {zone} has no SOA record; add one at its apex: @ SOA ns1 hostmaster 1 1h 15m 1w 1h")]
    NoSoa { zone: Name },
    #[error("a SOA record stands only at the apex {zone}, and this one is at {owner}; remove it")]
    SoaBelowApex { owner: Name, zone: Name },
    #[error("the zone {zone} has no NS record; add at its apex a line for each of its name servers: @ NS ns1")]
    NoNs { zone: Name },
    #[error("{owner} has two {rtype} records, and only one is possible; remove one")]
    Single { owner: Name, rtype: String },
    #[error("{owner} has a CNAME record and other data ({other}); remove one of them")]
    CnameAndOther { owner: Name, other: String },
    #[error("the wildcard {owner} can't have a {rtype} record (RFC 4592 section 4); write out its names")]
    Wildcard { owner: Name, rtype: String },
}

/// Something that is served as written but is probably not meant so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZoneWarning {
    pub file: PathBuf,
    pub line: Option<u32>,
    pub doubt: Doubt,
}

impl fmt::Display for ZoneWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.file.display(), self.doubt),
            None => write!(f, "{}: {}", self.file.display(), self.doubt),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Doubt {
    #[error("the {rtype} record of {owner} stands there twice; one is dropped")]
    Duplicate { owner: Name, rtype: String },
    #[error(
        "the {rtype} records of {owner} have different TTLs; the lowest, {ttl} s, goes for all (RFC 2181 section 5.2)"
    )]
    MixedTtl { owner: Name, rtype: String, ttl: u32 },
    #[error("no TTL is given; the SOA's minimum, {ttl} s, goes for it and what follows")]
    TtlFromMinimum { ttl: u32 },
    #[error("the name server {target} of {owner} is in this zone and has no A or AAAA record here; add one")]
    NoAddress { owner: Name, target: Name },
    #[error("the name server {target} of {owner} is a CNAME, which resolvers refuse (RFC 2181 section 10.3)")]
    NsIsAlias { owner: Name, target: Name },
    #[error("the {rtype} record of {owner} is never served, because {cut} is delegated or has a DNAME")]
    Occluded { owner: Name, rtype: String, cut: Name },
    #[error("the DS record of {owner} stands without a delegation there; add its NS records")]
    DsWithoutNs { owner: Name },
    #[error("{count} more warnings")]
    More { count: usize },
}

/// Reads and checks the zone file of the zone `apex`. Blocks.
pub fn load(path: &Path, apex: &Name) -> Result<ZoneData, ZoneFileError> {
    let fail = |reason| ZoneFileError { file: path.to_path_buf(), line: None, reason };
    let unopened = |e: std::io::Error| fail(Reason::Unopened { why: e.to_string() });
    // Before it is opened: opening a pipe would wait for its writer.
    if !std::fs::metadata(path).map_err(unopened)?.is_file() {
        return Err(fail(Reason::NotAFile));
    }
    let mut octets = Vec::new();
    std::fs::File::open(path).and_then(|f| f.take(MAX_FILE + 1).read_to_end(&mut octets)).map_err(unopened)?;
    if octets.len() as u64 > MAX_FILE {
        return Err(fail(Reason::LongFile));
    }
    let text = std::str::from_utf8(&octets)
        .map_err(|e| ZoneFileError { line: Some(text::line_of(&octets, e.valid_up_to())), ..fail(Reason::NotUtf8) })?;
    parse(text, apex, path)
}

/// Checks `text` as the zone file of the zone `apex`; `file` is what errors call it.
///
/// The first origin is the apex. A record without a TTL gets the one of `$TTL`, else the last one stated (RFC 1035
/// section 5.1), else, from the SOA on, the SOA's minimum.
pub fn parse(text: &str, apex: &Name, file: &Path) -> Result<ZoneData, ZoneFileError> {
    let mut reading = Reading::new(apex);
    let at = |(line, reason)| ZoneFileError { file: file.to_path_buf(), line, reason };
    reading.file(text).map_err(|(line, reason)| at((Some(line), reason)))?;
    check::zone(apex, reading.sets, reading.warnings).map_err(at).map(|mut zone| {
        for warning in &mut zone.warnings {
            warning.file = file.to_path_buf();
        }
        zone
    })
}

/// An RRset while the file is read.
struct Gathered {
    /// Of its first record.
    line: u32,
    ttl: u32,
    rdatas: BTreeSet<Vec<u8>>,
    octets: usize,
    mixed_ttl: bool,
}

type Sets = BTreeMap<Name, BTreeMap<u16, Gathered>>;

/// The warnings so far; bounded.
#[derive(Default)]
struct Warnings {
    list: Vec<(Option<u32>, Doubt)>,
    more: usize,
}

impl Warnings {
    fn push(&mut self, line: u32, doubt: Doubt) {
        if self.list.len() < MAX_WARNINGS {
            self.list.push((Some(line), doubt));
        } else {
            self.more += 1;
        }
    }

    fn into_list(mut self) -> Vec<ZoneWarning> {
        self.list.sort_by_key(|(line, _)| *line);
        if self.more > 0 {
            self.list.push((None, Doubt::More { count: self.more }));
        }
        self.list.into_iter().map(|(line, doubt)| ZoneWarning { file: PathBuf::new(), line, doubt }).collect()
    }
}

/// What the entries so far have set.
struct Reading<'a> {
    apex: &'a Name,
    origin: Name,
    owner: Option<Name>,
    /// By `$TTL`, or by the SOA's minimum.
    default_ttl: Option<u32>,
    /// The last one that a record stated.
    last_ttl: Option<u32>,
    records: usize,
    sets: Sets,
    warnings: Warnings,
}

/// The words of a record before its data.
struct Head {
    ttl: Option<u32>,
    rtype: u16,
    /// Where the data begins.
    data: usize,
}

impl<'a> Reading<'a> {
    fn new(apex: &'a Name) -> Self {
        Reading {
            apex,
            origin: apex.clone(),
            owner: None,
            default_ttl: None,
            last_ttl: None,
            records: 0,
            sets: BTreeMap::new(),
            warnings: Warnings::default(),
        }
    }

    fn file(&mut self, text: &str) -> Result<(), (u32, Reason)> {
        let mut entries = Entries::new(text);
        let mut entry = Entry::default();
        while entries.next_into(&mut entry)? {
            let first = entry.tokens[0];
            if !entry.blank && !first.quoted && first.raw.starts_with('$') {
                self.directive(&entry.tokens).map_err(|reason| (first.line, reason))?;
            } else {
                self.record(&entry)?;
            }
        }
        Ok(())
    }

    fn directive(&mut self, tokens: &[Token<'_>]) -> Result<(), Reason> {
        let value = match tokens {
            [_, value] => Some(value),
            _ => None,
        };
        match tokens[0].raw.to_ascii_uppercase().as_str() {
            "$ORIGIN" => {
                let bad = Reason::BadDirective { directive: "$ORIGIN", expected: "a name" };
                self.origin = text::name(value.ok_or(bad)?, &self.origin)?;
            }
            "$TTL" => {
                let ttl = value.and_then(|v| text::seconds(v.raw)).filter(|t| *t <= MAX_TTL);
                let expected = "a time from 0 to 2147483647 s, like 300 or 5m";
                self.default_ttl = Some(ttl.ok_or(Reason::BadDirective { directive: "$TTL", expected })?);
            }
            "$INCLUDE" => return Err(Reason::Include),
            _ => return Err(Reason::UnknownDirective { found: clip(tokens[0].raw) }),
        }
        Ok(())
    }

    fn record(&mut self, entry: &Entry<'_>) -> Result<(), (u32, Reason)> {
        let tokens = &entry.tokens;
        let line = tokens[0].line;
        self.records += 1;
        if self.records > MAX_RECORDS {
            return Err((line, Reason::ManyRecords));
        }
        if !entry.blank {
            let owner = text::name(&tokens[0], &self.origin).map_err(|reason| (line, reason))?;
            if !owner.is_at_or_below(self.apex) {
                return Err((line, Reason::OutsideZone { owner, zone: self.apex.clone() }));
            }
            self.owner = Some(owner);
        }
        let owner = self.owner.clone().ok_or((line, Reason::NoOwner))?;
        let head = self.head(tokens, usize::from(!entry.blank)).map_err(|reason| (line, reason))?;
        let data = rdata::encode(head.rtype, &tokens[head.data..], &self.origin).map_err(|reason| {
            // The record's own line serves better than nothing, the line of its data better than that.
            (tokens.get(head.data).map_or(line, |t| t.line), reason)
        })?;
        let ttl = self.ttl(&head, &data, line).map_err(|reason| (line, reason))?;
        self.add(owner, head.rtype, ttl, data, line).map_err(|reason| (line, reason))
    }

    /// `[TTL] [class] type`, TTL and class in either order.
    fn head(&self, tokens: &[Token<'_>], mut at: usize) -> Result<Head, Reason> {
        let mut ttl = None;
        let mut class = false;
        loop {
            let word = tokens.get(at).ok_or(Reason::EndBeforeType)?;
            at += 1;
            let found = || clip(word.raw);
            if word.quoted {
                return Err(Reason::NoType { found: found() });
            }
            if word.raw.starts_with(|c: char| c.is_ascii_digit()) {
                let seconds = text::seconds(word.raw).ok_or_else(|| match word.raw.contains(['.', ':']) {
                    // An address: the type was forgotten, or taken for the owner.
                    true => Reason::NoType { found: found() },
                    false => Reason::BadTtl { found: found() },
                })?;
                if seconds > MAX_TTL {
                    return Err(Reason::BadTtl { found: found() });
                }
                if ttl.replace(seconds).is_some() {
                    return Err(Reason::Twice { found: found() });
                }
                continue;
            }
            match word.raw.to_ascii_uppercase().as_str() {
                "IN" if class => return Err(Reason::Twice { found: found() }),
                "IN" => class = true,
                "CH" | "HS" | "CS" | "NONE" | "ANY" => return Err(Reason::WrongClass { found: found() }),
                _ => {
                    let rtype = rdata::type_of(word.raw).ok_or_else(|| Reason::NoType { found: found() })??;
                    return Ok(Head { ttl, rtype, data: at });
                }
            }
        }
    }

    fn ttl(&mut self, head: &Head, data: &[u8], line: u32) -> Result<u32, Reason> {
        if head.ttl.is_some() {
            self.last_ttl = head.ttl;
        }
        if let Some(ttl) = head.ttl.or(self.default_ttl).or(self.last_ttl) {
            return Ok(ttl);
        }
        if head.rtype != rdata::SOA {
            return Err(Reason::NoTtl);
        }
        let minimum = check::soa_number(data, check::SOA_MINIMUM);
        self.default_ttl = Some(minimum);
        self.warnings.push(line, Doubt::TtlFromMinimum { ttl: minimum });
        Ok(minimum)
    }

    fn add(&mut self, owner: Name, rtype: u16, ttl: u32, data: Vec<u8>, line: u32) -> Result<(), Reason> {
        let name = || rdata::type_name(rtype);
        if rtype == rdata::SOA && owner != *self.apex {
            return Err(Reason::SoaBelowApex { owner, zone: self.apex.clone() });
        }
        let wildcard = owner.labels().next() == Some(b"*");
        if wildcard && matches!(rtype, rdata::NS | rdata::DNAME | rdata::DS) {
            return Err(Reason::Wildcard { owner, rtype: name() });
        }
        let set = self.sets.entry(owner.clone()).or_default().entry(rtype).or_insert_with(|| Gathered {
            line,
            ttl,
            rdatas: BTreeSet::new(),
            octets: 0,
            mixed_ttl: false,
        });
        if set.ttl != ttl {
            set.ttl = set.ttl.min(ttl);
            set.mixed_ttl = true;
        }
        let octets = 12 + data.len();
        if !set.rdatas.insert(data) {
            self.warnings.push(line, Doubt::Duplicate { owner, rtype: name() });
            return Ok(());
        }
        set.octets += octets;
        if set.octets > MAX_SET_OCTETS {
            return Err(Reason::LongSet { owner, rtype: name() });
        }
        let single = matches!(rtype, rdata::SOA | rdata::CNAME | rdata::DNAME);
        if single && set.rdatas.len() > 1 {
            return Err(Reason::Single { owner, rtype: name() });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
