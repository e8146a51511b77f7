//! How a connection takes its leave. Its client is gone by then, and its outbox takes nothing more.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::time::Duration;

use tokio::time::Instant;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::adapter::Outbox;
use crate::engineio::{CloseReason, Packet};

use super::super::connections::Registration;
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

/// Answers the open poll or, if the end is an orderly one, waits for another.
pub(super) async fn end_polling(
    mut polling: Box<Polling>,
    outbox: &Outbox,
    registration: Registration,
    ending: Ending,
) {
    polling.probe = None;
    if ending.is_orderly {
        polling.answer_post(PostAnswer::Taken);
        // A node that stops is not there for another poll.
        if !polling.has_poll() && ending.reason != CloseReason::ServerShutdown {
            let _ = tokio::time::timeout(FLUSH_TIMEOUT, next_poll(&mut polling)).await;
        }
    }
    drop(registration);
    let mut queued = std::mem::take(&mut polling.pending);
    let mut pushed = VecDeque::new();
    outbox.take_pending(&mut pushed);
    queued.extend(pushed);
    if !ending.is_orderly {
        queued.clear();
    }
    let close = encoded(&Packet::Close);
    polling.answer_poll(queued, Some(&close), Instant::now());
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
            Happening::Command(Command::WebSocket(..) | Command::Release)
            | Happening::PostBody(_)
            | Happening::PollAborted => {}
        }
    }
}
