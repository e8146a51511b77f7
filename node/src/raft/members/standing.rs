//! Keeps this node registered, and its lease renewed.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use flotilla_proto::raft as proto;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::bootstrap::become_member;
use super::names::watch_names;
use crate::raft::core::Core;
use crate::raft::network::Lane;
use crate::raft::planted::PlantedBug;
use crate::raft::proposer::{Propose, ToLeader};
use crate::raft::receipt::Status;
use crate::raft::state::{Change, Incarnation, NodeUp, Proposal};
use crate::raft::storage::Identity;
use crate::raft::wire::encode_proposal;
use crate::random;

/// An attempt to register that has no answer by then is repeated; the state knows it again by its
/// boot number.
const REGISTER_TIMEOUT: Duration = Duration::from_secs(2);

/// After a renewal that brought no lease.
const RENEW_PAUSE: Duration = Duration::from_millis(50);

/// The lease that this node holds. Written by its standing task, read by everyone.
#[derive(Debug)]
pub(crate) struct OwnLease {
    start: Instant,
    lease: Duration,
    /// Microseconds after `start` at which this node must have renewed, or fence itself; 0: now.
    until_micros: AtomicU64,
    /// Index of the leader's last entry at the last renewal.
    log_end: AtomicU64,
}

impl OwnLease {
    pub(crate) fn new(lease: Duration) -> Self {
        Self {
            start: Instant::now(),
            lease,
            until_micros: AtomicU64::new(0),
            log_end: AtomicU64::new(u64::MAX),
        }
    }

    pub(crate) fn is_held(&self, now: Instant) -> bool {
        now < self.until()
    }

    /// The end of the leader's log at the last renewal: nobody knew of anything committed beyond.
    pub(crate) fn log_end(&self) -> u64 {
        self.log_end.load(Ordering::Acquire)
    }

    fn until(&self) -> Instant {
        self.start + Duration::from_micros(self.until_micros.load(Ordering::Acquire))
    }

    /// The lease counts from when it was asked for, and ends a margin early: by then no other
    /// node may think this one dead, whatever their clocks did meanwhile.
    fn renew(&self, asked: Instant, log_end: u64) {
        let margin = self.lease / 5;
        let until = asked + self.lease - margin;
        let micros = until.saturating_duration_since(self.start).as_micros() as u64;
        self.log_end.store(log_end, Ordering::Release);
        self.until_micros.store(micros, Ordering::Release);
    }

    fn end(&self) {
        self.until_micros.store(0, Ordering::Release);
    }

    fn interval(&self) -> Duration {
        self.lease / 6
    }
}

pub(crate) async fn run_standing(core: &Core, stop: CancellationToken) {
    let proposer = ToLeader::new(
        core.directory.clone(),
        core.consensus.clone(),
        core.door.clone(),
        core.lead.clone(),
    );
    tokio::select! {
        () = stand(core, proposer) => {}
        () = watch_names(core) => {}
        () = stop.cancelled() => {}
    }
}

/// Joins the cluster, registers, keeps the lease; and again whenever the cluster gave this node up.
async fn stand(core: &Core, mut proposer: ToLeader) {
    loop {
        become_member(core).await;
        let incarnation = register(core, &mut proposer).await;
        info!(node = core.me, incarnation, "registered");
        if let Err(error) = note_joined(core).await {
            // A disk that takes nothing ends consensus, and that is told of there.
            warn!(%error, "could not note that this node has joined");
        }
        hold(core, incarnation).await;
        warn!(incarnation, "the cluster gave this node up");
        core.own_lease.end();
        core.pump.fence();
        set_status(core, Status::Down);
    }
}

/// Notes, once, that the log holds entries: from then on it is missed if it is lost.
async fn note_joined(core: &Core) -> io::Result<()> {
    let mut identity = core.identity.lock().await;
    if identity.joined {
        return Ok(());
    }
    // What was agreed with others is applied before this node's own disk has it.
    if let Some(settler) = &core.settler {
        settler.settle().await?;
    }
    let joined = Identity { joined: true, ..identity.clone() };
    core.storage.keep_identity(&joined)?;
    *identity = joined;
    Ok(())
}

/// Proposes this process as a new incarnation until this node's own log has it.
async fn register(core: &Core, proposer: &mut ToLeader) -> Incarnation {
    let boot = random::number();
    core.deliveries.set_boot(boot);
    let up = NodeUp {
        boot,
        name: core.member.name.as_str().into(),
        address: core.member.address.as_str().into(),
        version: core.version.as_str().into(),
    };
    let proposal = Proposal {
        node: core.me,
        incarnation: 0,
        first_seq: 0,
        stamp_ms: (core.clock)(),
        changes: vec![Change::NodeUp(Box::new(up))],
    };
    let bytes = encode_proposal(&proposal);
    let mut standing = core.deliveries.standing.subscribe();
    loop {
        let until = Instant::now() + REGISTER_TIMEOUT;
        let attempt = async {
            if proposer.propose(bytes.clone(), 1, false, until).await.is_ok() {
                // Applied at the leader, which is this node, or about to be.
                tokio::time::sleep_until(until).await;
            }
        };
        tokio::select! {
            biased;
            Ok(standing) = standing.wait_for(|standing| standing.live.is_some()) => {
                return standing.live.expect("it was waited for");
            }
            () = attempt => {}
        }
    }
}

/// Renews the lease until this node's own log says that the incarnation is over.
async fn hold(core: &Core, incarnation: Incarnation) {
    let mut standing = core.deliveries.standing.subscribe();
    let mut next = Instant::now();
    loop {
        tokio::select! {
            biased;
            _ = standing.wait_for(|standing| standing.live != Some(incarnation)) => return,
            () = tokio::time::sleep_until(next) => {}
        }
        let asked = Instant::now();
        let reply = ask_lease(core, incarnation, asked).await;
        let lease = reply.map_or(proto::Lease::Unspecified, |reply| reply.lease());
        next = Instant::now() + RENEW_PAUSE;
        if let (proto::Lease::Granted, Some(reply)) = (lease, reply) {
            core.own_lease.renew(asked, reply.log_end);
            open(core).await;
            set_status(core, Status::Ready);
            next = asked + core.own_lease.interval();
        } else if core.deliveries.planted == Some(PlantedBug::NoFence) {
            continue;
        } else if lease == proto::Lease::Dead || !core.own_lease.is_held(Instant::now()) {
            core.own_lease.end();
            core.pump.fence();
            set_status(core, Status::Fenced);
        }
    }
}

/// Takes proposals again. Those by which namespaces ask for their open sockets, or tell of them, come first, so that
/// what an application has a socket do finds it this node's.
async fn open(core: &Core) {
    if core.pump.is_fenced() {
        let asked = core.deliveries.ask_for_sockets();
        // A namespace that is behind by more than this asks when it comes to it.
        let _ = tokio::time::timeout(core.own_lease.interval(), asked).await;
        core.pump.open();
    }
}

/// One renewal, cut short where the lease ends.
async fn ask_lease(
    core: &Core,
    incarnation: Incarnation,
    asked: Instant,
) -> Option<proto::RenewReply> {
    let request = proto::RenewRequest { node: core.me, incarnation };
    let (leader, member) = core.lead.borrow().leader.clone()?;
    if leader == core.me {
        return Some(super::leading::renew(core, &request));
    }
    let mut until = asked + core.own_lease.interval();
    if core.own_lease.is_held(asked) {
        until = until.min(core.own_lease.until());
    }
    let mut client = core.directory.client(leader, &member.address, Lane::Requests).ok()?;
    let reply = tokio::time::timeout_at(until, client.renew(request)).await.ok()?.ok()?;
    Some(reply.into_inner())
}

/// A node that drains stays so, and one that never was ready is not fenced.
fn set_status(core: &Core, status: Status) {
    core.status.send_if_modified(|current| {
        let stays = match *current {
            Status::Draining => true,
            Status::Starting | Status::Down => status == Status::Fenced,
            Status::Ready | Status::Fenced => false,
        };
        let changes = *current != status && !stays;
        if changes {
            info!(?status, "standing changed");
            *current = status;
        }
        changes
    });
}
