//! The streams that gRPC between nodes runs on: TCP, or whatever a test puts in its place. Clients' streams are accepted
//! here too.

mod strangers;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OwnedSemaphorePermit;
use tonic::service::Routes;
use tonic::transport::server::Connected;
use tonic::transport::{Channel, Endpoint, Server};

use strangers::Strangers;

/// Something that bytes go in and out of.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A byte stream between two nodes.
pub struct BoxedIo {
    io: Box<dyn Io>,
    /// Among the connections that a port takes at once; free again when the stream is dropped.
    _place: Option<OwnedSemaphorePermit>,
}

impl BoxedIo {
    pub fn new(io: impl Io + 'static) -> Self {
        Self { io: Box::new(io), _place: None }
    }

    fn placed(io: impl Io + 'static, place: OwnedSemaphorePermit) -> Self {
        Self { io: Box::new(io), _place: Some(place) }
    }
}

impl fmt::Debug for BoxedIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BoxedIo")
    }
}

impl AsyncRead for BoxedIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.io).poll_read(context, buf)
    }
}

impl AsyncWrite for BoxedIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.io).poll_write(context, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.io).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.io).poll_write_vectored(context, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

impl Connected for BoxedIo {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

type Dial = dyn Fn(Uri) -> BoxFuture<'static, io::Result<BoxedIo>> + Send + Sync;

/// Opens streams to other nodes.
#[derive(Clone)]
pub struct Dialer(Arc<Dial>);

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dialer")
    }
}

impl Dialer {
    /// A dialer of a test's own: a simulated network, or faults on the real one.
    pub fn new<F, Fut>(dial: F) -> Self
    where
        F: Fn(Uri) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = io::Result<BoxedIo>> + Send + 'static,
    {
        Self(Arc::new(move |uri| Box::pin(dial(uri))))
    }

    /// TCP without Nagle's delay.
    pub fn tcp() -> Self {
        Self::new(|uri| async move {
            let authority = uri
                .authority()
                .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no address"))?;
            Ok(BoxedIo::new(connect(authority.as_str()).await?))
        })
    }

    /// A channel to `host:port` that connects when it is first used, and again when it breaks.
    ///
    /// A peer that stops answering is noticed by HTTP/2 pings within about a second.
    pub fn channel(&self, address: &str) -> Result<Channel, InvalidAddress> {
        self.channel_with(address, WINDOW, WINDOW)
    }

    /// A channel for many streams, some of which nobody reads for a while: each keeps little, and
    /// all of them together cannot use up what the connection may have on its way.
    pub fn channel_of_many(&self, address: &str) -> Result<Channel, InvalidAddress> {
        self.channel_with(address, WINDOW_OF_ONE, WINDOW_OF_MANY)
    }

    fn channel_with(
        &self,
        address: &str,
        stream_window: u32,
        connection_window: u32,
    ) -> Result<Channel, InvalidAddress> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|_| InvalidAddress { address: address.to_owned() })?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .initial_stream_window_size(stream_window)
            .initial_connection_window_size(connection_window);
        let dial = self.0.clone();
        let connector = tower::service_fn(move |uri| {
            let stream = dial(uri);
            async move { stream.await.map(TokioIo::new) }
        });
        Ok(endpoint.connect_with_connector_lazy(connector))
    }
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Whoever calls finds out soon whether anybody is still there.
const PING_INTERVAL: Duration = Duration::from_millis(500);
const PING_TIMEOUT: Duration = Duration::from_millis(1000);
/// Whoever is called only has to give back, one day, what it keeps for a caller that vanished: each ping wakes both
/// nodes, and each timer this one.
const CALLED_PING_INTERVAL: Duration = Duration::from_secs(10);
const CALLED_PING_TIMEOUT: Duration = Duration::from_secs(5);

/// HTTP/2's default of 64 KiB would have a stream wait for an acknowledgement twice a large entry.
const WINDOW: u32 = 4 << 20;

/// What one of many streams may have on its way; 16,000 of them may stand still.
const WINDOW_OF_ONE: u32 = 64 << 10;
const WINDOW_OF_MANY: u32 = 1 << 30;

/// Streams that were opened and given up before this node saw them, at a time: clients that go
/// away end theirs together. HTTP/2's guard against floods cuts the connection beyond.
const MAX_GIVEN_UP: usize = 10_000;

/// A node's address is not `host:port`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{address:?} is not host:port")]
pub struct InvalidAddress {
    pub address: String,
}

/// Streams from other nodes.
pub type Incoming = BoxStream<'static, io::Result<BoxedIo>>;

/// The TCP connections that `listener` accepts, without Nagle's delay, once they have greeted as
/// HTTP/2 clients do. Those that do not are closed, and counted.
pub fn tcp_incoming(listener: TcpListener) -> Incoming {
    let strangers = Strangers::new(listener);
    Box::pin(futures_util::stream::unfold(strangers, |mut strangers| async move {
        Some((Ok(strangers.next().await), strangers))
    }))
}

/// Opens a stream without Nagle's delay: with it, raft is thirty times slower.
async fn connect(address: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The next stream, without Nagle's delay: packets are small, and are written when they should
/// leave. Cancel-safe.
pub(crate) async fn accept(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let (stream, address) = listener.accept().await?;
    // It fails for one that is gone already, which shows at the first read.
    let _ = stream.set_nodelay(true);
    Ok((stream, address))
}

/// Binds the port of the gRPC services.
pub async fn bind(address: &str) -> io::Result<(SocketAddr, TcpListener)> {
    let listener = TcpListener::bind(address).await?;
    Ok((listener.local_addr()?, listener))
}

/// Serves gRPC until `shutdown` resolves; streams that are still open then are cut.
pub async fn serve(
    incoming: impl Stream<Item = io::Result<BoxedIo>> + Send + 'static,
    routes: Routes,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), tonic::transport::Error> {
    let server = Server::builder()
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .http2_keepalive_interval(Some(CALLED_PING_INTERVAL))
        .http2_keepalive_timeout(Some(CALLED_PING_TIMEOUT))
        .http2_max_pending_accept_reset_streams(Some(MAX_GIVEN_UP))
        .add_routes(routes)
        .serve_with_incoming(incoming);
    tokio::select! {
        served = server => served,
        () = shutdown => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nothing_waits_for_more_to_be_written() {
        let (address, listener) = bind("127.0.0.1:0").await.unwrap();
        let (called, calling) =
            tokio::join!(accept(&listener), async { connect(&address.to_string()).await });
        assert!(called.unwrap().0.nodelay().unwrap());
        assert!(calling.unwrap().nodelay().unwrap());
    }
}
