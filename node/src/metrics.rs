//! Everything that is counted and timed where it happens, and what a scrape shows of it.

mod gauges;
mod refused;
mod samples;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

pub use gauges::{Gauges, RAFT_ROLES};
pub use refused::{CONNECTS_REFUSED, ConnectsRefused, HANDSHAKES_REFUSED, HandshakesRefused};
pub use samples::{Sample, counters, histograms};

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

/// Proposals sent once more, for nobody knew what had become of the last attempt.
pub static PROPOSALS_REPEATED: Counter = Counter::new();

/// Rounds of replication whose entries this node, a follower, knew to be committed before its leader told.
pub static EARLY_COMMITS: Counter = Counter::new();

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
    fn protocol_errors_are_counted_by_kind() {
        protocol_error("illegal test");
        protocol_error("illegal test");
        let kind = Some(("kind", "illegal_test".to_owned()));
        let sample = counters().into_iter().find(|sample| sample.label == kind).unwrap();
        assert_eq!((sample.name, sample.value), ("flotilla_protocol_errors_total", 2));
    }
}
