//! A client's stream between two nodes: bytes in and out of one gRPC call.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use flotilla_proto::relay as proto;
use futures_util::Stream as _;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_util::sync::PollSender;
use tonic::{Status, Streaming};

use crate::metrics::Counter;

/// A write takes so much at most.
const MAX_CHUNK_BYTES: usize = 32 << 10;

/// Chunks that wait to be sent; at the bound the tunnel takes no more bytes for now, as a stream
/// whose reader is slow.
const CHUNKS: usize = 4;

/// One end of a tunnel.
///
/// It reads nothing ahead: what its reader leaves, HTTP/2's flow control of this one call keeps
/// at the other end.
pub struct Tunnel {
    inbound: Option<Streaming<proto::Chunk>>,
    unread: Bytes,
    outbound: PollSender<proto::Chunk>,
    /// Called once, when the other end says that it leaves.
    on_leaving: Option<Box<dyn FnOnce() + Send>>,
    counts: Counts,
    _open: Option<Open>,
}

/// Who counts the bytes of a tunnel.
#[derive(Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) received: Option<&'static Counter>,
    pub(super) sent: Option<&'static Counter>,
}

/// Counts a tunnel for as long as it lives.
pub(super) struct Open(Arc<AtomicUsize>);

impl Open {
    pub(super) fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Tells the other end of a tunnel that this one leaves.
pub struct Leaver(mpsc::WeakSender<proto::Chunk>);

impl Leaver {
    /// Waits while the tunnel is full.
    pub async fn leave(&self) {
        let Some(outbound) = self.0.upgrade() else { return };
        // Otherwise the tunnel is closed already.
        let _ = outbound.send(proto::Chunk { leaving: true, ..Default::default() }).await;
    }
}

impl Tunnel {
    /// The queue of what this end sends, its first chunk in it.
    pub(super) fn queue(
        opening: Option<proto::Opening>,
    ) -> (mpsc::Sender<proto::Chunk>, mpsc::Receiver<proto::Chunk>) {
        let (outbound, queue) = mpsc::channel(CHUNKS);
        if opening.is_some() {
            let chunk = proto::Chunk { opening, ..Default::default() };
            outbound.try_send(chunk).expect("a new queue is empty");
        }
        (outbound, queue)
    }

    pub(super) fn new(
        inbound: Streaming<proto::Chunk>,
        outbound: mpsc::Sender<proto::Chunk>,
        counts: Counts,
        open: Option<Open>,
    ) -> Self {
        Self {
            inbound: Some(inbound),
            unread: Bytes::new(),
            outbound: PollSender::new(outbound),
            on_leaving: None,
            counts,
            _open: open,
        }
    }

    /// What to do when the other end leaves; seen by whoever reads.
    pub fn on_leaving(&mut self, call: impl FnOnce() + Send + 'static) {
        self.on_leaving = Some(Box::new(call));
    }

    /// A way to say so to the other end.
    pub fn leaver(&self) -> Leaver {
        let outbound = self.outbound.get_ref().expect("a tunnel is made open");
        Leaver(outbound.downgrade())
    }

    /// Waits until the tunnel takes bytes.
    pub fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outbound.poll_reserve(context).map_err(|_closed| io::ErrorKind::BrokenPipe.into())
    }

    /// Sends bytes, once there [is room](Self::poll_room).
    pub fn send(&mut self, bytes: Bytes) -> io::Result<()> {
        if let Some(sent) = self.counts.sent {
            sent.add(bytes.len() as u64);
        }
        let chunk = proto::Chunk { bytes, ..Default::default() };
        self.outbound.send_item(chunk).map_err(|_closed| io::ErrorKind::BrokenPipe.into())
    }

    /// Sends no more; what was sent still arrives.
    pub fn finish(&mut self) {
        self.outbound.abort_send();
        self.outbound.close();
    }

    /// Bytes from the other end; none at the end.
    pub fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        while self.unread.is_empty() {
            let Some(inbound) = &mut self.inbound else { return Poll::Ready(Ok(Bytes::new())) };
            match ready!(Pin::new(inbound).poll_next(context)) {
                Some(Ok(chunk)) => self.take(chunk),
                Some(Err(status)) => {
                    self.inbound = None;
                    return Poll::Ready(Err(lost(&status)));
                }
                None => self.inbound = None,
            }
        }
        Poll::Ready(Ok(std::mem::take(&mut self.unread)))
    }

    fn take(&mut self, chunk: proto::Chunk) {
        if chunk.leaving
            && let Some(call) = self.on_leaving.take()
        {
            call();
        }
        if let Some(received) = self.counts.received {
            received.add(chunk.bytes.len() as u64);
        }
        self.unread = chunk.bytes;
    }
}

fn lost(status: &Status) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, status.message())
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut bytes = ready!(self.poll_receive(context))?;
        let taken = bytes.len().min(buffer.remaining());
        buffer.put_slice(&bytes[..taken]);
        bytes.advance(taken);
        self.unread = bytes;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_room(context))?;
        let all: usize = slices.iter().map(|slice| slice.len()).sum();
        if all == 0 {
            return Poll::Ready(Ok(0));
        }
        let mut chunk = BytesMut::with_capacity(all.min(MAX_CHUNK_BYTES));
        for slice in slices {
            let room = MAX_CHUNK_BYTES - chunk.len();
            chunk.extend_from_slice(&slice[..slice.len().min(room)]);
        }
        let taken = chunk.len();
        self.send(chunk.freeze())?;
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.finish();
        Poll::Ready(Ok(()))
    }
}
