//! A simulated client: a socket of one machine, whose outbox it reads.

use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard};

use flotilla::adapter::{Adapter, Outbox, OutboxLimits, OutboxPolicy, Phase, Recipient};
use flotilla::raft::state::{SessionId, SocketId};

use super::frames::{self, Packet};
use super::history::{ClientId, Event, History, Label};

const LIMITS: OutboxLimits =
    OutboxLimits { max_bytes: 16 << 20, max_packets: 100_000, policy: OutboxPolicy::Disconnect };

pub(super) struct Client {
    pub(super) id: ClientId,
    pub(super) namespace: &'static str,
    pub(super) adapter: Arc<Adapter>,
    pub(super) recipient: Arc<Recipient>,
    pub(super) session: SessionId,
    pub(super) history: History,
}

impl Client {
    pub(super) fn new(
        adapter: Arc<Adapter>,
        namespace: &'static str,
        machine: usize,
        history: History,
    ) -> Arc<Self> {
        let outbox = Arc::new(Outbox::new(LIMITS));
        let recipient = Arc::new(Recipient::new(SocketId::random(), outbox));
        let id = history.start_client(machine, namespace);
        let session = SessionId::random();
        Arc::new(Self { id, namespace, adapter, recipient, session, history })
    }

    /// Reads what comes, until the end.
    pub(super) async fn read(self: Arc<Self>) {
        while self.is_living() {
            poll_fn(|context| self.recipient.outbox.poll_pending(context)).await;
            self.listen();
            if self.recipient.outbox.closing().is_some()
                || self.recipient.phase() >= Phase::Disconnected
            {
                self.end();
            }
        }
    }

    /// Takes what is there.
    pub(super) fn listen(&self) {
        let mut pending = VecDeque::new();
        self.recipient.outbox.take_pending(&mut pending);
        if !self.is_living() {
            return;
        }
        for encoded in pending {
            for packet in frames::parse(encoded.frames(), self.namespace) {
                match packet {
                    Packet::Connect => self.history.add(Event::Connected { client: self.id }),
                    Packet::Event(text) => {
                        self.history.add(Event::Heard { client: self.id, label: label(&text) });
                    }
                    Packet::Disconnect => {}
                }
            }
        }
    }

    /// Leaves, as a connection that ends does.
    pub(super) fn end(&self) {
        if self.is_living() {
            self.listen();
            self.history.add(Event::Ended { client: self.id });
            self.adapter.leave_namespace(&self.recipient);
            self.recipient.outbox.nudge();
        }
    }

    pub(super) fn is_living(&self) -> bool {
        self.history.is_living(self.id)
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

/// The clients of one process.
#[derive(Clone, Default)]
pub(super) struct Clients(Arc<Mutex<BTreeMap<ClientId, Arc<Client>>>>);

impl Clients {
    pub(super) fn add(&self, client: Arc<Client>) {
        self.lock().insert(client.id, client);
    }

    pub(super) fn remove(&self, client: &Client) {
        self.lock().remove(&client.id);
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

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ClientId, Arc<Client>>> {
        self.0.lock().expect("nothing panics while it holds the clients")
    }
}
