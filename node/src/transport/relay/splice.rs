//! A client's WebSocket and the tunnel to its connection's owner, joined.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::super::frames::Scratch;
use super::super::websocket::LINGER;
use crate::peers::Tunnel;

/// Passes bytes on in both directions. It reads from either side only what the other one takes at
/// once, but for one chunk; while nothing happens it holds no buffer.
pub(super) struct Splice<S> {
    stream: S,
    tunnel: Tunnel,
    to_owner: Bytes,
    to_client: Bytes,
    /// The client may send more.
    is_open: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Splice<S> {
    /// `from_client` and `from_owner` were read already.
    pub(super) fn new(stream: S, from_client: Bytes, tunnel: Tunnel, from_owner: Bytes) -> Self {
        Self { stream, tunnel, to_owner: from_client, to_client: from_owner, is_open: true }
    }

    /// Runs until the owner has ended the connection, or one side is lost.
    pub(super) async fn run(mut self) -> io::Result<()> {
        poll_fn(|context| {
            if let Poll::Ready(failed @ Err(_)) = self.poll_to_owner(context) {
                return Poll::Ready(failed);
            }
            self.poll_to_client(context)
        })
        .await?;
        // A stream that is dropped with unread bytes in it is reset, and the client would lose
        // what it has not read.
        let _ = tokio::time::timeout(LINGER, poll_fn(|context| self.poll_rest(context))).await;
        Ok(())
    }

    /// Ready when the client has ended its side, and the owner knows.
    fn poll_to_owner(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.is_open {
            ready!(self.tunnel.poll_room(context))?;
            let mut bytes = std::mem::take(&mut self.to_owner);
            if bytes.is_empty() {
                bytes = ready!(self.poll_read(context))?;
            }
            if bytes.is_empty() {
                self.is_open = false;
                self.tunnel.finish();
            } else {
                self.tunnel.send(bytes)?;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Ready when the owner has ended its side, and the client has all of it.
    fn poll_to_client(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            while !self.to_client.is_empty() {
                let stream = Pin::new(&mut self.stream);
                let written = ready!(stream.poll_write(context, &self.to_client))?;
                if written == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.to_client.advance(written);
            }
            self.to_client = ready!(self.tunnel.poll_receive(context))?;
            if self.to_client.is_empty() {
                return Pin::new(&mut self.stream).poll_shutdown(context);
            }
        }
    }

    /// Ready when the client has ended its side. What it still sends concerns nobody.
    fn poll_rest(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.is_open {
            self.is_open = !ready!(self.poll_read(context))?.is_empty();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        let mut scratch = Scratch::take();
        let mut buffer = ReadBuf::new(&mut scratch);
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer))?;
        Poll::Ready(Ok(Bytes::copy_from_slice(buffer.filled())))
    }
}
