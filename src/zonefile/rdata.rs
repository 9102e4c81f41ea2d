//! Record data: from the words of an entry to uncompressed wire form, names in it lower-cased. Nothing outside this
//! file names hickory.
//!
//! Types that are a row of simple fields are built here, because hickory's text parser (0.26) refuses `@` in record
//! data, DNAME and DS, reads `\DDD` as octal, ignores what stands behind the last field, and can't read quotes inside
//! parentheses. It parses the types with a grammar of their own, and it decodes every record again: what it can't
//! read back is an error.

use std::net::{Ipv4Addr, Ipv6Addr};

use hickory_proto::rr::{RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinEncodable, BinEncoder, NameEncoding};

use super::text::{self, Token, clip};
use super::{MAX_TTL, Reason};
use crate::names::Name;

pub(super) const A: u16 = 1;
pub(super) const NS: u16 = 2;
pub(super) const CNAME: u16 = 5;
pub(super) const SOA: u16 = 6;
pub(super) const AAAA: u16 = 28;
pub(super) const DNAME: u16 = 39;
pub(super) const DS: u16 = 43;
const SVCB: u16 = 64;
const HTTPS: u16 = 65;

/// How the data of a type is written.
enum Form {
    Fields(&'static [(Field, &'static str)]),
    /// By hickory's text parser; names stand at these places, and from the last one on words are joined.
    Hickory {
        name_at: Option<usize>,
        join_from: Option<usize>,
    },
}

#[derive(Clone, Copy)]
enum Field {
    V4,
    V6,
    U8,
    U16,
    U32,
    /// A time of a SOA record.
    Seconds,
    Name,
    /// One character string.
    Text,
    /// Character strings to the end, at least one.
    Texts,
    /// Letters and digits, as a character string.
    Tag,
    /// The octets of one string, without a length before them.
    Octets,
    /// Hexadecimal digits to the end.
    Hex,
}

/// The types that a zone file may hold by name.
const TYPES: &[(&str, u16, Form)] = {
    use Field::*;
    use Form::{Fields, Hickory};
    const TLSA: &[(Field, &str)] = &[(U8, "usage"), (U8, "selector"), (U8, "matching type"), (Hex, "data")];
    &[
        ("A", A, Fields(&[(V4, "address")])),
        ("NS", NS, Fields(&[(Name, "name server")])),
        ("CNAME", CNAME, Fields(&[(Name, "target")])),
        (
            "SOA",
            SOA,
            Fields(&[
                (Name, "primary name server (MNAME)"),
                (Name, "mailbox (RNAME)"),
                (U32, "serial"),
                (Seconds, "refresh time"),
                (Seconds, "retry time"),
                (Seconds, "expire time"),
                (Seconds, "minimum"),
            ]),
        ),
        ("PTR", 12, Fields(&[(Name, "target")])),
        ("HINFO", 13, Fields(&[(Text, "CPU"), (Text, "operating system")])),
        ("MX", 15, Fields(&[(U16, "preference"), (Name, "mail server")])),
        ("TXT", 16, Fields(&[(Texts, "text")])),
        ("AAAA", AAAA, Fields(&[(V6, "address")])),
        ("SRV", 33, Fields(&[(U16, "priority"), (U16, "weight"), (U16, "port"), (Name, "target")])),
        (
            "NAPTR",
            35,
            Fields(&[
                (U16, "order"),
                (U16, "preference"),
                (Text, "flags"),
                (Text, "services"),
                (Text, "regular expression"),
                (Name, "replacement"),
            ]),
        ),
        ("CERT", 37, Hickory { name_at: None, join_from: Some(3) }),
        ("DNAME", DNAME, Fields(&[(Name, "target")])),
        ("DS", DS, Fields(&[(U16, "key tag"), (U8, "algorithm"), (U8, "digest type"), (Hex, "digest")])),
        ("SSHFP", 44, Fields(&[(U8, "algorithm"), (U8, "fingerprint type"), (Hex, "fingerprint")])),
        ("TLSA", 52, Fields(TLSA)),
        ("SMIMEA", 53, Fields(TLSA)),
        ("OPENPGPKEY", 61, Hickory { name_at: None, join_from: Some(0) }),
        ("CSYNC", 62, Hickory { name_at: None, join_from: None }),
        ("SVCB", SVCB, Hickory { name_at: Some(1), join_from: None }),
        ("HTTPS", HTTPS, Hickory { name_at: Some(1), join_from: None }),
        ("CAA", 257, Fields(&[(U8, "flags"), (Tag, "tag"), (Octets, "value")])),
    ]
};

/// Types that exist but have no place in a zone that is not signed.
const SIGNED: [(&str, u16); 10] = [
    ("SIG", 24),
    ("KEY", 25),
    ("RRSIG", 46),
    ("NSEC", 47),
    ("DNSKEY", 48),
    ("NSEC3", 50),
    ("NSEC3PARAM", 51),
    ("CDS", 59),
    ("CDNSKEY", 60),
    ("ZONEMD", 63),
];

/// The type that a word names; `None` if the word looks like no type at all.
pub(super) fn type_of(word: &str) -> Option<Result<u16, Reason>> {
    let upper = word.to_ascii_uppercase();
    if let Some((_, number, _)) = TYPES.iter().find(|(name, _, _)| *name == upper) {
        return Some(Ok(*number));
    }
    if SIGNED.iter().any(|(name, _)| *name == upper) {
        return Some(Err(Reason::SignedZone { rtype: upper }));
    }
    let number = upper.strip_prefix("TYPE").filter(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))?;
    Some(match number.parse::<u16>() {
        // RFC 6895 section 3.1: 0 is reserved, OPT and 128 to 255 are not data.
        Ok(0 | 41 | 128..=255) | Err(_) => Err(Reason::NoData { rtype: clip(&upper) }),
        Ok(number) => match SIGNED.iter().find(|(_, n)| *n == number) {
            Some((name, _)) => Err(Reason::SignedZone { rtype: (*name).to_string() }),
            None => Ok(number),
        },
    })
}

/// A type as people write it.
pub(super) fn type_name(number: u16) -> String {
    match TYPES.iter().find(|(_, n, _)| *n == number) {
        Some((name, _, _)) => (*name).to_string(),
        None => format!("TYPE{number}"),
    }
}

/// The data of a record of type `rtype`.
pub(super) fn encode(rtype: u16, words: &[Token<'_>], origin: &Name) -> Result<Vec<u8>, Reason> {
    let generic = matches!(words.first(), Some(t) if t.raw == "\\#" && !t.quoted);
    let form = TYPES.iter().find(|(_, n, _)| *n == rtype).map(|(_, _, form)| form);
    let known = form.is_some();
    let mut rdata = match form {
        _ if generic => self::generic(rtype, &words[1..])?,
        Some(Form::Fields(fields)) => fields_of(rtype, fields, words, origin)?,
        Some(&Form::Hickory { name_at, join_from }) => by_hickory(rtype, name_at, join_from, words, origin)?,
        None => return Err(Reason::UnknownData { rtype: type_name(rtype) }),
    };
    if rdata.len() > usize::from(u16::MAX) {
        return Err(Reason::LongData { rtype: type_name(rtype) });
    }
    if known && rdata.is_empty() {
        // hickory takes it for the empty data of a dynamic update (RFC 2136 section 2.4), whatever the type.
        return Err(Reason::Refused { rtype: type_name(rtype), why: "it is empty".to_string() });
    }
    if matches!(rtype, SVCB | HTTPS) {
        lower_name_at(&mut rdata, 2);
    }
    read_back(rtype, &rdata)
}

fn fields_of(
    rtype: u16,
    fields: &[(Field, &'static str)],
    words: &[Token<'_>],
    origin: &Name,
) -> Result<Vec<u8>, Reason> {
    let mut out = Vec::new();
    let mut words = words.iter();
    for &(field, label) in fields {
        let Some(word) = words.next() else {
            return Err(Reason::MissingField { rtype: type_name(rtype), field: label });
        };
        let bad = |expected| Reason::BadField { field: label, found: clip(word.raw), expected };
        match field {
            Field::V4 => {
                let address: Ipv4Addr = word.raw.parse().map_err(|_| bad("an IPv4 address like 192.0.2.1"))?;
                out.extend(address.octets());
            }
            Field::V6 => {
                let address: Ipv6Addr = word.raw.parse().map_err(|_| bad("an IPv6 address like 2001:db8::1"))?;
                out.extend(address.octets());
            }
            Field::U8 => out.push(number(word.raw).ok_or_else(|| bad("a number from 0 to 255"))?),
            Field::U16 => {
                let value: u16 = number(word.raw).ok_or_else(|| bad("a number from 0 to 65535"))?;
                out.extend(value.to_be_bytes());
            }
            Field::U32 => {
                let value: u32 = number(word.raw).ok_or_else(|| bad("a number from 0 to 4294967295"))?;
                out.extend(value.to_be_bytes());
            }
            Field::Seconds => {
                let value = text::seconds(word.raw).filter(|s| *s <= MAX_TTL);
                out.extend(value.ok_or_else(|| bad("a time like 3600 or 1h, at most 2147483647 s"))?.to_be_bytes());
            }
            Field::Name => out.extend_from_slice(text::name(word, origin)?.as_wire()),
            Field::Text => push_string(&mut out, &text::string(word)?, || bad("at most 255 octets in one string"))?,
            Field::Texts => {
                push_string(&mut out, &text::string(word)?, || bad("at most 255 octets in one string"))?;
                for word in words.by_ref() {
                    push_string(&mut out, &text::string(word)?, || Reason::BadField {
                        field: label,
                        found: clip(word.raw),
                        expected: "at most 255 octets in one string",
                    })?;
                }
            }
            Field::Tag => {
                let plain = word.raw.bytes().all(|b| b.is_ascii_alphanumeric()) && !word.raw.is_empty();
                let expected = "a word of letters and digits like issue";
                if !plain {
                    return Err(bad(expected));
                }
                push_string(&mut out, word.raw.to_ascii_lowercase().as_bytes(), || bad(expected))?;
            }
            Field::Octets => out.extend(text::string(word)?),
            Field::Hex => {
                let digits: String = std::iter::once(word).chain(words.by_ref()).map(|w| w.raw).collect();
                out.extend(hex(&digits).ok_or_else(|| bad("pairs of hexadecimal digits"))?);
            }
        }
    }
    match words.next() {
        Some(extra) => Err(Reason::ExtraField { rtype: type_name(rtype), found: clip(extra.raw) }),
        None => Ok(out),
    }
}

/// RFC 3597 section 5: `\# <length> <hexadecimal digits>`.
fn generic(rtype: u16, words: &[Token<'_>]) -> Result<Vec<u8>, Reason> {
    let bad = || Reason::BadGeneric { rtype: type_name(rtype) };
    let (length, digits) = words.split_first().ok_or_else(bad)?;
    let length: u16 = number(length.raw).ok_or_else(bad)?;
    let digits: String = digits.iter().map(|w| w.raw).collect();
    let octets = if digits.is_empty() { Vec::new() } else { hex(&digits).ok_or_else(bad)? };
    if octets.len() == usize::from(length) { Ok(octets) } else { Err(bad()) }
}

fn by_hickory(
    rtype: u16,
    name_at: Option<usize>,
    join_from: Option<usize>,
    words: &[Token<'_>],
    origin: &Name,
) -> Result<Vec<u8>, Reason> {
    let mut line = String::new();
    for (i, word) in words.iter().enumerate() {
        // Its lexer would end a word at these, or take them for something else.
        let unsafe_octet = |b: u8| !b.is_ascii_graphic() || b";()\\@$".contains(&b);
        let text = match name_at {
            Some(at) if at == i => text::name(word, origin)?.to_string(),
            _ => word.raw.to_string(),
        };
        if text.bytes().any(unsafe_octet) || text.starts_with('"') || text.is_empty() {
            return Err(Reason::Unreadable { rtype: type_name(rtype), found: clip(word.raw) });
        }
        if i > 0 && join_from.is_none_or(|from| i <= from) {
            line.push(' ');
        }
        line.push_str(&text);
    }
    let refused = |why: String| Reason::Refused { rtype: type_name(rtype), why: clip(&why) };
    let data = RData::try_from_str(RecordType::from(rtype), &line).map_err(|e| refused(e.to_string()))?;
    emit(&data).map_err(|e| refused(e.to_string()))
}

/// Decodes the data once more by hickory, and returns it in canonical form (RFC 4034 section 6.2), which is
/// uncompressed and, for the types of RFC 1035, lower-cased.
fn read_back(rtype: u16, rdata: &[u8]) -> Result<Vec<u8>, Reason> {
    let refused = |why: String| Reason::Refused { rtype: type_name(rtype), why: clip(&why) };
    // RFC 1035 section 3.2.1: the root as owner, type, class IN, TTL 0, length.
    let mut record = vec![0];
    record.extend(rtype.to_be_bytes());
    record.extend([0, 1, 0, 0, 0, 0]);
    record.extend((rdata.len() as u16).to_be_bytes());
    record.extend_from_slice(rdata);
    if rtype == DNAME {
        // hickory takes DNAME for unknown, so the name is read here.
        return Ok(Name::from_wire(rdata).map_err(|e| refused(e.to_string()))?.as_wire().to_vec());
    }
    let decoded = Record::from_bytes(&record).map_err(|e| refused(e.to_string()))?;
    let back = emit(&decoded.data).map_err(|e| refused(e.to_string()))?;
    if back.eq_ignore_ascii_case(rdata) {
        Ok(back)
    } else {
        Err(refused("it reads differently when it is decoded".to_string()))
    }
}

fn emit(data: &RData) -> Result<Vec<u8>, hickory_proto::ProtoError> {
    let mut out = Vec::new();
    let mut encoder = BinEncoder::new(&mut out);
    encoder.set_canonical_form(true);
    encoder.set_name_encoding(NameEncoding::UncompressedLowercase);
    data.emit(&mut encoder)?;
    Ok(out)
}

/// Lower-cases the name that begins at `at`, as far as it is one.
fn lower_name_at(rdata: &mut [u8], mut at: usize) {
    while let Some(&n @ 1..=63) = rdata.get(at) {
        let end = at + 1 + usize::from(n);
        let Some(label) = rdata.get_mut(at + 1..end) else { return };
        label.make_ascii_lowercase();
        at = end;
    }
}

/// Decimal digits only: `str::parse` alone would take `+1`.
fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}

fn push_string(out: &mut Vec<u8>, string: &[u8], too_long: impl Fn() -> Reason) -> Result<(), Reason> {
    let length = u8::try_from(string.len()).map_err(|_| too_long())?;
    out.push(length);
    out.extend_from_slice(string);
    Ok(())
}

/// At least one octet.
fn hex(digits: &str) -> Option<Vec<u8>> {
    if digits.is_empty() || !digits.len().is_multiple_of(2) || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    (0..digits.len()).step_by(2).map(|i| u8::from_str_radix(&digits[i..i + 2], 16).ok()).collect()
}
