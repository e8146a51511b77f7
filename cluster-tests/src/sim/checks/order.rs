//! One order for all, without gaps, and the order in which each emitter wrote.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::Violation;
use super::story::{Life, Story};
use crate::sim::history::{Aim, ClientId, Label};

pub(super) fn check(story: &Story) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut namespaces: BTreeMap<&str, Vec<&Life>> = BTreeMap::new();
    for life in story.clients.values() {
        check_written(story, life, &mut violations);
        namespaces.entry(life.namespace).or_default().push(life);
    }
    for lives in namespaces.values() {
        violations.extend(disorder(lives));
        check_gaps(story, lives, &mut violations);
    }
    violations
}

/// What each emitter emitted by one connection was heard in that order.
fn check_written(story: &Story, life: &Life, violations: &mut Vec<Violation>) {
    let mut last: BTreeMap<(ClientId, Option<usize>), u32> = BTreeMap::new();
    for (_, label) in &life.heard {
        let visit = story.packets.get(label).map(|packet| packet.visit);
        let last = last.entry((label.0, visit)).or_default();
        if label.1 < *last {
            violations.push(Violation::Overtaken { label: *label, by: life.id });
        }
        *last = label.1.max(*last);
    }
}

/// There is one order that all have heard: else, packets that go round in a circle.
fn disorder(lives: &[&Life]) -> Option<Violation> {
    let mut after: BTreeMap<Label, BTreeSet<Label>> = BTreeMap::new();
    let mut before: BTreeMap<Label, usize> = BTreeMap::new();
    for life in lives {
        for pair in life.heard.windows(2) {
            let (one, next) = (pair[0].1, pair[1].1);
            before.entry(one).or_default();
            if after.entry(one).or_default().insert(next) {
                *before.entry(next).or_default() += 1;
            }
        }
    }
    let mut first: Vec<Label> =
        before.iter().filter(|(_, count)| **count == 0).map(|(label, _)| *label).collect();
    while let Some(label) = first.pop() {
        before.remove(&label);
        for next in after.remove(&label).into_iter().flatten() {
            let count = before.get_mut(&next).expect("what comes after something is counted");
            *count -= 1;
            if *count == 0 {
                first.push(next);
            }
        }
    }
    let packets: Vec<Label> = before.into_keys().take(8).collect();
    (!packets.is_empty()).then_some(Violation::Disordered { packets })
}

/// Of the packets that mean all, each client heard a piece of one sequence without a gap: where
/// two pieces overlap, they are the same.
fn check_gaps(story: &Story, lives: &[&Life], violations: &mut Vec<Violation>) {
    let means_all =
        |label: &Label| story.packets.get(label).is_some_and(|packet| packet.aim == Aim::All);
    let pieces: Vec<(ClientId, Vec<Label>)> = lives
        .iter()
        .map(|life| (life.id, life.heard.iter().map(|(_, l)| *l).filter(means_all).collect()))
        .collect();
    for (at, (one, piece)) in pieces.iter().enumerate() {
        let places: HashMap<Label, usize> =
            piece.iter().enumerate().map(|(place, label)| (*label, place)).collect();
        for (other, other_piece) in &pieces[at + 1..] {
            if let Some(at) = difference(&places, piece, other_piece) {
                violations.push(Violation::Gap { between: [*one, *other], at });
            }
        }
    }
}

/// What two pieces have at the first place where they overlap and differ.
fn difference(
    places: &HashMap<Label, usize>,
    piece: &[Label],
    other: &[Label],
) -> Option<[Option<Label>; 2]> {
    let other_start = other.iter().position(|label| places.contains_key(label))?;
    let start = places[&other[other_start]];
    if start > 0 && other_start > 0 {
        // Both had heard something before, but not the same.
        return Some([Some(piece[start - 1]), Some(other[other_start - 1])]);
    }
    let mut pairs = piece[start..].iter().zip(&other[other_start..]);
    pairs.find(|(one, two)| one != two).map(|(one, two)| [Some(*one), Some(*two)])
}
