//! What simulated clients do: they come, talk, change rooms and sessions, and go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytestring::ByteString;
use flotilla::adapter::EmitFlags;
use flotilla::raft::state::{Change, Outcome, Rooms, SessionFilter, SocketId, Target};
use flotilla::raft::{Raft, Receipt};
use flotilla::random::{self, Sequence};
use flotilla::socketio::Payload;
use serde_json::json;
use tokio_util::task::TaskTracker;

use super::client::{Client, Clients, text};
use super::history::{Aim, Alteration, Answer, ClientId, Event};
use super::travel::Travellers;

/// Rooms and groups of sessions that clients are in or not.
const CIRCLES: u64 = 3;

/// Between two acts of a client, about.
const PAUSE_MS: u64 = 250;

/// Acts of a client before another one takes its place.
const ACTS: u64 = 100;

/// What all machines' clients share.
#[derive(Clone, Default)]
pub(super) struct Town {
    /// Who can be written to.
    sockets: Arc<Mutex<BTreeMap<ClientId, (&'static str, SocketId)>>>,
    pub(super) travellers: Travellers,
    /// Set when the last word has been said.
    quiet: Arc<AtomicBool>,
}

impl Town {
    pub(super) fn hush(&self) {
        self.quiet.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.quiet.load(Ordering::Relaxed)
    }

    pub(super) fn list(&self, client: &Client) {
        let mut sockets = self.sockets.lock().expect("nothing panics while it holds the sockets");
        sockets.insert(client.id, (client.namespace, client.recipient.id));
    }

    pub(super) fn sockets_of(&self, clients: &[ClientId]) -> BTreeSet<SocketId> {
        let sockets = self.sockets.lock().expect("nothing panics while it holds the sockets");
        clients.iter().filter_map(|client| Some(sockets.get(client)?.1)).collect()
    }

    /// One of the namespace's sockets, dead or alive.
    fn any(&self, namespace: &str, draw: &mut Sequence) -> Option<(ClientId, SocketId)> {
        let sockets = self.sockets.lock().expect("nothing panics while it holds the sockets");
        let mut recent = sockets.iter().rev().filter(|(_, (of, _))| *of == namespace);
        let (client, (_, socket)) = recent.nth(draw.below(6) as usize)?;
        Some((*client, *socket))
    }
}

/// One client's life.
pub(super) struct Life {
    pub(super) client: Arc<Client>,
    pub(super) neighbours: Clients,
    pub(super) raft: Arc<Raft>,
    pub(super) town: Town,
    pub(super) tasks: TaskTracker,
}

impl Life {
    /// Lives until the client has had its turns, or its end has come otherwise.
    pub(super) async fn live(self) {
        let client = &self.client;
        self.neighbours.add(client.clone());
        self.tasks.spawn(client.clone().read());
        let recipient = client.recipient.clone();
        let connected = client.adapter.connect(recipient, client.session, Rooms::new()).await;
        if connected.is_ok() {
            self.town.list(client);
            self.act(ACTS / 2 + random::number() % ACTS).await;
        }
        client.end();
        self.neighbours.remove(client);
    }

    /// Until its connection ends, at most so often.
    pub(super) async fn act(&self, times: u64) {
        let mut draw = Sequence::new(random::number());
        for _ in 0..times {
            tokio::time::sleep(Duration::from_millis(1 + draw.below(2 * PAUSE_MS))).await;
            while self.town.is_quiet() && self.client.is_living() {
                tokio::time::sleep(Duration::from_millis(PAUSE_MS)).await;
            }
            if !self.client.is_living() {
                return;
            }
            match draw.below(10) {
                0 => self.move_about(&mut draw).await,
                1 => self.change_group(&mut draw).await,
                _ => {
                    // Two at once now and then: what is written in one go keeps its order.
                    for _ in 0..1 + draw.below(4) / 3 {
                        self.emit(&mut draw).await;
                    }
                }
            }
        }
    }

    async fn emit(&self, draw: &mut Sequence) {
        let client = &self.client;
        if !client.is_living() {
            return;
        }
        let label = (client.id, 1 + client.counts.emitted.fetch_add(1, Ordering::Relaxed));
        let (aim, target) = self.aim(draw);
        client.history.add(Event::Emitting { label, aim });
        let json = json!(["m", text(label)]).to_string().into();
        let payload = Payload { json, attachments: Vec::new() };
        let receipt = client.adapter.emit(target, payload, EmitFlags::default());
        let (history, neighbours) = (client.history.clone(), self.neighbours.clone());
        let answered = self.tasks.spawn(async move {
            let answer = Answer::from(&receipt.await);
            // What was queued for this node's clients before the answer is heard before it.
            neighbours.listen();
            history.add(Event::Emitted { label, answer });
        });
        if draw.below(2) == 0 {
            // The task ends, or this one does with it.
            let _ = answered.await;
        }
    }

    fn aim(&self, draw: &mut Sequence) -> (Aim, Target) {
        let circle = draw.below(CIRCLES) as u8;
        let to =
            |room: ByteString| Target { rooms: [room].into_iter().collect(), ..Target::default() };
        match draw.below(8) {
            0 => (Aim::Room(circle), to(room(circle))),
            1 => {
                let filter = SessionFilter::try_from(json!({"group": circle}));
                let filter = Some(filter.expect("it is an object of scalars"));
                (Aim::Group(circle), Target { filter, ..Target::default() })
            }
            2 => match self.town.any(self.client.namespace, draw) {
                Some((client, socket)) => (Aim::Client(client), to(socket.as_str().into())),
                None => (Aim::All, Target::default()),
            },
            _ => (Aim::All, Target::default()),
        }
    }

    async fn move_about(&self, draw: &mut Sequence) {
        let client = &self.client;
        let circle = draw.below(CIRCLES) as u8;
        let rooms: Rooms = [room(circle)].into_iter().collect();
        let socket = client.recipient.id;
        if draw.below(3) == 0 {
            self.alter(Alteration::Leave(circle), || client.adapter.leave(socket, rooms)).await;
        } else {
            self.alter(Alteration::Join(circle), || client.adapter.join(socket, rooms)).await;
        }
    }

    async fn change_group(&self, draw: &mut Sequence) {
        let circle = draw.below(CIRCLES) as u8;
        let value = json!({"group": circle}).to_string().into();
        let revision = &self.client.counts.revision;
        let expected = revision.load(Ordering::Relaxed);
        // Without a salt, for each write is awaited: none builds on what another may make.
        let (session, salt) = (self.client.session, 0);
        let change = Change::SessionPut { session, expected, salt, value };
        let put = || self.raft.pump().propose(change);
        let outcome = self.alter(Alteration::Group(circle), put).await;
        if let Some(Outcome::Written { revision: at } | Outcome::Conflict { revision: at, .. }) =
            outcome
        {
            revision.store(at, Ordering::Relaxed);
        }
    }

    async fn alter(
        &self,
        alteration: Alteration,
        propose: impl FnOnce() -> Receipt,
    ) -> Option<Outcome> {
        let client = self.client.id;
        self.client.history.add(Event::Altering { client, alteration });
        let result = propose().await;
        // By its next connection the client alters other things: this one is left open.
        if self.client.is_living() {
            let answer = Answer::from(&result);
            self.client.history.add(Event::Altered { client, alteration, answer });
        }
        result.ok()
    }
}

fn room(circle: u8) -> ByteString {
    format!("room-{circle}").into()
}
