//! What one socket has of its own: most sockets do without.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::handler::BoxHandler;
use super::listeners::{BoxEventMiddleware, CatchAll};

#[derive(Default)]
pub(crate) struct Own {
    pub(crate) events: HashMap<Box<str>, OwnHandler>,
    pub(crate) disconnecting: Option<BoxHandler>,
    pub(crate) disconnect: Option<BoxHandler>,
    pub(crate) error: Option<BoxHandler>,
    pub(crate) upgrade: Option<BoxHandler>,
    pub(crate) incoming: CatchAll,
    pub(crate) outgoing: CatchAll,
    pub(crate) middleware: Vec<BoxEventMiddleware>,
    pub(crate) extensions: HashMap<TypeId, Arc<dyn Any + Send + Sync>>,
    pub(crate) data: Arc<Map<String, Value>>,
}

pub(crate) struct OwnHandler {
    pub(crate) handler: BoxHandler,
    /// It is taken away before it runs for the first time.
    pub(crate) is_once: bool,
}

/// What stands before an event's handler.
pub(crate) struct Gate {
    pub(crate) incoming: Vec<BoxHandler>,
    pub(crate) middleware: Vec<BoxEventMiddleware>,
}

impl Own {
    /// The handler of an event.
    pub(crate) fn take_handler(&mut self, event: &str) -> Option<BoxHandler> {
        let own = self.events.get(event)?;
        let handler = own.handler.clone();
        if own.is_once {
            self.events.remove(event);
        }
        Some(handler)
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
