//! The system's limits on this process.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{info, warn};

/// Raises the soft limit of open files to the hard one, and logs what it is then; without a number
/// there is none. Each client is an open file.
///
/// The soft limit is 1024 on most systems, for programs that wait by `select`; this is none.
/// [`main`](crate) does so at its start. A program that embeds a node decides for itself.
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
