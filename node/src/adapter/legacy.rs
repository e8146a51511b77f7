//! The forms of a packet for clients of Engine.IO 3, built when the first of them needs one.

use std::sync::OnceLock;

use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use super::encoded::{frame_len, pieces, write_frame_header};
use crate::engineio::v3::{self, Form, Piece};

/// Most packets have none of them: one pointer then.
#[derive(Debug, Default)]
pub(super) struct LegacyForms(OnceLock<Box<Forms>>);

#[derive(Debug, Default)]
struct Forms {
    bytes_frames: OnceLock<Box<[u8]>>,
    text_frames: OnceLock<Box<[u8]>>,
    polling_text: OnceLock<Box<[u8]>>,
    polling_bytes: OnceLock<Box<[u8]>>,
}

impl LegacyForms {
    /// `frames` are revision 4's, here and below. Binary frames begin with the type of a message.
    pub(super) fn bytes_frames(&self, frames: &[u8]) -> &[u8] {
        self.forms().bytes_frames.get_or_init(|| {
            frames_of(frames, |bytes, out| {
                write_frame_header(OpCode::Data(Data::Binary), bytes.len() + 1, out);
                out.push(v3::MESSAGE);
                out.extend_from_slice(bytes);
            })
        })
    }

    /// Attachments are text as well, for clients that take no bytes.
    pub(super) fn text_frames(&self, frames: &[u8]) -> &[u8] {
        self.forms().text_frames.get_or_init(|| {
            frames_of(frames, |bytes, out| {
                let text = v3::base64_text(bytes);
                write_frame_header(OpCode::Data(Data::Text), text.len(), out);
                out.extend_from_slice(text.as_bytes());
            })
        })
    }

    /// The packets in a payload.
    pub(super) fn polling(&self, frames: &[u8], form: Form) -> &[u8] {
        let forms = self.forms();
        let cell = match form {
            Form::Text => &forms.polling_text,
            Form::Bytes => &forms.polling_bytes,
        };
        cell.get_or_init(|| {
            let mut body = Vec::with_capacity(frames.len() + 8);
            pieces(frames).for_each(|piece| v3::append(piece, form, &mut body));
            body.into_boxed_slice()
        })
    }

    fn forms(&self) -> &Forms {
        self.0.get_or_init(Box::default)
    }
}

fn frames_of(frames: &[u8], mut write_bytes: impl FnMut(&[u8], &mut Vec<u8>)) -> Box<[u8]> {
    let mut out = Vec::with_capacity(frame_len(frames.len()));
    for piece in pieces(frames) {
        match piece {
            Piece::Text(text) => {
                write_frame_header(OpCode::Data(Data::Text), text.len(), &mut out);
                out.extend_from_slice(text);
            }
            Piece::Bytes(bytes) => write_bytes(bytes, &mut out),
        }
    }
    out.into_boxed_slice()
}

#[cfg(test)]
mod tests {
    use tokio_tungstenite::tungstenite::protocol::frame::coding::Control;

    use crate::adapter::Encoded;
    use crate::engineio::Encoding;
    use crate::socketio::Payload;
    use crate::socketio::codec::Kind;

    use super::*;

    fn event(json: &str, attachments: &[&'static [u8]]) -> std::sync::Arc<Encoded> {
        let attachments = attachments.iter().map(|bytes| (*bytes).into()).collect();
        let payload = Payload { json: json.into(), attachments };
        Encoded::packet(Kind::Event, "/", None, &payload)
    }

    #[test]
    fn generations_share_the_frames_of_text() {
        let encoded = event(r#"["é"]"#, &[]);
        for encoding in [Encoding::V3Bytes, Encoding::V3Text] {
            assert!(std::ptr::eq(encoded.frames_in(encoding), encoded.frames()));
        }
        assert!(!encoded.has_bytes());
        assert_eq!(encoded.polling_v3(Form::Text), "7:42[\"é\"]".as_bytes());
    }

    #[test]
    fn control_frames_are_the_same_for_all_and_no_packets() {
        let pong = Encoded::control(Control::Pong, b"abc");
        for encoding in [Encoding::V3Bytes, Encoding::V3Text] {
            assert_eq!(pong.frames_in(encoding), b"\x8a\x03abc");
        }
        assert_eq!(pong.polling_v3(Form::Text), b"");
    }

    #[test]
    fn attachments_carry_their_type_or_become_text() {
        let encoded = event("[0]", &[&[1, 2, 3]]);
        assert!(encoded.has_bytes());
        assert_eq!(encoded.frames(), b"\x81\x07451-[0]\x82\x03\x01\x02\x03");
        assert_eq!(
            encoded.frames_in(Encoding::V3Bytes),
            b"\x81\x07451-[0]\x82\x04\x04\x01\x02\x03"
        );
        assert_eq!(encoded.frames_in(Encoding::V3Text), b"\x81\x07451-[0]\x81\x06b4AQID");
        assert_eq!(encoded.polling_v3(Form::Text), b"7:451-[0]6:b4AQID");
        assert_eq!(
            encoded.polling_v3(Form::Bytes),
            b"\x00\x07\xff451-[0]\x01\x04\xff\x04\x01\x02\x03"
        );
    }

    #[test]
    fn each_form_is_built_once_and_the_frames_of_revision_4_stay() {
        let encoded = event("[0]", &[&[7; 300]]);
        for encoding in [Encoding::V4, Encoding::V3Bytes, Encoding::V3Text] {
            let first = encoded.frames_in(encoding);
            assert!(std::ptr::eq(first, encoded.frames_in(encoding)));
        }
        for form in [Form::Text, Form::Bytes] {
            assert!(std::ptr::eq(encoded.polling_v3(form), encoded.polling_v3(form)));
        }
        assert!(std::ptr::eq(encoded.frames_in(Encoding::V4), encoded.frames()));
    }
}
