//! What an application hears of the connection below its sockets, and that it keeps nothing of one that is over.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::future::{Ready, ready};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use flotilla::adapter::OutboxSize;
use flotilla::server::{ConnectError, Event, Io, Reason, Socket};

use common::{Notes, TestNode, noted, spawn, start, start_with, until};

/// A handler that notes its mark and the reason.
fn noting(
    notes: &Notes,
    mark: &'static str,
) -> impl Fn(Reason) -> Ready<()> + Send + Sync + 'static {
    let notes = notes.clone();
    move |Reason(reason): Reason| {
        notes.lock().unwrap().push(format!("{mark}: {reason}"));
        ready(())
    }
}

#[tokio::test]
async fn end_of_the_connection_is_told_after_its_sockets_have_left() {
    let notes = Notes::default();
    let theirs = notes.clone();
    let node = start(move |io: &Io| {
        for (name, mark) in [("/", "main"), ("/second", "second")] {
            let theirs = theirs.clone();
            io.of(name).on_connect(move |socket: Socket| {
                socket.on_disconnect(noting(&theirs, mark));
                socket.conn().on_close(noting(&theirs, "connection"));
                ready(())
            });
        }
    })
    .await;
    let mut client = node.connect().await;
    client.connect("/second", "").await;
    client.send("1/second,").await;
    assert_eq!(noted(&notes, 1).await, ["second: client namespace disconnect"]);
    drop(client);
    let wanted = [
        "second: client namespace disconnect",
        "main: transport close",
        // Once for each that listens, though one of the sockets had left long before.
        "connection: transport close",
        "connection: transport close",
    ];
    assert_eq!(noted(&notes, 4).await, wanted);
}

#[tokio::test]
async fn ends_of_connections_have_the_official_reasons() {
    let notes = Notes::default();
    let register = |io: &Io| {
        let main = io.of("/");
        main.on_disconnecting(noting(&notes, "leaving")).on_disconnect(noting(&notes, "left"));
    };
    let small = |config: &mut flotilla::config::Config| config.engine.max_payload_bytes = 1024;
    let patient = start_with("n1", Vec::new(), small, register).await;
    let too_long: &str = "4".repeat(1025).leak();
    // What a client sends as Engine.IO packets, and what its socket hears; None is the stream's end.
    let ends = [
        (None, "transport close"),
        (Some("1"), "transport close"),
        (Some("9"), "parse error"),
        (Some(too_long), "transport error"),
        (Some("49"), "forced close"),
    ];
    for (sent, reason) in ends {
        let mut client = patient.connect().await;
        if let Some(packet) = sent {
            client.send_raw(packet).await;
            client.expect_closed().await;
        }
        drop(client);
        let heard = noted(&notes, 2).await;
        assert_eq!(heard, [format!("leaving: {reason}"), format!("left: {reason}")], "{sent:.9?}");
        notes.lock().unwrap().clear();
    }

    let soon = |config: &mut flotilla::config::Config| {
        config.engine.ping_interval = Duration::from_millis(20);
        // Pings are answered while the client connects, which must not take so long.
        config.engine.ping_timeout = Duration::from_secs(5);
    };
    let impatient = start_with("n1", Vec::new(), soon, register).await;
    let silent = impatient.connect().await;
    assert_eq!(noted(&notes, 2).await, ["leaving: ping timeout", "left: ping timeout"]);
    drop(silent);
}

#[tokio::test]
async fn each_pong_of_the_client_is_told() {
    let notes = Notes::default();
    let beats = notes.clone();
    let often = |config: &mut flotilla::config::Config| {
        config.engine.ping_interval = Duration::from_millis(20);
    };
    let node = start_with("n1", Vec::new(), often, move |io: &Io| {
        io.of("/").on_connect(move |socket: Socket| {
            let beats = beats.clone();
            socket.conn().on_heartbeat(move |socket: Socket| {
                beats.lock().unwrap().push(socket.id().to_string());
                ready(())
            });
            ready(())
        });
    })
    .await;
    let mut silent = node.open().await;
    silent.answers_pings = false;
    silent.connect("/", "").await;
    let mut client = node.connect().await;
    let id = client.id.clone();
    // It answers pings while it waits for a packet, which does not come.
    let answering = spawn(async move { client.text().await });
    let noted = noted(&notes, 3).await;
    assert!(noted.iter().all(|of| *of == id), "{noted:?}, and {} is silent", silent.id);
    answering.abort();
}

#[tokio::test]
async fn what_a_client_has_not_read_is_known() {
    let node = start(|io: &Io| drop(io.of("/"))).await;
    let client = node.connect().await;
    let conn = node.io().of("/").sockets().remove(0).conn();
    until("all to be written", async || (conn.queued() == OutboxSize::default()).then_some(()))
        .await;
    // More than the buffers of the system hold.
    let long = "so it goes, ".repeat(80_000);
    for _ in 0..16 {
        node.io().emit("long", &long).await.unwrap();
    }
    until("the stream to be full", async || (conn.queued().bytes > long.len()).then_some(())).await;
    assert!(conn.queued().packets <= 16);
    drop(client);
    until("the connection to end", async || (node.io().clients_count() == 0).then_some(())).await;
}

/// Has a client come, and looks whether what its handlers hold is dropped when it goes.
async fn nothing_is_kept(node: &TestNode, kept: &Arc<Mutex<Option<Weak<()>>>>, namespace: &str) {
    let mut client = node.open().await;
    client.ask(namespace, "").await;
    assert!(client.text().await.contains(namespace));
    let held = kept.lock().unwrap().take().unwrap();
    drop(client);
    until("the handlers to be dropped", async || (held.strong_count() == 0).then_some(())).await;
}

#[tokio::test]
async fn handlers_that_hold_their_socket_end_with_it() {
    let kept: Arc<Mutex<Option<Weak<()>>>> = Arc::default();
    let keeping = kept.clone();
    let node = start(move |io: &Io| {
        for name in ["/taken", "/refused"] {
            let keeping = keeping.clone();
            io.of(name).with(move |socket: Socket| {
                let mark = Arc::new(());
                *keeping.lock().unwrap() = Some(Arc::downgrade(&mark));
                let held = (socket.clone(), mark);
                let holding = move || {
                    let _held = &held;
                    ready(())
                };
                socket.on("event", holding.clone());
                socket.once("event", holding.clone());
                socket.on_any(holding.clone());
                socket.on_any_outgoing(holding.clone());
                socket.on_error(holding.clone());
                socket.on_disconnecting(holding.clone());
                socket.on_disconnect(holding.clone());
                socket.conn().on_upgrade(holding.clone());
                socket.conn().on_heartbeat(holding.clone());
                socket.conn().on_close(holding.clone());
                socket.with(move |_event: Event| {
                    drop(holding());
                    ready(Ok(()))
                });
                let is_taken = socket.namespace_name() == "/taken";
                ready(if is_taken { Ok(()) } else { Err(ConnectError::new("no")) })
            });
        }
    })
    .await;
    nothing_is_kept(&node, &kept, "/taken").await;
    nothing_is_kept(&node, &kept, "/refused").await;
}
