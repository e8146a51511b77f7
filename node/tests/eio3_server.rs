//! Clients of Socket.IO 4 (Engine.IO 3) among those of 5, as an application and they see it.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use flotilla::adapter::DeliveryMode;
use flotilla::config::Config;
use flotilla::server::{Ack, AckError, Args, Auth, ConnectError, Data, Io, Reason, Socket};
use flotilla::socketio::Binary;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use common::client::Client;
use common::{TestNode, start_with, until};

fn allow(config: &mut Config) {
    config.engine.allow_eio3 = true;
}

async fn start(register: impl FnOnce(&Io)) -> TestNode {
    start_with("n1", Vec::new(), allow, register).await
}

/// A client of Engine.IO 3, before anything has come.
async fn open(node: &TestNode) -> Client {
    Client::open_revision(node.node.addresses().listen, 3).await
}

/// A client of Engine.IO 3 that is in `/`.
async fn connect(node: &TestNode) -> Client {
    let mut client = open(node).await;
    client.expect("0").await;
    client
}

/// `ping`, `echo`, and who the client is.
fn serve(io: &Io, namespace: &str) {
    io.of(namespace)
        .on("ping", async |ack: Ack| ack.send(&()).unwrap())
        .on("echo", async |args: Args, ack: Ack| ack.send_args(&args))
        .on("join", async |socket: Socket, Data(room): Data<String>, ack: Ack| {
            socket.join(room).await.unwrap();
            ack.send(&()).unwrap();
        })
        .on("me", async |socket: Socket, Auth(auth): Auth<Value>, ack: Ack| {
            ack.send(&(socket.id(), &*socket.client_id(), auth)).unwrap();
        });
}

#[tokio::test]
async fn main_namespace_comes_unasked_and_its_socket_has_the_id_of_the_connection() {
    let node = start(|io| {
        serve(io, "/");
        io.of("/").on_connect(async |socket: Socket| {
            socket.emit("hello", &socket.id());
        });
    })
    .await;
    let mut client = connect(&node).await;
    let id = client.id.clone();
    assert_eq!(id.len(), 20);
    client.expect(&format!(r#"2["hello","{id}"]"#)).await;
    client.send(r#"20["me"]"#).await;
    client.expect(&format!(r#"30["{id}","{id}",null]"#)).await;
    client.send(r#"21["echo","é😀",{"a":[1]}]"#).await;
    client.expect(r#"31["é😀",{"a":[1]}]"#).await;
    node.io().to(id.as_str()).emit("dm", &1).await.unwrap();
    client.expect(r#"2["dm",1]"#).await;
    let sockets = node.io().operator().fetch_sockets();
    assert_eq!(sockets.len(), 1);
    assert_eq!((sockets[0].id.as_str(), &*sockets[0].client_id()), (id.as_str(), id.as_str()));
    assert!(sockets[0].rooms.is_empty(), "{:?}", sockets[0].rooms);
}

#[tokio::test]
async fn namespace_may_have_a_query_and_its_socket_goes_by_the_id_that_the_client_makes() {
    for mode in [DeliveryMode::Replicated, DeliveryMode::Direct] {
        let node = start(|io| {
            io.of_mode("/chat", mode);
            serve(io, "/");
            serve(io, "/chat");
        })
        .await;
        let (mut client, mut other) = (connect(&node).await, connect(&node).await);
        client.send("0/chat?tok=xyz&n=a+b").await;
        client.expect("0/chat,").await;
        other.send("0/chat,").await;
        other.expect("0/chat,").await;
        let own = format!("/chat#{}", client.id);
        client.send(r#"2/chat,0["me"]"#).await;
        let answer = client.text().await;
        let (id, client_id, auth): (String, String, Value) =
            serde_json::from_str(answer.strip_prefix("3/chat,0").unwrap()).unwrap();
        assert_eq!((client_id, auth), (own.clone(), json!({"tok": "xyz", "n": "a b"})));
        assert_eq!(id.len(), 20);

        let chat = node.io().of("/chat");
        chat.to(own.as_str()).emit("dm", &1).await.unwrap();
        client.expect(r#"2/chat,["dm",1]"#).await;
        chat.except(own.as_str()).emit("others", &2).await.unwrap();
        other.expect(r#"2/chat,["others",2]"#).await;
        let found = chat.to(own.as_str()).fetch_sockets();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].id.as_str(), &*found[0].client_id()), (&*id, &*own));
        found[0].emit("by id", &3).await.unwrap();
        client.expect(r#"2/chat,["by id",3]"#).await;

        client.send("1/chat,").await;
        until("the socket to be gone", async || {
            chat.to(own.as_str()).fetch_sockets().is_empty().then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn refusals_are_bare_and_the_connection_stays() {
    let node = start(|io| {
        serve(io, "/");
        io.of("/plain").with(async |_: Socket| Err(ConnectError::new("not authorized")));
        io.of("/data").with(async |_: Socket| {
            Err(ConnectError::with_data("not authorized", json!({"code": 7})))
        });
        io.of("/null")
            .with(async |_: Socket| Err(ConnectError::with_data("not authorized", json!(null))));
    })
    .await;
    let mut client = connect(&node).await;
    client.send("0/random?a=b,").await;
    client.expect(r#"4/random,{"message":"Invalid namespace"}"#).await;
    client.send("0/plain").await;
    client.expect(r#"4/plain,"not authorized""#).await;
    client.send("0/data,").await;
    client.expect(r#"4/data,{"code":7}"#).await;
    client.send("0/null,").await;
    client.expect(r#"4/null,"not authorized""#).await;
    assert_eq!(client.so_far().await, Vec::<String>::new());

    let mut v5 = node.connect().await;
    v5.ask("/plain", "").await;
    v5.expect(r#"4/plain,{"message":"not authorized"}"#).await;
}

#[tokio::test]
async fn refused_main_namespace_leaves_the_others_open() {
    let node = start(|io| {
        io.of("/").with(async |_: Socket| Err(ConnectError::new("members only")));
        serve(io, "/chat");
    })
    .await;
    let mut client = open(&node).await;
    client.expect(r#"4"members only""#).await;
    client.send("0/chat,").await;
    client.expect("0/chat,").await;
    client.send(r#"2/chat,0["echo",1]"#).await;
    client.expect("3/chat,0[1]").await;
}

/// The official server closes such clients as well.
#[tokio::test]
async fn broken_rules_close_the_connection() {
    let node = start(|io| serve(io, "/")).await;
    for packet in ["0", "4", "7", r#"2/chat,["echo"]"#, r#"2["disconnect"]"#, "50-[]"] {
        let mut client = connect(&node).await;
        client.send(packet).await;
        client.expect_closed().await;
    }
    let mut client = connect(&node).await;
    client.send_binary(b"\x04unexpected").await;
    client.expect_closed().await;
}

#[tokio::test]
async fn bytes_and_acks_travel_both_ways() {
    let (answers, mut answered) = mpsc::channel(2);
    let node = start(move |io| {
        serve(io, "/");
        io.of("/").on("ask", move |socket: Socket| {
            let answers = answers.clone();
            async move {
                let bytes = Binary(vec![1, 2, 3].into());
                let ack = socket.emit_with_ack("question", &bytes).answer::<Binary>().await;
                answers.send(ack).await.unwrap();
            }
        });
    })
    .await;
    let mut client = connect(&node).await;
    client.send(r#"51-7["echo",{"_placeholder":true,"num":0}]"#).await;
    client.send_binary(b"\x04\x00\xff").await;
    client.expect(r#"61-7[{"_placeholder":true,"num":0}]"#).await;
    client.expect_binary(b"\x04\x00\xff").await;

    client.send(r#"2["ask"]"#).await;
    client.expect(r#"51-0["question",{"_placeholder":true,"num":0}]"#).await;
    client.expect_binary(b"\x04\x01\x02\x03").await;
    client.send(r#"61-0[{"_placeholder":true,"num":0}]"#).await;
    client.send_binary(b"\x04\x09").await;
    let answer: Result<Binary, AckError> = answered.recv().await.unwrap();
    assert_eq!(&*answer.unwrap().0, b"\x09");
}

#[tokio::test]
async fn reasons_are_the_same_as_for_other_clients() {
    let (ended, mut reasons) = mpsc::channel(1);
    let node = start(move |io| {
        serve(io, "/");
        io.of("/")
            .on("leave", async |socket: Socket| drop(socket.disconnect(false)))
            .on("close", async |socket: Socket| drop(socket.disconnect(true)))
            .on_disconnect(move |Reason(reason): Reason| {
                let ended = ended.clone();
                async move { ended.send(reason).await.unwrap() }
            });
    })
    .await;
    let mut client = connect(&node).await;
    client.send("1").await;
    assert_eq!(reasons.recv().await, Some("client namespace disconnect"));

    let mut client = connect(&node).await;
    client.send(r#"2["close"]"#).await;
    client.expect("1").await;
    client.expect_closed().await;
    assert_eq!(reasons.recv().await, Some("server namespace disconnect"));

    drop(connect(&node).await);
    assert_eq!(reasons.recv().await, Some("transport close"));

    let mut client = connect(&node).await;
    client.send("9").await;
    client.expect_closed().await;
    assert_eq!(reasons.recv().await, Some("forced close"));

    // It may come again, under the id that it knows; what ended the first socket ends no other.
    let mut client = connect(&node).await;
    client.send(r#"2["leave"]"#).await;
    client.expect("1").await;
    assert_eq!(reasons.recv().await, Some("server namespace disconnect"));
    client.send("0").await;
    client.expect("0").await;
    node.io().to(client.id.as_str()).emit("back", &1).await.unwrap();
    client.expect(r#"2["back",1]"#).await;
}

#[tokio::test]
async fn clients_of_both_generations_share_rooms_across_nodes() {
    let register = |io: &Io| serve(io, "/");
    let first = start(register).await;
    let seeds = vec![first.node.addresses().cluster.to_string()];
    let join = |config: &mut Config| {
        allow(config);
        config.cluster.bootstrap_expect = 3;
    };
    let second = start_with("n2", seeds.clone(), join, register).await;
    let third = start_with("n3", seeds, join, register).await;

    let (mut v4, mut v5) = (connect(&first).await, second.connect().await);
    for client in [&mut v4, &mut v5] {
        client.send(r#"20["join","mixed"]"#).await;
        client.expect("30[]").await;
    }
    let bytes = Binary(vec![7; 300].into());
    let text = r#"51-["msg",{"_placeholder":true,"num":0}]"#;
    third.io().to("mixed").emit("msg", &bytes).await.unwrap();
    third.io().of("/").direct().to("mixed").emit("msg", &bytes).await.unwrap();
    for (client, prefix) in [(&mut v4, [4].as_slice()), (&mut v5, &[])] {
        for _ in ["replicated", "direct"] {
            client.expect(text).await;
            client.expect_binary(&[prefix, &[7; 300]].concat()).await;
        }
    }
    third.io().to(v4.id.as_str()).emit("dm", &1).await.unwrap();
    v4.expect(r#"2["dm",1]"#).await;
    let ids: Vec<_> =
        third.io().to("mixed").fetch_sockets().iter().map(|s| s.client_id()).collect();
    assert!(ids.iter().any(|id| **id == *v4.id) && ids.iter().any(|id| **id == *v5.id), "{ids:?}");
}
