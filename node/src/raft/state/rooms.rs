//! The rooms of one namespace: who is in them, counted by node.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use smallvec::SmallVec;

use super::change::{NodeId, Owner};

/// A socket's id, as rows and rooms keep it.
pub(super) type SocketBits = [u8; 15];

/// The rooms of a namespace that have members. Rooms that are named after a socket's own id are not here: the
/// socket's row is that room.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Rooms {
    rooms: OrdMap<Arc<str>, Arc<Room>>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Room {
    members: Members,
    nodes: CountByNode,
}

impl Rooms {
    /// Puts a socket into a room, and returns the room's name as all its members share it.
    /// The caller knows that the socket is not in it.
    pub(super) fn join(&mut self, name: &str, socket: SocketBits, owner: Owner) -> Arc<str> {
        if let Some((shared, room)) = self.rooms.get_key_value_mut(name) {
            let shared = shared.clone();
            Arc::make_mut(room).add(socket, owner.node);
            return shared;
        }
        let shared: Arc<str> = name.into();
        let mut room = Room::default();
        room.add(socket, owner.node);
        self.rooms.insert(shared.clone(), Arc::new(room));
        shared
    }

    /// Takes a socket out of a room that it is in.
    pub(super) fn leave(&mut self, name: &str, socket: &SocketBits, owner: Owner) {
        let Some(room) = self.rooms.get_mut(name) else { return };
        let room = Arc::make_mut(room);
        room.members.remove(socket);
        room.nodes.remove(owner.node);
        if room.nodes.is_empty() {
            self.rooms.remove(name);
        }
    }

    /// A member of a room has another owner.
    pub(super) fn recount(&mut self, name: &str, before: Owner, owner: Owner) {
        let Some(room) = self.rooms.get_mut(name) else { return };
        let nodes = &mut Arc::make_mut(room).nodes;
        nodes.add(owner.node);
        nodes.remove(before.node);
    }

    pub(super) fn get(&self, name: &str) -> Option<&Room> {
        self.rooms.get(name).map(|room| &**room)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Room)> {
        self.rooms.iter().map(|(name, room)| (&**name, &**room))
    }

    pub(super) fn len(&self) -> usize {
        self.rooms.len()
    }
}

impl Room {
    fn add(&mut self, socket: SocketBits, node: NodeId) {
        self.members.insert(socket);
        self.nodes.add(node);
    }

    pub(super) fn members(&self) -> impl Iterator<Item = &SocketBits> {
        let (few, many) = match &self.members {
            Members::Few(few) => (Some(few.iter()), None),
            Members::Many(many) => (None, Some(many.iter())),
        };
        few.into_iter().flatten().chain(many.into_iter().flatten())
    }

    pub(super) fn len(&self) -> usize {
        match &self.members {
            Members::Few(few) => few.len(),
            Members::Many(many) => many.len(),
        }
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.nodes.nodes()
    }
}

/// A sorted set of sockets. Most rooms are small, and a tree would cost several times as much.
#[derive(Clone, Debug, PartialEq)]
enum Members {
    /// Up to [`FEW`].
    Few(SmallVec<[SocketBits; 1]>),
    Many(OrdSet<SocketBits>),
}

/// Above this a copied slice costs more than a copied path of a tree. The form depends on the
/// number alone, so that equal sets are equal values.
const FEW: usize = 32;

impl Default for Members {
    fn default() -> Self {
        Self::Few(SmallVec::new())
    }
}

impl Members {
    fn insert(&mut self, socket: SocketBits) {
        match self {
            Self::Few(few) => {
                if let Err(at) = few.binary_search(&socket) {
                    few.insert(at, socket);
                }
                if few.len() > FEW {
                    *self = Self::Many(few.iter().copied().collect());
                }
            }
            Self::Many(many) => {
                many.insert(socket);
            }
        }
    }

    fn remove(&mut self, socket: &SocketBits) {
        match self {
            Self::Few(few) => {
                if let Ok(at) = few.binary_search(socket) {
                    few.remove(at);
                }
            }
            Self::Many(many) => {
                many.remove(socket);
                if many.len() <= FEW {
                    *self = Self::Few(many.iter().copied().collect());
                }
            }
        }
    }
}

/// How many sockets each node has in a room; sorted, and without zeros.
#[derive(Clone, Debug, Default, PartialEq)]
struct CountByNode(SmallVec<[(NodeId, u32); 1]>);

impl CountByNode {
    fn add(&mut self, node: NodeId) {
        match self.0.binary_search_by_key(&node, |(node, _)| *node) {
            Ok(at) => self.0[at].1 += 1,
            Err(at) => self.0.insert(at, (node, 1)),
        }
    }

    fn remove(&mut self, node: NodeId) {
        if let Ok(at) = self.0.binary_search_by_key(&node, |(node, _)| *node) {
            self.0[at].1 -= 1;
            if self.0[at].1 == 0 {
                self.0.remove(at);
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.0.iter().map(|(node, _)| *node)
    }
}
