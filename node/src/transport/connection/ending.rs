//! How a connection takes its leave. Its client is gone by then, and its outbox takes nothing more.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::adapter::{Encoded, Outbox};
use crate::engineio::{CloseReason, Packet};

use super::super::connections::Registration;
use super::super::farewell::Farewell;
use super::super::polling::{Command, Happening, Polling, PostAnswer};
use super::super::websocket::{WebSocket, encoded};

/// How the connection ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ending {
    pub(super) reason: CloseReason,
    /// What is queued is sent first: the node ends the connection, and nothing is wrong with it.
    pub(super) is_orderly: bool,
    /// For the WebSocket's close frame. The official server gives none.
    pub(super) code: Option<CloseCode>,
}

/// How long the POST by which a client closes waits for the poll that the client sent beside it, which may have taken
/// longer. Clients of the protocol have one open; the official server, with its one thread, sees them in their order.
const POLL_GRACE: Duration = Duration::from_millis(200);

/// How long a client may take to fetch what is queued for it.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(30);

/// Writes what is queued, unless the client takes nothing anyway.
pub(super) async fn end_websocket(mut websocket: WebSocket, outbox: &Outbox, ending: Ending) {
    if websocket.is_stalled() && !ending.is_orderly {
        return websocket.abort();
    }
    let mut queued = VecDeque::new();
    outbox.take_pending(&mut queued);
    if ending.is_orderly {
        websocket.writer.pending.extend(queued);
    }
    websocket.close(ending.code, Instant::now() + FLUSH_TIMEOUT).await;
}

/// Answers the open poll or, if the end is an orderly one, waits for others.
pub(super) async fn end_polling(
    mut polling: Box<Polling>,
    outbox: &Outbox,
    registration: Registration,
    farewell: &Farewell,
    ending: Ending,
) {
    drop(polling.take_probe());
    let mut queued = std::mem::take(&mut polling.pending);
    let mut pushed = VecDeque::new();
    outbox.take_pending(&mut pushed);
    queued.extend(pushed);
    if !ending.is_orderly {
        queued.clear();
        let is_client_close = ending.reason == CloseReason::TransportClose;
        if let Some(post) = polling.take_post().filter(|_| is_client_close) {
            let _ = tokio::time::timeout(POLL_GRACE, next_poll(&mut polling)).await;
            drop(registration);
            polling.answer_poll(queued, Some(&encoded(&Packet::Noop)), Instant::now());
            let _ = post.answer.send(PostAnswer::Taken);
            return;
        }
    } else {
        polling.answer_post(PostAnswer::Taken);
        // A node that stops is not there for another poll.
        if ending.reason != CloseReason::ServerShutdown {
            let flushed = flush_polling(&mut polling, &mut queued);
            farewell.unless_begun(tokio::time::timeout(FLUSH_TIMEOUT, flushed)).await;
        }
    }
    drop(registration);
    let close = encoded(&Packet::Close);
    polling.answer_poll(queued, Some(&close), Instant::now());
}

/// Gives what is queued to a poll, and waits for the one that will hear of the close.
///
/// They are two, as with the official server: of one payload, official clients take a close packet ahead of the
/// DISCONNECT before it, and would call it a lost transport.
async fn flush_polling(polling: &mut Polling, queued: &mut VecDeque<Arc<Encoded>>) {
    if polling.has_poll() && queued.is_empty() {
        return;
    }
    if !queued.is_empty() {
        next_poll(polling).await;
        polling.answer_poll(std::mem::take(queued), None, Instant::now());
    }
    next_poll(polling).await;
    queued.push_back(encoded(&Packet::Noop));
}

/// Meanwhile the client may post: it cannot know yet.
async fn next_poll(polling: &mut Polling) {
    while !polling.has_poll() {
        match poll_fn(|context| polling.poll_happening(context)).await {
            Happening::Command(Command::Poll(answer)) => polling.open_poll(answer),
            Happening::Command(Command::Post(post)) => {
                polling.open_post(post);
                polling.answer_post(PostAnswer::Taken);
            }
            Happening::Command(Command::WebSocket(_) | Command::Release)
            | Happening::PostBody(_)
            | Happening::PollAborted
            | Happening::Arrived(_) => {}
        }
    }
}
