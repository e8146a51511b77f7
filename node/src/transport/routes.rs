//! What becomes of each HTTP request.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{debug, error};

use crate::adapter::{Encoded, Outbox};
use crate::engineio::{self, CloseReason, Encoding, RequestError, Sid, TransportKind, open_packet};
use crate::metrics;
use crate::random;

use super::client::{Client, Handshake, Refusal};
use super::connection::{self, ConnectionTask};
use super::connections::{Handle, Registration};
use super::listener::Transport;
use super::polling::{self, Command, Polling, empty};
use super::websocket::{self, WebSocket};

impl Transport {
    pub(super) async fn respond(
        self: Arc<Self>,
        request: Request<Incoming>,
        address: SocketAddr,
    ) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        let is_below_prefix = path.starts_with(&self.prefix);
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
        let page = self.pages.respond(path, request.headers()).filter(|_| is_read);
        if !is_below_prefix {
            return page.unwrap_or_else(|| empty(StatusCode::NOT_FOUND));
        }
        if self.cors.is_on() && request.method() == Method::OPTIONS {
            return self.cors.preflight(request.headers());
        }
        let mut cors_headers = HeaderMap::new();
        self.cors.allow(request.headers(), &mut cors_headers);
        let mut response = match page {
            Some(page) => page,
            None => self.respond_engine(request, address).await,
        };
        response.headers_mut().extend(cors_headers);
        response
    }

    async fn respond_engine(
        self: Arc<Self>,
        request: Request<Incoming>,
        address: SocketAddr,
    ) -> Response<Full<Bytes>> {
        let is_upgrade = websocket::is_upgrade(request.headers());
        let query = request.uri().query().unwrap_or_default();
        let is_get = request.method() == Method::GET;
        let response = match engineio::Request::parse(query, is_get, is_upgrade, &self.config) {
            Ok(engineio::Request::Open { transport, encoding }) => match self.accept.ready() {
                Ok(()) if transport == TransportKind::Polling => {
                    self.open_polling(&request, encoding, address)
                }
                Ok(()) => self.open_websocket(request, encoding, address),
                Err(refusal) => Ok(refuse_for_now(refusal)),
            },
            Ok(engineio::Request::Continue { sid, transport, encoding }) => {
                self.proceed(request, is_upgrade, sid, transport, encoding).await
            }
            Err(error) => Err(error),
        };
        response.unwrap_or_else(|error| refuse(error, is_upgrade))
    }

    /// Opens a connection that polls; the open packet is the answer.
    fn open_polling(
        &self,
        request: &Request<Incoming>,
        encoding: Encoding,
        address: SocketAddr,
    ) -> Result<Response<Full<Bytes>>, RequestError> {
        let sid = self.new_sid();
        let handshake = Arc::new(handshake(sid, request, address));
        let Some((client, outbox)) = self.accept(handshake, encoding) else {
            return Ok(empty(StatusCode::INTERNAL_SERVER_ERROR));
        };
        let (commands, receiver) = mpsc::channel(polling::COMMANDS);
        let registration = self.register(sid, &outbox, Some(commands));
        let transport = connection::Transport::Polling(Box::new(Polling::new(receiver, encoding)));
        self.run(transport, client, outbox, registration, Bytes::new());
        let open = open_packet(sid, TransportKind::Polling, &self.config);
        metrics::PACKETS_SENT.add(1);
        Ok(polling::packets_response(polling::open_body(open, encoding)))
    }

    /// Opens a connection by WebSocket.
    fn open_websocket(
        self: &Arc<Self>,
        request: Request<Incoming>,
        encoding: Encoding,
        address: SocketAddr,
    ) -> Result<Response<Full<Bytes>>, RequestError> {
        let response = websocket::accept(&request).ok_or(RequestError::BadRequest)?;
        let sid = self.new_sid();
        let handshake = Arc::new(handshake(sid, &request, address));
        let transport = Arc::clone(self);
        self.tasks.spawn(async move {
            let upgraded = transport.upgraded(request, encoding).await;
            let Some((websocket, read_ahead)) = upgraded else { return };
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
        request: Request<Incoming>,
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
            return self.upgrade(request, encoding, commands);
        }
        let commands = commands.ok_or(RequestError::BadRequest)?;
        let response = match *request.method() {
            Method::GET => polling::poll(&commands).await,
            Method::POST => {
                let (head, body) = request.into_parts();
                let revision = outbox.revision();
                polling::post(&commands, &head.headers, body, revision, &self.config).await
            }
            // The official server's answer.
            _ => Some(empty(StatusCode::INTERNAL_SERVER_ERROR)),
        };
        // Either the connection has upgraded while the request waited, or it is gone.
        response.ok_or_else(|| match self.connections.get(sid) {
            Some(_) => RequestError::BadRequest,
            None => RequestError::UnknownSid,
        })
    }

    /// Takes a WebSocket to the connection that polls. One that no longer does gets a WebSocket
    /// that closes at once, as with the official server.
    fn upgrade(
        self: Arc<Self>,
        request: Request<Incoming>,
        encoding: Encoding,
        commands: Option<mpsc::Sender<Command>>,
    ) -> Result<Response<Full<Bytes>>, RequestError> {
        let response = websocket::accept(&request).ok_or(RequestError::BadRequest)?;
        let transport = Arc::clone(&self);
        self.tasks.spawn(async move {
            let upgraded = transport.upgraded(request, encoding).await;
            let Some((websocket, read_ahead)) = upgraded else { return };
            let command = Command::WebSocket(Box::new(websocket), read_ahead);
            let unwanted = match commands {
                Some(commands) => commands.send(command).await.err().map(|unsent| unsent.0),
                None => Some(command),
            };
            if let Some(Command::WebSocket(websocket, _)) = unwanted {
                let flush_by = Instant::now() + transport.config.ping_timeout;
                websocket.close(None, flush_by).await;
            }
        });
        Ok(response)
    }

    /// The stream, once its handshake is written.
    async fn upgraded(
        &self,
        request: Request<Incoming>,
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
        let accept = || self.accept.accept(handshake, Arc::clone(&outbox));
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
}

fn handshake<B>(sid: Sid, request: &Request<B>, address: SocketAddr) -> Handshake {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let headers = request.headers().iter().map(|(name, value)| {
        (name.as_str().into(), String::from_utf8_lossy(value.as_bytes()).into())
    });
    Handshake {
        sid: sid.as_str().into(),
        address,
        issued_ms: since_epoch.as_millis() as u64,
        url: request.uri().to_string().into(),
        headers: headers.collect(),
    }
}

/// The official server's answers: JSON to a request, plain text to a WebSocket.
fn refuse(error: RequestError, is_upgrade: bool) -> Response<Full<Bytes>> {
    metrics::PROTOCOL_ERRORS.request.add(1);
    let status = match error {
        RequestError::Forbidden if !is_upgrade => StatusCode::FORBIDDEN,
        _ => StatusCode::BAD_REQUEST,
    };
    let (body, content_type) = if is_upgrade {
        (error.to_string(), "text/html")
    } else {
        (error.to_json(), "application/json")
    };
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    if is_upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// A load balancer tries another node.
fn refuse_for_now(refusal: Refusal) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(refusal.to_string()));
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=UTF-8"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}
