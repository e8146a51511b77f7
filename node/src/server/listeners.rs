//! Catch-all listeners, and middleware for the events of one socket.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::extract::{Args, ExtractError};
use super::handler::BoxHandler;
use super::socket::Socket;
use crate::socketio::{Payload, from_event};

/// Names a catch-all listener, to take it away again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerId(u64);

/// The catch-all listeners of one direction, in the order in which they are called.
#[derive(Default)]
pub(crate) struct CatchAll {
    next_id: u64,
    listeners: Vec<(ListenerId, BoxHandler)>,
}

impl CatchAll {
    pub(crate) fn append(&mut self, handler: BoxHandler) -> ListenerId {
        let id = self.new_id();
        self.listeners.push((id, handler));
        id
    }

    pub(crate) fn prepend(&mut self, handler: BoxHandler) -> ListenerId {
        let id = self.new_id();
        self.listeners.insert(0, (id, handler));
        id
    }

    /// Takes one away, or (`None`) all.
    pub(crate) fn remove(&mut self, id: Option<ListenerId>) {
        self.listeners.retain(|(listener, _)| id.is_some_and(|id| *listener != id));
    }

    pub(crate) fn ids(&self) -> Vec<ListenerId> {
        self.listeners.iter().map(|(id, _)| *id).collect()
    }

    pub(crate) fn handlers(&self) -> Vec<BoxHandler> {
        self.listeners.iter().map(|(_, handler)| handler.clone()).collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.listeners.is_empty()
    }

    fn new_id(&mut self) -> ListenerId {
        self.next_id += 1;
        ListenerId(self.next_id)
    }
}

/// What went wrong with a socket that goes on all the same: its `error` event. Middleware of its
/// events refused one, or its client broke the protocol, after which it is disconnected.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct EventError {
    pub message: String,
    pub data: Option<Value>,
}

impl EventError {
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), data: None }
    }

    pub fn with_data(message: impl Into<String>, data: Value) -> Self {
        Self { message: message.into(), data: Some(data) }
    }
}

/// An event of a client, as middleware sees it.
#[derive(Clone, Debug)]
pub struct Event {
    socket: Socket,
    name: String,
    payload: Payload,
    wants_ack: bool,
}

impl Event {
    pub(crate) fn new(socket: Socket, name: &str, payload: &Payload, wants_ack: bool) -> Self {
        Self { socket, name: name.to_owned(), payload: payload.clone(), wants_ack }
    }

    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The arguments, as a type: a tuple takes several, anything else the first one.
    pub fn data<T: DeserializeOwned>(&self) -> Result<T, ExtractError> {
        from_event(&self.payload).map_err(ExtractError::Shape)
    }

    /// The arguments as they came.
    pub fn args(&self) -> Args {
        Args { event: self.payload.clone() }
    }

    /// Whether the client asked for an ack.
    pub fn wants_ack(&self) -> bool {
        self.wants_ack
    }
}

pub(crate) type EventFuture = Pin<Box<dyn Future<Output = Result<(), EventError>> + Send>>;

/// Middleware for a socket's events, whose type is hidden.
pub(crate) type BoxEventMiddleware = Arc<dyn Fn(Event) -> EventFuture + Send + Sync>;

pub(crate) fn boxed<F, Fut>(middleware: F) -> BoxEventMiddleware
where
    F: Fn(Event) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), EventError>> + Send + 'static,
{
    Arc::new(move |event| Box::pin(middleware(event)))
}
