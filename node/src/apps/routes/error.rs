//! Why a request to a route went wrong, and what whoever sent it is told.

use std::error::Error;

use http::StatusCode;
use serde::Serialize;

use super::router::InvalidRoute;
use crate::server::{EmitError, SessionError};

/// How many times a request may be forwarded, so that routes which forward to each other end.
pub(super) const MAX_FORWARDS: u8 = 16;

/// Why a request was not served. A route that returns one has answered with it: the client's ack
/// gets `{"error": {"message"}}`, an HTTP request the same as its body.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// The client's data are not what the route reads: 400 over HTTP.
    #[error("data has another shape")]
    Data(#[source] serde_json::Error),
    /// 404 over HTTP.
    #[error("there is no route {0:?}")]
    Missing(String),
    #[error("forwarded more than {MAX_FORWARDS} times: do routes forward to each other?")]
    Loop,
    /// The request came by HTTP, and there is no socket to do this with.
    #[error("{0} needs a socket, and this request came by HTTP")]
    NoSocket(&'static str),
    /// The request came by HTTP, past no layer that gives it a session.
    #[error("this request has no session: it came by HTTP past no session layer")]
    NoSession,
    /// What `respond` was given is no response over HTTP.
    #[error("respond over HTTP takes JSON, or a status and JSON")]
    Response,
    #[error(transparent)]
    Invalid(#[from] InvalidRoute),
    #[error(transparent)]
    Emit(#[from] EmitError),
    #[error(transparent)]
    Session(#[from] SessionError),
    /// What the route panicked with is in the log alone.
    #[error("internal error")]
    Panicked,
    /// An error of the application's own. Its text is what the client reads.
    #[error(transparent)]
    Failed(Box<dyn Error + Send + Sync>),
}

impl RouteError {
    /// An error of the application's own, in words for the client.
    pub fn new(message: impl Into<String>) -> Self {
        Self::Failed(message.into().into())
    }

    /// The HTTP status that it is answered with.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Data(_) => StatusCode::BAD_REQUEST,
            Self::Missing(_) => StatusCode::NOT_FOUND,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// What the client reads.
    pub(super) fn message(&self) -> String {
        match self {
            Self::Data(cause) => format!("{self}: {cause}"),
            _ => self.to_string(),
        }
    }
}

/// `{"error": {"message"}}`, as the other dialects spell it too.
#[derive(Serialize)]
pub(super) struct Failure<'a> {
    error: Reason<'a>,
}

#[derive(Serialize)]
struct Reason<'a> {
    message: &'a str,
}

impl<'a> Failure<'a> {
    pub(super) fn new(message: &'a str) -> Self {
        Self { error: Reason { message } }
    }
}
