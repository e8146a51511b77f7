//! Raft calls in.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use flotilla_proto::raft as proto;
use flotilla_proto::raft::raft_server::{Raft, RaftServer};
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt};
use openraft::raft::StreamAppendResult;
use proto::propose_reply::Result as Reply;
use tonic::{Request, Response, Status, Streaming};
use tracing::debug;

use super::core::Core;
use super::early_commit::Arrivals;
use super::gather::Seat;
use super::members;
use super::network::{CLUSTER_KEY, MAX_MESSAGE_BYTES, TO_KEY};
use super::proposer::{Failed, propose_here};
use super::types::{Consensus, LogId, Snapshot, TypeConfig};
use super::wire::{self, WireError};

/// The most that a snapshot may have; it is held in memory.
const MAX_SNAPSHOT_BYTES: u64 = 4 << 30;

#[derive(Clone, Debug)]
pub(crate) struct Service(pub(crate) Arc<Core>);

impl Service {
    pub(crate) fn server(self) -> RaftServer<Self> {
        RaftServer::new(self)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// Refuses calls of other clusters, and those that mean the node that was here before.
    fn admit<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let number = |key| {
            let value = request.metadata().get(key)?.to_str().ok()?;
            value.parse::<u64>().ok()
        };
        let directory = &self.0.directory;
        if number(TO_KEY) != Some(directory.me) {
            return Err(Status::failed_precondition("another node is here"));
        }
        let cluster = directory.cluster();
        if cluster == 0 || number(CLUSTER_KEY) != Some(cluster) {
            return Err(Status::failed_precondition("this node is of another cluster"));
        }
        Ok(())
    }

    fn consensus(&self) -> &Consensus {
        &self.0.consensus
    }
}

type Replies<T> = BoxStream<'static, Result<T, Status>>;

/// The messages of a stream up to the first that is none of ours.
fn valid<T, U>(
    requests: Streaming<T>,
    from_wire: impl Fn(T) -> Result<U, WireError> + Send + 'static,
) -> impl Stream<Item = U> + Send + 'static
where
    T: Send + 'static,
    U: Send + 'static,
{
    requests
        .map(move |request| match request {
            Ok(request) => from_wire(request).map_err(|error| {
                debug!(%error, "a node sent a malformed message");
            }),
            Err(status) => {
                debug!(%status, "a node's stream broke");
                Err(())
            }
        })
        .take_while(|request| std::future::ready(request.is_ok()))
        .filter_map(|request| std::future::ready(request.ok()))
}

/// The reply to a result, unless it says what the last one of the stream, `told`, said. A request
/// without entries, which tells how far the log is committed, leaves the log where it was: the
/// leader does not wait for a reply to it.
fn news(
    result: &StreamAppendResult<TypeConfig>,
    told: &mut Option<Option<LogId>>,
) -> Option<proto::AppendReply> {
    if let Ok(matching) = result
        && told.replace(*matching) == Some(*matching)
    {
        return None;
    }
    Some(wire::append_reply_to_wire(result))
}

fn fatal(error: impl std::fmt::Display) -> Status {
    Status::unavailable(error.to_string())
}

#[tonic::async_trait]
impl Raft for Service {
    type AppendStream = Replies<proto::AppendReply>;

    async fn append(
        &self,
        request: Request<Streaming<proto::AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        self.admit(&request)?;
        let requests = valid(request.into_inner(), |request| {
            let commits = request.commits_when_stored;
            Ok((wire::append_from_wire(request)?, commits))
        });
        let arrivals = Arc::new(Arrivals::new());
        let results = self.consensus().stream_append(arrivals.requests(requests));
        let mut told = None;
        let replies = results.filter_map(move |result| {
            let news = result.map(|result| {
                let is_awaited = arrivals.answered(&result);
                is_awaited.then(|| news(&result, &mut told)).flatten()
            });
            std::future::ready(news.map_err(fatal).transpose())
        });
        Ok(Response::new(Box::pin(replies)))
    }

    type HeartbeatStream = Replies<proto::AppendReply>;

    async fn heartbeat(
        &self,
        request: Request<Streaming<proto::AppendRequest>>,
    ) -> Result<Response<Self::HeartbeatStream>, Status> {
        self.admit(&request)?;
        let requests = valid(request.into_inner(), wire::append_from_wire);
        let results = self.consensus().stream_append(requests);
        let replies = results.map(|result| Ok(wire::append_reply_to_wire(&result.map_err(fatal)?)));
        Ok(Response::new(Box::pin(replies)))
    }

    async fn vote(
        &self,
        request: Request<proto::VoteRequest>,
    ) -> Result<Response<proto::VoteReply>, Status> {
        self.admit(&request)?;
        let request = request.into_inner();
        let pre = request.pre;
        let request = wire::vote_request_from_wire(request)?;
        let reply = if pre {
            self.consensus().pre_vote(request).await
        } else {
            self.consensus().vote(request).await
        };
        Ok(Response::new(wire::vote_reply_to_wire(&reply.map_err(fatal)?)))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<proto::SnapshotChunk>>,
    ) -> Result<Response<proto::SnapshotReply>, Status> {
        self.admit(&request)?;
        let mut chunks = request.into_inner();
        let first = chunks.message().await?.and_then(|chunk| chunk.head);
        let head = first.ok_or(WireError::Missing("snapshot head"))?;
        let snapshot = gather(&mut chunks, head.len, head.crc).await?;
        let vote = wire::vote_from_wire(head.ballot)?;
        let meta = wire::meta_from_wire(head.meta.ok_or(WireError::Missing("snapshot meta"))?)?;
        let snapshot = Snapshot { meta, snapshot };
        let reply = self.consensus().install_full_snapshot(vote, snapshot).await.map_err(fatal)?;
        let ballot = Some(wire::vote_to_wire(&reply.vote));
        Ok(Response::new(proto::SnapshotReply { ballot }))
    }

    async fn transfer_leader(
        &self,
        request: Request<proto::TransferRequest>,
    ) -> Result<Response<proto::TransferReply>, Status> {
        self.admit(&request)?;
        let request = wire::transfer_from_wire(request.into_inner())?;
        let handled = self.consensus().handle_transfer_leader(request).await.map_err(fatal)?;
        let refusal = handled.err().map_or_else(String::new, |error| error.to_string());
        Ok(Response::new(proto::TransferReply { refusal }))
    }

    type ProposeStream = Replies<proto::ProposeReply>;

    async fn propose(
        &self,
        request: Request<Streaming<proto::ProposeRequest>>,
    ) -> Result<Response<Self::ProposeStream>, Status> {
        self.admit(&request)?;
        let core = self.0.clone();
        let seat = core.door.seat();
        let proposals = valid(request.into_inner(), Ok);
        let replies = proposals.enumerate().filter_map(move |(before, request)| {
            let core = core.clone();
            async move {
                let result = propose(&core, seat, request).await?;
                Some(Ok(proto::ProposeReply { number: before as u64 + 1, result: Some(result) }))
            }
        });
        Ok(Response::new(Box::pin(replies)))
    }

    async fn renew(
        &self,
        request: Request<proto::RenewRequest>,
    ) -> Result<Response<proto::RenewReply>, Status> {
        self.admit(&request)?;
        Ok(Response::new(members::renew(&self.0, &request.into_inner())))
    }

    async fn join(
        &self,
        request: Request<proto::JoinRequest>,
    ) -> Result<Response<proto::JoinReply>, Status> {
        self.admit(&request)?;
        Ok(Response::new(members::join(&self.0, request.into_inner()).await?))
    }

    async fn meet(
        &self,
        request: Request<proto::MeetRequest>,
    ) -> Result<Response<proto::MeetReply>, Status> {
        Ok(Response::new(members::meet(&self.0, request.into_inner()).await))
    }

    async fn pledge(
        &self,
        request: Request<proto::PledgeRequest>,
    ) -> Result<Response<proto::PledgeReply>, Status> {
        let reply = members::pledge(&self.0, request.into_inner()).await;
        reply.map(Response::new).map_err(|error| Status::internal(error.to_string()))
    }
}

/// Proposes another node's changes; what it has to be told of that, which its own log does not tell.
async fn propose(core: &Core, seat: Seat, request: proto::ProposeRequest) -> Option<Reply> {
    match propose_here(&core.consensus, &core.door, seat, request).await {
        Ok(applied) => applied.refused.then_some(Reply::Refused(true)),
        Err(Failed::NotSent) => Some(Reply::NotLeader(core.lead.borrow().id().unwrap_or(0))),
        Err(Failed::Unknown) => Some(Reply::Unknown(true)),
    }
}

async fn gather(
    chunks: &mut Streaming<proto::SnapshotChunk>,
    len: u64,
    crc: u32,
) -> Result<Bytes, Status> {
    if len > MAX_SNAPSHOT_BYTES {
        return Err(Status::resource_exhausted("the snapshot is too large"));
    }
    // What is announced is not what is sent: memory grows with what comes.
    let mut bytes = BytesMut::new();
    while let Some(chunk) = chunks.message().await? {
        if (bytes.len() + chunk.data.len()) as u64 > len {
            return Err(Status::invalid_argument("the snapshot is longer than announced"));
        }
        bytes.extend_from_slice(&chunk.data);
    }
    if bytes.len() as u64 != len || crc32fast::hash(&bytes) != crc {
        return Err(Status::data_loss("the snapshot was damaged on its way"));
    }
    Ok(bytes.freeze())
}
