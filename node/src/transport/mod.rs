//! Carries packets between clients and connections.

mod client;
mod connection;
mod connections;
mod cors;
mod frames;
mod http_stream;
mod listener;
mod pages;
mod polling;
mod routes;
mod websocket;

pub use client::{Accept, Client, Handshake, Refusal};
pub use listener::Transport;
pub use pages::Pages;
