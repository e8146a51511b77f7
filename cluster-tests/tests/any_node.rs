//! Polls, posts and upgrades that reach another node than their connection's, and the deaths of
//! either node.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use bytes::Bytes;
use cluster_tests::client::Client;
use cluster_tests::cluster::Cluster;
use cluster_tests::http;
use cluster_tests::traffic::{self, Talker, heard};
use cluster_tests::{properties, wait};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::task::TaskTracker;

/// An owner that is out of reach is given up after one second; a busy machine takes longer.
const GIVEN_UP_AFTER: Duration = LEASE.checked_div(2).unwrap();

const LEASE: Duration = Duration::from_secs(30);

const UNKNOWN: (u16, &str) = (400, r#"{"code":1,"message":"Session ID unknown"}"#);

/// One Engine.IO connection, request by request.
struct Connection {
    query: String,
}

impl Connection {
    /// Opens one that `owner` owns, and joins the main namespace.
    async fn open(cluster: &Cluster, owner: &str) -> Self {
        let url = format!("{}/socket.io/?EIO=4&transport=polling", cluster.url(owner));
        let answer = http::get(&url).await.unwrap();
        let open: Value = serde_json::from_str(&answer.body[1..]).unwrap();
        let query = format!("EIO=4&sid={}", open["sid"].as_str().unwrap());
        let connection = Self { query };
        assert_eq!(connection.post(cluster, owner, "40").await.1, "ok");
        let (status, body) = connection.poll(cluster, owner).await;
        assert!(status == 200 && body.starts_with("40{"), "{status} {body}");
        connection
    }

    fn url(&self, cluster: &Cluster, node: &str) -> String {
        format!("{}/socket.io/?transport=polling&{}", cluster.url(node), self.query)
    }

    async fn poll(&self, cluster: &Cluster, node: &str) -> (u16, String) {
        let answer = http::get(&self.url(cluster, node)).await.unwrap();
        (answer.status.as_u16(), answer.body)
    }

    async fn post(&self, cluster: &Cluster, node: &str, body: &str) -> (u16, String) {
        let answer = http::post(&self.url(cluster, node), body.to_owned()).await.unwrap();
        (answer.status.as_u16(), answer.body)
    }

    /// Polls in a task, and returns once the owner has the request.
    async fn begin_poll(
        &self,
        cluster: &Cluster,
        node: &str,
    ) -> tokio::task::JoinHandle<Option<(u16, String)>> {
        let before = relayed(cluster, node).await;
        let url = self.url(cluster, node);
        let poll = TaskTracker::new().spawn(async move {
            let answer = http::get(&url).await.ok()?;
            Some((answer.status.as_u16(), answer.body))
        });
        wait::until("the poll to be relayed", async || {
            let now = relayed(cluster, node).await;
            wait::holds(now > before, now)
        })
        .await;
        // What the same node relays after it has been there, too.
        assert_eq!(self.post(cluster, node, "3").await.1, "ok");
        poll
    }

    /// Upgrades through `node`, no poll being open.
    async fn upgrade(&self, cluster: &Cluster, node: &str) -> WebSocketStream<TcpStream> {
        let authority = cluster.url(node).trim_start_matches("http://").to_owned();
        let stream = TcpStream::connect(&authority).await.unwrap();
        let url = format!("ws://{authority}/socket.io/?transport=websocket&{}", self.query);
        let (mut stream, _) = tokio_tungstenite::client_async(url, stream).await.unwrap();
        stream.send(Message::text("2probe")).await.unwrap();
        assert_eq!(stream.next().await.unwrap().unwrap(), Message::text("3probe"));
        stream.send(Message::text("5")).await.unwrap();
        stream.send(Message::text(r#"42["join","den"]"#)).await.unwrap();
        stream
    }
}

/// Its nodes do not answer for a moment, and are not to be given up for that.
async fn patient() -> Cluster {
    Cluster::builder(3)
        .setting(&["cluster", "lease"], format!("{}s", LEASE.as_secs()))
        .start()
        .await
}

async fn relayed(cluster: &Cluster, node: &str) -> f64 {
    cluster.metrics(node).await.unwrap().sum("flotilla_relays_to_owners")
}

#[tokio::test]
async fn a_client_that_roams_sends_and_hears_everything_once_and_in_order() {
    const COUNT: usize = 3000;
    let cluster = Cluster::start(3).await;
    cluster.wait_peers().await;
    let urls: Vec<_> = cluster.ids().iter().map(|id| cluster.url(id)).collect();
    let mut roamers = Vec::new();
    for owner in &urls {
        let builder = Client::builder(owner).roaming(urls.clone());
        roamers.push(builder.connect().await.unwrap());
    }
    let talker = Talker::start("talker", cluster.client("n2", "/").await);
    for n in 0..COUNT {
        let attachment = Bytes::copy_from_slice(&n.to_be_bytes());
        let placeholder = json!({"_placeholder": true, "num": 0});
        for roamer in &roamers {
            let data = [json!("den"), json!({"n": n, "bytes": placeholder})];
            if n == 0 {
                roamer.confirm("join", &[json!(roamer.id())]).await.unwrap();
            }
            let arguments = [json!(roamer.id()), data[1].clone()];
            roamer.emit_binary("room", &arguments, vec![attachment.clone()]).await.unwrap();
        }
    }
    talker.progress(50).await;
    let (talker, sent) = talker.stop().await;
    for roamer in &roamers {
        roamer.confirm("dm", &[json!(roamer.id()), json!("the end")]).await.unwrap();
    }
    let roamers_ref: Vec<_> = roamers.iter().collect();
    traffic::last_word(&talker, &roamers_ref).await;
    let mut all = Vec::new();
    for roamer in &roamers {
        assert!(roamer.is_connected());
        let numbered: Vec<_> = roamer
            .events()
            .into_iter()
            .filter(|event| event.arguments.first().is_some_and(|data| data.get("n").is_some()))
            .map(|event| (event.arguments[0]["n"].as_u64().unwrap(), event.attachments[0].clone()))
            .collect();
        let expected: Vec<_> =
            (0..COUNT as u64).map(|n| (n, Bytes::copy_from_slice(&n.to_be_bytes()))).collect();
        assert_eq!(numbered.len(), COUNT, "{}", roamer.id());
        assert!(numbered == expected, "{} heard its own out of order", roamer.id());
        all.push(heard(roamer.id(), roamer));
    }
    properties::assert_kept(&sent, &all);
}

#[tokio::test]
async fn the_death_of_a_relaying_node_ends_what_it_relayed_and_nothing_else() {
    let mut cluster = Cluster::start(3).await;
    cluster.wait_peers().await;
    let witness = cluster.client("n3", "/").await;
    let upgraded = Connection::open(&cluster, "n1").await;
    let _websocket = upgraded.upgrade(&cluster, "n2").await;
    let polling = Connection::open(&cluster, "n1").await;
    polling.post(&cluster, "n2", r#"42["join","den"]"#).await;
    let elsewhere = Connection::open(&cluster, "n1").await;
    elsewhere.post(&cluster, "n2", r#"42["join","den"]"#).await;
    wait::until("all to be in the room", async || {
        let there = traffic::who(&witness, "den").await?.len();
        wait::holds(there == 3, there.to_string())
    })
    .await;
    let lost = polling.begin_poll(&cluster, "n2").await;
    let kept = elsewhere.begin_poll(&cluster, "n3").await;

    cluster.kill("n2");
    assert_eq!(lost.await.unwrap(), None, "its stream broke");
    wait::until("one to be in the room", async || {
        let there = traffic::who(&witness, "den").await?.len();
        wait::holds(there == 1, there.to_string())
    })
    .await;
    witness.confirm("room", &[json!("den"), json!("still there")]).await.unwrap();
    assert_eq!(kept.await.unwrap().unwrap(), (200, r#"42["msg","still there"]"#.to_owned()));
    let answer = polling.poll(&cluster, "n3").await;
    assert_eq!((answer.0, &*answer.1), UNKNOWN);
}

#[tokio::test]
async fn the_death_of_an_owner_ends_its_connections_on_every_node_at_once() {
    let mut cluster = patient().await;
    cluster.wait_peers().await;
    let upgraded = Connection::open(&cluster, "n1").await;
    let mut websocket = upgraded.upgrade(&cluster, "n2").await;
    let polling = Connection::open(&cluster, "n1").await;
    let poll = polling.begin_poll(&cluster, "n3").await;

    let killed = Instant::now();
    cluster.kill("n1");
    let answer = poll.await.unwrap().unwrap();
    assert_eq!((answer.0, &*answer.1), UNKNOWN);
    let ended = tokio::time::timeout(wait::PATIENCE, websocket.next()).await.unwrap();
    assert!(!matches!(ended, Some(Ok(_))), "{ended:?}");
    for node in ["n2", "n3"] {
        let answer = polling.poll(&cluster, node).await;
        assert_eq!((answer.0, &*answer.1), UNKNOWN);
    }
    assert!(killed.elapsed() < GIVEN_UP_AFTER, "{:?}", killed.elapsed());

    // It comes back under its old id, and knows nothing of its old connections.
    cluster.restart("n1").await;
    cluster.wait_peers().await;
    let answer = polling.poll(&cluster, "n2").await;
    assert_eq!((answer.0, &*answer.1), UNKNOWN);
    let next = Connection::open(&cluster, "n1").await;
    assert_eq!(next.post(&cluster, "n2", r#"42["echo",1]"#).await.0, 200);
}

#[tokio::test]
async fn an_owner_that_does_not_answer_is_given_up_after_a_second() {
    let mut cluster = patient().await;
    cluster.wait_peers().await;
    let waiting = Connection::open(&cluster, "n1").await;
    let polling = Connection::open(&cluster, "n1").await;
    // So that the connection between the nodes is there, as it is as a rule.
    assert_eq!(polling.post(&cluster, "n2", r#"42["echo",1]"#).await.0, 200);
    let poll = waiting.begin_poll(&cluster, "n2").await;

    let paused = Instant::now();
    cluster.process("n1").pause();
    for node in ["n2", "n3"] {
        let asked = Instant::now();
        let answer = polling.poll(&cluster, node).await;
        assert_eq!((answer.0, &*answer.1), UNKNOWN);
        assert!(asked.elapsed() < GIVEN_UP_AFTER, "{node}: {:?}", asked.elapsed());
    }
    let answer = poll.await.unwrap().unwrap();
    assert_eq!((answer.0, &*answer.1), UNKNOWN);
    assert!(paused.elapsed() < 2 * GIVEN_UP_AFTER, "{:?}", paused.elapsed());

    cluster.process("n1").resume();
    cluster.wait_ready("n1").await;
    cluster.wait_peers().await;
    let next = Connection::open(&cluster, "n1").await;
    assert_eq!(next.post(&cluster, "n2", r#"42["echo",1]"#).await.0, 200);
    assert_eq!(next.poll(&cluster, "n3").await.0, 200);
}

/// A balancer may take a node that has just started for one that serves: it must not lose the connections of others.
#[tokio::test]
async fn a_node_that_has_just_started_passes_requests_on_once_it_knows_the_others() {
    let mut cluster = patient().await;
    cluster.wait_peers().await;
    let polling = Connection::open(&cluster, "n1").await;
    cluster.kill("n2");
    for other in ["n1", "n3"] {
        cluster.process(other).pause();
    }
    cluster.start_node("n2");
    wait::until("the node to listen", async || {
        let metrics = cluster.metrics("n2").await;
        wait::holds(metrics.is_ok(), format!("{metrics:?}"))
    })
    .await;
    let url = polling.url(&cluster, "n2");
    let (authority, path) = url.trim_start_matches("http://").split_once('/').unwrap();
    let mut stream = TcpStream::connect(authority).await.unwrap();
    let body = r#"42["echo",1]"#;
    let length = body.len();
    let request = format!(
        "POST /{path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    for other in ["n1", "n3"] {
        cluster.process(other).resume();
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\nok"), "{answer}");
}
