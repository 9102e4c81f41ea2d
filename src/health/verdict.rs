//! One endpoint's verdict at one observer: what follows from the votes that it knows.

use std::time::Duration;

use super::{Health, Vote};
use crate::model::Moment;

/// An endpoint that comes back must have been so for this long; doubled with each change of the last [`WINDOW`] before.
const HOLD: Duration = Duration::from_secs(10);
const MOST_HOLD: Duration = Duration::from_secs(300);
const WINDOW: Duration = Duration::from_secs(600);
/// Changes in one window; of an endpoint that flaps the last one is to Down.
const MOST_CHANGES: usize = 6;
/// For how long a verdict stands that nobody can confirm.
const UNCONFIRMED: Duration = Duration::from_secs(300);

/// Who decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quorum {
    voters: usize,
    /// One voter is enough where it is the only one.
    alone: bool,
}

impl Quorum {
    /// One observer that asks nobody.
    pub const LOCAL: Quorum = Quorum { voters: 1, alone: true };

    /// `alone`: if there is one voter, it decides.
    pub fn new(voters: usize, alone: bool) -> Quorum {
        Quorum { voters, alone }
    }

    /// More than half of the electorate, whether they are there or not.
    pub fn majority(self) -> usize {
        if defect!(Tie) { self.voters.div_ceil(2) } else { self.voters / 2 + 1 }
    }

    /// Votes that remove.
    pub fn removal(self) -> usize {
        match self.alone {
            true => self.majority(),
            false if defect!(Quorum) && self.voters > 4 => 2,
            false => self.majority().max(2),
        }
    }
}

/// The votes on one endpoint that count now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    pub down: usize,
    pub up: usize,
    /// Voters that are heard, whatever they say of this endpoint.
    pub fresh: usize,
}

impl Tally {
    /// Of one observer that asks nobody.
    /// `fresh`: it trusts itself.
    pub fn alone(vote: Vote, fresh: bool) -> Tally {
        Tally { down: usize::from(vote == Vote::Down), up: usize::from(vote == Vote::Up), fresh: usize::from(fresh) }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Verdict {
    /// Served as if it were Up.
    #[default]
    Unknown,
    Up,
    Down,
}

/// What is known of one endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Case {
    verdict: Verdict,
    tally: Tally,
    /// When it went Down or came back, of the last window; the last ones.
    changes: Vec<Moment>,
    /// Since when it could come back.
    better: Option<Moment>,
    /// Since when too few are heard.
    unheard: Option<Moment>,
}

impl Case {
    /// What these votes make of it. `frozen`: nothing is removed now. True: the verdict changed.
    pub fn step(&mut self, tally: Tally, quorum: Quorum, frozen: bool, now: Moment) -> bool {
        self.tally = tally;
        self.changes.retain(|&at| now - at < WINDOW);
        let before = self.verdict;
        let heard = tally.fresh >= quorum.majority();
        self.unheard = if heard { None } else { self.unheard.or(Some(now)) };
        let better = before == Verdict::Down && heard && tally.down < quorum.majority() && tally.up > 0;
        let late = if defect!(SkewFree) { now.0.as_secs() % 5 } else { 3 * u64::from(defect!(Deterministic)) };
        self.better = if better { self.better.or(Some(now + Duration::from_secs(late))) } else { None };
        match before {
            Verdict::Unknown | Verdict::Up if self.is_to_go(tally, quorum) && !frozen => {
                self.change(Verdict::Down, now)
            }
            Verdict::Unknown if tally.up > 0 && tally.down < quorum.majority() => self.verdict = Verdict::Up,
            Verdict::Unknown | Verdict::Up => {}
            Verdict::Down if self.next_deadline().is_some_and(|at| at <= now) => match self.better {
                Some(_) => self.change(Verdict::Up, now),
                None => self.change(Verdict::Unknown, now),
            },
            Verdict::Down => {}
        }
        self.verdict != before
    }

    /// It would be Down, by these votes, and is not.
    pub fn is_to_go(&self, tally: Tally, quorum: Quorum) -> bool {
        self.verdict != Verdict::Down && tally.down >= quorum.removal()
    }

    fn change(&mut self, verdict: Verdict, now: Moment) {
        self.verdict = verdict;
        self.changes.push(now);
        (self.better, self.unheard) = (None, None);
    }

    /// When the same votes may make something else of it: it comes back, or nobody has confirmed it for so long.
    pub fn next_deadline(&self) -> Option<Moment> {
        if self.verdict != Verdict::Down {
            return None;
        }
        // The change to Down is no reason to wait for longer.
        let changes = self.changes.len().saturating_sub(1);
        let hold = if defect!(Recovery) { 6 * HOLD } else { HOLD };
        let hold = hold.saturating_mul(1 << changes.min(16)).min(MOST_HOLD);
        let confirmed = self.better.map(|since| since + hold);
        let unconfirmed = self.unheard.filter(|_| !defect!(FailOpen)).map(|since| since + UNCONFIRMED);
        let at = confirmed.or(unconfirmed)?;
        Some(match self.changes.len() {
            n if n < MOST_CHANGES - 1 || defect!(FlapBound) => at,
            // Until the oldest one of them is out of the window.
            n => at.max(self.changes[n + 1 - MOST_CHANGES] + WINDOW),
        })
    }

    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// `failing`: this observer cannot reach it, whatever its vote.
    pub fn health(&self, failing: bool) -> Health {
        match self.verdict {
            Verdict::Down => Health::Down,
            Verdict::Unknown | Verdict::Up if failing || self.tally.down > 0 => Health::Suspect,
            Verdict::Unknown | Verdict::Up => Health::Fine,
        }
    }
}

#[cfg(test)]
mod exhaustive;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment(Duration::from_secs(seconds))
    }

    fn tally(down: usize, up: usize, fresh: usize) -> Tally {
        Tally { down, up, fresh }
    }

    #[test]
    fn a_majority_of_all_removes() {
        // Voters, those that say Down, whether that removes it.
        for (voters, alone, removing) in
            [(1, false, 2), (1, true, 1), (2, false, 2), (3, false, 2), (4, false, 3), (5, false, 3), (7, false, 4)]
        {
            let quorum = Quorum::new(voters, alone);
            for down in 0..=voters {
                for fresh in down..=voters {
                    let mut case = Case::default();
                    case.step(tally(down, 0, fresh), quorum, false, at(1));
                    let expected = if down >= removing {
                        Health::Down
                    } else if down > 0 {
                        Health::Suspect
                    } else {
                        Health::Fine
                    };
                    assert_eq!(case.health(false), expected, "{down} of {fresh} of {voters}");
                }
            }
        }
    }

    #[test]
    fn it_comes_back_after_a_while() {
        let quorum = Quorum::new(3, false);
        let mut case = Case::default();
        assert!(case.step(tally(2, 0, 3), quorum, false, at(0)));
        assert!(!case.step(tally(1, 1, 3), quorum, false, at(5)));
        assert_eq!(case.next_deadline(), Some(at(15)));
        assert!(!case.step(tally(1, 0, 3), quorum, false, at(10)), "nobody says that it is Up");
        assert_eq!(case.next_deadline(), None);
        assert!(!case.step(tally(0, 1, 3), quorum, false, at(20)));
        assert!(!case.step(tally(0, 1, 3), quorum, false, at(29)));
        assert!(case.step(tally(0, 1, 3), quorum, false, at(30)));
        assert_eq!(
            (case.verdict(), case.health(false), case.health(true)),
            (Verdict::Up, Health::Fine, Health::Suspect)
        );
    }

    #[test]
    fn nobody_is_heard() {
        let quorum = Quorum::new(3, false);
        let mut case = Case::default();
        case.step(tally(2, 0, 3), quorum, false, at(0));
        assert!(!case.step(tally(0, 1, 1), quorum, false, at(10)));
        assert!(!case.step(tally(0, 1, 1), quorum, false, at(309)));
        assert!(case.step(tally(0, 1, 1), quorum, false, at(310)));
        assert_eq!(case.verdict(), Verdict::Unknown);
    }

    #[test]
    fn nothing_goes_while_frozen() {
        let quorum = Quorum::new(3, false);
        let mut case = Case::default();
        assert!(!case.step(tally(3, 0, 3), quorum, true, at(0)));
        assert_eq!(case.health(false), Health::Suspect);
        assert!(case.step(tally(3, 0, 3), quorum, false, at(1)));
    }

    #[test]
    fn what_flaps_changes_six_times_in_a_window() {
        for period in [1, 3, 7, 15, 40] {
            let quorum = Quorum::new(1, true);
            let mut case = Case::default();
            let mut changes = Vec::new();
            for second in 0..6_000 {
                let down = usize::from(second / period % 2 == 0);
                // Every other period it is Up for long enough to come back, if it is ever to.
                let down = if case.verdict() == Verdict::Down { 0 } else { down };
                if case.step(tally(down, 1 - down, 1), quorum, false, at(second)) {
                    changes.push(second);
                }
            }
            assert!(changes.len() > 12, "{changes:?}");
            for window in changes.windows(MOST_CHANGES + 1) {
                assert!(window[MOST_CHANGES] - window[0] >= WINDOW.as_secs(), "period {period}: {changes:?}");
            }
        }
    }
}
