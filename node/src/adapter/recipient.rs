//! One local socket, as its connection and the adapter share it.

use std::any::Any;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};

use super::acks::{Asker, Debts};
use super::outbox::Outbox;
use crate::raft::state::{SessionId, SocketId};
use crate::socketio::Payload;

/// Where a socket stands. It moves forward only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    /// Middleware runs, or the change that makes it known is on its way.
    Connecting = 0,
    /// Its CONNECT has been queued, and it takes part in what needs no agreement; the change that makes it known is
    /// on its way.
    Welcomed = 1,
    /// The cluster knows it, or it [goes on](super::Adapter::go_on_unknown) without, and its CONNECT has been queued: it
    /// takes part.
    Connected = 2,
    /// The application disconnected it: its DISCONNECT has been queued, its connection cleans up.
    Disconnected = 3,
    /// The application closed its connection with it.
    Closed = 4,
    /// The namespace did not let it in; its CONNECT_ERROR has been queued.
    Rejected = 5,
    /// The cluster did not give it back to the client that asked for it: a new socket takes its
    /// place.
    NotRecovered = 6,
    /// It is over.
    Gone = 7,
}

/// What the layer above keeps for a socket, to be found by whoever has its recipient.
pub trait Above: Any + Send + Sync {
    /// An event was queued for the socket, which [hears](super::Adapter::hear) of them.
    fn handle_outgoing(self: Arc<Self>, event: &Payload);

    /// What the application keeps with the socket, as the text of a JSON object, for the time in
    /// which its client is away; none if that is nothing, or too much.
    fn data(self: Arc<Self>) -> Option<String>;

    /// The cluster gave the client its old socket back, with the data that it was away with. Called
    /// before anyone can see that it is connected.
    fn restore(self: Arc<Self>, data: Option<&str>);
}

/// A socket's address: where to push its packets, how far it has come, and which acks it owes.
///
/// The delivery task of the namespace moves the phase in log order and wakes the connection's
/// task, which acts on it.
#[derive(Debug)]
pub struct Recipient {
    pub id: SocketId,
    pub outbox: Arc<Outbox>,
    /// Names the connection by which a client came back for the socket; 0 if it is new.
    pub claim: u64,
    /// The session of a socket that came back.
    session: OnceLock<SessionId>,
    phase: AtomicU8,
    hears: AtomicBool,
    debts: Mutex<Debts>,
    above: OnceLock<Weak<dyn Above>>,
}

impl Recipient {
    pub fn new(id: SocketId, outbox: Arc<Outbox>) -> Self {
        Self::claiming(id, outbox, 0)
    }

    /// A socket that its client wants back.
    pub fn claiming(id: SocketId, outbox: Arc<Outbox>, claim: u64) -> Self {
        let phase = AtomicU8::new(Phase::Connecting as u8);
        Self {
            id,
            outbox,
            claim,
            session: OnceLock::new(),
            phase,
            hears: AtomicBool::new(false),
            debts: Mutex::default(),
            above: OnceLock::new(),
        }
    }

    /// The session that came back with the socket.
    pub fn session(&self) -> Option<SessionId> {
        self.session.get().copied()
    }

    pub(super) fn set_session(&self, session: SessionId) {
        // A socket comes back to a connection once.
        let _ = self.session.set(session);
    }

    /// Says what is above it; the first word stands.
    pub fn set_above(&self, above: Weak<dyn Above>) {
        let _ = self.above.set(above);
    }

    /// What is above it, while it is there.
    pub fn above(&self) -> Option<Arc<dyn Above>> {
        self.above.get()?.upgrade()
    }

    /// Whether what is above hears of the events that are queued for it.
    pub(super) fn hears(&self) -> bool {
        self.hears.load(Ordering::Relaxed)
    }

    /// Has what is above hear of them, or not; what it was.
    pub(super) fn set_hears(&self, hears: bool) -> bool {
        self.hears.swap(hears, Ordering::Relaxed)
    }

    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Connecting,
            1 => Phase::Welcomed,
            2 => Phase::Connected,
            3 => Phase::Disconnected,
            4 => Phase::Closed,
            5 => Phase::Rejected,
            6 => Phase::NotRecovered,
            _ => Phase::Gone,
        }
    }

    /// Whether its application has not met it yet, and may.
    pub fn is_coming(&self) -> bool {
        self.phase() <= Phase::Welcomed
    }

    /// Moves on to `phase`; false if the socket is there already, or further.
    pub fn advance(&self, phase: Phase) -> bool {
        self.phase.fetch_max(phase as u8, Ordering::AcqRel) < phase as u8
    }

    /// It is sent a packet with ack id `id`; the debt that had to be forgotten for it.
    pub(super) fn owe(&self, id: u64, asker: Asker) -> Option<Asker> {
        self.debts().add(id, asker)
    }

    /// It answers `id`; whom that is for. An id that nobody waits for is ignored.
    pub(super) fn pay(&self, id: u64) -> Option<Asker> {
        self.debts().take(id)
    }

    /// It is gone: those who will not hear from it.
    pub(super) fn renounce_debts(&self) -> impl Iterator<Item = Asker> + use<> {
        std::mem::take(&mut *self.debts()).into_askers()
    }

    fn debts(&self) -> MutexGuard<'_, Debts> {
        self.debts.lock().expect("nothing panics while it holds a socket's debts")
    }
}
