//! The transport inside someone else's HTTP server: a tower layer, and a service of its own.

use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::{self, Ready};
use http::{Extensions, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Body;
use tower::{Layer, Service};

use super::body::{BoxError, RequestBody};
use super::front::{self, EitherBody, EitherFuture};
use super::listener::Transport;
use super::polling::empty;

/// Answers the requests to Engine.IO's path, WebSockets included, and passes all others on.
///
/// For axum's `Router::layer`, and whatever else takes a [`tower::Layer`]. The server below must
/// allow upgrades, as axum's does.
#[derive(Clone)]
pub struct EngineLayer {
    transport: Arc<Transport>,
    address: Arc<FindAddress>,
    secure: Arc<FindSecure>,
}

type FindAddress = dyn Fn(&Extensions) -> Option<SocketAddr> + Send + Sync;
type FindSecure = dyn Fn(&Extensions) -> bool + Send + Sync;

/// Marks a request that came by TLS.
#[derive(Clone, Copy)]
pub(super) struct Secure;

impl EngineLayer {
    pub fn new(transport: Arc<Transport>) -> Self {
        let address = Arc::new(|extensions: &Extensions| extensions.get().copied());
        Self { transport, address, secure: Arc::new(|_extensions| false) }
    }

    /// Tells how to find a client's address among the extensions of its request; with axum it is
    /// in `ConnectInfo<SocketAddr>`. Otherwise it is a `SocketAddr` there, or unspecified.
    pub fn with_address(
        mut self,
        find: impl Fn(&Extensions) -> Option<SocketAddr> + Send + Sync + 'static,
    ) -> Self {
        self.address = Arc::new(find);
        self
    }

    /// Tells from its extensions whether a request came by TLS, which is `handshake.secure`; false
    /// if nothing is said. A server that takes TLS alone says `|_| true`.
    pub fn with_secure(
        mut self,
        find: impl Fn(&Extensions) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.secure = Arc::new(find);
        self
    }

    /// A service that stands alone: what is not Engine.IO's is not found.
    pub fn into_service(self) -> EngineService<NotFound> {
        self.layer(NotFound)
    }

    fn respond<B>(
        &self,
        mut request: Request<B>,
    ) -> impl Future<Output = Response<Full<Bytes>>> + Send + use<B>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let address = (self.address)(request.extensions());
        let address = address.unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)));
        if (self.secure)(request.extensions()) {
            request.extensions_mut().insert(Secure);
        }
        let transport = Arc::clone(&self.transport);
        transport.respond(request.map(RequestBody::boxed), address)
    }
}

impl fmt::Debug for EngineLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineLayer").finish_non_exhaustive()
    }
}

impl<S> Layer<S> for EngineLayer {
    type Service = EngineService<S>;

    fn layer(&self, inner: S) -> EngineService<S> {
        EngineService { engine: self.clone(), inner }
    }
}

/// Engine.IO in front of another service; see [`EngineLayer`].
#[derive(Clone, Debug)]
pub struct EngineService<S> {
    engine: EngineLayer,
    inner: S,
}

impl<S, B, R> Service<Request<B>> for EngineService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Send + 'static,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    R: Send + 'static,
{
    type Response = Response<EitherBody<R>>;
    type Error = S::Error;
    type Future = EitherFuture<S::Future, R, S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if !self.engine.transport.serves(request.uri().path()) {
            return front::pass(self.inner.call(request));
        }
        front::answer(self.engine.respond(request))
    }
}

/// For hyper alone, without tower.
impl<B> hyper::service::Service<Request<B>> for EngineService<NotFound>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Response = Response<EitherBody<Full<Bytes>>>;
    type Error = Infallible;
    type Future = <Self as Service<Request<B>>>::Future;

    fn call(&self, request: Request<B>) -> Self::Future {
        Service::call(&mut self.clone(), request)
    }
}

/// The service behind one that stands alone.
#[derive(Clone, Copy, Debug)]
pub struct NotFound;

impl<B> Service<Request<B>> for NotFound {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _request: Request<B>) -> Self::Future {
        future::ready(Ok(empty(StatusCode::NOT_FOUND)))
    }
}
