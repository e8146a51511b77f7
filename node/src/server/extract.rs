//! What a handler may ask for: typed parts of the event that it is called for.

use serde::de::DeserializeOwned;

use super::ack::{Ack, Answered};
use super::io::Io;
use super::listeners::EventError;
use super::namespace::NamespaceHandle;
use super::session::Session;
use super::socket::Socket;
use crate::engineio::{CloseReason, TransportKind};
use crate::socketio::{Payload, from_event};

/// What a handler is called for.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    pub socket: &'a Socket,
    pub occasion: Occasion<'a>,
}

impl<'a> Context<'a> {
    /// The same for one of several handlers, whose first answer counts.
    pub(super) fn answered_once(mut self, by_all: &'a Answered) -> Self {
        if let Occasion::Event { answered, .. } = &mut self.occasion {
            answered.get_or_insert(by_all);
        }
        self
    }
}

/// A connect, an event, a disconnect with its reason, an error, or what its connection tells.
#[derive(Clone, Copy)]
pub enum Occasion<'a> {
    Connect,
    Event {
        name: &'a str,
        payload: &'a Payload,
        ack_id: Option<u64>,
        /// Where several may answer: whether one has.
        answered: Option<&'a Answered>,
    },
    Disconnect {
        reason: &'static str,
    },
    Error(&'a EventError),
    Upgrade(TransportKind),
    /// The client has shown that it is alive.
    Heartbeat,
}

/// Why a handler could not be called for an event.
#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    #[error("arguments have another shape")]
    Shape(#[source] serde_json::Error),
    #[error("{0} is not part of this occasion")]
    Absent(&'static str),
}

/// An argument of a handler.
pub trait FromContext: Sized {
    fn from_context(context: &Context<'_>) -> Result<Self, ExtractError>;
}

impl FromContext for Socket {
    fn from_context(context: &Context<'_>) -> Result<Self, ExtractError> {
        Ok(context.socket.clone())
    }
}

impl FromContext for Io {
    fn from_context(context: &Context<'_>) -> Result<Self, ExtractError> {
        Ok(context.socket.io())
    }
}

impl FromContext for NamespaceHandle {
    fn from_context(context: &Context<'_>) -> Result<Self, ExtractError> {
        Ok(context.socket.namespace())
    }
}

impl FromContext for Session {
    fn from_context(context: &Context<'_>) -> Result<Self, ExtractError> {
        Ok(context.socket.session())
    }
}

/// The event's arguments, as a type: a tuple takes several, anything else the first one.
#[derive(Debug)]
pub struct Data<T>(pub T);

impl<T: DeserializeOwned> FromContext for Data<T> {
    fn from_context(context: &Context<'_>) -> Result<Self, ExtractError> {
        let Occasion::Event { payload, .. } = &context.occasion else {
            return Err(ExtractError::Absent("Data"));
        };
        from_event(payload).map(Self).map_err(ExtractError::Shape)
    }
}

/// What `T` extracts, or why it cannot: for handlers that answer bad arguments themselves.
impl<T: FromContext> FromContext for Result<T, ExtractError> {
    fn from_context(context: &Context<'_>) -> Result<Self, ExtractError> {
        Ok(T::from_context(context))
    }
}

/// The event's arguments as they came, to be passed on unchanged. They are not copied for it.
#[derive(Clone, Debug)]
pub struct Args {
    pub(super) event: Payload,
}

impl Args {
    /// Their JSON, commas between them; binary ones are placeholders.
    pub fn text(&self) -> &str {
        self.event.args().text()
    }

    /// An event of another name with these arguments.
    pub fn into_event(self, name: &str) -> Payload {
        let text = self.event.args().text();
        Payload::event(name, text, self.event.attachments.clone())
    }
}

impl FromContext for Args {
    fn from_context(context: &Context<'_>) -> Result<Self, ExtractError> {
        match &context.occasion {
            Occasion::Event { payload, .. } => Ok(Self { event: Payload::clone(payload) }),
            _ => Err(ExtractError::Absent("Args")),
        }
    }
}

impl FromContext for Ack {
    fn from_context(context: &Context<'_>) -> Result<Self, ExtractError> {
        let (id, answered) = match context.occasion {
            Occasion::Event { ack_id, answered, .. } => (ack_id, answered.cloned()),
            _ => (None, None),
        };
        Ok(Self::new(context.socket.clone(), id, answered))
    }
}

/// The event's name.
#[derive(Debug)]
pub struct EventName(pub String);

impl FromContext for EventName {
    fn from_context(context: &Context<'_>) -> Result<Self, ExtractError> {
        match context.occasion {
            Occasion::Event { name, .. } => Ok(Self(name.to_owned())),
            _ => Err(ExtractError::Absent("EventName")),
        }
    }
}

/// What the client sent with its CONNECT, as a type; absent is `null`.
#[derive(Debug)]
pub struct Auth<T>(pub T);

impl<T: DeserializeOwned> FromContext for Auth<T> {
    fn from_context(context: &Context<'_>) -> Result<Self, ExtractError> {
        context.socket.auth().map(Self).map_err(ExtractError::Shape)
    }
}

/// Why the socket is disconnected, as the official server spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reason(pub &'static str);

impl Reason {
    pub(crate) const CLIENT: &'static str = "client namespace disconnect";
    pub(crate) const SERVER: &'static str = "server namespace disconnect";

    pub(crate) fn of(reason: CloseReason) -> &'static str {
        reason.as_str()
    }
}

impl FromContext for Reason {
    fn from_context(context: &Context<'_>) -> Result<Self, ExtractError> {
        match context.occasion {
            Occasion::Disconnect { reason } => Ok(Self(reason)),
            _ => Err(ExtractError::Absent("Reason")),
        }
    }
}

impl FromContext for EventError {
    fn from_context(context: &Context<'_>) -> Result<Self, ExtractError> {
        match context.occasion {
            Occasion::Error(error) => Ok(error.clone()),
            _ => Err(ExtractError::Absent("EventError")),
        }
    }
}

/// The transport that a connection has gone over to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transport(pub TransportKind);

impl FromContext for Transport {
    fn from_context(context: &Context<'_>) -> Result<Self, ExtractError> {
        match context.occasion {
            Occasion::Upgrade(transport) => Ok(Self(transport)),
            _ => Err(ExtractError::Absent("Transport")),
        }
    }
}
