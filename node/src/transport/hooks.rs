//! Where an application has its say about the requests of Engine.IO; the official server's `io.engine`.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Response, header};

use crate::engineio::RequestError;

use super::client::Handshake;
use super::connections::Connections;
use super::cors::AllowOrigin;

/// The door of a node, to register hooks with. All of them may be registered at any time, and act
/// on the requests that come from then on.
///
/// In the order of a request: the origin is judged, [`with`](Self::with) runs, the request is
/// checked, [`allow_request`](Self::allow_request) is asked about a handshake, the request is
/// answered, and the headers of the answer can be changed.
#[derive(Default)]
pub struct Engine {
    hooks: ArcSwap<Hooks>,
    connections: OnceLock<Arc<Connections>>,
}

/// What is registered.
#[derive(Clone, Default)]
pub(crate) struct Hooks {
    pub(crate) allow_origin: Option<Arc<AllowOrigin>>,
    middleware: Vec<Arc<Middleware>>,
    allow_request: Option<Arc<AllowRequest>>,
    initial_headers: Vec<Arc<EditHeaders>>,
    headers: Vec<Arc<EditHeaders>>,
    connection: Vec<Arc<OnConnection>>,
    connection_error: Vec<Arc<OnError>>,
    answers: Vec<(Arc<str>, Arc<AnswerRequest>)>,
}

type Middleware = dyn Fn(Exchange) -> BoxFuture<'static, Result<Exchange, Halt>> + Send + Sync;
type AllowRequest = dyn Fn(Parts) -> BoxFuture<'static, Result<(), Forbidden>> + Send + Sync;
type EditHeaders = dyn Fn(&mut HeaderMap, &Parts) + Send + Sync;
type OnConnection = dyn Fn(&Arc<Handshake>) + Send + Sync;
type OnError = dyn Fn(&ConnectionError) + Send + Sync;
type AnswerRequest = dyn Fn(Parts) -> BoxFuture<'static, Response<Bytes>> + Send + Sync;

/// A request on its way in, and headers that its answer is to have. What is put into the
/// request's extensions reaches the [`Handshake`](super::Handshake).
#[derive(Debug)]
pub struct Exchange {
    pub request: Parts,
    pub headers: HeaderMap,
}

/// What middleware makes of a request that it does not let pass.
#[derive(Debug)]
pub enum Halt {
    /// It failed: the answer is 400, `Bad request`.
    Failed,
    /// It has the answer itself.
    Answered(Box<Response<Bytes>>),
}

impl From<Response<Bytes>> for Halt {
    fn from(response: Response<Bytes>) -> Self {
        Self::Answered(Box::new(response))
    }
}

/// Why a handshake is refused; `Forbidden`, without a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forbidden {
    pub message: Option<String>,
}

impl<T: Into<String>> From<T> for Forbidden {
    fn from(message: T) -> Self {
        Self { message: Some(message.into()) }
    }
}

/// A request that was refused; the official server's event `connection_error`.
#[derive(Clone, Debug)]
pub struct ConnectionError {
    pub request: Parts,
    pub code: RequestError,
    pub message: String,
    pub context: ErrorContext,
}

/// What was wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ErrorContext {
    /// Code 0: what the request names, if anything.
    UnknownTransport { transport: Option<String> },
    /// Code 1.
    UnknownSid { sid: String },
    /// Code 2.
    BadHandshakeMethod { method: String },
    /// Code 3: a WebSocket's handshake that is none.
    TransportHandshakeError,
    /// Code 3: the connection is at another transport.
    TransportMismatch { transport: String, previous_transport: &'static str },
    /// Code 3: the connection speaks another revision of the protocol.
    ProtocolMismatch { protocol: u8, previous_protocol: u8 },
    /// Code 3.
    MiddlewareFailure,
    /// Code 4.
    Forbidden { message: Option<String> },
    /// Code 5: the revision that the request names, 3 without one.
    UnsupportedProtocol { protocol: u8 },
}

impl ErrorContext {
    /// The official server's name of a cause that code 3 does not tell.
    pub fn name(&self) -> Option<&'static str> {
        match self {
            Self::TransportHandshakeError => Some("TRANSPORT_HANDSHAKE_ERROR"),
            Self::TransportMismatch { .. } => Some("TRANSPORT_MISMATCH"),
            Self::ProtocolMismatch { .. } => Some("PROTOCOL_MISMATCH"),
            Self::MiddlewareFailure => Some("MIDDLEWARE_FAILURE"),
            Self::UnknownTransport { .. }
            | Self::UnknownSid { .. }
            | Self::BadHandshakeMethod { .. }
            | Self::Forbidden { .. }
            | Self::UnsupportedProtocol { .. } => None,
        }
    }
}

impl Engine {
    /// Puts middleware in front of all requests, in the order of registration: `engine.use`.
    pub fn with<F, Fut>(&self, middleware: F) -> &Self
    where
        F: Fn(Exchange) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Exchange, Halt>> + Send + 'static,
    {
        let middleware: Arc<Middleware> = Arc::new(move |exchange| Box::pin(middleware(exchange)));
        self.register(|hooks| hooks.middleware.push(middleware.clone()))
    }

    /// Decides which handshakes are taken: the option `allowRequest`. The last one counts.
    pub fn allow_request<F, Fut>(&self, allow: F) -> &Self
    where
        F: Fn(Parts) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), Forbidden>> + Send + 'static,
    {
        let allow: Arc<AllowRequest> = Arc::new(move |request| Box::pin(allow(request)));
        self.register(|hooks| hooks.allow_request = Some(allow.clone()))
    }

    /// Decides which origins may poll, in place of the configured ones: the function that
    /// `cors.origin` may be. The last one counts.
    pub fn allow_origin(
        &self,
        allow: impl Fn(Option<&str>) -> bool + Send + Sync + 'static,
    ) -> &Self {
        let allow: Arc<AllowOrigin> = Arc::new(allow);
        self.register(|hooks| hooks.allow_origin = Some(allow.clone()))
    }

    /// Edits the headers of the first answer of each connection: the event `initial_headers`.
    pub fn on_initial_headers(
        &self,
        edit: impl Fn(&mut HeaderMap, &Parts) + Send + Sync + 'static,
    ) -> &Self {
        let edit: Arc<EditHeaders> = Arc::new(edit);
        self.register(|hooks| hooks.initial_headers.push(edit.clone()))
    }

    /// Edits the headers of every answer that is no refusal: the event `headers`.
    pub fn on_headers(
        &self,
        edit: impl Fn(&mut HeaderMap, &Parts) + Send + Sync + 'static,
    ) -> &Self {
        let edit: Arc<EditHeaders> = Arc::new(edit);
        self.register(|hooks| hooks.headers.push(edit.clone()))
    }

    /// Is told of each connection that opens on this node, before any packet of it is looked at: the
    /// event `connection`. A panic ends the connection.
    pub fn on_connection(&self, told: impl Fn(&Arc<Handshake>) + Send + Sync + 'static) -> &Self {
        let told: Arc<OnConnection> = Arc::new(told);
        self.register(|hooks| hooks.connection.push(told.clone()))
    }

    /// Is told of each request that is refused: the event `connection_error`.
    pub fn on_connection_error(
        &self,
        told: impl Fn(&ConnectionError) + Send + Sync + 'static,
    ) -> &Self {
        let told: Arc<OnError> = Arc::new(told);
        self.register(|hooks| hooks.connection_error.push(told.clone()))
    }

    /// Serves what `make` makes at exactly `path`, which is none of Engine.IO's. The node's own
    /// listener does; an application that embeds the node has its own routes.
    pub fn page(
        &self,
        path: &str,
        content_type: &'static str,
        make: impl Fn() -> Bytes + Send + Sync + 'static,
    ) -> &Self {
        self.answer(path, move |_request| {
            let mut response = Response::new(make());
            let content_type = HeaderValue::from_static(content_type);
            response.headers_mut().insert(header::CONTENT_TYPE, content_type);
            std::future::ready(response)
        })
    }

    /// The same for requests that are looked at: `answer` answers those that read exactly `path`.
    pub fn answer<F, Fut>(&self, path: &str, answer: F) -> &Self
    where
        F: Fn(Parts) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Response<Bytes>> + Send + 'static,
    {
        let path: Arc<str> = path.into();
        let answer: Arc<AnswerRequest> = Arc::new(move |request| Box::pin(answer(request)));
        self.register(|hooks| hooks.answers.push((path.clone(), answer.clone())))
    }

    /// The number of open connections of this node.
    pub fn clients_count(&self) -> usize {
        self.connections.get().map_or(0, |connections| connections.len())
    }

    fn register(&self, register: impl Fn(&mut Hooks)) -> &Self {
        self.hooks.rcu(|hooks| {
            let mut hooks = Hooks::clone(hooks);
            register(&mut hooks);
            hooks
        });
        self
    }

    pub(crate) fn hooks(&self) -> Arc<Hooks> {
        self.hooks.load_full()
    }

    /// From then on the engine knows how many clients there are.
    pub(crate) fn attach(&self, connections: &Arc<Connections>) {
        // An application has one transport.
        let _ = self.connections.set(Arc::clone(connections));
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("clients_count", &self.clients_count()).finish()
    }
}

impl Hooks {
    /// Whether anyone wants to see a request once it is answered.
    pub(crate) fn want_head(&self) -> bool {
        !(self.initial_headers.is_empty()
            && self.headers.is_empty()
            && self.connection_error.is_empty())
    }

    /// Whether anyone wants to know what was wrong with a request.
    pub(crate) fn want_errors(&self) -> bool {
        !self.connection_error.is_empty()
    }

    /// Leads a request through the middleware; `headers` are those that its answer has already.
    pub(crate) async fn pass<B>(
        &self,
        request: Request<B>,
        headers: HeaderMap,
    ) -> Result<(Request<B>, HeaderMap), Halt> {
        if self.middleware.is_empty() {
            return Ok((request, headers));
        }
        let (request, body) = request.into_parts();
        let mut exchange = Exchange { request, headers };
        for middleware in &self.middleware {
            exchange = middleware(exchange).await?;
        }
        Ok((Request::from_parts(exchange.request, body), exchange.headers))
    }

    /// Asks about a handshake, if anyone wants to be asked.
    pub(crate) fn allow<B>(
        &self,
        request: &Request<B>,
    ) -> Option<BoxFuture<'static, Result<(), Forbidden>>> {
        self.allow_request.as_ref().map(|allow| allow(head(request)))
    }

    pub(crate) fn edit(&self, headers: &mut HeaderMap, request: &Parts, is_initial: bool) {
        let initial = self.initial_headers.iter().filter(|_| is_initial);
        for edit in initial.chain(&self.headers) {
            edit(headers, request);
        }
    }

    /// The application's own answer, if it has one for this path.
    pub(crate) fn answer<B>(
        &self,
        request: &Request<B>,
    ) -> Option<BoxFuture<'static, Response<Bytes>>> {
        let path = request.uri().path();
        let (_, answer) = self.answers.iter().find(|(at, _)| **at == *path)?;
        Some(answer(head(request)))
    }

    pub(crate) fn tell_opened(&self, handshake: &Arc<Handshake>) {
        for told in &self.connection {
            told(handshake);
        }
    }

    pub(crate) fn tell(&self, error: &ConnectionError) {
        for told in &self.connection_error {
            told(error);
        }
    }
}

/// A copy of a request without its body.
pub(crate) fn head<B>(request: &Request<B>) -> Parts {
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.method = request.method().clone();
    parts.uri = request.uri().clone();
    parts.version = request.version();
    parts.headers = request.headers().clone();
    parts.extensions = request.extensions().clone();
    // It is the stream's, not the application's.
    parts.extensions.remove::<hyper::upgrade::OnUpgrade>();
    parts
}
