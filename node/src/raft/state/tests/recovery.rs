//! Sockets that are away and come back: each rule by example, then all of them against a model that
//! hands every packet to every socket at once.

mod renewal;

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::socketio::Payload;

pub(super) const ROOMY: RecoveryTerms = RecoveryTerms { max_age_ms: 1_000, max_bytes: 1 << 20 };

pub(super) fn up(n: u8, terms: RecoveryTerms, names: &[&str]) -> Change {
    let Change::SocketUp(mut up) = socket_up(n, "/", names) else { unreachable!() };
    up.recovery = Some(terms);
    Change::SocketUp(up)
}

pub(super) fn packet(target: Target) -> Change {
    Change::Packet(Box::new(Packet {
        namespace: "/".into(),
        target,
        payload: Payload { json: r#"["m"]"#.into(), attachments: Vec::new() },
        ack: None,
        uncompressed: false,
    }))
}

fn except(names: &[&str]) -> Target {
    Target { except: rooms(names), ..Target::default() }
}

pub(super) fn detached(n: u8, claim: u64) -> Change {
    Change::SocketDetached { socket: socket(n), claim, data: None }
}

fn detached_with(n: u8, claim: u64, data: &str) -> Change {
    Change::SocketDetached { socket: socket(n), claim, data: Some(data.into()) }
}

pub(super) fn claim(n: u8, offset: Place, key: u64) -> Change {
    Change::SocketClaim(Box::new(SocketClaim {
        socket: socket(n),
        pid: Pid::from_bits([n; 15]),
        namespace: "/".into(),
        offset,
        key,
        renews: false,
    }))
}

pub(super) fn disconnect(n: u8) -> Change {
    Change::DisconnectMatching {
        namespace: "/".into(),
        target: to(&[socket(n).as_str()]).into(),
        close: false,
    }
}

/// The places of the packets that a claim brings, or None if it is refused.
fn missed(applied: &Applied) -> Option<Vec<Place>> {
    applied.effects.iter().find_map(|effect| match effect {
        Effect::SocketRecovered { recovered, .. } => {
            Some(recovered.backlog.packets().iter().map(|packet| packet.place).collect())
        }
        _ => None,
    })
}

/// What the socket that a claim brings was away with.
fn data(applied: &Applied) -> Option<&str> {
    applied.effects.iter().find_map(|effect| match effect {
        Effect::SocketRecovered { recovered, .. } => recovered.data.as_deref(),
        _ => None,
    })
}

impl Log {
    /// Proposes it alone; the place that it gets.
    fn place(&mut self, node: NodeId, change: Change) -> Place {
        self.propose(node, change);
        Place { index: self.index, position: 0 }
    }

    fn is_detached(&self, n: u8) -> bool {
        self.state.socket(socket(n)).unwrap().is_detached()
    }
}

#[test]
fn socket_that_is_away_stays_in_its_rooms_and_counts_nowhere() {
    let mut log = Log::new();
    log.propose(1, up(1, ROOMY, &["a"]));
    log.propose(1, detached(1, 0));
    assert!(log.is_detached(1));
    assert_eq!(log.rooms_of_socket(1), ["a"]);
    assert_eq!(log.state.sockets_of(1), 0);
    assert!(log.state.nodes_of_target("/", &to(&["a"])).is_empty());
    assert!(log.state.nodes_of_target("/", &Target::default()).is_empty());
    assert!(log.state.matching("/", &to(&["a"])).is_empty());
    assert_eq!(log.state.window_numbers().detached, 1);
}

#[test]
fn claim_brings_the_socket_and_what_it_missed_to_another_node() {
    let mut log = Log::new();
    log.propose(1, up(1, ROOMY, &["a"]));
    log.propose(1, put(1, 0, r#"{"u":"x"}"#));
    let seen = log.place(2, packet(to(&["a"])));
    log.propose(1, detached(1, 0));
    let one = log.place(2, packet(to(&["a", "b"])));
    log.propose(2, packet(to(&["b"])));
    log.propose(2, packet(except(&["a"])));
    let two = log.place(3, packet(Target::default()));
    let three = log.place(3, packet(to(&[socket(1).as_str()])));
    let applied = log.propose(2, claim(1, seen, 7));
    assert_eq!(
        (&applied.outcome, missed(&applied)),
        (&Outcome::Applied, Some(vec![one, two, three]))
    );
    let Effect::SocketRecovered { owner, recovered, .. } = &applied.effects[0] else { panic!() };
    assert_eq!((*owner, recovered.claim), (log.owner(2), 7));
    assert_eq!(recovered.rooms, rooms(&["a"]));
    assert_eq!(recovered.value.as_ref().unwrap().text, r#"{"u":"x"}"#);
    assert_eq!(log.state.socket(socket(1)).unwrap().owner(), log.owner(2));
    assert_eq!(log.state.nodes_of_room("/", "a").to_vec(), [2]);
}

#[test]
fn what_an_application_keeps_with_a_socket_is_kept_while_it_is_away() {
    let mut log = Log::new();
    log.propose(1, up(1, ROOMY, &[]));
    log.propose(1, detached_with(1, 0, r#"{"a":1}"#));
    assert_eq!(log.state.window_numbers().data_bytes, 7);
    log.state = State::decode(log.state.encode()).unwrap();
    assert_eq!(data(&log.propose(2, claim(1, Place::default(), 7))), Some(r#"{"a":1}"#));
    assert_eq!(log.state.window_numbers().data_bytes, 0);
    // Whoever takes it from a live node, or comes back after its death, gets what nobody told.
    assert_eq!(data(&log.propose(3, claim(1, Place::default(), 8))), None);
    log.declare_down(1, 3, 0);
    assert_eq!(data(&log.propose(1, claim(1, Place::default(), 9))), None);
    // The late end of an old connection says nothing.
    log.propose(1, detached_with(1, 8, r#"{"a":2}"#));
    assert_eq!(log.state.window_numbers().data_bytes, 0);
}

#[test]
fn data_of_all_who_are_away_is_bounded_and_goes_with_them() {
    let mut log = Log::new();
    let terms = RecoveryTerms { max_age_ms: 1_000, max_bytes: 16 };
    for n in 1..=3 {
        log.propose(1, up(n, terms, &[]));
        log.propose(1, detached_with(n, 0, r#"{"a":1}"#));
    }
    assert_eq!(log.state.window_numbers().data_bytes, 14);
    assert_eq!(data(&log.propose(2, claim(3, Place::default(), 7))), None);
    log.propose(2, disconnect(1));
    assert_eq!(log.state.window_numbers().data_bytes, 7);
    log.propose_at(2, 1_000, Change::WindowExpired { namespace: "/".into() });
    assert_eq!(log.state.window_numbers().data_bytes, 0);
}

#[test]
fn client_that_received_nothing_yet_comes_back_to_its_beginning() {
    let mut log = Log::new();
    log.propose(1, up(9, ROOMY, &[]));
    log.propose(1, packet(Target::default()));
    log.propose(1, up(1, ROOMY, &[]));
    let one = log.place(1, packet(Target::default()));
    log.propose(1, detached(1, 0));
    let older = Place { index: 2, position: 9 };
    assert_eq!(missed(&log.propose(2, claim(1, Place::default(), 5))), Some(vec![one]));
    assert_eq!(missed(&log.propose(3, claim(1, older, 6))), Some(vec![one]));
}

#[test]
fn packets_are_matched_with_the_state_of_their_place() {
    let mut log = Log::new();
    log.propose(1, up(1, ROOMY, &["a"]));
    log.propose(1, put(1, 0, r#"{"u":"x"}"#));
    let by_user = |name| Target {
        filter: Some(SessionFilter::try_from(json!({"u": name})).unwrap()),
        ..Target::default()
    };
    let one = log.place(2, packet(to(&["a"])));
    let two = log.place(2, packet(by_user("x")));
    log.propose(2, packet(by_user("y")));
    log.propose(1, leave(1, &["a"]));
    log.propose(2, packet(to(&["a"])));
    let revision = log.revision(1);
    log.propose(1, put(1, revision, r#"{"u":"y"}"#));
    log.propose(2, packet(by_user("x")));
    let three = log.place(2, packet(by_user("y")));
    log.propose(1, join(1, &["a"]));
    let four = log.place(2, packet(to(&["a"])));
    let applied = log.propose(3, claim(1, Place::default(), 5));
    assert_eq!(missed(&applied), Some(vec![one, two, three, four]));
}

#[test]
fn half_open_connection_is_taken_over_and_its_end_changes_nothing() {
    let mut log = Log::new();
    log.propose(1, up(1, ROOMY, &[]));
    let applied = log.propose(2, claim(1, Place::default(), 7));
    let taken = Effect::SocketTaken {
        namespace: "/".into(),
        owner: log.owner(1),
        socket: socket(1),
        claim: 0,
    };
    assert_eq!(applied.effects[0], taken);
    for (node, end) in [(1, detached(1, 0)), (1, gone(1)), (2, detached(1, 0)), (2, gone(1))] {
        assert_eq!(log.propose(node, end).outcome, Outcome::UnknownSocket);
    }
    log.declare_down(3, 1, 0);
    assert!(!log.is_detached(1));
    // The latest claim wins, on the same node too.
    log.propose(2, claim(1, Place::default(), 8));
    assert_eq!(log.propose(2, detached(1, 7)).outcome, Outcome::UnknownSocket);
    assert_eq!(log.propose(2, detached(1, 8)).outcome, Outcome::Applied);
}

#[test]
fn dead_nodes_sockets_wait_for_their_clients_and_others_go() {
    let mut log = Log::new();
    log.propose(1, up(1, ROOMY, &["a"]));
    log.propose(1, socket_up(2, "/", &["a"]));
    log.declare_down(2, 1, 100);
    assert!(log.is_detached(1));
    assert!(log.state.socket(socket(2)).is_none());
    let one = log.place(2, packet(to(&["a"])));
    assert_eq!(missed(&log.propose(3, claim(1, Place::default(), 7))), Some(vec![one]));
}

#[test]
fn only_the_holder_of_the_pid_gets_the_socket() {
    let mut log = Log::new();
    log.propose(1, up(1, ROOMY, &[]));
    let forged = |change: fn(&mut SocketClaim)| {
        let Change::SocketClaim(mut forged) = claim(1, Place::default(), 7) else { unreachable!() };
        change(&mut forged);
        Change::SocketClaim(forged)
    };
    for change in [
        forged(|claim| claim.pid = Pid::from_bits([9; 15])),
        forged(|claim| claim.namespace = "/other".into()),
        forged(|claim| claim.offset = Place { index: 1_000, position: 0 }),
        claim(2, Place::default(), 7),
    ] {
        let before = log.state.clone();
        let applied = log.propose(2, change);
        assert_eq!((applied.outcome, applied.effects.len()), (Outcome::UnknownSocket, 0));
        assert_eq!(log.state.socket(socket(1)).unwrap().owner(), log.owner(1));
        assert_eq!(log.state.window_numbers(), before.window_numbers());
    }
}

#[test]
fn packet_that_expects_an_ack_is_not_replayed() {
    let mut log = Log::new();
    log.propose(1, up(1, ROOMY, &[]));
    let Change::Packet(mut asking) = packet(Target::default()) else { unreachable!() };
    asking.ack = Some(3);
    log.propose(1, Change::Packet(asking));
    assert_eq!(missed(&log.propose(2, claim(1, Place::default(), 7))), Some(vec![]));
}

#[test]
fn disconnected_while_away_does_not_come_back() {
    let mut log = Log::new();
    log.propose(1, up(1, ROOMY, &[]));
    log.propose(1, detached(1, 0));
    log.propose(2, disconnect(1));
    assert!(log.state.socket(socket(1)).is_none());
    let applied = log.propose(2, claim(1, Place::default(), 7));
    assert_eq!(applied.outcome, Outcome::UnknownSocket);
}

#[test]
fn disconnected_while_its_owner_could_not_act_on_it_does_not_come_back() {
    let ends: [fn(&mut Log); 3] = [
        |log| {
            log.declare_down(2, 1, 100);
        },
        // Its connection was lost at that moment.
        |log| assert_eq!(log.propose(1, detached(1, 0)).outcome, Outcome::Applied),
        // The client has noticed before anyone else.
        |_log| {},
    ];
    for end in ends {
        let mut log = Log::new();
        log.propose(1, up(1, ROOMY, &["a"]));
        log.propose(2, disconnect(1));
        log.state = State::decode(log.state.encode()).unwrap();
        end(&mut log);
        let applied = log.propose(3, claim(1, Place::default(), 7));
        assert_eq!((applied.outcome, applied.effects.len()), (Outcome::UnknownSocket, 0));
        if log.state.socket(socket(1)).is_some() {
            log.propose(1, gone(1));
        }
        assert!(log.state.socket(socket(1)).is_none());
        assert_eq!(log.state.window_numbers(), WindowNumbers::default());
    }
}

#[test]
fn who_missed_what_is_gone_is_over_and_whoever_has_it_hears_so() {
    let terms = RecoveryTerms { max_bytes: 1_000, ..ROOMY };
    let mut log = Log::new();
    log.propose(1, up(1, terms, &["a"]));
    log.propose(1, up(2, terms, &[]));
    let seen = log.place(1, packet(to(&["a"])));
    log.propose(1, packet(to(&["a"])));
    for _ in 0..3 {
        log.propose(1, packet(to(&["b"])));
    }
    assert!(log.state.window_numbers().bytes <= 1_000);
    let applied = log.propose(2, claim(1, seen, 7));
    assert_eq!(applied.outcome, Outcome::Lost);
    assert!(matches!(applied.effects[..], [Effect::SocketTaken { claim: 0, .. }]));
    assert!(log.state.socket(socket(1)).is_none());
}

#[test]
fn quiet_client_comes_back_though_its_last_packet_is_gone() {
    let terms = RecoveryTerms { max_bytes: 1_000, ..ROOMY };
    let mut log = Log::new();
    log.propose(1, up(1, terms, &["a"]));
    let seen = log.place(1, packet(Target::default()));
    let mine = socket(1);
    for _ in 0..10 {
        log.propose(1, packet(to(&["b"])));
        log.propose(1, packet(except(&[mine.as_str()])));
    }
    log.propose(1, join(1, &["b"]));
    assert_eq!(missed(&log.propose(2, claim(1, seen, 7))), Some(vec![]));
}

#[test]
fn own_packets_to_a_room_that_was_left_are_not_missed() {
    let terms = RecoveryTerms { max_bytes: 1_100, ..ROOMY };
    let mut log = Log::new();
    log.propose(1, up(1, terms, &["a"]));
    let mine = socket(1);
    log.propose(1, packet(Target { rooms: rooms(&["a"]), ..except(&[mine.as_str()]) }));
    log.propose(1, leave(1, &["a"]));
    log.propose(1, packet(to(&["a"])));
    let kept = log.place(1, packet(to(&[mine.as_str()])));
    log.propose(1, packet(to(&["a"])));
    log.propose(1, packet(to(&["a"])));
    assert_eq!(log.state.window_numbers().packets, 3);
    assert_eq!(missed(&log.propose(2, claim(1, Place::default(), 7))), Some(vec![kept]));
}

#[test]
fn room_that_was_left_is_not_forgotten_with_its_packets() {
    let terms = RecoveryTerms { max_bytes: 1_000, ..ROOMY };
    let mut log = Log::new();
    log.propose(1, up(1, terms, &["a"]));
    log.propose(1, up(2, terms, &[]));
    let seen = log.place(1, packet(Target::default()));
    let one = log.place(1, packet(to(&["a"])));
    log.propose(1, leave(1, &["a"]));
    let early = log.state.clone();
    for _ in 0..10 {
        log.propose(1, packet(to(&["c"])));
    }
    // The room is made anew by another.
    log.propose(1, join(2, &["a"]));
    log.propose(1, packet(to(&["a"])));
    log.propose(1, join(1, &["b"]));
    log.propose(1, leave(1, &["b"]));
    assert_eq!(log.propose(2, claim(1, seen, 7)).outcome, Outcome::Lost);
    let mut log = Log { index: early.index(), state: early };
    assert_eq!(missed(&log.propose(2, claim(1, seen, 7))), Some(vec![one]));
}

#[test]
fn leader_gives_up_what_is_older_than_the_window() {
    let mut log = Log::new();
    log.propose_at(1, 5_000, up(1, ROOMY, &[]));
    log.propose_at(1, 5_000, up(2, ROOMY, &[]));
    log.propose_at(1, 5_000, packet(Target::default()));
    log.propose_at(1, 5_500, packet(Target::default()));
    log.propose_at(1, 5_200, detached(1, 0));
    assert_eq!(log.state.expired_windows(5_999).count(), 0);
    let due: Vec<_> = log.state.expired_windows(6_000).collect();
    log.propose_at(2, 6_000, due[0].clone());
    assert_eq!(log.state.window_numbers().packets, 1);
    // It went away when no later than 5,500 had been seen.
    assert!(log.is_detached(1));
    log.propose_at(2, 6_500, due[0].clone());
    assert!(log.state.socket(socket(1)).is_none() && log.state.socket(socket(2)).is_some());
    assert_eq!(log.state.window_numbers(), WindowNumbers::default());
    log.propose(1, gone(2));
    assert!(log.state.windows.is_empty());
}

#[test]
fn past_of_a_restless_socket_is_bounded_and_counts_as_lost() {
    let mut log = Log::new();
    log.propose(1, up(1, ROOMY, &[]));
    let mut left = Vec::new();
    for n in 0..200 {
        let room = format!("r{n}");
        log.propose(1, join(1, &[&room]));
        left.push(log.place(1, packet(to(&[&room]))));
        log.propose(1, leave(1, &[&room]));
    }
    let kept = log.state.windows["/"].kept(&socket(1).to_bits()).unwrap();
    assert!(kept.stays.len() < 100);
    let mut other = Log { index: log.index, state: log.state.clone() };
    assert_eq!(missed(&log.propose(2, claim(1, left[180], 7))).unwrap(), left[181..]);
    assert_eq!(other.propose(2, claim(1, left[10], 7)).outcome, Outcome::Lost);
}

// ---- the model --------------------------------------------------------------------------------

#[derive(Clone, Debug)]
enum Step {
    Up(u8, Vec<&'static str>),
    Move(u8, Vec<&'static str>, bool),
    Write(u8, &'static str),
    Packet(Target),
    Detach(u8),
    Gone(u8),
    /// A client comes back with one of its last packets, or none.
    Claim(u8, usize),
    /// A node asks again for a socket that has all but its last packets; or for one that had it on a
    /// connection before its last.
    Renew(u64, u8, usize, bool),
    Expire(u64),
    NodeDies(u64),
    Snapshot,
}

/// What each socket was meant to receive, in order.
#[derive(Default)]
struct Model {
    meant: BTreeMap<u8, Vec<Place>>,
    rooms: BTreeMap<u8, Vec<&'static str>>,
    sessions: BTreeMap<u8, serde_json::Map<String, serde_json::Value>>,
    /// What those were away with that are away.
    data: BTreeMap<u8, String>,
}

impl Model {
    fn handle_packet(&mut self, target: &Target, place: Place) {
        for (n, meant) in &mut self.meant {
            let id = socket(*n);
            let is_in = |room: &ByteString| {
                **room == *id.as_str() || self.rooms[n].iter().any(|joined| **joined == **room)
            };
            let session = self.sessions.get(n).cloned().unwrap_or_default();
            if (target.rooms.is_empty() || target.rooms.iter().any(is_in))
                && !target.except.iter().any(is_in)
                && target.filter.as_ref().is_none_or(|filter| filter.matches(&session))
            {
                meant.push(place);
            }
        }
    }

    fn forget(&mut self, n: u8) {
        self.meant.remove(&n);
        self.rooms.remove(&n);
        self.sessions.remove(&n);
        self.data.remove(&n);
    }
}

const SOCKETS: u8 = 5;

fn a_room() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "b", "c"])
}

fn a_target() -> impl Strategy<Value = Target> {
    let filter = prop::option::weighted(
        0.1,
        prop::sample::select(vec![json!({"u": "x"}), json!({})])
            .prop_map(|filter| SessionFilter::try_from(filter).unwrap()),
    );
    let own = (1..=SOCKETS).prop_map(|n| ByteString::from(socket(n).as_str()));
    let named = || a_room().prop_map(ByteString::from);
    let rooms = prop_oneof![
        3 => prop::collection::vec(named(), 0..3),
        1 => own.clone().prop_map(|own| vec![own]),
    ];
    let except = prop_oneof![
        4 => Just(vec![]),
        1 => own.prop_map(|own| vec![own]),
        1 => named().prop_map(|room| vec![room]),
    ];
    (rooms, except, filter).prop_map(|(rooms, except, filter)| Target {
        rooms: rooms.into(),
        except: except.into(),
        filter,
    })
}

fn a_step() -> impl Strategy<Value = Step> {
    let n = || 1..=SOCKETS;
    let rooms = || prop::collection::vec(a_room(), 0..3);
    prop_oneof![
        4 => (n(), rooms()).prop_map(|(n, rooms)| Step::Up(n, rooms)),
        6 => (n(), rooms(), any::<bool>()).prop_map(|(n, rooms, joins)| Step::Move(n, rooms, joins)),
        2 => (n(), prop::sample::select(vec![r#"{"u":"x"}"#, r#"{"u":"y"}"#]))
            .prop_map(|(n, text)| Step::Write(n, text)),
        20 => a_target().prop_map(Step::Packet),
        3 => n().prop_map(Step::Detach),
        1 => n().prop_map(Step::Gone),
        6 => (n(), 0..8_usize).prop_map(|(n, back)| Step::Claim(n, back)),
        4 => (1..=3_u64, n(), 0..8_usize, prop::bool::weighted(0.2))
            .prop_map(|(node, n, back, stale)| Step::Renew(node, n, back, stale)),
        2 => (0..100_u64).prop_map(Step::Expire),
        1 => (1..=3_u64).prop_map(Step::NodeDies),
        1 => Just(Step::Snapshot),
    ]
}

/// A history in the making: nodes speak as long as they live, and register again when they died.
struct History {
    log: Log,
    model: Model,
    clock_ms: u64,
    next_key: u64,
}

impl History {
    fn new() -> Self {
        Self { log: Log::new(), model: Model::default(), clock_ms: 0, next_key: 1 }
    }

    fn propose(&mut self, node: NodeId, change: Change) -> (Applied, Place) {
        self.clock_ms += 7;
        let applied = self.log.propose_at(node, self.clock_ms, change);
        (applied, Place { index: self.log.index, position: 0 })
    }

    fn owner_of(&self, n: u8) -> Option<NodeId> {
        let owner = self.log.state.socket(socket(n))?.owner();
        (owner != Owner::NOBODY).then_some(owner.node)
    }

    fn claim_of(&self, n: u8) -> u64 {
        self.log.state.claim_of(&socket(n).to_bits())
    }

    fn take(&mut self, step: Step, terms: RecoveryTerms) {
        match step {
            Step::Up(n, rooms) => {
                if self.log.state.socket(socket(n)).is_none() {
                    self.propose(1 + u64::from(n) % 3, up(n, terms, &rooms));
                    let mut joined = rooms;
                    joined.sort_unstable();
                    joined.dedup();
                    self.model.meant.insert(n, vec![]);
                    self.model.rooms.insert(n, joined);
                }
            }
            Step::Move(n, rooms, joins) => self.move_about(n, &rooms, joins),
            Step::Write(n, text) => {
                if self.log.state.socket(socket(n)).is_some() {
                    let revision = self.log.revision(n);
                    self.propose(1, put(n, revision, text));
                    self.model.sessions.insert(n, SessionValue::parse(text).unwrap().object);
                }
            }
            Step::Packet(target) => {
                let (_, place) = self.propose(2, packet(target.clone()));
                self.model.handle_packet(&target, place);
            }
            Step::Detach(n) => {
                if let Some(node) = self.owner_of(n) {
                    let text = format!(r#"{{"at":{}}}"#, self.clock_ms);
                    self.propose(node, detached_with(n, self.claim_of(n), &text));
                    self.model.data.insert(n, text);
                    assert!(self.log.is_detached(n));
                }
            }
            Step::Gone(n) => {
                if self.log.state.socket(socket(n)).is_some() {
                    // One that is nobody's may have ended on a node that was given up.
                    let node = self.owner_of(n).unwrap_or_else(|| 1 + u64::from(n) % 3);
                    let claim = self.claim_of(n);
                    self.propose(node, Change::SocketGone { socket: socket(n), claim });
                    assert!(self.log.state.socket(socket(n)).is_none());
                    self.model.forget(n);
                }
            }
            Step::Claim(n, back) => self.come_back(n, back),
            Step::Renew(node, n, back, is_stale) => self.renew(node, n, back, is_stale),
            Step::Expire(ahead_ms) => {
                self.clock_ms += ahead_ms;
                self.propose(3, Change::WindowExpired { namespace: "/".into() });
                for n in 1..=SOCKETS {
                    if self.log.state.socket(socket(n)).is_none() {
                        self.model.forget(n);
                    }
                }
            }
            Step::NodeDies(node) => {
                let by = 1 + node % 3;
                self.log.declare_down(by, node, self.clock_ms);
                self.log.register(node, self.log.index);
            }
            Step::Snapshot => {
                let back = State::decode(self.log.state.encode()).unwrap();
                assert_eq!(back, self.log.state);
                self.log.state = back;
            }
        }
    }

    fn move_about(&mut self, n: u8, rooms: &[&'static str], joins: bool) {
        let Some(in_now) = self.model.rooms.get_mut(&n) else { return };
        for room in rooms {
            in_now.retain(|joined| joined != room);
            if joins {
                in_now.push(room);
            }
        }
        let (namespace, target) = ("/".into(), to(&[socket(n).as_str()]));
        let rooms = super::rooms(rooms);
        self.propose(
            3,
            if joins {
                Change::JoinMatching { namespace, target: target.into(), rooms }
            } else {
                Change::LeaveMatching { namespace, target: target.into(), rooms }
            },
        );
    }

    /// The client has all but its last `back` packets.
    fn come_back(&mut self, n: u8, back: usize) {
        self.next_key += 1;
        let key = self.next_key;
        self.claim(1 + key % 3, n, back, |offset| claim(n, offset, key));
    }

    /// A node asks again for a socket whose client has all but its last `back` packets.
    fn renew(&mut self, node: NodeId, n: u8, back: usize, is_stale: bool) {
        let key = self.claim_of(n) + u64::from(is_stale) * 1_000;
        match self.owner_of(n) {
            _ if !self.model.meant.contains_key(&n) => {}
            None if !is_stale => {
                self.claim(node, n, back, |offset| renewal::renewal(n, offset, key));
            }
            owner => {
                let before = self.log.state.socket(socket(n)).map(|row| row.owner());
                let (applied, _) = self.propose(node, renewal::renewal(n, Place::default(), key));
                let is_its_own = owner == Some(node) && !is_stale;
                let outcome = if is_its_own { Outcome::Applied } else { Outcome::UnknownSocket };
                assert_eq!((applied.outcome, applied.effects.len()), (outcome, 0));
                assert_eq!(self.log.state.socket(socket(n)).map(|row| row.owner()), before);
            }
        }
    }

    fn claim(&mut self, node: NodeId, n: u8, back: usize, claim: impl Fn(Place) -> Change) {
        let Some(meant) = self.model.meant.get(&n).cloned() else { return };
        let has = meant.len().saturating_sub(back);
        let offset = has.checked_sub(1).map(|last| meant[last]).unwrap_or_default();
        let oldest = self.log.state.windows["/"].oldest();
        let is_gone = meant[has..].iter().any(|place| *place < oldest);
        let (applied, _) = self.propose(node, claim(offset));
        match missed(&applied) {
            Some(missed) => {
                assert_eq!(data(&applied), self.model.data.remove(&n).as_deref());
                assert!(!is_gone, "a gap that nobody would notice");
                assert_eq!(missed, meant[has..]);
            }
            None => {
                assert_eq!(applied.outcome, Outcome::Lost);
                assert!(self.log.state.socket(socket(n)).is_none());
                self.model.forget(n);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn who_comes_back_gets_exactly_what_it_was_meant_to(
        steps in prop::collection::vec(a_step(), 1..150),
        packets in 2..20_u64,
    ) {
        let max_bytes = packets * (KEPT_PACKET_BYTES + 8);
        let mut history = History::new();
        for step in steps {
            history.take(step, RecoveryTerms { max_age_ms: 400, max_bytes });
        }
    }

    /// Without filters and exceptions of rooms, what is gone is known exactly: nobody is turned away
    /// who missed nothing of it.
    #[test]
    fn who_missed_nothing_that_is_gone_comes_back(
        steps in prop::collection::vec(a_step(), 1..150),
    ) {
        let mut history = History::new();
        for step in steps {
            let is_plain = match &step {
                Step::Packet(target) => {
                    target.filter.is_none()
                        && target.except.iter().all(|room| room.parse::<SocketId>().is_ok())
                }
                _ => true,
            };
            let Step::Claim(n, back) = step else {
                if is_plain {
                    history.take(step, RecoveryTerms { max_age_ms: 400, max_bytes: 2_000 });
                }
                continue;
            };
            let Some(meant) = history.model.meant.get(&n).cloned() else { continue };
            let has = meant.len().saturating_sub(back);
            let oldest = history.log.state.windows["/"].oldest();
            let is_gone = meant[has..].iter().any(|place| *place < oldest);
            history.come_back(n, back);
            prop_assert_eq!(history.log.state.socket(socket(n)).is_none(), is_gone);
        }
    }
}
