//! Requests whose connection lives on another node.
//!
//! What is relayed is the client's stream, byte by byte, and not what it says: the owner serves a
//! tunnel as it serves a client's own stream, with the same timeouts, limits, errors and headers,
//! and here nothing is decided but where a request goes. An owner takes the requests that come to
//! it in this way for its own, so that none is relayed twice.

mod splice;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Fuse, FusedFuture};
use http::{Method, Request, Response, StatusCode, Version, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tracing::debug;

use crate::engineio::{self, CloseReason, Sid};
use crate::metrics::{self, Counter};
use crate::peers::{Accepted, Leaver, OpenError, Tunnel, Tunnels};

use super::body::RequestBody;
use super::connections::{Connections, Handle};
use super::http_stream::HttpStream;
use super::listener::Transport;
use super::polling::Command;
use super::stream::Stream;
use super::websocket;
use splice::Splice;

/// What became of a request that may be for another node's connection.
pub(super) enum Relayed {
    Answered(Response<Full<Bytes>>),
    /// This node's to answer: its own, or its owner cannot be asked, which this node, not knowing
    /// the connection either, answers as an unknown sid.
    Own(Request<RequestBody>),
    /// The owner was lost before it answered.
    Lost,
}

/// Marks a request that another node has relayed.
#[derive(Clone, Copy)]
pub(super) struct FromNode;

/// How long requests for other nodes' connections wait for a node that has just started, and does not know them yet.
const INTRODUCTION_TIMEOUT: Duration = Duration::from_secs(5);

/// How long what is relayed may go on once this node stops.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a request that went to the owner got no answer.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error(transparent)]
    Tunnel(#[from] hyper::Error),
    #[error("this node stops")]
    Leaving,
}

/// Moves what a request to the owner and its answer consist of.
type Exchange = Fuse<BoxFuture<'static, hyper::Result<()>>>;

impl Transport {
    /// From now on requests for other nodes' connections go to their owners, and those that other
    /// nodes bring are served.
    pub fn relay_through(self: &Arc<Self>, tunnels: Tunnels) {
        if self.tunnels.set(tunnels.clone()).is_ok() {
            self.tasks.spawn(Arc::clone(self).serve_tunnels(tunnels));
        }
    }

    /// What is relayed at the moment, in either direction.
    pub fn relayed_count(&self) -> usize {
        self.tunnels.get().map_or(0, |tunnels| tunnels.opened() + tunnels.accepted())
    }

    async fn serve_tunnels(self: Arc<Self>, tunnels: Tunnels) {
        while let Some(Some(accepted)) = self.shutdown.run_until_cancelled(tunnels.accept()).await {
            let Accepted { mut tunnel, sid, client } = accepted;
            let connections = Arc::clone(&self.connections);
            tunnel.on_leaving(move || release(&connections, sid));
            let served = Arc::clone(&self).serve_http(Stream::other(tunnel), client, true);
            self.tasks.spawn(served);
        }
        tunnels.close().await;
    }

    /// Takes a request to the owner of its connection, if that is another node.
    pub(super) async fn relay(
        self: &Arc<Self>,
        request: Request<RequestBody>,
        address: SocketAddr,
    ) -> Relayed {
        let Some((tunnels, sid)) = self.elsewhere(&request) else { return Relayed::Own(request) };
        // Without it, balancers that take a node which has just started for ready would lose the connections of others.
        let introduced = tokio::time::timeout(INTRODUCTION_TIMEOUT, tunnels.introduced());
        let _ = self.shutdown.run_until_cancelled(introduced).await;
        let is_upgrade = websocket::is_upgrade(request.headers());
        let answered = answered_counter(request.method(), is_upgrade);
        let tunnel = match tunnels.open(sid, address).await {
            Ok(tunnel) => tunnel,
            Err(error) => {
                debug!(%sid, %error, "request not relayed");
                match error {
                    OpenError::UnknownOwner => metrics::RELAY_FAILURES.unknown_owner.add(1),
                    OpenError::Unreachable(_) => metrics::RELAY_FAILURES.unreachable.add(1),
                }
                return Relayed::Own(request);
            }
        };
        match self.exchange(tunnel, request).await {
            Ok(response) => {
                answered.add(1);
                Relayed::Answered(response)
            }
            Err(error) => {
                debug!(%sid, %error, "a connection's owner was lost during a request");
                metrics::RELAY_FAILURES.lost.add(1);
                Relayed::Lost
            }
        }
    }

    /// The sid of another node's connection, and how to get there.
    fn elsewhere(&self, request: &Request<RequestBody>) -> Option<(&Tunnels, Sid)> {
        let tunnels = self.tunnels.get()?;
        let sid = engineio::Request::sid(request.uri().query()?)?;
        let is_relayed = request.extensions().get::<FromNode>().is_some();
        (sid.owner() != self.node && !is_relayed).then_some((tunnels, sid))
    }

    /// Asks the owner as a client would. If this is dropped, the owner sees its client go.
    async fn exchange(
        self: &Arc<Self>,
        tunnel: Tunnel,
        mut request: Request<RequestBody>,
    ) -> Result<Response<Full<Bytes>>, Lost> {
        let leaver = tunnel.leaver();
        let client = hyper::upgrade::on(&mut request);
        // Balancers may speak HTTP/1.0; the owner's answer is the same.
        *request.version_mut() = Version::HTTP_11;
        let (mut sender, connection) = http1::handshake(TokioIo::new(tunnel)).await?;
        let mut connection: Exchange = connection.with_upgrades().boxed().fuse();
        let answer = async {
            let response = sender.send_request(request).await?;
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                return Ok((response.map(|_body| Full::default()), true));
            }
            let (head, body) = response.into_parts();
            let body = body.collect().await?.to_bytes();
            Ok::<_, Lost>((Response::from_parts(head, Full::new(body)), false))
        };
        let mut answer = std::pin::pin!(answer);
        let (mut response, is_upgrade) = tokio::select! {
            answer = &mut answer => answer?,
            ended = &mut connection => {
                ended?;
                answer.await?
            }
            () = self.leave(&leaver) => return Err(Lost::Leaving),
        };
        // How the body is framed is between each two.
        response.headers_mut().remove(header::TRANSFER_ENCODING);
        if is_upgrade {
            let owner = hyper::upgrade::on(&mut response);
            self.tasks.spawn(Arc::clone(self).splice(client, owner, connection, leaver));
        }
        Ok(response)
    }

    /// Relays a WebSocket once the client has its handshake's answer, until it ends.
    async fn splice(
        self: Arc<Self>,
        client: OnUpgrade,
        owner: OnUpgrade,
        connection: Exchange,
        leaver: Leaver,
    ) {
        if !connection.is_terminated()
            && let Err(error) = connection.await
        {
            return debug!(%error, "a connection's owner was lost during an upgrade");
        }
        let (client, owner) = match tokio::try_join!(client, owner) {
            Ok(upgraded) => upgraded,
            Err(error) => return debug!(%error, "client went away during an upgrade"),
        };
        let (stream, from_client) = websocket::into_stream(client);
        let (tunnel, from_owner) = into_tunnel(owner);
        let stream = HttpStream::new(stream, self.config.ping_timeout);
        let splice = Splice::new(stream, from_client, tunnel, from_owner);
        tokio::select! {
            ended = splice.run() => {
                if let Err(error) = ended {
                    debug!(%error, "a relayed websocket failed");
                }
            }
            () = self.leave(&leaver) => debug!("a relayed websocket is cut"),
        }
    }

    /// Once this node stops, has the owner end what is relayed; resolves when it should have.
    async fn leave(&self, leaver: &Leaver) {
        self.shutdown.cancelled().await;
        let left = async {
            leaver.leave().await;
            std::future::pending::<()>().await;
        };
        let left = tokio::time::timeout(LEAVE_TIMEOUT, left);
        self.connections.farewell.unless_over(left).await;
    }
}

/// The node that a request of this connection came through stops. An open poll is answered, and
/// the next one comes through another node; a WebSocket must be closed.
fn release(connections: &Connections, sid: Sid) {
    let Some(Handle { outbox, commands }) = connections.get(sid) else { return };
    match commands {
        // A connection that has more commands before it answers its polls anyway.
        Some(commands) => {
            let _ = commands.try_send(Command::Release);
        }
        None => outbox.close(CloseReason::ServerShutdown),
    }
}

/// What an answer to such a request counts as.
fn answered_counter(method: &Method, is_upgrade: bool) -> &'static Counter {
    if is_upgrade {
        &metrics::RELAYED_REQUESTS.upgrade
    } else if method == Method::POST {
        &metrics::RELAYED_REQUESTS.post
    } else {
        &metrics::RELAYED_REQUESTS.poll
    }
}

/// The tunnel under an upgraded request to the owner, and what was read of it already.
fn into_tunnel(upgraded: Upgraded) -> (Tunnel, Bytes) {
    let parts = upgraded.downcast::<TokioIo<Tunnel>>();
    let parts = parts.map_err(drop).expect("the request was made on a tunnel");
    (parts.io.into_inner(), parts.read_buf)
}
