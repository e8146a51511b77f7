//! One Engine.IO packet, and the text it travels as.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use bytestring::ByteString;

use crate::engineio::Message;

/// The seven packet types (Engine.IO v4, "Packet types").
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    /// The handshake, as JSON.
    Open(ByteString),
    Close,
    /// Empty, or `probe` during an upgrade.
    Ping(ByteString),
    Pong(ByteString),
    Message(Message),
    Upgrade,
    Noop,
}

/// Why a text is no packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    #[error("empty packet")]
    Empty,
    #[error("unknown packet type {0:?}")]
    UnknownType(char),
    #[error("bad base64")]
    Base64,
    #[error("payload is not UTF-8")]
    Utf8,
    /// Of a packet in a payload of Engine.IO 3.
    #[error("bad packet length")]
    Length,
}

/// Clients in other languages leave the padding out.
pub(super) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

impl Packet {
    /// From a text frame, or from one piece of a polling payload.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut chars = text.chars();
        let kind = chars.next().ok_or(ParseError::Empty)?;
        let content = chars.as_str();
        Ok(match kind {
            '0' => Self::Open(content.into()),
            '1' => Self::Close,
            '2' => Self::Ping(content.into()),
            '3' => Self::Pong(content.into()),
            '4' => Self::Message(Message::Text(content.into())),
            '5' => Self::Upgrade,
            '6' => Self::Noop,
            'b' => {
                let bytes = BASE64.decode(content).map_err(|_| ParseError::Base64)?;
                Self::Message(Message::Binary(bytes.into()))
            }
            other => return Err(ParseError::UnknownType(other)),
        })
    }

    /// From a binary frame: a message, without a type byte (Engine.IO v4, "Encoding").
    pub fn from_binary(bytes: &[u8]) -> Self {
        Self::Message(Message::Binary(Bytes::copy_from_slice(bytes)))
    }

    /// The packet as text; bytes as `b<base64>`.
    pub fn to_text(&self) -> String {
        match self {
            Self::Open(content) => format!("0{content}"),
            Self::Close => "1".to_owned(),
            Self::Ping(content) => format!("2{content}"),
            Self::Pong(content) => format!("3{content}"),
            Self::Message(Message::Text(content)) => format!("4{content}"),
            Self::Message(Message::Binary(bytes)) => format!("b{}", BASE64.encode(bytes)),
            Self::Upgrade => "5".to_owned(),
            Self::Noop => "6".to_owned(),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn any_packet() -> impl Strategy<Value = Packet> {
        // The separator of polling payloads cannot be part of a text that travels in one.
        let text = "[^\\x1e]{0,20}".prop_map(ByteString::from);
        let bytes = proptest::collection::vec(any::<u8>(), 0..40);
        prop_oneof![
            text.clone().prop_map(Packet::Open),
            Just(Packet::Close),
            text.clone().prop_map(Packet::Ping),
            text.clone().prop_map(Packet::Pong),
            text.prop_map(|text| Packet::Message(Message::Text(text))),
            bytes.prop_map(|bytes| Packet::Message(Message::Binary(bytes.into()))),
            Just(Packet::Upgrade),
            Just(Packet::Noop),
        ]
    }

    proptest! {
        #[test]
        fn packet_parses_back(packet in any_packet()) {
            prop_assert_eq!(Packet::parse(&packet.to_text()), Ok(packet));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,20}|b[A-Za-z0-9+/=]{0,12}") {
            let _ = Packet::parse(&text);
        }
    }

    #[test]
    fn packets_are_spelled_as_the_specification_says() {
        assert_eq!(Packet::parse("2probe"), Ok(Packet::Ping("probe".into())));
        assert_eq!(Packet::parse("4hello"), Ok(Packet::Message(Message::Text("hello".into()))));
        let binary = Packet::Message(Message::Binary(Bytes::from_static(&[1, 2, 3, 4])));
        assert_eq!(Packet::parse("bAQIDBA=="), Ok(binary.clone()));
        assert_eq!(Packet::parse("bAQIDBA"), Ok(binary.clone()));
        assert_eq!(binary.to_text(), "bAQIDBA==");
        assert_eq!(Packet::parse(""), Err(ParseError::Empty));
        assert_eq!(Packet::parse("abc"), Err(ParseError::UnknownType('a')));
        assert_eq!(Packet::parse("7"), Err(ParseError::UnknownType('7')));
        assert_eq!(Packet::parse("é"), Err(ParseError::UnknownType('é')));
        assert_eq!(Packet::parse("b*"), Err(ParseError::Base64));
    }
}
