//! Socket.IO v5 and v4: packets, attachments and one connection's namespaces, without I/O.

mod arguments;
mod attachments;
mod client;
pub mod codec;
mod error;
mod javascript;
mod json;
mod msgpack;
mod packet;
mod parser;
mod payload;
mod v4;
mod value;

pub use client::{Client, Limits, Output};
pub use error::ProtocolError;
pub use javascript::to_json;
pub use json::MAX_DEPTH;
pub use msgpack::Msgpack;
pub use packet::{Body, Packet};
pub use parser::{Decoder, OutgoingPacket, Parser, ParserChoice};
pub use payload::{Elements, Payload};
pub use value::{Binary, Raw, from_ack, from_element, from_event, to_payload};
