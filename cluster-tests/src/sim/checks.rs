//! Checks a history against what the server promises.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::history::{At, ClientId, Label};

mod delivery;
mod order;
mod recovery;
mod story;

use story::Story;

/// How a promise was broken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Violation {
    /// It was agreed, and one who was meant has not heard it.
    Lost {
        label: Label,
        by: ClientId,
    },
    /// The machine's own client had not been sent it when its receipt was answered.
    Late {
        label: Label,
        by: ClientId,
    },
    Doubled {
        label: Label,
        by: ClientId,
    },
    /// It was refused, and heard.
    Undead {
        label: Label,
        by: ClientId,
    },
    /// Heard by one who was not meant.
    Strayed {
        label: Label,
        by: ClientId,
    },
    /// A connection that the client had lost was sent it, though another one had the socket by then.
    Shared {
        label: Label,
        by: ClientId,
    },
    /// It was told that it cannot come back, though the window reached.
    Forsaken {
        client: ClientId,
    },
    /// It came back to somebody else's socket or session.
    Mistaken {
        client: ClientId,
    },
    /// Nobody emitted it.
    Invented {
        label: Label,
        by: ClientId,
    },
    /// A later packet of the same emitter was heard before it.
    Overtaken {
        label: Label,
        by: ClientId,
    },
    /// Two clients heard packets in different orders.
    Disordered {
        packets: Vec<Label>,
    },
    /// Between packets that two clients heard, one of them misses what the other heard.
    Gap {
        between: [ClientId; 2],
        at: [Option<Label>; 2],
    },
    /// Two replicas differ at the same index.
    Diverged {
        index: u64,
        machines: [usize; 2],
    },
    /// A node without its peers still called itself ready when its lease was over.
    NotFenced {
        machine: usize,
        ms: u64,
    },
    /// A dead node's sockets were still there.
    Ghosts {
        machine: usize,
        ms: u64,
    },
    /// A node did not serve although all had been well for long.
    Unavailable {
        machine: usize,
        ms: u64,
    },
    /// A node became a member of a second cluster.
    Rival {
        machine: usize,
        ms: u64,
    },
    /// At the end, when nothing was on its way, a machine's state was not the first one's, or did not
    /// have exactly the sockets that lived.
    Unrest {
        machine: usize,
        index: u64,
        missing: usize,
        ghosts: usize,
    },
    /// The simulation could not go on.
    Failed(String),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost { label, by } => write!(f, "{label:?} was agreed; client {by} lacks it"),
            Self::Late { label, by } => {
                write!(f, "{label:?} was acknowledged before client {by} of its node had it")
            }
            Self::Doubled { label, by } => write!(f, "client {by} heard {label:?} again"),
            Self::Undead { label, by } => write!(f, "{label:?} was refused; client {by} heard it"),
            Self::Strayed { label, by } => write!(f, "{label:?} was not meant for client {by}"),
            Self::Shared { label, by } => {
                write!(f, "{label:?} was sent to two connections of client {by}")
            }
            Self::Forsaken { client } => {
                write!(f, "client {client} was not let back in, though the window reached")
            }
            Self::Mistaken { client } => write!(f, "client {client} came back as somebody else"),
            Self::Invented { label, by } => {
                write!(f, "client {by} heard {label:?}, which nobody sent")
            }
            Self::Overtaken { label, by } => {
                write!(f, "client {by} heard {label:?} after a later one of the same emitter")
            }
            Self::Disordered { packets } => write!(f, "no one order has {packets:?}"),
            Self::Gap { between, at } => {
                write!(f, "clients {between:?} heard {at:?} at the same place")
            }
            Self::Diverged { index, machines } => {
                write!(f, "machines {machines:?} differ at index {index}")
            }
            Self::NotFenced { machine, ms } => {
                write!(f, "machine {machine} was not fenced at {ms} ms")
            }
            Self::Ghosts { machine, ms } => {
                write!(f, "machine {machine} still knew sockets of a dead node at {ms} ms")
            }
            Self::Unavailable { machine, ms } => {
                write!(f, "machine {machine} did not serve at {ms} ms")
            }
            Self::Rival { machine, ms } => {
                write!(f, "machine {machine} was of another cluster than others at {ms} ms")
            }
            Self::Unrest { machine, index, missing, ghosts } => write!(
                f,
                "machine {machine} ended at index {index} with {missing} sockets missing, \
                 {ghosts} ghosts"
            ),
            Self::Failed(error) => write!(f, "the simulation failed: {error}"),
        }
    }
}

/// All broken promises of a history, which has come to rest. `skew_ms`: how far the machines' clocks
/// differ at most.
pub(super) fn check(events: &[At], skew_ms: u64) -> Vec<Violation> {
    let story = Story::of(events);
    let mut violations = delivery::check(&story);
    violations.extend(order::check(&story));
    violations.extend(recovery::check(&story, skew_ms));
    violations
}

#[cfg(test)]
mod tests;
