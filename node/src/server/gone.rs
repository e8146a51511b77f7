//! The cluster's hook for sockets that ended while no handler of theirs was there to be told.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use futures_util::FutureExt as _;
use futures_util::stream::{self, StreamExt as _};
use tracing::{debug, error, info, warn};

use super::extract::Reason;
use super::io::Io;
use crate::adapter::Cluster;
use crate::raft::state::{
    Change, Departed, Departure, Namespace, NodeId, Owner, SessionId, SocketId,
};

/// A socket that went with its node, or while its client was away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoneSocket {
    pub id: SocketId,
    pub namespace: Namespace,
    /// The node that had it last.
    pub node: NodeId,
    /// Its client's session, which lives on.
    pub session: SessionId,
    /// Without the room of its own id.
    pub rooms: Vec<ByteString>,
    /// One of [`NODE_DOWN`](Self::NODE_DOWN), [`WINDOW_ENDED`](Self::WINDOW_ENDED) and
    /// [`DISCONNECTED`](Self::DISCONNECTED).
    pub reason: &'static str,
}

impl GoneSocket {
    /// Its node died, or began anew.
    pub const NODE_DOWN: &'static str = "node down";
    /// Its client did not come back in time, or what it had missed by then was kept no longer.
    pub const WINDOW_ENDED: &'static str = "recovery window ended";
    /// An application disconnected it while its client was away.
    pub const DISCONNECTED: &'static str = Reason::SERVER;
}

impl From<&Departed> for GoneSocket {
    fn from(departed: &Departed) -> Self {
        Self {
            id: departed.socket,
            namespace: departed.namespace.clone(),
            node: departed.node,
            session: departed.session,
            rooms: departed.rooms().map(ByteString::from).collect(),
            reason: match departed.departure {
                Departure::NodeDown => Self::NODE_DOWN,
                Departure::WindowEnded => Self::WINDOW_ENDED,
                Departure::Disconnected => Self::DISCONNECTED,
            },
        }
    }
}

pub(super) type Hook = dyn Fn(GoneSocket) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync;

/// Hooks that run at the same time.
const AT_ONCE: usize = 64;

/// Sockets that are told of before the cluster hears so: those are told of again at most, should this
/// node die meanwhile.
const BATCH: usize = 1_024;

/// How long one hook may take. It is given up then, and counts as told.
const HOOK_TIMEOUT: Duration = Duration::from_secs(60);

/// How long to wait before the cluster is told again what it could not be told now.
const RETRY: Duration = Duration::from_secs(1);

impl Io {
    /// Runs for each socket that ended while no handler of its own was there to be told: its node
    /// died, or its client was away and did not come back for it. It runs on one node, the leader
    /// (another one, if the leader's application has no such hook), and at least once for each: the
    /// cluster keeps what is not told yet, at most 100,000 sockets and for an hour, so that another
    /// node goes on if this one dies; then the last ones may be told of twice. To be registered on
    /// every node; a later hook replaces this one. It is given a minute for each socket.
    pub fn on_socket_gone<F, Fut>(&self, hook: F)
    where
        F: Fn(GoneSocket) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let hook: Arc<Hook> = Arc::new(move |socket| Box::pin(hook(socket)));
        let mut place = self.0.socket_gone.lock().expect("nothing panics while it holds the hook");
        if place.replace(hook).is_none() {
            self.cluster().spawn(tell(self.clone()));
        }
    }

    fn socket_gone_hook(&self) -> Option<Arc<Hook>> {
        self.0.socket_gone.lock().expect("nothing panics while it holds the hook").clone()
    }
}

/// Tells of those that are gone whenever this node is the one to do so, until it ends itself.
async fn tell(io: Io) {
    let cluster = io.cluster();
    let raft = cluster.raft();
    let (mut departures, mut leader) = (raft.departures(), raft.leader_watch());
    let mut peers = raft.peers();
    loop {
        departures.mark_unchanged();
        leader.mark_unchanged();
        peers.mark_unchanged();
        if !hear(cluster).await || !tell_all(&io).await {
            tokio::time::sleep(RETRY).await;
            continue;
        }
        // Whoever is to tell may change with the leader, and with those who live; and this node
        // hears under a new incarnation only if it says so again.
        tokio::select! {
            Ok(()) = departures.changed() => {}
            Ok(()) = leader.changed() => {}
            Ok(()) = peers.changed() => {}
            else => return,
        }
    }
}

/// Has the cluster keep what this node's application is to be told; false if that could not be
/// agreed now.
async fn hear(cluster: &Cluster) -> bool {
    let raft = cluster.raft();
    let (node, view) = (raft.node_id(), cluster.view());
    let is_heard = view.alive(node).is_none_or(|incarnation| {
        // One that is not alive registers first.
        view.hears_departed(Owner { node, incarnation })
    });
    drop(view);
    is_heard || raft.pump().propose(Change::HearDeparted).await.is_ok()
}

/// Tells of all, as long as it is this node's turn; false if the cluster could not be told so.
async fn tell_all(io: &Io) -> bool {
    let raft = io.cluster().raft();
    loop {
        let view = io.cluster().view();
        let (departed, end) = view.departed(BATCH);
        if departed.is_empty() || view.teller(raft.leader()) != Some(raft.node_id()) {
            return true;
        }
        // The hooks may take minutes.
        drop(view);
        run(io, &departed).await;
        if let Err(error) = raft.pump().propose(Change::DepartedTold { end }).await {
            debug!(%error, "sockets that are gone will be told of again");
            return false;
        }
    }
}

/// Runs the hook for all of them.
async fn run(io: &Io, departed: &[Arc<Departed>]) {
    let Some(hook) = &io.socket_gone_hook() else { return };
    info!(sockets = departed.len(), "telling of sockets that are gone");
    stream::iter(departed)
        .for_each_concurrent(AT_ONCE, |departed| async move {
            let told = AssertUnwindSafe(async { hook(GoneSocket::from(&**departed)).await });
            match tokio::time::timeout(HOOK_TIMEOUT, told.catch_unwind()).await {
                Ok(Ok(())) => {}
                Ok(Err(_panic)) => error!("a hook for sockets that are gone panicked"),
                Err(_elapsed) => warn!("a hook for sockets that are gone took too long"),
            }
        })
        .await;
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Mutex;
    use std::time::Duration;

    use futures_util::{SinkExt as _, StreamExt as _};
    use tempfile::TempDir;
    use tokio::net::TcpStream;
    use tokio_tungstenite::WebSocketStream;
    use tokio_tungstenite::tungstenite::Message;

    use super::*;
    use crate::adapter::RecoveryConfig;
    use crate::config::{AdminConfig, Config, ListenConfig, NodeConfig};
    use crate::node::Node;
    use crate::raft::config::{ClusterConfig, Durability, RaftConfig};
    use crate::server::Socket;

    const PATIENCE: Duration = Duration::from_secs(30);
    const MAX_AGE: Duration = Duration::from_millis(100);

    /// By which node, and of which socket.
    type Told = Arc<Mutex<Vec<(String, GoneSocket)>>>;

    async fn start(name: &str, seeds: &[String], told: &Told) -> (Node, TempDir) {
        let data = tempfile::tempdir().unwrap();
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let config = Config {
            data_dir: data.path().to_owned(),
            node: NodeConfig { name: name.to_owned(), ..NodeConfig::default() },
            listen: ListenConfig { address: any_port },
            admin: AdminConfig { address: any_port },
            cluster: ClusterConfig {
                address: any_port.to_string(),
                seeds: seeds.to_vec(),
                bootstrap_expect: if seeds.is_empty() { 1 } else { 3 },
                lease: Duration::from_secs(6),
                ..ClusterConfig::default()
            },
            // Who leads when a test begins still does when it looks again.
            raft: RaftConfig {
                durability: Durability::Memory,
                election_timeout_min: Duration::from_millis(1500),
                election_timeout_max: Duration::from_secs(3),
                ..RaftConfig::default()
            },
            ..Config::default()
        };
        let register = |io: &Io| {
            io.of("/").on_connect(async |socket: Socket| drop(socket.join("r")));
            let soon = RecoveryConfig { max_age: MAX_AGE, ..RecoveryConfig::default() };
            io.of_recoverable("/kept", soon);
            let (told, name) = (told.clone(), name.to_owned());
            io.on_socket_gone(move |socket| {
                let (told, name) = (told.clone(), name.clone());
                async move {
                    tokio::task::yield_now().await;
                    let is_first = {
                        let mut told = told.lock().unwrap();
                        told.push((name, socket.clone()));
                        told.len() == 1
                    };
                    if is_first && socket.reason == GoneSocket::WINDOW_ENDED {
                        std::future::pending::<()>().await;
                    }
                }
            });
        };
        let node = Node::start_with(Arc::new(config), register).await.unwrap();
        tokio::time::timeout(PATIENCE, node.ready()).await.expect("the node becomes ready");
        (node, data)
    }

    async fn connect(node: &Node) -> WebSocketStream<TcpStream> {
        connect_to(node, "40").await
    }

    /// The client asks for its namespace with `ask`.
    async fn connect_to(node: &Node, ask: &str) -> WebSocketStream<TcpStream> {
        let address = node.addresses().listen;
        let stream = TcpStream::connect(address).await.unwrap();
        let url = format!("ws://{address}/socket.io/?EIO=4&transport=websocket");
        let (mut client, _) = tokio_tungstenite::client_async(url, stream).await.unwrap();
        client.send(Message::text(ask.to_owned())).await.unwrap();
        let open = client.next().await.unwrap().unwrap();
        assert!(open.to_text().unwrap().starts_with('0'), "{open}");
        client
    }

    async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let wait = async {
            loop {
                match look() {
                    Some(found) => return found,
                    None => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("never: {what}"))
    }

    fn all_told(node: &Node) -> bool {
        node.io().cluster().view().departed(1).0.is_empty()
    }

    /// All nodes know of each other that their applications hear of sockets that are gone.
    async fn all_hear(nodes: &[Node]) {
        until("all to hear", || {
            let hear = |node: &Node| {
                let view = node.io().cluster().view();
                nodes.iter().all(|other| {
                    let node = other.io().cluster().raft().node_id();
                    let owner = |incarnation| Owner { node, incarnation };
                    view.alive(node).is_some_and(|alive| view.hears_departed(owner(alive)))
                })
            };
            nodes.iter().all(hear).then_some(())
        })
        .await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn end_of_a_window_is_told_again_if_the_leader_dies_while_it_is_told() {
        let told = Told::default();
        let (first, _first_data) = start("n1", &[], &told).await;
        let seeds = [first.addresses().cluster.to_string()];
        let (second, _second_data) = start("n2", &seeds, &told).await;
        let (third, _third_data) = start("n3", &seeds, &told).await;
        let mut nodes = vec![first, second, third];
        all_hear(&nodes).await;
        let leader = until("a leader", || nodes[0].io().cluster().raft().leader()).await;
        let is_leader = |node: &Node| node.io().cluster().raft().node_id() == leader;
        let place = nodes.iter().position(is_leader).unwrap();
        let leading = nodes.remove(place);

        let had = nodes[0].io().cluster().raft().node_id();
        let mut client = connect_to(&nodes[0], "40/kept,").await;
        let accepted = client.next().await.unwrap().unwrap();
        assert!(accepted.to_text().unwrap().starts_with("40/kept,"), "{accepted}");
        drop(client);
        let (by, gone) = until("one to tell", || told.lock().unwrap().first().cloned()).await;
        assert_eq!((gone.node, gone.reason), (had, "recovery window ended"));
        assert_eq!(by, format!("n{}", place + 1), "the leader tells");
        assert!(!all_told(&leading), "it is not through");

        leading.io().cluster().raft().stop().await;
        let (by, again) = until("another to tell", || told.lock().unwrap().get(1).cloned()).await;
        assert_ne!(by, format!("n{}", place + 1));
        assert_eq!(again, gone);
        until("all to know so", || nodes.iter().all(all_told).then_some(())).await;
        assert_eq!(told.lock().unwrap().len(), 2);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn sockets_of_a_dead_node_are_told_once_by_one_of_the_others() {
        let told = Told::default();
        let (first, _first_data) = start("n1", &[], &told).await;
        let seeds = [first.addresses().cluster.to_string()];
        let (second, _second_data) = start("n2", &seeds, &told).await;
        let (third, _third_data) = start("n3", &seeds, &told).await;
        let _clients = [connect(&third).await, connect(&third).await, connect(&first).await];
        let sockets = until("all sockets in their room", || {
            let sockets = second.io().to("r").fetch_sockets();
            (sockets.len() == 3).then_some(sockets)
        })
        .await;
        let third_raft = third.io().cluster().raft();
        let mut dead: Vec<_> =
            sockets.iter().filter(|socket| socket.node == third_raft.node_id()).collect();
        assert_eq!(dead.len(), 2);

        // From here on it renews no lease.
        third_raft.stop().await;
        until("both to be told of", || (told.lock().unwrap().len() >= 2).then_some(())).await;
        until("the others to have heard so", || {
            [&first, &second].into_iter().all(all_told).then_some(())
        })
        .await;
        let mut told = told.lock().unwrap().clone();
        told.sort_by_key(|(_, socket)| socket.id);
        dead.sort_by_key(|socket| socket.id);
        assert_eq!(told.len(), 2, "each once: {told:?}");
        for ((by, gone), dead) in told.iter().zip(dead) {
            assert_ne!(by, "n3");
            assert_eq!((gone.id, gone.node, gone.session), (dead.id, dead.node, dead.session));
            assert_eq!((&*gone.namespace, &gone.rooms[..]), ("/", &["r".into()][..]));
            assert_eq!(gone.reason, GoneSocket::NODE_DOWN);
        }
    }
}
