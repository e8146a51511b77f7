//! Finds the controllers of the program.

use std::any::TypeId;

use super::controller::Controller;
use super::server::{RouteError, Routed, SocketServer};

/// A controller that `#[controller]` has announced.
pub struct Discovered {
    pub(super) name: &'static str,
    pub(super) type_id: fn() -> TypeId,
    pub(super) register: fn(&SocketServer) -> Result<Routed, RouteError>,
}

impl Discovered {
    pub const fn of<C: Controller>() -> Self {
        Self { name: C::NAME, type_id: TypeId::of::<C>, register: SocketServer::controller::<C> }
    }
}

inventory::collect!(Discovered);

/// All of them, by name: the linker has them in no order.
pub(super) fn all() -> Vec<&'static Discovered> {
    let mut all: Vec<_> = inventory::iter::<Discovered>.into_iter().collect();
    all.sort_by_key(|found| found.name);
    all
}
