//! Messages to few: rooms whose members are spread over the servers, and single clients.

use std::io;

use super::measure;
use crate::bench::fleet::Fleet;
use crate::bench::{Plan, Row};

const CLIENTS: usize = 1000;
const ROOM_SIZE: usize = 10;
const ROOM_DELIVERIES_PER_SECOND: u32 = 10_000;
const PAIRS: usize = 50;
const DIRECT_PER_SECOND: u32 = 1000;

pub(super) async fn paced(plan: &Plan) -> io::Result<Row> {
    let fleet = connect(plan).await?;
    let per_second = ROOM_DELIVERIES_PER_SECOND / ROOM_SIZE as u32;
    measure::steady("room", plan, fleet, async |fleet, stop| {
        // Room after room; each time round, the next member of each.
        let rooms = fleet.links.len() / ROOM_SIZE;
        measure::paced(per_second, stop, |turn| {
            let member = turn / rooms % ROOM_SIZE;
            send_to_own_room(fleet, turn % rooms * ROOM_SIZE + member);
        })
        .await;
    })
    .await
}

pub(super) async fn closed_loop(plan: &Plan) -> io::Result<Row> {
    let fleet = connect(plan).await?;
    measure::steady("rooms-max", plan, fleet, async |fleet, stop| {
        // Every member sends, so that a room has as many packets on their way as members.
        let first = 0..fleet.links.len();
        measure::in_flight(fleet, first, stop, |sender| send_to_own_room(fleet, sender)).await;
    })
    .await
}

pub(super) async fn direct_messages(plan: &Plan) -> io::Result<Row> {
    let pairs = plan.clients.map_or(PAIRS, |clients| (clients / 2).max(1));
    // Neighbours are at different servers, if there is more than one.
    let fleet = Fleet::connect(plan, pairs * 2).await?;
    measure::steady("dm", plan, fleet, async |fleet, stop| {
        measure::paced(DIRECT_PER_SECOND, stop, |turn| {
            let sender = turn % pairs * 2;
            let receiver = format!("\"{}\",", fleet.links[sender + 1].id);
            fleet.send(sender, "dm", &receiver, 1);
        })
        .await;
    })
    .await
}

// Neighbours share a room, and are at different servers.
async fn connect(plan: &Plan) -> io::Result<Fleet> {
    let rooms = (plan.clients.unwrap_or(CLIENTS) / ROOM_SIZE).max(1);
    let fleet = Fleet::connect(plan, rooms * ROOM_SIZE).await?;
    fleet.join(room).await?;
    for room in 0..rooms {
        if plan.one_order {
            fleet.inbox.group(room * ROOM_SIZE..(room + 1) * ROOM_SIZE);
        }
    }
    Ok(fleet)
}

fn send_to_own_room(fleet: &Fleet, sender: usize) {
    fleet.send(sender, "room", &format!("\"{}\",", room(sender)), ROOM_SIZE as u32);
}

fn room(client: usize) -> String {
    format!("room-{}", client / ROOM_SIZE)
}
