//! A poll that is written in all four ways at once: an API, routes, a controller, and a plain handler.
//!
//! `make example-mixed` runs it on three nodes, each with a page. A vote is membership of a room, so that every
//! node counts the same votes, and one that dies takes those of its voters with it.

use std::error::Error;
use std::future::IntoFuture as _;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::response::Html;
use axum::routing::get;
use clap::Parser as _;
use flotilla::apps::api::{Api, ApiError, ApiHandle, api};
use flotilla::apps::controllers::{self, SocketServer, controller};
use flotilla::apps::routes::{Group, Request, RouteError, Routes, Table};
use flotilla::config::{Args, Config};
use flotilla::node::Node;
use flotilla::server::{Ack, Io, NamespaceHandle, Socket};
use flotilla::telemetry;
use serde_json::{Map, Value};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

type Failure = Box<dyn Error + Send + Sync>;

const OPTIONS: [&str; 3] = ["tea", "coffee", "mate"];

fn room(option: &str) -> String {
    format!("vote for {option}")
}

/// How many have voted for each option, on all nodes.
fn tally(voters: &NamespaceHandle) -> Value {
    let count = |option: &str| voters.to(room(option)).fetch_sockets().len().into();
    OPTIONS.iter().map(|option| ((*option).to_owned(), count(option))).collect::<Map<_, _>>().into()
}

/// `poll.vote(option)` for api.io's client, and `poll.changed` for whoever subscribes.
struct Poll;

#[api]
impl Poll {
    #[export]
    const OPTIONS: [&'static str; 3] = OPTIONS;

    #[export]
    async fn vote(poll: ApiHandle, voter: Socket, option: String) -> Result<Value, ApiError> {
        if !OPTIONS.contains(&&*option) {
            return Err(ApiError::new(format!("{option:?} is none of {OPTIONS:?}")));
        }
        drop(voter.leave(OPTIONS.map(room)));
        voter.join(room(&option)).await?;
        let tally = tally(&voter.namespace());
        poll.emit("changed", &tally).await?;
        Ok(tally)
    }
}

/// `poll:read` for sockets and, as `GET /api/poll`, for HTTP; `say` for a word to all others.
fn routes(io: &Io) -> Result<Routes, Failure> {
    let routes = Routes::new(io);
    let read = async |req: Request| {
        req.io().respond(&tally(req.routes().namespace()));
    };
    routes.route("poll", Group::new().route("read", read))?.route(
        "say",
        async |req: Request| -> Result<(), RouteError> {
            req.io().broadcast("said", &req.data::<String>()?);
            req.io().respond(&());
            Ok(())
        },
    )?;
    Ok(routes)
}

/// In a namespace of its own: whoever runs the poll.
#[derive(Default)]
struct DeskController;

#[controller("/desk")]
impl DeskController {
    /// Takes all votes back, and tells the voters.
    #[subscribe("restart")]
    async fn restart(&self, io: Io) -> Result<Value, controllers::Error> {
        let voters = io.of("/");
        voters.to(OPTIONS.map(room)).sockets_leave(OPTIONS.map(room)).await?;
        voters.emit("restarted", &()).await?;
        Ok(tally(&voters))
    }
}

fn application(io: &Io) -> Result<Routes, Failure> {
    Api::new(io).register("poll", Poll)?;
    SocketServer::new(io).controller::<DeskController>()?;
    io.of("/").on("voters", async |voter: Socket, ack: Ack| {
        let count = voter.namespace().operator().fetch_sockets().len();
        ack.send(&(count,)).expect("a number is JSON");
    });
    routes(io)
}

fn pages(routes: &Routes, node: &Node) -> Result<Router, Failure> {
    let sockets = node
        .layer()
        .with_address(|extensions| extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0));
    Ok(Router::new()
        .route(
            "/",
            get(async || Html(concat!(include_str!("page.html"), include_str!("mixed.html")))),
        )
        .layer(routes.forward_layer(Table::backbone().under("/api"))?)
        .layer(sockets))
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let config = Config::load(&Args::parse())?;
    telemetry::start_log(&config.log)?;
    let listener = TcpListener::bind(config.listen.address).await?;
    let mut terminate = signal(SignalKind::terminate())?;

    let mut routes = None;
    let node = Node::embed(Arc::new(config), |io| routes = Some(application(io))).await?;
    let routes = routes.expect("a node that starts registers its application")?;
    let pages = pages(&routes, &node)?.into_make_service_with_connect_info::<SocketAddr>();
    tokio::select! {
        served = axum::serve(listener, pages).into_future() => served?,
        _ = terminate.recv() => {}
        stop = tokio::signal::ctrl_c() => stop?,
    }
    Ok(node.drain().await?)
}
