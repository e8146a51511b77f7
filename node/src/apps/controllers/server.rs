//! The server of an application of controllers: what is bound where, and what all of it shares.

use std::any::{Any, TypeId};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use arc_swap::ArcSwap;

use super::controller::{Controller, Matcher};
use super::discovery;
use super::index::Index;
use super::instance::{Binding, Instance};
use super::sequence::{AnySequence, DefaultSequence, Sequence};
use super::waiting::Bounds;
use crate::server::{
    Companion, ConnectError, InvalidPattern, Io, NamespaceHandle, ParentNamespace, Socket,
};

/// Binds controllers to the namespaces of a node. Cheap to clone.
#[derive(Clone)]
pub struct SocketServer {
    io: Io,
    shared: Arc<Shared>,
}

/// What the controllers of a server share. Namespaces keep it, so that it must not keep them.
pub(super) struct Shared {
    sequence: ArcSwap<Arc<dyn AnySequence>>,
    registry: Mutex<Registry>,
}

/// Looked at when something is registered or a socket connects, and for each [`State`](super::State).
#[derive(Default)]
struct Registry {
    states: HashMap<TypeId, Arc<dyn Any + Send + Sync>>,
    /// Controllers that [`discover_and_register`](SocketServer::discover_and_register) leaves alone.
    registered: HashSet<TypeId>,
    /// The namespaces of controllers that give theirs a name.
    names: HashMap<&'static str, String>,
    limit: Option<Duration>,
    bounds: Bounds,
}

/// How long connect handlers may take, unless the application says otherwise.
const CONNECT_LIMIT: Duration = Duration::from_secs(30);

/// Why a controller cannot be bound.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    #[error("the namespaces of {controller}")]
    Namespace { controller: &'static str, source: InvalidPattern },
    #[error("the events that {controller} subscribes to")]
    Events { controller: &'static str, source: regex::Error },
}

/// Where a controller was bound.
#[derive(Clone)]
pub enum Routed {
    Namespace(NamespaceHandle),
    /// The parent of all namespaces that match.
    Pattern(ParentNamespace),
}

impl Routed {
    /// Asks `middleware`, after those registered before, whether a client may connect.
    pub fn with<F, Fut>(&self, middleware: F) -> &Self
    where
        F: Fn(Socket) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), ConnectError>> + Send + 'static,
    {
        match self {
            Self::Namespace(namespace) => {
                namespace.with(middleware);
            }
            Self::Pattern(parent) => {
                parent.with(middleware);
            }
        }
        self
    }
}

impl SocketServer {
    /// A server on the namespaces of `io`, beside whatever else the application has there.
    pub fn new(io: &Io) -> Self {
        let sequence: Arc<dyn AnySequence> = Arc::new(DefaultSequence);
        let sequence = ArcSwap::from_pointee(sequence);
        let shared = Shared { sequence, registry: Mutex::default() };
        Self { io: io.clone(), shared: Arc::new(shared) }
    }

    pub fn io(&self) -> &Io {
        &self.io
    }

    /// Binds a controller to the namespace that its attribute names. Sockets that connect from
    /// then on have an instance.
    pub fn controller<C: Controller>(&self) -> Result<Routed, RouteError> {
        self.shared.registry().registered.insert(TypeId::of::<C>());
        self.route::<C>(C::namespace())
    }

    /// Binds a controller to `namespace`, in place of the one that its attribute names. A controller
    /// that is bound to a namespace twice has two instances for each socket.
    pub fn route<C: Controller>(
        &self,
        namespace: impl Into<Matcher>,
    ) -> Result<Routed, RouteError> {
        let description = C::description();
        let index = Index::new(&description.subscriptions)
            .map_err(|source| RouteError::Events { controller: C::NAME, source })?;
        let routed = self
            .open(namespace.into())
            .map_err(|source| RouteError::Namespace { controller: C::NAME, source })?;
        let binding = Arc::new(Binding { description, index, shared: self.shared.clone() });
        let make =
            move |socket: &Socket| -> Arc<dyn Companion> { Instance::start(&binding, socket) };
        match &routed {
            Routed::Namespace(namespace) => {
                namespace.accompany(Arc::new(make));
                if let Some(name) = C::namespace_name() {
                    self.shared.registry().names.insert(name, namespace.name().to_owned());
                }
            }
            Routed::Pattern(parent) => parent.accompany(Arc::new(make)),
        }
        Ok(routed)
    }

    fn open(&self, namespace: Matcher) -> Result<Routed, InvalidPattern> {
        match namespace {
            Matcher::Name(name) => Ok(Routed::Namespace(self.io.of(&name))),
            Matcher::Pattern(pattern) => {
                // The first parent that matches a name has it: another one of the same pattern
                // would never see a socket.
                let parent = match self.io.parent_of_pattern(&pattern) {
                    Some(parent) => parent,
                    None => self.io.of_pattern(&pattern)?,
                };
                Ok(Routed::Pattern(parent))
            }
        }
    }

    /// Binds every type of the program that has the attribute `#[controller]`, is not generic, and has not been
    /// bound by [`controller`](Self::controller); their names, in the order of which they are bound.
    pub fn discover_and_register(&self) -> Result<Vec<&'static str>, RouteError> {
        let found = discovery::all();
        let new = found.into_iter().filter(|found| !self.is_registered((found.type_id)()));
        new.map(|found| (found.register)(self).map(|_routed| found.name)).collect()
    }

    fn is_registered(&self, controller: TypeId) -> bool {
        self.shared.registry().registered.contains(&controller)
    }

    /// The namespace of the controller whose attribute gives it this name.
    pub fn namespace(&self, name: &str) -> Option<NamespaceHandle> {
        let path = self.shared.registry().names.get(name).cloned()?;
        Some(self.io.of(&path))
    }

    /// Asks `middleware` about each client that wants into `/`, as LoopBack's `use` does. For another
    /// namespace there is [`Routed::with`].
    pub fn with<F, Fut>(&self, middleware: F) -> &Self
    where
        F: Fn(Socket) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), ConnectError>> + Send + 'static,
    {
        self.io.of("/").with(middleware);
        self
    }

    /// Asks `middleware` about each client that wants into any namespace, before the namespace's
    /// own: nobody gets around it.
    pub fn with_everywhere<F, Fut>(&self, middleware: F) -> &Self
    where
        F: Fn(Socket) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), ConnectError>> + Send + 'static,
    {
        self.io.with(middleware);
        self
    }

    /// Has all events go through another sequence, from the next one on.
    pub fn sequence(&self, sequence: impl Sequence) -> &Self {
        self.shared.sequence.store(Arc::new(Arc::new(sequence)));
        self
    }

    /// Keeps a value for handlers that ask for a [`State`](super::State) of its type; one for each
    /// type.
    pub fn state<T: Send + Sync + 'static>(&self, value: T) -> &Self {
        self.shared.registry().states.insert(TypeId::of::<T>(), Arc::new(value));
        self
    }

    /// How long creating a controller and its connect handlers may take together before the
    /// socket is disconnected; 30 seconds unless it is said.
    pub fn connect_limit(&self, limit: Duration) -> &Self {
        self.shared.registry().limit = Some(limit);
        self
    }

    /// How many events of a socket, and how many bytes of them, may wait for its connect handlers:
    /// 256 and 1 MiB unless it is said. Those beyond are refused, with an error in their ack.
    pub fn waiting(&self, events: usize, bytes: usize) -> &Self {
        self.shared.registry().bounds = Bounds { events, bytes };
        self
    }

    pub(super) fn of(socket: &Socket, shared: Arc<Shared>) -> Self {
        Self { io: socket.io(), shared }
    }

    pub(super) fn find_state<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        let state = self.shared.registry().states.get(&TypeId::of::<T>())?.clone();
        state.downcast().ok()
    }
}

impl Shared {
    pub(super) fn sequence(&self) -> Arc<dyn AnySequence> {
        Arc::clone(&self.sequence.load())
    }

    pub(super) fn limit(&self) -> Duration {
        self.registry().limit.unwrap_or(CONNECT_LIMIT)
    }

    pub(super) fn bounds(&self) -> Bounds {
        self.registry().bounds
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().expect("nothing panics while it holds the registry")
    }
}

impl fmt::Debug for SocketServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SocketServer").finish_non_exhaustive()
    }
}
