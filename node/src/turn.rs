//! Lets other tasks go first.

use std::future::poll_fn;
use std::task::Poll;

/// Goes on after the tasks of this thread that are ready by now.
///
/// `tokio::task::yield_now` looks for news of sockets and timers as well, which is a system call.
pub(crate) async fn others_first() {
    let mut is_their_turn = true;
    poll_fn(|context| {
        if !std::mem::take(&mut is_their_turn) {
            return Poll::Ready(());
        }
        // Whoever wakes itself while it runs goes to the end of the queue.
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use tokio_util::task::TaskTracker;

    use super::*;

    #[tokio::test]
    async fn those_that_are_ready_go_first_and_once() {
        let (sender, mut said) = tokio::sync::mpsc::channel(4);
        let tasks = TaskTracker::new();
        for name in ["a", "b"] {
            let sender = sender.clone();
            tasks.spawn(async move {
                sender.try_send(name).unwrap();
                others_first().await;
                sender.try_send(name).unwrap();
            });
        }
        tasks.close();
        tasks.wait().await;
        let order: Vec<_> = std::iter::from_fn(|| said.try_recv().ok()).collect();
        assert_eq!(order, ["a", "b", "a", "b"]);
    }
}
