//! Too much at once is likelier a fault of ours than of theirs.

use std::time::Duration;

use super::tolerated;
use crate::model::Moment;

/// Losses within this time are one event.
const AT_ONCE: Duration = Duration::from_secs(60);
const FREEZE: Duration = Duration::from_secs(600);
/// Of the endpoints outside of lost clusters, more than so many and more than this part, in hundredths, must not be Down.
const FEW: usize = 10;
const PART: usize = 30;

/// Of each cluster, by number: its endpoints, and those of them that are concerned.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Standings(pub Vec<(usize, usize)>);

impl Standings {
    /// At least half of what the cluster has.
    fn is_lost((all, concerned): (usize, usize)) -> bool {
        all > 0 && concerned * 2 >= all
    }
}

/// Whether so much is Down that nothing more is removed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Breaker {
    /// Since when each cluster is lost.
    lost: Vec<Option<Moment>>,
    frozen_until: Option<Moment>,
    /// An operator knows better.
    released: bool,
}

impl Breaker {
    /// Whether it is another one than before.
    pub fn release(&mut self, released: bool) -> bool {
        if released {
            self.frozen_until = None;
        }
        std::mem::replace(&mut self.released, released) != released
    }

    /// Whether what would then be Down may be. If not, nothing more is removed for a while.
    pub fn allows(&mut self, then: &Standings, now: Moment) -> bool {
        if self.is_frozen(now) {
            return false;
        }
        if defect!(Breaker) {
            return true;
        }
        let mut next = self.clone();
        next.see(then, now);
        let lost = next.lost.iter().flatten().filter(|&&since| now - since < AT_ONCE).count();
        let outside = then.0.iter().filter(|&&cluster| !Standings::is_lost(cluster));
        let (all, down) = outside.fold((0, 0), |(all, down), (a, d)| (all + a, down + d));
        let is_much = lost > tolerated(then.0.len()) || down > FEW && down * 100 > all * PART;
        if is_much && !self.released {
            self.frozen_until = Some(now + FREEZE);
            return false;
        }
        *self = next;
        true
    }

    /// What is Down, whoever caused it.
    pub fn see(&mut self, standings: &Standings, now: Moment) {
        self.lost.resize(standings.0.len(), None);
        for (since, &cluster) in self.lost.iter_mut().zip(&standings.0) {
            *since = if Standings::is_lost(cluster) { since.or(Some(now)) } else { None };
        }
    }

    pub fn is_frozen(&self, now: Moment) -> bool {
        self.frozen_until.is_some_and(|until| now < until)
    }

    /// The end of the last freeze.
    pub fn frozen_until(&self) -> Option<Moment> {
        self.frozen_until
    }

    /// The same for other numbers of so many clusters.
    pub fn renumbered(self, clusters: usize, new: impl Fn(usize) -> Option<usize>) -> Breaker {
        let mut lost = vec![None; clusters];
        for (old, since) in self.lost.into_iter().enumerate() {
            if let Some(new) = new(old) {
                lost[new] = since;
            }
        }
        Breaker { lost, ..self }
    }
}

/// Whether this prober is likelier cut off than everybody else.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Isolation {
    isolated: bool,
    /// Since when it is not seen any more.
    over: Option<Moment>,
}

impl Isolation {
    /// `failing`: of the other clusters' endpoints those that this prober cannot reach. `clusters`: all there are.
    /// `hold`: for how long it must have been over.
    pub fn step(&mut self, failing: &Standings, clusters: usize, hold: Duration, now: Moment) {
        let lost = failing.0.iter().filter(|&&cluster| Standings::is_lost(cluster)).count();
        if lost > tolerated(clusters) {
            (self.isolated, self.over) = (true, None);
        } else if self.isolated {
            let since = *self.over.get_or_insert(now);
            if now - since >= hold {
                *self = Isolation::default();
            } else {
                self.over = Some(since);
            }
        }
    }

    pub fn is_isolated(&self) -> bool {
        self.isolated
    }

    pub fn next_deadline(&self, hold: Duration) -> Option<Moment> {
        self.over.map(|since| since + hold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment(Duration::from_secs(seconds))
    }

    fn of(list: &[(usize, usize)]) -> Standings {
        Standings(list.to_vec())
    }

    #[test]
    fn one_of_three_may_go_and_two_at_once_may_not() {
        let mut breaker = Breaker::default();
        assert!(breaker.allows(&of(&[(10, 10), (10, 0), (10, 0)]), at(0)));
        assert!(!breaker.allows(&of(&[(10, 10), (10, 5), (10, 0)]), at(59)));
        assert!(breaker.is_frozen(at(658)) && !breaker.is_frozen(at(659)));
        assert_eq!(breaker.frozen_until(), Some(at(659)));
        assert!(!breaker.allows(&of(&[(10, 0), (10, 1), (10, 0)]), at(60)), "nothing is removed until then");
        assert!(breaker.allows(&of(&[(10, 10), (10, 5), (10, 0)]), at(659)), "the first one was lost long before");
    }

    #[test]
    fn the_only_two() {
        assert!(!Breaker::default().allows(&of(&[(2, 1), (2, 0)]), at(0)));
        assert!(Breaker::default().allows(&of(&[(3, 1), (3, 0)]), at(0)));
    }

    #[test]
    fn no_third_of_the_rest() {
        for (down, allowed) in [(10, true), (15, true), (16, false)] {
            let standings = of(&[(7, 7), (50, down), (0, 0)]);
            assert_eq!(Breaker::default().allows(&standings, at(0)), allowed, "{down}");
        }
        assert!(Breaker::default().allows(&of(&[(25, 10), (0, 0), (0, 0)]), at(0)), "ten are few");
    }

    #[test]
    fn who_is_cut_off() {
        let hold = Duration::from_secs(10);
        let mut isolation = Isolation::default();
        isolation.step(&of(&[(0, 0), (4, 2), (4, 1)]), 3, hold, at(0));
        assert!(!isolation.is_isolated());
        isolation.step(&of(&[(0, 0), (4, 2), (4, 3)]), 3, hold, at(1));
        assert!(isolation.is_isolated());
        isolation.step(&of(&[(0, 0), (4, 2), (4, 1)]), 3, hold, at(2));
        assert_eq!((isolation.is_isolated(), isolation.next_deadline(hold)), (true, Some(at(12))));
        isolation.step(&of(&[(0, 0), (4, 2), (4, 2)]), 3, hold, at(11));
        assert_eq!(isolation.next_deadline(hold), None);
        isolation.step(&of(&[(0, 0), (4, 0), (4, 0)]), 3, hold, at(12));
        isolation.step(&of(&[(0, 0), (4, 0), (4, 0)]), 3, hold, at(22));
        assert!(!isolation.is_isolated());
    }
}
