//! Broadcasts to all clients.

use std::io;

use super::measure::{self, Snapshot};
use crate::bench::fleet::Fleet;
use crate::bench::{Plan, Row};

const CLIENTS: usize = 1000;
const PER_SECOND: u32 = 20;
const IN_FLIGHT: usize = 16;
const BURST: usize = 300;

pub(super) async fn paced(plan: &Plan) -> io::Result<Row> {
    let fleet = connect(plan).await?;
    measure::steady("bcast", plan, fleet, async |fleet, stop| {
        measure::paced(PER_SECOND, stop, |turn| broadcast(fleet, turn % plan.urls.len())).await;
    })
    .await
}

pub(super) async fn closed_loop(plan: &Plan) -> io::Result<Row> {
    let fleet = connect(plan).await?;
    measure::steady("bcast-max", plan, fleet, async |fleet, stop| {
        let first = (0..IN_FLIGHT).map(|turn| turn % plan.urls.len());
        measure::in_flight(fleet, first, stop, |sender| broadcast(fleet, sender)).await;
    })
    .await
}

/// A burst has no steady state: it is measured from its first message to its last delivery.
pub(super) async fn burst(plan: &Plan) -> io::Result<Row> {
    let fleet = connect(plan).await?;
    fleet.agree().await;
    let start = Snapshot::take(plan, 0)?;
    for turn in 0..BURST {
        broadcast(&fleet, turn % plan.urls.len());
    }
    let quiet_since = fleet.settle().await;
    let counts = fleet.inbox.counts();
    let end = Snapshot::take(plan, counts.delivered)?.dated(quiet_since);
    let row = start.until(&end, Row::new("burst", fleet.links.len()));
    let row = row.latency(&fleet.inbox.latencies()).counts(counts, plan.one_order);
    fleet.close().await;
    Ok(row)
}

// One client at each server sends; all clients, the senders too, receive.
async fn connect(plan: &Plan) -> io::Result<Fleet> {
    let clients = plan.clients.unwrap_or(CLIENTS).max(plan.urls.len());
    let fleet = Fleet::connect(plan, clients).await?;
    if plan.one_order {
        fleet.inbox.group(0..clients);
    }
    Ok(fleet)
}

fn broadcast(fleet: &Fleet, sender: usize) {
    let audience = u32::try_from(fleet.links.len()).expect("indices of clients are u32");
    fleet.send(sender, "bcast", "", audience);
}
