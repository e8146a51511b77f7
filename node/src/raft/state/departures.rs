//! Sockets that ended without a handler of theirs: kept until someone has been told of them.
//!
//! A socket's own node tells its handlers how it ended. Where that node is dead, or the socket was
//! away, nobody is there to do so; then one node whose application [hears](super::Change::HearDeparted)
//! of such sockets is to tell it, and says so with [`DepartedTold`](super::Change::DepartedTold). What
//! is not told yet is part of the state, so that it outlives whoever was about to tell it.

use std::sync::Arc;

use imbl::{OrdSet, Vector};
use smallvec::SmallVec;

use super::State;
use super::apply::Proposer;
use super::change::{Change, Namespace, NodeId, Outcome, Owner};
use super::id::{SessionId, SocketId};
use super::rooms::SocketBits;
use super::sockets::Row;

/// So many wait to be told of at most; beyond, the oldest are forgotten. One takes about 150 bytes.
const MAX_DEPARTED: usize = 100_000;

/// Those that nobody has told of for so long are forgotten: no application wants to hear any more.
const KEPT_MS: u64 = 3_600_000;

/// Why a socket ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Departure {
    /// Its node died, or began anew, and its client could not come back for it.
    NodeDown,
    /// Its client did not come back in time, or what it had missed by then was kept no longer.
    WindowEnded,
    /// An application disconnected it while its client was away.
    Disconnected,
}

/// A socket that ended, as it was then.
#[derive(Clone, Debug, PartialEq)]
pub struct Departed {
    pub socket: SocketId,
    pub namespace: Namespace,
    pub session: SessionId,
    /// The node that had it last.
    pub node: NodeId,
    pub departure: Departure,
    pub(super) rooms: SmallVec<[Arc<str>; 1]>,
    pub(super) stamp_ms: u64,
}

impl Departed {
    /// Those that it was in, without the one named after its own id.
    pub fn rooms(&self) -> impl Iterator<Item = &str> {
        self.rooms.iter().map(|room| &**room)
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Departures {
    /// The number of the one in front; the others follow on.
    first: u64,
    waiting: Vector<Arc<Departed>>,
    /// The live incarnations whose applications hear of them. While there is none, none are kept.
    hearing: OrdSet<Owner>,
}

impl Departures {
    pub(super) fn restored(first: u64, hearing: impl IntoIterator<Item = Owner>) -> Self {
        Self { first, waiting: Vector::new(), hearing: hearing.into_iter().collect() }
    }

    pub(super) fn restore(&mut self, departed: Departed) {
        self.waiting.push_back(Arc::new(departed));
    }

    pub(super) fn first(&self) -> u64 {
        self.first
    }

    pub(super) fn waiting(&self) -> impl Iterator<Item = &Departed> {
        self.waiting.iter().map(|departed| &**departed)
    }

    pub(super) fn hearing(&self) -> impl Iterator<Item = &Owner> {
        self.hearing.iter()
    }

    /// Nobody hears in an incarnation that is over.
    pub(super) fn forget_hearing(&mut self, owner: Owner) {
        self.hearing.remove(&owner);
    }

    fn end(&self) -> u64 {
        self.first + self.waiting.len() as u64
    }

    fn push(&mut self, departed: Departed) {
        if self.waiting.len() == MAX_DEPARTED {
            self.waiting.pop_front();
            self.first += 1;
        }
        self.waiting.push_back(Arc::new(departed));
    }

    fn drop_before(&mut self, end: u64) {
        let gone = end.min(self.end()).saturating_sub(self.first);
        self.first += gone;
        let gone = usize::try_from(gone).expect("what waits is in memory");
        self.waiting = self.waiting.skip(gone);
    }
}

impl State {
    /// The number of the next socket that will wait to be told of: it grows with each.
    pub fn departures_end(&self) -> u64 {
        self.departures.end()
    }

    /// The first of those that wait to be told of, up to `limit`, and the number after the last.
    pub fn departed(&self, limit: usize) -> (Vec<Arc<Departed>>, u64) {
        let first: Vec<_> = self.departures.waiting.iter().take(limit).cloned().collect();
        let end = self.departures.first + first.len() as u64;
        (first, end)
    }

    /// Whether the application of an incarnation hears of them.
    pub fn hears_departed(&self, owner: Owner) -> bool {
        self.departures.hearing.contains(&owner)
    }

    /// The node that tells of them: the leader, or if its application does not hear of them, another
    /// one whose application does. None while there is no leader: the next one will.
    pub fn teller(&self, leader: Option<NodeId>) -> Option<NodeId> {
        let nodes = || self.departures.hearing.iter().map(|owner| owner.node);
        let leader = leader?;
        if nodes().any(|node| node == leader) { Some(leader) } else { nodes().min() }
    }

    /// What the leader proposes to forget: those that nobody has told of for too long.
    pub fn expired_departures(&self, now_ms: u64) -> Option<Change> {
        let is_old = |departed: &&Departed| departed.stamp_ms.saturating_add(KEPT_MS) <= now_ms;
        let old = self.departures.waiting().take_while(is_old).count() as u64;
        (old > 0).then(|| Change::DepartedTold { end: self.departures.first + old })
    }

    pub(super) fn hear_departed(&mut self, by: Proposer) -> Outcome {
        self.departures.hearing.insert(by.owner);
        Outcome::Applied
    }

    pub(super) fn departed_told(&mut self, end: u64) -> Outcome {
        self.departures.drop_before(end);
        Outcome::Applied
    }

    /// Notes that a socket has ended that `node` had, if anyone hears of it.
    pub(super) fn note_departed(
        &mut self,
        id: &SocketBits,
        row: &Row,
        node: NodeId,
        departure: Departure,
        stamp_ms: u64,
    ) {
        if self.departures.hearing.is_empty() {
            return;
        }
        self.departures.push(Departed {
            socket: SocketId::from_bits(*id),
            namespace: row.home.namespace.clone(),
            session: SessionId::from_bits(row.session),
            node,
            departure,
            rooms: row.rooms.clone(),
            stamp_ms,
        });
    }
}
