//! A transport with an echoing client above it, and the partners that talk to it.

#![allow(dead_code, reason = "each test crate uses a part of this")]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use flotilla::adapter::{Encoded, Outbox, OutboxLimits};
use flotilla::engineio::{CloseReason, EngineConfig, Message, Packet};
use flotilla::socketio::Payload;
use flotilla::socketio::codec::Kind;
use flotilla::transport::{Accept, Client, Engine, Handshake, Pages, Refusal, Transport};
use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) mod http;

pub(crate) const NODE: u64 = 0x0102_0304_0506;
/// Far beyond what anything here takes; a wait that reaches it has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A node's transport, whose clients echo.
///
/// Text that starts with `!` is an order: `!close`, `!panic`, `!deadline`.
pub(crate) struct Node {
    pub(crate) address: SocketAddr,
    pub(crate) transport: Arc<Transport>,
    pub(crate) echo: Arc<Echo>,
    pub(crate) tasks: TaskTracker,
    pub(crate) shutdown: CancellationToken,
}

#[derive(Default)]
pub(crate) struct Echo {
    pub(crate) outboxes: Mutex<Vec<Arc<Outbox>>>,
    pub(crate) handshakes: Mutex<Vec<Arc<Handshake>>>,
    /// In the order in which connections ended, with what each had received.
    pub(crate) closed: Mutex<Vec<(CloseReason, Vec<String>)>>,
    pub(crate) refusal: Mutex<Option<Refusal>>,
    closed_signal: tokio::sync::Notify,
    pub(crate) wakes: AtomicUsize,
    pub(crate) engine: Arc<Engine>,
}

impl Echo {
    /// The reasons of the first `count` connections that ended.
    pub(crate) async fn closed(&self, count: usize) -> Vec<CloseReason> {
        let wait = async {
            loop {
                let signal = self.closed_signal.notified();
                let reasons: Vec<_> =
                    self.closed.lock().unwrap().iter().map(|(reason, _)| *reason).collect();
                if reasons.len() >= count {
                    return reasons;
                }
                signal.await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| {
            panic!("{count} connections should have ended: {:?}", self.closed.lock().unwrap())
        })
    }

    pub(crate) fn outbox(&self, index: usize) -> Arc<Outbox> {
        Arc::clone(&self.outboxes.lock().unwrap()[index])
    }
}

struct EchoClient {
    echo: Arc<Echo>,
    outbox: Arc<Outbox>,
    received: Vec<String>,
    deadline: Option<Instant>,
}

struct EchoAccept(Arc<Echo>);

impl Accept for EchoAccept {
    fn ready(&self) -> Result<(), Refusal> {
        self.0.refusal.lock().unwrap().map_or(Ok(()), Err)
    }

    fn engine(&self) -> Arc<Engine> {
        Arc::clone(&self.0.engine)
    }

    fn accept(&self, handshake: Arc<Handshake>, outbox: Arc<Outbox>) -> Box<dyn Client> {
        assert!(!handshake.url.contains("panic"), "the test asked for a panic");
        self.0.outboxes.lock().unwrap().push(Arc::clone(&outbox));
        self.0.handshakes.lock().unwrap().push(handshake);
        Box::new(EchoClient {
            echo: Arc::clone(&self.0),
            outbox,
            received: Vec::new(),
            deadline: None,
        })
    }
}

/// A message as it travels.
pub(crate) fn message(text: &str) -> Arc<Encoded> {
    Encoded::engine_text(&Packet::Message(Message::Text(text.into())).to_text())
}

/// A Socket.IO event with two attachments.
pub(crate) fn event_with_attachments() -> Arc<Encoded> {
    let payload = Payload {
        json: r#"["msg",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#.into(),
        attachments: vec![vec![1, 2, 3].into(), vec![255; 200].into()],
    };
    Encoded::packet(Kind::Event, "/", None, &payload)
}

impl EchoClient {
    fn obey(&mut self, order: &str) {
        match order {
            "close" => {
                self.outbox.push(message("bye"));
                self.outbox.close(CloseReason::ForcedServerClose);
            }
            "panic" => panic!("the test asked for a panic"),
            "deadline" => self.deadline = Some(Instant::now()),
            _ => panic!("unknown order {order}"),
        }
    }
}

impl Client for EchoClient {
    fn handle_message(&mut self, received: Message) {
        match received {
            Message::Text(text) => {
                self.received.push(text.to_string());
                match text.strip_prefix('!') {
                    Some(order) => self.obey(order),
                    None => drop(self.outbox.push(message(&text))),
                }
            }
            Message::Binary(bytes) => {
                self.received.push(format!("{bytes:?}"));
                self.outbox
                    .push(Encoded::engine_text(&Packet::Message(Message::Binary(bytes)).to_text()));
            }
        }
    }

    fn handle_wake(&mut self) -> bool {
        self.echo.wakes.fetch_add(1, Ordering::Relaxed);
        false
    }

    fn handle_deadline(&mut self, _now: Instant) {
        self.deadline = None;
        self.outbox.push(message("deadline"));
    }

    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    fn handle_close(&mut self, reason: CloseReason) {
        let received = std::mem::take(&mut self.received);
        self.echo.closed.lock().unwrap().push((reason, received));
        self.echo.closed_signal.notify_waiters();
    }
}

impl Node {
    pub(crate) async fn start() -> Self {
        Self::with(EngineConfig::default()).await
    }

    pub(crate) async fn with(config: EngineConfig) -> Self {
        let limits =
            OutboxLimits { max_bytes: 4_000_000, max_packets: 10_000, ..OutboxLimits::default() };
        Self::with_parts(config, limits, Pages::new()).await
    }

    pub(crate) async fn with_parts(
        config: EngineConfig,
        limits: OutboxLimits,
        pages: Pages,
    ) -> Self {
        config.check().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let echo = Arc::new(Echo::default());
        let tasks = TaskTracker::new();
        let shutdown = CancellationToken::new();
        let transport = Transport::new(
            config,
            NODE,
            limits,
            Arc::new(EchoAccept(Arc::clone(&echo))),
            pages,
            tasks.clone(),
            shutdown.clone(),
        );
        tasks.spawn(Arc::clone(&transport).serve(listener));
        Self { address, transport, echo, tasks, shutdown }
    }

    pub(crate) fn url(&self, query: &str) -> String {
        format!("ws://{}/socket.io/?EIO=4&{query}", self.address)
    }

    /// A WebSocket from scratch, after its open packet.
    pub(crate) async fn websocket(&self) -> Ws {
        let mut ws = self.connect("transport=websocket").await;
        assert!(ws.text().await.starts_with(r#"0{"sid":""#));
        ws
    }

    pub(crate) async fn connect(&self, query: &str) -> Ws {
        let (stream, _) = tokio_tungstenite::connect_async(self.url(query)).await.unwrap();
        Ws(stream)
    }

    /// Waits until so many connections are open.
    pub(crate) async fn transport_has(&self, count: usize) {
        until("the connections are open", || self.transport.connection_count() == count).await;
    }

    /// Waits until no connection is left.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.tasks.close();
        let stopped = tokio::time::timeout(PATIENCE, self.tasks.wait()).await;
        assert!(stopped.is_ok(), "{} tasks are left", self.tasks.len());
        assert_eq!(self.transport.connection_count(), 0);
    }
}

/// Waits until `holds` does.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "{what}: never");
}

/// The client's end of a WebSocket.
pub(crate) struct Ws(pub(crate) WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Ws {
    pub(crate) async fn send(&mut self, text: &str) {
        self.send_message(tungstenite::Message::text(text)).await;
    }

    pub(crate) async fn send_message(&mut self, message: tungstenite::Message) {
        self.0.send(message).await.unwrap();
    }

    /// Sends all of `texts` in one write.
    pub(crate) async fn feed(&mut self, texts: &[&str]) {
        for text in texts {
            self.0.feed(tungstenite::Message::text(*text)).await.unwrap();
        }
        self.0.flush().await.unwrap();
    }

    pub(crate) async fn next(&mut self) -> Result<tungstenite::Message, tungstenite::Error> {
        let next = tokio::time::timeout(PATIENCE, self.0.next()).await;
        next.expect("something should have come")
            .unwrap_or(Err(tungstenite::Error::ConnectionClosed))
    }

    pub(crate) async fn text(&mut self) -> String {
        match self.next().await {
            Ok(tungstenite::Message::Text(text)) => text.to_string(),
            other => panic!("text should have come, not {other:?}"),
        }
    }

    /// The code of the close frame that must come next; 1005 stands for none.
    pub(crate) async fn close_code(&mut self) -> u16 {
        match self.next().await {
            Ok(tungstenite::Message::Close(Some(frame))) => frame.code.into(),
            Ok(tungstenite::Message::Close(None)) => 1005,
            other => panic!("a close frame should have come, not {other:?}"),
        }
    }
}
