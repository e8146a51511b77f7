//! The built-in test servers of the official suites answer as the suites expect.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::future::ready;
use std::pin::pin;
use std::time::Duration;

use flotilla::config::{App, Config};
use futures_util::{FutureExt, SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use common::client::Packet;
use common::{TestNode, start_with};

async fn serving(app: App) -> TestNode {
    let suite = move |config: &mut Config| {
        config.apps = vec![app];
        config.engine.ping_interval = Duration::from_millis(300);
        config.engine.ping_timeout = Duration::from_secs(20);
        if app == App::EngineEcho {
            config.engine.path = "/engine.io".to_owned();
        }
    };
    start_with("n1", Vec::new(), suite, |_io| {}).await
}

#[tokio::test]
async fn socketio_suite_finds_its_server() {
    let node = serving(App::Conformance).await;
    let mut client = node.open().await;
    client.connect("/", "").await;
    client.expect(r#"2["auth",{}]"#).await;
    client.connect("/custom", r#"{"token":"abc"}"#).await;
    client.expect(r#"2/custom,["auth",{"token":"abc"}]"#).await;
    client.ask("/random", "").await;
    client.expect(r#"4/random,{"message":"Invalid namespace"}"#).await;

    client.send(r#"2["message",1,"2",{"3":[true]}]"#).await;
    client.expect(r#"2["message-back",1,"2",{"3":[true]}]"#).await;
    client.send(r#"2456["message-with-ack",1,"2",{"3":[false]}]"#).await;
    client.expect(r#"3456[1,"2",{"3":[false]}]"#).await;
    let two = r#"{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}"#;
    client.send(&format!(r#"52-789["message-with-ack",{two}]"#)).await;
    client.send_binary(&[1, 2, 3]).await;
    client.send_binary(&[4, 5, 6]).await;
    client.expect(&format!("62-789[{two}]")).await;
    client.expect_binary(&[1, 2, 3]).await;
    client.expect_binary(&[4, 5, 6]).await;
}

/// The suite waits for one packet, then for the next: of two in one read it loses the second.
#[tokio::test]
async fn what_is_sent_on_connection_comes_after_a_moment() {
    let node = serving(App::Conformance).await;
    let mut apart = 0;
    // A test that is kept waiting finds both.
    for _ in 0..20 {
        let mut client = node.open().await;
        client.connect("/", "").await;
        match client.next().now_or_never() {
            None => {
                apart += 1;
                client.expect(r#"2["auth",{}]"#).await;
            }
            Some(packet) => assert_eq!(packet, Packet::Text(r#"2["auth",{}]"#.to_owned())),
        }
    }
    assert!(apart > 0);
}

/// One polling request; the answer's body.
async fn request(node: &TestNode, method: &str, query: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(node.node.addresses().listen).await.unwrap();
    let text = format!(
        "{method} /engine.io/?EIO=4&transport=polling{query} HTTP/1.1\r\nhost: a\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

#[tokio::test]
async fn engineio_suite_finds_its_server() {
    let node = serving(App::EngineEcho).await;
    let address = node.node.addresses().listen;
    let stream = TcpStream::connect(address).await.unwrap();
    let url = format!("ws://{address}/engine.io/?EIO=4&transport=websocket");
    let (mut websocket, _) = tokio_tungstenite::client_async(url, stream).await.unwrap();
    let open = websocket.next().await.unwrap().unwrap();
    let timing = r#""pingInterval":300,"pingTimeout":20000,"maxPayload":1000000}"#;
    assert!(open.to_text().unwrap().ends_with(timing), "{open}");
    for message in [Message::text("4hello"), Message::binary(vec![1, 2, 3, 4])] {
        websocket.send(message.clone()).await.unwrap();
        // A test that is kept waiting is pinged meanwhile.
        let answers = websocket.by_ref().map(Result::unwrap);
        let echoed =
            pin!(answers.filter(|answer| ready(*answer != Message::text("2")))).next().await;
        assert_eq!(echoed.unwrap(), message);
    }

    let open = request(&node, "GET", "", "").await;
    let sid = open.split('"').nth(3).unwrap();
    let sid = format!("&sid={sid}");
    assert_eq!(request(&node, "POST", &sid, "4test1\u{1e}bAQIDBA==").await, "ok");
    let answer = request(&node, "GET", &sid, "").await;
    assert_eq!(answer.trim_start_matches("2\u{1e}"), "4test1\u{1e}bAQIDBA==");
}
