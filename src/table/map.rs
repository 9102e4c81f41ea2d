//! Names in zones → octets: a hash map with one writer and any number of readers, none of which waits.
//!
//! Open addressing with linear probing. A slot is one word, the pointer to an entry, whose unused upper 16 bits hold a part
//! of the hash, so that a lookup reads one slot, as a rule, and then one entry, which is in one piece: a query pays two
//! cache misses, and both can be asked for ahead ([`Pinned::prefetch_slot`], [`Pinned::prefetch_entry`]).
//!
//! Entries are shared by raw pointers, and [`seize`] gives them back to the [arena] when no reader that could have seen
//! them is left.
//!
//! # Why it is sound
//!
//! 1. [`Writer`] is not `Clone` and its methods take `&mut self`: slots have one writer.
//! 2. An entry's octets are written before its pointer is stored (Release) and never after; a reader loads the pointer
//!    with Acquire.
//! 3. An entry or an array of slots is retired after the store that made it unreachable; a reader holds a guard from
//!    before its first load until after its last use, and `seize` frees nothing that such a guard may have seen.
//! 4. A slot goes from free to used once, and from one entry to another of the same name or to [`GONE`] and back; it never
//!    becomes free again in its array. So a probe that stops at a free slot has passed every place where the name could be.

use std::ptr::{self, NonNull};
use std::sync::Arc;
#[cfg(not(loom))]
use std::sync::atomic::{AtomicPtr, Ordering};

#[cfg(not(loom))]
use seize::{Collector, Guard, LocalGuard};

#[cfg(not(loom))]
use super::arena;
use crate::names::is_same;
// tests/loom compiles this file by itself, with these in the place of the real ones.
#[cfg(loom)]
use super::shim::{Access, AtomicPtr, Collector, Guard, LocalGuard, Ordering, arena};

/// Slots of an empty map; a power of two, like every later number of them.
const LEAST_SLOTS: usize = if cfg!(loom) { 4 } else { 64 };
/// Where the part of the hash begins that a slot holds: user space ends below 2⁴⁷ on all platforms that Linux runs on
/// with four levels of page tables, and mmap(2) gives nothing above without being asked.
const TAG_SHIFT: u32 = 48;
const ADDRESS: usize = (1 << TAG_SHIFT) - 1;
/// Of a slot whose entry was removed. No entry has this address.
const GONE: usize = 1;
const CACHE_LINE: usize = 64;
/// Slots that are looked at for an entry to be fetched ahead. Three of ten names stand in another one than their first.
const PROBE_AHEAD: usize = 4;
/// Entries that are fetched ahead while all are put into another array: each of them is a cache miss.
const REHASH_AHEAD: usize = 8;

/// Where the zone and the name of an entry stand in its octets, which begin with the name's length; what the octets between
/// are is not looked at here.
const ZONE_AT: usize = 4;
const NAME_AT: usize = 5;

/// What an entry is found by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key<'a> {
    /// The number of the zone.
    pub zone: u8,
    /// Labels in front of the zone's name, in wire form and lower case.
    pub name: &'a [u8],
}

/// What an entry's octets begin with. `more` is anything.
pub(super) fn put_head(octets: &mut Vec<u8>, key: Key<'_>, kind: u8, more: [u8; 2]) {
    octets.extend_from_slice(&[key.name.len() as u8, kind]);
    octets.extend_from_slice(&more);
    octets.push(key.zone);
    octets.extend_from_slice(key.name);
}

#[inline]
pub(super) fn name_end(octets: &[u8]) -> usize {
    NAME_AT + usize::from(octets[0])
}

#[inline]
pub(super) fn name_of(octets: &[u8]) -> &[u8] {
    &octets[NAME_AT..name_end(octets)]
}

#[inline]
pub(super) fn key_of(octets: &[u8]) -> Key<'_> {
    Key { zone: octets[ZONE_AT], name: name_of(octets) }
}

struct Shared {
    slots: AtomicPtr<Slots>,
    collector: Collector,
    /// The entries' memory: the last field, since the collector gives back what it still has when it is dropped.
    _store: Arc<arena::Store>,
}

struct Slots {
    cells: Box<[AtomicPtr<Head>]>,
}

/// What an entry begins with; `length` octets follow.
#[repr(C, align(8))]
struct Head {
    #[cfg(loom)]
    access: Access,
    length: u32,
    octets: [u8; 0],
}

/// What the rest of a hash is taken for: its upper bits are the tag, its lower ones the place.
fn tag(hash: u64) -> usize {
    (hash >> TAG_SHIFT) as usize
}

fn tag_of(pointer: *mut Head) -> usize {
    pointer.addr() >> TAG_SHIFT
}

fn untagged(pointer: *mut Head) -> *mut Head {
    pointer.map_addr(|address| address & ADDRESS)
}

impl Slots {
    fn new(count: usize) -> Slots {
        debug_assert!(count.is_power_of_two());
        let mut cells = Vec::with_capacity(count);
        arena::advise(cells.spare_capacity_mut());
        cells.extend((0..count).map(|_| AtomicPtr::new(ptr::null_mut())));
        Slots { cells: cells.into() }
    }

    /// Where the slot stands that a hash names.
    #[inline]
    fn first(&self, hash: u64) -> usize {
        hash as usize & (self.cells.len() - 1)
    }

    /// The slots from that one on, once around.
    fn probe(&self, hash: u64) -> impl Iterator<Item = &AtomicPtr<Head>> {
        let (before, after) = self.cells.split_at(self.first(hash));
        after.iter().chain(before)
    }

    /// Asks the processor for that slot.
    fn prefetch(&self, hash: u64) {
        prefetch(&raw const self.cells[self.first(hash)]);
    }

    /// The slot and the octets of the entry with this key. `load` reads a slot.
    ///
    /// # Safety
    ///
    /// An entry that `load` gives is not freed as long as `self` is borrowed.
    #[inline(always)]
    unsafe fn find<'s>(
        &'s self,
        hash: u64,
        key: Key<'_>,
        load: impl Fn(&AtomicPtr<Head>) -> *mut Head,
    ) -> Option<(&'s AtomicPtr<Head>, &'s [u8])> {
        let mask = self.cells.len() - 1;
        let mut place = self.first(hash);
        // There is a free slot, since not all are ever in use.
        loop {
            let cell = &self.cells[place];
            let entry = load(cell);
            if tag_of(entry) == tag(hash) && entry.addr() > GONE {
                // SAFETY: it is neither null nor GONE, so it came from `allocate`; the caller keeps it alive.
                let octets = unsafe { octets_of(untagged(entry)) };
                if octets[ZONE_AT] == key.zone && is_same(name_of(octets), key.name) {
                    return Some((cell, octets));
                }
            }
            if entry.is_null() {
                return None;
            }
            place = (place + 1) & mask;
        }
    }
}

/// Of an entry with so many octets.
fn size(length: usize) -> usize {
    size_of::<Head>() + length
}

/// A new entry with a copy of `octets`.
fn allocate(taker: &mut arena::Taker, octets: &[u8]) -> NonNull<Head> {
    let head = taker.take(size(octets.len())).cast::<Head>();
    // SAFETY: what is written lies within what was taken: the head at its start, and `octets.len()` octets behind it.
    unsafe {
        assert_eq!(head.as_ptr().addr() & !ADDRESS, 0, "an address beyond 48 bits");
        #[cfg(loom)]
        (&raw mut (*head.as_ptr()).access).write(Access::written());
        (&raw mut (*head.as_ptr()).length).write(u32::try_from(octets.len()).expect("an entry is far below 4 GiB"));
        let target = head.as_ptr().cast::<u8>().add(size_of::<Head>());
        ptr::copy_nonoverlapping(octets.as_ptr(), target, octets.len());
        head
    }
}

/// # Safety
///
/// `entry` came from [`allocate`] and was not freed; the octets are not used after that.
unsafe fn octets_of<'a>(entry: *const Head) -> &'a [u8] {
    // SAFETY: by the contract; the octets follow the head and are not written to again.
    unsafe {
        #[cfg(loom)]
        (*entry).access.read();
        let length = (*entry).length as usize;
        std::slice::from_raw_parts(entry.cast::<u8>().add(size_of::<Head>()), length)
    }
}

/// # Safety
///
/// `entry` came from [`allocate`], and nobody uses it any more.
unsafe fn free(entry: *mut Head) {
    // SAFETY: by the contract; it was taken with this size, since `length` is what it was made with. Its store is there,
    // since the map's is dropped last.
    unsafe { arena::give(NonNull::new_unchecked(entry.cast()), size((*entry).length as usize)) };
}

impl Drop for Shared {
    fn drop(&mut self) {
        let slots = self.slots.load(Ordering::Relaxed);
        // SAFETY: nobody else is left to use the array or its entries, each of which is in one slot. What was retired
        // before is in the collector, and no longer in the array.
        unsafe {
            let slots = Box::from_raw(slots);
            for cell in &slots.cells {
                let entry = untagged(cell.load(Ordering::Relaxed));
                if !entry.is_null() && entry.addr() != GONE {
                    free(entry);
                }
            }
        }
    }
}

pub(super) type HashKey = dyn Fn(Key<'_>) -> u64 + Send + Sync;

/// Whether more than five eighths of the slots would be in use: linear probing is short up to there (1.8 slots for a name
/// that is there, 4 for one that is not, both most often in one cache line).
fn is_crowded(used: usize, slots: usize) -> bool {
    used * 8 > slots * 5
}

/// The readers' side.
#[derive(Clone)]
pub(super) struct Map(Arc<Shared>);

/// The one writer's side.
pub(super) struct Writer {
    shared: Arc<Shared>,
    taker: arena::Taker,
    hash: Box<HashKey>,
    /// Entries, and slots that are not free.
    live: usize,
    used: usize,
}

/// An empty map, to be read by keys under this hash of them.
pub(super) fn new(hash: Box<HashKey>) -> (Map, Writer) {
    let slots = Box::into_raw(Box::new(Slots::new(LEAST_SLOTS)));
    let (store, taker) = arena::new();
    let shared = Arc::new(Shared { slots: AtomicPtr::new(slots), collector: Collector::new(), _store: store });
    (Map(Arc::clone(&shared)), Writer { shared, taker, hash, live: 0, used: 0 })
}

impl Map {
    pub fn enter(&self) -> Pinned<'_> {
        Pinned { shared: &self.0, guard: self.0.collector.enter() }
    }
}

/// A reader at work; what it was given stays valid as long as this lives.
pub(super) struct Pinned<'a> {
    shared: &'a Shared,
    guard: LocalGuard<'a>,
}

impl Pinned<'_> {
    /// The array of this moment and not that of [`Map::enter`]: who was told after that of a name will find it.
    fn slots(&self) -> &Slots {
        // SAFETY: the pointer is never null; the guard is older than this load, so that the array stays as long as
        // `self` is borrowed.
        unsafe { &*self.guard.protect(&self.shared.slots, Ordering::Acquire) }
    }

    /// The octets of the entry with this key.
    #[inline]
    pub fn get(&self, hash: u64, key: Key<'_>) -> Option<&[u8]> {
        self.get_by_parts(hash, key.zone, key.name)
    }

    /// A function, with what it takes and gives in registers: inlined, it would take those of its callers.
    #[inline(never)]
    fn get_by_parts(&self, hash: u64, zone: u8, name: &[u8]) -> Option<&[u8]> {
        let key = Key { zone, name };
        // SAFETY: the guard is older than the load of any entry, and lives as long as `self`.
        let found = unsafe { self.slots().find(hash, key, |cell| self.guard.protect(cell, Ordering::Acquire)) };
        found.map(|(_, octets)| octets)
    }

    /// Asks the processor for the slot that [`get`](Pinned::get) reads first.
    pub fn prefetch_slot(&self, hash: u64) {
        self.slots().prefetch(hash);
    }

    /// Asks the processor for the entry in that slot or one of the next: for its first two cache lines, which is what an answer takes from
    /// a service as most are, and for `one_more` or not.
    #[inline]
    pub fn prefetch_entry(&self, hash: u64, one_more: bool) {
        let slots = self.slots();
        let mask = slots.cells.len() - 1;
        let mut place = slots.first(hash);
        for _ in 0..PROBE_AHEAD {
            let entry = self.guard.protect(&slots.cells[place], Ordering::Acquire);
            if tag_of(entry) == tag(hash) {
                let entry = untagged(entry).cast::<u8>();
                // The second one twice costs less than a branch that would be guessed wrong.
                for line in [0, 1, 1 + usize::from(one_more)] {
                    prefetch(entry.wrapping_add(line * CACHE_LINE));
                }
                return;
            }
            if entry.is_null() {
                return;
            }
            place = (place + 1) & mask;
        }
    }
}

/// A hint: any address may be given.
#[inline]
pub(super) fn prefetch<T>(address: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: prefetching reads nothing and faults on no address; every x86-64 processor has the instruction.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

impl Writer {
    /// Entries.
    pub fn len(&self) -> usize {
        self.live
    }

    /// Makes room for so many entries in all. Growing on the way there would read every entry again and again.
    pub fn reserve(&mut self, entries: usize) {
        if is_crowded(entries, self.slots().cells.len()) {
            self.resize(entries * 8 / 5 + 1);
        }
    }

    /// A hint that an entry with this hash will be looked up or put in.
    pub fn prefetch(&self, hash: u64) {
        self.slots().prefetch(hash);
    }

    pub fn get(&self, hash: u64, key: Key<'_>) -> Option<&[u8]> {
        self.find(hash, key).map(|(_, octets)| octets)
    }

    /// Puts an entry in the place of that with the same key, if there is one. The key is in `octets`, see [`put_head`]; `hash`
    /// is its hash.
    pub fn insert(&mut self, hash: u64, octets: &[u8]) {
        let key = key_of(octets);
        debug_assert_eq!(hash, (self.hash)(key));
        let entry = allocate(&mut self.taker, octets).as_ptr().map_addr(|address| address | tag(hash) << TAG_SHIFT);
        if let Some((cell, _)) = self.find(hash, key) {
            let old = cell.swap(entry, Ordering::AcqRel);
            self.retire(old);
            return;
        }
        self.grow();
        // A slot of a removed entry will do: the name is nowhere behind it.
        let mut taken = false;
        for cell in self.slots().probe(hash) {
            let here = cell.load(Ordering::Relaxed);
            if here.is_null() || here.addr() == GONE {
                taken = here.is_null();
                cell.store(entry, Ordering::Release);
                break;
            }
        }
        self.used += usize::from(taken);
        self.live += 1;
    }

    /// False: there is no entry with this key.
    pub fn remove(&mut self, hash: u64, key: Key<'_>) -> bool {
        let Some((cell, _)) = self.find(hash, key) else { return false };
        let old = cell.swap(ptr::without_provenance_mut(GONE), Ordering::AcqRel);
        self.retire(old);
        self.live -= 1;
        true
    }

    fn slots(&self) -> &Slots {
        // SAFETY: never null, and an array is retired by `resize` alone, which borrows all of `self`.
        unsafe { &*self.shared.slots.load(Ordering::Relaxed) }
    }

    fn find(&self, hash: u64, key: Key<'_>) -> Option<(&AtomicPtr<Head>, &[u8])> {
        // SAFETY: only this writer retires entries, by `&mut self`, and `self` is borrowed.
        unsafe { self.slots().find(hash, key, |cell| cell.load(Ordering::Relaxed)) }
    }

    /// Makes sure that there is room for one more.
    fn grow(&mut self) {
        if is_crowded(self.used + 1, self.slots().cells.len()) {
            self.resize((self.live + 1) * 2);
        }
    }

    /// Goes over to an array of at least so many slots, where none is used for a removed entry. `slots`: enough for the
    /// entries that there are.
    fn resize(&mut self, slots: usize) {
        let old = self.slots();
        let new = Slots::new(slots.next_power_of_two().max(LEAST_SLOTS));
        let entries = |cell: &AtomicPtr<Head>| {
            let entry = cell.load(Ordering::Relaxed);
            (!entry.is_null() && entry.addr() != GONE).then_some(entry)
        };
        let mut ahead = old.cells.iter().filter_map(entries).skip(REHASH_AHEAD);
        for entry in old.cells.iter().filter_map(entries) {
            if let Some(ahead) = ahead.next() {
                prefetch(untagged(ahead));
            }
            // SAFETY: it is neither null nor GONE, so it came from `allocate`, and only this writer retires entries.
            let key = key_of(unsafe { octets_of(untagged(entry)) });
            let free = new.probe((self.hash)(key)).find(|cell| cell.load(Ordering::Relaxed).is_null());
            free.expect("there are more slots than entries").store(entry, Ordering::Relaxed);
        }
        let new = Box::into_raw(Box::new(new));
        let old = self.shared.slots.swap(new, Ordering::AcqRel);
        self.used = self.live;
        // SAFETY: the array came from a box, and the swap has made it unreachable. Its entries are in the new one.
        unsafe { self.shared.collector.retire(old, |old, _| drop(Box::from_raw(old))) };
    }

    fn retire(&self, entry: *mut Head) {
        let entry = untagged(entry);
        // SAFETY: it came from `allocate`, and was taken out of its only slot before. `free` is called once, when no guard
        // is left that could have seen it.
        unsafe { self.shared.collector.retire(entry, |entry, _| free(entry)) };
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
