//! The log and the vote: on disk, or in memory.

mod disk;
mod extent;
mod files;
mod memory;
mod record;

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::Path;

use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{OptionalSend, RaftLogReader};
use tokio_util::sync::CancellationToken;

use super::types::{Entry, LogId, TypeConfig, Vote};
use disk::DiskLog;
pub(crate) use disk::Settler;
pub(crate) use extent::{Extent, Marks};
pub(crate) use memory::MemoryLog;

/// What openraft keeps its log in. Clones share one log.
#[derive(Clone, Debug)]
pub(crate) enum LogStore {
    Disk(DiskLog),
    Memory(MemoryLog),
}

impl LogStore {
    /// Opens the log in `directory`, which is made if it is not there. With `sync`, an entry
    /// counts as stored once it is synced to disk, otherwise once the operating system has it.
    ///
    /// A record that was cut off at the end is dropped, since nobody was told that it is stored;
    /// any other damage is an error of kind `InvalidData`, and a log that another process has open
    /// one of kind `WouldBlock`.
    pub(crate) fn open(directory: &Path, sync: bool) -> io::Result<Self> {
        DiskLog::open(directory, sync).map(Self::Disk)
    }

    /// The same for a log that was opened before: if it has no file, or only one that was never
    /// begun, that is damage.
    pub(crate) fn open_begun(directory: &Path, sync: bool) -> io::Result<Self> {
        DiskLog::open_begun(directory, sync).map(Self::Disk)
    }

    /// The index of the last entry that it holds, or that it held and purged.
    pub(crate) fn last_index(&self) -> Option<u64> {
        let (_, last) = match self {
            Self::Disk(log) => log.purged_and_last(),
            Self::Memory(log) => log.purged_and_last(),
        };
        last.map(|id| id.index)
    }

    /// How far the log is: it tells that without keeping the log open.
    pub(crate) fn extent(&self) -> Extent {
        match self {
            Self::Disk(log) => log.extent(),
            Self::Memory(log) => log.extent(),
        }
    }

    /// None for a log in memory, which has nothing to wait for.
    pub(crate) fn settler(&self) -> Option<Settler> {
        match self {
            Self::Disk(log) => Some(log.settler()),
            Self::Memory(_) => None,
        }
    }

    /// Cancelled once nobody has the log open any more, so that it may be opened again.
    pub(crate) fn released(&self) -> CancellationToken {
        match self {
            Self::Disk(log) => log.released(),
            Self::Memory(_) => {
                let released = CancellationToken::new();
                released.cancel();
                released
            }
        }
    }

    /// The committed entries from `from` on, to look at a log that nobody runs.
    pub(crate) fn committed_from(&self, from: u64) -> io::Result<Vec<Entry>> {
        match self {
            Self::Disk(log) => {
                let end = log.committed().map_or(0, |id| id.index + 1);
                log.read(from, end, usize::MAX)
            }
            Self::Memory(log) => {
                let end = log.committed().map_or(0, |id| id.index + 1);
                Ok(log.read(from, end, usize::MAX))
            }
        }
    }
}

/// A message to a follower is full with so many bytes of entries.
const MAX_READ_BYTES: usize = 8 << 20;

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        let (start, end) = half_open(&range);
        match self {
            Self::Disk(log) => log.read(start, end, usize::MAX),
            Self::Memory(log) => Ok(log.read(start, end, usize::MAX)),
        }
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(match self {
            Self::Disk(log) => log.vote(),
            Self::Memory(log) => log.vote(),
        })
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        match self {
            Self::Disk(log) => log.read(start, end, MAX_READ_BYTES),
            Self::Memory(log) => Ok(log.read(start, end, MAX_READ_BYTES)),
        }
    }
}

/// The entries up to the one with which they have `max_bytes`.
fn take_bytes<E>(
    entries: impl Iterator<Item = Result<Entry, E>>,
    max_bytes: usize,
) -> Result<Vec<Entry>, E> {
    let mut bytes = 0;
    let mut taken = Vec::new();
    for entry in entries {
        let entry = entry?;
        bytes += entry_len(&entry);
        taken.push(entry);
        if bytes >= max_bytes {
            break;
        }
    }
    Ok(taken)
}

fn entry_len(entry: &Entry) -> usize {
    match &entry.payload {
        openraft::EntryPayload::Normal(data) => data.0.len(),
        openraft::EntryPayload::Blank | openraft::EntryPayload::Membership(_) => 0,
    }
}

fn half_open(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(index) => *index,
        Bound::Excluded(index) => index + 1,
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(index) => index + 1,
        Bound::Excluded(index) => *index,
        Bound::Unbounded => u64::MAX,
    };
    (start, end.max(start))
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let (last_purged_log_id, last_log_id) = match self {
            Self::Disk(log) => log.purged_and_last(),
            Self::Memory(log) => log.purged_and_last(),
        };
        Ok(LogState { last_purged_log_id, last_log_id })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        match self {
            Self::Disk(log) => log.save_vote(*vote).await,
            Self::Memory(log) => {
                log.save_vote(*vote).await;
                Ok(())
            }
        }
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        match self {
            Self::Disk(log) => log.save_committed(committed),
            Self::Memory(log) => log.save_committed(committed),
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(match self {
            Self::Disk(log) => log.committed(),
            Self::Memory(log) => log.committed(),
        })
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        match self {
            Self::Disk(log) => log.append(entries, callback),
            Self::Memory(log) => {
                log.append(entries, callback);
                Ok(())
            }
        }
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        match self {
            Self::Disk(log) => log.truncate_after(last),
            Self::Memory(log) => {
                log.truncate_after(last);
                Ok(())
            }
        }
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        match self {
            Self::Disk(log) => log.purge(upto),
            Self::Memory(log) => {
                log.purge(upto);
                Ok(())
            }
        }
    }
}
