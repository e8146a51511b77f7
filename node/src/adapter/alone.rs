//! Packets of a node that is a cluster by itself, which nobody has to agree on.

use super::acks::Asker;
use super::local::Plane;
use super::namespace::{Adapter, EmitFlags};
use super::projection::Outgoing;
use crate::raft::state::Change;

impl Adapter {
    /// Hands a replicated packet out now, if there is no other node to agree with on its place among the others: it takes
    /// it after all that this node has proposed so far, which is applied and acted on.
    ///
    /// A packet that is kept for clients that come back has its place in the log in any case.
    pub(super) fn hand_out_alone(&self, change: &Change) -> bool {
        let Change::Packet(packet) = change else { return false };
        if self.recovery.is_some() {
            return false;
        }
        // Whoever finds it taken does not wait: the log has a place for its packet, after the one that is handed out.
        // If that failed, the delivery task finds out, without which the node cannot go on.
        let Ok(turn) = self.turn.try_lock() else { return false };
        if !self.cluster.raft.may_act_alone(change) || !self.unhandled.is_none() {
            return false;
        }
        let asker = packet.ack.map(|key| Asker { node: self.node_id(), key });
        if let Some(key) = packet.ack {
            self.ask(&packet.target, key);
        }
        let flags = EmitFlags { uncompressed: packet.uncompressed, ..EmitFlags::default() };
        let heard = self.hand_out(Outgoing {
            place: None,
            target: &packet.target,
            payload: &packet.payload,
            plane: Plane::Agreed,
            flags,
            asker,
        });
        drop(turn);
        heard.tell();
        true
    }
}
