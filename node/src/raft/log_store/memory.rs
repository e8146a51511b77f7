//! A log in memory, for `durability = "memory"` and for simulated machines.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use openraft::storage::IOFlushed;
use tokio_util::task::TaskTracker;

use super::{Extent, take_bytes};
use crate::raft::types::{Entry, LogId, TypeConfig, Vote};

/// Clones share one log: a simulated machine hands it to its next process.
#[derive(Clone, Debug, Default)]
pub(crate) struct MemoryLog(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    image: Image,
    extent: Extent,
    /// Of a simulated machine only.
    disk: Option<SlowDisk>,
}

/// What a log holds.
#[derive(Clone, Debug, Default)]
struct Image {
    entries: BTreeMap<u64, Entry>,
    purged: Option<LogId>,
    committed: Option<LogId>,
    vote: Option<Vote>,
}

/// One change of a log. A disk has a prefix of all changes, whatever the moment of a crash.
enum Write {
    Append(Vec<Entry>),
    TruncateAfter(Option<LogId>),
    Purge(LogId),
    Committed(Option<LogId>),
    Vote(Vote),
}

/// A simulated disk, which takes its time, and loses at a crash what was not synced.
struct SlowDisk {
    sync_time: Duration,
    synced: Image,
    unsynced: Vec<Write>,
    /// Writes ever synced.
    synced_count: usize,
    /// Those who wait for the next sync.
    waiting: Vec<IOFlushed<TypeConfig>>,
    syncing: bool,
}

impl MemoryLog {
    /// A log whose entries and votes count as stored only `sync_time` after they were written.
    pub(crate) fn slow(sync_time: Duration) -> Self {
        let disk = SlowDisk {
            sync_time,
            synced: Image::default(),
            unsynced: Vec::new(),
            synced_count: 0,
            waiting: Vec::new(),
            syncing: false,
        };
        Self(Arc::new(Mutex::new(Inner { disk: Some(disk), ..Inner::default() })))
    }

    /// The machine crashed: what was not synced is gone. Returns how many writes were.
    pub(crate) fn crash(&self) -> usize {
        let mut inner = self.lock();
        let Some(disk) = &mut inner.disk else { return 0 };
        let lost = std::mem::take(&mut disk.unsynced).len();
        disk.waiting.clear();
        disk.syncing = false;
        inner.image = disk.synced.clone();
        inner.extent = Extent::default();
        lost
    }

    pub(super) fn read(&self, start: u64, end: u64, max_bytes: usize) -> Vec<Entry> {
        let image = &self.lock().image;
        let entries = image.entries.range(start..end);
        let entries = entries.map(|(_, entry)| Ok::<_, Infallible>(entry.clone()));
        let Ok(entries) = take_bytes(entries, max_bytes);
        entries
    }

    pub(super) fn purged_and_last(&self) -> (Option<LogId>, Option<LogId>) {
        let image = &self.lock().image;
        (image.purged, image.last().or(image.purged))
    }

    pub(super) fn vote(&self) -> Option<Vote> {
        self.lock().image.vote
    }

    /// Durable once this returns.
    pub(super) async fn save_vote(&self, vote: Vote) {
        let written = self.write(Write::Vote(vote));
        let sync_time = self.lock().disk.as_ref().map(|disk| disk.sync_time);
        if let Some(sync_time) = sync_time {
            tokio::time::sleep(sync_time).await;
            self.lock().sync_to(written);
        }
    }

    pub(super) fn extent(&self) -> Extent {
        self.lock().extent.clone()
    }

    pub(super) fn committed(&self) -> Option<LogId> {
        self.lock().image.committed
    }

    pub(super) fn save_committed(&self, committed: Option<LogId>) {
        self.write(Write::Committed(committed));
    }

    /// `stored` hears of it once the entries are durable.
    pub(super) fn append(
        &self,
        entries: impl IntoIterator<Item = Entry>,
        stored: IOFlushed<TypeConfig>,
    ) {
        let written = self.write(Write::Append(entries.into_iter().collect()));
        let mut inner = self.lock();
        let sync_time = inner.disk.as_ref().map_or(Duration::ZERO, |disk| disk.sync_time);
        let Some(disk) = inner.disk.as_mut().filter(|_| !sync_time.is_zero()) else {
            inner.sync_to(written);
            drop(inner);
            return stored.io_completed(Ok(()));
        };
        disk.waiting.push(stored);
        let was_syncing = std::mem::replace(&mut disk.syncing, true);
        drop(inner);
        if !was_syncing {
            // It ends by itself, or with the simulated machine's runtime.
            TaskTracker::new().spawn(self.clone().sync());
        }
    }

    pub(super) fn truncate_after(&self, last: Option<LogId>) {
        self.write(Write::TruncateAfter(last));
    }

    pub(super) fn purge(&self, upto: LogId) {
        self.write(Write::Purge(upto));
    }

    /// The number of the write, among all of a slow disk.
    fn write(&self, write: Write) -> usize {
        let mut inner = self.lock();
        inner.image.take(&write);
        inner.note(&write);
        let Some(disk) = &mut inner.disk else { return 0 };
        disk.unsynced.push(write);
        disk.synced_count + disk.unsynced.len()
    }

    /// Syncs while somebody waits for it; whoever comes during a sync waits for the next one.
    async fn sync(self) {
        loop {
            let (sync_time, written, waiting) = {
                let mut inner = self.lock();
                let Some(disk) = &mut inner.disk else { return };
                if disk.waiting.is_empty() {
                    disk.syncing = false;
                    return;
                }
                let written = disk.synced_count + disk.unsynced.len();
                (disk.sync_time, written, std::mem::take(&mut disk.waiting))
            };
            tokio::time::sleep(sync_time).await;
            self.lock().sync_to(written);
            for stored in waiting {
                stored.io_completed(Ok(()));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("nothing panics while it holds the log")
    }
}

impl Inner {
    fn note(&self, write: &Write) {
        match write {
            Write::Append(entries) => {
                entries.iter().for_each(|entry| self.extent.note_appended(entry));
            }
            Write::TruncateAfter(last) => self.extent.note_truncated_after(*last),
            Write::Purge(_) | Write::Committed(_) | Write::Vote(_) => {}
        }
    }

    fn sync_to(&mut self, written: usize) {
        let Some(disk) = &mut self.disk else {
            return self.extent.set_stored(self.image.last());
        };
        let count = written.saturating_sub(disk.synced_count);
        for write in disk.unsynced.drain(..count) {
            disk.synced.take(&write);
        }
        disk.synced_count += count;
        self.extent.set_stored(disk.synced.last());
    }
}

impl Image {
    fn last(&self) -> Option<LogId> {
        self.entries.last_key_value().map(|(_, entry)| entry.log_id)
    }

    fn take(&mut self, write: &Write) {
        match write {
            Write::Append(entries) => {
                let rows = entries.iter().map(|entry| (entry.log_id.index, entry.clone()));
                self.entries.extend(rows);
            }
            Write::TruncateAfter(last) => {
                self.entries.split_off(&last.map_or(0, |id| id.index + 1));
            }
            Write::Purge(upto) => {
                self.entries = self.entries.split_off(&(upto.index + 1));
                self.purged = self.purged.max(Some(*upto));
            }
            Write::Committed(committed) => self.committed = *committed,
            Write::Vote(vote) => self.vote = Some(*vote),
        }
    }
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("image", &self.image).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn committed(index: u64) -> Option<LogId> {
        Some(LogId::new_term_index(1, index))
    }

    #[tokio::test(start_paused = true)]
    async fn crash_leaves_what_was_synced() {
        let log = MemoryLog::slow(Duration::from_millis(5));
        log.save_committed(committed(1));
        log.save_vote(Vote::new(1, 1)).await;
        log.save_committed(committed(2));
        assert_eq!(log.committed(), committed(2));
        assert_eq!(log.crash(), 1);
        assert_eq!(log.committed(), committed(1));
        assert_eq!(log.vote(), Some(Vote::new(1, 1)));
    }

    #[tokio::test(start_paused = true)]
    async fn vote_that_was_being_saved_is_lost() {
        let log = MemoryLog::slow(Duration::from_millis(5));
        let saving = log.save_vote(Vote::new(1, 1));
        assert!(tokio::time::timeout(Duration::from_millis(2), saving).await.is_err());
        log.crash();
        assert_eq!(log.vote(), None);
    }
}
