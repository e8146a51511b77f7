//! HTTP long-polling: packets to the client in answers to GET, packets from it in bodies of POST.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::adapter::Encoded;
use crate::engineio::v3::{self, Form, Piece};
use crate::engineio::{Encoding, EngineConfig, Revision, payload};
use crate::metrics;

use super::body::RequestBody;
use super::websocket::WebSocket;

/// What HTTP requests ask of a connection's task.
pub(crate) enum Command {
    /// A GET came: it wants packets.
    Poll(oneshot::Sender<PollAnswer>),
    /// A POST came: its body follows, unless the client goes away.
    Post(Post),
    /// A WebSocket is coming: where does it go? One that is not wanted gets no answer.
    WebSocket(oneshot::Sender<Place>),
    /// The node that the open poll came through stops: the poll ends, and the connection goes on.
    Release,
}

/// Where a WebSocket goes that was announced. It is before its client hears that it may come, and so before any request
/// that the client sends later.
pub(crate) type Place = oneshot::Sender<Arrival>;

/// A WebSocket, and what its client has sent already.
pub(crate) type Arrival = (Box<WebSocket>, Bytes);

pub(crate) struct Post {
    pub(crate) body: oneshot::Receiver<PostBody>,
    pub(crate) answer: oneshot::Sender<PostAnswer>,
}

/// The packets of a response, and whether any of them is worth compressing it.
#[derive(Debug)]
pub(crate) struct PacketsBody {
    bytes: Vec<u8>,
    is_compressible: bool,
}

/// Marks a response that is sent as it is, whatever its length.
#[derive(Clone, Copy)]
pub(crate) struct Uncompressed;

#[derive(Debug)]
pub(crate) enum PollAnswer {
    Packets(PacketsBody),
    /// Another poll is open.
    Overlap,
}

#[derive(Debug)]
pub(crate) enum PostBody {
    Complete(Bytes),
    /// The body was too long and is dropped; the connection goes on.
    Refused,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PostAnswer {
    Taken,
    /// Overlap, or not made of packets.
    Refused,
}

/// Requests that wait for the connection's task. A client sends two at a time; when more come,
/// their senders wait.
pub(crate) const COMMANDS: usize = 4;

/// The open requests of a connection that polls.
pub(crate) struct Polling {
    commands: mpsc::Receiver<Command>,
    poll: Option<oneshot::Sender<PollAnswer>>,
    post: Option<Post>,
    encoding: Encoding,
    /// A WebSocket that will want to take over.
    announced: Option<oneshot::Receiver<Arrival>>,
    /// A WebSocket that wants to take over.
    pub(crate) probe: Option<Box<WebSocket>>,
    /// What the transport itself sends, such as a ping.
    pub(crate) pending: VecDeque<Arc<Encoded>>,
}

/// What happened to a connection's requests.
pub(crate) enum Happening {
    Command(Command),
    /// The body, or nothing if its client went away.
    PostBody(Option<PostBody>),
    PollAborted,
    /// The announced WebSocket probes, and its client has sent this already; or the client went away.
    Arrived(Option<Bytes>),
}

impl Polling {
    pub(crate) fn new(commands: mpsc::Receiver<Command>, encoding: Encoding) -> Self {
        Self {
            commands,
            poll: None,
            post: None,
            encoding,
            announced: None,
            probe: None,
            pending: VecDeque::new(),
        }
    }

    pub(crate) fn encoding(&self) -> Encoding {
        self.encoding
    }

    pub(crate) fn poll_happening(&mut self, context: &mut Context<'_>) -> Poll<Happening> {
        if let Some(announced) = &mut self.announced
            && let Poll::Ready(arrival) = Pin::new(announced).poll(context)
        {
            self.announced = None;
            let arrived = arrival.ok().map(|(websocket, read_ahead)| {
                self.probe = Some(websocket);
                read_ahead
            });
            return Poll::Ready(Happening::Arrived(arrived));
        }
        if let Poll::Ready(Some(command)) = self.commands.poll_recv(context) {
            return Poll::Ready(Happening::Command(command));
        }
        if let Some(post) = &mut self.post
            && let Poll::Ready(body) = Pin::new(&mut post.body).poll(context)
        {
            return Poll::Ready(Happening::PostBody(body.ok()));
        }
        if let Some(poll) = &mut self.poll {
            ready!(poll.poll_closed(context));
            return Poll::Ready(Happening::PollAborted);
        }
        Poll::Pending
    }

    pub(crate) fn has_poll(&self) -> bool {
        self.poll.is_some()
    }

    /// Makes room for a WebSocket that will probe.
    pub(crate) fn expect_probe(&mut self) -> Place {
        let (place, announced) = oneshot::channel();
        self.announced = Some(announced);
        place
    }

    /// The WebSocket that probes, or has come to probe. One that has not come yet is not awaited any more.
    pub(crate) fn take_probe(&mut self) -> Option<Box<WebSocket>> {
        if let Some(mut announced) = self.announced.take() {
            announced.close();
            self.probe = announced.try_recv().ok().map(|(websocket, _read_ahead)| websocket);
        }
        self.probe.take()
    }

    pub(crate) fn take_post(&mut self) -> Option<Post> {
        self.post.take()
    }

    pub(crate) fn open_poll(&mut self, poll: oneshot::Sender<PollAnswer>) {
        self.poll = Some(poll);
    }

    pub(crate) fn open_post(&mut self, post: Post) {
        self.post = Some(post);
    }

    pub(crate) fn answer_post(&mut self, answer: PostAnswer) {
        if let Some(post) = self.post.take() {
            // The client may have gone away meanwhile; it will be missed by its next poll.
            let _ = post.answer.send(answer);
        }
    }

    /// Answers the open poll with `packets` and `last`.
    pub(crate) fn answer_poll(
        &mut self,
        packets: VecDeque<Arc<Encoded>>,
        last: Option<&Encoded>,
        now: Instant,
    ) {
        let Some(poll) = self.poll.take() else { return };
        metrics::PACKETS_SENT.add(packets.len() as u64);
        let form = form(self.encoding, &packets);
        let is_compressible = packets.iter().any(|packet| packet.is_compressible());
        let mut body = Vec::new();
        metrics::DELIVERY_DELAY.record_all(packets.into_iter().filter_map(|packet| {
            append(&packet, form, &mut body);
            packet.delay(now)
        }));
        if let Some(last) = last {
            append(last, form, &mut body);
        }
        metrics::SENT_BYTES.add(body.len() as u64);
        // A client that went away just now loses them, as with the official server.
        let body = PacketsBody { bytes: body, is_compressible };
        let _ = poll.send(PollAnswer::Packets(body));
    }
}

/// The form of a body in revision 3: bytes make all of it the form of bytes, for a client that takes it.
fn form(encoding: Encoding, packets: &VecDeque<Arc<Encoded>>) -> Option<Form> {
    match encoding {
        Encoding::V4 => None,
        Encoding::V3Bytes if packets.iter().any(|packet| packet.has_bytes()) => Some(Form::Bytes),
        Encoding::V3Bytes | Encoding::V3Text => Some(Form::Text),
    }
}

fn append(packet: &Encoded, form: Option<Form>, body: &mut Vec<u8>) {
    match form {
        None => payload::append(packet.polling(), body),
        Some(form) => body.extend_from_slice(packet.polling_v3(form)),
    }
}

/// A body of the open packet alone.
pub(crate) fn open_body(open: String, encoding: Encoding) -> Vec<u8> {
    if encoding.revision() == Revision::V4 {
        return open.into_bytes();
    }
    let mut body = Vec::with_capacity(open.len() + 4);
    v3::append(Piece::Text(open.as_bytes()), Form::Text, &mut body);
    body
}

/// Answers a GET once there are packets; none if the connection has no place for polls any more.
pub(crate) async fn poll(commands: &mpsc::Sender<Command>) -> Option<Response<Full<Bytes>>> {
    let (answer, answered) = oneshot::channel();
    commands.send(Command::Poll(answer)).await.ok()?;
    Some(match answered.await.ok()? {
        PollAnswer::Packets(PacketsBody { bytes, is_compressible }) => {
            let mut response = packets_response(bytes);
            if !is_compressible {
                response.extensions_mut().insert(Uncompressed);
            }
            response
        }
        PollAnswer::Overlap => empty(StatusCode::BAD_REQUEST),
    })
}

/// Announces a WebSocket; no place for it if it is not wanted.
pub(crate) async fn announce(commands: &mpsc::Sender<Command>) -> Option<Place> {
    let (answer, answered) = oneshot::channel();
    commands.send(Command::WebSocket(answer)).await.ok()?;
    answered.await.ok()
}

/// A response whose body is one or more packets.
pub(crate) fn packets_response(body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let body = body.into();
    // Revision 3's form of bytes is the only one that begins with a byte that is no text.
    let is_bytes = body.first().is_some_and(|byte| *byte <= 1);
    let content_type = if is_bytes { OCTET_STREAM } else { TEXT_PLAIN };
    let mut response = Response::new(Full::new(body));
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response.headers_mut().insert(header::CACHE_CONTROL, NO_STORE);
    response
}

const TEXT_PLAIN: HeaderValue = HeaderValue::from_static("text/plain; charset=UTF-8");
const OCTET_STREAM: HeaderValue = HeaderValue::from_static("application/octet-stream");
const TEXT_HTML: HeaderValue = HeaderValue::from_static("text/html");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

pub(crate) fn empty(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

/// Takes the packets of a POST; none if the connection has no place for them any more.
pub(crate) async fn post(
    commands: &mpsc::Sender<Command>,
    headers: &HeaderMap,
    body: RequestBody,
    revision: Revision,
    config: &EngineConfig,
) -> Option<Response<Full<Bytes>>> {
    let (body_sender, body_receiver) = oneshot::channel();
    let (answer, answered) = oneshot::channel();
    commands.send(Command::Post(Post { body: body_receiver, answer })).await.ok()?;
    // Bytes travel as base64 in revision 4 (Engine.IO v4, "Payload"). Dropping the sender here and
    // below is what tells the connection that no body will come.
    let is_bytes = headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind == OCTET_STREAM);
    if is_bytes && revision == Revision::V4 {
        metrics::PROTOCOL_ERRORS.packet.add(1);
        return Some(empty(StatusCode::BAD_REQUEST));
    }
    // Whoever is slower than this misses its heartbeat anyway.
    let timeout = config.ping_interval + config.ping_timeout;
    match tokio::time::timeout(timeout, read_body(headers, body, config.max_payload_bytes)).await {
        Ok(Ok(body)) => {
            metrics::RECEIVED_BYTES.add(body.len() as u64);
            let _ = body_sender.send(PostBody::Complete(body));
        }
        Ok(Err(BodyError::TooLong)) => {
            metrics::PROTOCOL_ERRORS.too_long.add(1);
            let _ = body_sender.send(PostBody::Refused);
            return Some(empty(StatusCode::PAYLOAD_TOO_LARGE));
        }
        Ok(Err(BodyError::Lost)) => return Some(empty(StatusCode::BAD_REQUEST)),
        Err(_elapsed) => {
            metrics::PROTOCOL_ERRORS.slow_request.add(1);
            return Some(empty(StatusCode::REQUEST_TIMEOUT));
        }
    }
    Some(match answered.await.ok()? {
        PostAnswer::Taken => taken(),
        PostAnswer::Refused => empty(StatusCode::BAD_REQUEST),
    })
}

/// The official server's answer: some browsers offer a download for other types.
fn taken() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from("ok"));
    response.headers_mut().insert(header::CONTENT_TYPE, TEXT_HTML);
    response.headers_mut().insert(header::CACHE_CONTROL, NO_STORE);
    response
}

enum BodyError {
    TooLong,
    Lost,
}

async fn read_body(
    headers: &HeaderMap,
    mut body: RequestBody,
    max_bytes: usize,
) -> Result<Bytes, BodyError> {
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|len| len.to_str().ok());
    if announced.and_then(|len| len.parse::<usize>().ok()).is_some_and(|len| len > max_bytes) {
        discard(body, max_bytes).await;
        return Err(BodyError::TooLong);
    }
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| BodyError::Lost)?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > max_bytes {
            discard(body, max_bytes).await;
            return Err(BodyError::TooLong);
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.into())
}

/// Reads on for a while, for a client sees an answer only if its request was not cut off.
async fn discard(mut body: RequestBody, max_bytes: usize) {
    let mut discarded = 0;
    while let Some(Ok(frame)) = body.frame().await
        && discarded <= max_bytes
    {
        discarded += frame.data_ref().map_or(0, Bytes::len);
    }
}
