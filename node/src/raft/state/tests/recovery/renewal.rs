//! Claims by which a node that was given up has its open sockets again.

use super::*;

pub(super) fn renewal(n: u8, offset: Place, key: u64) -> Change {
    let Change::SocketClaim(mut claim) = claim(n, offset, key) else { unreachable!() };
    claim.renews = true;
    Change::SocketClaim(claim)
}

/// Node 1 has socket 1 in room `a` with one packet, is declared dead, and registers again.
fn given_up() -> (Log, Place) {
    let mut log = Log::new();
    log.propose(1, up(1, ROOMY, &["a"]));
    let seen = log.place(2, packet(to(&["a"])));
    log.declare_down(2, 1, 0);
    (log, seen)
}

#[test]
fn next_incarnation_has_the_socket_again_and_what_it_missed() {
    let (mut log, seen) = given_up();
    let one = log.place(2, packet(to(&["a"])));
    log.propose(
        3,
        Change::JoinMatching {
            namespace: "/".into(),
            target: to(&["a"]).into(),
            rooms: rooms(&["b"]),
        },
    );
    let registered = log.register(1, 7);
    assert_eq!(registered.outcome, Outcome::Registered { incarnation: log.index, last_seq: 1 });
    let two = log.place(2, packet(to(&["b"])));
    let applied = log.propose(1, renewal(1, seen, 0));
    assert_eq!((&applied.outcome, missed(&applied)), (&Outcome::Applied, Some(vec![one, two])));
    let Effect::SocketRecovered { owner, recovered, .. } = &applied.effects[0] else { panic!() };
    assert_eq!((*owner, recovered.claim), (log.owner(1), 0));
    assert_eq!(recovered.rooms, rooms(&["a", "b"]));
    assert_eq!(log.state.socket(socket(1)).unwrap().owner(), log.owner(1));
    assert_eq!(log.state.window_numbers().detached, 0);
    // It is its node's like any other.
    assert_eq!(log.propose(1, detached(1, 0)).outcome, Outcome::Applied);
    assert!(log.is_detached(1));
}

#[test]
fn socket_that_is_asked_for_twice_is_given_once() {
    let (mut log, seen) = given_up();
    log.register(1, 7);
    log.propose(1, renewal(1, seen, 0));
    let before = log.state.socket(socket(1)).unwrap().owner();
    let again = log.propose(1, renewal(1, seen, 0));
    assert_eq!((again.outcome, again.effects.len()), (Outcome::Applied, 0));
    assert_eq!(log.state.socket(socket(1)).unwrap().owner(), before);
}

#[test]
fn socket_that_was_claimed_elsewhere_stays_there() {
    let (mut log, seen) = given_up();
    log.register(1, 7);
    log.propose(2, claim(1, seen, 5));
    for key in [0, 5] {
        let refused = log.propose(1, renewal(1, seen, key));
        assert_eq!((refused.outcome, refused.effects.len()), (Outcome::UnknownSocket, 0));
    }
    assert_eq!(log.state.socket(socket(1)).unwrap().owner(), log.owner(2));
    // Nor is it the old connection's once the newer one is lost, too.
    log.propose(2, detached(1, 5));
    assert_eq!(log.propose(1, renewal(1, seen, 0)).outcome, Outcome::UnknownSocket);
    assert!(log.is_detached(1));
}

#[test]
fn client_that_comes_back_takes_a_renewed_socket_over() {
    let (mut log, seen) = given_up();
    log.register(1, 7);
    log.propose(1, renewal(1, seen, 0));
    let applied = log.propose(2, claim(1, seen, 5));
    let taken = Effect::SocketTaken {
        namespace: "/".into(),
        owner: log.owner(1),
        socket: socket(1),
        claim: 0,
    };
    assert_eq!(applied.effects[0], taken);
    assert_eq!(log.propose(1, renewal(1, seen, 0)).outcome, Outcome::UnknownSocket);
}

#[test]
fn socket_that_missed_what_is_gone_is_not_renewed() {
    let terms = RecoveryTerms { max_bytes: 1_000, ..ROOMY };
    let mut log = Log::new();
    log.propose(1, up(1, terms, &["a"]));
    let seen = log.place(2, packet(to(&["a"])));
    log.declare_down(2, 1, 0);
    for _ in 0..4 {
        log.propose(2, packet(to(&["a"])));
    }
    log.register(1, 7);
    let applied = log.propose(1, renewal(1, seen, 0));
    assert_eq!((applied.outcome, applied.effects.len()), (Outcome::Lost, 0));
    assert!(log.state.socket(socket(1)).is_none());
}

#[test]
fn socket_that_ended_while_its_node_could_not_say_so_is_over() {
    let (mut log, seen) = given_up();
    log.register(1, 7);
    assert_eq!(log.propose(1, gone(1)).outcome, Outcome::Applied);
    assert!(log.state.socket(socket(1)).is_none());
    assert!(log.state.windows.is_empty());
    // The end of a connection that did not have it last changes nothing.
    let (mut log, _) = given_up();
    log.register(1, 7);
    log.propose(2, claim(1, seen, 5));
    log.propose(2, detached(1, 5));
    assert_eq!(log.propose(1, gone(1)).outcome, Outcome::UnknownSocket);
    assert!(log.is_detached(1));
}
