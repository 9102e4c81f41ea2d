//! Not some runs, but all: every state that a case can come to with two to five voters, and every way in which voters can vote, be
//! heard and be split.
//!
//! Time goes on in the steps at which anything can happen: not at all, to the next deadline, a moment before it, or until everything
//! is forgotten.

use std::collections::{BTreeSet, HashSet, VecDeque};

use super::*;

/// Down votes that remove, by the number of voters: HEALTH.md, its table.
const REMOVAL: [(usize, usize); 4] = [(2, 2), (3, 2), (4, 3), (5, 3)];
const MOMENT: Duration = Duration::from_secs(1);

fn quorum(voters: usize) -> Quorum {
    Quorum::new(voters, false)
}

/// All that so many voters can say together.
fn tallies(voters: usize) -> Vec<Tally> {
    let mut all = Vec::new();
    for fresh in 0..=voters {
        for down in 0..=fresh {
            all.extend((0..=fresh - down).map(|up| Tally { down, up, fresh }));
        }
    }
    all
}

/// A case, and what a bystander has seen of it; times are ages, in seconds.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Seen {
    verdict: Verdict,
    /// Since each change of the last ten minutes, the oldest one first.
    changes: Vec<u64>,
    /// Since the votes allow it to come back, and since too few are heard.
    better: Option<u64>,
    unheard: Option<u64>,
}

impl Seen {
    fn of(case: &Case, now: Moment) -> Seen {
        // The last votes are for the order alone.
        let Case { verdict, tally: _, changes, better, unheard } = case.clone();
        let age = |at: Moment| (now - at).as_secs().min(WINDOW.as_secs());
        Seen {
            verdict,
            changes: changes.into_iter().filter(|at| now - *at < WINDOW).map(age).collect(),
            better: better.map(age),
            unheard: unheard.map(age),
        }
    }

    /// The same case at another time.
    fn case(&self, now: Moment) -> Case {
        let at = |age: u64| Moment(now.0 - Duration::from_secs(age));
        Case {
            verdict: self.verdict,
            tally: Tally::default(),
            changes: self.changes.iter().copied().map(at).collect(),
            better: self.better.map(at),
            unheard: self.unheard.map(at),
        }
    }
}

/// What HEALTH.md says of one step, found out without the case.
fn assert_step(before: &Seen, after: Verdict, tally: Tally, removal: usize, voters: usize, frozen: bool, wait: u64) {
    let majority = voters / 2 + 1;
    let told = || format!("{voters} voters; {before:?}, {wait} s later {tally:?}, frozen: {frozen}: {after:?}");
    let heard = tally.fresh >= majority;
    let could_come_back = heard && tally.down < majority && tally.up > 0;
    let recent = before.changes.iter().filter(|age| *age + wait < 600).count();
    match (before.verdict, after) {
        (Verdict::Down, Verdict::Up) => {
            // For that long, up to now and with what was said before.
            assert!(could_come_back && before.better.is_some_and(|age| age + wait >= 10), "{}", told());
        }
        (Verdict::Down, Verdict::Unknown) => {
            assert!(!heard && before.unheard.is_some_and(|age| age + wait >= 300), "{}", told());
        }
        (Verdict::Down, Verdict::Down) => {
            let slow = could_come_back && before.better.is_some_and(|age| age + wait >= 600);
            assert!(!slow, "it comes back some time: {}", told());
            // Of what comes and goes, the last of six changes is to Down.
            assert!(heard || recent > 4 || before.unheard.is_none_or(|age| age + wait < 300), "{}", told());
        }
        (_, Verdict::Down) => assert!(tally.down >= removal && !frozen, "{}", told()),
        (_, _) => assert!(tally.down < removal || frozen, "{}", told()),
    }
}

#[test]
fn every_state_of_a_case() {
    for (voters, removal) in REMOVAL {
        let now = Moment(Duration::from_secs(100_000));
        let first = Seen::of(&Case::default(), now);
        let mut known = HashSet::from([first.clone()]);
        let mut next = VecDeque::from([first]);
        let tallies = tallies(voters);
        let mut steps = 0u64;
        while let Some(seen) = next.pop_front() {
            let deadline = seen.case(now).next_deadline().map(|at| at - now);
            // Nothing changed until then; the daemon looks at each deadline.
            let last = deadline.unwrap_or(WINDOW).as_secs();
            let early = deadline.map(|at| at.saturating_sub(MOMENT).as_secs()).filter(|early| *early > 0);
            for wait in [0, last].into_iter().chain(early).collect::<BTreeSet<_>>() {
                for (tally, frozen) in tallies.iter().flat_map(|tally| [(*tally, false), (*tally, true)]) {
                    let then = now + Duration::from_secs(wait);
                    let mut case = seen.case(now);
                    let changed = case.step(tally, quorum(voters), frozen, then);
                    assert_eq!(changed, case.verdict != seen.verdict);
                    assert_step(&seen, case.verdict, tally, removal, voters, frozen, wait);
                    let order_only = case.verdict != Verdict::Down && tally.down > 0;
                    assert_eq!(case.health(false) == Health::Suspect, order_only, "{case:?}");
                    let after = Seen::of(&case, then);
                    assert!(after.changes.len() <= 6, "more than six changes in ten minutes: {after:?}");
                    steps += 1;
                    // From a moment before on, nothing else can happen than from the moment on.
                    if early != Some(wait) && known.insert(after.clone()) {
                        next.push_back(after);
                    }
                }
            }
        }
        println!("{voters} voters: {} states, {steps} steps", known.len());
        assert!(known.len() > 1_000, "it goes far enough: {}", known.len());
    }
}

/// Of each voter: what it says. A number in the base of three.
fn votes(code: usize, voters: usize) -> Vec<Vote> {
    let of = |n: u32| [Vote::Abstain, Vote::Up, Vote::Down][code / 3usize.pow(n) % 3];
    (0..voters as u32).map(of).collect()
}

/// What an observer that hears these voters makes of it.
fn removes(votes: &[Vote], heard: usize) -> bool {
    let heard = || votes.iter().enumerate().filter(|(n, _)| heard >> n & 1 == 1).map(|(_, vote)| *vote);
    let count = |wanted: Vote| heard().filter(|vote| *vote == wanted).count();
    let tally = Tally { down: count(Vote::Down), up: count(Vote::Up), fresh: heard().count() };
    let mut case = Case::default();
    case.step(tally, quorum(votes.len()), false, Moment::default());
    case.verdict() == Verdict::Down
}

#[test]
fn every_vote_and_every_split() {
    for (voters, removal) in REMOVAL {
        let all = (1 << voters) - 1;
        for code in 0..3usize.pow(voters as u32) {
            let votes = votes(code, voters);
            let down = |heard: usize| (0..voters).filter(|n| heard >> n & 1 == 1 && votes[*n] == Vote::Down).count();
            for heard in 0..=all {
                let told = || format!("{votes:?}, of which {heard:b} are heard");
                assert_eq!(removes(&votes, heard), down(heard) >= removal, "{}", told());
                // Of two sides that do not hear each other, at most one removes anything, and of two halves none.
                let both = removes(&votes, heard) && removes(&votes, all & !heard);
                assert!(!both, "{}", told());
                assert!(heard.count_ones() as usize * 2 > voters || !removes(&votes, heard), "{}", told());
                // Whoever hears less, removes less.
                let more = (0..voters).map(|n| heard | 1 << n);
                assert!(!removes(&votes, heard) || more.into_iter().all(|more| removes(&votes, more)), "{}", told());
                // A liar alone removes nothing, and keeps nothing that the others remove without it.
                for liar in 0..voters {
                    let without = down(heard & !(1 << liar));
                    for lie in [Vote::Abstain, Vote::Up, Vote::Down] {
                        let mut lied = votes.clone();
                        lied[liar] = lie;
                        let removed = removes(&lied, heard);
                        assert!(!removed || without + 1 >= removal, "{}", told());
                        assert!(removed || without < removal, "{}", told());
                    }
                }
            }
        }
    }
}
