//! Acks of emits: which sockets of this node owe one to whom, and what an emit has gathered.

use std::collections::VecDeque;

use smallvec::SmallVec;

use crate::raft::state::NodeId;
use crate::socketio::Payload;

/// Who waits for an ack: the node that emitted, and its key for the emit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asker {
    pub node: NodeId,
    pub key: u64,
}

/// The acks that one socket owes, the oldest first.
///
/// A client that never answers is bounded: beyond [`MAX_DEBTS`] its oldest are forgotten.
#[derive(Debug, Default)]
pub(super) struct Debts(VecDeque<(u64, Asker)>);

/// How many acks one socket may owe.
const MAX_DEBTS: usize = 1024;

impl Debts {
    /// Adds one; returns the one that had to be forgotten for it.
    pub(super) fn add(&mut self, id: u64, asker: Asker) -> Option<Asker> {
        self.0.push_back((id, asker));
        if self.0.len() <= MAX_DEBTS {
            return None;
        }
        self.0.pop_front().map(|(_, forgotten)| forgotten)
    }

    pub(super) fn take(&mut self, id: u64) -> Option<Asker> {
        let place = self.0.iter().position(|(owed, _)| *owed == id)?;
        let (_, asker) = self.0.remove(place)?;
        if self.0.is_empty() {
            // Most sockets owe nothing most of the time.
            self.0 = VecDeque::new();
        }
        Some(asker)
    }

    pub(super) fn into_askers(self) -> impl Iterator<Item = Asker> {
        self.0.into_iter().map(|(_, asker)| asker)
    }
}

/// What an emit has gathered: one answer for each socket, in the order in which they came.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answers {
    pub answers: Vec<Payload>,
    /// Whether every socket that was meant, and is still there, has answered.
    pub is_complete: bool,
}

/// The answers to one emit, from all nodes.
///
/// It is complete once every node that had a target has told how many sockets it sent the packet
/// to, and as many have answered or gone.
#[derive(Debug)]
pub(super) struct Gather {
    nodes: SmallVec<[Share; 3]>,
    answers: Vec<Payload>,
    /// The nodes that are asked are known: before, no count can end it.
    asked: bool,
    /// A node that may have had targets could not be asked.
    is_partial: bool,
}

#[derive(Debug)]
struct Share {
    node: NodeId,
    /// How many sockets of the node were sent the packet, once it has told.
    sent: Option<u32>,
    settled: u32,
}

impl Gather {
    pub(super) fn new() -> Self {
        Self { nodes: SmallVec::new(), answers: Vec::new(), asked: false, is_partial: false }
    }

    /// The packet has gone to `nodes`.
    pub(super) fn handle_asked(&mut self, nodes: impl IntoIterator<Item = NodeId>) {
        self.asked = true;
        for node in nodes {
            self.share(node);
        }
    }

    /// `node` has sent the packet to `sockets` sockets.
    pub(super) fn handle_sent(&mut self, node: NodeId, sockets: u32) {
        self.share(node).sent = Some(sockets);
    }

    /// A socket of `node` has answered; `None` if it is gone and will not.
    pub(super) fn handle_answer(&mut self, node: NodeId, answer: Option<Payload>) {
        self.share(node).settled += 1;
        self.answers.extend(answer);
    }

    /// A question has gone to `node`, which is to give one answer to it.
    pub(super) fn handle_question(&mut self, node: NodeId) {
        *self.share(node).sent.get_or_insert(0) += 1;
    }

    /// All questions have gone: from now on the counts can end it.
    pub(super) fn handle_all_asked(&mut self) {
        self.asked = true;
    }

    /// `node` has answered a question; `None` if it has no answer, which will be missing.
    pub(super) fn handle_reply(&mut self, node: NodeId, answer: Option<Payload>) {
        self.is_partial |= answer.is_none();
        self.handle_answer(node, answer);
    }

    /// `node` is dead: nothing more is expected of it.
    pub(super) fn handle_node_down(&mut self, node: NodeId) {
        self.nodes.retain(|share| share.node != node);
    }

    /// `node` lives, but could not be asked: what it would have answered is missing.
    pub(super) fn handle_unreached(&mut self, node: NodeId) {
        self.handle_node_down(node);
        self.is_partial = true;
    }

    /// Whether there is nothing more to wait for.
    pub(super) fn is_over(&self) -> bool {
        self.asked
            && self.nodes.iter().all(|share| share.sent.is_some_and(|sent| sent <= share.settled))
    }

    pub(super) fn take(&mut self) -> Answers {
        Answers {
            is_complete: self.is_over() && !self.is_partial,
            answers: std::mem::take(&mut self.answers),
        }
    }

    fn share(&mut self, node: NodeId) -> &mut Share {
        let place = self.nodes.iter().position(|share| share.node == node).unwrap_or_else(|| {
            self.nodes.push(Share { node, sent: None, settled: 0 });
            self.nodes.len() - 1
        });
        &mut self.nodes[place]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKER: Asker = Asker { node: 1, key: 7 };

    fn payload() -> Payload {
        Payload { json: "[]".into(), attachments: Vec::new() }
    }

    #[test]
    fn ack_is_owed_once() {
        let mut debts = Debts::default();
        assert_eq!(debts.add(1, ASKER), None);
        assert_eq!(debts.take(2), None);
        assert_eq!(debts.take(1), Some(ASKER));
        assert_eq!(debts.take(1), None);
    }

    #[test]
    fn silent_socket_owes_no_more_than_the_bound() {
        let mut debts = Debts::default();
        for id in 0..MAX_DEBTS as u64 {
            assert_eq!(debts.add(id, ASKER), None);
        }
        assert_eq!(debts.add(MAX_DEBTS as u64, ASKER), Some(ASKER));
        assert_eq!(debts.take(0), None);
        assert_eq!(debts.into_askers().count(), MAX_DEBTS);
    }

    #[test]
    fn gather_waits_for_every_nodes_count_and_all_answers() {
        let mut gather = Gather::new();
        gather.handle_answer(2, Some(payload()));
        assert!(!gather.is_over());
        gather.handle_asked([1, 2]);
        gather.handle_sent(1, 0);
        assert!(!gather.is_over());
        gather.handle_sent(2, 2);
        assert!(!gather.is_over());
        gather.handle_answer(2, None);
        assert!(gather.is_over());
        assert_eq!(gather.take(), Answers { answers: vec![payload()], is_complete: true });
    }

    #[test]
    fn dead_node_leaves_the_expected_count() {
        let mut gather = Gather::new();
        gather.handle_asked([1, 2]);
        gather.handle_sent(1, 0);
        gather.handle_node_down(2);
        assert!(gather.is_over());
    }

    #[test]
    fn node_that_cannot_be_asked_makes_the_answer_partial_and_is_not_waited_for() {
        let mut gather = Gather::new();
        gather.handle_asked([1, 2]);
        gather.handle_unreached(2);
        gather.handle_sent(1, 1);
        assert!(!gather.is_over());
        gather.handle_answer(1, Some(payload()));
        assert!(gather.is_over());
        assert_eq!(gather.take(), Answers { answers: vec![payload()], is_complete: false });
    }

    #[test]
    fn every_question_has_one_reply_and_a_missing_one_is_told() {
        let mut gather = Gather::new();
        gather.handle_question(1);
        gather.handle_question(1);
        gather.handle_question(2);
        gather.handle_all_asked();
        gather.handle_reply(1, Some(payload()));
        gather.handle_reply(2, None);
        assert!(!gather.is_over());
        gather.handle_reply(1, Some(payload()));
        assert!(gather.is_over());
        let answers = gather.take();
        assert_eq!((answers.answers.len(), answers.is_complete), (2, false));
    }

    #[test]
    fn nobody_asked_is_over_at_once() {
        let mut gather = Gather::new();
        gather.handle_asked([]);
        assert!(gather.is_over());
    }
}
