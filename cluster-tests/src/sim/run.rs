//! One run of the simulation, from a seed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use flotilla::metrics;
use flotilla::raft::{MemoryDisk, PlantedBug, Status};
use flotilla::random::{self, Sequence};
use serde::{Deserialize, Serialize};
use turmoil::Sim;

use super::checks::{self, Violation};
use super::faults::{Episode, Fault, FaultKind, LONG_CALM_MS, Network, simulated_network};
use super::history::{Event, History};
use super::machine::{Machine, name};
use super::observer::Observer;
use super::traffic::Town;

pub const MACHINES: usize = 3;

/// How long a cluster may take to form.
const FORMING_MS: u64 = 20_000;

/// What is sent arrives at the next tick, or a later one.
const TICK_MS: u64 = 2;

/// Of a disk that takes the place of one that was lost.
const SYNC_TIME: Duration = Duration::from_millis(3);

/// At the end: to say the last word, and to hear what is on its way, which a proposal may be for
/// several of its timeouts.
const LAST_WORDS_MS: u64 = 2_000;
const LISTENING_MS: u64 = 8_000;

/// What to simulate.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    pub seed: u64,
    /// Faults begin as long as this lasts.
    pub trouble: Duration,
    pub bug: Option<PlantedBug>,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    pub history: History,
    pub violations: Vec<Violation>,
    pub coverage: Coverage,
}

/// What a run has to say something about.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Coverage {
    /// How often each class of faults came up.
    pub faults: BTreeMap<FaultKind, usize>,
    /// States of two replicas that were compared at the same index.
    pub states_compared: usize,
    /// Writes that a crash took from a disk before they were synced.
    pub writes_lost: usize,
    /// Rounds that followers knew to be committed by themselves.
    pub early_commits: u64,
    /// Nodes that were looked at when they had been without their peers for a lease.
    pub fences_checked: usize,
    /// Deaths after which it was seen whether the sockets had gone.
    pub deaths_checked: usize,
}

impl Coverage {
    /// That of several runs together.
    pub fn add(&mut self, other: &Self) {
        for (kind, times) in &other.faults {
            *self.faults.entry(*kind).or_default() += times;
        }
        self.states_compared += other.states_compared;
        self.writes_lost += other.writes_lost;
        self.early_commits += other.early_commits;
        self.fences_checked += other.fences_checked;
        self.deaths_checked += other.deaths_checked;
    }
}

impl Run {
    pub fn execute(self) -> Outcome {
        let _seeded = random::seed_thread(self.seed);
        let mut world = World::new(self.seed, self.bug);
        if let Err(error) = world.live(self.trouble.as_millis() as u64) {
            world.observer.violate(Violation::Failed(error));
        }
        world.close()
    }
}

struct World {
    sim: Sim<'static>,
    ms: u64,
    seed: u64,
    draw: Sequence,
    machines: Vec<Arc<Machine>>,
    network: Network,
    observer: Observer,
    history: History,
    town: Town,
    coverage: Coverage,
    /// All was well for long when the last fault began.
    was_settled: bool,
    lost_disk: bool,
    bug: Option<PlantedBug>,
}

/// Why a simulation cannot go on.
type Broken = String;

impl World {
    fn new(seed: u64, bug: Option<PlantedBug>) -> Self {
        let mut draw = Sequence::new(seed);
        let mut sim = simulated_network(seed, Duration::from_millis(TICK_MS));
        let (history, town) = (History::default(), Town::default());
        // Only where clocks agree it is certain how long clients may be away.
        let max_skew_ms = if seed.is_multiple_of(2) { 20_000 } else { 2_000 };
        let machines: Vec<_> = (0..MACHINES)
            .map(|number| {
                // Many are told that a write is stored when it is made, as by an operating system.
                let sync_time = Duration::from_millis(draw.below(9).saturating_sub(3));
                let disk = MemoryDisk::slow(sync_time).with_planted_bug(bug);
                Arc::new(Machine {
                    number,
                    count: MACHINES,
                    expected: MACHINES,
                    disk: Mutex::new(disk),
                    skew_ms: draw.below(max_skew_ms),
                    history: history.clone(),
                    town: town.clone(),
                    raft: Mutex::new(Weak::new()),
                })
            })
            .collect();
        for machine in &machines {
            let machine = machine.clone();
            sim.host(name(machine.number), move || machine.clone().run());
        }
        Self {
            sim,
            ms: 0,
            seed,
            draw,
            machines,
            network: Network::new(MACHINES),
            observer: Observer::new(MACHINES),
            history,
            town,
            coverage: Coverage::default(),
            was_settled: true,
            lost_disk: false,
            bug,
        }
    }

    fn live(&mut self, trouble_ms: u64) -> Result<(), Broken> {
        self.form()?;
        self.pass(1_000)?;
        let until = self.ms + trouble_ms;
        // A row of seeds has every kind of fault.
        let mut next_kind = Some(FaultKind::of(self.seed));
        while self.ms < until {
            let kind = next_kind.take().unwrap_or_else(|| FaultKind::of(self.draw.next()));
            let episode = Episode::draw(kind, &mut self.draw, MACHINES);
            self.suffer(episode)?;
        }
        self.pass(LONG_CALM_MS)?;
        self.observer.check_available(self.ms, &self.machines);
        self.pass(LAST_WORDS_MS)?;
        self.town.hush();
        self.pass(LISTENING_MS)?;
        let living = self.town.sockets_of(&self.history.living());
        let missing = self.town.travellers.missing();
        self.observer.check_rest(&self.machines, &living, &missing);
        Ok(())
    }

    fn form(&mut self) -> Result<(), Broken> {
        let is_ready = |machine: &Arc<Machine>| {
            machine.raft().is_some_and(|raft| *raft.status().borrow() == Status::Ready)
        };
        while !self.machines.iter().all(is_ready) {
            if self.ms >= FORMING_MS {
                return Err("no cluster was formed".to_owned());
            }
            self.pass(1)?;
        }
        Ok(())
    }

    /// One fault, from its beginning to the end of the calm after it.
    fn suffer(&mut self, Episode { mut fault, lasts_ms, calm_ms }: Episode) -> Result<(), Broken> {
        if fault.kind.means_leader() {
            fault.machine = self.leader().unwrap_or(fault.machine);
        }
        *self.coverage.faults.entry(fault.kind).or_default() += 1;
        self.history.add_at(self.ms, Event::Fault(fault));
        self.observer.forget_dead();
        self.network.begin(&mut self.sim, fault);
        let victims = Self::victims(fault);
        for victim in &victims {
            self.kill(*victim, fault.kind);
            let apart_ms = self.draw.below(50);
            self.pass(apart_ms)?;
        }
        self.pass(lasts_ms)?;
        self.network.end(&mut self.sim, fault);
        for victim in victims {
            self.sim.bounce(name(victim));
            let apart_ms = self.draw.below(500);
            self.pass(apart_ms)?;
        }
        self.history.add_at(self.ms, Event::Healed(fault));
        self.pass(calm_ms)?;
        self.was_settled = calm_ms >= LONG_CALM_MS;
        if self.was_settled {
            self.observer.check_available(self.ms, &self.machines);
        }
        Ok(())
    }

    /// Those whose processes die.
    fn victims(Fault { kind, machine, .. }: Fault) -> Vec<usize> {
        match kind {
            FaultKind::Kill | FaultKind::KillLeader | FaultKind::PowerCut | FaultKind::DiskLoss => {
                vec![machine]
            }
            FaultKind::TwoAtOnce => vec![(machine + 1) % MACHINES],
            FaultKind::KillAll => (machine..machine + MACHINES).map(|m| m % MACHINES).collect(),
            FaultKind::Isolate
            | FaultKind::IsolateLeader
            | FaultKind::OneWay
            | FaultKind::Bridge
            | FaultKind::Hold
            | FaultKind::Loss
            | FaultKind::Latency => Vec::new(),
        }
    }

    fn kill(&mut self, machine: usize, kind: FaultKind) {
        let victim = self.machines[machine].clone();
        let is_alone = !matches!(kind, FaultKind::KillAll | FaultKind::TwoAtOnce);
        if let (true, Some(raft)) = (is_alone && self.was_settled, victim.raft()) {
            self.observer.note_death(self.ms, &raft);
        }
        self.sim.crash(name(machine));
        self.coverage.writes_lost += victim.disk().crash();
        if kind == FaultKind::DiskLoss && !self.lost_disk {
            self.lost_disk = true;
            *victim.disk() = MemoryDisk::slow(SYNC_TIME).with_planted_bug(self.bug);
        }
        for client in self.history.living_on(machine) {
            let traveller = self.town.travellers.get(client);
            let loses = traveller.map(|traveller| traveller.lose(self.ms));
            self.history.add_at(self.ms, loses.unwrap_or(Event::Ended { client }));
        }
        *victim.raft.lock().expect("nothing panics while it holds it") = Weak::new();
    }

    fn leader(&self) -> Option<usize> {
        let leads =
            |machine: &&Arc<Machine>| machine.raft().is_some_and(|raft| raft.numbers().is_leader);
        self.machines.iter().find(leads).map(|machine| machine.number)
    }

    /// Lets simulated time pass: at least so much.
    fn pass(&mut self, ms: u64) -> Result<(), Broken> {
        for _ in 0..ms.div_ceil(TICK_MS) {
            self.sim.step().map_err(|error| error.to_string())?;
            self.ms += TICK_MS;
            self.observer.look(self.ms, &self.machines, &self.network);
        }
        Ok(())
    }

    /// The end: what clients saw is checked.
    fn close(self) -> Outcome {
        let Self { sim, observer, history, mut coverage, machines, .. } = self;
        let skew_ms = machines.iter().map(|machine| machine.skew_ms).max().unwrap_or_default();
        // The processes end before what they write to is judged.
        drop(sim);
        let mut violations = observer.violations;
        violations.extend(checks::check(&history.events(), skew_ms));
        coverage.early_commits = metrics::EARLY_COMMITS.total();
        coverage.states_compared = observer.states_compared;
        coverage.fences_checked = observer.fences_checked;
        coverage.deaths_checked = observer.deaths_checked;
        Outcome { history, violations, coverage }
    }
}
