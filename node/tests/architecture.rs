//! The house: imports point down the list of docs/ARCHITECTURE.md, and cores do no I/O.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::{Path, PathBuf};

/// Top to bottom; a part may use those below it.
const PARTS: [&str; 16] = [
    "config",
    "apps",
    "server",
    "transport",
    "backbone",
    "adapter",
    "peers",
    "raft",
    "socketio",
    "engineio",
    "limits",
    "scheduling",
    "net",
    "metrics",
    "random",
    "turn",
];

const CORES: [&str; 3] = ["socketio", "engineio", "raft/state"];

/// What a core never says, tests aside.
const IO: [&str; 7] =
    [".await", "async ", "tokio::net", "tokio::spawn", "std::net::Tcp", "Mutex", "Instant::now"];

fn sources(of: &str) -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut folders = vec![root.join(of)];
    let file = root.join(format!("{of}.rs"));
    if file.exists() {
        found.push(file);
    }
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(folder) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.into_iter().map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

/// The code without its tests and comments.
fn code(text: &str) -> String {
    let production = text.split("#[cfg(test)]").next().unwrap();
    production
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn imports_point_down() {
    let mut seen = 0;
    for (place, part) in PARTS.iter().enumerate() {
        for (path, text) in sources(part) {
            seen += 1;
            for above in &PARTS[..place] {
                let import = format!("crate::{above}::");
                assert!(
                    !code(&text).contains(&import),
                    "{} imports {above} from above",
                    path.display()
                );
            }
        }
    }
    assert!(seen > 40, "only {seen} files were looked at");
}

#[test]
fn cores_do_no_io() {
    for core in CORES {
        for (path, text) in sources(core) {
            if path.file_name().unwrap().to_string_lossy().contains("tests") {
                continue;
            }
            for word in IO {
                assert!(!code(&text).contains(word), "{} says {word}", path.display());
            }
        }
    }
}

#[test]
fn only_raft_names_openraft_and_every_file_says_what_it_is_for() {
    for part in PARTS {
        for (path, text) in sources(part) {
            assert!(text.starts_with("//!"), "{} does not say what it is for", path.display());
            let is_raft = path.to_string_lossy().contains("/src/raft/");
            assert!(
                is_raft || !code(&text).contains("openraft::"),
                "{} names openraft",
                path.display()
            );
        }
    }
}

/// A parser may be another than the default one, whose text `Encoded` writes by itself.
#[test]
fn packets_are_encoded_by_the_servers_parser() {
    for (path, text) in ["adapter", "server"].into_iter().flat_map(sources) {
        let file = path.file_name().unwrap().to_string_lossy();
        if ["outbox.rs", "encoder.rs"].contains(&&*file) || file.contains("tests") {
            continue;
        }
        for call in ["Encoded::packet(", "Encoded::pieces("] {
            assert!(!code(&text).contains(call), "{} says {call}..)", path.display());
        }
    }
}
