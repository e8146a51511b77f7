//! The bounded queue that takes packets to one client.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use serde::Deserialize;

use super::encoded::Encoded;
use crate::engineio::{CloseReason, Revision, TransportKind};
use crate::metrics;

/// How much may wait for one client, and what happens when more does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutboxLimits {
    pub max_bytes: usize,
    pub max_packets: usize,
    pub policy: OutboxPolicy,
}

impl Default for OutboxLimits {
    fn default() -> Self {
        Self { max_bytes: 64 << 20, max_packets: 65_536, policy: OutboxPolicy::Disconnect }
    }
}

/// What happens when a packet does not fit into a client's outbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutboxPolicy {
    /// The client is disconnected.
    #[default]
    Disconnect,
    /// Volatile packets make way: new ones are queued only while the outbox is less than half
    /// full, and those that wait are dropped. If that does not help, the client is disconnected.
    DropVolatile,
}

/// What waits for one client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutboxSize {
    pub bytes: usize,
    pub packets: usize,
}

/// What became of a pushed packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    Queued,
    /// The connection is closing, or the client reads too slowly for a volatile packet.
    Dropped,
}

/// What waits for one client. Anyone pushes; the connection's task takes all at each wake.
///
/// Its bounds are [`OutboxLimits`], and comprise what the task has taken and the stream does not
/// take yet: a client that lets more gather is disconnected as a slow consumer, so that it hurts
/// nobody else. A volatile packet is never what that fails for.
#[derive(Debug)]
pub struct Outbox {
    inner: Mutex<Inner>,
    limits: OutboxLimits,
    revision: Revision,
    is_websocket: AtomicBool,
}

#[derive(Debug)]
struct Inner {
    queue: VecDeque<Arc<Encoded>>,
    /// Of all that is queued.
    bytes: usize,
    /// What was taken, and is not written yet.
    taken: OutboxSize,
    waker: Option<Waker>,
    closing: Option<CloseReason>,
    nudged: bool,
    /// Some of what is queued goes to others, too.
    is_shared: bool,
    /// False while the stream takes no more bytes, or no poll is open.
    writable: bool,
}

impl Inner {
    fn watch(&mut self, context: &Context<'_>) {
        if !self.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            self.waker = Some(context.waker().clone());
        }
    }

    fn size(&self) -> OutboxSize {
        let OutboxSize { bytes, packets } = self.taken;
        OutboxSize { bytes: bytes + self.bytes, packets: packets + self.queue.len() }
    }

    fn is_within(&self, limits: &OutboxLimits) -> bool {
        let size = self.size();
        size.bytes <= limits.max_bytes && size.packets <= limits.max_packets
    }

    fn has_room_for_volatile(&self, bytes: usize, limits: &OutboxLimits) -> bool {
        let OutboxLimits { max_bytes, max_packets, policy } = *limits;
        let size = self.size();
        let is_low = size.bytes < max_bytes / 2 && size.packets < max_packets / 2;
        let fits = size.bytes + bytes <= max_bytes && size.packets < max_packets;
        fits && (policy == OutboxPolicy::Disconnect || is_low)
    }

    fn drop_volatile(&mut self) {
        let before = self.queue.len();
        self.queue.retain(|packet| !packet.is_volatile);
        self.bytes = self.queue.iter().map(|packet| packet.frames().len()).sum();
        metrics::DROPS_OUTBOX_FULL.add((before - self.queue.len()) as u64);
    }
}

impl Outbox {
    pub fn new(limits: OutboxLimits) -> Self {
        Self::for_revision(Revision::V4, limits)
    }

    /// For a client of that revision of Engine.IO.
    pub fn for_revision(revision: Revision, limits: OutboxLimits) -> Self {
        let inner = Inner {
            queue: VecDeque::new(),
            bytes: 0,
            taken: OutboxSize::default(),
            waker: None,
            closing: None,
            nudged: false,
            is_shared: false,
            writable: true,
        };
        let is_websocket = AtomicBool::new(false);
        Self { inner: Mutex::new(inner), limits, revision, is_websocket }
    }

    /// What the client speaks: a few packets are worded otherwise for clients of revision 3.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Queues a packet that may go to others, too, and wakes the connection if nothing was queued.
    pub fn push(&self, packet: Arc<Encoded>) -> Pushed {
        let mut inner = self.lock();
        inner.is_shared = true;
        self.queue(inner, packet)
    }

    /// Queues a packet that is for this client alone, such as the answer to one of its own.
    pub fn push_own(&self, packet: Arc<Encoded>) -> Pushed {
        self.queue(self.lock(), packet)
    }

    /// Queues a packet for this client alone, and [nudges](Self::nudge) the connection.
    pub fn push_news(&self, packet: Arc<Encoded>) -> Pushed {
        let pushed = self.push_own(packet);
        self.nudge();
        pushed
    }

    fn queue(&self, mut inner: MutexGuard<'_, Inner>, packet: Arc<Encoded>) -> Pushed {
        if inner.closing.is_some() {
            return Pushed::Dropped;
        }
        inner.bytes += packet.frames().len();
        inner.queue.push_back(packet);
        if !inner.is_within(&self.limits) {
            if self.limits.policy == OutboxPolicy::DropVolatile {
                inner.drop_volatile();
            }
            if !inner.is_within(&self.limits) {
                give_up(inner);
                return Pushed::Dropped;
            }
        }
        metrics::DELIVERIES.add(1);
        if inner.queue.len() == 1 {
            wake(inner);
        }
        Pushed::Queued
    }

    /// Queues a packet if the client can take it now; a volatile packet is better lost than late.
    pub fn push_volatile(&self, packet: Arc<Encoded>) -> Pushed {
        let mut inner = self.lock();
        if !inner.writable {
            metrics::DROPS_VOLATILE.add(1);
            return Pushed::Dropped;
        }
        if !inner.has_room_for_volatile(packet.frames().len(), &self.limits) {
            metrics::DROPS_OUTBOX_FULL.add(1);
            return Pushed::Dropped;
        }
        inner.is_shared = true;
        self.queue(inner, packet)
    }

    /// Ends the connection once what is queued has been sent; the first reason stands.
    pub fn close(&self, reason: CloseReason) {
        let mut inner = self.lock();
        if inner.closing.is_none() {
            inner.closing = Some(reason);
            wake(inner);
        }
    }

    /// Wakes the connection's task although nothing is to be sent: its client has news to look at.
    pub fn nudge(&self) {
        let mut inner = self.lock();
        inner.nudged = true;
        wake(inner);
    }

    /// Ready once there is something to send, a nudge or a reason to close; true if others get some of it, too. For the
    /// connection's task alone: the last one to poll is woken.
    pub fn poll_pending(&self, context: &Context<'_>) -> Poll<bool> {
        let mut inner = self.lock();
        // Whoever waits for more has written what it took.
        inner.taken = OutboxSize::default();
        if !inner.queue.is_empty() || inner.closing.is_some() || inner.nudged {
            inner.nudged = false;
            return Poll::Ready(inner.is_shared);
        }
        inner.watch(context);
        Poll::Pending
    }

    /// Ready once there is a nudge or a reason to close, whatever is queued: what the connection's
    /// task waits for while its transport takes no bytes. Otherwise as [`poll_pending`](Self::poll_pending).
    pub fn poll_news(&self, context: &Context<'_>) -> Poll<()> {
        let mut inner = self.lock();
        if inner.closing.is_some() || inner.nudged {
            inner.nudged = false;
            return Poll::Ready(());
        }
        inner.watch(context);
        Poll::Pending
    }

    /// The connection's task is awake, and looks here again before it sleeps: until then a push need
    /// not wake it. One by its own client would only make the scheduler run it once more.
    pub fn unwatch(&self) {
        self.lock().waker = None;
    }

    /// Moves all that is queued into `pending`, which is empty, in exchange for its memory; how
    /// many bytes that are. They count until the task waits for more, or says what is left.
    pub fn take_pending(&self, pending: &mut VecDeque<Arc<Encoded>>) -> usize {
        let mut inner = self.lock();
        std::mem::swap(&mut inner.queue, pending);
        let bytes = std::mem::take(&mut inner.bytes);
        inner.is_shared = false;
        inner.taken = OutboxSize { bytes, packets: pending.len() };
        bytes
    }

    /// Set once the connection is to end.
    pub fn closing(&self) -> Option<CloseReason> {
        self.lock().closing
    }

    /// What takes the packets to the client at the moment.
    pub fn transport(&self) -> TransportKind {
        match self.is_websocket.load(Ordering::Relaxed) {
            true => TransportKind::WebSocket,
            false => TransportKind::Polling,
        }
    }

    /// Tells what takes them from now on.
    pub fn mark_transport(&self, transport: TransportKind) {
        let is_websocket = transport == TransportKind::WebSocket;
        self.is_websocket.store(is_websocket, Ordering::Relaxed);
    }

    /// Whether a volatile packet would be queued.
    pub fn is_writable(&self) -> bool {
        self.lock().writable
    }

    /// Tells volatile packets whether the client takes bytes at the moment. What was taken is on
    /// its way.
    pub fn mark_writable(&self, writable: bool) {
        let mut inner = self.lock();
        inner.writable = writable;
        inner.taken = OutboxSize::default();
    }

    /// The stream takes no more bytes at the moment, and so much of what was taken is left.
    pub fn mark_stalled(&self, left: OutboxSize) {
        let mut inner = self.lock();
        inner.writable = false;
        inner.taken = left;
    }

    /// What waits for the client.
    pub fn size(&self) -> OutboxSize {
        self.lock().size()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nothing panics while it holds the outbox")
    }
}

/// Ends the connection of a client that reads too slowly, with all that waits for it.
fn give_up(mut inner: MutexGuard<'_, Inner>) {
    let dropped = inner.queue.len();
    inner.queue = VecDeque::new();
    inner.bytes = 0;
    inner.closing = Some(CloseReason::SlowConsumer);
    metrics::DROPS_SLOW_CONSUMER.add(dropped as u64);
    wake(inner);
}

/// Wakes the task after the lock is released, so that it does not run into it.
fn wake(mut inner: MutexGuard<'_, Inner>) {
    let waker = inner.waker.take();
    drop(inner);
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    const LIMITS: OutboxLimits =
        OutboxLimits { max_bytes: 64, max_packets: 3, policy: OutboxPolicy::Disconnect };

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn packet() -> Arc<Encoded> {
        Encoded::engine_text("2")
    }

    fn poll(outbox: &Outbox, count: &Arc<Count>) -> bool {
        let waker = Waker::from(count.clone());
        outbox.poll_pending(&Context::from_waker(&waker)).is_ready()
    }

    #[test]
    fn task_is_woken_when_the_outbox_fills_and_not_again() {
        let (outbox, count) = (Outbox::new(LIMITS), Arc::default());
        assert!(!poll(&outbox, &count));
        outbox.push(packet());
        outbox.push(packet());
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert!(poll(&outbox, &count));
        let mut pending = VecDeque::new();
        outbox.take_pending(&mut pending);
        assert_eq!(pending.len(), 2);
        assert!(!poll(&outbox, &count));
    }

    #[test]
    fn packets_that_others_get_are_told_from_those_of_one_client() {
        let outbox = Outbox::new(LIMITS);
        let waker = Waker::noop();
        let pending = || outbox.poll_pending(&Context::from_waker(waker));
        let take = || outbox.take_pending(&mut VecDeque::new());
        outbox.push_own(packet());
        assert_eq!(pending(), Poll::Ready(false));
        outbox.push(packet());
        assert_eq!(pending(), Poll::Ready(true), "it goes with the other");
        take();
        outbox.push_news(packet());
        assert_eq!(pending(), Poll::Ready(false));
        take();
        outbox.push_volatile(packet());
        assert_eq!(pending(), Poll::Ready(true));
    }

    #[test]
    fn nudge_wakes_once() {
        let (outbox, count) = (Outbox::new(LIMITS), Arc::default());
        assert!(!poll(&outbox, &count));
        outbox.nudge();
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert!(poll(&outbox, &count));
        assert!(!poll(&outbox, &count));
    }

    #[test]
    fn news_wake_although_the_packet_was_taken_before_they_were_looked_at() {
        let (outbox, count) = (Outbox::new(LIMITS), Arc::default());
        assert!(!poll(&outbox, &count));
        outbox.unwatch();
        outbox.push_news(packet());
        outbox.take_pending(&mut VecDeque::new());
        assert!(poll(&outbox, &count), "there is news");
        assert!(!poll(&outbox, &count));
    }

    #[test]
    fn news_wake_a_task_whose_client_takes_nothing() {
        let (outbox, count) = (Outbox::new(LIMITS), Arc::<Count>::default());
        outbox.push(packet());
        let waker = Waker::from(count.clone());
        assert!(outbox.poll_news(&Context::from_waker(&waker)).is_pending());
        outbox.push_news(packet());
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert!(outbox.poll_news(&Context::from_waker(&waker)).is_ready());
    }

    #[test]
    fn too_many_packets_end_a_slow_client() {
        let outbox = Outbox::new(LIMITS);
        for _ in 0..3 {
            assert_eq!(outbox.push(packet()), Pushed::Queued);
        }
        assert_eq!(outbox.closing(), None);
        assert_eq!(outbox.push(packet()), Pushed::Dropped);
        assert_eq!(outbox.closing(), Some(CloseReason::SlowConsumer));
    }

    #[test]
    fn too_many_bytes_end_a_slow_client() {
        let outbox = Outbox::new(LIMITS);
        assert_eq!(outbox.push(Encoded::engine_text(&"4".repeat(80))), Pushed::Dropped);
        assert_eq!(outbox.closing(), Some(CloseReason::SlowConsumer));
    }

    #[test]
    fn volatile_packet_is_dropped_while_the_client_takes_nothing() {
        let outbox = Outbox::new(LIMITS);
        outbox.mark_writable(false);
        assert_eq!(outbox.push_volatile(packet()), Pushed::Dropped);
        assert_eq!(outbox.push(packet()), Pushed::Queued);
        outbox.mark_writable(true);
        assert_eq!(outbox.push_volatile(packet()), Pushed::Queued);
    }

    #[test]
    fn volatile_packet_that_does_not_fit_is_dropped_and_ends_nobody() {
        let outbox = Outbox::new(LIMITS);
        for _ in 0..3 {
            assert_eq!(outbox.push_volatile(packet()), Pushed::Queued);
        }
        assert_eq!(outbox.push_volatile(packet()), Pushed::Dropped);
        let long = Encoded::engine_text(&"4".repeat(80));
        assert_eq!(Outbox::new(LIMITS).push_volatile(long), Pushed::Dropped);
        assert_eq!(outbox.closing(), None);
        outbox.push(packet());
        assert_eq!(outbox.closing(), Some(CloseReason::SlowConsumer), "they do not make way here");
    }

    #[test]
    fn waiting_volatile_packets_make_way_if_the_policy_says_so() {
        let policy = OutboxPolicy::DropVolatile;
        let outbox = Outbox::new(OutboxLimits { max_packets: 4, policy, ..LIMITS });
        for _ in 0..2 {
            assert_eq!(outbox.push_volatile(packet().into_volatile()), Pushed::Queued);
        }
        let refused = outbox.push_volatile(packet().into_volatile());
        assert_eq!(refused, Pushed::Dropped, "the outbox is half full");
        for _ in 0..4 {
            assert_eq!(outbox.push(packet()), Pushed::Queued);
        }
        assert_eq!(outbox.size(), OutboxSize { bytes: 12, packets: 4 }, "of 3 bytes each");
        assert_eq!(outbox.push(packet()), Pushed::Dropped);
        assert_eq!(outbox.closing(), Some(CloseReason::SlowConsumer), "it did not help");
    }

    #[test]
    fn half_of_the_bytes_is_half_full_too() {
        let policy = OutboxPolicy::DropVolatile;
        let outbox = Outbox::new(OutboxLimits { max_packets: 100, policy, ..LIMITS });
        outbox.push(Encoded::engine_text(&"4".repeat(30)));
        assert_eq!(outbox.push_volatile(packet()), Pushed::Dropped);
        assert_eq!(outbox.closing(), None);
    }

    #[test]
    fn what_was_taken_counts_until_it_is_written() {
        let (outbox, count) = (Outbox::new(LIMITS), Arc::default());
        let mut pending = VecDeque::new();
        outbox.push(packet());
        outbox.push(packet());
        assert_eq!(outbox.take_pending(&mut pending), 6);
        assert_eq!(outbox.size(), OutboxSize { bytes: 6, packets: 2 });
        outbox.mark_stalled(OutboxSize { bytes: 2, packets: 1 });
        assert!(!outbox.is_writable());
        outbox.push(packet());
        assert_eq!(outbox.size(), OutboxSize { bytes: 5, packets: 2 });
        assert!(poll(&outbox, &count), "the stream takes bytes again");
        assert_eq!(outbox.size(), OutboxSize { bytes: 3, packets: 1 });

        outbox.mark_stalled(OutboxSize { bytes: 0, packets: 3 });
        assert_eq!(outbox.push(packet()), Pushed::Dropped);
        assert_eq!(outbox.closing(), Some(CloseReason::SlowConsumer));
    }

    #[test]
    fn first_reason_to_close_stands_and_nothing_is_queued_after_it() {
        let outbox = Outbox::new(LIMITS);
        outbox.close(CloseReason::ServerShutdown);
        outbox.close(CloseReason::ForcedClose);
        assert_eq!(outbox.closing(), Some(CloseReason::ServerShutdown));
        assert_eq!(outbox.push(packet()), Pushed::Dropped);
    }
}
