//! The connection below a socket: `socket.conn` of the official server.

use std::net::SocketAddr;

use super::handler::{Handler, boxed};
use super::socket::Socket;
use crate::engineio::{CloseReason, TransportKind};
use crate::transport::Handshake;

/// The Engine.IO connection that a socket shares with those of its client's other namespaces.
#[derive(Clone, Debug)]
pub struct Conn(Socket);

impl Conn {
    pub(crate) fn new(socket: Socket) -> Self {
        Self(socket)
    }

    /// The connection's sid, which is not the socket's id.
    pub fn id(&self) -> &str {
        &self.request().sid
    }

    /// The revision of Engine.IO that its client speaks: 4, or 3.
    pub fn protocol(&self) -> u8 {
        self.0.recipient().outbox.revision().into()
    }

    /// What carries its packets at the moment.
    pub fn transport(&self) -> TransportKind {
        self.0.recipient().outbox.transport()
    }

    /// The client's address, as the stream has it, or as a trusted proxy says.
    pub fn remote_address(&self) -> SocketAddr {
        self.request().address
    }

    /// The request that opened it.
    pub fn request(&self) -> &Handshake {
        self.0.handshake()
    }

    /// Whether it has not been asked to end.
    pub fn is_open(&self) -> bool {
        self.0.recipient().outbox.closing().is_none()
    }

    /// Ends the connection, once what is queued has been sent. The sockets of all its namespaces
    /// hear `forced close`, and their clients no DISCONNECT.
    pub fn close(&self) {
        self.0.recipient().outbox.close(CloseReason::ForcedClose);
    }

    /// Runs when the connection has gone over to another transport; takes a
    /// [`Transport`](super::Transport).
    pub fn on_upgrade<Args>(&self, handler: impl Handler<Args>) {
        let handler = boxed(handler);
        self.0.change_own(|own| own.upgrade.append(handler));
    }
}
