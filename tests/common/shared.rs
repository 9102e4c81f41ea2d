//! Something dear that the tests of one file share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Made for the first test that wants it; dropped (which a plain `static` never is) when nobody holds it any more.
pub struct Shared<T> {
    slot: Mutex<Weak<T>>,
    turn: Mutex<()>,
    make: fn() -> T,
}

/// One test's turn with the shared thing: the others wait.
pub struct Turn<T> {
    // Before `thing`, so that a waiting test already holds the thing when this one lets go of it.
    _turn: MutexGuard<'static, ()>,
    thing: Arc<T>,
}

impl<T> Shared<T> {
    pub const fn new(make: fn() -> T) -> Shared<T> {
        Shared { slot: Mutex::new(Weak::new()), turn: Mutex::new(()), make }
    }

    /// A test that failed has poisoned nothing that the next one relies on: each has names of its own.
    pub fn turn(&'static self) -> Turn<T> {
        let thing = self.get();
        Turn { _turn: self.turn.lock().unwrap_or_else(PoisonError::into_inner), thing }
    }

    fn get(&self) -> Arc<T> {
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        slot.upgrade().unwrap_or_else(|| {
            let thing = Arc::new((self.make)());
            *slot = Arc::downgrade(&thing);
            thing
        })
    }
}

impl<T> std::ops::Deref for Turn<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.thing
    }
}
