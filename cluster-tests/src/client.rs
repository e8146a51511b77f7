//! A small Socket.IO 5 client that shares no code with the server: an independent witness.

mod packet;
mod polling;
mod session;
mod websocket;

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::wait;
use packet::Frame;
use session::{Command, Session};

/// How frames travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    WebSocket,
    Polling,
}

/// An event as it arrived. A binary argument is a placeholder `{"_placeholder":true,"num":0}`
/// in `arguments`, and the bytes are in `attachments`.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub name: String,
    pub arguments: Vec<Value>,
    pub attachments: Vec<Bytes>,
    pub at: Instant,
}

/// What an event was acknowledged with.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Ack {
    pub arguments: Vec<Value>,
    pub attachments: Vec<Bytes>,
}

/// Why a client is not connected.
#[derive(Debug)]
pub enum ConnectError {
    /// The server could not be reached, or broke off.
    Lost(String),
    /// The server answered the handshake with this HTTP status and body.
    Http(u16, String),
    /// The namespace answered CONNECT_ERROR with this.
    Refused(Value),
    TimedOut,
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(reason) => write!(f, "lost: {reason}"),
            Self::Http(status, body) => write!(f, "HTTP status {status}: {body}"),
            Self::Refused(reason) => write!(f, "refused: {reason}"),
            Self::TimedOut => f.write_str("no answer in time"),
        }
    }
}

impl std::error::Error for ConnectError {}

/// Why an emit was not confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EmitError {
    /// The server acknowledged it with `{"error": …}`.
    Refused(String),
    /// The connection ended before the ack: nobody knows what became of it.
    Lost,
    /// No ack came in time: nobody knows what became of it.
    TimedOut,
}

/// Who a client wants to be.
#[derive(Debug, Clone)]
pub struct Builder {
    url: String,
    /// Where the requests of a polling client go after its first, in turn.
    roams: Vec<String>,
    namespace: String,
    auth: Option<Value>,
    transport: Transport,
    ack_timeout: Duration,
}

impl Builder {
    pub fn namespace(mut self, namespace: &str) -> Self {
        namespace.clone_into(&mut self.namespace);
        self
    }

    /// The payload of the CONNECT packet.
    pub fn auth(mut self, auth: Value) -> Self {
        self.auth = Some(auth);
        self
    }

    pub fn transport(mut self, transport: Transport) -> Self {
        self.transport = transport;
        self
    }

    /// Polls, each request at the next of these nodes, whoever owns the connection.
    pub fn roaming(mut self, urls: Vec<String>) -> Self {
        self.transport = Transport::Polling;
        self.roams = urls;
        self
    }

    /// How long an emit waits for its ack.
    pub fn ack_timeout(mut self, timeout: Duration) -> Self {
        self.ack_timeout = timeout;
        self
    }

    /// Connects, and returns once the namespace has answered.
    pub async fn connect(self) -> Result<Client, ConnectError> {
        let shutdown = CancellationToken::new();
        let tasks = TaskTracker::new();
        let wire = match self.transport {
            Transport::WebSocket => websocket::open(&self.url, &tasks, &shutdown).await?,
            Transport::Polling => polling::open(&self.url, self.roams, &tasks, &shutdown).await?,
        };
        let (commands, command_queue) = mpsc::channel(1024);
        let (state, mut states) = watch::channel(State::Connecting);
        let log: Arc<Log> = Arc::default();
        let session = Session::new(self.namespace, self.auth, wire, Arc::clone(&log), state);
        let guard = shutdown.clone().drop_guard();
        tasks.spawn(shutdown.run_until_cancelled_owned(session.run(command_queue)));

        let settled = states.wait_for(|state| !matches!(state, State::Connecting));
        let settled = tokio::time::timeout(wait::PATIENCE, settled).await;
        let settled = settled.map_err(|_elapsed| ConnectError::TimedOut)?;
        let settled = settled.map_or_else(|_gone| State::Closed("gone".to_owned()), |s| s.clone());
        match settled {
            State::Connected(id, pid) => Ok(Client {
                id,
                pid,
                ack_timeout: self.ack_timeout,
                commands,
                states,
                log,
                _guard: guard,
            }),
            State::Refused(reason) => Err(ConnectError::Refused(reason)),
            State::Closed(reason) => Err(ConnectError::Lost(reason)),
            State::Connecting => unreachable!("waited until it was over"),
        }
    }
}

/// A connected client. It does not reconnect; dropping it breaks its connection off.
#[derive(Debug)]
pub struct Client {
    id: String,
    pid: Option<String>,
    ack_timeout: Duration,
    commands: mpsc::Sender<Command>,
    states: watch::Receiver<State>,
    log: Arc<Log>,
    _guard: DropGuard,
}

#[derive(Debug, Clone, PartialEq)]
enum State {
    Connecting,
    /// With its id, and its private one if it may come back with that.
    Connected(String, Option<String>),
    Refused(Value),
    Closed(String),
}

/// All events in the order in which they came.
#[derive(Debug, Default)]
struct Log(Mutex<Vec<Event>>);

impl Log {
    fn push(&self, event: Event) {
        self.0.lock().expect("no panic under this lock").push(event);
    }

    fn read<T>(&self, look: impl FnOnce(&[Event]) -> T) -> T {
        look(&self.0.lock().expect("no panic under this lock"))
    }
}

impl Client {
    /// A client over WebSocket in the main namespace, unless it is told otherwise.
    pub fn builder(url: &str) -> Builder {
        Builder {
            url: url.to_owned(),
            roams: Vec::new(),
            namespace: "/".to_owned(),
            auth: None,
            transport: Transport::WebSocket,
            ack_timeout: wait::PATIENCE,
        }
    }

    pub async fn connect(url: &str) -> Result<Self, ConnectError> {
        Self::builder(url).connect().await
    }

    /// The Socket.IO id that the server gave.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What to come back with, in a recoverable namespace.
    pub fn pid(&self) -> Option<&str> {
        self.pid.as_deref()
    }

    pub fn is_connected(&self) -> bool {
        matches!(*self.states.borrow(), State::Connected(..))
    }

    /// Waits until the connection has ended, and says how.
    pub async fn closed(&self) -> String {
        wait::until("the client's connection to end", async || match &*self.states.borrow() {
            State::Closed(reason) => Ok(reason.clone()),
            other => Err(other.clone()),
        })
        .await
    }

    /// Resolves once the connection has ended, however long that takes.
    pub async fn ended(&self) {
        let mut states = self.states.clone();
        // The sender goes with the connection.
        let _ = states.wait_for(|state| matches!(state, State::Closed(_))).await;
    }

    /// Emits without asking for an ack. Fails only when the connection has ended.
    pub async fn emit(&self, event: &str, arguments: &[Value]) -> Result<(), EmitError> {
        self.send(event, arguments, Vec::new(), None).await
    }

    /// Emits arguments that have placeholders for `attachments`, without asking for an ack.
    pub async fn emit_binary(
        &self,
        event: &str,
        arguments: &[Value],
        attachments: Vec<Bytes>,
    ) -> Result<(), EmitError> {
        self.send(event, arguments, attachments, None).await
    }

    /// Emits and returns the ack's arguments.
    pub async fn call(&self, event: &str, arguments: &[Value]) -> Result<Vec<Value>, EmitError> {
        Ok(self.call_binary(event, arguments, Vec::new()).await?.arguments)
    }

    pub async fn call_binary(
        &self,
        event: &str,
        arguments: &[Value],
        attachments: Vec<Bytes>,
    ) -> Result<Ack, EmitError> {
        let (answer, answered) = oneshot::channel();
        self.send(event, arguments, attachments, Some(answer)).await?;
        match tokio::time::timeout(self.ack_timeout, answered).await {
            Ok(Ok(ack)) => Ok(ack),
            Ok(Err(_gone)) => Err(EmitError::Lost),
            Err(_elapsed) => Err(EmitError::TimedOut),
        }
    }

    /// Emits, and returns `Ok` only when the server confirms: an ack without `{"error": …}`.
    pub async fn confirm(&self, event: &str, arguments: &[Value]) -> Result<(), EmitError> {
        let answer = self.call(event, arguments).await?;
        match answer.first().and_then(|first| first.get("error")) {
            Some(Value::String(error)) => Err(EmitError::Refused(error.clone())),
            Some(error) => Err(EmitError::Refused(error.to_string())),
            None => Ok(()),
        }
    }

    /// All events so far, in the order in which they came.
    pub fn events(&self) -> Vec<Event> {
        self.log.read(<[Event]>::to_vec)
    }

    /// The first arguments of all events of this name so far.
    pub fn received(&self, event: &str) -> Vec<Value> {
        self.log.read(|events| {
            let named = events.iter().filter(|one| one.name == event);
            named.filter_map(|one| one.arguments.first().cloned()).collect()
        })
    }

    /// Waits until `count` events of this name have come; returns their first arguments.
    pub async fn wait_received(&self, event: &str, count: usize) -> Vec<Value> {
        wait::until(&format!("{count} events {event:?} at {}", self.id), async || {
            let received = self.received(event);
            if received.len() >= count { Ok(received) } else { Err(received.len()) }
        })
        .await
    }

    /// Leaves the namespace and closes the connection in good order.
    pub async fn disconnect(self) {
        // A connection that has ended already needs no goodbye.
        if self.commands.send(Command::Disconnect).await.is_ok() {
            self.closed().await;
        }
    }

    async fn send(
        &self,
        event: &str,
        arguments: &[Value],
        attachments: Vec<Bytes>,
        answer: Option<oneshot::Sender<Ack>>,
    ) -> Result<(), EmitError> {
        let mut data = vec![Value::from(event)];
        data.extend_from_slice(arguments);
        let command = Command::Emit { data: Value::Array(data), attachments, answer };
        self.commands.send(command).await.map_err(|_closed| EmitError::Lost)
    }
}

/// Both directions of an open Engine.IO connection. `incoming` ends when the connection does.
struct Wire {
    incoming: mpsc::Receiver<Frame>,
    outgoing: mpsc::Sender<Frame>,
}

/// Frames that wait between a transport and the session; at the bound, the one that fills it
/// waits, and TCP makes the server wait.
const WIRE_CAPACITY: usize = 1024;

// The open packet's sid; the rest of the handshake is the server's own business.
fn parse_open(frame: &str) -> Result<String, ConnectError> {
    let broken = || ConnectError::Lost(format!("not an open packet: {frame}"));
    let open = frame.strip_prefix('0').ok_or_else(broken)?;
    let open: Value = serde_json::from_str(open).map_err(|_not_json| broken())?;
    open["sid"].as_str().map(str::to_owned).ok_or_else(broken)
}
