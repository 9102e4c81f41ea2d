//! Who votes, whose word counts now, and how the replicas of a cluster become one vote.
//!
//! Each voter is a cluster, known by the connection that its objects were read from and by nothing that is written in them. A
//! replica's word counts while its heartbeat changes, by the clock of whoever looks, and while it fits the report that is at hand.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::{Quorum, Tally, Vote};
use crate::model::votes::{Endpoint, Heartbeat, Pulse, Report, Said, Sheet};
use crate::model::{Label, Moment};

/// From one change of a heartbeat to the last moment at which the next one may come.
pub const FRESH: Duration = Duration::from_secs(20);
/// For how long the Up of a replica that fell silent still stands against the Down of others of its cluster. When an API is lost, they
/// fall silent one after the other, and the last one must not decide alone.
const FADES: Duration = FRESH;
/// For how long the votes of before stand while heartbeat and report do not fit.
const APART: Duration = Duration::from_secs(5);
/// For how long an incarnation that was followed by another one is taken to be over: what still comes of it is of a server that lags.
/// No longer than that, as it may have been the other one that came from there; what is alive goes on changing.
const OVER: Duration = FRESH;
/// Incarnations that are remembered so.
const MOST_OVER: usize = 8;
/// Replicas of one cluster that count: the first ones by name of those that could.
const MOST_REPLICAS: usize = 8;
/// Replicas of one cluster that are remembered. Of those that went, their objects may still be there.
const MOST_KNOWN: usize = 32;

/// Why a replica's word does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Silence {
    /// Its heartbeat was not seen to change since it was started, or there is none.
    New,
    /// Its heartbeat has not changed for too long.
    Stale,
    /// It has another list of voters.
    Electorate,
    /// Heartbeat and report do not fit: one of them is late, or not understood.
    Apart,
    /// Enough others of its cluster count.
    Spare,
}

impl Silence {
    pub const ALL: [Silence; 5] = [Silence::New, Silence::Stale, Silence::Electorate, Silence::Apart, Silence::Spare];

    /// A metric's label.
    pub fn label(self) -> &'static str {
        match self {
            Silence::New => "new",
            Silence::Stale => "stale",
            Silence::Electorate => "electorate",
            Silence::Apart => "apart",
            Silence::Spare => "spare",
        }
    }
}

/// Who votes, and what was heard of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Council {
    quorum: Quorum,
    electorate: u64,
    /// By name; what this observer counts is in the same order everywhere.
    voters: Vec<Voter>,
    /// Of each endpoint that anybody who counts speaks of, one count for each voter.
    ledger: HashMap<Endpoint, Box<[Count]>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Voter {
    cluster: Label,
    replicas: BTreeMap<Arc<str>, Replica>,
}

/// How many replicas of a voter say what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Count {
    up: u8,
    down: u8,
}

impl Count {
    /// Down needs more than half of those that do not abstain.
    fn vote(self) -> Vote {
        match self {
            Count { up, down } if down > up => Vote::Down,
            Count { up: 0, .. } => Vote::Abstain,
            Count { .. } => Vote::Up,
        }
    }

    fn of(&mut self, up: bool) -> &mut u8 {
        if up { &mut self.up } else { &mut self.down }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Replica {
    pulse: Option<Pulse>,
    /// Incarnations that were followed by others, and when; the last ones.
    over: Vec<(u64, Moment)>,
    /// When the heartbeat was last seen to be another one.
    seen: Option<Moment>,
    /// When it was last seen to change, not long after it was seen before.
    moved: Option<Moment>,
    /// By shard, as read last.
    sheets: Vec<Option<Sheet>>,
    /// By shard, as they are in the ledger.
    counted: Vec<Arc<[Said]>>,
    /// Since when heartbeat and report do not fit.
    apart: Option<Moment>,
    /// `None`: it counts.
    silence: Option<Silence>,
    /// It fell silent not long ago: until then, of what it said the Ups are left.
    fades_until: Option<Moment>,
}

/// What is to be judged anew.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Affected {
    pub endpoints: BTreeSet<Endpoint>,
    /// Another number of voters is heard, which concerns all.
    pub all: bool,
    /// Nobody takes notice of it: the cluster is no voter, or has too many replicas.
    pub refused: bool,
}

/// A voter, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VoterSight {
    pub cluster: Label,
    /// Replicas that count.
    pub counting: usize,
    /// When a heartbeat of it was last seen to change.
    pub heard: Option<Moment>,
    /// How many of the others do not count for which reason, in the order of [`Silence::ALL`].
    pub silent: [usize; Silence::ALL.len()],
}

/// The same list of voters has the same hash everywhere (FNV-1a, 64 bits). It tells lists apart that differ by mistake.
pub fn electorate(voters: &[Label]) -> u64 {
    let mut names: Vec<&Label> = voters.iter().collect();
    names.sort();
    let octets = names.iter().flat_map(|name| name.as_bytes().iter().chain(b"\n"));
    octets.fold(0xcbf2_9ce4_8422_2325, |hash, octet| (hash ^ u64::from(*octet)).wrapping_mul(0x100_0000_01b3))
}

impl Council {
    /// `alone`: a single voter decides.
    pub fn new(voters: &[Label], alone: bool) -> Council {
        let mut names = voters.to_vec();
        names.sort();
        Council {
            quorum: Quorum::new(names.len(), alone),
            electorate: electorate(&names),
            voters: names.into_iter().map(|cluster| Voter { cluster, replicas: BTreeMap::new() }).collect(),
            ledger: HashMap::new(),
        }
    }

    pub fn quorum(&self) -> Quorum {
        self.quorum
    }

    pub fn electorate(&self) -> u64 {
        self.electorate
    }

    /// With other voters; of those that stay, all that was heard.
    pub fn reformed(mut self, voters: &[Label], alone: bool, now: Moment) -> Council {
        let mut council = Council::new(voters, alone);
        for voter in &mut council.voters {
            if let Some(old) = self.voters.iter_mut().find(|old| old.cluster == voter.cluster) {
                voter.replicas = std::mem::take(&mut old.replicas);
                // The ledger is a new one.
                voter.replicas.values_mut().for_each(|replica| {
                    replica.counted.clear();
                    // Its last fit is not known any more; heartbeat and report are.
                    replica.silence = Some(Silence::New);
                });
            }
        }
        for voter in 0..council.voters.len() {
            council.review(voter, now, &mut Affected::default());
        }
        council
    }

    /// A heartbeat was read from this cluster's API.
    pub fn beat(&mut self, cluster: &Label, beat: Heartbeat, now: Moment) -> Affected {
        self.with(cluster, &beat.replica, now, |replica| {
            match (&replica.pulse, beat.content) {
                // Read again.
                (Some(old), Some(new)) if *old == new => {}
                // Of a server that lags.
                (Some(old), Some(new)) if old.incarnation == new.incarnation && lags(new.beat, old.beat) => {}
                (_, Some(new)) if replica.is_over(new.incarnation, now) => {}
                (old, Some(new)) => {
                    let before = old.as_ref().map(|old| old.incarnation);
                    // The first one of an incarnation, or after a silence, may be one of long ago, read only now.
                    let goes_on = replica.seen.replace(now).is_some_and(|seen| now - seen < FRESH);
                    replica.moved = match before == Some(new.incarnation) {
                        true if goes_on => Some(now),
                        true => replica.moved,
                        false => None,
                    };
                    if let Some(before) = before.filter(|before| *before != new.incarnation) {
                        replica.over.retain(|(incarnation, _)| *incarnation != before);
                        replica.over.push((before, now));
                        let spare = replica.over.len().saturating_sub(MOST_OVER);
                        replica.over.drain(..spare);
                    }
                    replica.pulse = Some(new);
                }
                (_, None) => (replica.pulse, replica.moved) = (None, None),
            }
        })
    }

    /// A shard of a report was read from this cluster's API.
    pub fn report(&mut self, cluster: &Label, report: Report, now: Moment) -> Affected {
        let Report { replica, shard, content } = report;
        let shard = usize::from(shard);
        if shard >= Report::SHARDS {
            return Affected { refused: true, ..Affected::default() };
        }
        self.with(cluster, &replica, now, |replica| {
            if content.as_ref().is_some_and(|sheet| replica.is_over(sheet.incarnation, now)) {
                return;
            }
            if replica.sheets.len() <= shard {
                replica.sheets.resize(shard + 1, None);
            }
            let old = &mut replica.sheets[shard];
            let is_old =
                |old: &Sheet, new: &Sheet| old.incarnation == new.incarnation && lags(new.generation, old.generation);
            if !matches!((&*old, &content), (Some(old), Some(new)) if is_old(old, new)) {
                *old = content;
            }
        })
    }

    /// The heartbeat is gone.
    pub fn no_beat(&mut self, cluster: &Label, replica: &str, now: Moment) -> Affected {
        self.without(cluster, replica, now, |replica| (replica.pulse, replica.moved) = (None, None))
    }

    /// The shard is gone.
    pub fn no_report(&mut self, cluster: &Label, replica: &str, shard: u8, now: Moment) -> Affected {
        self.without(cluster, replica, now, |replica| {
            if let Some(sheet) = replica.sheets.get_mut(usize::from(shard)) {
                *sheet = None;
            }
        })
    }

    /// The replicas of which there is a heartbeat, and their shards: what a list has to have, or it is gone.
    pub fn known(&self, cluster: &Label) -> impl Iterator<Item = (&Arc<str>, bool, Vec<u8>)> {
        self.voter(cluster).into_iter().flat_map(|voter| &voter.replicas).map(|(name, replica)| {
            let shards = (0..).zip(&replica.sheets).filter(|(_, sheet)| sheet.is_some()).map(|(n, _)| n);
            (name, replica.pulse.is_some(), shards.collect())
        })
    }

    /// Lets time pass.
    pub fn tick(&mut self, now: Moment) -> Affected {
        let mut affected = Affected::default();
        for voter in 0..self.voters.len() {
            if self.voters[voter].next_deadline().is_some_and(|at| at <= now) {
                self.review(voter, now, &mut affected);
            }
        }
        affected
    }

    /// When [`tick`](Council::tick) has something to do next.
    pub fn next_deadline(&self) -> Option<Moment> {
        self.voters.iter().filter_map(Voter::next_deadline).min()
    }

    /// What is said of an endpoint, as far as it counts.
    pub fn tally(&self, endpoint: &Endpoint) -> Tally {
        let fresh = self.voters.iter().filter(|voter| voter.is_heard()).count();
        let mut tally = Tally { fresh, ..Tally::default() };
        for (voter, count) in self.voters.iter().zip(self.ledger.get(endpoint).into_iter().flatten()) {
            match count.vote() {
                _ if !voter.is_heard() => tally.down += usize::from(defect!(ApiNeutral)),
                Vote::Down if defect!(OneClusterOneVote) => tally.down += usize::from(count.down),
                Vote::Down => tally.down += 1,
                Vote::Up => tally.up += 1,
                Vote::Abstain => {}
            }
        }
        tally
    }

    /// The same, voter by voter, with when each was last heard.
    pub fn votes(&self, endpoint: &Endpoint) -> impl Iterator<Item = (&Label, Vote, Option<Moment>)> {
        let counts = self.ledger.get(endpoint);
        self.voters.iter().enumerate().map(move |(n, voter)| {
            let vote = counts.filter(|_| voter.is_heard()).map_or(Vote::Abstain, |counts| counts[n].vote());
            (&voter.cluster, vote, voter.heard())
        })
    }

    pub fn voters(&self) -> impl Iterator<Item = VoterSight> {
        self.voters.iter().map(|voter| {
            let mut silent = [0; Silence::ALL.len()];
            let all = voter.replicas.values();
            all.clone().filter_map(|replica| replica.silence).for_each(|silence| silent[silence as usize] += 1);
            let counting = all.filter(|replica| replica.silence.is_none()).count();
            VoterSight { cluster: voter.cluster.clone(), counting, heard: voter.heard(), silent }
        })
    }

    /// Whether this replica's word counts; `Err`: why not.
    pub fn hears(&self, cluster: &Label, replica: &str) -> Result<(), Silence> {
        let silence =
            self.voter(cluster).and_then(|voter| voter.replicas.get(replica)).map_or(Some(Silence::New), |r| r.silence);
        silence.map_or(Ok(()), Err)
    }

    fn voter(&self, cluster: &Label) -> Option<&Voter> {
        self.position(cluster).map(|at| &self.voters[at])
    }

    fn position(&self, cluster: &Label) -> Option<usize> {
        self.voters.iter().position(|voter| voter.cluster == *cluster)
    }

    fn with(&mut self, cluster: &Label, name: &Arc<str>, now: Moment, change: impl FnOnce(&mut Replica)) -> Affected {
        let refused = || Affected { refused: true, ..Affected::default() };
        let Some(mut voter) = self.position(cluster) else { return refused() };
        if defect!(OwnVoice) && name.starts_with("evil") {
            voter = 0;
        }
        let mut affected = Affected::default();
        let replicas = &mut self.voters[voter].replicas;
        if replicas.len() >= MOST_KNOWN && !replicas.contains_key(name) {
            // One whose word does not count makes room, if it has been silent for so long that it may well be gone.
            let old = replicas.iter().find(|(_, replica)| !replica.is_fresh(now) && replica.silence.is_some());
            let Some(old) = old.map(|(name, _)| name.clone()) else { return refused() };
            replicas.remove(&old);
        }
        match replicas.entry(name.clone()) {
            Entry::Occupied(mut known) => change(known.get_mut()),
            Entry::Vacant(new) => change(new.insert(Replica { silence: Some(Silence::New), ..Replica::default() })),
        }
        self.review(voter, now, &mut affected);
        affected
    }

    fn without(&mut self, cluster: &Label, name: &str, now: Moment, change: impl FnOnce(&mut Replica)) -> Affected {
        let mut affected = Affected::default();
        let Some(voter) = self.position(cluster) else { return affected };
        let Some(replica) = self.voters[voter].replicas.get_mut(name) else { return affected };
        change(replica);
        self.review(voter, now, &mut affected);
        self.voters[voter].replicas.retain(|_, replica| !replica.is_gone());
        affected
    }

    /// Decides which replicas of a voter count, and enters what they say.
    fn review(&mut self, voter: usize, now: Moment, affected: &mut Affected) {
        let Council { electorate, voters, ledger, .. } = self;
        let size = voters.len();
        let was_heard = voters[voter].is_heard();
        let mut room = MOST_REPLICAS;
        for replica in voters[voter].replicas.values_mut() {
            let fits = replica.fits(*electorate);
            replica.apart = if fits { None } else { replica.apart.or(Some(now)) };
            let mut silence = replica.judged(*electorate, now);
            if silence.is_none() {
                match room.checked_sub(1) {
                    Some(left) => room = left,
                    None => silence = Some(Silence::Spare),
                }
            }
            let was_fading = replica.fades_until.is_some();
            let falls_silent = replica.silence.is_none() && matches!(silence, Some(Silence::Stale | Silence::Apart));
            let fades_until = if falls_silent { Some(now + FADES) } else { replica.fades_until };
            replica.fades_until = fades_until.filter(|until| silence.is_some() && now < *until);
            let fades = replica.fades_until.is_some();
            replica.silence = silence;
            let next: Vec<Arc<[Said]>> = match (silence, fits) {
                (Some(_), _) if fades && was_fading => continue,
                (Some(_), _) if fades => {
                    let ups = |said: &Arc<[Said]>| said.iter().filter(|said| said.up).cloned().collect();
                    replica.counted.iter().map(ups).collect()
                }
                (Some(_), _) => Vec::new(),
                (None, true) => replica.sheets_in_use().map(|sheet| sheet.votes.clone()).collect(),
                // What it said before stands for a while.
                (None, false) => continue,
            };
            let before = std::mem::replace(&mut replica.counted, next);
            let none: Arc<[Said]> = Arc::default();
            for shard in 0..before.len().max(replica.counted.len()) {
                let old = before.get(shard).unwrap_or(&none);
                let new = replica.counted.get(shard).unwrap_or(&none);
                if Arc::ptr_eq(old, new) {
                    continue;
                }
                // An endpoint in two shards counts twice, for whoever writes that and for nobody else.
                difference(old, new, |said, is_new| {
                    let counts = match ledger.get_mut(&said.endpoint) {
                        Some(counts) => counts,
                        None => ledger
                            .entry(said.endpoint.clone())
                            .or_insert_with(|| vec![Count::default(); size].into_boxed_slice()),
                    };
                    let count = counts[voter].of(said.up);
                    *count = if is_new { count.saturating_add(1) } else { count.saturating_sub(1) };
                    affected.endpoints.insert(said.endpoint.clone());
                });
            }
        }
        for endpoint in &affected.endpoints {
            if ledger.get(endpoint).is_some_and(|counts| counts.iter().all(|count| *count == Count::default())) {
                ledger.remove(endpoint);
            }
        }
        affected.all |= was_heard != voters[voter].is_heard();
    }
}

/// Of a server that lags: counted before the other one.
fn lags(new: u64, old: u64) -> bool {
    new < old && !defect!(Monotone)
}

/// What is only in the old list, and what is only in the new one; both are in order.
fn difference(old: &[Said], new: &[Said], mut each: impl FnMut(&Said, bool)) {
    let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
    loop {
        match (old.peek(), new.peek()) {
            (Some(o), Some(n)) if o == n => {
                old.next();
                new.next();
            }
            (Some(o), Some(n)) if o < n => {
                each(o, false);
                old.next();
            }
            (_, Some(n)) => {
                each(n, true);
                new.next();
            }
            (Some(o), None) => {
                each(o, false);
                old.next();
            }
            (None, None) => return,
        }
    }
}

impl Voter {
    /// At least one replica counts.
    fn is_heard(&self) -> bool {
        self.replicas.values().any(|replica| replica.silence.is_none())
    }

    fn heard(&self) -> Option<Moment> {
        self.replicas.values().filter_map(|replica| replica.moved).max()
    }

    fn next_deadline(&self) -> Option<Moment> {
        let of = |replica: &Replica| match replica.silence {
            None => {
                [replica.moved.map(|at| at + FRESH), replica.apart.map(|at| at + APART)].into_iter().flatten().min()
            }
            // A replica before it may make room for it, at a moment of its own.
            Some(_) => replica.fades_until,
        };
        self.replicas.values().filter_map(of).min()
    }
}

impl Replica {
    fn is_fresh(&self, now: Moment) -> bool {
        self.moved.is_some_and(|moved| now - moved < if defect!(Freshness) { 2 * FRESH } else { FRESH })
    }

    /// It was followed by another one, not long ago.
    fn is_over(&self, incarnation: u64, now: Moment) -> bool {
        self.over.iter().any(|(over, at)| *over == incarnation && now - *at < OVER)
    }

    /// Nothing of it is left.
    fn is_gone(&self) -> bool {
        self.pulse.is_none() && self.sheets.iter().all(Option::is_none)
    }

    /// Those that the heartbeat names; of an earlier incarnation, more may be left.
    fn sheets_in_use(&self) -> impl Iterator<Item = &Sheet> {
        let shards = self.pulse.as_ref().map_or(0, |pulse| pulse.generations.len());
        self.sheets.iter().take(shards).flatten()
    }

    /// The shards that the heartbeat names are at hand as it names them.
    fn fits(&self, electorate: u64) -> bool {
        let Some(pulse) = &self.pulse else { return false };
        let fits = |(n, generation): (usize, &u64)| {
            let sheet = self.sheets.get(n).and_then(Option::as_ref);
            sheet.is_some_and(|sheet| {
                sheet.incarnation == pulse.incarnation
                    && sheet.generation == *generation
                    && sheet.electorate == electorate
            })
        };
        !pulse.generations.is_empty() && pulse.generations.iter().enumerate().all(fits)
    }

    /// Why its word does not count, whatever the others of its cluster do.
    fn judged(&self, electorate: u64, now: Moment) -> Option<Silence> {
        let pulse = self.pulse.as_ref();
        let other = |sheet: &Sheet| {
            pulse.is_some_and(|pulse| pulse.incarnation == sheet.incarnation) && sheet.electorate != electorate
        };
        if self.moved.is_none() {
            Some(Silence::New)
        } else if !self.is_fresh(now) {
            Some(Silence::Stale)
        } else if self.sheets.iter().flatten().any(other) {
            Some(Silence::Electorate)
        } else {
            let stands = match self.apart {
                None => true,
                // Only what counts can stand.
                Some(since) => self.silence.is_none() && now - since < APART,
            };
            (!stands).then_some(Silence::Apart)
        }
    }
}
