//! Who listens to what, in which order; and middleware for the events of one socket.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::fast::RandomState;
use serde::de::DeserializeOwned;
use serde_json::Value;
use smallvec::SmallVec;

use super::extract::{Args, ExtractError};
use super::handler::BoxHandler;
use super::socket::Socket;
use crate::socketio::{Payload, from_event};

/// Names a listener, to take it away again. No two of a process are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerId(u64);

impl ListenerId {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

#[derive(Clone)]
pub(crate) struct Listener {
    pub(super) id: ListenerId,
    pub(crate) handler: BoxHandler,
    /// It is taken away before it runs for the first time.
    pub(super) is_once: bool,
}

/// Handlers that are there to be called: seldom more than the two that a socket and its namespace
/// have, so that they need no memory of their own.
pub(crate) type Called = SmallVec<[BoxHandler; 2]>;

/// The listeners to one thing, in the order in which they are called.
#[derive(Clone, Default)]
pub(crate) struct Listeners(SmallVec<[Listener; 1]>);

impl Listeners {
    pub(crate) fn append(&mut self, handler: BoxHandler) -> ListenerId {
        self.insert(self.0.len(), handler, false)
    }

    pub(crate) fn append_once(&mut self, handler: BoxHandler) -> ListenerId {
        self.insert(self.0.len(), handler, true)
    }

    pub(crate) fn prepend(&mut self, handler: BoxHandler) -> ListenerId {
        self.insert(0, handler, false)
    }

    fn insert(&mut self, place: usize, handler: BoxHandler, is_once: bool) -> ListenerId {
        let id = ListenerId::new();
        self.0.insert(place, Listener { id, handler, is_once });
        id
    }

    /// Takes one away, or (`None`) all; whether there was one.
    pub(crate) fn remove(&mut self, id: Option<ListenerId>) -> bool {
        let before = self.0.len();
        self.0.retain(|listener| id.is_some_and(|id| listener.id != id));
        self.0.len() < before
    }

    pub(crate) fn all(&self) -> &[Listener] {
        &self.0
    }

    pub(crate) fn ids(&self) -> Vec<ListenerId> {
        self.0.iter().map(|listener| listener.id).collect()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &BoxHandler> {
        self.0.iter().map(|listener| &listener.handler)
    }

    pub(crate) fn handlers(&self) -> Called {
        self.iter().cloned().collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The listeners to events, by the events' names.
#[derive(Clone, Default)]
pub(crate) struct EventListeners(HashMap<Box<str>, Listeners, RandomState>);

impl EventListeners {
    pub(crate) fn of(&self, event: &str) -> &[Listener] {
        self.0.get(event).map_or(&[], |listeners| &listeners.0)
    }

    pub(crate) fn append(&mut self, event: &str, handler: BoxHandler) -> ListenerId {
        self.0.entry(event.into()).or_default().append(handler)
    }

    pub(crate) fn append_once(&mut self, event: &str, handler: BoxHandler) -> ListenerId {
        self.0.entry(event.into()).or_default().append_once(handler)
    }

    pub(crate) fn prepend(&mut self, event: &str, handler: BoxHandler) -> ListenerId {
        self.0.entry(event.into()).or_default().prepend(handler)
    }

    pub(crate) fn prepend_once(&mut self, event: &str, handler: BoxHandler) -> ListenerId {
        self.0.entry(event.into()).or_default().insert(0, handler, true)
    }

    pub(crate) fn remove_event(&mut self, event: &str) {
        self.0.remove(event);
    }

    /// Takes one away; whether it was there.
    pub(crate) fn remove(&mut self, id: ListenerId) -> bool {
        let mut is_removed = false;
        self.0.retain(|_event, listeners| {
            is_removed |= listeners.remove(Some(id));
            !listeners.is_empty()
        });
        is_removed
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn ids(&self, event: &str) -> Vec<ListenerId> {
        self.of(event).iter().map(|listener| listener.id).collect()
    }

    /// The events that are listened to, in the order of their names.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.0.keys().map(|name| name.to_string()).collect();
        names.sort_unstable();
        names
    }

    /// Those that are to be called for an event now: the ones for once are gone then.
    pub(crate) fn take(&mut self, event: &str) -> Called {
        let Some(listeners) = self.0.get_mut(event) else { return Called::new() };
        let called = listeners.handlers();
        listeners.0.retain(|listener| !listener.is_once);
        if listeners.is_empty() {
            self.0.remove(event);
        }
        called
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
