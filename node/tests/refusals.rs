//! What a client gets wrong is counted by its kind, and so is who is not let in.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::net::SocketAddr;

use common::client::Packet;
use common::{PATIENCE, start, until};
use flotilla::metrics;
use flotilla::server::ConnectError;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What a scrape shows of one metric under one label; nothing yet of kinds that are shown from the first time on.
fn count(name: &str, label: &str) -> u64 {
    let samples = metrics::counters();
    let mut found =
        samples.iter().filter(|s| s.name == name && s.label.as_ref().is_some_and(|l| l.1 == label));
    found.next().map_or(0, |sample| sample.value)
}

fn errors(kind: &str) -> u64 {
    count("flotilla_protocol_errors_total", kind)
}

/// What was sent is counted under its kind, once.
async fn expect_one_more(what: &str, kind: &str, before: u64) {
    until(&format!("{what} to be counted as {kind}"), async || {
        (errors(kind) > before).then_some(())
    })
    .await;
    assert_eq!(errors(kind), before + 1, "{what}");
}

/// Sends bytes on a stream of their own, and waits until the node has closed it.
async fn send(address: SocketAddr, bytes: &[u8]) {
    ask(address, bytes).await;
}

/// The same; returns what the node answered.
async fn ask(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // It may not want to read all of it.
    let _ = stream.write_all(bytes).await;
    end(&mut stream).await
}

async fn end(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    // What is left unread by the node makes it a reset, which is an end as well.
    let end = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    end.map(drop).expect("the node should close the stream");
    String::from_utf8_lossy(&answer).into_owned()
}

/// The query of a new connection that polls.
async fn open(address: SocketAddr) -> String {
    let answer = ask(address, &request("GET", "EIO=4&transport=polling", "")).await;
    let (_, sid) = answer.split_once(r#""sid":""#).unwrap_or_else(|| panic!("{answer}"));
    format!("EIO=4&transport=polling&sid={}", sid.split('"').next().unwrap())
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
        let before = errors(kind);
        send(address, &bytes).await;
        expect_one_more(what, kind, before).await;
    }
    node.node.drain().await.unwrap();
}

#[tokio::test]
async fn what_clients_break_in_their_connections_is_counted_by_kind() {
    let node = start(|_io| {}).await;
    let address = node.node.addresses().listen;
    for (what, body, kind) in [
        ("no packet", "9x".to_owned(), "packet"),
        ("a long payload", "4".repeat(1_000_001), "too_long"),
    ] {
        let (query, before) = (open(address).await, errors(kind));
        let length = format!("Content-Length: {}\r\n", body.len());
        let mut post = request("POST", &query, &length);
        post.extend_from_slice(body.as_bytes());
        send(address, &post).await;
        expect_one_more(what, kind, before).await;
    }
    let (query, before) = (open(address).await, errors("overlap"));
    let poll = request("GET", &query, "");
    tokio::join!(send(address, &poll), send(address, &poll));
    expect_one_more("a second poll", "overlap", before).await;

    let before = errors("frame");
    let mut stream = TcpStream::connect(address).await.unwrap();
    let upgrade = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nConnection: Upgrade\r\n";
    let head = format!(
        "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: node\r\n{upgrade}\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // A frame without a mask (RFC 6455, section 5.1).
    stream.write_all(b"\x81\x012").await.unwrap();
    end(&mut stream).await;
    expect_one_more("a frame without a mask", "frame", before).await;
    node.node.drain().await.unwrap();
}

#[tokio::test]
async fn what_clients_break_of_socket_io_is_counted_by_kind() {
    let node = start(|io| drop(io.of("/"))).await;
    for (packet, kind) in [
        ("9".to_owned(), "unknown_type"),
        ("5x-[]".to_owned(), "illegal_attachments"),
        (r#"2["connect"]"#.to_owned(), "reserved_event"),
        (format!("2{}", "[".repeat(500_000)), "payload_too_deep"),
        ("2{}".to_owned(), "invalid_payload"),
    ] {
        let mut client = node.connect().await;
        let before = errors(kind);
        client.send(&packet).await;
        assert_eq!(client.next().await, Packet::Closed, "{kind}");
        expect_one_more("a packet", kind, before).await;
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
