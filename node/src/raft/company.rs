//! Whom a draining node can still agree with: without a majority there is nothing left to wait for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use flotilla_proto::raft as proto;
use futures_util::future::join_all;
use openraft::async_runtime::watch::WatchReceiver;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::core::Core;
use super::receipt::Status;
use super::state::{NodeId, NodeStatus};
use super::types::Member;

/// Between two rounds of questions to the other voters.
const ROUND: Duration = Duration::from_millis(50);

/// A voter that has not answered by then is silent in this round. One whose process has ended
/// refuses the connection, which is known at once.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// A silent voter that did not say that it drains is given so long to come back.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a node that drains knows of the other voters. Written by its own task alone.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Company {
    /// Those that answered in the last round; None before the first one has ended.
    pub(crate) answering: Option<BTreeSet<NodeId>>,
    /// Nothing will be agreed here any more: a majority is gone, or consensus has failed.
    pub(crate) is_over: bool,
}

/// Looks for the other voters from when this node drains until it stops.
///
/// Nodes that are stopped together would otherwise wait for one another: each for answers of those
/// that have already ended.
pub(super) async fn watch_company(core: &Core, stop: CancellationToken) {
    tokio::select! {
        () = watch(core) => {}
        () = stop.cancelled() => {}
    }
}

async fn watch(core: &Core) {
    let mut status = core.status.subscribe();
    // The sender lives as long as this task's own reference to it.
    let _ = status.wait_for(|status| *status == Status::Draining).await;
    let mut absence = Absence::default();
    while !core.company.borrow().is_over {
        let (failed, voters, members) = electorate(core);
        let others = members.into_iter().filter(|(node, _)| *node != core.me);
        let answering: BTreeSet<NodeId> = join_all(others.map(|member| ask(core, member)))
            .await
            .into_iter()
            .flatten()
            .chain([core.me])
            .collect();
        let view = core.view.load();
        let is_leaving = |node| view.node(node).is_some_and(|row| row.status != NodeStatus::Alive);
        absence.note(&voters, &answering, is_leaving, Instant::now());
        let is_over = failed || !absence.leaves_a_majority(&voters);
        if is_over {
            info!(failed, answering = answering.len(), "too few voters are left to agree with");
        }
        core.company.send_replace(Company { answering: Some(answering), is_over });
        tokio::time::sleep(ROUND).await;
    }
}

/// Whether consensus has failed, the sets of voters that must agree, and who they are.
fn electorate(core: &Core) -> (bool, Vec<BTreeSet<NodeId>>, BTreeMap<NodeId, Member>) {
    // Copied at once: a borrowed metric that is held blocks the core.
    let metrics = core.consensus.metrics().borrow_watched().clone();
    let membership = metrics.membership_config.membership();
    let voters = membership.get_joint_config().clone();
    let members = membership
        .nodes()
        .filter(|(node, _)| voters.iter().any(|set| set.contains(node)))
        .map(|(node, member)| (*node, member.clone()))
        .collect();
    (metrics.running_state.is_err(), voters, members)
}

/// The voter, if it still serves other nodes.
async fn ask(core: &Core, (node, member): (NodeId, Member)) -> Option<NodeId> {
    let mut client = core.directory.stranger_at(node, &member.address).ok()?;
    let call = client.meet(proto::MeetRequest { from: None });
    let reply = tokio::time::timeout(ANSWER_TIMEOUT, call).await.ok()?.ok()?;
    // Another node may be there by now.
    (reply.into_inner().from?.node == node).then_some(node)
}

/// Which voters are gone: a core; time comes in.
#[derive(Debug, Default)]
struct Absence {
    silent_since: BTreeMap<NodeId, Instant>,
    gone: BTreeSet<NodeId>,
}

impl Absence {
    /// Notes a round of answers. A voter that said that it leaves is gone once it is silent, any
    /// other after [`PATIENCE`], for its link may only be broken.
    fn note(
        &mut self,
        voters: &[BTreeSet<NodeId>],
        answering: &BTreeSet<NodeId>,
        is_leaving: impl Fn(NodeId) -> bool,
        now: Instant,
    ) {
        self.gone.clear();
        self.silent_since.retain(|node, _| !answering.contains(node));
        for node in voters.iter().flatten().filter(|node| !answering.contains(node)) {
            let since = *self.silent_since.entry(*node).or_insert(now);
            if is_leaving(*node) || now.saturating_duration_since(since) >= PATIENCE {
                self.gone.insert(*node);
            }
        }
    }

    /// During a change of the membership, a majority of the old voters and one of the new.
    fn leaves_a_majority(&self, voters: &[BTreeSet<NodeId>]) -> bool {
        voters.iter().all(|set| set.difference(&self.gone).count() * 2 > set.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(nodes: &[NodeId]) -> BTreeSet<NodeId> {
        nodes.iter().copied().collect()
    }

    #[test]
    fn voters_that_said_goodbye_are_gone_once_they_are_silent() {
        let voters = [set(&[1, 2, 3])];
        let now = Instant::now();
        let mut absence = Absence::default();
        absence.note(&voters, &set(&[1, 2, 3]), |_| true, now);
        assert!(absence.leaves_a_majority(&voters), "they drain, and still answer");
        absence.note(&voters, &set(&[1, 2]), |_| true, now);
        assert!(absence.leaves_a_majority(&voters), "two of three");
        absence.note(&voters, &set(&[1]), |_| true, now);
        assert!(!absence.leaves_a_majority(&voters));
    }

    #[test]
    fn voters_that_fell_silent_are_waited_for() {
        let voters = [set(&[1, 2, 3])];
        let start = Instant::now();
        let mut absence = Absence::default();
        let mut note = |answering: &[NodeId], after: Duration| {
            absence.note(&voters, &set(answering), |_| false, start + after);
            absence.leaves_a_majority(&voters)
        };
        assert!(note(&[1], Duration::ZERO));
        assert!(note(&[1], PATIENCE - Duration::from_millis(1)));
        assert!(note(&[1, 2], PATIENCE), "one came back");
        assert!(
            note(&[1], PATIENCE + Duration::from_millis(1)),
            "and is silent for the first time"
        );
        assert!(!note(&[1], PATIENCE * 3));
    }

    #[test]
    fn a_single_voter_and_one_without_a_cluster_have_nobody_to_lose() {
        let mut absence = Absence::default();
        for voters in [vec![set(&[1])], vec![]] {
            absence.note(&voters, &set(&[1]), |_| true, Instant::now());
            assert!(absence.leaves_a_majority(&voters));
        }
    }

    #[test]
    fn old_and_new_voters_must_both_have_a_majority() {
        let voters = [set(&[1, 2, 3]), set(&[1, 4, 5])];
        let mut absence = Absence::default();
        absence.note(&voters, &set(&[1, 2, 3, 4]), |_| true, Instant::now());
        assert!(absence.leaves_a_majority(&voters));
        absence.note(&voters, &set(&[1, 2, 3]), |_| true, Instant::now());
        assert!(!absence.leaves_a_majority(&voters));
    }
}
