//! What waits for one peer.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};

use tokio::sync::Notify;

use super::message::Message;
use super::{PeersConfig, SendError};

/// Messages of one frame together, unless a single one is larger.
const MAX_FRAME_BYTES: usize = 1 << 20;

/// A bounded queue with one reader. At its bound a message is refused: messages to a peer are at
/// most once, and whoever sends must never wait for a slow peer.
#[derive(Debug)]
pub(super) struct Queue {
    inner: Mutex<Inner>,
    filled: Notify,
    max_bytes: usize,
    max_messages: usize,
}

#[derive(Debug, Default)]
struct Inner {
    messages: VecDeque<Message>,
    bytes: usize,
    /// The stream that may take messages; older ones, which may not have ended yet, may not.
    reader: Option<u64>,
    streams: u64,
}

impl Queue {
    pub(super) fn new(config: &PeersConfig) -> Self {
        Self {
            inner: Mutex::default(),
            filled: Notify::new(),
            max_bytes: config.max_queue_bytes,
            max_messages: config.max_queue_messages,
        }
    }

    pub(super) fn push(&self, message: Message) -> Result<(), SendError> {
        let mut inner = self.lock();
        if message.is_volatile() && inner.reader.is_none() {
            return Err(SendError::Down);
        }
        let bytes = inner.bytes + message.bytes();
        if bytes > self.max_bytes || inner.messages.len() == self.max_messages {
            return Err(SendError::Full);
        }
        inner.bytes = bytes;
        inner.messages.push_back(message);
        let was_empty = inner.messages.len() == 1;
        drop(inner);
        if was_empty {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Lets a new stream take messages, and no other one.
    pub(super) fn open(&self) -> u64 {
        let mut inner = self.lock();
        inner.streams += 1;
        inner.reader = Some(inner.streams);
        inner.streams
    }

    /// Nobody takes messages until the next [`open`](Self::open).
    pub(super) fn close(&self) {
        self.lock().reader = None;
        self.filled.notify_waiters();
    }

    /// All that waits, up to a frame's size, once something does; `None` if `stream` is over.
    ///
    /// Cancel-safe: what has been taken is returned in the same poll.
    pub(super) async fn take(&self, stream: u64) -> Option<Vec<Message>> {
        loop {
            let filled = self.filled.notified();
            match self.try_take(stream) {
                Some(messages) if messages.is_empty() => filled.await,
                Some(messages) => return Some(messages),
                None => {
                    // The wake-up may have been meant for the stream that came after.
                    self.filled.notify_one();
                    return None;
                }
            }
        }
    }

    fn try_take(&self, stream: u64) -> Option<Vec<Message>> {
        let mut inner = self.lock();
        if inner.reader != Some(stream) {
            return None;
        }
        let mut taken = Vec::new();
        let mut bytes = 0;
        while bytes < MAX_FRAME_BYTES
            && let Some(message) = inner.messages.pop_front()
        {
            bytes += message.bytes();
            taken.push(message);
        }
        inner.bytes -= bytes;
        if inner.messages.is_empty() && inner.messages.capacity() > KEPT_CAPACITY {
            inner.messages = VecDeque::new();
        }
        Some(taken)
    }

    pub(super) fn is_open(&self) -> bool {
        self.lock().reader.is_some()
    }

    pub(super) fn bytes(&self) -> usize {
        self.lock().bytes
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nothing panics while it holds a peer's queue")
    }
}

/// A burst leaves its memory behind only up to here.
const KEPT_CAPACITY: usize = 1024;

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::peers::Broadcast;
    use crate::raft::state::Target;
    use crate::socketio::Payload;

    fn queue(max_bytes: usize, max_messages: usize) -> Queue {
        let config = PeersConfig { max_queue_bytes: max_bytes, max_queue_messages: max_messages };
        Queue::new(&config)
    }

    fn message(request: u64) -> Message {
        Message::AckCount { request, sockets: 0 }
    }

    fn broadcast(len: usize, volatile: bool) -> Message {
        Message::Broadcast(Broadcast {
            namespace: "/".into(),
            applied: 0,
            target: Target::default(),
            payload: Payload { json: "x".repeat(len).into(), attachments: Vec::new() },
            volatile,
            ack: None,
            uncompressed: false,
        })
    }

    #[test]
    fn all_that_waits_is_taken_together_and_in_order() {
        let queue = queue(1 << 20, 100);
        let stream = queue.open();
        let messages: Vec<_> = (0..10).map(message).collect();
        for message in &messages {
            queue.push(message.clone()).unwrap();
        }
        assert_eq!(queue.take(stream).now_or_never(), Some(Some(messages)));
        assert_eq!(queue.take(stream).now_or_never(), None);
        assert_eq!(queue.bytes(), 0);
    }

    #[test]
    fn frames_are_bounded_but_take_a_large_message() {
        let queue = queue(16 << 20, 100);
        let stream = queue.open();
        for len in [MAX_FRAME_BYTES / 2, MAX_FRAME_BYTES / 2, 1, MAX_FRAME_BYTES * 2, 1] {
            queue.push(broadcast(len, false)).unwrap();
        }
        let frames: Vec<usize> = std::iter::from_fn(|| queue.take(stream).now_or_never())
            .map(|frame| frame.unwrap().len())
            .collect();
        assert_eq!(frames, [2, 2, 1]);
    }

    #[test]
    fn full_queue_refuses_by_messages_and_by_bytes() {
        let by_messages = queue(1 << 20, 2);
        by_messages.push(message(0)).unwrap();
        by_messages.push(message(1)).unwrap();
        assert_eq!(by_messages.push(message(2)), Err(SendError::Full));

        let by_bytes = queue(1000, 100);
        by_bytes.push(broadcast(500, false)).unwrap();
        assert_eq!(by_bytes.push(broadcast(500, false)), Err(SendError::Full));
        by_bytes.push(message(0)).unwrap();
        let stream = by_bytes.open();
        assert_eq!(by_bytes.take(stream).now_or_never().flatten().map(|all| all.len()), Some(2));
        by_bytes.push(broadcast(500, false)).unwrap();
    }

    #[test]
    fn volatile_message_does_not_wait_for_a_stream() {
        let queue = queue(1 << 20, 100);
        assert_eq!(queue.push(broadcast(1, true)), Err(SendError::Down));
        queue.open();
        assert_eq!(queue.push(broadcast(1, true)), Ok(()));
    }

    #[test]
    fn only_the_newest_stream_takes() {
        let queue = queue(1 << 20, 100);
        let old = queue.open();
        let mut waiting = Box::pin(queue.take(old));
        assert_eq!(waiting.as_mut().now_or_never(), None);
        queue.close();
        let new = queue.open();
        queue.push(message(0)).unwrap();
        assert_eq!(waiting.as_mut().now_or_never(), Some(None));
        assert_eq!(queue.take(new).now_or_never(), Some(Some(vec![message(0)])));
    }

    #[test]
    fn what_was_not_taken_waits_for_the_next_stream() {
        let queue = queue(1 << 20, 100);
        queue.push(message(0)).unwrap();
        queue.open();
        queue.close();
        let stream = queue.open();
        assert_eq!(queue.take(stream).now_or_never(), Some(Some(vec![message(0)])));
    }
}
