//! The WebSocket handshake, and then frames in and out.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Control};

use crate::adapter::Encoded;
use crate::engineio::{Encoding, Packet};

use super::frames::{FrameReader, FrameWriter, Scratch, close_content};
use super::http_stream::HttpStream;
use super::stream::Stream;

/// An open WebSocket. While nothing happens it holds no buffer.
pub(crate) struct WebSocket {
    stream: Stream,
    pub(crate) reader: FrameReader,
    pub(crate) writer: FrameWriter,
    /// The stream takes no more bytes for now.
    is_stalled: bool,
    client: Side,
}

/// What the client has said of its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Open,
    /// A close frame or the end of the stream came, and nothing comes after it.
    Closed,
    /// Its stream has failed.
    Gone,
}

/// How long a client may take to read the rest and close its side.
pub(crate) const LINGER: Duration = Duration::from_secs(2);

impl WebSocket {
    pub(crate) fn new(stream: Stream, encoding: Encoding, max_message_bytes: usize) -> Self {
        let reader = FrameReader::new(max_message_bytes);
        Self {
            stream,
            reader,
            writer: FrameWriter::new(encoding),
            is_stalled: false,
            client: Side::Open,
        }
    }

    pub(crate) fn encoding(&self) -> Encoding {
        self.writer.encoding()
    }

    pub(crate) fn is_stalled(&self) -> bool {
        self.is_stalled
    }

    /// Reads what has come into a scratch buffer. No bytes mean the end of the stream.
    pub(crate) fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Received>> {
        let mut scratch = Scratch::take();
        let mut buffer = ReadBuf::new(&mut scratch);
        // Unlike `try_read`, this notices that a short read has emptied the stream, and saves a
        // system call at the next wait.
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer))?;
        let len = buffer.filled().len();
        Poll::Ready(Ok(Received { scratch, len }))
    }

    /// The client has sent its last: a close frame, or the end of its stream.
    pub(crate) fn mark_client_closed(&mut self) {
        self.client = Side::Closed;
    }

    /// The client's stream has failed: nobody is there to be told anything.
    pub(crate) fn mark_client_gone(&mut self) {
        self.client = Side::Gone;
    }

    /// Ready once a stalled stream takes bytes again.
    pub(crate) fn poll_writable(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_writable(context)
    }

    /// Writes all that is pending, as far as the stream takes it.
    pub(crate) fn write(&mut self, now: Instant) -> io::Result<()> {
        let stream = &mut self.stream;
        let result = self.writer.write(|slices| stream.try_write(slices), now);
        let result = result.and_then(|()| self.stream.try_flush());
        self.is_stalled = matches!(&result, Err(e) if e.kind() == io::ErrorKind::WouldBlock);
        if self.is_stalled { Ok(()) } else { result }
    }

    /// Writes what is pending and a close frame, then waits a moment for the client to do the
    /// same: a stream that is dropped with unread bytes in it is reset, and the client would lose
    /// what it has not read. A client that has closed its side waits for the stream's end (RFC 6455,
    /// section 7.1.1), and one whose stream has failed for nothing.
    pub(crate) async fn close(mut self, code: Option<CloseCode>, flush_by: Instant) {
        if self.client == Side::Gone {
            return;
        }
        self.writer.pending.push_back(Encoded::control(Control::Close, &close_content(code)));
        if tokio::time::timeout_at(flush_by, self.flush()).await.is_ok_and(|result| result.is_ok())
        {
            if self.client == Side::Open || !matches!(self.stream, Stream::Tcp(_)) {
                let _ = tokio::time::timeout(LINGER, self.read_to_end()).await;
            }
        } else {
            self.abort();
        }
    }

    /// Drops the stream, and with it what the client has not read.
    pub(crate) fn abort(self) {
        self.stream.abort();
    }

    async fn flush(&mut self) -> io::Result<()> {
        loop {
            self.write(Instant::now())?;
            if !self.is_stalled {
                return Ok(());
            }
            poll_fn(|context| self.stream.poll_writable(context)).await?;
        }
    }

    async fn read_to_end(&mut self) -> io::Result<()> {
        self.stream.shutdown().await?;
        while !poll_fn(|context| self.poll_read(context)).await?.is_empty() {}
        Ok(())
    }
}

/// Bytes from a client, in a buffer that belongs to the thread.
pub(crate) struct Received {
    scratch: Scratch,
    len: usize,
}

impl Received {
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        &mut self.scratch[..self.len]
    }
}

/// Whether a request wants another protocol on its stream.
pub(crate) fn is_upgrade(headers: &HeaderMap) -> bool {
    has_token(headers, header::CONNECTION, "upgrade") && headers.contains_key(header::UPGRADE)
}

/// The answer to a valid handshake (RFC 6455, section 4.2); none to others.
pub(crate) fn accept<B>(request: &Request<B>) -> Option<Response<Full<Bytes>>> {
    let headers = request.headers();
    let key = headers.get(header::SEC_WEBSOCKET_KEY)?;
    let is_valid = is_nonce(key.as_bytes())
        && request.method() == Method::GET
        && has_token(headers, header::UPGRADE, "websocket")
        && headers.get(header::SEC_WEBSOCKET_VERSION).is_some_and(|version| version == "13");
    if !is_valid {
        return None;
    }
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    let accept = HeaderValue::try_from(derive_accept_key(key.as_bytes()));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept.expect("base64 is a valid header value"));
    Some(response)
}

/// 16 bytes in base64 (RFC 6455, section 4.1).
fn is_nonce(key: &[u8]) -> bool {
    STANDARD.decode(key).is_ok_and(|nonce| nonce.len() == 16)
}

fn has_token(headers: &HeaderMap, name: header::HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(token))
}

/// The stream under an upgraded request, and what was read of it already.
///
/// It is bare wherever it is TCP: under this node's own listener, under hyper, and under
/// hyper-util's server, which axum has. Any other, such as TLS, stays in hyper's box.
pub(crate) fn into_stream(upgraded: Upgraded) -> (Stream, Bytes) {
    let upgraded = match upgraded.downcast::<TokioIo<HttpStream>>() {
        Ok(parts) => return (parts.io.into_inner().into_inner(), parts.read_buf),
        Err(upgraded) => upgraded,
    };
    let (stream, read_ahead) = match upgraded.downcast::<TokioIo<TcpStream>>() {
        Ok(parts) => (parts.io.into_inner(), parts.read_buf),
        Err(upgraded) => match auto::upgrade::downcast::<TokioIo<TcpStream>>(upgraded) {
            Ok(parts) => (parts.io.into_inner(), parts.read_buf),
            Err(upgraded) => return (Stream::other(TokioIo::new(upgraded)), Bytes::new()),
        },
    };
    // Whoever accepted it need not have thought of it. An error shows at the first read.
    let _ = stream.set_nodelay(true);
    (Stream::Tcp(stream), read_ahead)
}

/// Packets that the transport itself sends.
pub(crate) fn encoded(packet: &Packet) -> Arc<Encoded> {
    Encoded::engine_text(&packet.to_text())
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use hyper::server::conn::http1;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioExecutor;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;
    use tokio_tungstenite::client_async;
    use tokio_util::task::TaskTracker;

    use super::*;

    /// The streams below a hyper server and below one of hyper-util, which axum has.
    async fn upgraded(is_auto: bool) -> Stream {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (streams, mut upgraded) = mpsc::channel(1);
        let service = service_fn(move |mut request: Request<hyper::body::Incoming>| {
            let streams = streams.clone();
            async move {
                let response = accept(&request).unwrap();
                let on_upgrade = hyper::upgrade::on(&mut request);
                TaskTracker::new().spawn(async move {
                    let (stream, _) = into_stream(on_upgrade.await.unwrap());
                    streams.send(stream).await.unwrap_or_default();
                });
                Ok::<_, Infallible>(response)
            }
        });
        TaskTracker::new().spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let stream = TokioIo::new(stream);
            if is_auto {
                let builder = auto::Builder::new(TokioExecutor::new());
                builder.serve_connection_with_upgrades(stream, service).await.unwrap();
            } else {
                let serving = http1::Builder::new().serve_connection(stream, service);
                serving.with_upgrades().await.unwrap();
            }
        });
        let stream = TcpStream::connect(address).await.unwrap();
        client_async(format!("ws://{address}/"), stream).await.unwrap();
        upgraded.recv().await.unwrap()
    }

    /// How long it takes to close a WebSocket whose client does nothing more, and what the client reads.
    async fn closing(mark: impl FnOnce(&mut WebSocket)) -> (Duration, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let mut websocket = WebSocket::new(Stream::Tcp(stream), Encoding::V4, 100);
        mark(&mut websocket);
        let start = Instant::now();
        websocket.close(None, start + LINGER).await;
        let took = start.elapsed();
        let mut read = Vec::new();
        client.read_to_end(&mut read).await.unwrap();
        (took, read)
    }

    #[tokio::test(start_paused = true)]
    async fn client_that_closed_its_side_is_not_waited_for() {
        const CLOSE: &[u8] = &[0x88, 0];
        let (took, read) = closing(|_| {}).await;
        assert!(took >= LINGER, "it may have more to say: {took:?}");
        assert_eq!(read, CLOSE);
        let (took, read) = closing(WebSocket::mark_client_closed).await;
        assert!(took < LINGER, "{took:?}");
        assert_eq!(read, CLOSE);
        let (took, read) = closing(WebSocket::mark_client_gone).await;
        assert!(took < LINGER, "{took:?}");
        assert_eq!(read, b"", "nobody is told anything");
    }

    #[tokio::test]
    async fn stream_below_other_servers_is_bare() {
        for is_auto in [false, true] {
            let Stream::Tcp(stream) = upgraded(is_auto).await else {
                panic!("the stream is still boxed: {is_auto}");
            };
            assert!(stream.nodelay().unwrap());
        }
    }
}
