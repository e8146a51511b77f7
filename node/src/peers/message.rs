//! What one node tells another, and how large it is.

use crate::raft::state::{Namespace, NodeId, SocketId, Target};
use crate::socketio::Payload;

/// A message between two nodes.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// A packet for those of the receiver's sockets that are meant.
    Broadcast(Broadcast),
    /// How many sockets of the sender owe an ack to the broadcast that asked for acks.
    AckCount { request: u64, sockets: u32 },
    /// One of them answered; or (`None`) it is gone and will not.
    Ack { request: u64, payload: Option<Payload> },
    /// Something for the receiver's application, or for what it knows of its sockets. `request` is
    /// the sender's key for the answer, if it wants one.
    Ask { request: Option<u64>, namespace: Namespace, question: Question },
    /// The answer to an [`Ask`](Self::Ask); or (`None`) nobody there has one.
    Answer { request: u64, payload: Option<Payload> },
}

/// What one node asks another.
#[derive(Clone, Debug, PartialEq)]
pub enum Question {
    /// An event that the sender's application emits to the receiver's.
    ServerEvent(Payload),
    /// The handshakes and the data of these sockets, as far as they are the receiver's.
    Details(Vec<SocketId>),
}

/// A direct or volatile emit.
#[derive(Clone, Debug, PartialEq)]
pub struct Broadcast {
    pub namespace: Namespace,
    /// The sender's applied log index: the receiver decides who is meant at a state no older.
    pub applied: u64,
    pub target: Target,
    pub payload: Payload,
    pub volatile: bool,
    /// The sender's key for the acks that it gathers, if it wants any.
    pub ack: Option<u64>,
    /// By itself it is no reason to compress a response that it is in.
    pub uncompressed: bool,
}

/// A message, and the node that it came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Inbound {
    pub from: NodeId,
    pub message: Message,
}

/// What a message takes beside its texts and attachments, roughly.
const OVERHEAD_BYTES: usize = 64;

impl Message {
    /// About what it takes in a queue and on the wire.
    pub(super) fn bytes(&self) -> usize {
        OVERHEAD_BYTES
            + match self {
                Self::Broadcast(broadcast) => {
                    broadcast.namespace.len()
                        + broadcast.target.bytes()
                        + payload_bytes(&broadcast.payload)
                }
                Self::AckCount { .. } => 0,
                Self::Ack { payload, .. } | Self::Answer { payload, .. } => {
                    payload.as_ref().map_or(0, payload_bytes)
                }
                Self::Ask { namespace, question, .. } => {
                    namespace.len()
                        + match question {
                            Question::ServerEvent(event) => payload_bytes(event),
                            Question::Details(sockets) => size_of_val(sockets.as_slice()),
                        }
                }
            }
    }

    /// Better lost than late.
    pub(super) fn is_volatile(&self) -> bool {
        matches!(self, Self::Broadcast(Broadcast { volatile: true, .. }))
    }
}

fn payload_bytes(payload: &Payload) -> usize {
    payload.json.len() + payload.attachments.iter().map(bytes::Bytes::len).sum::<usize>()
}
