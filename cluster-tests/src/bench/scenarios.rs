//! The scenarios, each a kind of load with its figures.

mod broadcasts;
mod connections;
mod measure;
mod requests;
mod rooms;

use std::io;

use super::{Plan, Row};

/// All scenarios, in the order in which they are reported.
pub const SCENARIOS: [(&str, &str); 10] = [
    ("idle", "connections that do nothing: memory each"),
    ("connect", "connect, then close: CPU each"),
    ("echo", "each client emits when its last ack came"),
    ("bcast", "20 broadcasts a second to all clients"),
    ("bcast-max", "16 broadcasts in flight, to all clients"),
    ("burst", "300 broadcasts at once, to all clients"),
    ("room", "rooms of 10, 10,000 deliveries a second"),
    ("rooms-max", "rooms of 10, one message in flight in each"),
    ("dm", "1,000 messages a second, to a client at another server"),
    ("join", "each client joins and leaves a room when its last ack came"),
];

/// Runs one scenario. It must run inside a `LocalSet`.
pub async fn run(scenario: &str, plan: &Plan) -> io::Result<Row> {
    match scenario {
        "idle" => connections::idle(plan).await,
        "connect" => connections::connect(plan).await,
        "echo" => requests::echo(plan).await,
        "join" => requests::join(plan).await,
        "bcast" => broadcasts::paced(plan).await,
        "bcast-max" => broadcasts::closed_loop(plan).await,
        "burst" => broadcasts::burst(plan).await,
        "room" => rooms::paced(plan).await,
        "rooms-max" => rooms::closed_loop(plan).await,
        "dm" => rooms::direct_messages(plan).await,
        unknown => Err(io::Error::other(format!("no scenario is called {unknown:?}"))),
    }
}
