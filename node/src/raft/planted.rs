//! Bugs that a simulation plants in its machines, to show that it would find them.

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
}
