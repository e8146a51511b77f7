//! The connection below a socket: `socket.conn` of the official server.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use super::extract::{Context, Occasion};
use super::handler::{self, BoxHandler, Handler, boxed};
use super::socket::Socket;
use crate::adapter::OutboxSize;
use crate::engineio::{CloseReason, TransportKind};
use crate::transport::Handshake;

/// The Engine.IO connection that a socket shares with those of its client's other namespaces.
///
/// What listens to it goes on after the socket by which it was added has left its namespace, until
/// the connection is over.
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

    /// What waits for the client, who has not read it yet: `writeBuffer` of the official server.
    pub fn queued(&self) -> OutboxSize {
        self.0.recipient().outbox.size()
    }

    /// Ends the connection, once what is queued has been sent. The sockets of all its namespaces
    /// hear `forced close`, and their clients no DISCONNECT.
    pub fn close(&self) {
        self.0.recipient().outbox.close(CloseReason::ForcedClose);
    }

    /// Runs when the connection has gone over to another transport; takes a
    /// [`Transport`](super::Transport).
    pub fn on_upgrade<Args>(&self, handler: impl Handler<Args>) {
        self.listen(handler, |listening| &mut listening.upgrade);
    }

    /// Runs at each pong of the client (Engine.IO 3: at each ping), about once in `engine.ping_interval`: it is
    /// still there.
    pub fn on_heartbeat<Args>(&self, handler: impl Handler<Args>) {
        self.listen(handler, |listening| &mut listening.heartbeat);
    }

    /// Runs when the connection is over, after its sockets have left; takes a
    /// [`Reason`](super::Reason).
    pub fn on_close<Args>(&self, handler: impl Handler<Args>) {
        self.listen(handler, |listening| &mut listening.close);
    }

    fn listen<Args>(&self, handler: impl Handler<Args>, to: fn(&mut Listening) -> &mut Called) {
        let mut audience = self.0.shared().audience();
        if let Audience::Nobody = *audience {
            *audience = Audience::Listening(Box::default());
        }
        if let Audience::Listening(listening) = &mut *audience {
            to(listening).push((self.0.clone(), boxed(handler)));
        }
    }
}

/// What the sockets of one connection share.
pub(crate) struct Shared {
    pub(super) handshake: Arc<Handshake>,
    audience: Mutex<Audience>,
}

/// Who listens to a connection.
enum Audience {
    Nobody,
    Listening(Box<Listening>),
    /// Nothing more will come. A handler that was kept would keep its socket, which keeps this.
    Over,
}

#[derive(Default)]
struct Listening {
    upgrade: Called,
    heartbeat: Called,
    close: Called,
}

/// Handlers, each with the socket by which it was added.
type Called = Vec<(Socket, BoxHandler)>;

impl Shared {
    pub(super) fn new(handshake: Arc<Handshake>) -> Self {
        Self { handshake, audience: Mutex::new(Audience::Nobody) }
    }

    pub(super) fn tell_upgrade(&self, transport: TransportKind) {
        let called = self.called(|listening| &listening.upgrade);
        call(&called, Occasion::Upgrade(transport));
    }

    pub(super) fn tell_heartbeat(&self) {
        let called = self.called(|listening| &listening.heartbeat);
        call(&called, Occasion::Heartbeat);
    }

    /// The last that is told.
    pub(super) fn tell_close(&self, reason: &'static str) {
        let audience = std::mem::replace(&mut *self.audience(), Audience::Over);
        if let Audience::Listening(listening) = audience {
            call(&listening.close, Occasion::Disconnect { reason });
        }
    }

    /// A copy: handlers may add others.
    fn called(&self, of: fn(&Listening) -> &Called) -> Called {
        match &*self.audience() {
            Audience::Listening(listening) => of(listening).clone(),
            Audience::Nobody | Audience::Over => Vec::new(),
        }
    }

    fn audience(&self) -> MutexGuard<'_, Audience> {
        self.audience.lock().expect("nothing panics while it holds a connection's listeners")
    }
}

fn call(called: &Called, occasion: Occasion<'_>) {
    for (socket, handler) in called {
        handler::run(handler, &Context { socket, occasion }, socket.cluster());
    }
}
