//! What an application listens to on one socket: its events, its end, its errors.
//!
//! These are the verbs of Node.js' `EventEmitter`. All that listen to an event hear it, the
//! namespace's handlers first, and each group in the order in which it was added.

use super::handler::{Handler, boxed};
use super::listeners::{Called, ListenerId, Listeners};
use super::namespace::Handlers;
use super::own::Own;
use super::socket::Socket;

impl Socket {
    /// Runs for each event of that name of this socket alone, after the handlers that were added
    /// before. Where several handlers may answer an event, the first answer counts.
    pub fn on<Args>(&self, event: &str, handler: impl Handler<Args>) -> ListenerId {
        let handler = boxed(handler);
        self.change_own(|own| own.events.append(event, handler))
    }

    /// The same, before the socket's handlers that were added already.
    pub fn prepend<Args>(&self, event: &str, handler: impl Handler<Args>) -> ListenerId {
        let handler = boxed(handler);
        self.change_own(|own| own.events.prepend(event, handler))
    }

    /// Runs for the next event of that name of this socket alone.
    pub fn once<Args>(&self, event: &str, handler: impl Handler<Args>) -> ListenerId {
        let handler = boxed(handler);
        self.change_own(|own| own.events.append_once(event, handler))
    }

    /// The same, before the socket's handlers that were added already.
    pub fn prepend_once<Args>(&self, event: &str, handler: impl Handler<Args>) -> ListenerId {
        let handler = boxed(handler);
        self.change_own(|own| own.events.prepend_once(event, handler))
    }

    /// Takes all of the socket's own handlers for an event away.
    pub fn off(&self, event: &str) {
        if let Some(mut own) = self.own() {
            own.events.remove_event(event);
        }
    }

    /// Takes one of the socket's own handlers away: for an event, for its end, or for errors.
    pub fn remove_listener(&self, listener: ListenerId) {
        let Some(mut own) = self.own() else { return };
        own.events.remove(listener);
        let Own { disconnecting, disconnect, error, .. } = &mut *own;
        for listeners in [disconnecting, disconnect, error] {
            listeners.remove(Some(listener));
        }
    }

    /// Takes all of them away. Catch-all listeners stay, as with the official server.
    pub fn remove_all_listeners(&self) {
        let Some(mut own) = self.own() else { return };
        own.events.clear();
        let Own { disconnecting, disconnect, error, .. } = &mut *own;
        for listeners in [disconnecting, disconnect, error] {
            listeners.remove(None);
        }
    }

    /// The socket's own handlers for an event, in the order in which they are called.
    pub fn listeners(&self, event: &str) -> Vec<ListenerId> {
        self.own().map(|own| own.events.ids(event)).unwrap_or_default()
    }

    /// The events that the socket has handlers of its own for, in the order of their names.
    pub fn event_names(&self) -> Vec<String> {
        self.own().map(|own| own.events.names()).unwrap_or_default()
    }

    /// Runs when something went wrong with this socket that goes on all the same; takes an
    /// [`EventError`](super::EventError).
    pub fn on_error<Args>(&self, handler: impl Handler<Args>) -> ListenerId {
        let handler = boxed(handler);
        self.change_own(|own| own.error.append(handler))
    }

    /// Runs when this socket is about to leave, its rooms still known; takes a
    /// [`Reason`](super::Reason).
    pub fn on_disconnecting<Args>(&self, handler: impl Handler<Args>) -> ListenerId {
        let handler = boxed(handler);
        self.change_own(|own| own.disconnecting.append(handler))
    }

    /// Runs when this socket has left; takes a [`Reason`](super::Reason).
    pub fn on_disconnect<Args>(&self, handler: impl Handler<Args>) -> ListenerId {
        let handler = boxed(handler);
        self.change_own(|own| own.disconnect.append(handler))
    }

    /// The socket's own handlers that an event is for now.
    pub(super) fn take_own_handlers(&self, event: &str) -> Called {
        self.own().map(|mut own| own.events.take(event)).unwrap_or_default()
    }

    pub(super) fn error_handlers(&self) -> Called {
        self.handlers(|handlers| &handlers.error, |own| &own.error)
    }

    pub(super) fn disconnecting_handlers(&self) -> Called {
        self.handlers(|handlers| &handlers.disconnecting, |own| &own.disconnecting)
    }

    pub(super) fn disconnect_handlers(&self) -> Called {
        self.handlers(|handlers| &handlers.disconnect, |own| &own.disconnect)
    }

    /// Drops all that listens to the socket, which has left: a handler that holds the socket, as one
    /// that was written for one socket may, would keep it for ever.
    pub(super) fn drop_handlers(&self) {
        let Some(mut own) = self.own() else { return };
        let dropped = own.take_handlers();
        // Without the lock, for what they hold may look at the socket as it goes.
        drop(own);
        drop(dropped);
    }

    /// The namespace's, then its own.
    fn handlers(
        &self,
        of_namespace: fn(&Handlers) -> &Listeners,
        of_socket: fn(&Own) -> &Listeners,
    ) -> Called {
        let mut called = of_namespace(&self.namespace_inner().handlers()).handlers();
        if let Some(own) = self.own() {
            called.extend(of_socket(&own).iter().cloned());
        }
        called
    }
}
