//! The way of a client's event to its handlers: catch-all listeners, middleware, handlers.

use super::ack::Answered;
use super::companions;
use super::extract::{Context, Occasion};
use super::handler;
use super::listeners::{BoxEventMiddleware, Event, EventError};
use super::own::Gate;
use super::socket::Socket;
use crate::socketio::Payload;

/// Calls whoever is concerned. The order is the official server's: catch-all listeners hear of
/// events that middleware then refuses.
pub(super) fn event(socket: &Socket, name: &str, ack_id: Option<u64>, payload: &Payload) {
    let Some(Gate { incoming, middleware }) = socket.gate() else {
        let occasion = Occasion::Event { name, payload, ack_id, answered: None };
        return handle(name, &Context { socket, occasion });
    };
    let answered = ack_id.filter(|_| !incoming.is_empty()).map(|_| Answered::default());
    let occasion = Occasion::Event { name, payload, ack_id, answered: answered.as_ref() };
    let context = Context { socket, occasion };
    for listener in &incoming {
        handler::run(listener, &context, socket.cluster());
    }
    if middleware.is_empty() {
        return handle(name, &context);
    }
    let event = Event::new(socket.clone(), name, payload, ack_id.is_some());
    let passing = pass(middleware, event, ack_id, answered, payload.clone());
    handler::run_in_place(Box::pin(passing), socket.cluster());
}

/// Calls the handlers of the event, the namespace's first, then the socket's companions; and the
/// fallbacks, if none of these knows it by its name.
fn handle(name: &str, context: &Context<'_>) {
    let socket = context.socket;
    let handlers = socket.namespace_inner().handlers();
    let (shared, own) = (handlers.events.of(name), socket.take_own_handlers(name));
    let is_handled = !shared.is_empty() || !own.is_empty();
    let fallbacks = if is_handled { 0 } else { handlers.fallbacks.iter().count() };
    let hearers = shared.len() + own.len() + fallbacks + handlers.companions.len();
    let several = (hearers > 1).then(Answered::default);
    let context = match &several {
        Some(answered) => &context.answered_once(answered),
        // The usual case, which allocates nothing.
        None => context,
    };
    let registry = socket.namespace_inner().registry();
    let shared = shared.iter().filter(|listener| registry.claim(listener));
    for handler in shared.map(|listener| &listener.handler).chain(&own) {
        handler::run(handler, context, socket.cluster());
    }
    let heard = companions::event(context);
    let falls_back = fallbacks > 0 && !heard.is_known;
    if is_handled || falls_back {
        heard.leave_to_others();
    }
    if falls_back {
        for handler in handlers.fallbacks.iter() {
            handler::run(handler, context, socket.cluster());
        }
    }
}

/// One event's way through the middleware, in turn. One that waits holds up its own event alone.
async fn pass(
    middleware: Vec<BoxEventMiddleware>,
    event: Event,
    ack_id: Option<u64>,
    answered: Option<Answered>,
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
        let answered = answered.as_ref();
        let occasion = Occasion::Event { name, payload: &payload, ack_id, answered };
        handle(name, &Context { socket: event.socket(), occasion });
    }
}

/// Tells a socket's error handlers, the namespace's first; without any, nothing happens.
pub(super) fn fail(socket: &Socket, error: &EventError) {
    let context = Context { socket, occasion: Occasion::Error(error) };
    for handler in &socket.error_handlers() {
        handler::run(handler, &context, socket.cluster());
    }
}
