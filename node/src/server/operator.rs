//! Broadcast operators: who is meant, how it travels, and what to do with them.

use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use serde::Serialize;

use super::ack::AckEmit;
use super::receipts::{Agreed, EmitError};
use super::remote::{self, FetchedSockets, RemoteSocket};
use crate::adapter::{Adapter, EmitFlags};
use crate::raft::Receipt;
use crate::raft::state::{Rooms, SessionFilter, SocketId, SocketView, Target};
use crate::socketio::{Payload, to_payload};

/// One room or several.
pub trait IntoRooms {
    fn into_rooms(self) -> Rooms;
}

impl IntoRooms for Rooms {
    fn into_rooms(self) -> Rooms {
        self
    }
}

impl IntoRooms for &str {
    fn into_rooms(self) -> Rooms {
        [ByteString::from(self)].into_iter().collect()
    }
}

impl IntoRooms for String {
    fn into_rooms(self) -> Rooms {
        [ByteString::from(self)].into_iter().collect()
    }
}

impl IntoRooms for ByteString {
    fn into_rooms(self) -> Rooms {
        [self].into_iter().collect()
    }
}

impl IntoRooms for SocketId {
    fn into_rooms(self) -> Rooms {
        self.as_str().into_rooms()
    }
}

impl<T: Into<ByteString>> IntoRooms for Vec<T> {
    fn into_rooms(self) -> Rooms {
        self.into_iter().map(Into::into).collect()
    }
}

impl<T: Into<ByteString>, const N: usize> IntoRooms for [T; N] {
    fn into_rooms(self) -> Rooms {
        self.into_iter().map(Into::into).collect()
    }
}

/// Events that both ends keep for themselves (the official server's `RESERVED_EVENTS`): a client
/// takes them for its own.
const RESERVED: [&str; 6] =
    ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"];

pub(super) fn check_name(event: &str) -> Result<(), EmitError> {
    if RESERVED.contains(&event) { Err(EmitError::Reserved) } else { Ok(()) }
}

pub(super) fn check_event(payload: &Payload) -> Result<(), EmitError> {
    payload.event_name().map_or(Ok(()), |name| check_name(&name))
}

/// How long an emit with ack waits if nothing else is said.
pub(crate) const DEFAULT_ACK_TIMEOUT: Duration = Duration::from_secs(5);

/// Sockets of a namespace on all nodes, and how packets travel to them. Each step returns a new
/// operator; a socket in several of the rooms gets one copy.
#[derive(Clone)]
pub struct Operator {
    adapter: Arc<Adapter>,
    target: Target,
    flags: EmitFlags,
    timeout: Duration,
    /// What was wrong with an earlier step; the emit says so.
    invalid: Option<crate::raft::state::FilterError>,
}

impl Operator {
    pub(crate) fn new(adapter: Arc<Adapter>) -> Self {
        Self {
            adapter,
            target: Target::default(),
            flags: EmitFlags::default(),
            timeout: DEFAULT_ACK_TIMEOUT,
            invalid: None,
        }
    }

    /// Adds rooms; a socket is meant if it is in any of them.
    pub fn to(mut self, rooms: impl IntoRooms) -> Self {
        self.target.rooms.extend(rooms.into_rooms());
        self
    }

    /// The same as [`to`](Self::to).
    pub fn within(self, rooms: impl IntoRooms) -> Self {
        self.to(rooms)
    }

    /// Leaves out sockets in any of these rooms.
    pub fn except(mut self, rooms: impl IntoRooms) -> Self {
        self.target.except.extend(rooms.into_rooms());
        self
    }

    /// Only sockets whose session has every key of `filter`, an object of scalars, with a
    /// strictly equal value.
    pub fn session(mut self, filter: impl Serialize) -> Self {
        let value = serde_json::to_value(filter).unwrap_or_default();
        match SessionFilter::try_from(value) {
            Ok(filter) => self.target.filter = Some(filter),
            Err(error) => self.invalid = Some(error),
        }
        self
    }

    /// Only this node's sockets.
    pub fn local(mut self) -> Self {
        self.flags.local = true;
        self
    }

    /// Straight to the nodes that have a target, at most once, whatever the namespace's delivery.
    pub fn direct(mut self) -> Self {
        self.flags.direct = true;
        self
    }

    /// Only to clients that can take it now.
    pub fn volatile(mut self) -> Self {
        self.flags.volatile = true;
        self
    }

    /// Whether the packet is worth compressing, as it is unless said otherwise. A polling response
    /// is compressed by its length, but not if that is true of none of its packets; WebSocket
    /// messages are never compressed.
    pub fn compress(mut self, compress: bool) -> Self {
        self.flags.uncompressed = !compress;
        self
    }

    /// How long [`emit_with_ack`](Self::emit_with_ack) and [`fetch_details`](Self::fetch_details)
    /// wait; five seconds if nothing is said.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sends an event; a tuple is several arguments.
    pub fn emit(self, event: &str, args: &(impl Serialize + ?Sized)) -> Agreed {
        match self.payload(event, args) {
            Ok(payload) => self.emit_payload(payload),
            Err(error) => Agreed::refused(error),
        }
    }

    /// Sends an event whose arguments are passed on as they came.
    pub fn emit_payload(self, payload: Payload) -> Agreed {
        if let Err(error) = check_event(&payload) {
            return Agreed::refused(error);
        }
        match self.invalid {
            Some(error) => Agreed::refused(EmitError::Filter(error)),
            None => self.adapter.emit(self.target, payload, self.flags).into(),
        }
    }

    /// Sends a `message`.
    pub fn send(self, args: &(impl Serialize + ?Sized)) -> Agreed {
        self.emit("message", args)
    }

    /// Sends an event that each recipient answers.
    pub fn emit_with_ack(self, event: &str, args: &(impl Serialize + ?Sized)) -> AckEmit {
        let timeout = self.timeout;
        let sent = self
            .payload(event, args)
            .map(|payload| self.adapter.emit_with_ack(self.target, payload, self.flags));
        AckEmit::new(sent, timeout)
    }

    fn payload(&self, event: &str, args: &(impl Serialize + ?Sized)) -> Result<Payload, EmitError> {
        if let Some(error) = &self.invalid {
            return Err(EmitError::Filter(error.clone()));
        }
        check_name(event)?;
        to_payload(Some(event), args).map_err(EmitError::Encode)
    }

    /// The sockets that are meant, on all nodes, from the agreed state as far as this node has
    /// applied it. A session filter that is no object of scalars matches none.
    pub fn fetch_sockets(&self) -> Vec<RemoteSocket> {
        self.meant(|id, row| RemoteSocket {
            id,
            node: row.owner().node,
            session: row.session(),
            rooms: row.rooms().map(ByteString::from).collect(),
            adapter: self.adapter.clone(),
        })
    }

    /// The ids of the same sockets, for those who need no more.
    pub fn all_sockets(&self) -> Vec<SocketId> {
        self.meant(|id, _row| id)
    }

    /// What `read` reads of each socket that is meant.
    fn meant<R>(&self, read: impl Fn(SocketId, SocketView<'_>) -> R) -> Vec<R> {
        let view = self.adapter.view();
        let me = self.adapter.node_id();
        if self.invalid.is_some() {
            return Vec::new();
        }
        let ids = view.matching(self.adapter.name(), &self.target).into_iter();
        let rows = ids.filter_map(|id| Some((id, view.socket(id)?)));
        rows.filter(|(_, row)| !self.flags.local || row.owner().node == me)
            .map(|(id, row)| read(id, row))
            .collect()
    }

    /// The same sockets, with the handshake and the data that only their owners know, who are
    /// asked for them. What is missing when the [timeout](Self::timeout) ends is `None`.
    pub async fn fetch_details(&self) -> FetchedSockets {
        remote::fetch_details(&self.adapter, self.fetch_sockets(), self.timeout).await
    }

    /// Has all that are meant join rooms.
    pub fn sockets_join(&self, rooms: impl IntoRooms) -> Agreed {
        let rooms = rooms.into_rooms();
        self.agree(|target| self.adapter.join_matching(target, rooms))
    }

    /// Has all that are meant leave rooms.
    pub fn sockets_leave(&self, rooms: impl IntoRooms) -> Agreed {
        let rooms = rooms.into_rooms();
        self.agree(|target| self.adapter.leave_matching(target, rooms))
    }

    /// Disconnects all that are meant, `close` with their connections.
    pub fn disconnect_sockets(&self, close: bool) -> Agreed {
        self.agree(|target| self.adapter.disconnect_matching(target, close))
    }

    /// Proposes a change to all that are meant.
    fn agree(&self, propose: impl FnOnce(Target) -> Receipt) -> Agreed {
        if let Some(error) = &self.invalid {
            return Agreed::refused(EmitError::Filter(error.clone()));
        }
        if !self.flags.local {
            return propose(self.target.clone()).into();
        }
        // The cluster does not tell nodes apart: each of this node's sockets is named.
        let rooms: Rooms = self
            .adapter
            .local_sockets(&self.target)
            .iter()
            .map(|id| ByteString::from(id.as_str()))
            .collect();
        if rooms.is_empty() {
            return Receipt::done().into();
        }
        propose(Target { rooms, ..Target::default() }).into()
    }
}
