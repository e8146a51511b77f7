//! What holds for any input to the codecs, and for any query of a subscriber. Shared by the fuzz targets and, with a fuzzer that
//! needs no nightly compiler, by `node/tests/fuzz_short.rs`.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use bytestring::ByteString;
use flotilla::apps::api::{Query, QueryLimits, Work};
use flotilla::engineio::v3::{self, Form, Piece};
use flotilla::engineio::{self, Message, Packet as EnginePacket, Revision};
use flotilla::socketio::codec::{self, Header, Kind};
use flotilla::socketio::{
    self, Client, Limits, Msgpack, OutgoingPacket, Output, Packet, Parser, Payload,
};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::time::Instant;

/// One packet's text is parsed without panic, and what was parsed survives being written.
pub fn socketio(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let parsed = codec::parse(&text.into(), 10);
    let (kinds, body) = match &parsed {
        Ok(Packet::Event(body)) => ([Kind::Event, Kind::BinaryEvent], body),
        Ok(Packet::Ack(body)) => ([Kind::Ack, Kind::BinaryAck], body),
        Ok(Packet::Connect { .. } | Packet::Disconnect { .. } | Packet::ConnectError { .. })
        | Err(_) => return,
    };
    let attachments = body.attachments();
    let kind = kinds[usize::from(attachments > 0)];
    let mut written = Vec::new();
    Header { kind, attachments, namespace: &body.namespace, id: body.id }.write(&mut written);
    written.extend_from_slice(body.json().as_bytes());
    let written = ByteString::try_from(written).expect("a packet is text");
    // An event without a payload gets one when it is written, and is refused then.
    if body.json() != "[]" {
        assert_eq!(codec::parse(&written, 10), parsed, "{written:?}");
    }
    payload(body.json(), attachments);
}

/// Checked JSON is what `serde_json` takes for JSON, cut into the same elements.
fn payload(json: &str, attachments: usize) {
    let parts = vec![Bytes::from_static(b"part"); attachments];
    let payload = Payload::parse(json.into(), parts).expect("the codec has checked it");
    let elements: Vec<&RawValue> = serde_json::from_str(json).expect("the codec has checked it");
    assert!(payload.elements().eq(elements.iter().map(|element| element.get())));
    for element in payload.elements() {
        let raw = payload.raw(element);
        if let Some(named) = named(element, attachments) {
            assert_eq!(raw.attachments().len(), named, "{element}");
        }
        let alone = raw.clone().into_ack();
        let again = Payload::parse(alone.json.clone(), alone.attachments.clone());
        assert_eq!(again.as_ref(), Ok(&alone), "an element can travel alone");
        let read: socketio::Raw = socketio::from_ack(&alone).expect("any argument can be kept raw");
        assert_eq!(read, raw);
    }
    let passed_on = Payload::event("msg", payload.args().text(), payload.attachments.clone());
    assert!(passed_on.args().eq(payload.args()), "arguments travel unchanged");
}

/// How many attachments the placeholders in a value name, all of which must be there. `None`: the
/// value holds a number or a string that Rust's types cannot, or an object has a field twice. The
/// attachments that the first one names come along, though readers drop it.
fn named(json: &str, attachments: usize) -> Option<usize> {
    let mut numbers = BTreeSet::new();
    if attachments > 0 {
        let value = serde_json::from_str(json).ok()?;
        if fields(&value) < written_fields(json) {
            return None;
        }
        find_placeholders(&value, &mut numbers);
    }
    assert!(numbers.iter().all(|number| *number < attachments), "{json}");
    Some(numbers.len())
}

/// How many fields all objects of a value have.
fn fields(value: &Value) -> usize {
    match value {
        Value::Array(elements) => elements.iter().map(fields).sum(),
        Value::Object(object) => object.values().map(|field| 1 + fields(field)).sum(),
        _ => 0,
    }
}

/// The same, of its text, in which an object may have a field twice: the colons outside of strings.
fn written_fields(json: &str) -> usize {
    let (mut is_string, mut is_escaped) = (false, false);
    let mut fields = 0;
    for byte in json.bytes() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => is_string = !is_string,
            b':' if !is_string => fields += 1,
            _ => {}
        }
    }
    fields
}

fn find_placeholders(value: &Value, numbers: &mut BTreeSet<usize>) {
    if value.get("_placeholder") == Some(&Value::Bool(true)) {
        let number = value["num"].as_f64().expect("a placeholder has a number");
        numbers.insert(number as usize);
    }
    match value {
        Value::Array(elements) => elements.iter().for_each(|e| find_placeholders(e, numbers)),
        Value::Object(fields) => fields.values().for_each(|e| find_placeholders(e, numbers)),
        _ => {}
    }
}

/// One connection's messages, separated by `\x1e`: those that open with `b` are binary, `+`, `-`
/// and `!` are what the server does to a namespace, `t` is the connect timeout.
///
/// Outputs come for namespaces in the right state only, and nothing comes after a close; of a
/// client of either generation.
pub fn client(input: &[u8]) {
    for revision in [Revision::V4, Revision::V3] {
        client_of(revision, input);
    }
}

fn client_of(revision: Revision, input: &[u8]) {
    let start = Instant::now();
    let limits = Limits { max_namespaces: 4, ..Limits::default() };
    let mut client = Client::for_revision(revision, start, limits);
    let mut connected: BTreeMap<String, bool> = BTreeMap::new();
    let mut closed = false;
    if let Some(unasked) = client.poll_output() {
        follow(unasked, &mut connected);
    }
    assert_eq!(connected.contains_key("/"), revision == Revision::V3);
    for step in input.split(|byte| *byte == 0x1e) {
        let text = String::from_utf8_lossy(step);
        let rest = || text[1..].to_owned();
        match text.bytes().next() {
            Some(b'b') => client.handle_message(Message::Binary(Bytes::copy_from_slice(step))),
            Some(b'+') => {
                client.handle_accepted(&rest());
                connected.entry(rest()).and_modify(|connected| *connected = true);
            }
            Some(b'-') => {
                if connected.get(&rest()) == Some(&false) {
                    client.handle_rejected(&rest());
                    connected.remove(&rest());
                }
            }
            Some(b'!') => {
                client.handle_left(&rest());
                connected.retain(|name, connected| !*connected || *name != rest());
            }
            Some(b't') => client.handle_deadline(start),
            _ => client.handle_message(Message::Text(text.as_ref().into())),
        }
        // What came ahead of the answer to its CONNECT comes out with it.
        let is_answer = text.starts_with('+');
        let mut outputs = std::iter::from_fn(|| client.poll_output()).peekable();
        while let Some(output) = outputs.next() {
            assert!(!closed, "{output:?} after the close");
            if let (Revision::V3, Output::Connect { auth: Some(auth), .. }) = (revision, &output) {
                let auth: Value = serde_json::from_str(auth).expect("it is written, not passed on");
                assert!(auth.as_object().is_some_and(|auth| auth.values().all(Value::is_string)));
            }
            closed = follow(output, &mut connected);
            assert!(is_answer || outputs.peek().is_none(), "one input has one output");
        }
    }
}

/// Follows what the client core says; returns whether it closed.
fn follow(output: Output, connected: &mut BTreeMap<String, bool>) -> bool {
    match output {
        Output::Connect { namespace, .. } => {
            let before = connected.insert(namespace.to_string(), false);
            assert_eq!(before, None, "a namespace is asked for once");
        }
        Output::Event { namespace, payload, .. } => {
            assert_eq!(connected.get(&*namespace), Some(&true));
            assert!(payload.event_name().is_some());
        }
        Output::Ack { namespace, .. } => assert_eq!(connected.get(&*namespace), Some(&true)),
        Output::Disconnect { namespace } => {
            assert_eq!(connected.remove(&*namespace), Some(true));
        }
        Output::Close(error) => {
            assert!(!error.as_str().is_empty());
            return true;
        }
    }
    false
}

/// A message is read as MessagePack without panic; what was read is a valid payload, is written,
/// and is from then on written the same. A client that sends it gets at most one output.
pub fn msgpack(input: &[u8]) {
    msgpack_client(input);
    let Some((kind, packet, parts)) = read_msgpack(input) else { return };
    let (Packet::Event(body) | Packet::Ack(body)) = &packet else { return };
    let payload = Payload::parse(body.json().into(), parts.clone()).expect("it was made valid");
    assert!(!body.json().contains('\n'), "nothing is between the tokens");
    let written = write_msgpack(kind, &packet, &payload.attachments);
    let (_, again, parts_again) = read_msgpack(&written).expect("what is written can be read");
    assert_eq!(parts_again, parts);
    assert_eq!(write_msgpack(kind, &again, &parts_again), written);
}

fn read_msgpack(input: &[u8]) -> Option<(Kind, Packet, Vec<Bytes>)> {
    let message = Message::Binary(Bytes::copy_from_slice(input));
    let (packet, parts) = Msgpack.decoder().decode(message).ok().flatten()?;
    let kind = match &packet {
        Packet::Connect { .. } => Kind::Connect,
        Packet::Disconnect { .. } => Kind::Disconnect,
        Packet::Event(_) => Kind::Event,
        Packet::Ack(_) => Kind::Ack,
        Packet::ConnectError { .. } => Kind::ConnectError,
    };
    Some((kind, packet, parts))
}

fn write_msgpack(kind: Kind, packet: &Packet, attachments: &[Bytes]) -> Bytes {
    let (Packet::Event(body) | Packet::Ack(body)) = packet else { unreachable!("it has a body") };
    let (namespace, id, json) = (&body.namespace, body.id, body.json());
    let messages = Msgpack.encode(&OutgoingPacket { kind, namespace, id, json, attachments });
    match &messages[..] {
        [Message::Binary(message)] => message.clone(),
        other => panic!("{other:?}"),
    }
}

/// The message comes from a client that is in `/`.
fn msgpack_client(input: &[u8]) {
    let mut client =
        Client::new(Instant::now(), Limits::default()).with_decoder(Some(Msgpack.decoder()));
    let connect = Bytes::from_static(b"\x82\xa4type\x00\xa3nsp\xa1/");
    client.handle_message(Message::Binary(connect));
    let mut connected = BTreeMap::new();
    follow(client.poll_output().expect("the client asks for a namespace"), &mut connected);
    client.handle_accepted("/");
    connected.insert("/".to_owned(), true);
    client.handle_message(Message::Binary(Bytes::copy_from_slice(input)));
    if let Some(output) = client.poll_output() {
        follow(output, &mut connected);
    }
    assert_eq!(client.poll_output(), None, "one input has one output");
}

/// A body's packets are parsed without panic, and survive being written into a body.
pub fn engineio(input: &[u8]) {
    let packets: Vec<_> = engineio::payload::parse(input).map_while(Result::ok).collect();
    let mut body = Vec::new();
    for packet in &packets {
        engineio::payload::append(packet.to_text().as_bytes(), &mut body);
    }
    if !packets.is_empty() {
        let again: Result<Vec<_>, _> = engineio::payload::parse(&body).collect();
        assert_eq!(again, Ok(packets));
    }
    engineio_v3(input);
    let Ok(query) = std::str::from_utf8(input) else { return };
    let config = engineio::EngineConfig { allow_eio3: true, ..Default::default() };
    for (is_get, is_upgrade) in [(true, false), (true, true), (false, false)] {
        let _ = engineio::Request::parse(query, is_get, is_upgrade, &config);
    }
}

/// The same of revision 3, whose bodies have two forms.
fn engineio_v3(input: &[u8]) {
    let _ = v3::parse_bytes(input);
    let packets: Vec<_> = v3::parse_payload(input).map_while(Result::ok).collect();
    for form in [Form::Text, Form::Bytes] {
        let mut body = Vec::new();
        for packet in &packets {
            match packet {
                EnginePacket::Message(Message::Binary(bytes)) => {
                    v3::append(Piece::Bytes(bytes), form, &mut body);
                }
                packet => v3::append(Piece::Text(packet.to_text().as_bytes()), form, &mut body),
            }
        }
        if !packets.is_empty() {
            let again: Result<Vec<_>, _> = v3::parse_payload(&body).collect();
            assert_eq!(again.as_ref(), Ok(&packets));
        }
    }
}

const MATCH_STEPS: usize = 1 << 20;

/// A line of JSON is a client's query, or else a regular expression; the rest is a value. A query is
/// refused or asked without panic, and one that was taken means the same wherever it stands.
pub fn query(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
    let asked = serde_json::from_str(first).unwrap_or_else(|_| json!({"$regex": first}));
    let value: Option<Value> = serde_json::from_str(rest).ok();
    let limits = QueryLimits::default();
    let Ok(query) = Query::parse(&asked, &limits) else { return };
    assert!(query.regexes() <= limits.max_regexes);
    assert!(asked.to_string().len() <= limits.max_bytes);

    // None: it took more work than any match that is answered may.
    let ask = |query: &Query| {
        let work = Work::new(MATCH_STEPS);
        let answer = query.matches(value.as_ref(), &work);
        (work.left() > 0).then_some(answer)
    };
    let Some(answer) = ask(&query) else { return };
    // The name of a subscription's room holds its query as text.
    let again = serde_json::from_str(&asked.to_string()).expect("it was written by us");
    let again = Query::parse(&again, &limits).expect("it was taken before");
    assert_eq!(ask(&again), Some(answer), "{asked}");
    for (operator, negates) in [("$and", false), ("$or", false), ("$nor", true)] {
        // With what is around it, it may be too large.
        if let Ok(around) = Query::parse(&json!({operator: [asked]}), &limits) {
            let Some(around) = ask(&around) else { continue };
            assert_eq!(around, answer != negates, "{operator} of {asked}");
        }
    }
}
