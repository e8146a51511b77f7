//! What emits, joins and their like return: act now, learn the outcome if you wait.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use crate::raft::state::Outcome;
use crate::raft::{ProposeError, Receipt};

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
            State::Proposed(receipt) => {
                Poll::Ready(match ready!(Pin::new(receipt).poll(context)) {
                    Ok(Outcome::UnknownSocket) => Err(EmitError::Gone),
                    Ok(Outcome::TooManyRooms) => Err(EmitError::TooManyRooms),
                    Ok(_) => Ok(()),
                    Err(error) => Err(error.into()),
                })
            }
        }
    }
}
