//! What happens to the rooms of this node, told to those who watch.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use bytestring::ByteString;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use tokio::sync::mpsc;
use tracing::{error, warn};

use crate::raft::state::SocketId;

/// One of the official in-memory adapter's events. They tell of this node's sockets alone, the room
/// named after each one's id included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoomEvent {
    /// `create-room`: the room has its first member here.
    Created { room: ByteString },
    /// `join-room`.
    Joined { room: ByteString, socket: SocketId },
    /// `leave-room`.
    Left { room: ByteString, socket: SocketId },
    /// `delete-room`: the room has lost its last member here.
    Deleted { room: ByteString },
}

impl RoomEvent {
    /// As the official adapter calls it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Created { .. } => "create-room",
            Self::Joined { .. } => "join-room",
            Self::Left { .. } => "leave-room",
            Self::Deleted { .. } => "delete-room",
        }
    }
}

/// Events that may wait for a listener; beyond, they are dropped, for sockets do not wait for it.
const WAITING_EVENTS: usize = 65_536;

pub(super) type Listener = Box<dyn Fn(RoomEvent) + Send + Sync>;

/// Hears what happens to the rooms of all shards, each time under the lock of one: it only notes it.
pub(super) trait Watcher: std::fmt::Debug + Send + Sync {
    /// Members that were there before.
    fn count(&self, room: &ByteString, members: usize);

    fn joined(&self, room: &ByteString, socket: SocketId);

    fn left(&self, room: &ByteString, socket: SocketId);
}

/// Counts the members of each room over all shards, and queues what its listener is told.
#[derive(Debug)]
pub(super) struct Watch(Mutex<Counts>);

#[derive(Debug)]
struct Counts {
    members: HashMap<ByteString, usize, FixedState>,
    queue: mpsc::Sender<RoomEvent>,
    is_behind: bool,
}

impl Watch {
    /// The watch, and the work of telling its listener.
    pub(super) fn new(listener: Listener) -> (Arc<Self>, impl Future<Output = ()> + Send) {
        let (queue, events) = mpsc::channel(WAITING_EVENTS);
        let counts = Counts { members: HashMap::default(), queue, is_behind: false };
        (Arc::new(Self(Mutex::new(counts))), tell(events, listener))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.0.lock().expect("nothing panics while it holds the counts")
    }
}

impl Watcher for Watch {
    fn count(&self, room: &ByteString, members: usize) {
        if members > 0 {
            *self.lock().members.entry(room.clone()).or_default() += members;
        }
    }

    fn joined(&self, room: &ByteString, socket: SocketId) {
        let mut counts = self.lock();
        let members = counts.members.entry(room.clone()).or_default();
        *members += 1;
        if *members == 1 {
            counts.tell(RoomEvent::Created { room: room.clone() });
        }
        counts.tell(RoomEvent::Joined { room: room.clone(), socket });
    }

    fn left(&self, room: &ByteString, socket: SocketId) {
        let mut counts = self.lock();
        counts.tell(RoomEvent::Left { room: room.clone(), socket });
        let Some(members) = counts.members.get_mut(room) else { return };
        *members -= 1;
        if *members == 0 {
            counts.members.remove(room);
            counts.tell(RoomEvent::Deleted { room: room.clone() });
        }
    }
}

impl Counts {
    fn tell(&mut self, event: RoomEvent) {
        let is_full = self.queue.try_send(event).is_err();
        if is_full && !self.is_behind {
            warn!("a listener to rooms is too slow; events are dropped");
        }
        self.is_behind = is_full;
    }
}

/// Hands events to the listener, until the namespace ends. Listeners run outside of all locks.
async fn tell(mut events: mpsc::Receiver<RoomEvent>, listener: Listener) {
    while let Some(event) = events.recv().await {
        if catch_unwind(AssertUnwindSafe(|| listener(event))).is_err() {
            error!("a listener to rooms panicked");
        }
    }
}
