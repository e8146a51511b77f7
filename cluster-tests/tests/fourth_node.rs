//! A fourth node joins by the same seeds while messages flow, and takes part in everything.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use cluster_tests::cluster::Cluster;
use cluster_tests::properties::{self, stretch};
use cluster_tests::traffic::{self, Talker, heard};

#[tokio::test]
async fn a_fourth_node_joins_a_running_cluster() {
    let mut cluster = Cluster::start(3).await;
    let bob = cluster.client("n2", "/").await;
    let ann = Talker::start("ann", cluster.client("n1", "/").await);
    ann.progress(20).await;

    let fourth = cluster.add_node().await;
    let metrics = cluster.metrics(&fourth).await.unwrap();
    assert_eq!(metrics.value(r#"flotilla_raft_role{role="learner"}"#), 1.0, "it has no vote");
    let cat = cluster.client(&fourth, "/").await;
    ann.progress(20).await;
    let dan = Talker::start("dan", cluster.client(&fourth, "/").await);
    dan.progress(20).await;
    ann.progress(20).await;

    let (ann, sent_by_ann) = ann.stop().await;
    let (dan, sent_by_dan) = dan.stop().await;
    traffic::last_word(&dan, &[&ann, &bob, &cat, &dan]).await;
    let sent: Vec<_> = sent_by_ann.into_iter().chain(sent_by_dan).collect();
    assert!(sent.iter().all(|sent| sent.outcome.is_ok()), "nothing failed: {sent:?}");
    let whole = heard("bob", &bob);
    properties::assert_kept(&sent, &[heard("ann", &ann), whole.clone()]);
    for (name, client) in [("cat", &cat), ("dan", &dan)] {
        stretch::check(&heard(name, client), &whole).unwrap_or_else(|gap| panic!("{gap}"));
    }

    for client in [&bob, &cat] {
        client.confirm("join", &["den".into()]).await.unwrap();
    }
    traffic::expect_room("den", &[&ann, &bob, &cat, &dan], &[&bob, &cat]).await;
}
