//! A deliberate defect for each rule, in the code that the program runs, and the proof that it is found.

use std::thread;

use super::rules::Broken;
use super::{DEFECT, Plan, World};

/// The rules of HEALTH.md, each of them broken in one line somewhere (`defect!`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Defect {
    /// Q1
    Quorum,
    /// Q2
    NoLoneRemoval,
    /// Q3
    NonEmpty,
    /// Q4
    OneClusterOneVote,
    /// Q5
    OwnVoice,
    /// Q6
    Freshness,
    /// Q7
    Monotone,
    /// Q8
    SkewFree,
    /// Q9
    Detection,
    /// Q10
    Recovery,
    /// Q11
    FlapBound,
    /// Q12
    Convergence,
    /// Q13
    Tie,
    /// Q14
    ApiNeutral,
    /// Q15
    Breaker,
    /// Q16
    FailOpen,
    /// Q17
    Deterministic,
}

impl Defect {
    pub const ALL: [Defect; 17] = [
        Defect::Quorum,
        Defect::NoLoneRemoval,
        Defect::NonEmpty,
        Defect::OneClusterOneVote,
        Defect::OwnVoice,
        Defect::Freshness,
        Defect::Monotone,
        Defect::SkewFree,
        Defect::Detection,
        Defect::Recovery,
        Defect::FlapBound,
        Defect::Convergence,
        Defect::Tie,
        Defect::ApiNeutral,
        Defect::Breaker,
        Defect::FailOpen,
        Defect::Deterministic,
    ];
}

/// Months of one run. Each begins with a federation that knows nothing.
const MONTHS: usize = 24;

/// What one plan came to.
struct Outcome {
    result: Result<(), Broken>,
    verdicts: Vec<(u64, usize, usize, crate::health::Health)>,
    trace: Vec<String>,
}

fn run(plan: &Plan) -> Outcome {
    let mut world = World::new(plan.clone());
    let result = world.run();
    Outcome { result, verdicts: std::mem::take(&mut world.verdicts), trace: world.trace.into() }
}

/// Runs a plan with all checks. `twice`: those too that compare two runs.
fn check(plan: &Plan, twice: bool) -> Result<(), (Broken, Vec<String>)> {
    let Outcome { result, verdicts, trace } = run(plan);
    result.map_err(|broken| (broken, trace.clone()))?;
    if !twice {
        return Ok(());
    }
    let again = run(plan);
    if again.verdicts != verdicts {
        let what = "the same seed came to something else".to_owned();
        return Err((Broken { rule: Defect::Deterministic, what }, again.trace));
    }
    let skewed = run(&Plan { is_skewed: true, ..plan.clone() });
    if skewed.result.is_err() || skewed.verdicts != verdicts {
        let what = "with clocks that are wrong it came to something else".to_owned();
        return Err((Broken { rule: Defect::SkewFree, what }, skewed.trace));
    }
    Ok(())
}

/// The same failure with as few incidents as it takes.
fn shortened(plan: &Plan, rule: Defect) -> Plan {
    let twice = matches!(rule, Defect::SkewFree | Defect::Deterministic);
    let fails = |plan: &Plan| check(plan, twice).is_err_and(|(broken, _)| broken.rule == rule);
    let mut plan = plan.clone();
    // All that came after it, then whole months.
    while plan.months > 1 {
        let fewer = Plan { months: plan.months - 1, ..plan.clone() };
        if !fails(&fewer) {
            break;
        }
        plan = fewer;
    }
    for month in (0..plan.months).rev() {
        let mut fewer = plan.clone();
        fewer.incidents.retain(|incident| incident.month != month);
        if fewer.incidents.len() < plan.incidents.len() && fails(&fewer) {
            plan = fewer;
        }
    }
    let mut n = plan.incidents.len();
    while n > 0 {
        n -= 1;
        let mut fewer = plan.clone();
        fewer.incidents.remove(n);
        if fails(&fewer) {
            plan = fewer;
        }
    }
    plan
}

/// Runs so many cluster-years, from this seed on, on all cores.
fn years(first: u64, cluster_years: f64) {
    let cores = thread::available_parallelism().map_or(1, |cores| cores.get()) as u64;
    let done: Vec<(f64, u64)> = thread::scope(|scope| {
        let work = |worker: u64| {
            let (mut years, mut seed, mut changes) = (0.0, first + worker, 0);
            while years < cluster_years / cores as f64 {
                let plan = Plan::random(seed, MONTHS);
                // Of some it is looked at whether they come to the same again.
                if let Err((broken, _)) = check(&plan, seed.is_multiple_of(16)) {
                    eprintln!("seed {seed}: {:?}: {}; it is being shortened", broken.rule, broken.what);
                    let short = shortened(&plan, broken.rule);
                    let trace = check(&short, true).err().map(|(_, trace)| trace).unwrap_or_default();
                    panic!(
                        "seed {seed}: {:?}: {}\n{} clusters, replicas {:?}, {} addresses of the service and {} others each; enough for it:\n{:#?}\n{}",
                        broken.rule,
                        broken.what,
                        short.clusters,
                        short.replicas,
                        short.addresses,
                        short.others,
                        short.incidents,
                        trace.join("\n")
                    );
                }
                years += plan.cluster_years();
                changes += plan.incidents.len() as u64;
                seed += cores;
            }
            (years, changes)
        };
        let workers: Vec<_> = (0..cores).map(|worker| scope.spawn(move || work(worker))).collect();
        workers.into_iter().map(|worker| worker.join().expect("what is broken is in the panic above")).collect()
    });
    let (years, incidents) = done.iter().fold((0.0, 0), |(y, i), (years, incidents)| (y + years, i + incidents));
    eprintln!("{years:.0} cluster-years with {incidents} faults: every rule held");
}

fn seed() -> u64 {
    std::env::var("SIGNPOST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1)
}

#[test]
fn two_hundred_cluster_years() {
    years(seed(), 200.0);
}

#[test]
#[ignore = "ten thousand cluster-years take some minutes in a release build"]
fn ten_thousand_cluster_years() {
    years(seed(), 10_000.0);
}

#[test]
fn every_mutant_is_caught() {
    /// Seeds tried for each, the ones that once did it first.
    const TRIES: u64 = 60;
    const KNOWN: [u64; 7] = [1, 4, 6, 12, 13, 18, 45];
    let next = std::sync::Mutex::new(Defect::ALL.iter());
    let cores = thread::available_parallelism().map_or(1, |cores| cores.get());
    let mut caught = Vec::new();
    thread::scope(|scope| {
        let work = || {
            let mut caught = Vec::new();
            loop {
                let defect = next.lock().unwrap_or_else(std::sync::PoisonError::into_inner).next().copied();
                let Some(defect) = defect else { return caught };
                DEFECT.set(Some(defect));
                let twice = matches!(defect, Defect::SkewFree | Defect::Deterministic);
                // By its own rule; others may be broken beside it.
                let broken = |seed| check(&Plan::random(seed, 12), twice).err().map(|(broken, _)| broken);
                let found = KNOWN
                    .into_iter()
                    .chain(1..=TRIES)
                    .find_map(|seed| Some((seed, broken(seed).filter(|b| b.rule == defect)?.what)));
                DEFECT.set(None);
                caught.push((defect, found));
            }
        };
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        workers.into_iter().for_each(|worker| caught.extend(worker.join().expect("it does not panic")));
    });
    caught.sort_by_key(|(defect, _)| *defect);
    for (defect, found) in &caught {
        eprintln!("{defect:?}: {found:?}");
    }
    let missed: Vec<_> = caught.iter().filter(|(_, found)| found.is_none()).map(|(defect, _)| defect).collect();
    assert!(missed.is_empty(), "nobody noticed {missed:?}");
}
