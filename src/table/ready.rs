//! Ready-made RRsets of static data: the octets behind a question, as they will be sent.
//!
//! Every record of an answer section has the owner 0xC00C (a pointer to the question), so that one body fits every
//! spelling of the name.

use std::net::IpAddr;

use super::{FIXED, MAX_EXTRA, MAX_SET};
use crate::wire::response::Section;
use crate::wire::{HEADER, QUESTION_POINTER, Writer, class, pointer_to, read_u16, rtype};

/// All RRsets of one name.
#[derive(Debug, Clone, Default)]
pub struct RrSets {
    octets: Box<[u8]>,
    sets: Box<[Ready]>,
}

/// One RRset.
#[derive(Debug, Clone, Copy)]
pub struct Ready {
    rtype: u16,
    count: u16,
    body_at: u32,
    body_length: u32,
    /// Groups of additional records: length (2 octets), count (1), records.
    extra_at: u32,
    extra_length: u32,
}

impl Ready {
    pub fn rtype(&self) -> u16 {
        self.rtype
    }
}

impl RrSets {
    pub fn is_empty(&self) -> bool {
        self.sets.is_empty()
    }

    /// `any`: the first set will do (RFC 8482).
    pub fn find(&self, qtype: u16, any: bool) -> Option<&Ready> {
        self.sets.iter().find(|set| set.rtype == qtype || any)
    }

    fn body(&self, set: &Ready) -> &[u8] {
        let at = set.body_at as usize;
        &self.octets[at..at + set.body_length as usize]
    }

    /// The RDATA of a set's first record.
    pub fn first_rdata<'a>(&'a self, set: &Ready) -> &'a [u8] {
        let body = self.body(set);
        let length = usize::from(read_u16(body, 10));
        &body[FIXED..FIXED + length]
    }

    /// The TTL of a set's first record.
    pub fn first_ttl(&self, set: &Ready) -> u32 {
        let body = self.body(set);
        u32::from(read_u16(body, 6)) << 16 | u32::from(read_u16(body, 8))
    }

    /// Writes a set into `section`, owned by the name at `owner` of the message; false: no room, nothing was written.
    #[must_use]
    pub fn write(&self, set: &Ready, writer: &mut Writer<'_>, section: Section, owner: usize) -> bool {
        let body = self.body(set);
        let Some(target) = writer.reserve_records(section, body.len(), set.count) else { return false };
        target.copy_from_slice(body);
        if owner != HEADER {
            repoint(target, owner);
        }
        true
    }

    /// Additional records, group by group while there is room. Only behind a question for this very set.
    pub fn write_extra(&self, set: &Ready, writer: &mut Writer<'_>) -> Extra {
        let mut rest = &self.octets[set.extra_at as usize..(set.extra_at + set.extra_length) as usize];
        while !rest.is_empty() {
            let (length, count) = (usize::from(read_u16(rest, 0)), rest[2]);
            if !writer.append(Section::Additional, &rest[3..3 + length], u16::from(count)) {
                return Extra::Incomplete;
            }
            rest = &rest[3 + length..];
        }
        Extra::Complete
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extra {
    Complete,
    Incomplete,
}

/// Makes records with the owner 0xC00C records of the name that stands at `owner`.
fn repoint(mut records: &mut [u8], owner: usize) {
    let pointer = pointer_to(owner);
    while !records.is_empty() {
        debug_assert_eq!(records[..2], QUESTION_POINTER);
        records[..2].copy_from_slice(&pointer);
        let length = FIXED + usize::from(read_u16(records, 10));
        records = &mut records[length..];
    }
}

/// Lays out the sets of one name.
#[derive(Default)]
pub(super) struct Builder {
    octets: Vec<u8>,
    sets: Vec<Ready>,
}

impl Builder {
    /// Records of one type with their additional records. Returns how many did not find room.
    #[must_use]
    pub fn add(&mut self, rtype: u16, ttl: u32, rdatas: &[Vec<u8>], extra: &[Group]) -> usize {
        let body_at = self.octets.len();
        let mut count = 0;
        for rdata in rdatas {
            if self.octets.len() - body_at + FIXED + rdata.len() > MAX_SET {
                break;
            }
            self.octets.extend_from_slice(&QUESTION_POINTER);
            put_record(&mut self.octets, rtype, ttl, rdata);
            count += 1;
        }
        let body_length = self.octets.len() - body_at;
        // More additional records than a message holds are never sent.
        let mut room = MAX_SET;
        for group in extra {
            if group.octets.len() > room {
                break;
            }
            room -= group.octets.len();
            self.octets.extend_from_slice(&(group.octets.len() as u16).to_be_bytes());
            self.octets.push(group.count);
            self.octets.extend_from_slice(&group.octets);
        }
        let extra_length = self.octets.len() - body_at - body_length;
        self.sets.push(Ready {
            rtype,
            count: count as u16,
            body_at: body_at as u32,
            body_length: body_length as u32,
            extra_at: (body_at + body_length) as u32,
            extra_length: extra_length as u32,
        });
        rdatas.len() - count
    }

    pub fn finish(self) -> RrSets {
        RrSets { octets: self.octets.into(), sets: self.sets.into() }
    }
}

/// Additional records that are given together or not at all (RFC 2181 section 9).
#[derive(Default)]
pub(super) struct Group {
    octets: Vec<u8>,
    count: u8,
}

impl Group {
    /// One RRset of addresses; `owner` is a whole name. `None` when there is none of the family.
    pub fn addresses(owner: &[u8], addresses: &[IpAddr], v4: bool, ttl: u32) -> Option<Group> {
        let mut group = Group::default();
        for address in addresses.iter().filter(|a| a.is_ipv4() == v4).take(MAX_EXTRA) {
            group.octets.extend_from_slice(owner);
            match address {
                IpAddr::V4(a) => put_record(&mut group.octets, rtype::A, ttl, &a.octets()),
                IpAddr::V6(a) => put_record(&mut group.octets, rtype::AAAA, ttl, &a.octets()),
            }
            group.count += 1;
        }
        // A group's length is two octets: 255 AAAA records of 280 octets would not fit, but neither into an answer.
        (group.count > 0 && group.octets.len() <= usize::from(u16::MAX)).then_some(group)
    }
}

/// All of a record but its owner.
pub(super) fn put_record(octets: &mut Vec<u8>, rtype: u16, ttl: u32, rdata: &[u8]) {
    octets.extend_from_slice(&fixed([0; 2], rtype, ttl, rdata.len() as u16)[2..]);
    octets.extend_from_slice(rdata);
}

/// What stands in front of a record's RDATA; `owner` is a pointer.
pub(super) fn fixed(owner: [u8; 2], rtype: u16, ttl: u32, rdata: u16) -> [u8; FIXED] {
    let mut fixed = [0; FIXED];
    fixed[..2].copy_from_slice(&owner);
    fixed[2..4].copy_from_slice(&rtype.to_be_bytes());
    fixed[4..6].copy_from_slice(&class::IN.to_be_bytes());
    fixed[6..10].copy_from_slice(&ttl.to_be_bytes());
    fixed[10..].copy_from_slice(&rdata.to_be_bytes());
    fixed
}
