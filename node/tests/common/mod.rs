//! Nodes in this process, and a client that speaks Socket.IO's text as it stands in the
//! specification, so that a test says exactly what is on the wire.

#![allow(dead_code, reason = "each test crate uses a part of this")]

pub(crate) mod client;
pub(crate) mod roaming;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use flotilla::config::{AdminConfig, Config, ListenConfig, NodeConfig};
use flotilla::node::Node;
use flotilla::raft::config::{ClusterConfig, Durability, RaftConfig};
use flotilla::server::Io;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use client::Client;

/// Far beyond what anything here takes; a wait that reaches it has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A node with an application of the test's own.
pub(crate) struct TestNode {
    pub(crate) node: Node,
    _data: TempDir,
}

/// One node that is a cluster by itself, once it serves clients.
pub(crate) async fn start(register: impl FnOnce(&Io)) -> TestNode {
    start_with("n1", Vec::new(), |_config| {}, register).await
}

/// Three nodes with the same application, once all of them serve clients and take messages from
/// one another.
pub(crate) async fn start_three(register: impl Fn(&Io)) -> [TestNode; 3] {
    let first = start(&register).await;
    let seeds = vec![first.node.addresses().cluster.to_string()];
    let join = |config: &mut Config| config.cluster.bootstrap_expect = 3;
    let second = start_with("n2", seeds.clone(), join, &register).await;
    let third = start_with("n3", seeds, join, &register).await;
    let nodes = [first, second, third];
    for node in &nodes {
        until("the links", async || (node.node.peers_up() == 2).then_some(())).await;
    }
    nodes
}

pub(crate) async fn start_with(
    name: &str,
    seeds: Vec<String>,
    change: impl FnOnce(&mut Config),
    register: impl FnOnce(&Io),
) -> TestNode {
    let data = tempfile::tempdir().unwrap();
    let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut config = Config {
        data_dir: data.path().to_owned(),
        node: NodeConfig { name: name.to_owned(), ..NodeConfig::default() },
        listen: ListenConfig { address: any_port },
        admin: AdminConfig { address: any_port },
        cluster: ClusterConfig {
            address: any_port.to_string(),
            seeds,
            // No node is fenced, or taken for dead, because the machine stood still for a moment.
            lease: PATIENCE,
            ..ClusterConfig::default()
        },
        raft: RaftConfig {
            durability: Durability::Memory,
            propose_timeout: PATIENCE,
            ..RaftConfig::default()
        },
        ..Config::default()
    };
    change(&mut config);
    let node = Node::start_with(Arc::new(config), register).await.unwrap();
    tokio::time::timeout(PATIENCE, node.ready()).await.expect("the node should become ready");
    TestNode { node, _data: data }
}

impl TestNode {
    pub(crate) fn io(&self) -> &Io {
        self.node.io()
    }

    /// An open connection that is in no namespace yet.
    pub(crate) async fn open(&self) -> Client {
        Client::open(self.node.addresses().listen).await
    }

    /// A connection that is in `/`.
    pub(crate) async fn connect(&self) -> Client {
        let mut client = self.open().await;
        client.connect("/", "").await;
        client
    }
}

/// Runs `work` beside the test; it ends with the test's runtime.
pub(crate) fn spawn<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> JoinHandle<T> {
    TaskTracker::new().spawn(work)
}

/// What handlers noted, for the test to look at.
pub(crate) type Notes = Arc<Mutex<Vec<String>>>;

pub(crate) fn note(notes: &Notes, text: impl Into<String>) {
    notes.lock().unwrap().push(text.into());
}

/// The notes, once there are so many.
pub(crate) async fn noted(notes: &Notes, count: usize) -> Vec<String> {
    until("the handlers", async || {
        let notes = notes.lock().unwrap();
        (notes.len() >= count).then(|| notes.clone())
    })
    .await
}

/// Looks again and again until `look` finds something.
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
