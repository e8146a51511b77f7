//! What emits, joins and their like return: act now, learn the outcome if you wait.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use crate::raft::state::Outcome;
use crate::raft::{Answer, ProposeError, Receipt};

/// Why an emit, a join or the like did not, or may not have, happened.
#[derive(Debug, thiserror::Error)]
pub enum EmitError {
    /// Will never happen: the cluster has no leader that this node can reach.
    #[error("no quorum")]
    NoQuorum,
    /// Unknown: it happens once, or not at all.
    #[error("timeout")]
    Timeout,
    /// Will never happen: the node is stopping.
    #[error("draining")]
    Draining,
    /// Will never happen: too much is waiting already.
    #[error("overloaded")]
    Overloaded,
    /// Did not happen: the socket was gone.
    #[error("socket is gone")]
    Gone,
    /// Did not happen: the socket would be in more than 4096 rooms.
    #[error("too many rooms")]
    TooManyRooms,
    /// Will never happen: the protocol keeps the event's name for itself.
    #[error("reserved event name")]
    Reserved,
    /// The arguments cannot be written as JSON.
    #[error("arguments cannot be encoded")]
    Encode(#[source] serde_json::Error),
    /// The session filter is no object of scalars.
    #[error("invalid session filter")]
    Filter(#[source] crate::raft::state::FilterError),
}

impl EmitError {
    /// One word, as clients of the relay application see it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::NoQuorum => ProposeError::NoQuorum.as_str(),
            Self::Timeout => ProposeError::Timeout.as_str(),
            Self::Draining => ProposeError::Draining.as_str(),
            Self::Overloaded => ProposeError::Overloaded.as_str(),
            Self::Gone => "Gone",
            Self::TooManyRooms => "TooManyRooms",
            Self::Reserved => "Reserved",
            Self::Encode(_) => "Encode",
            Self::Filter(_) => "Filter",
        }
    }
}

impl From<ProposeError> for EmitError {
    fn from(error: ProposeError) -> Self {
        match error {
            ProposeError::NoQuorum => Self::NoQuorum,
            ProposeError::Timeout => Self::Timeout,
            ProposeError::Draining => Self::Draining,
            ProposeError::Overloaded => Self::Overloaded,
        }
    }
}

/// Resolves once the change is committed and this node has acted on it; direct emits at once.
#[derive(Debug)]
pub struct Agreed(State);

#[derive(Debug)]
enum State {
    Refused(Option<EmitError>),
    Proposed(Receipt),
    /// Several at once, and the first error of those that have ended.
    Several(Vec<Agreed>, Option<EmitError>),
}

impl Agreed {
    pub(crate) fn refused(error: EmitError) -> Self {
        Self(State::Refused(Some(error)))
    }

    /// Has `act` called with what awaiting it would yield: at once if that is known, else by the task that has acted on
    /// the change, before it goes on. So `act` must be short and must not block; an ack may be sent.
    ///
    /// It costs less than a handler that waits, for which a task is made.
    ///
    /// ```
    /// # use flotilla::server::{Ack, Data, Socket};
    /// async fn join(socket: Socket, Data(room): Data<String>, ack: Ack) {
    ///     socket.join(room).then(|joined| {
    ///         let error = joined.err().map(|error| error.to_string());
    ///         ack.send(&error).expect("a text is JSON");
    ///     });
    /// }
    /// ```
    pub fn then(self, act: impl FnOnce(Result<(), EmitError>) + Send + 'static) {
        match self.0 {
            State::Refused(error) => act(Err(error.expect("not used after completion"))),
            State::Proposed(receipt) => receipt.act(|answer| act(result(answer))),
            State::Several(pending, first_error) => follow_all(pending, first_error, Box::new(act)),
        }
    }
}

type Act = Box<dyn FnOnce(Result<(), EmitError>) + Send>;

/// Several that are followed by one act.
struct Followed {
    unknown: usize,
    first_error: Option<EmitError>,
    act: Option<Act>,
}

impl Followed {
    /// One of them is known. The last one's caller acts.
    fn note(followed: &Mutex<Self>, result: Result<(), EmitError>) {
        let mut all = followed.lock().expect("nothing panics while it counts");
        all.unknown -= 1;
        all.first_error = all.first_error.take().or_else(|| result.err());
        if all.unknown > 0 {
            return;
        }
        let last = (all.act.take(), all.first_error.take());
        drop(all);
        if let (Some(act), first_error) = last {
            act(first_error.map_or(Ok(()), Err));
        }
    }
}

fn follow_all(pending: Vec<Agreed>, first_error: Option<EmitError>, act: Act) {
    // This call counts as one, so that none is the last before all are followed.
    let unknown = pending.len() + 1;
    let followed = Arc::new(Mutex::new(Followed { unknown, first_error, act: Some(act) }));
    for agreed in pending {
        let followed = followed.clone();
        agreed.then(move |result| Followed::note(&followed, result));
    }
    Followed::note(&followed, Ok(()));
}

fn result(answer: Answer) -> Result<(), EmitError> {
    match answer {
        Ok(Outcome::UnknownSocket) => Err(EmitError::Gone),
        Ok(Outcome::TooManyRooms) => Err(EmitError::TooManyRooms),
        Ok(_) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

impl From<Receipt> for Agreed {
    fn from(receipt: Receipt) -> Self {
        Self(State::Proposed(receipt))
    }
}

/// Resolves once all have; to the first error, if there is one.
impl FromIterator<Self> for Agreed {
    fn from_iter<I: IntoIterator<Item = Self>>(several: I) -> Self {
        Self(State::Several(several.into_iter().collect(), None))
    }
}

impl Agreed {
    /// Whether it is still to be agreed.
    pub(crate) fn is_pending(&self) -> bool {
        match &self.0 {
            State::Refused(_) => false,
            State::Proposed(receipt) => receipt.is_pending(),
            State::Several(pending, _) => pending.iter().any(Self::is_pending),
        }
    }
}

impl Future for Agreed {
    type Output = Result<(), EmitError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            State::Refused(error) => {
                Poll::Ready(Err(error.take().expect("not polled after completion")))
            }
            State::Several(pending, first_error) => {
                pending.retain_mut(|agreed| match Pin::new(agreed).poll(context) {
                    Poll::Pending => true,
                    Poll::Ready(result) => {
                        *first_error = first_error.take().or_else(|| result.err());
                        false
                    }
                });
                if !pending.is_empty() {
                    return Poll::Pending;
                }
                Poll::Ready(first_error.take().map_or(Ok(()), Err))
            }
            State::Proposed(receipt) => Pin::new(receipt).poll(context).map(result),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::raft::Waiter;

    fn proposed() -> (Waiter, Agreed) {
        let (waiter, receipt) = Receipt::pending();
        (waiter, receipt.into())
    }

    #[test]
    fn several_are_followed_by_one_act_with_the_first_error() {
        let (sender, acts) = mpsc::channel();
        let (waiters, several): (Vec<_>, Vec<_>) = (0..3).map(|_| proposed()).unzip();
        let nested: Agreed =
            [several.into_iter().collect(), Receipt::at_once().into()].into_iter().collect();
        assert!(nested.is_pending());
        nested.then(move |result| sender.send(result.map_err(|error| error.as_str())).unwrap());
        let answers =
            [Ok(Outcome::Applied), Ok(Outcome::UnknownSocket), Err(ProposeError::Timeout)];
        for (waiter, answer) in waiters.into_iter().zip(answers) {
            assert_eq!(acts.try_recv(), Err(mpsc::TryRecvError::Empty));
            waiter.answer(answer);
        }
        assert_eq!(acts.try_recv(), Ok(Err("Gone")));
        assert_eq!(acts.try_recv(), Err(mpsc::TryRecvError::Disconnected), "once");
    }

    #[test]
    fn what_is_known_is_followed_at_once() {
        let (sender, acts) = mpsc::channel();
        let known = [
            Agreed::refused(EmitError::Reserved),
            Receipt::at_once().into(),
            Agreed::from_iter([]),
            Receipt::refused(ProposeError::Draining).into(),
        ];
        for agreed in known {
            assert!(!agreed.is_pending());
            let sender = sender.clone();
            agreed.then(move |result| sender.send(result.map_err(|error| error.as_str())).unwrap());
        }
        let acts: Vec<_> = acts.try_iter().collect();
        assert_eq!(acts, [Err("Reserved"), Ok(()), Ok(()), Err("Draining")]);
    }
}
