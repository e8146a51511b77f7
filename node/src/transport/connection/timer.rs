//! One timer for all deadlines of a connection.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep};

/// Deadlines mostly move away before they are reached: the timer is set again only when one comes
/// nearer, or when it fires too early.
pub(super) struct Timer(Pin<Box<Sleep>>);

impl Timer {
    pub(super) fn new(deadline: Instant) -> Self {
        Self(Box::pin(tokio::time::sleep_until(deadline)))
    }

    /// Ready once `deadline` has come.
    pub(super) fn poll(&mut self, context: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        if deadline < self.0.deadline() {
            self.0.as_mut().reset(deadline);
        }
        while self.0.as_mut().poll(context).is_ready() {
            if deadline <= self.0.deadline() {
                return Poll::Ready(());
            }
            self.0.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn timer_fires_at_the_last_deadline_it_was_given() {
        let start = Instant::now();
        let millis = |millis| start + Duration::from_millis(millis);
        let mut timer = Timer::new(millis(5));
        poll_fn(|context| timer.poll(context, millis(20))).await;
        assert!(Instant::now() >= millis(20), "it was set too early, and is set again");

        let mut timer = Timer::new(start + Duration::from_secs(3600));
        poll_fn(|context| timer.poll(context, millis(30))).await;
        let fired = Instant::now();
        assert!(fired >= millis(30) && fired < start + Duration::from_secs(600));
    }
}
