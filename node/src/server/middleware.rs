//! Middleware of a namespace: who may connect.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use super::socket::Socket;
use crate::socketio::to_json;

/// Why a client is not let into a namespace; its `connect_error` (Socket.IO v5, CONNECT_ERROR).
#[derive(Clone, Debug, PartialEq, Serialize, thiserror::Error)]
#[error("{message}")]
pub struct ConnectError {
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Value>,
}

impl ConnectError {
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), data: None }
    }

    pub fn with_data(message: impl Into<String>, data: Value) -> Self {
        Self { message: message.into(), data: Some(data) }
    }

    pub(crate) fn to_json(&self) -> String {
        to_json(self).expect("a message and JSON data are JSON")
    }
}

pub(crate) type MiddlewareFuture = Pin<Box<dyn Future<Output = Result<(), ConnectError>> + Send>>;

/// A middleware whose type is hidden.
pub(crate) type BoxMiddleware = Arc<dyn Fn(Socket) -> MiddlewareFuture + Send + Sync>;

pub(crate) fn boxed<F, Fut>(middleware: F) -> BoxMiddleware
where
    F: Fn(Socket) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), ConnectError>> + Send + 'static,
{
    Arc::new(move |socket| Box::pin(middleware(socket)))
}
