//! Who is in which room, and how a broadcast reaches them.

mod acks;
mod cluster;
mod delivery;
mod gathers;
mod legacy;
mod local;
mod outbox;
mod recipient;

pub use acks::Answers;
pub use cluster::{Adapter, Cluster, DeliveryMode, EmitFlags};
pub use gathers::Gathering;
pub use local::{Local, Plane};
pub use outbox::{Encoded, Outbox, OutboxLimits, Pushed};
pub use recipient::{Phase, Recipient};
