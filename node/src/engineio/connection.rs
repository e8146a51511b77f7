//! One connection's heartbeat, transports, upgrade and close.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::engineio::{
    CloseReason, EngineConfig, Message, Packet, ParseError, Revision, TransportKind,
};

#[cfg(test)]
mod tests;

/// One Engine.IO connection, from handshake to close.
///
/// After each call that takes `&mut self`, drain [`poll_output`](Self::poll_output); then wait for
/// input, at most until [`deadline`](Self::deadline). What the layer above sends does not pass
/// through here: it needs no decision.
#[derive(Debug)]
pub struct Connection {
    state: State,
    transport: Transport,
    config: Arc<EngineConfig>,
    outputs: VecDeque<Output>,
}

#[derive(Debug)]
enum State {
    Idle {
        ping_at: Instant,
    },
    AwaitingPong {
        pong_by: Instant,
        is_extended: bool,
    },
    /// In revision 3 it is the client that pings; nothing else shows that it is alive.
    AwaitingPing {
        ping_by: Instant,
    },
    Closed,
}

#[derive(Debug)]
enum Transport {
    Polling(Polling),
    WebSocket,
}

#[derive(Debug, Default)]
struct Polling {
    /// A GET waits for packets.
    has_poll: bool,
    /// A POST is on its way in.
    has_post: bool,
    upgrade: Option<Upgrade>,
}

/// A WebSocket that wants to take over from polling.
#[derive(Debug)]
struct Upgrade {
    finish_by: Instant,
    /// Set once the client has probed: the open poll is to end, so that the client can go over.
    noop_at: Option<Instant>,
    /// The open poll came later than this WebSocket.
    has_later_poll: bool,
}

/// While a client upgrades, how often its open poll is ended; as the official server does.
const NOOP_INTERVAL: Duration = Duration::from_millis(100);

/// How late a ping may be, and still be awaited as if it had gone in time. After a longer stall the client has all its
/// time from then on.
const LATENESS: Duration = Duration::from_millis(20);

/// What is to be done, in this order.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// For the layer above.
    Message(Message),
    /// For the layer above: the client did its part of the heartbeat.
    Heartbeat,
    /// For the client, by the present transport. A noop answers the open poll.
    Send(Packet),
    /// For the client, by the WebSocket that probes.
    SendProbe(Packet),
    /// The WebSocket that probed is the transport from now on. A poll that is still open has come too late.
    Upgrade,
    /// The WebSocket that probes is no longer wanted.
    CloseProbe,
    /// The connection is over; an open poll is answered with a close packet. Always the last.
    Close(CloseReason),
}

/// A client may have only one GET and one POST open; a second one ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a request of this kind is already open")]
pub struct Overlap;

/// The connection takes no (other) WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the connection is upgraded, or about to be")]
pub struct UpgradeRefused;

impl Connection {
    pub fn new(
        transport: TransportKind,
        revision: Revision,
        config: Arc<EngineConfig>,
        now: Instant,
    ) -> Self {
        let ping_at = now + config.ping_interval;
        Self {
            state: match revision {
                Revision::V4 => State::Idle { ping_at },
                Revision::V3 => State::AwaitingPing { ping_by: ping_at + config.ping_timeout },
            },
            transport: match transport {
                TransportKind::Polling => Transport::Polling(Polling::default()),
                TransportKind::WebSocket => Transport::WebSocket,
            },
            config,
            outputs: VecDeque::new(),
        }
    }

    pub fn config(&self) -> &EngineConfig {
        &self.config
    }

    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`handle_deadline`](Self::handle_deadline) is due; none once the connection is closed.
    pub fn deadline(&self) -> Option<Instant> {
        let heartbeat = match self.state {
            State::Idle { ping_at } => ping_at,
            State::AwaitingPong { pong_by, .. } => pong_by,
            State::AwaitingPing { ping_by } => ping_by,
            State::Closed => return None,
        };
        let upgrade = match &self.transport {
            Transport::Polling(Polling { upgrade: Some(upgrade), .. }) => upgrade,
            Transport::Polling(_) | Transport::WebSocket => return Some(heartbeat),
        };
        let noop_at = upgrade.noop_at.unwrap_or(upgrade.finish_by);
        Some(heartbeat.min(upgrade.finish_by).min(noop_at))
    }

    pub fn handle_deadline(&mut self, now: Instant) {
        match self.state {
            State::Idle { ping_at } if ping_at <= now => {
                self.outputs.push_back(Output::Send(Packet::Ping("".into())));
                // Counted from when the ping was due, so that timers which are a little late do not add up.
                let soonest = now + self.config.ping_timeout.saturating_sub(LATENESS);
                let pong_by = soonest.max(ping_at + self.config.ping_timeout);
                self.state = State::AwaitingPong { pong_by, is_extended: false };
            }
            State::AwaitingPong { pong_by: end, .. } | State::AwaitingPing { ping_by: end }
                if end <= now =>
            {
                return self.close(CloseReason::PingTimeout);
            }
            State::Idle { .. } | State::AwaitingPong { .. } | State::AwaitingPing { .. } => {}
            State::Closed => return,
        }
        self.handle_upgrade_deadline(now);
    }

    fn handle_upgrade_deadline(&mut self, now: Instant) {
        let Transport::Polling(polling) = &mut self.transport else { return };
        let Some(upgrade) = &mut polling.upgrade else { return };
        if upgrade.finish_by <= now {
            // The connection goes on by polling.
            polling.upgrade = None;
            self.outputs.push_back(Output::CloseProbe);
        } else if upgrade.noop_at.is_some_and(|noop_at| noop_at <= now) {
            upgrade.noop_at = Some(now + NOOP_INTERVAL);
            if polling.has_poll {
                self.outputs.push_back(Output::Send(Packet::Noop));
            }
        }
    }

    /// A packet came by the present transport.
    pub fn handle_packet(&mut self, packet: Packet, now: Instant) {
        match &mut self.state {
            State::Closed => return,
            // A client that sends something is alive, though its pong may be stuck behind it. It
            // counts once, or a client that never answers could live for ever.
            State::AwaitingPong { pong_by, is_extended }
                if !*is_extended && !matches!(packet, Packet::Pong(_)) =>
            {
                *pong_by = now + self.config.ping_timeout;
                *is_extended = true;
            }
            State::Idle { .. } | State::AwaitingPong { .. } | State::AwaitingPing { .. } => {}
        }
        match packet {
            Packet::Message(message) => self.outputs.push_back(Output::Message(message)),
            Packet::Ping(_) | Packet::Pong(_) => self.handle_heartbeat(&packet, now),
            Packet::Close => {
                self.end_poll();
                self.close(CloseReason::TransportClose);
            }
            // The official server takes no notice of these.
            Packet::Open(_) | Packet::Upgrade | Packet::Noop => {}
        }
    }

    /// One side pings and the other answers; a client that does the other's part speaks the other
    /// revision.
    fn handle_heartbeat(&mut self, packet: &Packet, now: Instant) {
        match (packet, &self.state) {
            (Packet::Ping(_), State::AwaitingPing { .. }) => {
                self.state = self.awaiting_ping(now);
                self.outputs.push_back(Output::Heartbeat);
                // Without what the ping may have carried, as the official server does it.
                self.outputs.push_back(Output::Send(Packet::Pong("".into())));
            }
            (Packet::Pong(_), State::Idle { .. } | State::AwaitingPong { .. }) => {
                self.state = State::Idle { ping_at: now + self.config.ping_interval };
                self.outputs.push_back(Output::Heartbeat);
            }
            _ => self.close(CloseReason::TransportError),
        }
    }

    fn awaiting_ping(&self, now: Instant) -> State {
        State::AwaitingPing { ping_by: now + self.config.ping_interval + self.config.ping_timeout }
    }

    /// What came by the present transport is no packet.
    pub fn handle_parse_error(&mut self, _error: ParseError) {
        self.close(CloseReason::ParseError);
    }

    /// A GET came.
    pub fn handle_poll(&mut self) -> Result<(), Overlap> {
        let Transport::Polling(polling) = &mut self.transport else { return Err(Overlap) };
        if std::mem::replace(&mut polling.has_poll, true) {
            self.close(CloseReason::TransportError);
            return Err(Overlap);
        }
        if let Some(upgrade) = &mut polling.upgrade {
            upgrade.has_later_poll = true;
        }
        Ok(())
    }

    /// The GET has its answer.
    pub fn handle_poll_answered(&mut self) {
        if let Transport::Polling(polling) = &mut self.transport {
            polling.has_poll = false;
            if let Some(upgrade) = &mut polling.upgrade {
                upgrade.has_later_poll = false;
            }
        }
    }

    /// A POST came; its packets follow, one by one.
    pub fn handle_post(&mut self) -> Result<(), Overlap> {
        let Transport::Polling(polling) = &mut self.transport else { return Err(Overlap) };
        if std::mem::replace(&mut polling.has_post, true) {
            self.close(CloseReason::TransportError);
            return Err(Overlap);
        }
        Ok(())
    }

    /// The POST has its answer.
    pub fn handle_post_answered(&mut self) {
        if let Transport::Polling(polling) = &mut self.transport {
            polling.has_post = false;
        }
    }

    /// A WebSocket is coming for this connection; its client does not know yet that it may.
    pub fn handle_probe_opened(&mut self, now: Instant) -> Result<(), UpgradeRefused> {
        match &mut self.transport {
            Transport::Polling(polling) if polling.upgrade.is_none() => {
                let finish_by = now + self.config.upgrade_timeout;
                polling.upgrade = Some(Upgrade { finish_by, noop_at: None, has_later_poll: false });
                Ok(())
            }
            Transport::Polling(_) | Transport::WebSocket => Err(UpgradeRefused),
        }
    }

    /// A packet came by the WebSocket that probes.
    pub fn handle_probe_packet(&mut self, packet: &Packet, now: Instant) {
        let Transport::Polling(polling) = &mut self.transport else { return };
        let Some(upgrade) = &mut polling.upgrade else { return };
        match packet {
            Packet::Ping(content) if content == "probe" => {
                upgrade.noop_at = Some(now + NOOP_INTERVAL);
                self.outputs.push_back(Output::SendProbe(Packet::Pong("probe".into())));
            }
            Packet::Upgrade => {
                // A client upgrades when its polls have ended. If one that came after the WebSocket is open, it was
                // sent after this packet and has overtaken it, for they come by different ways: it finds no polling.
                if !upgrade.has_later_poll {
                    self.end_poll();
                }
                self.transport = Transport::WebSocket;
                self.outputs.push_back(Output::Upgrade);
                // A ping may have gone by the old transport: its pong has a new way to come.
                match &mut self.state {
                    State::AwaitingPong { pong_by, .. } => {
                        *pong_by = now + self.config.ping_timeout
                    }
                    State::AwaitingPing { .. } => self.state = self.awaiting_ping(now),
                    State::Idle { .. } | State::Closed => {}
                }
            }
            _ => self.handle_probe_lost(),
        }
    }

    /// The WebSocket that probes ended, or broke the rules: the connection goes on by polling.
    pub fn handle_probe_lost(&mut self) {
        if let Transport::Polling(polling) = &mut self.transport
            && polling.upgrade.take().is_some()
        {
            self.outputs.push_back(Output::CloseProbe);
        }
    }

    /// The transport was lost, or someone wants the connection to end. The first reason stands.
    pub fn close(&mut self, reason: CloseReason) {
        if matches!(self.state, State::Closed) {
            return;
        }
        self.state = State::Closed;
        self.handle_probe_lost();
        self.outputs.push_back(Output::Close(reason));
    }

    fn end_poll(&mut self) {
        if let Transport::Polling(Polling { has_poll: true, .. }) = &self.transport {
            self.outputs.push_back(Output::Send(Packet::Noop));
        }
    }
}
