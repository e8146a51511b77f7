//! Reads and writes WebSocket frames (RFC 6455), with one scratch buffer a thread.

use std::io::Cursor;

use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

mod scratch;
#[cfg(test)]
mod tests;
mod writer;

pub(crate) use scratch::Scratch;
pub(crate) use writer::FrameWriter;

/// Finds the messages in a client's bytes.
///
/// Bytes are read into a buffer that belongs to the thread, and unmasked there; only what is
/// incomplete is kept here, so that an idle connection holds no memory.
#[derive(Debug)]
pub(crate) struct FrameReader {
    /// The beginning of a frame.
    partial: Vec<u8>,
    /// The fragments of a message that is not complete.
    message: Vec<u8>,
    message_kind: Option<Data>,
    /// `partial` or `message` was lent out complete, and is to be emptied.
    is_lent: Option<Lent>,
    max_message_bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lent {
    Partial,
    Message,
}

/// A complete message, or a control frame.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame<'a> {
    Text(&'a str),
    Binary(&'a [u8]),
    Ping(&'a [u8]),
    Pong,
    /// The code, if the client gave one. Nothing follows.
    Close(Option<CloseCode>),
}

/// The client broke the protocol; the connection ends with the close code that says how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("bad frame: {0}")]
    Protocol(&'static str),
    #[error("text is not UTF-8")]
    Utf8,
    #[error("message is too long")]
    TooLong,
}

impl FrameError {
    pub(crate) fn close_code(self) -> CloseCode {
        match self {
            Self::Protocol(_) => CloseCode::Protocol,
            Self::Utf8 => CloseCode::Invalid,
            Self::TooLong => CloseCode::Size,
        }
    }
}

/// Where the content of a complete frame or message lies.
enum Content<'a> {
    Input(&'a [u8]),
    /// In `partial`, behind a header of so many bytes.
    Partial(usize),
    Message,
}

/// RFC 6455, section 5.5.
const MAX_CONTROL_BYTES: usize = 125;

impl FrameReader {
    pub(crate) fn new(max_message_bytes: usize) -> Self {
        Self {
            partial: Vec::new(),
            message: Vec::new(),
            message_kind: None,
            is_lent: None,
            max_message_bytes,
        }
    }

    /// The next message in `input`, which shrinks by what was used. None once `input` is used up:
    /// call it until then, for what it lent out is given back by the next call.
    pub(crate) fn next<'frame, 'input: 'frame>(
        &'frame mut self,
        input: &mut &'input mut [u8],
    ) -> Result<Option<Frame<'frame>>, FrameError> {
        match self.is_lent.take() {
            Some(Lent::Partial) => self.partial = Vec::new(),
            Some(Lent::Message) => self.message = Vec::new(),
            None => {}
        }
        loop {
            let Some((header, content)) = self.next_frame(input)? else { return Ok(None) };
            match header.opcode {
                OpCode::Control(kind) => return self.lend_control(kind, content).map(Some),
                OpCode::Data(kind) => {
                    if let Some((kind, content)) = self.gather(kind, header.is_final, content)? {
                        return self.lend_message(kind, content).map(Some);
                    }
                }
            }
        }
    }

    /// A complete frame, unmasked and allowed.
    fn next_frame<'a>(
        &mut self,
        input: &mut &'a mut [u8],
    ) -> Result<Option<(FrameHeader, Content<'a>)>, FrameError> {
        if !self.partial.is_empty() {
            return self.complete_partial(input);
        }
        let Some((header, start, end)) = self.parse_header(input)? else {
            self.partial.extend_from_slice(input);
            *input = &mut [];
            return Ok(None);
        };
        if input.len() < end {
            self.partial.extend_from_slice(input);
            *input = &mut [];
            return Ok(None);
        }
        let (frame, rest) = std::mem::take(input).split_at_mut(end);
        *input = rest;
        let content = &mut frame[start..];
        unmask(content, &header);
        Ok(Some((header, Content::Input(content))))
    }

    /// Takes from `input` only what belongs to the frame that has begun.
    fn complete_partial<'a>(
        &mut self,
        input: &mut &'a mut [u8],
    ) -> Result<Option<(FrameHeader, Content<'a>)>, FrameError> {
        let (header, start, end) = loop {
            if let Some(parsed) = self.parse_header(&self.partial)? {
                break parsed;
            }
            // The header's length is known only from its first bytes.
            let Some((byte, rest)) = std::mem::take(input).split_first_mut() else {
                return Ok(None);
            };
            self.partial.push(*byte);
            *input = rest;
        };
        let missing = (end - self.partial.len()).min(input.len());
        let (bytes, rest) = std::mem::take(input).split_at_mut(missing);
        self.partial.extend_from_slice(bytes);
        *input = rest;
        if self.partial.len() < end {
            return Ok(None);
        }
        unmask(&mut self.partial[start..], &header);
        Ok(Some((header, Content::Partial(start))))
    }

    /// The header, where the content starts and where it ends. Refuses a frame before its content has come.
    fn parse_header(
        &self,
        bytes: &[u8],
    ) -> Result<Option<(FrameHeader, usize, usize)>, FrameError> {
        let mut cursor = Cursor::new(bytes);
        let parsed =
            FrameHeader::parse(&mut cursor).map_err(|_| FrameError::Protocol("unknown opcode"))?;
        let Some((header, len)) = parsed else { return Ok(None) };
        self.check(&header, len)?;
        let start = cursor.position() as usize;
        Ok(Some((header, start, start + len as usize)))
    }

    fn check(&self, header: &FrameHeader, len: u64) -> Result<(), FrameError> {
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(FrameError::Protocol("reserved bit without an extension"));
        }
        if header.mask.is_none() {
            return Err(FrameError::Protocol("unmasked frame from a client"));
        }
        match header.opcode {
            OpCode::Control(_) if !header.is_final => {
                Err(FrameError::Protocol("fragmented control frame"))
            }
            OpCode::Control(_) if len > MAX_CONTROL_BYTES as u64 => {
                Err(FrameError::Protocol("control frame is too long"))
            }
            OpCode::Control(_) => Ok(()),
            OpCode::Data(Data::Continue) if self.message_kind.is_none() => {
                Err(FrameError::Protocol("continuation of nothing"))
            }
            OpCode::Data(Data::Text | Data::Binary) if self.message_kind.is_some() => {
                Err(FrameError::Protocol("message within a message"))
            }
            OpCode::Data(_) => {
                let room = self.max_message_bytes - self.message.len();
                if len > room as u64 { Err(FrameError::TooLong) } else { Ok(()) }
            }
        }
    }

    /// Puts fragments together; gives the message once it is complete.
    fn gather<'a>(
        &mut self,
        kind: Data,
        is_final: bool,
        content: Content<'a>,
    ) -> Result<Option<(Data, Content<'a>)>, FrameError> {
        if is_final && self.message_kind.is_none() {
            return Ok(Some((kind, content)));
        }
        match content {
            Content::Input(bytes) => self.message.extend_from_slice(bytes),
            Content::Partial(start) => {
                self.message.extend_from_slice(&self.partial[start..]);
                self.partial = Vec::new();
            }
            Content::Message => unreachable!("a frame lies in the input or in `partial`"),
        }
        let kind = *self.message_kind.get_or_insert(kind);
        if !is_final {
            return Ok(None);
        }
        self.message_kind = None;
        Ok(Some((kind, Content::Message)))
    }

    fn lend_message<'a>(
        &'a mut self,
        kind: Data,
        content: Content<'a>,
    ) -> Result<Frame<'a>, FrameError> {
        let bytes = self.lend(content);
        match kind {
            Data::Text => str::from_utf8(bytes).map(Frame::Text).map_err(|_| FrameError::Utf8),
            _ => Ok(Frame::Binary(bytes)),
        }
    }

    fn lend_control<'a>(
        &'a mut self,
        kind: Control,
        content: Content<'a>,
    ) -> Result<Frame<'a>, FrameError> {
        let bytes = self.lend(content);
        match kind {
            Control::Ping => Ok(Frame::Ping(bytes)),
            Control::Close => parse_close(bytes).map(Frame::Close),
            Control::Pong | Control::Reserved(_) => Ok(Frame::Pong),
        }
    }

    fn lend<'a>(&'a mut self, content: Content<'a>) -> &'a [u8] {
        match content {
            Content::Input(bytes) => bytes,
            Content::Partial(start) => {
                self.is_lent = Some(Lent::Partial);
                &self.partial[start..]
            }
            Content::Message => {
                self.is_lent = Some(Lent::Message);
                &self.message
            }
        }
    }
}

/// RFC 6455, sections 5.5.1 and 7.4.
fn parse_close(content: &[u8]) -> Result<Option<CloseCode>, FrameError> {
    let [high, low, reason @ ..] = content else {
        return match content {
            [] => Ok(None),
            _ => Err(FrameError::Protocol("half a close code")),
        };
    };
    let code = CloseCode::from(u16::from_be_bytes([*high, *low]));
    if !code.is_allowed() {
        return Err(FrameError::Protocol("close code is not allowed"));
    }
    str::from_utf8(reason).map_err(|_| FrameError::Utf8)?;
    Ok(Some(code))
}

/// The content of a close frame that gives `code`.
pub(crate) fn close_content(code: Option<CloseCode>) -> Vec<u8> {
    code.map(|code| u16::from(code).to_be_bytes().to_vec()).unwrap_or_default()
}

fn unmask(content: &mut [u8], header: &FrameHeader) {
    let mask = header.mask.expect("unmasked frames were refused");
    let mask_twice = u64::from_ne_bytes(std::array::from_fn(|i| mask[i % 4]));
    let mut chunks = content.chunks_exact_mut(8);
    for chunk in &mut chunks {
        let bytes: [u8; 8] = (&*chunk).try_into().expect("a chunk is eight bytes");
        chunk.copy_from_slice(&(u64::from_ne_bytes(bytes) ^ mask_twice).to_ne_bytes());
    }
    for (byte, mask) in chunks.into_remainder().iter_mut().zip(mask.into_iter().cycle()) {
        *byte ^= mask;
    }
}
