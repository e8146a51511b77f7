//! Writes a packet as MessagePack, straight from its JSON text.

use std::fmt::Debug;

use bytes::Bytes;
use rmp::encode as token;

use super::super::codec::Kind;
use super::super::json::{self, Placeholders};
use super::super::parser::OutgoingPacket;
use super::reader::as_integer;

/// A packet's map, with the fields that the official server writes.
pub(super) fn encode(packet: &OutgoingPacket<'_>) -> Vec<u8> {
    let binary_len: usize = packet.attachments.iter().map(Bytes::len).sum();
    let len = packet.json.len() + packet.namespace.len() + binary_len + 32;
    let mut out = Writer(Vec::with_capacity(len));
    let has_data = packet.kind != Kind::Disconnect && !packet.json.is_empty();
    out.map_len(2 + u32::from(has_data) + u32::from(packet.id.is_some()));
    out.string("type");
    out.unsigned(packet.kind as u64);
    if has_data {
        out.string("data");
        out.value(packet.json, packet.attachments);
    }
    if let Some(id) = packet.id {
        out.string("id");
        out.unsigned(id);
    }
    out.string("nsp");
    out.string(packet.namespace);
    out.0
}

/// What has to be known of a container before its content is written.
#[derive(Clone, Copy, Debug, Default)]
struct Container {
    /// Elements of an array, pairs of an object.
    len: u32,
    /// It stands for this attachment.
    attachment: Option<usize>,
    /// Where it ends in the text.
    end: usize,
    /// How many containers have opened when it ends.
    opened: usize,
}

/// Looks at all containers of checked JSON, in the order in which they open: MessagePack says
/// ahead how much will come.
fn containers(text: &str, placeholders: &Placeholders) -> Vec<Container> {
    let mut found: Vec<Container> = Vec::new();
    let mut open: Vec<usize> = Vec::new();
    let mut placeholders = placeholders.iter().peekable();
    let mut at = 0;
    while let Some(byte) = text.as_bytes().get(at).copied() {
        let start = at;
        at = json::end_of_token(text, start);
        let opened = found.len();
        let innermost = open.last().map(|place| &mut found[*place]);
        match byte {
            b',' => {
                if let Some(container) = innermost {
                    container.len += 1;
                }
            }
            b']' | b'}' => {
                if let Some(container) = innermost {
                    (container.end, container.opened) = (at, opened);
                }
                open.pop();
            }
            b':' => {}
            byte if json::is_whitespace(byte) => {}
            byte => {
                if let Some(container) = innermost {
                    // The first element has no comma before it.
                    container.len = container.len.max(1);
                    if let Some(named) = placeholders.next_if(|named| named.at.start == start) {
                        container.attachment = Some(named.number);
                    }
                }
                if matches!(byte, b'[' | b'{') {
                    open.push(opened);
                    found.push(Container::default());
                }
            }
        }
    }
    found
}

struct Writer(Vec<u8>);

impl Writer {
    /// Writes a JSON value. What has been checked is written token by token; of text that has
    /// not, something is written.
    fn value(&mut self, text: &str, attachments: &[Bytes]) {
        // Without attachments an object that looks like a placeholder is an object.
        let placeholders = if attachments.is_empty() {
            Placeholders::new()
        } else {
            json::placeholders(text).unwrap_or_default()
        };
        let containers = containers(text, &placeholders);
        let mut opened = 0;
        let mut at = 0;
        while let Some(byte) = text.as_bytes().get(at).copied() {
            let start = at;
            at = json::end_of_token(text, start);
            match byte {
                b'[' | b'{' => {
                    let container = containers[opened];
                    let named = container.attachment.and_then(|number| attachments.get(number));
                    if let Some(bytes) = named {
                        self.binary(bytes);
                        (at, opened) = (container.end, container.opened);
                        continue;
                    }
                    opened += 1;
                    if byte == b'[' {
                        self.array_len(container.len)
                    } else {
                        self.map_len(container.len)
                    }
                }
                b'"' => self.quoted(&text[start..at]),
                b't' => self.bool(true),
                b'f' => self.bool(false),
                b'n' => self.nil(),
                b'-' | b'0'..=b'9' => self.number(&text[start..at]),
                // Commas, colons, whitespace and what closes.
                _ => {}
            }
        }
    }

    fn quoted(&mut self, quoted: &str) {
        if quoted.contains('\\') {
            self.string(&json::unquote(quoted));
        } else {
            self.string(quoted.trim_matches('"'));
        }
    }

    /// Integers as short as can be, as notepack writes them; also those that JSON spells with a
    /// fraction or an exponent, which JavaScript does not tell apart.
    fn number(&mut self, text: &str) {
        if let Ok(signed) = text.parse::<i64>()
            && text != "-0"
        {
            return self.signed(signed);
        }
        if let Ok(unsigned) = text.parse::<u64>() {
            return self.unsigned(unsigned);
        }
        let float: f64 = text.parse().unwrap_or_default();
        let is_negative_zero = float == 0.0 && float.is_sign_negative();
        match as_integer(float) {
            Some(integer) if !is_negative_zero => self.signed(integer),
            _ => written(token::write_f64(&mut self.0, float)),
        }
    }

    fn map_len(&mut self, len: u32) {
        written(token::write_map_len(&mut self.0, len));
    }

    fn array_len(&mut self, len: u32) {
        written(token::write_array_len(&mut self.0, len));
    }

    fn string(&mut self, text: &str) {
        written(token::write_str(&mut self.0, text));
    }

    fn binary(&mut self, bytes: &[u8]) {
        written(token::write_bin(&mut self.0, bytes));
    }

    fn unsigned(&mut self, number: u64) {
        written(token::write_uint(&mut self.0, number));
    }

    fn signed(&mut self, number: i64) {
        written(token::write_sint(&mut self.0, number));
    }

    fn bool(&mut self, value: bool) {
        written(token::write_bool(&mut self.0, value));
    }

    fn nil(&mut self) {
        written(token::write_nil(&mut self.0));
    }
}

fn written<T>(result: Result<T, impl Debug>) {
    result.expect("writing to memory does not fail");
}
