//! An HTTP client that shows each response as it is.

use std::collections::HashMap;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Node, PATIENCE};

/// A response; the names of its headers are in lower case.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: String,
}

/// Sends a request on a stream of its own, and gives the stream back.
pub(crate) async fn send(address: SocketAddr, head: &str, body: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "{head}\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    stream
}

/// Reads a response to its end.
pub(crate) async fn receive(mut stream: TcpStream) -> Response {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await;
    read.expect("a response should have come").unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) =
        text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no response: {text:?}"));
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines
        .map(|line| line.split_once(": ").unwrap())
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    Response { status, headers, body: body.to_owned() }
}

impl Node {
    pub(crate) async fn request(&self, head: &str, body: &str) -> Response {
        receive(send(self.address, head, body.as_bytes()).await).await
    }

    pub(crate) async fn get(&self, query: &str) -> Response {
        self.request(&format!("GET /socket.io/?{query} HTTP/1.1"), "").await
    }

    /// Opens a connection by polling; gives its sid.
    pub(crate) async fn open(&self) -> String {
        let response = self.get("EIO=4&transport=polling").await;
        assert_eq!(response.status, 200, "{response:?}");
        let open: serde_json::Value = serde_json::from_str(&response.body[1..]).unwrap();
        open["sid"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn poll(&self, sid: &str) -> Response {
        receive(self.begin_poll(sid).await).await
    }

    /// Sends a GET without waiting for its answer.
    pub(crate) async fn begin_poll(&self, sid: &str) -> TcpStream {
        let head = format!("GET /socket.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1");
        send(self.address, &head, b"").await
    }

    /// Sends a GET, and waits until the connection has seen it: it is writable then.
    pub(crate) async fn begin_open_poll(&self, sid: &str) -> TcpStream {
        let index = self.echo.handshakes.lock().unwrap().iter().position(|h| h.sid == sid);
        let outbox = self.echo.outbox(index.expect("the test opened this connection"));
        let stream = self.begin_poll(sid).await;
        super::until("the poll is open", || outbox.is_writable()).await;
        stream
    }

    pub(crate) async fn post(&self, sid: &str, body: &str) -> Response {
        let head = format!("POST /socket.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1");
        self.request(&head, body).await
    }
}
