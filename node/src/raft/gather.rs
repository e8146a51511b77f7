//! Lets proposals that come close together into the log together.

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

/// So many changes in a round are a crowd.
const CROWD: u32 = 8;

/// So many changes in one proposal are a crowd of one node's own.
const CROWD_OF_ONE: u32 = 4;

/// A node whose clients were a crowd is expected to propose for them again within this time.
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
    next: Mutex<Round<Waiting>>,
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
struct Round<T> {
    opens: Instant,
    /// How many rounds have begun.
    number: u64,
    /// At most one for each node, since a node has one proposal in flight. With how many changes it carries.
    waiting: Vec<(Seat, u32, T)>,
    /// This node's own pump waits, with what it has queued.
    pump_waits: bool,
    /// Whose last proposal was for a crowd, and until when another is expected.
    crowds: Vec<(Seat, Instant)>,
}

impl<T> Round<T> {
    fn beginning(opens: Instant) -> Self {
        Self { opens, number: 0, waiting: Vec::new(), pump_waits: false, crowds: Vec::new() }
    }

    /// Adds a proposal of so many changes. Others that are expected may be waited for until then.
    fn join(&mut self, seat: Seat, changes: u32, waiting: T, now: Instant) -> Option<Instant> {
        self.waiting.push((seat, changes, waiting));
        self.crowds.retain(|(_, until)| *until > now);
        let has_come = |seat: &Seat| self.waiting.iter().any(|(other, ..)| other == seat);
        let is_complete = self.crowds.iter().all(|(seat, _)| has_come(seat));
        (!is_complete).then(|| now + PATIENCE)
    }

    /// When it begins, if anyone waits for it.
    fn ahead(&self) -> Option<Instant> {
        (self.pump_waits || !self.waiting.is_empty()).then_some(self.opens)
    }

    /// Begins it, with all that wait; with none it does not begin.
    fn begin(&mut self, now: Instant, interval: Duration) -> Vec<T> {
        let waiting = std::mem::take(&mut self.waiting);
        // Other nodes say how many.
        let changes =
            waiting.iter().fold(0, |sum: u32, (_, changes, _)| sum.saturating_add(*changes));
        if !waiting.is_empty() {
            self.number += 1;
            self.opens = if changes < CROWD { now + interval } else { now };
        }
        let begun = waiting.into_iter().map(|(seat, changes, waiting)| {
            self.crowds.retain(|(other, _)| *other != seat);
            if changes >= CROWD_OF_ONE {
                self.crowds.push((seat, now + EXPECTED_WITHIN));
            }
            waiting
        });
        begun.collect()
    }
}

/// The round that a proposal is part of.
struct Ahead {
    number: u64,
    opens: Instant,
    /// Until when others are waited for.
    patience: Option<Instant>,
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

/// Why a proposal brought no answer.
#[derive(Debug)]
pub(crate) enum WriteError {
    Refused(ClientWriteError<TypeConfig>),
    /// Consensus has ended on this node.
    Ended,
}

impl Gather {
    pub(crate) fn new(interval: Duration) -> Self {
        let next = Mutex::new(Round::beginning(Instant::now()));
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
        let (mut answer, round) = self.queue(seat, request);
        let begins = round.patience.map_or(round.opens, |patience| patience.max(round.opens));
        if begins > Instant::now() {
            tokio::select! {
                biased;
                // Another has begun the round.
                result = &mut answer => return written(result),
                () = tokio::time::sleep_until(begins) => {}
            }
            // This node's own pump waits for the same moment, and has yet to take what is queued.
            tokio::task::yield_now().await;
        }
        // Whoever comes first writes for all: none depends on another that may have given up.
        self.flush(consensus, round.number).await?;
        written(answer.await)
    }

    /// Begins a round with this node's own proposal, and with all that wait, once those have come who are expected.
    pub(crate) async fn write_own(
        &self,
        consensus: &Consensus,
        request: ProposeRequest,
    ) -> Result<Applied, WriteError> {
        let (mut answer, round) = self.queue(Seat::OWN, request);
        if let Some(patience) = round.patience {
            tokio::select! {
                biased;
                result = &mut answer => return written(result),
                () = tokio::time::sleep_until(patience) => {}
            }
        }
        self.flush(consensus, round.number).await?;
        written(answer.await)
    }

    fn queue(&self, seat: Seat, request: ProposeRequest) -> (Answer, Ahead) {
        let (responder, answer) = Responder::complete_only();
        let changes = request.changes;
        let mut next = self.lock();
        let waiting = Waiting { request, responder };
        let patience = next.join(seat, changes, waiting, Instant::now());
        let patience = patience.filter(|_| self.is_patient());
        (answer, Ahead { number: next.number, opens: next.opens, patience })
    }

    /// Hands over all at once, so that openraft finds them together. Does nothing if that round has begun.
    async fn flush(&self, consensus: &Consensus, number: u64) -> Result<(), WriteError> {
        let waiting = {
            let mut next = self.lock();
            if next.number != number {
                return Ok(());
            }
            next.begin(Instant::now(), self.interval)
        };
        for Waiting { request, responder } in waiting {
            let data = Data(request.proposal);
            let handed_over = consensus.client_write_ff(data, Some(responder)).await;
            handed_over.map_err(|_fatal| WriteError::Ended)?;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Round<Waiting>> {
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

    #[test]
    fn proposals_after_a_round_share_the_next_one() {
        let start = Instant::now();
        let mut round = Round::beginning(start);
        assert_eq!(round.ahead(), None);
        assert_eq!(round.join(Seat::OWN, 1, "a", start), None);
        assert_eq!(round.ahead(), Some(start), "after a pause nobody waits");
        assert_eq!(round.begin(start, INTERVAL), ["a"]);
        round.join(OTHER, 1, "b", start);
        round.join(Seat::OWN, 1, "c", start);
        let later = start + INTERVAL;
        assert_eq!(round.ahead(), Some(later), "it is sure to begin");
        assert_eq!(round.begin(later, INTERVAL), ["b", "c"]);
        assert_eq!(round.begin(later + INTERVAL / 2, INTERVAL), Vec::<&str>::new());
        assert_eq!(
            (round.number, round.opens),
            (2, later + INTERVAL),
            "no round begins with nothing"
        );
    }

    #[test]
    fn crowd_is_followed_at_once() {
        let start = Instant::now();
        let mut round = Round::beginning(start);
        round.join(Seat::OWN, CROWD - 1, "a", start);
        round.join(OTHER, 1, "b", start);
        round.begin(start, INTERVAL);
        assert_eq!(round.opens, start, "many changes");
        round.join(Seat::OWN, 1, "c", start);
        round.begin(start, INTERVAL);
        assert_eq!(round.opens, start + INTERVAL, "few changes");
    }

    #[test]
    fn crowds_of_several_nodes_wait_for_one_another() {
        let start = Instant::now();
        let mut round = Round::beginning(start);
        assert_eq!(round.join(Seat::OWN, CROWD, "a", start), None, "nobody is expected yet");
        round.begin(start, INTERVAL);
        assert_eq!(round.join(OTHER, CROWD, "b", start), Some(start + PATIENCE));
        assert_eq!(round.join(Seat::OWN, CROWD, "c", start), None, "all have come");
        assert_eq!(round.begin(start, INTERVAL), ["b", "c"]);
        assert_eq!(round.join(Seat::OWN, 1, "d", start), Some(start + PATIENCE));
        round.begin(start, INTERVAL);
        assert_eq!(round.join(OTHER, 1, "e", start), None, "one change is no crowd");
        let later = start + EXPECTED_WITHIN;
        round.begin(start, INTERVAL);
        assert_eq!(round.join(Seat::OWN, CROWD, "f", later), None);
        round.begin(later, INTERVAL);
        let long_after = later + EXPECTED_WITHIN;
        assert_eq!(round.join(OTHER, 1, "g", long_after), None, "it is not expected for ever");
    }
}
