//! The relay's verbs on one node, over both transports, in both namespaces.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use bytes::Bytes;
use cluster_tests::client::{Client, ConnectError, Transport};
use cluster_tests::cluster::Cluster;
use cluster_tests::traffic;
use serde_json::{Value, json};

#[tokio::test]
async fn every_verb_works_over_every_transport() {
    let cluster = Cluster::start(1).await;
    let url = cluster.url("n1");
    for namespace in ["/", "/relay-direct"] {
        for transport in [Transport::WebSocket, Transport::Polling] {
            let builder = Client::builder(&url).namespace(namespace).transport(transport);
            let ann = builder.clone().connect().await.unwrap();
            let bob = builder.connect().await.unwrap();
            echoes(&ann).await;
            rooms(&ann, &bob).await;
            sessions(&ann, &bob).await;
            ann.disconnect().await;
            traffic::expect_room("den", &[&bob], &[]).await;
            bob.disconnect().await;
        }
    }
}

async fn echoes(ann: &Client) {
    let data = json!({"text": "käse ✓ \u{1f40b}", "n": [1, 2.5, -3.5e-9, null, true], "": {}});
    let answer = ann.call("echo", &[data.clone(), json!("second")]).await.unwrap();
    assert_eq!(answer, [data, json!("second")]);

    let placeholder = |num: u64| json!({"_placeholder": true, "num": num});
    let arguments = [json!({"deep": [placeholder(0)]}), placeholder(1)];
    let attachments = vec![Bytes::from_static(&[0, 1, 255]), Bytes::from_static(b"")];
    let answer = ann.call_binary("echo", &arguments, attachments.clone()).await.unwrap();
    assert_eq!(answer.arguments, arguments);
    assert_eq!(answer.attachments, attachments);
}

async fn rooms(ann: &Client, bob: &Client) {
    let den = json!("den");
    ann.confirm("join", std::slice::from_ref(&den)).await.unwrap();
    traffic::expect_room("den", &[ann, bob], &[ann]).await;
    bob.confirm("room", &[den.clone(), json!("to the den")]).await.unwrap();
    assert_eq!(ann.wait_received("msg", 1).await, [json!("to the den")]);

    bob.confirm("join", std::slice::from_ref(&den)).await.unwrap();
    traffic::expect_room("den", &[ann, bob], &[ann, bob]).await;
    bob.confirm("leave", &[den]).await.unwrap();
    traffic::expect_room("den", &[ann, bob], &[ann]).await;

    bob.confirm("dm", &[json!(ann.id()), json!("to you")]).await.unwrap();
    bob.confirm("bcast", &[json!("to all")]).await.unwrap();
    let all = ann.wait_received("msg", 3).await;
    assert_eq!(all[1..], [json!("to you"), json!("to all")]);
    assert_eq!(bob.wait_received("msg", 1).await, [json!("to all")]);
}

async fn sessions(ann: &Client, bob: &Client) {
    ann.confirm("login", &[json!("ann")]).await.unwrap();
    bob.confirm("login", &[json!("bob")]).await.unwrap();
    let before = (ann.received("msg").len(), bob.received("msg").len());
    ann.confirm("tell", &[json!({"username": "bob"}), json!("psst")]).await.unwrap();
    ann.confirm("tell", &[json!({"username": 1}), json!("nobody")]).await.unwrap();
    ann.confirm("bcast", &[json!("end")]).await.unwrap();
    let of_bob: Vec<Value> = bob.wait_received("msg", before.1 + 2).await;
    assert_eq!(of_bob[before.1..], [json!("psst"), json!("end")]);
    let of_ann: Vec<Value> = ann.wait_received("msg", before.0 + 1).await;
    assert_eq!(of_ann[before.0..], [json!("end")]);
}

#[tokio::test]
async fn an_unknown_namespace_is_refused() {
    let cluster = Cluster::start(1).await;
    let refused = Client::builder(&cluster.url("n1")).namespace("/nowhere").connect().await;
    let Err(ConnectError::Refused(reason)) = refused else { panic!("{refused:?}") };
    assert_eq!(reason, json!({"message": "Invalid namespace"}));
}
