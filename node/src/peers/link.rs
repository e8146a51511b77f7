//! The way to one peer: a stream, opened again whenever it breaks.

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use flotilla_proto::peers as proto;
use futures_util::{Stream, StreamExt, stream};
use prost::Message as _;
use proto::peers_client::PeersClient;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::transport::Channel;
use tracing::{debug, info, warn};

use super::message::Message;
use super::queue::Queue;
use super::wire::message_to_wire;
use super::{Me, Member, PeersConfig, SendError, VERSION};
use crate::metrics;
use crate::net::Dialer;

/// How long a peer may take to answer a hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// Pauses between attempts: the first, then twice the last, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What others hold of the way to one incarnation of a peer. Its task, [`run`](Self::run), owns
/// the stream.
#[derive(Debug)]
pub(super) struct Link {
    to: Member,
    queue: Queue,
    stop: CancellationToken,
}

impl Link {
    pub(super) fn new(to: Member, config: &PeersConfig, stop: CancellationToken) -> Self {
        Self { to, queue: Queue::new(config), stop }
    }

    pub(super) fn to(&self) -> &Member {
        &self.to
    }

    pub(super) fn send(&self, message: Message) -> Result<(), SendError> {
        self.queue.push(message)
    }

    /// The peer listens at the moment.
    pub(super) fn is_up(&self) -> bool {
        self.queue.is_open()
    }

    pub(super) fn queue_bytes(&self) -> usize {
        self.queue.bytes()
    }

    /// Ends the task; what still waits is dropped.
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }

    /// Keeps a stream to the peer until the link is stopped.
    pub(super) async fn run(self: Arc<Self>, me: Arc<Me>, dialer: Dialer) {
        let channel = match dialer.channel(&self.to.address) {
            Ok(channel) => channel,
            Err(error) => return warn!(%error, "cannot reach the peer"),
        };
        self.stop.run_until_cancelled(self.keep_talking(&me, &channel)).await;
        self.queue.close();
        debug!("the link to the peer is stopped");
    }

    async fn keep_talking(self: &Arc<Self>, me: &Me, channel: &Channel) {
        let mut pause = FIRST_PAUSE;
        let mut has_warned = false;
        loop {
            match self.talk(me, channel.clone()).await {
                Ok(ended) => {
                    warn!(reason = ended.message(), "lost the link to the peer");
                    pause = FIRST_PAUSE;
                    has_warned = true;
                }
                // A peer that has just started may not have heard yet that it is a member.
                Err(refused) if has_warned || pause < LONGEST_PAUSE => {
                    debug!(reason = refused.message(), "the peer is out of reach");
                }
                Err(refused) => {
                    warn!(reason = refused.message(), "the peer is out of reach");
                    has_warned = true;
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Opens a stream and sends what waits, until the stream ends. `Err`: it was never open.
    pub(super) async fn talk(
        self: &Arc<Self>,
        me: &Me,
        channel: Channel,
    ) -> Result<Status, Status> {
        let (welcome, welcomed) = oneshot::channel();
        let outgoing = self.clone().outgoing(me.hello(&self.to), welcomed);
        let mut client = PeersClient::new(channel);
        let answer = timeout(HELLO_TIMEOUT, client.talk(outgoing)).await;
        let answer =
            answer.map_err(|_elapsed| Status::deadline_exceeded("no answer to a hello"))?;
        let mut replies = answer?.into_inner();

        info!("the link to the peer is up");
        // The stream was opened by this very task, so that nobody has ended it yet.
        let _ = welcome.send(self.queue.open());
        let ended = loop {
            match replies.message().await {
                Ok(Some(proto::Nothing {})) => {}
                Ok(None) => break Status::ok("the peer ended the stream"),
                Err(status) => break status,
            }
        };
        self.queue.close();
        Ok(ended)
    }

    /// A hello, and from the welcome on everything that is queued: at each turn all that waits,
    /// as one frame.
    ///
    /// The stream is polled only while HTTP/2's flow control lets it send, so the queue fills
    /// when the peer is slow. What it has taken when it breaks is lost.
    fn outgoing(
        self: Arc<Self>,
        hello: proto::Hello,
        welcomed: oneshot::Receiver<u64>,
    ) -> impl Stream<Item = proto::Frame> {
        let opening = proto::Frame { hello: Some(hello), messages: Vec::new() };
        let frames = stream::once(welcomed).filter_map(|stream| ready(stream.ok())).flat_map(
            move |number| {
                stream::unfold(self.clone(), move |link| async move {
                    let messages = link.queue.take(number).await?;
                    Some((frame(messages), link))
                })
            },
        );
        stream::once(ready(opening)).chain(frames)
    }
}

fn frame(messages: Vec<Message>) -> proto::Frame {
    let messages = messages.into_iter().map(message_to_wire).collect();
    let frame = proto::Frame { hello: None, messages };
    metrics::PEER_MESSAGES_SENT.add(frame.messages.len() as u64);
    metrics::PEER_SENT_BYTES.add(frame.encoded_len() as u64);
    frame
}

impl Me {
    pub(super) fn hello(&self, to: &Member) -> proto::Hello {
        proto::Hello {
            version: VERSION,
            cluster: self.cluster(),
            from: self.node,
            from_incarnation: self.incarnation(),
            to: to.node,
            to_incarnation: to.incarnation,
        }
    }
}
