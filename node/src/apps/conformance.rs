//! The test servers of the official protocols' conformance suites, as built-in applications.
//!
//! The suites want the test servers' own timing too: `engine.ping_interval = "300ms"`,
//! `engine.ping_timeout = "200ms"`, and `engine.path = "/engine.io"` for Engine.IO's.

use std::sync::Arc;

use tokio::time::Instant;

use crate::adapter::{Encoded, Outbox};
use crate::engineio::{CloseReason, Message};
use crate::server::{Ack, Args, Io, Socket};
use crate::transport::{Accept, Client, Handshake, Refusal};

/// Socket.IO's: `auth` with the handshake's auth at each connect to `/` and `/custom`; in `/`,
/// `message` comes back as `message-back`, and `message-with-ack` in its ack.
pub fn register(io: &Io) {
    for namespace in [io.of("/"), io.of("/custom")] {
        namespace.on_connect(async |socket: Socket| {
            socket.emit("auth", &socket.handshake_details().auth);
        });
    }
    io.of("/")
        .on("message", async |socket: Socket, args: Args| {
            socket.emit_payload(args.into_event("message-back"));
        })
        .on("message-with-ack", async |args: Args, ack: Ack| ack.send_args(&args));
}

/// Engine.IO's: each message comes back. There is no Socket.IO above it.
pub struct Echo {
    /// Whether connections are taken is the server's to say.
    io: Io,
}

impl Echo {
    pub fn new(io: Io) -> Self {
        Self { io }
    }
}

impl Accept for Echo {
    fn ready(&self) -> Result<(), Refusal> {
        self.io.ready()
    }

    fn accept(&self, _handshake: Arc<Handshake>, outbox: Arc<Outbox>) -> Box<dyn Client> {
        Box::new(EchoClient { outbox })
    }
}

struct EchoClient {
    outbox: Arc<Outbox>,
}

impl Client for EchoClient {
    fn handle_message(&mut self, message: Message) {
        self.outbox.push(Encoded::messages(&[message]));
    }

    fn handle_wake(&mut self) -> bool {
        false
    }

    fn handle_deadline(&mut self, _now: Instant) {}

    fn deadline(&self) -> Option<Instant> {
        None
    }

    fn handle_close(&mut self, _reason: CloseReason) {}
}
