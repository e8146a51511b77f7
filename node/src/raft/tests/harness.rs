//! Starts nodes, and waits for what they do.

use std::cell::Cell;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::net::{self, Dialer};
use crate::raft::config::{ClusterConfig, Durability, RaftConfig};
use crate::raft::state::{
    Change, Effect, Packet, Pid, SessionId, SessionKeys, SocketId, SocketUp, State, Target,
};
use crate::raft::{Delivery, News, Options, Raft, StartError, Status, Threads};
use crate::socketio::Payload;

/// How long a condition may take on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// The machines of one cluster: addresses and disks outlive the nodes.
pub(super) struct Machines {
    root: TempDir,
    pub(super) seeds: Vec<SocketAddr>,
    listeners: Vec<Option<TcpListener>>,
    pub(super) expect: usize,
    pub(super) tune: fn(&mut Options),
}

pub(super) struct TestNode {
    pub(super) raft: Raft,
    server: TaskTracker,
    stop: CancellationToken,
}

impl Machines {
    /// `count` machines, the first `expect` of which are the seeds.
    pub(super) async fn new(count: usize, expect: usize) -> Self {
        let mut seeds = Vec::new();
        let mut listeners = Vec::new();
        for _ in 0..count {
            let (address, listener) = net::bind("127.0.0.1:0").await.unwrap();
            seeds.push(address);
            listeners.push(Some(listener));
        }
        let root = tempfile::tempdir().unwrap();
        Self { root, seeds, listeners, expect, tune: |_| {} }
    }

    pub(super) fn data_dir(&self, machine: usize) -> PathBuf {
        self.root.path().join(format!("n{machine}"))
    }

    pub(super) async fn start(&mut self, machine: usize) -> TestNode {
        self.start_with(machine, Dialer::tcp()).await
    }

    pub(super) async fn start_with(&mut self, machine: usize, dialer: Dialer) -> TestNode {
        let listener = self.listener(machine).await;
        TestNode::start(self.options(machine, dialer), listener).await
    }

    pub(super) async fn listener(&mut self, machine: usize) -> TcpListener {
        match self.listeners[machine].take() {
            Some(listener) => listener,
            // A restarted node; the port of the one before may linger for a moment.
            None => rebind(self.seeds[machine]).await,
        }
    }

    pub(super) fn options(&self, machine: usize, dialer: Dialer) -> Options {
        let mut options = Options {
            raft: RaftConfig {
                durability: Durability::Os,
                propose_timeout: PATIENCE,
                ..RaftConfig::default()
            },
            cluster: ClusterConfig {
                // Nobody is fenced because the machine stood still for a moment.
                lease: Duration::from_secs(10),
                seeds: self.seeds[..self.expect].iter().map(ToString::to_string).collect(),
                bootstrap_expect: self.expect,
                ..ClusterConfig::default()
            },
            name: format!("n{machine}"),
            version: "test".to_owned(),
            address: self.seeds[machine].to_string(),
            data_dir: self.data_dir(machine),
            dialer,
            threads: Threads::Own,
            disk: None,
            session_keys: SessionKeys::default(),
            clock: None,
        };
        (self.tune)(&mut options);
        options
    }

    pub(super) async fn start_all(&mut self) -> Vec<TestNode> {
        let mut nodes = Vec::new();
        for machine in 0..self.expect {
            nodes.push(self.start(machine).await);
        }
        for node in &nodes {
            node.ready().await;
        }
        nodes
    }
}

async fn rebind(address: SocketAddr) -> TcpListener {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match net::bind(&address.to_string()).await {
            Ok((_, listener)) => return listener,
            Err(error) => {
                assert!(tokio::time::Instant::now() < deadline, "{address}: {error}");
                tokio::task::yield_now().await;
            }
        }
    }
}

/// Starts consensus, once the process before has let go of its data.
pub(super) async fn started(options: Options) -> Result<Raft, StartError> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match Raft::start(options.clone()).await {
            Err(StartError::InUse { .. }) if tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            result => return result,
        }
    }
}

impl TestNode {
    pub(super) async fn start(options: Options, listener: TcpListener) -> Self {
        let raft = started(options).await.unwrap();
        let server = TaskTracker::new();
        let stop = CancellationToken::new();
        let serving =
            net::serve(net::tcp_incoming(listener), raft.routes(), stop.clone().cancelled_owned());
        server.spawn_on(
            async move {
                serving.await.unwrap();
            },
            raft.handle(),
        );
        server.close();
        Self { raft, server, stop }
    }

    pub(super) async fn ready(&self) {
        self.status(Status::Ready).await;
    }

    pub(super) async fn status(&self, wanted: Status) {
        let mut status = self.raft.status();
        let waited = tokio::time::timeout(PATIENCE, status.wait_for(|s| *s == wanted)).await;
        assert!(
            waited.is_ok(),
            "not {wanted:?}: {:?} {:?}",
            *self.raft.status().borrow(),
            self.raft.numbers()
        );
    }

    /// Ends the node without a word to the others, as a crash would.
    pub(super) async fn kill(self) {
        self.stop.cancel();
        self.server.wait().await;
        self.raft.stop().await;
    }

    /// Waits until the node's view is as wanted.
    pub(super) async fn view(&self, what: &str, holds: impl Fn(&State) -> bool) {
        eventually(what, || holds(&self.raft.view())).await;
    }
}

/// Waits for a condition; one that never comes true fails the test by its name.
pub(super) async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub(super) fn socket_up(socket: SocketId) -> Change {
    Change::SocketUp(Box::new(SocketUp {
        socket,
        pid: Pid::random(),
        namespace: ByteString::from_static("/"),
        session: SessionId::random(),
        rooms: [ByteString::from_static("room")].into_iter().collect(),
        keep_session_ms: 0,
        recovery: None,
    }))
}

pub(super) fn packet(text: &str) -> Change {
    Change::Packet(Box::new(Packet {
        namespace: ByteString::from_static("/"),
        target: Target::default(),
        payload: Payload { json: format!("[\"{text}\"]").into(), attachments: Vec::new() },
        ack: None,
        uncompressed: false,
    }))
}

/// Acts on deliveries as a delivery task does, and keeps the packets' texts in order.
pub(super) struct Deliveries {
    pub(super) packets: Arc<std::sync::Mutex<Vec<String>>>,
}

impl Deliveries {
    pub(super) fn of(node: &TestNode) -> Self {
        let (mut queue, _unhandled) = node.raft.subscribe(ByteString::from_static("/"));
        let packets = Arc::new(std::sync::Mutex::new(Vec::new()));
        let seen = packets.clone();
        node.server.reopen();
        let stop = node.stop.clone();
        node.server.spawn(async move {
            while let Some(Some(handed)) = stop.run_until_cancelled(queue.recv()).await {
                for Delivery { news, waiter } in handed.batch {
                    if let News::Applied(_, Effect::Packet(packet, _)) = news {
                        seen.lock().unwrap().push(packet.payload.json.to_string());
                    }
                    if let Some((waiter, outcome)) = waiter {
                        waiter.answer(Ok(outcome));
                    }
                }
            }
        });
        node.server.close();
        Self { packets }
    }

    pub(super) fn texts(&self) -> Vec<String> {
        self.packets.lock().unwrap().clone()
    }
}

/// The place of the node that leads, once there is one.
pub(super) async fn leader(nodes: &[TestNode]) -> usize {
    let place = Cell::new(None);
    eventually("one of the nodes leads", || {
        place.set(nodes.iter().position(|node| node.raft.numbers().is_leader));
        place.get().is_some()
    })
    .await;
    place.get().unwrap()
}

pub(super) fn files_in(path: &Path) -> usize {
    std::fs::read_dir(path).map_or(0, Iterator::count)
}
