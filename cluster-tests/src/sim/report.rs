//! What a simulation's process tells of it.

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
        }
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
