//! The sessions of sockets for HTTP requests: a tower layer.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{Either, Full};
use tower::{Layer, Service};

use super::Session;
use super::sessions::{NoSession, Sessions};
use crate::server::io::Io;
use crate::transport::EitherBody;

/// Gives each request the [`Session`] of its client, in its extensions: the one that the client's
/// sockets have. The answer sets the cookie where a session was written for the first time,
/// regenerated, or destroyed, and takes away one whose session is over.
///
/// A cookie whose signature does not hold is refused (403, and the cookie is taken away); while the
/// cluster has no quorum, a session that this node does not know is (503). Without `cookie` among
/// the [sources](super::SessionConfig::sources) requests pass as they are.
#[derive(Clone)]
pub struct SessionLayer {
    io: Io,
}

impl SessionLayer {
    pub(crate) fn new(io: Io) -> Self {
        Self { io }
    }

    fn sessions(&self) -> Option<Arc<Sessions>> {
        self.io.sessions().filter(|sessions| sessions.uses_cookies()).cloned()
    }
}

impl fmt::Debug for SessionLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionLayer").finish_non_exhaustive()
    }
}

impl<S> Layer<S> for SessionLayer {
    type Service = SessionService<S>;

    fn layer(&self, inner: S) -> SessionService<S> {
        SessionService { layer: self.clone(), inner }
    }
}

/// A service whose requests have sessions; see [`SessionLayer`].
#[derive(Clone, Debug)]
pub struct SessionService<S> {
    layer: SessionLayer,
    inner: S,
}

impl<S, B, R> Service<Request<B>> for SessionService<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
    R: 'static,
{
    type Response = Response<EitherBody<R>>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The one that is ready answers; its clone gets ready for the next request.
        let next = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, next);
        let layer = self.layer.clone();
        Box::pin(layer.respond(inner, request))
    }
}

impl SessionLayer {
    async fn respond<S, B, R>(
        self,
        mut inner: S,
        mut request: Request<B>,
    ) -> Result<Response<EitherBody<R>>, S::Error>
    where
        S: Service<Request<B>, Response = Response<R>>,
    {
        let Some(sessions) = self.sessions() else {
            return Ok(inner.call(request).await?.map(Either::Right));
        };
        let shown = sessions.cookie_of(request.headers());
        let found = match &shown {
            Some(token) => sessions.find(&self.io, token).await,
            None => Ok(None),
        };
        let (hold, is_stranger) = match found {
            Ok(Some(hold)) => (hold, false),
            Ok(None) => (sessions.draw(), shown.is_some()),
            Err(error) => return Ok(refuse(&sessions, &error).map(Either::Left)),
        };
        request.extensions_mut().insert(Session::held(hold.clone(), self.io.clone()));
        let mut response = inner.call(request).await?;
        let news = if is_stranger {
            sessions.news_for_stranger(&hold)
        } else {
            sessions.news_for(&hold, false)
        };
        for (name, value) in sessions.set_cookie(news) {
            response.headers_mut().append(name, value);
        }
        Ok(response.map(Either::Right))
    }
}

fn refuse(sessions: &Sessions, error: &NoSession) -> Response<Full<Bytes>> {
    let (status, cookie) = match error {
        NoSession::Bad(_) => (StatusCode::FORBIDDEN, sessions.cleared()),
        NoSession::Missing => (StatusCode::FORBIDDEN, None),
        NoSession::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, None),
    };
    let body = serde_json::json!({"error": error.to_string()}).to_string();
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.extend(sessions.set_cookie(cookie));
    response
}
