//! Sessions belong to clients, not to nodes: they outlive sockets and nodes, lose no write, and end on all nodes.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use cluster_tests::client::{Client, ConnectError, EmitError};
use cluster_tests::cluster::{Builder, Cluster};
use cluster_tests::wait;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio_util::task::TaskTracker;

fn cluster() -> Builder {
    Cluster::builder(3)
        .setting(&["session", "sources"], vec!["auth"])
        .setting(&["session", "secrets"], vec!["of the test"])
        .setting(&["session", "index"], vec!["username"])
}

/// A client that shows what it was given before.
async fn with_token(cluster: &Cluster, node: &str, token: &str) -> Result<Client, ConnectError> {
    Client::builder(&cluster.url(node)).auth(json!({"session": token})).connect().await
}

async fn session(client: &Client) -> Value {
    client.call("session", &[]).await.unwrap().remove(0)
}

fn token(session: &Value) -> String {
    session["token"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn two_sockets_on_two_nodes_see_one_session() {
    let cluster = cluster().start().await;
    let ann = cluster.client("n1", "/").await;
    let shown = session(&ann).await;
    let twin = with_token(&cluster, "n2", &token(&shown)).await.unwrap();
    assert_eq!(session(&twin).await["id"], shown["id"]);
    ann.confirm("login", &["ann".into()]).await.unwrap();
    twin.confirm("increment", &["visits".into()]).await.unwrap();
    let both = json!({"username": "ann", "visits": 1});
    for client in [&ann, &twin] {
        wait::until("both writes", async || {
            let object = session(client).await["object"].take();
            wait::holds(object == both, object)
        })
        .await;
    }
    // Once a change is acknowledged, every later filtered packet sees it, on every node.
    let other = cluster.client("n3", "/").await;
    other.confirm("tell", &[json!({"username": "ann"}), "to both".into()]).await.unwrap();
    twin.confirm("login", &["bob".into()]).await.unwrap();
    other.confirm("tell", &[json!({"username": "ann"}), "to none".into()]).await.unwrap();
    other.confirm("tell", &[json!({"username": "bob"}), "to bob".into()]).await.unwrap();
    for client in [&ann, &twin] {
        assert_eq!(client.wait_received("msg", 2).await, [json!("to both"), json!("to bob")]);
    }
    assert_eq!(other.received("msg"), [] as [Value; 0]);
}

#[tokio::test]
async fn concurrent_changes_from_three_nodes_lose_none() {
    const CHANGES: usize = 200;
    let cluster = cluster().start().await;
    let first = cluster.client("n1", "/").await;
    let token = token(&session(&first).await);
    let mut clients = vec![first];
    for node in ["n2", "n3"] {
        clients.push(with_token(&cluster, node, &token).await.unwrap());
    }
    // All are on their way before the first answer is looked at.
    let key = [Value::from("count")];
    let changes = (0..CHANGES).map(|n| clients[n % clients.len()].confirm("increment", &key));
    for changed in join_all(changes).await {
        changed.unwrap();
    }
    for client in &clients {
        wait::until("every change", async || {
            let count = session(client).await["object"]["count"].clone();
            wait::holds(count == json!(CHANGES), count)
        })
        .await;
    }
}

#[tokio::test]
async fn session_survives_kill_of_its_node_with_all_that_was_acknowledged() {
    let mut cluster = cluster().start().await;
    let leader = cluster.leader().await;
    let ann = cluster.client(&leader, "/").await;
    let shown = session(&ann).await;
    let token = token(&shown);
    ann.confirm("login", &["ann".into()]).await.unwrap();
    let (counting, mut counted) = count_until_lost(ann);
    counted.wait_for(|count| *count >= 20).await.unwrap();
    cluster.kill(&leader);
    let acknowledged = counting.await.unwrap();

    for node in cluster.running() {
        let back = wait::until("a node that takes the client", async || {
            with_token(&cluster, &node, &token).await.map_err(|error| error.to_string())
        })
        .await;
        let now = session(&back).await;
        assert_eq!(now["id"], shown["id"]);
        assert_eq!(now["object"]["username"], json!("ann"));
        let count = now["object"]["count"].as_u64().unwrap();
        // The last one was on its way.
        assert!(count == acknowledged || count == acknowledged + 1, "{count} of {acknowledged}");
    }
    cluster.restart(&leader).await;
    let back = with_token(&cluster, &leader, &token).await.unwrap();
    assert_eq!(session(&back).await["id"], shown["id"]);
}

/// Counts, one at a time, until the connection is lost; and how many were acknowledged by then.
fn count_until_lost(
    client: Client,
) -> (tokio::task::JoinHandle<u64>, tokio::sync::watch::Receiver<u64>) {
    let (tell, counted) = tokio::sync::watch::channel(0);
    let counting = TaskTracker::new().spawn(async move {
        loop {
            match client.confirm("increment", &["count".into()]).await {
                Ok(()) => tell.send_modify(|count| *count += 1),
                Err(EmitError::Lost) => return *tell.borrow(),
                Err(error) => panic!("{error:?}"),
            }
        }
    });
    (counting, counted)
}

#[tokio::test]
async fn session_that_nobody_uses_ends_on_all_nodes() {
    let cluster = cluster().setting(&["session", "max_age"], "6s").start().await;
    let ann = cluster.client("n1", "/").await;
    ann.confirm("login", &["ann".into()]).await.unwrap();
    let shown = session(&ann).await;
    // In the grace of its age it is found again, by whatever node.
    drop(ann);
    let back = with_token(&cluster, "n3", &token(&shown)).await.unwrap();
    assert_eq!(session(&back).await["object"], json!({"username": "ann"}));
    drop(back);
    for node in cluster.ids() {
        wait::until("no session to be left", async || {
            let metrics = cluster.metrics(&node).await.map_err(|error| error.to_string())?;
            let sessions = metrics.sum("flotilla_sessions");
            wait::holds(sessions == 0.0, format!("{node}: {sessions}"))
        })
        .await;
    }
    for node in cluster.ids() {
        let back = with_token(&cluster, &node, &token(&shown)).await.unwrap();
        let now = session(&back).await;
        assert_ne!(now["id"], shown["id"], "a client does not choose its id");
        assert_eq!(now["object"], json!({}));
    }
}

#[tokio::test]
async fn forged_token_is_refused_by_every_node() {
    let cluster = cluster().start().await;
    let ann = cluster.client("n1", "/").await;
    let mut forged = token(&session(&ann).await);
    forged.truncate(forged.len() - 2);
    for node in cluster.ids() {
        let refused = with_token(&cluster, &node, &forged).await;
        let Err(ConnectError::Refused(error)) = refused else { panic!("{node} took it") };
        assert_eq!(error["data"], json!({"code": "BadSession"}));
    }
}
