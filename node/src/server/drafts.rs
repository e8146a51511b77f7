//! Sessions as they will be once this node's writes are agreed.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use serde_json::{Map, Value};
use tokio::sync::oneshot;

use super::session::{Hold, Reading, SessionError};
use crate::adapter::Cluster;
use crate::raft::state::{Change, Outcome, SessionId, next_revision};
use crate::raft::{Answer, Receipt};
use crate::random;

type Object = Arc<Map<String, Value>>;
type BoxChange = Box<dyn FnMut(&mut Map<String, Value>) + Send>;
type Done = oneshot::Sender<Result<(), SessionError>>;

/// The sessions that this node has writes on the way for.
///
/// A write builds on the one before without waiting for it. If another node's comes between, all
/// that build on what is no more fail, and are made again, in their order, on what stands there.
///
/// The lock is held to look and to propose, and not while a change runs: that is the application's
/// code, which may look at sessions itself.
pub(crate) struct Drafts {
    drafts: Mutex<HashMap<SessionId, Draft, FixedState>>,
    /// Of a session's JSON.
    max_bytes: usize,
}

/// One session as this node's writes will leave it.
struct Draft {
    revision: u64,
    object: Object,
    /// Proposed and not yet answered, in their order. A task awaits the first.
    writes: VecDeque<Write>,
    /// While writes are made again: those that are still to be, and those that came meanwhile.
    again: Option<VecDeque<Write>>,
}

/// What a write makes of a session.
struct Made {
    object: Map<String, Value>,
    text: String,
}

/// What a write does to the object.
pub(super) enum Attempt {
    Change(BoxChange),
    /// Only if it is what was read.
    Replace(Reading),
}

struct Write {
    attempt: Attempt,
    /// What this node knows of a session that its client comes back to.
    hold: Option<Arc<Hold>>,
    /// `None` while it is awaited.
    receipt: Option<Receipt>,
    /// The revision that it named.
    expected: u64,
    tries: usize,
    done: Done,
}

/// How often a change is tried again because others wrote first.
const MAX_TRIES: usize = 1000;

impl Drafts {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self { drafts: Mutex::default(), max_bytes }
    }

    /// The object as it will be, and its revision.
    pub(super) fn read(&self, cluster: &Cluster, id: SessionId) -> (Object, u64) {
        if let Some(draft) = self.lock().get(&id) {
            return (draft.object.clone(), draft.revision);
        }
        let (revision, object) = agreed(cluster, id);
        (object, revision)
    }

    /// Whether this node has a write of it on the way.
    pub(super) fn has(&self, id: SessionId) -> bool {
        self.lock().contains_key(&id)
    }

    /// Proposes a change to what will stand there. True if nobody [settles](Self::settle) the
    /// session's writes yet.
    pub(super) fn write(
        &self,
        cluster: &Cluster,
        id: SessionId,
        hold: Option<Arc<Hold>>,
        attempt: Attempt,
        done: Done,
    ) -> bool {
        let mut write = Write { attempt, hold, receipt: None, expected: 0, tries: 0, done };
        loop {
            let (revision, object) = match self.lock().get_mut(&id) {
                Some(Draft { again: Some(again), .. }) => {
                    again.push_back(write);
                    return false;
                }
                Some(draft) => (draft.revision, draft.object.clone()),
                None => agreed(cluster, id),
            };
            let made = match write.attempt(&object, revision, self.max_bytes) {
                Ok(made) => made,
                Err(error) => {
                    write.finish(Err(error));
                    return false;
                }
            };
            // Held while proposing, so that writes are proposed in the order in which they build on
            // each other.
            let mut drafts = self.lock();
            match drafts.entry(id) {
                Entry::Vacant(entry) => {
                    let draft = entry.insert(Draft::new(revision, object));
                    draft.propose(cluster, id, made, write);
                    return true;
                }
                Entry::Occupied(mut entry) if entry.get().is_at(revision) => {
                    entry.get_mut().propose(cluster, id, made, write);
                    return false;
                }
                // Another write came between.
                Entry::Occupied(_) => write.tries += 1,
            }
            if write.tries >= MAX_TRIES {
                write.finish(Err(SessionError::Contended));
                return false;
            }
        }
    }

    /// Answers the session's writes one after the other, until there are none.
    pub(super) async fn settle(&self, cluster: &Cluster, id: SessionId) {
        while let Some(receipt) = self.first_receipt(id) {
            let answer = receipt.await;
            let is_again = match self.lock().get_mut(&id) {
                Some(draft) => draft.handle_answer(answer, || agreed(cluster, id)),
                None => false,
            };
            if is_again {
                self.make_again(cluster, id);
            }
        }
    }

    /// The receipt of the first write; the session is forgotten if there is none.
    fn first_receipt(&self, id: SessionId) -> Option<Receipt> {
        let mut drafts = self.lock();
        let Entry::Occupied(mut draft) = drafts.entry(id) else { return None };
        match draft.get_mut().writes.front_mut() {
            Some(first) => first.receipt.take(),
            None => {
                draft.remove();
                None
            }
        }
    }

    /// Makes the writes again that are to be, each on what those before it leave.
    fn make_again(&self, cluster: &Cluster, id: SessionId) {
        while let Some((mut write, revision, object)) = self.next_again(id) {
            let attempt = || write.attempt(&object, revision, self.max_bytes);
            // One that panics is dropped, and its application hears that it is unknown.
            let Ok(made) = catch_unwind(AssertUnwindSafe(attempt)) else { continue };
            match made {
                Ok(made) => {
                    if let Some(draft) = self.lock().get_mut(&id) {
                        draft.propose(cluster, id, made, write);
                    }
                }
                Err(error) => write.finish(Err(error)),
            }
        }
    }

    /// The next write that is to be made again, and what it builds on. With the last one that is
    /// over, and writes are proposed by those who make them.
    fn next_again(&self, id: SessionId) -> Option<(Write, u64, Object)> {
        let mut drafts = self.lock();
        let draft = drafts.get_mut(&id)?;
        let next = draft.again.as_mut()?.pop_front();
        if next.is_none() {
            draft.again = None;
        }
        next.map(|write| (write, draft.revision, draft.object.clone()))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, Draft, FixedState>> {
        // A change that panics as it is dropped leaves drafts that are whole.
        self.drafts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Draft {
    fn new(revision: u64, object: Object) -> Self {
        Self { revision, object, writes: VecDeque::new(), again: None }
    }

    /// Whether a write that builds on `revision` may be proposed.
    fn is_at(&self, revision: u64) -> bool {
        self.again.is_none() && self.revision == revision
    }

    /// Proposes `write`, which has `made` that of what stands there.
    fn propose(&mut self, cluster: &Cluster, id: SessionId, made: Made, write: Write) {
        if self.revision == 0
            && let Some(keep) = write.hold.as_ref().and_then(|hold| hold.to_make())
        {
            // Its revision is known ahead, whoever of this node makes it: a write, or a socket. What
            // cannot be agreed now makes the write itself fail.
            let keep_ms = keep.as_millis() as u64;
            let make = Change::SessionTouch { session: id, keep_ms };
            let _ = cluster.raft().pump().propose_quiet(make);
            self.revision = next_revision(0, cluster.raft().node_id());
        }
        let expected = self.revision;
        // Whoever read what this makes must not find the same revision made by a later write, if
        // this one fails.
        let salt = random::number();
        let change = Change::SessionPut { session: id, expected, salt, value: made.text.into() };
        let receipt = Some(cluster.raft().pump().propose(change));
        self.revision = next_revision(expected, cluster.raft().node_id() ^ salt);
        self.object = Arc::new(made.object);
        self.writes.push_back(Write { receipt, expected, ..write });
    }

    /// The first write was answered. True if writes are to be [made again](Drafts::make_again), on
    /// what is `agreed`.
    fn handle_answer(&mut self, answer: Answer, agreed: impl FnOnce() -> (u64, Object)) -> bool {
        let Some(mut first) = self.writes.pop_front() else { return false };
        match answer {
            Ok(Outcome::Conflict { revision, .. }) if revision == first.expected => {
                first.finish(Err(SessionError::TooDeep));
            }
            Ok(Outcome::Conflict { .. }) => {
                first.tries += 1;
                if first.tries < MAX_TRIES {
                    self.writes.push_front(first);
                } else {
                    first.finish(Err(SessionError::Contended));
                }
            }
            Ok(_) => {
                first.finish(Ok(()));
                return false;
            }
            Err(error) => {
                first.finish(Err(error.into()));
                // What may yet be applied is what the next ones build on.
                if !error.is_final() {
                    return false;
                }
                // What they build on will never be, so neither will they. To make them again would
                // mostly find the same error, for each of them in turn.
                for next in self.writes.drain(..) {
                    next.finish(Err(error.into()));
                }
            }
        }
        // The proposals of those that are made again fail: they come before the new ones, and build
        // on what is no more.
        (self.revision, self.object) = agreed();
        self.again = Some(std::mem::take(&mut self.writes));
        true
    }
}

impl Write {
    /// What the write makes of an object of that revision; 0 if there is none.
    fn attempt(
        &mut self,
        object: &Object,
        revision: u64,
        max_bytes: usize,
    ) -> Result<Made, SessionError> {
        let is_over = |hold: &Arc<Hold>| hold.to_make().is_none();
        if revision == 0 && self.hold.as_ref().is_some_and(is_over) {
            return Err(SessionError::Over);
        }
        let object = match &mut self.attempt {
            Attempt::Change(change) => {
                let mut object = object.as_ref().clone();
                change(&mut object);
                object
            }
            Attempt::Replace(reading) if reading.revision == revision => reading.object.clone(),
            Attempt::Replace(reading) => {
                return Err(SessionError::Conflict { read: reading.revision, found: revision });
            }
        };
        let text = serde_json::to_string(&object).expect("a JSON object is JSON");
        if text.len() > max_bytes {
            return Err(SessionError::TooLarge { bytes: text.len(), max_bytes });
        }
        Ok(Made { object, text })
    }

    fn finish(self, result: Result<(), SessionError>) {
        if let (Ok(()), Some(hold)) = (&result, &self.hold) {
            hold.set_made();
        }
        // The application may not wait for it.
        let _ = self.done.send(result);
    }
}

fn agreed(cluster: &Cluster, id: SessionId) -> (u64, Object) {
    let view = cluster.view();
    let row = view.session(id);
    row.map(|row| (row.revision, Arc::new(row.value.object.clone()))).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::ProposeError;

    type Updated = oneshot::Receiver<Result<(), SessionError>>;

    /// A draft with writes on the way, none of which may be made again.
    fn draft(writes: usize) -> (Draft, Vec<Updated>) {
        let mut draft = Draft::new(1, Object::default());
        let mut updates = Vec::new();
        for n in 1..=writes {
            let (done, updated) = oneshot::channel();
            let attempt = Attempt::Change(Box::new(|_| panic!("it was made again")));
            let expected = n as u64;
            let write = Write { attempt, hold: None, receipt: None, expected, tries: 0, done };
            draft.writes.push_back(write);
            updates.push(updated);
        }
        (draft, updates)
    }

    #[test]
    fn writes_on_one_that_was_refused_are_refused_with_it() {
        let (mut draft, updates) = draft(3);
        let agreed = || (7, Object::default());
        assert!(draft.handle_answer(Err(ProposeError::NoQuorum), agreed));
        for mut updated in updates {
            let refused = Err(SessionError::Propose(ProposeError::NoQuorum));
            assert_eq!(updated.try_recv(), Ok(refused));
        }
        assert_eq!((draft.revision, draft.writes.len()), (7, 0));
        assert_eq!(draft.again.as_ref().map(VecDeque::len), Some(0));
    }

    #[test]
    fn writes_on_one_that_may_be_applied_wait_for_their_own_answers() {
        let (mut draft, mut updates) = draft(2);
        let agreed = || unreachable!("what stands there is not known");
        assert!(!draft.handle_answer(Err(ProposeError::Timeout), agreed));
        assert!(updates[0].try_recv().unwrap().is_err());
        assert!(updates[1].try_recv().is_err() && draft.writes.len() == 1);
    }

    #[test]
    fn writes_on_one_that_met_another_are_made_again_with_it() {
        let (mut draft, _updates) = draft(2);
        let conflict = Outcome::Conflict { revision: 9, value: "{}".into() };
        assert!(draft.handle_answer(Ok(conflict), || (9, Object::default())));
        assert!(!draft.is_at(9), "others queue behind them");
        assert_eq!(draft.again.as_ref().map(VecDeque::len), Some(2));
    }

    #[test]
    fn write_that_is_too_large_is_refused() {
        let (done, _updated) = oneshot::channel();
        let attempt = Attempt::Change(Box::new(|object| {
            object.insert("a".to_owned(), "x".repeat(100).into());
        }));
        let mut write = Write { attempt, hold: None, receipt: None, expected: 0, tries: 0, done };
        assert!(write.attempt(&Object::default(), 0, 108).is_ok());
        let refused = write.attempt(&Object::default(), 0, 107).err();
        assert_eq!(refused, Some(SessionError::TooLarge { bytes: 108, max_bytes: 107 }));
    }
}
