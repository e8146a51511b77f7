//! The threads that consensus runs on, beside those that serve clients.

use std::io;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::oneshot;

const NAME: &str = "raft";

/// A runtime of consensus's own.
#[derive(Debug)]
pub(crate) struct OwnThreads {
    handle: Handle,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// One thread, which has nobody to share its tasks with, and so needs no scheduler for several.
    One {
        /// Takes how long the tasks may go on.
        end: oneshot::Sender<Duration>,
        thread: JoinHandle<()>,
    },
    Several(Runtime),
}

impl OwnThreads {
    pub(crate) fn start(threads: usize) -> io::Result<Self> {
        if threads > 1 {
            let runtime = Builder::new_multi_thread()
                .worker_threads(threads)
                .thread_name(NAME)
                .enable_all()
                .build()?;
            return Ok(Self { handle: runtime.handle().clone(), kind: Kind::Several(runtime) });
        }
        let runtime = Builder::new_current_thread().thread_name(NAME).enable_all().build()?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel();
        let thread = thread::Builder::new().name(NAME.to_owned()).spawn(move || {
            // Whoever drops the other end does not wait.
            let patience = runtime.block_on(ended).unwrap_or_default();
            runtime.shutdown_timeout(patience);
        })?;
        Ok(Self { handle, kind: Kind::One { end, thread } })
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Ends the tasks; waits at most so long for those that block. Not to be called where others run.
    pub(crate) fn shutdown(self, patience: Duration) {
        match self.kind {
            Kind::Several(runtime) => runtime.shutdown_timeout(patience),
            Kind::One { end, thread } => {
                // It runs until it is told to end, so that it hears of it.
                let _ = end.send(patience);
                let _ = thread.join();
            }
        }
    }

    /// The same, without waiting.
    pub(crate) fn shutdown_background(self) {
        if let Kind::Several(runtime) = self.kind {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::task::TaskTracker;

    use super::*;

    #[test]
    fn tasks_run_and_end_with_their_threads() {
        for threads in [1, 2] {
            let own = OwnThreads::start(threads).unwrap();
            let (sender, receiver) = oneshot::channel();
            let (_held, never) = oneshot::channel::<()>();
            let task = async move {
                let name = thread::current().name().map(str::to_owned);
                sender.send(name).unwrap();
                let _ = never.await;
            };
            let task = TaskTracker::new().spawn_on(task, own.handle());
            assert_eq!(receiver.blocking_recv().unwrap().as_deref(), Some(NAME));
            own.shutdown(Duration::from_secs(60));
            assert!(task.is_finished(), "{threads}");
        }
    }

    #[test]
    fn thread_ends_with_its_owner() {
        let own = OwnThreads::start(1).unwrap();
        let (held, dropped) = oneshot::channel::<()>();
        let task = async move {
            let _held = held;
            std::future::pending::<()>().await;
        };
        TaskTracker::new().spawn_on(task, own.handle());
        own.shutdown_background();
        assert!(dropped.blocking_recv().is_err(), "its tasks are dropped");
    }
}
