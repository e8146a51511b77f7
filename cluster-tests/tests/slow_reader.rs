//! Clients that read nothing: they are disconnected at the bound, and cost others neither time nor
//! the node memory.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use cluster_tests::client::Client;
use cluster_tests::cluster::Cluster;
use cluster_tests::wait;
use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

const MAX_BYTES: i64 = 1_500_000;
const SLOW: usize = 10;
const ROUNDS: usize = 8;

#[tokio::test]
async fn clients_that_do_not_read_are_disconnected_and_leave_nothing_behind() {
    let builder = Cluster::builder(3).setting(&["outbox", "max_bytes"], MAX_BYTES);
    let mut cluster = builder.start().await;
    cluster.wait_peers().await;
    let ann = cluster.client("n1", "/relay-direct").await;
    let bob = cluster.client("n2", "/relay-direct").await;

    let mut resident = Vec::new();
    for round in 1..=ROUNDS {
        let mut slow = Vec::new();
        // What was sent to those before may still be on its way to their node.
        let room = format!("slow {round}");
        for _ in 0..SLOW {
            slow.push(connect_slow(&cluster.url("n2"), &room).await);
        }
        let took = flood(&cluster, &ann, &bob, &room, round * SLOW).await;
        assert!(took < Duration::from_secs(2), "an echo at n2 took {took:?}, as a rule");
        let pid = cluster.process("n2").pid();
        resident.push(resident_kib(pid));
    }
    // The first rounds fill what an allocator keeps.
    let (early, late) = (resident[2], resident[ROUNDS - 1]);
    assert!(late < early + 16 * 1024, "resident memory after each round, in KiB: {resident:?}");
    // Their ends are agreed a moment after their connections are closed.
    wait::until("all of them to be gone", async || {
        let metrics = cluster.metrics("n2").await.unwrap();
        let left = ["flotilla_connections", "flotilla_sockets", "flotilla_outbox_packets"]
            .map(|name| metrics.sum(name));
        wait::holds(left == [1.0, 1.0, 0.0], left)
    })
    .await;
}

/// Sends to the room of the slow ones until they are disconnected, and nothing waits beyond the
/// bound; how long an echo of someone else at their node took meanwhile, the median of all.
async fn flood(
    cluster: &Cluster,
    ann: &Client,
    bob: &Client,
    room: &str,
    closed: usize,
) -> Duration {
    let text = "x".repeat(200_000);
    let mut took = Vec::new();
    let deadline = Instant::now() + wait::PATIENCE;
    loop {
        let metrics = cluster.metrics("n2").await.unwrap();
        let largest = metrics.sum("flotilla_outbox_largest_bytes");
        assert!(largest <= MAX_BYTES as f64, "{largest} bytes wait for one client");
        if metrics.sum("flotilla_connections_closed_total") >= closed as f64
            && metrics.sum("flotilla_outbox_bytes") == 0.0
        {
            took.sort();
            return took[took.len() / 2];
        }
        assert!(Instant::now() < deadline, "not all were disconnected\n{}", cluster.logs());
        ann.confirm("room", &[json!(room), json!(text)]).await.unwrap();
        let asked = Instant::now();
        assert_eq!(bob.call("echo", &[json!(1)]).await.unwrap(), [json!(1)]);
        took.push(asked.elapsed());
    }
}

/// A client in `room` whose stream holds little, and which reads no more.
async fn connect_slow(url: &str, room: &str) -> WebSocketStream<TcpStream> {
    let address = url.strip_prefix("http://").unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let stream = socket.connect(address.parse().unwrap()).await.unwrap();
    let url = format!("ws://{address}/socket.io/?EIO=4&transport=websocket");
    let (mut stream, _) = tokio_tungstenite::client_async(url, stream).await.unwrap();
    expect(&mut stream, "0{").await;
    let join = format!(r#"42/relay-direct,0["join","{room}"]"#);
    for (packet, answer) in
        [("40/relay-direct,", "40/relay-direct,"), (&*join, "43/relay-direct,0")]
    {
        stream.send(Message::text(packet)).await.unwrap();
        expect(&mut stream, answer).await;
    }
    stream
}

async fn expect(stream: &mut WebSocketStream<TcpStream>, start: &str) {
    let next = tokio::time::timeout(wait::PATIENCE, stream.next()).await;
    let message = next.expect("the node should answer").unwrap().unwrap();
    assert!(message.to_text().unwrap().starts_with(start), "{message}");
}

fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}
