//! Spares followers the second message of a round, which tells them that an entry is committed.
//!
//! In a cluster of three, an entry of the leader's own term is committed as soon as the leader and one
//! follower have stored it (Raft, section 5.3: no leader of a later term can lack it). A leader that has stored what it
//! sends says so, [`Pair::commits_when_stored`], and the follower knows that the entry is committed, before the
//! leader does, once it has stored it too and openraft has accepted it: [`Arrivals`]. So it applies it a round trip
//! earlier, and a notice that would only tell it the same is not sent.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use futures_util::stream::{self, Stream, StreamExt};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::raft::{AppendEntriesRequest, StreamAppendResult};
use tokio::sync::watch;

use super::log_store::{Extent, Marks};
use super::state::NodeId;
use super::types::{LogId, ServerMetrics, StoredMembership, TypeConfig, Vote};
use crate::metrics;

type Request = AppendEntriesRequest<TypeConfig>;

/// What a leader must know of itself to tell when its followers' storing commits an entry.
pub(crate) struct Lookout {
    me: NodeId,
    log: Extent,
    /// The membership in effect; known once openraft runs.
    metrics: OnceLock<ServerMetrics>,
}

impl fmt::Debug for Lookout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lookout").field("me", &self.me).finish_non_exhaustive()
    }
}

impl Lookout {
    pub(crate) fn new(me: NodeId, log: Extent) -> Self {
        Self { me, log, metrics: OnceLock::new() }
    }

    pub(crate) fn watch(&self, metrics: ServerMetrics) {
        // Called once.
        let _ = self.metrics.set(metrics);
    }
}

/// A leader and one of its followers.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    leader: Arc<Lookout>,
    follower: NodeId,
}

impl Pair {
    pub(crate) fn new(leader: Arc<Lookout>, follower: NodeId) -> Self {
        Self { leader, follower }
    }

    /// The last of the request's entries, if all of them are committed once the follower has stored them.
    pub(crate) fn commits_when_stored(&self, request: &Request) -> Option<LogId> {
        let last = request.entries.last()?.log_id;
        let metrics = self.leader.metrics.get()?.borrow_watched();
        // After the metrics: a membership that they do not have yet is in the log then.
        let log = self.leader.log.marks();
        let pair = [self.leader.me, self.follower];
        is_committed_by(pair, request, log, &metrics.membership_config).then_some(last)
    }
}

/// Whether the request's entries are committed once both have stored them.
///
/// So it is if the last is of the leader's own term, if the leader has stored it, and if the two are a majority of
/// the voters, in both configurations while these change. `membership` counts once it is committed, if no
/// newer one is in the leader's log.
fn is_committed_by(
    pair: [NodeId; 2],
    request: &Request,
    log: Marks,
    membership: &StoredMembership,
) -> bool {
    let Some(last) = request.entries.last().map(|entry| entry.log_id) else { return false };
    let is_own = last.leader_id.term == request.vote.leader_id.term;
    let is_stored = log
        .stored
        .is_some_and(|stored| stored.leader_id == last.leader_id && stored.index >= last.index);
    let is_settled =
        log.membership <= *membership.log_id() && *membership.log_id() <= request.leader_commit;
    let count =
        |voters: &BTreeSet<NodeId>| pair.iter().filter(|node| voters.contains(node)).count();
    let mut configs = membership.membership().get_joint_config().iter();
    is_own
        && is_stored
        && is_settled
        && configs.len() > 0
        && configs.all(|voters| count(voters) * 2 > voters.len())
}

/// What arrives at a follower by one stream, and what of it is thereby committed.
#[derive(Debug)]
pub(crate) struct Arrivals {
    open: Mutex<Open>,
    committed: watch::Sender<Option<Committed>>,
}

#[derive(Debug, Default)]
struct Open {
    /// The requests that openraft has not answered yet.
    pending: VecDeque<Pending>,
    /// What the leader said is committed.
    told: Option<LogId>,
}

#[derive(Debug)]
enum Pending {
    /// The leader's, and what is committed once its entries are stored.
    Entries(Option<Committed>),
    /// This node's own.
    Notice,
}

/// An entry that is committed, as its leader would tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Committed {
    vote: Vote,
    last: LogId,
}

impl Committed {
    fn notice(self) -> Request {
        let last = Some(self.last);
        let entries = Vec::new();
        Request { vote: self.vote, prev_log_id: last, entries, leader_commit: last }
    }
}

impl Arrivals {
    pub(crate) fn new() -> Self {
        Self { open: Mutex::default(), committed: watch::Sender::new(None) }
    }

    /// The requests for openraft: the leader's, each with whether its entries are committed once they are stored, and
    /// between them what says that they are.
    pub(crate) fn requests(
        self: &Arc<Self>,
        requests: impl Stream<Item = (Request, bool)> + Send + 'static,
    ) -> impl Stream<Item = Request> + Send + 'static {
        let begin = (Box::pin(requests), self.clone(), self.committed.subscribe());
        stream::unfold(begin, |(mut requests, arrivals, mut committed)| async move {
            let (request, pending) = tokio::select! {
                biased;
                Ok(()) = committed.changed() => {
                    let committed = *committed.borrow_and_update();
                    (committed.expect("only what is committed is told").notice(), Pending::Notice)
                }
                arrived = requests.next() => {
                    let (request, commits) = arrived?;
                    let last = request.entries.last().filter(|_| commits);
                    let committed =
                        last.map(|last| Committed { vote: request.vote, last: last.log_id });
                    (request, Pending::Entries(committed))
                }
            };
            let mut open = arrivals.lock();
            open.told = open.told.max(request.leader_commit);
            open.pending.push_back(pending);
            drop(open);
            Some((request, (requests, arrivals, committed)))
        })
    }

    /// Takes openraft's answers, in the order of the requests; whether the leader waits for this one.
    pub(crate) fn answered(&self, result: &StreamAppendResult<TypeConfig>) -> bool {
        // Whatever ends the stream is for the leader.
        let Ok(stored) = result else { return true };
        let mut open = self.lock();
        match open.pending.pop_front() {
            Some(Pending::Entries(committed)) => {
                // The leader may have told meanwhile, with what it sent next.
                if let Some(committed) = committed
                    && *stored >= Some(committed.last)
                    && open.told < Some(committed.last)
                {
                    metrics::EARLY_COMMITS.add(1);
                    self.committed.send_replace(Some(committed));
                }
                true
            }
            Some(Pending::Notice) | None => false,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().expect("nothing panics while it holds it")
    }
}

#[cfg(test)]
mod tests {
    use flotilla_proto::raft::AppendRequest;
    use futures_util::FutureExt;
    use openraft::EntryPayload;
    use openraft::raft::StreamAppendError;
    use openraft::vote::RaftLeaderId;
    use tokio::sync::mpsc;
    use tokio_stream::wrappers::ReceiverStream;

    use super::*;
    use crate::raft::types::{Entry, Member, Membership};
    use crate::raft::wire;

    const TERM: u64 = 3;

    fn id(term: u64, index: u64) -> LogId {
        LogId::new_term_index(term, index)
    }

    /// Entries of a term up to `last`; what is before them is committed.
    fn request(term: u64, last: u64, count: u64) -> Request {
        let entry = |index| Entry { log_id: id(term, index), payload: EntryPayload::Blank };
        let before = last - count;
        Request {
            vote: Vote { leader_id: RaftLeaderId::new(TERM, 1), committed: true },
            prev_log_id: Some(id(term, before)),
            entries: (before + 1..=last).map(entry).collect(),
            leader_commit: Some(id(term, before)),
        }
    }

    /// Comparable.
    fn sent(request: &Request) -> AppendRequest {
        wire::append_to_wire(request, false)
    }

    fn membership(index: u64, configs: &[&[NodeId]]) -> StoredMembership {
        let nodes = configs.iter().flat_map(|nodes| nodes.iter());
        let nodes = nodes.map(|node| (*node, Member::default()));
        let sets = configs.iter().map(|nodes| nodes.iter().copied().collect()).collect();
        let nodes = nodes.collect::<std::collections::BTreeMap<_, _>>();
        StoredMembership::new(Some(id(1, index)), Membership::new(sets, nodes).unwrap())
    }

    #[test]
    fn two_of_three_commit() {
        let log = Marks { stored: Some(id(TERM, 9)), ..Marks::default() };
        let commit = |configs: &[&[NodeId]]| {
            is_committed_by([1, 2], &request(TERM, 9, 2), log, &membership(1, configs))
        };
        assert!(commit(&[&[1, 2, 3]]));
        assert!(commit(&[&[1, 2]]) && commit(&[&[1]]), "all, and more than all");
        assert!(!commit(&[&[1, 2, 3, 4, 5]]) && !commit(&[&[1, 2, 3, 4]]), "not a majority");
        assert!(!commit(&[&[1, 3, 4]]), "a learner");
        assert!(commit(&[&[1, 2, 3], &[1, 2, 4]]));
        assert!(!commit(&[&[1, 2, 3], &[1, 4, 5]]), "of one configuration of two");
        assert!(!commit(&[]), "nobody votes");
    }

    #[test]
    fn leader_must_have_stored_them_in_its_own_term() {
        let voters = membership(1, &[&[1, 2, 3]]);
        let commit = |request: &Request, stored| {
            let log = Marks { stored, ..Marks::default() };
            is_committed_by([1, 2], request, log, &voters)
        };
        assert!(commit(&request(TERM, 9, 2), Some(id(TERM, 12))));
        assert!(!commit(&request(TERM, 9, 2), Some(id(TERM, 8))), "not yet");
        assert!(!commit(&request(TERM, 9, 2), None));
        let gave_up = Some(id(TERM - 1, 20));
        assert!(!commit(&request(TERM, 9, 2), gave_up), "what it stored last was given up");
        let before = TERM - 1;
        assert!(!commit(&request(before, 9, 2), Some(id(before, 9))), "another leader's entry");
        assert!(!commit(&request(TERM, 9, 0), Some(id(TERM, 9))), "nothing to store");
    }

    #[test]
    fn membership_must_be_settled() {
        let commit = |membership_in_log, index| {
            let stored = Some(id(TERM, 9));
            let log = Marks { stored, membership: membership_in_log, ..Marks::default() };
            let voters = membership(index, &[&[1, 2, 3]]);
            is_committed_by([1, 2], &request(TERM, 9, 2), log, &voters)
        };
        assert!(commit(Some(id(1, 5)), 5));
        assert!(!commit(Some(id(TERM, 8)), 5), "a newer one is in the log");
        assert!(commit(None, 7));
        let uncommitted = StoredMembership::new(Some(id(TERM, 8)), Membership::default());
        let log = Marks { stored: Some(id(TERM, 9)), ..Marks::default() };
        assert!(!is_committed_by([1, 2], &request(TERM, 9, 2), log, &uncommitted));
    }

    #[test]
    fn what_the_leader_told_meanwhile_is_not_told_again() {
        let (sender, receiver) = mpsc::channel(8);
        let arrivals = Arc::new(Arrivals::new());
        let mut requests = Box::pin(arrivals.requests(ReceiverStream::new(receiver)));
        let mut next = || Some(requests.next().now_or_never()?.as_ref().map(sent));
        let (one, two) = (request(TERM, 4, 4), request(TERM, 6, 2));
        sender.try_send((one.clone(), true)).unwrap();
        sender.try_send((two.clone(), false)).unwrap();
        assert_eq!((next(), next()), (Some(Some(sent(&one))), Some(Some(sent(&two)))));
        assert!(arrivals.answered(&Ok(Some(id(TERM, 4)))));
        assert_eq!(next(), None, "the second says that what is before it is committed");
    }

    #[test]
    fn what_is_stored_is_told_to_be_committed() {
        let (sender, receiver) = mpsc::channel(8);
        let arrivals = Arc::new(Arrivals::new());
        let requests = arrivals.requests(ReceiverStream::new(receiver));
        let mut requests = Box::pin(requests);
        let mut next = || Some(requests.next().now_or_never()?.as_ref().map(sent));
        let one = request(TERM, 4, 4);
        // Sent before the leader knew that the first is committed.
        let two = Request { leader_commit: one.leader_commit, ..request(TERM, 6, 2) };
        let three = request(TERM, 9, 3);
        sender.try_send((one.clone(), true)).unwrap();
        sender.try_send((two.clone(), false)).unwrap();
        assert_eq!((next(), next()), (Some(Some(sent(&one))), Some(Some(sent(&two)))));
        assert_eq!(next(), None, "openraft has not stored anything");
        assert!(arrivals.answered(&Ok(Some(id(TERM, 4)))));
        sender.try_send((three.clone(), true)).unwrap();
        let notice = Request {
            prev_log_id: Some(id(TERM, 4)),
            entries: Vec::new(),
            leader_commit: Some(id(TERM, 4)),
            ..one
        };
        assert_eq!((next(), next()), (Some(Some(sent(&notice))), Some(Some(sent(&three)))));
        assert!(arrivals.answered(&Ok(Some(id(TERM, 6)))), "the leader must tell of these");
        assert!(!arrivals.answered(&Ok(Some(id(TERM, 4)))), "the leader did not ask this");
        assert!(arrivals.answered(&Ok(Some(id(TERM, 8)))));
        assert_eq!(next(), None, "not all was stored");
        assert!(arrivals.answered(&Err(StreamAppendError::Conflict(id(TERM, 8)))));
        drop(sender);
        assert_eq!(next(), Some(None), "the stream ends with the leader's");
    }
}
