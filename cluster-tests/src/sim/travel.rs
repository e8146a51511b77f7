//! Clients that lose their connections, and come back to their sockets at any machine.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use flotilla::adapter::{Adapter, Claim, Phase, Recipient, RecoveryConfig};
use flotilla::raft::state::{Outcome, Rooms, SessionId, SocketId};
use flotilla::raft::{ProposeError, Raft, Status};
use flotilla::random::{self, Sequence};
use serde_json::json;
use tokio_util::task::TaskTracker;

use super::client::{Client, Clients, Counts, outbox};
use super::frames::Connect;
use super::history::{ClientId, Event, History, now_ms};
use super::run::MACHINES;
use super::traffic::{Life, Town};

/// The recoverable namespace.
pub(super) const NAMESPACE: &str = "/recoverable";

/// What it keeps: little, so that clients come back within it and beyond it, by age and by bytes.
pub(super) const WINDOW: RecoveryConfig =
    RecoveryConfig { max_age: Duration::from_secs(8), max_bytes: 40 << 10, skip_middlewares: true };

/// How many of them there are, here or away.
const POPULATION: usize = 6;

/// How long a machine has to let a client in before others do, as behind a balancer.
const BALANCER_MS: u64 = 1_000;

/// How often a machine looks for clients that want in.
const GATE_INTERVAL: Duration = Duration::from_millis(20);

/// A connection that nobody is at the other end of any more is noticed after so long at most.
const UNNOTICED_MS: u64 = 6_000;

/// Acts of a client by one connection, at most.
const ACTS: u64 = 30;

/// A client, and what it takes along from one connection to the next.
pub(super) struct Traveller {
    pub(super) id: ClientId,
    pub(super) socket: SocketId,
    pub(super) session: SessionId,
    pub(super) counts: Arc<Counts>,
    luggage: Mutex<Luggage>,
}

struct Luggage {
    pid: Option<String>,
    offset: Option<String>,
    stage: Stage,
}

#[derive(Clone, Copy)]
enum Stage {
    /// A machine has its connection.
    Here,
    Away(Journey),
    /// It never comes back, and did not say so: its socket waits for it.
    Missing,
    /// It left, or was told that it cannot come back.
    Over,
}

#[derive(Clone, Copy)]
struct Journey {
    until_ms: u64,
    towards: usize,
}

impl Journey {
    /// Shorter than the window, or longer; None: for good.
    fn draw(now_ms: u64) -> Option<Self> {
        let mut draw = Sequence::new(random::number());
        let lasts_ms = match draw.below(10) {
            0..4 => draw.below(300),
            4..7 => 300 + draw.below(4_000),
            7..9 => 4_000 + draw.below(12_000),
            _ => return None,
        };
        Some(Self { until_ms: now_ms + lasts_ms, towards: draw.below(MACHINES as u64) as usize })
    }

    fn ends_at(self, machine: usize, now_ms: u64) -> bool {
        let patience = if self.towards == machine { 0 } else { BALANCER_MS };
        self.until_ms + patience <= now_ms
    }
}

impl Traveller {
    fn new(id: ClientId) -> Self {
        let luggage = Luggage { pid: None, offset: None, stage: Stage::Here };
        Self {
            id,
            socket: SocketId::random(),
            session: SessionId::random(),
            counts: Arc::default(),
            luggage: Mutex::new(luggage),
        }
    }

    /// Its CONNECT; false if that is not what it had.
    pub(super) fn handle_connect(&self, connect: Connect) -> bool {
        let mut luggage = self.lock();
        let pid = luggage.pid.clone().or_else(|| connect.pid.clone());
        let is_right = pid.is_some() && pid == connect.pid && connect.sid == self.socket.as_str();
        luggage.pid = pid;
        is_right
    }

    pub(super) fn handle_offset(&self, offset: Option<String>) {
        let mut luggage = self.lock();
        luggage.offset = offset.or_else(|| luggage.offset.take());
    }

    /// Its connection was lost; what becomes of it. Without a pid it has nothing to come back with.
    pub(super) fn lose(&self, now_ms: u64) -> Event {
        let journey = Journey::draw(now_ms);
        let mut luggage = self.lock();
        let client = self.id;
        match journey.filter(|_| luggage.pid.is_some()) {
            Some(journey) => {
                luggage.stage = Stage::Away(journey);
                Event::Away { client }
            }
            None => {
                luggage.stage = Stage::Missing;
                Event::Ended { client }
            }
        }
    }

    fn finish(&self) {
        self.lock().stage = Stage::Over;
    }

    fn stage(&self) -> Stage {
        self.lock().stage
    }

    /// What it sends with its CONNECT.
    fn auth(&self) -> String {
        let luggage = self.lock();
        match &luggage.offset {
            Some(offset) => json!({"pid": luggage.pid, "offset": offset}).to_string(),
            None => json!({"pid": luggage.pid}).to_string(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Luggage> {
        self.luggage.lock().expect("nothing panics while it holds the luggage")
    }
}

/// All that ever were. Clones are the same.
#[derive(Clone, Default)]
pub(super) struct Travellers(Arc<Mutex<BTreeMap<ClientId, Arc<Traveller>>>>);

impl Travellers {
    pub(super) fn get(&self, client: ClientId) -> Option<Arc<Traveller>> {
        self.lock().get(&client).cloned()
    }

    /// The sockets of those that went without a word, and do not come back.
    pub(super) fn missing(&self) -> BTreeSet<SocketId> {
        let travellers = self.lock();
        let missing = travellers.values().filter(|one| matches!(one.stage(), Stage::Missing));
        missing.map(|traveller| traveller.socket).collect()
    }

    /// One that wants in at a machine. In a hurry, all do.
    fn arrival(&self, machine: usize, hurry: bool) -> Option<Arc<Traveller>> {
        let now_ms = now_ms();
        let wants_in = |traveller: &&Arc<Traveller>| matches!(traveller.stage(), Stage::Away(way) if hurry || way.ends_at(machine, now_ms));
        let traveller = self.lock().values().find(wants_in).cloned()?;
        traveller.lock().stage = Stage::Here;
        Some(traveller)
    }

    /// Whether there is room for a new one, and it is the machine's turn.
    fn want_another(&self, machine: usize) -> bool {
        let travellers = self.lock();
        let is_there = |one: &&Arc<Traveller>| matches!(one.stage(), Stage::Here | Stage::Away(_));
        travellers.values().filter(is_there).count() < POPULATION
            && travellers.len() % MACHINES == machine
    }

    fn add(&self, traveller: Arc<Traveller>) {
        self.lock().insert(traveller.id, traveller);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ClientId, Arc<Traveller>>> {
        self.0.lock().expect("nothing panics while it holds the travellers")
    }
}

/// Where a machine lets them in.
pub(super) struct Gate {
    pub(super) machine: usize,
    pub(super) adapter: Arc<Adapter>,
    pub(super) raft: Arc<Raft>,
    pub(super) clients: Clients,
    pub(super) history: History,
    pub(super) town: Town,
    pub(super) tasks: TaskTracker,
}

impl Gate {
    /// Until the process ends.
    pub(super) async fn keep(self) {
        let mut status = self.raft.status();
        let travellers = &self.town.travellers;
        loop {
            // The sender lives as long as the process.
            let _ = status.wait_for(|status| *status == Status::Ready).await;
            let is_quiet = self.town.is_quiet();
            while let Some(traveller) = travellers.arrival(self.machine, is_quiet) {
                self.readmit(traveller);
            }
            if !is_quiet && travellers.want_another(self.machine) {
                self.admit_another();
            }
            tokio::time::sleep(GATE_INTERVAL).await;
        }
    }

    fn admit_another(&self) {
        let id = self.history.start_client(self.machine, NAMESPACE);
        let traveller = Arc::new(Traveller::new(id));
        self.town.travellers.add(traveller.clone());
        let recipient = Recipient::new(traveller.socket, outbox());
        self.admit(traveller, recipient, 0, None);
    }

    fn readmit(&self, traveller: Arc<Traveller>) {
        let claim = self.adapter.claim_of(&traveller.auth()).expect("the cluster gave it its pid");
        let recipient = Recipient::claiming(claim.socket, outbox(), claim.key);
        let visit = self.history.return_client(traveller.id, self.machine);
        self.admit(traveller, recipient, visit, Some(claim));
    }

    fn admit(
        &self,
        traveller: Arc<Traveller>,
        recipient: Recipient,
        visit: u32,
        claim: Option<Claim>,
    ) {
        let adapter = self.adapter.clone();
        let client =
            Client::travelling(traveller.clone(), adapter, recipient, visit, &self.history);
        let life = Life {
            client,
            neighbours: self.clients.clone(),
            raft: self.raft.clone(),
            town: self.town.clone(),
            tasks: self.tasks.clone(),
        };
        self.tasks.spawn(Visit { life, traveller, claim }.live());
    }
}

/// A client's time at a machine: one connection.
struct Visit {
    life: Life,
    traveller: Arc<Traveller>,
    claim: Option<Claim>,
}

impl Visit {
    async fn live(self) {
        let Life { client, neighbours, town, tasks, .. } = &self.life;
        neighbours.add(client.clone());
        town.list(client);
        tasks.spawn(client.clone().read());
        match self.ask().await {
            Ok(Outcome::UnknownSocket | Outcome::Lost) if self.claim.is_some() => self.give_up(),
            Ok(_) => self.stay().await,
            // Its connection is closed, so that it tries elsewhere.
            Err(_) => client.end(),
        }
        neighbours.remove(client);
    }

    async fn ask(&self) -> Result<Outcome, ProposeError> {
        let client = &self.life.client;
        let recipient = client.recipient.clone();
        match &self.claim {
            Some(claim) => client.adapter.claim(recipient, claim).await,
            None => client.adapter.connect(recipient, client.session, Rooms::new()).await,
        }
    }

    /// The cluster does not give the socket back.
    fn give_up(&self) {
        let client = &self.life.client;
        client.adapter.refuse_claim(&client.recipient);
        client.recipient.outbox.nudge();
        if client.is_living() {
            self.traveller.finish();
            client.history.add(Event::Refused { client: client.id });
            client.history.add(Event::Ended { client: client.id });
        }
    }

    async fn stay(&self) {
        let client = &self.life.client;
        let mut draw = Sequence::new(random::number());
        self.life.act(1 + draw.below(ACTS)).await;
        if client.is_living() && draw.below(10) == 0 {
            self.traveller.finish();
            return client.leave();
        }
        client.lose(&mut draw);
        if draw.below(2) == 0 {
            self.haunt(draw.below(UNNOTICED_MS)).await;
        }
        client.end();
    }

    /// The machine does not notice at once that the client is gone, unless its connection is closed.
    async fn haunt(&self, lasts_ms: u64) {
        let recipient = &self.life.client.recipient;
        let until_ms = now_ms() + lasts_ms;
        let is_over =
            || recipient.outbox.closing().is_some() || recipient.phase() >= Phase::Disconnected;
        while now_ms() < until_ms && !is_over() && !self.life.town.is_quiet() {
            tokio::time::sleep(GATE_INTERVAL).await;
        }
    }
}
