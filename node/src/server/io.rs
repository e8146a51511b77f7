//! The server: namespaces, and a client for each new connection.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, RwLock, Weak};

use arc_swap::ArcSwap;
use bytestring::ByteString;
use futures_util::future::BoxFuture;
use http::request::Parts;
use regex::Regex;
use serde::Serialize;
use serde_json::Value;
use tokio::time::Instant;
use tracing::error;

use super::connection::Connection;
use super::drafts::Drafts;
use super::dynamic::{InvalidPattern, ParentInner, ParentNamespace, Rule};
use super::gone;
use super::middleware::{self, BoxMiddleware, ConnectError};
use super::namespace::{NamespaceHandle, NamespaceInner};
use super::operator::{IntoRooms, Operator};
use super::receipts::Agreed;
use super::server_side;
use super::session::{Session, SessionConfig, Sessions};
use super::socket::Socket;
use crate::adapter::{Cluster, DeliveryMode, Outbox, RecoveryConfig};
use crate::raft::Status;
use crate::raft::state::SessionId;
use crate::transport::{self, Accept, Admitted, Client, Denied, Engine, Handshake, Refusal};

/// The server, from which everything else is reached. Cheap to clone.
#[derive(Clone)]
pub struct Io(pub(super) Arc<Inner>);

pub(super) struct Inner {
    cluster: Arc<Cluster>,
    namespaces: RwLock<HashMap<ByteString, Arc<NamespaceInner>>>,
    /// In the order of their registration.
    parents: ArcSwap<Vec<Arc<ParentInner>>>,
    new_namespace: ArcSwap<Vec<NewNamespace>>,
    /// Asked before that of any namespace.
    middleware: ArcSwap<Vec<BoxMiddleware>>,
    settings: Settings,
    drafts: Drafts,
    /// Those that clients come back to, if they do.
    sessions: Option<Arc<Sessions>>,
    engine: Arc<Engine>,
    /// What is below, once there is something.
    pub(super) front: OnceLock<Weak<transport::Transport>>,
    pub(super) is_closed: AtomicBool,
    pub(super) socket_gone: Mutex<Option<Arc<gone::Hook>>>,
}

type NewNamespace = Arc<dyn Fn(NamespaceHandle) + Send + Sync>;

/// What the server needs from the configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long a connection may stay without joining a namespace.
    pub connect_timeout: std::time::Duration,
    /// Namespaces whose delivery is configured; the others take what the application asks for.
    pub delivery: HashMap<String, DeliveryMode>,
    /// Whether a dynamic namespace ends on this node with its last socket here.
    pub cleanup_empty_child_namespaces: bool,
    /// Namespaces with connection state recovery.
    pub recovery: HashMap<String, RecoveryConfig>,
    /// How clients come back to their sessions, if they do.
    pub session: SessionConfig,
}

/// One socket's stay in a dynamic namespace, from before its middleware until it has left.
pub(crate) struct Stay {
    io: Io,
    namespace: Arc<NamespaceInner>,
}

impl Drop for Stay {
    fn drop(&mut self) {
        if self.namespace.stays.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.io.remove_child(&self.namespace);
        }
    }
}

impl Io {
    pub fn new(cluster: Arc<Cluster>, settings: Settings) -> Self {
        let questions = cluster.questions();
        let io = Self(Arc::new(Inner {
            cluster,
            namespaces: RwLock::default(),
            parents: ArcSwap::default(),
            new_namespace: ArcSwap::default(),
            middleware: ArcSwap::default(),
            sessions: settings
                .session
                .is_on()
                .then(|| Arc::new(Sessions::new(settings.session.clone()))),
            drafts: Drafts::new(settings.session.max_bytes),
            settings,
            engine: Arc::default(),
            front: OnceLock::new(),
            is_closed: AtomicBool::new(false),
            socket_gone: Mutex::default(),
        }));
        if let Some(questions) = questions {
            io.cluster().spawn(server_side::answer_questions(io.clone(), questions));
        }
        io
    }

    /// A namespace, which clients can connect to from then on. Its delivery is the configured
    /// one, else replicated. A name that a [pattern](Self::of_pattern) matches is a child of it.
    pub fn of(&self, name: &str) -> NamespaceHandle {
        self.of_mode(name, DeliveryMode::default())
    }

    /// A namespace whose delivery is `mode` unless the configuration says otherwise.
    pub fn of_mode(&self, name: &str, mode: DeliveryMode) -> NamespaceHandle {
        self.open(name, mode, None)
    }

    /// A namespace whose clients may lose their connection and come back to their sockets, on
    /// whatever node; `recovery` holds unless the configuration says otherwise. All nodes must
    /// say the same.
    pub fn of_recoverable(&self, name: &str, recovery: RecoveryConfig) -> NamespaceHandle {
        self.open(name, DeliveryMode::Replicated, Some(recovery))
    }

    fn open(
        &self,
        name: &str,
        mode: DeliveryMode,
        recovery: Option<RecoveryConfig>,
    ) -> NamespaceHandle {
        if let Some(inner) = self.namespace(name) {
            return NamespaceHandle(inner);
        }
        let parent = self.parents().iter().find(|parent| parent.matches(name)).cloned();
        let mode = parent.as_ref().map_or(mode, |parent| parent.mode());
        NamespaceHandle(self.make(name, mode, recovery, parent, |inner| inner.clone()))
    }

    /// Namespaces whose names match a regular expression, each made when the first client asks
    /// for it. Parents are asked in the order of their registration; the first that allows a name
    /// has it.
    pub fn of_pattern(&self, pattern: &str) -> Result<ParentNamespace, InvalidPattern> {
        Ok(self.add_parent(Rule::Pattern(Regex::new(pattern)?)))
    }

    /// Namespaces that a predicate of the name and of what the client sent with its CONNECT
    /// (`null` if nothing) allows. It is asked by each client until one has made the namespace.
    pub fn of_when<F, Fut>(&self, allows: F) -> ParentNamespace
    where
        F: Fn(String, Value) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = bool> + Send + 'static,
    {
        self.add_parent(Rule::when(allows))
    }

    fn add_parent(&self, rule: Rule) -> ParentNamespace {
        let parent = Arc::new(ParentInner::new(rule));
        self.0.parents.rcu(|parents| {
            let mut parents = Vec::clone(parents);
            parents.push(parent.clone());
            parents
        });
        ParentNamespace(parent)
    }

    /// Tells `hook` of each namespace that is made from now on, `/` excepted, before its first
    /// client is let in.
    pub fn on_new_namespace(&self, hook: impl Fn(NamespaceHandle) + Send + Sync + 'static) {
        let hook: NewNamespace = Arc::new(hook);
        self.0.new_namespace.rcu(|hooks| {
            let mut hooks = Vec::clone(hooks);
            hooks.push(hook.clone());
            hooks
        });
    }

    /// Asks `middleware` about every client that wants into any namespace, before the namespace's
    /// own.
    pub fn with<F, Fut>(&self, middleware: F) -> &Self
    where
        F: Fn(Socket) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), ConnectError>> + Send + 'static,
    {
        let middleware = middleware::boxed(middleware);
        self.0.middleware.rcu(|all| {
            let mut all = Vec::clone(all);
            all.push(middleware.clone());
            all
        });
        self
    }

    pub(crate) fn middleware(&self) -> Vec<BoxMiddleware> {
        Vec::clone(&self.0.middleware.load())
    }

    /// The namespace, made if it is not there, as `take` takes it while none can be removed.
    fn make<R>(
        &self,
        name: &str,
        mode: DeliveryMode,
        recovery: Option<RecoveryConfig>,
        parent: Option<Arc<ParentInner>>,
        take: impl FnOnce(&Arc<NamespaceInner>) -> R,
    ) -> R {
        let recovery = self.0.settings.recovery.get(name).copied().or(recovery);
        let mode = self.0.settings.delivery.get(name).copied().unwrap_or(mode);
        let mut namespaces =
            self.0.namespaces.write().expect("nothing panics while it holds the namespaces");
        if let Some(inner) = namespaces.get(name) {
            return take(inner);
        }
        let name = ByteString::from(name.to_owned());
        let adapter = self.0.cluster.recoverable_adapter(&name, mode, recovery);
        let inner = Arc::new(NamespaceInner::new(adapter, parent));
        if let Some(parent) = &inner.parent {
            parent.adopt(&inner);
        }
        namespaces.insert(name, inner.clone());
        let taken = take(&inner);
        drop(namespaces);
        self.tell_new(&inner);
        taken
    }

    /// Clients that come to it meanwhile wait: middleware that a hook adds must see them too.
    fn tell_new(&self, inner: &Arc<NamespaceInner>) {
        let namespace = NamespaceHandle(inner.clone());
        if namespace.name() != "/" {
            for hook in self.0.new_namespace.load().iter() {
                if catch_unwind(AssertUnwindSafe(|| hook(namespace.clone()))).is_err() {
                    error!("a hook for new namespaces panicked");
                }
            }
        }
        // It is set here alone.
        let _ = inner.told.set(());
    }

    /// All sockets of `/`, on all nodes.
    pub fn operator(&self) -> Operator {
        self.of("/").operator()
    }

    pub fn to(&self, rooms: impl IntoRooms) -> Operator {
        self.operator().to(rooms)
    }

    pub fn except(&self, rooms: impl IntoRooms) -> Operator {
        self.operator().except(rooms)
    }

    /// Sends an event to all sockets of `/`.
    pub fn emit(&self, event: &str, args: &(impl Serialize + ?Sized)) -> Agreed {
        self.operator().emit(event, args)
    }

    /// The door to this node: middleware, handshakes, headers, refusals.
    pub fn engine(&self) -> &Engine {
        &self.0.engine
    }

    /// A session, of whatever client on whatever node.
    ///
    /// Where clients come back to theirs, one that this node does not know is over, and takes no
    /// writes. What another node has only just made is known once it was
    /// [reloaded](Session::reload).
    pub fn session(&self, id: SessionId) -> Session {
        match self.sessions() {
            Some(sessions) => Session::held(sessions.known(id), self.clone()),
            None => Session::new(id, self.clone()),
        }
    }

    pub(crate) fn namespace(&self, name: &str) -> Option<Arc<NamespaceInner>> {
        self.0
            .namespaces
            .read()
            .expect("nothing panics while it holds the namespaces")
            .get(name)
            .cloned()
    }

    pub(crate) fn parents(&self) -> Arc<Vec<Arc<ParentInner>>> {
        self.0.parents.load_full()
    }

    /// A namespace that a client asks for, if it is there.
    pub(crate) fn enter(&self, name: &str) -> Option<(Arc<NamespaceInner>, Option<Stay>)> {
        let namespaces =
            self.0.namespaces.read().expect("nothing panics while it holds the namespaces");
        let inner = namespaces.get(name)?.clone();
        let stay = self.stay(&inner);
        drop(namespaces);
        inner.told.wait();
        Some((inner, stay))
    }

    /// The same, made as a child of `parent` unless another client was faster.
    pub(crate) fn enter_child(
        &self,
        name: &str,
        parent: &Arc<ParentInner>,
    ) -> (Arc<NamespaceInner>, Option<Stay>) {
        let take = |inner: &Arc<NamespaceInner>| (inner.clone(), self.stay(inner));
        let (inner, stay) = self.make(name, parent.mode(), None, Some(parent.clone()), take);
        inner.told.wait();
        (inner, stay)
    }

    /// Counts a socket in, if that decides how long the namespace lives. Called under the lock of
    /// the namespaces.
    fn stay(&self, namespace: &Arc<NamespaceInner>) -> Option<Stay> {
        let counts = self.0.settings.cleanup_empty_child_namespaces && namespace.parent.is_some();
        counts.then(|| {
            namespace.stays.fetch_add(1, Ordering::AcqRel);
            Stay { io: self.clone(), namespace: namespace.clone() }
        })
    }

    /// Ends a child whose last socket has left, unless another one has come.
    fn remove_child(&self, namespace: &Arc<NamespaceInner>) {
        let mut namespaces =
            self.0.namespaces.write().expect("nothing panics while it holds the namespaces");
        let name = namespace.name();
        let is_known = namespaces.get(name).is_some_and(|known| Arc::ptr_eq(known, namespace));
        if is_known && namespace.stays.load(Ordering::Acquire) == 0 {
            namespaces.remove(name);
            self.0.cluster.retire(&namespace.adapter);
            if let Some(parent) = &namespace.parent {
                parent.lose(name);
            }
        }
    }

    /// The namespaces that are there on this node, in the order of their names.
    pub fn namespaces(&self) -> Vec<NamespaceHandle> {
        let namespaces =
            self.0.namespaces.read().expect("nothing panics while it holds the namespaces");
        let mut handles: Vec<_> = namespaces.values().cloned().map(NamespaceHandle).collect();
        drop(namespaces);
        handles.sort_unstable_by(|a, b| a.name().cmp(b.name()));
        handles
    }

    /// Whether a namespace is there, made by the application or for a client.
    pub fn has_namespace(&self, name: &str) -> bool {
        self.namespace(name).is_some()
    }

    pub(crate) fn cluster(&self) -> &Arc<Cluster> {
        &self.0.cluster
    }

    pub(crate) fn sessions(&self) -> Option<&Arc<Sessions>> {
        self.0.sessions.as_ref()
    }

    pub(crate) fn drafts(&self) -> &Drafts {
        &self.0.drafts
    }
}

impl Accept for Io {
    fn ready(&self) -> Result<(), Refusal> {
        if self.0.is_closed.load(Ordering::Relaxed) {
            return Err(Refusal::Draining);
        }
        let status = *self.0.cluster.raft().status().borrow();
        match status {
            Status::Ready => Ok(()),
            Status::Draining => Err(Refusal::Draining),
            Status::Starting | Status::Fenced | Status::Down => Err(Refusal::NoQuorum),
        }
    }

    fn accept(&self, handshake: Arc<Handshake>, outbox: Arc<Outbox>) -> Box<dyn Client> {
        let connect_by = Instant::now() + self.0.settings.connect_timeout;
        Box::new(Connection::new(self.clone(), handshake, outbox, connect_by))
    }

    fn engine(&self) -> Arc<Engine> {
        Arc::clone(&self.0.engine)
    }

    fn admits(&self) -> bool {
        self.sessions().is_some()
    }

    fn admit(&self, request: Parts) -> BoxFuture<'static, Result<Admitted, Denied>> {
        let io = self.clone();
        Box::pin(async move {
            match io.sessions() {
                Some(sessions) => sessions.admit(&io, &request).await,
                None => Ok(Admitted::default()),
            }
        })
    }
}

impl std::fmt::Debug for Io {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Io").finish_non_exhaustive()
    }
}
