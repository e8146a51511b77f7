//! A disk that takes no more ends its node, which says why once, and starts again when there is room.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use cluster_tests::cluster::Cluster;
use cluster_tests::process::Process;
use cluster_tests::wait;
use serde_json::json;

/// A node that repeats what cannot be, without a pause, writes thousands each second.
const MAX_LOG_LINES: usize = 500;

// The shell's limit, in blocks of 512 or 1024 bytes, stands in for the size of a disk: a write
// beyond it fails, where it would otherwise end the process with a signal.
const LIMITED: &str = r#"trap "" XFSZ; ulimit -f 2048; exec "$@""#;

#[tokio::test]
async fn a_node_whose_disk_is_full_ends_with_the_reason_and_starts_again_with_room() {
    let mut cluster = Cluster::builder(1).prepare().unwrap();
    cluster.write_config("n1");
    let mut command = ["/bin/sh", "-c", LIMITED, "sh"].map(str::to_owned).to_vec();
    command.extend(cluster.command("n1"));
    let mut node = Process::start(&command, &cluster.log("n1")).unwrap();
    wait::until("the node to be ready", async || cluster.ready("n1").await).await;
    let ann = cluster.client("n1", "/").await;
    let text = "x".repeat(20_000);
    // Each is in the log once it is confirmed; one of the first hundred or so no longer fits.
    let mut kept = 0;
    while ann.confirm("login", &[json!(format!("{kept} {text}"))]).await.is_ok() {
        kept += 1;
        assert!(kept < 1000, "the disk has a limit");
    }
    let status = node.wait_exit(wait::PATIENCE).await;
    let log = node.log_tail(usize::MAX);
    let lines = log.lines().count();
    let end = node.log_tail(20);
    assert_eq!(status.unwrap().code(), Some(1), "{end}");
    assert!(kept > 10, "it took some: {kept}\n{end}");
    assert!(lines < MAX_LOG_LINES, "{lines} lines\n{end}");
    let reason = "a part of the node failed: consensus: ";
    let told = log.lines().find_map(|line| line.split_once(reason));
    assert!(told.is_some_and(|(_, why)| why.contains("too large")), "{end}");

    cluster.start_node("n1");
    cluster.wait_ready("n1").await;
    cluster.client("n1", "/").await.confirm("login", &[json!("ann")]).await.unwrap();
}
