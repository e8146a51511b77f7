//! Socket.IO's server API: what an application calls.
//!
//! `emit`, `join` and their like act when they are called; what they return may be awaited, to
//! learn how it ended, or dropped.

#[cfg(doctest)]
#[doc = include_str!("../../../docs/server-api.md")]
mod tour {}

mod ack;
mod companions;
mod conn;
mod connecting;
mod connection;
mod dispatch;
mod drafts;
mod dynamic;
mod events;
mod extract;
mod front;
mod gone;
mod handler;
mod handshake;
mod homecoming;
mod io;
mod legacy;
mod listeners;
mod middleware;
mod namespace;
mod operator;
mod own;
mod receipts;
mod remote;
mod root;
mod server_side;
mod session;
mod socket;

pub use ack::{Ack, AckEmit, AckError, Answered};
pub(crate) use companions::{Companion, SharedAck};
pub use conn::Conn;
pub use dynamic::{InvalidPattern, ParentNamespace, ParentOperator};
pub use extract::{
    Args, Auth, Context, Data, EventName, ExtractError, FromContext, Occasion, Reason, Transport,
};
pub use gone::GoneSocket;
pub use handler::Handler;
pub use handshake::HandshakeDetails;
pub use io::{Io, Settings};
pub use listeners::{Event, EventError, ListenerId};
pub use middleware::ConnectError;
pub use namespace::NamespaceHandle;
pub use operator::{IntoRooms, Operator};
pub use receipts::{Agreed, EmitError};
pub use remote::{FetchedSockets, RemoteSocket, SocketDetails};
pub use server_side::ServerEvent;
pub use session::{
    Reading, Secret, Session, SessionConfig, SessionCookieConfig, SessionError, SessionLayer,
    SessionService, SessionSource, SessionUpdate,
};
pub use socket::Socket;

pub use crate::adapter::{Part, Projector, RoomEvent};
pub use crate::transport::{
    ConnectionError, Engine, ErrorContext, Exchange, Forbidden, Halt, Handshake,
};
