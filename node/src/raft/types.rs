//! The types that openraft is configured with. Outside `raft`, nobody names openraft's types.

use std::fmt;

use bytes::Bytes;
use openraft::impls::leader_id_std;

use super::runtime::Runtime;
use super::state_machine::StateMachine;

openraft::declare_raft_types!(
    /// Our cluster, in openraft's terms.
    pub(crate) TypeConfig:
        D = Data,
        R = Applied,
        NodeId = u64,
        Node = Member,
        LeaderId = leader_id_std::LeaderId<Self::Term, Self::NodeId>,
        AsyncRuntime = Runtime,
);

/// openraft's handle.
pub(crate) type Consensus = openraft::Raft<TypeConfig, StateMachine>;

/// What openraft tells of the membership and of who leads, as it changes.
pub(crate) type ServerMetrics =
    openraft::alias::WatchReceiverOf<TypeConfig, openraft::metrics::RaftServerMetrics<TypeConfig>>;

pub(crate) type LogId = openraft::alias::LogIdOf<TypeConfig>;
pub(crate) type Entry = openraft::alias::EntryOf<TypeConfig>;
pub(crate) type Payload = openraft::alias::PayloadOf<TypeConfig>;
pub(crate) type Vote = openraft::alias::VoteOf<TypeConfig>;
pub(crate) type StoredMembership = openraft::alias::StoredMembershipOf<TypeConfig>;
pub(crate) type Membership = openraft::Membership<u64, Member>;
pub(crate) type SnapshotMeta = openraft::alias::SnapshotMetaOf<TypeConfig>;
pub(crate) type Snapshot = openraft::alias::SnapshotOf<TypeConfig, Bytes>;

/// A proposal as its proposer encoded it. It is replicated and stored as it is, and decoded only
/// where it is applied.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Data(pub(crate) Bytes);

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl fmt::Display for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// What a proposer is told of its applied proposal. The outcomes of its changes it learns by
/// applying them itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Applied {
    /// The proposer's incarnation is not alive: nothing was applied.
    pub(crate) refused: bool,
}

/// A node of the raft group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) name: String,
    /// `host:port` of its gRPC services.
    pub(crate) address: String,
}
