//! sid → the running connection.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use hashbrown::HashMap;
use tokio::sync::mpsc;

use crate::adapter::{Outbox, OutboxSize};
use crate::engineio::{CloseReason, Revision, Sid, TransportKind};

use super::farewell::Farewell;
use super::polling::Command;

/// How others reach a connection.
#[derive(Clone)]
pub(crate) struct Handle {
    pub(crate) outbox: Arc<Outbox>,
    /// Takes HTTP requests to the connection, as long as it polls.
    pub(crate) commands: Option<mpsc::Sender<Command>>,
}

/// The connections of this node, sharded so that threads seldom wait for one another.
pub(crate) struct Connections {
    shards: [Mutex<HashMap<Sid, Handle>>; SHARDS],
    count: AtomicUsize,
    pub(super) farewell: Farewell,
}

const SHARDS: usize = 16;

impl Connections {
    pub(crate) fn new(farewell: Farewell) -> Self {
        let shards = std::array::from_fn(|_| Mutex::default());
        Self { shards, count: AtomicUsize::new(0), farewell }
    }

    /// The connection is found until the registration is dropped.
    pub(crate) fn register(self: &Arc<Self>, sid: Sid, handle: Handle) -> Registration {
        let previous = self.shard(sid).insert(sid, handle);
        assert!(previous.is_none(), "72 random bits do not come twice");
        self.count.fetch_add(1, Ordering::Relaxed);
        Registration { connections: Arc::clone(self), sid }
    }

    pub(crate) fn get(&self, sid: Sid) -> Option<Handle> {
        self.shard(sid).get(&sid).cloned()
    }

    /// Which transport a connection of this node is at.
    pub(crate) fn transport_of(&self, sid: &str) -> Option<(TransportKind, Revision)> {
        let handle = self.get(Sid::parse(sid)?)?;
        let is_polling = handle.commands.is_some();
        let kind = if is_polling { TransportKind::Polling } else { TransportKind::WebSocket };
        Some((kind, handle.outbox.revision()))
    }

    pub(crate) fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// What waits for all clients together, and how many bytes for the one that most waits for.
    pub(crate) fn outbox_sizes(&self) -> (OutboxSize, usize) {
        let (mut sum, mut largest) = (OutboxSize::default(), 0);
        for shard in &self.shards {
            for handle in lock(shard).values() {
                let OutboxSize { bytes, packets } = handle.outbox.size();
                sum.bytes += bytes;
                sum.packets += packets;
                largest = largest.max(bytes);
            }
        }
        (sum, largest)
    }

    /// Asks every connection to end.
    pub(crate) fn close_all(&self, reason: CloseReason) {
        for shard in &self.shards {
            // Closing wakes a task, which may come here: not under the lock.
            let outboxes: Vec<_> =
                lock(shard).values().map(|handle| Arc::clone(&handle.outbox)).collect();
            for outbox in outboxes {
                outbox.close(reason);
            }
        }
    }

    fn shard(&self, sid: Sid) -> MutexGuard<'_, HashMap<Sid, Handle>> {
        // The last character of a sid is random.
        lock(&self.shards[usize::from(sid.as_bytes()[Sid::LEN - 1]) % SHARDS])
    }
}

fn lock(shard: &Mutex<HashMap<Sid, Handle>>) -> MutexGuard<'_, HashMap<Sid, Handle>> {
    shard.lock().expect("nothing panics while it holds a shard")
}

/// Keeps a connection in the map; held by its task, so that it leaves however the task ends.
pub(crate) struct Registration {
    connections: Arc<Connections>,
    sid: Sid,
}

impl Registration {
    pub(crate) fn sid(&self) -> Sid {
        self.sid
    }

    pub(crate) fn farewell(&self) -> Farewell {
        self.connections.farewell.clone()
    }

    /// From now on requests to this connection are refused.
    pub(crate) fn stop_polling(&self) {
        let commands =
            self.connections.shard(self.sid).get_mut(&self.sid).and_then(|h| h.commands.take());
        drop(commands);
    }
}

impl Registration {
    /// From now on the connection is not found.
    pub(crate) fn withdraw(&self) {
        let handle = self.connections.shard(self.sid).remove(&self.sid);
        drop(handle);
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.withdraw();
        self.connections.count.fetch_sub(1, Ordering::Relaxed);
    }
}
