//! The short way of services that are like most ([`Record::is_uniform`](super::Record::is_uniform)): no list of what is
//! seen, no choice, one record of 16 octets for each candidate.

use std::hint::cold_path;

use super::super::FIXED;
use super::super::Member;
use super::super::random::{Draws, FewDraws, Random};
use super::super::ready::fixed;
use super::super::record::{MOST_UNIFORM, Record};
use super::targets::{Prefix, SRV_HEAD, put_srv_head};
use super::{Perspective, SILENT_STEP, Sight};
use crate::load::Shedding;
use crate::model::ClusterId;
use crate::names::copy;
use crate::ranking::Tier;
use crate::wire::{HEADER, QUESTION_POINTER, Query, pointer_to, rtype};

/// Octets of an A record whose owner is a pointer.
const A_RECORD: usize = FIXED + 4;

// 12! is below 2³², which `FewDraws` asks for.
const _: () = assert!(MOST_UNIFORM <= 12);

/// How many are as near as the one that stands there.
#[inline(always)]
fn band(all: &[Item], from: usize) -> usize {
    same(all, from, Item::tier)
}

/// How many of these are on one step.
#[inline(always)]
fn run(all: &[Item], from: usize) -> usize {
    same(all, from, Item::rank)
}

#[inline(always)]
fn same(all: &[Item], from: usize, by: impl Fn(Item) -> u64) -> usize {
    // Those that are the same stand together. Most often either all are, or the next one is not. A loop of our own: those of
    // iterators are functions, and whether they are inlined is not for us to say.
    match all.last() {
        Some(&last) if by(last) != by(all[from]) => {
            let mut count = 1;
            while by(all[from + count]) == by(all[from]) {
                count += 1;
            }
            count
        }
        _ => all.len() - from,
    }
}

/// By rank, and those of one rank as they stand in the record. Without branches that depend on what is compared: where clients are
/// in many places, these would be guessed wrong half the time, and they are few.
#[inline(always)]
fn sort(all: &mut [Item]) {
    let in_order = |a: Item, b: Item| (Item(a.0.min(b.0)), Item(a.0.max(b.0)));
    match all {
        [] | [_] => {}
        [a, b] => (*a, *b) = in_order(*a, *b),
        [a, b, c] => {
            (*a, *b) = in_order(*a, *b);
            (*b, *c) = in_order(*b, *c);
            (*a, *b) = in_order(*a, *b);
        }
        _ => {
            cold_path();
            sort_many(all);
        }
    }
}

/// Not inlined, so that the way of the few needs no registers for it.
#[inline(never)]
fn sort_many(all: &mut [Item]) {
    for end in (1..all.len()).rev() {
        let mut highest = all[0].0;
        for n in 0..end {
            let next = all[n + 1].0;
            all[n] = Item(highest.min(next));
            highest = highest.max(next);
        }
        all[end] = Item(highest);
    }
}

/// As [`draw`](super::draw), of weights whose sum is known.
fn draw_of(weights: &[u32], total: u32, draws: &mut Draws<'_>) -> usize {
    let mut ticket = draws.below(total.max(1));
    for (n, weight) in weights.iter().enumerate() {
        if ticket < *weight {
            return n;
        }
        ticket -= weight;
    }
    0
}

impl Sight<'_> {
    /// It is uniform, and load has no say in its answers.
    #[inline(always)]
    fn is_calm(&self) -> bool {
        self.record.is_calm_and_uniform() && self.perspective.calm
    }

    /// Its candidates as this view sees them, in the order of the record.
    #[inline(always)]
    fn items<'i>(&self, all: &'i mut [Item; MOST_UNIFORM]) -> &'i mut [Item] {
        let all = &mut all[..self.record.len().min(MOST_UNIFORM)];
        for (n, (item, (cluster, addresses))) in all.iter_mut().zip(self.record.uniform()).enumerate() {
            let tier = self.perspective.reach[cluster.index()].tier;
            // The ingress address comes before the clusterIP.
            let [ingress, cluster_ip] = [addresses as u32, (addresses >> 32) as u32];
            *item = Item::new(tier, n, if tier == Tier::OWN_CLUSTER { cluster_ip } else { ingress });
        }
        all
    }

    /// Of a [uniform](Record::is_uniform) service, writes the records that are asked for at the question's name, in the order that [`write`](Sight::write) would have drawn from the
    /// same `random`: the best A records, or, with a `port`, the SRV records of that and behind them their targets' A records.
    /// Returns how many octets that is, and how many records by section; `None`: there is no room for all.
    ///
    /// One function for both, as what they begin with is most of it: twice, it would be fetched twice for most batches.
    #[inline(always)]
    pub fn write_uniform(
        &self,
        port: Option<u16>,
        query: &Query,
        out: &mut [u8],
        random: &mut Random,
    ) -> Option<(usize, [u16; 3])> {
        let (mut all, mut loads) = ([Item::default(); MOST_UNIFORM], Loads::default());
        let calm = self.is_calm();
        let (all, best) = self.rank(calm, &mut all, &mut loads, random);
        if let Some(port) = port {
            let Perspective { members, ttl, apex, .. } = self.perspective;
            let targets = Targets { record: self.record, members, ttl, apex: apex.len(), port };
            let count = all.len() as u16;
            return Some((targets.put(all, &loads, query, out)?, [count, 0, count]));
        }
        let count = all.len().min(self.perspective.cut.addresses(best, false));
        let records = out.get_mut(..count * A_RECORD)?.as_chunks_mut().0;
        if has_equals(all) {
            match calm {
                true => draw_bands(all, best, count, random),
                false => draw_runs(all, count, &loads, self.record, random),
            }
        }
        self.put_addresses(records, all);
        Some((count * A_RECORD, [count as u16, 0, 0]))
    }

    /// As many records as there are, of the first items.
    #[inline(always)]
    fn put_addresses(&self, records: &mut [[u8; A_RECORD]], all: &[Item]) {
        let mut head = [0; A_RECORD];
        head[..FIXED].copy_from_slice(&fixed(QUESTION_POINTER, rtype::A, self.perspective.ttl, 4));
        let head = u128::from_le_bytes(head);
        for (record, item) in records.iter_mut().zip(all) {
            *record = (head | u128::from(item.address()) << (8 * FIXED)).to_le_bytes();
        }
    }

    /// Its candidates in the order of their bands, as load makes these, and of their steps; and how many are in the first band.
    /// `loads`: what of their loads counts. `calm`: whether it is that, which is known in a register here.
    #[inline(always)]
    fn rank<'i>(
        &self,
        calm: bool,
        all: &'i mut [Item; MOST_UNIFORM],
        loads: &mut Loads,
        random: &mut Random,
    ) -> (&'i mut [Item], usize) {
        let all = self.items(all);
        let has_say = !calm && self.weigh(all, loads);
        sort(all);
        let best = band(all, 0);
        let best = if has_say && best < all.len() { exchange(all, best, loads, random) } else { best };
        (all, best)
    }

    /// Puts the overloaded behind all others, and the silent behind their equals. Whether load has a say.
    #[inline(always)]
    fn weigh(&self, all: &mut [Item], loads: &mut Loads) -> bool {
        let (mut any, mut every) = (0, Shedding::OVERLOADED);
        for (n, load) in self.record.uniform_loads().enumerate() {
            loads.0[n] = load;
            (any, every) = (any | load, every & load);
        }
        if !self.perspective.calm {
            cold_path();
            (any, every) = sway(self.record, self.perspective.members, all, loads);
        }
        // With no load, or where all are overloaded, it has none.
        if any == 0 || every != 0 {
            *loads = Loads::default();
            return false;
        }
        if any & Shedding::OVERLOADED != 0 {
            for (item, load) in all.iter_mut().zip(loads.0) {
                *item = if load & Shedding::OVERLOADED == 0 { *item } else { item.overloaded() };
            }
        }
        true
    }
}

/// The targets of a port. No sight: that would have to be put into memory for every answer.
struct Targets<'a> {
    record: Record<'a>,
    members: &'a [Member],
    /// Seconds.
    ttl: u32,
    /// Octets of the zone's name.
    apex: usize,
    port: u16,
}

impl Targets<'_> {
    /// For the question's name, in the order of `all`: the SRV records, then the addresses. Returns how many octets that is; `None`:
    /// there is no room for all.
    #[inline(never)]
    fn put(self, all: &[Item], loads: &Loads, query: &Query, out: &mut [u8]) -> Option<usize> {
        let Targets { record, members, ttl, apex, port } = self;
        let (clusters, weight) = (record.uniform_clusters(), record.uniform_weight());
        // `S.N.Z`, with which every target ends, and the question's name does, too.
        let name = query.name();
        let at = name.len() - record.name().len() - apex;
        let service = &name[at..];
        let prefix = |item: &Item| {
            let cluster = ClusterId(u16::from_le_bytes(clusters[item.position()]));
            Prefix::of_cluster(&members[cluster.index()].wire)
        };
        let room = out.len();
        let mut rest = out;
        let head = fixed(QUESTION_POINTER, rtype::SRV, ttl, 0);
        let (mut priority, mut tier) = (0, all[0].tier());
        for item in all {
            if item.tier() != tier {
                (priority, tier) = (priority + 10, item.tier());
            }
            let weight = loads.left_of(weight, *item).max(1) as u16;
            let prefix = prefix(item);
            let (record, others) = rest.split_at_mut_checked(SRV_HEAD + prefix.len() + service.len())?;
            let target = put_srv_head(record, &head, [priority + item.step(), weight, port]);
            // A target is not compressed (RFC 2782).
            copy(service, prefix.put(target));
            rest = others;
        }
        let head = fixed(pointer_to(HEADER + at), rtype::A, ttl, 4);
        for item in all {
            let prefix = prefix(item);
            let (record, others) = rest.split_at_mut_checked(prefix.len() + A_RECORD)?;
            prefix.put_address(record, &head, &item.address().to_le_bytes());
            rest = others;
        }
        Some(room - rest.len())
    }
}

// Functions that take no sight: it would have to be put into memory for every answer.

/// What concerns whole clusters: puts their loads together with the service's own, and those behind that are silent. Gives the bits
/// that any of the loads has, and whether every one is [overloaded](Shedding::OVERLOADED).
#[inline(never)]
fn sway(record: Record<'_>, members: &[Member], all: &mut [Item], loads: &mut Loads) -> (u16, u16) {
    let (mut any, mut every) = (0, Shedding::OVERLOADED);
    for ((item, load), (cluster, _)) in all.iter_mut().zip(&mut loads.0).zip(record.uniform()) {
        let member = &members[cluster.index()];
        *load = Shedding::from_bits(*load).most(member.shedding()).to_bits();
        if member.is_silent() {
            *item = item.silent();
        }
        (any, every) = (any | *load, every & *load);
    }
    (any, every)
}

/// Lets the second band, which is there, go first in the share of answers that load says. `best`: how many are in the first one;
/// gives the same of the one that goes first.
#[inline(always)]
fn exchange(all: &mut [Item], best: usize, loads: &Loads, random: &mut Random) -> usize {
    let mut share = loads.share(all[0]);
    for item in &all[1..best] {
        share = share.min(loads.share(*item));
    }
    let exchange = random.below(255) < u32::from(share);
    let next = band(all, best);
    if (best, next) == (1, 1) {
        // Whether they change places is drawn, so that a branch would often be guessed wrong.
        let (first, second) = (all[0], all[1]);
        all[usize::from(exchange)] = first;
        all[usize::from(!exchange)] = second;
        1
    } else if exchange {
        all[..best + next].rotate_left(best);
        next
    } else {
        best
    }
}

/// Whether there are neighbours on one step, so that something is left to draw.
#[inline(always)]
fn has_equals(all: &[Item]) -> bool {
    for n in 1..all.len() {
        if all[n - 1].rank() == all[n].rank() {
            return true;
        }
    }
    false
}

/// Draws the first `count` in the order of their bands, where none sheds anything. `best`: how many are in the first.
#[inline(always)]
fn draw_bands(all: &mut [Item], best: usize, count: usize, random: &mut Random) {
    let mut draws = FewDraws::new(random);
    // One band after the other. What is left of one is drawn from, until it is one or no more are wanted.
    let (mut n, mut left) = (0, best);
    loop {
        while left > 1 && n < count {
            all.swap(n, n + draws.below(left as u32) as usize);
            (n, left) = (n + 1, left - 1);
        }
        n += left;
        if n >= count {
            break;
        }
        left = band(all, n);
    }
}

/// The same by what load leaves of their weight, where some are steps behind others.
#[inline(never)]
fn draw_runs(all: &mut [Item], count: usize, loads: &Loads, record: Record<'_>, random: &mut Random) {
    let whole = record.uniform_weight();
    let mut draws = Draws::new(random);
    let mut n = 0;
    while n < count {
        let run = run(all, n);
        if run > 1 {
            draw_run(&mut all[n..n + run], count - n, loads, whole, &mut draws);
        }
        n += run;
    }
}

/// Draws the first `wanted` of these.
#[inline(always)]
fn draw_run(run: &mut [Item], wanted: usize, loads: &Loads, whole: u32, draws: &mut Draws<'_>) {
    let mut weights = [0; MOST_UNIFORM];
    let weights = &mut weights[..run.len()];
    for (weight, item) in weights.iter_mut().zip(&*run) {
        *weight = loads.left_of(whole, *item);
    }
    let even = weights.iter().all(|weight| *weight == weights[0]);
    let mut total: u32 = weights.iter().sum();
    // The last one is what is left.
    for n in 0..wanted.min(run.len() - 1) {
        let drawn = match even {
            true => draws.below((run.len() - n) as u32) as usize,
            false => draw_of(&weights[n..], total, draws),
        };
        run.swap(n, n + drawn);
        weights.swap(n, n + drawn);
        total -= weights[n];
    }
}

/// What each sheds, by its position in the record, in [bits](Shedding::to_bits).
#[derive(Clone, Copy, Default)]
struct Loads([u16; MOST_UNIFORM]);

impl Loads {
    /// What load leaves of a candidate's weight.
    #[inline(always)]
    fn left_of(&self, weight: u32, item: Item) -> u32 {
        Shedding::from_bits(self.0[item.position()]).left_of(weight)
    }

    #[inline(always)]
    fn share(&self, item: Item) -> u8 {
        self.0[item.position()] as u8
    }
}

/// Tier, step, position in the record and address in one word, whose order is theirs.
#[derive(Clone, Copy, Default)]
struct Item(u64);

/// Of an item: its cluster is silent.
const SILENT: u64 = 1 << 48;

impl Item {
    /// `address`: its octets, little endian.
    #[inline(always)]
    fn new(tier: Tier, position: usize, address: u32) -> Item {
        Item(u64::from(tier.number()) << 49 | (position as u64) << 32 | u64::from(address))
    }

    #[inline(always)]
    fn tier(self) -> u64 {
        self.0 >> 49
    }

    /// What the order goes by: the tier, then the step.
    #[inline(always)]
    fn rank(self) -> u64 {
        self.0 >> 48
    }

    #[inline(always)]
    fn overloaded(self) -> Item {
        Item(self.0 | u64::from(Tier::COUNT) << 49)
    }

    fn silent(self) -> Item {
        Item(self.0 | SILENT)
    }

    /// As [`Seen::step`](super::Seen::step).
    #[inline]
    fn step(self) -> u16 {
        if self.0 & SILENT == 0 { 0 } else { u16::from(SILENT_STEP) }
    }

    /// In the record.
    #[inline(always)]
    fn position(self) -> usize {
        (self.0 >> 32) as usize % MOST_UNIFORM
    }

    /// As it was given.
    #[inline(always)]
    fn address(self) -> u32 {
        self.0 as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_in_the_order_of_their_ranks() {
        let mut random = Random::new(5);
        for round in 0..2_000 {
            let item = |n| Item::new(Tier::new(random.below(4) as u8), n, random.below(3));
            let mut all: Vec<Item> = (0..round % (MOST_UNIFORM + 1)).map(item).collect();
            // Stable, so that those of one rank stay as they stand in the record.
            let mut expected = all.clone();
            expected.sort_by_key(|item| item.rank());
            sort(&mut all);
            assert_eq!(
                all.iter().map(|item| item.0).collect::<Vec<_>>(),
                expected.iter().map(|i| i.0).collect::<Vec<_>>()
            );
        }
    }
}
