//! Lays out the octets of a [`Variant`].

use std::net::IpAddr;

use super::record::{A_BLOCK, AAAA_BLOCK, EQUAL, MAX_DRAWN, MAX_SET, Order, Run, Set, Variant, key};
use crate::wire::{QUESTION_POINTER, class, rtype};

/// An address with its weight.
pub(super) type Weighted = (IpAddr, u16);

#[derive(Default)]
pub(super) struct Builder {
    octets: Vec<u8>,
    sets: Vec<Set>,
    runs: Vec<Run>,
}

impl Builder {
    /// Addresses of one family in runs, the best run first. `limit`: most of them in one answer. Returns how many
    /// did not find room.
    #[must_use]
    pub fn addresses(&mut self, prefix: &[u8], v4: bool, runs: &[Vec<Weighted>], ttl: u32, limit: Option<u8>) -> usize {
        let (first, body_at) = (self.runs.len(), self.octets.len());
        let size = if v4 { A_BLOCK } else { AAAA_BLOCK };
        let most = if limit.is_some() { MAX_DRAWN } else { MAX_SET / size };
        let given: usize = runs.iter().map(Vec::len).sum();
        let mut count = 0;
        for run in runs {
            let blocks = &run[..run.len().min(most - count)];
            for (address, _) in blocks {
                match address {
                    IpAddr::V4(a) => self.record(rtype::A, ttl, &a.octets()),
                    IpAddr::V6(a) => self.record(rtype::AAAA, ttl, &a.octets()),
                }
            }
            count += blocks.len();
            if !blocks.is_empty() {
                self.runs.push(Run { count: blocks.len() as u16, weights: EQUAL });
            }
        }
        if count == 0 {
            return 0;
        }
        let body_length = self.octets.len() - body_at;
        debug_assert_eq!(body_length, count * size);
        self.weights(first, runs);
        let order = Order::Runs { first: first as u32, runs: (self.runs.len() - first) as u32, limit };
        let rtype = if v4 { rtype::A } else { rtype::AAAA };
        self.set(prefix, rtype, order, count as u16, (body_at, body_length), 0);
        given - count
    }

    /// Writes the weights of those runs in which they differ.
    fn weights(&mut self, first: usize, runs: &[Vec<Weighted>]) {
        for (run, blocks) in self.runs[first..].iter_mut().zip(runs.iter().filter(|r| !r.is_empty())) {
            let blocks = &blocks[..usize::from(run.count)];
            if blocks.len() <= MAX_DRAWN && blocks.iter().any(|b| b.1 != blocks[0].1) {
                run.weights = self.octets.len() as u32;
                for (_, weight) in blocks {
                    self.octets.extend_from_slice(&weight.to_be_bytes());
                }
            }
        }
    }

    /// Records of one type in a fixed order, with their additional records. Returns how many did not find room.
    #[must_use]
    pub fn fixed(&mut self, prefix: &[u8], rtype: u16, ttl: u32, rdatas: &[Vec<u8>], extra: &[Group]) -> usize {
        let body_at = self.octets.len();
        let mut count = 0;
        for rdata in rdatas {
            if self.octets.len() - body_at + 12 + rdata.len() > MAX_SET {
                break;
            }
            self.record(rtype, ttl, rdata);
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
        self.set(prefix, rtype, Order::Fixed, count as u16, (body_at, body_length), extra_length);
        rdatas.len() - count
    }

    /// The name exists and has nothing of its own.
    pub fn nothing(&mut self, prefix: &[u8], pending: bool) {
        let at = self.octets.len();
        self.set(prefix, 0, Order::None { pending }, 0, (at, 0), 0);
    }

    pub fn has(&self, prefix: &[u8]) -> bool {
        self.sets.iter().any(|set| {
            let at = set.prefix_at as usize;
            &self.octets[at..at + usize::from(set.prefix_length)] == prefix
        })
    }

    pub fn finish(mut self) -> Variant {
        let octets = &self.octets;
        // Stable, so that the types of a name stay in the order in which they were added.
        self.sets.sort_by_key(|set| {
            let at = set.prefix_at as usize;
            key(&octets[at..at + usize::from(set.prefix_length)])
        });
        Variant { octets: self.octets.into(), sets: self.sets.into(), runs: self.runs.into() }
    }

    fn record(&mut self, rtype: u16, ttl: u32, rdata: &[u8]) {
        self.octets.extend_from_slice(&QUESTION_POINTER);
        put_record(&mut self.octets, rtype, ttl, rdata);
    }

    fn set(
        &mut self,
        prefix: &[u8],
        rtype: u16,
        order: Order,
        count: u16,
        (body_at, body_length): (usize, usize),
        extra_length: usize,
    ) {
        let prefix_at = match prefix.is_empty() {
            true => 0,
            false => self.octets.len(),
        };
        self.octets.extend_from_slice(prefix);
        self.sets.push(Set {
            prefix_at: prefix_at as u32,
            prefix_length: prefix.len() as u8,
            rtype,
            order,
            count,
            body_at: body_at as u32,
            body_length: body_length as u32,
            extra_at: (body_at + body_length) as u32,
            extra_length: extra_length as u32,
        });
    }
}

/// Additional records that are given together or not at all (RFC 2181 section 9).
#[derive(Default)]
pub(super) struct Group {
    pub octets: Vec<u8>,
    pub count: u8,
}

impl Group {
    /// One RRset of addresses; `owner` is a whole name or ends in a pointer. `None` when there is none of the family.
    pub fn addresses(owner: &[u8], addresses: &[IpAddr], v4: bool, ttl: u32) -> Option<Group> {
        let mut group = Group::default();
        for address in addresses.iter().filter(|a| a.is_ipv4() == v4).take(MAX_DRAWN) {
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
    octets.extend_from_slice(&rtype.to_be_bytes());
    octets.extend_from_slice(&class::IN.to_be_bytes());
    octets.extend_from_slice(&ttl.to_be_bytes());
    octets.extend_from_slice(&(rdata.len() as u16).to_be_bytes());
    octets.extend_from_slice(rdata);
}
