//! Tests of the local sockets, some against a plain model.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::adapter::outbox::{Outbox, OutboxLimits};
use crate::raft::state::SessionFilter;

fn recipient() -> Arc<Recipient> {
    let limits = OutboxLimits { max_bytes: 1024, max_packets: 16, ..OutboxLimits::default() };
    Arc::new(Recipient::new(SocketId::random(), Arc::new(Outbox::new(limits))))
}

fn session(value: serde_json::Value) -> Option<Arc<SessionValue>> {
    let text = value.to_string().into();
    let serde_json::Value::Object(object) = value else { panic!("a session is an object") };
    Some(Arc::new(SessionValue { text, object }))
}

fn met(local: &Local, target: &Target, plane: Plane) -> Vec<SocketId> {
    local.matching(target, plane)
}

fn to(rooms: &[&str]) -> Target {
    Target {
        rooms: rooms.iter().map(|room| ByteString::from(*room)).collect(),
        ..Target::default()
    }
}

#[test]
fn socket_that_is_there_already_makes_way_for_the_one_that_comes() {
    let local = Local::new(1);
    let [old, new] = [0, 1].map(|claim| {
        let there = recipient();
        Arc::new(Recipient::claiming(SocketId::from_bits([7; 15]), there.outbox.clone(), claim))
    });
    local.insert(old.clone(), &["x".into()], None, |_| {});
    local.insert(new.clone(), &["x".into()], None, |_| {});
    local.remove_recipient(&old);
    assert_eq!(local.matching(&to(&["x"]), Plane::Agreed), [new.id]);
    local.remove_recipient(&new);
    assert!(local.matching(&to(&["x"]), Plane::Agreed).is_empty());
}

#[test]
fn socket_in_several_of_the_rooms_is_visited_once() {
    let local = Local::new(4);
    let [a, b] = [recipient(), recipient()];
    local.insert(a.clone(), &["x".into(), "y".into()], None, |_| {});
    local.insert(b.clone(), &["y".into()], None, |_| {});
    let met = met(&local, &to(&["x", "y"]), Plane::Agreed);
    assert_eq!(met.len(), 2);
    assert_eq!(BTreeSet::from_iter(met), BTreeSet::from([a.id, b.id]));
}

#[test]
fn own_id_is_a_room_that_others_may_join() {
    let local = Local::new(2);
    let [a, b] = [recipient(), recipient()];
    local.insert(a.clone(), &[], None, |_| {});
    local.insert(b.clone(), &[], None, |_| {});
    let own = to(&[a.id.as_str()]);
    assert_eq!(met(&local, &own, Plane::Agreed), [a.id]);
    local.agree(&b.id, &own.rooms, true);
    assert_eq!(met(&local, &own, Plane::Agreed).len(), 2);
}

#[test]
fn except_and_filter_take_away() {
    let local = Local::new(1);
    let [a, b, c] = [recipient(), recipient(), recipient()];
    local.insert(a, &["muted".into()], session(json!({"n": 1})), |_| {});
    local.insert(b.clone(), &[], session(json!({"n": 1.0})), |_| {});
    local.insert(c, &[], None, |_| {});
    let filter = Some(SessionFilter::try_from(json!({"n": 1})).unwrap());
    let target =
        Target { filter, except: ["muted".into()].into_iter().collect(), ..Target::default() };
    assert_eq!(met(&local, &target, Plane::Agreed), [b.id]);
}

#[test]
fn join_is_direct_at_once_and_agreed_from_its_place_in_the_log() {
    let local = Local::new(1);
    let a = recipient();
    local.insert(a.clone(), &[], None, |_| {});
    let room = to(&["r"]);
    local.call(&a.id, &room.rooms, true);
    assert_eq!(met(&local, &room, Plane::Direct), [a.id]);
    assert_eq!(met(&local, &room, Plane::Agreed), []);
    local.agree(&a.id, &room.rooms, true);
    local.settle(&a.id, &room.rooms);
    assert_eq!(met(&local, &room, Plane::Agreed), [a.id]);
    assert_eq!(met(&local, &room, Plane::Direct), [a.id]);
}

#[test]
fn packets_of_the_log_pass_those_by_that_are_adrift() {
    let local = Local::new(2).with_session_keys(&SessionKeys::new(["n"]));
    let [a, b] = [recipient(), recipient()];
    local.insert(a.clone(), &["x".into(), "y".into()], session(json!({"n": 1})), |_| {});
    let [first, second] = [1, 2].map(|index| Place { index, position: 0 });
    local.cast_adrift(first);
    local.insert(b.clone(), &["x".into()], None, |_| {});
    let all = Target::default();
    assert_eq!(met(&local, &all, Plane::Agreed), [b.id]);
    assert_eq!(met(&local, &to(&["x", "y"]), Plane::Agreed), [b.id]);
    assert_eq!(met(&local, &to(&[a.id.as_str()]), Plane::Agreed), []);
    let mut parts = Vec::new();
    let rooms: [&[ByteString]; 1] = [&["x".into()]];
    local.visit_parts(&rooms, &all, Plane::Agreed, |recipient, _, _| parts.push(recipient.id));
    assert_eq!(parts, [b.id]);
    assert_eq!(met(&local, &to(&["x"]), Plane::Direct).len(), 2);

    // Whoever is adrift has its packets up to where that began.
    local.cast_adrift(second);
    let places: BTreeMap<_, _> =
        local.adrift().into_iter().map(|(recipient, place)| (recipient.id, place)).collect();
    assert_eq!(places, BTreeMap::from([(a.id, first), (b.id, second)]));
    assert!(local.adrift_by(&a.id, 7).is_none(), "another connection");
    assert!(local.adrift_by(&a.id, 0).is_some());
    local.remove(&b.id);

    local.bring_in(&a.id, &["y".into(), "z".into()], session(json!({"n": 2})));
    assert!(!local.has_adrift() && local.adrift().is_empty());
    for plane in [Plane::Agreed, Plane::Direct] {
        assert_eq!(met(&local, &to(&["x"]), plane), []);
        assert_eq!(met(&local, &to(&["z"]), plane), [a.id]);
    }
    let of_session =
        |n: u64| Target { filter: Some(json!({"n": n}).try_into().unwrap()), ..Target::default() };
    assert_eq!(met(&local, &of_session(1), Plane::Agreed), []);
    assert_eq!(met(&local, &of_session(2), Plane::Agreed), [a.id]);
}

#[test]
fn join_whose_answer_was_given_up_counts_once_the_log_has_it() {
    let local = Local::new(1);
    let a = recipient();
    local.insert(a.clone(), &[], None, |_| {});
    let room = to(&["r"]);
    local.call(&a.id, &room.rooms, true);
    local.settle(&a.id, &room.rooms);
    assert_eq!(met(&local, &room, Plane::Direct), []);
    local.agree(&a.id, &room.rooms, true);
    assert_eq!(met(&local, &room, Plane::Direct), [a.id]);
    local.agree(&a.id, &room.rooms, false);
    assert_eq!(met(&local, &room, Plane::Direct), []);
    assert!(local.shards[0].lock().unwrap().rooms.is_empty());
}

#[test]
fn join_that_failed_is_undone() {
    let local = Local::new(1);
    let a = recipient();
    local.insert(a.clone(), &[], None, |_| {});
    let room = to(&["r"]);
    local.call(&a.id, &room.rooms, true);
    local.settle(&a.id, &room.rooms);
    assert_eq!(met(&local, &room, Plane::Direct), []);
    assert!(local.shards[0].lock().unwrap().rooms.is_empty());
}

#[test]
fn later_leave_is_not_overtaken_by_the_agreement_of_an_earlier_join() {
    let local = Local::new(1);
    let a = recipient();
    local.insert(a.clone(), &[], None, |_| {});
    let room = to(&["r"]);
    local.call(&a.id, &room.rooms, true);
    local.call(&a.id, &room.rooms, false);
    local.agree(&a.id, &room.rooms, true);
    local.settle(&a.id, &room.rooms);
    assert_eq!(met(&local, &room, Plane::Direct), []);
    assert_eq!(met(&local, &room, Plane::Agreed), [a.id]);
    local.agree(&a.id, &room.rooms, false);
    local.settle(&a.id, &room.rooms);
    assert_eq!(met(&local, &room, Plane::Agreed), []);
    assert!(local.shards[0].lock().unwrap().rooms.is_empty());
}

#[test]
fn removed_socket_leaves_its_rooms_and_its_slot_is_used_again() {
    let local = Local::new(1);
    let [a, b] = [recipient(), recipient()];
    local.insert(a.clone(), &["r".into()], None, |_| {});
    assert!(local.remove(&a.id).is_some());
    assert!(local.remove(&a.id).is_none());
    local.insert(b.clone(), &[], None, |_| {});
    assert_eq!(met(&local, &to(&["r"]), Plane::Agreed), []);
    assert_eq!(met(&local, &Target::default(), Plane::Agreed), [b.id]);
    assert_eq!(local.shards[0].lock().unwrap().sockets.len(), 1);
}

/// Everything about six sockets, in the plainest form.
#[derive(Clone, Debug, Default)]
struct Model(BTreeMap<usize, ModelSocket>);

#[derive(Clone, Debug, Default)]
struct ModelSocket {
    session: Option<i64>,
    agreed: BTreeSet<usize>,
    /// By room: how many calls are not answered, and what the last of them said.
    calls: BTreeMap<usize, (usize, bool)>,
}

impl ModelSocket {
    fn is_in(&self, room: usize, plane: Plane) -> bool {
        let called = self.calls.get(&room).filter(|(pending, _)| *pending > 0);
        match (plane, called) {
            (Plane::Direct, Some((_, joined))) => *joined,
            _ => self.agreed.contains(&room),
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Insert {
        socket: usize,
        rooms: BTreeSet<usize>,
        session: Option<i64>,
    },
    Remove {
        socket: usize,
    },
    Session {
        socket: usize,
        value: i64,
    },
    /// A call; the log's word, if it says so at all; and the answer.
    Call {
        socket: usize,
        room: usize,
        joins: bool,
    },
    Agree {
        socket: usize,
        room: usize,
        joins: bool,
    },
    Settle {
        socket: usize,
        room: usize,
    },
    Visit {
        rooms: BTreeSet<usize>,
        except: BTreeSet<usize>,
        filter: Option<i64>,
        direct: bool,
    },
}

const SOCKETS: usize = 6;
/// The last of them is named after the first socket.
const ROOMS: usize = 4;

fn step() -> impl Strategy<Value = Step> {
    let rooms = || proptest::collection::btree_set(0..ROOMS, 0..3);
    let place = || (0..SOCKETS, 0..ROOMS - 1);
    prop_oneof![
        3 => (0..SOCKETS, rooms(), proptest::option::of(0..3_i64))
            .prop_map(|(socket, rooms, session)| Step::Insert { socket, rooms, session }),
        1 => (0..SOCKETS).prop_map(|socket| Step::Remove { socket }),
        1 => (0..SOCKETS, 0..3_i64).prop_map(|(socket, value)| Step::Session { socket, value }),
        4 => (place(), any::<bool>())
            .prop_map(|((socket, room), joins)| Step::Call { socket, room, joins }),
        4 => (place(), any::<bool>())
            .prop_map(|((socket, room), joins)| Step::Agree { socket, room, joins }),
        4 => place().prop_map(|(socket, room)| Step::Settle { socket, room }),
        6 => (rooms(), rooms(), proptest::option::of(0..3_i64), any::<bool>())
            .prop_map(|(rooms, except, filter, direct)| Step::Visit { rooms, except, filter, direct }),
    ]
}

proptest! {
    #[test]
    fn visits_meet_whom_a_plain_model_says(
        steps in proptest::collection::vec(step(), 0..80),
        shards in 1..4_usize,
        indexed in any::<bool>(),
    ) {
        let keys = SessionKeys::new(indexed.then_some("n"));
        let local = Local::new(shards).with_session_keys(&keys);
        let sockets: Vec<_> = (0..SOCKETS).map(|_| recipient()).collect();
        let mut model = Model::default();
        for step in steps {
            take_step(&local, &sockets, &mut model, step);
        }
        for recipient in &sockets {
            local.remove(&recipient.id);
        }
        for shard in &local.shards {
            prop_assert!(lock(shard).rooms.is_empty(), "a room is left behind");
            prop_assert!(lock(shard).indexed.is_empty(), "a session is left behind");
        }
    }
}

fn take_step(local: &Local, sockets: &[Arc<Recipient>], model: &mut Model, step: Step) {
    let name = |room: usize| match room {
        3 => ByteString::from(sockets[0].id.as_str()),
        room => format!("room {room}").into(),
    };
    let id = |socket: usize| sockets[socket].id;
    match step {
        Step::Insert { socket, rooms, session: value } => {
            if model.0.contains_key(&socket) {
                return;
            }
            // A socket is not told to join the room of its own id.
            let rooms: BTreeSet<_> =
                rooms.into_iter().filter(|room| (*room, socket) != (3, 0)).collect();
            let names: Vec<_> = rooms.iter().map(|room| name(*room)).collect();
            let value_object = value.and_then(|n| session(json!({"n": n})));
            local.insert(sockets[socket].clone(), &names, value_object, |_| {});
            let calls = BTreeMap::new();
            model.0.insert(socket, ModelSocket { session: value, agreed: rooms, calls });
        }
        Step::Remove { socket } => {
            let was_there = model.0.remove(&socket).is_some();
            assert_eq!(local.remove(&id(socket)).is_some(), was_there);
        }
        Step::Session { socket, value } => {
            local.set_session(&id(socket), session(json!({"n": value})).unwrap());
            if let Some(row) = model.0.get_mut(&socket) {
                row.session = Some(value);
            }
        }
        Step::Call { socket, room, joins } => {
            local.call(&id(socket), &[name(room)], joins);
            if let Some(row) = model.0.get_mut(&socket) {
                let (pending, last) = row.calls.entry(room).or_default();
                (*pending, *last) = (*pending + 1, joins);
            }
        }
        Step::Agree { socket, room, joins } => {
            local.agree(&id(socket), &[name(room)], joins);
            let Some(row) = model.0.get_mut(&socket) else { return };
            if joins {
                row.agreed.insert(room)
            } else {
                row.agreed.remove(&room)
            };
        }
        Step::Settle { socket, room } => {
            local.settle(&id(socket), &[name(room)]);
            if let Some((pending, _)) =
                model.0.get_mut(&socket).and_then(|row| row.calls.get_mut(&room))
            {
                *pending = pending.saturating_sub(1);
            }
        }
        Step::Visit { rooms, except, filter, direct } => {
            let plane = if direct { Plane::Direct } else { Plane::Agreed };
            let target = Target {
                rooms: rooms.iter().map(|room| name(*room)).collect(),
                except: except.iter().map(|room| name(*room)).collect(),
                filter: filter.map(|n| SessionFilter::try_from(json!({"n": n})).unwrap()),
            };
            let is_in = |socket: usize, row: &ModelSocket, room: usize| {
                (room, socket) == (3, 0) || row.is_in(room, plane)
            };
            let wanted: BTreeSet<_> = model
                .0
                .iter()
                .filter(|(socket, row)| {
                    let is_meant = |room: &usize| is_in(**socket, row, *room);
                    (rooms.is_empty() || rooms.iter().any(is_meant))
                        && !except.iter().any(is_meant)
                        && filter.is_none_or(|n| row.session == Some(n))
                })
                .map(|(socket, _)| id(*socket))
                .collect();
            let met = met(local, &target, plane);
            assert_eq!(met.len(), wanted.len(), "each is visited once");
            assert_eq!(BTreeSet::from_iter(met), wanted);
        }
    }
}

/// Who is visited for which part, in order, and whether it is their last.
fn visited(
    local: &Local,
    parts: &[&[ByteString]],
    target: &Target,
) -> Vec<(SocketId, usize, bool)> {
    let mut visited = Vec::new();
    local.visit_parts(parts, target, Plane::Agreed, |recipient, part, is_last| {
        visited.push((recipient.id, part, is_last));
    });
    visited
}

#[test]
fn parts_are_visited_in_their_order_and_the_last_of_each_socket_is_known() {
    let local = Local::new(1);
    let [a, b, c] = [recipient(), recipient(), recipient()];
    local.insert(a.clone(), &["x".into(), "x2".into(), "y".into()], None, |_| {});
    local.insert(b.clone(), &["y".into(), "z".into()], None, |_| {});
    local.insert(c.clone(), &["z".into()], session(json!({"team": 7})), |_| {});
    let rooms = |names: &[&str]| to(names).rooms;
    let [x, y, z] = [rooms(&["x", "x2"]), rooms(&["y"]), rooms(&["z", "nobody"])];
    let parts: [&[ByteString]; 3] = [&x, &y, &z];
    let (a, b, c) = (a.id, b.id, c.id);
    let mut all = visited(&local, &parts, &Target::default());
    all.sort_by_key(|(id, part, _)| (*part, *id != a, *id != b));
    let expected = [(a, 0, false), (a, 1, true), (b, 1, false), (b, 2, true), (c, 2, true)];
    assert_eq!(all, expected);
    // The next packet finds nothing left over of this one.
    assert_eq!(visited(&local, &parts[..1], &Target::default()), [(a, 0, true)]);
    let filtered = Target {
        filter: Some(SessionFilter::try_from(json!({"team": 7})).unwrap()),
        except: rooms(&["x"]),
        ..Target::default()
    };
    assert_eq!(visited(&local, &parts, &filtered), [(c, 2, true)]);
}
