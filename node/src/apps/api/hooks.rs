//! What an application hears of: clients that come and go, and names that are registered.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use futures_util::FutureExt as _;
use http::request::Parts;
use tracing::error;

use crate::server::{ConnectError, Socket};

type HookFuture = Pin<Box<dyn Future<Output = ()> + Send>>;
type SocketHook = Arc<dyn Fn(Socket) -> HookFuture + Send + Sync>;
type NameHook = Arc<dyn Fn(&str) + Send + Sync>;
type Judged = Pin<Box<dyn Future<Output = Result<(), Refusal>> + Send>>;
type RequestHook = Arc<dyn Fn(Parts) -> Judged + Send + Sync>;

/// The hooks of one registry, each kind in the order of registration.
#[derive(Default)]
pub(super) struct Hooks {
    connection: ArcSwap<Vec<SocketHook>>,
    disconnection: ArcSwap<Vec<SocketHook>>,
    namespace: ArcSwap<Vec<NameHook>>,
    /// Clients are asked about, so what is served to others is no longer for everyone.
    pub(super) is_guarded: AtomicBool,
    /// About requests for the definitions.
    request: ArcSwapOption<RequestHook>,
}

impl Hooks {
    pub(super) fn set_request<F, Fut>(&self, handler: F)
    where
        F: Fn(Parts) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), Refusal>> + Send + 'static,
    {
        let hook: RequestHook = Arc::new(move |request| Box::pin(handler(request)));
        self.request.store(Some(Arc::new(hook)));
    }

    /// Whether whoever sends this request may see the definitions. Without a handler of their own
    /// nobody may where clients are asked about: that handler cannot be asked without a client.
    pub(super) async fn judge(&self, request: Parts) -> Result<(), Refusal> {
        let Some(handler) = self.request.load_full() else {
            let is_guarded = self.is_guarded.load(Ordering::Acquire);
            return if is_guarded { Err(Refusal::Unsaid) } else { Ok(()) };
        };
        let judged = AssertUnwindSafe(async { handler(request).await });
        judged.catch_unwind().await.unwrap_or_else(|_panic| {
            error!("the handler for requests for the definitions panicked");
            Err(Refusal::Unsaid)
        })
    }

    pub(super) fn add_connection<F, Fut>(&self, hook: F)
    where
        F: Fn(Socket) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        add(&self.connection, boxed(hook));
    }

    pub(super) fn add_disconnection<F, Fut>(&self, hook: F)
    where
        F: Fn(Socket) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        add(&self.disconnection, boxed(hook));
    }

    pub(super) fn add_namespace(&self, hook: impl Fn(&str) + Send + Sync + 'static) {
        add::<NameHook>(&self.namespace, Arc::new(hook));
    }

    pub(super) async fn connection(&self, socket: &Socket) {
        run(&self.connection, socket).await;
    }

    pub(super) async fn disconnection(&self, socket: &Socket) {
        run(&self.disconnection, socket).await;
    }

    pub(super) fn tell_namespace(&self, name: &str) {
        for hook in self.namespace.load().iter() {
            if catch_unwind(AssertUnwindSafe(|| hook(name))).is_err() {
                error!("a hook for registered names panicked");
            }
        }
    }
}

fn boxed<F, Fut>(hook: F) -> SocketHook
where
    F: Fn(Socket) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    Arc::new(move |socket| Box::pin(hook(socket)))
}

fn add<T: Clone>(hooks: &ArcSwap<Vec<T>>, hook: T) {
    hooks.rcu(|hooks| hooks.iter().cloned().chain([hook.clone()]).collect::<Vec<_>>());
}

/// One after the other. One that panics ends itself alone.
async fn run(hooks: &ArcSwap<Vec<SocketHook>>, socket: &Socket) {
    for hook in hooks.load_full().iter() {
        let called = AssertUnwindSafe(async { hook(socket.clone()).await });
        if called.catch_unwind().await.is_err() {
            error!("a hook for clients panicked");
        }
    }
}

/// Why a client is not let in, and what it hears: the text that api.io's server makes of what its
/// handler rejects with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// An `Error`: to clients of Socket.IO 2, `Error: ` and the message.
    Error(String),
    /// A text.
    Text(String),
    /// Nothing: `Not authorized`.
    Unsaid,
}

impl Refusal {
    /// What is told of it. Older clients are told an `Error` as JavaScript writes one.
    pub(super) fn into_words(self, is_legacy: bool) -> String {
        match self {
            Self::Error(message) if is_legacy => format!("Error: {message}"),
            Self::Error(message) | Self::Text(message) => message,
            Self::Unsaid => "Not authorized".to_owned(),
        }
    }
}

/// Any error refuses as an `Error`.
impl<E: std::error::Error> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self::Error(error.to_string())
    }
}

/// The middleware that asks a handler.
pub(super) fn middleware<F, Fut>(
    handler: F,
) -> impl Fn(Socket) -> Pin<Box<dyn Future<Output = Result<(), ConnectError>> + Send>> + Send + Sync
where
    F: Fn(Socket) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), Refusal>> + Send + 'static,
{
    move |socket| {
        let is_legacy = socket.handshake_details().query.get("EIO").is_some_and(|eio| eio == "3");
        let asked = handler(socket);
        Box::pin(async move {
            asked.await.map_err(|refusal| ConnectError::new(refusal.into_words(is_legacy)))
        })
    }
}
