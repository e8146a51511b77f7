//! A node with an application in each dialect, for their suites (`cluster-tests/js`).

use std::process::ExitCode;

use cluster_tests::{dialects, host};
use flotilla::server::Io;

fn main() -> ExitCode {
    host::main(register)
}

fn register(io: &Io) {
    dialects::api::register(io);
    dialects::controllers::register(io);
    dialects::routes::register(io);
}
