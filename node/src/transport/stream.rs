//! What carries a client's bytes: a TCP stream as a rule, or whatever else bytes go in and out of.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::net::{BoxedIo, Io};

/// The stream of one client. A TCP stream costs no more here than it does alone.
pub(crate) enum Stream {
    Tcp(TcpStream),
    Other(Box<Other>),
}

/// A stream that can only be asked with a waker at hand, such as one that another node relays.
pub(crate) struct Other {
    io: BoxedIo,
    room: Arc<Room>,
}

/// Remembers that a stream which took no bytes may take some again, and wakes who waits for it.
#[derive(Default)]
struct Room {
    is_back: AtomicBool,
    task: AtomicWaker,
}

impl Wake for Room {
    fn wake(self: Arc<Self>) {
        self.is_back.store(true, Ordering::Release);
        self.task.wake();
    }
}

impl Stream {
    pub(crate) fn other(io: impl Io + 'static) -> Self {
        Self::Other(Box::new(Other { io: BoxedIo::new(io), room: Arc::default() }))
    }

    /// Writes what the stream takes at once, of one or more slices; `WouldBlock` if that is
    /// nothing. Then [`poll_writable`](Self::poll_writable) tells when to come back.
    pub(crate) fn try_write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match (self, slices) {
            (Self::Tcp(stream), [slice]) => stream.try_write(slice),
            (Self::Tcp(stream), slices) => stream.try_write_vectored(slices),
            (Self::Other(other), slices) => {
                other.now(|io, context| io.poll_write_vectored(context, slices))
            }
        }
    }

    /// Passes on what the stream itself holds back; `WouldBlock` if some of it stays.
    pub(crate) fn try_flush(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(_) => Ok(()),
            Self::Other(other) => other.now(|io, context| io.poll_flush(context)),
        }
    }

    /// Ready once a stream that would have blocked takes bytes again.
    pub(crate) fn poll_writable(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_write_ready(context),
            Self::Other(other) => {
                other.room.task.register(context.waker());
                let is_back = other.room.is_back.swap(false, Ordering::AcqRel);
                if is_back { Poll::Ready(Ok(())) } else { Poll::Pending }
            }
        }
    }

    /// Drops the stream, and with it what its client has not read.
    pub(crate) fn abort(self) {
        if let Self::Tcp(stream) = self {
            // Otherwise the system would go on trying to send it.
            let _ = stream.set_zero_linger();
        }
    }
}

impl Other {
    fn now<T>(
        &mut self,
        poll: impl FnOnce(Pin<&mut BoxedIo>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> io::Result<T> {
        let waker = Waker::from(Arc::clone(&self.room));
        match poll(Pin::new(&mut self.io), &mut Context::from_waker(&waker)) {
            Poll::Ready(result) => result,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Other(other) => Pin::new(&mut other.io).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Other(other) => Pin::new(&mut other.io).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Other(other) => Pin::new(&mut other.io).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::Other(other) => other.io.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Self::Other(other) => Pin::new(&mut other.io).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Other(other) => Pin::new(&mut other.io).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn boxed_stream_blocks_when_full_and_tells_when_there_is_room() {
        let (ours, mut theirs) = tokio::io::duplex(8);
        let mut stream = Stream::other(ours);
        let slices = [IoSlice::new(b"123456"), IoSlice::new(b"78")];
        let mut written = 0;
        while written < 8 {
            let rest = &b"12345678"[written..];
            written += stream.try_write(&[IoSlice::new(rest)]).unwrap();
        }
        let full = stream.try_write(&slices).unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        let is_waiting =
            poll_fn(|context| Poll::Ready(stream.poll_writable(context).is_pending())).await;
        assert!(is_waiting, "nothing was read");

        let mut read = [0; 8];
        theirs.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"12345678");
        poll_fn(|context| stream.poll_writable(context)).await.unwrap();
        assert!(stream.try_write(&slices).unwrap() > 0);
        assert!(stream.try_flush().is_ok());
    }
}
