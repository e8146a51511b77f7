//! A chat of one's own on the server API: names, rooms, who is there, and a question to all.
//!
//! `cargo run --example chat -- --config node/examples/chat.toml`; every setting of the node can be
//! given as for `flotilla` itself, so that several of them are a cluster.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser as _;
use flotilla::config::{Args, Config};
use flotilla::node::Node;
use flotilla::server::{Ack, AckError, Auth, ConnectError, Data, Io, Reason, Socket};
use flotilla::telemetry;
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Login {
    name: String,
}

fn chat(io: &Io) {
    io.of("/chat")
        .with(async |socket: Socket| match socket.auth::<Login>() {
            Ok(login) if !login.name.is_empty() => Ok(()),
            _ => Err(ConnectError::with_data("no name", json!({"hint": "auth: {name}"}))),
        })
        .on_connect(async |socket: Socket, Auth(login): Auth<Login>| {
            let name = login.name.clone();
            socket.session().update(move |session| {
                session.insert("name".to_owned(), name.clone().into());
            });
            socket.broadcast().emit("joined", &login.name);
        })
        .on("enter", async |socket: Socket, Data(room): Data<String>, ack: Ack| {
            // From here on, what any node sends to the room reaches this client.
            let entered = socket.join(room).await;
            ack.send(&entered.is_ok()).expect("a bool is JSON");
        })
        .on("say", async |socket: Socket, Data((room, text)): Data<(String, String)>| {
            let name = socket.session().get().get("name").cloned().unwrap_or_default();
            socket.namespace().to(room).emit("said", &(name, text));
        })
        .on("typing", async |socket: Socket, Data(room): Data<String>| {
            socket.to(room).volatile().emit("typing", &socket.id());
        })
        .on("whisper", async |socket: Socket, Data((name, text)): Data<(String, String)>| {
            socket.namespace().session(json!({"name": name})).emit("whispered", &text);
        })
        .on(
            "poll",
            async |socket: Socket, Data((room, question)): Data<(String, String)>, ack: Ack| {
                let asked = socket.to(room).timeout(Duration::from_secs(10));
                let answers = match asked.emit_with_ack("question", &question).await {
                    Ok(answers) | Err(AckError::Partial { answers }) => answers.len(),
                    Err(_) => 0,
                };
                ack.send(&answers).expect("a number is JSON");
            },
        )
        // Not later: a session goes with its client's last socket.
        .on_disconnecting(async |socket: Socket, Reason(reason): Reason| {
            let name = socket.session().get().get("name").cloned().unwrap_or(Value::Null);
            socket.broadcast().emit("left", &(name, reason));
        });
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let config = Config::load(&Args::parse())?;
    telemetry::start_log(&config.log)?;
    let node = Node::start_with(Arc::new(config), chat).await?;
    tokio::signal::ctrl_c().await?;
    Ok(node.drain().await?)
}
