//! What a broadcast costs, by the nodes' own counts: one encode, and no needless peer message.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use cluster_tests::client::Client;
use cluster_tests::cluster::Cluster;
use cluster_tests::{limits, traffic, wait};
use futures_util::future;
use serde_json::json;

const EMITS: usize = 100;

#[tokio::test]
async fn a_room_without_remote_members_costs_no_peer_message() {
    let cluster = Cluster::start(3).await;
    cluster.wait_peers().await;
    let ann = cluster.client("n1", "/relay-direct").await;
    let bob = cluster.client("n1", "/relay-direct").await;
    let remote = cluster.client("n2", "/relay-direct").await;
    for client in [&ann, &bob] {
        client.confirm("join", &[json!("den")]).await.unwrap();
    }

    // All members are at the node that emits. While it cannot prove its view fresh, it sends to all.
    wait::until("emits that cost nothing", async || {
        let alone = peer_messages_of_emits(&cluster, &ann, &bob).await;
        wait::holds(alone == 0.0, alone)
    })
    .await;

    // The same count moves when there is somebody to tell.
    remote.confirm("join", &[json!("den")]).await.unwrap();
    traffic::expect_room("den", &[&ann], &[&ann, &bob, &remote]).await;
    let told = peer_messages_of_emits(&cluster, &ann, &remote).await;
    assert!(told > 0.0);
}

#[tokio::test]
async fn followers_need_not_be_told_what_is_committed() {
    let cluster = Cluster::builder(3).durability("os").start().await;
    for id in cluster.ids() {
        let name = "flotilla_raft_early_commits_total";
        let client = cluster.client(&id, "/").await;
        // Again if another one leads meanwhile.
        wait::until("commits that only followers know of early", async || {
            let leader = cluster.leader().await;
            let before = cluster.metrics(&id).await.unwrap();
            for number in 0..EMITS {
                client.confirm("join", &[json!(number.to_string())]).await.unwrap();
            }
            let early = cluster.metrics(&id).await.unwrap().growth(&before, name);
            // How many depends on who is faster: the follower itself, or the leader's word.
            wait::holds((early > 0.0) == (id != leader), format!("{early} at {id}"))
        })
        .await;
    }
}

async fn peer_messages_of_emits(cluster: &Cluster, from: &Client, to: &Client) -> f64 {
    let name = "flotilla_peer_messages_sent_total";
    let before = cluster.metrics("n1").await.unwrap();
    assert!(before.has(name), "n1 counts its peer messages");
    let already = to.received("msg").len();
    for number in 0..EMITS {
        from.confirm("room", &[json!("den"), json!(number)]).await.unwrap();
    }
    to.wait_received("msg", already + EMITS).await;
    cluster.metrics("n1").await.unwrap().growth(&before, name)
}

#[tokio::test]
async fn a_broadcast_to_a_thousand_is_encoded_once_at_each_node() {
    limits::raise_open_files();
    // No heartbeat falls into the story: its packets would count as well.
    let builder = Cluster::builder(3).setting(&["engine", "ping_interval"], "600s");
    let cluster = builder.start().await;
    let ids = cluster.ids();
    for namespace in ["/", "/relay-direct"] {
        let connecting = (0..1000).map(|index| cluster.client(&ids[index % 3], namespace));
        let clients = future::join_all(connecting).await;
        cluster.wait_peers().await;
        let mut before = Vec::new();
        for id in &ids {
            before.push(cluster.metrics(id).await.unwrap());
        }
        clients[0].emit("bcast", &[json!("to all")]).await.unwrap();
        for client in &clients {
            client.wait_received("msg", 1).await;
        }
        for (id, before) in ids.iter().zip(&before) {
            let after = cluster.metrics(id).await.unwrap();
            let encodes = after.growth(before, "flotilla_encodes_total");
            let deliveries = after.growth(before, "flotilla_deliveries_total");
            assert_eq!(encodes, 1.0, "at {id} in {namespace}");
            assert!((333.0..=334.0).contains(&deliveries), "{deliveries} at {id} in {namespace}");
        }
    }
}
