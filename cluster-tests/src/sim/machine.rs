//! A simulated machine: its disk outlives its processes.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use flotilla::adapter::{DeliveryMode, Encoder};
use flotilla::backbone::Backbone;
use flotilla::net::{BoxedIo, Dialer, Incoming};
use flotilla::raft::config::{ClusterConfig, RaftConfig};
use flotilla::raft::state::SessionKeys;
use flotilla::raft::{MemoryDisk, Options, Raft, Status, Threads};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use turmoil::net::{TcpListener, TcpStream};

use super::client::{Client, Clients};
use super::history::{Event, History};
use super::traffic::{Life, Town};
use super::travel::{self, Gate};

const PORT: u16 = 7000;

/// Where each process has clients that do not come back, and how many.
const SEATS: [&str; 3] = ["/", "/", "/other"];

/// Few, so that every run has snapshots, and restarted machines are behind them.
const SNAPSHOT_INTERVAL: u64 = 250;

/// Short, so that most runs in which a disk is lost see its node replaced.
const REPLACE_VOTER_AFTER: Duration = Duration::from_secs(10);

pub(super) struct Machine {
    pub(super) number: usize,
    pub(super) count: usize,
    /// How many make a cluster.
    pub(super) expected: usize,
    pub(super) disk: Mutex<MemoryDisk>,
    /// How far its clock is ahead of the others'.
    pub(super) skew_ms: u64,
    pub(super) history: History,
    pub(super) town: Town,
    /// Of the process that runs, if one does.
    pub(super) raft: Mutex<Weak<Raft>>,
}

pub(super) fn name(machine: usize) -> String {
    format!("n{machine}")
}

impl Machine {
    /// The process: it runs until the machine crashes.
    pub(super) async fn run(self: Arc<Self>) -> turmoil::Result {
        let tasks = TaskTracker::new();
        let backbone = self.start(&tasks).await?;
        let clients = Clients::default();
        tasks.spawn(note_fences(self.number, backbone.raft.clone(), self.history.clone()));
        tasks.spawn(self.gate(&backbone, &clients, &tasks).keep());
        for namespace in SEATS {
            tasks.spawn(self.clone().fill_seat(
                namespace,
                backbone.clone(),
                clients.clone(),
                tasks.clone(),
            ));
        }
        std::future::pending().await
    }

    /// What a process consists of, without clients.
    pub(super) async fn start(&self, tasks: &TaskTracker) -> turmoil::Result<Backbone> {
        let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
        let (options, stop) = (self.options(), CancellationToken::new());
        let incoming = incoming(listener);
        let backbone =
            Backbone::start(options, incoming, Encoder::default(), tasks.clone(), stop).await?;
        *self.raft.lock().expect("nothing panics while it holds it") =
            Arc::downgrade(&backbone.raft);
        Ok(backbone)
    }

    /// One client after the other, while the node takes any.
    async fn fill_seat(
        self: Arc<Self>,
        namespace: &'static str,
        backbone: Backbone,
        clients: Clients,
        tasks: TaskTracker,
    ) {
        let adapter = backbone.cluster.adapter(&namespace.into(), DeliveryMode::Replicated);
        let mut status = backbone.raft.status();
        loop {
            // The sender lives as long as the process.
            let _ = status.wait_for(|status| *status == Status::Ready).await;
            let history = self.history.clone();
            let client = Client::new(adapter.clone(), namespace, self.number, history);
            let life = Life {
                client,
                neighbours: clients.clone(),
                raft: backbone.raft.clone(),
                town: self.town.clone(),
                tasks: tasks.clone(),
            };
            life.live().await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Where the clients of the recoverable namespace come in.
    fn gate(&self, backbone: &Backbone, clients: &Clients, tasks: &TaskTracker) -> Gate {
        let (name, mode) = (travel::NAMESPACE.into(), DeliveryMode::Replicated);
        Gate {
            machine: self.number,
            adapter: backbone.cluster.recoverable_adapter(&name, mode, Some(travel::WINDOW)),
            raft: backbone.raft.clone(),
            clients: clients.clone(),
            history: self.history.clone(),
            town: self.town.clone(),
            tasks: tasks.clone(),
        }
    }

    fn options(&self) -> Options {
        let skew_ms = self.skew_ms;
        let clock = move || {
            let now = turmoil::since_epoch().expect("machines run in a simulation");
            now.as_millis() as u64 + skew_ms
        };
        Options {
            raft: RaftConfig {
                snapshot_interval: SNAPSHOT_INTERVAL,
                replace_voter_after: REPLACE_VOTER_AFTER,
                ..RaftConfig::default()
            },
            cluster: ClusterConfig {
                seeds: (0..self.count).map(address).collect(),
                bootstrap_expect: self.expected,
                ..ClusterConfig::default()
            },
            name: name(self.number),
            version: "simulated".to_owned(),
            address: address(self.number),
            data_dir: PathBuf::new(),
            dialer: Dialer::new(dial),
            threads: Threads::Shared,
            disk: Some(self.disk().clone()),
            // An index is a node's own affair: some have it, and all must do the same.
            session_keys: SessionKeys::new(self.number.is_multiple_of(2).then_some("group")),
            clock: Some(Arc::new(clock)),
        }
    }

    pub(super) fn disk(&self) -> MutexGuard<'_, MemoryDisk> {
        self.disk.lock().expect("nothing panics while it holds the disk")
    }

    /// Of the process that runs, once it has started.
    pub(super) fn raft(&self) -> Option<Arc<Raft>> {
        self.raft.lock().expect("nothing panics while it holds it").upgrade()
    }
}

/// Until the process ends.
async fn note_fences(machine: usize, raft: Arc<Raft>, history: History) {
    let mut status = raft.status();
    // The sender lives as long as the process.
    while status.wait_for(|status| *status == Status::Ready).await.is_ok()
        && status.wait_for(|status| *status != Status::Ready).await.is_ok()
    {
        history.add(Event::Fenced { machine });
    }
}

fn address(machine: usize) -> String {
    format!("{}:{PORT}", name(machine))
}

async fn dial(uri: http::Uri) -> io::Result<BoxedIo> {
    let host = uri.host().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    TcpStream::connect((host, PORT)).await.map(BoxedIo::new)
}

fn incoming(listener: TcpListener) -> Incoming {
    Box::pin(futures_util::stream::unfold(listener, |listener| async move {
        let accepted = listener.accept().await.map(|(stream, _)| BoxedIo::new(stream));
        Some((accepted, listener))
    }))
}
