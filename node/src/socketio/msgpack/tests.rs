//! What npm's socket.io-msgpack-parser 3.0.2 wrote, and what else a client may send.

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::super::{MAX_DEPTH, Payload, codec::Kind};
use super::date::iso_date;
use super::reader::MAX_ATTACHMENTS;
use super::*;

fn bytes(hex: &str) -> Bytes {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pairs = digits.chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

fn decode(message: impl Into<Bytes>) -> Result<(Packet, Payload), ProtocolError> {
    let decoded = Msgpack.decoder().decode(Message::Binary(message.into()))?;
    let (packet, parts) = decoded.expect("each message is a packet");
    let payload = match &packet {
        Packet::Event(body) | Packet::Ack(body) => body.clone().into_payload(parts),
        _ => Payload { json: ByteString::new(), attachments: parts },
    };
    Ok((packet, payload))
}

/// An event of `/` whose data is `data`, in hexadecimal.
fn event_with(data: &str) -> Result<Payload, ProtocolError> {
    let head = bytes("83a47479706502a36e7370a12fa464617461");
    decode([head, bytes(data)].concat()).map(|(_, payload)| payload)
}

fn encode(kind: Kind, id: Option<u64>, json: &str, attachments: &[Bytes]) -> Bytes {
    let packet = OutgoingPacket { kind, namespace: "/", id, json, attachments };
    let messages = Msgpack.encode(&packet);
    let [Message::Binary(message)] = &messages[..] else { panic!("{messages:?}") };
    message.clone()
}

#[test]
fn clients_connect_carries_auth_or_undefined() {
    let (packet, _) = decode(bytes("83a47479706500a464617461d40000a36e7370a52f64656e79")).unwrap();
    assert_eq!(packet, Packet::Connect { namespace: "/deny".into(), auth: None });
    let (packet, _) = decode(bytes("83a47479706500a46461746181a17401a36e7370a12f")).unwrap();
    let auth = Some(ByteString::from(r#"{"t":1}"#));
    assert_eq!(packet, Packet::Connect { namespace: "/".into(), auth });
}

#[test]
fn clients_event_is_read_as_json_would_have_been() {
    // emit("echo", undefined, {a: undefined, b: null}, new Date(…), new Uint8Array([9, 8]), 1.5,
    // -1, 5e9, -5e9, "é", new Date(-1), callback)
    let recorded = bytes(
        "85a47479706502a4646174619ba46563686fd4000082a161d40000a162c0d7000000019aaaac267bc7020009\
         08cb3ff8000000000000ffcf000000012a05f200d3fffffffed5fa0e00a2c3a9d700ffffffffffffffffa76f\
         7074696f6e7381a8636f6d7072657373c3a2696400a36e7370a12f",
    );
    let (packet, payload) = decode(recorded).unwrap();
    let Packet::Event(body) = packet else { panic!("{packet:?}") };
    assert_eq!((&*body.namespace, body.id), ("/", Some(0)));
    assert_eq!(
        payload.json,
        r#"["echo",null,{"b":null},"2025-11-22T08:26:40.123Z",{"_placeholder":true,"num":0},1.5,-1,5000000000,-5000000000,"é","1969-12-31T23:59:59.999Z"]"#
    );
    assert_eq!(payload.attachments, [&[9, 8][..]]);
}

#[test]
fn clients_ack_and_disconnect_are_read() {
    let (packet, payload) =
        decode(bytes("84a47479706503a2696407a4646174619108a36e7370a12f")).unwrap();
    assert!(matches!(packet, Packet::Ack(Body { id: Some(7), .. })), "{packet:?}");
    assert_eq!(payload.json, "[8]");
    let (packet, _) = decode(bytes("82a47479706501a36e7370a12f")).unwrap();
    assert_eq!(packet, Packet::Disconnect { namespace: "/".into() });
}

#[test]
fn packets_are_written_as_the_official_server_writes_them() {
    let placeholder = r#"["hello",1,{"_placeholder":true,"num":0}]"#;
    assert_eq!(
        encode(Kind::Event, None, placeholder, &[Bytes::from_static(&[1, 2])]),
        bytes("83a47479706502a46461746193a568656c6c6f01c4020102a36e7370a12f")
    );
    assert_eq!(
        encode(Kind::Event, Some(0), r#"["ask",7]"#, &[]),
        bytes("84a47479706502a46461746192a361736b07a2696400a36e7370a12f")
    );
    assert_eq!(
        encode(Kind::Connect, None, r#"{"sid":"a"}"#, &[]),
        bytes("83a47479706500a46461746181a3736964a161a36e7370a12f")
    );
    assert_eq!(encode(Kind::Disconnect, None, "", &[]), bytes("82a47479706501a36e7370a12f"));
}

#[test]
fn numbers_take_the_shortest_integer_or_a_double() {
    let data = |json: &str| {
        let message = encode(Kind::Ack, None, json, &[]);
        let start = bytes("83a47479706503a464617461").len();
        message[start + 1..message.len() - bytes("a36e7370a12f").len()].to_vec()
    };
    for (json, hex) in [
        ("[127]", "7f"),
        ("[128]", "cc80"),
        ("[-32]", "e0"),
        ("[-33]", "d0df"),
        ("[65536]", "ce00010000"),
        ("[1.0]", "01"),
        ("[1e3]", "cd03e8"),
        ("[1.5]", "cb3ff8000000000000"),
        ("[-0]", "cb8000000000000000"),
        ("[1e21]", "cb444b1ae4d6e2ef50"),
        ("[18446744073709551615]", "cfffffffffffffffff"),
    ] {
        assert_eq!(data(json), bytes(hex), "{json}");
    }
}

#[test]
fn text_is_unescaped_and_whitespace_is_left_out() {
    let message = encode(Kind::Ack, None, r#" [ "\u00e9\n" , { "\"" : [ ] , "b":{ } } ] "#, &[]);
    let (_, payload) = decode(message).unwrap();
    assert_eq!(payload.json, r#"["é\n",{"\"":[],"b":{}}]"#);
    let lone = encode(Kind::Ack, None, r#"["\ud83d"]"#, &[]);
    assert_eq!(decode(lone).unwrap().1.json, "[\"\u{fffd}\"]");
}

#[test]
fn what_looks_like_a_placeholder_is_an_object_unless_there_are_attachments() {
    let json = r#"["a",{"_placeholder":true,"num":0}]"#;
    assert_eq!(decode(encode(Kind::Event, None, json, &[])).unwrap().1.json, json);
    let map = "82ac5f706c616365686f6c646572c3a36e756d00";
    let beside_binary = event_with(&format!("93a161{map}c40101"));
    assert_eq!(beside_binary, Err(ProtocolError::IllegalPlaceholder));
}

#[test]
fn placeholders_with_other_content_are_replaced_whole() {
    let json = r#"[{"x":[{"y":1}],"num":1,"_placeholder":true},[2],{"_placeholder":true,"num":0}]"#;
    let message = encode(Kind::Ack, None, json, &["a".into(), "b".into()]);
    let (_, payload) = decode(message).unwrap();
    let text = r#"[{"_placeholder":true,"num":0},[2],{"_placeholder":true,"num":1}]"#;
    assert_eq!((&*payload.json, &payload.attachments[..]), (text, &["b".into(), "a".into()][..]));
}

#[test]
fn extensions_are_what_notepack_makes_of_them() {
    let json = |data: &str| event_with(data).map(|payload| payload.json.to_string());
    let number = |number| format!(r#"{{"_placeholder":true,"num":{number}}}"#);
    assert_eq!(json("92a161d4ff07").unwrap(), format!(r#"["a",[-1,{}]]"#, number(0)));
    assert_eq!(json("92a161c7010507").unwrap(), format!(r#"["a",[5,{}]]"#, number(0)));
    assert_eq!(json("92a161d5000708").unwrap(), format!(r#"["a",[0,{}]]"#, number(0)));
    assert_eq!(json("92a161c801000007").unwrap_err(), ProtocolError::InvalidPayload, "cut short");
    assert_eq!(json("92a161d7007fffffffffffffff").unwrap(), r#"["a",null]"#, "no date");
}

#[test]
fn numbers_that_json_does_not_know_are_null() {
    let payload = event_with("94a161cb7ff8000000000000cb7ff0000000000000caff800000").unwrap();
    assert_eq!(payload.json, r#"["a",null,null,null]"#);
}

#[test]
fn keys_are_text_or_integers() {
    assert_eq!(event_with("92a1618107c0").unwrap().json, r#"["a",{"7":null}]"#);
    for key in
        ["c0", "c3", "cb3ff8000000000000", "cb7e37e43c8800759c", "90", "80", "c40101", "d40000"]
    {
        let refused = event_with(&format!("92a16181{key}01"));
        assert_eq!(refused, Err(ProtocolError::InvalidPayload), "{key}");
    }
}

#[test]
fn bytes_that_are_no_text_are_replaced_as_by_node() {
    assert_eq!(event_with("91a2ff61").unwrap().json, "[\"\u{fffd}a\"]");
}

#[test]
fn data_is_of_the_shape_that_its_type_asks_for() {
    let packet = |kind: u8, data: &str| {
        let head = [&bytes("83a474797065")[..], &[kind], &bytes("a36e7370a12fa464617461")].concat();
        decode([&head[..], &bytes(data)].concat()).map(|_| ())
    };
    // No data (undefined), nil, a number, a text, an array, a map.
    let shapes = ["d40000", "c0", "01", "a161", "91a161", "80"];
    let accepted = |kind| shapes.map(|data| packet(kind, data).is_ok());
    assert_eq!(accepted(0), [true, false, false, false, false, true]);
    assert_eq!(accepted(1), [true, false, false, false, false, false]);
    assert_eq!(accepted(2), [false, false, false, false, true, false]);
    assert_eq!(accepted(3), [false, false, false, false, true, false]);
    assert_eq!(accepted(4), [false, false, false, true, false, true]);
    assert_eq!(packet(5, "91a161"), Err(ProtocolError::UnknownType));
    assert_eq!(packet(0xff, "91a161"), Err(ProtocolError::UnknownType));
    assert_eq!(packet(0, "81a161c40101"), Err(ProtocolError::InvalidPayload), "binary auth");
}

#[test]
fn envelope_is_refused_for_what_is_wrong_in_it() {
    for (message, error) in [
        ("82a47479706500a36e737001", ProtocolError::IllegalNamespace),
        ("81a47479706500", ProtocolError::IllegalNamespace),
        ("81a36e7370a12f", ProtocolError::UnknownType),
        ("82a474797065a130a36e7370a12f", ProtocolError::UnknownType),
        ("82a474797065cb3fe0000000000000a36e7370a12f", ProtocolError::UnknownType),
        ("83a47479706502a36e7370a12fa2696401", ProtocolError::InvalidPayload),
        ("84a47479706502a36e7370a12fa2696481a46461746190", ProtocolError::InvalidPayload),
        ("84a47479706502a36e7370a12fa26964a131a46461746190", ProtocolError::IllegalId),
        ("84a47479706502a36e7370a12fa26964ffa46461746190", ProtocolError::IllegalId),
        ("84a47479706502a36e7370a12fa26964c0a46461746190", ProtocolError::IllegalId),
        (
            "84a47479706502a36e7370a12fa26964cfffffffffffffffffa46461746190",
            ProtocolError::IllegalId,
        ),
        // Trailing bytes, a type twice, no map, never used, nothing.
        ("82a47479706500a36e7370a12f00", ProtocolError::InvalidPayload),
        ("83a47479706500a47479706501a36e7370a12f", ProtocolError::InvalidPayload),
        ("93010203", ProtocolError::InvalidPayload),
        ("c1", ProtocolError::InvalidPayload),
        ("", ProtocolError::InvalidPayload),
    ] {
        assert_eq!(decode(bytes(message)).map(|_| ()), Err(error), "{message}");
    }
    let text = Msgpack.decoder().decode(Message::Text("2[\"a\"]".into()));
    assert_eq!(text, Err(ProtocolError::UnexpectedText));
}

#[test]
fn id_may_be_an_integer_in_any_form() {
    for id in ["07", "cc07", "d007", "cb401c000000000000", "ca40e00000"] {
        let head = bytes("84a47479706502a36e7370a12fa46461746191a161a26964");
        let (packet, _) = decode([&head[..], &bytes(id)].concat()).unwrap();
        assert!(matches!(packet, Packet::Event(Body { id: Some(7), .. })), "{packet:?}");
    }
    let undefined = bytes("84a47479706502a36e7370a12fa46461746191a161a26964d40000");
    assert!(matches!(decode(undefined).unwrap().0, Packet::Event(Body { id: None, .. })));
}

#[test]
fn nesting_is_bounded_and_claimed_lengths_are_not_believed() {
    let nested = |depth: u32, core: &str| event_with(&("91".repeat(depth as usize) + core));
    assert!(nested(MAX_DEPTH, "01").is_ok());
    assert_eq!(nested(MAX_DEPTH + 1, "01"), Err(ProtocolError::PayloadTooDeep));
    // What stands for binary data is an object too.
    assert!(nested(MAX_DEPTH - 1, "c40101").is_ok());
    assert_eq!(nested(MAX_DEPTH, "c40101"), Err(ProtocolError::PayloadTooDeep));
    assert_eq!(nested(MAX_DEPTH - 1, "d4ff01"), Err(ProtocolError::PayloadTooDeep));
    assert_eq!(nested(100_000, ""), Err(ProtocolError::PayloadTooDeep));
    let options = format!("81a76f7074696f6e73{}", "81a161".repeat(100_000));
    assert_eq!(decode(bytes(&options)).map(|_| ()), Err(ProtocolError::PayloadTooDeep));
    for long in ["ddffffffff", "dfffffffff", "dbffffffff", "c6ffffffff", "c9ffffffff05", "dcffff"] {
        assert_eq!(event_with(long), Err(ProtocolError::InvalidPayload), "{long}");
        assert_eq!(decode(bytes(long)).map(|_| ()), Err(ProtocolError::InvalidPayload), "{long}");
    }
}

#[test]
fn binary_values_are_bounded() {
    let many = |count: usize| event_with(&format!("dd{count:08x}{}", "c400".repeat(count)));
    assert_eq!(many(MAX_ATTACHMENTS).unwrap().attachments.len(), MAX_ATTACHMENTS);
    assert_eq!(many(MAX_ATTACHMENTS + 1), Err(ProtocolError::TooManyAttachments));
}

#[test]
fn namespaces_are_bounded_and_keep_their_query() {
    let connect = |name: &str| {
        let (len, mut message) = (name.len() as u16, bytes("82a47479706500a36e7370da").to_vec());
        message.extend_from_slice(&len.to_be_bytes());
        message.extend_from_slice(name.as_bytes());
        decode(message).map(|(packet, _)| packet)
    };
    let named = |name: &str| Ok(Packet::Connect { namespace: name.into(), auth: None });
    assert_eq!(connect("/chat?a=1"), named("/chat?a=1"));
    assert_eq!(connect("chat"), named("chat"));
    let longest = "/".repeat(MAX_NAMESPACE_BYTES);
    assert_eq!(connect(&longest), named(&longest));
    assert_eq!(connect(&(longest + "/")), Err(ProtocolError::IllegalNamespace));
}

#[test]
fn dates_are_written_as_javascript_writes_them() {
    for (millis, text) in [
        (0, "1970-01-01T00:00:00.000Z"),
        (951_782_400_000, "2000-02-29T00:00:00.000Z"),
        (-1, "1969-12-31T23:59:59.999Z"),
        (-62_198_755_200_000, "-000001-01-01T00:00:00.000Z"),
        (253_402_300_800_000, "+010000-01-01T00:00:00.000Z"),
        (8_640_000_000_000_000, "+275760-09-13T00:00:00.000Z"),
        (-8_640_000_000_000_000, "-271821-04-20T00:00:00.000Z"),
    ] {
        assert_eq!(iso_date(millis).as_deref(), Some(text));
    }
    assert_eq!(iso_date(8_640_000_000_000_001), None);
    assert_eq!(iso_date(i64::MIN), None);
}

/// A JSON value; a string that begins with `b` stands for binary data.
fn any_json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<u64>().prop_map(Json::from),
        any::<f64>().prop_filter("JSON has no infinities", |f| f.is_finite()).prop_map(Json::from),
        ".{0,40}".prop_map(Json::from),
        "b[a-z]{0,300}".prop_map(Json::from),
    ];
    leaf.prop_recursive(4, 64, 20, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..20).prop_map(Json::from),
            proptest::collection::btree_map(".{0,8}", inner, 0..20)
                .prop_map(|map| map.into_iter().collect::<Json>()),
        ]
    })
}

/// Moves the binary data out, and leaves placeholders.
fn split(value: &mut Json, attachments: &mut Vec<Bytes>) {
    match value {
        Json::String(text) if text.starts_with('b') => {
            attachments.push(text.clone().into());
            *value = json!({ "_placeholder": true, "num": attachments.len() - 1 });
        }
        Json::Array(elements) => elements.iter_mut().for_each(|e| split(e, attachments)),
        Json::Object(fields) => fields.values_mut().for_each(|e| split(e, attachments)),
        _ => {}
    }
}

/// JavaScript does not tell `1.0` from `1`.
fn normal(value: &Json) -> Json {
    match value {
        Json::Number(number) if number.is_f64() => {
            let float = number.as_f64().unwrap();
            let is_negative_zero = float == 0.0 && float.is_sign_negative();
            let is_integer = float.fract() == 0.0 && float.abs() <= MAX_SAFE_INTEGER;
            if is_integer && !is_negative_zero { json!(float as i64) } else { value.clone() }
        }
        Json::Array(elements) => elements.iter().map(normal).collect(),
        Json::Object(fields) => fields.iter().map(|(k, v)| (k.clone(), normal(v))).collect(),
        _ => value.clone(),
    }
}

proptest! {
    #[test]
    fn payload_comes_back_as_it_went(mut args in proptest::collection::vec(any_json(), 0..20)) {
        let mut attachments = Vec::new();
        args.iter_mut().for_each(|arg| split(arg, &mut attachments));
        let text = serde_json::to_string(&args).unwrap();
        let (packet, payload) = decode(encode(Kind::Ack, Some(3), &text, &attachments)).unwrap();
        let is_ack = matches!(packet, Packet::Ack(Body { id: Some(3), .. }));
        prop_assert!(is_ack);
        // Both read from text, for serde_json reads some floats a digit off.
        let [read, sent] = [&payload.json, &*text].map(|text| serde_json::from_str(text).unwrap());
        prop_assert_eq!(normal(&read), normal(&sent));
        prop_assert_eq!(&payload.attachments, &attachments);
        // What has been read once is written, and read, the same ever after.
        let again = encode(Kind::Ack, Some(3), &payload.json, &payload.attachments);
        prop_assert_eq!(decode(again).unwrap().1, payload);
    }

    #[test]
    fn no_bytes_panic(message in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(message.clone());
        let _ = event_with(&message.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    }
}
