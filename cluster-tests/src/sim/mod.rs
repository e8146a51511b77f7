//! The deterministic simulation: the production modules of raft, peers and adapter, three machines
//! of them in one thread, on a simulated network, under a clock and with random numbers that a seed
//! repeats.
//!
//! A process has one simulation: when a simulated machine crashes, tokio drops its tasks in an order
//! that follows from their ids, and ids are counted for the whole process. Two simulations beside
//! each other would shift each other's.

mod checks;
mod client;
mod faults;
mod forming;
mod frames;
mod history;
mod machine;
mod observer;
mod report;
mod run;
mod traffic;
mod travel;

pub use checks::Violation;
pub use faults::{Fault, FaultKind};
pub use flotilla::raft::PlantedBug;
pub use forming::{Formed, Forming};
pub use history::{Aim, Alteration, Answer, At, ClientId, Event, History, Label};
pub use report::{Answers, Report, Returns};
pub use run::{Coverage, MACHINES, Outcome, Run};
