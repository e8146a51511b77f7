//! A moment between the answer that lets a client in and what follows it.

use std::time::Duration;

use tokio::time::Instant;

/// Clients that wait for one packet and then for the next, as those of the official suites do, lose the second if it
/// comes in the same read. What an application sends on `connection` nearly always did, where the official server takes
/// a moment longer.
const PAUSE: Duration = Duration::from_millis(1);

/// Holds back what is queued behind an answer, until the client sends something or a moment has passed.
///
/// A timer is set only once something is queued.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Pause {
    #[default]
    Over,
    /// Nothing is queued so far.
    Until(Instant),
    /// Something is held back until then.
    Holding(Instant),
}

impl Pause {
    /// The pause behind an answer that was written at `now`.
    pub(super) fn after(now: Instant) -> Self {
        Self::Until(now + PAUSE)
    }

    /// The client does not wait for the answer any more. Whether something was held back.
    pub(super) fn end(&mut self) -> bool {
        matches!(std::mem::take(self), Self::Holding(_))
    }

    /// Something is queued: whether it has to wait, until the [deadline](Self::deadline) then.
    pub(super) fn holds(&mut self, now: Instant) -> bool {
        *self = match *self {
            Self::Until(end) | Self::Holding(end) if now < end => Self::Holding(end),
            Self::Over | Self::Until(_) | Self::Holding(_) => Self::Over,
        };
        matches!(self, Self::Holding(_))
    }

    /// When what is held back may go; none if nothing is.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match *self {
            Self::Holding(end) => Some(end),
            Self::Over | Self::Until(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_queued_waits_for_a_moment() {
        let now = Instant::now();
        assert!(!Pause::default().holds(now));
        let mut pause = Pause::after(now);
        assert_eq!(pause.deadline(), None, "nobody wakes for nothing");
        assert!(pause.holds(now));
        assert_eq!(pause.deadline(), Some(now + PAUSE));
        assert!(!pause.holds(now + PAUSE));
        assert_eq!(pause.deadline(), None);
    }

    #[test]
    fn client_that_sends_something_ends_the_pause() {
        let now = Instant::now();
        let mut pause = Pause::after(now);
        assert!(!pause.end(), "nothing was held back");
        assert!(!pause.holds(now));
        pause = Pause::after(now);
        assert!(pause.holds(now));
        assert!(pause.end());
        assert!(!pause.holds(now));
    }
}
