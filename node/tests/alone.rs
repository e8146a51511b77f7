//! A node that is a cluster by itself, and one that is joined by another while packets flow.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use flotilla::adapter::DeliveryMode;
use flotilla::config::{Config, NamespaceConfig};
use flotilla::server::{Ack, Io, Socket};

use common::client::Client;
use common::{TestNode, spawn, start_with, until};

const WRITERS: usize = 3;

/// More than a handler emits before its client can answer.
const AT_MOST: usize = 1_000_000;

fn application(io: &Io) {
    let stopped = Arc::new(AtomicBool::new(false));
    let stop = stopped.clone();
    io.of("/")
        .on("until stopped", move |socket: Socket, ack: Ack| {
            let stopped = stopped.clone();
            async move {
                for _ in 0..AT_MOST {
                    if stopped.load(Ordering::Relaxed) {
                        break;
                    }
                    socket.emit("n", &()).await.unwrap();
                }
                ack.send(&stopped.load(Ordering::Relaxed)).unwrap();
            }
        })
        .on("stop", move || {
            stop.store(true, Ordering::Relaxed);
            async {}
        });
}

/// Emits `[writer, n]` for all, one after the other, until it is told to stop; returns how many.
async fn write(io: Io, writer: usize, counter: Arc<AtomicUsize>, stop: Arc<AtomicBool>) -> usize {
    let mut written = 0;
    while !stop.load(Ordering::Relaxed) {
        io.of("/").emit("msg", &(writer, written)).await.unwrap();
        written += 1;
        counter.fetch_add(1, Ordering::Relaxed);
    }
    written
}

/// All packets up to `end`, which is the last.
async fn received(client: &mut Client) -> Vec<String> {
    let mut packets = Vec::new();
    loop {
        let packet = client.text().await;
        if packet == r#"2["end"]"# {
            return packets;
        }
        packets.push(packet);
    }
}

async fn more(counter: &AtomicUsize) {
    let before = counter.load(Ordering::Relaxed);
    let more = async || (counter.load(Ordering::Relaxed) > before + 100).then_some(());
    until("more packets to be written", more).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packets_keep_their_one_order_when_a_second_node_joins() {
    // Writers do not wait for their readers.
    let roomy = |config: &mut Config| {
        config.outbox.max_packets = 10 * AT_MOST;
        config.outbox.max_bytes = 1 << 30;
    };
    let first = start_with("n1", Vec::new(), roomy, application).await;
    let mut early = first.connect().await;
    let (counter, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let write = |node: &TestNode, writer| {
        spawn(write(node.io().clone(), writer, counter.clone(), stop.clone()))
    };
    let mut writers: Vec<_> = (0..WRITERS - 1).map(|writer| write(&first, writer)).collect();
    // The client reads all the while: what it has missed by the end would be more than a queue takes.
    let early = spawn(async move { received(&mut early).await });
    more(&counter).await;

    let seeds = vec![first.node.addresses().cluster.to_string()];
    let second = start_with("n2", seeds, roomy, application).await;
    let mut late = second.connect().await;
    let late = spawn(async move { received(&mut late).await });
    writers.push(write(&second, WRITERS - 1));
    more(&counter).await;
    stop.store(true, Ordering::Relaxed);
    let mut written = Vec::new();
    for writer in writers {
        written.push(writer.await.unwrap());
    }
    first.io().of("/").emit("end", &()).await.unwrap();

    let (early, late) = (early.await.unwrap(), late.await.unwrap());
    for (writer, written) in written.into_iter().enumerate() {
        let all: Vec<_> = (0..written).map(|n| format!(r#"2["msg",{writer},{n}]"#)).collect();
        let of_it = format!(r#"2["msg",{writer},"#);
        let seen: Vec<_> = early.iter().filter(|packet| packet.starts_with(&of_it)).collect();
        assert!(seen.into_iter().eq(&all), "each of writer {writer} once, in order");
    }
    assert!(late.len() > 50);
    assert!(early.ends_with(&late), "the same order, from where the second one came in");
}

/// The handler begins in the task that writes to its client.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_reads_while_a_handler_emits_and_awaits() {
    for delivery in [DeliveryMode::Replicated, DeliveryMode::Direct] {
        let change = |config: &mut Config| {
            let namespace = NamespaceConfig { delivery, recovery: None };
            config.namespaces.insert("/".into(), namespace);
            // It goes on for as long as the client takes to answer.
            config.outbox.max_packets = 2 * AT_MOST;
            config.outbox.max_bytes = 1 << 30;
        };
        let node = start_with("n1", Vec::new(), change, application).await;
        let mut client = node.connect().await;
        client.send(r#"27["until stopped"]"#).await;
        client.expect(r#"2["n"]"#).await;
        client.send(r#"2["stop"]"#).await;
        let last = loop {
            match client.text().await {
                packet if packet == r#"2["n"]"# => {}
                packet => break packet,
            }
        };
        assert_eq!(last, "37[true]", "it was stopped");
    }
}
