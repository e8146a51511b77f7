//! The emits of this node that wait for acks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use tokio::sync::oneshot;

use super::acks::{Answers, Gather};
use crate::raft::state::NodeId;

/// Open gathers by key. A gather ends when it is over, or when whoever awaits it gives up.
#[derive(Debug, Default)]
pub(super) struct Gathers {
    next_key: AtomicU64,
    open: Mutex<HashMap<u64, Open, FixedState>>,
}

#[derive(Debug)]
struct Open {
    gather: Gather,
    done: oneshot::Sender<Answers>,
}

impl Gathers {
    /// Opens a gather; its key travels with the packet.
    pub(super) fn open(self: &Arc<Self>) -> (u64, Gathering) {
        let key = self.next_key.fetch_add(1, Ordering::Relaxed);
        let (done, answers) = oneshot::channel();
        self.lock().insert(key, Open { gather: Gather::new(), done });
        (key, Gathering { key, gathers: self.clone(), answers })
    }

    /// Feeds one gather, if it is still open, and ends it if nothing more is to come.
    pub(super) fn feed(&self, key: u64, feed: impl FnOnce(&mut Gather)) {
        let mut open = self.lock();
        let Some(entry) = open.get_mut(&key) else { return };
        feed(&mut entry.gather);
        if entry.gather.is_over()
            && let Some(mut entry) = open.remove(&key)
        {
            drop(open);
            // Whoever asked may have given up in this moment.
            let _ = entry.done.send(entry.gather.take());
        }
    }

    pub(super) fn handle_node_down(&self, node: NodeId) {
        let keys: Vec<u64> = self.lock().keys().copied().collect();
        for key in keys {
            self.feed(key, |gather| gather.handle_node_down(node));
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Open, FixedState>> {
        self.open.lock().expect("nothing panics while it holds the gathers")
    }
}

/// The acks of one emit, on their way. Dropping it gives them up.
#[derive(Debug)]
pub struct Gathering {
    key: u64,
    gathers: Arc<Gathers>,
    answers: oneshot::Receiver<Answers>,
}

impl Gathering {
    /// Waits until all have answered, at most for `timeout`; then what there is.
    pub async fn answers(mut self, timeout: Duration) -> Answers {
        match tokio::time::timeout(timeout, &mut self.answers).await {
            Ok(Ok(answers)) => answers,
            Ok(Err(_)) | Err(_) => {
                let open = self.gathers.lock().remove(&self.key);
                open.map(|mut open| open.gather.take()).unwrap_or_default()
            }
        }
    }
}

impl Drop for Gathering {
    fn drop(&mut self) {
        self.gathers.lock().remove(&self.key);
    }
}
