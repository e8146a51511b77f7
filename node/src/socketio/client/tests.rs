//! Each rule of what a client may send, and when.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(45);

fn new_client() -> (Client, Instant) {
    let start = Instant::now();
    (Client::new(start + CONNECT_TIMEOUT, Limits::default()), start)
}

/// A client that is in `/` and in `/chat`.
fn connected() -> Client {
    let (mut client, _) = new_client();
    for namespace in ["/", "/chat"] {
        text(&mut client, &format!("0{namespace},"));
        client.handle_accepted(namespace);
    }
    client
}

fn text(client: &mut Client, text: &str) -> Option<Output> {
    client.handle_message(Message::Text(text.into()));
    client.poll_output()
}

fn binary(client: &mut Client, part: &'static str) -> Option<Output> {
    client.handle_message(Message::Binary(part.into()));
    client.poll_output()
}

fn event(namespace: &str, id: Option<u64>, json: &str) -> Option<Output> {
    let payload = Payload::parse(json.into(), Vec::new()).unwrap();
    Some(Output::Event { namespace: namespace.into(), id, payload })
}

fn connect(namespace: &str) -> Option<Output> {
    Some(Output::Connect { namespace: namespace.into(), auth: None })
}

fn closed(error: ProtocolError) -> Option<Output> {
    Some(Output::Close(error))
}

#[test]
fn client_asks_for_a_namespace_and_then_speaks_in_it() {
    let (mut client, _) = new_client();
    let auth = Some(ByteString::from(r#"{"token":1}"#));
    let asked = text(&mut client, r#"0/chat,{"token":1}"#);
    assert_eq!(asked, Some(Output::Connect { namespace: "/chat".into(), auth }));
    client.handle_accepted("/chat");
    assert_eq!(text(&mut client, r#"2/chat,["a"]"#), event("/chat", None, r#"["a"]"#));
    assert_eq!(text(&mut client, r#"2/chat,7["a"]"#), event("/chat", Some(7), r#"["a"]"#));
}

#[test]
fn namespaces_of_one_connection_are_independent() {
    let mut client = connected();
    assert_eq!(
        text(&mut client, "1/chat,"),
        Some(Output::Disconnect { namespace: "/chat".into() })
    );
    assert_eq!(text(&mut client, r#"2["a"]"#), event("/", None, r#"["a"]"#));
}

#[test]
fn second_connect_to_a_namespace_closes() {
    let closes = closed(ProtocolError::AlreadyConnected);
    assert_eq!(text(&mut connected(), "0"), closes);
    let (mut connecting, _) = new_client();
    text(&mut connecting, "0");
    assert_eq!(text(&mut connecting, "0"), closes);
}

#[test]
fn anything_before_connect_closes() {
    let closes = closed(ProtocolError::NotConnected);
    for packet in [r#"2["a"]"#, "30[]", "1"] {
        assert_eq!(text(&mut new_client().0, packet), closes, "{packet}");
    }
    for packet in ["30[]", "1"] {
        let (mut connecting, _) = new_client();
        text(&mut connecting, "0");
        assert_eq!(text(&mut connecting, packet), closes, "{packet}");
    }
}

#[test]
fn events_wait_for_the_answer_to_their_connect() {
    let (mut client, _) = new_client();
    text(&mut client, "0");
    text(&mut client, "0/chat,");
    for packet in [r#"2/chat,["a"]"#, r#"2["b"]"#, r#"2/chat,7["c"]"#, "2/chat,"] {
        assert_eq!(text(&mut client, packet), None, "{packet}");
    }
    client.handle_accepted("/chat");
    assert_eq!(client.poll_output(), event("/chat", None, r#"["a"]"#));
    assert_eq!(client.poll_output(), event("/chat", Some(7), r#"["c"]"#));
    assert_eq!(client.poll_output(), None);
    client.handle_accepted("/");
    assert_eq!(client.poll_output(), event("/", None, r#"["b"]"#));
    assert_eq!(client.poll_output(), None);
    assert!(client.early.is_none(), "an idle connection keeps nothing of it");
}

#[test]
fn events_ahead_of_a_refusal_close() {
    let (mut client, _) = new_client();
    text(&mut client, "0");
    text(&mut client, "0/chat,");
    text(&mut client, r#"2["a"]"#);
    client.handle_rejected("/chat");
    assert_eq!(client.poll_output(), None, "nothing came for this one");
    client.handle_rejected("/");
    assert_eq!(client.poll_output(), closed(ProtocolError::NotConnected));
    assert_eq!(client.poll_output(), None);
}

#[test]
fn events_ahead_of_an_answer_are_bounded() {
    let limits = Limits { max_early_packets: 2, max_early_bytes: 20, ..Limits::default() };
    let connecting = || {
        let mut client = Client::new(Instant::now() + CONNECT_TIMEOUT, limits);
        text(&mut client, "0");
        client
    };
    let mut client = connecting();
    assert_eq!(text(&mut client, r#"2["a"]"#), None);
    assert_eq!(text(&mut client, r#"2["b"]"#), None);
    assert_eq!(text(&mut client, r#"2["c"]"#), closed(ProtocolError::NotConnected));
    let long = r#"2["0123456789 0123456789"]"#;
    assert_eq!(text(&mut connecting(), long), closed(ProtocolError::NotConnected));
}

#[test]
fn welcomed_client_may_answer_and_leave_while_its_events_wait() {
    let (mut client, _) = new_client();
    text(&mut client, "0");
    client.handle_welcomed("/");
    assert_eq!(client.deadline(), None, "it is connected in time");
    assert!(!client.holds_events());
    assert_eq!(text(&mut client, r#"2["a"]"#), None);
    assert!(client.holds_events());
    let ack = Output::Ack {
        namespace: "/".into(),
        id: 4,
        payload: Payload::parse("[]".into(), Vec::new()).unwrap(),
    };
    assert_eq!(text(&mut client, "34[]"), Some(ack));
    client.handle_accepted("/");
    assert_eq!(client.poll_output(), event("/", None, r#"["a"]"#));
    assert_eq!(client.poll_output(), None);
    assert_eq!(text(&mut client, r#"2["b"]"#), event("/", None, r#"["b"]"#));

    let (mut leaving, _) = new_client();
    text(&mut leaving, "0");
    leaving.handle_welcomed("/");
    assert_eq!(text(&mut leaving, r#"2["a"]"#), None);
    assert_eq!(text(&mut leaving, "1"), event("/", None, r#"["a"]"#), "what it sent comes first");
    let left = Some(Output::Disconnect { namespace: "/".into() });
    assert_eq!(leaving.poll_output(), left);
    assert_eq!(leaving.poll_output(), None);
    assert!(leaving.early.is_none());
    text(&mut leaving, "0");
    leaving.handle_accepted("/");
    assert_eq!(leaving.poll_output(), None);
}

#[test]
fn second_connect_after_a_welcome_closes() {
    let (mut client, _) = new_client();
    text(&mut client, "0");
    client.handle_welcomed("/");
    assert_eq!(text(&mut client, "0"), closed(ProtocolError::AlreadyConnected));
}

#[test]
fn events_behind_a_welcome_are_bounded_by_their_bytes_alone() {
    let limits = Limits { max_early_packets: 1, max_welcomed_bytes: 20_000, ..Limits::default() };
    let mut client = Client::new(Instant::now() + CONNECT_TIMEOUT, limits);
    text(&mut client, "0");
    client.handle_welcomed("/");
    for _ in 0..10 {
        assert_eq!(text(&mut client, r#"2["a"]"#), None);
    }
    // What waits for an answer is counted by itself.
    text(&mut client, "0/chat,");
    assert_eq!(text(&mut client, r#"2/chat,["a"]"#), None);
    let outcomes: Vec<_> = (0..1_000).filter_map(|_| text(&mut client, r#"2["a"]"#)).collect();
    assert_eq!(outcomes, [closed(ProtocolError::TooManyEarlyEvents).unwrap()]);

    let mut client = Client::new(Instant::now() + CONNECT_TIMEOUT, limits);
    text(&mut client, "0");
    client.handle_welcomed("/");
    let long = format!(r#"2["{}"]"#, "a".repeat(30_000));
    assert_eq!(text(&mut client, &long), None, "one is taken whatever its size");
    assert_eq!(text(&mut client, r#"2["a"]"#), closed(ProtocolError::TooManyEarlyEvents));
}

#[test]
fn event_to_a_namespace_not_joined_closes() {
    let refused = text(&mut connected(), r#"2/other,["a"]"#);
    assert_eq!(refused, closed(ProtocolError::NotConnected));
}

#[test]
fn event_after_the_client_disconnected_closes() {
    let mut client = connected();
    text(&mut client, "1/chat,");
    assert_eq!(text(&mut client, r#"2/chat,["a"]"#), closed(ProtocolError::NotConnected));
}

#[test]
fn client_may_connect_again_after_it_disconnected() {
    let mut client = connected();
    text(&mut client, "1/chat,");
    assert_eq!(text(&mut client, "0/chat,"), connect("/chat"));
}

#[test]
fn what_was_on_its_way_when_the_server_disconnected_is_dropped() {
    let mut client = connected();
    client.handle_left("/chat");
    for packet in [r#"2/chat,["a"]"#, "3/chat,1[]"] {
        assert_eq!(text(&mut client, packet), None, "{packet}");
    }
    assert_eq!(text(&mut client, "0/chat,"), connect("/chat"));
    client.handle_accepted("/chat");
    assert_eq!(text(&mut client, r#"2/chat,["a"]"#), event("/chat", None, r#"["a"]"#));
    client.handle_left("/chat");
    assert_eq!(text(&mut client, "1/chat,"), None);
}

#[test]
fn connect_error_from_a_client_closes() {
    let closes = closed(ProtocolError::UnexpectedConnectError);
    assert_eq!(text(&mut connected(), "4{}"), closes);
    assert_eq!(text(&mut new_client().0, "4{}"), closes);
}

#[test]
fn breaches_of_the_codec_close() {
    for (packet, error) in [
        (r#"2["connect"]"#, ProtocolError::ReservedEvent),
        ("0/other,[]", ProtocolError::InvalidPayload),
        ("2[", ProtocolError::InvalidPayload),
        ("8", ProtocolError::UnknownType),
        (r#"511-["a"]"#, ProtocolError::TooManyAttachments),
        (r#"50-["a"]"#, ProtocolError::IllegalAttachments),
        (r#"51-["a",{"_placeholder":true,"num":1}]"#, ProtocolError::IllegalPlaceholder),
    ] {
        assert_eq!(text(&mut connected(), packet), closed(error), "{packet}");
    }
}

#[test]
fn binary_packet_comes_with_its_attachments() {
    let mut client = connected();
    let json = r#"["a",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#;
    assert_eq!(text(&mut client, &format!("52-/chat,3{json}")), None);
    assert_eq!(binary(&mut client, "x"), None);
    let payload = Payload { json: json.into(), attachments: vec!["x".into(), "y".into()] };
    let complete = Output::Event { namespace: "/chat".into(), id: Some(3), payload };
    assert_eq!(binary(&mut client, "y"), Some(complete));

    let json = r#"[{"_placeholder":true,"num":0}]"#;
    assert_eq!(text(&mut client, &format!("61-4{json}")), None);
    let payload = Payload { json: json.into(), attachments: vec!["z".into()] };
    assert_eq!(
        binary(&mut client, "z"),
        Some(Output::Ack { namespace: "/".into(), id: 4, payload })
    );
}

#[test]
fn unexpected_binary_closes() {
    assert_eq!(binary(&mut connected(), "x"), closed(ProtocolError::UnexpectedBinary));
}

#[test]
fn text_while_attachments_are_awaited_closes() {
    let mut client = connected();
    text(&mut client, r#"51-["a"]"#);
    assert_eq!(text(&mut client, r#"2["a"]"#), closed(ProtocolError::UnexpectedText));
}

#[test]
fn attachments_too_large_together_close() {
    let limits = Limits { max_attachment_bytes: 3, ..Limits::default() };
    let mut client = Client { limits, ..connected() };
    text(&mut client, r#"52-["a"]"#);
    assert_eq!(binary(&mut client, "xy"), None);
    assert_eq!(binary(&mut client, "xy"), closed(ProtocolError::AttachmentsTooLarge));
}

#[test]
fn acks_reach_whoever_knows_their_ids() {
    let payload = Payload::parse("[1]".into(), Vec::new()).unwrap();
    let ack = Output::Ack { namespace: "/".into(), id: 999, payload };
    assert_eq!(text(&mut connected(), "3999[1]"), Some(ack));
}

#[test]
fn harmless_oddities_are_tolerated() {
    let mut client = connected();
    assert_eq!(text(&mut client, "2[7]"), event("/", None, "[7]"));
    // An event that nobody can listen to, an ack of nothing.
    assert_eq!(text(&mut client, "2"), None);
    assert_eq!(text(&mut client, "3[1]"), None);
    assert_eq!(text(&mut client, r#"2["a"]"#), event("/", None, r#"["a"]"#));
}

#[test]
fn rejected_namespace_leaves_the_connection_open() {
    let mut client = connected();
    assert_eq!(text(&mut client, "0/secret,"), connect("/secret"));
    client.handle_rejected("/secret");
    assert_eq!(client.poll_output(), None);
    assert_eq!(text(&mut client, "0/secret,"), connect("/secret"));
}

#[test]
fn connection_without_a_namespace_is_closed_in_time() {
    let (mut client, start) = new_client();
    let deadline = start + CONNECT_TIMEOUT;
    assert_eq!(client.deadline(), Some(deadline));
    client.handle_deadline(deadline - Duration::from_millis(1));
    assert_eq!(client.poll_output(), None);
    client.handle_deadline(deadline);
    assert_eq!(client.poll_output(), closed(ProtocolError::ConnectTimeout));
    assert_eq!(client.deadline(), None);
}

#[test]
fn rejection_does_not_stop_the_connect_timeout() {
    let (mut client, start) = new_client();
    text(&mut client, "0/secret,");
    client.handle_rejected("/secret");
    client.handle_deadline(start + CONNECT_TIMEOUT);
    assert_eq!(client.poll_output(), closed(ProtocolError::ConnectTimeout));
}

#[test]
fn once_a_namespace_was_joined_there_is_no_timeout() {
    let (mut client, start) = new_client();
    text(&mut client, "0");
    client.handle_accepted("/");
    text(&mut client, "1");
    assert_eq!(client.deadline(), None);
    client.handle_deadline(start + CONNECT_TIMEOUT);
    assert_eq!(client.poll_output(), None);
}

#[test]
fn namespaces_of_one_connection_are_bounded() {
    let (mut client, _) = new_client();
    let max = Limits::default().max_namespaces;
    for number in 0..max {
        let namespace = format!("/{number}");
        assert_eq!(text(&mut client, &format!("0{namespace}")), connect(&namespace));
    }
    assert_eq!(text(&mut client, "0/more"), closed(ProtocolError::TooManyNamespaces));
}

#[test]
fn namespaces_that_the_server_ended_make_way_for_new_ones() {
    let (mut client, _) = new_client();
    let max = Limits::default().max_namespaces;
    for number in 0..max * 2 {
        let namespace = format!("/{number}");
        assert_eq!(text(&mut client, &format!("0{namespace}")), connect(&namespace));
        client.handle_accepted(&namespace);
        client.handle_left(&namespace);
    }
    // The latest is remembered: its client may not have heard of the end yet.
    assert_eq!(text(&mut client, &format!("2/{},[\"late\"]", max * 2 - 1)), None);
}

#[test]
fn answers_that_come_too_late_change_nothing() {
    let mut client = connected();
    text(&mut client, "1/chat,");
    client.handle_accepted("/chat");
    client.handle_left("/chat");
    assert_eq!(text(&mut client, r#"2/chat,["a"]"#), closed(ProtocolError::NotConnected));
}

#[test]
fn nothing_comes_after_the_close() {
    let mut client = connected();
    text(&mut client, "8");
    assert_eq!(text(&mut client, r#"2["a"]"#), None);
    assert_eq!(text(&mut client, "0/other"), None);
    client.handle_accepted("/other");
    assert_eq!(client.deadline(), None);
}

#[test]
fn client_is_small() {
    assert!(size_of::<Client>() <= 224, "{} bytes", size_of::<Client>());
    assert!(!connected_to_main().namespaces.spilled());
}

fn connected_to_main() -> Client {
    let (mut client, _) = new_client();
    text(&mut client, "0");
    client.handle_accepted("/");
    client
}

proptest! {
    #[test]
    fn no_sequence_of_messages_panics(
        messages in prop::collection::vec((r#"[0-6](1-)?(/c,)?[0-9]?(\["a".?\]|\{\})?"#, any::<bool>()), 0..12),
    ) {
        let mut client = connected();
        for (message, is_text) in messages {
            let output = if is_text { text(&mut client, &message) } else { binary(&mut client, "x") };
            if let Some(Output::Connect { namespace, .. }) = output {
                client.handle_accepted(&namespace);
            }
        }
    }
}

/// Of Socket.IO v4, whose Engine.IO is revision 3.
fn legacy() -> Client {
    let start = Instant::now();
    let mut client = Client::for_revision(Revision::V3, start + CONNECT_TIMEOUT, Limits::default());
    assert_eq!(client.poll_output(), connect("/"), "it is in `/` without asking");
    client
}

#[test]
fn legacy_client_speaks_in_the_main_namespace_once_it_is_let_in() {
    let mut client = legacy();
    client.handle_accepted("/");
    assert_eq!(client.deadline(), None);
    assert_eq!(text(&mut client, r#"2["a"]"#), event("/", None, r#"["a"]"#));

    let mut early = legacy();
    assert_eq!(text(&mut early, r#"2["a"]"#), None);
    early.handle_accepted("/");
    assert_eq!(early.poll_output(), event("/", None, r#"["a"]"#));
}

#[test]
fn legacy_client_that_asks_for_the_main_namespace_is_closed() {
    let mut client = legacy();
    client.handle_accepted("/");
    assert_eq!(text(&mut client, "0"), closed(ProtocolError::AlreadyConnected));
}

#[test]
fn legacy_client_tells_of_itself_in_the_query_of_a_namespace() {
    let mut client = legacy();
    let auth = Some(ByteString::from(r#"{"tok":"xyz"}"#));
    let asked = text(&mut client, "0/chat?tok=xyz,");
    assert_eq!(asked, Some(Output::Connect { namespace: "/chat".into(), auth }));
    client.handle_accepted("/chat");
    assert_eq!(text(&mut client, r#"2/chat,["a"]"#), event("/chat", None, r#"["a"]"#));
    assert_eq!(text(&mut client, r#"0/other,{"a":1}"#), connect("/other"), "v4 has no payload");
}

#[test]
fn legacy_client_whose_main_namespace_was_refused_may_go_elsewhere() {
    let mut client = legacy();
    client.handle_rejected("/");
    assert_eq!(text(&mut client, "0/chat"), connect("/chat"));
}
