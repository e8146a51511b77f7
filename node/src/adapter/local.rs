//! The sockets and rooms that one namespace has on this node.

mod adrift;

use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bytestring::ByteString;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use hashbrown::hash_map::EntryRef as RoomEntry;
use indexmap::map::Entry as MemberEntry;
use indexmap::{IndexMap, IndexSet};
use smallvec::SmallVec;

use super::recipient::Recipient;
use super::rooms::Watcher;
use crate::raft::state::{IndexEntry, Place, SessionKeys, SessionValue, SocketId, Target};

/// Which of the two memberships decides.
///
/// A join counts for direct packets of this node as soon as it is called, and for replicated ones
/// from its place in the log on; so does a leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plane {
    Agreed,
    Direct,
}

/// The local sockets of a namespace, in shards: each has a lock, its sockets, and their rooms.
///
/// Recipients are visited under a shard's lock, and visitors only push to outboxes.
#[derive(Debug)]
pub struct Local {
    shards: Box<[Mutex<Shard>]>,
    hasher: FixedState,
    /// Keys of sessions that are filtered by often.
    keys: SessionKeys,
    /// How many sockets are adrift, in all shards.
    adrift: AtomicUsize,
}

#[derive(Debug, Default)]
struct Shard {
    slots: HashMap<SocketId, u32, FixedState>,
    sockets: Vec<Option<LocalSocket>>,
    free: Vec<u32>,
    rooms: HashMap<ByteString, Members, FixedState>,
    /// The same keys, and the sockets by what their sessions have there.
    keys: SessionKeys,
    indexed: HashMap<IndexEntry, IndexSet<u32, FixedState>, FixedState>,
    /// Sockets that packets of the log pass by, each with the place up to which it has its own: mostly
    /// none.
    adrift: HashMap<u32, Place, FixedState>,
    /// Counts visits, so that a socket in several of a target's rooms is visited once.
    visit: u64,
    /// Mostly nobody.
    watches: Vec<Arc<dyn Watcher>>,
}

#[derive(Debug)]
struct LocalSocket {
    recipient: Arc<Recipient>,
    session: Option<Arc<SessionValue>>,
    rooms: SmallVec<[ByteString; 1]>,
    visited: u64,
    /// While parts are visited: how many more of them it is in.
    parts: u32,
}

/// Dense for visits, and quick to leave.
type Members = IndexMap<u32, Membership, FixedState>;

#[derive(Clone, Copy, Debug, Default)]
struct Membership {
    agreed: bool,
    direct: bool,
    /// Calls of this node that are not answered: while there are any, the last of them
    /// decides what direct packets see.
    pending: u16,
}

impl Membership {
    fn counts(self, plane: Plane) -> bool {
        match plane {
            Plane::Agreed => self.agreed,
            Plane::Direct => self.direct,
        }
    }

    /// The log says so. While a call is not answered, it decides what direct packets see.
    fn agree(&mut self, joins: bool) {
        self.agreed = joins;
        if self.pending == 0 {
            self.direct = joins;
        }
    }

    /// In the room as far as anyone sees it.
    fn is_seen(self) -> bool {
        self.agreed || self.direct
    }

    fn is_over(self) -> bool {
        !self.is_seen() && self.pending == 0
    }
}

impl Local {
    /// `shards` is rounded up to a power of two.
    pub fn new(shards: usize) -> Self {
        let shards = (0..shards.next_power_of_two()).map(|_| Mutex::default()).collect();
        Self {
            shards,
            hasher: FixedState::default(),
            keys: SessionKeys::default(),
            adrift: AtomicUsize::new(0),
        }
    }

    /// The same, while it is empty, with an index of these keys of sessions.
    #[must_use]
    pub fn with_session_keys(mut self, keys: &SessionKeys) -> Self {
        self.keys = keys.clone();
        for shard in &self.shards {
            lock(shard).keys = keys.clone();
        }
        self
    }

    /// A socket takes part from here on, in `rooms`. `tell_it` is called under the lock: what the
    /// socket does once it knows finds it here.
    pub fn insert(
        &self,
        recipient: Arc<Recipient>,
        rooms: &[ByteString],
        session: Option<Arc<SessionValue>>,
        tell_it: impl FnOnce(&Recipient),
    ) {
        let id = recipient.id;
        let mut shard = self.shard(&id);
        // Its client has come back to this node before the connection that it lost has noticed.
        self.take_out(&mut shard, &id);
        tell_it(&recipient);
        let slot = shard.free.pop().unwrap_or(shard.sockets.len() as u32);
        shard.reindex(slot, None, session.as_deref());
        let socket =
            LocalSocket { recipient, session, rooms: SmallVec::new(), visited: 0, parts: 0 };
        match shard.sockets.get_mut(slot as usize) {
            Some(place) => *place = Some(socket),
            None => shard.sockets.push(Some(socket)),
        }
        shard.slots.insert(id, slot);
        shard.tell_own_room(id, |watch, room, id| watch.joined(room, id));
        for room in rooms {
            shard.change(slot, room, |membership| {
                membership.agreed = true;
                membership.direct = true;
            });
        }
    }

    /// A socket takes no part any more; what it was, if it did.
    pub fn remove(&self, id: &SocketId) -> Option<Arc<Recipient>> {
        let mut shard = self.shard(id);
        self.take_out(&mut shard, id)
    }

    /// As [`remove`](Self::remove), unless the socket is another connection's by now.
    pub fn remove_recipient(&self, recipient: &Recipient) {
        if self.get(&recipient.id).is_some_and(|now| std::ptr::eq(&*now, recipient)) {
            self.remove(&recipient.id);
        }
    }

    pub fn get(&self, id: &SocketId) -> Option<Arc<Recipient>> {
        let shard = self.shard(id);
        let slot = *shard.slots.get(id)?;
        shard.sockets[slot as usize].as_ref().map(|socket| socket.recipient.clone())
    }

    pub fn set_session(&self, id: &SocketId, value: Arc<SessionValue>) {
        let mut shard = self.shard(id);
        if let Some(slot) = shard.slots.get(id).copied()
            && let Some(socket) = &mut shard.sockets[slot as usize]
        {
            let before = socket.session.replace(value.clone());
            shard.reindex(slot, before.as_deref(), Some(&value));
        }
    }

    /// This node's application called join (`joins`) or leave: direct packets see it at once.
    pub fn call(&self, id: &SocketId, rooms: &[ByteString], joins: bool) {
        self.change_rooms(id, rooms, |membership| {
            membership.direct = joins;
            membership.pending = membership.pending.saturating_add(1);
        });
    }

    /// A [call](Self::call) was answered, however it ended: what the log says counts again, unless
    /// a later call is on its way.
    pub fn settle(&self, id: &SocketId, rooms: &[ByteString]) {
        self.change_rooms(id, rooms, |membership| {
            membership.pending = membership.pending.saturating_sub(1);
            if membership.pending == 0 {
                membership.direct = membership.agreed;
            }
        });
    }

    /// The log says so.
    pub fn agree(&self, id: &SocketId, rooms: &[ByteString], joins: bool) {
        self.change_rooms(id, rooms, |membership| membership.agree(joins));
    }

    fn take_out(&self, shard: &mut Shard, id: &SocketId) -> Option<Arc<Recipient>> {
        let slot = shard.slots.remove(id)?;
        self.end_drift(shard, slot);
        let socket = shard.sockets[slot as usize].take()?;
        shard.reindex(slot, socket.session.as_deref(), None);
        shard.tell_own_room(*id, |watch, room, id| watch.left(room, id));
        for room in &socket.rooms {
            shard.tell_left(slot, room, *id);
            shard.forget_member(slot, room);
        }
        shard.free.push(slot);
        Some(socket.recipient)
    }

    fn end_drift(&self, shard: &mut Shard, slot: u32) {
        if shard.adrift.remove(&slot).is_some() {
            self.adrift.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Has `watch` told of all that happens to rooms from now on.
    pub(super) fn watch(&self, watch: Arc<dyn Watcher>) {
        // All at once, so that it counts what is there and misses nothing after.
        let mut shards: Vec<_> = self.shards.iter().map(lock).collect();
        for shard in &mut shards {
            for socket in shard.sockets.iter().flatten() {
                watch.count(&own_room(socket.recipient.id), 1);
            }
            for (room, members) in &shard.rooms {
                watch.count(room, members.values().filter(|member| member.is_seen()).count());
            }
            shard.watches.push(watch.clone());
        }
    }

    /// Visits every socket that is meant, once.
    pub fn visit(&self, target: &Target, plane: Plane, mut visitor: impl FnMut(&Arc<Recipient>)) {
        let own_ids: SmallVec<[_; 1]> = target.rooms.iter().map(own_id).collect();
        let entry = target.filter.as_ref().and_then(|filter| self.keys.entry_of(filter));
        for shard in &self.shards {
            lock(shard).visit(target, &own_ids, entry.as_ref(), plane, &mut visitor);
        }
    }

    /// Visits the sockets in the rooms of each part, part by part, each socket once for a part, with
    /// the part's place and whether it is the last one that the socket is in. `target` says who is
    /// left out.
    pub(super) fn visit_parts(
        &self,
        parts: &[&[ByteString]],
        target: &Target,
        plane: Plane,
        mut visitor: impl FnMut(&Arc<Recipient>, usize, bool),
    ) {
        for shard in &self.shards {
            let mut shard = lock(shard);
            // With one part there is nothing to count.
            if parts.len() > 1 {
                for rooms in parts {
                    shard.visit_part(rooms, target, plane, &mut |socket| socket.parts += 1);
                }
            }
            for (place, rooms) in parts.iter().enumerate() {
                shard.visit_part(rooms, target, plane, &mut |socket| {
                    socket.parts = socket.parts.saturating_sub(1);
                    visitor(&socket.recipient, place, socket.parts == 0);
                });
            }
        }
    }

    /// The sockets that are meant.
    pub fn matching(&self, target: &Target, plane: Plane) -> Vec<SocketId> {
        let mut matching = Vec::new();
        self.visit(target, plane, |recipient| matching.push(recipient.id));
        matching
    }

    fn change_rooms(&self, id: &SocketId, rooms: &[ByteString], change: impl Fn(&mut Membership)) {
        let mut shard = self.shard(id);
        let Some(slot) = shard.slots.get(id).copied() else { return };
        for room in rooms {
            shard.change(slot, room, &change);
        }
    }

    fn shard(&self, id: &SocketId) -> MutexGuard<'_, Shard> {
        let hash = self.hasher.hash_one(id) as usize;
        lock(&self.shards[hash & (self.shards.len() - 1)])
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().expect("nothing panics while it holds a shard")
}

impl Shard {
    /// A socket's session is `after` now, from `before`.
    fn reindex(&mut self, slot: u32, before: Option<&SessionValue>, after: Option<&SessionValue>) {
        if self.keys.is_empty() {
            return;
        }
        for entry in before.into_iter().flat_map(|session| self.keys.entries(&session.object)) {
            if let Some(sockets) = self.indexed.get_mut(&entry) {
                sockets.swap_remove(&slot);
                if sockets.is_empty() {
                    self.indexed.remove(&entry);
                }
            }
        }
        for entry in after.into_iter().flat_map(|session| self.keys.entries(&session.object)) {
            self.indexed.entry(entry).or_default().insert(slot);
        }
    }

    /// Changes a socket's membership in one room, which begins or ends with it if need be.
    fn change(&mut self, slot: u32, room: &ByteString, change: impl FnOnce(&mut Membership)) {
        let Some(socket) = &mut self.sockets[slot as usize] else { return };
        // A new name is copied: the text may be a piece of a log entry, which it would keep in memory.
        let mut row = match self.rooms.entry_ref(&**room) {
            RoomEntry::Occupied(row) => row,
            RoomEntry::Vacant(place) => {
                place.insert_entry_with_key((**room).into(), Members::default())
            }
        };
        let members = row.get_mut();
        let place = members.entry(slot);
        let before = match &place {
            MemberEntry::Occupied(member) => Some(*member.get()),
            MemberEntry::Vacant(_) => None,
        };
        let mut membership = before.unwrap_or_default();
        change(&mut membership);
        let is_over = membership.is_over();
        match place {
            MemberEntry::Occupied(mut member) if !is_over => *member.get_mut() = membership,
            MemberEntry::Vacant(place) if !is_over => {
                place.insert(membership);
            }
            MemberEntry::Occupied(member) => {
                member.swap_remove();
            }
            MemberEntry::Vacant(_) => {}
        }
        let is_empty = members.is_empty();
        let (name, id) = (row.key(), socket.recipient.id);
        match (before.is_some_and(Membership::is_seen), membership.is_seen()) {
            (false, true) => self.watches.iter().for_each(|watch| watch.joined(name, id)),
            (true, false) => self.watches.iter().for_each(|watch| watch.left(name, id)),
            (false, false) | (true, true) => {}
        }
        match (before.is_some(), !is_over) {
            (false, true) => socket.rooms.push(name.clone()),
            (true, false) => socket.rooms.retain(|joined| joined != name),
            (false, false) | (true, true) => {}
        }
        if is_empty {
            row.remove();
        }
    }

    fn tell_own_room(&self, id: SocketId, tell: fn(&dyn Watcher, &ByteString, SocketId)) {
        if !self.watches.is_empty() {
            let room = own_room(id);
            self.watches.iter().for_each(|watch| tell(&**watch, &room, id));
        }
    }

    fn tell_left(&self, slot: u32, room: &ByteString, id: SocketId) {
        let is_seen = |members: &Members| members.get(&slot).is_some_and(|member| member.is_seen());
        if !self.watches.is_empty() && self.rooms.get(room).is_some_and(is_seen) {
            self.watches.iter().for_each(|watch| watch.left(room, id));
        }
    }

    fn forget_member(&mut self, slot: u32, room: &ByteString) {
        if let Some(members) = self.rooms.get_mut(room) {
            members.swap_remove(&slot);
            if members.is_empty() {
                self.rooms.remove(room);
            }
        }
    }

    /// `own_ids`: the sockets after whose ids the target's rooms are named; `entry`: where the index
    /// has all that its filter may match.
    fn visit(
        &mut self,
        target: &Target,
        own_ids: &[Option<SocketId>],
        entry: Option<&IndexEntry>,
        plane: Plane,
        visitor: &mut impl FnMut(&Arc<Recipient>),
    ) {
        self.visit += 1;
        let Self { slots, sockets, rooms, visit, indexed, adrift, .. } = self;
        let mut meet = |socket: &mut LocalSocket, slot: u32| {
            if socket.visited == *visit || passes_by(adrift, slot, plane) {
                return;
            }
            socket.visited = *visit;
            if is_meant(socket, slot, target, plane, rooms) {
                visitor(&socket.recipient);
            }
        };
        if let (true, Some(entry)) = (target.rooms.is_empty(), entry) {
            for slot in indexed.get(entry).into_iter().flatten() {
                if let Some(socket) = &mut sockets[*slot as usize] {
                    meet(socket, *slot);
                }
            }
            return;
        }
        if target.rooms.is_empty() {
            for (slot, socket) in sockets.iter_mut().enumerate() {
                if let Some(socket) = socket {
                    meet(socket, slot as u32);
                }
            }
            return;
        }
        for (room, own_id) in target.rooms.iter().zip(own_ids) {
            if let Some(slot) = own_id.and_then(|id| slots.get(&id).copied())
                && let Some(socket) = &mut sockets[slot as usize]
            {
                meet(socket, slot);
            }
            for (slot, membership) in rooms.get(room).into_iter().flatten() {
                if membership.counts(plane)
                    && let Some(socket) = &mut sockets[*slot as usize]
                {
                    meet(socket, *slot);
                }
            }
        }
    }
}

impl Shard {
    /// Visits the members of a part's rooms, once each, whom the target does not leave out.
    fn visit_part(
        &mut self,
        part: &[ByteString],
        target: &Target,
        plane: Plane,
        visitor: &mut impl FnMut(&mut LocalSocket),
    ) {
        self.visit += 1;
        let Self { sockets, rooms, visit, adrift, .. } = self;
        for room in part {
            for (slot, membership) in rooms.get(room).into_iter().flatten() {
                if membership.counts(plane)
                    && !passes_by(adrift, *slot, plane)
                    && let Some(socket) = &mut sockets[*slot as usize]
                    && std::mem::replace(&mut socket.visited, *visit) != *visit
                    && is_meant(socket, *slot, target, plane, rooms)
                {
                    visitor(socket);
                }
            }
        }
    }
}

/// Whether packets pass a socket by, for it is adrift.
fn passes_by(adrift: &HashMap<u32, Place, FixedState>, slot: u32, plane: Plane) -> bool {
    plane == Plane::Agreed && adrift.contains_key(&slot)
}

/// Whether a socket in the target's rooms passes its `except` and its session filter.
fn is_meant(
    socket: &LocalSocket,
    slot: u32,
    target: &Target,
    plane: Plane,
    rooms: &HashMap<ByteString, Members, FixedState>,
) -> bool {
    let is_in = |room: &ByteString| {
        room.as_bytes() == socket.recipient.id.as_bytes()
            || rooms
                .get(room)
                .and_then(|members| members.get(&slot))
                .is_some_and(|membership| membership.counts(plane))
    };
    if target.except.iter().any(is_in) {
        return false;
    }
    let Some(filter) = &target.filter else { return true };
    match &socket.session {
        Some(session) => filter.matches(&session.object),
        // A session that nobody wrote to is an empty object.
        None => filter.pairs().is_empty(),
    }
}

fn own_room(id: SocketId) -> ByteString {
    ByteString::from(id.as_str())
}

/// The socket after whose id a room may be named.
fn own_id(room: &ByteString) -> Option<SocketId> {
    room.parse().ok()
}

#[cfg(test)]
mod tests;
