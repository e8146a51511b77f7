//! Packets in the form they leave in, made once for all recipients.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::legacy::LegacyForms;
use crate::engineio::v3::{Form, Piece};
use crate::engineio::{Encoding, Message};
use crate::metrics;
use crate::socketio::Payload;
use crate::socketio::codec::{Header, Kind};

/// A packet in the form it leaves in: complete WebSocket frames, and lazily the polling form.
///
/// A Socket.IO packet with attachments is several frames: the text, then each attachment.
/// Recipients share one `Encoded`; it is made once for each packet and node.
#[derive(Debug)]
pub struct Encoded {
    frames: Box<[u8]>,
    polling: OnceLock<Box<[u8]>>,
    legacy: LegacyForms,
    /// Better lost than late: it makes way for others in a full outbox.
    pub(super) is_volatile: bool,
    /// By itself it is no reason to compress a response that it is in.
    is_uncompressed: bool,
    /// When it was encoded, unless its recipients were away then.
    encoded_at: Option<Instant>,
}

impl Encoded {
    /// A Socket.IO packet; events and acks with attachments become their binary kinds.
    pub fn packet(kind: Kind, namespace: &str, id: Option<u64>, payload: &Payload) -> Arc<Self> {
        Self::pieces(kind, namespace, id, &[&payload.json], &payload.attachments)
    }

    /// A Socket.IO packet whose JSON is put together from `json`.
    pub fn pieces(
        kind: Kind,
        namespace: &str,
        id: Option<u64>,
        json: &[&str],
        attachments: &[Bytes],
    ) -> Arc<Self> {
        let kind = match kind {
            Kind::Event if !attachments.is_empty() => Kind::BinaryEvent,
            Kind::Ack if !attachments.is_empty() => Kind::BinaryAck,
            kind => kind,
        };
        let header = Header { kind, attachments: attachments.len(), namespace, id };
        let text_len = 1 + header.text_len() + json.iter().copied().map(str::len).sum::<usize>();
        let binary_len = attachments.iter().map(|bytes| frame_len(bytes.len())).sum::<usize>();
        let mut frames = Vec::with_capacity(frame_len(text_len) + binary_len);
        write_frame_header(OpCode::Data(Data::Text), text_len, &mut frames);
        frames.push(b'4');
        header.write(&mut frames);
        for piece in json {
            frames.extend_from_slice(piece.as_bytes());
        }
        for bytes in attachments {
            write_frame_header(OpCode::Data(Data::Binary), bytes.len(), &mut frames);
            frames.extend_from_slice(bytes);
        }
        metrics::ENCODES.add(1);
        Arc::new(Self::from_frames(frames))
    }

    /// Engine.IO messages, such as those that another parser than the default one makes of a packet.
    pub fn messages(messages: &[Message]) -> Arc<Self> {
        let mut frames = Vec::new();
        for message in messages {
            match message {
                Message::Text(text) => {
                    write_frame_header(OpCode::Data(Data::Text), 1 + text.len(), &mut frames);
                    frames.push(b'4');
                    frames.extend_from_slice(text.as_bytes());
                }
                Message::Binary(bytes) => {
                    frames.reserve_exact(frame_len(bytes.len()));
                    write_frame_header(OpCode::Data(Data::Binary), bytes.len(), &mut frames);
                    frames.extend_from_slice(bytes);
                }
            }
        }
        metrics::ENCODES.add(1);
        Arc::new(Self::from_frames(frames))
    }

    /// One Engine.IO packet of text (its type digit included), such as `2` or `0{…}`.
    pub fn engine_text(text: &str) -> Arc<Self> {
        let mut frames = Vec::with_capacity(frame_len(text.len()));
        write_frame_header(OpCode::Data(Data::Text), text.len(), &mut frames);
        frames.extend_from_slice(text.as_bytes());
        Arc::new(Self::from_frames(frames))
    }

    /// One WebSocket control frame: at most 125 bytes, and no part of any polling body.
    pub fn control(kind: Control, content: &[u8]) -> Arc<Self> {
        let mut frames = Vec::with_capacity(frame_len(content.len()));
        write_frame_header(OpCode::Control(kind), content.len(), &mut frames);
        frames.extend_from_slice(content);
        Arc::new(Self::from_frames(frames))
    }

    fn from_frames(frames: Vec<u8>) -> Self {
        Self {
            frames: frames.into_boxed_slice(),
            polling: OnceLock::new(),
            legacy: LegacyForms::default(),
            is_volatile: false,
            is_uncompressed: false,
            encoded_at: Some(Instant::now()),
        }
    }

    /// Marks a packet that nobody shares yet as volatile.
    pub fn into_volatile(mut self: Arc<Self>) -> Arc<Self> {
        if let Some(packet) = Arc::get_mut(&mut self) {
            packet.is_volatile = true;
        }
        self
    }

    /// Marks a packet that nobody shares yet as none to compress a response for.
    pub fn into_uncompressed(mut self: Arc<Self>) -> Arc<Self> {
        if let Some(packet) = Arc::get_mut(&mut self) {
            packet.is_uncompressed = true;
        }
        self
    }

    /// Marks a packet that nobody shares yet as one that its recipients missed: it may be sent to the
    /// last of them long after it was encoded for the first.
    pub fn into_replay(mut self: Arc<Self>) -> Arc<Self> {
        if let Some(packet) = Arc::get_mut(&mut self) {
            packet.encoded_at = None;
        }
        self
    }

    /// How long it has been on its way, for the delivery delay; none if its recipients missed it.
    pub fn delay(&self, now: Instant) -> Option<Duration> {
        self.encoded_at.map(|encoded_at| now.duration_since(encoded_at))
    }

    /// Whether a response that it is in may be compressed for its sake.
    pub fn is_compressible(&self) -> bool {
        !self.is_uncompressed
    }

    /// The WebSocket frames, unmasked.
    pub fn frames(&self) -> &[u8] {
        &self.frames
    }

    /// The WebSocket frames for a transport of that encoding. The generations share frames of text.
    pub fn frames_in(&self, encoding: Encoding) -> &[u8] {
        match encoding {
            Encoding::V4 => &self.frames,
            _ if !self.has_bytes() => &self.frames,
            Encoding::V3Bytes => self.legacy.bytes_frames(&self.frames),
            Encoding::V3Text => self.legacy.text_frames(&self.frames),
        }
    }

    /// Whether any of it is bytes, such as an attachment.
    pub fn has_bytes(&self) -> bool {
        pieces(&self.frames).any(|piece| matches!(piece, Piece::Bytes(_)))
    }

    /// The packets of an HTTP long-polling body in a form of Engine.IO 3.
    pub fn polling_v3(&self, form: Form) -> &[u8] {
        self.legacy.polling(&self.frames, form)
    }

    /// The packets of an HTTP long-polling body, separated by `\x1e` (Engine.IO v4, "Payload").
    pub fn polling(&self) -> &[u8] {
        self.polling.get_or_init(|| polling_form(&self.frames).into_boxed_slice())
    }
}

/// A frame of ours: 2 bytes, and 2 or 8 of length, before its content. Known ahead, so that frames
/// are allocated once, at their size.
pub(super) fn frame_len(content: usize) -> usize {
    let header = match content {
        0..126 => 2,
        126..65_536 => 4,
        _ => 10,
    };
    header + content
}

pub(super) fn write_frame_header(opcode: OpCode, len: usize, out: &mut Vec<u8>) {
    let header = FrameHeader { opcode, ..FrameHeader::default() };
    header.format(len as u64, out).expect("writing to memory does not fail");
}

/// The content of each frame that carries a packet; a control frame carries none.
pub(super) fn pieces(mut frames: &[u8]) -> impl Iterator<Item = Piece<'_>> {
    let contents = std::iter::from_fn(move || {
        let opcode = frames.first()? & 0x0f;
        let (start, len) = match frames[1] {
            126 => (4, usize::from(u16::from_be_bytes([frames[2], frames[3]]))),
            127 => {
                let len: [u8; 8] =
                    frames[2..10].try_into().expect("a long header has eight bytes of length");
                (10, u64::from_be_bytes(len) as usize)
            }
            len => (2, usize::from(len)),
        };
        let content = &frames[start..start + len];
        frames = &frames[start + len..];
        Some((opcode, content))
    });
    contents.filter_map(|(opcode, content)| match opcode {
        1 => Some(Piece::Text(content)),
        2 => Some(Piece::Bytes(content)),
        _ => None,
    })
}

fn polling_form(frames: &[u8]) -> Vec<u8> {
    let mut body = Vec::with_capacity(frames.len() + 8);
    for piece in pieces(frames) {
        if !body.is_empty() {
            body.push(0x1e);
        }
        match piece {
            Piece::Text(text) => body.extend_from_slice(text),
            Piece::Bytes(bytes) => {
                body.push(b'b');
                body.extend_from_slice(STANDARD.encode(bytes).as_bytes());
            }
        }
    }
    body
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn payload(json: &str, attachments: &[&'static [u8]]) -> Payload {
        let attachments = attachments.iter().map(|bytes| Bytes::from_static(bytes)).collect();
        Payload { json: json.into(), attachments }
    }

    #[test]
    fn packet_is_a_text_frame_and_a_polling_packet() {
        let encoded = Encoded::packet(Kind::Event, "/chat", Some(7), &payload(r#"["hi"]"#, &[]));
        assert_eq!(encoded.frames(), b"\x81\x0f42/chat,7[\"hi\"]");
        assert_eq!(encoded.polling(), b"42/chat,7[\"hi\"]");
    }

    #[test]
    fn attachments_follow_as_binary_frames_or_base64() {
        let json = r#"[{"_placeholder":true,"num":0}]"#;
        let encoded = Encoded::packet(Kind::Ack, "/", Some(1), &payload(json, &[b"\x01\x02\x03"]));
        assert!(encoded.frames().ends_with(b"\x82\x03\x01\x02\x03"));
        let polling = format!("461-1{json}\x1ebAQID");
        assert_eq!(encoded.polling(), polling.as_bytes());
    }

    proptest! {
        #[test]
        fn polling_form_has_the_content_of_the_frames(text in ".{0,300}", attachments in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..70_000), 0..3)) {
            let json = serde_json::to_string(&[&text]).unwrap();
            let payload = Payload { json: json.clone().into(), attachments: attachments.iter().cloned().map(Bytes::from).collect() };
            let encoded = Encoded::packet(Kind::Event, "/", None, &payload);
            let polling = String::from_utf8(encoded.polling().to_vec()).unwrap();
            let mut parts = polling.split('\x1e');
            let head = parts.next().unwrap();
            prop_assert!(head.ends_with(&json));
            for (part, bytes) in parts.zip(&attachments) {
                prop_assert_eq!(&STANDARD.decode(&part[1..]).unwrap(), bytes);
            }
        }
    }
}
