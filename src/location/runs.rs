//! IPv6, as far as /64: ranges side by side, and tables that lead to a few of them, which are compared with the address all at
//! once. What is in use of IPv6 is far apart and deep: a table has as many bits as there are ranges to tell apart, and
//! tables within where there are many.

use super::prefixes::{Range, depth};

/// Ranges that a look-up compares: without a branch, so that none is taken wrongly.
const RUN: usize = 6;
/// IPv6 is handed out in blocks of 12 to 23 bits, so that few of the first table's lines are read.
const MOST_ROOT_BITS: u32 = 16;
/// Bits of the tables within: a small one is a cache line. Their places count these.
const LEAST_BITS: u32 = 4;
const MOST_BITS: u32 = 20;

/// In a word: what follows is the place of a table and (5 bits) how many bits it tells apart, not a range's position.
const TABLE: u32 = 1 << 31;
const WIDTH: u32 = 5;

/// Numbers and depths by the upper halves of addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Runs {
    /// Sorted; behind the last one is as much as a run, so that each range begins one.
    all: Box<[Entry]>,
    /// By the next bits of an address: the range that holds the first such address, if the last one is at most [`RUN`]
    /// ranges farther; else a table. First the table of the first `root` bits.
    tables: Box<[u32]>,
    root: u32,
}

/// The addresses behind the range before, up to `last`. Packed, so that a run lies in one or two cache lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C, packed(2))]
struct Entry {
    last: u64,
    value: u16,
}

impl Runs {
    /// `all`: sorted, the first from 0 on.
    pub(super) fn new(all: &[Range<u64>]) -> Runs {
        let lasts = all.iter().skip(1).map(|next| next.first - 1).chain([u64::MAX]);
        let mut entries: Vec<Entry> =
            all.iter().zip(lasts).map(|(range, last)| Entry { last, value: range.value }).collect();
        entries.extend([Entry { last: u64::MAX, value: 0 }; RUN]);
        let root = (all.len().ilog2() + 1).min(MOST_ROOT_BITS);
        let mut tables = Vec::new();
        table(&entries, &mut tables, Slot { first: 0, bits: 0, range: 0 }, root);
        Runs { all: entries.into(), tables: tables.into(), root }
    }

    #[inline]
    pub(super) fn look_up(&self, address: u64) -> (u16, u8) {
        let (mut word, mut rest) = self.start(address);
        while word & TABLE != 0 {
            (word, rest) = self.step(word, rest);
        }
        self.in_run(word, address)
    }

    /// The same from that word on, which [`second_read`](Runs::second_read) said of this address.
    #[inline]
    pub(super) fn look_up_from(&self, word: u32, address: u64) -> (u16, u8) {
        if word & TABLE == 0 { self.in_run(word, address) } else { self.look_up(address) }
    }

    /// It is in one of the ranges from that on.
    #[inline]
    fn in_run(&self, from: u32, address: u64) -> (u16, u8) {
        let from = from as usize;
        let before = |entry: &Entry| usize::from({ entry.last } < address);
        let found = from + self.all[from..from + RUN].iter().map(before).sum::<usize>();
        let Entry { last, value } = self.all[found];
        let before = self.all.get(found.wrapping_sub(1)).map(|before| before.last);
        (value, depth(address, before, last.checked_add(1)))
    }

    /// The first table's word of an address, and what is left of it then.
    #[inline]
    fn start(&self, address: u64) -> (u32, u64) {
        (self.tables[(address >> (u64::BITS - self.root)) as usize], address << self.root)
    }

    /// The same of the table that `word` leads to, with `rest` of the address.
    #[inline]
    fn step(&self, word: u32, rest: u64) -> (u32, u64) {
        (*self.inner(word, rest), rest << width(word))
    }

    /// The word of the table that `word` leads to; `rest`: what is left of the address there.
    #[inline]
    fn inner(&self, word: u32, rest: u64) -> &u32 {
        &self.tables[table_at(word) + (rest >> (u64::BITS - width(word))) as usize]
    }

    /// What is read behind a word: the ranges that are compared, or the word of one more table.
    #[inline]
    fn next_read(&self, (word, rest): (u32, u64)) -> *const u8 {
        match word & TABLE {
            0 => (&raw const self.all[word as usize]).cast(),
            _ => (&raw const *self.inner(word, rest)).cast(),
        }
    }

    /// What a look-up reads first that is in no cache: of the first table few lines are in use, and they are read here.
    #[inline]
    pub(super) fn first_read(&self, address: u64) -> *const u8 {
        self.next_read(self.start(address))
    }

    /// What it reads then, most often last, and the word that says so, for [`look_up_from`](Runs::look_up_from).
    #[inline]
    pub(super) fn second_read(&self, address: u64) -> (*const u8, u32) {
        let (mut word, mut rest) = self.start(address);
        if word & TABLE != 0 {
            (word, rest) = self.step(word, rest);
        }
        (self.next_read((word, rest)), word)
    }

    /// Whether it reads what it says.
    #[cfg(test)]
    pub(super) fn is_foretold(&self, address: u64) -> bool {
        let place = |read: *const u8, start: usize, size| read.addr().wrapping_sub(start) / size;
        let run_at = |read| place(read, self.all.as_ptr().addr(), size_of::<Entry>());
        let word_at = |read| self.tables.get(place(read, self.tables.as_ptr().addr(), size_of::<u32>())).copied();
        let holds = |run: usize| {
            let before = run.checked_sub(1).is_some_and(|before| address <= self.all[before].last);
            !before && self.all[run..=run + RUN].iter().any(|entry| address <= { entry.last })
        };
        let (first, (second, said)) = (self.first_read(address), self.second_read(address));
        match self.start(address).0 {
            word if word & TABLE == 0 => first == second && word == said && holds(run_at(second)),
            _ if said & TABLE == 0 => word_at(first) == Some(said) && holds(run_at(second)),
            _ => {
                word_at(first) == Some(said)
                    && word_at(second).is_some_and(|word| word & TABLE != 0 || holds(word as usize))
            }
        }
    }

    pub(super) fn octets(&self) -> usize {
        size_of_val(&*self.all) + size_of_val(&*self.tables)
    }
}

/// Where the table begins that a word leads to.
#[inline]
fn table_at(word: u32) -> usize {
    ((word & !TABLE) >> WIDTH << LEAST_BITS) as usize
}

/// How many bits it tells apart.
#[inline]
fn width(word: u32) -> u32 {
    word & ((1 << WIDTH) - 1)
}

/// The block of `bits` bits that begins at `first`, and the range that holds its first address.
#[derive(Clone, Copy)]
struct Slot {
    first: u64,
    bits: u32,
    range: usize,
}

/// Adds the table of a block's next `width` bits.
fn table(all: &[Entry], tables: &mut Vec<u32>, block: Slot, width: u32) {
    let start = tables.len();
    tables.resize(start + (1 << width.max(LEAST_BITS)), 0);
    let bits = block.bits + width;
    let mut range = block.range;
    for n in 0..1 << width {
        let slot = Slot { first: block.first | (n as u64) << (u64::BITS - bits), bits, range };
        let last = slot.first | u64::MAX.checked_shr(bits).unwrap_or(0);
        range += all[range..].iter().take_while(|entry| { entry.last } < last).count();
        tables[start + n] = word(all, tables, slot, range - slot.range);
        // Behind the end of a range the next one begins.
        range += usize::from({ all[range].last } == last && last < u64::MAX);
    }
}

/// What a table says of a block in which `more` ranges begin.
fn word(all: &[Entry], tables: &mut Vec<u32>, block: Slot, more: usize) -> u32 {
    if more <= RUN {
        return block.range as u32;
    }
    let width = more.ilog2().clamp(LEAST_BITS, MOST_BITS).min(u64::BITS - block.bits);
    let place = tables.len() as u32 >> LEAST_BITS;
    table(all, tables, block, width);
    TABLE | place << WIDTH | width
}
