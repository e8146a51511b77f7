//! Packets that clients missed, as frames: built once for all who come back at about the same time.
//!
//! When a node dies its clients come back together, and most of them missed the same packets.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use super::encoded::Encoded;
use crate::raft::state::Place;

/// Frames that nobody has asked for during this time are forgotten.
const IDLE: Duration = Duration::from_secs(10);

/// The frames of packets of one recoverable namespace, by the packets' places in the log.
///
/// Bounded in bytes; beyond, those of the oldest packets go, which will be the first to leave the
/// window as well. A window's packets count for more than their frames, so with the window's bound
/// all of them fit.
#[derive(Debug)]
pub(super) struct Replays {
    max_bytes: u64,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    frames: BTreeMap<Place, Arc<Encoded>>,
    bytes: u64,
    /// How often frames were asked for.
    asked: u64,
    /// Whether someone waits to forget them.
    is_watched: bool,
}

impl Replays {
    pub(super) fn new(max_bytes: u64) -> Self {
        Self { max_bytes, kept: Mutex::default() }
    }

    /// The frames of the packet at `place`; made by `encode`, if they are not there.
    pub(super) fn frames(
        &self,
        place: Place,
        encode: impl FnOnce() -> Arc<Encoded>,
    ) -> Arc<Encoded> {
        let mut kept = self.kept();
        kept.asked += 1;
        if let Some(frames) = kept.frames.get(&place) {
            return frames.clone();
        }
        let frames = encode();
        kept.bytes += frames.frames().len() as u64;
        kept.frames.insert(place, frames.clone());
        while kept.bytes > self.max_bytes
            && let Some((_, oldest)) = kept.frames.pop_first()
        {
            kept.bytes -= oldest.frames().len() as u64;
        }
        frames
    }

    /// Whether there are frames, and nobody waits to forget them: whoever is told so does, with
    /// [`forget_once_idle`](Self::forget_once_idle).
    pub(super) fn must_be_watched(&self) -> bool {
        let mut kept = self.kept();
        !kept.frames.is_empty() && !std::mem::replace(&mut kept.is_watched, true)
    }

    /// Forgets all frames once nobody has asked for any for a while.
    pub(super) async fn forget_once_idle(self: Arc<Self>) {
        let mut asked = self.kept().asked;
        loop {
            tokio::time::sleep(IDLE).await;
            let mut kept = self.kept();
            if kept.asked == asked {
                *kept = Kept::default();
                return;
            }
            asked = kept.asked;
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().expect("nothing panics while it encodes a packet")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::socketio::Payload;
    use crate::socketio::codec::Kind;

    fn place(index: u64) -> Place {
        Place { index, position: 0 }
    }

    /// Asks for a packet's frames; whether they had to be made.
    fn ask(replays: &Replays, index: u64) -> bool {
        let mut made = false;
        let payload = Payload { json: r#"["m"]"#.into(), attachments: Vec::new() };
        replays.frames(place(index), || {
            made = true;
            Encoded::packet(Kind::Event, "/", None, &payload)
        });
        made
    }

    #[test]
    fn frames_are_made_once_and_the_oldest_packets_go_first() {
        let len = Encoded::packet(
            Kind::Event,
            "/",
            None,
            &Payload { json: r#"["m"]"#.into(), attachments: Vec::new() },
        )
        .frames()
        .len() as u64;
        let replays = Replays::new(2 * len);
        assert!(ask(&replays, 1) && ask(&replays, 2));
        assert!(!ask(&replays, 1) && !ask(&replays, 2));
        assert!(ask(&replays, 3));
        assert_eq!(replays.kept().bytes, 2 * len);
        assert!(!ask(&replays, 3) && !ask(&replays, 2));
        // An older one than all that are kept does not drive them out.
        assert!(ask(&replays, 1) && ask(&replays, 1));
        assert!(!ask(&replays, 3) && !ask(&replays, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn frames_that_nobody_asks_for_are_forgotten() {
        let replays = Arc::new(Replays::new(1_000));
        assert!(!replays.must_be_watched());
        ask(&replays, 1);
        assert!(replays.must_be_watched());
        assert!(!replays.must_be_watched(), "one does");
        let watch = replays.clone().forget_once_idle();
        tokio::pin!(watch);
        for _ in 0..3 {
            let still = tokio::time::timeout(IDLE * 9 / 10, &mut watch).await;
            assert!(still.is_err());
            assert!(!ask(&replays, 1));
        }
        watch.await;
        assert!(ask(&replays, 1));
        assert!(replays.must_be_watched());
    }
}
