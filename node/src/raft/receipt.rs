//! What a proposer gets back, and what the nodes' delivery tasks are given.

use std::fmt;
use std::future::Future;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker, ready};

use tokio::task::coop;
use tracing::error;

use super::alone::BeingHandled;
use super::state::{Effect, Outcome, Place};

/// Why a change was not, or may not have been, agreed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Will never be applied: there was no leader to propose it to, or this node is fenced.
    #[error("no quorum")]
    NoQuorum,
    /// Unknown: the pump goes on with the same sequence number, so it is applied once or never.
    #[error("timeout")]
    Timeout,
    /// Will never be applied: the node is stopping.
    #[error("draining")]
    Draining,
    /// Will never be applied: too much is waiting already.
    #[error("overloaded")]
    Overloaded,
}

impl ProposeError {
    /// Whether the change will certainly never be applied.
    pub fn is_final(self) -> bool {
        self != Self::Timeout
    }

    /// The word that clients and operators see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoQuorum => "NoQuorum",
            Self::Timeout => "Timeout",
            Self::Draining => "Draining",
            Self::Overloaded => "Overloaded",
        }
    }
}

/// The pending answer to a proposed change. It may be awaited, or dropped: the change goes on.
#[derive(Debug)]
pub struct Receipt(State);

#[derive(Debug)]
enum State {
    Answered(Answer),
    /// Done when it was called.
    AtOnce,
    Pending(Arc<Slot>),
}

impl Receipt {
    pub fn refused(error: ProposeError) -> Self {
        Self(State::Answered(Err(error)))
    }

    /// What needed no agreement.
    pub fn done() -> Self {
        Self(State::Answered(Ok(Outcome::Applied)))
    }

    /// What needed no agreement, and gave clients something to read. Whoever awaits many of them gives way to others now
    /// and then (tokio's cooperative budget): it may be in the way of the task that writes what it emits.
    pub fn at_once() -> Self {
        Self(State::AtOnce)
    }

    /// A receipt, and the other end that answers it.
    pub fn pending() -> (Waiter, Self) {
        let slot = Arc::new(Slot::default());
        (
            Waiter { answering: Answering(Some(slot.clone())), settle: None },
            Self(State::Pending(slot)),
        )
    }

    /// Whether the answer is still to come.
    pub fn is_pending(&self) -> bool {
        matches!(&self.0, State::Pending(slot) if !matches!(*slot.lock(), Content::Answered(_)))
    }

    /// Has `act` called with the answer, in place of whoever would await it: at once if it is there, else by the one
    /// who gives it, whom it must not hold up.
    pub fn act(self, act: impl FnOnce(Answer) + Send + 'static) {
        let answer = match self.0 {
            State::Answered(answer) => answer,
            State::AtOnce => Ok(Outcome::Applied),
            State::Pending(slot) => {
                let mut content = slot.lock();
                match &*content {
                    Content::Answered(answer) => answer.clone(),
                    Content::Awaited(_) | Content::Open | Content::Act(_) => {
                        *content = Content::Act(Box::new(act));
                        return;
                    }
                }
            }
        };
        act(answer);
    }
}

/// Where the two ends of a receipt meet.
#[derive(Default)]
struct Slot(Mutex<Content>);

#[derive(Default)]
enum Content {
    #[default]
    Open,
    Awaited(Waker),
    Act(Act),
    Answered(Answer),
}

type Act = Box<dyn FnOnce(Answer) + Send>;

impl Slot {
    fn answer(&self, answer: Answer) {
        let before = mem::replace(&mut *self.lock(), Content::Answered(answer.clone()));
        match before {
            Content::Awaited(waker) => waker.wake(),
            // It belongs to one caller, and its panic is no other's affair.
            Content::Act(act) => {
                if catch_unwind(AssertUnwindSafe(|| act(answer))).is_err() {
                    error!("what was to follow an agreement panicked");
                }
            }
            // Nobody may be waiting any more, and that is fine.
            Content::Open | Content::Answered(_) => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, Content> {
        self.0.lock().expect("nothing panics while it holds a receipt")
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").finish_non_exhaustive()
    }
}

/// The end of a slot that answers, once. To drop it is an answer, too.
struct Answering(Option<Arc<Slot>>);

impl Answering {
    fn answer(mut self, answer: Answer) {
        if let Some(slot) = self.0.take() {
            slot.answer(answer);
        }
    }
}

impl Drop for Answering {
    /// The pump drops a waiter only when the node goes down around it.
    fn drop(&mut self) {
        if let Some(slot) = self.0.take() {
            slot.answer(Err(ProposeError::Timeout));
        }
    }
}

impl Future for Receipt {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            State::Answered(answer) => Poll::Ready(answer.clone()),
            State::AtOnce => coop::poll_proceed(context).map(|budget| {
                budget.made_progress();
                Ok(Outcome::Applied)
            }),
            State::Pending(slot) => {
                let budget = ready!(coop::poll_proceed(context));
                let mut content = slot.lock();
                match &*content {
                    Content::Answered(answer) => {
                        budget.made_progress();
                        return Poll::Ready(answer.clone());
                    }
                    Content::Awaited(waker) if waker.will_wake(context.waker()) => {}
                    Content::Awaited(_) | Content::Open | Content::Act(_) => {
                        *content = Content::Awaited(context.waker().clone());
                    }
                }
                Poll::Pending
            }
        }
    }
}

/// How a proposed change ended.
pub type Answer = Result<Outcome, ProposeError>;

type Settle = Box<dyn FnOnce(&Answer) + Send>;

/// Answers one [`Receipt`].
pub struct Waiter {
    answering: Answering,
    settle: Option<Settle>,
}

impl Waiter {
    /// Has `settle` called with the answer, before the receipt is answered.
    pub fn then(self, settle: impl FnOnce(&Answer) + Send + 'static) -> Self {
        Self { settle: Some(Box::new(settle)), ..self }
    }

    pub fn answer(self, answer: Answer) {
        if let Some(settle) = self.settle {
            settle(&answer);
        }
        self.answering.answer(answer);
    }
}

impl fmt::Debug for Waiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiter").finish_non_exhaustive()
    }
}

/// What the delivery task of a namespace is handed in one go.
#[derive(Debug)]
pub struct Handed {
    pub batch: Vec<Delivery>,
    /// To be kept until all of it has been acted on.
    pub handled: BeingHandled,
}

/// What the delivery task of a namespace is told, in the order of the log.
#[derive(Debug)]
pub struct Delivery {
    pub news: News,
    /// To be answered once the news has been acted on; of a change, on the node that proposed it.
    pub waiter: Option<(Waiter, Outcome)>,
}

#[derive(Debug)]
pub enum News {
    /// A change was applied, at its place in the log.
    Applied(Place, Effect),
    /// This process has another incarnation from here on: no socket is its own any more, as far as
    /// the cluster is concerned.
    Registered,
    /// This process is about to take proposals again: those for its open sockets come first.
    Opening,
}

/// Where this node stands in its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Not yet a registered member of a cluster with a leader.
    Starting,
    /// Registered, and the lease is held.
    Ready,
    /// The lease ran out, or is about to: this node must act as if declared dead.
    Fenced,
    /// The cluster declared this node dead: its sockets are gone from the agreed state.
    Down,
    Draining,
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test]
    async fn receipt_is_answered_to_whoever_awaits_it() {
        let (waiter, mut receipt) = Receipt::pending();
        assert!(receipt.is_pending());
        assert!(futures_util::poll!(&mut receipt).is_pending());
        let answering = async { waiter.answer(Err(ProposeError::Draining)) };
        let (answer, ()) = tokio::join!(&mut receipt, answering);
        assert_eq!(answer, Err(ProposeError::Draining));
        assert!(!receipt.is_pending());
        let (dropped, receipt) = Receipt::pending();
        drop(dropped);
        assert_eq!(receipt.await, Err(ProposeError::Timeout), "the node goes down");
    }

    #[test]
    fn act_follows_the_answer_whichever_comes_first() {
        let done = Arc::new(Mutex::new(Vec::new()));
        let note = |name: &'static str| {
            let done = done.clone();
            move |answer: Answer| done.lock().unwrap().push((name, answer))
        };
        let (waiter, receipt) = Receipt::pending();
        receipt.act(note("before"));
        assert!(done.lock().unwrap().is_empty());
        let settled = note("settled");
        waiter.then(move |answer| settled(answer.clone())).answer(Ok(Outcome::Applied));
        let (waiter, receipt) = Receipt::pending();
        waiter.answer(Ok(Outcome::UnknownSocket));
        receipt.act(note("after"));
        Receipt::refused(ProposeError::Overloaded).act(note("refused"));
        Receipt::at_once().act(note("at once"));
        let (dropped, receipt) = Receipt::pending();
        receipt.act(note("dropped"));
        drop(dropped);
        let expected = [
            ("settled", Ok(Outcome::Applied)),
            ("before", Ok(Outcome::Applied)),
            ("after", Ok(Outcome::UnknownSocket)),
            ("refused", Err(ProposeError::Overloaded)),
            ("at once", Ok(Outcome::Applied)),
            ("dropped", Err(ProposeError::Timeout)),
        ];
        assert_eq!(*done.lock().unwrap(), expected);
    }

    #[test]
    fn act_that_panics_stops_at_the_answer() {
        let (waiter, receipt) = Receipt::pending();
        receipt.act(|_answer| panic!("the application's"));
        waiter.answer(Ok(Outcome::Applied));
    }

    #[tokio::test]
    async fn many_that_need_no_agreement_give_way_to_others() {
        let ready = poll_fn(|context| {
            let mut poll = || Pin::new(&mut Receipt::at_once()).poll(context).is_ready();
            Poll::Ready((0..1_000).take_while(|_| poll()).count())
        });
        let ready = ready.await;
        assert!((1..1_000).contains(&ready), "{ready} in one go");
        assert_eq!(Receipt::at_once().await, Ok(Outcome::Applied));
    }
}
