//! Two of three nodes are gone: honest answers, living connections, and healing.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use cluster_tests::client::{Client, ConnectError, EmitError};
use cluster_tests::cluster::Cluster;
use cluster_tests::{traffic, wait};
use serde_json::json;

#[tokio::test]
async fn without_a_quorum_clients_stay_and_are_told_and_it_heals() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    for last in [cluster.follower().await, leader] {
        lose_all_but(&mut cluster, &last).await;
    }
}

async fn lose_all_but(cluster: &mut Cluster, last: &str) {
    let ann = cluster.client(last, "/").await;
    let bob = cluster.client(last, "/relay-direct").await;
    ann.confirm("join", &[json!("kept")]).await.unwrap();
    let others: Vec<String> = cluster.ids().into_iter().filter(|id| id != last).collect();
    others.iter().for_each(|id| cluster.kill(id));

    let verbs = [
        ("bcast", vec![json!("x")]),
        ("join", vec![json!("x")]),
        ("leave", vec![json!("kept")]),
        ("room", vec![json!("kept"), json!("x")]),
        ("dm", vec![json!(ann.id()), json!("x")]),
        ("login", vec![json!("x")]),
        ("tell", vec![json!({"username": "x"}), json!("x")]),
    ];
    for (event, arguments) in verbs {
        wait::until(&format!("{event} to fail with NoQuorum"), async || {
            match ann.confirm(event, &arguments).await {
                Err(EmitError::Refused(reason)) if reason == "NoQuorum" => Ok(()),
                other => Err(other),
            }
        })
        .await;
    }
    wait::until("readyz to say 503", async || match cluster.ready(last).await {
        Err(reason) if reason.starts_with("503") => Ok(()),
        other => Err(other),
    })
    .await;
    // What needs no agreement goes on, for those who are connected.
    assert!(ann.is_connected() && bob.is_connected());
    assert_eq!(ann.call("echo", &[json!("still here")]).await.unwrap(), [json!("still here")]);
    bob.confirm("bcast", &[json!("direct")]).await.unwrap();
    assert_eq!(bob.wait_received("msg", 1).await, [json!("direct")]);
    // New ones are sent elsewhere.
    match Client::connect(&cluster.url(last)).await {
        Err(ConnectError::Http(503, _)) => {}
        other => panic!("a new handshake gets 503, not {other:?}"),
    }

    others.iter().for_each(|id| cluster.start_node(id));
    cluster.wait_all_ready().await;
    let cat = cluster.client(last, "/").await;
    let dan = cluster.client(&others[0], "/").await;
    traffic::last_word(&cat, &[&cat, &dan]).await;
    traffic::last_word(&dan, &[&cat, &dan]).await;
}
