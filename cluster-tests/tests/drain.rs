//! SIGTERM ends a node in good order, and no acknowledged message is lost by it.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use cluster_tests::cluster::Cluster;
use cluster_tests::properties;
use cluster_tests::traffic::{self, Talker, heard};
use serde_json::{Value, json};
use tokio::time::Instant;

#[tokio::test]
async fn a_node_that_is_terminated_exits_with_zero_while_messages_flow() {
    let mut cluster = Cluster::start(3).await;
    let (leader, stays) = cluster.roles().await;
    let [ann, bob, cat] = [&stays, &leader, &stays].map(|node| cluster.client(node, "/"));
    let (ann, bob, cat) = tokio::join!(ann, bob, cat);
    let (ann, bob) = (Talker::start("ann", ann), Talker::start("bob", bob));
    ann.progress(50).await;
    bob.progress(50).await;

    let status = cluster.terminate(&leader).await;
    assert_eq!(status.code(), Some(0), "{}", cluster.logs());
    ann.progress(50).await;

    let (ann, sent_by_ann) = ann.stop().await;
    let (bob, sent_by_bob) = bob.stop().await;
    bob.closed().await;
    traffic::last_word(&ann, &[&ann, &cat]).await;
    let sent: Vec<_> = sent_by_ann.into_iter().chain(sent_by_bob).collect();
    properties::assert_kept(&sent, &[heard("ann", &ann), heard("cat", &cat)]);
}

#[tokio::test]
async fn a_whole_cluster_that_is_terminated_exits_with_zero() {
    let mut cluster = Cluster::start(3).await;
    let _ann = cluster.client("n1", "/").await;
    for id in cluster.ids() {
        let status = cluster.terminate(&id).await;
        assert_eq!(status.code(), Some(0), "{id}\n{}", cluster.logs());
    }
}

/// Nodes that wait for answers of those that have ended take longer than this, every time. It is less than the
/// default `drain_timeout`, and several times what one needs.
const TOGETHER: Duration = Duration::from_secs(4);

#[tokio::test]
async fn nodes_that_are_terminated_together_do_not_wait_for_each_other() {
    let mut cluster = Cluster::start(3).await;
    let mut joined = 0;
    let mut took = [Duration::MAX; 2];
    for round in 0..6 {
        let mut clients = Vec::new();
        // In every other round nobody is there who would hold the nodes up.
        for id in cluster.ids().iter().filter(|_| round % 2 == 0) {
            let client = cluster.client(id, "/").await;
            client.confirm("join", &[json!("den")]).await.unwrap();
            joined += 1;
            clients.push(client);
        }
        let asked = Instant::now();
        for (id, status) in cluster.terminate_all().await {
            assert_eq!(status.code(), Some(0), "{id} in round {round}\n{}", cluster.logs());
        }
        took[round % 2] = took[round % 2].min(asked.elapsed());
        for id in cluster.ids() {
            cluster.start_node(&id);
        }
        cluster.wait_all_ready().await;
    }
    assert!(took.iter().all(|took| *took < TOGETHER), "{took:?}\n{}", cluster.logs());
    let late = cluster.client("n1", "/").await;
    late.confirm("join", &[json!("den")]).await.unwrap();
    cluster.terminate_all().await;
    let mut states: Vec<Value> = Vec::new();
    for id in cluster.ids() {
        states.push(cluster.inspect(&id).await);
    }
    let kept = |state: &&Value| state["applied_changes"]["join"] == joined + 1;
    let disks = states.iter().filter(kept).count();
    assert!(disks >= 2, "{joined} joins and a late one were acknowledged: {states:#?}");
}

/// Half of so short a time is for the clients: what the nodes settle must fit into the rest.
#[tokio::test]
async fn nodes_that_are_terminated_together_end_well_in_a_short_time_too() {
    let mut cluster = Cluster::builder(3).setting(&["drain_timeout"], "10s").start().await;
    for round in 0..3 {
        for (id, status) in cluster.terminate_all().await {
            assert_eq!(status.code(), Some(0), "{id} in round {round}\n{}", cluster.logs());
        }
        for id in cluster.ids() {
            cluster.start_node(&id);
        }
        cluster.wait_all_ready().await;
    }
}
