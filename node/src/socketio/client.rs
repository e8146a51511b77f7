//! One connection's namespaces: what its client may send, and when.

use std::collections::VecDeque;

use bytes::Bytes;
use bytestring::ByteString;
use smallvec::SmallVec;
use tokio::time::Instant;

use super::attachments::Attachments;
use super::payload::event_name;
use super::{Decoder, Packet, Payload, ProtocolError, codec, v4};
use crate::engineio::{Message, Revision};

/// The Socket.IO side of one connection.
///
/// After each `handle_*`, take what came of it with [`poll_output`](Self::poll_output); then wait
/// for input, at most until [`deadline`](Self::deadline). There is one for each connection, so it
/// is small: idle in one namespace it holds nothing on the heap but that namespace's name.
#[derive(Debug)]
pub struct Client {
    namespaces: SmallVec<[(ByteString, State); 1]>,
    attachments: Attachments,
    /// Reads the messages, if a parser other than the default one does.
    decoder: Option<Box<dyn Decoder>>,
    output: Option<Output>,
    /// What came for namespaces whose CONNECT was not answered yet; mostly nothing.
    early: Option<Box<Early>>,
    /// By when a namespace must have been joined; `None` once one has been, and after the close.
    connect_by: Option<Instant>,
    limits: Limits,
    /// Of Engine.IO; its third goes with Socket.IO v4.
    revision: Revision,
    closed: bool,
}

/// What one client may make us hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Attachments of one packet.
    pub max_attachments: u16,
    /// Namespaces that one connection is in, or wants to be in.
    pub max_namespaces: u16,
    /// Bytes of all attachments of one packet.
    pub max_attachment_bytes: u32,
    /// Packets that came before their CONNECT was answered.
    pub max_early_packets: u16,
    /// Bytes of those packets.
    pub max_early_bytes: u32,
    /// Bytes of packets that came after a welcome, before the client was accepted.
    pub max_welcomed_bytes: u32,
}

impl Default for Limits {
    /// As many attachments as the official parser takes, each as long as a message may be.
    fn default() -> Self {
        Self {
            max_attachments: 10,
            max_namespaces: 256,
            max_attachment_bytes: 10_000_000,
            max_early_packets: 64,
            max_early_bytes: 1_000_000,
            max_welcomed_bytes: 10_000_000,
        }
    }
}

/// How the client stands to a namespace that it asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// CONNECT has come, and is not answered yet.
    Connecting,
    /// It is answered, and events wait until the client is accepted.
    Welcomed,
    Connected,
    /// We ended it. What the client had sent before it heard of that may still come.
    Left,
}

/// Packets that wait for the answer to their CONNECT.
///
/// The official server answers a CONNECT that nothing holds up before it reads on, so clients may send at once. Here the
/// client waits for the cluster, with the answer or behind it, and what comes meanwhile waits with it.
#[derive(Debug, Default)]
struct Early {
    waiting: VecDeque<(ByteString, Output)>,
    /// How many came before the answer, and their bytes.
    unanswered: usize,
    unanswered_bytes: usize,
    /// Of those that came after it.
    welcomed_bytes: usize,
    /// Their namespaces have let the client in.
    ready: VecDeque<Output>,
}

/// What came of an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// The client asks for a namespace: to be answered with [`Client::handle_accepted`] or
    /// [`Client::handle_rejected`].
    Connect {
        namespace: ByteString,
        /// A JSON object.
        auth: Option<ByteString>,
    },
    Event {
        namespace: ByteString,
        /// Set if the client wants an ack.
        id: Option<u64>,
        payload: Payload,
    },
    /// The answer to a packet that we sent with this id, or to none.
    Ack { namespace: ByteString, id: u64, payload: Payload },
    /// The client left the namespace.
    Disconnect { namespace: ByteString },
    /// The connection must be closed. Nothing comes after it.
    Close(ProtocolError),
}

impl Client {
    /// `connect_by`: when the connection ends if no namespace has been joined.
    pub fn new(connect_by: Instant, limits: Limits) -> Self {
        Self::for_revision(Revision::V4, connect_by, limits)
    }

    /// For a client of that revision of Engine.IO. One of revision 3 wants to be in `/` without
    /// asking: that is its first output.
    pub fn for_revision(revision: Revision, connect_by: Instant, limits: Limits) -> Self {
        let mut client = Self {
            namespaces: SmallVec::new(),
            attachments: Attachments::default(),
            decoder: None,
            output: None,
            early: None,
            connect_by: Some(connect_by),
            limits,
            revision,
            closed: false,
        };
        if revision == Revision::V3 {
            client.output = client.handle_connect(ByteString::from_static("/"), None).ok();
        }
        client
    }

    /// Speaks with the client as `decoder` says, if there is one.
    pub fn with_decoder(mut self, decoder: Option<Box<dyn Decoder>>) -> Self {
        self.decoder = decoder;
        self
    }

    /// The content of an Engine.IO message.
    pub fn handle_message(&mut self, message: Message) {
        if self.closed {
            return;
        }
        debug_assert!(self.output.is_none(), "outputs are taken before the next input");
        let handled = match (self.decoder.as_mut(), message) {
            (Some(decoder), message) => {
                let decoded = decoder.decode(message);
                self.handle_decoded(decoded)
            }
            (None, Message::Text(text)) => self.handle_text(&text),
            (None, Message::Binary(part)) => self.handle_part(part),
        };
        match handled {
            Ok(output) => self.output = output,
            Err(error) => self.close(error),
        }
    }

    /// The client's CONNECT is answered, and the events that follow wait until it is accepted. It may answer what it
    /// is sent, and leave.
    pub fn handle_welcomed(&mut self, namespace: &str) {
        if let Some(state @ State::Connecting) = self.state_mut(namespace) {
            *state = State::Welcomed;
            self.connect_by = None;
        }
    }

    /// Whether anything waits for a client to be accepted.
    pub fn holds_events(&self) -> bool {
        self.early.is_some()
    }

    /// The namespace's middleware let the client in. What the client has sent there already comes out now.
    pub fn handle_accepted(&mut self, namespace: &str) {
        if let Some(state @ (State::Connecting | State::Welcomed)) = self.state_mut(namespace) {
            *state = State::Connected;
            self.connect_by = None;
            let early = self.take_early(namespace);
            if let Some(held) = &mut self.early {
                held.ready.extend(early);
            }
        }
    }

    /// The namespace does not exist, or its middleware refused the client. To have sent something there already
    /// closes the connection, as it does a moment later.
    pub fn handle_rejected(&mut self, namespace: &str) {
        self.namespaces.retain(|(name, _)| name != namespace);
        if !self.take_early(namespace).is_empty() {
            self.close(ProtocolError::NotConnected);
        }
    }

    /// The server ended the client's socket in this namespace; the connection stays.
    pub fn handle_left(&mut self, namespace: &str) {
        if let Some(state @ State::Connected) = self.state_mut(namespace) {
            *state = State::Left;
        }
    }

    pub fn handle_deadline(&mut self, now: Instant) {
        if self.connect_by.is_some_and(|deadline| deadline <= now) {
            self.close(ProtocolError::ConnectTimeout);
        }
    }

    /// When [`handle_deadline`](Self::handle_deadline) wants to be called.
    pub fn deadline(&self) -> Option<Instant> {
        self.connect_by
    }

    pub fn poll_output(&mut self) -> Option<Output> {
        if self.output.is_some() || self.early.is_none() {
            return self.output.take();
        }
        let early = self.early.as_mut()?;
        let output = early.ready.pop_front();
        if output.is_none() && early.waiting.is_empty() {
            self.early = None;
        }
        output
    }

    fn handle_text(&mut self, text: &ByteString) -> Result<Option<Output>, ProtocolError> {
        self.attachments.check_none_awaited()?;
        let mut packet = codec::parse(text, usize::from(self.limits.max_attachments))?;
        if self.revision == Revision::V3
            && let Packet::Connect { namespace, auth } = &mut packet
        {
            *auth = v4::auth(text);
            *namespace = v4::name(namespace);
        }
        match self.attachments.handle_packet(packet) {
            Some((packet, parts)) => self.handle_packet(packet, parts),
            None => Ok(None),
        }
    }

    fn handle_part(&mut self, part: Bytes) -> Result<Option<Output>, ProtocolError> {
        match self.attachments.handle_part(part, self.limits.max_attachment_bytes as usize)? {
            Some((packet, parts)) => self.handle_packet(packet, parts),
            None => Ok(None),
        }
    }

    /// What another parser than the default one has made of a message.
    fn handle_decoded(
        &mut self,
        decoded: Result<Option<(Packet, Vec<Bytes>)>, ProtocolError>,
    ) -> Result<Option<Output>, ProtocolError> {
        let Some((mut packet, parts)) = decoded? else { return Ok(None) };
        if self.revision == Revision::V3
            && let Packet::Connect { namespace, auth } = &mut packet
        {
            *auth = v4::auth(namespace);
            *namespace = v4::name(namespace);
        }
        if let Packet::Event(body) | Packet::Ack(body) = &packet
            && body.attachments() != parts.len()
        {
            return Err(ProtocolError::IllegalAttachments);
        }
        if let Packet::Event(body) = &packet
            && let Some(name) = event_name(body.json())
        {
            // The official msgpack parser lets them pass, to handlers that trust them.
            codec::check_unreserved(&name)?;
        }
        self.handle_packet(packet, parts)
    }

    fn handle_packet(
        &mut self,
        packet: Packet,
        parts: Vec<Bytes>,
    ) -> Result<Option<Output>, ProtocolError> {
        match packet {
            Packet::Connect { namespace, auth } => self.handle_connect(namespace, auth).map(Some),
            Packet::ConnectError { .. } => Err(ProtocolError::UnexpectedConnectError),
            Packet::Disconnect { namespace } => {
                let connected = self.check_connected(&namespace)?;
                self.namespaces.retain(|(name, _)| *name != namespace);
                let held = self.take_early(&namespace);
                match &mut self.early {
                    // What it sent before it left comes first.
                    Some(early) if !held.is_empty() => {
                        early.ready.extend(held);
                        early.ready.push_back(Output::Disconnect { namespace });
                        Ok(None)
                    }
                    Some(_) | None => Ok(connected.then_some(Output::Disconnect { namespace })),
                }
            }
            Packet::Event(body) => {
                let standing = self.standing(&body.namespace)?;
                let (namespace, id) = (body.namespace.clone(), body.id);
                let payload = body.into_payload(parts);
                // The official server lets an event without a payload pass, and nobody can
                // listen to it.
                let has_name = payload.event_name().is_some();
                match standing {
                    State::Connected if has_name => {
                        Ok(Some(Output::Event { namespace, id, payload }))
                    }
                    State::Connecting | State::Welcomed if has_name => {
                        self.hold(standing, namespace, id, payload)
                    }
                    State::Connecting | State::Welcomed | State::Connected | State::Left => {
                        Ok(None)
                    }
                }
            }
            Packet::Ack(body) => {
                let connected = self.check_connected(&body.namespace)?;
                let (namespace, id) = (body.namespace.clone(), body.id);
                let payload = body.into_payload(parts);
                // An ack of nothing is as good as one of something unknown.
                let output = id.map(|id| Output::Ack { namespace, id, payload });
                Ok(output.filter(|_| connected))
            }
        }
    }

    fn handle_connect(
        &mut self,
        namespace: ByteString,
        auth: Option<ByteString>,
    ) -> Result<Output, ProtocolError> {
        if self.namespaces.len() >= usize::from(self.limits.max_namespaces) {
            self.forget_left(&namespace);
        }
        let is_full = self.namespaces.len() >= usize::from(self.limits.max_namespaces);
        match self.state_mut(&namespace) {
            Some(State::Connecting | State::Welcomed | State::Connected) => {
                return Err(ProtocolError::AlreadyConnected);
            }
            Some(state @ State::Left) => *state = State::Connecting,
            None if is_full => return Err(ProtocolError::TooManyNamespaces),
            None => self.namespaces.push((namespace.clone(), State::Connecting)),
        }
        Ok(Output::Connect { namespace, auth })
    }

    /// Makes room: official clients do not answer a DISCONNECT, so the namespace that the server ended
    /// first has long been left.
    fn forget_left(&mut self, but: &str) {
        let left = |(name, state): &(ByteString, State)| *state == State::Left && name != but;
        if let Some(at) = self.namespaces.iter().position(left) {
            self.namespaces.remove(at);
        }
    }

    /// `Ok(false)`: the packet was sent before the client heard that it is disconnected.
    fn check_connected(&mut self, namespace: &str) -> Result<bool, ProtocolError> {
        match self.standing(namespace)? {
            State::Welcomed | State::Connected => Ok(true),
            State::Left => Ok(false),
            State::Connecting => Err(ProtocolError::NotConnected),
        }
    }

    fn standing(&mut self, namespace: &str) -> Result<State, ProtocolError> {
        self.state_mut(namespace).copied().ok_or(ProtocolError::NotConnected)
    }

    /// Keeps an event until the client is accepted.
    fn hold(
        &mut self,
        standing: State,
        namespace: ByteString,
        id: Option<u64>,
        payload: Payload,
    ) -> Result<Option<Output>, ProtocolError> {
        let early = self.early.get_or_insert_default();
        let attachments: usize = payload.attachments.iter().map(Bytes::len).sum();
        let bytes = payload.json.len() + attachments;
        if standing == State::Welcomed {
            // As many as a client sends that knows that it is connected; one may be as large as it likes.
            let is_first = early.welcomed_bytes == 0;
            early.welcomed_bytes += size_of::<(ByteString, Output)>() + bytes;
            if !is_first && early.welcomed_bytes > self.limits.max_welcomed_bytes as usize {
                return Err(ProtocolError::TooManyEarlyEvents);
            }
        } else {
            early.unanswered += 1;
            early.unanswered_bytes += bytes;
            let is_full = early.unanswered > usize::from(self.limits.max_early_packets);
            if is_full || early.unanswered_bytes > self.limits.max_early_bytes as usize {
                return Err(ProtocolError::NotConnected);
            }
        }
        let event = Output::Event { namespace: namespace.clone(), id, payload };
        early.waiting.push_back((namespace, event));
        Ok(None)
    }

    /// What came early for a namespace, in its order. The bytes count until all of it is gone.
    fn take_early(&mut self, namespace: &str) -> Vec<Output> {
        let Some(early) = &mut self.early else { return Vec::new() };
        let (taken, waiting): (VecDeque<_>, _) =
            std::mem::take(&mut early.waiting).into_iter().partition(|(name, _)| name == namespace);
        early.waiting = waiting;
        taken.into_iter().map(|(_name, event)| event).collect()
    }

    fn state_mut(&mut self, namespace: &str) -> Option<&mut State> {
        self.namespaces.iter_mut().find(|(name, _)| name == namespace).map(|(_, state)| state)
    }

    fn close(&mut self, error: ProtocolError) {
        self.closed = true;
        self.connect_by = None;
        self.namespaces = SmallVec::new();
        self.attachments = Attachments::default();
        self.early = None;
        self.output = Some(Output::Close(error));
    }
}

#[cfg(test)]
mod tests;
