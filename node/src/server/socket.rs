//! One client in one namespace.

use std::any::{Any, TypeId};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use bytestring::ByteString;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::ack::AckEmit;
use super::conn::{Conn, Shared};
use super::extract::{Context, Occasion};
use super::handler::{self, Handler, boxed};
use super::handshake::HandshakeDetails;
use super::io::Io;
use super::legacy;
use super::listeners::{self, Event, EventError, ListenerId};
use super::namespace::{NamespaceHandle, NamespaceInner};
use super::operator::{IntoRooms, Operator, check_event};
use super::own::{Gate, Own};
use super::receipts::{Agreed, EmitError};
use super::session::{Hold, Session};
use crate::adapter::{Above, Cluster, Encoded, Phase, Recipient};
use crate::engineio::Revision;
use crate::raft::Receipt;
use crate::raft::state::{MAX_ROOMS, Rooms, SessionId, SocketId, Target};
use crate::socketio::codec::Kind;
use crate::socketio::{Payload, to_payload};
use crate::transport::Handshake;

/// One client in one namespace, on this node. Cheap to clone.
#[derive(Clone)]
pub struct Socket(Arc<SocketInner>);

struct SocketInner {
    recipient: Arc<Recipient>,
    namespace: Arc<NamespaceInner>,
    io: Io,
    /// With the other sockets of its connection.
    shared: Arc<Shared>,
    auth: Option<ByteString>,
    session: SessionId,
    /// What is known of a session that the client comes back to.
    hold: Option<Arc<Hold>>,
    /// The session that the client asked for with its CONNECT, or that came back with the socket.
    asked: OnceLock<Arc<Hold>>,
    early: Mutex<Early>,
    own: OnceLock<Box<Mutex<Own>>>,
}

/// The rooms that are joined in middleware.
enum Early {
    /// They travel with the change that makes the socket known.
    Noted(Option<Box<Rooms>>),
    /// That change is on its way: rooms are joined by themselves.
    Proposed,
}

impl Socket {
    pub(crate) fn new(
        recipient: Arc<Recipient>,
        namespace: Arc<NamespaceInner>,
        io: Io,
        shared: Arc<Shared>,
        auth: Option<ByteString>,
        (session, hold): (SessionId, Option<Arc<Hold>>),
    ) -> Self {
        let socket = Self(Arc::new(SocketInner {
            recipient,
            namespace,
            io,
            shared,
            auth,
            session,
            hold,
            asked: OnceLock::new(),
            early: Mutex::new(Early::Noted(None)),
            own: OnceLock::new(),
        }));
        let inner: Weak<SocketInner> = Arc::downgrade(&socket.0);
        socket.0.recipient.set_above(inner);
        socket
    }

    /// The socket above a recipient, while it is there.
    pub(crate) fn of(recipient: &Recipient) -> Option<Self> {
        let above: Arc<dyn Any + Send + Sync> = recipient.above()?;
        above.downcast().ok().map(Self)
    }

    pub fn id(&self) -> SocketId {
        self.0.recipient.id
    }

    /// The id that the client goes by: [`id`](Self::id), but `/<namespace>#<sid>` outside of `/` for
    /// clients of Socket.IO v4, which make it themselves. Their socket is in a room of that name.
    pub fn client_id(&self) -> ByteString {
        match self.0.recipient.outbox.revision() {
            Revision::V4 => self.id().as_str().into(),
            Revision::V3 => legacy::client_id(self.namespace_name(), &self.handshake().sid),
        }
    }

    /// Whether the client is in the namespace; false in middleware, and after a disconnect.
    pub fn is_connected(&self) -> bool {
        self.0.recipient.phase() == Phase::Connected
    }

    /// Whether this is the client's old socket, with its id, rooms and session: the client lost its
    /// connection and came back. In middleware: whether it asks for that; if it is refused, a new
    /// socket is asked about again.
    pub fn recovered(&self) -> bool {
        self.0.recipient.claim != 0
    }

    pub fn namespace(&self) -> NamespaceHandle {
        NamespaceHandle(self.0.namespace.clone())
    }

    pub fn namespace_name(&self) -> &str {
        self.0.namespace.name()
    }

    /// The request that opened the client's connection.
    pub fn handshake(&self) -> &Handshake {
        &self.0.shared.handshake
    }

    /// The same, field by field as the official server has them, with what the client sent with
    /// its CONNECT.
    pub fn handshake_details(&self) -> HandshakeDetails {
        HandshakeDetails::new(self.handshake(), self.auth().unwrap_or_default())
    }

    /// The connection that this socket shares with those of its client's other namespaces.
    pub fn conn(&self) -> Conn {
        Conn::new(self.clone())
    }

    pub fn io(&self) -> Io {
        self.0.io.clone()
    }

    pub fn session(&self) -> Session {
        match self.hold() {
            Some(hold) => Session::held(hold.clone(), self.io()),
            None => Session::new(self.session_id(), self.io()),
        }
    }

    /// What the client sent with its CONNECT; `null` if nothing.
    pub fn auth<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.0.auth.as_deref().unwrap_or("null"))
    }

    /// The agreed rooms, that of its own id included.
    pub fn rooms(&self) -> Vec<ByteString> {
        let mut rooms = vec![ByteString::from(self.id().as_str())];
        if let Some(row) = self.0.namespace.view().socket(self.id()) {
            rooms.extend(row.rooms().map(ByteString::from));
        }
        rooms
    }

    /// The JSON object that the application keeps with the socket on this node; others see it with
    /// [`fetch_details`](Operator::fetch_details). It comes back with a socket that is
    /// [recovered](Self::recovered), but for one whose node died, and up to 16 KiB of text. What
    /// the whole cluster agrees on is the [session](Self::session).
    pub fn data(&self) -> Arc<Map<String, Value>> {
        self.own().map(|own| own.data.clone()).unwrap_or_default()
    }

    /// The same, as a type.
    pub fn data_as<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_value(Value::Object(Map::clone(&self.data())))
    }

    /// Changes the object.
    pub fn update_data<R>(&self, change: impl FnOnce(&mut Map<String, Value>) -> R) -> R {
        self.change_own(|own| change(Arc::make_mut(&mut own.data)))
    }

    /// Keeps a value with the socket, one for each type; the one that was there.
    pub fn set_extension<T: Send + Sync + 'static>(&self, value: T) -> Option<Arc<T>> {
        let value = Arc::new(value);
        let old = self.change_own(|own| own.extensions.insert(TypeId::of::<T>(), value));
        old.and_then(|old| old.downcast().ok())
    }

    pub fn extension<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        let value = self.own()?.extensions.get(&TypeId::of::<T>()).cloned();
        value.and_then(|value| value.downcast().ok())
    }

    /// Joins rooms. Visible to direct packets of this node at once; awaited, to every replicated
    /// emit from any node. In middleware it is part of the connect. A socket may be in 4096 rooms:
    /// [`EmitError::TooManyRooms`] beyond.
    pub fn join(&self, rooms: impl IntoRooms) -> Agreed {
        let rooms = self.foreign(rooms);
        let mut fits = true;
        let note = |early: &mut Rooms| {
            fits = early.len() + rooms.len() <= MAX_ROOMS;
            if fits {
                early.extend(rooms.iter().cloned());
            }
        };
        if self.change_early_rooms(note) {
            let noted = || Receipt::done().into();
            return if fits { noted() } else { Agreed::refused(EmitError::TooManyRooms) };
        }
        self.0.namespace.adapter.join(self.id(), rooms).into()
    }

    pub fn leave(&self, rooms: impl IntoRooms) -> Agreed {
        let rooms = self.foreign(rooms);
        if self.change_early_rooms(|early| early.retain(|room| !rooms.contains(room))) {
            return Receipt::done().into();
        }
        self.0.namespace.adapter.leave(self.id(), rooms).into()
    }

    /// In middleware, rooms are only noted; false if it is too late for that.
    fn change_early_rooms(&self, change: impl FnOnce(&mut Rooms)) -> bool {
        if self.0.recipient.phase() != Phase::Connecting {
            return false;
        }
        match &mut *self.early() {
            Early::Noted(rooms) => {
                change(rooms.get_or_insert_default());
                true
            }
            Early::Proposed => false,
        }
    }

    /// The room of its own id is the socket itself: it is neither joined nor left.
    fn foreign(&self, rooms: impl IntoRooms) -> Rooms {
        let mut rooms = rooms.into_rooms();
        rooms.retain(|room| room.as_bytes() != self.id().as_str().as_bytes());
        rooms
    }

    /// Sends an event to this client; a tuple is several arguments.
    pub fn emit(&self, event: &str, args: &(impl Serialize + ?Sized)) -> Agreed {
        match to_payload(Some(event), args) {
            Ok(payload) => self.emit_payload(payload),
            Err(error) => Agreed::refused(EmitError::Encode(error)),
        }
    }

    /// Sends an event whose arguments are passed on as they came. In middleware it goes to the
    /// client at once, ahead of its CONNECT.
    pub fn emit_payload(&self, payload: Payload) -> Agreed {
        if let Err(error) = check_event(&payload) {
            return Agreed::refused(error);
        }
        if self.0.recipient.phase() == Phase::Connecting {
            let adapter = &self.0.namespace.adapter;
            let payload = adapter.stamped_early(payload, self.0.auth.as_deref());
            self.push(adapter.encoder().packet(Kind::Event, adapter.name(), None, &payload));
            self.call_outgoing(&payload);
            return Receipt::done().into();
        }
        let target = Target { rooms: self.id().into_rooms(), ..Target::default() };
        self.0.namespace.adapter.emit(target, payload, Default::default()).into()
    }

    /// Sends a `message`.
    pub fn send(&self, args: &(impl Serialize + ?Sized)) -> Agreed {
        self.emit("message", args)
    }

    /// Sends an event that the client answers.
    pub fn emit_with_ack(&self, event: &str, args: &(impl Serialize + ?Sized)) -> AckEmit {
        self.itself().emit_with_ack(event, args)
    }

    /// This socket as a target, to say how a packet travels: `socket.itself().volatile()`.
    pub fn itself(&self) -> Operator {
        Operator::new(self.0.namespace.adapter.clone()).to(self.id())
    }

    /// This socket, if it can take a packet now: see [`Operator::volatile`].
    pub fn volatile(&self) -> Operator {
        self.itself().volatile()
    }

    /// This socket: see [`Operator::compress`].
    pub fn compress(&self, compress: bool) -> Operator {
        self.itself().compress(compress)
    }

    /// This socket, with a limit for its answer: see [`Operator::timeout`].
    pub fn timeout(&self, timeout: Duration) -> Operator {
        self.itself().timeout(timeout)
    }

    /// This node's sockets of the namespace but this one.
    pub fn local(&self) -> Operator {
        self.broadcast().local()
    }

    /// All sockets of the namespace but this one.
    pub fn broadcast(&self) -> Operator {
        Operator::new(self.0.namespace.adapter.clone()).except(self.id())
    }

    /// The sockets in these rooms but this one.
    pub fn to(&self, rooms: impl IntoRooms) -> Operator {
        self.broadcast().to(rooms)
    }

    /// The same as [`to`](Self::to).
    pub fn within(&self, rooms: impl IntoRooms) -> Operator {
        self.to(rooms)
    }

    pub fn except(&self, rooms: impl IntoRooms) -> Operator {
        self.broadcast().except(rooms)
    }

    /// Ends this client's stay in the namespace, after what was emitted before; `close` ends its
    /// connection too.
    pub fn disconnect(&self, close: bool) -> Agreed {
        self.itself().disconnect_sockets(close)
    }

    /// Asks `middleware`, after those added before, about each event of this socket before its
    /// handlers are called. An event that it refuses is not handled; the error goes to
    /// [`on_error`](Self::on_error).
    pub fn with<F, Fut>(&self, middleware: F)
    where
        F: Fn(Event) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), EventError>> + Send + 'static,
    {
        let middleware = listeners::boxed(middleware);
        self.change_own(|own| own.middleware.push(middleware));
    }

    /// Runs for every event of this socket, before its middleware and its handlers.
    pub fn on_any<Args>(&self, handler: impl Handler<Args>) -> ListenerId {
        let handler = boxed(handler);
        self.change_own(|own| own.incoming.append(handler))
    }

    /// The same, before those that were added already.
    pub fn prepend_any<Args>(&self, handler: impl Handler<Args>) -> ListenerId {
        let handler = boxed(handler);
        self.change_own(|own| own.incoming.prepend(handler))
    }

    /// Takes one of them away, or (`None`) all.
    pub fn off_any(&self, listener: impl Into<Option<ListenerId>>) {
        if let Some(mut own) = self.own() {
            own.incoming.remove(listener.into());
        }
    }

    /// Those that are there, in the order in which they are called.
    pub fn listeners_any(&self) -> Vec<ListenerId> {
        self.own().map(|own| own.incoming.ids()).unwrap_or_default()
    }

    /// Runs for every event that is queued for this socket, broadcasts included. What it does
    /// before it first waits is done by the namespace's delivery: it should be quick.
    pub fn on_any_outgoing<Args>(&self, handler: impl Handler<Args>) -> ListenerId {
        let handler = boxed(handler);
        let id = self.change_own(|own| own.outgoing.append(handler));
        self.hear();
        id
    }

    /// The same, before those that were added already.
    pub fn prepend_any_outgoing<Args>(&self, handler: impl Handler<Args>) -> ListenerId {
        let handler = boxed(handler);
        let id = self.change_own(|own| own.outgoing.prepend(handler));
        self.hear();
        id
    }

    /// Takes one of them away, or (`None`) all.
    pub fn off_any_outgoing(&self, listener: impl Into<Option<ListenerId>>) {
        let Some(mut own) = self.own() else { return };
        own.outgoing.remove(listener.into());
        drop(own);
        self.hear();
    }

    /// Those that are there, in the order in which they are called.
    pub fn listeners_any_outgoing(&self) -> Vec<ListenerId> {
        self.own().map(|own| own.outgoing.ids()).unwrap_or_default()
    }

    /// Has the adapter tell of what it queues for this socket, as long as anyone listens.
    fn hear(&self) {
        let hears = self.own().is_some_and(|own| !own.outgoing.is_empty());
        self.0.namespace.adapter.hear(&self.0.recipient, hears);
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.0.shared
    }

    pub(crate) fn recipient(&self) -> &Arc<Recipient> {
        &self.0.recipient
    }

    pub(crate) fn namespace_inner(&self) -> &Arc<NamespaceInner> {
        &self.0.namespace
    }

    /// The one that came back with it, that it asked for, or its connection's.
    pub(crate) fn session_id(&self) -> SessionId {
        let asked = self.0.asked.get().map(|hold| hold.id);
        self.0.recipient.session().or(asked).unwrap_or(self.0.session)
    }

    /// What is known of its session, if clients come back to theirs.
    pub(crate) fn hold(&self) -> Option<&Arc<Hold>> {
        let hold = self.0.asked.get().or(self.0.hold.as_ref());
        let id = self.session_id();
        if let Some(hold) = hold.filter(|hold| hold.id == id) {
            return Some(hold);
        }
        // A socket that came back brings its session with it, whatever its connection's is; and the
        // connection's next sockets share that one.
        let sessions = self.0.io.sessions()?;
        Some(self.0.asked.get_or_init(|| sessions.known(id)))
    }

    /// Gives it the session that its client asked for, before anyone sees the socket.
    pub(crate) fn set_asked_session(&self, hold: Arc<Hold>) {
        // It is asked for once.
        let _ = self.0.asked.set(hold);
    }

    pub(crate) fn auth_text(&self) -> Option<ByteString> {
        self.0.auth.clone()
    }

    /// The rooms joined in middleware, which is over: the next ones are proposed by themselves.
    pub(crate) fn take_early_rooms(&self) -> Rooms {
        match std::mem::replace(&mut *self.early(), Early::Proposed) {
            Early::Noted(rooms) => rooms.map(|rooms| *rooms).unwrap_or_default(),
            Early::Proposed => Rooms::new(),
        }
    }

    pub(crate) fn cluster(&self) -> &Arc<Cluster> {
        self.0.io.cluster()
    }

    /// What stands before the handlers of its events, if anything does.
    pub(crate) fn gate(&self) -> Option<Gate> {
        self.own()?.gate()
    }

    fn call_outgoing(&self, event: &Payload) {
        let listeners = self.own().map(|own| own.outgoing.handlers()).unwrap_or_default();
        let name = if listeners.is_empty() { None } else { event.event_name() };
        let Some(name) = name else { return };
        let occasion =
            Occasion::Event { name: &name, payload: event, ack_id: None, answered: None };
        let context = Context { socket: self, occasion };
        for listener in &listeners {
            handler::run(listener, &context, self.cluster());
        }
    }

    /// Sends it a packet that nobody else gets.
    pub(crate) fn push(&self, packet: Arc<Encoded>) {
        self.0.recipient.outbox.push_own(packet);
    }

    fn early(&self) -> MutexGuard<'_, Early> {
        self.0.early.lock().expect("nothing panics while it holds a socket's early rooms")
    }

    pub(super) fn own(&self) -> Option<MutexGuard<'_, Own>> {
        // A value that panics as it is dropped leaves a map without it.
        self.0.own.get().map(|own| own.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn change_own<R>(&self, change: impl FnOnce(&mut Own) -> R) -> R {
        self.0.own.get_or_init(Box::default);
        change(&mut self.own().expect("it was made above"))
    }
}

impl Above for SocketInner {
    fn handle_outgoing(self: Arc<Self>, event: &Payload) {
        Socket(self).call_outgoing(event);
    }

    fn data(self: Arc<Self>) -> Option<String> {
        Socket(self).data_to_keep()
    }

    fn restore(self: Arc<Self>, data: Option<&str>) {
        Socket(self).restore_data(data);
    }
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Socket").field(&self.id()).finish()
    }
}
