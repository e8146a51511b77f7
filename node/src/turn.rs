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
