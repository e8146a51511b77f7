//! What becomes of each HTTP request.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::upgrade::OnUpgrade;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{debug, error};

use crate::adapter::{Encoded, Outbox};
use crate::engineio::{self, CloseReason, Encoding, RequestError, Sid, TransportKind, open_packet};
use crate::metrics;
use crate::random;

use super::answer::{Asked, Refused, add_headers};
use super::body::RequestBody;
use super::client::{Client, Denied, Handshake, Refusal};
use super::connection::{self, ConnectionTask};
use super::connections::{Handle, Registration};
use super::cookie::set_cookie;
use super::embed::Secure;
use super::hooks::{Halt, Hooks, head};
use super::listener::Transport;
use super::polling::{self, Command, Polling, empty};
use super::relay::Relayed;
use super::websocket::{self, WebSocket};

/// Between the answer to a WebSocket's handshake and the open packet. Clients that begin to listen once they have heard
/// of the handshake, as those of the official suites do, lose a packet that comes in the same read: one that is sent at
/// once nearly always does, where the official server takes a moment longer.
const OPEN_DELAY: Duration = Duration::from_millis(1);

/// Before a client hears that its connection is upgraded, and wants no requests and no other WebSocket. It comes by
/// another way than what the WebSocket was sent before, which it should not overtake at a balancer or another node:
/// clients such as the official suites begin to listen there when they have the refusal.
const HEAD_START: Duration = Duration::from_millis(100);

impl Transport {
    pub(super) async fn respond(
        self: Arc<Self>,
        request: Request<RequestBody>,
        address: SocketAddr,
    ) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        let is_below_prefix = self.serves(path);
        // The official server gives its client to whoever asks in whatever way.
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
        let page = self.pages.respond(path, request.headers());
        let page = page.filter(|_| is_read || is_below_prefix);
        let hooks = self.engine.hooks();
        if !is_below_prefix {
            let answer = if page.is_none() && is_read { hooks.answer(&request) } else { None };
            return match answer {
                Some(answer) => answer.await.map(Full::new),
                None => page.unwrap_or_else(|| empty(StatusCode::NOT_FOUND)),
            };
        }
        let ask = hooks.allow_origin.as_deref();
        let cors = self.cors.judge(request.method(), request.headers(), ask);
        let (mut response, headers) = match (cors.preflight, page) {
            (Some(status), _) => (empty(status), cors.headers),
            (None, Some(page)) => (page, cors.headers),
            (None, None) => self.respond_engine(request, address, cors.headers, &hooks).await,
        };
        add_headers(&mut response, headers);
        response
    }

    /// Leads a request through the hooks; gives the headers that the answer is to have besides.
    async fn respond_engine(
        self: Arc<Self>,
        request: Request<RequestBody>,
        address: SocketAddr,
        headers: HeaderMap,
        hooks: &Hooks,
    ) -> (Response<Full<Bytes>>, HeaderMap) {
        let is_upgrade = websocket::is_upgrade(request.headers());
        let asked = Asked::new(&request, is_upgrade, hooks);
        let request = match self.relay(request, address).await {
            // With the owner's headers, after the owner's hooks.
            Relayed::Answered(response) => return (response, HeaderMap::new()),
            Relayed::Own(request) => request,
            Relayed::Lost => {
                return (self.refuse(RequestError::UnknownSid.into(), &asked, hooks), headers);
            }
        };
        let (served, headers) = match hooks.pass(request, headers.clone()).await {
            Ok((request, headers)) => {
                (Arc::clone(&self).serve_engine(request, address, hooks).await, headers)
            }
            Err(Halt::Failed) => (Err(Refused::middleware_failure()), headers),
            Err(Halt::Answered(response)) => return (response.map(Full::new), headers),
        };
        match served {
            Ok(response) => (self.complete(response, &asked, hooks).await, headers),
            // The official server writes it past its middleware.
            Err(refused) if is_upgrade => (self.refuse(refused, &asked, hooks), HeaderMap::new()),
            Err(refused) => (self.refuse(refused, &asked, hooks), headers),
        }
    }

    async fn serve_engine(
        self: Arc<Self>,
        request: Request<RequestBody>,
        address: SocketAddr,
        hooks: &Hooks,
    ) -> Result<Response<Full<Bytes>>, Refused> {
        let is_upgrade = websocket::is_upgrade(request.headers());
        let query = request.uri().query().unwrap_or_default();
        let is_get = request.method() == Method::GET;
        let parsed = engineio::Request::parse(query, is_get, is_upgrade, &self.config);
        // The official server looks at the revision last.
        let is_handshake = matches!(
            parsed,
            Ok(engineio::Request::Open { .. }) | Err(RequestError::UnsupportedProtocolVersion)
        );
        if is_handshake && let Some(allowed) = hooks.allow(&request) {
            allowed.await?;
        }
        match parsed? {
            engineio::Request::Open { transport, encoding } => {
                self.open(request, transport, encoding, address).await
            }
            engineio::Request::Continue { sid, transport, encoding } => {
                Ok(self.proceed(request, is_upgrade, sid, transport, encoding).await?)
            }
        }
    }

    /// Opens a connection, if the layer above takes it.
    async fn open(
        self: Arc<Self>,
        mut request: Request<RequestBody>,
        transport: TransportKind,
        encoding: Encoding,
        address: SocketAddr,
    ) -> Result<Response<Full<Bytes>>, Refused> {
        if let Err(refusal) = self.accept.ready() {
            return Ok(refuse_for_now(refusal));
        }
        let mut headers = HeaderMap::new();
        if self.accept.admits() {
            match self.accept.admit(head(&request)).await {
                Ok(admitted) => {
                    request.extensions_mut().extend(admitted.extensions);
                    headers = admitted.headers;
                }
                Err(Denied::Forbidden(forbidden, headers)) => {
                    return Err(Refused::from(forbidden).with_headers(headers));
                }
                Err(Denied::ForNow(refusal)) => return Ok(refuse_for_now(refusal)),
            }
        }
        let mut response = match transport {
            TransportKind::Polling => self.open_polling(request, encoding, address),
            TransportKind::WebSocket => self.open_websocket(request, encoding, address)?,
        };
        add_headers(&mut response, headers);
        Ok(response)
    }

    /// Opens a connection that polls; the open packet is the answer.
    fn open_polling(
        &self,
        mut request: Request<RequestBody>,
        encoding: Encoding,
        address: SocketAddr,
    ) -> Response<Full<Bytes>> {
        let sid = self.new_sid();
        let handshake = Arc::new(self.handshake(sid, &mut request, address));
        let Some((client, outbox)) = self.accept(handshake, encoding) else {
            return empty(StatusCode::INTERNAL_SERVER_ERROR);
        };
        let (commands, receiver) = mpsc::channel(polling::COMMANDS);
        let registration = self.register(sid, &outbox, Some(commands));
        let transport = connection::Transport::Polling(Box::new(Polling::new(receiver, encoding)));
        self.run(transport, client, outbox, registration, Bytes::new());
        let open = open_packet(sid, TransportKind::Polling, &self.config);
        metrics::PACKETS_SENT.add(1);
        let mut response = polling::packets_response(polling::open_body(open, encoding));
        if let Some(cookie) = &self.config.cookie {
            response.headers_mut().insert(header::SET_COOKIE, set_cookie(cookie, sid));
        }
        response
    }

    /// Opens a connection by WebSocket.
    fn open_websocket(
        self: &Arc<Self>,
        mut request: Request<RequestBody>,
        encoding: Encoding,
        address: SocketAddr,
    ) -> Result<Response<Full<Bytes>>, RequestError> {
        let response = websocket::accept(&request).ok_or(RequestError::BadRequest)?;
        let sid = self.new_sid();
        let handshake = Arc::new(self.handshake(sid, &mut request, address));
        let transport = Arc::clone(self);
        self.tasks.spawn(async move {
            let upgraded = transport.upgraded(request, encoding).await;
            let Some((websocket, read_ahead)) = upgraded else { return };
            tokio::time::sleep(OPEN_DELAY).await;
            transport.start_websocket(sid, handshake, websocket, read_ahead);
        });
        Ok(response)
    }

    fn start_websocket(
        &self,
        sid: Sid,
        handshake: Arc<Handshake>,
        mut websocket: WebSocket,
        read_ahead: Bytes,
    ) {
        let Some((client, outbox)) = self.accept(handshake, websocket.encoding()) else {
            return websocket.abort();
        };
        let open = open_packet(sid, TransportKind::WebSocket, &self.config);
        websocket.writer.pending.push_back(Encoded::engine_text(&open));
        let registration = self.register(sid, &outbox, None);
        let transport = connection::Transport::WebSocket(websocket);
        self.run(transport, client, outbox, registration, read_ahead);
    }

    /// A request of a connection that exists.
    async fn proceed(
        self: Arc<Self>,
        request: Request<RequestBody>,
        is_upgrade: bool,
        sid: Sid,
        transport: TransportKind,
        encoding: Encoding,
    ) -> Result<Response<Full<Bytes>>, RequestError> {
        let Handle { commands, outbox } =
            self.connections.get(sid).ok_or(RequestError::UnknownSid)?;
        let is_websocket = transport == TransportKind::WebSocket;
        let is_its_revision = encoding.revision() == outbox.revision();
        if !is_its_revision || is_upgrade != is_websocket {
            return Err(RequestError::BadRequest);
        }
        if is_upgrade {
            return self.upgrade(request, encoding, commands).await;
        }
        let response = match (commands, request.method()) {
            (None, _) => None,
            (Some(commands), &Method::GET) => polling::poll(&commands).await,
            (Some(commands), &Method::POST) => {
                let (head, body) = request.into_parts();
                let revision = outbox.revision();
                polling::post(&commands, &head.headers, body, revision, &self.config).await
            }
            // The official server's answer.
            (Some(_), _) => Some(empty(StatusCode::INTERNAL_SERVER_ERROR)),
        };
        if let Some(response) = response {
            return Ok(response);
        }
        // Either the connection has upgraded, while the request waited perhaps, or it is gone.
        if self.connections.get(sid).is_none() {
            return Err(RequestError::UnknownSid);
        }
        tokio::time::sleep(HEAD_START).await;
        Err(RequestError::BadRequest)
    }

    /// Takes a WebSocket to the connection that polls. One that no longer does gets a WebSocket
    /// that closes at once, as with the official server.
    ///
    /// The connection hears of it before the client does: what the client sends next may come by another way.
    async fn upgrade(
        self: Arc<Self>,
        request: Request<RequestBody>,
        encoding: Encoding,
        commands: Option<mpsc::Sender<Command>>,
    ) -> Result<Response<Full<Bytes>>, RequestError> {
        let response = websocket::accept(&request).ok_or(RequestError::BadRequest)?;
        let place = match commands {
            Some(commands) => polling::announce(&commands).await,
            None => None,
        };
        let transport = Arc::clone(&self);
        self.tasks.spawn(async move {
            let upgraded = transport.upgraded(request, encoding).await;
            let Some((websocket, read_ahead)) = upgraded else { return };
            let arrival = (Box::new(websocket), read_ahead);
            let unwanted = match place {
                Some(place) => place.send(arrival).err(),
                None => Some(arrival),
            };
            if let Some((websocket, _)) = unwanted {
                let farewell = &transport.connections.farewell;
                farewell.unless_begun(tokio::time::sleep(HEAD_START)).await;
                let flush_by = Instant::now() + transport.config.ping_timeout;
                farewell.unless_over(websocket.close(None, flush_by)).await;
            }
        });
        Ok(response)
    }

    /// The stream, once its handshake is written.
    async fn upgraded(
        &self,
        request: Request<RequestBody>,
        encoding: Encoding,
    ) -> Option<(WebSocket, Bytes)> {
        match hyper::upgrade::on(request).await {
            Ok(upgraded) => {
                let (stream, read_ahead) = websocket::into_stream(upgraded);
                let max_bytes = self.config.max_payload_bytes;
                Some((WebSocket::new(stream, encoding, max_bytes), read_ahead))
            }
            Err(error) => {
                debug!(%error, "client went away during its websocket handshake");
                None
            }
        }
    }

    fn new_sid(&self) -> Sid {
        let mut bytes = [0; Sid::RANDOM_BYTES];
        random::fill(&mut bytes);
        Sid::new(self.node, bytes)
    }

    /// Asks the layer above for a client; none if it panicked, which is its connection's end only.
    fn accept(
        &self,
        handshake: Arc<Handshake>,
        encoding: Encoding,
    ) -> Option<(Box<dyn Client>, Arc<Outbox>)> {
        let outbox = Arc::new(Outbox::for_revision(encoding.revision(), self.limits));
        let accept = || {
            let client = self.accept.accept(Arc::clone(&handshake), Arc::clone(&outbox));
            self.engine.hooks().tell_opened(&handshake);
            client
        };
        match catch_unwind(AssertUnwindSafe(accept)) {
            Ok(client) => Some((client, outbox)),
            Err(_panic) => {
                error!("the layer above panicked at a new connection");
                None
            }
        }
    }

    fn register(
        &self,
        sid: Sid,
        outbox: &Arc<Outbox>,
        commands: Option<mpsc::Sender<Command>>,
    ) -> Registration {
        let handle = Handle { outbox: Arc::clone(outbox), commands };
        let registration = self.connections.register(sid, handle);
        // Whoever closed all connections may not have seen this one.
        if self.shutdown.is_cancelled() {
            outbox.close(CloseReason::ServerShutdown);
        }
        registration
    }

    /// Starts the task that owns the connection: a new one, so that nothing of the request stays.
    fn run(
        &self,
        transport: connection::Transport,
        client: Box<dyn Client>,
        outbox: Arc<Outbox>,
        registration: Registration,
        read_ahead: Bytes,
    ) {
        let config = Arc::clone(&self.config);
        let tasks = self.tasks.clone();
        let task = ConnectionTask::new(transport, client, outbox, registration, config, tasks);
        self.tasks.spawn(Box::new(task).run(read_ahead));
    }

    fn handshake<B>(&self, sid: Sid, request: &mut Request<B>, peer: SocketAddr) -> Handshake {
        // The stream's part stays with the request, for the handshake outlives it.
        let on_upgrade = request.extensions_mut().remove::<OnUpgrade>();
        let mut extensions = std::mem::take(request.extensions_mut());
        if let Some(on_upgrade) = on_upgrade {
            request.extensions_mut().insert(on_upgrade);
        }
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let headers = request.headers().iter().map(|(name, value)| {
            (name.as_str().into(), String::from_utf8_lossy(value.as_bytes()).into())
        });
        let said = |name| {
            let values = request.headers().get_all(name).iter();
            values.filter_map(|value| value.to_str().ok())
        };
        let is_stream_secure = extensions.remove::<Secure>().is_some();
        let trust = &self.config.trust_proxy;
        let scheme = said("x-forwarded-proto").next_back();
        Handshake {
            sid: sid.as_str().into(),
            address: trust.client(peer, said("x-forwarded-for")),
            secure: trust.is_secure(peer.ip(), scheme, is_stream_secure),
            issued_ms: since_epoch.as_millis() as u64,
            url: request.uri().to_string().into(),
            headers: headers.collect(),
            extensions,
        }
    }
}

/// A load balancer tries another node.
fn refuse_for_now(refusal: Refusal) -> Response<Full<Bytes>> {
    let counters = &metrics::HANDSHAKES_REFUSED;
    match refusal {
        Refusal::Draining => counters.draining.add(1),
        Refusal::NoQuorum => counters.no_quorum.add(1),
    }
    let mut response = Response::new(Full::from(refusal.to_string()));
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=UTF-8"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}
