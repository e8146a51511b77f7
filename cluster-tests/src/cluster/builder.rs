//! What a cluster is to be like: its size, its settings, its ports and its place on disk.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use toml::Table;

use super::{Cluster, binary};
use crate::proxy::Links;
use crate::{ports, settings};

/// What a cluster is to be like, before it exists.
#[derive(Debug, Clone)]
pub struct Builder {
    nodes: usize,
    base: Table,
    binary: Option<PathBuf>,
    directory: Option<PathBuf>,
    first_port: Option<u16>,
    proxied: bool,
}

impl Builder {
    pub(super) fn new(nodes: usize) -> Self {
        Self {
            nodes,
            base: Table::new(),
            binary: None,
            directory: None,
            first_port: None,
            proxied: false,
        }
    }

    /// Sets one value in every node's config, for example `["raft", "durability"]`.
    pub fn setting(mut self, path: &[&str], value: impl Into<toml::Value>) -> Self {
        settings::set(&mut self.base, path, value);
        self
    }

    /// When a write of the log counts as stored: `fsync`, `os` or `memory`.
    pub fn durability(self, durability: &str) -> Self {
        self.setting(&["raft", "durability"], durability)
    }

    /// Takes the common settings from here instead of from an empty file.
    pub fn base(mut self, base: Table) -> Self {
        self.base = base;
        self
    }

    /// Starts this program instead of the workspace's own build.
    pub fn binary(mut self, binary: PathBuf) -> Self {
        self.binary = Some(binary);
        self
    }

    /// Keeps configs, logs and data in this directory and leaves them there.
    pub fn directory(mut self, directory: PathBuf) -> Self {
        self.directory = Some(directory);
        self
    }

    /// Clients connect at this port and the following ones, admin is 1000 and gRPC 2000 above.
    pub fn first_port(mut self, port: u16) -> Self {
        self.first_port = Some(port);
        self
    }

    /// Puts a proxy before each node's gRPC port, so that links can be cut: see [`Cluster::links`].
    pub fn proxied(mut self) -> Self {
        self.proxied = true;
        self
    }

    /// Writes all configs and starts no node yet. An opened proxy needs a runtime.
    pub fn prepare(self) -> io::Result<Cluster> {
        let temporary = self.directory.is_none().then(tempfile::tempdir).transpose()?;
        let directory = match (&self.directory, &temporary) {
            (Some(directory), _) => directory.clone(),
            (None, Some(temporary)) => temporary.path().to_owned(),
            (None, None) => unreachable!("a temporary directory is made when none is given"),
        };
        std::fs::create_dir_all(&directory)?;
        let mut cluster = Cluster {
            nodes: Vec::new(),
            binary: self.binary.unwrap_or_else(binary::find),
            directory,
            base: self.base,
            bootstrap_expect: self.nodes,
            links: self.proxied.then(Links::new),
            _temporary: temporary,
        };
        let addresses = (0..self.nodes).map(|index| Addresses::pick(self.first_port, index));
        for own in addresses.collect::<Vec<_>>() {
            cluster.settle(own)?;
        }
        let seeds: Vec<_> = cluster.nodes.iter().map(|node| node.settings.advertise).collect();
        for node in &mut cluster.nodes {
            node.settings.seeds.clone_from(&seeds);
        }
        Ok(cluster)
    }

    /// Starts all nodes and returns when each of them is ready.
    ///
    /// # Panics
    ///
    /// When the nodes do not become one cluster in time.
    pub async fn start(self) -> Cluster {
        let mut cluster = self.prepare().expect("the configs can be written");
        for id in cluster.ids() {
            cluster.start_node(&id);
        }
        cluster.wait_all_ready().await;
        cluster
    }
}

/// The three ports of one node.
pub(super) struct Addresses {
    pub(super) listen: SocketAddr,
    pub(super) admin: SocketAddr,
    pub(super) cluster: SocketAddr,
}

impl Addresses {
    pub(super) fn pick(first_port: Option<u16>, index: usize) -> Self {
        let Some(first) = first_port else {
            let [listen, admin, cluster] = std::array::from_fn(|_| ports::free_address());
            return Self { listen, admin, cluster };
        };
        let index = u16::try_from(index).expect("a small number of nodes");
        let at = |offset| SocketAddr::from(([127, 0, 0, 1], first + offset + index));
        Self { listen: at(0), admin: at(1000), cluster: at(2000) }
    }
}
