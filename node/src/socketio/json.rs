//! Looks at JSON text where it lies: checks it, walks over it, finds placeholders in it.

use std::ops::Range;

use smallvec::SmallVec;

use super::ProtocolError;

/// How deep arrays and objects may nest, the payload's own array included: as deep as
/// `serde_json` follows, so that what was taken in can also be read.
pub const MAX_DEPTH: u32 = 127;

/// Accepts one complete JSON value (RFC 8259), in one pass and without recursion.
///
/// An unpaired surrogate (`"\ud83d"`) is accepted: JavaScript writes one for a string that was
/// cut in the middle of a character.
pub(super) fn check(text: &str) -> Result<(), ProtocolError> {
    let mut cursor = Cursor { bytes: text.as_bytes(), at: 0 };
    let mut open = Open::default();
    loop {
        match cursor.next_token()? {
            b'{' => {
                open.push(Container::Object)?;
                if !cursor.skip_if(b'}') {
                    cursor.key()?;
                    continue;
                }
                open.pop();
            }
            b'[' => {
                open.push(Container::Array)?;
                if !cursor.skip_if(b']') {
                    continue;
                }
                open.pop();
            }
            b'"' => cursor.string()?,
            b'-' => cursor.number()?,
            b'0'..=b'9' => {
                cursor.at -= 1;
                cursor.number()?;
            }
            b't' => cursor.literal(b"rue")?,
            b'f' => cursor.literal(b"alse")?,
            b'n' => cursor.literal(b"ull")?,
            _ => return Err(ProtocolError::InvalidPayload),
        }
        // A value has ended; with it as many containers as close here.
        loop {
            let Some(container) = open.top() else { return cursor.end() };
            match (container, cursor.next_token()?) {
                (Container::Array, b',') => break,
                (Container::Object, b',') => {
                    cursor.key()?;
                    break;
                }
                (Container::Array, b']') | (Container::Object, b'}') => open.pop(),
                _ => return Err(ProtocolError::InvalidPayload),
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Container {
    Array,
    Object,
}

/// The containers that are open, innermost last: a bit for each, set for objects.
#[derive(Default)]
struct Open {
    kinds: u128,
    depth: u32,
}

impl Open {
    fn push(&mut self, container: Container) -> Result<(), ProtocolError> {
        if self.depth == MAX_DEPTH {
            return Err(ProtocolError::PayloadTooDeep);
        }
        self.kinds = (self.kinds << 1) | u128::from(container == Container::Object);
        self.depth += 1;
        Ok(())
    }

    fn pop(&mut self) {
        self.kinds >>= 1;
        self.depth -= 1;
    }

    fn top(&self) -> Option<Container> {
        let kind = if self.kinds & 1 == 1 { Container::Object } else { Container::Array };
        (self.depth > 0).then_some(kind)
    }
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn next(&mut self) -> Result<u8, ProtocolError> {
        let byte = self.peek().ok_or(ProtocolError::InvalidPayload)?;
        self.at += 1;
        Ok(byte)
    }

    fn next_token(&mut self) -> Result<u8, ProtocolError> {
        self.skip_whitespace();
        self.next()
    }

    fn skip_whitespace(&mut self) {
        while self.peek().is_some_and(is_whitespace) {
            self.at += 1;
        }
    }

    fn skip_if(&mut self, token: u8) -> bool {
        self.skip_whitespace();
        let found = self.peek() == Some(token);
        self.at += usize::from(found);
        found
    }

    fn end(&mut self) -> Result<(), ProtocolError> {
        self.skip_whitespace();
        if self.at == self.bytes.len() { Ok(()) } else { Err(ProtocolError::InvalidPayload) }
    }

    fn literal(&mut self, rest: &[u8]) -> Result<(), ProtocolError> {
        if !self.bytes[self.at..].starts_with(rest) {
            return Err(ProtocolError::InvalidPayload);
        }
        self.at += rest.len();
        Ok(())
    }

    fn key(&mut self) -> Result<(), ProtocolError> {
        if self.next_token()? != b'"' {
            return Err(ProtocolError::InvalidPayload);
        }
        self.string()?;
        if self.next_token()? == b':' { Ok(()) } else { Err(ProtocolError::InvalidPayload) }
    }

    /// The rest of a string, behind its opening quote.
    fn string(&mut self) -> Result<(), ProtocolError> {
        loop {
            let special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..0x20);
            let rest = &self.bytes[self.at..];
            let len = rest.iter().position(special).ok_or(ProtocolError::InvalidPayload)?;
            self.at += len + 1;
            match rest[len] {
                b'"' => return Ok(()),
                b'\\' => self.escape()?,
                _ => return Err(ProtocolError::InvalidPayload),
            }
        }
    }

    fn escape(&mut self) -> Result<(), ProtocolError> {
        match self.next()? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Ok(()),
            b'u' => {
                for _ in 0..4 {
                    if !self.next()?.is_ascii_hexdigit() {
                        return Err(ProtocolError::InvalidPayload);
                    }
                }
                Ok(())
            }
            _ => Err(ProtocolError::InvalidPayload),
        }
    }

    /// A number, behind its minus sign if there is one.
    fn number(&mut self) -> Result<(), ProtocolError> {
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), ProtocolError> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at > start { Ok(()) } else { Err(ProtocolError::InvalidPayload) }
    }
}

pub(super) fn is_whitespace(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// Where the value that starts at `start` ends. The text has been checked; on text that has not,
/// the answer is some place on a character's border, not before `start`.
pub(super) fn end_of_value(text: &str, start: usize) -> usize {
    let bytes = text.as_bytes();
    let mut depth = 0_u32;
    let mut at = start;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => at = end_of_string(bytes, at),
            b'[' | b'{' => {
                depth += 1;
                at += 1;
            }
            b']' | b'}' if depth == 0 => return at,
            b']' | b'}' => {
                depth -= 1;
                at += 1;
            }
            _ if depth > 0 => at += 1,
            _ => return end_of_scalar(bytes, at),
        }
        if depth == 0 {
            return at;
        }
    }
    bytes.len()
}

fn end_of_scalar(bytes: &[u8], start: usize) -> usize {
    let stops = |byte: &u8| matches!(byte, b',' | b']' | b'}' | b'"') || is_whitespace(*byte);
    bytes[start..].iter().position(stops).map_or(bytes.len(), |len| start + len)
}

/// Where the token that starts at `start` ends: a string, a literal or a number, else one byte.
pub(super) fn end_of_token(text: &str, start: usize) -> usize {
    match text.as_bytes()[start] {
        b'"' => end_of_string(text.as_bytes(), start),
        b't' | b'f' | b'n' | b'-' | b'0'..=b'9' => end_of_scalar(text.as_bytes(), start),
        _ => start + 1,
    }
}

/// Where the string whose opening quote is at `start` ends.
fn end_of_string(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// An object that stands for an attachment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Placeholder {
    /// Which attachment.
    pub(super) number: usize,
    /// Where the number stands in the text.
    pub(super) at: Range<usize>,
}

pub(super) type Placeholders = SmallVec<[Placeholder; 4]>;

/// Finds every object of the checked text that has `"_placeholder":true`, in the order in which
/// their numbers stand there; each must have a number.
///
/// The official parser takes any such object for a placeholder, whatever else it holds and
/// however its keys are escaped; of a key that occurs twice the last one counts.
pub(super) fn placeholders(text: &str) -> Result<Placeholders, ProtocolError> {
    let bytes = text.as_bytes();
    let mut found = Placeholders::new();
    let mut open: SmallVec<[Level; 8]> = SmallVec::new();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let start = at;
        at += 1;
        match byte {
            b'{' | b'[' => {
                record(&mut open, Value::Other);
                open.push(Level { expects_key: *byte == b'{', ..Level::default() });
            }
            b'}' | b']' => {
                let closed = open.pop().unwrap_or_default();
                if closed.is_placeholder {
                    found.push(closed.placeholder(text)?);
                }
            }
            b',' => {
                if let Some(level) = open.last_mut() {
                    level.expects_key = level.is_object();
                }
            }
            b'"' => {
                at = end_of_string(bytes, start);
                match open.last_mut() {
                    Some(level) if level.expects_key => level.set_key(&text[start..at]),
                    _ => record(&mut open, Value::Other),
                }
            }
            b':' => {}
            byte if is_whitespace(*byte) => {}
            _ => {
                at = end_of_scalar(bytes, start);
                let value = match byte {
                    b't' => Value::True,
                    b'-' | b'0'..=b'9' => Value::Number(start..at),
                    _ => Value::Other,
                };
                record(&mut open, value);
            }
        }
    }
    // A placeholder inside another one is found before it, but may stand behind its number.
    found.sort_by_key(|placeholder| placeholder.at.start);
    Ok(found)
}

/// What is known of an open array or object.
#[derive(Default)]
struct Level {
    expects_key: bool,
    key: Key,
    is_placeholder: bool,
    number: Option<Range<usize>>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Key {
    /// It is an array, or no key has come yet.
    #[default]
    None,
    Placeholder,
    Number,
    Other,
}

enum Value {
    True,
    Number(Range<usize>),
    Other,
}

impl Level {
    fn is_object(&self) -> bool {
        self.key != Key::None
    }

    fn set_key(&mut self, quoted: &str) {
        self.expects_key = false;
        self.key = match quoted {
            r#""_placeholder""# => Key::Placeholder,
            r#""num""# => Key::Number,
            escaped if escaped.contains('\\') => match unquote(escaped).as_str() {
                "_placeholder" => Key::Placeholder,
                "num" => Key::Number,
                _ => Key::Other,
            },
            _ => Key::Other,
        };
    }

    fn placeholder(self, text: &str) -> Result<Placeholder, ProtocolError> {
        let at = self.number.ok_or(ProtocolError::IllegalPlaceholder)?;
        // JavaScript's numbers: `1`, `1.0` and `10e-1` are the same index.
        let number: f64 =
            text[at.clone()].parse().map_err(|_| ProtocolError::IllegalPlaceholder)?;
        if number.fract() != 0.0 || !(0.0..=f64::from(u32::MAX)).contains(&number) {
            return Err(ProtocolError::IllegalPlaceholder);
        }
        Ok(Placeholder { number: number as usize, at })
    }
}

/// Notes a value with the key that it belongs to.
fn record(open: &mut [Level], value: Value) {
    let Some(level) = open.last_mut() else { return };
    match level.key {
        Key::Placeholder => level.is_placeholder = matches!(value, Value::True),
        Key::Number => {
            level.number = if let Value::Number(at) = value { Some(at) } else { None };
        }
        Key::None | Key::Other => {}
    }
}

/// The text with each placeholder's number replaced.
pub(super) fn renumber(
    text: &str,
    placeholders: &[Placeholder],
    number: impl Fn(usize) -> usize,
) -> String {
    let mut out = String::with_capacity(text.len() + placeholders.len());
    let mut copied = 0;
    for placeholder in placeholders {
        out.push_str(&text[copied..placeholder.at.start]);
        out.push_str(&number(placeholder.number).to_string());
        copied = placeholder.at.end;
    }
    out.push_str(&text[copied..]);
    out
}

/// The content of a checked string, given with its quotes. An unpaired surrogate, which Rust's
/// strings cannot hold, becomes U+FFFD.
pub(super) fn unquote(quoted: &str) -> String {
    let inner = quoted.strip_prefix('"').unwrap_or(quoted);
    let mut rest = inner.strip_suffix('"').unwrap_or(inner);
    let mut out = String::with_capacity(rest.len());
    while let Some(backslash) = rest.find('\\') {
        out.push_str(&rest[..backslash]);
        let mut chars = rest[backslash + 1..].chars();
        match chars.next() {
            Some('b') => out.push('\u{8}'),
            Some('f') => out.push('\u{c}'),
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('t') => out.push('\t'),
            Some('u') => {
                rest = push_utf16(&rest[backslash..], &mut out);
                continue;
            }
            Some(itself) => out.push(itself),
            None => {}
        }
        rest = chars.as_str();
    }
    out.push_str(rest);
    out
}

/// Decodes the run of `\uXXXX` that `text` starts with, and returns what follows it.
fn push_utf16<'a>(text: &'a str, out: &mut String) -> &'a str {
    let mut units: SmallVec<[u16; 8]> = SmallVec::new();
    let mut rest = text;
    while let Some(digits) = rest.strip_prefix("\\u").and_then(|rest| rest.get(..4)) {
        let Ok(unit) = u16::from_str_radix(digits, 16) else { break };
        units.push(unit);
        rest = &rest[6..];
    }
    if units.is_empty() {
        return &rest[2..];
    }
    out.extend(char::decode_utf16(units).map(|char| char.unwrap_or(char::REPLACEMENT_CHARACTER)));
    rest
}

#[cfg(test)]
mod tests;
