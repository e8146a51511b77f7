//! A client that polls.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::time::Duration;

use flotilla::adapter::{OutboxLimits, Pushed};
use flotilla::engineio::{CloseReason, EngineConfig};
use support::http::{receive, send};
use support::{Node, PATIENCE, message};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

#[tokio::test]
async fn handshake_is_answered_as_the_official_server_does() {
    let node = Node::start().await;
    let response = node.get("EIO=4&transport=polling&t=abc").await;
    assert_eq!(response.status, 200);
    assert_eq!(response.headers["content-type"], "text/plain; charset=UTF-8");
    assert_eq!(response.headers["cache-control"], "no-store");
    let sid = node.echo.handshakes.lock().unwrap()[0].sid.clone();
    let expected = format!(
        r#"0{{"sid":"{sid}","upgrades":["websocket"],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}}"#
    );
    assert_eq!(response.body, expected);
    node.stop().await;
}

#[tokio::test]
async fn posts_go_in_and_polls_bring_out() {
    let node = Node::start().await;
    let sid = node.open().await;
    let poll = node.begin_poll(&sid).await;
    let response = node.post(&sid, "4hello").await;
    assert_eq!((response.status, response.body.as_str()), (200, "ok"));
    assert_eq!(response.headers["content-type"], "text/html");
    assert_eq!(receive(poll).await.body, "4hello");
    node.stop().await;
}

#[tokio::test]
async fn several_packets_share_a_payload_and_bytes_are_base64() {
    let node = Node::start().await;
    let sid = node.open().await;
    assert_eq!(node.post(&sid, "4a\x1ebAQIDBA==\x1e4ü").await.status, 200);
    assert_eq!(node.poll(&sid).await.body, "4a\x1ebAQIDBA==\x1e4ü");
    node.stop().await;
}

#[tokio::test]
async fn attachments_are_base64_behind_their_packet() {
    let node = Node::start().await;
    let sid = node.open().await;
    node.echo.outbox(0).push(support::event_with_attachments());
    let body = node.poll(&sid).await.body;
    let packets: Vec<_> = body.split('\x1e').collect();
    assert_eq!(packets.len(), 3);
    assert!(packets[0].starts_with(r#"452-["msg",{"_placeholder""#), "{body}");
    assert_eq!(packets[1], "bAQID");
    assert_eq!(packets[2].len(), 1 + 268, "200 bytes in base64, with padding");
    node.stop().await;
}

#[tokio::test]
async fn volatile_packets_go_out_while_a_poll_is_open() {
    let node = Node::start().await;
    let sid = node.open().await;
    let outbox = node.echo.outbox(0);
    assert_eq!(outbox.push_volatile(message("lost")), Pushed::Dropped);
    let poll = node.begin_open_poll(&sid).await;
    assert_eq!(outbox.push_volatile(message("volatile")), Pushed::Queued);
    assert_eq!(receive(poll).await.body, "4volatile");
    node.stop().await;
}

#[tokio::test]
async fn server_pings_in_polls_and_a_client_that_answers_lives() {
    let node = Node::with(heartbeat(PATIENCE)).await;
    let sid = node.open().await;
    for _ in 0..3 {
        assert_eq!(node.poll(&sid).await.body, "2");
        assert_eq!(node.post(&sid, "3").await.body, "ok");
    }
    node.stop().await;
}

#[tokio::test]
async fn silent_client_is_closed() {
    let node = Node::with(heartbeat(Duration::from_secs(3))).await;
    let sid = node.open().await;
    assert_eq!(node.poll(&sid).await.body, "2");
    assert_eq!(node.poll(&sid).await.body, "1");
    assert_eq!(node.echo.closed(1).await, [CloseReason::PingTimeout]);
    assert_eq!(node.poll(&sid).await.body, UNKNOWN_SID);
    node.stop().await;
}

fn heartbeat(ping_timeout: Duration) -> EngineConfig {
    EngineConfig {
        ping_interval: Duration::from_millis(50),
        ping_timeout,
        ..EngineConfig::default()
    }
}

const UNKNOWN_SID: &str = r#"{"code":1,"message":"Session ID unknown"}"#;
const BAD_REQUEST: &str = r#"{"code":3,"message":"Bad request"}"#;

#[tokio::test]
async fn overlapping_polls_end_the_connection() {
    let node = Node::start().await;
    let sid = node.open().await;
    let first = node.begin_poll(&sid).await;
    let second = node.begin_poll(&sid).await;
    // Either may have come first.
    let mut answers = [receive(first).await, receive(second).await].map(|r| (r.status, r.body));
    answers.sort();
    assert_eq!(answers, [(200, "1".to_owned()), (400, String::new())]);
    assert_eq!(node.echo.closed(1).await, [CloseReason::TransportError]);
    let after = node.poll(&sid).await;
    assert_eq!((after.status, after.body.as_str()), (400, UNKNOWN_SID));
    node.stop().await;
}

#[tokio::test]
async fn overlapping_posts_end_the_connection() {
    let node = Node::start().await;
    let sid = node.open().await;
    let head = format!("POST /socket.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1");
    let mut first = TcpStream::connect(node.address).await.unwrap();
    let request = format!("{head}\r\nHost: x\r\nContent-Length: 100\r\nConnection: close\r\n\r\n4");
    first.write_all(request.as_bytes()).await.unwrap();
    // The first may be seen after the second, which is good then: post until one is refused.
    let mut refused = node.post(&sid, "4").await;
    while refused.status == 200 {
        refused = node.post(&sid, "4").await;
    }
    assert_eq!(refused.status, 400);
    assert_eq!(node.echo.closed(1).await, [CloseReason::TransportError]);
    drop(first);
    node.stop().await;
}

#[tokio::test]
async fn client_that_drops_its_poll_is_gone() {
    let node = Node::start().await;
    let sid = node.open().await;
    drop(node.begin_poll(&sid).await);
    assert_eq!(node.echo.closed(1).await, [CloseReason::TransportError]);
    node.stop().await;
}

#[tokio::test]
async fn client_that_drops_its_post_is_gone() {
    let node = Node::start().await;
    let sid = node.open().await;
    let mut stream = TcpStream::connect(node.address).await.unwrap();
    let request = format!(
        "POST /socket.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n4ab"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    drop(stream);
    assert_eq!(node.echo.closed(1).await, [CloseReason::TransportError]);
    node.stop().await;
}

#[tokio::test]
async fn post_that_never_ends_is_given_up() {
    let node = Node::with(heartbeat(Duration::from_millis(200))).await;
    let sid = node.open().await;
    let mut stream = TcpStream::connect(node.address).await.unwrap();
    let request = format!(
        "POST /socket.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 9\r\n\r\n4ab"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    assert!([400, 408].contains(&receive(stream).await.status));
    assert_eq!(node.echo.closed(1).await.len(), 1);
    node.stop().await;
}

#[tokio::test]
async fn body_beyond_the_limit_is_refused_and_the_connection_goes_on() {
    let node = Node::start().await;
    let sid = node.open().await;
    let response = node.post(&sid, &"4".repeat(1_000_001)).await;
    assert_eq!((response.status, response.body.as_str()), (413, ""));

    // The same without a length that announces it.
    let mut stream = TcpStream::connect(node.address).await.unwrap();
    let head = format!(
        "POST /socket.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    for _ in 0..3 {
        let chunk = format!("{:x}\r\n{}\r\n", 500_000, "4".repeat(500_000));
        stream.write_all(chunk.as_bytes()).await.unwrap();
    }
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    assert_eq!(receive(stream).await.status, 413);

    assert_eq!(node.post(&sid, &format!("4{}", "x".repeat(999_999))).await.body, "ok");
    assert_eq!(node.poll(&sid).await.body.len(), 1_000_000);
    node.stop().await;
}

#[tokio::test]
async fn close_packet_ends_the_poll_with_a_noop() {
    let node = Node::start().await;
    let sid = node.open().await;
    let poll = node.begin_open_poll(&sid).await;
    assert_eq!(node.post(&sid, "1").await.body, "ok");
    assert_eq!(receive(poll).await.body, "6");
    assert_eq!(node.echo.closed(1).await, [CloseReason::TransportClose]);
    assert_eq!(node.poll(&sid).await.body, UNKNOWN_SID);
    node.stop().await;
}

#[tokio::test]
async fn poll_sent_beside_the_close_packet_is_answered_though_it_comes_later() {
    let node = Node::start().await;
    let sid = node.open().await;
    let head = format!("POST /socket.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1");
    let post = send(node.address, &head, b"1").await;
    // The application hears of the close at once, before any poll.
    assert_eq!(node.echo.closed(1).await, [CloseReason::TransportClose]);
    assert_eq!(node.poll(&sid).await.body, "6");
    assert_eq!(receive(post).await.body, "ok");
    assert_eq!(node.poll(&sid).await.body, UNKNOWN_SID);
    node.stop().await;
}

#[tokio::test]
async fn close_packet_without_a_poll_ends_the_connection_before_its_answer() {
    let node = Node::start().await;
    let sid = node.open().await;
    assert_eq!(node.post(&sid, "1").await.body, "ok");
    assert_eq!(node.poll(&sid).await.body, UNKNOWN_SID);
    node.stop().await;
}

#[tokio::test]
async fn bad_payload_ends_the_connection() {
    let node = Node::start().await;
    let sid = node.open().await;
    // The request was right; what it carried was not.
    assert_eq!(node.post(&sid, "4good\x1eabc\x1e4late").await.body, "ok");
    assert_eq!(node.echo.closed(1).await, [CloseReason::ParseError]);
    assert_eq!(node.echo.closed.lock().unwrap()[0].1, ["good"]);
    assert_eq!(node.poll(&sid).await.body, UNKNOWN_SID);
    node.stop().await;
}

#[tokio::test]
async fn binary_bodies_are_of_another_revision() {
    let node = Node::start().await;
    let sid = node.open().await;
    let head = format!(
        "POST /socket.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\nContent-Type: application/octet-stream"
    );
    assert_eq!(node.request(&head, "4abc").await.status, 400);
    assert_eq!(node.echo.closed(1).await, [CloseReason::TransportError]);
    node.stop().await;
}

#[tokio::test]
async fn node_that_closes_waits_for_the_last_poll() {
    let node = Node::start().await;
    let sid = node.open().await;
    assert_eq!(node.post(&sid, "4!close").await.body, "ok");
    assert_eq!(node.echo.closed(1).await, [CloseReason::ForcedServerClose]);
    // The client cannot know yet.
    assert_eq!(node.post(&sid, "4too late").await.body, "ok");
    // In one payload, an official client would take the close ahead of what came before it.
    assert_eq!(node.poll(&sid).await.body, "4bye");
    assert_eq!(node.post(&sid, "4later still").await.body, "ok");
    assert_eq!(node.poll(&sid).await.body, "6\x1e1");
    assert_eq!(node.poll(&sid).await.body, UNKNOWN_SID);
    node.stop().await;
}

#[tokio::test]
async fn shutdown_ends_the_open_poll() {
    let node = Node::start().await;
    let (sid, _without_poll) = (node.open().await, node.open().await);
    let poll = node.begin_open_poll(&sid).await;
    node.shutdown.cancel();
    assert_eq!(receive(poll).await.body, "1");
    assert_eq!(node.echo.closed(2).await, [CloseReason::ServerShutdown; 2]);
    node.stop().await;
}

#[tokio::test]
async fn requests_that_cannot_be_served_have_their_codes() {
    let node = Node::start().await;
    let sid = node.open().await;
    let get = |query: String| format!("GET /socket.io/?{query} HTTP/1.1");
    let unknown = "A".repeat(20);
    let cases = [
        (get("EIO=4".to_owned()), 400, r#"{"code":0,"message":"Transport unknown"}"#),
        (
            get("EIO=4&transport=webtransport".to_owned()),
            400,
            r#"{"code":0,"message":"Transport unknown"}"#,
        ),
        (
            get("EIO=4&transport=__proto__".to_owned()),
            400,
            r#"{"code":0,"message":"Transport unknown"}"#,
        ),
        (get(format!("EIO=4&transport=polling&sid={unknown}")), 400, UNKNOWN_SID),
        (get("EIO=4&transport=polling&sid=constructor".to_owned()), 400, UNKNOWN_SID),
        (
            "POST /socket.io/?EIO=4&transport=polling HTTP/1.1".to_owned(),
            400,
            r#"{"code":2,"message":"Bad handshake method"}"#,
        ),
        (get("EIO=4&transport=websocket".to_owned()), 400, BAD_REQUEST),
        (get(format!("EIO=4&transport=websocket&sid={sid}")), 400, BAD_REQUEST),
        (get(format!("EIO=3&transport=polling&sid={sid}")), 400, BAD_REQUEST),
        (
            get("transport=polling".to_owned()),
            400,
            r#"{"code":5,"message":"Unsupported protocol version"}"#,
        ),
        (
            get("EIO=3&transport=polling".to_owned()),
            400,
            r#"{"code":5,"message":"Unsupported protocol version"}"#,
        ),
        (format!("PUT /socket.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1"), 500, ""),
        ("GET /elsewhere HTTP/1.1".to_owned(), 404, ""),
    ];
    for (head, status, body) in cases {
        let response = node.request(&head, "").await;
        assert_eq!((response.status, response.body.as_str()), (status, body), "{head}");
        if status == 400 {
            assert_eq!(response.headers["content-type"], "application/json");
        }
    }
    // None of them did the connection harm.
    assert_eq!(node.post(&sid, "4fine").await.body, "ok");
    node.stop().await;
}

#[tokio::test]
async fn websocket_requests_are_refused_in_plain_text() {
    let node = Node::start().await;
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    for (query, body) in [
        ("EIO=4&transport=nope", "Transport unknown"),
        ("EIO=4&transport=websocket&sid=AAAAAAAAAAAAAAAAAAAA", "Session ID unknown"),
        ("EIO=3&transport=websocket", "Unsupported protocol version"),
        ("EIO=4&transport=polling", "Bad request"),
    ] {
        let head = format!("GET /socket.io/?{query} HTTP/1.1\r\n{upgrade}");
        let mut stream = TcpStream::connect(node.address).await.unwrap();
        stream.write_all(format!("{head}\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
        let response = receive(stream).await;
        assert_eq!((response.status, response.body.as_str()), (400, body));
        assert_eq!(response.headers["content-type"], "text/html");
        assert_eq!(response.headers["connection"], "close");
    }
    node.stop().await;
}

#[tokio::test]
async fn node_that_is_not_ready_refuses_new_connections_only() {
    let node = Node::start().await;
    let sid = node.open().await;
    *node.echo.refusal.lock().unwrap() = Some(flotilla::transport::Refusal::NoQuorum);
    let response = node.get("EIO=4&transport=polling").await;
    assert_eq!((response.status, response.body.as_str()), (503, "the node has no quorum"));
    assert_eq!(node.post(&sid, "4fine").await.body, "ok");
    node.stop().await;
}

#[tokio::test]
async fn panic_above_at_a_new_connection_is_a_server_error() {
    let node = Node::start().await;
    assert_eq!(node.get("EIO=4&transport=polling&panic").await.status, 500);
    assert_eq!(node.transport.connection_count(), 0);
    node.stop().await;
}

#[tokio::test]
async fn origins_are_told_what_they_may() {
    let node = Node::with(EngineConfig {
        cors_origins: vec!["https://ok.example".to_owned()],
        ..EngineConfig::default()
    })
    .await;
    let get = |origin: &str| {
        format!("GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nOrigin: {origin}")
    };
    let allowed = node.request(&get("https://ok.example"), "").await;
    assert_eq!(allowed.headers["access-control-allow-origin"], "https://ok.example");
    assert_eq!(allowed.headers["vary"].to_lowercase(), "origin");
    let other = node.request(&get("https://evil.example"), "").await;
    assert!(!other.headers.contains_key("access-control-allow-origin"));
    let error = node.request("GET /socket.io/ HTTP/1.1\r\nOrigin: https://ok.example", "").await;
    assert_eq!(error.status, 400);
    assert_eq!(error.headers["access-control-allow-origin"], "https://ok.example");
    node.stop().await;
}

#[tokio::test]
async fn preflight_is_answered_where_origins_are_allowed() {
    let preflight = "OPTIONS /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nOrigin: https://a.example\r\nAccess-Control-Request-Headers: x-token";
    let node =
        Node::with(EngineConfig { cors_origins: vec!["*".to_owned()], ..EngineConfig::default() })
            .await;
    let response = node.request(preflight, "").await;
    assert_eq!((response.status, response.body.as_str()), (204, ""));
    assert_eq!(response.headers["access-control-allow-origin"], "*");
    assert_eq!(response.headers["access-control-allow-methods"], "GET,HEAD,PUT,PATCH,POST,DELETE");
    assert_eq!(response.headers["access-control-allow-headers"], "x-token");
    node.stop().await;

    let node = Node::start().await;
    let response = node.request(preflight, "").await;
    assert_eq!(response.status, 400);
    assert!(!response.headers.contains_key("access-control-allow-origin"));
    node.stop().await;
}

#[tokio::test]
async fn pages_are_served_beside_the_connections() {
    let pages = flotilla::transport::Pages::new().with_page("/", "text/html; charset=utf-8", "<p>");
    let limits = OutboxLimits { max_bytes: 1000, max_packets: 10, ..OutboxLimits::default() };
    let node = Node::with_parts(EngineConfig::default(), limits, pages).await;
    let page = node.request("GET / HTTP/1.1", "").await;
    assert_eq!((page.status, page.body.as_str()), (200, "<p>"));
    assert_eq!(page.headers["content-type"], "text/html; charset=utf-8");
    assert_eq!(node.request("POST / HTTP/1.1", "").await.status, 404);
    node.stop().await;
}

#[tokio::test]
async fn request_with_a_head_beyond_the_limit_is_refused() {
    let node = Node::start().await;
    let head = format!("GET /socket.io/?{} HTTP/1.1", "x".repeat(20_000));
    let stream = send(node.address, &head, b"").await;
    assert!([414, 431].contains(&receive(stream).await.status));
    node.stop().await;
}
