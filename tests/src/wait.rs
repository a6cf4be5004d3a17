//! Waiting for conditions.

use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(30);

/// Asks again and again until there is an answer, and gives it. Panics with `what` when the bound is over.
pub async fn wait_until<T, F, A>(what: &str, bound: Duration, mut answer: F) -> T
where
    F: FnMut() -> A,
    A: Future<Output = Option<T>>,
{
    let began = Instant::now();
    loop {
        if let Some(found) = answer().await {
            return found;
        }
        assert!(began.elapsed() < bound, "waited {} s for this, in vain: {what}", bound.as_secs());
        tokio::time::sleep(POLL).await;
    }
}

/// The same, where there is nothing to give.
pub async fn wait_until_true<F, A>(what: &str, bound: Duration, mut condition: F)
where
    F: FnMut() -> A,
    A: Future<Output = bool>,
{
    wait_until(what, bound, || {
        let holds = condition();
        async move { holds.await.then_some(()) }
    })
    .await
}
