//! Nodes in one process, over real TCP on the loopback.

mod cluster;
mod faults;
mod harness;
mod links;
mod names;
mod restarts;
mod storage_suite;
