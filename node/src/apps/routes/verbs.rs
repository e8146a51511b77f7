//! What a route can do about a request: `req.io` of express.io.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use serde::Serialize;
use serde_json::Value;

use super::error::RouteError;
use super::request::{Incoming, Request};
use super::router::{BoxRoute, Outcome, boxed, check_name};
use crate::server::{Agreed, EmitError, IntoRooms, Operator, Socket};
use crate::socketio::to_payload;

/// The verbs of one request.
///
/// Those that act on the socket fail a request that came by HTTP: it is answered with the reason,
/// unless it has been answered, and so does what they return say.
#[derive(Clone, Copy, Debug)]
pub struct RequestIo<'a> {
    request: &'a Request,
}

impl<'a> RequestIo<'a> {
    pub(super) fn new(request: &'a Request) -> Self {
        Self { request }
    }

    /// Sends an event to this client; a tuple is several arguments.
    pub fn emit(&self, event: &str, args: &(impl Serialize + ?Sized)) -> Receipt {
        self.act("io().emit()", |socket| socket.emit(event, args))
    }

    /// Answers: the client's ack gets the arguments, a tuple being several; over HTTP it is the
    /// JSON of one, or of a pair of a status and JSON in any order. The first answer counts, and
    /// nothing happens if the client asked for none.
    ///
    /// Arguments that are no JSON fail the request.
    pub fn respond(&self, args: &(impl Serialize + ?Sized)) {
        let encoded = to_payload(None, args).map_err(|error| EmitError::Encode(error).into());
        if let Err(failed) = encoded.and_then(|args| self.request.respond(&args)) {
            self.request.fail(&failed);
        }
    }

    /// Sends an event to everyone but this client, on all nodes; from HTTP to everyone.
    pub fn broadcast(&self, event: &str, args: &(impl Serialize + ?Sized)) -> Agreed {
        self.others().emit(event, args)
    }

    /// Those in a room but this client, on all nodes; from HTTP all of them.
    pub fn room(&self, room: impl IntoRooms) -> Room {
        Room::new(self.others().to(room))
    }

    fn others(&self) -> Operator {
        match self.request.socket() {
            Ok(socket) => socket.broadcast(),
            Err(_by_http) => self.request.routes().namespace().operator(),
        }
    }

    /// Has this client join a room, or several.
    pub fn join(&self, room: impl IntoRooms) -> Receipt {
        self.act("io().join()", |socket| socket.join(room))
    }

    pub fn leave(&self, room: impl IntoRooms) -> Receipt {
        self.act("io().leave()", |socket| socket.leave(room))
    }

    /// Ends this client's connection, after what was emitted before.
    pub fn disconnect(&self) -> Receipt {
        self.act("io().disconnect()", |socket| socket.disconnect(true))
    }

    /// Runs another route for the same request: with its data, its session and its ack. A route
    /// that is not there, or that forwards in a circle, is an error; those of the other route are
    /// this one's to handle, or to return.
    pub async fn route(&self, name: &str) -> Result<(), RouteError> {
        let (route, request) = self.request.forwarded(name)?;
        request.run(route).await
    }

    /// Runs `route` for each event of that name of this socket alone, after the application's route
    /// of that name, if there is one. A later one for the name takes its place.
    pub fn on<F, Fut>(&self, event: &str, route: F) -> Result<(), RouteError>
    where
        F: Fn(Request) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: Outcome> + Send + 'static,
    {
        let socket = self.request.socket_for("io().on()")?;
        check_name(event)?;
        self.bind(socket, event, boxed(route));
        Ok(())
    }

    fn bind(&self, socket: &Socket, event: &str, route: BoxRoute) {
        if !OwnRoutes::of(socket).insert(event, route) {
            return;
        }
        let core = self.request.core().clone();
        let name: Arc<str> = event.into();
        socket.on(event, move |event: Incoming| {
            let (core, name) = (core.clone(), name.clone());
            async move {
                let request = Request::of_event(core, name.clone(), event);
                let own =
                    request.socket().ok().and_then(|socket| OwnRoutes::of(socket).find(&name));
                if let Some(own) = own {
                    request.serve(own).await;
                }
            }
        });
    }

    /// Keeps a value with the socket, where later requests of the same socket find it.
    pub fn set(&self, key: &str, value: impl Into<Value>) -> Result<(), RouteError> {
        let socket = self.request.socket_for("io().set()")?;
        socket.update_data(|data| data.insert(key.to_owned(), value.into()));
        Ok(())
    }

    /// A value that was kept with the socket; `None` if there is none of that name.
    pub fn get(&self, key: &str) -> Result<Option<Value>, RouteError> {
        let socket = self.request.socket_for("io().get()")?;
        Ok(socket.data().get(key).cloned())
    }

    fn act(&self, verb: &'static str, act: impl FnOnce(&Socket) -> Agreed) -> Receipt {
        Receipt(match self.request.socket_for(verb) {
            Ok(socket) => Ok(act(socket)),
            Err(refused) => {
                self.request.fail(&refused);
                Err(Some(refused))
            }
        })
    }
}

/// The sockets of a room.
#[derive(Clone)]
pub struct Room(Operator);

impl Room {
    pub(super) fn new(operator: Operator) -> Self {
        Self(operator)
    }

    /// Sends an event to all of them; a tuple is several arguments.
    pub fn broadcast(&self, event: &str, args: &(impl Serialize + ?Sized)) -> Agreed {
        self.0.clone().emit(event, args)
    }
}

impl std::fmt::Debug for Room {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Room").finish_non_exhaustive()
    }
}

/// What was done when the verb was called; awaited, it says how it ended.
#[derive(Debug)]
pub struct Receipt(Result<Agreed, Option<RouteError>>);

impl Future for Receipt {
    type Output = Result<(), RouteError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Ok(agreed) => Pin::new(agreed).poll(context).map_err(RouteError::Emit),
            Err(refused) => Poll::Ready(Err(refused.take().expect("not polled after completion"))),
        }
    }
}

/// The routes that one socket has of its own, kept with it.
#[derive(Default)]
struct OwnRoutes(Mutex<HashMap<Box<str>, BoxRoute>>);

/// Held while a socket gets its first route of its own, so that two at once share one map.
static FIRST: Mutex<()> = Mutex::new(());

impl OwnRoutes {
    fn of(socket: &Socket) -> Arc<Self> {
        if let Some(own) = socket.extension() {
            return own;
        }
        let _guard = FIRST.lock().unwrap_or_else(PoisonError::into_inner);
        if socket.extension::<Self>().is_none() {
            socket.set_extension(Self::default());
        }
        socket.extension().expect("it was set above, and nothing takes it away")
    }

    /// Whether there was none of that name.
    fn insert(&self, name: &str, route: BoxRoute) -> bool {
        let mut own = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        own.insert(name.into(), route).is_none()
    }

    fn find(&self, name: &str) -> Option<BoxRoute> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }
}
