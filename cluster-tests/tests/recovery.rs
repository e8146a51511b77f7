//! A thousand clients under traffic, and `kill -9` of one node after the other, the last one with its
//! disk: every client comes back to its socket, and has every message once and in order.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cluster_tests::client::Client;
use cluster_tests::cluster::Cluster;
use cluster_tests::wait;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::task::LocalSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const NAMESPACE: &str = "/recoverable";
const CLIENTS: usize = 1_000;

/// Messages between two faults.
const PROGRESS: u64 = 40;

/// A client that comes back, as the official one does: with its pid and the offset of its last event.
struct Wanderer {
    number: usize,
    urls: Arc<[String]>,
    client: Client,
    offset: Option<String>,
    /// What it heard on its connections before this one.
    heard: Vec<u64>,
    recoveries: usize,
}

impl Wanderer {
    async fn start(number: usize, urls: Arc<[String]>) -> Self {
        let url = &urls[number % urls.len()];
        let client = Client::builder(url).namespace(NAMESPACE).connect().await.unwrap();
        Self { number, urls, client, offset: None, heard: Vec::new(), recoveries: 0 }
    }

    /// Stays connected until `end`.
    async fn wander(mut self, end: CancellationToken, back: Arc<AtomicUsize>) -> Self {
        loop {
            tokio::select! {
                () = self.client.ended() => {}
                () = end.cancelled() => return self,
            }
            self.come_back().await;
            back.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn come_back(&mut self) {
        self.note_heard();
        let auth = json!({ "pid": self.client.pid(), "offset": self.offset });
        let mut attempt = self.number;
        let what = format!("client {} to come back", self.number);
        let client = wait::until(&what, async || {
            attempt += 1;
            let url = &self.urls[attempt % self.urls.len()];
            let connecting = Client::builder(url).namespace(NAMESPACE).auth(auth.clone());
            connecting.connect().await.map_err(|error| error.to_string())
        })
        .await;
        assert_eq!(client.id(), self.client.id(), "client {} is not who it was", self.number);
        self.client = client;
        self.recoveries += 1;
    }

    fn note_heard(&mut self) {
        for event in self.client.events() {
            self.heard.push(event.arguments[0].as_u64().unwrap());
            self.offset = event.arguments.last().and_then(Value::as_str).map(str::to_owned);
        }
    }
}

/// Sends numbers to all, one after the other, and comes back like everyone else.
struct Sender {
    wanderer: Wanderer,
    sent: u64,
    acknowledged: BTreeSet<u64>,
}

impl Sender {
    async fn send(&mut self, count: u64) {
        let goal = self.acknowledged.len() + usize::try_from(count).unwrap();
        while self.acknowledged.len() < goal {
            let confirmed = self.wanderer.client.confirm("bcast", &[self.sent.into()]).await;
            if confirmed.is_ok() {
                self.acknowledged.insert(self.sent);
            } else if !self.wanderer.client.is_connected() {
                self.wanderer.come_back().await;
            }
            self.sent += 1;
        }
    }
}

#[tokio::test]
async fn a_thousand_clients_come_back_from_dead_nodes_and_miss_nothing() {
    LocalSet::new().run_until(story()).await;
}

async fn story() {
    let recovery = toml::Table::from_iter([("max_age".to_owned(), toml::Value::from("2m"))]);
    let mut cluster =
        Cluster::builder(3).setting(&["namespaces", NAMESPACE, "recovery"], recovery).start().await;
    let urls: Arc<[String]> = cluster.ids().iter().map(|id| cluster.url(id)).collect();
    let mut wanderers = Vec::new();
    for first in (0..CLIENTS).step_by(50) {
        let some = (first..first + 50).map(|number| Wanderer::start(number, urls.clone()));
        wanderers.extend(join_all(some).await);
    }
    let sender = Wanderer::start(CLIENTS, urls.clone()).await;
    let mut sender = Sender { wanderer: sender, sent: 0, acknowledged: BTreeSet::new() };

    let (end, back) = (CancellationToken::new(), Arc::new(AtomicUsize::new(0)));
    let tasks = TaskTracker::new();
    let wandering: Vec<_> = wanderers
        .into_iter()
        .map(|wanderer| tasks.spawn_local(wanderer.wander(end.clone(), back.clone())))
        .collect();
    sender.send(PROGRESS).await;
    let victims = cluster.ids();
    for victim in &victims {
        let before = back.load(Ordering::Relaxed);
        let lost = clients_of(&cluster, victim).await;
        cluster.kill(victim);
        sender.send(PROGRESS).await;
        wait::until(&format!("the clients of {victim} to come back"), async || {
            let came = back.load(Ordering::Relaxed) - before;
            wait::holds(came + 1 >= lost, (came, lost))
        })
        .await;
        if victim == &victims[2] {
            cluster.wipe(victim);
        } else {
            cluster.restart(victim).await;
        }
        sender.send(PROGRESS).await;
    }

    sender.send(1).await;
    let last = *sender.acknowledged.last().unwrap();
    end.cancel();
    let mut recoveries = 0;
    for handle in wandering {
        let mut wanderer = handle.await.unwrap();
        recoveries += wanderer.recoveries;
        let number = wanderer.number;
        wait::until(&format!("the last message at client {number}"), async || {
            let has = wanderer.client.received("msg").contains(&last.into())
                || wanderer.heard.contains(&last);
            wait::holds(has, wanderer.client.received("msg").last().cloned())
        })
        .await;
        wanderer.note_heard();
        let heard = &wanderer.heard;
        assert!(heard.is_sorted_by(|a, b| a < b), "client {number}: {heard:?}");
        let heard: BTreeSet<u64> = heard.iter().copied().collect();
        let missed: Vec<_> = sender.acknowledged.difference(&heard).collect();
        assert!(missed.is_empty(), "client {number} missed {missed:?}");
    }
    assert!(recoveries >= CLIENTS, "only {recoveries} recoveries");
}

/// How many sockets a node has.
async fn clients_of(cluster: &Cluster, id: &str) -> usize {
    cluster.metrics(id).await.unwrap().sum("flotilla_sockets") as usize
}
