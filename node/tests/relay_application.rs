//! What the relay, the application of a bare node, answers its clients.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::start_with;
use flotilla::config::App;
use serde_json::json;

#[tokio::test]
async fn increment_of_what_is_no_number_is_an_error_and_leaves_it() {
    let relay = |config: &mut flotilla::config::Config| config.apps = vec![App::Relay];
    let node = start_with("n1", Vec::new(), relay, |_io| {}).await;
    let mut client = node.connect().await;
    client.send(r#"21["login","ann"]"#).await;
    client.expect("31[]").await;
    let refused = client.call(&json!(["increment", "username"])).await;
    assert_eq!(refused["error"], "NotANumber", "{refused}");
    for _ in 0..2 {
        client.send(r#"22["increment","visits"]"#).await;
        client.expect("32[]").await;
    }
    let session = client.call(&json!(["session"])).await;
    assert_eq!(session["object"], json!({"username": "ann", "visits": 2}));
    drop(client);
    node.node.drain().await.unwrap();
}
