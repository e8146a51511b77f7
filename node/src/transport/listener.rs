//! Accepts streams, and serves HTTP on them.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::adapter::{OutboxLimits, OutboxSize};
use crate::engineio::{CloseReason, EngineConfig};
use crate::limits;
use crate::metrics;
use crate::net;
use crate::peers::Tunnels;

use super::body::RequestBody;
use super::client::Accept;
use super::connections::Connections;
use super::cors::Cors;
use super::farewell::Farewell;
use super::hooks::Engine;
use super::http_stream::HttpStream;
use super::pages::Pages;
use super::relay::FromNode;
use super::stream::Stream;

/// The transport of a node: all its clients, and the port they come to.
pub struct Transport {
    pub(super) config: Arc<EngineConfig>,
    /// What requests to Engine.IO start with.
    pub(super) prefix: String,
    pub(super) node: u64,
    pub(super) limits: OutboxLimits,
    pub(super) accept: Arc<dyn Accept>,
    pub(super) pages: Pages,
    pub(super) cors: Cors,
    pub(super) engine: Arc<Engine>,
    pub(super) connections: Arc<Connections>,
    /// Set in a node that is one of several.
    pub(super) tunnels: OnceLock<Tunnels>,
    pub(super) tasks: TaskTracker,
    pub(super) shutdown: CancellationToken,
}

/// A head must fit in; hyper would use up to 400 KiB for each stream.
const MAX_BUFFER_BYTES: usize = 16 * 1024;
/// When the system has no streams left, it takes a while until it has.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl Transport {
    /// `node` is the 48-bit id that the sids of this node's connections carry.
    pub fn new(
        config: EngineConfig,
        node: u64,
        limits: OutboxLimits,
        accept: Arc<dyn Accept>,
        pages: Pages,
        tasks: TaskTracker,
        shutdown: CancellationToken,
    ) -> Arc<Self> {
        let connections = Arc::new(Connections::new(Farewell::new(shutdown.clone())));
        let engine = accept.engine();
        engine.attach(&connections);
        Arc::new(Self {
            prefix: config.prefix(),
            cors: Cors::new(&config),
            engine,
            config: Arc::new(config),
            node,
            limits,
            accept,
            pages,
            connections,
            tunnels: OnceLock::new(),
            tasks,
            shutdown,
        })
    }

    /// The number of open connections.
    pub fn connection_count(&self) -> usize {
        self.connections.len()
    }

    /// What waits for all clients together, and how many bytes for the one that most waits for.
    pub fn outbox_sizes(&self) -> (OutboxSize, usize) {
        self.connections.outbox_sizes()
    }

    /// Whether requests to `path` are this transport's; a prefix decides, as with the official
    /// server.
    pub fn serves(&self, path: &str) -> bool {
        path.starts_with(&self.prefix)
    }

    /// Asks every connection to end, once what is queued for it has been sent.
    pub fn close_all(&self, reason: CloseReason) {
        self.connections.close_all(reason);
    }

    /// Cuts off the clients that are still here, now that the node stops.
    pub fn cut_off(&self) {
        self.connections.farewell.end();
    }

    /// Serves clients until shutdown. Then the open connections end, each in its own task.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) {
        let last_file = limits::files_with_clients();
        // A change is logged, for there may be thousands of streams a second.
        let (mut is_full, mut is_refused) = (false, false);
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.shutdown.cancelled() => break,
                accepted = net::accept(&listener) => accepted,
            };
            match accepted {
                Ok((stream, address)) => {
                    is_refused = false;
                    // The system gives the lowest number that is free: so many files are open.
                    let file = u64::from(stream.as_raw_fd().unsigned_abs());
                    let was_full = std::mem::replace(&mut is_full, file >= last_file);
                    if is_full {
                        metrics::STREAMS_REFUSED.add(1);
                        if !was_full {
                            warn!(file, "too many open files, new clients are refused");
                        }
                        continue;
                    }
                    let stream = Stream::Tcp(stream);
                    self.tasks.spawn(Arc::clone(&self).serve_http(stream, address, false));
                }
                Err(error) => {
                    if !std::mem::replace(&mut is_refused, true) {
                        warn!(%error, "no stream accepted");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        // First, so that whoever is told to ask another node does not come here again, and is cut off.
        drop(listener);
        self.close_all(CloseReason::ServerShutdown);
    }

    /// Serves the requests of one stream, which another node may have relayed.
    pub(super) async fn serve_http(
        self: Arc<Self>,
        stream: Stream,
        address: SocketAddr,
        is_relayed: bool,
    ) {
        let farewell = self.connections.farewell.clone();
        // Whoever takes longer for a request's head, for the next request or to read a response
        // would miss its heartbeat as well.
        let timeout = self.config.ping_timeout;
        let stream = HttpStream::new(stream, timeout);
        let service = service_fn(move |mut request: Request<Incoming>| {
            if is_relayed {
                request.extensions_mut().insert(FromNode);
            }
            let transport = Arc::clone(&self);
            async move {
                let request = Request::map(request, RequestBody::Incoming);
                Ok::<_, Infallible>(transport.respond(request, address).await)
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(timeout)
            .max_buf_size(MAX_BUFFER_BYTES)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        let mut connection = std::pin::pin!(connection);
        let result = match farewell.unless_begun(connection.as_mut()).await {
            Some(result) => Some(result),
            None => {
                connection.as_mut().graceful_shutdown();
                farewell.unless_over(connection).await
            }
        };
        match result {
            Some(Ok(())) => {}
            Some(Err(error)) => {
                if error.is_parse() {
                    metrics::PROTOCOL_ERRORS.http.add(1);
                }
                debug!(%error, %address, "stream failed");
            }
            None => debug!(%address, "stream is cut off"),
        }
    }
}
