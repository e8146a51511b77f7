//! The deterministic simulation: many seeds and no broken promise; and planted bugs, each of which
//! breaks one.
//!
//! `FLOTILLA_SIM_SEED=7 cargo test -p cluster-tests --test sim` replays one seed. `FLOTILLA_SIMULATE` names an
//! optimised build of `simulate`, which takes a twenty-fifth of the time.

#![allow(clippy::print_stderr, reason = "a seed that fails must be known")]

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::ops::RangeInclusive;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use cluster_tests::sim::{Answers, Coverage, FaultKind, Report, Returns, Violation};

const SEEDS: RangeInclusive<u64> = 1..=20;
/// Of an optimised build.
const MORE_SEEDS: RangeInclusive<u64> = 1..=60;

/// Built with the tests, its assertions included.
const PLAIN: &str = env!("CARGO_BIN_EXE_simulate");

fn optimised() -> Option<OsString> {
    env::var_os("FLOTILLA_SIMULATE")
}

fn seeds() -> RangeInclusive<u64> {
    let Some(seed) = env::var_os("FLOTILLA_SIM_SEED") else {
        return if optimised().is_some() { MORE_SEEDS } else { SEEDS };
    };
    let seed = seed.to_str().and_then(|text| text.parse().ok());
    let seed = seed.expect("FLOTILLA_SIM_SEED is a number");
    seed..=seed
}

fn run(seed: u64, options: &[&str]) -> Report {
    run_by(&optimised().unwrap_or_else(|| PLAIN.into()), seed, options)
}

/// Runs a simulation to its end, in a process of its own.
fn run_by(program: &OsStr, seed: u64, options: &[&str]) -> Report {
    let output = Command::new(program)
        .args(["--seed", &seed.to_string()])
        .args(options)
        .stderr(Stdio::inherit())
        .output()
        .expect("the simulation starts");
    assert!(output.status.success(), "seed {seed} ended with {}", output.status);
    let report: Report = serde_json::from_slice(&output.stdout).expect("a report is JSON");
    let Report { events, hash, violations, .. } = &report;
    let broken = violations.len();
    eprintln!("seed {seed}: {events} events, hash {hash:016x}, {broken} broken promises");
    report
}

/// As many beside each other as there are cores.
fn run_all(seeds: RangeInclusive<u64>) -> Vec<Report> {
    let next = AtomicU64::new(*seeds.start());
    let work = || {
        let mut reports = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if !seeds.contains(&seed) {
                return reports;
            }
            reports.push(run(seed, &[]));
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("it does not panic")).collect()
    })
}

#[test]
fn promises_hold_whatever_happens() {
    let reports = run_all(seeds());
    let mut coverage = Coverage::default();
    let mut answers = Answers::default();
    let mut returns = Returns::default();
    let mut broken = Vec::new();
    for report in &reports {
        if !report.violations.is_empty() {
            broken.push(report.seed);
        }
        for violation in report.violations.iter().take(20) {
            eprintln!("seed {}: {violation}", report.seed);
        }
        coverage.add(&report.coverage);
        answers.add(&report.answers);
        returns.add(&report.returns);
    }
    eprintln!("{coverage:?}, emits: {answers:?}, returns: {returns:?}");
    assert!(broken.is_empty(), "replay with FLOTILLA_SIM_SEED={broken:?}");
    if reports.len() == 1 {
        return;
    }
    // A series in which something never happened shows nothing about it.
    for kind in FaultKind::ALL {
        assert!(coverage.faults.contains_key(&kind), "{kind:?} never came up");
    }
    assert!(coverage.states_compared > 10_000, "only few states were compared");
    assert!(coverage.writes_lost > 0, "no crash came between a write and its sync");
    assert!(coverage.early_commits > 1_000, "followers were told what is committed");
    assert!(coverage.fences_checked > 0, "no node was without its peers for a lease");
    assert!(coverage.deaths_checked > 0, "no dead node's sockets were looked for");
    let Answers { agreed, refused, unknown } = answers;
    assert!(agreed > 10_000 && refused > 100 && unknown > 0, "an answer was never given");
    let Returns { recovered, refused, replayed, wasted } = returns;
    assert!(recovered > 500 && replayed > 500, "only few came back, or missed anything");
    assert!(refused > 10, "hardly anybody was away for too long");
    assert!(wasted > 100, "lost connections were noticed too soon");
}

#[test]
fn seed_repeats_its_history() {
    let seed = *seeds().start();
    let dir = tempfile::tempdir().expect("there is room for histories");
    let run_to = |program: &OsStr, name: &str, seed| {
        let path = dir.path().join(name);
        let path = path.to_str().expect("it is named in ASCII");
        let report = run_by(program, seed, &["--trouble-seconds", "10", "--history", path]);
        (report.hash, fs::read_to_string(path).expect("the history was written"))
    };
    // Whoever has compiled it.
    let (plain, other) = (OsString::from(PLAIN), optimised().unwrap_or_else(|| PLAIN.into()));
    let (one, first) = run_to(&plain, "one", seed);
    let (again, second) = run_to(&other, "again", seed);
    let differ = first.lines().zip(second.lines()).find(|(first, second)| first != second);
    assert_eq!(differ, None, "the first difference");
    assert_eq!(one, again);
    assert_ne!(one, run_to(&other, "another", seed + 1).0);
}

/// Runs seeds with a planted bug until one of them breaks a promise that `shows` it.
fn assert_is_found(bug: &str, shows: fn(&Violation) -> bool) {
    assert_is_found_within(45, bug, shows);
}

/// The same, where few faults are needed.
fn assert_is_found_within(trouble_seconds: u64, bug: &str, shows: fn(&Violation) -> bool) {
    let trouble = trouble_seconds.to_string();
    for seed in seeds() {
        let report = run(seed, &["--bug", bug, "--trouble-seconds", &trouble]);
        if let Some(violation) = report.violations.iter().find(|violation| shows(violation)) {
            eprintln!("{bug} is found by seed {seed}: {violation}");
            return;
        }
    }
    panic!("{bug} was not found");
}

#[test]
fn missing_dedup_is_found() {
    assert_is_found("no-dedup", |v| matches!(v, Violation::Doubled { .. }));
}

#[test]
fn missing_fence_is_found() {
    assert_is_found("no-fence", |v| matches!(v, Violation::NotFenced { .. }));
}

#[test]
fn replay_without_the_packet_at_the_seam_is_found() {
    let shows = |v: &Violation| matches!(v, Violation::Lost { .. } | Violation::Gap { .. });
    assert_is_found_within(5, "seam-left-out", shows);
}

#[test]
fn replay_with_the_packet_before_the_seam_is_found() {
    assert_is_found_within(5, "seam-repeated", |v| matches!(v, Violation::Doubled { .. }));
}

#[test]
fn owner_that_does_not_yield_is_found() {
    assert_is_found_within(5, "no-yield", |v| matches!(v, Violation::Shared { .. }));
}

#[test]
fn delivery_before_commit_is_found() {
    let shows =
        |v: &Violation| matches!(v, Violation::Undead { .. } | Violation::Disordered { .. });
    assert_is_found("delivery-before-commit", shows);
}
