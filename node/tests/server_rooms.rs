//! Who gets an emit, and what is done with all that are meant: on one node, in both deliveries.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use flotilla::adapter::DeliveryMode;
use flotilla::server::{Ack, Data, EmitError, Io, NamespaceHandle, Socket};
use serde_json::json;

use common::client::Client;
use common::{TestNode, start, until};

const NAMESPACES: [&str; 2] = ["/replicated", "/direct"];

async fn start_both() -> TestNode {
    start(|io: &Io| {
        for namespace in [io.of("/replicated"), io.of_mode("/direct", DeliveryMode::Direct)] {
            namespace
                .on("join", async |socket: Socket, Data(rooms): Data<Vec<String>>, ack: Ack| {
                    socket.join(rooms).await.unwrap();
                    ack.send(&()).unwrap();
                })
                .on("others", async |socket: Socket, ack: Ack| {
                    socket.broadcast().emit("msg", &"others").await.unwrap();
                    socket.to("a").emit("msg", &"others in a").await.unwrap();
                    socket.except("b").emit("msg", &"others not in b").await.unwrap();
                    ack.send(&()).unwrap();
                });
        }
    })
    .await
}

/// Three clients: the first in room a, the second in a and b, the third in none.
async fn three(node: &TestNode, namespace: &str) -> [Client; 3] {
    let mut clients = Vec::new();
    for rooms in [r#"["a"]"#, r#"["a","b"]"#, "[]"] {
        let mut client = node.open().await;
        client.connect(namespace, "").await;
        client.send(&format!(r#"2{namespace},0["join",{rooms}]"#)).await;
        client.expect(&format!("3{namespace},0[]")).await;
        clients.push(client);
    }
    clients.try_into().unwrap_or_else(|_| unreachable!("three were made"))
}

/// Each has got what it should since, and nothing else.
async fn expect(clients: &mut [Client; 3], namespace: &NamespaceHandle, wanted: [&[&str]; 3]) {
    namespace.emit("end", &()).await.unwrap();
    let name = namespace.name();
    for (client, wanted) in clients.iter_mut().zip(wanted) {
        for text in wanted {
            client.expect(&format!(r#"2{name},["msg","{text}"]"#)).await;
        }
        client.expect(&format!(r#"2{name},["end"]"#)).await;
    }
}

#[tokio::test]
async fn operators_say_who_is_meant() {
    let node = start_both().await;
    for name in NAMESPACES {
        let namespace = node.io().of(name);
        let mut clients = three(&node, name).await;
        let [first, second, third] = clients.each_ref().map(|client| client.id.clone());
        namespace.to("a").emit("msg", &"a").await.unwrap();
        namespace.to("a").within("b").emit("msg", &"a or b").await.unwrap();
        namespace.to("a").except("b").emit("msg", &"a not b").await.unwrap();
        namespace.except(["a", "b"]).emit("msg", &"neither").await.unwrap();
        namespace.to(third.clone()).emit("msg", &"third").await.unwrap();
        namespace.to([first.clone(), second]).except(first).emit("msg", &"second").await.unwrap();
        namespace.local().to("b").emit("msg", &"local b").await.unwrap();
        namespace.direct().to("b").emit("msg", &"direct b").await.unwrap();
        namespace.volatile().to("b").emit("msg", &"volatile b").await.unwrap();
        namespace.to("nobody").emit("msg", &"nobody").await.unwrap();
        let wanted: [&[&str]; 3] = [
            &["a", "a or b", "a not b"],
            &["a", "a or b", "second", "local b", "direct b", "volatile b"],
            &["neither", "third"],
        ];
        expect(&mut clients, &namespace, wanted).await;
    }
}

#[tokio::test]
async fn socket_leaves_itself_out() {
    let node = start_both().await;
    for name in NAMESPACES {
        let mut clients = three(&node, name).await;
        clients[0].send(&format!(r#"2{name},1["others"]"#)).await;
        clients[0].expect(&format!("3{name},1[]")).await;
        let wanted: [&[&str]; 3] =
            [&[], &["others", "others in a"], &["others", "others not in b"]];
        expect(&mut clients, &node.io().of(name), wanted).await;
    }
}

#[tokio::test]
async fn sessions_are_matched_strictly() {
    let node = start_both().await;
    for name in NAMESPACES {
        let namespace = node.io().of(name);
        let mut clients = three(&node, name).await;
        for (client, user) in clients.iter().zip([json!({"n": 1, "ok": true}), json!({"n": "1"})]) {
            let sockets = namespace.to(client.id.clone()).fetch_sockets();
            let session = node.io().session(sockets[0].session);
            let object = user.as_object().unwrap().clone();
            session.update(move |session| session.clone_from(&object)).await.unwrap();
            assert_eq!(*session.get(), *user.as_object().unwrap());
        }
        namespace.session(json!({"n": 1})).emit("msg", &"number").await.unwrap();
        namespace.session(json!({"n": "1"})).emit("msg", &"text").await.unwrap();
        namespace.session(json!({"n": 1, "ok": false})).emit("msg", &"none").await.unwrap();
        namespace.session(json!({})).emit("msg", &"all").await.unwrap();
        namespace.to("b").session(json!({"n": 1})).emit("msg", &"none").await.unwrap();
        let wanted: [&[&str]; 3] = [&["number", "all"], &["text", "all"], &["all"]];
        expect(&mut clients, &namespace, wanted).await;
    }
}

#[tokio::test]
async fn wrong_filter_means_nobody_rather_than_all() {
    let node = start_both().await;
    let namespace = node.io().of("/replicated");
    let mut clients = three(&node, "/replicated").await;
    let wrong = || namespace.session(json!({"a": {"b": 1}}));
    for refused in [
        wrong().emit("msg", &"x").await,
        wrong().disconnect_sockets(true).await,
        wrong().sockets_join("x").await,
        wrong().sockets_leave("a").await,
    ] {
        assert!(matches!(refused, Err(EmitError::Filter(_))), "{refused:?}");
    }
    assert!(wrong().fetch_sockets().is_empty());
    expect(&mut clients, &namespace, [&[], &[], &[]]).await;
}

#[tokio::test]
async fn sockets_are_fetched_moved_and_disconnected() {
    let node = start_both().await;
    for name in NAMESPACES {
        let namespace = node.io().of(name);
        let mut clients = three(&node, name).await;
        namespace.to("a").sockets_join(["x", "y"]).await.unwrap();
        namespace.to("b").sockets_leave("x").await.unwrap();
        namespace.local().to("b").sockets_join("z").await.unwrap();
        namespace.to("x").emit("msg", &"x").await.unwrap();
        namespace.to("y").emit("msg", &"y").await.unwrap();
        namespace.to("z").emit("msg", &"z").await.unwrap();
        expect(&mut clients, &namespace, [&["x", "y"], &["y", "z"], &[]]).await;

        let [remote] = &namespace.to("b").fetch_sockets()[..] else { panic!("one is in b") };
        assert_eq!(remote.id.to_string(), clients[1].id);
        let mut rooms: Vec<&str> = remote.rooms.iter().map(|room| &**room).collect();
        rooms.sort_unstable();
        assert_eq!(rooms, ["a", "b", "y", "z"]);
        remote.leave("b").await.unwrap();
        remote.join("c").await.unwrap();
        remote.emit("msg", &"remote").await.unwrap();
        let asked = remote.emit_with_ack("who", &());
        clients[1].expect(&format!(r#"2{name},["msg","remote"]"#)).await;
        let question = clients[1].text().await;
        let id = question.strip_prefix(&format!("2{name},")).unwrap();
        let id = id.strip_suffix(r#"["who"]"#).unwrap();
        clients[1].send(&format!("3{name},{id}[1]")).await;
        assert_eq!(asked.answer::<u8>().await.unwrap(), 1);
        assert!(namespace.to("b").fetch_sockets().is_empty());

        remote.disconnect(false).await.unwrap();
        clients[1].expect(&format!("1{name},")).await;
        namespace.local().except("a").disconnect_sockets(true).await.unwrap();
        clients[2].expect(&format!("1{name},")).await;
        clients[2].expect_closed().await;
        until("two to be gone", async || (namespace.fetch_sockets().len() == 1).then_some(()))
            .await;
        namespace.disconnect_sockets(false).await.unwrap();
        clients[0].expect(&format!("1{name},")).await;
        until("all to be gone", async || namespace.fetch_sockets().is_empty().then_some(())).await;
    }
}

#[tokio::test]
async fn join_of_a_socket_that_is_gone_is_told() {
    let node = start_both().await;
    let (sender, mut sockets) = tokio::sync::mpsc::channel(1);
    node.io().of("/replicated").on_connect(move |socket: Socket| {
        let sender = sender.clone();
        async move { sender.send(socket).await.unwrap() }
    });
    let mut client = node.open().await;
    client.connect("/replicated", "").await;
    let socket = sockets.recv().await.unwrap();
    socket.join("r").await.unwrap();
    drop(client);
    until("the socket to be gone", async || {
        node.io().of("/replicated").fetch_sockets().is_empty().then_some(())
    })
    .await;
    let joined = socket.join("r").await;
    assert!(matches!(joined, Err(EmitError::Gone)), "{joined:?}");
    assert!(!socket.is_connected());
}
