//! Changes ↔ their messages.

use bytes::Bytes;
use bytestring::ByteString;
use flotilla_proto::raft as proto;
use proto::change::Kind;

use super::WireError;
use crate::raft::state::{
    Change, NodeUp, Packet, Pid, Place, RecoveryTerms, SessionFilter, SessionId, SocketClaim,
    SocketId, SocketUp, Target,
};
use crate::socketio::Payload;

pub(super) fn change_to_wire(change: &Change) -> proto::Change {
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

pub(super) fn change_from_wire(change: proto::Change) -> Result<Change, WireError> {
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

pub(super) fn text(bytes: Bytes) -> Result<ByteString, WireError> {
    ByteString::try_from(bytes).map_err(|_| WireError::Invalid("text"))
}

fn texts<T: FromIterator<ByteString>>(all: Vec<Bytes>) -> Result<T, WireError> {
    all.into_iter().map(text).collect()
}

fn ascii(bytes: &[u8]) -> Result<&str, WireError> {
    std::str::from_utf8(bytes).map_err(|_| WireError::Invalid("id"))
}

pub(super) fn socket_id(bytes: &[u8]) -> Result<SocketId, WireError> {
    ascii(bytes)?.parse().map_err(|_| WireError::Invalid("socket id"))
}

fn pid(bytes: &[u8]) -> Result<Pid, WireError> {
    ascii(bytes)?.parse().map_err(|_| WireError::Invalid("pid"))
}

fn session_id(bytes: &[u8]) -> Result<SessionId, WireError> {
    ascii(bytes)?.parse().map_err(|_| WireError::Invalid("session id"))
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;
    use smallvec::smallvec;

    use super::*;

    pub(in crate::raft::wire) fn every_change() -> Vec<Change> {
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
