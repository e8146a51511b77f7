//! What can be asked of the agreed state, and what follows from it.

use std::sync::{Arc, LazyLock};

use bytestring::ByteString;
use smallvec::SmallVec;

use super::id::{Pid, SessionId, SocketId};
use super::recovery::Backlog;
use super::target::Target;
use crate::socketio::Payload;

/// A raft node id: random, made when a node first starts on an empty disk, never used again.
pub type NodeId = u64;

/// The log index of a node's registration: new at each process start.
pub type Incarnation = u64;

/// A namespace's name, `/` included.
pub type Namespace = ByteString;

/// Rooms to join or leave; mostly one.
pub type Rooms = SmallVec<[ByteString; 1]>;

/// Where a change stands in the log: its entry, and its place among the entry's changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub index: u64,
    pub position: u32,
}

impl Place {
    /// After everything.
    pub const END: Self = Self { index: u64::MAX, position: u32::MAX };

    /// The one before, whether or not a change stands there.
    pub fn before(self) -> Self {
        match self.position.checked_sub(1) {
            Some(position) => Self { position, ..self },
            None if self.index == 0 => self,
            None => Self { index: self.index - 1, position: u32::MAX },
        }
    }

    /// Of the change `seq` in an entry whose changes are numbered from `first_seq` on.
    pub fn of(index: u64, first_seq: u64, seq: u64) -> Self {
        let position = seq.saturating_sub(first_seq).try_into().unwrap_or(u32::MAX);
        Self { index, position }
    }
}

/// Changes that one node proposes as one log entry.
///
/// The state applies each change of a node's incarnation once and in order: `first_seq` numbers
/// the first change, the others follow on. It refuses all of an incarnation that is not alive.
#[derive(Clone, Debug, PartialEq)]
pub struct Proposal {
    pub node: NodeId,
    /// 0 while the node registers ([`Change::NodeUp`] alone may come with it).
    pub incarnation: Incarnation,
    pub first_seq: u64,
    /// Milliseconds since the Unix epoch by the proposer's clock: the only time the state knows.
    pub stamp_ms: u64,
    pub changes: Vec<Change>,
}

/// One change of the agreed state (DESIGN 3).
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// The proposer registers. Rows of its older incarnation go.
    NodeUp(Box<NodeUp>),
    /// The proposer takes no new clients from now on.
    NodeDraining,
    /// The leader declares a node dead, if `incarnation` is still its own: all its sockets go.
    NodeDown {
        node: NodeId,
        incarnation: Incarnation,
    },
    /// A socket of the proposer connects to a namespace, with the rooms its middleware joined.
    SocketUp(Box<SocketUp>),
    /// A socket of the proposer left its namespace. `claim` says by which connection the proposer
    /// had it: 0 by its first, else by the one of that [claim](SocketClaim::key).
    SocketGone {
        socket: SocketId,
        claim: u64,
    },
    Join {
        socket: SocketId,
        rooms: Rooms,
    },
    Leave {
        socket: SocketId,
        rooms: Rooms,
    },
    /// All sockets that match join the rooms, on whatever node they are.
    JoinMatching {
        namespace: Namespace,
        target: Box<Target>,
        rooms: Rooms,
    },
    LeaveMatching {
        namespace: Namespace,
        target: Box<Target>,
        rooms: Rooms,
    },
    /// All sockets that match are disconnected by their owners; `close` ends the connection too.
    DisconnectMatching {
        namespace: Namespace,
        target: Box<Target>,
        close: bool,
    },
    /// Replaces a session, if its revision is still `expected` (0: there is none yet).
    SessionPut {
        session: SessionId,
        expected: u64,
        /// Random, drawn by the proposer: no other write makes the same revision of `expected`.
        salt: u64,
        value: ByteString,
    },
    /// The leader ends a session nobody used, if its revision is still `revision`.
    SessionExpired {
        session: SessionId,
        revision: u64,
    },
    /// Someone uses a session: it is kept for that long from here on. With `keep_ms` it is made if
    /// it is not there, empty, and outlives its sockets by so much.
    SessionTouch {
        session: SessionId,
        keep_ms: u64,
    },
    /// Ends a session. Sockets that use it have an empty one from here on.
    SessionDestroy {
        session: SessionId,
    },
    /// A packet of a replicated namespace: its place in the log is its place in the order.
    Packet(Box<Packet>),
    /// A recoverable socket of the proposer lost its connection: it is nobody's, and its client may
    /// come back for it. `claim` as in [`Change::SocketGone`]. `data`: what its application kept with
    /// it, as a JSON object.
    SocketDetached {
        socket: SocketId,
        claim: u64,
        data: Option<ByteString>,
    },
    /// A client is back for its socket, on the proposer's node; or the proposer is back, under a new
    /// incarnation, with the client still connected.
    SocketClaim(Box<SocketClaim>),
    /// The leader gives up what is older than a namespace's window: packets, and sockets that are
    /// away.
    WindowExpired {
        namespace: Namespace,
    },
    /// The proposer's application wants to be told of [sockets](super::Departed) that end while no
    /// handler of theirs is there to be told.
    HearDeparted,
    /// It has been told of those whose numbers are below `end`.
    DepartedTold {
        end: u64,
    },
}

impl Change {
    /// The kinds of changes, as the dump counts them.
    pub const KINDS: [&'static str; 20] = [
        "node_up",
        "node_draining",
        "node_down",
        "socket_up",
        "socket_gone",
        "join",
        "leave",
        "join_matching",
        "leave_matching",
        "disconnect_matching",
        "session_put",
        "session_expired",
        "packet",
        "socket_detached",
        "socket_claim",
        "window_expired",
        "session_touch",
        "session_destroy",
        "hear_departed",
        "departed_told",
    ];

    /// Whether the time that it takes to apply may grow with the number of sockets, or of what is kept.
    pub fn is_wide(&self) -> bool {
        matches!(
            self,
            Self::NodeUp(_)
                | Self::NodeDown { .. }
                | Self::JoinMatching { .. }
                | Self::LeaveMatching { .. }
                | Self::DisconnectMatching { .. }
                | Self::WindowExpired { .. }
        )
    }

    /// Its place in [`KINDS`](Self::KINDS).
    pub fn kind(&self) -> usize {
        match self {
            Self::NodeUp(_) => 0,
            Self::NodeDraining => 1,
            Self::NodeDown { .. } => 2,
            Self::SocketUp(_) => 3,
            Self::SocketGone { .. } => 4,
            Self::Join { .. } => 5,
            Self::Leave { .. } => 6,
            Self::JoinMatching { .. } => 7,
            Self::LeaveMatching { .. } => 8,
            Self::DisconnectMatching { .. } => 9,
            Self::SessionPut { .. } => 10,
            Self::SessionExpired { .. } => 11,
            Self::Packet(_) => 12,
            Self::SocketDetached { .. } => 13,
            Self::SocketClaim(_) => 14,
            Self::WindowExpired { .. } => 15,
            Self::SessionTouch { .. } => 16,
            Self::SessionDestroy { .. } => 17,
            Self::HearDeparted => 18,
            Self::DepartedTold { .. } => 19,
        }
    }
}

/// How a node presents itself to the cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeUp {
    /// Random, drawn at process start: a retried registration is recognised by it.
    pub boot: u64,
    /// The operator's name for the node.
    pub name: ByteString,
    /// `host:port` of the node's gRPC services.
    pub address: ByteString,
    pub version: ByteString,
}

#[derive(Clone, Debug, PartialEq)]
pub struct SocketUp {
    pub socket: SocketId,
    pub pid: Pid,
    pub namespace: Namespace,
    pub session: SessionId,
    /// With it the session is made if it is not there, and outlives its sockets by so much.
    pub keep_session_ms: u64,
    pub rooms: Rooms,
    /// What the namespace keeps for the socket while it is away, if it may be.
    pub recovery: Option<RecoveryTerms>,
}

/// How much a recoverable namespace keeps. The terms of the socket that came last hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecoveryTerms {
    /// How long a socket may be away, and how long packets are kept for it.
    pub max_age_ms: u64,
    /// Of all packets that are kept, each counted as its texts and
    /// [`KEPT_PACKET_BYTES`](super::KEPT_PACKET_BYTES).
    pub max_bytes: u64,
}

/// What a client that comes back shows, and where it does.
#[derive(Clone, Debug, PartialEq)]
pub struct SocketClaim {
    pub socket: SocketId,
    pub pid: Pid,
    pub namespace: Namespace,
    /// The last packet that the client has; the beginning, if it has none.
    pub offset: Place,
    /// Names the connection that claims: random, and never 0; or the one that had the socket last,
    /// if that [renews](Self::renews) it.
    pub key: u64,
    /// The connection `key` had the socket when its node's incarnation ended, and has it still: its
    /// node asks for it again. Refused if another connection has claimed it since.
    pub renews: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Packet {
    pub namespace: Namespace,
    pub target: Target,
    pub payload: Payload,
    /// The proposer's key for the acks it gathers; every node answers it through the peers.
    pub ack: Option<u64>,
    /// By itself it is no reason to compress a response that it is in.
    pub uncompressed: bool,
}

/// Whose socket it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owner {
    pub node: NodeId,
    pub incarnation: Incarnation,
}

impl Owner {
    /// Owns the sockets that are away.
    pub const NOBODY: Self = Self { node: 0, incarnation: 0 };
}

/// How one change ended; the same on every node.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    Applied,
    /// The node is registered. `last_seq` is the last change of its previous incarnation that was
    /// applied (0 if there was none): what it had in flight after that will never be.
    Registered {
        incarnation: Incarnation,
        last_seq: u64,
    },
    /// A session was written: its new revision.
    Written {
        revision: u64,
    },
    /// [`Change::SessionPut`] met another revision; what stands there now.
    Conflict {
        revision: u64,
        value: ByteString,
    },
    /// The socket that the change names is not there (any more).
    UnknownSocket,
    /// [`Change::Join`]: the socket would be in more than [`MAX_ROOMS`](super::MAX_ROOMS).
    TooManyRooms,
    /// [`Change::SessionTouch`] or [`Change::SessionDestroy`] names a session that is not there.
    UnknownSession,
    /// [`Change::SocketClaim`] came too late: packets that the socket missed are gone, and so is
    /// the socket.
    Lost,
}

/// What follows from an applied change, for the nodes concerned to act on, in log order.
///
/// Effects of sockets name their owner: other nodes pass over them. A packet concerns every node
/// that has sockets in the namespace.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// The socket belongs to its rooms from here on; its CONNECT is answered.
    SocketUp {
        namespace: Namespace,
        owner: Owner,
        socket: SocketId,
        rooms: Rooms,
        session: SessionId,
        value: Option<Arc<SessionValue>>,
    },
    SocketGone {
        namespace: Namespace,
        owner: Owner,
        socket: SocketId,
    },
    Joined {
        namespace: Namespace,
        owner: Owner,
        socket: SocketId,
        rooms: Rooms,
    },
    Left {
        namespace: Namespace,
        owner: Owner,
        socket: SocketId,
        rooms: Rooms,
    },
    Disconnect {
        namespace: Namespace,
        owner: Owner,
        socket: SocketId,
        close: bool,
    },
    /// The session of `socket` changed; filters see `value` from here on.
    SessionChanged {
        namespace: Namespace,
        owner: Owner,
        socket: SocketId,
        value: Arc<SessionValue>,
    },
    Packet(Box<Packet>, Owner),
    /// A client came back for the socket, and the connection by which `owner` has it is over.
    SocketTaken {
        namespace: Namespace,
        owner: Owner,
        socket: SocketId,
        claim: u64,
    },
    /// The socket is `owner`'s from here on.
    SocketRecovered {
        namespace: Namespace,
        owner: Owner,
        recovered: Box<Recovered>,
    },
    NodeUp {
        owner: Owner,
    },
    NodeDown {
        owner: Owner,
    },
}

/// A socket whose client came back, as it is at the claim's place in the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Recovered {
    pub socket: SocketId,
    /// The [key](SocketClaim::key) of its claim.
    pub claim: u64,
    pub rooms: Rooms,
    pub session: SessionId,
    pub value: Option<Arc<SessionValue>>,
    /// What its application kept with it, if it was away with that.
    pub data: Option<Arc<str>>,
    pub backlog: Backlog,
}

/// A session's JSON object, both as its text and as filters look at it.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionValue {
    pub text: ByteString,
    pub object: serde_json::Map<String, serde_json::Value>,
}

impl SessionValue {
    /// An object without keys, which all sessions share that nobody wrote to.
    pub fn empty() -> Arc<Self> {
        static EMPTY: LazyLock<Arc<SessionValue>> = LazyLock::new(|| {
            let text = ByteString::from_static("{}");
            Arc::new(SessionValue { text, object: serde_json::Map::new() })
        });
        EMPTY.clone()
    }

    /// None if the text is not a JSON object. The text is copied: it may be a piece of a log
    /// entry, which the session would otherwise keep in memory.
    pub fn parse(text: &str) -> Option<Self> {
        let object = serde_json::from_str(text).ok()?;
        Some(Self { text: ByteString::from(text.to_owned()), object })
    }
}
