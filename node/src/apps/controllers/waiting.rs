//! What a socket's client sends while its connect handlers run.

use std::collections::VecDeque;

/// How much may wait: see [`SocketServer::waiting`](super::SocketServer::waiting).
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) events: usize,
    pub(super) bytes: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { events: 256, bytes: 1024 * 1024 }
    }
}

/// Events in their order, and the socket's end behind them.
#[derive(Debug)]
pub(super) struct Waiting<T> {
    bounds: Bounds,
    events: VecDeque<T>,
    /// Of those that have been started, too: a client may not keep the queue full for ever.
    bytes: usize,
    end: Option<&'static str>,
}

/// What is next.
#[derive(Debug, PartialEq)]
pub(super) enum Next<T> {
    Event(T),
    End(&'static str),
    Nothing,
}

impl<T> Waiting<T> {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, events: VecDeque::new(), bytes: 0, end: None }
    }

    /// Gives the event back if there is no room for it.
    pub(super) fn push(&mut self, event: T, bytes: usize) -> Result<(), T> {
        let is_full = self.events.len() >= self.bounds.events
            || self.bytes.saturating_add(bytes) > self.bounds.bytes;
        if is_full {
            return Err(event);
        }
        self.bytes += bytes;
        self.events.push_back(event);
        Ok(())
    }

    /// The socket has left; nothing comes any more.
    pub(super) fn end(&mut self, reason: &'static str) {
        self.end = Some(reason);
    }

    pub(super) fn next(&mut self) -> Next<T> {
        match (self.events.pop_front(), self.end) {
            (Some(event), _) => Next::Event(event),
            (None, Some(reason)) => Next::End(reason),
            (None, None) => Next::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_out_in_order_and_the_end_behind_them() {
        let mut waiting = Waiting::new(Bounds::default());
        assert_eq!(waiting.next(), Next::<u8>::Nothing);
        waiting.push(1, 10).unwrap();
        waiting.push(2, 10).unwrap();
        waiting.end("transport close");
        assert_eq!(waiting.next(), Next::Event(1));
        assert_eq!(waiting.next(), Next::Event(2));
        assert_eq!(waiting.next(), Next::End("transport close"));
    }

    #[test]
    fn full_queue_gives_events_back() {
        let mut waiting = Waiting::new(Bounds { events: 2, bytes: 100 });
        waiting.push(1, 60).unwrap();
        assert_eq!(waiting.push(2, 41), Err(2));
        waiting.push(3, 40).unwrap();
        assert_eq!(waiting.push(4, 0), Err(4));
        assert_eq!(waiting.push(5, usize::MAX), Err(5));
    }
}
