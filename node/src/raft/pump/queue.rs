//! What waits to be proposed.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::PumpLimits;
use crate::metrics;
use crate::raft::receipt::{ProposeError, Waiter};
use crate::raft::state::{Change, SocketId};

/// One entry carries at most so many changes and bytes; a change that is larger travels alone.
const MAX_BATCH_CHANGES: usize = 4096;
const MAX_BATCH_BYTES: usize = 900 << 10;

/// A larger change is refused: an entry that does not fit into a message to a follower could never
/// be replicated, nor any after it.
pub(super) const MAX_CHANGE_BYTES: usize = 16 << 20;

/// A change that is not urgent waits at most so long for others: what a round of replication costs hardly depends on what
/// it carries.
pub(super) const LINGER: Duration = Duration::from_millis(5);

/// So many changes are looked at to take one back.
const MAX_WITHDRAW_SCAN: usize = 512;

/// What a change without texts takes in the queue and in an entry, at most.
const CHANGE_BYTES: usize = 96;

/// Changes in the order in which they came, within limits; shared by those who propose and by the pump's task.
#[derive(Debug)]
pub(super) struct Queue {
    contents: Mutex<Contents>,
    pub(super) filled: Notify,
    /// False while an entry is in flight, and while a drain waits for what is queued. It is true again only once what was
    /// applied of the entry is in the namespaces' queues.
    pub(super) idle: watch::Sender<bool>,
    limits: PumpLimits,
}

#[derive(Debug)]
struct Contents {
    changes: VecDeque<Queued>,
    bytes: usize,
    /// The pump waits until so many are queued; the largest number: it does not.
    wanted: usize,
    /// Nothing that is queued need go before.
    lingers_until: Option<Instant>,
    /// Set while changes are refused, and why.
    refusal: Option<ProposeError>,
}

#[derive(Debug)]
pub(super) struct Queued {
    pub(super) change: Change,
    bytes: usize,
    pub(super) waiter: Option<Waiter>,
    pub(super) deadline: Instant,
}

/// How soon a change has to go.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Haste {
    Now,
    /// Once another has to, or after [`LINGER`].
    Lingers,
}

/// When a change is taken.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    /// While the pump is open.
    Open,
    /// While it is fenced, too.
    Ahead,
}

impl Queue {
    /// It refuses everything until it is opened.
    pub(super) fn new(limits: PumpLimits) -> Self {
        let contents = Contents {
            changes: VecDeque::new(),
            bytes: 0,
            wanted: usize::MAX,
            lingers_until: None,
            refusal: Some(ProposeError::NoQuorum),
        };
        let idle = watch::Sender::new(true);
        Self { contents: Mutex::new(contents), filled: Notify::new(), idle, limits }
    }

    /// Gives the waiter back if the change is refused.
    pub(super) fn push(
        &self,
        change: Change,
        waiter: Option<Waiter>,
        entry: Entry,
        haste: Haste,
    ) -> Result<(), (ProposeError, Option<Waiter>)> {
        let limits = self.limits;
        let bytes = CHANGE_BYTES + texts_len(&change);
        let now = Instant::now();
        let deadline = now + limits.timeout;
        let mut queue = self.lock();
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
        let suffices = queue.changes.len() == queue.wanted;
        let wakes = suffices
            || match haste {
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
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Has what lingers go now.
    pub(super) fn hurry(&self) {
        let was_lingering = self.lock().lingers_until.take().is_some();
        if was_lingering {
            self.filled.notify_one();
        }
    }

    /// Takes back the change that makes a socket known, if it still lingers among the last. Its receipt says that there is no quorum,
    /// which is as final.
    pub(super) fn withdraw(&self, socket: SocketId) -> bool {
        let mut queue = self.lock();
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

    pub(super) fn open(&self) {
        let mut queue = self.lock();
        if queue.refusal != Some(ProposeError::Draining) {
            queue.refusal = None;
        }
    }

    pub(super) fn is_fenced(&self) -> bool {
        self.lock().refusal == Some(ProposeError::NoQuorum)
    }

    /// Refuses what is queued and what comes, for want of a quorum.
    pub(super) fn fence(&self) {
        let mut queue = self.lock();
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

    /// Takes no more changes; what is queued goes.
    pub(super) fn close(&self) {
        let mut queue = self.lock();
        queue.refusal = Some(ProposeError::Draining);
        if !queue.changes.is_empty() {
            self.idle.send_replace(false);
        }
        drop(queue);
        self.hurry();
    }

    /// Whether nothing is queued or in flight, and `change` would be taken.
    pub(super) fn is_settled(&self, change: &Change) -> bool {
        let queue = self.lock();
        queue.refusal.is_none()
            && queue.changes.is_empty()
            && *self.idle.borrow()
            && CHANGE_BYTES + texts_len(change) <= MAX_CHANGE_BYTES.min(self.limits.bytes)
    }

    /// Changes that are queued, and their bytes.
    pub(super) fn load(&self) -> (usize, usize) {
        let queue = self.lock();
        (queue.changes.len(), queue.bytes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().changes.is_empty()
    }

    /// Waits until so many are queued, but no longer than `patience`.
    pub(super) async fn gathered(&self, count: usize, patience: Duration) {
        let until = Instant::now() + patience;
        loop {
            {
                let mut queue = self.lock();
                if queue.changes.len() >= count {
                    break;
                }
                queue.wanted = count;
            }
            if tokio::time::timeout_at(until, self.filled.notified()).await.is_err() {
                break;
            }
        }
        self.lock().wanted = usize::MAX;
    }

    /// Until when what is queued lingers, if it does.
    pub(super) fn lingers_until(&self, now: Instant) -> Option<Instant> {
        let queue = self.lock();
        queue.lingers_until.filter(|until| *until > now && !queue.changes.is_empty())
    }

    /// Refuses what has waited too long; returns when the next change will have.
    pub(super) fn expire(&self, now: Instant) -> Option<Instant> {
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
    pub(super) fn take(&self) -> Vec<Queued> {
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

    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().expect("nothing panics while it holds the queue")
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
