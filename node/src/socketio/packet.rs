//! The packets of Socket.IO, as a server receives them.

use bytes::Bytes;
use bytestring::ByteString;

use super::{Payload, ProtocolError, json};

/// One packet's text. The seven types are five here: an event or an ack with attachments is its
/// binary kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    Connect {
        namespace: ByteString,
        /// A JSON object.
        auth: Option<ByteString>,
    },
    Disconnect {
        namespace: ByteString,
    },
    Event(Body),
    Ack(Body),
    ConnectError {
        namespace: ByteString,
        /// A JSON object or string.
        error: Option<ByteString>,
    },
}

/// What an event and an ack are made of; the attachments follow as messages of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    pub namespace: ByteString,
    pub id: Option<u64>,
    /// A checked JSON array, whose placeholders (if there are attachments) are in range.
    json: ByteString,
    /// How many attachments follow.
    attachments: usize,
}

impl Body {
    /// Checks the JSON array, and that its placeholders name attachments that will come.
    pub fn parse(
        namespace: ByteString,
        id: Option<u64>,
        json: ByteString,
        attachments: usize,
    ) -> Result<Self, ProtocolError> {
        json::check(&json)?;
        if !json.trim_ascii_start().starts_with('[') {
            return Err(ProtocolError::InvalidPayload);
        }
        // Without attachments an object that looks like a placeholder is an object.
        if attachments > 0 {
            let found = json::placeholders(&json)?;
            if found.iter().any(|placeholder| placeholder.number >= attachments) {
                return Err(ProtocolError::IllegalPlaceholder);
            }
        }
        Ok(Self { namespace, id, json, attachments })
    }

    /// JSON that a parser has made itself: an array whose placeholders are in range.
    pub(super) fn checked(
        namespace: ByteString,
        id: Option<u64>,
        json: ByteString,
        attachments: usize,
    ) -> Self {
        debug_assert!(Self::parse(namespace.clone(), id, json.clone(), attachments).is_ok());
        Self { namespace, id, json, attachments }
    }

    /// How many attachments follow.
    pub fn attachments(&self) -> usize {
        self.attachments
    }

    /// The JSON array, brackets included.
    pub fn json(&self) -> &str {
        &self.json
    }

    /// The payload, once all its attachments have come.
    pub(super) fn into_payload(self, attachments: Vec<Bytes>) -> Payload {
        debug_assert_eq!(attachments.len(), self.attachments, "a payload is made when complete");
        Payload { json: self.json, attachments }
    }
}
