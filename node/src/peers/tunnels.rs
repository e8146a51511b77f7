//! Tunnels to the owners of connections, and from other nodes to this one.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use flotilla_proto::relay as proto;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use proto::relay_client::RelayClient;
use proto::relay_server::{Relay, RelayServer};
use tokio::sync::{Mutex as TurnMutex, mpsc};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use super::tunnel::{Counts, Open, Tunnel};
use super::{Member, Peers};
use crate::engineio::Sid;
use crate::metrics;
use crate::raft::state::NodeId;

/// An owner that has not answered by then is out of reach.
const OPEN_TIMEOUT: Duration = Duration::from_secs(1);

/// Tunnels that wait for this node to serve them; at the bound callers wait, and give up.
const ACCEPTED: usize = 256;

/// The tunnels of this node. Clones are the same.
#[derive(Clone)]
pub struct Tunnels(Arc<Inner>);

struct Inner {
    peers: Peers,
    /// Beside the links: no client's bytes shall stand before what the nodes tell each other.
    channels: Mutex<BTreeMap<NodeId, (Member, Channel)>>,
    /// Read by the one task that serves them.
    accepted: TurnMutex<mpsc::Receiver<Accepted>>,
    accepting: mpsc::Sender<Accepted>,
    opened_count: Arc<AtomicUsize>,
    accepted_count: Arc<AtomicUsize>,
}

/// A tunnel that another node opened to this one.
pub struct Accepted {
    pub tunnel: Tunnel,
    /// The connection that it asks for.
    pub sid: Sid,
    /// The client's address.
    pub client: SocketAddr,
}

/// Why there is no tunnel to a connection's owner.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Nobody's connection, or that of a node which is gone.
    #[error("the connection's owner is no member")]
    UnknownOwner,
    #[error("the connection's owner is out of reach: {0}")]
    Unreachable(String),
}

impl Tunnels {
    /// Tunnels between those nodes that `peers` knows.
    pub fn new(peers: Peers) -> Self {
        let (accepting, accepted) = mpsc::channel(ACCEPTED);
        Self(Arc::new(Inner {
            peers,
            channels: Mutex::default(),
            accepted: TurnMutex::new(accepted),
            accepting,
            opened_count: Arc::default(),
            accepted_count: Arc::default(),
        }))
    }

    /// Resolves once this node knows the others. One that has just started does not.
    pub async fn introduced(&self) {
        self.0.peers.0.introduced.wait().await;
    }

    /// Opens a tunnel to the node that `sid` names, for the client at `client`.
    pub async fn open(&self, sid: Sid, client: SocketAddr) -> Result<Tunnel, OpenError> {
        let (owner, channel) = self.channel(sid.owner())?;
        let (outbound, queue) = Tunnel::queue(Some(proto::Opening {
            hello: Some(self.0.peers.0.me.hello(&owner)),
            sid: Bytes::copy_from_slice(sid.as_bytes()),
            client: client.to_string().into(),
        }));
        let open = Open::new(&self.0.opened_count);
        let mut relay = RelayClient::new(channel);
        let answer = timeout(OPEN_TIMEOUT, relay.open(ReceiverStream::new(queue))).await;
        let answer =
            answer.map_err(|_elapsed| OpenError::Unreachable("no answer in time".to_owned()))?;
        let answer =
            answer.map_err(|status| OpenError::Unreachable(status.message().to_owned()))?;
        let counts = Counts {
            received: Some(&metrics::RELAYED_TO_CLIENT_BYTES),
            sent: Some(&metrics::RELAYED_TO_OWNER_BYTES),
        };
        Ok(Tunnel::new(answer.into_inner(), outbound, counts, Some(open)))
    }

    /// The way to `owner`, which connects when it is first used.
    fn channel(&self, owner: NodeId) -> Result<(Member, Channel), OpenError> {
        let peers = &self.0.peers.0;
        let links = peers.links.load();
        let member = links.get(&owner).ok_or(OpenError::UnknownOwner)?.to();
        let mut channels = self.0.channels.lock().expect("nothing panics while it holds them");
        if let Some((known, channel)) = channels.get(&owner)
            && known == member
        {
            return Ok((member.clone(), channel.clone()));
        }
        let channel = peers.dialer.channel_of_many(&member.address);
        let channel = channel.map_err(|error| OpenError::Unreachable(error.to_string()))?;
        channels.retain(|node, _| links.contains_key(node));
        channels.insert(owner, (member.clone(), channel.clone()));
        Ok((member.clone(), channel))
    }

    /// The next tunnel from another node; none once [closed](Self::close).
    pub async fn accept(&self) -> Option<Accepted> {
        self.0.accepted.lock().await.recv().await
    }

    /// Takes no more tunnels from other nodes; those that wait are dropped.
    pub async fn close(&self) {
        let mut accepted = self.0.accepted.lock().await;
        accepted.close();
        while accepted.recv().await.is_some() {}
    }

    /// Tunnels that this node has opened.
    pub fn opened(&self) -> usize {
        self.0.opened_count.load(Ordering::Relaxed)
    }

    /// Tunnels that other nodes have opened to this one.
    pub fn accepted(&self) -> usize {
        self.0.accepted_count.load(Ordering::Relaxed)
    }

    /// What the node's gRPC server must offer, for others to call.
    pub fn service(&self) -> RelayServer<RelayService> {
        RelayServer::new(RelayService(self.clone()))
    }
}

/// The gRPC service that other nodes open tunnels at.
pub struct RelayService(Tunnels);

#[tonic::async_trait]
impl Relay for RelayService {
    type OpenStream = BoxStream<'static, Result<proto::Chunk, Status>>;

    async fn open(
        &self,
        request: Request<Streaming<proto::Chunk>>,
    ) -> Result<Response<Self::OpenStream>, Status> {
        let mut inbound = request.into_inner();
        // A caller that has not said anything by then has given up itself.
        let first = timeout(OPEN_TIMEOUT, inbound.message())
            .await
            .map_err(|_elapsed| Status::deadline_exceeded("no opening"))??;
        let opening = first
            .and_then(|chunk| chunk.opening)
            .ok_or_else(|| Status::invalid_argument("a tunnel begins with its opening"))?;
        let hello = opening.hello.as_ref();
        let hello = hello.ok_or_else(|| Status::invalid_argument("an opening has a hello"))?;
        let inner = &self.0.0;
        inner.peers.0.me.check(hello)?;
        let (sid, client) = parse(&opening)?;

        let (outbound, queue) = Tunnel::queue(None);
        let open = Open::new(&inner.accepted_count);
        let tunnel = Tunnel::new(inbound, outbound, Counts::default(), None);
        let accepted = inner.accepting.send(Accepted { tunnel, sid, client }).await;
        accepted.map_err(|_closed| Status::unavailable("this node is stopping"))?;
        // Open until all of it is sent, which may be after this node has let go of the tunnel.
        let replies = ReceiverStream::new(queue).map(move |chunk| {
            let _open = &open;
            Ok(chunk)
        });
        Ok(Response::new(replies.boxed()))
    }
}

fn parse(opening: &proto::Opening) -> Result<(Sid, SocketAddr), Status> {
    let text = |bytes| str::from_utf8(bytes).ok();
    let sid = text(&opening.sid).and_then(Sid::parse);
    let sid = sid.ok_or_else(|| Status::invalid_argument("not a sid"))?;
    let client = text(&opening.client).and_then(|client| client.parse().ok());
    Ok((sid, client.ok_or_else(|| Status::invalid_argument("not a client's address"))?))
}

#[cfg(test)]
mod tests;
