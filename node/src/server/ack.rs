//! Acks in both directions.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::extract::Args;
use super::receipts::EmitError;
use super::socket::Socket;
use crate::adapter::Gathering;
use crate::raft::Receipt;
use crate::socketio::codec::Kind;
use crate::socketio::{Payload, from_ack, to_payload};

/// Whether an event has its answer, where several handlers may give one. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Answered(Arc<AtomicBool>);

impl Answered {
    /// True for whoever is first.
    fn claim(&self) -> bool {
        !self.0.swap(true, Ordering::Relaxed)
    }
}

/// The client's wish for an ack of its event, if it has one. Of several handlers' answers to one
/// event the first is sent; the others are dropped.
#[derive(Debug)]
pub struct Ack {
    socket: Socket,
    id: Option<u64>,
    answered: Option<Answered>,
}

impl Ack {
    pub(crate) fn new(socket: Socket, id: Option<u64>, answered: Option<Answered>) -> Self {
        Self { socket, id, answered }
    }

    /// Whether the client asked for an ack.
    pub fn is_wanted(&self) -> bool {
        self.id.is_some()
    }

    /// Answers the client; a tuple is several arguments. Nothing happens if it did not ask.
    pub fn send(self, args: &(impl Serialize + ?Sized)) -> Result<(), EmitError> {
        if self.id.is_none() {
            return Ok(());
        }
        let payload = to_payload(None, args).map_err(EmitError::Encode)?;
        self.send_payload(&payload);
        Ok(())
    }

    /// Answers the client with arguments as they are.
    pub fn send_payload(self, payload: &Payload) {
        self.send_pieces(&[&payload.json], &payload.attachments);
    }

    /// Answers the client with an event's arguments as they came.
    pub fn send_args(self, args: &Args) {
        self.send_pieces(&["[", args.text(), "]"], &args.event.attachments);
    }

    fn send_pieces(self, json: &[&str], attachments: &[Bytes]) {
        // A client that was disconnected meanwhile awaits nothing any more.
        if let Some(id) = self.id
            && self.socket.is_connected()
            && self.answered.is_none_or(|answered| answered.claim())
        {
            let adapter = &self.socket.namespace_inner().adapter;
            let packet =
                adapter.encoder().pieces(Kind::Ack, adapter.name(), Some(id), json, attachments);
            self.socket.push(packet);
        }
    }
}

/// Why an emit with ack has no answer.
#[derive(Debug, thiserror::Error)]
pub enum AckError {
    /// The emit itself failed.
    #[error(transparent)]
    Emit(#[from] EmitError),
    /// Not all that were meant could be asked, or answered in time; the answers of those that did.
    #[error("operation has timed out")]
    Partial { answers: Vec<Payload> },
    /// The socket is gone, or there was none.
    #[error("nobody to answer")]
    Gone,
    /// The answer is not of the wanted shape.
    #[error("answer has another shape")]
    Shape(#[source] serde_json::Error),
}

/// An emit whose recipients answer. It was sent when it was made; awaiting it yields the answers,
/// one for each recipient.
#[derive(Debug)]
#[must_use = "the answers are dropped with it; to ask for none, use emit"]
pub struct AckEmit {
    sent: Result<(Receipt, Gathering), EmitError>,
    timeout: Duration,
}

impl AckEmit {
    pub(crate) fn new(sent: Result<(Receipt, Gathering), EmitError>, timeout: Duration) -> Self {
        Self { sent, timeout }
    }

    /// How long it waits, in place of what was said before.
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// The answers' payloads, one for each recipient. The timeout begins once the emit is agreed.
    pub async fn answers(self) -> Result<Vec<Payload>, AckError> {
        let (receipt, gathering) = self.sent?;
        receipt.await.map_err(EmitError::from)?;
        let answers = gathering.answers(self.timeout).await;
        if answers.is_complete {
            Ok(answers.answers)
        } else {
            Err(AckError::Partial { answers: answers.answers })
        }
    }

    /// The one answer of an emit to one socket.
    pub async fn answer<T: DeserializeOwned>(self) -> Result<T, AckError> {
        let answers = self.answers().await?;
        let answer = answers.first().ok_or(AckError::Gone)?;
        from_ack(answer).map_err(AckError::Shape)
    }
}

impl IntoFuture for AckEmit {
    type Output = Result<Vec<Payload>, AckError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.answers())
    }
}
