//! Gathers the binary parts of a packet.

use bytes::Bytes;

use super::{Packet, ProtocolError};

/// The packet that awaits attachments, if there is one. No larger than a pointer, since each
/// connection has one.
#[derive(Debug, Default)]
pub(super) struct Attachments(Option<Box<Incomplete>>);

#[derive(Debug)]
struct Incomplete {
    packet: Packet,
    /// How many parts are still to come, which is never 0.
    missing: usize,
    parts: Vec<Bytes>,
    bytes: usize,
}

impl Attachments {
    /// Fails if a packet is incomplete: its attachments come before any other text.
    pub(super) fn check_none_awaited(&self) -> Result<(), ProtocolError> {
        if self.0.is_some() { Err(ProtocolError::UnexpectedText) } else { Ok(()) }
    }

    /// Hands a packet without attachments straight back; keeps another one until they have come.
    pub(super) fn handle_packet(&mut self, packet: Packet) -> Option<(Packet, Vec<Bytes>)> {
        let missing = match &packet {
            Packet::Event(body) | Packet::Ack(body) => body.attachments(),
            Packet::Connect { .. } | Packet::Disconnect { .. } | Packet::ConnectError { .. } => 0,
        };
        if missing == 0 {
            return Some((packet, Vec::new()));
        }
        let parts = Vec::with_capacity(missing);
        self.0 = Some(Box::new(Incomplete { packet, missing, parts, bytes: 0 }));
        None
    }

    /// Takes one part, and hands back the packet with all of them once it is complete.
    pub(super) fn handle_part(
        &mut self,
        part: Bytes,
        max_bytes: usize,
    ) -> Result<Option<(Packet, Vec<Bytes>)>, ProtocolError> {
        let Some(mut incomplete) = self.0.take() else {
            return Err(ProtocolError::UnexpectedBinary);
        };
        incomplete.bytes += part.len();
        if incomplete.bytes > max_bytes {
            return Err(ProtocolError::AttachmentsTooLarge);
        }
        incomplete.parts.push(part);
        incomplete.missing -= 1;
        if incomplete.missing > 0 {
            self.0 = Some(incomplete);
            return Ok(None);
        }
        Ok(Some((incomplete.packet, incomplete.parts)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::socketio::codec;

    fn awaiting(text: &str) -> Attachments {
        let mut attachments = Attachments::default();
        let packet = codec::parse(&text.into(), 10).unwrap();
        assert_eq!(attachments.handle_packet(packet), None);
        attachments
    }

    #[test]
    fn packet_is_complete_with_its_last_part() {
        let text = r#"52-["a",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#;
        let mut attachments = awaiting(text);
        assert_eq!(attachments.handle_part("x".into(), 10), Ok(None));
        let (packet, parts) = attachments.handle_part("y".into(), 10).unwrap().unwrap();
        assert!(matches!(packet, Packet::Event(_)));
        assert_eq!(parts, ["x", "y"]);
        assert_eq!(attachments.check_none_awaited(), Ok(()));
    }

    #[test]
    fn packet_without_attachments_passes() {
        let mut attachments = Attachments::default();
        let packet = codec::parse(&r#"2["a"]"#.into(), 10).unwrap();
        assert_eq!(attachments.handle_packet(packet.clone()), Some((packet, Vec::new())));
    }

    #[test]
    fn text_is_refused_while_parts_are_awaited() {
        let attachments = awaiting(r#"51-["a"]"#);
        assert_eq!(attachments.check_none_awaited(), Err(ProtocolError::UnexpectedText));
    }

    #[test]
    fn part_without_a_packet_is_refused() {
        let refused = Attachments::default().handle_part("x".into(), 10);
        assert_eq!(refused, Err(ProtocolError::UnexpectedBinary));
    }

    #[test]
    fn parts_are_bounded_together() {
        let mut attachments = awaiting(r#"62-1["a"]"#);
        assert_eq!(attachments.handle_part("12345".into(), 9), Ok(None));
        let refused = attachments.handle_part("67890".into(), 9);
        assert_eq!(refused, Err(ProtocolError::AttachmentsTooLarge));
    }

    #[test]
    fn idle_it_is_a_pointer() {
        assert_eq!(size_of::<Attachments>(), size_of::<usize>());
    }
}
