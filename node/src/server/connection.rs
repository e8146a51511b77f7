//! The server's side of one connection: feeds its Socket.IO core, runs handlers.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use futures_util::FutureExt as _;
use smallvec::SmallVec;
use tokio::time::Instant;
use tracing::{debug, error};

use super::companions;
use super::conn::Shared;
use super::dispatch;
use super::dynamic::Search;
use super::extract::{Context, Occasion, Reason};
use super::handler;
use super::io::{Io, Stay};
use super::legacy;
use super::listeners::EventError;
use super::middleware::{BoxMiddleware, ConnectError};
use super::namespace::NamespaceInner;
use super::session::{NoSession, Seat};
use super::socket::Socket;
use crate::adapter::{Adapter, Brought, Claim, Encoded, Outbox, Phase, Recipient};
use crate::engineio::{CloseReason, Message, Revision, TransportKind};
use crate::metrics;
use crate::raft::ProposeError;
use crate::raft::state::{Outcome, SessionId, SocketId};
use crate::socketio::codec::Kind;
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
        self.outbox.push(connect_error(&self.io, name, error.to_json()));
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
        let connecting = async move {
            if take_session(&socket, wish).await {
                connect(socket, middleware, claim).await;
            }
        };
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

/// How long a CONNECT waits for a quorum before its connection is closed, so that the client
/// tries another node.
const CONNECT_PATIENCE: Duration = Duration::from_secs(3);

/// How long to wait before a CONNECT is proposed again.
const CONNECT_RETRY: Duration = Duration::from_millis(200);

/// Whether a CONNECT that failed so may do better in a moment.
fn may_recover(error: ProposeError) -> bool {
    matches!(error, ProposeError::NoQuorum | ProposeError::Overloaded)
}

/// Looks a session up, again while that cannot be agreed and the client `is_waiting`: as long as a
/// CONNECT waits for a quorum.
async fn find_patiently<T, F>(
    find: impl Fn() -> F,
    is_waiting: impl Fn() -> bool,
) -> Result<T, NoSession>
where
    F: Future<Output = Result<T, NoSession>>,
{
    let give_up = Instant::now() + CONNECT_PATIENCE;
    loop {
        match find().await {
            Err(NoSession::Unavailable(error))
                if may_recover(error) && is_waiting() && Instant::now() < give_up =>
            {
                tokio::time::sleep(CONNECT_RETRY).await;
            }
            found => return found,
        }
    }
}

/// Gives a socket the session that its client shows with its CONNECT; false if the client was
/// refused. One that is not there (any more) leaves it with its connection's.
async fn take_session(socket: &Socket, shown: Result<Option<String>, NoSession>) -> bool {
    let io = socket.io();
    let found = match (shown, io.sessions()) {
        (Ok(Some(token)), Some(sessions)) => {
            let is_waiting = || socket.recipient().phase() == Phase::Connecting;
            find_patiently(|| sessions.find(&io, &token), is_waiting).await
        }
        (Ok(_), _) => Ok(None),
        (Err(missing), _) => Err(missing),
    };
    match found {
        Ok(Some(hold)) => socket.set_asked_session(hold),
        Ok(None) => {}
        Err(NoSession::Unavailable(error)) => {
            metrics::CONNECTS_REFUSED.unavailable.add(1);
            debug!(socket = %socket.id(), %error, "session could not be looked up");
            socket.recipient().outbox.close(CloseReason::ForcedServerClose);
            return false;
        }
        Err(refused @ (NoSession::Bad(_) | NoSession::Missing)) => {
            let code =
                if matches!(refused, NoSession::Missing) { "NoSession" } else { "BadSession" };
            let data = serde_json::json!({"code": code});
            metrics::CONNECTS_REFUSED.session.add(1);
            reject(socket, &ConnectError::with_data(refused.to_string(), data));
            return false;
        }
    }
    true
}

/// Asks the middleware, then the cluster. The delivery task answers the CONNECT.
async fn connect(socket: Socket, middleware: Vec<BoxMiddleware>, claim: Option<Claim>) {
    for ask in middleware {
        let asked = AssertUnwindSafe(async { ask(socket.clone()).await }).catch_unwind().await;
        let refused = asked.unwrap_or_else(|_panic| {
            error!("middleware panicked");
            Err(ConnectError::new("internal server error"))
        });
        if let Err(error) = refused {
            metrics::CONNECTS_REFUSED.middleware.add(1);
            return reject(&socket, &error);
        }
        if !socket.recipient().is_coming() {
            // The client is not there any more.
            return;
        }
    }
    let adapter = &socket.namespace_inner().adapter;
    if let Some(claim) = &claim {
        socket.look_for_previous(claim).await;
    }
    let rooms = socket.take_early_rooms();
    let give_up = Instant::now() + CONNECT_PATIENCE;
    loop {
        let recipient = socket.recipient().clone();
        let receipt = match &claim {
            Some(claim) => adapter.claim(recipient, claim),
            None => {
                let keep = socket.hold().and_then(|hold| hold.to_make());
                let id = socket.session_id();
                let is_written = socket.io().drafts().has(id);
                let session = Brought { id, keep, is_written };
                adapter.connect_with_session(recipient, session, rooms.clone())
            }
        };
        if !socket.namespace_inner().connects_quietly() {
            adapter.hurry();
        }
        match receipt.await {
            Ok(Outcome::UnknownSocket | Outcome::Lost) if claim.is_some() => {
                if adapter.refuse_claim(socket.recipient()) {
                    socket.recipient().outbox.nudge();
                }
                return;
            }
            Ok(_) => {
                // The session is there from now on, and is not made again once it is over.
                socket.hold().into_iter().for_each(|hold| hold.set_made());
                // Those of a socket that came back are joined beside the ones it has.
                if claim.is_some() && !rooms.is_empty() {
                    drop(socket.join(rooms));
                }
                return;
            }
            // Its client has left, and may go on elsewhere.
            Err(_) if socket.recipient().phase() > Phase::Connected => return,
            // It may yet be agreed, and is acted on then.
            Err(ProposeError::Timeout) if adapter.go_on_unknown(socket.recipient()) => return,
            Err(error)
                if may_recover(error)
                    && (adapter.go_on_unknown(socket.recipient()) || Instant::now() < give_up) =>
            {
                tokio::time::sleep(CONNECT_RETRY).await;
            }
            Err(error) => {
                metrics::CONNECTS_REFUSED.unavailable.add(1);
                debug!(socket = %socket.id(), %error, "socket could not be made known");
                socket.recipient().outbox.close(CloseReason::ForcedServerClose);
                return;
            }
        }
    }
}

fn reject(socket: &Socket, error: &ConnectError) {
    // First, for the client may ask again at once.
    if socket.recipient().advance(Phase::Rejected) {
        let outbox = &socket.recipient().outbox;
        let json = match outbox.revision() {
            Revision::V4 => error.to_json(),
            Revision::V3 => legacy::refusal(error),
        };
        outbox.push_news(connect_error(&socket.io(), socket.namespace_name(), json));
    }
}

fn connect_error(io: &Io, namespace: &str, json: String) -> Arc<Encoded> {
    let payload = Payload { json: json.into(), attachments: Vec::new() };
    io.cluster().encoder().packet(Kind::ConnectError, namespace, None, &payload)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    async fn found_after(refusals: u32, waits: u32) -> (Result<u32, NoSession>, u32) {
        let asked = Cell::new(0);
        let find = || {
            asked.set(asked.get() + 1);
            let is_refused = asked.get() <= refusals;
            async move { if is_refused { Err(ProposeError::NoQuorum.into()) } else { Ok(7) } }
        };
        let found = find_patiently(find, || asked.get() <= waits).await;
        (found, asked.get())
    }

    #[tokio::test(start_paused = true)]
    async fn connect_with_a_session_waits_a_few_seconds_for_a_quorum() {
        assert!(matches!(found_after(5, 100).await, (Ok(7), 6)));
        let (found, asked) = found_after(100, 100).await;
        assert!(matches!(found, Err(NoSession::Unavailable(ProposeError::NoQuorum))));
        assert_eq!(u128::from(asked), 1 + CONNECT_PATIENCE.as_millis() / CONNECT_RETRY.as_millis());
        let (found, asked) = found_after(100, 3).await;
        assert!(found.is_err() && asked == 4, "nobody waits any more after {asked}");
    }
}
