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
    /// The client got its CONNECT. If it had been [`Returning`](Self::Returning), its socket is its
    /// own again.
    Connected {
        client: ClientId,
    },
    /// Its connection was lost: it hears nothing until it is back.
    Away {
        client: ClientId,
    },
    /// It asks a machine for its socket.
    Returning {
        client: ClientId,
        machine: usize,
    },
    /// It was told that its socket is over, and is somebody else from now on.
    Refused {
        client: ClientId,
    },
    /// It was given the socket or the session of somebody else.
    Mistaken {
        client: ClientId,
    },
    /// A machine sent it this by a connection that it had lost: its first one, or the one of so
    /// many returns.
    Wasted {
        client: ClientId,
        visit: u32,
        label: Label,
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
    /// The machine noticed that it does not hold its lease, or that it was declared dead.
    Fenced {
        machine: usize,
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

/// The simulated time, for whoever is on a simulated machine.
pub(super) fn now_ms() -> u64 {
    turmoil::sim_elapsed().map_or(0, |elapsed| elapsed.as_millis() as u64)
}

/// The history that everything in a simulation adds to. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct History(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    events: Vec<At>,
    next_client: ClientId,
    /// The clients that are connected or about to be.
    living: BTreeMap<ClientId, Whereabouts>,
    /// Those that have lost their connections, and may come back.
    away: BTreeMap<ClientId, Whereabouts>,
}

/// The last connection of a client.
#[derive(Clone, Copy, Debug)]
struct Whereabouts {
    machine: usize,
    /// How often the client has come back.
    visit: u32,
}

impl History {
    pub(super) fn add(&self, event: Event) {
        self.add_at(now_ms(), event);
    }

    /// For whoever is outside the simulated machines. What a client did after its end is its
    /// last words, which nobody hears.
    pub(super) fn add_at(&self, ms: u64, event: Event) {
        let mut inner = self.lock();
        if inner.note(&event) {
            inner.events.push(At { ms, event });
        }
    }

    pub(super) fn start_client(&self, machine: usize, namespace: &'static str) -> ClientId {
        let mut inner = self.lock();
        inner.next_client += 1;
        let client = inner.next_client;
        inner.living.insert(client, Whereabouts { machine, visit: 0 });
        drop(inner);
        self.add(Event::Started { client, machine, namespace });
        client
    }

    /// A client that was away is at a machine; how often it has come back.
    pub(super) fn return_client(&self, client: ClientId, machine: usize) -> u32 {
        self.add(Event::Returning { client, machine });
        self.lock().living[&client].visit
    }

    /// Whether a client's connection, the one of so many returns, is its last, and not lost.
    pub(super) fn is_living(&self, client: ClientId, visit: u32) -> bool {
        self.lock().living.get(&client).is_some_and(|now| now.visit == visit)
    }

    pub(super) fn living(&self) -> Vec<ClientId> {
        self.lock().living.keys().copied().collect()
    }

    /// The clients whose connections a machine has.
    pub(super) fn living_on(&self, machine: usize) -> Vec<ClientId> {
        let inner = self.lock();
        let on = inner.living.iter().filter(|(_, now)| now.machine == machine);
        on.map(|(client, _)| *client).collect()
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

impl Inner {
    /// Keeps up with where clients are; false if the event says nothing new.
    fn note(&mut self, event: &Event) -> bool {
        match *event {
            Event::Ended { client } => {
                self.living.remove(&client).or_else(|| self.away.remove(&client)).is_some()
            }
            Event::Away { client } => {
                let lost = self.living.remove(&client);
                self.away.extend(lost.map(|lost| (client, lost)));
                lost.is_some()
            }
            Event::Returning { client, machine } => {
                let before = self.away.remove(&client);
                let visit = before.map_or(0, |before| before.visit) + 1;
                self.living.insert(client, Whereabouts { machine, visit });
                true
            }
            _ => true,
        }
    }
}
