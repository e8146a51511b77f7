//! A node that is a cluster by itself has nobody to agree with.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::state::{Change, NodeStatus};
use super::{Peer, Raft};

/// Whether there is another member of the raft group.
#[derive(Debug, Default)]
pub(crate) struct Alone {
    /// This node leads, and there is no other member, not even one that learns, as far as openraft's metrics tell, which
    /// come a moment late.
    leads_nobody: AtomicBool,
    /// This process, which alone can while it leads nobody, has let another node in or was about to. So it
    /// stays until the process ends.
    is_over: AtomicBool,
}

impl Alone {
    pub(super) fn set_leads_nobody(&self, leads_nobody: bool) {
        self.leads_nobody.store(leads_nobody, Ordering::Release);
    }

    /// To be called before another node becomes a member.
    pub(super) fn end(&self) {
        self.is_over.store(true, Ordering::Release);
    }

    fn holds(&self) -> bool {
        self.leads_nobody.load(Ordering::Acquire) && !self.is_over.load(Ordering::Acquire)
    }
}

impl Raft {
    /// Whether no other node is a member of the cluster, and none can become one but by this process. Cheap where it is
    /// not so.
    pub fn is_alone(&self) -> bool {
        let core = &self.core;
        let is_elsewhere =
            |peer: &Peer| peer.owner.node != core.me && peer.status != NodeStatus::Down;
        core.alone.holds() && !core.deliveries.peers.borrow().iter().any(is_elsewhere)
    }

    /// Whether this node may act on `change`, a packet, by itself and without the log: it is [alone](Self::is_alone)
    /// and serves clients, all that it has proposed is applied and handed to the namespaces' queues, so
    /// that nothing is overtaken, and the state does not keep the packet for clients that come back.
    pub fn may_act_alone(&self, change: &Change) -> bool {
        let is_kept = match change {
            Change::Packet(packet) => {
                self.core.view.glance(|state| state.keeps_packets_of(&packet.namespace))
            }
            _ => true,
        };
        !is_kept
            && self.is_alone()
            && self.incarnation().is_some()
            && self.core.pump.is_settled(change)
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
