//! Where a node keeps what must survive its process: a directory, or a simulated machine's memory.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::config::Durability;
use super::log_store::{LogStore, MemoryLog};
use super::planted::PlantedBug;
use super::snapshots::Snapshots;
use super::state::NodeId;
use super::types::Snapshot;
use crate::random;

/// Who this node is. Made when it first starts on an empty disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// Never used by a node with another log: raft's promises hang on it.
    pub(crate) node: NodeId,
    /// The cluster that this node belongs to or has pledged itself to; 0: none yet.
    pub(crate) cluster: u64,
    /// The node that is forming the cluster this one has pledged itself to.
    pub(crate) founder: NodeId,
    /// The members of the cluster that this node is forming: id, name, address.
    #[serde(default)]
    pub(crate) founding: Vec<(NodeId, String, String)>,
    /// Its log holds entries, and not only in memory. A node that lost them must not take part: it
    /// has forgotten what it voted for, and what it promised to keep.
    #[serde(default)]
    pub(crate) joined: bool,
    /// The machine's boot id, where entries do not survive the machine.
    #[serde(default)]
    pub(crate) machine: Option<String>,
}

impl Identity {
    fn new(machine: Option<String>) -> Self {
        let node = loop {
            // 48 bits: exact also where ids are read as JavaScript numbers.
            let id = random::number() >> 16;
            if id != 0 {
                break id;
            }
        };
        Self { node, cluster: 0, founder: 0, founding: Vec::new(), joined: false, machine }
    }
}

/// What a machine without a disk remembers between two processes. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk {
    log: MemoryLog,
    snapshot: Arc<Mutex<Option<Snapshot>>>,
    identity: Arc<Mutex<Option<Identity>>>,
    planted: Option<PlantedBug>,
}

impl MemoryDisk {
    /// A disk on which the log is durable only `sync_time` after it was written.
    pub fn slow(sync_time: Duration) -> Self {
        Self { log: MemoryLog::slow(sync_time), ..Self::default() }
    }

    /// The process that uses this disk has a bug.
    pub fn with_planted_bug(self, planted: Option<PlantedBug>) -> Self {
        Self { planted, ..self }
    }

    pub(crate) fn planted_bug(&self) -> Option<PlantedBug> {
        self.planted
    }

    /// The machine crashed: what was not durable is gone. Returns how many writes that were.
    pub fn crash(&self) -> usize {
        self.log.crash()
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Storage {
    Directory { path: PathBuf, durability: Durability },
    Memory(MemoryDisk),
}

const IDENTITY_FILE: &str = "identity.json";
const LOG_DIRECTORY: &str = "log";
const SNAPSHOT_DIRECTORY: &str = "snapshots";

impl Storage {
    pub(crate) fn open_log(&self) -> io::Result<LogStore> {
        match self {
            Self::Directory { path, durability } => {
                let log = path.join(LOG_DIRECTORY);
                LogStore::open(&log, *durability == Durability::Fsync).map_err(at(&log))
            }
            Self::Memory(disk) => Ok(LogStore::Memory(disk.log.clone())),
        }
    }

    /// The log of the node that `identity` names. What this node has promised under that id is in
    /// it, so if it has lost its entries that is an error of kind `InvalidData`.
    ///
    /// A crash alone leaves no such log: its first file is durable before a node has a cluster, and
    /// an entry is before it counts as joined.
    pub(crate) fn open_log_of(&self, identity: &Identity) -> io::Result<LogStore> {
        let Self::Directory { path, durability } = self else { return self.open_log() };
        if identity.cluster == 0 {
            return self.open_log();
        }
        let sync = *durability == Durability::Fsync;
        let directory = path.join(LOG_DIRECTORY);
        let log = LogStore::open_begun(&directory, sync).map_err(at(&directory))?;
        if identity.joined && log.last_index().is_none() {
            let error = "the log has lost its entries";
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        Ok(log)
    }

    pub(crate) fn open_snapshots(&self) -> io::Result<Snapshots> {
        match self {
            Self::Directory { path, .. } => {
                let snapshots = path.join(SNAPSHOT_DIRECTORY);
                Snapshots::open(&snapshots).map_err(at(&snapshots))
            }
            Self::Memory(disk) => Ok(Snapshots::Memory(disk.snapshot.clone())),
        }
    }

    /// Whether a node has kept anything here.
    pub(crate) fn exists(&self) -> bool {
        match self {
            Self::Directory { path, .. } => path.join(IDENTITY_FILE).exists(),
            Self::Memory(disk) => {
                disk.identity.lock().expect("nothing panics while it holds it").is_some()
            }
        }
    }

    /// The identity kept here, or a new one, which is kept from now on.
    pub(crate) fn identity(&self) -> io::Result<Identity> {
        match self {
            Self::Directory { path, durability } => {
                fs::create_dir_all(path)?;
                // What was only handed to the operating system may have died with it, votes too:
                // a node that forgot a vote must not take part under its old id.
                let machine = (*durability == Durability::Os).then(machine_boot).flatten();
                match read_identity(&path.join(IDENTITY_FILE))? {
                    Some(identity) if identity.machine == machine || machine.is_none() => {
                        Ok(identity)
                    }
                    Some(_) => {
                        tracing::warn!("the machine was restarted: this node begins anew");
                        forget(path)?;
                        self.keep_new(machine)
                    }
                    None if has_log(path)? => Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        format!("{IDENTITY_FILE} is missing beside a log"),
                    )),
                    None => self.keep_new(machine),
                }
            }
            Self::Memory(disk) => {
                let mut identity = disk.identity.lock().expect("nothing panics while it holds it");
                Ok(identity.get_or_insert_with(|| Identity::new(None)).clone())
            }
        }
    }

    fn keep_new(&self, machine: Option<String>) -> io::Result<Identity> {
        let identity = Identity::new(machine);
        self.keep_identity(&identity)?;
        Ok(identity)
    }

    /// Durable once this returns.
    pub(crate) fn keep_identity(&self, identity: &Identity) -> io::Result<()> {
        match self {
            Self::Directory { path, .. } => {
                let temporary = path.join("identity.tmp");
                let mut file = File::create(&temporary)?;
                file.write_all(&serde_json::to_vec_pretty(identity)?)?;
                file.sync_all()?;
                fs::rename(&temporary, path.join(IDENTITY_FILE))?;
                File::open(path)?.sync_all()
            }
            Self::Memory(disk) => {
                *disk.identity.lock().expect("nothing panics while it holds it") =
                    Some(identity.clone());
                Ok(())
            }
        }
    }
}

fn read_identity(path: &Path) -> io::Result<Option<Identity>> {
    match fs::read(path) {
        Ok(json) => serde_json::from_slice(&json).map(Some).map_err(|error| {
            io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", path.display()))
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(at(path)(error)),
    }
}

fn has_log(path: &Path) -> io::Result<bool> {
    let log = path.join(LOG_DIRECTORY);
    match fs::read_dir(&log) {
        Ok(entries) => Ok(entries.count() > 0),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(at(&log)(error)),
    }
}

/// Says where it happened, which the system's errors do not.
fn at(path: &Path) -> impl Fn(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn forget(path: &Path) -> io::Result<()> {
    for directory in [LOG_DIRECTORY, SNAPSHOT_DIRECTORY] {
        match fs::remove_dir_all(path.join(directory)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// Differs after each start of the machine; unknown where there is no Linux.
fn machine_boot() -> Option<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn storage(path: &Path, durability: Durability) -> Storage {
        Storage::Directory { path: path.to_owned(), durability }
    }

    #[test]
    fn identity_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let storage = storage(directory.path(), Durability::Fsync);
        let identity = storage.identity().unwrap();
        assert!(identity.node != 0 && identity.node < 1 << 48);
        assert_eq!(storage.identity().unwrap(), identity);
        let changed = Identity { cluster: 7, ..identity };
        storage.keep_identity(&changed).unwrap();
        assert_eq!(storage.identity().unwrap(), changed);
    }

    #[test]
    fn machine_restart_makes_an_unsynced_node_a_new_one() {
        let directory = tempfile::tempdir().unwrap();
        let storage = storage(directory.path(), Durability::Os);
        let identity = storage.identity().unwrap();
        assert_eq!(storage.identity().unwrap(), identity);
        let before = Identity { machine: Some("another boot".to_owned()), ..identity.clone() };
        storage.keep_identity(&before).unwrap();
        assert_ne!(storage.identity().unwrap().node, identity.node);
    }

    #[test]
    fn log_is_missed_once_its_node_has_promised_anything() {
        for durability in [Durability::Fsync, Durability::Os] {
            let directory = tempfile::tempdir().unwrap();
            let storage = storage(directory.path(), durability);
            let identity = storage.identity().unwrap();
            drop(storage.open_log_of(&identity).unwrap());
            let log = directory.path().join(LOG_DIRECTORY);
            fs::remove_dir_all(&log).unwrap();
            // A node without a cluster has promised nothing.
            drop(storage.open_log_of(&identity).unwrap());
            // What a crash leaves that comes right after the pledge, and before the first vote.
            let pledged = Identity { cluster: 7, ..identity };
            drop(storage.open_log_of(&pledged).unwrap());
            let joined = Identity { joined: true, ..pledged.clone() };
            let error = storage.open_log_of(&joined).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "no entry: {error}");
            fs::remove_dir_all(&log).unwrap();
            let error = storage.open_log_of(&pledged).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "no log: {error}");
        }
    }

    #[test]
    fn file_in_a_directorys_place_is_named() {
        for name in [LOG_DIRECTORY, SNAPSHOT_DIRECTORY] {
            let directory = tempfile::tempdir().unwrap();
            let file = directory.path().join(name);
            fs::write(&file, b"").unwrap();
            let storage = storage(directory.path(), Durability::Fsync);
            let opened = storage.identity().and_then(|_| storage.open_snapshots());
            let error = opened.map(drop).unwrap_err().to_string();
            assert!(error.starts_with(&file.display().to_string()), "{error}");
        }
    }

    #[test]
    fn log_without_an_identity_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join(LOG_DIRECTORY)).unwrap();
        fs::write(directory.path().join(LOG_DIRECTORY).join("r-0.wal"), b"").unwrap();
        let error = storage(directory.path(), Durability::Fsync).identity().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
