//! Clusters form, agree, lose nodes and get them back.

use std::collections::BTreeSet;

use super::harness::{
    Deliveries, Machines, PATIENCE, TestNode, eventually, leader, packet, socket_up,
};
use crate::raft::Role;
use crate::raft::state::{Outcome, SocketId};

#[tokio::test(flavor = "multi_thread")]
async fn one_node_agrees_with_itself() {
    let mut machines = Machines::new(1, 1).await;
    let nodes = machines.start_all().await;
    let deliveries = Deliveries::of(&nodes[0]);
    let socket = SocketId::random();
    let pump = nodes[0].raft.pump();
    assert_eq!(pump.propose(socket_up(socket)).await, Ok(Outcome::Applied));
    assert!(nodes[0].raft.view().socket(socket).is_some());
    assert_eq!(pump.propose(packet("hello")).await, Ok(Outcome::Applied));
    assert_eq!(deliveries.texts(), [r#"["hello"]"#]);
}

/// With nobody to share a round of replication with, a proposal does not wait for one to begin.
#[tokio::test(flavor = "multi_thread")]
async fn one_node_gathers_no_rounds() {
    let mut machines = Machines::new(1, 1).await;
    machines.tune = |options| {
        options.raft.gather_interval = PATIENCE;
        options.raft.heartbeat_interval = PATIENCE;
        options.raft.election_timeout_min = PATIENCE * 2;
        options.raft.election_timeout_max = PATIENCE * 3;
        options.raft.propose_timeout = PATIENCE;
    };
    let nodes = machines.start_all().await;
    let _deliveries = Deliveries::of(&nodes[0]);
    for _ in 0..3 {
        let agreed = nodes[0].raft.pump().propose(packet("at once")).await;
        assert_eq!(agreed, Ok(Outcome::Applied));
    }
}

/// The ids of the clusters that the nodes are in.
fn clusters(nodes: &[TestNode]) -> BTreeSet<Option<u64>> {
    nodes.iter().map(|node| node.raft.cluster_id()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_form_one_cluster_in_any_order() {
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        let mut machines = Machines::new(3, 3).await;
        let mut nodes = Vec::new();
        for machine in order {
            nodes.push(machines.start(machine).await);
        }
        for node in &nodes {
            node.ready().await;
        }
        assert_eq!(clusters(&nodes).len(), 1);
        for node in &nodes {
            let numbers = node.raft.numbers();
            assert_eq!((numbers.voters, numbers.learners), (3, 0));
            assert_eq!(numbers.namesakes, 0);
        }
        let has_roles = || {
            let roles = nodes.iter().map(|node| node.raft.numbers().role);
            let leaders = roles.clone().filter(|role| *role == Some(Role::Leader)).count();
            let followers = roles.filter(|role| *role == Some(Role::Follower)).count();
            (leaders, followers) == (1, 2)
        };
        eventually("one leads and two follow", has_roles).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_any_node_are_seen_by_all_in_one_order() {
    let mut machines = Machines::new(3, 3).await;
    let nodes = machines.start_all().await;
    let deliveries: Vec<_> = nodes.iter().map(Deliveries::of).collect();
    let socket = SocketId::random();
    assert_eq!(nodes[0].raft.pump().propose(socket_up(socket)).await, Ok(Outcome::Applied));
    for node in &nodes {
        node.view("the socket is known", |view| view.socket(socket).is_some()).await;
    }
    let mut receipts = Vec::new();
    for round in 0..200 {
        for (at, node) in nodes.iter().enumerate() {
            receipts.push(node.raft.pump().propose(packet(&format!("{at}-{round}"))));
        }
    }
    for receipt in receipts {
        assert_eq!(receipt.await, Ok(Outcome::Applied));
    }
    for delivered in &deliveries {
        eventually("all packets are there", || delivered.texts().len() == 600).await;
    }
    let order = deliveries[0].texts();
    assert!(deliveries.iter().all(|delivered| delivered.texts() == order));
    for at in 0..3 {
        let own = order.iter().filter(|text| text.starts_with(&format!("[\"{at}-")));
        let wanted = (0..200).map(|round| format!("[\"{at}-{round}\"]"));
        assert!(own.cloned().eq(wanted), "packets of node {at} are out of order");
    }
    leader(&nodes).await;
}
