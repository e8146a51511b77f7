//! The nodes of the cluster: who is registered, under which incarnation, and what it applied last.

use std::sync::Arc;

use imbl::OrdMap;

use super::change::{Incarnation, NodeId, NodeUp, Outcome, Owner};

/// What the cluster knows of one node.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// How it presented itself.
    pub up: Arc<NodeUp>,
    pub incarnation: Incarnation,
    pub status: NodeStatus,
    /// The last change of its incarnation that was applied.
    pub last_seq: u64,
    /// The same of its incarnation before: a retried registration is answered with it again.
    pub previous_seq: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeStatus {
    Alive,
    /// Its proposals are taken, but it wants no new clients.
    Draining,
    /// Declared dead: its incarnation will never change anything again.
    Down,
}

impl NodeStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Draining => "draining",
            Self::Down => "down",
        }
    }
}

/// What a registration did.
pub(super) struct Registration {
    pub(super) outcome: Outcome,
    /// The new incarnation; None if this was a retry of what is registered already.
    pub(super) new: Option<Owner>,
    /// The incarnation that ended by it, if it had not been declared dead before.
    pub(super) ended: Option<Owner>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Nodes {
    rows: OrdMap<NodeId, Node>,
}

impl Nodes {
    /// The node's incarnation, unless it is down or unknown.
    pub(super) fn alive(&self, node: NodeId) -> Option<Incarnation> {
        let row = self.rows.get(&node)?;
        (row.status != NodeStatus::Down).then_some(row.incarnation)
    }

    pub(super) fn is_alive(&self, owner: Owner) -> bool {
        self.alive(owner.node) == Some(owner.incarnation)
    }

    pub(super) fn last_seq(&self, node: NodeId) -> u64 {
        self.rows.get(&node).map_or(0, |row| row.last_seq)
    }

    pub(super) fn set_last_seq(&mut self, node: NodeId, seq: u64) {
        if let Some(row) = self.rows.get_mut(&node) {
            row.last_seq = seq;
        }
    }

    pub(super) fn register(&mut self, node: NodeId, up: NodeUp, index: u64) -> Registration {
        let before = self.rows.get(&node);
        if let Some(row) = before
            && row.up.boot == up.boot
            && row.status != NodeStatus::Down
        {
            let outcome =
                Outcome::Registered { incarnation: row.incarnation, last_seq: row.previous_seq };
            return Registration { outcome, new: None, ended: None };
        }
        let previous_seq = before.map_or(0, |row| row.last_seq);
        let ended = self.alive(node).map(|incarnation| Owner { node, incarnation });
        let row = Node {
            up: Arc::new(unpinned(&up)),
            incarnation: index,
            status: NodeStatus::Alive,
            last_seq: 0,
            previous_seq,
        };
        self.rows.insert(node, row);
        let outcome = Outcome::Registered { incarnation: index, last_seq: previous_seq };
        Registration { outcome, new: Some(Owner { node, incarnation: index }), ended }
    }

    pub(super) fn set_status(&mut self, owner: Owner, status: NodeStatus) {
        if let Some(row) = self.rows.get_mut(&owner.node)
            && row.incarnation == owner.incarnation
        {
            row.status = status;
        }
    }

    pub(super) fn restore(&mut self, id: NodeId, node: Node) {
        self.rows.insert(id, node);
    }

    pub(super) fn get(&self, id: NodeId) -> Option<&Node> {
        self.rows.get(&id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        self.rows.iter().map(|(id, node)| (*id, node))
    }
}

/// Copies the texts, which may be pieces of a log entry that they would keep in memory.
fn unpinned(up: &NodeUp) -> NodeUp {
    NodeUp {
        boot: up.boot,
        name: up.name.to_string().into(),
        address: up.address.to_string().into(),
        version: up.version.to_string().into(),
    }
}
