//! A client while it is connected: what it was told, what it calls, what it subscribes to.

use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::{Value, json};
use tracing::debug;

use super::function::{Answer, ApiError};
use super::registry::Definitions;
use super::subscriptions::{Rooms, Subscriptions};
use super::{Api, ApiHandle};
use crate::metrics;
use crate::server::{
    Ack, ConnectError, Context, Data, EmitError, ExtractError, FromContext, Occasion, Socket,
};
use crate::socketio::{Payload, to_payload};

/// What is kept with a client's socket on this node.
struct Connected {
    api: Api,
    /// As they were when it came.
    definitions: Arc<Definitions>,
    subscriptions: Mutex<Subscriptions>,
}

impl Connected {
    fn subscriptions(&self) -> MutexGuard<'_, Subscriptions> {
        self.subscriptions.lock().expect("nothing panics while it changes subscriptions")
    }
}

impl Api {
    pub(super) fn serve(&self) {
        let [door, welcome, farewell] = std::array::from_fn(|_| self.clone());
        self.0
            .namespace
            .with(move |_: Socket| {
                let is_stopped = door.is_stopped();
                async move {
                    if is_stopped { Err(ConnectError::new("The API is stopped")) } else { Ok(()) }
                }
            })
            .on_connect(move |socket: Socket| {
                let api = welcome.clone();
                async move { api.welcome(socket).await }
            })
            .on_disconnecting(move |socket: Socket| {
                let api = farewell.clone();
                async move { api.0.hooks.disconnection(&socket).await }
            })
            .on("_subscribeToEvent", subscribe)
            .on("_unsubscribeFromEvent", unsubscribe)
            .on_fallback(async |call: Call, ack: Ack| call.answer(ack).await);
    }

    /// Runs up to the first wait before anything that the client sends is looked at.
    async fn welcome(&self, socket: Socket) {
        let definitions = self.0.definitions.load_full();
        let rooms = if socket.recovered() { socket.rooms() } else { Vec::new() };
        let rooms = rooms.iter().map(|room| &**room);
        let subscriptions = Subscriptions::restore(rooms, &self.0.queries);
        let ready = Payload::event("ready", definitions.json(), Vec::new());
        socket.set_extension(Connected {
            api: self.clone(),
            definitions,
            subscriptions: Mutex::new(subscriptions),
        });
        self.0.hooks.connection(&socket).await;
        // Straight, for it is this client's alone, and may be long.
        drop(socket.itself().local().emit_payload(ready));
    }
}

/// `_subscribeToEvent(name, query)`. The room is joined in its place among the client's other
/// events: a call that follows emits to it already.
async fn subscribe(socket: Socket, args: Result<Data<(String, Value)>, ExtractError>) {
    let Some(connected) = socket.extension::<Connected>() else { return };
    let (name, query) = match args {
        Ok(Data(args)) => args,
        Err(error) => return refuse(&socket, None, &error.to_string()),
    };
    let subscribed = {
        let api = &connected.api.0;
        connected.subscriptions().subscribe(&name, &query, &api.limits, &api.queries)
    };
    let rooms = match subscribed {
        Ok(rooms) => rooms,
        Err(error) => return refuse(&socket, Some(name), &error.to_string()),
    };
    match socket.join(rooms.to_vec()).await {
        Ok(()) | Err(EmitError::Gone) => {}
        Err(error) => {
            // Where it is not known whether it was agreed, this undoes it.
            let undone = connected.subscriptions().undo(&rooms);
            leave(&socket, undone.leave);
            if !undone.join.is_empty() {
                drop(socket.join(undone.join.into_vec()));
            }
            refuse(&socket, Some(name), &error.to_string());
        }
    }
}

/// `_unsubscribeFromEvent(name)`.
async fn unsubscribe(socket: Socket, name: Result<Data<String>, ExtractError>) {
    let Some(connected) = socket.extension::<Connected>() else { return };
    match name {
        Ok(Data(name)) => leave(&socket, connected.subscriptions().unsubscribe(&name)),
        Err(error) => refuse(&socket, None, &error.to_string()),
    }
}

fn leave(socket: &Socket, rooms: Rooms) {
    if !rooms.is_empty() {
        // If it cannot be agreed, the client goes on to get what it has no listener for.
        drop(socket.leave(rooms.into_vec()));
    }
}

/// Tells a client that it does not subscribe, by an event that api.io's own client passes over: the
/// wire has no answer to a subscription.
fn refuse(socket: &Socket, name: Option<String>, message: &str) {
    metrics::EVENTS_REFUSED.add(1);
    debug!(socket = %socket.id(), message, "subscription refused");
    let error = json!({"message": message});
    drop(socket.itself().local().emit("_subscriptionError", &(name, error)));
}

impl FromContext for ApiHandle {
    fn from_context(context: &Context<'_>) -> Result<Self, ExtractError> {
        let absent = || ExtractError::Absent("ApiHandle");
        let Occasion::Event { name, .. } = &context.occasion else { return Err(absent()) };
        let connected = context.socket.extension::<Connected>().ok_or_else(absent)?;
        let name = connected.definitions.name_of(name).ok_or_else(absent)?;
        Ok(connected.api.handle(name))
    }
}

/// An event that may be a call of an exported function.
enum Call {
    /// It has no name of the dialect's form, or came on no connection of its.
    Other,
    Refused(ApiError),
    Called(Answer),
}

impl FromContext for Call {
    fn from_context(context: &Context<'_>) -> Result<Self, ExtractError> {
        let Occasion::Event { name, payload, .. } = &context.occasion else {
            return Err(ExtractError::Absent("Call"));
        };
        let connected = context.socket.extension::<Connected>().filter(|_| name.contains('.'));
        let Some(connected) = connected else { return Ok(Self::Other) };
        Ok(match connected.call(name, context, payload) {
            Ok(answer) => Self::Called(answer),
            Err(error) => Self::Refused(error),
        })
    }
}

impl Connected {
    fn call(
        &self,
        name: &str,
        context: &Context<'_>,
        payload: &Payload,
    ) -> Result<Answer, ApiError> {
        // A client may call what it was told of, which may have been replaced since, or taken back.
        self.definitions.function(name)?;
        self.api.0.definitions.load().function(name)?.call(context, payload)
    }
}

impl Call {
    /// Sends `[null, result]` or `[{message}]`, if the client waits for it.
    async fn answer(self, ack: Ack) {
        let answer = match self {
            Self::Other => return,
            Self::Refused(error) => Err(error),
            Self::Called(answer) => answer.await,
        };
        let payload = answer.or_else(|error| {
            metrics::EVENTS_REFUSED.add(1);
            debug!(%error, "call failed");
            to_payload(None, &json!({"message": error.message}))
        });
        ack.send_payload(&payload.expect("a message is JSON"));
    }
}
