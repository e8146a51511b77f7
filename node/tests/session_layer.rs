//! HTTP requests of an embedding application, and sockets, see one session.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::routing::{get, post};
use axum::{Extension, Router};
use common::client::Client;
use common::roaming::{Answer, receive, send};
use common::{spawn, start_with, until};
use flotilla::config::{AdminConfig, Config};
use flotilla::node::Node;
use flotilla::raft::config::{ClusterConfig, Durability, RaftConfig};
use flotilla::server::{Ack, Io, Secret, Session, SessionConfig, SessionSource};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;

#[allow(dead_code, reason = "main is what a test does in its stead")]
#[path = "../examples/sessions.rs"]
mod application;

const HANDSHAKE: &str = "GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\n";

fn config(data: &TempDir) -> Config {
    let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
    Config {
        data_dir: data.path().to_owned(),
        admin: AdminConfig { address: any_port },
        cluster: ClusterConfig { address: any_port.to_string(), ..ClusterConfig::default() },
        raft: RaftConfig { durability: Durability::Memory, ..RaftConfig::default() },
        session: SessionConfig {
            sources: vec![SessionSource::Cookie],
            secrets: vec![Secret::from("secret")],
            ..SessionConfig::default()
        },
        ..Config::default()
    }
}

async fn request(address: SocketAddr, method: &str, cookie: &str) -> Answer {
    let cookie = if cookie.is_empty() { String::new() } else { format!("Cookie: {cookie}\r\n") };
    receive(send(address, &format!("{method} HTTP/1.1\r\n{cookie}"), b"").await).await
}

/// The cookies that an answer sets, as a browser would send them.
fn cookies(answer: &Answer) -> Vec<String> {
    let set = answer.headers.iter().filter(|(name, _)| name == "set-cookie");
    set.map(|(_, cookie)| cookie.split(';').next().unwrap().to_owned()).collect()
}

fn cookie(answer: &Answer) -> String {
    let [cookie] = &cookies(answer)[..] else { panic!("{answer:?}") };
    cookie.clone()
}

async fn socket(address: SocketAddr, cookie: &str) -> Client {
    let (mut client, headers) = Client::open_by(address, "EIO=4", &[("cookie", cookie)]).await;
    assert!(!headers.contains_key("set-cookie"), "the session is known");
    client.connect("/", "").await;
    client
}

async fn serving(address: SocketAddr) {
    until("a handshake is taken", async || {
        (receive(send(address, HANDSHAKE, b"").await).await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn pages_and_sockets_share_a_login() {
    let data = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = spawn(application::serve(listener, config(&data)));
    serving(address).await;

    let first = request(address, "GET /", "").await;
    assert_eq!(first.body, "hello stranger, visit 1");
    let stranger = cookie(&first);
    let again = request(address, "GET /", &stranger).await;
    assert_eq!((again.body.as_str(), cookies(&again)), ("hello stranger, visit 2", vec![]));
    let mut client = socket(address, &stranger).await;
    client.expect(r#"2["hello","stranger"]"#).await;
    assert_eq!(client.call(&json!(["visit"])).await, json!({"Ok": 3}));

    let login = request(address, "POST /login/ann", &stranger).await;
    assert_eq!(login.body, "welcome ann");
    let ann = cookie(&login);
    assert_ne!(ann, stranger);
    assert_eq!(client.call(&json!(["visit"])).await, json!({"Err": "Over"}));
    let mut client = socket(address, &ann).await;
    client.expect(r#"2["hello","ann"]"#).await;
    assert_eq!(client.call(&json!(["visit"])).await, json!({"Ok": 1}));
    assert_eq!(request(address, "GET /", &ann).await.body, "hello ann, visit 2");
    // Whoever has the old cookie is a stranger, with another session.
    let old = request(address, "GET /", &stranger).await;
    assert_eq!(old.body, "hello stranger, visit 1");
    assert_ne!(cookie(&old), stranger);

    // Filters see the login of another page, for the socket that was there before it.
    let other = request(address, "POST /login/ann", "").await;
    assert_eq!(other.status, 200);
    client.expect(r#"2["logged in","ann"]"#).await;
    let logout = request(address, "POST /logout", &ann).await;
    assert_eq!(cookie(&logout), "sid=");
    assert_eq!(client.call(&json!(["visit"])).await, json!({"Err": "Over"}));
    app.abort();
}

/// The session layer in front of everything, Socket.IO included.
async fn counters(node: &Node) -> SocketAddr {
    async fn count(session: &Session) -> String {
        let counted = session.update(|session| {
            let n = session.get("n").and_then(Value::as_u64).unwrap_or(0);
            session.insert("n".to_owned(), json!(n + 1));
        });
        counted.await.unwrap();
        Value::Object(Map::clone(&session.get())).to_string()
    }
    type Map = serde_json::Map<String, Value>;
    let read = async |Extension(session): Extension<Session>| {
        Value::Object(Map::clone(&session.get())).to_string()
    };
    let app = Router::new()
        .route("/read", get(read))
        .route("/count", post(async |Extension(session): Extension<Session>| count(&session).await))
        .layer(node.layer())
        .layer(node.session_layer());
    node.io().of("/").on("count", async |session: Session, ack: Ack| {
        ack.send(&count(&session).await).unwrap();
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    spawn(async move { axum::serve(listener, app).await.unwrap() });
    address
}

async fn counting_node() -> (common::TestNode, SocketAddr) {
    let data = tempfile::tempdir().unwrap();
    let session = config(&data).session;
    let node = start_with("n1", Vec::new(), |config| config.session = session, |_io: &Io| {}).await;
    let address = counters(&node.node).await;
    (node, address)
}

#[tokio::test]
async fn request_that_writes_nothing_makes_no_session() {
    let (node, address) = counting_node().await;
    let read = request(address, "GET /read", "").await;
    assert_eq!((read.body.as_str(), cookies(&read)), ("{}", vec![]));
    // A handshake behind the layer has one cookie, which is the session's that it makes.
    let opened = receive(send(address, HANDSHAKE, b"").await).await;
    assert_eq!(cookies(&opened).len(), 1, "{opened:?}");
    let counted = request(address, "POST /count", "").await;
    assert_eq!(counted.body, r#"{"n":1}"#);
    let known = request(address, "GET /read", &cookie(&counted)).await;
    assert_eq!((known.body.as_str(), cookies(&known)), (r#"{"n":1}"#, vec![]));
    drop(node);
}

/// A page opens its socket and posts at once.
#[tokio::test]
async fn cookie_of_a_handshake_holds_before_there_is_a_socket() {
    let (node, address) = counting_node().await;
    let opened = receive(send(address, HANDSHAKE, b"").await).await;
    let told = cookie(&opened);
    let counted = request(address, "POST /count", &told).await;
    assert_eq!((counted.body.as_str(), cookies(&counted)), (r#"{"n":1}"#, vec![]));
    let mut client = socket(address, &told).await;
    assert_eq!(client.call(&json!(["count"])).await, json!(r#"{"n":2}"#));
    drop(node);
}

/// To look for it takes an entry of the log, which the client need not ask for each time.
#[tokio::test]
async fn cookie_of_a_session_that_is_over_is_taken_away() {
    let (node, address) = counting_node().await;
    let told = cookie(&request(address, "POST /count", "").await);
    let id = told.split("s%3A").nth(1).unwrap().split('.').next().unwrap().parse().unwrap();
    node.io().session(id).destroy().await.unwrap();
    let read = request(address, "GET /read", &told).await;
    assert_eq!((read.body.as_str(), cookies(&read)), ("{}", vec!["flotilla.sid=".to_owned()]));
    // Whoever gets another session is told of that one alone.
    for path in ["POST /count", "GET /socket.io/?EIO=4&transport=polling"] {
        let answer = request(address, path, &told).await;
        assert!(cookie(&answer).starts_with("flotilla.sid=s%3A"), "{answer:?}");
    }
}

#[tokio::test]
async fn bad_cookie_is_refused_and_taken_away() {
    let (_node, address) = counting_node().await;
    let refused = request(address, "GET /read", "flotilla.sid=s:nonsense").await;
    assert_eq!(refused.status, 403);
    assert_eq!(refused.body, r#"{"error":"the session's signature is not valid"}"#);
    assert_eq!(cookie(&refused), "flotilla.sid=");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_and_sockets_lose_no_write_of_one_another() {
    const EACH: usize = 40;
    let (_node, address) = counting_node().await;
    let counted = request(address, "POST /count", "").await;
    let cookie: Arc<str> = cookie(&counted).into();
    let pages: Vec<_> = (0..4)
        .map(|_| {
            let cookie = cookie.clone();
            spawn(async move {
                for _ in 0..EACH / 4 {
                    assert_eq!(request(address, "POST /count", &cookie).await.status, 200);
                }
            })
        })
        .collect();
    let mut client = socket(address, &cookie).await;
    for _ in 0..EACH {
        client.call(&json!(["count"])).await;
    }
    for page in pages {
        page.await.unwrap();
    }
    let read = request(address, "GET /read", &cookie).await;
    assert_eq!(read.body, format!(r#"{{"n":{}}}"#, 2 * EACH + 1));
}
