//! One WebSocket connection of a client, packet by packet.

use std::net::SocketAddr;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::HeaderMap;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use super::PATIENCE;

pub(crate) struct Client {
    stream: WebSocketStream<TcpStream>,
    /// In the namespace that it connected to last.
    pub(crate) id: String,
    pub(crate) answers_pings: bool,
}

/// What comes from the server: Socket.IO text without Engine.IO's digit, or an attachment.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Packet {
    Text(String),
    Binary(Bytes),
    Closed,
}

impl Client {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        Self::open_revision(address, 4).await
    }

    /// A connection of that revision of Engine.IO; its `id` is the sid until it has another one.
    pub(crate) async fn open_revision(address: SocketAddr, revision: u8) -> Self {
        Self::open_by(address, &format!("EIO={revision}"), &[]).await.0
    }

    /// A connection whose handshake has this query and these headers, and the headers of the answer.
    pub(crate) async fn open_by(
        address: SocketAddr,
        query: &str,
        headers: &[(&'static str, &str)],
    ) -> (Self, HeaderMap) {
        let stream = TcpStream::connect(address).await.unwrap();
        let url = format!("ws://{address}/socket.io/?{query}&transport=websocket");
        let mut request = url.into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().append(*name, value.parse().unwrap());
        }
        let (mut stream, response) =
            tokio_tungstenite::client_async(request, stream).await.unwrap();
        let open = stream.next().await.unwrap().unwrap();
        let open = open.to_text().unwrap();
        assert!(open.starts_with("0{"), "{open}");
        let handshake: Value = serde_json::from_str(&open[1..]).unwrap();
        let id = handshake["sid"].as_str().unwrap().to_owned();
        (Self { stream, id, answers_pings: true }, response.into_parts().0.headers)
    }

    /// Joins a namespace; `auth` is JSON, or nothing.
    pub(crate) async fn connect(&mut self, namespace: &str, auth: &str) {
        self.ask(namespace, auth).await;
        self.accepted().await;
    }

    /// Asks for a namespace and waits for no answer.
    pub(crate) async fn ask(&mut self, namespace: &str, auth: &str) {
        let namespace = if namespace == "/" { String::new() } else { format!("{namespace},") };
        self.send(&format!("0{namespace}{auth}")).await;
    }

    /// The next packet is a CONNECT.
    pub(crate) async fn accepted(&mut self) {
        let text = self.text().await;
        let (_, body) = text.split_at(text.find('{').unwrap_or_else(|| panic!("{text}")));
        assert!(text.starts_with('0'), "{text}");
        let body: Value = serde_json::from_str(body).unwrap();
        self.id = body["sid"].as_str().unwrap().to_owned();
    }

    pub(crate) async fn send(&mut self, packet: &str) {
        self.stream.send(Message::text(format!("4{packet}"))).await.unwrap();
    }

    /// Sends one Engine.IO packet as it is.
    pub(crate) async fn send_raw(&mut self, packet: &'static str) {
        self.stream.send(Message::text(packet)).await.unwrap();
    }

    pub(crate) async fn send_binary(&mut self, attachment: &'static [u8]) {
        self.stream.send(Message::binary(attachment)).await.unwrap();
    }

    pub(crate) async fn next(&mut self) -> Packet {
        loop {
            let next = tokio::time::timeout(PATIENCE, self.stream.next()).await;
            match next.expect("the server should send something") {
                Some(Ok(Message::Text(text))) => match text.split_at(1) {
                    ("4", packet) => return Packet::Text(packet.to_owned()),
                    ("2", _) if self.answers_pings => {
                        // If the server has closed in the meantime, that comes next.
                        let _ = self.stream.send(Message::text("3")).await;
                    }
                    ("2", _) => {}
                    _ => panic!("{text}"),
                },
                Some(Ok(Message::Binary(bytes))) => return Packet::Binary(bytes),
                Some(Ok(_control)) => {}
                Some(Err(_)) | None => return Packet::Closed,
            }
        }
    }

    pub(crate) async fn text(&mut self) -> String {
        match self.next().await {
            Packet::Text(text) => text,
            other => panic!("{other:?}"),
        }
    }

    /// The next packet is this one.
    pub(crate) async fn expect(&mut self, packet: &str) {
        assert_eq!(self.text().await, packet);
    }

    pub(crate) async fn expect_binary(&mut self, attachment: &[u8]) {
        assert_eq!(self.next().await, Packet::Binary(Bytes::copy_from_slice(attachment)));
    }

    /// The server closes the connection.
    pub(crate) async fn expect_closed(&mut self) {
        assert_eq!(self.next().await, Packet::Closed);
    }

    /// Everything that the server sent before it came to an event that the server answers at once
    /// (`ping`, which the application acks).
    pub(crate) async fn so_far(&mut self) -> Vec<String> {
        self.send(r#"2999["ping"]"#).await;
        let mut texts = Vec::new();
        loop {
            match self.text().await {
                text if text == "3999[]" => return texts,
                text => texts.push(text),
            }
        }
    }

    /// Asks for an event's ack, which is the next packet; its first argument.
    pub(crate) async fn call(&mut self, event: &Value) -> Value {
        self.send(&format!("2998{event}")).await;
        let text = self.text().await;
        let answer = text.strip_prefix("3998").unwrap_or_else(|| panic!("{text} is no ack"));
        let mut answer: Value = serde_json::from_str(answer).unwrap();
        answer[0].take()
    }

    /// Answers the next packet, which must be an event that asks for it.
    pub(crate) async fn answer(&mut self, event: &str, answer: &str) {
        let text = self.text().await;
        let id: String = text[1..].chars().take_while(char::is_ascii_digit).collect();
        assert!(!id.is_empty(), "{text} wants no ack");
        assert_eq!(text[1 + id.len()..], *event);
        self.send(&format!("3{id}{answer}")).await;
    }
}
