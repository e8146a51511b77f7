//! Waits for a condition, and says what it saw last when the deadline passes.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

/// How long a cluster story waits for what should come soon, even on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The condition did not come true in time.
#[derive(Debug)]
pub struct TimedOut {
    what: String,
    within: Duration,
    last_seen: String,
}

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, within, last_seen } = self;
        write!(f, "waited {within:?} for {what}; last seen: {last_seen}")
    }
}

impl std::error::Error for TimedOut {}

/// Looks again and again until `look` returns `Ok`; an `Err` tells what was seen instead.
///
/// One look that hangs is cut off at the deadline, too.
pub async fn try_until<T, S: fmt::Debug>(
    what: &str,
    within: Duration,
    mut look: impl AsyncFnMut() -> Result<T, S>,
) -> Result<T, TimedOut> {
    let deadline = Instant::now() + within;
    let mut last_seen = "nothing: the first look did not end".to_owned();
    loop {
        match tokio::time::timeout_at(deadline, look()).await {
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(seen)) => last_seen = format!("{seen:?}"),
            Err(_elapsed) => {}
        }
        if Instant::now() + LOOK_EVERY >= deadline {
            return Err(TimedOut { what: what.to_owned(), within, last_seen });
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// As [`try_until`], with the usual patience, and ends the test when the condition stays away.
pub async fn until<T, S: fmt::Debug>(what: &str, look: impl AsyncFnMut() -> Result<T, S>) -> T {
    match try_until(what, PATIENCE, look).await {
        Ok(found) => found,
        Err(timed_out) => panic!("{timed_out}"),
    }
}

/// Turns a condition into what [`until`] asks for: `Ok` if it holds, else what was seen.
pub fn holds<S>(condition: bool, seen: S) -> Result<(), S> {
    if condition { Ok(()) } else { Err(seen) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_failed_wait_names_what_it_saw_last() {
        let mut looks = 0;
        let failed = try_until("ten", Duration::from_millis(45), async || {
            looks += 1;
            holds(looks == 10, looks)
        })
        .await
        .unwrap_err();
        let text = failed.to_string();
        assert!(text.starts_with("waited 45ms for ten; last seen: "), "{text}");
        assert!(looks > 1, "it looked more than once");
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_that_hangs_is_cut_off() {
        let failed = try_until("an answer", Duration::from_secs(1), async || {
            std::future::pending::<Result<(), ()>>().await
        })
        .await
        .unwrap_err();
        assert!(failed.to_string().contains("did not end"), "{failed}");
    }
}
