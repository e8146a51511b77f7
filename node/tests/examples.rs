//! The examples do what they say, and the guides show what the examples hold.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::error::Error;
use std::net::SocketAddr;
use std::path::Path;

use common::client::Client;
use common::{spawn, start_with, until};
use flotilla::config::{AdminConfig, Config};
use flotilla::raft::config::{ClusterConfig, Durability, RaftConfig};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

#[allow(dead_code, reason = "main is what a test does in its stead")]
#[path = "../examples/axum.rs"]
mod axum_application;
#[allow(dead_code, reason = "main is what a test does in its stead")]
#[path = "../examples/from_socketio.rs"]
mod from_socketio;
#[allow(dead_code, reason = "main is what a test does in its stead")]
#[path = "../examples/from_socketioxide.rs"]
mod from_socketioxide;

type Failure = Box<dyn Error + Send + Sync>;

/// An application on a listener that is the test's.
struct Running {
    address: SocketAddr,
    serving: JoinHandle<Result<(), Failure>>,
    _data: TempDir,
}

/// Starts it, and waits until it takes clients.
async fn run<F>(serve: impl FnOnce(TcpListener, Config) -> F) -> Running
where
    F: Future<Output = Result<(), Failure>> + Send + 'static,
{
    let data = tempfile::tempdir().unwrap();
    let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
    let config = Config {
        data_dir: data.path().to_owned(),
        admin: AdminConfig { address: any_port },
        cluster: ClusterConfig { address: any_port.to_string(), ..ClusterConfig::default() },
        raft: RaftConfig { durability: Durability::Memory, ..RaftConfig::default() },
        ..Config::default()
    };
    let listener = TcpListener::bind(any_port).await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = spawn(serve(listener, config));
    let handshake = "GET /socket.io/?EIO=4&transport=polling HTTP/1.1";
    until("a handshake is taken", async || {
        request(address, handshake).await.starts_with("HTTP/1.1 200").then_some(())
    })
    .await;
    Running { address, serving, _data: data }
}

/// One request on a stream of its own; the response as it is.
async fn request(address: SocketAddr, head: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{head}\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    response
}

async fn connect(address: SocketAddr, namespace: &str) -> Client {
    let mut client = Client::open(address).await;
    client.connect(namespace, r#"{"name":"ann"}"#).await;
    client
}

#[tokio::test]
async fn axum_application_serves_pages_and_sockets_on_one_port() {
    let stop = CancellationToken::new();
    let stopped = stop.clone().cancelled_owned();
    let app = run(|listener, config| axum_application::serve(listener, config, stopped)).await;
    let page = request(app.address, "GET / HTTP/1.1").await;
    assert!(page.ends_with("a page of the application"), "{page}");

    let mut client = Client::open(app.address).await;
    client.connect("/", "").await;
    client.expect(r#"2["greeting","Hello"]"#).await;
    client.send(r#"21["where am I"]"#).await;
    client.expect(r#"31["127.0.0.1"]"#).await;
    assert!(request(app.address, "GET /say/hello HTTP/1.1").await.ends_with("said"));
    client.expect(r#"2["said","hello"]"#).await;

    stop.cancel();
    client.expect_closed().await;
    app.serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn ported_socketioxide_application_works() {
    let app = run(from_socketioxide::serve).await;
    assert!(request(app.address, "GET / HTTP/1.1").await.ends_with("votes"));
    let mut nameless = Client::open(app.address).await;
    nameless.ask("/votes", "{}").await;
    nameless.expect(r#"4/votes,{"message":"who are you?"}"#).await;

    let [mut ann, mut bob] =
        [connect(app.address, "/votes").await, connect(app.address, "/votes").await];
    ann.send(r#"2/votes,1["follow","lunch"]"#).await;
    ann.expect("3/votes,1[true]").await;
    bob.send(r#"2/votes,["vote","lunch","soup"]"#).await;
    ann.expect(r#"2/votes,["voted","soup"]"#).await;
    assert!(request(app.address, "POST /close/lunch HTTP/1.1").await.contains("200 OK"));
    ann.expect(r#"2/votes,["closed"]"#).await;
    let left = format!(r#"2/votes,["left","{}"]"#, bob.id);
    drop(bob);
    ann.expect(&left).await;
    app.serving.abort();
}

#[tokio::test]
async fn ported_socket_io_application_works() {
    let change = |config: &mut Config| *config = from_socketio::options(config.clone());
    let node = start_with("n1", Vec::new(), change, from_socketio::votes).await;
    let address = node.node.addresses().listen;
    let head = "GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nOrigin: https://app.example";
    let opened = request(address, head).await;
    for header in [
        "access-control-allow-origin: https://app.example",
        "access-control-allow-credentials: true",
        "set-cookie: io=",
        "x-served-by: votes",
    ] {
        assert!(opened.contains(header), "{header}: {opened}");
    }
    let mut nameless = Client::open(address).await;
    nameless.ask("/", "{}").await;
    nameless.expect(r#"4{"message":"who are you?"}"#).await;

    let [mut ann, mut bob] = [connect(address, "/").await, connect(address, "/").await];
    ann.send(r#"21["follow","lunch"]"#).await;
    ann.expect("31[true]").await;
    bob.send(r#"22["count","lunch"]"#).await;
    bob.expect("32[1]").await;
    bob.send(r#"2["vote","lunch","soup"]"#).await;
    ann.expect(r#"2["voted","soup"]"#).await;
    bob.send("1").await;
    ann.expect(&format!(r#"2["left","{}","client namespace disconnect"]"#, bob.id)).await;
}

/// Each block of Rust in a guide stands in the example, but for indentation.
#[test]
fn guides_show_what_the_examples_hold() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let lines = |text: &str| {
        text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
    };
    for (guide, example) in [
        ("from-socketioxide.md", "from_socketioxide.rs"),
        ("from-socket.io.md", "from_socketio.rs"),
        ("embedding.md", "axum.rs"),
        ("sessions.md", "sessions.rs"),
    ] {
        let guide = std::fs::read_to_string(root.join("../docs").join(guide)).unwrap();
        let code = std::fs::read_to_string(root.join("examples").join(example)).unwrap();
        let blocks: Vec<_> = guide.split("```rust\n").skip(1).collect();
        assert!(!blocks.is_empty(), "{example} is shown nowhere");
        for block in blocks {
            let block = block.split("```").next().unwrap();
            assert!(lines(&code).contains(&lines(block)), "{example} does not hold\n{block}");
        }
    }
}
