//! Raft calls out.

mod merging;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use flotilla_proto::raft as proto;
use flotilla_proto::raft::raft_client::RaftClient;
use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{
    Backoff, NetBackoff, NetSnapshot, NetStreamAppend, NetTransferLeader, NetVote, RPCOption,
};
use openraft::raft::{
    AppendEntriesRequest, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, RaftNetworkFactory};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::AsciiMetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};

use super::early_commit::{Lookout, Pair};
use super::gather::Gather;
use super::state::NodeId;
use super::types::{Member, Snapshot, TypeConfig, Vote};
use super::wire;
use crate::net::Dialer;
use merging::{Outgoing, merged};

pub(crate) const CLUSTER_KEY: &str = "flotilla-cluster";
pub(crate) const TO_KEY: &str = "flotilla-to";

/// The largest message taken: one entry may be as large as the largest change, and a message
/// carries many.
pub(crate) const MAX_MESSAGE_BYTES: usize = 64 << 20;

/// How long a broken stream is waited on before it is opened again. openraft's own backoff is not
/// reached when opening fails, and without this pause it would spin.
const SETUP_PAUSE: Duration = Duration::from_millis(50);

const SNAPSHOT_CHUNK: usize = 1 << 20;

pub(crate) type Client = RaftClient<InterceptedService<Channel, Identify>>;

/// Tells the called node whom the caller means.
#[derive(Clone, Debug)]
pub(crate) struct Identify {
    cluster: AsciiMetadataValue,
    to: AsciiMetadataValue,
}

impl Interceptor for Identify {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert(CLUSTER_KEY, self.cluster.clone());
        request.metadata_mut().insert(TO_KEY, self.to.clone());
        Ok(request)
    }
}

/// Calls of one kind share a connection, so that none waits behind another's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Lane {
    Replication,
    /// Heartbeats and votes.
    Heartbeat,
    Snapshot,
    /// Proposals, leases, joining.
    Requests,
}

/// The way to every node.
#[derive(Debug)]
pub(crate) struct Directory {
    pub(crate) me: NodeId,
    cluster: AtomicU64,
    dialer: Dialer,
    /// Where nodes said they are; newer than the membership if they moved since.
    addresses: Mutex<HashMap<NodeId, String>>,
    channels: Mutex<HashMap<(String, Lane), Channel>>,
}

impl Directory {
    pub(crate) fn new(me: NodeId, cluster: u64, dialer: Dialer) -> Self {
        Self {
            me,
            cluster: AtomicU64::new(cluster),
            dialer,
            addresses: Mutex::default(),
            channels: Mutex::default(),
        }
    }

    pub(crate) fn cluster(&self) -> u64 {
        self.cluster.load(Ordering::Acquire)
    }

    pub(crate) fn set_cluster(&self, cluster: u64) {
        self.cluster.store(cluster, Ordering::Release);
    }

    pub(crate) fn learn(&self, node: NodeId, address: &str) {
        let mut addresses = self.addresses.lock().expect("nothing panics while it holds it");
        addresses.insert(node, address.to_owned());
    }

    fn address(&self, node: NodeId, otherwise: &str) -> String {
        let addresses = self.addresses.lock().expect("nothing panics while it holds it");
        addresses.get(&node).map_or_else(|| otherwise.to_owned(), Clone::clone)
    }

    /// A client of `node`, which the membership knows at `address`.
    pub(crate) fn client(&self, node: NodeId, address: &str, lane: Lane) -> io::Result<Client> {
        let channel = self.channel(&self.address(node, address), lane)?;
        let identify = Identify {
            cluster: AsciiMetadataValue::from(self.cluster()),
            to: AsciiMetadataValue::from(node),
        };
        Ok(RaftClient::with_interceptor(channel, identify)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES))
    }

    /// A client of whoever is at `address`.
    pub(crate) fn stranger(&self, address: &str) -> io::Result<RaftClient<Channel>> {
        Ok(RaftClient::new(self.channel(address, Lane::Requests)?))
    }

    /// A client of whoever is where `node` should be, which the membership knows at `address`.
    pub(crate) fn stranger_at(
        &self,
        node: NodeId,
        address: &str,
    ) -> io::Result<RaftClient<Channel>> {
        self.stranger(&self.address(node, address))
    }

    fn channel(&self, address: &str, lane: Lane) -> io::Result<Channel> {
        let mut channels = self.channels.lock().expect("nothing panics while it holds it");
        if let Some(channel) = channels.get(&(address.to_owned(), lane)) {
            return Ok(channel.clone());
        }
        let channel = self
            .dialer
            .channel(address)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        channels.insert((address.to_owned(), lane), channel.clone());
        Ok(channel)
    }
}

/// Makes openraft's clients.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    pub(crate) directory: Arc<Directory>,
    pub(crate) door: Arc<Gather>,
    pub(crate) lookout: Arc<Lookout>,
}

impl Network {
    fn to(&self, target: NodeId, member: &Member, lane: Lane) -> Connection {
        let address = member.address.clone();
        let (directory, door) = (self.directory.clone(), self.door.clone());
        let pair = Pair::new(self.lookout.clone(), target);
        Connection { directory, door, pair, target, address, lane, beats: None }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Connection;

    async fn new_client(&mut self, target: NodeId, member: &Member) -> Connection {
        self.to(target, member, Lane::Replication)
    }

    async fn new_heartbeat_client(&mut self, target: NodeId, member: &Member) -> Connection {
        self.to(target, member, Lane::Heartbeat)
    }

    async fn new_snapshot_client(&mut self, target: NodeId, member: &Member) -> Connection {
        self.to(target, member, Lane::Snapshot)
    }
}

/// One of openraft's clients: to one node, for one purpose.
#[derive(Debug)]
pub(crate) struct Connection {
    directory: Arc<Directory>,
    door: Arc<Gather>,
    pair: Pair,
    target: NodeId,
    /// As the membership has it.
    address: String,
    lane: Lane,
    /// Of the heartbeats' connection.
    beats: Option<Beats>,
}

/// The stream that heartbeats go by, one after the other: a call for each would cost several times as much.
#[derive(Debug)]
struct Beats {
    requests: mpsc::Sender<proto::AppendRequest>,
    replies: tonic::Streaming<proto::AppendReply>,
}

impl Beats {
    async fn open(client: Result<Client, RpcError>) -> Result<Self, RpcError> {
        let (requests, receiver) = mpsc::channel(1);
        let call = client?.heartbeat(ReceiverStream::new(receiver)).await;
        let replies = call.map_err(|status| unreachable(&status))?.into_inner();
        Ok(Self { requests, replies })
    }

    /// The reply to one heartbeat; none if the stream is broken.
    async fn beat(&mut self, request: proto::AppendRequest) -> Option<proto::AppendReply> {
        self.requests.try_send(request).ok()?;
        self.replies.message().await.ok()?
    }
}

type RpcError = RPCError<TypeConfig>;

impl Connection {
    fn client(&self, lane: Lane) -> Result<Client, RpcError> {
        self.directory.client(self.target, &self.address, lane).map_err(|e| unreachable(&e))
    }

    /// Votes go on the heartbeats' connection: both must arrive while entries pile up.
    async fn ask_vote(
        &self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
        pre: bool,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        let mut client = self.client(Lane::Heartbeat)?;
        let call = client.vote(wire::vote_request_to_wire(&request, pre));
        let reply = within(option.soft_ttl(), call).await?.into_inner();
        wire::vote_reply_from_wire(reply).map_err(|e| unreachable(&e))
    }

    /// One heartbeat. Dropping it drops the stream, whose next reply would be this one's.
    async fn beat(&mut self, request: proto::AppendRequest) -> Result<AppendResult, RpcError> {
        let mut reply = None;
        if let Some(mut beats) = self.beats.take() {
            reply = beats.beat(request.clone()).await.map(|reply| (beats, reply));
        }
        let (beats, reply) = match reply {
            Some(answered) => answered,
            // The node may have restarted since the last one.
            None => {
                let mut beats = Beats::open(self.client(self.lane)).await?;
                let reply = beats.beat(request).await;
                (beats, reply.ok_or_else(|| unreachable(&Broken))?)
            }
        };
        let result = wire::append_reply_from_wire(reply).map_err(|e| unreachable(&e))?;
        // Another result ends the stream.
        self.beats = result.is_ok().then_some(beats);
        Ok(result)
    }
}

/// The stream of heartbeats ended without a reply.
#[derive(Debug, thiserror::Error)]
#[error("no reply to a heartbeat")]
struct Broken;

fn unreachable(error: &(impl std::error::Error + 'static)) -> RpcError {
    RPCError::Unreachable(Unreachable::new(error))
}

async fn within<T>(
    timeout: Duration,
    call: impl Future<Output = Result<T, Status>>,
) -> Result<T, RpcError> {
    match tokio::time::timeout(timeout, call).await {
        Ok(result) => result.map_err(|status| unreachable(&status)),
        Err(elapsed) => Err(unreachable(&elapsed)),
    }
}

impl NetBackoff<TypeConfig> for Connection {
    fn backoff(&self) -> Option<Backoff> {
        let growing = [20, 50, 100].into_iter().chain(std::iter::repeat(200));
        Some(Backoff::new(growing.map(Duration::from_millis)))
    }
}

impl NetVote<TypeConfig> for Connection {
    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        self.ask_vote(request, option, false).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        self.ask_vote(request, option, true).await
    }
}

type AppendResult = StreamAppendResult<TypeConfig>;
type AppendResults<'s> = BoxStream<'s, Result<AppendResult, RpcError>>;

impl NetStreamAppend<TypeConfig> for Connection {
    fn stream_append<'s, S>(
        &'s mut self,
        mut input: S,
        option: RPCOption,
    ) -> futures_util::future::BoxFuture<'s, Result<AppendResults<'s>, RpcError>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        Box::pin(async move {
            if self.lane == Lane::Heartbeat {
                let Some(request) = input.next().await else { return Ok(stream::empty().boxed()) };
                let beat = self.beat(wire::append_to_wire(&request, false));
                let result = tokio::time::timeout(option.soft_ttl(), beat).await;
                let result = result.map_err(|elapsed| unreachable(&elapsed))??;
                return Ok(stream::iter([Ok(result)]).boxed());
            }
            let input = merged(input, self.door.clone(), self.pair.clone());
            match open_append(self.client(self.lane), input, option.soft_ttl()).await {
                Ok(results) => Ok(results),
                Err(error) => {
                    tokio::time::sleep(SETUP_PAUSE).await;
                    Err(error)
                }
            }
        })
    }
}

async fn open_append<'s, S>(
    client: Result<Client, RpcError>,
    input: S,
    ttl: Duration,
) -> Result<AppendResults<'s>, RpcError>
where
    S: Stream<Item = Outgoing> + Send + 'static,
{
    let mut client = client?;
    let sent = Arc::new(AtomicU64::new(0));
    let count = sent.clone();
    let mut is_first = true;
    let requests = input.map(move |Outgoing { request, commits_when_stored }| {
        // Without entries there is nothing to reply, but to a stream's first request.
        if std::mem::take(&mut is_first) || !request.entries.is_empty() {
            count.fetch_add(1, Ordering::Relaxed);
        }
        wire::append_to_wire(&request, commits_when_stored)
    });
    let replies = within(ttl, client.append(requests)).await?.into_inner();
    let results = stream::unfold((replies, 0), move |(mut replies, received)| {
        let sent = sent.clone();
        async move {
            let result = next_result(&mut replies, &sent, received, ttl).await?;
            Some((result, (replies, received + 1)))
        }
    });
    Ok(Box::pin(results))
}

/// Waits for a reply, without end while none is due, but at most twice `ttl` while one is: a
/// stream that has died half-way would hold up replication for ever.
async fn next_result(
    replies: &mut tonic::Streaming<proto::AppendReply>,
    sent: &AtomicU64,
    received: u64,
    ttl: Duration,
) -> Option<Result<AppendResult, RpcError>> {
    let mut due = false;
    loop {
        match tokio::time::timeout(ttl, replies.next()).await {
            Ok(None) => return None,
            Ok(Some(Ok(reply))) => {
                return Some(wire::append_reply_from_wire(reply).map_err(|e| unreachable(&e)));
            }
            Ok(Some(Err(status))) => return Some(Err(unreachable(&status))),
            Err(elapsed) => {
                if due {
                    return Some(Err(unreachable(&elapsed)));
                }
                due = sent.load(Ordering::Relaxed) > received;
            }
        }
    }
}

impl NetSnapshot<TypeConfig> for Connection {
    type SnapshotData = Bytes;

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let mut client = self.client(Lane::Snapshot)?;
        let chunks = stream::iter(snapshot_chunks(&vote, &snapshot));
        let call = within(option.hard_ttl(), client.install_snapshot(chunks));
        let reply = tokio::select! {
            reply = call => reply,
            closed = cancel => return Err(closed.into()),
        };
        match reply {
            Ok(reply) => {
                let vote = wire::vote_from_wire(reply.into_inner().ballot)
                    .map_err(|error| NetworkError::new(&error))?;
                Ok(SnapshotResponse::new(vote))
            }
            Err(error) => {
                tokio::time::sleep(SETUP_PAUSE).await;
                Err(error.into())
            }
        }
    }
}

fn snapshot_chunks(vote: &Vote, snapshot: &Snapshot) -> Vec<proto::SnapshotChunk> {
    let bytes = &snapshot.snapshot;
    let head = proto::SnapshotHead {
        ballot: Some(wire::vote_to_wire(vote)),
        meta: Some(wire::meta_to_wire(&snapshot.meta)),
        len: bytes.len() as u64,
        crc: crc32fast::hash(bytes),
    };
    let first = proto::SnapshotChunk { head: Some(head), data: Bytes::new() };
    let rest = (0..bytes.len()).step_by(SNAPSHOT_CHUNK).map(|start| {
        let end = bytes.len().min(start + SNAPSHOT_CHUNK);
        proto::SnapshotChunk { head: None, data: bytes.slice(start..end) }
    });
    std::iter::once(first).chain(rest).collect()
}

impl NetTransferLeader<TypeConfig> for Connection {
    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RpcError> {
        let mut client = self.client(Lane::Heartbeat)?;
        let call = client.transfer_leader(wire::transfer_to_wire(&request));
        let reply = within(option.soft_ttl(), call).await?.into_inner();
        if reply.refusal.is_empty() {
            Ok(Ok(()))
        } else {
            Err(RPCError::Unreachable(Unreachable::from_string(reply.refusal)))
        }
    }
}
