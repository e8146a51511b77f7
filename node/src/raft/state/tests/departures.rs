//! Sockets that ended without a handler of theirs wait until someone has been told of them.

use super::recovery::{ROOMY, claim, detached, disconnect, packet, up};
use super::*;

const NOBODY_KNOWS: Place = Place { index: 0, position: 0 };

fn expire(log: &mut Log, stamp_ms: u64) {
    log.propose_at(2, stamp_ms, Change::WindowExpired { namespace: "/".into() });
}

/// Who waits: the socket, the node that had it, and why it ended.
fn waiting(log: &Log) -> Vec<(SocketId, NodeId, Departure)> {
    let (departed, _) = log.state.departed(usize::MAX);
    departed.iter().map(|one| (one.socket, one.node, one.departure)).collect()
}

#[test]
fn nothing_is_kept_while_no_application_hears_of_it() {
    let mut log = Log::new();
    log.propose(1, socket_up(1, "/", &[]));
    log.propose(2, up(2, ROOMY, &[]));
    log.propose(2, detached(2, 0));
    log.declare_down(2, 1, 0);
    expire(&mut log, 5_000);
    assert_eq!((waiting(&log), log.state.departures_end()), (vec![], 0));
}

#[test]
fn sockets_of_the_dead_wait_until_they_are_told_of() {
    let mut log = Log::new();
    log.propose(2, Change::HearDeparted);
    log.propose(1, socket_up(1, "/", &["a"]));
    log.propose(1, up(2, ROOMY, &[]));
    log.propose(2, socket_up(3, "/", &[]));
    log.declare_down(2, 1, 0);
    // The client of the other one may come back.
    assert_eq!(waiting(&log), [(socket(1), 1, Departure::NodeDown)]);
    let (departed, end) = log.state.departed(1);
    assert_eq!(departed[0].rooms().collect::<Vec<_>>(), ["a"]);
    assert_eq!((&*departed[0].namespace, departed[0].session), ("/", session(1)));
    expire(&mut log, 5_000);
    log.propose(3, Change::DepartedTold { end });
    assert_eq!(waiting(&log), [(socket(2), 1, Departure::WindowEnded)]);
    // Two may tell of the same ones: the second says nothing new.
    log.propose(2, Change::DepartedTold { end });
    assert_eq!(waiting(&log).len(), 1);
    log.propose(2, Change::DepartedTold { end: u64::MAX });
    assert_eq!((waiting(&log), log.state.departures_end()), (vec![], 2));
}

#[test]
fn end_of_a_socket_that_was_away_is_told_whatever_ended_it() {
    let mut log = Log::new();
    log.propose(1, Change::HearDeparted);
    let tight = RecoveryTerms { max_age_ms: 1_000, max_bytes: KEPT_PACKET_BYTES + 10 };
    for n in 1..=4 {
        log.propose(3, up(n, tight, &[]));
    }
    for n in 1..=3 {
        log.propose(3, detached(n, 0));
    }
    log.propose(2, disconnect(1));
    // Two packets: the first is gone by the second.
    log.propose(2, packet(Target::default()));
    log.propose(2, packet(Target::default()));
    let refused = log.propose(1, claim(2, NOBODY_KNOWS, 5));
    assert_eq!(refused.outcome, Outcome::Lost);
    expire(&mut log, 1_000);
    // The end of one that was connected is told by its own node.
    assert_eq!(log.propose(1, claim(4, NOBODY_KNOWS, 6)).outcome, Outcome::Lost);
    assert_eq!(
        waiting(&log),
        [
            (socket(1), 3, Departure::Disconnected),
            (socket(2), 3, Departure::WindowEnded),
            (socket(3), 3, Departure::WindowEnded),
        ]
    );
}

#[test]
fn snapshot_has_who_waits_and_who_hears() {
    let mut log = Log::new();
    log.propose(1, Change::HearDeparted);
    for n in 1..=2 {
        log.propose(2, socket_up(n, "/", &["a", "b"]));
    }
    log.declare_down(1, 2, 7);
    log.propose(1, Change::DepartedTold { end: 1 });
    let back = State::decode(log.state.encode()).unwrap();
    assert_eq!(back, log.state);
    assert!(back.hears_departed(log.owner(1)));
    assert_eq!(back.departed(9).1, 2);
}

#[test]
fn leader_tells_if_its_application_hears_and_else_another() {
    let mut log = Log::new();
    assert_eq!(log.state.teller(Some(1)), None);
    log.propose(3, Change::HearDeparted);
    log.propose(2, Change::HearDeparted);
    assert_eq!(log.state.teller(Some(3)), Some(3));
    assert_eq!(log.state.teller(Some(1)), Some(2));
    assert_eq!(log.state.teller(None), None, "the next leader tells");
    // An application hears for as long as its process lives, also of its own end.
    log.propose(2, socket_up(1, "/", &[]));
    log.propose(3, socket_up(2, "/", &[]));
    log.register(3, 9);
    log.register(2, 9);
    assert_eq!(waiting(&log).len(), 2);
    assert_eq!(log.state.teller(Some(2)), None);
    log.propose(3, Change::HearDeparted);
    assert_eq!(log.state.teller(Some(2)), Some(3));
}

#[test]
fn who_waits_for_too_long_is_forgotten() {
    let mut log = Log::new();
    log.propose(1, Change::HearDeparted);
    log.propose(2, socket_up(1, "/", &[]));
    log.propose(3, socket_up(2, "/", &[]));
    log.declare_down(1, 2, 1_000);
    log.declare_down(1, 3, 2_000);
    assert_eq!(log.state.expired_departures(3_600_999), None);
    let change = log.state.expired_departures(3_601_000).unwrap();
    log.propose(1, change);
    assert_eq!(waiting(&log), [(socket(2), 3, Departure::NodeDown)]);
}
