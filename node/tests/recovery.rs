//! Clients that lose their connection and come back, as applications and clients see it.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::time::Duration;

use flotilla::adapter::RecoveryConfig;
use flotilla::metrics::RECOVERIES;
use flotilla::server::{Ack, Data, EventName, Io, Socket};
use serde_json::{Value, json};

use common::client::{Client, Packet};
use common::{TestNode, start, start_three, until};

struct Note(&'static str);

fn application(io: &Io) {
    let asked = RecoveryConfig { skip_middlewares: false, ..RecoveryConfig::default() };
    for (name, recovery) in [("/kept", RecoveryConfig::default()), ("/asked", asked)] {
        let namespace = io.of_recoverable(name, recovery);
        namespace
            .with(async |socket: Socket| {
                socket.set_extension(Note("asked"));
                socket.join("by middleware");
                if socket.recovered() {
                    socket.update_data(|data| data.insert("by".to_owned(), json!("middleware")));
                }
                socket.emit("welcome", "text");
                Ok(())
            })
            .on_connect(async |socket: Socket| {
                let note = socket.extension::<Note>().map_or("skipped", |note| note.0);
                socket.itself().volatile().emit("state", &(socket.recovered(), note));
            })
            .on("join", async |socket: Socket, Data(room): Data<String>, ack: Ack| {
                socket.join(room).await.unwrap();
                ack.send(&()).unwrap();
            })
            .on("to", async |socket: Socket, Data((room, n)): Data<(String, u32)>, ack: Ack| {
                socket.namespace().to(room).emit("n", &n).await.unwrap();
                ack.send(&()).unwrap();
            })
            .on("tick", async |socket: Socket, Data(text): Data<String>| {
                socket.itself().volatile().emit("tick", &text);
            })
            .on(
                "note",
                async |socket: Socket, Data((key, value)): Data<(String, Value)>, ack: Ack| {
                    socket.update_data(|data| data.insert(key, value));
                    ack.send(&()).unwrap();
                },
            )
            .on("data", async |socket: Socket, ack: Ack| {
                ack.send(&(&*socket.data(),)).unwrap();
            })
            .on("watch", async |socket: Socket, ack: Ack| {
                socket.on_any_outgoing(async |socket: Socket, EventName(name): EventName| {
                    if name != "seen" {
                        socket.itself().volatile().emit("seen", &name);
                    }
                });
                ack.send(&()).unwrap();
            })
            .on("kick", async |socket: Socket, Data(room): Data<String>, ack: Ack| {
                socket.namespace().to(room).disconnect_sockets(false).await.unwrap();
                ack.send(&()).unwrap();
            });
    }
}

/// What a client knows of its socket.
#[derive(Clone, Debug)]
struct Kept {
    id: String,
    pid: String,
    offset: Option<String>,
}

impl Kept {
    fn auth(&self) -> String {
        match &self.offset {
            Some(offset) => json!({"pid": self.pid, "offset": offset}).to_string(),
            None => json!({"pid": self.pid}).to_string(),
        }
    }
}

/// Joins a namespace; the events that came before its CONNECT, and the state that came after it.
async fn join(client: &mut Client, namespace: &str, auth: &str) -> (Kept, Vec<Value>, Value) {
    client.ask(namespace, auth).await;
    let mut early = Vec::new();
    loop {
        let text = client.text().await;
        let content: Value = serde_json::from_str(&text[namespace.len() + 2..]).unwrap();
        if text.starts_with('0') {
            let text = |key: &str| content[key].as_str().unwrap().to_owned();
            let kept = Kept { id: text("sid"), pid: text("pid"), offset: None };
            let state = event(client, namespace).await;
            return (kept, early, state);
        }
        early.push(content);
    }
}

async fn event(client: &mut Client, namespace: &str) -> Value {
    let text = client.text().await;
    assert!(text.starts_with(&format!("2{namespace},")), "{text}");
    serde_json::from_str(&text[namespace.len() + 2..]).unwrap()
}

async fn call(client: &mut Client, namespace: &str, event: &str) {
    client.send(&format!("2{namespace},0{event}")).await;
    client.expect(&format!("3{namespace},0[]")).await;
}

fn offset(event: &Value) -> Option<String> {
    Some(event.as_array()?.last()?.as_str()?.to_owned())
}

/// Waits until the cluster has noticed that a socket is away.
async fn away(node: &TestNode, namespace: &str, id: &str) {
    let namespace = node.io().of(namespace);
    until("the socket to be away", async || {
        namespace.to(id.to_owned()).fetch_sockets().is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
async fn middleware_is_skipped_for_who_comes_back_unless_it_is_to_be_asked() {
    let node = start(application).await;
    for (namespace, note, rooms) in [("/kept", "skipped", 2), ("/asked", "asked", 2)] {
        let mut client = node.open().await;
        let (kept, _, state) = join(&mut client, namespace, "").await;
        assert_eq!(state, json!(["state", false, "asked"]).stamped(&state));
        drop(client);
        away(&node, namespace, &kept.id).await;
        let mut client = node.open().await;
        let (back, _, state) = join(&mut client, namespace, &kept.auth()).await;
        assert_eq!((&back.id, &back.pid), (&kept.id, &kept.pid));
        assert_eq!(state, json!(["state", true, note]).stamped(&state));
        let found = node.io().of(namespace).to(kept.id).fetch_sockets();
        assert_eq!(found[0].rooms.len() + 1, rooms, "{:?}", found[0].rooms);
    }
}

/// An event whose offset is that of another.
trait Stamped {
    fn stamped(self, other: &Value) -> Value;
}

impl Stamped for Value {
    fn stamped(mut self, other: &Value) -> Value {
        let offset = offset(other).expect("it ends in an offset");
        self.as_array_mut().unwrap().push(offset.into());
        self
    }
}

#[tokio::test]
async fn text_at_the_end_of_a_direct_or_early_packet_does_not_mislead_the_client() {
    let node = start(application).await;
    let mut client = node.open().await;
    let (mut kept, early, _) = join(&mut client, "/kept", "").await;
    assert_eq!(early[0], json!(["welcome", "text"]).stamped(&early[0]));
    // It has nothing but the early packet: that counts as nothing.
    kept.offset = offset(&early[0]);
    call(&mut client, "/kept", r#"["join","a"]"#).await;
    drop(client);
    away(&node, "/kept", &kept.id).await;
    let mut other = node.open().await;
    join(&mut other, "/kept", "").await;
    call(&mut other, "/kept", r#"["to","a",1]"#).await;
    let mut client = node.open().await;
    let (_, missed, _) = join(&mut client, "/kept", &kept.auth()).await;
    assert_eq!(missed, [json!(["n", 1]).stamped(&missed[0])]);

    client.send(r#"2/kept,["tick","now"]"#).await;
    let tick = event(&mut client, "/kept").await;
    assert_eq!(tick, json!(["tick", "now"]).stamped(&tick));
    kept.offset = offset(&tick);
    drop(client);
    away(&node, "/kept", &kept.id).await;
    call(&mut other, "/kept", r#"["to","a",2]"#).await;
    let mut client = node.open().await;
    let (back, missed, _) = join(&mut client, "/kept", &kept.auth()).await;
    assert_eq!(missed, [json!(["n", 2]).stamped(&missed[0])]);
    assert_eq!(back.id, kept.id);
}

#[tokio::test]
async fn whoever_hears_what_is_sent_may_send_too() {
    let node = start(application).await;
    let mut client = node.open().await;
    join(&mut client, "/kept", "").await;
    call(&mut client, "/kept", r#"["join","a"]"#).await;
    call(&mut client, "/kept", r#"["watch"]"#).await;
    client.send(r#"2/kept,0["to","a",1]"#).await;
    let heard = event(&mut client, "/kept").await;
    assert_eq!(heard, json!(["n", 1]).stamped(&heard));
    let seen = event(&mut client, "/kept").await;
    assert_eq!(seen, json!(["seen", "n"]).stamped(&seen));
    client.expect("3/kept,0[]").await;
    // A direct packet that ends in a text.
    client.send(r#"2/kept,["tick","now"]"#).await;
    let wanted = [json!(["tick", "now"]), json!(["seen", "tick"])];
    for wanted in wanted {
        let event = event(&mut client, "/kept").await;
        assert_eq!(event, wanted.stamped(&event));
    }
}

#[tokio::test]
async fn bad_packet_can_be_recovered_from_and_bad_framing_cannot() {
    let node = start(application).await;
    // As the official server has it: the first is a forced close, the second a parse error.
    for (bad, recovers) in [("4x", true), ("9", false)] {
        let mut client = node.open().await;
        let (kept, _, _) = join(&mut client, "/kept", "").await;
        client.send_raw(bad).await;
        while client.next().await != Packet::Closed {}
        away(&node, "/kept", &kept.id).await;
        let mut client = node.open().await;
        let (back, _, state) = join(&mut client, "/kept", &kept.auth()).await;
        assert_eq!((back.id == kept.id, &state[1]), (recovers, &json!(recovers)), "{bad}");
    }
}

#[tokio::test]
async fn disconnected_while_away_comes_back_as_someone_else() {
    let node = start(application).await;
    let mut client = node.open().await;
    let (kept, _, _) = join(&mut client, "/kept", "").await;
    drop(client);
    away(&node, "/kept", &kept.id).await;
    let mut other = node.open().await;
    join(&mut other, "/kept", "").await;
    call(&mut other, "/kept", &json!(["kick", kept.id]).to_string()).await;
    let mut client = node.open().await;
    let (back, early, state) = join(&mut client, "/kept", &kept.auth()).await;
    assert_ne!(back.id, kept.id);
    assert_eq!(state[1], json!(false));
    // Middleware is asked about it, as about anyone.
    assert_eq!(early[0][0], "welcome");
}

#[tokio::test]
async fn client_of_a_draining_node_comes_back_to_another() {
    let [first, second, third] = start_three(application).await;
    let mut client = first.open().await;
    let (mut kept, _, _) = join(&mut client, "/kept", "").await;
    call(&mut client, "/kept", r#"["join","a"]"#).await;
    let mut other = third.open().await;
    join(&mut other, "/kept", "").await;
    let drained = common::spawn(first.node.drain());
    while client.next().await != Packet::Closed {}
    call(&mut other, "/kept", r#"["to","a",1]"#).await;
    let mut client = second.open().await;
    let (back, missed, state) = join(&mut client, "/kept", &kept.auth()).await;
    assert_eq!((&back.id, &state[1]), (&kept.id, &json!(true)));
    assert_eq!(missed, [json!(["n", 1]).stamped(&missed[0])]);
    kept.offset = offset(&missed[0]);
    call(&mut other, "/kept", r#"["to","a",2]"#).await;
    assert_eq!(event(&mut client, "/kept").await[1], json!(2));
    tokio::time::timeout(Duration::from_secs(30), drained).await.unwrap().unwrap().unwrap();
}

/// What the application keeps with a client's socket.
async fn data(client: &mut Client, namespace: &str) -> Value {
    client.send(&format!("2{namespace},7[\"data\"]")).await;
    let text = client.text().await;
    let answer = text.strip_prefix(&format!("3{namespace},7")).expect(&text);
    serde_json::from_str::<Value>(answer).unwrap()[0].take()
}

#[tokio::test]
async fn data_comes_back_on_the_same_node_and_on_another() {
    let [first, second, _third] = start_three(application).await;
    let mut client = first.open().await;
    let (kept, _, _) = join(&mut client, "/asked", "").await;
    assert_eq!(data(&mut client, "/asked").await, json!({}));
    call(&mut client, "/asked", r#"["note","a",{"b":[1,null]}]"#).await;
    drop(client);
    away(&first, "/asked", &kept.id).await;
    let mut client = first.open().await;
    let (_, _, state) = join(&mut client, "/asked", &kept.auth()).await;
    assert_eq!(state[1], json!(true));
    let expected = json!({"a": {"b": [1, null]}, "by": "middleware"});
    assert_eq!(data(&mut client, "/asked").await, expected);
    call(&mut client, "/asked", r#"["note","by","client"]"#).await;
    call(&mut client, "/asked", r#"["note","c",2]"#).await;
    drop(client);
    // Its owner knows at once who is there.
    away(&first, "/asked", &kept.id).await;
    let mut client = second.open().await;
    join(&mut client, "/asked", &kept.auth()).await;
    // What middleware writes now is newer than what was kept.
    let expected = json!({"a": {"b": [1, null]}, "by": "middleware", "c": 2});
    assert_eq!(data(&mut client, "/asked").await, expected);
}

#[tokio::test]
async fn data_comes_along_when_a_half_open_connection_is_taken_over() {
    let [first, second, _third] = start_three(application).await;
    let mut half_open = vec![first.open().await];
    let (kept, _, _) = join(&mut half_open[0], "/kept", "").await;
    call(&mut half_open[0], "/kept", r#"["note","a",1]"#).await;
    for (node, last, note) in [(&first, "a", "b"), (&second, "b", "c"), (&first, "c", "d")] {
        until("the node to know the owner", async || {
            let known = node.io().of("/kept").to(kept.id.clone()).fetch_details().await;
            let [(_, Some(details))] = &known.sockets[..] else { return None };
            details.data.contains_key(last).then_some(())
        })
        .await;
        let mut client = node.open().await;
        let (back, _, state) = join(&mut client, "/kept", &kept.auth()).await;
        assert_eq!((&back.id, &state[1]), (&kept.id, &json!(true)));
        call(&mut client, "/kept", &json!(["note", note, 1]).to_string()).await;
        half_open.push(client);
    }
    let last = half_open.last_mut().unwrap();
    assert_eq!(data(last, "/kept").await, json!({"a": 1, "b": 1, "c": 1, "d": 1}));
}

#[tokio::test]
async fn data_that_is_too_large_is_left_out_and_counted() {
    let node = start(application).await;
    let mut client = node.open().await;
    let (kept, _, _) = join(&mut client, "/kept", "").await;
    let text = "x".repeat(16 << 10);
    call(&mut client, "/kept", &json!(["note", "a", text]).to_string()).await;
    let before = RECOVERIES.data_left_out.total();
    drop(client);
    away(&node, "/kept", &kept.id).await;
    assert_eq!(RECOVERIES.data_left_out.total(), before + 1);
    let mut client = node.open().await;
    let (back, _, _) = join(&mut client, "/kept", &kept.auth()).await;
    assert_eq!(back.id, kept.id);
    assert_eq!(data(&mut client, "/kept").await, json!({}));
}
