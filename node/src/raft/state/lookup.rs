//! What readers of the agreed state ask it.

use super::State;
use super::change::{Change, Incarnation, Namespace, NodeId, Owner};
use super::id::{Pid, SessionId, SocketId};
use super::index::SessionKeys;
use super::nodes::Node;
use super::rooms::SocketBits;
use super::sessions::Session;
use super::sockets::Row;

/// A socket as the agreed state knows it.
#[derive(Clone, Copy, Debug)]
pub struct SocketView<'a> {
    id: SocketBits,
    row: &'a Row,
}

impl<'a> SocketView<'a> {
    pub fn id(&self) -> SocketId {
        SocketId::from_bits(self.id)
    }

    pub fn pid(&self) -> Pid {
        Pid::from_bits(self.row.pid)
    }

    pub fn session(&self) -> SessionId {
        SessionId::from_bits(self.row.session)
    }

    pub fn namespace(&self) -> &'a Namespace {
        &self.row.home.namespace
    }

    pub fn owner(&self) -> Owner {
        self.row.home.owner
    }

    /// Its client is away, and may come back for it.
    pub fn is_detached(&self) -> bool {
        self.owner() == Owner::NOBODY
    }

    /// The rooms that it joined, in that order, without the one named after its own id.
    pub fn rooms(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.row.rooms.iter().map(|room| &**room)
    }
}

impl State {
    /// The log index of the last change applied.
    pub fn index(&self) -> u64 {
        self.index
    }

    pub fn socket(&self, id: SocketId) -> Option<SocketView<'_>> {
        let id = id.to_bits();
        self.sockets.get(&id).map(|row| SocketView { id, row })
    }

    /// All sockets, in an order that is the same on every node.
    pub fn sockets(&self) -> impl Iterator<Item = SocketView<'_>> {
        self.sockets.iter().map(|(id, row)| SocketView { id: *id, row })
    }

    /// How many sockets a node has, in all namespaces.
    pub fn sockets_of(&self, node: NodeId) -> usize {
        self.sockets.count_of(node)
    }

    /// None for a session that was never written: an empty object of revision 0.
    pub fn session(&self, id: SessionId) -> Option<&Session> {
        self.sessions.get(&id.to_bits())
    }

    /// The session, if a client may come back to it: it outlives its sockets, and has not expired.
    pub fn kept_session(&self, id: SessionId, now_ms: u64) -> Option<&Session> {
        let bits = id.to_bits();
        let is_live = |row: &&Session| row.expires_ms > now_ms || self.sessions.in_use(&bits);
        self.session(id).filter(|row| row.keep_ms > 0).filter(is_live)
    }

    /// The keys of sessions that this node keeps an index of.
    pub fn session_keys(&self) -> &SessionKeys {
        self.sessions.keys()
    }

    /// The same state with an index of these keys. It is this node's own affair: what is agreed,
    /// and what follows from it, does not depend on it.
    #[must_use]
    pub fn with_session_keys(mut self, keys: SessionKeys) -> Self {
        self.sessions.index_by(keys);
        self
    }

    /// The sessions that were written.
    pub fn sessions(&self) -> impl Iterator<Item = (SessionId, &Session)> {
        self.sessions.iter().map(|(id, session)| (SessionId::from_bits(*id), session))
    }

    /// What the leader proposes to end: sessions that expired while no socket used them.
    pub fn expired_sessions(&self, now_ms: u64) -> impl Iterator<Item = Change> {
        self.sessions.expired(now_ms).map(|(id, row)| Change::SessionExpired {
            session: SessionId::from_bits(*id),
            revision: row.revision,
        })
    }

    /// The namespaces that have sockets.
    pub fn namespaces(&self) -> impl Iterator<Item = &Namespace> {
        self.sockets.namespaces()
    }

    /// The rooms of a namespace by name, each with its number of members; without the rooms
    /// named after a socket's own id.
    pub fn rooms_of(&self, namespace: &str) -> impl Iterator<Item = (&str, usize)> {
        self.sockets.rooms(namespace).map(|(name, room)| (name, room.len()))
    }

    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(id)
    }

    /// Every node that ever registered.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        self.nodes.iter()
    }

    /// The node's incarnation, unless it is down or unknown.
    pub fn alive(&self, node: NodeId) -> Option<Incarnation> {
        self.nodes.alive(node)
    }

    pub fn sockets_len(&self) -> usize {
        self.sockets.len()
    }

    pub fn rooms_len(&self) -> usize {
        self.sockets.rooms_len()
    }

    pub fn sessions_len(&self) -> usize {
        self.sessions.len()
    }

    /// How many changes of each kind were applied since the cluster began.
    pub fn applied_changes(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Change::KINDS.into_iter().zip(self.applied)
    }
}
