//! Controllers in `/controllers` and beside it: what a suite needs to see them from clients of three nodes.

use std::sync::Mutex;

use flotilla::apps::controllers::{Error, RouteError, SocketServer, State, controller};
use flotilla::server::{
    Args, ConnectError, EventName, Io, NamespaceHandle, Reason, Session, Socket,
};
use flotilla::socketio::Binary;
use serde_json::{Value, json};
use tokio::sync::Notify;

pub fn register(io: &Io) {
    let server = SocketServer::new(io);
    server.state(Gates::default());
    serve(&server).expect("the patterns were checked as they were compiled");
}

fn serve(server: &SocketServer) -> Result<(), RouteError> {
    server.controller::<Main>()?.with(async |socket: Socket| match socket.auth::<Value>() {
        Ok(auth) if auth["banned"] == true => {
            Err(ConnectError::with_data("banned", json!({"code": 7})))
        }
        _ => Ok(()),
    });
    server.controller::<Observer>()?;
    server.controller::<Slow>()?;
    server.controller::<Room>()?;
    server.route::<Room>("/controllers-hall")?;
    Ok(())
}

/// Answers, failures, rooms.
struct Main {
    greeted: String,
    calls: Mutex<u32>,
}

#[controller("/controllers")]
impl Main {
    #[create]
    fn new(socket: Socket) -> Self {
        Self { greeted: socket.id().to_string(), calls: Mutex::default() }
    }

    #[connect]
    async fn check(&self, socket: Socket) -> Result<(), Error> {
        let auth: Value = socket.auth().unwrap_or_default();
        match auth["fail"].as_str() {
            Some(message) => Err(Error::new(message).with_code("E_CONNECT")),
            None => Ok(()),
        }
    }

    #[subscribe("ret")]
    fn ret(&self, got: Value) -> Value {
        let mut calls = self.calls.lock().expect("nothing panics while it counts");
        *calls += 1;
        json!({"got": got, "calls": *calls, "socket": self.greeted})
    }

    #[subscribe("nothing")]
    fn nothing(&self) {}

    #[subscribe("fails")]
    async fn fails(&self, message: String, code: Option<String>) -> Result<(), Error> {
        let error = Error::new(message);
        Err(match code {
            Some(code) => error.with_code(code),
            None => error,
        })
    }

    #[subscribe("panic")]
    fn panics(&self) {
        panic!("the client asked for it");
    }

    #[subscribe("binary")]
    fn binary(&self, name: String, file: Binary) -> (String, usize, Binary) {
        (name, file.0.len(), file)
    }

    #[subscribe("join")]
    async fn join(&self, socket: Socket, rooms: Vec<String>) -> Result<usize, Error> {
        let count = rooms.len();
        socket.join(rooms).await?;
        Ok(count)
    }

    #[subscribe("say", "shout")]
    async fn say(
        &self,
        socket: Socket,
        EventName(event): EventName,
        room: String,
        text: String,
    ) -> Result<(), Error> {
        Ok(socket.to(room).emit(&event, &text).await?)
    }

    #[subscribe("everyone")]
    async fn everyone(&self, namespace: NamespaceHandle, message: Args) -> Result<(), Error> {
        Ok(namespace.operator().emit_payload(message.into_event("everyone")).await?)
    }

    #[subscribe("name")]
    async fn name(&self, session: Session, name: String) -> Result<Value, Error> {
        session
            .update(move |session| {
                session.insert("name".to_owned(), name.clone().into());
            })
            .await?;
        Ok(json!(*session.get()))
    }

    #[subscribe(regex = r"^tick:\d+$")]
    fn tick(&self, EventName(event): EventName) -> String {
        event
    }

    #[disconnect]
    fn gone(&self, socket: Socket, Reason(reason): Reason) {
        socket.namespace().emit("gone", &(socket.id(), reason));
    }
}

/// Beside it: sees every event, and takes no ack from it.
#[derive(Default)]
struct Observer {
    seen: Mutex<Vec<String>>,
}

#[controller("/controllers")]
impl Observer {
    #[subscribe(regex = ".+")]
    fn see(&self, EventName(event): EventName) {
        self.seen.lock().expect("nothing panics while it notes").push(event);
    }

    #[subscribe("seen")]
    fn seen(&self) -> Vec<String> {
        self.seen.lock().expect("nothing panics while it notes").clone()
    }
}

/// Connects that wait for another client's word.
#[derive(Default)]
struct Gates {
    opened: Notify,
}

/// Waits in its connect until the client that was named in its auth opens the gate.
#[derive(Default)]
struct Slow {
    is_connected: Mutex<bool>,
}

#[controller("/controllers-slow")]
impl Slow {
    #[connect]
    async fn wait(&self, socket: Socket, gates: State<Gates>) {
        let opened = gates.opened.notified();
        if socket.auth::<Value>().unwrap_or_default()["opens"] == true {
            gates.opened.notify_waiters();
        } else {
            socket.emit("waiting", &());
            opened.await;
        }
        *self.is_connected.lock().expect("nothing panics while it is told") = true;
    }

    #[subscribe("early")]
    fn early(&self, number: u32) -> (bool, u32) {
        (*self.is_connected.lock().expect("nothing panics while it is told"), number)
    }
}

/// All rooms, each a namespace.
#[derive(Default)]
struct Room;

#[controller(regex = r"^/controllers-room-\d+$")]
impl Room {
    #[subscribe("say")]
    async fn say(&self, namespace: NamespaceHandle, text: String) -> Result<String, Error> {
        namespace.emit("said", &text).await?;
        Ok(namespace.name().to_owned())
    }
}
