//! Which members vote: a core.
//!
//! Three or five nodes vote; the others learn, and take the place of a voter that has died.

use std::collections::BTreeSet;

use crate::raft::state::NodeId;

/// A member as the leader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) node: NodeId,
    /// It answers, and has nearly all of the log.
    pub(super) healthy: bool,
    /// It has not answered for so long that it may be replaced.
    pub(super) dead: bool,
}

/// The voters that there should be instead of `voters`; None if they may stay.
pub(super) fn better_voters(
    voters: &BTreeSet<NodeId>,
    members: &[Candidate],
    target: usize,
) -> Option<BTreeSet<NodeId>> {
    let mut better = voters.clone();
    let mut spare = members.iter().filter(|m| m.healthy && !voters.contains(&m.node));
    // One at a time, so that the majority that decides it remains one.
    let dead = members.iter().find(|m| m.dead && voters.contains(&m.node));
    if let Some(dead) = dead {
        if let Some(replacement) = spare.next() {
            better.remove(&dead.node);
            better.insert(replacement.node);
            return Some(better);
        }
        return None;
    }
    // An even number of voters survives no more failures than one fewer, and fails more often.
    let wanted = target.saturating_sub(voters.len());
    let promoted: Vec<_> = spare.take(wanted).collect();
    let odd = promoted.len() - (voters.len() + promoted.len() + 1) % 2;
    better.extend(promoted.into_iter().take(odd).map(|m| m.node));
    (better != *voters).then_some(better)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn healthy(node: NodeId) -> Candidate {
        Candidate { node, healthy: true, dead: false }
    }

    fn dead(node: NodeId) -> Candidate {
        Candidate { node, healthy: false, dead: true }
    }

    fn set(nodes: &[NodeId]) -> BTreeSet<NodeId> {
        nodes.iter().copied().collect()
    }

    #[test]
    fn enough_voters_stay() {
        let members = [healthy(1), healthy(2), healthy(3), healthy(4)];
        assert_eq!(better_voters(&set(&[1, 2, 3]), &members, 3), None);
    }

    #[test]
    fn learners_are_promoted_to_an_odd_number() {
        let members = [healthy(1), healthy(2), healthy(3)];
        assert_eq!(better_voters(&set(&[1]), &members[..2], 3), None);
        assert_eq!(better_voters(&set(&[1]), &members, 3), Some(set(&[1, 2, 3])));
        assert_eq!(better_voters(&set(&[1, 2]), &members, 3), Some(set(&[1, 2, 3])));
    }

    #[test]
    fn dead_voter_is_replaced_by_a_healthy_learner() {
        let voters = set(&[1, 2, 3]);
        assert_eq!(better_voters(&voters, &[healthy(1), healthy(2), dead(3)], 3), None);
        let members = [healthy(1), healthy(2), dead(3), dead(4), healthy(5)];
        assert_eq!(better_voters(&voters, &members, 3), Some(set(&[1, 2, 5])));
    }
}
