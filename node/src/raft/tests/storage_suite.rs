//! openraft's own suite, on our log and state machine.

use std::sync::Arc;

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use tempfile::TempDir;

use crate::raft::config::Durability;
use crate::raft::deliveries::Deliveries;
use crate::raft::log_store::LogStore;
use crate::raft::state::State;
use crate::raft::state_machine::StateMachine;
use crate::raft::storage::{MemoryDisk, Storage};
use crate::raft::types::TypeConfig;
use crate::raft::view::View;

struct OnDisk(Durability);

struct InMemory;

fn open(storage: &Storage) -> (LogStore, StateMachine) {
    let view = Arc::new(View::new(State::default()));
    let snapshots = storage.open_snapshots().unwrap();
    let machine = StateMachine::new(view, Arc::new(Deliveries::new(0)), snapshots);
    (storage.open_log().unwrap(), machine)
}

impl StoreBuilder<TypeConfig, LogStore, StateMachine, TempDir> for OnDisk {
    async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError<TypeConfig>> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_owned();
        let (log, machine) = open(&Storage::Directory { path, durability: self.0 });
        Ok((directory, log, machine))
    }
}

impl StoreBuilder<TypeConfig, LogStore, StateMachine, ()> for InMemory {
    async fn build(&self) -> Result<((), LogStore, StateMachine), StorageError<TypeConfig>> {
        let (log, machine) = open(&Storage::Memory(MemoryDisk::default()));
        Ok(((), log, machine))
    }
}

#[tokio::test]
async fn synced_log_passes() {
    Suite::test_all(OnDisk(Durability::Fsync)).await.unwrap();
}

#[tokio::test]
async fn unsynced_log_passes() {
    Suite::test_all(OnDisk(Durability::Os)).await.unwrap();
}

#[tokio::test]
async fn log_in_memory_passes() {
    Suite::test_all(InMemory).await.unwrap();
}
