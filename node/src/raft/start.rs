//! Builds the parts of consensus and starts its tasks.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use openraft::SnapshotPolicy;
use openraft::async_runtime::watch::WatchReceiver;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::Raft;
use super::alone::Alone;
use super::company::{Company, watch_company};
use super::config::{ClusterConfig, Durability, InvalidSetting, RaftConfig};
use super::core::{Clock, Core};
use super::deliveries::Deliveries;
use super::early_commit::Lookout;
use super::gather::Gather;
use super::log_store::{Extent, LogStore, Settler};
use super::members::{Leases, OwnLease, run_leading, run_standing};
use super::network::{Directory, Network};
use super::proposer::{Lead, ToLeader};
use super::pump::{Pump, PumpLimits, PumpTask};
use super::receipt::Status;
use super::snapshots::Snapshots;
use super::state::{SessionKeys, State};
use super::state_machine::StateMachine;
use super::storage::{Identity, MemoryDisk, Storage};
use super::threads::OwnThreads;
use super::types::{Consensus, Member};
use super::view::View;
use crate::metrics;
use crate::net::Dialer;

/// Which threads consensus runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// As many of its own as the settings say: with one, nothing else can delay a heartbeat.
    Own,
    /// The caller's: for simulations, which have but one.
    Shared,
}

/// All that consensus needs to start.
#[derive(Clone)]
pub struct Options {
    pub raft: RaftConfig,
    pub cluster: ClusterConfig,
    /// The operator's name for the node.
    pub name: String,
    pub version: String,
    /// `host:port` at which other nodes reach this one's gRPC services.
    pub address: String,
    pub data_dir: PathBuf,
    pub dialer: Dialer,
    pub threads: Threads,
    /// Replaces `data_dir`, and survives the process: a simulated machine's disk.
    pub disk: Option<MemoryDisk>,
    /// The keys of sessions that are filtered by often, which this node keeps an index of.
    pub session_keys: SessionKeys,
    /// The system's, if absent.
    pub clock: Option<Clock>,
}

/// Why consensus did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    InvalidSetting(#[from] InvalidSetting),
    #[error("{} is in use by another process", directory.display())]
    InUse { directory: PathBuf },
    #[error(
        "the data in {} is damaged; to let this node rejoin its cluster as a new member, \
         move the directory away and start again",
        directory.display()
    )]
    Damaged {
        directory: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} cannot be used", directory.display())]
    Storage {
        directory: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("consensus could not be started: {reason}")]
    Consensus { reason: String },
}

impl StartError {
    pub(super) fn storage(directory: PathBuf, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::WouldBlock => Self::InUse { directory },
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                Self::Damaged { directory, source }
            }
            _ => Self::Storage { directory, source },
        }
    }
}

/// Builds the parts of consensus and starts their tasks, on threads of their own if the settings say so.
pub(super) async fn start(options: Options) -> Result<Raft, StartError> {
    options.raft.check()?;
    options.cluster.check()?;
    let threads = match options.threads {
        Threads::Shared => 0,
        Threads::Own => options.raft.own_threads(&options.cluster, &options.address),
    };
    let own_threads = match threads {
        0 => None,
        threads => {
            let started = OwnThreads::start(threads);
            Some(started.map_err(|error| StartError::Consensus { reason: error.to_string() })?)
        }
    };
    let handle = own_threads.as_ref().map_or_else(Handle::current, |own| own.handle().clone());
    // openraft spawns its tasks where it is made.
    let tasks = TaskTracker::new();
    let stop = CancellationToken::new();
    let built = tasks.spawn_on(build(options, tasks.clone(), stop.clone()), &handle).await;
    let core = match built {
        Ok(Ok(core)) => core,
        Ok(Err(error)) => {
            end(own_threads);
            return Err(error);
        }
        Err(error) => {
            end(own_threads);
            return Err(StartError::Consensus { reason: error.to_string() });
        }
    };
    Ok(Raft { core, tasks, stop, handle, own_threads: Mutex::new(own_threads) })
}

fn end(threads: Option<OwnThreads>) {
    if let Some(threads) = threads {
        threads.shutdown_background();
    }
}

async fn build(
    options: Options,
    tasks: TaskTracker,
    stop: CancellationToken,
) -> Result<Arc<Core>, StartError> {
    let storage = storage(&options);
    let damaged = |error| StartError::storage(options.data_dir.clone(), error);
    let identity = storage.identity().map_err(damaged)?;
    info!(node = identity.node, cluster = identity.cluster, "starting consensus");
    let directory =
        Arc::new(Directory::new(identity.node, identity.cluster, options.dialer.clone()));
    let planted = options.disk.as_ref().and_then(MemoryDisk::planted_bug);
    let deliveries = Arc::new(Deliveries::new(identity.node).with_planted_bug(planted));
    let view =
        Arc::new(View::new(State::default().with_session_keys(options.session_keys.clone())));
    let door = Arc::new(Gather::new(options.raft.gather_interval));
    let network = (directory.clone(), door.clone());
    let Started { consensus, log_released, settler, extent } =
        consensus(&options, &storage, &identity, network, &deliveries, &view).await?;
    let (lead_sender, lead) = watch::channel(Lead::default());
    let alone = Arc::new(Alone::default());
    let pump = Pump::new(PumpLimits {
        changes: options.raft.max_queued_changes,
        bytes: options.raft.max_queued_bytes,
        timeout: options.raft.propose_timeout,
    });
    let lease = options.cluster.lease;
    let core = Arc::new(Core {
        me: identity.node,
        member: Member { name: options.name, address: options.address },
        version: options.version,
        cluster: options.cluster,
        settings: options.raft,
        clock: options.clock.unwrap_or_else(|| Arc::new(system_clock)),
        storage,
        identity: tokio::sync::Mutex::new(identity),
        directory: directory.clone(),
        consensus: consensus.clone(),
        log_released,
        extent,
        settler,
        door: door.clone(),
        deliveries: deliveries.clone(),
        view,
        lead: lead.clone(),
        alone: alone.clone(),
        pump: pump.clone(),
        status: watch::Sender::new(Status::Starting),
        company: watch::Sender::new(Company::default()),
        leases: Mutex::new(Leases::new(lease)),
        own_lease: OwnLease::new(lease),
        seen: Mutex::new(BTreeMap::new()),
        membership: tokio::sync::Mutex::new(()),
    });
    let following = until(stop.clone(), follow_lead(consensus.clone(), lead_sender, alone.clone()));
    tasks.spawn(async move {
        following.await;
        alone.set_leads_nobody(false);
    });
    let proposer = ToLeader::new(directory, consensus, door, lead);
    let pump_task = PumpTask::new(core.me, &pump, deliveries, proposer, core.clock.clone());
    tasks.spawn(pump_task.run(stop.clone()));
    let standing = core.clone();
    let standing_stop = stop.clone();
    tasks.spawn(async move { run_standing(&standing, standing_stop).await });
    let draining = core.clone();
    let draining_stop = stop.clone();
    tasks.spawn(async move { watch_company(&draining, draining_stop).await });
    let leading = core.clone();
    tasks.spawn(async move { run_leading(&leading, stop).await });
    Ok(core)
}

async fn until(stop: CancellationToken, task: impl Future<Output = ()>) {
    tokio::select! {
        () = task => {}
        () = stop.cancelled() => {}
    }
}

fn storage(options: &Options) -> Storage {
    match (&options.disk, options.raft.durability) {
        (Some(disk), _) => Storage::Memory(disk.clone()),
        (None, Durability::Memory) => Storage::Memory(MemoryDisk::default()),
        (None, durability) => Storage::Directory { path: options.data_dir.clone(), durability },
    }
}

/// openraft, and what its log tells.
struct Started {
    consensus: Consensus,
    /// Cancelled once it has closed the log.
    log_released: CancellationToken,
    /// None where the log is in memory.
    settler: Option<Settler>,
    extent: Extent,
}

async fn consensus(
    options: &Options,
    storage: &Storage,
    identity: &Identity,
    (directory, door): (Arc<Directory>, Arc<Gather>),
    deliveries: &Arc<Deliveries>,
    view: &Arc<View>,
) -> Result<Started, StartError> {
    let damaged = |error| StartError::storage(options.data_dir.clone(), error);
    let config = openraft_config(&options.raft)?;
    let log = storage.open_log_of(identity).map_err(damaged)?;
    let log_released = log.released();
    let settler = log.settler();
    let snapshots = storage.open_snapshots().map_err(damaged)?;
    // openraft would report a damaged snapshot too, but not as what it is.
    snapshots.newest().await.map_err(damaged)?;
    check_reach(&log, &snapshots).map_err(damaged)?;
    let machine = StateMachine::new(view.clone(), deliveries.clone(), snapshots)
        .with_settler(settler.clone());
    let extent = log.extent();
    let lookout = Arc::new(Lookout::new(identity.node, extent.clone()));
    let network = Network { directory, door, lookout: lookout.clone() };
    let consensus = Consensus::new(identity.node, Arc::new(config), network, log, machine)
        .await
        .map_err(|error| StartError::Consensus { reason: error.to_string() })?;
    lookout.watch(consensus.server_metrics());
    Ok(Started { consensus, log_released, settler, extent })
}

/// A log that ends before a snapshot that was taken of its own entries has lost some. One that was
/// sent by a leader may be ahead of the log, if the node crashed before it gave up the entries.
pub(super) fn check_reach(log: &LogStore, snapshots: &Snapshots) -> io::Result<()> {
    match snapshots.newest_own()? {
        Some(index) if log.last_index().is_none_or(|last| last < index) => {
            let error = format!("the log ends before the snapshot of its entry {index}");
            Err(io::Error::new(io::ErrorKind::InvalidData, error))
        }
        Some(_) | None => Ok(()),
    }
}

fn openraft_config(settings: &RaftConfig) -> Result<openraft::Config, StartError> {
    let millis = |duration: Duration| duration.as_millis() as u64;
    let election_max = millis(settings.election_timeout_max);
    let config = openraft::Config {
        cluster_name: "flotilla".to_owned(),
        heartbeat_interval: millis(settings.heartbeat_interval),
        // What was replicated lately shows as well that a follower lives. The longest pause, with openraft's tick, is
        // 1.7 intervals, and followers are patient for two at least.
        heartbeat_min_interval: Some(millis(settings.heartbeat_interval) / 2),
        election_timeout_min: millis(settings.election_timeout_min),
        election_timeout_max: election_max,
        install_snapshot_timeout: 60_000,
        // An entry holds many changes; a message of entries stays below what gRPC takes because the
        // log store limits its bytes.
        max_payload_entries: 512,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(settings.snapshot_interval),
        replication_lag_threshold: settings.snapshot_interval * 2,
        max_in_snapshot_log_to_keep: settings.snapshot_interval / 2,
        purge_batch_size: 256,
        enable_pre_vote: Some(true),
        // A leader sends entries while its own disk still syncs them. If it crashed then, and went on
        // in the same term, it would give their log ids to other entries.
        enable_leader_restore: Some(false),
        // Frees a majority that an old leader's heartbeats keep from electing another.
        quorum_loss_probe_interval: Some(election_max * 2),
        ..openraft::Config::default()
    };
    config.validate().map_err(|error| StartError::Consensus { reason: error.to_string() })
}

fn system_clock() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_millis() as u64)
}

/// Tells everyone who leads, until it is dropped.
async fn follow_lead(consensus: Consensus, lead: watch::Sender<Lead>, alone: Arc<Alone>) {
    let mut metrics = consensus.server_metrics();
    loop {
        // Copied at once: a borrowed metric that is held blocks the core.
        let now = metrics.borrow_watched().clone();
        let leader = now.current_leader.and_then(|node| {
            let member = now.membership_config.get_node(&node)?.clone();
            Some((node, member))
        });
        let is_alone = now.membership_config.voter_ids().eq([now.id]);
        let next = Lead { leader, term: now.vote.leader_id.term, is_alone };
        let members = now.membership_config.nodes().map(|(node, _)| *node);
        alone.set_leads_nobody(next.id() == Some(now.id) && members.eq([now.id]));
        lead.send_if_modified(|lead| {
            let changed = *lead != next;
            if next.id().is_some() && next.id() != lead.id() {
                metrics::LEADER_CHANGES.add(1);
                info!(leader = next.id(), term = next.term, "leader changed");
            } else if next.id().is_none() && lead.id().is_some() {
                warn!(term = next.term, "no leader");
            }
            *lead = next.clone();
            changed
        });
        if metrics.changed().await.is_err() {
            break;
        }
    }
    // Consensus has ended, here, and with it whoever led. The sender is kept: those who wait for a
    // leader shall wait, and not find a closed channel again and again.
    alone.set_leads_nobody(false);
    lead.send_replace(Lead::default());
    std::future::pending().await
}
