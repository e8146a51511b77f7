//! Gathers changes while the last proposal is in flight; proposes them as one.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::awaited::Awaiting;
use super::deliveries::{Deliveries, Standing};
use super::planted::PlantedBug;
use super::proposer::{Failed, Propose};
use super::receipt::{ProposeError, Receipt, Waiter};
use super::state::{Change, Incarnation, NodeId, Owner, Proposal, SocketId};
use super::types::Applied;
use super::wire::encode_proposal;
use crate::metrics;

/// One entry carries at most so many changes and bytes; a change that is larger travels alone.
const MAX_BATCH_CHANGES: usize = 4096;
const MAX_BATCH_BYTES: usize = 900 << 10;

/// A larger change is refused: an entry that does not fit into a message to a follower could never
/// be replicated, nor any after it.
const MAX_CHANGE_BYTES: usize = 16 << 20;

/// After so long without an answer the same is proposed again, perhaps to another leader.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);

/// So many changes in one entry are a crowd.
const CROWD: usize = 4;

/// A change that is not urgent waits at most so long for others: what a round of replication costs hardly depends on what
/// it carries.
const LINGER: Duration = Duration::from_millis(5);

/// So many changes are looked at to take one back.
const MAX_WITHDRAW_SCAN: usize = 512;

/// What a change without texts takes in the queue and in an entry, at most.
const CHANGE_BYTES: usize = 96;

/// What may wait, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PumpLimits {
    pub(crate) changes: usize,
    pub(crate) bytes: usize,
    pub(crate) timeout: Duration,
}

/// Proposes changes in the order in which they are handed to it.
///
/// Handing over never waits. More than the settings (`PumpLimits`) allow are refused as overloaded; what was
/// not sent within the timeout is refused for lack of a quorum; what was sent, and is not known to
/// be applied by then, is reported as unknown, and its fate is pursued all the same: the state
/// applies a sequence number once.
#[derive(Clone, Debug)]
pub struct Pump {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    filled: Notify,
    /// False while an entry is in flight, and while a drain waits for what is queued. It is true again only once what was
    /// applied of the entry is in the namespaces' queues.
    idle: watch::Sender<bool>,
    limits: PumpLimits,
}

#[derive(Debug)]
struct Queue {
    changes: VecDeque<Queued>,
    bytes: usize,
    /// Nothing that is queued need go before.
    lingers_until: Option<Instant>,
    /// Set while changes are refused, and why.
    refusal: Option<ProposeError>,
}

#[derive(Debug)]
struct Queued {
    change: Change,
    bytes: usize,
    waiter: Option<Waiter>,
    deadline: Instant,
}

/// How soon a change has to go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Haste {
    Now,
    /// Once another has to, or after [`LINGER`].
    Lingers,
}

/// When a change is taken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Entry {
    /// While the pump is open.
    Open,
    /// While it is fenced, too.
    Ahead,
}

impl Pump {
    /// It refuses everything until it is opened.
    pub(crate) fn new(limits: PumpLimits) -> Self {
        let queue = Queue {
            changes: VecDeque::new(),
            bytes: 0,
            lingers_until: None,
            refusal: Some(ProposeError::NoQuorum),
        };
        let idle = watch::Sender::new(true);
        let shared = Shared { queue: Mutex::new(queue), filled: Notify::new(), idle, limits };
        Self { shared: Arc::new(shared) }
    }

    /// Proposes a change. The receipt may be dropped: the change goes on.
    pub fn propose(&self, change: Change) -> Receipt {
        let (waiter, receipt) = Receipt::pending();
        self.propose_with(change, waiter);
        receipt
    }

    /// Proposes a change whose end `waiter` hears of, be it refused at once.
    pub fn propose_with(&self, change: Change, waiter: Waiter) {
        if let Err((error, Some(waiter))) = self.push(change, Some(waiter), Entry::Open, Haste::Now)
        {
            waiter.answer(Err(error));
        }
    }

    /// Proposes a change that need not go by itself: it keeps its place, and waits a little for others to go with.
    pub fn propose_lingering(&self, change: Change, waiter: Waiter) {
        if let Err((error, Some(waiter))) =
            self.push(change, Some(waiter), Entry::Open, Haste::Lingers)
        {
            waiter.answer(Err(error));
        }
    }

    /// The same, unless it is refused at once.
    pub fn try_propose_lingering(&self, change: Change) -> Result<Receipt, ProposeError> {
        let (waiter, receipt) = Receipt::pending();
        match self.push(change, Some(waiter), Entry::Open, Haste::Lingers) {
            Ok(()) => Ok(receipt),
            Err((error, _waiter)) => Err(error),
        }
    }

    /// Has what lingers go now.
    pub fn hurry(&self) {
        let was_lingering = self.shared.lock().lingers_until.take().is_some();
        if was_lingering {
            self.shared.filled.notify_one();
        }
    }

    /// Takes back the change that makes a socket known, if it still lingers among the last. Its receipt says that there is no quorum,
    /// which is as final.
    pub fn withdraw(&self, socket: SocketId) -> bool {
        let mut queue = self.shared.lock();
        if queue.lingers_until.is_none() {
            return false;
        }
        let is_its =
            |queued: &Queued| matches!(&queued.change, Change::SocketUp(up) if up.socket == socket);
        // Without a leader there may be thousands.
        let first = queue.changes.len().saturating_sub(MAX_WITHDRAW_SCAN);
        let found = queue.changes.range(first..).rposition(is_its);
        let Some(queued) = found.and_then(|at| queue.changes.remove(first + at)) else {
            return false;
        };
        queue.bytes -= queued.bytes;
        drop(queue);
        if let Some(waiter) = queued.waiter {
            waiter.answer(Err(ProposeError::NoQuorum));
        }
        true
    }

    /// The same, also while this node is fenced: so it comes before all that is proposed once the
    /// pump is open.
    pub fn propose_ahead(&self, change: Change, waiter: Waiter) {
        if let Err((error, Some(waiter))) =
            self.push(change, Some(waiter), Entry::Ahead, Haste::Now)
        {
            waiter.answer(Err(error));
        }
    }

    /// Proposes a change whose fate nobody will ask for.
    pub fn propose_quiet(&self, change: Change) -> Result<(), ProposeError> {
        self.push(change, None, Entry::Open, Haste::Now).map_err(|(error, _waiter)| error)
    }

    /// Gives the waiter back if the change is refused.
    fn push(
        &self,
        change: Change,
        waiter: Option<Waiter>,
        entry: Entry,
        haste: Haste,
    ) -> Result<(), (ProposeError, Option<Waiter>)> {
        let limits = &self.shared.limits;
        let bytes = CHANGE_BYTES + texts_len(&change);
        let now = Instant::now();
        let deadline = now + limits.timeout;
        let mut queue = self.shared.lock();
        let is_exempt = entry == Entry::Ahead && queue.refusal == Some(ProposeError::NoQuorum);
        if let Some(error) = queue.refusal.filter(|_| !is_exempt) {
            return Err((error, waiter));
        }
        let is_full = queue.changes.len() >= limits.changes || queue.bytes + bytes > limits.bytes;
        if is_full || bytes > MAX_CHANGE_BYTES {
            metrics::PROPOSALS_REFUSED.add(1);
            return Err((ProposeError::Overloaded, waiter));
        }
        queue.bytes += bytes;
        queue.changes.push_back(Queued { change, bytes, waiter, deadline });
        let was_empty = queue.changes.len() == 1;
        let wakes = match haste {
            Haste::Now => queue.lingers_until.take().is_some() || was_empty,
            Haste::Lingers => {
                if was_empty {
                    queue.lingers_until = Some(now + LINGER);
                }
                was_empty
            }
        };
        drop(queue);
        if wakes {
            self.shared.filled.notify_one();
        }
        Ok(())
    }

    pub(crate) fn open(&self) {
        let mut queue = self.shared.lock();
        if queue.refusal != Some(ProposeError::Draining) {
            queue.refusal = None;
        }
    }

    /// Whether changes are refused for want of a quorum.
    pub(crate) fn is_fenced(&self) -> bool {
        self.shared.lock().refusal == Some(ProposeError::NoQuorum)
    }

    /// Refuses what is queued and what comes, for want of a quorum. What was sent goes on.
    pub(crate) fn fence(&self) {
        let mut queue = self.shared.lock();
        if queue.refusal.is_some() {
            return;
        }
        queue.refusal = Some(ProposeError::NoQuorum);
        queue.bytes = 0;
        queue.lingers_until = None;
        let refused = std::mem::take(&mut queue.changes);
        drop(queue);
        for queued in refused {
            refuse(queued, ProposeError::NoQuorum);
        }
    }

    /// Takes no more changes, and waits until those that it took are settled.
    pub(crate) async fn drain(&self) {
        {
            let mut queue = self.shared.lock();
            queue.refusal = Some(ProposeError::Draining);
            if !queue.changes.is_empty() {
                self.shared.idle.send_replace(false);
            }
        }
        self.hurry();
        let mut idle = self.shared.idle.subscribe();
        // The pump's task holds the sender as long as it runs.
        let _ = idle.wait_for(|idle| *idle).await;
    }

    /// Whether all changes that were taken are applied, and `change` would be taken.
    pub(crate) fn is_settled(&self, change: &Change) -> bool {
        let queue = self.shared.lock();
        queue.refusal.is_none()
            && queue.changes.is_empty()
            && *self.shared.idle.borrow()
            && CHANGE_BYTES + texts_len(change) <= MAX_CHANGE_BYTES.min(self.shared.limits.bytes)
    }

    /// Changes that are queued, and their bytes.
    pub fn queued(&self) -> (usize, usize) {
        let queue = self.shared.lock();
        (queue.changes.len(), queue.bytes)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("nothing panics while it holds the queue")
    }

    /// Until when what is queued lingers, if it does.
    fn lingers_until(&self, now: Instant) -> Option<Instant> {
        let queue = self.lock();
        queue.lingers_until.filter(|until| *until > now && !queue.changes.is_empty())
    }

    /// Refuses what has waited too long; returns when the next change will have.
    fn expire(&self, now: Instant) -> Option<Instant> {
        let mut expired = Vec::new();
        let mut queue = self.lock();
        while queue.changes.front().is_some_and(|queued| queued.deadline <= now) {
            let queued = queue.changes.pop_front().expect("the front is there");
            queue.bytes -= queued.bytes;
            expired.push(queued);
        }
        let next = queue.changes.front().map(|queued| queued.deadline);
        drop(queue);
        for queued in expired {
            refuse(queued, ProposeError::NoQuorum);
        }
        next
    }

    /// What goes into the next entry. Under the lock, so that a drain finds it queued or in flight.
    fn take(&self) -> Vec<Queued> {
        let mut queue = self.lock();
        let mut bytes = 0;
        let mut count = 0;
        for queued in &queue.changes {
            bytes += queued.bytes;
            if count == MAX_BATCH_CHANGES || (count > 0 && bytes > MAX_BATCH_BYTES) {
                break;
            }
            count += 1;
        }
        let batch: Vec<Queued> = queue.changes.drain(..count).collect();
        queue.bytes -= batch.iter().map(|queued| queued.bytes).sum::<usize>();
        queue.lingers_until = None;
        self.idle.send_replace(batch.is_empty());
        batch
    }
}

fn refuse(queued: Queued, error: ProposeError) {
    metrics::PROPOSALS_REFUSED.add(1);
    if let Some(waiter) = queued.waiter {
        waiter.answer(Err(error));
    }
}

/// The texts and bytes that a change carries.
fn texts_len(change: &Change) -> usize {
    let texts = |texts: &[bytestring::ByteString]| texts.iter().map(|t| t.len() + 4).sum::<usize>();
    match change {
        Change::NodeUp(_)
        | Change::NodeDraining
        | Change::NodeDown { .. }
        | Change::SocketGone { .. }
        | Change::SessionExpired { .. }
        | Change::SessionTouch { .. }
        | Change::SessionDestroy { .. }
        | Change::HearDeparted
        | Change::DepartedTold { .. } => 0,
        Change::SocketDetached { data, .. } => data.as_ref().map_or(0, |data| data.len()),
        Change::SocketUp(up) => up.namespace.len() + texts(&up.rooms),
        Change::SocketClaim(claim) => claim.namespace.len(),
        Change::WindowExpired { namespace } => namespace.len(),
        Change::Join { rooms, .. } | Change::Leave { rooms, .. } => texts(rooms),
        Change::JoinMatching { target, rooms, .. }
        | Change::LeaveMatching { target, rooms, .. } => texts(rooms) + target.bytes(),
        Change::DisconnectMatching { target, .. } => target.bytes(),
        Change::SessionPut { value, .. } => value.len(),
        Change::Packet(packet) => {
            let attachments = packet.payload.attachments.iter();
            packet.namespace.len()
                + packet.payload.json.len()
                + attachments.map(|bytes| bytes.len() + 6).sum::<usize>()
                + packet.target.bytes()
        }
    }
}

/// The pump's task: one proposal in flight at a time.
pub(crate) struct PumpTask<P> {
    me: NodeId,
    shared: Arc<Shared>,
    deliveries: Arc<Deliveries>,
    standing: watch::Receiver<Standing>,
    proposer: P,
    /// Milliseconds since the Unix epoch.
    clock: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// The incarnation whose changes `next_seq` numbers.
    incarnation: Incarnation,
    next_seq: u64,
    /// The last entry carried a crowd.
    crowded: bool,
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
        let shared = pump.shared.clone();
        Self {
            me,
            shared,
            deliveries,
            standing,
            proposer,
            clock,
            incarnation: 0,
            next_seq: 1,
            crowded: false,
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
            let lingers_until = self.shared.lingers_until(Instant::now());
            if lingers_until.is_none() {
                if !self.shared.lock().changes.is_empty() {
                    self.proposer.gather(self.crowded).await;
                }
                let live = self.standing.borrow_and_update().live;
                if let Some(incarnation) = live {
                    let batch = self.shared.take();
                    if !batch.is_empty() {
                        self.crowded = batch.len() >= CROWD;
                        return self.number(incarnation, batch);
                    }
                } else if self.shared.lock().changes.is_empty() {
                    self.shared.idle.send_replace(true);
                }
            }
            tokio::select! {
                () = self.shared.filled.notified() => {}
                _ = self.standing.changed() => {}
                () = sleep_until(earlier(next_expiry, lingers_until)) => {}
            }
        }
    }

    /// Answers what has waited too long: in the queue, or sent with a number below `seq`.
    fn expire(&self, seq: u64) -> Option<Instant> {
        let now = Instant::now();
        earlier(self.shared.expire(now), self.deliveries.awaited.expire(now, seq))
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
            let result = match self.attempt(batch, overdue).await {
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
        overdue: bool,
    ) -> ControlFlow<Settled, Result<Applied, Failed>> {
        let latest = Instant::now() + ATTEMPT_TIMEOUT;
        let until = if overdue { latest } else { latest.min(batch.deadline) };
        let attempt = self.proposer.propose(batch.bytes.clone(), batch.changes, until);
        tokio::pin!(attempt);
        loop {
            let now = Instant::now();
            let sent = self.deliveries.awaited.expire(now, batch.first_seq);
            let next_expiry = earlier(self.shared.expire(now), sent);
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

#[cfg(test)]
mod tests;
