//! A node takes as many clients as the system lets it have open files, and keeps some for itself.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// The binary, under limits that a shell sets; it ends with the test.
struct Node {
    process: Child,
    log: Lines<BufReader<ChildStderr>>,
    data: TempDir,
}

impl Node {
    fn start(ulimit: &str) -> Self {
        let data = tempfile::tempdir().unwrap();
        let script = format!(r#"{ulimit} && exec "$0" "$@""#);
        let ports = ["--listen", "--admin", "--cluster-address"].map(|flag| [flag, "127.0.0.1:0"]);
        let mut process = Command::new("sh")
            .args(["-c", &script, env!("CARGO_BIN_EXE_flotilla"), "--data-dir"])
            .arg(data.path())
            .args(ports.as_flattened())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = BufReader::new(process.stderr.take().unwrap()).lines();
        Self { process, log, data }
    }

    /// Reads the log until it has had all of these words, in whatever order.
    fn wait_for(&mut self, words: &[&str]) {
        let mut missing = words.to_vec();
        let lines = self.log.by_ref().map(Result::unwrap);
        let is_not_it = |line: &String| {
            missing.retain(|words| !line.contains(words));
            !missing.is_empty()
        };
        let said: Vec<String> = lines.take_while(is_not_it).collect();
        assert!(self.process.try_wait().unwrap().is_none(), "{words:?} are not in {said:?}");
    }

    fn address(&self, port: &str) -> String {
        let file = fs::read_to_string(Path::new(self.data.path()).join("addresses.json")).unwrap();
        let addresses: Value = serde_json::from_str(&file).unwrap();
        addresses[port].as_str().unwrap().to_owned()
    }

    fn refused(&self) -> u64 {
        let metrics = get(&self.address("admin"), "/metrics").unwrap();
        let name = "flotilla_client_streams_refused_total ";
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.parse().unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// The answer to a request; none if the stream was closed without one.
fn get(address: &str, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n");
    let mut answer = String::new();
    // A stream that is refused may be reset at any moment.
    stream.write_all(request.as_bytes()).and_then(|()| stream.read_to_string(&mut answer)).ok()?;
    (!answer.is_empty()).then_some(answer)
}

#[test]
fn node_raises_its_soft_limit_of_open_files_to_the_hard_one() {
    let mut node = Node::start("ulimit -Sn 128");
    node.wait_for(&["open files are limited"]);
    let limits = fs::read_to_string(format!("/proc/{}/limits", node.process.id())).unwrap();
    let limit = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let columns: Vec<&str> = limit.split_whitespace().collect();
    let [.., soft, hard, _unit] = columns.as_slice() else { panic!("{limit}") };
    assert_eq!(soft, hard, "{limit}");
    assert_ne!(*soft, "128");
}

#[test]
fn clients_leave_a_node_the_files_that_it_needs_itself() {
    let mut node = Node::start("ulimit -n 200");
    node.wait_for(&["node is up", "standing changed"]);
    let address = node.address("listen");
    let silent: Vec<TcpStream> = (0..250).map(|_| TcpStream::connect(&address).unwrap()).collect();
    let handshake = "/socket.io/?EIO=4&transport=polling";
    assert_eq!(get(&address, handshake), None, "the node has files for this client left");
    node.wait_for(&["new clients are refused"]);
    let refused = node.refused();
    assert!((50..=250).contains(&refused), "{refused} of 251 were refused");
    drop(silent);
    let mut tries = (0..10_000).map(|_| get(&address, handshake));
    let served = tries.by_ref().flatten().next().expect("the node takes clients again");
    assert!(served.starts_with("HTTP/1.1 200"), "{served}");
}
