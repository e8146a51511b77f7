//! Who is in which room, and how a broadcast reaches them.

mod acks;
mod alone;
mod cluster;
mod delivery;
mod encoder;
mod gathers;
mod legacy;
mod local;
mod outbox;
mod projection;
mod questions;
mod recipient;
mod recovery;
mod renewal;
mod replays;
mod rooms;

pub use acks::Answers;
pub use cluster::{Adapter, Cluster, DeliveryMode, EmitFlags};
pub use encoder::Encoder;
pub use gathers::Gathering;
pub use local::{Local, Plane};
pub use outbox::{Encoded, Outbox, OutboxLimits, OutboxPolicy, OutboxSize, Pushed};
pub use projection::{Part, Projector};
pub use questions::{Asked, Reply};
pub use recipient::{Above, Phase, Recipient};
pub use recovery::{Claim, RecoveryConfig};
pub use rooms::RoomEvent;
