//! What an application sees of a socket, of its connection, of rooms, and of other nodes' sockets.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::time::Duration;

use flotilla::engineio::TransportKind;
use flotilla::server::{
    Ack, Data, FetchedSockets, Io, NamespaceHandle, Reason, RoomEvent, Socket, Transport,
};
use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use common::{Notes, TestNode, note, noted, start, until};

/// The one socket of a namespace.
fn only(namespace: &NamespaceHandle) -> Socket {
    let mut sockets = namespace.sockets();
    assert_eq!(sockets.len(), 1);
    sockets.remove(0)
}

#[tokio::test]
async fn handshake_has_the_official_fields() {
    let node = start(|io: &Io| drop(io.of("/chat"))).await;
    let mut client = node.open().await;
    client.connect("/chat", r#"{"token":"abc"}"#).await;
    let socket = only(&node.io().of("/chat"));
    let details = socket.handshake_details();
    assert_eq!(details.auth, json!({"token": "abc"}));
    assert_eq!(details.query["EIO"], "4");
    assert_eq!(details.query["transport"], "websocket");
    assert!(details.url.starts_with("/socket.io/?EIO=4"), "{}", details.url);
    assert_eq!(details.address, "127.0.0.1");
    assert_eq!(details.headers["upgrade"], "websocket");
    assert!(!details.secure && !details.xdomain);
    assert_eq!(details.issued, socket.handshake().issued_ms);
    assert!(details.time.ends_with("GMT+0000 (Coordinated Universal Time)"), "{}", details.time);
    assert_eq!(node.io().of("/chat").socket(socket.id()).unwrap().id(), socket.id());
    assert_eq!(socket.id().to_string(), client.id);
}

#[tokio::test]
async fn data_is_a_json_object_of_the_socket() {
    #[derive(Deserialize, PartialEq, Debug)]
    struct Player {
        name: String,
        level: u8,
    }
    let node = start(|io: &Io| {
        io.of("/").on("login", async |socket: Socket, Data(name): Data<String>, ack: Ack| {
            assert!(socket.data().is_empty());
            assert!(socket.data_as::<Player>().is_err());
            let level = socket.update_data(|data| {
                data.insert("name".to_owned(), name.into());
                data.insert("level".to_owned(), 7.into());
                data.len()
            });
            ack.send(&level).unwrap();
        });
    })
    .await;
    let mut client = node.connect().await;
    client.send(r#"20["login","ann"]"#).await;
    client.expect("30[2]").await;
    let socket = only(&node.io().of("/"));
    assert_eq!(socket.data()["name"], "ann");
    let player: Player = socket.data_as().unwrap();
    assert_eq!(player, Player { name: "ann".to_owned(), level: 7 });
}

#[tokio::test]
async fn remote_sockets_of_this_node_have_details_at_once() {
    let node = start(|io: &Io| {
        io.of("/").on_connect(async |socket: Socket| {
            socket.update_data(|data| data.insert("n".to_owned(), json!([1, {"a": null}])));
            socket.join("r").await.unwrap();
            socket.emit("ready", &());
        });
    })
    .await;
    let mut client = node.connect().await;
    client.expect(r#"2["ready"]"#).await;
    let FetchedSockets { sockets, is_complete } = node.io().to("r").fetch_details().await;
    assert!(is_complete);
    let [(remote, Some(details))] = &sockets[..] else { panic!("one socket with details") };
    assert_eq!(remote.id.to_string(), client.id);
    assert_eq!(remote.rooms, ["r"]);
    assert_eq!(Value::Object(details.data.clone()), json!({"n": [1, {"a": null}]}));
    assert_eq!(details.handshake.auth, json!({}));
    assert!(node.io().to("nobody").fetch_details().await.is_complete);

    let asked = remote.timeout(Duration::from_millis(30)).emit_with_ack("late", &());
    assert!(client.text().await.ends_with(r#"["late"]"#));
    asked.answer::<Value>().await.unwrap_err();
    remote.itself().volatile().emit("now", &()).await.unwrap();
    client.expect(r#"2["now"]"#).await;
}

#[tokio::test]
async fn connection_is_known_and_can_be_closed_beneath_its_sockets() {
    let notes = Notes::default();
    let ends = notes.clone();
    let node = start(move |io: &Io| {
        for name in ["/", "/second"] {
            let ends = ends.clone();
            io.of(name).on_disconnect(move |socket: Socket, Reason(reason): Reason| {
                assert!(!socket.conn().is_open());
                note(&ends, format!("{}: {reason}", socket.namespace_name()));
                async {}
            });
        }
    })
    .await;
    let mut client = node.connect().await;
    client.connect("/second", "").await;
    assert_eq!(node.io().clients_count(), 1);
    let (first, second) = (only(&node.io().of("/")), only(&node.io().of("/second")));
    let conn = first.conn();
    assert_eq!(conn.id(), second.conn().id());
    assert_ne!(conn.id(), first.id().as_str());
    assert_eq!(conn.transport(), TransportKind::WebSocket);
    assert_eq!(conn.protocol(), 4);
    assert!(conn.remote_address().ip().is_loopback());
    assert!(conn.request().url.contains("EIO=4"));
    assert!(conn.is_open());
    conn.close();
    client.expect_closed().await;
    assert_eq!(noted(&notes, 2).await, ["/: forced close", "/second: forced close"]);
    until("no connection", async || (node.io().clients_count() == 0).then_some(())).await;
}

/// One request of a polling client; the body of its answer.
async fn request(node: &TestNode, method: &str, sid: Option<&str>, body: &str) -> String {
    let mut stream = TcpStream::connect(node.node.addresses().listen).await.unwrap();
    let sid = sid.map(|sid| format!("&sid={sid}")).unwrap_or_default();
    let text = format!(
        "{method} /socket.io/?EIO=4&transport=polling{sid} HTTP/1.1\r\nhost: a\r\norigin: http://b\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

#[tokio::test]
async fn upgrade_of_the_connection_is_told() {
    let notes = Notes::default();
    let upgrades = notes.clone();
    let node = start(move |io: &Io| {
        io.of("/").on_connect(move |socket: Socket| {
            assert_eq!(socket.conn().transport(), TransportKind::Polling);
            assert!(socket.handshake_details().xdomain);
            let upgrades = upgrades.clone();
            socket.conn().on_upgrade(move |socket: Socket, Transport(kind): Transport| {
                assert_eq!(socket.conn().transport(), kind);
                note(&upgrades, kind.as_str());
                async {}
            });
            async {}
        });
    })
    .await;
    let open = request(&node, "GET", None, "").await;
    let open: Value =
        serde_json::from_str(&open[open.find('{').unwrap()..=open.rfind('}').unwrap()]).unwrap();
    let sid = open["sid"].as_str().unwrap();
    request(&node, "POST", Some(sid), "40").await;
    assert!(request(&node, "GET", Some(sid), "").await.contains("40{"));

    let address = node.node.addresses().listen;
    let stream = TcpStream::connect(address).await.unwrap();
    let url = format!("ws://{address}/socket.io/?EIO=4&transport=websocket&sid={sid}");
    let (mut websocket, _) = tokio_tungstenite::client_async(url, stream).await.unwrap();
    websocket.send(Message::text("2probe")).await.unwrap();
    assert_eq!(websocket.next().await.unwrap().unwrap(), Message::text("3probe"));
    assert!(notes.lock().unwrap().is_empty());
    websocket.send(Message::text("5")).await.unwrap();
    assert_eq!(noted(&notes, 1).await, ["websocket"]);
}

#[tokio::test]
async fn rooms_of_this_node_are_told_in_order() {
    let notes = Notes::default();
    let events = notes.clone();
    let node = start(move |io: &Io| {
        io.of("/")
            .on_room_event(move |event: RoomEvent| match &event {
                RoomEvent::Created { room } | RoomEvent::Deleted { room } => {
                    note(&events, format!("{} {room}", event.name()));
                }
                RoomEvent::Joined { room, socket } | RoomEvent::Left { room, socket } => {
                    note(&events, format!("{} {room} {socket}", event.name()));
                }
            })
            .with(async |socket: Socket| {
                socket.join("early");
                Ok(())
            });
    })
    .await;
    let client = node.connect().await;
    let ann = client.id.clone();
    let socket = only(&node.io().of("/"));
    let mut wanted = vec![
        format!("create-room {ann}"),
        format!("join-room {ann} {ann}"),
        "create-room early".to_owned(),
        format!("join-room early {ann}"),
    ];
    assert_eq!(noted(&notes, 4).await, wanted);
    socket.join(["early", "a"]).await.unwrap();
    socket.join("a").await.unwrap();
    socket.leave(["a", "never in"]).await.unwrap();
    wanted.extend([
        "create-room a".to_owned(),
        format!("join-room a {ann}"),
        format!("leave-room a {ann}"),
        "delete-room a".to_owned(),
    ]);
    assert_eq!(noted(&notes, 8).await, wanted);

    let second = node.connect().await;
    let bob = second.id.clone();
    drop(client);
    wanted.extend([
        format!("create-room {bob}"),
        format!("join-room {bob} {bob}"),
        format!("join-room early {bob}"),
        format!("leave-room {ann} {ann}"),
        format!("delete-room {ann}"),
        format!("leave-room early {ann}"),
    ]);
    assert_eq!(noted(&notes, 14).await, wanted);

    // One that comes later knows the rooms that are there.
    let later = Notes::default();
    let late = later.clone();
    node.io().of("/").on_room_event(move |event| note(&late, event.name()));
    drop(second);
    let last = ["leave-room", "delete-room", "leave-room", "delete-room"];
    assert_eq!(noted(&later, 4).await, last);
    assert_eq!(noted(&notes, 18).await.last().unwrap(), "delete-room early");
}

#[tokio::test]
async fn closed_server_takes_no_clients_and_tells_those_it_had() {
    let notes = Notes::default();
    let ends = notes.clone();
    let node = start(move |io: &Io| {
        io.of("/").on_disconnect(move |Reason(reason): Reason| {
            note(&ends, reason);
            async {}
        });
    })
    .await;
    let mut clients = [node.connect().await, node.connect().await];
    assert_eq!(node.io().clients_count(), 2);
    node.io().close().await;
    assert_eq!(node.io().clients_count(), 0);
    assert_eq!(*notes.lock().unwrap(), ["server shutting down"; 2]);
    for client in &mut clients {
        client.expect_closed().await;
    }
    assert!(request(&node, "GET", None, "").await.contains("draining"));
    node.node.drain().await.unwrap();
}
