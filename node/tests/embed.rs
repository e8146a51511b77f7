//! The transport inside other HTTP servers.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::extract::{ConnectInfo, Request};
use axum::middleware::{Next, from_fn};
use axum::routing::get;
use flotilla::engineio::{CloseReason, EngineConfig};
use flotilla::transport::{EngineLayer, Exchange};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use support::http::{receive, send};
use support::{Node, Ws, message};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;

/// A node whose clients come by another server, at the address that it has from now on.
async fn behind<F: Future<Output = ()> + Send + 'static>(
    config: EngineConfig,
    serve: impl FnOnce(TcpListener, EngineLayer) -> F,
) -> Node {
    let mut node = Node::with(config).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    node.address = listener.local_addr().unwrap();
    let layer = EngineLayer::new(Arc::clone(&node.transport));
    // It ends with the test's runtime.
    TaskTracker::new().spawn(serve(listener, layer));
    node
}

async fn behind_axum() -> Node {
    behind(EngineConfig::default(), async |listener, layer: EngineLayer| {
        let layer = layer.with_address(|extensions| {
            extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0)
        });
        let app = Router::new().route("/hello", get(async || "of the application")).layer(layer);
        let app = app.layer(from_fn(async |mut request: Request, next: Next| {
            request.extensions_mut().insert(Tenant("acme"));
            next.run(request).await
        }));
        let app = app.into_make_service_with_connect_info::<SocketAddr>();
        axum::serve(listener, app).await.unwrap();
    })
    .await
}

#[derive(Clone, Debug, PartialEq)]
struct Tenant(&'static str);

/// A stream that is no `TcpStream`, as one with TLS would be.
struct Wrapped(TcpStream);

impl AsyncRead for Wrapped {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Wrapped {
    /// A little at a time, so that every write stops somewhere.
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, &bytes[..bytes.len().min(1000)])
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

/// hyper alone, on streams that `wrap` makes.
async fn behind_hyper<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    wrap: impl Fn(TcpStream) -> S + Send + 'static,
) -> Node {
    behind(EngineConfig::default(), async move |listener: TcpListener, layer: EngineLayer| {
        let tasks = TaskTracker::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let stream = TokioIo::new(wrap(stream));
            let service = layer.clone().into_service();
            let serving = http1::Builder::new().serve_connection(stream, service).with_upgrades();
            tasks.spawn(async move {
                let _ = serving.await;
            });
        }
    })
    .await
}

/// All that a client does: polling, upgrade, WebSocket from scratch.
async fn journey(node: &Node) {
    let sid = node.open().await;
    assert_eq!(node.post(&sid, "4by polling").await.body, "ok");
    assert_eq!(node.poll(&sid).await.body, "4by polling");
    let mut upgraded = node.connect(&format!("transport=websocket&sid={sid}")).await;
    upgraded.send("2probe").await;
    assert_eq!(upgraded.text().await, "3probe");
    upgraded.feed(&["5", "4upgraded"]).await;
    assert_eq!(upgraded.text().await, "4upgraded");

    let mut ws = node.websocket().await;
    flood(node, &mut ws).await;
    assert_eq!(node.transport.connection_count(), 2);
    drop((upgraded, ws));
    let reasons = node.echo.closed(2).await;
    assert_eq!(reasons, [CloseReason::TransportClose; 2]);
}

/// More than a stream takes at once, in both directions.
async fn flood(node: &Node, ws: &mut Ws) {
    let long = "x".repeat(100_000);
    for _ in 0..20 {
        node.echo.outbox(1).push(message(&long));
    }
    ws.send(&format!("4{long}")).await;
    for _ in 0..21 {
        assert_eq!(ws.text().await.len(), 100_001);
    }
    ws.send("4the end").await;
    assert_eq!(ws.text().await, "4the end");
}

#[tokio::test]
async fn clients_of_an_axum_application_are_served() {
    let node = behind_axum().await;
    journey(&node).await;
    node.stop().await;
}

#[tokio::test]
async fn clients_behind_hyper_alone_are_served() {
    let node = behind_hyper(|stream| stream).await;
    journey(&node).await;
    assert_eq!(node.request("GET /hello HTTP/1.1", "").await.status, 404);
    node.stop().await;
}

#[tokio::test]
async fn streams_other_than_tcp_are_served() {
    let node = behind_hyper(Wrapped).await;
    journey(&node).await;
    node.stop().await;
}

#[tokio::test]
async fn what_is_not_engine_io_is_the_applications() {
    let node = behind_axum().await;
    assert_eq!(node.request("GET /hello HTTP/1.1", "").await.body, "of the application");
    assert_eq!(node.request("GET /nothing HTTP/1.1", "").await.status, 404);
    let refused = node.get("EIO=4&transport=none").await;
    assert_eq!(refused.body, r#"{"code":0,"message":"Transport unknown"}"#);
    let long = "x".repeat(1_000_001);
    let sid = node.open().await;
    assert_eq!(node.post(&sid, &long).await.status, 413);
    node.stop().await;
}

#[tokio::test]
async fn handshake_has_the_address_and_the_extensions_of_the_application() {
    let node = behind_axum().await;
    let head = "GET /socket.io/?EIO=4&transport=polling HTTP/1.1";
    let stream = send(node.address, head, b"").await;
    let address = stream.local_addr().unwrap();
    assert_eq!(receive(stream).await.status, 200);
    let ws = node.websocket().await;
    let handshakes = node.echo.handshakes.lock().unwrap().clone();
    assert_eq!(handshakes[0].address, address);
    for handshake in &handshakes {
        assert_eq!(handshake.extensions.get(), Some(&Tenant("acme")));
    }
    drop(ws);
    node.stop().await;
}

#[tokio::test]
async fn shutdown_of_the_node_closes_embedded_clients() {
    let node = behind_axum().await;
    let mut ws = node.websocket().await;
    let sid = node.open().await;
    let poll = node.begin_open_poll(&sid).await;
    node.shutdown.cancel();
    assert_eq!(ws.close_code().await, 1005);
    assert_eq!(receive(poll).await.body, "1");
    node.stop().await;
}

#[tokio::test]
async fn hooks_act_on_embedded_requests() {
    let node = behind_axum().await;
    node.echo.engine.with(async |mut exchange: Exchange| {
        let tenant = exchange.request.extensions.get::<Tenant>().unwrap().0;
        exchange.headers.insert("x-tenant", tenant.parse().unwrap());
        Ok(exchange)
    });
    assert_eq!(node.get("EIO=4&transport=polling").await.headers["x-tenant"], "acme");
    node.stop().await;
}

/// Any tower service will do behind the layer.
#[tokio::test]
async fn layer_stands_in_front_of_any_service() {
    let node = behind(EngineConfig::default(), async |listener: TcpListener, layer| {
        let behind = tower::service_fn(async |request: hyper::Request<hyper::body::Incoming>| {
            Ok::<_, Infallible>(hyper::Response::new(request.uri().path().to_owned()))
        });
        let service = tower::Layer::layer(&layer, behind);
        let tasks = TaskTracker::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = service.clone();
            let service =
                service_fn(move |request| tower::Service::call(&mut service.clone(), request));
            let serving = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tasks.spawn(async move {
                let _ = serving.with_upgrades().await;
            });
        }
    })
    .await;
    assert_eq!(node.request("GET /hello HTTP/1.1", "").await.body, "/hello");
    journey(&node).await;
    node.stop().await;
}
