//! Lets proposals that come close together into the log together.

use std::fmt;
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

/// The leader's door to the log.
///
/// What a round of replication costs hardly depends on what it carries, so where proposals come
/// often, those of several nodes share one: after a round has begun, the next begins `interval`
/// later. A proposal that comes after a pause does not wait, nor does one that comes after a round of
/// many changes: there everybody is busy, and more gathers by itself.
#[derive(Debug)]
pub(crate) struct Gather {
    interval: Duration,
    next: Mutex<Round<Waiting>>,
}

/// The round that comes next.
#[derive(Debug)]
struct Round<T> {
    opens: Instant,
    /// At most one for each node, since a node has one proposal in flight.
    waiting: Vec<T>,
    /// What those that wait carry together.
    changes: u32,
    /// This node's own pump waits, with what it has queued.
    pump_waits: bool,
}

impl<T> Round<T> {
    fn beginning(opens: Instant) -> Self {
        Self { opens, waiting: Vec::new(), changes: 0, pump_waits: false }
    }

    /// Adds a proposal of so many changes; returns when the round may begin.
    fn join(&mut self, waiting: T, changes: u32) -> Instant {
        self.waiting.push(waiting);
        self.changes = self.changes.saturating_add(changes);
        self.opens
    }

    /// When it begins, if anyone waits for it.
    fn ahead(&self) -> Option<Instant> {
        (self.pump_waits || !self.waiting.is_empty()).then_some(self.opens)
    }

    /// Begins it, with all that wait; with none it does not begin.
    fn begin(&mut self, now: Instant, interval: Duration) -> Vec<T> {
        if !self.waiting.is_empty() {
            self.opens = if self.changes < CROWD { now + interval } else { now };
        }
        self.changes = 0;
        std::mem::take(&mut self.waiting)
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

/// Why a proposal brought no answer.
#[derive(Debug)]
pub(crate) enum WriteError {
    Refused(ClientWriteError<TypeConfig>),
    /// Consensus has ended on this node.
    Ended,
}

impl Gather {
    pub(crate) fn new(interval: Duration) -> Self {
        Self { interval, next: Mutex::new(Round::beginning(Instant::now())) }
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

    /// When the next round begins, if that is certain.
    pub(crate) fn ahead(&self) -> Option<Instant> {
        self.lock().ahead()
    }

    /// Writes a proposal in the next round.
    pub(crate) async fn write(
        &self,
        consensus: &Consensus,
        request: ProposeRequest,
    ) -> Result<Applied, WriteError> {
        let (answer, opens) = self.queue(request);
        if opens > Instant::now() {
            tokio::time::sleep_until(opens).await;
            // This node's own pump waits for the same moment, and has yet to take what is queued.
            tokio::task::yield_now().await;
        }
        // Whoever comes first writes for all: none depends on another that may have given up.
        self.flush(consensus).await?;
        written(answer).await
    }

    /// Begins a round with this proposal, and with all that wait.
    pub(crate) async fn write_now(
        &self,
        consensus: &Consensus,
        request: ProposeRequest,
    ) -> Result<Applied, WriteError> {
        let (answer, _) = self.queue(request);
        self.flush(consensus).await?;
        written(answer).await
    }

    fn queue(&self, request: ProposeRequest) -> (Answer, Instant) {
        let (responder, answer) = Responder::complete_only();
        let changes = request.changes;
        (answer, self.lock().join(Waiting { request, responder }, changes))
    }

    /// Hands over all at once, so that openraft finds them together.
    async fn flush(&self, consensus: &Consensus) -> Result<(), WriteError> {
        let waiting = self.lock().begin(Instant::now(), self.interval);
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

async fn written(answer: Answer) -> Result<Applied, WriteError> {
    match answer.await {
        Ok(Ok(written)) => Ok(written.data),
        Ok(Err(error)) => Err(WriteError::Refused(error)),
        Err(_dropped) => Err(WriteError::Ended),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proposals_after_a_round_share_the_next_one() {
        let start = Instant::now();
        let interval = Duration::from_millis(1);
        let mut round = Round::beginning(start);
        assert_eq!(round.ahead(), None);
        assert_eq!(round.join("a", 1), start, "after a pause nobody waits");
        assert_eq!(round.begin(start, interval), ["a"]);
        assert_eq!(round.join("b", 1), start + interval);
        assert_eq!(round.join("c", 1), start + interval);
        assert_eq!(round.ahead(), Some(start + interval), "it is sure to begin");
        let later = start + interval;
        assert_eq!(round.begin(later, interval), ["b", "c"]);
        assert_eq!(round.begin(later + interval / 2, interval), Vec::<&str>::new());
        assert_eq!(round.opens, later + interval, "no round begins with nothing");
    }

    #[test]
    fn crowd_is_followed_at_once() {
        let start = Instant::now();
        let interval = Duration::from_millis(1);
        let mut round = Round::beginning(start);
        round.join("a", CROWD - 1);
        round.join("b", 1);
        round.begin(start, interval);
        assert_eq!(round.join("c", 1), start, "many changes");
        round.begin(start, interval);
        assert_eq!(round.join("d", 1), start + interval, "few changes");
    }
}
