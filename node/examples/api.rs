//! The server half of api.io's README, on as many nodes as you like.
//!
//! `make example-api` runs it on three; api.io's own client connects to any of them, and so does the page at `/`.

use std::error::Error;
use std::sync::Arc;

use clap::Parser as _;
use flotilla::apps::api::{Api, ApiError, Exports, RegisterError};
use flotilla::config::{Args, Config};
use flotilla::node::Node;
use flotilla::server::{Io, Session, Socket};
use flotilla::telemetry;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

fn application(io: &Io) -> Result<(), RegisterError> {
    let api = Api::new(io);
    api.register("myApi", my_api(&api))?;

    let my_api2 = api.handle("myApi2");
    let send = move |_: Session, ()| {
        let my_api2 = my_api2.clone();
        async move { Ok::<_, ApiError>(my_api2.emit("eventX", "Over myApi2").await?) }
    };
    api.register("myApi2", Exports::new().function("send", [""; 0], send))?;

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

fn my_api(api: &Api) -> Exports {
    let [sending, announcing] = [api.handle("myApi"), api.handle("myApi")];
    Exports::new()
        .constant("VALUE", "const")
        .function("sum", ["a", "b"], async |_: Session, (a, b): (i64, i64)| Ok(a + b))
        .function("login", ["name"], async |session: Session, name: String| {
            let renamed = session.update(move |session| {
                session.insert("username".to_owned(), name.clone().into());
            });
            Ok(renamed.await?)
        })
        .function("send", ["data"], move |_: Session, data: Value| {
            let sending = sending.clone();
            async move { Ok(sending.emit("event4", &data).await?) }
        })
        .function("announce", [""; 0], move |_: Session, ()| {
            let my_api = announcing.clone();
            async move {
                // To all that subscribe to event1, and to the guests among those of event2.
                my_api.emit("event1", "Hello World!");
                my_api.emit_filtered("event2", "Hello, guest!", json!({"username": "guest"}));
                for value in 1..=5 {
                    my_api.emit("event3", &json!({"value": value})).await?;
                }
                Ok::<_, ApiError>(())
            }
        })
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
