//! A simulated client's connection: a socket of one machine, whose outbox it reads.

use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use flotilla::adapter::{Adapter, Encoded, Outbox, OutboxLimits, OutboxPolicy, Phase, Recipient};
use flotilla::raft::state::{SessionId, SocketId};
use flotilla::random::{self, Sequence};

use super::frames::{self, Connect, Packet};
use super::history::{ClientId, Event, History, Label, now_ms};
use super::travel::{self, Traveller};

const LIMITS: OutboxLimits =
    OutboxLimits { max_bytes: 16 << 20, max_packets: 100_000, policy: OutboxPolicy::Disconnect };

/// What is queued for a client that comes back reaches it after so long at most, or not at all.
const LAG_MS: u64 = 40;

pub(super) fn outbox() -> Arc<Outbox> {
    Arc::new(Outbox::new(LIMITS))
}

/// What a client has done, by whatever connection.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) emitted: AtomicU32,
    /// Of its session.
    pub(super) revision: AtomicU64,
}

pub(super) struct Client {
    pub(super) id: ClientId,
    /// How often it had come back when it got this connection.
    visit: u32,
    pub(super) namespace: &'static str,
    pub(super) adapter: Arc<Adapter>,
    pub(super) recipient: Arc<Recipient>,
    pub(super) session: SessionId,
    pub(super) counts: Arc<Counts>,
    pub(super) history: History,
    /// Itself, if it comes back to its socket when it loses a connection.
    traveller: Option<Arc<Traveller>>,
    /// It has been sent its CONNECT.
    is_connected: AtomicBool,
}

impl Client {
    pub(super) fn new(
        adapter: Arc<Adapter>,
        namespace: &'static str,
        machine: usize,
        history: History,
    ) -> Arc<Self> {
        let recipient = Arc::new(Recipient::new(SocketId::random(), outbox()));
        let id = history.start_client(machine, namespace);
        Arc::new(Self {
            id,
            visit: 0,
            namespace,
            adapter,
            recipient,
            session: SessionId::random(),
            counts: Arc::default(),
            history,
            traveller: None,
            is_connected: AtomicBool::new(false),
        })
    }

    pub(super) fn travelling(
        traveller: Arc<Traveller>,
        adapter: Arc<Adapter>,
        recipient: Recipient,
        visit: u32,
        history: &History,
    ) -> Arc<Self> {
        Arc::new(Self {
            id: traveller.id,
            visit,
            namespace: travel::NAMESPACE,
            adapter,
            recipient: Arc::new(recipient),
            session: traveller.session,
            counts: traveller.counts.clone(),
            history: history.clone(),
            traveller: Some(traveller),
            is_connected: AtomicBool::new(false),
        })
    }

    /// Reads what comes, until the connection's end; that is not the client's, if it comes back.
    pub(super) async fn read(self: Arc<Self>) {
        while self.is_open() {
            poll_fn(|context| self.recipient.outbox.poll_pending(context)).await;
            if self.traveller.is_some() {
                tokio::time::sleep(Duration::from_millis(random::number() % LAG_MS)).await;
            }
            self.listen();
            if self.recipient.outbox.closing().is_some()
                || self.recipient.phase() >= Phase::Disconnected
            {
                self.end();
            }
        }
    }

    fn is_open(&self) -> bool {
        match self.traveller {
            Some(_) => self.recipient.phase() < Phase::Disconnected,
            None => self.is_living(),
        }
    }

    /// Takes what is there.
    pub(super) fn listen(&self) {
        for encoded in self.take_pending() {
            self.take(&encoded);
        }
    }

    fn take_pending(&self) -> VecDeque<Arc<Encoded>> {
        let mut pending = VecDeque::new();
        self.recipient.outbox.take_pending(&mut pending);
        pending
    }

    fn take(&self, encoded: &Encoded) {
        for packet in frames::parse(encoded.frames(), self.namespace) {
            match packet {
                Packet::Connect(connect) => self.handle_connect(connect),
                Packet::Event(text, offset) => self.handle_event(label(&text), offset),
                Packet::Disconnect => {}
            }
        }
    }

    fn handle_connect(&self, connect: Connect) {
        self.is_connected.store(true, Ordering::Relaxed);
        if !self.is_living() {
            return;
        }
        let client = self.id;
        if let Some(traveller) = &self.traveller {
            let session = self.recipient.session().unwrap_or(self.session);
            if !traveller.handle_connect(connect) || session != self.session {
                self.history.add(Event::Mistaken { client });
            }
        }
        self.history.add(Event::Connected { client });
    }

    fn handle_event(&self, label: Label, offset: Option<String>) {
        let (client, visit) = (self.id, self.visit);
        if self.is_living() {
            self.history.add(Event::Heard { client, label });
            self.traveller.iter().for_each(|traveller| traveller.handle_offset(offset.clone()));
        } else if self.traveller.is_some() && self.is_connected.load(Ordering::Relaxed) {
            self.history.add(Event::Wasted { client, visit, label });
        }
    }

    /// The client loses its connection, which nobody else notices. Of what is on its way it gets a
    /// part.
    pub(super) fn lose(&self, draw: &mut Sequence) {
        let Some(traveller) = self.traveller.as_ref().filter(|_| self.is_living()) else { return };
        let pending = self.take_pending();
        let arrives = draw.below(pending.len() as u64 + 1) as usize;
        for encoded in pending.iter().take(arrives) {
            self.take(encoded);
        }
        self.history.add(traveller.lose(now_ms()));
    }

    /// The connection ends at its machine. A client that comes back is away by it.
    pub(super) fn end(&self) {
        let Some(traveller) = &self.traveller else { return self.leave() };
        if self.is_living() {
            self.listen();
            self.history.add(traveller.lose(now_ms()));
        }
        self.adapter.lose_connection(&self.recipient);
        self.recipient.outbox.nudge();
    }

    /// The client leaves for good, and says so.
    pub(super) fn leave(&self) {
        if self.is_living() {
            self.listen();
            self.history.add(Event::Ended { client: self.id });
            self.adapter.leave_namespace(&self.recipient);
            self.recipient.outbox.nudge();
        }
    }

    /// Whether it is connected by this, or about to be.
    pub(super) fn is_living(&self) -> bool {
        self.history.is_living(self.id, self.visit)
    }
}

pub(super) fn text(label: Label) -> String {
    format!("{}:{}", label.0, label.1)
}

fn label(text: &str) -> Label {
    let (client, number) = text.split_once(':').expect("a label is client:number");
    let number_of = |text: &str| text.parse().expect("a label has two numbers");
    (number_of(client), number_of(number))
}

/// The connections of one process.
#[derive(Clone, Default)]
pub(super) struct Clients(Arc<Mutex<Connections>>);

/// By client, and how often he had come back.
type Connections = BTreeMap<(ClientId, u32), Arc<Client>>;

impl Clients {
    pub(super) fn add(&self, client: Arc<Client>) {
        self.lock().insert((client.id, client.visit), client);
    }

    pub(super) fn remove(&self, client: &Client) {
        self.lock().remove(&(client.id, client.visit));
    }

    /// Has all of them take what is there.
    pub(super) fn listen(&self) {
        for client in self.all() {
            client.listen();
        }
    }

    fn all(&self) -> Vec<Arc<Client>> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Connections> {
        self.0.lock().expect("nothing panics while it holds the clients")
    }
}
