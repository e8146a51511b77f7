//! Flotilla: a clustered Socket.IO server. One binary, started three times, is a cluster.

pub mod adapter;
pub mod engineio;
pub mod metrics;
pub mod net;
pub mod peers;
pub mod raft;
pub mod random;
pub mod server;
pub mod socketio;
pub mod transport;
