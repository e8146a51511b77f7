//! Requests to a follower, as few as will do.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream;
use futures_util::{Stream, StreamExt};
use openraft::raft::AppendEntriesRequest;
use tokio::time::timeout_at;

use crate::raft::early_commit::Pair;
use crate::raft::gather::Gather;
use crate::raft::types::{LogId, TypeConfig};

/// How late a round may begin whose entries a request waits for.
const MERGE_PATIENCE: Duration = Duration::from_millis(1);

/// A request as it is sent.
pub(super) struct Outgoing {
    pub(super) request: AppendEntriesRequest<TypeConfig>,
    /// Whether its entries are committed once the follower has stored them.
    pub(super) commits_when_stored: bool,
}

/// Lets what is committed be told with the next round's entries, if that round is sure to begin: one message, where there
/// would have been two. None is needed where the follower knows it from the entries themselves.
pub(super) fn merged<S>(
    input: S,
    door: Arc<Gather>,
    pair: Pair,
) -> impl Stream<Item = Outgoing> + Send + 'static
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
{
    // It may end while a notice waits for what follows.
    let input = input.fuse();
    let begin = Merging { input, door, pair, is_first: true, known: None };
    stream::unfold(begin, |mut merging| async move { Some((merging.next().await?, merging)) })
}

struct Merging<S> {
    input: S,
    door: Arc<Gather>,
    pair: Pair,
    /// The first request of a stream finds out where the follower is.
    is_first: bool,
    /// What the follower knows to be committed once it has stored it.
    known: Option<LogId>,
}

impl<S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Unpin> Merging<S> {
    async fn next(&mut self) -> Option<Outgoing> {
        let mut request = self.input.next().await?;
        if std::mem::take(&mut self.is_first) {
            return Some(Outgoing { request, commits_when_stored: false });
        }
        while request.entries.is_empty()
            && self.known.is_some()
            && request.leader_commit <= self.known
        {
            request = self.input.next().await?;
        }
        if request.entries.is_empty()
            && let Some(opens) = self.door.ahead()
            && let Ok(Some(next)) = timeout_at(opens + MERGE_PATIENCE, self.input.next()).await
        {
            // It goes on from where this one is, and tells of at least as much that is committed.
            request = next;
        }
        let committed = self.pair.commits_when_stored(&request);
        self.known = self.known.max(committed);
        Some(Outgoing { request, commits_when_stored: committed.is_some() })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use openraft::metrics::RaftServerMetrics;
    use openraft::type_config::TypeConfigExt;
    use openraft::vote::RaftLeaderId;
    use openraft::{EntryPayload, ServerState};

    use super::*;
    use crate::raft::early_commit::Lookout;
    use crate::raft::log_store::Extent;
    use crate::raft::types::{Entry, Member, Membership, StoredMembership, Vote};

    fn vote() -> Vote {
        Vote { leader_id: RaftLeaderId::new(1, 1), committed: true }
    }

    fn id(index: u64) -> LogId {
        LogId::new_term_index(1, index)
    }

    fn request(entry: Option<u64>, committed: u64) -> AppendEntriesRequest<TypeConfig> {
        let entry = entry.map(|index| Entry { log_id: id(index), payload: EntryPayload::Blank });
        AppendEntriesRequest {
            vote: vote(),
            prev_log_id: None,
            entries: entry.into_iter().collect(),
            leader_commit: Some(id(committed)),
        }
    }

    /// The leader of three, whose log is stored up to `stored`.
    fn leader(stored: u64) -> Pair {
        let voters = BTreeSet::from([1, 2, 3]);
        let nodes: BTreeMap<_, _> = voters.iter().map(|id| (*id, Member::default())).collect();
        let membership = Membership::new(vec![voters], nodes).unwrap();
        let membership = Arc::new(StoredMembership::new(Some(id(1)), membership));
        let (_, metrics) = TypeConfig::watch_channel(RaftServerMetrics {
            id: 1,
            vote: vote(),
            state: ServerState::Leader,
            current_leader: Some(1),
            membership_config: membership.clone(),
            committed_membership_config: membership,
        });
        let extent = Extent::default();
        extent.set_stored(Some(id(stored)));
        let lookout = Lookout::new(1, extent);
        lookout.watch(metrics);
        Pair::new(Arc::new(lookout), 2)
    }

    #[tokio::test]
    async fn what_follows_from_the_entries_is_not_told_again() {
        let requests = [
            request(None, 5),
            request(Some(7), 5),
            request(None, 6),
            request(None, 7),
            request(Some(8), 7),
            request(Some(9), 7),
            request(None, 9),
        ];
        let door = Arc::new(Gather::new(Duration::ZERO));
        let mut sent = Vec::new();
        let mut outgoing = Box::pin(merged(stream::iter(requests), door, leader(8)));
        while let Some(Outgoing { request, commits_when_stored }) = outgoing.next().await {
            let last = request.entries.last().map(|entry| entry.log_id.index);
            sent.push((last, request.leader_commit.map(|id| id.index), commits_when_stored));
        }
        let first = (None, Some(5), false);
        let (seventh, eighth) = ((Some(7), Some(5), true), (Some(8), Some(7), true));
        // The leader itself has not stored the last one yet.
        let (ninth, notice) = ((Some(9), Some(7), false), (None, Some(9), false));
        assert_eq!(sent, [first, seventh, eighth, ninth, notice]);
    }

    #[tokio::test]
    async fn what_the_follower_knows_is_not_told() {
        let requests = [
            request(None, 5),
            request(None, 5),
            request(None, 6),
            request(Some(8), 6),
            request(None, 7),
        ];
        let pair = Pair::new(Arc::new(Lookout::new(1, Extent::default())), 2);
        let door = Arc::new(Gather::new(Duration::ZERO));
        let input = stream::iter(requests);
        let mut merging = Merging { input, door, pair, is_first: true, known: Some(id(6)) };
        let mut sent = Vec::new();
        while let Some(Outgoing { request, .. }) = merging.next().await {
            sent.push((request.entries.len(), request.leader_commit.map(|id| id.index)));
        }
        assert_eq!(sent, [(0, Some(5)), (1, Some(6)), (0, Some(7))]);
    }
}
