//! Each rule of the agreed state, by example; `model` checks all of them together.

mod departures;
mod model;
mod recovery;

use bytestring::ByteString;
use serde_json::json;
use smallvec::smallvec;

use super::*;

/// A state with its log.
struct Log {
    state: State,
    index: u64,
}

fn socket(n: u8) -> SocketId {
    SocketId::from_bits([n; 15])
}

fn session(n: u8) -> SessionId {
    SessionId::from_bits([n; 15])
}

fn rooms(names: &[&str]) -> Rooms {
    names.iter().map(|name| ByteString::from(*name)).collect()
}

fn to(names: &[&str]) -> Target {
    Target { rooms: rooms(names), ..Target::default() }
}

fn socket_up(n: u8, namespace: &str, names: &[&str]) -> Change {
    Change::SocketUp(Box::new(SocketUp {
        socket: socket(n),
        pid: Pid::from_bits([n; 15]),
        namespace: namespace.into(),
        session: session(n),
        rooms: rooms(names),
        keep_session_ms: 0,
        recovery: None,
    }))
}

fn join(n: u8, names: &[&str]) -> Change {
    Change::Join { socket: socket(n), rooms: rooms(names) }
}

fn leave(n: u8, names: &[&str]) -> Change {
    Change::Leave { socket: socket(n), rooms: rooms(names) }
}

fn gone(n: u8) -> Change {
    Change::SocketGone { socket: socket(n), claim: 0 }
}

fn put(n: u8, expected: u64, value: &str) -> Change {
    salted(n, expected, 0, value)
}

fn salted(n: u8, expected: u64, salt: u64, value: &str) -> Change {
    Change::SessionPut { session: session(n), expected, salt, value: value.into() }
}

fn node_up(boot: u64) -> Change {
    Change::NodeUp(Box::new(NodeUp {
        boot,
        name: "n".into(),
        address: "127.0.0.1:1".into(),
        version: "0.1.0".into(),
    }))
}

impl Log {
    /// Nodes 1, 2 and 3 are registered.
    fn new() -> Self {
        let mut log = Self { state: State::default(), index: 0 };
        for node in 1..=3 {
            log.register(node, 0);
        }
        log
    }

    fn apply(&mut self, proposal: Proposal) -> (Verdict, Vec<Applied>) {
        self.index += 1;
        let mut applied = Vec::new();
        let verdict = self.state.apply(self.index, proposal, &mut applied);
        (verdict, applied)
    }

    fn register(&mut self, node: NodeId, boot: u64) -> Applied {
        let changes = vec![node_up(boot)];
        let (verdict, mut applied) =
            self.apply(Proposal { node, incarnation: 0, first_seq: 1, stamp_ms: 0, changes });
        assert_eq!(verdict, Verdict::Applied { skipped: 0 });
        applied.remove(0)
    }

    /// A proposal of the node's present incarnation that follows on its last.
    fn next(&self, node: NodeId, stamp_ms: u64, changes: Vec<Change>) -> Proposal {
        let row = self.state.node(node).unwrap();
        let (incarnation, first_seq) = (row.incarnation, row.last_seq + 1);
        Proposal { node, incarnation, first_seq, stamp_ms, changes }
    }

    fn propose_at(&mut self, node: NodeId, stamp_ms: u64, change: Change) -> Applied {
        let (verdict, mut applied) = self.apply(self.next(node, stamp_ms, vec![change]));
        assert_eq!(verdict, Verdict::Applied { skipped: 0 });
        assert_eq!(applied.len(), 1);
        applied.remove(0)
    }

    fn propose(&mut self, node: NodeId, change: Change) -> Applied {
        self.propose_at(node, 0, change)
    }

    fn declare_down(&mut self, by: NodeId, node: NodeId, stamp_ms: u64) -> Applied {
        let incarnation = self.state.node(node).unwrap().incarnation;
        self.propose_at(by, stamp_ms, Change::NodeDown { node, incarnation })
    }

    fn owner(&self, node: NodeId) -> Owner {
        Owner { node, incarnation: self.state.node(node).unwrap().incarnation }
    }

    fn rooms_of_socket(&self, n: u8) -> Vec<&str> {
        self.state.socket(socket(n)).unwrap().rooms().collect()
    }

    fn revision(&self, n: u8) -> u64 {
        self.state.session(session(n)).map_or(0, |session| session.revision)
    }
}

#[test]
fn changes_apply_once_and_in_order() {
    let mut log = Log::new();
    let first = log.next(1, 0, vec![socket_up(1, "/", &["a"]), join(1, &["b"])]);
    let (_, applied) = log.apply(first.clone());
    assert_eq!(applied.iter().map(|one| one.seq).collect::<Vec<_>>(), [1, 2]);

    let before = log.state.clone();
    let (verdict, applied) = log.apply(first.clone());
    assert_eq!((verdict, applied), (Verdict::Applied { skipped: 2 }, vec![]));
    log.state.advance_to(before.index());
    assert_eq!(log.state, before);

    let mut longer = first;
    longer.changes.push(leave(1, &["a"]));
    let (verdict, applied) = log.apply(longer);
    assert_eq!(verdict, Verdict::Applied { skipped: 2 });
    assert_eq!(applied[0].seq, 3);
    assert_eq!(log.rooms_of_socket(1), ["b"]);
}

#[test]
fn gap_in_the_sequence_refuses_the_proposal() {
    let mut log = Log::new();
    let mut proposal = log.next(1, 0, vec![socket_up(1, "/", &[])]);
    proposal.first_seq = 3;
    let (verdict, applied) = log.apply(proposal);
    assert_eq!((verdict, applied), (Verdict::Gap { expected: 1 }, vec![]));
    assert_eq!(log.state.sockets_len(), 0);
}

#[test]
fn retried_registration_keeps_the_incarnation() {
    let mut log = Log::new();
    log.propose(1, socket_up(1, "/", &[]));
    log.propose(1, join(1, &["a"]));
    let registered = log.register(1, 7);
    let owner = log.owner(1);
    assert_eq!(owner.incarnation, log.index);
    let outcome = Outcome::Registered { incarnation: owner.incarnation, last_seq: 2 };
    assert_eq!(registered.outcome, outcome);

    log.propose(1, socket_up(2, "/", &[]));
    let retried = log.register(1, 7);
    assert_eq!(retried.outcome, outcome);
    assert!(retried.effects.is_empty());
    assert_eq!(log.state.sockets_len(), 1);
}

#[test]
fn restarted_process_ends_its_older_incarnation() {
    let mut log = Log::new();
    log.propose(1, socket_up(1, "/", &["a"]));
    log.propose(2, socket_up(2, "/", &["a"]));
    let (old, stale) = (log.owner(1), log.next(1, 0, vec![join(2, &["b"])]));
    let registered = log.register(1, 7);
    let new = log.owner(1);
    assert_eq!(
        registered.effects.to_vec(),
        [Effect::NodeDown { owner: old }, Effect::NodeUp { owner: new }]
    );
    assert_eq!(log.state.matching("/", &to(&["a"])), [socket(2)]);

    let (verdict, applied) = log.apply(stale);
    assert_eq!(verdict, Verdict::Refused { alive: Some(new.incarnation) });
    assert!(applied.is_empty());
}

#[test]
fn node_that_was_declared_down_changes_nothing_until_it_registers() {
    let mut log = Log::new();
    log.propose(1, socket_up(1, "/", &["a"]));
    let stale = log.next(1, 0, vec![join(1, &["b"])]);
    let old = log.owner(1);
    let down = log.declare_down(2, 1, 0);
    assert_eq!(down.effects.to_vec(), [Effect::NodeDown { owner: old }]);
    assert_eq!((log.state.sockets_len(), log.state.rooms_len()), (0, 0));
    assert_eq!(log.apply(stale).0, Verdict::Refused { alive: None });

    // The same process comes back: its boot is the same, its incarnation is not.
    let registered = log.register(1, 0);
    let incarnation = log.index;
    assert_eq!(registered.outcome, Outcome::Registered { incarnation, last_seq: 1 });
    assert_eq!(registered.effects.to_vec(), [Effect::NodeUp { owner: log.owner(1) }]);
}

#[test]
fn node_down_for_an_older_incarnation_is_void() {
    let mut log = Log::new();
    let old = log.owner(1);
    log.register(1, 7);
    log.propose(1, socket_up(1, "/", &[]));
    let Owner { node, incarnation } = old;
    let down = log.propose(2, Change::NodeDown { node, incarnation });
    assert!(down.effects.is_empty());
    assert_eq!(log.state.sockets_len(), 1);
    assert_eq!(log.state.alive(1), Some(log.owner(1).incarnation));
}

#[test]
fn node_cannot_declare_itself_down() {
    let mut log = Log::new();
    assert!(log.declare_down(1, 1, 0).effects.is_empty());
    assert!(log.state.alive(1).is_some());
}

#[test]
fn draining_node_still_proposes() {
    let mut log = Log::new();
    log.propose(1, Change::NodeDraining);
    assert_eq!(log.state.node(1).unwrap().status, NodeStatus::Draining);
    assert_eq!(log.propose(1, socket_up(1, "/", &[])).outcome, Outcome::Applied);
}

#[test]
fn only_a_registration_comes_without_incarnation() {
    let mut log = Log::new();
    for changes in [vec![], vec![socket_up(1, "/", &[])], vec![node_up(9), node_up(9)]] {
        let proposal = Proposal { incarnation: 0, ..log.next(1, 0, changes) };
        let alive = log.state.alive(1);
        assert_eq!(log.apply(proposal), (Verdict::Refused { alive }, vec![]));
    }
    assert_eq!(log.state.sockets_len(), 0);
}

#[test]
fn join_and_leave_are_idempotent_and_pass_over_the_own_room() {
    let mut log = Log::new();
    log.propose(1, socket_up(1, "/", &["a"]));
    let own = socket(1);
    let again = log.propose(1, join(1, &["a", own.as_str(), "b"]));
    let effect = Effect::Joined {
        namespace: "/".into(),
        owner: log.owner(1),
        socket: own,
        rooms: rooms(&["a", "b"]),
    };
    assert_eq!(again.effects.to_vec(), [effect]);
    assert_eq!(log.rooms_of_socket(1), ["a", "b"]);
    assert_eq!(log.state.rooms_of("/").collect::<Vec<_>>(), [("a", 1), ("b", 1)]);

    assert!(log.propose(1, leave(1, &[own.as_str()])).effects.is_empty());
    assert_eq!(log.state.matching("/", &to(&[own.as_str()])), [own]);
    log.propose(1, leave(1, &["a", "b", "never"]));
    assert_eq!(log.state.rooms_len(), 0);
}

#[test]
fn only_its_owner_changes_a_socket() {
    let mut log = Log::new();
    log.propose(1, socket_up(1, "/", &["a"]));
    let before = log.state.sockets.clone();
    for change in [join(1, &["b"]), leave(1, &["a"]), gone(1), join(9, &["b"]), gone(9)] {
        let applied = log.propose(2, change);
        assert_eq!(applied.outcome, Outcome::UnknownSocket);
        assert!(applied.effects.is_empty());
    }
    assert_eq!(log.propose(2, socket_up(1, "/", &["b"])).outcome, Outcome::UnknownSocket);
    assert_eq!(log.state.sockets, before);
}

#[test]
fn socket_that_goes_leaves_its_rooms_and_namespace() {
    let mut log = Log::new();
    log.propose(1, socket_up(1, "/chat", &["a", "b"]));
    let applied = log.propose(1, gone(1));
    let effect =
        Effect::SocketGone { namespace: "/chat".into(), owner: log.owner(1), socket: socket(1) };
    assert_eq!(applied.effects.to_vec(), [effect]);
    assert_eq!((log.state.rooms_len(), log.state.namespaces().count()), (0, 0));
}

#[test]
fn target_is_evaluated_at_its_place_in_the_log() {
    let mut log = Log::new();
    for (node, n, room) in [(1, 1, "a"), (2, 2, "a"), (3, 3, "b")] {
        log.propose(node, socket_up(n, "/", &[room]));
    }
    log.propose(1, socket_up(4, "/other", &["a"]));
    let (namespace, target) = (ByteString::from("/"), to(&["a"]));
    let change = Change::JoinMatching { namespace, target: target.into(), rooms: rooms(&["c"]) };
    assert_eq!(log.propose(3, change).effects.len(), 2);
    assert_eq!(log.state.matching("/", &to(&["c"])), [socket(1), socket(2)]);

    let target = Target { except: smallvec!["c".into()], ..Target::default() };
    assert_eq!(log.state.matching("/", &target), [socket(3)]);
    let change = Change::LeaveMatching {
        namespace: "/".into(),
        target: to(&["c"]).into(),
        rooms: rooms(&["a", "c"]),
    };
    log.propose(3, change);
    assert_eq!(log.rooms_of_socket(1), [""; 0]);
    assert_eq!(log.rooms_of_socket(4), ["a"]);
}

#[test]
fn disconnect_by_target_is_left_to_the_owners() {
    let mut log = Log::new();
    log.propose(1, socket_up(1, "/", &["a"]));
    let change = Change::DisconnectMatching {
        namespace: "/".into(),
        target: to(&["a"]).into(),
        close: true,
    };
    let effect = Effect::Disconnect {
        namespace: "/".into(),
        owner: log.owner(1),
        socket: socket(1),
        close: true,
    };
    assert_eq!(log.propose(2, change).effects.to_vec(), [effect]);
    assert!(log.state.socket(socket(1)).is_some());
}

#[test]
fn nodes_of_a_target_are_those_with_members() {
    let mut log = Log::new();
    log.propose(1, socket_up(1, "/", &["a"]));
    log.propose(1, socket_up(2, "/", &["a"]));
    log.propose(3, socket_up(3, "/", &["a", "b"]));
    assert_eq!(log.state.nodes_of_room("/", "a").to_vec(), [1, 3]);
    assert_eq!(log.state.nodes_of_room("/", socket(3).as_str()).to_vec(), [3]);
    assert_eq!(log.state.nodes_of_room("/other", socket(3).as_str()).to_vec(), [0; 0]);
    assert_eq!(log.state.nodes_of_target("/", &to(&["b", "none"])).to_vec(), [3]);
    assert_eq!(log.state.nodes_of_target("/", &to(&[])).to_vec(), [1, 3]);
    log.propose(1, gone(1));
    assert_eq!(log.state.nodes_of_room("/", "a").to_vec(), [1, 3]);
    log.propose(1, gone(2));
    assert_eq!(log.state.nodes_of_room("/", "a").to_vec(), [3]);
    assert_eq!(log.state.nodes_of_target("/", &to(&[])).to_vec(), [3]);
}

#[test]
fn large_room_is_the_same_set_as_a_small_one() {
    let mut log = Log::new();
    for n in 0..100 {
        log.propose(1 + u64::from(n) % 3, socket_up(n, "/", &["all"]));
    }
    let all: Vec<SocketId> = (0..100).map(socket).collect();
    assert_eq!(log.state.matching("/", &to(&["all"])), all);
    for n in 5..100 {
        log.propose(1 + u64::from(n) % 3, leave(n, &["all"]));
    }
    assert_eq!(log.state.matching("/", &to(&["all"])), all[..5]);
    let copy = State::decode(log.state.encode()).unwrap();
    assert_eq!(copy, log.state);
}

#[test]
fn session_is_written_if_its_revision_is_the_expected_one() {
    let mut log = Log::new();
    log.propose(1, socket_up(1, "/", &[]));
    let written = log.propose(2, put(1, 0, r#"{"name":"ann"}"#));
    let revision = next_revision(0, 2);
    assert_eq!(written.outcome, Outcome::Written { revision });
    let [Effect::SessionChanged { socket: changed, value, owner, .. }] = &written.effects[..]
    else {
        panic!("one socket uses the session: {:?}", written.effects)
    };
    assert_eq!((*changed, *owner), (socket(1), log.owner(1)));
    assert_eq!(value.object["name"], json!("ann"));

    let late = log.propose(1, put(1, 0, r#"{"name":"bob"}"#));
    let value = ByteString::from(r#"{"name":"ann"}"#);
    assert_eq!(late.outcome, Outcome::Conflict { revision, value });
    assert!(late.effects.is_empty());
    let again = log.propose(1, put(1, revision, "{}"));
    assert_eq!(again.outcome, Outcome::Written { revision: next_revision(revision, 1) });
}

/// A node queued two writes, the second on the first; another node's came before both.
#[test]
fn write_on_a_write_that_failed_fails_too() {
    let mut log = Log::new();
    log.propose(2, put(1, 0, r#"{"by":2}"#));
    let first = log.propose(1, put(1, 0, r#"{"by":1}"#));
    assert!(matches!(first.outcome, Outcome::Conflict { .. }), "{:?}", first.outcome);
    let second = log.propose(1, put(1, next_revision(0, 1), r#"{"by":1,"n":2}"#));
    assert!(matches!(second.outcome, Outcome::Conflict { .. }), "{:?}", second.outcome);
}

/// A node's first write failed, though a reader saw what it would make; then it wrote anew.
#[test]
fn write_on_a_write_that_failed_fails_though_its_node_wrote_again() {
    let mut log = Log::new();
    let never_proposed = next_revision(0, 1 ^ 7);
    log.propose(1, salted(1, 0, 8, r#"{"second":1}"#));
    let on_the_first = log.propose(1, salted(1, never_proposed, 9, r#"{"first":1}"#));
    let Outcome::Conflict { value, .. } = on_the_first.outcome else {
        panic!("{:?}", on_the_first.outcome)
    };
    assert_eq!(value, r#"{"second":1}"#);
}

#[test]
fn session_that_was_never_written_is_an_empty_object() {
    let mut log = Log::new();
    let conflict = log.propose(1, put(1, 5, "{}"));
    assert_eq!(conflict.outcome, Outcome::Conflict { revision: 0, value: "{}".into() });
    log.propose(1, socket_up(1, "/", &[]));
    let filter = |json| Target { filter: Some(SessionFilter::try_from(json).unwrap()), ..to(&[]) };
    assert_eq!(log.state.matching("/", &filter(json!({}))), [socket(1)]);
    assert_eq!(log.state.matching("/", &filter(json!({"a": 1}))), []);
    log.propose(1, put(1, 0, r#"{"a":1}"#));
    assert_eq!(log.state.matching("/", &filter(json!({"a": 1}))), [socket(1)]);
}

#[test]
fn session_that_is_no_object_is_not_written() {
    let mut log = Log::new();
    for text in ["[]", "1", "{", ""] {
        let outcome = log.propose(1, put(1, 0, text)).outcome;
        assert_eq!(outcome, Outcome::Conflict { revision: 0, value: "{}".into() });
    }
    assert_eq!(log.state.sessions_len(), 0);
}

#[test]
fn socket_comes_up_with_its_session() {
    let mut log = Log::new();
    log.propose(1, put(1, 0, r#"{"a":1}"#));
    let up = log.propose(1, socket_up(1, "/", &["a", socket(1).as_str()]));
    let [Effect::SocketUp { value: Some(value), rooms: joined, .. }] = &up.effects[..] else {
        panic!("the session was written: {:?}", up.effects)
    };
    assert_eq!(value.object["a"], json!(1));
    assert_eq!(*joined, rooms(&["a"]));
}

#[test]
fn session_goes_with_its_last_socket() {
    let mut log = Log::new();
    log.propose(1, socket_up(1, "/", &[]));
    let mut second = socket_up(2, "/other", &[]);
    if let Change::SocketUp(up) = &mut second {
        up.session = session(1);
    }
    log.propose(1, second);
    assert_eq!(log.propose(1, put(1, 0, "{}")).effects.len(), 2);
    log.propose(1, gone(1));
    assert_eq!(log.revision(1), next_revision(0, 1));
    log.propose(1, gone(2));
    assert_eq!(log.revision(1), 0);
}

/// A handler writes when its client has left, or middleware for a client that it then refuses.
#[test]
fn session_of_a_connection_without_a_socket_ends_within_a_minute() {
    let mut log = Log::new();
    log.propose(1, socket_up(1, "/", &[]));
    log.propose(1, gone(1));
    log.propose_at(1, 1000, put(1, 0, r#"{"late":1}"#));
    let touch = Change::SessionTouch { session: session(1), keep_ms: 0 };
    log.propose_at(1, 2000, touch);
    let end = 2000 + UNENTERED_TTL_MS;
    assert_eq!(log.state.expired_sessions(end - 1).count(), 0);
    let expired: Vec<Change> = log.state.expired_sessions(end).collect();
    log.propose_at(2, end, expired[0].clone());
    assert_eq!(log.state.sessions_len(), 0);

    // The socket that middleware wrote for finds it, and it goes with the socket's node as always.
    log.propose_at(1, 1000, put(2, 0, r#"{"early":1}"#));
    log.propose_at(1, 2000, socket_up(2, "/", &[]));
    assert_eq!(log.state.expired_sessions(u64::MAX).count(), 0, "a socket uses it");
    log.declare_down(2, 1, 3000);
    assert_eq!(log.state.session(session(2)).unwrap().expires_ms, 3000 + SESSION_TTL_MS);
}

/// A socket whose client comes back to its session.
fn keeping(n: u8, of: u8, keep_ms: u64) -> Change {
    let Change::SocketUp(mut up) = socket_up(n, "/", &[]) else { unreachable!() };
    up.session = session(of);
    up.keep_session_ms = keep_ms;
    Change::SocketUp(up)
}

#[test]
fn kept_session_is_made_with_its_first_socket_and_outlives_the_last() {
    let mut log = Log::new();
    let up = log.propose_at(1, 1000, keeping(1, 1, 500));
    let [Effect::SocketUp { value: Some(value), .. }] = &up.effects[..] else {
        panic!("the session is there: {:?}", up.effects)
    };
    assert!(value.object.is_empty());
    assert_eq!(log.revision(1), next_revision(0, 1));
    log.propose_at(2, 1100, keeping(2, 1, 0));
    log.propose(1, put(1, next_revision(0, 1), r#"{"a":1}"#));

    log.propose_at(1, 2000, gone(1));
    assert_eq!(log.state.expired_sessions(u64::MAX).count(), 0, "the other socket uses it");
    log.propose_at(2, 3000, gone(2));
    assert_eq!(log.state.session(session(1)).unwrap().expires_ms, 3500);
    assert!(log.state.kept_session(session(1), 3499).is_some());
    assert!(log.state.kept_session(session(1), 3500).is_none());
    log.propose_at(3, 4000, keeping(3, 1, 0));
    assert!(log.state.kept_session(session(1), u64::MAX).is_some(), "a socket uses it again");
    log.declare_down(2, 3, 5000);
    let expired: Vec<Change> = log.state.expired_sessions(5500).collect();
    log.propose_at(2, 5500, expired[0].clone());
    assert_eq!(log.state.sessions_len(), 0);
}

#[test]
fn session_of_a_connection_is_none_that_clients_come_back_to() {
    let mut log = Log::new();
    log.propose(1, socket_up(1, "/", &[]));
    log.propose(1, put(1, 0, "{}"));
    assert!(log.state.session(session(1)).is_some());
    assert!(log.state.kept_session(session(1), 0).is_none());
}

#[test]
fn touch_puts_the_end_off_and_makes_no_session_unless_it_is_to() {
    let mut log = Log::new();
    let touch = |keep_ms| Change::SessionTouch { session: session(1), keep_ms };
    assert_eq!(log.propose(1, touch(0)).outcome, Outcome::UnknownSession);
    assert_eq!(log.propose_at(1, 100, touch(500)).outcome, Outcome::Applied);
    assert_eq!(log.propose_at(2, 300, touch(0)).outcome, Outcome::Applied);
    let row = log.state.session(session(1)).unwrap();
    assert_eq!((row.expires_ms, row.keep_ms, row.revision), (800, 500, next_revision(0, 1)));
    // It has expired, and is over though nobody has said so yet.
    assert_eq!(log.propose_at(2, 800, touch(0)).outcome, Outcome::UnknownSession);
}

#[test]
fn destroyed_session_is_empty_for_its_sockets_from_its_place_on() {
    let mut log = Log::new();
    log.propose(1, keeping(1, 1, 500));
    log.propose(1, put(1, next_revision(0, 1), r#"{"a":1}"#));
    let filter = SessionFilter::try_from(json!({"a": 1})).unwrap();
    let target = Target { filter: Some(filter), ..to(&[]) };
    assert_eq!(log.state.matching("/", &target), [socket(1)]);
    let destroyed = log.propose(2, Change::SessionDestroy { session: session(1) });
    let [Effect::SessionChanged { socket: told, value, .. }] = &destroyed.effects[..] else {
        panic!("one socket uses it: {:?}", destroyed.effects)
    };
    assert_eq!((*told, &*value.text), (socket(1), "{}"));
    assert_eq!(log.state.matching("/", &target), []);
    let again = log.propose(2, Change::SessionDestroy { session: session(1) });
    assert_eq!(again.outcome, Outcome::UnknownSession);
    let late = log.propose(1, put(1, log.revision(1) + 1, "{}"));
    assert!(matches!(late.outcome, Outcome::Conflict { revision: 0, .. }), "{:?}", late.outcome);
}

#[test]
fn index_of_sessions_finds_who_is_meant() {
    let mut log = Log::new();
    log.state = log.state.with_session_keys(SessionKeys::new(["name"]));
    for (n, name) in [(1, "ann"), (2, "bob"), (3, "ann")] {
        log.propose(1, socket_up(n, if n == 3 { "/chat" } else { "/" }, &[]));
        log.propose(1, put(n, 0, &json!({"name": name, "n": n}).to_string()));
    }
    let target = |filter| Target {
        filter: Some(SessionFilter::try_from(filter).unwrap()),
        ..Target::default()
    };
    assert_eq!(log.state.matching("/", &target(json!({"name": "ann"}))), [socket(1)]);
    assert_eq!(log.state.matching("/chat", &target(json!({"name": "ann"}))), [socket(3)]);
    assert_eq!(log.state.matching("/", &target(json!({"n": 2, "name": "ann"}))), []);
    assert_eq!(log.state.matching("/", &target(json!({"n": 2}))), [socket(2)]);
    let copy = State::decode(log.state.encode()).unwrap();
    assert_ne!(copy, log.state);
    assert_eq!(copy.with_session_keys(SessionKeys::new(["name"])), log.state);
}

/// Snapshots of format 2 come from versions that knew no sessions which outlive their sockets.
#[test]
fn snapshot_of_the_format_before_is_read() {
    use prost::Message;
    let mut log = Log::new();
    log.propose(1, socket_up(1, "/", &[]));
    log.propose(1, put(1, 0, "{}"));
    let mut snapshot = flotilla_proto::state::Snapshot::decode(&*log.state.encode()).unwrap();
    snapshot.format = 2;
    snapshot.applied.truncate(16);
    assert_eq!(State::decode(snapshot.encode_to_vec()).unwrap(), log.state);
}

#[test]
fn session_outlives_its_node_until_it_expires() {
    let mut log = Log::new();
    log.propose(1, socket_up(1, "/", &[]));
    log.propose(1, put(1, 0, "{}"));
    assert_eq!(log.state.expired_sessions(u64::MAX).count(), 0);
    log.declare_down(2, 1, 1000);
    assert_eq!(log.revision(1), next_revision(0, 1));

    let end = 1000 + SESSION_TTL_MS;
    assert_eq!(log.state.expired_sessions(end - 1).count(), 0);
    let expired: Vec<Change> = log.state.expired_sessions(end).collect();
    assert_eq!(
        expired,
        [Change::SessionExpired { session: session(1), revision: next_revision(0, 1) }]
    );

    log.propose_at(2, end - 1, expired[0].clone());
    assert_eq!(log.revision(1), next_revision(0, 1), "the proposer's clock is behind");
    let other = Change::SessionExpired { session: session(1), revision: 2 };
    log.propose_at(2, end, other);
    assert_eq!(log.revision(1), next_revision(0, 1), "it was written meanwhile");
    log.propose(2, socket_up(1, "/", &[]));
    log.propose_at(2, end, expired[0].clone());
    assert_eq!(log.revision(1), next_revision(0, 1), "a socket uses it");
    log.declare_down(3, 2, 0);
    log.propose_at(3, end, expired[0].clone());
    assert_eq!(log.revision(1), 0);
}

#[test]
fn packet_passes_through() {
    let mut log = Log::new();
    let packet = Packet {
        namespace: "/".into(),
        target: to(&["a"]),
        payload: crate::socketio::Payload { json: "[1]".into(), attachments: vec![] },
        ack: Some(1),
        uncompressed: true,
    };
    let applied = log.propose(1, Change::Packet(Box::new(packet.clone())));
    let effect = Effect::Packet(Box::new(packet), log.owner(1));
    assert_eq!(applied.effects.to_vec(), [effect]);
}

#[test]
fn older_clone_does_not_change() {
    let mut log = Log::new();
    log.propose(1, socket_up(1, "/", &["a"]));
    let view = log.state.clone();
    log.propose(1, gone(1));
    assert_eq!(view.matching("/", &to(&["a"])), [socket(1)]);
    assert_eq!(log.state.matching("/", &to(&["a"])), []);
    assert_ne!(view.digest(), log.state.digest());
}

#[test]
fn socket_is_in_so_many_rooms_and_no_more() {
    let mut log = Log::new();
    let name = |number: usize| format!("r{number}");
    let all: Vec<String> = (0..MAX_ROOMS).map(name).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    log.propose(1, socket_up(1, "/", &all[1..]));
    log.propose(1, socket_up(2, "/", &[]));
    assert_eq!(log.propose(1, join(1, &["r0", "r1"])).outcome, Outcome::Applied);
    assert_eq!(log.propose(1, join(1, &all)).outcome, Outcome::Applied);
    let applied = log.propose(1, join(1, &["r0", "more"]));
    assert_eq!((applied.outcome, applied.effects.len()), (Outcome::TooManyRooms, 0));
    let everyone = Change::JoinMatching {
        namespace: "/".into(),
        target: to(&[]).into(),
        rooms: rooms(&["more"]),
    };
    log.propose(1, everyone);
    assert_eq!(log.rooms_of_socket(1).len(), MAX_ROOMS);
    assert_eq!(log.rooms_of_socket(2), ["more"]);
    log.propose(1, leave(1, &["r7"]));
    assert_eq!(log.propose(1, join(1, &["more"])).outcome, Outcome::Applied);
}

#[test]
fn snapshot_of_another_format_is_refused() {
    use prost::Message;
    let snapshot = flotilla_proto::state::Snapshot { format: 99, ..Default::default() };
    let error = State::decode(snapshot.encode_to_vec()).unwrap_err();
    assert!(matches!(error, DecodeError::UnknownFormat { found: 99 }));
    assert!(matches!(State::decode(vec![0xff; 7]), Err(DecodeError::Unreadable(_))));
}

#[test]
fn snapshot_that_contradicts_itself_is_refused() {
    use prost::Message;
    let mut log = Log::new();
    log.propose(1, socket_up(1, "/", &[]));
    let decoded = || flotilla_proto::state::Snapshot::decode(&*log.state.encode()).unwrap();
    let mut homeless = decoded();
    homeless.homes.clear();
    let mut orphan = decoded();
    orphan.nodes.clear();
    let mut doubled = decoded();
    doubled.sockets.push(doubled.sockets[0].clone());
    let mut short = decoded();
    short.sockets[0].id = vec![1].into();
    for snapshot in [homeless, orphan, doubled, short] {
        let error = State::decode(snapshot.encode_to_vec()).unwrap_err();
        assert!(matches!(error, DecodeError::Invalid(_)), "{error}");
    }
}

#[test]
fn dump_shows_every_row() {
    let mut log = Log::new();
    log.propose(1, socket_up(1, "/", &["a"]));
    log.propose(1, put(1, 0, r#"{"name":"ann"}"#));
    let dump = log.state.dump();
    assert_eq!(dump["index"], json!(5));
    assert_eq!(dump["nodes"][2]["status"], json!("alive"));
    let row = json!({
        "id": socket(1).as_str(),
        "namespace": "/",
        "node": 1,
        "detached": false,
        "session": session(1).as_str(),
        "rooms": ["a"],
    });
    assert_eq!(dump["sockets"], json!([row]));
    assert_eq!(dump["rooms"], json!([{"namespace": "/", "room": "a", "sockets": 1}]));
    assert_eq!(dump["sessions"][0]["value"], json!({"name": "ann"}));
    assert_eq!(dump["applied_changes"]["node_up"], json!(3));
    assert_eq!(dump["applied_changes"]["socket_up"], json!(1));
}
