//! A small application of Socket.IO for Node.js, ported: docs/from-socket.io.md has the original.

use std::error::Error;
use std::sync::Arc;

use clap::Parser as _;
use flotilla::config::{Args, Config};
use flotilla::engineio::{CookieConfig, CorsConfig, EngineConfig, Origins};
use flotilla::node::Node;
use flotilla::server::{Ack, ConnectError, Data, Io, Reason, Socket};
use http::HeaderValue;
use serde_json::Value;

type Failure = Box<dyn Error + Send + Sync>;

/// What stood in the options of `new Server`. It could as well stand in the configuration file.
pub(crate) fn options(config: Config) -> Config {
    let origin = Origins::One("https://app.example".to_owned());
    let engine = EngineConfig {
        cors: Some(CorsConfig { origin, credentials: true, ..CorsConfig::default() }),
        cookie: Some(CookieConfig::default()),
        ..config.engine
    };
    Config { engine, ..config }
}

pub(crate) fn votes(io: &Io) {
    io.engine().on_initial_headers(|headers, _request| {
        headers.insert("x-served-by", HeaderValue::from_static("votes"));
    });
    io.of("/")
        .with(async |socket: Socket| {
            let auth: Value = socket.auth().unwrap_or_default();
            if auth["name"].is_string() { Ok(()) } else { Err(ConnectError::new("who are you?")) }
        })
        .on("follow", async |socket: Socket, Data(poll): Data<String>, ack: Ack| {
            let followed = socket.join(poll).await;
            ack.send(&followed.is_ok()).expect("a bool is JSON");
        })
        .on("vote", async |io: Io, Data((poll, choice)): Data<(String, String)>| {
            io.to(poll).emit("voted", &choice);
        })
        .on("count", async |io: Io, Data(poll): Data<String>, ack: Ack| {
            ack.send(&io.to(poll).fetch_sockets().len()).expect("a number is JSON");
        })
        .on_disconnect(async |socket: Socket, Reason(reason): Reason| {
            socket.broadcast().emit("left", &(socket.id(), reason));
        });
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let config = options(Config::load(&Args::parse())?);
    let node = Node::start_with(Arc::new(config), votes).await?;
    tokio::signal::ctrl_c().await?;
    Ok(node.drain().await?)
}
