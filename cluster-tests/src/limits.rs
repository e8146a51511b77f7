//! The limits that the system sets to this process and to those that it starts.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Allows as many open files as an unprivileged process may allow itself; children inherit it.
pub fn raise_open_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // At worst it stays as it was, and a test that needs more says so by failing to connect.
    setrlimit(Resource::Nofile, limit).ok();
}
