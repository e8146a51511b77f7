//! What an emit to subscribers costs: one encode for each name on the wire and node. The count is the
//! process's, so this test is alone in its own.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::sync::Mutex;

use flotilla::apps::api::{Api, Exports};
use flotilla::metrics;
use flotilla::server::{Ack, Session};
use serde_json::{Value, json};

use common::client::Client;
use common::{TestNode, start_three};

/// Which numbers a subscription gets.
type Gets = fn(i32) -> bool;

/// A client, and the names by which it subscribes to `a.b`: by which of them it gets a number.
struct Subscriber {
    client: Client,
    gets: Vec<(&'static str, Gets)>,
}

impl Subscriber {
    async fn to(node: &TestNode, subscriptions: &[(&'static str, Value, Gets)]) -> Self {
        let mut client = node.connect().await;
        assert!(client.text().await.contains("ready"));
        for (name, query, _) in subscriptions {
            client.send(&format!("2{}", json!(["_subscribeToEvent", name, query]))).await;
        }
        let gets = subscriptions.iter().map(|(name, _, gets)| (*name, *gets)).collect();
        let mut subscriber = Self { client, gets };
        subscriber.settle().await;
        subscriber
    }

    /// It is answered when what was asked before is agreed.
    async fn settle(&mut self) {
        self.client.send(r#"20["a.settle",{}]"#).await;
        self.client.expect("30[null,null]").await;
    }

    async fn unsubscribe(&mut self) {
        for (name, _) in self.gets.drain(..) {
            self.client.send(&format!("2{}", json!(["_unsubscribeFromEvent", name]))).await;
        }
        self.settle().await;
    }

    async fn expect(&mut self, data: i32) {
        let names = self.gets.iter().filter(|(_, gets)| gets(data));
        let wanted: Vec<_> = names.map(|(name, _)| format!(r#"2["{name}",{data}]"#)).collect();
        let mut texts = Vec::new();
        for _ in &wanted {
            texts.push(self.client.text().await);
        }
        texts.sort();
        assert_eq!(texts, wanted);
    }
}

/// Emits on one node, waits until all have what they shall, and says what was encoded for it.
async fn encodes(api: &Api, data: i32, subscribers: &mut [Subscriber]) -> u64 {
    let before = metrics::ENCODES.total();
    api.handle("a").emit("b", &data).await.unwrap();
    for subscriber in subscribers {
        subscriber.expect(data).await;
    }
    metrics::ENCODES.total() - before
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_name_on_the_wire_is_encoded_once_on_each_node() {
    let apis = Mutex::new(Vec::new());
    let nodes = start_three(|io| {
        let api = Api::new(io);
        let settle = async |session: Session, ()| Ok(session.touch().await?);
        api.register("a", Exports::new().function("settle", [""; 0], settle)).unwrap();
        io.of("/").on("ping", async |ack: Ack| ack.send(&()).unwrap());
        apis.lock().unwrap().push(api);
    })
    .await;
    let api = apis.lock().unwrap()[0].clone();

    // Four on each node: by the plain name, and with queries by two others.
    let mut subscribers = Vec::new();
    for node in nodes.iter().flat_map(|node| [node; 4]) {
        let to: [(_, _, Gets); 3] = [
            ("a.b", json!(false), |_| true),
            ("a.b#1", json!({"$gte": 4}), |data| data >= 4),
            ("a.b#2", json!({"$lt": 4}), |data| data < 4),
        ];
        subscribers.push(Subscriber::to(node, &to).await);
    }
    assert_eq!(encodes(&api, 5, &mut subscribers).await, 3 * 2);
    assert_eq!(encodes(&api, 3, &mut subscribers).await, 3 * 2);

    // A name more for one client is one encode more, on its node.
    let own: (_, _, fn(i32) -> bool) = ("a.b#own", Value::Null, |_| true);
    subscribers.push(Subscriber::to(&nodes[1], &[own]).await);
    assert_eq!(encodes(&api, 7, &mut subscribers).await, 3 * 2 + 1);

    // Where nobody is left to subscribe, nothing is encoded.
    for subscriber in &mut subscribers[..4] {
        subscriber.unsubscribe().await;
    }
    assert_eq!(encodes(&api, 9, &mut subscribers).await, 2 * 2 + 1);
    assert_eq!(subscribers[0].client.so_far().await, [""; 0]);
}
