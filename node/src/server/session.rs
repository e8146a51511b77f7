//! A client's session: a JSON object that the cluster agrees on.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use serde_json::{Map, Value};
use tokio::sync::oneshot;

use super::io::Io;
use crate::raft::ProposeError;
use crate::raft::state::SessionId;

/// The session of one client. Every handler on every node sees the same object.
#[derive(Clone)]
pub struct Session {
    id: SessionId,
    io: Io,
}

/// Why a session was not, or may not have been, written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    #[error(transparent)]
    Propose(#[from] ProposeError),
    /// Others changed the session each time that this change was tried.
    #[error("too many others write to the session")]
    Contended,
    /// The cluster does not take the object: it is nested too deep.
    #[error("the session is nested too deep")]
    TooDeep,
}

impl SessionError {
    /// One word, as clients of the relay application see it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Propose(error) => error.as_str(),
            Self::Contended => "Contended",
            Self::TooDeep => "TooDeep",
        }
    }
}

impl Session {
    pub(crate) fn new(id: SessionId, io: Io) -> Self {
        Self { id, io }
    }

    pub fn id(&self) -> SessionId {
        self.id
    }

    /// The object as this node knows it, its own writes that are still on their way included.
    pub fn get(&self) -> Arc<Map<String, Value>> {
        self.io.drafts().read(self.io.cluster(), self.id)
    }

    /// Changes the object. The change is proposed at once, in its place among this node's emits
    /// and joins, and again, on what stands there then, if another node's came first.
    pub fn update(
        &self,
        change: impl FnMut(&mut Map<String, Value>) + Send + 'static,
    ) -> SessionUpdate {
        let (done, updated) = oneshot::channel();
        let cluster = self.io.cluster();
        if self.io.drafts().write(cluster, self.id, Box::new(change), done) {
            let (io, id) = (self.io.clone(), self.id);
            cluster.spawn(async move { io.drafts().settle(io.cluster(), id).await });
        }
        SessionUpdate(updated)
    }
}

/// Resolves once the change is committed and filters on this node see it.
#[derive(Debug)]
pub struct SessionUpdate(oneshot::Receiver<Result<(), SessionError>>);

impl Future for SessionUpdate {
    type Output = Result<(), SessionError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // The other end is dropped only when the node goes down around it, or the change panics.
        Pin::new(&mut self.0).poll(context).map(|done| match done {
            Ok(result) => result,
            Err(_) => Err(SessionError::Propose(ProposeError::Timeout)),
        })
    }
}
