//! Snapshots of the agreed state, in files that are complete or not there.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use flotilla_proto::raft as proto;
use prost::Message;

use super::types::{Snapshot, SnapshotMeta};
use super::wire::{meta_from_wire, meta_to_wire};

/// Where snapshots are kept. Clones share the place.
#[derive(Clone, Debug)]
pub(crate) enum Snapshots {
    Directory(PathBuf),
    /// The newest one only.
    Memory(Arc<Mutex<Option<Snapshot>>>),
}

/// How many files are kept: the newest, and the one before for whoever must look into an accident.
const KEPT: usize = 2;

const MAGIC: &[u8; 8] = b"FLOTSNP1";
const EXTENSION: &str = "snapshot";

/// Ends the name of a snapshot that was taken here; others were sent by a leader.
const OWN: &str = "-own";

impl Snapshots {
    pub(crate) fn open(directory: &Path) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        Ok(Self::Directory(directory.to_owned()))
    }

    /// Keeps a snapshot that a leader sent; once this returns it is durable.
    pub(crate) async fn keep(&self, snapshot: Snapshot) -> io::Result<()> {
        self.keep_as(snapshot, "").await
    }

    /// Keeps a snapshot of what this node's own log holds, or held, durably.
    pub(crate) async fn keep_own(&self, snapshot: Snapshot) -> io::Result<()> {
        self.keep_as(snapshot, OWN).await
    }

    async fn keep_as(&self, snapshot: Snapshot, origin: &'static str) -> io::Result<()> {
        match self {
            Self::Directory(directory) => {
                let directory = directory.clone();
                blocking(move || write(&directory, &snapshot, origin)).await
            }
            Self::Memory(newest) => {
                *newest.lock().expect("nothing panics while it holds a snapshot") = Some(snapshot);
                Ok(())
            }
        }
    }

    /// The newest snapshot. A file that is damaged is an error of kind `InvalidData`: what it held
    /// is no longer in the log.
    pub(crate) async fn newest(&self) -> io::Result<Option<Snapshot>> {
        match self {
            Self::Directory(directory) => {
                let directory = directory.clone();
                blocking(move || read_newest(&directory)).await
            }
            Self::Memory(newest) => {
                Ok(newest.lock().expect("nothing panics while it holds a snapshot").clone())
            }
        }
    }

    /// The index of the last entry of the newest snapshot that was taken here.
    pub(crate) fn newest_own(&self) -> io::Result<Option<u64>> {
        let Self::Directory(directory) = self else { return Ok(None) };
        let own = |path: &PathBuf| path.file_stem()?.to_str()?.strip_suffix(OWN).map(str::to_owned);
        let newest = list(directory)?.iter().filter_map(own).next_back();
        Ok(newest.and_then(|name| name.split('-').next()?.parse().ok()))
    }

    /// Runs `work` where it may take its time: on another thread, or at once in a simulation,
    /// which has but one.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        match self {
            Self::Directory(_) => blocking(move || Ok(work())).await,
            Self::Memory(_) => Ok(work()),
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

fn write(directory: &Path, snapshot: &Snapshot, origin: &str) -> io::Result<()> {
    let (term, index) =
        snapshot.meta.last_log_id.map_or((0, 0), |id| (id.leader_id.term, id.index));
    let path = directory.join(format!("{index:020}-{term:020}{origin}.{EXTENSION}"));
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary)?;
    let head = encode_head(snapshot);
    file.write_all(&head)?;
    file.write_all(&snapshot.snapshot)?;
    file.sync_all()?;
    fs::rename(&temporary, &path)?;
    // The new name must be on disk before the log gives up what the snapshot holds.
    File::open(directory)?.sync_all()?;
    let mut files = list(directory)?;
    let old = files.len().saturating_sub(KEPT);
    for path in files.drain(..old) {
        fs::remove_file(path)?;
    }
    Ok(())
}

/// Magic, checksum of all that follows, length of the meta data, the meta data.
fn encode_head(snapshot: &Snapshot) -> BytesMut {
    let meta = meta_to_wire(&snapshot.meta).encode_to_vec();
    let meta_len = u32::try_from(meta.len()).expect("a membership is small");
    let mut crc = crc32fast::Hasher::new();
    crc.update(&meta_len.to_le_bytes());
    crc.update(&meta);
    crc.update(&snapshot.snapshot);
    let mut head = BytesMut::with_capacity(16 + meta.len());
    head.put_slice(MAGIC);
    head.put_u32_le(crc.finalize());
    head.put_u32_le(meta_len);
    head.put_slice(&meta);
    head
}

fn read_newest(directory: &Path) -> io::Result<Option<Snapshot>> {
    let Some(path) = list(directory)?.pop() else { return Ok(None) };
    let bytes = Bytes::from(fs::read(&path)?);
    let damaged = || {
        let message = format!("snapshot {} is damaged", path.display());
        io::Error::new(io::ErrorKind::InvalidData, message)
    };
    decode(bytes).ok_or_else(damaged).map(Some)
}

fn decode(mut bytes: Bytes) -> Option<Snapshot> {
    if bytes.len() < 16 || !bytes.starts_with(MAGIC) {
        return None;
    }
    bytes.advance(MAGIC.len());
    let crc = bytes.get_u32_le();
    if crc32fast::hash(&bytes) != crc {
        return None;
    }
    let meta_len = bytes.get_u32_le() as usize;
    if meta_len > bytes.len() {
        return None;
    }
    let meta = proto::SnapshotMeta::decode(bytes.split_to(meta_len)).ok()?;
    let meta: SnapshotMeta = meta_from_wire(meta).ok()?;
    Some(Snapshot { meta, snapshot: bytes })
}

/// Complete snapshots, oldest first.
fn list(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == EXTENSION) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::types::LogId;

    fn snapshot(index: u64) -> Snapshot {
        let last_log_id = Some(LogId::new_term_index(1, index));
        let meta = SnapshotMeta { last_log_id, ..SnapshotMeta::default() };
        Snapshot { meta, snapshot: Bytes::from(format!("state at {index}")) }
    }

    #[tokio::test]
    async fn newest_is_found_and_two_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let snapshots = Snapshots::open(directory.path()).unwrap();
        assert!(snapshots.newest().await.unwrap().is_none());
        for index in [5, 20, 100] {
            snapshots.keep(snapshot(index)).await.unwrap();
        }
        let newest = snapshots.newest().await.unwrap().unwrap();
        assert_eq!(newest.meta, snapshot(100).meta);
        assert_eq!(newest.snapshot, "state at 100");
        assert_eq!(list(directory.path()).unwrap().len(), KEPT);
    }

    #[tokio::test]
    async fn own_snapshots_are_known_from_those_of_leaders() {
        let directory = tempfile::tempdir().unwrap();
        let snapshots = Snapshots::open(directory.path()).unwrap();
        assert_eq!(snapshots.newest_own().unwrap(), None);
        snapshots.keep(snapshot(5)).await.unwrap();
        assert_eq!(snapshots.newest_own().unwrap(), None);
        snapshots.keep_own(snapshot(20)).await.unwrap();
        snapshots.keep(snapshot(100)).await.unwrap();
        assert_eq!(snapshots.newest_own().unwrap(), Some(20));
        assert_eq!(snapshots.newest().await.unwrap().unwrap().meta, snapshot(100).meta);
        snapshots.keep_own(snapshot(200)).await.unwrap();
        assert_eq!(snapshots.newest_own().unwrap(), Some(200));
        assert_eq!(snapshots.newest().await.unwrap().unwrap().meta, snapshot(200).meta);
    }

    #[tokio::test]
    async fn any_flipped_bit_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let snapshots = Snapshots::open(directory.path()).unwrap();
        snapshots.keep(snapshot(5)).await.unwrap();
        let path = list(directory.path()).unwrap().remove(0);
        let intact = fs::read(&path).unwrap();
        for at in 0..intact.len() {
            let mut bytes = intact.clone();
            bytes[at] ^= 0x10;
            fs::write(&path, bytes).unwrap();
            let error = snapshots.newest().await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "byte {at}");
        }
        fs::write(&path, &intact[..10]).unwrap();
        assert!(snapshots.newest().await.is_err(), "a cut-off file");
    }

    #[tokio::test]
    async fn unfinished_file_is_no_snapshot() {
        let directory = tempfile::tempdir().unwrap();
        let snapshots = Snapshots::open(directory.path()).unwrap();
        fs::write(directory.path().join("00000000000000000009-1.tmp"), b"half").unwrap();
        assert!(snapshots.newest().await.unwrap().is_none());
    }
}
