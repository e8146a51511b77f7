//! Reads the settings, starts the node, waits for a signal, drains.

use std::error::Error;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use flotilla::config::{Args, Command, Config, ConfigError};
use flotilla::node::Node;
use flotilla::scheduling::schedule;
use flotilla::{limits, raft, telemetry};
use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::info;

/// A tenth less CPU than the system's where many small packets go round, for the same memory (docs/performance.md).
#[cfg(all(feature = "jemalloc", not(target_env = "msvc")))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

type Failure = Box<dyn Error>;

fn main() -> ExitCode {
    let args = Args::parse();
    let result = match &args.command {
        Some(Command::Inspect { data_dir }) => inspect(data_dir),
        None if args.check_config => check_config(&args),
        None => run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            report(&*failure);
            ExitCode::from(if failure.is::<ConfigError>() { 2 } else { 1 })
        }
    }
}

fn inspect(data_dir: &Path) -> Result<(), Failure> {
    let runtime = Builder::new_current_thread().build()?;
    let state = runtime.block_on(raft::inspect(data_dir))?;
    Ok(writeln!(io::stdout(), "{:#}", state.dump())?)
}

fn check_config(args: &Args) -> Result<(), Failure> {
    Config::load(args)?;
    Ok(writeln!(io::stdout(), "the settings are right")?)
}

fn run(args: &Args) -> Result<(), Failure> {
    let config = Config::load(args)?;
    telemetry::start_log(&config.log)?;
    limits::raise_open_files();
    schedule(config.node.scheduling);
    let threads = config.node.threads();
    let mut runtime = Builder::new_multi_thread();
    runtime.worker_threads(threads).thread_name("clients").enable_all();
    // A thread that is alone runs its tasks in order: all that read, then all that answer, which finds more of each
    // kind's code and data in the caches. Several would wake one another for what they put into their queues.
    #[cfg(tokio_unstable)]
    if threads == 1 {
        runtime.disable_lifo_slot();
    }
    runtime.build()?.block_on(serve(config))
}

async fn serve(config: Config) -> Result<(), Failure> {
    let mut stop = Stop::new()?;
    let node = tokio::select! {
        started = Node::start(Arc::new(config)) => started?,
        () = stop.asked() => return Ok(()),
    };
    let failure = tokio::select! {
        () = stop.asked() => None,
        () = node.drain_requested() => None,
        reason = node.failed() => Some(reason),
    };
    info!("draining");
    let drained = tokio::select! {
        drained = node.drain() => drained,
        // Whoever asks twice does not want to wait.
        () = stop.asked() => return Err("stopped before it had drained".into()),
    };
    match failure {
        // The cause of whatever else did not go well.
        Some(reason) => Err(format!("a part of the node failed: {reason}").into()),
        None => Ok(drained?),
    }
}

/// SIGTERM and SIGINT (Ctrl-C).
struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    fn new() -> io::Result<Self> {
        let (terminate, interrupt) = (SignalKind::terminate(), SignalKind::interrupt());
        Ok(Self { terminate: signal(terminate)?, interrupt: signal(interrupt)? })
    }

    /// Cancel-safe.
    async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Tells the operator, who may have no log yet, what is wrong and why.
fn report(failure: &dyn Error) {
    let mut text = failure.to_string();
    for cause in std::iter::successors(failure.source(), |&cause| cause.source()) {
        text.push_str(&format!(": {cause}"));
    }
    // There is nowhere left to tell of it, should this fail.
    let _ = writeln!(io::stderr(), "flotilla: {text}");
}
