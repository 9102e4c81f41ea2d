//! Which cluster is behind a name: the UID of its namespace kube-system.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::client::Failure;
use crate::model::{ClusterId, Label};

/// Which cluster each UID belongs to, shared by all sources: two names for one cluster would count every endpoint
/// of it twice. Holds at most one entry for each source that runs.
#[derive(Debug, Default)]
pub struct Identities {
    owners: Mutex<HashMap<String, (ClusterId, Label)>>,
}

impl Identities {
    fn claim(&self, uid: &str, cluster: ClusterId, name: &Label) -> Result<(), Failure> {
        let mut owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        let (owner, other) = owners.entry(uid.to_owned()).or_insert_with(|| (cluster, name.clone()));
        if *owner == cluster {
            Ok(())
        } else {
            Err(Failure::SameCluster { other: other.to_string(), uid: uid.to_owned() })
        }
    }

    fn release(&self, uid: &str) {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}

/// One source's identity, fixed from the first time that it is told until the source is started anew (which is what a reload does
/// that changes the cluster's entry, and a restart without a snapshot of it: so the operator acknowledges that a name now means another
/// cluster).
#[derive(Debug)]
pub struct Identity {
    cluster: ClusterId,
    name: Label,
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
    pub fn new(cluster: ClusterId, name: Label, all: Arc<Identities>, known: Option<String>) -> Identity {
        Identity { cluster, name, all, uid: Mutex::new(Uid { known, claimed: false }) }
    }

    /// The API said that it is `got`: is that the cluster whose data we have?
    pub fn confirm(&self, got: &str) -> Result<(), Failure> {
        let mut uid = self.uid.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = uid.known.as_deref().filter(|known| *known != got) {
            return Err(Failure::OtherCluster { known: known.to_owned(), got: got.to_owned() });
        }
        if !uid.claimed {
            self.all.claim(got, self.cluster, &self.name)?;
            *uid = Uid { known: Some(got.to_owned()), claimed: true };
        }
        Ok(())
    }
}

impl Drop for Identity {
    fn drop(&mut self) {
        if let Uid { known: Some(uid), claimed: true } = self.uid.get_mut().unwrap_or_else(PoisonError::into_inner) {
            self.all.release(uid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_name_for_one_cluster() {
        let all = Arc::new(Identities::default());
        let identity = |id, name| Identity::new(ClusterId(id), Label::parse(name).unwrap(), Arc::clone(&all), None);
        let (a, b) = (identity(0, "a"), identity(1, "b"));
        a.confirm("one").unwrap();
        a.confirm("one").unwrap();
        assert!(matches!(b.confirm("one"), Err(Failure::SameCluster { other, .. }) if other == "a"));
        b.confirm("two").unwrap();
        assert!(matches!(b.confirm("one"), Err(Failure::OtherCluster { known, .. }) if known == "two"));
        assert!(matches!(a.confirm("three"), Err(Failure::OtherCluster { .. })));
        drop(a);
        let again = identity(0, "a");
        again.confirm("three").unwrap();
        identity(2, "c").confirm("one").unwrap();
        // What an earlier process knew binds, and is nobody's until it is confirmed.
        let named = Label::parse("d").unwrap();
        let knowing = Identity::new(ClusterId(3), named, Arc::clone(&all), Some("four".to_owned()));
        assert!(matches!(knowing.confirm("five"), Err(Failure::OtherCluster { known, .. }) if known == "four"));
        identity(4, "e").confirm("four").unwrap();
        knowing.confirm("four").unwrap();
        assert!(matches!(identity(5, "f").confirm("four"), Err(Failure::SameCluster { other, .. }) if other == "d"));
    }
}
