//! One HTTP request on a connection of its own: for probes, metrics and long-polling.

use std::io;

use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// What the server answered.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: StatusCode,
    pub body: String,
}

/// Asks for `url`, which is `http://host:port/…`.
pub async fn get(url: &str) -> io::Result<Answer> {
    request(Method::GET, url, Bytes::new()).await
}

/// Posts `body` to `url` as plain text.
pub async fn post(url: &str, body: impl Into<Bytes>) -> io::Result<Answer> {
    request(Method::POST, url, body.into()).await
}

async fn request(method: Method, url: &str, body: Bytes) -> io::Result<Answer> {
    let uri: Uri = url.parse().map_err(io::Error::other)?;
    let authority = uri.authority().ok_or_else(|| io::Error::other("no host in the address"))?;
    let stream = TcpStream::connect(authority.as_str()).await?;
    stream.set_nodelay(true)?;
    let request = Request::builder()
        .method(method)
        .uri(uri.path_and_query().map_or("/", |path| path.as_str()))
        .header("host", authority.as_str())
        .header("connection", "close")
        .header("content-type", "text/plain;charset=UTF-8")
        .body(Full::new(body))
        .map_err(io::Error::other)?;

    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(io::Error::other)?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        Ok::<_, hyper::Error>(Answer { status, body: String::from_utf8_lossy(&body).into_owned() })
    };
    // The connection only moves bytes while it is polled; its own end says nothing that the
    // exchange does not say better.
    let (answer, _ended) = tokio::join!(exchange, connection);
    answer.map_err(io::Error::other)
}
