//! Proposals, as they are stored in the log.

use bytes::Bytes;
use bytestring::ByteString;
use flotilla_proto::raft as proto;
use prost::Message;
use prost::encoding::{self, WireType};
use proto::change::Kind;

use super::WireError;
use crate::raft::state::{
    Change, NodeUp, Packet, Pid, Place, Proposal, RecoveryTerms, Rooms, SessionFilter, SessionId,
    SocketClaim, SocketId, SocketUp, Target,
};
use crate::socketio::Payload;

/// The numbers of the fields that are written here without their messages (`raft.proto`).
mod field {
    pub(super) const NODE: u32 = 1;
    pub(super) const INCARNATION: u32 = 2;
    pub(super) const FIRST_SEQ: u32 = 3;
    pub(super) const STAMP_MS: u32 = 4;
    pub(super) const CHANGES: u32 = 5;
    pub(super) const JOIN: u32 = 6;
    pub(super) const LEAVE: u32 = 7;
    pub(super) const SOCKET: u32 = 1;
    pub(super) const ROOMS: u32 = 2;
}

/// So much of an entry is set aside for each change: an id, and a text of some length.
const USUAL_CHANGE_BYTES: usize = 64;

pub(crate) fn encode_proposal(proposal: &Proposal) -> Bytes {
    let mut out = Vec::with_capacity((proposal.changes.len() + 1) * USUAL_CHANGE_BYTES);
    for (number, value) in [
        (field::NODE, proposal.node),
        (field::INCARNATION, proposal.incarnation),
        (field::FIRST_SEQ, proposal.first_seq),
        (field::STAMP_MS, proposal.stamp_ms),
    ] {
        // As every message leaves out what has its default.
        if value != 0 {
            encoding::uint64::encode(number, &value, &mut out);
        }
    }
    for change in &proposal.changes {
        match change {
            Change::Join { socket, rooms } => encode_rooms(field::JOIN, socket, rooms, &mut out),
            Change::Leave { socket, rooms } => encode_rooms(field::LEAVE, socket, rooms, &mut out),
            change => {
                encoding::message::encode(field::CHANGES, &change_to_wire(change), &mut out);
            }
        }
    }
    out.into()
}

/// A `SocketRooms` in a `Change`: most changes are of these, and need no message of their own to be written from.
fn encode_rooms(kind: u32, socket: &SocketId, rooms: &[ByteString], out: &mut Vec<u8>) {
    let text_len = |number: u32, len: usize| {
        encoding::key_len(number) + encoding::encoded_len_varint(len as u64) + len
    };
    let socket = socket.as_bytes();
    let rooms_len = rooms.iter().map(|room| text_len(field::ROOMS, room.len())).sum::<usize>();
    let inner_len = text_len(field::SOCKET, socket.len()) + rooms_len;
    let mut begin = |number: u32, len: usize, text: &[u8]| {
        encoding::encode_key(number, WireType::LengthDelimited, out);
        encoding::encode_varint(len as u64, out);
        out.extend_from_slice(text);
    };
    begin(field::CHANGES, text_len(kind, inner_len), &[]);
    begin(kind, inner_len, &[]);
    begin(field::SOCKET, socket.len(), socket);
    for room in rooms {
        begin(field::ROOMS, room.len(), room.as_bytes());
    }
}

/// Texts and attachments of the result are slices of `bytes`.
pub(crate) fn decode_proposal(bytes: &Bytes) -> Result<Proposal, WireError> {
    let [mut node, mut incarnation, mut first_seq, mut stamp_ms] = [0; 4];
    let mut changes = Vec::with_capacity(bytes.len() / USUAL_CHANGE_BYTES + 1);
    let mut rest: &[u8] = bytes;
    while !rest.is_empty() {
        let number = match decode_key(&mut rest)? {
            (field::NODE, WireType::Varint) => &mut node,
            (field::INCARNATION, WireType::Varint) => &mut incarnation,
            (field::FIRST_SEQ, WireType::Varint) => &mut first_seq,
            (field::STAMP_MS, WireType::Varint) => &mut stamp_ms,
            (field::CHANGES, WireType::LengthDelimited) => {
                let change = decode_slice(&mut rest)?;
                changes.push(match rooms_change(bytes, change) {
                    Some(change) => change,
                    None => decode_change(bytes.slice_ref(change))?,
                });
                continue;
            }
            (field::NODE..=field::CHANGES, _) => return Err(WireError::Malformed),
            (unknown, wire_type) => {
                let context = encoding::DecodeContext::default();
                encoding::skip_field(wire_type, unknown, &mut rest, context)
                    .map_err(|_| WireError::Malformed)?;
                continue;
            }
        };
        *number = decode_varint(&mut rest)?;
    }
    Ok(Proposal { node, incarnation, first_seq, stamp_ms, changes })
}

fn decode_varint(rest: &mut &[u8]) -> Result<u64, WireError> {
    match rest.split_first() {
        Some((byte, after)) if *byte < 0x80 => {
            *rest = after;
            Ok(u64::from(*byte))
        }
        _ => encoding::decode_varint(rest).map_err(|_| WireError::Malformed),
    }
}

fn decode_key(rest: &mut &[u8]) -> Result<(u32, WireType), WireError> {
    let key = u32::try_from(decode_varint(rest)?).map_err(|_| WireError::Malformed)?;
    let wire_type = WireType::try_from(u64::from(key & 7)).map_err(|_| WireError::Malformed)?;
    if key < 8 { Err(WireError::Malformed) } else { Ok((key >> 3, wire_type)) }
}

/// What a length and so many bytes stand for.
fn decode_slice<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], WireError> {
    let len = usize::try_from(decode_varint(rest)?).map_err(|_| WireError::Malformed)?;
    let (slice, after) = rest.split_at_checked(len).ok_or(WireError::Malformed)?;
    *rest = after;
    Ok(slice)
}

/// The other end of [`encode_rooms`]. None for all other changes, and for messages that are wrong, or written in another way.
fn rooms_change(bytes: &Bytes, mut change: &[u8]) -> Option<Change> {
    let (kind, WireType::LengthDelimited) = decode_key(&mut change).ok()? else { return None };
    let mut rest = decode_slice(&mut change).ok()?;
    if !change.is_empty()
        || decode_key(&mut rest).ok()? != (field::SOCKET, WireType::LengthDelimited)
    {
        return None;
    }
    let socket = decode_slice(&mut rest).ok()?;
    let mut rooms = Rooms::new();
    while !rest.is_empty() {
        if decode_key(&mut rest).ok()? != (field::ROOMS, WireType::LengthDelimited) {
            return None;
        }
        rooms.push(text(bytes.slice_ref(decode_slice(&mut rest).ok()?)).ok()?);
    }
    let socket = socket_id(socket).ok()?;
    match kind {
        field::JOIN => Some(Change::Join { socket, rooms }),
        field::LEAVE => Some(Change::Leave { socket, rooms }),
        _ => None,
    }
}

fn decode_change(bytes: Bytes) -> Result<Change, WireError> {
    change_from_wire(proto::Change::decode(bytes).map_err(|_| WireError::Malformed)?)
}

fn change_to_wire(change: &Change) -> proto::Change {
    let kind = match change {
        Change::NodeUp(node) => Kind::NodeUp(proto::NodeUp {
            boot: node.boot,
            name: text_to_wire(&node.name),
            address: text_to_wire(&node.address),
            version: text_to_wire(&node.version),
        }),
        Change::NodeDraining => Kind::NodeDraining(proto::NodeDraining {}),
        Change::NodeDown { node, incarnation } => {
            Kind::NodeDown(proto::NodeDown { node: *node, incarnation: *incarnation })
        }
        Change::SocketUp(up) => Kind::SocketUp(proto::SocketUp {
            socket: id_to_wire(up.socket.as_str()),
            pid: id_to_wire(up.pid.as_str()),
            namespace: text_to_wire(&up.namespace),
            session: id_to_wire(up.session.as_str()),
            rooms: texts_to_wire(&up.rooms),
            keep_session_ms: up.keep_session_ms,
            recovery: up.recovery.map(|terms| proto::RecoveryTerms {
                max_age_ms: terms.max_age_ms,
                max_bytes: terms.max_bytes,
            }),
        }),
        Change::SocketGone { socket, claim } => Kind::SocketGone(proto::SocketGone {
            socket: id_to_wire(socket.as_str()),
            claim: *claim,
        }),
        Change::Join { socket, rooms } => Kind::Join(socket_rooms_to_wire(*socket, rooms)),
        Change::Leave { socket, rooms } => Kind::Leave(socket_rooms_to_wire(*socket, rooms)),
        Change::JoinMatching { namespace, target, rooms } => {
            Kind::JoinMatching(target_rooms_to_wire(namespace, target, rooms))
        }
        Change::LeaveMatching { namespace, target, rooms } => {
            Kind::LeaveMatching(target_rooms_to_wire(namespace, target, rooms))
        }
        Change::DisconnectMatching { namespace, target, close } => {
            Kind::DisconnectMatching(proto::DisconnectMatching {
                namespace: text_to_wire(namespace),
                target: Some(target_to_wire(target)),
                close: *close,
            })
        }
        Change::SessionPut { session, expected, salt, value } => {
            Kind::SessionPut(proto::SessionPut {
                session: id_to_wire(session.as_str()),
                expected: *expected,
                value: text_to_wire(value),
                salt: *salt,
            })
        }
        Change::SessionExpired { session, revision } => {
            Kind::SessionExpired(proto::SessionExpired {
                session: id_to_wire(session.as_str()),
                revision: *revision,
            })
        }
        Change::SessionTouch { session, keep_ms } => Kind::SessionTouch(proto::SessionTouch {
            session: id_to_wire(session.as_str()),
            keep_ms: *keep_ms,
        }),
        Change::SessionDestroy { session } => {
            Kind::SessionDestroy(proto::SessionDestroy { session: id_to_wire(session.as_str()) })
        }
        Change::Packet(packet) => Kind::Packet(proto::Packet {
            namespace: text_to_wire(&packet.namespace),
            target: Some(target_to_wire(&packet.target)),
            json: text_to_wire(&packet.payload.json),
            attachments: packet.payload.attachments.clone(),
            ack: packet.ack,
            uncompressed: packet.uncompressed,
        }),
        Change::SocketDetached { socket, claim, data } => {
            Kind::SocketDetached(proto::SocketDetached {
                socket: id_to_wire(socket.as_str()),
                claim: *claim,
                data: data.as_ref().map(text_to_wire),
            })
        }
        Change::SocketClaim(claim) => Kind::SocketClaim(proto::SocketClaim {
            socket: id_to_wire(claim.socket.as_str()),
            pid: id_to_wire(claim.pid.as_str()),
            namespace: text_to_wire(&claim.namespace),
            offset_index: claim.offset.index,
            offset_position: claim.offset.position,
            key: claim.key,
            renews: claim.renews,
        }),
        Change::HearDeparted => Kind::HearDeparted(proto::HearDeparted {}),
        Change::DepartedTold { end } => Kind::DepartedTold(proto::DepartedTold { end: *end }),
        Change::WindowExpired { namespace } => {
            Kind::WindowExpired(proto::WindowExpired { namespace: text_to_wire(namespace) })
        }
    };
    proto::Change { kind: Some(kind) }
}

fn change_from_wire(change: proto::Change) -> Result<Change, WireError> {
    Ok(match change.kind.ok_or(WireError::Missing("change"))? {
        Kind::NodeUp(node) => Change::NodeUp(Box::new(NodeUp {
            boot: node.boot,
            name: text(node.name)?,
            address: text(node.address)?,
            version: text(node.version)?,
        })),
        Kind::NodeDraining(proto::NodeDraining {}) => Change::NodeDraining,
        Kind::NodeDown(down) => Change::NodeDown { node: down.node, incarnation: down.incarnation },
        Kind::SocketUp(up) => Change::SocketUp(Box::new(SocketUp {
            socket: socket_id(&up.socket)?,
            pid: pid(&up.pid)?,
            namespace: text(up.namespace)?,
            session: session_id(&up.session)?,
            rooms: texts(up.rooms)?,
            keep_session_ms: up.keep_session_ms,
            recovery: up.recovery.map(|terms| RecoveryTerms {
                max_age_ms: terms.max_age_ms,
                max_bytes: terms.max_bytes,
            }),
        })),
        Kind::SocketGone(gone) => {
            Change::SocketGone { socket: socket_id(&gone.socket)?, claim: gone.claim }
        }
        Kind::Join(join) => {
            Change::Join { socket: socket_id(&join.socket)?, rooms: texts(join.rooms)? }
        }
        Kind::Leave(leave) => {
            Change::Leave { socket: socket_id(&leave.socket)?, rooms: texts(leave.rooms)? }
        }
        Kind::JoinMatching(join) => Change::JoinMatching {
            namespace: text(join.namespace)?,
            target: Box::new(target(join.target)?),
            rooms: texts(join.rooms)?,
        },
        Kind::LeaveMatching(leave) => Change::LeaveMatching {
            namespace: text(leave.namespace)?,
            target: Box::new(target(leave.target)?),
            rooms: texts(leave.rooms)?,
        },
        Kind::DisconnectMatching(disconnect) => Change::DisconnectMatching {
            namespace: text(disconnect.namespace)?,
            target: Box::new(target(disconnect.target)?),
            close: disconnect.close,
        },
        Kind::SessionPut(put) => Change::SessionPut {
            session: session_id(&put.session)?,
            expected: put.expected,
            salt: put.salt,
            value: text(put.value)?,
        },
        Kind::SessionExpired(expired) => Change::SessionExpired {
            session: session_id(&expired.session)?,
            revision: expired.revision,
        },
        Kind::SessionTouch(touch) => {
            Change::SessionTouch { session: session_id(&touch.session)?, keep_ms: touch.keep_ms }
        }
        Kind::SessionDestroy(destroy) => {
            Change::SessionDestroy { session: session_id(&destroy.session)? }
        }
        Kind::Packet(packet) => Change::Packet(Box::new(Packet {
            namespace: text(packet.namespace)?,
            target: target(packet.target)?,
            payload: Payload { json: text(packet.json)?, attachments: packet.attachments },
            ack: packet.ack,
            uncompressed: packet.uncompressed,
        })),
        Kind::SocketDetached(detached) => {
            let data = detached.data.map(text).transpose()?;
            let socket = socket_id(&detached.socket)?;
            Change::SocketDetached { socket, claim: detached.claim, data }
        }
        Kind::SocketClaim(claim) => Change::SocketClaim(Box::new(SocketClaim {
            socket: socket_id(&claim.socket)?,
            pid: pid(&claim.pid)?,
            namespace: text(claim.namespace)?,
            offset: Place { index: claim.offset_index, position: claim.offset_position },
            key: claim.key,
            renews: claim.renews,
        })),
        Kind::HearDeparted(proto::HearDeparted {}) => Change::HearDeparted,
        Kind::DepartedTold(told) => Change::DepartedTold { end: told.end },
        Kind::WindowExpired(expired) => {
            Change::WindowExpired { namespace: text(expired.namespace)? }
        }
    })
}

fn socket_rooms_to_wire(socket: SocketId, rooms: &[ByteString]) -> proto::SocketRooms {
    proto::SocketRooms { socket: id_to_wire(socket.as_str()), rooms: texts_to_wire(rooms) }
}

fn target_rooms_to_wire(
    namespace: &ByteString,
    target: &Target,
    rooms: &[ByteString],
) -> proto::TargetRooms {
    proto::TargetRooms {
        namespace: text_to_wire(namespace),
        target: Some(target_to_wire(target)),
        rooms: texts_to_wire(rooms),
    }
}

pub(crate) fn target_to_wire(target: &Target) -> proto::Target {
    proto::Target {
        rooms: texts_to_wire(&target.rooms),
        except: texts_to_wire(&target.except),
        filter: target.filter.as_ref().map(filter_to_wire),
    }
}

fn filter_to_wire(filter: &SessionFilter) -> Bytes {
    let object = filter.pairs().iter().cloned().collect::<serde_json::Map<_, _>>();
    serde_json::to_vec(&object).expect("scalars under text keys are JSON").into()
}

pub(crate) fn target(target: Option<proto::Target>) -> Result<Target, WireError> {
    let target = target.ok_or(WireError::Missing("target"))?;
    Ok(Target {
        rooms: texts(target.rooms)?,
        except: texts(target.except)?,
        filter: target.filter.as_deref().map(filter).transpose()?,
    })
}

fn filter(json: &[u8]) -> Result<SessionFilter, WireError> {
    let value = serde_json::from_slice::<serde_json::Value>(json)
        .map_err(|_| WireError::Invalid("filter"))?;
    SessionFilter::try_from(value).map_err(|_| WireError::Invalid("filter"))
}

fn text_to_wire(text: &ByteString) -> Bytes {
    text.as_bytes().clone()
}

fn texts_to_wire(texts: &[ByteString]) -> Vec<Bytes> {
    texts.iter().map(text_to_wire).collect()
}

fn id_to_wire(id: &str) -> Bytes {
    Bytes::copy_from_slice(id.as_bytes())
}

fn text(bytes: Bytes) -> Result<ByteString, WireError> {
    ByteString::try_from(bytes).map_err(|_| WireError::Invalid("text"))
}

fn texts<T: FromIterator<ByteString>>(all: Vec<Bytes>) -> Result<T, WireError> {
    all.into_iter().map(text).collect()
}

fn ascii(bytes: &[u8]) -> Result<&str, WireError> {
    std::str::from_utf8(bytes).map_err(|_| WireError::Invalid("id"))
}

fn socket_id(bytes: &[u8]) -> Result<SocketId, WireError> {
    ascii(bytes)?.parse().map_err(|_| WireError::Invalid("socket id"))
}

fn pid(bytes: &[u8]) -> Result<Pid, WireError> {
    ascii(bytes)?.parse().map_err(|_| WireError::Invalid("pid"))
}

fn session_id(bytes: &[u8]) -> Result<SessionId, WireError> {
    ascii(bytes)?.parse().map_err(|_| WireError::Invalid("session id"))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use serde_json::json;
    use smallvec::smallvec;

    use super::*;

    fn every_change() -> Vec<Change> {
        let socket = SocketId::random();
        let session = SessionId::random();
        let rooms = smallvec![ByteString::from("a"), ByteString::from("ü")];
        let target = Target {
            rooms: smallvec![ByteString::from("a")],
            except: smallvec![ByteString::from("b")],
            filter: Some(SessionFilter::try_from(json!({"z": 1, "a": null})).unwrap()),
        };
        let namespace = ByteString::from("/");
        vec![
            Change::NodeUp(Box::new(NodeUp {
                boot: 7,
                name: "n1".into(),
                address: "127.0.0.1:1".into(),
                version: "0.1.0".into(),
            })),
            Change::NodeDraining,
            Change::NodeDown { node: 1, incarnation: 2 },
            Change::SocketUp(Box::new(SocketUp {
                socket,
                pid: Pid::random(),
                namespace: namespace.clone(),
                session,
                keep_session_ms: 6,
                rooms: rooms.clone(),
                recovery: Some(RecoveryTerms { max_age_ms: 1, max_bytes: 2 }),
            })),
            Change::SocketGone { socket, claim: 0 },
            Change::Join { socket, rooms: rooms.clone() },
            Change::Leave { socket, rooms: rooms.clone() },
            Change::JoinMatching {
                namespace: namespace.clone(),
                target: target.clone().into(),
                rooms: rooms.clone(),
            },
            Change::LeaveMatching {
                namespace: namespace.clone(),
                target: target.clone().into(),
                rooms,
            },
            Change::DisconnectMatching {
                namespace: namespace.clone(),
                target: target.into(),
                close: true,
            },
            Change::SessionPut { session, expected: 3, salt: 6, value: "{}".into() },
            Change::SessionExpired { session, revision: 4 },
            Change::SessionTouch { session, keep_ms: 5 },
            Change::SessionDestroy { session },
            Change::Packet(Box::new(Packet {
                namespace,
                target: Target::default(),
                payload: Payload {
                    json: r#"["msg",{"_placeholder":true,"num":0}]"#.into(),
                    attachments: vec![Bytes::from_static(&[0, 255])],
                },
                ack: Some(0),
                uncompressed: true,
            })),
            Change::SocketDetached { socket, claim: u64::MAX, data: None },
            Change::SocketDetached { socket, claim: 0, data: Some(r#"{"a":"ü"}"#.into()) },
            Change::SocketClaim(Box::new(SocketClaim {
                socket,
                pid: Pid::random(),
                namespace: "/chat".into(),
                offset: Place { index: 1 << 40, position: 3 },
                key: 5,
                renews: true,
            })),
            Change::WindowExpired { namespace: "/chat".into() },
            Change::HearDeparted,
            Change::DepartedTold { end: u64::MAX },
        ]
    }

    #[test]
    fn every_change_survives_its_encoded_form() {
        let proposal = Proposal {
            node: 1 << 47,
            incarnation: 9,
            first_seq: 10,
            stamp_ms: 1_700_000_000_000,
            changes: every_change(),
        };
        assert_eq!(decode_proposal(&encode_proposal(&proposal)), Ok(proposal));
    }

    #[test]
    fn proposal_is_its_message() {
        let long = ByteString::from("r".repeat(300));
        for first_seq in [0, 1, u64::MAX] {
            let (node, incarnation, stamp_ms) = (1 << 47, 0, 1_700_000_000_000);
            let mut changes = every_change();
            let rooms = smallvec![long.clone(), "".into(), long.clone()];
            changes.push(Change::Leave { socket: SocketId::random(), rooms });
            changes.push(Change::Join { socket: SocketId::random(), rooms: smallvec![] });
            let message = proto::Proposal {
                node,
                incarnation,
                first_seq,
                stamp_ms,
                changes: changes.iter().map(change_to_wire).collect(),
            };
            let proposal = Proposal { node, incarnation, first_seq, stamp_ms, changes };
            assert_eq!(encode_proposal(&proposal), message.encode_to_vec());
        }
    }

    fn decode_as_message(bytes: &Bytes) -> Result<Proposal, WireError> {
        let message = proto::Proposal::decode(bytes.clone()).map_err(|_| WireError::Malformed)?;
        let changes = message.changes.into_iter().map(change_from_wire);
        Ok(Proposal {
            node: message.node,
            incarnation: message.incarnation,
            first_seq: message.first_seq,
            stamp_ms: message.stamp_ms,
            changes: changes.collect::<Result<_, _>>()?,
        })
    }

    proptest! {
        #[test]
        fn damaged_proposal_is_what_its_message_is(
            first in 0_usize..20,
            damage in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            cut in any::<prop::sample::Index>(),
            is_cut in any::<bool>(),
        ) {
            let mut changes = every_change();
            let joins = changes.clone().into_iter().filter(|change| matches!(change.kind(), 5 | 6));
            changes.extend(joins.collect::<Vec<_>>());
            changes.rotate_left(first);
            let (node, incarnation, first_seq, stamp_ms) = (1 << 47, 300, 1, 2);
            let proposal = Proposal { node, incarnation, first_seq, stamp_ms, changes };
            let mut bytes = encode_proposal(&proposal).to_vec();
            for (at, byte) in damage {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if is_cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            let bytes = Bytes::from(bytes);
            match (decode_proposal(&bytes), decode_as_message(&bytes)) {
                // Which of two errors is met first may differ.
                (Err(_), Err(_)) => {}
                (own, as_message) => prop_assert_eq!(own, as_message),
            }
        }
    }

    #[test]
    fn unknown_change_is_refused_not_skipped() {
        let message = proto::Proposal {
            changes: vec![proto::Change { kind: None }],
            ..proto::Proposal::default()
        };
        let decoded = decode_proposal(&message.encode_to_vec().into());
        assert_eq!(decoded, Err(WireError::Missing("change")));
    }

    #[test]
    fn text_must_be_utf8_and_ids_must_be_ids() {
        let gone = Kind::SocketGone(proto::SocketGone {
            socket: Bytes::from_static(b"short"),
            ..proto::SocketGone::default()
        });
        let draining = Kind::Packet(proto::Packet {
            namespace: Bytes::from_static(&[0xff]),
            ..proto::Packet::default()
        });
        for (kind, error) in [(gone, "socket id"), (draining, "text")] {
            let change = proto::Change { kind: Some(kind) };
            assert_eq!(change_from_wire(change), Err(WireError::Invalid(error)));
        }
    }
}
