//! `make bench`: puts load on a running cluster, or on one of its own, and reports what it costs.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command's report")]

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use cluster_tests::bench::{self, Plan, Report, SCENARIOS};
use cluster_tests::cluster::Cluster;
use cluster_tests::{limits, nodes_file};
use tokio::task::LocalSet;

/// Measures deliveries, latencies, losses and server CPU of Socket.IO servers that implement the
/// relay application: echo, join, leave, bcast, room, dm.
#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Arguments {
    /// The nodes of a running cluster, as `make cluster` writes them.
    #[arg(long, value_name = "FILE", default_value = "target/cluster/nodes.json")]
    nodes_json: PathBuf,
    /// Starts a cluster of this many nodes for the run, instead.
    #[arg(long, value_name = "NODES", conflicts_with = "urls")]
    start: Option<usize>,
    /// The program that --start starts; by default the build beside this one.
    #[arg(long, value_name = "PATH", requires = "start")]
    flotilla: Option<PathBuf>,
    /// Measures these servers, instead: http://host:port,…
    #[arg(long, value_delimiter = ',', value_name = "URL,…")]
    urls: Vec<String>,
    /// The processes of the servers given by --urls, for their CPU time and memory.
    #[arg(long, value_delimiter = ',', value_name = "PID,…", requires = "urls")]
    pids: Vec<u32>,
    /// The namespace: / or /relay-direct.
    #[arg(long, default_value = "/")]
    namespace: String,
    /// Expects no common order of all receivers: the namespace has direct delivery.
    #[arg(long)]
    direct: bool,
    /// How many clients, instead of each scenario's own number.
    #[arg(long)]
    clients: Option<usize>,
    /// How long each scenario is measured.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// How long each scenario runs before it is measured.
    #[arg(long, default_value_t = 1.0)]
    warm_up: f64,
    /// The least length of a message.
    #[arg(long, default_value_t = 32)]
    payload_bytes: usize,
    /// Scenarios, or `all`: idle, connect, echo, bcast, bcast-max, burst, room, rooms-max, dm, join.
    #[arg(long, value_delimiter = ',', default_value = "all", value_name = "NAME,…")]
    scenario: Vec<String>,
    /// Writes the figures to this file, too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    limits::raise_open_files();
    // One thread: the generator shares the machine with the servers that it measures.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime can be built");
    match LocalSet::new().block_on(&runtime, run(&arguments)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("messages were lost, doubled, out of order or refused");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::from(2)
        }
    }
}

// Whether every scenario was clean.
async fn run(arguments: &Arguments) -> io::Result<bool> {
    let (plan, _cluster) = plan(arguments).await?;
    let mut report =
        Report { urls: plan.urls.clone(), namespace: plan.namespace.clone(), rows: Vec::new() };
    println!("{} server(s), namespace {}", plan.urls.len(), plan.namespace);
    println!("{}", bench::HEAD);
    for scenario in chosen(&arguments.scenario) {
        let row = bench::run(scenario, &plan).await;
        let row = row.map_err(|error| io::Error::other(format!("{scenario}: {error}")))?;
        println!("{row}");
        report.rows.push(row);
    }
    if let Some(path) = &arguments.json {
        std::fs::write(path, serde_json::to_vec_pretty(&report).map_err(io::Error::other)?)?;
    }
    Ok(report.rows.iter().all(bench::Row::is_clean))
}

fn chosen(names: &[String]) -> Vec<&str> {
    if names.iter().any(|name| name == "all") {
        return SCENARIOS.iter().map(|(name, _what)| *name).collect();
    }
    names.iter().map(String::as_str).collect()
}

// The cluster, if the run has one of its own, lives as long as it is kept.
async fn plan(arguments: &Arguments) -> io::Result<(Plan, Option<Cluster>)> {
    let mut cluster = None;
    let (urls, pids) = if !arguments.urls.is_empty() {
        (arguments.urls.clone(), arguments.pids.clone())
    } else {
        let entries = if let Some(nodes) = arguments.start {
            let mut builder = Cluster::builder(nodes);
            if let Some(binary) = &arguments.flotilla {
                builder = builder.binary(binary.clone());
            }
            cluster.insert(builder.start().await).entries()
        } else {
            let named =
                |error| io::Error::other(format!("{}: {error}", arguments.nodes_json.display()));
            nodes_file::read(&arguments.nodes_json).map_err(named)?
        };
        entries.into_iter().map(|entry| (entry.url, entry.pid)).unzip()
    };
    let plan = Plan {
        urls,
        pids,
        namespace: arguments.namespace.clone(),
        one_order: !arguments.direct && arguments.namespace != "/relay-direct",
        clients: arguments.clients,
        measured: Duration::from_secs_f64(arguments.seconds),
        warm_up: Duration::from_secs_f64(arguments.warm_up),
        payload_bytes: arguments.payload_bytes,
    };
    Ok((plan, cluster))
}
