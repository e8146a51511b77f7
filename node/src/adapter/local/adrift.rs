//! Sockets of this node that are not its own, as far as the cluster is concerned: it was given up,
//! and has not got them back yet.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytestring::ByteString;

use super::{Local, lock};
use crate::adapter::recipient::Recipient;
use crate::raft::state::{Place, SessionValue, SocketId};

impl Local {
    /// No socket is this node's own any more. They have what was meant for them up to `place`, but
    /// for those that were adrift before. Packets of the log pass them by from now on.
    pub(in crate::adapter) fn cast_adrift(&self, place: Place) {
        for shard in &self.shards {
            let mut shard = lock(shard);
            let before = shard.adrift.len();
            for slot in shard.slots.values().copied().collect::<Vec<_>>() {
                shard.adrift.entry(slot).or_insert(place);
            }
            self.adrift.fetch_add(shard.adrift.len() - before, Ordering::Relaxed);
        }
    }

    pub(in crate::adapter) fn has_adrift(&self) -> bool {
        self.adrift.load(Ordering::Relaxed) > 0
    }

    /// Those that are adrift, each with the place up to which it has its packets.
    pub(in crate::adapter) fn adrift(&self) -> Vec<(Arc<Recipient>, Place)> {
        let mut adrift = Vec::new();
        for shard in &self.shards {
            let shard = lock(shard);
            adrift.extend(shard.adrift.iter().filter_map(|(slot, place)| {
                let socket = shard.sockets[*slot as usize].as_ref()?;
                Some((socket.recipient.clone(), *place))
            }));
        }
        adrift
    }

    /// A socket that is adrift, if the connection `claim` has it.
    pub(in crate::adapter) fn adrift_by(
        &self,
        id: &SocketId,
        claim: u64,
    ) -> Option<Arc<Recipient>> {
        let shard = self.shard(id);
        let slot = *shard.slots.get(id)?;
        let socket = shard.sockets[slot as usize].as_ref()?;
        let is_meant = shard.adrift.contains_key(&slot) && socket.recipient.claim == claim;
        is_meant.then(|| socket.recipient.clone())
    }

    /// A socket is this node's again, in exactly these rooms.
    pub(in crate::adapter) fn bring_in(
        &self,
        id: &SocketId,
        rooms: &[ByteString],
        session: Option<Arc<SessionValue>>,
    ) {
        let mut shard = self.shard(id);
        let Some(slot) = shard.slots.get(id).copied() else { return };
        self.end_drift(&mut shard, slot);
        let Some(socket) = &mut shard.sockets[slot as usize] else { return };
        let before = socket.rooms.clone();
        let replaced = std::mem::replace(&mut socket.session, session.clone());
        shard.reindex(slot, replaced.as_deref(), session.as_deref());
        for room in before.iter().filter(|room| !rooms.contains(room)) {
            shard.change(slot, room, |membership| membership.agree(false));
        }
        for room in rooms {
            shard.change(slot, room, |membership| membership.agree(true));
        }
    }
}
