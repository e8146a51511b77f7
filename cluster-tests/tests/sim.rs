//! The deterministic simulation: many seeds and no broken promise; and planted bugs, each of which
//! breaks one.
//!
//! `FLOTILLA_SIM_SEED=7 cargo test -p cluster-tests --test sim` replays one seed.

#![allow(clippy::print_stderr, reason = "a seed that fails must be known")]

use std::env;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use cluster_tests::sim::{
    Answer, Coverage, Event, FaultKind, History, Outcome, PlantedBug, Run, Violation,
};

const SEEDS: RangeInclusive<u64> = 1..=20;

/// Of simulated time. Forming the cluster and coming to rest takes another twenty seconds.
const TROUBLE: Duration = Duration::from_secs(45);

fn seeds() -> RangeInclusive<u64> {
    let Some(seed) = env::var_os("FLOTILLA_SIM_SEED") else { return SEEDS };
    let seed = seed.to_str().and_then(|text| text.parse().ok());
    let seed = seed.expect("FLOTILLA_SIM_SEED is a number");
    seed..=seed
}

fn run(seed: u64, trouble: Duration, bug: Option<PlantedBug>) -> Outcome {
    let outcome = Run { seed, trouble, bug }.execute();
    let (events, hash) = (outcome.history.events().len(), outcome.history.hash());
    let broken = outcome.violations.len();
    eprintln!("seed {seed}: {events} events, hash {hash:016x}, {broken} broken promises");
    outcome
}

/// Each simulation has a thread to itself, and knows of no other.
fn run_all(seeds: RangeInclusive<u64>) -> Vec<(u64, Outcome)> {
    let next = AtomicU64::new(*seeds.start());
    let work = || {
        let mut outcomes = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if !seeds.contains(&seed) {
                return outcomes;
            }
            outcomes.push((seed, run(seed, TROUBLE, None)));
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("it does not panic")).collect()
    })
}

/// How many emits were answered so.
fn answers(history: &History, wanted: Answer) -> usize {
    let is_wanted =
        |event: &Event| matches!(event, Event::Emitted { answer, .. } if *answer == wanted);
    history.events().iter().filter(|at| is_wanted(&at.event)).count()
}

#[test]
fn promises_hold_whatever_happens() {
    let outcomes = run_all(seeds());
    let mut coverage = Coverage::default();
    let (mut agreed, mut refused, mut unknown) = (0, 0, 0);
    let mut broken = Vec::new();
    for (seed, outcome) in &outcomes {
        if !outcome.violations.is_empty() {
            broken.push(*seed);
        }
        for violation in outcome.violations.iter().take(20) {
            eprintln!("seed {seed}: {violation}");
        }
        coverage.add(&outcome.coverage);
        agreed += answers(&outcome.history, Answer::Agreed);
        refused += answers(&outcome.history, Answer::Refused);
        unknown += answers(&outcome.history, Answer::Unknown);
    }
    eprintln!("{coverage:?}, emits: {agreed} agreed, {refused} refused, {unknown} unknown");
    assert!(broken.is_empty(), "replay with FLOTILLA_SIM_SEED={broken:?}");
    if outcomes.len() == 1 {
        return;
    }
    // A series in which something never happened shows nothing about it.
    for kind in FaultKind::ALL {
        assert!(coverage.faults.contains_key(&kind), "{kind:?} never came up");
    }
    assert!(coverage.states_compared > 10_000, "only few states were compared");
    assert!(coverage.writes_lost > 0, "no crash came between a write and its sync");
    assert!(coverage.fences_checked > 0, "no node was without its peers for a lease");
    assert!(coverage.deaths_checked > 0, "no dead node's sockets were looked for");
    assert!(agreed > 10_000 && refused > 100 && unknown > 0, "an answer was never given");
}

#[test]
fn seed_repeats_its_history() {
    let seed = *seeds().start();
    let run = |seed| run(seed, Duration::from_secs(10), None).history;
    let (one, again) = (run(seed), run(seed));
    let differ = one.events().iter().zip(&again.events()).position(|(one, again)| one != again);
    assert_eq!(differ, None, "the place of the first difference");
    assert_eq!(one.hash(), again.hash());
    assert_ne!(one.hash(), run(seed + 1).hash());
}

/// Runs seeds with a planted bug until one of them breaks a promise that `shows` it.
fn assert_is_found(bug: PlantedBug, shows: fn(&Violation) -> bool) {
    for seed in seeds() {
        let outcome = run(seed, TROUBLE, Some(bug));
        if let Some(violation) = outcome.violations.iter().find(|violation| shows(violation)) {
            eprintln!("{bug:?} is found by seed {seed}: {violation}");
            return;
        }
    }
    panic!("{bug:?} was not found");
}

#[test]
fn missing_dedup_is_found() {
    assert_is_found(PlantedBug::NoDedup, |v| matches!(v, Violation::Doubled { .. }));
}

#[test]
fn missing_fence_is_found() {
    assert_is_found(PlantedBug::NoFence, |v| matches!(v, Violation::NotFenced { .. }));
}

#[test]
fn delivery_before_commit_is_found() {
    let shows =
        |v: &Violation| matches!(v, Violation::Undead { .. } | Violation::Disordered { .. });
    assert_is_found(PlantedBug::DeliveryBeforeCommit, shows);
}
