//! What this instance says of endpoints, in shards as they are written for others to read.

use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::quality::FixedState;

use crate::model::votes::{Endpoint, Report, Said};

/// Octets of a shard from which on there are more shards; a written one has a little more, and must stay below 256 KiB.
const MOST_OCTETS: usize = 192 << 10;
/// Around each endpoint's text in a report: quotes and a comma.
const AROUND: usize = 3;

#[derive(Debug, Clone)]
pub struct Ballot {
    most_octets: usize,
    shards: Vec<Shard>,
}

#[derive(Debug, Clone, Default)]
struct Shard {
    votes: BTreeMap<Endpoint, bool>,
    /// Of the endpoints' texts.
    octets: usize,
    /// Of what was tried to be written last; each try has one of its own.
    tried: u64,
    /// Of what was written last.
    written: Option<u64>,
    is_dirty: bool,
}

impl Default for Ballot {
    /// It says nothing, which is to be written too.
    fn default() -> Ballot {
        Ballot::with_most_octets(MOST_OCTETS)
    }
}

impl Ballot {
    fn with_most_octets(most_octets: usize) -> Ballot {
        Ballot { most_octets, shards: vec![Shard { is_dirty: true, ..Shard::default() }] }
    }

    /// `None`: nothing is said of it any more. False: there is no room for it.
    pub fn say(&mut self, endpoint: Endpoint, up: Option<bool>) -> bool {
        let cost = cost(&endpoint);
        let at = self.shard_of(&endpoint);
        let shard = &mut self.shards[at];
        let before = match up {
            Some(up) => shard.votes.insert(endpoint.clone(), up),
            None => shard.votes.remove(&endpoint),
        };
        match (before, up) {
            (None, Some(_)) => shard.octets += cost,
            (Some(_), None) => shard.octets -= cost,
            (None, None) | (Some(_), Some(_)) => {}
        }
        if before == up {
            return true;
        }
        if shard.octets > self.most_octets {
            if self.shards.len() >= Report::SHARDS {
                let shard = &mut self.shards[at];
                shard.votes.remove(&endpoint);
                shard.octets -= cost;
                return false;
            }
            self.split();
            return true;
        }
        shard.is_dirty = true;
        true
    }

    fn shard_of(&self, endpoint: &Endpoint) -> usize {
        // The same one each time; whoever reads it need not know which.
        (FixedState::default().hash_one(endpoint) % self.shards.len() as u64) as usize
    }

    /// Twice as many shards.
    fn split(&mut self) {
        let votes: Vec<_> = self.shards.iter_mut().flat_map(|shard| std::mem::take(&mut shard.votes)).collect();
        let count = (2 * self.shards.len()).min(Report::SHARDS);
        self.shards.resize_with(count, Shard::default);
        for shard in &mut self.shards {
            (shard.octets, shard.is_dirty) = (0, true);
        }
        for (endpoint, up) in votes {
            let cost = cost(&endpoint);
            let at = self.shard_of(&endpoint);
            self.shards[at].octets += cost;
            self.shards[at].votes.insert(endpoint, up);
        }
    }

    /// Whatever was written is not there any more, or is something else.
    pub fn again(&mut self) {
        self.shards.iter_mut().for_each(|shard| shard.is_dirty = true);
    }

    /// Something is not written yet.
    pub fn is_dirty(&self) -> bool {
        self.shards.iter().any(|shard| shard.is_dirty)
    }

    /// The shards that are not written yet, each with a generation that it never had.
    pub fn to_write(&mut self) -> Vec<(u8, u64, Arc<[Said]>)> {
        let dirty = (0u8..).zip(&mut self.shards).filter(|(_, shard)| shard.is_dirty);
        dirty
            .map(|(n, shard)| {
                shard.tried += 1;
                let said = |(endpoint, up): (&Endpoint, &bool)| Said { endpoint: endpoint.clone(), up: *up };
                (n, shard.tried, shard.votes.iter().map(said).collect())
            })
            .collect()
    }

    /// What [`to_write`](Ballot::to_write) gave last for a shard is there now.
    pub fn written(&mut self, shard: u8) {
        let shard = &mut self.shards[usize::from(shard)];
        (shard.written, shard.is_dirty) = (Some(shard.tried), false);
    }

    /// Of each shard, up to the first one that was never written.
    pub fn generations(&self) -> Vec<u64> {
        self.shards.iter().map_while(|shard| shard.written).collect()
    }
}

fn cost(endpoint: &Endpoint) -> usize {
    endpoint.text().len() + AROUND
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::Ipv4Addr;
    use std::num::NonZeroU16;

    use super::*;
    use crate::model::Label;
    use crate::model::votes::Host;

    fn endpoint(n: u32) -> Endpoint {
        let host = Host::Address(Ipv4Addr::from(0x6810_0000 + n).into());
        Endpoint { cluster: Label::parse("c").unwrap(), host, port: NonZeroU16::new(80).unwrap(), service: None }
    }

    fn write(ballot: &mut Ballot) -> Vec<(u8, u64, usize)> {
        let wrote: Vec<_> = ballot.to_write().iter().map(|(n, g, votes)| (*n, *g, votes.len())).collect();
        wrote.iter().for_each(|(n, ..)| ballot.written(*n));
        wrote
    }

    #[test]
    fn what_changes_is_written_and_nothing_else() {
        let mut ballot = Ballot::default();
        assert_eq!((write(&mut ballot), ballot.generations()), (vec![(0, 1, 0)], vec![1]));
        assert!(!ballot.is_dirty());
        ballot.again();
        assert_eq!(write(&mut ballot), [(0, 2, 0)]);
        ballot.say(endpoint(1), Some(true));
        ballot.say(endpoint(2), Some(false));
        assert_eq!(write(&mut ballot), [(0, 3, 2)]);
        ballot.say(endpoint(1), Some(true));
        ballot.say(endpoint(3), None);
        assert!(!ballot.is_dirty(), "it was said before");
        ballot.say(endpoint(1), None);
        // It may have come through, for all that is known.
        ballot.to_write();
        assert_eq!((ballot.is_dirty(), ballot.generations()), (true, vec![3]));
        assert_eq!((write(&mut ballot), ballot.generations()), (vec![(0, 5, 1)], vec![5]));
    }

    #[test]
    fn many_are_in_many_shards_and_there_is_an_end_to_it() {
        let mut ballot = Ballot::with_most_octets(1_000);
        let taken: Vec<u32> = (0..5_000).filter(|n| ballot.say(endpoint(*n), Some(n % 2 == 0))).collect();
        assert_eq!(ballot.shards.len(), Report::SHARDS);
        assert!((1_000..2_000).contains(&taken.len()), "{}", taken.len());
        let written = ballot.to_write();
        assert_eq!(written.iter().map(|(n, ..)| usize::from(*n)).collect::<Vec<_>>(), (0..32).collect::<Vec<_>>());
        let all: BTreeSet<_> = written.iter().flat_map(|(.., votes)| votes.iter().cloned()).collect();
        let expected = taken.iter().map(|n| Said { endpoint: endpoint(*n), up: n % 2 == 0 });
        assert_eq!(all, expected.collect());
        assert_eq!(all.len(), written.iter().map(|(.., votes)| votes.len()).sum::<usize>(), "each in one of them");
        for shard in &ballot.shards {
            let octets: usize = shard.votes.keys().map(cost).sum();
            assert_eq!(octets, shard.octets);
            assert!(octets <= 1_000);
        }
        // What is said no more makes room.
        taken.iter().for_each(|n| assert!(ballot.say(endpoint(*n), None)));
        assert!(ballot.shards.iter().all(|shard| shard.octets == 0 && shard.votes.is_empty()));
    }
}
