//! Who hears what: all that was agreed, once, and nothing else.

use std::collections::BTreeSet;

use super::Violation;
use super::story::{Life, Packet, Story};
use crate::sim::history::{Answer, Label};
use crate::sim::travel::NAMESPACE;

pub(super) fn check(story: &Story) -> Vec<Violation> {
    let mut violations = Vec::new();
    for life in story.clients.values() {
        check_heard(story, life, &mut violations);
    }
    for (label, packet) in &story.packets {
        if let Some((_, Answer::Agreed)) = packet.answered {
            check_agreed(story, *label, packet, &mut violations);
        }
    }
    violations
}

fn check_heard(story: &Story, life: &Life, violations: &mut Vec<Violation>) {
    let by = life.id;
    let mut heard = BTreeSet::new();
    for (_, label) in &life.heard {
        let label = *label;
        if !heard.insert(label) {
            violations.push(Violation::Doubled { label, by });
        }
        let Some(packet) = story.packets.get(&label) else {
            violations.push(Violation::Invented { label, by });
            continue;
        };
        if matches!(packet.answered, Some((_, Answer::Refused))) {
            violations.push(Violation::Undead { label, by });
        }
        let is_stray = story.namespace(label) != Some(life.namespace);
        if is_stray || life.is_meant(packet) == Some(false) {
            violations.push(Violation::Strayed { label, by });
        }
    }
}

/// Those who were connected when it was emitted have heard it if they are still there; those of
/// the emitter's node even before it was acknowledged.
fn check_agreed(story: &Story, label: Label, packet: &Packet, violations: &mut Vec<Violation>) {
    let Some((answered, _)) = packet.answered else { return };
    let Some(emitter) = story.clients.get(&label.0) else { return };
    for life in story.clients.values() {
        let was_there = life.namespace == emitter.namespace
            && life.was_connected_before(packet.emitted)
            && life.is_meant(packet) == Some(true);
        if !was_there {
            continue;
        }
        let (by, heard) = (life.id, life.heard_at(label));
        if life.ended.is_none() && heard.is_none() {
            violations.push(Violation::Lost { label, by });
        }
        // A node that begins anew may keep connections that can come back, and must get their
        // sockets back before these are its own again.
        let was_own =
            life.stayed_on(packet.machine, packet.emitted, answered).is_some_and(|since| {
                life.namespace != NAMESPACE || story.held_lease(packet.machine, since, answered)
            });
        if was_own && heard.is_none_or(|heard| heard > answered) {
            violations.push(Violation::Late { label, by });
        }
    }
}
