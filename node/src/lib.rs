//! Flotilla: a clustered Socket.IO server. One binary, started three times, is a cluster.
//!
//! A client's packets come in through [`transport`], are understood by [`engineio`] and
//! [`socketio`], and reach the application through [`server`]. What the application emits goes
//! through [`adapter`] to the outboxes of this node's sockets: by way of [`raft`], which gives
//! replicated packets, joins and sessions one order on all nodes, or by way of [`peers`], straight
//! to the nodes that have a target. [`node`] ties the parts together. To embed a node, start at
//! [`node::Node`]; to write an application, at [`server::Io`]. The map of the parts, and what is
//! never so, is in `docs/ARCHITECTURE.md`.

pub mod adapter;
pub mod admin;
pub mod application;
pub mod apps;
pub mod backbone;
pub mod config;
pub mod engineio;
pub mod limits;
pub mod metrics;
pub mod net;
pub mod node;
pub mod peers;
pub mod raft;
pub mod random;
pub mod scheduling;
pub mod server;
pub mod socketio;
pub mod telemetry;
pub mod transport;
mod turn;
