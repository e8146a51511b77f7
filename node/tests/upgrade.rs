//! A client that starts by polling and goes on by WebSocket.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use flotilla::engineio::{CloseReason, EngineConfig};
use futures_util::{SinkExt, StreamExt};
use support::http::receive;
use support::{Node, PATIENCE, Ws, message};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::task::TaskTracker;

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

/// Both sides send all the time. The client goes over as the official one does: once its probe is
/// answered it opens no more polls, waits for the open requests to end, and sends `5`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flood_both_ways_during_the_upgrade_arrives_whole_and_in_order() {
    for posted_before_probe in [0, 1, 40, 400] {
        let node = Arc::new(Node::start().await);
        flood(&node, posted_before_probe).await;
        Arc::into_inner(node).expect("the poller has ended").stop().await;
    }
}

const EACH_WAY: usize = 3000;

async fn flood(node: &Arc<Node>, posted_before_probe: usize) {
    let sid = node.open().await;
    let outbox = node.echo.outbox(0);
    let pusher = tokio::task::spawn_blocking(move || {
        for number in 0..EACH_WAY {
            outbox.push(message(&format!("p{number}")));
            std::thread::yield_now();
        }
    });
    let is_probed = Arc::new(AtomicBool::new(false));
    let poller = {
        let (node, sid, is_probed) = (Arc::clone(node), sid.clone(), Arc::clone(&is_probed));
        TaskTracker::new().spawn(async move {
            let mut received = Vec::new();
            while !is_probed.load(Ordering::SeqCst) {
                let body = node.poll(&sid).await.body;
                received.extend(body.split('\x1e').map(str::to_owned));
            }
            received
        })
    };

    let mut sent = 0;
    let mut batch = |max: usize| {
        let numbers = sent..EACH_WAY.min(sent + max);
        sent = numbers.end;
        numbers.map(|number| format!("4c{number}")).collect::<Vec<_>>()
    };
    if posted_before_probe > 0 {
        let posted = node.post(&sid, &batch(posted_before_probe).join("\x1e")).await;
        assert_eq!(posted.body, "ok");
    }
    let mut ws = node.connect(&format!("transport=websocket&sid={sid}")).await;
    ws.send("2probe").await;
    // While the probe is on its way, requests go on.
    for _ in 0..5 {
        assert_eq!(node.post(&sid, &batch(20).join("\x1e")).await.body, "ok");
    }
    assert_eq!(ws.text().await, "3probe");
    is_probed.store(true, Ordering::SeqCst);
    let mut received = poller.await.unwrap();
    ws.send("5").await;
    let rest = batch(EACH_WAY);
    let (mut sink, mut stream) = ws.0.split();
    let sending = TaskTracker::new().spawn(async move {
        for packet in rest {
            sink.send(Message::text(packet)).await.unwrap();
        }
        sink
    });
    let count = |received: &[String]| received.iter().filter(|p| p.starts_with('4')).count();
    while count(&received) < 2 * EACH_WAY {
        let next = tokio::time::timeout(PATIENCE, stream.next()).await;
        let next = next.unwrap_or_else(|_| panic!("{} came", count(&received)));
        received.push(next.unwrap().unwrap().into_text().unwrap().to_string());
    }
    for kind in ["4c", "4p"] {
        let numbers = received.iter().filter_map(|packet| packet.strip_prefix(kind));
        let numbers: Vec<usize> = numbers.map(|number| number.parse().unwrap()).collect();
        assert!(numbers.iter().copied().eq(0..EACH_WAY), "{kind}: {numbers:?}");
    }
    pusher.await.unwrap();
    drop((sending.await.unwrap(), stream));
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

/// A poll and the end of polling come by different streams: a poll that was sent later may be seen first.
#[tokio::test]
async fn poll_that_overtakes_the_upgrade_is_refused_and_nothing_is_lost() {
    let node = Node::start().await;
    let sid = node.open().await;
    let mut ws = node.connect(&format!("transport=websocket&sid={sid}")).await;
    let poll = node.begin_open_poll(&sid).await;
    let sent = Instant::now();
    ws.feed(&["2probe", "5", "4a"]).await;
    assert_eq!(ws.text().await, "3probe");
    let refused = receive(poll).await;
    let bad_request = (400, r#"{"code":3,"message":"Bad request"}"#);
    assert_eq!((refused.status, refused.body.as_str()), bad_request);
    // What the WebSocket is sent goes ahead by so much.
    assert!(sent.elapsed() >= Duration::from_millis(100), "{:?}", sent.elapsed());
    assert_eq!(ws.text().await, "4a");
    for number in 0..10 {
        node.echo.outbox(0).push(message(&number.to_string()));
        assert_eq!(ws.text().await, format!("4{number}"));
    }
    drop(ws);
    node.stop().await;
}

/// The connection knows of a WebSocket before the client does, so that whatever the client sends next finds it there.
#[tokio::test]
async fn websocket_that_came_first_is_the_one_that_probes() {
    let node = Node::start().await;
    for upgrades_first in [true, false].repeat(10) {
        let sid = node.open().await;
        let query = format!("transport=websocket&sid={sid}");
        let mut first = node.connect(&query).await;
        let packets = ["2probe", "5", "4hello"];
        if upgrades_first {
            first.feed(&packets).await;
        }
        let mut second = node.connect(&query).await;
        assert_eq!(second.close_code().await, 1005);
        if !upgrades_first {
            first.feed(&packets).await;
        }
        assert_eq!(first.text().await, "3probe");
        assert_eq!(first.text().await, "4hello");
    }
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
