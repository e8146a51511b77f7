//! Small histories, each with one promise broken, or none.

use super::*;
use crate::sim::history::{Aim, Alteration, Answer, Event};
use crate::sim::travel::NAMESPACE;

/// Two clients of machine 0 and one of machine 1, connected.
fn three() -> Vec<Event> {
    three_in("/")
}

fn three_in(namespace: &'static str) -> Vec<Event> {
    let mut events = Vec::new();
    for (client, machine) in [(1, 0), (2, 0), (3, 1)] {
        events.push(Event::Started { client, machine, namespace });
        events.push(Event::Connected { client });
    }
    events
}

fn emit(label: Label, aim: Aim) -> Event {
    Event::Emitting { label, aim }
}

fn answer(label: Label, answer: Answer) -> Event {
    Event::Emitted { label, answer }
}

fn hear(client: ClientId, label: Label) -> Event {
    Event::Heard { client, label }
}

fn violations(events: impl IntoIterator<Item = Event>) -> Vec<Violation> {
    violations_in("/", events)
}

fn violations_in(
    namespace: &'static str,
    events: impl IntoIterator<Item = Event>,
) -> Vec<Violation> {
    let at = three_in(namespace).into_iter().chain(events).map(|event| At { ms: 0, event });
    check(&at.collect::<Vec<_>>(), 0)
}

const A: Label = (1, 1);
const B: Label = (3, 1);

#[test]
fn what_is_agreed_and_heard_by_all_is_right() {
    let events = [
        emit(A, Aim::All),
        hear(1, A),
        hear(2, A),
        answer(A, Answer::Agreed),
        emit(B, Aim::All),
        hear(3, A),
        hear(1, B),
        hear(3, B),
        hear(2, B),
        answer(B, Answer::Agreed),
    ];
    assert_eq!(violations(events), []);
}

#[test]
fn loss_is_found_unless_the_client_went() {
    let lost = [emit(A, Aim::All), hear(1, A), hear(2, A), answer(A, Answer::Agreed)];
    assert_eq!(violations(lost.clone()), [Violation::Lost { label: A, by: 3 }]);
    let went = lost.into_iter().chain([Event::Ended { client: 3 }]);
    assert_eq!(violations(went), []);
}

#[test]
fn receipt_before_the_own_clients_is_found() {
    let events = [emit(A, Aim::All), hear(1, A), answer(A, Answer::Agreed), hear(2, A), hear(3, A)];
    assert_eq!(violations(events), [Violation::Late { label: A, by: 2 }]);
}

#[test]
fn double_is_found() {
    let events = [emit(A, Aim::All), hear(3, A), hear(3, A)];
    assert_eq!(violations(events)[0], Violation::Doubled { label: A, by: 3 });
}

#[test]
fn refused_is_never_heard_and_unknown_may_be() {
    let events = |outcome| [emit(A, Aim::All), answer(A, outcome), hear(3, A)];
    assert_eq!(violations(events(Answer::Refused)), [Violation::Undead { label: A, by: 3 }]);
    assert_eq!(violations(events(Answer::Unknown)), []);
}

#[test]
fn two_orders_are_found() {
    let b = (2, 1);
    let events = [
        emit(A, Aim::Room(0)),
        emit(b, Aim::Client(3)),
        hear(1, A),
        hear(1, b),
        hear(3, b),
        hear(3, A),
    ];
    assert!(violations(events).contains(&Violation::Disordered { packets: vec![A, b] }));
}

#[test]
fn gap_between_what_two_clients_heard_is_found() {
    let [one, two, three] = [1, 2, 3].map(|number| (1, number));
    let emits = [one, two, three].map(|label| emit(label, Aim::All));
    let heard = [hear(2, one), hear(2, two), hear(2, three), hear(3, one), hear(3, three)];
    let gap = Violation::Gap { between: [2, 3], at: [Some(two), Some(three)] };
    assert_eq!(violations(emits.into_iter().chain(heard)), [gap]);
}

#[test]
fn overtaking_is_found() {
    let [one, two] = [(1, 1), (1, 2)];
    let events = [emit(one, Aim::All), emit(two, Aim::All), hear(3, two), hear(3, one)];
    assert_eq!(violations(events), [Violation::Overtaken { label: one, by: 3 }]);
}

#[test]
fn awaited_join_counts_from_the_next_emit_on() {
    let alteration = Alteration::Join(0);
    let join = |outcome| {
        let answer = Event::Altered { client: 3, alteration, answer: outcome };
        [Event::Altering { client: 3, alteration }, answer]
    };
    let emitted = [emit(A, Aim::Room(0)), answer(A, Answer::Agreed)];
    let after = |outcome| violations(join(outcome).into_iter().chain(emitted.clone()));
    assert_eq!(after(Answer::Agreed), [Violation::Lost { label: A, by: 3 }]);
    assert_eq!(after(Answer::Unknown), []);
    let heard = join(Answer::Refused).into_iter().chain([emit(A, Aim::Room(0)), hear(3, A)]);
    assert_eq!(violations(heard), [Violation::Strayed { label: A, by: 3 }]);
}

#[test]
fn join_at_the_same_time_is_open() {
    let alteration = Alteration::Join(0);
    let begin = Event::Altering { client: 3, alteration };
    let end = Event::Altered { client: 3, alteration, answer: Answer::Agreed };
    let emitted = [emit(A, Aim::Room(0)), answer(A, Answer::Agreed)];
    assert_eq!(violations([begin].into_iter().chain(emitted).chain([end])), []);
}

/// Client 3 hears of `A`, and is away when the packets after it are emitted.
fn away_after(emitted: impl IntoIterator<Item = Label>) -> Vec<Event> {
    let mut events = vec![emit(A, Aim::All), hear(3, A), Event::Away { client: 3 }];
    events.extend(emitted.into_iter().map(|label| emit(label, Aim::All)));
    events
}

fn back(machine: usize) -> Event {
    Event::Returning { client: 3, machine }
}

#[test]
fn whoever_comes_back_has_missed_nothing() {
    let [one, two] = [(1, 2), (1, 3)];
    let heard = |labels: &[Label]| {
        let events = away_after([one, two]).into_iter().chain([hear(2, A), hear(2, one)]);
        let back = [hear(2, two), back(0)].into_iter();
        let replayed = labels.iter().map(|label| hear(3, *label)).collect::<Vec<_>>();
        let connected = [Event::Connected { client: 3 }];
        violations(events.chain(back).chain(replayed).chain(connected))
    };
    assert_eq!(heard(&[one, two]), []);
    let gap = Violation::Gap { between: [2, 3], at: [Some(one), Some(two)] };
    assert_eq!(heard(&[two]), [gap]);
    assert_eq!(heard(&[A, one, two])[0], Violation::Doubled { label: A, by: 3 });
}

#[test]
fn whoever_was_away_lacks_what_is_agreed_until_he_ends() {
    let label = (1, 2);
    let missed = [emit(label, Aim::Client(3)), answer(label, Answer::Agreed)];
    let lost = away_after([]).into_iter().chain(missed);
    assert_eq!(violations(lost.clone()), [Violation::Lost { label, by: 3 }]);
    assert_eq!(violations(lost.chain([Event::Ended { client: 3 }])), []);
}

#[test]
fn two_live_connections_of_one_socket_are_found() {
    let wasted = |label| Event::Wasted { client: 3, visit: 0, label };
    let one = (1, 2);
    let returned = |after: [Event; 2]| {
        let events = away_after([one]).into_iter().chain([back(0)]);
        violations(events.chain(after).chain([wasted(one)]))
    };
    let connected = Event::Connected { client: 3 };
    // What it is sent again is not live.
    assert_eq!(returned([hear(3, one), connected.clone()]), []);
    let shared = Violation::Shared { label: one, by: 3 };
    assert_eq!(returned([connected, hear(3, one)]), [shared]);
}

#[test]
fn refusal_needs_a_reason() {
    let refused = |missed: u32, ms| {
        let mut events: Vec<_> = three().into_iter().map(|event| At { ms: 0, event }).collect();
        let missed = away_after((0..missed).map(|number| (1, 2 + number)));
        events.extend(missed.into_iter().map(|event| At { ms: 0, event }));
        let told = [back(1), Event::Refused { client: 3 }, Event::Ended { client: 3 }];
        events.extend(told.map(|event| At { ms, event }));
        check(&events, 1_000)
    };
    let forsaken = [Violation::Forsaken { client: 3 }];
    assert_eq!(refused(20, 5_000), forsaken);
    // The window is over, or may be by another clock.
    assert_eq!(refused(20, 8_000), []);
    assert_eq!(refused(20, 7_000), []);
    // It has no room for so many.
    assert_eq!(refused(200, 5_000), []);
}

#[test]
fn somebody_elses_socket_is_found() {
    let events = away_after([]).into_iter().chain([back(1), Event::Mistaken { client: 3 }]);
    assert_eq!(violations(events), [Violation::Mistaken { client: 3 }]);
}

#[test]
fn order_of_an_emitter_holds_for_each_of_its_connections() {
    let [one, two] = [(3, 1), (3, 2)];
    let events = |between: &[Event]| {
        let emits = [emit(one, Aim::All)].into_iter().chain(between.iter().cloned());
        violations(emits.chain([emit(two, Aim::All), hear(1, two), hear(1, one)]))
    };
    assert_eq!(events(&[]), [Violation::Overtaken { label: one, by: 1 }]);
    assert_eq!(events(&[Event::Away { client: 3 }, back(0)]), []);
}

#[test]
fn receipt_of_a_node_that_begins_anew_does_not_wait_for_sockets_that_may_come_back() {
    let events = [emit(A, Aim::All), hear(1, A), answer(A, Answer::Agreed), hear(2, A), hear(3, A)];
    let after = |namespace, fenced| {
        let fence = Event::Fenced { machine: fenced };
        violations_in(namespace, [fence].into_iter().chain(events.clone()))
    };
    assert_eq!(after(NAMESPACE, 0), []);
    let late = [Violation::Late { label: A, by: 2 }];
    assert_eq!(after(NAMESPACE, 1), late);
    assert_eq!(after("/", 0), late);
}
