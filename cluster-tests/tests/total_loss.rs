//! `kill -9` of all nodes, and a new start: what was acknowledged is in the log.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use cluster_tests::client::Client;
use cluster_tests::cluster::Cluster;
use serde_json::{Value, json};

#[tokio::test]
async fn acknowledged_sessions_and_memberships_outlive_all_nodes() {
    outlive_all_nodes("fsync").await;
}

/// Followers know of most commits by themselves.
#[tokio::test]
async fn acknowledged_sessions_and_memberships_outlive_all_nodes_where_nothing_is_synced() {
    outlive_all_nodes("os").await;
}

async fn outlive_all_nodes(durability: &str) {
    let mut cluster = Cluster::builder(3).durability(durability).start().await;
    let names = ["ann", "bob", "cat", "dan", "eve", "fay"];
    let mut clients: Vec<Client> = Vec::new();
    for (name, id) in names.iter().zip(cluster.ids().iter().cycle()) {
        let client = cluster.client(id, "/").await;
        client.confirm("login", &[json!(name)]).await.unwrap();
        client.confirm("join", &[json!("den")]).await.unwrap();
        client.confirm("join", &[json!("attic")]).await.unwrap();
        client.confirm("leave", &[json!("attic")]).await.unwrap();
        clients.push(client);
    }
    let ids: Vec<String> = clients.iter().map(|client| client.id().to_owned()).collect();

    for id in cluster.ids() {
        cluster.kill(&id);
    }
    // What is known to be committed is on a majority of the disks. The very last change may not
    // be known as such yet; it is counted below.
    let states = inspect_all(&cluster).await;
    for id in &ids {
        expect_majority(&states, id, |state| rooms(state, id).contains(&"den".to_owned()));
    }

    for id in cluster.ids() {
        cluster.start_node(&id);
    }
    cluster.wait_all_ready().await;
    let late = cluster.client("n1", "/").await;
    late.confirm("login", &[json!("late")]).await.unwrap();
    for id in cluster.ids() {
        assert!(cluster.terminate(&id).await.success());
    }
    let states = inspect_all(&cluster).await;
    for name in names {
        expect_majority(&states, name, |state| has_session(state, name));
    }
    // Every change was acknowledged once, and is there once; the late one's login is one more.
    let counts =
        [("join", 2 * names.len()), ("leave", names.len()), ("session_put", names.len() + 1)];
    for (kind, count) in counts {
        expect_majority(&states, kind, |state| state["applied_changes"][kind] == count);
    }
}

async fn inspect_all(cluster: &Cluster) -> Vec<Value> {
    let mut states = Vec::new();
    for id in cluster.ids() {
        states.push(cluster.inspect(&id).await);
    }
    states
}

fn expect_majority(states: &[Value], what: &str, holds: impl Fn(&Value) -> bool) {
    let count = states.iter().filter(|state| holds(state)).count();
    assert!(count * 2 > states.len(), "{what} is right on {count} disks only: {states:#?}");
}

fn has_session(state: &Value, username: &str) -> bool {
    let sessions = state["sessions"].as_array().unwrap();
    sessions.iter().any(|session| session["value"]["username"] == username)
}

fn rooms(state: &Value, socket: &str) -> Vec<String> {
    let sockets = state["sockets"].as_array().unwrap();
    let found = sockets.iter().find(|row| row["id"] == socket);
    let rooms = found.and_then(|row| row["rooms"].as_array()).cloned().unwrap_or_default();
    rooms.iter().filter_map(|room| room.as_str().map(str::to_owned)).collect()
}
