//! What is particular to the payloads of revision 3, and what they refuse.

use proptest::prelude::*;

use super::*;

fn text(text: &str) -> Packet {
    Packet::Message(Message::Text(text.into()))
}

fn bytes(bytes: &'static [u8]) -> Packet {
    Packet::Message(Message::Binary(bytes.into()))
}

fn parsed(body: &[u8]) -> Vec<Result<Packet, ParseError>> {
    parse_payload(body).collect()
}

fn written(packets: &[Packet], form: Form) -> Vec<u8> {
    let mut body = Vec::new();
    for packet in packets {
        match packet {
            Packet::Message(Message::Binary(bytes)) => {
                append(Piece::Bytes(bytes), form, &mut body);
            }
            packet => append(Piece::Text(packet.to_text().as_bytes()), form, &mut body),
        }
    }
    body
}

#[test]
fn lengths_of_text_count_utf16_units() {
    let packets = [text("2[\"é\"]"), text("😀"), Packet::Pong("".into())];
    let body = written(&packets, Form::Text);
    assert_eq!(str::from_utf8(&body).unwrap(), "7:42[\"é\"]3:4😀1:3");
    assert_eq!(parsed(&body), packets.map(Ok));
}

#[test]
fn bytes_travel_in_text_as_base64_behind_the_type_of_a_message() {
    let body = written(&[bytes(&[1, 2, 3])], Form::Text);
    assert_eq!(body, b"6:b4AQID");
    assert_eq!(parsed(&body), [Ok(bytes(&[1, 2, 3]))]);
}

/// As recorded of the official server.
#[test]
fn payload_in_the_form_of_bytes_has_a_kind_a_length_and_the_packet() {
    let packets = [text("61-0[1]"), bytes(&[1, 2, 3])];
    let body = written(&packets, Form::Bytes);
    assert_eq!(body, b"\x00\x08\xff461-0[1]\x01\x04\xff\x04\x01\x02\x03");
    assert_eq!(parsed(&body), packets.map(Ok));

    let long = text(&"é".repeat(150));
    let body = written(std::slice::from_ref(&long), Form::Bytes);
    assert_eq!(body[..5], [0, 3, 0, 1, 255], "301 bytes of UTF-8");
    assert_eq!(parsed(&body), [Ok(long)]);
}

#[test]
fn empty_packets_of_text_are_no_packets() {
    assert_eq!(parsed(b"0:2:4a0:"), [Ok(text("a"))]);
}

#[test]
fn lengths_that_do_not_fit_are_refused() {
    let too_long = format!("{}:4a", u128::MAX);
    for body in [
        "4a",
        ":4a",
        "x:4a",
        "-1:4a",
        "+1:4a",
        " 1:4",
        "1e0:4",
        "3:4a",
        "9999999999:4a",
        &too_long,
        // Half of a character.
        "2:4😀",
    ] {
        assert_eq!(parsed(body.as_bytes()), [Err(ParseError::Length)], "{body:?}");
    }
    assert_eq!(parsed(b"2:4a7"), [Ok(text("a")), Err(ParseError::Length)]);
    for body in [
        b"\x00".as_slice(),
        b"\x00\xff4a",
        b"\x00\x024a",
        b"\x00\x0a\xff4a",
        b"\x00\x03\xff4a",
        b"\x01\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\xff\x04",
    ] {
        assert_eq!(parsed(body), [Err(ParseError::Length)], "{body:?}");
    }
    assert_eq!(
        parsed(b"\x00\x02\xff4a\x02\x02\xff4a"),
        [Ok(text("a")), Err(ParseError::Length)],
        "a kind that there is not"
    );
}

#[test]
fn pieces_that_are_no_packets_are_refused() {
    assert_eq!(parsed(b""), [Err(ParseError::Empty)]);
    assert_eq!(parsed(b"2:4a2:7a"), [Ok(text("a")), Err(ParseError::UnknownType('7'))]);
    assert_eq!(parsed(b"2:4\xff"), [Err(ParseError::Utf8)]);
    assert_eq!(parsed(b"\x00\x02\xff4\xff"), [Err(ParseError::Utf8)]);
    assert_eq!(parsed(b"\x00\x00\xff"), [Err(ParseError::Empty)]);
    assert_eq!(parsed(b"\x01\x00\xff"), [Err(ParseError::Empty)]);
    assert_eq!(parsed(b"\x01\x01\xff\x07"), [Err(ParseError::UnknownType('\x07'))]);
    assert_eq!(parsed(b"1:b"), [Err(ParseError::Empty)]);
    assert_eq!(parsed(b"2:b2"), [Err(ParseError::UnknownType('2'))]);
    assert_eq!(parsed(b"3:b4*"), [Err(ParseError::Base64)]);
    // What revision 4 writes.
    assert_eq!(parsed(b"4a\x1e4b"), [Err(ParseError::Length)]);
}

#[test]
fn frames_of_bytes_begin_with_the_type_of_a_message() {
    assert_eq!(parse_bytes(&[4, 1, 2]), Ok(bytes(&[1, 2])));
    assert_eq!(parse_bytes(&[4]), Ok(bytes(&[])));
    assert_eq!(parse_bytes(&[]), Err(ParseError::Empty));
    assert_eq!(parse_bytes(&[2]), Err(ParseError::UnknownType('\x02')));
}

fn any_packet() -> impl Strategy<Value = Packet> {
    let content = "\\PC{0,20}|[😀é\u{1e}:]{0,9}";
    prop_oneof![
        content.prop_map(|content| text(&content)),
        content.prop_map(|content| Packet::Ping(content.into())),
        proptest::collection::vec(any::<u8>(), 0..40)
            .prop_map(|bytes| Packet::Message(Message::Binary(bytes.into()))),
        Just(Packet::Close),
        Just(Packet::Noop),
    ]
}

proptest! {
    #[test]
    fn payload_parses_back(packets in proptest::collection::vec(any_packet(), 1..6)) {
        for form in [Form::Text, Form::Bytes] {
            let again: Result<Vec<_>, _> = parse_payload(&written(&packets, form)).collect();
            prop_assert_eq!(again, Ok(packets.clone()));
        }
    }

    #[test]
    fn lengths_are_those_of_javascript(content in "\\PC{0,40}") {
        prop_assert_eq!(utf16_len(content.as_bytes()), content.encode_utf16().count());
    }

    #[test]
    fn no_body_panics(body in proptest::collection::vec(
        prop_oneof![any::<u8>(), Just(0), Just(1), Just(0xff), Just(b':'), Just(b'4'), b'0'..=b'9'], 0..60))
    {
        let parsed = parsed(&body);
        prop_assert!(parsed.iter().rev().skip(1).all(Result::is_ok), "nothing follows a bad packet");
    }
}
