//! What the parts of consensus share.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use openraft::Instant;
use openraft::async_runtime::watch::WatchReceiver;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::alone::Alone;
use super::company::Company;
use super::config::{ClusterConfig, RaftConfig};
use super::deliveries::Deliveries;
use super::gather::Gather;
use super::log_store::{Extent, Settler};
use super::members::{Leases, OwnLease};
use super::network::Directory;
use super::proposer::Lead;
use super::pump::Pump;
use super::receipt::Status;
use super::state::NodeId;
use super::storage::{Identity, Storage};
use super::types::{Consensus, Member};
use super::view::View;

/// Milliseconds since the Unix epoch.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

pub(crate) struct Core {
    pub(crate) me: NodeId,
    /// How this node presents itself.
    pub(crate) member: Member,
    pub(crate) version: String,
    pub(crate) cluster: ClusterConfig,
    pub(crate) settings: RaftConfig,
    pub(crate) clock: Clock,
    pub(crate) storage: Storage,
    /// Its file is written under the lock, so that a pledge is given once.
    pub(crate) identity: tokio::sync::Mutex<Identity>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) consensus: Consensus,
    /// Cancelled once consensus has ended and closed its log.
    pub(crate) log_released: CancellationToken,
    /// How far the log is.
    pub(crate) extent: Extent,
    /// None where the log is in memory.
    pub(crate) settler: Option<Settler>,
    /// Its own proposals and the other nodes' meet here while this node leads.
    pub(crate) door: Arc<Gather>,
    pub(crate) deliveries: Arc<Deliveries>,
    pub(crate) view: Arc<View>,
    pub(crate) lead: watch::Receiver<Lead>,
    pub(crate) alone: Arc<Alone>,
    pub(crate) pump: Pump,
    pub(crate) status: watch::Sender<Status>,
    /// Known while this node drains.
    pub(crate) company: watch::Sender<Company>,
    /// The leases that this node grants while it leads.
    pub(crate) leases: Mutex<Leases>,
    /// The lease that this node holds.
    pub(crate) own_lease: OwnLease,
    /// The nodes without a cluster that answered in the last round, this one included.
    pub(crate) seen: Mutex<BTreeMap<NodeId, Member>>,
    /// Held while the membership is changed: two changes at once could leave it joint.
    pub(crate) membership: tokio::sync::Mutex<()>,
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").field("me", &self.me).finish_non_exhaustive()
    }
}

impl Core {
    /// The members of the raft group, as far as this node knows; empty before it has a cluster.
    pub(crate) fn members(&self) -> BTreeMap<NodeId, Member> {
        // Copied at once: a borrowed metric that is held blocks the core.
        let membership = self.consensus.server_metrics().borrow_watched().membership_config.clone();
        membership.nodes().map(|(node, member)| (*node, member.clone())).collect()
    }

    pub(crate) fn leads(&self) -> bool {
        self.lead.borrow().id() == Some(self.me)
    }

    /// Whether a quorum has confirmed this leader so lately that no other can be in office.
    pub(crate) fn leads_surely(&self) -> bool {
        let Ok(leader) = self.consensus.as_leader() else { return false };
        let membership = self.consensus.server_metrics().borrow_watched().membership_config.clone();
        // openraft hears from nobody where there is nobody else.
        let alone = membership.voter_ids().eq([self.me]);
        let lately = |acked| Instant::elapsed(&acked) < self.settings.election_timeout_max;
        alone || leader.last_quorum_acked().is_some_and(lately)
    }
}
