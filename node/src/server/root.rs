//! The main namespace's calls on the server itself, as Socket.IO has them.

use std::time::Duration;

use serde::Serialize;

use super::ack::AckEmit;
use super::io::Io;
use super::operator::{IntoRooms, Operator};
use super::receipts::{Agreed, EmitError};
use super::remote::{FetchedSockets, RemoteSocket};
use crate::raft::state::SocketId;

/// Each is the call of [`NamespaceHandle`](super::NamespaceHandle) of that name, for `/`.
impl Io {
    pub fn within(&self, rooms: impl IntoRooms) -> Operator {
        self.to(rooms)
    }

    pub fn local(&self) -> Operator {
        self.operator().local()
    }

    pub fn direct(&self) -> Operator {
        self.operator().direct()
    }

    pub fn volatile(&self) -> Operator {
        self.operator().volatile()
    }

    pub fn compress(&self, compress: bool) -> Operator {
        self.operator().compress(compress)
    }

    pub fn timeout(&self, timeout: Duration) -> Operator {
        self.operator().timeout(timeout)
    }

    pub fn send(&self, args: &(impl Serialize + ?Sized)) -> Agreed {
        self.operator().send(args)
    }

    pub fn emit_with_ack(&self, event: &str, args: &(impl Serialize + ?Sized)) -> AckEmit {
        self.operator().emit_with_ack(event, args)
    }

    pub fn fetch_sockets(&self) -> Vec<RemoteSocket> {
        self.operator().fetch_sockets()
    }

    pub fn all_sockets(&self) -> Vec<SocketId> {
        self.operator().all_sockets()
    }

    pub async fn fetch_details(&self) -> FetchedSockets {
        self.operator().fetch_details().await
    }

    pub fn sockets_join(&self, rooms: impl IntoRooms) -> Agreed {
        self.operator().sockets_join(rooms)
    }

    pub fn sockets_leave(&self, rooms: impl IntoRooms) -> Agreed {
        self.operator().sockets_leave(rooms)
    }

    pub fn disconnect_sockets(&self, close: bool) -> Agreed {
        self.operator().disconnect_sockets(close)
    }

    pub fn server_side_emit(
        &self,
        event: &str,
        args: &(impl Serialize + ?Sized),
    ) -> Result<(), EmitError> {
        self.of("/").server_side_emit(event, args)
    }

    pub fn server_side_emit_with_ack(
        &self,
        event: &str,
        args: &(impl Serialize + ?Sized),
    ) -> AckEmit {
        self.of("/").server_side_emit_with_ack(event, args)
    }
}
