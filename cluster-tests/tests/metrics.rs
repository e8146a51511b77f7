//! What happens in a cluster shows in the metrics of its nodes, in their values and not in their names alone.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use cluster_tests::cluster::Cluster;
use cluster_tests::metrics::Metrics;
use cluster_tests::{traffic, wait};
use serde_json::json;

/// A node's metrics, once they are as `holds` wants them.
async fn metrics_when(cluster: &Cluster, node: &str, holds: impl Fn(&Metrics) -> bool) -> Metrics {
    wait::until(&format!("the metrics of {node}"), async || {
        let metrics = cluster.metrics(node).await.map_err(|error| error.to_string())?;
        if holds(&metrics) { Ok(metrics) } else { Err(format!("{metrics:?}")) }
    })
    .await
}

#[tokio::test]
async fn what_clients_do_and_nodes_agree_on_is_shown() {
    let mut cluster = Cluster::start(3).await;
    cluster.wait_peers().await;
    let (leader, follower) = cluster.roles().await;
    let ann = cluster.client(&follower, "/").await;
    let bob = cluster.client(&leader, "/").await;
    // Then the follower knows of both.
    traffic::last_word(&bob, &[&ann]).await;
    let before = cluster.metrics(&follower).await.unwrap();
    assert_eq!(before.sum("flotilla_connections"), 1.0);
    assert_eq!(before.sum("flotilla_sockets"), 1.0);
    assert_eq!(before.sum("flotilla_peers_up"), 2.0);
    assert_eq!(before.value(r#"flotilla_raft_role{role="follower"}"#), 1.0);
    assert_eq!(before.value(r#"flotilla_raft_role{role="leader"}"#), 0.0);

    // Rooms are the cluster's: each socket's own, and one more.
    let rooms = before.sum("flotilla_rooms");
    bob.confirm("join", &[json!("den")]).await.unwrap();
    metrics_when(&cluster, &follower, |now| now.sum("flotilla_rooms") == rooms + 1.0).await;

    ann.confirm("bcast", &[json!("hello")]).await.unwrap();
    traffic::last_word(&ann, &[&ann, &bob]).await;
    let after = metrics_when(&cluster, &follower, |now| {
        now.sum("flotilla_raft_applied_index") == now.sum("flotilla_raft_commit_index")
            && now.growth(&before, "flotilla_raft_applied_index") >= 3.0
    })
    .await;
    for (name, least) in [
        // The bcast and the last word, and what answers them.
        ("flotilla_packets_received_total", 2.0),
        ("flotilla_packets_sent_total", 3.0),
        ("flotilla_received_bytes_total", 20.0),
        ("flotilla_sent_bytes_total", 20.0),
        ("flotilla_encodes_total", 2.0),
        ("flotilla_deliveries_total", 2.0),
        ("flotilla_raft_proposal_duration_seconds_count", 1.0),
        ("flotilla_delivery_delay_seconds_count", 2.0),
    ] {
        assert!(after.growth(&before, name) >= least, "{name}: {}", after.growth(&before, name));
    }
    assert!(after.sum("flotilla_delivery_delay_seconds_sum") > 0.0);

    // A direct packet to another node's socket is a message to that node.
    let direct = [
        cluster.client(&follower, "/relay-direct").await,
        cluster.client(&leader, "/relay-direct").await,
    ];
    let sent = cluster.metrics(&follower).await.unwrap();
    let received = cluster.metrics(&leader).await.unwrap();
    traffic::last_word(&direct[0], &[&direct[0], &direct[1]]).await;
    metrics_when(&cluster, &follower, |now| {
        now.growth(&sent, "flotilla_peer_messages_sent_total") >= 1.0
            && now.growth(&sent, "flotilla_peer_sent_bytes_total") >= 10.0
            && now.sum("flotilla_peer_queue_bytes") == 0.0
    })
    .await;
    metrics_when(&cluster, &leader, |now| {
        now.growth(&received, "flotilla_peer_messages_received_total") >= 1.0
    })
    .await;

    let (leader, follower) = cluster.roles().await;
    let before = cluster.metrics(&follower).await.unwrap();
    let (term, changes) =
        (before.sum("flotilla_raft_term"), before.sum("flotilla_raft_leader_changes_total"));
    cluster.kill(&leader);
    metrics_when(&cluster, &follower, |now| {
        now.sum("flotilla_raft_term") > term
            && now.sum("flotilla_raft_leader_changes_total") > changes
            && now.sum("flotilla_peers_up") == 1.0
    })
    .await;
}
