//! Counts every delivery to every client of a fleet.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::histogram::Histogram;
use super::track::{Arrival, CommonOrder, Place, Track};

/// A message: the client that sent it, and its number among that client's messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) sender: u32,
    pub(super) number: u64,
}

/// What was counted so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Different messages at different receivers; an ack counts as one, too.
    pub(super) delivered: u64,
    pub(super) expected: u64,
    pub(super) doubled: u64,
    pub(super) misordered: u64,
    /// Arrivals that no order common to the whole group explains.
    pub(super) split: u64,
    /// Acks that said `{error: …}`.
    pub(super) refused: u64,
    /// Connections that ended although nobody asked for it.
    pub(super) broken: u64,
}

impl Counts {
    pub(super) fn lost(&self) -> u64 {
        self.expected.saturating_sub(self.delivered)
    }
}

/// Shared by all links of one thread.
#[derive(Debug)]
pub(super) struct Inbox {
    epoch: Instant,
    counts: Cell<Counts>,
    latencies: RefCell<Histogram>,
    receivers: RefCell<Vec<Receiver>>,
    senders: RefCell<Vec<Sender>>,
    groups: RefCell<Vec<CommonOrder>>,
    finished: RefCell<VecDeque<Message>>,
    progress: Notify,
}

#[derive(Debug, Default)]
struct Receiver {
    // Few senders reach one receiver: a list beats a map.
    tracks: Vec<(u32, Track)>,
    group: Option<usize>,
    place: Place,
}

/// A sender's messages that have not reached everyone yet.
#[derive(Debug, Default)]
struct Sender {
    next: u64,
    first_open: u64,
    open: VecDeque<u32>,
}

impl Inbox {
    pub(super) fn new(clients: usize) -> Self {
        Self {
            epoch: Instant::now(),
            counts: Cell::default(),
            latencies: RefCell::new(Histogram::new()),
            receivers: RefCell::new((0..clients).map(|_| Receiver::default()).collect()),
            senders: RefCell::new((0..clients).map(|_| Sender::default()).collect()),
            groups: RefCell::default(),
            finished: RefCell::default(),
            progress: Notify::new(),
        }
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts.get()
    }

    /// Microseconds since this inbox was made: the clock of all latencies.
    pub(super) fn micros(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// These receivers must from now on see all they get in one common order.
    pub(super) fn group(&self, receivers: impl IntoIterator<Item = usize>) {
        let mut groups = self.groups.borrow_mut();
        groups.push(CommonOrder::new());
        for receiver in receivers {
            self.receivers.borrow_mut()[receiver].group = Some(groups.len() - 1);
        }
    }

    /// Announces the next message of `sender`, which `audience` clients are to get.
    pub(super) fn sending(&self, sender: u32, audience: u32) -> Message {
        let mut senders = self.senders.borrow_mut();
        let state = &mut senders[sender as usize];
        let message = Message { sender, number: state.next };
        state.next += 1;
        state.open.push_back(audience);
        self.count(|counts| counts.expected += u64::from(audience));
        message
    }

    /// A message has come to `receiver`; it was sent at `sent_at` and it is `now`.
    pub(super) fn arrived(&self, receiver: u32, message: Message, sent_at: u64, now: u64) {
        let mut receivers = self.receivers.borrow_mut();
        let state = &mut receivers[receiver as usize];
        match state.track(message.sender).arrive(message.number) {
            Arrival::Doubled => return self.count(|counts| counts.doubled += 1),
            Arrival::Misordered => self.count(|counts| counts.misordered += 1),
            Arrival::InOrder => {}
        }
        if let Some(group) = state.group {
            let key = u64::from(message.sender) << 40 | message.number;
            if !self.groups.borrow_mut()[group].fits(&mut state.place, key) {
                self.count(|counts| counts.split += 1);
            }
        }
        drop(receivers);
        self.delivered(now.saturating_sub(sent_at));
        self.close_one(message);
    }

    /// One thing that was awaited has come: an ack, or a message at one receiver.
    pub(super) fn delivered(&self, latency_micros: u64) {
        self.latencies.borrow_mut().record(latency_micros);
        self.count(|counts| counts.delivered += 1);
    }

    pub(super) fn count(&self, change: impl FnOnce(&mut Counts)) {
        let mut counts = self.counts.get();
        change(&mut counts);
        self.counts.set(counts);
    }

    /// Waits for the next message that has reached its whole audience.
    pub(super) async fn finished(&self) -> Message {
        loop {
            if let Some(message) = self.finished.borrow_mut().pop_front() {
                return message;
            }
            self.progress.notified().await;
        }
    }

    /// Starts to measure latencies afresh.
    pub(super) fn clear_latencies(&self) {
        self.latencies.borrow_mut().clear();
    }

    pub(super) fn latencies(&self) -> Histogram {
        self.latencies.borrow().clone()
    }

    fn close_one(&self, message: Message) {
        let mut senders = self.senders.borrow_mut();
        let sender = &mut senders[message.sender as usize];
        let Some(place) = message.number.checked_sub(sender.first_open) else { return };
        let Some(open) = sender.open.get_mut(place as usize) else { return };
        *open = open.saturating_sub(1);
        if *open == 0 {
            self.finished.borrow_mut().push_back(message);
            self.progress.notify_one();
        }
        while sender.open.front() == Some(&0) {
            sender.open.pop_front();
            sender.first_open += 1;
        }
    }
}

impl Receiver {
    fn track(&mut self, sender: u32) -> &mut Track {
        let known = self.tracks.iter().position(|(known, _)| *known == sender);
        let place = known.unwrap_or_else(|| {
            self.tracks.push((sender, Track::default()));
            self.tracks.len() - 1
        });
        &mut self.tracks[place].1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_message_is_finished_when_its_audience_has_it() {
        let inbox = Inbox::new(3);
        let first = inbox.sending(0, 2);
        let second = inbox.sending(0, 2);
        inbox.arrived(1, second, 0, 5);
        inbox.arrived(2, second, 0, 5);
        assert_eq!(inbox.finished().await, second);
        inbox.arrived(1, first, 0, 5);
        inbox.arrived(2, first, 0, 5);
        assert_eq!(inbox.finished().await, first);
        let counts = inbox.counts();
        assert_eq!((counts.delivered, counts.lost(), counts.misordered), (4, 0, 2));
    }

    #[test]
    fn doubles_do_not_hide_losses() {
        let inbox = Inbox::new(2);
        let message = inbox.sending(0, 2);
        inbox.arrived(0, message, 0, 1);
        inbox.arrived(0, message, 0, 1);
        let counts = inbox.counts();
        assert_eq!((counts.delivered, counts.doubled, counts.lost()), (1, 1, 1));
    }

    #[test]
    fn a_group_that_sees_two_orders_is_split() {
        let inbox = Inbox::new(4);
        inbox.group([0, 1]);
        let (one, other) = (inbox.sending(2, 2), inbox.sending(3, 2));
        for (receiver, message) in [(0, one), (0, other), (1, other), (1, one)] {
            inbox.arrived(receiver, message, 0, 1);
        }
        let counts = inbox.counts();
        assert_eq!((counts.split, counts.misordered, counts.lost()), (1, 0, 0));
    }
}
