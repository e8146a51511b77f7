//! One client of the load generator: a TCP stream, and as little else as can be.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Poll, Waker};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::oneshot;

use super::frames;
use super::inbox::{Inbox, Message};

/// How the namespace is written in packets: nothing for the main one, else `/name,`.
pub(super) fn packet_namespace(namespace: &str) -> String {
    if namespace == "/" { String::new() } else { format!("{namespace},") }
}

/// A connected client.
#[derive(Debug)]
pub(super) struct Link {
    index: u32,
    /// The Socket.IO id that the server gave.
    pub(super) id: String,
    namespace: Rc<str>,
    writer: RefCell<OwnedWriteHalf>,
    // What the stream did not take at once; the reading task sends it when the stream is ready.
    backlog: RefCell<Vec<u8>>,
    reading_task: RefCell<Waker>,
    ack: RefCell<Option<oneshot::Sender<bool>>>,
    closing: Cell<bool>,
    inbox: Rc<Inbox>,
}

/// The half of a link that its reading task owns.
#[derive(Debug)]
pub(super) struct Receiving {
    link: Rc<Link>,
    reader: OwnedReadHalf,
    // The beginning of a frame whose end has not come; empty at most times.
    partial: Vec<u8>,
}

// Room for everything that a socket's receive buffer usually holds, shared by all links.
const SCRATCH_BYTES: usize = 256 * 1024;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH_BYTES]);
}

/// Connects client `index` to `host` and to the namespace.
pub(super) async fn connect(
    index: u32,
    host: &str,
    namespace: Rc<str>,
    inbox: Rc<Inbox>,
) -> io::Result<(Rc<Link>, Receiving)> {
    let mut stream = TcpStream::connect(host).await?;
    stream.set_nodelay(true)?;
    let request = format!(
        "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: {host}\r\n\
         Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut opening = Opening { stream, bytes: Vec::new() };
    opening.http_head().await?;
    let open = opening.packet().await?;
    if !open.starts_with('0') {
        return Err(io::Error::other(format!("not an open packet: {open}")));
    }
    opening.send(&format!("40{namespace}")).await?;
    let answer = opening.packet().await?;
    let connected = answer.strip_prefix("40").and_then(|rest| rest.strip_prefix(&*namespace));
    let connected: serde_json::Value =
        connected.and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default();
    let id =
        connected["sid"].as_str().ok_or_else(|| io::Error::other(format!("refused: {answer}")))?;
    let id = id.to_owned();

    let (reader, writer) = opening.stream.into_split();
    let link = Rc::new(Link {
        index,
        id,
        namespace,
        writer: RefCell::new(writer),
        backlog: RefCell::default(),
        reading_task: RefCell::new(Waker::noop().clone()),
        ack: RefCell::default(),
        closing: Cell::new(false),
        inbox,
    });
    Ok((Rc::clone(&link), Receiving { link, reader, partial: opening.bytes }))
}

/// A stream on which the handshake goes on, and what was read beyond it.
struct Opening {
    stream: TcpStream,
    bytes: Vec<u8>,
}

impl Opening {
    async fn http_head(&mut self) -> io::Result<()> {
        let end = loop {
            if let Some(end) = self.bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            self.more().await?;
        };
        let head: Vec<u8> = self.bytes.drain(..end).collect();
        let status = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
        if status.starts_with(b"HTTP/1.1 101") {
            return Ok(());
        }
        Err(io::Error::other(format!("no upgrade: {}", String::from_utf8_lossy(status))))
    }

    async fn packet(&mut self) -> io::Result<String> {
        loop {
            let frame = frames::read(&self.bytes).map_err(unsupported)?;
            if let Some(frames::Frame { opcode: frames::TEXT, payload, length }) = frame {
                let text = String::from_utf8_lossy(payload).into_owned();
                self.bytes.drain(..length);
                // Some servers send their first ping at once.
                if text == "2" {
                    self.send("3").await?;
                    continue;
                }
                return Ok(text);
            }
            if frame.is_some() {
                return Err(io::Error::other("the handshake was broken off"));
            }
            self.more().await?;
        }
    }

    async fn send(&mut self, packet: &str) -> io::Result<()> {
        let mut bytes = Vec::new();
        frames::write(frames::TEXT, packet.as_bytes(), &mut bytes);
        self.stream.write_all(&bytes).await
    }

    async fn more(&mut self) -> io::Result<()> {
        let read = self.stream.read_buf(&mut self.bytes).await?;
        if read == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }
}

fn unsupported(_: frames::Unsupported) -> io::Error {
    io::Error::other("a frame that this client does not read")
}

impl Link {
    pub(super) fn index(&self) -> u32 {
        self.index
    }

    /// Emits an event; `arguments` is JSON, without the brackets around it.
    pub(super) fn emit(&self, event: &str, arguments: &str) {
        self.send(&format!("42{}[\"{event}\",{arguments}]", self.namespace));
    }

    /// Emits an event and waits for its ack; false if that says `{error: …}` or never comes.
    pub(super) async fn call(&self, event: &str, arguments: &str) -> bool {
        let (answer, answered) = oneshot::channel();
        self.ack.replace(Some(answer));
        // One call at a time: each may have the same id.
        self.send(&format!("42{}0[\"{event}\",{arguments}]", self.namespace));
        answered.await.unwrap_or(false)
    }

    /// Says goodbye; the server closes the stream then.
    pub(super) fn close(&self) {
        const NORMAL: [u8; 2] = 1000_u16.to_be_bytes();
        self.closing.set(true);
        self.send_frame(frames::CLOSE, &NORMAL);
    }

    fn send(&self, packet: &str) {
        self.send_frame(frames::TEXT, packet.as_bytes());
    }

    fn send_frame(&self, opcode: u8, payload: &[u8]) {
        let mut backlog = self.backlog.borrow_mut();
        let idle = backlog.is_empty();
        frames::write(opcode, payload, &mut backlog);
        if idle {
            self.flush(&mut backlog);
            if !backlog.is_empty() {
                // The reading task waits for the stream to take more, and flushes then.
                self.reading_task.borrow().wake_by_ref();
            }
        }
    }

    fn flush(&self, backlog: &mut Vec<u8>) {
        while !backlog.is_empty() {
            match self.writer.borrow().try_write(backlog) {
                Ok(written) => drop(backlog.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // The reading task meets the same end, and counts it.
                Err(_broken) => backlog.clear(),
            }
        }
    }

    fn handle_packet(&self, packet: &[u8], now: u64) -> Result<(), Unexpected> {
        match packet {
            [b'4', b'2', rest @ ..] => self.handle_event(rest, now),
            [b'4', b'3', rest @ ..] => self.handle_ack(rest),
            [b'2'] => {
                self.send("3");
                Ok(())
            }
            [b'6'] => Ok(()),
            _ => Err(Unexpected),
        }
    }

    // Reads only what it needs of `["msg","sender:number:micros:…"]`, where it must be.
    fn handle_event(&self, packet: &[u8], now: u64) -> Result<(), Unexpected> {
        let data = packet.strip_prefix(self.namespace.as_bytes()).ok_or(Unexpected)?;
        let data = data.strip_prefix(b"[\"msg\",\"").ok_or(Unexpected)?;
        let (sender, data) = number(data)?;
        let (number_, data) = number(data)?;
        let (sent_at, _padding) = number(data)?;
        let sender = u32::try_from(sender).map_err(|_too_big| Unexpected)?;
        self.inbox.arrived(self.index, Message { sender, number: number_ }, sent_at, now);
        Ok(())
    }

    fn handle_ack(&self, packet: &[u8]) -> Result<(), Unexpected> {
        let data = packet.strip_prefix(self.namespace.as_bytes()).ok_or(Unexpected)?;
        let data = data.strip_prefix(b"0").ok_or(Unexpected)?;
        let refused = data.starts_with(b"[{\"error\"");
        if refused {
            self.inbox.count(|counts| counts.refused += 1);
        }
        let waiting = self.ack.take().ok_or(Unexpected)?;
        // Whoever waited may have been stopped.
        waiting.send(!refused).ok();
        Ok(())
    }
}

/// A packet that the scenario does not lead to; the link is given up.
struct Unexpected;

// Digits up to a colon, and what follows it.
fn number(bytes: &[u8]) -> Result<(u64, &[u8]), Unexpected> {
    let mut value = 0_u64;
    for (place, byte) in bytes.iter().enumerate() {
        match byte {
            b'0'..=b'9' => value = value.wrapping_mul(10).wrapping_add(u64::from(byte - b'0')),
            b':' => return Ok((value, &bytes[place + 1..])),
            _ => return Err(Unexpected),
        }
    }
    Err(Unexpected)
}

impl Receiving {
    /// Reads until the connection ends, and counts an end that nobody asked for.
    pub(super) async fn run(mut self) {
        poll_fn(|cx| {
            self.link.reading_task.replace(cx.waker().clone());
            Poll::Ready(())
        })
        .await;
        let mut open = self.consume_partial();
        while open {
            open = self.receive().await;
        }
        self.link.ack.take();
        if !self.link.closing.get() {
            self.link.inbox.count(|counts| counts.broken += 1);
        }
    }

    // One read for each time the stream is ready, into memory that all links share.
    async fn receive(&mut self) -> bool {
        poll_fn(|cx| {
            let backlog = &self.link.backlog;
            if !backlog.borrow().is_empty() {
                let ready = self.link.writer.borrow().as_ref().poll_write_ready(cx);
                if ready.is_ready() {
                    self.link.flush(&mut backlog.borrow_mut());
                }
            }
            SCRATCH.with_borrow_mut(|scratch| {
                let mut buffer = ReadBuf::new(scratch);
                match Pin::new(&mut self.reader).poll_read(cx, &mut buffer) {
                    Poll::Pending => Poll::Pending,
                    Poll::Ready(Err(_broken)) => Poll::Ready(false),
                    Poll::Ready(Ok(())) if buffer.filled().is_empty() => Poll::Ready(false),
                    Poll::Ready(Ok(())) => Poll::Ready(self.handle_bytes(buffer.filled())),
                }
            })
        })
        .await
    }

    fn handle_bytes(&mut self, bytes: &[u8]) -> bool {
        if self.partial.is_empty() {
            return match handle_frames(&self.link, bytes) {
                Ok(taken) => {
                    self.partial.extend_from_slice(&bytes[taken..]);
                    true
                }
                Err(Unexpected) => false,
            };
        }
        self.partial.extend_from_slice(bytes);
        self.consume_partial()
    }

    fn consume_partial(&mut self) -> bool {
        match handle_frames(&self.link, &self.partial) {
            Ok(taken) => {
                self.partial.drain(..taken);
                true
            }
            Err(Unexpected) => false,
        }
    }
}

// Handles all complete frames and says how many bytes they were.
fn handle_frames(link: &Link, bytes: &[u8]) -> Result<usize, Unexpected> {
    let now = link.inbox.micros();
    let mut taken = 0;
    while let Some(frame) = frames::read(&bytes[taken..]).map_err(|_unsupported| Unexpected)? {
        match frame.opcode {
            frames::TEXT => link.handle_packet(frame.payload, now)?,
            frames::PING => link.send_frame(frames::PONG, frame.payload),
            frames::PONG => {}
            _ => return Err(Unexpected),
        }
        taken += frame.length;
    }
    Ok(taken)
}
