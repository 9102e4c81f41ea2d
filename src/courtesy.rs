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
/// Whoever keeps the core for so long has enough to do to keep it for ever. Several that give way to one another do not.
const LONG: Duration = Duration::from_micros(250);
/// Whoever has much to do calls more often than this. A change that comes alone is not interrupted.
const PAUSE: Duration = Duration::from_micros(500);

/// Of a thread that works.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    /// When it last called.
    last: Instant,
    /// When it is to offer its core.
    next: Instant,
}

thread_local! {
    static STRETCH: Cell<Option<Stretch>> = const { Cell::new(None) };
}

/// To be called after each piece of work of some microseconds, on a thread that answers nobody. Costs a look at the clock.
pub fn give_way() {
    let now = Instant::now();
    let stretch = gone_on(STRETCH.get(), now);
    if now < stretch.next {
        STRETCH.set(Some(stretch));
        return;
    }
    thread::yield_now();
    let then = Instant::now();
    STRETCH.set(Some(Stretch { last: then, next: then + turn_after(then - now) }));
}

/// The same stretch of work, or, after a pause, a new one.
fn gone_on(before: Option<Stretch>, now: Instant) -> Stretch {
    match before {
        Some(Stretch { last, next }) if now - last < PAUSE => Stretch { last: now, next },
        Some(_) | None => Stretch { last: now, next: now + TURN },
    }
}

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

    #[test]
    fn what_comes_alone_is_not_interrupted() {
        let start = Instant::now();
        let at = |micros| start + Duration::from_micros(micros);
        let mut stretch = None;
        for (now, next) in
            [(0, 50), (10, 50), (49, 50), (549, 599), (560, 599), (1_000, 599), (1_499, 599), (2_000, 2_050)]
        {
            let gone = gone_on(stretch, at(now));
            assert_eq!((gone.last, gone.next), (at(now), at(next)), "{now}");
            stretch = Some(gone);
        }
    }
}
