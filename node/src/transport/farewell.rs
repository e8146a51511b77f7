//! The end of a node, as its clients' streams see it.

use tokio_util::sync::CancellationToken;

/// What tells streams that the node stops: first that they shall end, then that their time is over.
///
/// In between, a client is given what is queued for it. One that does not take it, or that never
/// finishes what it has begun, is waited for no longer than that.
#[derive(Clone)]
pub(crate) struct Farewell {
    begun: CancellationToken,
    over: CancellationToken,
}

impl Farewell {
    /// It begins with `shutdown`.
    pub(crate) fn new(shutdown: CancellationToken) -> Self {
        Self { begun: shutdown, over: CancellationToken::new() }
    }

    /// Cuts off whoever is still there.
    pub(crate) fn end(&self) {
        self.over.cancel();
    }

    /// Does `work`, unless the node stops meanwhile.
    pub(crate) async fn unless_begun<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        self.begun.run_until_cancelled(work).await
    }

    /// Does `work` as long as clients have time.
    pub(crate) async fn unless_over<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        self.over.run_until_cancelled(work).await
    }
}
