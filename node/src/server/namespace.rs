//! A namespace: its handlers, its middleware, and its sockets on all nodes.

use std::collections::HashMap;
use std::future::Future;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use serde::Serialize;

use super::ack::AckEmit;
use super::handler::{BoxHandler, Handler, boxed};
use super::middleware::{self, BoxMiddleware, ConnectError};
use super::operator::{IntoRooms, Operator, RemoteSocket};
use super::receipts::Agreed;
use super::socket::Socket;
use crate::adapter::Adapter;

/// What an application registered for a namespace. Handlers are shared by all its sockets, so
/// that a socket without handlers of its own costs nothing for them.
#[derive(Clone, Default)]
pub(crate) struct Handlers {
    pub(crate) connect: Option<BoxHandler>,
    pub(crate) disconnecting: Option<BoxHandler>,
    pub(crate) disconnect: Option<BoxHandler>,
    pub(crate) events: HashMap<Box<str>, BoxHandler, foldhash::fast::RandomState>,
    pub(crate) middleware: Vec<BoxMiddleware>,
}

pub(crate) struct NamespaceInner {
    pub(crate) adapter: Arc<Adapter>,
    /// Read for every event, and changed hardly ever.
    handlers: ArcSwap<Handlers>,
    /// Held while the handlers are replaced.
    registering: Mutex<()>,
}

impl NamespaceInner {
    pub(crate) fn new(adapter: Arc<Adapter>) -> Self {
        Self { adapter, handlers: ArcSwap::default(), registering: Mutex::default() }
    }

    /// The handlers as they are now; others may be registered meanwhile.
    pub(crate) fn handlers(&self) -> Guard<Arc<Handlers>> {
        self.handlers.load()
    }

    fn register(&self, register: impl FnOnce(&mut Handlers)) {
        let _guard = self.registering.lock().unwrap_or_else(PoisonError::into_inner);
        let mut handlers = Handlers::clone(&self.handlers.load());
        register(&mut handlers);
        self.handlers.store(Arc::new(handlers));
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
        self.0.register(|handlers| handlers.connect = Some(boxed(handler)));
        self
    }

    /// Runs for each event of that name, in the order in which a client's events came. A later
    /// handler for the name replaces this one; a socket's own handler comes first.
    pub fn on<Args>(&self, event: &str, handler: impl Handler<Args>) -> &Self {
        self.0.register(|handlers| {
            handlers.events.insert(event.into(), boxed(handler));
        });
        self
    }

    /// Runs when a socket is about to leave, its rooms still known; takes a [`Reason`](super::Reason).
    pub fn on_disconnecting<Args>(&self, handler: impl Handler<Args>) -> &Self {
        self.0.register(|handlers| handlers.disconnecting = Some(boxed(handler)));
        self
    }

    /// Runs when a socket has left; takes a [`Reason`](super::Reason).
    pub fn on_disconnect<Args>(&self, handler: impl Handler<Args>) -> &Self {
        self.0.register(|handlers| handlers.disconnect = Some(boxed(handler)));
        self
    }

    /// Asks `middleware`, after those registered before, whether a client may connect.
    pub fn with<F, Fut>(&self, middleware: F) -> &Self
    where
        F: Fn(Socket) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), ConnectError>> + Send + 'static,
    {
        self.0.register(|handlers| handlers.middleware.push(middleware::boxed(middleware)));
        self
    }

    /// All sockets of the namespace, on all nodes.
    pub fn operator(&self) -> Operator {
        Operator::new(self.0.adapter.clone())
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

    /// All sockets, with a limit for their answers: see [`Operator::timeout`].
    pub fn timeout(&self, timeout: Duration) -> Operator {
        self.operator().timeout(timeout)
    }

    /// Sends an event to all sockets of the namespace.
    pub fn emit(&self, event: &str, args: &(impl Serialize + ?Sized)) -> Agreed {
        self.operator().emit(event, args)
    }

    /// Sends an event that all sockets of the namespace answer.
    pub fn emit_with_ack(&self, event: &str, args: &(impl Serialize + ?Sized)) -> AckEmit {
        self.operator().emit_with_ack(event, args)
    }

    /// All sockets of the namespace, from the agreed state.
    pub fn fetch_sockets(&self) -> Vec<RemoteSocket> {
        self.operator().fetch_sockets()
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

impl Deref for NamespaceInner {
    type Target = Adapter;

    fn deref(&self) -> &Adapter {
        &self.adapter
    }
}
