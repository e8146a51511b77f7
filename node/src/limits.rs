//! The system's limits on this process.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{info, warn};

/// Files that clients never get: the log, its snapshots, other nodes and operators need some, too.
const RESERVED_FILES: u64 = 256;

/// Raises the soft limit of open files to the hard one, and logs what it is then; without a number
/// there is none. Each client is an open file.
///
/// The soft limit is 1024 on most systems, for programs that wait by `select`; this is none. The
/// binary does so at its start; a program that embeds a node decides for itself.
pub fn raise_open_files() -> Option<u64> {
    let before = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: before.maximum, maximum: before.maximum };
    let limit = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => before.maximum,
        Err(error) => {
            warn!(%error, "limit of open files could not be raised");
            before.current
        }
    };
    info!(limit, "open files are limited");
    limit
}

/// How many files may be open beside a new client's: of a small limit three quarters.
pub(crate) fn files_with_clients() -> u64 {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    limit - RESERVED_FILES.min(limit / 4)
}
