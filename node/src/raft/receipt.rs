//! What a proposer gets back, and what the nodes' delivery tasks are given.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::oneshot;
use tokio::task::coop;

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
    Pending(oneshot::Receiver<Answer>),
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
        let (sender, receiver) = oneshot::channel();
        (Waiter { sender, settle: None }, Self(State::Pending(receiver)))
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
            // The pump drops a waiter only when the node goes down around it.
            State::Pending(receiver) => Pin::new(receiver)
                .poll(context)
                .map(|answer| answer.unwrap_or(Err(ProposeError::Timeout))),
        }
    }
}

/// How a proposed change ended.
pub type Answer = Result<Outcome, ProposeError>;

type Settle = Box<dyn FnOnce(&Answer) + Send>;

/// Answers one [`Receipt`].
pub struct Waiter {
    sender: oneshot::Sender<Answer>,
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
        // Nobody may be waiting any more, and that is fine.
        let _ = self.sender.send(answer);
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
