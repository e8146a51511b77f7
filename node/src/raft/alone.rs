//! A node that is a cluster by itself has nobody to agree with.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Raft;
use super::state::{Change, NodeStatus};

impl Raft {
    /// Whether this node may act on `change` by itself, without the log: a packet that nobody keeps.
    ///
    /// So it is while there is no other member, not even one that learns, and none can come but by this process; while
    /// this node serves clients; and while all that it has proposed is applied and handed to the
    /// namespaces' queues, so that nothing is overtaken.
    pub fn may_act_alone(&self, change: &Change) -> bool {
        self.is_alone() && self.core.pump.is_settled(change)
    }

    fn is_alone(&self) -> bool {
        let core = &self.core;
        let leads_nobody = {
            let lead = core.lead.borrow();
            lead.has_no_followers && lead.id() == Some(core.me)
        };
        let is_elsewhere =
            |peer: &super::Peer| peer.owner.node != core.me && peer.status != NodeStatus::Down;
        leads_nobody
            && !core.lets_others_in.load(Ordering::Acquire)
            && !core.deliveries.peers.borrow().iter().any(is_elsewhere)
    }
}

/// How many batches a namespace's delivery task has been handed, and is not done with.
#[derive(Clone, Debug, Default)]
pub struct Unhandled(Arc<AtomicUsize>);

impl Unhandled {
    pub fn is_none(&self) -> bool {
        self.0.load(Ordering::Acquire) == 0
    }

    pub(super) fn begin(&self) -> BeingHandled {
        self.0.fetch_add(1, Ordering::Release);
        BeingHandled(self.0.clone())
    }
}

/// One batch that is counted, until this is dropped.
#[derive(Debug)]
pub struct BeingHandled(Arc<AtomicUsize>);

impl Drop for BeingHandled {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}
