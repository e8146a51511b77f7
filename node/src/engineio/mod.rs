//! Engine.IO v4: one connection's packets, heartbeat, upgrade and close, without I/O.

mod config;
mod connection;
mod handshake;
mod message;
mod packet;
pub mod payload;
mod sid;

pub use config::{EngineConfig, InvalidSetting};
pub use connection::{Connection, Output, Overlap, UpgradeRefused};
pub use handshake::{Request, RequestError, Revision, TransportKind, open_packet};
pub use message::{CloseReason, Message};
pub use packet::{Packet, ParseError};
pub use sid::Sid;
