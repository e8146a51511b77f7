//! A node with the application of the shared client scenarios (`cluster-tests/matrix`): the relay, and what it lacks.

use std::process::ExitCode;
use std::time::Duration;

use cluster_tests::host;
use flotilla::apps::relay;
use flotilla::server::{
    Ack, AckEmit, AckError, Args, ConnectError, Data, Io, NamespaceHandle, Reason, Socket,
};
use flotilla::socketio::{Binary, Payload, Raw, from_ack};
use serde_json::{Value, json};

/// How long `ask` waits for its answer, and how long `ask briefly` does.
const PATIENT: Duration = Duration::from_secs(15);
const BRIEF: Duration = Duration::from_millis(200);

fn main() -> ExitCode {
    host::main(register)
}

/// The relay itself comes by configuration; the namespaces that only the scenarios know get it here.
fn register(io: &Io) {
    relay::serve(&io.of("/chat"));
    io.of("/guarded").with(async |socket: Socket| match socket.auth::<Value>() {
        Ok(auth) if auth["token"] == "open sesame" => Ok(()),
        _ => Err(ConnectError::with_data("not authorized", json!({"code": 7}))),
    });
    for name in ["/", "/chat", "/guarded", "/recoverable"] {
        serve(&io.of(name));
    }
}

fn serve(namespace: &NamespaceHandle) {
    namespace
        .on("whoami", async |socket: Socket, ack: Ack| reply(ack, &socket.id()))
        .on("auth", async |socket: Socket, ack: Ack| {
            reply(ack, &socket.auth::<Value>().unwrap_or_default());
        })
        .on("please", async |socket: Socket, args: Args| {
            if let Some(event) = renamed(args) {
                socket.emit_payload(event);
            }
        })
        .on("upload", async |socket: Socket, Data(file): Data<Binary>| {
            socket.emit("download", &file);
        })
        .on("ask", async |socket: Socket, Data((event, data)): Data<(String, Raw)>, ack: Ack| {
            let asked = socket.itself().timeout(PATIENT).emit_with_ack(&event, &data);
            answer(asked, ack).await;
        })
        .on("ask briefly", async |socket: Socket, Data(event): Data<String>, ack: Ack| {
            answer(socket.itself().timeout(BRIEF).emit_with_ack(&event, &()), ack).await;
        })
        .on("ask room", async |socket: Socket, Data(asked): Data<(String, Raw)>, ack: Ack| {
            ask_room(&socket, asked, ack).await;
        })
        .on("members", async |socket: Socket, Data(expected): Data<Members>, ack: Ack| {
            reply(ack, &are_members(&socket, expected));
        })
        .on("kick", async |socket: Socket, Data(close): Data<bool>| {
            socket.disconnect(close);
        })
        .on("kick room", async |namespace: NamespaceHandle, Data(room): Data<String>| {
            namespace.within(room).disconnect_sockets(true);
        })
        .on_disconnect(async |socket: Socket, Reason(reason): Reason| {
            socket.namespace().emit("gone", &(socket.id(), reason));
        });
}

/// A room, and the ids of the sockets that ought to be in it.
type Members = (String, Vec<String>);

fn are_members(socket: &Socket, (room, mut expected): Members) -> bool {
    let members = socket.namespace().to(room).fetch_sockets();
    let mut ids: Vec<_> = members.iter().map(|member| member.id.to_string()).collect();
    ids.sort();
    expected.sort();
    ids == expected
}

/// The event that the first argument names, with the other arguments.
fn renamed(args: Args) -> Option<Payload> {
    let event = args.into_event("please");
    let mut elements = event.args();
    let name: String = serde_json::from_str(elements.next()?).ok()?;
    Some(Payload::event(&name, elements.text(), event.attachments.clone()))
}

async fn ask_room(socket: &Socket, (room, data): (String, Raw), ack: Ack) {
    let asked = socket.namespace().to(room).timeout(PATIENT).emit_with_ack("question", &data);
    match asked.await {
        Ok(answers) => {
            let mut answers: Vec<Value> =
                answers.iter().map(|answer| from_ack(answer).unwrap_or_default()).collect();
            answers.sort_by_key(Value::to_string);
            reply(ack, &answers);
        }
        Err(error) => refuse(ack, &error),
    }
}

/// Passes one client's answer on as it came, binary or not.
async fn answer(asked: AckEmit, ack: Ack) {
    match asked.await {
        Ok(answers) if !answers.is_empty() => ack.send_payload(&answers[0]),
        Ok(_none) => refuse(ack, &AckError::Gone),
        Err(error) => refuse(ack, &error),
    }
}

fn refuse(ack: Ack, error: &AckError) {
    let error = match error {
        AckError::Partial { .. } => "timeout".to_owned(),
        other => other.to_string(),
    };
    reply(ack, &json!({"error": error}));
}

fn reply(ack: Ack, value: &impl serde::Serialize) {
    ack.send(value).expect("the application's own answers are JSON");
}
