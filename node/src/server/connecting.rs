//! A client asks into a namespace: its session, the middleware, then the cluster.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::Instant;
use tracing::{debug, error};

use super::io::Io;
use super::legacy;
use super::middleware::{BoxMiddleware, ConnectError};
use super::session::NoSession;
use super::socket::Socket;
use crate::adapter::{Brought, Claim, Encoded, Phase};
use crate::engineio::{CloseReason, Revision};
use crate::metrics;
use crate::raft::ProposeError;
use crate::raft::state::Outcome;
use crate::socketio::Payload;
use crate::socketio::codec::Kind;

/// How long a CONNECT waits for a quorum before its connection is closed, so that the client
/// tries another node.
const CONNECT_PATIENCE: Duration = Duration::from_secs(3);

/// How long to wait before a CONNECT is proposed again.
const CONNECT_RETRY: Duration = Duration::from_millis(200);

/// Has a socket's client let in, or refused. The delivery task answers the CONNECT.
pub(super) async fn connect(
    socket: Socket,
    shown: Result<Option<String>, NoSession>,
    middleware: Vec<BoxMiddleware>,
    claim: Option<Claim>,
) {
    if take_session(&socket, shown).await && ask_middleware(&socket, middleware).await {
        make_known(socket, claim).await;
    }
}

/// Gives a socket the session that its client shows with its CONNECT; false if the client was
/// refused. One that is not there (any more) leaves it with its connection's.
async fn take_session(socket: &Socket, shown: Result<Option<String>, NoSession>) -> bool {
    let io = socket.io();
    let found = match (shown, io.sessions()) {
        (Ok(Some(token)), Some(sessions)) => {
            let is_waiting = || socket.recipient().phase() == Phase::Connecting;
            find_patiently(|| sessions.find(&io, &token), is_waiting).await
        }
        (Ok(_), _) => Ok(None),
        (Err(missing), _) => Err(missing),
    };
    match found {
        Ok(Some(hold)) => socket.set_asked_session(hold),
        Ok(None) => {}
        Err(NoSession::Unavailable(error)) => {
            metrics::CONNECTS_REFUSED.unavailable.add(1);
            debug!(socket = %socket.id(), %error, "session could not be looked up");
            socket.recipient().outbox.close(CloseReason::ForcedServerClose);
            return false;
        }
        Err(refused @ (NoSession::Bad(_) | NoSession::Missing)) => {
            let code =
                if matches!(refused, NoSession::Missing) { "NoSession" } else { "BadSession" };
            let data = serde_json::json!({"code": code});
            metrics::CONNECTS_REFUSED.session.add(1);
            reject(socket, &ConnectError::with_data(refused.to_string(), data));
            return false;
        }
    }
    true
}

/// Looks a session up, again while that cannot be agreed and the client `is_waiting`: as long as a
/// CONNECT waits for a quorum.
async fn find_patiently<T, F>(
    find: impl Fn() -> F,
    is_waiting: impl Fn() -> bool,
) -> Result<T, NoSession>
where
    F: Future<Output = Result<T, NoSession>>,
{
    let give_up = Instant::now() + CONNECT_PATIENCE;
    loop {
        match find().await {
            Err(NoSession::Unavailable(error))
                if may_recover(error) && is_waiting() && Instant::now() < give_up =>
            {
                tokio::time::sleep(CONNECT_RETRY).await;
            }
            found => return found,
        }
    }
}

/// Asks the middleware; false if the client was refused, or is not there any more.
async fn ask_middleware(socket: &Socket, middleware: Vec<BoxMiddleware>) -> bool {
    for ask in middleware {
        let asked = AssertUnwindSafe(async { ask(socket.clone()).await }).catch_unwind().await;
        let refused = asked.unwrap_or_else(|_panic| {
            error!("middleware panicked");
            Err(ConnectError::new("internal server error"))
        });
        if let Err(error) = refused {
            metrics::CONNECTS_REFUSED.middleware.add(1);
            reject(socket, &error);
            return false;
        }
        if !socket.recipient().is_coming() {
            return false;
        }
    }
    true
}

/// Makes a socket known to the cluster, or has its connection closed.
async fn make_known(socket: Socket, claim: Option<Claim>) {
    let adapter = &socket.namespace_inner().adapter;
    if let Some(claim) = &claim {
        socket.look_for_previous(claim).await;
    }
    let rooms = socket.take_early_rooms();
    let give_up = Instant::now() + CONNECT_PATIENCE;
    loop {
        let recipient = socket.recipient().clone();
        let receipt = match &claim {
            Some(claim) => adapter.claim(recipient, claim),
            None => {
                let keep = socket.hold().and_then(|hold| hold.to_make());
                let id = socket.session_id();
                let is_written = socket.io().drafts().has(id);
                let session = Brought { id, keep, is_written };
                adapter.connect_with_session(recipient, session, rooms.clone())
            }
        };
        if !socket.namespace_inner().connects_quietly() {
            adapter.hurry();
        }
        match receipt.await {
            Ok(Outcome::UnknownSocket | Outcome::Lost) if claim.is_some() => {
                if adapter.refuse_claim(socket.recipient()) {
                    socket.recipient().outbox.nudge();
                }
                return;
            }
            // Or it was known already, proposed twice.
            Ok(_) => {
                // The session is there from now on, and is not made again once it is over.
                socket.hold().into_iter().for_each(|hold| hold.set_made());
                // Those of a socket that came back are joined beside the ones it has.
                if claim.is_some() && !rooms.is_empty() {
                    drop(socket.join(rooms));
                }
                return;
            }
            // Its client has left, and may go on elsewhere.
            Err(_) if socket.recipient().phase() > Phase::Connected => return,
            // It may yet be agreed, and is acted on then.
            Err(ProposeError::Timeout) if adapter.go_on_unknown(socket.recipient()) => return,
            Err(error)
                if may_recover(error)
                    && (adapter.go_on_unknown(socket.recipient()) || Instant::now() < give_up) =>
            {
                tokio::time::sleep(CONNECT_RETRY).await;
            }
            Err(error) => {
                metrics::CONNECTS_REFUSED.unavailable.add(1);
                debug!(socket = %socket.id(), %error, "socket could not be made known");
                socket.recipient().outbox.close(CloseReason::ForcedServerClose);
                return;
            }
        }
    }
}

/// Whether a CONNECT that failed so may do better in a moment.
fn may_recover(error: ProposeError) -> bool {
    matches!(error, ProposeError::NoQuorum | ProposeError::Overloaded)
}

fn reject(socket: &Socket, error: &ConnectError) {
    // First, for the client may ask again at once.
    if socket.recipient().advance(Phase::Rejected) {
        let outbox = &socket.recipient().outbox;
        let json = match outbox.revision() {
            Revision::V4 => error.to_json(),
            Revision::V3 => legacy::refusal(error),
        };
        outbox.push_news(connect_error(&socket.io(), socket.namespace_name(), json));
    }
}

/// What refuses a CONNECT.
pub(super) fn connect_error(io: &Io, namespace: &str, json: String) -> Arc<Encoded> {
    let payload = Payload { json: json.into(), attachments: Vec::new() };
    io.cluster().encoder().packet(Kind::ConnectError, namespace, None, &payload)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    async fn found_after(refusals: u32, waits: u32) -> (Result<u32, NoSession>, u32) {
        let asked = Cell::new(0);
        let find = || {
            asked.set(asked.get() + 1);
            let is_refused = asked.get() <= refusals;
            async move { if is_refused { Err(ProposeError::NoQuorum.into()) } else { Ok(7) } }
        };
        let found = find_patiently(find, || asked.get() <= waits).await;
        (found, asked.get())
    }

    #[tokio::test(start_paused = true)]
    async fn connect_with_a_session_waits_a_few_seconds_for_a_quorum() {
        assert!(matches!(found_after(5, 100).await, (Ok(7), 6)));
        let (found, asked) = found_after(100, 100).await;
        assert!(matches!(found, Err(NoSession::Unavailable(ProposeError::NoQuorum))));
        assert_eq!(u128::from(asked), 1 + CONNECT_PATIENCE.as_millis() / CONNECT_RETRY.as_millis());
        let (found, asked) = found_after(100, 3).await;
        assert!(found.is_err() && asked == 4, "nobody waits any more after {asked}");
    }
}
