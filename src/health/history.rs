//! What one prober saw of one address and port, and what it says of it.

use std::num::NonZeroU8;

use super::Vote;

/// How many in a row change its mind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failures {
    /// Failures until it is Down.
    pub fall: NonZeroU8,
    /// Successes until it is Up.
    pub rise: NonZeroU8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct History {
    vote: Vote,
    /// How many times in a row something else was seen than the vote says.
    against: u8,
    last: Option<bool>,
}

impl Default for History {
    fn default() -> Self {
        History { vote: Vote::Abstain, against: 0, last: None }
    }
}

impl History {
    /// Enters a probe's outcome; gives the vote if it is another one now.
    pub fn step(&mut self, good: bool, rules: Failures) -> Option<Vote> {
        let said = if good { Vote::Up } else { Vote::Down };
        let again = self.last.replace(good) == Some(good);
        if said == self.vote {
            self.against = 0;
            return None;
        }
        self.against = if again { self.against.saturating_add(1) } else { 1 };
        let needed = if good { rules.rise } else { rules.fall };
        let more = if defect!(Detection) && !good { 2 } else { 0 };
        if self.against < needed.get() + more {
            return None;
        }
        (self.vote, self.against) = (said, 0);
        Some(said)
    }

    /// The last probe failed.
    pub fn is_failing(&self) -> bool {
        self.last == Some(false)
    }

    /// Another probe with this outcome changes nothing.
    #[cfg(test)]
    pub fn is_settled(&self, good: bool) -> bool {
        let said = if good { Vote::Up } else { Vote::Down };
        self.vote == said && self.last == Some(good) && self.against == 0
    }

    /// [`Vote::Abstain`] until enough was seen.
    pub fn vote(&self) -> Vote {
        self.vote
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_in_a_row() {
        let rules = Failures { fall: NonZeroU8::new(3).unwrap(), rise: NonZeroU8::new(2).unwrap() };
        // `+` and `-` are probes; what is said after each: `u`, `d`, or `.` for the same as before.
        for (probes, said) in [
            ("++---++", ".u..d.u"),
            ("---", "..d"),
            ("+-+-+-+", "......."),
            ("++--+--+---", ".u........d"),
            ("---+-+-++", "..d.....u"),
            ("++++", ".u.."),
        ] {
            let mut history = History::default();
            let step = |probe| match history.step(probe == '+', rules) {
                None => '.',
                Some(Vote::Up) => 'u',
                Some(Vote::Down) => 'd',
                Some(Vote::Abstain) => 'a',
            };
            assert_eq!(probes.chars().map(step).collect::<String>(), said, "{probes}");
        }
    }
}
