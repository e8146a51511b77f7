//! The state as bytes, for snapshots; equal states have equal bytes, which the digest is made of.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;
use flotilla_proto::state as proto;
use prost::Message;

use super::State;
use super::change::{NodeUp, Owner, SessionValue};
use super::nodes::{Node, NodeStatus};
use super::sessions::Session;
use super::sockets::Home;

/// Grows when an older reader would misread what is written.
const FORMAT: u32 = 4;

/// The oldest that this version reads: it knew no recovery, the next one no sessions that outlive
/// their sockets, and the one after it no departures.
const OLDEST_FORMAT: u32 = 1;

/// A snapshot that is none, or none that this version can read.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("the snapshot is not readable")]
    Unreadable(#[from] prost::DecodeError),
    #[error("the snapshot has format {found}, this version reads {FORMAT}")]
    UnknownFormat { found: u32 },
    #[error("the snapshot contradicts itself: {0}")]
    Invalid(&'static str),
}

impl State {
    /// The state as one snapshot.
    pub fn encode(&self) -> Vec<u8> {
        let homes = self.homes();
        let snapshot = proto::Snapshot {
            format: FORMAT,
            index: self.index,
            nodes: self.nodes.iter().map(|(id, node)| encode_node(id, node)).collect(),
            sockets: self.encode_sockets(&homes),
            homes: homes.keys().map(|home| encode_home(home)).collect(),
            sessions: self.encode_sessions(),
            applied: self.applied.to_vec(),
            windows: self.encode_windows(),
            departures: Some(self.encode_departures()),
        };
        snapshot.encode_to_vec()
    }

    pub fn decode(bytes: impl Into<Bytes>) -> Result<Self, DecodeError> {
        let snapshot = proto::Snapshot::decode(bytes.into())?;
        if !(OLDEST_FORMAT..=FORMAT).contains(&snapshot.format) {
            return Err(DecodeError::UnknownFormat { found: snapshot.format });
        }
        let mut state = Self { index: snapshot.index, ..Self::default() };
        // A kind of change that is new to this version was never applied before.
        for (count, stored) in state.applied.iter_mut().zip(snapshot.applied) {
            *count = stored;
        }
        for node in snapshot.nodes {
            state.nodes.restore(node.id, decode_node(node)?);
        }
        for session in snapshot.sessions {
            state.restore_session(session)?;
        }
        for socket in snapshot.sockets {
            let home = usize::try_from(socket.home).ok().and_then(|at| snapshot.homes.get(at));
            let home = home.ok_or(DecodeError::Invalid("a socket has no home"))?;
            state.restore_socket(socket, home)?;
        }
        for window in snapshot.windows {
            state.restore_window(window)?;
        }
        state.restore_departures(snapshot.departures.unwrap_or_default())?;
        Ok(state)
    }

    /// Equal states have equal digests, on every version that writes the same format.
    pub fn digest(&self) -> u64 {
        // FNV-1a: neither a dependency nor a release of one can change it.
        self.encode().iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
    }

    /// Every home with its place in the snapshot.
    fn homes(&self) -> BTreeMap<Arc<Home>, u32> {
        self.sockets
            .namespaces()
            .flat_map(|namespace| self.sockets.homes(namespace))
            .cloned()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .zip(0..)
            .collect()
    }

    fn encode_sockets(&self, homes: &BTreeMap<Arc<Home>, u32>) -> Vec<proto::Socket> {
        self.sockets
            .iter()
            .map(|(id, row)| proto::Socket {
                id: Bytes::copy_from_slice(id),
                pid: Bytes::copy_from_slice(&row.pid),
                session: Bytes::copy_from_slice(&row.session),
                home: homes[&row.home],
                rooms: row.rooms.iter().map(|room| room.to_string()).collect(),
            })
            .collect()
    }

    fn encode_sessions(&self) -> Vec<proto::Session> {
        self.sessions
            .iter()
            .map(|(id, session)| proto::Session {
                id: Bytes::copy_from_slice(id),
                value: session.value.text.to_string(),
                revision: session.revision,
                expires_ms: session.expires_ms,
                keep_ms: session.keep_ms,
            })
            .collect()
    }

    fn restore_socket(
        &mut self,
        socket: proto::Socket,
        home: &proto::Home,
    ) -> Result<(), DecodeError> {
        let (id, session) = (bits(&socket.id)?, bits(&socket.session)?);
        let owner = Owner { node: home.node, incarnation: home.incarnation };
        if !self.nodes.is_alive(owner) && owner != Owner::NOBODY {
            return Err(DecodeError::Invalid("a socket's owner is not alive"));
        }
        if !self.sockets.insert(id, bits(&socket.pid)?, session, &home.namespace, owner) {
            return Err(DecodeError::Invalid("two sockets have the same id"));
        }
        let rooms: Vec<ByteString> = socket.rooms.into_iter().map(ByteString::from).collect();
        self.sockets.join(&id, &rooms);
        self.sessions.restore_use(session, id);
        Ok(())
    }

    fn restore_session(&mut self, session: proto::Session) -> Result<(), DecodeError> {
        let value = SessionValue::parse(&session.value)
            .ok_or(DecodeError::Invalid("a session is not a JSON object"))?;
        let row = Session {
            value: Arc::new(value),
            revision: session.revision,
            expires_ms: session.expires_ms,
            keep_ms: session.keep_ms,
        };
        self.sessions.restore(bits(&session.id)?, row);
        Ok(())
    }
}

fn encode_home(home: &Home) -> proto::Home {
    proto::Home {
        namespace: home.namespace.to_string(),
        node: home.owner.node,
        incarnation: home.owner.incarnation,
    }
}

fn encode_node(id: u64, node: &Node) -> proto::Node {
    let status = match node.status {
        NodeStatus::Alive => proto::Status::Alive,
        NodeStatus::Draining => proto::Status::Draining,
        NodeStatus::Down => proto::Status::Down,
    };
    proto::Node {
        id,
        boot: node.up.boot,
        name: node.up.name.to_string(),
        address: node.up.address.to_string(),
        version: node.up.version.to_string(),
        incarnation: node.incarnation,
        status: status.into(),
        last_seq: node.last_seq,
        previous_seq: node.previous_seq,
    }
}

fn decode_node(node: proto::Node) -> Result<Node, DecodeError> {
    let status = match node.status() {
        proto::Status::Alive => NodeStatus::Alive,
        proto::Status::Draining => NodeStatus::Draining,
        proto::Status::Down => NodeStatus::Down,
        proto::Status::Unspecified => {
            return Err(DecodeError::Invalid("a node has no known status"));
        }
    };
    let up = NodeUp {
        boot: node.boot,
        name: node.name.into(),
        address: node.address.into(),
        version: node.version.into(),
    };
    Ok(Node {
        up: Arc::new(up),
        incarnation: node.incarnation,
        status,
        last_seq: node.last_seq,
        previous_seq: node.previous_seq,
    })
}

pub(super) fn bits(bytes: &[u8]) -> Result<[u8; 15], DecodeError> {
    bytes.try_into().map_err(|_| DecodeError::Invalid("an id has not 15 bytes"))
}
