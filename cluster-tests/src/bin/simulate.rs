//! One simulation in a process of its own, which is what makes its seed repeat it.

#![expect(clippy::print_stdout, reason = "the report")]

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Parser, ValueEnum};
use cluster_tests::sim::{At, Forming, PlantedBug, Report, Run};

/// Simulates a cluster with faults, and prints what came of it as one line of JSON.
#[derive(Debug, Parser)]
#[command(name = "simulate")]
struct Arguments {
    #[arg(long)]
    seed: u64,
    /// Faults begin as long as this lasts, in simulated time.
    #[arg(long, default_value_t = 45)]
    trouble_seconds: u64,
    /// Only that a cluster forms, without clients, and with faults of its own.
    #[arg(long, conflicts_with_all = ["trouble_seconds", "history"])]
    forming: bool,
    /// A rule of ours that the machines leave out.
    #[arg(long)]
    bug: Option<Bug>,
    /// Where the history goes, one event in each line.
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Bug {
    NoDedup,
    NoFence,
    DeliveryBeforeCommit,
    SeamLeftOut,
    SeamRepeated,
    NoYield,
    PledgeReadLate,
}

impl From<Bug> for PlantedBug {
    fn from(bug: Bug) -> Self {
        match bug {
            Bug::NoDedup => Self::NoDedup,
            Bug::NoFence => Self::NoFence,
            Bug::DeliveryBeforeCommit => Self::DeliveryBeforeCommit,
            Bug::SeamLeftOut => Self::SeamLeftOut,
            Bug::SeamRepeated => Self::SeamRepeated,
            Bug::NoYield => Self::NoYield,
            Bug::PledgeReadLate => Self::PledgeReadLate,
        }
    }
}

fn main() -> io::Result<()> {
    let arguments = Arguments::parse();
    let (seed, bug) = (arguments.seed, arguments.bug.map(PlantedBug::from));
    if arguments.forming {
        println!("{}", serde_json::to_string(&Forming { seed, bug }.execute())?);
        return Ok(());
    }
    let run = Run { seed, trouble: Duration::from_secs(arguments.trouble_seconds), bug };
    let outcome = run.execute();
    if let Some(path) = &arguments.history {
        write_history(path, &outcome.history.events())?;
    }
    println!("{}", serde_json::to_string(&Report::new(seed, outcome))?);
    Ok(())
}

fn write_history(path: &Path, events: &[At]) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    for At { ms, event } in events {
        writeln!(file, "{ms} {event:?}")?;
    }
    file.flush()
}
