//! `kill -9` of a follower, then of the leader, while messages flow: nothing acknowledged is lost,
//! doubled or out of order.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use cluster_tests::client::Client;
use cluster_tests::cluster::Cluster;
use cluster_tests::properties::{self, stretch};
use cluster_tests::traffic::{self, Talker, heard};

/// Two clients at one node: one that talks all the time, and one that only listens.
struct Table {
    node: String,
    talker: Talker,
    listener: Client,
}

// All are connected before the first one talks, so that each is to hear everything.
async fn seat(cluster: &Cluster) -> Vec<Table> {
    let mut seats = Vec::new();
    for node in cluster.ids() {
        let talker = cluster.client(&node, "/").await;
        let listener = cluster.client(&node, "/").await;
        seats.push((node, talker, listener));
    }
    let start = |(node, talker, listener)| {
        let talker = Talker::start(&format!("talker at {node}"), talker);
        Table { node, talker, listener }
    };
    seats.into_iter().map(start).collect()
}

#[tokio::test]
async fn acknowledged_messages_survive_a_follower_and_then_the_leader() {
    survive_a_follower_and_then_the_leader("fsync").await;
}

/// Followers know of most commits by themselves.
#[tokio::test]
async fn acknowledged_messages_survive_a_follower_and_then_the_leader_where_nothing_is_synced() {
    survive_a_follower_and_then_the_leader("os").await;
}

async fn survive_a_follower_and_then_the_leader(durability: &str) {
    let mut cluster = Cluster::builder(3).durability(durability).start().await;
    let tables = seat(&cluster).await;
    let follower = cluster.follower().await;
    progress(&tables, &[]).await;

    cluster.kill(&follower);
    progress(&tables, &[&follower]).await;
    cluster.restart(&follower).await;
    // Someone who comes later hears all from then on.
    let late = cluster.client(&follower, "/").await;
    progress(&tables, &[&follower]).await;

    let leader = cluster.leader().await;
    cluster.kill(&leader);
    progress(&tables, &[&follower, &leader]).await;
    cluster.restart(&leader).await;
    progress(&tables, &[&follower, &leader]).await;

    let (mut sent, mut always, mut sometimes) = (Vec::new(), Vec::new(), Vec::new());
    sometimes.push(("late".to_owned(), late));
    for Table { node, talker, listener } in tables {
        let (talker, its_sent) = talker.stop().await;
        sent.extend(its_sent);
        let lasting = node != follower && node != leader;
        let group = if lasting { &mut always } else { &mut sometimes };
        group.push((format!("talker at {node}"), talker));
        group.push((format!("listener at {node}"), listener));
    }
    let listeners: Vec<&Client> = always.iter().map(|(_, client)| client).collect();
    traffic::last_word(listeners[0], &listeners).await;

    let whole: Vec<_> = always.iter().map(|(name, client)| heard(name, client)).collect();
    properties::assert_kept(&sent, &whole);
    for (name, client) in &sometimes {
        let part = heard(name, client);
        assert!(!part.labels.is_empty(), "{name} was there for a while");
        stretch::check(&part, &whole[0]).unwrap_or_else(|gap| panic!("{gap}"));
    }
}

// Waits until each talker whose node was never killed has been acknowledged some more.
async fn progress(tables: &[Table], victims: &[&str]) {
    for table in tables.iter().filter(|table| !victims.contains(&table.node.as_str())) {
        table.talker.progress(50).await;
    }
}
