//! Every metric: name, unit, help text.

mod refused;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use ::metrics::Unit;
pub use refused::{CONNECTS_REFUSED, ConnectsRefused, HANDSHAKES_REFUSED, HandshakesRefused};

/// A counter for the hot path: increments go to one of several cache lines, so that threads do
/// not contend; a scrape adds them up.
pub struct Counter {
    cells: [Cell; CELLS],
}

#[repr(align(64))]
struct Cell(AtomicU64);

const CELLS: usize = 8;

thread_local! {
    static CELL: usize = {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed) as usize % CELLS
    };
}

impl Counter {
    pub const fn new() -> Self {
        Self { cells: [const { Cell(AtomicU64::new(0)) }; CELLS] }
    }

    pub fn add(&self, count: u64) {
        CELL.with(|cell| self.cells[*cell].0.fetch_add(count, Ordering::Relaxed));
    }

    pub fn total(&self) -> u64 {
        self.cells.iter().map(|cell| cell.0.load(Ordering::Relaxed)).sum()
    }
}

impl Default for Counter {
    fn default() -> Self {
        Self::new()
    }
}

/// Packets encoded into frames: one for each packet and node, whatever the number of recipients.
pub static ENCODES: Counter = Counter::new();

/// Packets queued to a client.
pub static DELIVERIES: Counter = Counter::new();

/// Engine.IO packets from clients.
pub static PACKETS_RECEIVED: Counter = Counter::new();

/// Packets written to clients.
pub static PACKETS_SENT: Counter = Counter::new();

/// Bytes from clients: WebSocket frames and bodies of POST requests.
pub static RECEIVED_BYTES: Counter = Counter::new();

/// Bytes written to clients: WebSocket frames and answers to polls.
pub static SENT_BYTES: Counter = Counter::new();

/// From a packet's encoding until it has been written to a client.
pub static DELIVERY_DELAY: Delays = Delays::new();

/// What clients did wrong.
pub static PROTOCOL_ERRORS: ProtocolErrors = ProtocolErrors::new();

/// Streams of clients that were closed because too many files are open.
pub static STREAMS_REFUSED: Counter = Counter::new();

/// Requests that other nodes' connections have answered, by kind.
pub static RELAYED_REQUESTS: RelayedRequests = RelayedRequests::new();

/// Requests that came to nothing because their connection's owner could not be asked.
pub static RELAY_FAILURES: RelayFailures = RelayFailures::new();

/// Bytes that this node has passed on from clients to the owners of their connections.
pub static RELAYED_TO_OWNER_BYTES: Counter = Counter::new();

/// Bytes that this node has passed on to clients from the owners of their connections.
pub static RELAYED_TO_CLIENT_BYTES: Counter = Counter::new();

/// A histogram of durations for the hot path.
pub struct Delays {
    buckets: [Counter; Self::BOUNDS_SECONDS.len() + 1],
    sum_micros: Counter,
}

impl Delays {
    /// The upper bounds of all buckets but the last, which has none.
    pub const BOUNDS_SECONDS: [f64; 12] =
        [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 1.0, 10.0];
    const BOUNDS: [Duration; Self::BOUNDS_SECONDS.len()] = [
        Duration::from_micros(100),
        Duration::from_micros(250),
        Duration::from_micros(500),
        Duration::from_millis(1),
        Duration::from_micros(2_500),
        Duration::from_millis(5),
        Duration::from_millis(10),
        Duration::from_millis(25),
        Duration::from_millis(50),
        Duration::from_millis(100),
        Duration::from_secs(1),
        Duration::from_secs(10),
    ];

    pub const fn new() -> Self {
        Self {
            buckets: [const { Counter::new() }; Self::BOUNDS_SECONDS.len() + 1],
            sum_micros: Counter::new(),
        }
    }

    /// Counts all delays of one write, touching each bucket once.
    pub fn record_all(&self, delays: impl Iterator<Item = Duration>) {
        let mut counts = [0; Self::BOUNDS_SECONDS.len() + 1];
        let mut sum_micros = 0;
        for delay in delays {
            counts[Self::BOUNDS.partition_point(|bound| *bound < delay)] += 1;
            sum_micros += delay.as_micros() as u64;
        }
        for (bucket, count) in self.buckets.iter().zip(counts) {
            if count > 0 {
                bucket.add(count);
            }
        }
        self.sum_micros.add(sum_micros);
    }

    /// How many delays each bucket holds (not those of the buckets below it).
    pub fn totals(&self) -> [u64; Self::BOUNDS_SECONDS.len() + 1] {
        std::array::from_fn(|bucket| self.buckets[bucket].total())
    }

    pub fn sum_seconds(&self) -> f64 {
        self.sum_micros.total() as f64 / 1e6
    }
}

impl Default for Delays {
    fn default() -> Self {
        Self::new()
    }
}

/// Counts of what clients did wrong in HTTP and Engine.IO, by kind.
pub struct ProtocolErrors {
    /// Bytes that are no HTTP request.
    pub http: Counter,
    /// A request whose query names no transport that is served (code 0).
    pub unknown_transport: Counter,
    /// A request of a connection that is not there (code 1).
    pub unknown_sid: Counter,
    /// A handshake by another method than GET (code 2).
    pub bad_handshake_method: Counter,
    /// A request that does not fit its connection, or a WebSocket's handshake that is none (code 3).
    pub bad_request: Counter,
    /// A handshake that the application does not allow (code 4).
    pub forbidden: Counter,
    /// A handshake of a revision of Engine.IO that is not served (code 5).
    pub unsupported_version: Counter,
    /// A second GET or POST beside an open one.
    pub overlap: Counter,
    /// A body or message beyond the limit.
    pub too_long: Counter,
    /// Text or bytes that are no Engine.IO packet.
    pub packet: Counter,
    /// Bytes that are no WebSocket frame.
    pub frame: Counter,
    /// A request that came in too slowly.
    pub slow_request: Counter,
}

impl ProtocolErrors {
    pub const fn new() -> Self {
        Self {
            http: Counter::new(),
            unknown_transport: Counter::new(),
            unknown_sid: Counter::new(),
            bad_handshake_method: Counter::new(),
            bad_request: Counter::new(),
            forbidden: Counter::new(),
            unsupported_version: Counter::new(),
            overlap: Counter::new(),
            too_long: Counter::new(),
            packet: Counter::new(),
            frame: Counter::new(),
            slow_request: Counter::new(),
        }
    }

    /// Each kind as the label `kind` names it.
    pub fn by_kind(&self) -> [(&'static str, &Counter); 12] {
        [
            ("http", &self.http),
            ("unknown_transport", &self.unknown_transport),
            ("unknown_sid", &self.unknown_sid),
            ("bad_handshake_method", &self.bad_handshake_method),
            ("bad_request", &self.bad_request),
            ("forbidden", &self.forbidden),
            ("unsupported_version", &self.unsupported_version),
            ("overlap", &self.overlap),
            ("too_long", &self.too_long),
            ("packet", &self.packet),
            ("frame", &self.frame),
            ("slow_request", &self.slow_request),
        ]
    }
}

impl Default for ProtocolErrors {
    fn default() -> Self {
        Self::new()
    }
}

/// Counts of relayed requests, by kind.
pub struct RelayedRequests {
    pub poll: Counter,
    pub post: Counter,
    /// A WebSocket; it counts once, when it opens.
    pub upgrade: Counter,
}

impl RelayedRequests {
    const fn new() -> Self {
        Self { poll: Counter::new(), post: Counter::new(), upgrade: Counter::new() }
    }
}

/// Counts of requests that could not be relayed, by reason.
pub struct RelayFailures {
    /// The sid names no node that lives.
    pub unknown_owner: Counter,
    /// The owner did not answer in time, or refused.
    pub unreachable: Counter,
    /// The owner went away before it had answered.
    pub lost: Counter,
}

impl RelayFailures {
    const fn new() -> Self {
        Self { unknown_owner: Counter::new(), unreachable: Counter::new(), lost: Counter::new() }
    }
}

/// Clients that came back for their sockets.
pub static RECOVERIES: Recoveries = Recoveries::new();

/// Counts of what became of clients that came back.
pub struct Recoveries {
    /// They have their sockets again.
    pub recovered: Counter,
    /// They stayed connected, and their node, which the cluster had given up, has their sockets again.
    pub renewed: Counter,
    /// Their sockets, or packets that they missed, were no longer kept: they got new ones.
    pub refused: Counter,
    /// Packets that were sent again, or for the first time, to those who have their sockets again.
    pub replayed: Counter,
    /// Sockets whose client went away, and whose data was too large to be kept for it.
    pub data_left_out: Counter,
}

impl Recoveries {
    pub const fn new() -> Self {
        Self {
            recovered: Counter::new(),
            renewed: Counter::new(),
            refused: Counter::new(),
            replayed: Counter::new(),
            data_left_out: Counter::new(),
        }
    }
}

impl Default for Recoveries {
    fn default() -> Self {
        Self::new()
    }
}

/// Connections to the port for nodes that were closed because they were none of a node.
pub static STRANGERS_REFUSED: StrangersRefused = StrangersRefused::new();

/// Counts of connections that did not greet as nodes do, by reason.
pub struct StrangersRefused {
    /// Something else than HTTP/2 came.
    pub garbage: Counter,
    /// Nothing came in time, or too many others were as silent.
    pub silent: Counter,
}

impl StrangersRefused {
    const fn new() -> Self {
        Self { garbage: Counter::new(), silent: Counter::new() }
    }
}

/// Packets that were not delivered because the client could not take a volatile packet at once.
pub static DROPS_VOLATILE: Counter = Counter::new();

/// Volatile packets that a full outbox did not take, or that made way in one.
pub static DROPS_OUTBOX_FULL: Counter = Counter::new();

/// Packets thrown away with the outbox of a client that read too slowly.
pub static DROPS_SLOW_CONSUMER: Counter = Counter::new();

/// Messages to peers that were refused: a queue was full, or the peer unknown or out of reach.
pub static PEER_MESSAGES_REFUSED: Counter = Counter::new();

/// Messages from peers that the full queue of a namespace did not take.
pub static DROPS_INBOUND_FULL: Counter = Counter::new();

/// Events that did not fit their handler.
pub static EVENTS_REFUSED: Counter = Counter::new();

/// Queries of API subscribers that would have taken too long.
pub static QUERIES_GIVEN_UP: Counter = Counter::new();

/// Connects of controllers that failed, and errors of their handlers that no client asked to hear.
pub static CONTROLLER_ERRORS: Counter = Counter::new();

/// Messages written to the streams to peers.
pub static PEER_MESSAGES_SENT: Counter = Counter::new();

/// Messages read from the streams of peers.
pub static PEER_MESSAGES_RECEIVED: Counter = Counter::new();

/// Bytes written to the streams to peers.
pub static PEER_SENT_BYTES: Counter = Counter::new();

/// Changes refused: for want of a quorum, or because too much was waiting.
pub static PROPOSALS_REFUSED: Counter = Counter::new();

/// Times that this node saw another leader than before.
pub static LEADER_CHANGES: Counter = Counter::new();

/// From the encoding of a batch of changes until it is known to be agreed.
pub static PROPOSAL_DURATION: Delays = Delays::new();

/// What clients did wrong in Socket.IO. Such a client is disconnected, so a lock is cheap enough.
static SOCKETIO_ERRORS: Mutex<BTreeMap<&'static str, u64>> = Mutex::new(BTreeMap::new());

/// Counts a client's breach of the Socket.IO protocol. The kinds are a closed set.
pub fn protocol_error(kind: &'static str) {
    *lock_errors().entry(kind).or_default() += 1;
}

fn lock_errors() -> MutexGuard<'static, BTreeMap<&'static str, u64>> {
    SOCKETIO_ERRORS.lock().expect("nothing panics while it counts")
}

/// Ends of connections. Each is much more work than this lock.
static CONNECTIONS_CLOSED: Mutex<BTreeMap<&'static str, u64>> = Mutex::new(BTreeMap::new());

/// Counts the end of a connection. The reasons are a closed set.
pub fn connection_closed(reason: &'static str) {
    *lock_closed().entry(reason).or_default() += 1;
}

fn lock_closed() -> MutexGuard<'static, BTreeMap<&'static str, u64>> {
    CONNECTIONS_CLOSED.lock().expect("nothing panics while it counts")
}

/// A metric as a scrape shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample<T> {
    pub name: &'static str,
    pub unit: Unit,
    pub help: &'static str,
    pub label: Option<(&'static str, String)>,
    pub value: T,
}

/// Every counter of the hot path, added up now.
pub fn counters() -> Vec<Sample<u64>> {
    let plain = |name, unit, help, counter: &Counter| Sample {
        name,
        unit,
        help,
        label: None,
        value: counter.total(),
    };
    let mut samples = vec![
        plain(
            "flotilla_packets_received_total",
            Unit::Count,
            "Engine.IO packets from clients.",
            &PACKETS_RECEIVED,
        ),
        plain(
            "flotilla_packets_sent_total",
            Unit::Count,
            "Packets written to clients.",
            &PACKETS_SENT,
        ),
        plain("flotilla_received_bytes_total", Unit::Bytes, "Bytes from clients.", &RECEIVED_BYTES),
        plain("flotilla_sent_bytes_total", Unit::Bytes, "Bytes written to clients.", &SENT_BYTES),
        plain(
            "flotilla_encodes_total",
            Unit::Count,
            "Packets encoded into frames: one for each packet, whatever the number of recipients.",
            &ENCODES,
        ),
        plain("flotilla_deliveries_total", Unit::Count, "Packets queued to clients.", &DELIVERIES),
        plain(
            "flotilla_client_streams_refused_total",
            Unit::Count,
            "Streams of clients that were closed because too many files are open.",
            &STREAMS_REFUSED,
        ),
        plain(
            "flotilla_events_refused_total",
            Unit::Count,
            "Events that did not fit their handler.",
            &EVENTS_REFUSED,
        ),
        plain(
            "flotilla_api_queries_given_up_total",
            Unit::Count,
            "Queries of API subscribers that took too long for an emit, and counted as not met.",
            &QUERIES_GIVEN_UP,
        ),
        plain(
            "flotilla_controller_errors_total",
            Unit::Count,
            "Connects of controllers that failed, and errors of their handlers that no ack took to the client.",
            &CONTROLLER_ERRORS,
        ),
        plain(
            "flotilla_raft_changes_refused_total",
            Unit::Count,
            "Changes refused: for want of a quorum, or because too much was waiting.",
            &PROPOSALS_REFUSED,
        ),
        plain(
            "flotilla_raft_leader_changes_total",
            Unit::Count,
            "Times that this node saw another leader than before.",
            &LEADER_CHANGES,
        ),
        plain(
            "flotilla_peer_messages_sent_total",
            Unit::Count,
            "Messages written to the streams to peers.",
            &PEER_MESSAGES_SENT,
        ),
        plain(
            "flotilla_peer_messages_received_total",
            Unit::Count,
            "Messages read from the streams of peers.",
            &PEER_MESSAGES_RECEIVED,
        ),
        plain(
            "flotilla_peer_sent_bytes_total",
            Unit::Bytes,
            "Bytes written to the streams to peers.",
            &PEER_SENT_BYTES,
        ),
    ];
    samples.extend(recoveries());
    samples.extend(drops());
    samples.extend(connections_closed());
    samples.extend(relays());
    samples.extend(strangers());
    samples.extend(refused::samples());
    samples.extend(protocol_errors());
    samples
}

fn recoveries() -> impl Iterator<Item = Sample<u64>> {
    let sample = |name, help, label: Option<&str>, counter: &Counter| Sample {
        name,
        unit: Unit::Count,
        help,
        label: label.map(|outcome| ("outcome", outcome.to_owned())),
        value: counter.total(),
    };
    let help = "Clients that came back for their sockets.";
    let name = "flotilla_recoveries_total";
    [
        sample(name, help, Some("recovered"), &RECOVERIES.recovered),
        sample(name, help, Some("renewed"), &RECOVERIES.renewed),
        sample(name, help, Some("refused"), &RECOVERIES.refused),
        sample(
            "flotilla_replayed_packets_total",
            "Packets sent to clients that came back, because they had missed them.",
            None,
            &RECOVERIES.replayed,
        ),
        sample(
            "flotilla_socket_data_left_out_total",
            "Sockets whose clients went away, and whose data was too large to be kept for them.",
            None,
            &RECOVERIES.data_left_out,
        ),
    ]
    .into_iter()
}

fn drops() -> impl Iterator<Item = Sample<u64>> {
    [
        ("volatile", &DROPS_VOLATILE),
        ("outbox_full", &DROPS_OUTBOX_FULL),
        ("slow_consumer", &DROPS_SLOW_CONSUMER),
        ("peer_refused", &PEER_MESSAGES_REFUSED),
        ("inbound_full", &DROPS_INBOUND_FULL),
    ]
    .into_iter()
    .map(|(reason, counter)| Sample {
        name: "flotilla_drops_total",
        unit: Unit::Count,
        help: "Packets and messages that were dropped.",
        label: Some(("reason", reason.to_owned())),
        value: counter.total(),
    })
}

fn connections_closed() -> impl Iterator<Item = Sample<u64>> {
    let closed: Vec<(&str, u64)> =
        lock_closed().iter().map(|(reason, count)| (*reason, *count)).collect();
    closed.into_iter().map(|(reason, value)| Sample {
        name: "flotilla_connections_closed_total",
        unit: Unit::Count,
        help: "Connections that ended.",
        label: Some(("reason", reason.replace(' ', "_"))),
        value,
    })
}

fn relays() -> impl Iterator<Item = Sample<u64>> {
    let labelled = |name, unit, help, label, rows: &[(&str, &Counter)]| {
        let sample = |(value, counter): &(&str, &Counter)| Sample {
            name,
            unit,
            help,
            label: Some((label, (*value).to_owned())),
            value: counter.total(),
        };
        rows.iter().map(sample).collect::<Vec<_>>()
    };
    let requests = labelled(
        "flotilla_relayed_requests_total",
        Unit::Count,
        "Requests that were relayed to another node, and answered by it.",
        "kind",
        &[
            ("poll", &RELAYED_REQUESTS.poll),
            ("post", &RELAYED_REQUESTS.post),
            ("upgrade", &RELAYED_REQUESTS.upgrade),
        ],
    );
    let failures = labelled(
        "flotilla_relay_failures_total",
        Unit::Count,
        "Requests for another node's connection that it did not answer.",
        "reason",
        &[
            ("unknown_owner", &RELAY_FAILURES.unknown_owner),
            ("unreachable", &RELAY_FAILURES.unreachable),
            ("lost", &RELAY_FAILURES.lost),
        ],
    );
    let bytes = labelled(
        "flotilla_relayed_bytes_total",
        Unit::Bytes,
        "Bytes between clients and other nodes that this node has passed on.",
        "direction",
        &[("to_owner", &RELAYED_TO_OWNER_BYTES), ("to_client", &RELAYED_TO_CLIENT_BYTES)],
    );
    [requests, failures, bytes].into_iter().flatten()
}

fn strangers() -> impl Iterator<Item = Sample<u64>> {
    let refused = [("garbage", &STRANGERS_REFUSED.garbage), ("silent", &STRANGERS_REFUSED.silent)];
    refused.into_iter().map(|(reason, counter)| Sample {
        name: "flotilla_node_connections_refused_total",
        unit: Unit::Count,
        help: "Connections to the port for nodes that did not greet as nodes do.",
        label: Some(("reason", reason.to_owned())),
        value: counter.total(),
    })
}

fn protocol_errors() -> impl Iterator<Item = Sample<u64>> {
    let engine = PROTOCOL_ERRORS.by_kind().map(|(kind, counter)| (kind, counter.total()));
    let socketio: Vec<(&str, u64)> =
        lock_errors().iter().map(|(kind, count)| (*kind, *count)).collect();
    engine.into_iter().chain(socketio).map(|(kind, value)| Sample {
        name: "flotilla_protocol_errors_total",
        unit: Unit::Count,
        help: "What clients did wrong in HTTP, Engine.IO and Socket.IO.",
        label: Some(("kind", kind.replace(' ', "_"))),
        value,
    })
}

/// Every histogram: name, help, and the delays themselves, in seconds.
pub fn histograms() -> [(&'static str, &'static str, &'static Delays); 2] {
    [
        (
            "flotilla_delivery_delay_seconds",
            "From a packet's encoding until it has been written to a client.",
            &DELIVERY_DELAY,
        ),
        (
            "flotilla_raft_proposal_duration_seconds",
            "From the encoding of a batch of changes until it is known to be agreed.",
            &PROPOSAL_DURATION,
        ),
    ]
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_fall_into_the_bucket_whose_bound_they_do_not_exceed() {
        let delays = Delays::new();
        let micros = [0, 100, 101, 1_000, 60_000_000];
        delays.record_all(micros.into_iter().map(Duration::from_micros));
        assert_eq!(delays.totals(), [2, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert!((delays.sum_seconds() - 60.001201).abs() < 1e-9);
        for (seconds, bound) in Delays::BOUNDS_SECONDS.iter().zip(Delays::BOUNDS) {
            assert!((seconds - bound.as_secs_f64()).abs() < 1e-9);
        }
    }

    #[test]
    fn names_follow_the_conventions() {
        for sample in counters() {
            assert!(sample.name.ends_with("_total"), "{}", sample.name);
            let in_bytes = sample.name.contains("_bytes");
            assert_eq!(in_bytes, sample.unit == Unit::Bytes, "{}", sample.name);
        }
        for sample in Gauges::default().samples() {
            assert!(!sample.name.ends_with("_total"), "{}", sample.name);
        }
        for (name, _, _) in histograms() {
            assert!(name.ends_with("_seconds"), "{name}");
        }
    }

    #[test]
    fn protocol_errors_are_counted_by_kind() {
        protocol_error("illegal test");
        protocol_error("illegal test");
        let kind = Some(("kind", "illegal_test".to_owned()));
        let sample = counters().into_iter().find(|sample| sample.label == kind).unwrap();
        assert_eq!((sample.name, sample.value), ("flotilla_protocol_errors_total", 2));
    }
}
