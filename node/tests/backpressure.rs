//! A client that reads too slowly, at the public door: what it costs others, and how it ends.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::net::SocketAddr;
use std::time::Duration;

use flotilla::adapter::OutboxPolicy;
use flotilla::config::Config;
use flotilla::server::{Io, Reason, Socket};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use common::client::Packet;
use common::{PATIENCE, TestNode, until};

const MAX_BYTES: usize = 400_000;

async fn start(policy: OutboxPolicy, max_packets: usize) -> (TestNode, mpsc::Receiver<String>) {
    let (reasons, left) = mpsc::channel(8);
    let register = move |io: &Io| {
        io.of("/")
            .on_disconnect(move |Reason(reason): Reason| {
                let reasons = reasons.clone();
                async move { reasons.send(reason.to_owned()).await.unwrap() }
            })
            .on("burst", async |socket: Socket| {
                // Nothing is written meanwhile: the connection's task is this one.
                for number in 0..100 {
                    socket.itself().volatile().emit("msg", &("volatile", number));
                }
                for number in 0..60 {
                    socket.itself().direct().emit("msg", &("kept", number));
                }
            });
    };
    let config = move |config: &mut Config| {
        config.engine.max_payload_bytes = 100_000;
        config.engine.ping_timeout = Duration::from_secs(600);
        config.outbox.max_bytes = MAX_BYTES;
        config.outbox.max_packets = max_packets;
        config.outbox.policy = policy;
    };
    (common::start_with("n1", Vec::new(), config, register).await, left)
}

/// A client whose stream holds little, and which reads when it is told to.
struct Slow(WebSocketStream<TcpStream>);

impl Slow {
    async fn connect(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let stream = socket.connect(address).await.unwrap();
        let url = format!("ws://{address}/socket.io/?EIO=4&transport=websocket");
        let (mut stream, _) = tokio_tungstenite::client_async(url, stream).await.unwrap();
        stream.send(Message::text("40")).await.unwrap();
        let mut slow = Self(stream);
        assert!(slow.text().await.unwrap().starts_with("0{"));
        assert!(slow.text().await.unwrap().starts_with("40{"));
        slow
    }

    /// The next text; none at the end.
    async fn text(&mut self) -> Option<String> {
        let next = tokio::time::timeout(PATIENCE, self.0.next()).await;
        match next.expect("the server should send something")? {
            Ok(Message::Text(text)) => Some(text.to_string()),
            _ => None,
        }
    }
}

/// A metric of the node; 0 if there is none of that name and label yet.
async fn metric(node: &TestNode, name: &str) -> u64 {
    let mut stream = TcpStream::connect(node.node.addresses().admin).await.unwrap();
    let request = b"GET /metrics HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let line = answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0, |value| value.parse::<f64>().unwrap() as u64)
}

#[tokio::test]
async fn slow_reader_delays_nobody_and_is_disconnected_at_the_bound() {
    let (node, mut left) = start(OutboxPolicy::Disconnect, 1000).await;
    let mut quick = [node.connect().await, node.connect().await, node.connect().await];
    let slow = Slow::connect(node.node.addresses().listen).await;
    let closed = "flotilla_connections_closed_total{reason=\"slow_consumer\"}";
    let closed_before = metric(&node, closed).await;

    let text = "x".repeat(20_000);
    let mut number = 0;
    let mut largest = 0;
    let reason = loop {
        node.io().operator().direct().emit("msg", &(number, &text));
        // Everyone else has each before the next is sent.
        for client in &mut quick {
            let got = client.text().await;
            assert!(got.starts_with(&format!(r#"2["msg",{number},""#)), "{}", &got[..20]);
        }
        largest = largest.max(metric(&node, "flotilla_outbox_largest_bytes").await);
        if let Ok(reason) = left.try_recv() {
            break reason;
        }
        number += 1;
        assert!(number < 2000, "no stream holds 40 MB");
    };
    assert_eq!(reason, "slow consumer");
    assert!(largest <= MAX_BYTES as u64, "{largest} bytes waited");
    assert!(largest > MAX_BYTES as u64 / 2, "{largest} bytes waited before the end");
    // Other tests of this process may close some too.
    assert!(metric(&node, closed).await > closed_before);
    let waiting = "flotilla_outbox_bytes";
    until("nothing waits any more", async || (metric(&node, waiting).await == 0).then_some(()))
        .await;
    assert_eq!(metric(&node, "flotilla_outbox_packets").await, 0);
    drop(slow);
}

#[tokio::test]
async fn volatile_packets_pass_a_slow_reader_by_and_others_reach_it_in_order() {
    let (node, mut left) = start(OutboxPolicy::DropVolatile, 1000).await;
    let mut slow = Slow::connect(node.node.addresses().listen).await;
    let text = "x".repeat(20_000);
    let dropped = "flotilla_drops_total{reason=\"volatile\"}";
    let dropped_before = metric(&node, dropped).await;
    // Until the stream is full, and then as much again as would end it.
    let mut number = 0;
    while metric(&node, dropped).await < dropped_before + 2 * (MAX_BYTES / text.len()) as u64 {
        node.io().operator().volatile().emit("msg", &("volatile", &text));
        node.io().operator().direct().emit("msg", &("kept", number));
        number += 1;
        assert!(metric(&node, "flotilla_outbox_largest_bytes").await <= MAX_BYTES as u64);
    }
    assert!(left.try_recv().is_err(), "volatile packets disconnect nobody");

    let mut volatile = 0;
    let mut kept = 0;
    while kept < number {
        let got = slow.text().await.unwrap();
        if got.starts_with(r#"42["msg","volatile""#) {
            volatile += 1;
        } else {
            assert_eq!(got, format!(r#"42["msg","kept",{kept}]"#));
            kept += 1;
        }
    }
    assert!(volatile < number, "all {number} volatile packets came");
}

#[tokio::test]
async fn volatile_packets_that_wait_make_way_if_the_policy_says_so() {
    let (node, _left) = start(OutboxPolicy::DropVolatile, 64).await;
    let mut client = node.connect().await;
    client.send(r#"2["burst"]"#).await;
    for number in 0..60 {
        client.expect(&format!(r#"2["msg","kept",{number}]"#)).await;
    }
}

#[tokio::test]
async fn volatile_packets_that_wait_stay_if_the_policy_is_to_disconnect() {
    let (node, mut left) = start(OutboxPolicy::Disconnect, 64).await;
    let mut client = node.connect().await;
    client.send(r#"2["burst"]"#).await;
    assert_eq!(left.recv().await.unwrap(), "slow consumer");
    assert_eq!(client.next().await, Packet::Closed);
}
