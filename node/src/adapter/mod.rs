//! Who is in which room, and how a broadcast reaches them.

mod acks;
mod alone;
mod cluster;
mod connecting;
mod delivery;
mod encoded;
mod encoder;
mod gathers;
mod legacy;
mod local;
mod namespace;
mod outbox;
mod projection;
mod questions;
mod recipient;
mod recovery;
mod renewal;
mod replays;
mod rooms;

pub use acks::Answers;
pub use cluster::Cluster;
pub use connecting::Brought;
pub use encoded::Encoded;
pub use encoder::Encoder;
pub use gathers::Gathering;
pub use local::{Local, Plane};
pub use namespace::{Adapter, DeliveryMode, EmitFlags};
pub use outbox::{Outbox, OutboxLimits, OutboxPolicy, OutboxSize, Pushed};
pub use projection::{Part, Projector};
pub use questions::{Asked, Reply};
pub use recipient::{Above, Phase, Recipient};
pub use recovery::{Claim, RecoveryConfig};
pub use rooms::RoomEvent;
