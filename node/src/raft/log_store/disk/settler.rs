//! Waits for the disk, on behalf of those who must not keep the log open.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, Weak};

use tokio::sync::oneshot;

use super::{Log, Written};

/// Waits for what a log has taken to be stored.
#[derive(Clone)]
pub(crate) struct Settler(Weak<Mutex<Log>>);

impl fmt::Debug for Settler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settler").finish_non_exhaustive()
    }
}

impl Settler {
    pub(super) fn of(log: &Arc<Mutex<Log>>) -> Self {
        Self(Arc::downgrade(log))
    }

    /// Resolves once all that was written before is stored; an error if it was not, or if the log
    /// is closed.
    pub(crate) async fn settle(&self) -> io::Result<()> {
        let (sender, written) = oneshot::channel();
        {
            let log = self.0.upgrade().ok_or_else(|| io::Error::other("the log is closed"))?;
            let mut log = log.lock().expect("nothing panics while it holds the log");
            log.settle(Written::Vote(sender))?;
        }
        written.await.map_err(|_| io::Error::other("the log's thread ended"))?
    }
}
