//! A client that comes by WebSocket from scratch.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::time::Duration;

use flotilla::engineio::{CloseReason, EngineConfig, Sid};
use support::{NODE, Node, PATIENCE};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

#[tokio::test]
async fn open_packet_tells_the_settings_and_the_sid_its_owner() {
    let node = Node::start().await;
    let mut ws = node.connect("transport=websocket").await;
    let text = ws.text().await;
    let sid = node.echo.handshakes.lock().unwrap()[0].sid.clone();
    let expected = format!(
        r#"0{{"sid":"{sid}","upgrades":[],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}}"#
    );
    assert_eq!(text, expected);
    assert_eq!(Sid::parse(&sid).unwrap().owner(), NODE);
    drop(ws);
    node.stop().await;
}

#[tokio::test]
async fn client_is_told_of_its_handshake() {
    let node = Node::start().await;
    let ws = node.connect("transport=websocket&token=abc").await;
    node.transport_has(1).await;
    let handshake = node.echo.handshakes.lock().unwrap()[0].clone();
    assert_eq!(&*handshake.url, "/socket.io/?EIO=4&transport=websocket&token=abc");
    assert!(
        handshake
            .headers
            .iter()
            .any(|(name, value)| &**name == "upgrade" && &**value == "websocket")
    );
    assert!(handshake.address.ip().is_loopback());
    assert!(handshake.issued_ms > 1_700_000_000_000);
    drop(ws);
    node.stop().await;
}

#[tokio::test]
async fn messages_are_echoed_in_order() {
    let node = Node::start().await;
    let mut ws = node.websocket().await;
    ws.send("4hello").await;
    ws.send("4wörld").await;
    assert_eq!(ws.text().await, "4hello");
    assert_eq!(ws.text().await, "4wörld");
    let long = format!("4{}", "x".repeat(900_000));
    ws.send(&long).await;
    assert!(ws.text().await == long, "a long message comes back whole");
    drop(ws);
    node.stop().await;
}

#[tokio::test]
async fn binary_messages_reach_the_client_as_they_are() {
    let node = Node::start().await;
    let mut ws = node.websocket().await;
    ws.send_message(Message::binary(vec![1, 2, 3])).await;
    // The echo answers with base64, for it sends text only.
    assert_eq!(ws.text().await, "bAQID");
    drop(ws);
    node.stop().await;
}

#[tokio::test]
async fn attachments_are_binary_frames_behind_their_packet() {
    let node = Node::start().await;
    let mut ws = node.websocket().await;
    node.echo.outbox(0).push(support::event_with_attachments());
    let packet = r#"452-["msg",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#;
    assert_eq!(ws.text().await, packet);
    assert_eq!(ws.next().await.unwrap(), Message::binary(vec![1, 2, 3]));
    assert_eq!(ws.next().await.unwrap(), Message::binary(vec![255; 200]));
    drop(ws);
    node.stop().await;
}

#[tokio::test]
async fn pings_of_the_websocket_are_answered() {
    let node = Node::start().await;
    let mut ws = node.websocket().await;
    ws.send_message(Message::Ping(b"are you there".to_vec().into())).await;
    assert_eq!(ws.next().await.unwrap(), Message::Pong(b"are you there".to_vec().into()));
    drop(ws);
    node.stop().await;
}

#[tokio::test]
async fn server_pings_and_a_client_that_answers_lives() {
    let node = Node::with(heartbeat(PATIENCE)).await;
    let mut ws = node.websocket().await;
    for _ in 0..5 {
        assert_eq!(ws.text().await, "2");
        ws.send("3").await;
    }
    ws.send("4alive").await;
    assert_eq!(ws.text().await, "4alive");
    drop(ws);
    node.stop().await;
}

#[tokio::test]
async fn silent_client_is_closed() {
    let node = Node::with(heartbeat(Duration::from_millis(200))).await;
    let mut ws = node.websocket().await;
    assert_eq!(ws.text().await, "2");
    assert_eq!(ws.close_code().await, 1005);
    assert_eq!(node.echo.closed(1).await, [CloseReason::PingTimeout]);
    drop(ws);
    node.stop().await;
}

fn heartbeat(ping_timeout: Duration) -> EngineConfig {
    EngineConfig {
        ping_interval: Duration::from_millis(50),
        ping_timeout,
        ..EngineConfig::default()
    }
}

#[tokio::test]
async fn client_has_a_deadline_of_its_own() {
    let node = Node::start().await;
    let mut ws = node.websocket().await;
    ws.send("4!deadline").await;
    assert_eq!(ws.text().await, "4deadline");
    drop(ws);
    node.stop().await;
}

#[tokio::test]
async fn what_is_queued_is_sent_before_the_node_closes() {
    let node = Node::start().await;
    let mut ws = node.websocket().await;
    ws.send("4!close").await;
    assert_eq!(ws.text().await, "4bye");
    assert_eq!(ws.close_code().await, 1005);
    assert_eq!(node.echo.closed(1).await, [CloseReason::ForcedServerClose]);
    drop(ws);
    node.stop().await;
}

#[tokio::test]
async fn each_way_to_end_has_its_reason_and_close_code() {
    let long = Message::text("4".to_owned() + &"x".repeat(1_000_000));
    let close = Message::Close(Some(CloseFrame { code: 3001.into(), reason: "bye".into() }));
    let ways = [
        (Message::text("1"), 1005, CloseReason::TransportClose),
        (Message::text("abc"), 1005, CloseReason::ParseError),
        (Message::text(""), 1005, CloseReason::ParseError),
        (Message::text("2"), 1005, CloseReason::TransportError),
        (long, 1009, CloseReason::TransportError),
        (close, 3001, CloseReason::TransportClose),
    ];
    for (message, code, reason) in ways {
        let node = Node::start().await;
        let mut ws = node.websocket().await;
        let what = format!("{message:.20?}");
        ws.send_message(message).await;
        assert_eq!(ws.close_code().await, code, "{what}");
        assert_eq!(node.echo.closed(1).await, [reason], "{what}");
        drop(ws);
        node.stop().await;
    }
}

#[tokio::test]
async fn stream_that_ends_is_a_transport_close() {
    let node = Node::start().await;
    drop(node.websocket().await);
    assert_eq!(node.echo.closed(1).await, [CloseReason::TransportClose]);
    node.stop().await;
}

#[tokio::test]
async fn panic_above_ends_one_connection_only() {
    let node = Node::start().await;
    let mut other = node.websocket().await;
    let mut ws = node.websocket().await;
    ws.send("4!panic").await;
    assert_eq!(ws.close_code().await, 1005);
    assert_eq!(node.echo.closed(1).await, [CloseReason::ForcedServerClose]);

    let mut refused = node.connect("transport=websocket&panic").await;
    assert!(refused.next().await.is_err());
    other.send("4still here").await;
    assert_eq!(other.text().await, "4still here");
    drop((other, ws));
    node.stop().await;
}

#[tokio::test]
async fn shutdown_closes_every_connection() {
    let node = Node::start().await;
    let (mut ann, mut bob) = (node.websocket().await, node.websocket().await);
    assert_eq!(node.transport.connection_count(), 2);
    node.shutdown.cancel();
    assert_eq!(ann.close_code().await, 1005);
    assert_eq!(bob.close_code().await, 1005);
    assert_eq!(node.echo.closed(2).await, [CloseReason::ServerShutdown; 2]);
    drop((ann, bob));
    node.stop().await;
}

#[tokio::test]
async fn frames_that_come_with_the_handshake_are_not_lost() {
    let node = Node::start().await;
    let mut stream = TcpStream::connect(node.address).await.unwrap();
    let request = format!(
        "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        node.address
    );
    let mut bytes = request.into_bytes();
    bytes.extend([0x81, 0x83, 0, 0, 0, 0]);
    bytes.extend(b"4hi");
    stream.write_all(&bytes).await.unwrap();
    let mut received = Vec::new();
    while !received.ends_with(b"\x81\x034hi") {
        assert_ne!(stream.read_buf(&mut received).await.unwrap(), 0, "{received:?}");
    }
    let text = String::from_utf8_lossy(&received);
    assert!(text.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{text}");
    // The value that RFC 6455 gives for this key.
    assert!(text.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{text}");
    drop(stream);
    node.stop().await;
}
