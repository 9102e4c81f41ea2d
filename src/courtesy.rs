//! Work that is not urgent gives way to those who answer queries, where they have to share a core.
//!
//! The kernel lets a thread that computes go on until its time slice is over, for milliseconds, while a worker that was woken by a
//! query waits behind it. Whoever has much to do calls [`give_way`] all along: every [`TURN`] of work it offers the core to whoever
//! waits for it. A lower priority would do the same, but a flood of queries would then keep changes out of the answers; here, where
//! somebody keeps the core for long, work gets as much time as it gave away before it offers the core again.

use std::cell::Cell;
use std::thread;
use std::time::{Duration, Instant};

/// Work between two offers: what a query may have to wait for.
const TURN: Duration = Duration::from_micros(50);

thread_local! {
    /// When this thread next offers its core.
    static NEXT: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// To be called after each piece of work of some microseconds, on a thread that answers nobody. Costs a look at the clock.
pub fn give_way() {
    let now = Instant::now();
    let next = NEXT.get().unwrap_or(now);
    if now >= next {
        thread::yield_now();
        let then = Instant::now();
        NEXT.set(Some(then + turn_after(then - now)));
    }
}

/// Whoever keeps the core for so long has enough to do to keep it for ever. Several that give way to one another do not.
const LONG: Duration = Duration::from_micros(250);

/// How long to work after so much was given away.
fn turn_after(given: Duration) -> Duration {
    if given < LONG { TURN } else { given }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_takes_long_is_given_no_more_than_half() {
        for (given, turn) in [(0, 50), (1, 50), (249, 50), (250, 250), (4_000, 4_000)] {
            assert_eq!(turn_after(Duration::from_micros(given)), Duration::from_micros(turn));
        }
    }
}
