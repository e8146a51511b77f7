//! The way of a client's event to its handler: catch-all listeners, middleware, handler.

use super::extract::{Context, Occasion};
use super::handler;
use super::listeners::{BoxEventMiddleware, Event, EventError};
use super::own::Gate;
use super::socket::Socket;
use crate::socketio::Payload;

/// Calls whoever is concerned. The order is the official server's: catch-all listeners hear of
/// events that middleware then refuses.
pub(super) fn event(socket: &Socket, name: &str, ack_id: Option<u64>, payload: &Payload) {
    let context = Context { socket, occasion: Occasion::Event { name, payload, ack_id } };
    let Some(Gate { incoming, middleware }) = socket.gate() else { return handle(name, &context) };
    for listener in &incoming {
        // An ack is the handler's to give.
        let occasion = Occasion::Event { name, payload, ack_id: None };
        handler::run(listener, &Context { socket, occasion }, socket.cluster());
    }
    if middleware.is_empty() {
        return handle(name, &context);
    }
    let event = Event::new(socket.clone(), name, payload, ack_id.is_some());
    let passing = pass(middleware, event, ack_id, payload.clone());
    handler::run_in_place(Box::pin(passing), socket.cluster());
}

fn handle(name: &str, context: &Context<'_>) {
    let socket = context.socket;
    if let Some(handler) = socket.take_own_handler(name) {
        handler::run(&handler, context, socket.cluster());
    } else if let Some(handler) = socket.namespace_inner().handlers().events.get(name) {
        handler::run(handler, context, socket.cluster());
    }
}

/// One event's way through the middleware, in turn. One that waits holds up its own event alone.
async fn pass(
    middleware: Vec<BoxEventMiddleware>,
    event: Event,
    ack_id: Option<u64>,
    payload: Payload,
) {
    for ask in middleware {
        if let Err(error) = ask(event.clone()).await {
            return fail(event.socket(), &error);
        }
    }
    // It may have been disconnected meanwhile.
    if event.socket().is_connected() {
        let name = event.name();
        let occasion = Occasion::Event { name, payload: &payload, ack_id };
        handle(name, &Context { socket: event.socket(), occasion });
    }
}

/// Tells a socket's error handlers, the namespace's first; without any, nothing happens.
pub(super) fn fail(socket: &Socket, error: &EventError) {
    let context = Context { socket, occasion: Occasion::Error(error) };
    for handler in socket.error_handlers().iter().flatten() {
        handler::run(handler, &context, socket.cluster());
    }
}
