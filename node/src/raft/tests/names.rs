//! Nodes of one name: they serve, and their operators are told.

use std::fs;
use std::time::Duration;

use super::harness::{Machines, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn node_with_the_name_of_another_joins_and_both_know() {
    let mut machines = Machines::new(4, 3).await;
    machines.tune = |options| {
        if options.name == "n3" {
            options.name = "n0".to_owned();
        }
    };
    let mut nodes = machines.start_all().await;
    let twin = machines.start(3).await;
    twin.ready().await;
    nodes.push(twin);
    eventually("both know of one another", || {
        nodes.iter().map(|node| node.raft.numbers().namesakes).eq([1, 0, 0, 1])
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn node_that_lost_its_disk_comes_back_under_its_name_and_address() {
    let mut machines = Machines::new(3, 3).await;
    machines.tune = |options| options.cluster.lease = Duration::from_secs(1);
    let mut nodes = machines.start_all().await;
    let lost = nodes.remove(2);
    let before = lost.raft.node_id();
    lost.kill().await;
    fs::remove_dir_all(machines.data_dir(2)).unwrap();
    let back = machines.start(2).await;
    back.ready().await;
    assert_ne!(back.raft.node_id(), before);
    eventually("its former self is dead", || back.raft.numbers().namesakes == 0).await;
}
