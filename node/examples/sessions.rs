//! Sessions that pages and sockets share: an axum application that users log in to.
//!
//! `cargo run --example sessions -- --data-dir target/sessions --set session.secrets=change-me`; several
//! of them, with the same secrets, are a cluster, and a user is known to each of them.

use std::error::Error;
use std::future::IntoFuture as _;
use std::sync::Arc;

use axum::extract::Path;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Extension, Router};
use clap::Parser as _;
use flotilla::config::{Args, Config};
use flotilla::node::Node;
use flotilla::server::{Ack, Io, Session, SessionError, SessionSource, Socket};
use flotilla::telemetry;
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpListener;

type Failure = Box<dyn Error + Send + Sync>;

/// What the application keeps of a user.
#[derive(Default, Deserialize)]
#[serde(default)]
struct User {
    name: Option<String>,
    visits: u64,
}

fn user(session: &Session) -> User {
    session.get_as().unwrap_or_default()
}

fn sockets(io: &Io) {
    io.of("/")
        .on_connect(async |socket: Socket| {
            let name = user(&socket.session()).name;
            socket.emit("hello", &name.unwrap_or_else(|| "stranger".to_owned()));
        })
        .on("visit", async |session: Session, ack: Ack| {
            let visits = visit(&session).await;
            ack.send(&visits.map_err(SessionError::as_str)).expect("a number is JSON");
        });
}

/// Counts, whoever counts at the same time: by a page or a socket, on this node or another.
async fn visit(session: &Session) -> Result<u64, SessionError> {
    session
        .update(|session| {
            let visits = session.get("visits").and_then(|visits| visits.as_u64()).unwrap_or(0);
            session.insert("visits".to_owned(), json!(visits + 1));
        })
        .await?;
    Ok(user(session).visits)
}

fn failed(error: SessionError) -> (StatusCode, String) {
    (StatusCode::SERVICE_UNAVAILABLE, error.to_string())
}

async fn page(Extension(session): Extension<Session>) -> Result<String, (StatusCode, String)> {
    let visits = visit(&session).await.map_err(failed)?;
    let name = user(&session).name.unwrap_or_else(|| "stranger".to_owned());
    Ok(format!("hello {name}, visit {visits}"))
}

async fn login(
    Path(name): Path<String>,
    Extension(session): Extension<Session>,
    Extension(io): Extension<Io>,
) -> Result<String, (StatusCode, String)> {
    // Another id: whoever knew the one from before is not logged in with it.
    let session = session.regenerate().await.map_err(failed)?;
    let user = json!(name);
    let named =
        session.update(move |session| drop(session.insert("name".to_owned(), user.clone())));
    named.await.map_err(failed)?;
    // To all sockets of users of that name, on all nodes.
    io.of("/").session(json!({"name": name})).emit("logged in", &name);
    Ok(format!("welcome {name}"))
}

async fn logout(Extension(session): Extension<Session>) -> Result<(), (StatusCode, String)> {
    session.destroy().await.map_err(failed)
}

fn application(node: &Node) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/login/{name}", post(login))
        .route("/logout", post(logout))
        .layer(Extension(node.io().clone()))
        .layer(node.session_layer())
        .layer(node.layer())
}

fn with_sessions(mut config: Config) -> Config {
    config.session.sources = vec![SessionSource::Cookie];
    config.session.cookie.name = "sid".to_owned();
    config.session.index = vec!["name".to_owned()];
    config
}

pub(crate) async fn serve(listener: TcpListener, config: Config) -> Result<(), Failure> {
    let node = Node::embed(Arc::new(with_sessions(config)), sockets).await?;
    let application = application(&node);
    axum::serve(listener, application).into_future().await?;
    Ok(node.drain().await?)
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let config = Config::load(&Args::parse())?;
    telemetry::start_log(&config.log)?;
    let listener = TcpListener::bind(config.listen.address).await?;
    serve(listener, config).await
}
