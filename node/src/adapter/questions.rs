//! What nodes ask one another beside packets: server-side events, and what only an owner knows.

use std::sync::{Arc, Mutex};

use tokio::sync::mpsc;

use super::cluster::Cluster;
use super::gathers::Gathering;
use crate::metrics;
use crate::peers::{Message, Peers, Question};
use crate::raft::state::{Namespace, NodeId};
use crate::socketio::Payload;

/// Questions of peers that may wait for the application; beyond, they are dropped, and whoever
/// asked is told that there is no answer.
const INBOUND_QUESTIONS: usize = 4096;

/// A peer's question, in the order of the others of that peer.
#[derive(Debug)]
pub struct Asked {
    pub from: NodeId,
    pub namespace: Namespace,
    pub question: Question,
    pub reply: Reply,
}

/// The way back to whoever asked. Dropped unused, it says that there is no answer.
pub struct Reply {
    peers: Peers,
    to: NodeId,
    request: Option<u64>,
}

impl Reply {
    /// Whether anyone waits for an answer.
    pub fn is_wanted(&self) -> bool {
        self.request.is_some()
    }

    pub fn send(mut self, payload: Payload) {
        self.answer(Some(payload));
    }

    fn answer(&mut self, payload: Option<Payload>) {
        if let Some(request) = self.request.take() {
            // One that cannot be told gives up at its timeout, with what it has.
            let answer = Message::Answer { request, payload };
            if self.peers.send(self.to, answer).is_err() {
                let nothing = Message::Answer { request, payload: None };
                let _ = self.peers.send(self.to, nothing);
            }
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.answer(None);
    }
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reply").field("to", &self.to).field("request", &self.request).finish()
    }
}

/// The queue of peers' questions, and its other end until someone takes it.
#[derive(Debug)]
pub(super) struct Questions {
    sender: mpsc::Sender<Asked>,
    receiver: Mutex<Option<mpsc::Receiver<Asked>>>,
}

impl Default for Questions {
    fn default() -> Self {
        let (sender, receiver) = mpsc::channel(INBOUND_QUESTIONS);
        Self { sender, receiver: Mutex::new(Some(receiver)) }
    }
}

impl Cluster {
    /// What peers ask, for the layer above to answer; once, for there is one such layer.
    pub fn questions(&self) -> Option<mpsc::Receiver<Asked>> {
        self.questions.receiver.lock().expect("nothing panics while it holds the receiver").take()
    }

    pub(super) fn handle_question(
        &self,
        from: NodeId,
        request: Option<u64>,
        namespace: Namespace,
        question: Question,
    ) {
        let reply = Reply { peers: self.peers.clone(), to: from, request };
        let asked = Asked { from, namespace, question, reply };
        if self.questions.sender.try_send(asked).is_err() {
            metrics::DROPS_INBOUND_FULL.add(1);
        }
    }

    /// The other nodes that live.
    pub fn other_nodes(&self) -> Vec<NodeId> {
        let (view, me) = (self.view(), self.raft.node_id());
        let nodes = view.nodes().map(|(node, _)| node);
        nodes.filter(|node| *node != me && view.alive(*node).is_some()).collect()
    }

    /// Whether a node can be asked at the moment.
    pub fn is_in_reach(&self, node: NodeId) -> bool {
        self.peers.is_up(node)
    }

    /// Tells a node something that needs no answer, behind all that it was told before.
    pub fn tell_node(&self, node: NodeId, namespace: Namespace, question: Question) {
        // It is told at most once: what a full queue refuses is counted there.
        let _ = self.peers.send(node, Message::Ask { request: None, namespace, question });
    }

    /// Asks nodes, each of which gives one answer to each question. Not to be used for this node.
    pub fn ask_nodes(
        self: &Arc<Self>,
        namespace: &Namespace,
        asked: Vec<(NodeId, Question)>,
    ) -> Gathering {
        let (key, gathering) = self.gathers.open();
        self.gathers.feed(key, |gather| {
            for (node, _) in &asked {
                gather.handle_question(*node);
            }
        });
        for (node, question) in asked {
            let message =
                Message::Ask { request: Some(key), namespace: namespace.clone(), question };
            if self.peers.send(node, message).is_err() {
                self.gathers.feed(key, |gather| gather.handle_reply(node, None));
            }
        }
        self.gathers.feed(key, |gather| gather.handle_all_asked());
        gathering
    }
}
