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
#[derive(Default)]
pub(crate) struct Drafts(Mutex<HashMap<SessionId, Draft, FixedState>>);

/// One session as this node's writes will leave it.
#[derive(Default)]
struct Draft {
    revision: u64,
    object: Object,
    /// Not yet answered, in their order. A task awaits the first.
    writes: VecDeque<Write>,
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
    /// The object as it will be, and its revision.
    pub(super) fn read(&self, cluster: &Cluster, id: SessionId) -> (Object, u64) {
        if let Some(draft) = self.lock().get(&id) {
            return (draft.object.clone(), draft.revision);
        }
        let (revision, object) = agreed(cluster, id);
        (Arc::new(object), revision)
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
        // Held while proposing, so that writes are proposed in the order in which they build on
        // each other.
        let mut drafts = self.lock();
        let (is_new, (revision, object)) = match drafts.get(&id) {
            Some(draft) => (false, (draft.revision, draft.object.as_ref().clone())),
            None => (true, agreed(cluster, id)),
        };
        let object = match write.attempt(object, revision) {
            Ok(object) => object,
            Err(error) => {
                write.finish(Err(error));
                return false;
            }
        };
        let draft = drafts.entry(id).or_default();
        draft.revision = revision;
        draft.propose(cluster, id, object, write);
        is_new
    }

    /// Answers the session's writes one after the other, until there are none.
    pub(super) async fn settle(&self, cluster: &Cluster, id: SessionId) {
        while let Some(receipt) = self.first_receipt(id) {
            let answer = receipt.await;
            self.handle_answer(cluster, id, answer);
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

    /// The first write was answered.
    fn handle_answer(&self, cluster: &Cluster, id: SessionId, answer: Answer) {
        let mut drafts = self.lock();
        let Some(draft) = drafts.get_mut(&id) else { return };
        let Some(mut first) = draft.writes.pop_front() else { return };
        match answer {
            Ok(Outcome::Conflict { revision, .. }) if revision == first.expected => {
                first.finish(Err(SessionError::TooDeep));
                draft.redo(cluster, id);
            }
            Ok(Outcome::Conflict { .. }) => {
                first.tries += 1;
                if first.tries < MAX_TRIES {
                    draft.writes.push_front(first);
                } else {
                    first.finish(Err(SessionError::Contended));
                }
                draft.redo(cluster, id);
            }
            Ok(_) => first.finish(Ok(())),
            Err(error) => {
                first.finish(Err(error.into()));
                // What may yet be applied is what the next ones build on.
                if error.is_final() {
                    draft.redo(cluster, id);
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, Draft, FixedState>> {
        // A change that panics leaves the drafts as they were before it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Draft {
    /// Proposes `write`, which makes `object` of what stands there.
    fn propose(
        &mut self,
        cluster: &Cluster,
        id: SessionId,
        object: Map<String, Value>,
        write: Write,
    ) {
        let value = serde_json::to_string(&object).expect("a JSON object is JSON").into();
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
        let change = Change::SessionPut { session: id, expected, salt, value };
        let receipt = Some(cluster.raft().pump().propose(change));
        self.revision = next_revision(expected, cluster.raft().node_id() ^ salt);
        self.object = Arc::new(object);
        self.writes.push_back(Write { receipt, expected, ..write });
    }

    /// Makes all writes again, on what is agreed. Their first proposals, which are on the way, fail:
    /// they come before these, and build on what is no more.
    fn redo(&mut self, cluster: &Cluster, id: SessionId) {
        let (revision, object) = agreed(cluster, id);
        self.revision = revision;
        self.object = Arc::new(object);
        for mut write in std::mem::take(&mut self.writes) {
            let (object, revision) = (self.object.as_ref().clone(), self.revision);
            // One that panics is dropped, and its application hears that it is unknown.
            match catch_unwind(AssertUnwindSafe(|| write.attempt(object, revision))) {
                Ok(Ok(object)) => self.propose(cluster, id, object, write),
                Ok(Err(error)) => write.finish(Err(error)),
                Err(_panic) => {}
            }
        }
    }
}

impl Write {
    /// What the write makes of an object of that revision; 0 if there is none.
    fn attempt(
        &mut self,
        mut object: Map<String, Value>,
        revision: u64,
    ) -> Result<Map<String, Value>, SessionError> {
        let is_over = |hold: &Arc<Hold>| hold.to_make().is_none();
        if revision == 0 && self.hold.as_ref().is_some_and(is_over) {
            return Err(SessionError::Over);
        }
        match &mut self.attempt {
            Attempt::Change(change) => change(&mut object),
            Attempt::Replace(reading) if reading.revision == revision => {
                object.clone_from(&reading.object);
            }
            Attempt::Replace(reading) => {
                return Err(SessionError::Conflict { read: reading.revision, found: revision });
            }
        }
        Ok(object)
    }

    fn finish(self, result: Result<(), SessionError>) {
        if let (Ok(()), Some(hold)) = (&result, &self.hold) {
            hold.set_made();
        }
        // The application may not wait for it.
        let _ = self.done.send(result);
    }
}

fn agreed(cluster: &Cluster, id: SessionId) -> (u64, Map<String, Value>) {
    let view = cluster.view();
    view.session(id).map(|row| (row.revision, row.value.object.clone())).unwrap_or_default()
}
