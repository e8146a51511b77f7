//! What one socket has of its own: most sockets do without.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::mem::take;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::homecoming::Previous;
use super::listeners::{BoxEventMiddleware, Called, EventListeners, Listeners};

#[derive(Default)]
pub(crate) struct Own {
    pub(crate) events: EventListeners,
    pub(crate) disconnecting: Listeners,
    pub(crate) disconnect: Listeners,
    pub(crate) error: Listeners,
    pub(crate) incoming: Listeners,
    pub(crate) outgoing: Listeners,
    pub(crate) middleware: Vec<BoxEventMiddleware>,
    pub(crate) extensions: HashMap<TypeId, Arc<dyn Any + Send + Sync>>,
    pub(crate) data: Arc<Map<String, Value>>,
    /// Where the socket is that its client wants back, until the cluster has given it.
    pub(super) previous: Option<Previous>,
}

/// What stands before an event's handlers.
pub(crate) struct Gate {
    pub(crate) incoming: Called,
    pub(crate) middleware: Vec<BoxEventMiddleware>,
}

impl Own {
    /// All that was added to be called; values stay.
    pub(crate) fn take_handlers(&mut self) -> Self {
        let values = Self {
            extensions: take(&mut self.extensions),
            data: take(&mut self.data),
            ..Self::default()
        };
        std::mem::replace(self, values)
    }

    /// What stands before the handlers of incoming events, if anything does.
    pub(crate) fn gate(&self) -> Option<Gate> {
        let is_open = self.incoming.is_empty() && self.middleware.is_empty();
        (!is_open).then(|| Gate {
            incoming: self.incoming.handlers(),
            middleware: self.middleware.clone(),
        })
    }
}
