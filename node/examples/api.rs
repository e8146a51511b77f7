//! The server half of api.io's README, on as many nodes as you like.
//!
//! `make example-api` runs it on three; api.io's own client connects to any of them, and so does the page at `/`.

use std::error::Error;
use std::sync::Arc;

use clap::Parser as _;
use flotilla::apps::api::{Api, ApiHandle, RegisterError, api};
use flotilla::config::{Args, Config};
use flotilla::node::Node;
use flotilla::server::{EmitError, Io, Session, SessionError, Socket};
use flotilla::telemetry;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

struct MyApi;

#[api]
impl MyApi {
    #[export]
    const VALUE: &'static str = "const";

    #[export]
    fn sum(a: f64, b: f64) -> f64 {
        a + b
    }

    #[export]
    async fn login(session: Session, name: String) -> Result<(), SessionError> {
        let renamed = session.update(move |session| {
            session.insert("username".to_owned(), name.clone().into());
        });
        renamed.await
    }

    #[export]
    async fn send(my_api: ApiHandle, data: Value) -> Result<(), EmitError> {
        // The ack comes after the event, for this is awaited.
        my_api.emit("event4", &data).await
    }

    /// To all that subscribe to event1, and to the guests among those of event2.
    #[export]
    async fn announce(my_api: ApiHandle) -> Result<(), EmitError> {
        my_api.emit("event1", "Hello World!");
        my_api.emit_filtered("event2", "Hello, guest!", json!({"username": "guest"}));
        for value in 1..=5 {
            my_api.emit("event3", &json!({"value": value})).await?;
        }
        Ok(())
    }
}

struct MyApi2;

#[api]
impl MyApi2 {
    #[export]
    async fn send(my_api2: ApiHandle) -> Result<(), EmitError> {
        my_api2.emit("eventX", "Over myApi2").await
    }
}

fn application(io: &Io) -> Result<(), RegisterError> {
    let api = Api::new(io);
    api.register("myApi", MyApi)?;
    api.register("myApi2", MyApi2)?;
    api.on_connection(async |socket: Socket| {
        let named = socket.session().update(|session| {
            session.entry("username").or_insert_with(|| "guest".into());
        });
        // Without its name a client misses what is meant for guests, and nothing else.
        let _ = named.await;
    });
    api.serve_definitions(io, "/api.io/definitions.json");
    io.engine().page("/", "text/html; charset=utf-8", || include_str!("api.html").into());
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let config = Config::load(&Args::parse())?;
    telemetry::start_log(&config.log)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut registered = Ok(());
    let node = Node::start_with(Arc::new(config), |io| registered = application(io)).await?;
    registered?;
    tokio::select! {
        _ = terminate.recv() => {}
        stop = tokio::signal::ctrl_c() => stop?,
    }
    Ok(node.drain().await?)
}
