//! What nodes agree on, and the order of broadcasts.
//!
//! A change is proposed through the [`Pump`], travels to the leader, is replicated, and is applied
//! to every node's [`State`]; its effects reach the namespaces' delivery tasks in the
//! order of the log. Only this module names openraft's types.

mod alone;
mod awaited;
mod company;
pub mod config;
mod core;
mod deliveries;
mod early_commit;
mod gather;
mod inspect;
mod leader_watch;
mod log_store;
mod members;
mod network;
mod own_proposals;
mod planted;
mod proposer;
mod pump;
mod receipt;
mod role;
mod runtime;
mod service;
mod snapshots;
mod start;
pub mod state;
mod state_machine;
mod storage;
mod threads;
mod types;
mod view;
pub(crate) mod wire;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;
use tracing::{error, info, warn};

pub use self::core::Clock;
use self::core::Core;
pub use alone::{BeingHandled, Unhandled};
pub use deliveries::Peer;
pub use inspect::inspect;
pub use leader_watch::LeaderWatch;
use members::namesakes;
pub use planted::PlantedBug;
pub use pump::Pump;
pub use receipt::{Answer, Delivery, Handed, News, ProposeError, Receipt, Status, Waiter};
pub use role::Role;
pub use start::{Options, StartError, Threads};
use state::{Change, Incarnation, Namespace, NodeId, NodeStatus, State};
pub use storage::MemoryDisk;
use threads::OwnThreads;

/// How long a draining node waits for each step that needs the others.
const DRAIN_STEP: Duration = Duration::from_secs(2);

/// How often a node looks whether consensus goes on.
const FAILURE_POLL: Duration = Duration::from_millis(250);
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// This node's part in the cluster.
#[derive(Debug)]
pub struct Raft {
    core: Arc<Core>,
    tasks: TaskTracker,
    stop: CancellationToken,
    handle: Handle,
    /// Its own, unless it shares the caller's.
    own_threads: Mutex<Option<OwnThreads>>,
}

/// Numbers for the metrics page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    pub term: u64,
    pub is_leader: bool,
    /// None once consensus has ended.
    pub role: Option<Role>,
    pub commit_index: u64,
    pub applied_index: u64,
    pub last_log_index: u64,
    pub snapshot_index: u64,
    pub voters: usize,
    pub learners: usize,
    /// Nodes that are registered and not down.
    pub nodes_up: usize,
    /// Other live nodes that have this one's name.
    pub namesakes: usize,
    pub queued_changes: usize,
    pub queued_bytes: usize,
}

impl Raft {
    /// Opens the node's data, and starts to look for its cluster; [`status`](Self::status) tells
    /// when it is found. The gRPC services must be served for it to happen.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        start::start(options).await
    }

    /// The gRPC services of consensus, to be served at the node's address, on
    /// [`handle`](Self::handle).
    pub fn routes(&self) -> Routes {
        Routes::new(service::Service(self.core.clone()).server())
    }

    /// The runtime that consensus runs on.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    pub fn pump(&self) -> &Pump {
        &self.core.pump
    }

    /// The agreed state, as far as this node has applied it. Waits for an entry that is being applied, which
    /// never takes long; whoever keeps it has what changes meanwhile copied.
    pub fn view(&self) -> Arc<State> {
        self.core.view.load()
    }

    /// Looks at what the [`view`](Self::view) shows without keeping it. Applying waits meanwhile.
    pub(crate) fn glance<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        self.core.view.glance(look)
    }

    /// How far the [`view`](Self::view) is in the log, at least.
    pub fn applied_index(&self) -> u64 {
        self.core.view.index()
    }

    /// What the namespace's delivery task has to act on, in the order of the log, from now on.
    ///
    /// The queue is bounded: while it is full, nothing is applied. A second subscription replaces
    /// the first. The counter says how much of it the task is not done with.
    pub fn subscribe(&self, namespace: Namespace) -> (mpsc::Receiver<Handed>, Unhandled) {
        self.core.deliveries.subscribe(namespace)
    }

    /// Nobody acts on what is agreed about the namespace any more.
    pub fn unsubscribe(&self, namespace: &Namespace) {
        self.core.deliveries.unsubscribe(namespace);
    }

    /// Where this node stands. A node may be down and ready again between two looks: its
    /// [`incarnation`](Self::incarnation) tells.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.core.status.subscribe()
    }

    /// All nodes that ever registered, those that are down too.
    pub fn peers(&self) -> watch::Receiver<Arc<[Peer]>> {
        self.core.deliveries.peers.subscribe()
    }

    /// Tells when [more sockets](State::departed) wait for someone to be told of them.
    pub fn departures(&self) -> watch::Receiver<u64> {
        self.core.deliveries.departures.subscribe()
    }

    pub fn node_id(&self) -> NodeId {
        self.core.me
    }

    /// Milliseconds since the Unix epoch, by the clock that stamps this node's changes.
    pub fn now_ms(&self) -> u64 {
        (self.core.clock)()
    }

    /// The cluster's id, the same on all its nodes; None before one is found.
    pub fn cluster_id(&self) -> Option<u64> {
        let cluster = self.core.directory.cluster();
        (cluster != 0).then_some(cluster)
    }

    /// Has this node register again, as if it had been given up.
    #[cfg(test)]
    pub(crate) fn lose_track(&self) {
        self.core.deliveries.lose_track();
    }

    /// None while this node is not registered.
    pub fn incarnation(&self) -> Option<Incarnation> {
        self.core.deliveries.standing.borrow().live
    }

    /// Whether the view may direct messages: this node's lease is held, and it has applied all that
    /// the leader's log had when it was renewed. Otherwise messages go to every node.
    pub fn is_fresh(&self) -> bool {
        let lease = &self.core.own_lease;
        lease.is_held(Instant::now()) && self.core.view.index() >= lease.log_end()
    }

    /// Resolves once everything up to `index` has been handed to the namespaces' queues.
    pub async fn handed_over(&self, index: u64) {
        let sender = &self.core.deliveries.handed_over;
        if *sender.borrow() < index {
            // The sender lives as long as this.
            let _ = sender.subscribe().wait_for(|reached| *reached >= index).await;
        }
    }

    pub fn numbers(&self) -> Numbers {
        let metrics = self.core.consensus.metrics().borrow_watched().clone();
        let membership = metrics.membership_config.membership();
        let (queued_changes, queued_bytes) = self.core.pump.queued();
        let view = self.core.view.load();
        Numbers {
            term: metrics.current_term,
            is_leader: self.core.leads(),
            role: Role::of(metrics.state),
            commit_index: metrics.local_committed.map_or(0, |id| id.index),
            applied_index: view.index(),
            last_log_index: metrics.last_log_index.unwrap_or(0),
            snapshot_index: metrics.snapshot.map_or(0, |id| id.index),
            voters: membership.voter_ids().count(),
            learners: membership.learner_ids().count(),
            nodes_up: view.nodes().filter(|(node, _)| view.alive(*node).is_some()).count(),
            namesakes: namesakes(&view, self.core.me, &self.core.member.name).count(),
            queued_changes,
            queued_bytes,
        }
    }

    pub fn voters(&self) -> Vec<NodeId> {
        let membership =
            self.core.consensus.server_metrics().borrow_watched().membership_config.clone();
        membership.voter_ids().collect()
    }

    /// The node that leads, as far as this one knows.
    pub fn leader(&self) -> Option<NodeId> {
        self.core.lead.borrow().id()
    }

    /// Tells when [`leader`](Self::leader) changes.
    pub fn leader_watch(&self) -> LeaderWatch {
        LeaderWatch(self.core.lead.clone())
    }

    /// Resolves with the reason when consensus cannot go on, for example because the disk failed.
    ///
    /// It looks now and then: openraft's metrics change with every entry, and whoever waits for
    /// them is woken as often.
    pub async fn failed(&self) -> String {
        let metrics = self.core.consensus.metrics();
        loop {
            let state = metrics.borrow_watched().running_state.clone();
            if let Err(error) = state {
                error!(%error, "consensus has failed");
                return error.to_string();
            }
            tokio::time::sleep(FAILURE_POLL).await;
        }
    }

    /// Tells the cluster that this node takes no more clients. Proposals go on.
    pub async fn announce_drain(&self) {
        self.core.status.send_replace(Status::Draining);
        let announced = self.core.pump.propose(Change::NodeDraining);
        if !matches!(self.while_agreeing(DRAIN_STEP, announced).await, Some(Ok(_))) {
            warn!("the cluster was not told of the drain");
        }
    }

    /// Hands over leadership, refuses new proposals, and waits until the old ones are settled.
    ///
    /// Once the others that could agree are gone it waits no longer: nobody was told that what is
    /// still open was agreed, and nobody will be.
    pub async fn drain(&self) {
        if *self.core.status.borrow() != Status::Draining {
            self.announce_drain().await;
        }
        self.hand_over().await;
        let limit = self.core.settings.propose_timeout + DRAIN_STEP;
        if self.while_agreeing(limit, self.core.pump.drain()).await.is_none() {
            warn!("proposals were not settled");
        }
    }

    /// What `work` brings, unless `limit` or all hope of agreement ends before it does.
    async fn while_agreeing<T>(&self, limit: Duration, work: impl Future<Output = T>) -> Option<T> {
        let mut company = self.core.company.subscribe();
        tokio::select! {
            biased;
            done = tokio::time::timeout(limit, work) => done.ok(),
            // The sender lives as long as this.
            _ = company.wait_for(|company| company.is_over) => None,
        }
    }

    /// The voter that has most of the log, of those that stay and answer.
    async fn heir(&self) -> Option<NodeId> {
        let mut company = self.core.company.subscribe();
        let asked = company.wait_for(|company| company.answering.is_some());
        let answering = self.while_agreeing(DRAIN_STEP, asked).await?.ok()?.answering.clone()?;
        let metrics = self.core.consensus.metrics().borrow_watched().clone();
        let view = self.view();
        let stays = |node: &NodeId| {
            view.node(*node).is_some_and(|row| row.status == NodeStatus::Alive)
                && answering.contains(node)
        };
        let voters = metrics.membership_config.voter_ids();
        let heirs = voters.filter(|node| *node != self.core.me && stays(node));
        let matching = |node: &NodeId| metrics.replication.as_ref()?.get(node).copied().flatten();
        heirs.max_by_key(matching)
    }

    /// Gives leadership away, if this node leads and another stays.
    async fn hand_over(&self) {
        if !self.core.leads() {
            return;
        }
        let Some(heir) = self.heir().await else { return };
        let mut lead = self.core.lead.clone();
        if self.core.consensus.trigger().transfer_leader(heir).await.is_err() {
            return;
        }
        let me = Some(self.core.me);
        let handed_over = lead.wait_for(|lead| lead.id().is_some() && lead.id() != me);
        match self.while_agreeing(DRAIN_STEP, handed_over).await {
            Some(Ok(lead)) => info!(leader = lead.id(), "leadership handed over"),
            Some(Err(_)) | None => warn!("leadership could not be handed over"),
        }
    }

    /// Ends consensus on this node. What was not settled by [`drain`](Self::drain) is unknown.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        if let Err(error) = self.core.consensus.shutdown().await {
            warn!(%error, "consensus did not end well");
        }
        if let Some(threads) = self.take_threads() {
            // Replication's tasks end with them.
            let ended = tokio::task::spawn_blocking(|| threads.shutdown(STOP_TIMEOUT));
            if ended.await.is_err() {
                warn!("the threads of consensus did not end well");
            }
        }
        // Its tasks end a moment after it, and the last one closes the log.
        let released = self.core.log_released.cancelled();
        if tokio::time::timeout(STOP_TIMEOUT, released).await.is_err() {
            warn!("the log is still open");
        }
    }

    fn take_threads(&self) -> Option<OwnThreads> {
        self.own_threads.lock().expect("nothing panics while it holds them").take()
    }
}

impl Drop for Raft {
    fn drop(&mut self) {
        self.stop.cancel();
        // They must not be waited for where others run.
        if let Some(threads) = self.take_threads() {
            threads.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests;
