//! What an operator sees of the settings: exit codes and messages of the binary itself.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::process::{Command, Output};
use std::sync::Arc;

use flotilla::config::Config;
use flotilla::node::Node;

/// Runs the binary with nothing of this process's environment.
fn flotilla(args: &[&str], variables: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_flotilla"))
        .args(args)
        .env_clear()
        .envs(variables.iter().copied())
        .output()
        .unwrap()
}

fn refusal(args: &[&str], variables: &[(&str, &str)]) -> String {
    let output = flotilla(args, variables);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn wrong_setting_ends_the_start_with_its_name_and_place() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("node.toml");
    fs::write(&file, "[engine]\nping_intervall = '1s'\n").unwrap();
    let file = file.to_str().unwrap();
    let message = refusal(&["--config", file], &[]);
    let start = format!("flotilla: {file}:2: engine.ping_intervall: unknown key");
    assert!(message.starts_with(&start), "{message}");

    let message = refusal(&[], &[("FLOTILLA_RAFT__DURABILITY", "maybe")]);
    assert!(message.contains("FLOTILLA_RAFT__DURABILITY: raft.durability: "), "{message}");
    let message = refusal(&["--listen", "nowhere"], &[]);
    assert!(message.contains("flag --listen: listen.address: "), "{message}");
    let message = refusal(&["--config", "/nowhere/node.toml"], &[]);
    assert!(message.contains("/nowhere/node.toml: cannot be read: "), "{message}");
    refusal(&["--no-such-flag"], &[]);
}

#[test]
fn sample_files_are_right() {
    for file in ["node.toml", "local.toml", "single.toml"] {
        let path = format!("{}/../deploy/{file}", env!("CARGO_MANIFEST_DIR"));
        // What `make run` installs may not be there.
        let client_dir = "socketio.client_dir=.";
        let arguments = ["--check-config", "--config", &path, "--set", client_dir];
        let output = flotilla(&arguments, &[]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }
}

#[test]
fn secret_is_not_shown() {
    let flag = ["--check-config", "--set", "session.secrets=[{hunter7274=1}]"];
    let variable = [("FLOTILLA_SESSION__SECRETS", "[7274]")];
    for message in [refusal(&flag, &[]), refusal(&flag[..1], &variable)] {
        assert!(message.contains("session.secrets"), "{message}");
        assert!(!message.contains("7274"), "{message}");
    }
}

#[test]
fn settings_can_be_checked_without_a_start() {
    let output = flotilla(&["--check-config", "--set", "engine.ping_interval=1s"], &[]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[tokio::test]
async fn settings_that_an_application_makes_are_checked_as_well() {
    let mut config = Config::default();
    config.engine.cors_origins = vec!["/(/".to_owned()];
    let config = Arc::new(config);
    for started in [Node::start(config.clone()).await, Node::embed(config, |_io| {}).await] {
        let message = started.err().unwrap().to_string();
        let start = "the application: engine.cors_origins: has an invalid regular expression";
        assert_eq!(message, start);
    }
}
