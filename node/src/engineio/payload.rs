//! Several packets in one body of HTTP long-polling (Engine.IO v4, "Payload").

use crate::engineio::{Packet, ParseError};

/// ASCII's record separator stands between packets.
pub const SEPARATOR: u8 = 0x1e;

/// The packets of a body. Those before a bad one are good.
pub fn parse(body: &[u8]) -> impl Iterator<Item = Result<Packet, ParseError>> {
    let (text, error) = match str::from_utf8(body) {
        Ok(text) => (Some(text), None),
        Err(_) => (None, Some(Err(ParseError::Utf8))),
    };
    let packets = text.into_iter().flat_map(|text| text.split(char::from(SEPARATOR)));
    packets.map(Packet::parse).chain(error)
}

/// Appends one or more encoded packets to a body.
pub fn append(packets: &[u8], body: &mut Vec<u8>) {
    if !body.is_empty() {
        body.push(SEPARATOR);
    }
    body.extend_from_slice(packets);
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::engineio::Message;
    use crate::engineio::packet::tests::any_packet;

    proptest! {
        #[test]
        fn payload_parses_back(packets in proptest::collection::vec(any_packet(), 1..6)) {
            let mut body = Vec::new();
            for packet in &packets {
                append(packet.to_text().as_bytes(), &mut body);
            }
            let parsed: Result<Vec<_>, _> = parse(&body).collect();
            prop_assert_eq!(parsed, Ok(packets));
        }

        #[test]
        fn no_body_panics(body in proptest::collection::vec(any::<u8>(), 0..60)) {
            for packet in parse(&body) {
                let _ = packet;
            }
        }
    }

    #[test]
    fn text_and_binary_share_a_payload() {
        let parsed: Vec<_> = parse(b"4hello\x1e2\x1ebAQI=").collect();
        assert_eq!(
            parsed,
            [
                Ok(Packet::Message(Message::Text("hello".into()))),
                Ok(Packet::Ping("".into())),
                Ok(Packet::Message(Message::Binary(Bytes::from_static(&[1, 2])))),
            ]
        );
    }

    #[test]
    fn bad_packets_are_told_from_the_good_ones_before_them() {
        let parsed: Vec<_> = parse(b"4a\x1eabc").collect();
        assert_eq!(
            parsed,
            [Ok(Packet::Message(Message::Text("a".into()))), Err(ParseError::UnknownType('a'))]
        );
        assert_eq!(parse(b"").collect::<Vec<_>>(), [Err(ParseError::Empty)]);
        assert_eq!(parse(b"4\xff").collect::<Vec<_>>(), [Err(ParseError::Utf8)]);
    }
}
