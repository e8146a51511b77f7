//! The settings of consensus and of the cluster: defaults and checks.

use std::time::Duration;

use serde::Deserialize;

/// How this node finds its cluster: the section `[cluster]`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClusterConfig {
    /// Where the gRPC services listen.
    pub address: String,
    /// What other nodes are told to connect to; the bound address if absent.
    pub advertise: Option<String>,
    /// gRPC addresses of nodes to ask for the cluster; the node's own may be among them.
    pub seeds: Vec<String>,
    /// A new cluster forms once this many nodes with empty disks see each other.
    pub bootstrap_expect: usize,
    /// A node that the leader has not heard of for so long is declared dead.
    #[serde(with = "humantime_serde")]
    pub lease: Duration,
}

impl Default for ClusterConfig {
    fn default() -> Self {
        Self {
            address: "127.0.0.1:0".to_owned(),
            advertise: None,
            seeds: Vec::new(),
            bootstrap_expect: 1,
            lease: Duration::from_secs(3),
        }
    }
}

/// How consensus runs: the section `[raft]`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RaftConfig {
    pub durability: Durability,
    /// Threads of raft's own runtime. Zero: it shares the threads that serve clients. By default
    /// it shares them where the node forms a cluster by itself, and has one thread otherwise.
    pub threads: Option<usize>,
    #[serde(with = "humantime_serde")]
    pub heartbeat_interval: Duration,
    /// A follower that hears nothing for a random time between these two stands for election.
    #[serde(with = "humantime_serde")]
    pub election_timeout_min: Duration,
    #[serde(with = "humantime_serde")]
    pub election_timeout_max: Duration,
    /// Where proposals come often, the leader begins a round of replication so long after the last
    /// one: what comes between shares it. Zero: at once, as after a round of many changes.
    #[serde(with = "humantime_serde")]
    pub gather_interval: Duration,
    /// After so long a change that was not sent is refused, and one that was is reported unknown.
    #[serde(with = "humantime_serde")]
    pub propose_timeout: Duration,
    /// Changes that may wait to be proposed; more are refused.
    pub max_queued_changes: usize,
    pub max_queued_bytes: usize,
    /// Log entries between two snapshots.
    pub snapshot_interval: u64,
    /// A voter that was silent for so long is replaced, if another node can take its place.
    #[serde(with = "humantime_serde")]
    pub replace_voter_after: Duration,
}

/// When a log entry counts as stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// Synced to disk; syncs are shared by the entries that wait.
    #[default]
    Fsync,
    /// Handed to the operating system: survives the process, not the machine.
    Os,
    /// Nowhere but in memory: a node that restarts is a new one.
    Memory,
}

impl Default for RaftConfig {
    fn default() -> Self {
        Self {
            durability: Durability::default(),
            threads: None,
            heartbeat_interval: Duration::from_millis(80),
            election_timeout_min: Duration::from_millis(250),
            election_timeout_max: Duration::from_millis(500),
            gather_interval: Duration::from_millis(1),
            propose_timeout: Duration::from_secs(5),
            max_queued_changes: 200_000,
            max_queued_bytes: 64 << 20,
            snapshot_interval: 10_000,
            replace_voter_after: Duration::from_secs(30),
        }
    }
}

/// A setting whose value cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct InvalidSetting {
    pub key: &'static str,
    pub problem: String,
}

fn require(
    holds: bool,
    key: &'static str,
    problem: impl Into<String>,
) -> Result<(), InvalidSetting> {
    if holds { Ok(()) } else { Err(InvalidSetting { key, problem: problem.into() }) }
}

const HOUR: Duration = Duration::from_secs(60 * 60);

/// A multiple of it must not overflow.
const LONGEST_SILENCE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// More nodes than need to see each other before there is a cluster to join.
const MAX_BOOTSTRAP: usize = 64;

const MAX_THREADS: usize = 1024;

/// More entries than fit on a disk beside each other.
const MAX_SNAPSHOT_INTERVAL: u64 = 1_000_000_000;

impl ClusterConfig {
    /// Whether the node at `address` knows of no other, and forms its cluster by itself.
    pub fn is_alone(&self, address: &str) -> bool {
        self.bootstrap_expect == 1 && self.seeds.iter().all(|seed| seed == address)
    }

    pub fn check(&self) -> Result<(), InvalidSetting> {
        let host_port = "must be host:port, such as 10.0.0.1:5001";
        require(is_host_port(&self.address), "cluster.address", host_port)?;
        if let Some(advertise) = &self.advertise {
            require(is_host_port(advertise), "cluster.advertise", host_port)?;
            let problem = "is no address that other nodes can connect to";
            let is_reachable = !is_unspecified(advertise) && !advertise.ends_with(":0");
            require(is_reachable, "cluster.advertise", problem)?;
        } else {
            let problem = "is no address that other nodes can connect to: set cluster.advertise";
            require(!is_unspecified(&self.address), "cluster.address", problem)?;
        }
        for seed in &self.seeds {
            let problem = format!("{seed:?} is not host:port, such as 10.0.0.1:5001");
            require(is_host_port(seed), "cluster.seeds", problem)?;
        }
        let is_count = (1..=MAX_BOOTSTRAP).contains(&self.bootstrap_expect);
        require(is_count, "cluster.bootstrap_expect", "must be from 1 to 64")?;
        require(
            self.bootstrap_expect == 1 || !self.seeds.is_empty(),
            "cluster.seeds",
            "must name the nodes to form a cluster with",
        )?;
        let is_lease = (Duration::from_secs(1)..=HOUR).contains(&self.lease);
        require(is_lease, "cluster.lease", "must be from 1s to 1h")
    }
}

impl RaftConfig {
    /// Threads of raft's own runtime, at a node that others know by `address`; zero where it shares
    /// the caller's.
    pub fn own_threads(&self, cluster: &ClusterConfig, address: &str) -> usize {
        // Without others there are no heartbeats that a busy thread could delay, and to go from
        // thread to thread costs as much as the agreement itself.
        self.threads.unwrap_or_else(|| usize::from(!cluster.is_alone(address)))
    }

    pub fn check(&self) -> Result<(), InvalidSetting> {
        require(
            self.heartbeat_interval * 2 <= self.election_timeout_min,
            "raft.heartbeat_interval",
            "must be at most half of election_timeout_min",
        )?;
        // openraft counts in whole milliseconds.
        require(
            self.heartbeat_interval.as_millis() >= 1,
            "raft.heartbeat_interval",
            "must be at least 1ms",
        )?;
        require(
            self.election_timeout_min.as_millis() < self.election_timeout_max.as_millis(),
            "raft.election_timeout_max",
            "must be more than election_timeout_min",
        )?;
        require(
            self.gather_interval <= self.heartbeat_interval,
            "raft.gather_interval",
            "must be at most heartbeat_interval",
        )?;
        require(self.max_queued_changes >= 1, "raft.max_queued_changes", "must be at least 1")?;
        require(
            self.max_queued_bytes >= 1 << 20,
            "raft.max_queued_bytes",
            "must be at least 1048576",
        )?;
        let is_interval = (100..=MAX_SNAPSHOT_INTERVAL).contains(&self.snapshot_interval);
        require(is_interval, "raft.snapshot_interval", "must be from 100 to 1000000000")?;
        let is_timeout = (Duration::from_millis(100)..=HOUR).contains(&self.propose_timeout);
        require(is_timeout, "raft.propose_timeout", "must be from 100ms to 1h")?;
        let is_silence = self.replace_voter_after <= LONGEST_SILENCE;
        require(is_silence, "raft.replace_voter_after", "must be at most 30 days")?;
        require(self.threads <= Some(MAX_THREADS), "raft.threads", "must be at most 1024")
    }
}

fn is_host_port(address: &str) -> bool {
    address
        .rsplit_once(':')
        .is_some_and(|(host, port)| is_host(host) && port.parse::<u16>().is_ok())
}

/// A name, an IPv4 address, or an IPv6 address in brackets.
fn is_host(host: &str) -> bool {
    if let Some(v6) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        // The zone of a link-local address is the machine's own affair.
        let address = v6.split_once('%').map_or(v6, |(address, _zone)| address);
        return address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    !host.is_empty() && host.chars().all(is_of_name)
}

/// All addresses of a machine, which is none to connect to from another.
fn is_unspecified(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _port)| host);
    let host = host.trim_matches(['[', ']']);
    host.parse::<std::net::IpAddr>().is_ok_and(|host| host.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid() {
        assert_eq!(ClusterConfig::default().check(), Ok(()));
        assert_eq!(RaftConfig::default().check(), Ok(()));
    }

    #[test]
    fn node_that_knows_of_no_other_shares_its_threads() {
        let cluster = |seeds: &[&str], bootstrap_expect| ClusterConfig {
            seeds: seeds.iter().map(|seed| (*seed).to_owned()).collect(),
            bootstrap_expect,
            ..ClusterConfig::default()
        };
        let clusters =
            [cluster(&[], 1), cluster(&["n1:1"], 1), cluster(&["n2:1"], 1), cluster(&["n1:1"], 3)];
        let threads =
            |config: RaftConfig| clusters.each_ref().map(|c| config.own_threads(c, "n1:1"));
        assert_eq!(threads(RaftConfig::default()), [0, 0, 1, 1]);
        assert_eq!(threads(RaftConfig { threads: Some(2), ..RaftConfig::default() }), [2; 4]);
    }

    #[test]
    fn others_are_told_of_an_address_that_they_can_connect_to() {
        let refused = |address: &str, advertise: Option<&str>| {
            let (address, advertise) = (address.to_owned(), advertise.map(str::to_owned));
            let config = ClusterConfig { address, advertise, ..ClusterConfig::default() };
            config.check().err().map(|error| error.key)
        };
        assert_eq!(refused("0.0.0.0:5001", None), Some("cluster.address"));
        assert_eq!(refused("[::]:5001", None), Some("cluster.address"));
        assert_eq!(refused("0.0.0.0:5001", Some("0.0.0.0:5001")), Some("cluster.advertise"));
        assert_eq!(refused("0.0.0.0:5001", Some("n1:5001")), None);
        assert_eq!(refused("10.0.0.1:5001", None), None);
    }

    #[test]
    fn settings_are_read_with_their_units() {
        let json = r#"{"durability": "os", "heartbeat_interval": "50ms"}"#;
        let config: RaftConfig = serde_json::from_str(json).unwrap();
        assert_eq!(config.durability, Durability::Os);
        assert_eq!(config.heartbeat_interval, Duration::from_millis(50));
    }

    #[test]
    fn unknown_key_is_refused_by_name() {
        let error = serde_json::from_str::<RaftConfig>(r#"{"durabilty": "os"}"#).unwrap_err();
        assert!(error.to_string().contains("durabilty"), "{error}");
    }

    #[test]
    fn bad_value_is_refused_by_key() {
        let seeds = ClusterConfig { seeds: vec!["n1".to_owned()], ..ClusterConfig::default() };
        assert_eq!(seeds.check().unwrap_err().key, "cluster.seeds");
        let alone = ClusterConfig { bootstrap_expect: 3, ..ClusterConfig::default() };
        assert_eq!(alone.check().unwrap_err().key, "cluster.seeds");
        let slow =
            RaftConfig { heartbeat_interval: Duration::from_secs(1), ..RaftConfig::default() };
        assert_eq!(slow.check().unwrap_err().key, "raft.heartbeat_interval");
    }
}
