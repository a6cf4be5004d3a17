//! Whether a role's loop still turns: what `/livez` answers, and what the service manager's watchdog is fed with.
//!
//! Alive is less than ready: a process that waits for a server is alive. One whose loop stands still is not, and nothing
//! but a restart mends it.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A loop that did not turn for this long stands still. Far above what a busy disk or a long turn takes, for the
/// answer to it is a restart.
pub const STUCK_AFTER: Duration = Duration::from_secs(30);
/// How often waiting counts as turning.
const WAITING: Duration = Duration::from_secs(1);

/// Held by the loop, which says that it turns, and by whoever asks. Its clock stands still while the machine is
/// suspended: nobody is to blame for that time.
#[derive(Clone, Debug)]
pub struct Pulse {
    began: Instant,
    turned_ms: Arc<AtomicU64>,
}

impl Default for Pulse {
    fn default() -> Self {
        Pulse { began: Instant::now(), turned_ms: Arc::default() }
    }
}

impl Pulse {
    /// The loop has come round.
    pub fn turned(&self) {
        self.turned_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    pub fn still(&self) -> Duration {
        Duration::from_millis(self.now_ms().saturating_sub(self.turned_ms.load(Ordering::Relaxed)))
    }

    /// Why it is not alive, if it is not.
    pub fn check(&self) -> Result<(), String> {
        match self.still() {
            still if still > STUCK_AFTER => Err(format!("the loop has not turned for {} s", still.as_secs())),
            _ => Ok(()),
        }
    }

    /// Does `work`, and counts as turning for as long as the task that does it is run at all. For what may wait long
    /// for others without being stuck: a replay, a lock, a server that is not there yet.
    pub async fn while_waiting<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        let mut tick = tokio::time::interval(WAITING);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            self.turned();
            tokio::select! {
                done = &mut work => return done,
                _ = tick.tick() => {}
            }
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_that_stands_still_is_told_by_how_long() {
        let mut pulse = Pulse::default();
        assert_eq!(pulse.check(), Ok(()));
        pulse.began -= Duration::from_secs(100);
        let why = pulse.check().expect_err("it never turned");
        assert!(why.contains("100 s"), "{why}");
        let asked = pulse.clone();
        pulse.turned();
        assert_eq!(asked.check(), Ok(()));
    }

    #[tokio::test]
    async fn who_waits_is_alive() {
        let mut pulse = Pulse::default();
        pulse.began -= Duration::from_secs(100);
        assert!(pulse.check().is_err());
        let asked = pulse.clone();
        pulse.while_waiting(async move { assert_eq!(asked.check(), Ok(())) }).await;
    }
}
