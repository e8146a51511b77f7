//! Parsers: how packets become messages and back, if not as the default text.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;

use super::codec::Kind;
use super::msgpack::Msgpack;
use super::{Packet, ProtocolError};
use crate::engineio::Message;

/// A format for packets other than the default one, as socket.io's option `parser` takes it.
///
/// All clients of a server speak the same, on all nodes. Between the nodes packets keep their own
/// form, so a parser sees each packet once on its way in and, whatever the number of recipients,
/// once for each node on its way out.
pub trait Parser: fmt::Debug + Send + Sync + 'static {
    /// The messages that carry a packet, in their order; at least one.
    fn encode(&self, packet: &OutgoingPacket<'_>) -> Vec<Message>;

    /// Reads the messages of one new connection.
    fn decoder(&self) -> Box<dyn Decoder>;
}

/// Reads the messages of one connection; it may keep those that make no packet yet.
///
/// What it keeps it must bound. A message is no longer than `engine.max_payload_bytes`.
pub trait Decoder: fmt::Debug + Send + 'static {
    /// Takes a message, and hands back a packet with its attachments once it is complete. After
    /// an error the connection is closed (`forced close`, as by the official server).
    ///
    /// The attachments are as many as [`Body::parse`](super::Body::parse) was told.
    fn decode(&mut self, message: Message) -> Result<Option<(Packet, Vec<Bytes>)>, ProtocolError>;
}

/// A packet on its way to clients.
#[derive(Clone, Copy, Debug)]
pub struct OutgoingPacket<'a> {
    /// None of the binary kinds: those are of the default format alone.
    pub kind: Kind,
    pub namespace: &'a str,
    pub id: Option<u64>,
    /// An event's or an ack's array, else what a CONNECT or CONNECT_ERROR says, if anything.
    pub json: &'a str,
    /// What the placeholders in `json` stand for. Without attachments there are none: what looks
    /// like one is an object.
    pub attachments: &'a [Bytes],
}

/// Which parser a server uses.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ParserChoice {
    /// JSON text, attachments apart: what clients speak unless they are told otherwise.
    #[default]
    Default,
    /// What clients with npm's `socket.io-msgpack-parser` speak.
    Msgpack,
    /// An application's own.
    #[serde(skip)]
    Custom(Arc<dyn Parser>),
}

impl ParserChoice {
    /// None stands for the default, which is built in everywhere.
    pub fn parser(&self) -> Option<Arc<dyn Parser>> {
        match self {
            Self::Default => None,
            Self::Msgpack => Some(Arc::new(Msgpack)),
            Self::Custom(parser) => Some(parser.clone()),
        }
    }
}

impl PartialEq for ParserChoice {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Default, Self::Default) | (Self::Msgpack, Self::Msgpack) => true,
            (Self::Custom(one), Self::Custom(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}

impl Eq for ParserChoice {}
