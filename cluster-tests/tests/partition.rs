//! A node that is cut off from the others: nothing it acknowledges is lost, and it heals.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use cluster_tests::cluster::Cluster;
use cluster_tests::properties::{self, stretch};
use cluster_tests::traffic::{self, Sent, Talker, heard};
use cluster_tests::wait;

#[tokio::test]
async fn a_leader_that_is_cut_off_acknowledges_nothing_that_is_lost() {
    cut_off_a_leader("fsync").await;
}

/// Followers know of most commits by themselves.
#[tokio::test]
async fn a_leader_that_is_cut_off_acknowledges_nothing_that_is_lost_where_nothing_is_synced() {
    cut_off_a_leader("os").await;
}

async fn cut_off_a_leader(durability: &str) {
    let mut cluster = Cluster::builder(3).proxied().durability(durability).start().await;
    let leader = cluster.leader().await;
    let others: Vec<String> = cluster.ids().into_iter().filter(|id| *id != leader).collect();
    let [ann, bob, cat] = [&others[0], &leader, &others[1]].map(|node| cluster.client(node, "/"));
    let (ann, bob, cat) = tokio::join!(ann, bob, cat);
    let (ann, bob) = (Talker::start("ann", ann), Talker::start("bob", bob));
    ann.progress(50).await;
    bob.progress(50).await;

    cluster.links().isolate(&leader, &others);
    // The majority elects another leader and goes on.
    ann.progress(50).await;
    wait::until("the cut off node to say that it is not ready", async || {
        cluster.ready(&leader).await.err().ok_or("ready")
    })
    .await;

    cluster.links().heal();
    cluster.wait_all_ready().await;
    ann.progress(20).await;
    let (ann, sent_by_ann) = ann.stop().await;
    let (bob, sent_by_bob) = bob.stop().await;
    traffic::last_word(&ann, &[&ann, &cat]).await;
    let sent: Vec<Sent> = sent_by_ann.into_iter().chain(sent_by_bob).collect();
    let whole = heard("cat", &cat);
    properties::assert_kept(&sent, &[heard("ann", &ann), whole.clone()]);
    // Bob's connection may have been closed; what he heard until then has no gap.
    stretch::check(&heard("bob", &bob), &whole).unwrap_or_else(|gap| panic!("{gap}"));
}
