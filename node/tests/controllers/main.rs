//! Controllers at the public door, a theme to a file.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../common/mod.rs"]
mod common;

mod acks;
mod connect;
mod events;
mod namespaces;
mod parameters;
mod recovery;

use std::sync::{Arc, Mutex};

use flotilla::apps::controllers::SocketServer;
use flotilla::server::Io;
use tokio::sync::Semaphore;

use common::client::Client;
use common::{TestNode, start, until};

/// What handlers noted, for the test to look at.
#[derive(Clone, Default)]
pub(crate) struct Notes(Arc<Mutex<Vec<String>>>);

impl Notes {
    pub(crate) fn add(&self, note: impl Into<String>) {
        self.0.lock().unwrap().push(note.into());
    }

    pub(crate) fn now(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    /// What has been noted since they were taken last.
    pub(crate) fn taken(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    pub(crate) async fn are(&self, expected: &[&str]) {
        until("the handlers", async || (self.now().len() >= expected.len()).then_some(())).await;
        assert_eq!(self.now(), expected);
    }
}

/// Holds handlers up until the test lets them go on.
#[derive(Clone)]
pub(crate) struct Gate(Arc<Semaphore>);

impl Gate {
    pub(crate) fn shut() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }

    pub(crate) fn open(&self) {
        self.0.close();
    }

    pub(crate) async fn pass(&self) {
        // It is closed to open the gate.
        let _ = self.0.acquire().await;
    }
}

pub(crate) async fn serve(register: impl FnOnce(&SocketServer)) -> TestNode {
    start(|io: &Io| register(&SocketServer::new(io))).await
}

pub(crate) async fn connected(node: &TestNode, namespace: &str) -> Client {
    let mut client = node.open().await;
    client.connect(namespace, "").await;
    client
}
