//! The dialects that an application is written in, and the built-in ones; on `server/` alone.

pub mod api;
mod by_type;
pub mod conformance;
pub mod controllers;
pub mod relay;
pub mod routes;
