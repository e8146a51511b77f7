//! The log on disk: a write-ahead log in chunks, each record with a checksum.

use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use flotilla_proto::raft as proto;
use openraft::EntryPayload;
use openraft::storage::IOFlushed;
use openraft::vote::RaftLeaderId;
use prost::Message;
use raft_log::api::raft_log_writer::RaftLogWriter;
use raft_log::codeq::{Decode, Encode};
use raft_log::{Callback, Config, RaftLog, Types, chunked_wal};
use tokio::sync::oneshot;

use super::take_bytes;
use crate::raft::types::{Data, Entry, LogId, Payload, TypeConfig, Vote};
use crate::raft::wire::{membership_from_wire, membership_to_wire};

/// Entries of the open chunk stay in memory, so its size bounds that too.
const CHUNK_BYTES: usize = 32 << 20;
const CHUNK_RECORDS: usize = 256 << 10;

/// Beyond these, entries of closed chunks are read back from disk.
const CACHE_BYTES: usize = 32 << 20;
const CACHE_ENTRIES: usize = 64 << 10;

/// A sync takes what gathered during the last one, for which the log's thread must look at its
/// queue; with zero it would not look. Waiting any longer only adds delay.
const GATHER: Duration = Duration::from_micros(2);

const READ_BUFFER_BYTES: usize = 1 << 20;

/// Clones share one log.
#[derive(Clone, Debug)]
pub(crate) struct DiskLog {
    /// Its owner is openraft's core; replication reads beside it. A look is short: writing only
    /// queues for the log's own thread, and what is read is nearly always in memory.
    log: Arc<Mutex<RaftLog<Format>>>,
    sync: bool,
}

impl DiskLog {
    pub(super) fn open(directory: &Path, sync: bool) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let directory = directory
            .to_str()
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "path is not UTF-8"))?;
        let wal = chunked_wal::Config {
            read_buffer_size: Some(READ_BUFFER_BYTES),
            chunk_max_records: Some(CHUNK_RECORDS),
            chunk_max_size: Some(CHUNK_BYTES),
            flush_batch_wait: Some(GATHER),
            ..chunked_wal::Config::new(directory)
        };
        let config = Config {
            wal,
            log_cache_max_items: Some(CACHE_ENTRIES),
            log_cache_capacity: Some(CACHE_BYTES),
        };
        let log = RaftLog::open(Arc::new(config))?;
        Ok(Self { log: Arc::new(Mutex::new(log)), sync })
    }

    pub(super) fn read(&self, start: u64, end: u64, max_bytes: usize) -> io::Result<Vec<Entry>> {
        let log = self.lock();
        let entries = log.read(start, end).map(|record| {
            let (id, Stored(payload)) = record?;
            Ok(Entry { log_id: from_stored(&id), payload })
        });
        take_bytes(entries, max_bytes)
    }

    pub(super) fn purged_and_last(&self) -> (Option<LogId>, Option<LogId>) {
        let log = self.lock();
        let state = log.log_state();
        (state.purged().map(from_stored), state.last().map(from_stored))
    }

    pub(super) fn vote(&self) -> Option<Vote> {
        self.lock().log_state().vote().map(|vote| Vote {
            leader_id: RaftLeaderId::new(vote.term, vote.node),
            committed: vote.committed,
        })
    }

    pub(super) async fn save_vote(&self, vote: Vote) -> io::Result<()> {
        let stored = StoredVote {
            term: vote.leader_id.term,
            committed: vote.committed,
            node: vote.leader_id.voted_for,
        };
        let (sender, written) = oneshot::channel();
        {
            let mut log = self.lock();
            log.save_vote(stored)?;
            log.flush(self.sync, Some(Written::Vote(sender)))?;
        }
        written.await.map_err(|_| io::Error::other("the log's thread ended"))?
    }

    pub(super) fn committed(&self) -> Option<LogId> {
        self.lock().log_state().committed().map(from_stored)
    }

    /// Only remembered with the next write: it spares a restarted node some waiting, no more.
    pub(super) fn save_committed(&self, committed: Option<LogId>) -> io::Result<()> {
        let Some(committed) = committed else { return Ok(()) };
        self.lock().commit(to_stored(&committed))?;
        Ok(())
    }

    pub(super) fn append(
        &self,
        entries: impl IntoIterator<Item = Entry>,
        callback: IOFlushed<TypeConfig>,
    ) -> io::Result<()> {
        let entries =
            entries.into_iter().map(|entry| (to_stored(&entry.log_id), Stored(entry.payload)));
        let mut log = self.lock();
        log.append(entries)?;
        log.flush(self.sync, Some(Written::Entries(callback)))
    }

    pub(super) fn truncate_after(&self, last: Option<LogId>) -> io::Result<()> {
        let from = last.map_or(0, |id| id.index + 1);
        let mut log = self.lock();
        if log.log_state().last().is_none_or(|last| last.1 < from) {
            return Ok(());
        }
        log.truncate(from)?;
        log.flush(self.sync, None)
    }

    pub(super) fn purge(&self, upto: LogId) -> io::Result<()> {
        let mut log = self.lock();
        log.purge(to_stored(&upto))?;
        // Chunks are deleted after a sync only.
        log.flush(true, None)
    }

    fn lock(&self) -> MutexGuard<'_, RaftLog<Format>> {
        self.log.lock().expect("nothing panics while it holds the log")
    }
}

/// What the log is made of, for `raft-log`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Format;

impl Types for Format {
    /// Term and index.
    type LogId = (u64, u64);
    type LogPayload = Stored;
    type Vote = StoredVote;
    type Callback = Written;
    type UserData = ();

    fn log_index(id: &(u64, u64)) -> u64 {
        id.1
    }

    fn payload_size(payload: &Stored) -> u64 {
        match &payload.0 {
            EntryPayload::Normal(data) => data.0.len() as u64,
            EntryPayload::Blank | EntryPayload::Membership(_) => 64,
        }
    }
}

fn to_stored(id: &LogId) -> (u64, u64) {
    (id.leader_id.term, id.index)
}

fn from_stored(id: &(u64, u64)) -> LogId {
    LogId::new_term_index(id.0, id.1)
}

/// Who waits for a write.
enum Written {
    Entries(IOFlushed<TypeConfig>),
    Vote(oneshot::Sender<io::Result<()>>),
}

impl Callback for Written {
    fn send(self, result: io::Result<()>) {
        match self {
            Self::Entries(callback) => callback.io_completed(result),
            // The core waits for its vote, unless it is being stopped.
            Self::Vote(sender) => drop(sender.send(result)),
        }
    }
}

/// In the order in which votes replace each other: a leader of the same term replaces a vote for
/// another candidate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd)]
struct StoredVote {
    term: u64,
    committed: bool,
    node: u64,
}

impl Encode for StoredVote {
    fn encode<W: Write>(&self, mut writer: W) -> io::Result<usize> {
        Ok(Encode::encode(&self.term, &mut writer)?
            + Encode::encode(&self.committed, &mut writer)?
            + Encode::encode(&self.node, &mut writer)?)
    }
}

impl Decode for StoredVote {
    fn decode<R: Read>(mut reader: R) -> io::Result<Self> {
        Ok(Self {
            term: Decode::decode(&mut reader)?,
            committed: Decode::decode(&mut reader)?,
            node: Decode::decode(&mut reader)?,
        })
    }
}

/// An entry's payload: a byte that tells which, the length, the bytes.
#[derive(Clone, Debug)]
struct Stored(Payload);

const BLANK: u8 = 0;
const PROPOSAL: u8 = 1;
const MEMBERSHIP: u8 = 2;

impl Encode for Stored {
    fn encode<W: Write>(&self, mut writer: W) -> io::Result<usize> {
        let membership;
        let (kind, bytes): (u8, &[u8]) = match &self.0 {
            EntryPayload::Blank => (BLANK, &[]),
            EntryPayload::Normal(data) => (PROPOSAL, &data.0),
            EntryPayload::Membership(value) => {
                membership = membership_to_wire(value).encode_to_vec();
                (MEMBERSHIP, &membership)
            }
        };
        let len = u32::try_from(bytes.len())
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "an entry over 4 GiB"))?;
        Encode::encode(&kind, &mut writer)?;
        Encode::encode(&len, &mut writer)?;
        writer.write_all(bytes)?;
        Ok(5 + bytes.len())
    }
}

impl Decode for Stored {
    fn decode<R: Read>(mut reader: R) -> io::Result<Self> {
        let kind = <u8 as Decode>::decode(&mut reader)?;
        // The checksum comes after the record, so the length may be wrong: `Vec`'s decoder, whose
        // form this is, allocates no more than there is to read.
        let bytes = <Vec<u8> as Decode>::decode(&mut reader)?;
        let payload = match kind {
            BLANK => EntryPayload::Blank,
            PROPOSAL => EntryPayload::Normal(Data(Bytes::from(bytes))),
            MEMBERSHIP => {
                let message = proto::Membership::decode(bytes.as_slice()).map_err(invalid)?;
                EntryPayload::Membership(membership_from_wire(message)?)
            }
            _ => return Err(invalid("unknown kind of log entry")),
        };
        Ok(Self(payload))
    }
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use openraft::type_config::TypeConfigExt;

    use super::*;

    fn entry(index: u64, len: usize) -> Entry {
        let payload = EntryPayload::Normal(Data(vec![7; len].into()));
        Entry { log_id: LogId::new_term_index(1, index), payload }
    }

    async fn append(log: &DiskLog, entries: impl IntoIterator<Item = Entry>) {
        let (sender, written) = TypeConfig::oneshot();
        log.append(entries, IOFlushed::signal(sender)).unwrap();
        written.await.unwrap().unwrap();
    }

    fn chunk(directory: &Path) -> std::path::PathBuf {
        let files = fs::read_dir(directory).unwrap().map(|file| file.unwrap().path());
        let mut chunks: Vec<_> =
            files.filter(|path| path.extension().is_some_and(|e| e == "wal")).collect();
        chunks.sort();
        chunks.remove(0)
    }

    #[tokio::test]
    async fn log_and_vote_are_there_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let vote = Vote { leader_id: RaftLeaderId::new(1, 1 << 47), committed: true };
        let log = DiskLog::open(directory.path(), true).unwrap();
        log.save_vote(vote).await.unwrap();
        append(&log, (0..10).map(|index| entry(index, 100))).await;
        drop(log);
        let log = DiskLog::open(directory.path(), true).unwrap();
        assert_eq!(log.vote(), Some(vote));
        let entries = log.read(0, 100, usize::MAX).unwrap();
        assert_eq!(entries, (0..10).map(|index| entry(index, 100)).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn reading_stops_at_the_bytes_that_are_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        let log = DiskLog::open(directory.path(), false).unwrap();
        append(&log, (0..10).map(|index| entry(index, 100))).await;
        assert_eq!(log.read(0, 10, 250).unwrap().len(), 3);
        assert_eq!(log.read(0, 10, 1).unwrap().len(), 1, "never none");
    }

    #[tokio::test]
    async fn leader_of_the_same_term_replaces_a_vote_for_another() {
        let directory = tempfile::tempdir().unwrap();
        let log = DiskLog::open(directory.path(), false).unwrap();
        let vote = |node, committed| Vote { leader_id: RaftLeaderId::new(1, node), committed };
        log.save_vote(vote(9, false)).await.unwrap();
        log.save_vote(vote(2, true)).await.unwrap();
        assert_eq!(log.vote(), Some(vote(2, true)));
    }

    #[tokio::test]
    async fn second_process_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let _log = DiskLog::open(directory.path(), true).unwrap();
        let error = DiskLog::open(directory.path(), true).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }

    #[tokio::test]
    async fn flipped_bit_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let log = DiskLog::open(directory.path(), true).unwrap();
        append(&log, (0..10).map(|index| entry(index, 100))).await;
        drop(log);
        let path = chunk(directory.path());
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).unwrap();
        let error = DiskLog::open(directory.path(), true).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
    }

    #[tokio::test]
    async fn record_cut_off_at_the_end_is_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let log = DiskLog::open(directory.path(), true).unwrap();
        append(&log, (0..10).map(|index| entry(index, 100))).await;
        drop(log);
        let path = chunk(directory.path());
        let len = fs::metadata(&path).unwrap().len();
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(len - 37).unwrap();
        let log = DiskLog::open(directory.path(), true).unwrap();
        assert_eq!(log.read(0, 100, usize::MAX).unwrap().len(), 9);
    }
}
