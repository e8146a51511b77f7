//! What hears of a socket's events besides their handlers: catch-all listeners, middleware, errors.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::sync::Arc;

use flotilla::adapter::DeliveryMode;
use flotilla::server::{
    Ack, Args, Data, EmitError, Event, EventError, EventName, Io, Reason, Socket,
};
use serde_json::json;

use common::{Notes, note, noted, start, until};

/// A handler that notes the event's name and arguments behind `mark`.
fn noting(
    notes: &Notes,
    mark: &'static str,
) -> impl Fn(EventName, Args) -> std::future::Ready<()> + Send + Sync + 'static {
    let notes = notes.clone();
    move |EventName(name), args| {
        note(&notes, format!("{mark} {name} {}", args.text()));
        std::future::ready(())
    }
}

#[tokio::test]
async fn catch_all_listeners_hear_every_event_in_their_order() {
    let notes = Notes::default();
    let theirs = notes.clone();
    let node = start(move |io: &Io| {
        io.of("/")
            .on_connect(move |socket: Socket| {
                let second = socket.on_any(noting(&theirs, "second"));
                let first = socket.prepend_any(noting(&theirs, "first"));
                assert_eq!(socket.listeners_any(), [first, second]);
                socket.on("off", move |socket: Socket, ack: Ack| {
                    socket.off_any(second);
                    async move { ack.send(&socket.listeners_any().len()).unwrap() }
                });
                socket.on("none", async |socket: Socket, ack: Ack| {
                    socket.off_any(None);
                    ack.send(&socket.listeners_any().len()).unwrap();
                });
                async {}
            })
            .on("known", async |ack: Ack| ack.send("handled").unwrap());
    })
    .await;
    let mut client = node.connect().await;
    client.send(r#"20["known",1,{"a":[2]}]"#).await;
    client.expect(r#"30["handled"]"#).await;
    client.send(r#"2["unknown"]"#).await;
    client.send(r#"21["off"]"#).await;
    client.expect("31[1]").await;
    client.send(r#"22["none"]"#).await;
    client.expect("32[0]").await;
    client.send(r#"23["known"]"#).await;
    client.expect(r#"33["handled"]"#).await;
    let wanted = [
        r#"first known 1,{"a":[2]}"#,
        r#"second known 1,{"a":[2]}"#,
        "first unknown ",
        "second unknown ",
        "first off ",
        "second off ",
        "first none ",
    ];
    assert_eq!(noted(&notes, wanted.len()).await, wanted);
}

#[tokio::test]
async fn catch_all_listeners_hear_what_is_sent_by_whomever() {
    for mode in [DeliveryMode::Replicated, DeliveryMode::Direct] {
        let notes = Notes::default();
        let theirs = notes.clone();
        let node = start(move |io: &Io| {
            io.of_mode("/n", mode)
                .with({
                    let notes = theirs.clone();
                    move |socket: Socket| {
                        socket.on_any_outgoing(noting(&notes, "heard"));
                        socket.emit("early", &());
                        async { Ok(()) }
                    }
                })
                .on("more", move |socket: Socket, ack: Ack| {
                    let last = socket.on_any_outgoing(noting(&theirs, "last"));
                    let first = socket.prepend_any_outgoing(noting(&theirs, "first"));
                    let all = socket.listeners_any_outgoing();
                    assert_eq!((all.len(), all[0], all[2]), (3, first, last));
                    async move { ack.send("acks are no events").unwrap() }
                })
                .on("none", async |socket: Socket, ack: Ack| {
                    socket.off_any_outgoing(None);
                    assert!(socket.listeners_any_outgoing().is_empty());
                    ack.send(&()).unwrap();
                });
        })
        .await;
        let namespace = node.io().of("/n");
        let mut client = node.open().await;
        client.ask("/n", "").await;
        client.expect(r#"2/n,["early"]"#).await;
        client.accepted().await;
        namespace.emit("all", &1).await.unwrap();
        namespace.to(client.id.clone()).emit("one", &(1, "2")).await.unwrap();
        namespace.to("nobody").emit("nobody", &()).await.unwrap();
        namespace.volatile().emit("volatile", &()).await.unwrap();
        drop(namespace.emit_with_ack("asked", &7));
        assert_eq!(
            noted(&notes, 5).await,
            [
                "heard early ",
                "heard all 1",
                r#"heard one 1,"2""#,
                "heard volatile ",
                "heard asked 7"
            ]
        );
        client.send(r#"2/n,0["more"]"#).await;
        until("the answer", async || client.text().await.starts_with("3/n,0").then_some(())).await;
        namespace.emit("three", &()).await.unwrap();
        assert_eq!(noted(&notes, 8).await[5..], ["first three ", "heard three ", "last three "]);
        client.send(r#"2/n,1["none"]"#).await;
        client.expect(r#"2/n,["three"]"#).await;
        client.expect("3/n,1[]").await;
        namespace.emit("silent", &()).await.unwrap();
        client.expect(r#"2/n,["silent"]"#).await;
        assert_eq!(noted(&notes, 8).await.len(), 8);
    }
}

#[tokio::test]
async fn listener_of_what_is_sent_harms_nobody_when_it_panics() {
    let node = start(|io: &Io| {
        io.of("/")
            .on_connect(async |socket: Socket| {
                socket.on_any_outgoing(async || panic!("as the test wants"));
            })
            .on("ping", async |ack: Ack| ack.send(&()).unwrap());
    })
    .await;
    let mut client = node.connect().await;
    let mut other = node.connect().await;
    node.io().emit("msg", &1).await.unwrap();
    for client in [&mut client, &mut other] {
        client.expect(r#"2["msg",1]"#).await;
        assert!(client.so_far().await.is_empty());
    }
}

#[tokio::test]
async fn middleware_of_events_lets_pass_or_refuses() {
    let notes = Notes::default();
    let (errors, heard) = (notes.clone(), notes.clone());
    let node = start(move |io: &Io| {
        io.of("/")
            .on_connect(move |socket: Socket| {
                let heard = heard.clone();
                socket.on_any(noting(&heard, "any"));
                socket.with(async |event: Event| match event.data::<(i64, Option<String>)>() {
                    Ok((n, _)) if n < 0 => {
                        Err(EventError::with_data("below zero", json!({"n": n})))
                    }
                    Ok(_) => Ok(()),
                    Err(_) => Err(EventError::new("no number")),
                });
                socket.with(async |event: Event| {
                    assert!(event.wants_ack() && event.socket().is_connected());
                    tokio::task::yield_now().await;
                    if event.name() == "panic" {
                        panic!("as the test wants");
                    }
                    Ok(())
                });
                socket.on_error(move |error: EventError| {
                    note(&heard, format!("own {error}"));
                    async {}
                });
                async {}
            })
            .on_error(move |error: EventError, socket: Socket| {
                assert!(socket.is_connected());
                note(&errors, format!("{error} {}", error.data.clone().unwrap_or_default()));
                async {}
            })
            .on("double", async |Data(n): Data<i64>, ack: Ack| ack.send(&(2 * n)).unwrap())
            .on("panic", async || panic!("it was not let through"));
    })
    .await;
    let mut client = node.connect().await;
    client.send(r#"20["double",4]"#).await;
    client.expect("30[8]").await;
    client.send(r#"21["double",-4]"#).await;
    client.send(r#"22["double","x"]"#).await;
    client.send(r#"23["panic",1]"#).await;
    client.send(r#"24["double",5]"#).await;
    client.expect("34[10]").await;
    let wanted = [
        "any double 4",
        "any double -4",
        r#"below zero {"n":-4}"#,
        "own below zero",
        r#"any double "x""#,
        "no number null",
        "own no number",
        "any panic 1",
        "any double 5",
    ];
    assert_eq!(noted(&notes, wanted.len()).await, wanted);
}

#[tokio::test]
async fn event_that_middleware_holds_is_dropped_with_its_socket() {
    let gate = Arc::new(tokio::sync::Notify::new());
    let (left, passed) = (Notes::default(), Notes::default());
    let (leaving, passing, opening) = (left.clone(), passed.clone(), gate.clone());
    let node = start(move |io: &Io| {
        io.of("/")
            .on_connect(move |socket: Socket| {
                let (gate, passing) = (opening.clone(), passing.clone());
                socket.with(move |_event: Event| {
                    let (gate, passing) = (gate.clone(), passing.clone());
                    async move {
                        gate.notified().await;
                        note(&passing, "passed");
                        Ok(())
                    }
                });
                async {}
            })
            .on("late", async || panic!("its socket has left"))
            .on_disconnect(move || {
                note(&leaving, "left");
                async {}
            });
    })
    .await;
    let mut client = node.connect().await;
    client.send(r#"2["late"]"#).await;
    client.send("1").await;
    noted(&left, 1).await;
    gate.notify_one();
    noted(&passed, 1).await;
}

#[tokio::test]
async fn breach_of_the_protocol_is_an_error_and_then_the_end() {
    let notes = Notes::default();
    let (errors, ends) = (notes.clone(), notes.clone());
    let node = start(move |io: &Io| {
        io.of("/")
            .on_error(move |error: EventError| {
                note(&errors, format!("error: {error}"));
                async {}
            })
            .on_disconnect(move |Reason(reason): Reason| {
                note(&ends, reason);
                async {}
            });
    })
    .await;
    let mut client = node.connect().await;
    client.send("2{}").await;
    client.expect_closed().await;
    assert_eq!(noted(&notes, 2).await, ["error: invalid payload", "forced close"]);
    // What comes at the wrong time is no parse error.
    let mut client = node.connect().await;
    client.send("0").await;
    client.expect_closed().await;
    assert_eq!(noted(&notes, 3).await[2], "forced server close");
}

#[tokio::test]
async fn reserved_names_are_refused_and_nothing_is_sent() {
    let node = start(|io: &Io| {
        io.of("/").on("ping", async |ack: Ack| ack.send(&()).unwrap());
    })
    .await;
    let mut client = node.connect().await;
    let socket = node.io().of("/").sockets().remove(0);
    let names = [
        "connect",
        "connect_error",
        "disconnect",
        "disconnecting",
        "newListener",
        "removeListener",
    ];
    for name in names {
        let forwarded = flotilla::socketio::to_payload(Some(name), &1).unwrap();
        for refused in [
            node.io().emit(name, &1).await,
            node.io().to("a").emit(name, &1).await,
            socket.emit(name, &1).await,
            socket.broadcast().emit_payload(forwarded.clone()).await,
            socket.emit_payload(forwarded).await,
        ] {
            assert!(matches!(refused, Err(EmitError::Reserved)), "{name}: {refused:?}");
        }
        assert!(node.io().emit_with_ack(name, &()).await.is_err());
    }
    for name in ["connect", "connection", "new_namespace"] {
        let refused = node.io().server_side_emit(name, &1);
        assert!(matches!(refused, Err(EmitError::Reserved)), "{name}: {refused:?}");
        assert!(node.io().server_side_emit_with_ack(name, &1).await.is_err());
    }
    assert!(client.so_far().await.is_empty());
}

#[tokio::test]
async fn send_is_an_event_named_message() {
    let node = start(|io: &Io| {
        io.of("/").on("message", async |socket: Socket, args: Args| {
            socket.emit_payload(args.into_event("message-back"));
        });
    })
    .await;
    let mut client = node.connect().await;
    let socket = node.io().of("/").sockets().remove(0);
    node.io().send(&1).await.unwrap();
    node.io().of("/").send(&(2, 2)).await.unwrap();
    node.io().compress(false).send(&3).await.unwrap();
    socket.send(&"4").await.unwrap();
    socket.compress(true).send(&5).await.unwrap();
    socket.volatile().send(&6).await.unwrap();
    socket.broadcast().send(&"not to itself").await.unwrap();
    socket.local().send(&"not to itself").await.unwrap();
    for wanted in ["1", "2,2", "3", r#""4""#, "5", "6"] {
        client.expect(&format!(r#"2["message",{wanted}]"#)).await;
    }
    client.send(r#"2["message",[7]]"#).await;
    client.expect(r#"2["message-back",[7]]"#).await;
}
