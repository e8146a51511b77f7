//! Engine.IO v4 and v3: one connection's packets, heartbeat, upgrade and close, without I/O.

mod config;
mod connection;
mod encoding;
mod handshake;
mod message;
mod packet;
pub mod payload;
mod sid;
pub mod v3;

pub use config::{EngineConfig, InvalidSetting};
pub use connection::{Connection, Output, Overlap, UpgradeRefused};
pub use encoding::{Encoding, Revision};
pub(crate) use handshake::decode;
pub use handshake::{Request, RequestError, TransportKind, open_packet};
pub use message::{CloseReason, Message};
pub use packet::{Packet, ParseError};
pub use sid::Sid;
