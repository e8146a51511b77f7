//! What the benchmarks of the agreed state have in common: changes timed as they are applied, and memory.

use std::fs;
use std::hint::black_box;
use std::time::{Duration, Instant};

use flotilla::raft::state::{Applied, Change, NodeUp, Proposal, State, Verdict};

/// Changes to an entry; somebody looks at the state after each, which is the dearest case.
const BATCH: usize = 32;

/// A state, and one node that proposes all changes to it.
pub(crate) struct Bench {
    pub(crate) state: State,
    index: u64,
    seq: u64,
    applied: Vec<Applied>,
}

impl Bench {
    pub(crate) fn new(state: State) -> Self {
        let mut bench = Self { state, index: 0, seq: 0, applied: Vec::new() };
        bench.register(1);
        bench
    }

    /// The node starts, for the `boot`th time; what it had before is gone.
    pub(crate) fn register(&mut self, boot: u64) {
        let up =
            NodeUp { boot, name: "n1".into(), address: "127.0.0.1:1".into(), version: "0".into() };
        let changes = vec![Change::NodeUp(Box::new(up))];
        self.index += 1;
        let proposal = Proposal { node: 1, incarnation: 0, first_seq: 1, stamp_ms: 0, changes };
        self.state.apply(self.index, proposal, &mut self.applied);
    }

    /// Times the applying alone; each entry is made when it is wanted, so that the changes that
    /// wait do not count as the state's memory.
    pub(crate) fn run(&mut self, name: &str, mut changes: impl Iterator<Item = Change>) {
        let incarnation = self.state.alive(1).expect("the node is registered");
        let (mut elapsed, mut count) = (Duration::ZERO, 0);
        let mut view = self.state.clone();
        loop {
            let changes: Vec<Change> = changes.by_ref().take(BATCH).collect();
            if changes.is_empty() {
                break;
            }
            let first_seq = self.seq + 1;
            count += changes.len();
            self.seq += changes.len() as u64;
            self.index += 1;
            let proposal = Proposal { node: 1, incarnation, first_seq, stamp_ms: 0, changes };
            let start = Instant::now();
            self.applied.clear();
            let verdict = self.state.apply(self.index, proposal, &mut self.applied);
            assert_eq!(verdict, Verdict::Applied { skipped: 0 });
            // A reader keeps what it saw before until here.
            view = self.state.clone();
            elapsed += start.elapsed();
        }
        black_box(view);
        print_each(name, count, elapsed);
    }
}

/// Times `count` runs of `work`, which is told its number.
pub(crate) fn time(name: &str, count: usize, work: impl FnMut(usize)) {
    let start = Instant::now();
    (0..count).for_each(work);
    print_each(name, count, start.elapsed());
}

fn print_each(name: &str, count: usize, elapsed: Duration) {
    let seconds = elapsed.as_secs_f64();
    let (rate, micros) = (count as f64 / seconds, seconds * 1e6 / count as f64);
    println!("{name:32} {micros:>9.2} µs each, {rate:.0} a second");
}

/// The process's resident memory.
pub(crate) fn resident_bytes() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").expect("Linux shows a process its memory");
    let pages = statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<usize>().ok());
    pages.expect("the second number is the resident pages") * 4096
}
