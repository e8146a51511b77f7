//! A connection that polls: its requests, and the WebSocket that may take over.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::debug;

use crate::adapter::Encoded;
use crate::engineio::{CloseReason, Packet, TransportKind};
use crate::metrics;

use super::super::polling::{
    Command, Happening, Place, PollAnswer, Polling, Post, PostAnswer, PostBody,
};
use super::super::websocket::{WebSocket, encoded};
use super::{ConnectionTask, Transport};

impl ConnectionTask {
    pub(super) fn handle_requests(&mut self, happening: Happening) {
        let now = Instant::now();
        if self.core.deadline().is_some_and(|deadline| deadline <= now) {
            // The timer is a little late.
            self.core.handle_deadline(now);
            self.drain_outputs();
        }
        if self.ending.is_some() {
            // Whoever asks now finds no connection, and does so only once it is not listed any more.
            return self.registration.withdraw();
        }
        match happening {
            Happening::Command(Command::Poll(answer)) => self.handle_poll(answer),
            Happening::Command(Command::Post(post)) => self.handle_post(post),
            Happening::Command(Command::WebSocket(answer)) => self.handle_announced(answer),
            Happening::Arrived(Some(read_ahead)) => self.handle_bytes(&mut read_ahead.to_vec()),
            Happening::Arrived(None) => self.core.handle_probe_lost(),
            Happening::Command(Command::Release) => self.handle_release(),
            Happening::PostBody(body) => self.handle_post_body(body),
            Happening::PollAborted => self.core.close(CloseReason::TransportError),
        }
    }

    fn polling(&mut self) -> &mut Polling {
        match &mut self.transport {
            Transport::Polling(polling) => polling,
            Transport::WebSocket(_) => unreachable!("a connection that polls has requests"),
        }
    }

    fn handle_poll(&mut self, answer: oneshot::Sender<PollAnswer>) {
        if self.core.handle_poll().is_err() {
            metrics::PROTOCOL_ERRORS.overlap.add(1);
            let _ = answer.send(PollAnswer::Overlap);
            return;
        }
        self.polling().open_poll(answer);
        self.answer_poll();
    }

    fn handle_release(&mut self) {
        if self.polling().has_poll() {
            self.end_poll();
        }
    }

    fn handle_post(&mut self, post: Post) {
        if self.core.handle_post().is_err() {
            metrics::PROTOCOL_ERRORS.overlap.add(1);
            let _ = post.answer.send(PostAnswer::Refused);
            return;
        }
        self.polling().open_post(post);
    }

    fn handle_post_body(&mut self, body: Option<PostBody>) {
        let answer = match body {
            Some(PostBody::Complete(body)) => self.handle_payload(&body),
            Some(PostBody::Refused) => PostAnswer::Refused,
            None => {
                self.core.close(CloseReason::TransportError);
                PostAnswer::Refused
            }
        };
        self.core.handle_post_answered();
        if let Transport::Polling(polling) = &mut self.transport {
            // A client that closes has its answer when the poll that it may have sent beside has one too.
            let is_close = self.ending.is_some_and(|e| e.reason == CloseReason::TransportClose);
            if polling.has_poll() || !is_close {
                polling.answer_post(answer);
            }
        }
    }

    fn handle_payload(&mut self, body: &Bytes) -> PostAnswer {
        let encoding = self.polling().encoding();
        for packet in encoding.parse_payload(body) {
            metrics::PACKETS_RECEIVED.add(1);
            match packet {
                Ok(packet) => self.core.handle_packet(packet, Instant::now()),
                Err(error) => {
                    metrics::PROTOCOL_ERRORS.packet.add(1);
                    self.core.handle_parse_error(error);
                    // The request as such was right; what it carried ends the connection.
                    return PostAnswer::Taken;
                }
            }
            self.drain_outputs();
        }
        PostAnswer::Taken
    }

    /// Gives the open poll what is queued, if anything is.
    pub(super) fn answer_poll(&mut self) {
        let packets = self.take_for_poll();
        let Transport::Polling(polling) = &mut self.transport else { return };
        if !packets.is_empty() {
            polling.answer_poll(packets, None, Instant::now());
            self.core.handle_poll_answered();
        }
        self.mark_poll_writable();
    }

    /// Gives the open poll what is queued, or a noop.
    pub(super) fn end_poll(&mut self) {
        let packets = self.take_for_poll();
        let Transport::Polling(polling) = &mut self.transport else { return };
        let noop = packets.is_empty().then(|| encoded(&Packet::Noop));
        polling.answer_poll(packets, noop.as_deref(), Instant::now());
        self.core.handle_poll_answered();
        self.mark_poll_writable();
    }

    /// All that is queued, if a poll is open for it.
    fn take_for_poll(&mut self) -> VecDeque<Arc<Encoded>> {
        let Transport::Polling(polling) = &mut self.transport else { return VecDeque::new() };
        if !polling.has_poll() {
            return VecDeque::new();
        }
        let mut packets = std::mem::take(&mut polling.pending);
        let mut pushed = VecDeque::new();
        self.outbox.take_pending(&mut pushed);
        packets.extend(pushed);
        packets
    }

    fn mark_poll_writable(&mut self) {
        let is_writable = self.takes_packets();
        self.mark_writable(is_writable);
    }

    fn handle_announced(&mut self, answer: oneshot::Sender<Place>) {
        if self.core.handle_probe_opened(Instant::now()).is_ok() {
            // A client that went away just now gives its place up.
            let _ = answer.send(self.polling().expect_probe());
        }
    }

    pub(super) fn send_probe(&mut self, packet: &Packet) {
        let Transport::Polling(polling) = &mut self.transport else { return };
        let Some(probe) = &mut polling.probe else { return };
        probe.writer.pending.push_back(encoded(packet));
        self.write_probe();
    }

    /// Writes to the WebSocket that probes: so little that a stream which does not take it at once is useless.
    pub(super) fn write_probe(&mut self) {
        let Transport::Polling(polling) = &mut self.transport else { return };
        let Some(probe) = &mut polling.probe else { return };
        let result = probe.write(Instant::now());
        if result.is_err() || probe.is_stalled() {
            debug!(?result, "upgrade failed at its probe");
            self.core.handle_probe_lost();
        }
    }

    pub(super) fn close_probe(&mut self) {
        let Transport::Polling(polling) = &mut self.transport else { return };
        if let Some(probe) = polling.take_probe() {
            self.dismiss(*probe);
        }
    }

    /// Closes a WebSocket that this connection does not want.
    fn dismiss(&self, websocket: WebSocket) {
        let flush_by = Instant::now() + self.core.config().ping_timeout;
        let farewell = self.registration.farewell();
        self.tasks.spawn(async move {
            farewell.unless_over(websocket.close(None, flush_by)).await;
        });
    }

    /// The WebSocket that probed takes over, with all that polls have not fetched.
    pub(super) fn upgrade(&mut self) {
        let polling = self.polling();
        let mut websocket = polling.probe.take().expect("only a WebSocket that probes upgrades");
        websocket.writer.pending.append(&mut polling.pending);
        self.transport = Transport::WebSocket(*websocket);
        self.registration.stop_polling();
        self.outbox.mark_transport(TransportKind::WebSocket);
        self.call_client(|client| client.handle_upgrade(TransportKind::WebSocket));
        self.write_frames();
    }
}
