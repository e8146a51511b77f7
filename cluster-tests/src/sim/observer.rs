//! Looks at all machines after each simulated millisecond, for what no client can see.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flotilla::raft::state::{Owner, SocketId, SocketView, State};
use flotilla::raft::{Raft, Status};

use super::checks::Violation;
use super::faults::Network;
use super::machine::Machine;

/// A node without its peers must fence itself within the lease.
const LEASE_MS: u64 = 3_000;

/// A state's digest costs as much as its snapshot, so not all are compared. States that have parted
/// stay apart.
const COMPARED_EVERY: u64 = 4;

/// A dead node's sockets are gone after so long.
const GHOSTS_GONE_MS: u64 = 5_000;

#[derive(Debug)]
pub(super) struct Observer {
    /// What a replica had agreed on at an index: the first to come there says, the others must agree.
    digests: BTreeMap<u64, (usize, u64)>,
    pub(super) states_compared: usize,
    pub(super) fences_checked: usize,
    pub(super) deaths_checked: usize,
    /// The index that each machine was last seen at.
    seen: Vec<u64>,
    /// Since when each machine has no link to another one that runs.
    lonely_since: Vec<Option<u64>>,
    /// Incarnations that died, and when their sockets must be gone if nothing else happens.
    dead: Vec<(Owner, u64)>,
    pub(super) violations: Vec<Violation>,
}

impl Observer {
    pub(super) fn new(machines: usize) -> Self {
        Self {
            digests: BTreeMap::new(),
            states_compared: 0,
            fences_checked: 0,
            deaths_checked: 0,
            seen: vec![0; machines],
            lonely_since: vec![None; machines],
            dead: Vec::new(),
            violations: Vec::new(),
        }
    }

    /// Looks at everything at `ms`.
    pub(super) fn look(&mut self, ms: u64, machines: &[Arc<Machine>], network: &Network) {
        let rafts: Vec<_> = machines.iter().map(|machine| machine.raft()).collect();
        for (machine, raft) in rafts.iter().enumerate() {
            let Some(raft) = raft else {
                self.seen[machine] = 0;
                self.lonely_since[machine] = None;
                continue;
            };
            self.compare(machine, &raft.view());
            let linked = |peer: usize| {
                peer != machine && rafts[peer].is_some() && network.are_linked(machine, peer)
            };
            let is_lonely = !(0..machines.len()).any(linked);
            self.check_fence(ms, machine, is_lonely, raft);
        }
        self.check_ghosts(ms, &rafts);
    }

    fn compare(&mut self, machine: usize, view: &State) {
        let index = view.index();
        if self.seen[machine] == index {
            return;
        }
        self.seen[machine] = index;
        if !index.is_multiple_of(COMPARED_EVERY) {
            return;
        }
        let digest = view.digest();
        let (first, expected) = *self.digests.entry(index).or_insert((machine, digest));
        if first != machine {
            self.states_compared += 1;
        }
        if expected != digest {
            self.violate(Violation::Diverged { index, machines: [first, machine] });
        }
    }

    fn check_fence(&mut self, ms: u64, machine: usize, is_lonely: bool, raft: &Raft) {
        if !is_lonely {
            self.lonely_since[machine] = None;
            return;
        }
        let since = *self.lonely_since[machine].get_or_insert(ms);
        if ms <= since + LEASE_MS {
            return;
        }
        self.fences_checked += 1;
        if *raft.status().borrow() == Status::Ready {
            self.violate(Violation::NotFenced { machine, ms });
            self.lonely_since[machine] = Some(ms);
        }
    }

    /// A process is about to be killed at `ms`, while all is well otherwise.
    pub(super) fn note_death(&mut self, ms: u64, raft: &Raft) {
        if let Some(incarnation) = raft.incarnation() {
            let owner = Owner { node: raft.node_id(), incarnation };
            self.dead.push((owner, ms + GHOSTS_GONE_MS));
        }
    }

    /// Something else goes wrong: when the dead are noticed is anybody's guess.
    pub(super) fn forget_dead(&mut self) {
        self.dead.clear();
    }

    fn check_ghosts(&mut self, ms: u64, rafts: &[Option<Arc<Raft>>]) {
        let Some(at) = self.dead.iter().position(|(_, due)| *due <= ms) else { return };
        let (dead, _) = self.dead.remove(at);
        for (machine, raft) in rafts.iter().enumerate() {
            // One that has just started does not know of anything yet.
            let Some(raft) = raft else { continue };
            if *raft.status().borrow() != Status::Ready {
                continue;
            }
            self.deaths_checked += 1;
            if raft.view().sockets().any(|socket| socket.owner() == dead) {
                self.violate(Violation::Ghosts { machine, ms });
            }
        }
    }

    /// All has been well for long.
    pub(super) fn check_available(&mut self, ms: u64, machines: &[Arc<Machine>]) {
        for machine in machines {
            let status = machine.raft().map(|raft| *raft.status().borrow());
            if status != Some(Status::Ready) {
                self.violate(Violation::Unavailable { machine: machine.number, ms });
            }
        }
    }

    /// Nothing is on its way any more: all replicas are equal, and know exactly the sockets that live.
    /// Those of `missing` clients may be there too, but nobody's: their window may not be over.
    pub(super) fn check_rest(
        &mut self,
        machines: &[Arc<Machine>],
        living: &BTreeSet<SocketId>,
        missing: &BTreeSet<SocketId>,
    ) {
        let views: Vec<_> = machines.iter().filter_map(|machine| machine.raft()).collect();
        let views: Vec<_> = views.iter().map(|raft| raft.view()).collect();
        for (machine, view) in views.iter().enumerate() {
            let waits =
                |socket: &SocketView<'_>| socket.is_detached() && missing.contains(&socket.id());
            let known: BTreeSet<SocketId> =
                view.sockets().filter(|socket| !waits(socket)).map(|socket| socket.id()).collect();
            if view.digest() != views[0].digest() || known != *living {
                let missing = living.difference(&known).count();
                let ghosts = known.difference(living).count();
                self.violate(Violation::Unrest { machine, index: view.index(), missing, ghosts });
            }
        }
    }

    pub(super) fn violate(&mut self, violation: Violation) {
        self.violations.push(violation);
    }
}
