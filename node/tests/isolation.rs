//! A client that is slow, silent or half gone hurts only itself.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::sync::atomic::Ordering;
use std::time::Duration;

use flotilla::adapter::{OutboxLimits, Pushed};
use flotilla::engineio::{CloseReason, EngineConfig};
use flotilla::transport::Pages;
use support::{Node, message};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::MaybeTlsStream;

#[tokio::test]
async fn client_that_does_not_read_is_disconnected_and_delays_nobody() {
    let limits = OutboxLimits { max_bytes: 100_000, max_packets: 1000, ..OutboxLimits::default() };
    let node = Node::with_parts(EngineConfig::default(), limits, Pages::new()).await;
    let slow = node.websocket().await;
    let mut quick = node.websocket().await;
    let (to_slow, to_quick) = (node.echo.outbox(0), node.echo.outbox(1));

    let long = message(&"x".repeat(10_000));
    let mut number = 0;
    while to_slow.push(long.clone()) == Pushed::Queued {
        to_quick.push(message(&number.to_string()));
        assert_eq!(quick.text().await, format!("4{number}"));
        number += 1;
        assert!(number < 10_000, "no stream holds 100 MB");
    }
    assert_eq!(node.echo.closed(1).await, [CloseReason::SlowConsumer]);
    quick.send("4still here").await;
    assert_eq!(quick.text().await, "4still here");
    drop((slow, quick));
    node.stop().await;
}

#[tokio::test]
async fn volatile_packets_are_dropped_while_the_stream_is_full() {
    let node = Node::start().await;
    let slow = node.websocket().await;
    let outbox = node.echo.outbox(0);
    let long = message(&"x".repeat(100_000));
    support::until("the stream is full", || outbox.push_volatile(long.clone()) == Pushed::Dropped)
        .await;
    assert_eq!(outbox.closing(), None, "volatile packets make nobody a slow consumer");
    drop(slow);
    node.stop().await;
}

#[tokio::test]
async fn client_that_reads_nothing_is_given_up_after_the_ping_timeout() {
    // More than any stream holds, less than the outbox does.
    let node = impatient_node().await;
    let ws = node.websocket().await;
    let outbox = node.echo.outbox(0);
    let long = message(&"x".repeat(100_000));
    for _ in 0..500 {
        assert_eq!(outbox.push(long.clone()), Pushed::Queued);
    }
    assert_eq!(node.echo.closed(1).await, [CloseReason::PingTimeout]);
    drop(ws);
    node.stop().await;
}

/// A node on which the only tasks are those of its listener and of the streams that a test opens.
async fn impatient_node() -> Node {
    let config = EngineConfig {
        ping_interval: Duration::from_secs(600),
        ping_timeout: Duration::from_millis(200),
        ..EngineConfig::default()
    };
    let limits =
        OutboxLimits { max_bytes: 200_000_000, max_packets: 10_000, ..OutboxLimits::default() };
    Node::with_parts(config, limits, Pages::new()).await
}

#[tokio::test]
async fn request_that_never_comes_and_one_that_never_ends_are_given_up() {
    let node = impatient_node().await;
    let silent = TcpStream::connect(node.address).await.unwrap();
    let mut slow = TcpStream::connect(node.address).await.unwrap();
    slow.write_all(b"GET /socket.io/?EIO=4 HTTP/1.1\r\nHost: ").await.unwrap();
    for mut stream in [silent, slow] {
        let mut answer = Vec::new();
        tokio::time::timeout(support::PATIENCE, stream.read_to_end(&mut answer))
            .await
            .unwrap()
            .unwrap();
    }
    node.stop().await;
}

#[tokio::test]
async fn answer_to_a_poll_that_nobody_reads_is_given_up() {
    let node = impatient_node().await;
    let sid = node.open().await;
    let outbox = node.echo.outbox(0);
    let long = message(&"x".repeat(100_000));
    for _ in 0..500 {
        assert_eq!(outbox.push(long.clone()), Pushed::Queued);
    }
    outbox.close(CloseReason::ForcedServerClose);
    // The next poll fetches all, and the last one, sent when the answer to that one begins, hears of
    // the close. What remains are the listener and, until the stream is given up, its task.
    node.echo.closed(1).await;
    let unread = node.begin_poll(&sid).await;
    assert_eq!(unread.peek(&mut [0]).await.unwrap(), 1);
    assert_eq!(node.poll(&sid).await.body, "6\u{1e}1");
    support::until("the answer is on its way", || node.transport.connection_count() == 0).await;
    support::until("the stream is given up", || node.tasks.len() == 1).await;
    drop(unread);
    node.stop().await;
}

#[tokio::test]
async fn client_that_does_not_poll_is_disconnected() {
    let limits = OutboxLimits { max_bytes: 100_000, max_packets: 10, ..OutboxLimits::default() };
    let node = Node::with_parts(EngineConfig::default(), limits, Pages::new()).await;
    let sid = node.open().await;
    let outbox = node.echo.outbox(0);
    for _ in 0..11 {
        outbox.push(message("unread"));
    }
    assert_eq!(node.echo.closed(1).await, [CloseReason::SlowConsumer]);
    let body = node.poll(&sid).await.body;
    assert_eq!(body, r#"{"code":1,"message":"Session ID unknown"}"#);
    node.stop().await;
}

#[tokio::test]
async fn nudge_reaches_the_layer_above_though_the_client_takes_nothing() {
    let node = Node::start().await;
    node.open().await;
    let outbox = node.echo.outbox(0);
    for nudges in 1..=3 {
        outbox.nudge();
        let wakes = &node.echo.wakes;
        support::until("the client is woken", || wakes.load(Ordering::Relaxed) == nudges).await;
    }
    node.stop().await;
}

#[tokio::test]
async fn half_open_client_is_closed() {
    let node = Node::start().await;
    let mut ws = node.websocket().await;
    let MaybeTlsStream::Plain(stream) = ws.0.get_mut() else { unreachable!("no TLS here") };
    stream.shutdown().await.unwrap();
    assert_eq!(node.echo.closed(1).await, [CloseReason::TransportClose]);
    assert_eq!(ws.close_code().await, 1005);
    drop(ws);
    node.stop().await;
}

#[tokio::test]
async fn flood_of_messages_starves_neither_direction() {
    let node = Node::start().await;
    let mut ws = node.websocket().await;
    for number in 0..500 {
        ws.feed(&[&format!("4{number}")]).await;
    }
    for number in 0..500 {
        assert_eq!(ws.text().await, format!("4{number}"));
    }
    drop(ws);
    node.stop().await;
}
