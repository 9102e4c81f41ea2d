//! Work that is not urgent gives way to those who answer queries, where they have to share a core.
//!
//! The kernel lets a thread that computes go on until its time slice is over, for milliseconds, while a worker that was woken by a
//! query waits behind it. Whoever has much to do calls [`give_way`] all along: every [`TURN`] of work it offers the core to whoever
//! waits for it. A lower priority would do the same, but a flood of queries would then keep changes out of the answers; here, where
//! a worker keeps the core for long, work gets as much time as it gave away before it offers the core again.
//!
//! What others took who give way themselves is not counted as given away. Else two of them would keep long turns for ever, once
//! something else has kept the core from one for long: each would take as long as the other took before.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::sched_getcpu;
use rustix::time::{ClockId, clock_gettime};

/// Work between two offers: what a query may have to wait for.
const TURN: Duration = Duration::from_micros(50);
/// Whoever keeps the core for so long has enough to do to keep it for ever.
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
    /// What this thread has said of its time.
    static TOLD: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// CPU time of those who give way, ns, by the core on which they said so; cores at a distance of so many share a place.
static POLITE: [AtomicU64; 64] = [const { AtomicU64::new(0) }; 64];

/// To be called after each piece of work of some microseconds, on a thread that answers nobody. Costs a look at the clock.
pub fn give_way() {
    let now = Instant::now();
    let stretch = gone_on(STRETCH.get(), now);
    if now < stretch.next {
        STRETCH.set(Some(stretch));
        return;
    }
    let polite = &POLITE[sched_getcpu() % POLITE.len()];
    let worked = worked();
    let own = worked.saturating_sub(TOLD.replace(worked)).as_nanos() as u64;
    let before = polite.fetch_add(own, Ordering::Relaxed).wrapping_add(own);
    thread::yield_now();
    let then = Instant::now();
    let others = Duration::from_nanos(polite.load(Ordering::Relaxed).wrapping_sub(before));
    STRETCH.set(Some(Stretch { last: then, next: then + turn_after(then - now, others) }));
}

/// CPU time of this thread.
fn worked() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The same stretch of work, or, after a pause, a new one.
fn gone_on(before: Option<Stretch>, now: Instant) -> Stretch {
    match before {
        Some(Stretch { last, next }) if now - last < PAUSE => Stretch { last: now, next },
        Some(_) | None => Stretch { last: now, next: now + TURN },
    }
}

/// How long to work after the core was away for so long, and others who give way had so much of that.
fn turn_after(away: Duration, others: Duration) -> Duration {
    let given = away.saturating_sub(others);
    if given < LONG { TURN } else { given }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_takes_long_is_given_no_more_than_half() {
        for (away, others, turn) in [
            (0, 0, 50),
            (1, 0, 50),
            (249, 0, 50),
            (250, 0, 250),
            (4_000, 0, 4_000),
            (4_000, 1_000, 3_000),
            (4_000, 3_750, 250),
            (4_000, 3_751, 50),
            // Of a core that shares its place with this one.
            (4_000, 9_000, 50),
        ] {
            let [away, others, turn] = [away, others, turn].map(Duration::from_micros);
            assert_eq!(turn_after(away, others), turn, "{away:?}, {others:?}");
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
