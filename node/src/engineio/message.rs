//! What a connection carries for the layer above, and why it ends.

use std::fmt;

use bytes::Bytes;
use bytestring::ByteString;

/// The content of one Engine.IO `message` packet (Engine.IO v4, "Packet types").
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Text, without the leading `4`.
    Text(ByteString),
    /// Bytes, as they travel in a binary WebSocket frame or as `b<base64>` in a polling payload.
    Binary(Bytes),
}

/// Why a connection ended; `Display` gives the official server's reason, which applications see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// The client closed the connection, or its stream ended.
    TransportClose,
    /// The stream failed, or the client broke the transport's rules (overlapping polls, bad frames).
    TransportError,
    /// No pong came in time.
    PingTimeout,
    /// The client sent what is no Engine.IO packet.
    ParseError,
    /// The layer above refused what the client sent, or never heard a CONNECT.
    ForcedClose,
    /// The application closed the connection.
    ForcedServerClose,
    /// The node stops, or left the cluster.
    ServerShutdown,
    /// The client did not read, and its outbox reached its bound.
    SlowConsumer,
}

impl CloseReason {
    /// The reason as the official server spells it, which is also its metrics label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TransportClose => "transport close",
            Self::TransportError => "transport error",
            Self::PingTimeout => "ping timeout",
            Self::ParseError => "parse error",
            Self::ForcedClose => "forced close",
            Self::ForcedServerClose => "forced server close",
            Self::ServerShutdown => "server shutting down",
            Self::SlowConsumer => "slow consumer",
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
