//! What a client gets wrong is counted by its kind, and so is who is not let in.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::net::SocketAddr;

use common::{PATIENCE, start};
use flotilla::metrics;
use flotilla::server::ConnectError;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What a scrape shows of one metric under one label.
fn count(name: &str, label: &str) -> u64 {
    let samples = metrics::counters();
    let mut found =
        samples.iter().filter(|s| s.name == name && s.label.as_ref().is_some_and(|l| l.1 == label));
    found.next().unwrap_or_else(|| panic!("no {name} of {label}")).value
}

/// Sends bytes on a stream of their own, and waits until the node has closed it.
async fn send(address: SocketAddr, bytes: &[u8]) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    // What is left unread by the node makes it a reset, which is an end as well.
    let end = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    end.map(drop).expect("the node should close the stream");
}

fn request(method: &str, query: &str, headers: &str) -> Vec<u8> {
    let head = format!("{method} /socket.io/?{query} HTTP/1.1\r\nHost: node\r\n");
    format!("{head}{headers}Connection: close\r\n\r\n").into_bytes()
}

#[tokio::test]
async fn garbage_and_bad_requests_on_the_client_port_are_counted_by_kind() {
    let node = start(|_io| {}).await;
    let address = node.node.addresses().listen;
    let websocket = "EIO=4&transport=websocket";
    let bad_key = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: short\r\n";
    let long = format!("X: {}\r\n", "x".repeat(20_000));
    let cases = [
        ("text", b"hello, is this the printer?\r\n\r\n".to_vec(), "http"),
        ("a TLS greeting", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), "http"),
        ("a head without end", request("GET", "EIO=4", &long), "http"),
        ("a broken header", request("GET", "EIO=4", "no colon\r\n"), "http"),
        ("transport", request("GET", "EIO=4&transport=pigeon", ""), "unknown_transport"),
        ("sid", request("GET", "EIO=4&transport=polling&sid=none", ""), "unknown_sid"),
        ("method", request("POST", "EIO=4&transport=polling", ""), "bad_handshake_method"),
        ("no upgrade", request("GET", websocket, ""), "bad_request"),
        ("key of a handshake", request("GET", websocket, bad_key), "bad_request"),
        ("revision", request("GET", "EIO=3&transport=polling", ""), "unsupported_version"),
    ];
    for (what, bytes, kind) in cases {
        let counted = || count("flotilla_protocol_errors_total", kind);
        let before = counted();
        send(address, &bytes).await;
        let counting = async {
            while counted() == before {
                tokio::task::yield_now().await;
            }
        };
        let is_counted = tokio::time::timeout(PATIENCE, counting).await;
        is_counted.unwrap_or_else(|_| panic!("{what} is not counted as {kind}"));
        assert_eq!(counted(), before + 1, "{what}");
    }
    node.node.drain().await.unwrap();
}

#[tokio::test]
async fn handshakes_that_a_closed_node_refuses_are_counted() {
    let node = start(|_io| {}).await;
    let refused = || count("flotilla_handshakes_refused_total", "draining");
    let before = refused();
    node.io().close().await;
    send(node.node.addresses().listen, &request("GET", "EIO=4&transport=polling", "")).await;
    assert_eq!(refused(), before + 1);
    node.node.drain().await.unwrap();
}

#[tokio::test]
async fn clients_that_are_not_let_into_a_namespace_are_counted_by_reason() {
    let node = start(|io| {
        io.of("/members").with(async |_socket| Err(ConnectError::new("members only")));
    })
    .await;
    let refused = |reason| count("flotilla_connects_refused_total", reason);
    let before = ["invalid_namespace", "middleware"].map(refused);
    let mut client = node.open().await;
    client.ask("/nowhere", "").await;
    client.expect(r#"4/nowhere,{"message":"Invalid namespace"}"#).await;
    client.ask("/members", "").await;
    client.expect(r#"4/members,{"message":"members only"}"#).await;
    assert_eq!(["invalid_namespace", "middleware"].map(refused), before.map(|count| count + 1));
    drop(client);
    node.node.drain().await.unwrap();
}
