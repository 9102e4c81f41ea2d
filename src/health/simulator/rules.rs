//! The rules of HEALTH.md, each of them a check by its name. What they look at is found out anew here, from what an instance was told,
//! and not from what it made of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::incidents::Fault;
use super::{Defect, MINUTE, Plan, SECOND, SERVICE, Time, Written};
use crate::health::{Board, FRESH, Health, Verdict, Vote, tolerated};
use crate::model::votes::{Endpoint, Host, Pulse, Report, Sheet};
use crate::model::{Label, Moment};

/// What does not hold, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    pub rule: Defect,
    pub what: String,
}

fn broken<T>(rule: Defect, what: impl Into<String>) -> Result<T, Broken> {
    Err(Broken { rule, what: what.into() })
}

type Votes = BTreeMap<Endpoint, Vec<(Label, Vote)>>;

pub struct Rules {
    clusters: usize,
    /// Of each cluster, of all services.
    addresses: usize,
    /// Of each instance.
    heard: Vec<Heard>,
    /// Until when an instance of a cluster saw that a target is Down, by instance, cluster and target; `None`: still.
    down: BTreeMap<(usize, usize, usize), Option<Time>>,
    /// Until when a cluster lied.
    lied: BTreeMap<usize, Option<Time>>,
    crashed: Time,
    /// The step that is under way lets time pass and nothing else. With whether removals were frozen before.
    passing: Option<bool>,
}

/// What an instance was told.
#[derive(Default)]
struct Heard {
    replicas: BTreeMap<(usize, Arc<str>), Replica>,
    /// Of each target, when it went Down or came back.
    changes: BTreeMap<usize, VecDeque<Time>>,
    down: BTreeSet<usize>,
    /// When each cluster was lost, by what is Down.
    lost: BTreeMap<usize, Time>,
}

#[derive(Default)]
struct Replica {
    /// The last beat of each incarnation.
    beats: BTreeMap<u64, u64>,
    moved: Option<Moment>,
    /// The last ones, with when they were replaced.
    sheets: VecDeque<(Sheet, Option<Moment>)>,
}

impl Rules {
    pub fn new(plan: &Plan, instances: usize) -> Rules {
        Rules {
            clusters: plan.clusters,
            addresses: plan.addresses + plan.others,
            heard: (0..instances).map(|_| Heard::default()).collect(),
            down: BTreeMap::new(),
            lied: BTreeMap::new(),
            crashed: 0,
            passing: None,
        }
    }

    pub fn started(&mut self, instance: usize) {
        self.heard[instance] = Heard::default();
    }

    pub fn crashed(&mut self, instance: usize, now: Time) {
        self.crashed = now;
        self.heard[instance] = Heard::default();
        let own = self.down.iter_mut().filter(|((i, ..), _)| *i == instance);
        own.for_each(|(_, until)| *until = until.or(Some(now)));
    }

    pub fn began(&mut self, fault: &Fault) {
        if let Fault::Lies { cluster } = fault {
            self.lied.insert(*cluster, None);
        }
    }

    pub fn over(&mut self, fault: &Fault, now: Time) {
        match fault {
            Fault::Lies { cluster } => drop(self.lied.insert(*cluster, Some(now))),
            Fault::Crash { .. } => self.crashed = now,
            _ => {}
        }
    }

    pub fn saw(&mut self, instance: usize, cluster: usize, target: usize, vote: Vote, now: Time) {
        match vote {
            Vote::Down => drop(self.down.insert((instance, cluster, target), None)),
            Vote::Up | Vote::Abstain => {
                if let Some(until) = self.down.get_mut(&(instance, cluster, target)) {
                    until.get_or_insert(now);
                }
            }
        }
    }

    /// Whether a cluster may say Down of a target because one of its instances saw that, or because it lies.
    fn means(&self, cluster: usize, target: usize, now: Time) -> bool {
        let lately = |until: &Option<Time>| is_recent(*until, MINUTE, now);
        let mut seen = self.down.iter().filter(|((_, c, t), _)| (*c, *t) == (cluster, target));
        seen.any(|(_, until)| lately(until)) || self.lied.get(&cluster).is_some_and(lately)
    }

    /// The step that comes is the passing of time, and nothing was told.
    pub fn time_passed(&mut self, was_frozen: bool) {
        self.passing = Some(was_frozen);
    }

    pub fn read(&mut self, instance: usize, cluster: usize, what: &Written, now: Moment) {
        match what {
            Written::Heartbeat(beat) => {
                let replica = self.heard[instance].replicas.entry((cluster, beat.replica.clone())).or_default();
                let Some(Pulse { incarnation, beat, .. }) = beat.content else { return };
                // To one instance the beats of a liar go up that to another one go down.
                if replica.beats.insert(incarnation, beat).is_some_and(|before| before != beat) {
                    replica.moved = Some(now);
                }
            }
            Written::Report(Report { replica, content, .. }) => {
                let replica = self.heard[instance].replicas.entry((cluster, replica.clone())).or_default();
                // What comes of a server that lags says nothing.
                let is_old = content.as_ref().is_some_and(|new| {
                    let last = replica.sheets.back().map(|(last, _)| last.incarnation);
                    let again = |old: &Sheet, until: Option<Moment>| {
                        // What goes on for longer was another one's end, and not its own.
                        let is_over = Some(old.incarnation) != last && until.is_some_and(|until| now - until < FRESH);
                        old.incarnation == new.incarnation && (is_over || old.generation > new.generation)
                    };
                    replica.sheets.iter().any(|(old, until)| again(old, *until))
                });
                if is_old {
                    return;
                }
                if let Some((_, until)) = replica.sheets.back_mut() {
                    until.get_or_insert(now);
                }
                if let Some(sheet) = content {
                    replica.sheets.push_back((sheet.clone(), None));
                }
                while replica.sheets.len() > 8 {
                    replica.sheets.pop_front();
                }
            }
        }
    }

    /// The clusters that may say Down of an endpoint, as far as this instance was told: at least one replica that is fresh and
    /// says so, now or a few seconds ago.
    fn sayers(&self, instance: usize, endpoint: &Endpoint, now: Moment) -> BTreeSet<usize> {
        let says = |sheet: &Sheet| sheet.votes.iter().any(|said| said.endpoint == *endpoint && !said.up);
        let counts = |replica: &Replica| {
            let fresh = replica.moved.is_some_and(|moved| now - moved <= FRESH);
            let recent = |until: &Option<Moment>| until.is_none_or(|until| now - until <= Duration::from_secs(6));
            fresh && replica.sheets.iter().any(|(sheet, until)| recent(until) && says(sheet))
        };
        let replicas = self.heard[instance].replicas.iter();
        replicas.filter(|(_, replica)| counts(replica)).map(|((cluster, _), _)| *cluster).collect()
    }

    /// An endpoint is judged in another way than before.
    pub fn judged(
        &mut self,
        instance: usize,
        target: usize,
        board: &Board,
        endpoint: &Endpoint,
        time: Time,
        now: Moment,
    ) -> Result<(), Broken> {
        let council = board.council().expect("a majority decides");
        let silent = council.voters().filter(|voter| voter.counting == 0).count();
        let down = council.votes(endpoint).filter(|(_, vote, _)| *vote == Vote::Down).count();
        let tally = council.tally(endpoint);
        if tally.down > down + silent {
            return broken(Defect::OneClusterOneVote, format!("{} votes of {down} clusters", tally.down));
        }
        let is_down = board.health(endpoint) == Health::Down;
        let was_down = self.heard[instance].down.contains(&target);
        if is_down == was_down {
            return Ok(());
        }
        let heard = &mut self.heard[instance];
        match is_down {
            true => drop(heard.down.insert(target)),
            false => drop(heard.down.remove(&target)),
        }
        let changes = heard.changes.entry(target).or_default();
        changes.push_back(time);
        while changes.front().is_some_and(|at| *at + 11 * MINUTE <= time) {
            changes.pop_front();
        }
        let recent = changes.iter().filter(|at| **at + 10 * MINUTE > time).count();
        if recent > 6 {
            return broken(Defect::FlapBound, format!("{recent} changes within ten minutes"));
        }
        if !is_down {
            return Ok(());
        }
        // Somebody has been silent for 20 s at this very moment.
        let falls_silent = |replica: &Replica| {
            let silent = replica.moved.map(|moved| now - moved);
            silent.is_some_and(|silent| silent >= FRESH && silent < FRESH + Duration::from_millis(20))
        };
        if self.passing == Some(false)
            && self.heard[instance].replicas.values().any(falls_silent)
            && time > self.crashed + MINUTE
            // What a liar's replicas come to changes when one of them falls silent. That is its own vote.
            && self.lied.values().all(|until| until.is_some_and(|until| time > until + MINUTE))
        {
            return broken(Defect::ApiNeutral, "removed when somebody fell silent");
        }
        let mut sayers = self.sayers(instance, endpoint, now);
        // What a liar says at a moment is not found out here: it may be anything.
        let liars = self.lied.iter().filter(|(_, until)| is_recent(**until, MINUTE, time));
        sayers.extend(liars.map(|(cluster, _)| *cluster));
        let meant = sayers.iter().filter(|cluster| self.means(**cluster, target, time)).count();
        if meant < 2 {
            return broken(Defect::NoLoneRemoval, format!("of {sayers:?}, {meant} see it Down"));
        }
        let quorum = (self.clusters / 2 + 1).max(2);
        if sayers.len() * 2 == self.clusters {
            return broken(Defect::Tie, format!("{} of {} say Down", sayers.len(), self.clusters));
        }
        if sayers.len() < quorum {
            let votes: Vec<_> = council.votes(endpoint).collect();
            let what = format!("removed by {sayers:?}, and {quorum} are needed; the votes are {votes:?}");
            return broken(Defect::Quorum, what);
        }
        self.breaks(instance, target, time)
    }

    /// Something is Down for this instance.
    pub fn leaves_some_out(&self, instance: usize) -> bool {
        !self.heard[instance].down.is_empty()
    }

    /// Too much of it is lost at once.
    fn breaks(&mut self, instance: usize, target: usize, time: Time) -> Result<(), Broken> {
        let addresses = self.addresses;
        let clusters = self.clusters;
        let Heard { down, lost, .. } = &mut self.heard[instance];
        let count = |cluster: usize| down.iter().filter(|target| *target / addresses == cluster).count();
        for cluster in 0..clusters {
            match count(cluster) * 2 >= addresses {
                true => drop(lost.entry(cluster).or_insert(time)),
                false => drop(lost.remove(&cluster)),
            }
        }
        let at_once = lost.values().filter(|at| time < **at + MINUTE).count();
        if lost.get(&(target / addresses)) == Some(&time) && at_once > tolerated(clusters) {
            return broken(Defect::Breaker, format!("{at_once} clusters are lost within a minute"));
        }
        Ok(())
    }

    /// After each step of an instance.
    pub fn stepped(&mut self, instance: usize, board: &Board, now: Moment) -> Result<(), Broken> {
        self.passing = None;
        let Some(council) = board.council() else { return Ok(()) };
        let mut moved = vec![None; self.clusters];
        for ((cluster, _), replica) in &self.heard[instance].replicas {
            moved[*cluster] = moved[*cluster].max(replica.moved);
        }
        for (cluster, sight) in council.voters().enumerate() {
            let fresh = moved[cluster].is_some_and(|moved| now - moved <= FRESH);
            // What is due at this very moment is done in the next step.
            if sight.counting > 0 && !fresh {
                let moved = moved[cluster];
                return broken(
                    Defect::Freshness,
                    format!("c{cluster} counts, and was heard at {moved:?}, now {now:?}"),
                );
            }
        }
        Ok(())
    }

    pub fn answered(&self, answer: &BTreeSet<IpAddr>, board: &Board) -> Result<(), Broken> {
        let of = |wanted: bool| {
            let is = move |endpoint: &&Endpoint| (board.health(endpoint) == Health::Down) == wanted;
            let of_service = board.endpoints().filter(|endpoint| endpoint.port == SERVICE);
            of_service.filter(is).filter_map(|endpoint| match endpoint.host {
                Host::Address(address) => Some(address),
                Host::Name(_) => None,
            })
        };
        let served: BTreeSet<IpAddr> = of(false).collect();
        let expected = if served.is_empty() { of(true).collect() } else { served };
        if *answer == expected {
            return Ok(());
        }
        broken(Defect::NonEmpty, format!("answered with {answer:?} instead of {expected:?}"))
    }

    pub fn votes_of_others(&self, board: &Board, liar: &Label) -> Votes {
        votes(board, |cluster| cluster != liar)
    }

    pub fn votes_of(&self, board: &Board, cluster: &Label) -> Votes {
        votes(board, |other| other == cluster)
    }

    pub fn heard_a_liar(&self, before: &Votes, after: &Votes) -> Result<(), Broken> {
        if before == after {
            return Ok(());
        }
        broken(Defect::OwnVoice, "what one cluster wrote changed what another one says")
    }

    pub fn heard_of_old(&self, cluster: usize, before: &Votes, after: &Votes, now: Time) -> Result<(), Broken> {
        // Of a liar's own words none is older than another one.
        let lied = self.lied.get(&cluster).is_some_and(|until| is_recent(*until, 2 * MINUTE, now));
        if before == after || lied {
            return Ok(());
        }
        let differs = after.iter().find(|(endpoint, votes)| before.get(endpoint) != Some(votes));
        broken(Defect::Monotone, format!("what was written before counts again: {differs:?}"))
    }

    /// It was cut off from all others for so long.
    pub fn was_cut_off(&self, instance: usize, board: &Board, time: Time, now: Time) -> Result<(), Broken> {
        let down: Vec<_> = board.endpoints().filter(|e| board.verdict(e) == Some(Verdict::Down)).collect();
        // What is Down is so for as long as it is not confirmed, from when it was not heard any more.
        let last = self.heard[instance].changes.values().filter_map(|changes| changes.back()).max();
        let counts = |at: &&Time| **at + 10 * MINUTE > now;
        // What comes and goes stays away for as long as the bound on that needs.
        let flaps = self.heard[instance].changes.values().any(|changes| changes.iter().filter(counts).count() > 4);
        let settled = !flaps && last.is_none_or(|last| *last + 5 * MINUTE + 25 * SECOND < now);
        if time > 5 * MINUTE + 30 * SECOND && settled && !down.is_empty() && self.clusters > 2 {
            return broken(Defect::FailOpen, format!("cut off for {} s, and {down:?} are not served", time / SECOND));
        }
        Ok(())
    }

    /// One address died 20 s ago, or is back for 30 s, and nothing else happened.
    pub fn died_alone(
        &self,
        target: usize,
        is_back: bool,
        boards: &[(usize, &Board)],
        endpoint: &Endpoint,
        now: Time,
    ) -> Result<(), Broken> {
        // With two clusters, nothing is removed.
        if self.clusters < 3 {
            return Ok(());
        }
        for (instance, board) in boards {
            let is_down = board.health(endpoint) == Health::Down;
            if !is_back && !is_down {
                let voters: Vec<_> = board.council().into_iter().flat_map(|council| council.voters()).collect();
                let running: Vec<_> = boards.iter().map(|(n, _)| n).collect();
                let what =
                    format!("instance {instance} of {running:?} still answers with it after 20 s; it hears {voters:?}");
                return broken(Defect::Detection, what);
            }
            let changes = self.heard[*instance].changes.get(&target);
            // For how long it is held is found out when it could come back, and what has changed until then counts.
            let recent = changes.map_or(0, |all| all.iter().filter(|at| **at + 11 * MINUTE > now).count());
            if is_back && is_down && recent <= 1 {
                return broken(Defect::Recovery, format!("instance {instance} does not answer with it after 30 s"));
            }
        }
        Ok(())
    }

    /// All faults are over for long, and not everybody sees it.
    pub fn not_well(&self, boards: &[&Board]) -> Result<(), Broken> {
        let sums: Vec<_> = boards.iter().map(|board| (board.sums(), board.is_frozen(), board.is_isolated())).collect();
        broken(Defect::Convergence, format!("all is well, and they see: {sums:?}"))
    }
}

/// It goes on, or ended not so long ago.
fn is_recent(until: Option<Time>, within: Time, now: Time) -> bool {
    until.is_none_or(|until| now < until + within)
}

fn votes(board: &Board, of: impl Fn(&Label) -> bool) -> Votes {
    let Some(council) = board.council() else { return Votes::new() };
    let of_endpoint = |endpoint: &Endpoint| {
        let votes = council.votes(endpoint).filter(|(cluster, ..)| of(cluster));
        (endpoint.clone(), votes.map(|(cluster, vote, _)| (cluster.clone(), vote)).collect())
    };
    board.endpoints().map(of_endpoint).collect()
}
