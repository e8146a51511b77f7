//! A node takes as many clients as the system lets it have open files.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// Ends the process with the test.
struct Node(Child);

impl Drop for Node {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn node_raises_its_soft_limit_of_open_files_to_the_hard_one() {
    let data = tempfile::tempdir().unwrap();
    let script = r#"ulimit -Sn 128 && exec "$0" "$@""#;
    let any_port = ["--listen", "--admin", "--cluster-address"].map(|flag| [flag, "127.0.0.1:0"]);
    let child = Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_flotilla"), "--data-dir"])
        .arg(data.path())
        .args(any_port.as_flattened())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut node = Node(child);
    let mut log = BufReader::new(node.0.stderr.take().unwrap()).lines().map(Result::unwrap);
    let said: Vec<String> = log.by_ref().take_while(|line| !line.contains("open files")).collect();
    let limits = fs::read_to_string(format!("/proc/{}/limits", node.0.id())).unwrap();
    let limit = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let columns: Vec<&str> = limit.split_whitespace().collect();
    let [.., soft, hard, _unit] = columns.as_slice() else { panic!("{limit}") };
    assert_eq!(soft, hard, "{limit}; the log said {said:?}");
    assert_ne!(*soft, "128");
}
