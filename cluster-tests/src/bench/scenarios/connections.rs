//! What connections cost by themselves.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future;

use super::measure;
use crate::bench::fleet::{self, Fleet};
use crate::bench::{Plan, Row, link, usage};
use crate::wait;

const IDLE_CLIENTS: usize = 5000;
const CONNECTING: usize = 32;

/// Servers may tidy up after the handshakes before their memory is read.
const SETTLE: Duration = Duration::from_secs(2);

pub(super) async fn idle(plan: &Plan) -> io::Result<Row> {
    let clients = plan.clients.unwrap_or(IDLE_CLIENTS);
    // What the first connections cost once (pools, caches, code) is no connection's own cost.
    Fleet::connect(plan, CONNECTING).await?.close().await;
    let before = usage::resident_kib(&plan.pids)?;
    let fleet = Fleet::connect(plan, clients).await?;
    tokio::time::sleep(SETTLE).await;
    let after = usage::resident_kib(&plan.pids)?;
    let mut row = Row::new("idle", clients).counts(fleet.inbox.counts(), plan.one_order);
    if !plan.pids.is_empty() {
        row.server_kib_each = Some((after as f64 - before as f64) / clients as f64);
    }
    fleet.close().await;
    Ok(row)
}

pub(super) async fn connect(plan: &Plan) -> io::Result<Row> {
    // A fleet without clients: each loop makes its own, one after the other.
    let fleet = Fleet::connect(plan, 0).await?;
    let mut row = measure::steady("connect", plan, fleet, async |fleet, stop| {
        let loops = (0..CONNECTING).map(|place| one_loop(plan, fleet, place, stop));
        future::join_all(loops).await;
    })
    .await?;
    row.clients = CONNECTING;
    Ok(row)
}

async fn one_loop(plan: &Plan, fleet: &Fleet, place: usize, stop: &Cell<bool>) {
    let namespace: Rc<str> = link::packet_namespace(&plan.namespace).into();
    for turn in 0.. {
        if stop.get() {
            return;
        }
        let host = fleet::host(plan, place + turn);
        let start = fleet.inbox.micros();
        fleet.inbox.count(|counts| counts.expected += 1);
        let connecting = link::connect(0, host, Rc::clone(&namespace), Rc::clone(&fleet.inbox));
        match connecting.await {
            Ok((link, receiving)) => {
                fleet.inbox.delivered(fleet.inbox.micros() - start);
                link.close();
                let closed = tokio::time::timeout(wait::PATIENCE, receiving.run()).await;
                if closed.is_err() {
                    fleet.inbox.count(|counts| counts.broken += 1);
                }
            }
            Err(_counted_as_lost) => fleet.inbox.count(|counts| counts.broken += 1),
        }
    }
}
