//! Who connects to the port for nodes, until it has greeted as a node does.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{AbortHandle, Abortable, Aborted, BoxFuture};
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tracing::{debug, warn};

use super::BoxedIo;
use crate::metrics::STRANGERS_REFUSED;

/// What every HTTP/2 connection begins with (RFC 9113, section 3.4); a SETTINGS frame follows.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// With the head of that frame: its length (3 bytes), type, flags and stream (section 4.1).
const GREETING_LEN: usize = PREFACE.len() + 9;
const SETTINGS: u8 = 4;

/// A node greets as soon as it is connected.
const GREETING_TIMEOUT: Duration = Duration::from_secs(5);

/// Connections that have not greeted yet. For one more, the one that was silent for longest is
/// closed: a node that comes in between does not wait for them.
const MAX_STRANGERS: usize = 128;

/// Connections at once, of which each other node has about eight; more wait to be accepted.
const MAX_CONNECTIONS: usize = 512;

/// After a failed accept, such as for want of file descriptors, until the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

type Place = OwnedSemaphorePermit;
type Greeted = (u64, Result<Option<BoxedIo>, Aborted>);

/// Accepts connections, and lets in those that greet.
pub(super) struct Strangers {
    listener: TcpListener,
    places: Arc<Semaphore>,
    waiting: FuturesUnordered<BoxFuture<'static, Greeted>>,
    /// By the order in which they came.
    handles: BTreeMap<u64, AbortHandle>,
    count: u64,
}

impl Strangers {
    pub(super) fn new(listener: TcpListener) -> Self {
        Self {
            listener,
            places: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            waiting: FuturesUnordered::new(),
            handles: BTreeMap::new(),
            count: 0,
        }
    }

    /// The next that has greeted. A connection that fails before (or a lack of file descriptors)
    /// must not end the server, so errors are waited out, not passed on.
    pub(super) async fn next(&mut self) -> BoxedIo {
        loop {
            tokio::select! {
                Some((number, greeted)) = self.waiting.next() => {
                    self.handles.remove(&number);
                    match greeted {
                        Ok(Some(stream)) => return stream,
                        Ok(None) => {}
                        Err(Aborted) => {
                            STRANGERS_REFUSED.silent.add(1);
                            debug!("too many connections to the port for nodes are silent");
                        }
                    }
                }
                (stream, peer, place) = accept(&self.listener, &self.places) => {
                    self.watch(stream, peer, place);
                }
            }
        }
    }

    fn watch(&mut self, stream: TcpStream, peer: SocketAddr, place: Place) {
        if self.handles.len() >= MAX_STRANGERS
            && let Some((_, oldest)) = self.handles.pop_first()
        {
            oldest.abort();
        }
        let number = self.count;
        self.count += 1;
        let (handle, registration) = AbortHandle::new_pair();
        self.handles.insert(number, handle);
        let greeted = Abortable::new(greet(stream, peer, place), registration);
        self.waiting.push(Box::pin(async move { (number, greeted.await) }));
    }
}

/// Cancel-safe.
async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> (TcpStream, SocketAddr, Place) {
    let place = places.clone().acquire_owned().await.expect("it is never closed");
    loop {
        match super::accept(listener).await {
            Ok((stream, peer)) => return (stream, peer, place),
            Err(error) => {
                warn!(%error, "could not accept a node's connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Waits for the greeting; None if something else came, or nothing.
async fn greet(mut stream: TcpStream, peer: SocketAddr, place: Place) -> Option<BoxedIo> {
    match timeout(GREETING_TIMEOUT, read_greeting(&mut stream)).await {
        Ok(Ok(Some(greeting))) => {
            let (reader, writer) = stream.into_split();
            let reader = io::Cursor::new(greeting).chain(reader);
            Some(BoxedIo::placed(tokio::io::join(reader, writer), place))
        }
        Ok(Ok(None)) => {
            STRANGERS_REFUSED.garbage.add(1);
            debug!(%peer, "what came to the port for nodes is no HTTP/2");
            None
        }
        Ok(Err(error)) => {
            debug!(%peer, %error, "a connection to the port for nodes broke before its greeting");
            None
        }
        Err(_elapsed) => {
            STRANGERS_REFUSED.silent.add(1);
            debug!(%peer, "a connection to the port for nodes did not greet in time");
            None
        }
    }
}

/// What the stream begins with, if that is as it should be; None at the first byte that differs.
async fn read_greeting(
    stream: &mut (impl AsyncRead + Unpin),
) -> io::Result<Option<[u8; GREETING_LEN]>> {
    let mut bytes = [0; GREETING_LEN];
    let mut len = 0;
    while len < bytes.len() {
        match stream.read(&mut bytes[len..]).await? {
            0 if len == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            0 => return Ok(None),
            read => len += read,
        }
        if !may_greet(&bytes[..len]) {
            return Ok(None);
        }
    }
    Ok(Some(bytes))
}

/// Whether a greeting may begin so.
fn may_greet(bytes: &[u8]) -> bool {
    let (preface, head) = bytes.split_at(bytes.len().min(PREFACE.len()));
    // The settings, which are no acknowledgement of any, of the whole connection.
    let kind = head.get(3..).unwrap_or_default();
    PREFACE.starts_with(preface) && [SETTINGS, 0, 0, 0, 0, 0].starts_with(kind)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::time::Instant;

    use super::*;

    async fn door() -> (Strangers, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (Strangers::new(listener), address)
    }

    /// As an HTTP/2 client begins that leaves all settings as they are.
    const GREETING: &[u8; GREETING_LEN] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

    async fn closed(mut stream: TcpStream) {
        let mut answer = Vec::new();
        // What was sent and not read makes the end a reset.
        let _ = stream.read_to_end(&mut answer).await;
        assert_eq!(answer, b"");
    }

    #[tokio::test]
    async fn who_greets_is_let_in_with_all_that_it_sent() {
        let (mut door, address) = door().await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        let greets = async {
            // In two parts, the second with what follows.
            stream.write_all(&GREETING[..10]).await.unwrap();
            tokio::task::yield_now().await;
            stream.write_all(&GREETING[10..]).await.unwrap();
            stream.write_all(b"and more").await.unwrap();
        };
        let (mut inside, ()) = tokio::join!(door.next(), greets);
        let mut bytes = [0; GREETING.len() + 8];
        inside.read_exact(&mut bytes).await.unwrap();
        assert_eq!(bytes.strip_prefix(GREETING).unwrap(), b"and more");
        inside.write_all(b"welcome").await.unwrap();
        drop(inside);
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "welcome");
        assert_eq!(door.places.available_permits(), MAX_CONNECTIONS, "its place is free again");
    }

    #[tokio::test]
    async fn other_protocols_are_closed_at_once_and_counted() {
        let (mut door, address) = door().await;
        let before = STRANGERS_REFUSED.garbage.total();
        let unset = [PREFACE.as_slice(), b"\0\0\x08\x06\0\0\0\0\0ping"].concat();
        let nonsense = [PREFACE.as_slice(), b"what is this"].concat();
        let http1 = b"GET / HTTP/1.1\r\n\r\n".as_slice();
        let whole = [http1, &[0xff; 3], &unset, &nonsense].map(|garbage| (garbage, false));
        // What could still become a greeting, and does not.
        let halves = [&GREETING[..23], &GREETING[..30]].map(|garbage| (garbage, true));
        for (garbage, ends) in whole.into_iter().chain(halves) {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(garbage).await.unwrap();
            if ends {
                stream.shutdown().await.unwrap();
            }
            tokio::select! {
                _ = door.next() => panic!("it was let in"),
                () = closed(stream) => {}
            }
        }
        // Who is waited for and says no more is counted as silent.
        assert!(STRANGERS_REFUSED.garbage.total() >= before + 6);
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_or_too_little_is_closed_in_time() {
        for said in [0, 10, PREFACE.len(), GREETING_LEN - 1] {
            let (mut door, address) = door().await;
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(&GREETING[..said]).await.unwrap();
            let began = Instant::now();
            tokio::select! {
                _ = door.next() => panic!("it was let in"),
                () = closed(stream) => {}
            }
            assert!(began.elapsed() >= GREETING_TIMEOUT);
            assert_eq!(door.places.available_permits(), MAX_CONNECTIONS);
        }
    }

    #[tokio::test]
    async fn the_silent_make_way_for_who_greets() {
        let (mut door, address) = door().await;
        let mut silent = Vec::new();
        for _ in 0..MAX_STRANGERS + 20 {
            silent.push(TcpStream::connect(address).await.unwrap());
            let came = door.count;
            while door.count == came {
                tokio::select! {
                    biased;
                    _ = door.next() => panic!("it was let in"),
                    () = tokio::task::yield_now() => {}
                }
            }
        }
        let mut node = TcpStream::connect(address).await.unwrap();
        node.write_all(GREETING).await.unwrap();
        let inside = door.next().await;
        assert!(door.handles.len() < MAX_STRANGERS);
        // The first ones had to go, the last ones may still greet.
        closed(silent.remove(0)).await;
        let mut late = silent.pop().unwrap();
        late.write_all(GREETING).await.unwrap();
        drop((inside, door.next().await));
    }
}
