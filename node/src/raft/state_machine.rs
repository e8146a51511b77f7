//! Applies changes, takes snapshots.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use openraft::storage::{ApplyResponder, EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use tracing::{error, info};

use super::deliveries::{Batch, Deliveries};
use super::log_store::Settler;
use super::planted::PlantedBug;
use super::snapshots::Snapshots;
use super::state::{self, Change, Owner, Place, State, Verdict};
use super::types::{Applied, Entry, LogId, Snapshot, SnapshotMeta, StoredMembership, TypeConfig};
use super::view::View;
use super::wire::decode_proposal;

/// So many entries are applied at most before their effects are handed over. Room for as many is set aside each time.
const MAX_BATCH: usize = 32;

/// Changes the agreed state, and knows how far it is. Owned by openraft's apply task.
#[derive(Debug)]
pub(crate) struct StateMachine {
    /// Nobody else changes it.
    view: Arc<View>,
    applied: Option<LogId>,
    membership: StoredMembership,
    deliveries: Arc<Deliveries>,
    snapshots: Snapshots,
    /// The snapshot that was read at start: installing it need not write it again.
    kept: Option<LogId>,
    /// Changes of the entry in hand; kept for its memory.
    changes: Vec<state::Applied>,
    settler: Option<Settler>,
}

impl StateMachine {
    pub(crate) fn new(view: Arc<View>, deliveries: Arc<Deliveries>, snapshots: Snapshots) -> Self {
        Self {
            view,
            applied: None,
            membership: StoredMembership::default(),
            deliveries,
            snapshots,
            kept: None,
            changes: Vec::new(),
            settler: None,
        }
    }

    /// Has snapshots kept only once the log has stored what they are of.
    pub(crate) fn with_settler(self, settler: Option<Settler>) -> Self {
        Self { settler, ..self }
    }

    /// Applies one entry at its place; what follows goes to `batch`.
    fn apply_entry(&mut self, entry: &Entry, batch: &mut Batch) -> io::Result<Applied> {
        let index = entry.log_id.index;
        let mut applied = Applied::default();
        match &entry.payload {
            EntryPayload::Blank => self.view.change(|state| state.advance_to(index)),
            EntryPayload::Membership(membership) => {
                self.view.change(|state| state.advance_to(index));
                self.membership = StoredMembership::new(Some(entry.log_id), membership.clone());
            }
            EntryPayload::Normal(data) => {
                self.apply_proposal(index, data.0.clone(), batch, &mut applied)?;
            }
        }
        self.applied = Some(entry.log_id);
        Ok(applied)
    }

    /// A proposal that cannot be read stops the node: it comes from a newer version, and to pass
    /// over it would let the replicas part.
    fn apply_proposal(
        &mut self,
        index: u64,
        bytes: Bytes,
        batch: &mut Batch,
        applied: &mut Applied,
    ) -> io::Result<()> {
        let mut proposal = match self.deliveries.own_proposals.take(&bytes) {
            Some(own) => {
                debug_assert_eq!(decode_proposal(&bytes).as_ref(), Ok(&own), "replicas would part");
                own
            }
            None => decode_proposal(&bytes)?,
        };
        if self.deliveries.planted == Some(PlantedBug::NoDedup) {
            let last_seq = |state: &State| state.node(proposal.node).map(|node| node.last_seq);
            if let Some(last_seq) = self.view.glance(last_seq) {
                proposal.first_seq = last_seq + 1;
            }
        }
        let first_seq = proposal.first_seq;
        let proposer = Owner { node: proposal.node, incarnation: proposal.incarnation };
        if proposal.changes.iter().any(|change| matches!(change, Change::NodeDraining)) {
            batch.note_peers();
        }
        let is_wide = proposal.changes.iter().any(Change::is_wide);
        let apply = |state: &mut State| state.apply(index, proposal, &mut self.changes);
        let verdict = if is_wide { self.view.change_aside(apply) } else { self.view.change(apply) };
        match verdict {
            Verdict::Applied { .. } => {}
            Verdict::Refused { .. } => applied.refused = true,
            Verdict::Gap { expected } => {
                error!(node = proposer.node, expected, "a node's proposals have a gap");
                applied.refused = true;
            }
        }
        for mut change in self.changes.drain(..) {
            if let Some(planted) = self.deliveries.planted {
                planted.displace_seam(&mut change.effects);
            }
            let place = Place::of(index, first_seq, change.seq);
            batch.add(&self.deliveries, &self.view, place, proposer, change);
        }
        Ok(())
    }

    fn meta(&self) -> SnapshotMeta {
        SnapshotMeta { last_log_id: self.applied, last_membership: self.membership.clone() }
    }
}

/// Applies the entries that are committed but not in `state`: for looking at a node that is down.
pub(crate) fn replay(state: &mut State, entries: Vec<Entry>) -> io::Result<()> {
    let mut changes = Vec::new();
    for entry in entries {
        match entry.payload {
            EntryPayload::Normal(data) => {
                let proposal = decode_proposal(&data.0)?;
                state.apply(entry.log_id.index, proposal, &mut changes);
                changes.clear();
            }
            EntryPayload::Blank | EntryPayload::Membership(_) => {
                state.advance_to(entry.log_id.index);
            }
        }
    }
    Ok(())
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = Bytes;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.applied, self.membership.clone()))
    }

    /// Applies all entries that are ready, hands over their effects, and answers their proposers:
    /// each of these once for the whole batch.
    async fn apply<Strm>(&mut self, entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let deliveries = self.deliveries.clone();
        let mut answers: Vec<(ApplyResponder<TypeConfig>, Applied)> = Vec::new();
        let mut ready = entries.ready_chunks(MAX_BATCH);
        while let Some(chunk) = ready.next().await {
            let mut batch = Batch::begin(&deliveries);
            for item in chunk {
                let (entry, responder) = item?;
                let applied = self.apply_entry(&entry, &mut batch)?;
                answers.extend(responder.map(|responder| (responder, applied)));
            }
            batch.deliver(&deliveries, &self.view).await;
            for (responder, applied) in answers.drain(..) {
                responder.send(applied);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder {
            state: State::clone(&self.view.load()),
            meta: self.meta(),
            snapshots: self.snapshots.clone(),
            settler: self.settler.clone(),
        }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Bytes) -> io::Result<()> {
        let state = State::decode(snapshot.clone())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?
            .with_session_keys(self.view.glance(|state| state.session_keys().clone()));
        if self.kept.is_none() || self.kept != meta.last_log_id {
            self.snapshots.keep(Snapshot { meta: meta.clone(), snapshot }).await?;
            self.kept = meta.last_log_id;
        }
        info!(index = state.index(), "snapshot installed");
        self.view.change_aside(|view| *view = state);
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.deliveries.skipped_to(&self.view.load()).await;
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let newest = self.snapshots.newest().await?;
        self.kept = newest.as_ref().and_then(|snapshot| snapshot.meta.last_log_id);
        Ok(newest)
    }
}

/// Writes a snapshot of the state as it was when the builder was made, beside applying.
pub(crate) struct SnapshotBuilder {
    state: State,
    meta: SnapshotMeta,
    snapshots: Snapshots,
    settler: Option<Settler>,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let state = self.state.clone();
        let bytes = self.snapshots.run(move || Bytes::from(state.encode())).await?;
        let snapshot = Snapshot { meta: self.meta.clone(), snapshot: bytes };
        // Entries are applied once a majority has stored them, which this node need not be of.
        if let Some(settler) = &self.settler {
            settler.settle().await?;
        }
        self.snapshots.keep_own(snapshot.clone()).await?;
        info!(index = self.state.index(), bytes = snapshot.snapshot.len(), "snapshot taken");
        Ok(snapshot)
    }
}
