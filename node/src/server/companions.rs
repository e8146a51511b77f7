//! Companions: what stays beside a socket and hears all of it. Dialects are made of them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::error;

use super::ack::Ack;
use super::dynamic::ParentNamespace;
use super::extract::{Context, FromContext as _};
use super::handler::{self, HandlerFuture};
use super::namespace::NamespaceHandle;
use super::socket::Socket;
use crate::socketio::Payload;

/// Stays beside one socket from its connect to its end.
///
/// It is called by the socket's connection, in the order of what it is told, and must not block.
pub(crate) trait Companion: Send + Sync {
    /// An event has come, whatever its name, and its handlers have been called. True if the
    /// companion knows the event by its name.
    fn handle_event(self: Arc<Self>, context: &Context<'_>, ack: &Arc<SharedAck>) -> bool;

    /// The socket has left its namespace.
    fn handle_end(self: Arc<Self>, reason: &'static str);
}

/// Makes the companion of a socket that has just connected.
pub(crate) type MakeCompanion = Arc<dyn Fn(&Socket) -> Arc<dyn Companion> + Send + Sync>;

/// A socket's companions, kept as its extension.
struct Companions(Vec<Arc<dyn Companion>>);

impl NamespaceHandle {
    /// Gives each socket that connects from now on a companion. It is made once the socket is
    /// connected, before its first event is looked at.
    pub(crate) fn accompany(&self, make: MakeCompanion) {
        self.0.registry().accompany(make);
    }
}

impl ParentNamespace {
    /// The same, for children made from now on.
    pub(crate) fn accompany(&self, make: MakeCompanion) {
        self.0.registry().accompany(make);
    }
}

impl Socket {
    /// Runs `future` in place as far as it goes at once; the rest goes on beside.
    pub(crate) fn run_in_place(&self, future: HandlerFuture) {
        handler::run_in_place(future, self.cluster());
    }
}

pub(super) fn connected(socket: &Socket) {
    let makers = socket.namespace_inner().handlers().companions.clone();
    if makers.is_empty() {
        return;
    }
    let companions = makers.iter().filter_map(|make| guarded(|| make(socket))).collect();
    socket.set_extension(Companions(companions));
}

/// What an event's companions made of it.
#[derive(Default)]
pub(super) struct Heard {
    /// One of them knows the event by its name.
    pub(super) is_known: bool,
    ack: Option<Arc<SharedAck>>,
}

impl Heard {
    /// Somebody else is there to answer who may take a while.
    pub(super) fn leave_to_others(&self) {
        if let Some(ack) = &self.ack {
            ack.leave_to_others();
        }
    }
}

/// Tells the socket's companions.
pub(super) fn event(context: &Context<'_>) -> Heard {
    let socket = context.socket;
    let is_accompanied = !socket.namespace_inner().handlers().companions.is_empty();
    let companions = if is_accompanied { socket.extension::<Companions>() } else { None };
    let Some(companions) = companions else { return Heard::default() };
    let Ok(ack) = Ack::from_context(context) else { return Heard::default() };
    let ack = Arc::new(SharedAck::new(ack));
    let mut is_known = false;
    for companion in &companions.0 {
        let heard = guarded(|| companion.clone().handle_event(context, &ack));
        is_known |= heard == Some(true);
    }
    Heard { is_known, ack: Some(ack) }
}

pub(super) fn ended(socket: &Socket, reason: &'static str) {
    if socket.extension::<Companions>().is_none() {
        return;
    }
    // Taken away, for a companion keeps its socket.
    let companions = socket.set_extension(Companions(Vec::new()));
    for companion in companions.iter().flat_map(|companions| &companions.0) {
        guarded(|| companion.clone().handle_end(reason));
    }
}

/// A companion that panics ends nothing but what it was doing.
fn guarded<R>(call: impl FnOnce() -> R) -> Option<R> {
    let called = catch_unwind(AssertUnwindSafe(call));
    called.inspect_err(|_panic| error!("a companion panicked")).ok()
}

/// The ack of an event that several may answer: the first answer is sent.
#[derive(Debug)]
pub(crate) struct SharedAck {
    is_wanted: bool,
    open: Mutex<Open>,
}

#[derive(Debug)]
struct Open {
    ack: Option<Ack>,
    /// What is sent if nobody else answers.
    last: Option<Payload>,
    is_left_to_others: bool,
}

impl SharedAck {
    fn new(ack: Ack) -> Self {
        let is_wanted = ack.is_wanted();
        Self {
            is_wanted,
            open: Mutex::new(Open { ack: Some(ack), last: None, is_left_to_others: false }),
        }
    }

    /// Whether the client asked for an ack.
    pub(crate) fn is_wanted(&self) -> bool {
        self.is_wanted
    }

    /// Answers, unless somebody has.
    pub(crate) fn answer(&self, answer: &Payload) {
        let ack = self.open().ack.take();
        if let Some(ack) = ack {
            ack.send_payload(answer);
        }
    }

    /// Answers once no other companion can, that is when this is dropped; not at all, if there are
    /// others than companions to answer.
    pub(crate) fn answer_last(&self, answer: Payload) {
        let mut open = self.open();
        if !open.is_left_to_others {
            open.last.get_or_insert(answer);
        }
    }

    fn leave_to_others(&self) {
        let mut open = self.open();
        open.is_left_to_others = true;
        open.last = None;
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for SharedAck {
    fn drop(&mut self) {
        let last = self.open().last.take();
        if let Some(last) = last {
            self.answer(&last);
        }
    }
}
