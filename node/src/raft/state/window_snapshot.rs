//! What recoverable namespaces keep, as snapshots hold it.

use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;
use flotilla_proto::state as proto;
use serde_json::{Map, Value};

use super::State;
use super::change::{Place, RecoveryTerms, SessionValue};
use super::packets::{Channel, Evicted, KeptPacket, Window};
use super::rooms::SocketBits;
use super::snapshot::{DecodeError, bits};
use super::stays::{Kept, Stay};
use super::target::{SessionFilter, Target};
use crate::socketio::Payload;

impl State {
    pub(super) fn encode_windows(&self) -> Vec<proto::Window> {
        self.windows
            .iter()
            .map(|(namespace, window)| {
                let [all, filtered] = window.general_evictions();
                let channel = |(room, channel)| encode_channel(room, channel);
                proto::Window {
                    namespace: namespace.to_string(),
                    max_age_ms: window.terms.max_age_ms,
                    max_bytes: window.terms.max_bytes,
                    latest_ms: window.latest_ms(),
                    first: window.first(),
                    packets: window.packets().map(|packet| encode_packet(packet)).collect(),
                    sockets: window.sockets().map(|(id, kept)| encode_socket(id, kept)).collect(),
                    all: Some(encode_evicted(&all)),
                    filtered: Some(encode_evicted(&filtered)),
                    channels: window.channels().map(channel).collect(),
                }
            })
            .collect()
    }

    pub(super) fn restore_window(&mut self, window: proto::Window) -> Result<(), DecodeError> {
        let terms = RecoveryTerms { max_age_ms: window.max_age_ms, max_bytes: window.max_bytes };
        let mut restored = Window::restored(terms, window.latest_ms, window.first);
        for packet in window.packets {
            restored.add(decode_packet(packet)?);
        }
        for socket in window.sockets {
            let id = bits(&socket.id)?;
            if self.sockets.get(&id).is_none() {
                return Err(DecodeError::Invalid("packets are kept for no socket"));
            }
            restored.enter(id, decode_socket(socket)?);
        }
        for channel in window.channels {
            let (since, evicted) = (place(channel.since), decode_evicted(channel.evicted)?);
            restored.restore_channel(&channel.room, since, evicted);
        }
        let evictions = [decode_evicted(window.all)?, decode_evicted(window.filtered)?];
        restored.restore_general_evictions(evictions);
        self.windows.insert(window.namespace.into(), Arc::new(restored));
        Ok(())
    }
}

fn encode_place(place: Place) -> proto::Place {
    proto::Place { index: place.index, position: place.position }
}

fn place(place: Option<proto::Place>) -> Place {
    let place = place.unwrap_or_default();
    Place { index: place.index, position: place.position }
}

fn encode_packet(packet: &KeptPacket) -> proto::KeptPacket {
    let texts = |texts: &[ByteString]| texts.iter().map(ByteString::to_string).collect();
    let KeptPacket { target, payload, .. } = packet;
    proto::KeptPacket {
        place: Some(encode_place(packet.place)),
        stamp_ms: packet.stamp_ms,
        rooms: texts(&target.rooms),
        except: texts(&target.except),
        filter: target.filter.as_ref().map(|filter| {
            let object: Map<_, _> = filter.pairs().iter().cloned().collect();
            Value::Object(object).to_string()
        }),
        json: payload.json.to_string(),
        attachments: payload.attachments.clone(),
    }
}

fn decode_packet(packet: proto::KeptPacket) -> Result<KeptPacket, DecodeError> {
    let filter = |text: String| {
        let value = serde_json::from_str::<Value>(&text).ok();
        let filter = value.and_then(|value| SessionFilter::try_from(value).ok());
        filter.ok_or(DecodeError::Invalid("a packet's filter is none"))
    };
    let target = Target {
        rooms: packet.rooms.into_iter().map(ByteString::from).collect(),
        except: packet.except.into_iter().map(ByteString::from).collect(),
        filter: packet.filter.map(filter).transpose()?,
    };
    let payload = Payload { json: packet.json.into(), attachments: packet.attachments };
    // What it holds is copied: the snapshot's bytes would stay in memory with it.
    Ok(KeptPacket::new(place(packet.place), packet.stamp_ms, &target, &payload))
}

fn encode_socket(id: &SocketBits, kept: &Kept) -> proto::KeptSocket {
    proto::KeptSocket {
        id: Bytes::copy_from_slice(id),
        claim: kept.claim,
        start: Some(encode_place(kept.start)),
        detached_ms: kept.detached_ms,
        data: kept.data.as_deref().map(str::to_owned),
        node: kept.node,
        lost: Some(encode_place(kept.lost)),
        is_over: kept.is_over,
        stays: kept.stays.iter().map(encode_stay).collect(),
        versions: kept
            .versions
            .iter()
            .map(|(until, value)| proto::Version {
                until: Some(encode_place(*until)),
                value: value.as_ref().map(|value| value.text.to_string()),
            })
            .collect(),
    }
}

fn decode_socket(socket: proto::KeptSocket) -> Result<Kept, DecodeError> {
    let version = |version: proto::Version| {
        let parse = |text: String| {
            let value = SessionValue::parse(&text);
            value.map(Arc::new).ok_or(DecodeError::Invalid("a session is not a JSON object"))
        };
        Ok((place(version.until), version.value.map(parse).transpose()?))
    };
    Ok(Kept {
        claim: socket.claim,
        start: place(socket.start),
        detached_ms: socket.detached_ms,
        data: socket.data.map(Arc::from),
        node: socket.node,
        lost: place(socket.lost),
        is_over: socket.is_over,
        stays: socket.stays.into_iter().map(decode_stay).collect(),
        versions: socket.versions.into_iter().map(version).collect::<Result<_, DecodeError>>()?,
    })
}

fn encode_stay(stay: &Stay) -> proto::Stay {
    proto::Stay {
        room: stay.room.to_string(),
        joined: Some(encode_place(stay.joined)),
        left: (!stay.is_open()).then(|| encode_place(stay.left)),
        last: Some(encode_place(stay.last)),
    }
}

fn decode_stay(stay: proto::Stay) -> Stay {
    Stay {
        room: stay.room.into(),
        joined: place(stay.joined),
        left: stay.left.map_or(Place::END, |left| place(Some(left))),
        last: place(stay.last),
    }
}

fn encode_channel(room: &str, channel: &Channel) -> proto::Channel {
    proto::Channel {
        room: room.to_owned(),
        since: Some(encode_place(channel.since)),
        evicted: Some(encode_evicted(&channel.evicted)),
    }
}

fn encode_evicted(evicted: &Evicted) -> proto::Evicted {
    proto::Evicted {
        last: Some(encode_place(evicted.last)),
        spared: evicted.spared.as_ref().map(|id| Bytes::copy_from_slice(id)),
        before: Some(encode_place(evicted.before)),
    }
}

fn decode_evicted(evicted: Option<proto::Evicted>) -> Result<Evicted, DecodeError> {
    let evicted = evicted.unwrap_or_default();
    Ok(Evicted {
        last: place(evicted.last),
        spared: evicted.spared.as_deref().map(bits).transpose()?,
        before: place(evicted.before),
    })
}
