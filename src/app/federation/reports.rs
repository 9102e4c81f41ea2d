//! What objects of the clusters say of their load, and until when it counts.
//!
//! Each counts from when it is first seen here, by our own clock: that of whoever wrote it may be wrong. A list that shows it again
//! makes it no younger.

use std::collections::{HashMap, HashSet};

use foldhash::quality::FixedState;

use crate::courtesy::give_way;
use crate::index::{Kind, Object, ObjectKey, Update};
use crate::load::{Loads, Origin, Subject};
use crate::model::{ClusterId, LoadReport, Moment};

/// The stamps of the reports that the clusters have, by the object's name.
#[derive(Debug, Default)]
pub struct Reports(HashMap<ClusterId, HashMap<ObjectKey, Seen, FixedState>>);

#[derive(Debug)]
struct Seen {
    subject: Subject,
    stamp: u64,
}

/// What an update came to.
#[derive(Debug, PartialEq, Eq)]
pub struct Taken {
    /// Of these something else is to be done now.
    pub changed: Vec<Subject>,
    /// The cluster said more than it may.
    pub refused: bool,
}

impl Reports {
    /// Enters an update of a kind of load.
    /// `limit`: of each cluster's objects.
    pub fn take(&mut self, cluster: ClusterId, update: Update, loads: &mut Loads, limit: usize, now: Moment) -> Taken {
        let known = self.0.entry(cluster).or_default();
        let mut changed = Vec::new();
        let mut refused = false;
        let mut enter = |known: &mut HashMap<ObjectKey, Seen, FixedState>, object: Object| {
            let key = object.key();
            let Object::Load(LoadReport { service, load, valid, stamp }) = object else { return };
            let subject = match service {
                Some(service) => Subject::Service(cluster, service),
                None => Subject::Cluster(cluster),
            };
            match known.get(&key) {
                Some(seen) if seen.stamp == stamp => return,
                None if known.len() >= limit => {
                    refused = true;
                    return;
                }
                Some(_) | None => {}
            }
            if loads.tell(&subject, load, Origin::Object { until: now + valid }, now) {
                changed.push(subject.clone());
            }
            known.insert(key, Seen { subject, stamp });
        };
        let mut gone = Vec::new();
        match update {
            Update::Apply(object) => enter(known, object),
            Update::Delete(_, key) => gone.push(key),
            Update::Reset { kind, objects, keep } => {
                let count = objects.len() + keep.len();
                let mut listed = HashSet::with_capacity_and_hasher(count, FixedState::default());
                listed.extend(keep);
                for object in &objects {
                    listed.insert(object.key());
                    give_way();
                }
                // Those of a cluster are in no namespace.
                let of_kind = |seen: &Seen| match seen.subject {
                    Subject::Service(..) => kind == Kind::ServiceLoad,
                    Subject::Cluster(_) => kind == Kind::ClusterLoad,
                };
                let missing = known.iter().filter(|(key, seen)| {
                    give_way();
                    of_kind(seen) && !listed.contains(*key)
                });
                gone.extend(missing.map(|(key, _)| key.clone()));
                for object in objects {
                    enter(known, object);
                    give_way();
                }
                // To free all of them at once takes longer than a query should wait.
                for key in listed {
                    drop(key);
                    give_way();
                }
            }
        }
        for key in gone {
            let Some(Seen { subject, .. }) = known.remove(&key) else { continue };
            if loads.tell(&subject, None, Origin::Object { until: now }, now) {
                changed.push(subject);
            }
        }
        Taken { changed, refused }
    }

    /// The same for other numbers of the clusters; `None`: that cluster is gone.
    pub fn renumbered(self, new: impl Fn(ClusterId) -> Option<ClusterId>) -> Reports {
        let of_cluster = |(id, known): (ClusterId, HashMap<ObjectKey, Seen, FixedState>)| {
            let id = new(id)?;
            let renumber = |seen: Seen| Seen {
                subject: match seen.subject {
                    Subject::Cluster(_) => Subject::Cluster(id),
                    Subject::Service(_, key) => Subject::Service(id, key),
                },
                ..seen
            };
            Some((id, known.into_iter().map(|(key, seen)| (key, renumber(seen))).collect()))
        };
        Reports(self.0.into_iter().filter_map(of_cluster).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::load::Rules;
    use crate::model::{Label, Load, ServiceKey};

    const C0: ClusterId = ClusterId(0);
    const C1: ClusterId = ClusterId(1);

    fn at(seconds: u64) -> Moment {
        Moment(Duration::from_secs(seconds))
    }

    /// Of the service, or with no name of the cluster: valid for 60 s.
    fn report(name: &str, part: f64, stamp: u64) -> Object {
        let label = |text| Label::parse(text).unwrap();
        let service = (!name.is_empty()).then(|| ServiceKey { namespace: label("ns"), name: label(name) });
        Object::Load(LoadReport { service, load: Load::new(part).ok(), valid: Duration::from_secs(60), stamp })
    }

    struct World {
        loads: Loads,
        reports: Reports,
    }

    impl World {
        fn new() -> World {
            World { loads: Loads::new(Rules::new(Duration::from_secs(1))), reports: Reports::default() }
        }

        fn say(&mut self, cluster: ClusterId, update: Update, second: u64) -> Taken {
            self.loads.tick(at(second));
            self.reports.take(cluster, update, &mut self.loads, 3, at(second))
        }

        fn list(&mut self, kind: Kind, objects: Vec<Object>, keep: Vec<ObjectKey>, second: u64) -> Taken {
            self.say(C0, Update::Reset { kind, objects, keep }, second)
        }

        fn load(&self, cluster: ClusterId, name: &str, second: u64) -> Option<f64> {
            let subject = match report(name, 0.0, 0) {
                Object::Load(LoadReport { service: Some(key), .. }) => Subject::Service(cluster, key),
                _ => Subject::Cluster(cluster),
            };
            self.loads.load(&subject, at(second)).map(Load::part)
        }
    }

    #[test]
    fn each_counts_from_when_it_was_first_seen() {
        let mut world = World::new();
        let taken = world.say(C0, Update::Apply(report("a", 1.0, 1)), 10);
        assert_eq!((taken.changed.len(), taken.refused), (1, false));
        assert_eq!(world.load(C0, "a", 69), Some(1.0));
        // The hourly list, and any other, shows what was seen before.
        world.list(Kind::ServiceLoad, vec![report("a", 1.0, 1)], vec![], 60);
        assert_eq!((world.load(C0, "a", 69), world.load(C0, "a", 70)), (Some(1.0), None));
        // Another measurement of the same load.
        world.say(C0, Update::Apply(report("a", 1.0, 2)), 65);
        assert_eq!((world.load(C0, "a", 124), world.load(C0, "a", 125)), (Some(1.0), None));
        world.list(Kind::ServiceLoad, vec![report("a", 1.0, 2)], vec![], 200);
        assert_eq!(world.load(C0, "a", 200), None, "what has expired stays so");
        assert_eq!(world.load(C1, "a", 66), None, "of another cluster nothing was said");
    }

    #[test]
    fn what_is_gone_or_no_load_is_unknown() {
        let mut world = World::new();
        let all = || vec![report("a", 0.9, 1), report("b", 0.9, 1)];
        world.list(Kind::ServiceLoad, all(), vec![], 0);
        world.list(Kind::ClusterLoad, vec![report("", 0.8, 1)], vec![], 0);
        assert_eq!(["a", "b", ""].map(|name| world.load(C0, name, 0)), [Some(0.9), Some(0.9), Some(0.8)]);
        world.say(C0, Update::Apply(report("a", f64::NAN, 2)), 1);
        assert_eq!(world.load(C0, "a", 1), None);
        world.say(C0, Update::Apply(report("a", 0.9, 3)), 2);
        // A list of one kind says nothing of the other; what could not be understood keeps what it said.
        world.list(Kind::ServiceLoad, vec![], vec![report("a", 0.0, 0).key()], 3);
        assert_eq!(["a", "b", ""].map(|name| world.load(C0, name, 3)), [Some(0.9), None, Some(0.8)]);
        world.say(C0, Update::Delete(Kind::ClusterLoad, report("", 0.0, 0).key()), 4);
        world.list(Kind::ServiceLoad, vec![], vec![], 4);
        assert_eq!(["a", "b", ""].map(|name| world.load(C0, name, 4)), [None; 3]);
    }

    #[test]
    fn no_more_than_the_limit_and_by_the_new_numbers() {
        let mut world = World::new();
        for (n, name) in ["a", "b", "c", "d"].into_iter().enumerate() {
            assert_eq!(world.say(C0, Update::Apply(report(name, 0.9, 1)), 0).refused, n == 3, "{name}");
        }
        assert!(!world.say(C0, Update::Apply(report("a", 0.8, 2)), 1).refused, "it is no new one");
        world.reports = std::mem::take(&mut world.reports).renumbered(|_| Some(C1));
        world.loads = std::mem::replace(&mut world.loads, Loads::new(Rules::new(Duration::from_secs(1))))
            .renumbered(Rules::new(Duration::from_secs(1)), |_| Some(C1));
        assert_eq!(world.load(C1, "a", 2), Some(0.8));
        world.say(C1, Update::Apply(report("a", 0.8, 2)), 50);
        assert_eq!(world.load(C1, "a", 61), None, "it is the one that was seen before");
        world.say(C1, Update::Delete(Kind::ServiceLoad, report("b", 0.0, 0).key()), 3);
        assert_eq!((world.load(C1, "b", 3), world.load(C1, "c", 3)), (None, Some(0.9)));
    }
}
