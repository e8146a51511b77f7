//! Bugs that a simulation plants in its machines, to show that it would find them.

use super::state::{Effect, Effects};

/// One rule of ours that is left out. Only a simulated machine can have one
/// ([`MemoryDisk::with_planted_bug`](super::MemoryDisk::with_planted_bug)): no setting leads here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlantedBug {
    /// A proposal that was applied is applied again when it is retried.
    NoDedup,
    /// A node that lost its lease goes on as if it held it.
    NoFence,
    /// A node hands its own packets to its sockets when it proposes them, not when they are agreed.
    DeliveryBeforeCommit,
    /// What a client missed is sent without the first packet after the one that it has.
    SeamLeftOut,
    /// What a client missed is sent with the last packet that it has.
    SeamRepeated,
    /// The connection that had a socket goes on when another one has claimed it.
    NoYield,
    /// A node looks at its own pledge only when it has met the others.
    PledgeReadLate,
}

impl PlantedBug {
    /// [`SeamLeftOut`](Self::SeamLeftOut) and [`SeamRepeated`](Self::SeamRepeated).
    pub(super) fn displace_seam(self, effects: &mut Effects) {
        for effect in effects {
            let Effect::SocketRecovered { recovered, .. } = effect else { continue };
            match self {
                Self::SeamLeftOut => recovered.backlog.leave_seam_out(),
                Self::SeamRepeated => recovered.backlog.repeat_seam(),
                Self::NoDedup
                | Self::NoFence
                | Self::DeliveryBeforeCommit
                | Self::NoYield
                | Self::PledgeReadLate => {}
            }
        }
    }
}
