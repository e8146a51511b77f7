//! Node: builds the parts in start order; the one file that knows them all.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::net::TcpListener;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::adapter::{Encoder, OutboxLimits};
use crate::admin::Admin;
use crate::apps::{conformance, relay};
use crate::backbone::Backbone;
use crate::config::{App, Config, ConfigError};
use crate::engineio::CloseReason;
use crate::metrics::Gauges;
use crate::net::{self, Dialer};
use crate::raft::state::SessionKeys;
use crate::raft::{Options, Role, StartError as RaftError, Status, Threads};
use crate::server::{Io, SessionLayer, Settings};
use crate::telemetry::Exporter;
use crate::transport::{Accept, EngineLayer, Pages, Transport};

/// A running node. Dropping it does not stop it: [`drain`](Self::drain) does.
pub struct Node {
    config: Arc<Config>,
    addresses: Addresses,
    io: Io,
    backbone: Backbone,
    transport: Arc<Transport>,
    tasks: TaskTracker,
    /// Ends what faces clients.
    front: CancellationToken,
    /// Ends the rest.
    back: CancellationToken,
    /// Cancelled by an operator.
    drain_requested: CancellationToken,
}

/// Where a node listens, as bound; `addresses.json` in its data directory.
#[derive(Clone, Debug, Serialize)]
pub struct Addresses {
    pub name: String,
    /// As configured, if the application listens itself.
    pub listen: SocketAddr,
    pub admin: SocketAddr,
    pub cluster: SocketAddr,
    pub pid: u32,
}

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Setting(#[from] ConfigError),
    #[error("cannot listen on {address} ({setting})")]
    Listen { setting: &'static str, address: String, source: io::Error },
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Raft(#[from] RaftError),
    #[error("cannot read the client bundle")]
    Pages(#[source] io::Error),
}

/// Not everything had ended when the drain timeout did.
#[derive(Debug, thiserror::Error)]
#[error("{remaining} tasks still ran after {timeout:?}")]
pub struct DrainError {
    pub remaining: usize,
    pub timeout: Duration,
}

impl Node {
    /// Starts the parts one after the other. The node serves clients once it is a member of a
    /// cluster with a leader; until then it answers 503 and `/readyz` says why.
    pub async fn start(config: Arc<Config>) -> Result<Self, StartError> {
        Self::start_with(config, |_io| {}).await
    }

    /// As [`start`](Self::start), with an application that `register` puts up before the first
    /// client can ask for its namespaces.
    pub async fn start_with(
        config: Arc<Config>,
        register: impl FnOnce(&Io),
    ) -> Result<Self, StartError> {
        config.check()?;
        let clients = listen("listen.address", config.listen.address).await?;
        Self::start_behind(Some(clients), config, register).await
    }

    /// As [`start_with`](Self::start_with), inside an application that has an HTTP server: the node
    /// listens for no clients, and [`layer`](Self::layer) leads them to it.
    pub async fn embed(
        config: Arc<Config>,
        register: impl FnOnce(&Io),
    ) -> Result<Self, StartError> {
        config.check()?;
        Self::start_behind(None, config, register).await
    }

    async fn start_behind(
        clients: Option<(TcpListener, SocketAddr)>,
        config: Arc<Config>,
        register: impl FnOnce(&Io),
    ) -> Result<Self, StartError> {
        let tasks = TaskTracker::new();
        let (front, back) = (CancellationToken::new(), CancellationToken::new());
        let drain_requested = CancellationToken::new();

        let operators = listen("admin.address", config.admin.address).await?;
        let (address, nodes) =
            net::bind(&config.cluster.address).await.map_err(|source| StartError::Listen {
                setting: "cluster.address",
                address: config.cluster.address.clone(),
                source,
            })?;

        let backbone = Backbone::start(
            raft_options(&config, address),
            net::tcp_incoming(nodes),
            Encoder::new(config.socketio.parser.parser()),
            tasks.clone(),
            back.clone(),
        )
        .await?;
        let io = Io::new(backbone.cluster.clone(), settings(&config));
        register(&io);
        let mut pages = Pages::new();
        if config.apps.contains(&App::Relay) {
            if config.socketio.client_dir.is_none() {
                warn!("the chat page lacks its client: socketio.client_dir is not set");
            }
            relay::register(&io);
            pages = pages.with_page("/", "text/html; charset=utf-8", relay::CHAT_PAGE);
        }
        if config.apps.contains(&App::Conformance) {
            conformance::register(&io);
        }
        let accept: Arc<dyn Accept> = if config.apps.contains(&App::EngineEcho) {
            Arc::new(conformance::Echo::new(io.clone()))
        } else {
            Arc::new(io.clone())
        };
        if let (true, Some(dir)) = (config.socketio.serve_client, &config.socketio.client_dir) {
            pages =
                pages.with_client_bundle(&config.engine.path, dir).map_err(StartError::Pages)?;
        }

        let transport = Transport::new(
            config.engine.clone(),
            backbone.raft.node_id(),
            OutboxLimits {
                max_bytes: config.outbox.max_bytes,
                max_packets: config.outbox.max_packets,
                policy: config.outbox.policy,
            },
            accept,
            pages,
            tasks.clone(),
            front.clone(),
        );
        io.set_transport(&transport);
        let addresses = Addresses {
            name: config.node.name.clone(),
            listen: clients.as_ref().map_or(config.listen.address, |clients| clients.1),
            admin: operators.1,
            cluster: address,
            pid: std::process::id(),
        };
        let node = Self {
            addresses,
            io,
            backbone,
            transport,
            tasks,
            front,
            back,
            drain_requested,
            config,
        };
        node.transport.relay_through(node.backbone.tunnels.clone());
        if let Some((listener, _)) = clients {
            node.tasks.spawn(node.transport.clone().serve(listener));
        }
        node.tasks.spawn(node.admin().serve(operators.0, node.tasks.clone(), node.back.clone()));
        node.write_addresses()?;
        info!(name = %node.addresses.name, listen = %node.addresses.listen, admin = %node.addresses.admin,
            cluster = %node.addresses.cluster, "node is up");
        Ok(node)
    }

    /// The server, to register namespaces and handlers with.
    pub fn io(&self) -> &Io {
        &self.io
    }

    /// Leads clients to this node, in front of an application's own routes.
    pub fn layer(&self) -> EngineLayer {
        EngineLayer::new(self.transport.clone())
    }

    /// Gives requests of an application's own routes the [sessions](crate::server::Session) that
    /// their clients' sockets have.
    pub fn session_layer(&self) -> SessionLayer {
        SessionLayer::new(self.io.clone())
    }

    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Client streams that this node passes on to their connections' owners, and those that other
    /// nodes pass on to it.
    pub fn relayed_count(&self) -> usize {
        self.transport.relayed_count()
    }

    /// How many of the other nodes take messages from this one at the moment. Direct and volatile
    /// packets to a node that does not are lost.
    pub fn peers_up(&self) -> usize {
        self.backbone.peers.up()
    }

    /// Resolves once this node serves clients as a member of a cluster.
    pub async fn ready(&self) {
        let mut status = self.backbone.raft.status();
        // The sender lives as long as the node.
        let _ = status.wait_for(|status| *status == Status::Ready).await;
    }

    /// Resolves once an operator asked for a drain on the admin port.
    pub async fn drain_requested(&self) {
        self.drain_requested.cancelled().await;
    }

    /// Resolves with the reason if a part that the node cannot live without ends unasked.
    pub async fn failed(&self) -> String {
        tokio::select! {
            reason = self.backbone.raft.failed() => format!("consensus: {reason}"),
            () = self.backbone.cluster.failed() => "delivery: a namespace's task panicked".to_owned(),
        }
    }

    /// Takes no new clients, settles what was accepted, closes every connection, hands over
    /// leadership, and waits for all tasks to end: backwards through [`start`](Self::start). Clients
    /// that have not taken their leave in half of `drain_timeout` are cut off, and what the other
    /// nodes have not agreed to in nine tenths of it stays open.
    pub async fn drain(self) -> Result<(), DrainError> {
        let timeout = self.config.drain_timeout;
        // The rest is for what the nodes have to settle among themselves, and for the tasks' ends.
        let clients_until = Instant::now() + timeout / 2;
        let nodes_until = Instant::now() + timeout * 9 / 10;
        let raft = self.backbone.raft.clone();
        let drained = tokio::time::timeout(timeout, async {
            self.backbone.raft.announce_drain().await;
            self.front.cancel();
            self.transport.close_all(CloseReason::ServerShutdown);
            if timeout_at(clients_until, self.clients_gone()).await.is_err() {
                self.transport.cut_off();
            }
            if timeout_at(nodes_until, self.backbone.raft.drain()).await.is_err() {
                warn!("there was no time left to settle proposals");
            }
            self.back.cancel();
            self.tasks.close();
            if timeout_at(clients_until, self.tasks.wait()).await.is_err() {
                self.transport.cut_off();
                self.tasks.wait().await;
            }
        })
        .await;
        self.back.cancel();
        raft.stop().await;
        drained.map_err(|_elapsed| DrainError { remaining: self.tasks.len(), timeout })
    }

    async fn clients_gone(&self) {
        while self.transport.connection_count() > 0 || self.transport.relayed_count() > 0 {
            tokio::time::sleep(DRAIN_POLL).await;
        }
    }

    fn admin(&self) -> Arc<Admin> {
        let (backbone, transport) = (self.backbone.clone(), self.transport.clone());
        let exporter = Exporter::new(move || gauges(&backbone, &transport));
        let raft = self.backbone.raft.clone();
        Arc::new(Admin::new(
            exporter,
            move || readiness(*raft.status().borrow()),
            self.drain_requested.clone(),
        ))
    }

    /// In one step, for others watch for the file.
    fn write_addresses(&self) -> Result<(), StartError> {
        let path = self.config.data_dir.join("addresses.json");
        let partial = self.config.data_dir.join("addresses.json.partial");
        let json = serde_json::to_vec_pretty(&self.addresses).expect("addresses are plain values");
        std::fs::write(&partial, json)
            .and_then(|()| std::fs::rename(&partial, &path))
            .map_err(|source| StartError::Write { path, source })
    }
}

/// How often a draining node looks whether its connections have ended.
const DRAIN_POLL: Duration = Duration::from_millis(20);

async fn listen(
    setting: &'static str,
    address: SocketAddr,
) -> Result<(TcpListener, SocketAddr), StartError> {
    let bound = async {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    bound.await.map_err(|source| StartError::Listen {
        setting,
        address: address.to_string(),
        source,
    })
}

fn settings(config: &Config) -> Settings {
    let delivery =
        config.namespaces.iter().map(|(name, namespace)| (name.clone(), namespace.delivery));
    let recovery = config
        .namespaces
        .iter()
        .filter_map(|(name, namespace)| Some((name.clone(), namespace.recovery?)));
    Settings {
        connect_timeout: config.socketio.connect_timeout,
        delivery: delivery.collect(),
        recovery: recovery.collect(),
        session: config.session.clone(),
        cleanup_empty_child_namespaces: config.socketio.cleanup_empty_child_namespaces,
    }
}

fn raft_options(config: &Config, bound: SocketAddr) -> Options {
    Options {
        raft: config.raft.clone(),
        cluster: config.cluster.clone(),
        name: config.node.name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        address: config.cluster.advertise.clone().unwrap_or_else(|| bound.to_string()),
        data_dir: config.data_dir.clone(),
        dialer: Dialer::tcp(),
        threads: Threads::Own,
        disk: None,
        session_keys: SessionKeys::new(config.session.index.iter().cloned()),
        clock: None,
    }
}

fn gauges(backbone: &Backbone, transport: &Transport) -> Gauges {
    let Backbone { raft, peers, tunnels, .. } = backbone;
    let (view, numbers) = (raft.view(), raft.numbers());
    let (outboxes, largest_bytes) = transport.outbox_sizes();
    let windows = view.window_numbers();
    Gauges {
        connections: transport.connection_count() as u64,
        outbox_bytes: outboxes.bytes as u64,
        outbox_packets: outboxes.packets as u64,
        outbox_largest_bytes: largest_bytes as u64,
        sockets: view.sockets_of(raft.node_id()) as u64,
        rooms: view.rooms_len() as u64,
        sessions: view.sessions_len() as u64,
        raft_term: numbers.term,
        raft_is_leader: numbers.is_leader,
        raft_role: numbers.role.map(Role::as_str),
        raft_commit_index: numbers.commit_index,
        raft_applied_index: numbers.applied_index,
        namesakes: numbers.namesakes as u64,
        peers_up: peers.up() as u64,
        peer_queue_bytes: peers.queue_bytes() as u64,
        relays_to_owners: tunnels.opened() as u64,
        relays_from_nodes: tunnels.accepted() as u64,
        detached_sockets: windows.detached as u64,
        window_packets: windows.packets as u64,
        window_bytes: windows.bytes,
        detached_data_bytes: windows.data_bytes,
    }
}

/// What `/readyz` says.
fn readiness(status: Status) -> Result<(), String> {
    match status {
        Status::Ready => Ok(()),
        Status::Starting => Err("not yet a member of a cluster with a leader".to_owned()),
        Status::Fenced => Err("no quorum".to_owned()),
        Status::Down => Err("declared dead by the cluster; registering again".to_owned()),
        Status::Draining => Err("draining".to_owned()),
    }
}
