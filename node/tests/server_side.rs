//! What the applications on three nodes in this process say to each other, and what they learn of
//! each other's sockets.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use flotilla::adapter::DeliveryMode;
use flotilla::server::{AckError, EmitError, Io, NamespaceHandle, ServerEvent, Socket};
use flotilla::socketio::Binary;
use serde_json::{Value, json};
use tokio::time::Instant;

use common::client::Client;
use common::{PATIENCE, TestNode, start, start_three, until};

/// By receiver: the sender, and what it said.
type Heard = Arc<Mutex<Vec<(u64, u64)>>>;

async fn nodes_known(nodes: &[TestNode], count: usize) {
    for node in nodes {
        let io = node.io();
        until("the nodes to know each other", async || {
            // A node that does not know another asks it nothing.
            let asked = io.server_side_emit_with_ack("who", &());
            asked.await.is_ok_and(|answers| answers.len() == count - 1).then_some(())
        })
        .await;
    }
}

fn answering_who(io: &Io) {
    io.of("/").on_server_event("who", async |event: ServerEvent| {
        let node = event.io().of("/").operator();
        drop(node);
        event.answer("me").unwrap();
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_side_events_reach_all_other_nodes_in_each_senders_order() {
    const COUNT: u64 = 300;
    let heard: [Heard; 3] = Default::default();
    let registering = heard.clone();
    let next = std::sync::atomic::AtomicUsize::new(0);
    let nodes = start_three(move |io: &Io| {
        answering_who(io);
        let mine = registering[next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)].clone();
        io.of("/").on_server_event("count", move |event: ServerEvent| {
            assert!(!event.wants_answer());
            mine.lock().unwrap().push((event.from(), event.data().unwrap()));
            async {}
        });
    })
    .await;
    nodes_known(&nodes, 3).await;
    for n in 0..COUNT {
        for node in &nodes {
            node.io().server_side_emit("count", &n).unwrap();
        }
    }
    for heard in &heard {
        until("all events", async || {
            (heard.lock().unwrap().len() == 2 * COUNT as usize).then_some(())
        })
        .await;
        let heard = heard.lock().unwrap();
        let mut senders: Vec<_> = heard.iter().map(|(from, _)| *from).collect();
        senders.sort_unstable();
        senders.dedup();
        assert_eq!(senders.len(), 2, "the other two, and not the node itself");
        for sender in senders {
            let said: Vec<_> =
                heard.iter().filter(|(from, _)| *from == sender).map(|(_, n)| *n).collect();
            assert_eq!(said, (0..COUNT).collect::<Vec<_>>());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_other_node_answers_once_or_makes_the_answers_partial() {
    let nodes = start_three(|io: &Io| {
        answering_who(io);
        io.of("/other").on_server_event("double", async |event: ServerEvent| {
            let (n, bytes): (i64, Binary) = event.data().unwrap();
            assert_eq!(event.namespace().name(), "/other");
            tokio::task::yield_now().await;
            event.answer(&(2 * n, bytes)).unwrap();
        });
        io.of("/").on_server_event("ignored", async |event: ServerEvent| drop(event));
        io.of("/")
            .on_server_event("panic", async |_event: ServerEvent| panic!("as the test wants"));
        io.of("/").on_server_event("never", async |event: ServerEvent| {
            std::future::pending::<()>().await;
            drop(event);
        });
    })
    .await;
    nodes_known(&nodes, 3).await;
    let io = nodes[0].io();

    let bytes = Binary(vec![0, 255, 7].into());
    let other = io.of("/other");
    let answers = other.server_side_emit_with_ack("double", &(21, &bytes)).await.unwrap();
    assert_eq!(answers.len(), 2);
    for answer in &answers {
        let answer: (i64, Binary) = flotilla::socketio::from_ack(answer).unwrap();
        assert_eq!(answer, (42, bytes.clone()));
    }

    // One node answers nothing: it is known at once, before any timeout.
    nodes[1].io().of("/").on_server_event("some", async |event: ServerEvent| {
        event.answer("second").unwrap();
    });
    for (event, count) in [("some", 1), ("ignored", 0), ("panic", 0), ("unknown", 0)] {
        let asked = io.server_side_emit_with_ack(event, &()).timeout(PATIENCE);
        let before = Instant::now();
        match asked.await {
            Err(AckError::Partial { answers }) => assert_eq!(answers.len(), count, "{event}"),
            other => panic!("{event}: {other:?}"),
        }
        assert!(before.elapsed() < PATIENCE);
    }
    let asked = io.of("/nowhere else").server_side_emit_with_ack("some", &()).timeout(PATIENCE);
    assert!(matches!(asked.await, Err(AckError::Partial { answers }) if answers.is_empty()));

    // One that takes too long is not waited for longer.
    nodes[1].io().of("/").on_server_event("never", async |event: ServerEvent| {
        event.answer("at least me").unwrap();
    });
    let asked = io.server_side_emit_with_ack("never", &()).timeout(Duration::from_secs(3));
    match asked.await {
        Err(AckError::Partial { answers }) => {
            assert_eq!(answers.len(), 1);
            assert_eq!(answers[0].json, r#"["at least me"]"#);
        }
        other => panic!("{other:?}"),
    }
    // The handler can be taken away.
    nodes[1].io().of("/").off_server_event("some");
    let asked = io.server_side_emit_with_ack("some", &()).timeout(PATIENCE);
    assert!(matches!(asked.await, Err(AckError::Partial { answers }) if answers.is_empty()));
}

#[tokio::test]
async fn node_alone_has_nobody_to_emit_to() {
    let node = start(|io: &Io| {
        io.of("/").on_server_event("own", async |_event: ServerEvent| panic!("it is its own"));
    })
    .await;
    node.io().server_side_emit("own", &1).unwrap();
    let answers = node.io().server_side_emit_with_ack("own", &1).await.unwrap();
    assert!(answers.is_empty());
    let refused = node.io().server_side_emit("connection", &());
    assert!(matches!(refused, Err(EmitError::Reserved)));
}

/// A client on each node, in `/n`, whose data is its node's number.
async fn one_each(nodes: &[TestNode; 3]) -> Vec<Client> {
    let mut clients = Vec::new();
    for (n, node) in nodes.iter().enumerate() {
        let mut client = node.open().await;
        client.connect("/n", &format!(r#"{{"n":{n}}}"#)).await;
        client.expect(r#"2/n,["ready"]"#).await;
        clients.push(client);
    }
    for node in nodes {
        let namespace = node.io().of("/n");
        until("the sockets to be known", async || {
            (namespace.to("all").fetch_sockets().len() == 3).then_some(())
        })
        .await;
    }
    clients
}

fn with_data(io: &Io) {
    answering_who(io);
    io.of_mode("/n", DeliveryMode::Direct).on_connect(async |socket: Socket| {
        let auth: Value = socket.auth().unwrap();
        socket.update_data(|data| data.insert("n".to_owned(), auth["n"].clone()));
        socket.join("all").await.unwrap();
        socket.emit("ready", &());
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn owners_tell_of_their_sockets_and_one_that_is_gone_makes_the_answer_partial() {
    let nodes = start_three(with_data).await;
    nodes_known(&nodes, 3).await;
    let mut clients = one_each(&nodes).await;
    let namespace = nodes[0].io().of("/n");
    let fetched = namespace.to("all").timeout(PATIENCE).fetch_details().await;
    assert!(fetched.is_complete);
    let mut told: Vec<_> = fetched
        .sockets
        .iter()
        .map(|(socket, details)| {
            let details = details.as_ref().unwrap();
            assert_eq!(details.handshake.auth, Value::Object(details.data.clone()));
            assert_eq!(details.handshake.query["transport"], "websocket");
            (details.data["n"].as_u64().unwrap(), socket.id.to_string())
        })
        .collect();
    told.sort_unstable();
    let ids: Vec<_> = clients.iter().map(|client| client.id.clone()).collect();
    assert_eq!(told, [0, 1, 2].map(|n| (n as u64, ids[n].clone())));
    assert_eq!(namespace.local().fetch_details().await.sockets.len(), 1);

    // Remote sockets have all verbs.
    let there = namespace.to(ids[2].clone()).fetch_sockets().remove(0);
    assert_eq!(there.node, namespace.to(ids[2].clone()).fetch_sockets()[0].node);
    let asked = there.timeout(PATIENCE).emit_with_ack("sum", &(1, 2));
    let question = clients[2].text().await;
    let id = question.strip_prefix("2/n,").unwrap().strip_suffix(r#"["sum",1,2]"#).unwrap();
    clients[2].send(&format!("3/n,{id}[3]")).await;
    assert_eq!(asked.answer::<i64>().await.unwrap(), 3);

    // A node goes without a word. Until that is known its sockets are there, without details.
    let [first, second, third] = nodes;
    let sockets = namespace.to("all").fetch_sockets();
    third.node.drain().await.unwrap();
    let fetched = namespace.to("all").timeout(Duration::from_millis(300)).fetch_details().await;
    let missing = fetched.sockets.iter().filter(|(_, details)| details.is_none()).count();
    assert_eq!(fetched.is_complete, missing == 0);
    assert_eq!(sockets.len(), 3);
    until("its sockets to be gone", async || {
        let fetched = namespace.to("all").fetch_details().await;
        (fetched.is_complete && fetched.sockets.len() == 2).then_some(())
    })
    .await;
    drop((first, second));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn details_of_many_sockets_come_in_pieces() {
    const COUNT: usize = 600;
    let nodes = start_three(with_data).await;
    nodes_known(&nodes, 3).await;
    let mut clients = Vec::new();
    for n in 0..COUNT {
        let mut client = nodes[1].open().await;
        client.connect("/n", &format!(r#"{{"n":{n}}}"#)).await;
        clients.push(client);
    }
    let namespace: NamespaceHandle = nodes[0].io().of("/n");
    until("the sockets to be known", async || {
        (namespace.to("all").fetch_sockets().len() == COUNT).then_some(())
    })
    .await;
    let fetched = namespace.timeout(PATIENCE).fetch_details().await;
    assert!(fetched.is_complete);
    let mut numbers: Vec<_> = fetched
        .sockets
        .iter()
        .filter_map(|(_, details)| details.as_ref()?.data["n"].as_u64())
        .collect();
    numbers.sort_unstable();
    assert_eq!(json!(numbers), json!((0..COUNT).collect::<Vec<_>>()));
}
