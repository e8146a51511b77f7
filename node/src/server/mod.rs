//! Socket.IO's server API: what an application calls.
//!
//! `emit`, `join` and their like act when they are called; what they return may be awaited, to
//! learn how it ended, or dropped.

#[cfg(doctest)]
#[doc = include_str!("../../../docs/server-api.md")]
mod tour {}

mod ack;
mod connection;
mod drafts;
mod extract;
mod handler;
mod io;
mod legacy;
mod middleware;
mod namespace;
mod operator;
mod receipts;
mod session;
mod socket;

pub use ack::{Ack, AckEmit, AckError};
pub use extract::{
    Args, Auth, Context, Data, EventName, ExtractError, FromContext, Occasion, Reason,
};
pub use handler::Handler;
pub use io::{Io, Settings};
pub use middleware::ConnectError;
pub use namespace::NamespaceHandle;
pub use operator::{IntoRooms, Operator, RemoteSocket};
pub use receipts::{Agreed, EmitError};
pub use session::{Session, SessionError, SessionUpdate};
pub use socket::Socket;

pub use crate::transport::{
    ConnectionError, Engine, ErrorContext, Exchange, Forbidden, Halt, Handshake,
};
