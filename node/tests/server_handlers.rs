//! Several handlers for one thing: all run, in order, and one of them answers.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::future::{Ready, ready};
use std::sync::{Arc, Mutex};

use flotilla::server::{Ack, Event, Io, NamespaceHandle, Reason, ServerEvent, Socket, Transport};

use common::{PATIENCE, start, start_three, until};

/// What handlers noted, for the test to look at.
type Notes = Arc<Mutex<Vec<&'static str>>>;

fn taken(notes: &Notes) -> Vec<&'static str> {
    std::mem::take(&mut *notes.lock().unwrap())
}

/// A handler that notes that it ran.
fn noting(notes: &Notes, mark: &'static str) -> impl Fn() -> Ready<()> + Send + Sync + 'static {
    let notes = notes.clone();
    move || {
        notes.lock().unwrap().push(mark);
        ready(())
    }
}

/// The same, which also answers with its mark.
fn answering(
    notes: &Notes,
    mark: &'static str,
) -> impl Fn(Ack) -> Ready<()> + Send + Sync + 'static {
    let notes = notes.clone();
    move |ack: Ack| {
        notes.lock().unwrap().push(mark);
        ack.send(mark).unwrap();
        ready(())
    }
}

#[tokio::test]
async fn all_handlers_of_an_event_run_in_order_and_the_first_answer_counts() {
    let notes = Notes::default();
    let theirs = notes.clone();
    let node = start(move |io: &Io| {
        let namespace = io.of("/");
        namespace
            .on("event", noting(&theirs, "namespace 1"))
            .on("event", answering(&theirs, "namespace 2"))
            .on_connect(move |socket: Socket| {
                socket.on("event", answering(&theirs, "own 2"));
                socket.on("event", noting(&theirs, "own 3"));
                socket.prepend("event", noting(&theirs, "own 1"));
                socket.on("own", answering(&theirs, "own"));
                assert_eq!(socket.listeners("event").len(), 3);
                assert_eq!(socket.event_names(), ["event", "own"]);
                ready(())
            });
        assert_eq!(namespace.listeners("event").len(), 2);
        assert_eq!(namespace.event_names(), ["event"]);
    })
    .await;
    let mut client = node.connect().await;
    client.send(r#"20["event"]"#).await;
    client.expect(r#"30["namespace 2"]"#).await;
    assert_eq!(taken(&notes), ["namespace 1", "namespace 2", "own 1", "own 2", "own 3"]);
    client.send(r#"21["own"]"#).await;
    client.expect(r#"31["own"]"#).await;
    client.send(r#"2["event"]"#).await;
    client.send(r#"22["event"]"#).await;
    client.expect(r#"32["namespace 2"]"#).await;
}

#[tokio::test]
async fn handler_that_answers_later_is_beaten_by_one_that_answers_now() {
    let gate = Arc::new(tokio::sync::Notify::new());
    let opened = gate.clone();
    let node = start(move |io: &Io| {
        io.of("/")
            .on("event", move |ack: Ack| {
                let gate = opened.clone();
                async move {
                    gate.notified().await;
                    assert!(ack.is_wanted());
                    ack.send("late").unwrap();
                }
            })
            .on("event", async |ack: Ack| ack.send("at once").unwrap())
            .on("ping", async |ack: Ack| ack.send(&()).unwrap());
    })
    .await;
    let mut client = node.connect().await;
    client.send(r#"20["event"]"#).await;
    client.expect(r#"30["at once"]"#).await;
    gate.notify_one();
    assert!(client.so_far().await.is_empty());
}

#[tokio::test]
async fn catch_all_listeners_may_answer_too() {
    let notes = Notes::default();
    let theirs = notes.clone();
    let node = start(move |io: &Io| {
        let namespace = io.of("/");
        namespace.on("event", answering(&theirs, "handler")).on_connect(move |socket: Socket| {
            socket.on_any(answering(&theirs, "any"));
            socket.with(async |_event: Event| {
                tokio::task::yield_now().await;
                Ok(())
            });
            ready(())
        });
    })
    .await;
    let mut client = node.connect().await;
    for id in 0..2 {
        client.send(&format!(r#"2{id}["event"]"#)).await;
        client.expect(&format!(r#"3{id}["any"]"#)).await;
    }
    until("the handlers", async || (notes.lock().unwrap().len() == 4).then_some(())).await;
    assert_eq!(taken(&notes)[..1], ["any"]);
}

#[tokio::test]
async fn handler_for_once_runs_once_and_those_taken_away_never() {
    let notes = Notes::default();
    let theirs = notes.clone();
    let node = start(move |io: &Io| {
        let gone = io.of("/").add_listener("event", async || panic!("it was taken away"));
        io.of("/").remove_listener(gone);
        io.of("/")
            .on_connect(move |socket: Socket| {
                socket.on("event", answering(&theirs, "always"));
                socket.prepend_once("event", answering(&theirs, "once"));
                socket.once("never", async || panic!("it was taken away"));
                socket.off("never");
                let gone = socket.on("event", async || panic!("it was taken away"));
                socket.remove_listener(gone);
                ready(())
            })
            .on("shared", answering(&notes, "shared"))
            .on("off", async |namespace: NamespaceHandle, socket: Socket, ack: Ack| {
                namespace.off("shared");
                socket.remove_all_listeners();
                assert!(socket.event_names().is_empty());
                ack.send(&()).unwrap();
            })
            .on("ping", async |ack: Ack| ack.send(&()).unwrap());
    })
    .await;
    let mut client = node.connect().await;
    for (id, wanted) in [(0, "once"), (1, "always"), (2, "always")] {
        client.send(&format!(r#"2{id}["event"]"#)).await;
        client.expect(&format!(r#"3{id}["{wanted}"]"#)).await;
    }
    client.send(r#"2["never"]"#).await;
    client.send(r#"23["shared"]"#).await;
    client.expect(r#"33["shared"]"#).await;
    client.send(r#"24["off"]"#).await;
    client.expect("34[]").await;
    client.send(r#"25["event"]"#).await;
    client.send(r#"26["shared"]"#).await;
    assert!(client.so_far().await.is_empty());
}

#[tokio::test]
async fn handler_of_a_namespace_for_once_runs_for_the_first_of_all_its_sockets() {
    let notes = Notes::default();
    let theirs = notes.clone();
    let node = start(move |io: &Io| {
        let namespace = io.of("/");
        namespace
            .on_connect_once(noting(&theirs, "connect once"))
            .on_connect(noting(&theirs, "connect"))
            .on("event", noting(&theirs, "always"))
            .on("ping", async |ack: Ack| ack.send(&()).unwrap());
        namespace.once("event", answering(&theirs, "event once"));
        let never = namespace.once("event", async || panic!("it was taken away"));
        namespace.remove_listener(never);
        assert_eq!(namespace.listeners("event").len(), 2);
    })
    .await;
    let mut clients = [node.connect().await, node.connect().await];
    assert_eq!(taken(&notes), ["connect once", "connect", "connect"]);
    for client in &mut clients {
        client.send(r#"21["event"]"#).await;
        client.send(r#"22["event"]"#).await;
    }
    let mut answers = Vec::new();
    for client in &mut clients {
        answers.extend(client.so_far().await);
    }
    assert_eq!(answers, [r#"31["event once"]"#], "to whoever came first");
    let mut marks = taken(&notes);
    marks.sort_unstable();
    assert_eq!(marks, ["always", "always", "always", "always", "event once"]);
    assert_eq!(node.io().of("/").listeners("event").len(), 1);
}

#[tokio::test]
async fn handler_that_is_added_or_taken_away_by_another_counts_from_the_next_event_on() {
    let notes = Notes::default();
    let theirs = notes.clone();
    let node = start(move |io: &Io| {
        io.of("/")
            .on_connect(move |socket: Socket| {
                let notes = theirs.clone();
                socket.once("event", move |socket: Socket| {
                    let last = socket.listeners("event").pop().unwrap();
                    socket.remove_listener(last);
                    socket.on("event", noting(&notes, "new"));
                    ready(())
                });
                socket.on("event", noting(&theirs, "old"));
                ready(())
            })
            .on("ping", async |ack: Ack| ack.send(&()).unwrap());
    })
    .await;
    let mut client = node.connect().await;
    client.send(r#"2["event"]"#).await;
    client.so_far().await;
    assert_eq!(taken(&notes), ["old"]);
    client.send(r#"2["event"]"#).await;
    client.so_far().await;
    assert_eq!(taken(&notes), ["new"]);
}

#[tokio::test]
async fn all_handlers_of_a_sockets_beginning_and_end_run() {
    let notes = Notes::default();
    let theirs = notes.clone();
    let node = start(move |io: &Io| {
        io.of("/")
            .on_connect(noting(&theirs, "connect 1"))
            .on_connect({
                let notes = theirs.clone();
                move |socket: Socket| {
                    notes.lock().unwrap().push("connect 2");
                    socket.conn().on_upgrade(async |_: Transport| {});
                    let late = notes.clone();
                    socket.on_disconnecting(move |socket: Socket| {
                        late.lock().unwrap().push("own disconnecting 1");
                        socket.on_disconnect(noting(&late, "own disconnect 2"));
                        ready(())
                    });
                    socket.on_disconnecting(noting(&notes, "own disconnecting 2"));
                    socket.on_disconnect(noting(&notes, "own disconnect 1"));
                    let gone = socket.on_disconnect(async || panic!("it was taken away"));
                    socket.remove_listener(gone);
                    ready(())
                }
            })
            .on_disconnecting(noting(&theirs, "disconnecting"))
            .on_disconnect(noting(&theirs, "disconnect 1"))
            .on_disconnect({
                let note = noting(&theirs, "disconnect 2");
                move |Reason(reason): Reason| {
                    assert_eq!(reason, "client namespace disconnect");
                    note()
                }
            });
    })
    .await;
    let mut client = node.connect().await;
    client.send("1").await;
    until("the end", async || (notes.lock().unwrap().len() >= 9).then_some(())).await;
    assert_eq!(
        taken(&notes),
        [
            "connect 1",
            "connect 2",
            "disconnecting",
            "own disconnecting 1",
            "own disconnecting 2",
            "disconnect 1",
            "disconnect 2",
            "own disconnect 1",
            "own disconnect 2"
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_handlers_of_a_server_side_event_run_and_the_first_answer_counts() {
    let notes = Notes::default();
    let theirs = notes.clone();
    let nodes = start_three(move |io: &Io| {
        let notes = theirs.clone();
        io.of("/")
            .on_server_event("who", async |event: ServerEvent| drop(event))
            .on_server_event("who", async |event: ServerEvent| {
                let other = event.clone();
                assert!(event.wants_answer());
                event.answer("first").unwrap();
                assert!(!other.wants_answer());
            })
            .on_server_event("who", move |event: ServerEvent| {
                notes.lock().unwrap().push("third");
                event.answer("third").unwrap();
                ready(())
            });
    })
    .await;
    let io = nodes[0].io();
    let answers = until("the nodes to know each other", async || {
        let asked = io.server_side_emit_with_ack("who", &()).timeout(PATIENCE / 10);
        asked.await.ok().filter(|answers| answers.len() == 2)
    })
    .await;
    assert!(answers.iter().all(|answer| &*answer.json == r#"["first"]"#), "{answers:?}");
    until("the third handlers", async || (notes.lock().unwrap().len() >= 2).then_some(())).await;
}
