//! What the cluster agrees on: a pure value that changes are applied to.

mod apply;
mod change;
mod departures;
mod departures_snapshot;
mod dump;
mod id;
mod index;
mod lookup;
mod nodes;
mod packets;
mod recovery;
mod rooms;
mod select;
mod sessions;
mod snapshot;
mod sockets;
mod stays;
mod target;
#[cfg(test)]
mod tests;
mod window_snapshot;

pub use apply::{Applied, Effects, Verdict};
pub use change::{
    Change, Effect, Incarnation, Namespace, NodeId, NodeUp, Outcome, Owner, Packet, Place,
    Proposal, Recovered, RecoveryTerms, Rooms, SessionValue, SocketClaim, SocketUp,
};
pub use departures::{Departed, Departure};
pub use id::{InvalidId, Pid, SessionId, SocketId};
pub use index::{IndexEntry, SessionKeys};
pub use lookup::SocketView;
pub use nodes::{Node, NodeStatus};
pub use packets::{KEPT_PACKET_BYTES, KeptPacket};
pub use recovery::{Backlog, WindowNumbers};
pub use select::NodeIds;
pub use sessions::{SESSION_TTL_MS, Session, UNENTERED_TTL_MS, next_revision};
pub use snapshot::DecodeError;
pub use sockets::MAX_ROOMS;
pub use target::{FilterError, SessionFilter, Target};

use std::sync::Arc;

use imbl::OrdMap;

use departures::Departures;
use nodes::Nodes;
use packets::Window;
use sessions::Sessions;
use sockets::Sockets;

/// All that is agreed, after the change at [`index`](Self::index).
///
/// A clone costs next to nothing and shares what does not change: it is the view that readers
/// hold. [`apply`](Self::apply) is the only way to change it, reads no clock and does no I/O, and
/// does the same on every node: iteration is in the order of keys, never of hashes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    index: u64,
    nodes: Nodes,
    sockets: Sockets,
    sessions: Sessions,
    windows: Windows,
    departures: Departures,
    applied: [u64; Change::KINDS.len()],
}

/// Of the namespaces that have recoverable sockets.
type Windows = OrdMap<Namespace, Arc<Window>>;
