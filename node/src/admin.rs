//! Health, readiness, metrics and drain, over HTTP on a port of its own.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use crate::telemetry::Exporter;

/// What the admin port shows, and triggers.
pub struct Admin {
    exporter: Exporter,
    ready: Box<dyn Fn() -> Result<(), String> + Send + Sync>,
    drain: CancellationToken,
}

/// Connections at once; more wait to be accepted.
const MAX_CONNECTIONS: usize = 64;

/// How long a request's head may take, so that silent connections do not use up the places.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// After a failed accept, such as for want of file descriptors, until the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl Admin {
    /// `ready` says why the node does not serve, if it does not; it is asked at each request, and
    /// must be quick. `drain` is cancelled once an operator asks the node to stop.
    pub fn new(
        exporter: Exporter,
        ready: impl Fn() -> Result<(), String> + Send + Sync + 'static,
        drain: CancellationToken,
    ) -> Self {
        Self { exporter, ready: Box::new(ready), drain }
    }

    /// Answers until `shutdown`. Connections run on `tasks`, and end with it.
    pub async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        tasks: TaskTracker,
        shutdown: CancellationToken,
    ) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let place = places.clone().acquire_owned().await.expect("it is never closed");
            let accepted = tokio::select! {
                () = shutdown.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _address)) => {
                    let connection = self.clone().serve_connection(stream, shutdown.clone());
                    tasks.spawn(async move {
                        connection.await;
                        drop(place);
                    });
                }
                Err(error) => {
                    warn!(%error, "admin port cannot accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn serve_connection(self: Arc<Self>, stream: TcpStream, shutdown: CancellationToken) {
        let service = service_fn(move |request: Request<_>| {
            let response = self.answer(request.method(), request.uri().path());
            std::future::ready(Ok::<_, Infallible>(response))
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service);
        tokio::select! {
            () = shutdown.cancelled() => {}
            ended = connection => {
                if let Err(error) = ended {
                    debug!(%error, "admin connection failed");
                }
            }
        }
    }

    fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        let reads = method == Method::GET || method == Method::HEAD;
        match path {
            "/metrics" if reads => {
                let mut response = plain(StatusCode::OK, self.exporter.render());
                let format = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
                response.headers_mut().insert(CONTENT_TYPE, format);
                response
            }
            "/healthz" if reads => plain(StatusCode::OK, "ok\n"),
            "/readyz" if reads => match (self.ready)() {
                Ok(()) => plain(StatusCode::OK, "ready\n"),
                Err(reason) => plain(StatusCode::SERVICE_UNAVAILABLE, reason + "\n"),
            },
            "/drain" if method == Method::POST => {
                info!("drain was asked for");
                self.drain.cancel();
                plain(StatusCode::ACCEPTED, "draining\n")
            }
            "/metrics" | "/healthz" | "/readyz" => not_allowed("GET, HEAD"),
            "/drain" => not_allowed("POST"),
            _ => plain(StatusCode::NOT_FOUND, "there are /metrics, /healthz, /readyz and /drain\n"),
        }
    }
}

fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    let format = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, format);
    response
}

fn not_allowed(methods: &'static str) -> Response<Full<Bytes>> {
    let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
    response
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::metrics::Gauges;

    fn admin(ready: impl Fn() -> Result<(), String> + Send + Sync + 'static) -> Admin {
        Admin::new(Exporter::new(Gauges::default), ready, CancellationToken::new())
    }

    #[test]
    fn readiness_is_asked_for_at_each_request() {
        let is_ready = Arc::new(AtomicBool::new(false));
        let asked = is_ready.clone();
        let admin =
            admin(
                move || {
                    if asked.load(Ordering::Relaxed) { Ok(()) } else { Err("no leader".to_owned()) }
                },
            );
        let status = || admin.answer(&Method::GET, "/readyz").status();
        assert_eq!(status(), StatusCode::SERVICE_UNAVAILABLE);
        is_ready.store(true, Ordering::Relaxed);
        assert_eq!(status(), StatusCode::OK);
    }

    #[test]
    fn drain_needs_a_post() {
        let admin = admin(|| Ok(()));
        let refused = admin.answer(&Method::GET, "/drain");
        assert_eq!(refused.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(refused.headers()[ALLOW], "POST");
        assert!(!admin.drain.is_cancelled());
        assert_eq!(admin.answer(&Method::POST, "/drain").status(), StatusCode::ACCEPTED);
        assert!(admin.drain.is_cancelled());
    }

    #[test]
    fn other_paths_and_methods_are_refused() {
        let admin = admin(|| Ok(()));
        assert_eq!(admin.answer(&Method::GET, "/").status(), StatusCode::NOT_FOUND);
        let refused = admin.answer(&Method::POST, "/metrics").status();
        assert_eq!(refused, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(admin.answer(&Method::HEAD, "/healthz").status(), StatusCode::OK);
    }

    async fn get(address: std::net::SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn port_answers_until_shutdown_and_leaves_no_task_behind() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tasks, shutdown) = (TaskTracker::new(), CancellationToken::new());
        let admin = Arc::new(admin(|| Err("starting".to_owned())));
        tasks.spawn(admin.serve(listener, tasks.clone(), shutdown.clone()));

        let metrics = get(address, "/metrics").await;
        assert!(metrics.starts_with("HTTP/1.1 200 OK\r\n"), "{metrics}");
        assert!(metrics.contains("flotilla_connections 0\n"), "{metrics}");
        let ready = get(address, "/readyz").await;
        assert!(ready.starts_with("HTTP/1.1 503 ") && ready.ends_with("starting\n"), "{ready}");

        // One that says nothing does not hold up the end.
        let _silent = TcpStream::connect(address).await.unwrap();
        shutdown.cancel();
        tasks.close();
        tasks.wait().await;
        assert!(TcpStream::connect(address).await.is_err());
    }
}
