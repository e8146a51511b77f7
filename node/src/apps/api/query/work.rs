//! What matching a query may cost.

use std::cell::Cell;

/// The steps that are left for a query: to look at a value is one, and texts count by their length.
///
/// How long a match takes depends on the query, which is a client's, and on the value, which may be
/// another client's. A step is some tens of nanoseconds, whatever it is spent on.
#[derive(Debug)]
pub struct Work(Cell<usize>);

/// So many bytes of a text are copied or compared in one step.
const BYTES_A_STEP: usize = 32;

impl Work {
    pub fn new(steps: usize) -> Self {
        Self(Cell::new(steps))
    }

    /// How many steps are left. 0: there were too few, and what the match said means nothing.
    pub fn left(&self) -> usize {
        self.0.get()
    }

    pub(super) fn is_spent(&self) -> bool {
        self.left() == 0
    }

    /// Takes steps, or the last ones; false if they do not suffice.
    pub(super) fn spend(&self, steps: usize) -> bool {
        self.0.set(self.left().saturating_sub(steps));
        !self.is_spent()
    }

    /// The same for looking at all of a text of that length.
    pub(super) fn spend_bytes(&self, bytes: usize) -> bool {
        self.spend(1 + bytes / BYTES_A_STEP)
    }
}
