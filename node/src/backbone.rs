//! Backbone: what makes a node one of several. The node puts clients in front of it.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use crate::adapter::{Cluster, Encoder};
use crate::net::{self, Incoming};
use crate::peers::{Member, Peers, PeersConfig, Tunnels};
use crate::raft::state::NodeStatus;
use crate::raft::{Options, Peer, Raft, StartError, Status};

/// Consensus, the links to the peers, and the adapters that stand on both.
#[derive(Clone)]
pub struct Backbone {
    pub raft: Arc<Raft>,
    pub peers: Peers,
    pub cluster: Arc<Cluster>,
    pub tunnels: Tunnels,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Backbone {
    /// Starts consensus, and serves other nodes at `incoming` until `stop` is cancelled.
    pub async fn start(
        options: Options,
        incoming: Incoming,
        encoder: Encoder,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Result<Self, StartError> {
        let dialer = options.dialer.clone();
        let raft = Arc::new(Raft::start(options).await?);
        let (peers, inbound) =
            Peers::new(PeersConfig::default(), raft.node_id(), dialer, tasks.clone(), stop.clone());
        let tunnels = Tunnels::new(peers.clone());
        let routes = raft.routes().add_service(peers.service()).add_service(tunnels.service());
        let served = net::serve(incoming, routes, stop.clone().cancelled_owned());
        let serving = async move {
            if let Err(error) = served.await {
                warn!(%error, "gRPC services have ended");
            }
        };
        tasks.spawn_on(serving, raft.handle());
        let cluster =
            Cluster::new(raft.clone(), peers.clone(), encoder, tasks.clone(), stop.clone());
        let backbone = Self { raft, peers, cluster, tunnels, tasks, stop };
        backbone.spawn(backbone.cluster.clone().run_inbound(inbound));
        backbone.spawn(backbone.clone().watch_peers());
        backbone.spawn(backbone.clone().watch_standing());
        Ok(backbone)
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            stop.run_until_cancelled(work).await;
        });
    }

    /// Keeps the links to peers in step with what is agreed about nodes.
    async fn watch_peers(self) {
        let (mut members, mut status) = (self.raft.peers(), self.raft.status());
        let mut known: Vec<Member> = Vec::new();
        loop {
            status.mark_unchanged();
            let alive: Vec<Member> =
                members.borrow_and_update().iter().filter_map(live_member).collect();
            if let (Some(cluster_id), Some(incarnation)) =
                (self.raft.cluster_id(), self.raft.incarnation())
            {
                self.peers.register(cluster_id, incarnation);
                // Before, this node would be refused, as nobody.
                self.peers.set_members(&alive);
            }
            for gone in known.iter().filter(|member| !alive.contains(member)) {
                self.cluster.handle_node_down(gone.node);
            }
            known = alive;
            // This node's own incarnation may be known only after the last change of members.
            tokio::select! {
                Ok(()) = members.changed() => {}
                Ok(()) = status.changed() => {}
                else => return,
            }
        }
    }

    /// Has the cluster told of what ended while this node did not hold its lease.
    async fn watch_standing(self) {
        let mut status = self.raft.status();
        loop {
            if *status.borrow_and_update() == Status::Ready {
                self.cluster.settle();
            }
            if status.changed().await.is_err() {
                return;
            }
        }
    }
}

fn live_member(peer: &Peer) -> Option<Member> {
    (peer.status != NodeStatus::Down).then(|| Member {
        node: peer.owner.node,
        incarnation: peer.owner.incarnation,
        address: peer.address.clone(),
    })
}
