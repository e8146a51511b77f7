//! Reads MessagePack, and writes what it stands for as JSON text in the same pass.

use std::borrow::Cow;
use std::io::Write as _;

use bytes::Bytes;
use bytestring::ByteString;
use rmp::Marker;
use serde::Serialize;

use super::super::{MAX_DEPTH, ProtocolError};
use super::MAX_SAFE_INTEGER;
use super::date::iso_date;

/// Binary values of one packet. The official parser has no bound; without one, a message of empty
/// values would cost us thirty times its size.
pub(super) const MAX_ATTACHMENTS: usize = 1000;

/// What has been read, of which kind it is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum Value {
    /// notepack writes JavaScript's `undefined` as an extension. Nothing is written for it: what
    /// that means, the container knows.
    #[default]
    Undefined,
    Object,
    Array,
    String,
    True,
    Number(f64),
    Other,
}

/// JSON, and the attachments that its placeholders number.
#[derive(Default)]
pub(super) struct Text {
    json: Vec<u8>,
    attachments: Vec<Bytes>,
    /// An object of the client's looks like a placeholder of ours.
    has_lookalike: bool,
}

impl Text {
    pub(super) fn into_json(self) -> Result<(ByteString, Vec<Bytes>), ProtocolError> {
        // Beside attachments it would be taken for one of them.
        if self.has_lookalike && !self.attachments.is_empty() {
            return Err(ProtocolError::IllegalPlaceholder);
        }
        let json = ByteString::try_from(self.json).expect("JSON is written as text");
        Ok((json, self.attachments))
    }

    /// What a client says in its CONNECT. Binary data in it, which the official server would hand
    /// to the application, has no place in our JSON.
    pub(super) fn alone(self) -> Result<ByteString, ProtocolError> {
        match self.into_json()? {
            (json, attachments) if attachments.is_empty() => Ok(json),
            _ => Err(ProtocolError::InvalidPayload),
        }
    }

    fn push(&mut self, text: &str) {
        self.json.extend_from_slice(text.as_bytes());
    }

    fn literal(&mut self, text: &str, value: Value) -> Value {
        self.push(text);
        value
    }

    /// A number, a string or, for what JSON does not know, `null`.
    fn scalar(&mut self, value: &(impl Serialize + ?Sized)) {
        serde_json::to_writer(&mut self.json, value).expect("a scalar becomes JSON in memory");
    }

    fn attach(&mut self, bytes: Bytes) -> Result<(), ProtocolError> {
        let number = self.attachments.len();
        if number == MAX_ATTACHMENTS {
            return Err(ProtocolError::TooManyAttachments);
        }
        write!(self.json, r#"{{"_placeholder":true,"num":{number}}}"#)
            .expect("writing to memory does not fail");
        self.attachments.push(bytes);
        Ok(())
    }
}

/// Reads one message from its start. Whatever lengths a client claims, nothing is allocated
/// before the bytes are there.
pub(super) struct Reader<'a> {
    message: &'a Bytes,
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(message: &'a Bytes) -> Self {
        Self { message, at: 0 }
    }

    /// The message ends here.
    pub(super) fn end(&self) -> Result<(), ProtocolError> {
        if self.at == self.message.len() { Ok(()) } else { Err(ProtocolError::InvalidPayload) }
    }

    /// A map's header: how many pairs follow.
    pub(super) fn map(&mut self) -> Result<usize, ProtocolError> {
        match self.marker()? {
            marker @ (Marker::FixMap(_) | Marker::Map16 | Marker::Map32) => self.len(marker),
            _ => Err(ProtocolError::InvalidPayload),
        }
    }

    /// A map's key. An integer counts as its text, as in JavaScript.
    pub(super) fn key(&mut self) -> Result<Cow<'a, str>, ProtocolError> {
        let marker = self.marker()?;
        if is_string(marker) {
            return self.text(marker);
        }
        let number = self.number(marker, &mut Text::default())?;
        match as_integer(number) {
            Some(integer) => Ok(integer.to_string().into()),
            None => Err(ProtocolError::InvalidPayload),
        }
    }

    /// A namespace.
    pub(super) fn string(&mut self) -> Result<Cow<'a, str>, ProtocolError> {
        match self.marker()? {
            marker if is_string(marker) => self.text(marker),
            _ => Err(ProtocolError::IllegalNamespace),
        }
    }

    /// Reads one value into `text`, within `depth` containers.
    pub(super) fn value(&mut self, text: &mut Text, depth: u32) -> Result<Value, ProtocolError> {
        let marker = self.marker()?;
        match marker {
            Marker::FixStr(_) | Marker::Str8 | Marker::Str16 | Marker::Str32 => {
                text.scalar(&*self.text(marker)?);
                Ok(Value::String)
            }
            Marker::FixArray(_) | Marker::Array16 | Marker::Array32 => {
                let len = self.len(marker)?;
                self.array(len, text, depth)
            }
            Marker::FixMap(_) | Marker::Map16 | Marker::Map32 => {
                let len = self.len(marker)?;
                self.object(len, text, depth)
            }
            Marker::Bin8 | Marker::Bin16 | Marker::Bin32 => {
                let len = self.len(marker)?;
                self.binary(len, text, depth)
            }
            Marker::Ext8 | Marker::Ext16 | Marker::Ext32 => {
                let len = self.len(marker)?;
                self.extension(len, text, depth)
            }
            Marker::FixExt1 => self.fixed_extension(1, text, depth),
            Marker::FixExt2 => self.fixed_extension(2, text, depth),
            Marker::FixExt4 => self.fixed_extension(4, text, depth),
            Marker::FixExt8 => self.fixed_extension(8, text, depth),
            Marker::FixExt16 => self.fixed_extension(16, text, depth),
            Marker::Null => Ok(text.literal("null", Value::Other)),
            Marker::False => Ok(text.literal("false", Value::Other)),
            Marker::True => Ok(text.literal("true", Value::True)),
            _ => self.number(marker, text).map(Value::Number),
        }
    }

    fn array(&mut self, len: usize, text: &mut Text, depth: u32) -> Result<Value, ProtocolError> {
        let depth = deeper(depth)?;
        text.push("[");
        for index in 0..len {
            if index > 0 {
                text.push(",");
            }
            if self.value(text, depth)? == Value::Undefined {
                text.push("null");
            }
        }
        text.push("]");
        Ok(Value::Array)
    }

    fn object(&mut self, len: usize, text: &mut Text, depth: u32) -> Result<Value, ProtocolError> {
        let depth = deeper(depth)?;
        text.push("{");
        let start = text.json.len();
        for _ in 0..len {
            let before = text.json.len();
            if before > start {
                text.push(",");
            }
            let key = self.key()?;
            text.scalar(&*key);
            text.push(":");
            match self.value(text, depth)? {
                // As `JSON.stringify` does.
                Value::Undefined => text.json.truncate(before),
                Value::True if key == "_placeholder" => text.has_lookalike = true,
                _ => {}
            }
        }
        text.push("}");
        Ok(Value::Object)
    }

    fn binary(&mut self, len: usize, text: &mut Text, depth: u32) -> Result<Value, ProtocolError> {
        // The object that stands for it.
        deeper(depth)?;
        self.take(len)?;
        text.attach(self.message.slice(self.at - len..self.at))?;
        Ok(Value::Other)
    }

    /// Type 0 is what notepack makes of an ArrayBuffer or a typed array in Node.
    fn extension(
        &mut self,
        len: usize,
        text: &mut Text,
        depth: u32,
    ) -> Result<Value, ProtocolError> {
        match i8::from_be_bytes(self.bytes()?) {
            0 => self.binary(len, text, depth),
            kind => self.tagged(kind, len, text, depth),
        }
    }

    /// Type 0 is `undefined`, or a date.
    fn fixed_extension(
        &mut self,
        len: usize,
        text: &mut Text,
        depth: u32,
    ) -> Result<Value, ProtocolError> {
        match (i8::from_be_bytes(self.bytes()?), len) {
            (0, 1) => self.take(1).map(|_anything| Value::Undefined),
            (0, 8) => {
                text.scalar(&iso_date(i64::from_be_bytes(self.bytes()?)));
                Ok(Value::Other)
            }
            (kind, _) => self.tagged(kind, len, text, depth),
        }
    }

    /// What notepack's reader makes of other extensions: an array of type and bytes.
    fn tagged(
        &mut self,
        kind: i8,
        len: usize,
        text: &mut Text,
        depth: u32,
    ) -> Result<Value, ProtocolError> {
        let depth = deeper(depth)?;
        text.push("[");
        text.scalar(&kind);
        text.push(",");
        self.binary(len, text, depth)?;
        text.push("]");
        Ok(Value::Array)
    }

    /// JSON knows neither infinities nor NaN: they become `null`, as by `JSON.stringify`.
    fn number(&mut self, marker: Marker, text: &mut Text) -> Result<f64, ProtocolError> {
        let unsigned = match marker {
            Marker::FixPos(value) => u64::from(value),
            Marker::U8 => u64::from(u8::from_be_bytes(self.bytes()?)),
            Marker::U16 => u64::from(u16::from_be_bytes(self.bytes()?)),
            Marker::U32 => u64::from(u32::from_be_bytes(self.bytes()?)),
            Marker::U64 => u64::from_be_bytes(self.bytes()?),
            _ => return self.signed_or_float(marker, text),
        };
        text.scalar(&unsigned);
        Ok(unsigned as f64)
    }

    fn signed_or_float(&mut self, marker: Marker, text: &mut Text) -> Result<f64, ProtocolError> {
        let float = match marker {
            Marker::F32 => f64::from(f32::from_be_bytes(self.bytes()?)),
            Marker::F64 => f64::from_be_bytes(self.bytes()?),
            _ => {
                let signed = match marker {
                    Marker::FixNeg(value) => i64::from(value),
                    Marker::I8 => i64::from(i8::from_be_bytes(self.bytes()?)),
                    Marker::I16 => i64::from(i16::from_be_bytes(self.bytes()?)),
                    Marker::I32 => i64::from(i32::from_be_bytes(self.bytes()?)),
                    Marker::I64 => i64::from_be_bytes(self.bytes()?),
                    _ => return Err(ProtocolError::InvalidPayload),
                };
                text.scalar(&signed);
                return Ok(signed as f64);
            }
        };
        text.scalar(&float);
        Ok(float)
    }

    /// A string's characters. Bytes that are no text become U+FFFD, as when Node reads them.
    fn text(&mut self, marker: Marker) -> Result<Cow<'a, str>, ProtocolError> {
        let len = self.len(marker)?;
        self.take(len).map(String::from_utf8_lossy)
    }

    /// The length that a marker holds, or that follows it.
    fn len(&mut self, marker: Marker) -> Result<usize, ProtocolError> {
        Ok(match marker {
            Marker::FixStr(len) | Marker::FixArray(len) | Marker::FixMap(len) => usize::from(len),
            Marker::Str8 | Marker::Bin8 | Marker::Ext8 => {
                usize::from(u8::from_be_bytes(self.bytes()?))
            }
            Marker::Str16 | Marker::Bin16 | Marker::Ext16 | Marker::Array16 | Marker::Map16 => {
                usize::from(u16::from_be_bytes(self.bytes()?))
            }
            _ => u32::from_be_bytes(self.bytes()?) as usize,
        })
    }

    fn marker(&mut self) -> Result<Marker, ProtocolError> {
        self.bytes::<1>().map(|[byte]| Marker::from_u8(byte))
    }

    fn bytes<const LEN: usize>(&mut self) -> Result<[u8; LEN], ProtocolError> {
        Ok(self.take(LEN)?.try_into().expect("as many bytes as were asked for"))
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], ProtocolError> {
        let bytes = self.message[self.at..].get(..len).ok_or(ProtocolError::InvalidPayload)?;
        self.at += len;
        Ok(bytes)
    }
}

fn is_string(marker: Marker) -> bool {
    matches!(marker, Marker::FixStr(_) | Marker::Str8 | Marker::Str16 | Marker::Str32)
}

/// JavaScript knows one type of numbers, and counts exactly as far as 2^53.
pub(super) fn as_integer(number: f64) -> Option<i64> {
    let is_integer = number.fract() == 0.0 && number.abs() <= MAX_SAFE_INTEGER;
    is_integer.then_some(number as i64)
}

/// One container more.
fn deeper(depth: u32) -> Result<u32, ProtocolError> {
    if depth == MAX_DEPTH { Err(ProtocolError::PayloadTooDeep) } else { Ok(depth + 1) }
}
