//! The task behind a client: one namespace on one connection, its acks and its attachments.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::packet::{Frame, Kind, Packet};
use super::{Ack, Event, Log, State, Wire};

/// What the client's user asks of it.
#[derive(Debug)]
pub(super) enum Command {
    Emit { data: Value, attachments: Vec<Bytes>, answer: Option<oneshot::Sender<Ack>> },
    Disconnect,
}

pub(super) struct Session {
    namespace: String,
    auth: Option<Value>,
    wire: Wire,
    log: Arc<Log>,
    state: watch::Sender<State>,
    acks: HashMap<u64, oneshot::Sender<Ack>>,
    next_ack: u64,
    partial: Option<(Packet, Vec<Bytes>)>,
}

impl Session {
    pub(super) fn new(
        namespace: String,
        auth: Option<Value>,
        wire: Wire,
        log: Arc<Log>,
        state: watch::Sender<State>,
    ) -> Self {
        let acks = HashMap::new();
        Self { namespace, auth, wire, log, state, acks, next_ack: 0, partial: None }
    }

    /// Runs until the connection ends. Awaited acks are dropped then, which their waiters notice.
    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let connect = Packet::new(Kind::Connect, &self.namespace, self.auth.take());
        let mut end = self.send(&connect, Vec::new()).await.err();
        while end.is_none() {
            end = tokio::select! {
                frame = self.wire.incoming.recv() => match frame {
                    Some(frame) => self.handle_frame(frame).await.err(),
                    None => Some("the connection ended".to_owned()),
                },
                command = commands.recv() => match command {
                    Some(command) => self.handle_command(command).await.err(),
                    None => Some("the client was dropped".to_owned()),
                },
            };
        }
        let reason = end.unwrap_or_default();
        self.state.send_if_modified(|state| {
            let refused = matches!(state, State::Refused(_));
            if !refused {
                *state = State::Closed(reason);
            }
            !refused
        });
    }

    async fn handle_command(&mut self, command: Command) -> Result<(), String> {
        match command {
            Command::Emit { data, attachments, answer } => {
                let mut packet = Packet::new(Kind::Event, &self.namespace, Some(data));
                packet.attachments = attachments.len();
                if let Some(answer) = answer {
                    packet.ack = Some(self.next_ack);
                    self.acks.insert(self.next_ack, answer);
                    self.next_ack += 1;
                }
                self.send(&packet, attachments).await
            }
            Command::Disconnect => {
                let packet = Packet::new(Kind::Disconnect, &self.namespace, None);
                self.send(&packet, Vec::new()).await?;
                self.send_frame(Frame::Close).await?;
                Err("the client disconnected".to_owned())
            }
        }
    }

    async fn handle_frame(&mut self, frame: Frame) -> Result<(), String> {
        match frame {
            Frame::Text(text) => match text.split_at_checked(1) {
                Some(("2", data)) => self.send_frame(Frame::Text(format!("3{data}"))).await,
                Some(("4", packet)) => self.handle_text(packet),
                Some(("6", "")) => Ok(()),
                _ => Err(format!("not an Engine.IO packet: {text:?}")),
            },
            Frame::Binary(bytes) => self.handle_attachment(bytes),
            Frame::Close => Err("the server closed the connection".to_owned()),
        }
    }

    fn handle_text(&mut self, text: &str) -> Result<(), String> {
        if self.partial.is_some() {
            return Err(format!("a text packet among attachments: {text}"));
        }
        let packet = Packet::parse(text).ok_or_else(|| format!("not a packet: {text}"))?;
        if packet.attachments > 0 {
            self.partial = Some((packet, Vec::new()));
            return Ok(());
        }
        self.handle_packet(packet, Vec::new())
    }

    fn handle_attachment(&mut self, bytes: Bytes) -> Result<(), String> {
        let (packet, mut attachments) = self.partial.take().ok_or("an unasked attachment")?;
        attachments.push(bytes);
        if attachments.len() < packet.attachments {
            self.partial = Some((packet, attachments));
            return Ok(());
        }
        self.handle_packet(packet, attachments)
    }

    fn handle_packet(&mut self, packet: Packet, attachments: Vec<Bytes>) -> Result<(), String> {
        if packet.namespace != self.namespace {
            return Err(format!("a packet of another namespace: {packet:?}"));
        }
        match (packet.kind, packet.data) {
            (Kind::Connect, Some(data)) => {
                let id = data["sid"].as_str().ok_or("a CONNECT without sid")?;
                let pid = data["pid"].as_str().map(str::to_owned);
                self.state.send_replace(State::Connected(id.to_owned(), pid));
                Ok(())
            }
            (Kind::Event, Some(Value::Array(mut data))) if !data.is_empty() => {
                let Value::String(name) = data.remove(0) else {
                    return Err("an event without a name".to_owned());
                };
                self.log.push(Event { name, arguments: data, attachments, at: Instant::now() });
                Ok(())
            }
            (Kind::Ack, Some(Value::Array(arguments))) => {
                let id = packet.ack.ok_or("an ack without id")?;
                let answer = self.acks.remove(&id).ok_or("an ack that nobody awaits")?;
                // Whoever awaited it may have given up.
                answer.send(Ack { arguments, attachments }).ok();
                Ok(())
            }
            (Kind::ConnectError, reason) => {
                self.state.send_replace(State::Refused(reason.unwrap_or_default()));
                Err("the namespace refused".to_owned())
            }
            (Kind::Disconnect, _) => Err("the server disconnected the socket".to_owned()),
            (kind, data) => Err(format!("a {kind:?} with {data:?}")),
        }
    }

    async fn send(&self, packet: &Packet, attachments: Vec<Bytes>) -> Result<(), String> {
        self.send_frame(Frame::Text(format!("4{}", packet.to_text()))).await?;
        for attachment in attachments {
            self.send_frame(Frame::Binary(attachment)).await?;
        }
        Ok(())
    }

    async fn send_frame(&self, frame: Frame) -> Result<(), String> {
        let sent = self.wire.outgoing.send(frame).await;
        sent.map_err(|_closed| "the connection ended".to_owned())
    }
}
