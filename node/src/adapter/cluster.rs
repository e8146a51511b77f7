//! The sockets of every node: replicated or direct delivery.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};
use std::time::Duration;

use arc_swap::ArcSwap;
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
use super::gathers::{Gathering, Gathers};
use super::local::{Local, Plane};
use super::outbox::Encoded;
use super::projection::{Outgoing, Projection};
use super::questions::Questions;
use super::recipient::{Phase, Recipient};
use super::recovery::{Connecting, Recovery, RecoveryConfig};
use super::rooms::{RoomEvent, Watch};
use crate::metrics;
use crate::peers::{Broadcast, Inbound, Message, Peers};
use crate::raft::state::{
    Change, Namespace, NodeId, Packet, Rooms, SessionId, SocketId, SocketUp, State, Target,
};
use crate::raft::{ProposeError, Raft, Receipt, Unhandled};
use crate::socketio::Payload;
use crate::socketio::codec::Kind;

/// How a namespace's packets travel unless an emit says otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryMode {
    /// Through the log: one order for all, and nothing acknowledged is lost.
    #[default]
    Replicated,
    /// Straight to the nodes that have a target: at most once, in order for each sender.
    Direct,
}

/// How one emit travels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EmitFlags {
    /// Direct delivery, whatever the namespace's mode.
    pub direct: bool,
    /// Only to clients that can take it now; always direct.
    pub volatile: bool,
    /// Only to this node's sockets; always direct.
    pub local: bool,
    /// By itself no reason to compress a response that it is in.
    pub uncompressed: bool,
}

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
    shutdown: CancellationToken,
    /// Cancelled when a delivery task ends unasked.
    failed: CancellationToken,
    shards: usize,
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
        let adapter = Arc::new(Adapter {
            name: name.clone(),
            mode,
            local: Local::new(self.shards).with_session_keys(self.raft.view().session_keys()),
            connecting: Mutex::default(),
            recovery: recovery.map(Recovery::new),
            next_ack_id: AtomicU64::new(0),
            hearing: AtomicUsize::new(0),
            projections: ArcSwap::default(),
            is_retired: AtomicBool::new(false),
            inbound,
            unhandled,
            turn: Mutex::default(),
            cluster: self.clone(),
        });
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

    fn handle_broadcast(&self, from: NodeId, broadcast: Broadcast) {
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

    /// Tells the cluster of a socket's `end`, which is a change: now, or once that can be agreed.
    fn end_socket(self: &Arc<Self>, end: Change) {
        let (waiter, _receipt) = Receipt::pending();
        let (cluster, again) = (self.clone(), end.clone());
        let waiter = waiter.then(move |answer| match answer {
            Err(error) if error.is_final() => cluster.postpone_end(again, *error),
            Ok(_) | Err(_) => {}
        });
        self.raft.pump().propose_with(end, waiter);
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
            self.end_socket(end);
        }
    }

    fn unsettled(&self) -> MutexGuard<'_, Vec<Change>> {
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

/// One namespace on this node, and its way to the others.
pub struct Adapter {
    pub(super) name: Namespace,
    mode: DeliveryMode,
    pub(super) local: Local,
    /// Sockets whose `SocketUp` or `SocketClaim` is on its way, by their ids and claims, until the
    /// delivery task lets them in.
    connecting: Mutex<HashMap<(SocketId, u64), Connecting, FixedState>>,
    pub(super) recovery: Option<Recovery>,
    next_ack_id: AtomicU64,
    /// Sockets that hear of the events that are queued for them: mostly none.
    hearing: AtomicUsize,
    /// Packets for certain rooms are delivered otherwise: mostly none.
    pub(super) projections: ArcSwap<Vec<Arc<Projection>>>,
    is_retired: AtomicBool,
    inbound: mpsc::Sender<(NodeId, Broadcast)>,
    pub(super) unhandled: Unhandled,
    /// Held while a replicated packet is handed out: one after the other, whoever does it.
    pub(super) turn: Mutex<()>,
    pub(super) cluster: Arc<Cluster>,
}

impl Adapter {
    pub fn name(&self) -> &Namespace {
        &self.name
    }

    pub fn view(&self) -> Arc<State> {
        self.cluster.view()
    }

    pub fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    pub fn encoder(&self) -> &Encoder {
        self.cluster.encoder()
    }

    /// This adapter, or the one that took its place.
    pub fn current(self: &Arc<Self>) -> Arc<Self> {
        if self.is_retired.load(Ordering::Acquire) {
            self.cluster.adapter(&self.name, self.mode)
        } else {
            self.clone()
        }
    }

    /// Has the layer above hear of each event that is queued for a socket, or no longer.
    pub fn hear(&self, recipient: &Recipient, hears: bool) {
        // One that is gone hears of nothing more, and nobody would say so for it a second time.
        let hears = hears && recipient.phase() != Phase::Gone;
        match (recipient.set_hears(hears), hears) {
            (false, true) => self.hearing.fetch_add(1, Ordering::Relaxed),
            (true, false) => self.hearing.fetch_sub(1, Ordering::Relaxed),
            (false, false) | (true, true) => return,
        };
    }

    /// This node.
    pub fn node_id(&self) -> NodeId {
        self.cluster.raft.node_id()
    }

    /// Makes a socket known to the cluster. Once that is agreed, the delivery task queues its
    /// CONNECT and moves it to [`Phase::Connected`].
    pub fn connect(&self, recipient: Arc<Recipient>, session: SessionId, rooms: Rooms) -> Receipt {
        self.connect_with_session(recipient, session, None, rooms)
    }

    /// The same. With `keep` the session is made if it is not there, and outlives its sockets by
    /// so much.
    pub fn connect_with_session(
        &self,
        recipient: Arc<Recipient>,
        session: SessionId,
        keep: Option<Duration>,
        rooms: Rooms,
    ) -> Receipt {
        let connecting = Connecting::new(recipient);
        let up = SocketUp {
            socket: connecting.recipient.id,
            pid: connecting.pid,
            namespace: self.name.clone(),
            session,
            keep_session_ms: keep.map_or(0, |keep| keep.as_millis() as u64),
            rooms,
            recovery: self.recovery.as_ref().map(Recovery::terms),
        };
        self.propose_connecting(connecting, Change::SocketUp(Box::new(up)))
    }

    /// Proposes the change after which the delivery task lets a socket in.
    pub(super) fn propose_connecting(&self, socket: Connecting, change: Change) -> Receipt {
        // Held while proposing, so that the end of its connection comes before or after both.
        let mut connecting = self.connecting();
        if socket.recipient.phase() != Phase::Connecting {
            return Receipt::refused(ProposeError::NoQuorum);
        }
        connecting.insert((socket.recipient.id, socket.recipient.claim), socket);
        self.propose(change)
    }

    /// A socket of this node is over, for whatever reason.
    pub fn leave_namespace(&self, recipient: &Recipient) {
        let socket = recipient.id;
        self.end(recipient, Change::SocketGone { socket, claim: recipient.claim });
    }

    /// Takes a socket out of this node, and tells the cluster of its `end`, which is a change.
    pub(super) fn end(&self, recipient: &Recipient, end: Change) {
        let mut connecting = self.connecting();
        let was_connecting = connecting.remove(&(recipient.id, recipient.claim)).is_some();
        let was_connected = (Phase::Connected..Phase::Rejected).contains(&recipient.phase());
        recipient.advance(Phase::Gone);
        // Otherwise the cluster never heard of it.
        if was_connecting || was_connected {
            self.cluster.end_socket(end);
        }
        drop(connecting);
        self.local.remove_recipient(recipient);
        self.hear(recipient, false);
        for asker in recipient.renounce_debts() {
            self.cluster.tell(asker, Tell::Answer(None));
        }
    }

    pub fn join(self: &Arc<Self>, socket: SocketId, rooms: Rooms) -> Receipt {
        self.call(socket, rooms, true)
    }

    pub fn leave(self: &Arc<Self>, socket: SocketId, rooms: Rooms) -> Receipt {
        self.call(socket, rooms, false)
    }

    fn call(self: &Arc<Self>, socket: SocketId, rooms: Rooms, joins: bool) -> Receipt {
        self.local.call(&socket, &rooms, joins);
        let (waiter, receipt) = Receipt::pending();
        let called = (self.clone(), rooms.clone());
        let waiter = waiter.then(move |_answer| called.0.local.settle(&socket, &called.1));
        let change =
            if joins { Change::Join { socket, rooms } } else { Change::Leave { socket, rooms } };
        self.cluster.raft.pump().propose_with(change, waiter);
        receipt
    }

    /// This node's sockets that are meant, as direct packets see them.
    pub fn local_sockets(&self, target: &Target) -> Vec<SocketId> {
        self.local.matching(target, Plane::Direct)
    }

    /// The same, as recipients.
    pub fn local_recipients(&self, target: &Target) -> Vec<Arc<Recipient>> {
        let mut recipients = Vec::new();
        self.local.visit(target, Plane::Direct, |recipient| recipients.push(recipient.clone()));
        recipients
    }

    /// A socket of this node.
    pub fn local_recipient(&self, id: &SocketId) -> Option<Arc<Recipient>> {
        self.local.get(id)
    }

    /// Has `listener` told of this node's rooms from now on, in order, by a task of its own.
    pub fn watch_rooms(&self, listener: impl Fn(RoomEvent) + Send + Sync + 'static) {
        let (watch, telling) = Watch::new(Box::new(listener));
        self.local.watch(watch);
        self.cluster.spawn(telling);
    }

    pub fn join_matching(&self, target: Target, rooms: Rooms) -> Receipt {
        self.propose(Change::JoinMatching { namespace: self.name.clone(), target, rooms })
    }

    pub fn leave_matching(&self, target: Target, rooms: Rooms) -> Receipt {
        self.propose(Change::LeaveMatching { namespace: self.name.clone(), target, rooms })
    }

    /// Disconnects all that match, in their place among the packets. Sockets of this node are
    /// disconnected even if that cannot be agreed.
    pub fn disconnect_matching(self: &Arc<Self>, target: Target, close: bool) -> Receipt {
        let (waiter, receipt) = Receipt::pending();
        let (adapter, mine) = (self.clone(), target.clone());
        let waiter = waiter.then(move |answer| {
            if matches!(answer, Err(error) if error.is_final()) {
                for id in adapter.local.matching(&mine, Plane::Direct) {
                    adapter.disconnect_local(&id, close);
                }
            }
        });
        let change = Change::DisconnectMatching { namespace: self.name.clone(), target, close };
        self.cluster.raft.pump().propose_with(change, waiter);
        receipt
    }

    /// Sends an event to all that are meant.
    pub fn emit(&self, target: Target, payload: Payload, flags: EmitFlags) -> Receipt {
        if self.is_direct(flags) {
            self.emit_direct(target, payload, flags, None);
            return Receipt::done();
        }
        self.send_packet(self.packet(target, payload, flags, None))
    }

    /// Sends an event whose recipients each answer with an ack.
    pub fn emit_with_ack(
        &self,
        target: Target,
        payload: Payload,
        flags: EmitFlags,
    ) -> (Receipt, Gathering) {
        let (key, gathering) = self.cluster.gathers.open();
        if self.is_direct(flags) {
            self.emit_direct(target, payload, flags, Some(key));
            return (Receipt::done(), gathering);
        }
        (self.send_packet(self.packet(target, payload, flags, Some(key))), gathering)
    }

    /// A client answers a packet.
    pub fn handle_ack(&self, recipient: &Recipient, id: u64, payload: Payload) {
        if let Some(asker) = recipient.pay(id) {
            self.cluster.tell(asker, Tell::Answer(Some(payload)));
        }
    }

    fn is_direct(&self, flags: EmitFlags) -> bool {
        self.mode == DeliveryMode::Direct || flags.direct || flags.volatile || flags.local
    }

    fn packet(
        &self,
        target: Target,
        payload: Payload,
        flags: EmitFlags,
        ack: Option<u64>,
    ) -> Change {
        let (namespace, uncompressed) = (self.name.clone(), flags.uncompressed);
        Change::Packet(Box::new(Packet { namespace, target, payload, ack, uncompressed }))
    }

    fn send_packet(&self, packet: Change) -> Receipt {
        if self.hand_out_alone(&packet) { Receipt::done() } else { self.propose(packet) }
    }

    /// To be held while a replicated packet is handed out.
    pub(super) fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().expect("nothing panics while it hands out")
    }

    pub(super) fn propose(&self, change: Change) -> Receipt {
        self.cluster.raft.pump().propose(change)
    }

    /// To this node's own sockets at once, and to the peers that have a target.
    fn emit_direct(&self, target: Target, payload: Payload, flags: EmitFlags, ack: Option<u64>) {
        let raft = &self.cluster.raft;
        let me = raft.node_id();
        let asker = ack.map(|key| Asker { node: me, key });
        let peers = if flags.local { Vec::new() } else { self.interested_peers(&target) };
        if let Some(key) = ack {
            let asked = peers.iter().copied().chain([me]);
            self.cluster.gathers.feed(key, |gather| gather.handle_asked(asked));
        }
        let heard = self.hand_out(Outgoing {
            place: None,
            target: &target,
            payload: &payload,
            plane: Plane::Direct,
            flags,
            asker,
        });
        heard.tell();
        if peers.is_empty() {
            return;
        }
        let broadcast = Broadcast {
            namespace: self.name.clone(),
            applied: raft.view().index(),
            target,
            payload,
            volatile: flags.volatile,
            ack,
            uncompressed: flags.uncompressed,
        };
        for peer in peers {
            if self.cluster.peers.send(peer, Message::Broadcast(broadcast.clone())).is_err()
                && let Some(key) = ack
            {
                self.cluster.gathers.feed(key, |gather| gather.handle_unreached(peer));
            }
        }
    }

    /// Who is asked for the acks of a packet of this node, at its place in the log.
    ///
    /// A socket that was meant there, and is not any more on any node that is asked, is not waited
    /// for; nor is one that is not there any more.
    pub(super) fn ask(&self, target: &Target, key: u64) {
        let peers = self.interested_peers(target);
        let asked = peers.iter().copied().chain([self.node_id()]);
        self.cluster.gathers.feed(key, |gather| gather.handle_asked(asked));
        // One that died in the meantime may have been noted as dead before it was asked.
        let view = self.view();
        for peer in peers.into_iter().filter(|peer| view.alive(*peer).is_none()) {
            self.cluster.gathers.feed(key, |gather| gather.handle_node_down(peer));
        }
    }

    /// The other nodes that have a target; all of them, while this node cannot prove its view fresh.
    pub(super) fn interested_peers(&self, target: &Target) -> Vec<NodeId> {
        let raft = &self.cluster.raft;
        let view = raft.view();
        let me = raft.node_id();
        if raft.is_fresh() {
            view.nodes_of_target(&self.name, target)
                .into_iter()
                .filter(|node| *node != me)
                .collect()
        } else {
            view.nodes()
                .map(|(node, _)| node)
                .filter(|node| *node != me && view.alive(*node).is_some())
                .collect()
        }
    }

    /// Hands a packet to this node's sockets that are meant: one encode, whatever their number.
    /// Those are returned that hear of it.
    pub(super) fn deliver(
        &self,
        target: &Target,
        payload: &Payload,
        plane: Plane,
        flags: EmitFlags,
        asker: Option<Asker>,
    ) -> Vec<Arc<Recipient>> {
        let volatile = flags.volatile;
        let ack_id = asker.map(|_| self.next_ack_id.fetch_add(1, Ordering::Relaxed));
        let mut encoded = None;
        let mut sent = 0;
        let mut forgotten = Vec::new();
        let anyone_hears = self.anyone_hears();
        let mut hearing = Vec::new();
        self.local.visit(target, plane, |recipient| {
            let packet = encoded.get_or_insert_with(|| self.encode_event(ack_id, payload, flags));
            if let (Some(asker), Some(id)) = (asker, ack_id) {
                forgotten.extend(recipient.owe(id, asker));
                sent += 1;
            }
            if volatile {
                recipient.outbox.push_volatile(packet.clone());
            } else {
                recipient.outbox.push(packet.clone());
            }
            if anyone_hears && recipient.hears() {
                hearing.push(recipient.clone());
            }
        });
        for asker in forgotten {
            self.cluster.tell(asker, Tell::Answer(None));
        }
        if let Some(asker) = asker {
            self.cluster.tell(asker, Tell::Sent(sent));
        }
        hearing
    }

    /// Whether any socket hears of what is queued for it.
    pub(super) fn anyone_hears(&self) -> bool {
        self.hearing.load(Ordering::Relaxed) > 0
    }

    /// Lets a connecting socket in: it takes part, and its CONNECT is queued.
    pub(super) fn let_in(
        &self,
        id: &SocketId,
        rooms: &[bytestring::ByteString],
        session: Option<Arc<crate::raft::state::SessionValue>>,
    ) {
        // Held, so that the end of its connection comes before all of this or after it.
        let mut connecting = self.connecting();
        // A connection that ended in the meantime has proposed the socket's end already.
        let Some(socket) = connecting.remove(&(*id, 0)) else { return };
        let connect = self.connect_packet(&socket);
        self.local.insert(socket.recipient, rooms, session, |recipient| {
            // In this order: the client may answer its CONNECT at once, and nothing may overtake it.
            recipient.advance(Phase::Connected);
            recipient.outbox.push_news(connect);
        });
    }

    /// Disconnects a socket of this node; its connection does the rest when it wakes.
    pub fn disconnect_local(&self, id: &SocketId, close: bool) {
        let Some(recipient) = self.local.remove(id) else { return };
        // First, for the client may connect again at once.
        if recipient.advance(if close { Phase::Closed } else { Phase::Disconnected }) {
            let packet = self.encode(Kind::Disconnect, None, &Payload::default());
            recipient.outbox.push_news(packet);
        }
    }

    pub(super) fn encode_event(
        &self,
        ack_id: Option<u64>,
        payload: &Payload,
        flags: EmitFlags,
    ) -> Arc<Encoded> {
        let packet = self.encode(Kind::Event, ack_id, payload);
        let packet = if flags.uncompressed { packet.into_uncompressed() } else { packet };
        if flags.volatile { packet.into_volatile() } else { packet }
    }

    pub(super) fn encode(&self, kind: Kind, id: Option<u64>, payload: &Payload) -> Arc<Encoded> {
        self.encoder().packet(kind, &self.name, id, payload)
    }

    pub(super) fn connecting(
        &self,
    ) -> MutexGuard<'_, HashMap<(SocketId, u64), Connecting, FixedState>> {
        self.connecting.lock().expect("nothing panics while it holds the connecting sockets")
    }
}

#[cfg(test)]
mod tests;
