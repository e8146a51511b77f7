//! A small socketioxide application, ported: docs/from-socketioxide.md has the original.

use std::error::Error;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::{get, post};
use clap::Parser as _;
use flotilla::config::{Args, Config};
use flotilla::node::Node;
use flotilla::server::{Ack, ConnectError, Data, Io, Socket};
use serde::Deserialize;
use tokio::net::TcpListener;

type Failure = Box<dyn Error + Send + Sync>;

#[derive(Deserialize)]
struct Login {
    name: String,
}

async fn guard(socket: Socket) -> Result<(), ConnectError> {
    match socket.auth::<Login>() {
        Ok(login) if !login.name.is_empty() => Ok(()),
        _ => Err(ConnectError::new("who are you?")),
    }
}

fn votes(io: &Io) {
    io.of("/votes")
        .with(guard)
        .on("follow", async |socket: Socket, Data(poll): Data<String>, ack: Ack| {
            let followed = socket.join(poll).await;
            ack.send(&followed.is_ok()).expect("a bool is JSON");
        })
        .on("vote", async |socket: Socket, Data((poll, choice)): Data<(String, String)>| {
            socket.namespace().within(poll).emit("voted", &choice);
        })
        .on_disconnect(async |socket: Socket| {
            socket.broadcast().emit("left", &socket.id());
        });
}

async fn close(State(io): State<Io>, Path(poll): Path<String>) {
    io.of("/votes").to(poll).emit("closed", &());
}

pub(crate) async fn serve(listener: TcpListener, config: Config) -> Result<(), Failure> {
    let node = Node::embed(Arc::new(config), votes).await?;
    let app = Router::new()
        .route("/", get(async || "votes"))
        .route("/close/{poll}", post(close))
        .with_state(node.io().clone())
        .layer(node.layer());
    Ok(axum::serve(listener, app).await?)
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let config = Config::load(&Args::parse())?;
    let listener = TcpListener::bind(config.listen.address).await?;
    serve(listener, config).await
}
