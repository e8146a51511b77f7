//! Packets of a node that is a cluster by itself, which nobody has to agree on.

use std::sync::atomic::Ordering;

use super::acks::Asker;
use super::local::Plane;
use super::namespace::{Adapter, EmitFlags};
use super::projection::Outgoing;
use crate::raft::state::Change;

impl Adapter {
    /// Hands a replicated packet out now, if there is no other node to agree with on its place among the others: it takes
    /// it after all that this node has proposed so far, which is applied and acted on. False if it has to go through
    /// the log.
    ///
    /// So has a packet that is kept for clients that come back, and one of which applications hear: listeners of its
    /// sockets in the packets' order, projectors for as long as they take, and neither in the task of whoever emits.
    pub(super) fn hand_out_alone(&self, change: &Change) -> bool {
        let Change::Packet(packet) = change else { return false };
        let raft = &self.cluster.raft;
        if !raft.is_alone() || self.recovery.is_some() {
            return false;
        }
        if self.anyone_hears() || !self.projections.load().is_empty() {
            return false;
        }
        // Whoever finds it taken does not wait: the log has a place for its packet, after the one that is handed out.
        // If that failed, the delivery task finds out, without which the node cannot go on.
        let Ok(turn) = self.turn.try_lock() else { return false };
        // The queue of one that is retired is another's by now.
        let is_in_use = !self.is_retired.load(Ordering::Acquire);
        if !is_in_use || !raft.may_act_alone(change) || !self.unhandled.is_none() {
            return false;
        }
        let me = self.node_id();
        let asker = packet.ack.map(|key| Asker { node: me, key });
        if let Some(key) = packet.ack {
            self.cluster.gathers.feed(key, |gather| gather.handle_asked([me]));
        }
        // A listener that comes at this moment comes after the packet.
        let _heard = self.hand_out(Outgoing {
            place: None,
            target: &packet.target,
            payload: &packet.payload,
            plane: Plane::Agreed,
            flags: EmitFlags { uncompressed: packet.uncompressed, ..EmitFlags::default() },
            asker,
        });
        drop(turn);
        true
    }
}
