//! A node that drains is through in its time, whatever its clients do or leave undone.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use flotilla::config::Config;
use flotilla::server::Io;
use http::request::Parts;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::Instant;

use common::roaming::{self, Roamer};
use common::{TestNode, start_with, until};

/// Half of it is for the clients.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(12);

async fn start(register: impl FnOnce(&Io)) -> TestNode {
    let limit = |config: &mut Config| config.drain_timeout = DRAIN_TIMEOUT;
    start_with("n1", Vec::new(), limit, register).await
}

#[tokio::test]
async fn client_that_reads_nothing_does_not_hold_up_the_node() {
    let node = start(|io: &Io| drop(io.of("/"))).await;
    let _client = node.connect().await;
    // More than any stream takes while nobody reads.
    let text = "x".repeat(1 << 20);
    for _ in 0..32 {
        node.io().emit("flood", &text).await.unwrap();
    }
    node.node.drain().await.unwrap();
}

#[tokio::test]
async fn poller_that_never_comes_for_its_last_packets_does_not_hold_up_the_node() {
    let node = start(|io: &Io| drop(io.of("/"))).await;
    let address = node.node.addresses().listen;
    let roamer = Roamer::open(address).await;
    roamer.connect([address, address]).await;
    node.io().disconnect_sockets(true).await.unwrap();
    until("the socket to go", async || node.io().fetch_sockets().is_empty().then_some(())).await;
    let begun = Instant::now();
    node.node.drain().await.unwrap();
    assert!(begun.elapsed() < DRAIN_TIMEOUT / 2, "nobody is waited for who was sent away");
}

#[tokio::test]
async fn requests_that_are_never_finished_do_not_hold_up_the_node() {
    let asked = Arc::new(AtomicBool::new(false));
    let asking = asked.clone();
    let node = start(move |io: &Io| {
        io.of("/");
        io.engine().allow_request(move |request: Parts| {
            let waits = request.headers.contains_key("x-wait");
            asking.fetch_or(waits, Ordering::Relaxed);
            async move { if waits { pending().await } else { Ok(()) } }
        });
    })
    .await;
    let address = node.node.addresses().listen;
    let roamer = Roamer::open(address).await;
    roamer.connect([address, address]).await;
    let silent = TcpStream::connect(address).await.unwrap();
    let mut head = TcpStream::connect(address).await.unwrap();
    head.write_all(b"GET /socket.io/?EIO=4&tran").await.unwrap();
    let mut body = TcpStream::connect(address).await.unwrap();
    let post = format!("{}Host: a\r\nContent-Length: 100\r\n\r\n42", roamer.head("POST"));
    body.write_all(post.as_bytes()).await.unwrap();
    let handshake = "GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nx-wait: 1\r\n";
    let waiting = roaming::send(address, handshake, b"").await;
    until("the handshake", async || asked.load(Ordering::Relaxed).then_some(())).await;
    node.node.drain().await.unwrap();
    drop((silent, head, body, waiting));
}
