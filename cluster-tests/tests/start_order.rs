//! Nodes start in any order and become exactly one cluster.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use cluster_tests::cluster::Cluster;
use cluster_tests::{traffic, wait};

#[tokio::test]
async fn nodes_become_one_cluster_whoever_comes_first() {
    for order in [["n1", "n2", "n3"], ["n3", "n1", "n2"], ["n2", "n3", "n1"]] {
        let mut cluster = Cluster::builder(3).prepare().unwrap();
        cluster.start_node(order[0]);
        // One of three is no majority: it serves probes and says that it is not ready.
        wait::until("the first node to answer 503", async || match cluster.ready(order[0]).await {
            Err(reason) if reason.starts_with("503") => Ok(()),
            other => Err(other),
        })
        .await;
        cluster.start_node(order[1]);
        cluster.start_node(order[2]);
        cluster.wait_all_ready().await;
        expect_one(&cluster).await;
    }
}

#[tokio::test]
async fn nodes_that_start_at_once_become_one_cluster() {
    let cluster = Cluster::start(3).await;
    expect_one(&cluster).await;
}

// One leader, and what one says all hear, in one order: two clusters could not do that.
async fn expect_one(cluster: &Cluster) {
    cluster.leader().await;
    let mut clients = Vec::new();
    for id in cluster.ids() {
        clients.push(cluster.client(&id, "/").await);
    }
    let all: Vec<_> = clients.iter().collect();
    for client in &clients {
        traffic::last_word(client, &all).await;
    }
    let first = clients[0].received("msg");
    assert!(clients.iter().all(|client| client.received("msg") == first));
    for client in &clients {
        client.confirm("join", &["den".into()]).await.unwrap();
    }
    traffic::expect_room("den", &all, &all).await;
}
