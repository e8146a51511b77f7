//! Packets of a node that has nobody to agree with.

use bytestring::ByteString;

use super::*;
use crate::adapter::projection::{Part, Projector};

fn applied(node: &Node) -> u64 {
    node.adapter.view().index()
}

fn logged_packets(node: &Node) -> u64 {
    let view = node.adapter.view();
    view.applied_changes().find(|(kind, _)| *kind == "packet").expect("there is such a kind").1
}

/// Waits until nothing is on its way, after which emits need no log.
async fn settled(node: &Node) {
    let packet = node.adapter.packet(Target::default(), event("x"), EmitFlags::default(), None);
    let (raft, unhandled) = (&node.adapter.cluster.raft, &node.adapter.unhandled);
    until("all to be settled", || raft.may_act_alone(&packet) && unhandled.is_none()).await;
}

#[tokio::test]
async fn packet_of_a_node_that_is_alone_needs_no_log() {
    let node = Node::start(1).await;
    let socket = node.connect().await;
    settled(&node).await;
    let before = applied(&node);
    for n in 0..20 {
        let emitted =
            node.adapter.emit(Target::default(), event(&n.to_string()), EmitFlags::default());
        assert_eq!(take(&socket), [format!(r#"42["{n}"]"#)], "at once");
        emitted.await.unwrap();
    }
    assert_eq!(applied(&node), before);
}

#[tokio::test]
async fn packet_does_not_overtake_what_its_node_has_proposed() {
    let node = Node::start(1).await;
    let socket = node.connect().await;
    for n in 0..50 {
        settled(&node).await;
        let name = n.to_string();
        // None of them is waited for.
        drop(node.adapter.join(socket.id, rooms(&name)));
        drop(node.adapter.emit(room(&name), event("joined"), EmitFlags::default()));
        drop(node.adapter.leave(socket.id, rooms(&name)));
        drop(node.adapter.emit(room(&name), event("left"), EmitFlags::default()));
        node.adapter.emit(Target::default(), event("last"), EmitFlags::default()).await.unwrap();
        assert_eq!(take(&socket), [r#"42["joined"]"#, r#"42["last"]"#]);
    }
}

#[tokio::test]
async fn acks_are_gathered_without_the_log() {
    let node = Node::start(1).await;
    let socket = node.connect().await;
    settled(&node).await;
    let before = applied(&node);
    let (emitted, answers) =
        node.adapter.emit_with_ack(Target::default(), event("x"), EmitFlags::default());
    emitted.await.unwrap();
    assert_eq!(take(&socket), [r#"420["x"]"#]);
    node.adapter.handle_ack(&socket, 0, Payload { json: "[1]".into(), attachments: Vec::new() });
    let answers = answers.answers(PATIENCE).await;
    assert!(answers.is_complete);
    assert_eq!(answers.answers.len(), 1);
    assert_eq!(applied(&node), before);
}

#[tokio::test]
async fn packet_that_the_log_would_not_take_is_refused() {
    let node = Node::start(1).await;
    let socket = node.connect().await;
    settled(&node).await;
    let large = Payload::event("x", &format!("\"{}\"", "y".repeat(17 << 20)), Vec::new());
    let refused = node.adapter.emit(Target::default(), large, EmitFlags::default());
    assert_eq!(refused.await, Err(ProposeError::Overloaded));
    assert!(take(&socket).is_empty());
}

/// Emits, and says whether the log took it.
async fn is_logged(node: &Node, adapter: &Adapter) -> bool {
    let before = applied(node);
    adapter.emit(Target::default(), event("x"), EmitFlags::default()).await.unwrap();
    applied(node) > before
}

#[tokio::test]
async fn packets_that_sockets_hear_of_go_through_the_log() {
    let node = Node::start(1).await;
    let socket = node.connect().await;
    settled(&node).await;
    node.adapter.hear(&socket, true);
    assert!(is_logged(&node, &node.adapter).await);
    node.adapter.hear(&socket, false);
    settled(&node).await;
    assert!(!is_logged(&node, &node.adapter).await);
}

#[tokio::test]
async fn packets_that_may_be_projected_go_through_the_log() {
    struct AsItIs;
    impl Projector for AsItIs {
        fn handle_room(&self, _room: &ByteString, _is_there: bool) {}

        fn project(&self, _room: &str, _payload: &Payload) -> Vec<Part> {
            Vec::new()
        }

        fn project_for(&self, _room: &str, _payload: &Payload, _rooms: &[&str]) -> Vec<Part> {
            Vec::new()
        }
    }
    let node = Node::start(1).await;
    node.adapter.project("some/", Arc::new(AsItIs));
    settled(&node).await;
    assert!(is_logged(&node, &node.adapter).await);
}

#[tokio::test]
async fn packets_that_are_kept_go_through_the_log() {
    let node = Node::start(1).await;
    let cluster = &node.adapter.cluster;
    let name: Namespace = "/kept".into();
    let terms = Some(RecoveryConfig::default());
    let kept = cluster.recoverable_adapter(&name, DeliveryMode::Replicated, terms);
    kept.connect(recipient(), SessionId::random(), Rooms::new()).await.unwrap();
    settled(&node).await;
    assert!(is_logged(&node, &kept).await);
    // As after a start with other settings: the state goes on keeping packets for this socket.
    cluster.retire(&kept);
    let other = cluster.adapter(&name, DeliveryMode::Replicated);
    settled(&node).await;
    assert!(is_logged(&node, &other).await);
}

#[tokio::test]
async fn packet_of_an_adapter_out_of_use_reaches_the_sockets_of_the_one_in_use() {
    let node = Node::start(1).await;
    let cluster = &node.adapter.cluster;
    cluster.retire(&node.adapter);
    let current = node.adapter.current();
    let socket = recipient();
    current.connect(socket.clone(), SessionId::random(), Rooms::new()).await.unwrap();
    take(&socket);
    settled(&node).await;
    node.adapter.emit(Target::default(), event("x"), EmitFlags::default()).await.unwrap();
    assert_eq!(take(&socket), [r#"42["x"]"#]);
}

#[tokio::test]
async fn packets_are_refused_while_their_node_is_fenced() {
    let node = Node::start(1).await;
    let socket = node.connect().await;
    settled(&node).await;
    node.adapter.cluster.raft.pump().fence();
    let refused = node.adapter.emit(Target::default(), event("x"), EmitFlags::default());
    assert_eq!(refused.await, Err(ProposeError::NoQuorum));
    node.adapter.cluster.raft.drain().await;
    let refused = node.adapter.emit(Target::default(), event("x"), EmitFlags::default());
    assert_eq!(refused.await, Err(ProposeError::Draining));
    assert!(take(&socket).is_empty());
}

/// Who is meant is decided from one state.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_agreed_is_acted_on_while_a_packet_is_handed_out() {
    let node = Node::start(1).await;
    let socket = node.connect().await;
    for n in 0..20 {
        settled(&node).await;
        let name = n.to_string();
        let turn = node.adapter.turn();
        let joined = node.adapter.join(socket.id, rooms(&name));
        wait_until_applied(&node);
        std::thread::yield_now();
        let members = node.adapter.local.matching(&room(&name), Plane::Agreed);
        assert!(members.is_empty(), "it is somebody else's turn");
        drop(turn);
        joined.await.unwrap();
        assert_eq!(node.adapter.local.matching(&room(&name), Plane::Agreed), [socket.id]);
    }
}

/// Blocks until all that was proposed is applied, and the delivery task has it.
fn wait_until_applied(node: &Node) {
    let packet = node.adapter.packet(Target::default(), event("x"), EmitFlags::default(), None);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !node.adapter.cluster.raft.may_act_alone(&packet) {
        assert!(tokio::time::Instant::now() < deadline);
        std::thread::yield_now();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packet_does_not_overtake_those_that_are_yet_to_be_handed_out() {
    let node = Node::start(1).await;
    let socket = node.connect().await;
    settled(&node).await;
    let emit = |name| node.adapter.emit(Target::default(), event(name), EmitFlags::default());
    let turn = node.adapter.turn();
    let first = emit("first");
    wait_until_applied(&node);
    assert!(take(&socket).is_empty(), "it is somebody else's turn");
    drop(turn);
    let second = emit("second");
    first.await.unwrap();
    second.await.unwrap();
    assert_eq!(take(&socket), [r#"42["first"]"#, r#"42["second"]"#]);
}

/// Each writer's packets, with changes between them, some awaited and some not: all sockets have all
/// of them in one order, which is that of each writer.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn all_sockets_have_one_order_whichever_way_a_packet_went() {
    const WRITERS: usize = 4;
    const PACKETS: usize = 200;
    let node = Arc::new(Node::start(1).await);
    let sockets = [node.connect().await, node.connect().await, node.connect().await];
    let before = logged_packets(&node);
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (node, socket) = (node.clone(), sockets[writer % sockets.len()].id);
            node.tasks.clone().spawn(async move {
                for n in 0..PACKETS {
                    if n % 20 == writer {
                        drop(node.adapter.join(socket, rooms(&format!("{writer}-{n}"))));
                    }
                    let name = format!("{writer}-{n}");
                    let emitted =
                        node.adapter.emit(Target::default(), event(&name), EmitFlags::default());
                    if n % 3 == 0 {
                        emitted.await.unwrap();
                    }
                    if n % 50 == 0 {
                        settled(&node).await;
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    settled(&node).await;
    let received = sockets.each_ref().map(|socket| take(socket));
    assert_eq!(received[0].len(), WRITERS * PACKETS);
    assert_eq!(received[0], received[1]);
    assert_eq!(received[0], received[2]);
    for writer in 0..WRITERS {
        let own: Vec<_> = (0..PACKETS).map(|n| format!(r#"42["{writer}-{n}"]"#)).collect();
        let prefix = format!(r#"42["{writer}-"#);
        let seen: Vec<_> =
            received[0].iter().filter(|packet| packet.starts_with(&prefix)).cloned().collect();
        assert_eq!(seen, own, "the order of writer {writer}");
    }
    let logged = logged_packets(&node) - before;
    assert!((1..(WRITERS * PACKETS) as u64).contains(&logged), "{logged} through the log");
}
