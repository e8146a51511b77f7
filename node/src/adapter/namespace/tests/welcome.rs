//! Sockets of a direct namespace, which are let in before the cluster knows them.

use serde_json::json;

use super::*;
use crate::adapter::Brought;
use crate::raft::state::{Outcome, SessionFilter};

impl Node {
    fn direct(&self) -> Arc<Adapter> {
        self.adapter.cluster().adapter(&"/d".into(), DeliveryMode::Direct)
    }
}

/// A socket that the cluster knows.
async fn known(adapter: &Adapter) -> Arc<Recipient> {
    let socket = recipient();
    adapter.connect(socket.clone(), SessionId::random(), Rooms::new()).await.unwrap();
    assert_eq!(socket.phase(), Phase::Connected);
    take(&socket);
    socket
}

fn emit(adapter: &Adapter, target: Target) {
    drop(adapter.emit(target, event("hi"), EmitFlags::default()));
}

fn own_room(socket: &Recipient) -> Target {
    room(socket.id.as_str())
}

#[tokio::test]
async fn socket_takes_part_before_the_cluster_knows_it() {
    let node = Node::start(1).await;
    let adapter = node.direct();
    let socket = recipient();
    let receipt = adapter.connect(socket.clone(), SessionId::random(), Rooms::new());
    let welcome = take(&socket);
    assert!(welcome.len() == 1 && welcome[0].starts_with("40/d,{"), "{welcome:?}");
    assert_ne!(socket.phase(), Phase::Connecting);
    for target in [Target::default(), own_room(&socket)] {
        emit(&adapter, target);
        assert_eq!(take(&socket), [r#"42/d,["hi"]"#]);
    }
    receipt.await.unwrap();
    assert_eq!(socket.phase(), Phase::Connected);
    assert!(adapter.view().socket(socket.id).is_some());
    emit(&adapter, own_room(&socket));
    assert_eq!(take(&socket), [r#"42/d,["hi"]"#], "and no other CONNECT");
}

#[tokio::test]
async fn socket_that_leaves_at_once_leaves_nothing() {
    let node = Node::start(1).await;
    let adapter = node.direct();
    let stays = known(&adapter).await;
    for wait in [0, 0, 1, 3, 6] {
        let socket = recipient();
        let receipt = adapter.connect(socket.clone(), SessionId::random(), Rooms::new());
        tokio::time::sleep(Duration::from_millis(wait)).await;
        adapter.leave_namespace(&socket);
        // Taken back, or agreed and undone.
        let _ = receipt.await;
        until("the socket to be gone", || adapter.view().socket(socket.id).is_none()).await;
        assert!(adapter.connecting().is_empty());
        assert!(adapter.local.get(&socket.id).is_none());
    }
    adapter.leave_namespace(&stays);
    until("all to be gone", || adapter.view().sockets_len() == 0).await;
}

#[tokio::test]
async fn socket_that_others_may_look_for_waits_for_the_cluster() {
    let node = Node::start(1).await;
    let adapter = node.direct();
    let session = SessionId::random();
    let keep = Some(Duration::from_secs(60));
    let [member, keeps, shares] = [recipient(), recipient(), recipient()];
    let receipt = adapter.connect(member.clone(), SessionId::random(), rooms("r"));
    assert_eq!(member.phase(), Phase::Connecting, "in a room");
    receipt.await.unwrap();
    let brought = Brought { id: session, keep, is_written: false };
    let receipt = adapter.connect_with_session(keeps.clone(), brought, Rooms::new());
    assert_eq!(keeps.phase(), Phase::Connecting, "a session that is kept");
    receipt.await.unwrap();
    let receipt = adapter.connect(shares.clone(), session, Rooms::new());
    assert_eq!(shares.phase(), Phase::Connecting, "a session that is there");
    receipt.await.unwrap();
    assert_eq!(shares.phase(), Phase::Connected);
    let writes = recipient();
    let brought = Brought { id: SessionId::random(), keep: None, is_written: true };
    let receipt = adapter.connect_with_session(writes.clone(), brought, Rooms::new());
    assert_eq!(writes.phase(), Phase::Connecting, "a session that is being written");
    receipt.await.unwrap();
}

#[tokio::test]
async fn nobody_is_welcomed_without_a_quorum() {
    let node = Node::start(3).await;
    let adapter = node.direct();
    let socket = recipient();
    let receipt = adapter.connect(socket.clone(), SessionId::random(), Rooms::new());
    assert_eq!(receipt.await, Err(ProposeError::NoQuorum));
    assert_eq!((socket.phase(), take(&socket).len()), (Phase::Connecting, 0));
}

#[tokio::test]
async fn who_cannot_be_made_known_goes_on_and_may_be_later() {
    let node = Node::start(1).await;
    let adapter = node.direct();
    let socket = unknown(&adapter).await;
    let waits = recipient();
    assert_eq!(socket.phase(), Phase::Connected);
    assert!(!adapter.go_on_unknown(&waits) && waits.phase() == Phase::Connecting);
    let again = adapter.connect(socket.clone(), SessionId::random(), Rooms::new());
    again.await.unwrap();
    until("it to be known", || adapter.view().socket(socket.id).is_some()).await;
    assert_eq!(take(&socket).len(), 1, "one CONNECT");
    assert!(adapter.connecting().is_empty());
    adapter.leave_namespace(&socket);
    assert!(!adapter.go_on_unknown(&socket), "it is over");
    until("it to be gone", || adapter.view().socket(socket.id).is_none()).await;
}

/// One that was welcomed, and that the cluster could not be told of.
async fn unknown(adapter: &Adapter) -> Arc<Recipient> {
    let pump = adapter.cluster().raft().pump();
    loop {
        let socket = recipient();
        let receipt = adapter.connect(socket.clone(), SessionId::random(), Rooms::new());
        pump.fence();
        pump.open();
        if receipt.await.is_err() {
            assert!(adapter.go_on_unknown(&socket));
            return socket;
        }
        // It was agreed on, for this thread was kept from running.
        adapter.leave_namespace(&socket);
        until("the socket to be gone", || adapter.view().socket(socket.id).is_none()).await;
    }
}

#[tokio::test]
async fn who_went_on_unknown_is_known_before_what_it_does_next() {
    let node = Node::start(1).await;
    let adapter = node.direct();
    let socket = unknown(&adapter).await;
    // Until it is registered again, as after a lost quorum.
    adapter.cluster().raft().pump().fence();
    let joined = loop {
        match adapter.join(socket.id, rooms("r")).await {
            Err(ProposeError::NoQuorum) => tokio::time::sleep(Duration::from_millis(1)).await,
            joined => break joined,
        }
    };
    assert_eq!(joined, Ok(Outcome::Applied));
    assert_eq!(take(&socket).len(), 1, "one CONNECT");
    emit(&adapter, room("r"));
    assert_eq!(take(&socket).len(), 1);
    let again = adapter.connect(socket.clone(), SessionId::random(), Rooms::new());
    assert_eq!(again.await, Ok(Outcome::Applied));
    assert!(adapter.connecting().is_empty(), "it is known already");
    adapter.leave_namespace(&socket);
    until("all to be gone", || adapter.view().sockets_len() == 0).await;
}

#[tokio::test]
async fn only_those_who_take_part_are_proposed_ahead() {
    let node = Node::start(1).await;
    let adapter = node.direct();
    let pump = adapter.cluster().raft().pump();
    let [gone, closing] = [unknown(&adapter).await, unknown(&adapter).await];
    adapter.leave_namespace(&gone);
    adapter.begin_anew();
    let [welcomed, member] = [recipient(), recipient()];
    let refused = [
        adapter.connect(welcomed.clone(), SessionId::random(), Rooms::new()),
        adapter.connect(member.clone(), SessionId::random(), rooms("r")),
    ];
    pump.fence();
    adapter.make_known_ahead();
    pump.open();
    for receipt in refused {
        let _ = receipt.await;
    }
    known(&adapter).await;
    let view = adapter.view();
    assert!(view.socket(welcomed.id).is_some(), "whether it has been told so or not");
    for socket in [gone, closing] {
        assert!(view.socket(socket.id).is_none());
    }
    // It has yet to be proposed, with its room, unless it was before the fence.
    let is_known = view.socket(member.id).is_some();
    assert_eq!(is_known, member.phase() == Phase::Connected);
    if !is_known {
        adapter.connect(member.clone(), SessionId::random(), rooms("r")).await.unwrap();
    }
    emit(&adapter, room("r"));
    assert_eq!(take(&member).last().unwrap(), r#"42/d,["hi"]"#);
}

#[tokio::test]
async fn all_that_match_are_those_who_are_here_when_they_are_disconnected() {
    let node = Node::start(1).await;
    let adapter = node.direct();
    for _ in 0..20 {
        let unknown = unknown(&adapter).await;
        let [welcomed, late] = [recipient(), recipient()];
        let receipt = adapter.connect(welcomed.clone(), SessionId::random(), Rooms::new());
        let disconnected = adapter.disconnect_matching(Target::default(), false);
        let late_receipt = adapter.connect(late.clone(), SessionId::random(), Rooms::new());
        receipt.await.unwrap();
        disconnected.await.unwrap();
        for socket in [&unknown, &welcomed] {
            until("the disconnect", || socket.phase() == Phase::Disconnected).await;
            assert_eq!(take(socket).last().unwrap(), "41/d,");
            adapter.leave_namespace(socket);
        }
        late_receipt.await.unwrap();
        assert_eq!((late.phase(), take(&late).len()), (Phase::Connected, 1), "only its CONNECT");
        adapter.leave_namespace(&late);
        until("all to be gone", || adapter.view().sockets_len() == 0).await;
    }
}

#[tokio::test]
async fn only_what_may_be_for_a_socket_that_nobody_knows_concerns_all_nodes() {
    let node = Node::start(1).await;
    let adapter = node.direct();
    let socket = known(&adapter).await;
    let view = adapter.view();
    let filter = SessionFilter::try_from(json!({"a": 1})).unwrap();
    let filtered = Target { filter: Some(filter), ..Target::default() };
    let anyone = SessionFilter::try_from(json!({})).unwrap();
    let anyone = Target { filter: Some(anyone), ..Target::default() };
    for target in [Target::default(), anyone, own_room(&recipient())] {
        assert!(adapter.may_be_unknown(&view, &target), "{target:?}");
        assert!(!node.adapter.may_be_unknown(&view, &target), "replicated");
    }
    for target in [filtered, room("r"), own_room(&socket)] {
        assert!(!adapter.may_be_unknown(&view, &target), "{target:?}");
    }
    // Others may be in a room that is called like it.
    let id = SocketId::random();
    adapter.join(socket.id, rooms(id.as_str())).await.unwrap();
    assert!(adapter.may_be_unknown(&adapter.view(), &room(id.as_str())));
}
