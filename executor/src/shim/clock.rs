//! The clock of deadlines: time since boot, suspension included.
//!
//! The executor and its shims run on one host, so a point of `CLOCK_BOOTTIME` means the same to both. Deadlines
//! therefore cross the control channel as points in time and not as "so many milliseconds from now": an extension
//! that waited in a socket while the machine slept must not count from the moment it is read.
//!
//! Deliberately not here: wall-clock time, and anything that is compared between hosts.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// A point in time on this host: nanoseconds since it booted, on the clock that goes on during suspension.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BootTime(u64);

impl BootTime {
    /// The present moment.
    pub fn now() -> Self {
        let now = clock_gettime(ClockId::Boottime);
        // Both fields of the kernel's answer are never negative for this clock.
        let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
        let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
        Self(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
    }

    /// This moment plus `span`; the end of time if that is too far away to be counted.
    pub fn after(self, span: Duration) -> Self {
        let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }

    /// How long ago `earlier` was, as seen from this moment; zero if it is still to come.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// Seconds and nanoseconds since boot, as timers take them.
    pub(crate) fn parts(self) -> (i64, i64) {
        let seconds = i64::try_from(self.0 / 1_000_000_000).unwrap_or(i64::MAX);
        let nanos = i64::try_from(self.0 % 1_000_000_000).unwrap_or(0);
        (seconds, nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on_and_arithmetic_saturates() {
        let start = BootTime::now();
        assert!(BootTime::now() >= start);
        assert_eq!(start.after(Duration::from_millis(5)).since(start), Duration::from_millis(5));
        assert_eq!(start.since(start.after(Duration::from_secs(1))), Duration::ZERO);
        assert_eq!(start.after(Duration::MAX), BootTime(u64::MAX));
        assert_eq!(BootTime(1_500_000_000).parts(), (1, 500_000_000));
    }
}
