//! What nodes find when they come back, and nodes that come new.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::harness::{
    Deliveries, Machines, TestNode, eventually, files_in, leader, packet, socket_up, started,
};
use crate::net;
use crate::raft::config::Durability;
use crate::raft::state::{Change, Outcome, SessionId, SocketId};
use crate::raft::{MemoryDisk, Options, Role, StartError, Threads, inspect};

fn session_put(session: SessionId, value: &str) -> Change {
    Change::SessionPut { session, expected: 0, salt: 0, value: value.to_owned().into() }
}

#[tokio::test(flavor = "multi_thread")]
async fn restarted_node_catches_up_and_serves_again() {
    let mut machines = Machines::new(3, 3).await;
    let mut nodes = machines.start_all().await;
    let old = SocketId::random();
    nodes[2].raft.pump().propose(socket_up(old)).await.unwrap();
    let id = nodes[2].raft.node_id();
    nodes.pop().unwrap().kill().await;
    let session = SessionId::random();
    nodes[0].raft.pump().propose(session_put(session, r#"{"a":1}"#)).await.unwrap();
    let node = machines.start(2).await;
    node.ready().await;
    assert_eq!(node.raft.node_id(), id, "it is the same node");
    assert!(node.raft.view().session(session).is_some());
    assert!(node.raft.view().socket(old).is_none(), "its older process is gone");
    assert_eq!(node.raft.pump().propose(packet("back")).await, Ok(Outcome::Applied));
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_was_acknowledged_is_there_after_a_restart_of_all() {
    let mut machines = Machines::new(3, 3).await;
    let nodes = machines.start_all().await;
    let cluster = nodes[0].raft.cluster_id();
    let sessions: Vec<_> = (0..50).map(|_| SessionId::random()).collect();
    for (at, session) in sessions.iter().enumerate() {
        let pump = nodes[at % 3].raft.pump();
        pump.propose(session_put(*session, r#"{"a":1}"#)).await.unwrap();
    }
    for node in nodes {
        node.kill().await;
    }
    let nodes = machines.start_all().await;
    assert_eq!(nodes[0].raft.cluster_id(), cluster, "no second cluster");
    for node in &nodes {
        let view = node.raft.view();
        assert!(sessions.iter().all(|session| view.session(*session).is_some()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_find_each_other_at_new_addresses() {
    let mut machines = Machines::new(3, 3).await;
    let nodes = machines.start_all().await;
    let cluster = nodes[0].raft.cluster_id();
    for node in nodes {
        node.kill().await;
    }
    // All machines get other ports, and are told so as seeds.
    let mut moved = Machines::new(3, 3).await;
    for machine in 0..3 {
        fs::rename(machines.data_dir(machine), moved.data_dir(machine)).unwrap();
    }
    assert_ne!(moved.seeds, machines.seeds);
    let nodes = moved.start_all().await;
    assert_eq!(nodes[0].raft.cluster_id(), cluster);
    eventually("the first node knows where the others are now", || {
        let view = nodes[0].raft.view();
        let address_of = |node: &TestNode| view.node(node.raft.node_id())?.up.address.parse().ok();
        let addresses: Vec<Option<SocketAddr>> = nodes.iter().map(address_of).collect();
        addresses.into_iter().eq(moved.seeds.iter().copied().map(Some))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn further_node_learns_and_takes_the_place_of_a_dead_voter() {
    let mut machines = Machines::new(4, 3).await;
    machines.tune = |options| {
        options.cluster.lease = Duration::from_secs(6);
        options.raft.replace_voter_after = options.cluster.lease;
    };
    let mut nodes = machines.start_all().await;
    let fourth = machines.start(3).await;
    fourth.ready().await;
    let numbers = fourth.raft.numbers();
    assert_eq!((numbers.voters, numbers.learners), (3, 1));
    assert_eq!(numbers.role, Some(Role::Learner));
    assert_eq!(fourth.raft.cluster_id(), nodes[0].raft.cluster_id());
    assert_eq!(fourth.raft.pump().propose(packet("new")).await, Ok(Outcome::Applied));
    let victim = (leader(&nodes).await + 1) % 3;
    let victim = nodes.remove(victim);
    let (dead, new) = (victim.raft.node_id(), fourth.raft.node_id());
    victim.kill().await;
    eventually("the fourth node votes", || {
        let voters = fourth.raft.voters();
        voters.contains(&new) && !voters.contains(&dead)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_bound_the_log_and_bring_a_new_node_up() {
    let mut machines = Machines::new(4, 3).await;
    machines.tune = |options| options.raft.snapshot_interval = 100;
    let nodes = machines.start_all().await;
    let deliveries = Deliveries::of(&nodes[0]);
    let session = SessionId::random();
    nodes[0].raft.pump().propose(session_put(session, r#"{"a":1}"#)).await.unwrap();
    for round in 0..1000 {
        nodes[0].raft.pump().propose(packet(&round.to_string())).await.unwrap();
    }
    assert_eq!(deliveries.texts().len(), 1000);
    for node in &nodes {
        eventually("a late snapshot is there", || node.raft.numbers().snapshot_index > 800).await;
    }
    let fourth = machines.start(3).await;
    fourth.ready().await;
    assert!(fourth.raft.view().session(session).is_some());
    let index = nodes[0].raft.view().index();
    fourth.view("it has caught up", |view| view.index() >= index).await;
    assert!(files_in(&machines.data_dir(0).join("snapshots")) <= 3);
    for node in nodes {
        node.kill().await;
    }
    fourth.kill().await;
    let state = inspect(&machines.data_dir(0)).await.unwrap();
    assert!(state.session(session).is_some());
    assert!(state.index() > 1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn follower_that_slept_through_the_log_is_brought_up_by_a_snapshot() {
    let mut machines = Machines::new(3, 3).await;
    machines.tune = |options| options.raft.snapshot_interval = 100;
    let mut nodes = machines.start_all().await;
    nodes.pop().unwrap().kill().await;
    let session = SessionId::random();
    nodes[0].raft.pump().propose(session_put(session, r#"{"a":1}"#)).await.unwrap();
    for round in 0..1000 {
        nodes[0].raft.pump().propose(packet(&round.to_string())).await.unwrap();
    }
    let node = machines.start(2).await;
    node.ready().await;
    assert!(node.raft.view().session(session).is_some());
    assert_eq!(node.raft.pump().propose(packet("back")).await, Ok(Outcome::Applied));
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_or_busy_data_is_refused_with_its_directory() {
    let mut machines = Machines::new(1, 1).await;
    let nodes = machines.start_all().await;
    let data_dir = machines.data_dir(0);
    let busy = inspect(&data_dir).await.unwrap_err();
    assert!(matches!(busy, StartError::InUse { .. }), "{busy:?}");
    for round in 0..50 {
        nodes[0].raft.pump().propose(packet(&round.to_string())).await.unwrap();
    }
    for node in nodes {
        node.kill().await;
    }
    let log = data_dir.join("log");
    let chunk = fs::read_dir(&log)
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "wal"))
        .max_by_key(|path| fs::metadata(path).unwrap().len())
        .unwrap();
    let mut bytes = fs::read(&chunk).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&chunk, bytes).unwrap();
    let options = machines.options(0, net::Dialer::tcp());
    let Err(error) = started(options).await else { panic!("it started on a damaged log") };
    assert!(matches!(error, StartError::Damaged { .. }), "{error:?}");
    assert!(error.to_string().contains(data_dir.to_str().unwrap()), "{error}");
}

/// The files of a node's log, oldest first.
fn log_files(data_dir: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(data_dir.join("log")).unwrap().map(|file| file.unwrap().path());
    let mut files: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|extension| extension == "wal")).collect();
    files.sort();
    files
}

async fn assert_damaged(machines: &Machines, what: &str) {
    let options = machines.options(0, net::Dialer::tcp());
    // Looking at it must not mend it: what is refused once is refused again.
    for _ in 0..2 {
        let Err(error) = started(options.clone()).await else { panic!("it started: {what}") };
        assert!(matches!(error, StartError::Damaged { .. }), "{what}: {error:?}");
    }
    let error = inspect(&machines.data_dir(0)).await.unwrap_err();
    assert!(matches!(error, StartError::Damaged { .. }), "{what}: {error:?}");
}

/// Such a node has forgotten its votes and what it stored for others. With the majority that it
/// makes, acknowledged changes would be lost.
#[tokio::test(flavor = "multi_thread")]
async fn member_whose_log_is_gone_is_refused() {
    for durability in [Durability::Fsync, Durability::Os] {
        let mut machines = Machines::new(1, 1).await;
        machines.tune = match durability {
            Durability::Fsync => |options| options.raft.durability = Durability::Fsync,
            _ => |options| options.raft.durability = Durability::Os,
        };
        let node = machines.start_all().await.remove(0);
        node.raft.pump().propose(packet("kept")).await.unwrap();
        node.kill().await;
        let data_dir = machines.data_dir(0);
        let file = log_files(&data_dir).remove(0);
        for left in [100, 0] {
            let whole = fs::OpenOptions::new().write(true).open(&file).unwrap();
            whole.set_len(left).unwrap();
            drop(whole);
            assert_damaged(&machines, &format!("{left} bytes are left")).await;
        }
        fs::remove_file(&file).unwrap();
        assert_damaged(&machines, "the file is gone").await;
        fs::remove_dir_all(data_dir.join("log")).unwrap();
        assert_damaged(&machines, "the directory is gone").await;
        // Under another id it may come back.
        fs::remove_dir_all(&data_dir).unwrap();
        machines.start_all().await.remove(0).kill().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn log_that_ends_before_a_snapshot_of_it_is_refused() {
    let mut machines = Machines::new(1, 1).await;
    machines.tune = |options| options.raft.snapshot_interval = 100;
    let node = machines.start_all().await.remove(0);
    for round in 0..20 {
        node.raft.pump().propose(packet(&round.to_string())).await.unwrap();
    }
    let file = log_files(&machines.data_dir(0)).remove(0);
    let early = fs::metadata(&file).unwrap().len();
    for round in 0..150 {
        node.raft.pump().propose(packet(&round.to_string())).await.unwrap();
    }
    eventually("there is a snapshot", || node.raft.numbers().snapshot_index > 50).await;
    node.kill().await;
    // The end of a record, as if nothing had ever followed.
    fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(early).unwrap();
    assert_damaged(&machines, "it ends before the snapshot").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn simulated_machine_remembers_on_the_threads_of_its_caller() {
    let mut machines = Machines::new(1, 1).await;
    let disk = MemoryDisk::default();
    let session = SessionId::random();
    for start in 0..2 {
        let options = Options {
            disk: Some(disk.clone()),
            threads: Threads::Shared,
            ..machines.options(0, net::Dialer::tcp())
        };
        let node = TestNode::start(options, machines.listener(0).await).await;
        node.ready().await;
        if start == 0 {
            node.raft.pump().propose(session_put(session, r#"{"a":1}"#)).await.unwrap();
        }
        assert!(node.raft.view().session(session).is_some());
        node.kill().await;
    }
    assert!(!machines.data_dir(0).exists());
}

/// A leader sends entries that its own disk has not synced. In its old term it might give their log
/// ids to other entries; the simulation shows what comes of that.
#[tokio::test(flavor = "multi_thread")]
async fn restarted_leader_begins_a_new_term() {
    let mut machines = Machines::new(1, 1).await;
    let node = machines.start_all().await.remove(0);
    let term = node.raft.numbers().term;
    node.kill().await;
    let node = machines.start_all().await.remove(0);
    assert!(node.raft.numbers().term > term);
}
