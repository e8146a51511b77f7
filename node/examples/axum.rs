//! A node inside an axum application: its pages and its sockets on one port, which is its own.
//!
//! `cargo run --example axum -- --data-dir target/axum`; several of them are a cluster, as with
//! `flotilla` itself. Then `curl localhost:3001/say/hello` speaks to every client of the cluster.

use std::error::Error;
use std::future::IntoFuture as _;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{ConnectInfo, Path, Request, State};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::get;
use clap::Parser as _;
use flotilla::config::{Args, Config};
use flotilla::node::Node;
use flotilla::server::{Ack, Io, Socket};
use flotilla::telemetry;
use tokio::net::TcpListener;

type Failure = Box<dyn Error + Send + Sync>;

/// What the application's own middleware found out about whoever asks.
#[derive(Clone)]
struct Visitor {
    language: String,
}

fn sockets(io: &Io) {
    io.of("/").on_connect(async |socket: Socket| {
        // The handshake has what middleware put into the request.
        let visitor = socket.handshake().extensions.get::<Visitor>();
        let language = visitor.map_or("en", |visitor| &visitor.language);
        socket.emit("greeting", if language.starts_with("de") { "Hallo" } else { "Hello" });
    });
    io.of("/").on("where am I", async |socket: Socket, ack: Ack| {
        ack.send(&socket.handshake().address.ip()).expect("an address is JSON");
    });
}

async fn recognize(mut request: Request, next: Next) -> Response {
    let language = request.headers().get("accept-language");
    let language = language.and_then(|language| language.to_str().ok()).unwrap_or("en");
    let visitor = Visitor { language: language.to_owned() };
    request.extensions_mut().insert(visitor);
    next.run(request).await
}

/// Speaks to all clients of the cluster; the answer comes once it is agreed.
async fn say(State(io): State<Io>, Path(text): Path<String>) -> String {
    match io.emit("said", &text).await {
        Ok(()) => "said".to_owned(),
        Err(error) => error.to_string(),
    }
}

fn application(node: &Node) -> Router {
    let layer = node
        .layer()
        .with_address(|extensions| extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0));
    Router::new()
        .route("/", get(async || "a page of the application"))
        .route("/say/{text}", get(say))
        .with_state(node.io().clone())
        .layer(layer)
        .layer(from_fn(recognize))
}

pub(crate) async fn serve(
    listener: TcpListener,
    config: Config,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Failure> {
    let node = Node::embed(Arc::new(config), sockets).await?;
    let application = application(&node).into_make_service_with_connect_info::<SocketAddr>();
    tokio::select! {
        served = axum::serve(listener, application).into_future() => served?,
        () = stop => {}
    }
    // The clients are asked away, and the cluster is told.
    Ok(node.drain().await?)
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let config = Config::load(&Args::parse())?;
    telemetry::start_log(&config.log)?;
    let listener = TcpListener::bind(config.listen.address).await?;
    let stop = async { tokio::signal::ctrl_c().await.unwrap_or_default() };
    serve(listener, config, stop).await
}
