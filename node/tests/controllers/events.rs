//! Several handlers for one event, and the sequence that each goes through.

use flotilla::apps::controllers::{
    Error, Invocation, Output, Reply, Sequence, SocketServer, State, controller,
};
use flotilla::server::{Ack, EventName, Io};

use crate::acks::Main;
use crate::common::{start, until};
use crate::{Gate, Notes, connected, serve};

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
