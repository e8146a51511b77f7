//! A client that starts by polling and goes on by WebSocket.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::time::Duration;

use flotilla::engineio::{CloseReason, EngineConfig};
use support::http::receive;
use support::{Node, Ws, message};

impl Node {
    async fn probe(&self, sid: &str) -> Ws {
        let mut ws = self.connect(&format!("transport=websocket&sid={sid}")).await;
        ws.send("2probe").await;
        assert_eq!(ws.text().await, "3probe");
        ws
    }

    async fn upgraded(&self) -> (String, Ws) {
        let sid = self.open().await;
        let mut ws = self.probe(&sid).await;
        ws.send("5").await;
        ws.send("4upgraded").await;
        assert_eq!(ws.text().await, "4upgraded");
        (sid, ws)
    }
}

#[tokio::test]
async fn open_poll_is_ended_and_the_connection_goes_on_by_websocket() {
    let node = Node::start().await;
    let sid = node.open().await;
    let poll = node.begin_open_poll(&sid).await;
    let mut ws = node.probe(&sid).await;
    assert_eq!(receive(poll).await.body, "6");
    ws.send("5").await;
    ws.send("4hello").await;
    assert_eq!(ws.text().await, "4hello");
    assert_eq!(node.transport.connection_count(), 1);
    drop(ws);
    assert_eq!(node.echo.closed(1).await, [CloseReason::TransportClose]);
    node.stop().await;
}

/// The client polls as the official one does: until an answer comes after its probe was answered.
#[tokio::test]
async fn packets_during_the_upgrade_are_neither_lost_nor_reordered() {
    const COUNT: usize = 2000;
    let node = Node::start().await;
    let sid = node.open().await;
    let outbox = node.echo.outbox(0);
    let pusher = tokio::task::spawn_blocking(move || {
        for number in 0..COUNT {
            outbox.push(message(&number.to_string()));
            std::thread::yield_now();
        }
    });

    let mut received = Vec::new();
    let keep = |body: &str, received: &mut Vec<String>| {
        let packets = body.split('\x1e').filter(|packet| *packet != "6");
        received.extend(packets.map(|packet| packet[1..].to_owned()));
    };
    keep(&node.poll(&sid).await.body, &mut received);
    let poll = node.begin_poll(&sid).await;
    let mut ws = node.probe(&sid).await;
    keep(&receive(poll).await.body, &mut received);
    ws.send("5").await;
    while received.len() < COUNT {
        keep(&ws.text().await, &mut received);
    }
    let expected: Vec<_> = (0..COUNT).map(|number| number.to_string()).collect();
    assert_eq!(received, expected);
    pusher.await.unwrap();
    drop(ws);
    node.stop().await;
}

#[tokio::test]
async fn packets_right_behind_the_upgrade_are_taken() {
    let node = Node::start().await;
    let sid = node.open().await;
    let mut ws = node.probe(&sid).await;
    ws.feed(&["5", "4a", "4b"]).await;
    assert_eq!(ws.text().await, "4a");
    assert_eq!(ws.text().await, "4b");
    drop(ws);
    node.stop().await;
}

#[tokio::test]
async fn upgraded_connection_refuses_requests_and_other_websockets() {
    let node = Node::start().await;
    let (sid, mut ws) = node.upgraded().await;
    for response in [node.poll(&sid).await, node.post(&sid, "4late").await] {
        assert_eq!(
            (response.status, response.body.as_str()),
            (400, r#"{"code":3,"message":"Bad request"}"#)
        );
    }
    let mut other = node.connect(&format!("transport=websocket&sid={sid}")).await;
    assert_eq!(other.close_code().await, 1005);
    ws.send("4still here").await;
    assert_eq!(ws.text().await, "4still here");
    drop((ws, other));
    node.stop().await;
}

#[tokio::test]
async fn second_probe_is_closed_and_the_first_goes_on() {
    let node = Node::start().await;
    let sid = node.open().await;
    let mut first = node.probe(&sid).await;
    let mut second = node.connect(&format!("transport=websocket&sid={sid}")).await;
    assert_eq!(second.close_code().await, 1005);
    first.send("5").await;
    first.send("4hello").await;
    assert_eq!(first.text().await, "4hello");
    drop((first, second));
    node.stop().await;
}

#[tokio::test]
async fn probe_that_breaks_off_leaves_the_connection_polling() {
    let node = Node::start().await;
    let sid = node.open().await;
    drop(node.probe(&sid).await);
    assert_eq!(node.post(&sid, "4polling").await.body, "ok");
    assert_eq!(node.poll(&sid).await.body, "4polling");

    let mut strange = node.connect(&format!("transport=websocket&sid={sid}")).await;
    strange.send("4too early").await;
    assert_eq!(strange.close_code().await, 1005);
    assert_eq!(node.post(&sid, "4still polling").await.body, "ok");
    assert_eq!(node.poll(&sid).await.body, "4still polling");
    drop(strange);
    node.stop().await;
}

#[tokio::test]
async fn upgrade_that_is_not_finished_in_time_is_closed() {
    let node = Node::with(EngineConfig {
        upgrade_timeout: Duration::from_millis(100),
        ..EngineConfig::default()
    })
    .await;
    let sid = node.open().await;
    let mut ws = node.connect(&format!("transport=websocket&sid={sid}")).await;
    assert_eq!(ws.close_code().await, 1005);
    assert_eq!(node.post(&sid, "4polling").await.body, "ok");
    assert_eq!(node.poll(&sid).await.body, "4polling");
    drop(ws);
    node.stop().await;
}

#[tokio::test]
async fn connection_that_ends_closes_its_probe() {
    let node = Node::start().await;
    let sid = node.open().await;
    let mut ws = node.probe(&sid).await;
    assert_eq!(node.post(&sid, "1").await.body, "ok");
    assert_eq!(ws.close_code().await, 1005);
    assert_eq!(node.echo.closed(1).await, [CloseReason::TransportClose]);
    drop(ws);
    node.stop().await;
}
