//! `#[api]`: what an `impl` block exports is what clients are told, and what they call.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flotilla::apps::api::{Api, ApiError, ApiHandle, api};
use flotilla::server::{EmitError, Session, Socket};
use flotilla::socketio::Binary;
use serde_json::{Map, Value, json};

use common::client::Client;
use common::{TestNode, start};

/// A result that is not spelled so.
type Outcome<T> = Result<T, String>;

struct Shop {
    sold: AtomicU64,
}

#[api]
impl Shop {
    #[export]
    const NAME: &'static str = "the shop";
    #[export]
    const RATES: [f64; 2] = [1.0, 2.5];
    const HIDDEN: u64 = 2;

    #[export]
    fn sum(a: f64, b: f64) -> f64 {
        a + b
    }

    #[export("sellMany")]
    async fn sell_many(&self, count: u64, r#type: Option<String>) -> (u64, String) {
        tokio::task::yield_now().await;
        let sold = self.sold.fetch_add(count, Ordering::Relaxed) + count;
        (sold, r#type.unwrap_or_else(|| "soup".to_owned()))
    }

    /// The session need not be the first.
    #[export]
    async fn rename(name: String, session: Session) -> Result<Arc<Map<String, Value>>, ApiError> {
        let renamed = session.update(move |session| {
            session.insert("username".to_owned(), name.clone().into());
        });
        renamed.await?;
        Ok(session.get())
    }

    #[export]
    async fn announce(shop: ApiHandle, _socket: Socket, news: Value) -> Result<(), EmitError> {
        shop.emit("news", &json!({"from": shop.name(), "news": news})).await
    }

    #[export]
    fn reverse(bytes: Binary, again: Option<Binary>) -> (Binary, usize) {
        let reversed = Binary(bytes.0.iter().rev().copied().collect());
        (reversed, again.map_or(0, |again| again.0.len()))
    }

    #[export]
    fn fail(text: String) -> Outcome<u64> {
        if text.is_empty() { Ok(Self::HIDDEN) } else { Err(text) }
    }

    #[export]
    fn nothing(&self) {}

    #[export]
    async fn panics() {
        panic!("as it shall");
    }
}

async fn shop() -> (TestNode, Client) {
    let node = start(|io| {
        let sold = AtomicU64::new(0);
        Api::new(io).register("shop", Shop { sold }).unwrap();
    })
    .await;
    let client = node.connect().await;
    (node, client)
}

async fn call(client: &mut Client, name: &str, arguments: &str, answer: &str) {
    client.send(&format!(r#"27["shop.{name}",{arguments}]"#)).await;
    client.expect(&format!("37{answer}")).await;
}

#[tokio::test]
async fn clients_are_told_what_is_exported_and_no_more() {
    let (_node, mut client) = shop().await;
    let function = |names: Value| json!({"type": "function", "value": names});
    let ready: Value = serde_json::from_str(&client.text().await[1..]).unwrap();
    let told = json!({
        "NAME": {"type": "constant", "value": "the shop"},
        "RATES": {"type": "constant", "value": [1, 2.5]},
        "sum": function(json!(["a", "b"])),
        "sellMany": function(json!(["count", "type"])),
        "rename": function(json!(["name"])),
        "announce": function(json!(["news"])),
        "reverse": function(json!(["bytes", "again"])),
        "fail": function(json!(["text"])),
        "nothing": function(json!([])),
        "panics": function(json!([])),
    });
    assert_eq!(ready, json!(["ready", {"shop": told}]));
}

#[tokio::test]
async fn arguments_are_found_by_their_names_and_the_rest_is_injected() {
    let (_node, mut client) = shop().await;
    client.text().await;
    call(&mut client, "sum", r#"{"b":2,"a":1,"__stack":"..."}"#, "[null,3]").await;
    call(&mut client, "sellMany", r#"{"count":3,"type":"tea"}"#, r#"[null,[3,"tea"]]"#).await;
    call(&mut client, "sellMany", r#"{"count":4}"#, r#"[null,[7,"soup"]]"#).await;
    call(&mut client, "rename", r#"{"name":"ann"}"#, r#"[null,{"username":"ann"}]"#).await;
    call(&mut client, "nothing", "{}", "[null,null]").await;
    call(&mut client, "fail", r#"{"text":""}"#, "[null,2]").await;
}

#[tokio::test]
async fn handle_of_a_function_is_that_of_its_name() {
    let (_node, mut client) = shop().await;
    client.text().await;
    client.send(r#"2["_subscribeToEvent","shop.news",false]"#).await;
    client.send(r#"27["shop.announce",{"news":1}]"#).await;
    client.expect(r#"2["shop.news",{"from":"shop","news":1}]"#).await;
    client.expect("37[null,null]").await;
}

#[tokio::test]
async fn binary_arguments_come_as_attachments() {
    let (_node, mut client) = shop().await;
    client.text().await;
    let [first, second] = [0, 1].map(|num| json!({"_placeholder": true, "num": num}).to_string());
    client.send(&format!(r#"52-8["shop.reverse",{{"again":{second},"bytes":{first}}}]"#)).await;
    client.send_binary(&[1, 2, 3]).await;
    client.send_binary(&[4, 5]).await;
    client.expect(&format!("61-8[null,[{first},2]]")).await;
    client.expect_binary(&[3, 2, 1]).await;
}

#[tokio::test]
async fn errors_name_the_argument_and_panics_stay_inside() {
    let (_node, mut client) = shop().await;
    client.text().await;
    let message = |text: &str| json!([{"message": text}]).to_string();
    let missing = message(r#"the argument "b" is missing"#);
    call(&mut client, "sum", r#"{"a":1}"#, &missing).await;
    client.send(r#"27["shop.sum",{"a":"1","b":2}]"#).await;
    let wrong = client.text().await;
    assert!(wrong.contains(r#"the argument \"a\" is wrong: invalid type: string"#), "{wrong}");
    call(&mut client, "fail", r#"{"text":"no"}"#, &message("no")).await;
    call(&mut client, "panics", "{}", &message("internal error")).await;
    call(&mut client, "HIDDEN", "{}", &message("No such method")).await;
    call(&mut client, "NAME", "{}", &message("Call on non-function")).await;
    call(&mut client, "sum", "[1,2]", &message("the arguments are missing")).await;
}
