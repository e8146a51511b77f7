//! The server: namespaces, and a client for each new connection.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use bytestring::ByteString;
use serde::Serialize;
use tokio::time::Instant;

use super::connection::Connection;
use super::drafts::Drafts;
use super::namespace::{NamespaceHandle, NamespaceInner};
use super::operator::{IntoRooms, Operator};
use super::receipts::Agreed;
use super::session::Session;
use crate::adapter::{Cluster, DeliveryMode, Outbox};
use crate::raft::Status;
use crate::raft::state::SessionId;
use crate::transport::{Accept, Client, Engine, Handshake, Refusal};

/// The server, from which everything else is reached. Cheap to clone.
#[derive(Clone)]
pub struct Io(Arc<Inner>);

struct Inner {
    cluster: Arc<Cluster>,
    namespaces: RwLock<HashMap<ByteString, Arc<NamespaceInner>>>,
    settings: Settings,
    drafts: Drafts,
    engine: Arc<Engine>,
}

/// What the server needs from the configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long a connection may stay without joining a namespace.
    pub connect_timeout: std::time::Duration,
    /// Namespaces whose delivery is configured; the others take what the application asks for.
    pub delivery: HashMap<String, DeliveryMode>,
}

impl Io {
    pub fn new(cluster: Arc<Cluster>, settings: Settings) -> Self {
        let namespaces = RwLock::default();
        let (drafts, engine) = (Drafts::default(), Arc::default());
        Self(Arc::new(Inner { cluster, namespaces, settings, drafts, engine }))
    }

    /// A namespace, which clients can connect to from then on. Its delivery is the configured
    /// one, else replicated.
    pub fn of(&self, name: &str) -> NamespaceHandle {
        self.of_mode(name, DeliveryMode::default())
    }

    /// A namespace whose delivery is `mode` unless the configuration says otherwise.
    pub fn of_mode(&self, name: &str, mode: DeliveryMode) -> NamespaceHandle {
        if let Some(inner) = self.namespace(name) {
            return NamespaceHandle(inner);
        }
        let mode = self.0.settings.delivery.get(name).copied().unwrap_or(mode);
        let mut namespaces =
            self.0.namespaces.write().expect("nothing panics while it holds the namespaces");
        let inner = namespaces.entry(name.into()).or_insert_with(|| {
            let name = ByteString::from(name);
            Arc::new(NamespaceInner::new(self.0.cluster.adapter(&name, mode)))
        });
        NamespaceHandle(inner.clone())
    }

    /// All sockets of `/`, on all nodes.
    pub fn operator(&self) -> Operator {
        self.of("/").operator()
    }

    pub fn to(&self, rooms: impl IntoRooms) -> Operator {
        self.operator().to(rooms)
    }

    pub fn except(&self, rooms: impl IntoRooms) -> Operator {
        self.operator().except(rooms)
    }

    /// Sends an event to all sockets of `/`.
    pub fn emit(&self, event: &str, args: &(impl Serialize + ?Sized)) -> Agreed {
        self.operator().emit(event, args)
    }

    /// The door to this node: middleware, handshakes, headers, refusals.
    pub fn engine(&self) -> &Engine {
        &self.0.engine
    }

    /// A session, of whatever client on whatever node.
    pub fn session(&self, id: SessionId) -> Session {
        Session::new(id, self.clone())
    }

    pub(crate) fn namespace(&self, name: &str) -> Option<Arc<NamespaceInner>> {
        self.0
            .namespaces
            .read()
            .expect("nothing panics while it holds the namespaces")
            .get(name)
            .cloned()
    }

    pub(crate) fn cluster(&self) -> &Arc<Cluster> {
        &self.0.cluster
    }

    pub(crate) fn drafts(&self) -> &Drafts {
        &self.0.drafts
    }
}

impl Accept for Io {
    fn ready(&self) -> Result<(), Refusal> {
        let status = *self.0.cluster.raft().status().borrow();
        match status {
            Status::Ready => Ok(()),
            Status::Draining => Err(Refusal::Draining),
            Status::Starting | Status::Fenced | Status::Down => Err(Refusal::NoQuorum),
        }
    }

    fn accept(&self, handshake: Arc<Handshake>, outbox: Arc<Outbox>) -> Box<dyn Client> {
        let connect_by = Instant::now() + self.0.settings.connect_timeout;
        Box::new(Connection::new(self.clone(), handshake, outbox, connect_by))
    }

    fn engine(&self) -> Arc<Engine> {
        Arc::clone(&self.0.engine)
    }
}
