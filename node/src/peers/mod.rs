//! What nodes tell each other directly: fast, in order for each pair of nodes, at most once.

mod link;
mod message;
mod queue;
mod service;
mod tunnel;
mod tunnels;
mod wire;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use bytestring::ByteString;
use flotilla_proto::peers::peers_server::PeersServer;
use tokio::sync::{SetOnce, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, info_span};

use self::link::Link;
pub use self::message::{Broadcast, Inbound, Message, Question};
pub use self::service::Service;
pub use self::tunnel::{Leaver, Tunnel};
pub use self::tunnels::{Accepted, OpenError, RelayService, Tunnels};
use crate::metrics;
use crate::net::Dialer;
use crate::raft::state::{Incarnation, NodeId};

/// What is spoken on the streams; nodes refuse other versions.
const VERSION: u32 = 1;

/// Frames that wait for the node to act on them, of all peers together; at the bound the streams
/// are not read, and the peers' queues fill.
const INBOUND_FRAMES: usize = 64;

/// No larger message is taken, here or there.
const MAX_MESSAGE_BYTES: usize = 32 << 20;

/// A frame is at most one large message behind others.
const MAX_DECODED_BYTES: usize = 2 * MAX_MESSAGE_BYTES;

/// What may wait for one peer; at the bound, a message is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeersConfig {
    pub max_queue_bytes: usize,
    pub max_queue_messages: usize,
}

impl Default for PeersConfig {
    fn default() -> Self {
        Self { max_queue_bytes: 64 << 20, max_queue_messages: 100_000 }
    }
}

/// A message was not taken, and will not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    #[error("the node is no peer")]
    Unknown,
    #[error("too much waits for the peer")]
    Full,
    /// Volatile messages alone do not wait for it.
    #[error("the peer is out of reach")]
    Down,
    #[error("the message is too large")]
    TooLarge,
}

/// Another node, as the cluster knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub node: NodeId,
    pub incarnation: Incarnation,
    /// `host:port` of its gRPC services.
    pub address: ByteString,
}

/// This node's links to the others. Clones are the same.
#[derive(Clone)]
pub struct Peers(Arc<Inner>);

struct Inner {
    config: PeersConfig,
    me: Arc<Me>,
    dialer: Dialer,
    inbound: mpsc::Sender<Vec<Inbound>>,
    links: ArcSwap<BTreeMap<NodeId, Arc<Link>>>,
    /// Held while the links are replaced.
    changing: Mutex<()>,
    /// Set once this node has been told of the others.
    introduced: SetOnce<()>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

/// This node, as it presents itself; 0 until the cluster has told it.
#[derive(Debug)]
struct Me {
    node: NodeId,
    cluster: AtomicU64,
    incarnation: AtomicU64,
}

impl Me {
    fn cluster(&self) -> u64 {
        self.cluster.load(Ordering::Acquire)
    }

    fn incarnation(&self) -> Incarnation {
        self.incarnation.load(Ordering::Acquire)
    }
}

impl Peers {
    /// No links at first, and calls are refused until [`register`](Self::register). The receiver
    /// gets what peers say: the messages of one peer in the order in which it sent them.
    pub fn new(
        config: PeersConfig,
        node: NodeId,
        dialer: Dialer,
        tasks: TaskTracker,
        shutdown: CancellationToken,
    ) -> (Self, mpsc::Receiver<Vec<Inbound>>) {
        let (inbound, receiver) = mpsc::channel(INBOUND_FRAMES);
        let me = Arc::new(Me { node, cluster: AtomicU64::new(0), incarnation: AtomicU64::new(0) });
        let links = ArcSwap::default();
        let changing = Mutex::default();
        let introduced = SetOnce::new();
        let inner =
            Inner { config, me, dialer, inbound, links, changing, introduced, tasks, shutdown };
        (Self(Arc::new(inner)), receiver)
    }

    /// This node is in a cluster, under this incarnation; again whenever it registers again.
    pub fn register(&self, cluster: u64, incarnation: Incarnation) {
        self.0.me.incarnation.store(incarnation, Ordering::Release);
        self.0.me.cluster.store(cluster, Ordering::Release);
    }

    /// Keeps a link to each of these (this node aside), and to no other node.
    ///
    /// A member with a new incarnation or address gets a new link; what waited for the old
    /// incarnation is dropped, because its successor knows nothing of what it asked.
    pub fn set_members(&self, members: &[Member]) {
        let inner = &self.0;
        let _guard = inner.changing.lock().expect("nothing panics while it replaces the links");
        let old = inner.links.load_full();
        let mut links = BTreeMap::new();
        for member in members.iter().filter(|member| member.node != inner.me.node) {
            let kept = old.get(&member.node).filter(|link| link.to() == member).cloned();
            links.insert(member.node, kept.unwrap_or_else(|| self.start_link(member)));
        }
        for link in old.values() {
            if !links.get(&link.to().node).is_some_and(|kept| Arc::ptr_eq(kept, link)) {
                link.stop();
            }
        }
        inner.links.store(Arc::new(links));
        // All but the first time it is set already.
        let _ = inner.introduced.set(());
    }

    fn start_link(&self, member: &Member) -> Arc<Link> {
        let inner = &self.0;
        let link = Link::new(member.clone(), &inner.config, inner.shutdown.child_token());
        let link = Arc::new(link);
        let running = link.clone().run(inner.me.clone(), inner.dialer.clone());
        let span = info_span!("peer", peer = member.node, address = %member.address);
        inner.tasks.spawn(running.instrument(span));
        link
    }

    /// Queues a message for a peer, at once. `Ok` is no promise that it arrives.
    pub fn send(&self, to: NodeId, message: Message) -> Result<(), SendError> {
        let sent = if message.bytes() > MAX_MESSAGE_BYTES {
            Err(SendError::TooLarge)
        } else {
            let links = self.0.links.load();
            links.get(&to).map_or(Err(SendError::Unknown), |link| link.send(message))
        };
        match sent {
            Err(SendError::Full | SendError::TooLarge) => metrics::PEER_MESSAGES_REFUSED.add(1),
            Err(SendError::Down) => metrics::DROPS_VOLATILE.add(1),
            Ok(()) | Err(SendError::Unknown) => {}
        }
        sent
    }

    /// How many peers listen to this node at the moment.
    pub fn up(&self) -> usize {
        self.0.links.load().values().filter(|link| link.is_up()).count()
    }

    /// Whether a peer listens to this node at the moment.
    pub fn is_up(&self, node: NodeId) -> bool {
        self.0.links.load().get(&node).is_some_and(|link| link.is_up())
    }

    /// Bytes that wait, for all peers together.
    pub fn queue_bytes(&self) -> usize {
        self.0.links.load().values().map(|link| link.queue_bytes()).sum()
    }

    /// What the node's gRPC server must offer, for others' links to call.
    pub fn service(&self) -> PeersServer<Service> {
        let inner = &self.0;
        let service = Service::new(
            inner.me.clone(),
            inner.inbound.clone(),
            inner.tasks.clone(),
            inner.shutdown.clone(),
        );
        PeersServer::new(service).max_decoding_message_size(MAX_DECODED_BYTES)
    }
}

#[cfg(test)]
mod tests;
