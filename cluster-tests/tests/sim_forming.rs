//! The simulation of how a cluster forms: many seeds and always one cluster; and a planted bug that is found.
//!
//! `FLOTILLA_SIM_SEED=7 cargo test -p cluster-tests --test sim_forming` replays one seed.

#![allow(clippy::print_stderr, reason = "a seed that fails must be known")]

use std::env;
use std::ops::RangeInclusive;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use cluster_tests::sim::{Formed, Violation};

/// Each takes a fifth of a second.
const SEEDS: RangeInclusive<u64> = 1..=80;

fn seeds() -> RangeInclusive<u64> {
    let Some(seed) = env::var_os("FLOTILLA_SIM_SEED") else { return SEEDS };
    let seed = seed.to_str().and_then(|text| text.parse().ok());
    let seed = seed.expect("FLOTILLA_SIM_SEED is a number");
    seed..=seed
}

/// Forms one cluster, in a process of its own.
fn form(seed: u64, options: &[&str]) -> Formed {
    let output = Command::new(env!("CARGO_BIN_EXE_simulate"))
        .args(["--forming", "--seed", &seed.to_string()])
        .args(options)
        .stderr(Stdio::inherit())
        .output()
        .expect("the simulation starts");
    assert!(output.status.success(), "seed {seed} ended with {}", output.status);
    serde_json::from_slice(&output.stdout).expect("its report is JSON")
}

/// As many beside each other as there are cores.
fn form_all(seeds: RangeInclusive<u64>) -> Vec<Formed> {
    let next = AtomicU64::new(*seeds.start());
    let work = || {
        let numbers = std::iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed));
        let numbers = numbers.take_while(|seed| seeds.contains(seed));
        numbers.map(|seed| form(seed, &[])).collect::<Vec<_>>()
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("it does not panic")).collect()
    })
}

#[test]
fn machines_form_one_cluster_whatever_happens() {
    let all = form_all(seeds());
    for Formed { seed, violations, .. } in &all {
        for violation in violations {
            eprintln!("seed {seed}: {violation}");
        }
    }
    let broken: Vec<_> = all.iter().filter(|formed| !formed.violations.is_empty()).collect();
    let broken: Vec<_> = broken.into_iter().map(|formed| formed.seed).collect();
    assert!(broken.is_empty(), "replay with FLOTILLA_SIM_SEED={broken:?}");
    let longest_ms = all.iter().map(|formed| formed.ms).max();
    let deaths: usize = all.iter().map(|formed| formed.deaths).sum();
    let deaths_of_pledged: usize = all.iter().map(|formed| formed.deaths_of_pledged).sum();
    let latecomers = all.iter().filter(|formed| formed.has_latecomer).count();
    eprintln!(
        "formed after {longest_ms:?} ms at most, beside {deaths} deaths, {deaths_of_pledged} of \
         pledged machines; a fourth one joined {latecomers} times"
    );
    if all.len() == 1 {
        return;
    }
    // A series in which something never happened shows nothing about it.
    assert!(deaths > 30 && deaths_of_pledged > 5, "hardly anybody died while a cluster formed");
    assert!(latecomers > 5, "hardly ever one machine was left over");
}

#[test]
fn seed_repeats_its_forming() {
    let seed = *seeds().start();
    let formed = form(seed, &[]);
    assert_eq!(formed, form(seed, &[]));
    assert_ne!(formed.cluster, form(seed + 1, &[]).cluster);
}

/// A node that was met before it founded a cluster, to which others pledged themselves at once, seemed to have given
/// up, and those who had met it took back their pledges when it had begun already.
#[test]
fn pledge_that_is_read_too_late_is_found() {
    for seed in seeds() {
        let formed = form(seed, &["--bug", "pledge-read-late"]);
        let shows = |v: &&Violation| matches!(v, Violation::Unavailable { .. });
        if let Some(violation) = formed.violations.iter().find(shows) {
            eprintln!("it is found by seed {seed}: {violation}");
            return;
        }
    }
    panic!("it was not found");
}
