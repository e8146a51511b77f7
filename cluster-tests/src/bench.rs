//! The load generator: a thousand light clients in one thread that count every delivery.
//!
//! It works against any Socket.IO server that implements the relay application's verbs. Every
//! message carries its sender and number, so that losses, duplicates and disorder are counted
//! exactly; what the servers spend is read from `/proc`.

mod fleet;
mod frames;
mod histogram;
mod inbox;
mod link;
mod report;
mod scenarios;
mod track;
mod usage;

use std::time::Duration;

pub use report::{HEAD, Latency, Report, Row};
pub use scenarios::{SCENARIOS, run};

/// The servers under test and the size of the load.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where clients connect, `http://host:port` each.
    pub urls: Vec<String>,
    /// The processes whose CPU time and memory are the servers'.
    pub pids: Vec<u32>,
    pub namespace: String,
    /// Whether all receivers must see one total order.
    pub one_order: bool,
    /// How many clients, if a scenario's own number is not wanted.
    pub clients: Option<usize>,
    /// How long each scenario is measured.
    pub measured: Duration,
    /// How long it runs before, unmeasured.
    pub warm_up: Duration,
    /// How long each message is, at least.
    pub payload_bytes: usize,
}
