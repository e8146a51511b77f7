//! What applied changes mean to this process: effects for its namespaces, answers to its proposals,
//! and its own standing in the cluster.

use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytestring::ByteString;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use tokio::sync::{mpsc, watch};

use super::alone::Unhandled;
use super::awaited::Awaited;
use super::own_proposals::OwnProposals;
use super::planted::PlantedBug;
use super::receipt::{Delivery, Handed, News, ProposeError, Receipt, Waiter};
use super::state::{
    Applied, Change, Effect, Incarnation, Namespace, NodeId, NodeStatus, Outcome, Owner, Place,
    State,
};
use super::view::View;

/// Batches that may wait for a namespace's delivery task; when there are more, applying waits.
const QUEUED_BATCHES: usize = 256;

/// To the delivery task of a namespace.
#[derive(Clone, Debug)]
struct Queue {
    sender: mpsc::Sender<Handed>,
    unhandled: Unhandled,
}

impl Queue {
    /// Waits while it is full. Gives the batch back if the task has ended.
    async fn send(&self, batch: Vec<Delivery>) -> Result<(), Vec<Delivery>> {
        self.sender.send(self.handed(batch)).await.map_err(|unsent| unsent.0.batch)
    }

    fn handed(&self, batch: Vec<Delivery>) -> Handed {
        Handed { batch, handled: self.unhandled.begin() }
    }
}

/// How far this process is in the agreed state: what its own applied changes say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// The live incarnation of this process; None before it registered, and after it was declared
    /// dead or lost track.
    pub(crate) live: Option<Incarnation>,
    /// The last own change applied under it.
    pub(crate) last_seq: u64,
}

/// A node of the cluster, as the agreed state has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Peer {
    pub owner: Owner,
    pub name: ByteString,
    /// `host:port` of its gRPC services.
    pub address: ByteString,
    pub status: NodeStatus,
}

/// Filled by the apply task alone.
#[derive(Debug)]
pub(crate) struct Deliveries {
    me: NodeId,
    /// Under which this process registered last; other registrations of the node are not its own.
    boot: AtomicU64,
    pub(crate) awaited: Awaited,
    pub(crate) own_proposals: OwnProposals,
    pub(crate) standing: watch::Sender<Standing>,
    pub(crate) peers: watch::Sender<Arc<[Peer]>>,
    /// The log index up to which everything has been handed to the namespaces' queues.
    pub(crate) handed_over: watch::Sender<u64>,
    /// Hashed alike at each start, for a simulation repeats the order in which they are told.
    queues: Mutex<HashMap<Namespace, Queue, FixedState>>,
    /// How many sockets have ever waited to be told of.
    pub(crate) departures: watch::Sender<u64>,
    pub(crate) planted: Option<PlantedBug>,
}

impl Deliveries {
    pub(crate) fn new(me: NodeId) -> Self {
        Self {
            me,
            boot: AtomicU64::new(0),
            awaited: Awaited::default(),
            own_proposals: OwnProposals::default(),
            standing: watch::Sender::new(Standing::default()),
            peers: watch::Sender::new(Arc::new([])),
            handed_over: watch::Sender::new(0),
            queues: Mutex::default(),
            departures: watch::Sender::new(0),
            planted: None,
        }
    }

    pub(crate) fn with_planted_bug(self, planted: Option<PlantedBug>) -> Self {
        Self { planted, ..self }
    }

    pub(crate) fn set_boot(&self, boot: u64) {
        self.boot.store(boot, Ordering::Release);
    }

    /// Deliveries of a namespace from now on. A second subscription replaces the first.
    pub(crate) fn subscribe(&self, namespace: Namespace) -> (mpsc::Receiver<Handed>, Unhandled) {
        // Full: the apply task waits, so that no delivery is lost.
        let (sender, receiver) = mpsc::channel(QUEUED_BATCHES);
        let unhandled = Unhandled::default();
        let queue = Queue { sender, unhandled: unhandled.clone() };
        self.queues
            .lock()
            .expect("nothing panics while it holds the queues")
            .insert(namespace, queue);
        (receiver, unhandled)
    }

    pub(crate) fn unsubscribe(&self, namespace: &Namespace) {
        self.queues.lock().expect("nothing panics while it holds the queues").remove(namespace);
    }

    fn queues(&self) -> Vec<(Namespace, Queue)> {
        let queues = self.queues.lock().expect("nothing panics while it holds the queues");
        queues.iter().map(|(name, queue)| (name.clone(), queue.clone())).collect()
    }

    fn queue(&self, namespace: &Namespace) -> Option<Queue> {
        let queues = self.queues.lock().expect("nothing panics while it holds the queues");
        queues.get(namespace).cloned()
    }

    /// Whether a registration that `state` holds is the one of this process.
    fn registered(&self, state: &State) -> Option<Incarnation> {
        let node = state.node(self.me)?;
        (node.up.boot == self.boot.load(Ordering::Acquire)).then(|| state.alive(self.me))?
    }

    fn publish_peers(&self, state: &State) {
        let peers = state.nodes().map(|(node, row)| Peer {
            owner: Owner { node, incarnation: row.incarnation },
            name: row.up.name.clone(),
            address: row.up.address.clone(),
            status: row.status,
        });
        self.peers.send_replace(peers.collect());
    }

    fn publish_departures(&self, end: u64) {
        self.departures.send_if_modified(|known| mem::replace(known, end) != end);
    }

    /// [`PlantedBug::DeliveryBeforeCommit`].
    pub(crate) fn deliver_unagreed(&self, origin: Owner, changes: &[Change]) {
        for change in changes {
            let Change::Packet(packet) = change else { continue };
            let Some(queue) = self.queue(&packet.namespace) else { continue };
            let effect = Effect::Packet(packet.clone(), origin);
            // A full queue drops it, which is a bug as well.
            let news = News::Applied(Place::default(), effect);
            let _ = queue.sender.try_send(queue.handed(vec![Delivery { news, waiter: None }]));
        }
    }

    /// This process no longer knows where it stands: it must register again.
    pub(crate) fn lose_track(&self) {
        self.standing.send_replace(Standing::default());
        self.awaited.fail_all(ProposeError::Timeout);
    }

    /// Has every namespace ask for the open sockets that are not this process's, and tell of those that are not known;
    /// resolves once all have.
    pub(crate) async fn ask_for_sockets(&self) {
        let mut asked = Vec::new();
        for (_, queue) in self.queues() {
            let (waiter, receipt) = Receipt::pending();
            let waiter = Some((waiter, Outcome::Applied));
            // A task that has ended has no sockets.
            if queue.send(vec![Delivery { news: News::Opening, waiter }]).await.is_ok() {
                asked.push(receipt);
            }
        }
        for receipt in asked {
            // Unanswered by a task that ended meanwhile.
            let _ = receipt.await;
        }
    }

    /// The state was replaced by a snapshot: what came between was not delivered.
    pub(crate) async fn skipped_to(&self, state: &State) {
        self.publish_peers(state);
        self.publish_departures(state.departures_end());
        self.handed_over.send_replace(state.index());
        let live = self.registered(state);
        let before = self.standing.send_replace(Standing::default());
        if before.live.is_some() {
            // Packets are missing, so this process must begin anew, under another incarnation.
            self.awaited.fail_all(ProposeError::Timeout);
        } else if live.is_some() {
            // Its registration was skipped, before which it was told nothing.
            for (_, queue) in self.queues() {
                // A task that has ended has no sockets.
                let _ = queue.send(vec![Delivery { news: News::Registered, waiter: None }]).await;
            }
            self.standing.send_replace(Standing { live, last_seq: 0 });
        }
    }
}

/// The effects of the entries that are applied in one go.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    standing: Standing,
    /// The incarnation that lived when the batch began.
    began_live: Option<Incarnation>,
    standing_changed: bool,
    peers_changed: bool,
    namespaces: Vec<(Namespace, Vec<Delivery>)>,
    /// Own changes without an effect here.
    answers: Vec<(Waiter, Outcome)>,
}

impl Batch {
    pub(crate) fn begin(deliveries: &Deliveries) -> Self {
        let standing = *deliveries.standing.borrow();
        Self { standing, began_live: standing.live, ..Self::default() }
    }

    /// Notes that a node's row changed in a way that has no effect of its own.
    pub(crate) fn note_peers(&mut self) {
        self.peers_changed = true;
    }

    /// Adds what follows from one change of `proposer`, applied at `place`.
    pub(crate) fn add(
        &mut self,
        deliveries: &Deliveries,
        view: &View,
        place: Place,
        proposer: Owner,
        applied: Applied,
    ) {
        let own =
            proposer.node == deliveries.me && self.standing.live == Some(proposer.incarnation);
        let mut waiter = None;
        if own {
            self.standing.last_seq = applied.seq;
            self.standing_changed = true;
            waiter = deliveries.awaited.take(proposer.incarnation, applied.seq);
        }
        let mut queued = None;
        for effect in applied.effects {
            if let Some(namespace) = self.concerns(deliveries, view, &effect) {
                let news = News::Applied(place, effect);
                queued = Some(self.push(&namespace, Delivery { news, waiter: None }));
            }
        }
        let Some(waiter) = waiter else { return };
        match queued {
            Some(at) => {
                let last = self.namespaces[at].1.last_mut().expect("it was just pushed");
                last.waiter = Some((waiter, applied.outcome));
            }
            None => self.answers.push((waiter, applied.outcome)),
        }
    }

    /// The namespace whose delivery task of this process has to act on the effect.
    fn concerns(
        &mut self,
        deliveries: &Deliveries,
        view: &View,
        effect: &Effect,
    ) -> Option<Namespace> {
        let (namespace, owner) = match effect {
            Effect::Packet(_, origin)
                if origin.node == deliveries.me
                    && deliveries.planted == Some(PlantedBug::DeliveryBeforeCommit) =>
            {
                return None;
            }
            Effect::SocketTaken { .. } if deliveries.planted == Some(PlantedBug::NoYield) => {
                return None;
            }
            Effect::Packet(packet, _) => {
                return self.standing.live.map(|_| packet.namespace.clone());
            }
            Effect::NodeUp { owner } => {
                self.node_up(deliveries, view, *owner);
                return None;
            }
            Effect::NodeDown { owner } => {
                self.node_down(deliveries, *owner);
                return None;
            }
            Effect::SocketUp { namespace, owner, .. }
            | Effect::SocketGone { namespace, owner, .. }
            | Effect::Joined { namespace, owner, .. }
            | Effect::Left { namespace, owner, .. }
            | Effect::Disconnect { namespace, owner, .. }
            | Effect::SocketTaken { namespace, owner, .. }
            | Effect::SocketRecovered { namespace, owner, .. }
            | Effect::SessionChanged { namespace, owner, .. } => (namespace, owner),
        };
        let own = owner.node == deliveries.me && self.standing.live == Some(owner.incarnation);
        own.then(|| namespace.clone())
    }

    fn node_up(&mut self, deliveries: &Deliveries, view: &View, owner: Owner) {
        self.peers_changed = true;
        let is_own = |state: &State| deliveries.registered(state) == Some(owner.incarnation);
        if owner.node == deliveries.me && view.glance(is_own) {
            self.standing = Standing { live: Some(owner.incarnation), last_seq: 0 };
            self.standing_changed = true;
            // In order with the packets: those before were another incarnation's.
            for (namespace, _) in deliveries.queues() {
                self.push(&namespace, Delivery { news: News::Registered, waiter: None });
            }
        }
    }

    fn node_down(&mut self, deliveries: &Deliveries, owner: Owner) {
        self.peers_changed = true;
        if owner.node == deliveries.me && self.standing.live == Some(owner.incarnation) {
            // Nothing that this incarnation proposed will be applied from here on.
            deliveries.awaited.fail_all(ProposeError::NoQuorum);
            self.standing = Standing::default();
            self.standing_changed = true;
        }
    }

    fn push(&mut self, namespace: &Namespace, delivery: Delivery) -> usize {
        let at = self.namespaces.iter().position(|(name, _)| name == namespace);
        let at = at.unwrap_or_else(|| {
            self.namespaces.push((namespace.clone(), Vec::new()));
            self.namespaces.len() - 1
        });
        self.namespaces[at].1.push(delivery);
        at
    }

    /// Hands everything over. Waits where a queue is full.
    pub(crate) async fn deliver(self, deliveries: &Deliveries, view: &View) {
        if self.peers_changed {
            deliveries.publish_peers(&view.load());
        }
        deliveries.publish_departures(view.glance(State::departures_end));
        for (namespace, mut batch) in self.namespaces {
            if let Some(queue) = deliveries.queue(&namespace) {
                match queue.send(batch).await {
                    Ok(()) => continue,
                    // The task has ended: the process is stopping.
                    Err(unsent) => batch = unsent,
                }
            }
            for (waiter, outcome) in batch.into_iter().filter_map(|delivery| delivery.waiter) {
                waiter.answer(Ok(outcome));
            }
        }
        deliveries.handed_over.send_replace(view.index());
        for (waiter, outcome) in self.answers {
            waiter.answer(Ok(outcome));
        }
        if self.standing_changed {
            deliveries.standing.send_if_modified(|standing| {
                // This process may have lost track since the batch began: only another registration ends that.
                if standing.live.is_none() && self.standing.live == self.began_live {
                    return false;
                }
                mem::replace(standing, self.standing) != self.standing
            });
        }
    }
}
