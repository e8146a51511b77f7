//! From the connect handlers, which events wait for, to the end of a socket.

use std::sync::Mutex;
use std::time::Duration;

use flotilla::apps::controllers::{Error, SocketServer, State, controller};
use flotilla::server::{Reason, Socket};
use serde_json::Value;

use crate::common::{TestNode, until};
use crate::{Gate, Notes, connected, serve};

/// Waits in its second connect handler, which needs what the first has left.
#[derive(Default)]
struct Slow {
    steps: Mutex<Vec<&'static str>>,
}

#[controller("/slow")]
impl Slow {
    #[connect]
    async fn second_by_name(&self, socket: Socket, notes: State<Notes>) {
        socket.emit("connecting", &());
        notes.add("connect 1");
        self.steps.lock().unwrap().push("first");
    }

    #[connect]
    async fn first_by_name(&self, gate: State<Gate>, notes: State<Notes>) -> Result<(), Error> {
        gate.pass().await;
        notes.add("connect 2");
        self.steps.lock().unwrap().push("second");
        Ok(())
    }

    #[subscribe("event")]
    async fn event(&self, number: u32, notes: State<Notes>) -> (Vec<&'static str>, u32) {
        notes.add(format!("event {number}"));
        (self.steps.lock().unwrap().clone(), number)
    }

    #[disconnect]
    fn gone(&self, reason: Reason, notes: State<Notes>) {
        notes.add(format!("disconnect {}", reason.0));
    }
}

async fn slow(change: impl FnOnce(&SocketServer)) -> (TestNode, Gate, Notes) {
    let (gate, notes) = (Gate::shut(), Notes::default());
    let node = serve(|server| {
        change(server);
        server.state(gate.clone()).state(notes.clone()).controller::<Slow>().unwrap();
    })
    .await;
    (node, gate, notes)
}

#[tokio::test]
async fn events_wait_for_the_connect_handlers_and_keep_their_order() {
    let (node, gate, notes) = slow(|_server| {}).await;
    let mut client = connected(&node, "/slow").await;
    client.expect(r#"2/slow,["connecting"]"#).await;
    for number in 0..100 {
        client.send(&format!(r#"2/slow,{number}["event",{number}]"#)).await;
    }
    assert_eq!(notes.now(), ["connect 1"]);
    gate.open();
    for number in 0..100 {
        let answer = format!(r#"[{{"result":[["first","second"],{number}]}}]"#);
        client.expect(&format!("3/slow,{number}{answer}")).await;
    }
    let mut expected = vec!["connect 1".to_owned(), "connect 2".to_owned()];
    expected.extend((0..100).map(|number| format!("event {number}")));
    assert_eq!(notes.now(), expected);
}

#[tokio::test]
async fn events_beyond_the_bound_are_refused_and_the_others_are_not_lost() {
    let (node, gate, _) = slow(|server| {
        server.waiting(2, 1000);
    })
    .await;
    let mut client = connected(&node, "/slow").await;
    client.expect(r#"2/slow,["connecting"]"#).await;
    for number in 1..=3 {
        client.send(&format!(r#"2/slow,{number}["event",{number}]"#)).await;
    }
    let refused = client.text().await;
    assert!(refused.starts_with(r#"3/slow,3[{"error":{"message":"too many events"#), "{refused}");
    assert!(refused.contains(r#""code":"OVERLOADED""#), "{refused}");
    gate.open();
    client.expect(r#"3/slow,1[{"result":[["first","second"],1]}]"#).await;
    client.expect(r#"3/slow,2[{"result":[["first","second"],2]}]"#).await;
}

#[tokio::test]
async fn client_that_leaves_while_it_connects_is_handled_to_its_end() {
    let (node, gate, notes) = slow(|_server| {}).await;
    let mut client = connected(&node, "/slow").await;
    client.expect(r#"2/slow,["connecting"]"#).await;
    client.send(r#"2/slow,["event",1]"#).await;
    client.send("1/slow,").await;
    client.connect("/slow", "").await;
    gate.open();
    until("the first socket's end", async || {
        notes.now().iter().any(|note| note.starts_with("disconnect")).then_some(())
    })
    .await;
    let notes = notes.now();
    let place = |wanted: &str| notes.iter().position(|note| note == wanted).unwrap();
    let end = place("disconnect client namespace disconnect");
    assert!(place("connect 2") < place("event 1") && place("event 1") < end, "{notes:?}");
}

#[tokio::test]
async fn reason_of_a_disconnect_is_told() {
    let (node, gate, notes) = slow(|_server| {}).await;
    gate.open();
    let mut client = connected(&node, "/slow").await;
    client.expect(r#"2/slow,["connecting"]"#).await;
    drop(client);
    notes.are(&["connect 1", "connect 2", "disconnect transport close"]).await;
    let mut client = connected(&node, "/slow").await;
    client.expect(r#"2/slow,["connecting"]"#).await;
    node.io().of("/slow").disconnect_sockets(false).await.unwrap();
    client.expect("1/slow,").await;
    notes
        .are(&[
            "connect 1",
            "connect 2",
            "disconnect transport close",
            "connect 1",
            "connect 2",
            "disconnect server namespace disconnect",
        ])
        .await;
}

/// Fails in its connect as the client's auth says.
#[derive(Default)]
struct Guarded;

#[controller("/guarded")]
impl Guarded {
    #[connect]
    async fn check(&self, socket: Socket, notes: State<Notes>) -> Result<(), Error> {
        let auth: Value = socket.auth().unwrap_or_default();
        notes.add("connect");
        match auth["fail"].as_str() {
            None => Ok(()),
            Some("error") => Err(Error::new("not today").with_code("E_CLOSED")),
            Some("panic") => panic!("the client asked for it"),
            Some(_) => std::future::pending().await,
        }
    }

    #[subscribe("ping")]
    fn ping(&self, notes: State<Notes>) -> &'static str {
        notes.add("ping");
        "pong"
    }

    #[disconnect]
    fn gone(&self, notes: State<Notes>) {
        notes.add("disconnect");
    }
}

#[tokio::test]
async fn connect_handler_that_fails_disconnects_the_socket_with_its_error() {
    let notes = Notes::default();
    let node = serve(|server| {
        server.state(notes.clone()).connect_limit(Duration::from_millis(1));
        server.controller::<Guarded>().unwrap();
    })
    .await;
    let mut client = node.open().await;
    for (fail, error) in [
        ("error", r#"{"message":"not today","code":"E_CLOSED"}"#),
        ("panic", r#"{"message":"internal server error","code":"INTERNAL"}"#),
        ("never", r#"{"message":"the connect handlers took too long","code":"TIMEOUT"}"#),
    ] {
        client.connect("/guarded", &format!(r#"{{"fail":"{fail}"}}"#)).await;
        client.send(r#"2/guarded,1["ping"]"#).await;
        client.expect(&format!(r#"2/guarded,["exception",{error}]"#)).await;
        client.expect("1/guarded,").await;
    }
    assert_eq!(notes.now(), ["connect", "connect", "connect"]);
    // The connection, and whoever else there is, goes on.
    client.connect("/guarded", "{}").await;
    client.send(r#"2/guarded,1["ping"]"#).await;
    client.expect(r#"3/guarded,1[{"result":"pong"}]"#).await;
}

/// Fails to be made.
struct Unmade;

#[controller("/unmade")]
impl Unmade {
    #[create]
    fn new() -> Result<Self, String> {
        Err("cannot be made".to_owned())
    }
}

#[tokio::test]
async fn controller_that_cannot_be_made_disconnects_the_socket() {
    let node = serve(|server| drop(server.controller::<Unmade>().unwrap())).await;
    let mut client = connected(&node, "/unmade").await;
    client.expect(r#"2/unmade,["exception",{"message":"cannot be made"}]"#).await;
    client.expect("1/unmade,").await;
}
