//! Incarnations that ended with sockets, and who is to tell of them.

use std::sync::Arc;

use tokio::sync::watch;

use super::proposer::Lead;
use super::state::{Incarnation, NodeId, Owner, SocketView, State};

/// Ends that wait to be told of; beyond, the oldest are forgotten. There is one for each death of a
/// node, and each waits for a moment.
const KEPT_ENDS: usize = 64;

/// An incarnation that was declared dead, or that its node's next one has replaced.
#[derive(Debug)]
pub struct Ended {
    pub owner: Owner,
    /// The log index at which it ended.
    pub index: u64,
    before: State,
}

impl Ended {
    /// What ended with it: the sockets that it had, and that are not there any more in `now`, a
    /// view no older than the end.
    pub fn sockets<'a>(&'a self, now: &'a State) -> impl Iterator<Item = SocketView<'a>> {
        let its = self.before.sockets().filter(|socket| socket.owner() == self.owner);
        its.filter(|socket| now.socket(socket.id()).is_none())
    }

    /// The node that tells of them: the leader, or another one, if the leader's process is younger
    /// than the end and knows nothing of it.
    pub fn teller(&self, now: &State, leader: Option<NodeId>) -> Option<NodeId> {
        let saw_it = |incarnation: Incarnation| incarnation < self.index;
        let live = |node: NodeId| now.alive(node).is_some_and(saw_it);
        let witnesses = now.nodes().map(|(node, _)| node).filter(|node| live(*node));
        leader.filter(|leader| live(*leader)).or_else(|| witnesses.min())
    }
}

/// Wakes whoever depends on who leads.
#[derive(Debug)]
pub struct LeaderWatch(pub(super) watch::Receiver<Lead>);

impl LeaderWatch {
    pub fn mark_unchanged(&mut self) {
        self.0.mark_unchanged();
    }

    /// Resolves once there is another leader, or none, as far as this node knows.
    pub async fn changed(&mut self) -> Result<(), watch::error::RecvError> {
        self.0.changed().await
    }
}

/// Those that nobody has told of yet, as far as this node knows; the oldest first.
#[derive(Debug)]
pub(crate) struct Ends(watch::Sender<Arc<Vec<Arc<Ended>>>>);

impl Default for Ends {
    fn default() -> Self {
        Self(watch::Sender::new(Arc::default()))
    }
}

impl Ends {
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<Vec<Arc<Ended>>>> {
        self.0.subscribe()
    }

    pub(crate) fn note(&self, owner: Owner, index: u64, before: &State) {
        // Without sockets there is nothing to tell, and without listeners nobody to tell it.
        let had_some = before.sockets_of(owner.node) > 0;
        if !had_some || self.0.receiver_count() == 0 {
            return;
        }
        let ended = Arc::new(Ended { owner, index, before: before.clone() });
        self.0.send_modify(|ends| {
            let ends = Arc::make_mut(ends);
            if ends.len() == KEPT_ENDS {
                ends.remove(0);
            }
            ends.push(ended);
        });
    }

    pub(crate) fn forget(&self, owner: Owner) {
        self.0.send_if_modified(|ends| {
            let knew = ends.iter().any(|ended| ended.owner == owner);
            if knew {
                Arc::make_mut(ends).retain(|ended| ended.owner != owner);
            }
            knew
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::state::{Change, NodeUp, Pid, Proposal, SessionId, SocketId, SocketUp};
    use super::*;

    #[derive(Default)]
    struct Log {
        state: State,
        index: u64,
    }

    impl Log {
        fn propose(&mut self, node: NodeId, incarnation: Incarnation, seq: u64, change: Change) {
            self.index += 1;
            let changes = vec![change];
            let proposal = Proposal { node, incarnation, first_seq: seq, stamp_ms: 0, changes };
            self.state.apply(self.index, proposal, &mut Vec::new());
        }

        /// Registers a node; its incarnation.
        fn register(&mut self, node: NodeId) -> Incarnation {
            let boot = self.index + 1;
            let up = NodeUp {
                boot,
                name: "n".into(),
                address: "a".into(),
                version: String::new().into(),
            };
            self.propose(node, 0, 1, Change::NodeUp(Box::new(up)));
            self.state.alive(node).unwrap()
        }

        fn socket(&mut self, node: NodeId, incarnation: Incarnation, seq: u64) -> SocketId {
            let socket = SocketId::random();
            let up = SocketUp {
                socket,
                pid: Pid::random(),
                namespace: "/".into(),
                session: SessionId::random(),
                rooms: ["r".into()].into_iter().collect(),
                keep_session_ms: 0,
                recovery: None,
            };
            self.propose(node, incarnation, seq, Change::SocketUp(Box::new(up)));
            socket
        }
    }

    #[test]
    fn sockets_of_the_dead_are_told_by_the_leader_or_another_witness() {
        let mut log = Log::default();
        let first = log.register(1);
        let second = log.register(2);
        log.register(3);
        let gone = log.socket(2, second, 1);
        log.socket(1, first, 1);
        let ends = Ends::default();
        let owner = Owner { node: 2, incarnation: second };
        ends.note(owner, 99, &log.state);
        let listener = ends.subscribe();
        assert!(listener.borrow().is_empty(), "nobody listened");

        let before = log.state.clone();
        log.propose(1, first, 2, Change::NodeDown { node: 2, incarnation: second });
        ends.note(owner, log.index, &before);
        let ended = listener.borrow()[0].clone();
        let told: Vec<_> = ended.sockets(&log.state).map(|socket| socket.id()).collect();
        assert_eq!(told, [gone]);
        assert_eq!(ended.teller(&log.state, Some(3)), Some(3));
        assert_eq!(ended.teller(&log.state, None), Some(1));
        // A leader that was not there knows nothing of it; nor does the dead node's next process.
        log.register(1);
        assert_eq!(ended.teller(&log.state, Some(1)), Some(3));
        log.register(2);
        assert_eq!(ended.teller(&log.state, Some(2)), Some(3));

        ends.forget(owner);
        assert!(listener.borrow().is_empty());
    }

    #[test]
    fn ends_that_nobody_tells_of_are_bounded() {
        let mut log = Log::default();
        let incarnation = log.register(1);
        log.socket(1, incarnation, 1);
        let ends = Ends::default();
        let listener = ends.subscribe();
        for index in 0..=KEPT_ENDS as u64 {
            ends.note(Owner { node: 1, incarnation: index }, index, &log.state);
        }
        let indexes: Vec<_> = listener.borrow().iter().map(|ended| ended.index).collect();
        assert_eq!(indexes, (1..=KEPT_ENDS as u64).collect::<Vec<_>>());
    }
}
