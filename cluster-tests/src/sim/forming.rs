//! A simulation of how a cluster forms: from empty disks, by way of slow and broken links, of machines that start one
//! after the other and die meanwhile.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use flotilla::raft::{MemoryDisk, PlantedBug, Status};
use flotilla::random::{self, Sequence};
use serde::{Deserialize, Serialize};
use tokio_util::task::TaskTracker;
use turmoil::Sim;

use super::checks::Violation;
use super::faults::{MAX_LATENCY, simulated_network};
use super::history::History;
use super::machine::{Machine, name};
use super::traffic::Town;

/// How many machines make a cluster. In some runs there is one more, which joins it.
const EXPECTED: usize = 3;

/// What is sent arrives at the next tick, or a later one.
const TICK_MS: u64 = 4;

/// When links are calm at the soonest.
const CALM_FROM_MS: u64 = 1_200;

/// Once all is well, the cluster must be there after so long. A founder that does not get its pledges gives up after
/// ten seconds; then all begin anew.
const PATIENCE_MS: u64 = 15_000;

/// The forming of a cluster, from a seed.
#[derive(Clone, Copy, Debug)]
pub struct Forming {
    pub seed: u64,
    pub bug: Option<PlantedBug>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Formed {
    pub seed: u64,
    /// The cluster's id, if all machines came to be members of one.
    pub cluster: Option<u64>,
    /// When that was.
    pub ms: u64,
    /// Machines that died before.
    pub deaths: usize,
    /// Of these, those that had pledged themselves, and had no cluster yet.
    pub deaths_of_pledged: usize,
    /// A machine was not of the first ones.
    pub has_latecomer: bool,
    pub violations: Vec<Violation>,
}

/// What happens to machines, each at its time.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    Death {
        machine: usize,
    },
    Return {
        machine: usize,
    },
    /// What `from` sends does not reach `to`.
    Cut {
        from: usize,
        to: usize,
    },
    Repair {
        from: usize,
        to: usize,
    },
    Slow {
        link: [usize; 2],
        latency_ms: u64,
    },
}

impl Forming {
    pub fn execute(self) -> Formed {
        let _seeded = random::seed_thread(self.seed);
        let mut world = World::new(self);
        if let Err(error) = world.live() {
            world.formed.violations.push(Violation::Failed(error));
        }
        world.formed
    }
}

struct World {
    sim: Sim<'static>,
    ms: u64,
    draw: Sequence,
    machines: Vec<Arc<Machine>>,
    /// When each happens: the first one last.
    troubles: Vec<(u64, Trouble)>,
    /// Who has been seen with a pledge and without a cluster.
    have_pledged: BTreeSet<usize>,
    /// From then on all is well.
    calm_from_ms: u64,
    /// Clusters that a machine was a member of.
    clusters: BTreeSet<u64>,
    formed: Formed,
}

impl World {
    fn new(Forming { seed, bug }: Forming) -> Self {
        let mut draw = Sequence::new(seed);
        let count = EXPECTED + usize::from(draw.below(4) == 0);
        let mut sim = simulated_network(seed, Duration::from_millis(TICK_MS));
        let machines: Vec<_> = (0..count).map(|number| machine(number, count, bug)).collect();
        let mut started_ms = 0;
        for machine in &machines {
            // Most are started at about the same time.
            let range_ms = if draw.below(8) == 0 { 2_000 } else { 200 };
            let starts_at_ms = draw.below(range_ms);
            started_ms = started_ms.max(starts_at_ms);
            let starts_after = Duration::from_millis(starts_at_ms);
            let (machine, has_started) = (machine.clone(), Arc::new(AtomicBool::new(false)));
            sim.host(name(machine.number), move || {
                let (machine, has_started) = (machine.clone(), has_started.clone());
                async move {
                    if !has_started.swap(true, Ordering::Relaxed) {
                        tokio::time::sleep(starts_after).await;
                    }
                    let _backbone = machine.start(&TaskTracker::new()).await?;
                    std::future::pending().await
                }
            });
        }
        let troubles = draw_troubles(count, started_ms, &mut draw);
        let calm_from_ms = troubles.iter().map(|(ms, _)| *ms).max().unwrap_or(0).max(CALM_FROM_MS);
        let formed = Formed {
            seed,
            cluster: None,
            ms: 0,
            deaths: 0,
            deaths_of_pledged: 0,
            has_latecomer: count > EXPECTED,
            violations: Vec::new(),
        };
        Self {
            sim,
            ms: 0,
            draw,
            machines,
            troubles,
            have_pledged: BTreeSet::new(),
            calm_from_ms,
            clusters: BTreeSet::new(),
            formed,
        }
    }

    fn live(&mut self) -> Result<(), String> {
        let mut is_calm = false;
        while self.formed.cluster.is_none() || !self.troubles.is_empty() {
            if !is_calm && self.ms >= self.calm_from_ms {
                is_calm = true;
                self.calm_links();
            }
            self.step()?;
            if self.ms > self.calm_from_ms + PATIENCE_MS {
                self.complain();
                break;
            }
        }
        Ok(())
    }

    fn step(&mut self) -> Result<(), String> {
        while let Some((ms, trouble)) = self.troubles.pop() {
            if ms > self.ms {
                self.troubles.push((ms, trouble));
                break;
            }
            self.suffer(trouble);
        }
        self.sim.step().map_err(|error| error.to_string())?;
        self.ms += TICK_MS;
        self.aim_at_pledged();
        self.look();
        Ok(())
    }

    fn suffer(&mut self, trouble: Trouble) {
        match trouble {
            Trouble::Death { machine } => {
                let victim = &self.machines[machine];
                if self.formed.cluster.is_none() {
                    self.formed.deaths += 1;
                    self.formed.deaths_of_pledged += usize::from(is_only_pledged(victim));
                }
                self.sim.crash(name(machine));
                victim.disk().crash();
                *victim.raft.lock().expect("nothing panics while it holds it") = Weak::new();
            }
            Trouble::Return { machine } => self.sim.bounce(name(machine)),
            Trouble::Cut { from, to } => self.sim.partition_oneway(name(from), name(to)),
            Trouble::Repair { from, to } => self.sim.repair_oneway(name(from), name(to)),
            Trouble::Slow { link: [a, b], latency_ms } => {
                self.sim.set_link_latency(name(a), name(b), Duration::from_millis(latency_ms));
            }
        }
    }

    /// The moments after a pledge are short: few die in them by chance.
    fn aim_at_pledged(&mut self) {
        for machine in 0..self.machines.len() {
            let has_pledged = is_only_pledged(&self.machines[machine]);
            if !has_pledged || !self.have_pledged.insert(machine) || self.draw.below(8) != 0 {
                continue;
            }
            let from_ms = self.ms + self.draw.below(100);
            let until_ms = from_ms + 20 + self.draw.below(1_000);
            self.troubles.push((from_ms, Trouble::Death { machine }));
            self.troubles.push((until_ms, Trouble::Return { machine }));
            self.troubles.sort_by_key(|(ms, _)| Reverse(*ms));
            self.calm_from_ms = self.calm_from_ms.max(until_ms);
        }
    }

    /// There is never a second cluster; and at some time all machines serve in one.
    fn look(&mut self) {
        let mut serving = 0;
        for machine in &self.machines {
            let Some(raft) = machine.raft() else { continue };
            let is_member = !raft.voters().is_empty();
            let Some(cluster) = raft.cluster_id().filter(|_| is_member) else { continue };
            if self.clusters.insert(cluster) && self.clusters.len() > 1 {
                let (machine, ms) = (machine.number, self.ms);
                self.formed.violations.push(Violation::Rival { machine, ms });
            }
            serving += usize::from(*raft.status().borrow() == Status::Ready);
        }
        if serving == self.machines.len() && self.formed.cluster.is_none() {
            self.formed.cluster = self.clusters.first().copied();
            self.formed.ms = self.ms;
        }
    }

    fn calm_links(&self) {
        for [a, b] in pairs(self.machines.len()) {
            self.sim.set_link_latency(name(a), name(b), MAX_LATENCY);
        }
    }

    /// Whoever does not serve.
    fn complain(&mut self) {
        for machine in &self.machines {
            let status = machine.raft().map(|raft| *raft.status().borrow());
            if status != Some(Status::Ready) {
                let (machine, ms) = (machine.number, self.ms);
                self.formed.violations.push(Violation::Unavailable { machine, ms });
            }
        }
    }
}

/// It has pledged itself to a cluster that is not there yet, as far as it knows.
fn is_only_pledged(machine: &Machine) -> bool {
    machine.raft().is_some_and(|raft| raft.cluster_id().is_some() && raft.voters().is_empty())
}

fn machine(number: usize, count: usize, bug: Option<PlantedBug>) -> Arc<Machine> {
    let disk = MemoryDisk::slow(Duration::from_millis(3)).with_planted_bug(bug);
    Arc::new(Machine {
        number,
        count,
        expected: EXPECTED,
        disk: Mutex::new(disk),
        skew_ms: 0,
        history: History::default(),
        town: Town::default(),
        raft: Mutex::default(),
    })
}

/// The first one last. All machines have been started at `started_ms`.
fn draw_troubles(count: usize, started_ms: u64, draw: &mut Sequence) -> Vec<(u64, Trouble)> {
    let mut troubles = Vec::new();
    let mut dead_until = vec![0; count];
    for _ in 0..draw.below(4) / 2 {
        let machine = draw.below(count as u64) as usize;
        let from_ms = dead_until[machine] + 50 + draw.below(1_000);
        let until_ms = from_ms + 20 + draw.below(1_000);
        dead_until[machine] = until_ms;
        troubles.push((from_ms, Trouble::Death { machine }));
        troubles.push((until_ms, Trouble::Return { machine }));
    }
    if draw.below(3) != 0 {
        let from = draw.below(count as u64) as usize;
        let to = (from + 1 + draw.below(count as u64 - 1) as usize) % count;
        let from_ms = started_ms + draw.below(400);
        troubles.push((from_ms, Trouble::Cut { from, to }));
        troubles.push((from_ms + 200 + draw.below(1_300), Trouble::Repair { from, to }));
    }
    // A cluster may come to be while a slow link is asked once, but not so slow that no answer comes in time.
    for link in pairs(count) {
        if draw.below(6) == 0 {
            let latency_ms = 100 + draw.below(300);
            troubles.push((draw.below(600), Trouble::Slow { link, latency_ms }));
        }
    }
    troubles.sort_by_key(|(ms, _)| Reverse(*ms));
    troubles
}

fn pairs(count: usize) -> impl Iterator<Item = [usize; 2]> {
    (0..count).flat_map(move |a| (a + 1..count).map(move |b| [a, b]))
}
