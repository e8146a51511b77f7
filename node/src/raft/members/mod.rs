//! Who belongs to the cluster: bootstrap, join, promotion, removal, and who is alive.

mod bootstrap;
mod forming;
mod leading;
mod leases;
mod names;
mod standing;
mod voters;

pub(crate) use bootstrap::{meet, pledge};
pub(crate) use leading::{join, renew, run_leading};
pub(crate) use leases::Leases;
pub(crate) use names::namesakes;
pub(crate) use standing::{OwnLease, run_standing};
