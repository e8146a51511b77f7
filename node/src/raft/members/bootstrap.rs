//! How a node finds its cluster, or forms it with others: the shell around `forming`.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Duration;

use flotilla_proto::raft as proto;
use futures_util::future::join_all;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::forming::{Meeting, Own, Step, next_step};
use crate::raft::core::Core;
use crate::raft::network::Lane;
use crate::raft::planted::PlantedBug;
use crate::raft::state::NodeId;
use crate::raft::storage::Identity;
use crate::raft::types::Member;
use crate::raft::wire::{member_from_wire, member_to_wire};
use crate::random;

/// Between two rounds of meetings.
const ROUND: Duration = Duration::from_millis(200);

/// A seed or member that does not answer within this is asked again in the next round.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// A change of the membership may have to wait for an election.
const JOIN_TIMEOUT: Duration = Duration::from_secs(5);

/// A founder whose members do not all pledge themselves in this time gives up, and all begin anew.
const FOUNDING_TIMEOUT: Duration = Duration::from_secs(10);

/// Returns once this node is a member of a cluster that has a leader, at its present address.
pub(super) async fn become_member(core: &Core) {
    let mut lead = core.lead.clone();
    let mut founding_since = None;
    loop {
        let members = core.members();
        let leader = lead.borrow_and_update().leader.clone();
        let is_member = members.get(&core.me) == Some(&core.member);
        if is_member && leader.is_some() {
            return;
        }
        if members.is_empty() {
            search(core, &mut founding_since).await;
        } else {
            // The others may have moved since this node last ran, and tell so when they are met.
            meet_all(core).await;
            if let Some((leader, member)) = leader {
                ask_to_join(core, leader, &member.address).await;
            }
        }
        // Either is a reason to look again; a lost sender ends this task by other means.
        let _ = tokio::time::timeout(ROUND, lead.changed()).await;
    }
}

/// One round of a node that has no cluster yet.
async fn search(core: &Core, founding_since: &mut Option<Instant>) {
    // Before the others are met: a founder that was met first and pledged to then had no cluster yet,
    // and would seem to have given up.
    let mut own = look_at_itself(core).await;
    let (meetings, complete) = meet_all(core).await;
    if core.deliveries.planted == Some(PlantedBug::PledgeReadLate) {
        own = look_at_itself(core).await;
    }
    remember_seen(core, &meetings);
    let done = match next_step(&own, &meetings, complete) {
        Step::Wait => Ok(()),
        Step::Join { cluster, node, address } => enter(core, cluster, node, &address).await,
        Step::Found(members) => begin_founding(core, members).await,
        Step::Resume => {
            let since = *founding_since.get_or_insert_with(Instant::now);
            resume_founding(core, since).await
        }
        Step::Release => release(core, own.cluster).await,
    };
    if !matches!(done, Ok(())) || core.directory.cluster() == 0 {
        *founding_since = None;
    }
    if let Err(error) = done {
        warn!(%error, "could not go on forming the cluster");
    }
}

async fn look_at_itself(core: &Core) -> Own {
    let identity = core.identity.lock().await;
    Own {
        node: core.me,
        member: core.member.clone(),
        cluster: identity.cluster,
        founder: identity.founder,
        expect: core.cluster.bootstrap_expect,
    }
}

/// Meets every seed and every member known. True if every seed answered.
async fn meet_all(core: &Core) -> (Vec<Meeting>, bool) {
    let members = core.members();
    let addresses: BTreeSet<&str> = core
        .cluster
        .seeds
        .iter()
        .map(String::as_str)
        .chain(members.values().map(|member| member.address.as_str()))
        .filter(|address| *address != core.member.address)
        .collect();
    let answers = join_all(addresses.into_iter().map(|address| meet_one(core, address))).await;
    let complete = answers.iter().all(Option::is_some);
    let mut meetings: Vec<Meeting> = Vec::new();
    for meeting in answers.into_iter().flatten() {
        // A node may be reached by several addresses, this one too.
        let known = meetings.iter().any(|met| met.node == meeting.node);
        if meeting.node != core.me && !known {
            core.directory.learn(meeting.node, &meeting.member.address);
            meetings.push(meeting);
        }
    }
    (meetings, complete)
}

async fn meet_one(core: &Core, address: &str) -> Option<Meeting> {
    let mut client = core.directory.stranger(address).ok()?;
    let from = Some(member_to_wire(core.me, &core.member));
    let call = client.meet(proto::MeetRequest { from });
    let reply = tokio::time::timeout(ANSWER_TIMEOUT, call).await.ok()?.ok()?.into_inner();
    let (node, member) = member_from_wire(reply.from?);
    Some(Meeting {
        node,
        member,
        cluster: reply.cluster,
        formed: reply.formed,
        seen: reply.seen.into_iter().map(|member| member.node).collect(),
    })
}

fn remember_seen(core: &Core, meetings: &[Meeting]) {
    let mut seen: BTreeMap<NodeId, Member> =
        meetings.iter().map(|met| (met.node, met.member.clone())).collect();
    seen.insert(core.me, core.member.clone());
    *core.seen.lock().expect("nothing panics while it holds it") = seen;
}

/// Answers a node that wants to know who is here.
pub(crate) async fn meet(core: &Core, request: proto::MeetRequest) -> proto::MeetReply {
    if let Some(from) = request.from {
        let (node, member) = member_from_wire(from);
        if node != core.me {
            core.directory.learn(node, &member.address);
        }
    }
    let members = core.members();
    let seen = core.seen.lock().expect("nothing panics while it holds it").clone();
    let to_wire = |(node, member): (&NodeId, &Member)| member_to_wire(*node, member);
    proto::MeetReply {
        from: Some(member_to_wire(core.me, &core.member)),
        cluster: core.identity.lock().await.cluster,
        formed: !members.is_empty(),
        seen: seen.iter().map(to_wire).collect(),
        members: members.iter().map(to_wire).collect(),
    }
}

/// Answers a founder: this node pledges itself to one cluster only.
pub(crate) async fn pledge(
    core: &Core,
    request: proto::PledgeRequest,
) -> io::Result<proto::PledgeReply> {
    let included = request.members.iter().any(|member| member.node == core.me);
    let mut identity = core.identity.lock().await;
    if identity.cluster == 0 && included && request.cluster != 0 {
        keep(core, &mut identity, request.cluster, request.founder, Vec::new())?;
        info!(founder = request.founder, "pledged to a new cluster");
    }
    let accepted = included && identity.cluster == request.cluster;
    Ok(proto::PledgeReply { accepted })
}

/// Writes the identity down before anything acts on it.
fn keep(
    core: &Core,
    identity: &mut Identity,
    cluster: u64,
    founder: NodeId,
    founding: Vec<(NodeId, String, String)>,
) -> io::Result<()> {
    let changed = Identity { cluster, founder, founding, ..identity.clone() };
    core.storage.keep_identity(&changed)?;
    *identity = changed;
    core.directory.set_cluster(cluster);
    Ok(())
}

/// Gives up the pledge to `cluster`, unless this node has pledged itself to another one since.
async fn release(core: &Core, cluster: u64) -> io::Result<()> {
    let mut identity = core.identity.lock().await;
    if identity.cluster != cluster {
        return Ok(());
    }
    info!("the founder gave up, the pledge is void");
    keep(core, &mut identity, 0, 0, Vec::new())
}

async fn begin_founding(core: &Core, members: BTreeMap<NodeId, Member>) -> io::Result<()> {
    {
        let mut identity = core.identity.lock().await;
        if identity.cluster != 0 {
            // Another founder was faster.
            return Ok(());
        }
        let cluster = random::number() | 1;
        info!(members = members.len(), cluster, "founding a cluster");
        let founding =
            members.into_iter().map(|(node, member)| (node, member.name, member.address)).collect();
        keep(core, &mut identity, cluster, core.me, founding)?;
    }
    resume_founding(core, Instant::now()).await
}

/// Collects the pledges, and starts the cluster once it has all of them.
async fn resume_founding(core: &Core, since: Instant) -> io::Result<()> {
    let identity = core.identity.lock().await.clone();
    let members: BTreeMap<NodeId, Member> = identity
        .founding
        .iter()
        .map(|(node, name, address)| {
            (*node, Member { name: name.clone(), address: address.clone() })
        })
        .collect();
    let others = members.iter().filter(|(node, _)| **node != core.me);
    let asked = others.map(|(_, member)| ask_pledge(core, identity.cluster, &members, member));
    let answers = join_all(asked).await;
    if answers.iter().all(|answer| *answer == Some(true)) {
        info!(cluster = identity.cluster, "all members are pledged, the cluster begins");
        return core.consensus.initialize(members).await.map_err(io::Error::other);
    }
    let refused = answers.contains(&Some(false));
    if refused || since.elapsed() >= FOUNDING_TIMEOUT {
        info!(refused, "giving up this founding");
        keep(core, &mut *core.identity.lock().await, 0, 0, Vec::new())?;
    }
    Ok(())
}

async fn ask_pledge(
    core: &Core,
    cluster: u64,
    members: &BTreeMap<NodeId, Member>,
    member: &Member,
) -> Option<bool> {
    let mut client = core.directory.stranger(&member.address).ok()?;
    let members = members.iter().map(|(node, member)| member_to_wire(*node, member)).collect();
    let call = client.pledge(proto::PledgeRequest { cluster, founder: core.me, members });
    let reply = tokio::time::timeout(ANSWER_TIMEOUT, call).await.ok()?.ok()?;
    Some(reply.into_inner().accepted)
}

/// Enters a cluster that exists.
async fn enter(core: &Core, cluster: u64, node: NodeId, address: &str) -> io::Result<()> {
    {
        let mut identity = core.identity.lock().await;
        if identity.cluster == 0 {
            info!(cluster, "found a cluster");
            keep(core, &mut identity, cluster, 0, Vec::new())?;
        }
        if identity.cluster != cluster {
            // Pledged to another one meanwhile.
            return Ok(());
        }
    }
    ask_to_join(core, node, address).await;
    Ok(())
}

/// Asks the leader to make this node a member; `node` may know who that is.
async fn ask_to_join(core: &Core, node: NodeId, address: &str) {
    let mut asked = (node, address.to_owned());
    // The first may name the leader; a second hint means that there is none yet.
    for _ in 0..2 {
        let Some(reply) = ask_one_to_join(core, asked.0, &asked.1).await else { return };
        match reply.leader {
            Some(leader) if !reply.accepted => asked = (leader.node, leader.address),
            Some(_) | None => return,
        }
    }
}

async fn ask_one_to_join(core: &Core, node: NodeId, address: &str) -> Option<proto::JoinReply> {
    let request = proto::JoinRequest { member: Some(member_to_wire(core.me, &core.member)) };
    if node == core.me {
        let joined = tokio::time::timeout(JOIN_TIMEOUT, super::leading::join(core, request));
        return joined.await.ok()?.ok();
    }
    let mut client = core.directory.client(node, address, Lane::Requests).ok()?;
    match tokio::time::timeout(JOIN_TIMEOUT, client.join(request)).await {
        Ok(Ok(reply)) => Some(reply.into_inner()),
        Ok(Err(status)) => {
            debug!(node, %status, "could not ask to join");
            None
        }
        Err(_elapsed) => None,
    }
}
