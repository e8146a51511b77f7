//! Writes the log's files: at once, or on a thread that syncs them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use openraft::storage::IOFlushed;
use tokio::sync::oneshot;

use super::Extent;
use crate::raft::types::{LogId, TypeConfig};

/// A file begins with these, and the number is that of its format.
pub(super) const MAGIC: &[u8; 8] = b"flotlog1";

/// Writes that may wait for the disk; with more, consensus waits.
const QUEUED_STEPS: usize = 1024;

pub(super) fn path_of(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:016}.wal"))
}

/// Who waits for a write.
pub(super) enum Written {
    /// openraft, and those who want to know that the log is stored up to `last`.
    Entries {
        callback: IOFlushed<TypeConfig>,
        last: Option<LogId>,
        extent: Extent,
    },
    /// A vote, or nothing more than that all before it is stored.
    Vote(oneshot::Sender<io::Result<()>>),
    Nobody,
}

impl Written {
    fn tell(self, result: io::Result<()>) {
        match self {
            Self::Entries { callback, last, extent } => {
                if result.is_ok() {
                    extent.set_stored(last);
                }
                callback.io_completed(result);
            }
            // The core waits for its vote, unless it is being stopped.
            Self::Vote(sender) => drop(sender.send(result)),
            Self::Nobody => {}
        }
    }
}

/// Takes what is written, in order.
pub(super) enum Writer {
    /// A write to the operating system's cache is cheaper than handing it to another thread.
    Inline(Files),
    /// A sync takes its time, and takes what gathered during the last one.
    Syncing { steps: Option<SyncSender<Step>>, thread: Option<JoinHandle<()>> },
}

pub(super) enum Step {
    Write(Vec<u8>, Written),
    Begin(u64),
    Remove(Vec<u64>),
}

impl Writer {
    pub(super) fn new(files: Files) -> io::Result<Self> {
        if !files.sync {
            return Ok(Self::Inline(files));
        }
        // Full: consensus waits for the disk, which it outran.
        let (steps, receiver) = sync_channel(QUEUED_STEPS);
        let thread = std::thread::Builder::new().name("raft-log".to_owned());
        let thread = thread.spawn(move || sync_all(files, &receiver))?;
        Ok(Self::Syncing { steps: Some(steps), thread: Some(thread) })
    }

    /// Writes `bytes`, which are empty afterwards, and then tells `written`.
    pub(super) fn write(&mut self, bytes: &mut Vec<u8>, written: Written) -> io::Result<()> {
        match self {
            Self::Inline(files) => {
                files.write(bytes)?;
                bytes.clear();
                written.tell(Ok(()));
                Ok(())
            }
            Self::Syncing { .. } => self.send(Step::Write(std::mem::take(bytes), written)),
        }
    }

    /// What follows goes to a new file.
    pub(super) fn begin(&mut self, number: u64) -> io::Result<()> {
        match self {
            Self::Inline(files) => files.begin(number),
            Self::Syncing { .. } => self.send(Step::Begin(number)),
        }
    }

    /// Deletes files, once all that was written before is stored.
    pub(super) fn remove(&mut self, numbers: Vec<u64>) -> io::Result<()> {
        match self {
            Self::Inline(files) => files.remove(&numbers),
            Self::Syncing { .. } => self.send(Step::Remove(numbers)),
        }
    }

    fn send(&self, step: Step) -> io::Result<()> {
        let Self::Syncing { steps: Some(steps), .. } = self else { return Ok(()) };
        steps.send(step).map_err(|_| io::Error::other("the log's thread ended"))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if let Self::Syncing { steps, thread } = self {
            drop(steps.take());
            // Whoever opens the log next must find all that was written.
            if let Some(thread) = thread.take() {
                let _ = thread.join();
            }
        }
    }
}

/// The thread: it ends when the log is dropped, with all written.
fn sync_all(mut files: Files, steps: &Receiver<Step>) {
    while let Ok(first) = steps.recv() {
        let mut waiting = Vec::new();
        let mut removed = Vec::new();
        for step in std::iter::once(first).chain(steps.try_iter().take(QUEUED_STEPS)) {
            // Nothing is done after what fails, and those who wait hear of it below.
            let _ = match step {
                Step::Write(bytes, written) => {
                    waiting.push(written);
                    files.write(&bytes)
                }
                Step::Begin(number) => files.begin(number),
                Step::Remove(numbers) => {
                    removed.extend(numbers);
                    Ok(())
                }
            };
        }
        let _ = files.sync().and_then(|()| files.remove(&removed));
        for written in waiting {
            written.tell(files.outcome());
        }
    }
}

/// The files of a log; the newest is open.
pub(super) struct Files {
    directory: PathBuf,
    file: File,
    sync: bool,
    /// The number of the open file: what older ones hold can be read back.
    open: Arc<AtomicU64>,
    /// What failed first. Nothing is done after it: what a disk that failed once says later cannot be believed, and a
    /// record that follows a torn one could not be read.
    failure: Option<io::Error>,
}

impl Files {
    /// Goes on with file `number`, which is made if it is not there.
    pub(super) fn open(directory: &Path, number: u64, sync: bool) -> io::Result<Self> {
        let file = append_to(directory, number, sync)?;
        let open = Arc::new(AtomicU64::new(number));
        Ok(Self { directory: directory.to_owned(), file, sync, open, failure: None })
    }

    pub(super) fn open_number(&self) -> Arc<AtomicU64> {
        self.open.clone()
    }

    /// Whether all that was done went well.
    fn outcome(&self) -> io::Result<()> {
        match &self.failure {
            None => Ok(()),
            Some(error) => Err(io::Error::new(error.kind(), error.to_string())),
        }
    }

    /// Does a step, unless one before has failed.
    fn attempt(&mut self, step: impl FnOnce(&mut Self) -> io::Result<()>) -> io::Result<()> {
        if self.failure.is_none() {
            self.failure = step(self).err();
        }
        self.outcome()
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.attempt(|files| files.file.write_all(bytes))
    }

    fn sync(&mut self) -> io::Result<()> {
        self.attempt(|files| files.file.sync_data())
    }

    fn begin(&mut self, number: u64) -> io::Result<()> {
        self.attempt(|files| {
            if files.sync {
                files.file.sync_data()?;
            }
            files.file = append_to(&files.directory, number, files.sync)?;
            files.open.store(number, Ordering::Release);
            Ok(())
        })
    }

    fn remove(&mut self, numbers: &[u64]) -> io::Result<()> {
        self.attempt(|files| {
            for number in numbers {
                fs::remove_file(path_of(&files.directory, *number))?;
            }
            Ok(())
        })
    }

    /// As if the disk were full from now on.
    #[cfg(test)]
    pub(super) fn fill(mut self) -> Self {
        self.file = OpenOptions::new().write(true).open("/dev/full").unwrap();
        self
    }
}

/// Opens a file at its end; the caller of a new one writes what it begins with.
fn append_to(directory: &Path, number: u64, sync: bool) -> io::Result<File> {
    let file = OpenOptions::new().create(true).append(true).open(path_of(directory, number))?;
    if sync {
        // So that the file's name survives too.
        File::open(directory)?.sync_all()?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_done_after_a_failure() {
        let directory = tempfile::tempdir().unwrap();
        let mut files = Files::open(directory.path(), 1, false).unwrap();
        let full = |result: io::Result<()>| {
            assert_eq!(result.unwrap_err().kind(), io::ErrorKind::StorageFull);
        };
        files.write(b"before").unwrap();
        let mut files = files.fill();
        full(files.write(b"torn"));
        // There is room again.
        files.file = append_to(directory.path(), 1, false).unwrap();
        full(files.write(b"after"));
        full(files.sync());
        full(files.begin(2));
        full(files.remove(&[1]));
        assert_eq!(fs::read(path_of(directory.path(), 1)).unwrap(), b"before");
        assert!(!path_of(directory.path(), 2).exists());
    }
}
