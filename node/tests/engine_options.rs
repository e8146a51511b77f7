//! The options of Engine.IO, at the public door.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::io::Read;

use flate2::read::{GzDecoder, ZlibDecoder};
use flotilla::engineio::{
    CompressionConfig, CookieConfig, CorsConfig, EngineConfig, Origins, TransportKind,
};
use support::http::{Response, send};
use support::{Node, PATIENCE, message};
use tokio::io::AsyncReadExt;
use tokio_tungstenite::tungstenite;

/// Bytes that need not be text.
async fn get_bytes(node: &Node, head: &str) -> (String, Vec<u8>) {
    let mut stream = send(node.address, head, b"").await;
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await;
    read.expect("a response should have come").unwrap();
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    (String::from_utf8(bytes[..end].to_vec()).unwrap(), bytes[end + 4..].to_vec())
}

async fn get_path(node: &Node, path: &str) -> Response {
    node.request(&format!("GET {path} HTTP/1.1"), "").await
}

#[tokio::test]
async fn path_is_a_prefix_that_ends_with_a_slash() {
    let node = Node::start().await;
    for path in ["/socket.io/", "/socket.io/below"] {
        let response = get_path(&node, &format!("{path}?EIO=4&transport=polling")).await;
        assert_eq!(response.status, 200, "{path}");
    }
    for path in ["/socket.io", "/socket.iox/", "/socket/", "/"] {
        let response = get_path(&node, &format!("{path}?EIO=4&transport=polling")).await;
        assert_eq!(response.status, 404, "{path}");
    }
    node.stop().await;
}

#[tokio::test]
async fn path_may_be_another_and_without_its_slash() {
    for path in ["/my/path", "/my/path/"] {
        let config = EngineConfig {
            path: path.to_owned(),
            add_trailing_slash: false,
            ..EngineConfig::default()
        };
        let node = Node::with(config).await;
        for (path, status) in [("/my/path", 200), ("/my/path/", 200), ("/socket.io/", 404)] {
            let response = get_path(&node, &format!("{path}?EIO=4&transport=polling")).await;
            assert_eq!(response.status, status, "{path}");
        }
        node.stop().await;
    }
}

#[tokio::test]
async fn upgrade_at_another_path_is_refused() {
    let node = Node::start().await;
    let url = format!("ws://{}/other/?EIO=4&transport=websocket", node.address);
    let error = tokio_tungstenite::connect_async(url).await.unwrap_err();
    let tungstenite::Error::Http(response) = error else { panic!("{error}") };
    assert_eq!(response.status(), 404);
    node.stop().await;
}

#[tokio::test]
async fn transports_that_are_not_offered_are_unknown() {
    let only = |transport| EngineConfig { transports: vec![transport], ..EngineConfig::default() };
    let node = Node::with(only(TransportKind::Polling)).await;
    let open = node.get("EIO=4&transport=polling").await.body;
    assert!(open.contains(r#""upgrades":[],"#), "{open}");
    let error = tokio_tungstenite::connect_async(node.url("transport=websocket")).await;
    let Err(tungstenite::Error::Http(response)) = error else { panic!("it should be refused") };
    assert_eq!(response.status(), 400);
    assert_eq!(response.body().as_deref(), Some(&b"Transport unknown"[..]));
    node.stop().await;

    let node = Node::with(only(TransportKind::WebSocket)).await;
    let response = node.get("EIO=4&transport=polling").await;
    assert_eq!(response.body, r#"{"code":0,"message":"Transport unknown"}"#);
    drop(node.websocket().await);
    node.stop().await;
}

#[tokio::test]
async fn upgrades_are_not_offered_when_switched_off() {
    let config = EngineConfig { allow_upgrades: false, ..EngineConfig::default() };
    let node = Node::with(config).await;
    let open = node.get("EIO=4&transport=polling").await.body;
    assert!(open.contains(r#""upgrades":[],"#), "{open}");
    node.stop().await;
}

#[tokio::test]
async fn cookie_comes_with_the_polling_handshake_alone() {
    let cookie = Some(CookieConfig { secure: true, ..CookieConfig::default() });
    let node = Node::with(EngineConfig { cookie, ..EngineConfig::default() }).await;
    let response = node.get("EIO=4&transport=polling").await;
    let sid = node.echo.handshakes.lock().unwrap()[0].sid.clone();
    let expected = format!("io={sid}; Path=/; HttpOnly; Secure; SameSite=Lax");
    assert_eq!(response.headers["set-cookie"], expected);
    assert!(!node.post(&sid, "4hello").await.headers.contains_key("set-cookie"));
    assert!(!node.poll(&sid).await.headers.contains_key("set-cookie"));

    let (ws, response) =
        tokio_tungstenite::connect_async(node.url("transport=websocket")).await.unwrap();
    assert!(!response.headers().contains_key("set-cookie"));
    drop(ws);
    node.stop().await;
}

#[tokio::test]
async fn cookie_is_off_unless_it_is_asked_for() {
    let node = Node::start().await;
    let response = node.get("EIO=4&transport=polling").await;
    assert!(!response.headers.contains_key("set-cookie"));
    node.stop().await;
}

#[tokio::test]
async fn cors_headers_are_on_every_answer() {
    let cors = CorsConfig {
        origin: Origins::Listed(vec!["/\\.example$/".to_owned()]),
        credentials: true,
        exposed_headers: vec!["x-served-by".to_owned()],
        options_success_status: 200,
        ..CorsConfig::default()
    };
    let node = Node::with(EngineConfig { cors: Some(cors), ..EngineConfig::default() }).await;
    let origin = "Origin: https://a.example";
    let opened = "GET /socket.io/?EIO=4&transport=polling HTTP/1.1";
    let refused = "GET /socket.io/?EIO=4&transport=none HTTP/1.1";
    let preflight = "OPTIONS /socket.io/?EIO=4&transport=polling HTTP/1.1";
    for (head, status) in [(opened, 200), (refused, 400), (preflight, 200)] {
        let response = node.request(&format!("{head}\r\n{origin}"), "").await;
        assert_eq!(response.status, status);
        assert_eq!(response.headers["access-control-allow-origin"], "https://a.example");
        assert_eq!(response.headers["access-control-allow-credentials"], "true");
        assert_eq!(response.headers["access-control-expose-headers"], "x-served-by");
        assert!(response.headers["vary"].starts_with("Origin"));
        let other = node.request(&format!("{head}\r\nOrigin: https://b.test"), "").await;
        assert!(!other.headers.contains_key("access-control-allow-origin"));
    }
    node.stop().await;
}

#[tokio::test]
async fn preflight_may_go_on_and_is_a_bad_handshake_then() {
    let cors = CorsConfig { preflight_continue: true, ..CorsConfig::default() };
    let node = Node::with(EngineConfig { cors: Some(cors), ..EngineConfig::default() }).await;
    let head = "OPTIONS /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nOrigin: https://a.example";
    let response = node.request(head, "").await;
    assert_eq!(response.status, 400);
    assert_eq!(response.body, r#"{"code":2,"message":"Bad handshake method"}"#);
    assert_eq!(response.headers["access-control-allow-origin"], "*");
    node.stop().await;
}

#[tokio::test]
async fn long_polls_are_compressed_in_what_the_client_accepts() {
    let node = Node::start().await;
    let sid = node.open().await;
    let text = "so it goes, ".repeat(200);
    for (accepted, encoding) in [("gzip, br", "gzip"), ("deflate", "deflate"), ("br", "")] {
        node.echo.outbox(0).push(message(&text));
        let head = format!(
            "GET /socket.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\nAccept-Encoding: {accepted}"
        );
        let (head, body) = get_bytes(&node, &head).await;
        let named = format!("content-encoding: {encoding}");
        assert_eq!(head.contains("content-encoding"), !encoding.is_empty(), "{head}");
        let mut read = String::new();
        match encoding {
            "gzip" => GzDecoder::new(&*body).read_to_string(&mut read).unwrap(),
            "deflate" => ZlibDecoder::new(&*body).read_to_string(&mut read).unwrap(),
            _ => Read::read_to_string(&mut &*body, &mut read).unwrap(),
        };
        assert!(encoding.is_empty() || head.contains(&named), "{head}");
        assert!(encoding.is_empty() || body.len() < 200, "{} bytes", body.len());
        assert_eq!(read, format!("4{text}"));
    }
    node.stop().await;
}

#[tokio::test]
async fn threshold_and_switch_of_compression_are_kept() {
    let threshold_bytes = 5000;
    let low = Some(CompressionConfig { threshold_bytes, ..CompressionConfig::default() });
    for http_compression in [low, None] {
        let node = Node::with(EngineConfig { http_compression, ..EngineConfig::default() }).await;
        let sid = node.open().await;
        for len in [4998, 4999] {
            node.echo.outbox(0).push(message(&"x".repeat(len)));
            let head = format!(
                "GET /socket.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\nAccept-Encoding: gzip"
            );
            let (head, _) = get_bytes(&node, &head).await;
            let is_compressed = head.contains("content-encoding: gzip");
            // The packet's digit is the 5000th byte.
            assert_eq!(is_compressed, http_compression.is_some() && len == 4999, "{len}: {head}");
        }
        node.stop().await;
    }
}

#[tokio::test]
async fn internet_explorer_is_told_that_packets_are_no_attack() {
    let node = Node::start().await;
    for (agent, header) in [("Mozilla (compatible;MSIE 9)", Some("0")), ("Mozilla", None)] {
        let head =
            format!("GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nUser-Agent: {agent}");
        let response = node.request(&head, "").await;
        assert_eq!(response.headers.get("x-xss-protection").map(String::as_str), header);
    }
    node.stop().await;
}
