//! What a simulation's process tells of it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::checks::Violation;
use super::history::{Answer, At, Event};
use super::run::{Coverage, Outcome};

/// The line that `simulate` prints, as JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    pub seed: u64,
    /// How many there were.
    pub events: usize,
    /// Of the history: equal in two runs that went alike.
    pub hash: u64,
    pub violations: Vec<Violation>,
    pub coverage: Coverage,
    pub answers: Answers,
    pub returns: Returns,
}

/// How many emits were answered so.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Answers {
    pub agreed: usize,
    pub refused: usize,
    pub unknown: usize,
}

impl Report {
    pub fn new(seed: u64, outcome: Outcome) -> Self {
        let events = outcome.history.events();
        Self {
            seed,
            events: events.len(),
            hash: outcome.history.hash(),
            violations: outcome.violations,
            coverage: outcome.coverage,
            answers: Answers::of(&events),
            returns: Returns::of(&events),
        }
    }
}

/// How clients came back to their sockets.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Returns {
    pub recovered: usize,
    pub refused: usize,
    /// Packets that they had missed, and got.
    pub replayed: usize,
    /// Packets to connections that they had lost.
    pub wasted: usize,
}

impl Returns {
    fn of(events: &[At]) -> Self {
        let mut returns = Self::default();
        let mut returning = BTreeSet::new();
        for at in events {
            match &at.event {
                Event::Returning { client, .. } => {
                    returning.insert(*client);
                }
                Event::Away { client } | Event::Ended { client } => {
                    returning.remove(client);
                }
                Event::Connected { client } => {
                    returns.recovered += usize::from(returning.remove(client));
                }
                Event::Heard { client, .. } => {
                    returns.replayed += usize::from(returning.contains(client));
                }
                Event::Refused { .. } => returns.refused += 1,
                Event::Wasted { .. } => returns.wasted += 1,
                _ => {}
            }
        }
        returns
    }

    /// Those of several runs together.
    pub fn add(&mut self, other: &Self) {
        self.recovered += other.recovered;
        self.refused += other.refused;
        self.replayed += other.replayed;
        self.wasted += other.wasted;
    }
}

impl Answers {
    fn of(events: &[At]) -> Self {
        let mut answers = Self::default();
        for at in events {
            let Event::Emitted { answer, .. } = at.event else { continue };
            match answer {
                Answer::Agreed => answers.agreed += 1,
                Answer::Refused => answers.refused += 1,
                Answer::Unknown => answers.unknown += 1,
            }
        }
        answers
    }

    /// Those of several runs together.
    pub fn add(&mut self, other: &Self) {
        self.agreed += other.agreed;
        self.refused += other.refused;
        self.unknown += other.unknown;
    }
}
