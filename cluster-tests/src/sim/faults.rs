//! What goes wrong in a simulation, and how that is done to the machines.

use std::time::{Duration, SystemTime};

use flotilla::random::Sequence;
use serde::{Deserialize, Serialize};
use turmoil::Sim;

use super::machine::name;

/// The classes of faults. Each must come up in a series of runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum FaultKind {
    /// A process dies; its connections end at once.
    Kill,
    KillLeader,
    /// All processes die at about the same time.
    KillAll,
    /// A machine vanishes without a word, and loses what its disk had not synced.
    PowerCut,
    /// A process dies, and its disk is gone: the machine comes back as another node. A cluster of
    /// three bears that once in so short a time; after that it is a [`Kill`](Self::Kill).
    DiskLoss,
    Isolate,
    IsolateLeader,
    /// Nothing arrives at a machine, or nothing leaves it.
    OneWay,
    /// Two machines cannot reach each other, the third reaches both.
    Bridge,
    /// What two machines send each other waits, and comes all at once.
    Hold,
    /// Packets get lost, so that connections break.
    Loss,
    /// One machine is far away.
    Latency,
    /// The leader is isolated, and another machine is killed.
    TwoAtOnce,
}

impl FaultKind {
    pub const ALL: [Self; 13] = [
        Self::Kill,
        Self::KillLeader,
        Self::KillAll,
        Self::PowerCut,
        Self::DiskLoss,
        Self::Isolate,
        Self::IsolateLeader,
        Self::OneWay,
        Self::Bridge,
        Self::Hold,
        Self::Loss,
        Self::Latency,
        Self::TwoAtOnce,
    ];

    /// A number's kind.
    pub(super) fn of(number: u64) -> Self {
        Self::ALL[(number % Self::ALL.len() as u64) as usize]
    }

    /// Whether it is the leader's.
    pub(super) fn means_leader(self) -> bool {
        matches!(self, Self::KillLeader | Self::IsolateLeader | Self::TwoAtOnce)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fault {
    pub kind: FaultKind,
    /// Whom it hits, or hits first.
    pub machine: usize,
    /// Of one-way faults: what it sends is lost, not what it is sent.
    pub outward: bool,
}

/// A fault to come: how long it lasts, and how long nothing else happens afterwards.
#[derive(Clone, Copy, Debug)]
pub(super) struct Episode {
    pub(super) fault: Fault,
    pub(super) lasts_ms: u64,
    pub(super) calm_ms: u64,
}

/// After so long a calm, all is as it should be.
pub(super) const LONG_CALM_MS: u64 = 7_000;

impl Episode {
    pub(super) fn draw(kind: FaultKind, draw: &mut Sequence, machines: usize) -> Self {
        let machine = draw.below(machines as u64) as usize;
        let outward = draw.below(2) == 0;
        // Some are over before a lease is, some are not.
        let lasts_ms =
            if draw.below(2) == 0 { 100 + draw.below(2_000) } else { 3_500 + draw.below(3_000) };
        let calm_ms = if draw.below(2) == 0 { LONG_CALM_MS } else { 100 + draw.below(2_000) };
        Self { fault: Fault { kind, machine, outward }, lasts_ms, calm_ms }
    }
}

/// The simulated network, and what is the matter with it.
#[derive(Debug)]
pub(super) struct Network {
    machines: usize,
    /// `open[a][b]`: what `a` sends reaches `b`.
    open: Vec<Vec<bool>>,
}

impl Network {
    pub(super) fn new(machines: usize) -> Self {
        Self { machines, open: vec![vec![true; machines]; machines] }
    }

    /// Whether two machines can talk.
    pub(super) fn are_linked(&self, a: usize, b: usize) -> bool {
        self.open[a][b] && self.open[b][a]
    }

    pub(super) fn begin(&mut self, sim: &mut Sim<'_>, fault: Fault) {
        let Fault { kind, machine, outward } = fault;
        let others: Vec<usize> = (0..self.machines).filter(|other| *other != machine).collect();
        match kind {
            FaultKind::Kill | FaultKind::KillLeader | FaultKind::KillAll | FaultKind::DiskLoss => {}
            FaultKind::PowerCut
            | FaultKind::Isolate
            | FaultKind::IsolateLeader
            | FaultKind::TwoAtOnce => {
                for other in others {
                    self.cut(sim, machine, other);
                    self.cut(sim, other, machine);
                }
            }
            FaultKind::OneWay => {
                for other in others {
                    let (from, to) = if outward { (machine, other) } else { (other, machine) };
                    self.cut(sim, from, to);
                }
            }
            FaultKind::Bridge => {
                self.cut(sim, machine, others[0]);
                self.cut(sim, others[0], machine);
            }
            FaultKind::Hold => {
                for other in others {
                    sim.hold(name(machine), name(other));
                    self.open[machine][other] = false;
                    self.open[other][machine] = false;
                }
            }
            FaultKind::Loss => sim.set_fail_rate(0.01),
            FaultKind::Latency => {
                for other in others {
                    let latency = Duration::from_millis(120);
                    sim.set_link_max_message_latency(name(machine), name(other), latency);
                }
            }
        }
    }

    pub(super) fn end(&mut self, sim: &mut Sim<'_>, fault: Fault) {
        if fault.kind == FaultKind::Loss {
            sim.set_fail_rate(0.0);
        }
        for a in 0..self.machines {
            for b in (0..self.machines).filter(|b| *b != a) {
                if fault.kind == FaultKind::Hold {
                    sim.release(name(a), name(b));
                } else {
                    sim.repair(name(a), name(b));
                }
                sim.set_link_max_message_latency(name(a), name(b), MAX_LATENCY);
                self.open[a][b] = true;
            }
        }
    }

    fn cut(&mut self, sim: &Sim<'_>, from: usize, to: usize) {
        sim.partition_oneway(name(from), name(to));
        self.open[from][to] = false;
    }
}

pub(super) const MAX_LATENCY: Duration = Duration::from_millis(8);

/// A network of machines without faults so far, and its clock. What is sent arrives at the next tick, or a later one.
pub(super) fn simulated_network(seed: u64, tick: Duration) -> Sim<'static> {
    turmoil::Builder::new()
        .rng_seed(seed)
        .epoch(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000))
        .simulation_duration(Duration::MAX)
        .tick_duration(tick)
        .min_message_latency(Duration::ZERO)
        .max_message_latency(MAX_LATENCY)
        .tcp_capacity(4096)
        .enable_random_order()
        .build()
}
