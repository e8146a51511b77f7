//! What an application says at the door of Engine.IO.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use flotilla::engineio::RequestError;
use flotilla::transport::{ConnectionError, ErrorContext, Exchange, Forbidden, Halt};
use http::request::Parts;
use http::{HeaderMap, HeaderValue};
use support::Node;
use support::http::Response;
use tokio_tungstenite::tungstenite;

const OPEN: &str = "GET /socket.io/?EIO=4&transport=polling HTTP/1.1";

/// The answer to a WebSocket's handshake, whatever it is.
async fn websocket(node: &Node, query: &str) -> http::Response<Option<Vec<u8>>> {
    match tokio_tungstenite::connect_async(node.url(query)).await {
        Ok((_, response)) => response,
        Err(tungstenite::Error::Http(response)) => *response,
        Err(error) => panic!("{error}"),
    }
}

fn token(request: &Parts) -> Option<&str> {
    request.uri.query()?.split('&').find_map(|pair| pair.strip_prefix("token="))
}

#[tokio::test]
async fn application_decides_who_may_connect() {
    let node = Node::start().await;
    node.echo.engine.allow_request(async |request: Parts| {
        // As if a database were asked.
        tokio::task::yield_now().await;
        match token(&request) {
            Some("right") => Ok(()),
            Some(_) => Err("no \"such\" token".into()),
            None => Err(Forbidden::default()),
        }
    });
    let refused = node.get("EIO=4&transport=polling").await;
    let body = r#"{"code":4,"message":"Forbidden"}"#;
    assert_eq!((refused.status, refused.body.as_str()), (403, body));
    let refused = node.get("EIO=4&transport=polling&token=wrong").await;
    let body = r#"{"code":4,"message":"no \"such\" token"}"#;
    assert_eq!((refused.status, refused.body.as_str()), (403, body));
    assert_eq!(refused.headers["content-type"], "application/json");

    let refused = websocket(&node, "transport=websocket&token=wrong").await;
    assert_eq!(refused.status(), 400);
    assert_eq!(refused.body().as_deref(), Some(&b"no \"such\" token"[..]));
    let refused = websocket(&node, "transport=websocket").await;
    assert_eq!(refused.body().as_deref(), Some(&b"Forbidden"[..]));

    assert_eq!(websocket(&node, "transport=websocket&token=right").await.status(), 101);
    let opened = node.get("EIO=4&transport=polling&token=right").await;
    assert_eq!(opened.status, 200);
    let sid = opened.body.split('"').nth(3).unwrap();
    // It is a question about handshakes only.
    assert_eq!(node.post(sid, "4hello").await.body, "ok");
    assert_eq!(node.poll(sid).await.body, "4hello");
    node.stop().await;
}

#[tokio::test]
async fn first_answer_and_every_answer_have_headers_of_the_application() {
    let node = Node::start().await;
    let engine = &node.echo.engine;
    engine.on_initial_headers(|headers: &mut HeaderMap, request: &Parts| {
        headers.insert("x-first", HeaderValue::from_str(request.method.as_str()).unwrap());
    });
    engine.on_headers(|headers: &mut HeaderMap, _request: &Parts| {
        headers.insert("x-each", HeaderValue::from_static("yes"));
        headers.insert("cache-control", HeaderValue::from_static("private"));
    });
    let first = node.request(OPEN, "").await;
    assert_eq!((&*first.headers["x-first"], &*first.headers["x-each"]), ("GET", "yes"));
    assert_eq!(first.headers["cache-control"], "private");
    let sid = first.body.split('"').nth(3).unwrap();
    for later in [node.post(sid, "4hello").await, node.poll(sid).await] {
        assert!(!later.headers.contains_key("x-first"));
        assert_eq!(later.headers["x-each"], "yes");
    }
    let upgrade = websocket(&node, &format!("transport=websocket&sid={sid}")).await;
    assert!(!upgrade.headers().contains_key("x-first"));
    assert_eq!(upgrade.headers()["x-each"], "yes");
    let opened = websocket(&node, "transport=websocket").await;
    assert_eq!(opened.headers()["x-first"], "GET");
    assert_eq!(opened.headers()["x-each"], "yes");
    let refused = node.get("EIO=4&transport=none").await;
    assert!(!refused.headers.contains_key("x-each"));
    node.stop().await;
}

fn told(node: &Node) -> Arc<Mutex<Vec<ConnectionError>>> {
    let errors = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&errors);
    node.echo.engine.on_connection_error(move |error| kept.lock().unwrap().push(error.clone()));
    errors
}

#[tokio::test]
async fn application_is_told_why_a_request_is_refused() {
    let node = Node::start().await;
    let errors = told(&node);
    let sid = node.open().await;
    let ws = node.websocket().await;
    let upgraded = node.echo.handshakes.lock().unwrap()[1].sid.to_string();
    node.echo.engine.allow_request(async |_request: Parts| Err("not today".into()));

    node.get("EIO=4").await;
    node.get("EIO=4&transport=carrier%20pigeon").await;
    node.get("EIO=4&transport=polling&sid=abc").await;
    node.request("DELETE /socket.io/?EIO=4&transport=polling HTTP/1.1", "").await;
    node.get("EIO=4&transport=websocket").await;
    node.get(&format!("EIO=4&transport=polling&sid={upgraded}")).await;
    node.get(&format!("EIO=3&transport=polling&sid={sid}")).await;
    node.get("EIO=4&transport=polling").await;
    let text = |text: &str| text.to_owned();
    let contexts = [
        (RequestError::UnknownTransport, ErrorContext::UnknownTransport { transport: None }),
        (
            RequestError::UnknownTransport,
            ErrorContext::UnknownTransport { transport: Some(text("carrier pigeon")) },
        ),
        (RequestError::UnknownSid, ErrorContext::UnknownSid { sid: text("abc") }),
        (
            RequestError::BadHandshakeMethod,
            ErrorContext::BadHandshakeMethod { method: text("DELETE") },
        ),
        (RequestError::BadRequest, ErrorContext::TransportHandshakeError),
        (
            RequestError::BadRequest,
            ErrorContext::TransportMismatch {
                transport: text("polling"),
                previous_transport: "websocket",
            },
        ),
        (
            RequestError::BadRequest,
            ErrorContext::ProtocolMismatch { protocol: 3, previous_protocol: 4 },
        ),
        (RequestError::Forbidden, ErrorContext::Forbidden { message: Some(text("not today")) }),
    ];
    let errors = std::mem::take(&mut *errors.lock().unwrap());
    assert_eq!(errors.len(), contexts.len(), "{errors:?}");
    for (error, (code, context)) in errors.iter().zip(contexts) {
        assert_eq!((error.code, &error.context), (code, &context));
        assert_eq!(error.message, code.to_string());
        assert_eq!(error.request.uri.path(), "/socket.io/");
    }
    assert_eq!(errors[5].context.name(), Some("TRANSPORT_MISMATCH"));
    drop(ws);
    node.stop().await;
}

#[tokio::test]
async fn application_is_told_of_other_revisions() {
    let node = Node::start().await;
    let errors = told(&node);
    let response = node.get("EIO=3&transport=polling").await;
    assert_eq!(response.body, r#"{"code":5,"message":"Unsupported protocol version"}"#);
    let context = errors.lock().unwrap()[0].context.clone();
    assert_eq!(context, ErrorContext::UnsupportedProtocol { protocol: 3 });
    node.stop().await;
}

#[derive(Clone, Debug, PartialEq)]
struct User(String);

#[tokio::test]
async fn middleware_comes_first_and_in_order() {
    let node = Node::start().await;
    let engine = &node.echo.engine;
    engine.with(async |mut exchange: Exchange| {
        exchange.headers.insert("x-first", HeaderValue::from_static("1"));
        let user = token(&exchange.request).unwrap_or("nobody").to_owned();
        exchange.request.extensions.insert(User(user));
        Ok(exchange)
    });
    engine.with(async |mut exchange: Exchange| {
        tokio::task::yield_now().await;
        let user = exchange.request.extensions.get::<User>().unwrap();
        let user = HeaderValue::from_str(&user.0).unwrap();
        exchange.headers.insert("x-user", user);
        Ok(exchange)
    });
    let opened = node.get("EIO=4&transport=polling&token=ann").await;
    assert_eq!((&*opened.headers["x-first"], &*opened.headers["x-user"]), ("1", "ann"));
    let response = websocket(&node, "transport=websocket&token=bob").await;
    assert_eq!(response.headers()["x-user"], "bob");
    node.transport_has(1).await;
    for (handshake, name) in node.echo.handshakes.lock().unwrap().iter().zip(["ann", "bob"]) {
        assert_eq!(handshake.extensions.get(), Some(&User(name.to_owned())));
    }
    node.stop().await;
}

#[tokio::test]
async fn middleware_may_fail_or_answer_itself() {
    let node = Node::start().await;
    let errors = told(&node);
    node.echo.engine.with(async |exchange: Exchange| match token(&exchange.request) {
        Some("broken") => Err(Halt::Failed),
        Some(_) => Ok(exchange),
        None => {
            let mut response = http::Response::new(Bytes::from("who?"));
            *response.status_mut() = http::StatusCode::UNAUTHORIZED;
            response.headers_mut().insert("www-authenticate", HeaderValue::from_static("Basic"));
            Err(response.into())
        }
    });
    let failed = node.get("EIO=4&transport=polling&token=broken").await;
    let body = r#"{"code":3,"message":"Bad request"}"#;
    assert_eq!((failed.status, failed.body.as_str()), (400, body));
    assert_eq!(errors.lock().unwrap()[0].context, ErrorContext::MiddlewareFailure);
    let failed = websocket(&node, "transport=websocket&token=broken").await;
    assert_eq!(
        (failed.status().as_u16(), failed.body().as_deref()),
        (400, Some(&b"Bad request"[..]))
    );

    node.echo.engine.allow_origin(|_origin| true);
    let asked: Response = node.request(&format!("{OPEN}\r\nOrigin: http://a"), "").await;
    assert_eq!(asked.headers["access-control-allow-origin"], "http://a");
    assert_eq!((asked.status, asked.body.as_str()), (401, "who?"));
    assert_eq!(asked.headers["www-authenticate"], "Basic");
    assert_eq!(websocket(&node, "transport=websocket").await.status(), 401);
    assert_eq!(errors.lock().unwrap().len(), 2);
    assert_eq!(node.get("EIO=4&transport=polling&token=x").await.status, 200);
    node.stop().await;
}

#[tokio::test]
async fn application_judges_origins() {
    let node = Node::start().await;
    node.echo.engine.allow_origin(|origin| origin.is_some_and(|origin| origin.ends_with(".ok")));
    let allowed = node.request(&format!("{OPEN}\r\nOrigin: http://a.ok"), "").await;
    assert_eq!(allowed.headers["access-control-allow-origin"], "http://a.ok");
    assert_eq!(allowed.headers["vary"], "Origin");
    let refused = node.request(&format!("{OPEN}\r\nOrigin: http://a.no"), "").await;
    assert_eq!(refused.status, 200);
    assert!(!refused.headers.contains_key("access-control-allow-origin"));
    let preflight = OPEN.replace("GET", "OPTIONS");
    let answered = node.request(&format!("{preflight}\r\nOrigin: http://a.ok"), "").await;
    assert_eq!(answered.status, 204);
    let unanswered = node.request(&format!("{preflight}\r\nOrigin: http://a.no"), "").await;
    assert_eq!(unanswered.status, 400);
    node.stop().await;
}

#[tokio::test]
async fn engine_counts_its_clients() {
    let node = Node::start().await;
    assert_eq!(node.echo.engine.clients_count(), 0);
    node.open().await;
    let ws = node.websocket().await;
    assert_eq!(node.echo.engine.clients_count(), 2);
    drop(ws);
    node.echo.closed(1).await;
    support::until("the connection is gone", || node.echo.engine.clients_count() == 1).await;
    node.stop().await;
}

#[tokio::test]
async fn engine_tells_of_each_connection_once() {
    let node = Node::start().await;
    let opened = Arc::new(Mutex::new(Vec::new()));
    let telling = opened.clone();
    node.echo.engine.on_connection(move |handshake| {
        assert!(!handshake.url.contains("unwanted"), "the test asked for a panic");
        telling.lock().unwrap().push(handshake.sid.to_string());
    });
    let sid = node.open().await;
    assert_eq!(node.post(&sid, "4once").await.body, "ok");
    assert_eq!(node.poll(&sid).await.body, "4once");
    let mut ws = node.websocket().await;
    ws.send("4by websocket").await;
    assert_eq!(ws.text().await, "4by websocket");
    let handshakes = node.echo.handshakes.lock().unwrap().clone();
    let sids: Vec<_> = handshakes.iter().map(|handshake| handshake.sid.to_string()).collect();
    assert_eq!(*opened.lock().unwrap(), sids);
    // A hook that panics harms nobody else.
    assert_eq!(node.get("EIO=4&transport=polling&unwanted").await.status, 500);
    assert_eq!(node.echo.engine.clients_count(), 2);
    drop(ws);
    node.stop().await;
}
