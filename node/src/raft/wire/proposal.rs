//! Proposals, as they are stored in the log.

use bytes::Bytes;
use bytestring::ByteString;
use flotilla_proto::raft as proto;
use prost::Message;
use prost::encoding::{self, WireType};

use super::WireError;
use super::change::{change_from_wire, change_to_wire, socket_id, text};
use crate::raft::state::{Change, Proposal, Rooms, SocketId};

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

/// Exactly the bytes of its message (`Proposal` in `raft.proto`).
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

/// The proposal of a message. Texts and attachments are slices of `bytes`. Fields that are not known are passed over; a
/// change that is not known is an error, for to pass over it would let replicas part.
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

#[inline]
fn decode_varint(rest: &mut &[u8]) -> Result<u64, WireError> {
    match rest.split_first() {
        Some((byte, after)) if *byte < 0x80 => {
            *rest = after;
            Ok(u64::from(*byte))
        }
        _ => encoding::decode_varint(rest).map_err(|_| WireError::Malformed),
    }
}

#[inline]
fn decode_key(rest: &mut &[u8]) -> Result<(u32, WireType), WireError> {
    let key = u32::try_from(decode_varint(rest)?).map_err(|_| WireError::Malformed)?;
    let wire_type = WireType::try_from(u64::from(key & 7)).map_err(|_| WireError::Malformed)?;
    if key < 8 { Err(WireError::Malformed) } else { Ok((key >> 3, wire_type)) }
}

/// What a length and so many bytes stand for.
#[inline]
fn decode_slice<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], WireError> {
    let len = usize::try_from(decode_varint(rest)?).map_err(|_| WireError::Malformed)?;
    let (slice, after) = rest.split_at_checked(len).ok_or(WireError::Malformed)?;
    *rest = after;
    Ok(slice)
}

/// The other end of [`encode_rooms`]. None for all other changes, and for messages that are wrong, or written in
/// another way.
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

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use smallvec::smallvec;

    use super::*;
    use crate::raft::wire::change::tests::every_change;

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
}
