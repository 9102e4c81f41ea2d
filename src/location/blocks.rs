//! IPv4: a tree of which every node tells 64 blocks apart, and blocks that say the same are kept once.
//!
//! Most addresses take two reads, of a cell and of what it says of the block, and no branch that is hard to foresee.

use super::prefixes::{Range, depth};

/// Bits of an address that one cell tells apart.
const STEP: u32 = 6;
/// With cells for each /18 the first cell tells /24 apart.
const MOST_ROOT_BITS: u32 = 18;

/// In a word: what follows is a cell's position, not a number and (from bit 16 on) a depth.
const DEEPER: u32 = 1 << 31;

/// Numbers and depths of all addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Blocks {
    /// First one for each `root` bits that an address begins with.
    cells: Box<[Cell]>,
    words: Box<[u32]>,
    root: u32,
}

/// Packed, so that four of five lie in one cache line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C, packed(4))]
struct Cell {
    /// The blocks of which something else is said than of the one before.
    changes: u64,
    /// Where the word of the first block is; those of the changes follow.
    first: u32,
}

impl Blocks {
    /// `all`: sorted, the first from 0 on, and no two neighbours with one number.
    pub(super) fn new(all: &[Range<u32>]) -> Blocks {
        // 18 bits from 2¹⁶ ranges on, 12 from 2¹⁰, 6 from 2⁴.
        let root = ((all.len().ilog2() + 2) / STEP * STEP).min(MOST_ROOT_BITS);
        let mut planter = Planter { all, range: 0, cells: vec![Cell::default(); 1 << root], words: Vec::new() };
        for at in 0..1 << root {
            planter.cell(at, (at as u32).checked_shl(u32::BITS - root).unwrap_or(0), root);
        }
        Blocks { cells: planter.cells.into(), words: planter.words.into(), root }
    }

    #[inline]
    pub(super) fn look_up(&self, address: u32) -> (u16, u8) {
        self.look_up_from(self.second_read(address), address)
    }

    /// The same from there on, which [`second_read`](Blocks::second_read) said of this address.
    #[inline(always)]
    pub(super) fn look_up_from(&self, position: u32, address: u32) -> (u16, u8) {
        match self.words[position as usize] {
            word if word & DEEPER == 0 => said(word),
            word => self.look_up_deeper(word, address),
        }
    }

    /// What is said at that position; `None`: it is to be looked up further.
    #[inline(always)]
    pub(super) fn said_at(&self, position: u32) -> Option<(u16, u8)> {
        let word = self.words[position as usize];
        (word & DEEPER == 0).then(|| said(word))
    }

    /// Not inlined, as most addresses need no more than that word.
    #[inline(never)]
    fn look_up_deeper(&self, word: u32, address: u32) -> (u16, u8) {
        let (mut word, (_, mut rest)) = (word, self.start(address));
        while word & DEEPER != 0 {
            rest <<= STEP;
            word = self.words[self.position(word & !DEEPER, rest) as usize];
        }
        said(word)
    }

    /// The first cell of an address, and what is left of it then.
    #[inline]
    fn start(&self, address: u32) -> (u32, u32) {
        // Shifted into the upper half: `root` is far below 32, and so nothing is to be checked.
        let both = u64::from(address).wrapping_shl(self.root);
        ((both >> u32::BITS) as u32, both as u32)
    }

    /// Where the word stands that a cell has for the block that the first bits of `rest` name.
    #[inline(always)]
    fn position(&self, cell: u32, rest: u32) -> u32 {
        let Cell { changes, first } = self.cells[cell as usize];
        let until = u64::MAX >> (63 - (rest >> (u32::BITS - STEP)));
        first.wrapping_add((changes & until).count_ones())
    }

    /// The cell that a look-up reads first.
    #[inline]
    pub(super) fn first_read(&self, address: u32) -> *const u8 {
        let (at, _) = self.start(address);
        (&raw const self.cells[at as usize]).cast()
    }

    /// The position of the word that it reads then; most need no more.
    #[inline(always)]
    pub(super) fn second_read(&self, address: u32) -> u32 {
        let (at, rest) = self.start(address);
        self.position(at, rest)
    }

    /// That word, for who wants to have it fetched ahead.
    #[inline]
    pub(super) fn word(&self, position: u32) -> *const u8 {
        (&raw const self.words[position as usize]).cast()
    }

    /// Whether it reads what it says.
    #[cfg(test)]
    pub(super) fn is_foretold(&self, address: u32) -> bool {
        let first = self.first_read(address).addr().wrapping_sub(self.cells.as_ptr().addr()) / size_of::<Cell>();
        let second = self.words.get(self.second_read(address) as usize);
        let found = self.look_up(address);
        first < 1 << self.root && second.is_some_and(|word| word & DEEPER != 0 || said(*word) == found)
    }

    pub(super) fn octets(&self) -> usize {
        size_of_val(&*self.cells) + size_of_val(&*self.words)
    }
}

/// Number and depth.
#[inline(always)]
fn said(word: u32) -> (u16, u8) {
    (word as u16, (word >> 16) as u8)
}

/// Makes the cells in the order of the addresses.
struct Planter<'a> {
    all: &'a [Range<u32>],
    /// The range that holds the place where we are.
    range: usize,
    cells: Vec<Cell>,
    words: Vec<u32>,
}

/// A cell in the making.
struct Open {
    bits: u32,
    changes: u64,
    words: Vec<u32>,
}

impl Planter<'_> {
    /// The cell at `at`, for the block of `bits` bits that begins at `first`.
    fn cell(&mut self, at: usize, first: u32, bits: u32) {
        let mut open = Open { bits, changes: 0, words: Vec::new() };
        self.block(&mut open, first, bits);
        // Where nothing changes, a word serves many cells.
        let shared = usize::from(self.words.last() == open.words.first());
        self.cells[at] = Cell { changes: open.changes, first: (self.words.len() - shared) as u32 };
        self.words.extend(&open.words[shared..]);
    }

    /// What is said of a block in a cell: one word if it is in one range, else that of its halves.
    fn block(&mut self, open: &mut Open, first: u32, bits: u32) {
        while self.all.get(self.range + 1).is_some_and(|next| next.first <= first) {
            self.range += 1;
        }
        let next = self.all.get(self.range + 1).map(|next| next.first);
        let last = first | u32::MAX.checked_shr(bits).unwrap_or(0);
        let word = if next.is_none_or(|next| last < next) {
            let Range { first: begin, value } = self.all[self.range];
            u32::from(value) | u32::from(depth(first, begin.checked_sub(1), next)) << 16
        } else if bits < open.bits + STEP {
            self.block(open, first, bits + 1);
            return self.block(open, first | 1 << (u32::BITS - 1 - bits), bits + 1);
        } else {
            let at = self.cells.len();
            self.cells.push(Cell::default());
            self.cell(at, first, bits);
            DEEPER | at as u32
        };
        if open.words.last() != Some(&word) {
            if !open.words.is_empty() {
                open.changes |= 1 << (first << open.bits >> (u32::BITS - STEP));
            }
            open.words.push(word);
        }
    }
}
