//! Messages in: a stream from each peer, read in turn into one queue.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use flotilla_proto::peers as proto;
use futures_util::stream::BoxStream;
use proto::peers_server::Peers as PeersRpc;
use tokio::sync::{Mutex as TurnMutex, mpsc};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};
use tracing::{Instrument, debug, debug_span};

use super::message::Inbound;
use super::wire::message_from_wire;
use super::{Me, VERSION};
use crate::metrics;
use crate::raft::state::{Incarnation, NodeId};

/// How long a caller may take to say hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// The gRPC service that peers' links call.
pub struct Service {
    me: Arc<Me>,
    inbound: mpsc::Sender<Vec<Inbound>>,
    sources: Arc<Sources>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

impl Service {
    pub(super) fn new(
        me: Arc<Me>,
        inbound: mpsc::Sender<Vec<Inbound>>,
        tasks: TaskTracker,
        shutdown: CancellationToken,
    ) -> Self {
        Self { me, inbound, sources: Arc::default(), tasks, shutdown }
    }
}

impl Me {
    /// Refuses whoever means another cluster, node or version, or an incarnation that is over.
    pub(super) fn check(&self, hello: &proto::Hello) -> Result<(), Status> {
        let refuse = |reason: String| Err(Status::failed_precondition(reason));
        let (cluster, incarnation) = (self.cluster(), self.incarnation());
        if hello.version != VERSION {
            return refuse(format!("version {} is not {VERSION}", hello.version));
        }
        if cluster == 0 {
            return Err(Status::unavailable("this node is in no cluster yet"));
        }
        if hello.cluster != cluster {
            return refuse(format!("cluster {:x} is not {cluster:x}", hello.cluster));
        }
        if hello.to != self.node {
            return refuse(format!("node {:x} is not {:x}", hello.to, self.node));
        }
        // The caller may have heard of this node's registration before the node itself.
        if hello.to_incarnation < incarnation {
            return refuse(format!("incarnation {} is over", hello.to_incarnation));
        }
        Ok(())
    }
}

#[tonic::async_trait]
impl PeersRpc for Service {
    type TalkStream = BoxStream<'static, Result<proto::Nothing, Status>>;

    async fn talk(
        &self,
        request: Request<Streaming<proto::Frame>>,
    ) -> Result<Response<Self::TalkStream>, Status> {
        let mut frames = request.into_inner();
        let first = timeout(HELLO_TIMEOUT, frames.message())
            .await
            .map_err(|_elapsed| Status::deadline_exceeded("no hello"))??;
        let hello = first
            .and_then(|frame| frame.hello)
            .ok_or_else(|| Status::invalid_argument("a stream opens with a hello"))?;
        self.me.check(&hello)?;
        let source = self.sources.open(hello.from, hello.from_incarnation, &self.shutdown)?;

        // Capacity 1: all it ever carries is how the stream ended. Its end is the link's end.
        let (ending, replies) = mpsc::channel(1);
        let reader = Reader { from: hello.from, frames, inbound: self.inbound.clone() };
        let sources = self.sources.clone();
        let span = debug_span!("peer", peer = hello.from);
        self.tasks.spawn(
            async move {
                let ended = source.read_in_turn(reader).await;
                sources.close(hello.from, &source);
                debug!(reason = ended.message(), "the peer's stream has ended");
                let _ = ending.try_send(Err(ended));
            }
            .instrument(span),
        );
        Ok(Response::new(Box::pin(ReceiverStream::new(replies))))
    }
}

/// The stream that each peer talks on: the newest one. An older one may still hold what its peer
/// has sent before it broke; it is cut off before the next is read, so that the order stands.
#[derive(Default)]
struct Sources(Mutex<BTreeMap<NodeId, Source>>);

#[derive(Clone)]
struct Source {
    incarnation: Incarnation,
    current: CancellationToken,
    /// Held by whoever reads.
    turn: Arc<TurnMutex<()>>,
    number: u64,
}

impl Sources {
    fn open(
        &self,
        from: NodeId,
        incarnation: Incarnation,
        shutdown: &CancellationToken,
    ) -> Result<Source, Status> {
        let mut sources = self.lock();
        let current = shutdown.child_token();
        let source = match sources.get(&from) {
            Some(newer) if newer.incarnation > incarnation => {
                return Err(Status::failed_precondition("a later incarnation is talking"));
            }
            Some(older) => {
                older.current.cancel();
                Source { incarnation, current, turn: older.turn.clone(), number: older.number + 1 }
            }
            None => Source { incarnation, current, turn: Arc::default(), number: 0 },
        };
        sources.insert(from, source.clone());
        Ok(source)
    }

    fn close(&self, from: NodeId, ended: &Source) {
        let mut sources = self.lock();
        if sources.get(&from).is_some_and(|source| source.number == ended.number) {
            sources.remove(&from);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, Source>> {
        self.0.lock().expect("nothing panics while it holds the sources")
    }
}

impl Source {
    /// Reads until the stream ends or another one takes its place, and says why it ended.
    async fn read_in_turn(&self, mut reader: Reader) -> Status {
        let _turn = self.turn.lock().await;
        match self.current.run_until_cancelled(reader.read()).await {
            Some(Ok(())) => Status::ok("the peer ended the stream"),
            Some(Err(status)) => status,
            None => Status::unavailable("this node is stopping, or the peer has a newer stream"),
        }
    }
}

struct Reader {
    from: NodeId,
    frames: Streaming<proto::Frame>,
    inbound: mpsc::Sender<Vec<Inbound>>,
}

impl Reader {
    /// Waits while the node's queue is full: the peer's own queue fills then, and it refuses.
    async fn read(&mut self) -> Result<(), Status> {
        while let Some(frame) = self.frames.message().await? {
            let mut batch = Vec::with_capacity(frame.messages.len());
            for message in frame.messages {
                if let Some(message) = message_from_wire(message)? {
                    batch.push(Inbound { from: self.from, message });
                }
            }
            metrics::PEER_MESSAGES_RECEIVED.add(batch.len() as u64);
            if self.inbound.send(batch).await.is_err() {
                return Err(Status::unavailable("this node is stopping"));
            }
        }
        Ok(())
    }
}
