//! What a handshake says of a client behind proxies.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::net::SocketAddr;

use axum::{Extension, Router};
use flotilla::engineio::TrustProxy;
use flotilla::server::Io;
use tokio::net::TcpListener;

use common::roaming::{self, Roamer};
use common::{TestNode, spawn, start_with};

async fn behind(trust_proxy: &str) -> TestNode {
    let trust_proxy: TrustProxy = serde_json::from_str(trust_proxy).unwrap();
    let change = |config: &mut flotilla::config::Config| config.engine.trust_proxy = trust_proxy;
    start_with("n1", Vec::new(), change, |io: &Io| drop(io.of("/"))).await
}

/// Address and `secure` of a client whose handshake has these headers.
async fn seen(node: &TestNode, headers: &str) -> (String, bool) {
    seen_at(node, node.node.addresses().listen, headers).await
}

async fn seen_at(node: &TestNode, door: SocketAddr, headers: &str) -> (String, bool) {
    let head = format!("GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\n{headers}");
    let answer = roaming::receive(roaming::send(door, &head, b"").await).await;
    let open: serde_json::Value = serde_json::from_str(&answer.body[1..]).unwrap();
    let roamer = Roamer { sid: open["sid"].as_str().unwrap().to_owned() };
    roamer.connect([door, door]).await;
    let sockets = node.io().of("/").sockets();
    let socket = sockets.iter().find(|socket| socket.conn().id() == roamer.sid).unwrap();
    let details = socket.handshake_details();
    assert_eq!(details.address, socket.conn().remote_address().ip().to_string());
    (details.address, details.secure)
}

const FORWARDED: &str = "X-Forwarded-For: 6.6.6.6, 203.0.113.7\r\nX-Forwarded-For: 10.0.0.2\r\n\
     X-Forwarded-Proto: https\r\n";

#[tokio::test]
async fn headers_of_proxies_count_only_if_they_are_trusted() {
    let node = behind("false").await;
    assert_eq!(seen(&node, FORWARDED).await, ("127.0.0.1".to_owned(), false));
    let node = behind(r#"["10.0.0.0/8"]"#).await;
    assert_eq!(seen(&node, FORWARDED).await, ("127.0.0.1".to_owned(), false));
    let node = behind(r#"["10.0.0.0/8", "127.0.0.1"]"#).await;
    assert_eq!(seen(&node, FORWARDED).await, ("203.0.113.7".to_owned(), true));
    assert_eq!(seen(&node, "").await, ("127.0.0.1".to_owned(), false));
    let node = behind("true").await;
    assert_eq!(seen(&node, FORWARDED).await, ("10.0.0.2".to_owned(), true));
    assert!(!seen(&node, "X-Forwarded-Proto: http\r\n").await.1);
}

#[tokio::test]
async fn embedding_application_says_what_came_by_tls() {
    /// In place of what an application knows of its streams.
    #[derive(Clone, Copy)]
    struct Tls(bool);
    let node = behind("false").await;
    for tls in [true, false] {
        let layer = node.node.layer().with_secure(|extensions| {
            extensions.get::<Tls>().is_some_and(|Tls(is_secure)| *is_secure)
        });
        let application: Router = Router::new().layer(layer).layer(Extension(Tls(tls)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let door = listener.local_addr().unwrap();
        spawn(async move { axum::serve(listener, application).await });
        assert_eq!(seen_at(&node, door, "").await.1, tls);
    }
}
