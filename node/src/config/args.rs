//! The command line.

use std::fmt;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

use super::words;

const EXAMPLES: &str = "\
Settings have four sources; the later weighs more:
  1. defaults
  2. the file: TOML, with sections [node] [listen] [admin] [cluster] [raft] [engine]
     [socketio] [session] [namespaces.\"/\"] [outbox] [log]
  3. the environment: FLOTILLA_ENGINE__PING_INTERVAL=10s sets engine.ping_interval
  4. flags: --set engine.ping_interval=10s, and the ones above for what is set often

Examples:
  A node on its own, to try things out:
    flotilla --apps relay --bootstrap-expect 1

  One of three, on three machines:
    flotilla --config /etc/flotilla.toml --name n1 --cluster-address 10.0.0.1:5001 \\
        --seeds 10.0.0.1:5001,10.0.0.2:5001,10.0.0.3:5001 --bootstrap-expect 3

  What a stopped node has on its disk:
    flotilla inspect --data-dir data

Exit codes: 0 ended as asked, 1 failed, 2 a setting is wrong (and which, and where).";

/// A clustered Socket.IO server: clients connect to any node, and rooms, sessions and broadcasts
/// span all of them.
#[derive(Clone, Default, Parser)]
#[command(name = "flotilla", version, after_help = EXAMPLES, max_term_width = 100)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Read settings from a TOML file
    #[arg(short, long, value_name = "FILE", help_heading = "Settings")]
    pub config: Option<PathBuf>,

    /// Set any key; may be repeated
    #[arg(short, long, value_name = "SECTION.KEY=VALUE", help_heading = "Settings")]
    pub set: Vec<String>,

    /// Read all settings, say whether they are right, and end
    #[arg(long, help_heading = "Settings")]
    pub check_config: bool,

    /// The node's name [default: n1]
    #[arg(long, value_name = "NAME", help_heading = "This node")]
    pub name: Option<String>,

    /// Where clients connect [default: 127.0.0.1:3001]
    #[arg(long, value_name = "ADDRESS", help_heading = "This node")]
    pub listen: Option<String>,

    /// Where metrics, health and drain are [default: 127.0.0.1:4001]
    #[arg(long, value_name = "ADDRESS", help_heading = "This node")]
    pub admin: Option<String>,

    /// Where the node keeps its log and identity [default: data]
    #[arg(long, value_name = "DIR", help_heading = "This node")]
    pub data_dir: Option<String>,

    /// Built-in applications to serve, by comma: relay, conformance, engine-echo
    #[arg(long, value_name = "APPS", help_heading = "This node")]
    pub apps: Option<String>,

    /// What to log, such as `warn,flotilla::raft=debug` [default: info,openraft=error]
    #[arg(long, value_name = "FILTER", help_heading = "This node")]
    pub log: Option<String>,

    /// Where other nodes connect [default: a free port of 127.0.0.1]
    #[arg(long, value_name = "ADDRESS", help_heading = "Its cluster")]
    pub cluster_address: Option<String>,

    /// Nodes to ask for the cluster, by comma; this one may be among them
    #[arg(long, value_name = "ADDRESSES", help_heading = "Its cluster")]
    pub seeds: Option<String>,

    /// How many new nodes form a new cluster once they see each other [default: 1]
    #[arg(long, value_name = "N", help_heading = "Its cluster")]
    pub bootstrap_expect: Option<String>,

    /// When a change counts as stored: fsync, os or memory [default: fsync]
    #[arg(long, value_name = "WHEN", help_heading = "Its cluster")]
    pub durability: Option<String>,
}

#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Print the agreed state that a stopped node has on its disk, as JSON
    Inspect {
        /// The node's data directory
        #[arg(long, value_name = "DIR")]
        data_dir: PathBuf,
    },
}

/// Without the secrets that `--set` may set.
impl fmt::Debug for Args {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set: Vec<&str> =
            self.set.iter().map(|argument| words::shown_argument(argument)).collect();
        let named = self.named().into_iter().filter_map(|(flag, _, text)| Some((flag, text?)));
        f.debug_struct("Args")
            .field("command", &self.command)
            .field("config", &self.config)
            .field("check_config", &self.check_config)
            .field("set", &set)
            .field("named", &named.collect::<Vec<_>>())
            .finish()
    }
}

impl Args {
    /// The flags that stand for one key: flag, key, and the value if it was given.
    pub(super) fn named(&self) -> [(&'static str, &'static str, Option<&str>); 10] {
        [
            ("--name", "node.name", self.name.as_deref()),
            ("--listen", "listen.address", self.listen.as_deref()),
            ("--admin", "admin.address", self.admin.as_deref()),
            ("--data-dir", "data_dir", self.data_dir.as_deref()),
            ("--apps", "apps", self.apps.as_deref()),
            ("--log", "log.filter", self.log.as_deref()),
            ("--cluster-address", "cluster.address", self.cluster_address.as_deref()),
            ("--seeds", "cluster.seeds", self.seeds.as_deref()),
            ("--bootstrap-expect", "cluster.bootstrap_expect", self.bootstrap_expect.as_deref()),
            ("--durability", "raft.durability", self.durability.as_deref()),
        ]
    }
}
