//! What the server asks of the transport below it: how many clients there are, and to close.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::io::Io;
use crate::engineio::CloseReason;
use crate::transport::Transport;

/// How often to look whether all connections have ended.
const CLOSE_POLL: Duration = Duration::from_millis(20);

impl Io {
    /// Ties the transport, which was made after the server, to it; the first one stands.
    pub fn set_transport(&self, transport: &Arc<Transport>) {
        let _ = self.0.front.set(Arc::downgrade(transport));
    }

    /// The connections of this node: `io.engine.clientsCount` of the official server.
    pub fn clients_count(&self) -> usize {
        self.transport().map_or(0, |transport| transport.connection_count())
    }

    /// Takes no clients any more, and closes the connections of those that are here: their sockets
    /// hear `server shutting down`. Resolves once all have ended. The node stays in the cluster;
    /// [`Node::drain`](crate::node::Node::drain) stops it altogether.
    pub async fn close(&self) {
        self.0.is_closed.store(true, Ordering::Relaxed);
        let Some(transport) = self.transport() else { return };
        loop {
            // Again, for one may have been accepted in that moment.
            transport.close_all(CloseReason::ServerShutdown);
            if transport.connection_count() == 0 {
                return;
            }
            tokio::time::sleep(CLOSE_POLL).await;
        }
    }

    fn transport(&self) -> Option<Arc<Transport>> {
        self.0.front.get().and_then(Weak::upgrade)
    }
}
