//! The two commands, the runner of a local cluster and the load generator, as a user runs them.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use cluster_tests::nodes_file::{self, NodeEntry};
use cluster_tests::process::{self, Process};
use cluster_tests::{http, ports, wait};

// Starting and stopping a cluster takes a while, and so do ten short scenarios.
const PATIENCE: Duration = Duration::from_secs(180);

fn runner(directory: &Path, exec: &[&str]) -> Vec<String> {
    let directory = directory.to_str().unwrap();
    let mut command = vec![env!("CARGO_BIN_EXE_cluster"), "--dir", directory, "--exec"];
    command.extend(exec);
    command.into_iter().map(str::to_owned).collect()
}

fn is_running(node: &NodeEntry) -> bool {
    Path::new(&format!("/proc/{}", node.pid)).exists()
}

#[tokio::test]
async fn the_runner_serves_a_command_and_exits_as_it_did() {
    let directory = tempfile::tempdir().unwrap();
    let copy = directory.path().join("copy.json");
    let script = format!("cp \"$FLOTILLA_NODES\" {}; exit 7", copy.display());
    let command = runner(directory.path(), &["sh", "-c", &script]);
    let (status, text) = process::run(&command, PATIENCE).await.unwrap();
    assert_eq!(status.code(), Some(7), "{text}");
    let nodes = nodes_file::read(&copy).unwrap();
    let ids: Vec<&str> = nodes.iter().map(|node| node.id.as_str()).collect();
    assert_eq!(ids, ["n1", "n2", "n3"]);
    for node in &nodes {
        assert!(text.contains(&node.url), "{} is shown: {text}", node.url);
        assert!(!is_running(node), "{} was stopped", node.id);
    }
}

/// The nodes, once the runner has listed them.
async fn listed(directory: &Path, runner: &Process) -> Vec<NodeEntry> {
    wait::try_until("the list of nodes", PATIENCE, async || {
        nodes_file::read(&directory.join("nodes.json")).map_err(|_not_yet| runner.log_tail(10))
    })
    .await
    .unwrap_or_else(|error| panic!("{error}"))
}

/// A port for clients with which those for operators and peers are free, too.
fn first_port() -> u16 {
    let is_free = |port: u16| TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], port))).is_ok();
    loop {
        let port = ports::free_address().port();
        if [1000, 2000].into_iter().all(|above| is_free(port + above)) {
            return port;
        }
    }
}

async fn until_healthy(node: &NodeEntry) {
    wait::try_until("the node to be well", PATIENCE, async || {
        let answer = http::get(&format!("{}/readyz", node.admin)).await;
        answer
            .map_err(|error| error.to_string())
            .and_then(|answer| if answer.status.is_success() { Ok(()) } else { Err(answer.body) })
    })
    .await
    .unwrap_or_else(|error| panic!("{error}"));
}

#[tokio::test]
async fn a_cluster_is_where_it_was_asked_to_be_until_ctrl_c() {
    let directory = tempfile::tempdir().unwrap();
    let port = first_port();
    let config = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/local.toml");
    let port_text = port.to_string();
    let mut command =
        vec![env!("CARGO_BIN_EXE_cluster"), "--dir", directory.path().to_str().unwrap()];
    command.extend(["--nodes", "1", "--port", &port_text, "--delivery", "direct"]);
    command.extend(["--config", config]);
    let command: Vec<String> = command.into_iter().map(str::to_owned).collect();
    let mut runner = Process::start(&command, &directory.path().join("runner.log")).unwrap();
    let nodes = listed(directory.path(), &runner).await;
    let [node] = &nodes[..] else { panic!("{nodes:?}") };
    assert_eq!(node.url, format!("http://127.0.0.1:{port}"));
    assert_eq!(node.admin, format!("http://127.0.0.1:{}", port + 1000));
    assert_eq!(node.grpc, format!("127.0.0.1:{}", port + 2000));
    until_healthy(node).await;
    let inspected = http::get(&format!("{}/socket.io/?EIO=4&transport=polling", node.url)).await;
    assert!(inspected.unwrap().body.starts_with("0{"), "it serves clients");
    let settings = std::fs::read_to_string(directory.path().join("n1.toml")).unwrap();
    assert!(settings.contains("delivery = \"direct\""), "{settings}");
    runner.interrupt();
    let status = runner.wait_exit(PATIENCE).await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(status.code(), Some(0), "{}", runner.log_tail(20));
    assert!(!is_running(node), "{}", runner.log_tail(20));

    // As tools start a node again; Ctrl-C ends it by itself, too.
    let mut again = Process::start(&node.cmd, &directory.path().join("again.log")).unwrap();
    until_healthy(node).await;
    again.interrupt();
    let status = again.wait_exit(PATIENCE).await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(status.code(), Some(0), "{}", again.log_tail(20));
}

#[tokio::test]
async fn a_terminated_runner_stops_its_nodes() {
    let directory = tempfile::tempdir().unwrap();
    let command = runner(directory.path(), &["sleep", "600"]);
    let log = directory.path().join("runner.log");
    let mut runner = Process::start(&command, &log).unwrap();
    let nodes = listed(directory.path(), &runner).await;
    assert!(nodes.iter().all(is_running));
    runner.terminate();
    let status = runner.wait_exit(PATIENCE).await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(status.code(), Some(0), "{}", runner.log_tail(20));
    assert!(!nodes.iter().any(is_running), "{}", runner.log_tail(20));
}

#[tokio::test]
async fn the_load_generator_finds_nothing_lost_doubled_or_out_of_order() {
    let directory = tempfile::tempdir().unwrap();
    let figures = directory.path().join("figures.json");
    for namespace in ["/", "/relay-direct"] {
        let short = ["--seconds", "1", "--warm-up", "0.1", "--clients", "60", "--start", "3"];
        let mut command = vec![env!("CARGO_BIN_EXE_bench"), "--namespace", namespace];
        command.extend(["--json", figures.to_str().unwrap()]);
        command.extend(short);
        let command: Vec<String> = command.into_iter().map(str::to_owned).collect();
        let (status, text) = process::run(&command, PATIENCE).await.unwrap();
        // It exits with zero only if every row is clean.
        assert_eq!(status.code(), Some(0), "{namespace}: {text}");
        let report: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&figures).unwrap()).unwrap();
        let rows = report["rows"].as_array().unwrap();
        assert_eq!(rows.len(), 10, "{text}");
        for row in rows.iter().filter(|row| row["scenario"] != "idle") {
            assert!(row["deliveries"].as_u64().unwrap() > 0, "{row}");
            assert!(row["latency_micros"]["p99"].as_u64().unwrap() > 0, "{row}");
            assert!(row["server_cpu_micros_each"].as_f64().unwrap() > 0.0, "{row}");
        }
        let idle = rows.iter().find(|row| row["scenario"] == "idle").unwrap();
        assert!(idle["server_kib_each"].is_number(), "{idle}");
    }
}
