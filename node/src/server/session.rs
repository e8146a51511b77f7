//! A client's session: a JSON object that the cluster agrees on.

mod config;
mod layer;
mod sessions;
mod shown;
mod token;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderValue;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokio::sync::oneshot;

pub use config::{Secret, SessionConfig, SessionCookieConfig, SessionSource};
pub use layer::{SessionLayer, SessionService};
pub(crate) use sessions::{Hold, NoSession, Seat, Sessions};

use super::drafts::Attempt;
use super::io::Io;
use crate::raft::state::{Change, Outcome, SessionId};
use crate::raft::{ProposeError, Receipt};

/// The session of one client. Every handler on every node sees the same object.
///
/// With `session.sources` in the configuration, clients come back to their sessions: a session is
/// then shared by all sockets and HTTP requests of its client, on all nodes, until nobody has used
/// it for `session.max_age`. Otherwise each connection has one of its own, which goes with it.
#[derive(Clone)]
pub struct Session {
    id: SessionId,
    io: Io,
    /// What this node knows of a session that its client comes back to.
    hold: Option<Arc<Hold>>,
}

/// A session's object as it was read, to be changed and [saved](Session::save).
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    pub object: Map<String, Value>,
    /// Which state of the session it is; 0 if there was none yet.
    pub revision: u64,
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
    /// The object's JSON would be longer than `session.max_bytes`: nothing was written.
    #[error("the session would be {bytes} bytes long, and may be {max_bytes}")]
    TooLarge { bytes: usize, max_bytes: usize },
    /// The session has changed since it was read: nothing was saved.
    #[error("the session has changed: revision {read} was read, {found} stands there")]
    Conflict { read: u64, found: u64 },
    /// The session was destroyed, or has expired. It is not made again.
    #[error("the session is over")]
    Over,
    /// Clients do not come back to their sessions: `session.sources` names none.
    #[error("sessions are of one connection each")]
    OfConnection,
}

impl SessionError {
    /// One word, as clients of the relay application see it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Propose(error) => error.as_str(),
            Self::Contended => "Contended",
            Self::TooDeep => "TooDeep",
            Self::TooLarge { .. } => "TooLarge",
            Self::Conflict { .. } => "Conflict",
            Self::Over => "Over",
            Self::OfConnection => "OfConnection",
        }
    }
}

impl Session {
    pub(crate) fn new(id: SessionId, io: Io) -> Self {
        Self { id, io, hold: None }
    }

    pub(crate) fn held(hold: Arc<Hold>, io: Io) -> Self {
        Self { id: hold.id, io, hold: Some(hold) }
    }

    pub fn id(&self) -> SessionId {
        self.id
    }

    /// The object as this node knows it, its own writes that are still on their way included.
    pub fn get(&self) -> Arc<Map<String, Value>> {
        self.io.drafts().read(self.io.cluster(), self.id).0
    }

    /// The same, as a type.
    pub fn get_as<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_value(Value::Object(Map::clone(&self.get())))
    }

    /// The same, with its revision, to be changed and [saved](Self::save).
    pub fn read(&self) -> Reading {
        let (object, revision) = self.io.drafts().read(self.io.cluster(), self.id);
        Reading { object: Map::clone(&object), revision }
    }

    /// Which state of the object [`get`](Self::get) gives; 0 if there is none yet. Revisions have no
    /// order: they are equal or not.
    pub fn revision(&self) -> u64 {
        self.io.drafts().read(self.io.cluster(), self.id).1
    }

    /// When the session ends if nobody uses it until then; None if it goes with its sockets.
    ///
    /// While a socket is connected, or away and may come back, the session does not end.
    pub fn expires_at(&self) -> Option<SystemTime> {
        let view = self.io.cluster().view();
        let row = view.session(self.id).filter(|row| row.keep_ms > 0)?;
        Some(UNIX_EPOCH + Duration::from_millis(row.expires_ms))
    }

    /// Changes the object. The change is proposed at once, in its place among this node's emits
    /// and joins; and again, on what stands there then, if another came first. It may look at
    /// sessions itself.
    pub fn update(
        &self,
        change: impl FnMut(&mut Map<String, Value>) + Send + 'static,
    ) -> SessionUpdate {
        self.write(Attempt::Change(Box::new(change)))
    }

    /// Replaces the object, if it has not changed since it was [read](Self::read): otherwise
    /// [`SessionError::Conflict`].
    pub fn save(&self, reading: Reading) -> SessionUpdate {
        self.write(Attempt::Replace(reading))
    }

    fn write(&self, attempt: Attempt) -> SessionUpdate {
        let (done, updated) = oneshot::channel();
        let cluster = self.io.cluster();
        if let Some(hold) = &self.hold {
            hold.set_written();
        }
        if self.io.drafts().write(cluster, self.id, self.hold.clone(), attempt, done) {
            let (io, id) = (self.io.clone(), self.id);
            cluster.spawn(async move { io.drafts().settle(io.cluster(), id).await });
        }
        SessionUpdate(updated)
    }

    /// Reads the object once this node knows all that any node has written before.
    pub async fn reload(&self) -> Result<Reading, SessionError> {
        // Through the log and back: what comes before it is applied here then.
        match self.propose(Change::SessionTouch { session: self.id, keep_ms: 0 }).await {
            Ok(Outcome::UnknownSession) if self.is_over() => Err(SessionError::Over),
            Ok(_) => Ok(self.read()),
            Err(error) => Err(error.into()),
        }
    }

    /// Puts the session's expiry off, and makes it if it is not there yet. A log entry is written
    /// only once a tenth of `session.max_age` has passed since it was last used.
    pub fn touch(&self) -> SessionUpdate {
        let raft = self.io.cluster().raft();
        let view = raft.view();
        let is_due = |sessions: &Sessions| match view.session(self.id) {
            Some(row) => sessions.is_due(row, raft.now_ms()),
            None => true,
        };
        if !self.io.sessions().is_none_or(|sessions| is_due(sessions)) {
            return SessionUpdate::done(Ok(()));
        }
        let keep = self.hold.as_ref().and_then(|hold| hold.to_make());
        if let Some(hold) = self.hold.as_ref().filter(|_| keep.is_some()) {
            hold.set_written();
        }
        let keep_ms = keep.map_or(0, |keep| keep.as_millis() as u64);
        let (hold, is_kept) = (self.hold.clone(), self.hold.is_some());
        self.settle(Change::SessionTouch { session: self.id, keep_ms }, move |outcome| {
            match (outcome, hold) {
                // The session of one connection is not there until it is written.
                (Outcome::UnknownSession, _) if is_kept => return Err(SessionError::Over),
                (Outcome::Applied, Some(hold)) => hold.set_made(),
                (_, _) => {}
            }
            Ok(())
        })
    }

    /// Ends the session: its sockets have an empty one from then on that takes no writes
    /// ([`SessionError::Over`]), and its client gets a new one when it comes again.
    pub fn destroy(&self) -> SessionUpdate {
        if let Some(hold) = &self.hold {
            hold.set_destroyed();
        }
        self.settle(Change::SessionDestroy { session: self.id }, |_outcome| Ok(()))
    }

    /// Gives the client another session, empty and with an id that nobody knew before, and ends this
    /// one: what an application does when a user logs in or out. The answer to an HTTP request tells
    /// the client; over a socket it is told by its [token](Self::token), and comes back with it.
    /// A session that was regenerated before goes on as the one that it was regenerated to.
    pub fn regenerate(
        &self,
    ) -> impl Future<Output = Result<Self, SessionError>> + Send + 'static + use<> {
        let regenerated = self.io.sessions().map(|sessions| {
            let successor = sessions.draw();
            let keep_ms = sessions.max_age().as_millis() as u64;
            // First, for from its being named on somebody else may take its place and destroy it.
            let make = Change::SessionTouch { session: successor.id, keep_ms };
            let made = self.propose(make);
            let replaced = match &self.hold {
                Some(hold) => Self::held(hold.set_successor(&successor).clone(), self.io.clone()),
                None => self.clone(),
            };
            (replaced.destroy(), made, Self::held(successor, self.io.clone()))
        });
        async move {
            let Some((destroyed, made, session)) = regenerated else {
                return Err(SessionError::OfConnection);
            };
            destroyed.await?;
            made.await?;
            session.hold.iter().for_each(|hold| hold.set_made());
            Ok(session)
        }
    }

    /// What the client shows to come back to the session, in its cookie, query or auth; None if
    /// clients do not come back to theirs. It is as good as the client's password until the session
    /// ends.
    pub fn token(&self) -> Option<String> {
        self.io.sessions().map(|sessions| sessions.token(self.id))
    }

    /// The `Set-Cookie` header that tells a browser of the session; None if clients do not come
    /// back to theirs.
    pub fn cookie(&self) -> Option<HeaderValue> {
        self.io.sessions().map(|sessions| sessions.cookie_for(self.id))
    }

    /// Whether it was there once, and a write does not make it again.
    fn is_over(&self) -> bool {
        self.hold.as_ref().is_some_and(|hold| hold.to_make().is_none())
    }

    fn propose(&self, change: Change) -> Receipt {
        self.io.cluster().raft().pump().propose(change)
    }

    fn settle(
        &self,
        change: Change,
        settle: impl FnOnce(&Outcome) -> Result<(), SessionError> + Send + 'static,
    ) -> SessionUpdate {
        let (done, updated) = oneshot::channel();
        let (waiter, _receipt) = Receipt::pending();
        let waiter = waiter.then(move |answer| {
            // The application may not wait for it.
            let _ = done.send(match answer {
                Ok(outcome) => settle(outcome),
                Err(error) => Err(SessionError::Propose(*error)),
            });
        });
        self.io.cluster().raft().pump().propose_with(change, waiter);
        SessionUpdate(updated)
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Session").field(&self.id).finish()
    }
}

/// Resolves once the change is committed and filters on this node see it.
#[derive(Debug)]
pub struct SessionUpdate(oneshot::Receiver<Result<(), SessionError>>);

impl SessionUpdate {
    fn done(result: Result<(), SessionError>) -> Self {
        let (done, updated) = oneshot::channel();
        // The other end is here.
        let _ = done.send(result);
        Self(updated)
    }
}

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
