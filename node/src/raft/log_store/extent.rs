//! How far a log is, for those who do not keep it open.

use std::sync::{Arc, Mutex, MutexGuard};

use openraft::EntryPayload;

use crate::raft::types::{Entry, LogId};

/// How far a log is, as of what was appended since it was opened. Clones share it.
///
/// It is meant for a leader, who gives up no entry of its term. What others gave up stays here until more is appended.
#[derive(Clone, Debug, Default)]
pub(crate) struct Extent(Arc<Mutex<Marks>>);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    /// The last entry, stored or not: nobody has heard of any after it.
    pub(crate) appended: Option<LogId>,
    /// The last entry that is stored.
    pub(crate) stored: Option<LogId>,
    /// The last entry that changes the membership, stored or not.
    pub(crate) membership: Option<LogId>,
}

impl Extent {
    /// All of one moment.
    pub(crate) fn marks(&self) -> Marks {
        *self.lock()
    }

    /// After the disk has it.
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
