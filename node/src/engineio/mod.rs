//! Engine.IO v4 and v3: one connection's packets, heartbeat, upgrade and close, without I/O.

mod config;
mod connection;
mod encoding;
mod handshake;
mod http_config;
mod message;
mod packet;
pub mod payload;
mod proxies;
mod sid;
pub mod v3;

pub use config::{EngineConfig, InvalidSetting};
pub use connection::{Connection, Output, Overlap, UpgradeRefused};
pub use encoding::{Encoding, Revision};
pub use handshake::{Request, RequestError, TransportKind, open_packet};
pub(crate) use handshake::{decode, query_parameter};
pub(crate) use http_config::pattern as origin_pattern;
pub use http_config::{
    CompressionConfig, CookieConfig, CookiePriority, CorsConfig, Origins, SameSite,
};
pub use message::{CloseReason, Message};
pub use packet::{Packet, ParseError};
pub use proxies::TrustProxy;
pub use sid::Sid;
