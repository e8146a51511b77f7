//! The server's side of one connection: feeds its Socket.IO core, runs handlers.

use std::sync::Arc;

use bytestring::ByteString;
use smallvec::SmallVec;
use tokio::time::Instant;
use tracing::debug;

use super::companions;
use super::conn::Shared;
use super::connecting::{self, connect_error};
use super::dispatch;
use super::dynamic::Search;
use super::extract::{Context, Occasion, Reason};
use super::handler;
use super::io::{Io, Stay};
use super::legacy;
use super::listeners::EventError;
use super::middleware::ConnectError;
use super::namespace::NamespaceInner;
use super::session::{NoSession, Seat};
use super::socket::Socket;
use crate::adapter::{Adapter, Claim, Outbox, Phase, Recipient};
use crate::engineio::{CloseReason, Message, Revision, TransportKind};
use crate::metrics;
use crate::raft::state::{SessionId, SocketId};
use crate::socketio::{self, Output, Payload};
use crate::transport::{Client, Handshake};

/// One connection and its sockets. Its connection's task owns it.
pub(crate) struct Connection {
    core: socketio::Client,
    io: Io,
    shared: Arc<Shared>,
    outbox: Arc<Outbox>,
    /// Its own, unless its client comes back to one.
    session: SessionId,
    /// What is known of the latter.
    seat: Option<Box<Seat>>,
    sockets: SmallVec<[Slot; 1]>,
    /// A socket of this connection has its id.
    sid_is_taken: bool,
    /// Names that parents of dynamic namespaces are asked about: mostly none.
    searches: Vec<Search>,
}

struct Slot {
    socket: Socket,
    /// Its core knows that its CONNECT is answered.
    welcomed: bool,
    /// Its core knows that it is connected, and its connect handler has been called.
    entered: bool,
    /// Keeps a dynamic namespace.
    stay: Option<Stay>,
}

impl Connection {
    pub(crate) fn new(
        io: Io,
        handshake: Arc<Handshake>,
        outbox: Arc<Outbox>,
        connect_by: Instant,
    ) -> Self {
        let limits = socketio::Limits::default();
        let core = socketio::Client::for_revision(outbox.revision(), connect_by, limits)
            .with_decoder(io.cluster().encoder().decoder());
        let seat = handshake.extensions.get::<Seat>().cloned().map(Box::new);
        let mut connection = Self {
            session: seat.as_ref().map_or_else(SessionId::random, |seat| seat.hold.id),
            seat,
            core,
            io,
            shared: Arc::new(Shared::new(handshake)),
            outbox,
            sockets: SmallVec::new(),
            sid_is_taken: false,
            searches: Vec::new(),
        };
        connection.drain();
        connection
    }

    fn drain(&mut self) {
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Connect { namespace, auth } => self.handle_connect(namespace, auth),
                Output::Event { namespace, id, payload } => {
                    self.meet(&namespace);
                    self.handle_event(&namespace, id, &payload)
                }
                Output::Ack { namespace, id, payload } => {
                    if let Some(slot) = self.slot(&namespace) {
                        let namespace = slot.socket.namespace_inner();
                        namespace.handle_ack(slot.socket.recipient(), id, payload);
                    }
                }
                Output::Disconnect { namespace } => {
                    self.meet_unless_quiet(&namespace);
                    self.end(&namespace, Reason::CLIENT);
                }
                Output::Close(error) => {
                    metrics::protocol_error(error.as_str());
                    debug!(sid = %self.shared.handshake.sid, %error, "client broke the protocol");
                    let reason = CloseReason::from(error);
                    if reason == CloseReason::ForcedClose {
                        self.tell_error(&EventError::new(error.to_string()));
                    }
                    self.outbox.close(reason);
                }
            }
        }
    }

    fn handle_connect(&mut self, name: ByteString, auth: Option<ByteString>) {
        if let Some((namespace, stay)) = self.io.enter(&name) {
            return self.admit(namespace, stay, auth);
        }
        if self.io.parents().is_empty() {
            return self.refuse(&name);
        }
        self.searches.push(Search::start(&self.io, name, auth, self.outbox.clone()));
        self.look_at_searches();
    }

    /// Goes on with the names whose parent has been found, or is known not to exist.
    fn look_at_searches(&mut self) {
        let over = |search: &mut Search| search.result().is_some();
        for search in self.searches.extract_if(.., over).collect::<Vec<_>>() {
            match search.result().flatten() {
                Some(parent) => {
                    let (namespace, stay) = self.io.enter_child(&search.name, &parent);
                    self.admit(namespace, stay, search.auth);
                }
                None => self.refuse(&search.name),
            }
        }
    }

    fn refuse(&mut self, name: &str) {
        metrics::CONNECTS_REFUSED.invalid_namespace.add(1);
        let error = ConnectError::new("Invalid namespace");
        self.outbox.push_own(connect_error(&self.io, name, error.to_json()));
        self.core.handle_rejected(name);
    }

    /// Asks the namespace to let the client in.
    fn admit(
        &mut self,
        namespace: Arc<NamespaceInner>,
        stay: Option<Stay>,
        auth: Option<ByteString>,
    ) {
        // Clients of revision 3 cannot come back: nothing tells them how.
        let shown = auth.as_deref().filter(|_| self.outbox.revision() == Revision::V4);
        let claim = shown.and_then(|auth| namespace.claim_of(auth));
        self.begin(namespace, stay, auth, claim);
    }

    /// Has a client asked into a namespace: as the socket that it claims, or as a new one.
    fn begin(
        &mut self,
        namespace: Arc<NamespaceInner>,
        stay: Option<Stay>,
        auth: Option<ByteString>,
        claim: Option<Claim>,
    ) {
        let outbox = self.outbox.clone();
        let (recipient, alias) = match &claim {
            Some(claim) => (Recipient::claiming(claim.socket, outbox, claim.key), None),
            None => {
                let (id, alias) = self.identity(namespace.name());
                (Recipient::new(id, outbox), alias)
            }
        };
        let recipient = Arc::new(recipient);
        let wish = match (&self.seat, self.io.sessions()) {
            // One that comes back has its session with it.
            (Some(seat), Some(sessions)) if claim.is_none() => {
                let shown = auth.as_deref().and_then(|auth| sessions.shown_in(auth, seat));
                let is_missing = shown.is_none() && sessions.must_show(seat);
                if is_missing { Err(NoSession::Missing) } else { Ok(shown) }
            }
            (_, _) => Ok(None),
        };
        let skips = claim.is_some() && namespace.recovery().is_some_and(|r| r.skip_middlewares);
        let mut middleware = if skips { Vec::new() } else { self.io.middleware() };
        if !skips {
            middleware.extend_from_slice(&namespace.handlers().middleware);
        }
        let socket = Socket::new(
            recipient,
            namespace,
            self.io.clone(),
            self.shared.clone(),
            auth,
            (self.session, self.seat.as_ref().map(|seat| seat.hold.clone())),
        );
        if let Some(alias) = alias {
            // It travels with the change that makes the socket known.
            drop(socket.join(alias));
        }
        self.sockets.push(Slot { socket: socket.clone(), welcomed: false, entered: false, stay });
        let connecting = connecting::connect(socket, wish, middleware, claim);
        handler::run_in_place(Box::pin(connecting), self.io.cluster());
    }

    /// A new socket's id, and the room that it joins because its client goes by another one.
    fn identity(&mut self, namespace: &str) -> (SocketId, Option<ByteString>) {
        if self.outbox.revision() == Revision::V4 {
            return (SocketId::random(), None);
        }
        let client_id = legacy::client_id(namespace, &self.shared.handshake.sid);
        match client_id.parse() {
            // Once only: what is known of the first socket of `/` must not be taken for the next.
            Ok(id) if !std::mem::replace(&mut self.sid_is_taken, true) => (id, None),
            Ok(_) | Err(_) => (SocketId::random(), Some(client_id)),
        }
    }

    fn handle_event(&self, namespace: &str, ack_id: Option<u64>, payload: &Payload) {
        let Some(slot) = self.slot(namespace) else { return };
        if !slot.socket.is_connected() {
            return;
        }
        let Some(name) = payload.event_name() else { return };
        dispatch::event(&slot.socket, &name, ack_id, payload);
    }

    fn tell_error(&self, error: &EventError) {
        for slot in self.sockets.iter().filter(|slot| slot.entered) {
            dispatch::fail(&slot.socket, error);
        }
    }

    /// Looks at what became of the sockets since: connected, rejected, disconnected. Whether one of
    /// them was let in.
    fn look_at_sockets(&mut self) -> bool {
        if !self.searches.is_empty() {
            self.look_at_searches();
        }
        let mut was_let_in = false;
        let mut place = 0;
        while let Some(slot) = self.sockets.get_mut(place) {
            let phase = slot.socket.recipient().phase();
            let is_seen = match phase {
                Phase::Connecting => true,
                Phase::Welcomed => slot.welcomed,
                Phase::Connected => slot.entered,
                _ => false,
            };
            if is_seen {
                place += 1;
                continue;
            }
            let socket = slot.socket.clone();
            match phase {
                Phase::Connecting => {}
                Phase::Welcomed => {
                    slot.welcomed = true;
                    was_let_in = true;
                    self.core.handle_welcomed(socket.namespace_name());
                    if self.core.holds_events() {
                        self.hurry();
                    }
                }
                Phase::Connected => {
                    slot.entered = true;
                    was_let_in |= !slot.welcomed;
                    self.enter(&socket);
                }
                Phase::Rejected => {
                    self.sockets.remove(place);
                    socket.drop_handlers();
                    self.core.handle_rejected(socket.namespace_name());
                    continue;
                }
                Phase::NotRecovered => {
                    // Its client is as good as new. The slot goes to the end of the list.
                    let stay = self.sockets.remove(place).stay;
                    socket.drop_handlers();
                    self.begin(socket.namespace_inner().clone(), stay, socket.auth_text(), None);
                    continue;
                }
                Phase::Disconnected | Phase::Closed | Phase::Gone => {
                    if !slot.entered {
                        slot.entered = true;
                        self.enter(&socket);
                    }
                    self.core.handle_left(socket.namespace_name());
                    self.end(socket.namespace_name(), Reason::SERVER);
                    if phase == Phase::Closed {
                        self.disconnect_all();
                        self.outbox.close(CloseReason::ForcedServerClose);
                    }
                    continue;
                }
            }
            place += 1;
        }
        was_let_in
    }

    /// The application closed the connection: its other sockets are disconnected like the one that
    /// it closed it by.
    fn disconnect_all(&mut self) {
        while let Some(slot) = self.sockets.first() {
            let socket = slot.socket.clone();
            socket.namespace_inner().disconnect_local(&socket.id(), false);
            self.core.handle_left(socket.namespace_name());
            self.end(socket.namespace_name(), Reason::SERVER);
        }
    }

    fn enter(&mut self, socket: &Socket) {
        self.core.handle_accepted(socket.namespace_name());
        // A client has one session: what it connects to next shares the one that came back.
        if socket.recovered() {
            self.session = socket.session_id();
        }
        let context = Context { socket, occasion: Occasion::Connect };
        let namespace = socket.namespace_inner();
        for listener in namespace.handlers().connect.all() {
            if namespace.registry().claim(listener) {
                handler::run(&listener.handler, &context, self.io.cluster());
            }
        }
        companions::connected(socket);
    }

    /// Ends one socket: `disconnecting` while it is in its rooms, then it goes, then `disconnect`.
    fn end(&mut self, namespace: &str, reason: &'static str) {
        self.end_by(namespace, reason, Adapter::leave_namespace);
    }

    /// Ends one socket, and tells the cluster so by `part`.
    fn end_by(&mut self, namespace: &str, reason: &'static str, part: fn(&Adapter, &Recipient)) {
        let Some(place) =
            self.sockets.iter().position(|slot| slot.socket.namespace_name() == namespace)
        else {
            return;
        };
        // A dynamic namespace may end with its last stay, once the socket has left.
        let Slot { socket, welcomed: _, entered, stay: _stay } = self.sockets.remove(place);
        let context = Context { socket: &socket, occasion: Occasion::Disconnect { reason } };
        if entered {
            for handler in &socket.disconnecting_handlers() {
                handler::run(handler, &context, self.io.cluster());
            }
        }
        part(socket.namespace_inner(), socket.recipient());
        if entered {
            for handler in &socket.disconnect_handlers() {
                handler::run(handler, &context, self.io.cluster());
            }
        }
        if entered {
            companions::ended(&socket, reason);
        }
        socket.drop_handlers();
    }

    /// A client that was welcomed leaves before the cluster knows it, or its events come: its application meets it now.
    fn meet(&mut self, namespace: &str) {
        let is_its = |slot: &&mut Slot| slot.socket.namespace_name() == namespace;
        let Some(slot) = self.sockets.iter_mut().find(is_its).filter(|slot| !slot.entered) else {
            return;
        };
        let socket = slot.socket.clone();
        if socket.namespace_inner().adapter.go_on_unknown(socket.recipient()) {
            slot.entered = true;
            self.enter(&socket);
        }
    }

    /// The same, where the application hears of a client that comes and goes.
    fn meet_unless_quiet(&mut self, namespace: &str) {
        let is_quiet = |slot: &Slot| slot.socket.namespace_inner().connects_quietly();
        if self.slot(namespace).is_some_and(|slot| !is_quiet(slot)) {
            self.meet(namespace);
        }
    }

    /// The client waits for what welcomed sockets wait for.
    fn hurry(&self) {
        for slot in self.sockets.iter().filter(|slot| slot.welcomed && !slot.entered) {
            slot.socket.namespace_inner().adapter.hurry();
        }
    }

    fn slot(&self, namespace: &str) -> Option<&Slot> {
        self.sockets.iter().find(|slot| slot.socket.namespace_name() == namespace)
    }
}

impl Client for Connection {
    fn handle_message(&mut self, message: Message) {
        // The client may answer its CONNECT before this task has seen that it was let in. One that
        // sends without waiting for answers needs no pause behind them.
        self.handle_wake();
        self.core.handle_message(message);
        if self.core.holds_events() {
            self.hurry();
        }
        self.drain();
    }

    fn handle_wake(&mut self) -> bool {
        let was_let_in = self.look_at_sockets();
        // What the client sent ahead of the answer to its CONNECT.
        self.drain();
        was_let_in
    }

    fn handle_deadline(&mut self, now: Instant) {
        self.core.handle_deadline(now);
        self.drain();
    }

    fn deadline(&self) -> Option<Instant> {
        self.core.deadline()
    }

    fn handle_upgrade(&mut self, transport: TransportKind) {
        self.shared.tell_upgrade(transport);
    }

    fn handle_heartbeat(&mut self) {
        self.shared.tell_heartbeat();
    }

    fn handle_close(&mut self, reason: CloseReason) {
        let names = |slot: &Slot| slot.socket.namespace_inner().name().clone();
        let coming = self.sockets.iter().filter(|slot| !slot.entered).map(names);
        let coming: SmallVec<[_; 1]> = coming.collect();
        for name in coming {
            if self.core.holds_events() {
                self.meet(&name);
            } else {
                self.meet_unless_quiet(&name);
            }
        }
        // What clients sent that the application has met only now.
        self.drain();
        while let Some(slot) = self.sockets.first() {
            let name = slot.socket.namespace_inner().name().clone();
            let part = if is_recoverable(reason) {
                Adapter::lose_connection
            } else {
                Adapter::leave_namespace
            };
            self.end_by(&name, Reason::of(reason), part);
        }
        self.shared.tell_close(Reason::of(reason));
    }
}

/// Whether a client may come back after its connection ended so; as with the official server,
/// which has no slow consumers.
fn is_recoverable(reason: CloseReason) -> bool {
    match reason {
        CloseReason::ForcedClose
        | CloseReason::ForcedServerClose
        | CloseReason::PingTimeout
        | CloseReason::ServerShutdown
        | CloseReason::SlowConsumer
        | CloseReason::TransportClose
        | CloseReason::TransportError => true,
        CloseReason::ParseError => false,
    }
}
