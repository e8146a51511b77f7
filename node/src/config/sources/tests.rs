//! Each source, their order, and what is said when one is wrong.

use std::path::Path;
use std::time::Duration;

use clap::Parser;

use super::super::{App, DeliveryMode, LogFormat, OutboxPolicy, ParserChoice};
use super::*;
use crate::raft::config::Durability;

/// Reads settings from a file's text, variables and flags.
fn load(text: &str, variables: &[(&str, &str)], flags: &[&str]) -> Result<Config, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.toml");
    fs::write(&path, text).unwrap();
    let args = ["flotilla", "--config", path.to_str().unwrap()];
    let args = Args::try_parse_from(args.iter().chain(flags)).unwrap();
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Config::from_sources(&args, variables.iter().map(owned))
}

/// Where an error was, without the directory, and its text.
fn refused(text: &str, variables: &[(&str, &str)], flags: &[&str]) -> String {
    let error = load(text, variables, flags).unwrap_err().to_string();
    let Some((path, rest)) = error.split_once("node.toml") else { return error };
    assert!(Path::new(path).is_absolute(), "{error}");
    format!("node.toml{rest}")
}

#[test]
fn nothing_set_gives_defaults() {
    let config = Config::from_sources(&Args::default(), []).unwrap();
    assert_eq!(config, Config::default());
}

#[test]
fn every_key_of_the_contract_is_read() {
    let config = load(
        r#"
        apps = ["relay"]
        data_dir = "d"
        drain_timeout = "3s"
        [node]
        name = "n7"
        [listen]
        address = "0.0.0.0:1"
        [admin]
        address = "127.0.0.1:2"
        [cluster]
        address = "127.0.0.1:3"
        advertise = "n7:3"
        seeds = ["n7:3", "n8:3"]
        bootstrap_expect = 3
        lease = "4s"
        [raft]
        durability = "os"
        [engine]
        path = "/ws"
        ping_interval = "1s"
        ping_timeout = "2s"
        upgrade_timeout = "3s"
        max_payload_bytes = 2000
        transports = ["websocket"]
        allow_upgrades = false
        cors_origins = "*"
        [socketio]
        connect_timeout = "5s"
        parser = "msgpack"
        serve_client = false
        client_dir = "/"
        [namespaces."/"]
        delivery = "direct"
        [outbox]
        max_bytes = 4096
        max_packets = 100
        policy = "drop_volatile"
        [log]
        filter = "debug"
        format = "json"
        "#,
        &[],
        &[],
    )
    .unwrap();
    assert_eq!((config.apps, config.node.name.as_str()), (vec![App::Relay], "n7"));
    assert_eq!(config.drain_timeout, Duration::from_secs(3));
    assert_eq!(config.listen.address.port() + config.admin.address.port(), 3);
    assert_eq!(config.cluster.seeds, ["n7:3", "n8:3"]);
    assert_eq!(config.cluster.lease, Duration::from_secs(4));
    assert_eq!(config.raft.durability, Durability::Os);
    assert_eq!(config.engine.cors_origins, ["*"]);
    assert_eq!(config.namespaces["/"].delivery, DeliveryMode::Direct);
    assert_eq!(config.socketio.parser, ParserChoice::Msgpack);
    assert_eq!(config.outbox.max_packets, 100);
    assert_eq!(config.outbox.policy, OutboxPolicy::DropVolatile);
    assert_eq!(config.log.format, LogFormat::Json);
}

#[test]
fn later_source_weighs_more() {
    let file = "[engine]\nping_interval = '1s'\nping_timeout = '1s'\nupgrade_timeout = '1s'\n";
    let variables =
        [("FLOTILLA_ENGINE__PING_TIMEOUT", "2s"), ("FLOTILLA_ENGINE__UPGRADE_TIMEOUT", "2s")];
    let flags = ["--set", "engine.upgrade_timeout=3s"];
    let engine = load(file, &variables, &flags).unwrap().engine;
    let seconds =
        [engine.ping_interval, engine.ping_timeout, engine.upgrade_timeout].map(|d| d.as_secs());
    assert_eq!(seconds, [1, 2, 3]);
}

#[test]
fn environment_gives_lists_numbers_and_names_that_look_like_numbers() {
    let variables = [
        ("FLOTILLA_CLUSTER__SEEDS", "a:1, b:2"),
        ("FLOTILLA_CLUSTER__BOOTSTRAP_EXPECT", "3"),
        ("FLOTILLA_APPS", "relay"),
        ("FLOTILLA_NODE__NAME", "7"),
        ("FLOTILLA_ENGINE__ALLOW_UPGRADES", "false"),
        ("FLOTILLA_ENGINE__TRANSPORTS", "[\"polling\"]"),
        ("FLOTILLA_NAMESPACES__/__DELIVERY", "direct"),
    ];
    let config = load("", &variables, &[]).unwrap();
    assert_eq!(config.cluster.seeds, ["a:1", "b:2"]);
    assert_eq!(config.cluster.bootstrap_expect, 3);
    assert_eq!((config.apps, config.node.name.as_str()), (vec![App::Relay], "7"));
    assert!(!config.engine.allow_upgrades);
    assert_eq!(config.engine.transports.len(), 1);
    assert_eq!(config.namespaces["/"].delivery, DeliveryMode::Direct);
}

#[test]
fn every_named_flag_sets_its_key() {
    let flags = [
        "--name",
        "n2",
        "--listen",
        "127.0.0.1:1",
        "--admin",
        "127.0.0.1:2",
        "--cluster-address",
        "127.0.0.1:3",
        "--seeds",
        "a:1,b:2",
        "--bootstrap-expect",
        "2",
        "--data-dir",
        "d",
        "--apps",
        "relay",
        "--durability",
        "memory",
        "--log",
        "warn,flotilla=debug",
        "--set",
        "namespaces./chat.delivery=direct",
    ];
    let config = load("", &[], &flags).unwrap();
    assert_eq!((config.node.name.as_str(), config.listen.address.port()), ("n2", 1));
    assert_eq!((config.admin.address.port(), &*config.cluster.address), (2, "127.0.0.1:3"));
    assert_eq!((config.cluster.seeds.len(), config.cluster.bootstrap_expect), (2, 2));
    assert_eq!((config.data_dir.to_str(), config.apps.len()), (Some("d"), 1));
    assert_eq!(config.raft.durability, Durability::Memory);
    assert_eq!(config.log.filter, "warn,flotilla=debug");
    assert_eq!(config.namespaces["/chat"].delivery, DeliveryMode::Direct);
}

#[test]
fn variables_of_others_are_passed_over() {
    let variables = [("FLOTILLA_PORT", "tcp://10.0.0.1:80"), ("FLOTILLA_NODES", "x"), ("A", "b")];
    assert_eq!(load("", &variables, &[]).unwrap(), Config::default());
}

#[test]
fn unknown_key_is_refused_with_its_name_and_place() {
    let error = refused("[engine]\npath = '/a'\nping_intervall = '1s'\n", &[], &[]);
    assert!(error.starts_with("node.toml:3: engine.ping_intervall: unknown key"), "{error}");
    assert!(error.contains("ping_interval,"), "{error}");

    let error = refused("[engin]\npath = '/a'\n", &[], &[]);
    assert!(error.starts_with("node.toml:1: engin: unknown key"), "{error}");
    let error = refused("\ndatadir = 'x'\n", &[], &[]);
    assert!(error.starts_with("node.toml:2: datadir: unknown key"), "{error}");
    let error = refused("[namespaces.'/']\ndelivry = 'direct'\n", &[], &[]);
    assert!(error.starts_with("node.toml:2: namespaces./.delivry: unknown key"), "{error}");

    let error = refused("[engine]\npath = '/a'\n", &[("FLOTILLA_ENGINE__PNIG", "1")], &[]);
    let place = "environment variable FLOTILLA_ENGINE__PNIG: engine.pnig: unknown key";
    assert!(error.starts_with(place), "{error}");
    let error = refused("", &[("FLOTILLA_ENGIN__PATH", "1")], &[]);
    assert!(error.starts_with("environment variable FLOTILLA_ENGIN__PATH: engin: "), "{error}");

    let error = refused("", &[], &["--set", "raft.durabilty=os"]);
    assert!(error.starts_with("flag --set raft.durabilty=os: raft.durabilty: unknown"), "{error}");
}

#[test]
fn bad_value_is_refused_with_its_key_and_place() {
    let error = refused("[engine]\nping_interval = '25 parsecs'\n", &[], &[]);
    assert!(error.starts_with("node.toml:2: engine.ping_interval: "), "{error}");
    let error = refused("[cluster]\nbootstrap_expect = 'three'\n", &[], &[]);
    assert!(error.starts_with("node.toml:2: cluster.bootstrap_expect: "), "{error}");
    let error = refused("", &[("FLOTILLA_RAFT__DURABILITY", "maybe")], &[]);
    let place = "environment variable FLOTILLA_RAFT__DURABILITY: raft.durability: ";
    assert!(error.starts_with(place), "{error}");
    let error = refused("[raft]\ndurability = 'os'", &[], &["--durability", "maybe"]);
    assert!(error.starts_with("flag --durability: raft.durability: "), "{error}");
    let error = refused("[socketio]\nparser = 'custom'", &[], &[]);
    assert!(error.contains("socketio.parser") && error.contains("custom"), "{error}");
    let environment = [("FLOTILLA_APPS", "chess")];
    let error = refused("apps = ['relay']", &environment, &[]);
    assert!(error.starts_with("environment variable FLOTILLA_APPS: apps"), "{error}");
    let error = refused("apps = ['chess']", &[], &[]);
    assert!(error.starts_with("node.toml:1: apps"), "{error}");
    let error = refused("", &[], &["--listen", "3001"]);
    assert!(error.starts_with("flag --listen: listen.address: "), "{error}");
}

#[test]
fn value_that_cannot_work_is_refused_with_its_key_and_place() {
    let error = refused("[engine]\nping_interval = '0s'\n", &[], &[]);
    assert_eq!(error, "node.toml:2: engine.ping_interval: must be more than zero");
    let error = refused("", &[("FLOTILLA_CLUSTER__LEASE", "1ms")], &[]);
    assert!(error.starts_with("environment variable FLOTILLA_CLUSTER__LEASE: cluster.lease: "));
    let error = refused("", &[], &["--name", "two words"]);
    assert!(error.starts_with("flag --name: node.name: must be"), "{error}");
    let error = refused("[socketio]\nclient_dir = '/nowhere'", &[], &[]);
    assert_eq!(error, "node.toml:2: socketio.client_dir: is not a directory");
    let error = refused("[log]\nfilter = 'flotilla=loud'", &[], &[]);
    assert!(error.starts_with("node.toml:2: log.filter: "), "{error}");
    let error = refused("[namespaces.chat]\ndelivery = 'direct'", &[], &[]);
    assert!(error.starts_with("node.toml:1: namespaces.chat: "), "{error}");
    let error = refused("", &[], &["--bootstrap-expect", "3"]);
    assert!(error.contains("cluster.seeds: "), "{error}");
    let error = refused("[outbox]\nmax_bytes = 10", &[], &[]);
    assert!(error.starts_with("node.toml:2: outbox.max_bytes: "), "{error}");
}

#[test]
fn file_that_is_no_toml_is_refused_with_the_line() {
    let error = refused("[engine]\npath = \n", &[], &[]);
    assert!(error.starts_with("node.toml: "), "{error}");
    assert!(error.contains("line 2"), "{error}");
    let args = Args { config: Some("/nowhere/node.toml".into()), ..Args::default() };
    let error = Config::from_sources(&args, []).unwrap_err();
    assert_eq!(error.to_string(), "/nowhere/node.toml: cannot be read");
}

#[test]
fn set_without_value_is_refused() {
    let error = refused("", &[], &["--set", "engine.path"]);
    assert_eq!(error, "--set engine.path: must be SECTION.KEY=VALUE");
}

#[test]
fn help_names_every_section() {
    use clap::CommandFactory;
    let help = Args::command().render_help().to_string();
    for word in ["--bootstrap-expect", "[namespaces.\"/\"]", "FLOTILLA_", "inspect", "Examples:"] {
        assert!(help.contains(word), "{word} is not in\n{help}");
    }
    // What the settings call their sections themselves.
    let error = load("[none]", &[], &[]).unwrap_err().to_string();
    let (_, sections) = error.split_once("there are ").unwrap();
    let sections = sections.split(", ").filter(|key| !TOP_LEVEL.contains(key));
    for section in sections {
        assert!(help.contains(&format!("[{section}")), "[{section}] is not in\n{help}");
    }
}
