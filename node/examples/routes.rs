//! The examples of express.io's README as one application: routes for sockets and for HTTP.
//!
//! `make example-routes` runs it on three nodes, each with a page to try it with.

use std::error::Error;
use std::future::IntoFuture as _;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{ConnectInfo, Request as HttpRequest, State};
use axum::response::Html;
use axum::routing::{any, get};
use clap::Parser as _;
use flotilla::apps::routes::{Group, InvalidRoute, Request, RouteError, Routes, Table};
use flotilla::config::{Args, Config};
use flotilla::node::Node;
use flotilla::server::{Io, Secret, SessionSource};
use flotilla::telemetry;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

type Failure = Box<dyn Error + Send + Sync>;

pub fn application(io: &Io) -> Result<Routes, InvalidRoute> {
    let app = Routes::new(io);

    // "A simple example": an event for an event.
    app.route("ready", async |req: Request| {
        req.io().emit("talk", &json!({"message": "io event from an io route on the server"}));
    })?;

    // "Broadcasting": to all others, and to all.
    app.route("visit", async |req: Request| {
        req.io().broadcast("new visitor", &());
    })?;
    app.route("announce", async |req: Request| -> Result<(), RouteError> {
        req.routes().broadcast("announce", &req.data::<Value>()?);
        Ok(())
    })?;

    // "Acknowledgements".
    app.route("question", async |req: Request| {
        req.io().respond(&json!({"success": "here is your acknowledgement data"}));
    })?;

    // "Rooms": those who are there hear of the new one.
    app.route("enter", async |req: Request| -> Result<(), RouteError> {
        let room: String = req.data()?;
        req.io().join(&*room).await?;
        let message = format!("New client in the {room} room.");
        // Awaited, so that whoever is asked in by this answer does not hear of it.
        req.io().room(&*room).broadcast("announce", &json!({"message": message})).await?;
        req.io().respond(&());
        Ok(())
    })?;

    // "Sessions": what a client says at one event, another event knows.
    app.route("name", async |req: Request| -> Result<(), RouteError> {
        let name: String = req.data()?;
        let named = req.session()?.update(move |session| {
            session.insert("name".to_owned(), name.clone().into());
        });
        named.await?;
        req.io().emit("get feelings", &());
        Ok(())
    })?;
    app.route("send feelings", async |req: Request| -> Result<(), RouteError> {
        let feelings: Value = req.data()?;
        let session = req.session()?;
        let felt = session.update(move |session| {
            session.insert("feelings".to_owned(), feelings.clone());
        });
        felt.await?;
        req.io().emit("session", &*session.get());
        Ok(())
    })?;

    // The same session over HTTP: `/visits` is forwarded here.
    app.route("visits", async |req: Request| -> Result<(), RouteError> {
        let session = req.session()?;
        let visited = session.update(|session| {
            let visits = session.get("visits").and_then(Value::as_u64).unwrap_or(0);
            session.insert("visits".to_owned(), (visits + 1).into());
        });
        visited.await?;
        req.io().respond(&session.get()["visits"]);
        Ok(())
    })?;

    // "Routing": one object, several events; and "realtime forwarding": the same for HTTP.
    app.route("customers", customers())?;

    // "Forwarding": to another route, with the same data and the same ack.
    app.route("hello", async |req: Request| {
        req.io().respond(&json!({"hello": "from io route"}));
    })?;
    app.route("greet", async |req: Request| req.io().route("hello").await)?;
    Ok(app)
}

fn customers() -> Group {
    Group::new()
        .route("create", async |req: Request| -> Result<(), RouteError> {
            let customer: Value = req.data()?;
            req.io().broadcast("customer created", &customer);
            req.io().respond(&json!({"created": customer}));
            Ok(())
        })
        .route("read", async |req: Request| {
            req.io().respond(&json!({"read": req.param("id")}));
        })
        .route("update", async |req: Request| -> Result<(), RouteError> {
            req.io().respond(&json!({"updated": req.data::<Value>()?}));
            Ok(())
        })
        .route("delete", async |req: Request| {
            req.io().respond(&json!({"deleted": req.param("id")}));
        })
}

/// The pages: one to try the routes with, `/hello` and `/visits` that routes answer, and
/// `/api/customers`.
fn pages(app: &Routes, node: &Node) -> Result<Router, Failure> {
    let sockets = node
        .layer()
        .with_address(|extensions| extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0));
    let hello =
        async |State(app): State<Routes>, request: HttpRequest| app.forward(request, "hello").await;
    let visits = async |State(app): State<Routes>, request: HttpRequest| {
        app.forward(request, "visits").await
    };
    Ok(Router::new()
        .route(
            "/",
            get(async || Html(concat!(include_str!("page.html"), include_str!("routes.html")))),
        )
        .route("/hello", any(hello))
        .route("/visits", get(visits))
        .with_state(app.clone())
        .layer(app.forward_layer(Table::backbone().under("/api"))?)
        // Outside of the routes, so that they find the session in the request.
        .layer(node.session_layer())
        .layer(sockets))
}

/// As express.io has it: a signed cookie, or a cookie header in the handshake's query.
fn with_sessions(mut config: Config) -> Config {
    config.session.sources = vec![SessionSource::Cookie, SessionSource::Query];
    config.session.cookie.name = "connect.sid".to_owned();
    config.session.query_parameter = "cookie".to_owned();
    if config.session.secrets.is_empty() {
        config.session.secrets = vec![Secret::from("an example's")];
    }
    config
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let config = with_sessions(Config::load(&Args::parse())?);
    telemetry::start_log(&config.log)?;
    let listener = TcpListener::bind(config.listen.address).await?;
    let mut terminate = signal(SignalKind::terminate())?;

    let mut app = None;
    let node = Node::embed(Arc::new(config), |io| app = Some(application(io))).await?;
    let app = app.expect("a node that starts registers its application")?;
    let pages = pages(&app, &node)?.into_make_service_with_connect_info::<SocketAddr>();
    tokio::select! {
        served = axum::serve(listener, pages).into_future() => served?,
        _ = terminate.recv() => {}
        stop = tokio::signal::ctrl_c() => stop?,
    }
    Ok(node.drain().await?)
}
