//! What the transport needs from the layer above: someone to hand a connection's packets to.

use std::net::SocketAddr;
use std::sync::Arc;

use bytestring::ByteString;
use futures_util::future::BoxFuture;
use http::request::Parts;
use http::{Extensions, HeaderMap};
use tokio::time::Instant;

use crate::adapter::Outbox;
use crate::engineio::{CloseReason, Message, TransportKind};

use super::hooks::{Engine, Forbidden};

/// The layer above, for one connection. The connection's task owns it and calls it in turn; what
/// it wants to send it pushes to the connection's outbox, and closes through it too.
pub trait Client: Send + 'static {
    fn handle_message(&mut self, message: Message);
    /// The outbox woke the connection: what the client waits for may have happened. Called after
    /// what is queued is written to a WebSocket, and before it is given to a poll. True if the
    /// client was let in: a WebSocket is then sent no more for a moment.
    fn handle_wake(&mut self) -> bool;
    fn handle_deadline(&mut self, now: Instant);
    /// When [`handle_deadline`](Self::handle_deadline) wants to be called; asked after each call.
    fn deadline(&self) -> Option<Instant>;
    /// The client has shown that it is alive: its pong came, or (revision 3) its ping.
    fn handle_heartbeat(&mut self) {}
    /// The connection has gone over to another transport.
    fn handle_upgrade(&mut self, _transport: TransportKind) {}
    /// The connection is over. Called once, last.
    fn handle_close(&mut self, reason: CloseReason);
}

/// Makes a [`Client`] for each new connection.
pub trait Accept: Send + Sync + 'static {
    /// Whether new connections are taken at all; asked before the handshake is looked at.
    fn ready(&self) -> Result<(), Refusal>;
    fn accept(&self, handshake: Arc<Handshake>, outbox: Arc<Outbox>) -> Box<dyn Client>;
    /// Whether handshakes are [looked at](Self::admit) before they are accepted; asked for each.
    fn admits(&self) -> bool {
        false
    }
    /// Looks at a handshake that is about to be taken, without its body.
    fn admit(&self, _request: Parts) -> BoxFuture<'static, Result<Admitted, Denied>> {
        Box::pin(std::future::ready(Ok(Admitted::default())))
    }
    /// The application's hooks; asked once, at the start.
    fn engine(&self) -> Arc<Engine> {
        Arc::default()
    }
}

/// What a handshake that was looked at goes on with.
#[derive(Clone, Debug, Default)]
pub struct Admitted {
    /// For the [`Handshake`].
    pub extensions: Extensions,
    /// For the answer.
    pub headers: HeaderMap,
}

/// Why a handshake that was looked at is not taken.
#[derive(Debug)]
pub enum Denied {
    /// Its answer has these headers.
    Forbidden(Forbidden, HeaderMap),
    ForNow(Refusal),
}

/// The node takes no new connections at the moment: 503, with the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the node is draining")]
    Draining,
    #[error("the node has no quorum")]
    NoQuorum,
}

/// The request that opened a connection.
#[derive(Debug)]
pub struct Handshake {
    /// The connection's Engine.IO id.
    pub sid: ByteString,
    /// The client's address, as the stream has it, or as a trusted proxy says: then its port is 0,
    /// unless the proxy tells it.
    pub address: SocketAddr,
    /// Whether the client came by TLS: as the embedding application, or a trusted proxy, says.
    pub secure: bool,
    /// Milliseconds since the Unix epoch.
    pub issued_ms: u64,
    /// Path and query, as they came.
    pub url: Box<str>,
    /// Names in lower case, in the order in which they came.
    pub headers: Box<[(Box<str>, Box<str>)]>,
    /// What middleware put into the request: Engine.IO's, or that of the application which the
    /// node is embedded in.
    pub extensions: Extensions,
}
