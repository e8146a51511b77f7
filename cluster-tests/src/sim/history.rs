//! What happened in a simulation, in the order in which it happened.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard};

use flotilla::raft::ProposeError;
use flotilla::raft::state::Outcome;

use super::faults::Fault;

/// A simulated client: no two lives have the same number.
pub type ClientId = u32;

/// A packet: who emitted it, and which of his it is.
pub type Label = (ClientId, u32);

/// Who is meant by a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Aim {
    All,
    Room(u8),
    /// Everyone whose session is of the group.
    Group(u8),
    /// One socket, by its id.
    Client(ClientId),
}

/// What changes about a client, and thereby which aims mean it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Alteration {
    Join(u8),
    Leave(u8),
    Group(u8),
}

/// How a receipt was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    Agreed,
    /// It will never be.
    Refused,
    Unknown,
}

impl From<&Result<Outcome, ProposeError>> for Answer {
    fn from(result: &Result<Outcome, ProposeError>) -> Self {
        match result {
            Ok(Outcome::Applied | Outcome::Written { .. } | Outcome::Registered { .. }) => {
                Self::Agreed
            }
            Ok(
                Outcome::Conflict { .. }
                | Outcome::UnknownSocket
                | Outcome::UnknownSession
                | Outcome::TooManyRooms
                | Outcome::Lost,
            ) => Self::Refused,
            Err(ProposeError::Timeout) => Self::Unknown,
            Err(ProposeError::NoQuorum | ProposeError::Draining | ProposeError::Overloaded) => {
                Self::Refused
            }
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    Started {
        client: ClientId,
        machine: usize,
        namespace: &'static str,
    },
    /// The client got its CONNECT.
    Connected {
        client: ClientId,
    },
    /// It left, was closed, or died with its machine; it hears nothing more.
    Ended {
        client: ClientId,
    },
    Emitting {
        label: Label,
        aim: Aim,
    },
    Emitted {
        label: Label,
        answer: Answer,
    },
    Heard {
        client: ClientId,
        label: Label,
    },
    Altering {
        client: ClientId,
        alteration: Alteration,
    },
    Altered {
        client: ClientId,
        alteration: Alteration,
        answer: Answer,
    },
    Fault(Fault),
    Healed(Fault),
}

/// An event, and the simulated millisecond in which it happened.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct At {
    pub ms: u64,
    pub event: Event,
}

/// The history that everything in a simulation adds to. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct History(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    events: Vec<At>,
    next_client: ClientId,
    /// The clients that have not ended, and their machines.
    living: BTreeMap<ClientId, usize>,
}

impl History {
    pub(super) fn add(&self, event: Event) {
        let ms = turmoil::sim_elapsed().map_or(0, |elapsed| elapsed.as_millis() as u64);
        self.add_at(ms, event);
    }

    /// For whoever is outside the simulated machines. What a client did after its end is its
    /// last words, which nobody hears.
    pub(super) fn add_at(&self, ms: u64, event: Event) {
        let mut inner = self.lock();
        if let Event::Ended { client } = event
            && inner.living.remove(&client).is_none()
        {
            return;
        }
        inner.events.push(At { ms, event });
    }

    pub(super) fn start_client(&self, machine: usize, namespace: &'static str) -> ClientId {
        let mut inner = self.lock();
        inner.next_client += 1;
        let client = inner.next_client;
        inner.living.insert(client, machine);
        drop(inner);
        self.add(Event::Started { client, machine, namespace });
        client
    }

    pub(super) fn is_living(&self, client: ClientId) -> bool {
        self.lock().living.contains_key(&client)
    }

    pub(super) fn living(&self) -> Vec<ClientId> {
        self.lock().living.keys().copied().collect()
    }

    pub(super) fn machine_died(&self, ms: u64, machine: usize) {
        let dead: Vec<ClientId> = {
            let inner = self.lock();
            let on = inner.living.iter().filter(|(_, on)| **on == machine);
            on.map(|(client, _)| *client).collect()
        };
        for client in dead {
            self.add_at(ms, Event::Ended { client });
        }
    }

    pub fn events(&self) -> Vec<At> {
        self.lock().events.clone()
    }

    /// Equal histories have equal hashes, in every process.
    pub fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.lock().events.hash(&mut hasher);
        hasher.finish()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("nothing panics while it holds the history")
    }
}
