//! One client in one namespace.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytestring::ByteString;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::ack::AckEmit;
use super::handler::{BoxHandler, Handler, boxed};
use super::io::Io;
use super::legacy;
use super::namespace::{NamespaceHandle, NamespaceInner};
use super::operator::{IntoRooms, Operator};
use super::receipts::{Agreed, EmitError};
use super::session::Session;
use crate::adapter::{Encoded, Phase, Recipient};
use crate::engineio::Revision;
use crate::raft::Receipt;
use crate::raft::state::{Rooms, SessionId, SocketId, Target};
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
    handshake: Arc<Handshake>,
    auth: Option<ByteString>,
    session: SessionId,
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

/// What most sockets do without.
#[derive(Default)]
struct Own {
    events: HashMap<Box<str>, BoxHandler>,
    disconnecting: Option<BoxHandler>,
    disconnect: Option<BoxHandler>,
    extensions: HashMap<TypeId, Arc<dyn Any + Send + Sync>>,
}

impl Socket {
    pub(crate) fn new(
        recipient: Arc<Recipient>,
        namespace: Arc<NamespaceInner>,
        io: Io,
        handshake: Arc<Handshake>,
        auth: Option<ByteString>,
        session: SessionId,
    ) -> Self {
        Self(Arc::new(SocketInner {
            recipient,
            namespace,
            io,
            handshake,
            auth,
            session,
            early: Mutex::new(Early::Noted(None)),
            own: OnceLock::new(),
        }))
    }

    pub fn id(&self) -> SocketId {
        self.0.recipient.id
    }

    /// The id that the client goes by: [`id`](Self::id), but `/<namespace>#<sid>` outside of `/` for
    /// clients of Socket.IO v4, which make it themselves. Their socket is in a room of that name.
    pub fn client_id(&self) -> ByteString {
        match self.0.recipient.outbox.revision() {
            Revision::V4 => self.id().as_str().into(),
            Revision::V3 => legacy::client_id(self.namespace_name(), &self.0.handshake.sid),
        }
    }

    /// Whether the client is in the namespace; false in middleware, and after a disconnect.
    pub fn is_connected(&self) -> bool {
        self.0.recipient.phase() == Phase::Connected
    }

    pub fn namespace(&self) -> NamespaceHandle {
        NamespaceHandle(self.0.namespace.clone())
    }

    pub fn namespace_name(&self) -> &str {
        self.0.namespace.name()
    }

    /// The request that opened the client's connection.
    pub fn handshake(&self) -> &Handshake {
        &self.0.handshake
    }

    pub fn io(&self) -> Io {
        self.0.io.clone()
    }

    pub fn session(&self) -> Session {
        Session::new(self.0.session, self.io())
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

    /// Keeps a value with the socket, one for each type; the one that was there.
    pub fn set_extension<T: Send + Sync + 'static>(&self, value: T) -> Option<Arc<T>> {
        let old = self.make_own().extensions.insert(TypeId::of::<T>(), Arc::new(value));
        old.and_then(|old| old.downcast().ok())
    }

    pub fn extension<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        let value = self.own()?.extensions.get(&TypeId::of::<T>()).cloned();
        value.and_then(|value| value.downcast().ok())
    }

    /// Joins rooms. Visible to direct packets of this node at once; awaited, to every replicated
    /// emit from any node. In middleware it is part of the connect.
    pub fn join(&self, rooms: impl IntoRooms) -> Agreed {
        let rooms = self.foreign(rooms);
        if self.change_early_rooms(|early| early.extend(rooms.iter().cloned())) {
            return Receipt::done().into();
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
        if self.0.recipient.phase() == Phase::Connecting {
            self.push(Encoded::packet(Kind::Event, self.namespace_name(), None, &payload));
            return Receipt::done().into();
        }
        let target = Target { rooms: self.id().into_rooms(), ..Target::default() };
        self.0.namespace.adapter.emit(target, payload, Default::default()).into()
    }

    /// Sends an event that the client answers.
    pub fn emit_with_ack(&self, event: &str, args: &(impl Serialize + ?Sized)) -> AckEmit {
        self.itself().emit_with_ack(event, args)
    }

    /// This socket as a target, to say how a packet travels: `socket.itself().volatile()`.
    pub fn itself(&self) -> Operator {
        Operator::new(self.0.namespace.adapter.clone()).to(self.id())
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

    /// Runs for each event of that name of this socket alone.
    pub fn on<Args>(&self, event: &str, handler: impl Handler<Args>) {
        self.make_own().events.insert(event.into(), boxed(handler));
    }

    /// Takes a handler of [`on`](Self::on) away.
    pub fn off(&self, event: &str) {
        if let Some(mut own) = self.own() {
            own.events.remove(event);
        }
    }

    /// Runs when this socket is about to leave, its rooms still known.
    pub fn on_disconnecting<Args>(&self, handler: impl Handler<Args>) {
        self.make_own().disconnecting = Some(boxed(handler));
    }

    /// Runs when this socket has left.
    pub fn on_disconnect<Args>(&self, handler: impl Handler<Args>) {
        self.make_own().disconnect = Some(boxed(handler));
    }

    pub(crate) fn recipient(&self) -> &Arc<Recipient> {
        &self.0.recipient
    }

    pub(crate) fn namespace_inner(&self) -> &Arc<NamespaceInner> {
        &self.0.namespace
    }

    pub(crate) fn session_id(&self) -> SessionId {
        self.0.session
    }

    /// The rooms joined in middleware, which is over: the next ones are proposed by themselves.
    pub(crate) fn take_early_rooms(&self) -> Rooms {
        match std::mem::replace(&mut *self.early(), Early::Proposed) {
            Early::Noted(rooms) => rooms.map(|rooms| *rooms).unwrap_or_default(),
            Early::Proposed => Rooms::new(),
        }
    }

    /// The socket's own handler for an event.
    pub(crate) fn own_handler(&self, event: &str) -> Option<BoxHandler> {
        self.own()?.events.get(event).cloned()
    }

    /// The namespace's handlers for the end of a socket, then its own.
    pub(crate) fn disconnect_handlers(&self) -> [[Option<BoxHandler>; 2]; 2] {
        let (own_first, own_last) = self
            .own()
            .map(|own| (own.disconnecting.clone(), own.disconnect.clone()))
            .unwrap_or_default();
        let handlers = self.0.namespace.handlers();
        [[handlers.disconnecting.clone(), own_first], [handlers.disconnect.clone(), own_last]]
    }

    pub(crate) fn push(&self, packet: Arc<Encoded>) {
        self.0.recipient.outbox.push(packet);
    }

    fn early(&self) -> MutexGuard<'_, Early> {
        self.0.early.lock().expect("nothing panics while it holds a socket's early rooms")
    }

    fn own(&self) -> Option<MutexGuard<'_, Own>> {
        // A value that panics as it is dropped leaves a map without it.
        self.0.own.get().map(|own| own.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn make_own(&self) -> MutexGuard<'_, Own> {
        self.0.own.get_or_init(Box::default);
        self.own().expect("it was made above")
    }
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Socket").field(&self.id()).finish()
    }
}
