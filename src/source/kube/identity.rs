//! Which cluster is behind a name: the UID of its namespace kube-system.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::client::Failure;
use crate::model::Label;

/// Which cluster each UID belongs to, shared by all sources: two names for one cluster would count every endpoint
/// of it twice. Holds at most one entry for each source that runs.
#[derive(Debug, Default)]
pub struct Identities {
    owners: Mutex<HashMap<String, Owner>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Owner {
    name: Label,
    /// By a Secret. Its API may say any UID, and must not keep out a cluster of the configuration by that.
    is_registered: bool,
}

impl Identities {
    fn claim(&self, uid: &str, claimant: &Owner) -> Result<(), Failure> {
        let mut owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        let owner = owners.entry(uid.to_owned()).or_insert_with(|| claimant.clone());
        if owner.is_registered && !claimant.is_registered {
            *owner = claimant.clone();
        }
        if owner == claimant {
            Ok(())
        } else {
            Err(Failure::SameCluster { other: owner.name.to_string(), uid: uid.to_owned() })
        }
    }

    fn release(&self, uid: &str, owner: &Owner) {
        let mut owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        if owners.get(uid) == Some(owner) {
            owners.remove(uid);
        }
    }
}

/// One source's identity, fixed from the first time that it is told until the source is started anew (which is what a reload does
/// that changes the cluster's entry, and a restart without a snapshot of it: so the operator acknowledges that a name now means another
/// cluster).
#[derive(Debug)]
pub struct Identity {
    own: Owner,
    all: Arc<Identities>,
    uid: Mutex<Uid>,
}

#[derive(Debug)]
struct Uid {
    known: Option<String>,
    /// It is ours among all.
    claimed: bool,
}

impl Identity {
    /// `known`: the UID that an earlier process knew.
    pub fn new(name: Label, is_registered: bool, all: Arc<Identities>, known: Option<String>) -> Identity {
        Identity { own: Owner { name, is_registered }, all, uid: Mutex::new(Uid { known, claimed: false }) }
    }

    /// The API said that it is `got`: is that the cluster whose data we have?
    pub fn confirm(&self, got: &str) -> Result<(), Failure> {
        let mut uid = self.uid.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = uid.known.as_deref().filter(|known| *known != got) {
            return Err(Failure::OtherCluster { known: known.to_owned(), got: got.to_owned() });
        }
        // Each time: a cluster of the configuration may have come.
        self.all.claim(got, &self.own)?;
        if !uid.claimed {
            *uid = Uid { known: Some(got.to_owned()), claimed: true };
        }
        Ok(())
    }
}

impl Drop for Identity {
    fn drop(&mut self) {
        if let Uid { known: Some(uid), claimed: true } = self.uid.get_mut().unwrap_or_else(PoisonError::into_inner) {
            self.all.release(uid, &self.own);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_name_for_one_cluster() {
        let all = Arc::new(Identities::default());
        let identity = |name| Identity::new(Label::parse(name).unwrap(), false, Arc::clone(&all), None);
        let (a, b) = (identity("a"), identity("b"));
        a.confirm("one").unwrap();
        a.confirm("one").unwrap();
        assert!(matches!(b.confirm("one"), Err(Failure::SameCluster { other, .. }) if other == "a"));
        b.confirm("two").unwrap();
        assert!(matches!(b.confirm("one"), Err(Failure::OtherCluster { known, .. }) if known == "two"));
        assert!(matches!(a.confirm("three"), Err(Failure::OtherCluster { .. })));
        drop(a);
        let again = identity("a");
        again.confirm("three").unwrap();
        identity("c").confirm("one").unwrap();
        // What an earlier process knew binds, and is nobody's until it is confirmed.
        let named = Label::parse("d").unwrap();
        let knowing = Identity::new(named, false, Arc::clone(&all), Some("four".to_owned()));
        assert!(matches!(knowing.confirm("five"), Err(Failure::OtherCluster { known, .. }) if known == "four"));
        identity("e").confirm("four").unwrap();
        knowing.confirm("four").unwrap();
        assert!(matches!(identity("f").confirm("four"), Err(Failure::SameCluster { other, .. }) if other == "d"));
    }

    #[test]
    fn a_registered_cluster_keeps_out_no_configured_one() {
        let all = Arc::new(Identities::default());
        let identity =
            |name, is_registered| Identity::new(Label::parse(name).unwrap(), is_registered, Arc::clone(&all), None);
        let (liar, other, configured) = (identity("liar", true), identity("other", true), identity("a", false));
        liar.confirm("one").unwrap();
        assert!(matches!(other.confirm("one"), Err(Failure::SameCluster { other, .. }) if other == "liar"));
        configured.confirm("one").unwrap();
        assert!(matches!(liar.confirm("one"), Err(Failure::SameCluster { other, .. }) if other == "a"));
        drop(liar);
        assert!(matches!(other.confirm("one"), Err(Failure::SameCluster { other, .. }) if other == "a"));
        drop(configured);
        other.confirm("one").unwrap();
    }
}
