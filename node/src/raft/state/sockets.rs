//! The sockets of all nodes, and the namespaces and rooms that they are in.

use std::sync::Arc;

use bytestring::ByteString;
use imbl::OrdMap;
use smallvec::SmallVec;

use super::change::{Namespace, NodeId, Owner};
use super::id::SocketId;
use super::rooms::{Room, Rooms, SocketBits};
use super::sessions::SessionBits;

/// One socket. Every node holds the rows of all, so they are small: ids are kept as bits, and what
/// many rows have in common is shared.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    pub(super) pid: [u8; 15],
    pub(super) session: SessionBits,
    pub(super) home: Arc<Home>,
    /// In the order in which it joined them, without the room named after its own id.
    pub(super) rooms: SmallVec<[Arc<str>; 1]>,
}

/// Where sockets are: in one namespace, on one node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Home {
    pub(super) namespace: Namespace,
    pub(super) owner: Owner,
}

/// So many rooms one socket may be in: it is searched among them at each join, on every node, and
/// clients may choose how often.
pub const MAX_ROOMS: usize = 4096;

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Sockets {
    rows: OrdMap<SocketBits, Row>,
    /// Those that have sockets.
    namespaces: OrdMap<Namespace, Arc<NamespaceRow>>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct NamespaceRow {
    /// One for each node that has sockets here, with their number; sorted by owner.
    homes: SmallVec<[(Arc<Home>, u32); 3]>,
    rooms: Rooms,
}

impl Sockets {
    /// Adds a socket, which is in no room yet; false if there is one of this id.
    pub(super) fn insert(
        &mut self,
        id: SocketBits,
        pid: [u8; 15],
        session: SessionBits,
        namespace: &str,
        owner: Owner,
    ) -> bool {
        if self.rows.contains_key(&id) {
            return false;
        }
        if !self.namespaces.contains_key(namespace) {
            // Copied, for the name may be a piece of a log entry that it would keep in memory.
            self.namespaces.insert(namespace.to_owned().into(), Arc::default());
        }
        let (name, row) =
            self.namespaces.get_key_value_mut(namespace).expect("it was there or inserted");
        let name = name.clone();
        let home = Arc::make_mut(row).settle(name, owner);
        self.rows.insert(id, Row { pid, session, home, rooms: SmallVec::new() });
        true
    }

    pub(super) fn remove(&mut self, id: &SocketBits) -> Option<Row> {
        let row = self.rows.remove(id)?;
        let owner = row.home.owner;
        let namespace = namespace_mut(&mut self.namespaces, &row.home);
        for name in &row.rooms {
            namespace.rooms.leave(name, id, owner);
        }
        namespace.unsettle(owner);
        if namespace.homes.is_empty() {
            self.namespaces.remove(&row.home.namespace);
        }
        Some(row)
    }

    /// Gives a socket to another owner. It stays in its rooms.
    pub(super) fn hand_over(&mut self, id: &SocketBits, owner: Owner) {
        let Some(row) = self.rows.get_mut(id) else { return };
        let before = row.home.owner;
        let namespace = namespace_mut(&mut self.namespaces, &row.home);
        for name in &row.rooms {
            namespace.rooms.recount(name, before, owner);
        }
        let home = namespace.settle(row.home.namespace.clone(), owner);
        namespace.unsettle(before);
        row.home = home;
    }

    /// Does nothing for rooms that the socket is in already.
    pub(super) fn join(&mut self, id: &SocketBits, rooms: &[ByteString]) {
        if let Some(row) = self.rows.get_mut(id) {
            row.join(id, rooms, namespace_mut(&mut self.namespaces, &row.home));
        }
    }

    /// The same, if `owner` has the socket (None: whoever has it), and unless that would be in too many: see
    /// [`MAX_ROOMS`]. Returns where the socket is.
    pub(super) fn try_join(
        &mut self,
        id: &SocketBits,
        owner: Option<Owner>,
        rooms: &[ByteString],
    ) -> Result<Arc<Home>, NotMoved> {
        let row = owned(&mut self.rows, id, owner)?;
        if !row.has_place_for(rooms) {
            return Err(NotMoved::TooManyRooms);
        }
        row.join(id, rooms, namespace_mut(&mut self.namespaces, &row.home));
        Ok(row.home.clone())
    }

    /// Does nothing for rooms that the socket is not in. `owner`, and what is returned, as for joining.
    pub(super) fn leave(
        &mut self,
        id: &SocketBits,
        owner: Option<Owner>,
        rooms: &[ByteString],
    ) -> Result<Arc<Home>, NotMoved> {
        let row = owned(&mut self.rows, id, owner)?;
        let namespace = namespace_mut(&mut self.namespaces, &row.home);
        for name in rooms {
            if let Some(at) = row.rooms.iter().position(|room| **room == **name) {
                row.rooms.remove(at);
                namespace.rooms.leave(name, id, row.home.owner);
            }
        }
        Ok(row.home.clone())
    }

    pub(super) fn get(&self, id: &SocketBits) -> Option<&Row> {
        self.rows.get(id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&SocketBits, &Row)> {
        self.rows.iter()
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn room(&self, namespace: &str, room: &str) -> Option<&Room> {
        self.namespaces.get(namespace)?.rooms.get(room)
    }

    /// The rooms of a namespace that have members, by name.
    pub(super) fn rooms(&self, namespace: &str) -> impl Iterator<Item = (&str, &Room)> {
        self.namespaces.get(namespace).into_iter().flat_map(|row| row.rooms.iter())
    }

    pub(super) fn rooms_len(&self) -> usize {
        self.namespaces.values().map(|row| row.rooms.len()).sum()
    }

    pub(super) fn namespaces(&self) -> impl Iterator<Item = &Namespace> {
        self.namespaces.keys()
    }

    pub(super) fn count_of(&self, node: NodeId) -> usize {
        let homes = self.namespaces.values().flat_map(|row| row.homes.iter());
        homes.filter(|(home, _)| home.owner.node == node).map(|(_, count)| *count as usize).sum()
    }

    /// Where a namespace has sockets.
    pub(super) fn homes(&self, namespace: &str) -> impl Iterator<Item = &Arc<Home>> {
        self.namespaces
            .get(namespace)
            .into_iter()
            .flat_map(|row| row.homes.iter().map(|(home, _count)| home))
    }
}

impl Row {
    /// Whether the socket may be in these too.
    fn has_place_for(&self, rooms: &[ByteString]) -> bool {
        self.rooms.len() + rooms.len() <= MAX_ROOMS || {
            let is_new = |name: &&ByteString| !self.is_in(name);
            self.rooms.len() + rooms.iter().filter(is_new).count() <= MAX_ROOMS
        }
    }

    fn join(&mut self, id: &SocketBits, rooms: &[ByteString], namespace: &mut NamespaceRow) {
        for name in rooms {
            if !is_own_room(id, name) && !self.is_in(name) {
                self.rooms.push(namespace.rooms.join(name, *id, self.home.owner));
            }
        }
    }

    fn is_in(&self, name: &str) -> bool {
        self.rooms.iter().any(|room| **room == *name)
    }
}

impl NamespaceRow {
    /// Counts a socket of `owner`, and returns the home that it shares with its like.
    fn settle(&mut self, namespace: Namespace, owner: Owner) -> Arc<Home> {
        match self.homes.binary_search_by_key(&owner, |(home, _)| home.owner) {
            Ok(at) => {
                let (home, count) = &mut self.homes[at];
                *count += 1;
                home.clone()
            }
            Err(at) => {
                let home = Arc::new(Home { namespace, owner });
                self.homes.insert(at, (home.clone(), 1));
                home
            }
        }
    }

    fn unsettle(&mut self, owner: Owner) {
        if let Ok(at) = self.homes.binary_search_by_key(&owner, |(home, _)| home.owner) {
            self.homes[at].1 -= 1;
            if self.homes[at].1 == 0 {
                self.homes.remove(at);
            }
        }
    }
}

/// Why a socket neither joined nor left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotMoved {
    /// It is not there, or another's.
    UnknownSocket,
    TooManyRooms,
}

fn owned<'a>(
    rows: &'a mut OrdMap<SocketBits, Row>,
    id: &SocketBits,
    owner: Option<Owner>,
) -> Result<&'a mut Row, NotMoved> {
    let row = rows.get_mut(id);
    let row = row.filter(|row| owner.is_none_or(|owner| row.home.owner == owner));
    row.ok_or(NotMoved::UnknownSocket)
}

fn namespace_mut<'a>(
    namespaces: &'a mut OrdMap<Namespace, Arc<NamespaceRow>>,
    home: &Home,
) -> &'a mut NamespaceRow {
    let row = namespaces.get_mut(&home.namespace).expect("a socket's namespace has a row");
    Arc::make_mut(row)
}

/// Whether a room is the one named after the socket's own id.
pub(super) fn is_own_room(id: &SocketBits, room: &str) -> bool {
    room.len() == 20 && room.parse().is_ok_and(|room: SocketId| room.to_bits() == *id)
}
