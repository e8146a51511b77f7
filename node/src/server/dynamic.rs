//! Namespaces that come into being when a client asks for them.

use std::collections::HashMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};

use bytestring::ByteString;
use futures_util::FutureExt as _;
use regex::Regex;
use serde::Serialize;
use serde_json::Value;
use tracing::error;

use super::Handler;
use super::handler;
use super::io::Io;
use super::middleware::ConnectError;
use super::namespace::{Handlers, NamespaceHandle, NamespaceInner, Registry};
use super::operator::{IntoRooms, Operator};
use super::receipts::Agreed;
use super::server_side::ServerEvent;
use super::socket::Socket;
use crate::adapter::{DeliveryMode, Outbox};

/// The text is no regular expression.
#[derive(Debug, thiserror::Error)]
#[error("invalid pattern of namespaces")]
pub struct InvalidPattern(#[from] regex::Error);

type Allowed = Pin<Box<dyn Future<Output = bool> + Send>>;

/// Which names a parent makes children for.
pub(crate) enum Rule {
    Pattern(Regex),
    When(Box<dyn Fn(String, Value) -> Allowed + Send + Sync>),
}

impl Rule {
    pub(crate) fn when<F, Fut>(allows: F) -> Self
    where
        F: Fn(String, Value) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = bool> + Send + 'static,
    {
        Self::When(Box::new(move |name, auth| Box::pin(allows(name, auth))))
    }

    async fn allows(&self, name: &str, auth: Option<&ByteString>) -> bool {
        match self {
            Self::Pattern(pattern) => pattern.is_match(name),
            Self::When(allows) => {
                let auth = auth.and_then(|auth| serde_json::from_str(auth).ok());
                let auth = auth.unwrap_or_default();
                let asked = AssertUnwindSafe(async { allows(name.to_owned(), auth).await });
                asked.catch_unwind().await.unwrap_or_else(|_panic| {
                    error!("a predicate of dynamic namespaces panicked");
                    false
                })
            }
        }
    }
}

pub(crate) struct ParentInner {
    pub(crate) rule: Rule,
    registry: Registry,
    mode: Mutex<DeliveryMode>,
    /// Those that were made and are in use.
    children: Mutex<HashMap<ByteString, Weak<NamespaceInner>>>,
}

impl ParentInner {
    pub(crate) fn new(rule: Rule) -> Self {
        Self {
            rule,
            registry: Registry::default(),
            mode: Mutex::default(),
            children: Mutex::default(),
        }
    }

    /// Whether a name that the application gives is one of its own.
    pub(crate) fn matches(&self, name: &str) -> bool {
        matches!(&self.rule, Rule::Pattern(pattern) if pattern.is_match(name))
    }

    /// What a child begins with.
    pub(crate) fn handlers(&self) -> Handlers {
        Handlers::clone(&self.registry.handlers())
    }

    pub(super) fn registry(&self) -> &Registry {
        &self.registry
    }

    pub(crate) fn mode(&self) -> DeliveryMode {
        *self.mode.lock().expect("nothing panics while it holds the mode")
    }

    pub(crate) fn adopt(&self, child: &Arc<NamespaceInner>) {
        self.children().insert(child.name().clone(), Arc::downgrade(child));
    }

    pub(crate) fn lose(&self, name: &str) {
        self.children().remove(name);
    }

    fn children(&self) -> MutexGuard<'_, HashMap<ByteString, Weak<NamespaceInner>>> {
        self.children.lock().expect("nothing panics while it holds the children")
    }
}

impl Io {
    /// The parent that was made for this very pattern.
    pub(crate) fn parent_of_pattern(&self, pattern: &str) -> Option<ParentNamespace> {
        let is_it = |parent: &&Arc<ParentInner>| matches!(&parent.rule, Rule::Pattern(known) if known.as_str() == pattern);
        self.parents().iter().find(is_it).cloned().map(ParentNamespace)
    }
}

/// The search for the parent of a name that a client asks for.
///
/// Predicates may wait; the connection, which owns this, is nudged when the search is over.
pub(crate) struct Search {
    pub(crate) name: ByteString,
    pub(crate) auth: Option<ByteString>,
    found: Arc<OnceLock<Option<Arc<ParentInner>>>>,
}

impl Search {
    /// Asks the parents in the order of their registration; the first that allows it is found.
    pub(crate) fn start(
        io: &Io,
        name: ByteString,
        auth: Option<ByteString>,
        outbox: Arc<Outbox>,
    ) -> Self {
        let found = Arc::new(OnceLock::new());
        let (parents, place) = (io.parents(), found.clone());
        let (asked, sent) = (name.clone(), auth.clone());
        let search = async move {
            let mut first = None;
            for parent in parents.iter() {
                if parent.rule.allows(&asked, sent.as_ref()).await {
                    first = Some(parent.clone());
                    break;
                }
            }
            // It is set here alone.
            let _ = place.set(first);
            outbox.nudge();
        };
        handler::run_in_place(Box::pin(search), io.cluster());
        Self { name, auth, found }
    }

    /// `None` while it goes on; then the parent, if there is one.
    pub(crate) fn result(&self) -> Option<Option<Arc<ParentInner>>> {
        self.found.get().cloned()
    }
}

/// A parent of dynamic namespaces. Each child begins with the handlers and middleware that the
/// parent has then; what is emitted here goes to this node's children as they are now, each of
/// which reaches its sockets on all nodes.
#[derive(Clone)]
pub struct ParentNamespace(pub(crate) Arc<ParentInner>);

impl ParentNamespace {
    /// Has children deliver this way, unless the configuration names them.
    pub fn delivery(&self, mode: DeliveryMode) -> &Self {
        *self.0.mode.lock().expect("nothing panics while it holds the mode") = mode;
        self
    }

    /// As [`NamespaceHandle::on_connect`], for children made from now on; so are the others.
    pub fn on_connect<Args>(&self, handler: impl Handler<Args>) -> &Self {
        self.0.registry.on_connect(handler);
        self
    }

    pub fn on<Args>(&self, event: &str, handler: impl Handler<Args>) -> &Self {
        self.0.registry.on(event, handler);
        self
    }

    pub fn on_disconnecting<Args>(&self, handler: impl Handler<Args>) -> &Self {
        self.0.registry.on_disconnecting(handler);
        self
    }

    pub fn on_disconnect<Args>(&self, handler: impl Handler<Args>) -> &Self {
        self.0.registry.on_disconnect(handler);
        self
    }

    pub fn on_error<Args>(&self, handler: impl Handler<Args>) -> &Self {
        self.0.registry.on_error(handler);
        self
    }

    pub fn on_server_event<F, Fut>(&self, event: &str, handler: F) -> &Self
    where
        F: Fn(ServerEvent) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.0.registry.on_server_event(event, handler);
        self
    }

    pub fn with<F, Fut>(&self, middleware: F) -> &Self
    where
        F: Fn(Socket) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), ConnectError>> + Send + 'static,
    {
        self.0.registry.with(middleware);
        self
    }

    /// The children on this node, by name.
    pub fn children(&self) -> Vec<NamespaceHandle> {
        let mut children: Vec<_> =
            self.0.children().values().filter_map(Weak::upgrade).map(NamespaceHandle).collect();
        children.sort_unstable_by(|a, b| a.name().cmp(b.name()));
        children
    }

    /// The sockets of all children.
    pub fn operator(&self) -> ParentOperator {
        ParentOperator(self.children().iter().map(NamespaceHandle::operator).collect())
    }

    pub fn to(&self, rooms: impl IntoRooms) -> ParentOperator {
        self.operator().to(rooms)
    }

    pub fn except(&self, rooms: impl IntoRooms) -> ParentOperator {
        self.operator().except(rooms)
    }

    /// Sends an event to the sockets of all children.
    pub fn emit(&self, event: &str, args: &(impl Serialize + ?Sized)) -> Agreed {
        self.operator().emit(event, args)
    }
}

/// Sockets of all children of a parent. There is no way to fetch them, as with the official server:
/// that is asked of each child.
#[derive(Clone)]
pub struct ParentOperator(Vec<Operator>);

impl ParentOperator {
    pub fn to(self, rooms: impl IntoRooms) -> Self {
        let rooms = rooms.into_rooms();
        self.each(|operator| operator.to(rooms.clone()))
    }

    pub fn except(self, rooms: impl IntoRooms) -> Self {
        let rooms = rooms.into_rooms();
        self.each(|operator| operator.except(rooms.clone()))
    }

    pub fn local(self) -> Self {
        self.each(Operator::local)
    }

    pub fn volatile(self) -> Self {
        self.each(Operator::volatile)
    }

    pub fn compress(self, compress: bool) -> Self {
        self.each(|operator| operator.compress(compress))
    }

    /// Awaited, it is `Ok` once all children's emits are; otherwise the first error there was.
    pub fn emit(self, event: &str, args: &(impl Serialize + ?Sized)) -> Agreed {
        self.0.into_iter().map(|operator| operator.emit(event, args)).collect()
    }

    fn each(self, step: impl Fn(Operator) -> Operator) -> Self {
        Self(self.0.into_iter().map(step).collect())
    }
}
