//! What an application sees, at the public door: handlers, acks, middleware, the end of sockets.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use flotilla::server::{
    Ack, AckError, Args, Auth, ConnectError, Data, EventName, ExtractError, Io, Reason, Socket,
};
use flotilla::socketio::Binary;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use common::{Notes, note, noted, spawn, start, until};

#[tokio::test]
async fn handlers_get_what_they_ask_for() {
    #[derive(Deserialize)]
    struct Point {
        x: i64,
        y: i64,
    }
    let node = start(|io: &Io| {
        io.of("/")
            .on("sum", async |Data((a, b)): Data<(i64, i64)>, ack: Ack| ack.send(&(a + b)).unwrap())
            .on("point", async |Data(at): Data<Point>, ack: Ack| ack.send(&(at.x, at.y)).unwrap())
            .on("maybe", async |data: Result<Data<u8>, ExtractError>, ack: Ack| {
                ack.send(&data.is_ok()).unwrap();
            })
            .on("name", async |EventName(name): EventName, socket: Socket, ack: Ack| {
                ack.send(&(name, socket.id())).unwrap();
            })
            .on("same", async |args: Args, ack: Ack| ack.send_args(&args))
            .on("auth", async |Auth(auth): Auth<Value>, ack: Ack| ack.send(&auth).unwrap())
            .on("quiet", async |ack: Ack| assert!(!ack.is_wanted()));
    })
    .await;
    let mut client = node.open().await;
    client.connect("/", r#"{"token":7}"#).await;

    client.send(r#"20["sum",40,2]"#).await;
    client.expect("30[42]").await;
    client.send(r#"21["point",{"x":1,"y":-1}]"#).await;
    client.expect("31[1,-1]").await;
    client.send(r#"22["maybe",255]"#).await;
    client.expect("32[true]").await;
    client.send(r#"23["maybe",256]"#).await;
    client.expect("33[false]").await;
    client.send(r#"24["name"]"#).await;
    client.expect(&format!(r#"34["name","{}"]"#, client.id.clone())).await;
    client.send(r#"25["same", 1.50 ,{"a":[ ]}]"#).await;
    client.expect(r#"35[1.50 ,{"a":[ ]}]"#).await;
    client.send(r#"26["auth"]"#).await;
    client.expect(r#"36[{"token":7}]"#).await;
    // No handler, no ack, and arguments that do not fit: nothing is answered.
    client.send(r#"27["unknown"]"#).await;
    client.send(r#"2["quiet"]"#).await;
    client.send(r#"28["sum","a",2]"#).await;
    client.send(r#"29["sum",1,1]"#).await;
    client.expect("39[2]").await;
}

#[tokio::test]
async fn binary_arguments_are_typed_or_passed_on() {
    let node = start(|io: &Io| {
        io.of("/")
            .on("len", async |Data((name, bytes)): Data<(String, Binary)>, ack: Ack| {
                ack.send(&(name, bytes.0.len(), bytes)).unwrap();
            })
            .on("same", async |args: Args, ack: Ack| ack.send_args(&args))
            .on("relay", async |socket: Socket, args: Args| {
                socket.emit_payload(args.into_event("msg"));
            });
    })
    .await;
    let mut client = node.connect().await;
    let two = r#"{"a":{"_placeholder":true,"num":0}},{"_placeholder":true,"num":1}"#;

    client.send(r#"51-0["len","x",{"_placeholder":true,"num":0}]"#).await;
    client.send_binary(b"\x00\x01\xff").await;
    client.expect(r#"61-0["x",3,{"_placeholder":true,"num":0}]"#).await;
    client.expect_binary(b"\x00\x01\xff").await;

    client.send(&format!(r#"52-1["same",{two}]"#)).await;
    client.send_binary(b"one").await;
    client.send_binary(b"").await;
    client.expect(&format!("62-1[{two}]")).await;
    client.expect_binary(b"one").await;
    client.expect_binary(b"").await;

    client.send(&format!(r#"52-["relay",{two}]"#)).await;
    client.send_binary(b"one").await;
    client.send_binary(b"two").await;
    client.expect(&format!(r#"52-["msg",{two}]"#)).await;
    client.expect_binary(b"one").await;
    client.expect_binary(b"two").await;
}

#[tokio::test]
async fn events_of_one_client_start_in_order_and_a_waiting_handler_holds_up_none() {
    let (release, released) = tokio::sync::oneshot::channel::<()>();
    let released = Arc::new(Mutex::new(Some(released)));
    let node = start(move |io: &Io| {
        io.of("/")
            .on("slow", move |ack: Ack| {
                let released = released.lock().unwrap().take().unwrap();
                async move {
                    released.await.unwrap();
                    ack.send("slow").unwrap();
                }
            })
            .on("quick", async |Data(n): Data<u32>, ack: Ack| ack.send(&n).unwrap());
    })
    .await;
    let mut client = node.connect().await;
    client.send(r#"20["slow"]"#).await;
    for n in 1..=20 {
        client.send(&format!(r#"2{n}["quick",{n}]"#)).await;
    }
    for n in 1..=20 {
        client.expect(&format!("3{n}[{n}]")).await;
    }
    release.send(()).unwrap();
    client.expect(r#"30["slow"]"#).await;
}

#[tokio::test]
async fn handler_that_panics_harms_nobody() {
    let node = start(|io: &Io| {
        io.of("/")
            .on("panic", async |Data(when): Data<String>| {
                if when == "later" {
                    tokio::task::yield_now().await;
                }
                panic!("as the test wants");
            })
            .on("ping", async |ack: Ack| ack.send(&()).unwrap());
    })
    .await;
    let mut client = node.connect().await;
    client.send(r#"2["panic","now"]"#).await;
    client.send(r#"2["panic","later"]"#).await;
    assert!(client.so_far().await.is_empty());
}

#[tokio::test]
async fn middleware_lets_in_refuses_and_prepares() {
    let node = start(|io: &Io| {
        io.of("/vault")
            .with(async |socket: Socket| {
                let auth: Value = socket.auth().unwrap();
                match auth["key"].as_str() {
                    Some("panic") => panic!("as the test wants"),
                    Some("right" | "late") => Ok(()),
                    _ => Err(ConnectError::with_data("wrong key", json!({"tries": 1}))),
                }
            })
            .with(async |socket: Socket| {
                tokio::task::yield_now().await;
                assert!(!socket.is_connected());
                socket.join("a").await.unwrap();
                socket.join(["b", "c"]);
                socket.leave("c");
                if socket.auth::<Value>().unwrap()["key"] == "late" {
                    return Err(ConnectError::new("too late"));
                }
                socket.emit("early", &1);
                Ok(())
            })
            .on_connect(async |socket: Socket| {
                socket.emit("rooms", &socket.rooms());
            });
    })
    .await;
    let mut client = node.open().await;
    client.ask("/vault", "").await;
    client.expect(r#"4/vault,{"message":"wrong key","data":{"tries":1}}"#).await;
    client.ask("/vault", r#"{"key":"panic"}"#).await;
    client.expect(r#"4/vault,{"message":"internal server error"}"#).await;
    client.ask("/nowhere", "").await;
    client.expect(r#"4/nowhere,{"message":"Invalid namespace"}"#).await;
    client.ask("/vault", r#"{"key":"late"}"#).await;
    client.expect(r#"4/vault,{"message":"too late"}"#).await;
    assert!(node.io().of("/vault").rooms().is_empty(), "its joins went with it");
    client.ask("/vault", r#"{"key":"right"}"#).await;
    client.expect(r#"2/vault,["early",1]"#).await;
    client.accepted().await;
    client.expect(&format!(r#"2/vault,["rooms",["{}","a","b"]]"#, client.id.clone())).await;
    assert_eq!(node.io().of("/vault").to("b").fetch_sockets().len(), 1);
    assert_eq!(node.io().of("/vault").to("c").fetch_sockets().len(), 0);
}

#[tokio::test]
async fn client_that_leaves_while_middleware_runs_is_not_heard_of_again() {
    let notes = Notes::default();
    let (asked, mut asks) = mpsc::channel(1);
    let gate = Arc::new(tokio::sync::Notify::new());
    let (theirs, open) = (notes.clone(), gate.clone());
    let node = start(move |io: &Io| {
        let second = theirs.clone();
        io.of("/")
            .with(move |_socket: Socket| {
                let (asked, open) = (asked.clone(), open.clone());
                async move {
                    asked.send(()).await.unwrap();
                    open.notified().await;
                    Ok(())
                }
            })
            .with(move |_socket: Socket| {
                note(&second, "second");
                async { Ok(()) }
            })
            .on_disconnect(async || panic!("it never connected"));
        // Sockets of a connection end in the order in which they came.
        io.of("/later").on_disconnect(move |Reason(reason): Reason| {
            note(&theirs, reason);
            async {}
        });
    })
    .await;
    let mut gone = node.open().await;
    gone.ask("/", "").await;
    asks.recv().await.unwrap();
    gone.connect("/later", "").await;
    drop(gone);
    assert_eq!(noted(&notes, 1).await, ["transport close"]);
    gate.notify_one();

    // The next one comes after it, through the same door.
    let mut client = node.open().await;
    client.ask("/", "").await;
    asks.recv().await.unwrap();
    gate.notify_one();
    client.accepted().await;
    assert_eq!(node.io().operator().fetch_sockets().len(), 1);
    assert_eq!(noted(&notes, 2).await, ["transport close", "second"], "of the second client alone");
}

#[tokio::test]
async fn events_ahead_of_the_answer_to_their_connect_wait_for_the_connect_handler() {
    let notes = Notes::default();
    let (asked, mut asks) = mpsc::channel(1);
    let gate = Arc::new(tokio::sync::Notify::new());
    let (theirs, open) = (notes.clone(), gate.clone());
    let node = start(move |io: &Io| {
        let events = theirs.clone();
        io.of("/")
            .with(move |_socket: Socket| {
                let (asked, open) = (asked.clone(), open.clone());
                async move {
                    asked.send(()).await.unwrap();
                    open.notified().await;
                    Ok(())
                }
            })
            .on_connect(move || {
                note(&theirs, "connected");
                async {}
            })
            .on("early", move |Data(text): Data<String>, ack: Ack| {
                note(&events, text);
                ack.send(&()).unwrap();
                async {}
            });
    })
    .await;
    let mut client = node.open().await;
    client.ask("/", "").await;
    asks.recv().await.unwrap();
    client.send(r#"21["early","a"]"#).await;
    client.send(r#"22["early","b"]"#).await;
    // Its answer shows that they have been read.
    client.ask("/nope", "").await;
    client.expect(r#"4/nope,{"message":"Invalid namespace"}"#).await;
    gate.notify_one();
    client.accepted().await;
    client.expect("31[]").await;
    client.expect("32[]").await;
    assert_eq!(noted(&notes, 3).await, ["connected", "a", "b"]);
}

#[tokio::test]
async fn event_ahead_of_a_refusal_closes_the_connection() {
    let (asked, mut asks) = mpsc::channel(1);
    let gate = Arc::new(tokio::sync::Notify::new());
    let open = gate.clone();
    let node = start(move |io: &Io| {
        io.of("/").with(move |_socket: Socket| {
            let (asked, open) = (asked.clone(), open.clone());
            async move {
                asked.send(()).await.unwrap();
                open.notified().await;
                Err(ConnectError::new("no"))
            }
        });
    })
    .await;
    let mut client = node.open().await;
    client.ask("/", "").await;
    asks.recv().await.unwrap();
    client.send(r#"2["too early"]"#).await;
    // Its answer shows that the event has been read.
    client.ask("/nope", "").await;
    client.expect(r#"4/nope,{"message":"Invalid namespace"}"#).await;
    gate.notify_one();
    client.expect(r#"4{"message":"no"}"#).await;
    client.expect_closed().await;
}

fn note_ends(io: &Io, namespace: &str, notes: &Notes) {
    let (before, after, name) = (notes.clone(), notes.clone(), namespace.to_owned());
    io.of(namespace)
        .on_disconnecting(move |socket: Socket, Reason(reason): Reason| {
            let rooms = socket.rooms().len();
            note(&before, format!("{} in {rooms} rooms: {reason}", socket.namespace_name()));
            async {}
        })
        .on_disconnect(move |socket: Socket, Reason(reason): Reason| {
            assert!(!socket.is_connected());
            note(&after, format!("{name} left: {reason}"));
            async {}
        })
        .on("join", async |socket: Socket, Data(room): Data<String>, ack: Ack| {
            socket.join(room).await.unwrap();
            ack.send(&()).unwrap();
        })
        .on("kick", async |socket: Socket, Data(close): Data<bool>| {
            socket.emit("last", &());
            socket.disconnect(close);
            socket.emit("lost", &());
        });
}

#[tokio::test]
async fn ends_have_the_official_reasons_and_rooms_are_known_until_then() {
    let notes = Notes::default();
    let node = start(|io: &Io| note_ends(io, "/", &notes)).await;
    let mut client = node.connect().await;
    client.send(r#"20["join","r"]"#).await;
    client.expect("30[]").await;
    client.send("1").await;
    let all = noted(&notes, 2).await;
    let reason = "client namespace disconnect";
    assert_eq!(all, [format!("/ in 2 rooms: {reason}"), format!("/ left: {reason}")]);

    client.connect("/", "").await;
    client.send(r#"2["kick",false]"#).await;
    client.expect(r#"2["last"]"#).await;
    client.expect("1").await;
    let reason = "server namespace disconnect";
    assert_eq!(noted(&notes, 4).await[3], format!("/ left: {reason}"));
    // The connection stays, and what was sent meanwhile is passed over.
    client.send(r#"20["join","r"]"#).await;
    client.connect("/", "").await;
    drop(client);
    assert_eq!(noted(&notes, 6).await[5], "/ left: transport close");
    until("the rooms to empty", async || {
        node.io().operator().fetch_sockets().is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
async fn closing_a_connection_ends_all_its_sockets() {
    let notes = Notes::default();
    let node = start(|io: &Io| {
        note_ends(io, "/", &notes);
        note_ends(io, "/second", &notes);
    })
    .await;
    let mut client = node.connect().await;
    client.connect("/second", "").await;
    client.send(r#"2/second,["kick",true]"#).await;
    client.expect(r#"2/second,["last"]"#).await;
    client.expect("1/second,").await;
    client.expect("1").await;
    client.expect_closed().await;
    let reason = "server namespace disconnect";
    let all = noted(&notes, 4).await;
    assert_eq!(all[1], format!("/second left: {reason}"));
    assert_eq!(all[3], format!("/ left: {reason}"));
}

#[tokio::test]
async fn emit_that_is_awaited_arrives_before_the_ack() {
    let node = start(|io: &Io| {
        io.of("/").on("go", async |io: Io, Data(count): Data<u32>, ack: Ack| {
            for n in 0..count {
                let sent = io.emit("msg", &n);
                if n + 1 == count {
                    sent.await.unwrap();
                }
            }
            ack.send(&()).unwrap();
        });
    })
    .await;
    let mut client = node.connect().await;
    client.send(r#"20["go",50]"#).await;
    for n in 0..50 {
        client.expect(&format!(r#"2["msg",{n}]"#)).await;
    }
    client.expect("30[]").await;
}

#[tokio::test]
async fn what_is_not_awaited_keeps_its_place() {
    let node = start(|io: &Io| {
        io.of("/").on("go", async |socket: Socket, io: Io| {
            let session = |n: i64| {
                socket.session().update(move |session| {
                    session.insert("n".to_owned(), n.into());
                });
            };
            socket.emit("msg", &1);
            io.to("r").emit("msg", &"not yet in");
            socket.join("r");
            io.to("r").emit("msg", &2);
            session(1);
            io.operator().session(json!({"n": 1})).emit("msg", &3);
            session(2);
            io.operator().session(json!({"n": 1})).emit("msg", &"was 1");
            io.to(socket.id()).emit("msg", &4);
            socket.leave("r");
            io.to("r").emit("msg", &"left");
            io.emit("msg", &5);
            socket.disconnect(false);
            io.emit("msg", &"gone");
        });
    })
    .await;
    let mut client = node.connect().await;
    client.send(r#"2["go"]"#).await;
    for n in 1..=5 {
        client.expect(&format!(r#"2["msg",{n}]"#)).await;
    }
    client.expect("1").await;
}

#[tokio::test]
async fn clients_answer_or_do_not() {
    let node = start(|io: &Io| {
        io.of("/")
            .on("ask me", async |socket: Socket, ack: Ack| {
                let sum: i64 = socket.emit_with_ack("sum", &(1, 2)).answer().await.unwrap();
                ack.send(&sum).unwrap();
            })
            .on("ask in vain", async |socket: Socket, ack: Ack| {
                let asked = socket.itself().timeout(Duration::from_millis(20));
                let answer = asked.emit_with_ack("never", &()).answer::<Value>().await;
                let is_partial =
                    matches!(answer, Err(AckError::Partial { answers }) if answers.is_empty());
                ack.send(&is_partial).unwrap();
            })
            .on("ask wrongly", async |socket: Socket, ack: Ack| {
                let answer = socket.emit_with_ack("shape", &()).answer::<bool>().await;
                ack.send(&matches!(answer, Err(AckError::Shape(_)))).unwrap();
            });
    })
    .await;
    let mut client = node.connect().await;
    client.send(r#"20["ask me"]"#).await;
    client.answer(r#"["sum",1,2]"#, "[3]").await;
    client.expect("30[3]").await;
    client.send(r#"21["ask in vain"]"#).await;
    assert!(client.text().await.ends_with(r#"["never"]"#));
    client.expect("31[true]").await;
    client.send(r#"22["ask wrongly"]"#).await;
    client.answer(r#"["shape"]"#, "[3]").await;
    client.expect("32[true]").await;
    // An ack of nothing that was asked.
    client.send("377[1]").await;
    client.send(r#"23["ask me"]"#).await;
    client.answer(r#"["sum",1,2]"#, "[3]").await;
    client.expect("33[3]").await;
}

#[tokio::test]
async fn many_clients_answer_and_those_that_leave_are_not_waited_for() {
    let node = start(|io: &Io| {
        io.of("/");
    })
    .await;
    let [mut ann, mut bob, mut eve] =
        [node.connect().await, node.connect().await, node.connect().await];
    let asked = node.io().of("/").timeout(common::PATIENCE).emit_with_ack("who", &());
    let answers = spawn(asked.answers());
    ann.answer(r#"["who"]"#, r#"["ann"]"#).await;
    bob.answer(r#"["who"]"#, r#"["bob"]"#).await;
    eve.text().await;
    drop(eve);
    let answers = answers.await.unwrap().unwrap();
    let mut texts: Vec<_> = answers.iter().map(|answer| answer.json.to_string()).collect();
    texts.sort();
    assert_eq!(texts, [r#"["ann"]"#, r#"["bob"]"#]);

    let nobody = node.io().to("empty").emit_with_ack("who", &());
    assert!(nobody.answers().await.unwrap().is_empty());
    let nobody = node.io().to("empty").emit_with_ack("who", &()).answer::<Value>().await;
    assert!(matches!(nobody, Err(AckError::Gone)), "{nobody:?}");

    let asked = node.io().of("/").timeout(Duration::from_millis(50)).emit_with_ack("who", &());
    ann.answer(r#"["who"]"#, r#"["ann"]"#).await;
    bob.text().await;
    match asked.await {
        Err(AckError::Partial { answers }) => assert!(answers.len() <= 1, "{answers:?}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn sockets_have_handlers_and_values_of_their_own() {
    struct Count(std::sync::atomic::AtomicU32);
    let notes = Notes::default();
    let theirs = notes.clone();
    let node = start(move |io: &Io| {
        io.of("/")
            .on_connect(move |socket: Socket| {
                socket.set_extension(Count(0.into()));
                socket.on("count", async |socket: Socket, ack: Ack| {
                    let count = socket.extension::<Count>().unwrap();
                    ack.send(&count.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed)).unwrap();
                });
                let notes = theirs.clone();
                socket.on_disconnect(move |Reason(reason): Reason| {
                    note(&notes, reason);
                    async {}
                });
                async {}
            })
            .on("off", async |socket: Socket| socket.off("count"))
            .on("ping", async |ack: Ack| ack.send(&()).unwrap());
    })
    .await;
    let mut client = node.connect().await;
    for n in 0..3 {
        client.send(&format!(r#"2{n}["count"]"#)).await;
        client.expect(&format!("3{n}[{n}]")).await;
    }
    client.send(r#"2["off"]"#).await;
    client.send(r#"24["count"]"#).await;
    assert!(client.so_far().await.is_empty());
    client.send("1").await;
    assert_eq!(noted(&notes, 1).await, ["client namespace disconnect"]);
}

#[tokio::test]
async fn node_drains_although_a_handler_never_ends() {
    let node = start(|io: &Io| {
        io.of("/").on_connect(async |_socket: Socket| std::future::pending().await);
    })
    .await;
    let mut client = node.connect().await;
    node.node.drain().await.unwrap();
    client.expect_closed().await;
}
