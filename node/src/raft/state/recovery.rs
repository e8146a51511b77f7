//! Sockets that may be away for a while: how they go, come back, and are given up.

use std::sync::Arc;

use super::State;
use super::apply::{Effects, Proposer};
use super::change::{
    Change, Effect, Namespace, Outcome, Owner, Packet, Place, Recovered, Rooms, SessionValue,
    SocketClaim, SocketUp,
};
use super::departures::Departure;
use super::id::{SessionId, SocketId};
use super::packets::{KeptPacket, Window};
use super::rooms::SocketBits;
use super::sessions::SessionBits;
use super::sockets::Row;
use super::stays::Kept;

/// What a socket missed while it was away, as one claim found it. It costs nothing until it is
/// looked at.
#[derive(Clone, Debug, PartialEq)]
pub struct Backlog {
    window: Arc<Window>,
    kept: Arc<Kept>,
    socket: SocketBits,
    from: Place,
    session: Option<Arc<SessionValue>>,
}

impl Backlog {
    /// The packets that were meant for it, in order.
    pub fn packets(&self) -> Vec<Arc<KeptPacket>> {
        self.window.missed(&self.socket, &self.kept, self.from, self.session.as_ref())
    }

    /// [`PlantedBug`](crate::raft::PlantedBug): the first packet is left out.
    pub(in crate::raft) fn leave_seam_out(&mut self) {
        self.from = self.packets().first().map_or(self.from, |packet| packet.place);
    }

    /// [`PlantedBug`](crate::raft::PlantedBug): the packet before the first one comes again.
    pub(in crate::raft) fn repeat_seam(&mut self) {
        self.from = self.from.before();
    }

    /// The rooms that it was in at a place since then, without that of its own id.
    pub fn rooms_at(&self, place: Place) -> Vec<&str> {
        self.kept.rooms_at(place).collect()
    }
}

/// How full a namespace's window is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WindowNumbers {
    pub packets: usize,
    pub bytes: u64,
    pub detached: usize,
    /// Of what applications keep with sockets that are away.
    pub data_bytes: u64,
}

/// So many packets and sockets are given up by one change at most; the leader proposes another.
const MAX_EXPIRED: usize = 10_000;

impl State {
    /// What all windows hold together.
    pub fn window_numbers(&self) -> WindowNumbers {
        let mut numbers = WindowNumbers::default();
        for window in self.windows.values() {
            numbers.packets += window.packets_len();
            numbers.bytes += window.bytes();
            numbers.detached += window.detached_len();
            numbers.data_bytes += window.data_bytes();
        }
        numbers
    }

    /// What the leader proposes to give up: packets and sockets that are older than the window.
    pub fn expired_windows(&self, now_ms: u64) -> impl Iterator<Item = Change> {
        self.windows
            .iter()
            .filter(move |(_, window)| window.has_overdue(now_ms))
            .map(|(namespace, _)| Change::WindowExpired { namespace: namespace.clone() })
    }

    /// A new socket that may be away for a while, if its namespace allows that.
    pub(super) fn keep_socket(&mut self, by: Proposer, up: &SocketUp) {
        let Some(terms) = up.recovery else { return };
        let id = up.socket.to_bits();
        let mut kept = Kept { start: by.place, ..Kept::default() };
        for room in self.sockets.get(&id).into_iter().flat_map(|row| &row.rooms) {
            kept.join(room.clone(), by.place);
        }
        let namespace = self.sockets.get(&id).map(|row| row.home.namespace.clone());
        let namespace = namespace.unwrap_or_else(|| up.namespace.clone());
        if !self.windows.contains_key(&namespace) {
            self.windows.insert(namespace.clone(), Arc::default());
        }
        let window = self.windows.get_mut(&namespace).expect("it was there or inserted");
        let window = Arc::make_mut(window);
        window.terms = terms;
        window.enter(id, kept);
    }

    /// Whether the namespace's packets are kept for sockets that are away, or will turn out to have been.
    pub fn keeps_packets_of(&self, namespace: &Namespace) -> bool {
        !self.windows.is_empty() && self.windows.contains_key(namespace)
    }

    /// Keeps a packet for whoever is away, or will turn out to have been. One that is to be
    /// answered by an ack is never replayed.
    pub(super) fn keep_packet(&mut self, by: Proposer, packet: &Packet) {
        if packet.ack.is_some() || self.windows.is_empty() {
            return;
        }
        let Some(window) = self.windows.get_mut(&packet.namespace) else { return };
        let sockets = &self.sockets;
        let is_room = |room: &str| sockets.room(&packet.namespace, room).is_some();
        Arc::make_mut(window).push(by.place, by.stamp_ms, packet, is_room);
    }

    /// Notes that a socket joined or left rooms.
    pub(super) fn note_rooms(&mut self, id: &SocketBits, rooms: &Rooms, place: Place) {
        if self.windows.is_empty() {
            return;
        }
        let Some(row) = self.sockets.get(id) else { return };
        let Some(window) = window_of(&mut self.windows, row, id) else { return };
        let oldest = window.oldest();
        for room in rooms {
            let joined = row.rooms.iter().find(|joined| ***joined == **room);
            let last = window.last_in(room, id);
            let Some(kept) = window.kept_mut(id) else { return };
            match joined {
                Some(room) => kept.join(room.clone(), place),
                None => kept.leave(room, place, last),
            }
            kept.forget_past(oldest);
            let sockets = &self.sockets;
            window.release(room, |room| sockets.room(&row.home.namespace, room).is_some());
        }
    }

    /// Notes that a session was another one before, with each socket that uses it.
    pub(super) fn note_session(
        &mut self,
        session: &SessionBits,
        place: Place,
        before: Option<&Arc<SessionValue>>,
    ) {
        if self.windows.is_empty() {
            return;
        }
        for id in self.sessions.sockets_of(session) {
            let Some(row) = self.sockets.get(id) else { continue };
            let Some(window) = window_of(&mut self.windows, row, id) else { continue };
            let oldest = window.oldest();
            if let Some(kept) = window.kept_mut(id) {
                kept.change_session(place, before.cloned(), oldest);
            }
        }
    }

    /// The connection that has a socket: see [`Kept::claim`].
    pub(super) fn claim_of(&self, id: &SocketBits) -> u64 {
        self.kept(id).map_or(0, |kept| kept.claim)
    }

    /// Whether a socket may be away for a while.
    pub(super) fn may_return(&self, id: &SocketBits) -> bool {
        self.kept(id).is_some_and(|kept| !kept.is_over)
    }

    /// The application disconnected a socket whose owner is still to act on it.
    pub(super) fn note_over(&mut self, id: &SocketBits) {
        let Some(row) = self.sockets.get(id) else { return };
        let kept = window_of(&mut self.windows, row, id).and_then(|window| window.kept_mut(id));
        if let Some(kept) = kept {
            kept.is_over = true;
        }
    }

    fn kept(&self, id: &SocketBits) -> Option<&Arc<Kept>> {
        if self.windows.is_empty() {
            return None;
        }
        let row = self.sockets.get(id)?;
        self.windows.get(&row.home.namespace)?.kept(id)
    }

    /// Takes a socket out of everything but its session.
    pub(super) fn remove_socket(&mut self, id: &SocketBits) -> Option<Row> {
        let row = self.sockets.remove(id)?;
        let Some(window) = window_of(&mut self.windows, &row, id) else { return Some(row) };
        window.remove(id);
        let sockets = &self.sockets;
        for room in &row.rooms {
            window.release(room, |room| sockets.room(&row.home.namespace, room).is_some());
        }
        if window.is_unused() {
            self.windows.remove(&row.home.namespace);
        }
        Some(row)
    }

    /// A socket is nobody's from here on, and stays in its rooms. `data` as in
    /// [`Change::SocketDetached`].
    pub(super) fn detach(&mut self, id: &SocketBits, stamp_ms: u64, data: Option<&str>) {
        let node = self.sockets.get(id).map_or(0, |row| row.home.owner.node);
        self.sockets.hand_over(id, Owner::NOBODY);
        let Some(row) = self.sockets.get(id) else { return };
        if let Some(window) = window_of(&mut self.windows, row, id) {
            window.detach(id, stamp_ms, node, data);
        }
    }

    /// A connection was lost. It may have been on its way while the application disconnected the
    /// socket.
    pub(super) fn socket_detached(
        &mut self,
        by: Proposer,
        socket: SocketId,
        claim: u64,
        data: Option<&str>,
        effects: &mut Effects,
    ) -> Outcome {
        let id = socket.to_bits();
        let Some(kept) = self.kept(&id) else { return Outcome::UnknownSocket };
        if kept.is_over {
            return self.socket_gone(by, socket, claim, effects);
        }
        if !self.owns(by, &id) || kept.claim != claim {
            return Outcome::UnknownSocket;
        }
        self.detach(&id, by.stamp_ms, data);
        Outcome::Applied
    }

    /// A client is back. Its socket moves to the proposer, whoever had it; one that missed
    /// packets which are gone is over, for it would not notice. A claim that renews takes nothing
    /// from anyone.
    pub(super) fn socket_claim(
        &mut self,
        by: Proposer,
        claim: &SocketClaim,
        effects: &mut Effects,
    ) -> Outcome {
        let id = claim.socket.to_bits();
        let Some(row) = self.sockets.get(&id) else { return Outcome::UnknownSocket };
        let Some(window) = self.windows.get(&claim.namespace) else {
            return Outcome::UnknownSocket;
        };
        let Some(kept) = window.kept(&id) else { return Outcome::UnknownSocket };
        let is_forged = row.pid != claim.pid.to_bits() || claim.offset > by.place;
        if is_forged || kept.is_over || row.home.namespace != claim.namespace {
            return Outcome::UnknownSocket;
        }
        if claim.renews && kept.claim == claim.key && row.home.owner == by.owner {
            // Asked twice.
            return Outcome::Applied;
        }
        let is_free = row.home.owner == Owner::NOBODY && kept.claim == claim.key;
        if claim.renews && !is_free {
            return Outcome::UnknownSocket;
        }
        let from = claim.offset.max(kept.start);
        if self.nodes.is_alive(row.home.owner) {
            effects.push(Effect::SocketTaken {
                namespace: row.home.namespace.clone(),
                owner: row.home.owner,
                socket: claim.socket,
                claim: kept.claim,
            });
        }
        if window.has_gap(&id, kept, from) {
            self.give_up(&id, by.stamp_ms, Departure::WindowEnded);
            return Outcome::Lost;
        }
        self.sockets.hand_over(&id, by.owner);
        let window = self.windows.get_mut(&claim.namespace).expect("it was looked at");
        let data = Arc::make_mut(window).attach(&id, claim.key);
        effects.push(self.recovered(by, claim, from, data));
        Outcome::Applied
    }

    /// The effect of a claim that holds.
    fn recovered(
        &self,
        by: Proposer,
        claim: &SocketClaim,
        from: Place,
        data: Option<Arc<str>>,
    ) -> Effect {
        let id = claim.socket.to_bits();
        let row = self.sockets.get(&id).expect("a socket that is claimed is there");
        let window = &self.windows[&row.home.namespace];
        let session = self.sessions.get(&row.session).map(|session| session.value.clone());
        Effect::SocketRecovered {
            namespace: row.home.namespace.clone(),
            owner: by.owner,
            recovered: Box::new(Recovered {
                socket: claim.socket,
                claim: claim.key,
                rooms: row.rooms.iter().map(|room| room.to_string().into()).collect(),
                session: SessionId::from_bits(row.session),
                value: session.clone(),
                data,
                backlog: Backlog {
                    window: window.clone(),
                    kept: window.kept(&id).expect("a socket that is claimed is kept").clone(),
                    socket: id,
                    from,
                    session,
                },
            }),
        }
    }

    /// A socket is over though its client may think otherwise.
    pub(super) fn give_up(&mut self, id: &SocketBits, stamp_ms: u64, departure: Departure) {
        let node = self.kept(id).map(|kept| kept.node);
        if let Some(row) = self.remove_socket(id) {
            // A node that still has it tells of its end itself.
            if let (Some(node), Owner::NOBODY) = (node, row.home.owner) {
                self.note_departed(id, &row, node, departure, stamp_ms);
            }
            self.sessions.leave(row.session, *id, stamp_ms);
        }
    }

    /// Gives up what is older than the window by the proposer's clock, which is the leader's.
    pub(super) fn window_expired(&mut self, by: Proposer, namespace: &Namespace) -> Outcome {
        let Some(window) = self.windows.get_mut(namespace) else { return Outcome::Applied };
        let sockets = &self.sockets;
        let is_room = |room: &str| sockets.room(namespace, room).is_some();
        let window = Arc::make_mut(window);
        window.evict_overdue(by.stamp_ms, MAX_EXPIRED, is_room);
        let overdue: Vec<_> = window.overdue(by.stamp_ms).take(MAX_EXPIRED).collect();
        for id in overdue {
            self.give_up(&id, by.stamp_ms, Departure::WindowEnded);
        }
        Outcome::Applied
    }
}

/// The window that keeps packets for a socket.
fn window_of<'a>(
    windows: &'a mut super::Windows,
    row: &Row,
    id: &SocketBits,
) -> Option<&'a mut Window> {
    // Looked up first, for a search for one to change copies.
    if windows.get(&row.home.namespace).is_none_or(|window| window.kept(id).is_none()) {
        return None;
    }
    windows.get_mut(&row.home.namespace).map(Arc::make_mut)
}
