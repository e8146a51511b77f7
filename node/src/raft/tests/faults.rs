//! What the cluster does when nodes die and links break.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;

use super::harness::{
    Deliveries, Machines, PATIENCE, TestNode, eventually, leader, packet, socket_up,
};
use super::links::Links;
use crate::raft::proposer::{Lead, Propose, ToLeader};
use crate::raft::state::{NodeStatus, Outcome, SocketId};
use crate::raft::{ProposeError, Status};

async fn linked(links: &Links, machines: &mut Machines) -> Vec<TestNode> {
    let mut nodes = Vec::new();
    for machine in 0..machines.expect {
        let dialer = links.dialer(machines.seeds[machine]);
        nodes.push(machines.start_with(machine, dialer).await);
    }
    for node in &nodes {
        node.ready().await;
    }
    nodes
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_node_is_declared_down_and_its_sockets_vanish() {
    let mut machines = Machines::new(3, 3).await;
    let mut nodes = machines.start_all().await;
    let socket = SocketId::random();
    let victim = (leader(&nodes).await + 1) % 3;
    nodes[victim].raft.pump().propose(socket_up(socket)).await.unwrap();
    let victim = nodes.remove(victim);
    let id = victim.raft.node_id();
    let killed = Instant::now();
    victim.kill().await;
    for node in &nodes {
        node.view("the socket is gone", |view| view.socket(socket).is_none()).await;
        assert_eq!(node.raft.view().node(id).unwrap().status, NodeStatus::Down);
    }
    assert!(killed.elapsed() >= Duration::from_secs(2), "before its lease was over");
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_leader_is_succeeded_and_declared_down() {
    let mut machines = Machines::new(3, 3).await;
    let mut nodes = machines.start_all().await;
    let at = leader(&nodes).await;
    let victim = nodes.remove(at);
    let deliveries: Vec<_> = nodes.iter().map(Deliveries::of).collect();
    let id = victim.raft.node_id();
    let flow = async {
        for round in 0..300 {
            for (at, node) in nodes.iter().enumerate() {
                let sent = node.raft.pump().propose(packet(&format!("{at}-{round}")));
                assert_eq!(sent.await, Ok(Outcome::Applied));
            }
        }
    };
    tokio::join!(flow, victim.kill());
    for delivered in &deliveries {
        eventually("all packets are there", || delivered.texts().len() >= 600).await;
    }
    let order = deliveries[0].texts();
    assert_eq!(order.len(), 600, "none is doubled");
    assert_eq!(order.iter().collect::<BTreeSet<_>>().len(), 600);
    assert_eq!(deliveries[1].texts(), order);
    nodes[0].view("the leader is down", |view| view.alive(id).is_none()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answer_that_is_lost_after_commit_leads_to_one_delivery() {
    let links = Links::default();
    let mut machines = Machines::new(3, 3).await;
    let nodes = linked(&links, &mut machines).await;
    let lead = leader(&nodes).await;
    let follower = (lead + 1) % 3;
    let deliveries: Vec<_> = nodes.iter().map(Deliveries::of).collect();
    let (from, to) = (machines.seeds[follower], machines.seeds[lead]);
    for round in 0..200 {
        let sent = nodes[follower].raft.pump().propose(packet(&round.to_string()));
        // The connection breaks while the answer is on its way, at another moment each time.
        for _ in 0..round % 20 {
            tokio::task::yield_now().await;
        }
        links.cut(from, to);
        tokio::task::yield_now().await;
        links.heal();
        assert_eq!(sent.await, Ok(Outcome::Applied));
    }
    let wanted: Vec<_> = (0..200).map(|round| format!("[\"{round}\"]")).collect();
    for delivered in &deliveries {
        eventually("all packets are there", || delivered.texts().len() >= 200).await;
        assert_eq!(delivered.texts(), wanted);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn isolated_node_fences_itself_and_comes_back_as_another_incarnation() {
    let links = Links::default();
    let mut machines = Machines::new(3, 3).await;
    machines.tune = |options| options.cluster.lease = Duration::from_secs(5);
    let nodes = linked(&links, &mut machines).await;
    let leading = leader(&nodes).await;
    for victim in [leading, (leading + 1) % 3] {
        let node = &nodes[victim];
        let socket = SocketId::random();
        node.raft.pump().propose(socket_up(socket)).await.unwrap();
        let before = node.raft.incarnation().unwrap();
        links.isolate(machines.seeds[victim], &machines.seeds);
        node.status(Status::Fenced).await;
        assert!(!node.raft.is_fresh());
        let refused = node.raft.pump().propose(packet("lost")).await;
        assert_eq!(refused, Err(ProposeError::NoQuorum));
        let other = &nodes[(victim + 1) % 3];
        other.ready().await;
        other.view("the socket is gone", |view| view.socket(socket).is_none()).await;
        let elsewhere = other.raft.pump().propose(packet("goes on")).await;
        assert_eq!(elsewhere, Ok(Outcome::Applied));
        links.heal();
        eventually("there is a new incarnation", || {
            node.raft.incarnation().is_some_and(|incarnation| incarnation > before)
        })
        .await;
        node.ready().await;
        assert_eq!(node.raft.pump().propose(packet("back")).await, Ok(Outcome::Applied));
        assert!(node.raft.view().socket(socket).is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn short_cut_ends_no_incarnation() {
    let links = Links::default();
    let mut machines = Machines::new(3, 3).await;
    let nodes = linked(&links, &mut machines).await;
    let victim = (leader(&nodes).await + 1) % 3;
    let before = nodes[victim].raft.incarnation();
    links.isolate(machines.seeds[victim], &machines.seeds);
    let sent = nodes[victim].raft.pump().propose(packet("waits"));
    eventually("connections broke and were refused", || links.felt() > 20).await;
    links.heal();
    assert_eq!(sent.await, Ok(Outcome::Applied));
    assert_eq!(nodes[victim].raft.incarnation(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_quorum_nothing_is_agreed_and_all_is_said_so() {
    let mut machines = Machines::new(3, 3).await;
    let mut nodes = machines.start_all().await;
    let survivor = nodes.remove(0);
    for node in nodes {
        node.kill().await;
    }
    let answer = survivor.raft.pump().propose(packet("nobody agrees")).await;
    assert!(matches!(answer, Err(ProposeError::NoQuorum | ProposeError::Timeout)), "{answer:?}");
    survivor.status(Status::Fenced).await;
    let answer = survivor.raft.pump().propose(packet("still nobody")).await;
    assert_eq!(answer, Err(ProposeError::NoQuorum));
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_leader_hands_over_and_loses_nothing() {
    let mut machines = Machines::new(3, 3).await;
    let mut nodes = machines.start_all().await;
    let at = leader(&nodes).await;
    let leaving = nodes.remove(at);
    let deliveries = Deliveries::of(&nodes[0]);
    let receipts: Vec<_> =
        (0..500).map(|round| leaving.raft.pump().propose(packet(&round.to_string()))).collect();
    leaving.raft.drain().await;
    for receipt in receipts {
        assert_eq!(receipt.await, Ok(Outcome::Applied));
    }
    assert_eq!(leaving.raft.pump().propose(packet("late")).await, Err(ProposeError::Draining));
    assert!(!leaving.raft.numbers().is_leader, "it has handed over");
    leader(&nodes).await;
    let id = leaving.raft.node_id();
    nodes[0]
        .view("it is draining", |view| {
            view.node(id).is_some_and(|row| row.status == NodeStatus::Draining)
        })
        .await;
    leaving.kill().await;
    eventually("all packets are there", || deliveries.texts().len() == 500).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_drain_together_do_not_wait_for_each_other() {
    let mut machines = Machines::new(3, 3).await;
    // Whoever waited for an answer that cannot come would wait for longer than the test does.
    machines.tune = |options| options.raft.propose_timeout = PATIENCE * 2;
    let nodes = machines.start_all().await;
    let receipts: Vec<_> = nodes.iter().map(|node| node.raft.pump().propose(packet("a"))).collect();
    for receipt in receipts {
        assert_eq!(receipt.await, Ok(Outcome::Applied));
    }
    let ends = nodes.into_iter().map(|node| async move {
        node.raft.drain().await;
        // What was open when a majority had gone is unknown, and says so.
        let late = node.raft.pump().propose(packet("late")).await;
        node.kill().await;
        late
    });
    let drained = tokio::time::timeout(PATIENCE, futures_util::future::join_all(ends)).await;
    assert!(drained.unwrap().iter().all(|late| *late == Err(ProposeError::Draining)));
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_leader_passes_over_an_heir_that_is_gone() {
    let mut machines = Machines::new(3, 3).await;
    machines.tune = |options| options.raft.propose_timeout = PATIENCE * 2;
    let mut nodes = machines.start_all().await;
    let at = leader(&nodes).await;
    let leaving = nodes.remove(at);
    nodes.remove(0).kill().await;
    leaving.raft.drain().await;
    let stays = nodes[0].raft.node_id();
    eventually("the other leads", || leaving.raft.leader() == Some(stays)).await;
    leaving.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn node_whose_consensus_has_ended_says_so_and_drains_at_once() {
    let mut machines = Machines::new(1, 1).await;
    machines.tune = |options| options.raft.propose_timeout = PATIENCE * 2;
    let node = machines.start_all().await.remove(0);
    node.raft.core.consensus.shutdown().await.unwrap();
    let reason = tokio::time::timeout(PATIENCE, node.raft.failed()).await.unwrap();
    assert!(!reason.is_empty());
    eventually("nobody leads", || node.raft.leader().is_none()).await;
    let open = node.raft.pump().propose(packet("in vain"));
    tokio::time::timeout(PATIENCE, node.raft.drain()).await.unwrap();
    node.kill().await;
    assert_eq!(open.await, Err(ProposeError::Timeout));
}

#[tokio::test(flavor = "multi_thread")]
async fn attempt_without_news_of_a_leader_pauses() {
    let mut machines = Machines::new(1, 1).await;
    let node = machines.start_all().await.remove(0);
    let core = &node.raft.core;
    core.consensus.shutdown().await.unwrap();
    let own = Lead { leader: Some((core.me, core.member.clone())), ..Lead::default() };
    for lead in [Lead::default(), own] {
        let (_, closed) = watch::channel(lead);
        let (directory, consensus) = (core.directory.clone(), core.consensus.clone());
        let mut proposer = ToLeader::new(directory, consensus, core.door.clone(), closed);
        // The first attempt may still find what was told before the end.
        for _ in 0..2 {
            let began = Instant::now();
            let attempt = proposer.propose(Bytes::new(), 0, false, began + PATIENCE).await;
            assert!(attempt.is_err());
            let pause = began.elapsed();
            assert!(pause >= Duration::from_millis(10), "{pause:?}");
        }
    }
    node.kill().await;
}
