//! Who was not let in: handshakes of Engine.IO, and CONNECTs of Socket.IO.

use ::metrics::Unit;

use super::{Counter, Sample};

/// Handshakes that were answered 503, so that a load balancer tries another node.
pub static HANDSHAKES_REFUSED: HandshakesRefused = HandshakesRefused::new();

/// Counts of handshakes that the node cannot take at the moment, by reason.
pub struct HandshakesRefused {
    pub draining: Counter,
    pub no_quorum: Counter,
}

impl HandshakesRefused {
    const fn new() -> Self {
        Self { draining: Counter::new(), no_quorum: Counter::new() }
    }
}

/// Clients that were not let into a namespace.
pub static CONNECTS_REFUSED: ConnectsRefused = ConnectsRefused::new();

/// Counts of Socket.IO's CONNECTs that were refused, by reason.
pub struct ConnectsRefused {
    /// There is no such namespace.
    pub invalid_namespace: Counter,
    /// A middleware did not let the client in, or panicked.
    pub middleware: Counter,
    /// The client showed no session, or a bad one, where it must have one.
    pub session: Counter,
    /// The cluster could not agree on the socket in time; the connection was closed.
    pub unavailable: Counter,
}

impl ConnectsRefused {
    const fn new() -> Self {
        Self {
            invalid_namespace: Counter::new(),
            middleware: Counter::new(),
            session: Counter::new(),
            unavailable: Counter::new(),
        }
    }
}

/// All of them, by reason.
pub(super) fn samples() -> impl Iterator<Item = Sample<u64>> {
    let HandshakesRefused { draining, no_quorum } = &HANDSHAKES_REFUSED;
    let handshakes = [("draining", draining), ("no_quorum", no_quorum)].map(|row| {
        sample("flotilla_handshakes_refused_total", "Handshakes that were answered 503.", row)
    });
    let ConnectsRefused { invalid_namespace, middleware, session, unavailable } = &CONNECTS_REFUSED;
    let connects = [
        ("invalid_namespace", invalid_namespace),
        ("middleware", middleware),
        ("session", session),
        ("unavailable", unavailable),
    ];
    let help = "Clients that were not let into a namespace.";
    let connects = connects.map(|row| sample("flotilla_connects_refused_total", help, row));
    handshakes.into_iter().chain(connects)
}

fn sample(
    name: &'static str,
    help: &'static str,
    (reason, counter): (&str, &Counter),
) -> Sample<u64> {
    Sample {
        name,
        unit: Unit::Count,
        help,
        label: Some(("reason", reason.to_owned())),
        value: counter.total(),
    }
}
