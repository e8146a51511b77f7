//! The sessions: their values, and which sockets use them.

use std::sync::Arc;

use bytestring::ByteString;
use imbl::{OrdMap, OrdSet};

use super::change::{NodeId, Outcome, SessionValue};
use super::index::{SessionIndex, SessionKeys};
use super::rooms::SocketBits;
use super::target::SessionFilter;

/// How long the session of a connection is kept after its node died.
pub const SESSION_TTL_MS: u64 = 24 * 60 * 60 * 1000;

/// How long the session of a connection is kept that was written before it had a socket, by
/// middleware, or after its last one left. A client that is let in enters it sooner than that, and
/// one that is not must not leave a row behind for each of its attempts.
pub const UNENTERED_TTL_MS: u64 = 60 * 1000;

/// A session's id, as rows keep it.
pub(super) type SessionBits = [u8; 15];

/// A session that was written. One that never was is an empty object of revision 0.
#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    pub value: Arc<SessionValue>,
    /// Says which writes made it, in which order ([`next_revision`]).
    pub revision: u64,
    /// Milliseconds since the Unix epoch. It does not end while a socket uses it.
    pub expires_ms: u64,
    /// How long it is kept while nobody uses it, if clients come back to it. 0: it belongs to one
    /// connection, and goes with its last socket.
    pub keep_ms: u64,
}

impl Session {
    /// Someone uses it at that time: a socket that it has, or had until now, or somebody else.
    fn used_at(&mut self, stamp_ms: u64, by_socket: bool) {
        let kept_ms = match (self.keep_ms, by_socket) {
            (0, true) => SESSION_TTL_MS,
            (0, false) => UNENTERED_TTL_MS,
            (keep_ms, _) => keep_ms,
        };
        // Proposers' clocks differ, and time does not go back.
        self.expires_ms = self.expires_ms.max(stamp_ms.saturating_add(kept_ms));
    }
}

/// The revision that a write makes of the revision `before`. `mark` names the write: the node that
/// writes, XORed with the write's [salt](super::Change::SessionPut).
///
/// A node knows it ahead, and can queue writes that build on one another without waiting. A count
/// would let the second of them pass if another write took the place of the first, whose content it
/// would then overwrite: another node's, or this node's own that it made after the first had failed.
pub fn next_revision(before: u64, mark: u64) -> u64 {
    let mut mixed = (before ^ mark).wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    // 0 is the revision of a session that was never written.
    (mixed ^ (mixed >> 31)).max(1)
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Sessions {
    rows: OrdMap<SessionBits, Session>,
    /// Every socket under its session, written or not.
    sockets: OrdSet<(SessionBits, SocketBits)>,
    /// The rows that no socket uses, by the time at which they expire.
    idle: OrdSet<(u64, SessionBits)>,
    index: SessionIndex,
}

impl Sessions {
    /// Compare-and-set on the revision. `mark` names the write, as in [`next_revision`].
    pub(super) fn put(
        &mut self,
        id: SessionBits,
        expected: u64,
        text: &str,
        mark: u64,
        stamp_ms: u64,
    ) -> Outcome {
        let revision = self.rows.get(&id).map_or(0, |row| row.revision);
        // A value that is no object was refused by the proposer; should one come nevertheless,
        // every node refuses it alike.
        let value = (revision == expected).then(|| SessionValue::parse(text)).flatten();
        let Some(value) = value else {
            return Outcome::Conflict { revision, value: self.text(&id) };
        };
        let revision = next_revision(revision, mark);
        let (expires_ms, keep_ms) =
            self.rows.get(&id).map_or((0, 0), |row| (row.expires_ms, row.keep_ms));
        let mut row = Session { value: Arc::new(value), revision, expires_ms, keep_ms };
        row.used_at(stamp_ms, self.in_use(&id));
        self.insert(id, row);
        Outcome::Written { revision }
    }

    /// Someone uses the session. With `keep_ms` it is made if it is not there, and kept for so long.
    pub(super) fn keep(
        &mut self,
        id: &SessionBits,
        keep_ms: u64,
        writer: NodeId,
        stamp_ms: u64,
    ) -> Outcome {
        let made = (keep_ms > 0).then(|| Session {
            value: SessionValue::empty(),
            revision: next_revision(0, writer),
            expires_ms: 0,
            keep_ms,
        });
        // One that has expired is over, though the leader has not said so yet.
        let is_live = |row: &&Session| row.expires_ms > stamp_ms || self.in_use(id);
        let Some(mut row) = self.rows.get(id).filter(is_live).cloned().or(made) else {
            return Outcome::UnknownSession;
        };
        if keep_ms > 0 {
            row.keep_ms = keep_ms;
        }
        row.used_at(stamp_ms, self.in_use(id));
        self.insert(*id, row);
        Outcome::Applied
    }

    /// Ends a session, whoever uses it; what it was.
    pub(super) fn destroy(&mut self, id: &SessionBits) -> Option<Session> {
        let row = self.rows.remove(id)?;
        self.idle.remove(&(row.expires_ms, *id));
        self.index.change(*id, Some(&row.value.object), None);
        Some(row)
    }

    /// The one place where rows come in or change.
    fn insert(&mut self, id: SessionBits, row: Session) {
        let is_idle = !self.in_use(&id);
        let (value, expires_ms) = (row.value.clone(), row.expires_ms);
        let before = self.rows.insert(id, row);
        if is_idle {
            self.idle.extend([(expires_ms, id)]);
            if let Some(before) = before.as_ref().filter(|row| row.expires_ms != expires_ms) {
                self.idle.remove(&(before.expires_ms, id));
            }
        }
        let before = before.as_ref().map(|row| &row.value.object);
        self.index.change(id, before, Some(&value.object));
    }

    fn text(&self, id: &SessionBits) -> ByteString {
        self.rows.get(id).map_or(ByteString::from_static("{}"), |row| row.value.text.clone())
    }

    pub(super) fn expire(&mut self, id: &SessionBits, revision: u64, stamp_ms: u64) {
        let Some(row) = self.rows.get(id) else { return };
        if row.revision == revision && row.expires_ms <= stamp_ms && !self.in_use(id) {
            self.destroy(id);
        }
    }

    /// Those that expired while no socket uses them, the first one first.
    pub(super) fn expired(&self, now_ms: u64) -> impl Iterator<Item = (&SessionBits, &Session)> {
        let expired = self.idle.range(..=(now_ms, [u8::MAX; 15]));
        expired.filter_map(|(_, id)| Some((id, self.rows.get(id)?)))
    }

    /// A socket uses the session from now on.
    pub(super) fn enter(&mut self, id: SessionBits, socket: SocketBits, stamp_ms: u64) {
        if let Some(row) = self.rows.get(&id) {
            self.idle.remove(&(row.expires_ms, id));
        }
        self.sockets.insert((id, socket));
        self.touch(&id, stamp_ms);
    }

    /// A socket left. The session of one connection goes with its last socket.
    pub(super) fn leave(&mut self, id: SessionBits, socket: SocketBits, stamp_ms: u64) {
        self.sockets.remove(&(id, socket));
        if self.in_use(&id) {
            return;
        }
        match self.rows.get(&id) {
            Some(row) if row.keep_ms > 0 => self.rest(id, stamp_ms),
            Some(_) => drop(self.destroy(&id)),
            None => {}
        }
    }

    /// A socket's node died: its client may come back, and finds its session until that expires.
    pub(super) fn abandon(&mut self, id: SessionBits, socket: SocketBits, stamp_ms: u64) {
        self.sockets.remove(&(id, socket));
        self.rest(id, stamp_ms);
    }

    /// A socket has left: from now on the session may expire, unless another uses it.
    fn rest(&mut self, id: SessionBits, stamp_ms: u64) {
        self.touch(&id, stamp_ms);
        if let Some(row) = self.rows.get(&id)
            && !self.in_use(&id)
        {
            self.idle.insert((row.expires_ms, id));
        }
    }

    /// Of a session that a socket uses, or used until now.
    fn touch(&mut self, id: &SessionBits, stamp_ms: u64) {
        // Looked up first, for most sessions have no row, and a search for one to change copies.
        if self.rows.contains_key(id)
            && let Some(row) = self.rows.get_mut(id)
        {
            row.used_at(stamp_ms, true);
        }
    }

    pub(super) fn restore(&mut self, id: SessionBits, session: Session) {
        self.insert(id, session);
    }

    pub(super) fn restore_use(&mut self, id: SessionBits, socket: SocketBits) {
        if let Some(row) = self.rows.get(&id) {
            self.idle.remove(&(row.expires_ms, id));
        }
        self.sockets.insert((id, socket));
    }

    pub(super) fn keys(&self) -> &SessionKeys {
        self.index.keys()
    }

    pub(super) fn index_by(&mut self, keys: SessionKeys) {
        self.index = SessionIndex::new(keys);
        for (id, row) in &self.rows {
            self.index.change(*id, None, Some(&row.value.object));
        }
    }

    /// The sessions that a filter may match, if the index knows them.
    pub(super) fn indexed(
        &self,
        filter: &SessionFilter,
    ) -> Option<impl Iterator<Item = &SessionBits>> {
        self.index.candidates(filter)
    }

    pub(super) fn get(&self, id: &SessionBits) -> Option<&Session> {
        self.rows.get(id)
    }

    pub(super) fn in_use(&self, id: &SessionBits) -> bool {
        self.sockets_of(id).next().is_some()
    }

    pub(super) fn sockets_of(&self, id: &SessionBits) -> impl Iterator<Item = &SocketBits> {
        self.sockets.range((*id, [0; 15])..=(*id, [u8::MAX; 15])).map(|(_session, socket)| socket)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&SessionBits, &Session)> {
        self.rows.iter()
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }
}
