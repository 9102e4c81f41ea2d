//! What can go wrong.

use super::{MINUTE, Plan, SECOND, Time};
use crate::table::Random;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Nobody listens there any more.
    Dies { target: usize },
    /// From one cluster, nothing of another can be connected to. One way.
    Blind { from: usize, to: usize },
    /// The clusters in the mask and the others see nothing of each other: neither addresses nor APIs.
    Split { mask: u32 },
    /// A cluster's instances see nothing of the others, and nobody can read what is in it.
    CutOff { cluster: usize },
    /// A cluster's API is away, for everybody.
    ApiDown { cluster: usize },
    /// A cluster's API cannot be read from another one.
    ApiHidden { from: usize, to: usize },
    /// Nothing can be written.
    ReadOnly { cluster: usize },
    /// Reports are taken and lost.
    LosesWrites { cluster: usize },
    /// An instance reads a server that lags, and stands still.
    Stale { instance: usize, cluster: usize },
    /// What is read takes seconds.
    Slow { from: usize, to: usize },
    /// It runs again when it is over.
    Crash { instance: usize },
    /// Whoever may write in a cluster writes anything.
    Lies { cluster: usize },
}

impl Fault {
    /// Whether it keeps connections from one cluster to another's addresses from being made.
    pub fn blinds(&self, from: usize, to: usize) -> bool {
        match *self {
            Fault::Blind { from: f, to: t } => (f, t) == (from, to),
            Fault::Split { mask } => (mask >> from) & 1 != (mask >> to) & 1,
            Fault::CutOff { cluster } => cluster == from && from != to,
            _ => false,
        }
    }

    /// Whether it hides a cluster's API from another one, or from itself.
    pub fn hides_api(&self, from: usize, to: usize) -> bool {
        match *self {
            Fault::ApiDown { cluster } => cluster == to,
            Fault::ApiHidden { from: f, to: t } => (f, t) == (from, to),
            Fault::Split { mask } => (mask >> from) & 1 != (mask >> to) & 1,
            Fault::CutOff { cluster } => from != to && (cluster == from || cluster == to),
            _ => false,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incident {
    pub month: usize,
    /// From the beginning of its month.
    pub from: Time,
    pub until: Time,
    pub fault: Fault,
    /// Nothing else happens in its month.
    pub is_alone: bool,
}

impl Plan {
    /// So many months of a federation, by chance.
    pub fn random(seed: u64, months: usize) -> Plan {
        let mut random = Random::new(seed);
        let mut below = move |n: u64| random.draw() % n;
        let clusters = 2 + below(6) as usize;
        let replicas: Vec<usize> = (0..clusters).map(|_| 1 + below(3) as usize).collect();
        // Where the service is a small part of what there is, all of it may die.
        let (addresses, others) = if below(3) == 0 { (1, 4) } else { (1 + below(4) as usize, 0) };
        let (targets, instances) = (clusters * (addresses + others), replicas.iter().sum::<usize>());
        let mut incidents = Vec::new();
        for month in 0..months {
            let mut push = |from, until, fault, is_alone| {
                incidents.push(Incident { month, from, until, fault, is_alone });
            };
            let any = |below: &mut dyn FnMut(u64) -> u64| below(clusters as u64) as usize;
            match below(10) {
                // One address, and nothing else.
                0 | 1 => {
                    let target = below(targets as u64) as usize;
                    push(SECOND, 90 * SECOND + below(MINUTE), Fault::Dies { target }, true);
                }
                // One cluster is on its own for long.
                2 => {
                    let cluster = any(&mut below);
                    // What is Down when it happens is what it is about.
                    let target = below(targets as u64) as usize;
                    push(0, 40 * SECOND + below(MINUTE), Fault::Dies { target }, false);
                    push(25 * SECOND, 7 * MINUTE + below(2 * MINUTE), Fault::CutOff { cluster }, false);
                }
                // An address comes and goes.
                3 => {
                    let target = below(targets as u64) as usize;
                    let on = 5 * SECOND + below(25 * SECOND);
                    // Just long enough to be believed each time, or by chance.
                    let patient = below(2) == 0;
                    let mut from = SECOND;
                    for n in 0..8 {
                        push(from, from + on, Fault::Dies { target }, false);
                        let believed = 25 * SECOND + 10 * SECOND * 4u64.pow(n.min(2));
                        from += on + if patient { believed } else { 5 * SECOND + below(25 * SECOND) };
                    }
                }
                // Many at once, or all of a small service.
                4 => {
                    let until = MINUTE + below(2 * MINUTE);
                    for target in 0..targets {
                        let is_of_service = target % (addresses + others) < addresses;
                        if if others > 0 { is_of_service } else { below(2) == 0 } {
                            push(SECOND + below(70 * SECOND), until + 80 * SECOND, Fault::Dies { target }, false);
                        }
                    }
                }
                _ => {
                    for _ in 0..1 + below(5) {
                        let from = below(90 * SECOND);
                        let until = from + 5 * SECOND + below(3 * MINUTE);
                        let (cluster, to) = (any(&mut below), any(&mut below));
                        let instance = below(instances as u64) as usize;
                        let fault = match below(13) {
                            0 | 1 => Fault::Dies { target: below(targets as u64) as usize },
                            2 => Fault::Blind { from: cluster, to },
                            3 => Fault::Split { mask: below(1 << clusters) as u32 },
                            4 => Fault::CutOff { cluster },
                            5 => Fault::ApiDown { cluster },
                            6 => Fault::ApiHidden { from: cluster, to },
                            7 => Fault::ReadOnly { cluster },
                            8 => Fault::LosesWrites { cluster },
                            9 => Fault::Stale { instance, cluster },
                            10 => Fault::Slow { from: cluster, to },
                            11 => Fault::Crash { instance },
                            _ => Fault::Lies { cluster },
                        };
                        push(from, until, fault, false);
                    }
                }
            }
        }
        Plan { seed, clusters, replicas, addresses, others, is_skewed: false, incidents, months }
    }

    /// For how many years of how many clusters it stands.
    pub fn cluster_years(&self) -> f64 {
        self.months as f64 / 12.0 * self.clusters as f64
    }
}
