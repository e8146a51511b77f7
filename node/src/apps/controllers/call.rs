//! One call of a handler, and what its parameters are filled with.

use std::any::type_name;
use std::ops::Deref;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use tracing::error;

use super::error::Error;
use super::server::{Shared, SocketServer};
use crate::server::{Context, ExtractError, FromContext, Occasion, Socket};
use crate::socketio::{Elements, Payload, from_element};

/// What a handler is called for.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Occurrence {
    Connect,
    Event {
        name: Arc<str>,
        payload: Payload,
    },
    /// With its reason.
    Disconnect(&'static str),
}

impl Occurrence {
    fn occasion(&self) -> Occasion<'_> {
        match self {
            Self::Connect => Occasion::Connect,
            // The ack is what the handler returns.
            Self::Event { name, payload } => {
                Occasion::Event { name, payload, ack_id: None, answered: None }
            }
            Self::Disconnect(reason) => Occasion::Disconnect { reason },
        }
    }
}

/// One call of a handler.
pub struct Call<'a> {
    context: Context<'a>,
    shared: &'a Arc<Shared>,
}

impl<'a> Call<'a> {
    pub(super) fn new(
        socket: &'a Socket,
        occurrence: &'a Occurrence,
        shared: &'a Arc<Shared>,
    ) -> Self {
        Self { context: Context { socket, occasion: occurrence.occasion() }, shared }
    }

    /// The server API's view of it.
    pub fn context(&self) -> &Context<'a> {
        &self.context
    }

    pub fn server(&self) -> SocketServer {
        SocketServer::of(self.context.socket, self.shared.clone())
    }

    /// The client's arguments; none but an event has some.
    pub fn arguments(&self) -> Arguments<'a> {
        let payload = match self.context.occasion {
            Occasion::Event { payload, .. } => Some((payload, payload.args())),
            _ => None,
        };
        Arguments { payload, taken: 0 }
    }
}

/// The arguments of an event, to be taken one after the other.
pub struct Arguments<'a> {
    payload: Option<(&'a Payload, Elements<'a>)>,
    taken: usize,
}

impl Arguments<'_> {
    /// The next one as a `T`. One that is missing is read as `null`, so that an `Option` is `None`.
    pub fn take<T: DeserializeOwned>(&mut self) -> Result<T, Error> {
        self.taken += 1;
        let next = self.payload.as_mut().and_then(|(payload, rest)| Some((*payload, rest.next()?)));
        match next {
            Some((payload, element)) => from_element(payload, element)
                .map_err(|error| Error::argument(self.taken, format_args!("is no good: {error}"))),
            None => serde_json::from_str("null")
                .map_err(|_no_option| Error::argument(self.taken, "is missing")),
        }
    }
}

/// What a handler's parameter may be filled with, other than the client's arguments: all that
/// handlers of the [server API](FromContext) may ask for, the application's [`State`], and the
/// [`SocketServer`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be injected",
    label = "neither connect, nor disconnect, nor create has arguments of a client",
    note = "what can be injected implements `FromContext`, or is a `State` or the `SocketServer`"
)]
pub trait Inject: Sized {
    fn inject(call: &Call<'_>) -> Result<Self, ExtractError>;
}

impl<T: FromContext> Inject for T {
    fn inject(call: &Call<'_>) -> Result<Self, ExtractError> {
        T::from_context(call.context())
    }
}

impl Inject for SocketServer {
    fn inject(call: &Call<'_>) -> Result<Self, ExtractError> {
        Ok(call.server())
    }
}

/// A value of the application that its handlers share: see [`SocketServer::state`].
#[derive(Debug)]
pub struct State<T>(pub Arc<T>);

impl<T> Clone for State<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Deref for State<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Send + Sync + 'static> Inject for State<T> {
    fn inject(call: &Call<'_>) -> Result<Self, ExtractError> {
        call.server().find_state().map(Self).ok_or_else(|| {
            error!(of = type_name::<T>(), "a controller asks for state that the server has not");
            ExtractError::Absent("State")
        })
    }
}
