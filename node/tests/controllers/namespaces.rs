//! Where controllers are bound, what else is there, and whom they reach.

use std::sync::atomic::{AtomicUsize, Ordering};

use flotilla::apps::controllers::{Error, SocketServer, State, controller};
use flotilla::server::{Ack, ConnectError, Io, NamespaceHandle, Socket};
use serde_json::{Value, json};

use crate::acks::Main;
use crate::common::client::Packet;
use crate::common::{start, start_three, until};
use crate::{Notes, connected, serve};

/// A controller for whatever namespace it is bound to.
struct Counted {
    number: usize,
}

#[controller(name = "counted")]
impl Counted {
    #[create]
    fn new(State(count): State<AtomicUsize>, socket: Socket) -> Self {
        socket.set_extension(GoesWithItsSocket);
        Self { number: count.fetch_add(1, Ordering::Relaxed) }
    }

    #[subscribe("number")]
    async fn number(&self) -> usize {
        self.number
    }

    #[subscribe("all")]
    async fn all(&self, notes: State<Notes>) -> usize {
        notes.add(format!("instance {}", self.number));
        self.number
    }

    #[subscribe("where")]
    fn place(&self, server: SocketServer) -> Option<String> {
        server.namespace("counted").map(|namespace| namespace.name().to_owned())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        DROPPED.fetch_add(1, Ordering::Relaxed);
    }
}

struct GoesWithItsSocket;

impl Drop for GoesWithItsSocket {
    fn drop(&mut self) {
        SOCKETS_DROPPED.fetch_add(1, Ordering::Relaxed);
    }
}

static DROPPED: AtomicUsize = AtomicUsize::new(0);
static SOCKETS_DROPPED: AtomicUsize = AtomicUsize::new(0);

#[tokio::test]
async fn each_socket_has_an_instance_that_goes_with_it() {
    let node = serve(|server| {
        server.state(AtomicUsize::new(0)).controller::<Counted>().unwrap();
    })
    .await;
    let mut clients = [connected(&node, "/").await, connected(&node, "/").await];
    for _ in 0..2 {
        for (number, client) in clients.iter_mut().enumerate() {
            client.send(r#"21["number"]"#).await;
            client.expect(&format!(r#"31[{{"result":{number}}}]"#)).await;
        }
    }
    clients[0].send(r#"21["where"]"#).await;
    clients[0].expect(r#"31[{"result":"/"}]"#).await;
    let count = || [&DROPPED, &SOCKETS_DROPPED].map(|count| count.load(Ordering::Relaxed));
    let before = count();
    drop(clients);
    until("the instances and their sockets are gone", async || {
        let now = count();
        (0..2).all(|what| now[what] >= before[what] + 2).then_some(())
    })
    .await;
}

#[tokio::test]
async fn class_that_is_routed_twice_has_two_instances_and_one_ack() {
    let notes = Notes::default();
    let node = serve(|server| {
        server.state(AtomicUsize::new(0)).state(notes.clone());
        server.route::<Counted>("/twice").unwrap();
        server.route::<Counted>("/twice").unwrap();
    })
    .await;
    let mut client = connected(&node, "/twice").await;
    client.send(r#"2/twice,1["all"]"#).await;
    client.expect(r#"3/twice,1[{"result":0}]"#).await;
    notes.are(&["instance 0", "instance 1"]).await;
    client.send(r#"2/twice,2["number"]"#).await;
    client.expect(r#"3/twice,2[{"result":0}]"#).await;
    // Its own namespace, `/`, was not asked for.
    let mut lost = node.open().await;
    lost.ask("/", "").await;
    lost.expect(r#"4{"message":"Invalid namespace"}"#).await;
}

/// Bound to all rooms.
#[derive(Default)]
struct Room;

#[controller(regex = r"^/room-\d+$")]
impl Room {
    #[subscribe("say")]
    async fn say(&self, namespace: NamespaceHandle, text: String) -> Result<(), Error> {
        namespace.emit("said", &text).await?;
        Ok(())
    }
}

/// Beside it, bound by the same pattern.
#[derive(Default)]
struct Beside;

#[controller(regex = r"^/room-\d+$")]
impl Beside {
    #[subscribe("which")]
    fn which(&self, namespace: NamespaceHandle) -> String {
        namespace.name().to_owned()
    }
}

#[tokio::test]
async fn controllers_are_bound_to_namespaces_by_pattern() {
    let node = serve(|server| {
        server.controller::<Room>().unwrap().with(async |socket: Socket| {
            if socket.namespace_name() == "/room-13" {
                return Err(ConnectError::new("there is no such room"));
            }
            Ok(())
        });
        server.controller::<Beside>().unwrap();
    })
    .await;
    let [mut ann, mut bob] = [connected(&node, "/room-1").await, connected(&node, "/room-1").await];
    let mut eve = connected(&node, "/room-2").await;
    ann.send(r#"2/room-1,1["say","hi"]"#).await;
    ann.expect(r#"2/room-1,["said","hi"]"#).await;
    ann.expect("3/room-1,1[{}]").await;
    bob.expect(r#"2/room-1,["said","hi"]"#).await;
    eve.send(r#"2/room-2,1["which"]"#).await;
    eve.expect(r#"3/room-2,1[{"result":"/room-2"}]"#).await;
    eve.ask("/room-13", "").await;
    eve.expect(r#"4/room-13,{"message":"there is no such room"}"#).await;
    eve.ask("/room-x", "").await;
    eve.expect(r#"4/room-x,{"message":"Invalid namespace"}"#).await;
}

#[tokio::test]
async fn middleware_is_asked_for_the_main_namespace_one_namespace_or_all() {
    let notes = Notes::default();
    let noting = |notes: &Notes, name: &'static str| {
        let notes = notes.clone();
        move |socket: Socket| {
            notes.add(format!("{name} {}", socket.namespace_name()));
            async { Ok(()) }
        }
    };
    let node = serve(|server| {
        let routed = server.state(AtomicUsize::new(0)).controller::<Main>().unwrap();
        server.route::<Counted>("/").unwrap();
        routed.with(noting(&notes, "own"));
        server.with(noting(&notes, "main"));
        server.with_everywhere(noting(&notes, "all"));
        server.with_everywhere(async |socket: Socket| match socket.auth::<Value>() {
            Ok(auth) if auth["banned"] == true => {
                Err(ConnectError::with_data("denied", json!({"code": 7})))
            }
            _ => Ok(()),
        });
    })
    .await;
    let mut client = node.open().await;
    client.connect("/", "").await;
    client.connect("/main", "").await;
    assert_eq!(notes.now(), ["all /", "main /", "all /main", "own /main"]);
    let mut banned = node.open().await;
    banned.ask("/main", r#"{"banned":true}"#).await;
    banned.expect(r#"4/main,{"message":"denied","data":{"code":7}}"#).await;
    banned.ask("/", r#"{"banned":true}"#).await;
    banned.expect(r#"4{"message":"denied","data":{"code":7}}"#).await;
}

#[tokio::test]
async fn controllers_stand_beside_handlers_of_the_server_api() {
    let node = start(|io: &Io| {
        SocketServer::new(io).controller::<Main>().unwrap();
        io.of("/main")
            .on_connect(async |socket: Socket| drop(socket.emit("welcome", &())))
            .on("plain", async |ack: Ack| ack.send(&"plain").unwrap())
            .on("pair", async |ack: Ack| ack.send(&"first").unwrap());
    })
    .await;
    let mut client = connected(&node, "/main").await;
    client.expect(r#"2/main,["welcome"]"#).await;
    client.send(r#"2/main,1["plain"]"#).await;
    client.expect(r#"3/main,1["plain"]"#).await;
    client.send(r#"2/main,2["nothing"]"#).await;
    client.expect("3/main,2[{}]").await;
    // Both answer, and the first answer counts.
    client.send(r#"2/main,3["pair"]"#).await;
    client.expect(r#"3/main,3["first"]"#).await;
    client.send(r#"2/main,4["null"]"#).await;
    client.expect(r#"3/main,4[{"result":null}]"#).await;
}

/// Rooms, by the injected socket.
#[derive(Default)]
struct Chat;

#[controller("/chat")]
impl Chat {
    #[subscribe("join")]
    async fn join(&self, socket: Socket, rooms: Vec<String>) -> Result<usize, Error> {
        socket.join(rooms.clone()).await?;
        Ok(rooms.len())
    }

    #[subscribe("say")]
    async fn say(&self, socket: Socket, room: String, text: String) -> Result<(), Error> {
        socket.to(room).emit("said", &text).await?;
        Ok(())
    }

    #[subscribe("everyone")]
    fn everyone(&self, namespace: NamespaceHandle, text: String) {
        namespace.emit("said", &text);
    }
}

#[tokio::test]
async fn controllers_publish_to_the_whole_cluster() {
    let nodes =
        start_three(|io: &Io| drop(SocketServer::new(io).controller::<Chat>().unwrap())).await;
    let mut clients = Vec::new();
    for node in &nodes {
        clients.push(connected(node, "/chat").await);
    }
    for client in &mut clients[..2] {
        client.send(r#"2/chat,1["join",["tea","cake"]]"#).await;
        client.expect(r#"3/chat,1[{"result":2}]"#).await;
    }
    clients[2].send(r#"2/chat,2["say","tea","a"]"#).await;
    clients[2].expect("3/chat,2[{}]").await;
    clients[0].expect(r#"2/chat,["said","a"]"#).await;
    clients[0].send(r#"2/chat,2["say","tea","b"]"#).await;
    clients[0].expect("3/chat,2[{}]").await;
    clients[1].expect(r#"2/chat,["said","a"]"#).await;
    clients[1].expect(r#"2/chat,["said","b"]"#).await;
    clients[2].send(r#"2/chat,["everyone","c"]"#).await;
    for client in &mut clients {
        assert_eq!(client.next().await, Packet::Text(r#"2/chat,["said","c"]"#.to_owned()));
    }
}
