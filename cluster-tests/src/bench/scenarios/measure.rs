//! Measures a load while it is steady: after a warm-up, and before it ends.

use std::cell::Cell;
use std::io;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

use crate::bench::fleet::Fleet;
use crate::bench::inbox::Message;
use crate::bench::{Plan, Row, usage};

/// After this long without its last recipient, a message in a closed loop is given up.
const GIVE_UP: Duration = Duration::from_secs(2);

/// What was spent and delivered up to a moment.
pub(super) struct Snapshot {
    at: Instant,
    delivered: u64,
    servers: Option<Duration>,
    own: Duration,
}

impl Snapshot {
    pub(super) fn take(plan: &Plan, delivered: u64) -> io::Result<Self> {
        let known = !plan.pids.is_empty();
        Ok(Self {
            at: Instant::now(),
            delivered,
            servers: known.then(|| usage::cpu_time(&plan.pids)).transpose()?,
            own: usage::cpu_time(&[std::process::id()])?,
        })
    }

    /// As if it had been taken then: nothing was spent or delivered since.
    pub(super) fn dated(self, at: Instant) -> Self {
        Self { at, ..self }
    }

    /// Puts into `row` what was spent and delivered since `self`.
    pub(super) fn until(&self, end: &Self, row: Row) -> Row {
        let span = end.at - self.at;
        let servers = end.servers.zip(self.servers).map(|(end, start)| end - start);
        row.rate(end.delivered - self.delivered, span).cpu(servers, end.own - self.own, span)
    }
}

/// Runs `load` until it is told to stop, and measures it in between.
pub(super) async fn steady(
    scenario: &str,
    plan: &Plan,
    fleet: Fleet,
    load: impl AsyncFnOnce(&Fleet, &Cell<bool>),
) -> io::Result<Row> {
    fleet.agree().await;
    let stop = Cell::new(false);
    let watch = async {
        tokio::time::sleep(plan.warm_up).await;
        fleet.inbox.clear_latencies();
        let start = Snapshot::take(plan, fleet.inbox.counts().delivered)?;
        tokio::time::sleep(plan.measured).await;
        let end = Snapshot::take(plan, fleet.inbox.counts().delivered)?;
        stop.set(true);
        Ok::<_, io::Error>((start, end, fleet.inbox.latencies()))
    };
    let (measured, ()) = tokio::join!(watch, load(&fleet, &stop));
    let (start, end, latencies) = measured?;
    fleet.settle().await;
    let row = start.until(&end, Row::new(scenario, fleet.links.len())).latency(&latencies);
    let row = row.counts(fleet.inbox.counts(), plan.one_order);
    fleet.close().await;
    Ok(row)
}

/// Calls `send` so many times a second, until it is told to stop.
pub(super) async fn paced(per_second: u32, stop: &Cell<bool>, mut send: impl FnMut(usize)) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / per_second);
    // tokio's clock has a resolution of a millisecond; late ticks are made up for.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for turn in 0.. {
        ticks.tick().await;
        if stop.get() {
            return;
        }
        send(turn);
    }
}

/// Keeps `in_flight` messages on their way: whenever one has come to its whole audience, or is
/// given up, calls `send` with the client whose message it was.
pub(super) async fn in_flight(
    fleet: &Fleet,
    first: impl IntoIterator<Item = usize>,
    stop: &Cell<bool>,
    mut send: impl FnMut(usize),
) {
    let senders: Vec<usize> = first.into_iter().collect();
    senders.iter().for_each(|&sender| send(sender));
    while !stop.get() {
        match tokio::time::timeout(GIVE_UP, fleet.inbox.finished()).await {
            Ok(Message { sender, .. }) => send(sender as usize),
            // Nothing moves: what is missing is lost, and the loop starts afresh.
            Err(_elapsed) => senders.iter().for_each(|&sender| send(sender)),
        }
    }
}
