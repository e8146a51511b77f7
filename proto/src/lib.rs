//! What Flotilla's nodes say to each other over gRPC: the types generated from `proto/*.proto`,
//! one module for each package (`flotilla.raft` is `raft`). No logic.

// `pub mod flotilla { pub mod raft; … }`, for every package there is.
include!(concat!(env!("OUT_DIR"), "/packages.rs"));

pub use flotilla::*;
