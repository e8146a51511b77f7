//! Numbers what is queued, and pursues it until its fate is known.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::Pump;
use super::queue::{Queue, Queued};
use crate::metrics;
use crate::raft::awaited::Awaiting;
use crate::raft::deliveries::{Deliveries, Standing};
use crate::raft::gather::CROWD;
use crate::raft::planted::PlantedBug;
use crate::raft::proposer::{Failed, Propose, Round};
use crate::raft::receipt::ProposeError;
use crate::raft::state::{Incarnation, NodeId, Owner, Proposal};
use crate::raft::types::Applied;
use crate::raft::wire::encode_proposal;

/// After so long without an answer the same is proposed again, perhaps to another leader.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);

/// So long after a crowd was answered, it is not expected any more; until then, an entry waits until as many changes
/// are there again.
const EXPECTED_WITHIN: Duration = Duration::from_millis(10);

/// It waits no longer for them.
const PATIENCE: Duration = Duration::from_millis(1);

/// The pump's task: one proposal in flight at a time.
pub(crate) struct PumpTask<P> {
    me: NodeId,
    queue: Arc<Queue>,
    deliveries: Arc<Deliveries>,
    standing: watch::Receiver<Standing>,
    proposer: P,
    /// Milliseconds since the Unix epoch.
    clock: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// The incarnation whose changes `next_seq` numbers.
    incarnation: Incarnation,
    next_seq: u64,
    last: LastEntry,
}

/// The entry before the next.
struct LastEntry {
    changes: usize,
    answered: Instant,
}

/// One entry on its way.
struct InFlight {
    incarnation: Incarnation,
    first_seq: u64,
    last_seq: u64,
    bytes: Bytes,
    changes: u32,
    /// Until then its waiters wait.
    deadline: Instant,
    started: Instant,
}

/// How a proposal in flight ended.
#[derive(Debug, PartialEq, Eq)]
enum Settled {
    Applied,
    /// It certainly was not and will not be applied; nobody knows its sequence numbers.
    NotSent,
    /// The incarnation is over.
    Ended,
}

impl<P: Propose> PumpTask<P> {
    pub(crate) fn new(
        me: NodeId,
        pump: &Pump,
        deliveries: Arc<Deliveries>,
        proposer: P,
        clock: Arc<dyn Fn() -> u64 + Send + Sync>,
    ) -> Self {
        let standing = deliveries.standing.subscribe();
        let queue = pump.queue.clone();
        Self {
            me,
            queue,
            deliveries,
            standing,
            proposer,
            clock,
            incarnation: 0,
            next_seq: 1,
            last: LastEntry { changes: 0, answered: Instant::now() },
        }
    }

    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let stopped = stop.cancelled_owned();
        tokio::pin!(stopped);
        loop {
            let batch = tokio::select! {
                batch = self.next_batch() => batch,
                () = &mut stopped => break,
            };
            tokio::select! {
                () = self.settle(batch) => {}
                () = &mut stopped => break,
            }
        }
        self.deliveries.awaited.fail_all(ProposeError::Timeout);
    }

    /// Waits until this node is registered and there is something to propose.
    async fn next_batch(&mut self) -> InFlight {
        loop {
            let next_expiry = self.expire(self.next_seq);
            let lingers_until = self.queue.lingers_until(Instant::now());
            if lingers_until.is_none() {
                if !self.queue.is_empty() {
                    let round = self.proposer.opened().await;
                    if let (Round::Shared, Some(crowd)) = (round, self.crowd()) {
                        self.queue.gathered(crowd, PATIENCE).await;
                    }
                }
                let live = self.standing.borrow_and_update().live;
                if let Some(incarnation) = live {
                    let batch = self.queue.take();
                    if !batch.is_empty() {
                        self.last.changes = batch.len();
                        return self.number(incarnation, batch);
                    }
                } else if self.queue.is_empty() {
                    self.queue.idle.send_replace(true);
                }
            }
            tokio::select! {
                () = self.queue.filled.notified() => {}
                _ = self.standing.changed() => {}
                () = sleep_until(earlier(next_expiry, lingers_until)) => {}
            }
        }
    }

    /// How many changes come together now, if they do.
    fn crowd(&self) -> Option<usize> {
        let LastEntry { changes, answered } = self.last;
        let is_live = self.standing.borrow().live.is_some();
        let is_crowd = changes >= CROWD as usize && answered.elapsed() < EXPECTED_WITHIN;
        (is_live && is_crowd).then_some(changes)
    }

    /// Answers what has waited too long: in the queue, or sent with a number below `seq`.
    fn expire(&self, seq: u64) -> Option<Instant> {
        let now = Instant::now();
        earlier(self.queue.expire(now), self.deliveries.awaited.expire(now, seq))
    }

    /// Gives the changes of a batch their sequence numbers, and awaits them.
    fn number(&mut self, incarnation: Incarnation, batch: Vec<Queued>) -> InFlight {
        if self.incarnation != incarnation {
            self.incarnation = incarnation;
            self.next_seq = 1;
        }
        let first_seq = self.next_seq;
        let last_seq = first_seq + batch.len() as u64 - 1;
        let deadline = batch.last().expect("a batch has changes").deadline;
        let mut awaited = VecDeque::with_capacity(batch.len());
        let mut changes = Vec::with_capacity(batch.len());
        for Queued { change, waiter, deadline, .. } in batch {
            awaited.push_back(waiter.map(|waiter| Awaiting { waiter, deadline }));
            changes.push(change);
        }
        self.deliveries.awaited.expect(incarnation, first_seq, awaited);
        if self.deliveries.planted == Some(PlantedBug::DeliveryBeforeCommit) {
            self.deliveries.deliver_unagreed(Owner { node: self.me, incarnation }, &changes);
        }
        let proposal =
            Proposal { node: self.me, incarnation, first_seq, stamp_ms: (self.clock)(), changes };
        let bytes = encode_proposal(&proposal);
        let changes = proposal.changes.len() as u32;
        self.deliveries.own_proposals.keep(bytes.clone(), proposal);
        let started = Instant::now();
        InFlight { incarnation, first_seq, last_seq, bytes, changes, deadline, started }
    }

    async fn settle(&mut self, batch: InFlight) {
        match self.pursue(&batch).await {
            Settled::Applied => {
                self.next_seq = batch.last_seq + 1;
                self.last.answered = Instant::now();
                metrics::PROPOSAL_DURATION.record_all([batch.started.elapsed()].into_iter());
            }
            Settled::NotSent => {
                debug!(first_seq = batch.first_seq, "changes found no quorum");
                self.deliveries.awaited.fail_from(batch.first_seq, ProposeError::NoQuorum);
            }
            Settled::Ended => {
                debug!(incarnation = batch.incarnation, "incarnation is over");
                // Whoever ended it has answered those who waited, but not those of a batch that was
                // numbered in that moment.
                self.deliveries.awaited.fail_all(ProposeError::Timeout);
            }
        }
    }

    /// Proposes the same bytes until their fate is known.
    async fn pursue(&mut self, batch: &InFlight) -> Settled {
        let mut sent = false;
        let mut overdue = false;
        loop {
            let result = match self.attempt(batch, sent, overdue).await {
                ControlFlow::Break(settled) => return settled,
                ControlFlow::Continue(result) => result,
            };
            match result {
                Ok(applied) if !applied.refused => return Settled::Applied,
                Ok(_) => return self.refused(batch).await,
                Err(Failed::NotSent) => {}
                Err(Failed::Unknown) => sent = true,
            }
            if !overdue && Instant::now() >= batch.deadline {
                overdue = true;
                if !sent {
                    return Settled::NotSent;
                }
                self.deliveries.awaited.give_up_from(batch.first_seq);
            }
        }
    }

    /// One attempt, cut short by whatever tells the batch's fate before its answer does.
    async fn attempt(
        &mut self,
        batch: &InFlight,
        again: bool,
        overdue: bool,
    ) -> ControlFlow<Settled, Result<Applied, Failed>> {
        let latest = Instant::now() + ATTEMPT_TIMEOUT;
        let until = if overdue { latest } else { latest.min(batch.deadline) };
        let attempt = self.proposer.propose(batch.bytes.clone(), batch.changes, again, until);
        tokio::pin!(attempt);
        loop {
            let now = Instant::now();
            let sent = self.deliveries.awaited.expire(now, batch.first_seq);
            let next_expiry = earlier(self.queue.expire(now), sent);
            tokio::select! {
                biased;
                settled = fate(&mut self.standing, batch) => return ControlFlow::Break(settled),
                result = &mut attempt => return ControlFlow::Continue(result),
                () = sleep_until(next_expiry) => {}
            }
        }
    }

    /// The leader knows already that the incarnation is over; this node's own log will say so.
    async fn refused(&mut self, batch: &InFlight) -> Settled {
        warn!(incarnation = batch.incarnation, "proposal was refused");
        let patience = batch.deadline.max(Instant::now() + ATTEMPT_TIMEOUT);
        match tokio::time::timeout_at(patience, fate(&mut self.standing, batch)).await {
            Ok(settled) => settled,
            Err(_elapsed) => {
                self.deliveries.lose_track();
                Settled::Ended
            }
        }
    }
}

/// Resolves once this node's own log tells what became of the batch.
async fn fate(standing: &mut watch::Receiver<Standing>, batch: &InFlight) -> Settled {
    let known = |standing: &Standing| {
        standing.live != Some(batch.incarnation) || standing.last_seq >= batch.last_seq
    };
    match standing.wait_for(known).await {
        Ok(standing) if standing.live == Some(batch.incarnation) => Settled::Applied,
        // The sender lives as long as the pump's own task.
        Ok(_) | Err(_) => Settled::Ended,
    }
}

fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, other) => one.or(other),
    }
}

/// Never, if there is nothing to wait for.
async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
