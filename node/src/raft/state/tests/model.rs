//! Random histories, against a model so plain that it is seen to be right.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Register {
        node: NodeId,
        boot: u64,
    },
    Propose {
        node: NodeId,
        age: Age,
        seq: Seq,
        stamp_ms: u64,
        changes: Vec<Change>,
    },
    /// The state goes through a snapshot.
    Snapshot,
}

/// Which of its incarnations a node proposes as.
#[derive(Clone, Copy, Debug)]
enum Age {
    Present,
    Older,
}

#[derive(Clone, Copy, Debug)]
enum Seq {
    Next,
    Back(u64),
    Ahead,
}

#[derive(Clone, Debug, Default)]
struct Model {
    nodes: BTreeMap<NodeId, ModelNode>,
    sockets: BTreeMap<[u8; 15], ModelSocket>,
    sessions: BTreeMap<[u8; 15], ModelSession>,
}

#[derive(Clone, Debug)]
struct ModelNode {
    boot: u64,
    incarnation: u64,
    down: bool,
    draining: bool,
    last_seq: u64,
    previous_seq: u64,
}

#[derive(Clone, Debug)]
struct ModelSocket {
    owner: Owner,
    namespace: String,
    session: [u8; 15],
    rooms: Vec<String>,
}

#[derive(Clone, Debug)]
struct ModelSession {
    revision: u64,
    text: String,
    expires_ms: u64,
    keep_ms: u64,
}

impl ModelSession {
    fn new(revision: u64, keep_ms: u64) -> Self {
        Self { revision, text: "{}".to_owned(), expires_ms: 0, keep_ms }
    }

    fn used_at(&mut self, stamp_ms: u64, used: bool) {
        let connections = if used { SESSION_TTL_MS } else { UNENTERED_TTL_MS };
        let kept_ms = if self.keep_ms > 0 { self.keep_ms } else { connections };
        self.expires_ms = self.expires_ms.max(stamp_ms + kept_ms);
    }
}

impl Model {
    fn is_used(&self, session: &[u8; 15]) -> bool {
        self.sockets.values().any(|row| row.session == *session)
    }

    fn session_text(&self, session: &[u8; 15]) -> &str {
        self.sessions.get(session).map_or("{}", |row| &row.text)
    }

    fn alive(&self, node: NodeId) -> Option<u64> {
        self.nodes.get(&node).filter(|row| !row.down).map(|row| row.incarnation)
    }

    fn apply(&mut self, index: u64, proposal: &Proposal) -> (Verdict, Vec<Applied>) {
        let Proposal { node, incarnation, first_seq, stamp_ms, changes } = proposal;
        if let (0, [Change::NodeUp(up)]) = (*incarnation, &changes[..]) {
            return (
                Verdict::Applied { skipped: 0 },
                vec![self.register(index, *node, up.boot, *first_seq, *stamp_ms)],
            );
        }
        let alive = self.alive(*node);
        if alive != Some(*incarnation) {
            return (Verdict::Refused { alive }, vec![]);
        }
        let expected = self.nodes[node].last_seq + 1;
        if *first_seq > expected {
            return (Verdict::Gap { expected }, vec![]);
        }
        let owner = Owner { node: *node, incarnation: *incarnation };
        let (mut skipped, mut applied) = (0, vec![]);
        for (seq, change) in (*first_seq..).zip(changes) {
            if seq < expected {
                skipped += 1;
                continue;
            }
            let mut effects = vec![];
            let outcome = self.change(owner, *stamp_ms, change, &mut effects);
            applied.push(Applied { seq, outcome, effects: effects.into() });
            self.nodes.get_mut(node).unwrap().last_seq = seq;
        }
        (Verdict::Applied { skipped }, applied)
    }

    fn register(
        &mut self,
        index: u64,
        node: NodeId,
        boot: u64,
        seq: u64,
        stamp_ms: u64,
    ) -> Applied {
        let mut effects = Effects::new();
        let old = self.nodes.get(&node).cloned();
        if let Some(row) = old.as_ref().filter(|row| !row.down && row.boot == boot) {
            let outcome =
                Outcome::Registered { incarnation: row.incarnation, last_seq: row.previous_seq };
            return Applied { seq, outcome, effects };
        }
        if let Some(incarnation) = self.alive(node) {
            let owner = Owner { node, incarnation };
            self.purge(owner, stamp_ms);
            effects.push(Effect::NodeDown { owner });
        }
        effects.push(Effect::NodeUp { owner: Owner { node, incarnation: index } });
        let last_seq = old.map_or(0, |row| row.last_seq);
        let row = ModelNode {
            boot,
            incarnation: index,
            down: false,
            draining: false,
            last_seq: 0,
            previous_seq: last_seq,
        };
        self.nodes.insert(node, row);
        Applied { seq, outcome: Outcome::Registered { incarnation: index, last_seq }, effects }
    }

    fn purge(&mut self, owner: Owner, stamp_ms: u64) {
        for (_, row) in self.sockets.extract_if(.., |_, row| row.owner == owner) {
            if let Some(session) = self.sessions.get_mut(&row.session) {
                session.used_at(stamp_ms, true);
            }
        }
    }

    fn change(
        &mut self,
        by: Owner,
        stamp_ms: u64,
        change: &Change,
        effects: &mut Vec<Effect>,
    ) -> Outcome {
        match change {
            Change::NodeUp(_) => {
                let last_seq = self.nodes[&by.node].previous_seq;
                return Outcome::Registered { incarnation: by.incarnation, last_seq };
            }
            Change::NodeDraining => self.nodes.get_mut(&by.node).unwrap().draining = true,
            Change::NodeDown { node, incarnation } => {
                let owner = Owner { node: *node, incarnation: *incarnation };
                if owner != by && self.alive(*node) == Some(*incarnation) {
                    self.nodes.get_mut(node).unwrap().down = true;
                    self.purge(owner, stamp_ms);
                    effects.push(Effect::NodeDown { owner });
                }
            }
            Change::SocketUp(up) => return self.socket_up(by, stamp_ms, up, effects),
            Change::SocketGone { socket, .. } => {
                let id = socket.to_bits();
                if self.sockets.get(&id).is_none_or(|row| row.owner != by) {
                    return Outcome::UnknownSocket;
                }
                let row = self.sockets.remove(&id).unwrap();
                let keep_ms = self.sessions.get(&row.session).map_or(0, |session| session.keep_ms);
                match (self.is_used(&row.session), keep_ms) {
                    (true, _) => {}
                    (false, 0) => drop(self.sessions.remove(&row.session)),
                    (false, _) => {
                        self.sessions.get_mut(&row.session).unwrap().used_at(stamp_ms, true);
                    }
                }
                let namespace = row.namespace.into();
                effects.push(Effect::SocketGone { namespace, owner: by, socket: *socket });
            }
            Change::Join { socket, rooms } | Change::Leave { socket, rooms } => {
                let id = socket.to_bits();
                if self.sockets.get(&id).is_none_or(|row| row.owner != by) {
                    return Outcome::UnknownSocket;
                }
                self.move_one(id, rooms, matches!(change, Change::Join { .. }), effects);
            }
            Change::JoinMatching { namespace, target, rooms }
            | Change::LeaveMatching { namespace, target, rooms } => {
                let joins = matches!(change, Change::JoinMatching { .. });
                for id in self.matching(namespace, target) {
                    self.move_one(id, rooms, joins, effects);
                }
            }
            Change::DisconnectMatching { namespace, target, close } => {
                for id in self.matching(namespace, target) {
                    effects.push(Effect::Disconnect {
                        namespace: namespace.clone(),
                        owner: self.sockets[&id].owner,
                        socket: SocketId::from_bits(id),
                        close: *close,
                    });
                }
            }
            Change::SessionPut { session, expected, salt, value } => {
                let put = (session.to_bits(), *expected, &**value);
                return self.put(put, by.node ^ salt, stamp_ms, effects);
            }
            Change::SessionExpired { session, revision } => {
                let id = session.to_bits();
                let used = self.is_used(&id);
                if self.sessions.get(&id).is_some_and(|row| {
                    row.revision == *revision && row.expires_ms <= stamp_ms && !used
                }) {
                    self.sessions.remove(&id);
                }
            }
            Change::SessionTouch { session, keep_ms } => {
                return self.touch(session.to_bits(), *keep_ms, by.node, stamp_ms);
            }
            Change::SessionDestroy { session } => {
                let id = session.to_bits();
                if self.sessions.remove(&id).is_none() {
                    return Outcome::UnknownSession;
                }
                self.tell(id, "{}", effects);
            }
            Change::SocketDetached { .. }
            | Change::SocketClaim(_)
            | Change::WindowExpired { .. }
            | Change::HearDeparted
            | Change::DepartedTold { .. } => unreachable!("others test these"),
            Change::Packet(packet) => effects.push(Effect::Packet(packet.clone(), by)),
        }
        Outcome::Applied
    }

    fn socket_up(
        &mut self,
        by: Owner,
        stamp_ms: u64,
        up: &SocketUp,
        effects: &mut Vec<Effect>,
    ) -> Outcome {
        let id = up.socket.to_bits();
        if self.sockets.contains_key(&id) {
            return Outcome::UnknownSocket;
        }
        let session = up.session.to_bits();
        let row =
            ModelSocket { owner: by, namespace: up.namespace.to_string(), session, rooms: vec![] };
        self.sockets.insert(id, row);
        self.move_one(id, &up.rooms, true, &mut vec![]);
        if let Some(session) = self.sessions.get_mut(&session) {
            session.used_at(stamp_ms, true);
        }
        if up.keep_session_ms > 0 {
            self.touch(session, up.keep_session_ms, by.node, stamp_ms);
        }
        effects.push(Effect::SocketUp {
            namespace: up.namespace.clone(),
            owner: by,
            socket: up.socket,
            rooms: up.rooms.iter().filter(|room| ***room != *up.socket.as_str()).cloned().collect(),
            session: up.session,
            value: self
                .sessions
                .get(&session)
                .map(|row| SessionValue::parse(&row.text).unwrap().into()),
        });
        Outcome::Applied
    }

    fn move_one(&mut self, id: [u8; 15], rooms: &Rooms, joins: bool, effects: &mut Vec<Effect>) {
        let socket = SocketId::from_bits(id);
        let row = self.sockets.get_mut(&id).unwrap();
        let rooms: Rooms =
            rooms.iter().filter(|room| ***room != *socket.as_str()).cloned().collect();
        for room in &rooms {
            let is_in = row.rooms.iter().any(|joined| **joined == **room);
            match (joins, is_in) {
                (true, false) => row.rooms.push(room.to_string()),
                (false, true) => row.rooms.retain(|joined| **joined != **room),
                _ => {}
            }
        }
        if rooms.is_empty() {
            return;
        }
        let (namespace, owner) = (row.namespace.clone().into(), row.owner);
        effects.push(if joins {
            Effect::Joined { namespace, owner, socket, rooms }
        } else {
            Effect::Left { namespace, owner, socket, rooms }
        });
    }

    fn put(
        &mut self,
        (id, expected, text): ([u8; 15], u64, &str),
        mark: u64,
        stamp_ms: u64,
        effects: &mut Vec<Effect>,
    ) -> Outcome {
        let revision = self.sessions.get(&id).map_or(0, |row| row.revision);
        if revision != expected || SessionValue::parse(text).is_none() {
            return Outcome::Conflict { revision, value: self.session_text(&id).to_owned().into() };
        }
        let used = self.is_used(&id);
        let row = self.sessions.entry(id).or_insert_with(|| ModelSession::new(0, 0));
        row.revision = next_revision(revision, mark);
        row.text = text.to_owned();
        row.used_at(stamp_ms, used);
        let revision = row.revision;
        self.tell(id, text, effects);
        Outcome::Written { revision }
    }

    fn touch(&mut self, id: [u8; 15], keep_ms: u64, writer: NodeId, stamp_ms: u64) -> Outcome {
        let used = self.is_used(&id);
        let is_over = self.sessions.get(&id).is_none_or(|row| row.expires_ms <= stamp_ms && !used);
        if is_over {
            if keep_ms == 0 {
                return Outcome::UnknownSession;
            }
            self.sessions.insert(id, ModelSession::new(next_revision(0, writer), keep_ms));
        }
        let row = self.sessions.get_mut(&id).unwrap();
        if keep_ms > 0 {
            row.keep_ms = keep_ms;
        }
        row.used_at(stamp_ms, used);
        Outcome::Applied
    }

    /// The sockets of a session have another one.
    fn tell(&self, id: [u8; 15], text: &str, effects: &mut Vec<Effect>) {
        let value = SessionValue::parse(text).unwrap();
        for (socket, row) in self.sockets.iter().filter(|(_, row)| row.session == id) {
            effects.push(Effect::SessionChanged {
                namespace: row.namespace.clone().into(),
                owner: row.owner,
                socket: SocketId::from_bits(*socket),
                value: value.clone().into(),
            });
        }
    }

    fn matching(&self, namespace: &str, target: &Target) -> Vec<[u8; 15]> {
        let is_in = |id: &[u8; 15], row: &ModelSocket, room: &str| {
            row.rooms.iter().any(|joined| joined == room)
                || SocketId::from_bits(*id).as_str() == room
        };
        let object = |row: &ModelSocket| {
            SessionValue::parse(self.session_text(&row.session)).unwrap().object
        };
        self.sockets
            .iter()
            .filter(|(_, row)| row.namespace == namespace)
            .filter(|(id, row)| {
                target.rooms.is_empty() || target.rooms.iter().any(|room| is_in(id, row, room))
            })
            .filter(|(id, row)| !target.except.iter().any(|room| is_in(id, row, room)))
            .filter(|(_, row)| {
                target.filter.as_ref().is_none_or(|filter| filter.matches(&object(row)))
            })
            .map(|(id, _)| *id)
            .collect()
    }

    fn assert_equals(&self, state: &State) {
        for (id, node) in state.nodes() {
            let row = &self.nodes[&id];
            let status = match (row.down, row.draining) {
                (true, _) => NodeStatus::Down,
                (false, true) => NodeStatus::Draining,
                (false, false) => NodeStatus::Alive,
            };
            assert_eq!((node.incarnation, node.status), (row.incarnation, status));
            assert_eq!(node.last_seq, row.last_seq);
        }
        assert_eq!(state.nodes().count(), self.nodes.len());
        assert_eq!(state.sockets_len(), self.sockets.len());
        for node in 1..=3 {
            let count = self.sockets.values().filter(|row| row.owner.node == node).count();
            assert_eq!(state.sockets_of(node), count);
        }
        for socket in state.sockets() {
            let row = &self.sockets[&socket.id().to_bits()];
            assert_eq!((socket.owner(), &**socket.namespace()), (row.owner, &*row.namespace));
            assert_eq!(socket.session().to_bits(), row.session);
            assert_eq!(socket.rooms().collect::<Vec<_>>(), row.rooms);
        }
        assert_eq!(state.sessions_len(), self.sessions.len());
        for (id, session) in state.sessions() {
            let row = &self.sessions[&id.to_bits()];
            let value = (session.revision, &*session.value.text);
            assert_eq!(value, (row.revision, &*row.text));
            assert_eq!((session.expires_ms, session.keep_ms), (row.expires_ms, row.keep_ms));
        }
        self.assert_ends_equal(state);
        self.assert_rooms_equal(state);
    }

    /// Which sessions have expired, and which ones clients may come back to.
    fn assert_ends_equal(&self, state: &State) {
        for now_ms in [0, 1000, SESSION_TTL_MS, 2 * SESSION_TTL_MS, 4 * SESSION_TTL_MS] {
            let mut wanted: Vec<_> = self
                .sessions
                .iter()
                .filter(|(id, row)| row.expires_ms <= now_ms && !self.is_used(id))
                .map(|(id, row)| (row.expires_ms, *id, row.revision))
                .collect();
            wanted.sort_unstable();
            let expired = state.expired_sessions(now_ms).map(|change| match change {
                Change::SessionExpired { session, revision } => (session, revision),
                other => panic!("{other:?}"),
            });
            let wanted =
                wanted.into_iter().map(|(_, id, revision)| (SessionId::from_bits(id), revision));
            assert!(expired.eq(wanted), "at {now_ms}");
            for (id, row) in &self.sessions {
                let is_kept = row.keep_ms > 0 && (row.expires_ms > now_ms || self.is_used(id));
                let kept = state.kept_session(SessionId::from_bits(*id), now_ms);
                assert_eq!(kept.is_some(), is_kept, "at {now_ms}: {row:?}");
            }
        }
    }

    fn assert_rooms_equal(&self, state: &State) {
        let mut rooms = BTreeMap::<(&str, &str), BTreeSet<NodeId>>::new();
        let mut sizes = BTreeMap::<(&str, &str), usize>::new();
        for row in self.sockets.values() {
            for room in &row.rooms {
                rooms.entry((&row.namespace, room)).or_default().insert(row.owner.node);
                *sizes.entry((&row.namespace, room)).or_default() += 1;
            }
        }
        assert_eq!(state.rooms_len(), rooms.len());
        for namespace in NAMESPACES {
            for (room, size) in state.rooms_of(namespace) {
                assert_eq!(sizes[&(namespace, room)], size);
                let own = room.parse().ok().and_then(|id| state.socket(id));
                if own.is_none() {
                    let nodes: Vec<NodeId> = rooms[&(namespace, room)].iter().copied().collect();
                    assert_eq!(state.nodes_of_room(namespace, room).to_vec(), nodes);
                }
            }
        }
    }
}

const NAMESPACES: [&str; 2] = ["/", "/chat"];

fn a_socket() -> impl Strategy<Value = SocketId> {
    (1..8_u8).prop_map(socket)
}

fn a_room() -> impl Strategy<Value = ByteString> {
    prop_oneof![
        4 => prop::sample::select(vec!["a", "b", "c"]).prop_map(ByteString::from),
        1 => a_socket().prop_map(|id| ByteString::from(id.as_str().to_owned())),
    ]
}

fn some_rooms() -> impl Strategy<Value = Rooms> {
    prop::collection::vec(a_room(), 0..3).prop_map(Rooms::from)
}

fn a_namespace() -> impl Strategy<Value = ByteString> {
    prop::sample::select(NAMESPACES.to_vec()).prop_map(ByteString::from)
}

fn a_target() -> impl Strategy<Value = Target> {
    let filter = prop::option::weighted(
        0.3,
        prop::sample::select(vec![json!({}), json!({"u": "a"}), json!({"u": "a", "n": 1})])
            .prop_map(|filter| SessionFilter::try_from(filter).unwrap()),
    );
    (some_rooms(), some_rooms(), filter).prop_map(|(rooms, except, filter)| Target {
        rooms,
        except,
        filter,
    })
}

/// One that a session may well have after up to two writes.
fn a_revision() -> impl Strategy<Value = u64> {
    proptest::collection::vec(1..4_u64, 0..3)
        .prop_map(|writers| writers.into_iter().fold(0, next_revision))
}

fn a_session() -> impl Strategy<Value = SessionId> {
    (1..5_u8).prop_map(session)
}

/// How long a session is kept, if it is.
fn a_keep() -> impl Strategy<Value = u64> {
    prop::sample::select(vec![0, 0, 500, SESSION_TTL_MS])
}

/// Of the sessions' keys, those that one of two equal states has an index of.
fn keys() -> SessionKeys {
    SessionKeys::new(["u", "absent"])
}

fn a_change() -> impl Strategy<Value = Change> {
    let text = prop::sample::select(vec!["{}", r#"{"u":"a"}"#, r#"{"n":1,"u":"a"}"#, "[]"]);
    let namespaced = || (a_namespace(), a_target());
    prop_oneof![
        8 => (a_socket(), a_namespace(), a_session(), a_keep(), some_rooms()).prop_map(
            |(socket, namespace, session, keep_session_ms, rooms)| {
                let pid = Pid::from_bits(socket.to_bits());
                Change::SocketUp(Box::new(SocketUp {
                    socket,
                    pid,
                    namespace,
                    session,
                    keep_session_ms,
                    rooms,
                    recovery: None,
                }))
            }
        ),
        4 => a_socket().prop_map(|socket| Change::SocketGone { socket, claim: 0 }),
        8 => (a_socket(), some_rooms()).prop_map(|(socket, rooms)| Change::Join { socket, rooms }),
        6 => (a_socket(), some_rooms()).prop_map(|(socket, rooms)| Change::Leave { socket, rooms }),
        2 => (namespaced(), some_rooms()).prop_map(|((namespace, target), rooms)| {
            Change::JoinMatching { namespace, target: target.into(), rooms }
        }),
        2 => (namespaced(), some_rooms()).prop_map(|((namespace, target), rooms)| {
            Change::LeaveMatching { namespace, target: target.into(), rooms }
        }),
        2 => (namespaced(), any::<bool>()).prop_map(|((namespace, target), close)| {
            Change::DisconnectMatching { namespace, target: target.into(), close }
        }),
        6 => (a_session(), a_revision(), text).prop_map(|(session, expected, text)| {
            Change::SessionPut { session, expected, salt: 0, value: text.into() }
        }),
        2 => (a_session(), a_revision()).prop_map(|(session, revision)| {
            Change::SessionExpired { session, revision }
        }),
        4 => (a_session(), a_keep()).prop_map(|(session, keep_ms)| {
            Change::SessionTouch { session, keep_ms }
        }),
        1 => a_session().prop_map(|session| Change::SessionDestroy { session }),
        1 => (1..4_u64, 1..20_u64).prop_map(|(node, incarnation)| {
            Change::NodeDown { node, incarnation }
        }),
        1 => Just(Change::NodeDraining),
        1 => (0..3_u64).prop_map(node_up),
    ]
}

fn a_step() -> impl Strategy<Value = Step> {
    let seq = prop_oneof![
        8 => Just(Seq::Next),
        2 => (1..4_u64).prop_map(Seq::Back),
        1 => Just(Seq::Ahead),
    ];
    let age = prop_oneof![9 => Just(Age::Present), 1 => Just(Age::Older)];
    let stamp_ms = prop::sample::select(vec![0, 1000, SESSION_TTL_MS, 2 * SESSION_TTL_MS]);
    let changes = prop::collection::vec(a_change(), 0..6);
    prop_oneof![
        1 => (1..4_u64, 0..3_u64).prop_map(|(node, boot)| Step::Register { node, boot }),
        12 => (1..4_u64, age, seq, stamp_ms, changes).prop_map(
            |(node, age, seq, stamp_ms, changes)| {
                Step::Propose { node, age, seq, stamp_ms, changes }
            }
        ),
        1 => Just(Step::Snapshot),
    ]
}

/// The proposal that a step makes of the state at its place.
fn proposal(step: &Step, state: &State) -> Option<Proposal> {
    match step {
        Step::Snapshot => None,
        Step::Register { node, boot } => {
            let changes = vec![node_up(*boot)];
            Some(Proposal { node: *node, incarnation: 0, first_seq: 1, stamp_ms: 5, changes })
        }
        Step::Propose { node, age, seq, stamp_ms, changes } => {
            let (present, last_seq) =
                state.node(*node).map_or((1, 0), |row| (row.incarnation, row.last_seq));
            let incarnation = match age {
                Age::Present => present,
                Age::Older => present - 1,
            };
            let first_seq = match seq {
                Seq::Next => last_seq + 1,
                Seq::Back(count) => (last_seq + 1).saturating_sub(*count).max(1),
                Seq::Ahead => last_seq + 2,
            };
            let (node, stamp_ms, changes) = (*node, *stamp_ms, changes.clone());
            Some(Proposal { node, incarnation, first_seq, stamp_ms, changes })
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn state_does_what_the_model_does(steps in prop::collection::vec(a_step(), 1..60)) {
        let (mut log, mut model) = (Log::new(), Model::default());
        log.state = log.state.with_session_keys(keys());
        // The three registrations that `Log::new` begins with.
        for node in 1..=3 {
            model.register(node, node, 0, 1, 0);
        }
        for step in steps {
            let Some(proposal) = proposal(&step, &log.state) else {
                let copy = State::decode(log.state.encode()).unwrap().with_session_keys(keys());
                prop_assert_eq!(&copy, &log.state);
                prop_assert_eq!(copy.digest(), log.state.digest());
                log.state = copy;
                continue;
            };
            let expected = model.apply(log.index + 1, &proposal);
            let actual = log.apply(proposal);
            prop_assert_eq!(&actual, &expected);
            model.assert_equals(&log.state);
        }
    }

    #[test]
    fn equal_histories_make_equal_states(steps in prop::collection::vec(a_step(), 1..60)) {
        // An index is a node's own affair: nothing that is agreed depends on it.
        let (mut one, mut two) = (Log::new(), Log::new());
        one.state = one.state.with_session_keys(keys());
        for step in steps {
            let Some(proposal) = proposal(&step, &one.state) else {
                two.state = State::decode(two.state.encode()).unwrap();
                continue;
            };
            prop_assert_eq!(one.apply(proposal.clone()), two.apply(proposal));
            prop_assert_eq!(one.state.digest(), two.state.digest());
        }
        prop_assert_eq!(one.state, two.state.with_session_keys(keys()));
    }

    #[test]
    fn refused_or_repeated_proposals_change_nothing(
        steps in prop::collection::vec(a_step(), 1..40),
    ) {
        let mut log = Log::new();
        for step in steps {
            let Some(proposal) = proposal(&step, &log.state) else { continue };
            let before = log.state.clone();
            let (verdict, _) = log.apply(proposal.clone());
            if !matches!(verdict, Verdict::Applied { .. }) {
                let mut after = log.state.clone();
                after.advance_to(before.index());
                prop_assert_eq!(after, before);
            } else if proposal.incarnation != 0 {
                let before = log.state.clone();
                let count = proposal.changes.len();
                let repeated = log.apply(proposal);
                prop_assert_eq!(repeated, (Verdict::Applied { skipped: count }, vec![]));
                log.state.advance_to(before.index());
                prop_assert_eq!(&log.state, &before);
            }
        }
    }
}
