//! One timer for all deadlines of a connection.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep};

/// Deadlines mostly move away before they are reached: the timer is set again only when one comes
/// nearer, or when it fires too early.
pub(super) struct Timer {
    sleep: Pin<Box<Sleep>>,
    /// It wakes the task, and need not be polled before it has fired.
    is_armed: bool,
}

impl Timer {
    pub(super) fn new(deadline: Instant) -> Self {
        Self { sleep: Box::pin(tokio::time::sleep_until(deadline)), is_armed: false }
    }

    /// Ready once `deadline` has come. To be polled by one task alone: it is woken whoever polls later.
    pub(super) fn poll(&mut self, context: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        if deadline < self.sleep.deadline() {
            self.reset(deadline);
        }
        if self.is_armed && !self.sleep.is_elapsed() {
            return Poll::Pending;
        }
        while self.sleep.as_mut().poll(context).is_ready() {
            if deadline <= self.sleep.deadline() {
                return Poll::Ready(());
            }
            self.reset(deadline);
        }
        self.is_armed = true;
        Poll::Pending
    }

    fn reset(&mut self, deadline: Instant) {
        self.sleep.as_mut().reset(deadline);
        self.is_armed = false;
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
