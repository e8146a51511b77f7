//! Gathers changes while the last proposal is in flight; proposes them as one.

mod queue;
mod task;

use std::sync::Arc;
use std::time::Duration;

use queue::{Entry, Haste, Queue};
pub(crate) use task::PumpTask;

use super::receipt::{ProposeError, Receipt, Waiter};
use super::state::{Change, SocketId};

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
    queue: Arc<Queue>,
}

impl Pump {
    /// It refuses everything until it is opened.
    pub(crate) fn new(limits: PumpLimits) -> Self {
        Self { queue: Arc::new(Queue::new(limits)) }
    }

    /// Proposes a change. The receipt may be dropped: the change goes on.
    pub fn propose(&self, change: Change) -> Receipt {
        let (waiter, receipt) = Receipt::pending();
        self.propose_with(change, waiter);
        receipt
    }

    /// Proposes a change whose end `waiter` hears of, be it refused at once.
    pub fn propose_with(&self, change: Change, waiter: Waiter) {
        self.push(change, waiter, Entry::Open, Haste::Now);
    }

    /// Proposes a change that need not go by itself: it keeps its place, and waits a little for others to go with.
    pub fn propose_lingering(&self, change: Change, waiter: Waiter) {
        self.push(change, waiter, Entry::Open, Haste::Lingers);
    }

    /// The same, unless it is refused at once.
    pub fn try_propose_lingering(&self, change: Change) -> Result<Receipt, ProposeError> {
        let (waiter, receipt) = Receipt::pending();
        match self.queue.push(change, Some(waiter), Entry::Open, Haste::Lingers) {
            Ok(()) => Ok(receipt),
            Err((error, _waiter)) => Err(error),
        }
    }

    /// Proposes a change also while this node is fenced: so it comes before all that is proposed once the
    /// pump is open.
    pub fn propose_ahead(&self, change: Change, waiter: Waiter) {
        self.push(change, waiter, Entry::Ahead, Haste::Now);
    }

    /// Proposes a change whose fate nobody will ask for.
    pub fn propose_quiet(&self, change: Change) -> Result<(), ProposeError> {
        let pushed = self.queue.push(change, None, Entry::Open, Haste::Now);
        pushed.map_err(|(error, _waiter)| error)
    }

    /// Has what lingers go now.
    pub fn hurry(&self) {
        self.queue.hurry();
    }

    /// Takes back the change that makes a socket known, if it still lingers among the last. Its receipt says that there is no quorum,
    /// which is as final.
    pub fn withdraw(&self, socket: SocketId) -> bool {
        self.queue.withdraw(socket)
    }

    pub(crate) fn open(&self) {
        self.queue.open();
    }

    /// Whether changes are refused for want of a quorum.
    pub(crate) fn is_fenced(&self) -> bool {
        self.queue.is_fenced()
    }

    /// Refuses what is queued and what comes, for want of a quorum. What was sent goes on.
    pub(crate) fn fence(&self) {
        self.queue.fence();
    }

    /// Takes no more changes, and waits until those that it took are settled.
    pub(crate) async fn drain(&self) {
        self.queue.close();
        let mut idle = self.queue.idle.subscribe();
        // The pump's task holds the sender as long as it runs.
        let _ = idle.wait_for(|idle| *idle).await;
    }

    /// Whether all changes that were taken are applied, and `change` would be taken.
    pub(crate) fn is_settled(&self, change: &Change) -> bool {
        self.queue.is_settled(change)
    }

    /// Changes that are queued, and their bytes.
    pub fn queued(&self) -> (usize, usize) {
        self.queue.load()
    }

    fn push(&self, change: Change, waiter: Waiter, entry: Entry, haste: Haste) {
        if let Err((error, Some(waiter))) = self.queue.push(change, Some(waiter), entry, haste) {
            waiter.answer(Err(error));
        }
    }
}

#[cfg(test)]
mod tests;
