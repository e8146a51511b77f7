//! The adapters of one node, and what its namespaces share.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, RwLock};
use std::time::Duration;

use foldhash::fast::FixedState;
use futures_util::FutureExt as _;
use hashbrown::HashMap;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::error;

use super::acks::Asker;
use super::delivery;
use super::encoder::Encoder;
use super::gathers::Gathers;
use super::namespace::{Adapter, DeliveryMode};
use super::questions::Questions;
use super::recovery::RecoveryConfig;
use crate::metrics;
use crate::peers::{Broadcast, Inbound, Message, Peers};
use crate::raft::state::{Change, Namespace, NodeId, State};
use crate::raft::{ProposeError, Raft, Receipt};
use crate::socketio::Payload;

/// This node's place among the adapters of all nodes.
pub struct Cluster {
    pub(super) raft: Arc<Raft>,
    pub(super) peers: Peers,
    pub(super) gathers: Arc<Gathers>,
    pub(super) questions: Questions,
    adapters: RwLock<HashMap<Namespace, Arc<Adapter>, FixedState>>,
    /// Sockets that ended while that could not be agreed; as many as there were at most, since no
    /// new ones come then.
    unsettled: Mutex<Vec<Change>>,
    encoder: Encoder,
    tasks: TaskTracker,
    pub(super) shutdown: CancellationToken,
    /// Cancelled when a delivery task ends unasked.
    failed: CancellationToken,
    /// Of a namespace's sockets.
    pub(super) shards: usize,
}

/// How long to wait before what could not be proposed is proposed again: the ends of sockets, if the
/// node had too much to do, and the claims that renew them.
pub(super) const SETTLE_RETRY: Duration = Duration::from_millis(200);

/// Broadcasts of peers that may wait for a namespace's delivery task; beyond, they are dropped.
const INBOUND_CAPACITY: usize = 4096;

impl Cluster {
    pub fn new(
        raft: Arc<Raft>,
        peers: Peers,
        encoder: Encoder,
        tasks: TaskTracker,
        shutdown: CancellationToken,
    ) -> Arc<Self> {
        let shards = std::thread::available_parallelism().map_or(2, std::num::NonZero::get).min(16);
        Arc::new(Self {
            raft,
            peers,
            gathers: Arc::default(),
            questions: Questions::default(),
            adapters: RwLock::default(),
            unsettled: Mutex::default(),
            encoder,
            tasks,
            shutdown,
            failed: CancellationToken::new(),
            shards,
        })
    }

    /// The adapter of a namespace, made and started at its first use.
    pub fn adapter(self: &Arc<Self>, name: &Namespace, mode: DeliveryMode) -> Arc<Adapter> {
        self.recoverable_adapter(name, mode, None)
    }

    /// The same; with `recovery`, clients that lost their connection can come back.
    pub fn recoverable_adapter(
        self: &Arc<Self>,
        name: &Namespace,
        mode: DeliveryMode,
        recovery: Option<RecoveryConfig>,
    ) -> Arc<Adapter> {
        let mut adapters =
            self.adapters.write().expect("nothing panics while it holds the adapters");
        if let Some(adapter) = adapters.get(name) {
            return adapter.clone();
        }
        let (inbound, from_peers) = mpsc::channel(INBOUND_CAPACITY);
        let (applied, unhandled) = self.raft.subscribe(name.clone());
        let adapter = Adapter::new(self.clone(), name.clone(), mode, recovery, inbound, unhandled);
        let delivery = delivery::run(adapter.clone(), applied, from_peers, self.shutdown.clone());
        let failed = self.failed.clone();
        self.tasks.spawn(async move {
            if AssertUnwindSafe(delivery).catch_unwind().await.is_err() {
                error!("a namespace's delivery task panicked");
                failed.cancel();
            }
        });
        adapters.insert(name.clone(), adapter.clone());
        adapter
    }

    /// Takes an adapter out of use whose namespace has no sockets here: its delivery task ends.
    /// Whoever still holds it finds the one that is in use with [`Adapter::current`].
    pub fn retire(&self, adapter: &Arc<Adapter>) {
        let mut adapters =
            self.adapters.write().expect("nothing panics while it holds the adapters");
        if adapters.get(&adapter.name).is_some_and(|used| Arc::ptr_eq(used, adapter)) {
            adapters.remove(&adapter.name);
            adapter.is_retired.store(true, Ordering::Release);
            self.raft.unsubscribe(&adapter.name);
        }
    }

    /// Resolves if a namespace's packets are delivered no more, which a node cannot live without.
    pub async fn failed(&self) {
        self.failed.cancelled().await;
    }

    /// What the cluster agrees on, as far as this node has applied it.
    pub fn view(&self) -> Arc<State> {
        self.raft.view()
    }

    pub fn raft(&self) -> &Raft {
        &self.raft
    }

    /// Makes packets what this server's clients read.
    pub fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    /// Hands on what peers say, until their queue ends.
    pub async fn run_inbound(self: Arc<Self>, mut inbound: mpsc::Receiver<Vec<Inbound>>) {
        while let Some(batch) = inbound.recv().await {
            for Inbound { from, message } in batch {
                match message {
                    Message::Broadcast(broadcast) => self.handle_broadcast(from, broadcast),
                    Message::AckCount { request, sockets } => {
                        self.gathers.feed(request, |gather| gather.handle_sent(from, sockets));
                    }
                    Message::Ack { request, payload } => {
                        self.gathers.feed(request, |gather| gather.handle_answer(from, payload));
                    }
                    Message::Ask { request, namespace, question } => {
                        self.handle_question(from, request, namespace, question);
                    }
                    Message::Answer { request, payload } => {
                        self.gathers.feed(request, |gather| gather.handle_reply(from, payload));
                    }
                }
            }
        }
    }

    pub(super) fn handle_broadcast(&self, from: NodeId, broadcast: Broadcast) {
        let adapter = self
            .adapters
            .read()
            .expect("nothing panics while it holds the adapters")
            .get(&broadcast.namespace)
            .cloned();
        let Some(adapter) = adapter else {
            if let Some(request) = broadcast.ack {
                let _ = self.peers.send(from, Message::AckCount { request, sockets: 0 });
            }
            return;
        };
        if adapter.inbound.try_send((from, broadcast)).is_err() {
            metrics::DROPS_INBOUND_FULL.add(1);
        }
    }

    /// A peer is dead: nothing is gathered from it any more.
    pub fn handle_node_down(&self, node: NodeId) {
        self.gathers.handle_node_down(node);
    }

    /// Tells the cluster of a socket's `end`, which is a change: now, or once that can be agreed. What `lingers` may wait
    /// a moment for others.
    pub(super) fn end_socket(self: &Arc<Self>, end: Change, lingers: bool) {
        let (waiter, _receipt) = Receipt::pending();
        let (cluster, again) = (self.clone(), end.clone());
        let waiter = waiter.then(move |answer| match answer {
            Err(error) if error.is_final() => cluster.postpone_end(again, *error),
            Ok(_) | Err(_) => {}
        });
        let pump = self.raft.pump();
        if lingers {
            pump.propose_lingering(end, waiter);
        } else {
            pump.propose_with(end, waiter);
        }
    }

    fn postpone_end(self: &Arc<Self>, end: Change, error: ProposeError) {
        let mut unsettled = self.unsettled();
        unsettled.push(end);
        // Without a quorum, its return is noticed; a full queue has to be tried again.
        if error == ProposeError::Overloaded && unsettled.len() == 1 {
            let cluster = self.clone();
            self.spawn(async move {
                tokio::time::sleep(SETTLE_RETRY).await;
                cluster.settle();
            });
        }
    }

    /// Runs `work` beside, until it ends or the node does.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(self.shutdown.clone().run_until_cancelled_owned(work));
    }

    /// This node holds its lease again: what ended in the meantime can be agreed.
    pub fn settle(self: &Arc<Self>) {
        let ended = std::mem::take(&mut *self.unsettled());
        for end in ended {
            self.end_socket(end, false);
        }
    }

    pub(super) fn unsettled(&self) -> MutexGuard<'_, Vec<Change>> {
        self.unsettled.lock().expect("nothing panics while it holds the unsettled sockets")
    }

    /// Tells whoever asked for acks; that may be this node.
    pub(super) fn tell(&self, asker: Asker, tell: Tell) {
        let me = self.raft.node_id();
        if asker.node == me {
            self.gathers.feed(asker.key, |gather| match tell {
                Tell::Sent(sockets) => gather.handle_sent(me, sockets),
                Tell::Answer(payload) => gather.handle_answer(me, payload),
            });
            return;
        }
        let message = match tell {
            Tell::Sent(sockets) => Message::AckCount { request: asker.key, sockets },
            Tell::Answer(payload) => Message::Ack { request: asker.key, payload },
        };
        // A peer that cannot be told gives up at its timeout, with what it has.
        let _ = self.peers.send(asker.node, message);
    }
}

/// What an asker is told.
pub(super) enum Tell {
    Sent(u32),
    /// `None`: the socket is gone.
    Answer(Option<Payload>),
}
