//! What a recoverable socket was in, and when: as far back as packets are kept.

use std::sync::Arc;

use super::change::{NodeId, Place, SessionValue};

/// What the window knows of one socket.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Kept {
    /// The connection that has it: 0 for its first, the key of the last claim after that.
    pub(super) claim: u64,
    /// Packets are kept for it from here on.
    pub(super) start: Place,
    /// Since when it is away, if it is.
    pub(super) detached_ms: Option<u64>,
    /// What its application kept with it, as a JSON object; only while it is away.
    pub(super) data: Option<Arc<str>>,
    /// The node that had it last, before it went away.
    pub(super) node: NodeId,
    /// The application disconnected it: its client does not get it back.
    pub(super) is_over: bool,
    /// Up to here packets may be gone that nothing else tells of.
    pub(super) lost: Place,
    pub(super) stays: Vec<Stay>,
    /// The session's older values, each with the place at which another took over.
    pub(super) versions: Vec<(Place, Option<Arc<SessionValue>>)>,
}

/// A socket's stay in one room.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Stay {
    pub(super) room: Arc<str>,
    pub(super) joined: Place,
    /// [`Place::END`] while it is there.
    pub(super) left: Place,
    /// The room's last packet before it left, if there was one; nothing while it is there.
    pub(super) last: Place,
}

impl Stay {
    pub(super) fn is_open(&self) -> bool {
        self.left == Place::END
    }
}

/// How many stays that are over, and how many older sessions, are kept for one socket. What is
/// dropped beyond that counts as lost: the socket cannot be recovered from before it.
const MAX_PAST: usize = 64;

/// How long the texts of those older sessions may be together.
const MAX_PAST_BYTES: usize = 256 * 1024;

impl Kept {
    /// Stays that packets after `from` may have met.
    pub(super) fn stays_after(&self, from: Place) -> impl Iterator<Item = &Stay> {
        self.stays.iter().filter(move |stay| stay.left > from)
    }

    pub(super) fn was_in(&self, room: &str, place: Place) -> bool {
        self.stays
            .iter()
            .any(|stay| stay.joined < place && place < stay.left && *stay.room == *room)
    }

    pub(super) fn rooms_at(&self, place: Place) -> impl Iterator<Item = &str> {
        let stays = self.stays.iter().filter(move |stay| stay.joined < place && place < stay.left);
        stays.map(|stay| &*stay.room)
    }

    pub(super) fn session_at<'a>(
        &'a self,
        place: Place,
        now: Option<&'a Arc<SessionValue>>,
    ) -> Option<&'a Arc<SessionValue>> {
        match self.versions.iter().find(|(until, _)| *until > place) {
            Some((_, value)) => value.as_ref(),
            None => now,
        }
    }

    /// Does nothing if the socket is in the room.
    pub(super) fn join(&mut self, room: Arc<str>, place: Place) {
        if !self.stays.iter().any(|stay| stay.is_open() && stay.room == room) {
            self.stays.push(Stay { room, joined: place, left: Place::END, last: Place::default() });
        }
    }

    /// Does nothing if the socket is not in the room. `last`: the last packet of the room.
    pub(super) fn leave(&mut self, room: &str, place: Place, last: Place) {
        let stay = self.stays.iter_mut().find(|stay| stay.is_open() && *stay.room == *room);
        if let Some(stay) = stay {
            stay.left = place;
            stay.last = last;
        }
    }

    /// The session changes at `place`, from what it was.
    pub(super) fn change_session(
        &mut self,
        place: Place,
        before: Option<Arc<SessionValue>>,
        oldest: Place,
    ) {
        self.versions.retain(|(until, _)| *until > oldest);
        self.versions.push((place, before));
        let len = |(_, value): &(Place, Option<Arc<SessionValue>>)| {
            value.as_ref().map_or(0, |value| value.text.len())
        };
        let mut bytes: usize = self.versions.iter().map(len).sum();
        while self.versions.len() > MAX_PAST || bytes > MAX_PAST_BYTES {
            let version = self.versions.remove(0);
            bytes -= len(&version);
            self.lost = self.lost.max(version.0);
        }
    }

    /// Forgets stays that ended before the oldest packet kept, and remembers what is gone of them.
    pub(super) fn forget_past(&mut self, oldest: Place) {
        let past = self.stays.iter().filter(|stay| !stay.is_open()).count();
        let mut excess = past.saturating_sub(MAX_PAST);
        let lost = &mut self.lost;
        self.stays.retain(|stay| {
            if stay.is_open() || (stay.left > oldest && excess == 0) {
                return true;
            }
            if stay.last > stay.joined {
                *lost = stay.last.max(*lost);
            }
            excess = excess.saturating_sub(1);
            false
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(index: u64) -> Place {
        Place { index, position: 0 }
    }

    #[test]
    fn older_sessions_are_bounded_by_their_number_and_their_bytes() {
        let small = SessionValue::empty();
        let mut kept = Kept::default();
        for index in 1..=MAX_PAST as u64 + 1 {
            kept.change_session(at(index), Some(small.clone()), Place::default());
        }
        assert_eq!((kept.versions.len(), kept.lost), (MAX_PAST, at(1)));

        let text = format!(r#"{{"a":"{}"}}"#, "x".repeat(MAX_PAST_BYTES / 4));
        let large = Arc::new(SessionValue::parse(&text).unwrap());
        let mut kept = Kept::default();
        for index in 1..=3 {
            kept.change_session(at(index), Some(large.clone()), Place::default());
        }
        assert_eq!((kept.versions.len(), kept.lost), (3, Place::default()));
        kept.change_session(at(4), Some(large.clone()), Place::default());
        assert_eq!((kept.versions.len(), kept.lost), (3, at(1)), "before that it is not known");
        assert_eq!(kept.session_at(at(1), None), Some(&large));
    }
}
