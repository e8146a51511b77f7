//! Exported functions and constants, subscriptions with queries: the API registry of api.io.

mod connected;
mod function;
#[doc(hidden)]
pub mod glue;
mod hooks;
mod queries;
mod query;
mod registry;
mod subscribers;
mod subscriptions;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;
use serde_json::json;

pub use function::ApiError;
pub use hooks::Refusal;
pub use query::{Query, QueryError, QueryLimits, Work};
pub use registry::{Exports, RegisterError};
pub use subscriptions::{SubscriptionError, SubscriptionLimits};

use crate::server::{Agreed, Io, NamespaceHandle, Socket};
use hooks::Hooks;
use queries::Queries;
use registry::Definitions;
use subscribers::Subscribers;

#[cfg(doctest)]
#[doc = include_str!("../../../../docs/api.md")]
mod tutorial {}

/// Makes an `impl` block what clients may call: its type becomes [`Exports`], to be
/// [registered](Api::register).
///
/// ```
/// use flotilla::apps::api::{Api, ApiError, ApiHandle, RegisterError, api};
/// use flotilla::server::Session;
///
/// struct MyApi {
///     greeting: String,
/// }
///
/// #[api]
/// impl MyApi {
///     #[export]
///     const VALUE: &'static str = "const";
///
///     #[export]
///     fn sum(a: f64, b: f64) -> f64 {
///         a + b
///     }
///
///     #[export("sayHello")]
///     async fn say_hello(&self, my_api: ApiHandle, session: Session) -> Result<(), ApiError> {
///         let name = session.get().get("username").cloned();
///         Ok(my_api.emit("hello", &(&self.greeting, name)).await?)
///     }
/// }
///
/// fn register(api: &Api) -> Result<(), RegisterError> {
///     api.register("myApi", MyApi { greeting: "Hello".to_owned() })?;
///     Ok(())
/// }
/// ```
///
/// | | |
/// | --- | --- |
/// | `#[export]` on a function | clients call it by its name; with `&self` it has the instance, which all calls share |
/// | `#[export]` on a constant | clients read it by its name |
/// | `#[export("nameForClients")]` | the same, by another name |
/// | a parameter that can be [extracted](crate::server::FromContext), like `Session`, `Socket` or [`ApiHandle`] | is injected |
/// | any other parameter | is the client's argument of that name; an `Option` may be left out |
/// | `Result<T, E>` | the error's text rejects the client's promise |
///
/// What is not exported is not known to clients. A signature that no call can fill does not
/// compile:
///
/// ```compile_fail
/// # use flotilla::apps::api::api;
/// # struct MyApi;
/// #[api]
/// impl MyApi {
///     // Nobody can send a thread.
///     #[export]
///     fn join(thread: std::thread::Thread) {}
/// }
/// ```
pub use flotilla_macros::api;

/// An API registry on one namespace of this node. Cheap to clone.
///
/// Its wire is that of api.io 1.0.3, whose own client connects to `/`. Each node registers the same
/// exports; what is emitted on one reaches the subscribers on all.
#[derive(Clone)]
pub struct Api(Arc<Inner>);

struct Inner {
    namespace: NamespaceHandle,
    definitions: ArcSwap<Definitions>,
    hooks: Hooks,
    limits: SubscriptionLimits,
    queries: Arc<Queries>,
    is_stopped: AtomicBool,
}

impl Api {
    /// On `/`, where api.io's client looks for it.
    pub fn new(io: &Io) -> Self {
        Self::on(&io.of("/"))
    }

    /// On a namespace, which may have handlers of its own beside.
    pub fn on(namespace: &NamespaceHandle) -> Self {
        Self::with_limits(namespace, SubscriptionLimits::default())
    }

    /// The same, with bounds for what a client may subscribe to. All nodes must have the same.
    pub fn with_limits(namespace: &NamespaceHandle, limits: SubscriptionLimits) -> Self {
        let queries = Arc::new(Queries::new(limits.query));
        let api = Self(Arc::new(Inner {
            namespace: namespace.clone(),
            definitions: ArcSwap::default(),
            hooks: Hooks::default(),
            limits,
            queries: queries.clone(),
            is_stopped: AtomicBool::new(false),
        }));
        let subscribers = Arc::new(Subscribers::new(queries));
        namespace.project(subscriptions::ROOM_PREFIX, subscribers);
        api.serve();
        api
    }

    /// Exports functions and constants under a name, in the place of those that had it before.
    /// Clients that are connected know what there was when they came; new ones see this.
    pub fn register(
        &self,
        name: &str,
        exports: impl Into<Exports>,
    ) -> Result<ApiHandle, RegisterError> {
        let exports = exports.into();
        let mut result = Ok(());
        self.0.definitions.rcu(|definitions| {
            let mut definitions = Definitions::clone(definitions);
            result = definitions.add(name, exports.clone());
            definitions
        });
        result?;
        self.0.hooks.tell_namespace(name);
        Ok(self.handle(name))
    }

    pub fn is_registered(&self, name: &str) -> bool {
        self.0.definitions.load().contains(name)
    }

    /// Takes exports back; whether there were any. Clients that know them get an error for a call.
    pub fn unregister(&self, name: &str) -> bool {
        let mut was_there = false;
        self.0.definitions.rcu(|definitions| {
            let mut definitions = Definitions::clone(definitions);
            was_there = definitions.remove(name);
            definitions
        });
        was_there
    }

    /// What emits to the subscribers of a name's events, whether it is registered or will be.
    pub fn handle(&self, name: &str) -> ApiHandle {
        ApiHandle { api: self.clone(), name: name.into() }
    }

    /// What clients are told of the exports, as JSON.
    pub fn definitions(&self) -> String {
        self.0.definitions.load().json().to_owned()
    }

    /// Serves the [definitions](Self::definitions) to tools at `path` of this node's listener, such
    /// as `/api.io/definitions.json`. With an [`auth_handler`](Self::auth_handler) they are for those
    /// alone whom the [`definitions_handler`](Self::definitions_handler) lets see them; others get
    /// 403 and `{message}`.
    pub fn serve_definitions(&self, io: &Io, path: &str) -> &Self {
        let api = self.clone();
        io.engine().answer(path, move |request| {
            let api = api.clone();
            async move { api.respond(request).await }
        });
        self
    }

    async fn respond(&self, request: Parts) -> Response<Bytes> {
        let (status, body) = match self.0.hooks.judge(request).await {
            Ok(()) => (StatusCode::OK, self.definitions()),
            Err(refusal) => {
                let body = json!({"message": refusal.into_words(false)});
                (StatusCode::FORBIDDEN, body.to_string())
            }
        };
        let mut response = Response::new(body.into());
        *response.status_mut() = status;
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        response
    }

    /// Forgets all exports, lets no more clients in, and disconnects those of this node. What is
    /// emitted after that goes nowhere.
    pub async fn stop(&self) {
        self.0.is_stopped.store(true, Ordering::Release);
        self.0.definitions.store(Arc::default());
        // Those of this node are disconnected even if it cannot be agreed.
        let _ = self.0.namespace.local().disconnect_sockets(true).await;
    }

    /// Runs for each client that connects, and is awaited before it is told of the exports: what
    /// is written to its session here is there for its first call.
    pub fn on_connection<F, Fut>(&self, hook: F) -> &Self
    where
        F: Fn(Socket) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.0.hooks.add_connection(hook);
        self
    }

    /// Runs once for each client that leaves, while its session is there.
    pub fn on_disconnection<F, Fut>(&self, hook: F) -> &Self
    where
        F: Fn(Socket) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.0.hooks.add_disconnection(hook);
        self
    }

    /// Runs for each name that is registered from now on.
    pub fn on_namespace(&self, hook: impl Fn(&str) + Send + Sync + 'static) -> &Self {
        self.0.hooks.add_namespace(hook);
        self
    }

    /// Asks `handler` whether a client may connect; it may write to the client's session. Handlers
    /// that were set before are asked first. From then on the served definitions are not for
    /// everyone either: see [`definitions_handler`](Self::definitions_handler).
    pub fn auth_handler<F, Fut>(&self, handler: F) -> &Self
    where
        F: Fn(Socket) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), Refusal>> + Send + 'static,
    {
        self.0.hooks.is_guarded.store(true, Ordering::Release);
        self.0.namespace.with(hooks::middleware(handler));
        self
    }

    /// Asks `handler` whether a request may see the
    /// [served definitions](Self::serve_definitions); the last one counts. The
    /// [`auth_handler`](Self::auth_handler) is not asked about requests, which have no socket: with
    /// it and without this one nobody sees them.
    pub fn definitions_handler<F, Fut>(&self, handler: F) -> &Self
    where
        F: Fn(Parts) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), Refusal>> + Send + 'static,
    {
        self.0.hooks.set_request(handler);
        self
    }

    fn is_stopped(&self) -> bool {
        self.0.is_stopped.load(Ordering::Acquire)
    }
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").field("namespace", &self.0.namespace).finish_non_exhaustive()
    }
}

/// A name under which something is exported, to emit its events. Cheap to clone. An exported
/// function may ask for the one of its own name.
#[derive(Clone, Debug)]
pub struct ApiHandle {
    api: Api,
    name: Arc<str>,
}

impl ApiHandle {
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sends an event with one argument to its subscribers on all nodes: to those whose query it
    /// matches, once for each name that they subscribe by. An ack that is sent once this is `Ok`
    /// comes after it.
    pub fn emit(&self, event: &str, data: &(impl Serialize + ?Sized)) -> Agreed {
        self.emit_to(event, data, None::<()>)
    }

    /// The same, to those whose session has every key of `filter`, an object of scalars, with a
    /// strictly equal value.
    pub fn emit_filtered(
        &self,
        event: &str,
        data: &(impl Serialize + ?Sized),
        filter: impl Serialize,
    ) -> Agreed {
        self.emit_to(event, data, Some(filter))
    }

    fn emit_to(
        &self,
        event: &str,
        data: &(impl Serialize + ?Sized),
        filter: Option<impl Serialize>,
    ) -> Agreed {
        if self.api.is_stopped() {
            // There is nobody: it is done.
            return Agreed::from_iter([]);
        }
        let event = format!("{}.{event}", self.name);
        let subscribers = self.api.0.namespace.to(subscriptions::event_room(&event));
        match filter {
            Some(filter) => subscribers.session(filter).emit(&event, &(data,)),
            None => subscribers.emit(&event, &(data,)),
        }
    }

    /// Takes the exports back: see [`Api::unregister`].
    pub fn unregister(&self) -> bool {
        self.api.unregister(&self.name)
    }
}
