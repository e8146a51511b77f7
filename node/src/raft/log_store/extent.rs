//! How far a log is, for those who do not keep it open.

use std::sync::{Arc, Mutex, MutexGuard};

use openraft::EntryPayload;

use crate::raft::types::{Entry, LogId};

/// How far a log is, as of what was appended since it was opened. Clones share it.
///
/// It is meant for a leader, who gives up no entry of its term. What others gave up stays here until more is appended.
#[derive(Clone, Debug, Default)]
pub(crate) struct Extent(Arc<Mutex<Marks>>);

#[derive(Debug, Default)]
struct Marks {
    appended: Option<LogId>,
    stored: Option<LogId>,
    membership: Option<LogId>,
}

impl Extent {
    /// The last entry, stored or not: nobody has heard of any after it.
    pub(crate) fn appended(&self) -> Option<LogId> {
        self.lock().appended
    }

    /// The last entry that is stored.
    pub(crate) fn stored(&self) -> Option<LogId> {
        self.lock().stored
    }

    /// The last entry that changes the membership, stored or not.
    pub(crate) fn membership(&self) -> Option<LogId> {
        self.lock().membership
    }

    pub(in crate::raft) fn set_stored(&self, last: Option<LogId>) {
        self.lock().stored = last;
    }

    /// Before anybody else hears of the entry.
    pub(super) fn note_appended(&self, entry: &Entry) {
        let mut marks = self.lock();
        marks.appended = Some(entry.log_id);
        if matches!(entry.payload, EntryPayload::Membership(_)) {
            marks.membership = Some(entry.log_id);
        }
    }

    pub(super) fn note_truncated_after(&self, last: Option<LogId>) {
        let mut marks = self.lock();
        let is_kept = |id: &LogId| last.is_some_and(|last| id.index <= last.index);
        marks.appended = marks.appended.filter(is_kept).or(last);
        marks.membership = marks.membership.filter(is_kept);
    }

    fn lock(&self) -> MutexGuard<'_, Marks> {
        self.0.lock().expect("nothing panics while it holds it")
    }
}
