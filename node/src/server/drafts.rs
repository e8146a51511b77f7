//! Sessions as they will be once this node's writes are agreed.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use serde_json::{Map, Value};
use tokio::sync::oneshot;

use super::session::SessionError;
use crate::adapter::Cluster;
use crate::raft::state::{Change, Outcome, SessionId, next_revision};
use crate::raft::{Answer, Receipt};

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

struct Write {
    change: BoxChange,
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
    pub(super) fn read(&self, cluster: &Cluster, id: SessionId) -> Object {
        match self.lock().get(&id) {
            Some(draft) => draft.object.clone(),
            None => Arc::new(agreed(cluster, id).1),
        }
    }

    /// Proposes a change to what will stand there. True if nobody [settles](Self::settle) the
    /// session's writes yet.
    pub(super) fn write(
        &self,
        cluster: &Cluster,
        id: SessionId,
        mut change: BoxChange,
        done: Done,
    ) -> bool {
        // Held while proposing, so that writes are proposed in the order in which they build on
        // each other.
        let mut drafts = self.lock();
        let (is_new, (revision, mut object)) = match drafts.get(&id) {
            Some(draft) => (false, (draft.revision, draft.object.as_ref().clone())),
            None => (true, agreed(cluster, id)),
        };
        change(&mut object);
        let write = Write { change, receipt: None, expected: revision, tries: 0, done };
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
        let expected = self.revision;
        let change = Change::SessionPut { session: id, expected, value };
        let receipt = Some(cluster.raft().pump().propose(change));
        self.revision = next_revision(expected, cluster.raft().node_id());
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
            let mut object = self.object.as_ref().clone();
            // One that panics is dropped, and its application hears that it is unknown.
            if catch_unwind(AssertUnwindSafe(|| (write.change)(&mut object))).is_ok() {
                self.propose(cluster, id, object, write);
            }
        }
    }
}

impl Write {
    fn finish(self, result: Result<(), SessionError>) {
        // The application may not wait for it.
        let _ = self.done.send(result);
    }
}

fn agreed(cluster: &Cluster, id: SessionId) -> (u64, Map<String, Value>) {
    let view = cluster.view();
    view.session(id).map(|row| (row.revision, row.value.object.clone())).unwrap_or_default()
}
