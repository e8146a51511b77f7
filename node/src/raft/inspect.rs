//! Looks at the data of a node that is not running.

use std::io;
use std::path::Path;

use super::config::Durability;
use super::start::{StartError, check_reach};
use super::state::State;
use super::state_machine::replay;
use super::storage::Storage;

/// The agreed state as the data in `data_dir` has it: the newest snapshot, and what the log knows
/// to be committed after it. A running node knows more, and has its data locked.
pub async fn inspect(data_dir: &Path) -> Result<State, StartError> {
    let storage = Storage::Directory { path: data_dir.to_owned(), durability: Durability::Fsync };
    let damaged = |error| StartError::storage(data_dir.to_owned(), error);
    // Opening what is not there would make it.
    if !storage.exists() {
        return Err(damaged(io::ErrorKind::NotFound.into()));
    }
    let identity = storage.identity().map_err(damaged)?;
    let log = storage.open_log_of(&identity).map_err(damaged)?;
    let snapshots = storage.open_snapshots().map_err(damaged)?;
    let snapshot = snapshots.newest().await.map_err(damaged)?;
    check_reach(&log, &snapshots).map_err(damaged)?;
    let (mut state, next) = match snapshot {
        Some(snapshot) => {
            let state = State::decode(snapshot.snapshot)
                .map_err(|error| damaged(io::Error::new(io::ErrorKind::InvalidData, error)))?;
            (state, snapshot.meta.last_log_id.map_or(0, |id| id.index + 1))
        }
        None => (State::default(), 0),
    };
    let entries = log.committed_from(next).map_err(damaged)?;
    replay(&mut state, entries).map_err(damaged)?;
    Ok(state)
}
