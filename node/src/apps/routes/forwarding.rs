//! Forwards HTTP requests to routes by method and path: `express.io.routeForward`.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::Body;
use tower::{Layer, Service};

use super::{Params, Routes, decode};
use crate::transport::front::{self, EitherBody, EitherFuture};

/// Which route serves which method and path.
///
/// The path's `{name}` is the first part of the route's name, its action the second; the other
/// named parts are the route's [params](super::Request::param). A pattern is the whole path.
#[derive(Clone, Debug, Default)]
pub struct Table {
    entries: Vec<(Method, String, String)>,
    prefix: String,
}

/// A pattern that is none, or that a pattern with other names for its parts is like.
#[derive(Debug, thiserror::Error)]
#[error("{pattern:?} is no path of a table")]
pub struct InvalidTable {
    pub pattern: String,
    source: matchit::InsertError,
}

impl Table {
    /// A table of one's own.
    pub fn new() -> Self {
        Self::default()
    }

    /// Backbone's requests: `POST /name` is `name:create`, `GET /name` and `GET /name/id` are
    /// `name:read`, `PUT /name/id` is `name:update`, `DELETE /name/id` is `name:delete`.
    pub fn backbone() -> Self {
        Self::new()
            .with(Method::POST, "/{name}", "create")
            .with(Method::GET, "/{name}", "read")
            .with(Method::GET, "/{name}/{id}", "read")
            .with(Method::PUT, "/{name}/{id}", "update")
            .with(Method::DELETE, "/{name}/{id}", "delete")
    }

    /// AngularJS's requests: Backbone's, but `GET /name` is `name:list`.
    pub fn angular() -> Self {
        let mut table = Self::backbone();
        table.entries.retain(|(method, pattern, _)| *method != Method::GET || pattern != "/{name}");
        table.with(Method::GET, "/{name}", "list")
    }

    /// Adds an entry; of two for the same method and pattern, the later one counts. Without a
    /// `{name}` in the pattern, the action is the route's whole name.
    pub fn with(mut self, method: Method, pattern: &str, action: &str) -> Self {
        self.entries.push((method, pattern.to_owned(), action.to_owned()));
        self
    }

    /// Below a path, such as `/api`.
    pub fn under(self, prefix: &str) -> Self {
        Self { prefix: prefix.trim_end_matches('/').to_owned(), ..self }
    }

    fn compile(self) -> Result<Compiled, InvalidTable> {
        let mut patterns: BTreeMap<String, Vec<(Method, String)>> = BTreeMap::new();
        for (method, pattern, action) in self.entries {
            let actions = patterns.entry(format!("{}{pattern}", self.prefix)).or_default();
            actions.retain(|(known, _)| *known != method);
            actions.push((method, action));
        }
        let mut compiled = matchit::Router::new();
        for (pattern, actions) in patterns {
            compiled
                .insert(&*pattern, actions)
                .map_err(|source| InvalidTable { pattern, source })?;
        }
        Ok(Compiled(compiled))
    }
}

/// The actions of each pattern, by method.
struct Compiled(matchit::Router<Vec<(Method, String)>>);

impl Compiled {
    /// The route's name and its params.
    fn find(&self, method: &Method, path: &str) -> Option<(String, Params)> {
        let found = self.0.at(path).ok()?;
        let (_, action) = found.value.iter().find(|(known, _)| known == method)?;
        let route = match found.params.get("name") {
            Some(name) => format!("{}:{action}", decode(name)),
            None => action.clone(),
        };
        Some((route, Params::from(&found.params)))
    }
}

impl Routes {
    /// A layer that answers the requests of a table by their routes, and passes on to the service
    /// behind it all others, those whose route is not there among them. For axum's
    /// `Router::layer`, and whatever else takes a [`tower::Layer`]; what routes should know of a
    /// request, such as its session, belongs into layers outside of it.
    pub fn forward_layer(&self, table: Table) -> Result<ForwardLayer, InvalidTable> {
        let table = Arc::new(table.compile()?);
        Ok(ForwardLayer { routes: self.clone(), table })
    }
}

/// See [`Routes::forward_layer`].
#[derive(Clone)]
pub struct ForwardLayer {
    routes: Routes,
    table: Arc<Compiled>,
}

impl fmt::Debug for ForwardLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ForwardLayer").field(&self.routes).finish()
    }
}

impl<S> Layer<S> for ForwardLayer {
    type Service = ForwardService<S>;

    fn layer(&self, inner: S) -> ForwardService<S> {
        ForwardService { layer: self.clone(), inner }
    }
}

/// Routes in front of another service.
#[derive(Clone, Debug)]
pub struct ForwardService<S> {
    layer: ForwardLayer,
    inner: S,
}

impl<S, B, R> Service<Request<B>> for ForwardService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Send + 'static,
    B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
    R: Send + 'static,
{
    type Response = Response<EitherBody<R>>;
    type Error = S::Error;
    type Future = EitherFuture<S::Future, R, S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let ForwardLayer { routes, table } = &self.layer;
        let found = table.find(request.method(), request.uri().path());
        let Some((route, params)) = found.filter(|(route, _)| routes.has_route(route)) else {
            return front::pass(self.inner.call(request));
        };
        request.extensions_mut().insert(params);
        let routes = routes.clone();
        front::answer(async move { routes.forward(request, &route).await })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(table: &Compiled, method: &str, path: &str) -> Option<(String, Option<String>)> {
        let (route, params) = table.find(&method.parse().unwrap(), path)?;
        Some((route, params.get("id").map(str::to_owned)))
    }

    fn route(name: &str, id: Option<&str>) -> Option<(String, Option<String>)> {
        Some((name.to_owned(), id.map(str::to_owned)))
    }

    #[test]
    fn backbones_table_is_express_ios() {
        let table = Table::backbone().compile().unwrap();
        assert_eq!(find(&table, "POST", "/posts"), route("posts:create", None));
        assert_eq!(find(&table, "GET", "/posts"), route("posts:read", None));
        assert_eq!(find(&table, "GET", "/posts/5"), route("posts:read", Some("5")));
        assert_eq!(find(&table, "PUT", "/posts/5"), route("posts:update", Some("5")));
        assert_eq!(find(&table, "DELETE", "/posts/a%20b"), route("posts:delete", Some("a b")));
    }

    #[test]
    fn patterns_are_the_whole_path() {
        let table = Table::backbone().compile().unwrap();
        // The original takes the last for `api:read` of `posts`.
        for path in ["/", "/posts/", "/posts/5/", "/api/posts/5"] {
            assert_eq!(find(&table, "GET", path), None, "{path}");
        }
        for (method, path) in [("PUT", "/posts"), ("POST", "/posts/5"), ("PATCH", "/posts/5")] {
            assert_eq!(find(&table, method, path), None, "{method} {path}");
        }
        let below = Table::backbone().under("/api/").compile().unwrap();
        assert_eq!(find(&below, "GET", "/api/posts/5"), route("posts:read", Some("5")));
        assert_eq!(find(&below, "GET", "/posts/5"), None);
    }

    #[test]
    fn angulars_list_and_read_are_both_reached() {
        let table = Table::angular().compile().unwrap();
        assert_eq!(find(&table, "GET", "/posts"), route("posts:list", None));
        assert_eq!(find(&table, "GET", "/posts/5"), route("posts:read", Some("5")));
        assert_eq!(find(&table, "POST", "/posts"), route("posts:create", None));
    }

    #[test]
    fn tables_of_ones_own_may_name_whole_routes() {
        let table = Table::new()
            .with(Method::POST, "/login", "old")
            .with(Method::POST, "/login", "login")
            .with(Method::PATCH, "/{name}/{id}/archive", "archive");
        let table = table.compile().unwrap();
        assert_eq!(find(&table, "POST", "/login"), route("login", None));
        assert_eq!(find(&table, "PATCH", "/a/1/archive"), route("a:archive", Some("1")));
    }

    #[test]
    fn what_is_no_pattern_is_refused_by_name() {
        let table = Table::new().with(Method::GET, "/{name", "read").compile();
        assert!(table.err().unwrap().to_string().contains("/{name"));
        let alike = Table::backbone().with(Method::GET, "/{other}/{id}", "read").compile();
        assert!(alike.is_err());
    }
}
