//! Messages ↔ proto types.

use bytes::Bytes;
use bytestring::ByteString;
use flotilla_proto::peers as proto;
use proto::ask::Question as AskQuestion;
use proto::message::Kind;

use super::message::{Broadcast, Message, Question};
use crate::raft::state::SocketId;
use crate::raft::wire::{WireError, target_from_wire, target_to_wire};
use crate::socketio::Payload;

pub(super) fn message_to_wire(message: Message) -> proto::Message {
    let kind = match message {
        Message::Broadcast(broadcast) => Kind::Broadcast(proto::Broadcast {
            namespace: broadcast.namespace.into_bytes(),
            applied: broadcast.applied,
            target: Some(target_to_wire(&broadcast.target)),
            payload: Some(payload_to_wire(broadcast.payload)),
            volatile: broadcast.volatile,
            ack: broadcast.ack,
            uncompressed: broadcast.uncompressed,
        }),
        Message::AckCount { request, sockets } => {
            Kind::AckCount(proto::AckCount { request, sockets })
        }
        Message::Ack { request, payload } => {
            Kind::Ack(proto::Ack { request, payload: payload.map(payload_to_wire) })
        }
        Message::Ask { request, namespace, question } => Kind::Ask(proto::Ask {
            request,
            namespace: namespace.into_bytes(),
            question: Some(question_to_wire(question)),
        }),
        Message::Answer { request, payload } => {
            Kind::Answer(proto::Answer { request, payload: payload.map(payload_to_wire) })
        }
    };
    proto::Message { kind: Some(kind) }
}

/// `None`: a message that only a later version knows. Nobody counts on it to arrive.
pub(super) fn message_from_wire(message: proto::Message) -> Result<Option<Message>, WireError> {
    let Some(kind) = message.kind else { return Ok(None) };
    Ok(Some(match kind {
        Kind::Broadcast(broadcast) => Message::Broadcast(Broadcast {
            namespace: text(broadcast.namespace)?,
            applied: broadcast.applied,
            target: target_from_wire(broadcast.target)?,
            payload: payload_from_wire(broadcast.payload.ok_or(WireError::Missing("payload"))?)?,
            volatile: broadcast.volatile,
            ack: broadcast.ack,
            uncompressed: broadcast.uncompressed,
        }),
        Kind::AckCount(proto::AckCount { request, sockets }) => {
            Message::AckCount { request, sockets }
        }
        Kind::Ack(proto::Ack { request, payload }) => {
            Message::Ack { request, payload: payload.map(payload_from_wire).transpose()? }
        }
        Kind::Ask(proto::Ask { request, namespace, question }) => Message::Ask {
            request,
            namespace: text(namespace)?,
            question: question_from_wire(question.ok_or(WireError::Missing("question"))?)?,
        },
        Kind::Answer(proto::Answer { request, payload }) => {
            Message::Answer { request, payload: payload.map(payload_from_wire).transpose()? }
        }
    }))
}

fn question_to_wire(question: Question) -> AskQuestion {
    match question {
        Question::ServerEvent(event) => AskQuestion::Event(payload_to_wire(event)),
        Question::Details(sockets) => {
            let bits: Vec<_> = sockets.into_iter().map(SocketId::to_bits).collect();
            AskQuestion::Sockets(bits.concat().into())
        }
    }
}

fn question_from_wire(question: AskQuestion) -> Result<Question, WireError> {
    match question {
        AskQuestion::Event(event) => Ok(Question::ServerEvent(payload_from_wire(event)?)),
        AskQuestion::Sockets(bytes) => {
            let (ids, rest) = bytes.as_chunks();
            if !rest.is_empty() {
                return Err(WireError::Invalid("sockets"));
            }
            Ok(Question::Details(ids.iter().copied().map(SocketId::from_bits).collect()))
        }
    }
}

fn payload_to_wire(payload: Payload) -> proto::Payload {
    proto::Payload { json: payload.json.into_bytes(), attachments: payload.attachments }
}

/// The JSON is not checked again: it was when it came in at the sender, which is one of us.
fn payload_from_wire(payload: proto::Payload) -> Result<Payload, WireError> {
    Ok(Payload { json: text(payload.json)?, attachments: payload.attachments })
}

fn text(bytes: Bytes) -> Result<ByteString, WireError> {
    ByteString::try_from(bytes).map_err(|_| WireError::Invalid("text"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;
    use serde_json::json;
    use smallvec::smallvec;

    use super::*;
    use crate::raft::state::{SessionFilter, Target};

    fn broadcast() -> Broadcast {
        Broadcast {
            namespace: "/chat".into(),
            applied: 7,
            target: Target {
                rooms: smallvec!["a".into(), "ü".into()],
                except: smallvec!["b".into()],
                filter: Some(SessionFilter::try_from(json!({"name": "ann"})).unwrap()),
            },
            payload: Payload {
                json: r#"["msg",{"_placeholder":true,"num":0}]"#.into(),
                attachments: vec![Bytes::from_static(&[0, 255])],
            },
            volatile: true,
            ack: Some(0),
            uncompressed: true,
        }
    }

    fn ask(request: Option<u64>, question: Question) -> Message {
        Message::Ask { request, namespace: "/chat".into(), question }
    }

    #[test]
    fn every_message_survives_its_wire_form() {
        for message in [
            Message::Broadcast(broadcast()),
            Message::Broadcast(Broadcast { ack: None, target: Target::default(), ..broadcast() }),
            Message::AckCount { request: u64::MAX, sockets: 3 },
            Message::Ack { request: 0, payload: None },
            Message::Ack { request: 1, payload: Some(broadcast().payload) },
            ask(None, Question::ServerEvent(broadcast().payload)),
            ask(Some(0), Question::Details(Vec::new())),
            ask(Some(7), Question::Details(vec![SocketId::random(), SocketId::random()])),
            Message::Answer { request: 2, payload: None },
            Message::Answer { request: 3, payload: Some(broadcast().payload) },
        ] {
            let bytes = Bytes::from(message_to_wire(message.clone()).encode_to_vec());
            let decoded = proto::Message::decode(bytes).unwrap();
            assert_eq!(message_from_wire(decoded), Ok(Some(message)));
        }
    }

    #[test]
    fn message_of_a_later_version_is_passed_over() {
        assert_eq!(message_from_wire(proto::Message { kind: None }), Ok(None));
    }

    #[test]
    fn texts_must_be_utf8() {
        let mut message = proto::Broadcast {
            target: Some(target_to_wire(&Target::default())),
            payload: Some(proto::Payload::default()),
            ..proto::Broadcast::default()
        };
        message.namespace = Bytes::from_static(&[0xff]);
        let message = proto::Message { kind: Some(Kind::Broadcast(message)) };
        assert_eq!(message_from_wire(message), Err(WireError::Invalid("text")));
    }

    #[test]
    fn broadcast_must_be_whole() {
        let message = proto::Message { kind: Some(Kind::Broadcast(proto::Broadcast::default())) };
        assert_eq!(message_from_wire(message), Err(WireError::Missing("target")));
    }

    #[test]
    fn questions_must_be_whole() {
        let ask = proto::Ask { question: None, ..proto::Ask::default() };
        let message = proto::Message { kind: Some(Kind::Ask(ask)) };
        assert_eq!(message_from_wire(message), Err(WireError::Missing("question")));
        let sockets = Some(AskQuestion::Sockets(Bytes::from_static(&[0; 16])));
        let ask = proto::Ask { question: sockets, ..proto::Ask::default() };
        let message = proto::Message { kind: Some(Kind::Ask(ask)) };
        assert_eq!(message_from_wire(message), Err(WireError::Invalid("sockets")));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(message) = proto::Message::decode(Bytes::from(bytes)) {
                let _ = message_from_wire(message);
            }
        }
    }
}
