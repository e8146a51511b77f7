//! Emits that are answered with an ack, each client with one under way.

use std::cell::Cell;
use std::io;
use std::rc::Rc;

use futures_util::future;

use super::measure;
use crate::bench::fleet::Fleet;
use crate::bench::link::Link;
use crate::bench::{Plan, Row};
use crate::wait;

const CLIENTS: usize = 64;
const SHARED_ROOMS: u32 = 8;

pub(super) async fn echo(plan: &Plan) -> io::Result<Row> {
    let data = format!("\"{:x<width$}\"", "", width = plan.payload_bytes);
    closed_loop("echo", plan, |_link, _turn| ("echo", data.clone())).await
}

pub(super) async fn join(plan: &Plan) -> io::Result<Row> {
    closed_loop("join", plan, |link, turn| {
        let event = if turn % 2 == 0 { "join" } else { "leave" };
        (event, format!("\"room-{}\"", link.index() % SHARED_ROOMS))
    })
    .await
}

async fn closed_loop(
    scenario: &str,
    plan: &Plan,
    request: impl Fn(&Link, u64) -> (&'static str, String),
) -> io::Result<Row> {
    let fleet = Fleet::connect(plan, plan.clients.unwrap_or(CLIENTS)).await?;
    measure::steady(scenario, plan, fleet, async |fleet, stop| {
        let loops = fleet.links.iter().map(|link| one_loop(fleet, link, stop, &request));
        future::join_all(loops).await;
    })
    .await
}

async fn one_loop(
    fleet: &Fleet,
    link: &Rc<Link>,
    stop: &Cell<bool>,
    request: &impl Fn(&Link, u64) -> (&'static str, String),
) {
    for turn in 0.. {
        if stop.get() {
            return;
        }
        let (event, arguments) = request(link, turn);
        let start = fleet.inbox.micros();
        fleet.inbox.count(|counts| counts.expected += 1);
        match tokio::time::timeout(wait::PATIENCE, link.call(event, &arguments)).await {
            Ok(true) => fleet.inbox.delivered(fleet.inbox.micros() - start),
            // Refused, broken off or never answered: it is missing among the deliveries.
            Ok(false) | Err(_) => return,
        }
    }
}
