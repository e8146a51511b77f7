//! What an ack holds: values, nothing, errors of every kind.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use flotilla::apps::controllers::{Error, controller};
use flotilla::metrics;
use serde::Serialize;
use serde_json::{Value, json};

use crate::common::until;
use crate::{connected, serve};

/// Answers, failures and nothing, as they go over the wire.
#[derive(Default)]
pub(crate) struct Main {
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
