//! Several real nodes, real clients, injected faults: what the cluster stories, the runner of a
//! local cluster and the load generator are made of.
//!
//! Nothing here uses the server's own codecs. The client and the load generator are witnesses: a
//! mistake that both ends of a codec share would go unseen if they used it.

pub mod bench;
pub mod client;
pub mod cluster;
pub mod dialects;
pub mod follow;
pub mod host;
pub mod http;
pub mod limits;
pub mod metrics;
pub mod nodes_file;
pub mod ports;
pub mod process;
pub mod properties;
pub mod proxy;
pub mod settings;
pub mod sim;
pub mod traffic;
pub mod wait;
