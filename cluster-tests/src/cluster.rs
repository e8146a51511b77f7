//! A cluster of real `flotilla` processes: started, killed, restarted and asked from outside.

mod binary;
mod builder;

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use toml::Table;

use crate::client::{Client, ConnectError};
use crate::metrics::Metrics;
use crate::nodes_file::NodeEntry;
use crate::process::{self, Process};
use crate::proxy::Links;
use crate::settings::NodeSettings;
use crate::{http, wait};

use builder::Addresses;
pub use builder::Builder;

/// How long a node may take to drain after SIGTERM before it counts as stuck.
pub const DRAIN_PATIENCE: Duration = Duration::from_secs(30);

/// How much of each log a failure's message shows.
const TAIL_LINES: usize = 25;

/// Nodes on this machine, named `n1`, `n2`, … Dropping the cluster kills them all.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Node>,
    binary: PathBuf,
    directory: PathBuf,
    base: Table,
    bootstrap_expect: usize,
    links: Option<Links>,
    // Removed, with the data of all nodes, when the cluster is dropped.
    _temporary: Option<TempDir>,
}

#[derive(Debug)]
struct Node {
    settings: NodeSettings,
    config: PathBuf,
    process: Option<Process>,
}

impl Node {
    fn command(&self, binary: &Path) -> Vec<String> {
        [binary, Path::new("--config"), &self.config]
            .map(|part| part.display().to_string())
            .to_vec()
    }
}

impl Cluster {
    /// A cluster of `nodes` nodes with the relay application and default settings.
    pub async fn start(nodes: usize) -> Self {
        Self::builder(nodes).start().await
    }

    pub fn builder(nodes: usize) -> Builder {
        // What the consensus library tells about each vote would hide what the node has to say.
        let filter = "info,openraft=error";
        Builder::new(nodes).setting(&["apps"], vec!["relay"]).setting(&["log", "filter"], filter)
    }

    /// All nodes that were ever started or prepared, dead ones too.
    pub fn ids(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.settings.name.clone()).collect()
    }

    /// The nodes whose process runs.
    pub fn running(&self) -> Vec<String> {
        let running = self.nodes.iter().filter(|node| node.process.is_some());
        running.map(|node| node.settings.name.clone()).collect()
    }

    /// Where clients connect to this node.
    pub fn url(&self, id: &str) -> String {
        format!("http://{}", self.node(id).settings.listen)
    }

    /// Where this node's own gRPC port is, behind its proxy if it has one.
    pub fn grpc(&self, id: &str) -> SocketAddr {
        self.node(id).settings.cluster
    }

    pub fn data_dir(&self, id: &str) -> &Path {
        &self.node(id).settings.data_dir
    }

    /// The argument list that starts this node.
    pub fn command(&self, id: &str) -> Vec<String> {
        self.node(id).command(&self.binary)
    }

    /// The faults between the nodes.
    ///
    /// # Panics
    ///
    /// When the cluster was not built with [`Builder::proxied`].
    pub fn links(&self) -> &Links {
        self.links.as_ref().expect("faults need a cluster that was built with `proxied`")
    }

    /// The running process of a node.
    pub fn process(&mut self, id: &str) -> &mut Process {
        let process = self.node_mut(id).process.as_mut();
        process.unwrap_or_else(|| panic!("{id} does not run"))
    }

    /// The entries of `nodes.json`. All nodes must run.
    pub fn entries(&self) -> Vec<NodeEntry> {
        let entry = |node: &Node| NodeEntry {
            id: node.settings.name.clone(),
            url: format!("http://{}", node.settings.listen),
            admin: format!("http://{}", node.settings.admin),
            grpc: node.settings.cluster.to_string(),
            pid: node.process.as_ref().expect("the node runs").pid(),
            cmd: node.command(&self.binary),
        };
        self.nodes.iter().map(entry).collect()
    }

    /// Starts a node that does not run, with the data it has, and does not wait for it.
    pub fn start_node(&mut self, id: &str) {
        self.write_config(id);
        let command = self.command(id);
        let log = self.log(id);
        let node = self.node_mut(id);
        assert!(node.process.is_none(), "{id} runs already");
        let process = Process::start(&command, &log).expect("the node's program can be started");
        let pid = process.pid();
        node.process = Some(process);
        if let Some(links) = &self.links {
            links.name_process(pid, id);
        }
    }

    /// Writes the node's config, as it is done before each start, and returns its path.
    pub fn write_config(&self, id: &str) -> PathBuf {
        let node = self.node(id);
        let table = node.settings.over(&self.base);
        let text = toml::to_string(&table).expect("a table is valid TOML");
        std::fs::write(&node.config, text).expect("the config can be written");
        node.config.clone()
    }

    /// `kill -9`.
    pub fn kill(&mut self, id: &str) {
        self.process(id).kill();
        self.node_mut(id).process = None;
    }

    /// Starts a dead node again with its data, and waits until it is ready.
    pub async fn restart(&mut self, id: &str) {
        self.start_node(id);
        self.wait_ready(id).await;
    }

    /// SIGTERM; returns how the node ended.
    pub async fn terminate(&mut self, id: &str) -> ExitStatus {
        let process = self.process(id);
        process.terminate();
        let ended = process.wait_exit(DRAIN_PATIENCE).await;
        let status = ended.unwrap_or_else(|error| panic!("{id}: {error}\n{}", self.logs()));
        self.node_mut(id).process = None;
        status
    }

    /// SIGTERM to all running nodes at once; returns how each of them ended.
    pub async fn terminate_all(&mut self) -> Vec<(String, ExitStatus)> {
        let running = self.running();
        for id in &running {
            self.process(id).terminate();
        }
        let mut ended = Vec::new();
        for id in running {
            // A second signal would ask a node not to drain; this waits only.
            let status = self.process(&id).wait_exit(DRAIN_PATIENCE).await;
            let status = status.unwrap_or_else(|error| panic!("{id}: {error}\n{}", self.logs()));
            self.node_mut(&id).process = None;
            ended.push((id, status));
        }
        ended
    }

    /// Nodes that ended by themselves since the last look, and how. They count as dead now.
    pub fn take_ended(&mut self) -> Vec<(String, ExitStatus)> {
        let mut ended = Vec::new();
        for node in &mut self.nodes {
            let status = node.process.as_mut().and_then(Process::exit_status);
            if let Some(status) = status {
                node.process = None;
                ended.push((node.settings.name.clone(), status));
            }
        }
        ended
    }

    /// SIGTERM to all running nodes at once, and SIGKILL to those that do not end in time.
    /// Returns the nodes that had to be killed.
    pub async fn stop(&mut self) -> Vec<String> {
        let processes = self.nodes.iter_mut().filter_map(|node| node.process.as_mut());
        processes.for_each(Process::terminate);
        let mut stuck = Vec::new();
        for node in &mut self.nodes {
            if let Some(mut process) = node.process.take()
                && process.wait_exit(DRAIN_PATIENCE).await.is_err()
            {
                stuck.push(node.settings.name.clone());
            }
        }
        stuck
    }

    /// Deletes all that a dead node has on disk.
    pub fn wipe(&self, id: &str) {
        let node = self.node(id);
        assert!(node.process.is_none(), "{id} still runs");
        match std::fs::remove_dir_all(&node.settings.data_dir) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => panic!("{id}: {error}"),
        }
    }

    /// Adds a node with the next name that knows the others by its seeds, and waits for it.
    pub async fn add_node(&mut self) -> String {
        let id = self.settle(Addresses::pick(None, 0)).expect("a directory can be made");
        let seeds: Vec<_> = self.nodes.iter().map(|node| node.settings.advertise).collect();
        self.node_mut(&id).settings.seeds = seeds;
        self.start_node(&id);
        self.wait_ready(&id).await;
        id
    }

    /// Whether the node says that it serves, or else its reason.
    pub async fn ready(&self, id: &str) -> Result<(), String> {
        let answer = http::get(&self.admin(id, "/readyz")).await;
        match answer {
            Ok(answer) if answer.status.is_success() => Ok(()),
            Ok(answer) => Err(format!("{}: {}", answer.status.as_u16(), answer.body.trim())),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                Err("it does not listen yet".to_owned())
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// # Panics
    ///
    /// When the node ends or does not become ready in time; says what it logged last.
    pub async fn wait_ready(&mut self, id: &str) {
        let what = format!("{id} to be ready");
        let ready = wait::try_until(&what, wait::PATIENCE, async || {
            let ended = self.process(id).exit_status();
            assert!(ended.is_none(), "{id} ended: {ended:?}\n{}", self.logs());
            self.ready(id).await
        });
        if let Err(error) = ready.await {
            panic!("{error}\n{}", self.logs());
        }
    }

    pub async fn wait_all_ready(&mut self) {
        for id in self.running() {
            self.wait_ready(&id).await;
        }
    }

    /// The node's metrics at this moment.
    pub async fn metrics(&self, id: &str) -> io::Result<Metrics> {
        let answer = http::get(&self.admin(id, "/metrics")).await?;
        Ok(Metrics::parse(&answer.body))
    }

    /// Waits until one running node says that it leads, and the running nodes are of one term.
    pub async fn leader(&self) -> String {
        wait::until("one leader that all running nodes follow", async || {
            let mut leaders = Vec::new();
            let mut terms = BTreeSet::new();
            for id in self.running() {
                let metrics = self.metrics(&id).await.map_err(|error| error.to_string())?;
                terms.insert(metrics.sum("flotilla_raft_term").to_string());
                if metrics.sum("flotilla_raft_is_leader") == 1.0 {
                    leaders.push(id);
                }
            }
            match leaders.as_slice() {
                [leader] if terms.len() == 1 => Ok(leader.clone()),
                _ => Err(format!("leaders {leaders:?}, terms {terms:?}")),
            }
        })
        .await
    }

    /// A running node that does not lead.
    pub async fn follower(&self) -> String {
        self.roles().await.1
    }

    /// The leader, and a running node that follows it.
    pub async fn roles(&self) -> (String, String) {
        let leader = self.leader().await;
        let follower = self.running().into_iter().find(|id| *id != leader);
        (leader, follower.expect("more than one node runs"))
    }

    /// Waits until every running node has a link to each of the others.
    pub async fn wait_peers(&self) {
        let others = self.running().len().saturating_sub(1);
        let what = "every node to reach its peers";
        let reached = wait::try_until(what, wait::PATIENCE, async || {
            for id in self.running() {
                let metrics = self.metrics(&id).await.map_err(|error| error.to_string())?;
                let up = metrics.sum("flotilla_peers_up");
                wait::holds(up >= others as f64, format!("{id}: {up} of {others}"))?;
            }
            Ok::<_, String>(())
        });
        if let Err(error) = reached.await {
            panic!("{error}\n{}", self.logs());
        }
    }

    /// The replicated state that a dead node has on disk, as `flotilla inspect` prints it.
    pub async fn inspect(&self, id: &str) -> Value {
        assert!(self.node(id).process.is_none(), "{id} still runs");
        let output = tokio::process::Command::new(&self.binary)
            .args(["inspect", "--data-dir"])
            .arg(self.data_dir(id))
            .kill_on_drop(true)
            .output()
            .await
            .expect("the node's program can be started");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "inspect: {}: {errors}", output.status);
        serde_json::from_slice(&output.stdout).expect("inspect prints JSON")
    }

    /// A client connected to `namespace` at this node.
    ///
    /// # Panics
    ///
    /// When the node refuses it.
    pub async fn client(&self, id: &str, namespace: &str) -> Client {
        let client: Result<_, ConnectError> =
            Client::builder(&self.url(id)).namespace(namespace).connect().await;
        client.unwrap_or_else(|error| panic!("no client at {id}: {error}\n{}", self.logs()))
    }

    /// The last lines of every node's log, for a failure's message.
    pub fn logs(&self) -> String {
        let tail = |node: &Node| {
            let id = &node.settings.name;
            format!("--- {id}\n{}\n", process::log_tail(&self.log(id), TAIL_LINES))
        };
        self.nodes.iter().map(tail).collect()
    }

    pub fn log(&self, id: &str) -> PathBuf {
        self.directory.join(format!("{id}.log"))
    }

    fn admin(&self, id: &str, path: &str) -> String {
        format!("http://{}{path}", self.node(id).settings.admin)
    }

    fn node(&self, id: &str) -> &Node {
        let node = self.nodes.iter().find(|node| node.settings.name == id);
        node.unwrap_or_else(|| panic!("no node {id}"))
    }

    fn node_mut(&mut self, id: &str) -> &mut Node {
        let node = self.nodes.iter_mut().find(|node| node.settings.name == id);
        node.unwrap_or_else(|| panic!("no node {id}"))
    }

    // Gives the next node its name, directory, and proxy; its seeds come once all are known.
    fn settle(&mut self, own: Addresses) -> io::Result<String> {
        let name = format!("n{}", self.nodes.len() + 1);
        let data_dir = self.directory.join(&name);
        std::fs::create_dir_all(&data_dir)?;
        process::truncate(&self.directory.join(format!("{name}.log")))?;
        let advertise = match &self.links {
            Some(links) => links.open(&name, own.cluster)?,
            None => own.cluster,
        };
        let settings = NodeSettings {
            name: name.clone(),
            listen: own.listen,
            admin: own.admin,
            cluster: own.cluster,
            advertise,
            seeds: Vec::new(),
            bootstrap_expect: self.bootstrap_expect,
            data_dir,
        };
        let config = self.directory.join(format!("{name}.toml"));
        self.nodes.push(Node { settings, config, process: None });
        Ok(name)
    }
}
