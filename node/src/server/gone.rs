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
