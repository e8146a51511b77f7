//! This node's own proposals as they were before they were encoded, until they are applied.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};

use bytes::Bytes;

use super::state::Proposal;

/// The leader's answer may come before an entry is applied here, so a few can be on their way. Older ones are
/// forgotten: their entries are decoded like another node's.
const KEPT: usize = 4;

/// Filled by the pump, emptied by the apply task, which need not decode what it finds here.
#[derive(Debug, Default)]
pub(crate) struct OwnProposals(Mutex<VecDeque<(Bytes, Proposal)>>);

impl OwnProposals {
    /// Keeps what `encoded` is the encoded form of.
    pub(crate) fn keep(&self, encoded: Bytes, proposal: Proposal) {
        let mut kept = self.lock();
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back((encoded, proposal));
    }

    /// The proposal whose encoded form is `encoded`, with those that were kept before it dropped.
    pub(crate) fn take(&self, encoded: &Bytes) -> Option<Proposal> {
        let mut kept = self.lock();
        let at = kept.iter().position(|(bytes, _)| is_same(bytes, encoded))?;
        kept.drain(..=at).next_back().map(|(_, proposal)| proposal)
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(Bytes, Proposal)>> {
        self.0.lock().expect("nothing panics while it holds it")
    }
}

/// On the leader it is the same memory; on a follower it has been to the leader and back.
fn is_same(a: &Bytes, b: &Bytes) -> bool {
    a.len() == b.len() && (a.as_ptr() == b.as_ptr() || a == b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::wire::encode_proposal;

    fn proposal(first_seq: u64) -> (Bytes, Proposal) {
        let proposal =
            Proposal { node: 1, incarnation: 2, first_seq, stamp_ms: 3, changes: Vec::new() };
        (encode_proposal(&proposal), proposal)
    }

    #[test]
    fn own_proposal_is_found_by_what_the_log_has() {
        let own = OwnProposals::default();
        for first_seq in 1..=3 {
            let (encoded, proposal) = proposal(first_seq);
            own.keep(encoded, proposal);
        }
        let (encoded, second) = proposal(2);
        assert_eq!(own.take(&Bytes::copy_from_slice(&encoded)), Some(second));
        assert_eq!(own.take(&encoded), None, "once");
        assert_eq!(own.take(&proposal(1).0), None, "an older one is not applied any more");
        assert_eq!(own.take(&proposal(9).0), None, "another node's");
        let (encoded, third) = proposal(3);
        assert_eq!(own.take(&encoded), Some(third));
    }

    #[test]
    fn few_are_kept() {
        let own = OwnProposals::default();
        for first_seq in 1..=KEPT as u64 + 1 {
            let (encoded, proposal) = proposal(first_seq);
            own.keep(encoded, proposal);
        }
        assert_eq!(own.take(&proposal(1).0), None);
        assert!(own.take(&proposal(2).0).is_some());
    }
}
