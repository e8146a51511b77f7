//! The log on disk: files of records, with an index and the newest entries in memory.

mod settler;

use std::collections::VecDeque;
use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use openraft::storage::IOFlushed;
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::files::{Files, MAGIC, Writer, Written, path_of};
use super::record::{self, Found, LogState, Record, damaged};
use super::{Extent, entry_len, take_bytes};
use crate::raft::types::{Entry, LogId, TypeConfig, Vote};
pub(crate) use settler::Settler;

/// What a log keeps in one file, and in memory.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// A file that has so many bytes is followed by another. The entries of the open file stay in
    /// memory, so its size bounds that too.
    file_bytes: u64,
    /// Beyond these, entries of closed files are read back from disk.
    cache_bytes: usize,
    cache_entries: usize,
}

const LIMITS: Limits =
    Limits { file_bytes: 32 << 20, cache_bytes: 64 << 20, cache_entries: 64 << 10 };

const LOCK_FILE: &str = "lock";

/// Clones share one log.
#[derive(Clone)]
pub(crate) struct DiskLog {
    /// Its owner is openraft's core; replication reads beside it. A look is short: what is read is
    /// nearly always in memory, and a write ends in the operating system's cache or in a queue.
    log: Arc<Mutex<Log>>,
    released: CancellationToken,
}

struct Log {
    directory: PathBuf,
    limits: Limits,
    state: LogState,
    /// Of the entries after the purged one.
    rows: VecDeque<Row>,
    /// Rows whose entries are in memory, which are the last ones, and the bytes of these.
    cached: usize,
    cached_bytes: usize,
    /// Numbers of the files, oldest first; the last one is open.
    files: VecDeque<u64>,
    /// How long the open file is with all that is on its way to it.
    open_bytes: u64,
    /// The number of the file that the writer has reached.
    reached: Arc<AtomicU64>,
    /// Records that are not with the writer yet; kept for its memory.
    buffer: Vec<u8>,
    extent: Extent,
    /// Only told to the disk with the next entries: it spares a restarted node some waiting.
    committed_since: bool,
    writer: Writer,
    /// The file that was read last.
    reader: Option<(u64, File)>,
    /// Held as long as the log is open.
    _lock: File,
    /// Tells that it is not any more: the last field, since fields are dropped in their order.
    _released: DropGuard,
}

/// Where an entry is.
struct Row {
    id: LogId,
    file: u64,
    at: u64,
    bytes: usize,
    entry: Option<Entry>,
}

impl fmt::Debug for DiskLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskLog").finish_non_exhaustive()
    }
}

impl DiskLog {
    /// With `sync`, what is written counts as stored once it is synced.
    pub(super) fn open(directory: &Path, sync: bool) -> io::Result<Self> {
        Self::open_with(directory, sync, LIMITS)
    }

    /// Opens a log that was opened before: one without a file is damaged.
    pub(super) fn open_begun(directory: &Path, sync: bool) -> io::Result<Self> {
        let mut numbers = numbers(directory).or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Ok(VecDeque::new()),
            _ => Err(error),
        })?;
        // Looked at before anything is made or removed, so that it stands as it was found.
        let stillborn = match numbers.back() {
            Some(last) => is_stillborn(directory, *last)?,
            None => false,
        };
        if stillborn {
            numbers.pop_back();
        }
        if numbers.is_empty() {
            return Err(damaged("the log is gone"));
        }
        Self::open(directory, sync)
    }

    fn open_with(directory: &Path, sync: bool, limits: Limits) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let released = CancellationToken::new();
        let log = Log::open(directory, sync, limits, released.clone().drop_guard())?;
        Ok(Self { log: Arc::new(Mutex::new(log)), released })
    }

    /// Cancelled once all clones are dropped, and the directory may be opened again.
    pub(super) fn released(&self) -> CancellationToken {
        self.released.clone()
    }

    pub(super) fn read(&self, start: u64, end: u64, max_bytes: usize) -> io::Result<Vec<Entry>> {
        self.lock().read(start, end, max_bytes)
    }

    pub(super) fn purged_and_last(&self) -> (Option<LogId>, Option<LogId>) {
        let log = self.lock();
        (log.state.purged, log.state.last)
    }

    pub(super) fn vote(&self) -> Option<Vote> {
        self.lock().state.vote
    }

    pub(super) async fn save_vote(&self, vote: Vote) -> io::Result<()> {
        let (sender, written) = oneshot::channel();
        self.lock().save_vote(vote, Written::Vote(sender))?;
        written.await.map_err(|_| io::Error::other("the log's thread ended"))?
    }

    pub(super) fn extent(&self) -> Extent {
        self.lock().extent.clone()
    }

    /// For those who must not keep the log open.
    pub(super) fn settler(&self) -> Settler {
        Settler::of(&self.log)
    }

    pub(super) fn committed(&self) -> Option<LogId> {
        self.lock().state.committed
    }

    pub(super) fn save_committed(&self, committed: Option<LogId>) {
        let mut log = self.lock();
        log.state.committed = committed;
        log.committed_since = true;
    }

    pub(super) fn append(
        &self,
        entries: impl IntoIterator<Item = Entry>,
        callback: IOFlushed<TypeConfig>,
    ) -> io::Result<()> {
        self.lock().append(entries, callback)
    }

    pub(super) fn truncate_after(&self, last: Option<LogId>) -> io::Result<()> {
        self.lock().truncate_after(last)
    }

    pub(super) fn purge(&self, upto: LogId) -> io::Result<()> {
        self.lock().purge(upto)
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        self.log.lock().expect("nothing panics while it holds the log")
    }
}

fn next_index(id: Option<LogId>) -> u64 {
    id.map_or(0, |id| id.index + 1)
}

impl Log {
    fn open(directory: &Path, sync: bool, limits: Limits, released: DropGuard) -> io::Result<Self> {
        let lock = File::create(directory.join(LOCK_FILE))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => io::ErrorKind::WouldBlock.into(),
            TryLockError::Error(error) => error,
        })?;
        let mut numbers = numbers(directory)?;
        drop_stillborn(directory, &mut numbers)?;
        if numbers.is_empty() {
            begin_first(directory)?;
            numbers.push_back(0);
        }
        let open = *numbers.back().expect("there is one, or one was added");
        let files = Files::open(directory, open, sync)?;
        let mut log = Self {
            directory: directory.to_owned(),
            limits,
            state: LogState::default(),
            rows: VecDeque::new(),
            cached: 0,
            cached_bytes: 0,
            files: numbers,
            open_bytes: 0,
            reached: files.open_number(),
            buffer: Vec::new(),
            extent: Extent::default(),
            committed_since: false,
            writer: Writer::new(files)?,
            reader: None,
            _lock: lock,
            _released: released,
        };
        log.replay()?;
        Ok(log)
    }

    /// Reads all files; a record that was cut off at the end of the last one is dropped.
    fn replay(&mut self) -> io::Result<()> {
        let numbers = self.files.clone();
        for (place, number) in numbers.iter().enumerate() {
            if place > 0 && numbers[place - 1] + 1 != *number {
                return Err(damaged("a file of the log is missing"));
            }
            let bytes = Bytes::from(fs::read(path_of(&self.directory, *number))?);
            let len = self.replay_file(*number, &bytes, place == 0)?;
            self.open_bytes = len;
            if len == bytes.len() as u64 {
                continue;
            }
            if place + 1 < numbers.len() {
                return Err(damaged("a file of the log ends too early"));
            }
            let file = File::options().write(true).open(path_of(&self.directory, *number))?;
            file.set_len(len)?;
            file.sync_all()?;
        }
        let after_last = next_index(self.state.last);
        let first = self.rows.front().map_or(after_last, |row| row.id.index);
        // The first entry of a log may have any index.
        let is_whole = self.files[0] == 0 && self.state.purged.is_none();
        if is_whole || first == next_index(self.state.purged) {
            Ok(())
        } else {
            Err(damaged("entries are missing"))
        }
    }

    /// Returns how long the file is up to its last whole record.
    fn replay_file(&mut self, number: u64, bytes: &Bytes, first: bool) -> io::Result<u64> {
        if !bytes.starts_with(MAGIC) {
            return Err(damaged("not a log of this version"));
        }
        let mut at = MAGIC.len();
        while at < bytes.len() {
            let Found::Record(record, len) = record::read(&bytes.slice(at..))? else { break };
            let begins = at == MAGIC.len();
            match record {
                Record::State(state) if begins && first => self.state = state,
                Record::State(state) if begins => {
                    if (state.purged, state.last) != (self.state.purged, self.state.last) {
                        return Err(damaged("a file of the log does not follow the one before"));
                    }
                }
                Record::State(_) => return Err(damaged("a file's head in its middle")),
                _ if begins => return Err(damaged("a file of the log without its head")),
                Record::Entry(entry) => {
                    self.add(entry, number, at as u64, len)?;
                    self.evict(number);
                }
                Record::TruncatedAfter(last) => self.forget_after(last),
                Record::PurgedUpto(upto) => self.forget_upto(upto),
                Record::Committed(id) => self.state.committed = Some(id),
                Record::Vote(vote) => self.state.vote = Some(vote),
            }
            at += len;
        }
        Ok(at as u64)
    }

    fn read(&mut self, start: u64, end: u64, max_bytes: usize) -> io::Result<Vec<Entry>> {
        let Some(first) = self.rows.front().map(|row| row.id.index) else { return Ok(Vec::new()) };
        let start = start.max(first);
        let end = end.min(first + self.rows.len() as u64);
        take_bytes((start..end).map(|index| self.entry((index - first) as usize)), max_bytes)
    }

    /// The entry of a row, read back from disk if it is not in memory.
    fn entry(&mut self, at: usize) -> io::Result<Entry> {
        let Self { rows, reader, directory, .. } = self;
        let row = &rows[at];
        if let Some(entry) = &row.entry {
            return Ok(entry.clone());
        }
        if reader.as_ref().is_none_or(|(number, _)| *number != row.file) {
            *reader = Some((row.file, File::open(path_of(directory, row.file))?));
        }
        let (_, file) = reader.as_ref().expect("it was just opened");
        let mut bytes = vec![0; row.bytes];
        file.read_exact_at(&mut bytes, row.at)?;
        match record::read(&bytes.into())? {
            Found::Record(Record::Entry(entry), _) if entry.log_id == row.id => Ok(entry),
            _ => Err(damaged("another record where an entry was")),
        }
    }

    fn append(
        &mut self,
        entries: impl IntoIterator<Item = Entry>,
        callback: IOFlushed<TypeConfig>,
    ) -> io::Result<()> {
        if std::mem::take(&mut self.committed_since)
            && let Some(committed) = self.state.committed
        {
            self.put(&Record::Committed(committed));
        }
        for entry in entries {
            if self.open_bytes >= self.limits.file_bytes {
                self.next_file()?;
            }
            let (file, at) = (self.open_number(), self.open_bytes);
            self.extent.note_appended(&entry);
            let record = Record::Entry(entry);
            let len = self.put(&record);
            let Record::Entry(entry) = record else { unreachable!("it was just made one") };
            self.add(entry, file, at, len)?;
        }
        let (last, extent) = (self.state.last, self.extent.clone());
        self.writer.write(&mut self.buffer, Written::Entries { callback, last, extent })?;
        self.evict(self.reached.load(Ordering::Acquire));
        Ok(())
    }

    fn save_vote(&mut self, vote: Vote, written: Written) -> io::Result<()> {
        self.state.vote = Some(vote);
        self.put(&Record::Vote(vote));
        self.writer.write(&mut self.buffer, written)
    }

    /// Tells `written` once all that was written before is stored.
    fn settle(&mut self, written: Written) -> io::Result<()> {
        self.writer.write(&mut self.buffer, written)
    }

    fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        if next_index(self.state.last) <= next_index(last) {
            return Ok(());
        }
        self.forget_after(last);
        self.extent.note_truncated_after(last);
        self.put(&Record::TruncatedAfter(last));
        self.writer.write(&mut self.buffer, Written::Nobody)
    }

    fn purge(&mut self, upto: LogId) -> io::Result<()> {
        if Some(upto.index) <= self.state.purged.map(|id| id.index) {
            return Ok(());
        }
        self.forget_upto(upto);
        self.put(&Record::PurgedUpto(upto));
        self.writer.write(&mut self.buffer, Written::Nobody)?;
        let open = self.open_number();
        let needed = self.rows.front().map_or(open, |row| row.file);
        let count = self.files.iter().take_while(|number| **number < needed).count();
        if count == 0 {
            return Ok(());
        }
        let removed: Vec<u64> = self.files.drain(..count).collect();
        if self.reader.as_ref().is_some_and(|(number, _)| removed.contains(number)) {
            self.reader = None;
        }
        self.writer.remove(removed)
    }

    /// Puts a record into the buffer; returns the bytes that it takes.
    fn put(&mut self, record: &Record) -> usize {
        let before = self.buffer.len();
        record::put(record, &mut self.buffer);
        let len = self.buffer.len() - before;
        self.open_bytes += len as u64;
        len
    }

    /// What a file begins with: all that the files before it say, but for the entries.
    fn head(&mut self) {
        head(&self.state, &mut self.buffer);
        self.open_bytes = self.buffer.len() as u64;
    }

    fn next_file(&mut self) -> io::Result<()> {
        self.writer.write(&mut self.buffer, Written::Nobody)?;
        let number = self.open_number() + 1;
        self.writer.begin(number)?;
        self.files.push_back(number);
        self.head();
        Ok(())
    }

    fn open_number(&self) -> u64 {
        *self.files.back().expect("a log has an open file")
    }

    fn add(&mut self, entry: Entry, file: u64, at: u64, bytes: usize) -> io::Result<()> {
        let id = entry.log_id;
        if let Some(last) = self.state.last
            && id.index != last.index + 1
        {
            return Err(damaged(format!("entry {} does not follow {last}", id.index)));
        }
        self.state.last = Some(id);
        self.cached += 1;
        self.cached_bytes += entry_len(&entry);
        self.rows.push_back(Row { id, file, at, bytes, entry: Some(entry) });
        Ok(())
    }

    fn forget_after(&mut self, last: Option<LogId>) {
        while self.rows.back().is_some_and(|row| row.id.index >= next_index(last)) {
            let row = self.rows.pop_back();
            self.uncache(row.and_then(|row| row.entry));
        }
        self.state.last = last;
    }

    fn forget_upto(&mut self, upto: LogId) {
        while self.rows.front().is_some_and(|row| row.id.index <= upto.index) {
            let row = self.rows.pop_front();
            self.uncache(row.and_then(|row| row.entry));
        }
        self.state.purged = Some(upto);
        if next_index(self.state.last) <= upto.index {
            self.state.last = Some(upto);
        }
    }

    /// Keeps the memory of entries bounded. Those of files from `open` on may not be on disk yet.
    fn evict(&mut self, open: u64) {
        let Limits { cache_bytes, cache_entries, .. } = self.limits;
        while self.cached > cache_entries || self.cached_bytes > cache_bytes {
            let oldest = self.rows.len() - self.cached;
            if self.rows[oldest].file >= open {
                return;
            }
            let entry = self.rows[oldest].entry.take();
            self.uncache(entry);
        }
    }

    fn uncache(&mut self, entry: Option<Entry>) {
        if let Some(entry) = entry {
            self.cached -= 1;
            self.cached_bytes -= entry_len(&entry);
        }
    }
}

/// The numbers of a log's files, sorted.
fn numbers(directory: &Path) -> io::Result<VecDeque<u64>> {
    let mut numbers = Vec::new();
    for file in fs::read_dir(directory)? {
        let path = file?.path();
        if path.extension().is_some_and(|extension| extension == "wal") {
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            let number = stem.and_then(|stem| stem.parse().ok());
            numbers.push(number.ok_or_else(|| damaged("not a log of this version"))?);
        }
    }
    numbers.sort_unstable();
    Ok(numbers.into())
}

/// A process may die after it made a file, and before it wrote the file's head.
fn drop_stillborn(directory: &Path, numbers: &mut VecDeque<u64>) -> io::Result<()> {
    let Some(last) = numbers.back() else { return Ok(()) };
    if is_stillborn(directory, *last)? {
        fs::remove_file(path_of(directory, *last))?;
        numbers.pop_back();
    }
    Ok(())
}

fn is_stillborn(directory: &Path, number: u64) -> io::Result<bool> {
    let bytes = Bytes::from(fs::read(path_of(directory, number))?);
    Ok(match bytes.get(MAGIC.len()..) {
        None => MAGIC.starts_with(&bytes) || bytes.iter().all(|byte| *byte == 0),
        Some(_) if !bytes.starts_with(MAGIC) => bytes.iter().all(|byte| *byte == 0),
        Some(_) => record::read(&bytes.slice(MAGIC.len()..))? == Found::CutOff,
    })
}

/// Makes a log's first file, durable whatever the setting: a node says that it belongs to a cluster
/// only once its log is there, so that it knows later whether it lost it.
fn begin_first(directory: &Path) -> io::Result<()> {
    let mut bytes = Vec::new();
    head(&LogState::default(), &mut bytes);
    let mut file = File::create(path_of(directory, 0))?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    File::open(directory)?.sync_all()
}

fn head(state: &LogState, out: &mut Vec<u8>) {
    out.extend_from_slice(MAGIC);
    record::put(&Record::State(state.clone()), out);
}

#[cfg(test)]
mod tests;
