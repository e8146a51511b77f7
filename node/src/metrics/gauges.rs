//! What only the running node knows, as a scrape shows it: name, unit, help text.

use ::metrics::Unit;

use super::Sample;

/// What a node can be in raft.
pub const RAFT_ROLES: [&str; 4] = ["leader", "follower", "candidate", "learner"];

/// What only the running node knows; it is asked at each scrape.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    pub connections: u64,
    pub outbox_bytes: u64,
    pub outbox_packets: u64,
    pub outbox_largest_bytes: u64,
    pub sockets: u64,
    pub rooms: u64,
    pub sessions: u64,
    pub raft_term: u64,
    pub raft_is_leader: bool,
    /// One of [`RAFT_ROLES`]; none where consensus has ended.
    pub raft_role: Option<&'static str>,
    pub raft_commit_index: u64,
    pub raft_applied_index: u64,
    pub namesakes: u64,
    pub peers_up: u64,
    pub peer_queue_bytes: u64,
    pub relays_to_owners: u64,
    pub relays_from_nodes: u64,
    pub detached_sockets: u64,
    pub window_packets: u64,
    pub window_bytes: u64,
    pub detached_data_bytes: u64,
}

impl Gauges {
    pub fn samples(&self) -> impl Iterator<Item = Sample<u64>> {
        self.plain().into_iter().chain(self.roles())
    }

    /// One is 1 and the others 0, so that they can be counted over the nodes of a cluster.
    fn roles(&self) -> impl Iterator<Item = Sample<u64>> {
        RAFT_ROLES.into_iter().map(|role| Sample {
            name: "flotilla_raft_role",
            unit: Unit::Count,
            help: "1 for what the node is in raft, 0 for what it is not.",
            label: Some(("role", role.to_owned())),
            value: u64::from(self.raft_role == Some(role)),
        })
    }

    fn plain(&self) -> [Sample<u64>; 20] {
        let gauge = |name, unit, help, value| Sample { name, unit, help, label: None, value };
        let count = |name, help, value| gauge(name, Unit::Count, help, value);
        [
            count("flotilla_connections", "Connections of this node.", self.connections),
            gauge(
                "flotilla_outbox_bytes",
                Unit::Bytes,
                "What waits for clients. Broadcasts count for each.",
                self.outbox_bytes,
            ),
            count("flotilla_outbox_packets", "Packets that wait for clients.", self.outbox_packets),
            gauge(
                "flotilla_outbox_largest_bytes",
                Unit::Bytes,
                "What waits for the client that most waits for.",
                self.outbox_largest_bytes,
            ),
            count("flotilla_sockets", "Sockets of this node, in all namespaces.", self.sockets),
            count("flotilla_rooms", "Rooms with members, on whatever node.", self.rooms),
            count("flotilla_sessions", "Sessions that were written, of all nodes.", self.sessions),
            count("flotilla_raft_term", "Raft's term.", self.raft_term),
            count(
                "flotilla_raft_is_leader",
                "1 on the leader, 0 elsewhere.",
                u64::from(self.raft_is_leader),
            ),
            count(
                "flotilla_raft_commit_index",
                "The last log index known to be committed.",
                self.raft_commit_index,
            ),
            count(
                "flotilla_raft_applied_index",
                "The last log index that was applied.",
                self.raft_applied_index,
            ),
            count("flotilla_namesakes", "Other live nodes with this node's name.", self.namesakes),
            count("flotilla_peers_up", "Peers with an open stream.", self.peers_up),
            gauge(
                "flotilla_peer_queue_bytes",
                Unit::Bytes,
                "What waits to be written to peers.",
                self.peer_queue_bytes,
            ),
            count(
                "flotilla_relays_to_owners",
                "Client streams that this node passes on to their connections' owners.",
                self.relays_to_owners,
            ),
            count(
                "flotilla_relays_from_nodes",
                "Client streams of this node's connections that other nodes pass on.",
                self.relays_from_nodes,
            ),
            count(
                "flotilla_detached_sockets",
                "Sockets whose clients are away and may come back, of all nodes.",
                self.detached_sockets,
            ),
            count(
                "flotilla_recovery_window_packets",
                "Packets kept for clients that come back.",
                self.window_packets,
            ),
            gauge(
                "flotilla_recovery_window_bytes",
                Unit::Bytes,
                "What they count for.",
                self.window_bytes,
            ),
            gauge(
                "flotilla_detached_data_bytes",
                Unit::Bytes,
                "What applications keep with sockets whose clients are away, of all nodes.",
                self.detached_data_bytes,
            ),
        ]
    }
}
