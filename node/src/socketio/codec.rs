//! Packets as the text they travel as (Socket.IO v5, "Packet encoding").

use bytestring::ByteString;

use super::payload::event_name;
use super::{Body, Packet, ProtocolError, json};

/// A packet's type digit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Connect = 0,
    Disconnect = 1,
    Event = 2,
    Ack = 3,
    ConnectError = 4,
    BinaryEvent = 5,
    BinaryAck = 6,
}

/// Everything that precedes a packet's JSON: `51-/chat,12`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    pub kind: Kind,
    /// Written for the binary kinds only.
    pub attachments: usize,
    /// `/` is left out of the text.
    pub namespace: &'a str,
    pub id: Option<u64>,
}

impl Header<'_> {
    /// How long the header's text is.
    pub fn text_len(&self) -> usize {
        let attachments = match self.kind {
            Kind::BinaryEvent | Kind::BinaryAck => digits(self.attachments as u64) + 1,
            _ => 0,
        };
        let namespace = if self.namespace == "/" { 0 } else { self.namespace.len() + 1 };
        1 + attachments + namespace + self.id.map_or(0, digits)
    }

    /// Appends the header's text.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.push(b'0' + self.kind as u8);
        if matches!(self.kind, Kind::BinaryEvent | Kind::BinaryAck) {
            write_number(self.attachments as u64, out);
            out.push(b'-');
        }
        if self.namespace != "/" {
            out.extend_from_slice(self.namespace.as_bytes());
            out.push(b',');
        }
        if let Some(id) = self.id {
            write_number(id, out);
        }
    }
}

fn digits(number: u64) -> usize {
    number.checked_ilog10().map_or(1, |log| log as usize + 1)
}

fn write_number(mut number: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

/// Names that have a meaning of their own on one side or the other.
const RESERVED_EVENTS: [&str; 6] =
    ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"];

/// Longer names are refused: each client may hold several.
pub(super) const MAX_NAMESPACE_BYTES: usize = 1024;

/// In v4 a name may have a query behind it, which carries tokens.
const MAX_QUERY_BYTES: usize = 8192;

/// Reads one packet, as strictly as socket.io-parser 4.2.7 does and no stricter: ids go with any
/// type, and events and acks may come without a payload, which is then an empty array.
pub fn parse(text: &ByteString, max_attachments: usize) -> Result<Packet, ProtocolError> {
    let (kind, rest) = split_kind(text)?;
    let (attachments, rest) = match kind {
        Kind::BinaryEvent | Kind::BinaryAck => split_attachments(rest, max_attachments)?,
        _ => (0, rest),
    };
    let (namespace, rest) = split_namespace(rest)?;
    let (id, rest) = split_id(rest)?;
    let json = (!rest.is_empty()).then(|| text.slice_ref(rest));
    match kind {
        Kind::Connect => Ok(Packet::Connect { namespace, auth: check_object(json, false)? }),
        Kind::ConnectError => {
            Ok(Packet::ConnectError { namespace, error: check_object(json, true)? })
        }
        Kind::Disconnect if json.is_some() => Err(ProtocolError::InvalidPayload),
        Kind::Disconnect => Ok(Packet::Disconnect { namespace }),
        Kind::Event | Kind::BinaryEvent => {
            let has_payload = json.is_some();
            let body = parse_body(namespace, id, json, attachments)?;
            if has_payload {
                check_event_name(&body)?;
            }
            Ok(Packet::Event(body))
        }
        Kind::Ack | Kind::BinaryAck => {
            Ok(Packet::Ack(parse_body(namespace, id, json, attachments)?))
        }
    }
}

fn split_kind(text: &str) -> Result<(Kind, &str), ProtocolError> {
    let kind = match text.as_bytes().first() {
        Some(b'0') => Kind::Connect,
        Some(b'1') => Kind::Disconnect,
        Some(b'2') => Kind::Event,
        Some(b'3') => Kind::Ack,
        Some(b'4') => Kind::ConnectError,
        Some(b'5') => Kind::BinaryEvent,
        Some(b'6') => Kind::BinaryAck,
        _ => return Err(ProtocolError::UnknownType),
    };
    Ok((kind, &text[1..]))
}

fn split_attachments(text: &str, max: usize) -> Result<(usize, &str), ProtocolError> {
    let (digits, rest) = text.split_once('-').ok_or(ProtocolError::IllegalAttachments)?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(ProtocolError::IllegalAttachments);
    }
    match digits.parse() {
        Ok(0) => Err(ProtocolError::IllegalAttachments),
        Ok(count) if count <= max => Ok((count, rest)),
        // A number too large for us is too large.
        Ok(_) | Err(_) => Err(ProtocolError::TooManyAttachments),
    }
}

fn split_namespace(text: &str) -> Result<(ByteString, &str), ProtocolError> {
    if !text.starts_with('/') {
        return Ok((ByteString::from_static("/"), text));
    }
    let (name, rest) = text.split_once(',').unwrap_or((text, ""));
    // To v5 a question mark is a character like others; what v4 makes of it is its own affair.
    let query_bytes = name.find('?').map_or(0, |start| name.len() - start);
    if name.len() - query_bytes > MAX_NAMESPACE_BYTES || query_bytes > MAX_QUERY_BYTES {
        return Err(ProtocolError::IllegalNamespace);
    }
    // A copy, because it outlives the message that it came in.
    let name = if name == "/" { ByteString::from_static("/") } else { name.into() };
    Ok((name, rest))
}

fn split_id(text: &str) -> Result<(Option<u64>, &str), ProtocolError> {
    let len = text.bytes().take_while(u8::is_ascii_digit).count();
    if len == 0 {
        return Ok((None, text));
    }
    let (digits, rest) = text.split_at(len);
    let id = digits.parse().map_err(|_| ProtocolError::IllegalId)?;
    Ok((Some(id), rest))
}

fn check_object(
    json: Option<ByteString>,
    may_be_string: bool,
) -> Result<Option<ByteString>, ProtocolError> {
    let Some(json) = json else { return Ok(None) };
    json::check(&json)?;
    match json.trim_ascii_start().as_bytes().first() {
        Some(b'{') => Ok(Some(json)),
        Some(b'"') if may_be_string => Ok(Some(json)),
        _ => Err(ProtocolError::InvalidPayload),
    }
}

fn parse_body(
    namespace: ByteString,
    id: Option<u64>,
    json: Option<ByteString>,
    attachments: usize,
) -> Result<Body, ProtocolError> {
    let json = json.unwrap_or(const { ByteString::from_static("[]") });
    Body::parse(namespace, id, json, attachments)
}

fn check_event_name(body: &Body) -> Result<(), ProtocolError> {
    let name = event_name(body.json()).ok_or(ProtocolError::InvalidPayload)?;
    check_unreserved(&name)
}

pub(super) fn check_unreserved(event: &str) -> Result<(), ProtocolError> {
    if RESERVED_EVENTS.contains(&event) { Err(ProtocolError::ReservedEvent) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
