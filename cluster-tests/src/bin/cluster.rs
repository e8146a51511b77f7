//! `make cluster`: starts nodes on this machine, watches over them, and stops them all.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command's progress and report")]

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use clap::builder::RangedU64ValueParser;
use clap::{Parser, ValueEnum, value_parser};
use cluster_tests::cluster::Cluster;
use cluster_tests::follow::Follower;
use cluster_tests::nodes_file::{self, NodeEntry};
use cluster_tests::{limits, process};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

/// How long the nodes may take to become one cluster.
const START_PATIENCE: Duration = Duration::from_secs(120);

const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How much of a dead node's log is shown.
const TAIL_LINES: usize = 20;

/// Starts a cluster of Flotilla nodes on this machine and stops it on Ctrl-C.
#[derive(Debug, Parser)]
#[command(name = "cluster")]
struct Arguments {
    /// How many nodes, from 1 to 100.
    #[arg(long, default_value_t = 3, value_parser = RangedU64ValueParser::<usize>::new().range(1..=100))]
    nodes: usize,
    /// The first node's port for clients; the admin ports are 1000, the gRPC ports 2000 above.
    #[arg(long, default_value_t = 3001, value_parser = value_parser!(u16).range(1..=63_000))]
    port: u16,
    /// How messages of the namespace / are delivered.
    #[arg(long)]
    delivery: Option<Delivery>,
    /// The program to start; by default the build beside this one.
    #[arg(long, value_name = "PATH")]
    flotilla: Option<PathBuf>,
    /// Where the client bundle lies: the directory dist of npm's socket.io-client.
    #[arg(long, value_name = "DIR")]
    client_dir: Option<PathBuf>,
    /// Settings that all nodes share.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where configs, logs, data and nodes.json go; with --exec, a temporary directory unless given.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Starts with the data that an earlier run left.
    #[arg(long)]
    keep: bool,
    /// Runs this command against the cluster, at free ports, with FLOTILLA_NODES naming its
    /// nodes.json; stops the cluster then, and exits as the command did. Takes all that follows.
    #[arg(long, value_name = "CMD", num_args = 1.., allow_hyphen_values = true)]
    exec: Vec<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Delivery {
    Replicated,
    Direct,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    limits::raise_open_files();
    match run(&arguments).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("cluster: {error}");
            ExitCode::from(2)
        }
    }
}

async fn run(arguments: &Arguments) -> io::Result<ExitCode> {
    let mut stop = StopSignals::listen()?;
    // Removed at the end of this function, after the nodes have stopped.
    let temporary = (arguments.dir.is_none() && !arguments.exec.is_empty())
        .then(tempfile::tempdir)
        .transpose()?;
    let directory = match (&arguments.dir, &temporary) {
        (Some(directory), _) => directory.clone(),
        (None, Some(temporary)) => temporary.path().to_owned(),
        (None, None) => PathBuf::from("target/cluster"),
    };
    let cluster = prepare(arguments, &directory)?;
    let mut watched = Watched::start(cluster);
    // A terminal's Ctrl-C reaches the command, too, which may end before we have heard of it.
    let (code, asked) = tokio::select! {
        biased;
        () = stop.wait() => (ExitCode::SUCCESS, true),
        code = watched.serve(arguments, &directory) => (code?, false),
    };
    let impatience = async {
        if !asked {
            stop.wait().await;
        }
        stop.wait().await;
    };
    println!("stopping {} nodes …", watched.cluster.running().len());
    tokio::select! {
        stuck = watched.cluster.stop() => for id in stuck {
            eprintln!("{id} did not end in time and was killed");
        },
        // A second Ctrl-C: dropping the cluster kills what is left.
        () = impatience => eprintln!("killing the nodes"),
    }
    Ok(code)
}

fn prepare(arguments: &Arguments, directory: &Path) -> io::Result<Cluster> {
    std::fs::create_dir_all(directory)?;
    // Nodes are started with their paths, and tools restart them from wherever they are.
    let directory = directory.canonicalize()?;
    if !arguments.keep {
        remove_data(&directory, arguments.nodes)?;
    }
    let mut builder = Cluster::builder(arguments.nodes).directory(directory);
    if let Some(config) = &arguments.config {
        let named = |error: &dyn std::fmt::Display| {
            io::Error::other(format!("{}: {error}", config.display()))
        };
        let text = std::fs::read_to_string(config).map_err(|error| named(&error))?;
        builder = builder.base(text.parse().map_err(|error: toml::de::Error| named(&error))?);
    }
    if let Some(delivery) = arguments.delivery {
        let delivery = match delivery {
            Delivery::Replicated => "replicated",
            Delivery::Direct => "direct",
        };
        builder = builder.setting(&["namespaces", "/", "delivery"], delivery);
    }
    if let Some(client_dir) = &arguments.client_dir {
        let client_dir = client_dir.canonicalize().unwrap_or_else(|_missing| client_dir.clone());
        let client_dir = client_dir.display().to_string();
        builder = builder.setting(&["socketio", "client_dir"], client_dir);
    }
    if let Some(flotilla) = &arguments.flotilla {
        builder = builder.binary(flotilla.canonicalize()?);
    }
    if arguments.exec.is_empty() {
        builder = builder.first_port(arguments.port);
    }
    builder.prepare()
}

fn remove_data(directory: &Path, nodes: usize) -> io::Result<()> {
    for index in 1..=nodes {
        match std::fs::remove_dir_all(directory.join(format!("n{index}"))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// A cluster whose logs and deaths are reported.
struct Watched {
    cluster: Cluster,
    followers: Vec<(String, Follower)>,
}

impl Watched {
    fn start(mut cluster: Cluster) -> Self {
        let mut followers = Vec::new();
        for id in cluster.ids() {
            cluster.start_node(&id);
            followers.push((id.clone(), Follower::new(cluster.log(&id))));
        }
        Self { cluster, followers }
    }

    // Returns when the command has ended or the cluster cannot start; else it serves for ever.
    async fn serve(&mut self, arguments: &Arguments, directory: &Path) -> io::Result<ExitCode> {
        if let Err(reason) = self.wait_ready().await {
            self.report();
            eprintln!("no cluster: {reason}");
            return Ok(ExitCode::FAILURE);
        }
        let list = directory.join("nodes.json").canonicalize();
        let list = list.unwrap_or_else(|_new| directory.join("nodes.json"));
        nodes_file::write(&list, &self.cluster.entries())?;
        println!("{}", addresses(&self.cluster.entries(), &list));
        if arguments.exec.is_empty() {
            println!("Ctrl-C stops all nodes.");
            loop {
                self.look().await;
            }
        }
        let mut command = tokio::process::Command::new(&arguments.exec[0]);
        command.args(&arguments.exec[1..]).env("FLOTILLA_NODES", std::path::absolute(&list)?);
        let mut child = command.kill_on_drop(true).spawn()?;
        loop {
            tokio::select! {
                status = child.wait() => return Ok(exit_code(status?)),
                _deaths = self.look() => {}
            }
        }
    }

    async fn wait_ready(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + START_PATIENCE;
        let mut told: HashMap<String, String> = HashMap::new();
        loop {
            let mut waiting = 0;
            for id in self.cluster.ids() {
                let state = match self.cluster.ready(&id).await {
                    Ok(()) => "ready".to_owned(),
                    Err(reason) => {
                        waiting += 1;
                        format!("waiting: {reason}")
                    }
                };
                if told.get(&id) != Some(&state) {
                    println!("{id} {state}");
                    told.insert(id, state);
                }
            }
            if waiting == 0 {
                return Ok(());
            }
            if self.look().await > 0 {
                return Err("a node ended while it started".to_owned());
            }
            if Instant::now() > deadline {
                return Err(format!("{waiting} nodes were not ready after {START_PATIENCE:?}"));
            }
        }
    }

    // Waits a moment, reports what happened since the last look, and says how many nodes died.
    async fn look(&mut self) -> usize {
        tokio::time::sleep(LOOK_EVERY).await;
        self.report()
    }

    fn report(&mut self) -> usize {
        for (id, follower) in &mut self.followers {
            for line in follower.news() {
                eprintln!("{id} | {line}");
            }
        }
        let ended = self.cluster.take_ended();
        for (id, status) in &ended {
            eprintln!("{id} ended ({status}); its last words:");
            for line in process::log_tail(&self.cluster.log(id), TAIL_LINES).lines() {
                eprintln!("{id} |   {line}");
            }
        }
        ended.len()
    }
}

fn addresses(entries: &[NodeEntry], list: &Path) -> String {
    let count = match entries.len() {
        1 => "One node is ready.".to_owned(),
        several => format!("{several} nodes are one cluster."),
    };
    let mut text =
        format!("\n{count}\n\n  {:<6}{:<32}{:<32}peers\n", "node", "clients, chat page", "admin");
    for NodeEntry { id, url, admin, grpc, .. } in entries {
        text.push_str(&format!("  {id:<6}{url:<32}{admin:<32}{grpc}\n"));
    }
    text.push_str(&format!("\nFor tools: {}; logs and data lie beside it.", list.display()));
    text
}

// A command that a signal ended has no code of its own; shells say 128 and the signal's number.
fn exit_code(status: ExitStatus) -> ExitCode {
    use std::os::unix::process::ExitStatusExt;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

/// Ctrl-C in a terminal, or SIGTERM.
struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignals {
    fn listen() -> io::Result<Self> {
        let interrupt = signal(SignalKind::interrupt())?;
        Ok(Self { interrupt, terminate: signal(SignalKind::terminate())? })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
