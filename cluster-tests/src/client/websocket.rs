//! The client's WebSocket transport.

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::packet::Frame;
use super::{ConnectError, WIRE_CAPACITY, Wire, parse_open};

/// Connects and reads the open packet.
pub(super) async fn open(
    url: &str,
    tasks: &TaskTracker,
    shutdown: &CancellationToken,
) -> Result<Wire, ConnectError> {
    let lost = |error: &dyn std::fmt::Display| ConnectError::Lost(error.to_string());
    let host = url.strip_prefix("http://").ok_or_else(|| lost(&"only http:// is known"))?;
    let stream = TcpStream::connect(host).await.map_err(|error| lost(&error))?;
    stream.set_nodelay(true).map_err(|error| lost(&error))?;
    let address = format!("ws://{host}/socket.io/?EIO=4&transport=websocket");
    let handshake = tokio_tungstenite::client_async(address, stream).await;
    let (stream, _response) = handshake.map_err(|error| match error {
        Error::Http(response) => {
            let body = response.body().as_deref().unwrap_or_default();
            let body = String::from_utf8_lossy(body).into_owned();
            ConnectError::Http(response.status().as_u16(), body)
        }
        other => lost(&other),
    })?;
    let (mut sink, mut stream) = stream.split();
    match stream.next().await {
        Some(Ok(Message::Text(text))) => parse_open(&text)?,
        other => return Err(lost(&format!("no open packet: {other:?}"))),
    };

    let (deliver, incoming) = mpsc::channel(WIRE_CAPACITY);
    tasks.spawn(shutdown.clone().run_until_cancelled_owned(async move {
        while let Some(Ok(message)) = stream.next().await {
            let frame = match message {
                Message::Text(text) => Frame::Text(text.as_str().to_owned()),
                Message::Binary(bytes) => Frame::Binary(bytes),
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
                Message::Close(_) => Frame::Close,
            };
            if deliver.send(frame).await.is_err() {
                break;
            }
        }
    }));
    let (outgoing, mut queue) = mpsc::channel(WIRE_CAPACITY);
    // Not under the token: what was queued before the client was dropped may still leave. The
    // task ends with the session, which owns the other end of the queue.
    tasks.spawn(async move {
        while let Some(frame) = queue.recv().await {
            let message = match frame {
                Frame::Text(text) => Message::text(text),
                Frame::Binary(bytes) => Message::binary(bytes),
                Frame::Close => Message::Close(None),
            };
            if sink.send(message).await.is_err() {
                break;
            }
        }
    });
    Ok(Wire { incoming, outgoing })
}
