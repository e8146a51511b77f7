//! docs/socketio.md names, for each row of what Socket.IO offers, the test that shows it: all of them exist.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The text of all files below a folder whose names end so.
fn texts(folder: &Path, extension: &str) -> String {
    let mut all = String::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all += &texts(&path, extension);
        } else if path.extension().is_some_and(|found| found == extension) {
            all += &fs::read_to_string(path).unwrap();
        }
    }
    all
}

/// What stands between these marks, each once.
fn between(text: &str, mark: char) -> impl Iterator<Item = &str> {
    text.split(mark).skip(1).step_by(2)
}

/// The last cells of the rows whose table has tests.
fn test_cells(page: &str) -> Vec<&str> {
    let mut has_tests = false;
    let mut cells = Vec::new();
    for line in page.lines() {
        let last = line.trim_end().trim_end_matches('|').rsplit('|').next().unwrap().trim();
        if !line.starts_with('|') {
            has_tests = false;
        } else if last == "Test" {
            has_tests = true;
        } else if has_tests && !last.starts_with("---") {
            cells.push(last);
        }
    }
    cells
}

#[test]
fn each_row_names_a_test_that_exists() {
    let root = root();
    let page = fs::read_to_string(root.join("docs/socketio.md")).unwrap();
    let rust = [root.join("node/src"), root.join("node/tests"), root.join("cluster-tests/tests")]
        .map(|folder| texts(&folder, "rs"))
        .concat();
    let folders = ["client", "raw", "timers", "options", "balancer", "browser", "reference"]
        .map(|folder| texts(&root.join("cluster-tests/js").join(folder), "mjs"));
    let scenarios = fs::read_to_string(root.join("cluster-tests/matrix/scenarios.json")).unwrap();
    let elsewhere = folders.concat() + &scenarios;

    let exists = |name: &str| match name.strip_prefix("js/") {
        Some(path) => {
            let path = root.join("cluster-tests/js").join(path.trim_end_matches('*'));
            path.exists()
        }
        None if name.contains('/') => {
            let places = [root.join(name), root.join("node/src").join(name)];
            places.iter().any(|path| path.exists())
        }
        None if name.ends_with(".rs") => root.join("node/tests").join(name).exists(),
        None if name.contains('_') => match name.strip_suffix('…') {
            Some(beginning) => rust.contains(&format!("fn {beginning}")),
            None => rust.contains(&format!("fn {name}(")),
        },
        // What the name of a script begins with is its group's.
        None => {
            let name = name.trim_matches(['…', ' ', ':']);
            elsewhere.contains(name.rsplit(": ").next().unwrap())
        }
    };
    let cells = test_cells(&page);
    let mut missing = Vec::new();
    for cell in &cells {
        for name in between(cell, '`').chain(between(cell, '"')) {
            if !exists(name) {
                missing.push(name);
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(cells.len() > 100, "{} rows", cells.len());
}
