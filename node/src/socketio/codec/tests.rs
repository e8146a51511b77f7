//! Each rule of the packet text, and the codec against its own encoder.

use proptest::prelude::*;

use super::*;

fn text(kind: Kind, attachments: usize, namespace: &str, id: Option<u64>) -> String {
    let mut out = Vec::new();
    Header { kind, attachments, namespace, id }.write(&mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn header_is_spelled_as_the_specification_says() {
    assert_eq!(text(Kind::Event, 0, "/", None), "2");
    assert_eq!(text(Kind::Event, 0, "/admin", Some(12)), "2/admin,12");
    assert_eq!(text(Kind::BinaryEvent, 1, "/", None), "51-");
    assert_eq!(text(Kind::BinaryAck, 2, "/admin", Some(456)), "62-/admin,456");
    assert_eq!(text(Kind::Ack, 0, "/", Some(u64::MAX)), "318446744073709551615");
}

fn packet(text: &str) -> Result<Packet, ProtocolError> {
    parse(&text.into(), 10)
}

fn body(namespace: &str, id: Option<u64>, json: &str, attachments: usize) -> Body {
    Body::parse(namespace.into(), id, json.into(), attachments).unwrap()
}

fn connect(namespace: &str, auth: Option<&str>) -> Packet {
    Packet::Connect { namespace: namespace.into(), auth: auth.map(Into::into) }
}

#[test]
fn connect_carries_an_object_or_nothing() {
    assert_eq!(packet("0"), Ok(connect("/", None)));
    assert_eq!(packet(r#"0{"token":"x"}"#), Ok(connect("/", Some(r#"{"token":"x"}"#))));
    assert_eq!(packet("0/chat"), Ok(connect("/chat", None)));
    assert_eq!(packet("0/chat,"), Ok(connect("/chat", None)));
    assert_eq!(packet("0/chat,{}"), Ok(connect("/chat", Some("{}"))));
    for text in ["0[]", "0null", "0\"a\"", "0true", "0{", "0/chat,[]"] {
        assert_eq!(packet(text), Err(ProtocolError::InvalidPayload), "{text}");
    }
}

#[test]
fn disconnect_carries_nothing() {
    assert_eq!(packet("1"), Ok(Packet::Disconnect { namespace: "/".into() }));
    assert_eq!(packet("1/chat,"), Ok(Packet::Disconnect { namespace: "/chat".into() }));
    assert_eq!(packet("1{}"), Err(ProtocolError::InvalidPayload));
    assert_eq!(packet("1\"\""), Err(ProtocolError::InvalidPayload));
}

#[test]
fn connect_error_carries_an_object_or_a_string() {
    let error =
        |error: &str| Packet::ConnectError { namespace: "/".into(), error: Some(error.into()) };
    assert_eq!(packet("4{}"), Ok(error("{}")));
    assert_eq!(packet("4\"no\""), Ok(error("\"no\"")));
    assert_eq!(packet("4"), Ok(Packet::ConnectError { namespace: "/".into(), error: None }));
    assert_eq!(packet("4[]"), Err(ProtocolError::InvalidPayload));
}

#[test]
fn event_is_an_array_that_opens_with_its_name() {
    assert_eq!(packet(r#"2["a",1]"#), Ok(Packet::Event(body("/", None, r#"["a",1]"#, 0))));
    assert_eq!(packet(r#"2/b,12["a"]"#), Ok(Packet::Event(body("/b", Some(12), r#"["a"]"#, 0))));
    assert_eq!(packet("2[1]"), Ok(Packet::Event(body("/", None, "[1]", 0))));
    for text in ["2[]", "2[null]", "2[true]", "2[[]]", "2[{}]", "2{}", "2\"a\"", "2[\"a\"", "2a"] {
        assert_eq!(packet(text), Err(ProtocolError::InvalidPayload), "{text}");
    }
}

#[test]
fn reserved_event_names_are_refused() {
    for name in RESERVED_EVENTS {
        let refused = packet(&format!(r#"2["{name}"]"#));
        assert_eq!(refused, Err(ProtocolError::ReservedEvent), "{name}");
    }
    assert_eq!(packet(r#"2["\u0063onnect"]"#), Err(ProtocolError::ReservedEvent));
    assert_eq!(packet(r#"51-["disconnect"]"#), Err(ProtocolError::ReservedEvent));
    assert!(packet(r#"2["connection"]"#).is_ok());
    assert!(packet(r#"3["connect"]"#).is_ok());
}

#[test]
fn ack_is_any_array() {
    assert_eq!(packet("37[]"), Ok(Packet::Ack(body("/", Some(7), "[]", 0))));
    assert_eq!(packet("3/b,7[null]"), Ok(Packet::Ack(body("/b", Some(7), "[null]", 0))));
    assert_eq!(packet("3[1]"), Ok(Packet::Ack(body("/", None, "[1]", 0))));
    assert_eq!(packet("37{}"), Err(ProtocolError::InvalidPayload));
}

#[test]
fn event_or_ack_without_payload_is_tolerated() {
    assert_eq!(packet("2"), Ok(Packet::Event(body("/", None, "[]", 0))));
    assert_eq!(packet("25"), Ok(Packet::Event(body("/", Some(5), "[]", 0))));
    assert_eq!(packet("2/b"), Ok(Packet::Event(body("/b", None, "[]", 0))));
    assert_eq!(packet("37"), Ok(Packet::Ack(body("/", Some(7), "[]", 0))));
    assert_eq!(packet("51-"), Ok(Packet::Event(body("/", None, "[]", 1))));
}

#[test]
fn id_is_tolerated_on_any_packet() {
    assert_eq!(packet("03{}"), Ok(connect("/", Some("{}"))));
    assert_eq!(packet("1/b,3"), Ok(Packet::Disconnect { namespace: "/b".into() }));
}

#[test]
fn id_must_fit() {
    let largest = packet(&format!("3{}[]", u64::MAX));
    assert_eq!(largest, Ok(Packet::Ack(body("/", Some(u64::MAX), "[]", 0))));
    assert_eq!(packet("318446744073709551616[]"), Err(ProtocolError::IllegalId));
}

#[test]
fn unknown_types_are_refused() {
    for text in ["", "7", "9[]", "a", " 2[\"a\"]", "-", "é"] {
        assert_eq!(packet(text), Err(ProtocolError::UnknownType), "{text}");
    }
}

#[test]
fn attachments_are_counted_from_1_to_the_limit() {
    let one = r#"["a",{"_placeholder":true,"num":0}]"#;
    assert_eq!(packet(&format!("51-{one}")), Ok(Packet::Event(body("/", None, one, 1))));
    assert_eq!(packet(&format!("61-/b,3{one}")), Ok(Packet::Ack(body("/b", Some(3), one, 1))));
    assert_eq!(packet(r#"510-["a"]"#), Ok(Packet::Event(body("/", None, r#"["a"]"#, 10))));
    for text in [r#"511-["a"]"#, r#"5999999999999999999999-["a"]"#] {
        assert_eq!(packet(text), Err(ProtocolError::TooManyAttachments), "{text}");
    }
    for text in [r#"50-["a"]"#, r#"5-["a"]"#, r#"5["a"]"#, "5", "51", "5-1-[\"a\"]", "5a-[\"a\"]"] {
        assert_eq!(packet(text), Err(ProtocolError::IllegalAttachments), "{text}");
    }
}

#[test]
fn placeholders_must_be_in_range() {
    let text = r#"51-["a",{"_placeholder":true,"num":1}]"#;
    assert_eq!(packet(text), Err(ProtocolError::IllegalPlaceholder));
    assert!(packet(r#"2["a",{"_placeholder":true,"num":1}]"#).is_ok());
}

#[test]
fn question_mark_is_a_character_of_a_namespace() {
    assert_eq!(packet("0/chat?token=x,{}"), Ok(connect("/chat?token=x", Some("{}"))));
    let longest = "x".repeat(MAX_QUERY_BYTES - 1);
    assert!(packet(&format!("0/chat?{longest}")).is_ok());
    assert_eq!(packet(&format!("0/chat?{longest}x")), Err(ProtocolError::IllegalNamespace));
}

#[test]
fn namespaces_are_bounded() {
    let longest = "/".repeat(MAX_NAMESPACE_BYTES);
    assert_eq!(packet(&format!("0{longest},")), Ok(connect(&longest, None)));
    assert_eq!(packet(&format!("0/{longest},")), Err(ProtocolError::IllegalNamespace));
}

#[test]
fn payload_shares_the_message_and_the_namespace_does_not() {
    let text = ByteString::from(r#"2/chat,["a"]"#);
    let Ok(Packet::Event(body)) = parse(&text, 10) else { panic!("it is an event") };
    let message = text.as_bytes().as_ptr_range();
    assert!(message.contains(&body.json().as_ptr()));
    assert!(!message.contains(&body.namespace.as_bytes().as_ptr()));
}

#[test]
fn depth_bomb_is_refused() {
    let bomb = format!("2[\"a\",{}", "[".repeat(500_000));
    assert_eq!(packet(&bomb), Err(ProtocolError::PayloadTooDeep));
}

fn kind() -> impl Strategy<Value = Kind> {
    prop::sample::select(vec![Kind::Event, Kind::Ack, Kind::BinaryEvent, Kind::BinaryAck])
}

proptest! {
    #[test]
    fn what_is_encoded_is_parsed_back(
        kind in kind(),
        attachments in 1_usize..=10,
        namespace in "/([^,?]{0,20})",
        id in any::<Option<u64>>(),
        strings in prop::collection::vec(any::<String>(), 0..4),
    ) {
        let is_binary = matches!(kind, Kind::BinaryEvent | Kind::BinaryAck);
        let attachments = if is_binary { attachments } else { 0 };
        let mut elements = vec![serde_json::json!("name")];
        elements.extend(strings.into_iter().map(Into::into));
        elements.extend((0..attachments).map(|num| {
            serde_json::json!({"_placeholder": true, "num": num})
        }));
        let json = serde_json::Value::from(elements).to_string();

        let mut text = Vec::new();
        let header = Header { kind, attachments, namespace: &namespace, id };
        header.write(&mut text);
        prop_assert_eq!(header.text_len(), text.len());
        text.extend_from_slice(json.as_bytes());
        let parsed = parse(&ByteString::try_from(text).unwrap(), 10).unwrap();

        let wanted = body(&namespace, id, &json, attachments);
        let wanted = match kind {
            Kind::Event | Kind::BinaryEvent => Packet::Event(wanted),
            _ => Packet::Ack(wanted),
        };
        prop_assert_eq!(parsed, wanted);
    }

    #[test]
    fn no_text_panics(text in any::<String>(), kind in 0_u8..8) {
        let _ = packet(&text);
        let _ = packet(&format!("{kind}{text}"));
    }
}
