//! The API registry at the public door: api.io's frames, calls, subscriptions, and what is sent to break it.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use flotilla::adapter::RecoveryConfig;
use flotilla::apps::api::{Api, ApiError, Exports, Refusal};
use flotilla::server::{Io, Session, Socket};
use flotilla::socketio::Binary;
use http::request::Parts;
use serde::Deserialize;
use serde_json::{Value, json};

use common::client::{Client, Packet};
use common::roaming::{receive, send};
use common::{TestNode, start, start_three, start_with, until};

#[derive(Deserialize)]
struct Division {
    dividend: f64,
    divisor: f64,
}

/// The application of api.io's README, and what can go wrong with one.
fn exports(api: &Api) -> Exports {
    let my_api = api.handle("myApi");
    Exports::new()
        .constant("VALUE", "const")
        .constant("NOTHING", Value::Null)
        .function("sum", ["a", "b"], async |_: Session, (a, b): (f64, f64)| Ok(a + b))
        .function_of("divide", async |_: Session, Division { dividend, divisor }: Division| {
            if divisor == 0.0 {
                return Err(ApiError::new("division by zero"));
            }
            Ok(dividend / divisor)
        })
        .function("send", ["data"], move |_: Session, data: Value| {
            let my_api = my_api.clone();
            async move { Ok(my_api.emit("event", &data).await?) }
        })
        .function("who", [""; 0], async |session: Session, ()| Ok(session.get()))
        .function("reverse", ["bytes"], async |_: Session, bytes: Binary| {
            Ok(Binary(bytes.0.iter().rev().copied().collect()))
        })
        .function("panics", ["where"], move |_: Session, place: String| {
            assert_ne!(place, "at once");
            async move { if place == "later" { panic!("later") } else { Ok(()) } }
        })
}

fn application(io: &Io) -> Api {
    let api = Api::new(io);
    api.register("myApi", exports(&api)).unwrap();
    io.of("/").on("ping", async |ack: flotilla::server::Ack| ack.send(&()).unwrap());
    api.on_connection(async |socket: Socket| {
        let written = socket.session().update(|session| {
            session.insert("username".into(), "guest".into());
        });
        written.await.unwrap();
    });
    api
}

const READY: &str = r#"2["ready",{"myApi":{"VALUE":{"type":"constant","value":"const"},"NOTHING":{"type":"constant","value":null},"sum":{"type":"function","value":["a","b"]},"divide":{"type":"function","value":["dividend","divisor"]},"send":{"type":"function","value":["data"]},"who":{"type":"function","value":[]},"reverse":{"type":"function","value":["bytes"]},"panics":{"type":"function","value":["where"]}}}]"#;

/// A node with the application, and the application.
async fn node() -> (TestNode, Api) {
    let mut api = None;
    let node = start_with(
        "n1",
        Vec::new(),
        |config| config.engine.allow_eio3 = true,
        |io| {
            api = Some(application(io));
        },
    )
    .await;
    (node, api.unwrap())
}

/// A client that has been told of the exports.
async fn ready(node: &TestNode) -> Client {
    let mut client = node.connect().await;
    client.expect(READY).await;
    client
}

async fn subscribe(client: &mut Client, name: &str, query: Value) {
    client.send(&format!("2{}", json!(["_subscribeToEvent", name, query]))).await;
}

async fn unsubscribe(client: &mut Client, name: &str) {
    client.send(&format!("2{}", json!(["_unsubscribeFromEvent", name]))).await;
}

#[tokio::test]
async fn calls_are_answered_as_api_io_does() {
    let (node, _api) = node().await;
    let mut client = ready(&node).await;
    for (call, answer) in [
        (r#"0["myApi.sum",{"a":1,"b":2,"__stack":"Error\n    at x"}]"#, "0[null,3]"),
        (r#"1["myApi.sum",{"b":2.5,"a":-1}]"#, "1[null,1.5]"),
        (r#"2["myApi.divide",{"divisor":2,"dividend":3,"__stack":""}]"#, "2[null,1.5]"),
        (r#"3["myApi.who",{"__stack":"..."}]"#, r#"3[null,{"username":"guest"}]"#),
        (r#"4["myApi.send",{"data":{"x":1}}]"#, "4[null,null]"),
        (r#"5["myApi.divide",{"divisor":0,"dividend":3}]"#, r#"5[{"message":"division by zero"}]"#),
    ] {
        client.send(&format!("2{call}")).await;
        client.expect(&format!("3{answer}")).await;
    }
}

#[tokio::test]
async fn binary_goes_in_and_out() {
    let (node, _api) = node().await;
    let mut client = ready(&node).await;
    let call = r#"51-8["myApi.reverse",{"bytes":{"_placeholder":true,"num":0},"__stack":"..."}]"#;
    client.send(call).await;
    client.send_binary(&[1, 2, 3]).await;
    client.expect(r#"61-8[null,{"_placeholder":true,"num":0}]"#).await;
    client.expect_binary(&[3, 2, 1]).await;
}

#[tokio::test]
async fn what_crashed_the_original_is_an_error_to_its_sender() {
    let (node, api) = node().await;
    let mut client = ready(&node).await;
    for (call, message) in [
        (r#"["myApi.sum"]"#, "the arguments are missing"),
        (r#"["myApi.sum",null]"#, "the arguments are missing"),
        (r#"["myApi.sum",[1,2]]"#, "the arguments are missing"),
        (r#"["myApi.VALUE",{}]"#, "Call on non-function"),
        (r#"["myApi.product",{}]"#, "No such method"),
        (r#"["myApi.constructor",{}]"#, "No such method"),
        (r#"["other.sum",{}]"#, "No such namespace"),
        (r#"["myApi.panics",{"where":"at once"}]"#, "internal error"),
        (r#"["myApi.panics",{"where":"later"}]"#, "internal error"),
    ] {
        client.send(&format!("27{call}")).await;
        client.expect(&format!("37{}", json!([{"message": message}]))).await;
    }
    client.send(r#"27["myApi.sum",{"a":1}]"#).await;
    let text = client.text().await;
    assert!(text.starts_with(r#"37[{"message":"invalid type: null, expected f64"#), "{text}");
    // Nobody waits for an answer to these, or is told of one.
    for unanswered in [
        r#"["myApi.sum",{"a":1,"b":2}]"#,
        r#"["myApi.panics",{"where":"later"}]"#,
        r#"["myApi.product",{}]"#,
        r#"["myApi.sum"]"#,
    ] {
        client.send(&format!("2{unanswered}")).await;
    }
    client.send(r#"28["no dot",{}]"#).await;
    for (event, named) in [
        (r#"["_subscribeToEvent"]"#, "null"),
        (r#"["_subscribeToEvent",7,null]"#, "null"),
        (r#"["_subscribeToEvent",""]"#, r#""""#),
        (
            r#"["_subscribeToEvent","myApi.event#1",{"$where":"process.exit()"}]"#,
            r#""myApi.event#1""#,
        ),
        (r#"["_subscribeToEvent","myApi.event#1",{"$regex":"(a+)+\\1"}]"#, r#""myApi.event#1""#),
        (r#"["_unsubscribeFromEvent"]"#, "null"),
    ] {
        client.send(&format!("2{event}")).await;
        let text = client.text().await;
        let start = format!(r#"2["_subscriptionError",{named},{{"message":"#);
        assert!(text.starts_with(&start), "{text}");
    }
    unsubscribe(&mut client, "myApi.event").await;
    api.handle("myApi").emit("event", &1).await.unwrap();
    assert_eq!(client.so_far().await, [""; 0]);
    client.send(r#"29["myApi.sum",{"a":1,"b":2}]"#).await;
    client.expect("39[null,3]").await;
}

#[tokio::test]
async fn subscribers_get_one_frame_for_each_name_that_matches() {
    let (node, api) = node().await;
    let [mut client, mut other] = [ready(&node).await, ready(&node).await];
    subscribe(&mut client, "myApi.event", json!(false)).await;
    subscribe(&mut client, "myApi.event#1", json!({"$gte": 4})).await;
    subscribe(&mut client, "myApi.event#objq", json!({"value": {"$gte": 4}})).await;
    subscribe(&mut client, "myApi.event#7", Value::Null).await;
    subscribe(&mut client, "myApi.other", json!(false)).await;
    // Without an id a query is ignored.
    subscribe(&mut other, "myApi.event", json!({"$gte": 100})).await;
    assert_eq!((client.so_far().await, other.so_far().await), (vec![], vec![]));

    let my_api = api.handle("myApi");
    let mut frames = async |data: Value| {
        my_api.emit("event", &data).await.unwrap();
        let mut frames = client.so_far().await;
        frames.sort();
        (frames, other.so_far().await)
    };
    let of = |names: &[&str], data: &str| -> Vec<String> {
        names.iter().map(|name| format!(r#"2["myApi.event{name}",{data}]"#)).collect()
    };
    assert_eq!(frames(json!(4)).await, (of(&["", "#1", "#7"], "4"), of(&[""], "4")));
    assert_eq!(frames(json!("5")).await, (of(&["", "#7"], "\"5\""), of(&[""], "\"5\"")));
    let object = r#"{"value":5}"#;
    let all = of(&["", "#7", "#objq"], object);
    assert_eq!(frames(json!({"value": 5})).await, (all, of(&[""], object)));
    assert_eq!(frames(Value::Null).await, (of(&["", "#7"], "null"), of(&[""], "null")));
}

#[tokio::test]
async fn subscription_that_is_made_twice_ends_with_its_second_end() {
    let (node, api) = node().await;
    let my_api = api.handle("myApi");
    let mut client = ready(&node).await;
    for name in ["myApi.event", "myApi.event", "myApi.event#1"] {
        subscribe(&mut client, name, json!(false)).await;
    }
    client.so_far().await;
    for (ended, expected) in
        [("myApi.event", 2), ("myApi.event", 1), ("myApi.event", 1), ("myApi.event#1", 0)]
    {
        unsubscribe(&mut client, ended).await;
        client.so_far().await;
        my_api.emit("event", &1).await.unwrap();
        assert_eq!(client.so_far().await.len(), expected);
    }
}

#[tokio::test]
async fn event_comes_before_the_ack_of_the_call_that_emitted_it() {
    let (node, _api) = node().await;
    let mut client = ready(&node).await;
    subscribe(&mut client, "myApi.event", json!(false)).await;
    for n in 0..50 {
        client.send(&format!(r#"2{n}["myApi.send",{{"data":{n}}}]"#)).await;
        client.expect(&format!(r#"2["myApi.event",{n}]"#)).await;
        client.expect(&format!("3{n}[null,null]")).await;
    }
}

#[tokio::test]
async fn filtered_emit_reaches_subscribers_whose_session_matches() {
    let (node, api) = node().await;
    let my_api = api.handle("myApi");
    let mut client = ready(&node).await;
    subscribe(&mut client, "myApi.event", json!(false)).await;
    client.so_far().await;
    my_api.emit_filtered("event", "for admin", json!({"username": "admin"})).await.unwrap();
    my_api.emit_filtered("event", "for guest", json!({"username": "guest"})).await.unwrap();
    my_api.emit_filtered("other", "for guest", json!({"username": "guest"})).await.unwrap();
    assert_eq!(client.so_far().await, [r#"2["myApi.event","for guest"]"#]);
    my_api.emit_filtered("event", &1, json!(["no filter"])).await.unwrap_err();
}

#[tokio::test]
async fn connection_knows_the_exports_of_its_beginning() {
    let (node, api) = node().await;
    let mut old = ready(&node).await;
    let names = Arc::new(Mutex::new(Vec::new()));
    let heard = names.clone();
    api.on_namespace(move |name| heard.lock().unwrap().push(name.to_owned()));
    let two = Exports::new().function("two", [""; 0], async |_: Session, ()| Ok(2));
    let late = api.register("late", two).unwrap();
    assert_eq!(*names.lock().unwrap(), ["late"]);
    assert!(api.is_registered("late") && !api.is_registered("never"));
    let call = r#"20["late.two",{}]"#;
    old.send(call).await;
    old.expect(r#"30[{"message":"No such namespace"}]"#).await;
    let mut new = node.connect().await;
    assert!(new.text().await.contains(r#""late":{"two":"#));
    new.send(call).await;
    new.expect("30[null,2]").await;

    let three = Exports::new().function("two", [""; 0], async |_: Session, ()| Ok(3));
    api.register("late", three).unwrap();
    new.send(call).await;
    new.expect("30[null,3]").await;
    assert!(late.unregister() && !api.is_registered("late"));
    new.send(call).await;
    new.expect(r#"30[{"message":"No such namespace"}]"#).await;
}

#[tokio::test]
async fn stop_closes_connections_and_lets_nobody_in() {
    let (node, api) = node().await;
    let mut client = ready(&node).await;
    api.stop().await;
    client.expect("1").await;
    client.expect_closed().await;
    assert!(!api.is_registered("myApi"));
    let mut late = node.open().await;
    late.ask("/", "").await;
    late.expect(r#"4{"message":"The API is stopped"}"#).await;
    api.handle("myApi").emit("event", &1).await.unwrap();
}

#[tokio::test]
async fn hooks_run_once_for_each_client() {
    let (node, api) = node().await;
    let (came, went) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (coming, going) = (came.clone(), went.clone());
    api.on_connection(move |_| {
        coming.fetch_add(1, Ordering::Relaxed);
        async { panic!("a hook's own end") }
    });
    api.on_disconnection(move |socket: Socket| {
        let going = going.clone();
        async move {
            assert_eq!(socket.session().get()["username"], "guest");
            going.fetch_add(1, Ordering::Relaxed);
        }
    });
    let mut client = ready(&node).await;
    assert_eq!(came.load(Ordering::Relaxed), 1);
    client.send("1").await;
    let gone = async || (went.load(Ordering::Relaxed) > 0).then_some(());
    until("the client to have left", gone).await;
    drop(client);
    let mut other = ready(&node).await;
    other.so_far().await;
    assert_eq!((came.load(Ordering::Relaxed), went.load(Ordering::Relaxed)), (2, 1));
}

#[tokio::test]
async fn client_of_generation_two_sees_the_recorded_frames() {
    let (node, api) = node().await;
    let mut client = Client::open_revision(node.node.addresses().listen, 3).await;
    client.expect("0").await;
    client.expect(READY).await;
    client.send(r#"20["myApi.sum",{"a":1,"b":2,"__stack":"..."}]"#).await;
    client.expect("30[null,3]").await;
    client.send(r#"21["myApi.product",{}]"#).await;
    client.expect(r#"31[{"message":"No such method"}]"#).await;
    subscribe(&mut client, "myApi.event#1", json!({"$gte": 4})).await;
    client.so_far().await;
    for n in 3..=4 {
        api.handle("myApi").emit("event", &n).await.unwrap();
    }
    client.expect(r#"2["myApi.event#1",4]"#).await;
}

#[tokio::test]
async fn refusal_has_the_originals_words() {
    let (node, api) = node().await;
    api.auth_handler(async |socket: Socket| {
        match socket.handshake_details().query["EIO"].as_str() {
            Some("3") => Err(std::io::Error::other("unauthorized").into()),
            _ if socket.auth::<Value>().unwrap().is_null() => Err(Refusal::Unsaid),
            _ => Ok(()),
        }
    });
    let mut old = Client::open_revision(node.node.addresses().listen, 3).await;
    old.expect(r#"4"Error: unauthorized""#).await;
    let mut new = node.open().await;
    new.ask("/", "").await;
    new.expect(r#"4{"message":"Not authorized"}"#).await;
    new.ask("/", r#"{"token":1}"#).await;
    new.accepted().await;
    new.expect(READY).await;
}

#[tokio::test]
async fn definitions_are_served_to_tools() {
    let (node, api) = node().await;
    api.serve_definitions(node.io(), "/api.io/definitions.json");
    let listen = node.node.addresses().listen;
    let get = async |path: &str| {
        receive(send(listen, &format!("GET {path} HTTP/1.1\r\n"), b"").await).await
    };
    let answer = get("/api.io/definitions.json").await;
    assert_eq!(answer.status, 200);
    assert!(answer.headers.contains(&("content-type".into(), "application/json".into())));
    assert_eq!(format!(r#"2["ready",{}]"#, answer.body), READY);
    assert_eq!(get("/api.io/other").await.status, 404);
}

#[tokio::test]
async fn definitions_are_for_those_alone_who_may_see_them() {
    let (node, api) = node().await;
    api.serve_definitions(node.io(), "/definitions");
    let listen = node.node.addresses().listen;
    let get = async |head: &str| {
        let answer = receive(send(listen, &format!("GET /definitions{head}\r\n"), b"").await).await;
        (answer.status, answer.body)
    };
    assert_eq!(get(" HTTP/1.1").await.0, 200);
    // The handler cannot be asked about who is no client, so nobody passes.
    api.auth_handler(async |_| Ok(()));
    let refused = |words: &str| (403, json!({"message": words}).to_string());
    assert_eq!(get(" HTTP/1.1").await, refused("Not authorized"));

    api.definitions_handler(async |request: Parts| {
        assert_ne!(request.uri.query(), Some("panic"));
        match request.headers.get("authorization").map(|value| value.as_bytes()) {
            Some(b"Bearer right") => Ok(()),
            Some(_) => Err(Refusal::Text("wrong".to_owned())),
            None => Err(std::io::Error::other("who are you?").into()),
        }
    });
    assert_eq!(get(" HTTP/1.1").await, refused("who are you?"));
    assert_eq!(get(" HTTP/1.1\r\nAuthorization: Bearer left").await, refused("wrong"));
    assert_eq!(get("?panic HTTP/1.1").await, refused("Not authorized"));
    let (status, body) = get(" HTTP/1.1\r\nAuthorization: Bearer right").await;
    assert_eq!((status, format!(r#"2["ready",{body}]"#)), (200, READY.to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn emit_reaches_subscribers_of_all_nodes_in_one_order() {
    let nodes = start_three(|io| drop(application(io))).await;
    let mut clients = Vec::new();
    for node in &nodes {
        let mut client = ready(node).await;
        subscribe(&mut client, "myApi.event#even", json!({"$mod": [2, 0]})).await;
        client.send(r#"20["ping"]"#).await;
        client.expect("30[]").await;
        clients.push(client);
    }
    let mut deaf = ready(&nodes[1]).await;
    // A subscription is agreed with whatever comes after it on its node.
    for client in &mut clients {
        client.send(r#"21["myApi.send",{"data":"agreed?"}]"#).await;
        client.expect("31[null,null]").await;
    }
    for n in 0..20 {
        let handle = format!(r#"2{n}["myApi.send",{{"data":{n}}}]"#);
        deaf.send(&handle).await;
        deaf.expect(&format!("3{n}[null,null]")).await;
    }
    for client in &mut clients {
        for n in (0..20).step_by(2) {
            client.expect(&format!(r#"2["myApi.event#even",{n}]"#)).await;
        }
    }
    assert_eq!(deaf.so_far().await, [""; 0]);
}

/// What a client of a recoverable namespace needs to come back.
struct Kept {
    pid: String,
    offset: String,
}

impl Kept {
    fn auth(&self) -> String {
        json!({"pid": self.pid, "offset": self.offset}).to_string()
    }
}

/// Takes the offset off a frame.
fn split(frame: &str) -> (String, String) {
    let Value::Array(mut elements) = serde_json::from_str(&frame[1..]).unwrap() else { panic!() };
    let offset = elements.pop().unwrap().as_str().unwrap().to_owned();
    (Value::from(elements).to_string(), offset)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscriptions_come_back_with_their_client_on_another_node() {
    let nodes = start_three(|io| {
        io.of_recoverable("/", RecoveryConfig::default());
        application(io);
    })
    .await;
    let mut client = nodes[0].open().await;
    client.ask("/", "").await;
    let connect: Value = serde_json::from_str(&client.text().await[1..]).unwrap();
    let pid = connect["pid"].as_str().unwrap().to_owned();
    client.expect(READY).await;
    subscribe(&mut client, "myApi.event", json!(false)).await;
    subscribe(&mut client, "myApi.event", json!(false)).await;
    subscribe(&mut client, "myApi.event#1", json!({"$gte": 4})).await;
    client.send(r#"20["myApi.send",{"data":4}]"#).await;
    let (first, part) = split(&client.text().await);
    let (second, whole) = split(&client.text().await);
    client.expect("30[null,null]").await;
    let both = [r#"["myApi.event",4]"#, r##"["myApi.event#1",4]"##];
    let mut frames = [&*first, &*second];
    frames.sort_unstable();
    assert_eq!(frames, both);
    assert!(part.starts_with(&format!("{whole}-")), "the first part is not the whole: {part}");

    // Its connection breaks between the two, as far as it can tell.
    drop(client);
    let mut helper = ready_elsewhere(&nodes[1]).await;
    for n in [3, 5] {
        helper.send(&format!(r#"2{n}["myApi.send",{{"data":{n}}}]"#)).await;
        helper.expect(&format!("3{n}[null,null]")).await;
    }
    let mut client = nodes[2].open().await;
    client.ask("/", &Kept { pid: pid.clone(), offset: part }.auth()).await;
    let mut replayed = Vec::new();
    loop {
        match client.text().await {
            text if text.starts_with('0') => break,
            text => replayed.push(split(&text)),
        }
    }
    let texts: Vec<_> = replayed.iter().map(|(text, _)| &**text).collect();
    let mut last = texts[2..].to_vec();
    last.sort_unstable();
    assert_eq!(texts[..2], [&*second, r#"["myApi.event",3]"#]);
    assert_eq!(last, [r#"["myApi.event",5]"#, r##"["myApi.event#1",5]"##]);
    client.expect(READY).await;

    // It is counted on: the first end leaves the second subscription.
    unsubscribe(&mut client, "myApi.event").await;
    client.send(r#"26["myApi.send",{"data":1}]"#).await;
    let (text, _) = split(&client.text().await);
    assert_eq!(text, r#"["myApi.event",1]"#);
    client.expect("36[null,null]").await;
    unsubscribe(&mut client, "myApi.event").await;
    client.send(r#"27["myApi.send",{"data":1}]"#).await;
    client.expect("37[null,null]").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filtered_emit_reaches_subscribers_that_are_away_and_come_back() {
    let apis = Mutex::new(Vec::new());
    let nodes = start_three(|io| {
        io.of_recoverable("/", RecoveryConfig::default());
        apis.lock().unwrap().push(application(io));
    })
    .await;
    let my_api = apis.lock().unwrap()[1].handle("myApi");
    let mut client = nodes[0].open().await;
    client.ask("/", "").await;
    let connect: Value = serde_json::from_str(&client.text().await[1..]).unwrap();
    client.expect(READY).await;
    subscribe(&mut client, "myApi.event#1", json!({"$gte": 4})).await;
    client.send(r#"20["myApi.send",{"data":0}]"#).await;
    client.expect("30[null,null]").await;
    drop(client);
    let away = async || nodes[1].io().of("/").fetch_sockets().is_empty().then_some(());
    until("the client to be away", away).await;

    for (data, username) in [(5, "guest"), (6, "admin"), (3, "guest"), (7, "guest")] {
        let filter = json!({"username": username});
        my_api.emit_filtered("event", &data, filter).await.unwrap();
    }
    let mut client = nodes[2].open().await;
    client.ask("/", &json!({"pid": connect["pid"]}).to_string()).await;
    for data in [5, 7] {
        let missed = format!(r#"["myApi.event#1",{data}]"#);
        assert_eq!(split(&client.text().await).0, missed);
    }
    client.accepted().await;
    assert_eq!(client.id, connect["sid"].as_str().unwrap());
}

async fn ready_elsewhere(node: &TestNode) -> Client {
    let mut client = node.connect().await;
    assert_ne!(client.next().await, Packet::Closed);
    client
}

#[tokio::test]
async fn dialect_lives_beside_the_applications_own_handlers() {
    let node = start(|io| {
        let namespace = io.of("/mixed");
        Api::on(&namespace).register("a", Exports::new().constant("B", 1)).unwrap();
        namespace.on("own.event", async |ack: flotilla::server::Ack| ack.send("own").unwrap());
    })
    .await;
    let mut client = node.open().await;
    client.connect("/mixed", "").await;
    client.expect(r#"2/mixed,["ready",{"a":{"B":{"type":"constant","value":1}}}]"#).await;
    client.send(r#"2/mixed,1["own.event"]"#).await;
    client.expect(r#"3/mixed,1["own"]"#).await;
    client.send(r#"2/mixed,2["own.other"]"#).await;
    client.expect(r#"3/mixed,2[{"message":"No such namespace"}]"#).await;
}
