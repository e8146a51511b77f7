//! How packets are written on one transport: the protocol's revision, and what the client takes.

use crate::engineio::{Packet, ParseError, payload, v3};

/// The protocol's revision, which a client names in each request (`EIO=4`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Revision {
    /// Also of clients that name none, or another one.
    V3,
    #[default]
    V4,
}

impl From<Revision> for u8 {
    fn from(revision: Revision) -> Self {
        match revision {
            Revision::V3 => 3,
            Revision::V4 => 4,
        }
    }
}

/// How the packets on one transport of a connection are written.
///
/// A connection keeps its revision. What its client takes may change when it upgrades: one that
/// has to poll for text gets bytes by WebSocket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    #[default]
    V4,
    /// Revision 3, bytes as bytes.
    V3Bytes,
    /// Revision 3, bytes as base64: the client has asked for text (`b64=1`).
    V3Text,
}

impl Encoding {
    pub fn revision(self) -> Revision {
        match self {
            Self::V4 => Revision::V4,
            Self::V3Bytes | Self::V3Text => Revision::V3,
        }
    }

    /// The packet of a text frame.
    pub fn parse_text(self, text: &str) -> Result<Packet, ParseError> {
        match self.revision() {
            Revision::V4 => Packet::parse(text),
            Revision::V3 => v3::parse_text(text),
        }
    }

    /// The packet of a binary frame.
    pub fn parse_bytes(self, bytes: &[u8]) -> Result<Packet, ParseError> {
        match self.revision() {
            Revision::V4 => Ok(Packet::from_binary(bytes)),
            Revision::V3 => v3::parse_bytes(bytes),
        }
    }

    /// The packets of a polling body. Those before a bad one are good.
    pub fn parse_payload(self, body: &[u8]) -> impl Iterator<Item = Result<Packet, ParseError>> {
        let is_v4 = self.revision() == Revision::V4;
        let v4 = is_v4.then(|| payload::parse(body)).into_iter().flatten();
        let v3 = (!is_v4).then(|| v3::parse_payload(body)).into_iter().flatten();
        v4.chain(v3)
    }
}
