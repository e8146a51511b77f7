//! Tests of a namespace on one node, with consensus and without a quorum, above no transport.

mod alone;
mod renewal;
mod welcome;

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::*;
use crate::adapter::OutboxLimits;
use crate::adapter::connecting::Connecting;
use crate::adapter::outbox::Outbox;
use crate::net::Dialer;
use crate::peers::{Peers, PeersConfig};
use crate::raft::config::{ClusterConfig, Durability, RaftConfig};
use crate::raft::state::{SessionId, SessionKeys};
use crate::raft::{Options, ProposeError, Raft, Status, Threads};

/// Far beyond what anything here takes; a wait that reaches it has failed.
const PATIENCE: Duration = Duration::from_secs(20);

struct Node {
    adapter: Arc<Adapter>,
    tasks: TaskTracker,
    _data: TempDir,
}

impl Node {
    /// With a quorum if it is to be a cluster of one; without, if it waits for others.
    async fn start(bootstrap_expect: usize) -> Self {
        let data = tempfile::tempdir().unwrap();
        let raft = RaftConfig { durability: Durability::Memory, ..RaftConfig::default() };
        let others = (bootstrap_expect > 1).then(|| "127.0.0.1:1".to_owned());
        let seeds = others.into_iter().collect();
        let options = Options {
            raft,
            cluster: ClusterConfig { bootstrap_expect, seeds, ..ClusterConfig::default() },
            name: "n1".to_owned(),
            version: String::new(),
            address: "127.0.0.1:0".to_owned(),
            data_dir: data.path().to_owned(),
            dialer: Dialer::tcp(),
            threads: Threads::Own,
            disk: None,
            session_keys: SessionKeys::default(),
            clock: None,
        };
        let raft = Arc::new(Raft::start(options).await.unwrap());
        let tasks = TaskTracker::new();
        let shutdown = CancellationToken::new();
        let (peers, _) = Peers::new(
            PeersConfig::default(),
            raft.node_id(),
            Dialer::tcp(),
            tasks.clone(),
            shutdown.clone(),
        );
        if bootstrap_expect == 1 {
            let mut status = raft.status();
            let ready = status.wait_for(|status| *status == Status::Ready);
            tokio::time::timeout(PATIENCE, ready).await.unwrap().unwrap();
        }
        let cluster = Cluster::new(raft, peers, Encoder::default(), tasks.clone(), shutdown);
        let adapter = cluster.adapter(&"/".into(), DeliveryMode::Replicated);
        Self { adapter, tasks, _data: data }
    }

    /// A socket that the cluster has let in.
    async fn connect(&self) -> Arc<Recipient> {
        let recipient = recipient();
        let rooms = Rooms::new();
        self.adapter.connect(recipient.clone(), SessionId::random(), rooms).await.unwrap();
        assert_eq!(recipient.phase(), Phase::Connected);
        assert!(take(&recipient)[0].starts_with("40{"));
        recipient
    }

    /// A socket that takes part, whatever the cluster says.
    fn admit(&self) -> Arc<Recipient> {
        let recipient = recipient();
        let connecting = Connecting::new(recipient.clone(), SessionId::random());
        self.adapter.connecting().insert((recipient.id, 0), connecting);
        self.adapter.let_in(&recipient.id, &[], None);
        take(&recipient);
        recipient
    }
}

fn recipient() -> Arc<Recipient> {
    let limits = OutboxLimits { max_bytes: 1 << 20, max_packets: 1000, ..OutboxLimits::default() };
    Arc::new(Recipient::new(SocketId::random(), Arc::new(Outbox::new(limits))))
}

/// The packets that wait for a client.
fn take(recipient: &Recipient) -> Vec<String> {
    let mut pending = VecDeque::new();
    recipient.outbox.take_pending(&mut pending);
    pending.iter().map(|packet| String::from_utf8(packet.polling().to_vec()).unwrap()).collect()
}

fn event(name: &str) -> Payload {
    Payload::event(name, "", Vec::new())
}

fn room(name: &str) -> Target {
    Target { rooms: rooms(name), ..Target::default() }
}

fn rooms(name: &str) -> Rooms {
    [name.into()].into_iter().collect()
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "waited for {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn receipt_of_an_emit_is_answered_once_the_packet_is_queued() {
    let node = Node::start(1).await;
    let socket = node.connect().await;
    for n in 0..20 {
        let name = n.to_string();
        node.adapter.emit(Target::default(), event(&name), EmitFlags::default()).await.unwrap();
        assert_eq!(take(&socket), [format!(r#"42["{n}"]"#)]);
    }
}

#[tokio::test]
async fn connection_that_ends_while_its_socket_is_made_known_leaves_no_ghost() {
    let node = Node::start(1).await;
    for _ in 0..20 {
        let socket = recipient();
        let rooms = rooms("r");
        let receipt = node.adapter.connect(socket.clone(), SessionId::random(), rooms);
        node.adapter.leave_namespace(&socket);
        receipt.await.unwrap();
        let receipt = node.adapter.connect(socket.clone(), SessionId::random(), Rooms::new());
        assert_eq!(receipt.await, Err(ProposeError::NoQuorum), "it is over");
        until("the socket to be gone", || node.adapter.view().socket(socket.id).is_none()).await;
        assert_eq!(take(&socket), Vec::<String>::new());
        assert!(node.adapter.local.get(&socket.id).is_none());
        assert!(node.adapter.connecting().is_empty());
    }
}

#[tokio::test]
async fn socket_that_the_cluster_never_heard_of_is_not_reported() {
    let node = Node::start(1).await;
    let before = node.adapter.view().index();
    let refused = recipient();
    refused.advance(Phase::Rejected);
    node.adapter.leave_namespace(&refused);
    node.adapter.leave_namespace(&recipient());
    node.connect().await;
    assert_eq!(node.adapter.view().index(), before + 1, "one change: the socket that came");
}

#[tokio::test]
async fn broadcast_of_a_peer_waits_for_what_its_sender_had_applied() {
    let node = Node::start(1).await;
    let [member, other] = [node.connect().await, node.connect().await];
    let broadcast = Broadcast {
        namespace: "/".into(),
        applied: node.adapter.view().index() + 1,
        target: room("r"),
        payload: event("early"),
        volatile: false,
        ack: None,
        uncompressed: false,
    };
    node.adapter.cluster.handle_broadcast(7, broadcast);
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert_eq!(take(&member), Vec::<String>::new());
    let own = room(member.id.as_str());
    node.adapter.join_matching(own, rooms("r")).await.unwrap();
    until("the broadcast", || !take(&member).is_empty()).await;
    assert_eq!(take(&other), Vec::<String>::new());
}

#[tokio::test]
async fn acks_are_gathered_and_those_who_left_are_not_waited_for() {
    let node = Node::start(1).await;
    let [a, b] = [node.connect().await, node.connect().await];
    let (sent, gathering) =
        node.adapter.emit_with_ack(Target::default(), event("ask"), EmitFlags::default());
    sent.await.unwrap();
    let asked = take(&a)[0].clone();
    let id: u64 = asked[2..asked.find('[').unwrap()].parse().unwrap();
    assert_eq!(take(&b), [asked], "both get the same packet");
    node.adapter.handle_ack(&a, id, Payload::ack("1", Vec::new()));
    node.adapter.handle_ack(&a, id, Payload::ack("again", Vec::new()));
    node.adapter.leave_namespace(&b);
    let answers = gathering.answers(PATIENCE).await;
    assert!(answers.is_complete);
    assert_eq!(answers.answers, [Payload::ack("1", Vec::new())]);
    node.adapter.handle_ack(&b, id, Payload::ack("late", Vec::new()));
}

#[tokio::test]
async fn gather_that_nobody_awaits_is_forgotten() {
    let node = Node::start(1).await;
    let socket = node.connect().await;
    let (sent, gathering) =
        node.adapter.emit_with_ack(Target::default(), event("ask"), EmitFlags::default());
    sent.await.unwrap();
    assert_eq!(node.adapter.cluster.gathers.len(), 1);
    drop(gathering);
    assert_eq!(node.adapter.cluster.gathers.len(), 0);
    let answers = node.adapter.emit_with_ack(Target::default(), event("ask"), EmitFlags::default());
    answers.0.await.unwrap();
    let answers = answers.1.answers(Duration::ZERO).await;
    assert!(!answers.is_complete, "the socket has not answered");
    assert_eq!(node.adapter.cluster.gathers.len(), 0);
    drop(socket);
}

#[tokio::test]
async fn without_a_quorum_direct_emits_go_on_and_nothing_else_lingers() {
    let node = Node::start(3).await;
    let socket = node.admit();
    let adapter = &node.adapter;
    assert_eq!(adapter.join(socket.id, rooms("r")).await, Err(ProposeError::NoQuorum));
    let replicated = adapter.emit(Target::default(), event("x"), EmitFlags::default());
    assert_eq!(replicated.await, Err(ProposeError::NoQuorum));
    let direct = EmitFlags { direct: true, ..EmitFlags::default() };
    adapter.emit(room("r"), event("undone"), direct).await.unwrap();
    adapter.emit(Target::default(), event("direct"), direct).await.unwrap();
    assert_eq!(take(&socket), [r#"42["direct"]"#]);

    let ended = adapter.disconnect_matching(room(socket.id.as_str()), false);
    assert_eq!(ended.await, Err(ProposeError::NoQuorum));
    assert_eq!(take(&socket), ["41"]);
    assert_eq!(socket.phase(), Phase::Disconnected);
    adapter.leave_namespace(&socket);
    let end = Change::SocketGone { socket: socket.id, claim: 0 };
    assert_eq!(*adapter.cluster.unsettled(), [end], "the cluster will be told");
}

#[tokio::test]
async fn work_beside_ends_with_the_node() {
    let node = Node::start(3).await;
    node.adapter.cluster.spawn(std::future::pending());
    node.adapter.cluster.shutdown.cancel();
    node.tasks.close();
    tokio::time::timeout(PATIENCE, node.tasks.wait()).await.unwrap();
}

#[tokio::test]
async fn node_fails_when_a_delivery_task_does() {
    let node = Node::start(1).await;
    let _socket = node.connect().await;
    let all = Target::default();
    let poison = || node.adapter.local.visit(&all, Plane::Direct, |_| panic!("as the test wants"));
    assert!(std::panic::catch_unwind(AssertUnwindSafe(poison)).is_err());
    let packet = node.adapter.packet(all.clone(), event("x"), EmitFlags::default(), None);
    let _ = node.adapter.propose(packet).await;
    tokio::time::timeout(PATIENCE, node.adapter.cluster.failed()).await.unwrap();
}
