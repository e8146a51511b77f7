//! Bad input to a node as a process: at its gRPC port, in its log, in its config.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::{Path, PathBuf};

use cluster_tests::cluster::Cluster;
use cluster_tests::{process, traffic, wait};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn garbage_on_the_grpc_port_harms_nobody() {
    let mut cluster = Cluster::start(3).await;
    let ann = cluster.client("n1", "/").await;
    let bob = cluster.client("n3", "/").await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let mut broken_frame = preface.to_vec();
    broken_frame.extend([0xff; 64]);
    let noise: Vec<u8> =
        (0..100_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let samples = [b"GET / HTTP/1.1\r\n\r\n".to_vec(), preface[..9].to_vec(), broken_frame, noise];
    for id in cluster.ids() {
        // A connection that says nothing at all stays open beside the others.
        let _silent = TcpStream::connect(cluster.grpc(&id)).await.unwrap();
        for sample in &samples {
            let mut stream = TcpStream::connect(cluster.grpc(&id)).await.unwrap();
            // The node may close before all is written, and may say why or not.
            stream.write_all(sample).await.ok();
            stream.shutdown().await.ok();
            let mut answer = Vec::new();
            let end = tokio::time::timeout(wait::PATIENCE, stream.read_to_end(&mut answer)).await;
            end.expect("the node closes such a connection").ok();
        }
    }
    assert_eq!(cluster.take_ended(), []);
    cluster.wait_all_ready().await;
    for speaker in [&ann, &bob] {
        traffic::last_word(speaker, &[&ann, &bob]).await;
    }
}

#[tokio::test]
async fn silent_connections_to_the_grpc_port_keep_no_node_out() {
    let mut cluster = Cluster::start(3).await;
    let victim = cluster.follower().await;
    let others: Vec<_> = cluster.ids().into_iter().filter(|id| *id != victim).collect();
    let mut silent = Vec::new();
    for id in others.iter().cycle().take(2 * SILENT) {
        silent.push(TcpStream::connect(cluster.grpc(id)).await.unwrap());
    }
    // It needs new connections to both, and finds the port as full as it gets.
    cluster.kill(&victim);
    cluster.restart(&victim).await;
    for mut stream in silent {
        let mut answer = Vec::new();
        let end = tokio::time::timeout(wait::PATIENCE, stream.read_to_end(&mut answer)).await;
        end.expect("the node closes such a connection").ok();
    }
    for id in &others {
        let metrics = cluster.metrics(id).await.unwrap();
        let refused = metrics.sum("flotilla_node_connections_refused_total");
        assert!(refused >= SILENT as f64, "{id}: {refused}");
    }
}

/// To each of two nodes: more than a port waits for at a time.
const SILENT: usize = 200;

#[tokio::test]
async fn a_node_with_a_corrupted_log_refuses_to_start_and_says_so() {
    let mut cluster = Cluster::start(3).await;
    let (leader, victim) = cluster.roles().await;
    let ann = cluster.client(&leader, "/").await;
    for number in 0..200 {
        ann.confirm("bcast", &[json!(number)]).await.unwrap();
    }
    cluster.kill(&victim);
    let spoiled = spoil_files(cluster.data_dir(&victim));
    assert!(!spoiled.is_empty(), "the node has a log");

    assert_refused(&mut cluster, &victim).await;
    traffic::last_word(&ann, &[&ann]).await;
}

// A node that has forgotten its log must not take part under its old id: with another one it would
// make a majority that knows nothing of what the third has acknowledged.
#[tokio::test]
async fn a_node_that_has_lost_its_log_refuses_to_start_and_says_so() {
    let mut cluster = Cluster::start(3).await;
    let (leader, victim) = cluster.roles().await;
    let ann = cluster.client(&leader, "/").await;
    ann.confirm("join", &[json!("den")]).await.unwrap();
    cluster.kill(&victim);
    let log = cluster.data_dir(&victim).join("log");
    let files = std::fs::read_dir(&log).unwrap().map(|file| file.unwrap().path());
    let file = files.into_iter().find(|path| path.extension().is_some_and(|name| name == "wal"));
    let file = std::fs::OpenOptions::new().write(true).open(file.unwrap()).unwrap();
    for left in [100, 0] {
        file.set_len(left).unwrap();
        assert_refused(&mut cluster, &victim).await;
    }
    std::fs::remove_dir_all(&log).unwrap();
    assert_refused(&mut cluster, &victim).await;
    traffic::last_word(&ann, &[&ann]).await;
    // As it is told to: with an empty directory it comes back as another node.
    cluster.wipe(&victim);
    cluster.restart(&victim).await;
}

async fn assert_refused(cluster: &mut Cluster, victim: &str) {
    cluster.start_node(victim);
    let ended = cluster.process(victim).wait_exit(wait::PATIENCE).await;
    let log = cluster.process(victim).log_tail(30);
    let status = ended.unwrap_or_else(|error| panic!("{error}\n{log}"));
    assert!(status.code().is_some_and(|code| code != 0), "{status}\n{log}");
    let told = log.lines().last().unwrap_or_default();
    assert!(told.contains("damaged"), "the operator is told: {log}");
    let directory = cluster.data_dir(victim).display().to_string();
    assert!(told.contains(&directory), "it names the place: {log}");
    assert!(!log.contains("panicked"), "it is no crash: {log}");
    cluster.take_ended();
}

// Turns the bits of the middle of each file that belongs to the log. A torn end would be nothing
// unusual: a crash leaves one. The middle was synced long ago.
fn spoil_files(directory: &Path) -> Vec<PathBuf> {
    let mut spoiled = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            spoiled.extend(spoil_files(&path));
            continue;
        }
        let mut bytes = std::fs::read(&path).unwrap();
        if path.extension().is_some_and(|name| name == "json") || bytes.len() < 1000 {
            continue;
        }
        let middle = bytes.len() / 2;
        bytes[middle - 50..middle + 50].iter_mut().for_each(|byte| *byte = !*byte);
        std::fs::write(&path, bytes).unwrap();
        spoiled.push(path);
    }
    spoiled
}

#[tokio::test]
async fn a_config_with_a_mistake_is_refused_with_its_name_and_place() {
    let cases = [
        (["engine", "ping_intervall"], "25s"),
        (["engine", "ping_interval"], "soon"),
        (["shiny", "new"], "yes"),
        (["raft", "durability"], "probably"),
    ];
    for ([section, key], value) in cases {
        let cluster = Cluster::builder(1).setting(&[section, key], value).prepare().unwrap();
        let config = cluster.write_config("n1");
        let (status, text) = process::run(&cluster.command("n1"), wait::PATIENCE).await.unwrap();
        assert_eq!(status.code(), Some(2), "{section}.{key}: {text}");
        assert!(text.contains(section), "{text}");
        let name = if section == "shiny" { section } else { key };
        assert!(text.contains(name), "{text}");
        let place = config.file_name().unwrap().to_str().unwrap();
        assert!(text.contains(place), "the file is named: {text}");
    }
}

#[tokio::test]
async fn a_flag_with_a_mistake_is_refused_with_its_name() {
    let cluster = Cluster::builder(1).prepare().unwrap();
    cluster.write_config("n1");
    let mut command = cluster.command("n1");
    command.extend(["--set".to_owned(), "engine.ping_intervall=25s".to_owned()]);
    let (status, text) = process::run(&command, wait::PATIENCE).await.unwrap();
    assert_eq!(status.code(), Some(2), "{text}");
    assert!(text.contains("ping_intervall"), "{text}");
}
