//! A node that the others gave up while its clients stayed connected: once it heals it has their
//! sockets again, on the connections that they have, and they have every message once and in order.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use cluster_tests::client::Client;
use cluster_tests::cluster::Cluster;
use cluster_tests::properties;
use cluster_tests::traffic::{self, Talker, heard};
use cluster_tests::wait;
use serde_json::{Value, json};

const NAMESPACE: &str = "/recoverable";

/// How a node is lost to the others, though it has not ended.
#[derive(Clone, Copy)]
enum Fault {
    /// It does nothing for longer than its lease.
    Frozen,
    /// It runs, and reaches nobody.
    CutOff,
}

#[tokio::test]
async fn clients_of_a_frozen_follower_stay_connected_and_miss_nothing() {
    let cluster = start().await;
    let victim = cluster.follower().await;
    lose_and_heal(cluster, &victim, Fault::Frozen).await;
}

#[tokio::test]
async fn clients_of_a_frozen_leader_stay_connected_and_miss_nothing() {
    let cluster = start().await;
    let victim = cluster.leader().await;
    lose_and_heal(cluster, &victim, Fault::Frozen).await;
}

#[tokio::test]
async fn clients_of_a_follower_that_was_cut_off_stay_connected_and_miss_nothing() {
    let cluster = start().await;
    let victim = cluster.follower().await;
    lose_and_heal(cluster, &victim, Fault::CutOff).await;
}

#[tokio::test]
async fn clients_of_a_leader_that_was_cut_off_stay_connected_and_miss_nothing() {
    let cluster = start().await;
    let victim = cluster.leader().await;
    lose_and_heal(cluster, &victim, Fault::CutOff).await;
}

#[tokio::test]
async fn client_that_came_back_elsewhere_has_its_socket_there() {
    let mut cluster = start().await;
    let victim = cluster.follower().await;
    let other = others(&cluster, &victim).remove(0);
    let ann = cluster.client(&other, NAMESPACE).await;
    let old = cluster.client(&victim, NAMESPACE).await;
    traffic::last_word(&ann, &[&old]).await;
    lose(&mut cluster, &victim, Fault::Frozen, 1).await;

    let offset = old.events()[0].arguments.last().cloned();
    let auth = json!({ "pid": old.pid(), "offset": offset });
    let new = Client::builder(&cluster.url(&other)).namespace(NAMESPACE).auth(auth).connect();
    let new = new.await.unwrap();
    assert_eq!(new.id(), old.id());

    heal(&mut cluster, &victim, Fault::Frozen).await;
    old.closed().await;
    assert!(new.is_connected());
    let word = json!("to the one who is back");
    ann.confirm("dm", &[new.id().into(), word.clone()]).await.unwrap();
    assert_eq!(new.wait_received("msg", 1).await, [word]);
}

async fn start() -> Cluster {
    let recovery = toml::Table::from_iter([("max_age".to_owned(), toml::Value::from("2m"))]);
    let builder = Cluster::builder(3).proxied();
    builder.setting(&["namespaces", NAMESPACE, "recovery"], recovery).start().await
}

fn others(cluster: &Cluster, victim: &str) -> Vec<String> {
    cluster.ids().into_iter().filter(|id| id != victim).collect()
}

/// Loses a node until the others have given it up, with so many recoverable sockets.
async fn lose(cluster: &mut Cluster, victim: &str, fault: Fault, sockets: usize) {
    let others = others(cluster, victim);
    match fault {
        Fault::Frozen => cluster.process(victim).pause(),
        Fault::CutOff => cluster.links().isolate(victim, &others),
    }
    expect_detached(cluster, &others, |detached| detached >= sockets).await;
}

/// Waits until each of the nodes knows of as many sockets that are nobody's as it should.
async fn expect_detached(cluster: &Cluster, nodes: &[String], is_right: impl Fn(usize) -> bool) {
    wait::until("the right number of sockets that are nobody's", async || {
        for id in nodes {
            let metrics = cluster.metrics(id).await.map_err(|error| error.to_string())?;
            let detached = metrics.sum("flotilla_detached_sockets") as usize;
            wait::holds(is_right(detached), format!("{id}: {detached}"))?;
        }
        Ok::<_, String>(())
    })
    .await;
}

async fn heal(cluster: &mut Cluster, victim: &str, fault: Fault) {
    match fault {
        Fault::Frozen => cluster.process(victim).resume(),
        Fault::CutOff => cluster.links().heal(),
    }
    expect_detached(cluster, &others(cluster, victim), |detached| detached == 0).await;
    cluster.wait_ready(victim).await;
}

async fn lose_and_heal(mut cluster: Cluster, victim: &str, fault: Fault) {
    let others = others(&cluster, victim);
    let ann = cluster.client(&others[0], NAMESPACE).await;
    let cat = cluster.client(&others[1], NAMESPACE).await;
    let bob = cluster.client(victim, NAMESPACE).await;
    let dan = cluster.client(victim, NAMESPACE).await;
    let plain = cluster.client(victim, "/").await;
    dan.confirm("join", &["den".into()]).await.unwrap();
    let (ann, bob) = (Talker::start("ann", ann), Talker::start("bob", bob));
    ann.progress(20).await;
    bob.progress(20).await;

    lose(&mut cluster, victim, fault, 2).await;
    ann.progress(40).await;
    let word = json!("to the den");
    cat.confirm("room", &["den".into(), word.clone()]).await.unwrap();
    heal(&mut cluster, victim, fault).await;
    ann.progress(20).await;
    bob.progress(20).await;
    dan.confirm("join", &["bar".into()]).await.unwrap();
    traffic::expect_room("den", &[&cat, &dan], &[&dan]).await;
    traffic::expect_room("bar", &[&cat, &dan], &[&dan]).await;

    let (ann, by_ann) = ann.stop().await;
    let (bob, by_bob) = bob.stop().await;
    traffic::last_word(&ann, &[&ann, &bob, &cat, &dan]).await;
    let everyone = [("ann", &ann), ("bob", &bob), ("cat", &cat), ("dan", &dan)];
    let sent: Vec<_> = by_ann.into_iter().chain(by_bob).collect();
    properties::assert_kept(&sent, &everyone.map(|(name, client)| heard(name, client)));
    for (name, client) in everyone {
        assert!(client.is_connected(), "{name} was disconnected");
        let words = client.received("msg").iter().filter(|said| **said == word).count();
        assert_eq!(words, usize::from(name == "dan"), "at {name}");
    }
    let renewed = cluster.metrics(victim).await.unwrap();
    let renewed = renewed.value("flotilla_recoveries_total{outcome=\"renewed\"}");
    assert!(renewed >= 2.0, "{renewed} sockets were renewed");

    // Nobody kept the socket of a namespace without recovery: its client must know.
    plain.closed().await;
    let back = cluster.client(victim, "/").await;
    assert_eq!(back.call("echo", &[Value::from(1)]).await.unwrap(), [1]);
}
