//! One namespace on one node: replicated or direct delivery.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use arc_swap::ArcSwap;
use tokio::sync::mpsc;

use super::acks::Asker;
use super::cluster::{Cluster, Tell};
use super::connecting::ConnectingMap;
use super::encoded::Encoded;
use super::encoder::Encoder;
use super::gathers::Gathering;
use super::local::{Local, Plane};
use super::projection::{Outgoing, Projection};
use super::recipient::{Phase, Recipient};
use super::recovery::{Recovery, RecoveryConfig};
use super::rooms::{RoomEvent, Watch};
use crate::peers::{Broadcast, Message};
use crate::raft::state::{Change, Namespace, NodeId, Packet, Rooms, SocketId, State, Target};
use crate::raft::{Receipt, Unhandled};
use crate::socketio::Payload;
use crate::socketio::codec::Kind;

/// How a namespace's packets travel unless an emit says otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryMode {
    /// One order for all, by the log, and nothing acknowledged is lost.
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

/// One namespace on this node, and its way to the others.
pub struct Adapter {
    pub(super) name: Namespace,
    pub(super) mode: DeliveryMode,
    pub(super) local: Local,
    /// Sockets whose `SocketUp` or `SocketClaim` is on its way, or is to be proposed again, until the delivery task lets
    /// them in.
    connecting: Mutex<ConnectingMap>,
    pub(super) recovery: Option<Recovery>,
    next_ack_id: AtomicU64,
    /// Sockets that hear of the events that are queued for them: mostly none.
    hearing: AtomicUsize,
    /// Packets for certain rooms are delivered otherwise: mostly none.
    pub(super) projections: ArcSwap<Vec<Arc<Projection>>>,
    pub(super) is_retired: AtomicBool,
    pub(super) inbound: mpsc::Sender<(NodeId, Broadcast)>,
    pub(super) unhandled: Unhandled,
    /// Held while anything agreed is acted on: one after the other, whoever does it.
    pub(super) turn: Mutex<()>,
    pub(super) cluster: Arc<Cluster>,
}

impl Adapter {
    /// `inbound` is the queue of peers' broadcasts for the namespace's delivery task.
    pub(super) fn new(
        cluster: Arc<Cluster>,
        name: Namespace,
        mode: DeliveryMode,
        recovery: Option<RecoveryConfig>,
        inbound: mpsc::Sender<(NodeId, Broadcast)>,
        unhandled: Unhandled,
    ) -> Arc<Self> {
        let local =
            Local::new(cluster.shards).with_session_keys(cluster.raft.view().session_keys());
        Arc::new(Self {
            name,
            mode,
            local,
            connecting: Mutex::default(),
            recovery: recovery.map(Recovery::new),
            next_ack_id: AtomicU64::new(0),
            hearing: AtomicUsize::new(0),
            projections: ArcSwap::default(),
            is_retired: AtomicBool::new(false),
            inbound,
            unhandled,
            turn: Mutex::default(),
            cluster,
        })
    }

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
        // Nobody waits for it, but where a client could come back to a socket that it has said goodbye to.
        let lingers = self.recovery.is_none();
        if was_connecting {
            // It may be over before the cluster has heard of it.
            if !(self.welcomes() && self.cluster.raft.pump().withdraw(recipient.id)) {
                self.cluster.end_socket(end, lingers);
            }
        } else if was_connected {
            self.cluster.end_socket(end, lingers);
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
        self.propose(Change::JoinMatching {
            namespace: self.name.clone(),
            target: target.into(),
            rooms,
        })
    }

    pub fn leave_matching(&self, target: Target, rooms: Rooms) -> Receipt {
        self.propose(Change::LeaveMatching {
            namespace: self.name.clone(),
            target: target.into(),
            rooms,
        })
    }

    /// Disconnects all that match, in their place among the packets. Sockets of this node are
    /// disconnected even if that cannot be agreed.
    pub fn disconnect_matching(self: &Arc<Self>, target: Target, close: bool) -> Receipt {
        let (waiter, receipt) = Receipt::pending();
        let (adapter, mine) = (self.clone(), target.clone());
        // Those that are here now; who comes while it is agreed is not meant.
        let unknown = self.unknown_sockets(&target);
        let waiter = waiter.then(move |answer| {
            if matches!(answer, Err(error) if error.is_final()) {
                for id in adapter.local.matching(&mine, Plane::Direct) {
                    adapter.disconnect_local(&id, close);
                }
                return;
            }
            for id in unknown {
                if adapter.connecting().contains_key(&(id, 0)) {
                    adapter.disconnect_local(&id, close);
                }
            }
        });
        let change = Change::DisconnectMatching {
            namespace: self.name.clone(),
            target: target.into(),
            close,
        };
        self.cluster.raft.pump().propose_with(change, waiter);
        receipt
    }

    /// Sends an event to all that are meant.
    pub fn emit(&self, target: Target, payload: Payload, flags: EmitFlags) -> Receipt {
        if self.is_direct(flags) {
            self.emit_direct(target, payload, flags, None);
            return Receipt::at_once();
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
            return (Receipt::at_once(), gathering);
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
        if self.hand_out_alone(&packet) { Receipt::at_once() } else { self.propose(packet) }
    }

    /// To be held while anything agreed is acted on.
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
            applied: raft.applied_index(),
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
        // Asked first: what is fresh now is no older a moment later.
        let is_fresh = raft.is_fresh();
        let view = raft.view();
        let me = raft.node_id();
        if is_fresh && !self.may_be_unknown(&view, target) {
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

    pub(super) fn connecting(&self) -> MutexGuard<'_, ConnectingMap> {
        self.connecting.lock().expect("nothing panics while it holds the connecting sockets")
    }
}

#[cfg(test)]
mod tests;
