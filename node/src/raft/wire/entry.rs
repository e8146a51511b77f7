//! Log entries, votes and memberships.

use std::collections::BTreeMap;

use flotilla_proto::raft as proto;
use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, StreamAppendResult, TransferLeaderRequest,
    VoteRequest, VoteResponse,
};
use openraft::{EntryPayload, vote::RaftLeaderId};
use proto::append_reply::Result as Reply;

use super::WireError;
use crate::raft::types::{
    Data, Entry, LogId, Member, Membership, Payload, SnapshotMeta, StoredMembership, TypeConfig,
    Vote,
};

fn log_id_to_wire(id: &LogId) -> proto::LogId {
    proto::LogId { term: id.leader_id.term, index: id.index }
}

fn log_id_from_wire(id: proto::LogId) -> LogId {
    LogId::new_term_index(id.term, id.index)
}

pub(crate) fn vote_to_wire(vote: &Vote) -> proto::Ballot {
    let leader = &vote.leader_id;
    proto::Ballot { term: leader.term, node: leader.voted_for, committed: vote.committed }
}

pub(crate) fn vote_from_wire(ballot: Option<proto::Ballot>) -> Result<Vote, WireError> {
    let ballot = ballot.ok_or(WireError::Missing("ballot"))?;
    let leader_id = RaftLeaderId::new(ballot.term, ballot.node);
    Ok(Vote { leader_id, committed: ballot.committed })
}

pub(crate) fn member_to_wire(node: u64, member: &Member) -> proto::Member {
    proto::Member { node, name: member.name.clone(), address: member.address.clone() }
}

pub(crate) fn member_from_wire(member: proto::Member) -> (u64, Member) {
    (member.node, Member { name: member.name, address: member.address })
}

pub(crate) fn membership_to_wire(membership: &Membership) -> proto::Membership {
    let configs = membership.get_joint_config().iter();
    proto::Membership {
        configs: configs
            .map(|voters| proto::Voters { nodes: voters.iter().copied().collect() })
            .collect(),
        nodes: membership.nodes().map(|(node, member)| member_to_wire(*node, member)).collect(),
    }
}

pub(crate) fn membership_from_wire(membership: proto::Membership) -> Result<Membership, WireError> {
    let configs =
        membership.configs.into_iter().map(|voters| voters.nodes.into_iter().collect()).collect();
    let nodes =
        membership.nodes.into_iter().map(member_from_wire).collect::<BTreeMap<u64, Member>>();
    if nodes.is_empty() {
        return Ok(Membership::default());
    }
    Membership::new(configs, nodes).map_err(|_| WireError::Invalid("membership"))
}

/// What an entry carries, as its payload field of the message.
fn entry_payload(payload: &Payload) -> Option<proto::entry::Payload> {
    match payload {
        EntryPayload::Blank => None,
        EntryPayload::Normal(data) => Some(proto::entry::Payload::Proposal(data.0.clone())),
        EntryPayload::Membership(membership) => {
            Some(proto::entry::Payload::Membership(membership_to_wire(membership)))
        }
    }
}

fn entry_to_wire(entry: &Entry) -> proto::Entry {
    proto::Entry {
        log_id: Some(log_id_to_wire(&entry.log_id)),
        payload: entry_payload(&entry.payload),
    }
}

fn entry_from_wire(entry: proto::Entry) -> Result<Entry, WireError> {
    let log_id = entry.log_id.ok_or(WireError::Missing("log id"))?;
    let payload = match entry.payload {
        None => EntryPayload::Blank,
        Some(proto::entry::Payload::Proposal(bytes)) => EntryPayload::Normal(Data(bytes)),
        Some(proto::entry::Payload::Membership(membership)) => {
            EntryPayload::Membership(membership_from_wire(membership)?)
        }
    };
    Ok(Entry { log_id: log_id_from_wire(log_id), payload })
}

pub(crate) fn append_to_wire(
    request: &AppendEntriesRequest<TypeConfig>,
    commits_when_stored: bool,
) -> proto::AppendRequest {
    proto::AppendRequest {
        ballot: Some(vote_to_wire(&request.vote)),
        prev: request.prev_log_id.as_ref().map(log_id_to_wire),
        entries: request.entries.iter().map(entry_to_wire).collect(),
        leader_commit: request.leader_commit.as_ref().map(log_id_to_wire),
        commits_when_stored,
    }
}

pub(crate) fn append_from_wire(
    request: proto::AppendRequest,
) -> Result<AppendEntriesRequest<TypeConfig>, WireError> {
    Ok(AppendEntriesRequest {
        vote: vote_from_wire(request.ballot)?,
        prev_log_id: request.prev.map(log_id_from_wire),
        entries: request.entries.into_iter().map(entry_from_wire).collect::<Result<_, _>>()?,
        leader_commit: request.leader_commit.map(log_id_from_wire),
    })
}

pub(crate) fn append_reply_to_wire(result: &StreamAppendResult<TypeConfig>) -> proto::AppendReply {
    let reply = match result {
        Ok(matching) => {
            Reply::Matching(proto::Matching { log_id: matching.as_ref().map(log_id_to_wire) })
        }
        Err(StreamAppendError::Conflict(log_id)) => Reply::Conflict(log_id_to_wire(log_id)),
        Err(StreamAppendError::HigherVote(vote)) => Reply::Higher(vote_to_wire(vote)),
    };
    proto::AppendReply { result: Some(reply) }
}

pub(crate) fn append_reply_from_wire(
    reply: proto::AppendReply,
) -> Result<StreamAppendResult<TypeConfig>, WireError> {
    Ok(match reply.result.ok_or(WireError::Missing("result"))? {
        Reply::Matching(matching) => Ok(matching.log_id.map(log_id_from_wire)),
        Reply::Conflict(log_id) => Err(StreamAppendError::Conflict(log_id_from_wire(log_id))),
        Reply::Higher(ballot) => Err(StreamAppendError::HigherVote(vote_from_wire(Some(ballot))?)),
    })
}

pub(crate) fn vote_request_to_wire(
    request: &VoteRequest<TypeConfig>,
    pre: bool,
) -> proto::VoteRequest {
    proto::VoteRequest {
        ballot: Some(vote_to_wire(&request.vote)),
        last: request.last_log_id.as_ref().map(log_id_to_wire),
        leadership_transfer: request.leadership_transfer,
        pre,
    }
}

pub(crate) fn vote_request_from_wire(
    request: proto::VoteRequest,
) -> Result<VoteRequest<TypeConfig>, WireError> {
    Ok(VoteRequest {
        vote: vote_from_wire(request.ballot)?,
        last_log_id: request.last.map(log_id_from_wire),
        leadership_transfer: request.leadership_transfer,
    })
}

pub(crate) fn vote_reply_to_wire(reply: &VoteResponse<TypeConfig>) -> proto::VoteReply {
    proto::VoteReply {
        ballot: Some(vote_to_wire(&reply.vote)),
        granted: reply.vote_granted,
        last: reply.last_log_id.as_ref().map(log_id_to_wire),
    }
}

pub(crate) fn vote_reply_from_wire(
    reply: proto::VoteReply,
) -> Result<VoteResponse<TypeConfig>, WireError> {
    Ok(VoteResponse {
        vote: vote_from_wire(reply.ballot)?,
        vote_granted: reply.granted,
        last_log_id: reply.last.map(log_id_from_wire),
    })
}

pub(crate) fn transfer_to_wire(
    request: &TransferLeaderRequest<TypeConfig>,
) -> proto::TransferRequest {
    proto::TransferRequest {
        from: Some(vote_to_wire(request.from_leader())),
        to: *request.to_node_id(),
        last: request.last_log_id().map(log_id_to_wire),
    }
}

pub(crate) fn transfer_from_wire(
    request: proto::TransferRequest,
) -> Result<TransferLeaderRequest<TypeConfig>, WireError> {
    let from = vote_from_wire(request.from)?;
    Ok(TransferLeaderRequest::new(from, request.to, request.last.map(log_id_from_wire)))
}

pub(crate) fn meta_to_wire(meta: &SnapshotMeta) -> proto::SnapshotMeta {
    proto::SnapshotMeta {
        last: meta.last_log_id.as_ref().map(log_id_to_wire),
        membership_at: meta.last_membership.log_id().as_ref().map(log_id_to_wire),
        membership: Some(membership_to_wire(meta.last_membership.membership())),
    }
}

pub(crate) fn meta_from_wire(meta: proto::SnapshotMeta) -> Result<SnapshotMeta, WireError> {
    let membership = meta.membership.ok_or(WireError::Missing("membership"))?;
    Ok(SnapshotMeta {
        last_log_id: meta.last.map(log_id_from_wire),
        last_membership: StoredMembership::new(
            meta.membership_at.map(log_id_from_wire),
            membership_from_wire(membership)?,
        ),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use bytes::Bytes;

    use super::*;

    fn membership() -> Membership {
        let member = |name: &str| Member { name: name.to_owned(), address: "h:1".to_owned() };
        let nodes = BTreeMap::from([(1, member("n1")), (2, member("n2")), (3, member("n3"))]);
        Membership::new(vec![BTreeSet::from([1, 2]), BTreeSet::from([2])], nodes).unwrap()
    }

    #[test]
    fn append_survives_its_encoded_form() {
        let entry = |index, payload| Entry { log_id: LogId::new_term_index(3, index), payload };
        let request = AppendEntriesRequest::<TypeConfig> {
            vote: Vote { leader_id: RaftLeaderId::new(3, 1), committed: true },
            prev_log_id: Some(LogId::new_term_index(2, 6)),
            entries: vec![
                entry(7, EntryPayload::Blank),
                entry(8, EntryPayload::Normal(Data(Bytes::from_static(b"x")))),
                entry(9, EntryPayload::Membership(membership())),
            ],
            leader_commit: None,
        };
        assert!(append_to_wire(&request, true).commits_when_stored);
        let back = append_from_wire(append_to_wire(&request, false)).unwrap();
        assert_eq!(format!("{back:?}"), format!("{request:?}"));
    }

    #[test]
    fn replies_survive_their_encoded_form() {
        let vote = Vote { leader_id: RaftLeaderId::new(3, 1), committed: false };
        let id = LogId::new_term_index(1, 0);
        let replies: [StreamAppendResult<TypeConfig>; 4] = [
            Ok(None),
            Ok(Some(id)),
            Err(StreamAppendError::Conflict(id)),
            Err(StreamAppendError::HigherVote(vote)),
        ];
        for reply in replies {
            let back = append_reply_from_wire(append_reply_to_wire(&reply)).unwrap();
            assert_eq!(back, reply);
        }
    }

    #[test]
    fn snapshot_meta_survives_its_encoded_form() {
        let meta = SnapshotMeta {
            last_log_id: Some(LogId::new_term_index(5, 100)),
            last_membership: StoredMembership::new(Some(LogId::new_term_index(1, 0)), membership()),
        };
        assert_eq!(meta_from_wire(meta_to_wire(&meta)), Ok(meta));
        let empty = SnapshotMeta::default();
        assert_eq!(meta_from_wire(meta_to_wire(&empty)), Ok(empty));
    }
}
