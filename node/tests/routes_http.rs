//! The routes dialect at the public door: HTTP requests of an axum application that are forwarded to routes.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request as HttpRequest, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::routing::{any, get};
use common::{TestNode, spawn, start, start_three};
use flotilla::apps::routes::{Group, HttpLimits, Params, Request, RouteError, Routes, Table};
use flotilla::server::Io;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// Long for a machine, short for a test.
const BRIEF: HttpLimits = HttpLimits { timeout: Duration::from_secs(3), max_body_bytes: 1_000 };

fn register(io: &Io) -> Routes {
    let app = Routes::with_limits(io, "/", BRIEF);
    app.route("hello", async |req: Request| req.io().respond(&json!({"hello": "from io route"})))
        .unwrap();
    app.route("ping", async |req: Request| req.io().respond(&())).unwrap();
    app.route("data", async |req: Request| -> Result<(), RouteError> {
        let http = req.http().unwrap();
        let method = http.method.as_str();
        req.io().respond(&json!([method, http.uri.path(), req.data::<Value>()?, req.raw().json()]));
        Ok(())
    })
    .unwrap();
    app.route("strict", async |req: Request| -> Result<(), RouteError> {
        let count: u32 = req.data()?;
        req.io().respond(&(201, json!({"count": count})));
        Ok(())
    })
    .unwrap();
    app.route("outer", async |req: Request| req.io().route("data").await).unwrap();
    app.route("lost", async |req: Request| req.io().route("nowhere").await).unwrap();
    app.route("panics", async |_req: Request| -> Result<(), RouteError> {
        panic!("as the test wants")
    })
    .unwrap();
    app.route("forgets", async |_req: Request| {}).unwrap();
    app.route("hangs", async |req: Request| {
        std::future::pending::<()>().await;
        req.io().respond(&"never");
    })
    .unwrap();
    app.route("later", async |req: Request| {
        spawn(async move { req.io().respond(&"later") });
    })
    .unwrap();
    app.route("shout", async |req: Request| -> Result<(), RouteError> {
        req.io().broadcast("shouted", &req.data::<Value>()?).await?;
        req.io().room("r").broadcast("to room", &1).await?;
        req.io().respond(&());
        Ok(())
    })
    .unwrap();
    app.route("join", async |req: Request| -> Result<(), RouteError> {
        req.io().join("r").await?;
        req.io().respond(&());
        Ok(())
    })
    .unwrap();
    app.route("visits", async |req: Request| -> Result<(), RouteError> {
        let visited = req.session()?.update(|session| {
            let visits = session.get("visits").and_then(Value::as_u64).unwrap_or(0);
            session.insert("visits".to_owned(), (visits + 1).into());
        });
        visited.await?;
        req.io().respond(&req.session()?.get()["visits"]);
        Ok(())
    })
    .unwrap();
    app.route("cookie", async |req: Request| req.io().respond(&req.cookie("taste"))).unwrap();
    app.route(
        "posts",
        Group::new()
            .route("read", async |req: Request| req.io().respond(&("read", req.param("id"), 1)))
            .route("list", async |req: Request| req.io().respond(&json!(["list"])))
            .route("update", async |req: Request| -> Result<(), RouteError> {
                req.io().respond(&json!([req.param("id"), req.data::<Value>()?]));
                Ok(())
            }),
    )
    .unwrap();
    app
}

/// The verbs that need a socket.
fn register_socket_verbs(app: &Routes) {
    app.route("emit", async |req: Request| {
        req.io().emit("to nobody", &());
        req.io().respond(&"too late");
    })
    .unwrap();
    app.route("leave", async |req: Request| req.io().leave("r").await).unwrap();
    app.route("disconnect me", async |req: Request| req.io().disconnect().await).unwrap();
    app.route("on", async |req: Request| req.io().on("own", async |_req: Request| {})).unwrap();
    app.route("set", async |req: Request| req.io().set("a", 1)).unwrap();
    app.route("get", async |req: Request| req.io().get("a").map(drop)).unwrap();
    app.route("handshake", async |req: Request| req.handshake().map(drop)).unwrap();
    app.route("socket", async |req: Request| req.socket().map(drop)).unwrap();
}

/// An HTTP server in front of a node's routes: `/forward/<name>` by hand, the rest by a table.
async fn serve(app: &Routes, table: Table) -> SocketAddr {
    async fn by_hand(
        State(app): State<Routes>,
        mut request: HttpRequest,
    ) -> http::Response<http_body_util::Full<bytes::Bytes>> {
        let path = request.uri().path().strip_prefix("/forward/").unwrap();
        let route = path.replace("%20", " ");
        request.extensions_mut().insert(Params::from_iter([("id", "by hand")]));
        app.forward(request, &route).await
    }
    let router = Router::new()
        .route("/forward/{*route}", any(by_hand))
        .route("/posts/5/comments", get(async || "the application's own"))
        .fallback(async || "not found by the application")
        .with_state(app.clone())
        .layer(app.forward_layer(table).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    spawn(async move { axum::serve(listener, router).await.unwrap() });
    address
}

async fn start_one() -> (TestNode, SocketAddr) {
    let mut app = None;
    let node = start(|io| app = Some(register(io))).await;
    let app = app.unwrap();
    register_socket_verbs(&app);
    (node, serve(&app, Table::angular()).await)
}

/// One request; its status and its body.
async fn request(address: SocketAddr, head: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let length = body.len();
    let request = format!(
        "{head}\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

async fn get_json(address: SocketAddr, route: &str) -> (u16, String) {
    request(address, &format!("GET /forward/{} HTTP/1.1", route.replace(' ', "%20")), "").await
}

async fn post(address: SocketAddr, path: &str, json: &str) -> (u16, String) {
    let head = format!("POST {path} HTTP/1.1\r\nContent-Type: application/json");
    request(address, &head, json).await
}

fn failure(message: &str) -> String {
    json!({"error": {"message": message}}).to_string()
}

#[tokio::test]
async fn forwarded_request_is_answered_by_its_route_as_json() {
    let (_node, http) = start_one().await;
    let hello = get_json(http, "hello").await;
    assert_eq!(hello, (200, r#"{"hello":"from io route"}"#.to_owned()));
    let (status, body) = post(http, "/forward/data?x=1", r#"{"n": 1}"#).await;
    let expected = r#"["POST","/forward/data",{"n":1},"{\"n\": 1}"]"#;
    assert_eq!((status, &*body), (200, expected));
    let (_, body) = get_json(http, "data").await;
    assert_eq!(body, r#"["GET","/forward/data",{},"{}"]"#, "no body is an empty object");
    assert_eq!(post(http, "/forward/strict", "7").await, (201, r#"{"count":7}"#.to_owned()));
    let (_, body) = post(http, "/forward/outer", "[1]").await;
    assert_eq!(body, r#"["POST","/forward/outer",[1],"[1]"]"#, "a route may forward it on");
    assert_eq!(get_json(http, "later").await, (200, r#""later""#.to_owned()));
    let head = "GET /forward/cookie HTTP/1.1\r\nCookie: a=b; taste=%C3%BC";
    assert_eq!(request(http, head, "").await.1, r#""ü""#);
}

#[tokio::test]
async fn bad_requests_and_bad_routes_are_answered_and_the_node_goes_on() {
    let (node, http) = start_one().await;
    let mut client = node.connect().await;
    let missing = failure(r#"there is no route "nowhere""#);
    assert_eq!(get_json(http, "nowhere").await, (404, missing.clone()));
    assert_eq!(get_json(http, "lost").await, (404, missing));
    assert_eq!(get_json(http, "panics").await, (500, failure("internal error")));
    let shape = post(http, "/forward/strict", r#""seven""#).await;
    assert_eq!(shape.0, 400);
    assert!(shape.1.contains("data has another shape: invalid type: string"), "{}", shape.1);
    assert_eq!(post(http, "/forward/data", "{").await, (400, failure("the body is no JSON")));
    let long = format!("[{}1]", "1,".repeat(600));
    assert_eq!(post(http, "/forward/data", &long).await, (413, failure("the body is too long")));
    let text = "POST /forward/data HTTP/1.1\r\nContent-Type: text/plain";
    assert_eq!(request(http, text, "{}").await.0, 415);
    assert_eq!(client.so_far().await, Vec::<String>::new());
}

#[tokio::test]
async fn route_that_never_responds_times_out() {
    let (_node, http) = start_one().await;
    let hangs = get_json(http, "hangs").await;
    assert_eq!(hangs, (504, failure("the route did not respond in time")));
    // Nobody is left who could respond: there is nothing to wait for.
    let forgets = get_json(http, "forgets").await;
    assert_eq!(forgets, (504, failure("the route ended without a response")));
    // A body that never comes to its end.
    let mut stream = TcpStream::connect(http).await.unwrap();
    let head = "POST /forward/data HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\
                Connection: close\r\nContent-Length: 100\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    assert!(response.starts_with("HTTP/1.1 408"), "{response}");
}

#[tokio::test]
async fn route_goes_on_when_its_client_has_gone() {
    let (started, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let mut app = None;
    let node = start(|io| app = Some(register(io))).await;
    let app = app.unwrap();
    let signals = (started.clone(), go_on.clone());
    app.route("slow", move |req: Request| {
        let (started, go_on) = signals.clone();
        async move {
            started.notify_one();
            go_on.notified().await;
            req.io().broadcast("done", &());
            req.io().respond(&"to nobody");
        }
    })
    .unwrap();
    let http = serve(&app, Table::new()).await;
    let mut client = node.connect().await;
    let mut stream = TcpStream::connect(http).await.unwrap();
    stream.write_all(b"GET /forward/slow HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    started.notified().await;
    drop(stream);
    // The server may or may not have seen it by now: either way the route goes on.
    go_on.notify_one();
    client.expect(r#"2["done"]"#).await;
}

#[tokio::test]
async fn verbs_that_need_a_socket_say_so() {
    let (_node, http) = start_one().await;
    for (route, verb) in [
        ("emit", "io().emit()"),
        ("join", "io().join()"),
        ("leave", "io().leave()"),
        ("disconnect me", "io().disconnect()"),
        ("on", "io().on()"),
        ("set", "io().set()"),
        ("get", "io().get()"),
        ("handshake", "handshake()"),
        ("socket", "socket()"),
    ] {
        let message = format!("{verb} needs a socket, and this request came by HTTP");
        assert_eq!(get_json(http, route).await, (500, failure(&message)), "{route}");
    }
    let no_session = "this request has no session: it came by HTTP past no session layer";
    assert_eq!(get_json(http, "visits").await, (500, failure(no_session)));
}

#[tokio::test]
async fn table_forwards_what_it_names_and_passes_the_rest_on() {
    let (_node, http) = start_one().await;
    // Not an array of three: over HTTP more than two arguments are as good as the first.
    assert_eq!(request(http, "GET /posts/5 HTTP/1.1", "").await, (200, r#""read""#.to_owned()));
    let list = request(http, "GET /posts HTTP/1.1", "").await;
    assert_eq!(list, (200, r#"["list"]"#.to_owned()));
    let put = "PUT /posts/a%20b HTTP/1.1\r\nContent-Type: application/json";
    assert_eq!(request(http, put, "1").await, (200, r#"["a b",1]"#.to_owned()));
    let own = request(http, "GET /posts/5/comments HTTP/1.1", "").await;
    assert_eq!(own, (200, "the application's own".to_owned()));
    for head in ["DELETE /posts/5 HTTP/1.1", "GET /nobody/5 HTTP/1.1", "GET /api/posts/5 HTTP/1.1"]
    {
        let passed = request(http, head, "").await;
        assert_eq!(passed, (200, "not found by the application".to_owned()), "{head}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_request_to_one_node_reaches_the_sockets_of_all() {
    let apps = Mutex::new(Vec::new());
    let nodes = start_three(|io| apps.lock().unwrap().push(register(io))).await;
    let mut clients = Vec::new();
    for node in &nodes {
        let mut client = node.connect().await;
        client.send(r#"21["join"]"#).await;
        client.expect("31[]").await;
        clients.push(client);
    }
    let http = serve(&apps.into_inner().unwrap()[1], Table::new()).await;
    assert_eq!(post(http, "/forward/shout", r#"{"n":1}"#).await, (200, "null".to_owned()));
    for client in &mut clients {
        client.expect(r#"2["shouted",{"n":1}]"#).await;
        client.expect(r#"2["to room",1]"#).await;
    }
}

#[tokio::test]
async fn http_request_and_socket_see_one_session() {
    let mut app = None;
    let node = start(|io| app = Some(register(io))).await;
    let mut client = node.connect().await;
    client.send(r#"21["visits"]"#).await;
    client.expect("31[1]").await;

    // In place of the session layer: every request has the session of the one socket.
    let session = node.io().operator().fetch_sockets()[0].session;
    let app = app.unwrap();
    let with_session = from_fn_with_state(
        node.io().session(session),
        async |State(session): State<flotilla::server::Session>,
               mut request: HttpRequest,
               next: Next| {
            request.extensions_mut().insert(session);
            next.run(request).await
        },
    );
    let layer =
        app.forward_layer(Table::new().with(http::Method::GET, "/visits", "visits")).unwrap();
    let router: Router = Router::new().layer(layer).layer(with_session);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let http = listener.local_addr().unwrap();
    spawn(async move { axum::serve(listener, router).await.unwrap() });

    assert_eq!(request(http, "GET /visits HTTP/1.1", "").await, (200, "2".to_owned()));
    client.send(r#"22["visits"]"#).await;
    client.expect("32[3]").await;
}
