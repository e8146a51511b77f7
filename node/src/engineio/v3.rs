//! Packets and payloads as Engine.IO 3 writes them, where they differ from revision 4.
//!
//! A payload has one of two forms. As text, each packet follows its length in UTF-16 units:
//! `2:407:4a😀b`, bytes as `6:b4AQID`. As bytes, each follows a kind (0 is text, 1 is bytes), its
//! length in bytes, one byte for each digit, and 0xff. Clients that take bytes get the second form
//! when there are any, and may send it (Engine.IO protocol, revision 3, "Encoding").

use crate::engineio::packet::BASE64;
use crate::engineio::{Message, Packet, ParseError};

use base64::Engine as _;

/// The type byte in front of a message's bytes.
pub const MESSAGE: u8 = 4;

/// From a text frame, or from one piece of a payload. Unlike in revision 4, base64 stands behind a
/// type digit: `b4AQID`.
pub fn parse_text(text: &str) -> Result<Packet, ParseError> {
    let Some(content) = text.strip_prefix('b') else { return Packet::parse(text) };
    let mut chars = content.chars();
    match chars.next().ok_or(ParseError::Empty)? {
        '4' => {
            let bytes = BASE64.decode(chars.as_str()).map_err(|_| ParseError::Base64)?;
            Ok(Packet::Message(Message::Binary(bytes.into())))
        }
        // Only messages have bytes to carry.
        other => Err(ParseError::UnknownType(other)),
    }
}

/// From a binary frame, or from one piece of a payload in the form of bytes.
pub fn parse_bytes(bytes: &[u8]) -> Result<Packet, ParseError> {
    match bytes.split_first().ok_or(ParseError::Empty)? {
        (&MESSAGE, content) => Ok(Packet::from_binary(content)),
        (other, _) => Err(ParseError::UnknownType(char::from(*other))),
    }
}

/// The packets of a body. Those before a bad one are good, and nothing follows it.
pub fn parse_payload(body: &[u8]) -> impl Iterator<Item = Result<Packet, ParseError>> {
    // A length in the form of text begins with a digit, never with these bytes.
    match body.first() {
        Some(0 | 1) => Payload::Bytes(body),
        Some(_) => str::from_utf8(body).map_or(Payload::Bad(ParseError::Utf8), Payload::Text),
        None => Payload::Bad(ParseError::Empty),
    }
}

/// What of a payload is not parsed yet.
enum Payload<'a> {
    Text(&'a str),
    Bytes(&'a [u8]),
    Bad(ParseError),
}

impl Payload<'_> {
    fn next_packet(&mut self) -> Result<Option<Packet>, ParseError> {
        match self {
            Self::Text(text) => {
                while !text.is_empty() {
                    let (packet, rest) = split_text(text)?;
                    *text = rest;
                    // The official server takes no notice of packets of nothing.
                    if !packet.is_empty() {
                        return parse_text(packet).map(Some);
                    }
                }
                Ok(None)
            }
            Self::Bytes([]) => Ok(None),
            Self::Bytes(bytes) => {
                let (is_text, packet, rest) = split_bytes(bytes)?;
                *bytes = rest;
                if is_text {
                    parse_text(str::from_utf8(packet).map_err(|_| ParseError::Utf8)?).map(Some)
                } else {
                    parse_bytes(packet).map(Some)
                }
            }
            Self::Bad(error) => Err(*error),
        }
    }
}

impl Iterator for Payload<'_> {
    type Item = Result<Packet, ParseError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.next_packet();
        if next.is_err() {
            *self = Self::Text("");
        }
        next.transpose()
    }
}

/// The first packet of a payload in the form of text, and what follows it.
fn split_text(text: &str) -> Result<(&str, &str), ParseError> {
    let (digits, rest) = text.split_once(':').ok_or(ParseError::Length)?;
    let len = parse_len(digits.bytes().map(|digit| digit.wrapping_sub(b'0')))?;
    rest.split_at_checked(utf16_prefix(rest, len)?).ok_or(ParseError::Length)
}

/// How many bytes the first `units` UTF-16 units of a text take. A length that ends within a
/// character is wrong.
fn utf16_prefix(text: &str, units: usize) -> Result<usize, ParseError> {
    let mut left = units;
    for (at, char) in text.char_indices() {
        if left == 0 {
            return Ok(at);
        }
        left = left.checked_sub(char.len_utf16()).ok_or(ParseError::Length)?;
    }
    if left == 0 { Ok(text.len()) } else { Err(ParseError::Length) }
}

/// Whether the first packet of a payload in the form of bytes is text, the packet, and what follows
/// it.
fn split_bytes(bytes: &[u8]) -> Result<(bool, &[u8], &[u8]), ParseError> {
    let (kind, rest) = bytes.split_first().ok_or(ParseError::Empty)?;
    let is_text = match kind {
        0 => true,
        1 => false,
        _ => return Err(ParseError::Length),
    };
    let end = rest.iter().position(|byte| *byte == 0xff).ok_or(ParseError::Length)?;
    let len = parse_len(rest[..end].iter().copied())?;
    let (content, rest) = rest[end + 1..].split_at_checked(len).ok_or(ParseError::Length)?;
    Ok((is_text, content, rest))
}

/// A decimal number from its digits' values. Whatever is no digit, or too many, is an error: a
/// length is never trusted further than the body reaches.
fn parse_len(digits: impl Iterator<Item = u8>) -> Result<usize, ParseError> {
    let mut len = None;
    for digit in digits {
        let tens = len.unwrap_or(0usize).checked_mul(10).filter(|_| digit <= 9);
        let sum = tens.and_then(|tens| tens.checked_add(digit.into()));
        len = Some(sum.ok_or(ParseError::Length)?);
    }
    len.ok_or(ParseError::Length)
}

/// One packet that is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// UTF-8, its type digit included.
    Text(&'a [u8]),
    /// The bytes of a message, without its type.
    Bytes(&'a [u8]),
}

/// The form of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Text,
    Bytes,
}

/// Appends one packet to a body.
pub fn append(piece: Piece<'_>, form: Form, body: &mut Vec<u8>) {
    match (form, piece) {
        (Form::Text, Piece::Text(text)) => {
            append_number(utf16_len(text), b'0', body);
            body.push(b':');
            body.extend_from_slice(text);
        }
        (Form::Text, Piece::Bytes(bytes)) => {
            append(Piece::Text(base64_text(bytes).as_bytes()), form, body);
        }
        (Form::Bytes, Piece::Text(text)) => {
            append_head(0, text.len(), body);
            body.extend_from_slice(text);
        }
        (Form::Bytes, Piece::Bytes(bytes)) => {
            append_head(1, bytes.len() + 1, body);
            body.push(MESSAGE);
            body.extend_from_slice(bytes);
        }
    }
}

/// A message's bytes as a packet of text.
pub fn base64_text(bytes: &[u8]) -> String {
    let mut text = "b4".to_owned();
    BASE64.encode_string(bytes, &mut text);
    text
}

fn append_head(kind: u8, len: usize, body: &mut Vec<u8>) {
    body.push(kind);
    append_number(len, 0, body);
    body.push(0xff);
}

/// `zero` is how the digit 0 is written, from which the others follow.
fn append_number(number: usize, zero: u8, body: &mut Vec<u8>) {
    body.extend(number.to_string().bytes().map(|digit| digit - b'0' + zero));
}

/// The length that JavaScript gives a text: what begins a character counts, and what begins one
/// of four bytes counts twice, being a pair of surrogates there.
fn utf16_len(utf8: &[u8]) -> usize {
    utf8.iter().map(|byte| usize::from(byte & 0xc0 != 0x80) + usize::from(*byte >= 0xf0)).sum()
}

#[cfg(test)]
mod tests;
