//! The task that acts on what is agreed about one namespace, in log order.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::acks::Asker;
use super::local::Plane;
use super::namespace::{Adapter, EmitFlags};
use super::projection::{Heard, Outgoing};
use crate::peers::Broadcast;
use crate::raft::state::{Effect, NodeId, Place};
use crate::raft::{Delivery, Handed, News};

/// Delivers until the node is down. Nothing here waits for a client.
pub(super) async fn run(
    adapter: Arc<Adapter>,
    mut applied: mpsc::Receiver<Handed>,
    mut inbound: mpsc::Receiver<(NodeId, Broadcast)>,
    shutdown: CancellationToken,
) {
    loop {
        tokio::select! {
            biased;
            batch = applied.recv() => match batch {
                Some(batch) => handle_batch(&adapter, batch),
                None => return,
            },
            Some((from, broadcast)) = inbound.recv() => {
                let caught_up = catch_up(&adapter, &mut applied, broadcast.applied);
                if shutdown.run_until_cancelled(caught_up).await.is_none() {
                    return;
                }
                handle_broadcast(&adapter, from, &broadcast);
            }
            () = shutdown.cancelled() => return,
        }
    }
}

/// Acts on what is agreed, at least up to where a broadcast's sender was.
///
/// While this node is behind, broadcasts wait; what peers say about acks does not.
async fn catch_up(adapter: &Arc<Adapter>, applied: &mut mpsc::Receiver<Handed>, index: u64) {
    let handed_over = adapter.cluster.raft.handed_over(index);
    tokio::pin!(handed_over);
    loop {
        tokio::select! {
            biased;
            () = &mut handed_over => break,
            batch = applied.recv() => match batch {
                Some(batch) => handle_batch(adapter, batch),
                None => return,
            },
        }
    }
    while let Ok(batch) = applied.try_recv() {
        handle_batch(adapter, batch);
    }
}

fn handle_batch(adapter: &Arc<Adapter>, Handed { batch, handled: _until_here }: Handed) {
    for Delivery { news, waiter } in batch {
        match news {
            News::Applied(place, effect) => {
                let turn = adapter.turn();
                let reached = adapter.reach(place);
                let heard = handle_effect(adapter, place, effect);
                drop((reached, turn));
                heard.tell();
            }
            News::Registered => adapter.begin_anew(),
            News::Opening => {
                adapter.renew_sockets();
                adapter.make_known_ahead();
            }
        }
        if let Some((waiter, outcome)) = waiter {
            waiter.answer(Ok(outcome));
        }
    }
}

fn handle_effect(adapter: &Arc<Adapter>, place: Place, effect: Effect) -> Heard {
    match effect {
        Effect::SocketUp { socket, rooms, value, .. } => adapter.let_in(&socket, &rooms, value),
        Effect::Joined { socket, rooms, .. } => adapter.local.agree(&socket, &rooms, true),
        Effect::Left { socket, rooms, .. } => adapter.local.agree(&socket, &rooms, false),
        Effect::Disconnect { socket, close, .. } => adapter.disconnect_local(&socket, close),
        Effect::SessionChanged { socket, value, .. } => adapter.local.set_session(&socket, value),
        Effect::Packet(packet, origin) => {
            let asker = packet.ack.map(|key| Asker { node: origin.node, key });
            if let Some(key) = packet.ack
                && origin.node == adapter.cluster.raft.node_id()
            {
                adapter.ask(&packet.target, key);
            }
            let flags = EmitFlags { uncompressed: packet.uncompressed, ..EmitFlags::default() };
            return adapter.hand_out(Outgoing {
                place: Some(place),
                target: &packet.target,
                payload: &packet.payload,
                plane: Plane::Agreed,
                flags,
                asker,
            });
        }
        Effect::SocketTaken { socket, claim, .. } => adapter.take_away(&socket, claim),
        Effect::SocketRecovered { recovered, .. } => return adapter.let_back_in(*recovered),
        // The connection took the socket out when it ended.
        Effect::SocketGone { .. } => {}
        Effect::NodeUp { .. } | Effect::NodeDown { .. } => {}
    }
    Heard::default()
}

fn handle_broadcast(adapter: &Adapter, from: NodeId, broadcast: &Broadcast) {
    let asker = broadcast.ack.map(|key| Asker { node: from, key });
    let Broadcast { volatile, uncompressed, .. } = *broadcast;
    let flags = EmitFlags { volatile, uncompressed, ..EmitFlags::default() };
    let heard = adapter.hand_out(Outgoing {
        place: None,
        target: &broadcast.target,
        payload: &broadcast.payload,
        plane: Plane::Direct,
        flags,
        asker,
    });
    heard.tell();
}
