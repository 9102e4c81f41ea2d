//! Services that long lists changed and that are still to be compiled.

use std::collections::VecDeque;

use crate::model::{ClusterId, ServiceKey};

/// Several clusters that sync soon after one another mostly have the same services. One that waits here is compiled once,
/// with what all of them have said by then.
#[derive(Default)]
pub struct Backlog {
    jobs: VecDeque<Job>,
}

struct Job {
    /// In order, each once. What an earlier job still has to compile is left out.
    services: Vec<ServiceKey>,
    /// How many of them were taken.
    taken: usize,
    /// The cluster that has synced with them.
    synced: Option<ClusterId>,
}

impl Job {
    fn rest(&self) -> &[ServiceKey] {
        &self.services[self.taken..]
    }
}

impl Backlog {
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// `services`: in order, each once.
    pub fn add(&mut self, mut services: Vec<ServiceKey>, synced: Option<ClusterId>) {
        for job in &self.jobs {
            let mut rest = job.rest();
            services.retain(|key| {
                let before = rest.iter().take_while(|waiting| *waiting < key).count();
                rest = &rest[before..];
                rest.first() != Some(key)
            });
        }
        self.jobs.push_back(Job { services, taken: 0, synced });
    }

    /// The next services to compile, at most `count`; none, if they are followed by what [`finished`](Backlog::finished)
    /// gives.
    pub fn take(&mut self, count: usize) -> &[ServiceKey] {
        let Some(job) = self.jobs.front_mut() else { return &[] };
        let from = job.taken;
        job.taken = job.services.len().min(from + count);
        &job.services[from..job.taken]
    }

    /// To be asked when all that was taken is compiled: the clusters all of whose services now are.
    pub fn finished(&mut self) -> Vec<ClusterId> {
        let mut synced = Vec::new();
        while let Some(job) = self.jobs.pop_front_if(|job| job.rest().is_empty()) {
            synced.extend(job.synced);
        }
        synced
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Label;

    fn keys(numbers: impl IntoIterator<Item = u32>) -> Vec<ServiceKey> {
        let label = |text: &str| Label::parse(text).unwrap();
        numbers.into_iter().map(|n| ServiceKey { namespace: label("ns"), name: label(&format!("s{n:03}")) }).collect()
    }

    #[test]
    fn each_service_once_and_a_cluster_after_all_of_its() {
        let mut backlog = Backlog::default();
        assert!(backlog.is_empty());
        backlog.add(keys(0..10), Some(ClusterId(0)));
        assert_eq!(backlog.take(4), keys(0..4));
        assert_eq!(backlog.finished(), []);
        // The first three were compiled without it, the others wait already.
        backlog.add(keys([1, 2, 3, 4, 9, 10]), Some(ClusterId(1)));
        backlog.add(keys(3..12), None);
        backlog.add(keys(5..8), Some(ClusterId(2)));
        assert_eq!(backlog.take(100), keys(4..10));
        assert_eq!(backlog.finished(), [ClusterId(0)]);
        assert_eq!(backlog.take(3), keys(1..4));
        assert_eq!(backlog.finished(), []);
        assert_eq!(backlog.take(3), keys([10]));
        assert_eq!(backlog.finished(), [ClusterId(1)]);
        // What waits no more is compiled again.
        backlog.add(keys(10..12), Some(ClusterId(3)));
        assert_eq!(backlog.take(3), keys([11]));
        // The third cluster's services all were compiled before.
        assert_eq!(backlog.finished(), [ClusterId(2)]);
        assert_eq!(backlog.take(3), keys([10]));
        assert_eq!(backlog.finished(), [ClusterId(3)]);
        assert!(backlog.is_empty());
        assert_eq!(backlog.take(3), []);
    }
}
