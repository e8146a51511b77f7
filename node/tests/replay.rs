//! What it costs when many clients come back that missed the same packets.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use flotilla::adapter::RecoveryConfig;
use flotilla::metrics::{ENCODES, RECOVERIES};
use flotilla::server::Io;
use futures_util::future::join_all;
use serde_json::{Value, json};

use common::{start, until};

const CLIENTS: usize = 100;
const PACKETS: usize = 50;

fn application(io: &Io) {
    io.of_recoverable("/kept", RecoveryConfig::default());
}

/// The only test of this process, for encodes are counted for all of it.
#[tokio::test]
async fn packets_that_many_clients_missed_are_encoded_once() {
    let node = start(application).await;
    let namespace = node.io().of("/kept");
    let here = || namespace.operator().fetch_sockets().len();
    let mut auths = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = node.open().await;
        client.ask("/kept", "").await;
        let connected = client.text().await;
        let connected: Value = serde_json::from_str(&connected["0/kept,".len()..]).unwrap();
        auths.push(json!({"pid": connected["pid"]}).to_string());
    }
    until("all to be away", async || (here() == 0).then_some(())).await;
    for n in 0..PACKETS {
        namespace.emit("n", &n).await.unwrap();
    }

    let (encodes, replayed) = (ENCODES.total(), RECOVERIES.replayed.total());
    let back = auths.iter().map(async |auth| {
        let mut client = node.open().await;
        client.ask("/kept", auth).await;
        for n in 0..PACKETS {
            let packet = client.text().await;
            let event: Value = serde_json::from_str(&packet["2/kept,".len()..]).unwrap();
            assert_eq!(event[1], json!(n));
        }
        let connected = client.text().await;
        assert!(connected.starts_with("0/kept,"), "{connected}");
        client
    });
    let _clients = join_all(back).await;
    assert_eq!(RECOVERIES.replayed.total() - replayed, (CLIENTS * PACKETS) as u64);
    // Each of them has a CONNECT of its own beside.
    assert_eq!(ENCODES.total() - encodes, (PACKETS + CLIENTS) as u64);
}
