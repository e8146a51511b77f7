//! The routes dialect at the public door: what sockets see of it, row by row of `docs/dialects.md`.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::client::Client;
use common::{TestNode, start, start_three, start_with};
use flotilla::apps::routes::{Group, Request, RouteError, Routes};
use flotilla::config::Config;
use flotilla::server::{ConnectError, EmitError, Io, Socket};
use flotilla::socketio::Binary;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Barrier;

/// A route that every test's [`Client::so_far`] asks.
fn ping(routes: &Routes) {
    routes.route("ping", async |req: Request| req.io().respond(&())).unwrap();
}

/// A node with routes in `/`, which are the test's to add to later.
async fn start_routes(register: impl FnOnce(&Routes)) -> (TestNode, Routes) {
    let mut routes = None;
    let node = start(|io| {
        let app = Routes::new(io);
        ping(&app);
        register(&app);
        routes = Some(app);
    })
    .await;
    (node, routes.unwrap())
}

/// Asks for an ack of the event and gives its arguments.
async fn ask(client: &mut Client, event: &str) -> String {
    client.send(&format!("27{event}")).await;
    let answer = client.text().await;
    answer.strip_prefix("37").unwrap_or_else(|| panic!("{event}: {answer}")).to_owned()
}

#[tokio::test]
async fn route_gets_the_first_argument_and_answers_by_the_ack() {
    let (node, _routes) = start_routes(|app| {
        app.route("echo", async |req: Request| -> Result<(), RouteError> {
            req.io().respond(&(req.data::<Value>()?,));
            Ok(())
        })
        .unwrap();
        app.route("three", async |req: Request| {
            req.io().respond(&(1, "two", json!({"three": 3})));
            req.io().respond(&"the first answer counts");
        })
        .unwrap();
        app.route("ready", async |req: Request| {
            req.io().emit("talk", &json!({"message": "io event"}));
        })
        .unwrap();
        app.route("raw", async |req: Request| req.io().respond(&req.raw())).unwrap();
    })
    .await;
    let mut client = node.connect().await;
    assert_eq!(ask(&mut client, r#"["echo",{"a":[1]}]"#).await, r#"[{"a":[1]}]"#);
    assert_eq!(ask(&mut client, r#"["echo",1,2,3]"#).await, "[1]", "only the first is seen");
    assert_eq!(ask(&mut client, r#"["echo",[1,2]]"#).await, "[[1,2]]");
    assert_eq!(ask(&mut client, r#"["echo"]"#).await, "[null]", "none is null");
    assert_eq!(ask(&mut client, r#"["three"]"#).await, r#"[1,"two",{"three":3}]"#);
    client.send(r#"2["ready"]"#).await;
    client.expect(r#"2["talk",{"message":"io event"}]"#).await;
    // Who did not ask gets no answer.
    client.send(r#"2["three"]"#).await;
    assert_eq!(client.so_far().await, Vec::<String>::new());
    client.send(r#"51-7["raw",{"file":{"_placeholder":true,"num":0}}]"#).await;
    client.send_binary(&[1, 2, 3]).await;
    client.expect(r#"61-7[{"file":{"_placeholder":true,"num":0}}]"#).await;
    client.expect_binary(&[1, 2, 3]).await;
}

#[tokio::test]
async fn group_is_events_of_name_and_key_and_a_later_route_takes_a_name_over() {
    let (node, routes) = start_routes(|app| {
        let customers = Group::new()
            .route("create", async |req: Request| {
                let created: Value = req.data().unwrap();
                req.io().respond(&json!({"created": created}));
            })
            .route("read", async |req: Request| req.io().respond(&req.route_name()));
        app.route("customers", customers).unwrap();
    })
    .await;
    let mut client = node.connect().await;
    let created = ask(&mut client, r#"["customers:create",{"n":1}]"#).await;
    assert_eq!(created, r#"[{"created":{"n":1}}]"#);
    assert_eq!(ask(&mut client, r#"["customers:read"]"#).await, r#"["customers:read"]"#);
    // The group itself is no route, nor is a key.
    client.send(r#"21["customers"]"#).await;
    client.send(r#"22["create"]"#).await;
    assert_eq!(client.so_far().await, Vec::<String>::new());

    let later = Group::new().route("read", async |req: Request| req.io().respond(&"later"));
    routes.route("customers", later).unwrap();
    assert_eq!(ask(&mut client, r#"["customers:read"]"#).await, r#"["later"]"#);
    assert!(routes.has_route("customers:create"), "others of the group stay");
}

#[tokio::test]
async fn routes_registered_late_reach_connected_sockets() {
    let (node, routes) = start_routes(|_app| {}).await;
    let mut client = node.connect().await;
    client.send(r#"21["late"]"#).await;
    assert_eq!(client.so_far().await, Vec::<String>::new());
    routes.route("late", async |req: Request| req.io().respond(&"here")).unwrap();
    assert_eq!(ask(&mut client, r#"["late"]"#).await, r#"["here"]"#);
}

#[tokio::test]
async fn reserved_names_are_refused_and_nothing_of_their_group_is_added() {
    let (node, routes) = start_routes(|_app| {}).await;
    for name in [
        "connect",
        "connecting",
        "disconnect",
        "connect_failed",
        "error",
        "message",
        "reconnect_failed",
        "reconnect",
        "reconnecting",
        "connect_error",
        "disconnecting",
        "newListener",
        "removeListener",
    ] {
        let refused = routes.route(name, async |_req: Request| {}).unwrap_err();
        assert!(refused.to_string().contains(name), "{refused}");
        assert!(!routes.has_route(name));
    }
    // What such a name is part of is another event.
    routes
        .route("error", Group::new().route("disconnect", async |req: Request| req.io().respond(&1)))
        .unwrap();
    let mut client = node.connect().await;
    assert_eq!(ask(&mut client, r#"["error:disconnect"]"#).await, "[1]");
    // The original runs a route named disconnect when a socket goes; here that is a handler.
    assert!(matches!(routes.broadcast("disconnect", &()).await, Err(EmitError::Reserved)));
}

fn forwarding(app: &Routes) {
    app.route("outer", async |req: Request| -> Result<(), RouteError> {
        req.io().set("forwarded by", "outer")?;
        req.io().route("inner:read").await
    })
    .unwrap();
    let inner = Group::new().route("read", async |req: Request| -> Result<(), RouteError> {
        let by = req.io().get("forwarded by")?;
        req.io().respond(&(req.route_name(), req.data::<Value>()?, by));
        Ok(())
    });
    app.route("inner", inner).unwrap();
    app.route("lost", async |req: Request| req.io().route("nowhere").await).unwrap();
    app.route("circle", async |req: Request| req.io().route("circle").await).unwrap();
    app.route("falls back", async |req: Request| {
        if let Err(RouteError::Missing(name)) = req.io().route("nowhere").await {
            req.io().respond(&format!("without {name}"));
        }
    })
    .unwrap();
}

#[tokio::test]
async fn forwarded_request_keeps_its_data_its_socket_and_its_ack() {
    let (node, routes) = start_routes(forwarding).await;
    let mut client = node.connect().await;
    let answer = ask(&mut client, r#"["outer",{"n":1}]"#).await;
    assert_eq!(answer, r#"["inner:read",{"n":1},"outer"]"#);
    // The original makes routes of the request's properties.
    for property in ["inner:read:data", "inner:read:io", "outer:session", "outer:data"] {
        assert!(!routes.has_route(property), "{property}");
    }
}

#[tokio::test]
async fn missing_route_and_circle_are_errors_to_the_one_who_asked() {
    let (node, _routes) = start_routes(forwarding).await;
    let (mut client, mut other) = (node.connect().await, node.connect().await);
    let missing = ask(&mut client, r#"["lost"]"#).await;
    assert_eq!(missing, r#"[{"error":{"message":"there is no route \"nowhere\""}}]"#);
    let circle = ask(&mut client, r#"["circle"]"#).await;
    assert!(
        circle.starts_with(r#"[{"error":{"message":"forwarded more than 16 times"#),
        "{circle}"
    );
    assert_eq!(ask(&mut client, r#"["falls back"]"#).await, r#"["without nowhere"]"#);
    assert_eq!(other.so_far().await, Vec::<String>::new());
}

#[derive(Deserialize)]
struct Customer {
    name: String,
}

#[tokio::test]
async fn route_that_fails_or_panics_answers_and_nobody_else_notices() {
    let (node, _routes) = start_routes(|app| {
        app.route("fails", async |_req: Request| Err::<(), _>("sold out")).unwrap();
        app.route("fails late", async |req: Request| -> Result<(), RouteError> {
            req.io().join("shop").await?;
            Err(RouteError::new("sold out later"))
        })
        .unwrap();
        app.route("panics", async |_req: Request| -> Result<(), RouteError> {
            panic!("as the test wants")
        })
        .unwrap();
        app.route("panics late", async |req: Request| -> Result<(), RouteError> {
            req.io().join("shop").await?;
            panic!("as the test wants")
        })
        .unwrap();
        app.route("answers, then panics", async |req: Request| -> Result<(), RouteError> {
            req.io().respond(&"done");
            panic!("as the test wants")
        })
        .unwrap();
        app.route("no json", async |req: Request| {
            req.io().respond(&std::collections::HashMap::from([((1, 2), 3)]));
        })
        .unwrap();
        app.route("greets", async |req: Request| -> Result<(), RouteError> {
            let Customer { name } = req.data()?;
            req.io().respond(&format!("hello {name}"));
            Ok(())
        })
        .unwrap();
    })
    .await;
    let (mut client, mut other) = (node.connect().await, node.connect().await);
    let message = |text: &str| format!(r#"[{{"error":{{"message":"{text}"}}}}]"#);
    for (event, text) in [
        ("fails", "sold out"),
        ("fails late", "sold out later"),
        ("panics", "internal error"),
        ("panics late", "internal error"),
        ("no json", "arguments cannot be encoded"),
    ] {
        assert_eq!(ask(&mut client, &format!(r#"["{event}"]"#)).await, message(text), "{event}");
        client.send(&format!(r#"2["{event}"]"#)).await;
    }
    assert_eq!(ask(&mut client, r#"["answers, then panics"]"#).await, r#"["done"]"#);
    assert_eq!(ask(&mut client, r#"["greets",{"name":"ann"}]"#).await, r#"["hello ann"]"#);
    let shape = ask(&mut client, r#"["greets",{"nome":"ann"}]"#).await;
    assert!(shape.contains("data has another shape: missing field `name`"), "{shape}");
    assert!(ask(&mut client, r#"["greets"]"#).await.contains("data has another shape"));
    assert_eq!(other.so_far().await, Vec::<String>::new());
}

fn rooms(io: &Io) {
    let app = Routes::new(io);
    ping(&app);
    app.route("enter", async |req: Request| -> Result<(), RouteError> {
        let room: String = req.data()?;
        req.io().join(&*room).await?;
        req.io().room(&*room).broadcast("announce", &("new in", room)).await?;
        req.io().respond(&());
        Ok(())
    })
    .unwrap();
    app.route("exit", async |req: Request| -> Result<(), RouteError> {
        req.io().leave(req.data::<String>()?).await?;
        req.io().respond(&());
        Ok(())
    })
    .unwrap();
    app.route("shout", async |req: Request| -> Result<(), RouteError> {
        req.io().broadcast("shouted", &req.data::<Value>()?).await?;
        req.io().respond(&());
        Ok(())
    })
    .unwrap();
    app.route("to all", async |req: Request| -> Result<(), RouteError> {
        req.routes().broadcast("news", &("for", "all")).await?;
        req.routes().room("r").broadcast("news", &("for", "r")).await?;
        req.io().respond(&());
        Ok(())
    })
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broadcasts_and_rooms_span_the_nodes_and_leave_the_sender_out_where_they_should() {
    let nodes = start_three(rooms).await;
    let mut ann = nodes[0].connect().await;
    let mut bob = nodes[1].connect().await;
    let mut cid = nodes[2].connect().await;
    assert_eq!(ask(&mut ann, r#"["enter","r"]"#).await, "[]");
    assert_eq!(ask(&mut bob, r#"["enter","r"]"#).await, "[]");
    ann.expect(r#"2["announce","new in","r"]"#).await;

    assert_eq!(ask(&mut cid, r#"["shout",{"n":1}]"#).await, "[]");
    for client in [&mut ann, &mut bob] {
        client.expect(r#"2["shouted",{"n":1}]"#).await;
    }
    // Everyone, the sender too; then the room, in which it is not.
    cid.send(r#"27["to all"]"#).await;
    cid.expect(r#"2["news","for","all"]"#).await;
    cid.expect("37[]").await;
    for client in [&mut ann, &mut bob] {
        client.expect(r#"2["news","for","all"]"#).await;
        client.expect(r#"2["news","for","r"]"#).await;
    }
    assert_eq!(ask(&mut bob, r#"["exit","r"]"#).await, "[]");
    assert_eq!(ask(&mut cid, r#"["enter","r"]"#).await, "[]");
    ann.expect(r#"2["announce","new in","r"]"#).await;
    for client in [&mut ann, &mut bob, &mut cid] {
        assert_eq!(client.so_far().await, Vec::<String>::new());
    }
}

#[tokio::test]
async fn socket_has_values_and_routes_of_its_own_and_can_be_disconnected() {
    let (node, _routes) = start_routes(|app| {
        app.route("listen", async |req: Request| -> Result<(), RouteError> {
            let word: String = req.data()?;
            req.io().set("word", word)?;
            req.io().on("own", async |req: Request| -> Result<(), RouteError> {
                req.io().respond(&(req.io().get("word")?, req.data::<Value>()?));
                Ok(())
            })?;
            let refused = req.io().on("disconnect", async |_req: Request| {}).unwrap_err();
            req.io().respond(&refused.to_string().contains("disconnect"));
            Ok(())
        })
        .unwrap();
        app.route("go", async |req: Request| {
            req.io().disconnect();
        })
        .unwrap();
    })
    .await;
    let (mut client, mut other) = (node.connect().await, node.connect().await);
    client.send(r#"21["own",1]"#).await;
    assert_eq!(ask(&mut client, r#"["listen","one"]"#).await, "[true]");
    assert_eq!(ask(&mut client, r#"["own",1]"#).await, r#"["one",1]"#);
    // Again: the later one takes its place, and there is one answer.
    assert_eq!(ask(&mut client, r#"["listen","two"]"#).await, "[true]");
    assert_eq!(ask(&mut client, r#"["own",2]"#).await, r#"["two",2]"#);
    other.send(r#"21["own",1]"#).await;
    assert_eq!(other.so_far().await, Vec::<String>::new(), "it is the first one's own");
    client.send(r#"2["go"]"#).await;
    client.expect("1").await;
    client.expect_closed().await;
}

#[tokio::test]
async fn route_of_its_own_runs_after_the_applications_of_that_name_and_one_answers() {
    let (node, _routes) = start_routes(|app| {
        app.route("greet", async |req: Request| {
            req.io().emit("greeted by", &"the application");
            req.io().respond(&"first");
        })
        .unwrap();
        app.route("listen", async |req: Request| -> Result<(), RouteError> {
            req.io().on("greet", async |req: Request| {
                req.io().emit("greeted by", &"its own");
                req.io().respond(&"second");
            })?;
            req.io().respond(&());
            Ok(())
        })
        .unwrap();
    })
    .await;
    let mut client = node.connect().await;
    assert_eq!(ask(&mut client, r#"["listen"]"#).await, "[]");
    client.send(r#"27["greet"]"#).await;
    // An ack waits for no emit: it may come between them.
    let heard = [client.text().await, client.text().await, client.text().await];
    let (acks, events): (Vec<_>, Vec<_>) = heard.iter().partition(|text| text.starts_with('3'));
    assert_eq!(acks, [r#"37["first"]"#]);
    let by = |whom: &str| format!(r#"2["greeted by","{whom}"]"#);
    assert_eq!(events, [&by("the application"), &by("its own")]);
    assert_eq!(client.so_far().await, Vec::<String>::new(), "there is one answer");
}

#[tokio::test]
async fn middleware_runs_with_the_session_and_its_refusal_says_why() {
    let (node, _routes) = start_routes(|app| {
        app.with(async |socket: Socket| {
            let name = socket.auth::<Value>().unwrap_or_default()["name"].clone();
            if name.is_null() {
                return Err(ConnectError::new("who are you?"));
            }
            let named = socket.session().update(move |session| {
                session.insert("name".to_owned(), name.clone());
            });
            named.await.map_err(|error| ConnectError::new(error.to_string()))
        });
        app.route("me", async |req: Request| -> Result<(), RouteError> {
            let session = req.session()?;
            assert_eq!(session.id(), req.session_id()?);
            req.io().respond(&(session.get()["name"].clone(), req.handshake()?.auth));
            Ok(())
        })
        .unwrap();
    })
    .await;
    let mut client = node.open().await;
    client.ask("/", "").await;
    client.expect(r#"4{"message":"who are you?"}"#).await;
    let mut client = node.open().await;
    client.connect("/", r#"{"name":"ann"}"#).await;
    assert_eq!(ask(&mut client, r#"["me"]"#).await, r#"["ann",{"name":"ann"}]"#);
}

#[tokio::test]
async fn request_knows_the_handshake_and_the_application() {
    let (node, _routes) = start_routes(|app| {
        app.set("title", "shop").unwrap();
        app.configure("production", |app| assert!(app.set("title", "never").is_ok()));
        app.configure("development", |app| assert!(app.enable("debug").is_ok()));
        assert!(app.set("heartbeat interval", 25).is_err());
        app.route("who", async |req: Request| -> Result<(), RouteError> {
            let app = req.routes();
            let upgrade = req.headers()["upgrade"].to_str().unwrap();
            let url = req.handshake()?.url;
            let id = req.socket()?.id();
            assert!(req.http().is_none() && req.param("id").is_none() && req.cookie("a").is_none());
            req.io().respond(&(upgrade, url, id, app.get("title"), app.enabled("debug")));
            Ok(())
        })
        .unwrap();
    })
    .await;
    let mut client = node.connect().await;
    let answer = ask(&mut client, r#"["who"]"#).await;
    let id = &client.id;
    let url = "/socket.io/?EIO=4&transport=websocket";
    assert_eq!(answer, format!(r#"["websocket","{url}","{id}","shop",true]"#));
}

#[tokio::test]
async fn requests_of_one_socket_start_in_order_and_wait_for_nobody() {
    // Both pass it, or neither does.
    let both = Arc::new(Barrier::new(2));
    let started = Arc::new(AtomicUsize::new(0));
    let (node, _routes) = start_routes(|app| {
        app.route("first", move |req: Request| {
            let (both, started) = (both.clone(), started.clone());
            async move {
                let place = started.fetch_add(1, Ordering::Relaxed);
                both.wait().await;
                req.io().respond(&place);
            }
        })
        .unwrap();
    })
    .await;
    let mut client = node.connect().await;
    client.send(r#"21["first"]"#).await;
    client.send(r#"22["first"]"#).await;
    let mut answers = [client.text().await, client.text().await];
    answers.sort();
    assert_eq!(answers, ["31[0]", "32[1]"]);
}

#[tokio::test]
async fn routes_of_namespaces_are_apart_and_older_clients_have_them_too() {
    let allow = |config: &mut Config| config.engine.allow_eio3 = true;
    let node = start_with("n1", Vec::new(), allow, |io| {
        for namespace in ["/", "/shop"] {
            let app = Routes::of(io, namespace);
            app.route("where", async |req: Request| {
                req.io().respond(&req.socket().unwrap().namespace_name());
            })
            .unwrap();
            app.route("file", async |req: Request| {
                let Binary(bytes) = req.data().unwrap();
                req.io().respond(&bytes.len());
            })
            .unwrap();
        }
    })
    .await;
    let mut client = node.open().await;
    client.connect("/shop", "").await;
    client.send(r#"2/shop,1["where"]"#).await;
    client.expect(r#"3/shop,1["/shop"]"#).await;

    let mut older = Client::open_revision(node.node.addresses().listen, 3).await;
    older.expect("0").await;
    assert_eq!(ask(&mut older, r#"["where"]"#).await, r#"["/"]"#);
    older.send(r#"51-7["file",{"_placeholder":true,"num":0}]"#).await;
    // Engine.IO 3 marks binary messages by a first byte.
    older.send_binary(&[4, 1, 2, 3]).await;
    older.expect("37[3]").await;
}
