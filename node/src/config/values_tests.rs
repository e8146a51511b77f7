//! Every key with values that it cannot have: each is refused with the key, its place, and a reason
//! that an operator understands.

use std::fs;

use super::sources::ConfigError;
use super::{Args, Config};

/// Settings from the text of a file.
fn load(text: &str) -> Result<Config, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.toml");
    fs::write(&path, text).unwrap();
    let args = Args { config: Some(path.clone()), ..Args::default() };
    let said = |error: ConfigError| error.to_string().replace(&*path.to_string_lossy(), "file");
    Config::from_sources(&args, []).map_err(said)
}

/// What is said of one key's value.
fn refused(key: &str, value: &str) -> String {
    match load(&format!("{key} = {value}\n")) {
        Err(error) => error,
        Ok(_) => panic!("{key} = {value} is accepted"),
    }
}

/// Keys by what their values are.
const SWITCHES: &[&str] = &[
    "engine.add_trailing_slash",
    "engine.allow_eio3",
    "engine.allow_upgrades",
    "engine.cookie.http_only",
    "engine.cookie.partitioned",
    "engine.cookie.secure",
    "engine.cors.credentials",
    "engine.cors.preflight_continue",
    "namespaces.\"/\".recovery.skip_middlewares",
    "session.cookie.http_only",
    "session.cookie.secure",
    "session.require_signed",
    "session.required",
    "socketio.cleanup_empty_child_namespaces",
    "socketio.serve_client",
];
const DURATIONS: &[&str] = &[
    "cluster.lease",
    "drain_timeout",
    "engine.cookie.max_age",
    "engine.cors.max_age",
    "engine.ping_interval",
    "engine.ping_timeout",
    "engine.upgrade_timeout",
    "namespaces.\"/\".recovery.max_age",
    "raft.election_timeout_max",
    "raft.election_timeout_min",
    "raft.gather_interval",
    "raft.heartbeat_interval",
    "raft.propose_timeout",
    "raft.replace_voter_after",
    "session.cookie.max_age",
    "session.max_age",
    "socketio.connect_timeout",
];
const NUMBERS: &[&str] = &[
    "cluster.bootstrap_expect",
    "engine.cors.options_success_status",
    "engine.http_compression.level",
    "engine.http_compression.threshold_bytes",
    "engine.max_payload_bytes",
    "namespaces.\"/\".recovery.max_bytes",
    "node.threads",
    "outbox.max_bytes",
    "outbox.max_packets",
    "raft.max_queued_bytes",
    "raft.max_queued_changes",
    "raft.snapshot_interval",
    "raft.threads",
    "session.max_bytes",
];
/// One of a few words.
const WORDS: &[&str] = &[
    "engine.cookie.priority",
    "engine.cookie.same_site",
    "log.format",
    "namespaces.\"/\".delivery",
    "node.scheduling",
    "outbox.policy",
    "raft.durability",
    "session.cookie.same_site",
    "socketio.parser",
];
const ADDRESSES: &[&str] =
    &["admin.address", "cluster.address", "cluster.advertise", "listen.address"];
const TEXTS: &[&str] = &[
    "data_dir",
    "engine.cookie.domain",
    "engine.cookie.name",
    "engine.cookie.path",
    "engine.path",
    "log.filter",
    "session.auth_field",
    "session.cookie.domain",
    "session.cookie.name",
    "session.cookie.path",
    "session.query_parameter",
    "socketio.client_dir",
];
const LISTS: &[&str] = &[
    "apps",
    "cluster.seeds",
    "engine.cors.allowed_headers",
    "engine.cors.exposed_headers",
    "engine.cors.methods",
    "engine.transports",
    "session.index",
    "session.secrets",
    "session.sources",
];
const SECTIONS: &[&str] = &[
    "admin",
    "cluster",
    "engine",
    "engine.cookie",
    "engine.cors",
    "engine.http_compression",
    "listen",
    "log",
    "namespaces",
    "node",
    "outbox",
    "raft",
    "session",
    "session.cookie",
    "socketio",
];

/// What only someone who reads Rust understands.
const RUST: &[&str] = &[
    "usize",
    "u16",
    "u32",
    "u64",
    "i64",
    "i128",
    "nonzero",
    "NonZero",
    "struct ",
    "enum ",
    "Config",
    "untagged",
    "variant",
    "newtype",
    "invalid type",
    "invalid value",
    "sequence",
    "a map",
    "a string",
    "Option",
];

#[test]
fn value_of_another_type_is_refused_in_words_for_operators() {
    let of = |keys: &[&'static str], values: &'static [&str]| {
        let pairs = keys.iter().flat_map(|key| values.iter().map(|value| (*key, *value)));
        pairs.collect::<Vec<_>>()
    };
    let number = &["-1", "1.5", "true", "\"\"", "\"many\"", "[]", "{}", "'9999999999999999999999'"];
    let cases = [
        of(SWITCHES, &["0", "-1", "1.5", "\"\"", "\"yes\"", "[]", "{}"]),
        of(DURATIONS, &["0", "5", "-1", "1.5", "true", "\"\"", "\"5\"", "\"-5s\"", "[]", "{}"]),
        of(NUMBERS, number),
        of(WORDS, &["0", "-1", "1.5", "true", "\"\"", "\"maybe\"", "[]", "{}"]),
        of(ADDRESSES, &["3001", "-1", "true", "\"\"", "\"3001\"", "\"a b:1\"", "[]", "{}"]),
        of(TEXTS, &["0", "-1", "1.5", "true", "[]", "{}"]),
        of(LISTS, &["0", "-1", "1.5", "true", "\"\"", "{}", "[[]]", "[true]", "[{}]"]),
        of(SECTIONS, &["0", "-1", "1.5", "\"\"", "\"on\""]),
        of(&["node.name"], &["1.5", "true", "\"\"", "\"two words\"", "[]", "{}"]),
        of(&["engine.trust_proxy"], &["0", "\"\"", "\"balancer\"", "[1]", "{}"]),
        of(&["engine.cors_origins"], &["0", "true", "[1]", "{}"]),
        of(&["engine.cors.origin"], &["0", "{}", "[1]"]),
    ];
    for (key, value) in cases.concat() {
        let error = refused(key, value);
        let plain = key.replace('"', "");
        assert!(error.starts_with(&format!("file:1: {plain}")), "{key} = {value}: {error}");
        for word in RUST {
            let reason = error.trim_start_matches(&format!("file:1: {plain}"));
            assert!(!reason.contains(word), "{key} = {value}: {error}");
        }
    }
}

/// The first column of the table of settings.
#[test]
fn every_key_of_the_documentation_is_tried() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operating.md");
    let text = fs::read_to_string(path).unwrap();
    let rows = text.lines().skip_while(|line| !line.starts_with("| Key | Default | Flag"));
    let rows = rows.skip(2).take_while(|line| line.starts_with('|'));
    let keys: Vec<String> = rows
        .flat_map(|row| row.split('|').nth(1).unwrap().split('`').skip(1).step_by(2))
        .map(|key| key.replace("<name>", "/"))
        .collect();
    assert!(keys.len() > 50, "{keys:?}");
    let others = ["engine.cors_origins", "engine.trust_proxy", "node.name"].as_slice();
    let tried = [SWITCHES, DURATIONS, NUMBERS, WORDS, ADDRESSES, TEXTS, LISTS, SECTIONS, others];
    let tried = tried.concat();
    for key in &keys {
        let is_tried = |tried: &&str| tried == key || tried.starts_with(&format!("{key}."));
        assert!(tried.iter().any(is_tried), "{key} is not tried");
    }
}

#[test]
fn what_is_expected_is_said() {
    let cases = [
        ("node.threads", "-1", "-1 is not a whole number, 1 or more"),
        ("raft.threads", "\"two\"", "\"two\" is not a whole number, 0 or more"),
        ("engine.allow_eio3", "1", "1 is not true or false"),
        ("drain_timeout", "20", "20 is not a duration with its unit, such as 300ms, 25s or 2m"),
        ("listen.address", "3001", "3001 is not an address with a port, such as 127.0.0.1:3001"),
        ("listen.address", "\"x\"", "must be an address with a port, such as 127.0.0.1:3001"),
        ("apps", "[\"chess\"]", "\"chess\" is none of relay, conformance, engine-echo"),
        ("engine.cookie", "7", "7 is not true, false or a table"),
        ("raft", "\"on\"", "\"on\" is not a table of settings"),
        ("node.name", "true", "must be a text"),
    ];
    for (key, value, reason) in cases {
        let error = refused(key, value);
        assert!(error.ends_with(&format!(": {reason}")), "{error}");
    }
}

/// Values of the right type that cannot work: key, value, and a part of the reason.
const UNUSABLE: &[(&str, &str, &str)] = &[
    ("data_dir", "\"\"", "must not be empty"),
    ("drain_timeout", "\"0s\"", "more than zero"),
    ("drain_timeout", "\"9999999years\"", "must not exceed a day"),
    ("node.threads", "0", "1 or more"),
    ("node.threads", "100000", "at most 1024"),
    ("admin.address", "\"127.0.0.1:3001\"", "must differ from listen.address"),
    ("cluster.address", "\"http://10.0.0.1:5001\"", "host:port"),
    ("cluster.address", "\"::1:5001\"", "host:port"),
    ("cluster.address", "\"10.0.0.1:99999\"", "host:port"),
    ("cluster.advertise", "\"n1:0\"", "connect to"),
    ("cluster.seeds", "[\"n1\"]", "\"n1\" is not host:port"),
    ("cluster.seeds", "[\"\"]", "host:port"),
    ("cluster.bootstrap_expect", "0", "from 1 to 64"),
    ("cluster.bootstrap_expect", "100000", "from 1 to 64"),
    ("cluster.lease", "\"0s\"", "from 1s to 1h"),
    ("cluster.lease", "\"9999999years\"", "from 1s to 1h"),
    ("raft.threads", "100000", "at most 1024"),
    ("raft.heartbeat_interval", "\"0s\"", "at least 1ms"),
    ("raft.heartbeat_interval", "\"1us\"", "at least 1ms"),
    ("raft.heartbeat_interval", "\"1day\"", "half of election_timeout_min"),
    ("raft.election_timeout_min", "\"0s\"", "half of election_timeout_min"),
    ("raft.election_timeout_min", "\"1h\"", "more than election_timeout_min"),
    ("raft.election_timeout_max", "\"0s\"", "more than election_timeout_min"),
    ("raft.election_timeout_max", "\"2s\"", "half of cluster.lease"),
    ("raft.election_timeout_max", "\"9999999years\"", "half of cluster.lease"),
    ("raft.gather_interval", "\"1s\"", "at most heartbeat_interval"),
    ("raft.propose_timeout", "\"0s\"", "from 100ms to 1h"),
    ("raft.propose_timeout", "\"9999999years\"", "from 100ms to 1h"),
    ("raft.max_queued_changes", "0", "at least 1"),
    ("raft.max_queued_bytes", "0", "at least 1048576"),
    ("raft.snapshot_interval", "0", "from 100"),
    ("raft.snapshot_interval", "9223372036854775807", "from 100"),
    ("raft.replace_voter_after", "\"0s\"", "at least cluster.lease"),
    ("raft.replace_voter_after", "\"9999999years\"", "at most 30 days"),
    ("engine.path", "\"\"", "start with a slash"),
    ("engine.path", "\"/a b\"", "as it stands in a URL"),
    ("engine.ping_interval", "\"0s\"", "more than zero"),
    ("engine.ping_timeout", "\"2days\"", "a day"),
    ("engine.upgrade_timeout", "\"0s\"", "more than zero"),
    ("engine.max_payload_bytes", "0", "from 1024"),
    ("engine.max_payload_bytes", "9223372036854775807", "from 1024"),
    ("engine.transports", "[]", "at least one"),
    ("engine.cors_origins", "[\"foo\"]", "https://example.com"),
    ("engine.cors_origins", "[\"/(/\"]", "invalid regular expression"),
    ("engine.cors.origin", "\"foo\"", "https://example.com"),
    ("engine.cors.methods", "[\"\"]", "list of names"),
    ("engine.cookie.name", "\"\"", "token"),
    ("engine.cookie.path", "\"a\"", "start with a slash"),
    ("engine.cookie.max_age", "\"0s\"", "at least a second"),
    ("engine.http_compression.level", "0", "from 1 to 9"),
    ("engine.trust_proxy", "[\"10.0.0.0/99\"]", "no address and no network"),
    ("socketio.connect_timeout", "\"0s\"", "more than zero"),
    ("socketio.connect_timeout", "\"9999999years\"", "a day"),
    ("socketio.client_dir", "\"\"", "not a directory"),
    ("session.max_age", "\"0s\"", "from a second to a year"),
    ("session.max_bytes", "0", "from 64 bytes"),
    ("session.auth_field", "\"\"", "must not be empty"),
    ("session.query_parameter", "\"sid\"", "parameter of Engine.IO"),
    ("session.index", "[\"\"]", "names of keys"),
    ("session.secrets", "[\"\"]", "must not be empty"),
    ("session.cookie.max_age", "\"0s\"", "at least a second"),
    ("namespaces.chat.delivery", "\"direct\"", "starts with a slash"),
    ("namespaces.\"/a,b\".delivery", "\"direct\"", "no comma"),
    ("namespaces.\"/\".recovery.max_age", "\"0s\"", "more than zero"),
    ("namespaces.\"/\".recovery.max_age", "\"9999999years\"", "at most a year"),
    ("namespaces.\"/\".recovery.max_bytes", "0", "more than 320"),
    ("outbox.max_bytes", "0", "at least engine.max_payload_bytes"),
    ("outbox.max_packets", "0", "at least 16"),
    ("log.filter", "\"flotilla=loud\"", "expected one of"),
];

#[test]
fn value_that_cannot_work_is_refused_with_its_reason() {
    for (key, value, reason) in UNUSABLE {
        let error = refused(key, value);
        assert!(error.contains(reason), "{key} = {value}: {error}");
        // Where two keys do not fit each other, it is one of them that is named.
        let part = key.split('.').next().unwrap();
        assert!(error.contains(&format!(": {part}")), "{key} = {value}: {error}");
    }
}

#[test]
fn secrets_are_never_said() {
    let files = [
        "session.secrets = ['ok', 7274]",
        "session.secrets = 'hunter7274'",
        "session.secrets = { a = 'hunter7274' }",
        "session.secrets = [{ a = 'hunter7274' }]",
        "session = 'hunter7274'",
        "session = ['hunter7274']",
        "session = [['cookie'], {}, [7274]]",
        "[session]\nsecrets = ['hunter7274\n",
        "[session]\nsecrets = [hunter7274]\n",
        "[session]\nsecrets = ['hunter7274' 'b']\n",
        "[session]\nsecrets = ['hunter7274']\nsecrets = []\n",
        "[session]\nsecrets = ['hunter7274']\nmax_age = 7\n",
    ];
    for text in files {
        let error = load(text).unwrap_err();
        assert!(!error.contains("7274"), "{text}: {error}");
    }
    let flags = [
        "session.secrets=hunter7274,",
        "session.secrets={a=hunter7274}",
        "session.secrets=[7274]",
        "session.secrets=[[hunter7274]]",
        "session={secrets=[7274]}",
        "session.secrets hunter7274",
        "session.secrets:hunter7274",
    ];
    for flag in flags {
        let args = Args { set: vec![flag.to_owned()], ..Args::default() };
        assert!(!format!("{args:?}").contains("7274"), "{args:?}");
        let broken = ("FLOTILLA_SESSION__MAX_AGE".to_owned(), "0s".to_owned());
        let error = Config::from_sources(&args, [broken]).unwrap_err();
        assert!(!error.to_string().contains("7274"), "{flag}: {error}");
        assert!(!format!("{error:?}").contains("7274"), "{flag}: {error:?}");
    }
    let variable = ("FLOTILLA_SESSION__SECRETS".to_owned(), "[7274]".to_owned());
    let error = Config::from_sources(&Args::default(), [variable]).unwrap_err().to_string();
    assert_eq!(
        error,
        "environment variable FLOTILLA_SESSION__SECRETS: session.secrets.0: this is not a text"
    );
    let config = load("session.secrets = ['hunter7274']").unwrap();
    assert!(!format!("{config:?}").contains("7274"));
}
