//! A namespace: its handlers, its middleware, and its sockets on all nodes.

use std::future::Future;
use std::ops::Deref;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use bytestring::ByteString;
use serde::Serialize;

use super::ack::AckEmit;
use super::companions::MakeCompanion;
use super::dynamic::ParentInner;
use super::handler::{Handler, boxed};
use super::listeners::{EventListeners, Listener, ListenerId, Listeners};
use super::middleware::{self, BoxMiddleware, ConnectError};
use super::operator::{IntoRooms, Operator};
use super::receipts::{Agreed, EmitError};
use super::remote::{FetchedSockets, RemoteSocket};
use super::server_side::{self, ServerEvent, ServerHandlers};
use super::socket::Socket;
use crate::adapter::{Adapter, Phase, Projector, RoomEvent};
use crate::raft::state::{SocketId, Target};

/// What an application registered for a namespace. Handlers are shared by all its sockets, so
/// that a socket without handlers of its own costs nothing for them.
#[derive(Clone, Default)]
pub(crate) struct Handlers {
    pub(crate) connect: Listeners,
    pub(crate) disconnecting: Listeners,
    pub(crate) disconnect: Listeners,
    pub(crate) error: Listeners,
    pub(crate) events: EventListeners,
    /// For events that nobody else handles.
    pub(crate) fallbacks: Listeners,
    pub(crate) server_events: ServerHandlers,
    pub(crate) middleware: Vec<BoxMiddleware>,
    pub(crate) companions: Vec<MakeCompanion>,
}

/// Handlers, and the way to add to them while they are read.
#[derive(Default)]
pub(crate) struct Registry {
    /// Read for every event, and changed hardly ever.
    handlers: ArcSwap<Handlers>,
    /// Held while the handlers are replaced.
    registering: Mutex<()>,
}

impl Registry {
    pub(crate) fn new(handlers: Handlers) -> Self {
        Self { handlers: ArcSwap::from_pointee(handlers), registering: Mutex::default() }
    }

    /// The handlers as they are now; others may be registered meanwhile.
    pub(crate) fn handlers(&self) -> Guard<Arc<Handlers>> {
        self.handlers.load()
    }

    fn register<R>(&self, register: impl FnOnce(&mut Handlers) -> R) -> R {
        let _guard = self.registering.lock().unwrap_or_else(PoisonError::into_inner);
        let mut handlers = Handlers::clone(&self.handlers.load());
        let registered = register(&mut handlers);
        self.handlers.store(Arc::new(handlers));
        registered
    }

    pub(crate) fn on_connect<Args>(&self, handler: impl Handler<Args>) {
        self.register(|handlers| handlers.connect.append(boxed(handler)));
    }

    pub(crate) fn on_connect_once<Args>(&self, handler: impl Handler<Args>) {
        self.register(|handlers| handlers.connect.append_once(boxed(handler)));
    }

    pub(crate) fn on<Args>(&self, event: &str, handler: impl Handler<Args>) -> ListenerId {
        self.register(|handlers| handlers.events.append(event, boxed(handler)))
    }

    pub(crate) fn once<Args>(&self, event: &str, handler: impl Handler<Args>) -> ListenerId {
        self.register(|handlers| handlers.events.append_once(event, boxed(handler)))
    }

    /// Whether a listener is to be called now. One for once is taken away, by whichever of the
    /// sockets that call it at the same moment is first.
    pub(crate) fn claim(&self, listener: &Listener) -> bool {
        !listener.is_once
            || self.register(|handlers| {
                handlers.connect.remove(Some(listener.id)) || handlers.events.remove(listener.id)
            })
    }

    pub(crate) fn off(&self, event: &str) {
        self.register(|handlers| handlers.events.remove_event(event));
    }

    pub(crate) fn remove_listener(&self, listener: ListenerId) {
        self.register(|handlers| {
            handlers.events.remove(listener);
        });
    }

    pub(crate) fn on_fallback<Args>(&self, handler: impl Handler<Args>) {
        self.register(|handlers| handlers.fallbacks.append(boxed(handler)));
    }

    pub(crate) fn on_disconnecting<Args>(&self, handler: impl Handler<Args>) {
        self.register(|handlers| handlers.disconnecting.append(boxed(handler)));
    }

    pub(crate) fn on_disconnect<Args>(&self, handler: impl Handler<Args>) {
        self.register(|handlers| handlers.disconnect.append(boxed(handler)));
    }

    pub(crate) fn on_error<Args>(&self, handler: impl Handler<Args>) {
        self.register(|handlers| handlers.error.append(boxed(handler)));
    }

    pub(crate) fn on_server_event<F, Fut>(&self, event: &str, handler: F)
    where
        F: Fn(ServerEvent) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.register(|handlers| {
            let listeners = handlers.server_events.entry(event.into()).or_default();
            listeners.push(server_side::boxed(handler));
        });
    }

    pub(crate) fn off_server_event(&self, event: &str) {
        self.register(|handlers| {
            handlers.server_events.remove(event);
        });
    }

    pub(crate) fn with<F, Fut>(&self, middleware: F)
    where
        F: Fn(Socket) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), ConnectError>> + Send + 'static,
    {
        self.register(|handlers| handlers.middleware.push(middleware::boxed(middleware)));
    }

    pub(super) fn accompany(&self, make: MakeCompanion) {
        self.register(|handlers| handlers.companions.push(make));
    }
}

pub(crate) struct NamespaceInner {
    pub(crate) adapter: Arc<Adapter>,
    registry: Registry,
    /// Who made it when a client asked for it.
    pub(super) parent: Option<Arc<ParentInner>>,
    /// Sockets of this node that are in it, or about to be. Counted up under the lock of all
    /// namespaces, so that none comes while it is removed.
    pub(super) stays: AtomicUsize,
    /// Set once the application has been told of it: clients wait for what it may register.
    pub(super) told: OnceLock<()>,
}

impl NamespaceInner {
    pub(crate) fn new(adapter: Arc<Adapter>, parent: Option<Arc<ParentInner>>) -> Self {
        let handlers = parent.as_ref().map(|parent| parent.handlers()).unwrap_or_default();
        Self {
            adapter,
            registry: Registry::new(handlers),
            parent,
            stays: AtomicUsize::new(0),
            told: OnceLock::new(),
        }
    }

    pub(crate) fn handlers(&self) -> Guard<Arc<Handlers>> {
        self.registry.handlers()
    }

    /// Whether nothing here is called when a socket comes, or goes.
    pub(crate) fn connects_quietly(&self) -> bool {
        let handlers = self.handlers();
        let listeners = [&handlers.connect, &handlers.disconnecting, &handlers.disconnect];
        handlers.companions.is_empty() && listeners.iter().all(|of| of.all().is_empty())
    }

    pub(super) fn registry(&self) -> &Registry {
        &self.registry
    }
}

/// A namespace, to register handlers and to emit. Cheap to clone.
#[derive(Clone)]
pub struct NamespaceHandle(pub(crate) Arc<NamespaceInner>);

impl NamespaceHandle {
    pub fn name(&self) -> &str {
        self.0.adapter.name()
    }

    /// Runs for each socket once it is connected, before its first event is looked at.
    pub fn on_connect<Args>(&self, handler: impl Handler<Args>) -> &Self {
        self.0.registry.on_connect(handler);
        self
    }

    /// Runs for the next socket that connects, and for no other.
    pub fn on_connect_once<Args>(&self, handler: impl Handler<Args>) -> &Self {
        self.0.registry.on_connect_once(handler);
        self
    }

    /// Runs for each event of that name, in the order in which a client's events came. All
    /// handlers for a name run, in the order of their registration, and then the
    /// [socket's own](Socket::on). If several may answer the event, the first answer counts.
    pub fn on<Args>(&self, event: &str, handler: impl Handler<Args>) -> &Self {
        self.0.registry.on(event, handler);
        self
    }

    /// Runs for the next event of that name, whichever client of this node it comes from.
    pub fn once<Args>(&self, event: &str, handler: impl Handler<Args>) -> ListenerId {
        self.0.registry.once(event, handler)
    }

    /// The same as [`on`](Self::on), with a name by which to take the handler away.
    pub fn add_listener<Args>(&self, event: &str, handler: impl Handler<Args>) -> ListenerId {
        self.0.registry.on(event, handler)
    }

    /// Takes one handler away.
    pub fn remove_listener(&self, listener: ListenerId) {
        self.0.registry.remove_listener(listener);
    }

    /// Takes all handlers for an event away.
    pub fn off(&self, event: &str) {
        self.0.registry.off(event);
    }

    /// Runs, beside others of its kind, for each event that neither the socket nor the namespace has
    /// a handler for.
    pub fn on_fallback<Args>(&self, handler: impl Handler<Args>) -> &Self {
        self.0.registry.on_fallback(handler);
        self
    }

    /// The handlers for an event, in the order in which they are called; without those that
    /// sockets have of their own.
    pub fn listeners(&self, event: &str) -> Vec<ListenerId> {
        self.0.handlers().events.ids(event)
    }

    /// The events that there are handlers for, in the order of their names.
    pub fn event_names(&self) -> Vec<String> {
        self.0.handlers().events.names()
    }

    /// Runs when a socket is about to leave, its rooms still known; takes a [`Reason`](super::Reason).
    pub fn on_disconnecting<Args>(&self, handler: impl Handler<Args>) -> &Self {
        self.0.registry.on_disconnecting(handler);
        self
    }

    /// Runs when a socket has left; takes a [`Reason`](super::Reason).
    pub fn on_disconnect<Args>(&self, handler: impl Handler<Args>) -> &Self {
        self.0.registry.on_disconnect(handler);
        self
    }

    /// Runs when something went wrong with a socket that goes on all the same; takes an
    /// [`EventError`](super::EventError).
    pub fn on_error<Args>(&self, handler: impl Handler<Args>) -> &Self {
        self.0.registry.on_error(handler);
        self
    }

    /// Runs for each event of that name that the application on another node
    /// [emits](Self::server_side_emit) in this namespace; those of one node start in their order.
    /// All handlers for a name run, and the first answer counts.
    pub fn on_server_event<F, Fut>(&self, event: &str, handler: F) -> &Self
    where
        F: Fn(ServerEvent) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.0.registry.on_server_event(event, handler);
        self
    }

    /// Takes all handlers of [`on_server_event`](Self::on_server_event) for an event away.
    pub fn off_server_event(&self, event: &str) {
        self.0.registry.off_server_event(event);
    }

    /// Tells `listener` what happens to the rooms of this node from now on, in order. A join is
    /// told when it is called, and taken back if it cannot be agreed; a leave once it is agreed.
    pub fn on_room_event(&self, listener: impl Fn(RoomEvent) + Send + Sync + 'static) -> &Self {
        self.0.adapter.current().watch_rooms(listener);
        self
    }

    /// Has packets for rooms whose names begin with `prefix` delivered as other packets, to some of
    /// their members each. All nodes must do the same, before they have sockets.
    pub fn project(&self, prefix: &str, projector: Arc<dyn Projector>) -> &Self {
        self.0.adapter.current().project(prefix, projector);
        self
    }

    /// Asks `middleware`, after those registered before, whether a client may connect.
    pub fn with<F, Fut>(&self, middleware: F) -> &Self
    where
        F: Fn(Socket) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), ConnectError>> + Send + 'static,
    {
        self.0.registry.with(middleware);
        self
    }

    /// The sockets of this node.
    pub fn sockets(&self) -> Vec<Socket> {
        let all = self.0.adapter.local_recipients(&Target::default());
        all.iter()
            .filter(|recipient| recipient.phase() != Phase::Welcomed)
            .filter_map(|recipient| Socket::of(recipient))
            .collect()
    }

    /// A socket of this node.
    pub fn socket(&self, id: SocketId) -> Option<Socket> {
        let recipient = self.0.adapter.local_recipient(&id)?;
        // Handlers have not met it yet.
        if recipient.phase() == Phase::Welcomed { None } else { Socket::of(&recipient) }
    }

    /// The rooms that have members, on whatever node, each with their number, in the order of their
    /// names. The rooms that are named after a socket's own id are not among them; sockets whose
    /// clients may come back to them are.
    pub fn rooms(&self) -> Vec<(ByteString, usize)> {
        let view = self.0.adapter.view();
        let mut rooms: Vec<_> =
            view.rooms_of(self.name()).map(|(name, len)| (ByteString::from(name), len)).collect();
        rooms.sort_unstable();
        rooms
    }

    /// All sockets of the namespace, on all nodes.
    pub fn operator(&self) -> Operator {
        Operator::new(self.0.adapter.current())
    }

    pub fn to(&self, rooms: impl IntoRooms) -> Operator {
        self.operator().to(rooms)
    }

    /// The same as [`to`](Self::to).
    pub fn within(&self, rooms: impl IntoRooms) -> Operator {
        self.operator().to(rooms)
    }

    pub fn except(&self, rooms: impl IntoRooms) -> Operator {
        self.operator().except(rooms)
    }

    /// Sockets whose session matches: see [`Operator::session`].
    pub fn session(&self, filter: impl Serialize) -> Operator {
        self.operator().session(filter)
    }

    /// This node's sockets.
    pub fn local(&self) -> Operator {
        self.operator().local()
    }

    /// All sockets, straight: see [`Operator::direct`].
    pub fn direct(&self) -> Operator {
        self.operator().direct()
    }

    /// All sockets that can take it now: see [`Operator::volatile`].
    pub fn volatile(&self) -> Operator {
        self.operator().volatile()
    }

    /// All sockets: see [`Operator::compress`].
    pub fn compress(&self, compress: bool) -> Operator {
        self.operator().compress(compress)
    }

    /// All sockets, with a limit for their answers: see [`Operator::timeout`].
    pub fn timeout(&self, timeout: Duration) -> Operator {
        self.operator().timeout(timeout)
    }

    /// Sends an event to all sockets of the namespace.
    pub fn emit(&self, event: &str, args: &(impl Serialize + ?Sized)) -> Agreed {
        self.operator().emit(event, args)
    }

    /// Sends a `message` to all sockets of the namespace.
    pub fn send(&self, args: &(impl Serialize + ?Sized)) -> Agreed {
        self.operator().send(args)
    }

    /// Sends an event that all sockets of the namespace answer.
    pub fn emit_with_ack(&self, event: &str, args: &(impl Serialize + ?Sized)) -> AckEmit {
        self.operator().emit_with_ack(event, args)
    }

    /// All sockets of the namespace, from the agreed state.
    pub fn fetch_sockets(&self) -> Vec<RemoteSocket> {
        self.operator().fetch_sockets()
    }

    /// The ids of all sockets of the namespace, from the agreed state.
    pub fn all_sockets(&self) -> Vec<SocketId> {
        self.operator().all_sockets()
    }

    /// All sockets of the namespace, with what their owners tell: see [`Operator::fetch_details`].
    pub async fn fetch_details(&self) -> FetchedSockets {
        self.operator().fetch_details().await
    }

    /// Sends an event to the application on every other node that lives: at most once, behind
    /// those that went to the same node before.
    pub fn server_side_emit(
        &self,
        event: &str,
        args: &(impl Serialize + ?Sized),
    ) -> Result<(), EmitError> {
        server_side::emit(&self.0.adapter, event, args)
    }

    /// The same, with one answer from each of them. A node that has none, or none in time, makes
    /// the answers partial; one that dies meanwhile is not waited for.
    pub fn server_side_emit_with_ack(
        &self,
        event: &str,
        args: &(impl Serialize + ?Sized),
    ) -> AckEmit {
        server_side::emit_with_ack(&self.0.adapter, event, args)
    }

    pub fn sockets_join(&self, rooms: impl IntoRooms) -> Agreed {
        self.operator().sockets_join(rooms)
    }

    pub fn sockets_leave(&self, rooms: impl IntoRooms) -> Agreed {
        self.operator().sockets_leave(rooms)
    }

    pub fn disconnect_sockets(&self, close: bool) -> Agreed {
        self.operator().disconnect_sockets(close)
    }
}

impl std::fmt::Debug for NamespaceHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("NamespaceHandle").field(&self.name()).finish()
    }
}

impl Deref for NamespaceInner {
    type Target = Adapter;

    fn deref(&self) -> &Adapter {
        &self.adapter
    }
}
