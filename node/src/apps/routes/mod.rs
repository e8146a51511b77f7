//! Routes: express.io's dialect, in which an event of a socket and an HTTP request are requests to the same routes.
//!
//! A route is a name and an async function of a [`Request`]. A client runs it by emitting an event
//! of that name; a handler of the embedding HTTP application by [`Routes::forward`]; another route
//! by [`RequestIo::route`]. What is kept of express.io 1.1.13 and what is changed stands in
//! `docs/dialects.md`, how an application is written in `docs/routes.md`.

#[cfg(doctest)]
#[doc = include_str!("../../../../docs/routes.md")]
mod tour {}

mod error;
mod forwarding;
mod http;
mod request;
mod router;
mod settings;
mod verbs;

use std::sync::Arc;

use ::http::HeaderMap;
use serde::Serialize;

use self::request::Incoming;
use self::router::Router;
use self::settings::Values;
use crate::server::{Agreed, ConnectError, IntoRooms, Io, NamespaceHandle, Socket};

pub use self::error::RouteError;
pub use self::forwarding::{ForwardLayer, ForwardService, InvalidTable, Table};
pub use self::http::{HttpLimits, Params};
pub use self::request::Request;
pub use self::router::{Group, IntoRoutes, InvalidRoute, Outcome};
pub use self::settings::NotHere;
pub use self::verbs::{Receipt, RequestIo, Room};

/// The routes of one namespace: `app.io` of express.io. Cheap to clone.
///
/// A namespace has one: two made for the same namespace are two applications that do not know each
/// other's routes.
#[derive(Clone)]
pub struct Routes {
    core: Arc<Core>,
    io: Io,
    namespace: NamespaceHandle,
}

/// What the handlers in the namespace hold on to. It leads to no namespace, or neither would ever
/// be dropped.
struct Core {
    router: Router,
    values: Values,
    limits: HttpLimits,
}

impl Routes {
    /// The routes of `/`.
    pub fn new(io: &Io) -> Self {
        Self::with_limits(io, "/", HttpLimits::default())
    }

    /// The routes of another namespace.
    pub fn of(io: &Io, namespace: &str) -> Self {
        Self::with_limits(io, namespace, HttpLimits::default())
    }

    /// The routes of a namespace, with limits of their own for requests that come by HTTP.
    pub fn with_limits(io: &Io, namespace: &str, limits: HttpLimits) -> Self {
        let core = Core { router: Router::default(), values: Values::default(), limits };
        Self { core: Arc::new(core), io: io.clone(), namespace: io.of(namespace) }
    }

    fn of_socket(core: &Arc<Core>, socket: &Socket) -> Self {
        Self { core: core.clone(), io: socket.io(), namespace: socket.namespace() }
    }

    /// Adds a route, or with a [`Group`] one route `name:key` for each of its keys. A route of a
    /// name that is there already takes its place. Sockets that are connected have it at once.
    ///
    /// Refused are the names of events that Socket.IO, then or now, keeps for itself; of a group
    /// with such a name, nothing is added.
    pub fn route<M>(&self, name: &str, routes: impl IntoRoutes<M>) -> Result<&Self, InvalidRoute> {
        let routes = routes.into_routes(name);
        for (name, _) in &routes {
            router::check_name(name)?;
        }
        for (name, route) in routes {
            if self.core.router.insert(&name, route) {
                self.bind(&name);
            }
        }
        Ok(self)
    }

    /// Has the namespace's events of that name run whatever route has it then.
    fn bind(&self, name: &str) {
        let core = self.core.clone();
        let route: Arc<str> = name.into();
        self.namespace.on(name, move |event: Incoming| {
            let (core, route) = (core.clone(), route.clone());
            async move {
                if let Some(found) = core.router.find(&route) {
                    Request::of_event(core, route, event).serve(found).await;
                }
            }
        });
    }

    /// Whether there is a route of that name.
    pub fn has_route(&self, name: &str) -> bool {
        self.core.router.find(name).is_some()
    }

    /// Asks `middleware`, after what was added before, whether a client may connect: `app.io.use`.
    /// The socket's session is there already. A client that is refused gets the error's message.
    pub fn with<F, Fut>(&self, middleware: F) -> &Self
    where
        F: Fn(Socket) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), ConnectError>> + Send + 'static,
    {
        self.namespace.with(middleware);
        self
    }

    /// Sends an event to all sockets of the namespace, on all nodes; a tuple is several arguments.
    pub fn broadcast(&self, event: &str, args: &(impl Serialize + ?Sized)) -> Agreed {
        self.namespace.emit(event, args)
    }

    /// All sockets of a room, on all nodes.
    pub fn room(&self, room: impl IntoRooms) -> Room {
        Room::new(self.namespace.to(room))
    }

    /// The namespace, for what has no name in this dialect.
    pub fn namespace(&self) -> &NamespaceHandle {
        &self.namespace
    }

    /// The server.
    pub fn io(&self) -> &Io {
        &self.io
    }
}

impl std::fmt::Debug for Routes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Routes").field(&self.namespace).finish()
    }
}

/// The cookies of a request, as npm's `cookie` reads them: of several with one name the first.
fn cookies(headers: &HeaderMap) -> Vec<(String, String)> {
    let mut cookies: Vec<(String, String)> = Vec::new();
    let values = headers.get_all(::http::header::COOKIE);
    for header in values.iter().filter_map(|header| header.to_str().ok()) {
        for pair in header.split(';') {
            let Some((name, value)) = pair.split_once('=') else { continue };
            let (name, value) = (name.trim(), value.trim());
            let quoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
            if cookies.iter().all(|(known, _)| known != name) {
                cookies.push((name.to_owned(), decode(quoted.unwrap_or(value))));
            }
        }
    }
    cookies
}

/// Undoes percent-encoding; what is not UTF-8 then stays as it is.
fn decode(text: &str) -> String {
    let decoded = percent_encoding::percent_decode_str(text).decode_utf8();
    decoded.map_or_else(|_| text.to_owned(), |decoded| decoded.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_are_decoded_and_the_first_of_a_name_counts() {
        let mut headers = HeaderMap::new();
        headers.append("cookie", "a=1; b=%C3%BC%20x;c=\"q\" ; a=2; bad".parse().unwrap());
        headers.append("cookie", "d=%FF; e=x=y".parse().unwrap());
        let found = cookies(&headers);
        let expected = [("a", "1"), ("b", "ü x"), ("c", "q"), ("d", "%FF"), ("e", "x=y")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(found, expected);
    }
}
