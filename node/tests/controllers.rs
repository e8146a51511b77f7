//! Controllers at the public door: connects, events, acks, the sequence, the end of sockets.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use flotilla::apps::controllers::{
    Error, Invocation, Output, Reply, Sequence, SocketServer, State, controller,
};
use flotilla::metrics;
use flotilla::server::{
    Ack, Args, ConnectError, Data, EventName, Io, NamespaceHandle, Reason, Session, Socket,
};
use flotilla::socketio::Binary;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use common::client::{Client, Packet};
use common::{TestNode, start, start_three, until};

/// What handlers noted, for the test to look at.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Vec<String>>>);

impl Notes {
    fn add(&self, note: impl Into<String>) {
        self.0.lock().unwrap().push(note.into());
    }

    fn now(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    async fn are(&self, expected: &[&str]) {
        until("the handlers", async || (self.now().len() >= expected.len()).then_some(())).await;
        assert_eq!(self.now(), expected);
    }
}

/// Holds handlers up until the test lets them go on.
#[derive(Clone)]
struct Gate(Arc<Semaphore>);

impl Gate {
    fn shut() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }

    fn open(&self) {
        self.0.close();
    }

    async fn pass(&self) {
        // It is closed to open the gate.
        let _ = self.0.acquire().await;
    }
}

async fn serve(register: impl FnOnce(&SocketServer)) -> TestNode {
    start(|io: &Io| register(&SocketServer::new(io))).await
}

async fn connected(node: &TestNode, namespace: &str) -> Client {
    let mut client = node.open().await;
    client.connect(namespace, "").await;
    client
}

/// Answers, failures and nothing, as they go over the wire.
#[derive(Default)]
struct Main {
    calls: AtomicUsize,
}

#[derive(Debug, thiserror::Error, Serialize)]
#[error("{item} is sold out")]
struct SoldOut {
    item: String,
    code: &'static str,
}

#[controller("/main")]
impl Main {
    #[subscribe("ret")]
    async fn ret(&self, got: Value) -> Value {
        json!({"got": got, "call": self.calls.fetch_add(1, Ordering::Relaxed)})
    }

    #[subscribe("nothing")]
    fn nothing(&self) {}

    #[subscribe("null")]
    fn null(&self) -> Option<u8> {
        None
    }

    #[subscribe("pair")]
    fn pair(&self) -> Result<(u8, &'static str), Error> {
        Ok((1, "a"))
    }

    #[subscribe("object")]
    async fn object(&self) -> Result<(), Value> {
        Err(json!({"code": "E_X"}))
    }

    #[subscribe("text")]
    fn text(&self) -> Result<u8, String> {
        Err("no".to_owned())
    }

    #[subscribe("display")]
    fn display(&self) -> Result<u8, std::num::ParseIntError> {
        "x".parse()
    }

    #[subscribe("both")]
    fn both(&self) -> Result<u8, SoldOut> {
        Err(SoldOut { item: "soup".to_owned(), code: "E_SOLD" })
    }

    #[subscribe("question")]
    fn question(&self) -> Result<u8, Error> {
        let number: u8 = "300".parse()?;
        Ok(number)
    }

    #[subscribe("coded")]
    fn coded(&self) -> Result<(), Error> {
        Err(Error::new("no").with_code("E_NO").with("retry", true))
    }

    #[subscribe("panic")]
    async fn panics(&self) -> u8 {
        panic!("the client asked for it")
    }

    #[subscribe("no json")]
    fn no_json(&self) -> HashMap<(u8, u8), u8> {
        HashMap::from([((1, 2), 3)])
    }
}

#[tokio::test]
async fn acks_are_enveloped_as_the_original_has_them() {
    let node = serve(|server| drop(server.controller::<Main>().unwrap())).await;
    let mut client = connected(&node, "/main").await;
    for (event, answer) in [
        (r#"["ret",{"a":1}]"#, r#"[{"result":{"got":{"a":1},"call":0}}]"#),
        (r#"["nothing"]"#, "[{}]"),
        (r#"["null"]"#, r#"[{"result":null}]"#),
        (r#"["pair"]"#, r#"[{"result":[1,"a"]}]"#),
        (r#"["object"]"#, r#"[{"error":{"code":"E_X"}}]"#),
        (r#"["text"]"#, r#"[{"error":{"message":"no"}}]"#),
        (r#"["display"]"#, r#"[{"error":{"message":"invalid digit found in string"}}]"#),
        (
            r#"["both"]"#,
            r#"[{"error":{"item":"soup","code":"E_SOLD","message":"soup is sold out"}}]"#,
        ),
        (r#"["question"]"#, r#"[{"error":{"message":"number too large to fit in target type"}}]"#),
        (r#"["coded"]"#, r#"[{"error":{"message":"no","code":"E_NO","retry":true}}]"#),
        (r#"["panic"]"#, r#"[{"error":{"message":"internal server error","code":"INTERNAL"}}]"#),
        (r#"["no json"]"#, r#"[{"error":{"message":"internal server error","code":"INTERNAL"}}]"#),
    ] {
        client.send(&format!("2/main,7{event}")).await;
        client.expect(&format!("3/main,7{answer}")).await;
    }
    let mut lost = node.open().await;
    lost.ask("/nope", "").await;
    lost.expect(r#"4/nope,{"message":"Invalid namespace"}"#).await;
}

#[tokio::test]
async fn errors_that_no_ack_takes_to_the_client_are_counted() {
    let node = serve(|server| drop(server.controller::<Main>().unwrap())).await;
    let mut client = connected(&node, "/main").await;
    let before = metrics::CONTROLLER_ERRORS.total();
    client.send(r#"2/main,["text"]"#).await;
    client.send(r#"2/main,["panic"]"#).await;
    client.send(r#"2/main,1["nothing"]"#).await;
    client.expect("3/main,1[{}]").await;
    until("the errors are counted", async || {
        (metrics::CONTROLLER_ERRORS.total() >= before + 2).then_some(())
    })
    .await;
}

/// Everything that a parameter may be.
struct Parameters {
    socket: Socket,
}

#[controller(regex = "^/parameters$")]
impl Parameters {
    #[create]
    async fn new(socket: Socket) -> Result<Self, Error> {
        Ok(Self { socket })
    }

    #[subscribe("sum")]
    fn sum(&self, a: i64, socket: Socket, b: i64, io: Io, c: Option<i64>) -> Value {
        let is_same = socket.id() == self.socket.id() && io.clients_count() > 0;
        json!([is_same, a + b + c.unwrap_or(0)])
    }

    #[subscribe("injected")]
    fn injected(
        &self,
        namespace: NamespaceHandle,
        EventName(event): EventName,
        State(greeting): State<String>,
        message: Args,
        Data((first, _)): Data<(Value, Value)>,
        one: Value,
    ) -> Value {
        let greeting = greeting.as_str();
        json!([namespace.name(), event, greeting, message.text(), first == one])
    }

    #[subscribe("session")]
    async fn session(&self, session: Session) -> Result<Value, Error> {
        session.update(|session| drop(session.insert("seen".to_owned(), true.into()))).await?;
        Ok(json!(*session.get()))
    }

    #[subscribe("binary")]
    fn binary(&self, name: String, file: Binary) -> (String, usize, Binary) {
        (name, file.0.len(), file)
    }

    #[subscribe("stateless")]
    fn stateless(&self, _state: State<u128>) {}

    #[subscribe("shaped")]
    fn shaped(&self, Data(_number): Data<u8>) {}
}

#[tokio::test]
async fn parameters_are_injected_by_type_and_the_rest_are_the_clients_arguments() {
    let node = serve(|server| {
        server.state("hello".to_owned()).controller::<Parameters>().unwrap();
    })
    .await;
    let mut client = connected(&node, "/parameters").await;
    for (event, answer) in [
        (r#"["sum",1,2]"#, r#"{"result":[true,3]}"#),
        (r#"["sum",1,2,3,"surplus"]"#, r#"{"result":[true,6]}"#),
        (r#"["sum",1,2,null]"#, r#"{"result":[true,3]}"#),
        (
            r#"["sum",1]"#,
            r#"{"error":{"message":"argument 2 is missing","code":"INVALID_ARGUMENT"}}"#,
        ),
        (
            r#"["injected",[1], "b"]"#,
            r#"{"result":["/parameters","injected","hello","[1], \"b\"",true]}"#,
        ),
        (r#"["session"]"#, r#"{"result":{"seen":true}}"#),
        (
            r#"["stateless"]"#,
            r#"{"error":{"message":"State is not part of this occasion","code":"INTERNAL"}}"#,
        ),
    ] {
        client.send(&format!("2/parameters,7{event}")).await;
        client.expect(&format!("3/parameters,7[{answer}]")).await;
    }
    for event in [r#"["sum","a",2]"#, r#"["sum",null,2]"#, r#"["sum"]"#, r#"["shaped",256]"#] {
        client.send(&format!("2/parameters,7{event}")).await;
        let answer = client.text().await;
        assert!(answer.contains(r#""code":"INVALID_ARGUMENT""#), "{event}: {answer}");
    }
    client.send(r#"51-/parameters,7["binary","x",{"_placeholder":true,"num":0}]"#).await;
    client.send_binary(b"\x00\x01\xff").await;
    let answer = r#"[{"result":["x",3,{"_placeholder":true,"num":0}]}]"#;
    client.expect(&format!("61-/parameters,7{answer}")).await;
    client.expect_binary(b"\x00\x01\xff").await;
}

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

/// Several handlers for one event.
#[derive(Default)]
struct Several;

#[controller("/several")]
impl Several {
    #[subscribe("both")]
    async fn slow(&self, gate: State<Gate>, notes: State<Notes>) -> &'static str {
        notes.add("slow starts");
        gate.pass().await;
        notes.add("slow ends");
        "slow"
    }

    #[subscribe("both")]
    async fn fast(&self, notes: State<Notes>) -> &'static str {
        notes.add("fast");
        "fast"
    }

    #[subscribe(regex = ".+")]
    fn observe(&self, EventName(event): EventName, notes: State<Notes>) {
        notes.add(format!("saw {event}"));
    }

    #[subscribe(regex = r"^tick:\d+$", regex = "^tock:")]
    fn tick(&self, EventName(event): EventName) -> String {
        event
    }

    #[subscribe("answered", regex = "^fails")]
    fn answered(&self, EventName(event): EventName) -> Result<&'static str, String> {
        if event == "answered" { Ok("by name") } else { Err(event) }
    }
}

#[tokio::test]
async fn all_handlers_of_an_event_run_and_the_first_to_finish_answers() {
    let (gate, notes) = (Gate::shut(), Notes::default());
    let node = serve(|server| {
        server.state(gate.clone()).state(notes.clone()).controller::<Several>().unwrap();
    })
    .await;
    let mut client = connected(&node, "/several").await;
    client.send(r#"2/several,1["both"]"#).await;
    client.expect(r#"3/several,1[{"result":"fast"}]"#).await;
    notes.are(&["saw both", "slow starts", "fast"]).await;
    gate.open();
    notes.are(&["saw both", "slow starts", "fast", "slow ends"]).await;
    // There is no second ack.
    client.send(r#"2/several,2["tick:7"]"#).await;
    client.expect(r#"3/several,2[{"result":"tick:7"}]"#).await;
}

#[tokio::test]
async fn patterns_see_every_event_that_matches_and_may_ack() {
    let (gate, notes) = (Gate::shut(), Notes::default());
    let node = serve(|server| {
        server.state(gate.clone()).state(notes.clone()).controller::<Several>().unwrap();
    })
    .await;
    let mut client = connected(&node, "/several").await;
    for (event, answer) in [
        ("tick:12", r#"{"result":"tick:12"}"#),
        ("tock:x", r#"{"result":"tock:x"}"#),
        ("tick:x", "{}"),
        ("answered", r#"{"result":"by name"}"#),
        ("fails now", r#"{"error":{"message":"fails now"}}"#),
        ("whatever", "{}"),
    ] {
        client.send(&format!(r#"2/several,1["{event}"]"#)).await;
        client.expect(&format!("3/several,1[{answer}]")).await;
    }
    let saw = ["tick:12", "tock:x", "tick:x", "answered", "fails now", "whatever"];
    let saw = saw.map(|event| format!("saw {event}"));
    assert_eq!(notes.now(), saw);
}

/// Times what it does, and speaks in another envelope.
struct Brief(Notes);

impl Sequence for Brief {
    async fn invoke(&self, invocation: Invocation) -> Result<Output, Error> {
        self.0.add(format!("{}.{}", invocation.controller(), invocation.method()));
        invocation.proceed().await
    }

    async fn send(&self, output: Output, reply: Reply) {
        reply.send(&("ok", output.value())).unwrap();
    }

    async fn reject(&self, error: Error, reply: Reply) {
        reply.send(&("no", error.message())).unwrap();
    }
}

/// Does nothing at all.
struct Silent;

impl Sequence for Silent {
    async fn handle(&self, _invocation: Invocation, reply: Reply) {
        reply.send(&"closed").unwrap();
    }
}

#[tokio::test]
async fn sequence_is_looked_up_for_each_event() {
    let notes = Notes::default();
    let mut kept = None;
    let node = serve(|server| {
        server.controller::<Main>().unwrap();
        kept = Some(server.clone());
    })
    .await;
    let server = kept.unwrap();
    let mut client = connected(&node, "/main").await;
    client.send(r#"2/main,1["null"]"#).await;
    client.expect(r#"3/main,1[{"result":null}]"#).await;
    server.sequence(Brief(notes.clone()));
    client.send(r#"2/main,2["pair"]"#).await;
    client.expect(r#"3/main,2["ok",[1,"a"]]"#).await;
    client.send(r#"2/main,3["text"]"#).await;
    client.expect(r#"3/main,3["no","no"]"#).await;
    assert_eq!(notes.now(), ["Main.pair", "Main.text"]);
    server.sequence(Silent);
    client.send(r#"2/main,4["pair"]"#).await;
    client.expect(r#"3/main,4["closed"]"#).await;
}

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

#[tokio::test]
async fn hostile_events_hurt_nobody() {
    let node = serve(|server| {
        server.state("hello".to_owned()).controller::<Parameters>().unwrap();
    })
    .await;
    let mut hostile = connected(&node, "/parameters").await;
    let mut other = connected(&node, "/parameters").await;
    let deep = format!("{}{}", "[".repeat(120), "]".repeat(120));
    for event in [
        format!(r#"["sum",{deep},1]"#),
        r#"["sum",1e400,2]"#.to_owned(),
        r#"["sum",{"toString":1},{}]"#.to_owned(),
        r#"["binary","x",{"_placeholder":true,"num":0}]"#.to_owned(),
        r#"["binary"]"#.to_owned(),
    ] {
        hostile.send(&format!("2/parameters,1{event}")).await;
        let answer = hostile.text().await;
        assert!(answer.starts_with(r#"3/parameters,1[{"error":{"message":"#), "{event}: {answer}");
    }
    hostile.send(&format!(r#"2/parameters,["{}"]"#, "x".repeat(10_000))).await;
    hostile.send(r#"2/parameters,["sum",1,2]"#).await;
    other.send(r#"2/parameters,1["sum",1,2]"#).await;
    other.expect(r#"3/parameters,1[{"result":[true,3]}]"#).await;
    hostile.send(r#"2/parameters,1["sum",1,2]"#).await;
    hostile.expect(r#"3/parameters,1[{"result":[true,3]}]"#).await;
}

#[tokio::test]
async fn observers_leave_the_ack_to_handlers_and_fallbacks_that_wait() {
    let (gate, notes) = (Gate::shut(), Notes::default());
    let node = start(|io: &Io| {
        let server = SocketServer::new(io);
        server.state(gate.clone()).state(notes.clone()).controller::<Several>().unwrap();
        let waits = gate.clone();
        io.of("/several")
            .on_fallback(async |ack: Ack| {
                tokio::task::yield_now().await;
                ack.send(&"what?").unwrap();
            })
            .on("waits", move |ack: Ack| {
                let waits = waits.clone();
                async move {
                    waits.pass().await;
                    ack.send(&"waited").unwrap();
                }
            });
    })
    .await;
    let mut client = connected(&node, "/several").await;
    client.send(r#"2/several,1["waits"]"#).await;
    until("it has been seen", async || (notes.now() == ["saw waits"]).then_some(())).await;
    gate.open();
    client.expect(r#"3/several,1["waited"]"#).await;
    for (event, answer) in [
        // Only an observer has seen it.
        ("whatever", r#"["what?"]"#),
        ("tick:1", r#"[{"result":"tick:1"}]"#),
        ("answered", r#"[{"result":"by name"}]"#),
    ] {
        client.send(&format!(r#"2/several,1["{event}"]"#)).await;
        client.expect(&format!("3/several,1{answer}")).await;
    }
    assert_eq!(notes.now(), ["saw waits", "saw whatever", "saw tick:1", "saw answered"]);
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
