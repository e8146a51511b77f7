//! The small built-in application of a bare node: a cluster can be tried and measured at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;
use serde_json::{Map, Number, Value};

use crate::adapter::DeliveryMode;
use crate::raft::state::SessionId;
use crate::server::{
    Ack, Agreed, Args, Data, EmitError, ExtractError, Io, NamespaceHandle, SessionError,
    SessionUpdate, Socket,
};
use crate::socketio::Raw;

/// The page at `/`: a chat on the relay's verbs.
pub const CHAT_PAGE: &str = include_str!("relay/chat.html");

/// A handler's arguments, or why the client's do not fit.
type Parsed<T> = Result<Data<T>, ExtractError>;

/// Registers the relay in `/`, in `/relay-direct` with direct delivery, and in `/recoverable`, which is
/// so if the configuration says it.
pub fn register(io: &Io) {
    serve(&io.of("/"));
    serve(&io.of_mode("/relay-direct", DeliveryMode::Direct));
    serve(&io.of("/recoverable"));
}

/// The relay's verbs in one namespace, for applications that add their own to them.
pub fn serve(namespace: &NamespaceHandle) {
    namespace
        .on("echo", async |args: Args, ack: Ack| ack.send_args(&args))
        .on("join", async |socket: Socket, room: Parsed<String>, ack: Ack| {
            answer(ack, room.map(|Data(room)| socket.join(room))).await;
        })
        .on("leave", async |socket: Socket, room: Parsed<String>, ack: Ack| {
            answer(ack, room.map(|Data(room)| socket.leave(room))).await;
        })
        .on("bcast", async |socket: Socket, data: Parsed<Raw>, ack: Ack| {
            let all = socket.namespace().operator();
            answer(ack, data.map(|Data(data)| all.emit_payload(data.into_event("msg")))).await;
        })
        .on("room", async |socket: Socket, args: Parsed<(String, Raw)>, ack: Ack| {
            answer(ack, args.map(|Data((room, data))| send_to(&socket, room, data))).await;
        })
        .on("dm", async |socket: Socket, args: Parsed<(String, Raw)>, ack: Ack| {
            answer(ack, args.map(|Data((id, data))| send_to(&socket, id, data))).await;
        })
        .on("login", login)
        .on("session", async |socket: Socket, ack: Ack| {
            let session = socket.session();
            let (id, token) = (session.id(), session.token());
            reply(ack, &Shown { id, token, object: &session.get() });
        })
        .on("increment", increment)
        .on("tell", async |socket: Socket, args: Parsed<(Value, Raw)>, ack: Ack| {
            let all = socket.namespace().operator();
            let sent = |Data((filter, data)): Data<(Value, Raw)>| {
                all.session(filter).emit_payload(data.into_event("msg"))
            };
            answer(ack, args.map(sent)).await;
        })
        .on("who", async |socket: Socket, room: Parsed<String>, ack: Ack| match room {
            Ok(Data(room)) => {
                let sockets = socket.namespace().to(room).fetch_sockets();
                let ids: Vec<_> =
                    sockets.iter().map(|socket| socket.client_id().to_string()).collect();
                reply(ack, &(ids,));
            }
            Err(error) => refuse(ack, &error),
        });
}

fn send_to(socket: &Socket, room: String, data: Raw) -> Agreed {
    socket.namespace().to(room).emit_payload(data.into_event("msg"))
}

async fn login(socket: Socket, name: Parsed<Value>, ack: Ack) {
    let name = match name {
        Ok(Data(name)) => name,
        Err(error) => return refuse(ack, &error),
    };
    let updated = socket.session().update(move |session| {
        session.insert("username".to_owned(), name.clone());
    });
    written(updated, ack).await;
}

/// Adds one to a number of the session, which counts from 0, whoever else does so at the same time.
/// What is no number stays as it is.
async fn increment(socket: Socket, key: Parsed<String>, ack: Ack) {
    let key = match key {
        Ok(Data(key)) => key,
        Err(error) => return refuse(ack, &error),
    };
    let is_number = Arc::new(AtomicBool::new(true));
    let found = Arc::clone(&is_number);
    let updated = socket.session().update(move |session| {
        let next = incremented(session.get(&key));
        // The change is made again where another write came first: what is found last counts.
        found.store(next.is_some(), Ordering::Relaxed);
        if let Some(next) = next {
            session.insert(key.clone(), next.into());
        }
    });
    if !ack.is_wanted() {
        return;
    }
    match updated.await {
        Ok(()) if !is_number.load(Ordering::Relaxed) => {
            let message = "the session has something else than a number there".to_owned();
            reply(ack, &Refused { error: "NotANumber", message });
        }
        done => told(done, ack),
    }
}

/// A number and one; none if there is something else.
fn incremented(value: Option<&Value>) -> Option<Number> {
    let Some(value) = value else { return Some(1.into()) };
    let whole = value.as_i64().and_then(|number| number.checked_add(1));
    whole.map(Number::from).or_else(|| Number::from_f64(value.as_f64()? + 1.0))
}

async fn written(updated: SessionUpdate, ack: Ack) {
    if ack.is_wanted() {
        told(updated.await, ack);
    }
}

fn told(done: Result<(), SessionError>, ack: Ack) {
    match done {
        Ok(()) => reply(ack, &()),
        Err(error) => reply(ack, &Refused { error: error.as_str(), message: error.to_string() }),
    }
}

/// Answers once what was asked for is committed, if anyone waits for it.
async fn answer(ack: Ack, done: Result<Agreed, ExtractError>) {
    if !ack.is_wanted() {
        return;
    }
    match done {
        Ok(agreed) if agreed.is_pending() => agreed.then(|done| tell_outcome(ack, done)),
        // Done already; to await many of these gives way to others.
        Ok(agreed) => tell_outcome(ack, agreed.await),
        Err(error) => refuse(ack, &error),
    }
}

fn tell_outcome(ack: Ack, done: Result<(), EmitError>) {
    match done {
        Ok(()) => reply(ack, &()),
        Err(error) => reply(ack, &Refused { error: error.as_str(), message: error.to_string() }),
    }
}

/// A client's session, as it sees it.
#[derive(Serialize)]
struct Shown<'a> {
    id: SessionId,
    token: Option<String>,
    object: &'a Map<String, Value>,
}

#[derive(Serialize)]
struct Refused {
    error: &'static str,
    message: String,
}

fn refuse(ack: Ack, error: &ExtractError) {
    reply(ack, &Refused { error: "BadRequest", message: error.to_string() });
}

fn reply(ack: Ack, args: &impl Serialize) {
    ack.send(args).expect("the relay's own answers are JSON");
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn increment_counts_numbers_and_nothing_else() {
        assert_eq!(incremented(None), Some(1.into()));
        assert_eq!(incremented(Some(&json!(-1))), Some(0.into()));
        assert_eq!(incremented(Some(&json!(1.5))), Number::from_f64(2.5));
        assert_eq!(incremented(Some(&json!(i64::MAX))), Number::from_f64(i64::MAX as f64 + 1.0));
        for other in [json!("7"), json!(null), json!(true), json!([1]), json!({})] {
            assert_eq!(incremented(Some(&other)), None, "{other}");
        }
    }
}
