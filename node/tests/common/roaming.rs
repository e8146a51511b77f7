//! A client that polls, each request on a stream of its own to the node that the test names.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::PATIENCE;

/// One Engine.IO connection.
pub(crate) struct Roamer {
    pub(crate) sid: String,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// In the order in which they came, names in lower case, without the date.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn packets(&self) -> Vec<String> {
        assert_eq!(self.status, 200, "{self:?}");
        self.body.split('\x1e').map(str::to_owned).collect()
    }
}

impl Roamer {
    /// Opens a connection at `node`, which owns it.
    pub(crate) async fn open(node: SocketAddr) -> Self {
        let head = "GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\n";
        let answer = receive(send(node, head, b"").await).await;
        let open: Value = serde_json::from_str(&answer.body[1..]).unwrap();
        Self { sid: open["sid"].as_str().unwrap().to_owned() }
    }

    pub(crate) fn head(&self, method: &str) -> String {
        format!("{method} /socket.io/?EIO=4&transport=polling&sid={} HTTP/1.1\r\n", self.sid)
    }

    /// Sends a GET to `node`, and waits for no answer.
    pub(crate) async fn begin_poll(&self, node: SocketAddr) -> TcpStream {
        send(node, &self.head("GET"), b"").await
    }

    pub(crate) async fn poll(&self, node: SocketAddr) -> Answer {
        receive(self.begin_poll(node).await).await
    }

    pub(crate) async fn post(&self, node: SocketAddr, body: &str) -> Answer {
        receive(send(node, &self.head("POST"), body.as_bytes()).await).await
    }

    /// Posts packets that must be taken.
    pub(crate) async fn say(&self, node: SocketAddr, body: &str) {
        let answer = self.post(node, body).await;
        assert_eq!((answer.status, &*answer.body), (200, "ok"), "{answer:?}");
    }

    /// Joins the main namespace, by requests to these two nodes.
    pub(crate) async fn connect(&self, nodes: [SocketAddr; 2]) {
        self.say(nodes[0], "40").await;
        let packets = self.poll(nodes[1]).await.packets();
        assert!(packets[0].starts_with("40{"), "{packets:?}");
    }
}

/// Sends a request on a stream of its own. `head` are complete lines.
pub(crate) async fn send(node: SocketAddr, head: &str, body: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(node).await.unwrap();
    let framing =
        format!("Host: {node}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(format!("{head}{framing}").as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    stream
}

/// Reads a response to its end.
pub(crate) async fn receive(mut stream: TcpStream) -> Answer {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await;
    read.expect("a response should have come").unwrap();
    // A compressed body is no text, but as good to compare.
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) =
        text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no response: {text:?}"));
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines
        .map(|line| line.split_once(": ").unwrap())
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .filter(|(name, _)| name != "date");
    Answer { status, headers: headers.collect(), body: body.to_owned() }
}
