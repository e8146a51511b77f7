//! Who comes back: to his own socket, which nobody else has, and within the window always.

use std::collections::BTreeSet;

use flotilla::raft::state::KEPT_PACKET_BYTES;

use super::Violation;
use super::story::{Life, Packet, Refusal, Story};
use crate::sim::history::{Answer, Label};
use crate::sim::travel::WINDOW;

/// What a packet of a simulated client counts for in the window, at most.
const PACKET_BYTES: u64 = KEPT_PACKET_BYTES + 64;

/// `skew_ms`: how far the machines' clocks differ at most.
pub(super) fn check(story: &Story, skew_ms: u64) -> Vec<Violation> {
    let mut violations = Vec::new();
    for life in story.clients.values() {
        check_one_socket(life, &mut violations);
        if life.is_mistaken {
            violations.push(Violation::Mistaken { client: life.id });
        }
        if life.refused.is_some_and(|refusal| !is_excused(story, life, refusal, skew_ms)) {
            violations.push(Violation::Forsaken { client: life.id });
        }
    }
    violations
}

/// What a client was sent live by one connection, it was sent by no other: which one has the socket
/// is decided by the packet's place in the log.
fn check_one_socket(life: &Life, violations: &mut Vec<Violation>) {
    let mut live: BTreeSet<Label> =
        life.heard.iter().filter(|(at, _)| life.is_live(*at)).map(|(_, label)| *label).collect();
    for label in &life.wasted {
        if !live.insert(*label) {
            violations.push(Violation::Shared { label: *label, by: life.id });
        }
    }
}

/// Whether the window may not have reached back to what the client had last, by its age or by its
/// bytes. All that it missed comes later in the log.
fn is_excused(story: &Story, life: &Life, Refusal { at, ms }: Refusal, skew_ms: u64) -> bool {
    let last = life.heard.last().and_then(|(_, label)| story.packets.get(label));
    let (since, since_ms) = match last {
        Some(packet) => (packet.emitted, packet.emitted_ms),
        None => (life.started, life.started_ms),
    };
    let may_be_missed = |(label, packet): &(&Label, &Packet)| {
        let is_later = match packet.answered {
            Some((_, Answer::Refused)) => false,
            Some((answered, Answer::Agreed | Answer::Unknown)) => answered > since,
            None => true,
        };
        is_later && packet.emitted < at && story.namespace(**label) == Some(life.namespace)
    };
    let packets = story.packets.iter().filter(may_be_missed).count() as u64;
    let max_age_ms = WINDOW.max_age.as_millis() as u64;
    ms - since_ms + skew_ms >= max_age_ms || packets * PACKET_BYTES > WINDOW.max_bytes
}
