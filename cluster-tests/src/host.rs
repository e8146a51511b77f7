//! The main function of a node with an application of the tests' own.

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser as _;
use flotilla::config::{Args, Config};
use flotilla::limits;
use flotilla::node::Node;
use flotilla::scheduling::schedule;
use flotilla::server::Io;
use flotilla::telemetry;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

/// Runs a node with what `register` puts up, until SIGTERM; settings come as those of `flotilla` do.
pub fn main(register: fn(&Io)) -> ExitCode {
    match run(register) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // The harness shows the end of a node's log when the node dies.
            tracing::error!(%failure, "the node failed");
            ExitCode::FAILURE
        }
    }
}

fn run(register: fn(&Io)) -> Result<(), Box<dyn Error>> {
    let config = Config::load(&Args::parse())?;
    telemetry::start_log(&config.log)?;
    limits::raise_open_files();
    schedule(config.node.scheduling);
    let threads = config.node.threads();
    let runtime = Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let node = Node::start_with(Arc::new(config), register).await?;
        terminate.recv().await;
        Ok(node.drain().await?)
    })
}
