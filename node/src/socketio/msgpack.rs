//! Packets as MessagePack: what npm's `socket.io-msgpack-parser` 3 speaks.
//!
//! A packet is one binary message, a map: `{type, nsp, data, id}`. Binary data stands where it
//! belongs, so that there are no attachments apart; here they become attachments, and an object
//! that names one in the payload's JSON, as everywhere else.

use std::borrow::Cow;

use bytes::Bytes;
use bytestring::ByteString;

use super::codec::MAX_NAMESPACE_BYTES;
use super::parser::{Decoder, OutgoingPacket, Parser};
use super::{Body, Packet, ProtocolError};
use crate::engineio::Message;

mod date;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

use reader::{Reader, Text, Value, as_integer};

/// The parser that clients know as `socket.io-msgpack-parser`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Msgpack;

impl Parser for Msgpack {
    fn encode(&self, packet: &OutgoingPacket<'_>) -> Vec<Message> {
        vec![Message::Binary(writer::encode(packet).into())]
    }

    fn decoder(&self) -> Box<dyn Decoder> {
        Box::new(MsgpackDecoder)
    }
}

/// Each message is a packet: there is nothing to remember.
#[derive(Debug)]
struct MsgpackDecoder;

impl Decoder for MsgpackDecoder {
    fn decode(&mut self, message: Message) -> Result<Option<(Packet, Vec<Bytes>)>, ProtocolError> {
        match message {
            Message::Binary(bytes) => Envelope::read(&bytes)?.into_packet().map(Some),
            Message::Text(_) => Err(ProtocolError::UnexpectedText),
        }
    }
}

/// A packet's map, as it came.
#[derive(Default)]
struct Envelope {
    kind: Option<Value>,
    namespace: Option<ByteString>,
    id: Option<Value>,
    data: Option<(Value, Text)>,
}

impl Envelope {
    fn read(message: &Bytes) -> Result<Self, ProtocolError> {
        let mut reader = Reader::new(message);
        let mut envelope = Self::default();
        for _ in 0..reader.map()? {
            let key = reader.key()?;
            envelope.read_field(key, &mut reader)?;
        }
        reader.end()?;
        Ok(envelope)
    }

    /// A field that comes twice would mean one thing here and another elsewhere: it is refused.
    /// Those that are not known, such as `options`, say nothing to a server.
    fn read_field(
        &mut self,
        key: Cow<'_, str>,
        reader: &mut Reader<'_>,
    ) -> Result<(), ProtocolError> {
        let mut text = Text::default();
        let is_second = match &*key {
            "type" => self.kind.replace(reader.value(&mut text, 0)?).is_some(),
            "id" => self.id.replace(reader.value(&mut text, 0)?).is_some(),
            "nsp" => self.namespace.replace(namespace(reader.string()?)?).is_some(),
            "data" => {
                let value = reader.value(&mut text, 0)?;
                self.data.replace((value, text)).is_some()
            }
            _ => {
                reader.value(&mut text, 0)?;
                false
            }
        };
        if is_second { Err(ProtocolError::InvalidPayload) } else { Ok(()) }
    }

    /// Takes what the official parser's `checkPacket` takes.
    fn into_packet(self) -> Result<(Packet, Vec<Bytes>), ProtocolError> {
        let namespace = self.namespace.ok_or(ProtocolError::IllegalNamespace)?;
        let id = self.id.map_or(Ok(None), packet_id)?;
        let (value, data) = self.data.unwrap_or_default();
        let Some(Value::Number(kind)) = self.kind else { return Err(ProtocolError::UnknownType) };
        let packet = match (as_integer(kind), value) {
            (Some(0), Value::Undefined) => Packet::Connect { namespace, auth: None },
            (Some(0), Value::Object) => Packet::Connect { namespace, auth: Some(data.alone()?) },
            (Some(1), Value::Undefined) => Packet::Disconnect { namespace },
            (Some(2), Value::Array) => {
                let (json, parts) = data.into_json()?;
                let body = Body::checked(namespace, id, json, parts.len());
                return Ok((Packet::Event(body), parts));
            }
            (Some(3), Value::Array) => {
                let (json, parts) = data.into_json()?;
                let body = Body::checked(namespace, id, json, parts.len());
                return Ok((Packet::Ack(body), parts));
            }
            (Some(4), Value::Object | Value::String) => {
                Packet::ConnectError { namespace, error: Some(data.alone()?) }
            }
            (Some(0..=4), _) => return Err(ProtocolError::InvalidPayload),
            _ => return Err(ProtocolError::UnknownType),
        };
        Ok((packet, Vec::new()))
    }
}

/// As the parser gives it: without a query, whatever characters it has.
fn namespace(name: Cow<'_, str>) -> Result<ByteString, ProtocolError> {
    if name.len() > MAX_NAMESPACE_BYTES {
        return Err(ProtocolError::IllegalNamespace);
    }
    Ok(if name == "/" { ByteString::from_static("/") } else { name.into_owned().into() })
}

/// JavaScript counts exactly as far as this; an ack of a later id would go to another event.
const MAX_SAFE_INTEGER: f64 = 9_007_199_254_740_991.0;

fn packet_id(value: Value) -> Result<Option<u64>, ProtocolError> {
    let id = match value {
        Value::Undefined => return Ok(None),
        Value::Number(id) => as_integer(id).and_then(|id| u64::try_from(id).ok()),
        _ => None,
    };
    id.map(Some).ok_or(ProtocolError::IllegalId)
}
