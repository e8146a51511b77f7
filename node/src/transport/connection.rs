//! The task that owns one connection.

use std::future::poll_fn;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_util::task::TaskTracker;
use tracing::{debug, error};

use crate::adapter::Outbox;
use crate::engineio::{CloseReason, Connection, EngineConfig, Output, Packet, TransportKind};
use crate::metrics;
use crate::turn::others_first;

use super::client::Client;
use super::connections::Registration;
use super::frames::{Frame, FrameError};
use super::polling::{Happening, Polling};
use super::websocket::{Received, WebSocket, encoded};

mod ending;
mod pause;
mod requests;
mod timer;

use ending::{Ending, end_polling, end_websocket};
use pause::Pause;
use timer::Timer;

/// One connection: its protocol core, the client above it, and the transport below.
///
/// Others only reach the outbox, or ask through a request's command. While nothing happens there
/// is no buffer here and, once the connection is a WebSocket, no channel.
pub(crate) struct ConnectionTask {
    core: Connection,
    client: Box<dyn Client>,
    client_deadline: Option<Instant>,
    outbox: Arc<Outbox>,
    transport: Transport,
    timer: Timer,
    /// A stream that takes nothing at all until then is given up.
    progress_by: Option<Instant>,
    /// What is queued does not follow the answer to a CONNECT at once.
    pause: Pause,
    /// Takes turns between reading and writing, so that neither can starve the other.
    reads_first: bool,
    /// What volatile packets were last told.
    is_writable: bool,
    ending: Option<Ending>,
    registration: Registration,
    tasks: TaskTracker,
}

/// What carries the packets at the moment.
pub(crate) enum Transport {
    Polling(Box<Polling>),
    WebSocket(WebSocket),
}

impl Transport {
    fn kind(&self) -> TransportKind {
        match self {
            Self::Polling(_) => TransportKind::Polling,
            Self::WebSocket(_) => TransportKind::WebSocket,
        }
    }
}

/// Why the task woke up.
enum Wake {
    Deadline,
    /// Packets, a nudge or a reason to close.
    Outbox {
        is_shared: bool,
    },
    /// A stalled stream takes bytes again.
    Writable,
    Received(io::Result<Received>),
    Requests(Happening),
}

impl ConnectionTask {
    pub(crate) fn new(
        transport: Transport,
        client: Box<dyn Client>,
        outbox: Arc<Outbox>,
        registration: Registration,
        config: Arc<EngineConfig>,
        tasks: TaskTracker,
    ) -> Self {
        let is_writable = matches!(transport, Transport::WebSocket(_));
        outbox.mark_writable(is_writable);
        outbox.mark_transport(transport.kind());
        let revision = outbox.revision();
        let core = Connection::new(transport.kind(), revision, config, Instant::now());
        Self {
            timer: Timer::new(core.deadline().expect("a new connection has a ping ahead")),
            core,
            client_deadline: client.deadline(),
            client,
            outbox,
            transport,
            progress_by: None,
            pause: Pause::default(),
            reads_first: true,
            is_writable,
            ending: None,
            registration,
            tasks,
        }
    }

    /// Runs the connection until it is over. `read_ahead` came before the task had the stream.
    ///
    /// The task is boxed, and so is its end: a future holds its arguments twice, and room for the
    /// longest await, of which there would be one for each idle connection.
    pub(crate) async fn run(mut self: Box<Self>, read_ahead: Bytes) {
        self.write();
        self.handle_bytes(&mut read_ahead.to_vec());
        // Though mostly empty, it keeps the HTTP connection's buffer alive.
        drop(read_ahead);
        loop {
            self.drain_outputs();
            if let Some(ending) = self.ending {
                return Box::pin(self.end(ending)).await;
            }
            let wake = self.wake().await;
            if !matches!(wake, Wake::Outbox { .. }) {
                self.outbox.unwatch();
            }
            match wake {
                Wake::Deadline => self.handle_deadline(Instant::now()),
                Wake::Outbox { is_shared } => {
                    // Whoever pushes to many is mostly not alone: a moment later there is more to
                    // write at once.
                    if is_shared {
                        others_first().await;
                    }
                    self.handle_outbox();
                }
                Wake::Writable => self.write_frames(),
                Wake::Received(Ok(received)) => self.handle_received(received),
                Wake::Received(Err(error)) => self.handle_stream_lost(Some(&error)),
                Wake::Requests(happening) => self.handle_requests(happening),
            }
        }
    }

    async fn wake(&mut self) -> Wake {
        let deadlines =
            [self.core.deadline(), self.client_deadline, self.progress_by, self.pause.deadline()];
        let deadline = deadlines.into_iter().flatten().min();
        let deadline = deadline.expect("an open connection has a heartbeat");
        poll_fn(|context| self.poll_wake(context, deadline)).await
    }

    fn poll_wake(&mut self, context: &mut Context<'_>, deadline: Instant) -> Poll<Wake> {
        if self.timer.poll(context, deadline).is_ready() {
            return Poll::Ready(Wake::Deadline);
        }
        if self.reads_first
            && let Poll::Ready(wake) = self.poll_transport(context)
        {
            self.reads_first = false;
            return Poll::Ready(wake);
        }
        let outbox = if self.pause.deadline().is_some() {
            // What is there stays there until then, news and a reason to close too.
            Poll::Pending
        } else if self.takes_packets() {
            self.outbox.poll_pending(context)
        } else {
            self.outbox.poll_news(context).map(|()| false)
        };
        if let Poll::Ready(is_shared) = outbox {
            self.reads_first = true;
            return Poll::Ready(Wake::Outbox { is_shared });
        }
        if self.reads_first { Poll::Pending } else { self.poll_transport(context) }
    }

    fn poll_transport(&mut self, context: &mut Context<'_>) -> Poll<Wake> {
        match &mut self.transport {
            Transport::Polling(polling) => {
                // First, for the client that has sent its upgrade may ask at once whether polling is over.
                if let Some(probe) = &mut polling.probe
                    && let Poll::Ready(received) = probe.poll_read(context)
                {
                    return Poll::Ready(Wake::Received(received));
                }
                polling.poll_happening(context).map(Wake::Requests)
            }
            Transport::WebSocket(websocket) => {
                if websocket.is_stalled() && websocket.poll_writable(context).is_ready() {
                    // An error shows at the write.
                    return Poll::Ready(Wake::Writable);
                }
                websocket.poll_read(context).map(Wake::Received)
            }
        }
    }

    /// Whether the client takes packets at the moment.
    fn takes_packets(&self) -> bool {
        match &self.transport {
            Transport::Polling(polling) => polling.has_poll(),
            Transport::WebSocket(websocket) => !websocket.is_stalled(),
        }
    }

    fn handle_deadline(&mut self, now: Instant) {
        self.core.handle_deadline(now);
        if self.client_deadline.is_some_and(|deadline| deadline <= now) {
            self.call_client(|client| client.handle_deadline(now));
        }
        if self.progress_by.is_some_and(|progress_by| progress_by <= now) {
            self.core.close(CloseReason::PingTimeout);
        }
        if self.pause.deadline().is_some_and(|end| end <= now) {
            self.handle_outbox();
        }
    }

    fn handle_outbox(&mut self) {
        let now = Instant::now();
        if self.pause.holds(now) {
            return;
        }
        let is_websocket = self.is_websocket();
        // An answer goes ahead of what the client is told once it is let in. A poll takes both, for another one
        // would be dear.
        if is_websocket {
            self.write();
        }
        let mut was_let_in = false;
        self.call_client(|client| was_let_in = client.handle_wake());
        if was_let_in && is_websocket {
            self.pause = Pause::after(now);
        }
        match self.outbox.closing() {
            // What was pushed meanwhile is there when the outbox is polled next.
            None if is_websocket => {}
            None => self.write(),
            Some(reason) => {
                // A slow consumer takes nothing, and its queue is gone.
                let is_orderly = reason != CloseReason::SlowConsumer;
                self.end_with(Ending { reason, is_orderly, code: None });
            }
        }
    }

    fn handle_received(&mut self, mut received: Received) {
        if self.pause.end() {
            self.handle_outbox();
        }
        if received.is_empty() {
            return self.handle_stream_lost(None);
        }
        self.handle_bytes(received.bytes());
    }

    /// Takes the packets in bytes of the WebSocket, be it the transport or one that probes. It may
    /// become the transport on the way.
    fn handle_bytes(&mut self, mut input: &mut [u8]) {
        metrics::RECEIVED_BYTES.add(input.len() as u64);
        while self.ending.is_none() {
            let (websocket, is_probe) = match &mut self.transport {
                Transport::WebSocket(websocket) => (websocket, false),
                Transport::Polling(polling) => match &mut polling.probe {
                    Some(probe) => (&mut **probe, true),
                    None => return,
                },
            };
            let encoding = websocket.encoding();
            let frame = match websocket.reader.next(&mut input) {
                Ok(Some(frame)) => frame,
                Ok(None) => return,
                Err(error) => return self.handle_frame_error(error),
            };
            let packet = match frame {
                Frame::Text(text) => encoding.parse_text(text),
                Frame::Binary(bytes) => encoding.parse_bytes(bytes),
                Frame::Pong => continue,
                Frame::Ping(content) => {
                    websocket.writer.answer_ping(content);
                    if is_probe {
                        self.write_probe()
                    } else {
                        self.write()
                    }
                    continue;
                }
                Frame::Close(code) => return self.handle_close_frame(code),
            };
            metrics::PACKETS_RECEIVED.add(1);
            match packet {
                Ok(packet) if is_probe => self.core.handle_probe_packet(&packet, Instant::now()),
                Ok(packet) => self.core.handle_packet(packet, Instant::now()),
                Err(_) if is_probe => self.core.handle_probe_lost(),
                Err(error) => {
                    metrics::PROTOCOL_ERRORS.packet.add(1);
                    self.core.handle_parse_error(error);
                }
            }
            self.drain_outputs();
        }
    }

    fn handle_frame_error(&mut self, error: FrameError) {
        debug!(%error, "client broke the websocket protocol");
        match error {
            FrameError::TooLong => metrics::PROTOCOL_ERRORS.too_long.add(1),
            FrameError::Protocol(_) | FrameError::Utf8 => metrics::PROTOCOL_ERRORS.frame.add(1),
        }
        let code = Some(error.close_code());
        if self.is_websocket() {
            let reason = CloseReason::TransportError;
            self.end_with(Ending { reason, is_orderly: false, code });
        } else {
            self.core.handle_probe_lost();
        }
    }

    fn handle_close_frame(&mut self, code: Option<CloseCode>) {
        if let Transport::WebSocket(websocket) = &mut self.transport {
            websocket.mark_client_closed();
            let reason = CloseReason::TransportClose;
            self.end_with(Ending { reason, is_orderly: false, code });
        } else {
            self.core.handle_probe_lost();
        }
    }

    /// The stream ended, or failed: to applications that is the same, as with the official server.
    fn handle_stream_lost(&mut self, error: Option<&io::Error>) {
        if let Some(error) = error {
            debug!(%error, "stream failed");
        }
        if let Transport::WebSocket(websocket) = &mut self.transport {
            match error {
                Some(_) => websocket.mark_client_gone(),
                None => websocket.mark_client_closed(),
            }
            self.core.close(CloseReason::TransportClose);
        } else {
            self.core.handle_probe_lost();
        }
    }

    fn is_websocket(&self) -> bool {
        matches!(self.transport, Transport::WebSocket(_))
    }

    fn drain_outputs(&mut self) {
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Message(message) => {
                    self.call_client(|client| client.handle_message(message));
                }
                Output::Heartbeat => self.call_client(|client| client.handle_heartbeat()),
                Output::Send(Packet::Noop) => self.end_poll(),
                Output::Send(packet) => self.send(&packet),
                Output::SendProbe(packet) => self.send_probe(&packet),
                Output::Upgrade => self.upgrade(),
                Output::CloseProbe => self.close_probe(),
                Output::Close(reason) => {
                    self.end_with(Ending { reason, is_orderly: false, code: None });
                }
            }
        }
    }

    /// Sends a packet of the protocol's own, by the transport of the moment.
    fn send(&mut self, packet: &Packet) {
        match &mut self.transport {
            Transport::Polling(polling) => polling.pending.push_back(encoded(packet)),
            Transport::WebSocket(websocket) => websocket.writer.pending.push_back(encoded(packet)),
        }
        self.write();
    }

    /// Sends all that is queued, as far as the client takes it.
    fn write(&mut self) {
        match &mut self.transport {
            Transport::Polling(_) => self.answer_poll(),
            Transport::WebSocket(websocket) if websocket.is_stalled() => {}
            Transport::WebSocket(_) => self.write_frames(),
        }
    }

    fn write_frames(&mut self) {
        let Transport::WebSocket(websocket) = &mut self.transport else { return };
        let now = Instant::now();
        let mut result = Ok(());
        if !websocket.writer.pending.is_empty() {
            result = websocket.write(now);
        }
        if websocket.writer.pending.is_empty() && self.pause.deadline().is_none() {
            let writer = &mut websocket.writer;
            writer.left_bytes = self.outbox.take_pending(&mut writer.pending);
            result = websocket.write(now);
        }
        let is_stalled = websocket.is_stalled();
        self.progress_by = is_stalled.then(|| now + self.core.config().ping_timeout);
        if is_stalled {
            self.is_writable = false;
            self.outbox.mark_stalled(websocket.writer.left());
        } else {
            self.mark_writable(true);
        }
        if let Err(error) = result {
            debug!(%error, "stream failed");
            self.core.close(CloseReason::TransportError);
        }
    }

    fn mark_writable(&mut self, is_writable: bool) {
        if self.is_writable != is_writable {
            self.is_writable = is_writable;
            self.outbox.mark_writable(is_writable);
        }
    }

    /// Calls the layer above, whose panic ends this connection and no other.
    fn call_client(&mut self, call: impl FnOnce(&mut dyn Client)) {
        let client = &mut *self.client;
        let result = catch_unwind(AssertUnwindSafe(|| {
            call(client);
            client.deadline()
        }));
        match result {
            Ok(deadline) => self.client_deadline = deadline,
            Err(_panic) => {
                error!(sid = %self.registration.sid(), "the layer above a connection panicked");
                self.core.close(CloseReason::ForcedServerClose);
            }
        }
    }

    fn end_with(&mut self, ending: Ending) {
        self.ending.get_or_insert(ending);
    }

    async fn end(mut self: Box<Self>, ending: Ending) {
        debug!(sid = %self.registration.sid(), reason = %ending.reason, "connection closed");
        metrics::connection_closed(ending.reason.as_str());
        // What others push from now on is dropped, as there is nobody to send it to.
        self.outbox.close(ending.reason);
        self.core.close(ending.reason);
        self.call_client(|client| client.handle_close(ending.reason));
        let Self { transport, outbox, registration, client, .. } = *self;
        drop(client);
        let farewell = registration.farewell();
        match transport {
            Transport::Polling(polling) => {
                end_polling(polling, &outbox, registration, &farewell, ending).await;
            }
            Transport::WebSocket(websocket) => {
                drop(registration);
                farewell.unless_over(end_websocket(websocket, &outbox, ending)).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each idle connection costs this much, besides what the client and the system keep.
    #[test]
    fn idle_connection_is_small() {
        fn size_of_future<F: Future>(_: impl Fn(Box<ConnectionTask>, Bytes) -> F) -> usize {
            size_of::<F>()
        }
        assert!(size_of::<ConnectionTask>() <= 448, "{}", size_of::<ConnectionTask>());
        let run = size_of_future(ConnectionTask::run);
        assert!(run <= 256, "{run}");
    }
}
