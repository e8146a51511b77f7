//! Each rule of the protocol that a connection keeps, one test a rule.

use super::*;

const INTERVAL: Duration = Duration::from_secs(25);
const TIMEOUT: Duration = Duration::from_secs(20);
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);
const INSTANT: Duration = Duration::from_millis(1);

fn connection(transport: TransportKind) -> (Connection, Instant) {
    #[expect(clippy::disallowed_methods, reason = "any instant will do as the beginning")]
    let now = Instant::from_std(std::time::Instant::now());
    (Connection::new(transport, Revision::V4, Arc::default(), now), now)
}

fn outputs(connection: &mut Connection) -> Vec<Output> {
    std::iter::from_fn(|| connection.poll_output()).collect()
}

fn text(text: &'static str) -> Packet {
    Packet::Message(Message::Text(text.into()))
}

fn ping() -> Output {
    Output::Send(Packet::Ping("".into()))
}

fn pong() -> Packet {
    Packet::Pong("".into())
}

fn probe() -> Packet {
    Packet::Ping("probe".into())
}

/// A polling connection whose WebSocket has probed.
fn probed() -> (Connection, Instant) {
    let (mut connection, now) = connection(TransportKind::Polling);
    connection.handle_probe_opened(now).unwrap();
    connection.handle_probe_packet(&probe(), now);
    assert_eq!(outputs(&mut connection), [Output::SendProbe(Packet::Pong("probe".into()))]);
    (connection, now)
}

#[test]
fn server_pings_once_an_interval() {
    let (mut connection, now) = connection(TransportKind::WebSocket);
    assert_eq!(connection.deadline(), Some(now + INTERVAL));
    connection.handle_deadline(now + INTERVAL - INSTANT);
    assert_eq!(outputs(&mut connection), []);
    connection.handle_deadline(now + INTERVAL);
    assert_eq!(outputs(&mut connection), [ping()]);
}

#[test]
fn next_ping_is_an_interval_after_the_pong() {
    let (mut connection, now) = connection(TransportKind::WebSocket);
    connection.handle_deadline(now + INTERVAL);
    let answered = now + INTERVAL + Duration::from_secs(3);
    connection.handle_packet(pong(), answered);
    assert_eq!(connection.deadline(), Some(answered + INTERVAL));
    assert_eq!(outputs(&mut connection), [ping(), Output::Heartbeat]);
}

#[test]
fn silent_client_is_closed_after_interval_and_timeout() {
    let (mut connection, now) = connection(TransportKind::WebSocket);
    connection.handle_deadline(now + INTERVAL);
    connection.handle_deadline(now + INTERVAL + TIMEOUT - INSTANT);
    assert_eq!(outputs(&mut connection), [ping()]);
    connection.handle_deadline(now + INTERVAL + TIMEOUT);
    assert_eq!(outputs(&mut connection), [Output::Close(CloseReason::PingTimeout)]);
    assert_eq!(connection.deadline(), None);
}

#[test]
fn late_ping_does_not_delay_the_timeout_unless_the_node_stalled() {
    let (mut connection, now) = connection(TransportKind::WebSocket);
    connection.handle_deadline(now + INTERVAL + Duration::from_millis(15));
    assert_eq!(connection.deadline(), Some(now + INTERVAL + TIMEOUT));

    let (mut stalled, now) = self::connection(TransportKind::WebSocket);
    let woken = now + INTERVAL + Duration::from_secs(60);
    stalled.handle_deadline(woken);
    assert_eq!(stalled.deadline(), Some(woken + TIMEOUT - LATENESS));
}

#[test]
fn other_packets_extend_the_pong_timeout_once() {
    let (mut connection, now) = connection(TransportKind::WebSocket);
    let pinged = now + INTERVAL;
    connection.handle_deadline(pinged);
    connection.handle_packet(text("a"), pinged + Duration::from_secs(10));
    let extended = pinged + Duration::from_secs(10) + TIMEOUT;
    assert_eq!(connection.deadline(), Some(extended));
    connection.handle_packet(text("b"), pinged + Duration::from_secs(15));
    assert_eq!(connection.deadline(), Some(extended));
    outputs(&mut connection);
    connection.handle_deadline(extended);
    assert_eq!(outputs(&mut connection), [Output::Close(CloseReason::PingTimeout)]);
}

#[test]
fn each_ping_may_be_extended_anew() {
    let (mut connection, now) = connection(TransportKind::WebSocket);
    connection.handle_deadline(now + INTERVAL);
    connection.handle_packet(text("a"), now + INTERVAL);
    connection.handle_packet(pong(), now + INTERVAL);
    let second = now + INTERVAL * 2;
    connection.handle_deadline(second);
    connection.handle_packet(text("b"), second + INSTANT);
    assert_eq!(connection.deadline(), Some(second + INSTANT + TIMEOUT));
}

#[test]
fn messages_reach_the_layer_above_in_order() {
    let (mut connection, now) = connection(TransportKind::WebSocket);
    connection.handle_packet(text("a"), now);
    connection.handle_packet(Packet::from_binary(b"b"), now);
    assert_eq!(
        outputs(&mut connection),
        [Output::Message(Message::Text("a".into())), Output::Message(Message::Binary("b".into())),]
    );
}

#[test]
fn client_that_pings_is_closed() {
    let (mut connection, now) = connection(TransportKind::WebSocket);
    connection.handle_packet(Packet::Ping("".into()), now);
    assert_eq!(outputs(&mut connection), [Output::Close(CloseReason::TransportError)]);
}

#[test]
fn packets_without_meaning_are_ignored() {
    let (mut connection, now) = connection(TransportKind::WebSocket);
    for packet in [Packet::Open("".into()), Packet::Noop, Packet::Upgrade] {
        connection.handle_packet(packet, now);
    }
    assert_eq!(outputs(&mut connection), []);
}

#[test]
fn bad_packet_closes_with_parse_error() {
    let (mut connection, _) = connection(TransportKind::WebSocket);
    connection.handle_parse_error(ParseError::Empty);
    assert_eq!(outputs(&mut connection), [Output::Close(CloseReason::ParseError)]);
}

#[test]
fn nothing_follows_a_close() {
    let (mut connection, now) = connection(TransportKind::WebSocket);
    connection.close(CloseReason::ServerShutdown);
    connection.close(CloseReason::TransportError);
    connection.handle_packet(text("late"), now);
    connection.handle_deadline(now + INTERVAL + TIMEOUT);
    assert_eq!(outputs(&mut connection), [Output::Close(CloseReason::ServerShutdown)]);
}

#[test]
fn close_packet_ends_the_open_poll_with_a_noop() {
    let (mut connection, now) = connection(TransportKind::Polling);
    connection.handle_poll().unwrap();
    connection.handle_packet(Packet::Close, now);
    assert_eq!(
        outputs(&mut connection),
        [Output::Send(Packet::Noop), Output::Close(CloseReason::TransportClose)]
    );
}

#[test]
fn second_poll_closes_the_connection() {
    let (mut connection, _) = connection(TransportKind::Polling);
    assert_eq!(connection.handle_poll(), Ok(()));
    assert_eq!(connection.handle_poll(), Err(Overlap));
    assert_eq!(outputs(&mut connection), [Output::Close(CloseReason::TransportError)]);
}

#[test]
fn polls_may_follow_one_another() {
    let (mut connection, _) = connection(TransportKind::Polling);
    for _ in 0..2 {
        connection.handle_poll().unwrap();
        connection.handle_poll_answered();
    }
    assert_eq!(outputs(&mut connection), []);
}

#[test]
fn second_post_closes_the_connection() {
    let (mut connection, _) = connection(TransportKind::Polling);
    assert_eq!(connection.handle_post(), Ok(()));
    connection.handle_post_answered();
    assert_eq!(connection.handle_post(), Ok(()));
    assert_eq!(connection.handle_post(), Err(Overlap));
    assert_eq!(outputs(&mut connection), [Output::Close(CloseReason::TransportError)]);
}

#[test]
fn probe_is_answered_and_the_open_poll_ended_until_the_client_has_upgraded() {
    let (mut connection, now) = probed();
    connection.handle_poll().unwrap();
    assert_eq!(connection.deadline(), Some(now + NOOP_INTERVAL));
    connection.handle_deadline(now + NOOP_INTERVAL);
    assert_eq!(outputs(&mut connection), [Output::Send(Packet::Noop)]);
    connection.handle_poll_answered();

    // Without an open poll there is nothing to end.
    connection.handle_deadline(now + NOOP_INTERVAL * 2);
    assert_eq!(outputs(&mut connection), []);
    // The client polled once more before it saw the answer to its probe.
    connection.handle_poll().unwrap();
    connection.handle_deadline(now + NOOP_INTERVAL * 3);
    assert_eq!(outputs(&mut connection), [Output::Send(Packet::Noop)]);
    connection.handle_poll_answered();

    connection.handle_probe_packet(&Packet::Upgrade, now + NOOP_INTERVAL * 3);
    assert_eq!(outputs(&mut connection), [Output::Upgrade]);
    assert_eq!(connection.deadline(), Some(now + INTERVAL));
}

#[test]
fn poll_from_before_the_probe_is_answered_at_the_upgrade() {
    let (mut connection, now) = connection(TransportKind::Polling);
    connection.handle_poll().unwrap();
    connection.handle_probe_opened(now).unwrap();
    connection.handle_probe_packet(&Packet::Upgrade, now);
    assert_eq!(outputs(&mut connection), [Output::Send(Packet::Noop), Output::Upgrade]);
}

#[test]
fn poll_that_overtook_the_upgrade_has_come_too_late() {
    let (mut connection, now) = probed();
    // One that was answered does not count.
    connection.handle_poll().unwrap();
    connection.handle_poll_answered();
    connection.handle_poll().unwrap();
    connection.handle_probe_packet(&Packet::Upgrade, now);
    assert_eq!(outputs(&mut connection), [Output::Upgrade]);
}

#[test]
fn poll_from_before_a_second_probe_is_answered_at_the_upgrade() {
    let (mut connection, now) = probed();
    connection.handle_poll().unwrap();
    connection.handle_probe_lost();
    connection.handle_probe_opened(now).unwrap();
    connection.handle_probe_packet(&Packet::Upgrade, now);
    assert_eq!(
        outputs(&mut connection),
        [Output::CloseProbe, Output::Send(Packet::Noop), Output::Upgrade]
    );
}

#[test]
fn ping_before_the_upgrade_may_be_answered_after_it() {
    let (mut connection, now) = connection(TransportKind::Polling);
    let pinged = now + INTERVAL;
    connection.handle_deadline(pinged);
    connection.handle_probe_opened(pinged).unwrap();
    connection.handle_probe_packet(&probe(), pinged);
    let upgraded = pinged + Duration::from_secs(5);
    connection.handle_probe_packet(&Packet::Upgrade, upgraded);
    assert_eq!(connection.deadline(), Some(upgraded + TIMEOUT));
    connection.handle_packet(pong(), upgraded);
    assert_eq!(connection.deadline(), Some(upgraded + INTERVAL));
}

#[test]
fn unfinished_upgrade_is_closed_and_polling_goes_on() {
    let (mut connection, now) = connection(TransportKind::Polling);
    connection.handle_probe_opened(now).unwrap();
    assert_eq!(connection.deadline(), Some(now + UPGRADE_TIMEOUT));
    connection.handle_deadline(now + UPGRADE_TIMEOUT);
    assert_eq!(outputs(&mut connection), [Output::CloseProbe]);
    assert_eq!(connection.handle_poll(), Ok(()));
    assert_eq!(connection.deadline(), Some(now + INTERVAL));
}

#[test]
fn strange_packet_ends_the_probe_only() {
    let (mut connection, now) = connection(TransportKind::Polling);
    connection.handle_probe_opened(now).unwrap();
    connection.handle_probe_packet(&text("too early"), now);
    assert_eq!(outputs(&mut connection), [Output::CloseProbe]);
    assert_eq!(connection.handle_probe_opened(now), Ok(()));
}

#[test]
fn one_websocket_may_probe_and_none_after_the_upgrade() {
    let (mut connection, now) = probed();
    assert_eq!(connection.handle_probe_opened(now), Err(UpgradeRefused));
    connection.handle_probe_packet(&Packet::Upgrade, now);
    assert_eq!(connection.handle_probe_opened(now), Err(UpgradeRefused));
    assert_eq!(connection.handle_poll(), Err(Overlap));
    assert_eq!(outputs(&mut connection), [Output::Upgrade]);
}

#[test]
fn close_during_an_upgrade_closes_the_probe_too() {
    let (mut connection, _) = probed();
    connection.close(CloseReason::ForcedClose);
    assert_eq!(
        outputs(&mut connection),
        [Output::CloseProbe, Output::Close(CloseReason::ForcedClose)]
    );
}

fn legacy(transport: TransportKind) -> (Connection, Instant) {
    let (_, now) = connection(transport);
    (Connection::new(transport, Revision::V3, Arc::default(), now), now)
}

#[test]
fn client_of_revision_3_pings_and_is_answered() {
    let (mut connection, now) = legacy(TransportKind::WebSocket);
    assert_eq!(connection.deadline(), Some(now + INTERVAL + TIMEOUT));
    let pinged = now + INTERVAL;
    connection.handle_deadline(pinged);
    assert_eq!(outputs(&mut connection), [], "it is the client that pings");
    connection.handle_packet(Packet::Ping("".into()), pinged);
    assert_eq!(outputs(&mut connection), [Output::Heartbeat, Output::Send(pong())]);
    assert_eq!(connection.deadline(), Some(pinged + INTERVAL + TIMEOUT));
}

#[test]
fn client_of_revision_3_that_does_not_ping_is_closed_after_interval_and_timeout() {
    let (mut connection, now) = legacy(TransportKind::Polling);
    // Unlike in revision 4, other packets do not count.
    connection.handle_packet(text("a"), now + INTERVAL);
    outputs(&mut connection);
    connection.handle_deadline(now + INTERVAL + TIMEOUT - INSTANT);
    assert_eq!(outputs(&mut connection), []);
    connection.handle_deadline(now + INTERVAL + TIMEOUT);
    assert_eq!(outputs(&mut connection), [Output::Close(CloseReason::PingTimeout)]);
}

#[test]
fn client_of_revision_3_that_pongs_is_closed() {
    let (mut connection, now) = legacy(TransportKind::WebSocket);
    connection.handle_packet(pong(), now);
    assert_eq!(outputs(&mut connection), [Output::Close(CloseReason::TransportError)]);
}

#[test]
fn client_of_revision_3_may_ping_by_its_new_transport() {
    let (mut connection, now) = legacy(TransportKind::Polling);
    connection.handle_probe_opened(now).unwrap();
    connection.handle_probe_packet(&probe(), now);
    let upgraded = now + Duration::from_secs(9);
    connection.handle_probe_packet(&Packet::Upgrade, upgraded);
    assert_eq!(
        outputs(&mut connection),
        [Output::SendProbe(Packet::Pong("probe".into())), Output::Upgrade]
    );
    assert_eq!(connection.deadline(), Some(upgraded + INTERVAL + TIMEOUT));
}
