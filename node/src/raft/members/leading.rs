//! What the leader does for the cluster: leases, deaths, members, voters.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use flotilla_proto::raft as proto;
use openraft::ChangeMembers;
use openraft::async_runtime::watch::WatchReceiver;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::voters::{Candidate, better_voters};
use crate::raft::core::Core;
use crate::raft::receipt::Status;
use crate::raft::state::{Change, NodeId, NodeStatus, Owner};
use crate::raft::types::{Member, TypeConfig};
use crate::raft::wire::{WireError, member_from_wire, member_to_wire};

/// How often the leader looks for leases that ran out.
const EXPIRY_INTERVAL: Duration = Duration::from_millis(100);

const VOTERS_INTERVAL: Duration = Duration::from_secs(1);

/// A session is kept for so much longer than was promised; it is not given out any more.
const SESSIONS_INTERVAL: Duration = Duration::from_secs(1);

/// Clients may come back for so much longer than was promised.
const WINDOWS_INTERVAL: Duration = Duration::from_secs(1);

/// Sessions that end in one round; the rest waits for the next.
const MAX_EXPIRED_SESSIONS: usize = 10_000;

/// A follower that answered within this, and lacks at most so many entries, is healthy.
const HEALTHY_CONTACT: Duration = Duration::from_secs(1);
const HEALTHY_LAG: u64 = 250;

/// A learner that is dead so much longer than a voter's replacement takes is forgotten.
const FORGET_FACTOR: u32 = 20;

/// Grants a lease, or says why not.
pub(crate) fn renew(core: &Core, request: &proto::RenewRequest) -> proto::RenewReply {
    let lease = lease_of(core, Owner { node: request.node, incarnation: request.incarnation });
    // A follower may know before the leader that an entry is committed: any that the leader has. The extent knows nothing
    // of what was there when the log was opened; openraft tells of an entry some time after it was sent.
    let known = core.consensus.metrics().borrow_watched().last_log_index;
    let appended = core.extent.marks().appended.map(|id| id.index);
    proto::RenewReply { lease: lease.into(), log_end: known.max(appended).unwrap_or(0) }
}

fn lease_of(core: &Core, owner: Owner) -> proto::Lease {
    // A leader without a quorum must not grant what its successor will not honour.
    if !core.leads_surely() {
        return proto::Lease::NotLeader;
    }
    let view = core.view.load();
    if view.index() < owner.incarnation {
        return proto::Lease::NotLeader;
    }
    if view.alive(owner.node) != Some(owner.incarnation) {
        return proto::Lease::Dead;
    }
    if owner.node == core.me {
        return proto::Lease::Granted;
    }
    let mut leases = core.leases.lock().expect("nothing panics while it holds it");
    if leases.renew(owner, Instant::now()) {
        proto::Lease::Granted
    } else {
        proto::Lease::NotLeader
    }
}

/// Makes a node a member, at first one that only learns, or corrects its address.
pub(crate) async fn join(
    core: &Core,
    request: proto::JoinRequest,
) -> Result<proto::JoinReply, WireError> {
    let (node, member) = member_from_wire(request.member.ok_or(WireError::Missing("member"))?);
    if !core.leads() {
        let leader = core.lead.borrow().leader.clone();
        let leader = leader.map(|(node, member)| member_to_wire(node, &member));
        return Ok(proto::JoinReply { accepted: false, leader });
    }
    core.directory.learn(node, &member.address);
    let _change = core.membership.lock().await;
    let changed = match core.members().get(&node) {
        Some(known) if *known == member => {
            return Ok(proto::JoinReply { accepted: true, leader: None });
        }
        Some(_) => {
            info!(node, address = member.address, "a member moved");
            let nodes = BTreeMap::from([(node, member)]);
            core.consensus.change_membership(ChangeMembers::SetNodes(nodes), true).await
        }
        None => {
            info!(node, address = member.address, "a node joins");
            core.alone.end();
            core.consensus.add_learner(node, member, false).await
        }
    };
    if let Err(error) = &changed {
        warn!(node, %error, "could not change the membership");
    }
    Ok(proto::JoinReply { accepted: changed.is_ok(), leader: None })
}

/// Does the leader's duties whenever this node leads.
pub(crate) async fn run_leading(core: &Core, stop: CancellationToken) {
    tokio::select! {
        () = watch_leases(core) => {}
        () = tend_voters(core) => {}
        () = end_sessions(core) => {}
        () = end_windows(core) => {}
        () = stop.cancelled() => {}
    }
}

pub(super) fn every(interval: Duration) -> tokio::time::Interval {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Declares nodes dead that did not renew their leases.
async fn watch_leases(core: &Core) {
    let mut ticks = every(EXPIRY_INTERVAL);
    loop {
        ticks.tick().await;
        for owner in expired(core, Instant::now()) {
            warn!(node = owner.node, incarnation = owner.incarnation, "a node is dead");
            let Owner { node, incarnation } = owner;
            // If the pump has no room for this it is tried again after another lease.
            let _ = core.pump.propose_quiet(Change::NodeDown { node, incarnation });
        }
    }
}

fn expired(core: &Core, now: Instant) -> Vec<Owner> {
    let mut leases = core.leases.lock().expect("nothing panics while it holds it");
    // A leader that is not itself registered cannot propose yet. The others' leases begin when it
    // can.
    let able = core.leads() && matches!(*core.status.borrow(), Status::Ready | Status::Draining);
    if able != leases.leads() {
        if able {
            leases.lead(now);
        } else {
            leases.resign();
        }
    }
    let view = core.view.load();
    let alive = view
        .nodes()
        .filter(|(node, row)| *node != core.me && row.status != NodeStatus::Down)
        .map(|(node, row)| Owner { node, incarnation: row.incarnation });
    leases.expire(alive, now)
}

/// Ends sessions that nobody used for long.
async fn end_sessions(core: &Core) {
    let mut ticks = every(SESSIONS_INTERVAL);
    loop {
        ticks.tick().await;
        if !core.leads() {
            continue;
        }
        let view = core.view.load();
        let expired = view.expired_sessions((core.clock)()).take(MAX_EXPIRED_SESSIONS);
        for change in expired {
            if core.pump.propose_quiet(change).is_err() {
                break;
            }
        }
    }
}

/// Gives up packets, and sockets that are away, that are older than their namespaces' windows; and
/// what no application wanted to be told.
async fn end_windows(core: &Core) {
    let mut ticks = every(WINDOWS_INTERVAL);
    loop {
        ticks.tick().await;
        if !core.leads() {
            continue;
        }
        let view = core.view.load();
        let now_ms = (core.clock)();
        for change in view.expired_windows(now_ms).chain(view.expired_departures(now_ms)) {
            // What is refused now is proposed again at the next tick.
            let _ = core.pump.propose_quiet(change);
        }
    }
}

/// Keeps the number of voters, one change at a time.
async fn tend_voters(core: &Core) {
    let mut ticks = every(VOTERS_INTERVAL);
    let mut leading_since = None;
    loop {
        ticks.tick().await;
        if !core.leads_surely() {
            leading_since = None;
            continue;
        }
        let since = *leading_since.get_or_insert_with(Instant::now);
        let _change = core.membership.lock().await;
        let Some((change, retain)) = membership_change(core, since) else { continue };
        info!(?change, "changing the membership");
        if let Err(error) = core.consensus.change_membership(change, retain).await {
            warn!(%error, "could not change the membership");
        }
    }
}

/// The next change that brings the membership closer to what it should be, and whether removed
/// voters stay as learners.
fn membership_change(
    core: &Core,
    leading_since: Instant,
) -> Option<(ChangeMembers<NodeId, Member>, bool)> {
    let metrics = core.consensus.metrics().borrow_watched().clone();
    let membership = metrics.membership_config.membership();
    let configs = membership.get_joint_config();
    let voters = configs.last()?.clone();
    if configs.len() > 1 {
        // A leader died in the middle of a change: finish it before anything else.
        return Some((ChangeMembers::ReplaceAllVoters(voters), true));
    }
    let now = Instant::now();
    let candidates: Vec<Candidate> = membership
        .nodes()
        .map(|(node, _)| candidate(core, &metrics, *node, now, leading_since))
        .collect();
    let target = if core.cluster.bootstrap_expect >= 5 { 5 } else { 3 };
    if let Some(better) = better_voters(&voters, &candidates, target) {
        return Some((ChangeMembers::ReplaceAllVoters(better), true));
    }
    let forget = core.settings.replace_voter_after * FORGET_FACTOR;
    let forgotten: BTreeSet<NodeId> = membership
        .learner_ids()
        .filter(|node| silence(&metrics, *node, now, leading_since) > forget)
        .collect();
    (!forgotten.is_empty()).then_some((ChangeMembers::RemoveNodes(forgotten), false))
}

fn candidate(
    core: &Core,
    metrics: &openraft::RaftMetrics<TypeConfig>,
    node: NodeId,
    now: Instant,
    leading_since: Instant,
) -> Candidate {
    if node == core.me {
        return Candidate { node, healthy: true, dead: false };
    }
    let silence = silence(metrics, node, now, leading_since);
    let matching = metrics.replication.as_ref().and_then(|all| all.get(&node)?.as_ref());
    let last = metrics.last_log_index.unwrap_or(0);
    let lag = last.saturating_sub(matching.map_or(0, |id| id.index));
    Candidate {
        node,
        healthy: matching.is_some() && silence < HEALTHY_CONTACT && lag <= HEALTHY_LAG,
        dead: silence > core.settings.replace_voter_after,
    }
}

/// How long a follower has not answered this leader.
fn silence(
    metrics: &openraft::RaftMetrics<TypeConfig>,
    node: NodeId,
    now: Instant,
    leading_since: Instant,
) -> Duration {
    let answered = metrics.heartbeat.as_ref().and_then(|all| all.get(&node).copied().flatten());
    match answered {
        Some(at) => openraft::Instant::elapsed(&*at),
        None => now.saturating_duration_since(leading_since),
    }
}
