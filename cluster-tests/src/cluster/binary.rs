//! Finds the `flotilla` program that belongs to the running test or tool.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The program that `FLOTILLA_BIN` names, else the one that stands beside the running test or
/// tool in the target directory; it is built once if it is not there.
///
/// # Panics
///
/// When it is not there and cannot be built.
pub(super) fn find() -> PathBuf {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND
        .get_or_init(|| {
            if let Some(named) = std::env::var_os("FLOTILLA_BIN") {
                return PathBuf::from(named);
            }
            let own = std::env::current_exe().expect("a running program has a path");
            let beside = beside(&own);
            if !beside.exists() {
                build(&beside);
            }
            beside
        })
        .clone()
}

// Tests run from `target/debug/deps`, tools from `target/debug`.
fn beside(own: &Path) -> PathBuf {
    let directory = own.parent().expect("a program lies in a directory");
    let profile = if directory.ends_with("deps") {
        directory.parent().expect("`deps` lies in a profile's directory")
    } else {
        directory
    };
    profile.join("flotilla")
}

fn build(wanted: &Path) {
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--package", "flotilla", "--bin", "flotilla"]);
    cargo.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    if wanted.parent().is_some_and(|profile| profile.ends_with("release")) {
        cargo.arg("--release");
    }
    let status = cargo.status().expect("cargo can be started");
    assert!(status.success() && wanted.exists(), "no {} after {status}", wanted.display());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_and_tools_find_the_program_of_their_own_profile() {
        let wanted = Path::new("/w/target/debug/flotilla");
        assert_eq!(beside(Path::new("/w/target/debug/deps/story-1a2b")), wanted);
        assert_eq!(beside(Path::new("/w/target/debug/bench")), wanted);
    }
}
