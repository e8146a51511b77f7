//! Which route has which name.

use std::collections::HashMap;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;

use super::error::RouteError;
use super::request::Request;

/// A route whose types are hidden.
pub(super) type BoxRoute =
    Arc<dyn Fn(Request) -> BoxFuture<'static, Result<(), RouteError>> + Send + Sync>;

/// Events that no route can have: those which express.io's README reserves, which is Socket.IO
/// 0.9's list, and those of Socket.IO 4.
const RESERVED: [&str; 13] = [
    "connect",
    "connecting",
    "disconnect",
    "connect_failed",
    "error",
    "message",
    "reconnect_failed",
    "reconnect",
    "reconnecting",
    "connect_error",
    "disconnecting",
    "newListener",
    "removeListener",
];

/// A name that no route can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} cannot be a route: Socket.IO keeps the event of that name for itself")]
pub struct InvalidRoute {
    pub name: String,
}

pub(super) fn check_name(name: &str) -> Result<(), InvalidRoute> {
    if RESERVED.contains(&name) { Err(InvalidRoute { name: name.to_owned() }) } else { Ok(()) }
}

/// The routes by name; read for every event, and changed hardly ever.
#[derive(Default)]
pub(super) struct Router {
    routes: ArcSwap<HashMap<Box<str>, BoxRoute>>,
    /// Held while the routes are replaced.
    inserting: Mutex<()>,
}

impl Router {
    /// Whether there was none of that name.
    pub(super) fn insert(&self, name: &str, route: BoxRoute) -> bool {
        let _guard = self.inserting.lock().unwrap_or_else(PoisonError::into_inner);
        let mut routes = HashMap::clone(&self.routes.load());
        let is_new = routes.insert(name.into(), route).is_none();
        self.routes.store(Arc::new(routes));
        is_new
    }

    pub(super) fn find(&self, name: &str) -> Option<BoxRoute> {
        self.routes.load().get(name).cloned()
    }
}

/// What [`Routes::route`](super::Routes::route) takes: a route, that is an async function of a
/// [`Request`], or a [`Group`] of them. `M` only tells the two apart.
pub trait IntoRoutes<M> {
    #[doc(hidden)]
    fn into_routes(self, name: &str) -> Vec<(String, BoxRoute)>;
}

impl<F, Fut> IntoRoutes<Fut> for F
where
    F: Fn(Request) -> Fut + Send + Sync + 'static,
    Fut: Future<Output: Outcome> + Send + 'static,
{
    fn into_routes(self, name: &str) -> Vec<(String, BoxRoute)> {
        vec![(name.to_owned(), boxed(self))]
    }
}

impl IntoRoutes<Self> for Group {
    fn into_routes(self, name: &str) -> Vec<(String, BoxRoute)> {
        self.0.into_iter().map(|(key, route)| (format!("{name}:{key}"), route)).collect()
    }
}

pub(super) fn boxed<F, Fut>(route: F) -> BoxRoute
where
    F: Fn(Request) -> Fut + Send + Sync + 'static,
    Fut: Future<Output: Outcome> + Send + 'static,
{
    Arc::new(move |request| {
        let running = route(request);
        Box::pin(async move { running.await.into_result() })
    })
}

/// Routes that share the first part of their names: `customers:create`, `customers:read` …
#[derive(Default)]
pub struct Group(Vec<(String, BoxRoute)>);

impl Group {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the route `name:key`, the group's name being that under which it is
    /// [registered](super::Routes::route).
    pub fn route<F, Fut>(mut self, key: &str, route: F) -> Self
    where
        F: Fn(Request) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: Outcome> + Send + 'static,
    {
        self.0.push((key.to_owned(), boxed(route)));
        self
    }
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(key, _)| key)).finish()
    }
}

/// What a route may return: nothing, or a `Result` of nothing and any error.
pub trait Outcome {
    #[doc(hidden)]
    fn into_result(self) -> Result<(), RouteError>;
}

impl Outcome for () {
    fn into_result(self) -> Result<(), RouteError> {
        Ok(())
    }
}

impl<E: Into<Box<dyn Error + Send + Sync>>> Outcome for Result<(), E> {
    fn into_result(self) -> Result<(), RouteError> {
        self.map_err(|error| match error.into().downcast::<RouteError>() {
            Ok(own) => *own,
            Err(other) => RouteError::Failed(other),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing() -> BoxRoute {
        boxed(async |_request: Request| {})
    }

    #[test]
    fn reserved_names_of_both_generations_are_refused_and_named() {
        for name in ["connect", "connecting", "disconnect", "message", "error", "newListener"] {
            let error = check_name(name).unwrap_err();
            assert!(error.to_string().contains(&format!("{name:?}")), "{error}");
        }
        for name in ["connection", "disconnect:all", "ready", "Message"] {
            check_name(name).unwrap();
        }
    }

    #[test]
    fn later_route_takes_the_place_of_one_with_its_name() {
        let router = Router::default();
        assert!(router.insert("a", nothing()));
        let later = nothing();
        assert!(!router.insert("a", later.clone()), "it is bound already");
        assert!(Arc::ptr_eq(&router.find("a").unwrap(), &later));
        assert!(router.find("b").is_none());
    }

    #[test]
    fn group_is_one_route_for_each_key() {
        let group = Group::new()
            .route("create", async |_request: Request| {})
            .route("read", async |_request: Request| Err::<(), _>("no"));
        let names: Vec<_> =
            group.into_routes("customers").into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["customers:create", "customers:read"]);
    }

    #[test]
    fn errors_of_this_dialect_keep_their_kind_and_others_their_words() {
        let boxed: Box<dyn Error + Send + Sync> = Box::new(RouteError::Loop);
        assert!(matches!(Err::<(), _>(boxed).into_result(), Err(RouteError::Loop)));
        let failed = Err::<(), _>("sold out").into_result().unwrap_err();
        assert_eq!(failed.message(), "sold out");
        assert!(matches!(failed, RouteError::Failed(_)));
    }
}
