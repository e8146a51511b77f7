//! Sockets of any node: what the cluster agrees on, and what their owners tell.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::ack::AckEmit;
use super::handshake::HandshakeDetails;
use super::legacy;
use super::operator::{IntoRooms, Operator};
use super::receipts::Agreed;
use super::socket::Socket;
use crate::adapter::Adapter;
use crate::peers::Question;
use crate::raft::state::{NodeId, SessionId, SocketId};
use crate::socketio::from_ack;

/// A socket on any node, as the cluster knows it.
#[derive(Clone)]
pub struct RemoteSocket {
    pub id: SocketId,
    pub node: NodeId,
    pub session: SessionId,
    /// Without the room of its own id.
    pub rooms: Vec<ByteString>,
    pub(super) adapter: Arc<Adapter>,
}

/// What only the node that has a socket knows of it.
#[derive(Clone, Debug, PartialEq)]
pub struct SocketDetails {
    pub handshake: HandshakeDetails,
    /// What its application keeps in [`Socket::data`].
    pub data: Map<String, Value>,
}

/// Sockets, and what their owners tell of them.
#[derive(Clone)]
pub struct FetchedSockets {
    /// `None`: it went meanwhile, or its owner could not be asked or did not answer in time.
    pub sockets: Vec<(RemoteSocket, Option<SocketDetails>)>,
    /// Whether all have details.
    pub is_complete: bool,
}

impl RemoteSocket {
    /// The id that the client goes by, as [`Socket::client_id`] has it.
    pub fn client_id(&self) -> ByteString {
        let alias = legacy::find_client_id(self.adapter.name(), &self.rooms);
        alias.unwrap_or_else(|| self.id.as_str().into())
    }

    /// This socket as a target, to say how a packet travels.
    pub fn itself(&self) -> Operator {
        Operator::new(self.adapter.current()).to(self.id)
    }

    pub fn emit(&self, event: &str, args: &(impl Serialize + ?Sized)) -> Agreed {
        self.itself().emit(event, args)
    }

    pub fn emit_with_ack(&self, event: &str, args: &(impl Serialize + ?Sized)) -> AckEmit {
        self.itself().emit_with_ack(event, args)
    }

    /// This socket, with a limit for its answer.
    pub fn timeout(&self, timeout: Duration) -> Operator {
        self.itself().timeout(timeout)
    }

    pub fn join(&self, rooms: impl IntoRooms) -> Agreed {
        self.itself().sockets_join(rooms)
    }

    pub fn leave(&self, rooms: impl IntoRooms) -> Agreed {
        self.itself().sockets_leave(rooms)
    }

    pub fn disconnect(&self, close: bool) -> Agreed {
        self.itself().disconnect_sockets(close)
    }
}

/// Sockets that one question asks for: its answer must fit into a message between nodes.
const ASKED_AT_ONCE: usize = 256;

/// Asks the owners of `sockets` for their details, and waits for `timeout` at most.
pub(super) async fn fetch_details(
    adapter: &Arc<Adapter>,
    sockets: Vec<RemoteSocket>,
    timeout: Duration,
) -> FetchedSockets {
    let me = adapter.node_id();
    let mut by_owner: HashMap<NodeId, Vec<SocketId>> = HashMap::new();
    for socket in &sockets {
        by_owner.entry(socket.node).or_default().push(socket.id);
    }
    let own = by_owner.remove(&me).unwrap_or_default();
    let asked = by_owner.into_iter().flat_map(|(node, ids)| {
        let chunks: Vec<_> = ids.chunks(ASKED_AT_ONCE).map(<[_]>::to_vec).collect();
        chunks.into_iter().map(move |ids| (node, Question::Details(ids)))
    });
    let gathering = adapter.cluster().ask_nodes(adapter.name(), asked.collect());
    let mut told = local_details(adapter, &own);
    for answer in gathering.answers(timeout).await.answers {
        // What a peer tells in a form that only a later version knows is missing.
        told.extend(from_ack::<Vec<Told>>(&answer).unwrap_or_default());
    }
    let mut details: HashMap<String, SocketDetails> = told
        .into_iter()
        .map(|Told(id, handshake, data)| (id, SocketDetails { handshake, data }))
        .collect();
    let sockets: Vec<_> = sockets
        .into_iter()
        .map(|socket| {
            let details = details.remove(socket.id.as_str());
            (socket, details)
        })
        .collect();
    let is_complete = sockets.iter().all(|(_, details)| details.is_some());
    FetchedSockets { sockets, is_complete }
}

/// One socket's details, as nodes tell each other.
#[derive(Serialize, Deserialize)]
pub(super) struct Told(String, HandshakeDetails, Map<String, Value>);

/// What this node knows of those that are its own.
pub(super) fn local_details(adapter: &Adapter, sockets: &[SocketId]) -> Vec<Told> {
    let here = sockets.iter().filter_map(|id| adapter.local_recipient(id));
    here.filter_map(|recipient| Socket::of(&recipient))
        .map(|socket| {
            let data = Map::clone(&socket.data());
            Told(socket.id().to_string(), socket.handshake_details(), data)
        })
        .collect()
}
