//! LoopBack's example of Socket.IO controllers: channels, messages to them, and a log of all events.
//!
//! `make example-controllers` runs it on three nodes, each with a page to try it with.

use std::error::Error as StdError;
use std::future::IntoFuture as _;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::response::Html;
use axum::routing::get;
use clap::Parser as _;
use flotilla::apps::controllers::{Error, RouteError, SocketServer, controller};
use flotilla::config::{Args as Arguments, Config};
use flotilla::node::Node;
use flotilla::server::{Args, EventName, Io, NamespaceHandle, Reason, Socket};
use flotilla::telemetry;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;

type Failure = Box<dyn StdError + Send + Sync>;

#[derive(Default)]
struct MessagesController;

#[controller]
impl MessagesController {
    #[connect]
    async fn connect(&self, socket: Socket) {
        info!(socket = %socket.id(), "a client is here");
        socket.emit("welcome", &socket.id());
    }

    /// Joins channels, which are rooms.
    #[subscribe("subscribe-to-channel")]
    async fn subscribe_to_channel(
        &self,
        socket: Socket,
        channels: Vec<String>,
    ) -> Result<Vec<String>, Error> {
        if channels.iter().any(String::is_empty) {
            return Err(Error::new("a channel has a name").with_code("E_CHANNEL"));
        }
        socket.join(channels.clone()).await?;
        Ok(channels)
    }

    /// To everyone, as it came.
    #[subscribe("general-message-forward")]
    async fn forward(&self, namespace: NamespaceHandle, message: Args) -> Result<(), Error> {
        let event = message.into_event("general-message-forward");
        Ok(namespace.operator().emit_payload(event).await?)
    }

    /// To the channels, or the sockets, that its JSON names as receivers.
    #[subscribe("general-message")]
    async fn general_message(
        &self,
        namespace: NamespaceHandle,
        message: String,
    ) -> Result<usize, Error> {
        let message: Message = serde_json::from_str(&message)?;
        let Message { subject, body, receiver, options } = message;
        let sent = json!({"subject": subject, "body": body, "options": options});
        let rooms: Vec<_> = receiver.to.into_iter().map(|receiver| receiver.id).collect();
        let count = rooms.len();
        for room in rooms {
            namespace.to(room).emit("message", &sent).await?;
        }
        Ok(count)
    }

    /// Sees every event, and leaves the acks to those above.
    #[subscribe(regex = ".+")]
    fn log(&self, socket: Socket, EventName(event): EventName, message: Args) {
        info!(socket = %socket.id(), event, message = message.text(), "an event");
    }

    #[disconnect]
    fn disconnect(&self, socket: Socket, Reason(reason): Reason) {
        info!(socket = %socket.id(), reason, "a client has left");
    }
}

#[derive(Deserialize)]
struct Message {
    subject: String,
    body: Value,
    receiver: Receivers,
    #[serde(default)]
    options: Value,
}

#[derive(Deserialize)]
struct Receivers {
    to: Vec<Receiver>,
}

#[derive(Deserialize)]
struct Receiver {
    id: String,
}

pub fn application(io: &Io) -> Result<(), RouteError> {
    SocketServer::new(io).controller::<MessagesController>()?;
    Ok(())
}

/// A page to try it with, beside the sockets.
fn pages(node: &Node) -> Router {
    let sockets = node
        .layer()
        .with_address(|extensions| extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0));
    Router::new()
        .route(
            "/",
            get(async || {
                Html(concat!(include_str!("page.html"), include_str!("controllers.html")))
            }),
        )
        .layer(sockets)
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let config = Config::load(&Arguments::parse())?;
    telemetry::start_log(&config.log)?;
    let listener = TcpListener::bind(config.listen.address).await?;
    let mut terminate = signal(SignalKind::terminate())?;

    let mut registered = Ok(());
    let node = Node::embed(Arc::new(config), |io| registered = application(io)).await?;
    registered?;
    let pages = pages(&node).into_make_service_with_connect_info::<SocketAddr>();
    tokio::select! {
        served = axum::serve(listener, pages).into_future() => served?,
        _ = terminate.recv() => {}
        stop = tokio::signal::ctrl_c() => stop?,
    }
    Ok(node.drain().await?)
}
