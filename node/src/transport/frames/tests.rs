//! The reader against tungstenite's client side, and the rules that a well-behaved client cannot show.

use std::io::Cursor;

use proptest::prelude::*;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, Frame as ClientFrame};
use tokio_tungstenite::tungstenite::{Message, WebSocket};

use super::*;

const LIMIT: usize = 100_000;

/// What the reader gave, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Read {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong,
    Close(Option<u16>),
}

impl From<Frame<'_>> for Read {
    fn from(frame: Frame<'_>) -> Self {
        match frame {
            Frame::Text(text) => Self::Text(text.to_owned()),
            Frame::Binary(bytes) => Self::Binary(bytes.to_vec()),
            Frame::Ping(bytes) => Self::Ping(bytes.to_vec()),
            Frame::Pong => Self::Pong,
            Frame::Close(code) => Self::Close(code.map(u16::from)),
        }
    }
}

/// Reads `bytes` as if they came in pieces that end at `ends`, and all the rest at last.
fn read(bytes: &[u8], ends: &[usize], limit: usize) -> Result<Vec<Read>, FrameError> {
    let mut reader = FrameReader::new(limit);
    let mut all = Vec::new();
    let mut start = 0;
    for &end in ends.iter().chain([&bytes.len()]) {
        let mut piece = bytes[start..end].to_vec();
        let mut input = piece.as_mut_slice();
        while let Some(frame) = reader.next(&mut input)? {
            all.push(frame.into());
        }
        assert!(input.is_empty(), "the reader asks for more only when it has used all");
        start = end;
    }
    let held = reader.partial.capacity() + reader.message.capacity();
    assert!(held == 0 || !reader.partial.is_empty() || reader.message_kind.is_some());
    Ok(all)
}

fn read_at_once(bytes: &[u8]) -> Result<Vec<Read>, FrameError> {
    read(bytes, &[], LIMIT)
}

/// What a client of tungstenite writes.
fn client_bytes(messages: impl IntoIterator<Item = Message>) -> Vec<u8> {
    let mut client = WebSocket::from_raw_socket(Cursor::new(Vec::new()), Role::Client, None);
    for message in messages {
        client.send(message).unwrap();
    }
    client.into_inner().into_inner()
}

fn fragment(content: &[u8], kind: Data, is_final: bool) -> Message {
    Message::Frame(ClientFrame::message(content.to_vec(), OpCode::Data(kind), is_final))
}

/// A masked frame of any kind, right or wrong.
fn frame(first: u8, content: &[u8]) -> Vec<u8> {
    assert!(content.len() <= 125);
    let mut bytes = vec![first, 0x80 | content.len() as u8, 0, 0, 0, 0];
    bytes.extend_from_slice(content);
    bytes
}

const FINAL: u8 = 0x80;
const TEXT: u8 = 1;
const CLOSE: u8 = FINAL | 8;
const PING: u8 = 9;

/// A message in fragments, with a ping after each but the last.
#[derive(Clone, Debug)]
struct Sent {
    content: Vec<u8>,
    is_text: bool,
    cuts: Vec<usize>,
}

impl Sent {
    fn write(&self, messages: &mut Vec<Message>) {
        let mut start = 0;
        let mut kind = if self.is_text { Data::Text } else { Data::Binary };
        for &cut in &self.cuts {
            messages.push(fragment(&self.content[start..cut], kind, false));
            messages.push(Message::Ping(b"between".to_vec().into()));
            (start, kind) = (cut, Data::Continue);
        }
        messages.push(fragment(&self.content[start..], kind, true));
    }

    fn expect(&self, expected: &mut Vec<Read>) {
        expected.extend(self.cuts.iter().map(|_| Read::Ping(b"between".to_vec())));
        expected.push(match self.is_text {
            true => Read::Text(String::from_utf8(self.content.clone()).unwrap()),
            false => Read::Binary(self.content.clone()),
        });
    }
}

fn any_sent() -> impl Strategy<Value = Sent> {
    let text = "\\PC{0,60}".prop_map(|text: String| (text.into_bytes(), true));
    // On both sides of the border of each form of length.
    let len = prop_oneof![0..200usize, 120..130usize, 65_530..65_540usize];
    let binary = (len, any::<u8>()).prop_map(|(len, seed)| {
        ((0..len).map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed)).collect(), false)
    });
    let cuts = proptest::collection::vec(any::<prop::sample::Index>(), 0..3);
    (prop_oneof![text, binary], cuts).prop_map(
        |((content, is_text), cuts): ((Vec<u8>, bool), _)| {
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(content.len() + 1)).collect();
            cuts.sort_unstable();
            Sent { content, is_text, cuts }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn what_a_client_writes_is_read_however_it_is_cut(
        sent in proptest::collection::vec(any_sent(), 1..5),
        ends in proptest::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let (mut messages, mut expected) = (Vec::new(), Vec::new());
        for sent in &sent {
            sent.write(&mut messages);
            sent.expect(&mut expected);
        }
        let bytes = client_bytes(messages);
        let mut ends: Vec<_> = ends.iter().map(|end| end.index(bytes.len() + 1)).collect();
        ends.sort_unstable();
        prop_assert_eq!(read(&bytes, &ends, LIMIT), Ok(expected));
    }

    #[test]
    fn no_bytes_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        cut in any::<prop::sample::Index>(),
    ) {
        let cut = cut.index(bytes.len() + 1);
        let _ = read(&bytes, &[cut], 1000);
    }
}

#[test]
fn frames_may_be_split_at_every_byte() {
    let mut messages = Vec::new();
    for (len, cuts) in [(0, vec![]), (5, vec![2]), (300, vec![0, 126])] {
        Sent { content: vec![b'x'; len], is_text: true, cuts }.write(&mut messages);
    }
    messages.push(Message::Pong(b"unasked".to_vec().into()));
    messages.push(Message::Close(None));
    let bytes = client_bytes(messages);
    let whole = read_at_once(&bytes).unwrap();
    for end in 0..=bytes.len() {
        assert_eq!(read(&bytes, &[end], LIMIT).as_ref(), Ok(&whole), "split at {end}");
    }
    let every: Vec<_> = (0..=bytes.len()).collect();
    assert_eq!(read(&bytes, &every, LIMIT), Ok(whole));
}

#[test]
fn limit_holds_for_the_message_and_not_for_its_fragments() {
    let content = [b'x'; 60];
    let fragments = |second: usize| {
        let first = fragment(&content, Data::Text, false);
        client_bytes([first, fragment(&content[..second], Data::Continue, true)])
    };
    assert_eq!(read(&fragments(40), &[], 100), Ok(vec![Read::Text("x".repeat(100))]));
    assert_eq!(read(&fragments(41), &[], 100), Err(FrameError::TooLong));
    let one = |len| client_bytes([Message::text("x".repeat(len))]);
    assert_eq!(read(&one(100), &[], 100), Ok(vec![Read::Text("x".repeat(100))]));
    assert_eq!(read(&one(101), &[], 100), Err(FrameError::TooLong));
}

#[test]
fn message_beyond_the_limit_is_refused_before_it_has_come() {
    for len in [1_u64 << 20, 1 << 63, u64::MAX] {
        let mut header = vec![FINAL | TEXT, 0x80 | 127];
        header.extend(len.to_be_bytes());
        header.extend([0; 4]);
        assert_eq!(read_at_once(&header), Err(FrameError::TooLong));
        assert_eq!(read(&header, &[3], LIMIT), Err(FrameError::TooLong));
    }
    assert_eq!(FrameError::TooLong.close_code(), CloseCode::Size);
}

#[test]
fn text_must_be_utf8_once_it_is_complete() {
    let euro = "€".as_bytes();
    let halves =
        [fragment(&euro[..1], Data::Text, false), fragment(&euro[1..], Data::Continue, true)];
    assert_eq!(read_at_once(&client_bytes(halves)), Ok(vec![Read::Text("€".to_owned())]));
    let half = client_bytes([fragment(&euro[..1], Data::Text, true)]);
    assert_eq!(read_at_once(&half), Err(FrameError::Utf8));
    assert_eq!(FrameError::Utf8.close_code(), CloseCode::Invalid);
}

#[test]
fn broken_rules_are_protocol_errors() {
    let broken: [(&str, Vec<u8>); 9] = [
        ("unmasked", vec![FINAL | TEXT, 1, b'x']),
        ("reserved bit", frame(FINAL | 0x40 | TEXT, b"x")),
        ("unknown data opcode", frame(FINAL | 3, b"x")),
        ("unknown control opcode", frame(FINAL | 11, b"x")),
        ("fragmented control frame", frame(PING, b"x")),
        ("continuation of nothing", frame(FINAL, b"x")),
        ("message within a message", [frame(TEXT, b"x"), frame(FINAL | TEXT, b"y")].concat()),
        ("half a close code", frame(CLOSE, b"\x03")),
        ("long control frame", vec![FINAL | PING, 0x80 | 126, 0, 126, 0, 0, 0, 0]),
    ];
    for (rule, bytes) in broken {
        let error = read_at_once(&bytes).expect_err(rule);
        assert_eq!(error.close_code(), CloseCode::Protocol, "{rule}");
    }
}

#[test]
fn close_codes_are_checked() {
    let close = |code: u16, reason: &[u8]| {
        read_at_once(&frame(CLOSE, &[&code.to_be_bytes(), reason].concat()))
    };
    for code in [1000, 1001, 1009, 1011, 3000, 4999] {
        assert_eq!(close(code, b"reason"), Ok(vec![Read::Close(Some(code))]));
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 2999, 5000] {
        assert!(matches!(close(code, b""), Err(FrameError::Protocol(_))), "{code}");
    }
    assert_eq!(close(1000, b"\xff"), Err(FrameError::Utf8));
    assert_eq!(read_at_once(&frame(CLOSE, b"")), Ok(vec![Read::Close(None)]));
    let frame = CloseFrame { code: CloseCode::Away, reason: "tab closed".into() };
    let from_client = client_bytes([Message::Close(Some(frame))]);
    assert_eq!(read_at_once(&from_client), Ok(vec![Read::Close(Some(1001))]));
}
