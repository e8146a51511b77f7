//! Which sockets and which nodes a target means.

use bytestring::ByteString;
use serde_json::{Map, Value};
use smallvec::SmallVec;

use super::State;
use super::change::{NodeId, Owner};
use super::id::SocketId;
use super::rooms::SocketBits;
use super::sockets::{Row, is_own_room};
use super::target::Target;

/// The nodes of a target: few, sorted, each once.
pub type NodeIds = SmallVec<[NodeId; 4]>;

impl State {
    /// The connected sockets that a target means, in an order that is the same on every node. (What
    /// is agreed about matching sockets, and packets, mean those that are away as well.)
    pub fn matching(&self, namespace: &str, target: &Target) -> Vec<SocketId> {
        let is_connected = |id: &SocketBits| {
            self.sockets.get(id).is_some_and(|row| row.home.owner != Owner::NOBODY)
        };
        let selected = self.select(namespace, target).into_iter();
        selected.filter(is_connected).map(SocketId::from_bits).collect()
    }

    /// The nodes on which a room has members.
    pub fn nodes_of_room(&self, namespace: &str, room: &str) -> NodeIds {
        let mut nodes = NodeIds::new();
        self.add_nodes_of_room(namespace, room, &mut nodes);
        sorted(nodes)
    }

    /// The nodes that have sockets in the target's rooms. `except` and the filter are for the
    /// receivers to look at: this answers for each direct emit, and must be quick.
    pub fn nodes_of_target(&self, namespace: &str, target: &Target) -> NodeIds {
        if target.rooms.is_empty() {
            let homes = self.sockets.homes(namespace).map(|home| home.owner.node);
            return homes.filter(|node| *node != Owner::NOBODY.node).collect();
        }
        let mut nodes = NodeIds::new();
        for room in &target.rooms {
            self.add_nodes_of_room(namespace, room, &mut nodes);
        }
        sorted(nodes)
    }

    fn add_nodes_of_room(&self, namespace: &str, room: &str, nodes: &mut NodeIds) {
        if let Some(room) = self.sockets.room(namespace, room) {
            nodes.extend(room.nodes());
        }
        if let Some((_id, row)) = self.own_room(namespace, room) {
            nodes.push(row.home.owner.node);
        }
    }

    /// The socket whose own room this is.
    fn own_room(&self, namespace: &str, room: &str) -> Option<(SocketBits, &Row)> {
        let id = room.parse::<SocketId>().ok()?.to_bits();
        let row = self.sockets.get(&id)?;
        (*row.home.namespace == *namespace).then_some((id, row))
    }

    pub(super) fn select(&self, namespace: &str, target: &Target) -> Vec<SocketBits> {
        if target.rooms.is_empty() {
            if let Some(selected) = self.select_indexed(namespace, target) {
                return selected;
            }
            return self
                .sockets
                .iter()
                .filter(|(_, row)| *row.home.namespace == *namespace)
                .filter(|(id, row)| self.passes(id, row, target))
                .map(|(id, _)| *id)
                .collect();
        }
        let mut selected: Vec<SocketBits> = Vec::new();
        for room in &target.rooms {
            if let Some(room) = self.sockets.room(namespace, room) {
                selected.extend(room.members());
            }
            selected.extend(self.own_room(namespace, room).map(|(id, _row)| id));
        }
        selected.sort_unstable();
        selected.dedup();
        if !target.except.is_empty() || target.filter.is_some() {
            selected
                .retain(|id| self.sockets.get(id).is_some_and(|row| self.passes(id, row, target)));
        }
        selected
    }

    /// The sockets of a target without rooms, by the index of sessions; None if that has none of
    /// the filter's keys.
    fn select_indexed(&self, namespace: &str, target: &Target) -> Option<Vec<SocketBits>> {
        let candidates = self.sessions.indexed(target.filter.as_ref()?)?;
        let is_meant = |id: &&SocketBits| {
            self.sockets.get(id).is_some_and(|row| {
                *row.home.namespace == *namespace && self.passes(id, row, target)
            })
        };
        let sockets = candidates.flat_map(|session| self.sessions.sockets_of(session));
        let mut selected: Vec<SocketBits> = sockets.filter(is_meant).copied().collect();
        // The order does not depend on there being an index.
        selected.sort_unstable();
        Some(selected)
    }

    /// Whether a socket in the target's rooms is not excepted, and matches its filter.
    fn passes(&self, id: &SocketBits, row: &Row, target: &Target) -> bool {
        let is_in = |room: &ByteString| {
            row.rooms.iter().any(|joined| **joined == **room) || is_own_room(id, room)
        };
        !target.except.iter().any(is_in)
            && target.filter.as_ref().is_none_or(|filter| match self.sessions.get(&row.session) {
                Some(session) => filter.matches(&session.value.object),
                None => filter.matches(&EMPTY),
            })
    }
}

/// The session of a client that never wrote one.
static EMPTY: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);

/// Each node once, without the one that sockets which are away count for.
fn sorted(mut nodes: NodeIds) -> NodeIds {
    nodes.retain(|node| *node != Owner::NOBODY.node);
    nodes.sort_unstable();
    nodes.dedup();
    nodes
}
