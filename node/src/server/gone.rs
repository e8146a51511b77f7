//! The cluster's hook for sockets whose node died, and their own handlers with it.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;

use bytestring::ByteString;
use futures_util::FutureExt as _;
use futures_util::stream::{self, StreamExt as _};
use tokio::sync::watch;
use tracing::{error, info};

use super::io::Io;
use crate::peers::Question;
use crate::raft::Ended;
use crate::raft::state::{Namespace, NodeId, SessionId, SocketId};

/// A socket that went with its node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoneSocket {
    pub id: SocketId,
    pub namespace: Namespace,
    /// The node that had it.
    pub node: NodeId,
    /// Its client's session, which lives on.
    pub session: SessionId,
    /// Without the room of its own id.
    pub rooms: Vec<ByteString>,
}

impl GoneSocket {
    /// Why it is gone.
    pub const REASON: &'static str = "node down";
}

pub(super) type Hook = dyn Fn(GoneSocket) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync;

/// Hooks that run at the same time.
const AT_ONCE: usize = 64;

impl Io {
    /// Runs for each socket whose node died, on one node: the leader, or if its process is younger,
    /// another that was there. At least once for each socket, as long as such a node lives: if the
    /// node that runs the hooks dies before all have ended, they run again on another. To be
    /// registered on every node; a later hook replaces this one. A socket whose client may come back for it is not gone.
    pub fn on_socket_gone<F, Fut>(&self, hook: F)
    where
        F: Fn(GoneSocket) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let hook: Arc<Hook> = Arc::new(move |socket| Box::pin(hook(socket)));
        let mut place = self.0.socket_gone.lock().expect("nothing panics while it holds the hook");
        if place.replace(hook).is_none() {
            // The ends are kept from here on.
            let ends = self.cluster().raft().ended();
            self.cluster().spawn(tell(self.clone(), ends));
        }
    }

    fn socket_gone_hook(&self) -> Option<Arc<Hook>> {
        self.0.socket_gone.lock().expect("nothing panics while it holds the hook").clone()
    }
}

/// Tells of ends, until the node itself does.
async fn tell(io: Io, mut ends: watch::Receiver<Arc<Vec<Arc<Ended>>>>) {
    let cluster = io.cluster();
    let raft = cluster.raft();
    let (mut leader, mut peers) = (raft.leader_watch(), raft.peers());
    loop {
        let known = ends.borrow_and_update().clone();
        leader.mark_unchanged();
        peers.mark_unchanged();
        for ended in known.iter() {
            raft.handed_over(ended.index).await;
            if ended.teller(&cluster.view(), raft.leader()) == Some(raft.node_id()) {
                run(&io, ended).await;
                raft.forget_ended(ended.owner);
                for node in cluster.other_nodes() {
                    let namespace = Namespace::new();
                    cluster.tell_node(node, namespace, Question::Told(ended.owner));
                }
            }
        }
        // Whoever is to tell may change with the leader, and with those who live.
        tokio::select! {
            Ok(()) = ends.changed() => {}
            Ok(()) = leader.changed() => {}
            Ok(()) = peers.changed() => {}
            else => return,
        }
    }
}

/// Runs the hook for all sockets of an end.
async fn run(io: &Io, ended: &Ended) {
    let Some(hook) = &io.socket_gone_hook() else { return };
    let now = io.cluster().view();
    let sockets: Vec<_> = ended
        .sockets(&now)
        .map(|socket| GoneSocket {
            id: socket.id(),
            namespace: socket.namespace().clone(),
            node: ended.owner.node,
            session: socket.session(),
            rooms: socket.rooms().map(ByteString::from).collect(),
        })
        .collect();
    info!(node = ended.owner.node, sockets = sockets.len(), "telling of a dead node's sockets");
    stream::iter(sockets)
        .for_each_concurrent(AT_ONCE, |socket| async move {
            let told = AssertUnwindSafe(async { hook(socket).await });
            if told.catch_unwind().await.is_err() {
                error!("a hook for sockets that are gone panicked");
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
    use crate::config::{AdminConfig, Config, ListenConfig, NodeConfig};
    use crate::node::Node;
    use crate::raft::config::{ClusterConfig, Durability, RaftConfig};
    use crate::server::Socket;

    const PATIENCE: Duration = Duration::from_secs(30);

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
                ..ClusterConfig::default()
            },
            raft: RaftConfig { durability: Durability::Memory, ..RaftConfig::default() },
            ..Config::default()
        };
        let register = |io: &Io| {
            io.of("/").on_connect(async |socket: Socket| drop(socket.join("r")));
            let (told, name) = (told.clone(), name.to_owned());
            io.on_socket_gone(move |socket| {
                let (told, name) = (told.clone(), name.clone());
                async move {
                    tokio::task::yield_now().await;
                    told.lock().unwrap().push((name, socket));
                }
            });
        };
        let node = Node::start_with(Arc::new(config), register).await.unwrap();
        tokio::time::timeout(PATIENCE, node.ready()).await.expect("the node becomes ready");
        (node, data)
    }

    async fn connect(node: &Node) -> WebSocketStream<TcpStream> {
        let address = node.addresses().listen;
        let stream = TcpStream::connect(address).await.unwrap();
        let url = format!("ws://{address}/socket.io/?EIO=4&transport=websocket");
        let (mut client, _) = tokio_tungstenite::client_async(url, stream).await.unwrap();
        client.send(Message::text("40")).await.unwrap();
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
            let others = [&first, &second].map(|node| node.io().cluster().raft().ended());
            others.iter().all(|ends| ends.borrow().is_empty()).then_some(())
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
        }
    }
}
