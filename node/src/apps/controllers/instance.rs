//! One controller of one socket: made when the socket connects, gone when it has left.

use std::mem;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard};

use futures_util::FutureExt as _;
use tokio::time::timeout;
use tracing::{debug, error};

use super::call::{Call, Occurrence};
use super::controller::{Controller, Description};
use super::error::Error;
use super::index::{Index, Matches};
use super::sequence::{Invocation, Reply};
use super::server::Shared;
use super::waiting::{Next, Waiting};
use crate::metrics;
use crate::server::{Companion, Context, Occasion, SharedAck, Socket};
use crate::socketio::to_payload;

/// A controller as it is bound to one namespace.
pub(super) struct Binding<C> {
    pub(super) description: Description<C>,
    pub(super) index: Index,
    pub(super) shared: Arc<Shared>,
}

/// One controller of one socket.
pub(super) struct Instance<C> {
    binding: Arc<Binding<C>>,
    socket: Socket,
    phase: Mutex<Phase<C>>,
}

enum Phase<C> {
    /// Its connect handlers run, or what came meanwhile is being started.
    Connecting(Waiting<Incoming>),
    Open(Arc<C>),
    /// The connect failed, or the socket has left.
    Over,
}

/// An event that subscriptions are for.
struct Incoming {
    matches: Matches,
    occurrence: Occurrence,
    ack: Arc<SharedAck>,
}

/// The event that tells a client why its connect failed.
const EXCEPTION: &str = "exception";

impl<C: Controller> Instance<C> {
    /// Makes it and starts its connect handlers.
    pub(super) fn start(binding: &Arc<Binding<C>>, socket: &Socket) -> Arc<Self> {
        let waiting = Waiting::new(binding.shared.bounds());
        let instance = Arc::new(Self {
            binding: binding.clone(),
            socket: socket.clone(),
            phase: Mutex::new(Phase::Connecting(waiting)),
        });
        socket.run_in_place(Box::pin(instance.clone().connect()));
        instance
    }

    async fn connect(self: Arc<Self>) {
        let limit = self.binding.shared.limit();
        let prepared = AssertUnwindSafe(timeout(limit, self.prepare())).catch_unwind().await;
        match prepared {
            Ok(Ok(Ok(controller))) => self.open(&controller),
            Ok(Ok(Err(error))) => self.fail(&error),
            Ok(Err(_elapsed)) => {
                let late = Error::new("the connect handlers took too long");
                self.fail(&late.with_code(Error::TIMEOUT));
            }
            Err(_panic) => {
                error!(controller = C::NAME, "connect handler panicked");
                self.fail(&Error::internal());
            }
        }
    }

    /// One connect handler after the other.
    async fn prepare(&self) -> Result<Arc<C>, Error> {
        let call = || Call::new(&self.socket, &Occurrence::Connect, &self.binding.shared);
        let created = C::create(&call())?;
        let controller = Arc::new(created.await?);
        for method in &self.binding.description.connect {
            let called = (method.invoke)(controller.clone(), &call())?;
            called.await?;
        }
        Ok(controller)
    }

    /// Starts what waited, in order. What comes meanwhile joins the queue, until it is empty.
    fn open(&self, controller: &Arc<C>) {
        loop {
            let mut phase = self.phase();
            let Phase::Connecting(waiting) = &mut *phase else { return };
            match waiting.next() {
                Next::Event(event) => {
                    drop(phase);
                    self.handle(controller, event);
                }
                Next::End(reason) => {
                    *phase = Phase::Over;
                    drop(phase);
                    return self.end(controller, reason);
                }
                Next::Nothing => {
                    *phase = Phase::Open(controller.clone());
                    return;
                }
            }
        }
    }

    /// Disconnects the socket with the error of its connect handlers. What waited goes unheard.
    fn fail(&self, error: &Error) {
        metrics::CONTROLLER_ERRORS.add(1);
        debug!(socket = %self.socket.id(), controller = C::NAME, %error, "connect handler failed");
        let waited = mem::replace(&mut *self.phase(), Phase::Over);
        drop(waited);
        self.socket.emit(EXCEPTION, error);
        self.socket.disconnect(false);
    }

    /// Starts each handler that the event is for; those that wait hold up nobody.
    fn handle(&self, controller: &Arc<C>, event: Incoming) {
        for found in event.matches {
            let method = self.binding.description.subscriptions[found.subscription].method;
            let reply = Reply {
                socket: self.socket.clone(),
                ack: Some(event.ack.clone()),
                is_by_pattern: found.is_by_pattern,
            };
            self.invoke(controller, method, event.occurrence.clone(), reply);
        }
    }

    fn end(&self, controller: &Arc<C>, reason: &'static str) {
        for method in &self.binding.description.disconnect {
            let reply = Reply { socket: self.socket.clone(), ack: None, is_by_pattern: false };
            self.invoke(controller, *method, Occurrence::Disconnect(reason), reply);
        }
    }

    fn invoke(
        &self,
        controller: &Arc<C>,
        method: super::Method<C>,
        occurrence: Occurrence,
        reply: Reply,
    ) {
        let shared = self.binding.shared.clone();
        let sequence = shared.sequence();
        let socket = self.socket.clone();
        let invocation = Invocation::new(controller.clone(), method, socket, occurrence, shared);
        self.socket.run_in_place(sequence.handle(invocation, reply));
    }

    fn refuse(&self, ack: &SharedAck) {
        metrics::CONTROLLER_ERRORS.add(1);
        debug!(socket = %self.socket.id(), controller = C::NAME, "too much waits for a connect");
        let error = Error::new("too many events before the connect handlers were done");
        let error = error.with_code(Error::OVERLOADED);
        let answer = to_payload(None, &serde_json::json!({"error": error}));
        ack.answer(&answer.expect("an error is a JSON object"));
    }

    fn phase(&self) -> MutexGuard<'_, Phase<C>> {
        self.phase.lock().expect("nothing panics while it holds a phase")
    }
}

impl<C: Controller> Companion for Instance<C> {
    fn handle_event(self: Arc<Self>, context: &Context<'_>, ack: &Arc<SharedAck>) -> bool {
        let Occasion::Event { name, payload, .. } = context.occasion else { return false };
        let matches = self.binding.index.find(name);
        if matches.is_empty() {
            return false;
        }
        let is_known = matches.iter().any(|found| !found.is_by_pattern);
        let attached: usize = payload.attachments.iter().map(|bytes| bytes.len()).sum();
        let bytes = payload.json.len() + attached;
        let occurrence = Occurrence::Event { name: name.into(), payload: payload.clone() };
        let event = Incoming { matches, occurrence, ack: ack.clone() };
        let mut phase = self.phase();
        match &mut *phase {
            Phase::Connecting(waiting) => {
                let pushed = waiting.push(event, bytes);
                drop(phase);
                if let Err(event) = pushed {
                    self.refuse(&event.ack);
                }
            }
            Phase::Open(controller) => {
                let controller = controller.clone();
                drop(phase);
                self.handle(&controller, event);
            }
            Phase::Over => {}
        }
        is_known
    }

    fn handle_end(self: Arc<Self>, reason: &'static str) {
        let mut phase = self.phase();
        match &mut *phase {
            Phase::Connecting(waiting) => waiting.end(reason),
            Phase::Open(controller) => {
                let controller = controller.clone();
                *phase = Phase::Over;
                drop(phase);
                self.end(&controller, reason);
            }
            Phase::Over => {}
        }
    }
}
