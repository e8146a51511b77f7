//! The small built-in application of a bare node: a cluster can be tried and measured at once.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::adapter::DeliveryMode;
use crate::raft::state::SessionId;
use crate::server::{
    Ack, Agreed, Args, Data, ExtractError, Io, NamespaceHandle, SessionUpdate, Socket,
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
async fn increment(socket: Socket, key: Parsed<String>, ack: Ack) {
    let key = match key {
        Ok(Data(key)) => key,
        Err(error) => return refuse(ack, &error),
    };
    let updated = socket.session().update(move |session| {
        let number = session.get(&key).and_then(Value::as_i64).unwrap_or(0);
        session.insert(key.clone(), number.saturating_add(1).into());
    });
    written(updated, ack).await;
}

async fn written(updated: SessionUpdate, ack: Ack) {
    if !ack.is_wanted() {
        return;
    }
    match updated.await {
        Ok(()) => reply(ack, &()),
        Err(error) => reply(ack, &Refused { error: error.as_str(), message: error.to_string() }),
    }
}

/// Answers once what was asked for is committed; at once if nobody waits for it.
async fn answer(ack: Ack, done: Result<Agreed, ExtractError>) {
    if !ack.is_wanted() {
        return;
    }
    match done {
        Ok(agreed) => match agreed.await {
            Ok(()) => reply(ack, &()),
            Err(error) => {
                reply(ack, &Refused { error: error.as_str(), message: error.to_string() })
            }
        },
        Err(error) => refuse(ack, &error),
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
