//! Socket.IO 5 packets as text, and the frames that carry them.

use bytes::Bytes;
use serde_json::Value;

/// One Engine.IO unit: a text packet with its type character, or a binary message; or the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame {
    Text(String),
    Binary(Bytes),
    /// Closes the connection, each transport in its own way.
    Close,
}

/// One Socket.IO packet, without the attachments, which follow it in frames of their own.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Packet {
    pub(super) kind: Kind,
    pub(super) namespace: String,
    pub(super) ack: Option<u64>,
    pub(super) data: Option<Value>,
    pub(super) attachments: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Connect,
    Disconnect,
    Event,
    Ack,
    ConnectError,
}

impl Packet {
    pub(super) fn new(kind: Kind, namespace: &str, data: Option<Value>) -> Self {
        Self { kind, namespace: namespace.to_owned(), ack: None, data, attachments: 0 }
    }

    /// The text of the packet, without Engine.IO's type character.
    pub(super) fn to_text(&self) -> String {
        let binary = self.attachments > 0;
        let kind = match (self.kind, binary) {
            (Kind::Connect, _) => '0',
            (Kind::Disconnect, _) => '1',
            (Kind::Event, false) => '2',
            (Kind::Ack, false) => '3',
            (Kind::ConnectError, _) => '4',
            (Kind::Event, true) => '5',
            (Kind::Ack, true) => '6',
        };
        let mut text = String::from(kind);
        if binary {
            text.push_str(&format!("{}-", self.attachments));
        }
        if self.namespace != "/" {
            text.push_str(&format!("{},", self.namespace));
        }
        if let Some(ack) = self.ack {
            text.push_str(&ack.to_string());
        }
        if let Some(data) = &self.data {
            text.push_str(&data.to_string());
        }
        text
    }

    /// `None` if the text is no packet.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (kind, binary) = match text.chars().next()? {
            '0' => (Kind::Connect, false),
            '1' => (Kind::Disconnect, false),
            '2' => (Kind::Event, false),
            '3' => (Kind::Ack, false),
            '4' => (Kind::ConnectError, false),
            '5' => (Kind::Event, true),
            '6' => (Kind::Ack, true),
            _ => return None,
        };
        let mut rest = &text[1..];
        let mut attachments = 0;
        if binary {
            let (count, after) = rest.split_once('-')?;
            attachments = count.parse().ok()?;
            rest = after;
        }
        let mut namespace = "/";
        if rest.starts_with('/') {
            // A namespace ends at the comma, or with the packet.
            (namespace, rest) = rest.split_once(',').unwrap_or((rest, ""));
        }
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let ack = if digits > 0 { Some(rest[..digits].parse().ok()?) } else { None };
        rest = &rest[digits..];
        let data = if rest.is_empty() { None } else { Some(serde_json::from_str(rest).ok()?) };
        Some(Self { kind, namespace: namespace.to_owned(), ack, data, attachments })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn packets_of_the_protocols_text_are_read_and_written() {
        let examples = [
            ("0", Packet::new(Kind::Connect, "/", None)),
            ("0/admin,{\"a\":1}", Packet::new(Kind::Connect, "/admin", Some(json!({"a": 1})))),
            ("1/admin,", Packet::new(Kind::Disconnect, "/admin", None)),
            ("2[\"foo\"]", Packet::new(Kind::Event, "/", Some(json!(["foo"])))),
            (
                "2/admin,12[\"foo\"]",
                Packet {
                    ack: Some(12),
                    ..Packet::new(Kind::Event, "/admin", Some(json!(["foo"])))
                },
            ),
            (
                "3/admin,13[]",
                Packet { ack: Some(13), ..Packet::new(Kind::Ack, "/admin", Some(json!([]))) },
            ),
            (
                "51-/admin,[\"b\",{\"_placeholder\":true,\"num\":0}]",
                Packet {
                    attachments: 1,
                    ..Packet::new(
                        Kind::Event,
                        "/admin",
                        Some(json!(["b", {"_placeholder": true, "num": 0}])),
                    )
                },
            ),
            (
                "4{\"message\":\"no\"}",
                Packet::new(Kind::ConnectError, "/", Some(json!({"message": "no"}))),
            ),
        ];
        for (text, packet) in examples {
            assert_eq!(Packet::parse(text).as_ref(), Some(&packet), "{text}");
            assert_eq!(packet.to_text(), text);
        }
    }

    #[test]
    fn what_is_no_packet_is_not_read() {
        for text in ["", "9", "2[", "5x-[]", "51[]"] {
            assert_eq!(Packet::parse(text), None, "{text}");
        }
    }
}
