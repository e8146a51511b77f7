//! Events that the application on one node emits to the application on the others.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::ack::AckEmit;
use super::extract::{Args, ExtractError};
use super::handler::{self, HandlerFuture};
use super::io::Io;
use super::namespace::NamespaceHandle;
use super::receipts::EmitError;
use super::remote;
use crate::adapter::{Adapter, Asked, Reply};
use crate::peers::Question;
use crate::raft::Receipt;
use crate::raft::state::NodeId;
use crate::socketio::{Payload, from_event, to_payload};

/// How long a server-side emit waits for answers if nothing else is said.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Events that the official server keeps for itself.
const RESERVED: [&str; 3] = ["connect", "connection", "new_namespace"];

pub(crate) type BoxServerHandler = Arc<dyn Fn(ServerEvent) -> HandlerFuture + Send + Sync>;

/// The handlers of a namespace for server-side events, by name.
pub(crate) type ServerHandlers = HashMap<Box<str>, Vec<BoxServerHandler>>;

/// An event from another node's application.
#[derive(Clone, Debug)]
pub struct ServerEvent {
    from: NodeId,
    namespace: NamespaceHandle,
    io: Io,
    payload: Payload,
    /// Shared by all handlers of the event, until one answers. Dropped by the last, it tells that
    /// there is no answer.
    reply: Arc<Mutex<Option<Reply>>>,
}

impl ServerEvent {
    /// The node that emitted it.
    pub fn from(&self) -> NodeId {
        self.from
    }

    pub fn namespace(&self) -> &NamespaceHandle {
        &self.namespace
    }

    pub fn io(&self) -> &Io {
        &self.io
    }

    /// The arguments, as a type: a tuple takes several, anything else the first one.
    pub fn data<T: DeserializeOwned>(&self) -> Result<T, ExtractError> {
        from_event(&self.payload).map_err(ExtractError::Shape)
    }

    /// The arguments as they came.
    pub fn args(&self) -> Args {
        Args { event: self.payload.clone() }
    }

    /// Whether the other node waits for an answer, and has none yet.
    pub fn wants_answer(&self) -> bool {
        self.reply().as_ref().is_some_and(Reply::is_wanted)
    }

    /// Answers the other node, unless another handler has. An event that all drop unanswered
    /// counts as one without answer.
    pub fn answer(self, args: &(impl Serialize + ?Sized)) -> Result<(), EmitError> {
        let payload = to_payload(None, args).map_err(EmitError::Encode)?;
        let reply = self.reply().take();
        if let Some(reply) = reply {
            reply.send(payload);
        }
        Ok(())
    }

    fn reply(&self) -> MutexGuard<'_, Option<Reply>> {
        self.reply.lock().expect("nothing panics while it holds a reply")
    }
}

pub(crate) fn boxed<F, Fut>(handler: F) -> BoxServerHandler
where
    F: Fn(ServerEvent) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    Arc::new(move |event| Box::pin(handler(event)))
}

/// Emits to all other nodes, to each behind what was emitted to it before.
pub(crate) fn emit(
    adapter: &Arc<Adapter>,
    event: &str,
    args: &(impl Serialize + ?Sized),
) -> Result<(), EmitError> {
    let payload = payload(event, args)?;
    let cluster = adapter.cluster();
    for node in cluster.other_nodes() {
        let question = Question::ServerEvent(payload.clone());
        cluster.tell_node(node, adapter.name().clone(), question);
    }
    Ok(())
}

/// The same, with one answer from each.
pub(crate) fn emit_with_ack(
    adapter: &Arc<Adapter>,
    event: &str,
    args: &(impl Serialize + ?Sized),
) -> AckEmit {
    let sent = payload(event, args).map(|payload| {
        let cluster = adapter.cluster();
        let others = cluster.other_nodes().into_iter();
        let asked = others.map(|node| (node, Question::ServerEvent(payload.clone()))).collect();
        (Receipt::done(), cluster.ask_nodes(adapter.name(), asked))
    });
    AckEmit::new(sent, ANSWER_TIMEOUT)
}

fn payload(event: &str, args: &(impl Serialize + ?Sized)) -> Result<Payload, EmitError> {
    if RESERVED.contains(&event) {
        return Err(EmitError::Reserved);
    }
    to_payload(Some(event), args).map_err(EmitError::Encode)
}

/// Answers what peers ask, in order, until the node ends.
pub(crate) async fn answer_questions(io: Io, mut questions: mpsc::Receiver<Asked>) {
    while let Some(Asked { from, namespace, question, reply }) = questions.recv().await {
        match (question, io.namespace(&namespace)) {
            // A namespace that is not here has nothing to say: the reply, dropped, tells.
            (Question::Details(_) | Question::ServerEvent(_), None) => {}
            (Question::Details(sockets), Some(namespace)) => {
                let details = remote::local_details(&namespace.adapter, &sockets);
                if let Ok(payload) = to_payload(None, &(details,)) {
                    reply.send(payload);
                }
            }
            (Question::ServerEvent(payload), Some(namespace)) => {
                let namespace = NamespaceHandle(namespace);
                let reply = Arc::new(Mutex::new(Some(reply)));
                call(&ServerEvent { from, namespace, io: io.clone(), payload, reply });
            }
        }
    }
}

/// Calls the handlers of an event; without any, its reply is dropped.
fn call(event: &ServerEvent) {
    let Some(name) = event.payload.event_name() else { return };
    let handlers = event.namespace.0.handlers();
    for handler in handlers.server_events.get(&*name).into_iter().flatten() {
        handler::call_in_place(|| handler(event.clone()), event.io.cluster());
    }
}
