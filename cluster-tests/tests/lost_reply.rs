//! A follower does not hear that what it proposed is committed, and proposes it again: it is delivered exactly once.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use cluster_tests::client::EmitError;
use cluster_tests::cluster::Cluster;
use cluster_tests::proxy::Flow;
use cluster_tests::{traffic, wait};
use serde_json::{Value, json};

#[tokio::test]
async fn a_message_whose_reply_was_lost_comes_exactly_once() {
    // It hears nothing from the leader for two seconds, and is not to be given up for that.
    let builder = Cluster::builder(3)
        .proxied()
        .setting(&["cluster", "lease"], "10s")
        .setting(&["raft", "election_timeout_min"], "3s")
        .setting(&["raft", "election_timeout_max"], "5s");
    let cluster = builder.start().await;
    let (leader, follower) = cluster.roles().await;
    let ann = cluster.client(&follower, "/").await;
    let bob = cluster.client(&leader, "/").await;
    for number in 0..3 {
        lose_one_reply(&cluster, [&follower, &leader], [&ann, &bob], &json!(number)).await;
    }
    traffic::last_word(&ann, &[&ann, &bob]).await;
    let expected: Vec<Value> = (0..3).map(Value::from).collect();
    assert_eq!(ann.received("msg")[..3], expected);
    assert_eq!(bob.received("msg")[..3], expected);
    assert_eq!((ann.received("msg").len(), bob.received("msg").len()), (4, 4));
}

async fn lose_one_reply(
    cluster: &Cluster,
    [follower, leader]: [&str; 2],
    [ann, bob]: [&cluster_tests::client::Client; 2],
    word: &Value,
) {
    let links = cluster.links();
    let repeated = async || {
        let metrics = cluster.metrics(follower).await.unwrap();
        metrics.sum("flotilla_raft_proposals_repeated_total")
    };
    let before = repeated().await;
    // Of what is committed a follower hears by the log alone, and the leader brings it.
    links.requests(leader, follower, Flow::Hold);
    let say = ann.confirm("bcast", std::slice::from_ref(word));
    let lose = async {
        // Bob is at the leader: when he hears it, it is committed.
        wait::until("the message to be committed and proposed again", async || {
            let heard = bob.received("msg").contains(word);
            let again = repeated().await > before;
            wait::holds(heard && again, (heard, again))
        })
        .await;
        links.heal();
    };
    let (said, ()) = tokio::join!(say, lose);
    // The emit may give up waiting; what it must not do is to be delivered again.
    let honest = match &said {
        Ok(()) => true,
        Err(EmitError::Refused(reason)) => reason == "Timeout",
        Err(EmitError::Lost | EmitError::TimedOut) => false,
    };
    assert!(honest, "{said:?}");
    wait::until("the link to work again", async || {
        let probe = ann.confirm("join", &[json!("probe")]).await;
        wait::holds(probe.is_ok(), probe)
    })
    .await;
}
