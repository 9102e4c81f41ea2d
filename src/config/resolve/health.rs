//! How external addresses are probed: defaults and ranges.

use std::num::NonZeroU8;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::Resolver;
use crate::config::Health;
use crate::config::raw::{At, RawHealth, RawQuorum};
use crate::health::Failures;

/// HEALTH: every 5 s, 2 s, three failures, two successes.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(5);
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(2);
const DEFAULT_FALL: NonZeroU8 = NonZeroU8::new(3).unwrap();
const DEFAULT_RISE: NonZeroU8 = NonZeroU8::new(2).unwrap();
const INTERVAL: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(300);

impl Resolver<'_> {
    /// `None`: nothing is probed.
    pub(super) fn health(&mut self, raw: Option<RawHealth>) -> Option<Health> {
        let RawHealth { quorum, interval, timeout, fall, rise } = raw?;
        // There is one way yet.
        let RawQuorum::Local = quorum.value;
        let interval = self.duration(interval, "health.interval", INTERVAL, DEFAULT_INTERVAL);
        // One probe of an endpoint at a time.
        let least = Duration::from_secs(1);
        let timeout = self.duration(timeout, "health.timeout", least..=interval, DEFAULT_TIMEOUT.min(interval));
        let mut count = |raw: Option<At<u64>>, key, default: NonZeroU8| {
            let number = self.number(raw, key, 1..=100, "probes", default.get());
            NonZeroU8::new(number).unwrap_or(default)
        };
        let fall = count(fall, "health.fall", DEFAULT_FALL);
        let rise = count(rise, "health.rise", DEFAULT_RISE);
        Some(Health { interval, timeout, failures: Failures { fall, rise } })
    }
}
