//! Ready-made answers: the octets behind a question, as they will be sent.
//!
//! Every record of an answer section has the owner 0xC00C (a pointer to the question), so that one body fits every
//! spelling of the name. Owners of additional records point into the question behind the part that the set is for.

use crate::names::Labels;
use crate::wire::response::Section;
use crate::wire::{HEADER, QUESTION_POINTER, Writer, read_u16};

use super::random::Random;

/// Octets of an A record with a pointer as owner: 2 + 2 + 2 + 4 + 2 + 4.
pub(super) const A_BLOCK: usize = 16;
/// The same for AAAA.
pub(super) const AAAA_BLOCK: usize = 28;
/// Most addresses of a set that is cut or weighted: an index into a run is one octet.
pub(super) const MAX_DRAWN: usize = 255;
/// Most octets of one set: with header, question and OPT it fits into a stream's 65,535.
pub(super) const MAX_SET: usize = 64_000;
/// `Run::weights` of a run whose records all weigh the same.
pub(super) const EQUAL: u32 = u32::MAX;

/// All that a view is told at and below one name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Variant {
    pub(super) octets: Box<[u8]>,
    /// Ordered by [`key`] of their prefix: those at the name itself first.
    pub(super) sets: Box<[Set]>,
    pub(super) runs: Box<[Run]>,
}

/// One RRset, or the knowledge that a name exists without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Set {
    /// The labels in front of the record's own name; a part of `octets`.
    pub(super) prefix_at: u32,
    pub(super) prefix_length: u8,
    /// 0 is no record type: the name exists, and this says no more.
    pub(super) rtype: u16,
    pub(super) order: Order,
    pub(super) count: u16,
    pub(super) body_at: u32,
    pub(super) body_length: u32,
    /// Groups of additional records: length (2 octets), count (1), records.
    pub(super) extra_at: u32,
    pub(super) extra_length: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// As they stand.
    Fixed,
    /// Blocks of one size in runs, each run in a weighted random order.
    Runs { first: u32, runs: u32, limit: Option<u8> },
    /// No record: the service has no address yet (`true`), or only names below it have data.
    None { pending: bool },
}

/// Records of one rank, which are drawn in a random order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) count: u16,
    /// Where two octets for each record are its weight; [`EQUAL`] if all are the same.
    pub(super) weights: u32,
}

/// What a variant knows of a name and a type.
#[derive(Debug, Clone, Copy)]
pub enum Found<'a> {
    Set(&'a Set),
    /// The name exists, without this type. `pending`: it will get an address.
    NoData {
        pending: bool,
    },
    /// Neither the name nor anything below it.
    Missing,
}

impl Set {
    pub fn rtype(&self) -> u16 {
        self.rtype
    }
}

impl Variant {
    /// `prefix`: the labels in front of the variant's own name. `any`: the first set will do (RFC 8482).
    pub fn find(&self, prefix: &[u8], qtype: u16, any: bool) -> Found<'_> {
        let Some(wanted) = key(prefix) else { return Found::Missing };
        let first = match prefix.is_empty() {
            true => 0,
            false => self.sets.partition_point(|set| key(self.prefix(set)) < Some(wanted)),
        };
        let mut here = None;
        for set in &self.sets[first..] {
            if usize::from(set.prefix_length) != prefix.len() || self.prefix(set) != prefix {
                break;
            }
            if set.rtype != 0 && (set.rtype == qtype || any) {
                return Found::Set(set);
            }
            here = Some(here.unwrap_or(false) || matches!(set.order, Order::None { pending: true }));
        }
        match here {
            Some(pending) => Found::NoData { pending },
            None if prefix.is_empty() => Found::NoData { pending: false },
            // What is below a name stands right behind it.
            None => match self.sets.get(first).and_then(|set| key(self.prefix(set))) {
                Some((last, _)) if wanted == (last, &[]) => Found::NoData { pending: false },
                Some(_) | None => Found::Missing,
            },
        }
    }

    fn prefix(&self, set: &Set) -> &[u8] {
        let at = set.prefix_at as usize;
        &self.octets[at..at + usize::from(set.prefix_length)]
    }

    fn body(&self, set: &Set) -> &[u8] {
        let at = set.body_at as usize;
        &self.octets[at..at + set.body_length as usize]
    }

    /// The RDATA of a set's first record.
    pub fn first_rdata<'a>(&'a self, set: &Set) -> &'a [u8] {
        let body = self.body(set);
        let length = usize::from(read_u16(body, 10));
        &body[12..12 + length]
    }

    /// The TTL of a set's first record.
    pub fn first_ttl(&self, set: &Set) -> u32 {
        let body = self.body(set);
        u32::from(read_u16(body, 6)) << 16 | u32::from(read_u16(body, 8))
    }

    /// Writes a set into `section`, owned by the name at `owner` of the message; false: no room, nothing was written.
    #[must_use]
    pub fn write(
        &self,
        set: &Set,
        writer: &mut Writer<'_>,
        section: Section,
        owner: usize,
        random: &mut Random,
    ) -> bool {
        let body = self.body(set);
        let (length, count) = match set.order {
            Order::Runs { limit: Some(limit), .. } if set.count > u16::from(limit) => {
                (body.len() / usize::from(set.count) * usize::from(limit), u16::from(limit))
            }
            Order::Runs { .. } | Order::Fixed => (body.len(), set.count),
            Order::None { .. } => return true,
        };
        let Some(target) = writer.reserve_records(section, length, count) else { return false };
        match set.order {
            Order::Runs { first, runs, .. } => {
                let runs = &self.runs[first as usize..first as usize + runs as usize];
                if length == body.len() {
                    target.copy_from_slice(body);
                    self.shuffle(target, runs, usize::from(count), random);
                } else {
                    self.draw(body, body.len() / usize::from(set.count), runs, target, random);
                }
            }
            Order::Fixed | Order::None { .. } => target.copy_from_slice(body),
        }
        if owner != HEADER {
            repoint(target, owner);
        }
        true
    }

    /// Additional records, group by group while there is room. Only behind a question for this very set.
    pub fn write_extra(&self, set: &Set, writer: &mut Writer<'_>) -> Extra {
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

    /// Orders whole runs in place. Most runs have one to three records.
    fn shuffle(&self, blocks: &mut [u8], runs: &[Run], count: usize, random: &mut Random) {
        let size = blocks.len() / count;
        let mut at = 0;
        for run in runs {
            let n = usize::from(run.count);
            let blocks = &mut blocks[at * size..(at + n) * size];
            at += n;
            if n < 2 {
                continue;
            }
            if run.weights == EQUAL {
                for i in (1..n).rev() {
                    swap_blocks(blocks, size, i, random.below(i as u32 + 1) as usize);
                }
            } else {
                let mut weights = self.weights(run);
                for i in 0..n - 1 {
                    let j = i + draw_weighted(&weights[i..n], random);
                    weights.swap(i, j);
                    swap_blocks(blocks, size, i, j);
                }
            }
        }
    }

    /// Fills `target` with as many blocks as it holds: whole runs first, of the last one a weighted draw.
    fn draw(&self, body: &[u8], size: usize, runs: &[Run], target: &mut [u8], random: &mut Random) {
        let mut out = target.chunks_exact_mut(size);
        let mut at = 0;
        for run in runs {
            let n = usize::from(run.count);
            let mut order: [u8; MAX_DRAWN] = std::array::from_fn(|i| i as u8);
            let mut weights = self.weights(run);
            for i in 0..n {
                let Some(block) = out.next() else { return };
                let j = i + draw_weighted(&weights[i..n], random);
                weights.swap(i, j);
                order.swap(i, j);
                let from = (at + usize::from(order[i])) * size;
                block.copy_from_slice(&body[from..from + size]);
            }
            at += n;
        }
    }

    fn weights(&self, run: &Run) -> [u16; MAX_DRAWN] {
        let mut weights = [1; MAX_DRAWN];
        if run.weights != EQUAL {
            let at = run.weights as usize;
            for (i, weight) in weights.iter_mut().enumerate().take(usize::from(run.count)) {
                *weight = read_u16(&self.octets, at + 2 * i);
            }
        }
        weights
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extra {
    Complete,
    Incomplete,
}

/// An index into `weights`, with a probability in proportion to the weight.
fn draw_weighted(weights: &[u16], random: &mut Random) -> usize {
    let total: u32 = weights.iter().map(|&w| u32::from(w)).sum();
    let mut ticket = random.below(total.max(1));
    for (i, &weight) in weights.iter().enumerate() {
        match ticket.checked_sub(u32::from(weight)) {
            Some(rest) => ticket = rest,
            None => return i,
        }
    }
    0
}

fn swap_blocks(blocks: &mut [u8], size: usize, i: usize, j: usize) {
    let (low, high) = (i.min(j), i.max(j));
    if low != high {
        let (left, right) = blocks.split_at_mut(high * size);
        left[low * size..(low + 1) * size].swap_with_slice(&mut right[..size]);
    }
}

/// Makes records with the owner 0xC00C records of the name that stands at `owner`.
fn repoint(mut records: &mut [u8], owner: usize) {
    let pointer = pointer_to(owner);
    while !records.is_empty() {
        debug_assert_eq!(records[..2], QUESTION_POINTER);
        records[..2].copy_from_slice(&pointer);
        let length = 12 + usize::from(read_u16(records, 10));
        records = &mut records[length..];
    }
}

/// RFC 1035 section 4.1.4. All names that are pointed to stand in the first 16,384 octets.
pub fn pointer_to(offset: usize) -> [u8; 2] {
    debug_assert!(offset < 0x4000);
    (0xC000 | offset as u16).to_be_bytes()
}

/// What sets are ordered by: the last label, then the one before it, so that what is below a name follows it. `None`: no
/// name of a service has more than two labels in front of `S.N.Z`.
pub(super) fn key(prefix: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut labels = Labels::new(prefix);
    match (labels.next(), labels.next(), labels.next()) {
        (None, _, _) => Some((&[], &[])),
        (Some(only), None, _) => Some((only, &[])),
        (Some(first), Some(last), None) => Some((last, first)),
        (Some(_), Some(_), Some(_)) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_below_a_name_follows_it() {
        let mut prefixes: [&[u8]; 6] = [b"\x01b\x01a", b"", b"\x01b", b"\x01a", b"\x01a\x01b", b"\x03x\x01a"];
        prefixes.sort_by_key(|prefix| key(prefix));
        let expected: [&[u8]; 6] = [b"", b"\x01a", b"\x01b\x01a", b"\x01b", b"\x01a\x01b", b"\x03x\x01a"];
        assert_eq!(prefixes, expected);
        assert_eq!(key(b"\x01a\x01b\x01c"), None);
    }

    #[test]
    fn weighted_draws_follow_the_weights() {
        let mut random = Random::new(7);
        let mut hits = [0u32; 3];
        for _ in 0..60_000 {
            hits[draw_weighted(&[100, 200, 300], &mut random)] += 1;
        }
        // Five standard deviations of a binomial with n = 60,000 are below 620.
        for (hit, expected) in hits.iter().zip([10_000u32, 20_000, 30_000]) {
            assert!(hit.abs_diff(expected) < 620, "{hits:?}");
        }
    }
}
