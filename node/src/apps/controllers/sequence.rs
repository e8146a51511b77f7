//! What is done with an event: invoke its handler, then send what it returned, or reject.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::FutureExt as _;
use serde::Serialize;
use tracing::{debug, error};

use super::call::{Call, Occurrence};
use super::controller::{Invoked, Method};
use super::error::Error;
use super::server::Shared;
use crate::metrics;
use crate::server::{EmitError, SharedAck, Socket};
use crate::socketio::{Payload, Raw, to_payload};

/// Replaceable steps of an event, the same for all controllers of a server: see
/// [`SocketServer::sequence`](super::SocketServer::sequence).
///
/// Each has a default. A sequence that logs what takes long, for example, overrides `invoke`:
///
/// ```
/// use flotilla::apps::controllers::{Error, Invocation, Output, Sequence};
///
/// struct Logged;
///
/// impl Sequence for Logged {
///     async fn invoke(&self, invocation: Invocation) -> Result<Output, Error> {
///         let what = format!("{}.{}", invocation.controller(), invocation.method());
///         let returned = invocation.proceed().await;
///         println!("{what}: {}", if returned.is_ok() { "done" } else { "failed" });
///         returned
///     }
/// }
/// ```
pub trait Sequence: Send + Sync + 'static {
    /// The whole of it: invokes, then sends or rejects.
    fn handle(&self, invocation: Invocation, reply: Reply) -> impl Future<Output = ()> + Send {
        async move {
            match self.invoke(invocation).await {
                Ok(output) => self.send(output, reply).await,
                Err(error) => self.reject(error, reply).await,
            }
        }
    }

    /// Calls the handler.
    fn invoke(&self, invocation: Invocation) -> impl Future<Output = Result<Output, Error>> + Send {
        invocation.proceed()
    }

    /// Acks with `{"result": value}`, or `{}` for nothing.
    ///
    /// A handler by pattern that returns nothing leaves the ack to the others that the event is
    /// for: an observer of all events does not take it from those who answer.
    fn send(&self, output: Output, reply: Reply) -> impl Future<Output = ()> + Send {
        async move {
            let answer = Envelope { result: output.value(), error: None };
            let sent = if output.value().is_none() && reply.is_by_pattern() {
                reply.send_last(&answer)
            } else {
                reply.send(&answer)
            };
            sent.expect("what a handler returned has become JSON before");
        }
    }

    /// Acks with `{"error": {"message", …}}`. Where no ack is wanted the error is counted, and logged
    /// at `debug`.
    fn reject(&self, error: Error, reply: Reply) -> impl Future<Output = ()> + Send {
        async move {
            if !reply.is_wanted() {
                metrics::CONTROLLER_ERRORS.add(1);
                debug!(socket = %reply.socket.id(), %error, "a handler failed unheard");
            }
            let answer = Envelope { result: None, error: Some(&error) };
            reply.send(&answer).expect("an error is a JSON object");
        }
    }
}

#[derive(Serialize)]
struct Envelope<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'a Raw>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a Error>,
}

/// The sequence of a server that was given no other.
#[derive(Clone, Copy, Debug, Default)]
pub struct DefaultSequence;

impl Sequence for DefaultSequence {}

/// A sequence whose type is hidden.
pub(super) trait AnySequence: Send + Sync {
    fn handle(self: Arc<Self>, invocation: Invocation, reply: Reply) -> Handled;
}

pub(super) type Handled = Pin<Box<dyn Future<Output = ()> + Send>>;

impl<S: Sequence> AnySequence for S {
    fn handle(self: Arc<Self>, invocation: Invocation, reply: Reply) -> Handled {
        Box::pin(async move { Sequence::handle(&*self, invocation, reply).await })
    }
}

/// A call of a handler that is yet to be made.
pub struct Invocation {
    socket: Socket,
    occurrence: Occurrence,
    shared: Arc<Shared>,
    controller: &'static str,
    method: &'static str,
    call: BoxCall,
}

type BoxCall = Box<dyn FnOnce(&Call<'_>) -> Result<Invoked, Error> + Send>;

impl Invocation {
    pub(super) fn new<C: super::Controller>(
        controller: Arc<C>,
        method: Method<C>,
        socket: Socket,
        occurrence: Occurrence,
        shared: Arc<Shared>,
    ) -> Self {
        let call = Box::new(move |call: &Call<'_>| (method.invoke)(controller, call));
        Self { socket, occurrence, shared, controller: C::NAME, method: method.name, call }
    }

    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// The type of the controller.
    pub fn controller(&self) -> &'static str {
        self.controller
    }

    /// The name of the handler.
    pub fn method(&self) -> &'static str {
        self.method
    }

    /// What the handler is called for.
    pub fn occurrence(&self) -> &Occurrence {
        &self.occurrence
    }

    /// The event that the handler is called for, by its name; a disconnect is none.
    pub fn event(&self) -> Option<(&str, &Payload)> {
        match &self.occurrence {
            Occurrence::Event { name, payload } => Some((name, payload)),
            Occurrence::Connect | Occurrence::Disconnect(_) => None,
        }
    }

    /// Calls the handler with what its parameters ask for. One that panics has failed.
    pub async fn proceed(self) -> Result<Output, Error> {
        let Self { socket, occurrence, shared, controller, method, call } = self;
        let called = async move {
            let returned = call(&Call::new(&socket, &occurrence, &shared))?;
            returned.await
        };
        AssertUnwindSafe(called).catch_unwind().await.unwrap_or_else(|_panic| {
            error!(controller, method, "handler panicked");
            Err(Error::internal())
        })
    }
}

/// What a handler returned: a value, binary or not, or nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output(Option<Raw>);

impl Output {
    /// `()` is nothing, and so is every other type without a value in it; `None` is `null`.
    pub fn new<T: Serialize>(value: &T) -> Result<Self, Error> {
        let payload = to_payload(None, &(value,)).map_err(|error| {
            error!(%error, "what a handler returned is no JSON");
            Error::internal()
        })?;
        let element = payload.elements().next().unwrap_or("null");
        let is_nothing = size_of::<T>() == 0 && element == "null";
        Ok(Self((!is_nothing).then(|| payload.raw(element))))
    }

    pub fn nothing() -> Self {
        Self(None)
    }

    pub fn value(&self) -> Option<&Raw> {
        self.0.as_ref()
    }
}

/// The client's wish for an ack, which is answered once, by whichever handler is first.
#[derive(Debug)]
pub struct Reply {
    pub(super) socket: Socket,
    /// A disconnect has none.
    pub(super) ack: Option<Arc<SharedAck>>,
    pub(super) is_by_pattern: bool,
}

impl Reply {
    /// Whether the client asked for an ack.
    pub fn is_wanted(&self) -> bool {
        self.ack.as_ref().is_some_and(|ack| ack.is_wanted())
    }

    /// Whether the handler subscribed by a regular expression, and not by the event's name.
    pub fn is_by_pattern(&self) -> bool {
        self.is_by_pattern
    }

    /// Answers, unless another handler has; a tuple is several arguments.
    pub fn send(self, args: &(impl Serialize + ?Sized)) -> Result<(), EmitError> {
        self.encoded(args, |ack, answer| ack.answer(&answer))
    }

    /// Answers if no other handler does, once all are through.
    pub fn send_last(self, args: &(impl Serialize + ?Sized)) -> Result<(), EmitError> {
        self.encoded(args, |ack, answer| ack.answer_last(answer))
    }

    fn encoded(
        self,
        args: &(impl Serialize + ?Sized),
        send: impl FnOnce(&SharedAck, Payload),
    ) -> Result<(), EmitError> {
        if let Some(ack) = self.ack.filter(|ack| ack.is_wanted()) {
            send(&ack, to_payload(None, args).map_err(EmitError::Encode)?);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::json;

    use super::*;
    use crate::socketio::Binary;

    fn enveloped<T: Serialize>(value: &T) -> Payload {
        let output = Output::new(value).unwrap();
        to_payload(None, &Envelope { result: output.value(), error: None }).unwrap()
    }

    #[test]
    fn value_is_the_result_and_nothing_is_no_result() {
        assert_eq!(enveloped(&7).json, r#"[{"result":7}]"#);
        assert_eq!(enveloped(&(1, "a")).json, r#"[{"result":[1,"a"]}]"#);
        assert_eq!(enveloped(&None::<u8>).json, r#"[{"result":null}]"#);
        assert_eq!(enveloped(&json!({"a": []})).json, r#"[{"result":{"a":[]}}]"#);
        assert_eq!(enveloped(&()).json, "[{}]");
    }

    #[test]
    fn binary_results_are_attached() {
        let payload = enveloped(&("a", Binary(Bytes::from_static(b"xyz"))));
        assert_eq!(payload.json, r#"[{"result":["a",{"_placeholder":true,"num":0}]}]"#);
        assert_eq!(payload.attachments, ["xyz"]);
    }

    #[test]
    fn value_that_is_no_json_is_the_applications_fault() {
        let value = std::collections::HashMap::from([([1, 2], 3)]);
        assert_eq!(Output::new(&value), Err(Error::internal()));
    }

    #[test]
    fn error_is_enveloped() {
        let error = Error::new("no").with_code("E_X");
        let payload = to_payload(None, &Envelope { result: None, error: Some(&error) }).unwrap();
        assert_eq!(payload.json, r#"[{"error":{"message":"no","code":"E_X"}}]"#);
    }
}
