//! How a node that the cluster had given up has its open sockets again.
//!
//! Its next incarnation owns nothing. Sockets that the cluster keeps are adrift until they are this
//! node's again: packets of the log pass them by, and direct ones reach them as before; then they
//! are sent what passed them by, and their clients notice nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tracing::{info, warn};

use super::cluster::SETTLE_RETRY;
use super::namespace::Adapter;
use super::projection::Heard;
use super::recipient::{Phase, Recipient};
use crate::engineio::CloseReason;
use crate::metrics;
use crate::raft::state::{Change, Outcome, Place, Recovered, SocketClaim, State, Target};
use crate::raft::{Answer, ProposeError, Receipt};

impl Adapter {
    /// This process has another incarnation from here on, in the order of the log. Sockets that
    /// nobody keeps are over.
    pub(super) fn begin_anew(&self) {
        if let Some(recovery) = &self.recovery {
            // Locked, for direct packets tell clients where they are.
            let reached = recovery.reached();
            return self.local.cast_adrift(*reached);
        }
        let lost = self.local_recipients(&Target::default());
        if !lost.is_empty() {
            let sockets = lost.len();
            warn!(namespace = %self.name, sockets, "given up with this node; closing them");
        }
        for recipient in lost {
            self.let_go(&recipient);
        }
    }

    /// Asks the cluster for the sockets that are adrift.
    pub(super) fn renew_sockets(self: &Arc<Self>) {
        if !self.local.has_adrift() {
            return;
        }
        let adrift = self.local.adrift();
        info!(namespace = %self.name, sockets = adrift.len(), "asking for open sockets again");
        let view = self.view();
        for (recipient, reached) in adrift {
            self.renew(&view, recipient, reached);
        }
    }

    fn renew(self: &Arc<Self>, view: &State, recipient: Arc<Recipient>, reached: Place) {
        let row = view.socket(recipient.id).filter(|row| *row.namespace() == self.name);
        let Some(row) = row else { return self.let_go(&recipient) };
        let claim = SocketClaim {
            socket: recipient.id,
            pid: row.pid(),
            namespace: self.name.clone(),
            offset: reached,
            key: recipient.claim,
            renews: true,
        };
        let (waiter, _receipt) = Receipt::pending();
        let (adapter, asked) = (self.clone(), recipient.clone());
        let waiter = waiter.then(move |answer| adapter.handle_renewal(&asked, answer));
        // Held, so that the end of its connection is seen here, or the cluster hears of it later.
        let _connecting = self.connecting();
        if recipient.phase() == Phase::Connected {
            let change = Change::SocketClaim(Box::new(claim));
            self.cluster.raft.pump().propose_ahead(change, waiter);
        }
    }

    /// What is agreed is acted on as an effect, in order with the packets.
    fn handle_renewal(self: &Arc<Self>, recipient: &Recipient, answer: &Answer) {
        match answer {
            Ok(Outcome::UnknownSocket | Outcome::Lost) => self.let_go(recipient),
            Err(ProposeError::NoQuorum | ProposeError::Overloaded) => self.renew_later(),
            // What is unknown may yet be agreed, or this incarnation is over, too.
            Ok(_) | Err(ProposeError::Timeout | ProposeError::Draining) => {}
        }
    }

    /// Once for all that are refused meanwhile. To ask twice for one does no harm.
    fn renew_later(self: &Arc<Self>) {
        let Some(recovery) = &self.recovery else { return };
        if recovery.asks_again.swap(true, Ordering::AcqRel) {
            return;
        }
        let adapter = self.clone();
        self.cluster.spawn(async move {
            tokio::time::sleep(SETTLE_RETRY).await;
            if let Some(recovery) = &adapter.recovery {
                recovery.asks_again.store(false, Ordering::Release);
            }
            adapter.renew_sockets();
        });
    }

    /// A socket is over, or another connection's: its client must know, and come back.
    fn let_go(&self, recipient: &Recipient) {
        self.local.remove_recipient(recipient);
        recipient.outbox.close(CloseReason::ServerShutdown);
    }

    /// A socket is this node's again: what passed it by is queued.
    pub(super) fn bring_in(&self, recovered: Recovered) -> Heard {
        let Recovered { socket, claim, rooms, value, backlog, .. } = recovered;
        let Some(recipient) = self.local.adrift_by(&socket, claim) else {
            return Heard::default();
        };
        metrics::RECOVERIES.renewed.add(1);
        let heard = self.replay(&recipient, &backlog, None);
        self.local.bring_in(&socket, &rooms, value);
        heard
    }
}
