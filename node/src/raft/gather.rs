//! Lets proposals that come close together into the log together.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use flotilla_proto::raft as proto;
use openraft::alias::OneshotReceiverOf;
use openraft::errors::ClientWriteError;
use openraft::impls::ProgressResponder;
use openraft::raft::ClientWriteResult;
use proto::ProposeRequest;
use tokio::time::Instant;

use super::types::{Applied, Consensus, Data, TypeConfig};

type Written = ClientWriteResult<TypeConfig>;
type Responder = ProgressResponder<TypeConfig, Written>;
type Answer = OneshotReceiverOf<TypeConfig, Written>;

/// With so many changes in a round everybody is busy.
const BUSY_ROUND: u32 = 8;

/// So many changes in one proposal are a crowd: those whom it answers propose again a moment later.
pub(crate) const CROWD: u32 = 4;

/// A node whose clients were a crowd is expected to propose for them again so soon after that round has begun.
const EXPECTED_WITHIN: Duration = Duration::from_millis(5);

/// Those who expect another wait no longer for it.
const PATIENCE: Duration = Duration::from_millis(1);

/// The leader's door to the log.
///
/// What a round of replication costs hardly depends on what it carries, so where proposals come
/// often, those of several nodes share one: after a round has begun, the next begins `interval`
/// later. A proposal that comes after a pause does not wait, nor does one that comes after a round of
/// many changes: there everybody is busy, and more gathers by itself. Nodes that each propose for a crowd wait for one
/// another: what is agreed in one round answers all crowds at once, so that they come back together.
#[derive(Debug)]
pub(crate) struct Gather {
    interval: Duration,
    next: Mutex<NextRound<Waiting>>,
    seats: AtomicU64,
}

/// Who proposes through a door: the leader itself, or another node by one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seat(u64);

impl Seat {
    const OWN: Self = Self(0);
}

/// The round that comes next.
#[derive(Debug)]
struct NextRound<T> {
    opens: Instant,
    /// How many rounds have begun.
    number: u64,
    /// How many proposals have come.
    tickets: u64,
    /// Those that wait: of each node one, or its registration too.
    waiting: Vec<Queued<T>>,
    /// Those of rounds that have begun, until openraft has them.
    begun: VecDeque<T>,
    /// This node's own pump waits, with what it has queued.
    pump_waits: bool,
    /// Whose last proposal was for a crowd, and until when another is expected.
    crowds: Vec<(Seat, Instant)>,
}

#[derive(Debug)]
struct Queued<T> {
    ticket: u64,
    seat: Seat,
    changes: u32,
    proposal: T,
}

/// The round that a proposal is part of.
#[derive(Debug)]
struct Ahead {
    ticket: u64,
    number: u64,
    opens: Instant,
    /// Until when others are waited for.
    patience: Option<Instant>,
}

impl<T> NextRound<T> {
    fn beginning(opens: Instant) -> Self {
        Self {
            opens,
            number: 0,
            tickets: 0,
            waiting: Vec::new(),
            begun: VecDeque::new(),
            pump_waits: false,
            crowds: Vec::new(),
        }
    }

    /// Adds a proposal of so many changes.
    fn join(&mut self, seat: Seat, changes: u32, proposal: T, now: Instant) -> Ahead {
        self.tickets += 1;
        let ticket = self.tickets;
        self.waiting.push(Queued { ticket, seat, changes, proposal });
        self.crowds.retain(|(_, until)| *until > now);
        let has_come = |seat: &Seat| self.waiting.iter().any(|queued| queued.seat == *seat);
        let is_complete = self.crowds.iter().all(|(seat, _)| has_come(seat));
        let patience = (!is_complete).then(|| now + PATIENCE);
        Ahead { ticket, number: self.number, opens: self.opens, patience }
    }

    /// Takes a proposal out, if its round has not begun.
    fn leave(&mut self, ticket: u64) {
        self.waiting.retain(|queued| queued.ticket != ticket);
    }

    /// When it begins, if anyone waits for it.
    fn ahead(&self) -> Option<Instant> {
        (self.pump_waits || !self.waiting.is_empty()).then_some(self.opens)
    }

    /// Begins it, with all that wait; with none it does not begin.
    fn begin(&mut self, now: Instant, interval: Duration) {
        // Other nodes say how many.
        let changes =
            self.waiting.iter().fold(0, |sum: u32, queued| sum.saturating_add(queued.changes));
        if !self.waiting.is_empty() {
            self.number += 1;
            self.opens = if changes < BUSY_ROUND { now + interval } else { now };
        }
        for Queued { seat, changes, proposal, .. } in self.waiting.drain(..) {
            self.crowds.retain(|(other, _)| *other != seat);
            if changes >= CROWD {
                self.crowds.push((seat, now + EXPECTED_WITHIN));
            }
            self.begun.push_back(proposal);
        }
    }
}

struct Waiting {
    request: ProposeRequest,
    responder: Responder,
}

impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiting").field("changes", &self.request.changes).finish_non_exhaustive()
    }
}

/// Held by who waits for a proposal's answer: one that nobody waits for any more does not begin. Its proposer takes it
/// for unknown, and what a node proposed long ago may be about a process that has ended since.
struct Leaving<'a> {
    door: &'a Gather,
    ticket: u64,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.door.lock().leave(self.ticket);
    }
}

/// Why a proposal brought no answer.
#[derive(Debug)]
pub(crate) enum WriteError {
    Refused(ClientWriteError<TypeConfig>),
    /// Consensus has ended on this node.
    Ended,
}

impl Gather {
    pub(crate) fn new(interval: Duration) -> Self {
        let next = Mutex::new(NextRound::beginning(Instant::now()));
        Self { interval, next, seats: AtomicU64::new(Seat::OWN.0 + 1) }
    }

    /// Of another node's stream of proposals.
    pub(crate) fn seat(&self) -> Seat {
        Seat(self.seats.fetch_add(1, Ordering::Relaxed))
    }

    /// Waits until a round may begin.
    pub(crate) async fn opened(&self) {
        let opens = {
            let mut next = self.lock();
            next.pump_waits = next.opens > Instant::now();
            next.opens
        };
        if opens > Instant::now() {
            tokio::time::sleep_until(opens).await;
        }
        self.lock().pump_waits = false;
    }

    /// Whether changes may wait for others at all.
    pub(crate) fn is_patient(&self) -> bool {
        !self.interval.is_zero()
    }

    /// When the next round begins, if that is certain.
    pub(crate) fn ahead(&self) -> Option<Instant> {
        self.lock().ahead()
    }

    /// Writes another node's proposal in the next round.
    pub(crate) async fn write(
        &self,
        seat: Seat,
        consensus: &Consensus,
        request: ProposeRequest,
    ) -> Result<Applied, WriteError> {
        let (answer, round) = self.queue(seat, request);
        let begins = round.patience.max(Some(round.opens));
        self.write_in(round, begins, answer, consensus).await
    }

    /// Begins a round with this node's own proposal, and with all that wait, once those have come who are expected.
    pub(crate) async fn write_own(
        &self,
        consensus: &Consensus,
        request: ProposeRequest,
    ) -> Result<Applied, WriteError> {
        let (answer, round) = self.queue(Seat::OWN, request);
        let begins = round.patience;
        self.write_in(round, begins, answer, consensus).await
    }

    async fn write_in(
        &self,
        round: Ahead,
        begins: Option<Instant>,
        mut answer: Answer,
        consensus: &Consensus,
    ) -> Result<Applied, WriteError> {
        let _leaving = Leaving { door: self, ticket: round.ticket };
        if let Some(begins) = begins.filter(|begins| *begins > Instant::now()) {
            tokio::select! {
                biased;
                // Another has begun the round.
                result = &mut answer => return written(result),
                () = tokio::time::sleep_until(begins) => {}
            }
            // This node's own pump may wait for the same moment, and has yet to take what is queued.
            tokio::task::yield_now().await;
        }
        self.flush(consensus, round.number).await?;
        written(answer.await)
    }

    fn queue(&self, seat: Seat, request: ProposeRequest) -> (Answer, Ahead) {
        let (responder, answer) = Responder::complete_only();
        let changes = request.changes;
        let waiting = Waiting { request, responder };
        let mut ahead = self.lock().join(seat, changes, waiting, Instant::now());
        ahead.patience = ahead.patience.filter(|_| self.is_patient());
        (answer, ahead)
    }

    /// Begins that round if nobody has, and hands over all at once, so that openraft finds them together.
    ///
    /// Whoever comes first does it for all, and whoever comes later does what is left: none depends on another that may
    /// have given up meanwhile.
    async fn flush(&self, consensus: &Consensus, number: u64) -> Result<(), WriteError> {
        let next_begun = || self.lock().begun.pop_front();
        {
            let mut next = self.lock();
            if next.number == number {
                next.begin(Instant::now(), self.interval);
            }
        }
        while let Some(Waiting { request, responder }) = next_begun() {
            let data = Data(request.proposal);
            let handed_over = consensus.client_write_ff(data, Some(responder)).await;
            handed_over.map_err(|_fatal| WriteError::Ended)?;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, NextRound<Waiting>> {
        self.next.lock().expect("nothing panics while it holds the waiting proposals")
    }
}

fn written<E>(answer: Result<Written, E>) -> Result<Applied, WriteError> {
    match answer {
        Ok(Ok(written)) => Ok(written.data),
        Ok(Err(error)) => Err(WriteError::Refused(error)),
        Err(_dropped) => Err(WriteError::Ended),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OTHER: Seat = Seat(1);
    const INTERVAL: Duration = Duration::from_millis(1);

    fn begin(round: &mut NextRound<&'static str>, now: Instant) -> Vec<&'static str> {
        round.begin(now, INTERVAL);
        round.begun.drain(..).collect()
    }

    #[test]
    fn proposals_after_a_round_share_the_next_one() {
        let start = Instant::now();
        let mut round = NextRound::beginning(start);
        assert_eq!(round.ahead(), None);
        assert_eq!(round.join(Seat::OWN, 1, "a", start).patience, None);
        assert_eq!(round.ahead(), Some(start), "after a pause nobody waits");
        assert_eq!(begin(&mut round, start), ["a"]);
        round.join(OTHER, 1, "b", start);
        round.join(Seat::OWN, 1, "c", start);
        let later = start + INTERVAL;
        assert_eq!(round.ahead(), Some(later), "it is sure to begin");
        assert_eq!(begin(&mut round, later), ["b", "c"]);
        assert_eq!(begin(&mut round, later + INTERVAL / 2), Vec::<&str>::new());
        let is = (round.number, round.opens);
        assert_eq!(is, (2, later + INTERVAL), "no round begins with nothing");
    }

    #[test]
    fn proposal_that_nobody_waits_for_does_not_begin() {
        let start = Instant::now();
        let mut round = NextRound::beginning(start);
        let (a, b) = (round.join(OTHER, 1, "a", start), round.join(Seat::OWN, 1, "b", start));
        round.leave(a.ticket);
        assert_eq!(begin(&mut round, start), ["b"]);
        round.join(OTHER, 1, "c", start);
        round.leave(b.ticket);
        assert_eq!(round.waiting.len(), 1, "the one that left has begun long ago");
        let d = round.join(OTHER, 1, "d", start);
        assert_eq!(begin(&mut round, start), ["c", "d"], "of one node too");
        round.leave(d.ticket);
        let e = round.join(OTHER, 1, "e", start);
        round.leave(e.ticket);
        assert_eq!(round.ahead(), None);
    }

    #[test]
    fn what_is_left_of_a_round_is_first_in_the_next() {
        let start = Instant::now();
        let mut round = NextRound::beginning(start);
        round.join(Seat::OWN, 1, "a", start);
        round.join(OTHER, 1, "b", start);
        round.begin(start, INTERVAL);
        assert_eq!(round.begun.pop_front(), Some("a"));
        round.join(Seat::OWN, 1, "c", start);
        assert_eq!(begin(&mut round, start), ["b", "c"]);
    }

    #[test]
    fn busy_round_is_followed_at_once() {
        let start = Instant::now();
        let mut round = NextRound::beginning(start);
        round.join(Seat::OWN, BUSY_ROUND - 1, "a", start);
        round.join(OTHER, 1, "b", start);
        begin(&mut round, start);
        assert_eq!(round.opens, start, "many changes");
        round.join(Seat::OWN, 1, "c", start);
        begin(&mut round, start);
        assert_eq!(round.opens, start + INTERVAL, "few changes");
    }

    #[test]
    fn crowds_of_several_nodes_wait_for_one_another() {
        let start = Instant::now();
        let mut round = NextRound::beginning(start);
        let first = round.join(Seat::OWN, CROWD, "a", start);
        assert_eq!(first.patience, None, "nobody is expected yet");
        begin(&mut round, start);
        assert_eq!(round.join(OTHER, CROWD, "b", start).patience, Some(start + PATIENCE));
        assert_eq!(round.join(Seat::OWN, CROWD, "c", start).patience, None, "all have come");
        assert_eq!(begin(&mut round, start), ["b", "c"]);
        assert_eq!(round.join(Seat::OWN, 1, "d", start).patience, Some(start + PATIENCE));
        begin(&mut round, start);
        assert_eq!(round.join(OTHER, 1, "e", start).patience, None, "one change is no crowd");
        let later = start + EXPECTED_WITHIN;
        begin(&mut round, start);
        assert_eq!(round.join(Seat::OWN, CROWD, "f", later).patience, None);
        begin(&mut round, later);
        let long_after = later + EXPECTED_WITHIN;
        let last = round.join(OTHER, 1, "g", long_after);
        assert_eq!(last.patience, None, "it is not expected for ever");
    }
}
