//! Small histories, each with one promise broken, or none.

use super::*;
use crate::sim::history::{Aim, Alteration, Answer, Event};

/// Two clients of machine 0 and one of machine 1, connected.
fn three() -> Vec<Event> {
    let mut events = Vec::new();
    for (client, machine) in [(1, 0), (2, 0), (3, 1)] {
        events.push(Event::Started { client, machine, namespace: "/" });
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
    let at = three().into_iter().chain(events).map(|event| At { ms: 0, event });
    check(&at.collect::<Vec<_>>())
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
