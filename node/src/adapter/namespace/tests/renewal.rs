//! Tests of a node that begins anew, and has open sockets.

use std::collections::BTreeSet;

use super::*;
use crate::engineio::CloseReason;
use crate::raft::state::Outcome;

const DIRECT: EmitFlags =
    EmitFlags { direct: true, volatile: false, local: false, uncompressed: false };

impl Node {
    fn recoverable(&self) -> Arc<Adapter> {
        let recovery = Some(RecoveryConfig::default());
        self.adapter.cluster.recoverable_adapter(
            &"/back".into(),
            DeliveryMode::Replicated,
            recovery,
        )
    }
}

/// A socket that the cluster has let in, and its pid.
async fn connect(adapter: &Arc<Adapter>) -> (Arc<Recipient>, String) {
    let recipient = recipient();
    let session = SessionId::random();
    adapter.connect(recipient.clone(), session, rooms("r")).await.unwrap();
    let connect = take(&recipient).remove(0);
    let pid: serde_json::Value = serde_json::from_str(&connect["40/back,".len()..]).unwrap();
    (recipient, pid["pid"].as_str().unwrap().to_owned())
}

/// The arguments of the events that wait for a client, their names first.
fn events(recipient: &Recipient) -> Vec<Vec<serde_json::Value>> {
    let packets = take(recipient);
    packets.iter().map(|text| serde_json::from_str(&text["42/back,".len()..]).unwrap()).collect()
}

fn names(recipient: &Recipient) -> Vec<String> {
    let name = |event: Vec<serde_json::Value>| event[0].as_str().unwrap().to_owned();
    events(recipient).into_iter().map(name).collect()
}

async fn emit(adapter: &Arc<Adapter>, name: &str) {
    adapter.emit(room("r"), event(name), EmitFlags::default()).await.unwrap();
}

/// What the log tells of a node that was declared dead, and registered again: its sockets are
/// nobody's, and its next packets are another incarnation's.
async fn give_up(adapter: &Arc<Adapter>, socket: &Recipient) {
    adapter.begin_anew();
    let detached = Change::SocketDetached { socket: socket.id, claim: socket.claim, data: None };
    assert_eq!(adapter.propose(detached).await, Ok(Outcome::Applied));
}

async fn renewed(adapter: &Arc<Adapter>) {
    adapter.renew_sockets();
    until("the sockets to be this node's again", || !adapter.local.has_adrift()).await;
}

#[tokio::test]
async fn open_socket_gets_what_passed_it_by_once_and_nothing_again() {
    let node = Node::start(1).await;
    let adapter = node.recoverable();
    let (socket, _) = connect(&adapter).await;
    emit(&adapter, "before").await;
    give_up(&adapter, &socket).await;
    // Another client came in the meantime: it is this node's like any other.
    let (other, _) = connect(&adapter).await;
    emit(&adapter, "one").await;
    emit(&adapter, "two").await;
    assert_eq!(names(&socket), ["before"]);
    renewed(&adapter).await;
    emit(&adapter, "after").await;
    assert_eq!(names(&socket), ["one", "two", "after"]);
    assert_eq!(names(&other), ["one", "two", "after"]);
    assert_eq!(socket.outbox.closing(), None);
    let view = adapter.view();
    let row = view.socket(socket.id).unwrap();
    assert_eq!(row.owner().node, adapter.node_id());
}

#[tokio::test]
async fn it_is_in_the_rooms_that_it_was_moved_to_meanwhile() {
    let node = Node::start(1).await;
    let adapter = node.recoverable();
    let (socket, _) = connect(&adapter).await;
    give_up(&adapter, &socket).await;
    let own = room(socket.id.as_str());
    adapter.join_matching(own.clone(), rooms("new")).await.unwrap();
    adapter.leave_matching(own, rooms("r")).await.unwrap();
    renewed(&adapter).await;
    for plane in [Plane::Agreed, Plane::Direct] {
        assert_eq!(adapter.local.matching(&room("new"), plane), [socket.id]);
        assert_eq!(adapter.local.matching(&room("r"), plane), []);
    }
}

#[tokio::test]
async fn direct_packets_go_on_and_do_not_say_that_it_has_what_passed_it_by() {
    let node = Node::start(1).await;
    let adapter = node.recoverable();
    let (socket, pid) = connect(&adapter).await;
    emit(&adapter, "before").await;
    let offset = events(&socket)[0].last().unwrap().as_str().unwrap().to_owned();
    give_up(&adapter, &socket).await;
    emit(&adapter, "missed").await;
    // A client takes any text at the end of an event for its offset.
    adapter.emit(room("r"), event("direct"), DIRECT).await.unwrap();
    let direct = events(&socket);
    assert_eq!(direct, [[serde_json::json!("direct"), serde_json::Value::Null]]);

    // So if its connection is lost now, it still comes back for what it missed.
    adapter.lose_connection(&socket);
    let auth = serde_json::json!({ "pid": pid, "offset": offset }).to_string();
    let claim = adapter.claim_of(&auth).unwrap();
    let back = Arc::new(Recipient::claiming(socket.id, recipient().outbox.clone(), claim.key));
    adapter.claim(back.clone(), &claim).await.unwrap();
    assert!(take(&back)[0].starts_with(r#"42/back,["missed""#));
    adapter.emit(room("r"), event("direct"), DIRECT).await.unwrap();
    assert!(events(&back)[0].last().unwrap().is_string(), "nobody is adrift any more");
}

#[tokio::test]
async fn socket_that_was_claimed_elsewhere_is_closed() {
    let node = Node::start(1).await;
    let adapter = node.recoverable();
    let (socket, pid) = connect(&adapter).await;
    give_up(&adapter, &socket).await;
    let claim = adapter.claim_of(&serde_json::json!({ "pid": pid }).to_string()).unwrap();
    let elsewhere = Change::SocketClaim(Box::new(crate::raft::state::SocketClaim {
        socket: socket.id,
        pid: adapter.view().socket(socket.id).unwrap().pid(),
        namespace: "/back".into(),
        offset: crate::raft::state::Place::default(),
        key: claim.key,
        renews: false,
    }));
    assert_eq!(adapter.propose(elsewhere).await, Ok(Outcome::Applied));
    emit(&adapter, "for the other").await;
    renewed(&adapter).await;
    assert_eq!(socket.outbox.closing(), Some(CloseReason::ServerShutdown));
    assert_eq!(names(&socket), Vec::<String>::new());
    // The end of its connection does not end the socket.
    adapter.lose_connection(&socket);
    emit(&adapter, "x").await;
    assert!(!adapter.view().socket(socket.id).unwrap().is_detached());
}

#[tokio::test]
async fn client_that_came_back_to_the_same_node_is_the_only_one() {
    let node = Node::start(1).await;
    let adapter = node.recoverable();
    let (socket, pid) = connect(&adapter).await;
    give_up(&adapter, &socket).await;
    let claim = adapter.claim_of(&serde_json::json!({ "pid": pid }).to_string()).unwrap();
    let back = Arc::new(Recipient::claiming(socket.id, recipient().outbox.clone(), claim.key));
    adapter.claim(back.clone(), &claim).await.unwrap();
    assert!(socket.outbox.closing().is_some());
    take(&back);
    renewed(&adapter).await;
    emit(&adapter, "x").await;
    assert_eq!((names(&back), names(&socket)), (vec!["x".to_owned()], vec![]));
    assert_eq!(back.outbox.closing(), None);
}

#[tokio::test]
async fn connection_that_ends_before_it_is_asked_for_leaves_no_ghost() {
    let node = Node::start(1).await;
    let adapter = node.recoverable();
    let [(lost, _), (gone, _)] = [connect(&adapter).await, connect(&adapter).await];
    adapter.begin_anew();
    for socket in [&lost, &gone] {
        let detached = Change::SocketDetached { socket: socket.id, claim: 0, data: None };
        assert_eq!(adapter.propose(detached).await, Ok(Outcome::Applied));
    }
    adapter.lose_connection(&lost);
    adapter.leave_namespace(&gone);
    assert!(!adapter.local.has_adrift());
    adapter.renew_sockets();
    emit(&adapter, "x").await;
    assert!(adapter.view().socket(lost.id).unwrap().is_detached());
    assert!(adapter.view().socket(gone.id).is_none());
}

#[tokio::test]
async fn socket_of_a_namespace_without_recovery_is_closed() {
    let node = Node::start(1).await;
    let socket = node.connect().await;
    node.adapter.begin_anew();
    assert_eq!(socket.outbox.closing(), Some(CloseReason::ServerShutdown));
    assert!(node.adapter.local.get(&socket.id).is_none());
}

/// Sends numbers to all until `end`; those that were agreed, and those that never will be.
async fn count(adapter: Arc<Adapter>, end: CancellationToken) -> [Vec<u64>; 2] {
    let (mut agreed, mut refused) = (Vec::new(), Vec::new());
    for number in 0.. {
        let name = number.to_string();
        match adapter.emit(Target::default(), event(&name), EmitFlags::default()).await {
            Ok(_) => agreed.push(number),
            Err(ProposeError::Timeout) => {}
            Err(_) => refused.push(number),
        }
        if end.is_cancelled() {
            break;
        }
        tokio::task::yield_now().await;
    }
    [agreed, refused]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_that_is_given_up_again_and_again_keeps_its_clients() {
    let node = Node::start(1).await;
    let adapter = node.recoverable();
    let raft = &adapter.cluster.raft;
    let (socket, _) = connect(&adapter).await;
    let end = CancellationToken::new();
    let counting = node.tasks.spawn(count(adapter.clone(), end.clone()));
    let mut heard = Vec::new();
    for round in 0..5 {
        let before = raft.incarnation();
        raft.lose_track();
        until("another incarnation", || {
            heard.extend(names(&socket));
            raft.incarnation().is_some_and(|now| Some(now) != before)
        })
        .await;
        let named = rooms(&format!("room {round}"));
        // Proposals are taken again once the sockets were asked for, not before.
        let joined = loop {
            match adapter.join(socket.id, named.clone()).await {
                Err(ProposeError::NoQuorum | ProposeError::Timeout) => {
                    tokio::task::yield_now().await;
                }
                answered => break answered,
            }
        };
        assert_eq!(joined, Ok(Outcome::Applied));
    }
    end.cancel();
    let [agreed, refused] = counting.await.unwrap();
    emit(&adapter, "last").await;
    heard.extend(names(&socket));
    assert_eq!(heard.pop().as_deref(), Some("last"));
    let heard: Vec<u64> = heard.iter().map(|name| name.parse().unwrap()).collect();
    assert!(heard.is_sorted_by(|one, next| one < next), "{heard:?}");
    let heard = BTreeSet::from_iter(heard);
    assert!(agreed.iter().all(|number| heard.contains(number)), "{agreed:?} {heard:?}");
    assert!(!refused.iter().any(|number| heard.contains(number)), "{refused:?} {heard:?}");
    assert_eq!(socket.outbox.closing(), None);
    assert_eq!(adapter.view().window_numbers().detached, 0);
    let rooms = adapter.local.matching(&room("room 0"), Plane::Agreed);
    assert_eq!(rooms, [socket.id], "it is still in the rooms that it joined");
}
