//! One request to a route: an event of a socket, or an HTTP request that was forwarded.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use futures_util::FutureExt as _;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::de::DeserializeOwned;
use tracing::{debug, error, warn};

use super::error::{Failure, MAX_FORWARDS, RouteError};
use super::http::HttpCall;
use super::router::BoxRoute;
use super::verbs::RequestIo;
use super::{Core, Params, Routes, cookies};
use crate::metrics;
use crate::raft::state::SessionId;
use crate::server::{
    Ack, Context, ExtractError, FromContext, HandshakeDetails, Occasion, Session, Socket,
};
use crate::socketio::{Payload, Raw, from_event, to_payload};

/// What a route is called with: what the client sent, who it is, and by [`io`](Self::io) what can
/// be done about it. Cheap to clone, and may outlive the route's call: a response can come later.
#[derive(Clone)]
pub struct Request {
    call: Arc<Call>,
    /// Which route serves it at the moment.
    route: Arc<str>,
    forwards: u8,
}

/// What stays the same however often a request is forwarded.
struct Call {
    core: Arc<Core>,
    /// The arguments of the event; of an HTTP request one, its body.
    event: Payload,
    origin: Origin,
    headers: OnceLock<HeaderMap>,
}

enum Origin {
    Socket {
        socket: Socket,
        /// Until it has been answered.
        ack: Mutex<Option<Ack>>,
    },
    Http(Box<HttpCall>),
}

/// An event of a socket, as the server hands it over.
pub(super) struct Incoming {
    socket: Socket,
    event: Payload,
    ack: Ack,
}

impl FromContext for Incoming {
    fn from_context(context: &Context<'_>) -> Result<Self, ExtractError> {
        let Occasion::Event { payload, .. } = &context.occasion else {
            return Err(ExtractError::Absent("Request"));
        };
        Ok(Self {
            socket: context.socket.clone(),
            event: Payload::clone(payload),
            ack: Ack::from_context(context)?,
        })
    }
}

impl Request {
    pub(super) fn of_event(core: Arc<Core>, route: Arc<str>, event: Incoming) -> Self {
        let Incoming { socket, event, ack } = event;
        let origin = Origin::Socket { socket, ack: Mutex::new(Some(ack)) };
        Self::new(core, route, event, origin)
    }

    pub(super) fn of_http(core: Arc<Core>, route: &str, event: Payload, call: HttpCall) -> Self {
        Self::new(core, route.into(), event, Origin::Http(Box::new(call)))
    }

    fn new(core: Arc<Core>, route: Arc<str>, event: Payload, origin: Origin) -> Self {
        let call = Call { core, event, origin, headers: OnceLock::new() };
        Self { call: Arc::new(call), route, forwards: 0 }
    }

    /// The event's first argument, or the HTTP request's body; `null` if there is none.
    pub fn data<T: DeserializeOwned>(&self) -> Result<T, RouteError> {
        from_event(&self.call.event).map(|(data,)| data).map_err(RouteError::Data)
    }

    /// The same as it came, with its binary parts, to be passed on without a look into it.
    pub fn raw(&self) -> Raw {
        let event = &self.call.event;
        event.raw(event.args().next().unwrap_or("null"))
    }

    /// What can be done about the request.
    pub fn io(&self) -> RequestIo<'_> {
        RequestIo::new(self)
    }

    /// The application that the route belongs to.
    pub fn routes(&self) -> Routes {
        match &self.call.origin {
            Origin::Socket { socket, .. } => Routes::of_socket(&self.call.core, socket),
            Origin::Http(call) => call.routes.clone(),
        }
    }

    /// The name of the route that serves it: the one that it was forwarded to last.
    pub fn route_name(&self) -> &str {
        &self.route
    }

    /// The client's session; of an HTTP request the one that a session layer put into its
    /// extensions. It is always the agreed one, and what an `update` of it changes needs no saving.
    pub fn session(&self) -> Result<Session, RouteError> {
        match &self.call.origin {
            Origin::Socket { socket, .. } => Ok(socket.session()),
            Origin::Http(call) => call.parts.extensions.get().cloned().ok_or(RouteError::NoSession),
        }
    }

    pub fn session_id(&self) -> Result<SessionId, RouteError> {
        self.session().map(|session| session.id())
    }

    /// The headers of the handshake, or of the HTTP request.
    pub fn headers(&self) -> &HeaderMap {
        match &self.call.origin {
            Origin::Socket { socket, .. } => {
                self.call.headers.get_or_init(|| handshake_headers(socket))
            }
            Origin::Http(call) => &call.parts.headers,
        }
    }

    /// The cookies of those headers, by name and decoded; of several with one name the first.
    pub fn cookies(&self) -> Vec<(String, String)> {
        cookies(self.headers())
    }

    pub fn cookie(&self, name: &str) -> Option<String> {
        let mut cookies = self.cookies().into_iter();
        cookies.find_map(|(known, value)| (known == name).then_some(value))
    }

    /// The socket that sent the event.
    pub fn socket(&self) -> Result<&Socket, RouteError> {
        self.socket_for("socket()")
    }

    /// The socket's handshake, field by field as Socket.IO has them.
    pub fn handshake(&self) -> Result<HandshakeDetails, RouteError> {
        Ok(self.socket_for("handshake()")?.handshake_details())
    }

    /// The HTTP request, if it is one: method, URI, headers, extensions.
    pub fn http(&self) -> Option<&Parts> {
        match &self.call.origin {
            Origin::Socket { .. } => None,
            Origin::Http(call) => Some(&call.parts),
        }
    }

    /// A part of the HTTP request's path, by its name in the [table](super::Table).
    pub fn param(&self, name: &str) -> Option<&str> {
        self.http()?.extensions.get::<Params>()?.get(name)
    }

    pub(super) fn socket_for(&self, verb: &'static str) -> Result<&Socket, RouteError> {
        match &self.call.origin {
            Origin::Socket { socket, .. } => Ok(socket),
            Origin::Http(_) => Err(RouteError::NoSocket(verb)),
        }
    }

    /// The same request for another route.
    pub(super) fn forwarded(&self, route: &str) -> Result<(BoxRoute, Self), RouteError> {
        if self.forwards == MAX_FORWARDS {
            return Err(RouteError::Loop);
        }
        let found = self.call.core.router.find(route);
        let found = found.ok_or_else(|| RouteError::Missing(route.to_owned()))?;
        let forwards = self.forwards + 1;
        Ok((found, Self { call: self.call.clone(), route: route.into(), forwards }))
    }

    pub(super) fn core(&self) -> &Arc<Core> {
        &self.call.core
    }

    /// Runs a route for this request; if it fails, whoever sent it hears of it.
    pub(super) async fn serve(self, route: BoxRoute) {
        if let Err(failed) = self.clone().run(route).await {
            self.fail(&failed);
        }
    }

    /// Runs a route for this request.
    pub(super) async fn run(self, route: BoxRoute) -> Result<(), RouteError> {
        let running = AssertUnwindSafe(async move { route(self).await });
        running.catch_unwind().await.unwrap_or(Err(RouteError::Panicked))
    }

    /// Answers the request, if it has not been answered and an answer is wanted.
    pub(super) fn respond(&self, args: &Payload) -> Result<(), RouteError> {
        match &self.call.origin {
            Origin::Socket { ack, .. } => {
                if let Some(ack) = take(ack) {
                    ack.send_payload(args);
                }
                Ok(())
            }
            Origin::Http(call) => call.respond(args),
        }
    }

    /// Logs an error, and answers with it what has not been answered.
    pub(super) fn fail(&self, failed: &RouteError) {
        let message = failed.message();
        match failed {
            RouteError::Data(_) => {
                metrics::EVENTS_REFUSED.add(1);
                debug!(route = %self.route, error = %message, "request does not fit its route");
            }
            RouteError::Panicked => error!(route = %self.route, "route panicked"),
            // Mostly in words for the client; what it means is the application's to know.
            _ => warn!(route = %self.route, error = %message, "route failed"),
        }
        match &self.call.origin {
            Origin::Socket { ack, .. } => {
                if let Some(ack) = take(ack) {
                    let answer = to_payload(None, &Failure::new(&message));
                    ack.send_payload(&answer.expect("text is JSON"));
                }
            }
            Origin::Http(call) => call.fail(failed.status(), &message),
        }
    }
}

/// The first answer is the one that counts.
fn take<T>(answer: &Mutex<Option<T>>) -> Option<T> {
    answer.lock().unwrap_or_else(PoisonError::into_inner).take()
}

fn handshake_headers(socket: &Socket) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in &socket.handshake().headers {
        // They came as headers, and so they are valid ones.
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value))
        {
            headers.append(name, value);
        }
    }
    headers
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request").field("route", &self.route).finish_non_exhaustive()
    }
}
