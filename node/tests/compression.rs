//! `compress(false)`: which polls are compressed, from whichever node their packets come.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::net::SocketAddr;

use flotilla::server::{Ack, Io, Operator};

use common::roaming::{self, Roamer};
use common::{TestNode, start, start_three, until};

/// Beyond the threshold of compression.
fn long() -> String {
    "so it goes, ".repeat(200)
}

fn address(node: &TestNode) -> SocketAddr {
    node.node.addresses().listen
}

/// Whether the next poll is compressed for a client that takes gzip, and its body as far as it is text.
async fn poll(roamer: &Roamer, node: SocketAddr) -> (bool, String) {
    let head = format!("{}Accept-Encoding: gzip\r\n", roamer.head("GET"));
    let answer = roaming::receive(roaming::send(node, &head, b"").await).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let gzip = ("content-encoding".to_owned(), "gzip".to_owned());
    (answer.headers.contains(&gzip), answer.body)
}

#[tokio::test]
async fn poll_is_compressed_if_any_of_its_packets_is_worth_it() {
    let node = start(|io: &Io| {
        io.of("/").on("ping", async |ack: Ack| ack.send(&()).unwrap());
    })
    .await;
    let address = address(&node);
    let roamer = Roamer::open(address).await;
    roamer.connect([address, address]).await;
    let (io, text) = (node.io(), long());
    let wishes: [&[bool]; 6] =
        [&[false], &[true], &[false, false], &[false, true], &[true, false], &[]];
    for wishes in wishes {
        for wish in wishes {
            io.compress(*wish).emit("long", &text).await.unwrap();
        }
        // What says nothing is worth it, however short.
        if wishes.is_empty() {
            io.compress(false).emit("long", &text).await.unwrap();
            io.emit("short", &()).await.unwrap();
        }
        let wanted = wishes.is_empty() || wishes.contains(&true);
        let (is_compressed, body) = poll(&roamer, address).await;
        assert_eq!(is_compressed, wanted, "{wishes:?}");
        assert_eq!(body.contains(&text), !wanted, "{wishes:?}");
    }

    let socket = io.of("/").sockets().remove(0);
    let ways: [fn(Operator) -> Operator; 3] =
        [|operator| operator, Operator::direct, Operator::local];
    for way in ways {
        way(socket.compress(false)).emit("long", &text).await.unwrap();
        assert!(!poll(&roamer, address).await.0);
        drop(way(socket.compress(false)).emit_with_ack("long", &text));
        assert!(!poll(&roamer, address).await.0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wish_travels_with_the_packet_to_other_nodes() {
    let nodes = start_three(|io: &Io| drop(io.of("/"))).await;
    let [owner, sender, entry] = [&nodes[0], &nodes[1], &nodes[2]];
    let roamer = Roamer::open(address(owner)).await;
    roamer.connect([address(owner), address(entry)]).await;
    until("the sender to see the socket", async || {
        (sender.io().fetch_sockets().len() == 1).then_some(())
    })
    .await;
    for compress in [false, true] {
        for operator in [sender.io().operator(), sender.io().direct()] {
            operator.compress(compress).emit("long", &long()).await.unwrap();
            let (is_compressed, _) = poll(&roamer, address(entry)).await;
            assert_eq!(is_compressed, compress);
        }
    }
}
