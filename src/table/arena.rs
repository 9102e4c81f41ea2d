//! Where a map keeps its entries: one behind the other in large pieces of memory, which are huge pages where the kernel has
//! some. From the allocator they come between whatever else is made at the time, and each on a page of its own: then a query
//! waits for the address of a page to be found before it can wait for the entry.
//!
//! One thread [takes](Taker::take), and any may [give](give) back, without a lock: a thread that loses its core while it
//! holds one would keep the others waiting.
//!
//! What was given back is taken again for the same size, and a chunk is freed with the store, which a reload replaces: so
//! there is memory for as many pieces of each size as there ever were at once.
//!
//! # Why it is sound
//!
//! 1. A piece is in one place: in use, in a stack of [`Store`], or in a list of its [`Taker`], of which a store has one.
//!    It goes into the stack by [`give`], whose caller vouches for it, and out by the taker, who takes all of a stack at
//!    once; so nobody follows a piece's link that somebody else may have taken.
//! 2. A link is written before the piece is put on the stack (Release), and read after it was taken from there (Acquire).
//! 3. A [`Chunk`] is freed with its store, and lives until then: pieces and the way from them to the store are valid while the
//!    store is.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::mem::MaybeUninit;
use std::ptr::{self, NonNull};
use std::sync::Arc;
#[cfg(not(loom))]
use std::sync::atomic::{AtomicPtr, Ordering};
use std::{array, slice};

// tests/loom compiles this file by itself, with these in the place of the real ones.
#[cfg(loom)]
use super::shim::{Access, AtomicPtr, Ordering};

/// Octets of a huge page on x86-64, and on arm64 with the usual pages; a chunk begins at a multiple of it.
const CHUNK: usize = if cfg!(loom) { 4 << 10 } else { 2 << 20 };
/// Sizes are rounded up to a multiple of this.
const STEP: usize = if cfg!(loom) { 64 } else { 16 };
/// Octets of the largest piece that is taken from a chunk; larger ones, of which there are few, come from the allocator.
const LARGEST: usize = if cfg!(loom) { 2 * STEP } else { 1024 };
const CLASSES: usize = LARGEST / STEP;

/// The chunks, and the pieces that were given back.
pub(super) struct Store {
    /// By size.
    returned: [AtomicPtr<Piece>; CLASSES],
    chunks: AtomicPtr<Chunk>,
}

/// What a chunk begins with; pieces follow.
#[repr(C, align(16))]
struct Chunk {
    /// To which it belongs.
    store: *const Store,
    /// The chunk that was made before it.
    before: *mut Chunk,
}

/// What is not in use begins with this.
struct Piece {
    #[cfg(loom)]
    access: Access,
    next: *mut Piece,
}

impl Piece {
    fn before(next: *mut Piece) -> Piece {
        const { assert!(size_of::<Piece>() <= STEP && align_of::<Piece>() <= STEP) };
        Piece {
            #[cfg(loom)]
            access: Access::written(),
            next,
        }
    }
}

/// The one who takes pieces from a store.
pub(super) struct Taker {
    store: Arc<Store>,
    /// What was given back, by size. It is behind `&mut self`: atomic only to be [`Send`].
    free: [AtomicPtr<Piece>; CLASSES],
    /// Where the newest chunk is not in use yet, and how much of it.
    rest: AtomicPtr<u8>,
    left: usize,
}

const CHUNK_LAYOUT: Layout = match Layout::from_size_align(CHUNK, CHUNK) {
    Ok(layout) => layout,
    Err(_) => panic!("a chunk is aligned to its size"),
};

/// Of pieces of so many octets. `None`: they come from the allocator.
fn class(size: usize) -> Option<usize> {
    (1..=LARGEST).contains(&size).then(|| (size - 1) / STEP)
}

fn large(size: usize) -> Layout {
    Layout::from_size_align(size, STEP).expect("an entry is far below isize::MAX")
}

/// A store without chunks, and who takes from it.
pub(super) fn new() -> (Arc<Store>, Taker) {
    let none = || array::from_fn(|_| AtomicPtr::new(ptr::null_mut()));
    let store = Arc::new(Store { returned: none(), chunks: AtomicPtr::new(ptr::null_mut()) });
    let taker = Taker { store: Arc::clone(&store), free: none(), rest: AtomicPtr::new(ptr::null_mut()), left: 0 };
    (store, taker)
}

impl Taker {
    /// Memory for `size` octets, more than none, aligned to 16. What stands there is anything. It is there until it is
    /// [given back](give), or, if it is in a chunk, the store and the taker are dropped.
    pub fn take(&mut self, size: usize) -> NonNull<u8> {
        let Some(class) = class(size) else {
            let layout = large(size);
            assert_ne!(size, 0);
            // SAFETY: the layout is not empty.
            return NonNull::new(unsafe { alloc(layout) }).unwrap_or_else(|| handle_alloc_error(layout));
        };
        self.returned(class).unwrap_or_else(|| self.fresh((class + 1) * STEP))
    }

    /// A piece that was given back.
    fn returned(&mut self, class: usize) -> Option<NonNull<u8>> {
        let own = &mut self.free[class];
        let mut piece = own.load(Ordering::Relaxed);
        if piece.is_null() {
            let stack = &self.store.returned[class];
            // To look first is cheap, and most often all.
            if stack.load(Ordering::Relaxed).is_null() {
                return None;
            }
            piece = stack.swap(ptr::null_mut(), Ordering::Acquire);
        }
        let piece = NonNull::new(piece)?;
        // SAFETY: it is in this list and nowhere else, and its link was written before it came here.
        let next = unsafe {
            #[cfg(loom)]
            (*piece.as_ptr()).access.read();
            (*piece.as_ptr()).next
        };
        own.store(next, Ordering::Relaxed);
        Some(piece.cast())
    }

    /// A piece that was never in use, of `size` octets, which are a multiple of [`STEP`] and at most [`LARGEST`].
    fn fresh(&mut self, size: usize) -> NonNull<u8> {
        if self.left < size {
            self.add_chunk();
        }
        let piece = self.rest.load(Ordering::Relaxed);
        self.left -= size;
        // SAFETY: `rest` points to `left` octets of a chunk that are not in use, of which these are the first; the end of a
        // chunk is still a pointer into it.
        self.rest.store(unsafe { piece.add(size) }, Ordering::Relaxed);
        NonNull::new(piece).expect("there is a chunk now")
    }

    fn add_chunk(&mut self) {
        const { assert!(CHUNK - size_of::<Chunk>() >= LARGEST) };
        // SAFETY: the layout is not empty. The head is written within it, and the rest begins behind the head.
        unsafe {
            let Some(chunk) = NonNull::new(alloc(CHUNK_LAYOUT).cast::<Chunk>()) else {
                handle_alloc_error(CHUNK_LAYOUT)
            };
            advise(slice::from_raw_parts_mut(chunk.as_ptr().cast::<MaybeUninit<u8>>(), CHUNK));
            let before = self.store.chunks.load(Ordering::Relaxed);
            chunk.write(Chunk { store: Arc::as_ptr(&self.store), before });
            self.store.chunks.store(chunk.as_ptr(), Ordering::Relaxed);
            self.rest.store(chunk.as_ptr().add(1).cast(), Ordering::Relaxed);
        }
        self.left = CHUNK - size_of::<Chunk>();
    }
}

/// Asks for huge pages, for memory that is going to be written to. A kernel without them goes on with others.
pub(super) fn advise<T>(memory: &mut [MaybeUninit<T>]) {
    // Those that lie in it whole.
    let all = memory.as_mut_ptr_range();
    let (start, end) = (all.start.addr().next_multiple_of(CHUNK), all.end.addr() & !(CHUNK - 1));
    #[cfg(not(any(loom, miri)))]
    if start < end {
        // SAFETY: the memory is the caller's, and its contents stay. Whether the kernel does it is its own affair.
        unsafe { libc::madvise(all.start.with_addr(start).cast(), end - start, libc::MADV_HUGEPAGE) };
    }
    #[cfg(any(loom, miri))]
    let _ = (start, end);
}

/// Takes a piece back. Waits for nobody.
///
/// # Safety
///
/// It came from [`Taker::take`] with this size, its store is still there, and nobody uses it any more.
pub(super) unsafe fn give(piece: NonNull<u8>, size: usize) {
    let Some(class) = class(size) else {
        // SAFETY: it came from the allocator, with this layout.
        return unsafe { dealloc(piece.as_ptr(), large(size)) };
    };
    let chunk = piece.as_ptr().map_addr(|address| address & !(CHUNK - 1)).cast::<Chunk>();
    let piece = piece.as_ptr().cast::<Piece>();
    // SAFETY: it lies in a chunk, which begins at a multiple of its size, and both the chunk and its store are there. It has
    // room for a link, is aligned for it, and is ours until it is on the stack.
    unsafe {
        let stack = &(*(*chunk).store).returned[class];
        let mut top = stack.load(Ordering::Relaxed);
        loop {
            piece.write(Piece::before(top));
            match stack.compare_exchange_weak(top, piece, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => top = now,
            }
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let mut next = self.chunks.load(Ordering::Relaxed);
        while let Some(chunk) = NonNull::new(next) {
            // SAFETY: it came from `add_chunk` and is in this list once; whoever gave or took a piece had this store.
            unsafe {
                next = (*chunk.as_ptr()).before;
                dealloc(chunk.as_ptr().cast(), CHUNK_LAYOUT);
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
