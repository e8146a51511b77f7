//! Carries packets between clients and connections.

mod answer;
mod body;
mod client;
mod compression;
mod connection;
mod connections;
mod cookie;
mod cors;
mod embed;
mod farewell;
mod frames;
pub(crate) mod front;
mod hooks;
mod http_stream;
mod listener;
mod pages;
mod polling;
mod relay;
mod routes;
mod stream;
mod websocket;

pub use client::{Accept, Admitted, Client, Denied, Handshake, Refusal};
pub(crate) use cookie::write_cookie;
pub use embed::{EngineLayer, EngineService, NotFound};
pub use front::{EitherBody, EitherFuture};
pub use hooks::{ConnectionError, Engine, ErrorContext, Exchange, Forbidden, Halt};
pub use listener::Transport;
pub use pages::Pages;
