//! Clients of Engine.IO 3 at the transport's door: each rule of the revision, and its violation.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::time::Duration;

use flotilla::engineio::v3::{Form, Piece, append};
use flotilla::engineio::{CloseReason, EngineConfig};
use support::http::{Response, receive, send};
use support::{Node, PATIENCE, Ws, event_with_attachments, message};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

const UNKNOWN_SID: &str = r#"{"code":1,"message":"Session ID unknown"}"#;
const BAD_REQUEST: &str = r#"{"code":3,"message":"Bad request"}"#;
const UNSUPPORTED: &str = r#"{"code":5,"message":"Unsupported protocol version"}"#;

const HEAD: &str = r#"52-["msg",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#;

fn config() -> EngineConfig {
    EngineConfig { allow_eio3: true, ..EngineConfig::default() }
}

async fn start() -> Node {
    Node::with(config()).await
}

impl Node {
    /// Opens a connection by polling; gives its sid. `more` goes on the query.
    async fn open_v3(&self, more: &str) -> String {
        let response = self.get(&format!("EIO=3&transport=polling{more}")).await;
        assert_eq!(response.status, 200, "{response:?}");
        let (len, packet) = response.body.split_once(':').unwrap();
        assert_eq!(len.parse(), Ok(packet.len()), "{packet}");
        let open: serde_json::Value = serde_json::from_str(&packet[1..]).unwrap();
        open["sid"].as_str().unwrap().to_owned()
    }

    async fn begin_poll_v3(&self, sid: &str) -> TcpStream {
        let head = format!("GET /socket.io/?EIO=3&transport=polling&sid={sid} HTTP/1.1");
        send(self.address, &head, b"").await
    }

    async fn poll_v3(&self, sid: &str) -> Response {
        receive(self.begin_poll_v3(sid).await).await
    }

    /// The content type and the body, which may be no text.
    async fn poll_bytes(&self, sid: &str) -> (String, Vec<u8>) {
        let mut stream = self.begin_poll_v3(sid).await;
        let mut response = Vec::new();
        let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut response)).await;
        read.expect("a response should have come").unwrap();
        let end = response.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(response[..end].to_vec()).unwrap().to_lowercase();
        let content_type = head.split("content-type: ").nth(1).unwrap().lines().next().unwrap();
        (content_type.to_owned(), response[end + 4..].to_vec())
    }

    async fn post_v3(&self, sid: &str, body: &[u8]) -> Response {
        self.post_as(sid, "text/plain;charset=UTF-8", body).await
    }

    async fn post_as(&self, sid: &str, content_type: &str, body: &[u8]) -> Response {
        let head = format!(
            "POST /socket.io/?EIO=3&transport=polling&sid={sid} HTTP/1.1\r\nContent-Type: {content_type}"
        );
        receive(send(self.address, &head, body).await).await
    }

    async fn websocket_v3(&self, more: &str) -> Ws {
        let url = format!("ws://{}/socket.io/?EIO=3&transport=websocket{more}", self.address);
        Ws(tokio_tungstenite::connect_async(url).await.unwrap().0)
    }

    /// A WebSocket from scratch, after its open packet.
    async fn opened_v3(&self, more: &str) -> Ws {
        let mut ws = self.websocket_v3(more).await;
        assert!(ws.text().await.starts_with(r#"0{"sid":""#));
        ws
    }

    /// What the first connection that ended had received.
    fn received(&self) -> Vec<String> {
        self.echo.closed.lock().unwrap()[0].1.clone()
    }
}

impl Ws {
    async fn binary(&mut self) -> Vec<u8> {
        match self.next().await {
            Ok(Message::Binary(bytes)) => bytes.to_vec(),
            other => panic!("bytes should have come, not {other:?}"),
        }
    }
}

#[tokio::test]
async fn handshake_is_the_official_open_packet_behind_its_length() {
    let node = start().await;
    let response = node.get("EIO=3&transport=polling&t=abc&b64=1").await;
    assert_eq!(response.headers["content-type"], "text/plain; charset=UTF-8");
    let sid = node.echo.handshakes.lock().unwrap()[0].sid.clone();
    let open = format!(
        r#"0{{"sid":"{sid}","upgrades":["websocket"],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}}"#
    );
    assert_eq!(response.body, format!("{}:{open}", open.len()));
    let mut ws = node.websocket_v3("").await;
    assert!(ws.text().await.ends_with(
        r#""upgrades":[],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}"#
    ));
    drop(ws);
    node.stop().await;
}

#[tokio::test]
async fn whatever_is_not_revision_4_is_3_and_is_served_only_if_allowed() {
    let node = start().await;
    for query in ["EIO=3&", "", "EIO=5&", "EIO=04&"] {
        let response = node.get(&format!("{query}transport=polling")).await;
        assert_eq!(response.status, 200, "{query}");
        assert!(response.body.contains(":0{"), "{query}");
    }
    node.stop().await;

    let node = Node::start().await;
    let response = node.get("EIO=3&transport=polling").await;
    assert_eq!((response.status, response.body.as_str()), (400, UNSUPPORTED));
    node.stop().await;
}

#[tokio::test]
async fn requests_of_the_other_revision_are_bad_and_disturb_nothing() {
    let node = start().await;
    let (v3, v4) = (node.open_v3("").await, node.open().await);
    for (eio, sid) in [("EIO=4&", &v3), ("EIO=3&", &v4), ("", &v4)] {
        let polling = node.get(&format!("{eio}transport=polling&sid={sid}")).await;
        assert_eq!((polling.status, polling.body.as_str()), (400, BAD_REQUEST), "{eio}");
        let head = format!(
            "GET /socket.io/?{eio}transport=websocket&sid={sid} HTTP/1.1\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nConnection: Upgrade"
        );
        let upgrade = node.request(&head, "").await;
        assert_eq!((upgrade.status, upgrade.body.as_str()), (400, "Bad request"), "{eio}");
    }
    node.post_v3(&v3, b"2:4a").await;
    assert_eq!(node.poll_v3(&v3).await.body, "2:4a");
    node.post(&v4, "4a").await;
    assert_eq!(node.poll(&v4).await.body, "4a");
    node.stop().await;
}

#[tokio::test]
async fn lengths_in_polls_and_posts_are_those_of_javascript() {
    let node = start().await;
    let sid = node.open_v3("").await;
    let posted = node.post_v3(&sid, "3:4é!3:4😀2:4a".as_bytes()).await;
    assert_eq!((posted.status, posted.body.as_str()), (200, "ok"));
    assert_eq!(posted.headers["content-type"], "text/html");
    let polled = node.poll_v3(&sid).await;
    assert_eq!(polled.headers["content-type"], "text/plain; charset=UTF-8");
    assert_eq!(polled.body, "3:4é!3:4😀2:4a");
    node.stop().await;
}

#[tokio::test]
async fn client_that_asks_for_text_gets_bytes_as_base64() {
    let node = start().await;
    let sid = node.open_v3("&b64=1").await;
    node.echo.outbox(0).push(event_with_attachments());
    let (content_type, body) = node.poll_bytes(&sid).await;
    assert_eq!(content_type, "text/plain; charset=utf-8");
    let mut expected = format!("{}:4{HEAD}6:b4AQID", HEAD.len() + 1).into_bytes();
    append(Piece::Bytes(&[255; 200]), Form::Text, &mut expected);
    assert_eq!(body, expected);

    let mut ws = node.opened_v3("&b64=1").await;
    node.echo.outbox(1).push(event_with_attachments());
    assert_eq!(ws.text().await, format!("4{HEAD}"));
    assert_eq!(ws.text().await, "b4AQID");
    assert_eq!(ws.text().await.len(), 2 + 268);
    drop(ws);
    node.stop().await;
}

#[tokio::test]
async fn client_that_takes_bytes_gets_them_when_there_are_any() {
    let node = start().await;
    let sid = node.open_v3("").await;
    let outbox = node.echo.outbox(0);
    outbox.push(message("é"));
    outbox.push(event_with_attachments());
    let (content_type, body) = node.poll_bytes(&sid).await;
    assert_eq!(content_type, "application/octet-stream");
    let mut expected = b"\x00\x03\xff4\xc3\xa9\x00\x07\x01\xff".to_vec();
    assert_eq!(HEAD.len() + 1, 71);
    expected.extend_from_slice(format!("4{HEAD}").as_bytes());
    expected.extend_from_slice(b"\x01\x04\xff\x04\x01\x02\x03\x01\x02\x00\x01\xff\x04");
    expected.extend_from_slice(&[255; 200]);
    assert_eq!(body, expected);

    outbox.push(message("é"));
    let (content_type, body) = node.poll_bytes(&sid).await;
    assert_eq!(content_type, "text/plain; charset=utf-8", "text stays text");
    assert_eq!(body, "2:4é".as_bytes());
    node.stop().await;
}

#[tokio::test]
async fn posts_of_bytes_are_taken() {
    let node = start().await;
    let sid = node.open_v3("").await;
    let body = b"\x00\x02\xff4a\x01\x04\xff\x04\x01\x02\x03";
    let posted = node.post_as(&sid, "application/octet-stream", body).await;
    assert_eq!((posted.status, posted.body.as_str()), (200, "ok"));
    let posted = node.post_v3(&sid, b"6:b4BAUG1:1").await;
    assert_eq!((posted.status, posted.body.as_str()), (200, "ok"));
    assert_eq!(node.echo.closed(1).await, [CloseReason::TransportClose]);
    assert_eq!(node.received(), ["a", r#"b"\x01\x02\x03""#, r#"b"\x04\x05\x06""#]);
    node.stop().await;
}

#[tokio::test]
async fn bodies_that_are_no_payload_end_the_connection() {
    let node = start().await;
    let bodies: [&[u8]; 9] = [
        b"",
        b"4a",
        b"3:4a",
        b"2:4a2:7a",
        "2:4😀".as_bytes(),
        b"999999999999999999999999:4a",
        b"\x00\x09\x09\x09\x09\x09\x09\x09\xff4a",
        b"\x01\x02\xff\x09a",
        b"\x00\x024a",
    ];
    for (place, body) in bodies.iter().enumerate() {
        let sid = node.open_v3("").await;
        assert_eq!(node.post_v3(&sid, body).await.body, "ok", "{body:?}");
        assert_eq!(node.echo.closed(place + 1).await[place], CloseReason::ParseError, "{body:?}");
        assert_eq!(node.poll_v3(&sid).await.body, UNKNOWN_SID, "{body:?}");
    }
    // What came before the bad packet was good.
    assert_eq!(node.echo.closed.lock().unwrap()[3].1, ["a"]);
    node.stop().await;
}

#[tokio::test]
async fn frames_of_bytes_carry_the_type_of_a_message() {
    let node = start().await;
    let mut ws = node.opened_v3("").await;
    node.echo.outbox(0).push(event_with_attachments());
    assert_eq!(ws.text().await, format!("4{HEAD}"));
    assert_eq!(ws.binary().await, [4, 1, 2, 3]);
    assert_eq!(ws.binary().await[..2], [4, 255]);
    ws.send_message(Message::binary(vec![4, 9, 8])).await;
    ws.send("b4AQID").await;
    ws.send("4done").await;
    assert_eq!(ws.text().await, "bCQg=", "the echo's own spelling");
    assert_eq!(ws.text().await, "bAQID");
    assert_eq!(ws.text().await, "4done");
    drop(ws);
    node.stop().await;
}

#[tokio::test]
async fn frames_of_other_bytes_end_the_connection() {
    let node = start().await;
    let frames = [
        Message::binary(vec![7, 1]),
        Message::binary(vec![]),
        Message::text("b"),
        Message::text("9"),
    ];
    for (place, frame) in frames.into_iter().enumerate() {
        let mut ws = node.opened_v3("").await;
        ws.send_message(frame).await;
        assert_eq!(ws.close_code().await, 1005);
        assert_eq!(node.echo.closed(place + 1).await[place], CloseReason::ParseError);
    }
    node.stop().await;
}

#[tokio::test]
async fn client_pings_and_the_server_answers() {
    let node = start().await;
    let mut ws = node.opened_v3("").await;
    ws.send("2").await;
    assert_eq!(ws.text().await, "3");
    ws.send("2probe").await;
    assert_eq!(ws.text().await, "3", "as the official server answers outside of an upgrade");
    ws.send_message(Message::Ping(b"frame".as_slice().into())).await;
    assert_eq!(ws.next().await.unwrap(), Message::Pong(b"frame".as_slice().into()));
    let sid = node.open_v3("").await;
    node.post_v3(&sid, b"1:2").await;
    assert_eq!(node.poll_v3(&sid).await.body, "1:3");
    drop(ws);
    node.stop().await;
}

#[tokio::test]
async fn client_that_pongs_is_closed() {
    let node = start().await;
    let mut ws = node.opened_v3("").await;
    ws.send("3").await;
    assert_eq!(ws.close_code().await, 1005);
    assert_eq!(node.echo.closed(1).await, [CloseReason::TransportError]);
    node.stop().await;
}

#[tokio::test]
async fn client_that_does_not_ping_is_closed_and_is_never_pinged() {
    let node = Node::with(EngineConfig {
        ping_interval: Duration::from_secs(1),
        ping_timeout: Duration::from_secs(2),
        ..config()
    })
    .await;
    let mut ws = node.opened_v3("").await;
    assert_eq!(ws.close_code().await, 1005, "nothing comes before the end");
    let sid = node.open_v3("").await;
    assert_eq!(node.poll_v3(&sid).await.body, "1:1");
    assert_eq!(node.echo.closed(2).await, [CloseReason::PingTimeout; 2]);
    node.stop().await;
}

#[tokio::test]
async fn client_that_polls_for_text_upgrades_to_bytes() {
    let node = start().await;
    let sid = node.open_v3("&b64=1").await;
    let poll = node.begin_poll_v3(&sid).await;
    let outbox = node.echo.outbox(0);
    support::until("the poll is open", || outbox.is_writable()).await;
    let mut ws = node.websocket_v3(&format!("&sid={sid}")).await;
    ws.send("2probe").await;
    assert_eq!(ws.text().await, "3probe");
    assert_eq!(receive(poll).await.body, "1:6");
    outbox.push(event_with_attachments());
    ws.send("5").await;
    assert_eq!(ws.text().await, format!("4{HEAD}"));
    assert_eq!(ws.binary().await, [4, 1, 2, 3]);
    assert_eq!(ws.binary().await.len(), 201);
    ws.send("2").await;
    assert_eq!(ws.text().await, "3");
    assert_eq!(node.poll_v3(&sid).await.body, BAD_REQUEST);
    drop(ws);
    assert_eq!(node.echo.closed(1).await, [CloseReason::TransportClose]);
    node.stop().await;
}

#[tokio::test]
async fn close_of_either_side_ends_the_open_poll() {
    let node = start().await;
    let sid = node.open_v3("").await;
    let poll = node.begin_poll_v3(&sid).await;
    let outbox = node.echo.outbox(0);
    support::until("the poll is open", || outbox.is_writable()).await;
    node.post_v3(&sid, b"1:1").await;
    assert_eq!(receive(poll).await.body, "1:6");
    assert_eq!(node.echo.closed(1).await, [CloseReason::TransportClose]);

    let sid = node.open_v3("").await;
    node.post_v3(&sid, b"7:4!close").await;
    assert_eq!(node.poll_v3(&sid).await.body, "4:4bye");
    assert_eq!(node.poll_v3(&sid).await.body, "1:61:1");
    assert_eq!(node.echo.closed(2).await[1], CloseReason::ForcedServerClose);
    node.stop().await;
}

#[tokio::test]
async fn one_packet_reaches_clients_of_both_revisions_by_each_transport() {
    let node = start().await;
    let mut v4 = node.websocket().await;
    let mut v3 = node.opened_v3("").await;
    let (polls_v4, polls_v3) = (node.open().await, node.open_v3("").await);
    let packet = event_with_attachments();
    for place in 0..4 {
        node.echo.outbox(place).push(packet.clone());
    }
    for (ws, prefix) in [(&mut v4, [].as_slice()), (&mut v3, &[4])] {
        assert_eq!(ws.text().await, format!("4{HEAD}"));
        assert_eq!(ws.binary().await, [prefix, &[1, 2, 3]].concat());
        assert_eq!(ws.binary().await, [prefix, &[255; 200]].concat());
    }
    assert!(node.poll(&polls_v4).await.body.starts_with(&format!("4{HEAD}\x1ebAQID\x1eb")));
    let (_, body) = node.poll_bytes(&polls_v3).await;
    let head = format!("4{HEAD}");
    let found = body.windows(head.len()).position(|window| window == head.as_bytes());
    assert_eq!(found, Some(4));
    drop((v3, v4));
    node.stop().await;
}
