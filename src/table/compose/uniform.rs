//! The short way of services that are like most ([`Record::is_uniform`](super::Record::is_uniform)): no list of what is
//! seen, no choice, one record of 16 octets for each candidate.

use super::super::FIXED;
use super::super::random::{Draws, FewDraws, Random};
use super::super::ready::fixed;
use super::super::record::MOST_UNIFORM;
use super::targets::Prefix;
use super::{SILENT_STEP, Sight};
use crate::load::Shedding;
use crate::model::ClusterId;
use crate::ranking::Tier;
use crate::wire::{QUESTION_POINTER, pointer_to, rtype};

/// Octets of an A record whose owner is a pointer.
pub const A_RECORD: usize = FIXED + 4;

// 12! is below 2³², which `FewDraws` asks for.
const _: () = assert!(MOST_UNIFORM <= 12);

/// How many are as near as the one that stands there.
#[inline(always)]
fn band(all: &[Item], from: usize) -> usize {
    same(all, from, Item::tier)
}

/// How many of these are on one step.
fn run(all: &[Item], from: usize) -> usize {
    same(all, from, Item::rank)
}

#[inline(always)]
fn same(all: &[Item], from: usize, by: impl Fn(Item) -> u64) -> usize {
    // A loop of our own: those of iterators are functions, and whether they are inlined is not for us to say.
    let mut end = from;
    while end < all.len() && by(all[end]) == by(all[from]) {
        end += 1;
    }
    end - from
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
    /// Whether the other methods here are for this service. It has nothing but A and SRV, in every view.
    #[inline(always)]
    pub fn is_uniform(&self) -> bool {
        self.record.is_uniform()
    }

    /// It is uniform, and load has no say in its answers.
    #[inline(always)]
    pub fn is_calm(&self) -> bool {
        self.record.is_calm_and_uniform() && self.perspective.calm
    }

    /// Its candidates as this view sees them, the best first, and how many of them are in the first band.
    #[inline(always)]
    fn rank_uniform<'i>(&self, all: &'i mut [Item; MOST_UNIFORM]) -> (&'i mut [Item], usize) {
        let all = &mut all[..self.record.len().min(MOST_UNIFORM)];
        let (mut ordered, mut last) = (true, 0);
        for (item, (cluster, addresses)) in all.iter_mut().zip(self.record.uniform()) {
            *item = self.item(cluster, addresses);
            ordered &= last <= item.tier();
            last = item.tier();
        }
        if !ordered {
            all.sort_by_key(|item| item.tier());
        }
        // Mostly the last one is as near as the first.
        let is_one = ordered && all.first().is_some_and(|first| first.tier() == last);
        let best = if is_one { all.len() } else { band(all, 0) };
        (all, best)
    }

    /// `addresses`: as [`Record::uniform`](super::Record::uniform) gives them.
    #[inline(always)]
    fn item(&self, cluster: ClusterId, addresses: u64) -> Item {
        let tier = self.perspective.reach[cluster.index()].tier;
        // The ingress address comes before the clusterIP.
        let [ingress, cluster_ip] = [addresses as u32, (addresses >> 32) as u32];
        Item::new(tier, cluster, if tier == Tier::OWN_CLUSTER { cluster_ip } else { ingress })
    }

    /// Writes the best A records for the question's name, of a [calm](Sight::is_calm) service, in the order that
    /// [`write`](Sight::write) would have drawn from the same `random`. Returns how many; `None`: there is no room for all.
    #[inline(always)]
    pub fn write_uniform(&self, out: &mut [u8], random: &mut Random) -> Option<usize> {
        let mut all = [Item::default(); MOST_UNIFORM];
        let (all, best) = self.rank_uniform(&mut all);
        let count = all.len().min(self.perspective.cut.addresses(best, false));
        let records = out.get_mut(..count * A_RECORD)?.as_chunks_mut().0;
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
        self.put_addresses(records, all);
        Some(count)
    }

    /// The same of one that is not calm.
    pub fn write_swayed(&self, out: &mut [u8], random: &mut Random) -> Option<usize> {
        let (mut all, mut weights) = ([Item::default(); MOST_UNIFORM], [0; MOST_UNIFORM]);
        let count = self.rank_swayed(&mut all, &mut weights, random);
        let (all, weights) = (&mut all[..count], &mut weights[..count]);
        let count = count.min(self.perspective.cut.addresses(band(all, 0), false));
        let records = out.get_mut(..count * A_RECORD)?.as_chunks_mut().0;
        let mut draws = Draws::new(random);
        // Of the run that is under way: where it ends, what is left of it weighs, and whether all weigh the same.
        let (mut end, mut total, mut even) = (0, 0, true);
        for n in 0..count {
            if n == end {
                end += run(all, n);
                total = weights[n..end].iter().sum();
                even = weights[n..end].iter().all(|weight| *weight == weights[n]);
            }
            if end - n > 1 {
                let drawn = match even {
                    true => draws.below((end - n) as u32) as usize,
                    false => draw_of(&weights[n..end], total, &mut draws),
                };
                all.swap(n, n + drawn);
                weights.swap(n, n + drawn);
                total -= weights[n];
            }
        }
        self.put_addresses(records, all);
        Some(count)
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

    /// The number of the port `_port._proto` of a [uniform](Sight::is_uniform) service. `None`: there is none, or more than
    /// one, or the labels are of another kind.
    pub fn uniform_port(&self, port: &[u8], protocol: &[u8]) -> Option<u16> {
        let ports = self.record.ports(self.record.candidates().next()?.ports_at());
        let protocol = super::protocol(protocol)?;
        let name = port.strip_prefix(b"_").filter(|name| !name.is_empty())?;
        let found = ports.into_iter().find(|port| port.name == name && port.protocol() == protocol)?;
        ports.has_distinct_names().then_some(found.number)
    }

    /// Its candidates in the order of their bands, as load makes these, and of their steps, with what each weighs; how many there are.
    fn rank_swayed(
        &self,
        all: &mut [Item; MOST_UNIFORM],
        weights: &mut [u32; MOST_UNIFORM],
        random: &mut Random,
    ) -> usize {
        let mut count = 0;
        for (item, (cluster, addresses)) in all.iter_mut().zip(self.record.uniform()) {
            *item = self.item(cluster, addresses);
            count += 1;
        }
        let (all, weights) = (&mut all[..count], &mut weights[..count]);
        weights.fill(self.record.uniform_weight());
        let mut shed = [Shedding::default(); MOST_UNIFORM];
        let shed = &mut shed[..count];
        shed.iter_mut().zip(self.record.uniform_shedding()).for_each(|(shed, own)| *shed = own);
        if !self.perspective.calm {
            for (shed, item) in shed.iter_mut().zip(&mut *all) {
                let member = &self.perspective.members[item.cluster().index()];
                *shed = shed.most(member.shedding());
                if member.is_silent() {
                    *item = item.silent();
                }
            }
        }
        // With no load, or where all are overloaded, it has no say.
        let any = shed.iter().any(|s| *s != Shedding::default());
        let loaded = any && !shed.iter().all(|s| s.overloaded);
        if loaded {
            for (n, s) in shed.iter().enumerate() {
                weights[n] = s.left_of(weights[n]);
                if s.overloaded {
                    all[n] = all[n].overloaded();
                }
            }
        }
        // Insertion: they are few, and mostly in order. Equal ones keep theirs.
        for n in 1..count {
            let mut at = n;
            while at > 0 && all[at - 1].rank() > all[at].rank() {
                all.swap(at - 1, at);
                weights.swap(at - 1, at);
                shed.swap(at - 1, at);
                at -= 1;
            }
        }
        let best = band(all, 0);
        if loaded && best < count {
            let share = shed[..best].iter().map(|s| s.share).min().unwrap_or(0);
            if random.below(255) < u32::from(share) {
                let next = band(all, best);
                all[..best + next].rotate_left(best);
                weights[..best + next].rotate_left(best);
            }
        }
        count
    }

    /// Writes the SRV records of that port for the question's name, and behind them the A records of their targets, which
    /// are named by the question's name from `service` of the message on. Returns how many octets that is, and how many
    /// records of each type; `None`: there is no room for all.
    pub fn write_uniform_targets(
        &self,
        port: u16,
        service: usize,
        out: &mut [u8],
        random: &mut Random,
    ) -> Option<(usize, u16)> {
        let mut all = [Item::default(); MOST_UNIFORM];
        let mut weights = [self.record.uniform_weight(); MOST_UNIFORM];
        let all = match self.is_calm() {
            true => self.rank_uniform(&mut all).0,
            false => {
                let count = self.rank_swayed(&mut all, &mut weights, random);
                &mut all[..count]
            }
        };
        let ttl = self.perspective.ttl;
        let name = |item: &Item| Prefix { host: None, cluster: self.cluster_label(item.cluster()), alias: None };
        let room = out.len();
        let mut rest = out;
        let mut head = fixed(QUESTION_POINTER, rtype::SRV, ttl, 0);
        let (mut priority, mut tier) = (0, all[0].tier());
        for (item, weight) in all.iter().zip(weights) {
            if item.tier() != tier {
                (priority, tier) = (priority + 10, item.tier());
            }
            let name = name(item);
            let (record, others) = rest.split_at_mut_checked(self.target_size(&name))?;
            self.put_target(record, &mut head, &name, [priority + item.step(), weight.max(1) as u16, port]);
            rest = others;
        }
        let head = fixed(pointer_to(service), rtype::A, ttl, 4);
        for item in &*all {
            let name = name(item);
            let (record, others) = rest.split_at_mut_checked(name.len() + A_RECORD)?;
            name.put_address(record, &head, &item.address().to_le_bytes());
            rest = others;
        }
        Some((room - rest.len(), all.len() as u16))
    }
}

/// Tier, step, cluster and address in one word, as it is moved about more than looked at.
#[derive(Clone, Copy, Default)]
struct Item(u64);

/// Of an item: its cluster is silent.
const SILENT: u64 = 1 << 48;

impl Item {
    /// `address`: its octets, little endian.
    #[inline]
    fn new(tier: Tier, cluster: ClusterId, address: u32) -> Item {
        Item(u64::from(tier.number()) << 49 | u64::from(cluster.0) << 32 | u64::from(address))
    }

    #[inline]
    fn tier(self) -> u64 {
        self.0 >> 49
    }

    /// What the order goes by: the tier, then the step.
    fn rank(self) -> u64 {
        self.0 >> 48
    }

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

    fn cluster(self) -> ClusterId {
        ClusterId((self.0 >> 32) as u16)
    }

    /// As it was given.
    #[inline]
    fn address(self) -> u32 {
        self.0 as u32
    }
}
