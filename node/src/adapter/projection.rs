//! Packets for some rooms that reach their members as other packets, each for some of them.

use std::sync::{Arc, Mutex, MutexGuard};

use bytestring::ByteString;
use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::acks::Asker;
use super::encoded::Encoded;
use super::local::Plane;
use super::namespace::{Adapter, EmitFlags};
use super::recipient::Recipient;
use super::rooms::Watcher;
use crate::raft::state::{Backlog, KeptPacket, Place, Rooms, SocketId, Target};
use crate::socketio::Payload;

/// Makes other packets of those that are for certain rooms, where they are delivered: on each node,
/// from what the log says, in place of the packet that was emitted.
///
/// So an emit is one packet in the log and between nodes, and what each socket gets of it depends on
/// other rooms that it is in, by their names. Packets that expect an ack are left as they are.
pub trait Projector: Send + Sync + 'static {
    /// A room has its first member on this node, or has lost the last. Called under locks: it only
    /// notes it. Rooms may be noted that have members for direct packets only, or for replicated
    /// ones only.
    fn handle_room(&self, room: &ByteString, is_there: bool);

    /// What this node's sockets get of a packet for `room`.
    fn project(&self, room: &str, payload: &Payload) -> Vec<Part>;

    /// What a socket that was in `rooms` gets of it; `rooms` of the parts does not matter.
    fn project_for(&self, room: &str, payload: &Payload, rooms: &[&str]) -> Vec<Part>;
}

/// One of the packets in place of another.
#[derive(Clone, Debug)]
pub struct Part {
    /// Tells it from the others, the same on every node: a client that has it and not the next one
    /// says so when it comes back. Parts are delivered in the order of their keys.
    pub key: u32,
    /// Whom it is for; a socket in several of them gets it once.
    pub rooms: Rooms,
    pub payload: Payload,
}

/// A projector, and the rooms that it is told of: those whose names begin with its prefix.
pub(super) struct Projection {
    prefix: Box<str>,
    projector: Arc<dyn Projector>,
    members: Mutex<HashMap<ByteString, usize, FixedState>>,
}

impl Projection {
    fn members(&self) -> MutexGuard<'_, HashMap<ByteString, usize, FixedState>> {
        self.members.lock().expect("nothing panics while it counts members")
    }
}

impl std::fmt::Debug for Projection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Projection").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl Watcher for Projection {
    fn count(&self, room: &ByteString, added: usize) {
        if added == 0 || !room.starts_with(&*self.prefix) {
            return;
        }
        let mut members = self.members();
        let count = members.entry(room.clone()).or_default();
        *count += added;
        if *count == added {
            self.projector.handle_room(room, true);
        }
    }

    fn joined(&self, room: &ByteString, _socket: SocketId) {
        self.count(room, 1);
    }

    fn left(&self, room: &ByteString, _socket: SocketId) {
        let mut members = self.members();
        let Some(count) = members.get_mut(room) else { return };
        *count -= 1;
        if *count == 0 {
            members.remove(room);
            self.projector.handle_room(room, false);
        }
    }
}

/// The sockets that hear of what was queued for them, and what it was. Whoever hears may emit, so it
/// is told once no lock is held.
#[derive(Default)]
#[must_use]
pub(super) struct Heard(Vec<(Arc<Recipient>, Payload)>);

impl Heard {
    pub(super) fn add(&mut self, recipient: &Arc<Recipient>, payload: Payload) {
        self.0.push((recipient.clone(), payload));
    }

    pub(super) fn tell(self) {
        for (recipient, payload) in self.0 {
            if let Some(above) = recipient.above() {
                above.handle_outgoing(&payload);
            }
        }
    }
}

/// A packet on its way to this node's sockets.
#[derive(Clone, Copy)]
pub(super) struct Outgoing<'a> {
    /// In the log, if it comes from there.
    pub(super) place: Option<Place>,
    pub(super) target: &'a Target,
    pub(super) payload: &'a Payload,
    pub(super) plane: Plane,
    pub(super) flags: EmitFlags,
    pub(super) asker: Option<Asker>,
}

impl Adapter {
    /// Has packets for rooms whose names begin with `prefix` delivered as `projector` has it.
    pub fn project(&self, prefix: &str, projector: Arc<dyn Projector>) {
        let projection =
            Arc::new(Projection { prefix: prefix.into(), projector, members: Mutex::default() });
        self.local.watch(projection.clone());
        self.projections.rcu(|projections| {
            let mut projections = Vec::clone(projections);
            projections.push(projection.clone());
            projections
        });
    }

    /// Hands a packet to this node's sockets that are meant, as they get it.
    pub(super) fn hand_out(&self, outgoing: Outgoing<'_>) -> Heard {
        let Outgoing { place, target, payload, plane, flags, asker } = outgoing;
        let projected = if asker.is_none() { self.parts(target, payload) } else { None };
        let Some((parts, rest)) = projected else {
            let payload = match place {
                Some(place) => self.stamped_at(place, payload, asker.is_some()),
                None => self.stamped_now(payload, asker.is_some()),
            };
            let hearing = self.deliver(target, &payload, plane, flags, asker);
            return Heard(hearing.into_iter().map(|heard| (heard, payload.clone())).collect());
        };
        let mut heard = Heard::default();
        if !parts.is_empty() {
            heard = self.deliver_parts(parts, outgoing);
        }
        if !rest.rooms.is_empty() {
            heard.0.extend(self.hand_out(Outgoing { target: &rest, ..outgoing }).0);
        }
        heard
    }

    /// What takes the place of a packet, and whom it is for as it is; none if it is left alone.
    fn parts(&self, target: &Target, payload: &Payload) -> Option<(Vec<Part>, Target)> {
        let projections = self.projections.load();
        let projection_of = |room: &ByteString| {
            projections.iter().find(|projection| room.starts_with(&*projection.prefix))
        };
        if projections.is_empty() || !target.rooms.iter().any(|room| projection_of(room).is_some())
        {
            return None;
        }
        let mut rest = Target { rooms: Rooms::new(), ..target.clone() };
        let mut parts = Vec::new();
        for room in &target.rooms {
            match projection_of(room) {
                Some(projection) => parts.extend(projection.projector.project(room, payload)),
                None => rest.rooms.push(room.clone()),
            }
        }
        parts.sort_by_key(|part| part.key);
        Some((parts, rest))
    }

    /// Hands the parts of a packet out: one encode for each, or two in a recoverable namespace,
    /// where a part says whether the client has all of the packet with it.
    fn deliver_parts(&self, parts: Vec<Part>, outgoing: Outgoing<'_>) -> Heard {
        let Outgoing { place, target, plane, flags, .. } = outgoing;
        let stamp = self.stamp(place);
        let mut encoded: Vec<[Option<Arc<Encoded>>; 2]> = vec![[None, None]; parts.len()];
        let tells_apart = self.recovery.is_some();
        let anyone_hears = self.anyone_hears();
        let mut heard = Heard::default();
        let rooms: Vec<&[ByteString]> = parts.iter().map(|part| part.rooms.as_slice()).collect();
        let excluding = Target { rooms: Rooms::new(), ..target.clone() };
        self.local.visit_parts(&rooms, &excluding, plane, |recipient, part, is_last| {
            let is_last = is_last || !tells_apart;
            let packet = encoded[part][usize::from(is_last)].get_or_insert_with(|| {
                let payload = stamp.of_part(&parts[part], is_last);
                self.encode_event(None, &payload, flags)
            });
            if flags.volatile {
                recipient.outbox.push_volatile(packet.clone());
            } else {
                recipient.outbox.push(packet.clone());
            }
            if anyone_hears && recipient.hears() {
                heard.add(recipient, parts[part].payload.clone());
            }
        });
        heard
    }

    /// What a socket that was away gets of a packet that it missed, without what its client `has`
    /// of it, by the key of the last part. None if the packet is left as it is.
    pub(super) fn missed_parts(
        &self,
        packet: &KeptPacket,
        backlog: &Backlog,
        has: Option<u32>,
    ) -> Option<Vec<Payload>> {
        let projections = self.projections.load();
        if projections.is_empty() {
            return None;
        }
        let rooms = backlog.rooms_at(packet.place);
        let mut parts = Vec::new();
        let mut is_projected = false;
        for room in packet.target.rooms.iter().filter(|room| rooms.contains(&&***room)) {
            let of_room = |projection: &&Arc<Projection>| room.starts_with(&*projection.prefix);
            // In another room as well, it gets the packet itself.
            let projection = projections.iter().find(of_room)?;
            is_projected = true;
            parts.extend(projection.projector.project_for(room, &packet.payload, &rooms));
        }
        if !is_projected {
            return None;
        }
        parts.sort_by_key(|part| part.key);
        parts.retain(|part| has.is_none_or(|has| part.key > has));
        let stamp = self.stamp(Some(packet.place));
        let last = parts.len().saturating_sub(1);
        let stamped = parts.iter().enumerate();
        Some(stamped.map(|(at, part)| stamp.of_part(part, at == last).into_owned()).collect())
    }
}
