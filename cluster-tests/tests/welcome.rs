//! Clients of a direct namespace are let in before the cluster knows them, and miss nothing by it.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use cluster_tests::client::EmitError;
use cluster_tests::cluster::Cluster;
use cluster_tests::{traffic, wait};
use serde_json::json;

const DIRECT: &str = "/relay-direct";
const ROUNDS: usize = 30;

#[tokio::test]
async fn who_has_just_come_is_reached_from_every_node_and_knows_itself() {
    let cluster = Cluster::start(3).await;
    cluster.wait_peers().await;
    let ann = cluster.client("n1", DIRECT).await;
    for round in 0..ROUNDS {
        let node = ["n1", "n2", "n3"][round % 3];
        // The only one at its node, but for n1.
        let bob = cluster.client(node, DIRECT).await;
        let words = [json!(["to you", round]), json!(["to all", round])];
        ann.confirm("dm", &[json!(bob.id()), words[0].clone()]).await.unwrap();
        ann.confirm("bcast", &[words[1].clone()]).await.unwrap();
        wait::until("both words", async || {
            let mut heard = bob.received("msg");
            // A node that was behind may have let bob in before the last round's.
            heard.retain(|word| word[1] == json!(round));
            wait::holds(heard == words, heard)
        })
        .await;
        let cat = cluster.client(node, DIRECT).await;
        let found = cat.call("who", &[json!(cat.id())]).await.unwrap();
        assert_eq!(found, [json!([cat.id()])], "at {node}");
        let dan = cluster.client(node, DIRECT).await;
        dan.confirm("join", &[json!("den")]).await.unwrap();
        traffic::expect_room("den", &[&dan, &ann], &[&dan]).await;
        for client in [bob, cat, dan] {
            client.disconnect().await;
        }
    }
}

#[tokio::test]
async fn events_that_follow_a_welcome_are_handled_in_their_order() {
    let cluster = Cluster::start(3).await;
    cluster.wait_peers().await;
    let ann = cluster.client("n2", DIRECT).await;
    let mut expected = Vec::new();
    for round in 0..ROUNDS {
        let bob = cluster.client("n2", DIRECT).await;
        for number in 0..200 {
            let data = json!([round, number]);
            bob.emit("dm", &[json!(ann.id()), data.clone()]).await.unwrap();
            expected.push(data);
        }
        assert_eq!(ann.wait_received("msg", expected.len()).await, expected);
        bob.disconnect().await;
    }
}

#[tokio::test]
async fn what_is_sent_before_leaving_at_once_is_handled() {
    let cluster = Cluster::start(3).await;
    cluster.wait_peers().await;
    let ann = cluster.client("n1", DIRECT).await;
    let mut expected = Vec::new();
    for round in 0..ROUNDS {
        let bob = cluster.client("n2", DIRECT).await;
        for number in 0..3 {
            let data = json!([round, number]);
            bob.emit("dm", &[json!(ann.id()), data.clone()]).await.unwrap();
            expected.push(data);
        }
        bob.disconnect().await;
        assert_eq!(ann.wait_received("msg", expected.len()).await, expected);
    }
}

#[tokio::test]
async fn who_leaves_at_once_leaves_nothing() {
    let cluster = Cluster::start(3).await;
    let ann = cluster.client("n1", DIRECT).await;
    let mut ids = Vec::new();
    for round in 0..ROUNDS * 3 {
        let bob = cluster.client(["n1", "n2", "n3"][round % 3], DIRECT).await;
        ids.push(bob.id().to_owned());
        bob.disconnect().await;
    }
    for id in &ids {
        traffic::expect_room(id, &[&ann], &[]).await;
    }
    traffic::expect_room(ann.id(), &[&ann], &[&ann]).await;
}

#[tokio::test]
async fn who_cannot_be_made_known_stays_and_is_made_known_later() {
    let mut cluster = Cluster::builder(3).setting(&["cluster", "lease"], "8s").start().await;
    let ann = cluster.client("n1", DIRECT).await;
    traffic::expect_room(ann.id(), &[&ann], &[&ann]).await;
    cluster.kill("n2");
    cluster.kill("n3");
    // Until its lease has run out the node hopes for the best, and that is much longer than a handshake.
    let bob = cluster.client("n1", DIRECT).await;
    let echoed = bob.call("echo", &[json!("anyone?")]).await.unwrap();
    assert_eq!(echoed, [json!("anyone?")], "once it is clear that nobody is there to agree");
    bob.confirm("bcast", &[json!("direct")]).await.unwrap();
    for client in [&ann, &bob] {
        assert_eq!(client.wait_received("msg", 1).await, [json!("direct")]);
    }
    let refused = bob.confirm("join", &[json!("den")]).await;
    assert!(matches!(refused, Err(EmitError::Refused(_))), "{refused:?}");

    cluster.start_node("n2");
    cluster.start_node("n3");
    cluster.wait_all_ready().await;
    let cat = cluster.client("n2", DIRECT).await;
    // The node may have been given up meanwhile, and then its clients have to come back.
    wait::until("the others to know of bob, or bob to know of it", async || {
        let found = cat.call("who", &[json!(bob.id())]).await;
        wait::holds(!bob.is_connected() || found == Ok(vec![json!([bob.id()])]), found)
    })
    .await;
    wait::until("both to be treated alike", async || {
        let connected = [ann.is_connected(), bob.is_connected()];
        wait::holds(connected[0] == connected[1], connected)
    })
    .await;
}
