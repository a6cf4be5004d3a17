//! Trying again: how long to wait between tries, and when to stop.
//!
//! Sits under everything here that talks to a server. It does not know which failures may pass: each caller says.

use backon::{ExponentialBuilder, Retryable as _};
use std::fmt::Display;
use std::time::Duration;
use tokio::time::Instant;

/// The first wait is about a local round trip's time, so that a hiccup costs nothing to speak of.
const DELAY_MIN: Duration = Duration::from_millis(20);
/// Waits grow to this and no further: an election ends after seconds, and nobody should oversleep it by more.
const DELAY_MAX: Duration = Duration::from_millis(500);

/// Does `attempt` until it succeeds, fails for good by `passes`, or `bound` is over when it fails.
///
/// Errors: the last failure.
pub(crate) async fn retry<T, E, F, Fut>(
    what: &'static str,
    bound: Duration,
    passes: impl Fn(&E) -> bool,
    attempt: F,
) -> Result<T, E>
where
    E: Display,
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    let begun = Instant::now();
    let delays = ExponentialBuilder::default()
        .with_min_delay(DELAY_MIN)
        .with_max_delay(DELAY_MAX)
        .with_factor(2.0)
        .with_jitter()
        .without_max_times();
    let mut tries = 0u32;
    attempt
        .retry(delays)
        .when(|error| passes(error) && begun.elapsed() < bound)
        .notify(|error, delay| {
            tries += 1;
            // Once it takes noticeably long, say so, but not at every try.
            if tries.is_power_of_two() && tries >= 8 {
                tracing::warn!(
                    tries,
                    waited_ms = begun.elapsed().as_millis() as u64,
                    "still trying to {what}: {error}"
                );
            } else {
                tracing::debug!(tries, delay_ms = delay.as_millis() as u64, "trying again to {what}: {error}");
            }
        })
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_passes_is_tried_again_until_the_bound() {
        let mut tries = 0;
        let result = retry(
            "count",
            Duration::from_secs(60),
            |_: &String| true,
            || {
                tries += 1;
                std::future::ready(if tries < 10 { Err(format!("try {tries}")) } else { Ok(tries) })
            },
        );
        assert_eq!(result.await, Ok(10));

        let begun = Instant::now();
        let never =
            retry("fail", Duration::from_secs(3), |_: &String| true, || async { Err::<(), _>("no".to_owned()) });
        assert_eq!(never.await, Err("no".to_owned()));
        assert!(begun.elapsed() >= Duration::from_secs(3) && begun.elapsed() < Duration::from_secs(5));
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_pass_is_tried_once() {
        let mut tries = 0;
        let result = retry(
            "fail",
            Duration::from_secs(60),
            |_: &String| false,
            || {
                tries += 1;
                async { Err::<(), _>("no".to_owned()) }
            },
        );
        assert_eq!(result.await, Err("no".to_owned()));
        assert_eq!(tries, 1);
    }
}
