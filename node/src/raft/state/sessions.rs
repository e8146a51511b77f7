//! The sessions: their values, and which sockets use them.

use std::sync::Arc;

use bytestring::ByteString;
use imbl::{OrdMap, OrdSet};

use super::change::{NodeId, Outcome, SessionValue};
use super::rooms::SocketBits;

/// How long a session that no socket uses is kept.
pub const SESSION_TTL_MS: u64 = 24 * 60 * 60 * 1000;

/// A session's id, as rows keep it.
pub(super) type SessionBits = [u8; 15];

/// A session that was written. One that never was is an empty object of revision 0.
#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    pub value: Arc<SessionValue>,
    /// Says which nodes wrote, in which order ([`next_revision`]).
    pub revision: u64,
    /// Milliseconds since the Unix epoch. It does not end while a socket uses it.
    pub expires_ms: u64,
}

/// The revision that a write of `writer` makes of the revision `before`.
///
/// A node knows it ahead, and can queue writes that build on one another without waiting. It names
/// the writer: a count would let the second of them pass if another node's write took the place of
/// the first, whose content it would then overwrite.
pub fn next_revision(before: u64, writer: NodeId) -> u64 {
    let mut mixed = (before ^ writer).wrapping_add(0x9e37_79b9_7f4a_7c15);
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
}

impl Sessions {
    /// Compare-and-set on the revision.
    pub(super) fn put(
        &mut self,
        id: SessionBits,
        expected: u64,
        text: &str,
        writer: NodeId,
        stamp_ms: u64,
    ) -> Outcome {
        let revision = self.rows.get(&id).map_or(0, |row| row.revision);
        // A value that is no object was refused by the proposer; should one come nevertheless,
        // every node refuses it alike.
        let value = (revision == expected).then(|| SessionValue::parse(text)).flatten();
        let Some(value) = value else {
            return Outcome::Conflict { revision, value: self.text(&id) };
        };
        let revision = next_revision(revision, writer);
        let row = Session {
            value: Arc::new(value),
            revision,
            expires_ms: stamp_ms.saturating_add(SESSION_TTL_MS),
        };
        self.rows.insert(id, row);
        Outcome::Written { revision }
    }

    fn text(&self, id: &SessionBits) -> ByteString {
        self.rows.get(id).map_or(ByteString::from_static("{}"), |row| row.value.text.clone())
    }

    pub(super) fn expire(&mut self, id: &SessionBits, revision: u64, stamp_ms: u64) {
        let Some(row) = self.rows.get(id) else { return };
        if row.revision == revision && row.expires_ms <= stamp_ms && !self.in_use(id) {
            self.rows.remove(id);
        }
    }

    /// A socket uses the session from now on.
    pub(super) fn enter(&mut self, id: SessionBits, socket: SocketBits, stamp_ms: u64) {
        self.sockets.insert((id, socket));
        self.touch(&id, stamp_ms);
    }

    /// A socket left. A session belongs to one connection: it goes with its last socket.
    pub(super) fn leave(&mut self, id: SessionBits, socket: SocketBits) {
        self.sockets.remove(&(id, socket));
        if !self.in_use(&id) {
            self.rows.remove(&id);
        }
    }

    /// A socket's node died: its client may come back, and finds its session until that expires.
    pub(super) fn abandon(&mut self, id: SessionBits, socket: SocketBits, stamp_ms: u64) {
        self.sockets.remove(&(id, socket));
        self.touch(&id, stamp_ms);
    }

    fn touch(&mut self, id: &SessionBits, stamp_ms: u64) {
        // Looked up first, for most sessions have no row, and a search for one to change copies.
        if self.rows.contains_key(id)
            && let Some(row) = self.rows.get_mut(id)
        {
            row.expires_ms = row.expires_ms.max(stamp_ms.saturating_add(SESSION_TTL_MS));
        }
    }

    pub(super) fn restore(&mut self, id: SessionBits, session: Session) {
        self.rows.insert(id, session);
    }

    pub(super) fn restore_use(&mut self, id: SessionBits, socket: SocketBits) {
        self.sockets.insert((id, socket));
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
