//! The way of a proposal to the leader, wherever it is.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flotilla_proto::raft as proto;
use openraft::errors::ClientWriteError;
use proto::propose_reply::Result as Reply;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::gather::{Gather, Seat, WriteError};
use super::network::{Directory, Lane};
use super::state::NodeId;
use super::types::{Applied, Consensus, Member};
use crate::metrics;
use crate::turn::others_first;

/// Who leads, as far as this node knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lead {
    pub(crate) leader: Option<(NodeId, Member)>,
    pub(crate) term: u64,
    /// This node is the only voter.
    pub(crate) is_alone: bool,
}

impl Lead {
    pub(crate) fn id(&self) -> Option<NodeId> {
        self.leader.as_ref().map(|(node, _)| *node)
    }
}

/// Why an attempt to propose brought no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failed {
    /// It is in nobody's log.
    NotSent,
    /// It may be applied, now or later.
    Unknown,
}

/// Who takes part in a round of replication, and so what it costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Round {
    /// This node alone: it is cheap. Or none may wait.
    Lone,
    /// Other nodes: one that waits a little for more changes does the work of two.
    Shared,
}

/// Brings a proposal to the leader and its answer back.
pub(crate) trait Propose: Send + 'static {
    /// Waits, never for long, until a round may begin.
    fn opened(&mut self) -> impl Future<Output = Round> + Send;

    /// One attempt to propose so many changes, over at `until` at the latest. If another node leads it does not
    /// end when they are applied, of which this node's own log tells. Dropping it leaves the proposal's fate unknown.
    /// `again`: an earlier attempt may have reached a log.
    fn propose(
        &mut self,
        proposal: Bytes,
        changes: u32,
        again: bool,
        until: Instant,
    ) -> impl Future<Output = Result<Applied, Failed>> + Send;
}

/// Pauses before a failed attempt is reported, so that whoever repeats it does not spin.
const NO_LEADER_PAUSE: Duration = Duration::from_millis(50);
const REFUSED_PAUSE: Duration = Duration::from_millis(15);

/// Proposes through the own log if this node leads, or over a stream to the leader.
pub(crate) struct ToLeader {
    directory: Arc<Directory>,
    consensus: Consensus,
    door: Arc<Gather>,
    lead: watch::Receiver<Lead>,
    link: Option<Link>,
    /// The attempt in hand may have reached a log.
    sent: bool,
}

/// One stream to one leader, which replies to those proposals that were not applied.
struct Link {
    leader: NodeId,
    requests: mpsc::Sender<proto::ProposeRequest>,
    replies: Streaming<proto::ProposeReply>,
    /// How many requests went by it.
    sent: u64,
}

impl ToLeader {
    pub(crate) fn new(
        directory: Arc<Directory>,
        consensus: Consensus,
        door: Arc<Gather>,
        lead: watch::Receiver<Lead>,
    ) -> Self {
        Self { directory, consensus, door, lead, link: None, sent: false }
    }

    async fn propose_to(
        &mut self,
        leader: NodeId,
        member: &Member,
        request: proto::ProposeRequest,
        again: bool,
    ) -> Result<Applied, Failed> {
        if leader == self.directory.me {
            self.note_sent(again);
            return pause_after(self.door.write_own(&self.consensus, request).await).await;
        }
        if self.link.as_ref().is_none_or(|link| link.leader != leader) {
            self.link = Some(self.open(leader, member).await?);
        }
        self.note_sent(again);
        let link = self.link.as_mut().expect("it was just opened");
        let applied = link.propose(request).await;
        if applied == Err(Failed::Unknown) {
            self.link = None;
        }
        applied
    }

    fn note_sent(&mut self, again: bool) {
        self.sent = true;
        if again {
            metrics::PROPOSALS_REPEATED.add(1);
        }
    }

    async fn open(&self, leader: NodeId, member: &Member) -> Result<Link, Failed> {
        // One proposal is in flight, and a few whose attempt was dropped.
        let (requests, receiver) = mpsc::channel(16);
        let opened = async {
            let mut client = self.directory.client(leader, &member.address, Lane::Requests).ok()?;
            let replies = client.propose(ReceiverStream::new(receiver)).await.ok()?.into_inner();
            Some(Link { leader, requests, replies, sent: 0 })
        };
        let Some(link) = opened.await else {
            tokio::time::sleep(NO_LEADER_PAUSE).await;
            return Err(Failed::NotSent);
        };
        Ok(link)
    }
}

impl Link {
    async fn propose(&mut self, request: proto::ProposeRequest) -> Result<Applied, Failed> {
        if self.requests.try_send(request).is_err() {
            return Err(Failed::Unknown);
        }
        self.sent += 1;
        loop {
            let Ok(Some(reply)) = self.replies.message().await else {
                tokio::time::sleep(REFUSED_PAUSE).await;
                return Err(Failed::Unknown);
            };
            if reply.number != self.sent {
                // To an attempt that was dropped.
                continue;
            }
            return match reply.result {
                Some(Reply::Refused(_)) => Ok(Applied { refused: true }),
                Some(Reply::NotLeader(_)) => {
                    tokio::time::sleep(REFUSED_PAUSE).await;
                    Err(Failed::NotSent)
                }
                Some(Reply::Unknown(_)) | None => Err(Failed::Unknown),
            };
        }
    }
}

impl Propose for ToLeader {
    async fn opened(&mut self) -> Round {
        let (leads, is_alone) = {
            let lead = self.lead.borrow();
            (lead.id() == Some(self.directory.me), lead.is_alone)
        };
        if leads && is_alone {
            // A round that nobody else takes part in is cheap: it waits only for those who are
            // about to propose, too.
            others_first().await;
            return Round::Lone;
        }
        if leads {
            self.door.opened().await;
        }
        if self.door.is_patient() { Round::Shared } else { Round::Lone }
    }

    async fn propose(
        &mut self,
        proposal: Bytes,
        changes: u32,
        again: bool,
        until: Instant,
    ) -> Result<Applied, Failed> {
        let lead = self.lead.borrow_and_update().clone();
        let Some((leader, member)) = lead.leader else {
            let pause = NO_LEADER_PAUSE.min(until.saturating_duration_since(Instant::now()));
            if let Ok(Err(_closed)) = tokio::time::timeout(pause, self.lead.changed()).await {
                // Consensus has ended, and no leader comes: whoever repeats this must not spin.
                tokio::time::sleep(pause).await;
            }
            return Err(Failed::NotSent);
        };
        let mut others = self.lead.clone();
        let another_leads = async {
            if others.wait_for(|lead| lead.id() != Some(leader)).await.is_err() {
                // Nobody tells any more who leads; the attempt itself finds that consensus ended.
                std::future::pending().await
            }
        };
        self.sent = false;
        let request = proto::ProposeRequest { proposal, changes };
        let applied = tokio::select! {
            applied = self.propose_to(leader, &member, request, again) => Some(applied),
            () = another_leads => None,
            () = tokio::time::sleep_until(until) => None,
        };
        applied.unwrap_or_else(|| {
            self.link = None;
            Err(if self.sent { Failed::Unknown } else { Failed::NotSent })
        })
    }
}

/// Proposes another node's proposal through the log of this one, which should be the leader.
pub(crate) async fn propose_here(
    consensus: &Consensus,
    door: &Gather,
    seat: Seat,
    request: proto::ProposeRequest,
) -> Result<Applied, Failed> {
    pause_after(door.write(seat, consensus, request).await).await
}

async fn pause_after(written: Result<Applied, WriteError>) -> Result<Applied, Failed> {
    match written {
        Ok(applied) => Ok(applied),
        Err(WriteError::Refused(ClientWriteError::LogEntryDiscarded(_))) => Err(Failed::Unknown),
        Err(WriteError::Refused(_)) => {
            // Mostly a leader that has not yet heard from a quorum: it will in a moment.
            tokio::time::sleep(REFUSED_PAUSE).await;
            Err(Failed::NotSent)
        }
        Err(WriteError::Ended) => {
            tokio::time::sleep(NO_LEADER_PAUSE).await;
            Err(Failed::Unknown)
        }
    }
}
