//! How clients come to their sessions, and back to them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::request::Parts;
use http::{HeaderMap, HeaderValue, header};

use super::Session;
use super::config::{SessionConfig, SessionSource};
use super::shown;
use super::token::{BadToken, Signer};
use crate::engineio::CookieConfig;
use crate::raft::ProposeError;
use crate::raft::state::{self, Change, Outcome, SessionId};
use crate::server::io::Io;
use crate::transport::{Admitted, Denied, Forbidden, Refusal, write_cookie};

/// The sessions that clients come back to, by what they show.
pub(crate) struct Sessions {
    config: SessionConfig,
    signer: Signer,
    cookie: CookieConfig,
}

/// A client's session while this node deals with the client: what the sockets of its connection
/// share, or what one HTTP request has.
#[derive(Debug)]
pub(crate) struct Hold {
    pub(crate) id: SessionId,
    keep: Duration,
    /// This node has drawn the id: its client does not know it yet.
    is_new: bool,
    /// Its expiry was far enough gone to be put off.
    was_refreshed: bool,
    /// It is there, or was: a write does not make it again.
    is_made: AtomicBool,
    is_written: AtomicBool,
    is_destroyed: AtomicBool,
    /// An answer to the client names it.
    is_told: AtomicBool,
    /// What took its place, if it was regenerated.
    successor: OnceLock<Arc<Self>>,
}

/// How long a session is kept whose client was told of it by a cookie, and has not come with it yet.
const FIRST_USE_MS: u64 = 60 * 1000;

/// The session of a connection, and how early in the order of sources it was found.
#[derive(Clone, Debug)]
pub(crate) struct Seat {
    pub(crate) hold: Arc<Hold>,
    /// Behind all sources, if the session is new.
    rank: usize,
    /// The client named a session, there or not.
    was_shown: bool,
}

/// Why a client gets no session.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoSession {
    #[error(transparent)]
    Bad(#[from] BadToken),
    #[error("no session is shown")]
    Missing,
    #[error("the session cannot be looked up")]
    Unavailable(#[from] ProposeError),
}

impl Hold {
    fn new(id: SessionId, keep: Duration, is_new: bool) -> Self {
        Self {
            id,
            keep,
            is_new,
            was_refreshed: false,
            is_made: AtomicBool::new(!is_new),
            is_written: AtomicBool::new(false),
            is_destroyed: AtomicBool::new(false),
            is_told: AtomicBool::new(false),
            successor: OnceLock::new(),
        }
    }

    /// How long the session is to be kept, if it is still to be made.
    pub(crate) fn to_make(&self) -> Option<Duration> {
        (!self.is_made.load(Ordering::Acquire)).then_some(self.keep)
    }

    /// From now on it is over if it is not there.
    pub(crate) fn set_made(&self) {
        self.is_made.store(true, Ordering::Release);
    }

    /// A write of it is on its way.
    pub(crate) fn set_written(&self) {
        self.is_written.store(true, Ordering::Release);
    }

    pub(super) fn set_destroyed(&self) {
        self.set_made();
        self.is_destroyed.store(true, Ordering::Release);
    }

    /// Another session takes the place of the one that the client has by now, which it returns: this
    /// one, or what took its place before.
    pub(super) fn set_successor(self: &Arc<Self>, successor: &Arc<Self>) -> &Arc<Self> {
        loop {
            let latest = self.latest();
            // Whoever comes second takes the place of the first one's.
            if latest.successor.set(successor.clone()).is_ok() {
                return latest;
            }
        }
    }

    /// The session that the client has in the end.
    fn latest(self: &Arc<Self>) -> &Arc<Self> {
        let mut latest = self;
        while let Some(successor) = latest.successor.get() {
            latest = successor;
        }
        latest
    }
}

impl Sessions {
    pub(crate) fn new(config: SessionConfig) -> Self {
        let signer = Signer::new(&config.secrets, config.require_signed);
        Self { cookie: config.cookie.attributes(), signer, config }
    }

    /// A session that nobody has seen yet. It costs nothing until a socket uses it, or it is written.
    pub(super) fn draw(&self) -> Arc<Hold> {
        Arc::new(Hold::new(SessionId::random(), self.config.max_age, true))
    }

    /// A session that is there, or was: nobody makes it again.
    pub(crate) fn known(&self, id: SessionId) -> Arc<Hold> {
        Arc::new(Hold::new(id, self.config.max_age, false))
    }

    /// What a client shows to come back to a session.
    pub(super) fn token(&self, id: SessionId) -> String {
        self.signer.write(id)
    }

    pub(super) fn max_age(&self) -> Duration {
        self.config.max_age
    }

    pub(super) fn uses_cookies(&self) -> bool {
        self.config.has(SessionSource::Cookie)
    }

    /// The session that a client shows; None if there is none of that id (any more).
    pub(crate) async fn find(&self, io: &Io, token: &str) -> Result<Option<Arc<Hold>>, NoSession> {
        let Some(id) = self.signer.read(token)? else { return Ok(None) };
        let raft = io.cluster().raft();
        let touch = |keep_ms| Change::SessionTouch { session: id, keep_ms };
        if raft.view().kept_session(id, raft.now_ms()).is_none() {
            // It may have been made on a node that this one is behind of, however fresh its view:
            // the log knows.
            let touched = raft.pump().propose(touch(0)).await?;
            if touched != Outcome::Applied {
                return Ok(None);
            }
        }
        let view = raft.view();
        let Some(row) = view.kept_session(id, raft.now_ms()) else { return Ok(None) };
        let mut hold = Hold::new(id, self.config.max_age, false);
        let is_first_use = row.keep_ms == self.first_use_ms() && row.keep_ms < self.max_age_ms();
        hold.was_refreshed = self.is_due(row, raft.now_ms());
        if hold.was_refreshed || is_first_use {
            let keep_ms = if is_first_use { self.max_age_ms() } else { 0 };
            // What is refused now is tried again when the client comes again.
            let _ = raft.pump().propose_quiet(touch(keep_ms));
        }
        Ok(Some(Arc::new(hold)))
    }

    fn max_age_ms(&self) -> u64 {
        self.config.max_age.as_millis() as u64
    }

    fn first_use_ms(&self) -> u64 {
        FIRST_USE_MS.min(self.max_age_ms())
    }

    /// Whether a session's expiry is to be put off: not at each request, for it takes a log entry.
    pub(super) fn is_due(&self, row: &state::Session, now_ms: u64) -> bool {
        let unused_ms = now_ms.saturating_add(row.keep_ms).saturating_sub(row.expires_ms);
        unused_ms > row.keep_ms / 10
    }

    /// Finds the session of a client that opens a connection, or draws one.
    pub(crate) async fn admit(&self, io: &Io, request: &Parts) -> Result<Admitted, Denied> {
        let seat = match self.seat(io, request).await {
            Ok(seat) => seat,
            Err(NoSession::Unavailable(ProposeError::Draining)) => {
                return Err(Denied::ForNow(Refusal::Draining));
            }
            Err(NoSession::Unavailable(_)) => return Err(Denied::ForNow(Refusal::NoQuorum)),
            Err(missing @ NoSession::Missing) => {
                return Err(Denied::Forbidden(missing.to_string().into(), HeaderMap::new()));
            }
            Err(NoSession::Bad(bad)) => {
                let headers = self.set_cookie(self.cleared()).collect();
                return Err(Denied::Forbidden(Forbidden::from(bad.to_string()), headers));
            }
        };
        let mut admitted = Admitted::default();
        admitted.headers.extend(self.set_cookie(self.news_for(&seat.hold, true)));
        if seat.hold.to_make().is_some() && !admitted.headers.is_empty() {
            // The client may show its cookie elsewhere before it has a socket here. If this cannot
            // be agreed, its first socket makes the session, or is not let in.
            let make = Change::SessionTouch { session: seat.hold.id, keep_ms: self.first_use_ms() };
            let _ = io.cluster().raft().pump().propose_quiet(make);
        }
        admitted.extensions.insert(seat);
        Ok(admitted)
    }

    async fn seat(&self, io: &Io, request: &Parts) -> Result<Seat, NoSession> {
        // An HTTP server in front may have looked already.
        let layered = request.extensions.get::<Session>().and_then(|session| session.hold.clone());
        let mut was_shown = false;
        for (rank, source) in self.config.sources.iter().enumerate() {
            let token = match (source, &layered) {
                (SessionSource::Cookie, Some(hold)) if !hold.is_new => {
                    return Ok(Seat { hold: hold.clone(), rank, was_shown: true });
                }
                // Whatever the client's cookie names, it is not there.
                (SessionSource::Cookie, Some(_)) => {
                    was_shown |= self.cookie_of(&request.headers).is_some();
                    None
                }
                (SessionSource::Cookie, None) => self.cookie_of(&request.headers),
                (SessionSource::Query, _) => shown::in_query(
                    request.uri.query().unwrap_or_default(),
                    &self.config.query_parameter,
                    &self.config.cookie.name,
                ),
                // It comes later, with the CONNECT.
                (SessionSource::Auth, _) => None,
            };
            was_shown |= token.is_some();
            if let Some(token) = token
                && let Some(hold) = self.find(io, &token).await?
            {
                return Ok(Seat { hold, rank, was_shown });
            }
        }
        let comes_later = self.config.has(SessionSource::Auth);
        if self.config.required && !was_shown && !comes_later {
            return Err(NoSession::Missing);
        }
        let hold = layered.unwrap_or_else(|| self.draw());
        Ok(Seat { hold, rank: usize::MAX, was_shown })
    }

    /// Whether a client has to show its session with its CONNECT, since its handshake had none.
    pub(crate) fn must_show(&self, seat: &Seat) -> bool {
        self.config.required && !seat.was_shown
    }

    pub(super) fn cookie_of(&self, headers: &HeaderMap) -> Option<String> {
        shown::in_cookies(headers, &self.config.cookie.name)
    }

    /// What a client shows with its CONNECT, if that has precedence over what its handshake showed.
    pub(crate) fn shown_in(&self, auth: &str, seat: &Seat) -> Option<String> {
        let rank = self.config.sources.iter().position(|source| *source == SessionSource::Auth)?;
        shown::in_auth(auth, &self.config.auth_field).filter(|_| rank < seat.rank)
    }

    /// The cookie that the answer to a client's request sets, if there is anything new to say.
    /// `will_be_made`: the session is to be told of though nobody has written it yet.
    pub(super) fn news_for(&self, hold: &Arc<Hold>, will_be_made: bool) -> Option<HeaderValue> {
        let hold = hold.latest();
        if hold.is_destroyed.load(Ordering::Acquire) {
            return self.cleared();
        }
        let is_there = will_be_made
            || hold.is_made.load(Ordering::Acquire)
            || hold.is_written.load(Ordering::Acquire);
        let goes_on = hold.was_refreshed && self.cookie.max_age.is_some();
        let is_news = (hold.is_new && is_there) || goes_on;
        (is_news && !hold.is_told.swap(true, Ordering::AcqRel)).then(|| self.cookie_for(hold.id))
    }

    /// The same for a client whose cookie names no session that is there. If it is told of no other,
    /// its cookie is taken away: with each request it would have to be looked for in the log.
    pub(super) fn news_for_stranger(&self, hold: &Arc<Hold>) -> Option<HeaderValue> {
        let news = self.news_for(hold, false);
        let is_told = hold.latest().is_told.load(Ordering::Acquire);
        if is_told { news } else { news.or_else(|| self.cleared()) }
    }

    pub(super) fn cookie_for(&self, id: SessionId) -> HeaderValue {
        write_cookie(&self.cookie, &shown::cookie_value(&self.token(id)))
    }

    /// A cookie that takes the client's away: it comes without one next time.
    pub(super) fn cleared(&self) -> Option<HeaderValue> {
        let over = CookieConfig { max_age: Some(Duration::ZERO), ..self.cookie.clone() };
        Some(write_cookie(&over, ""))
    }

    /// The header for a cookie, where cookies are used.
    pub(super) fn set_cookie(
        &self,
        value: Option<HeaderValue>,
    ) -> impl Iterator<Item = (header::HeaderName, HeaderValue)> + use<> {
        let value = value.filter(|_| self.uses_cookies());
        value.map(|value| (header::SET_COOKIE, value)).into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hold() -> Arc<Hold> {
        Arc::new(Hold::new(SessionId::random(), Duration::from_secs(60), true))
    }

    #[test]
    fn session_that_is_regenerated_twice_is_the_second_one() {
        let [first, second, third] = [hold(), hold(), hold()];
        assert_eq!(first.set_successor(&second).id, first.id);
        assert_eq!(first.set_successor(&third).id, second.id, "it took the place of the first");
        assert_eq!((first.latest().id, second.latest().id), (third.id, third.id));
    }
}
