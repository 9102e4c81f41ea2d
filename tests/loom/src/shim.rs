//! What `table/map.rs` is made of, for loom: its atomics, and a collector that keeps the promise of `seize` in the plainest
//! way: what is retired is freed when no guard is left. Freed entries are overwritten and left, so that who looks at one
//! afterwards is seen.

use std::marker::PhantomData;

use loom::cell::UnsafeCell;
use loom::sync::Mutex;
pub use loom::sync::atomic::{AtomicPtr, Ordering};

/// Tells loom when an entry's octets are written and read: that must not happen unordered.
#[derive(Debug)]
pub struct Access(UnsafeCell<()>);

impl Access {
    pub fn written() -> Access {
        let cell = UnsafeCell::new(());
        cell.with_mut(|_| ());
        Access(cell)
    }

    pub fn read(&self) {
        self.0.with(|_| ());
    }
}

/// As `table/arena.rs`, which the map's models leave out: memory that is used again would hide who looks at it too late.
pub mod arena {
    use std::alloc::{Layout, alloc};
    use std::ptr::NonNull;
    use std::sync::Arc;

    pub struct Store;
    pub struct Taker;

    pub fn new() -> (Arc<Store>, Taker) {
        (Arc::new(Store), Taker)
    }

    pub fn advise<T>(_: &mut [T]) {}

    impl Taker {
        pub fn take(&mut self, size: usize) -> NonNull<u8> {
            // SAFETY: an entry has a head.
            NonNull::new(unsafe { alloc(Layout::from_size_align(size, 16).unwrap()) }).unwrap()
        }
    }

    /// Overwrites the end of what would be freed, where an entry of the models has its value.
    ///
    /// # Safety
    ///
    /// The piece was taken with this size, at least four octets.
    pub unsafe fn give(piece: NonNull<u8>, size: usize) {
        // SAFETY: by the contract.
        unsafe { piece.as_ptr().add(size - 4).write_bytes(0xDD, 4) };
    }
}

type Free = Box<dyn FnOnce()>;

#[derive(Default)]
struct State {
    guards: usize,
    retired: Vec<Free>,
}

pub struct Collector(Mutex<State>);

// SAFETY: what is retired is not used by the thread that freed it, nor by any other.
unsafe impl Send for Collector {}
// SAFETY: as above; the state is behind a lock.
unsafe impl Sync for Collector {}

impl Collector {
    pub fn new() -> Collector {
        Collector(Mutex::new(State::default()))
    }

    pub fn enter(&self) -> LocalGuard<'_> {
        self.0.lock().unwrap().guards += 1;
        LocalGuard { collector: self, _not_send: PhantomData }
    }

    /// # Safety
    ///
    /// As that of `seize`.
    pub unsafe fn retire<T: 'static>(&self, pointer: *mut T, reclaim: unsafe fn(*mut T, &Collector)) {
        let mut state = self.0.lock().unwrap();
        // SAFETY: by the contract, once no guard is left.
        let free = move |collector: &Collector| unsafe { reclaim(pointer, collector) };
        if state.guards == 0 {
            free(self);
        } else {
            let collector: *const Collector = self;
            // SAFETY: the collector runs this itself.
            state.retired.push(Box::new(move || free(unsafe { &*collector })));
        }
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        let retired = std::mem::take(&mut self.0.lock().unwrap().retired);
        retired.into_iter().for_each(|free| free());
    }
}

pub struct LocalGuard<'a> {
    collector: &'a Collector,
    _not_send: PhantomData<*const ()>,
}

pub trait Guard {
    fn protect<T>(&self, pointer: &AtomicPtr<T>, ordering: Ordering) -> *mut T;
}

impl Guard for LocalGuard<'_> {
    fn protect<T>(&self, pointer: &AtomicPtr<T>, ordering: Ordering) -> *mut T {
        pointer.load(ordering)
    }
}

impl Drop for LocalGuard<'_> {
    fn drop(&mut self) {
        let mut state = self.collector.0.lock().unwrap();
        state.guards -= 1;
        if state.guards == 0 {
            state.retired.drain(..).for_each(|free| free());
        }
    }
}
