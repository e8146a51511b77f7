//! SIGTERM ends a node in good order, and no acknowledged message is lost by it.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use cluster_tests::cluster::Cluster;
use cluster_tests::properties;
use cluster_tests::traffic::{self, Talker, heard};

#[tokio::test]
async fn a_node_that_is_terminated_exits_with_zero_while_messages_flow() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let stays = cluster.follower().await;
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
