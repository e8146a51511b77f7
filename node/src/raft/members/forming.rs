//! Decides when a cluster forms, and of whom: a core, without I/O.
//!
//! Nodes with empty disks tell each other whom they see. Once enough of them see the same set, the
//! one with the lowest id founds the cluster: it asks each of the first nodes of the set to pledge
//! itself to this cluster and no other, and starts it when all have. A pledge is kept on disk, and
//! only the founder's own word that it gave up frees a node from it. So there are never two
//! clusters: each would need all of its members' pledges, and a node gives but one.

use std::collections::{BTreeMap, BTreeSet};

use crate::raft::state::NodeId;
use crate::raft::types::Member;

/// What another node answered when it was met.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Meeting {
    pub(super) node: NodeId,
    pub(super) member: Member,
    /// Its cluster, or the one it has pledged itself to; 0: none.
    pub(super) cluster: u64,
    pub(super) formed: bool,
    /// Whom it saw, itself included.
    pub(super) seen: BTreeSet<NodeId>,
}

/// This node, as far as it matters here.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Own {
    pub(super) node: NodeId,
    pub(super) member: Member,
    /// The cluster that it has pledged itself to; 0: none.
    pub(super) cluster: u64,
    pub(super) founder: NodeId,
    /// How many nodes make a cluster.
    pub(super) expect: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// Meet again in a moment.
    Wait,
    /// There is a cluster: become a member of it, through the node at this address.
    Join { cluster: u64, node: NodeId, address: String },
    /// Found a cluster of these nodes.
    Found(BTreeMap<NodeId, Member>),
    /// Carry on with the founding that was begun.
    Resume,
    /// The founder gave up: the pledge is void.
    Release,
}

/// What to do after a round of meetings. `complete`: every seed was met.
pub(super) fn next_step(own: &Own, meetings: &[Meeting], complete: bool) -> Step {
    let formed =
        meetings.iter().find(|met| met.formed && (own.cluster == 0 || met.cluster == own.cluster));
    if let Some(met) = formed {
        let address = met.member.address.clone();
        return Step::Join { cluster: met.cluster, node: met.node, address };
    }
    if own.cluster != 0 {
        return pledged_step(own, meetings);
    }
    if meetings.iter().any(|met| met.formed || met.cluster != 0) {
        return Step::Wait;
    }
    // A cluster of one must not form beside another that a seed knows of.
    if own.expect == 1 && !complete {
        return Step::Wait;
    }
    let mut set: BTreeMap<NodeId, Member> =
        meetings.iter().map(|met| (met.node, met.member.clone())).collect();
    set.insert(own.node, own.member.clone());
    let ids: BTreeSet<NodeId> = set.keys().copied().collect();
    let agreed = meetings.iter().all(|met| met.node == own.node || met.seen == ids);
    if set.len() < own.expect || !agreed || ids.first() != Some(&own.node) {
        return Step::Wait;
    }
    // Whoever is left over joins once the cluster is there.
    Step::Found(set.into_iter().take(own.expect).collect())
}

fn pledged_step(own: &Own, meetings: &[Meeting]) -> Step {
    if own.founder == own.node {
        return Step::Resume;
    }
    let founder = meetings.iter().find(|met| met.node == own.founder);
    match founder {
        Some(met) if met.cluster != own.cluster => Step::Release,
        Some(_) | None => Step::Wait,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(node: NodeId) -> Member {
        Member { name: format!("n{node}"), address: format!("host:{node}") }
    }

    fn own(node: NodeId) -> Own {
        Own { node, member: member(node), cluster: 0, founder: 0, expect: 3 }
    }

    fn met(node: NodeId, seen: &[NodeId]) -> Meeting {
        let seen = seen.iter().copied().collect();
        Meeting { node, member: member(node), cluster: 0, formed: false, seen }
    }

    fn founds(step: Step) -> Vec<NodeId> {
        let Step::Found(set) = step else { panic!("{step:?} is no founding") };
        set.into_keys().collect()
    }

    #[test]
    fn lowest_id_founds_once_all_see_the_same() {
        let all = [1, 2, 3];
        let meetings = [met(1, &all), met(2, &all), met(3, &all)];
        assert_eq!(founds(next_step(&own(1), &meetings, true)), all);
        assert_eq!(next_step(&own(2), &meetings, true), Step::Wait);
        assert_eq!(next_step(&own(3), &meetings, true), Step::Wait);
    }

    #[test]
    fn too_few_nodes_never_found() {
        assert_eq!(next_step(&own(1), &[], false), Step::Wait);
        let meetings = [met(1, &[1, 2]), met(2, &[1, 2])];
        assert_eq!(next_step(&own(1), &meetings, true), Step::Wait);
    }

    #[test]
    fn different_views_do_not_found() {
        let meetings = [met(2, &[1, 2, 3]), met(3, &[2, 3])];
        assert_eq!(next_step(&own(1), &meetings, true), Step::Wait);
    }

    #[test]
    fn of_more_nodes_the_first_found_and_the_others_wait() {
        let all = [1, 2, 3, 4];
        let meetings = [met(2, &all), met(3, &all), met(4, &all)];
        assert_eq!(founds(next_step(&own(1), &meetings, true)), [1, 2, 3]);
    }

    #[test]
    fn existing_cluster_is_joined_not_rivalled() {
        let all = [1, 2, 3];
        let mut formed = met(3, &all);
        formed.formed = true;
        formed.cluster = 9;
        let meetings = [met(2, &all), formed];
        let join = Step::Join { cluster: 9, node: 3, address: "host:3".to_owned() };
        assert_eq!(next_step(&own(1), &meetings, true), join);
    }

    #[test]
    fn founding_of_others_is_waited_for() {
        let all = [1, 2, 3];
        let mut pledged = met(2, &all);
        pledged.cluster = 9;
        assert_eq!(next_step(&own(1), &[pledged, met(3, &all)], true), Step::Wait);
    }

    #[test]
    fn pledge_holds_until_its_founder_gives_up() {
        let pledged = Own { cluster: 9, founder: 1, ..own(2) };
        let all = [2, 3, 4];
        let others = [met(3, &all), met(4, &all)];
        assert_eq!(next_step(&pledged, &others, true), Step::Wait, "the founder is silent");
        let mut founder = met(1, &[1]);
        founder.cluster = 9;
        assert_eq!(next_step(&pledged, &[founder.clone()], true), Step::Wait);
        founder.cluster = 0;
        assert_eq!(next_step(&pledged, &[founder], true), Step::Release);
    }

    #[test]
    fn pledged_node_joins_no_other_cluster() {
        let pledged = Own { cluster: 9, founder: 1, ..own(2) };
        let mut formed = met(3, &[3]);
        formed.formed = true;
        formed.cluster = 8;
        assert_eq!(next_step(&pledged, &[formed], true), Step::Wait);
    }

    #[test]
    fn cluster_of_one_forms_only_after_every_seed_was_asked() {
        let alone = Own { expect: 1, ..own(1) };
        assert_eq!(next_step(&alone, &[], false), Step::Wait);
        assert_eq!(founds(next_step(&alone, &[], true)), [1]);
    }
}
