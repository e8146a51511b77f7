//! Every setting: its default, its check, and where it comes from.

mod args;
mod sources;
mod words;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer};
use tracing_subscriber::EnvFilter;

pub use args::{Args, Command};
pub use sources::ConfigError;

use crate::adapter::{DeliveryMode, OutboxLimits, OutboxPolicy, RecoveryConfig};
use crate::engineio::EngineConfig;
use crate::raft::config::{ClusterConfig, RaftConfig};
use crate::raft::state::KEPT_PACKET_BYTES;
use crate::scheduling::Scheduling;
use crate::server::SessionConfig;
use crate::socketio::ParserChoice;

/// The settings of a node, fixed at its start. The parts' own sections stand with the parts.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Built-in applications to serve.
    pub apps: Vec<App>,
    /// The node's log, snapshots and identity.
    pub data_dir: PathBuf,
    /// How long a stopping node may take to ask its clients away.
    #[serde(with = "humantime_serde")]
    pub drain_timeout: Duration,
    pub node: NodeConfig,
    pub listen: ListenConfig,
    pub admin: AdminConfig,
    pub cluster: ClusterConfig,
    pub raft: RaftConfig,
    pub engine: EngineConfig,
    pub socketio: SocketioConfig,
    pub session: SessionConfig,
    /// By name; a namespace that is not here has the defaults.
    pub namespaces: BTreeMap<String, NamespaceConfig>,
    pub outbox: OutboxConfig,
    pub log: LogConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            apps: Vec::new(),
            data_dir: "data".into(),
            drain_timeout: Duration::from_secs(20),
            node: NodeConfig::default(),
            listen: ListenConfig::default(),
            admin: AdminConfig::default(),
            cluster: ClusterConfig::default(),
            raft: RaftConfig::default(),
            engine: EngineConfig::default(),
            socketio: SocketioConfig::default(),
            session: SessionConfig::default(),
            namespaces: BTreeMap::new(),
            outbox: OutboxConfig::default(),
            log: LogConfig::default(),
        }
    }
}

/// A built-in application.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum App {
    /// Rooms, direct messages and sessions, for trying and measuring a cluster.
    Relay,
    /// The test server of Socket.IO's conformance suite.
    Conformance,
    /// The test server of Engine.IO's conformance suite, in place of Socket.IO.
    EngineEcho,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NodeConfig {
    /// What operators call the node, in logs and by its peers.
    #[serde(deserialize_with = "text")]
    pub name: String,
    /// Threads that serve clients, beside raft's own; all cores but one, if absent.
    pub threads: Option<NonZeroUsize>,
    /// How the system gives the node's threads their turns.
    pub scheduling: Scheduling,
}

impl NodeConfig {
    /// A thread more than there are cores for costs a wake-up for each one it saves.
    pub fn threads(&self) -> usize {
        let spare = || std::thread::available_parallelism().map_or(1, |cores| cores.get() - 1);
        self.threads.map_or_else(spare, NonZeroUsize::get).max(1)
    }
}

impl Default for NodeConfig {
    fn default() -> Self {
        Self { name: "n1".to_owned(), threads: None, scheduling: Scheduling::default() }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ListenConfig {
    /// Where clients connect; port 0 takes a free one.
    pub address: SocketAddr,
}

impl Default for ListenConfig {
    fn default() -> Self {
        Self { address: SocketAddr::from(([127, 0, 0, 1], 3001)) }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdminConfig {
    /// Where metrics and health are asked for; not for the public.
    pub address: SocketAddr,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self { address: SocketAddr::from(([127, 0, 0, 1], 4001)) }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SocketioConfig {
    /// A connection that joins no namespace for so long is closed.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// Whether a dynamic namespace ends with its last socket on the node.
    pub cleanup_empty_child_namespaces: bool,
    /// How packets are written: as text and attachments, or as MessagePack. Clients must do the same.
    pub parser: ParserChoice,
    /// Whether the client's script is served at `/socket.io/socket.io.js`.
    pub serve_client: bool,
    /// The `dist` folder of the npm package socket.io-client; without it no script is served.
    pub client_dir: Option<PathBuf>,
}

impl Default for SocketioConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(45),
            cleanup_empty_child_namespaces: false,
            parser: ParserChoice::Default,
            serve_client: true,
            client_dir: None,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NamespaceConfig {
    pub delivery: DeliveryMode,
    /// Connection state recovery; off, if absent.
    pub recovery: Option<RecoveryConfig>,
}

/// What may wait for one client before it counts as too slow, and what happens then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OutboxConfig {
    pub max_bytes: usize,
    pub max_packets: usize,
    pub policy: OutboxPolicy,
}

impl Default for OutboxConfig {
    fn default() -> Self {
        let OutboxLimits { max_bytes, max_packets, policy } = OutboxLimits::default();
        Self { max_bytes, max_packets, policy }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// As in `warn,flotilla::raft=debug`. openraft tells what only its authors follow, and
    /// at `warn` many times a second that a member is silent, which this node says once.
    pub filter: String,
    pub format: LogFormat,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { filter: "info,openraft=error".to_owned(), format: LogFormat::Text }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object a line, for machines.
    Json,
}

/// A setting that can be read, but cannot work.
struct Unusable {
    key: String,
    problem: String,
}

/// No wait that a setting asks for is longer: far beyond anyone's patience, and far from the end of
/// the clock.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

/// How long packets and sockets may be kept: stamps in milliseconds are far from overflowing.
const LONGEST_RECOVERY: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// More threads than any machine has cores.
const MAX_THREADS: usize = 1024;

fn require(holds: bool, key: &str, problem: &str) -> Result<(), Unusable> {
    if holds { Ok(()) } else { Err(Unusable { key: key.to_owned(), problem: problem.to_owned() }) }
}

fn require_wait(wait: Duration, key: &str) -> Result<(), Unusable> {
    require(!wait.is_zero(), key, "must be more than zero")?;
    require(wait <= LONGEST_WAIT, key, "must not exceed a day")
}

impl Config {
    /// The settings of this process: defaults, then the file, the environment, and flags.
    pub fn load(args: &Args) -> Result<Self, ConfigError> {
        let environment = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        Self::from_sources(args, environment)
    }

    /// Refuses settings that cannot work. Those that are [loaded](Self::load) have been checked;
    /// those that an application makes, a node checks when it starts.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.find_unusable().map_err(|Unusable { key, problem }| ConfigError::Setting {
            place: "the application".to_owned(),
            key,
            problem,
        })
    }

    fn find_unusable(&self) -> Result<(), Unusable> {
        let unusable = |key: String, problem: String| Unusable { key, problem };
        self.cluster.check().map_err(|e| unusable(e.key.to_owned(), e.problem))?;
        self.raft.check().map_err(|e| unusable(e.key.to_owned(), e.problem))?;
        self.check_lease()?;
        let engine = self.engine.check();
        engine.map_err(|e| unusable(format!("engine.{}", e.key), e.reason.to_owned()))?;
        let session = self.session.check();
        session.map_err(|e| unusable(format!("session.{}", e.key), e.reason.to_owned()))?;
        EnvFilter::try_new(&self.log.filter)
            .map_err(|e| unusable("log.filter".to_owned(), e.to_string()))?;
        for (name, namespace) in &self.namespaces {
            let key = format!("namespaces.{name}");
            require(name.starts_with('/'), &key, "a namespace's name starts with a slash")?;
            // It ends the name in a packet (Socket.IO v5, "Packet encoding").
            require(!name.contains(','), &key, "a namespace's name has no comma")?;
            self.check_recovery(&key, namespace)?;
        }
        self.check_own()
    }

    /// What must fit the lease, which stands in another section.
    fn check_lease(&self) -> Result<(), Unusable> {
        let Self { cluster, raft, .. } = self;
        require(
            raft.election_timeout_max <= cluster.lease / 2,
            "raft.election_timeout_max",
            "must be at most half of cluster.lease: nodes hold their leases while a leader is elected",
        )?;
        require(
            raft.replace_voter_after >= cluster.lease,
            "raft.replace_voter_after",
            "must be at least cluster.lease: who may still be alive is not replaced",
        )
    }

    fn check_recovery(&self, key: &str, namespace: &NamespaceConfig) -> Result<(), Unusable> {
        let Some(recovery) = &namespace.recovery else { return Ok(()) };
        let is_replicated = namespace.delivery == DeliveryMode::Replicated;
        let key = format!("{key}.recovery");
        require(is_replicated, &key, "needs delivery = \"replicated\"")?;
        require(!recovery.max_age.is_zero(), &key, "max_age must be more than zero")?;
        let is_age = recovery.max_age <= LONGEST_RECOVERY;
        require(is_age, &key, "max_age must be at most a year")?;
        let has_room = recovery.max_bytes > KEPT_PACKET_BYTES;
        require(has_room, &key, "max_bytes must be more than 320, for one packet to fit")?;
        // All that is kept may be meant for one client, and waits for it when it comes back.
        let max_packets = recovery.max_bytes / KEPT_PACKET_BYTES;
        require(
            recovery.max_bytes <= self.outbox.max_bytes as u64
                && max_packets < self.outbox.max_packets as u64,
            &key,
            "max_bytes must be at most outbox.max_bytes, and less than 320 for each of \
             outbox.max_packets",
        )
    }

    fn check_own(&self) -> Result<(), Unusable> {
        let name = &self.node.name;
        let printable = |c: char| c.is_ascii_graphic();
        require(
            (1..=64).contains(&name.len()) && name.chars().all(printable),
            "node.name",
            "must be 1 to 64 printable characters without spaces",
        )?;
        let threads = self.node.threads.map_or(1, NonZeroUsize::get);
        require(threads <= MAX_THREADS, "node.threads", "must be at most 1024")?;
        require_wait(self.drain_timeout, "drain_timeout")?;
        // Port 0 takes a free one each time.
        let is_distinct =
            self.listen.address.port() == 0 || self.listen.address != self.admin.address;
        require(is_distinct, "admin.address", "must differ from listen.address")?;
        require(!self.data_dir.as_os_str().is_empty(), "data_dir", "must not be empty")?;
        require_wait(self.socketio.connect_timeout, "socketio.connect_timeout")?;
        if let Some(dir) = &self.socketio.client_dir {
            require(dir.is_dir(), "socketio.client_dir", "is not a directory")?;
        }
        // A client must be able to get one packet of the largest size.
        let max_payload_bytes = self.engine.max_payload_bytes;
        require(
            self.outbox.max_bytes >= max_payload_bytes,
            "outbox.max_bytes",
            "must be at least engine.max_payload_bytes",
        )?;
        require(self.outbox.max_packets >= 16, "outbox.max_packets", "must be at least 16")
    }
}

/// Text, or a number that is meant as text: `FLOTILLA_NODE__NAME=1` looks like one.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "must be a text")]
    enum Text {
        Text(String),
        Number(i64),
    }
    Ok(match Text::deserialize(deserializer)? {
        Text::Text(text) => text,
        Text::Number(number) => number.to_string(),
    })
}

#[cfg(test)]
mod values_tests;
