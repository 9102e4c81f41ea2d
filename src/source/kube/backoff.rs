//! One back-off per cluster: exponential with full jitter, and never earlier than the server allows.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// How long to wait after trouble. See [`super::Timing`] for the values in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// The longest wait after the first failure.
    pub first: Duration,
    /// The longest wait at all.
    pub cap: Duration,
    /// The longest `Retry-After` that is honoured in full.
    pub retry_after_cap: Duration,
}

/// The state of one cluster's back-off, shared by all of its sessions.
///
/// An outage makes every session fail at once. Failures that fall into one window therefore count as one, else
/// many sessions would reach the cap after a single short outage. The count starts anew only when no session is in
/// trouble: a kind that works must not make a kind that is forbidden retry for ever at the first pace.
#[derive(Debug)]
pub struct Backoff {
    pace: Pace,
    /// Windows of trouble in a row.
    rounds: u32,
    window_end: Option<Instant>,
    /// The sessions whose last word was a failure.
    failing: BTreeSet<usize>,
    /// What the server asked for: no request of this cluster before it.
    not_before: Option<Instant>,
}

impl Backoff {
    pub fn new(pace: Pace) -> Backoff {
        Backoff { pace, rounds: 0, window_end: None, failing: BTreeSet::new(), not_before: None }
    }

    /// How long `session` must wait after a failure at `now`. `random` is uniform over all of `u64`.
    pub fn failed(&mut self, session: usize, now: Instant, retry_after: Option<Duration>, random: u64) -> Duration {
        self.failing.insert(session);
        if self.window_end.is_none_or(|end| now >= end) {
            self.rounds = self.rounds.saturating_add(1);
            self.window_end = now.checked_add(self.ceiling());
        }
        if let Some(asked) = retry_after {
            let until = now + asked.min(self.pace.retry_after_cap);
            self.not_before = Some(self.not_before.map_or(until, |earlier| earlier.max(until)));
        }
        let share = random as f64 / u64::MAX as f64;
        self.ceiling().mul_f64(share).max(self.gate(now))
    }

    /// `session` heard from the API. Events and bookmarks count; a list does not, or a server whose watches
    /// end at once would be listed as fast as it can answer.
    pub fn heard(&mut self, session: usize) {
        if self.failing.remove(&session) && self.failing.is_empty() {
            self.rounds = 0;
            self.window_end = None;
            self.not_before = None;
        }
    }

    /// How long every request of this cluster has to wait because the server said so.
    pub fn gate(&self, now: Instant) -> Duration {
        self.not_before.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    /// The longest wait in the present round: `first × 2^(rounds − 1)`, at most the cap.
    fn ceiling(&self) -> Duration {
        let doublings = self.rounds.saturating_sub(1).min(31);
        self.pace.first.saturating_mul(1 << doublings).min(self.pace.cap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace = Pace {
        first: Duration::from_millis(500),
        cap: Duration::from_secs(15),
        retry_after_cap: Duration::from_secs(30),
    };

    #[test]
    fn doubles_to_the_cap_with_full_jitter() {
        let mut backoff = Backoff::new(PACE);
        let mut now = Instant::now();
        let mut waits = Vec::new();
        for _ in 0..8 {
            let wait = backoff.failed(0, now, None, u64::MAX);
            waits.push(wait.as_millis());
            now += wait;
        }
        assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 15_000, 15_000, 15_000]);
        assert_eq!(backoff.failed(0, now, None, 0), Duration::ZERO, "full jitter reaches down to nothing");
    }

    #[test]
    fn one_outage_seen_by_many_sessions_counts_once() {
        let mut backoff = Backoff::new(PACE);
        let now = Instant::now();
        for session in 0..32 {
            assert_eq!(backoff.failed(session, now, None, u64::MAX), PACE.first);
        }
    }

    #[test]
    fn starts_anew_only_when_nobody_is_in_trouble() {
        let mut backoff = Backoff::new(PACE);
        let mut now = Instant::now();
        for _ in 0..3 {
            now += backoff.failed(0, now, None, u64::MAX);
        }
        now += backoff.failed(1, now, None, u64::MAX);
        backoff.heard(1);
        assert_eq!(backoff.failed(0, now, None, u64::MAX), Duration::from_secs(8), "session 0 still fails");
        backoff.heard(0);
        assert_eq!(backoff.failed(0, now, None, u64::MAX), PACE.first);
    }

    #[test]
    fn the_server_may_ask_for_more_but_not_for_ever() {
        let mut backoff = Backoff::new(PACE);
        let now = Instant::now();
        assert_eq!(backoff.failed(0, now, Some(Duration::from_secs(7)), 0), Duration::from_secs(7));
        assert_eq!(backoff.gate(now + Duration::from_secs(2)), Duration::from_secs(5), "also for the other sessions");
        assert_eq!(backoff.failed(1, now, Some(Duration::from_secs(86_400)), 0), PACE.retry_after_cap);
        assert_eq!(backoff.failed(0, now, Some(Duration::from_secs(1)), 0), PACE.retry_after_cap);
    }
}
