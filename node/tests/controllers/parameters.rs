//! What handlers are given, and what clients send to break them.

use flotilla::apps::controllers::{Error, State, controller};
use flotilla::server::{Args, Data, EventName, Io, NamespaceHandle, Session, Socket};
use flotilla::socketio::Binary;
use serde_json::{Value, json};

use crate::{connected, serve};

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
