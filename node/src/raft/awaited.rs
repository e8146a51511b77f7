//! The changes that this node sent to the leader and has not applied itself yet.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};

use tokio::time::Instant;

use super::receipt::{ProposeError, Waiter};
use super::state::Incarnation;

/// Shared by the pump, which adds what it sends, and the apply task, which takes what is applied.
/// The leader's answer may come before the change is applied here, so several entries' changes can
/// be awaited at once.
#[derive(Debug, Default)]
pub(crate) struct Awaited(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    incarnation: Incarnation,
    /// The sequence number that the front of `changes` has.
    front: u64,
    changes: VecDeque<Option<Awaiting>>,
}

/// Who waits for a change, and until when.
#[derive(Debug)]
pub(crate) struct Awaiting {
    pub(crate) waiter: Waiter,
    pub(crate) deadline: Instant,
}

impl Awaited {
    /// Awaits changes numbered from `first_seq` on, which follow those that were sent before them.
    pub(crate) fn expect(
        &self,
        incarnation: Incarnation,
        first_seq: u64,
        changes: VecDeque<Option<Awaiting>>,
    ) {
        let mut inner = self.lock();
        let next = inner.front + inner.changes.len() as u64;
        if inner.incarnation == incarnation && next == first_seq {
            inner.changes.extend(changes);
            return;
        }
        let before = std::mem::take(&mut inner.changes);
        *inner = Inner { incarnation, front: first_seq, changes };
        drop(inner);
        debug_assert!(before.iter().all(Option::is_none), "an incarnation ends with answers");
        answer(before, ProposeError::Timeout);
    }

    /// The waiter of an applied change, if there is one.
    pub(crate) fn take(&self, incarnation: Incarnation, seq: u64) -> Option<Waiter> {
        let mut inner = self.lock();
        if inner.incarnation != incarnation {
            return None;
        }
        let at = usize::try_from(seq.checked_sub(inner.front)?).ok()?;
        let awaiting = inner.changes.get_mut(at)?.take();
        if at == 0 {
            inner.changes.pop_front();
            inner.front += 1;
        }
        awaiting.map(|awaiting| awaiting.waiter)
    }

    /// Answers the changes before `seq` whose deadline has passed; returns the next deadline.
    pub(crate) fn expire(&self, now: Instant, seq: u64) -> Option<Instant> {
        let mut expired = VecDeque::new();
        let mut next = None;
        let mut inner = self.lock();
        let count = usize::try_from(seq.saturating_sub(inner.front)).unwrap_or(usize::MAX);
        for change in inner.changes.iter_mut().take(count) {
            let Some(awaiting) = change else { continue };
            if awaiting.deadline > now {
                next = Some(awaiting.deadline);
                break;
            }
            expired.push_back(change.take());
        }
        drop(inner);
        answer(expired, ProposeError::Timeout);
        next
    }

    /// Answers the changes from `seq` on, and awaits them no longer.
    pub(crate) fn fail_from(&self, seq: u64, error: ProposeError) {
        let mut inner = self.lock();
        let at = usize::try_from(seq.saturating_sub(inner.front)).unwrap_or(usize::MAX);
        let at = at.min(inner.changes.len());
        let failed = inner.changes.split_off(at);
        drop(inner);
        answer(failed, error);
    }

    /// Answers the changes from `seq` on, whose fate is still pursued.
    pub(crate) fn give_up_from(&self, seq: u64) {
        let mut inner = self.lock();
        let at = usize::try_from(seq.saturating_sub(inner.front)).unwrap_or(usize::MAX);
        let given_up = inner.changes.iter_mut().skip(at).map(Option::take).collect();
        drop(inner);
        answer(given_up, ProposeError::Timeout);
    }

    /// Answers all that is awaited, because the incarnation is over.
    pub(crate) fn fail_all(&self, error: ProposeError) {
        self.fail_from(0, error);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("nothing panics while it holds the awaited changes")
    }
}

/// Outside the lock: whoever is answered may run at once.
fn answer(changes: VecDeque<Option<Awaiting>>, error: ProposeError) {
    for awaiting in changes.into_iter().flatten() {
        awaiting.waiter.answer(Err(error));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::raft::receipt::Receipt;
    use crate::raft::state::Outcome;

    fn expect(awaited: &Awaited, first_seq: u64, count: usize, deadline: Instant) -> Vec<Receipt> {
        let (changes, receipts) = (0..count)
            .map(|_| {
                let (waiter, receipt) = Receipt::pending();
                (Some(Awaiting { waiter, deadline }), receipt)
            })
            .unzip();
        awaited.expect(7, first_seq, changes);
        receipts
    }

    async fn answer_of(receipt: Receipt) -> Result<Outcome, ProposeError> {
        tokio::time::timeout(Duration::from_secs(5), receipt).await.unwrap()
    }

    #[tokio::test]
    async fn entries_sent_before_their_predecessor_is_applied_are_all_awaited() {
        let awaited = Awaited::default();
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut receipts = expect(&awaited, 1, 2, deadline);
        receipts.extend(expect(&awaited, 3, 2, deadline));
        for (seq, receipt) in (1..).zip(receipts) {
            let waiter = awaited.take(7, seq).unwrap();
            waiter.answer(Ok(Outcome::Applied));
            assert_eq!(answer_of(receipt).await, Ok(Outcome::Applied));
        }
        assert!(awaited.take(7, 5).is_none());
    }

    #[tokio::test]
    async fn only_older_changes_expire() {
        let awaited = Awaited::default();
        let now = Instant::now();
        let older = expect(&awaited, 1, 1, now);
        let newer = expect(&awaited, 2, 1, now + Duration::from_secs(1));
        let _in_flight = expect(&awaited, 3, 1, now);
        assert_eq!(awaited.expire(now, 3), Some(now + Duration::from_secs(1)));
        for receipt in older {
            assert_eq!(answer_of(receipt).await, Err(ProposeError::Timeout));
        }
        assert!(awaited.take(7, 2).is_some() && awaited.take(7, 3).is_some());
        drop(newer);
    }

    #[tokio::test]
    async fn unsent_changes_fail_and_their_numbers_are_used_again() {
        let awaited = Awaited::default();
        let now = Instant::now();
        let _sent = expect(&awaited, 1, 1, now);
        for receipt in expect(&awaited, 2, 2, now) {
            awaited.fail_from(2, ProposeError::NoQuorum);
            assert_eq!(answer_of(receipt).await, Err(ProposeError::NoQuorum));
        }
        let _again = expect(&awaited, 2, 1, now);
        assert!(awaited.take(7, 1).is_some() && awaited.take(7, 2).is_some());
    }

    #[test]
    fn other_incarnations_are_not_awaited() {
        let awaited = Awaited::default();
        let _receipts = expect(&awaited, 1, 1, Instant::now());
        assert!(awaited.take(6, 1).is_none());
        assert!(awaited.take(7, 1).is_some());
    }
}
