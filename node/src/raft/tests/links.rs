//! TCP between test nodes that can be cut.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::net::{BoxedIo, Dialer};

/// Which nodes cannot reach which: by address, in the direction of dialing.
#[derive(Clone, Default)]
pub(super) struct Links {
    cut: Arc<Mutex<HashSet<(SocketAddr, SocketAddr)>>>,
    /// How often a node ran into a cut.
    felt: Arc<AtomicUsize>,
}

impl Links {
    /// What `from` dials with.
    pub(super) fn dialer(&self, from: SocketAddr) -> Dialer {
        let links = self.clone();
        Dialer::new(move |uri| {
            let links = links.clone();
            async move {
                let to: SocketAddr = uri.authority().unwrap().as_str().parse().unwrap();
                let link = Link { links, from, to };
                link.check()?;
                let stream = TcpStream::connect(to).await?;
                stream.set_nodelay(true)?;
                Ok(BoxedIo::new(LinkedStream { link, stream }))
            }
        })
    }

    /// Cuts every link of `node`, those that are open too.
    pub(super) fn isolate(&self, node: SocketAddr, all: &[SocketAddr]) {
        let mut cut = self.cut.lock().unwrap();
        for other in all.iter().filter(|other| **other != node) {
            cut.insert((node, *other));
            cut.insert((*other, node));
        }
    }

    pub(super) fn cut(&self, from: SocketAddr, to: SocketAddr) {
        self.cut.lock().unwrap().insert((from, to));
    }

    pub(super) fn felt(&self) -> usize {
        self.felt.load(Ordering::Relaxed)
    }

    pub(super) fn heal(&self) {
        self.cut.lock().unwrap().clear();
    }
}

struct Link {
    links: Links,
    from: SocketAddr,
    to: SocketAddr,
}

impl Link {
    fn check(&self) -> io::Result<()> {
        if self.links.cut.lock().unwrap().contains(&(self.from, self.to)) {
            self.links.felt.fetch_add(1, Ordering::Relaxed);
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Ok(())
    }
}

/// Notices a cut when it is used next; HTTP/2's pings see to that.
struct LinkedStream {
    link: Link,
    stream: TcpStream,
}

impl AsyncRead for LinkedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let filled = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buf);
        if let Err(error) = self.link.check() {
            // What came in the meantime is lost.
            buf.set_filled(filled);
            return Poll::Ready(Err(error));
        }
        polled
    }
}

impl AsyncWrite for LinkedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.link.check()?;
        Pin::new(&mut self.stream).poll_write(context, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
