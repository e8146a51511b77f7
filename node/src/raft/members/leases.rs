//! Which nodes the leader has heard of lately: a core; time comes in.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::raft::state::{Incarnation, NodeId, Owner};

/// The leader's book of leases. Kept in memory only: a new leader starts by giving everyone a full
/// lease, so a node that its predecessor granted one keeps it.
#[derive(Debug)]
pub(crate) struct Leases {
    lease: Duration,
    /// Set while this node leads.
    leading_since: Option<Instant>,
    rows: BTreeMap<NodeId, Row>,
}

#[derive(Clone, Copy, Debug)]
struct Row {
    incarnation: Incarnation,
    until: Instant,
    /// When it was last proposed to declare the node dead.
    condemned: Option<Instant>,
}

impl Leases {
    pub(crate) fn new(lease: Duration) -> Self {
        Self { lease, leading_since: None, rows: BTreeMap::new() }
    }

    /// Begins with full leases for all.
    pub(crate) fn lead(&mut self, now: Instant) {
        self.leading_since = Some(now);
        self.rows.clear();
    }

    pub(crate) fn resign(&mut self) {
        self.leading_since = None;
        self.rows.clear();
    }

    pub(crate) fn leads(&self) -> bool {
        self.leading_since.is_some()
    }

    /// Grants `owner`, which is alive, another lease; not if this node does not lead, or if it has
    /// already proposed to declare it dead.
    pub(crate) fn renew(&mut self, owner: Owner, now: Instant) -> bool {
        if self.leading_since.is_none() {
            return false;
        }
        let until = now + self.lease;
        let row = self.rows.entry(owner.node).or_insert(Row {
            incarnation: owner.incarnation,
            until,
            condemned: None,
        });
        if row.incarnation != owner.incarnation {
            *row = Row { incarnation: owner.incarnation, until, condemned: None };
        }
        row.until = until;
        row.condemned.is_none()
    }

    /// Those of the `alive` nodes whose leases have run out, to be declared dead. Each is named
    /// again after another lease if it is still alive then, for the proposal may have failed.
    pub(crate) fn expire(
        &mut self,
        alive: impl Iterator<Item = Owner>,
        now: Instant,
    ) -> Vec<Owner> {
        let Some(since) = self.leading_since else { return Vec::new() };
        let mut expired = Vec::new();
        for owner in alive {
            // A node that the leader sees for the first time has just registered.
            let first = Row {
                incarnation: owner.incarnation,
                until: now.max(since) + self.lease,
                condemned: None,
            };
            let row = self.rows.entry(owner.node).or_insert(first);
            if row.incarnation != owner.incarnation {
                *row = first;
            }
            let due = row.condemned.is_none_or(|at| at + self.lease <= now);
            if row.until <= now && due {
                row.condemned = Some(now);
                expired.push(owner);
            }
        }
        expired
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(3);
    const A: Owner = Owner { node: 1, incarnation: 10 };
    const B: Owner = Owner { node: 2, incarnation: 11 };

    fn leader(now: Instant) -> Leases {
        let mut leases = Leases::new(LEASE);
        leases.lead(now);
        assert!(leases.expire([A, B].into_iter(), now).is_empty());
        leases
    }

    #[test]
    fn silent_node_expires_after_a_lease() {
        let start = Instant::now();
        let mut leases = leader(start);
        assert!(leases.renew(A, start + LEASE / 2));
        let before = start + LEASE - Duration::from_millis(1);
        assert!(leases.expire([A, B].into_iter(), before).is_empty());
        assert_eq!(leases.expire([A, B].into_iter(), start + LEASE), [B]);
    }

    #[test]
    fn new_leader_gives_everyone_a_full_lease() {
        let start = Instant::now();
        let mut leases = leader(start);
        leases.resign();
        assert!(!leases.renew(A, start), "only the leader grants leases");
        assert!(leases.expire([A, B].into_iter(), start + LEASE * 9).is_empty());
        let later = start + LEASE * 10;
        leases.lead(later);
        assert!(leases.expire([A, B].into_iter(), later).is_empty());
        assert_eq!(leases.expire([A, B].into_iter(), later + LEASE), [A, B]);
    }

    #[test]
    fn condemned_node_gets_no_lease() {
        let start = Instant::now();
        let mut leases = leader(start);
        assert_eq!(leases.expire([B].into_iter(), start + LEASE), [B]);
        assert!(!leases.renew(B, start + LEASE));
    }

    #[test]
    fn condemning_is_repeated_while_the_node_lives() {
        let start = Instant::now();
        let mut leases = leader(start);
        let due = start + LEASE;
        assert_eq!(leases.expire([B].into_iter(), due), [B]);
        assert!(leases.expire([B].into_iter(), due + LEASE / 2).is_empty());
        assert_eq!(leases.expire([B].into_iter(), due + LEASE), [B]);
    }

    #[test]
    fn new_incarnation_has_a_lease_of_its_own() {
        let start = Instant::now();
        let mut leases = leader(start);
        assert_eq!(leases.expire([B].into_iter(), start + LEASE), [B]);
        let again = Owner { incarnation: 20, ..B };
        assert!(leases.expire([again].into_iter(), start + LEASE).is_empty());
        assert!(leases.renew(again, start + LEASE));
    }
}
